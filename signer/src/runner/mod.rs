//! The one place that joins the stages: fetch → admit → plan → sign (keeper) → assemble → verify
//! → store → publish → NOTIFY → tell the keeper.
//!
//! Each zone has a task of its own (`task`) that does what its [`schedule`] says. Whatever
//! fails, the last good version stays up, and [`alarm`] says what is wrong and what comes next.
//! After a start every zone's last version is up before anything else happens, without keeper or
//! HSM; a background pass verifies it again.

pub mod alarm;
mod differences;
mod door;
mod fetch;
mod hook;
mod jobs;
mod judge;
mod new_data;
mod pipeline;
mod publish;
pub mod schedule;
mod signing;
pub mod status;
mod task;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_hsm::client::Client;
use countersign_policy::ZoneName;
use countersign_zone::admit::IncomingDnssec;
use countersign_zone::receive::Bounds;
use countersign_zone::verify::{self, VerifiedZone, re_verify};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, now_s};
use crate::config;
use crate::counters::Counters;
use crate::inbound::{self, Source};
use crate::metrics::Metrics;
pub use crate::outbound::differences::DifferenceBounds;
use crate::published::{Catalogue, Published};
use crate::store::{Slot, Store, StoreError};
use crate::tls::Connector;
use door::Door;
use new_data::NewData;
use schedule::{Event, Failure, FailureKind, Schedule, TimerBounds};
use status::{COMMANDS_MAX, Command, Directory, Doing, Handle, Status};
use task::{RunId, ZoneTask, resumed_up};

/// Transfers in at once: a primary with thousands of zones is not to be met by a crowd.
const TRANSFERS_AT_ONCE: usize = 16;

/// Zones that wait for the keeper at once. Each holds a thread, and a keeper that hangs must not
/// take those that store and verify.
const QUESTIONS_AT_ONCE: usize = 32;

/// How often the keeper is asked what a zone is to be signed with, apart from each check of its
/// primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskPace {
    /// While nothing is waited for.
    pub idle_s: u64,
    /// While officers have something to decide.
    pub awaiting_s: u64,
}

impl Default for AskPace {
    /// What officers approve is acted upon within minutes; a portfolio of 200,000 zones asks some
    /// 1,700 questions a second, each answered from the keeper's memory.
    fn default() -> Self {
        Self { idle_s: 120, awaiting_s: 30 }
    }
}

/// Zones that are read from disk at once at start.
const LOADS_AT_ONCE: usize = 4;

/// Called with a zone that has a new version up; must not block.
pub type Announce = Box<dyn Fn(&ZoneName) + Send + Sync>;

/// What all zones share.
pub struct Context {
    /// Timers.
    pub clock: Clock,
    /// Versions on disk.
    pub store: Arc<Store>,
    /// The keeper.
    pub keeper: Client,
    /// Versions that are up.
    pub catalogue: Arc<Catalogue>,
    /// Tells the secondaries of a zone that it has changed.
    pub announce: Announce,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Those of transfers.
    pub counters: Arc<Counters>,
    /// How often it is asked.
    pub ask: AskPace,
    /// Threads that one verification uses.
    pub threads: NonZeroUsize,
    /// Zones that compute at once.
    pub cpu: Semaphore,
    /// Transfers in at once.
    pub transfers: Semaphore,
    /// Questions to the keeper at once.
    pub questions: Semaphore,
    /// Questions to hooks at once.
    hooks: hook::Gates,
    /// One background verification at a time: it must not slow down signing.
    pub background: Semaphore,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Context {
    /// What all zones share; `zones_at_work_max` of them compute at once.
    #[expect(clippy::too_many_arguments, reason = "the parts of a daemon, each once")]
    pub fn new(
        clock: Clock,
        store: Store,
        keeper: Client,
        catalogue: Arc<Catalogue>,
        announce: Announce,
        metrics: Arc<Metrics>,
        counters: Arc<Counters>,
        zones_at_work_max: usize,
    ) -> Self {
        Self {
            clock,
            store: Arc::new(store),
            keeper,
            catalogue,
            announce,
            metrics,
            counters,
            ask: AskPace::default(),
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            cpu: Semaphore::new(zones_at_work_max),
            transfers: Semaphore::new(TRANSFERS_AT_ONCE),
            questions: Semaphore::new(QUESTIONS_AT_ONCE),
            hooks: hook::Gates::default(),
            background: Semaphore::new(1),
        }
    }

    /// Runs what waits for the keeper, off the threads that serve.
    async fn asking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let _permit = self.questions.acquire().await;
        tokio::task::spawn_blocking(work).await
    }

