//! What happens on the network side, counted. Whoever renders metrics reads them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn bump(&self) {
        self.add(1);
    }

    /// That many more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $help:literal])+ $name:ident;)+) => {
        /// The counters of transfers, connections, queries and NOTIFY.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $help])+ pub $name: Counter,)+
        }

        impl Counters {
            /// Shows each counter: name, what it counts, how many so far.
            pub fn each(&self, mut show: impl FnMut(&'static str, &'static str, u64)) {
                $(show(stringify!($name), concat!($($help),+).trim_ascii(), self.$name.read());)+
            }
        }
    };
}

counters! {
    /// Asked a primary for its SOA
    soa_checks;
    /// Zones fetched whole from a primary
    transfers_in;
    /// Of these, those that came as differences (IXFR)
    transfers_in_ixfr;
    /// Times that differences were asked for, and the whole zone was asked for instead
    ixfr_fallbacks;
    /// Fetches that failed or were refused
    transfers_in_failed;
    /// Octets received in transfers
    transfer_bytes_in;
    /// Transfers that a secondary got whole
    transfers_out;
    /// Of these, those that went as differences (IXFR)
    transfers_out_ixfr;
    /// Transfers to a secondary that broke off
    transfers_out_failed;
    /// Transfers refused: not a secondary of the zone, or asked for in clear
    transfers_out_refused;
    /// Octets sent in transfers
    transfer_bytes_out;
    /// TLS handshakes that failed or showed an unlisted identity
    handshakes_refused;
    /// Connections turned away or dropped because a bound was reached
    connections_over_bound;
    /// Connections dropped because they were idle or too slow
    connections_idle;
    /// Queries answered
    queries_answered;
    /// Queries refused
    queries_refused;
    /// Messages that were not signed as they must be, or whose TSIG was no good
    tsig_refused;
    /// NOTIFY taken from a primary
    notifies_received;
    /// NOTIFY refused
    notifies_refused;
    /// NOTIFY that a secondary acknowledged
    notifies_sent;
    /// NOTIFY given up on
    notifies_failed;
    /// Questions to hooks
    hooks_asked;
    /// Questions that a hook has not answered as it should
    hooks_failed;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_shown_with_its_help() {
        let counters = Counters::default();
        counters.transfers_in.add(3);
        let mut seen = Vec::new();
        counters.each(|name, help, value| seen.push((name, help, value)));
        assert_eq!(seen.len(), 23);
        assert!(seen.contains(&("transfers_in", "Zones fetched whole from a primary", 3)));
        assert!(seen.iter().all(|(_, help, _)| !help.is_empty()));
    }
}
