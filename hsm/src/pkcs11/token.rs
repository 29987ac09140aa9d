//! One token's life, and the watch kept over every call into its module.
//!
//! ```text
//!             ┌────────────── file changed ───────────── PinRefused
//!             ▼                                              ▲
//!  Waiting ──due──► Opening ──listed, keys proven──► Usable  │
//!     ▲                │  └──────────refused PIN────────┼────┘
//!     │                ▼                                ▼
//!     ├──────── failed, lost (back-off) ────────────────┤
//!     └── its calls came back ──── Hung ◄── a call exceeds its deadline
//! ```
//!
//! Each opening is a *generation*. Threads belong to one; when the token's number has moved on they end
//! as soon as the module lets go of them, and what they still say is ignored.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::batch::{Batch, Ticket};
use super::error::HsmError;
use super::health::Counters;
use super::marker::{HungMarker, LoginMarker};
use super::mechanism::Offered;
use super::pin::FileStamp;
use super::registry::Registry;
use super::root::Job;
use super::{Admission, Event, TokenSpec};
use crate::protocol::TokenState;

/// First wait before a lost token is opened anew; doubles with each failure.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
/// Longest wait: a device that came back is found within half a minute.
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// Wait before a token is opened that hung in the process before this one; doubles with each hang in
/// a row. The longest is long: each hang of a group's last token restarts the keeper, and with it
/// interrupts all other groups.
const AFTER_HANG_MIN: Duration = Duration::from_secs(3);
const AFTER_HANG_MAX: Duration = Duration::from_secs(600);
/// A token that has been usable for so long starts its back-off over, and its hangs are forgotten.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// Where a token is in its life.
#[derive(Debug)]
pub(super) enum Phase {
    /// To be opened at `until`; `last`: only after every other token was tried.
    Waiting { until: Instant, last: bool },
    /// Its root thread is opening it.
    Opening,
    /// Open, its keys proven as far as they are there.
    Usable { since: Instant },
    /// A call did not come back in time.
    Hung { call: &'static str },
    /// Its PIN may not be tried; waits for the file to look otherwise.
    PinRefused { stamp: Option<FileStamp> },
}

/// The changing part of a token.
pub(super) struct Life {
    pub(super) phase: Phase,
    /// Why it is not usable, once that is known.
    pub(super) failure: Option<String>,
    /// It was tried at least once: signing need not wait to see what it holds.
    pub(super) settled: bool,
    /// Failures, until they are forgiven: the back-off grows with them.
    pub(super) failures: u32,
    /// Failures in a row since its module last served it: opened, listed and proven.
    pub(super) unserved: u32,
    /// The way to its root thread.
    pub(super) root: Option<SyncSender<Job>>,
    /// What it can do, as of its last opening.
    pub(super) offered: Option<Offered>,
    /// The PIN file that it accepted in this process.
    pub(super) accepted: Option<FileStamp>,
    /// It waits for its module to be renewed; nothing else is opened there meanwhile.
    pub(super) renew: bool,
}

/// One token.
pub(super) struct Token {
    pub(super) index: usize,
    pub(super) spec: TokenSpec,
    pub(super) counters: Counters,
    pub(super) queue: Queue,
    pub(super) login_marker: LoginMarker,
    pub(super) hung_marker: HungMarker,
    /// Worker threads that have a session.
    pub(super) sessions: AtomicU32,
    generation: AtomicU64,
    life: Mutex<Life>,
    calls: Mutex<Vec<Arc<CallSlot>>>,
}

impl Token {
    pub(super) fn new(index: usize, spec: TokenSpec, state_dir: &std::path::Path) -> Self {
        let hung_marker = HungMarker::new(state_dir, &spec.name);
        let (until, last, failure) = match hung_marker.read() {
            None => (Instant::now(), false, None),
            Some(mark) => {
                let delay = after_hang(mark.times);
                let call = mark.call;
                let text = format!("hung in {call} when it was last open; it is opened last");
                (Instant::now() + delay, true, Some(text))
            }
        };
        let life = Life {
            phase: Phase::Waiting { until, last },
            settled: failure.is_some(),
            // A hang in the run before is one that is forgiven in time.
            failures: u32::from(failure.is_some()),
            unserved: 0,
            failure,
            root: None,
            offered: None,
            accepted: None,
            renew: false,
        };
        Self {
            index,
            counters: Counters::default(),
            queue: Queue::new(spec.queue_max),
            login_marker: LoginMarker::new(state_dir, &spec.name),
            hung_marker,
            sessions: AtomicU32::new(0),
            generation: AtomicU64::new(0),
            life: Mutex::new(life),
            calls: Mutex::new(Vec::new()),
            spec,
        }
    }

