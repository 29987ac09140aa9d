//! Admission: a received zone becomes one that may be signed, or is refused with the record that
//! is to blame. Rules of RFC 1034 §3.6 and §4.2, RFC 2181 §5 and §10, RFC 4034, RFC 4035 §2,
//! RFC 6672 §2.

use countersign_policy::{SigningPolicy, ZoneName};

use crate::admitted::{AdmittedZone, LoweredTtl, NOTES_NAMED_MAX, Notes};
use crate::cuts::{Standing, standings};
use crate::name::{self, Name};
use crate::packed::{Builder, Node, Packed};
use crate::rdata;
use crate::receive::{Arena, ReceivedZone, Record};
use crate::refusal::{Fault, Refusal};
use crate::rtype::Rtype;
use crate::window;
use crate::zonemd::{self, Received};

/// What becomes of DNSSEC records that the primary sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncomingDnssec {
    /// They are left out and counted.
    Strip,
    /// The zone is refused.
    Refuse,
}

/// What becomes of a TTL, or an SOA expire, that signatures would not be certain to outlive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeyondWindow {
    /// The zone is refused.
    Refuse,
    /// It goes out with the highest value that they bear, and that is noted.
    Cap,
}

/// What the primary's own ZONEMD is for (RFC 8976 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncomingZonemd {
    /// Nothing.
    Ignore,
    /// A zone of which it is wrong is refused; one without is taken.
    Check,
    /// One without is refused too.
    Require,
}

/// The settings of admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionParams {
    /// DNSSEC records of the primary's.
    pub dnssec: IncomingDnssec,
    /// ZONEMD of the primary's, which is left out in any case.
    pub zonemd: IncomingZonemd,
    /// Highest TTL of an RRset that is to be signed.
    pub ttl_max_s: u32,
    /// Highest SOA expire.
    pub expire_max_s: u32,
    /// Values beyond those two.
    pub beyond: BeyondWindow,
}

impl AdmissionParams {
    /// Whatever is a zone, to be looked at: what a policy says of it is said elsewhere.
    pub const UNBOUNDED: Self = Self {
        dnssec: IncomingDnssec::Strip,
        zonemd: IncomingZonemd::Ignore,
        ttl_max_s: u32::MAX,
        expire_max_s: u32::MAX,
        beyond: BeyondWindow::Refuse,
    };

    /// What a policy can bear; more is refused. DNSSEC records of the primary's are left out.
    ///
    /// At least `refresh_s` is left of every signature that is out. A secondary that loses us goes on
    /// serving for as long as SOA expire says after it last heard from us, so expire may be no longer
    /// than that (RFC 6781 §4.4.1 wants expire well below the validity for the same reason). Caches
    /// do not add to it: a validator keeps nothing beyond its signature's end (RFC 4035 §5.3.3).
    /// Answers that deny are cached for the lesser of the SOA's TTL and its MINIMUM (RFC 9077 §3),
    /// which is within `ttl_max_s` where the SOA's TTL is.
    pub fn under(policy: &SigningPolicy) -> Self {
        Self {
            dnssec: IncomingDnssec::Strip,
            zonemd: IncomingZonemd::Ignore,
            ttl_max_s: policy.ttl_max_s,
            expire_max_s: policy.refresh_s,
            beyond: BeyondWindow::Refuse,
        }
    }
}

/// Octets of an RRset in one DNS message (RFC 1035 §4.2.2): a larger one can't be served.
pub const RRSET_BYTES_MAX: usize = 65_535;

/// Octets of one to-be-signed item; the keeper takes no larger one.
pub const TBS_BYTES_MAX: usize = 1 << 20;

/// RRSIG RDATA before the signature: 18 octets and a name (RFC 4034 §3.1).
const RRSIG_PREFIX_BYTES_MAX: usize = 18 + name::NAME_BYTES_MAX;

/// Judges a received zone.
pub fn admit(received: ReceivedZone, params: &AdmissionParams) -> Result<AdmittedZone, Refusal> {
    check_zonemd(&received, params.zonemd)?;
    let ReceivedZone { apex, mut arena } = received;
    let mut notes = Notes::default();
    let records = sorted(&mut arena, &apex, params.dnssec, &mut notes)?;
    let records = pack(&arena, &records, &mut notes)?;
    let serial = check_apex(&records, &apex)?;
    check_names(&records, &apex)?;
    let within = window::bring_within(&records, &apex, params, &mut notes)?;
    Ok(AdmittedZone { apex, serial, records: within, uncapped: records, notes, params: *params })
}

