//! Why a zone is not taken in: the record, what is wrong with it, and what to do.

use std::fmt;

use crate::name::Name;
use crate::rtype::Rtype;

/// A zone that is refused; nothing of it is used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// Owner and type of the record that it is refused for, where one is to blame.
    pub record: Option<(Name, Rtype)>,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((owner, rtype)) = &self.record {
            write!(f, "{owner} {rtype}: ")?;
        }
        write!(f, "{}", self.fault)
    }
}

impl Refusal {
    pub(crate) fn of(owner: &[u8], rtype: Rtype, fault: Fault) -> Self {
        // An owner that is no name can't be shown; the fault says that.
        Self { record: Name::from_wire(owner).ok().map(|name| (name, rtype)), fault }
    }

    pub(crate) fn whole(fault: Fault) -> Self {
        Self { record: None, fault }
    }
}

fn and_more(others: usize) -> String {
    match others {
        0 => String::new(),
        others => format!(" (and {others} more values of the zone are beyond their bounds)"),
    }
}

/// What is wrong with a zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The owner's octets are not a name.
    #[error("an owner is not an uncompressed name of at most 255 octets; the transfer is damaged")]
    OwnerNotAName,
    /// Not class IN.
    #[error("class {0}; expected 1 (IN), the only class that is signed. Remove the record")]
    Class(u16),
    /// At neither the apex nor below it.
    #[error("lies outside the zone {0}; remove the record from the zone")]
    OutsideZone(String),
    /// A type that never stands in a zone.
    #[error("this type exists in messages only, never in a zone; remove the record")]
    MetaType,
    /// RDATA that its type does not allow.
    #[error("RDATA is malformed: {0}; correct the record")]
    Rdata(crate::rdata::RdataError),
    /// More records than the zone's bound.
    #[error("more than {0} records; raise `records_max` if the zone is meant to be so large")]
    TooManyRecords(usize),
    /// More octets than the zone's bound.
    #[error(
        "more than {0} octets of records; raise `zone_bytes_max` if the zone is meant to be so large"
    )]
    TooManyBytes(usize),
    /// No SOA.
    #[error("the zone has no SOA record at its apex {0}; the transfer is incomplete")]
    NoSoa(String),
    /// More than one SOA.
    #[error("{0} different SOA records; a zone has exactly one")]
    ManySoas(usize),
    /// SOA elsewhere.
    #[error("an SOA record below the apex; a zone has exactly one, at its apex")]
    SoaBelowApex,
    /// No NS at the apex.
    #[error("the zone has no NS record at its apex {0}; add its name servers")]
    NoApexNs(String),
    /// A CNAME and other data (RFC 1034 §3.6.2, RFC 2181 §10.1).
    #[error("a CNAME beside {0}; a name with a CNAME has no other data. Remove one of them")]
    CnameAndOther(Rtype),
    /// Several CNAMEs of one name.
    #[error("{0} CNAME records; a name has at most one (RFC 2181 §10.1)")]
    ManyCnames(usize),
    /// Several DNAMEs of one name (RFC 6672 §2.4).
    #[error("{0} DNAME records; a name has at most one (RFC 6672 §2.4)")]
    ManyDnames(usize),
    /// Data below a DNAME (RFC 6672 §2.4).
    #[error(
        "lies below the DNAME of {0}, where nothing may be (RFC 6672 §2.4). Remove one of them"
    )]
    BelowDname(String),
    /// A DS where no delegation is (RFC 4035 §2.4).
    #[error("a DS without NS at this name; a DS belongs to a delegation (RFC 4035 §2.4)")]
    DsWithoutNs,
    /// A DS of the zone itself.
    #[error("a DS at the apex; the zone's own DS belongs to its parent")]
    DsAtApex,
    /// A delegation of every name (RFC 4592 §4.2).
    #[error(
        "an NS at a wildcard, whose meaning is undefined (RFC 4592 §4.2) and which name servers refuse to load. Delegate names one by one"
    )]
    WildcardNs,
    /// A DNAME at a delegation (RFC 6672 §2.3).
    #[error("a DNAME beside NS below the apex; a delegation can't be redirected (RFC 6672 §2.3)")]
    DnameAtCut,
    /// A TTL above policy.
    #[error(
        "TTL {found} exceeds the policy's `ttl_max_s` of {max}{}; lower it at the primary, change the policy, or set `beyond_window = \"cap\"` for the zone", and_more(*others)
    )]
    Ttl {
        /// Seconds found.
        found: u32,
        /// Seconds allowed.
        max: u32,
        /// More TTLs, or an SOA expire, beyond what is allowed.
        others: usize,
    },
    /// An SOA expire that signatures need not outlive.
    #[error(
        "expire {found} exceeds the policy's `refresh_s` of {max}{}: a secondary that hears no more from here would go on serving signatures that have expired. Lower it at the primary, change the policy, or set `beyond_window = \"cap\"` for the zone", and_more(*others)
    )]
    Expire {
        /// Seconds found.
        found: u32,
        /// Seconds allowed.
        max: u32,
        /// TTLs beyond what is allowed.
        others: usize,
    },
    /// No ZONEMD that can be checked, and one is required.
    #[error(
        "the primary sent none of scheme SIMPLE with SHA-384 or SHA-512, and `incoming_zonemd` is \"require\". Have the primary make one, or set \"check\""
    )]
    ZonemdAbsent,
    /// The zone is not the one that was digested.
    #[error(
        "the {hash} digest of the zone as it came is another: it was damaged on the way, or at the primary"
    )]
    ZonemdDiffers {
        /// The hash.
        hash: &'static str,
    },
    /// A ZONEMD of another version (RFC 8976 §4).
    #[error(
        "its serial is {found}, that of the SOA {expected}: it is the digest of another version"
    )]
    ZonemdSerial {
        /// In the ZONEMD.
        found: u32,
        /// In the SOA.
        expected: u32,
    },
    /// Two digests of one kind (RFC 8976 §4).
    #[error("two records with SIMPLE and {hash}, of which neither counts (RFC 8976 §4); keep one")]
    ZonemdTwice {
        /// The hash.
        hash: &'static str,
    },
    /// More than a DNS message can carry.
    #[error("the RRset takes {found} octets in a message; at most {max} can be served or signed")]
    RrsetTooLarge {
        /// Octets found.
        found: usize,
        /// Octets allowed.
        max: usize,
    },
    /// More than the keeper takes in one piece.
    #[error(
        "signing the RRset takes {found} octets, since each record repeats its owner; at most {max} are taken. Shorten the owner or split the RRset"
    )]
    TbsTooLarge {
        /// Octets found.
        found: usize,
        /// Octets allowed.
        max: usize,
    },
    /// DNSSEC records where the setting refuses them.
    #[error(
        "the primary sent a DNSSEC record and `incoming_dnssec` is \"refuse\"; sign in one place only, or set \"strip\""
    )]
    SignedByPrimary,
    /// CDS, CDNSKEY, CSYNC.
    #[error(
        "the primary sent a record that speaks to the parent; remove it at the primary. CDS and CDNSKEY are made here, once officers approve them (`countersign propose publish-cds`)"
    )]
    SpeaksToParent,
    /// Should not happen: the pages could not be built.
    #[error(transparent)]
    Packed(#[from] crate::packed::PackedError),
}
