//! From the file as written to a [`Config`] that is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use countersign_policy::ZoneName;
use toml::Spanned;

use super::{
    ApiClient, Config, Daemon, Guard, Hook, Identity, Limits, Listen, PUSH_LOCAL, Peer, Problem,
    TlsFiles, Transport, TsigKey, Zone, v1,
};

/// Zones in one file: the largest portfolio, twice over.
const ZONES_MAX: usize = 200_000;
/// Peers in one file: each may hold connections and counters.
const PEERS_MAX: usize = 4_096;
/// Primaries or secondaries of one zone.
const PEERS_PER_ZONE_MAX: usize = 64;
/// Octets in a unix socket's path (`sun_path`, less its NUL).
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// TSIG keys in one file: one a peer.
const TSIG_KEYS_MAX: usize = PEERS_MAX;
/// Guards and hooks in one file: a handful of ways to treat zones.
const GUARDS_MAX: usize = 256;
/// Names of one zone that must not go.
const CRITICAL_NAMES_MAX: usize = 1_000;
/// Hooks of one zone: each may take its whole time, one after the other.
const HOOKS_PER_ZONE_MAX: usize = 8;
/// How long a hook's answer takes unless the file says otherwise.
const HOOK_TIMEOUT_MS: u64 = 5_000;
/// The guard of zones that name none.
const GUARD_DEFAULT: &str = "default";
/// In place of a guard's name: nothing is held.
const GUARD_OFF: &str = "off";

