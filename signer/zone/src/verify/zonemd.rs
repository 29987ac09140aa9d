//! ZONEMD as a recipient of the zone checks it (RFC 8976 §4): the digest is computed anew, over every
//! record as the zone holds it.
//!
//! Where the signing side merges RRSIGs into the types as it walks, here the records of a name are
//! listed and sorted, by the verifier's own canonical form.

use aws_lc_rs::digest::{Context, SHA384};

use super::canonical::append_rdata;
use super::failure::{Failure, Place};
use crate::packed::{Node, Packed};
use crate::rtype::Rtype;

/// Scheme SIMPLE, hash SHA-384, after a serial of four octets (RFC 8976 §2.2).
const SIMPLE_SHA384: [u8; 2] = [1, 1];

/// The apex has exactly one ZONEMD record, of this serial and of this zone, where it should; and
/// otherwise none.
pub(super) fn check(
    records: &Packed,
    apex: &[u8],
    serial: u32,
    wanted: bool,
) -> Result<(), Failure> {
    let place = Place::new(apex, Rtype::ZONEMD);
    let node = records.node(apex);
    let Some(rrset) = node.and_then(|node| node.rrset(Rtype::ZONEMD)) else {
        return if wanted { Err(Failure::Lost(place)) } else { Ok(()) };
    };
    if !wanted {
        return Err(Failure::Added(place));
    }
    let mut rdatas = rrset.rdatas();
    let (Some(rdata), None) = (rdatas.next(), rdatas.next()) else {
        return Err(Failure::WrongZonemd { place, problem: "is not one record" });
    };
    let soa_ttl_s = node.and_then(|node| node.rrset(Rtype::SOA)).map(|soa| soa.ttl_s());
    let expected = [&serial.to_be_bytes()[..], &SIMPLE_SHA384].concat();
    let problem = match rdata.split_at_checked(expected.len()) {
        Some((head, _)) if head != expected => "has not the SOA's serial, SIMPLE and SHA-384",
        Some((_, digest)) if digest != digest_of(records, apex)? => "is not the digest of the zone",
        Some(_) if soa_ttl_s != Some(rrset.ttl_s()) => "has not the TTL of the SOA",
        Some(_) => return Ok(()),
        None => "is malformed",
    };
    Err(Failure::WrongZonemd { place, problem })
}

/// Whether the zone has one at all, for a zone that is up already.
pub(super) fn is_there(records: &Packed, apex: &[u8]) -> bool {
    records.node(apex).is_some_and(|node| node.has(Rtype::ZONEMD))
}

fn digest_of(records: &Packed, apex: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut context = Context::new(&SHA384);
    for node in records {
        let at_apex = node.owner().eq_ignore_ascii_case(apex);
        for Listed { rtype, rdata, ttl_s } in listed(&node, at_apex)? {
            context.update(&node.owner().to_ascii_lowercase());
            context.update(&rtype.to_be_bytes());
            context.update(&1_u16.to_be_bytes());
            context.update(&ttl_s.to_be_bytes());
            context.update(&(rdata.len() as u16).to_be_bytes());
            context.update(&rdata);
        }
    }
    Ok(context.finish().as_ref().to_vec())
}

/// A record without its owner; in the order of RFC 4034 §6.3 within a name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Listed {
    rtype: u16,
    rdata: Vec<u8>,
    ttl_s: u32,
}

/// What a name has that is digested (RFC 8976 §3.3.1).
fn listed(node: &Node<'_>, at_apex: bool) -> Result<Vec<Listed>, Failure> {
    let mut all = Vec::new();
    for rrset in node.rrsets() {
        let (covered, ttl_s) = (rrset.rtype(), rrset.ttl_s());
        if at_apex && covered == Rtype::ZONEMD {
            continue; // neither it nor what signs it
        }
        let own = rrset.rdatas().map(|rdata| (covered.0, rdata));
        for (rtype, rdata) in own.chain(rrset.rrsigs().map(|rdata| (Rtype::RRSIG.0, rdata))) {
            let mut canonical = Vec::with_capacity(rdata.len());
            append_rdata(rtype, rdata, &mut canonical)
                .ok_or_else(|| Failure::Malformed(Place::new(rrset.owner(), covered)))?;
            all.push(Listed { rtype, rdata: canonical, ttl_s });
        }
    }
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use countersign_policy::key::to_hex;

    use super::*;
    use crate::admit::admit;
    use crate::testing::{STRIP, receive};
    use crate::zonemd::tests::{A1, A2, A3, complex, multiple, simple};

    #[test]
    fn the_vectors_of_rfc_8976() {
        for (zone, expect) in [(simple(), A1), (complex(), A2), (multiple(), A3)] {
            let zone = admit(receive(&zone).expect("received"), &STRIP).expect("admitted");
            let digest = digest_of(zone.records(), b"\x07example\x00").expect("canonical");
            assert_eq!(to_hex(&digest), expect);
        }
    }
}
