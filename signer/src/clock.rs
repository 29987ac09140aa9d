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
