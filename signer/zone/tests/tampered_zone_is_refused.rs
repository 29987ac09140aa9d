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
use support::tamper::Tamper;
use support::zones::{Record, apex_records, record, wire};
use support::{NOW_S, Setup, admitted};

const ZSK: KeyRole = KeyRole::Zsk;
const KSK: KeyRole = KeyRole::Ksk;

/// One of each: host, wildcard, empty non-terminal, DNAME, insecure and secure delegation, glue.
fn zone() -> Vec<Record> {
    let ds = [&[0x12, 0x34, 13, 2][..], &[7; 32]].concat();
    let more = vec![
        record("www.example.", 1, 300, &[192, 0, 2, 1]),
        record("www.example.", 1, 300, &[192, 0, 2, 2]),
        record("Mixed.example.", 15, 300, &[&[0, 10][..], &wire("Mail.example.")].concat()),
        record("*.wild.example.", 16, 300, b"\x02hi"),
        record("a.b.ent.example.", 1, 300, &[192, 0, 2, 3]),
        record("dname.example.", 39, 300, &wire("other.test.")),
        record("insecure.example.", 2, 3_600, &wire("ns.insecure.example.")),
        record("ns.insecure.example.", 1, 3_600, &[192, 0, 2, 4]),
        record("secure.example.", 2, 3_600, &wire("ns.elsewhere.test.")),
        record("secure.example.", 43, 3_600, &ds),
    ];
    [apex_records(), more].concat()
}

fn tamper(denial: Denial) -> Tamper {
    let setup = Setup::new(Algorithm::Ed25519, KeySplit::KskZsk, denial);
    Tamper::new(setup, admitted(&zone()))
}

fn check(denial: Denial, change: impl FnOnce(&mut Tamper), expect: &Failure) {
    let mut tamper = tamper(denial);
    change(&mut tamper);
    assert_eq!(&tamper.failure(), expect);
}

fn place(owner: &str, rtype: Rtype) -> Place {
    Place::new(&wire(owner), rtype)
}

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
    // CDS speaks to the parent; DNSKEY has one place.
    for rtype in [Rtype::CDS, Rtype::CDNSKEY, Rtype::CSYNC] {
        check(
            Denial::Nsec,
            |t| t.put(&wire("example."), rtype, 300, vec![vec![0; 36]]),
            &Failure::Added(place("example.", rtype)),
        );
    }
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

// ---- NSEC

/// NSEC RDATA of `owner` with another next name or bitmap.
fn nsec(next: &str, bitmap: &[u8]) -> Vec<Vec<u8>> {
    vec![[&wire(next)[..], bitmap].concat()]
}

/// A RRSIG NSEC.
const A_BITMAP: &[u8] = &[0, 6, 0x40, 0, 0, 0, 0, 0x03];

#[test]
fn every_name_has_its_nsec() {
    for owner in ["www.example.", "insecure.example.", "*.wild.example.", "secure.example."] {
        check(
            Denial::Nsec,
            |t| t.remove(&wire(owner), Rtype::NSEC),
            &Failure::DenialMissing { owner: wire(owner)[..].into(), kind: Rtype::NSEC },
        );
    }
}

#[test]
fn no_other_name_has_one() {
    // Glue, an empty non-terminal, a name that is not there.
    for owner in ["ns.insecure.example.", "b.ent.example.", "nobody.example."] {
        check(
            Denial::Nsec,
            |t| t.put(&wire(owner), Rtype::NSEC, 600, nsec("www.example.", A_BITMAP)),
            &Failure::DenialExtra(place(owner, Rtype::NSEC)),
        );
    }
}

#[test]
fn the_nsec_chain_is_closed() {
    let next = |from: &str, found: &str, expected: &str| Failure::DenialNext {
        place: place(from, Rtype::NSEC),
        found: found.to_owned(),
        expected: expected.to_owned(),
    };
    // Skips one name; stays; does not come back to the apex.
    for (from, wrong, right) in [
        ("ns.example.", "www.example.", "secure.example."),
        ("ns.example.", "ns.example.", "secure.example."),
        ("www.example.", "ns.example.", "example."),
    ] {
        check(
            Denial::Nsec,
            |t| t.put(&wire(from), Rtype::NSEC, 600, nsec(wrong, A_BITMAP)),
            &next(from, wrong, right),
        );
    }
}