pub(super) fn check(file: v1::File) -> Result<Config, Vec<Problem>> {
    let mut problems = Vec::new();
    check_daemon(&file.daemon, &mut problems);
    if let Some(limits) = &file.limits {
        check_limits(limits, &mut problems);
    }
    let tsig = check_tsig(file.tsig, &mut problems);
    let peers = check_peers(file.peer, &tsig, &mut problems);
    let guards = check_guards(file.guard, &mut problems);
    let hooks = check_hooks(file.hook, &mut problems);
    let api_clients = check_api_clients(file.api_client, &mut problems);
    let named = Named { peers: &peers, guards: &guards, hooks: &hooks, clients: &api_clients };
    let zones = check_zones(file.zone, &named, &mut problems);
    let tls = file.tls.map(|tls| TlsFiles {
        certificate: tls.certificate,
        key: tls.key,
        ca: tls.ca,
        crl: tls.crl,
    });
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
        let over_tls =
            |peer: &Peer| peer.transfer_from.is_some() && peer.transport == Transport::Tls;
        if peers.values().any(|(_, peer)| over_tls(peer)) {
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
        tsig,
        peers: peers.into_iter().map(|(name, (_, peer))| (name, peer)).collect(),
        hooks,
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
    bound("differences_kept", l.differences_kept as u64, 0, 1_000);
    bound("differences_bytes_max", l.differences_bytes_max as u64, 0, 1 << 40);
    bound("zonemd_records_max", l.zonemd_records_max as u64, 0, 1_000_000_000);
    bound("pushes_at_once_max", l.pushes_at_once_max as u64, 1, 256);
    bound("stop_ms_max", l.stop_ms_max, 100, 600_000);
}

type LocatedPeers = BTreeMap<String, (Range<usize>, Peer)>;

/// A key's name as messages have it: a domain name, compared without regard to case.
fn tsig_name(text: &str) -> Result<String, String> {
    let name: ZoneName = text.parse().map_err(|error| format!("{error}"))?;
    Ok(name.to_string().to_ascii_lowercase())
}

fn check_tsig(
    raw: BTreeMap<Spanned<String>, Spanned<v1::Tsig>>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, TsigKey> {
    let mut keys = BTreeMap::new();
    for (name, key) in raw {
        let span = name.span();
        if keys.len() == TSIG_KEYS_MAX {
            problems.push(Problem::at(
                span,
                format!("more than {TSIG_KEYS_MAX} TSIG keys"),
                "remove those that no peer names",
            ));
            break;
        }
        let key = key.into_inner();
        check_absolute("secret_file", &key.secret_file, problems);
        let named = match tsig_name(name.get_ref()) {
            Ok(named) => named,
            Err(error) => {
                problems.push(Problem::at(
                    span,
                    format!("{:?} is not a TSIG key's name: {error}", name.get_ref()),
                    "it is a domain name, the same at both ends: [tsig.\"transfer.example.\"]",
                ));
                continue;
            }
        };
        let secret_file = key.secret_file.into_inner();
        let checked = TsigKey { algorithm: key.algorithm, secret_file };
        if keys.insert(named.clone(), checked).is_some() {
            problems.push(Problem::at(
                span,
                format!("TSIG key {named} is defined twice, spelled differently"),
                "keep one of the two tables",
            ));
        }
    }
    keys
}

fn check_absolute(field: &str, path: &Spanned<std::path::PathBuf>, problems: &mut Vec<Problem>) {
    if !path.get_ref().is_absolute() {
        problems.push(Problem::at(
            path.span(),
            format!("`{field}` is {}; expected a path from the root", path.get_ref().display()),
            "write the whole path, beginning with /",
        ));
    }
}

fn check_guards(
    raw: BTreeMap<String, Spanned<v1::Guard>>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Guard> {
    let mut guards = BTreeMap::new();
    for (name, guard) in raw {
        let span = guard.span();
        check_plain("guard", &name, &span, problems);
        if name == GUARD_OFF || guards.len() == GUARDS_MAX {
            problems.push(Problem::at(
                span,
                format!(
                    "a guard can't be called `{GUARD_OFF}`, and there are at most {GUARDS_MAX}"
                ),
                "choose another name, or remove guards that no zone names",
            ));
            continue;
        }
        let (raw, default) = (guard.into_inner(), Guard::default());
        let percent = raw.shrink_percent_max.unwrap_or(default.shrink_percent_max);
        if percent > 100 {
            problems.push(Problem::at(
                span,
                format!("`shrink_percent_max` is {percent}; expected 0 to 100"),
                "100 never holds a zone for shrinking",
            ));
        }
        let guard = Guard {
            shrink_percent_max: percent,
            shrink_records_min: raw.shrink_records_min.unwrap_or(default.shrink_records_min),
            apex_ns: raw.apex_ns.unwrap_or(default.apex_ns),
        };
        guards.insert(name, guard);
    }
    guards
}

fn check_hooks(
    raw: BTreeMap<String, Spanned<v1::Hook>>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Hook> {
    let mut hooks = BTreeMap::new();
    for (name, hook) in raw {
        let span = hook.span();
        check_plain("hook", &name, &span, problems);
        let hook = hook.into_inner();
        check_absolute("socket", &hook.socket, problems);
        let timeout_ms = hook.timeout_ms.unwrap_or(HOOK_TIMEOUT_MS);
        if !(10..=600_000).contains(&timeout_ms) {
            problems.push(Problem::at(
                span,
                format!("hook `{name}`: `timeout_ms` is {timeout_ms}; expected 10 to 600000"),
                "leave it out for the default",
            ));
        }
        let (before, on_failure) = (hook.before, hook.on_failure);
        let socket = hook.socket.into_inner();
        hooks.insert(name, Hook { socket, before, timeout_ms, on_failure });
    }
    hooks
}

fn check_peers(
    raw: BTreeMap<String, Spanned<v1::Peer>>,
    tsig: &BTreeMap<String, TsigKey>,
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
        let key = peer.tsig.and_then(|key| check_key_name(&name, &key, tsig, problems));
        let identity = match peer.identity {
            Some(identity) => {
                let span = identity.span();
                let Some(identity) = check_identity(identity, problems) else { continue };
                if let Some(other) = identities.insert(identity.clone(), name.clone()) {
                    problems.push(Problem::at(
                        span,
                        format!("peers `{other}` and `{name}` have the same identity"),
                        "make them one peer: a peer is its certificate identity",
                    ));
                }
                Some(identity)
            }
            None => None,
        };
        if let Some((problem, hint)) =
            check_proof(&name, identity.is_some(), key.is_some(), peer.transport)
        {
            problems.push(Problem::at(span.clone(), problem, hint));
        }
        if peer.transfer_from.is_some()
            && peer.transport == Transport::Tls
            && peer.server_name.is_none()
            && !matches!(identity, Some(Identity::San(_)))
        {
            problems.push(Problem::at(
                span.clone(),
                format!(
                    "peer `{name}` has `transfer_from`, and neither a `san` nor a `server_name`"
                ),
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
            tsig: key,
            transport: peer.transport,
            transfer_from: peer.transfer_from,
            server_name: peer.server_name,
            notify: peer.notify,
            addresses: peer.addresses,
        };
        peers.insert(name, (span, peer));
    }
    peers
}

fn check_key_name(
    peer: &str,
    key: &Spanned<String>,
    keys: &BTreeMap<String, TsigKey>,
    problems: &mut Vec<Problem>,
) -> Option<String> {
    let named = tsig_name(key.get_ref()).ok().filter(|named| keys.contains_key(named));
    if named.is_none() {
        problems.push(Problem::at(
            key.span(),
            format!(
                "peer `{peer}`: `tsig` names the key {:?}, which is not defined",
                key.get_ref()
            ),
            format!("add a table [tsig.\"{}\"]", key.get_ref()),
        ));
    }
    named
}

/// Whether something proves the peer on each message, or connection.
fn check_proof(
    peer: &str,
    certificate: bool,
    tsig: bool,
    transport: Transport,
) -> Option<(String, &'static str)> {
    match (certificate, tsig, transport) {
        (false, false, _) => Some((
            format!("peer `{peer}` has neither `identity` nor `tsig`: nothing would prove it"),
            "write identity = { san = \"name.example\" }, or name a TSIG key",
        )),
        (_, false, Transport::Tcp) => Some((
            format!("peer `{peer}`: `transport` is \"tcp\", and there is no `tsig`"),
            "name a TSIG key: nothing else proves messages over TCP. Or leave `transport` out",
        )),
        _ => None,
    }
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

/// What a zone may name.
struct Named<'a> {
    peers: &'a LocatedPeers,
    guards: &'a BTreeMap<String, Guard>,
    hooks: &'a BTreeMap<String, Hook>,
    clients: &'a BTreeMap<String, ApiClient>,
}

impl Named<'_> {
    fn guard(
        &self,
        zone: &ZoneName,
        name: Option<&Spanned<String>>,
        problems: &mut Vec<Problem>,
    ) -> Option<Guard> {
        let Some(name) = name else {
            return Some(self.guards.get(GUARD_DEFAULT).copied().unwrap_or_default());
        };
        let text = name.get_ref();
        if text == GUARD_OFF {
            return None;
        }
        let known = self.guards.get(text).copied();
        if known.is_none() {
            problems.push(Problem::at(
                name.span(),
                format!("zone {zone}: `guard` is `{text}`, which is not defined"),
                format!("add a table [guard.{text}], or write \"{GUARD_OFF}\" to hold nothing"),
            ));
        }
        known
    }

    fn critical(
        zone: &ZoneName,
        list: Vec<Spanned<String>>,
        problems: &mut Vec<Problem>,
    ) -> Vec<ZoneName> {
        if let Some(beyond) = list.get(CRITICAL_NAMES_MAX) {
            problems.push(Problem::at(
                beyond.span(),
                format!("zone {zone}: more than {CRITICAL_NAMES_MAX} names in `critical`"),
                "name those without which it is an outage",
            ));
        }
        let mut names = Vec::new();
        for text in list {
            match text.get_ref().parse::<ZoneName>() {
                Ok(name) if zone.contains_wire(name.as_wire()) => names.push(name),
                Ok(name) => problems.push(Problem::at(
                    text.span(),
                    format!("zone {zone}: `critical` has {name}, which lies outside of it"),
                    "write whole names, as in \"www.example.\"",
                )),
                Err(error) => problems.push(Problem::at(
                    text.span(),
                    format!("zone {zone}: `critical` has {:?}: {error}", text.get_ref()),
                    "write whole names, as in \"www.example.\"",
                )),
            }
        }
        names
    }

    fn list<T>(
        zone: &ZoneName,
        field: &str,
        list: Vec<Spanned<String>>,
        max: usize,
        known: &BTreeMap<String, T>,
        also: Option<&str>,
        problems: &mut Vec<Problem>,
    ) -> Vec<String> {
        let mut seen = BTreeSet::new();
        for name in &list {
            let text = name.get_ref();
            let (what, hint) = if seen.len() == max {
                (format!("more than {max}"), "leave some out".to_owned())
            } else if !known.contains_key(text) && also != Some(text.as_str()) {
                (format!("`{text}`, which is not defined"), format!("add a table for `{text}`"))
            } else if !seen.insert(text.clone()) {
                (format!("`{text}` twice"), "remove one".to_owned())
            } else {
                continue;
            };
            let problem = format!("zone {zone}: `{field}` names {what}");
            problems.push(Problem::at(name.span(), problem, hint));
        }
        list.into_iter().map(Spanned::into_inner).collect()
    }
}

fn check_zones(
    raw: BTreeMap<Spanned<String>, Spanned<v1::Zone>>,
    named: &Named<'_>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<ZoneName, Zone> {
    let peers = named.peers;
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
        if zone.primaries.is_empty() && zone.push_from.is_empty() {
            problems.push(Problem::at(
                key.span(),
                format!("zone {name} has neither `primaries` nor `push_from`"),
                "name at least one peer that has `transfer_from`, or an API client that may push",
            ));
        }
        let primaries = check_peer_list(
            &name,
            "primaries",
            zone.primaries,
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
        let (clients, local) = (named.clients, Some(PUSH_LOCAL));
        let max = PEERS_PER_ZONE_MAX;
        let push_from =
            Named::list(&name, "push_from", zone.push_from, max, clients, local, problems);
        let max = HOOKS_PER_ZONE_MAX;
        let hooks = Named::list(&name, "hooks", zone.hooks, max, named.hooks, None, problems);
        let checked = Zone {
            primaries,
            push_from,
            secondaries,
            incoming_dnssec: zone.incoming_dnssec,
            incoming_zonemd: zone.incoming_zonemd,
            zonemd: zone.zonemd,
            beyond_window: zone.beyond_window,
            guard: named.guard(&name, zone.guard.as_ref(), problems),
            critical: Named::critical(&name, zone.critical, problems),
            hooks,
        };
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
        if name == PUSH_LOCAL {
            problems.push(Problem::at(
                span.clone(),
                format!("an API client can't be called `{PUSH_LOCAL}`: that is the box itself"),
                "rename it",
            ));
        }
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
