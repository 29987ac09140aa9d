//! What a zone says to its parent is exactly what was approved, at the apex alone, and signed by a
//! key that the parent may have a DS of. Each tampering is signed again with the zone's own keys
//! wherever the signature is not the point, and refused for what it is.

mod support;

use countersign_policy::signing::{Denial, KeySplit};
use countersign_policy::{Algorithm, KeyRole};
use countersign_zone::stored::{encode, resume, root_of};
use countersign_zone::verify::Place;
use countersign_zone::{CdsSet, Failure, Rtype, VerifiedZone, re_verify, verify};
use proptest::prelude::*;

use support::cds::{DAY_S, Says, any_says, cds_rdata};
use support::keys::SoftKey;
use support::tamper::{Tamper, place, zone};
use support::zones::{self, wire};
use support::{NOW_S, Setup, THREADS, admitted};

const BOTH: [Rtype; 2] = [Rtype::CDS, Rtype::CDNSKEY];

/// A zone that says everything, for ten days.
fn saying() -> Tamper {
    let setup = Setup::new(Algorithm::Ed25519, KeySplit::KskZsk, Denial::Nsec).saying_all();
    Tamper::new(setup, admitted(&zone()))
}

fn set(tamper: &mut Tamper) -> &mut CdsSet {
    tamper.setup.params.cds.as_mut().expect("a set")
}

fn apex(rtype: Rtype) -> Place {
    place("eXample.", rtype)
}

fn check(change: impl FnOnce(&mut Tamper), expect: &Failure) {
    let mut tamper = saying();
    change(&mut tamper);
    assert_eq!(&tamper.failure(), expect);
}

/// The set is not to be in the zone, which has it still.
#[test]
fn nothing_is_said_that_was_not_approved() {
    for (rtype, foreign) in [(Rtype::CDS, 2), (Rtype::CDNSKEY, 1)] {
        check(
            |t| match rtype {
                Rtype::CDS => set(t).cds.clear(),
                _ => set(t).cdnskey.clear(),
            },
            &Failure::WrongCds { place: apex(rtype), missing: 0, foreign },
        );
    }
    check(
        |t| t.setup.params.cds = None,
        &Failure::WrongCds { place: apex(Rtype::CDS), missing: 0, foreign: 2 },
    );
    // The delete form was approved for nobody.
    let mut t = Tamper::new(
        Setup::new(Algorithm::Ed25519, KeySplit::Csk, Denial::Nsec3),
        admitted(&zone()),
    );
    t.put(&wire("eXample."), Rtype::CDS, 3_600, vec![vec![0; 5]]);
    let expect = Failure::WrongCds { place: apex(Rtype::CDS), missing: 0, foreign: 1 };
    assert_eq!(t.failure(), expect);
}

#[test]
fn what_was_approved_is_said_whole() {
    for (rtype, missing) in [(Rtype::CDS, 2), (Rtype::CDNSKEY, 1)] {
        check(
            |t| t.remove(&wire("example."), rtype),
            &Failure::WrongCds { place: place("example.", rtype), missing, foreign: 0 },
        );
    }
    check(
        |t| t.change("example.", Rtype::CDS, |rdatas| rdatas.truncate(1)),
        &Failure::WrongCds { place: apex(Rtype::CDS), missing: 1, foreign: 0 },
    );
}

#[test]
fn not_one_octet_differs() {
    for rtype in BOTH {
        check(
            |t| {
                t.change("example.", rtype, |rdatas| {
                    *rdatas[0].last_mut().expect("an octet") ^= 1;
                });
            },
            &Failure::WrongCds { place: apex(rtype), missing: 1, foreign: 1 },
        );
    }
    check(
        |t| {
            let other = SoftKey::make(Algorithm::Ed25519, KeyRole::Ksk).public.dnskey_rdata(257);
            let other = cds_rdata(&t.setup.params, &other, 2);
            t.change("example.", Rtype::CDS, |rdatas| rdatas.push(other));
        },
        &Failure::WrongCds { place: apex(Rtype::CDS), missing: 0, foreign: 1 },
    );
    check(
        |t| {
            let rdatas = t.rdatas("example.", Rtype::CDS);
            t.put(&wire("eXample."), Rtype::CDS, 60, rdatas);
        },
        &Failure::WrongKeyTtl { place: apex(Rtype::CDS), found: 60, policy: 3_600 },
    );
}

#[test]
fn it_is_said_at_the_apex_alone() {
    for (owner, rtype) in [("www.example.", Rtype::CDS), ("*.wild.example.", Rtype::CDNSKEY)] {
        let mut t = saying();
        let rdatas = t.rdatas("example.", rtype);
        t.put(&wire(owner), rtype, 3_600, rdatas);
        assert_eq!(t.failure(), Failure::Added(place(owner, rtype)));
    }
}

