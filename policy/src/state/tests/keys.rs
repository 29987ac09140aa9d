//! Keys: how they are made, adopted, activated, retired and destroyed, and that a KSK's public half is
//! kept back.

use super::refused;
use crate::key::{KeyId, KeyRole, PublicKey, to_hex};
use crate::key_state::Stage;
use crate::ledger::{Entry, MadeKey, Operation, Outcome, generation_label};
use crate::motion::{Motion, Scope};
use crate::permit::Denied;
use crate::state::{DAY_S, Status, Step, ZSKS_A_WEEK_MAX, ZSKS_MAX};
use crate::testing::{World, made_key, public_key, token, zone};

fn activate(key: KeyId) -> Motion {
    Motion::ActivateKey { zone: zone(), key }
}

fn allows(world: &World, operation: &Operation, under: u64) -> Result<(), Denied> {
    world.state.allows(operation, under, world.now)
}

#[track_caller]
fn denied(world: &World, operation: &Operation, expect: &str) {
    let under = world.state.standing(operation, world.now).unwrap_or(0);
    let error = allows(world, operation, under).expect_err(expect).to_string();
    assert!(error.contains(expect), "{error}\nexpected: {expect}");
}

#[test]
fn a_ksk_is_made_under_its_quorum_and_no_more_than_that() {
    let mut world = World::bound();
    let operation = world.generate(KeyRole::Ksk);
    denied(&world, &operation, "no quorum wants a KSK to be made for example.");
    let (zones, role) = ([zone()].into(), KeyRole::Ksk);
    let begun = world.carry(Motion::GenerateKey { zones, role, activate: false });
    assert_eq!(world.steps(begun), [Step::Generate { zone: zone(), role }]);
    assert!(allows(&world, &operation, begun - 1).is_err());
    let id = world.make(operation.clone(), &public_key(1), false);
    let record = &world.state.keys()[&id];
    assert_eq!((record.stage, &record.public, record.under), (Stage::Made, &None, begun));
    let again = world.generate(KeyRole::Ksk);
    denied(&world, &again, "no quorum wants");
    assert!(world.steps(begun).is_empty());
    // It is in no set until it is activated, and then its public half is revealed.
    assert!(world.state.dnskey_set(&zone(), world.now).expect("a set").keys.is_empty());
    world.carry(activate(id));
    assert_eq!(world.state.keys()[&id].public.as_ref(), Some(&public_key(1)));
    assert!(world.state.dnskey_set(&zone(), world.now).expect("a set").keys.contains(&id));
}

#[test]
fn of_two_zones_each_gets_one_key_and_a_third_none() {
    let mut world = World::bound();
    let other: crate::ZoneName = "other.".parse().expect("zone");
    let third: crate::ZoneName = "third.".parse().expect("zone");
    let (zones, policy) = ([other.clone(), third.clone()].into(), "default".to_owned());
    world.carry(Motion::BindZone { zones, policy });
    let (zones, role) = ([zone(), other.clone()].into(), KeyRole::Ksk);
    let begun = world.carry(Motion::GenerateKey { zones, role, activate: false });
    let operation = world.generate(role);
    world.make(operation, &public_key(1), false);
    let for_zone = |world: &mut World, of: &crate::ZoneName| {
        let mut operation = world.generate(KeyRole::Ksk);
        let Operation::Generate { zone, .. } = &mut operation else { panic!("generate") };
        *zone = of.clone();
        operation
    };
    for without in [&zone(), &third] {
        let operation = for_zone(&mut world, without);
        let error = allows(&world, &operation, begun).expect_err("none").to_string();
        assert!(error.contains("no quorum wants a KSK to be made for"), "{error}");
    }
    let operation = for_zone(&mut world, &other);
    assert_eq!(allows(&world, &operation, begun), Ok(()));
}

