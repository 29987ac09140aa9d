//! What a KSK signs, and what may be told to the parent.

use std::collections::BTreeSet;

use super::{next_policy, refused};
use crate::ds::{Ds, DsDigest};
use crate::key::{KeyId, KeyRole};
use crate::ledger::{CdsType, Entry, Operation, Outcome};
use crate::motion::{Motion, Scope};
use crate::permit::Denied;
use crate::signing::DnskeyApproval;
use crate::state::{CDS_VALIDITY_S, DAY_S};
use crate::testing::{World, policy, zone};

/// The active KSK and the ZSK.
fn keys(world: &World) -> (KeyId, KeyId) {
    let of = |role| {
        let zone = zone();
        let mut keys = world.state.dnskeys_of(&zone);
        keys.find(|(_, key)| key.role == role).map(|(id, _)| *id).expect("a key")
    };
    (of(KeyRole::Ksk), of(KeyRole::Zsk))
}

#[track_caller]
fn check(world: &World, operation: &Operation, expect: &str) {
    let under = world.state.standing(operation, world.now).unwrap_or(0);
    match world.state.allows(operation, under, world.now) {
        Ok(()) => assert_eq!(expect, "allowed", "{operation:?}"),
        Err(denied) => {
            let text = denied.to_string();
            assert!(text.contains(expect), "{text}\nexpected: {expect}");
        }
    }
}

fn with_keys(operation: &Operation, set: &[KeyId]) -> Operation {
    let mut operation = operation.clone();
    let Operation::SignDnskey { keys, .. } = &mut operation else { panic!("sign") };
    *keys = set.iter().copied().collect();
    operation
}

#[test]
fn a_ksk_signs_exactly_the_zones_keys() {
    let mut world = World::signing();
    let (ksk, zsk) = keys(&world);
    let foreign = KeyId([9; 32]);
    let sign = world.sign_dnskey(ksk);
    check(&world, &sign, "allowed");
    check(&world, &with_keys(&sign, &[ksk]), "holds exactly its keys");
    check(&world, &with_keys(&sign, &[ksk, zsk, foreign]), "holds exactly its keys");
    check(&world, &world.sign_dnskey(zsk), "is a ZSK and does not sign");
    check(&world, &world.sign_dnskey(foreign), "has no key");
    let mut other_ttl = sign.clone();
    if let Operation::SignDnskey { ttl_s, .. } = &mut other_ttl {
        *ttl_s += 1;
    }
    check(&world, &other_ttl, "has a TTL of 3600");
    let mut long = sign.clone();
    if let Operation::SignDnskey { expiration, .. } = &mut long {
        *expiration += 15 * DAY_S as u32;
    }
    check(&world, &long, "the zone's policy allows");
    let binding = world.state.zones()[&zone()].line;
    assert!(world.state.allows(&sign, binding + 1, world.now).is_err(), "under its line alone");
    let (key, token, found) = (zsk, "zsk-a".to_owned(), "another key".to_owned());
    world.add(Entry::KeyConflict { key, token, found }).expect("conflict");
    check(&world, &sign, "answers for it with another key");
    world.add(Entry::KeyCleared { key: zsk }).expect("cleared");
    // A KSK that only waits does not sign.
    let waiting = world.make_ksk(false);
    check(&world, &world.sign_dnskey(waiting), "is not in the DNSKEY RRset");
    assert!(!world.state.keys()[&ksk].published);
    let intent = world.intend(sign).expect("intent");
    assert!(world.state.keys()[&ksk].published);
    world.end(intent, Outcome::Unknown { reason: "power".to_owned() }).expect("unknown");
}

