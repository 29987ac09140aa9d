//! The one room in the keeper where the wall clock is read (invariant 8).
//!
//! With the feature `test-clock`, which is for tests alone and does not compile in a release build, the
//! file that the environment variable `COUNTERSIGN_TEST_CLOCK` names says how many seconds (a signed
//! decimal number) are added. It is read each time.

#[cfg(all(feature = "test-clock", not(debug_assertions)))]
compile_error!(
    "the feature `test-clock` lets a file move the keeper's time: it is for tests, never for a release"
);

use std::time::SystemTime;

/// Seconds since 1970 by this machine's clock; 0 if it is set before that.
pub fn now_s() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this is the clock's room")]
    let now = SystemTime::now();
    let now_s = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    moved(now_s)
}

#[cfg(not(feature = "test-clock"))]
const fn moved(now_s: u64) -> u64 {
    now_s
}

#[cfg(feature = "test-clock")]
fn moved(now_s: u64) -> u64 {
    let offset = std::env::var_os("COUNTERSIGN_TEST_CLOCK")
        .and_then(|path| std::fs::read_to_string(path).ok())
        .and_then(|text| text.trim().parse::<i64>().ok());
    now_s.saturating_add_signed(offset.unwrap_or_default())
}

#[cfg(all(test, feature = "test-clock"))]
mod tests {
    use super::moved;

    #[test]
    fn without_a_file_the_clock_is_the_machines() {
        assert_eq!(moved(7), 7);
    }
}