#[test]
fn nsec_bitmaps_are_exact() {
    let check = |owner: &str, bitmap: &[u8], found: &str, expected: &str| {
        let mut t = tamper(Denial::Nsec);
        let next_end = t.rdatas(owner, Rtype::NSEC).remove(0);
        let len = countersign_zone::name::wire_len(&next_end).expect("a name");
        let rdata = [&next_end[..len], bitmap].concat();
        t.put(&wire(owner), Rtype::NSEC, 600, vec![rdata]);
        match t.failure() {
            Failure::DenialBitmap { place: at, found: said, expected: has, .. } => {
                assert_eq!(at, place(owner, Rtype::NSEC));
                assert_eq!(
                    (said.to_string(), has.to_string()),
                    (found.to_owned(), expected.to_owned())
                );
            }
            other => panic!("{other}"),
        }
    };
    // One type too many, one too few, none, and a form that is not the shortest.
    check("www.example.", &[0, 6, 0x40, 1, 0, 0, 0, 3], "{A MX RRSIG NSEC}", "{A RRSIG NSEC}");
    check("www.example.", &[0, 6, 0, 0, 0, 0, 0, 3], "{RRSIG NSEC}", "{A RRSIG NSEC}");
    check("www.example.", &[], "{}", "{A RRSIG NSEC}");
    check("www.example.", &[0, 7, 0x40, 0, 0, 0, 0, 3, 0], "{A RRSIG NSEC}", "{A RRSIG NSEC}");
    // At a delegation: NS, DS and NSEC are the parent's to say.
    check("secure.example.", &[0, 6, 0x20, 0, 0, 0, 0, 3], "{NS RRSIG NSEC}", "{NS DS RRSIG NSEC}");
}

#[test]
fn nsec_records_are_one_a_name_with_the_ttl_of_rfc_9077() {
    let www = place("www.example.", Rtype::NSEC);
    check(
        Denial::Nsec,
        |t| {
            let rdatas = t.rdatas("www.example.", Rtype::NSEC);
            t.put(&wire("www.example."), Rtype::NSEC, 1_800, rdatas);
        },
        &Failure::DenialTtl { place: www.clone(), found: 1_800, expected: 600 },
    );
    check(
        Denial::Nsec,
        |t| {
            t.change("www.example.", Rtype::NSEC, |rdatas| {
                rdatas.extend(nsec("example.", &[0, 1, 0x40]));
            });
        },
        &Failure::DenialMalformed(www),
    );
}

#[test]
fn one_kind_of_denial_a_zone() {
    check(
        Denial::Nsec,
        |t| t.put(&wire("example."), Rtype::NSEC3PARAM, 0, vec![vec![1, 0, 0, 0, 0]]),
        &Failure::DenialKind(place("example.", Rtype::NSEC3PARAM)),
    );
    check(
        Denial::Nsec3,
        |t| t.put(&wire("www.example."), Rtype::NSEC, 600, nsec("example.", A_BITMAP)),
        &Failure::DenialKind(place("www.example.", Rtype::NSEC)),
    );
    // A zone of one kind under a policy of the other.
    let mut t = tamper(Denial::Nsec);
    t.setup.params.policy.denial = Denial::Nsec3;
    let (owner, kind) = (wire("example.")[..].into(), Rtype::NSEC3PARAM);
    assert_eq!(t.failure(), Failure::DenialMissing { owner, kind });
}

// ---- NSEC3

/// Owners of the NSEC3 chain in order, with the RDATA of each.
fn chain(t: &Tamper) -> Vec<(Vec<u8>, Vec<u8>)> {
    let links = t.records.iter().filter_map(|node| node.rrset(Rtype::NSEC3));
    links
        .map(|rrset| (rrset.owner().to_vec(), rrset.rdatas().next().expect("one").to_vec()))
        .collect()
}

/// Where in the chain the record of `name` is: the only one whose removal is told by that name.
fn position(t: &Tamper, name: &str) -> usize {
    use aws_lc_rs::digest;
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &wire(name));
    // A record's next hashed owner is in its predecessor.
    let before = chain(t)
        .iter()
        .position(|(_, rdata)| &rdata[6..26] == hash.as_ref())
        .expect("the name is in the chain");
    (before + 1) % chain(t).len()
}

fn change_nsec3(t: &mut Tamper, at: usize, change: impl FnOnce(&mut Vec<u8>)) {
    let (owner, mut rdata) = chain(t)[at].clone();
    change(&mut rdata);
    t.put(&owner, Rtype::NSEC3, 600, vec![rdata]);
}

/// Takes a record out and closes the chain over it.
fn unlink(t: &mut Tamper, name: &str) {
    let at = position(t, name);
    let links = chain(t);
    let next = links[at].1[6..26].to_vec();
    t.remove(&links[at].0, Rtype::NSEC3);
    let before = (at + links.len() - 1) % links.len();
    let (owner, mut rdata) = links[before].clone();
    rdata[6..26].copy_from_slice(&next);
    t.put(&owner, Rtype::NSEC3, 600, vec![rdata]);
}

#[test]
fn every_name_has_its_nsec3_empty_non_terminals_too() {
    for name in
        ["www.example.", "ent.example.", "b.ent.example.", "wild.example.", "insecure.example."]
    {
        check(
            Denial::Nsec3,
            |t| unlink(t, name),
            &Failure::DenialMissing { owner: wire(name)[..].into(), kind: Rtype::NSEC3 },
        );
    }
}