/// A version that is up is verified again without the parameters that it was made under: there
/// the places are all that can be said of CDS and CDNSKEY, and their signatures.
#[test]
fn a_version_that_is_up_is_held_to_places_and_signers() {
    let zone = saying().verify().expect("verified");
    assert_eq!(re_verify(&zone, NOW_S, THREADS), Ok(()));

    let mut t = saying();
    let rdatas = t.rdatas("example.", Rtype::CDS);
    t.put(&wire("www.example."), Rtype::CDS, 3_600, rdatas);
    let elsewhere = Failure::Added(place("www.example.", Rtype::CDS));
    assert_eq!(re_verify(&as_if_stored(&t), NOW_S, THREADS), Err(elsewhere));

    let mut t = saying();
    t.sign_again("example.", Rtype::CDS, KeyRole::Zsk, |_| ());
    let (place, tag) = (apex(Rtype::CDS), t.key(KeyRole::Zsk).public.tag(256));
    let foreign = Failure::ForeignKey { place, tag, algorithm: 15 };
    assert_eq!(re_verify(&as_if_stored(&t), NOW_S, THREADS), Err(foreign));
}

/// What a disk would give whose files, and their hashes, someone has changed.
fn as_if_stored(tamper: &Tamper) -> VerifiedZone {
    let mut file = encode(&saying().verify().expect("verified"));
    file.truncate(11 + wire("example.").len());
    file.extend_from_slice(&tamper.serial.to_be_bytes());
    file.extend_from_slice(
        &u32::try_from(tamper.records.pages().len()).expect("few").to_be_bytes(),
    );
    for page in tamper.records.pages() {
        let nodes = page.as_bytes();
        file.extend_from_slice(&u32::try_from(nodes.len()).expect("short").to_be_bytes());
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, nodes);
        file.extend_from_slice(&hash.as_ref()[..8]);
        file.extend_from_slice(nodes);
    }
    resume(&file, root_of(&file).expect("whole")).expect("resumed")
}

#[test]
fn a_zsk_does_not_speak_to_the_parent() {
    for rtype in BOTH {
        // Alone, and beside the KSK.
        for keep in [false, true] {
            let mut t = saying();
            let mut rrsigs = t.rrsigs("example.", rtype);
            rrsigs.retain(|_| keep);
            let by_zsk = t.sign(&wire("example."), rtype, t.key(KeyRole::Zsk), |_| ());
            rrsigs.push(by_zsk);
            t.set_rrsigs(&wire("example."), rtype, rrsigs);
            let tag = t.key(KeyRole::Zsk).public.tag(256);
            let place = apex(rtype);
            assert_eq!(t.failure(), Failure::ForeignKey { place, tag, algorithm: 15 });
        }
    }
}

#[test]
fn it_is_signed_by_every_ksk() {
    for rtype in BOTH {
        let mut t = saying();
        t.set_rrsigs(&wire("example."), rtype, vec![]);
        let (place, key) = (apex(rtype), t.key(KeyRole::Ksk).public.id());
        assert_eq!(t.failure(), Failure::NotSignedBy { place, key });
    }
    let setup =
        Setup::of_algorithms(&[Algorithm::Ed25519, Algorithm::EcdsaP256Sha256], Denial::Nsec);
    let mut t = Tamper::new(setup.saying_all(), admitted(&zone()));
    let mut rrsigs = t.rrsigs("example.", Rtype::CDS);
    assert_eq!(rrsigs.len(), 2, "by both KSKs and neither ZSK");
    rrsigs.retain(|rrsig| rrsig[2] == 15);
    t.set_rrsigs(&wire("example."), Rtype::CDS, rrsigs);
    let missing = t.setup.keys.iter().find(|key| {
        key.role == KeyRole::Ksk && key.public.algorithm() == Algorithm::EcdsaP256Sha256
    });
    let key = missing.expect("a KSK").public.id();
    assert_eq!(t.failure(), Failure::NotSignedBy { place: apex(Rtype::CDS), key });
}

#[test]
fn the_parent_is_not_led_away_from_the_zone() {
    let stranger = |t: &Tamper| {
        let key = SoftKey::make(Algorithm::Ed25519, KeyRole::Ksk).public.dnskey_rdata(257);
        (cds_rdata(&t.setup.params, &key, 2), key)
    };
    check(
        |t| {
            let (cds, _) = stranger(t);
            set(t).cds = vec![cds.clone()];
            t.change("example.", Rtype::CDS, |rdatas| *rdatas = vec![cds]);
        },
        &Failure::CdsBreaks(apex(Rtype::CDS)),
    );
    check(
        |t| {
            let (_, key) = stranger(t);
            set(t).cdnskey = vec![key.clone()];
            t.change("example.", Rtype::CDNSKEY, |rdatas| *rdatas = vec![key]);
        },
        &Failure::CdsBreaks(apex(Rtype::CDNSKEY)),
    );
    // Nor to its ZSK, which signs no DNSKEY RRset; nor by a digest that does not fit, its tag and
    // algorithm right.
    check(
        |t| {
            let zsk = t.key(KeyRole::Zsk).public.dnskey_rdata(256);
            let cds = cds_rdata(&t.setup.params, &zsk, 4);
            set(t).cds = vec![cds.clone()];
            t.change("example.", Rtype::CDS, |rdatas| *rdatas = vec![cds]);
        },
        &Failure::CdsBreaks(apex(Rtype::CDS)),
    );
    for at in [1, 2, 40] {
        check(
            |t| {
                let ksk = t.key(KeyRole::Ksk).public.dnskey_rdata(257);
                let mut cds = cds_rdata(&t.setup.params, &ksk, 4);
                cds[at] ^= 1;
                set(t).cds = vec![cds.clone()];
                t.change("example.", Rtype::CDS, |rdatas| *rdatas = vec![cds]);
            },
            &Failure::CdsBreaks(apex(Rtype::CDS)),
        );
    }
    // The delete form stands alone.
    check(
        |t| {
            set(t).cds.push(vec![0; 5]);
            t.change("example.", Rtype::CDS, |rdatas| rdatas.push(vec![0; 5]));
        },
        &Failure::CdsBreaks(apex(Rtype::CDS)),
    );
}

