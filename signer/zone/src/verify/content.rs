//! Content: the signed zone holds exactly what was admitted, octet for octet and in the owner's
//! own case, but for the SOA's serial and the records that a signer makes.

use std::cmp::Ordering;

use super::failure::{Failure, Place};
use super::names;
use crate::packed::{Node, Packed, Rrset};
use crate::rtype::Rtype;

/// What the content of a signed zone is compared with.
pub(super) struct Expected<'a> {
    pub(super) admitted: &'a Packed,
    pub(super) apex: &'a [u8],
    pub(super) serial: u32,
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
    for node in signed {
        // Whatever was admitted and sorts before this owner has been lost.
        let order = admitted.peek().map(|next| names::compare(next.owner(), node.owner()));
        let counterpart = match order {
            Some(Ordering::Less) => break,
            Some(Ordering::Equal) => admitted.next(),
            Some(Ordering::Greater) | None => None,
        };
        check_node(&node, counterpart.as_ref(), expected)?;
    }
    admitted.peek().map_or(Ok(()), |next| Err(lost(next)))
}

fn lost(node: &Node<'_>) -> Failure {
    // A node always has an RRset; ANY stands for the impossible.
    let rtype = node.rrsets().next().map_or(Rtype::ANY, |rrset| rrset.rtype());
    Failure::Lost(Place::new(node.owner(), rtype))
}

fn check_node(
    signed: &Node<'_>,
    admitted: Option<&Node<'_>>,
    expected: &Expected<'_>,
) -> Result<(), Failure> {
    let at_apex = signed.owner().eq_ignore_ascii_case(expected.apex);
    let mut ours =
        signed.rrsets().filter(|rrset| !is_made_by_signer(rrset.rtype(), at_apex)).peekable();
    for theirs in admitted.iter().flat_map(|node| node.rrsets()) {
        let place = Place::new(theirs.owner(), theirs.rtype());
        match ours.next() {
            Some(own) if own.rtype() == theirs.rtype() => check_rrset(&own, &theirs, expected)?,
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
fn is_made_by_signer(rtype: Rtype, at_apex: bool) -> bool {
    match rtype {
        Rtype::NSEC | Rtype::NSEC3 => true,
        Rtype::DNSKEY | Rtype::NSEC3PARAM | Rtype::CDS | Rtype::CDNSKEY => at_apex,
        _ => false,
    }
}

fn check_rrset(
    signed: &Rrset<'_>,
    admitted: &Rrset<'_>,
    expected: &Expected<'_>,
) -> Result<(), Failure> {
    let place = || Place::new(signed.owner(), signed.rtype());
    if signed.owner() != admitted.owner() {
        return Err(Failure::OwnerCase { place: place(), admitted: admitted.owner().into() });
    }
    if signed.ttl_s() != admitted.ttl_s() {
        let (found, admitted) = (signed.ttl_s(), admitted.ttl_s());
        return Err(Failure::TtlChanged { place: place(), found, admitted });
    }
    if signed.rtype() == Rtype::SOA {
        return check_soa(signed, admitted, expected.serial);
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

fn check_soa(signed: &Rrset<'_>, admitted: &Rrset<'_>, planned: u32) -> Result<(), Failure> {
    let place = Place::new(signed.owner(), signed.rtype());
    let mut ours = signed.rdatas().map(split_soa);
    let theirs = admitted.rdatas().next().and_then(split_soa);
    let (Some(Some((names, found, timers))), Some(theirs)) = (ours.next(), theirs) else {
        return Err(Failure::Malformed(place));
    };
    if ours.next().is_some() {
        return Err(Failure::Added(place));
    }
    if (names, timers) != (theirs.0, theirs.2) {
        return Err(Failure::RdataChanged(place));
    }
    if found != planned {
        return Err(Failure::WrongSerial { place, found, planned });
    }
    Ok(())
}
