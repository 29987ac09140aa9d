//! Items that differ from a valid one in one thing, at random and on purpose.

use countersign_policy::signing::Denial;
use countersign_policy::{Algorithm, KeyRole};
use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000;

fn policy() -> SigningPolicy {
    SigningPolicy { denial: Denial::Nsec, ..countersign_policy::testing::policy() }
}

fn zone() -> ZoneName {
    "example.".parse().expect("name")
}

fn public() -> PublicKey {
    PublicKey::new(Algorithm::EcdsaP256Sha256, &[5; 64]).expect("key")
}

fn judge_as(role: KeyRole, tbs: &[u8]) -> Result<(), Refusal> {
    let exported = |name: &ZoneName| match name.to_string().as_str() {
        "example." | "child.example." => Some(BTreeSet::new()),
        "approved.example." => Some([vec![1], vec![2, 2]].into()),
        _ => None,
    };
    let (zone, public, policy) = (zone(), public(), policy());
    let key = KeyInUse { zone: &zone, role, public: &public, policy: &policy };
    judge_zone_tbs(&key, &exported, NOW, tbs)
}

fn prefix(covered: u16, labels: u8) -> Vec<u8> {
    let mut tbs = covered.to_be_bytes().to_vec();
    tbs.extend([13, labels]);
    tbs.extend(300_u32.to_be_bytes());
    tbs.extend((NOW as u32 + 14 * 86_400).to_be_bytes());
    tbs.extend((NOW as u32 - 3_600).to_be_bytes());
    tbs.extend(public().tag(256).to_be_bytes());
    tbs.extend(zone().as_wire());
    tbs
}

fn record(owner: &[u8], rtype: u16, rdata: &[u8]) -> Vec<u8> {
    let mut octets = owner.to_vec();
    octets.extend(rtype.to_be_bytes());
    octets.extend([0, 1]);
    octets.extend(300_u32.to_be_bytes());
    octets.extend((rdata.len() as u16).to_be_bytes());
    octets.extend(rdata);
    octets
}

fn item(owner: &[u8], labels: u8, rtype: u16, rdatas: &[&[u8]]) -> Vec<u8> {
    let mut tbs = prefix(rtype, labels);
    for rdata in rdatas {
        tbs.extend(record(owner, rtype, rdata));
    }
    tbs
}

fn valid() -> Vec<u8> {
    item(b"\x03www\x07example\0", 2, 1, &[&[192, 0, 2, 1], &[192, 0, 2, 2]])
}

fn check(tbs: &[u8], expect: &str) {
    match judge_as(KeyRole::Zsk, tbs) {
        Ok(()) => assert_eq!(expect, "allowed"),
        Err(refusal) => assert!(refusal.detail.contains(expect), "{refusal} / {expect}"),
    }
}

#[test]
fn what_a_zone_holds_is_allowed() {
    check(&valid(), "allowed");
    let apex = b"\x07example\0";
    for rtype in [1, 2, 5, 6, 15, 16, 28, 39, 47, 50, 51, 52, 63, 65, 257, 32_768, 65_280] {
        check(&item(apex, 1, rtype, &[&[0]]), "allowed");
    }
    check(&item(b"\x01*\x07example\0", 1, 16, &[&[]]), "allowed");
    check(&item(b"\x01*\x01*\x07example\0", 2, 16, &[&[]]), "allowed");
    check(&item(b"\x02\x00\xff\x07example\0", 2, 16, &[&[1], &[1, 0], &[2]]), "allowed");
    check(&item(b"\x03sub\x07example\0", 2, 43, &[&[1]]), "allowed");
}

#[test]
fn of_a_zone_signed_here_exactly_the_exported_ds_are_signed() {
    let ds = |rdatas: &[&[u8]]| item(b"\x08approved\x07example\0", 2, 43, rdatas);
    check(&ds(&[&[1], &[2, 2]]), "allowed");
    for other in [&[&[1][..]][..], &[&[2, 2]], &[&[1], &[2, 2], &[3]], &[&[1], &[2]], &[&[9]]] {
        check(&ds(other), "expected exactly the 2 that the last export-ds motion named");
    }
}