#[test]
fn opt_out_covers_insecure_delegations_only() {
    for name in ["secure.example.", "www.example.", "b.ent.example.", "dname.example."] {
        check(
            Denial::Nsec3OptOut,
            |t| unlink(t, name),
            &Failure::DenialMissing { owner: wire(name)[..].into(), kind: Rtype::NSEC3 },
        );
    }
    // A chain that was made without opt-out has them all, which is allowed; its flags are not.
    let mut t = tamper(Denial::Nsec3);
    t.setup.params.policy.denial = Denial::Nsec3OptOut;
    assert!(matches!(
        t.failure(),
        Failure::DenialParameter { parameter: "flags", found: 0, expected: 1, .. }
    ));
    for at in 0..chain(&t).len() {
        change_nsec3(&mut t, at, |rdata| rdata[1] = 1);
    }
    t.verify().expect("insecure delegations may be in an opt-out chain");
    unlink(&mut t, "insecure.example.");
    t.verify().expect("and need not be");
}

#[test]
fn the_nsec3_chain_is_closed() {
    for at in [0, 3] {
        let mut t = tamper(Denial::Nsec3);
        change_nsec3(&mut t, at, |rdata| rdata[25] ^= 1);
        let owner = chain(&t)[at].0.clone();
        match t.failure() {
            Failure::DenialNext { place, .. } => {
                assert_eq!(place, Place::new(&owner, Rtype::NSEC3));
            }
            other => panic!("{other}"),
        }
    }
    // Taken out, and not closed over.
    let mut t = tamper(Denial::Nsec3);
    let (owner, _) = chain(&t)[2].clone();
    t.remove(&owner, Rtype::NSEC3);
    assert!(matches!(t.failure(), Failure::DenialNext { .. }));
}

#[test]
fn nsec3_bitmaps_are_exact_and_told_by_the_name() {
    let mut t = tamper(Denial::Nsec3);
    let at = position(&t, "secure.example.");
    change_nsec3(&mut t, at, |rdata| {
        rdata.truncate(26);
        rdata.extend_from_slice(&[0, 1, 0x20]);
    });
    match t.failure() {
        Failure::DenialBitmap { owner, found, expected, .. } => {
            assert_eq!(owner.to_string(), "secure.example.");
            assert_eq!(
                (found.to_string(), expected.to_string()),
                ("{NS}".into(), "{NS DS RRSIG}".into())
            );
        }
        other => panic!("{other}"),
    }
}

#[test]
fn nsec3_parameters_are_those_of_rfc_9276() {
    let parameter = |change: fn(&mut Vec<u8>), expect: (&str, usize, usize)| {
        let mut t = tamper(Denial::Nsec3);
        change_nsec3(&mut t, 0, change);
        match t.failure() {
            Failure::DenialParameter { parameter, found, expected, .. } => {
                assert_eq!((parameter, found, expected), expect);
            }
            other => panic!("{other}"),
        }
    };
    parameter(|rdata| rdata[0] = 2, ("hash algorithm", 2, 1));
    parameter(|rdata| rdata[1] = 1, ("flags", 1, 0));
    parameter(|rdata| rdata[3] = 1, ("iterations", 1, 0));
    parameter(
        |rdata| {
            rdata[4] = 1;
            rdata.insert(5, 0xab);
        },
        ("salt length", 1, 0),
    );
    check(
        Denial::Nsec3,
        |t| t.change("example.", Rtype::NSEC3PARAM, |rdatas| rdatas[0] = vec![1, 1, 0, 0, 0]),
        &Failure::DenialParameter {
            place: place("eXample.", Rtype::NSEC3PARAM),
            parameter: "flags",
            found: 1,
            expected: 0,
        },
    );
    check(
        Denial::Nsec3,
        |t| t.remove(&wire("example."), Rtype::NSEC3PARAM),
        &Failure::DenialMissing { owner: wire("example.")[..].into(), kind: Rtype::NSEC3PARAM },
    );
}

#[test]
fn no_nsec3_denies_for_what_is_not_there() {
    let label = "0".repeat(32);
    let owner = format!("{label}.example.");
    check(
        Denial::Nsec3,
        |t| {
            let rdata = chain(t)[0].1.clone();
            t.put(&wire(&owner), Rtype::NSEC3, 600, vec![rdata]);
        },
        &Failure::DenialExtra(place(&owner, Rtype::NSEC3)),
    );
    // An owner that is no hash at all.
    check(
        Denial::Nsec3,
        |t| {
            let rdata = chain(t)[0].1.clone();
            t.put(&wire("www.example."), Rtype::NSEC3, 600, vec![rdata]);
        },
        &Failure::DenialExtra(place("www.example.", Rtype::NSEC3)),
    );
}
