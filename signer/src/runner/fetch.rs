//! A zone from its primaries: each in order of preference, until one has something newer.

use countersign_policy::ZoneName;
use countersign_zone::receive::ReceivedZone;

use super::ZoneSettings;
use super::jobs::Have;
use super::schedule::{Failure, FailureKind};
use crate::config::IncomingZonemd;
use crate::counters::Counters;
use crate::inbound::{self, Differences};
use crate::peers::PeerName;

/// What a primary gave.
#[derive(Debug)]
pub(super) struct Fetched {
    pub zone: ReceivedZone,
    /// Its name.
    pub primary: PeerName,
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
    let Have { serial: have, base } = have;
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
        let fetched = inbound::fetch(
            transfer.connector.as_ref(),
            source,
            zone,
            have,
            // Another primary may have had other data under the same serial.
            differences.as_ref().filter(|_| from.as_deref() == Some(&*source.peer)),
            settings.bounds,
            &transfer.limits,
            counters,
        );
        match fetched.await {
            Ok(inbound::Fetched::UpToDate { serial }) => {
                tracing::debug!(peer = %source.peer, serial, "nothing newer");
                answered = true;
            }
            Ok(inbound::Fetched::Zone { zone, serial, bytes, differences }) => {
                tracing::info!(peer = %source.peer, serial, bytes, differences, "transferred");
                return Ok(Some(Fetched { zone, primary: source.peer.clone() }));
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

    use countersign_zone::receive::Bounds;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::inbound::Source;
    use crate::notify::Inbox;
    use crate::outbound::{self, Xot, serve_xot};
    use crate::peers::IdentityRule;
    use crate::published::testing::{catalogue, version, zone_name};
    use crate::query::Front;
    use crate::runner::schedule::TimerBounds;
    use crate::runner::{Transfer, Treatment};
    use crate::tls::testing::Pki;

    async fn primary(pki: &Pki, serial: u32) -> Source {
        let counters = Arc::<Counters>::default();
        let front = Front::new(catalogue(), Inbox::new(Duration::ZERO, counters.clone()), counters);
        front.catalogue().publish(version("a.test", serial, 3)).expect("published");
        let xot = Xot::new(pki.acceptor("p.test"), front, outbound::Limits::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        tokio::spawn(serve_xot(listener, xot, CancellationToken::new()));
        Source::new("p".into(), address, IdentityRule::san("p.test"), "p.test").expect("source")
    }

    #[tokio::test]
    async fn a_primary_that_lags_does_not_hide_newer_data() {
        let pki = Pki::new();
        let settings = ZoneSettings {
            primaries: vec![primary(&pki, 5).await, primary(&pki, 6).await],
            transfer: Transfer {
                connector: Some(pki.connector("secondary.test")),
                limits: inbound::Limits::default(),
                manners: Arc::default(),
            },
            treatment: Treatment::default(),
            bounds: Bounds { records_max: 1_000, bytes_max: 1 << 20 },
            timers: TimerBounds { min_s: 1, max_s: 10 },
        };
        let (zone, counters) = (zone_name("a.test"), Counters::default());
        for (have, newer) in [(Some(4), true), (Some(5), true), (Some(6), false), (None, true)] {
            let have = Have { serial: have, base: None };
            let shown = have.serial;
            let fetched = fetch(&counters, &zone, &settings, have).await.expect("answered");
            assert_eq!(fetched.is_some(), newer, "{shown:?}");
        }
    }
}
