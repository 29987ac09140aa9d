//! The daemon under test, with its configuration, and the command line that talks to it.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{ExitStatus, Output};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::binaries::binaries;
use crate::pki::Identity;
use crate::process::Process;
use crate::scratch::{Scratch, write};
use crate::tools::run;
use crate::users::{self, User, command};
use crate::wait::{SOON, until};
use crate::{ports, query};

/// A peer as the daemon is told of it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Name in the daemon's configuration.
    pub name: String,
    /// The DNS name in its certificate.
    pub san: String,
    /// Port on 127.0.0.1 to fetch from, for a primary.
    pub transfer_from: Option<u16>,
    /// Port on 127.0.0.1 to notify, for a secondary.
    pub notify: Option<u16>,
}

/// What a daemon is started with.
#[derive(Debug, Clone)]
pub struct DaemonSpec {
    /// The zone.
    pub zone: String,
    /// Its own certificate; the key is readable by [`User::Daemon`].
    pub identity: Identity,
    /// The authority of its peers.
    pub ca: PathBuf,
    /// What that authority has revoked.
    pub crl: Option<PathBuf>,
    /// The keeper's socket.
    pub keeper_socket: PathBuf,
    /// Primaries and secondaries.
    pub peers: Vec<Peer>,
    /// Names of primaries that `more` describes.
    pub more_primaries: Vec<String>,
    /// Names of secondaries that `more` describes.
    pub more_secondaries: Vec<String>,
    /// More TOML of the zone.
    pub zone_keys: String,
    /// More TOML, after everything else.
    pub more: String,
}

/// A daemon, running or not.
#[derive(Debug)]
pub struct Daemon {
    /// The process while it was started and not stopped.
    pub process: Option<Process>,
    /// Apex queries and NOTIFY in clear, UDP and TCP.
    pub dns_port: u16,
    /// Transfers and apex queries over TLS.
    pub xot_port: u16,
    /// HTTPS API.
    pub api_port: u16,
    /// Where it keeps what it publishes.
    pub state_dir: PathBuf,
    /// The API on the box itself.
    pub api_socket: PathBuf,
    config: PathBuf,
    log: PathBuf,
    zone: String,
}

