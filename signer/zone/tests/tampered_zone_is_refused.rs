//! A verified zone is tampered with, one thing at a time, and each tampering is refused for what
//! it is. What is changed is signed again with the zone's own keys wherever the signature is not
//! the point, so that no other check can cover for a missing one.

mod support;

use countersign_policy::signing::{Denial, KeySplit, SerialPolicy};
use countersign_policy::{Algorithm, KeyRole};
use countersign_zone::verify::{Place, RrsigField};
use countersign_zone::{Failure, Rtype};
use proptest::prelude::*;

use support::keys::SoftKey;
use support::tamper::{Tamper, check, place, tamper, zone};
use support::zones::wire;
use support::{NOW_S, Setup, admitted};

const ZSK: KeyRole = KeyRole::Zsk;
const KSK: KeyRole = KeyRole::Ksk;

// ---- Content

#[test]
fn nothing_is_lost() {
    let a = Rtype::A;
    check(
        Denial::Nsec,
        |t| t.remove(&wire("www.example."), a),
        &Failure::Lost(place("www.example.", a)),
    );
    check(
        Denial::Nsec,
        |t| t.change("www.example.", a, |rdatas| rdatas.truncate(1)),
        &Failure::Lost(place("www.example.", a)),
    );
    check(
        Denial::Nsec3,
        |t| t.remove(&wire("ns.insecure.example."), a),
        &Failure::Lost(place("ns.insecure.example.", a)),
    );
    check(
        Denial::Nsec3,
        |t| t.remove(&wire("*.wild.example."), Rtype::TXT),
        &Failure::Lost(place("*.wild.example.", Rtype::TXT)),
    );
}

#[test]
fn nothing_is_added() {
    let a = Rtype::A;
    check(
        Denial::Nsec,
        |t| t.change("www.example.", a, |rdatas| rdatas.push(vec![192, 0, 2, 99])),
        &Failure::Added(place("www.example.", a)),
    );
    check(
        Denial::Nsec,
        |t| t.put(&wire("www.example."), Rtype::TXT, 300, vec![b"\x01x".to_vec()]),
        &Failure::Added(place("www.example.", Rtype::TXT)),
    );
    check(
        Denial::Nsec3,
        |t| t.put(&wire("new.example."), a, 300, vec![vec![192, 0, 2, 99]]),
        &Failure::Added(place("new.example.", a)),
    );
    check(
        Denial::Nsec3,
        |t| t.put(&wire("example.test."), a, 300, vec![vec![192, 0, 2, 99]]),
        &Failure::BadOwner(wire("example.test.")[..].into()),
    );
    // CSYNC speaks to the parent; DNSKEY has one place. For CDS and CDNSKEY see their own tests.
    check(
        Denial::Nsec,
        |t| t.put(&wire("example."), Rtype::CSYNC, 300, vec![vec![0; 36]]),
        &Failure::Added(place("example.", Rtype::CSYNC)),
    );
    check(
        Denial::Nsec,
        |t| {
            let keys = t.rdatas("example.", Rtype::DNSKEY);
            t.put_raw(&wire("www.example."), Rtype::DNSKEY, 3_600, keys, vec![]);
        },
        &Failure::Added(place("www.example.", Rtype::DNSKEY)),
    );
}

