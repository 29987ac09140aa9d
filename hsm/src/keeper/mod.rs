//! The keeper's process: from its files to two open sockets, and to its end.
//!
//! ```text
//! main ── signals: stop
//!   ├─ executor ·· begins and carries out what was approved, in rounds (motions.rs, keys.rs)
//!   ├─ looks ····· who holds the tokens, and what they say of the ledger, every few seconds (seal.rs)
//!   ├─ events ···· what tokens tell: conflicts into the ledger, a lost group ends the process
//!   ├─ daemon's socket ┬ a thread a connection, one a request
//!   │                  │ (server.rs ► service.rs ► judge.rs, ksk.rs ► seal.rs)
//!   ├─ group's socket  ┘ (server.rs ► papers.rs)
//!   └─ the tokens' own threads (pkcs11), which ask at each opening whose the token is (marks.rs)
//! ```
//!
//! A keeper without a founding has neither executor nor daemon: it shows its tokens and takes one
//! founding (unfounded.rs), and ends, for its supervisor to start it as founded.

pub mod clock;
pub mod config;
pub mod door;
#[cfg(test)]
pub(crate) mod fake;
pub mod holding;
pub mod instance;
pub mod judge;
pub mod keys;
mod ksk;
pub mod marks;
pub mod motions;
mod notices;
mod papers;
mod reader;
pub mod seal;
pub mod server;
pub mod service;
mod survey;
pub mod unfounded;

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel, sync_channel};
use std::thread;
use std::time::Duration;

use countersign_policy::KeyId;
use countersign_policy::instance::InstanceId;
use countersign_policy::key::to_hex;
use countersign_policy::ledger::LedgerState;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use self::clock::now_s;
use self::config::KeeperConfig;
use self::holding::LOOK_EVERY;
use self::motions::Executor;
use self::seal::{CHECKPOINT_FILE, Seals};
use self::server::{Allowed, Keeper, UnderWay, WithDaemon, WithGroup};
use self::service::Service;
use self::unfounded::Unfounded;
use crate::ledger::{Ledger, Note, OpenError, WriteError, sha256};
use crate::pkcs11::{Admission, Event, HsmError, Tokens, exit_past_modules};

/// Stopped by a signal.
pub const EXIT_STOPPED: i32 = 0;
/// Configuration, sockets or directories are not as they must be.
pub const EXIT_CONFIG: i32 = 2;
/// A token hung and its group has none left; a restart opens it last.
pub const EXIT_GROUP_LOST: i32 = 3;
/// The ledger is refused.
pub const EXIT_LEDGER: i32 = 4;
/// The appliance was founded: a restart serves it.
pub const EXIT_FOUNDED: i32 = 5;

/// How long requests under way may take to end when the keeper stops: above the deadline of a call
/// into a token, below what supervisors wait before they kill.
const STOP_MAX: Duration = Duration::from_secs(8);
/// How long a start waits for the tokens, to hear what they say of the ledger before a line is added to
/// it. One that takes longer is compared when it comes.
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// Between rounds of the executor when nobody wakes it: windows open and tokens come back by
/// themselves.
const ROUND_PAUSE: Duration = Duration::from_millis(500);
/// Between attempts to write what tokens told, while the ledger can't be written.
const NOTE_RETRY: Duration = Duration::from_secs(2);
/// A module or binary beyond this is not hashed whole; none comes near it.
const HASHED_BYTES_MAX: u64 = 1 << 30;

/// Why the keeper did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration file.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] OpenError),
    /// What is kept beside the ledger contradicts it.
    #[error("ledger: {0}")]
    Kept(String),
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
            Self::Ledger(_) | Self::Kept(_) => EXIT_LEDGER,
            _ => EXIT_CONFIG,
        }
    }
}

/// Runs the keeper until a signal ends it, or it was founded. `ready` is called when both sockets
/// listen. Call it before any other thread is started: it blocks the signals that it waits for.
pub fn run(config_path: &Path, ready: impl FnOnce()) -> Result<i32, StartError> {
    let signals = block_signals()?;
    let config = KeeperConfig::load(config_path)?;
    prepare_state_dir(&config.state_dir).map_err(StartError::System)?;
    let ledger = Arc::new(Ledger::open(&config.state_dir)?);
    let founded = ledger.read(|state| state.appliance().is_some());
    let under_way = Arc::new(UnderWay::default());
    let sockets = [config.socket.clone(), config.ledger_socket.clone()];
    let wait = || {
        ready();
        tracing::info!(socket = %sockets[0].display(), founded, "the keeper serves");
        wait_for_end(&signals);
        if !under_way.wait_none(STOP_MAX) {
            tracing::warn!("requests were still under way; they are open in the ledger");
        }
        for socket in &sockets {
            let _ = std::fs::remove_file(socket);
        }
    };
    if founded {
        serve_founded(config_path, config, ledger, &under_way)?;
        wait();
        return Ok(EXIT_STOPPED);
    }
    let unfounded = serve_unfounded(config_path, config, ledger, &under_way)?;
    wait();
    Ok(if unfounded.is_founded() { EXIT_FOUNDED } else { EXIT_STOPPED })
}