#[test]
fn a_ksk_rests_while_frozen_and_while_the_clock_is_wrong() {
    let mut world = World::signing();
    let (ksk, _) = keys(&world);
    for now in [world.now - DAY_S, world.now + 31 * DAY_S, world.now + 3650 * DAY_S] {
        let right = std::mem::replace(&mut world.now, now);
        let sign = world.sign_dnskey(ksk);
        let under = world.state.standing(&sign, now).expect("standing");
        assert!(matches!(world.state.allows(&sign, under, now), Err(Denied::Clock(_))));
        refused(world.intend(sign), "no KSK is used");
        // What was written at a wrong time does no harm once it is right again.
        world.add(Entry::KeyCleared { key: ksk }).expect("a line");
        world.now = right;
        check(&world, &world.sign_dnskey(ksk), "allowed");
    }
    world.freeze("adam", Scope::Zone(zone())).expect("frozen");
    check(&world, &world.sign_dnskey(ksk), "KSK use of example. is frozen");
    world.freeze("adam", Scope::All).expect("frozen");
    world.carry(Motion::Thaw { scope: Scope::Zone(zone()) });
    check(&world, &world.sign_dnskey(ksk), "KSK use is frozen");
    world.carry(Motion::Thaw { scope: Scope::All });
    check(&world, &world.sign_dnskey(ksk), "allowed");
}

#[test]
fn per_set_wants_each_set_approved() {
    let mut world = World::signing();
    let (ksk, zsk) = keys(&world);
    let motion = next_policy(&world, |policy| policy.approval = DnskeyApproval::PerSet);
    world.carry(motion);
    let sign = with_keys(&world.sign_dnskey(ksk), &[ksk, zsk]);
    check(&world, &sign, "wants each DNSKEY RRset approved");
    let begun = world.carry(Motion::SignDnskeySet { zone: zone(), keys: [ksk, zsk].into() });
    check(&world, &sign, "allowed");
    let set = world.state.dnskey_set(&zone(), world.now).expect("a set");
    assert_eq!((set.under, set.until), (begun, Some(world.now + 14 * DAY_S)));
    // No signature outlives what was approved, and none is made after it.
    world.now += 13 * DAY_S;
    let mut sign = with_keys(&world.sign_dnskey(ksk), &[ksk, zsk]);
    check(&world, &sign, "allowed");
    if let Operation::SignDnskey { expiration, .. } = &mut sign {
        *expiration += 1;
    }
    check(&world, &sign, "what was approved ends in 86400 s");
    world.now += DAY_S + 1;
    check(&world, &with_keys(&world.sign_dnskey(ksk), &[ksk, zsk]), "wants each DNSKEY RRset");
}

/// Its signatures end with it: a zone whose next one could be made only then would be bogus between.
#[test]
fn the_standing_set_is_back_before_an_approved_one_ends() {
    let mut world = World::signing();
    let (ksk, zsk) = keys(&world);
    world.make_ksk(true);
    let begun = world.carry(Motion::SignDnskeySet { zone: zone(), keys: [ksk, zsk].into() });
    let set = |world: &World| world.state.dnskey_set(&zone(), world.now).expect("a set");
    let until = set(&world).until.expect("an end");
    world.now = until - 3_600;
    assert_eq!((set(&world).under, set(&world).keys.len()), (begun, 2));
    world.now += 1;
    assert_eq!((set(&world).until, set(&world).keys.len()), (None, 3));
    check(&world, &world.sign_dnskey(ksk), "allowed");
}

#[test]
fn an_approved_set_stands_in_place_of_the_standing_one() {
    let mut world = World::signing();
    let (ksk, zsk) = keys(&world);
    let next = world.make_ksk(false);
    let motion = |keys: &[KeyId]| Motion::SignDnskeySet {
        zone: zone(),
        keys: keys.iter().copied().collect(),
    };
    refused(world.propose("olga", motion(&[])), "expected `key: …`");
    refused(world.propose("olga", motion(&[next, zsk])), "an active KSK or CSK");
    refused(world.propose("olga", motion(&[ksk, next])), "an active key that signs the zone");
    refused(world.propose("olga", motion(&[ksk, zsk, KeyId([1; 32])])), "has no key");
    world.carry(motion(&[ksk, zsk, next]));
    assert!(world.state.keys()[&next].public.is_some(), "its publication was approved");
    check(&world, &world.sign_dnskey(next), "allowed");
    refused(
        world.propose("olga", Motion::DestroyKey { zone: zone(), key: next }),
        "is in the DNSKEY RRset that was approved",
    );
    // A later change of the zone's keys ends it.
    world.carry(Motion::ActivateKey { zone: zone(), key: next });
    assert_eq!(world.state.dnskey_set(&zone(), world.now).expect("a set").until, None);
}

