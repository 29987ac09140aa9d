//! Counters and the latency histogram of one token, since the keeper started.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::protocol::LATENCY_BUCKETS_US;

/// What is counted about a token. Relaxed everywhere: nothing is decided by these numbers.
#[derive(Debug, Default)]
pub(super) struct Counters {
    signatures: AtomicU64,
    failures: AtomicU64,
    latency_counts: [AtomicU64; LATENCY_BUCKETS_US.len() + 1],
    latency_sum_us: AtomicU64,
}

impl Counters {
    /// A signature that took so long from asking to having.
    pub(super) fn signed(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BUCKETS_US.partition_point(|bound| *bound < us);
        self.latency_counts[bucket].fetch_add(1, Relaxed);
        self.latency_sum_us.fetch_add(us, Relaxed);
        self.signatures.fetch_add(1, Relaxed);
    }

    /// A call that failed.
    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    pub(super) fn signatures(&self) -> u64 {
        self.signatures.load(Relaxed)
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Counts per bucket of [`LATENCY_BUCKETS_US`], then everything slower.
    pub(super) fn latency_counts(&self) -> Vec<u64> {
        self.latency_counts.iter().map(|count| count.load(Relaxed)).collect()
    }

    pub(super) fn latency_sum_us(&self) -> u64 {
        self.latency_sum_us.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive_and_the_last_bucket_takes_the_rest() {
        let counters = Counters::default();
        for us in [0, 50, 51, 1_000_000, 1_000_001] {
            counters.signed(Duration::from_micros(us));
        }
        assert_eq!(counters.latency_counts(), [2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(counters.signatures(), 5);
    }
}
