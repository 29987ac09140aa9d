//! Denial of existence: the chain is closed, complete, and each record says exactly what its name
//! has (RFC 4034 §4, RFC 4035 §2.3, RFC 5155 §7.1, RFC 9276, RFC 9077).

mod bitmap;
mod nsec;
mod nsec3;

use super::content::split_soa;
use super::failure::{Failure, Place};
use crate::packed::{Packed, Rrset};
use crate::rtype::Rtype;

/// The kind of denial that a zone should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Nsec,
    Nsec3 { opt_out: bool },
}

impl Kind {
    /// The kind that a signed zone shows: NSEC3 where it has parameters, and opt-out where its
    /// first NSEC3 record says so. The check then holds every record to it.
    pub(super) fn shown_by(records: &Packed, apex: &[u8]) -> Self {
        if !records.node(apex).is_some_and(|node| node.has(Rtype::NSEC3PARAM)) {
            return Self::Nsec;
        }
        let first = records.iter().find_map(|node| node.rrset(Rtype::NSEC3));
        let flags = first.and_then(|rrset| rrset.rdatas().next()?.get(1).copied());
        Self::Nsec3 { opt_out: flags == Some(nsec3::FLAG_OPT_OUT) }
    }
}

/// Checks the whole chain.
pub(super) fn check(records: &Packed, apex: &[u8], kind: Kind) -> Result<(), Failure> {
    let ttl_s = negative_ttl(records, apex)?;
    match kind {
        Kind::Nsec => nsec::check(records, apex, ttl_s),
        Kind::Nsec3 { opt_out } => nsec3::check(records, apex, ttl_s, opt_out),
    }
}

/// RFC 9077 §3: the lesser of the SOA's TTL and its last field.
fn negative_ttl(records: &Packed, apex: &[u8]) -> Result<u32, Failure> {
    let soa = records.node(apex).and_then(|node| node.rrset(Rtype::SOA));
    let minimum = soa.and_then(|soa| {
        let (_, _, timers) = split_soa(soa.rdatas().next()?)?;
        Some(u32::from_be_bytes(*timers.last_chunk()?))
    });
    match (soa, minimum) {
        (Some(soa), Some(minimum)) => Ok(soa.ttl_s().min(minimum)),
        _ => Err(Failure::Malformed(Place::new(apex, Rtype::SOA))),
    }
}

/// The one RDATA of an RRset of denial, its TTL checked.
fn only_rdata<'a>(rrset: &Rrset<'a>, ttl_s: u32) -> Result<&'a [u8], Failure> {
    let place = || Place::new(rrset.owner(), rrset.rtype());
    if rrset.ttl_s() != ttl_s {
        return Err(Failure::DenialTtl { place: place(), found: rrset.ttl_s(), expected: ttl_s });
    }
    let mut rdatas = rrset.rdatas();
    match (rdatas.next(), rdatas.next()) {
        (Some(rdata), None) => Ok(rdata),
        _ => Err(Failure::DenialMalformed(place())),
    }
}

/// Compares a record's bitmap with the types that the name has.
fn check_bitmap(
    rrset: &Rrset<'_>,
    owner: &[u8],
    found: &[u8],
    expected: &[Rtype],
) -> Result<(), Failure> {
    // The form of a bitmap is unique, so that comparing octets compares types and form.
    if found == bitmap::encode(expected) {
        return Ok(());
    }
    Err(Failure::DenialBitmap {
        place: Place::new(rrset.owner(), rrset.rtype()),
        owner: owner.into(),
        found: bitmap::decode(found),
        expected: super::failure::Types(expected.to_vec()),
    })
}