fn digests() -> BTreeSet<DsDigest> {
    [DsDigest::Sha256].into()
}

fn export(keys: &[KeyId]) -> Motion {
    Motion::ExportDs { zone: zone(), keys: keys.iter().copied().collect(), digests: digests() }
}

#[test]
fn a_ds_is_handed_out_under_its_quorum() {
    let mut world = World::signing();
    let (ksk, zsk) = keys(&world);
    let hidden = world.make_ksk(false);
    assert_eq!(world.state.ds_export(&zone(), world.now), None);
    assert_eq!(world.state.approved_ds(&zone()), None);
    refused(world.add(Entry::DsExported { begun: 0, zone: zone() }), "is not the newest export");
    refused(world.propose("olga", export(&[hidden])), "is made; expected active");
    refused(world.propose("olga", export(&[zsk])), "a DS names a KSK or a CSK");
    let none = Motion::ExportDs { zone: zone(), keys: [ksk].into(), digests: [].into() };
    refused(world.propose("olga", none), "expected `digest: …`");
    let begun = world.carry(export(&[ksk]));
    let rdata = Ds::new(&zone(), KeyRole::Ksk, &world.publics[&ksk], DsDigest::Sha256).rdata();
    assert_eq!(world.state.approved_ds(&zone()), Some(&[rdata].into()));
    world.add(Entry::DsExported { begun, zone: zone() }).expect("exported");
    world.add(Entry::DsExported { begun, zone: zone() }).expect("as often as is asked");
    world.freeze("adam", Scope::All).expect("frozen");
    refused(world.add(Entry::DsExported { begun, zone: zone() }), "KSK use is frozen");
    world.carry(Motion::Thaw { scope: Scope::All });
    world.now += 14 * DAY_S + 1;
    assert_eq!(world.state.ds_export(&zone(), world.now), None);
    refused(world.add(Entry::DsExported { begun, zone: zone() }), "propose export-ds anew");
    assert!(world.state.approved_ds(&zone()).is_some(), "a parent here signs it still");
    let newer = world.carry(export(&[ksk]));
    refused(world.add(Entry::DsExported { begun, zone: zone() }), "is not the newest export");
    world.add(Entry::DsExported { begun: newer, zone: zone() }).expect("exported");
}

#[test]
fn a_ds_names_what_the_approved_set_holds() {
    let mut world = World::signing();
    let (ksk, zsk) = keys(&world);
    let other = world.make_ksk(true);
    world.carry(Motion::SignDnskeySet { zone: zone(), keys: [ksk, zsk].into() });
    refused(
        world.propose("olga", export(&[other])),
        "is not in the DNSKEY RRset that was approved",
    );
    world.carry(export(&[ksk]));
    world.now += 14 * DAY_S + 1;
    world.carry(export(&[other]));
}

fn sign_cds(world: &World, signer: KeyId) -> Operation {
    Operation::SignCds {
        zone: zone(),
        rrset: CdsType::Cds,
        signer,
        ttl_s: 3_600,
        inception: world.now as u32 - 3_600,
        expiration: world.now as u32 + CDS_VALIDITY_S,
    }
}

