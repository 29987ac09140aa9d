//! Records as they arrive, in any order, kept as octets within the zone's bounds.
//! What can be judged one record at a time is judged here, so that a hostile transfer is dropped
//! at its first bad record; what needs the whole zone is judged by `admit`.

use countersign_policy::ZoneName;

use crate::name;
use crate::rdata;
use crate::refusal::{Fault, Refusal};
use crate::rtype::Rtype;

/// Class IN (RFC 1035 §3.2.4).
pub const CLASS_IN: u16 = 1;

/// How large a zone may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Records received.
    pub records_max: usize,
    /// Octets of owners and RDATA received.
    pub bytes_max: usize,
}

/// Takes in the records of one zone.
#[derive(Debug)]
pub struct Receiver {
    apex: ZoneName,
    bounds: Bounds,
    /// Octets that the bound counts.
    counted: usize,
    arena: Arena,
}

/// Received records, back to back.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    bytes: Vec<u8>,
    owners: Vec<Owner>,
    records: Vec<Record>,
}

/// Where an owner's sort key and wire form lie; records that arrive together share it.
#[derive(Debug, Clone, Copy)]
struct Owner {
    key: usize,
    key_len: u16,
    wire_len: u8,
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    owner: u32,
    pub(crate) rtype: Rtype,
    rdata_len: u16,
    pub(crate) ttl_s: u32,
    rdata: usize,
}

impl Receiver {
    /// Begins the zone `apex`.
    pub fn new(apex: ZoneName, bounds: Bounds) -> Self {
        Self { apex, bounds, counted: 0, arena: Arena::default() }
    }

    /// Takes one record: owner and RDATA uncompressed.
    pub fn push(
        &mut self,
        owner: &[u8],
        rtype: u16,
        class: u16,
        ttl_s: u32,
        rdata: &[u8],
    ) -> Result<(), Refusal> {
        let rtype = Rtype(rtype);
        let refuse = |fault| Err(Refusal::of(owner, rtype, fault));
        if name::check_wire(owner).is_err() {
            return refuse(Fault::OwnerNotAName);
        }
        if class != CLASS_IN {
            return refuse(Fault::Class(class));
        }
        if rtype.is_meta() {
            return refuse(Fault::MetaType);
        }
        if !self.apex.contains_wire(owner) {
            return refuse(Fault::OutsideZone(self.apex.to_string()));
        }
        if let Err(error) = rdata::check(rtype, rdata) {
            return refuse(Fault::Rdata(error));
        }
        if self.arena.records.len() >= self.bounds.records_max {
            return refuse(Fault::TooManyRecords(self.bounds.records_max));
        }
        self.counted = self.counted.saturating_add(owner.len() + rdata.len());
        if self.counted > self.bounds.bytes_max {
            return refuse(Fault::TooManyBytes(self.bounds.bytes_max));
        }
        self.arena
            .push(owner, rtype, ttl_s, rdata)
            .map_err(|fault| Refusal::of(owner, rtype, fault))
    }

    /// Ends the transfer.
    pub fn finish(self) -> Result<ReceivedZone, Refusal> {
        if self.arena.records.is_empty() {
            return Err(Refusal::whole(Fault::NoSoa(self.apex.to_string())));
        }
        Ok(ReceivedZone { apex: self.apex, arena: self.arena })
    }
}

impl Arena {
    fn push(&mut self, owner: &[u8], rtype: Rtype, ttl_s: u32, rdata: &[u8]) -> Result<(), Fault> {
        if self.owners.last().is_none_or(|last| self.owner_wire(last) != owner) {
            let key = self.bytes.len();
            name::push_sort_key(owner, &mut self.bytes);
            let key_len = (self.bytes.len() - key) as u16; // at most twice a name
            self.bytes.extend_from_slice(owner);
            self.owners.push(Owner { key, key_len, wire_len: owner.len() as u8 });
        }
        let too_many = || Fault::TooManyRecords(u32::MAX as usize);
        let owner = u32::try_from(self.owners.len() - 1).map_err(|_| too_many())?;
        let rdata_len = u16::try_from(rdata.len())
            .map_err(|_| Fault::Rdata(rdata::RdataError::TooLong(rdata.len())))?;
        let at = self.bytes.len();
        self.bytes.extend_from_slice(rdata);
        self.records.push(Record { owner, rtype, rdata_len, ttl_s, rdata: at });
        Ok(())
    }

    fn owner_wire(&self, owner: &Owner) -> &[u8] {
        let start = owner.key + usize::from(owner.key_len);
        &self.bytes[start..start + usize::from(owner.wire_len)]
    }

    pub(crate) fn owner(&self, record: &Record) -> &[u8] {
        self.owner_wire(&self.owners[record.owner as usize])
    }

    pub(crate) fn key(&self, record: &Record) -> &[u8] {
        let owner = self.owners[record.owner as usize];
        &self.bytes[owner.key..owner.key + usize::from(owner.key_len)]
    }

    pub(crate) fn rdata(&self, record: &Record) -> &[u8] {
        &self.bytes[record.rdata..record.rdata + usize::from(record.rdata_len)]
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(crate) fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }
}

/// One record as it came, in class IN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceivedRecord<'a> {
    /// Its owner in wire form.
    pub owner: &'a [u8],
    /// Its type.
    pub rtype: Rtype,
    /// Its TTL.
    pub ttl_s: u32,
    /// Its data in wire form, names uncompressed.
    pub rdata: &'a [u8],
}

/// A whole zone as the primary sent it, its records shaped as their types demand; not yet judged
/// as a zone.
#[derive(Debug)]
pub struct ReceivedZone {
    pub(crate) apex: ZoneName,
    pub(crate) arena: Arena,
}

impl ReceivedZone {
    /// The zone.
    pub fn apex(&self) -> &ZoneName {
        &self.apex
    }

    /// How many records arrived.
    pub fn records(&self) -> usize {
        self.arena.records.len()
    }

    /// Its records, in the order of their arrival.
    pub fn iter(&self) -> impl Iterator<Item = ReceivedRecord<'_>> {
        self.arena.records.iter().map(|record| ReceivedRecord {
            owner: self.arena.owner(record),
            rtype: record.rtype,
            ttl_s: record.ttl_s,
            rdata: self.arena.rdata(record),
        })
    }

    /// RDATA of the first SOA record at the apex, if there is one; admission sees to it that there
    /// is no other.
    pub fn soa(&self) -> Option<&[u8]> {
        let record = self.arena.records.iter().find(|record| {
            record.rtype == Rtype::SOA
                && self.arena.owner(record).eq_ignore_ascii_case(self.apex.as_wire())
        });
        record.map(|record| self.arena.rdata(record))
    }
}