#[test]
fn a_ksk_is_not_made_after_its_finish_by_nor_frozen_nor_by_a_wrong_clock() {
    let mut world = World::bound();
    let (zones, role) = ([zone()].into(), KeyRole::Ksk);
    let begun = world.carry(Motion::GenerateKey { zones, role, activate: false });
    let operation = world.generate(role);
    assert_eq!(allows(&world, &operation, begun), Ok(()));
    world.now += 14 * DAY_S + 1;
    let error = allows(&world, &operation, begun).expect_err("late").to_string();
    assert!(error.contains("was to be finished by 2026-12-09T03:00:00Z"), "{error}");
    world.now -= 14 * DAY_S + 1 + 3_600;
    assert!(matches!(allows(&world, &operation, begun), Err(Denied::Clock(_))));
    world.now += 3_600;
    world.freeze("adam", Scope::All).expect("frozen");
    assert!(matches!(allows(&world, &operation, begun), Err(Denied::Frozen(_))));
    // A ZSK is made whatever the freezes and the clock.
    let operation = world.generate(KeyRole::Zsk);
    let line = world.state.zones()[&zone()].line;
    assert_eq!(allows(&world, &operation, line), Ok(()));
    world.now -= 3_600;
    assert_eq!(allows(&world, &operation, line), Ok(()));
}

#[test]
fn keys_are_made_where_the_policy_says() {
    let mut world = World::bound();
    let (zones, role) = ([zone()].into(), KeyRole::Ksk);
    world.carry(Motion::GenerateKey { zones, role, activate: false });
    let change = |world: &mut World, change: &dyn Fn(&mut KeyRole, &mut String, &mut String)| {
        let mut operation = world.generate(KeyRole::Ksk);
        let Operation::Generate { role, token, nonce, .. } = &mut operation else { panic!() };
        change(role, token, nonce);
        operation
    };
    let operation = change(&mut world, &|role, _, _| *role = KeyRole::Csk);
    denied(&world, &operation, "the policy of example. has no CSK");
    let operation = change(&mut world, &|_, token, _| *token = "zsk-a".to_owned());
    denied(&world, &operation, "not of the group that holds KSKs");
    let operation = change(&mut world, &|_, token, _| *token = "nowhere".to_owned());
    denied(&world, &operation, "there is no token `nowhere`");
    let operation = change(&mut world, &|_, _, nonce| *nonce = "00".to_owned());
    denied(&world, &operation, "a nonce is 16 octets");
    let operation = world.generate(KeyRole::Ksk);
    world.intend(operation.clone()).expect("intent");
    denied(&world, &operation, "the nonce was used before");
    let operation = world.generate(KeyRole::Ksk);
    denied(&world, &operation, "makes a KSK for example. already");
}

#[test]
fn zsks_are_few_and_not_made_often() {
    let mut world = World::bound();
    let operation = world.generate(KeyRole::Zsk);
    assert!(allows(&world, &operation, 0).is_err(), "under the binding alone");
    let made: Vec<KeyId> = (0..ZSKS_MAX).map(|_| world.make_zsk()).collect();
    let operation = world.generate(KeyRole::Zsk);
    denied(&world, &operation, "has 4 ZSKs");
    for (n, id) in made.iter().enumerate() {
        if n > 0 {
            retire_and_destroy(&mut world, *id);
        }
    }
    for _ in ZSKS_MAX..ZSKS_A_WEEK_MAX {
        let id = world.make_zsk();
        retire_and_destroy(&mut world, id);
    }
    let operation = world.generate(KeyRole::Zsk);
    denied(&world, &operation, "8 ZSKs were made for example. within a week");
    world.now += 7 * DAY_S - 1;
    denied(&world, &operation, "8 ZSKs were made for example. within a week");
    world.now += 1;
    world.make_zsk();
}

fn retire_and_destroy(world: &mut World, key: KeyId) {
    world.carry(Motion::RetireKey { zone: zone(), key });
    world.carry(Motion::DestroyKey { zone: zone(), key });
    let record = world.state.keys()[&key].clone();
    let operation = destroy(&record.token, &record.label, Some(key));
    let intent = world.intend(operation).expect("intent");
    world.end(intent, Outcome::Destroyed).expect("destroyed");
    assert!(!world.state.keys().contains_key(&key));
}