#[test]
fn nothing_is_altered() {
    check(
        Denial::Nsec,
        |t| t.change("www.example.", Rtype::A, |rdatas| rdatas[0][3] = 77),
        &Failure::RdataChanged(place("www.example.", Rtype::A)),
    );
    // One canonical form, but not what was admitted.
    check(
        Denial::Nsec,
        |t| t.change("mixed.example.", Rtype::MX, |rdatas| rdatas[0].make_ascii_lowercase()),
        &Failure::RdataChanged(place("Mixed.example.", Rtype::MX)),
    );
    check(
        Denial::Nsec3,
        |t| t.change("ns.insecure.example.", Rtype::A, |rdatas| rdatas[0][3] = 77),
        &Failure::RdataChanged(place("ns.insecure.example.", Rtype::A)),
    );
    check(
        Denial::Nsec3,
        |t| {
            let rdatas = t.rdatas("www.example.", Rtype::A);
            t.put(&wire("wWw.example."), Rtype::A, 300, rdatas);
        },
        &Failure::OwnerCase {
            place: place("wWw.example.", Rtype::A),
            admitted: wire("www.example.")[..].into(),
        },
    );
    check(
        Denial::Nsec3,
        |t| {
            let rdatas = t.rdatas("www.example.", Rtype::A);
            t.put(&wire("www.example."), Rtype::A, 299, rdatas);
        },
        &Failure::TtlChanged { place: place("www.example.", Rtype::A), found: 299, admitted: 300 },
    );
}

#[test]
fn of_the_soa_only_the_serial_differs_and_as_planned() {
    let soa = place("eXample.", Rtype::SOA);
    let at_serial = |rdata: &mut Vec<u8>| rdata.len() - 20 + 3;
    check(
        Denial::Nsec,
        |t| {
            t.change("example.", Rtype::SOA, |rdatas| {
                let at = at_serial(&mut rdatas[0]);
                rdatas[0][at] ^= 1;
            });
        },
        &Failure::WrongSerial {
            place: soa.clone(),
            found: support::SERIAL ^ 1,
            planned: support::SERIAL,
        },
    );
    check(
        Denial::Nsec,
        |t| {
            t.change("example.", Rtype::SOA, |rdatas| {
                let at = at_serial(&mut rdatas[0]) + 4;
                rdatas[0][at] ^= 1;
            });
        },
        &Failure::RdataChanged(soa),
    );
    check(
        Denial::Nsec,
        |t| t.setup.params.policy.serial = SerialPolicy::Keep,
        &Failure::WrongSerial {
            place: place("example.", Rtype::SOA),
            found: support::SERIAL,
            planned: 7,
        },
    );
}

#[test]
fn another_zone_is_not_this_zone() {
    let mut t = tamper(Denial::Nsec);
    t.setup.params.apex = "test.".parse().expect("name");
    let (found, expected) = (wire("example.")[..].into(), wire("test.")[..].into());
    assert_eq!(t.failure(), Failure::WrongApex { found, expected });
}

// ---- Keys

#[test]
fn the_dnskey_rrset_is_exactly_the_keys_to_be_published() {
    let dnskey = place("eXample.", Rtype::DNSKEY);
    let foreign = SoftKey::make(Algorithm::Ed25519, ZSK).public.dnskey_rdata(256);
    let wrong = |missing, foreign| Failure::WrongKeys { place: dnskey.clone(), missing, foreign };
    check(
        Denial::Nsec,
        |t| t.change("example.", Rtype::DNSKEY, |rdatas| rdatas.push(foreign)),
        &wrong(0, 1),
    );
    check(
        Denial::Nsec,
        |t| {
            let zsk = t.key(ZSK).public.dnskey_rdata(256);
            t.change("example.", Rtype::DNSKEY, |rdatas| rdatas.retain(|rdata| *rdata != zsk));
        },
        &wrong(1, 0),
    );
    // The same key under other flags is another record.
    check(
        Denial::Nsec,
        |t| {
            let zsk = t.key(ZSK).public.dnskey_rdata(256);
            t.change("example.", Rtype::DNSKEY, |rdatas| {
                rdatas.iter_mut().filter(|rdata| **rdata == zsk).for_each(|rdata| rdata[1] = 1);
            });
        },
        &wrong(1, 1),
    );
    check(
        Denial::Nsec,
        |t| {
            let rdatas = t.rdatas("example.", Rtype::DNSKEY);
            t.put(&wire("eXample."), Rtype::DNSKEY, 60, rdatas);
        },
        &Failure::WrongKeyTtl { place: dnskey.clone(), found: 60, policy: 3_600 },
    );
    check(
        Denial::Nsec,
        |t| t.remove(&wire("example."), Rtype::DNSKEY),
        &Failure::Lost(place("example.", Rtype::DNSKEY)),
    );
}

