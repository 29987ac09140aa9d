//! Waiting for a condition with a deadline: the only way in which a story waits.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

/// For what takes a second or two on a quiet machine. Generous: the bed shares two cores with
/// compilers and other stories, and only a failing story ever waits this long.
pub const SOON: Duration = Duration::from_secs(60);

/// How often a condition is looked at: fine enough that a story is not slowed by it, coarse
/// enough that a look which starts a process (dig, the CLI) does not load the machine.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Looks until `condition` yields a value. What it last complained about is the error when the
/// deadline passes.
pub fn until<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(e) if start.elapsed() >= deadline => {
                return Err(e).with_context(|| format!("waited {deadline:?} for {what}"));
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// The same for a plain condition.
pub fn until_true(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<()> {
    until(what, deadline, || if condition() { Ok(()) } else { Err(anyhow!("still not so")) })
}

/// Looks for the whole of `period` and fails as soon as `condition` does: for what must *not*
/// happen while something else has its chance to go wrong.
pub fn throughout(
    what: &str,
    period: Duration,
    mut condition: impl FnMut() -> Result<()>,
) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < period {
        condition().with_context(|| format!("after {:?} of {what}", start.elapsed()))?;
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
