//! A zone from its primaries: each in order of preference, until one has something newer.

use countersign_policy::ZoneName;
use countersign_zone::receive::ReceivedZone;

use super::ZoneSettings;
use super::jobs::Have;
use super::schedule::{Failure, FailureKind};
use crate::config::IncomingZonemd;
use crate::counters::Counters;
use crate::inbound::{self, Differences, Source};
use crate::wire::newer;

/// What a primary gave.
#[derive(Debug)]
pub(super) struct Fetched {
    pub zone: ReceivedZone,
    /// Who that was, and how it proved itself.
    pub source: Source,
}

/// Fetches the zone if a primary has data newer than what is here; `None` if none that
/// answers has. A primary that lags must not hide what the others have.
pub(super) async fn fetch(
    counters: &Counters,
    zone: &ZoneName,
    settings: &ZoneSettings,
    have: Have,
) -> Result<Option<Fetched>, Failure> {
    let mut reasons = Vec::new();
    let mut answered = false;
    let (transfer, treatment) = (&settings.transfer, &settings.treatment);
    let Have { serial: have, rejected, base } = have;
    // A ZONEMD covers the primary's DNSSEC records, which are not kept: it can be checked in a zone
    // that comes whole only.
    let base = base.filter(|_| treatment.incoming_zonemd == IncomingZonemd::Ignore);
    let (base, from) = base.unzip();
    let differences = base.map(|base| Differences {
        base,
        dnssec: treatment.incoming_dnssec,
        manners: &transfer.manners,
    });
    for source in &settings.primaries {
        let beyond = |have| {
            inbound::fetch(
                transfer.connector.as_ref(),
                source,
                zone,
                have,
                // Another primary may have had other data under the same serial.
                differences.as_ref().filter(|_| from.as_deref() == Some(&*source.peer)),
                settings.bounds,
                &transfer.limits,
                counters,
            )
        };
        let mut fetched = beyond(rejected.or(have)).await;
        if let (Some(rejected), Ok(inbound::Fetched::UpToDate { serial })) = (rejected, &fetched)
            && *serial != rejected
            && have.is_none_or(|have| newer(*serial, have))
        {
            // Older than what was rejected, and not that.
            fetched = beyond(have).await;
        }
        match fetched {
            Ok(inbound::Fetched::UpToDate { serial }) => {
                tracing::debug!(peer = %source.peer, serial, "nothing newer");
                answered = true;
            }
            Ok(inbound::Fetched::Zone { zone, serial, bytes, differences }) => {
                tracing::info!(peer = %source.peer, serial, bytes, differences, "transferred");
                return Ok(Some(Fetched { zone, source: source.clone() }));
            }
            Err(error) => {
                tracing::warn!(peer = %source.peer, address = %source.address, %error, "no transfer");
                reasons.push(format!("{} ({}): {error}", source.peer, source.address));
            }
        }
    }
    if answered {
        return Ok(None);
    }
    Err(Failure::new(FailureKind::Transfer, reasons.join("; ")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use countersign_zone::difference::Base;
    use countersign_zone::receive::Bounds;
    use countersign_zone::{AdmissionParams, AdmittedZone, Receiver, admit};
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::notify::Inbox;
    use crate::outbound::differences::Step;
    use crate::outbound::{self, Xot, serve_xot};
    use crate::peers::IdentityRule;
    use crate::published::testing::{catalogue, version, zone_name};
    use crate::query::Front;
    use crate::runner::schedule::TimerBounds;
    use crate::runner::{DifferenceBounds, Transfer, Treatment};
    use crate::tls::testing::Pki;

    /// Publishes the serial before this one, and then this one with the step to it.
    async fn primary(pki: &Pki, serial: u32) -> Source {
        let counters = Arc::<Counters>::default();
        let front = Front::new(catalogue(), Inbox::new(Duration::ZERO, counters.clone()), counters);
        let hosts = |serial| version("a.test", serial, 100 + serial);
        let (before, up) = (hosts(serial - 1), hosts(serial));
        let bounds = DifferenceBounds { kept: 1, bytes_max: 1 << 20 };
        for version in [&before, &up] {
            front.catalogue().publish(version.clone()).expect("published");
        }
        let step = Step::between(&before, &up, bounds.bytes_max);
        front.catalogue().keep(up.apex(), step, bounds);
        let xot = Xot::new(pki.acceptor("p.test"), front, outbound::Limits::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        tokio::spawn(serve_xot(listener, xot, CancellationToken::new()));
        Source::new("p".into(), address, IdentityRule::san("p.test"), "p.test").expect("source")
    }

    fn settings(pki: &Pki, primaries: Vec<Source>) -> ZoneSettings {
        ZoneSettings {
            primaries,
            transfer: Transfer {
                connector: Some(pki.connector("secondary.test")),
                limits: inbound::Limits::default(),
                manners: Arc::default(),
            },
            treatment: Treatment::default(),
            bounds: Bounds { records_max: 1_000, bytes_max: 1 << 20 },
            timers: TimerBounds { min_s: 1, max_s: 10 },
        }
    }

    /// What a primary's version is here, once it was admitted.
    fn admitted(serial: u32, hosts: u32) -> AdmittedZone {
        let (version, bounds) = (version("a.test", serial, hosts), 1 << 20);
        let bounds = Bounds { records_max: bounds, bytes_max: bounds };
        let mut receiver = Receiver::new(version.apex().clone(), bounds);
        for rrset in version.records().iter().flat_map(|node| node.rrsets()) {
            for rdata in rrset.rdatas() {
                let pushed = receiver.push(rrset.owner(), rrset.rtype().0, 1, rrset.ttl_s(), rdata);
                pushed.expect("a record");
            }
        }
        let received = receiver.finish().expect("records");
        admit(received, &AdmissionParams::UNBOUNDED).expect("admitted")
    }

    /// Another primary may have had other data under the same serial: its differences might even fit.
    #[tokio::test]
    async fn differences_are_applied_to_data_of_the_same_primary_only() {
        let pki = Pki::new();
        let mut settings = settings(&pki, vec![primary(&pki, 6).await]);
        let (zone, here) = (zone_name("a.test"), admitted(5, 105));
        let lies = admitted(5, 104);
        let ignore = IncomingZonemd::Ignore;
        for (here, name, zonemd, expect) in [
            (&here, "p", ignore, (1, 0)),
            (&here, "q", ignore, (0, 0)),
            (&here, "p", IncomingZonemd::Check, (0, 0)),
            // The host that comes is there; and one that is not.
            (&admitted(5, 106), "p", ignore, (0, 1)),
            (&lies, "p", ignore, (1, 0)),
        ] {
            settings.treatment.incoming_zonemd = zonemd;
            let base = Some((Base::of_admitted(here), name.to_owned()));
            let (have, counters) =
                (Have { serial: Some(5), rejected: None, base }, Counters::default());
            let fetched = fetch(&counters, &zone, &settings, have).await.expect("answered");
            fetched.expect("newer");
            let counted = (counters.transfers_in_ixfr.read(), counters.ixfr_fallbacks.read());
            assert_eq!(counted, expect, "{name} {zonemd:?}");
        }
    }

    /// A serial that is far too high is a reason to reject: the one that puts it right is lower.
    #[tokio::test]
    async fn what_was_rejected_is_not_wanted_and_what_puts_it_right_is() {
        let pki = Pki::new();
        let settings = settings(&pki, vec![primary(&pki, 7).await]);
        let (zone, counters) = (zone_name("a.test"), Counters::default());
        for (have, rejected, wanted) in [
            (Some(5), 7, false),
            (Some(5), 6, true),
            (Some(5), 2_000_000_000, true),
            (Some(7), 2_000_000_000, false),
            (Some(8), 2_000_000_000, false),
            (None, 2_000_000_000, true),
        ] {
            let have = Have { serial: have, rejected: Some(rejected), base: None };
            let shown = (have.serial, rejected);
            let fetched = fetch(&counters, &zone, &settings, have).await.expect("answered");
            assert_eq!(fetched.is_some(), wanted, "{shown:?}");
        }
    }

    #[tokio::test]
    async fn a_primary_that_lags_does_not_hide_newer_data() {
        let pki = Pki::new();
        let settings = settings(&pki, vec![primary(&pki, 5).await, primary(&pki, 6).await]);
        let (zone, counters) = (zone_name("a.test"), Counters::default());
        for (have, newer) in [(Some(4), true), (Some(5), true), (Some(6), false), (None, true)] {
            let have = Have { serial: have, rejected: None, base: None };
            let shown = have.serial;
            let fetched = fetch(&counters, &zone, &settings, have).await.expect("answered");
            assert_eq!(fetched.is_some(), newer, "{shown:?}");
        }
    }
}
