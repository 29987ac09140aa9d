//! The product's promise: nothing unverified leaves. The only place where a [`VerifiedZone`] is
//! made, besides [`crate::stored`], which makes one again from a file of its own.
//!
//! It checks, in this order: that the zone holds exactly what was admitted, values that signatures
//! might not outlive capped at the policy's bounds; that the DNSKEY RRset
//! is exactly the keys to be published, CDS and CDNSKEY exactly what was approved; that the chain of
//! denial is closed and complete; on several threads, every signature of every RRset against that DNSKEY
//! RRset; and that ZONEMD, where the zone is to have one, is its digest. One fault anywhere fails the whole.
//!
//! Nothing here is shared with the code that signs but the data itself ([`Packed`], [`Rtype`]):
//! names, canonical form, cuts, hashes and bitmaps are worked out anew, so that one mistake is not
//! made twice. It holds that a zone verifies only if a validator with its own reading of the RFCs
//! would agree.

mod canonical;
mod cds;
mod content;
mod denial;
pub mod failure;
mod keys;
mod names;
mod signatures;
mod walk;
mod zonemd;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use aws_lc_rs::digest;
use countersign_policy::signing::{Denial, SerialPolicy};
use countersign_policy::{KeyId, ZoneName};

pub use failure::{Failure, Owner, Place, RrsigField, Types};
use keys::VerifyingKey;
pub use signatures::Expirations;
use signatures::{Limit, Rules, Tally, Times};

use crate::admitted::AdmittedZone;
use crate::cds::CDS_VALIDITY_S_MAX;
use crate::packed::{Packed, Rrset};
use crate::params::ZoneParams;
use crate::rtype::Rtype;
use crate::signed::SignedZone;

/// A version of a zone that may be shown to the world: proof that [`verify`] found nothing wrong.
#[derive(Debug, Clone)]
pub struct VerifiedZone {
    apex: ZoneName,
    serial: u32,
    records: Packed,
    tally: Tally,
    digest: [u8; 32],
}

impl VerifiedZone {
    /// The zone.
    pub fn apex(&self) -> &ZoneName {
        &self.apex
    }

    /// The serial of its SOA record.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// All records and their signatures.
    pub fn records(&self) -> &Packed {
        &self.records
    }

    /// One RRset with its signatures; `owner` in wire form, any case.
    pub fn rrset(&self, owner: &[u8], rtype: Rtype) -> Option<Rrset<'_>> {
        self.records.node(owner)?.rrset(rtype)
    }

    /// When its first signature expires: an RRSIG time, seconds since 1970 modulo 2^32.
    pub fn earliest_expiration(&self) -> u32 {
        // A zone without a signature is never verified.
        self.tally.expirations.first().unwrap_or(0)
    }

    /// The same by what is signed.
    pub fn expirations(&self) -> Expirations {
        self.tally.expirations
    }

    /// When its last signature begins to be valid: an RRSIG time, seconds since 1970 modulo 2^32.
    pub fn latest_inception(&self) -> u32 {
        self.tally.latest_inception.unwrap_or(0)
    }

    /// How many signatures each key made.
    pub fn signatures_by_key(&self) -> &BTreeMap<KeyId, u64> {
        &self.tally.by_key
    }

    /// SHA-256 over name, serial, records and signatures: the root of its stored form too.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// For [`crate::stored`]: a zone whose root hash stands in for verification. `None` where the
    /// records are no signed zone of that name and serial at all.
    pub(crate) fn resumed(apex: ZoneName, serial: u32, records: Packed) -> Option<Self> {
        content::check_owners(&records, apex.as_wire()).ok()?;
        let node = records.node(apex.as_wire())?;
        let soa = node.rrset(Rtype::SOA)?;
        let (_, found, _) = content::split_soa(soa.rdatas().next()?)?;
        let keys: Vec<VerifyingKey> = node
            .rrset(Rtype::DNSKEY)?
            .rdatas()
            .map(VerifyingKey::from_dnskey)
            .collect::<Result<_, _>>()
            .ok()?;
        let tally = signatures::count(&records, &keys);
        if found != serial || tally.expirations.first().is_none() {
            return None;
        }
        let digest = root(&apex, serial, records.pages().iter().map(|page| page.as_bytes()));
        Some(Self { apex, serial, records, tally, digest })
    }
}