fn destroy(token: &str, label: &str, key: Option<KeyId>) -> Operation {
    let (token, label) = (token.to_owned(), label.to_owned());
    Operation::Destroy { zone: zone(), token, label, key }
}

#[test]
fn a_key_is_destroyed_by_quorum_on_every_token_and_nothing_else_is() {
    let mut world = World::founded_by(crate::testing::team(), |f| {
        f.tokens.insert("ksk-b".to_owned(), token("ksk", "serial-ksk-b"));
    });
    world.bind_zone();
    let (old, key) = (world.make_ksk(true), world.make_ksk(true));
    world.make_zsk();
    let label = world.state.keys()[&key].label.clone();
    let motion = || Motion::DestroyKey { zone: zone(), key };
    refused(world.propose("olga", motion()), "is active; expected made or retired");
    let operation = destroy("ksk-a", &label, Some(key));
    denied(&world, &operation, "no quorum wants key");
    denied(&world, &destroy("ksk-a", &label, None), "which is in use");
    denied(&world, &destroy("ksk-a", "somebody-elses", None), "no intent is making");
    world.carry(Motion::RetireKey { zone: zone(), key });
    let begun = world.carry(motion());
    assert_eq!(world.state.keys()[&key].stage, Stage::Destroying);
    refused(world.propose("olga", activate(key)), "is destroying; expected made or retired");
    let wrong = destroy("ksk-a", &world.state.keys()[&old].label.clone(), Some(key));
    denied(&world, &wrong, "has no key");
    denied(&world, &destroy("zsk-a", &label, Some(key)), "no quorum wants key");
    let first = world.intend(operation.clone()).expect("intent");
    denied(&world, &operation, "does exactly that already");
    world.end(first, Outcome::Destroyed).expect("destroyed");
    assert!(world.state.keys().contains_key(&key), "it is on the other token still");
    let failing = world.intend(destroy("ksk-b", &label, Some(key))).expect("intent");
    let reason = "it was busy".to_owned();
    world.end(failing, Outcome::Failed { reason: reason.clone() }).expect("failed");
    assert_eq!(world.steps(begun).len(), 1);
    // Given up, the rest is for another motion.
    world.add(Entry::Lapsed { begun, reason }).expect("lapsed");
    denied(&world, &destroy("ksk-b", &label, Some(key)), "no quorum wants");
    world.carry(motion());
    for name in ["ksk-a", "ksk-b"] {
        let intent = world.intend(destroy(name, &label, Some(key))).expect("intent");
        world.end(intent, Outcome::Destroyed).expect("destroyed");
    }
    assert!(!world.state.keys().contains_key(&key));
    assert_eq!(world.state.unfinished().count(), 0);
}

#[test]
fn what_an_intent_left_is_destroyed_under_that_intent() {
    let mut world = World::bound();
    let operation = world.generate(KeyRole::Zsk);
    let Operation::Generate { role, nonce, .. } = &operation else { panic!("generate") };
    let label = generation_label(*role, &zone(), nonce);
    let intent = world.intend(operation).expect("intent");
    assert_eq!(world.state.making(&label).map(|making| making.intent), Some(intent));
    denied(&world, &destroy("ksk-a", &label, None), "is made for example. on token `zsk-a`");
    assert!(allows(&world, &destroy("zsk-a", &label, None), intent - 1).is_err());
    let cleaning = world.intend(destroy("zsk-a", &label, None)).expect("intent");
    world.end(cleaning, Outcome::Destroyed).expect("destroyed");
    world.end(intent, Outcome::Failed { reason: "orphan".to_owned() }).expect("failed");
    assert_eq!(world.state.making(&label), None);
    denied(&world, &destroy("zsk-a", &label, None), "no intent is making");
}

#[test]
fn results_are_those_that_the_intent_can_have() {
    let mut world = World::bound();
    let made = made_key(&public_key(1), KeyRole::Zsk, true);
    refused(world.end(3, Outcome::Generated { made: made.clone() }), "without an open intent");
    let operation = world.generate(KeyRole::Zsk);
    let intent = world.intend(operation).expect("intent");
    refused(world.end(intent, Outcome::Destroyed), "an outcome that its intent can't have");
    let signed = Outcome::Signed { signature: "00".to_owned() };
    refused(world.end(intent, signed), "an outcome that its intent can't have");
    world.end(intent, Outcome::Generated { made: made.clone() }).expect("made");
    refused(world.end(intent, Outcome::Generated { made }), "without an open intent");
}

