//! Who is on the other end: the identity in a certificate, and the peers that are listed.
//!
//! A peer is its certificate identity: a DNS name of the leaf's subjectAltName (RFC 9525 §2; the
//! common name is never looked at) or the SHA-256 of its subjectPublicKeyInfo. An address alone
//! is never a peer: it opens only the door to public records at the apex, and to hints.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use countersign_policy::key::to_hex;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// How many names of a certificate are kept; a certificate made for one machine has a few.
const SANS_MAX: usize = 32;

/// The name under which the configuration knows a peer.
pub type PeerName = Arc<str>;

/// What a leaf certificate says about its holder.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    sans: Vec<String>,
    spki_sha256: [u8; 32],
}

/// The certificate could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("certificate is not readable X.509: {0}")]
pub struct IdentityError(String);

impl Identity {
    /// Reads a DER certificate. Nothing is verified here: TLS does that.
    pub fn from_der(certificate: &[u8]) -> Result<Self, IdentityError> {
        let (_, leaf) = X509Certificate::from_der(certificate)
            .map_err(|error| IdentityError(error.to_string()))?;
        let names =
            leaf.subject_alternative_name().map_err(|error| IdentityError(error.to_string()))?;
        let sans = names.map_or_else(Vec::new, |names| {
            names
                .value
                .general_names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some(normal_name(name)),
                    _ => None,
                })
                .take(SANS_MAX)
                .collect()
        });
        let mut spki_sha256 = [0; 32];
        spki_sha256.copy_from_slice(digest(&SHA256, leaf.public_key().raw).as_ref());
        Ok(Self { sans, spki_sha256 })
    }

    /// The DNS names of the subjectAltName, lower-cased, without a last dot.
    pub fn sans(&self) -> &[String] {
        &self.sans
    }

    /// SHA-256 of the DER subjectPublicKeyInfo.
    pub fn spki_sha256(&self) -> &[u8; 32] {
        &self.spki_sha256
    }

    /// Whether the rule names this identity.
    pub fn satisfies(&self, rule: &IdentityRule) -> bool {
        match rule {
            IdentityRule::San(name) => self.sans.contains(name),
            IdentityRule::SpkiSha256(hash) => self.spki_sha256 == *hash,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sans.as_slice() {
            [] => f.write_str("no DNS name")?,
            // A certificate is a stranger's text until it is verified: quoted and escaped.
            sans => write!(f, "san={sans:?}")?,
        }
        write!(f, " spki_sha256={}", to_hex(&self.spki_sha256))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

fn normal_name(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// How a listed peer is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum IdentityRule {
    /// The leaf has exactly this DNS name in its subjectAltName (no wildcards).
    San(String),
    /// The leaf's public key has this hash.
    SpkiSha256([u8; 32]),
}

impl IdentityRule {
    /// A rule on a DNS name, whatever its case and last dot.
    pub fn san(name: &str) -> Self {
        Self::San(normal_name(name))
    }
}

impl fmt::Display for IdentityRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::San(name) => write!(f, "san={name:?}"),
            Self::SpkiSha256(hash) => write!(f, "spki_sha256={}", to_hex(hash)),
        }
    }
}

/// Why an identity is nobody in particular.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unrecognised {
    /// No rule matches.
    #[error("certificate identity {0} is not listed")]
    Unlisted(Box<Identity>),
    /// Rules of several holders match: the certificate would be two peers at once.
    #[error("certificate identity {0} matches more than one listed peer")]
    Ambiguous(Box<Identity>),
}

/// Listed identities and what each stands for (a peer, a client of the API).
#[derive(Debug, Clone)]
pub struct Identities<T> {
    rules: HashMap<IdentityRule, T>,
}

/// Two entries claim one identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("identity {0} is listed twice")]
pub struct DuplicateIdentity(IdentityRule);

impl<T: Clone + Eq> Identities<T> {
    /// Takes the list; an identity may stand in it once.
    pub fn new(
        entries: impl IntoIterator<Item = (IdentityRule, T)>,
    ) -> Result<Self, DuplicateIdentity> {
        let mut rules = HashMap::new();
        for (rule, holder) in entries {
            match rules.entry(rule) {
                Entry::Vacant(free) => free.insert(holder),
                Entry::Occupied(taken) => return Err(DuplicateIdentity(taken.key().clone())),
            };
        }
        Ok(Self { rules })
    }

