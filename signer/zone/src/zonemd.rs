//! ZONEMD (RFC 8976): one digest over a whole zone, by the scheme SIMPLE. Ours is made with SHA-384;
//! a primary's is checked with SHA-384 or SHA-512, over the zone as it came.
//!
//! What is hashed (§3.3): every record in canonical form and order, RRSIGs included, occluded names
//! and glue too, each record once; but not the ZONEMD RRset at the apex, and not the RRSIGs that cover it.

use aws_lc_rs::digest::{self, Context};
use countersign_policy::ZoneName;

use crate::name;
use crate::packed::{Node, Packed};
use crate::rdata;
use crate::receive::{Arena, CLASS_IN, ReceivedZone, Record};
use crate::refusal::Fault;
use crate::rtype::Rtype;

/// The scheme SIMPLE (§2.2.2).
const SIMPLE: u8 = 1;
/// Octets of a SHA-384 digest.
const SHA384_OCTETS: usize = 48;

/// A hash that can be computed here (§2.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha384,
    Sha512,
}

impl Hash {
    fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Sha384),
            2 => Some(Self::Sha512),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        }
    }

    fn start(self) -> Digester {
        let algorithm = match self {
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        };
        Digester { context: Context::new(algorithm), octets: Vec::new() }
    }
}

/// RDATA for the ZONEMD of a zone whose digest is not known yet.
pub(crate) fn placeholder(serial: u32) -> Vec<u8> {
    rdata_of(serial, &[0; SHA384_OCTETS])
}

/// RDATA for the ZONEMD of a zone that is whole but for it.
pub(crate) fn rdata(records: &Packed, apex: &ZoneName, serial: u32) -> Vec<u8> {
    let mut digester = Hash::Sha384.start();
    for node in records {
        push_node(&mut digester, &node, name::equal(node.owner(), apex.as_wire()));
    }
    rdata_of(serial, digester.finish().as_ref())
}

/// Serial, scheme, hash algorithm, digest (§2.2).
fn rdata_of(serial: u32, digest: &[u8]) -> Vec<u8> {
    [&serial.to_be_bytes()[..], &[SIMPLE, 1], digest].concat()
}

/// RRsets ascend by type, their records by RDATA; RRSIGs, which are kept with what they cover, have
/// their place among the types.
fn push_node(digester: &mut Digester, node: &Node<'_>, at_apex: bool) {
    let left_out = |rtype| at_apex && rtype == Rtype::ZONEMD;
    let mut rrsigs: Vec<(Vec<u8>, u32)> = node
        .rrsets()
        .filter(|rrset| !left_out(rrset.rtype()))
        .flat_map(|rrset| rrset.rrsigs().map(move |rrsig| (rrsig, rrset.ttl_s())))
        .map(|(rrsig, ttl_s)| (rdata::canonical(Rtype::RRSIG, rrsig).into_owned(), ttl_s))
        .collect();
    rrsigs.sort();
    let mut push_rrsigs = |digester: &mut Digester| {
        for (rrsig, ttl_s) in rrsigs.drain(..) {
            digester.record(node.owner(), Rtype::RRSIG, ttl_s, &rrsig);
        }
    };
    for rrset in node.rrsets().filter(|rrset| !left_out(rrset.rtype())) {
        if rrset.rtype() > Rtype::RRSIG {
            push_rrsigs(digester);
        }
        for rdata in rrset.rdatas() {
            let canonical = rdata::canonical(rrset.rtype(), rdata);
            digester.record(node.owner(), rrset.rtype(), rrset.ttl_s(), &canonical);
        }
    }
    push_rrsigs(digester);
}

struct Digester {
    context: Context,
    octets: Vec<u8>,
}

impl Digester {
    fn record(&mut self, owner: &[u8], rtype: Rtype, ttl_s: u32, canonical: &[u8]) {
        self.octets.clear();
        self.octets.extend_from_slice(owner);
        // Length octets are at most 63, below 'A', so lower-casing the whole is safe.
        self.octets.make_ascii_lowercase();
        self.octets.extend_from_slice(&rtype.0.to_be_bytes());
        self.octets.extend_from_slice(&CLASS_IN.to_be_bytes());
        self.octets.extend_from_slice(&ttl_s.to_be_bytes());
        self.octets.extend_from_slice(&(canonical.len() as u16).to_be_bytes());
        self.octets.extend_from_slice(canonical);
        self.context.update(&self.octets);
    }

