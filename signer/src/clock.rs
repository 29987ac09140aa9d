//! The only place in the daemon that reads the wall clock. Everything else is handed `now`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::time::Instant;

/// How often the two clocks are compared.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The wall clock may drift from the monotonic one by this much between two looks (slewing is a
/// fraction of a percent, suspended machines and corrected clocks are far more).
const JUMP_S: u64 = 2;

/// Seconds since 1970. A clock before 1970 reads as 0: every signature is then not yet valid,
/// which verification refuses.
#[expect(clippy::disallowed_methods, reason = "this is the room that reads the wall clock")]
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Sleeping by the wall clock. Timers run on the monotonic clock, so when the wall clock is set
/// or the machine was suspended every sleeper wakes and looks again.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    jumped: Arc<Notify>,
}

impl Clock {
    /// Sleeps until the wall clock shows `at_s`.
    pub async fn sleep_until(&self, at_s: u64) {
        loop {
            let jumped = self.jumped.notified();
            let left_s = at_s.saturating_sub(now_s());
            if left_s == 0 {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(left_s)) => {}
                () = jumped => {}
            }
        }
    }

    /// Compares the clocks for as long as it is polled.
    pub async fn watch(self) {
        let mut wall_s = now_s();
        let mut monotonic = Instant::now();
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let passed_s = monotonic.elapsed().as_secs();
            if now_s().abs_diff(wall_s + passed_s) > JUMP_S {
                tracing::warn!(
                    expected_s = wall_s + passed_s,
                    found_s = now_s(),
                    "the wall clock jumped; timers are set anew"
                );
                self.jumped.notify_waiters();
            }
            wall_s = now_s();
            monotonic = Instant::now();
        }
    }
}

/// A time in the proleptic Gregorian calendar, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    year: u64,
    month: u64,
    day: u64,
    second_of_day: u64,
}

impl Civil {
    /// The calendar's name for a number of seconds since 1970. Days are counted from 1 March of
    /// year 0 in eras of 400 years, so that leap days fall at the end of a year.
    pub const fn of(seconds: u64) -> Self {
        let days = seconds / 86_400 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
        Self { year, month, day, second_of_day: seconds % 86_400 }
    }

    /// `YYYYMMDDHHmmSS` (RFC 4034 §3.2).
    pub fn compact(self) -> String {
        let Self { year, month, day, second_of_day: s } = self;
        format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}", s / 3_600, s / 60 % 60, s % 60)
    }
}

impl std::fmt::Display for Civil {
    /// RFC 3339.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { year, month, day, second_of_day: s } = self;
        let (hour, minute, second) = (s / 3_600, s / 60 % 60, s % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar() {
        for (seconds, expect) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (4_294_967_295, "2106-02-07T06:28:15Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Civil::of(seconds).to_string(), expect);
        }
        assert_eq!(Civil::of(1_704_067_199).compact(), "20231231235959");
    }
}
