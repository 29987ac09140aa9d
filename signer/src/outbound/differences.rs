//! What changed between published versions, kept for secondaries that ask with IXFR (RFC 1995 §4).
//!
//! A [`Step`] is made of two published versions and of nothing else, so what it says is verified as
//! they are. It bears the root hash of both: a chain of steps is used only if it begins at the
//! serial that a secondary has, each step begins at the very version in which the one before it
//! ended, and the last ends in the version that is up. Where there is no such chain, or it is no
//! smaller than the zone, the whole zone goes out. Steps are not condensed: each is the sequence
//! that a secondary would have got had it asked in time.

use std::collections::VecDeque;
use std::sync::Arc;

use countersign_zone::Rtype;
use countersign_zone::difference::{Sign, Signatures, between};

use super::Wire;
use crate::published::Published;
use crate::wire::newer;

/// Octets of a record in a step beside owner and RDATA: length of the owner, type, TTL, length of
/// the RDATA. As many as on the wire, or a few less.
const RECORD_BYTES: usize = 1 + 2 + 4 + 2;

/// How much is kept of one zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DifferenceBounds {
    /// Steps.
    pub kept: usize,
    /// Octets of their records.
    pub bytes_max: usize,
}

/// A version, told from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    serial: u32,
    root: [u8; 32],
}

impl Mark {
    fn of(version: &Published) -> Self {
        Self { serial: version.serial(), root: version.root() }
    }
}

/// The difference of a version to one before it.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    from: Mark,
    to: Mark,
    /// The old SOA, then all that goes.
    removed: Records,
    /// The new SOA, then all that comes.
    added: Records,
}

/// Records back to back: `owner_len u8 · owner · rtype u16 · ttl_s u32 · len u16 · RDATA`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Records(Vec<u8>);

impl Step {
    /// The step between two versions of one zone. `None` where `new` is not newer, or where it would
    /// take more than `bytes_max`. Walks both versions: not for the threads that serve.
    pub fn between(old: &Published, new: &Published, bytes_max: usize) -> Option<Self> {
        if old.apex() != new.apex() || !newer(new.serial(), old.serial()) {
            return None;
        }
        let mut step = Self {
            from: Mark::of(old),
            to: Mark::of(new),
            removed: Records::default(),
            added: Records::default(),
        };
        step.removed.push(&soa(old)?);
        step.added.push(&soa(new)?);
        for change in between(old.records(), new.records(), Signatures::Shown) {
            if change.rtype == Rtype::SOA {
                continue;
            }
            let into = match change.sign {
                Sign::Removed => &mut step.removed,
                Sign::Added => &mut step.added,
            };
            let (owner, rtype, ttl_s, rdata) =
                (change.owner, change.rtype, change.ttl_s, change.rdata);
            into.push(&Wire { owner, rtype, ttl_s, rdata });
            if step.bytes() > bytes_max {
                return None;
            }
        }
        Some(step).filter(|step| step.bytes() <= bytes_max)
    }

    /// The serial that it leads from.
    pub fn from(&self) -> u32 {
        self.from.serial
    }

    /// The serial that it leads to.
    pub fn to(&self) -> u32 {
        self.to.serial
    }

    /// Octets of its records.
    pub fn bytes(&self) -> usize {
        self.removed.0.len() + self.added.0.len()
    }

    /// Its records in the order of RFC 1995 §4.
    fn records(&self) -> impl Iterator<Item = Wire<'_>> {
        self.removed.iter().chain(self.added.iter())
    }
}

impl Records {
    fn push(&mut self, wire: &Wire<'_>) {
        let Wire { owner, rtype, ttl_s, rdata } = wire;
        self.0.reserve(RECORD_BYTES + owner.len() + rdata.len());
        self.0.push(owner.len() as u8);
        self.0.extend_from_slice(owner);
        self.0.extend_from_slice(&rtype.0.to_be_bytes());
        self.0.extend_from_slice(&ttl_s.to_be_bytes());
        // Packed RDATA has a length of 16 bits too.
        self.0.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
        self.0.extend_from_slice(rdata);
    }

