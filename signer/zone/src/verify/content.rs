//! Content: the signed zone holds exactly what was admitted, octet for octet and in the owner's
//! own case, but for the SOA's serial, the records that a signer makes, and TTLs and SOA expire above
//! the policy's bounds, which must be at their bounds and nowhere else. What is compared is the zone as
//! it was before anything was capped: how the signing side did that is not asked.

use std::cmp::Ordering;

use super::failure::{Failure, Place};
use super::names;
use super::walk::{Visit, Walk};
use crate::packed::{Node, Packed, Rrset};
use crate::rtype::Rtype;

/// What the content of a signed zone is compared with.
pub(super) struct Expected<'a> {
    /// As the primary had it.
    pub(super) admitted: &'a Packed,
    pub(super) apex: &'a [u8],
    pub(super) serial: u32,
    /// Highest TTL of what is signed.
    pub(super) ttl_max_s: u32,
    /// Highest SOA expire.
    pub(super) expire_max_s: u32,
    /// Whether the signer makes a ZONEMD.
    pub(super) zonemd: bool,
}

/// Owners are names, inside the zone, and strictly ascend in canonical order. Everything else
/// relies on it.
pub(super) fn check_owners(records: &Packed, apex: &[u8]) -> Result<(), Failure> {
    let mut last: Option<&[u8]> = None;
    for node in records {
        let owner = node.owner();
        let ascends = last.is_none_or(|last| names::compare(last, owner) == Ordering::Less);
        if !names::is_name(owner) || !names::is_at_or_below(owner, apex) || !ascends {
            return Err(Failure::BadOwner(owner.into()));
        }
        let alike = |rrset: Rrset<'_>| rrset.owner().eq_ignore_ascii_case(owner);
        if !node.rrsets().all(alike) {
            return Err(Failure::BadOwner(owner.into()));
        }
        last = Some(owner);
    }
    Ok(())
}

/// Compares the two zones, walking both in canonical order.
pub(super) fn check(signed: &Packed, expected: &Expected<'_>) -> Result<(), Failure> {
    let mut admitted = expected.admitted.iter().peekable();
    for visit in Walk::of(signed, expected.apex) {
        let node = visit.node;
        // Whatever was admitted and sorts before this owner has been lost.
        let order = admitted.peek().map(|next| names::compare(next.owner(), node.owner()));
        let counterpart = match order {
            Some(Ordering::Less) => break,
            Some(Ordering::Equal) => admitted.next(),
            Some(Ordering::Greater) | None => None,
        };
        check_node(&visit, counterpart.as_ref(), expected)?;
    }
    admitted.peek().map_or(Ok(()), |next| Err(lost(next)))
}

fn lost(node: &Node<'_>) -> Failure {
    // A node always has an RRset; ANY stands for the impossible.
    let rtype = node.rrsets().next().map_or(Rtype::ANY, |rrset| rrset.rtype());
    Failure::Lost(Place::new(node.owner(), rtype))
}

fn check_node(
    visit: &Visit<'_>,
    admitted: Option<&Node<'_>>,
    expected: &Expected<'_>,
) -> Result<(), Failure> {
    let signed = visit.node;
    let at_apex = signed.owner().eq_ignore_ascii_case(expected.apex);
    let mut ours = signed
        .rrsets()
        .filter(|rrset| !is_made_by_signer(rrset.rtype(), at_apex, expected))
        .peekable();
    for theirs in admitted.iter().flat_map(|node| node.rrsets()) {
        let place = Place::new(theirs.owner(), theirs.rtype());
        match ours.next() {
            Some(own) if own.rtype() == theirs.rtype() => {
                let ttl_max_s =
                    if visit.signs(own.rtype()) { expected.ttl_max_s } else { u32::MAX };
                check_rrset(&own, &theirs, ttl_max_s, expected)?;
            }
            Some(own) if own.rtype() < theirs.rtype() => {
                return Err(Failure::Added(Place::new(own.owner(), own.rtype())));
            }
            _ => return Err(Failure::Lost(place)),
        }
    }
    match ours.peek() {
        Some(own) => Err(Failure::Added(Place::new(own.owner(), own.rtype()))),
        None => Ok(()),
    }
}