/// What the command line printed, and how it ended.
#[derive(Debug)]
pub struct CliOutput {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl CliOutput {
    /// Of a program that has ended.
    pub fn of(output: &Output) -> Self {
        Self {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Daemon {
    /// Chooses ports and makes directories; [`Self::configure`] writes the configuration.
    pub fn prepare(scratch: &Scratch, zone: &str) -> Result<Self> {
        let dir = scratch.dir("daemon", User::Daemon, 0o755)?;
        let state_dir = scratch.dir("daemon/state", User::Daemon, 0o700)?;
        let run = scratch.dir("daemon/run", User::Daemon, 0o755)?;
        Ok(Self {
            process: None,
            dns_port: ports::free()?,
            xot_port: ports::free()?,
            api_port: ports::free()?,
            state_dir,
            api_socket: run.join("api.sock"),
            config: dir.join("countersignd.toml"),
            log: scratch.path().join("countersignd.log"),
            zone: zone.to_owned(),
        })
    }

    /// Writes the configuration.
    pub fn configure(&self, spec: &DaemonSpec) -> Result<()> {
        let crl = spec.crl.as_ref().map(|path| format!("crl = \"{}\"\n", path.display()));
        let crl = crl.unwrap_or_default();
        let mut conf = format!(
            "version = 1\n[daemon]\nstate_dir = \"{}\"\nkeeper_socket = \"{}\"\n\
             api_socket = \"{}\"\ngroup = \"{}\"\n\
             [tls]\ncertificate = \"{}\"\nkey = \"{}\"\nca = \"{}\"\n{crl}\
             [listen]\ndns = [\"127.0.0.1:{}\"]\nxot = [\"127.0.0.1:{}\"]\napi = [\"127.0.0.1:{}\"]\n",
            self.state_dir.display(),
            spec.keeper_socket.display(),
            self.api_socket.display(),
            users::shared_group(),
            spec.identity.cert.display(),
            spec.identity.key.display(),
            spec.ca.display(),
            self.dns_port,
            self.xot_port,
            self.api_port,
        );
        let (mut primaries, mut secondaries) = (Vec::new(), Vec::new());
        for peer in &spec.peers {
            write!(
                conf,
                "[peer.{}]\nidentity = {{ san = \"{}\" }}\naddresses = [\"127.0.0.1\"]\n",
                peer.name, peer.san
            )?;
            if let Some(port) = peer.transfer_from {
                write!(
                    conf,
                    "transfer_from = \"127.0.0.1:{port}\"\nserver_name = \"{}\"\n",
                    peer.san
                )?;
                primaries.push(peer.name.as_str());
            }
            if let Some(port) = peer.notify {
                writeln!(conf, "notify = \"127.0.0.1:{port}\"")?;
                secondaries.push(peer.name.as_str());
            }
        }
        primaries.extend(spec.more_primaries.iter().map(String::as_str));
        secondaries.extend(spec.more_secondaries.iter().map(String::as_str));
        write!(
            conf,
            "[zone.\"{}\"]\nprimaries = {primaries:?}\nsecondaries = {secondaries:?}\n\
             incoming_dnssec = \"strip\"\n{}\n\
             [api_client.ops]\nidentity = {{ san = \"ops.test\" }}\nrole = \"operator\"\n{}",
            spec.zone, spec.zone_keys, spec.more
        )?;
        write(&self.config, &conf, User::Daemon, 0o600)
    }

    /// Starts the process and waits until it answers on its API.
    pub fn start(&mut self) -> Result<()> {
        let mut command = command(User::Daemon, &binaries()?.daemon)?;
        command.arg("--config").arg(&self.config);
        self.process = Some(Process::spawn("countersignd", command, &self.log)?);
        until("the daemon's API", SOON, || {
            self.running()?.check_running()?;
            self.json(&["zone", "list"]).map(drop)
        })
    }

    /// The process, which must have been started.
    pub fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().ok_or_else(|| anyhow!("the daemon was not started"))
    }

    /// SIGTERM; how it ended.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.take().ok_or_else(|| anyhow!("the daemon was not started"))?.stop(SOON)
    }

    /// `kill -9`.
    pub fn kill_nine(&mut self) -> Result<()> {
        self.process.take().ok_or_else(|| anyhow!("the daemon was not started"))?.kill_nine()
    }

    /// Runs `countersign` on the box's own socket.
    pub fn cli(&self, arguments: &[&str]) -> Result<CliOutput> {
        let mut command = command(User::Daemon, &binaries()?.cli)?;
        command.arg("--socket").arg(&self.api_socket).args(arguments);
        Ok(CliOutput::of(&run(&mut command)?))
    }

    /// The same with `--json`. It must end well (0), or with something that needs attention (4).
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let arguments: Vec<&str> =
            std::iter::once("--json").chain(arguments.iter().copied()).collect();
        let output = self.cli(&arguments)?;
        if !matches!(output.status.code(), Some(0 | 4)) {
            bail!("countersign {arguments:?} ended with {}: {}", output.status, output.stderr);
        }
        serde_json::from_str(&output.stdout)
            .with_context(|| format!("countersign {arguments:?} printed {:?}", output.stdout))
    }

    /// What `countersign zone show` says of the zone.
    pub fn zone_show(&self) -> Result<Value> {
        self.json(&["zone", "show", &self.zone])
    }

    /// The reason of the zone's alarm of one of `kinds`; an error while there is none.
    pub fn alarm(&self, kinds: &[&str]) -> Result<String> {
        let shown = self.zone_show()?;
        shown["alarms"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|alarm| kinds.iter().any(|kind| alarm["kind"] == *kind))
            .map(|alarm| alarm["reason"].as_str().unwrap_or_default().to_owned())
            .ok_or_else(|| anyhow!("no alarm of {kinds:?} in {shown:#}"))
    }

    /// An error while anything about the zone needs attention.
    pub fn no_alarm(&self) -> Result<()> {
        let output = self.cli(&["zone", "show", &self.zone])?;
        if output.status.code() != Some(0) {
            bail!("countersign zone show ended with {}:\n{}", output.status, output.stdout);
        }
        Ok(())
    }

    /// The state of a token, and the reason when it is unusable.
    pub fn token_state(&self, name: &str) -> Result<(String, String)> {
        let status = self.json(&["hsm", "status"])?;
        let token = status["tokens"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|token| token["name"] == name)
            .ok_or_else(|| anyhow!("no token {name} in {status:#}"))?;
        let text = |field: &str| token[field].as_str().unwrap_or_default().to_owned();
        Ok((text("state"), text("reason")))
    }

    /// The serial that the daemon itself serves to its peers.
    pub fn serial(&self) -> Result<u32> {
        query::serial(self.dns_port, &self.zone)
    }

    /// A counter of `/metrics`, asked for on the box's own socket.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let mut stream = UnixStream::connect(&self.api_socket)?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.ok_or_else(|| anyhow!("no counter {name} in:\n{text}"))?;
        value.parse().with_context(|| format!("{name} {value}"))
    }

    /// Everything that it has printed, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}
