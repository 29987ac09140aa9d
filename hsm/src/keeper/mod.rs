//! The keeper's process: from its files to two open sockets, and to its end.
//!
//! ```text
//! main ── signals: stop, read the founding again
//!   ├─ keys ······ makes and mends keys in rounds (keys.rs)
//!   ├─ events ···· what tokens tell: conflicts into the ledger, a lost group ends the process
//!   ├─ daemon's socket ┬ a thread a connection, one a request (server.rs ► service.rs ► judge.rs)
//!   ├─ group's socket  ┘
//!   └─ the tokens' own threads (pkcs11)
//! ```

pub mod clock;
pub mod config;
pub mod door;
pub mod founding;
pub mod judge;
pub mod keys;
pub mod server;
pub mod service;

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use countersign_policy::KeyId;
use countersign_policy::key::to_hex;
use nix::sys::signal::{SigSet, Signal};

use self::clock::now_s;
use self::config::KeeperConfig;
use self::keys::KeyMaker;
use self::server::{Allowed, UnderWay, WithDaemon, WithGroup};
use self::service::Service;
use crate::ledger::{Ledger, Note, OpenError, WriteError, sha256};
use crate::pkcs11::{Event, HsmError, Tokens, exit_past_modules};

/// Stopped by a signal.
pub const EXIT_STOPPED: i32 = 0;
/// Configuration, founding, sockets or directories are not as they must be.
pub const EXIT_CONFIG: i32 = 2;
/// A token hung and its group has none left; a restart opens it last.
pub const EXIT_GROUP_LOST: i32 = 3;
/// The ledger is refused.
pub const EXIT_LEDGER: i32 = 4;

/// How long requests under way may take to end when the keeper stops: above the deadline of a call
/// into a token, below what supervisors wait before they kill.
const STOP_MAX: Duration = Duration::from_secs(8);
/// Between rounds of the key maker while something is left to do: doubled from one to the other.
const ROUND_PAUSE_MIN: Duration = Duration::from_millis(200);
const ROUND_PAUSE_MAX: Duration = Duration::from_secs(15);
/// Between attempts to write what tokens told, while the ledger can't be written.
const NOTE_RETRY: Duration = Duration::from_secs(2);
/// A module or binary beyond this is not hashed whole; none comes near it.
const HASHED_BYTES_MAX: u64 = 1 << 30;

/// Why the keeper did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration or founding file.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] OpenError),
    /// The ledger can't take the first lines, or the founding may not follow.
    #[error("founding {path}: {problem}")]
    Founding {
        /// The founding file.
        path: std::path::PathBuf,
        /// Why.
        problem: WriteError,
    },
    /// A token's settings.
    #[error(transparent)]
    Token(#[from] HsmError),
    /// A directory, socket or thread.
    #[error("{0}")]
    System(String),
}

impl StartError {
    /// What the process exits with.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Ledger(_) => EXIT_LEDGER,
            _ => EXIT_CONFIG,
        }
    }
}

enum Wake {
    Founding,
}

/// Runs the keeper until a signal ends it. `ready` is called when both sockets listen. Call it before
/// any other thread is started: it blocks the signals that it waits for.
pub fn run(config_path: &Path, ready: impl FnOnce()) -> Result<i32, StartError> {
    let signals = block_signals()?;
    let config = KeeperConfig::load(config_path)?;
    prepare_state_dir(&config.state_dir).map_err(StartError::System)?;
    let ledger = Ledger::open(&config.state_dir)?;
    enforce_founding(&ledger, &config)?;
    let specs = ledger.read(|state| {
        let (_, founding) = state.founding().ok_or("there is no founding")?;
        config.token_specs(founding)
    });
    let specs =
        specs.map_err(|problem| config::ConfigError { path: config_path.to_owned(), problem })?;
    note_start(&ledger, &config);
    if let Err(error) = keys::close_interrupted_signatures(&ledger, now_s()) {
        tracing::warn!(%error, "interrupted signatures are not closed in the ledger yet");
    }
    let (events, told) = channel();
    let tokens = Tokens::open(specs, &config.state_dir, events)?;
    tokens.expect_keys(ledger.read(keys::expected));
    let service = Arc::new(Service::new(ledger, tokens, now_s));
    start_threads(&service, told)?;
    let wake = start_key_maker(&service)?;
    let under_way = Arc::new(UnderWay::default());
    listen(&service, &config, &under_way)?;
    ready();
    tracing::info!(socket = %config.socket.display(), "the keeper serves");
    wait_for_end(&signals, &service, &config, &wake);
    if !under_way.wait_none(STOP_MAX) {
        tracing::warn!("requests were still under way; they are open in the ledger");
    }
    for socket in [&config.socket, &config.ledger_socket] {
        let _ = std::fs::remove_file(socket);
    }
    Ok(EXIT_STOPPED)
}

