//! What a parent is told of a zone's keys: DS (RFC 4034 §5), CDS and CDNSKEY (RFC 7344), in the
//! forms in which registries take it: presentation form, JSON, and EPP's secDNS extension (RFC
//! 5910).
//!
//! Everything here is computed from public keys by whoever calls; that a quorum approved is the
//! caller's to know. SHA-1 is no choice (RFC 8624 §3.3).

use std::collections::BTreeSet;
use std::fmt;

use aws_lc_rs::digest;
use data_encoding::{BASE64, HEXUPPER};
use serde::{Deserialize, Serialize, Serializer};

use crate::algorithm::Algorithm;
use crate::key::{KeyId, KeyRole, PublicKey};
use crate::name::ZoneName;

/// RDATA of the CDS that asks for the DS RRset's removal, `0 0 0 00` (RFC 8078 §4).
pub const CDS_DELETE: [u8; 5] = [0, 0, 0, 0, 0];

/// RDATA of the CDNSKEY that asks for the same, `0 3 0 AA==`.
pub const CDNSKEY_DELETE: [u8; 5] = [0, 0, DNSKEY_PROTOCOL, 0, 0];

/// The protocol field of every DNSKEY (RFC 4034 §2.1.2).
const DNSKEY_PROTOCOL: u8 = 3;

/// EPP's DNSSEC extension (RFC 5910 §2).
const SECDNS_NAMESPACE: &str = "urn:ietf:params:xml:ns:secDNS-1.1";

/// A DS digest, by its IANA number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
#[repr(u8)]
pub enum DsDigest {
    /// SHA-256 (RFC 4509).
    Sha256 = 2,
    /// SHA-384 (RFC 6605 §2).
    Sha384 = 4,
}

/// A digest type that Countersign makes no DS with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("DS digest type {0} is not supported; use 2 (SHA-256) or 4 (SHA-384)")]
pub struct UnsupportedDigest(pub u8);

impl DsDigest {
    /// The IANA number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
        }
    }

    /// The digest of a key at a zone's apex (RFC 4034 §5.1.4): over the canonical owner name and
    /// the DNSKEY RDATA.
    fn of(self, owner: &ZoneName, dnskey_rdata: &[u8]) -> Box<[u8]> {
        let mut context = digest::Context::new(self.algorithm());
        context.update(owner.as_wire());
        context.update(dnskey_rdata);
        context.finish().as_ref().into()
    }
}

impl TryFrom<u8> for DsDigest {
    type Error = UnsupportedDigest;
    fn try_from(number: u8) -> Result<Self, UnsupportedDigest> {
        match number {
            2 => Ok(Self::Sha256),
            4 => Ok(Self::Sha384),
            other => Err(UnsupportedDigest(other)),
        }
    }
}

impl From<DsDigest> for u8 {
    fn from(digest: DsDigest) -> Self {
        digest.number()
    }
}

impl fmt::Display for DsDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
        })
    }
}

/// The data of a DS record. Its order is that of a DS RRset's presentation: by tag, algorithm,
/// digest type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "RawDs", into = "RawDs")]
pub struct Ds {
    tag: u16,
    algorithm: Algorithm,
    digest_type: DsDigest,
    digest: Box<[u8]>,
}

/// A [`Ds`] in JSON; the digest in upper-case hexadecimal, as in the presentation form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDs {
    key_tag: u16,
    algorithm: Algorithm,
    digest_type: DsDigest,
    digest: String,
}

/// A digest that has not the digest type's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the digest of a DS by {0} is {len} upper-case hexadecimal digits", len = 2 * .0.algorithm().output_len())]
pub struct DsError(pub DsDigest);

impl Ds {
    /// The DS of the key that `owner` publishes in that role.
    pub fn new(owner: &ZoneName, role: KeyRole, key: &PublicKey, digest_type: DsDigest) -> Self {
        Self {
            tag: key.tag(role.flags()),
            algorithm: key.algorithm(),
            digest_type,
            digest: digest_type.of(owner, &key.dnskey_rdata(role.flags())),
        }
    }

    /// The key's tag.
    pub fn tag(&self) -> u16 {
        self.tag
    }

