//! The three configuration files of the README are taken as they stand, but for where things are.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use softhsm_tests::binaries::binaries;
use softhsm_tests::pki::Authority;
use softhsm_tests::process::Process;
use softhsm_tests::scratch::Scratch;
use softhsm_tests::story;
use softhsm_tests::tools::{run, softhsm_module};
use softhsm_tests::users::{User, command, shared_group};
use softhsm_tests::wait::{SOON, until};

/// The README's blocks in TOML: the keeper's, the founding, the daemon's.
fn files() -> Result<[String; 3]> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let blocks: Vec<String> = text
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once("```")?.0.to_owned()))
        .collect();
    blocks.try_into().map_err(|found: Vec<_>| anyhow::anyhow!("{} TOML blocks", found.len()))
}

/// Replaces `from`, which must be there.
fn put(text: &mut String, from: &str, to: &str) -> Result<()> {
    ensure!(text.contains(from), "{from:?} is not in\n{text}");
    *text = text.replace(from, to);
    Ok(())
}

#[test]
fn the_readmes_daemon_configuration_is_taken() {
    story(|scratch| {
        let [_, _, mut conf] = files()?;
        let authority = Authority::new(scratch, "ca")?;
        let signer = authority.issue(scratch, "signer.test", User::Daemon)?;
        let tls = "/etc/countersign/tls/";
        put(&mut conf, &format!("{tls}signer.pem"), &signer.cert.display().to_string())?;
        put(&mut conf, &format!("{tls}signer.key"), &signer.key.display().to_string())?;
        put(&mut conf, &format!("{tls}ca.pem"), &authority.ca.display().to_string())?;
        let path = scratch.file("daemon.toml", &conf, User::Daemon, 0o600)?;
        let mut check = command(User::Daemon, &binaries()?.cli)?;
        let output = run(check.args(["config", "check"]).arg(&path))?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    });
}

#[test]
fn the_readmes_keeper_configuration_and_founding_are_taken() {
    story(|scratch| {
        let [mut conf, founding, _] = files()?;
        let dir = scratch.dir("keeper", User::Keeper, 0o755)?;
        let place = dir.display().to_string();
        put(&mut conf, "/var/lib/countersign-keeper", &format!("{place}/state"))?;
        put(&mut conf, "/run/countersign-keeper", &place)?;
        put(&mut conf, "/etc/countersign-keeper", &place)?;
        put(
            &mut conf,
            "/usr/lib/softhsm/libsofthsm2.so",
            &softhsm_module()?.display().to_string(),
        )?;
        put(&mut conf, "\"countersign\"", &format!("\"{}\"", User::Daemon.number()))?;
        put(
            &mut conf,
            &format!("group = \"{}\"", User::Daemon.number()),
            &format!("group = \"{}\"", shared_group()),
        )?;
        scratch.file("keeper/lab-founding.toml", &founding, User::Keeper, 0o600)?;
        for token in ["ksk-a", "zsk-a"] {
            scratch.file(&format!("keeper/{token}.pin"), "not-used", User::Keeper, 0o400)?;
        }
        let path = scratch.file("keeper/keeper.toml", &conf, User::Keeper, 0o600)?;
        start(scratch, &path, &dir.join("keeper.sock"))
    });
}

/// The README's tokens are not on this machine: the keeper serves without them, and says so.
fn start(scratch: &Scratch, conf: &Path, socket: &Path) -> Result<()> {
    let mut keeper = command(User::Keeper, &binaries()?.keeper)?;
    keeper.arg("--config").arg(conf);
    let log = scratch.path().join("keeper.log");
    let mut process = Process::spawn("countersign-keeper", keeper, &log)?;
    until("the keeper's socket", SOON, || {
        process.check_running()?;
        std::os::unix::net::UnixStream::connect(socket).map(drop)?;
        Ok(())
    })?;
    let log = std::fs::read_to_string(&log)?;
    ensure!(log.contains("lab founding: no quorum"), "no warning of a lab founding in\n{log}");
    Ok(())
}
