//! Programs of another user are asked before a version is signed, and before it is published: they let
//! it pass, hold it for a person, or refuse it. One that hangs, talks nonsense or is gone does what its
//! configuration says, and what is up stays up.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::process::Process;
use softhsm_tests::scratch::{Scratch, write};
use softhsm_tests::story;
use softhsm_tests::tools::{run, tool};
use softhsm_tests::users::{User, command};
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};

/// Does what its file says, and writes down what it was asked.
const HOOK: &str = r#"import os, socket, subprocess, sys
path, mood_file, seen_file, example = sys.argv[1:5]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
os.chmod(path, 0o666)
listener.listen(16)
hanging = []
while True:
    connection, _ = listener.accept()
    question = b""
    while part := connection.recv(65536):
        question += part
    with open(seen_file, "ab") as seen:
        seen.write(question + b"\n")
    mood = open(mood_file).read().strip()
    try:
        if mood == "hang":
            hanging.append(connection)
            continue
        if mood == "nonsense":
            connection.sendall(b"yes, why not")
        elif mood == "flood":
            connection.sendall(b" " * 1000000)
        elif mood == "example":
            done = subprocess.run([sys.executable, example], input=question, stdout=subprocess.PIPE)
            connection.sendall(done.stdout)
        elif mood != "silence":
            connection.sendall(('{"verdict": "%s", "reason": "so it is told"}' % mood).encode())
    except OSError:
        pass
    connection.close()
"#;

const EXAMPLE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/examples/countersign-hook-example");

/// A hook of a stranger's.
struct Hook {
    socket: PathBuf,
    mood: PathBuf,
    seen: PathBuf,
    _process: Process,
}

impl Hook {
    fn start(scratch: &Scratch, name: &str) -> Result<Self> {
        let dir = scratch.dir(name, User::Stranger, 0o755)?;
        let (socket, mood, seen) = (dir.join("hook.sock"), dir.join("mood"), dir.join("seen"));
        let script = scratch.file(&format!("{name}.py"), HOOK, User::Stranger, 0o644)?;
        let example = scratch.file(
            &format!("{name}-example"),
            &std::fs::read_to_string(EXAMPLE)?,
            User::Stranger,
            0o644,
        )?;
        write(&mood, "pass", User::Stranger, 0o644)?;
        let mut command = command(User::Stranger, Path::new("/usr/bin/python3"))?;
        command.arg(script).arg(&socket).arg(&mood).arg(&seen).arg(example);
        let mut process =
            Process::spawn(name, command, &scratch.path().join(format!("{name}.log")))?;
        until("the hook's socket", SOON, || {
            process.check_running()?;
            ensure!(std::os::unix::net::UnixStream::connect(&socket).is_ok());
            Ok(())
        })?;
        Ok(Self { socket, mood, seen, _process: process })
    }

    fn be(&self, mood: &str) -> Result<()> {
        write(&self.mood, mood, User::Stranger, 0o644)
    }

    /// What it was asked last.
    fn asked(&self) -> Result<serde_json::Value> {
        let seen = std::fs::read_to_string(&self.seen)?;
        let last = seen.lines().rfind(|line| !line.is_empty()).context("it was not asked")?;
        Ok(serde_json::from_str(last)?)
    }
}

/// A chain with a hook before signing, which holds what it fails at, and one before publishing, which
/// lets that pass.
fn with_hooks(scratch: &Scratch) -> Result<(Chain<'_>, Hook, Hook)> {
    let (first, last) = (Hook::start(scratch, "first")?, Hook::start(scratch, "last")?);
    let hook = |name: &str, hook: &Hook, before: &str, on_failure: &str| {
        format!(
            "[hook.{name}]\nsocket = \"{}\"\nbefore = \"{before}\"\ntimeout_ms = 2000\n\
             on_failure = \"{on_failure}\"\n",
            hook.socket.display()
        )
    };
    let daemon_more =
        hook("first", &first, "signing", "hold") + &hook("last", &last, "publishing", "pass");
    let chain = Chain::start_with(scratch, Plan { daemon_more, ..Plan::default() }, |chain| {
        "hooks = [\"first\", \"last\"]".clone_into(&mut chain.daemon_spec.zone_keys);
    })?;
    Ok((chain, first, last))
}

fn held(chain: &Chain<'_>, serial: u32, why: &str) -> Result<()> {
    let reason = until("a held version", SOON, || {
        let shown = chain.daemon.zone_show()?;
        ensure!(shown["held"]["serial"] == serial, "{shown:#}");
        chain.daemon.alarm(&["version-held"])
    })?;
    ensure!(reason.contains(why), "{reason}; expected {why}");
    Ok(())
}

fn release(chain: &Chain<'_>, serial: u32) -> Result<(bool, String)> {
    let output = chain.daemon.cli(&["zone", "release", ZONE, "--serial", &serial.to_string()])?;
    Ok((output.status.success(), output.stdout + &output.stderr))
}

