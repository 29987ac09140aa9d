//! Planning: what a version of a zone will hold, which of the previous version's signatures it
//! keeps, and what is to be signed. Nothing here signs.
//!
//! Every authoritative RRset is signed by every zone-signing key, and DNSKEY, CDS and CDNSKEY by every
//! key-signing key, so that each algorithm of the DNSKEY RRset signs everything (RFC 4035 §2.2).

use std::collections::BTreeSet;

use countersign_policy::key::tags_collide;
use countersign_policy::signing::Denial;
use countersign_policy::{Algorithm, KeyId, ZoneName};

use crate::admitted::AdmittedZone;
use crate::cds::CdsError;
use crate::compose::{Composed, Missing, Signers, compose};
use crate::name::Name;
use crate::nsec3::{self, Collision};
use crate::packed::{Packed, PackedError, Rrset};
use crate::params::ZoneParams;
use crate::reuse::Previous;
use crate::rtype::Rtype;
use crate::tbs::{Signer, to_be_signed};
use crate::terms::{Duty, Terms};
use crate::verify::VerifiedZone;

/// Keys of one DNSKEY RRset: a KSK and a ZSK of two algorithms, each being rolled, are eight.
pub const KEYS_MAX: usize = 16;

/// Why a zone can't be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Zone and parameters are not of one zone.
    #[error("the admitted zone is {admitted}, the keys and policy are those of {params}")]
    OtherZone {
        /// The zone admitted.
        admitted: String,
        /// The zone of the parameters.
        params: String,
    },
    /// No keys, or too many.
    #[error("{0} keys; expected 1 to {KEYS_MAX}")]
    KeyCount(usize),
    /// An algorithm that would not sign everything.
    #[error(
        "algorithm {algorithm} has no key that signs {duty}, but every algorithm of the DNSKEY RRset must sign the whole zone (RFC 4035 §2.2)"
    )]
    AlgorithmIncomplete {
        /// The algorithm.
        algorithm: Algorithm,
        /// What would lack its signature.
        duty: &'static str,
    },
    /// Two keys with one tag, revoked form included.
    #[error("keys {0} and {1} share a key tag, or would if revoked; replace one of them")]
    TagsCollide(KeyId, KeyId),
    /// The approval of the DNSKEY RRset has ended.
    #[error(
        "the approval of the DNSKEY RRset ended at {until_s} s since 1970, and it is {now_s}; propose the next with `countersign propose sign-dnskey-set`"
    )]
    DnskeyOver {
        /// When it ended.
        until_s: u64,
        /// The time.
        now_s: u64,
    },
    /// CDS and CDNSKEY that must not be published. The zone can be planned without them.
    #[error("CDS and CDNSKEY: {0}")]
    Cds(#[from] CdsError),
    /// NSEC3 owners do not fit below the apex.
    #[error(
        "the name {0} is too long for NSEC3: a hash of 32 characters must fit before it; use NSEC"
    )]
    ApexTooLong(String),
    /// Two names with one NSEC3 hash.
    #[error(
        "{0} and {1} have the same NSEC3 hash (RFC 5155 §7.1); rename one of them, or use NSEC"
    )]
    HashCollision(String, String),
    /// No SOA: admission lets no such zone through.
    #[error("the zone {0} has no SOA record")]
    NoSoa(String),
    /// The version could not be packed.
    #[error(transparent)]
    Packed(#[from] PackedError),
}

impl From<Collision> for PlanError {
    fn from(Collision(a, b): Collision) -> Self {
        Self::HashCollision(a, b)
    }
}

/// One signature to be made by a key that signs the zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The key.
    pub key: KeyId,
    /// RRSIG RDATA up to the signer's name, then the RRset in canonical form and order
    /// (RFC 4034 §3.1.8.1).
    pub tbs: Vec<u8>,
}

impl Task {
    /// Owner and type of the RRset that is signed: for a message about it.
    pub fn rrset(&self) -> Option<(Name, Rtype)> {
        let rtype = u16::from_be_bytes(*self.tbs.first_chunk()?);
        let signer = self.tbs.get(18..)?;
        let record = signer.get(crate::name::wire_len(signer).ok()?..)?;
        let owner = record.get(..crate::name::wire_len(record).ok()?)?;
        Some((Name::from_wire(owner).ok()?, Rtype(rtype)))
    }
}

