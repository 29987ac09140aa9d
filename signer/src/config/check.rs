//! From the file as written to a [`Config`] that is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use countersign_policy::ZoneName;
use toml::Spanned;

use super::{
    ApiClient, Config, Daemon, Identity, Limits, Listen, Peer, Problem, TlsFiles, Zone, v1,
};

/// Zones in one file: the largest portfolio, twice over.
const ZONES_MAX: usize = 200_000;
/// Peers in one file: each may hold connections and counters.
const PEERS_MAX: usize = 4_096;
/// Primaries or secondaries of one zone.
const PEERS_PER_ZONE_MAX: usize = 64;
/// Octets in a unix socket's path (`sun_path`, less its NUL).
const SOCKET_PATH_BYTES_MAX: usize = 107;

pub(super) fn check(file: v1::File) -> Result<Config, Vec<Problem>> {
    let mut problems = Vec::new();
    check_daemon(&file.daemon, &mut problems);
    if let Some(limits) = &file.limits {
        check_limits(limits, &mut problems);
    }
    let peers = check_peers(file.peer, &mut problems);
    let zones = check_zones(file.zone, &peers, &mut problems);
    let api_clients = check_api_clients(file.api_client, &mut problems);
    let tls =
        file.tls.map(|tls| TlsFiles { certificate: tls.certificate, key: tls.key, ca: tls.ca });
    if tls.is_none() {
        for (name, addresses) in [("xot", &file.listen.xot), ("api", &file.listen.api)] {
            if let Some(addresses) = addresses.as_ref().filter(|list| !list.get_ref().is_empty()) {
                problems.push(Problem::at(
                    addresses.span(),
                    format!("`listen.{name}` needs a certificate, and there is no [tls] table"),
                    "add [tls] with certificate, key and ca",
                ));
            }
        }
        if peers.values().any(|(_, peer)| peer.transfer_from.is_some()) {
            problems.push(Problem {
                span: None,
                message: "peers with `transfer_from` are asked over TLS with a client \
                          certificate, and there is no [tls] table"
                    .to_owned(),
                hint: Some("add [tls] with certificate, key and ca".to_owned()),
            });
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Config {
        daemon: Daemon {
            state_dir: file.daemon.state_dir.into_inner(),
            keeper_socket: file.daemon.keeper_socket.into_inner(),
            api_socket: file.daemon.api_socket.into_inner(),
            group: file.daemon.group,
            log: file.daemon.log,
        },
        tls,
        listen: Listen {
            dns: file.listen.dns,
            xot: file.listen.xot.map(Spanned::into_inner).unwrap_or_default(),
            api: file.listen.api.map(Spanned::into_inner).unwrap_or_default(),
        },
        peers: peers.into_iter().map(|(name, (_, peer))| (name, peer)).collect(),
        zones,
        api_clients,
        limits: file.limits.map(Spanned::into_inner).unwrap_or_default(),
    })
}

fn check_daemon(daemon: &v1::Daemon, problems: &mut Vec<Problem>) {
    for (name, path) in [
        ("state_dir", &daemon.state_dir),
        ("keeper_socket", &daemon.keeper_socket),
        ("api_socket", &daemon.api_socket),
    ] {
        if !path.get_ref().is_absolute() {
            problems.push(Problem::at(
                path.span(),
                format!(
                    "`daemon.{name}` is {}; expected a path from the root",
                    path.get_ref().display()
                ),
                "write the whole path, beginning with /",
            ));
        }
    }
    for (name, path) in
        [("keeper_socket", &daemon.keeper_socket), ("api_socket", &daemon.api_socket)]
    {
        let len = path.get_ref().as_os_str().len();
        if len > SOCKET_PATH_BYTES_MAX {
            problems.push(Problem::at(
                path.span(),
                format!("`daemon.{name}` has {len} octets; a unix socket's path holds {SOCKET_PATH_BYTES_MAX}"),
                "choose a shorter path",
            ));
        }
    }
}

fn check_limits(limits: &Spanned<Limits>, problems: &mut Vec<Problem>) {
    let l = limits.get_ref();
    let mut bound = |name: &str, value: u64, least: u64, most: u64| {
        if !(least..=most).contains(&value) {
            problems.push(Problem::at(
                limits.span(),
                format!("`limits.{name}` is {value}; expected {least} to {most}"),
                "leave it out for the default",
            ));
        }
    };
    bound("records_max", l.records_max as u64, 10, 1_000_000_000);
    bound("zone_bytes_max", l.zone_bytes_max as u64, 1_024, 1 << 40);
    bound("connections_max", l.connections_max as u64, 1, 65_536);
    bound("connections_per_peer_max", l.connections_per_peer_max as u64, 1, 65_536);
    bound("handshake_ms", l.handshake_ms, 100, 60_000);
    bound("idle_ms", l.idle_ms, 100, 600_000);
    bound("transfer_s_max", l.transfer_s_max, 1, 86_400);
    bound("soa_timer_s_min", l.soa_timer_s_min.into(), 1, 3_600);
    bound("soa_timer_s_max", l.soa_timer_s_max.into(), l.soa_timer_s_min.into(), 7 * 86_400);
    bound("versions_kept", l.versions_kept as u64, 1, 100);
    bound("zones_at_work_max", l.zones_at_work_max as u64, 1, 256);
    bound("keeper_deadline_ms", l.keeper_deadline_ms, 100, 600_000);
    bound("api_connections_max", l.api_connections_max as u64, 1, 65_536);
    bound("api_request_s_max", l.api_request_s_max, 1, 86_400);
    bound("stop_ms_max", l.stop_ms_max, 100, 600_000);
}

type LocatedPeers = BTreeMap<String, (Range<usize>, Peer)>;

fn check_peers(
    raw: BTreeMap<String, Spanned<v1::Peer>>,
    problems: &mut Vec<Problem>,
) -> LocatedPeers {
    let mut peers = LocatedPeers::new();
    let mut identities = BTreeMap::<Identity, String>::new();
    for (name, peer) in raw {
        let span = peer.span();
        let peer = peer.into_inner();
        if peers.len() == PEERS_MAX {
            problems.push(Problem::at(
                span.clone(),
                format!("more than {PEERS_MAX} peers"),
                "remove those that no zone names",
            ));
            break;
        }
        check_plain("peer", &name, &span, problems);
        let identity_span = peer.identity.span();
        let Some(identity) = check_identity(peer.identity, problems) else {
            continue;
        };
        if let Some(other) = identities.insert(identity.clone(), name.clone()) {
            problems.push(Problem::at(
                identity_span,
                format!("peers `{other}` and `{name}` have the same identity"),
                "make them one peer: a peer is its certificate identity",
            ));
        }
        if peer.transfer_from.is_some()
            && peer.server_name.is_none()
            && matches!(identity, Identity::SpkiSha256(_))
        {
            problems.push(Problem::at(
                span.clone(),
                format!("peer `{name}` has `transfer_from` and a pinned key, and no `server_name`"),
                "add server_name = \"NAME\", a DNS name that its certificate carries",
            ));
        }
        if let Some(server_name) = &peer.server_name
            && rustls_pki_types::ServerName::try_from(server_name.as_str()).is_err()
        {
            problems.push(Problem::at(
                span.clone(),
                format!("peer `{name}`: `server_name` is {server_name:?}; expected a DNS name"),
                "copy it from the certificate: openssl x509 -noout -ext subjectAltName",
            ));
        }
        let peer = Peer {
            identity,
            transfer_from: peer.transfer_from,
            server_name: peer.server_name,
            notify: peer.notify,
            addresses: peer.addresses,
        };
        peers.insert(name, (span, peer));
    }
    peers
}

fn check_plain(kind: &str, name: &str, span: &Range<usize>, problems: &mut Vec<Problem>) {
    let plain = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
    if !plain {
        problems.push(Problem::at(
            span.clone(),
            format!("{kind} name {name:?}; expected 1 to 64 of a-z, 0-9, '-', '_', '.'"),
            "rename it; the name is for logs, metrics and this file only",
        ));
    }
}

fn check_identity(
    identity: Spanned<v1::Identity>,
    problems: &mut Vec<Problem>,
) -> Option<Identity> {
    let span = identity.span();
    let raw = identity.into_inner();
    let problem = match (raw.san, raw.spki_sha256) {
        (Some(san), None) => {
            let name = san.to_ascii_lowercase();
            let name = name.strip_suffix('.').unwrap_or(&name);
            if rustls_pki_types::DnsName::try_from(name).is_ok() {
                return Some(Identity::San(name.to_owned()));
            }
            Problem::at(
                span,
                format!("`san` is {san:?}; expected a DNS name without wildcard"),
                "copy it from the certificate: openssl x509 -noout -ext subjectAltName",
            )
        }
        (None, Some(pin)) => {
            let bytes =
                countersign_policy::key::from_hex(&pin.to_ascii_lowercase().replace(':', ""));
            if let Some(pin) = bytes.and_then(|bytes| bytes.try_into().ok()) {
                return Some(Identity::SpkiSha256(pin));
            }
            Problem::at(
                span,
                "`spki_sha256` is not 64 hexadecimal digits",
                "openssl x509 -noout -pubkey | openssl pkey -pubin -outform der | sha256sum",
            )
        }
        (Some(_), Some(_)) => Problem::at(
            span,
            "`identity` has both `san` and `spki_sha256`; expected one",
            "keep `spki_sha256` to pin the key, `san` to trust the CA for the name",
        ),
        (None, None) => Problem::at(
            span,
            "`identity` is empty; expected `san` or `spki_sha256`",
            "write identity = { san = \"name.example\" }",
        ),
    };
    problems.push(problem);
    None
}

fn check_zones(
    raw: BTreeMap<Spanned<String>, Spanned<v1::Zone>>,
    peers: &LocatedPeers,
    problems: &mut Vec<Problem>,
) -> BTreeMap<ZoneName, Zone> {
    let mut zones = BTreeMap::new();
    for (key, zone) in raw {
        let zone = zone.into_inner();
        let name: ZoneName = match key.get_ref().parse() {
            Ok(name) => name,
            Err(error) => {
                problems.push(Problem::at(
                    key.span(),
                    format!("{:?} is not a zone's name: {error}", key.get_ref()),
                    "write it in quotes, as in [zone.\"example.\"]",
                ));
                continue;
            }
        };
        if zones.len() == ZONES_MAX {
            problems.push(Problem::at(
                key.span(),
                format!("more than {ZONES_MAX} zones"),
                "run a second signer",
            ));
            break;
        }
        if zone.primaries.get_ref().is_empty() {
            problems.push(Problem::at(
                zone.primaries.span(),
                format!("zone {name} has no primary"),
                "name at least one peer that has `transfer_from`",
            ));
        }
        let primaries = check_peer_list(
            &name,
            "primaries",
            zone.primaries.into_inner(),
            peers,
            |peer| peer.transfer_from.is_some(),
            "has no `transfer_from`, so the zone can't be fetched from it",
            "add transfer_from = \"ADDRESS:853\" to the peer",
            problems,
        );
        let secondaries = check_peer_list(
            &name,
            "secondaries",
            zone.secondaries,
            peers,
            |_| true,
            "",
            "",
            problems,
        );
        let checked = Zone { primaries, secondaries, incoming_dnssec: zone.incoming_dnssec };
        if zones.insert(name.clone(), checked).is_some() {
            problems.push(Problem::at(
                key.span(),
                format!("zone {name} is defined twice, spelled differently"),
                "keep one of the two tables",
            ));
        }
    }
    zones
}

#[expect(clippy::too_many_arguments, reason = "one rule, in the words that its error needs")]
fn check_peer_list(
    zone: &ZoneName,
    field: &str,
    list: Vec<Spanned<String>>,
    peers: &LocatedPeers,
    fits: impl Fn(&Peer) -> bool,
    misfit: &str,
    misfit_hint: &str,
    problems: &mut Vec<Problem>,
) -> Vec<String> {
    let mut seen = BTreeSet::new();
    for name in &list {
        let peer = name.get_ref();
        let problem = match peers.get(peer) {
            _ if seen.len() == PEERS_PER_ZONE_MAX => Problem::at(
                name.span(),
                format!("zone {zone}: more than {PEERS_PER_ZONE_MAX} {field}"),
                "let some secondaries fetch from others",
            ),
            None => {
                let near = peers
                    .keys()
                    .map(|known| (strsim::jaro_winkler(peer, known), known))
                    .filter(|(likeness, _)| *likeness > 0.8)
                    .max_by(|a, b| a.0.total_cmp(&b.0));
                Problem::at(
                    name.span(),
                    format!("zone {zone}: `{field}` names the peer `{peer}`, which is not defined"),
                    near.map_or_else(
                        || format!("add a table [peer.{peer}]"),
                        |(_, known)| format!("did you mean `{known}`?"),
                    ),
                )
            }
            Some((_, known)) if !fits(known) => Problem::at(
                name.span(),
                format!("zone {zone}: `{field}` names the peer `{peer}`, which {misfit}"),
                misfit_hint,
            ),
            Some(_) if !seen.insert(peer.clone()) => Problem::at(
                name.span(),
                format!("zone {zone}: `{field}` names the peer `{peer}` twice"),
                "remove one",
            ),
            Some(_) => continue,
        };
        problems.push(problem);
    }
    list.into_iter().map(Spanned::into_inner).collect()
}

fn check_api_clients(
    raw: BTreeMap<String, Spanned<v1::ApiClient>>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, ApiClient> {
    let mut clients = BTreeMap::new();
    let mut identities = BTreeMap::<Identity, String>::new();
    for (name, client) in raw {
        let span = client.span();
        let client = client.into_inner();
        check_plain("API client", &name, &span, problems);
        let Some(identity) = check_identity(client.identity, problems) else {
            continue;
        };
        if let Some(other) = identities.insert(identity.clone(), name.clone()) {
            problems.push(Problem::at(
                span,
                format!("API clients `{other}` and `{name}` have the same identity"),
                "keep one: an identity has one role",
            ));
        }
        clients.insert(name, ApiClient { identity, role: client.role });
    }
    clients
}
