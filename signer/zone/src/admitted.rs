//! A zone that may be signed: what `admit` makes, and what planning and verification start from.

use std::fmt;

use countersign_policy::ZoneName;

use crate::admit::AdmissionParams;
use crate::name::Name;
use crate::packed::Packed;
use crate::rtype::Rtype;

/// A zone as its primary means it, in canonical order, without DNSSEC records of the primary's.
#[derive(Debug, Clone)]
pub struct AdmittedZone {
    pub(crate) apex: ZoneName,
    pub(crate) serial: u32,
    pub(crate) records: Packed,
    /// The same before values beyond the window were capped: what verification starts from.
    pub(crate) uncapped: Packed,
    pub(crate) notes: Notes,
    pub(crate) params: AdmissionParams,
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

    /// Its records, values beyond the window capped; none has RRSIGs.
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

    /// What it was admitted under.
    pub fn params(&self) -> &AdmissionParams {
        &self.params
    }

    /// Whether these are the primary's records to the letter, but for those that are left out: a
    /// difference that the primary sends (RFC 1995) applies to nothing less.
    pub fn is_exact(&self) -> bool {
        let Notes { duplicates, stripped: _, unequal_ttls, mixed_case, capped, .. } = self.notes;
        (duplicates, unequal_ttls, mixed_case, capped) == (0, 0, 0, 0)
    }
}

/// Of lowered TTLs, and of capped values, so many are named; the rest is only counted.
pub const NOTES_NAMED_MAX: usize = 16;

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
    /// RRsets whose records spell their owner in different cases: the spelling that came first
    /// stands for all.
    pub mixed_case: usize,
    /// Values that signatures would not be certain to outlive, and that go out lower.
    pub capped: usize,
    /// The first of them.
    pub capped_first: Vec<CappedValue>,
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

/// A value that goes out lower than the primary has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CappedValue {
    /// The owner of its RRset.
    pub owner: Name,
    /// The type.
    pub rtype: Rtype,
    /// Which value.
    pub field: WindowField,
    /// The primary's value, in seconds.
    pub from_s: u32,
    /// What goes out.
    pub to_s: u32,
}

/// A value that signatures have to outlive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowField {
    /// The TTL of a signed RRset.
    Ttl,
    /// The expire field of the SOA.
    Expire,
}

impl fmt::Display for WindowField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ttl => "TTL",
            Self::Expire => "expire",
        })
    }
}

impl fmt::Display for CappedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, rtype, field, from_s, to_s } = self;
        write!(f, "{owner} {rtype}: {field} {from_s} goes out as {to_s}")
    }
}