    /// The key's algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What the digest was made with.
    pub fn digest_type(&self) -> DsDigest {
        self.digest_type
    }

    /// The digest.
    pub fn digest(&self) -> &[u8] {
        &self.digest
    }

    /// DS RDATA (RFC 4034 §5.1), which is CDS RDATA too (RFC 7344 §3.1): tag, algorithm, digest
    /// type, digest.
    pub fn rdata(&self) -> Vec<u8> {
        let mut rdata = self.tag.to_be_bytes().to_vec();
        rdata.extend([self.algorithm.number(), self.digest_type.number()]);
        rdata.extend_from_slice(&self.digest);
        rdata
    }

    /// The record of `owner` in presentation form, without TTL and newline.
    pub fn presentation(&self, owner: &ZoneName) -> String {
        format!("{owner} IN DS {self}")
    }
}

/// The RDATA in presentation form (RFC 4034 §5.3).
impl fmt::Display for Ds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (algorithm, digest_type) = (self.algorithm.number(), self.digest_type.number());
        write!(f, "{} {algorithm} {digest_type} {}", self.tag, HEXUPPER.encode(&self.digest))
    }
}

impl TryFrom<RawDs> for Ds {
    type Error = DsError;
    fn try_from(raw: RawDs) -> Result<Self, DsError> {
        let RawDs { key_tag: tag, algorithm, digest_type, digest } = raw;
        let digest = HEXUPPER
            .decode(digest.as_bytes())
            .ok()
            .filter(|digest| digest.len() == digest_type.algorithm().output_len())
            .ok_or(DsError(digest_type))?
            .into_boxed_slice();
        Ok(Self { tag, algorithm, digest_type, digest })
    }
}

impl From<Ds> for RawDs {
    fn from(ds: Ds) -> Self {
        Self {
            key_tag: ds.tag,
            algorithm: ds.algorithm,
            digest_type: ds.digest_type,
            digest: HEXUPPER.encode(&ds.digest),
        }
    }
}

/// All that a parent is to hold for a zone: its keys, and their DS by each digest. Never empty;
/// no DS at all is [`CDS_DELETE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Delegation {
    zone: ZoneName,
    keys: Vec<DelegatedKey>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct DelegatedKey {
    role: KeyRole,
    public: PublicKey,
    ds: Vec<Ds>,
}

/// What a parent can't be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DelegationError {
    /// No key: the parent would hold nothing.
    #[error("no key is given for the parent; to end the chain of trust use the delete form")]
    NoKeys,
    /// No digest.
    #[error("no DS digest type is given; use 2 (SHA-256), 4 (SHA-384) or both")]
    NoDigests,
    /// A key that does not sign the DNSKEY RRset: a DS of it would make the zone bogus.
    #[error("key {0} is a ZSK; a DS names a KSK or a CSK")]
    Zsk(KeyId),
}

/// Which of EPP's two interfaces a registry offers; a command uses one (RFC 5910 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EppForm {
    /// The DS data interface.
    DsData,
    /// The key data interface: the registry makes the DS.
    KeyData,
}

impl Delegation {
    /// The keys that `zone` publishes, each in its role, and the digests of them.
    pub fn new(
        zone: ZoneName,
        keys: impl IntoIterator<Item = (KeyRole, PublicKey)>,
        digests: &BTreeSet<DsDigest>,
    ) -> Result<Self, DelegationError> {
        if digests.is_empty() {
            return Err(DelegationError::NoDigests);
        }
        let mut delegated = Vec::new();
        for (role, public) in keys {
            if !role.signs_dnskey() {
                return Err(DelegationError::Zsk(public.id()));
            }
            let ds = digests.iter().map(|digest| Ds::new(&zone, role, &public, *digest)).collect();
            delegated.push(DelegatedKey { role, public, ds });
        }
        if delegated.is_empty() {
            return Err(DelegationError::NoKeys);
        }
        delegated.sort_by(|a, b| a.ds.cmp(&b.ds));
        // A KSK and a CSK are published alike: one key in both roles is one.
        delegated.dedup_by(|a, b| a.ds == b.ds);
        Ok(Self { zone, keys: delegated })
    }

    /// The zone.
    pub fn zone(&self) -> &ZoneName {
        &self.zone
    }