#[test]
fn hooks_have_their_say() {
    story(|scratch| {
        let (mut chain, first, last) = with_hooks(scratch)?;
        let (before, after) = (first.asked()?, last.asked()?);
        ensure!(before["point"] == "signing" && before["incoming_serial"] == 1, "{before:#}");
        ensure!(before["published_serial"].is_null() && before["digest"].is_null(), "{before:#}");
        ensure!(before["source"]["from"] == "primary", "{before:#}");
        ensure!(after["point"] == "publishing" && after["serial"] == 1, "{after:#}");
        ensure!(after["digest"].as_str().is_some_and(|digest| digest.len() == 64), "{after:#}");

        // Held, and once a person has decided, asked again and not obeyed.
        first.be("hold")?;
        chain.change_zone(&zones::example_with(2, "added"))?;
        held(&chain, 2, "hook first holds it: so it is told")?;
        let asked = first.asked()?;
        let changes: Vec<_> =
            asked["difference"]["records"].as_array().into_iter().flatten().collect();
        ensure!(
            changes.iter().any(|c| **c == "+ added.example.\t300\tIN\tTXT\t\"serial 2\""),
            "{asked:#}"
        );
        let (released, text) = release(&chain, 2)?;
        ensure!(released, "{text}");
        chain.wait_for_secondary("what was released", |serial| serial == 2)?;
        ensure!(last.asked()?["released_by"].is_string());

        // Refused: as if it could not be signed. A person can't let it out.
        first.be("refuse")?;
        chain.change_zone(&zones::example_with(3, "added"))?;
        let refused = until("an alarm", SOON, || chain.daemon.alarm(&["data-refused"]))?;
        ensure!(refused.contains("hook first refuses it: so it is told"), "{refused}");
        first.be("pass")?;
        chain.daemon.cli(&["zone", "refresh", ZONE])?;
        chain.wait_for_secondary("what was refused before", |serial| serial == 3)?;

        // The hook before publishing holds the source's data; a refusal of its own outlasts a release.
        last.be("hold")?;
        chain.change_zone(&zones::example_with(4, "added"))?;
        held(&chain, 4, "hook last holds it")?;
        last.be("refuse")?;
        let (released, text) = release(&chain, 4)?;
        ensure!(!released && text.contains("hook last refuses it"), "{text}");
        ensure!(chain.served_serial()? == 3);
        last.be("pass")?;
        chain.daemon.cli(&["zone", "refresh", ZONE])?;
        chain.wait_for_secondary("what was refused before", |serial| serial == 4)?;
        chain.verify_served()?;
        until("no alarm", SOON, || chain.daemon.no_alarm())?;

        let log = chain.daemon.log();
        let uid = format!("uid={}", User::Stranger.number());
        ensure!(log.contains(&uid), "the log does not say who answered ({uid})");
        Ok(())
    });
}

#[test]
fn a_hook_that_fails_does_what_was_configured() {
    story(|scratch| {
        let (mut chain, first, last) = with_hooks(scratch)?;
        let mut serial = 1;
        for (mood, why) in [
            ("hang", "no answer within 2000 ms"),
            ("nonsense", "is not one"),
            ("flood", "longer than 65536 octets"),
            ("silence", "is not one"),
        ] {
            first.be(mood)?;
            last.be(mood)?;
            serial += 1;
            chain.change_zone(&zones::example_with(serial, "added"))?;
            held(&chain, serial, why)?;
            let (released, text) = release(&chain, serial)?;
            ensure!(released, "{mood}: {text}");
            chain.wait_for_secondary(mood, |served| served == serial)?;
        }
        // The other one lets pass what it fails at.
        first.be("pass")?;
        chain.change_zone(&zones::example_with(serial + 1, "added"))?;
        chain.wait_for_secondary("a version", |served| served == serial + 1)?;
        // Gone altogether.
        drop(first);
        chain.change_zone(&zones::example_with(serial + 2, "added"))?;
        held(&chain, serial + 2, "can't reach")?;
        chain.verify_served()
    });
}

#[test]
fn the_example_holds_a_zone_that_loses_its_mail() {
    story(|scratch| {
        let (mut chain, first, _last) = with_hooks(scratch)?;
        first.be("example")?;
        chain.change_zone(&zones::example_with(2, "added"))?;
        chain.wait_for_secondary("a harmless change", |serial| serial == 2)?;
        chain.change_zone(&zones::example(3).replace("@ IN MX 10 Mail.example.\n", ""))?;
        held(&chain, 3, "MX")
    });
}

/// The units of the example, as systemd reads them.
#[test]
fn the_example_units_are_whole() {
    story(|scratch| {
        let dir = scratch.dir("units", User::Harness, 0o755)?;
        let name = "countersign-hook-example";
        let program = dir.join(name);
        std::fs::copy(EXAMPLE, &program)?;
        softhsm_tests::users::give(&program, User::Harness, 0o755)?;
        let mut paths = Vec::new();
        for (unit, instance) in
            [("@.service", "@.service"), ("@.service", "@1.service"), (".socket", ".socket")]
        {
            let text = std::fs::read_to_string(format!("{EXAMPLE}{unit}"))?;
            let installed = format!("/usr/local/libexec/{name}");
            let path = dir.join(format!("{name}{instance}"));
            std::fs::write(&path, text.replace(&installed, &program.display().to_string()))?;
            paths.push(path);
        }
        // A template alone can't be verified, its instance can.
        paths.remove(0);
        let mut command = std::process::Command::new(tool("systemd-analyze")?);
        let output = run(command.arg("verify").args(&paths))?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && !text.contains(name), "{text}");
        Ok(())
    });
}