#[test]
fn two_keys_of_one_tag_are_refused() {
    let mut t = tamper(Denial::Nsec);
    let zsk_tag = t.key(ZSK).public.tag(256);
    let twin = std::iter::repeat_with(|| SoftKey::make(Algorithm::Ed25519, ZSK))
        .find(|key| key.public.tag(256) == zsk_tag)
        .expect("one in 65,536");
    let public = twin.public.clone();
    t.setup.params.keys.push(countersign_zone::ZoneKey { role: ZSK, public });
    t.change("example.", Rtype::DNSKEY, |rdatas| rdatas.push(twin.public.dnskey_rdata(256)));
    let place = place("eXample.", Rtype::DNSKEY);
    assert_eq!(t.failure(), Failure::TagCollision { place, tag: zsk_tag });
}

/// The `.de` case: two tokens answer for one key, with two private halves. The signature is good
/// in itself, and carries the tag of the published key.
#[test]
fn a_signature_by_another_key_under_the_published_tag_is_refused() {
    let mut t = tamper(Denial::Nsec3);
    let other = SoftKey::make(Algorithm::Ed25519, ZSK);
    let (tag, key) = (t.key(ZSK).public.tag(256), t.key(ZSK).public.id());
    let rrsig = t.sign(&wire("www.example."), Rtype::A, &other, |fields| fields.tag = tag);
    t.set_rrsigs(&wire("www.example."), Rtype::A, vec![rrsig]);
    let place = place("www.example.", Rtype::A);
    assert_eq!(t.failure(), Failure::BadSignature { place, key, tag });
}

// ---- Signatures

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Any bit of any signature.
    #[test]
    fn one_flipped_bit_anywhere_fails_the_whole(
        which in any::<prop::sample::Index>(),
        bit in any::<prop::sample::Index>(),
        denial in prop::sample::select(vec![Denial::Nsec, Denial::Nsec3, Denial::Nsec3OptOut]),
    ) {
        let mut t = tamper(denial);
        let signed: Vec<(Vec<u8>, Rtype, Vec<u8>)> = t.records.iter()
            .flat_map(|node| node.rrsets())
            .filter_map(|rrset| Some((rrset.owner().to_vec(), rrset.rtype(), rrset.rrsigs().next()?.to_vec())))
            .collect();
        let (owner, rtype, mut rrsig) = signed[which.index(signed.len())].clone();
        let head = 18 + support::apex().as_wire().len();
        let bit = bit.index((rrsig.len() - head) * 8);
        rrsig[head + bit / 8] ^= 1 << (bit % 8);
        t.set_rrsigs(&owner, rtype, vec![rrsig]);
        let key = t.key(if rtype == Rtype::DNSKEY { KSK } else { ZSK });
        let (tag, key) = (key.public.tag(key.role.flags()), key.public.id());
        prop_assert_eq!(t.failure(), Failure::BadSignature { place: Place::new(&owner, rtype), key, tag });
    }
}

#[test]
fn what_is_authoritative_is_signed() {
    for (owner, spelled, rtype) in [
        ("www.example.", "www.example.", Rtype::A),
        ("example.", "eXample.", Rtype::SOA),
        ("example.", "eXample.", Rtype::NS),
        ("*.wild.example.", "*.wild.example.", Rtype::TXT),
        ("secure.example.", "secure.example.", Rtype::DS),
        ("secure.example.", "secure.example.", Rtype::NSEC),
        ("insecure.example.", "insecure.example.", Rtype::NSEC),
    ] {
        check(
            Denial::Nsec,
            |t| t.set_rrsigs(&wire(owner), rtype, vec![]),
            &Failure::Unsigned { place: place(spelled, rtype), algorithm: 15 },
        );
    }
    let mut t = tamper(Denial::Nsec3);
    t.set_rrsigs(&wire("example."), Rtype::DNSKEY, vec![]);
    let (place, key) = (place("eXample.", Rtype::DNSKEY), t.key(KSK).public.id());
    assert_eq!(t.failure(), Failure::NotSignedBy { place, key });
}