/// One signature over the DNSKEY RRset, whose octets the keeper builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnskeyOrder {
    /// The keys that the RRset holds.
    pub keys: BTreeSet<KeyId>,
    /// The key that signs.
    pub signer: KeyId,
    /// TTL of the RRset.
    pub ttl_s: u32,
    /// Seconds since 1970 modulo 2^32.
    pub inception: u32,
    /// The same.
    pub expiration: u32,
}

/// One signature over the CDS or the CDNSKEY RRset, whose octets the keeper builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CdsOrder {
    /// CDS or CDNSKEY.
    pub rtype: Rtype,
    /// The key that signs: a KSK or CSK.
    pub signer: KeyId,
    /// TTL of the RRset.
    pub ttl_s: u32,
    /// Seconds since 1970 modulo 2^32.
    pub inception: u32,
    /// The same.
    pub expiration: u32,
}

/// A version of a zone that lacks some of its signatures.
pub struct PlannedZone {
    pub(crate) apex: ZoneName,
    pub(crate) serial: u32,
    /// Records, and the signatures that are kept.
    pub(crate) records: Packed,
    pub(crate) signers: Signers,
    pub(crate) terms: Terms,
    pub(crate) zone: Vec<Missing>,
    pub(crate) dnskey: Vec<Missing>,
    pub(crate) cds: Vec<Missing>,
    pub(crate) zonemd: Vec<Missing>,
    dnskey_orders: Vec<DnskeyOrder>,
    cds_orders: Vec<CdsOrder>,
    reused: usize,
}

/// Plans the next version of a zone. `serial` comes from [`crate::serial::next_serial`], `now_s`
/// is seconds since 1970.
pub fn plan(
    admitted: &AdmittedZone,
    previous: Option<&VerifiedZone>,
    params: &ZoneParams,
    serial: u32,
    now_s: u64,
) -> Result<PlannedZone, PlanError> {
    plan_over(admitted, previous.map(VerifiedZone::records), params, serial, now_s)
}

/// The same over the previous version's records.
fn plan_over(
    admitted: &AdmittedZone,
    previous: Option<&Packed>,
    params: &ZoneParams,
    serial: u32,
    now_s: u64,
) -> Result<PlannedZone, PlanError> {
    check_params(admitted, params)?;
    check_approvals(params, now_s)?;
    let signers = signers(params);
    let terms = Terms::new(params, now_s);
    let before = Previous::new(previous, &params.apex, terms, now_s);
    let Composed { records, zone, dnskey, cds, zonemd, reused } =
        compose(admitted, before, params, &signers, serial)?;
    Ok(PlannedZone {
        apex: params.apex.clone(),
        serial,
        records,
        dnskey_orders: dnskey_orders(params, &signers, &terms, &dnskey),
        cds_orders: cds_orders(params, &signers, &terms, &cds),
        signers,
        terms,
        zone,
        dnskey,
        cds: cds.into_iter().map(|(_, missing)| missing).collect(),
        zonemd,
        reused,
    })
}

fn dnskey_orders(
    params: &ZoneParams,
    signers: &Signers,
    terms: &Terms,
    missing: &[Missing],
) -> Vec<DnskeyOrder> {
    let keys: BTreeSet<KeyId> = params.keys.iter().map(|key| key.public.id()).collect();
    let validity = terms.of(Duty::Dnskey).validity;
    let order = |missing: &Missing| DnskeyOrder {
        keys: keys.clone(),
        signer: signers.ksk[missing.signer].id,
        ttl_s: params.policy.dnskey_ttl_s,
        inception: validity.inception,
        expiration: validity.expiration,
    };
    missing.iter().map(order).collect()
}

fn cds_orders(
    params: &ZoneParams,
    signers: &Signers,
    terms: &Terms,
    missing: &[(Rtype, Missing)],
) -> Vec<CdsOrder> {
    let validity = terms.of(Duty::Cds).validity;
    let order = |(rtype, missing): &(Rtype, Missing)| CdsOrder {
        rtype: *rtype,
        signer: signers.ksk[missing.signer].id,
        ttl_s: params.policy.dnskey_ttl_s,
        inception: validity.inception,
        expiration: validity.expiration,
    };
    missing.iter().map(order).collect()
}