#[test]
fn what_is_told_of_a_key_holds_of_its_public_half() {
    let check = |activate: bool, change: &dyn Fn(&mut MadeKey), expect: &str| {
        let mut world = World::bound();
        let (zones, role) = ([zone()].into(), KeyRole::Ksk);
        world.carry(Motion::GenerateKey { zones, role, activate });
        let operation = world.generate(role);
        let intent = world.intend(operation).expect("intent");
        let mut made = made_key(&public_key(1), role, activate);
        change(&mut made);
        match world.end(intent, Outcome::Generated { made }) {
            Ok(_) => assert_eq!(expect, "allowed"),
            refusal => refused(refusal, expect),
        }
    };
    check(true, &|_| {}, "allowed");
    check(false, &|_| {}, "allowed");
    check(false, &|made| made.public = Some(public_key(1)), "is told; it is known from the start");
    check(true, &|made| made.public = None, "is kept back; it is known from the start");
    check(true, &|made| made.public = Some(public_key(2)), "has another id or other tags");
    check(true, &|made| made.tag ^= 1, "has another id or other tags");
    check(true, &|made| made.revoked_tag ^= 1, "has another id or other tags");
    check(
        false,
        &|made| made.algorithm = crate::Algorithm::Ed25519,
        "the policy of example. wants",
    );
}

#[test]
fn an_activation_reveals_exactly_the_key_that_it_publishes() {
    let mut world = World::bound();
    let (key, other) = (world.make_ksk(false), world.make_ksk(false));
    let hash = world.propose("olga", activate(key)).expect("proposed");
    for officer in ["alice", "bob"] {
        world.approve(officer, hash).expect("approved");
    }
    let begun = |reveals: &[PublicKey]| Entry::Begun { statement: hash, reveals: reveals.to_vec() };
    let (right, wrong) = (world.publics[&key].clone(), world.publics[&other].clone());
    for reveals in [
        &[][..],
        std::slice::from_ref(&wrong),
        &[right.clone(), wrong.clone()],
        &[right.clone(), right.clone()],
    ] {
        refused(world.add(begun(reveals)), "expected exactly");
    }
    world.add(begun(&[right])).expect("begun");
    // What publishes nothing reveals nothing.
    let hash = world.propose("olga", super::generate_ksk()).expect("proposed");
    for officer in ["alice", "bob"] {
        world.approve(officer, hash).expect("approved");
    }
    let reveals = vec![world.publics[&other].clone()];
    refused(world.add(Entry::Begun { statement: hash, reveals }), "expected exactly: none");
}

/// Two public keys whose DNSKEYs share a tag: the sum of the 16-bit words is the same.
#[test]
fn a_key_that_shares_a_tag_is_never_published_and_is_destroyed() {
    let mut world = World::bound();
    let key = |octets| PublicKey::new(crate::Algorithm::EcdsaP256Sha256, octets).expect("key");
    let mut swapped = [1; 64];
    // The ZSK's flags are one less than the KSK's, so its key field adds one more.
    swapped[1] = 2;
    let (zones, role) = ([zone()].into(), KeyRole::Ksk);
    let begun = world.carry(Motion::GenerateKey { zones, role, activate: true });
    let operation = world.generate(KeyRole::Zsk);
    let zsk = world.make(operation, &key(&swapped), true);
    let operation = world.generate(role);
    let ksk = world.make(operation, &key(&[1; 64]), true);
    assert_eq!(world.state.keys()[&ksk].collides_with, Some(zsk));
    let set = world.state.dnskey_set(&zone(), world.now).expect("a set");
    assert_eq!(set.keys, [zsk].into());
    assert_eq!(world.steps(begun).len(), 1, "another one is wanted");
    let record = world.state.keys()[&ksk].clone();
    assert!(allows(&world, &destroy("ksk-a", &record.label, Some(ksk)), begun).is_err());
    let intent = world.intend(destroy("ksk-a", &record.label, Some(ksk))).expect("intent");
    world.end(intent, Outcome::Destroyed).expect("destroyed");
    let operation = world.generate(role);
    world.make(operation, &public_key(9), true);
    assert!(world.steps(begun).is_empty());
}

