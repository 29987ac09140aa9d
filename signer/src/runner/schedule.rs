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
//!              signatures due, keys changed, version distrusted
//! ```
//!
//! Timers are the primary's SOA timers (RFC 1035 §3.3.13, RFC 1996 §4.1) within the bounds of the
//! configuration. A zone whose primary has been away past SOA expire stays up, with an alarm: a
//! signer that let it go would turn a late primary into an outage.

use super::alarm::{Alarm, AlarmKind};

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

/// SOA timers of the primary (RFC 1035 §3.3.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoaTimers {
    /// Between checks that succeed.
    pub refresh_s: u32,
    /// Between checks that fail.
    pub retry_s: u32,
    /// After the last check that succeeded, the data is out of date.
    pub expire_s: u32,
}

/// Bounds on the primary's timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerBounds {
    /// Never ask more often.
    pub min_s: u32,
    /// Never ask less often.
    pub max_s: u32,
}

/// The version that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Up {
    /// Its serial.
    pub serial: u32,
    /// The primary's serial of its data.
    pub incoming_serial: u32,
    /// When its first signature expires.
    pub expires_s: u64,
    /// When its first signature is due to be made anew.
    pub refresh_at_s: u64,
    /// Digest of the policy and keys that it is signed under.
    pub params: [u8; 32],
}

/// What the keeper says that the zone is to be signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// Digest of policy and keys.
    pub digest: [u8; 32],
    /// Serial policy `keep`: only the primary's next serial can carry new signatures.
    pub keep: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A listed primary says that there is something new.
    Notified,
    /// An operator wants the primary asked and what failed tried now.
    RefreshRequested,
    /// The zone's peers, limits or settings may have changed.
    Reloaded,
    /// No new version may go out.
    Frozen,
    /// They may again.
    Thawed,
    /// The time asked for by [`Schedule::wake_at`] came, or nothing in particular.
    Tick,
    /// A check ended well.
    Checked {
        /// The primary had new data, which is held for signing: its serial.
        new_data: Option<u32>,
        /// The primary's timers.
        timers: SoaTimers,
        /// From the keeper, if it answered.
        params: Option<Params>,
    },
    /// A check failed.
    CheckFailed {
        /// Why.
        failure: Failure,
        /// From the keeper, if it answered.
        params: Option<Params>,
    },
    /// A version was signed, verified, stored and published.
    Published(Up),
    /// That did not come about.
    SignFailed(Failure),
    /// A version was ready when the zone was frozen: it is signed again after the thaw.
    Withheld,
    /// The version that a restart resumed does not verify.
    Distrusted(String),
}

/// Why a piece of work failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What sort.
    pub kind: FailureKind,
    /// What was wrong, and where.
    pub detail: String,
}

/// Sorts of failure, by what follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No primary gave the zone.
    Transfer,
    /// The primary's data is not a zone that can be signed, or its serial can't be used: the data
    /// is dropped, and asked for again later.
    Admission,
    /// The keeper, or the HSM behind it, did not sign.
    Keeper,
    /// It did, and a check of ours failed.
    Verification,
    /// The version could not be stored.
    Store,
    /// Serial policy `keep`: the primary's next serial must come first.
    WaitsForPrimary,
}

/// The work to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Ask the primaries, and fetch what is newer than the data that is held.
    Check,
    /// Sign the new data.
    SignNew {
        /// Whether signatures of the version that is up may be kept where they are still good.
        reuse: bool,
    },
    /// Sign the data of the published version anew.
    SignAgain {
        /// The same.
        reuse: bool,
    },
}