/// The zone as it came must be the one that its primary digested.
fn check_zonemd(received: &ReceivedZone, wanted: IncomingZonemd) -> Result<(), Refusal> {
    if wanted == IncomingZonemd::Ignore {
        return Ok(());
    }
    let apex = received.apex().as_wire();
    match zonemd::check_received(received) {
        Received::Wrong(fault) => Err(Refusal::of(apex, Rtype::ZONEMD, fault)),
        Received::Absent if wanted == IncomingZonemd::Require => {
            Err(Refusal::of(apex, Rtype::ZONEMD, Fault::ZonemdAbsent))
        }
        Received::Absent | Received::Right => Ok(()),
    }
}

/// The records that stay, by owner in canonical order, then by type.
fn sorted(
    arena: &mut Arena,
    apex: &ZoneName,
    dnssec: IncomingDnssec,
    notes: &mut Notes,
) -> Result<Vec<Record>, Refusal> {
    let mut records = arena.take_records();
    let mut refusal = None;
    records.retain(|record| {
        let owner = arena.owner(record);
        let keep = match record.rtype {
            rtype if rtype.is_signers_own() && dnssec == IncomingDnssec::Refuse => {
                Err(Fault::SignedByPrimary)
            }
            rtype if rtype.is_signers_own() => Ok(false),
            rtype if rtype.speaks_to_parent() => Err(Fault::SpeaksToParent),
            // It digests the zone as the primary had it, which is not the one that goes out.
            Rtype::ZONEMD => Ok(!name::equal(owner, apex.as_wire())),
            _ => Ok(true),
        };
        notes.stripped += usize::from(keep == Ok(false));
        keep.unwrap_or_else(|fault| {
            refusal.get_or_insert_with(|| Refusal::of(owner, record.rtype, fault));
            false
        })
    });
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    // Stable, and quick on input that is sorted already, as most transfers are.
    records.sort_by(|a, b| arena.key(a).cmp(arena.key(b)).then(a.rtype.cmp(&b.rtype)));
    Ok(records)
}

/// Groups sorted records into RRsets.
fn pack(arena: &Arena, records: &[Record], notes: &mut Notes) -> Result<Packed, Refusal> {
    let packed = |error| Refusal::whole(Fault::Packed(error));
    let mut builder = Builder::new();
    let mut rdatas: Vec<&[u8]> = Vec::new();
    for node in records.chunk_by(|a, b| arena.key(a) == arena.key(b)) {
        builder.owner(arena.owner(&node[0])).map_err(packed)?;
        for rrset in node.chunk_by(|a, b| a.rtype == b.rtype) {
            let (owner, rtype) = (arena.owner(&rrset[0]), rrset[0].rtype);
            rdatas.clear();
            rdatas.extend(rrset.iter().map(|record| arena.rdata(record)));
            canonicalise(rtype, &mut rdatas);
            notes.duplicates += rrset.len() - rdatas.len();
            notes.mixed_case +=
                usize::from(rrset.iter().any(|record| arena.owner(record) != owner));
            let ttl_s = one_ttl(owner, rrset, notes);
            check_size(owner, rtype, &rdatas)?;
            builder.rrset(owner, rtype, ttl_s, rdatas.iter().copied(), []).map_err(packed)?;
        }
    }
    builder.finish().map_err(packed)
}

/// Sorts RDATAs canonically and keeps the first of those whose canonical form is the same
/// (RFC 4034 §6.3).
fn canonicalise(rtype: Rtype, rdatas: &mut Vec<&[u8]>) {
    if rdatas.len() > 1 {
        rdatas.sort_by_cached_key(|rdata| rdata::canonical(rtype, rdata));
        rdatas.dedup_by(|b, a| rdata::canonical(rtype, a) == rdata::canonical(rtype, b));
    }
}

/// The lowest TTL of an RRset's records holds for all (RFC 2181 §5.2).
fn one_ttl(owner: &[u8], rrset: &[Record], notes: &mut Notes) -> u32 {
    let ttls = rrset.iter().map(|record| record.ttl_s);
    let (low, high) = ttls.fold((u32::MAX, 0), |(low, high), ttl| (low.min(ttl), high.max(ttl)));
    if low != high {
        notes.unequal_ttls += 1;
        if let (true, Ok(owner)) = (notes.lowered.len() < NOTES_NAMED_MAX, Name::from_wire(owner)) {
            let rtype = rrset[0].rtype;
            notes.lowered.push(LoweredTtl { owner, rtype, from_s: high, to_s: low });
        }
    }
    low
}

