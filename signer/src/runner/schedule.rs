//! When a zone does what: a pure state machine. Events and `now` come in, at most one piece of
//! work goes out; [`Schedule::wake_at`] says when to ask again.
//!
//! ```text
//!            start, NOTIFY, SOA timer, operator, reload
//!                          │
//!                          ▼      new data        ┌── fails: back-off, old version stays up
//!   idle ──────────────► check ───────────► sign ─┤
//!    ▲                     │ up to date       ▲   └── published: idle
//!    └─────────────────────┘                  │
//!              signatures due, keys changed, version distrusted, CDS wanted
//! ```
//!
//! A version may have gone out without the CDS and CDNSKEY that it may have, or with old signatures
//! over them. They are tried again at a pace of their own, and no version is made unless they are
//! signed then.
//!
//! Timers are the primary's SOA timers (RFC 1035 §3.3.13, RFC 1996 §4.1) within the bounds of the
//! configuration. A zone whose primary has been away past SOA expire stays up, with an alarm: a
//! signer that let it go would turn a late primary into an outage.

mod alarms;
mod event;

use crate::store::serial_is_higher;
pub use event::{
    AwaitsPerson, Ending, Event, Failure, FailureKind, Params, SoaTimers, TimerBounds, Up, Work,
};

/// The first retry of signing; doubled with each failure.
const SIGN_RETRY_S_MIN: u64 = 1;
/// The longest pause between attempts to sign: an HSM that comes back is used within a minute.
const SIGN_RETRY_S_MAX: u64 = 60;
/// After so many versions in a row that did not verify, the next keeps no signature.
const REUSE_FAILURES_MAX: u32 = 3;
/// The first retry of a primary while its SOA timers are not known; doubled with each failure.
const CHECK_RETRY_S_MIN: u64 = 1;
/// The longest such pause.
const CHECK_RETRY_S_MAX: u64 = 300;

/// The first retry of CDS and CDNSKEY that the keeper did not sign; doubled with each failure.
const CDS_RETRY_S_MIN: u64 = 60;
/// The longest such pause. A freeze or a clock that was put right is over for the parent too
/// within an hour.
const CDS_RETRY_S_MAX: u64 = 3_600;
/// The longest pause where a DS was not approved: each attempt signs the whole zone, and it takes
/// people to change anything.
const DS_RETRY_S_MAX: u64 = 300;

/// One zone's schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    bounds: TimerBounds,
    frozen: bool,
    up: Option<Up>,
    /// Serial of new data that waits for its signatures.
    pending: Option<u32>,
    /// Whose it is, where new data waits and signatures of what is up are due.
    turn: Turn,
    /// New data that waits for a person.
    person: Option<AwaitsPerson>,
    /// The primary's serial that a person has rejected.
    rejected: Option<u32>,
    keep: bool,
    /// Sign again although no signature is due: what for.
    resign: Option<&'static str>,
    /// The version that is up failed its background verification, or is older than one that was.
    distrusted: Option<String>,
    timers: Option<SoaTimers>,
    checked_s: u64,
    check_due_s: u64,
    check_failure: Option<Failed>,
    sign_due_s: u64,
    sign_failure: Option<Failed>,
    arrival_failure: Option<Failed>,
    /// When CDS and CDNSKEY are to be tried, where what is up lacks them.
    cds_due_s: Option<u64>,
    cds_failure: Option<Failed>,
    dnskey: Option<Ending>,
    working: Option<Work>,
    /// Asked for while a check was running: the answer may be older than the question.
    check_again: bool,
}

/// Who is tried next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    NewData,
    /// New data was tried last, in vain.
    WhatIsUp,
}

#[derive(Debug, Clone)]
struct Failed {
    failure: Failure,
    times: u32,
    since_s: u64,
}

impl Failed {
    fn again(before: Option<Self>, failure: Failure, now_s: u64) -> Self {
        let (times, since_s) = before.map_or((0, now_s), |b| (b.times, b.since_s));
        Self { failure, times: times.saturating_add(1), since_s }
    }

    /// The longest pause after a signing that failed.
    fn sign_pause_s_max(&self) -> u64 {
        match self.failure.kind {
            FailureKind::DsNotApproved => DS_RETRY_S_MAX,
            _ => SIGN_RETRY_S_MAX,
        }
    }

    /// `min_s` doubled with each failure, up to `max_s`.
    fn pause_s(&self, min_s: u64, max_s: u64) -> u64 {
        min_s.checked_shl(self.times.saturating_sub(1)).unwrap_or(max_s).clamp(min_s, max_s)
    }
}

