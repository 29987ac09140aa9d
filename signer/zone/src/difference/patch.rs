//! Applying received differences to a base (RFC 1995 §4), so that what comes out is what an AXFR of
//! the same serial would have brought, or nothing.
//!
//! Only what the differences touch is taken out of the base; the rest is read once, at the end.
//! Whatever does not fit is a [`Mismatch`], and the whole is dropped: a record that is to go and is
//! not there, one that is to come and is there, an RRset that would be left with two TTLs or with two
//! spellings of its owner. The last two are for safety: a name server keeps one of each, and a
//! difference does not say which.

use std::collections::{BTreeMap, BTreeSet};

use countersign_policy::ZoneName;

use crate::admit::IncomingDnssec;
use crate::admitted::AdmittedZone;
use crate::name;
use crate::packed::{Node, Packed, Rrset};
use crate::rdata;
use crate::receive::{Bounds, CLASS_IN, ReceivedZone, Receiver};
use crate::refusal::{Fault, Refusal};
use crate::rtype::Rtype;
use crate::verify::VerifiedZone;

/// Differences of more than twice the base's octets are no saving, and what they touch takes more room
/// in memory than a zone that comes whole; but below so many nobody cares.
const OCTETS_WORTHWHILE: usize = 1 << 20;

/// Why differences can't be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// A record is to go that is not there.
    #[error("{0}: the difference deletes a record that is not there")]
    NotThere(String),
    /// A record is to come that is there.
    #[error("{0}: the difference adds a record that is there")]
    AlreadyThere(String),
    /// Its RRset has another TTL.
    #[error("{place}: the difference deletes a record with TTL {found}; here it has {expected}")]
    WrongTtl {
        /// Owner and type.
        place: String,
        /// TTL in the difference.
        found: u32,
        /// TTL here.
        expected: u32,
    },
    /// A difference sequence would leave an RRset with several TTLs.
    #[error("{0}: the difference leaves the RRset with unequal TTLs")]
    UnequalTtls(String),
    /// A record is to join an RRset whose owner is spelled in another case.
    #[error("{0}: the difference adds to an RRset that spells its owner in another case")]
    Spelling(String),
    /// More records than a transfer may bring.
    #[error("more than {0} records of differences")]
    TooManyRecords(usize),
    /// More octets than a transfer may bring, or than differences are worth.
    #[error("more than {0} octets of differences")]
    TooManyBytes(usize),
    /// A record that no zone may have, or a zone beyond its bounds.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// The primary's data as it is here: what differences are applied to.
#[derive(Debug, Clone)]
pub struct Base {
    apex: ZoneName,
    serial: u32,
    records: Packed,
    /// The records are those of a signed version: ours among them are not the primary's.
    signed: bool,
}

impl Base {
    /// The primary's data out of a version that was made of it. It must be exactly what the
    /// primary sent, but for records that are left out on the way in.
    pub fn of_version(version: &VerifiedZone, incoming_serial: u32) -> Self {
        Self {
            apex: version.apex().clone(),
            serial: incoming_serial,
            records: version.records().clone(),
            signed: true,
        }
    }

    /// Data that was admitted and not yet signed, under the same condition.
    pub fn of_admitted(zone: &AdmittedZone) -> Self {
        Self {
            apex: zone.apex().clone(),
            serial: zone.serial(),
            records: zone.records().clone(),
            signed: false,
        }
    }

    /// The zone.
    pub fn apex(&self) -> &ZoneName {
        &self.apex
    }

    /// The primary's serial.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// RDATA of its SOA, under the primary's serial.
    pub fn soa(&self) -> Option<Vec<u8>> {
        let soa = self.records.node(self.apex.as_wire())?.rrset(Rtype::SOA)?;
        Some(self.rdata(Rtype::SOA, soa.rdatas().next()?))
    }

    /// The primary's RRsets of an owner.
    fn rrsets<'a>(&self, node: &Node<'a>) -> impl Iterator<Item = Rrset<'a>> + use<'a> {
        let signed = self.signed;
        let at_apex = name::equal(node.owner(), self.apex.as_wire());
        node.rrsets().filter(move |rrset| !signed || !is_ours(rrset.rtype(), at_apex))
    }

    fn rdata(&self, rtype: Rtype, rdata: &[u8]) -> Vec<u8> {
        let mut rdata = rdata.to_vec();
        // The serial is the first of the five numbers that end it (RFC 1035 §3.3.13).
        if rtype == Rtype::SOA
            && let Some(at) = rdata.len().checked_sub(20)
        {
            rdata[at..at + 4].copy_from_slice(&self.serial.to_be_bytes());
        }
        rdata
    }

    fn rrset(&self, key: &[u8], rtype: Rtype) -> Edited {
        let found = self.records.node_by_key(key);
        let found = found.and_then(|node| self.rrsets(&node).find(|r| r.rtype() == rtype));
        let Some(rrset) = found else { return Edited::default() };
        let mut edited = Edited { owner: rrset.owner().to_vec(), ..Edited::default() };
        for rdata in rrset.rdatas() {
            let rdata = self.rdata(rtype, rdata);
            let canonical = rdata::canonical(rtype, &rdata).into_owned();
            edited.records.insert(canonical, (rrset.ttl_s(), rdata));
        }
        edited
    }
}

