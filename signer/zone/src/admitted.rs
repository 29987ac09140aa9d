//! A zone that may be signed: what `admit` makes, and what planning and verification start from.

use std::fmt;

use countersign_policy::ZoneName;

use crate::name::Name;
use crate::packed::Packed;
use crate::rtype::Rtype;

/// A zone as its primary means it, in canonical order, without DNSSEC records of the primary's.
#[derive(Debug, Clone)]
pub struct AdmittedZone {
    pub(crate) apex: ZoneName,
    pub(crate) serial: u32,
    pub(crate) records: Packed,
    pub(crate) notes: Notes,
}

impl AdmittedZone {
    /// The zone.
    pub fn apex(&self) -> &ZoneName {
        &self.apex
    }

    /// The primary's serial.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Its records; none has RRSIGs.
    pub fn records(&self) -> &Packed {
        &self.records
    }

    /// SHA-256 over its records: equal for equal zones, whatever order they came in.
    pub fn digest(&self) -> [u8; 32] {
        self.records.digest()
    }

    /// What was put right on the way in.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }
}

/// Examples of lowered TTLs that are kept; the rest is only counted.
pub const TTL_NOTES_MAX: usize = 16;

/// What admission put right; nothing here is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Records that another record of the zone repeated.
    pub duplicates: usize,
    /// DNSSEC records and ZONEMD of the primary's that were left out.
    pub stripped: usize,
    /// RRsets whose records had unequal TTLs: all took the lowest (RFC 2181 §5.2).
    pub unequal_ttls: usize,
    /// The first of them.
    pub lowered: Vec<LoweredTtl>,
}

/// An RRset that took the lowest TTL of its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoweredTtl {
    /// Its owner.
    pub owner: Name,
    /// Its type.
    pub rtype: Rtype,
    /// The highest TTL among its records.
    pub from_s: u32,
    /// The TTL that it has now.
    pub to_s: u32,
}

impl fmt::Display for LoweredTtl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, rtype, from_s, to_s } = self;
        write!(f, "{owner} {rtype}: records had TTLs up to {from_s}; all have {to_s} now")
    }
}
