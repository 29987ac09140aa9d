//! Random zones, signed and verified here, are judged by ldns-verify-zone and by BIND's
//! dnssec-verify. Either missing fails the test: an oracle that is not asked has not agreed.

mod support;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use countersign_policy::Algorithm;
use countersign_policy::signing::{Denial, KeySplit};
use countersign_zone::{Packed, Rtype};
use proptest::strategy::{Strategy, ValueTree as _};
use proptest::test_runner::TestRunner;

use support::cds::{DAY_S, any_says};
use support::zones::Reader;
use support::{Setup, admitted, oracle, zones};

/// The tools judge by the wall clock.
#[expect(clippy::disallowed_methods, reason = "dnssec-verify takes no time of its own")]
fn wall_clock_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Signs random zones in one way, and has each judged. Returns how many names of each feature the
/// judges have seen.
fn check(algorithm: Algorithm, split: KeySplit, denial: Denial, cases: usize) -> Seen {
    let mut runner = TestRunner::deterministic();
    let mut seen = Seen::default();
    for _ in 0..cases {
        let records = zones::any_zone(0..24).new_tree(&mut runner).expect("a zone").current();
        let says = any_says().new_tree(&mut runner).expect("something").current();
        let setup = Setup::new(algorithm, split, denial).says(&says, wall_clock_s() + DAY_S);
        seen.look_at(&judge(&setup, &records));
    }
    seen
}

/// Signs one zone and has it judged by both tools.
fn judge(setup: &Setup, records: &[zones::Record]) -> Packed {
    judge_as(setup, records, Reader::Ldns)
}

/// The same, by ldns only if it reads every type of the zone.
fn judge_as(setup: &Setup, records: &[zones::Record], reader: Reader) -> Packed {
    let zone = setup.verified(&admitted(records), wall_clock_s());
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), oracle::master_file(zone.records())).expect("written");
    // ldns takes every delegation for one that must be in the chain.
    if setup.params.policy.denial != Denial::Nsec3OptOut && reader == Reader::Ldns {
        oracle::ldns_verifies(file.path());
    }
    oracle::bind_verifies(file.path(), &setup.params);
    zone.records().clone()
}

#[derive(Default)]
struct Seen(BTreeMap<&'static str, usize>);

impl Seen {
    fn look_at(&mut self, records: &Packed) {
        for node in records {
            let below_apex = node.owner().len() > 9;
            let mut count = |what, holds| *self.0.entry(what).or_default() += usize::from(holds);
            count("wildcard", node.owner().starts_with(b"\x01*"));
            count("DNAME", node.has(Rtype::DNAME));
            count("delegation", below_apex && node.has(Rtype::NS) && !node.has(Rtype::DS));
            count("secure delegation", node.has(Rtype::DS));
            count("unknown type", node.has(Rtype(65_280)));
            count("unequal case", node.owner().iter().any(u8::is_ascii_uppercase));
            count("odd octets", node.owner().iter().any(|octet| *octet > 0x7f));
            let at_apex = |rtype| !below_apex && node.has(rtype);
            count("CDS", at_apex(Rtype::CDS));
            count("CDNSKEY", at_apex(Rtype::CDNSKEY));
            count("neither", !below_apex && !node.has(Rtype::CDS) && !node.has(Rtype::CDNSKEY));
            count("large RRset", node.rrset(Rtype::TXT).is_some_and(|rrset| rrset.len() > 4));
        }
    }

    /// A generator that stopped making what it is for would leave the judges nothing to judge.
    fn is_varied(&self) {
        for (what, count) in &self.0 {
            assert!(*count > 0, "no zone had a {what}: {:?}", self.0);
        }
    }
}

#[test]
fn nsec_zones_agree() {
    check(Algorithm::EcdsaP256Sha256, KeySplit::KskZsk, Denial::Nsec, 100).is_varied();
}

#[test]
fn nsec3_zones_agree() {
    check(Algorithm::EcdsaP256Sha256, KeySplit::KskZsk, Denial::Nsec3, 100).is_varied();
}

#[test]
fn nsec3_opt_out_zones_agree() {
    check(Algorithm::EcdsaP256Sha256, KeySplit::KskZsk, Denial::Nsec3OptOut, 100).is_varied();
}

#[test]
fn every_algorithm_agrees() {
    for algorithm in [Algorithm::RsaSha256, Algorithm::EcdsaP384Sha384, Algorithm::Ed25519] {
        check(algorithm, KeySplit::KskZsk, Denial::Nsec3, 3);
    }
}

#[test]
fn csk_zones_agree() {
    check(Algorithm::Ed25519, KeySplit::Csk, Denial::Nsec, 6);
    check(Algorithm::EcdsaP256Sha256, KeySplit::Csk, Denial::Nsec3OptOut, 6);
}

#[test]
fn zones_of_every_type_agree() {
    let mut runner = TestRunner::deterministic();
    for (denial, reader) in [
        (Denial::Nsec, Reader::Ldns),
        (Denial::Nsec3, Reader::Ldns),
        (Denial::Nsec, Reader::Bind),
        (Denial::Nsec3OptOut, Reader::Bind),
    ] {
        for _ in 0..25 {
            let records = zones::any_odd_zone(reader, 0..60);
            let records = records.new_tree(&mut runner).expect("a zone").current();
            let setup = Setup::new(Algorithm::EcdsaP256Sha256, KeySplit::KskZsk, denial);
            judge_as(&setup, &records, reader);
        }
    }
}

#[test]
fn every_octet_in_a_name_agrees() {
    for denial in [Denial::Nsec, Denial::Nsec3, Denial::Nsec3OptOut] {
        let setup = Setup::new(Algorithm::Ed25519, KeySplit::KskZsk, denial);
        let records = judge(&setup, &zones::every_octet());
        assert_eq!(records.iter().filter(|node| node.has(Rtype::TXT)).count(), 16);
    }
}
