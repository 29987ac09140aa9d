//! Both configuration files: whole, or a list of what is wrong that can be shown.
#![no_main]

use std::path::Path;

use countersign_hsm::keeper::config::KeeperConfig;
use countersign_signer::config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&whose, octets)) = data.split_first() else { return };
    if whose % 2 == 1 {
        let _ =
            KeeperConfig::parse(octets.to_vec()).map_err(|problem| assert!(!problem.is_empty()));
        return;
    }
    let Ok(text) = std::str::from_utf8(octets) else { return };
    match config::parse(Path::new("d.toml"), text) {
        Ok(config) => {
            assert!(config.needs_restart(&config).is_empty(), "it is what it is");
            for zone in config.zones.values() {
                assert!(!zone.primaries.is_empty() || !zone.push_from.is_empty());
                let known = |name: &String| config.peers.contains_key(name);
                assert!(zone.primaries.iter().chain(&zone.secondaries).all(known));
            }
        }
        Err(error) => assert!(error.count() > 0 && error.to_string().starts_with("d.toml")),
    }
});