#[test]
fn one_public_key_is_one_key() {
    let mut world = World::bound();
    let operation = world.generate(KeyRole::Zsk);
    world.make(operation, &public_key(1), true);
    let operation = world.generate(KeyRole::Zsk);
    let intent = world.intend(operation).expect("intent");
    let made = made_key(&public_key(1), KeyRole::Zsk, true);
    refused(world.end(intent, Outcome::Generated { made }), "was made twice");
}

fn adopt(role: KeyRole, key: KeyId, activate: bool) -> Motion {
    let token = if role == KeyRole::Zsk { "zsk-a" } else { "ksk-a" }.to_owned();
    Motion::AdoptKey { zone: zone(), role, token, key, activate }
}

#[test]
fn a_foreign_key_is_adopted_by_quorum_as_the_one_it_is() {
    let mut world = World::bound();
    let (public, role) = (public_key(5), KeyRole::Ksk);
    let key = public.id();
    let operation = Operation::Adopt { zone: zone(), role, token: "ksk-a".to_owned(), key };
    denied(&world, &operation, "no quorum wants key");
    let begun = world.carry(adopt(role, key, true));
    let elsewhere = Operation::Adopt { zone: zone(), role, token: "zsk-a".to_owned(), key };
    denied(&world, &elsewhere, "not of the group that holds KSKs");
    refused(world.propose("olga", adopt(role, key, true)), "adopts key");
    let intent = world.intend(operation.clone()).expect("intent");
    let adopted = |public: &PublicKey, id: &str| Outcome::Adopted {
        made: made_key(public, role, true),
        label: "sample-ksk".to_owned(),
        id: id.to_owned(),
    };
    refused(world.end(intent, adopted(&public_key(6), "00")), "in place of");
    refused(world.end(intent, adopted(&public, "no hex")), "is no text or longer");
    world.end(intent, adopted(&public, &to_hex(&[5; 16]))).expect("adopted");
    let record = &world.state.keys()[&key];
    assert_eq!((record.stage, record.under), (Stage::Active, begun));
    assert_eq!(world.state.key_labelled("sample-ksk"), None, "labels of others are not unique");
    refused(world.propose("olga", adopt(role, key, true)), "is a KSK of example. already");
    let zsk = public_key(7).id();
    refused(world.propose("olga", adopt(KeyRole::Zsk, zsk, false)), "expected `activate: yes`");
    world.carry(adopt(KeyRole::Zsk, zsk, true));
}

#[test]
fn a_foreign_key_that_shares_a_tag_is_not_adopted() {
    let mut world = World::bound();
    let public = public_key(5);
    let operation = world.generate(KeyRole::Zsk);
    let zsk = world.make(operation, &public_key(1), true);
    world.carry(adopt(KeyRole::Ksk, public.id(), false));
    let (token, key) = ("ksk-a".to_owned(), public.id());
    let operation = Operation::Adopt { zone: zone(), role: KeyRole::Ksk, token, key };
    let intent = world.intend(operation).expect("intent");
    let mut made = made_key(&public, KeyRole::Ksk, false);
    made.tag = world.state.keys()[&zsk].revoked_tag;
    let outcome = Outcome::Adopted { made, label: "l".to_owned(), id: "00".to_owned() };
    refused(world.end(intent, outcome), "shares its tag with key");
    world.end(intent, Outcome::Failed { reason: "tag".to_owned() }).expect("failed");
}

