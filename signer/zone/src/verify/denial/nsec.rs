//! The NSEC chain (RFC 4034 §4, RFC 4035 §2.3): one record at each name that the zone answers for
//! or delegates, next pointers in canonical order, the last back to the apex.

use super::{check_bitmap, only_rdata};
use crate::name::Shown;
use crate::packed::{Packed, Rrset};
use crate::rtype::Rtype;
use crate::verify::failure::{Failure, Place};
use crate::verify::names;
use crate::verify::walk::Walk;

pub(super) fn check(records: &Packed, apex: &[u8], ttl_s: u32) -> Result<(), Failure> {
    // The record that was met last, and where it points.
    let mut last: Option<(Rrset<'_>, &[u8])> = None;
    for visit in Walk::of(records, apex) {
        for kind in [Rtype::NSEC3, Rtype::NSEC3PARAM] {
            if let Some(rrset) = visit.node.rrset(kind) {
                return Err(Failure::DenialKind(Place::new(rrset.owner(), kind)));
            }
        }
        let nsec = visit.node.rrset(Rtype::NSEC);
        if !visit.is_denied_for() {
            if nsec.is_some() {
                return Err(Failure::DenialExtra(Place::new(visit.owner(), Rtype::NSEC)));
            }
            continue;
        }
        let Some(nsec) = nsec else {
            let owner = visit.owner().into();
            return Err(Failure::DenialMissing { owner, kind: Rtype::NSEC });
        };
        let rdata = only_rdata(&nsec, ttl_s)?;
        let malformed = || Failure::DenialMalformed(Place::new(nsec.owner(), Rtype::NSEC));
        let end = names::end_of_name(rdata, 0).ok_or_else(malformed)?;
        let (next, bitmap) = rdata.split_at(end);
        check_bitmap(&nsec, visit.owner(), bitmap, &visit.bitmap_types())?;
        if let Some((before, points_to)) = last {
            check_next(&before, points_to, visit.owner())?;
        }
        last = Some((nsec, next));
    }
    match last {
        Some((nsec, points_to)) => check_next(&nsec, points_to, apex),
        None => Err(Failure::DenialMissing { owner: apex.into(), kind: Rtype::NSEC }),
    }
}

fn check_next(nsec: &Rrset<'_>, found: &[u8], expected: &[u8]) -> Result<(), Failure> {
    if found.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(Failure::DenialNext {
        place: Place::new(nsec.owner(), Rtype::NSEC),
        found: Shown(found).to_string(),
        expected: Shown(expected).to_string(),
    })
}