    /// Runs what computes, a bounded number at a time.
    async fn computing<T: Send + 'static, E: From<Failure> + Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let _permit = self.cpu.acquire().await;
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || span.in_scope(work)).await.unwrap_or_else(|error| {
            let why = format!("internal error: {error}");
            Err(Failure::new(FailureKind::Verification, why).into())
        })
    }
}

/// One zone, as the runner needs the configuration.
#[derive(Debug, Clone)]
pub struct ZoneSettings {
    /// Where it is fetched from, in order of preference.
    pub primaries: Vec<Source>,
    /// How they are reached.
    pub transfer: Transfer,
    /// What becomes of its data on the way.
    pub treatment: Treatment,
    /// What a transfer may bring.
    pub bounds: Bounds,
    /// Bounds on the primary's timers.
    pub timers: TimerBounds,
}

/// What becomes of a zone's data between its source and its secondaries.
#[derive(Debug, Clone)]
pub struct Treatment {
    /// The primary's DNSSEC records.
    pub incoming_dnssec: IncomingDnssec,
    /// The primary's ZONEMD.
    pub incoming_zonemd: config::IncomingZonemd,
    /// A ZONEMD record is made for zones of up to so many records; none if absent.
    pub zonemd: Option<usize>,
    /// TTLs and an SOA expire that signatures would not outlive.
    pub beyond_window: config::BeyondWindow,
    /// Which changes wait for a person; `None` if none do.
    pub guard: Option<config::Guard>,
    /// Names that a new version must have, or a person releases it.
    pub critical: Vec<ZoneName>,
    /// Programs that are asked about a new version, by name, in this order.
    pub hooks: Vec<(String, config::Hook)>,
    /// What is kept for IXFR.
    pub differences: DifferenceBounds,
}

impl Default for Treatment {
    /// Data passes unaltered, and nothing is asked.
    fn default() -> Self {
        Self {
            incoming_dnssec: IncomingDnssec::Strip,
            incoming_zonemd: config::IncomingZonemd::Ignore,
            zonemd: None,
            beyond_window: config::BeyondWindow::Refuse,
            guard: None,
            critical: Vec::new(),
            hooks: Vec::new(),
            differences: DifferenceBounds { kept: 0, bytes_max: 0 },
        }
    }
}

/// How primaries are reached, and how long that may take.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// TLS, with our certificate, if we have one.
    pub connector: Option<Connector>,
    /// Deadlines.
    pub limits: inbound::Limits,
    /// Which of them give no differences.
    pub manners: Arc<inbound::Manners>,
}

struct Running {
    settings: watch::Sender<Arc<ZoneSettings>>,
    handle: Handle,
    stop: CancellationToken,
    /// Cancelled when the task is gone.
    gone: CancellationToken,
}

/// All zones' tasks.
pub struct Runner {
    context: Arc<Context>,
    directory: Directory,
    running: Mutex<BTreeMap<ZoneName, Running>>,
    stop: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").finish_non_exhaustive()
    }
}

