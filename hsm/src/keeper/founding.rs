//! The lab founding: read from a file that only the keeper's user or root can write, and written to
//! the ledger whole, at first and whenever it changed.

use std::path::Path;

use countersign_policy::founding::LabFounding;

use super::config::{ConfigError, check_guarded, read_bounded};
use crate::ledger::{Ledger, WriteError};

/// 200,000 bindings of long names.
const FOUNDING_BYTES_MAX: u64 = 64 << 20;

/// Reads and checks the file. It decides over keys, so whoever else could write it is named.
pub fn load(path: &Path) -> Result<LabFounding, ConfigError> {
    let fail = |problem: String| ConfigError { path: path.to_owned(), problem };
    let directory = path.parent().unwrap_or(Path::new("/"));
    for guarded in [path, directory] {
        let metadata = std::fs::metadata(guarded).map_err(|e| fail(e.to_string()))?;
        check_guarded(guarded, &metadata).map_err(fail)?;
    }
    let octets = read_bounded(path, FOUNDING_BYTES_MAX).map_err(fail)?;
    let text = std::str::from_utf8(&octets).map_err(|e| fail(e.to_string()))?;
    let founding: LabFounding =
        toml::from_str(text).map_err(|e| fail(e.to_string().trim_end().to_owned()))?;
    founding.check().map_err(|e| fail(e.to_string()))?;
    Ok(founding)
}

/// Makes `founding` the one in force, by a line of the ledger if it is not already; whether it
/// changed.
pub fn enforce(ledger: &Ledger, founding: LabFounding, now_s: u64) -> Result<bool, WriteError> {
    tracing::warn!(
        appliance = founding.appliance,
        "lab founding: no quorum. Whoever can write the founding file decides over the keys, and \
         keys made under it are lab keys for good"
    );
    if ledger.read(|state| state.founding().is_some_and(|(_, now)| *now == founding)) {
        return Ok(false);
    }
    let (zones, policies) = (founding.zone.len(), founding.policy.len());
    let line = ledger.found(founding, now_s)?;
    tracing::info!(line, zones, policies, "a new founding is in force");
    Ok(true)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    pub(crate) const WHOLE: &str = r#"
appliance = "lab-1"
[token.ksk-a]
label = "ksk"
serial = "1"
group = "ksk"
[token.zsk-a]
label = "zsk"
serial = "2"
group = "zsk"
[policy.default]
algorithm = 13
keys = "ksk-zsk"
ksk_group = "ksk"
zsk_group = "zsk"
denial = "nsec3"
serial = "unixtime"
dnskey_ttl_s = 3600
ttl_max_s = 86400
validity_s = 1209600
refresh_s = 604800
inception_offset_s = 3600
[zone."example."]
policy = "default"
"#;

    fn written(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("lab-founding.toml");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode");
        (dir, path)
    }

    #[test]
    fn a_founding_is_read_and_its_faults_have_a_place() {
        let (_dir, path) = written(WHOLE);
        assert_eq!(load(&path).expect("whole").zone.len(), 1);
        let check = |from: &str, to: &str, expect: &str| {
            let (_dir, path) = written(&WHOLE.replacen(from, to, 1));
            let error = load(&path).expect_err(expect).to_string();
            assert!(error.contains(expect), "{error}");
        };
        check("keys = ", "key = ", "line 13, column 1");
        check("algorithm = 13", "algorithm = 5", "algorithm 5 is not supported");
        check("\"example.\"", "\"exa..mple\"", "empty label");
        check("policy = \"default\"", "policy = \"gone\"", "not defined");
    }

    #[test]
    fn a_founding_that_others_can_write_is_refused() {
        let (dir, path) = written(WHOLE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).expect("mode");
        let error = load(&path).expect_err("group can write").to_string();
        assert!(error.contains("mode 0620") && error.contains("chmod go-w"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("mode");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("mode");
        assert!(load(&path).is_err(), "its directory lets anyone replace it");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("mode");
        assert!(load(&path).is_ok());
    }

    #[test]
    fn a_changed_founding_is_a_line_and_an_unchanged_one_is_none() {
        let (_file, path) = written(WHOLE);
        let dir = tempfile::tempdir().expect("dir");
        let ledger = Ledger::open(dir.path()).expect("opens");
        assert!(enforce(&ledger, load(&path).expect("whole"), 1).expect("written"));
        assert!(!enforce(&ledger, load(&path).expect("whole"), 2).expect("in force"));
        fs::write(&path, format!("{WHOLE}[zone.\"other.\"]\npolicy = \"default\"\n")).expect("new");
        assert!(enforce(&ledger, load(&path).expect("whole"), 3).expect("written"));
        assert_eq!(ledger.head().0, 2);
        fs::write(&path, WHOLE.replace("lab-1", "lab-2")).expect("new");
        let error =
            enforce(&ledger, load(&path).expect("whole"), 4).expect_err("another appliance");
        assert!(error.to_string().contains("can't become"), "{error}");
    }
}
