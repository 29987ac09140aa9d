//! Fetching a zone from its primaries, in order of preference.
use super::schedule::SoaTimers;
use super::*;
use countersign_zone::receive::ReceivedZone;
#[derive(Debug, Clone)]
pub struct Primary;
impl Primary {
    pub fn new(
        _: &str,
        _: &crate::config::Peer,
        _: crate::tls::Connector,
        _: &crate::config::Limits,
    ) -> anyhow::Result<Self> {
        Ok(Self)
    }
}
pub(super) struct Fetched {
    pub zone: Option<ReceivedZone>,
    pub timers: Option<SoaTimers>,
}
pub(super) async fn fetch(
    context: &Context,
    zone: &ZoneName,
    settings: &ZoneSettings,
    have: Option<u32>,
) -> Result<Fetched, Failure> {
    Err(Failure::new(FailureKind::Transfer, "x"))
}
