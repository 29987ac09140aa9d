//! A zone with its signatures in place, not yet verified: nothing but `verify` takes it.

use countersign_policy::ZoneName;

use crate::packed::Packed;

/// An assembled zone.
#[derive(Debug, Clone)]
pub struct SignedZone {
    pub(crate) apex: ZoneName,
    pub(crate) serial: u32,
    pub(crate) records: Packed,
}

impl SignedZone {
    /// Takes any records for a signed zone. Anyone may: it proves nothing, and only `verify`
    /// makes more of it.
    pub fn unverified(apex: ZoneName, serial: u32, records: Packed) -> Self {
        Self { apex, serial, records }
    }

    /// The zone.
    pub fn apex(&self) -> &ZoneName {
        &self.apex
    }

    /// The serial of its SOA record.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Its records and signatures.
    pub fn records(&self) -> &Packed {
        &self.records
    }
}