    pub(super) fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn calls(&self) -> MutexGuard<'_, Vec<Arc<CallSlot>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present generation.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether threads of `generation` are to go on.
    pub(super) fn is_at(&self, generation: u64) -> bool {
        self.generation() == generation
    }

    /// Deadline of opening, login and listing calls.
    pub(super) fn listing_deadline(&self) -> Duration {
        self.spec.deadline * 4
    }

    /// Deadline of making a key pair.
    pub(super) fn generation_deadline(&self) -> Duration {
        self.spec.deadline * 24
    }

    /// Enters the calling thread, of `generation`, in the token's books.
    pub(super) fn enter(self: &Arc<Self>, shared: &Arc<Shared>, generation: u64) -> Entered {
        let slot = Arc::new(CallSlot { now: Mutex::new(None), batch: Mutex::new(None) });
        self.calls().push(Arc::clone(&slot));
        Entered { shared: Arc::clone(shared), token: Arc::clone(self), generation, slot }
    }

    /// Starts a new generation; the caller spawns its root thread.
    pub(super) fn begin_opening(&self, root: SyncSender<Job>) -> u64 {
        let mut life = self.life();
        life.phase = Phase::Opening;
        life.root = Some(root);
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Forgets its old troubles once it has been well for long.
    pub(super) fn forgive(&self, now: Instant) {
        let mut life = self.life();
        let Phase::Usable { since } = life.phase else { return };
        if life.failures == 0 || now.saturating_duration_since(since) <= FORGIVEN_AFTER {
            return;
        }
        life.failures = 0;
        drop(life);
        if let Err(e) = self.hung_marker.forgive() {
            warn!(token = self.spec.name, error = %e, "can't remove its hung marker");
        }
    }

    /// How it is, for people.
    pub(super) fn state(&self) -> TokenState {
        let life = self.life();
        match (&life.phase, &life.failure) {
            (Phase::Usable { .. }, _) => TokenState::Usable,
            (_, Some(reason)) => TokenState::Unusable(reason.clone()),
            (_, None) => TokenState::Probing,
        }
    }

    pub(super) fn is_usable(&self) -> bool {
        matches!(self.life().phase, Phase::Usable { .. })
    }
}

/// How long after the start a token is opened that hung `times` in a row before it.
fn after_hang(times: u32) -> Duration {
    AFTER_HANG_MIN.saturating_mul(1 << times.saturating_sub(1).min(16)).min(AFTER_HANG_MAX)
}

fn back_off(failures: u32) -> Duration {
    BACK_OFF_MIN.saturating_mul(1 << failures.min(16)).min(BACK_OFF_MAX)
}

/// What one thread is doing in the module just now.
pub(super) struct CallSlot {
    now: Mutex<Option<InCall>>,
    batch: Mutex<Option<Arc<Batch>>>,
}

#[derive(Clone, Copy)]
struct InCall {
    call: &'static str,
    since: Instant,
    limit: Duration,
}

impl CallSlot {
    /// The call that exceeds its deadline, if one does.
    pub(super) fn overdue(&self, now: Instant) -> Option<&'static str> {
        let in_call = (*self.now.lock().unwrap_or_else(PoisonError::into_inner))?;
        (now.saturating_duration_since(in_call.since) > in_call.limit).then_some(in_call.call)
    }