    /// The DS records, in order.
    pub fn ds(&self) -> impl Iterator<Item = &Ds> {
        self.keys.iter().flat_map(|key| &key.ds)
    }

    /// The DS records in presentation form, a line each.
    pub fn presentation(&self) -> String {
        self.ds().map(|ds| ds.presentation(&self.zone) + "\n").collect()
    }

    /// RDATA of the CDS RRset (RFC 7344 §3.1), in canonical order.
    pub fn cds_rdata(&self) -> BTreeSet<Vec<u8>> {
        self.ds().map(Ds::rdata).collect()
    }

    /// RDATA of the CDNSKEY RRset (RFC 7344 §3.2), which is that of the DNSKEYs; in canonical
    /// order.
    pub fn cdnskey_rdata(&self) -> BTreeSet<Vec<u8>> {
        self.keys.iter().map(|key| key.public.dnskey_rdata(key.role.flags())).collect()
    }

    /// The extension of an EPP `<update>` after which the registry holds this and nothing else
    /// (RFC 5910 §5.2.5).
    pub fn epp_replace(&self, form: EppForm) -> String {
        SecDns::element("update", |xml| {
            xml.parent("rem", |xml| xml.leaf("all", true));
            xml.parent("add", |xml| self.write_epp(xml, form));
        })
    }

    fn write_epp(&self, xml: &mut SecDns, form: EppForm) {
        for key in &self.keys {
            if form == EppForm::KeyData {
                key.write_epp(xml);
                continue;
            }
            for ds in &key.ds {
                xml.parent("dsData", |xml| {
                    xml.leaf("keyTag", ds.tag);
                    xml.leaf("alg", ds.algorithm.number());
                    xml.leaf("digestType", ds.digest_type.number());
                    xml.leaf("digest", HEXUPPER.encode(&ds.digest));
                });
            }
        }
    }
}

impl DelegatedKey {
    fn write_epp(&self, xml: &mut SecDns) {
        xml.parent("keyData", |xml| {
            xml.leaf("flags", self.role.flags());
            xml.leaf("protocol", DNSKEY_PROTOCOL);
            xml.leaf("alg", self.public.algorithm().number());
            xml.leaf("pubKey", BASE64.encode(self.public.bytes()));
        });
    }
}

/// The fields of the DNSKEY under their RFC's names, the key in base64 as in its presentation
/// form.
impl Serialize for DelegatedKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Json<'a> {
            key: KeyId,
            flags: u16,
            protocol: u8,
            algorithm: Algorithm,
            public_key: String,
            ds: &'a [Ds],
        }
        Json {
            key: self.public.id(),
            flags: self.role.flags(),
            protocol: DNSKEY_PROTOCOL,
            algorithm: self.public.algorithm(),
            public_key: BASE64.encode(self.public.bytes()),
            ds: &self.ds,
        }
        .serialize(serializer)
    }
}

/// Writes elements of the secDNS namespace, indented. Their content is numbers, `true`,
/// hexadecimal and base64: nothing that XML wants escaped.
struct SecDns {
    text: String,
    depth: usize,
}

impl SecDns {
    /// A whole fragment: one element that declares the namespace. It ends with a newline.
    fn element(name: &str, content: impl FnOnce(&mut Self)) -> String {
        let mut xml = Self { text: String::new(), depth: 0 };
        xml.tagged(name, &format!(" xmlns:secDNS=\"{SECDNS_NAMESPACE}\""), content);
        xml.text
    }

    fn parent(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        self.tagged(name, "", content);
    }

    fn tagged(&mut self, name: &str, attributes: &str, content: impl FnOnce(&mut Self)) {
        self.line(&format!("<secDNS:{name}{attributes}>"));
        self.depth += 1;
        content(self);
        self.depth -= 1;
        self.line(&format!("</secDNS:{name}>"));
    }

    fn leaf(&mut self, name: &str, value: impl fmt::Display) {
        self.line(&format!("<secDNS:{name}>{value}</secDNS:{name}>"));
    }

    fn line(&mut self, text: &str) {
        self.text.extend(std::iter::repeat_n("  ", self.depth));
        self.text.push_str(text);
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests;