/// What a signed version has that its primary has not sent.
fn is_ours(rtype: Rtype, at_apex: bool) -> bool {
    rtype.is_signers_own() || rtype.speaks_to_parent() || (at_apex && rtype == Rtype::ZONEMD)
}

/// An RRset that differences have touched; it may have become empty.
#[derive(Debug, Default)]
struct Edited {
    /// As it is spelled.
    owner: Vec<u8>,
    /// By canonical RDATA: TTL, and RDATA as it came.
    records: BTreeMap<Vec<u8>, (u32, Vec<u8>)>,
}

/// A base, and the differences on the way into it.
#[derive(Debug)]
pub struct Patch {
    base: Base,
    bounds: Bounds,
    octets_max: usize,
    /// By sort key, then type.
    edited: BTreeMap<Vec<u8>, BTreeMap<Rtype, Edited>>,
    /// What the sequence that is under way has touched.
    touched: BTreeSet<(Vec<u8>, Rtype)>,
    records: usize,
    octets: usize,
}

impl Patch {
    /// Nothing applied yet. `bounds` hold for the differences and for what they make, each.
    pub fn new(base: Base, bounds: Bounds) -> Self {
        let worthwhile = base.records.counts().bytes.saturating_mul(2).max(OCTETS_WORTHWHILE);
        Self {
            base,
            bounds,
            octets_max: bounds.bytes_max.min(worthwhile),
            edited: BTreeMap::new(),
            touched: BTreeSet::new(),
            records: 0,
            octets: 0,
        }
    }

    /// TTL and RDATA of the SOA that it has come to; `None` while it has not exactly one.
    pub fn soa(&self) -> Option<(u32, Vec<u8>)> {
        let apex = self.base.apex.as_wire();
        let edited = self.edited.get(&name::sort_key(apex)).and_then(|r| r.get(&Rtype::SOA));
        let Some(edited) = edited else {
            let soa = self.base.records.node(apex)?.rrset(Rtype::SOA)?;
            return Some((soa.ttl_s(), self.base.soa()?));
        };
        let mut records = edited.records.values().cloned();
        records.next().filter(|_| records.next().is_none())
    }

    /// Records taken so far.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Counts a record that is not applied (one of the kinds that are left out on the way in).
    pub fn pass_over(&mut self, owner: &[u8], rdata: &[u8]) -> Result<(), Mismatch> {
        self.records += 1;
        self.octets = self.octets.saturating_add(owner.len() + rdata.len());
        if self.records > self.bounds.records_max {
            return Err(Mismatch::TooManyRecords(self.bounds.records_max));
        }
        if self.octets > self.octets_max {
            return Err(Mismatch::TooManyBytes(self.octets_max));
        }
        Ok(())
    }

    /// Takes a record away: owner and RDATA uncompressed.
    pub fn remove(
        &mut self,
        owner: &[u8],
        rtype: u16,
        class: u16,
        ttl_s: u32,
        rdata: &[u8],
    ) -> Result<(), Mismatch> {
        self.pass_over(owner, rdata)?;
        let rtype = Rtype(rtype);
        self.judge(owner, rtype, class)?;
        let edited = self.rrset(owner, rtype);
        let canonical = rdata::canonical(rtype, rdata);
        match edited.records.get(canonical.as_ref()) {
            None => Err(Mismatch::NotThere(place(owner, rtype))),
            Some((expected, _)) if *expected != ttl_s => Err(Mismatch::WrongTtl {
                place: place(owner, rtype),
                found: ttl_s,
                expected: *expected,
            }),
            Some(_) => {
                edited.records.remove(canonical.as_ref());
                Ok(())
            }
        }
    }

    /// Puts a record in.
    pub fn add(
        &mut self,
        owner: &[u8],
        rtype: u16,
        class: u16,
        ttl_s: u32,
        rdata: &[u8],
    ) -> Result<(), Mismatch> {
        self.pass_over(owner, rdata)?;
        let rtype = Rtype(rtype);
        self.judge(owner, rtype, class)?;
        if let Err(error) = rdata::check(rtype, rdata) {
            return Err(Refusal::of(owner, rtype, Fault::Rdata(error)).into());
        }
        let edited = self.rrset(owner, rtype);
        if edited.records.is_empty() {
            edited.owner = owner.to_vec();
        } else if edited.owner != owner {
            return Err(Mismatch::Spelling(place(owner, rtype)));
        }
        let canonical = rdata::canonical(rtype, rdata).into_owned();
        match edited.records.insert(canonical, (ttl_s, rdata.to_vec())) {
            None => Ok(()),
            Some(_) => Err(Mismatch::AlreadyThere(place(owner, rtype))),
        }
    }

