//! Values that signatures have to outlive: the TTL of every signed RRset, and SOA expire
//! (RFC 6781 §4.4). One beyond its bound refuses the zone, or goes out capped and is noted.
//!
//! In 2023 one TTL above the refresh window kept all of `ripe.net` from being signed again, until its
//! signatures had expired. Here it stops new data at the door, or does no harm.

use countersign_policy::ZoneName;

use crate::admit::{AdmissionParams, BeyondWindow};
use crate::admitted::{CappedValue, NOTES_NAMED_MAX, Notes, WindowField};
use crate::cuts::standings;
use crate::name::Name;
use crate::packed::{Builder, Packed, Rrset};
use crate::refusal::{Fault, Refusal};
use crate::rtype::Rtype;

/// A value beyond its bound.
struct Beyond<'a> {
    rrset: Rrset<'a>,
    field: WindowField,
    found_s: u32,
    max_s: u32,
}

/// The records with every value within its bound: the same pages where all are.
pub(crate) fn bring_within(
    records: &Packed,
    apex: &ZoneName,
    params: &AdmissionParams,
    notes: &mut Notes,
) -> Result<Packed, Refusal> {
    let mut beyond = values_beyond(records, apex, params);
    let Some(first) = beyond.next() else { return Ok(records.clone()) };
    if params.beyond == BeyondWindow::Refuse {
        let (found, max, others) = (first.found_s, first.max_s, beyond.count());
        let fault = match first.field {
            WindowField::Ttl => Fault::Ttl { found, max, others },
            WindowField::Expire => Fault::Expire { found, max, others },
        };
        return Err(Refusal::of(first.rrset.owner(), first.rrset.rtype(), fault));
    }
    for value in std::iter::once(first).chain(beyond) {
        notes.capped += 1;
        if let (true, Ok(owner)) =
            (notes.capped_first.len() < NOTES_NAMED_MAX, Name::from_wire(value.rrset.owner()))
        {
            let (rtype, field) = (value.rrset.rtype(), value.field);
            let (from_s, to_s) = (value.found_s, value.max_s);
            notes.capped_first.push(CappedValue { owner, rtype, field, from_s, to_s });
        }
    }
    cap(records, apex, params).map_err(|error| Refusal::whole(Fault::Packed(error)))
}

fn values_beyond<'a>(
    records: &'a Packed,
    apex: &'a ZoneName,
    params: &'a AdmissionParams,
) -> impl Iterator<Item = Beyond<'a>> {
    let signed = standings(records, apex).flat_map(|(node, standing)| {
        node.rrsets().filter(move |rrset| standing.signs(rrset.rtype()))
    });
    signed.flat_map(|rrset| {
        let soa = rrset.rdatas().next().filter(|_| rrset.rtype() == Rtype::SOA);
        let expire_s = soa.and_then(expire_s).unwrap_or(0);
        let checks = [
            (WindowField::Ttl, rrset.ttl_s(), params.ttl_max_s),
            (WindowField::Expire, expire_s, params.expire_max_s),
        ];
        checks
            .into_iter()
            .filter(|(_, found_s, max_s)| found_s > max_s)
            .map(move |(field, found_s, max_s)| Beyond { rrset, field, found_s, max_s })
    })
}

/// A new copy: where one TTL of a zone is too high, most are.
fn cap(
    records: &Packed,
    apex: &ZoneName,
    params: &AdmissionParams,
) -> Result<Packed, crate::packed::PackedError> {
    let mut builder = Builder::new();
    for (node, standing) in standings(records, apex) {
        builder.owner(node.owner())?;
        for rrset in node.rrsets() {
            let (owner, rtype) = (rrset.owner(), rrset.rtype());
            if !standing.signs(rtype) {
                builder.rrset(owner, rtype, rrset.ttl_s(), rrset.rdatas(), [])?;
                continue;
            }
            let ttl_s = rrset.ttl_s().min(params.ttl_max_s);
            if rtype == Rtype::SOA {
                let soa: Vec<Vec<u8>> =
                    rrset.rdatas().map(|rdata| with_expire_within(rdata, params)).collect();
                builder.rrset(owner, rtype, ttl_s, soa.iter().map(Vec::as_slice), [])?;
            } else {
                builder.rrset(owner, rtype, ttl_s, rrset.rdatas(), [])?;
            }
        }
    }
    builder.finish()
}

/// Expire is the fourth of the five fields that end SOA RDATA (RFC 1035 §3.3.13).
fn expire_s(soa: &[u8]) -> Option<u32> {
    let fields = soa.last_chunk::<8>()?;
    Some(u32::from_be_bytes([fields[0], fields[1], fields[2], fields[3]]))
}

fn with_expire_within(soa: &[u8], params: &AdmissionParams) -> Vec<u8> {
    let mut capped = soa.to_vec();
    if let Some(expire_s) = expire_s(soa)
        && let Some(fields) = capped.last_chunk_mut::<8>()
    {
        fields[..4].copy_from_slice(&expire_s.min(params.expire_max_s).to_be_bytes());
    }
    capped
}