fn serve_unfounded(
    config_path: &Path,
    config: KeeperConfig,
    ledger: Arc<Ledger>,
    under_way: &Arc<UnderWay>,
) -> Result<Arc<Unfounded<Tokens>>, StartError> {
    let kept = config.state_dir.join(CHECKPOINT_FILE);
    if kept.exists() {
        return Err(StartError::Kept(format!(
            "{} is empty, and {} is the checkpoint of one that was here. hint: restore the ledger",
            ledger.path().display(),
            kept.display()
        )));
    }
    let (events, told) = channel();
    let tokens = Tokens::open(config.unfounded_specs(), &config.state_dir, events)?;
    spawn("events", move || {
        for event in told {
            // Ends the process if a group is lost; no key is known yet that could conflict.
            note_of(event);
        }
    })?;
    let (path, listening) = (config_path.to_owned(), config.clone());
    let ended = Box::new(|| {
        // The answer goes out first: main waits for requests under way.
        if let Err(error) = kill(Pid::this(), Signal::SIGTERM) {
            tracing::error!(%error, "the keeper can't end itself; restart it");
        }
    });
    let unfounded = Arc::new(Unfounded::new(ledger, tokens, config, path, now_s, ended));
    tracing::warn!("not founded: the group's socket takes survey and found, the daemon is refused");
    listen(&unfounded, &listening, under_way)?;
    Ok(unfounded)
}

fn serve_founded(
    config_path: &Path,
    config: KeeperConfig,
    ledger: Arc<Ledger>,
    under_way: &Arc<UnderWay>,
) -> Result<(), StartError> {
    let wrong = |problem| config::ConfigError { path: config_path.to_owned(), problem };
    check_pin(&ledger, &config).map_err(wrong)?;
    let known = ledger.read(|state| state.tokens().clone());
    let (specs, missing) = config.founded_specs(&known).map_err(wrong)?;
    for token in missing {
        tracing::error!(token, "the configuration does not name this token of the ledger's");
    }
    let seals = Seals::open(&config.state_dir, &ledger).map_err(StartError::Kept)?;
    let seals = Arc::new(seals);
    let (events, told) = channel();
    let names =
        specs.iter().map(|spec| (spec.name.clone(), (spec.label.clone(), spec.serial.clone())));
    let admission = admission(&ledger, &seals, names.collect());
    let tokens = Tokens::open_admitted(specs, &config.state_dir, events, Some(admission))?;
    tokens.expect_keys(ledger.read(keys::expected));
    if !tokens.wait_settled(SETTLE_MAX) {
        tracing::warn!("not every token was opened yet; what one says is compared when it is");
    }
    if let Err(problem) = seals.holding().claim(&ledger, now_s()) {
        tracing::error!(problem, "this box has not claimed the tokens yet");
    }
    let mut start = Some(start_note(seals.holding().own(), &config));
    if let Some(idle) = seals.idle(&ledger) {
        tracing::error!(why = idle.why(), "nothing is signed");
    } else {
        note_start(&ledger, &mut start);
    }
    let started_at = ledger.head().0;
    let (wake, woken) = sync_channel(1);
    let listening = config.clone();
    let service = Arc::new(Service::new((ledger, seals), tokens, config, now_s, wake));
    let noting = Arc::clone(&service);
    spawn("events", move || take_events(&noting, &told))?;
    let executing = Arc::clone(&service);
    spawn("executor", move || execute(&executing, (started_at, start), &woken))?;
    let looking = Arc::clone(&service);
    spawn("looks", move || look(&looking))?;
    listen(&service, &listening, under_way)
}

/// Root's pin, as long as the appliance lives: a ledger of another founding is not taken up.
fn check_pin(ledger: &Ledger, config: &KeeperConfig) -> Result<(), String> {
    let Some(founding) = ledger.read(LedgerState::appliance) else { return Ok(()) };
    match config.founding {
        Some(pinned) if pinned == founding => Ok(()),
        Some(pinned) => {
            Err(format!("[keeper] `founding` pins {pinned}; the ledger is of {founding}"))
        }
        None => Err(format!(
            "[keeper] `founding` is missing; the ledger is of {founding}. hint: compare that with what \
             the founders hold, and pin it"
        )),
    }
}

