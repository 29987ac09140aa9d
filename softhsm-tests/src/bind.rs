//! BIND 9.18 as hidden primary and as secondary, both over XoT (RFC 9103) with certificates
//! both ways.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::pki::Identity;
use crate::ports;
use crate::process::Process;
use crate::query;
use crate::scratch::{Scratch, write};
use crate::tools::{daemon, run_ok, tool};
use crate::users::{User, command};
use crate::wait::{SOON, until};

/// What no instance here should do: talk to the world, or share a file with another.
pub const OPTIONS: &str = "pid-file none; session-keyfile none; listen-on-v6 { none; }; \
     recursion no; dnssec-validation no; empty-zones-enable no; querylog no; notify-delay 0; \
     tcp-clients 200;";

/// A hidden primary. It gives its zone by XoT to whoever shows a certificate of its authority,
/// and to nobody in clear.
#[derive(Debug)]
pub struct Primary {
    /// The process.
    pub process: Process,
    /// Where it listens for XoT.
    pub xot_port: u16,
    /// Where it answers queries in clear.
    pub dns_port: u16,
    zone: String,
    zone_file: PathBuf,
}

/// What a primary is started with.
#[derive(Debug, Clone)]
pub struct PrimarySpec<'a> {
    /// Name of its directory.
    pub name: &'a str,
    /// The zone's name.
    pub zone: &'a str,
    /// The zone's master file.
    pub content: &'a str,
    /// Its own certificate.
    pub identity: &'a Identity,
    /// The authority that its clients' certificates must be of.
    pub client_ca: &'a Path,
    /// Port on 127.0.0.1 that it sends NOTIFY to, in clear.
    pub notify_port: u16,
    /// How the zone changes.
    pub changes: Changes,
}

/// How a primary's zone changes, and whether it tells differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Changes {
    /// By a new master file; IXFR is given.
    #[default]
    File,
    /// The same, and it gives no IXFR.
    FileWithoutIxfr,
    /// By dynamic updates; IXFR is given.
    Updates,
}

impl Primary {
    /// Starts it and waits until it answers.
    pub fn start(scratch: &Scratch, spec: &PrimarySpec<'_>) -> Result<Self> {
        let dir = scratch.dir(spec.name, User::Harness, 0o755)?;
        let (xot_port, dns_port) = (ports::free()?, ports::free()?);
        let zone_file = dir.join("zone");
        write(&zone_file, spec.content, User::Harness, 0o644)?;
        let update = match spec.changes {
            Changes::Updates => "allow-update { 127.0.0.1; };",
            Changes::File | Changes::FileWithoutIxfr => "",
        };
        let provide = if spec.changes == Changes::FileWithoutIxfr { "no" } else { "yes" };
        let conf = format!(
            r#"tls srv {{ cert-file "{cert}"; key-file "{key}"; ca-file "{ca}"; protocols {{ TLSv1.3; }}; }};
options {{ {OPTIONS} directory "{dir}";
  listen-on port {xot_port} tls srv {{ 127.0.0.1; }};
  listen-on port {dns_port} {{ 127.0.0.1; }};
  allow-transfer port {xot_port} transport tls {{ 127.0.0.1; }};
  notify explicit; also-notify {{ 127.0.0.1 port {notify}; }}; ixfr-from-differences yes;
  provide-ixfr {provide}; }};
controls {{ }};
zone "{zone}" {{ type primary; file "{file}"; {update} }};
"#,
            cert = spec.identity.cert.display(),
            key = spec.identity.key.display(),
            ca = spec.client_ca.display(),
            dir = dir.display(),
            notify = spec.notify_port,
            zone = spec.zone,
            file = zone_file.display(),
        );
        let process = named(&dir, spec.name, &conf)?;
        let mut primary =
            Self { process, xot_port, dns_port, zone: spec.zone.to_owned(), zone_file };
        until("the primary's answer", SOON, || {
            primary.process.check_running()?;
            primary.serial()
        })?;
        Ok(primary)
    }

    /// The serial that it serves.
    pub fn serial(&self) -> Result<u32> {
        query::serial(self.dns_port, &self.zone)
    }

    /// Changes the zone by a dynamic update: `commands` of `nsupdate`, without `send`.
    pub fn update(&self, commands: &str) -> Result<()> {
        let text =
            format!("server 127.0.0.1 {}\nzone {}\n{commands}send\n", self.dns_port, self.zone);
        let path = self.zone_file.with_extension("update");
        write(&path, &text, User::Harness, 0o644)?;
        run_ok(Command::new(tool("nsupdate")?).arg("-v").arg(&path)).map(drop).context(text)
    }

    /// Removes what it knows of earlier versions: it can tell no difference to them any more.
    pub fn forget_history(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.zone_file.with_extension("jnl"))?)
    }

    /// Replaces the zone's master file and has it read, as an operator does.
    pub fn replace_zone(&self, content: &str) -> Result<()> {
        write(&self.zone_file, content, User::Harness, 0o644)?;
        self.process.signal(Signal::SIGHUP)
    }
}

/// A public secondary that fetches over XoT with a certificate of its own.
#[derive(Debug)]
pub struct Secondary {
    /// The process.
    pub process: Process,
    /// Where it answers queries, transfers and NOTIFY in clear.
    pub port: u16,
}

/// What a secondary is started with; NSD's is the same.
#[derive(Debug, Clone)]
pub struct SecondarySpec<'a> {
    /// Name of its directory.
    pub name: &'a str,
    /// The zone's name.
    pub zone: &'a str,
    /// Its own certificate.
    pub identity: &'a Identity,
    /// The authority that the signer's certificate must be of.
    pub server_ca: &'a Path,
    /// The name that the signer's certificate must bear.
    pub server_name: &'a str,
    /// Port on 127.0.0.1 that it fetches from.
    pub server_port: u16,
    /// Where it is to listen: the signer has to know before it starts.
    pub port: u16,
}

impl Secondary {
    /// Starts it; it serves the zone once it has got it.
    pub fn start(scratch: &Scratch, spec: &SecondarySpec<'_>) -> Result<Self> {
        let dir = scratch.dir(spec.name, User::Harness, 0o755)?;
        let conf = format!(
            r#"tls cli {{ cert-file "{cert}"; key-file "{key}"; ca-file "{ca}"; remote-hostname "{server}"; protocols {{ TLSv1.3; }}; }};
options {{ {OPTIONS} directory "{dir}"; listen-on port {port} {{ 127.0.0.1; }};
  allow-transfer {{ 127.0.0.1; }}; notify no; min-refresh-time 1; min-retry-time 1; max-retry-time 2; }};
controls {{ }};
zone "{zone}" {{ type secondary; file "zone"; masterfile-format text;
  primaries {{ 127.0.0.1 port {server_port} tls cli; }}; allow-notify {{ 127.0.0.1; }}; }};
"#,
            cert = spec.identity.cert.display(),
            key = spec.identity.key.display(),
            ca = spec.server_ca.display(),
            server = spec.server_name,
            dir = dir.display(),
            port = spec.port,
            zone = spec.zone,
            server_port = spec.server_port,
        );
        Ok(Self { process: named(&dir, spec.name, &conf)?, port: spec.port })
    }
}

/// Runs one in `dir` with this configuration.
pub fn named(dir: &Path, name: &str, conf: &str) -> Result<Process> {
    let path = dir.join("named.conf");
    write(&path, conf, User::Harness, 0o644)?;
    let mut command = command(User::Harness, &daemon("named")?)?;
    command.args(["-g", "-4", "-n", "1", "-c"]).arg(&path);
    Process::spawn(name, command, &dir.join("named.log"))
}
