//! The keeper under test, with the files it is started from.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::binaries::binaries;
use crate::process::Process;
use crate::scratch::{Scratch, write};
use crate::token::Token;
use crate::users::{self, User, command};
use crate::wait::{SOON, until};

/// A token as the keeper is told of it.
#[derive(Debug, Clone)]
pub struct Held {
    /// Name in the keeper's configuration.
    pub name: String,
    /// Group.
    pub group: String,
    /// The token.
    pub token: Token,
    /// Name of the module that reaches it: a key of [`KeeperSpec::modules`].
    pub module: String,
}

/// What a keeper is started with.
#[derive(Debug, Clone)]
pub struct KeeperSpec {
    /// PKCS#11 modules by name.
    pub modules: BTreeMap<String, PathBuf>,
    /// Tokens.
    pub tokens: Vec<Held>,
    /// Policies and zones of the founding, as TOML.
    pub policies_and_zones: String,
    /// Milliseconds that one PKCS#11 call may take; the keeper's own default when absent.
    pub deadline_ms: Option<u64>,
    /// Environment of the process: where SoftHSM's configuration is, what the shim does.
    pub environment: BTreeMap<String, String>,
}

/// A keeper, running or not.
#[derive(Debug)]
pub struct Keeper {
    /// The process while it was started and not stopped.
    pub process: Option<Process>,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// The group's socket.
    pub ledger_socket: PathBuf,
    /// `ledger.jsonl`.
    pub ledger: PathBuf,
    /// Where its configuration, founding and PIN files are.
    pub dir: PathBuf,
    /// Environment of the next start.
    pub environment: BTreeMap<String, String>,
    log: PathBuf,
}

impl Keeper {
    /// Writes the files. Nothing runs yet.
    pub fn prepare(scratch: &Scratch, spec: &KeeperSpec) -> Result<Self> {
        let dir = scratch.dir("keeper", User::Keeper, 0o755)?;
        let state = scratch.dir("keeper/state", User::Keeper, 0o700)?;
        let run = scratch.dir("keeper/run", User::Keeper, 0o755)?;
        let (socket, ledger_socket) = (run.join("keeper.sock"), run.join("ledger.sock"));
        let founding = dir.join("lab-founding.toml");
        let mut conf = format!(
            "version = 1\n[keeper]\nstate_dir = \"{}\"\nsocket = \"{}\"\nledger_socket = \"{}\"\n\
             daemon_user = \"{}\"\ngroup = \"{}\"\nfounding = \"{}\"\n",
            state.display(),
            socket.display(),
            ledger_socket.display(),
            User::Daemon.number(),
            users::shared_group(),
            founding.display(),
        );
        for (name, path) in &spec.modules {
            write!(conf, "[module.{name}]\npath = \"{}\"\n", path.display())?;
        }
        let mut founding_text = "appliance = \"bed\"\n".to_owned();
        for held in &spec.tokens {
            let pin = dir.join(format!("{}.pin", held.name));
            write(&pin, &held.token.pin, User::Keeper, 0o600)?;
            write!(
                conf,
                "[token.{}]\nmodule = \"{}\"\npin_file = \"{}\"\n",
                held.name,
                held.module,
                pin.display()
            )?;
            if let Some(deadline_ms) = spec.deadline_ms {
                writeln!(conf, "deadline_ms = {deadline_ms}")?;
            }
            write!(
                founding_text,
                "[token.{}]\nlabel = \"{}\"\nserial = \"{}\"\ngroup = \"{}\"\n",
                held.name, held.token.label, held.token.serial, held.group
            )?;
        }
        founding_text.push_str(&spec.policies_and_zones);
        write(&founding, &founding_text, User::Keeper, 0o600)?;
        write(&dir.join("keeper.toml"), &conf, User::Keeper, 0o600)?;
        Ok(Self {
            process: None,
            socket,
            ledger_socket,
            ledger: state.join("ledger.jsonl"),
            dir,
            environment: spec.environment.clone(),
            log: scratch.path().join("keeper.log"),
        })
    }

    /// Starts the process and waits until its socket is there.
    pub fn start(&mut self) -> Result<()> {
        self.spawn()?;
        let socket = self.socket.clone();
        let process = self.running()?;
        until("the keeper's socket", SOON, || {
            process.check_running()?;
            std::os::unix::net::UnixStream::connect(&socket).map(drop)?;
            Ok(())
        })
    }

    /// Starts the process; it may end by itself.
    pub fn spawn(&mut self) -> Result<()> {
        let mut command = command(User::Keeper, &binaries()?.keeper)?;
        command.arg("--config").arg(self.dir.join("keeper.toml"));
        command.envs(&self.environment);
        self.process = Some(Process::spawn("countersign-keeper", command, &self.log)?);
        Ok(())
    }

    /// The process, which must have been started.
    pub fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().ok_or_else(|| anyhow!("the keeper was not started"))
    }

    /// SIGTERM; how it ended.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.take().ok_or_else(|| anyhow!("the keeper was not started"))?.stop(SOON)
    }

    /// `kill -9`.
    pub fn kill_nine(&mut self) -> Result<()> {
        self.process.take().ok_or_else(|| anyhow!("the keeper was not started"))?.kill_nine()
    }

    /// Waits for it to end by itself, as before a supervisor's restart; how it ended.
    pub fn wait_for_end(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let status = self.running()?.wait(deadline)?;
        self.process = None;
        Ok(status)
    }

    /// Replaces a token's PIN file.
    pub fn write_pin(&self, token: &str, pin: &str) -> Result<()> {
        write(&self.dir.join(format!("{token}.pin")), pin, User::Keeper, 0o600)
    }

    /// Everything that it has printed, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The ledger's lines.
    pub fn ledger_lines(&self) -> Result<Vec<serde_json::Value>> {
        read_lines(&self.ledger)
    }
}

fn read_lines(path: &Path) -> Result<Vec<serde_json::Value>> {
    let text = std::fs::read_to_string(path)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