/// Whether a token that was opened is this appliance's, and what it says of the ledger.
fn admission(
    ledger: &Arc<Ledger>,
    seals: &Arc<Seals>,
    names: BTreeMap<String, (String, String)>,
) -> Admission {
    let (ledger, seals) = (Arc::clone(ledger), Arc::clone(seals));
    Box::new(move |token, data| {
        if let Some((label, serial)) = names.get(token) {
            ledger
                .read(|state| marks::is_named(state, token, (label, serial)))
                .inspect_err(|why| seals.refuse(token, why))?;
        }
        seals.admit(&ledger, token, data)
    })
}

fn block_signals() -> Result<SigSet, StartError> {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().map_err(|e| StartError::System(format!("blocking signals: {e}")))?;
    Ok(signals)
}

/// Returns at SIGTERM or SIGINT.
fn wait_for_end(signals: &SigSet) {
    loop {
        match signals.wait() {
            Ok(Signal::SIGHUP) => {
                tracing::info!("nothing is read again while the keeper runs; restart it");
            }
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

/// The line that says what runs and where: hashes of binary, configuration and modules.
fn start_note(instance: InstanceId, config: &KeeperConfig) -> Note {
    let hash = |path: &Path| match config::read_bounded(path, HASHED_BYTES_MAX) {
        Ok(octets) => to_hex(&sha256(&octets)),
        Err(problem) => format!("unreadable: {problem}"),
    };
    let modules: BTreeMap<String, String> = config
        .tokens
        .values()
        .map(|token| (token.module.display().to_string(), hash(&token.module)))
        .collect();
    Note::started(
        instance,
        env!("CARGO_PKG_VERSION").to_owned(),
        hash(Path::new("/proc/self/exe")),
        to_hex(&sha256(&config.octets)),
        modules,
    )
}

/// Writes it once, on the box that holds the tokens: any other would fork the ledger with it.
fn note_start(ledger: &Ledger, start: &mut Option<Note>) {
    let Some(note) = start.take() else { return };
    tracing::info!(started = ?note, "the keeper starts");
    if let Err(error) = ledger.note(note, now_s()) {
        tracing::error!(%error, "zones are signed, KSKs are not used, until the ledger can be written");
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(|_| ()).map_err(|e| StartError::System(format!("starting a thread: {e}")))
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
        if service.seals().idle(service.ledger()).is_some() {
            continue;
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
            (key, Note::key_conflict(key, token, found))
        }
        Event::Cleared { key } => {
            tracing::warn!(%key, "every token proves the key again");
            (key, Note::key_cleared(key))
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

/// Rounds of the executor, for good. One that panics costs itself alone.
fn execute(
    service: &Service<Tokens>,
    (started_at, mut start): (u64, Option<Note>),
    woken: &Receiver<()>,
) {
    let ledger = (service.ledger(), started_at);
    let mut executor = Executor::new(ledger, service.hsm(), service.seals(), now_s);
    loop {
        if let Ok(unfinished) = catch_unwind(AssertUnwindSafe(|| executor.round())) {
            service.set_unfinished(unfinished);
        } else {
            tracing::error!("a round of the executor panicked; please report it");
        }
        if start.is_some() && service.seals().idle(service.ledger()).is_none() {
            note_start(service.ledger(), &mut start);
        }
        if woken.recv_timeout(ROUND_PAUSE) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// Looks at the tokens, for good: another box may hold them by now.
fn look(service: &Service<Tokens>) {
    loop {
        thread::sleep(LOOK_EVERY);
        let look = || service.seals().look(service.ledger(), service.hsm());
        if catch_unwind(AssertUnwindSafe(look)).is_err() {
            tracing::error!("a look at the tokens panicked; please report it");
        }
    }
}

fn listen<K: Keeper>(
    keeper: &Arc<K>,
    config: &KeeperConfig,
    under_way: &Arc<UnderWay>,
) -> Result<(), StartError> {
    let bind = |path: &Path| -> Result<UnixListener, StartError> {
        server::bind(path, config.group_gid)
            .map_err(|e| StartError::System(format!("socket {}: {e}", path.display())))
    };
    let daemon = Allowed::User(config.daemon_uid);
    let (for_daemon, for_group) = (bind(&config.socket)?, bind(&config.ledger_socket)?);
    let conversation = Arc::new(WithDaemon(Arc::clone(keeper)));
    let counting = Arc::clone(under_way);
    spawn("daemon-socket", move || server::serve(&for_daemon, daemon, &conversation, &counting))?;
    let conversation = Arc::new(WithGroup(Arc::clone(keeper)));
    let counting = Arc::clone(under_way);
    spawn("ledger-socket", move || {
        server::serve(&for_group, Allowed::ByFile, &conversation, &counting);
    })
}