impl Schedule {
    /// A zone at start: `up` is the version that was resumed, `damage` what was wrong with the
    /// newer ones. The primary is asked at once.
    pub fn new(
        bounds: TimerBounds,
        up: Option<Up>,
        frozen: bool,
        damage: Option<String>,
        now_s: u64,
    ) -> Self {
        Self {
            bounds,
            frozen,
            up,
            pending: None,
            turn: Turn::NewData,
            person: None,
            rejected: None,
            keep: false,
            resign: damage.as_ref().and(up).map(|_| "a newer version was damaged"),
            distrusted: damage,
            timers: None,
            checked_s: now_s,
            check_due_s: now_s,
            check_failure: None,
            sign_due_s: now_s,
            sign_failure: None,
            arrival_failure: None,
            cds_due_s: None,
            cds_failure: None,
            dnskey: None,
            working: None,
            check_again: false,
        }
    }

    /// Takes an event; gives the work to start, if any. Its end must come back as an event.
    pub fn next(&mut self, event: Event, now_s: u64) -> Option<Work> {
        self.apply(event, now_s);
        let work = self.decide(now_s)?;
        self.working = Some(work);
        if matches!(work, Work::SignAgain { .. }) {
            self.turn = Turn::NewData;
        }
        Some(work)
    }

    fn apply(&mut self, event: Event, now_s: u64) {
        self.follow_clock(now_s);
        match event {
            Event::Tick => {}
            Event::Notified => self.check_soon(now_s),
            Event::RefreshRequested | Event::Reloaded | Event::Thawed => {
                if event == Event::Thawed {
                    self.frozen = false;
                }
                self.sign_due_s = now_s;
                self.cds_due_s = self.cds_due_s.map(|_| now_s);
                self.check_soon(now_s);
            }
            Event::Frozen => self.frozen = true,
            Event::Checked { new_data, timers, params } => {
                self.working = None;
                self.timers = Some(timers);
                self.checked_s = now_s;
                self.check_failure = None;
                self.check_due_s = now_s + self.bounded(timers.refresh_s);
                if std::mem::take(&mut self.check_again) {
                    self.check_due_s = now_s;
                }
                if new_data.is_some() {
                    self.pending = new_data;
                    self.turn = Turn::NewData;
                    self.sign_due_s = now_s;
                }
                if let Some(params) = params {
                    self.learn(params, now_s);
                }
            }
            Event::CheckFailed { failure, params } => {
                self.working = None;
                if let Some(params) = params {
                    self.learn(params, now_s);
                }
                self.fail_check(failure, now_s);
            }
            Event::Published { up, params, withheld } => {
                self.published(up, params, withheld, now_s);
            }
            Event::Learned(params) => self.learn(params, now_s),
            Event::CdsRefused(failure) => {
                self.working = None;
                (self.cds_due_s, self.cds_failure) = self.cds_failed(failure, now_s);
            }
            Event::CdsOver(params) => {
                self.working = None;
                (self.cds_due_s, self.cds_failure) = (None, None);
                self.learn(params, now_s);
            }
            Event::Withheld => self.working = None,
            Event::Arrived(serial) => {
                self.pending = Some(serial);
                self.turn = Turn::NewData;
                self.arrival_failure = None;
                self.sign_due_s = now_s;
            }
            Event::Unchanged { params, instead } => {
                self.working = None;
                self.pending = instead;
                self.sign_failure = None;
                self.learn(params, now_s);
            }
            Event::Held(person) => {
                self.working = None;
                self.pending = None;
                self.sign_failure = None;
                self.person = Some(person);
            }
            Event::NoneHeld => self.person = None,
            Event::Rejected(serial) => {
                self.rejected = Some(serial);
                // What puts it right may be there already.
                self.check_soon(now_s);
            }
            Event::ArrivalRefused { failure, untold, instead } => {
                self.working = None;
                self.keep |= failure.kind == FailureKind::WaitsForPrimary;
                self.arrival_failure = untold.then(|| Failed::again(None, failure, now_s));
                self.pending = instead;
                self.sign_due_s = now_s;
            }
            Event::SignFailed(failure) => match self.working.take() {
                // A check that panicked: it pauses as any that fails.
                Some(Work::Check) => self.fail_check(failure, now_s),
                work => {
                    let of_new = matches!(work, Some(Work::SignNew { .. }));
                    self.turn = if of_new { Turn::WhatIsUp } else { Turn::NewData };
                    self.fail_sign(failure, of_new, now_s);
                }
            },
            Event::Distrusted(reason) => {
                self.distrusted = Some(reason);
                self.resign = Some("the version that is up does not verify");
            }
        }
    }

