//! What a keeper is for: it makes the keys that its officers approved, and signs by their rules.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
use countersign_hsm::keeper::judge::build_dnskey_tbs;
use countersign_policy::ledger::{Entry, Operation, Outcome};
use countersign_policy::{Algorithm, KeyRole, PublicKey};

use crate::bed::{Item, Site, child, key_of, order, zone};

fn verifies(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    if key.algorithm() == Algorithm::Ed25519 {
        return UnparsedPublicKey::new(&ED25519, key.bytes()).verify(message, signature).is_ok();
    }
    let point = [&[4], key.bytes()].concat();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
}

#[test]
fn a_zone_is_signed_and_the_ledger_tells_it() {
    let site = Site::founded();
    let keeper = site.signing();
    let client = keeper.ready();
    assert_eq!(client.zones().expect("zones"), [child(), zone()]);
    let keys = client.zone(&zone()).expect("keys");
    let zsk = key_of(&keys, KeyRole::Zsk);
    assert_eq!(zsk.proven_by, ["zsk-a"]);

    let mut wildcard = Item::of(&zsk);
    (wildcard.owner, wildcard.labels) = (b"\x01*\x07example\0".to_vec(), 1);
    let items = vec![Item::of(&zsk).octets(), wildcard.octets()];
    let signed = client.sign_zone(&zone(), zsk.public.id(), items.clone()).expect("answered");
    for (item, signature) in items.iter().zip(signed) {
        assert!(verifies(&zsk.public, item, &signature.expect("signed")));
    }

    let order = order(&keys);
    let signature = client.sign_dnskey(&zone(), order.clone()).expect("signed");
    let ksk = key_of(&keys, KeyRole::Ksk);
    let all: Vec<_> = keys.keys.iter().map(|key| (key.role, &key.public)).collect();
    let times = (order.inception, order.expiration);
    let tbs = build_dnskey_tbs(&zone(), &all, (ksk.role, &ksk.public), order.ttl_s, times);
    assert!(verifies(&ksk.public, &tbs, &signature));

    client.published(&zone(), 7, [5; 32]).expect("recorded");
    let lines = site.ledger();
    let [.., intent, outcome, published] = &lines[..] else { panic!("{lines:?}") };
    let Entry::Intent { operation: Operation::SignDnskey { zone: of, .. }, .. } = &intent.entry
    else {
        panic!("{intent:?}")
    };
    assert_eq!(*of, zone());
    assert!(
        matches!(&outcome.entry, Entry::Outcome { intent: of, outcome: Outcome::Signed { .. } }
        if *of == intent.seq)
    );
    let Entry::ZoneSigned { serial, signatures, .. } = &published.entry else {
        panic!("{published:?}")
    };
    assert_eq!((*serial, signatures.get(&zsk.public.id())), (7, Some(&2)));
}

#[test]
fn a_csk_signs_both_by_its_own_door() {
    let site = Site::founded();
    let keeper = site.signing();
    let client = keeper.ready();
    let keys = client.zone(&child()).expect("keys");
    let csk = key_of(&keys, KeyRole::Csk);
    let mut item = Item::of(&csk);
    item.signer = child().as_wire().to_vec();
    (item.owner, item.labels) = (b"\x03www\x05child\x07example\0".to_vec(), 3);
    item.expiration = item.inception + 3600 + 80_000;
    item.inception = item.expiration - 80_000;
    let octets = item.octets();
    let answers =
        client.sign_zone(&child(), csk.public.id(), vec![octets.clone()]).expect("answer");
    assert!(verifies(&csk.public, &octets, answers[0].as_ref().expect("signed")));
    client.sign_dnskey(&child(), order(&keys)).expect("signed");
}

#[test]
fn the_ledger_is_read_over_its_own_socket() {
    let site = Site::founded();
    let keeper = site.signing();
    let client = keeper.ready();
    let mut reader = keeper.ledger_client();
    let (lines, founding) = reader.head().expect("head");
    assert_eq!(founding, Some(client.keeper().expect("hello").founding));
    let read = reader.read(0, u32::MAX).expect("lines");
    assert_eq!(read.len() as u64, lines);
    assert_eq!(
        [read.join(&b'\n'), b"\n".to_vec()].concat(),
        site.read("state/ledger.jsonl").into_bytes()
    );
    assert_eq!(reader.read(2, 1).expect("one"), [read[2].clone()]);
    assert!(reader.read(lines, 10).expect("none").is_empty());
}
