//! Every RRSIG of every RRset (RFC 4034 §3.1, RFC 4035 §2.2 and §5.3), on as many threads as are
//! given. A thread takes a page at a time; the first page with a fault decides.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use countersign_policy::KeyId;

use super::canonical::{CanonicalRrset, NotCanonical};
use super::failure::{Failure, Place, RrsigField};
use super::keys::VerifyingKey;
use super::names;
use super::walk::{Visit, walk_page};
use crate::packed::{Packed, Rrset};
use crate::rtype::Rtype;

/// What signatures are judged by.
pub(super) struct Rules<'a> {
    pub(super) apex: &'a [u8],
    pub(super) keys: &'a [VerifyingKey],
    /// Times to judge by; a zone that is up already is judged without.
    pub(super) times: Option<Times>,
}

/// What times are judged by: the time, and how long a signature may last, by what it covers.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) now_s: u64,
    pub(super) zone: Limit,
    pub(super) dnskey: Limit,
    pub(super) cds: Limit,
}

/// How long a signature may last.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    /// From inception to expiration, at most.
    pub(super) allowed_s: u32,
    /// No longer than this, seconds since 1970.
    pub(super) until_s: Option<u64>,
}

impl Limit {
    pub(super) const NONE: Self = Self { allowed_s: u32::MAX, until_s: None };
}

impl Times {
    fn limit(&self, rtype: Rtype) -> Limit {
        match rtype {
            Rtype::DNSKEY => self.dnskey,
            Rtype::CDS | Rtype::CDNSKEY => self.cds,
            _ => self.zone,
        }
    }
}

/// When signatures expire first, by what they cover: RRSIG times, seconds since 1970 modulo 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expirations {
    /// Everything but the following.
    pub zone: Option<u32>,
    /// The DNSKEY RRset.
    pub dnskey: Option<u32>,
    /// CDS and CDNSKEY.
    pub cds: Option<u32>,
}

impl Expirations {
    /// The first of all.
    pub fn first(&self) -> Option<u32> {
        let mut first = None;
        for expiration in [self.zone, self.dnskey, self.cds].into_iter().flatten() {
            Self::see(&mut first, expiration);
        }
        first
    }

    fn see(slot: &mut Option<u32>, expiration: u32) {
        if slot.is_none_or(|earliest| precedes(expiration, earliest)) {
            *slot = Some(expiration);
        }
    }

    fn of(&mut self, rtype: Rtype) -> &mut Option<u32> {
        match rtype {
            Rtype::DNSKEY => &mut self.dnskey,
            Rtype::CDS | Rtype::CDNSKEY => &mut self.cds,
            _ => &mut self.zone,
        }
    }
}

/// What was counted on the way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) expirations: Expirations,
    /// The inception that comes last.
    pub(super) latest_inception: Option<u32>,
    pub(super) by_key: BTreeMap<KeyId, u64>,
}

impl Tally {
    fn count(&mut self, key: KeyId, rtype: Rtype, (inception, expiration): (u32, u32)) {
        *self.by_key.entry(key).or_default() += 1;
        Expirations::see(self.expirations.of(rtype), expiration);
        self.see_inception(inception);
    }

    fn see_inception(&mut self, inception: u32) {
        if self.latest_inception.is_none_or(|latest| precedes(latest, inception)) {
            self.latest_inception = Some(inception);
        }
    }

    fn merge(&mut self, other: Self) {
        for (key, count) in other.by_key {
            *self.by_key.entry(key).or_default() += count;
        }
        if let Some(inception) = other.latest_inception {
            self.see_inception(inception);
        }
        let (ours, theirs) = (&mut self.expirations, other.expirations);
        for (slot, other) in [
            (&mut ours.zone, theirs.zone),
            (&mut ours.dnskey, theirs.dnskey),
            (&mut ours.cds, theirs.cds),
        ] {
            if let Some(expiration) = other {
                Expirations::see(slot, expiration);
            }
        }
    }
}