/// Types that stand in a signed zone without having been admitted. Other checks say where each
/// may be and what it must hold.
fn is_made_by_signer(rtype: Rtype, at_apex: bool, expected: &Expected<'_>) -> bool {
    match rtype {
        Rtype::NSEC | Rtype::NSEC3 => true,
        Rtype::DNSKEY | Rtype::NSEC3PARAM | Rtype::CDS | Rtype::CDNSKEY => at_apex,
        Rtype::ZONEMD => at_apex && expected.zonemd,
        _ => false,
    }
}

fn check_rrset(
    signed: &Rrset<'_>,
    admitted: &Rrset<'_>,
    ttl_max_s: u32,
    expected: &Expected<'_>,
) -> Result<(), Failure> {
    let place = || Place::new(signed.owner(), signed.rtype());
    if signed.owner() != admitted.owner() {
        return Err(Failure::OwnerCase { place: place(), admitted: admitted.owner().into() });
    }
    let ttl_s = admitted.ttl_s().min(ttl_max_s);
    if signed.ttl_s() != ttl_s {
        let found = signed.ttl_s();
        return Err(Failure::TtlChanged { place: place(), found, admitted: ttl_s });
    }
    if signed.rtype() == Rtype::SOA {
        return check_soa(signed, admitted, expected);
    }
    let (ours, theirs) = (signed.rdatas().count(), admitted.rdatas().count());
    match ours.cmp(&theirs) {
        Ordering::Less => Err(Failure::Lost(place())),
        Ordering::Greater => Err(Failure::Added(place())),
        Ordering::Equal if signed.rdatas().eq(admitted.rdatas()) => Ok(()),
        Ordering::Equal => Err(Failure::RdataChanged(place())),
    }
}

/// A SOA's serial: the first of the five numbers that its RDATA ends in (RFC 1035 §3.3.13).
pub(super) fn split_soa(rdata: &[u8]) -> Option<(&[u8], u32, &[u8])> {
    let (names, numbers) = rdata.split_at_checked(rdata.len().checked_sub(20)?)?;
    let (serial, timers) = numbers.split_first_chunk::<4>()?;
    Some((names, u32::from_be_bytes(*serial), timers))
}

fn check_soa(
    signed: &Rrset<'_>,
    admitted: &Rrset<'_>,
    expected: &Expected<'_>,
) -> Result<(), Failure> {
    let planned = expected.serial;
    let place = Place::new(signed.owner(), signed.rtype());
    let mut ours = signed.rdatas().map(split_soa);
    let theirs = admitted.rdatas().next().and_then(split_soa);
    let (Some(Some((names, found, timers))), Some(theirs)) = (ours.next(), theirs) else {
        return Err(Failure::Malformed(place));
    };
    if ours.next().is_some() {
        return Err(Failure::Added(place));
    }
    // Refresh, retry, expire, minimum.
    let (ours, theirs_timers) = (four(timers), four(theirs.2));
    let bounded = theirs_timers.map(|[refresh_s, retry_s, expire_s, minimum_s]| {
        [refresh_s, retry_s, expire_s.min(expected.expire_max_s), minimum_s]
    });
    if names != theirs.0 || ours.is_none() || ours != bounded {
        return Err(Failure::RdataChanged(place));
    }
    if found != planned {
        return Err(Failure::WrongSerial { place, found, planned });
    }
    Ok(())
}

/// Four 32-bit numbers.
fn four(octets: &[u8]) -> Option<[u32; 4]> {
    let (numbers, rest) = octets.as_chunks::<4>();
    let numbers: [[u8; 4]; 4] = numbers.try_into().ok()?;
    rest.is_empty().then(|| numbers.map(u32::from_be_bytes))
}