    /// Who this is.
    pub fn recognise(&self, identity: &Identity) -> Result<T, Unrecognised> {
        let pinned = self.rules.get(&IdentityRule::SpkiSha256(*identity.spki_sha256()));
        let named =
            identity.sans().iter().map(|san| self.rules.get(&IdentityRule::San(san.clone())));
        let mut found = None;
        for holder in named.chain([pinned]).flatten() {
            match found {
                Some(other) if other != holder => {
                    return Err(Unrecognised::Ambiguous(Box::new(identity.clone())));
                }
                _ => found = Some(holder),
            }
        }
        found.cloned().ok_or_else(|| Unrecognised::Unlisted(Box::new(identity.clone())))
    }
}

/// A peer as it is listed.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its name in the configuration.
    pub name: PeerName,
    /// Its certificate identity; a peer without is known by its TSIG key.
    pub identity: Option<IdentityRule>,
    /// Addresses from which it may ask in clear for what is public at the apex, and from which
    /// its NOTIFY is taken as a hint.
    pub addresses: Vec<IpAddr>,
}

/// The listed peers.
#[derive(Debug, Clone)]
pub struct PeerTable {
    identities: Identities<PeerName>,
    addresses: HashMap<IpAddr, Vec<PeerName>>,
}

impl PeerTable {
    /// Takes the list of peers.
    pub fn new(peers: impl IntoIterator<Item = Peer>) -> Result<Self, DuplicateIdentity> {
        let mut rules = Vec::new();
        let mut addresses: HashMap<IpAddr, Vec<PeerName>> = HashMap::new();
        for peer in peers {
            for address in peer.addresses {
                addresses.entry(address.to_canonical()).or_default().push(peer.name.clone());
            }
            rules.extend(peer.identity.map(|identity| (identity, peer.name)));
        }
        Ok(Self { identities: Identities::new(rules)?, addresses })
    }

    /// The peer with this certificate.
    pub fn by_identity(&self, identity: &Identity) -> Result<PeerName, Unrecognised> {
        self.identities.recognise(identity)
    }

    /// The peers that list this address (several may share one); none for a stranger.
    pub fn by_address(&self, address: IpAddr) -> &[PeerName] {
        self.addresses.get(&address.to_canonical()).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(sans: &[&str], key: u8) -> Identity {
        Identity { sans: sans.iter().map(|s| normal_name(s)).collect(), spki_sha256: [key; 32] }
    }

    fn table() -> PeerTable {
        let peer = |name: &str, identity, addresses: &[&str]| Peer {
            name: name.into(),
            identity: Some(identity),
            addresses: addresses.iter().map(|a| a.parse().expect("address")).collect(),
        };
        PeerTable::new([
            peer("a", IdentityRule::san("A.test."), &["192.0.2.1", "::1"]),
            peer("b", IdentityRule::SpkiSha256([2; 32]), &["192.0.2.1"]),
        ])
        .expect("distinct")
    }

    fn check(sans: &[&str], key: u8, expect: Result<&str, &str>) {
        let found = table().by_identity(&identity(sans, key));
        match (found, expect) {
            (Ok(name), Ok(expect)) => assert_eq!(&*name, expect),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (found, expect) => panic!("{found:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn a_peer_is_its_certificate() {
        check(&["a.TEST"], 9, Ok("a"));
        check(&["x.test", "a.test"], 9, Ok("a"));
        check(&[], 2, Ok("b"));
        check(&["x.test"], 2, Ok("b"));
        check(&["*.test"], 9, Err("san=[\"*.test\"]"));
        check(&["b"], 9, Err("not listed"));
        check(&[], 9, Err("no DNS name spki_sha256=0909"));
        check(&["a.test"], 2, Err("more than one"));
    }

    #[test]
    fn an_identity_is_listed_once() {
        let entry = |holder| (IdentityRule::san("a.test"), holder);
        assert!(Identities::new([entry(1), entry(2)]).is_err());
    }

    #[test]
    fn addresses_in_either_form() {
        let table = table();
        let names = |text: &str| table.by_address(text.parse().expect("address")).len();
        assert_eq!(names("192.0.2.1"), 2);
        assert_eq!(names("::ffff:192.0.2.1"), 2);
        assert_eq!(names("::1"), 1);
        assert_eq!(names("192.0.2.2"), 0);
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(Identity::from_der(b"\x30\x03abc").is_err());
    }
}