    fn published(&mut self, up: Up, params: Params, withheld: Option<Failure>, now_s: u64) {
        let work = self.working.take();
        let again = matches!(work, Some(Work::SignAgain { .. } | Work::SignCds { .. }));
        self.up = Some(up);
        self.resign = None;
        self.distrusted = None;
        // New data that could not go out still can't, as far as is known.
        if !again || self.pending.is_none() {
            self.pending = None;
            self.sign_failure = None;
        }
        self.arrival_failure = None;
        self.learn(params, now_s);
        (self.cds_due_s, self.cds_failure) = match withheld {
            Some(failure) => self.cds_failed(failure, now_s),
            None => (None, None),
        };
    }

    /// No pause outlasts its longest, even if the clock was ahead when it was set: a zone would
    /// neither ask nor sign until the clock came to that time again.
    fn follow_clock(&mut self, now_s: u64) {
        let refresh_s = self.timers.map_or(0, |timers| self.bounded(timers.refresh_s));
        self.check_due_s = self.check_due_s.min(now_s + refresh_s.max(CHECK_RETRY_S_MAX));
        let sign_pause_s = self.sign_failure.as_ref().map_or(0, Failed::sign_pause_s_max);
        self.sign_due_s = self.sign_due_s.min(now_s + sign_pause_s);
        self.cds_due_s = self.cds_due_s.map(|due_s| due_s.min(now_s + CDS_RETRY_S_MAX));
        self.checked_s = self.checked_s.min(now_s);
    }

    fn check_soon(&mut self, now_s: u64) {
        self.check_due_s = now_s;
        self.check_again |= self.working == Some(Work::Check);
    }

    fn learn(&mut self, params: Params, now_s: u64) {
        self.keep = params.keep;
        self.dnskey = params.dnskey;
        match self.up.map(|up| up.params) {
            None => {}
            // What is up says all that it may; if it does so with old signatures, they are tried
            // again as they were.
            Some(up) if up == params.digest && up != params.digest_silent => {}
            Some(up) if up == params.digest => (self.cds_due_s, self.cds_failure) = (None, None),
            Some(up) if up == params.digest_silent => {
                self.cds_due_s.get_or_insert(now_s);
            }
            Some(_) => {
                self.resign.get_or_insert("policy, keys or approvals changed");
            }
        }
    }

    /// When CDS and CDNSKEY are to be tried again, and what for.
    fn cds_failed(&mut self, failure: Failure, now_s: u64) -> (Option<u64>, Option<Failed>) {
        let failed = Failed::again(self.cds_failure.take(), failure, now_s);
        (Some(now_s + failed.pause_s(CDS_RETRY_S_MIN, CDS_RETRY_S_MAX)), Some(failed))
    }

    fn fail_check(&mut self, failure: Failure, now_s: u64) {
        let failed = Failed::again(self.check_failure.take(), failure, now_s);
        let pause_s = failed.pause_s(CHECK_RETRY_S_MIN, CHECK_RETRY_S_MAX);
        // A primary that was reached before says itself how often it may be asked; but not less
        // often than one that was not.
        let pause_s = self.timers.map_or(pause_s, |t| pause_s.min(self.bounded(t.retry_s)));
        self.check_due_s = now_s + pause_s;
        if std::mem::take(&mut self.check_again) {
            self.check_due_s = now_s + CHECK_RETRY_S_MIN;
        }
        self.check_failure = Some(failed);
    }

    fn fail_sign(&mut self, failure: Failure, of_new: bool, now_s: u64) {
        match failure.kind {
            FailureKind::Admission if of_new && self.pending.is_some() => {
                self.pending = None;
                self.fail_check(failure, now_s);
                return;
            }
            FailureKind::WaitsForPrimary => {
                self.keep = true;
                // Held, it would be tried again at once and for ever, and the primary never asked
                // for the serial that is waited for.
                if of_new && self.pending.take().is_some() {
                    self.fail_check(failure, now_s);
                }
                return;
            }
            _ => {}
        }
        let failed = Failed::again(self.sign_failure.take(), failure, now_s);
        self.sign_due_s = now_s + failed.pause_s(SIGN_RETRY_S_MIN, failed.sign_pause_s_max());
        self.sign_failure = Some(failed);
    }

    /// Bounds of another configuration; they hold from the next answer of the primary.
    pub fn set_bounds(&mut self, bounds: TimerBounds) {
        self.bounds = bounds;
    }

