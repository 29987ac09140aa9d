//! The floor of time: what the ledger knows of the clock without trusting it.
//!
//! Each line that the keeper writes carries its clock's time. The latest that is credible is the
//! floor: it never falls, and a line raises it by at most the founding's `clock_days`, so that one
//! jump far ahead leaves it where it is. A clock behind the floor, or further ahead of it than those
//! days, stops the use of KSKs and nothing else; a quorum raises the floor after a long outage.

use crate::text::time_text;

/// Seconds of a day.
pub const DAY_S: u64 = 86_400;
/// How far the keeper's clock may be behind the time that a quorum raises the floor to: they name an
/// hour that has begun.
pub const RAISE_BEHIND_S_MAX: u64 = 3_600;

/// The floor of time and how far a line may raise it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TimeFloor {
    floor: u64,
    reach_s: u64,
}

/// Why the clock is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClockFault {
    /// Before the last line.
    #[error(
        "the clock says {}, but the ledger has reached {} already: no KSK is used. hint: set the \
         clock right",
        time_text(*now), time_text(*floor)
    )]
    Behind {
        /// What the clock says.
        now: u64,
        /// What the ledger has seen.
        floor: u64,
    },
    /// Further ahead than is credible.
    #[error(
        "the clock says {}, {} days after the ledger's last credible line ({}); without a quorum it may \
         be {days} days ahead: no KSK is used. hint: if the clock is wrong, set it right; if the \
         appliance was off for so long, propose raise-time-floor",
        time_text(*now), (now - floor) / DAY_S, time_text(*floor)
    )]
    Ahead {
        /// What the clock says.
        now: u64,
        /// What the ledger has seen.
        floor: u64,
        /// How far ahead it may be.
        days: u64,
    },
}

impl TimeFloor {
    /// A floor at `time`; lines raise it by at most `clock_days` each.
    pub(super) fn new(time: u64, clock_days: u16) -> Self {
        Self { floor: time, reach_s: u64::from(clock_days) * DAY_S }
    }

    /// The floor.
    pub(super) fn floor(self) -> u64 {
        self.floor
    }

    /// The latest credible time.
    pub(super) fn ceiling(self) -> u64 {
        self.floor.saturating_add(self.reach_s)
    }

    /// A line of this time was written.
    pub(super) fn saw(&mut self, at: u64) {
        if at > self.floor && at <= self.ceiling() {
            self.floor = at;
        }
    }

    /// A quorum says that it is `to`.
    pub(super) fn raise(&mut self, to: u64) {
        self.floor = self.floor.max(to);
    }

    /// Whether a clock that says `now` may use KSKs.
    pub(super) fn check(self, now: u64) -> Result<(), ClockFault> {
        let floor = self.floor;
        if now < floor {
            return Err(ClockFault::Behind { now, floor });
        }
        if now > self.ceiling() {
            return Err(ClockFault::Ahead { now, floor, days: self.reach_s / DAY_S });
        }
        Ok(())
    }

    /// Whether a quorum may raise the floor to `to` while the clock says `now`.
    pub(super) fn check_raise(self, to: u64, now: u64) -> Result<(), String> {
        let latest = to.saturating_add(self.reach_s);
        if now < to.saturating_sub(RAISE_BEHIND_S_MAX) || now > latest {
            return Err(format!(
                "the floor of time would rise to {}, but the clock says {}; expected it between an hour \
                 before and {} days after. hint: set the clock right first",
                time_text(to),
                time_text(now),
                self.reach_s / DAY_S
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_764_000_000;

    fn days(count: u64) -> u64 {
        START + count * DAY_S
    }

    #[test]
    fn a_jump_forward_poisons_nothing() {
        let mut time = TimeFloor::new(START, 10);
        time.saw(days(3650));
        assert_eq!(time.floor(), START, "ten years are not credible");
        assert!(matches!(time.check(days(3650)), Err(ClockFault::Ahead { days: 10, .. })));
        assert_eq!(time.check(days(1)), Ok(()), "right again");
        time.saw(days(10));
        assert_eq!(time.floor(), days(10));
        time.saw(days(20) + 1);
        assert_eq!(time.floor(), days(10), "a second more than the days");
        time.saw(days(5));
        assert_eq!(time.floor(), days(10), "it never falls");
    }

    #[test]
    fn a_clock_behind_the_floor_is_not_believed() {
        let time = TimeFloor::new(START, 10);
        assert!(matches!(time.check(START - 1), Err(ClockFault::Behind { .. })));
        assert_eq!(time.check(START), Ok(()));
        assert_eq!(time.check(days(10)), Ok(()));
        let fault = time.check(days(10) + 1).expect_err("too far");
        assert!(fault.to_string().contains("raise-time-floor"), "{fault}");
    }

    #[test]
    fn a_quorum_raises_the_floor_near_the_clock_only() {
        let time = TimeFloor::new(START, 10);
        for (to, now, expect) in [
            (days(400), days(400), true),
            (days(400), days(400) - RAISE_BEHIND_S_MAX, true),
            (days(400), days(400) - RAISE_BEHIND_S_MAX - 1, false),
            (days(400), days(410), true),
            (days(400), days(410) + 1, false),
        ] {
            assert_eq!(time.check_raise(to, now).is_ok(), expect, "{to} {now}");
        }
    }
}