fn block_signals() -> Result<SigSet, StartError> {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().map_err(|e| StartError::System(format!("blocking signals: {e}")))?;
    Ok(signals)
}

/// Returns at SIGTERM or SIGINT; reads the founding again at SIGHUP.
fn wait_for_end(
    signals: &SigSet,
    service: &Service<Tokens>,
    config: &KeeperConfig,
    wake: &Sender<Wake>,
) {
    loop {
        match signals.wait() {
            Ok(Signal::SIGHUP) => match enforce_founding(service.ledger(), config) {
                Ok(true) => {
                    let unopened = service.ledger().read(|state| {
                        state.founding().is_some_and(|(_, founding)| {
                            let opened = service.hsm().health();
                            let is_open =
                                |name: &String| opened.iter().any(|token| token.name == *name);
                            !founding.token.keys().all(is_open)
                        })
                    });
                    if unopened {
                        tracing::warn!("the founding's new tokens are opened at the next start");
                    }
                    // The key maker may have ended only with the process.
                    let _ = wake.send(Wake::Founding);
                }
                Ok(false) => tracing::info!("the founding has not changed"),
                Err(error) => tracing::error!(%error, "the founding in force stays"),
            },
            Ok(signal) => {
                tracing::info!(%signal, "stopping");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "waiting for signals; stopping");
                return;
            }
        }
    }
}

fn enforce_founding(ledger: &Ledger, config: &KeeperConfig) -> Result<bool, StartError> {
    let founding = founding::load(&config.founding)?;
    founding::enforce(ledger, founding, now_s())
        .map_err(|problem| StartError::Founding { path: config.founding.clone(), problem })
}

/// Makes the directory, or checks that nobody else can write to it.
fn prepare_state_dir(path: &Path) -> Result<(), String> {
    let fail = |problem: String| format!("state_dir {}: {problem}", path.display());
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            config::check_guarded(path, &metadata).map_err(fail)?;
            if metadata.mode() & 0o077 != 0 {
                let own = std::fs::Permissions::from_mode(0o700);
                std::fs::set_permissions(path, own).map_err(|e| fail(e.to_string()))?;
            }
            Ok(())
        }
        Ok(_) => Err(fail("is not a directory".to_owned())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let made = std::fs::DirBuilder::new().mode(0o700).create(path);
            made.map_err(|e| fail(e.to_string()))
        }
        Err(e) => Err(fail(e.to_string())),
    }
}

