//! PowerDNS 4.7 as hidden primary and as secondary, with TSIG over TCP: it has no XoT.
//!
//! Its ways: the SOA is a message of its own in a transfer, it compresses across a message, it
//! asks for and answers IXFR with the whole zone, its NOTIFY is signed with the zone's key, and it looks for
//! zones whose serial went up once per `xfr-cycle-interval`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process::Process;
use crate::scratch::{Scratch, write};
use crate::tools::{daemon, run_ok, tool};
use crate::tsig::{ALGORITHM, PrimarySpec, SecondarySpec};
use crate::users::{User, command};
use crate::wait::{SOON, until};
use crate::{ports, query};

/// The tables of a new database.
const SCHEMA: &str = "/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql";
/// What a secondary's configuration has beside what every one has.
pub const SECONDARY: &str = "secondary=yes\nallow-axfr-ips=127.0.0.1\nonly-notify=\n";

/// A PowerDNS with one zone in an `SQLite` database. It answers queries in clear.
#[derive(Debug)]
pub struct Pdns {
    /// The process.
    pub process: Process,
    /// Where it listens, UDP and TCP.
    pub port: u16,
    zone: String,
    dir: PathBuf,
}

impl Pdns {
    /// Starts a hidden primary and waits until it answers.
    pub fn primary(scratch: &Scratch, spec: &PrimarySpec<'_>) -> Result<Self> {
        let dir = scratch.dir(spec.name, User::Harness, 0o755)?;
        let port = ports::free()?;
        // It would tell the zone's name servers too, wherever they are.
        let more = format!(
            "primary=yes\nonly-notify=127.0.0.0/8\nalso-notify=127.0.0.1:{}\nallow-axfr-ips=\n",
            spec.notify_port
        );
        prepare(&dir, port, &more)?;
        util(&dir, &["import-tsig-key", &spec.key.name, ALGORITHM, &spec.key.secret])?;
        load(&dir, spec.zone, spec.content)?;
        util(&dir, &["set-kind", spec.zone, "primary"])?;
        util(&dir, &["activate-tsig-key", spec.zone, &spec.key.name, "primary"])?;
        let mut pdns = Self::start(spec.name, dir, port, spec.zone)?;
        until("PowerDNS' answer", SOON, || {
            pdns.process.check_running()?;
            pdns.serial()
        })?;
        Ok(pdns)
    }

    /// Starts a secondary; it serves the zone once it has got it.
    pub fn secondary(scratch: &Scratch, spec: &SecondarySpec<'_>) -> Result<Self> {
        let server = format!("127.0.0.1:{}", spec.server_port);
        let commands = [
            vec!["import-tsig-key", &spec.key.name, ALGORITHM, &spec.key.secret],
            vec!["create-secondary-zone", spec.zone, &server],
            vec!["activate-tsig-key", spec.zone, &spec.key.name, "secondary"],
        ];
        Self::prepared_by(scratch, (spec.name, spec.zone, spec.port), SECONDARY, &commands)
    }

    /// Starts one on `port` whose database `pdnsutil` has prepared with these commands.
    pub fn prepared_by(
        scratch: &Scratch,
        (name, zone, port): (&str, &str, u16),
        more: &str,
        commands: &[Vec<&str>],
    ) -> Result<Self> {
        let dir = scratch.dir(name, User::Harness, 0o755)?;
        prepare(&dir, port, more)?;
        commands.iter().try_for_each(|words| util(&dir, words))?;
        Self::start(name, dir, port, zone)
    }

    /// The serial that it serves.
    pub fn serial(&self) -> Result<u32> {
        query::serial(self.port, &self.zone)
    }

    /// Replaces a primary's zone, as an operator does; it notices by itself.
    pub fn replace_zone(&self, content: &str) -> Result<()> {
        load(&self.dir, &self.zone, content)
    }

    fn start(name: &str, dir: PathBuf, port: u16, zone: &str) -> Result<Self> {
        let mut command = quiet(command(User::Harness, &daemon("pdns_server")?)?);
        command.arg(format!("--config-dir={}", dir.display()));
        let process = Process::spawn(name, command, &dir.join("pdns.log"))?;
        Ok(Self { process, port, zone: zone.to_owned(), dir })
    }
}

/// Writes the configuration and makes the database.
fn prepare(dir: &Path, port: u16, more: &str) -> Result<()> {
    let (at, database) = (dir.display(), dir.join("database"));
    // No caches: a story asks again after a change. No questions to the world.
    let conf = format!(
        "launch=gsqlite3\ngsqlite3-database={database}\ngsqlite3-dnssec=yes\n\
         local-address=127.0.0.1\nlocal-port={port}\nsocket-dir={at}\n\
         xfr-cycle-interval=1\ncache-ttl=0\nquery-cache-ttl=0\nnegquery-cache-ttl=0\n\
         zone-cache-refresh-interval=0\nzone-metadata-cache-ttl=0\nsecurity-poll-suffix=\n\
         receiver-threads=1\ndistributor-threads=1\nretrieval-threads=1\n\
         daemon=no\nguardian=no\nwrite-pid=no\ndisable-syslog=yes\nloglevel=5\n{more}",
        database = database.display(),
    );
    write(&dir.join("pdns.conf"), &conf, User::Harness, 0o600)?;
    let mut sqlite = command(User::Harness, &tool("sqlite3")?)?;
    run_ok(sqlite.arg(&database).arg(format!(".read {SCHEMA}"))).map(drop)
}

fn load(dir: &Path, zone: &str, content: &str) -> Result<()> {
    let file = dir.join("zone");
    write(&file, content, User::Harness, 0o644)?;
    util(dir, &["load-zone", zone, &file.display().to_string()])
}

fn util(dir: &Path, words: &[&str]) -> Result<()> {
    let mut command = quiet(command(User::Harness, &tool("pdnsutil")?)?);
    run_ok(command.arg(format!("--config-dir={}", dir.display())).args(words)).map(drop)
}

/// It opens every PKCS#11 module of the box, and the TPM's, where there is none, complains on
/// eleven lines.
fn quiet(mut command: Command) -> Command {
    command.env("TSS2_LOG", "all+NONE");
    command
}