/// The digest of a version: it does not depend on how the zone is cut into pages.
pub(crate) fn root<'a>(
    apex: &ZoneName,
    serial: u32,
    pages: impl Iterator<Item = &'a [u8]>,
) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    // So that no other hash of the product is over the same octets.
    context.update(b"countersign zone version 1\n");
    // A name ends itself, so that nothing can move between it and what follows.
    context.update(apex.as_wire());
    context.update(&serial.to_be_bytes());
    for page in pages {
        context.update(page);
    }
    let mut root = [0; 32];
    root.copy_from_slice(context.finish().as_ref());
    root
}

/// Verifies a signed zone against the zone that was admitted, the keys and policy that it is to
/// be published under, and `now_s` (seconds since 1970), checking signatures on `threads` threads.
pub fn verify(
    signed: SignedZone,
    admitted: &AdmittedZone,
    params: &ZoneParams,
    now_s: u64,
    threads: NonZeroUsize,
) -> Result<VerifiedZone, Failure> {
    let SignedZone { apex, serial, records } = signed;
    let name = params.apex.as_wire();
    for other in [&apex, admitted.apex()] {
        if *other != params.apex {
            let (found, expected) = (other.as_wire().into(), name.into());
            return Err(Failure::WrongApex { found, expected });
        }
    }
    content::check_owners(&records, name)?;
    let expected = content::Expected {
        admitted: &admitted.uncapped,
        apex: name,
        serial,
        ttl_max_s: params.policy.ttl_max_s,
        expire_max_s: params.policy.refresh_s,
        zonemd: params.zonemd,
    };
    content::check(&records, &expected)?;
    if params.policy.serial == SerialPolicy::Keep && serial != admitted.serial() {
        let place = Place::new(name, Rtype::SOA);
        return Err(Failure::WrongSerial { place, found: serial, planned: admitted.serial() });
    }
    let keys = keys::of_params(&records, params)?;
    cds::of_params(&records, params, &keys)?;
    let kind = match params.policy.denial {
        Denial::Nsec => denial::Kind::Nsec,
        Denial::Nsec3 => denial::Kind::Nsec3 { opt_out: false },
        Denial::Nsec3OptOut => denial::Kind::Nsec3 { opt_out: true },
    };
    denial::check(&records, name, kind)?;
    let times = times(params, now_s);
    let rules = Rules { apex: name, keys: &keys, times: Some(times) };
    let tally = signatures::check(&records, &rules, threads)?;
    zonemd::check(&records, name, serial, params.zonemd)?;
    let digest = root(&apex, serial, records.pages().iter().map(|page| page.as_bytes()));
    Ok(VerifiedZone { apex, serial, records, tally, digest })
}

/// What the times of signatures are held to.
fn times(params: &ZoneParams, now_s: u64) -> Times {
    let policy = &params.policy;
    let limit = |validity_s: u32, until_s| Limit {
        allowed_s: validity_s.saturating_add(policy.inception_offset_s),
        until_s,
    };
    Times {
        now_s,
        zone: limit(policy.validity_s, None),
        dnskey: limit(policy.validity_s, params.dnskey_until),
        cds: params.cds.as_ref().map_or(Limit::NONE, |set| {
            let validity_s = policy.validity_s.min(set.validity_s).min(CDS_VALIDITY_S_MAX);
            limit(validity_s, Some(set.until_s))
        }),
    }
}

/// Verifies again a version that is up already, from its own DNSKEY RRset: chain and signatures
/// first, and only if all of them are right whether one has expired by `now_s`.
pub fn re_verify(zone: &VerifiedZone, now_s: u64, threads: NonZeroUsize) -> Result<(), Failure> {
    let apex = zone.apex.as_wire();
    let records = &zone.records;
    content::check_owners(records, apex)?;
    let keys = keys::of_zone(records, apex)?;
    cds::check_places(records, apex)?;
    denial::check(records, apex, denial::Kind::shown_by(records, apex))?;
    signatures::check(records, &Rules { apex, keys: &keys, times: None }, threads)?;
    zonemd::check(records, apex, zone.serial, zonemd::is_there(records, apex))?;
    // How long a signature may last is the policy's say, which may have changed since.
    let times = Times { now_s, zone: Limit::NONE, dnskey: Limit::NONE, cds: Limit::NONE };
    signatures::check_all_times(records, times)
}
