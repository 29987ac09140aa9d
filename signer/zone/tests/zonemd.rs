//! A zone that carries its own digest (RFC 8976): it is made last, signed like the rest, right by the
//! judgement of ldns, and wrong as soon as anything else of the zone changes.

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use countersign_policy::signing::{Denial, KeySplit};
use countersign_policy::{Algorithm, KeyRole};
use countersign_zone::{Failure, Rtype, plan, verify};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use support::cds::{DAY_S, Says};
use support::tamper::{Tamper, place, zone};
use support::zones::{any_zone, record, wire};
use support::{NOW_S, SERIAL, Setup, THREADS, admitted, oracle};

fn setup(denial: Denial) -> Setup {
    let mut setup = Setup::new(Algorithm::EcdsaP256Sha256, KeySplit::KskZsk, denial);
    setup.params.zonemd = true;
    setup
}

/// The tools judge by the wall clock.
#[expect(clippy::disallowed_methods, reason = "ldns-verify-zone takes no time of its own")]
fn wall_clock_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

#[test]
fn ldns_finds_it_right_and_signed() {
    let mut runner = TestRunner::deterministic();
    for denial in [Denial::Nsec, Denial::Nsec3] {
        for _ in 0..20 {
            let records = any_zone(0..24).new_tree(&mut runner).expect("a zone").current();
            let setup = setup(denial).says(&Says::all(), wall_clock_s() + DAY_S);
            let zone = setup.verified(&admitted(&records), wall_clock_s());
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), oracle::master_file(zone.records())).expect("written");
            // ldns 1.8.3 checks no ZONEMD of a zone with NSEC3: it walks its hashes for ever.
            if denial == Denial::Nsec {
                oracle::ldns_requires_zonemd(file.path());
            }
            oracle::bind_verifies(file.path(), &setup.params);
        }
    }
}

#[test]
fn one_below_the_apex_is_data_like_any_other() {
    let theirs = [&[0, 0, 0, 1, 1, 1][..], &[7; 48]].concat();
    let mut records = zone();
    records.push(record("www.example.", Rtype::ZONEMD.0, 300, &theirs));
    records.push(record("example.", Rtype::ZONEMD.0, 300, &theirs));
    for zonemd in [true, false] {
        let mut setup = setup(Denial::Nsec);
        setup.params.zonemd = zonemd;
        let version = setup.verified(&admitted(&records), NOW_S);
        let below = version.rrset(&wire("www.example."), Rtype::ZONEMD).expect("kept");
        assert!(below.rdatas().eq([&theirs[..]]));
        let at_apex = version.rrset(&wire("example."), Rtype::ZONEMD);
        assert_eq!(at_apex.is_some(), zonemd, "the primary's own is left out");
    }
}

#[test]
fn every_version_has_its_own() {
    let setup = setup(Denial::Nsec3);
    let admitted = admitted(&zone());
    let first = setup.verified(&admitted, NOW_S);
    let planned =
        plan(&admitted, Some(&first), &setup.params, SERIAL + 1, NOW_S + DAY_S).expect("planned");
    assert_eq!(planned.missing(), 2, "SOA and ZONEMD; all other signatures are kept");
    let signed = setup.complete(planned);
    let next = verify(signed, &admitted, &setup.params, NOW_S + DAY_S, THREADS).expect("verified");
    let digest = |zone: &countersign_zone::VerifiedZone| {
        let rrset = zone.rrset(&wire("example."), Rtype::ZONEMD).expect("there");
        rrset.rdatas().next().expect("one").to_vec()
    };
    let (first, next) = (digest(&first), digest(&next));
    assert_eq!(first[..6], [&SERIAL.to_be_bytes()[..], &[1, 1]].concat());
    assert_eq!(next[..4], (SERIAL + 1).to_be_bytes());
    assert_ne!(first[6..], next[6..]);
}

#[test]
fn keys_of_two_algorithms_both_sign_it() {
    let algorithms = [Algorithm::EcdsaP256Sha256, Algorithm::Ed25519];
    let mut setup = Setup::of_algorithms(&algorithms, Denial::Nsec);
    setup.params.zonemd = true;
    let version = setup.verified(&admitted(&zone()), NOW_S);
    let rrset = version.rrset(&wire("example."), Rtype::ZONEMD).expect("there");
    assert_eq!(rrset.rrsigs().count(), 2);
}

fn refused(change: impl FnOnce(&mut Tamper), expect: &Failure) {
    let mut tamper = Tamper::new(setup(Denial::Nsec), admitted(&zone()));
    change(&mut tamper);
    assert_eq!(&tamper.failure(), expect);
}

fn wrong(change: impl FnOnce(&mut Tamper), problem: &'static str) {
    let place = place("example.", Rtype::ZONEMD);
    refused(change, &Failure::WrongZonemd { place, problem });
}

#[test]
fn it_is_the_digest_of_this_very_zone() {
    let not_the_digest = "is not the digest of the zone";
    // Data as it was, signed anew with another time: nothing but the digest tells.
    wrong(
        |t| {
            t.sign_again("www.example.", Rtype::A, KeyRole::Zsk, |fields| fields.expiration -= 1);
        },
        not_the_digest,
    );
    let change = |at: usize| {
        move |t: &mut Tamper| t.change("example.", Rtype::ZONEMD, |rdatas| rdatas[0][at] ^= 1)
    };
    wrong(change(6), not_the_digest);
    wrong(change(53), not_the_digest);
    wrong(|t| t.change("example.", Rtype::ZONEMD, |rdatas| rdatas[0].truncate(53)), not_the_digest);
    let head = "has not the SOA's serial, SIMPLE and SHA-384";
    for at in [3, 4, 5] {
        wrong(change(at), head);
    }
    wrong(
        |t| {
            t.change("example.", Rtype::ZONEMD, |rdatas| {
                let mut other = rdatas[0].clone();
                other[5] = 2;
                rdatas.push(other);
            });
        },
        "is not one record",
    );
    wrong(
        |t| {
            let rdatas = t.rdatas("example.", Rtype::ZONEMD);
            t.put(&wire("eXample."), Rtype::ZONEMD, 60, rdatas);
        },
        "has not the TTL of the SOA",
    );
}

#[test]
fn it_is_there_and_signed_where_it_should_be_and_nowhere_else() {
    let place = || place("example.", Rtype::ZONEMD);
    let unsigned = Failure::Unsigned {
        place: support::tamper::place("eXample.", Rtype::ZONEMD),
        algorithm: 13,
    };
    refused(|t| t.set_rrsigs(&wire("example."), Rtype::ZONEMD, vec![]), &unsigned);
    let mut none = Tamper::new(setup(Denial::Nsec), admitted(&zone()));
    none.setup.params.zonemd = false;
    assert_eq!(none.failure(), Failure::Added(support::tamper::place("eXample.", Rtype::ZONEMD)));
    let mut lost = setup(Denial::Nsec);
    lost.params.zonemd = false;
    let mut lost = Tamper::new(lost, admitted(&zone()));
    lost.setup.params.zonemd = true;
    assert_eq!(lost.failure(), Failure::Lost(place()));
}
