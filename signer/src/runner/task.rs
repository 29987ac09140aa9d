//! One zone's task: it alone holds the zone's versions, does what [`Schedule`] says, and is the
//! one place where a version goes from verified to stored to published.

use std::sync::Arc;

use countersign_policy::ZoneName;
use countersign_zone::Rtype;
use countersign_zone::difference::Base;
use countersign_zone::verify::VerifiedZone;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::door::Door;
use super::fetch::Fetched;
use super::jobs::{Have, Outcome, SignJob, check};
use super::new_data::{Arrival, Form, NewData, Steps, Told};
use super::pipeline::Serials;
use super::schedule::{Event, Failure, FailureKind, Schedule, SoaTimers, Up, Work};
use super::signing::{Signing, unwrap_time};
use super::status::{Command, Doing, Progress, Status};
use super::{Context, ZoneSettings};
use crate::clock::now_s;
use crate::store::{Frozen, Record, SaveState, Source};

/// Everything that one zone's task holds.
pub(super) struct ZoneTask {
    pub(super) zone: ZoneName,
    pub(super) context: Arc<Context>,
    pub(super) settings: watch::Receiver<Arc<ZoneSettings>>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) background: mpsc::Receiver<String>,
    pub(super) status: watch::Sender<Status>,
    pub(super) stop: CancellationToken,
    pub(super) schedule: Schedule,
    pub(super) version: Option<Arc<VerifiedZone>>,
    pub(super) saved: SaveState,
    /// New data that is to be signed.
    pub(super) new: Option<NewData>,
    pub(super) door: Door,
    /// Whether a piece of work is under way.
    pub(super) working: bool,
    pub(super) frozen: Option<Frozen>,
    /// When the keeper is to be asked what the zone is to be signed with.
    pub(super) ask_due_s: u64,
    /// The failure that was logged last.
    pub(super) logged: Option<Failure>,
    /// Of the work that is under way, or was last.
    pub(super) run: RunId,
    /// Of the check that a NOTIFY or an operator asked for.
    pub(super) next_run: Option<RunId>,
}

/// The id that ties together the log lines from a NOTIFY, or a timer, to the publication.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunId(u64);

