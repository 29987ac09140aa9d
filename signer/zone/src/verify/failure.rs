//! Why a zone is not let out. Each names the owner, the type and what differs.

use std::fmt;

use countersign_policy::KeyId;

use crate::name::Shown;
use crate::rtype::Rtype;

/// An RRset by its owner (as spelled in the zone) and type.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    /// The owner in wire form.
    pub owner: Box<[u8]>,
    /// The type.
    pub rtype: Rtype,
}

impl Place {
    /// The RRset of `rtype` at `owner`.
    pub fn new(owner: &[u8], rtype: Rtype) -> Self {
        Self { owner: owner.into(), rtype }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Shown(&self.owner), self.rtype)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

/// A set of types, shown by their mnemonics.
#[derive(Clone, PartialEq, Eq)]
pub struct Types(pub Vec<Rtype>);

impl fmt::Display for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, rtype) in self.0.iter().enumerate() {
            write!(f, "{}{rtype}", if i == 0 { "" } else { " " })?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Types{self}")
    }
}

/// A name, shown in presentation form.
#[derive(Clone, PartialEq, Eq)]
pub struct Owner(pub Box<[u8]>);

impl From<&[u8]> for Owner {
    fn from(wire: &[u8]) -> Self {
        Self(wire.into())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown(&self.0).fmt(f)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({self})")
    }
}

