//! Peers, and the TSIG keys that they name.

use std::collections::BTreeMap;
use std::ops::Range;

use countersign_policy::ZoneName;
use toml::Spanned;

use super::{check_absolute, check_identity, check_plain};
use crate::config::{Identity, Peer, Problem, Transport, TsigKey, v1};

/// Peers in one file: each may hold connections and counters.
const PEERS_MAX: usize = 4_096;
/// TSIG keys in one file: one a peer.
const TSIG_KEYS_MAX: usize = PEERS_MAX;

/// Peers and where they stand in the file.
pub(super) type LocatedPeers = BTreeMap<String, (Range<usize>, Peer)>;

/// A key's name as messages have it: a domain name, compared without regard to case.
fn tsig_name(text: &str) -> Result<String, String> {
    let name: ZoneName = text.parse().map_err(|error| format!("{error}"))?;
    Ok(name.to_string().to_ascii_lowercase())
}

pub(super) fn check_tsig(
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

pub(super) fn check_peers(
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
        let signed = peer.tsig.is_some();
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
            check_proof(&name, identity.is_some(), signed, peer.transport)
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