impl RunId {
    pub fn new() -> Self {
        Self(rand::random())
    }
}

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl ZoneTask {
    /// Runs until it is told to stop.
    pub(super) async fn run(mut self) {
        let mut job: Option<JoinHandle<Outcome>> = None;
        let mut question: Option<JoinHandle<Option<Signing>>> = None;
        let mut event = Event::Tick;
        self.ask_later(now_s());
        loop {
            let now_s = now_s();
            if !self.working
                && let Some(next) = self.door.next.take()
            {
                self.schedule.note(event, now_s);
                event = self.take_arrival(next).await;
            }
            if let Some(work) = self.schedule.next(event, now_s) {
                job = Some(self.start(work));
                self.working = true;
            }
            self.show();
            if question.is_none() && self.asks(now_s) {
                question = Some(self.ask());
            }
            let wake_at_s = self.wake_at(now_s, question.is_none());
            let clock = self.context.clock.clone();
            event = tokio::select! {
                () = self.stop.cancelled() => return,
                ended = ended(&mut job) => {
                    job = None;
                    self.working = false;
                    self.take_up(ended).await
                }
                answer = ended(&mut question) => {
                    question = None;
                    self.ask_later(crate::clock::now_s());
                    self.learned(answer.ok().flatten().as_ref())
                }
                Some(command) = self.commands.recv() => self.obey(command).await,
                Some(reason) = self.background.recv() => Event::Distrusted(reason),
                Ok(()) = self.settings.changed() => Event::Reloaded,
                () = async move {
                    match wake_at_s {
                        Some(at_s) => clock.sleep_until(at_s).await,
                        None => std::future::pending().await,
                    }
                } => Event::Tick,
            };
        }
    }

    /// Sets the time of the next question, some later than the pace, so that zones do not ask all
    /// at once.
    fn ask_later(&mut self, now_s: u64) {
        let pace_s = self.ask_pace_s(now_s);
        self.ask_due_s = now_s + pace_s + rand::random_range(0..=pace_s / 4);
    }

    fn ask_pace_s(&self, now_s: u64) -> u64 {
        let pace = self.context.ask;
        if self.schedule.awaits_keeper(now_s) { pace.awaiting_s } else { pace.idle_s }
    }

    /// Whether the keeper is to be asked now. What is waited for since the time was set, or a
    /// clock that went back, brings it forward.
    fn asks(&mut self, now_s: u64) -> bool {
        let pace_s = self.ask_pace_s(now_s);
        self.ask_due_s = self.ask_due_s.min(now_s + pace_s + pace_s / 4);
        self.ask_due_s <= now_s
    }

    fn ask(&self) -> JoinHandle<Option<Signing>> {
        let (context, zone) = (self.context.clone(), self.zone.clone());
        let zonemd = self.settings.borrow().treatment.zonemd;
        tokio::spawn(async move {
            let keeper = context.keeper.clone();
            let asked = context.asking(move || Signing::ask(&keeper, &zone, zonemd, now_s()).ok());
            asked.await.ok().flatten()
        })
    }

    fn learned(&self, signing: Option<&Signing>) -> Event {
        self.learn_policy(signing);
        signing.map_or(Event::Tick, |signing| Event::Learned(signing.summary()))
    }

    fn wake_at(&self, now_s: u64, may_ask: bool) -> Option<u64> {
        let work_s = self.schedule.wake_at(now_s);
        if may_ask { Some(work_s.unwrap_or(u64::MAX).min(self.ask_due_s)) } else { work_s }
    }

    /// Shows how things are, and then says the last words about them: whoever hears one finds it so.
    fn show(&mut self) {
        self.status.send_modify(|status| {
            status.schedule = self.schedule.clone();
            status.frozen.clone_from(&self.frozen);
            status.held.clone_from(&self.door.held);
            status.waiting.clone_from(&self.door.waiting);
            if !self.working {
                status.doing = Doing::Idle;
            }
        });
        for (told, last) in self.door.last_words.drain(..) {
            told.end(last);
        }
    }

    fn start(&mut self, work: Work) -> JoinHandle<Outcome> {
        let doing = if work == Work::Check { Doing::Checking } else { Doing::Signing };
        self.status.send_modify(|status| status.doing = doing);
        let settings = self.settings.borrow_and_update().clone();
        self.schedule.set_bounds(settings.timers);
        let context = self.context.clone();
        let zone = self.zone.clone();
        // New data is signed under the id of the check that brought it.
        self.run = match work {
            Work::Check => self.next_run.take().unwrap_or_else(RunId::new),
            Work::SignNew { .. } => self.run,
            Work::SignAgain { .. } | Work::SignCds { .. } => RunId::new(),
        };
        let span = tracing::info_span!("run", run = %self.run, zone = %self.zone);
        match work {
            Work::Check => {
                let have = self.have();
                tokio::spawn(check(context, zone, settings, have).instrument(span))
            }
            Work::SignNew { reuse } => {
                let new = self.new.take();
                let mut job = self.job(context, settings, reuse);
                job.steps = self.door.told.as_ref().map(Told::steps).unwrap_or_default();
                job.raise =
                    new.as_ref().is_some_and(|new| matches!(new.source, Source::Republish { .. }));
                tokio::spawn(async move { job.sign_new(new).await }.instrument(span))
            }
            Work::SignAgain { reuse } => {
                let job = self.job(context, settings, reuse);
                tokio::spawn(async move { job.sign_again(false).await }.instrument(span))
            }
            Work::SignCds { reuse } => {
                let job = self.job(context, settings, reuse);
                tokio::spawn(async move { job.sign_again(true).await }.instrument(span))
            }
        }
    }

    fn job(&self, context: Arc<Context>, settings: Arc<ZoneSettings>, reuse: bool) -> SignJob {
        SignJob {
            zone: self.zone.clone(),
            context,
            settings,
            version: self.version.clone(),
            incoming_serial: self.schedule.up().map(|up| up.incoming_serial),
            serials: Serials {
                last_published: self.saved.high_water(),
                last_incoming: self.saved.last_incoming(),
            },
            reuse,
            raise: false,
            steps: Steps::default(),
        }
    }

    /// The newest data that is here, and whether differences may be applied to it.
    fn have(&self) -> Have {
        let serial = self.schedule.newest_data();
        let base = match (&self.new, &self.version, self.saved.newest()) {
            (Some(NewData { form: Form::Admitted(admitted), exact: true, source, .. }), ..) => {
                source.primary().map(|name| (Base::of_admitted(admitted), name))
            }
            (None, Some(version), Some(record))
                if record.exact && record.serial == version.serial() =>
            {
                let name = record.source.as_ref().and_then(Source::primary);
                name.map(|name| (Base::of_version(version, record.incoming_serial), name))
            }
            _ => None,
        };
        let base = base.filter(|(base, _)| serial == Some(base.serial()));
        let rejected = self.schedule.rejected();
        Have { serial, rejected, base: base.map(|(base, name)| (base, name.to_owned())) }
    }

    async fn obey(&mut self, command: Command) -> Event {
        match command {
            Command::Notified => {
                let run = *self.next_run.get_or_insert_with(RunId::new);
                tracing::info!(%run, zone = %self.zone, "NOTIFY from a primary");
                Event::Notified
            }
            Command::Refresh => {
                let run = *self.next_run.get_or_insert_with(RunId::new);
                tracing::info!(%run, zone = %self.zone, "an operator asks for a refresh");
                Event::RefreshRequested
            }
            Command::Push(push) => self.arrive(Arrival::Push(push)).await,
            Command::Release { looked, by, progress } => {
                self.arrive(Arrival::Release { looked, by, progress }).await
            }
            Command::Republish { version, by, progress } => {
                self.arrive(Arrival::Republish { version, by, progress }).await
            }
            Command::Reject { looked, by, done } => {
                let rejected = self.reject(&looked, &by).await;
                self.show();
                let _ = done.send(rejected);
                Event::Tick
            }
            Command::Freeze { by, done } => {
                let (store, zone) = (self.context.store.clone(), self.zone.clone());
                let who = by.clone();
                let frozen =
                    tokio::task::spawn_blocking(move || store.freeze(&zone, &who, now_s())).await;
                // Frozen in memory even if the disk says no: the operator is told which.
                self.frozen = Some(match flatten(frozen) {
                    Ok(frozen) => {
                        let _ = done.send(Ok(frozen.clone()));
                        frozen
                    }
                    Err(error) => {
                        let _ = done.send(Err(error));
                        Frozen {
                            version: crate::store::v1::VERSION,
                            since_s: now_s(),
                            by: by.clone(),
                        }
                    }
                });
                tracing::warn!(zone = %self.zone, by, "frozen: no new version goes out");
                Event::Frozen
            }
            Command::Thaw { done } => {
                let (store, zone) = (self.context.store.clone(), self.zone.clone());
                // Without state the files may not have been readable at start: they say how far
                // the serial came, so no thaw before they are read.
                let read = self.saved == SaveState::default();
                let thawed = flatten(
                    tokio::task::spawn_blocking(move || {
                        let saved = read.then(|| store.load(&zone)).transpose()?;
                        store.thaw(&zone).map(|()| saved)
                    })
                    .await,
                );
                let event = match &thawed {
                    Ok(saved) => {
                        if let Some(loaded) = saved {
                            self.saved = loaded.ledger.clone();
                        }
                        self.frozen = None;
                        tracing::info!(zone = %self.zone, "thawed");
                        Event::Thawed
                    }
                    Err(_) => Event::Tick,
                };
                let _ = done.send(thawed.map(drop));
                event
            }
        }
    }

    /// Takes the end of a piece of work; what it means is for the schedule to say.
    async fn take_up(&mut self, ended: Result<Outcome, JoinError>) -> Event {
        let span = tracing::info_span!("run", run = %self.run, zone = %self.zone);
        let outcome = ended.unwrap_or_else(|error| {
            // A panic in a stage costs this attempt, not the daemon.
            Outcome::SignFailed {
                failure: Failure::new(
                    FailureKind::Verification,
                    format!("internal error: {error}"),
                ),
                new: None,
                signing: None,
            }
        });
        match outcome {
            Outcome::Checked { fetched, signing } => {
                span.in_scope(|| self.checked(fetched, signing.as_ref()))
            }
            Outcome::CheckFailed { failure, signing } => {
                self.learn_policy(signing.as_ref());
                let params = signing.as_ref().map(Signing::summary);
                span.in_scope(|| {
                    tracing::warn!(reason = failure.detail, "no primary gave the zone");
                });
                self.context.metrics.check_failed();
                Event::CheckFailed { failure, params }
            }
            Outcome::Signed(signed) => self.publish(*signed).instrument(span).await,
            Outcome::SignFailed { failure, new, signing } => {
                self.learn_policy(signing.as_ref());
                self.try_later(failure, new).instrument(span).await
            }
            Outcome::Refused { failure, source, released, signing } => {
                self.learn_policy(Some(&signing));
                if !source.is_primary() || released {
                    return self.arrival_refused(failure, released).instrument(span).await;
                }
                let event = span.in_scope(|| self.sign_failed(failure));
                let Some(aside) = self.door.set_aside.take() else { return event };
                self.schedule.note(event, now_s());
                Event::Arrived(self.new.insert(aside).serial)
            }
            Outcome::Unchanged { counts, signing } => {
                self.learn_policy(Some(&signing));
                self.unchanged(counts, signing.summary()).instrument(span).await
            }
            Outcome::Held { new, reasons, signing } => {
                self.learn_policy(Some(&signing));
                match self.hold(new, reasons).await {
                    Ok(event) => event,
                    Err(failure) => {
                        let new = self.new.take();
                        self.try_later(failure, new).instrument(span).await
                    }
                }
            }
            Outcome::CdsRefused { failure, signing } => {
                self.learn_policy(Some(&signing));
                span.in_scope(|| self.log_withheld(&failure));
                Event::CdsRefused(failure)
            }
            Outcome::CdsOver { signing } => {
                self.learn_policy(Some(&signing));
                Event::CdsOver(signing.summary())
            }
        }
    }

    fn checked(&mut self, fetched: Option<Fetched>, signing: Option<&Signing>) -> Event {
        self.learn_policy(signing);
        let fetched = fetched.filter(|fetched| self.is_primary_still(fetched));
        let params = signing.map(Signing::summary);
        let soa = fetched.as_ref().and_then(|fetched| fetched.zone.soa());
        let timers = soa.and_then(timers_of_soa);
        // A transfer without SOA is no transfer; admission says so if it is one after all.
        let new_data = fetched.as_ref().map(|_| soa.and_then(serial_of_soa).unwrap_or_default());
        if let (Some(Fetched { zone, source }), Some(serial)) = (fetched, new_data) {
            tracing::info!(serial, records = zone.records(), "new data from the primary");
            let before = self.new.replace(NewData::fetched(zone, serial, &source.peer));
            self.door.put_aside(before.filter(NewData::comes_once));
        } else {
            tracing::debug!("the primary has nothing newer");
        }
        let timers = timers.or_else(|| self.version.as_deref().and_then(timers_of_version));
        // Without a version there is no SOA to be up to date with; ask again at the least pace.
        let timers = timers.unwrap_or(SoaTimers { refresh_s: 0, retry_s: 0, expire_s: u32::MAX });
        Event::Checked { new_data, timers, params }
    }

    /// A transfer may take an hour. A reload meanwhile may have taken the primary out, or what proved it:
    /// then nobody wants what it sent.
    fn is_primary_still(&self, fetched: &Fetched) -> bool {
        let settings = self.settings.borrow();
        let still = settings.primaries.iter().any(|source| source.same_as(&fetched.source));
        if !still {
            let peer = &fetched.source.peer;
            tracing::warn!(%peer, "dropped: the configuration changed while this primary's data came in");
        }
        still
    }

    fn learn_policy(&self, signing: Option<&Signing>) {
        if let Some(signing) = signing {
            self.status.send_modify(|status| status.policy = Some(signing.policy_name.clone()));
        }
    }

    /// A version did not come about, and may later, of the same data.
    pub(super) async fn try_later(&mut self, failure: Failure, new: Option<NewData>) -> Event {
        self.new = new.or(self.new.take());
        let lost = self.new.is_none();
        if lost {
            self.door.end(Progress::Refused { reason: failure.detail.clone() });
        } else if let Err(failure) = self.keep_waiting(&failure.detail).await {
            return self.arrival_refused(failure, false).await;
        }
        self.sign_failed(failure)
    }

    fn sign_failed(&mut self, failure: Failure) -> Event {
        if failure.kind == FailureKind::Verification {
            self.context.metrics.verification_failed();
            tracing::error!(reason = failure.detail, "not published: verification failed");
        } else if self.is_news(&failure) {
            tracing::warn!(reason = failure.detail, "no new version");
        } else {
            tracing::debug!(reason = failure.detail, "no new version still");
        }
        Event::SignFailed(failure)
    }

    /// What a version goes out without.
    pub(super) fn log_withheld(&mut self, failure: &Failure) {
        if self.is_news(failure) {
            tracing::warn!(reason = failure.detail, "the zone says less to its parent than it may");
        }
    }

    /// Whether this is another failure than the last: what is tried once a minute until people have
    /// decided something is logged once.
    fn is_news(&mut self, failure: &Failure) -> bool {
        if self.logged.as_ref() == Some(failure) {
            return false;
        }
        self.logged = Some(failure.clone());
        true
    }
}

