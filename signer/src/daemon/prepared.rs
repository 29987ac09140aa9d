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
use crate::tsig::{self, Algorithm, Key};

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
        let mut tls = tls.transpose()?;
        let keys = keys(&config)?;
        let peers = PeerTable::new(config.peers.iter().map(|(name, peer)| Peer {
            name: name.as_str().into(),
            identity: peer.identity.as_ref().map(rule),
            key: peer.tsig.as_ref().and_then(|key| keys.get(key.as_str()).cloned()),
            transport: peer.transport,
            addresses: peer.addresses.clone(),
        }))
        .context("[peer]")?;
        if let Some(tls) = tls.as_mut().filter(|_| peers.any_without_certificate()) {
            tls.xot = tls.xot.clone().without_demand();
        }
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
        let zones = zones(&config, tls.as_ref(), &peers)?;
        Ok(Self { config, tls, peers, access, clients, zones })
    }
}

/// The secrets of `[tsig]`, read anew each time.
fn keys(config: &Config) -> anyhow::Result<BTreeMap<&str, Arc<Key>>> {
    let mut keys = BTreeMap::new();
    for (name, key) in &config.tsig {
        let algorithm = match key.algorithm {
            config::TsigAlgorithm::HmacSha256 => Algorithm::HmacSha256,
            config::TsigAlgorithm::HmacSha384 => Algorithm::HmacSha384,
            config::TsigAlgorithm::HmacSha512 => Algorithm::HmacSha512,
        };
        let at = || format!("[tsig.\"{name}\"]");
        let wire_name: ZoneName = name.parse().with_context(at)?;
        let read = tsig::files::load(&key.secret_file, wire_name, algorithm).with_context(at)?;
        keys.insert(name.as_str(), Arc::new(read));
    }
    Ok(keys)
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
    peers: &PeerTable,
) -> anyhow::Result<BTreeMap<ZoneName, ZoneSettings>> {
    let limits = &config.limits;
    let transfer = Transfer {
        connector: tls.map(|tls| tls.connector.clone()),
        limits: inbound::Limits {
            handshake: Duration::from_millis(limits.handshake_ms),
            idle: Duration::from_millis(limits.idle_ms),
            total: Duration::from_secs(limits.transfer_s_max),
            ..inbound::Limits::default()
        },
        manners: Arc::default(),
    };
    let mut zones = BTreeMap::new();
    for (zone, settings) in &config.zones {
        let mut primaries = Vec::new();
        for name in &settings.primaries {
            primaries.extend(source(config, name, peers)?);
        }
        let settings = ZoneSettings {
            primaries,
            transfer: transfer.clone(),
            treatment: treatment(config, settings),
            bounds: Bounds { records_max: limits.records_max, bytes_max: limits.zone_bytes_max },
            timers: TimerBounds { min_s: limits.soa_timer_s_min, max_s: limits.soa_timer_s_max },
        };
        zones.insert(zone.clone(), settings);
    }
    Ok(zones)
}

/// A primary with all that its entry says of its proof. The check of the file saw to it that there is one.
fn source(config: &Config, name: &str, peers: &PeerTable) -> anyhow::Result<Option<Source>> {
    let Some(peer) = config.peers.get(name) else { return Ok(None) };
    let Some(address) = peer.transfer_from else { return Ok(None) };
    let (peer_name, key) = (name.into(), peers.key_of(name));
    let over_tls = |server_name: Option<&str>| {
        server_name.map(str::to_owned).with_context(|| format!("[peer.{name}] has no server_name"))
    };
    let source = match (peer.transport, &peer.identity, key) {
        (config::Transport::Tcp, _, Some(key)) => Source::by_key_over_tcp(peer_name, address, key),
        (config::Transport::Tls, Some(identity), key) => {
            let server_name = over_tls(server_name(peer))?;
            let source = Source::new(peer_name, address, rule(identity), &server_name)
                .with_context(|| format!("[peer.{name}] server_name"))?;
            match key {
                Some(key) => source.signed_with(key),
                None => source,
            }
        }
        (config::Transport::Tls, None, Some(key)) => {
            let server_name = over_tls(server_name(peer))?;
            Source::by_key_over_tls(peer_name, address, &server_name, key)
                .with_context(|| format!("[peer.{name}] server_name"))?
        }
        (_, _, None) => anyhow::bail!("[peer.{name}]: nothing would prove it"),
    };
    Ok(Some(source))
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