impl Runner {
    /// A runner without zones.
    pub fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            directory: Directory::default(),
            running: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: Mutex::default(),
        }
    }

    /// The way to the zones' tasks.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Takes another set of zones. New ones are read from disk and put up, and have a task from
    /// then on; those that are gone end; the others learn of their settings. The catalogue must
    /// know the new set already. Returns when every zone that has a version on disk is up.
    pub async fn configure(&self, zones: BTreeMap<ZoneName, ZoneSettings>) {
        let mut loads = JoinSet::new();
        let gate = Arc::new(Semaphore::new(LOADS_AT_ONCE));
        let mut ending = Vec::new();
        {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.retain(|zone, task| {
                let stays = zones.contains_key(zone);
                if !stays {
                    tracing::info!(%zone, "no longer configured; its versions stay on disk");
                    task.stop.cancel();
                    ending.push(task.gone.clone());
                }
                stays
            });
            for (zone, settings) in zones {
                let settings = Arc::new(settings);
                if let Some(task) = running.get(&zone) {
                    task.settings.send_replace(settings);
                    continue;
                }
                let (context, gate) = (self.context.clone(), gate.clone());
                loads.spawn(async move {
                    let _permit = gate.acquire().await;
                    let loaded = resume(&context, &zone, &settings).await;
                    (zone, settings, loaded)
                });
            }
        }
        while let Some(loaded) = loads.join_next().await {
            match loaded {
                Ok((zone, settings, resumed)) => self.spawn(zone, settings, resumed),
                Err(error) => tracing::error!(%error, "a zone could not be read from disk"),
            }
        }
        {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            let handles = running.iter().map(|(zone, task)| (zone.clone(), task.handle.clone()));
            self.directory.replace(handles.collect());
        }
        // A task may still be saving. Were its zone to come back before that ends, two would
        // write its files, and the one that is going could put the serial on disk back.
        for gone in ending {
            gone.cancelled().await;
        }
    }

    fn spawn(&self, zone: ZoneName, settings: Arc<ZoneSettings>, resumed: Resumed) {
        let (commands, command_queue) = mpsc::channel(COMMANDS_MAX);
        let (settings_sender, settings) = watch::channel(settings);
        let (background_sender, background) = mpsc::channel(1);
        let (status_sender, status) = watch::channel(Status {
            schedule: resumed.schedule.clone(),
            frozen: resumed.frozen.clone(),
            published_at_s: resumed.published_at_s,
            versions: resumed.saved.versions().into(),
            held: resumed.door.held.clone(),
            waiting: resumed.door.waiting.clone(),
            doing: Doing::Idle,
            policy: None,
        });
        let stop = self.stop.child_token();
        if let Some(version) = &resumed.version {
            let check = verify_again(self.context.clone(), version.clone(), background_sender);
            self.track(stop.clone(), check);
            let (up, records) = (Published::new(version), resumed.saved.versions().to_vec());
            let kept = settings.borrow().treatment.differences;
            let steps =
                differences::resume(self.context.clone(), zone.clone(), up.into(), records, kept);
            self.track(stop.clone(), steps);
        }
        let task = ZoneTask {
            zone: zone.clone(),
            context: self.context.clone(),
            settings,
            commands: command_queue,
            background,
            status: status_sender,
            stop: stop.clone(),
            schedule: resumed.schedule,
            version: resumed.version,
            saved: resumed.saved,
            new: resumed.new,
            door: resumed.door,
            working: false,
            frozen: resumed.frozen,
            logged: None,
            ask_due_s: 0,
            run: RunId::new(),
            next_run: None,
        };
        // Not dropped where it stands: it stops by itself, between its steps on disk.
        let gone = CancellationToken::new();
        let ended = gone.clone().drop_guard();
        self.track(CancellationToken::new(), async move {
            task.run().await;
            drop(ended);
        });
        let handle = Handle { commands, status };
        let running = Running { settings: settings_sender, handle, stop, gone };
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(zone, running);
    }

    fn track(&self, stop: CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            stop.run_until_cancelled(work).await;
        });
    }

    /// A NOTIFY from a listed primary.
    pub fn notified(&self, zone: &ZoneName) {
        if let Some(handle) = self.directory.zone(zone) {
            // A full queue holds a question that this one would only repeat.
            let _ = handle.commands.try_send(Command::Notified);
        }
    }

    /// Ends all tasks, within `deadline`. What is not done is done at the next start.
    pub async fn stop(&self, deadline: Duration) {
        self.stop.cancel();
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(deadline, all).await.is_err() {
            tracing::warn!("some zones were still at work; they go on at the next start");
        }
    }
}

/// A zone as the disk has it.
struct Resumed {
    version: Option<Arc<VerifiedZone>>,
    published_at_s: Option<u64>,
    saved: crate::store::SaveState,
    frozen: Option<crate::store::Frozen>,
    new: Option<NewData>,
    door: Door,
    schedule: Schedule,
}

