//! CDS and CDNSKEY: exactly what was approved, at the apex and nowhere else, and nothing that would
//! cut the zone off from its parent (RFC 7344 §4.1, RFC 8078 §4).

use aws_lc_rs::digest::{Digest, SHA256, SHA384, digest};

use super::failure::{Failure, Place};
use super::keys::VerifyingKey;
use crate::packed::{Packed, Rrset};
use crate::params::ZoneParams;
use crate::rtype::Rtype;

const BOTH: [Rtype; 2] = [Rtype::CDS, Rtype::CDNSKEY];

/// The two RRsets are those of `params`, record for record, and are not there where `params` has
/// none.
pub(super) fn of_params(
    records: &Packed,
    params: &ZoneParams,
    keys: &[VerifyingKey],
) -> Result<(), Failure> {
    let apex = params.apex.as_wire();
    let node = records.node(apex);
    let approved = params.cds.as_ref();
    for rtype in BOTH {
        let expected: &[Vec<u8>] = match (approved, rtype) {
            (None, _) => &[],
            (Some(set), Rtype::CDS) => &set.cds,
            (Some(set), _) => &set.cdnskey,
        };
        match node.and_then(|node| node.rrset(rtype)) {
            None if expected.is_empty() => {}
            None => {
                let (place, missing) = (Place::new(apex, rtype), expected.len());
                return Err(Failure::WrongCds { place, missing, foreign: 0 });
            }
            Some(rrset) => {
                check_records(&rrset, expected)?;
                check_ttl(&rrset, params.policy.dnskey_ttl_s)?;
                check_continuity(&rrset, apex, keys)?;
            }
        }
    }
    Ok(())
}

fn check_records(rrset: &Rrset<'_>, expected: &[Vec<u8>]) -> Result<(), Failure> {
    let foreign = rrset.rdatas().filter(|rdata| !expected.iter().any(|one| one == rdata)).count();
    let missing = expected.iter().filter(|one| !rrset.rdatas().any(|rdata| rdata == *one)).count();
    if foreign > 0 || missing > 0 || rrset.len() != expected.len() {
        let place = Place::new(rrset.owner(), rrset.rtype());
        return Err(Failure::WrongCds { place, missing, foreign });
    }
    Ok(())
}

fn check_ttl(rrset: &Rrset<'_>, policy: u32) -> Result<(), Failure> {
    match rrset.ttl_s() {
        found if found == policy => Ok(()),
        found => {
            let place = Place::new(rrset.owner(), rrset.rtype());
            Err(Failure::WrongKeyTtl { place, found, policy })
        }
    }
}

/// A parent that makes these records its DS RRset still has one for a key that signs the DNSKEY
/// RRset; or it is asked to have none.
fn check_continuity(rrset: &Rrset<'_>, apex: &[u8], keys: &[VerifyingKey]) -> Result<(), Failure> {
    let place = || Place::new(rrset.owner(), rrset.rtype());
    let delete: &[u8] = if rrset.rtype() == Rtype::CDS { &[0; 5] } else { &[0, 0, 3, 0, 0] };
    if rrset.rdatas().any(|rdata| rdata == delete) {
        return if rrset.len() == 1 { Ok(()) } else { Err(Failure::CdsBreaks(place())) };
    }
    let leads_to = |rdata: &[u8], key: &VerifyingKey| match rrset.rtype() {
        Rtype::CDS => is_digest_of(rdata, apex, &key.dnskey),
        _ => rdata == &*key.dnskey,
    };
    let mut anchors = keys.iter().filter(|key| key.signs_dnskey);
    let anchored = anchors.any(|key| rrset.rdatas().any(|rdata| leads_to(rdata, key)));
    if anchored { Ok(()) } else { Err(Failure::CdsBreaks(place())) }
}

/// RFC 4034 §5.1.4 with the digests of RFC 4509 and RFC 6605. A key tag that is wrong leads no
/// validator to the key.
fn is_digest_of(rdata: &[u8], apex: &[u8], dnskey: &[u8]) -> bool {
    let Some((&[tag_high, tag_low, algorithm, kind], claimed)) = rdata.split_first_chunk::<4>()
    else {
        return false;
    };
    let hashed = [&apex.to_ascii_lowercase(), dnskey].concat();
    let made: Digest = match kind {
        2 => digest(&SHA256, &hashed),
        4 => digest(&SHA384, &hashed),
        _ => return false,
    };
    [tag_high, tag_low] == super::keys::tag_of(dnskey).to_be_bytes()
        && dnskey.get(3).is_some_and(|of_key| *of_key == algorithm)
        && made.as_ref() == claimed
}

/// Neither type stands anywhere but at the apex.
pub(super) fn check_places(records: &Packed, apex: &[u8]) -> Result<(), Failure> {
    let elsewhere = records.iter().filter(|node| !node.owner().eq_ignore_ascii_case(apex));
    for node in elsewhere {
        if let Some(rtype) = BOTH.into_iter().find(|rtype| node.has(*rtype)) {
            return Err(Failure::Added(Place::new(node.owner(), rtype)));
        }
    }
    Ok(())
}
