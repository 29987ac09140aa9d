//! The one room in the keeper where the wall clock is read (invariant 8).

use std::time::SystemTime;

/// Seconds since 1970 by this machine's clock; 0 if it is set before that.
pub fn now_s() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this is the clock's room")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