/// One zone's schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    bounds: TimerBounds,
    frozen: bool,
    up: Option<Up>,
    /// Serial of new data that waits for its signatures.
    held: Option<u32>,
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
    working: Option<Work>,
    /// Asked for while a check was running: the answer may be older than the question.
    check_again: bool,
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
            held: None,
            keep: false,
            resign: damage.as_ref().and(up).map(|_| "a newer version was damaged"),
            distrusted: damage,
            timers: None,
            checked_s: now_s,
            check_due_s: now_s,
            check_failure: None,
            sign_due_s: now_s,
            sign_failure: None,
            working: None,
            check_again: false,
        }
    }

    /// Takes an event; gives the work to start, if any. Its end must come back as an event.
    pub fn next(&mut self, event: Event, now_s: u64) -> Option<Work> {
        self.apply(event, now_s);
        let work = self.decide(now_s)?;
        self.working = Some(work);
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
                    self.held = new_data;
                    self.sign_due_s = now_s;
                }
                if let Some(params) = params {
                    self.learn(params);
                }
            }
            Event::CheckFailed { failure, params } => {
                self.working = None;
                if let Some(params) = params {
                    self.learn(params);
                }
                self.fail_check(failure, now_s);
            }
            Event::Published(up) => {
                self.working = None;
                self.up = Some(up);
                self.held = None;
                self.resign = None;
                self.distrusted = None;
                self.sign_failure = None;
            }
            Event::Withheld => self.working = None,
            Event::SignFailed(failure) => match self.working.take() {
                // A check that panicked: it pauses as any that fails.
                Some(Work::Check) => self.fail_check(failure, now_s),
                _ => self.fail_sign(failure, now_s),
            },
            Event::Distrusted(reason) => {
                self.distrusted = Some(reason);
                self.resign = Some("the version that is up does not verify");
            }
        }
    }

    /// No pause outlasts its longest, even if the clock was ahead when it was set: a zone would
    /// neither ask nor sign until the clock came to that time again.
    fn follow_clock(&mut self, now_s: u64) {
        let refresh_s = self.timers.map_or(0, |timers| self.bounded(timers.refresh_s));
        self.check_due_s = self.check_due_s.min(now_s + refresh_s.max(CHECK_RETRY_S_MAX));
        self.sign_due_s = self.sign_due_s.min(now_s + SIGN_RETRY_S_MAX);
        self.checked_s = self.checked_s.min(now_s);
    }

    fn check_soon(&mut self, now_s: u64) {
        self.check_due_s = now_s;
        self.check_again |= self.working == Some(Work::Check);
    }

    fn learn(&mut self, params: Params) {
        self.keep = params.keep;
        if self.up.is_some_and(|up| up.params != params.digest) {
            self.resign.get_or_insert("policy or keys changed");
        }
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

    fn fail_sign(&mut self, failure: Failure, now_s: u64) {
        match failure.kind {
            FailureKind::Admission if self.held.is_some() => {
                self.held = None;
                self.fail_check(failure, now_s);
                return;
            }
            FailureKind::WaitsForPrimary => {
                self.keep = true;
                // Held, it would be tried again at once and for ever, and the primary never asked
                // for the serial that is waited for.
                if self.held.take().is_some() {
                    self.fail_check(failure, now_s);
                }
                return;
            }
            _ => {}
        }
        let failed = Failed::again(self.sign_failure.take(), failure, now_s);
        self.sign_due_s = now_s + failed.pause_s(SIGN_RETRY_S_MIN, SIGN_RETRY_S_MAX);
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
            if self.held.is_some() {
                return Some(Work::SignNew { reuse: self.may_reuse() });
            }
            if self.again_wanted(now_s) && !self.keep {
                return Some(Work::SignAgain { reuse: self.may_reuse() });
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
        self.up.is_some_and(|up| self.resign.is_some() || up.refresh_at_s <= now_s)
    }

    /// When [`Event::Tick`] should come, if nothing else does before.
    pub fn wake_at(&self, now_s: u64) -> Option<u64> {
        if self.working.is_some() {
            return None;
        }
        let mut at_s = self.check_due_s;
        if !self.frozen {
            if self.held.is_some() || (self.again_wanted(now_s) && !self.keep) {
                at_s = at_s.min(self.sign_due_s);
            } else if let Some(up) = self.up.filter(|_| !self.keep) {
                at_s = at_s.min(up.refresh_at_s.max(self.sign_due_s));
            }
        }
        Some(at_s)
    }

    /// The serial of the newest data that is held, signed or not.
    pub fn newest_data(&self) -> Option<u32> {
        self.held.or(self.up.map(|up| up.incoming_serial))
    }

    /// The version that is up.
    pub fn up(&self) -> Option<&Up> {
        self.up.as_ref()
    }

    /// Whether no new version may go out.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// When the primary is asked next.
    pub fn check_due_s(&self) -> u64 {
        self.check_due_s
    }

    /// Everything that needs someone's attention, worst first.
    pub fn alarms(&self, now_s: u64) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        let mut raise = |kind: AlarmKind, reason: String, since_s: u64, retry_at_s: Option<u64>| {
            alarms.push(Alarm { kind, reason, since_s, retry_at_s });
        };
        if let Some(up) = self.up {
            if up.expires_s <= now_s {
                let reason =
                    format!("serial {} is up with signatures that have expired", up.serial);
                raise(AlarmKind::SignaturesExpired, reason, up.expires_s, None);
            } else if up.refresh_at_s < now_s && (self.keep || self.frozen) {
                let waits = if self.frozen {
                    "the zone is frozen"
                } else {
                    "serial policy `keep` waits for the primary's next serial"
                };
                let reason = format!(
                    "signatures of serial {} are due and expire in {} s; {waits}",
                    up.serial,
                    up.expires_s - now_s
                );
                raise(AlarmKind::RefreshWaits, reason, up.refresh_at_s, None);
            }
            // Half-way between due and expired: whatever the retries say, someone should look.
            let half = up.refresh_at_s.midpoint(up.expires_s);
            if half <= now_s && now_s < up.expires_s {
                let reason = format!("signatures expire in {} s", up.expires_s - now_s);
                raise(AlarmKind::SignaturesExpiring, reason, half, None);
            }
        } else if self.check_failure.is_some() || self.sign_failure.is_some() {
            let reason = "no version has ever been published".to_owned();
            raise(AlarmKind::NoVersion, reason, self.checked_s, None);
        }
        if let Some(reason) = &self.distrusted {
            raise(AlarmKind::VersionDistrusted, reason.clone(), self.checked_s, None);
        }
        for (failed, due_s) in
            [(&self.sign_failure, self.sign_due_s), (&self.check_failure, self.check_due_s)]
        {
            if let Some(failed) = failed {
                let kind = AlarmKind::of(failed.failure.kind);
                raise(kind, failed.failure.detail.clone(), failed.since_s, Some(due_s));
            }
        }
        if let Some(timers) = self.timers {
            let expired_s = self.checked_s + u64::from(timers.expire_s);
            if expired_s <= now_s {
                let reason = format!(
                    "no primary has answered for {} s (SOA expire {})",
                    now_s - self.checked_s,
                    timers.expire_s
                );
                raise(AlarmKind::PrimaryExpired, reason, expired_s, Some(self.check_due_s));
            }
        }
        alarms.sort_by_key(|alarm| alarm.kind);
        alarms
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