/// Reads a zone's last version and puts it up.
async fn resume(context: &Context, zone: &ZoneName, settings: &ZoneSettings) -> Resumed {
    let (store, name) = (context.store.clone(), zone.clone());
    let loaded = tokio::task::spawn_blocking(move || store.load(&name)).await;
    let now_s = now_s();
    let loaded = match loaded {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(error)) => return unreadable(&error, settings, now_s),
        Err(error) => {
            let error = StoreError::Io {
                verb: "read",
                path: zone.to_string().into(),
                source: std::io::Error::other(error),
            };
            return unreadable(&error, settings, now_s);
        }
    };
    for damage in &loaded.damage {
        tracing::error!(%zone, damage, "a file of the zone is damaged");
    }
    let damage = (!loaded.damage.is_empty()).then(|| loaded.damage.join("; "));
    let up = loaded.version.as_ref().map(|(version, record)| resumed_up(version, record, now_s));
    let published_at_s = loaded.version.as_ref().map(|(_, record)| record.published_at_s);
    let version = loaded.version.map(|(version, _)| Arc::new(version));
    if let Some(version) = &version {
        match context.catalogue.publish(Arc::new(Published::new(version))) {
            Ok(()) => {
                tracing::info!(%zone, serial = version.serial(), "resumed from disk");
                // The daemon before may have ended between publishing and telling.
                (context.announce)(zone);
            }
            Err(error) => tracing::error!(%zone, %error, "the version on disk is not put up"),
        }
    }
    if up.is_some() {
        context.metrics.resumed();
    }
    let mut schedule = Schedule::new(settings.timers, up, loaded.frozen.is_some(), damage, now_s);
    let rejected = loaded.rejected;
    let mut door = Door { held: loaded.held, rejected: rejected.is_some(), ..Door::default() };
    if let Some(serial) = rejected {
        schedule.note(Event::Rejected(serial), now_s);
    }
    if let Some(held) = door.held.as_ref().filter(|held| held.released.is_none()) {
        schedule.note(Event::Held(door::awaits_person(held)), now_s);
    }
    door.waiting = loaded.waiting;
    let new = on_its_way(context, &mut door).await;
    if let Some(new) = &new {
        schedule.note(Event::Arrived(new.serial), now_s);
    }
    let (saved, frozen) = (loaded.ledger, loaded.frozen);
    Resumed { version, published_at_s, saved, frozen, new, door, schedule }
}

/// New data that was on its way when the daemon before ended, and that nobody would bring again. What
/// came last goes first.
async fn on_its_way(context: &Context, door: &mut Door) -> Option<NewData> {
    let released = door.held.clone().filter(|held| held.released.is_some());
    let waiting = door.waiting.clone().map(|kept| (Slot::Waiting, kept));
    let mut first = None;
    for (slot, kept) in waiting.into_iter().chain(released.map(|kept| (Slot::Held, kept))) {
        let (store, of) = (context.store.clone(), kept.clone());
        let read = tokio::task::spawn_blocking(move || store.kept_data(slot, &of)).await;
        match task::flatten(read) {
            Ok(zone) => {
                let (serial, source) = (kept.serial, &kept.source);
                tracing::info!(zone = %kept.zone, serial, %source, "goes on with new data from disk");
                let resumed = door::resumed(zone, &kept);
                match first {
                    None => first = Some(resumed),
                    Some(_) => door.set_aside = Some(resumed),
                }
            }
            Err(error) => {
                tracing::error!(zone = %kept.zone, error, "data that was set aside is lost");
                match slot {
                    Slot::Held => door.held = None,
                    Slot::Waiting => door.waiting = None,
                }
            }
        }
    }
    first
}

/// A folder that can't be read may hold a serial that went out and a freeze: nothing new goes out
/// until someone has looked.
fn unreadable(error: &StoreError, settings: &ZoneSettings, now_s: u64) -> Resumed {
    tracing::error!(%error, "the zone's files can't be read; it is frozen until they can");
    Resumed {
        version: None,
        published_at_s: None,
        saved: crate::store::SaveState::default(),
        frozen: Some(crate::store::Frozen {
            version: crate::store::v1::VERSION,
            since_s: now_s,
            by: "the daemon itself: the zone's files could not be read".to_owned(),
        }),
        new: None,
        door: Door::default(),
        schedule: Schedule::new(settings.timers, None, true, Some(error.to_string()), now_s),
    }
}

/// Verifies a resumed version while it is already up, and says so if it fails.
async fn verify_again(
    context: Arc<Context>,
    version: Arc<VerifiedZone>,
    failed: mpsc::Sender<String>,
) {
    let _one_at_a_time = context.background.acquire().await;
    let threads = context.threads;
    let zone = version.apex().clone();
    let checked = context
        .computing(move || {
            match re_verify(&version, now_s(), threads) {
                Ok(()) => Ok(None),
                // Genuine, and too old: that has an alarm of its own, and its signatures that
                // are still good may be kept.
                Err(expired @ verify::Failure::Expired { .. }) => Ok(Some(expired)),
                Err(failure) => Err(Failure::new(FailureKind::Verification, failure)),
            }
        })
        .await;
    match checked {
        Ok(None) => tracing::info!(%zone, "the resumed version verifies"),
        Ok(Some(expired)) => tracing::error!(%zone, %expired, "the resumed version has expired"),
        Err(failure) => {
            context.metrics.verification_failed();
            tracing::error!(%zone, reason = failure.detail, "the resumed version does not verify");
            // A task that is gone needs no news.
            let _ = failed.send(failure.detail).await;
        }
    }
}
