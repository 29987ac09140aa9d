//! The three configuration files of the README are taken as they stand, but for where things are.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use softhsm_tests::binaries::binaries;
use softhsm_tests::officers::Officers;
use softhsm_tests::pki::Authority;
use softhsm_tests::process::Process;
use softhsm_tests::scratch::{self, Scratch};
use softhsm_tests::story;
use softhsm_tests::token::TokenStore;
use softhsm_tests::tools::{run, softhsm_module};
use softhsm_tests::tsig::Key;
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
        let secret = Key::new("readme.")?.secret_file(scratch, User::Daemon)?;
        let readme = "/etc/countersign/tsig/ns2.secret";
        put(&mut conf, readme, &secret.display().to_string())?;
        let path = scratch.file("daemon.toml", &conf, User::Daemon, 0o600)?;
        let mut check = command(User::Daemon, &binaries()?.cli)?;
        let output = run(check.args(["config", "check"]).arg(&path))?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    });
}

/// The README's tokens and people are made, the founding is drafted from its file, signed by everyone, pinned and
/// submitted as it says, and the keeper comes back founded.
#[test]
fn the_readmes_keeper_configuration_and_founding_are_taken() {
    story(|scratch| {
        let [mut conf, mut draft, _] = files()?;
        let store = TokenStore::new(scratch)?;
        let dir = scratch.dir("keeper", User::Keeper, 0o755)?;
        let place = dir.display().to_string();
        for (name, serial) in [("ksk", "6b1f8a2e0c9d4e17"), ("zsk", "0d4e6b1f8a2e9c17")] {
            let token = store.init(name, "pin-of-a-test")?;
            put(&mut conf, serial, &token.serial)?;
            let pin = format!("keeper/{name}-a.pin");
            scratch.file(&pin, "pin-of-a-test", User::Keeper, 0o400)?;
        }
        put(&mut conf, "/var/lib/countersign-keeper", &format!("{place}/state"))?;
        put(&mut conf, "/run/countersign-keeper", &place)?;
        put(&mut conf, "/etc/countersign-keeper", &place)?;
        let module = softhsm_module()?.display().to_string();
        put(&mut conf, "/usr/lib/softhsm/libsofthsm2.so", &module)?;
        let daemon = User::Daemon.number();
        put(&mut conf, "\"countersign\"", &format!("\"{daemon}\""))?;
        let group = format!("group = \"{}\"", shared_group());
        put(&mut conf, &format!("group = \"{daemon}\""), &group)?;
        let path = scratch.file("keeper/keeper.toml", &conf, User::Keeper, 0o600)?;
        let keeper = |socket: &str| start(scratch, &store, &path, &dir.join(socket));
        let mut unfounded = keeper("ledger.sock")?;

        // kurt has no hardware here.
        put(&mut draft, "verify-required:kurt-sk.pub", "kurt.pub")?;
        let people = ["olga", "kay", "kim", "kurt"];
        let mut officers = Officers::new(scratch, &dir.join("ledger.sock"))?;
        for person in people {
            if !officers.people.contains_key(person) {
                officers.meet(person, "as the draft says", &["ed25519"])?;
            }
        }
        let at = officers.dir().join("signer-1.toml");
        scratch::write(&at, &draft, User::Harness, 0o644)?;
        let text = officers.dir().join("signer-1.founding").display().to_string();
        let from = at.display().to_string();
        let drafted = until("the survey", SOON, || {
            officers.json("olga", &["found", "draft", "--from", &from, "--out", &text])
        })?;
        let hash = drafted["hash"].as_str().context("a hash")?.to_owned();
        for person in people {
            officers.ok(person, &["found", "sign", &text])?;
        }
        put(&mut conf, "# founding = \"…\" ", &format!("founding = \"{hash}\" "))?;
        scratch.file("keeper/keeper.toml", &conf, User::Keeper, 0o600)?;
        let signatures = people.map(|person| format!("{text}.{person}.sig"));
        let mut submit = vec!["found", "submit", &text];
        submit.extend(signatures.iter().map(String::as_str));
        officers.ok("olga", &submit)?;
        ensure!(unfounded.wait(SOON)?.code() == Some(5));
        let _founded = keeper("keeper.sock")?;
        officers.founding = Some(hash);
        policy_binding_key(&officers)
    });
}

/// The README's three motions, with the README's zone.
fn policy_binding_key(officers: &Officers) -> Result<()> {
    for motion in [
        &["set-policy", "--name", "default", "--ksk-group", "ksk", "--zsk-group", "zsk"][..],
        &["bind-zone", "--zone", "example.com.", "--policy", "default"],
        &["generate-key", "--zone", "example.com.", "--role", "ksk", "--activate"],
    ] {
        let id = officers.propose("olga", motion)?;
        officers.approve(&["kay", "kim"], &id)?;
        officers.wait_for("kurt", &id, "done")?;
    }
    Ok(())
}

fn start(scratch: &Scratch, store: &TokenStore, conf: &Path, socket: &Path) -> Result<Process> {
    let mut keeper = command(User::Keeper, &binaries()?.keeper)?;
    keeper.arg("--config").arg(conf).env("SOFTHSM2_CONF", &store.conf);
    let log = scratch.path().join("keeper.log");
    let mut process = Process::spawn("countersign-keeper", keeper, &log)?;
    until("the keeper's socket", SOON, || {
        process.check_running()?;
        std::os::unix::net::UnixStream::connect(socket).map(drop)?;
        Ok(())
    })?;
    Ok(process)
}
