//! Who is on the other end: the identity in a certificate, and the peers that are listed.
//!
//! A peer is its certificate identity: a DNS name of the leaf's subjectAltName (RFC 9525 §2; the
//! common name is never looked at) or the SHA-256 of its subjectPublicKeyInfo. Or it is its TSIG key,
//! which no other peer has; or both must hold. An address alone is never a peer: it opens only the
//! door to public records at the apex, and to hints.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use countersign_policy::key::to_hex;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::config::Transport;
use crate::tsig::Key;

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
    /// The key that its messages must be signed with.
    pub key: Option<Arc<Key>>,
    /// How zones travel between us.
    pub transport: Transport,
    /// Addresses from which it may ask in clear for what is public at the apex, and from which
    /// its NOTIFY is taken as a hint.
    pub addresses: Vec<IpAddr>,
}

/// Why a list of peers is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerTableError {
    /// Two entries claim one identity.
    #[error(transparent)]
    Identity(#[from] DuplicateIdentity),
    /// Two peers have one key: who signs with it would be both.
    #[error(
        "peers {first} and {second} have the same TSIG key {key}. hint: make a key for each; what one \
         signs, the other could have signed"
    )]
    SharedKey {
        /// One of them.
        first: PeerName,
        /// The other.
        second: PeerName,
        /// The key's name.
        key: String,
    },
}

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// UDP or TCP.
    Clear,
    /// TLS.
    Tls,
}

/// Why a message is no listed peer's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// By its certificate it is nobody.
    #[error(transparent)]
    Unrecognised(#[from] Unrecognised),
    /// Our CA, or our revocation lists, do not let its certificate in any more.
    #[error("peer's certificate is no longer accepted")]
    Certificate,
    /// Nothing is there that could prove it.
    #[error("neither a certificate nor a TSIG")]
    Nothing,
    /// A peer's query, and not signed with the peer's key.
    #[error("peer {peer} {problem}")]
    Key {
        /// The peer, by its certificate.
        peer: PeerName,
        /// What is wrong with its signature.
        problem: String,
    },
    /// A key that is no peer's (any more).
    #[error("TSIG key {0} is not a listed peer's")]
    UnlistedKey(String),
    /// Both must hold over TLS.
    #[error("peer {0} signs with its TSIG key, and shows no certificate: its entry asks for both")]
    NoCertificate(PeerName),
}

#[derive(Debug, Clone)]
struct Listed {
    by_certificate: bool,
    key: Option<Arc<Key>>,
    transport: Transport,
}

/// The listed peers.
#[derive(Debug, Clone)]
pub struct PeerTable {
    identities: Identities<PeerName>,
    addresses: HashMap<IpAddr, Vec<PeerName>>,
    listed: HashMap<PeerName, Listed>,
    /// By the keys' names in wire form, lower case.
    keys: HashMap<Box<[u8]>, PeerName>,
}

impl PeerTable {
    /// Takes the list of peers.
    pub fn new(peers: impl IntoIterator<Item = Peer>) -> Result<Self, PeerTableError> {
        let mut rules = Vec::new();
        let mut addresses: HashMap<IpAddr, Vec<PeerName>> = HashMap::new();
        let (mut listed, mut keys) = (HashMap::new(), HashMap::new());
        for Peer { name, identity, key, transport, addresses: from } in peers {
            for address in from {
                addresses.entry(address.to_canonical()).or_default().push(name.clone());
            }
            if let Some(key) = &key
                && let Some(first) = keys.insert(key.wire_name().into(), name.clone())
            {
                let key = key.name().to_string();
                return Err(PeerTableError::SharedKey { first, second: name, key });
            }
            let by_certificate = identity.is_some();
            rules.extend(identity.map(|identity| (identity, name.clone())));
            listed.insert(name, Listed { by_certificate, key, transport });
        }
        Ok(Self { identities: Identities::new(rules)?, addresses, listed, keys })
    }

    /// The peer with this certificate.
    pub fn by_identity(&self, identity: &Identity) -> Result<PeerName, Unrecognised> {
        self.identities.recognise(identity)
    }

    /// The peers that list this address (several may share one); none for a stranger.
    pub fn by_address(&self, address: IpAddr) -> &[PeerName] {
        self.addresses.get(&address.to_canonical()).map_or(&[], Vec::as_slice)
    }

    /// The key of this name (wire form, lower case), if it is a peer's.
    pub fn key(&self, name: &[u8]) -> Option<Arc<Key>> {
        self.listed.get(self.keys.get(name)?)?.key.clone()
    }

    /// The key that the peer's messages must be signed with, if any.
    pub fn key_of(&self, peer: &str) -> Option<Arc<Key>> {
        self.listed.get(peer)?.key.clone()
    }

    /// Whether some peer comes over TLS without a certificate.
    pub fn any_without_certificate(&self) -> bool {
        self.listed.values().any(|peer| !peer.by_certificate && peer.transport == Transport::Tls)
    }