#[test]
fn a_zone_keeps_a_key_for_each_duty() {
    let mut world = World::signing();
    let ids: Vec<KeyId> = world.state.keys_of(&zone()).map(|(id, _)| *id).collect();
    for key in ids {
        refused(world.propose("olga", Motion::RetireKey { zone: zone(), key }), "is the last");
    }
    let (key, other) = (world.make_ksk(true), world.make_ksk(false));
    let unknown = KeyId([1; 32]);
    refused(world.propose("olga", Motion::RetireKey { zone: zone(), key: unknown }), "has no key");
    refused(
        world.propose("olga", Motion::RetireKey { zone: zone(), key: other }),
        "is made; expected active",
    );
    world.carry(Motion::RetireKey { zone: zone(), key });
    assert_eq!(world.state.keys()[&key].stage, Stage::Retired);
    assert!(!world.state.dnskey_set(&zone(), world.now).expect("set").keys.contains(&key));
    // Back again, if it was a mistake.
    world.carry(activate(key));
    assert_eq!(world.state.keys()[&key].stage, Stage::Active);
}

#[test]
fn what_is_given_up_is_over() {
    let mut world = World::bound();
    let (zones, role) = ([zone()].into(), KeyRole::Ksk);
    let begun = world.carry(Motion::GenerateKey { zones, role, activate: false });
    let reason = "no token has room".to_owned();
    refused(world.add(Entry::Lapsed { begun: 1, reason: reason.clone() }), "has steps left");
    let operation = world.generate(role);
    let intent = world.intend(operation).expect("intent");
    refused(world.add(Entry::Lapsed { begun, reason: reason.clone() }), "has no result yet");
    world.end(intent, Outcome::Failed { reason: reason.clone() }).expect("failed");
    let lapsed = world.add(Entry::Lapsed { begun, reason }).expect("lapsed");
    let operation = world.generate(role);
    denied(&world, &operation, "no quorum wants");
    let closed = world.state.closed().values().find(|closed| closed.ended == lapsed);
    assert_eq!(closed.map(|closed| closed.status), Some(Status::Lapsed));
}

/// What a keeper told of a hidden key is borne out when it is revealed, all of it.
#[test]
fn what_was_told_of_a_hidden_key_is_checked_when_it_is_revealed() {
    let ed25519 = PublicKey::new(crate::Algorithm::Ed25519, &[5; 32]).expect("key");
    let p256 = crate::Algorithm::EcdsaP256Sha256;
    let check = |public: &PublicKey, change: &dyn Fn(&mut MadeKey), expect: Option<&str>| {
        let mut world = World::bound();
        world.carry(super::generate_ksk());
        let operation = world.generate(KeyRole::Ksk);
        let intent = world.intend(operation).expect("intent");
        let mut made = made_key(public, KeyRole::Ksk, false);
        change(&mut made);
        world.end(intent, Outcome::Generated { made }).expect("made");
        world.publics.insert(public.id(), public.clone());
        let hash = world.propose("olga", activate(public.id())).expect("proposed");
        for officer in ["alice", "bob"] {
            world.approve(officer, hash).expect("approved");
        }
        match expect {
            Some(expect) => refused(world.begin(hash), expect),
            None => assert!(world.begin(hash).is_ok()),
        }
    };
    check(&public_key(1), &|_| {}, None);
    let other = "than its making told";
    check(&public_key(1), &|made| made.tag ^= 1, Some(other));
    check(&public_key(1), &|made| made.revoked_tag ^= 1, Some(other));
    check(&ed25519, &|made| made.algorithm = p256, Some(other));
}

#[test]
fn a_key_that_is_destroyed_for_its_tag_is_not_destroyed_twice() {
    let mut world = World::bound();
    let key = |octets| PublicKey::new(crate::Algorithm::EcdsaP256Sha256, octets).expect("key");
    let mut swapped = [1; 64];
    swapped[1] = 2;
    world.carry(super::generate_ksk());
    let operation = world.generate(KeyRole::Zsk);
    world.make(operation, &key(&swapped), true);
    let operation = world.generate(KeyRole::Ksk);
    let ksk = world.make(operation, &key(&[1; 64]), false);
    let motion = Motion::DestroyKey { zone: zone(), key: ksk };
    refused(world.propose("olga", motion), "shares its tag");
}