/// Serial number arithmetic (RFC 1982, RFC 4034 §3.1.5): whether `a` is before `b`.
fn precedes(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 1 << 31
}

/// Verifies every signature of the zone.
pub(super) fn check(
    records: &Packed,
    rules: &Rules<'_>,
    threads: NonZeroUsize,
) -> Result<Tally, Failure> {
    let next_page = AtomicUsize::new(0);
    let first_bad = AtomicUsize::new(usize::MAX);
    let work = || work(records, rules, &next_page, &first_bad);
    // A thread that can't be started leaves its share to the others, and this thread is one.
    let others = threads.get().min(records.pages().len()).saturating_sub(1);
    let mut done = thread::scope(|scope| {
        let spawned: Vec<_> = (0..others)
            .filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        let mut done = vec![work()];
        for handle in spawned {
            match handle.join() {
                Ok(outcome) => done.push(outcome),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    // Pages are taken in order and none before the first bad one is skipped, so the outcome does
    // not depend on who was faster.
    done.sort_by_key(|outcome| outcome.as_ref().err().map_or(usize::MAX, |(page, _)| *page));
    let mut tally = Tally::default();
    for outcome in done {
        tally.merge(outcome.map_err(|(_, failure)| failure)?);
    }
    Ok(tally)
}

fn work(
    records: &Packed,
    rules: &Rules<'_>,
    next_page: &AtomicUsize,
    first_bad: &AtomicUsize,
) -> Result<Tally, (usize, Failure)> {
    let mut tally = Tally::default();
    let mut octets = Vec::new();
    loop {
        let at = next_page.fetch_add(1, Ordering::Relaxed);
        if at > first_bad.load(Ordering::Relaxed) {
            return Ok(tally);
        }
        let Some(page) = records.pages().get(at) else {
            return Ok(tally);
        };
        for visit in walk_page(records, page, rules.apex) {
            for rrset in visit.node.rrsets() {
                check_rrset(&visit, &rrset, rules, &mut octets, &mut tally).map_err(|failure| {
                    first_bad.fetch_min(at, Ordering::Relaxed);
                    (at, failure)
                })?;
            }
        }
    }
}

fn check_rrset(
    visit: &Visit<'_>,
    rrset: &Rrset<'_>,
    rules: &Rules<'_>,
    octets: &mut Vec<u8>,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let place = || Place::new(rrset.owner(), rrset.rtype());
    let canonical =
        CanonicalRrset::new(rrset.rtype().0, rrset.rdatas()).map_err(|why| match why {
            NotCanonical::Malformed => Failure::Malformed(place()),
            NotCanonical::Duplicate => Failure::DuplicateRecord(place()),
        })?;
    if !visit.signs(rrset.rtype()) {
        return match rrset.rrsigs().next() {
            Some(_) => Err(Failure::SignedNotAuthoritative(place())),
            None => Ok(()),
        };
    }
    let mut signers: Vec<&VerifyingKey> = Vec::new();
    for rdata in rrset.rrsigs() {
        let rrsig = Rrsig::read(rdata).ok_or_else(|| Failure::MalformedRrsig(place()))?;
        check_fields(rrset, &rrsig, rules.apex)?;
        canonical.signed_octets(rrset.owner(), rrsig.head, octets);
        let key = signer_of(rrset, &rrsig, rules, octets)?;
        if signers.iter().any(|known| known.id == key.id) {
            return Err(Failure::SignedTwice { place: place(), tag: rrsig.tag });
        }
        if let Some(times) = rules.times {
            check_times(rrset, &rrsig, times)?;
        }
        signers.push(key);
        tally.count(key.id, rrset.rtype(), (rrsig.inception, rrsig.expiration));
    }
    check_coverage(rrset, &signers, rules.keys)
}

/// Whether a type is for keys to sign that the parent may have a DS of (RFC 7344 §4.1).
fn wants_entry_point(rtype: Rtype) -> bool {
    [Rtype::DNSKEY, Rtype::CDS, Rtype::CDNSKEY].contains(&rtype)
}

/// Everything by each algorithm of the DNSKEY RRset; DNSKEY, CDS and CDNSKEY by each key that may
/// sign them as well: a resolver, or the parent, may know the zone by any of them.
fn check_coverage(
    rrset: &Rrset<'_>,
    signers: &[&VerifyingKey],
    keys: &[VerifyingKey],
) -> Result<(), Failure> {
    let place = || Place::new(rrset.owner(), rrset.rtype());
    for key in keys {
        let by_key = signers.iter().any(|signer| signer.id == key.id);
        if wants_entry_point(rrset.rtype()) && key.signs_dnskey && !by_key {
            return Err(Failure::NotSignedBy { place: place(), key: key.id });
        }
        if !signers.iter().any(|signer| signer.algorithm == key.algorithm) {
            return Err(Failure::Unsigned { place: place(), algorithm: key.algorithm });
        }
    }
    Ok(())
}

/// RRSIG RDATA (RFC 4034 §3.1).
struct Rrsig<'a> {
    /// Everything up to and including the signer's name.
    head: &'a [u8],
    covered: u16,
    algorithm: u8,
    labels: u8,
    original_ttl_s: u32,
    expiration: u32,
    inception: u32,
    tag: u16,
    signer: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Rrsig<'a> {
    fn read(rdata: &'a [u8]) -> Option<Self> {
        let signer_end = names::end_of_name(rdata, 18)?;
        let (head, signature) = rdata.split_at_checked(signer_end)?;
        let u16_at = |at: usize| Some(u16::from_be_bytes(*head.get(at..)?.first_chunk()?));
        let u32_at = |at: usize| Some(u32::from_be_bytes(*head.get(at..)?.first_chunk()?));
        Some(Self {
            head,
            covered: u16_at(0)?,
            algorithm: *head.get(2)?,
            labels: *head.get(3)?,
            original_ttl_s: u32_at(4)?,
            expiration: u32_at(8)?,
            inception: u32_at(12)?,
            tag: u16_at(16)?,
            signer: head.get(18..)?,
            signature,
        })
    }
}

fn check_fields(rrset: &Rrset<'_>, rrsig: &Rrsig<'_>, apex: &[u8]) -> Result<(), Failure> {
    let owner = rrset.owner();
    // RFC 4034 §3.1.3: neither the root nor a leading `*` is counted.
    let labels = names::label_count(owner) - usize::from(names::is_wildcard(owner));
    let differs = |field, found: &dyn ToString, expected: &dyn ToString| {
        Err(Failure::WrongField {
            place: Place::new(owner, rrset.rtype()),
            tag: rrsig.tag,
            field,
            found: found.to_string(),
            expected: expected.to_string(),
        })
    };
    if rrsig.covered != rrset.rtype().0 {
        return differs(RrsigField::TypeCovered, &Rtype(rrsig.covered), &rrset.rtype());
    }
    if usize::from(rrsig.labels) != labels {
        return differs(RrsigField::Labels, &rrsig.labels, &labels);
    }
    if rrsig.original_ttl_s != rrset.ttl_s() {
        return differs(RrsigField::OriginalTtl, &rrsig.original_ttl_s, &rrset.ttl_s());
    }
    if !rrsig.signer.eq_ignore_ascii_case(apex) {
        let shown = |name: &[u8]| crate::name::Shown(name).to_string();
        return differs(RrsigField::Signer, &shown(rrsig.signer), &shown(apex));
    }
    Ok(())
}

/// The key that made the signature, checked in software.
fn signer_of<'k>(
    rrset: &Rrset<'_>,
    rrsig: &Rrsig<'_>,
    rules: &Rules<'k>,
    octets: &[u8],
) -> Result<&'k VerifyingKey, Failure> {
    let place = Place::new(rrset.owner(), rrset.rtype());
    let may_sign = |key: &VerifyingKey| {
        if wants_entry_point(rrset.rtype()) { key.signs_dnskey } else { key.signs_zone }
    };
    let Some(key) = rules
        .keys
        .iter()
        .find(|key| key.tag == rrsig.tag && key.algorithm == rrsig.algorithm && may_sign(key))
    else {
        let (tag, algorithm) = (rrsig.tag, rrsig.algorithm);
        return Err(Failure::ForeignKey { place, tag, algorithm });
    };
    if !key.verifies(octets, rrsig.signature) {
        return Err(Failure::BadSignature { place, key: key.id, tag: key.tag });
    }
    Ok(key)
}

/// The times of every signature, without the signatures.
pub(super) fn check_all_times(records: &Packed, times: Times) -> Result<(), Failure> {
    for rrset in records.iter().flat_map(|node| node.rrsets()) {
        for rdata in rrset.rrsigs() {
            let malformed = || Failure::MalformedRrsig(Place::new(rrset.owner(), rrset.rtype()));
            check_times(&rrset, &Rrsig::read(rdata).ok_or_else(malformed)?, times)?;
        }
    }
    Ok(())
}

/// What [`check`] would count, without checking: for a version whose root hash is known.
pub(super) fn count(records: &Packed, keys: &[VerifyingKey]) -> Tally {
    let mut tally = Tally::default();
    for rrset in records.iter().flat_map(|node| node.rrsets()) {
        for rrsig in rrset.rrsigs().filter_map(Rrsig::read) {
            let made_it =
                |key: &&VerifyingKey| (key.tag, key.algorithm) == (rrsig.tag, rrsig.algorithm);
            if let Some(key) = keys.iter().find(made_it) {
                tally.count(key.id, rrset.rtype(), (rrsig.inception, rrsig.expiration));
            }
        }
    }
    tally
}

fn check_times(rrset: &Rrset<'_>, rrsig: &Rrsig<'_>, times: Times) -> Result<(), Failure> {
    let place = Place::new(rrset.owner(), rrset.rtype());
    // RRSIG times are seconds since 1970 modulo 2^32 (RFC 4034 §3.1.5).
    let (tag, now) = (rrsig.tag, times.now_s as u32);
    let limit = times.limit(rrset.rtype());
    let (inception, expiration) = (rrsig.inception, rrsig.expiration);
    if precedes(now, inception) {
        return Err(Failure::NotYetValid { place, tag, inception, now });
    }
    if !precedes(now, expiration) {
        return Err(Failure::Expired { place, tag, expiration, now });
    }
    let found_s = expiration.wrapping_sub(inception);
    if found_s > limit.allowed_s {
        let allowed_s = limit.allowed_s;
        return Err(Failure::ValidTooLong { place, tag, found_s, allowed_s });
    }
    // It has not expired, so this is how long it goes on.
    let goes_on_s = u64::from(expiration.wrapping_sub(now));
    if let Some(until_s) = limit.until_s.filter(|end| end.saturating_sub(times.now_s) < goes_on_s) {
        return Err(Failure::ValidPast { place, tag, expiration, until_s });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_compare_across_the_turn_of_the_counter() {
        assert!(precedes(1, 2));
        assert!(!precedes(2, 1));
        assert!(!precedes(5, 5));
        assert!(precedes(u32::MAX, 3));
        assert!(!precedes(3, u32::MAX));
    }

    #[test]
    fn the_earliest_expiration_is_kept() {
        let mut tally = Tally::default();
        tally.count(KeyId([1; 32]), Rtype::A, (u32::MAX, 3));
        let zone = Some(u32::MAX);
        let expirations = Expirations { zone, dnskey: Some(1), cds: Some(0) };
        let other = Tally { expirations, latest_inception: Some(1), by_key: BTreeMap::new() };
        tally.merge(other);
        assert_eq!(tally.latest_inception, Some(1));
        assert_eq!(tally.expirations, expirations);
        assert_eq!(tally.expirations.first(), Some(u32::MAX));
        assert_eq!(
            Expirations { cds: Some(u32::MAX - 1), ..expirations }.first(),
            Some(u32::MAX - 1)
        );
        assert_eq!(tally.by_key[&KeyId([1; 32])], 1);
    }
}
