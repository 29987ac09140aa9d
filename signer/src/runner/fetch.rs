//! A zone from its primaries: each in order of preference, until one gives it.

use countersign_policy::ZoneName;
use countersign_zone::receive::ReceivedZone;

use super::schedule::{Failure, FailureKind};
use super::{Context, ZoneSettings};
use crate::inbound::{self, Fetched};

/// Fetches the zone if a primary has data newer than `have`; `None` if the first that answers
/// has not.
pub(super) async fn fetch(
    context: &Context,
    zone: &ZoneName,
    settings: &ZoneSettings,
    have: Option<u32>,
) -> Result<Option<ReceivedZone>, Failure> {
    let mut reasons = Vec::new();
    let transfer = &settings.transfer;
    for source in &settings.primaries {
        let fetched = inbound::fetch(
            &transfer.connector,
            source,
            zone,
            have,
            settings.bounds,
            &transfer.limits,
            &context.counters,
        );
        match fetched.await {
            Ok(Fetched::UpToDate { serial }) => {
                tracing::debug!(peer = %source.peer, serial, "nothing newer");
                return Ok(None);
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
    Err(Failure::new(FailureKind::Transfer, reasons.join("; ")))
}