#[test]
fn each_thing_that_may_be_wrong_is_named() {
    let www = b"\x03www\x07example\0".as_slice();
    check(&item(b"\x05child\x07example\0", 2, 43, &[&[1]]), "a DS of child.example.");
    check(&item(b"\x07example\0", 1, 43, &[&[1]]), "a DS of example.");
    check(&item(b"\x01*\x07example\0", 1, 43, &[&[1]]), "a DS of a wildcard");
    check(&item(b"\x01*\x07example\0", 2, 16, &[&[]]), "labels field is 2; the owner has 1");
    check(&item(www, 1, 1, &[&[1]]), "labels field is 1; the owner has 2");
    check(&item(b"\x03WWW\x07example\0", 2, 1, &[&[1]]), "not in lower case");
    check(&item(b"\x03www\x07EXAMPLE\0", 2, 1, &[&[1]]), "not in lower case");
    check(&item(b"\x03www\xc0\x0c", 2, 1, &[&[1]]), "compressed");
    check(&item(b"\x03www\x06xample\0", 2, 1, &[&[1]]), "is not in example.");
    check(&item(b"\x0awwwexample\0", 1, 1, &[&[1]]), "is not in example.");
    check(&item(b"\0", 0, 1, &[&[1]]), "is not in example.");
    check(&item(www, 2, 1, &[&[2], &[1]]), "strictly ascending");
    check(&item(www, 2, 1, &[&[1], &[1]]), "strictly ascending");
    check(&item(www, 2, 1, &[]), "there is no record");
    check(&[valid(), record(b"\x02ww\x07example\0", 1, &[200])].concat(), "more than one owner");
    check(&[valid(), record(www, 2, &[200])].concat(), "type 2 under type covered 1");
    check(&[valid(), vec![0]].concat(), "more than one owner");
    let long = [[&[63][..], &[b'a'; 63]].concat().repeat(4), b"\0".to_vec()].concat();
    check(&item(&long, 4, 1, &[&[1]]), "longer than 255");
    let mut class = valid();
    let at = class.len() - 4 - 2 - 4 - 2;
    class[at + 1] = 3;
    check(&class, "class 3");
    let refused = judge_as(KeyRole::Ksk, &valid()).expect_err("a KSK");
    assert!(refused.detail.contains("does not sign zone data"), "{refused}");
    // A CSK has another tag: its flags are a KSK's.
    assert!(judge_as(KeyRole::Csk, &valid()).expect_err("tag").detail.contains("key tag"));
}

#[test]
fn no_key_signs_what_speaks_for_keys_or_to_the_parent() {
    for rtype in [48, 59, 60, 62, 46, 0, 41, 128, 249, 250, 251, 252, 255, 65_535] {
        check(&item(b"\x07example\0", 1, rtype, &[&[1]]), &format!("type {rtype}: "));
    }
}

#[test]
fn the_cds_rrset_is_built_from_the_ledgers_rdatas() {
    let public = public();
    let rdatas = [vec![0, 1, 13, 2, 9], vec![0, 1, 13, 2, 3]].into();
    for rrset in [CdsType::Cds, CdsType::Cdnskey] {
        let tbs = build_cds_tbs(&zone(), rrset, &rdatas, (KeyRole::Ksk, &public), 60, (1, 2));
        let item = parse(&tbs).expect("its own form");
        assert_eq!((item.covered, item.ttl_s), (rrset.number(), 60));
        assert_eq!((item.inception, item.expiration, item.tag), (1, 2, public.tag(257)));
        assert!(tbs.ends_with(&[0, 5, 0, 1, 13, 2, 9]), "in the order of their octets");
    }
}