fn check_params(admitted: &AdmittedZone, params: &ZoneParams) -> Result<(), PlanError> {
    if admitted.apex() != &params.apex {
        return Err(PlanError::OtherZone {
            admitted: admitted.apex().to_string(),
            params: params.apex.to_string(),
        });
    }
    let keys = &params.keys;
    if !(1..=KEYS_MAX).contains(&keys.len()) {
        return Err(PlanError::KeyCount(keys.len()));
    }
    for algorithm in params.algorithms() {
        let mut roles =
            keys.iter().filter(|key| key.public.algorithm() == algorithm).map(|key| key.role);
        let duty = if !roles.clone().any(countersign_policy::KeyRole::signs_dnskey) {
            "the DNSKEY RRset"
        } else if !roles.any(countersign_policy::KeyRole::signs_zone) {
            "the rest of the zone"
        } else {
            continue;
        };
        return Err(PlanError::AlgorithmIncomplete { algorithm, duty });
    }
    for (at, a) in keys.iter().enumerate() {
        for b in &keys[at + 1..] {
            if tags_collide((&a.public, a.role), (&b.public, b.role)) {
                return Err(PlanError::TagsCollide(a.public.id(), b.public.id()));
            }
        }
    }
    let apex_bytes = params.apex.as_wire().len();
    if params.policy.denial != Denial::Nsec && apex_bytes > nsec3::APEX_BYTES_MAX {
        return Err(PlanError::ApexTooLong(params.apex.to_string()));
    }
    Ok(())
}

fn check_approvals(params: &ZoneParams, now_s: u64) -> Result<(), PlanError> {
    if let Some(until_s) = params.dnskey_until.filter(|until_s| *until_s <= now_s) {
        return Err(PlanError::DnskeyOver { until_s, now_s });
    }
    params.cds.as_ref().map_or(Ok(()), |cds| Ok(cds.check(params, now_s)?))
}

fn signers(params: &ZoneParams) -> Signers {
    let keys = params.keys.iter();
    Signers {
        zone: keys.clone().filter(|key| key.role.signs_zone()).map(Signer::new).collect(),
        ksk: keys.filter(|key| key.role.signs_dnskey()).map(Signer::new).collect(),
    }
}

impl PlannedZone {
    /// The zone.
    pub fn apex(&self) -> &ZoneName {
        &self.apex
    }

    /// The serial that the version will have.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// What is to be signed, in order of the zone. Each is built as it is asked for: together they
    /// would be as large as the zone.
    pub fn tasks(&self) -> Tasks<'_> {
        Tasks { planned: self, missing: self.zone.iter(), rrsets: Rrsets::of(&self.records) }
    }

    /// What the keeper is to sign over DNSKEY; empty where all those signatures are kept.
    pub fn dnskey_orders(&self) -> &[DnskeyOrder] {
        &self.dnskey_orders
    }

    /// What the keeper is to sign over CDS and CDNSKEY; empty where there are none, or all those
    /// signatures are kept.
    pub fn cds_orders(&self) -> &[CdsOrder] {
        &self.cds_orders
    }

    /// How many signatures are to be made in all, those over ZONEMD included.
    pub fn missing(&self) -> usize {
        self.zone.len() + self.dnskey.len() + self.cds.len() + self.zonemd.len()
    }

    /// How many signatures are kept.
    pub fn reused(&self) -> usize {
        self.reused
    }
}

/// The iterator of [`PlannedZone::tasks`].
#[derive(Clone)]
pub struct Tasks<'a> {
    planned: &'a PlannedZone,
    missing: std::slice::Iter<'a, Missing>,
    rrsets: Rrsets<'a>,
}

impl Iterator for Tasks<'_> {
    type Item = Task;

    fn next(&mut self) -> Option<Task> {
        let missing = self.missing.next()?;
        let rrset = self.rrsets.at(missing.rrset)?;
        let PlannedZone { apex, signers, terms, .. } = self.planned;
        let (signer, validity) = (&signers.zone[missing.signer], terms.of(Duty::Zone).validity);
        Some(Task { key: signer.id, tbs: to_be_signed(&rrset, signer, validity, apex) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.missing.size_hint()
    }
}

impl ExactSizeIterator for Tasks<'_> {}

/// Finds RRsets by their position among all of a version; positions are asked for in order.
#[derive(Clone)]
struct Rrsets<'a> {
    nodes: crate::packed::Iter<'a>,
    node: Vec<Rrset<'a>>,
    /// Position of the first RRset of `node`.
    first: usize,
}

impl<'a> Rrsets<'a> {
    fn of(records: &'a Packed) -> Self {
        Self { nodes: records.iter(), node: Vec::new(), first: 0 }
    }

    fn at(&mut self, position: usize) -> Option<Rrset<'a>> {
        while position >= self.first + self.node.len() {
            self.first += self.node.len();
            self.node.clear();
            self.node.extend(self.nodes.next()?.rrsets());
        }
        self.node.get(position.checked_sub(self.first)?).copied()
    }
}

#[cfg(test)]
mod tests;