/// What is wrong with a signed zone. One is enough: nothing of the zone goes out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    // ---- The zone as a data structure.
    /// The zone was signed under another apex than the one it is verified for.
    #[error("the zone's apex is {found}, expected {expected}")]
    WrongApex {
        /// The apex of the signed zone.
        found: Owner,
        /// The apex of the parameters.
        expected: Owner,
    },
    /// An owner that is not a name, is outside the zone, or is out of canonical order.
    #[error("owner {0} is malformed, outside the zone, or out of canonical order (RFC 4034 §6.1)")]
    BadOwner(Owner),
    /// RDATA that has not the form of its type.
    #[error("{0}: RDATA has not the form of its type")]
    Malformed(Place),
    /// Two records of one canonical form.
    #[error("{0}: two records have one canonical form (RFC 4034 §6.3)")]
    DuplicateRecord(Place),

    // ---- Content: exactly what was admitted.
    /// An RRset or record of the admitted zone is gone.
    #[error("{0}: was admitted, and is missing from the signed zone")]
    Lost(Place),
    /// An RRset or record that was not admitted and is none of the signer's own.
    #[error("{0}: was not admitted, and is in the signed zone")]
    Added(Place),
    /// The owner is spelled in another case than it was admitted.
    #[error("{place}: the owner was admitted as {admitted}; its case must be kept")]
    OwnerCase {
        /// As signed.
        place: Place,
        /// As admitted.
        admitted: Owner,
    },
    /// Another TTL than admitted.
    #[error("{place}: TTL is {found}, was admitted with {admitted}")]
    TtlChanged {
        /// The RRset.
        place: Place,
        /// As signed.
        found: u32,
        /// As admitted.
        admitted: u32,
    },
    /// RDATA that differs from what was admitted.
    #[error("{0}: RDATA differs from what was admitted")]
    RdataChanged(Place),
    /// The SOA's serial is not the one that was planned.
    #[error("{place}: serial is {found}, the plan says {planned}")]
    WrongSerial {
        /// The SOA.
        place: Place,
        /// In the zone.
        found: u32,
        /// In the plan.
        planned: u32,
    },

    // ---- Keys.
    /// The DNSKEY RRset is not exactly the set of keys to be published.
    #[error(
        "{place}: is not exactly the keys to be published: {missing} missing, {foreign} foreign"
    )]
    WrongKeys {
        /// The DNSKEY RRset.
        place: Place,
        /// Keys that should be there.
        missing: usize,
        /// Keys that should not.
        foreign: usize,
    },
    /// The TTL of DNSKEY, CDS or CDNSKEY is not the policy's.
    #[error("{place}: TTL is {found}, the policy says {policy}")]
    WrongKeyTtl {
        /// The RRset.
        place: Place,
        /// In the zone.
        found: u32,
        /// In the policy.
        policy: u32,
    },
    /// A key that can't serve.
    #[error("{place}: a key can't verify anything: {problem}")]
    UnusableKey {
        /// The DNSKEY RRset.
        place: Place,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two keys that a validator, or a person, could take for one another.
    #[error("{place}: two keys share the tag {tag}, revoked forms included")]
    TagCollision {
        /// The DNSKEY RRset.
        place: Place,
        /// The tag.
        tag: u16,
    },

    // ---- What the zone says to its parent.
    /// CDS or CDNSKEY are not exactly what was approved.
    #[error(
        "{place}: is not exactly what was approved for the parent: {missing} missing, {foreign} foreign"
    )]
    WrongCds {
        /// The RRset.
        place: Place,
        /// Records that should be there.
        missing: usize,
        /// Records that should not.
        foreign: usize,
    },
    /// A parent that took the RRset would cut the zone off.
    #[error(
        "{0}: names no key that signs the DNSKEY RRset, or mixes the delete form with others: a parent that took it would make the zone bogus (RFC 7344 §4.1, RFC 8078 §4)"
    )]
    CdsBreaks(Place),

    // ---- Signatures.
    /// No RRSIG by an algorithm of the DNSKEY RRset.
    #[error(
        "{place}: no signature of algorithm {algorithm}, which is in the DNSKEY RRset (RFC 4035 §2.2)"
    )]
    Unsigned {
        /// The RRset.
        place: Place,
        /// The algorithm's number.
        algorithm: u8,
    },
    /// DNSKEY, CDS or CDNSKEY lacks a signature by one of the KSKs or CSKs.
    #[error("{place}: not signed by the key {key}")]
    NotSignedBy {
        /// The RRset.
        place: Place,
        /// The key.
        key: KeyId,
    },
    /// A signature where there must be none: glue, occluded names, delegation NS RRsets.
    #[error("{0}: signed, though it is not authoritative (RFC 4035 §2.2)")]
    SignedNotAuthoritative(Place),
    /// An RRSIG whose fields are wrong.
    #[error("{place}: RRSIG (tag {tag}): {field} is {found}, expected {expected}")]
    WrongField {
        /// The RRset.
        place: Place,
        /// The RRSIG's key tag.
        tag: u16,
        /// The field.
        field: RrsigField,
        /// What it says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// RRSIG RDATA that can't be read.
    #[error("{0}: RRSIG RDATA is malformed")]
    MalformedRrsig(Place),
    /// Made with a key that is not in the DNSKEY RRset, or not for this use.
    #[error(
        "{place}: signed with tag {tag}, algorithm {algorithm}: no such key of the zone may sign this"
    )]
    ForeignKey {
        /// The RRset.
        place: Place,
        /// The RRSIG's key tag.
        tag: u16,
        /// The RRSIG's algorithm.
        algorithm: u8,
    },
    /// Two signatures of one key over one RRset.
    #[error("{place}: two signatures with tag {tag}")]
    SignedTwice {
        /// The RRset.
        place: Place,
        /// The key tag.
        tag: u16,
    },
    /// The cryptographic check failed.
    #[error("{place}: signature by the key {key} (tag {tag}) does not verify")]
    BadSignature {
        /// The RRset.
        place: Place,
        /// The key.
        key: KeyId,
        /// Its tag.
        tag: u16,
    },
    /// Expired.
    #[error("{place}: signature (tag {tag}) expired at {expiration}, it is {now}")]
    Expired {
        /// The RRset.
        place: Place,
        /// The RRSIG's key tag.
        tag: u16,
        /// RRSIG time, seconds since 1970 modulo 2^32.
        expiration: u32,
        /// The same.
        now: u32,
    },
    /// Not yet valid.
    #[error("{place}: signature (tag {tag}) is valid from {inception}, it is {now}")]
    NotYetValid {
        /// The RRset.
        place: Place,
        /// The RRSIG's key tag.
        tag: u16,
        /// RRSIG time, seconds since 1970 modulo 2^32.
        inception: u32,
        /// The same.
        now: u32,
    },
    /// Valid for longer than the policy allows.
    #[error(
        "{place}: signature (tag {tag}) is valid for {found_s} s, the policy allows {allowed_s} s"
    )]
    ValidTooLong {
        /// The RRset.
        place: Place,
        /// The RRSIG's key tag.
        tag: u16,
        /// From inception to expiration.
        found_s: u32,
        /// By policy.
        allowed_s: u32,
    },
    /// Lasts longer than the approval of what it covers.
    #[error(
        "{place}: signature (tag {tag}) expires at {expiration}, after the approval of the RRset, which ends at {until_s}"
    )]
    ValidPast {
        /// The RRset.
        place: Place,
        /// The RRSIG's key tag.
        tag: u16,
        /// RRSIG time, seconds since 1970 modulo 2^32.
        expiration: u32,
        /// Seconds since 1970.
        until_s: u64,
    },

    // ---- The digest of the zone.
    /// The ZONEMD RRset at the apex is not what it should be.
    #[error("{place}: {problem} (RFC 8976 §4)")]
    WrongZonemd {
        /// The ZONEMD RRset.
        place: Place,
        /// What is wrong with it.
        problem: &'static str,
    },

    // ---- Denial of existence.
    /// A name without its NSEC or NSEC3 record.
    #[error("{owner} has no {kind} record")]
    DenialMissing {
        /// The name.
        owner: Owner,
        /// NSEC or NSEC3.
        kind: Rtype,
    },
    /// An NSEC or NSEC3 record for a name that must have none.
    #[error("{0}: denies for a name that the zone does not have or is not authoritative for")]
    DenialExtra(Place),
    /// A record of the other kind of denial than the policy's.
    #[error("{0}: does not belong to the policy's kind of denial")]
    DenialKind(Place),
    /// Not exactly one record in the RRset, or RDATA that can't be read.
    #[error("{0}: is not one well-formed record")]
    DenialMalformed(Place),
    /// A TTL other than RFC 9077's.
    #[error("{place}: TTL is {found}, RFC 9077 wants {expected}")]
    DenialTtl {
        /// The record.
        place: Place,
        /// In the zone.
        found: u32,
        /// min(SOA TTL, SOA minimum).
        expected: u32,
    },
    /// The type bitmap is not exactly the types at the name.
    #[error("{place} (for {owner}): bitmap says {found}, the name has {expected}")]
    DenialBitmap {
        /// The record.
        place: Place,
        /// The name that it speaks for.
        owner: Owner,
        /// What the bitmap says.
        found: Types,
        /// What it should say.
        expected: Types,
    },
    /// The next pointer leads elsewhere: the chain is broken.
    #[error("{place}: next is {found}, expected {expected}")]
    DenialNext {
        /// The record.
        place: Place,
        /// Where it points.
        found: String,
        /// Where it should point.
        expected: String,
    },
    /// Hash algorithm, flags, iterations or salt other than the policy's.
    #[error("{place}: {parameter} is {found}, expected {expected}")]
    DenialParameter {
        /// The record.
        place: Place,
        /// Which parameter.
        parameter: &'static str,
        /// In the zone.
        found: usize,
        /// By policy.
        expected: usize,
    },
    /// Two names of the zone have one hash.
    #[error("{0} and another name of the zone have one NSEC3 hash; rename one")]
    HashCollision(Owner),
}

