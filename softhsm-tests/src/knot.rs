//! Knot DNS 3.2 as hidden primary and as secondary, with TSIG over TCP: it has no XoT.
//!
//! Its ways: owner names are lower-cased as it reads them, transfers come without AA (RFC 5936 §2.2.1
//! has it set), NOTIFY goes out over TCP, IXFR is answered over UDP too, and it keeps the differences
//! between the zone files that it was given.

use std::path::PathBuf;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::process::Process;
use crate::scratch::{Scratch, write};
use crate::tools::daemon;
use crate::tsig::{ALGORITHM, Key, PrimarySpec, SecondarySpec};
use crate::users::{User, command};
use crate::wait::{SOON, until};
use crate::{ports, query};

/// A Knot with one zone. It answers queries in clear.
#[derive(Debug)]
pub struct Knot {
    /// The process.
    pub process: Process,
    /// Where it listens, UDP and TCP.
    pub port: u16,
    zone: String,
    zone_file: PathBuf,
}

impl Knot {
    /// Starts a hidden primary and waits until it answers.
    pub fn primary(scratch: &Scratch, spec: &PrimarySpec<'_>) -> Result<Self> {
        let dir = scratch.dir(spec.name, User::Harness, 0o755)?;
        let (port, zone_file) = (ports::free()?, dir.join("zone"));
        write(&zone_file, spec.content, User::Harness, 0o644)?;
        // A master file may hold what Knot's checks dislike: that is for the signer to judge.
        let zone = format!(
            r#"    file: "{file}"
    semantic-checks: off
    zonefile-load: difference
    journal-content: changes
    notify: signer
    acl: signer
"#,
            file = zone_file.display()
        );
        let setup = Setup { name: spec.name, zone: spec.zone, key: spec.key, port };
        let process = setup.start(scratch, spec.notify_port, "transfer", &zone)?;
        let mut knot = Self { process, port, zone: spec.zone.to_owned(), zone_file };
        until("Knot's answer", SOON, || {
            knot.process.check_running()?;
            knot.serial()
        })?;
        Ok(knot)
    }

    /// Starts a secondary; it serves the zone once it has got it.
    pub fn secondary(scratch: &Scratch, spec: &SecondarySpec<'_>) -> Result<Self> {
        let dir = scratch.dir(spec.name, User::Harness, 0o755)?;
        let zone_file = dir.join("zone");
        // The least that it accepts, so that a story that waits for its timers does not wait long.
        let zone = format!(
            r#"    file: "{file}"
    master: signer
    acl: [signer, world]
    refresh-min-interval: 2
    retry-min-interval: 1
    retry-max-interval: 2
"#,
            file = zone_file.display()
        );
        let setup = Setup { name: spec.name, zone: spec.zone, key: spec.key, port: spec.port };
        let process = setup.start(scratch, spec.server_port, "notify", &zone)?;
        Ok(Self { process, port: spec.port, zone: spec.zone.to_owned(), zone_file })
    }

    /// The serial that it serves.
    pub fn serial(&self) -> Result<u32> {
        query::serial(self.port, &self.zone)
    }

    /// Replaces a primary's master file and has it read, as an operator does.
    pub fn replace_zone(&self, content: &str) -> Result<()> {
        write(&self.zone_file, content, User::Harness, 0o644)?;
        self.process.signal(Signal::SIGHUP)
    }
}

struct Setup<'a> {
    name: &'a str,
    zone: &'a str,
    key: &'a Key,
    port: u16,
}

impl Setup<'_> {
    /// `remote` is the signer's port, `action` what the signer may do with the key.
    fn start(&self, scratch: &Scratch, remote: u16, action: &str, zone: &str) -> Result<Process> {
        let sections = format!(
            r#"key:
  - id: "{key}"
    algorithm: {ALGORITHM}
    secret: "{secret}"
remote:
  - id: signer
    address: 127.0.0.1@{remote}
    key: "{key}"
acl:
  - id: signer
    key: "{key}"
    action: {action}
  - id: world
    address: 127.0.0.1
    action: transfer
zone:
  - domain: "{name}"
{zone}"#,
            key = self.key.name,
            secret = self.key.secret,
            name = self.zone,
        );
        run(scratch, self.name, self.port, &sections)
    }
}

/// Runs a Knot in a directory `name` of its own, on `port` of 127.0.0.1, with more sections of its
/// configuration.
pub fn run(scratch: &Scratch, name: &str, port: u16, sections: &str) -> Result<Process> {
    let dir = scratch.dir(name, User::Harness, 0o755)?;
    let at = dir.display();
    let conf = format!(
        r#"server:
    rundir: "{at}"
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "{at}"
log:
  - target: stderr
    any: info
{sections}"#
    );
    let path = dir.join("knot.conf");
    // It holds a key.
    write(&path, &conf, User::Harness, 0o600)?;
    let mut command = command(User::Harness, &daemon("knotd")?)?;
    command.arg("-c").arg(&path);
    Process::spawn(name, command, &dir.join("knotd.log"))
}