/// The line that says what runs: hashes of binary, configuration and modules.
fn note_start(ledger: &Ledger, config: &KeeperConfig) {
    let hash = |path: &Path| match config::read_bounded(path, HASHED_BYTES_MAX) {
        Ok(octets) => to_hex(&sha256(&octets)),
        Err(problem) => format!("unreadable: {problem}"),
    };
    let modules: BTreeMap<String, String> = config
        .tokens
        .values()
        .map(|token| (token.module.display().to_string(), hash(&token.module)))
        .collect();
    let note = Note::Started {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        binary: hash(Path::new("/proc/self/exe")),
        config: to_hex(&sha256(&config.octets)),
        modules,
    };
    tracing::info!(started = ?note, "the keeper starts");
    if let Err(error) = ledger.note(note, now_s()) {
        tracing::error!(%error, "zones are signed, KSKs are not used, until the ledger can be written");
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(|_| ()).map_err(|e| StartError::System(format!("starting a thread: {e}")))
}

fn start_threads(service: &Arc<Service<Tokens>>, told: Receiver<Event>) -> Result<(), StartError> {
    let service = Arc::clone(service);
    spawn("events", move || take_events(&service, &told))
}

/// Writes conflicts to the ledger. While it can't be written they are owed, the newest of each key;
/// a lost group is never kept waiting behind them.
fn take_events(service: &Service<Tokens>, told: &Receiver<Event>) {
    let mut owed: BTreeMap<KeyId, Note> = BTreeMap::new();
    loop {
        let event = if owed.is_empty() {
            told.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            told.recv_timeout(NOTE_RETRY)
        };
        match event {
            Ok(event) => {
                let (key, note) = note_of(event);
                owed.insert(key, note);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        owed.retain(|_, note| match service.ledger().note(note.clone(), now_s()) {
            Ok(_) => false,
            Err(error @ WriteError::Unavailable(_)) => {
                // The tokens refuse the key meanwhile, whatever the ledger says.
                tracing::error!(%error, "a conflict is not in the ledger yet");
                true
            }
            Err(error) => {
                // A key that is being adopted is not in the ledger yet.
                tracing::warn!(%error, "not recorded");
                false
            }
        });
    }
}

/// What the ledger is to say of an event; does not return from a lost group.
fn note_of(event: Event) -> (KeyId, Note) {
    match event {
        Event::Conflict { key, token, found } => {
            tracing::error!(
                %key, token, found,
                "a token answers for a key with another public key: the key is refused everywhere"
            );
            (key, Note::KeyConflict { key, token, found })
        }
        Event::Cleared { key } => {
            tracing::warn!(%key, "every token proves the key again");
            (key, Note::KeyCleared { key })
        }
        Event::GroupLost { group, token, call } => {
            tracing::error!(
                group,
                token,
                call,
                "a token hung and its group has no other: the keeper ends, for a restart"
            );
            exit_past_modules(EXIT_GROUP_LOST);
        }
    }
}

fn start_key_maker(service: &Arc<Service<Tokens>>) -> Result<Sender<Wake>, StartError> {
    let service = Arc::clone(service);
    let (wake, woken) = channel();
    spawn("keys", move || make_keys(&service, &woken))?;
    Ok(wake)
}

fn make_keys(service: &Service<Tokens>, woken: &Receiver<Wake>) {
    let mut pause = ROUND_PAUSE_MIN;
    let mut last = Vec::new();
    loop {
        let maker = KeyMaker::new(service.ledger(), service.hsm(), now_s);
        let unfinished = maker.round();
        if unfinished != last {
            for item in &unfinished {
                tracing::warn!("{item}");
            }
            if unfinished.is_empty() {
                tracing::info!("every key that the founding names is there");
            }
            last.clone_from(&unfinished);
        }
        let woken = if unfinished.is_empty() {
            woken.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            let woken = woken.recv_timeout(pause);
            pause = (pause * 2).min(ROUND_PAUSE_MAX);
            woken
        };
        match woken {
            Ok(Wake::Founding) => pause = ROUND_PAUSE_MIN,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn listen(
    service: &Arc<Service<Tokens>>,
    config: &KeeperConfig,
    under_way: &Arc<UnderWay>,
) -> Result<(), StartError> {
    let bind = |path: &Path, allowed| -> Result<UnixListener, StartError> {
        server::bind(path, config.group_gid, allowed)
            .map_err(|e| StartError::System(format!("socket {}: {e}", path.display())))
    };
    let daemon = Allowed::User(config.daemon_uid);
    let (for_daemon, for_group) =
        (bind(&config.socket, daemon)?, bind(&config.ledger_socket, Allowed::ByFile)?);
    let conversation = Arc::new(WithDaemon(Arc::clone(service)));
    let counting = Arc::clone(under_way);
    spawn("daemon-socket", move || server::serve(&for_daemon, daemon, &conversation, &counting))?;
    let conversation = Arc::new(WithGroup(Arc::clone(service)));
    let counting = Arc::clone(under_way);
    spawn("ledger-socket", move || {
        server::serve(&for_group, Allowed::ByFile, &conversation, &counting);
    })
}