    /// A difference sequence is whole: what it touched must be RRsets now.
    pub fn end_sequence(&mut self) -> Result<(), Mismatch> {
        for (key, rtype) in std::mem::take(&mut self.touched) {
            let edited = self.edited.get(&key).and_then(|rrsets| rrsets.get(&rtype));
            let Some(edited) = edited else { continue };
            let mut ttls = edited.records.values().map(|(ttl_s, _)| *ttl_s);
            let first = ttls.next();
            if ttls.any(|ttl_s| Some(ttl_s) != first) {
                return Err(Mismatch::UnequalTtls(place(&edited.owner, rtype)));
            }
        }
        Ok(())
    }

    /// The base with all differences applied. Reads the whole base: not a matter of microseconds.
    pub fn finish(mut self) -> Result<ReceivedZone, Mismatch> {
        self.end_sequence()?;
        let Self { base, bounds, edited, .. } = self;
        let mut receiver = Receiver::new(base.apex.clone(), bounds);
        let mut edited = edited.into_iter().peekable();
        for node in &base.records {
            while let Some((_, rrsets)) = edited.next_if(|(key, _)| key.as_slice() < node.key()) {
                push_edited(&mut receiver, &rrsets)?;
            }
            let here = edited.next_if(|(key, _)| key.as_slice() == node.key());
            let mut here = here.map(|(_, rrsets)| rrsets).unwrap_or_default();
            for rrset in base.rrsets(&node) {
                let later = here.split_off(&rrset.rtype());
                push_edited(&mut receiver, &std::mem::replace(&mut here, later))?;
                match here.remove(&rrset.rtype()) {
                    Some(edited) => push_rrset(&mut receiver, rrset.rtype(), &edited)?,
                    None => {
                        for rdata in rrset.rdatas() {
                            let rtype = rrset.rtype();
                            let rdata = base.rdata(rtype, rdata);
                            receiver.push(
                                rrset.owner(),
                                rtype.0,
                                CLASS_IN,
                                rrset.ttl_s(),
                                &rdata,
                            )?;
                        }
                    }
                }
            }
            push_edited(&mut receiver, &here)?;
        }
        for (_, rrsets) in edited {
            push_edited(&mut receiver, &rrsets)?;
        }
        Ok(receiver.finish()?)
    }

    /// What can be said of a record by itself.
    fn judge(&self, owner: &[u8], rtype: Rtype, class: u16) -> Result<(), Refusal> {
        let fault = if name::check_wire(owner).is_err() {
            Fault::OwnerNotAName
        } else if class != CLASS_IN {
            Fault::Class(class)
        } else if rtype.is_meta() {
            Fault::MetaType
        } else if !self.base.apex.contains_wire(owner) {
            Fault::OutsideZone(self.base.apex.to_string())
        } else {
            return Ok(());
        };
        Err(Refusal::of(owner, rtype, fault))
    }

    fn rrset(&mut self, owner: &[u8], rtype: Rtype) -> &mut Edited {
        let key = name::sort_key(owner);
        self.touched.insert((key.clone(), rtype));
        let base = &self.base;
        let rrsets = self.edited.entry(key.clone()).or_default();
        rrsets.entry(rtype).or_insert_with(|| base.rrset(&key, rtype))
    }
}

/// Whether a record of a primary's difference is of a kind that is left out on the way in, so that a
/// base never has it: what [`crate::admit()`] leaves out.
pub fn is_left_out(apex: &ZoneName, owner: &[u8], rtype: u16, dnssec: IncomingDnssec) -> bool {
    match Rtype(rtype) {
        Rtype::ZONEMD => name::equal(owner, apex.as_wire()),
        rtype => rtype.is_signers_own() && dnssec == IncomingDnssec::Strip,
    }
}

fn push_edited(receiver: &mut Receiver, rrsets: &BTreeMap<Rtype, Edited>) -> Result<(), Refusal> {
    rrsets.iter().try_for_each(|(rtype, edited)| push_rrset(receiver, *rtype, edited))
}

fn push_rrset(receiver: &mut Receiver, rtype: Rtype, edited: &Edited) -> Result<(), Refusal> {
    edited.records.values().try_for_each(|(ttl_s, rdata)| {
        receiver.push(&edited.owner, rtype.0, CLASS_IN, *ttl_s, rdata)
    })
}

fn place(owner: &[u8], rtype: Rtype) -> String {
    format!("{} {rtype}", name::Shown(owner))
}