#[test]
fn cds_are_signed_as_long_as_they_are_approved_and_briefly() {
    let mut world = World::signing();
    let (ksk, zsk) = keys(&world);
    let publish = || Motion::PublishCds { zone: zone(), keys: [ksk].into(), digests: digests() };
    check(&world, &sign_cds(&world, ksk), "no CDS or CDNSKEY of example. is approved");
    let begun = world.carry(publish());
    check(&world, &sign_cds(&world, ksk), "allowed");
    check(&world, &sign_cds(&world, zsk), "is a ZSK");
    let waiting = world.make_ksk(false);
    check(&world, &sign_cds(&world, waiting), "is not in the DNSKEY RRset");
    let mut long = sign_cds(&world, ksk);
    if let Operation::SignCds { expiration, .. } = &mut long {
        *expiration += 301;
    }
    check(&world, &long, "the zone's policy allows");
    let mut ttl = sign_cds(&world, ksk);
    if let Operation::SignCds { ttl_s, .. } = &mut ttl {
        *ttl_s += 1;
    }
    check(&world, &ttl, "have a TTL of 3600 at most");
    let intent = world.intend(sign_cds(&world, ksk)).expect("intent");
    world.end(intent, Outcome::Signed { signature: "00".to_owned() }).expect("signed");
    // An old one is not signed again once another content is approved.
    let deleted = world.carry(Motion::DeleteDs { zone: zone() });
    let old = sign_cds(&world, ksk);
    let error = world.state.allows(&old, begun, world.now).expect_err("old").to_string();
    assert!(error.contains(&format!("are signed under line {deleted}")), "{error}");
    let grant = world.state.cds(&zone(), world.now).expect("a grant");
    assert_eq!(grant.cds, [crate::ds::CDS_DELETE.to_vec()].into());
    assert_eq!(grant.cdnskey, [crate::ds::CDNSKEY_DELETE.to_vec()].into());
    // Its signatures end when it ends.
    world.now += 13 * DAY_S;
    check(&world, &sign_cds(&world, ksk), "what was approved ends in 86400 s");
    world.now += DAY_S + 1;
    check(&world, &sign_cds(&world, ksk), "no CDS or CDNSKEY of example. is approved");
    assert!(policy().validity_s > CDS_VALIDITY_S);
}

#[test]
fn a_key_that_retires_is_told_to_nobody() {
    let mut world = World::signing();
    let (ksk, _) = keys(&world);
    world.make_ksk(true);
    let begun = world.carry(export(&[ksk]));
    world.carry(Motion::PublishCds { zone: zone(), keys: [ksk].into(), digests: digests() });
    world.carry(Motion::RetireKey { zone: zone(), key: ksk });
    assert_eq!(world.state.ds_export(&zone(), world.now), None);
    refused(world.add(Entry::DsExported { begun, zone: zone() }), "propose export-ds anew");
    assert_eq!(world.state.cds(&zone(), world.now), None);
}

#[test]
fn a_zone_that_is_unbound_is_signed_no_more() {
    let mut world = World::signing();
    let (ksk, _) = keys(&world);
    let sign = world.sign_dnskey(ksk);
    world.carry(export(&[ksk]));
    world.carry(Motion::UnbindZone { zones: [zone()].into() });
    check(&world, &sign, "is not bound here");
    check(&world, &generate_zsk(), "is not bound here");
    assert_eq!(world.state.ds_export(&zone(), world.now), None);
    assert_eq!(world.state.approved_ds(&zone()), None);
    // Its keys can be retired and destroyed now, even the last.
    world.carry(Motion::RetireKey { zone: zone(), key: ksk });
    world.carry(Motion::DestroyKey { zone: zone(), key: ksk });
}

fn generate_zsk() -> Operation {
    let nonce = "0".repeat(32);
    Operation::Generate { zone: zone(), role: KeyRole::Zsk, token: "zsk-a".to_owned(), nonce }
}

/// A set that leaves a key out takes it from the parent's sight too.
#[test]
fn a_key_that_the_approved_set_leaves_out_is_told_to_nobody() {
    let mut world = World::signing();
    let (ksk, zsk) = keys(&world);
    let next = world.make_ksk(true);
    let publish = |key| Motion::PublishCds { zone: zone(), keys: [key].into(), digests: digests() };
    let set = |keys: &[KeyId]| Motion::SignDnskeySet {
        zone: zone(),
        keys: keys.iter().copied().collect(),
    };
    world.carry(export(&[next]));
    world.carry(publish(next));
    world.carry(set(&[ksk, next, zsk]));
    assert!(world.state.ds_export(&zone(), world.now).is_some(), "it is in the set");
    assert!(world.state.cds(&zone(), world.now).is_some(), "it is in the set");
    world.carry(set(&[ksk, zsk]));
    assert_eq!(world.state.ds_export(&zone(), world.now), None);
    assert_eq!(world.state.cds(&zone(), world.now), None);
    assert!(world.state.approved_ds(&zone()).is_some(), "what the parent has stays signed");
}