    fn finish(self) -> digest::Digest {
        self.context.finish()
    }
}

/// What the primary's own ZONEMD says of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A digest is right.
    Right,
    /// There is none of a scheme and hash that can be checked.
    Absent,
    /// There is one, and none is right; why not.
    Wrong(Fault),
}

/// Checks a zone as it came, nothing left out or put right yet, against its own ZONEMD (§4).
pub fn check_received(zone: &ReceivedZone) -> Received {
    let arena = &zone.arena;
    let at_apex = |record: &Record| name::equal(arena.owner(record), zone.apex.as_wire());
    let own: Vec<&Record> = arena
        .records()
        .iter()
        .filter(|record| record.rtype == Rtype::ZONEMD && at_apex(record))
        .collect();
    // One repeated to the octet is one record (RFC 2181 §5).
    let mut digests: Vec<Zonemd<'_>> =
        own.iter().filter_map(|record| Zonemd::supported(arena.rdata(record))).collect();
    digests.sort_unstable();
    digests.dedup();
    let Some(soa_serial) = zone.soa().and_then(crate::admit::soa_serial) else {
        return Received::Absent; // admission refuses such a zone anyway
    };
    let mut wrong = None;
    for (at, zonemd) in digests.iter().enumerate() {
        let alike = |other: &Zonemd<'_>| other.hash == zonemd.hash;
        let twice = digests.iter().enumerate().any(|(other, it)| other != at && alike(it));
        let hash = Hash::from_number(zonemd.hash).map_or("", Hash::name);
        let fault = if twice {
            Fault::ZonemdTwice { hash }
        } else if zonemd.serial != soa_serial {
            Fault::ZonemdSerial { found: zonemd.serial, expected: soa_serial }
        } else if Hash::from_number(zonemd.hash)
            .is_some_and(|hash| digest_received(zone, hash).as_ref() == zonemd.digest)
        {
            return Received::Right;
        } else {
            Fault::ZonemdDiffers { hash }
        };
        wrong.get_or_insert(fault);
    }
    wrong.map_or(Received::Absent, Received::Wrong)
}

/// A ZONEMD record that can be checked.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Zonemd<'a> {
    hash: u8,
    serial: u32,
    digest: &'a [u8],
}

impl<'a> Zonemd<'a> {
    fn supported(rdata: &'a [u8]) -> Option<Self> {
        let (head, digest) = rdata.split_first_chunk::<6>()?;
        let [a, b, c, d, scheme, hash] = *head;
        let known = scheme == SIMPLE && Hash::from_number(hash).is_some();
        known.then(|| Self { hash, serial: u32::from_be_bytes([a, b, c, d]), digest })
    }
}

fn digest_received(zone: &ReceivedZone, hash: Hash) -> digest::Digest {
    let arena = &zone.arena;
    let mut records: Vec<&Record> =
        arena.records().iter().filter(|record| !is_left_out(zone, record)).collect();
    let canonical = |record: &Record| rdata::canonical(record.rtype, arena.rdata(record));
    let place = |record: &Record| (arena.key(record), record.rtype);
    records.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| canonical(a).cmp(&canonical(b))));
    records.dedup_by(|b, a| place(a) == place(b) && canonical(a) == canonical(b));
    let mut digester = hash.start();
    for record in records {
        digester.record(arena.owner(record), record.rtype, record.ttl_s, &canonical(record));
    }
    digester.finish()
}

fn is_left_out(zone: &ReceivedZone, record: &Record) -> bool {
    let arena: &Arena = &zone.arena;
    let concerns_it = match record.rtype {
        Rtype::ZONEMD => true,
        Rtype::RRSIG => arena.rdata(record).starts_with(&Rtype::ZONEMD.0.to_be_bytes()),
        _ => false,
    };
    concerns_it && name::equal(arena.owner(record), zone.apex.as_wire())
}

#[cfg(test)]
pub(crate) mod tests;
