//! From the file as written to a [`Config`] that is whole.

mod peers;
mod zones;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;

use super::{
    ApiClient, Config, Daemon, Identity, Limits, Listen, PUSH_LOCAL, Peer, Problem, TlsFiles,
    Transport, v1,
};
use peers::{LocatedPeers, check_peers, check_tsig};
use zones::{Named, check_guards, check_hooks, check_zones};

/// Octets in a unix socket's path (`sun_path`, less its NUL).
const SOCKET_PATH_BYTES_MAX: usize = 107;

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
        check_without_tls(&file.listen, &peers, &mut problems);
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

/// What needs a certificate of ours is refused where there is none.
fn check_without_tls(listen: &v1::Listen, peers: &LocatedPeers, problems: &mut Vec<Problem>) {
    for (name, addresses) in [("xot", &listen.xot), ("api", &listen.api)] {
        if let Some(addresses) = addresses.as_ref().filter(|list| !list.get_ref().is_empty()) {
            problems.push(Problem::at(
                addresses.span(),
                format!("`listen.{name}` needs a certificate, and there is no [tls] table"),
                "add [tls] with certificate, key and ca",
            ));
        }
    }
    let over_tls = |peer: &Peer| peer.transfer_from.is_some() && peer.transport == Transport::Tls;
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

fn check_absolute(field: &str, path: &Spanned<PathBuf>, problems: &mut Vec<Problem>) {
    if !path.get_ref().is_absolute() {
        problems.push(Problem::at(
            path.span(),
            format!("`{field}` is {}; expected a path from the root", path.get_ref().display()),
            "write the whole path, beginning with /",
        ));
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