#[test]
fn what_is_not_authoritative_is_not_signed() {
    for (owner, rtype) in [
        ("ns.insecure.example.", Rtype::A),
        ("insecure.example.", Rtype::NS),
        ("secure.example.", Rtype::NS),
    ] {
        check(
            Denial::Nsec,
            |t| {
                let rrsig = t.sign(&wire(owner), rtype, t.key(ZSK), |_| ());
                t.set_rrsigs(&wire(owner), rtype, vec![rrsig]);
            },
            &Failure::SignedNotAuthoritative(place(owner, rtype)),
        );
    }
}

#[test]
fn every_algorithm_of_the_dnskey_rrset_signs_everything() {
    let mut setup = Setup::new(Algorithm::Ed25519, KeySplit::KskZsk, Denial::Nsec);
    let second = Setup::new(Algorithm::EcdsaP256Sha256, KeySplit::KskZsk, Denial::Nsec);
    setup.params.keys.extend(second.params.keys);
    setup.keys.extend(second.keys);
    let mut t = Tamper::new(setup, admitted(&zone()));
    let rrsigs = t.rrsigs("www.example.", Rtype::A);
    assert_eq!(rrsigs.len(), 2);
    for (kept, missing) in [(15, 13), (13, 15)] {
        let only = rrsigs.iter().filter(|rrsig| rrsig[2] == kept).cloned().collect();
        t.set_rrsigs(&wire("www.example."), Rtype::A, only);
        let place = place("www.example.", Rtype::A);
        assert_eq!(t.failure(), Failure::Unsigned { place, algorithm: missing });
    }
}

/// Where no key is there to sign the DNSKEY RRset, its lack of a signature is no excuse.
#[test]
fn a_dnskey_rrset_without_a_ksk_is_refused() {
    let mut t = tamper(Denial::Nsec);
    t.setup.params.keys.retain(|key| key.role == ZSK);
    let zsk = t.key(ZSK).public.dnskey_rdata(256);
    t.put_raw(&wire("eXample."), Rtype::DNSKEY, 3_600, vec![zsk], vec![]);
    let place = place("eXample.", Rtype::DNSKEY);
    assert_eq!(t.failure(), Failure::Unsigned { place, algorithm: 15 });
}

#[test]
fn keys_sign_what_their_role_says() {
    let check = |owner: &str, spelled, rtype, role| {
        let mut t = tamper(Denial::Nsec);
        t.sign_again(owner, rtype, role, |_| ());
        let (place, tag) = (place(spelled, rtype), t.key(role).public.tag(role.flags()));
        assert_eq!(t.failure(), Failure::ForeignKey { place, tag, algorithm: 15 });
    };
    check("www.example.", "www.example.", Rtype::A, KSK);
    check("example.", "eXample.", Rtype::DNSKEY, ZSK);
}

#[test]
fn a_key_that_is_not_published_signs_nothing() {
    let mut t = tamper(Denial::Nsec);
    let zsk_tag = t.key(ZSK).public.tag(256);
    let ksk_tag = t.key(KSK).public.tag(257);
    let foreign = std::iter::repeat_with(|| SoftKey::make(Algorithm::Ed25519, ZSK))
        .find(|key| ![zsk_tag, ksk_tag].contains(&key.public.tag(256)))
        .expect("soon");
    let mut rrsigs = t.rrsigs("www.example.", Rtype::A);
    rrsigs.push(t.sign(&wire("www.example."), Rtype::A, &foreign, |_| ()));
    t.set_rrsigs(&wire("www.example."), Rtype::A, rrsigs);
    let (place, tag) = (place("www.example.", Rtype::A), foreign.public.tag(256));
    assert_eq!(t.failure(), Failure::ForeignKey { place, tag, algorithm: 15 });
}