    fn iter(&self) -> impl Iterator<Item = Wire<'_>> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (&owner_len, tail) = rest.split_first()?;
            let (owner, tail) = tail.split_at_checked(usize::from(owner_len))?;
            let (rtype, tail) = tail.split_first_chunk()?;
            let (ttl_s, tail) = tail.split_first_chunk()?;
            let (len, tail) = tail.split_first_chunk()?;
            let (rdata, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
            rest = tail;
            let rtype = Rtype(u16::from_be_bytes(*rtype));
            Some(Wire { owner, rtype, ttl_s: u32::from_be_bytes(*ttl_s), rdata })
        })
    }
}

fn soa(version: &Published) -> Option<Wire<'_>> {
    let soa = version.at_apex(Rtype::SOA)?;
    let rdata = soa.rdatas().next()?;
    Some(Wire { owner: soa.owner(), rtype: Rtype::SOA, ttl_s: soa.ttl_s(), rdata })
}

/// The steps of one zone that are kept, oldest first.
#[derive(Debug, Default)]
pub struct Kept {
    steps: VecDeque<Arc<Step>>,
    bytes: usize,
}

impl Kept {
    /// Keeps a step that ends in a version newer than those of the others, within bounds: the oldest
    /// goes first. What does not chain is of no use and goes too.
    pub fn keep(&mut self, step: Step, bounds: DifferenceBounds) {
        if self.steps.back().is_some_and(|last| last.to != step.from) {
            self.clear();
        }
        self.bytes += step.bytes();
        self.steps.push_back(Arc::new(step));
        self.shrink(bounds);
    }

    /// Puts a step in front of the others, if it leads to the first of them and there is room: from
    /// versions on disk, newest first. `false` once there is no point in going on.
    pub fn precede(&mut self, step: Step, bounds: DifferenceBounds) -> bool {
        let fits = self.steps.len() < bounds.kept
            && self.bytes.saturating_add(step.bytes()) <= bounds.bytes_max
            && self.steps.front().is_none_or(|first| first.from == step.to);
        if fits {
            self.bytes += step.bytes();
            self.steps.push_front(Arc::new(step));
        }
        fits
    }

    /// A version went up to which no step leads.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    fn shrink(&mut self, bounds: DifferenceBounds) {
        while self.steps.len() > bounds.kept || self.bytes > bounds.bytes_max {
            let Some(oldest) = self.steps.pop_front() else { return };
            self.bytes -= oldest.bytes();
        }
    }

    /// The steps that lead from the version with serial `theirs` to `version`, if all of them are
    /// here and smaller than the zone.
    pub fn chain(&self, theirs: u32, version: &Published) -> Option<Vec<Arc<Step>>> {
        let up = Mark::of(version);
        let mut mark = up;
        let mut room = version.records().counts().bytes;
        let mut chain = VecDeque::new();
        // A version may have gone up since `version` was looked at: later steps are passed over.
        for step in self.steps.iter().rev().skip_while(|step| step.to != up) {
            if step.to != mark {
                return None;
            }
            room = room.checked_sub(step.bytes())?;
            chain.push_front(step.clone());
            if step.from.serial == theirs {
                return Some(chain.into());
            }
            mark = step.from;
        }
        None
    }
}