    /// Whether a peer that was proven on this way may have zones on it.
    pub fn may_transfer(&self, peer: &str, way: Way) -> bool {
        let tcp = || self.listed.get(peer).is_some_and(|peer| peer.transport == Transport::Tcp);
        way == Way::Tls || tcp()
    }

    /// The one peer that certificate and key prove together. Over TLS everything that the peer's entry
    /// has must be shown; in clear its key is all that can be.
    pub fn proven(
        &self,
        way: Way,
        identity: Option<&Identity>,
        key: Option<&Key>,
    ) -> Result<PeerName, Unproven> {
        let Some(identity) = identity else {
            let key = key.ok_or(Unproven::Nothing)?;
            let unlisted = || Unproven::UnlistedKey(key.name().to_string());
            let peer = self.keys.get(key.wire_name()).ok_or_else(unlisted)?;
            let listed = self.listed.get(peer).ok_or_else(unlisted)?;
            if !listed.key.as_ref().is_some_and(|expected| expected.same_as(key)) {
                return Err(unlisted());
            }
            if way == Way::Tls && listed.by_certificate {
                return Err(Unproven::NoCertificate(peer.clone()));
            }
            return Ok(peer.clone());
        };
        let peer = self.by_identity(identity)?;
        let expected = self.listed.get(&peer).and_then(|listed| listed.key.as_ref());
        let problem = match (expected, key) {
            (None, None) => return Ok(peer),
            (Some(expected), Some(key)) if expected.same_as(key) => return Ok(peer),
            (Some(expected), None) => {
                format!("must sign its queries with TSIG key {}, and has not", expected.name())
            }
            (_, Some(key)) => format!("signs with TSIG key {}, which is not its own", key.name()),
        };
        Err(Unproven::Key { peer, problem })
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
            key: None,
            transport: Transport::Tls,
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

    fn key(name: &str, secret: u8) -> Arc<Key> {
        let algorithm = crate::tsig::Algorithm::HmacSha256;
        Arc::new(Key::new(name.parse().expect("name"), algorithm, &[secret; 32]).expect("key"))
    }

    fn keyed(name: &str, san: Option<&str>, with: Option<Arc<Key>>, transport: Transport) -> Peer {
        let identity = san.map(IdentityRule::san);
        Peer { name: name.into(), identity, key: with, transport, addresses: vec![] }
    }

    #[test]
    fn a_peer_shows_all_that_its_entry_has() {
        use Transport::{Tcp, Tls};
        let (a, b, c) = (key("a.", 1), key("b.", 2), key("c.", 3));
        let table = PeerTable::new([
            keyed("certificate", Some("certificate.test"), None, Tls),
            keyed("both", Some("both.test"), Some(a.clone()), Tls),
            keyed("key", None, Some(b.clone()), Tls),
            keyed("tcp", None, Some(c.clone()), Tcp),
        ])
        .expect("distinct");
        assert!(table.any_without_certificate());
        let (stale, none) = (key("b.", 9), key("d.", 4));
        let san = |name: &str| identity(&[name], 9);
        for (way, sans, key, expect) in [
            (Way::Tls, Some("certificate.test"), None, Ok("certificate")),
            (Way::Tls, Some("certificate.test"), Some(&a), Err("which is not its own")),
            (Way::Tls, Some("both.test"), Some(&a), Ok("both")),
            (Way::Tls, Some("both.test"), None, Err("must sign its queries with TSIG key a.")),
            (Way::Tls, Some("both.test"), Some(&b), Err("key b., which is not its own")),
            (Way::Tls, Some("other.test"), Some(&a), Err("not listed")),
            (Way::Tls, None, Some(&a), Err("asks for both")),
            (Way::Tls, None, Some(&b), Ok("key")),
            (Way::Tls, None, Some(&stale), Err("not a listed peer's")),
            (Way::Tls, None, Some(&none), Err("not a listed peer's")),
            (Way::Tls, None, None, Err("neither")),
            (Way::Clear, None, Some(&a), Ok("both")),
            (Way::Clear, None, Some(&c), Ok("tcp")),
            (Way::Clear, None, None, Err("neither")),
        ] {
            let identity = sans.map(san);
            let found = table.proven(way, identity.as_ref(), key.map(|key| &**key));
            match (&found, expect) {
                (Ok(peer), Ok(expect)) => assert_eq!(&**peer, expect),
                (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
                _ => panic!("{way:?} {sans:?} {key:?}: {found:?}, expected {expect:?}"),
            }
        }
        for (peer, in_clear) in
            [("certificate", false), ("both", false), ("key", false), ("tcp", true)]
        {
            assert_eq!(table.may_transfer(peer, Way::Clear), in_clear, "{peer}");
            assert!(table.may_transfer(peer, Way::Tls));
        }
    }

    #[test]
    fn a_key_is_one_peers() {
        let two = ["x", "y"].map(|name| keyed(name, None, Some(key("A.", 1)), Transport::Tcp));
        let refused = PeerTable::new(two).expect_err("shared").to_string();
        assert!(refused.contains("peers x and y have the same TSIG key a."), "{refused}");
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(Identity::from_der(b"\x30\x03abc").is_err());
    }
}