async fn ended<T>(job: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match job {
        Some(job) => job.await,
        None => std::future::pending().await,
    }
}

pub(super) fn flatten<T>(
    result: Result<Result<T, crate::store::StoreError>, JoinError>,
) -> Result<T, String> {
    match result {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn timers_of_version(version: &VerifiedZone) -> Option<SoaTimers> {
    let soa = version.rrset(version.apex().as_wire(), Rtype::SOA)?;
    timers_of_soa(soa.rdatas().next()?)
}

/// RFC 1035 §3.3.13: serial, refresh, retry, expire, minimum end the RDATA.
pub(super) fn timers_of_soa(rdata: &[u8]) -> Option<SoaTimers> {
    let numbers = rdata.get(rdata.len().checked_sub(20)?..)?;
    let number = |i: usize| {
        numbers.get(4 * i..4 * i + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)
    };
    Some(SoaTimers { refresh_s: number(1)?, retry_s: number(2)?, expire_s: number(3)? })
}

pub(super) fn serial_of_soa(rdata: &[u8]) -> Option<u32> {
    let numbers = rdata.get(rdata.len().checked_sub(20)?..)?;
    numbers.first_chunk().copied().map(u32::from_be_bytes)
}

/// The parameters that a version was made under, as far as the store knows them.
pub(super) fn resumed_up(version: &VerifiedZone, record: &Record, now_s: u64) -> Up {
    Up {
        serial: record.serial,
        incoming_serial: record.incoming_serial,
        expires_s: unwrap_time(version.earliest_expiration(), now_s),
        valid_from_s: unwrap_time(version.latest_inception(), now_s),
        refresh_at_s: record.refresh_at_s,
        params: record.params,
    }
}