/// An answer of difference sequences: the newest SOA, the steps, the newest SOA again. Empty where
/// there is no SOA, which is in no verified zone.
pub fn answer<'a>(
    version: &'a Published,
    steps: &'a [Arc<Step>],
) -> impl Iterator<Item = Wire<'a>> {
    let soa = soa(version);
    let all = if soa.is_some() { usize::MAX } else { 0 };
    let body = steps.iter().flat_map(|step| step.records()).take(all);
    soa.into_iter().chain(body).chain(soa)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use countersign_zone::packed::Builder;
    use proptest::prelude::*;

    use super::*;
    use crate::outbound::{Messages, records};
    use crate::published::testing::{signature, soa as soa_rdata, version, zone_name};
    use crate::wire::{Message, OPCODE_QUERY, Section, request, types};

    const BOUNDS: DifferenceBounds = DifferenceBounds { kept: 3, bytes_max: 1 << 20 };

    fn step(from: &Published, to: &Published) -> Step {
        Step::between(from, to, usize::MAX).expect("newer")
    }

    fn serials(chain: Option<Vec<Arc<Step>>>) -> Option<Vec<(u32, u32)>> {
        chain.map(|steps| steps.iter().map(|step| (step.from(), step.to())).collect())
    }

    #[test]
    fn a_chain_ends_in_the_version_that_is_up_or_is_none() {
        let versions: Vec<_> =
            (1..=6).map(|serial| version("a.test", serial, 1_000 + serial)).collect();
        let mut kept = Kept::default();
        for pair in versions.windows(2) {
            kept.keep(step(&pair[0], &pair[1]), BOUNDS);
        }
        let chain = |theirs, version: usize| serials(kept.chain(theirs, &versions[version]));
        assert_eq!(chain(5, 5), Some(vec![(5, 6)]));
        assert_eq!(chain(3, 5), Some(vec![(3, 4), (4, 5), (5, 6)]));
        assert_eq!(chain(3, 4), Some(vec![(3, 4), (4, 5)]), "a version went up meanwhile");
        assert_eq!(chain(2, 5), None, "kept no longer");
        assert_eq!(chain(7, 5), None);
        // The same serials with other content: another zone's history, or a file put back.
        let other = version("a.test", 6, 7);
        assert_eq!(serials(kept.chain(5, &other)), None);
        assert_eq!(Step::between(&versions[1], &versions[0], usize::MAX), None, "not newer");
        let odd = step(&version("a.test", 6, 7), &version("a.test", 7, 1_000));
        kept.keep(odd, BOUNDS);
        assert_eq!(kept.len(), 1, "what does not chain goes");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let versions: Vec<_> = (1..=4).map(|serial| version("a.test", serial, 9)).collect();
        let steps = || versions.windows(2).map(|pair| step(&pair[0], &pair[1]));
        let bytes = steps().map(|step| step.bytes()).max().expect("some");
        let check = |count, bytes_max, expect| {
            let bounds = DifferenceBounds { kept: count, bytes_max };
            let mut kept = Kept::default();
            steps().for_each(|step| kept.keep(step, bounds));
            assert_eq!(kept.len(), expect, "{count} {bytes_max}");
            let mut kept = Kept::default();
            let newest_first = steps().collect::<Vec<_>>().into_iter().rev();
            let taken =
                newest_first.map(|step| kept.precede(step, bounds)).filter(|taken| *taken).count();
            assert_eq!((kept.len(), taken), (expect, expect), "{count} {bytes_max}");
        };
        check(2, usize::MAX, 2);
        check(9, bytes * 2, 2);
        check(9, bytes - 1, 0);
        check(0, usize::MAX, 0);
        assert_eq!(Step::between(&versions[0], &versions[1], bytes - 1), None);
    }

    /// Everything in a zone of 3 hosts changes: the zone itself is the shorter answer.
    #[test]
    fn a_chain_as_large_as_the_zone_is_not_used() {
        let (old, new) = (version("a.test", 1, 3), version("a.test", 2, 4_000));
        let mut kept = Kept::default();
        kept.keep(step(&old, &new), BOUNDS);
        let last = version("a.test", 3, 3);
        kept.keep(step(&new, &last), BOUNDS);
        assert_eq!(serials(kept.chain(1, &last)), None);
        assert_eq!(serials(kept.chain(2, &last)), None);
    }

    type Record = (Vec<u8>, u16, u32, Vec<u8>);

    /// Applies an answer as a secondary does, record by record.
    fn apply(zone: &mut BTreeSet<Record>, answer: &[Record]) {
        let (first, rest) = answer.split_first().expect("SOA");
        let (last, rest) = rest.split_last().expect("SOA");
        assert_eq!(first, last);
        let mut adding = true;
        for record in rest {
            if record.1 == types::SOA {
                adding = !adding;
            }
            let done = if adding { zone.insert(record.clone()) } else { zone.remove(record) };
            assert!(done, "{record:?} {adding}");
        }
    }

    fn sent<'a>(wires: impl Iterator<Item = Wire<'a>>) -> Vec<Record> {
        let query = request(7, OPCODE_QUERY, 0, zone_name("a.test").as_wire(), types::IXFR);
        let query = Message::parse(&query).expect("query");
        let mut all = Vec::new();
        for message in Messages::new(&query, wires) {
            let message = Message::parse(&message.expect("fits")).expect("own");
            let answers = message.section(Section::Answer);
            all.extend(answers.map(|r| (r.owner.to_vec(), r.rtype, r.ttl_s, r.rdata.to_vec())));
        }
        all
    }

    /// A version of hosts: TTL, spelling, addresses.
    fn any_version(hosts: &[(u8, u32, bool, Vec<u8>)], serial: u32) -> Published {
        let apex = zone_name("a.test");
        let mut builder = Builder::new();
        builder.owner(apex.as_wire()).expect("owner");
        let soa = soa_rdata(&apex, serial);
        let mut rrsig = signature(Rtype::SOA);
        rrsig.extend_from_slice(&serial.to_be_bytes());
        builder.rrset(apex.as_wire(), Rtype::SOA, 60, [&*soa], [&*rrsig]).expect("SOA");
        for (host, ttl_s, upper, addresses) in hosts {
            let letter = if *upper { b'H' } else { b'h' };
            let owner = [&[2, letter, *host][..], apex.as_wire()].concat();
            let rdatas: Vec<_> = addresses.iter().map(|a| [192, 0, 2, *a]).collect();
            let rrsig = [signature(Rtype::A), addresses.clone()].concat();
            builder.owner(&owner).expect("ordered");
            builder
                .rrset(&owner, Rtype::A, *ttl_s, rdatas.iter().map(|r| &r[..]), [&*rrsig])
                .expect("rrset");
        }
        Published::unverified(apex, serial, builder.finish().expect("packed"))
    }

    fn hosts() -> impl Strategy<Value = Vec<(u8, u32, bool, Vec<u8>)>> {
        let addresses = prop::collection::btree_set(0u8..5, 1..4)
            .prop_map(|set| set.into_iter().collect::<Vec<_>>());
        let host = (1u32..3, any::<bool>(), addresses);
        prop::collection::btree_map(b'0'..=b'9', host, 0..9).prop_map(|map| {
            map.into_iter().map(|(host, (ttl, upper, list))| (host, ttl, upper, list)).collect()
        })
    }

    proptest! {
        /// What a secondary makes of the sequences is the version that is up, signatures and the case
        /// of names included.
        #[test]
        fn sequences_make_the_version_that_is_up(hosts in prop::collection::vec(hosts(), 2..5)) {
            let versions: Vec<_> =
                (1..).zip(&hosts).map(|(serial, hosts)| any_version(hosts, serial)).collect();
            let steps: Vec<_> =
                versions.windows(2).map(|pair| Arc::new(step(&pair[0], &pair[1]))).collect();
            let whole = |version: &Published| sent(records(version)).into_iter().collect();
            let mut zone: BTreeSet<Record> = whole(&versions[0]);
            let last = versions.last().expect("two at least");
            apply(&mut zone, &sent(answer(last, &steps)));
            prop_assert_eq!(zone, whole(last));
        }
    }
}