#[test]
fn its_signatures_are_short_and_end_with_the_approval() {
    let now = NOW_S as u32;
    let outcome = |until_s: u64, inception: u32, expiration: u32| {
        let mut t = saying();
        set(&mut t).until_s = until_s;
        t.sign_again("example.", Rtype::CDS, KeyRole::Ksk, |fields| {
            (fields.inception, fields.expiration) = (inception, expiration);
        });
        t.sign_again("example.", Rtype::CDNSKEY, KeyRole::Ksk, |fields| {
            (fields.inception, fields.expiration) = (inception, now + 1);
        });
        (t.verify().map(|zone| zone.expirations().cds), t.key(KeyRole::Ksk).public.tag(257))
    };
    let allowed_s = 3 * 86_400 + 3_600;
    let (place, far_s) = (apex(Rtype::CDS), NOW_S + 10 * DAY_S);
    assert_eq!(outcome(far_s, now - 3_600, now + 3 * 86_400).0, Ok(Some(now + 1)));
    let (found, tag) = outcome(far_s, now - 3_601, now + 3 * 86_400);
    let found_s = allowed_s + 1;
    let long = Failure::ValidTooLong { place: place.clone(), tag, found_s, allowed_s };
    assert_eq!(found, Err(long));
    assert_eq!(outcome(NOW_S + 60, now, now + 60).0, Ok(Some(now + 1)));
    let (found, tag) = outcome(NOW_S + 60, now, now + 61);
    let past = Failure::ValidPast { place, tag, expiration: now + 61, until_s: NOW_S + 60 };
    assert_eq!(found, Err(past));
}

#[test]
fn signatures_over_dnskey_end_with_its_approval() {
    let mut t = saying();
    let expiration = NOW_S as u32 + 14 * 86_400;
    let (place, tag) = (apex(Rtype::DNSKEY), t.key(KeyRole::Ksk).public.tag(257));
    t.setup.params.dnskey_until = Some(NOW_S + 14 * DAY_S);
    t.verify().expect("to the second");
    let until_s = NOW_S + 14 * DAY_S - 1;
    t.setup.params.dnskey_until = Some(until_s);
    assert_eq!(t.failure(), Failure::ValidPast { place, tag, expiration, until_s });
}

#[test]
fn bitmaps_name_what_is_said() {
    for denial in [Denial::Nsec, Denial::Nsec3, Denial::Nsec3OptOut] {
        let setup = Setup::new(Algorithm::Ed25519, KeySplit::KskZsk, denial).saying_all();
        let mut t = Tamper::new(setup, admitted(&zone()));
        t.setup.params.cds = None;
        for rtype in BOTH {
            t.remove(&wire("example."), rtype);
        }
        let failure = t.failure();
        let Failure::DenialBitmap { owner, found, expected, .. } = failure else {
            panic!("{failure}");
        };
        assert_eq!(owner.to_string().to_ascii_lowercase(), "example.");
        assert!(BOTH.iter().all(|rtype| found.0.contains(rtype)), "{found}");
        assert!(!BOTH.iter().any(|rtype| expected.0.contains(rtype)), "{expected}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    /// A zone that says one thing is verified under parameters that say another: only equals agree.
    #[test]
    fn a_zone_says_what_its_parameters_say_and_nothing_else(
        said in any_says(),
        approved in any_says(),
        denial in prop::sample::select(vec![Denial::Nsec, Denial::Nsec3, Denial::Nsec3OptOut]),
    ) {
        let setup = Setup::new(Algorithm::Ed25519, KeySplit::KskZsk, denial);
        let setup = setup.says(&said, NOW_S + DAY_S);
        let admitted = admitted(&zones::apex_records());
        let signed = setup.sign(&admitted, NOW_S);
        prop_assert!(verify(signed.clone(), &admitted, &setup.params, NOW_S, THREADS).is_ok());
        // A stand-by key is made anew, so that two sets with one are not equal.
        let stand_by = matches!(approved, Says::Keys { stand_by: true, .. });
        let other = setup.says(&approved, NOW_S + DAY_S);
        let found = verify(signed, &admitted, &other.params, NOW_S, THREADS);
        prop_assert_eq!(found.is_ok(), said == approved && !stand_by);
    }
}
