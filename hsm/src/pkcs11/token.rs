//! One token's life.
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
//!
//! Who moves a token on: the watch ([`super::watch`]) and what befalls it ([`super::shared`]).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use super::TokenSpec;
use super::calls::CallSlot;
use super::health::Counters;
use super::marker::{HungMarker, LoginMarker};
use super::mechanism::Offered;
use super::pin::FileStamp;
use super::queue::Queue;
use super::root::Job;
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
pub(super) const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

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
    /// When it was last looked for, its module did not show it.
    pub(super) absent: bool,
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
            absent: false,
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

    /// Starts a new generation; the caller spawns its root thread.
    pub(super) fn begin_opening(&self, root: SyncSender<Job>) -> u64 {
        let mut life = self.life();
        life.phase = Phase::Opening;
        life.root = Some(root);
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Ends the generation: its threads end when they can, and nobody is invited any more.
    pub(super) fn end_generation(&self, mut life: MutexGuard<'_, Life>) {
        life.settled = true;
        life.root = None;
        self.generation.fetch_add(1, Ordering::AcqRel);
        drop(life);
        self.queue.drain();
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

/// How long a token that failed so often is left alone.
pub(super) fn back_off(failures: u32) -> Duration {
    BACK_OFF_MIN.saturating_mul(1 << failures.min(16)).min(BACK_OFF_MAX)
}
