//! A zone from its primaries: each in order of preference, until one has something newer.

use countersign_policy::ZoneName;
use countersign_zone::receive::ReceivedZone;

use super::ZoneSettings;
use super::schedule::{Failure, FailureKind};
use crate::counters::Counters;
use crate::inbound::{self, Fetched};

/// Fetches the zone if a primary has data newer than `have`; `None` if none that
/// answers has. A primary that lags must not hide what the others have.
pub(super) async fn fetch(
    counters: &Counters,
    zone: &ZoneName,
    settings: &ZoneSettings,
    have: Option<u32>,
) -> Result<Option<ReceivedZone>, Failure> {
    let mut reasons = Vec::new();
    let mut answered = false;
    let transfer = &settings.transfer;
    for source in &settings.primaries {
        let fetched = inbound::fetch(
            transfer.connector.as_ref(),
            source,
            zone,
            have,
            settings.bounds,
            &transfer.limits,
            counters,
        );
        match fetched.await {
            Ok(Fetched::UpToDate { serial }) => {
                tracing::debug!(peer = %source.peer, serial, "nothing newer");
                answered = true;
            }
            Ok(Fetched::Zone { zone, serial, bytes }) => {
                tracing::info!(peer = %source.peer, serial, bytes, "transferred");
                return Ok(Some(zone));
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
            },
            treatment: Treatment::default(),
            bounds: Bounds { records_max: 1_000, bytes_max: 1 << 20 },
            timers: TimerBounds { min_s: 1, max_s: 10 },
        };
        let (zone, counters) = (zone_name("a.test"), Counters::default());
        for (have, newer) in [(Some(4), true), (Some(5), true), (Some(6), false), (None, true)] {
            let fetched = fetch(&counters, &zone, &settings, have).await.expect("answered");
            assert_eq!(fetched.is_some(), newer, "{have:?}");
        }
    }
}
