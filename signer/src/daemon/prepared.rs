//! A configuration with everything that it names read and ready: certificates, keys, identities.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use countersign_policy::ZoneName;
use countersign_zone::admit::IncomingDnssec;
use countersign_zone::receive::Bounds;

use super::certificates::{self, PreparedTls};
use crate::config::{self, Config, Role};
use crate::inbound::{self, Source};
use crate::peers::{Identities, IdentityRule, Peer, PeerTable};
use crate::published::ZoneAccess;
use crate::runner::schedule::TimerBounds;
use crate::runner::{DifferenceBounds, Transfer, Treatment, ZoneSettings};
use crate::tls::Keyring;

/// A configuration that can be put in force without a further question to the disk.
#[derive(Debug)]
pub struct Prepared {
    /// As it was read.
    pub config: Config,
    /// `[tls]`, read.
    pub tls: Option<PreparedTls>,
    /// The peers.
    pub peers: PeerTable,
    /// Which of them may have which zone.
    pub access: Vec<ZoneAccess>,
    /// Clients of the HTTPS API.
    pub clients: Identities<(Arc<str>, Role)>,
    /// The zones, for the runner.
    pub zones: BTreeMap<ZoneName, ZoneSettings>,
}

impl Prepared {
    /// Reads what the configuration names.
    pub fn new(config: Config) -> anyhow::Result<Self> {
        Self::after(config, None)
    }

    /// The same at a reload; `before` is what TLS works with until then.
    pub fn after(config: Config, before: Option<&Keyring>) -> anyhow::Result<Self> {
        let tls = config.tls.as_ref().map(|files| certificates::prepare(files, before));
        let tls = tls.transpose()?;
        let peers = PeerTable::new(config.peers.iter().map(|(name, peer)| Peer {
            name: name.as_str().into(),
            identity: peer.identity.as_ref().map(rule),
            addresses: peer.addresses.clone(),
        }))
        .context("[peer]")?;
        let clients = Identities::new(config.api_clients.iter().map(|(name, client)| {
            (rule(&client.identity), (Arc::from(name.as_str()), client.role))
        }))
        .context("[api_client]")?;
        let access = config
            .zones
            .iter()
            .map(|(zone, settings)| ZoneAccess {
                zone: zone.clone(),
                primaries: settings.primaries.iter().map(|name| name.as_str().into()).collect(),
                secondaries: settings.secondaries.iter().map(|name| name.as_str().into()).collect(),
            })
            .collect();
        let zones = zones(&config, tls.as_ref())?;
        Ok(Self { config, tls, peers, access, clients, zones })
    }
}

fn rule(identity: &config::Identity) -> IdentityRule {
    match identity {
        config::Identity::San(name) => IdentityRule::san(name),
        config::Identity::SpkiSha256(pin) => IdentityRule::SpkiSha256(*pin),
    }
}

/// The name that a primary's certificate must be for: with a SAN identity, that one by default.
fn server_name(peer: &config::Peer) -> Option<&str> {
    match (&peer.server_name, &peer.identity) {
        (Some(name), _) | (None, Some(config::Identity::San(name))) => Some(name),
        (None, _) => None,
    }
}

fn zones(
    config: &Config,
    tls: Option<&PreparedTls>,
) -> anyhow::Result<BTreeMap<ZoneName, ZoneSettings>> {
    let limits = &config.limits;
    let transfer = inbound::Limits {
        handshake: Duration::from_millis(limits.handshake_ms),
        idle: Duration::from_millis(limits.idle_ms),
        total: Duration::from_secs(limits.transfer_s_max),
        ..inbound::Limits::default()
    };
    let mut zones = BTreeMap::new();
    for (zone, settings) in &config.zones {
        let mut primaries = Vec::new();
        // The check of the file saw to it that each of these is there.
        let Some(tls) = tls else { continue };
        for name in &settings.primaries {
            let Some(peer) = config.peers.get(name) else { continue };
            let (Some(address), Some(server_name), Some(identity)) =
                (peer.transfer_from, server_name(peer), &peer.identity)
            else {
                anyhow::bail!("[peer.{name}]: transfers without a certificate are not there yet");
            };
            let source = Source::new(name.as_str().into(), address, rule(identity), server_name);
            primaries.push(source.with_context(|| format!("[peer.{name}] server_name"))?);
        }
        let settings = ZoneSettings {
            primaries,
            transfer: Transfer { connector: tls.connector.clone(), limits: transfer.clone() },
            treatment: treatment(config, settings),
            bounds: Bounds { records_max: limits.records_max, bytes_max: limits.zone_bytes_max },
            timers: TimerBounds { min_s: limits.soa_timer_s_min, max_s: limits.soa_timer_s_max },
        };
        zones.insert(zone.clone(), settings);
    }
    Ok(zones)
}

fn treatment(config: &Config, zone: &config::Zone) -> Treatment {
    let limits = &config.limits;
    let hook = |name: &String| Some((name.clone(), config.hooks.get(name)?.clone()));
    Treatment {
        incoming_dnssec: match zone.incoming_dnssec {
            config::IncomingDnssec::Strip => IncomingDnssec::Strip,
            config::IncomingDnssec::Refuse => IncomingDnssec::Refuse,
        },
        incoming_zonemd: zone.incoming_zonemd,
        zonemd: zone.zonemd.then_some(limits.zonemd_records_max),
        beyond_window: zone.beyond_window,
        guard: zone.guard,
        critical: zone.critical.clone(),
        hooks: zone.hooks.iter().filter_map(hook).collect(),
        differences: DifferenceBounds {
            kept: limits.differences_kept,
            bytes_max: limits.differences_bytes_max,
        },
    }
}