impl Failure {
    /// Whether it is about CDS or CDNSKEY: the zone can go out without them.
    pub fn is_about_cds(&self) -> bool {
        let (Self::WrongCds { place, .. }
        | Self::CdsBreaks(place)
        | Self::NotSignedBy { place, .. }
        | Self::Unsigned { place, .. }
        | Self::WrongField { place, .. }
        | Self::MalformedRrsig(place)
        | Self::ForeignKey { place, .. }
        | Self::SignedTwice { place, .. }
        | Self::BadSignature { place, .. }
        | Self::Expired { place, .. }
        | Self::NotYetValid { place, .. }
        | Self::ValidTooLong { place, .. }
        | Self::ValidPast { place, .. }) = self
        else {
            return false;
        };
        matches!(place.rtype, Rtype::CDS | Rtype::CDNSKEY)
    }
}

/// A field of an RRSIG (RFC 4034 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RrsigField {
    /// Type Covered.
    TypeCovered,
    /// Labels.
    Labels,
    /// Original TTL.
    OriginalTtl,
    /// Signer's Name.
    Signer,
}

impl fmt::Display for RrsigField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TypeCovered => "type covered",
            Self::Labels => "labels",
            Self::OriginalTtl => "original TTL",
            Self::Signer => "signer",
        })
    }
}