    fn set_batch(&self, batch: Option<Arc<Batch>>) -> Option<Arc<Batch>> {
        std::mem::replace(&mut *self.batch.lock().unwrap_or_else(PoisonError::into_inner), batch)
    }
}

/// A thread that calls into a module: every call goes through [`Entered::call`].
pub(super) struct Entered {
    pub(super) shared: Arc<Shared>,
    pub(super) token: Arc<Token>,
    pub(super) generation: u64,
    slot: Arc<CallSlot>,
}

impl Entered {
    /// Runs a call under a deadline, which the watch keeps.
    pub(super) fn call<T>(
        &self,
        call: &'static str,
        limit: Duration,
        run: impl FnOnce() -> T,
    ) -> T {
        let now = || self.slot.now.lock().unwrap_or_else(PoisonError::into_inner);
        *now() = Some(InCall { call, since: Instant::now(), limit });
        let result = run();
        *now() = None;
        result
    }

    /// Says which batch this thread works at, so that a hang gives its work back.
    pub(super) fn works_at(&self, batch: Option<&Arc<Batch>>) {
        self.slot.set_batch(batch.cloned());
    }

    /// Whether this thread is to go on.
    pub(super) fn goes_on(&self) -> bool {
        self.token.is_at(self.generation) && !self.shared.is_stopping()
    }
}

impl super::index::Timed for Entered {
    fn listing<T>(&self, name: &'static str, run: impl FnOnce() -> T) -> T {
        self.call(name, self.token.listing_deadline(), run)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.token.calls().retain(|slot| !Arc::ptr_eq(slot, &self.slot));
        if std::thread::panicking() {
            let reason = "a keeper thread of it panicked";
            self.shared.lost(&self.token, self.generation, reason);
            if let Some(batch) = self.slot.set_batch(None) {
                let error = HsmError::Unavailable(reason.to_owned());
                batch.abandon(self.token.index, self.generation, error);
            }
        }
        self.shared.announce();
    }
}

/// Invitations that wait for a worker.
pub(super) struct Queue {
    max: usize,
    waiting: Mutex<VecDeque<Ticket>>,
    arrived: Condvar,
}

impl Queue {
    fn new(max: usize) -> Self {
        Self { max, waiting: Mutex::new(VecDeque::new()), arrived: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Ticket>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there was room for it; else the ticket is torn up.
    pub(super) fn push(&self, ticket: Ticket) -> bool {
        let mut waiting = self.lock();
        if waiting.len() >= self.max {
            drop(waiting);
            return false;
        }
        waiting.push_back(ticket);
        drop(waiting);
        self.arrived.notify_one();
        true
    }

    /// The next ticket; `None` once `goes_on` says no.
    pub(super) fn pop(&self, goes_on: impl Fn() -> bool) -> Option<Ticket> {
        let mut waiting = self.lock();
        loop {
            if !goes_on() {
                return None;
            }
            if let Some(ticket) = waiting.pop_front() {
                return Some(ticket);
            }
            // Bounded, so that a worker whose generation ended between its look and its wait is
            // not left behind.
            waiting = self
                .arrived
                .wait_timeout(waiting, Duration::from_millis(500))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Tears up all tickets and wakes all workers.
    fn drain(&self) {
        let torn: Vec<Ticket> = self.lock().drain(..).collect();
        drop(torn);
        self.arrived.notify_all();
    }
}

/// What all threads share.
pub(super) struct Shared {
    pub(super) tokens: Vec<Arc<Token>>,
    keys: Mutex<Registry>,
    events: Sender<Event>,
    changes: Mutex<u64>,
    changed: Condvar,
    stopping: AtomicBool,
    /// Whether a token may be used, by its data objects.
    pub(super) admission: Option<Admission>,
}

impl Shared {
    pub(super) fn new(
        tokens: Vec<Arc<Token>>,
        events: Sender<Event>,
        admission: Option<Admission>,
    ) -> Self {
        Self {
            admission,
            tokens,
            keys: Mutex::new(Registry::default()),
            events,
            changes: Mutex::new(0),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
        }
    }

    pub(super) fn keys(&self) -> MutexGuard<'_, Registry> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn token_named(&self, name: &str) -> Result<&Arc<Token>, HsmError> {
        self.tokens
            .iter()
            .find(|token| token.spec.name == name)
            .ok_or_else(|| HsmError::UnknownToken(name.to_owned()))
    }

    pub(super) fn name(&self, token: usize) -> String {
        self.tokens[token].spec.name.clone()
    }

    pub(super) fn group<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a Arc<Token>> {
        self.tokens.iter().filter(move |token| token.spec.group == group)
    }

    /// Sends an event; a receiver that is gone is a process that ends.
    pub(super) fn send(&self, event: Event) {
        match &event {
            Event::Conflict { key, token, found } => {
                error!(%key, token, found, "a token answers for a key with another one: refused everywhere");
            }
            Event::Cleared { key } => info!(%key, "every token that claims the key is right again"),
            Event::GroupLost { group, token, call } => {
                error!(group, token, call, "a token hung and its group has none left");
            }
        }
        // A closed channel means that the keeper is ending; there is nobody left to tell.
        drop(self.events.send(event));
    }

    /// Wakes everyone who waits for some token to change.
    pub(super) fn announce(&self) {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Waits until some token changed after `seen`, at most so long; returns the count of changes.
    pub(super) fn wait_change(&self, seen: u64, at_most: Duration) -> u64 {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let (changes, _) = self
            .changed
            .wait_timeout_while(changes, at_most, |changes| *changes == seen)
            .unwrap_or_else(PoisonError::into_inner);
        *changes
    }

    pub(super) fn changes(&self) -> u64 {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Lets every thread end as soon as its module lets go of it.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        for token in &self.tokens {
            token.life().root = None;
            token.queue.drain();
        }
        self.announce();
    }

    /// The token is open and its keys are proven.
    pub(super) fn usable(&self, token: &Token, generation: u64) {
        let mut life = token.life();
        if !token.is_at(generation) {
            return;
        }
        life.phase = Phase::Usable { since: Instant::now() };
        life.unserved = 0;
        life.failure = None;
        life.settled = true;
        drop(life);
        info!(token = token.spec.name, "token is usable");
        self.clear_conflicts();
        self.announce();
    }

    /// Announces keys whose conflict is over.
    pub(super) fn clear_conflicts(&self) {
        let all_open = |group: &str| self.group(group).all(|token| token.is_usable());
        let open: Vec<(String, bool)> =
            self.tokens.iter().map(|t| (t.spec.group.clone(), all_open(&t.spec.group))).collect();
        let cleared =
            self.keys().clear(|group| open.iter().any(|(name, open)| name == group && *open));
        for event in cleared {
            self.send(event);
        }
    }

    /// The token lost its sessions, its login or its device, or could not be opened: it is opened
    /// anew after a while. What a thread of an earlier generation says is ignored.
    pub(super) fn lost(&self, token: &Token, generation: u64, reason: &str) {
        self.leave(token, generation, reason, true);
    }

    /// The token is closed for a moment, through no fault of its own.
    pub(super) fn pause(&self, token: &Token, reason: &str) {
        self.leave(token, token.generation(), reason, false);
    }

    fn leave(&self, token: &Token, generation: u64, reason: &str, its_fault: bool) {
        let mut life = token.life();
        if !token.is_at(generation) {
            return;
        }
        let was_usable = match &life.phase {
            Phase::Usable { since } => {
                if since.elapsed() > FORGIVEN_AFTER {
                    life.failures = 0;
                }
                true
            }
            _ => false,
        };
        let delay = back_off(life.failures);
        life.failures = life.failures.saturating_add(u32::from(its_fault));
        life.unserved = life.unserved.saturating_add(u32::from(its_fault));
        life.phase = Phase::Waiting { until: Instant::now() + delay, last: false };
        // A token that was just lost is being looked for; one that could not be opened is not there.
        life.failure = (its_fault && !was_usable).then(|| reason.to_owned());
        self.close(token, life);
        warn!(token = token.spec.name, reason, retry_ms = delay.as_millis(), "token lost");
        self.group_lost(&token.spec.group);
    }

    /// Its PIN may not be tried until its file changes.
    pub(super) fn pin_refused(
        &self,
        token: &Token,
        generation: u64,
        stamp: Option<FileStamp>,
        reason: &str,
    ) {
        let mut life = token.life();
        if !token.is_at(generation) {
            return;
        }
        life.phase = Phase::PinRefused { stamp };
        life.failure = Some(reason.to_owned());
        self.close(token, life);
        error!(token = token.spec.name, reason, "token refused login");
        self.group_lost(&token.spec.group);
    }

    /// A call into the token's module exceeds its deadline. Its work moves on, and its threads are
    /// left to the module.
    pub(super) fn hung(&self, token: &Token, call: &'static str) {
        let mut life = token.life();
        if matches!(life.phase, Phase::Hung { .. }) {
            return;
        }
        let generation = token.generation();
        life.phase = Phase::Hung { call };
        let reason = format!("hung in {call}, which did not come back within its deadline");
        life.failure = Some(reason.clone());
        life.failures = life.failures.saturating_add(1);
        self.close(token, life);
        let detail = reason.clone();
        let name = token.spec.name.clone();
        for slot in token.calls().iter() {
            if let Some(batch) = slot.set_batch(None) {
                let error = HsmError::Token { token: name.clone(), detail: detail.clone() };
                batch.abandon(token.index, generation, error);
            }
        }
        error!(token = token.spec.name, call, "token hung; its work moves to others");
        // Before anyone may act on the event: the next start has to know.
        if let Err(e) = token.hung_marker.add(call) {
            error!(token = token.spec.name, error = %e, "can't mark the token as hung");
        }
        self.group_lost(&token.spec.group);
    }

    /// Ends the generation: nobody is invited, nothing is proven, threads end when they can.
    fn close(&self, token: &Token, mut life: MutexGuard<'_, Life>) {
        life.settled = true;
        life.root = None;
        token.generation.fetch_add(1, Ordering::AcqRel);
        drop(life);
        self.keys().token_lost(token.index);
        token.queue.drain();
        self.announce();
    }

    /// All hung calls came back: the token may be tried again.
    pub(super) fn came_back(&self, token: &Token) {
        let mut life = token.life();
        let delay = back_off(life.failures.saturating_add(3));
        life.phase = Phase::Waiting { until: Instant::now() + delay, last: false };
        drop(life);
        warn!(token = token.spec.name, "its hung calls came back; it is opened again");
        self.announce();
    }

    /// Tells when a hang has left a group without a token.
    fn group_lost(&self, group: &str) {
        let mut hung = None;
        for token in self.group(group) {
            let life = token.life();
            match life.phase {
                Phase::Hung { call } => hung = hung.or(Some((token.spec.name.clone(), call))),
                Phase::Usable { .. } => return,
                // On its way, and not known to fail.
                Phase::Opening | Phase::Waiting { .. } if life.failure.is_none() => return,
                _ => {}
            }
        }
        if let Some((token, call)) = hung {
            let group = group.to_owned();
            self.send(Event::GroupLost { group, token, call: call.to_owned() });
        }
    }
}