    fn bounded(&self, timer_s: u32) -> u64 {
        timer_s.clamp(self.bounds.min_s, self.bounds.max_s).into()
    }

    fn decide(&self, now_s: u64) -> Option<Work> {
        if self.working.is_some() {
            return None;
        }
        if !self.frozen && self.sign_due_s <= now_s {
            let again = self.again_wanted(now_s) && !self.keep;
            // New data that can't go out, for days perhaps, must not let the signatures of what is up
            // expire: they take turns.
            if self.pending.is_some() && !(again && self.turn == Turn::WhatIsUp) {
                return Some(Work::SignNew { reuse: self.may_reuse() });
            }
            if again {
                return Some(Work::SignAgain { reuse: self.may_reuse() });
            }
            if self.cds_due_s.is_some_and(|due_s| due_s <= now_s) && !self.keep {
                return Some(Work::SignCds { reuse: self.may_reuse() });
            }
        }
        (self.check_due_s <= now_s).then_some(Work::Check)
    }

    /// Not from a version that does not verify; and where new versions keep failing, a kept
    /// signature may be why.
    fn may_reuse(&self) -> bool {
        let failing = self.sign_failure.as_ref().is_some_and(|failed| {
            failed.failure.kind == FailureKind::Verification && failed.times >= REUSE_FAILURES_MAX
        });
        self.distrusted.is_none() && !failing
    }

    fn again_wanted(&self, now_s: u64) -> bool {
        self.up.is_some_and(|up| {
            self.resign.is_some() || up.refresh_at_s <= now_s || up.is_early(now_s)
        })
    }

    /// When [`Event::Tick`] should come, if nothing else does before.
    pub fn wake_at(&self, now_s: u64) -> Option<u64> {
        if self.working.is_some() {
            return None;
        }
        let mut at_s = self.check_due_s;
        if !self.frozen {
            if self.pending.is_some() || (self.again_wanted(now_s) && !self.keep) {
                at_s = at_s.min(self.sign_due_s);
            } else if let Some(up) = self.up.filter(|_| !self.keep) {
                let due_s = self.cds_due_s.unwrap_or(u64::MAX).min(up.refresh_at_s);
                at_s = at_s.min(due_s.max(self.sign_due_s));
            }
        }
        Some(at_s)
    }

    /// The serial of the newest data that the primary is not to be asked for again: what waits to be
    /// signed, or for a person, or is up.
    pub fn newest_data(&self) -> Option<u32> {
        let held = self.person.as_ref().filter(|person| person.fetched).map(|person| person.serial);
        let up = self.up.map(|up| up.incoming_serial);
        let newer = |a: u32, b: u32| if serial_is_higher(b, a) { b } else { a };
        self.pending.or_else(|| [up, held].into_iter().flatten().reduce(newer))
    }

    /// The serial that a person has rejected, while the primary may still have it. It alone is not
    /// wanted: the serial may be what was wrong with it, and the one that puts it right a lower one.
    pub fn rejected(&self) -> Option<u32> {
        let newest = self.newest_data();
        self.rejected.filter(|serial| newest.is_none_or(|newest| serial_is_higher(*serial, newest)))
    }

    /// New data that is to be signed, under its source's serial.
    pub fn pending(&self) -> Option<u32> {
        self.pending
    }

    /// New data that waits for a person.
    pub fn awaits_person(&self) -> Option<&AwaitsPerson> {
        self.person.as_ref()
    }

    /// Whether versions keep the primary's serials, as far as the keeper has said.
    pub fn keeps_serials(&self) -> bool {
        self.keep
    }

    /// Takes an event, and starts nothing: another event follows.
    pub fn note(&mut self, event: Event, now_s: u64) {
        self.apply(event, now_s);
    }

    /// The version that is up.
    pub fn up(&self) -> Option<&Up> {
        self.up.as_ref()
    }

    /// Whether no new version may go out.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Whether something of the keeper's is waited for, so that it should be asked more often.
    pub fn awaits_keeper(&self, now_s: u64) -> bool {
        let awaits_people = |failed: &Failed| {
            matches!(failed.failure.kind, FailureKind::Officers | FailureKind::DsNotApproved)
        };
        self.cds_failure.is_some()
            || self.dnskey.is_some_and(|ending| ending.attention_s <= now_s)
            || self.sign_failure.as_ref().is_some_and(awaits_people)
    }

    /// When the primary is asked next.
    pub fn check_due_s(&self) -> u64 {
        self.check_due_s
    }
}

#[cfg(test)]
mod door_tests;
#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