#[test]
fn one_signature_a_key() {
    let mut t = tamper(Denial::Nsec);
    let rrsigs = [t.rrsigs("www.example.", Rtype::A), t.rrsigs("www.example.", Rtype::A)].concat();
    t.set_rrsigs(&wire("www.example."), Rtype::A, rrsigs);
    let (place, tag) = (place("www.example.", Rtype::A), t.key(ZSK).public.tag(256));
    assert_eq!(t.failure(), Failure::SignedTwice { place, tag });
}

#[test]
fn fields_say_what_they_should() {
    use support::tamper::Fields;
    let check = |owner: &str, rtype, change: fn(&mut Fields), expect: (RrsigField, &str, &str)| {
        let mut t = tamper(Denial::Nsec);
        t.sign_again(owner, rtype, ZSK, change);
        let (field, found, expected) = expect;
        let failure = Failure::WrongField {
            place: place(owner, rtype),
            tag: t.key(ZSK).public.tag(256),
            field,
            found: found.to_owned(),
            expected: expected.to_owned(),
        };
        assert_eq!(t.failure(), failure);
    };
    let a = Rtype::A;
    check("www.example.", a, |f| f.labels = 1, (RrsigField::Labels, "1", "2"));
    check("*.wild.example.", Rtype::TXT, |f| f.labels = 3, (RrsigField::Labels, "3", "2"));
    check("www.example.", a, |f| f.ttl_s = 1, (RrsigField::OriginalTtl, "1", "300"));
    check("www.example.", a, |f| f.covered = 16, (RrsigField::TypeCovered, "TXT", "A"));
    check(
        "www.example.",
        a,
        |f| f.signer = wire("test."),
        (RrsigField::Signer, "test.", "example."),
    );
}

#[test]
fn an_rrsig_that_can_not_be_read_is_refused() {
    for cut in [0, 17, 18, 20] {
        check(
            Denial::Nsec,
            |t| {
                let mut rrsig = t.rrsigs("www.example.", Rtype::A).remove(0);
                rrsig.truncate(cut);
                t.set_rrsigs(&wire("www.example."), Rtype::A, vec![rrsig]);
            },
            &Failure::MalformedRrsig(place("www.example.", Rtype::A)),
        );
    }
}

#[test]
fn signatures_are_valid_now_and_no_longer_than_policy_allows() {
    let now = NOW_S as u32;
    let outcome = |inception: u32, expiration: u32| {
        let mut t = tamper(Denial::Nsec);
        t.sign_again("www.example.", Rtype::A, ZSK, |fields| {
            (fields.inception, fields.expiration) = (inception, expiration);
        });
        (t.verify().map(|zone| zone.earliest_expiration()), t.key(ZSK).public.tag(256))
    };
    let place = place("www.example.", Rtype::A);
    assert_eq!(outcome(now, now + 1).0, Ok(now + 1));
    let (found, tag) = outcome(now - 2, now);
    let expired = Failure::Expired { place: place.clone(), tag, expiration: now, now };
    assert_eq!(found, Err(expired));
    let (found, tag) = outcome(now + 1, now + 9);
    let early = Failure::NotYetValid { place: place.clone(), tag, inception: now + 1, now };
    assert_eq!(found, Err(early));
    let allowed_s = 14 * 86_400 + 3_600;
    let (found, tag) = outcome(now - 1, now + allowed_s);
    let long = Failure::ValidTooLong { place, tag, found_s: allowed_s + 1, allowed_s };
    assert_eq!(found, Err(long));
}

#[test]
fn a_version_that_has_expired_does_not_go_out() {
    let mut t = tamper(Denial::Nsec3);
    t.now_s += 14 * 86_400;
    assert!(matches!(t.failure(), Failure::Expired { .. }));
    t.now_s -= 30 * 86_400;
    assert!(matches!(t.failure(), Failure::NotYetValid { .. }));
}