/// An RRset must fit a message, and what is signed of it must fit the keeper's bound.
fn check_size(owner: &[u8], rtype: Rtype, rdatas: &[&[u8]]) -> Result<(), Refusal> {
    let octets: usize = rdatas.iter().map(|rdata| rdata.len()).sum();
    // Header 12, question owner + 4; each record a pointer to the owner and 10 (RFC 1035 §4).
    let message = 12 + owner.len() + 4 + rdatas.len() * 12 + octets;
    if message > RRSET_BYTES_MAX {
        let fault = Fault::RrsetTooLarge { found: message, max: RRSET_BYTES_MAX };
        return Err(Refusal::of(owner, rtype, fault));
    }
    let tbs = RRSIG_PREFIX_BYTES_MAX + rdatas.len() * (owner.len() + 10) + octets;
    if tbs > TBS_BYTES_MAX {
        let fault = Fault::TbsTooLarge { found: tbs, max: TBS_BYTES_MAX };
        return Err(Refusal::of(owner, rtype, fault));
    }
    Ok(())
}

/// Exactly one SOA and some NS; the serial.
fn check_apex(records: &Packed, apex: &ZoneName) -> Result<u32, Refusal> {
    let wire = apex.as_wire();
    let node = records.node(wire);
    let Some(soa) = node.and_then(|node| node.rrset(Rtype::SOA)) else {
        return Err(Refusal::whole(Fault::NoSoa(apex.to_string())));
    };
    let mut rdatas = soa.rdatas();
    let (Some(serial), None) = (rdatas.next().and_then(soa_serial), rdatas.next()) else {
        return Err(Refusal::of(wire, Rtype::SOA, Fault::ManySoas(soa.len())));
    };
    if !node.is_some_and(|node| node.has(Rtype::NS)) {
        return Err(Refusal::whole(Fault::NoApexNs(apex.to_string())));
    }
    Ok(serial)
}

/// The serial of an SOA's RDATA: five 32-bit fields end it, the serial first (RFC 1035 §3.3.13).
pub(crate) fn soa_serial(rdata: &[u8]) -> Option<u32> {
    let fields = rdata.last_chunk::<20>()?;
    Some(u32::from_be_bytes([fields[0], fields[1], fields[2], fields[3]]))
}

/// The rules that hold name by name.
fn check_names(records: &Packed, apex: &ZoneName) -> Result<(), Refusal> {
    let mut dname: Option<Node<'_>> = None;
    for (node, standing) in standings(records, apex) {
        if let Some(above) = dname.filter(|above| node.key().starts_with(above.key())) {
            let fault = Fault::BelowDname(name::Shown(above.owner()).to_string());
            let rtype = node.rrsets().next().map_or(Rtype::DNAME, |rrset| rrset.rtype());
            return Err(Refusal::of(node.owner(), rtype, fault));
        }
        if node.has(Rtype::DNAME) {
            dname = Some(node);
        }
        check_node(&node, standing)?;
    }
    Ok(())
}

fn check_node(node: &Node<'_>, standing: Standing) -> Result<(), Refusal> {
    let refuse = |rtype, fault| Err(Refusal::of(node.owner(), rtype, fault));
    if standing != Standing::Apex && node.has(Rtype::SOA) {
        return refuse(Rtype::SOA, Fault::SoaBelowApex);
    }
    if name::is_wildcard(node.owner()) && node.has(Rtype::NS) {
        return refuse(Rtype::NS, Fault::WildcardNs);
    }
    if let Some(cname) = node.rrset(Rtype::CNAME) {
        if cname.len() > 1 {
            return refuse(Rtype::CNAME, Fault::ManyCnames(cname.len()));
        }
        // RFC 4035 §2.5 lets KEY stand beside a CNAME.
        let other = node.rrsets().map(|rrset| rrset.rtype());
        let mut other = other.filter(|rtype| !matches!(*rtype, Rtype::CNAME | Rtype::KEY));
        if let Some(other) = other.next() {
            return refuse(Rtype::CNAME, Fault::CnameAndOther(other));
        }
    }
    if let Some(dname) = node.rrset(Rtype::DNAME) {
        if dname.len() > 1 {
            return refuse(Rtype::DNAME, Fault::ManyDnames(dname.len()));
        }
        if standing.is_delegation() {
            return refuse(Rtype::DNAME, Fault::DnameAtCut);
        }
    }
    match standing {
        Standing::Apex if node.has(Rtype::DS) => refuse(Rtype::DS, Fault::DsAtApex),
        Standing::Authoritative if node.has(Rtype::DS) => refuse(Rtype::DS, Fault::DsWithoutNs),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
