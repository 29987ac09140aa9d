//! The keeper under test, with the files it is started from and the clock that it reads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use countersign_hsm::client::LedgerClient;
use countersign_policy::ledger::{LedgerState, Line};
use countersign_policy::state::Status;
use countersign_policy::statement::StatementHash;

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
    /// Its state directory.
    pub state: PathBuf,
    /// Where its configuration and PIN files are.
    pub dir: PathBuf,
    /// Environment of the next start.
    pub environment: BTreeMap<String, String>,
    clock: PathBuf,
    log: PathBuf,
}

/// Lines asked for at once.
const LINES_AT_ONCE: u32 = 256;
/// How a keeper ends that has just been founded, for its supervisor to start it again.
const EXIT_FOUNDED: i32 = 5;

impl Keeper {
    /// Writes the files. Nothing runs yet. `founding` is root's pin.
    pub fn prepare(scratch: &Scratch, spec: &KeeperSpec, founding: Option<&str>) -> Result<Self> {
        Self::prepare_box(scratch, "keeper", spec, founding)
    }

    /// The same on another box: with files of its own, under that name.
    pub fn prepare_box(
        scratch: &Scratch,
        name: &str,
        spec: &KeeperSpec,
        founding: Option<&str>,
    ) -> Result<Self> {
        let dir = scratch.dir(name, User::Keeper, 0o755)?;
        let state = scratch.dir(&format!("{name}/state"), User::Keeper, 0o700)?;
        let run = scratch.dir(&format!("{name}/run"), User::Keeper, 0o755)?;
        let (socket, ledger_socket) = (run.join("keeper.sock"), run.join("ledger.sock"));
        let audit_token = spec.tokens.first().map_or("", |held| &held.name);
        let mut conf = format!(
            "version = 1\n[keeper]\nstate_dir = \"{}\"\nsocket = \"{}\"\nledger_socket = \"{}\"\n\
             daemon_user = \"{}\"\ngroup = \"{}\"\naudit_token = \"{audit_token}\"\n",
            state.display(),
            socket.display(),
            ledger_socket.display(),
            User::Daemon.number(),
            users::shared_group(),
        );
        if let Some(founding) = founding {
            writeln!(conf, "founding = \"{founding}\"")?;
        }
        for (name, path) in &spec.modules {
            write!(conf, "[module.{name}]\npath = \"{}\"\n", path.display())?;
        }
        for held in &spec.tokens {
            let pin = dir.join(format!("{}.pin", held.name));
            write(&pin, &held.token.pin, User::Keeper, 0o600)?;
            write!(
                conf,
                "[token.{}]\nlabel = \"{}\"\nserial = \"{}\"\nmodule = \"{}\"\npin_file = \"{}\"\n",
                held.name,
                held.token.label,
                held.token.serial,
                held.module,
                pin.display()
            )?;
            if let Some(deadline_ms) = spec.deadline_ms {
                writeln!(conf, "deadline_ms = {deadline_ms}")?;
            }
        }
        write(&dir.join("keeper.toml"), &conf, User::Keeper, 0o600)?;
        let clock = scratch.file(&format!("{name}-clock"), "0", User::Harness, 0o644)?;
        let mut environment = spec.environment.clone();
        environment.insert("COUNTERSIGN_TEST_CLOCK".to_owned(), clock.display().to_string());
        Ok(Self {
            process: None,
            socket,
            ledger_socket,
            ledger: state.join("ledger.jsonl"),
            state,
            dir,
            environment,
            clock,
            log: scratch.path().join(format!("{name}.log")),
        })
    }

    /// Starts the process and waits until its sockets are there.
    pub fn start(&mut self) -> Result<()> {
        self.start_unfounded()?;
        let socket = self.socket.clone();
        self.wait_for_socket(&socket)
    }

    /// Starts the process and waits for the group's socket: the daemon's is there once it is founded.
    pub fn start_unfounded(&mut self) -> Result<()> {
        self.spawn()?;
        let socket = self.ledger_socket.clone();
        self.wait_for_socket(&socket)
    }

    fn wait_for_socket(&mut self, socket: &Path) -> Result<()> {
        let process = self.running()?;
        until(&format!("the keeper's {}", socket.display()), SOON, || {
            process.check_running()?;
            std::os::unix::net::UnixStream::connect(socket).map(drop)?;
            Ok(())
        })
    }

    /// What its supervisor does when it has been founded: waits for its end, and starts it again.
    pub fn restart_founded(&mut self) -> Result<()> {
        let status = self.wait_for_end(SOON)?;
        ensure!(status.code() == Some(EXIT_FOUNDED), "founded, the keeper ended with {status}");
        self.start()
    }

    /// Moves its clock to this many seconds from the machine's.
    pub fn set_clock(&self, seconds: i64) -> Result<()> {
        write(&self.clock, &seconds.to_string(), User::Harness, 0o644)
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

    /// What the ledger's lines amount to, as the keeper tells them to whoever asks.
    pub fn ledger_state(&self) -> Result<LedgerState> {
        let mut keeper = LedgerClient::connect(&self.ledger_socket, SOON)?;
        let mut state = LedgerState::default();
        let (lines, _) = keeper.head()?;
        while state.next_seq() < lines {
            for line in keeper.read(state.next_seq(), LINES_AT_ONCE)? {
                state.apply(&Line::from_canonical(state.next_seq(), &line)?)?;
            }
        }
        Ok(state)
    }

    /// An error until the motion of a statement, by its hash, has begun and no HSM has anything left to
    /// do for it.
    pub fn is_done(&self, id: &str) -> Result<()> {
        let hash = StatementHash(id.parse().map_err(|e| anyhow!("{id}: {e}"))?);
        match self.ledger_state()?.status(&hash) {
            Some(Status::Begun { done: true, .. }) => Ok(()),
            Some(other) => bail!("it is {other}"),
            None => bail!("the ledger does not have it"),
        }
    }

    /// The ledger's lines, as they are in its file; without one that was begun when the disk was full.
    pub fn ledger_lines(&self) -> Result<Vec<serde_json::Value>> {
        let text = std::fs::read_to_string(&self.ledger)?;
        let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        whole.map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}