#[test]
fn the_dnskey_rrset_is_built_in_canonical_order() {
    let keys: Vec<PublicKey> = [9, 3]
        .map(|octet| PublicKey::new(Algorithm::EcdsaP256Sha256, &[octet; 64]).expect("key"))
        .into();
    let set = [(KeyRole::Ksk, &keys[0]), (KeyRole::Zsk, &keys[1])];
    let tbs = build_dnskey_tbs(&zone(), &set, set[0], 60, (1, 2));
    let item = parse(&tbs).expect("its own form");
    assert_eq!((item.covered, item.ttl_s, item.inception, item.expiration), (48, 60, 1, 2));
    assert_eq!(item.tag, keys[0].tag(257));
    let flags = |at: usize| u16::from_be_bytes([tbs[at], tbs[at + 1]]);
    let first = 18 + 9 + 9 + 10;
    assert_eq!((flags(first), flags(first + 68 + 9 + 10)), (256, 257));
    let again = build_dnskey_tbs(&zone(), &[set[1], set[0], set[1]], set[0], 60, (1, 2));
    assert_eq!(tbs, again, "order and repetition in the list do not matter");
}

/// What was judged and allowed, put together again from what it means.
fn rebuilt(tbs: &[u8]) -> Vec<u8> {
    let item = parse(tbs).expect("allowed");
    let mut octets = item.covered.to_be_bytes().to_vec();
    octets.extend([item.algorithm, rrsig_labels(item.owner)]);
    octets.extend(item.ttl_s.to_be_bytes());
    octets.extend(item.expiration.to_be_bytes());
    octets.extend(item.inception.to_be_bytes());
    octets.extend(item.tag.to_be_bytes());
    octets.extend(item.signer);
    let mut reader = Octets { rest: &tbs[octets.len()..] };
    while !reader.rest.is_empty() {
        reader.name("owner").expect("parsed before");
        let rdata = reader.record(item.covered, item.ttl_s).expect("parsed before");
        octets.extend(item.owner);
        octets.extend(item.covered.to_be_bytes());
        octets.extend([0, 1]);
        octets.extend(item.ttl_s.to_be_bytes());
        octets.extend((rdata.len() as u16).to_be_bytes());
        octets.extend(rdata);
    }
    octets
}

proptest! {
    #[test]
    fn random_octets_are_refused_and_never_panic(tbs in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(judge_as(KeyRole::Zsk, &tbs).is_err());
    }

    /// Whatever is changed: what is still allowed means exactly what its octets say, stays in the
    /// zone, within the policy, and of a type that a ZSK may sign.
    #[test]
    fn what_is_still_allowed_is_within_the_rules(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut tbs = valid();
        for (at, octet) in changes {
            let at = at.index(tbs.len());
            tbs[at] = octet;
        }
        if let Some(cut) = cut {
            tbs.truncate(cut.index(tbs.len()));
        }
        if judge_as(KeyRole::Zsk, &tbs).is_ok() {
            prop_assert_eq!(&rebuilt(&tbs), &tbs);
            let item = parse(&tbs).expect("allowed");
            prop_assert!(item.signer == zone().as_wire());
            prop_assert_eq!(item.tag, public().tag(256));
            prop_assert_eq!(item.algorithm, 13);
            prop_assert!(zone().contains_wire(item.owner));
            prop_assert!(judge_type(item.covered).is_ok());
            prop_assert!(item.ttl_s <= policy().ttl_max_s);
            prop_assert!(u64::from(item.expiration) > NOW);
            prop_assert!(u64::from(item.expiration) <= NOW + 14 * 86_400 + 300);
        }
    }

    #[test]
    fn a_prefix_of_an_item_is_none(cut in 0..100_usize) {
        let whole = valid();
        let one_record = item(b"\x03www\x07example\0", 2, 1, &[&[192, 0, 2, 1]]).len();
        prop_assume!(cut < whole.len() && cut != one_record);
        prop_assert!(judge_as(KeyRole::Zsk, &whole[..cut]).is_err());
    }
}
