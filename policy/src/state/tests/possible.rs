//! Motions that can't be done, as things are.

use super::{change, next_policy, refused};
use crate::key::KeyRole;
use crate::motion::{Motion, Scope};
use crate::name::ZoneName;
use crate::officer::Role;
use crate::signing::KeySplit;
use crate::state::KSKS_MAX;
use crate::testing::{Person, World, apart, audit_key, rules, token, zone};
use crate::tree::{Hash, TreeHead};

fn propose(world: &mut World, motion: Motion, expect: &str) {
    match world.propose("olga", motion) {
        Ok(hash) => {
            assert_eq!(expect, "allowed");
            world.withdraw("olga", hash).expect("withdrawn");
        }
        refusal => refused(refusal, expect),
    }
}

fn bind(zones: &[&str], policy: &str) -> Motion {
    let zones = zones.iter().map(|zone| zone.parse().expect("a zone")).collect();
    Motion::BindZone { zones, policy: policy.to_owned() }
}

#[test]
fn officers_change_one_version_at_a_time_and_stay_enough() {
    let mut world = World::founded();
    let dave = Person::new("dave", Role::KeyOfficer);
    for version in [0, 1, 3, u64::MAX] {
        let mut motion = change(&world, &[], &[&dave]);
        let Motion::ChangeOfficers { version: v, .. } = &mut motion else { panic!("officers") };
        *v = version;
        propose(&mut world, motion, "expected exactly one more");
    }
    let motion = change(&world, &[], &[]);
    propose(&mut world, motion, "to go with it");
    let motion = change(&world, &["dave"], &[]);
    propose(&mut world, motion, "dave is not on the roster");
    let motion = change(&world, &[], &[&Person::with_key("alice", Role::KeyOfficer, "other")]);
    propose(&mut world, motion, "alice is on the roster. hint");
    let motion = change(&world, &[], &[&Person::with_key("dave", Role::KeyOfficer, "alice")]);
    propose(&mut world, motion, "a key belongs to one person");
    let motion = change(&world, &["alice"], &[]);
    propose(&mut world, motion, "so that the loss of one stops nothing");
    let motion = change(&world, &["alice"], &[&dave]);
    propose(&mut world, motion, "allowed");
}

/// The persons by a change of officers, their rule by a change of rules; until then they have no power.
#[test]
fn a_recovery_group_comes_and_goes() {
    let mut world = World::founded();
    let group: Vec<Person> = crate::testing::recovery_group();
    let names: Vec<String> = group.iter().map(|person| person.name.to_string()).collect();
    let rule = Some(crate::rule::RecoveryRule { persons: 3, delay_s: 2 * 86_400 });
    let rules = |world: &World, recovery| Motion::ChangeRules {
        version: world.state.rules_version() + 1,
        rules: world.state.rules().clone(),
        recovery,
    };
    let early = rules(&world, rule);
    propose(&mut world, early, "nobody of the role recovery");
    let enrol = change(&world, &[], &group.iter().collect::<Vec<_>>());
    world.carry(enrol);
    for person in group {
        world.meet(person);
    }
    let frank = Person::new("frank", Role::KeyOfficer);
    let motion = change(&world, &[], &[&frank]);
    let refused = world.propose(&names[0], motion).expect_err("no rule, no power").to_string();
    assert!(refused.contains("there is no recovery group"), "{refused}");
    let armed = rules(&world, rule);
    world.carry(armed);
    let motion = change(&world, &[], &[&frank]);
    let hash = world.propose(&names[0], motion).expect("with a rule they may");
    world.withdraw(&names[0], hash).expect("withdrawn");
    let everyone: Vec<&str> = names.iter().map(String::as_str).collect();
    let leave = change(&world, &everyone, &[]);
    propose(&mut world, leave, "nobody of the role recovery");
    let disarmed = rules(&world, None);
    world.carry(disarmed);
    let leave = change(&world, &everyone, &[]);
    world.carry(leave);
    assert_eq!(world.state.roster().count(&[Role::Recovery].into(), None), 0);
}

#[test]
fn rules_change_one_version_at_a_time_and_keep_the_floor() {
    let mut world = World::founded();
    let motion = |version, rules| Motion::ChangeRules { version, rules, recovery: None };
    propose(&mut world, motion(1, apart()), "expected exactly one more");
    propose(&mut world, motion(3, apart()), "expected exactly one more");
    propose(&mut world, motion(2, rules(1, &[Role::KeyOfficer])), "expected at least 2");
    propose(&mut world, motion(2, rules(3, &[Role::KeyOfficer])), "expected more persons");
    propose(&mut world, motion(2, rules(2, &[Role::PolicyOfficer])), "of key officers alone");
    propose(&mut world, motion(2, rules(2, &[Role::KeyOfficer, Role::Auditor])), "has no vote");
    let mut lacking = apart();
    lacking.0.remove(&crate::motion::MotionKind::Thaw);
    propose(&mut world, motion(2, lacking), "expected the rule for thaw");
    propose(&mut world, motion(2, rules(2, &[Role::KeyOfficer])), "allowed");
}

#[test]
fn policies_name_tokens_that_are_there_and_keep_ksks_apart() {
    let mut world = World::founded();
    let check = |world: &mut World, change: &dyn Fn(&mut crate::SigningPolicy), expect: &str| {
        let motion = next_policy(world, change);
        propose(world, motion, expect);
    };
    check(&mut world, &|_| {}, "allowed");
    check(&mut world, &|p| p.ksk_group = "other".to_owned(), "the token group `other`");
    check(&mut world, &|p| p.refresh_s = p.validity_s, "`refresh_s`");
    let motion = next_policy(&world, |_| {});
    world.carry(motion);
    let mixed = |p: &mut crate::SigningPolicy| {
        (p.ksk_group, p.zsk_group) = ("zsk".to_owned(), Some("ksk".to_owned()));
    };
    let mut motion = next_policy(&world, mixed);
    let Motion::SetPolicy { name, version, .. } = &mut motion else { panic!("policy") };
    (*name, *version) = ("second".to_owned(), 1);
    propose(&mut world, motion, "would hold both KSKs and ZSKs");
    let mut motion = next_policy(&world, |_| {});
    let Motion::SetPolicy { version, .. } = &mut motion else { panic!("policy") };
    *version = 3;
    propose(&mut world, motion, "expected exactly one more");
}

#[test]
fn keys_stay_what_they_are_under_another_policy() {
    let mut world = World::signing();
    let check = |world: &mut World, change: &dyn Fn(&mut crate::SigningPolicy), expect: &str| {
        let motion = next_policy(world, change);
        propose(world, motion, expect);
    };
    check(&mut world, &|p| p.validity_s += 60, "allowed");
    let csk = |p: &mut crate::SigningPolicy| (p.keys, p.zsk_group) = (KeySplit::Csk, None);
    check(&mut world, &csk, "its policy would have none");
    check(&mut world, &|p| p.algorithm = crate::Algorithm::Ed25519, "an algorithm rollover");
    let attach = |name: &str, group: &str| Motion::AttachToken {
        name: name.to_owned(),
        identity: token(group, &format!("serial-{name}")),
    };
    world.carry(attach("ksk-b", "second"));
    check(&mut world, &|p| p.ksk_group = "second".to_owned(), "can't change groups");
    // The same through a binding.
    let mut motion = next_policy(&world, csk);
    let Motion::SetPolicy { name, version, .. } = &mut motion else { panic!("policy") };
    (*name, *version) = ("csk".to_owned(), 1);
    world.carry(motion);
    propose(&mut world, bind(&["example."], "csk"), "its policy would have none");
    propose(&mut world, bind(&["example."], "default"), "is bound to `default` already");
    propose(&mut world, bind(&["other."], "nowhere"), "there is no policy `nowhere`");
    propose(&mut world, bind(&[], "csk"), "expected `zone: …`");
    propose(&mut world, bind(&["other."], "csk"), "allowed");
    let many: Vec<String> = (0..101).map(|n| format!("zone{n}.")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let zones = many.iter().map(|zone| zone.parse().expect("a zone")).collect();
    let statement = world.statement("olga", Motion::UnbindZone { zones });
    assert!(world.table(&statement).is_err(), "a text that nobody reads");
    let unbind = Motion::UnbindZone { zones: ["other.".parse().expect("zone")].into() };
    propose(&mut world, unbind, "other. is not bound here");
}

#[test]
fn a_key_that_is_being_made_keeps_its_policy() {
    let mut world = World::bound();
    let operation = world.generate(KeyRole::Zsk);
    let intent = world.intend(operation).expect("intent");
    let motion = next_policy(&world, |p| p.validity_s += 60);
    propose(&mut world, motion, "makes a key for example.; wait");
    propose(&mut world, Motion::UnbindZone { zones: [zone()].into() }, "makes a key for example.");
    let reason = "full".to_owned();
    world.end(intent, crate::ledger::Outcome::Failed { reason }).expect("failed");
    propose(&mut world, Motion::UnbindZone { zones: [zone()].into() }, "allowed");
}

#[test]
fn ksks_are_few_and_not_zsks() {
    let mut world = World::bound();
    let generate = |zones: &[ZoneName], role| Motion::GenerateKey {
        zones: zones.iter().cloned().collect(),
        role,
        activate: false,
    };
    propose(&mut world, generate(&[zone()], KeyRole::Zsk), "ZSKs are made without a quorum");
    propose(&mut world, generate(&[zone()], KeyRole::Csk), "has no CSK");
    propose(&mut world, generate(&[], KeyRole::Ksk), "expected `zone: …`");
    let other = "other.".parse().expect("zone");
    propose(&mut world, generate(&[zone(), other], KeyRole::Ksk), "other. is not bound here");
    world.carry(generate(&[zone()], KeyRole::Ksk));
    propose(&mut world, generate(&[zone()], KeyRole::Ksk), "makes a KSK for example. already");
    let operation = world.generate(KeyRole::Ksk);
    world.make(operation, &crate::testing::public_key(1_000), false);
    for _ in 1..KSKS_MAX {
        world.make_ksk(false);
    }
    propose(&mut world, generate(&[zone()], KeyRole::Ksk), "has 8 KSKs and CSKs");
    let (token, key) = ("ksk-a".to_owned(), crate::KeyId([1; 32]));
    let (role, activate) = (KeyRole::Ksk, true);
    let adopt = Motion::AdoptKey { zone: zone(), role, token, key, activate };
    propose(&mut world, adopt, "has 8 KSKs and CSKs");
}

#[test]
fn tokens_are_one_each_and_keys_stay_in_their_group() {
    let mut world = World::signing();
    let attach = |name: &str, group: &str, serial: &str| Motion::AttachToken {
        name: name.to_owned(),
        identity: token(group, serial),
    };
    propose(&mut world, attach("ksk-b", "ksk", "serial-ksk-a"), "are one by label and serial");
    propose(&mut world, attach("ksk-a", "ksk", "serial-ksk-a"), "is exactly that already");
    propose(&mut world, attach("ksk-a", "new", "serial-new"), "and its keys with it");
    propose(&mut world, attach("ksk-b", "ksk", ""), "must not be empty");
    world.add(crate::ledger::Entry::TokenMarked { token: "ksk-a".to_owned() }).expect("marked");
    refused(
        world.add(crate::ledger::Entry::TokenMarked { token: "ksk-a".to_owned() }),
        "is marked already",
    );
    refused(
        world.add(crate::ledger::Entry::TokenMarked { token: "nowhere".to_owned() }),
        "which is not of this appliance",
    );
    world.carry(attach("ksk-a", "ksk", "serial-new"));
    assert!(!world.state.is_marked("ksk-a"), "another token has no mark yet");
    let mut empty = World::bound();
    propose(&mut empty, attach("zsk-a", "new", "serial-new"), "would have no token left");
}

#[test]
fn the_rest() {
    let mut world = World::founded();
    let past = Motion::RaiseTimeFloor { to: world.now };
    propose(&mut world, past, "the floor of time is 2026-11-25T03:00:00Z already");
    propose(&mut world, Motion::Thaw { scope: Scope::All }, "nothing of that scope is frozen");
    let (token, key) = ("ksk-a".to_owned(), audit_key("audit"));
    propose(&mut world, Motion::ReplaceAuditKey { token, key }, "is the audit key already");
    let head = world.state.tree().head();
    let origin = |lost, officers| Motion::NewOrigin { lost, officers, rules: 1 };
    propose(&mut world, origin(head, 1), "nothing is lost");
    let lost = TreeHead { size: 9, root: Hash([1; 32]) };
    propose(&mut world, origin(lost, 2), "only the recovery group");
    propose(&mut world, origin(lost, 1), "allowed");
}

fn attach(name: &str, group: &str) -> Motion {
    let identity = token(group, &format!("serial-{name}"));
    Motion::AttachToken { name: name.to_owned(), identity }
}

/// Policies come and go; what is on a token stays there.
#[test]
fn a_group_that_holds_ksks_takes_no_zsks_nor_the_other_way_round() {
    let mut world = World::signing();
    world.carry(attach("new-a", "new"));
    world.carry(Motion::UnbindZone { zones: [zone()].into() });
    let change = |ksk: &str, zsk: &str, world: &World| {
        next_policy(world, |p| (p.ksk_group, p.zsk_group) = (ksk.to_owned(), Some(zsk.to_owned())))
    };
    let motion = change("new", "ksk", &world);
    propose(&mut world, motion, "group `ksk` holds the KSK");
    let motion = change("zsk", "new", &world);
    propose(&mut world, motion, "group `zsk` holds the ZSK");
    let motion = change("new", "zsk", &world);
    propose(&mut world, motion, "allowed");
}

#[test]
fn a_key_on_a_group_that_its_policy_left_is_not_activated() {
    let mut world = World::bound();
    let key = world.make_ksk(true);
    world.carry(attach("new-a", "new"));
    let zones = || [zone()].into();
    world.carry(Motion::UnbindZone { zones: zones() });
    world.carry(Motion::RetireKey { zone: zone(), key });
    let motion = next_policy(&world, |p| p.ksk_group = "new".to_owned());
    world.carry(motion);
    world.carry(Motion::BindZone { zones: zones(), policy: "default".to_owned() });
    propose(&mut world, Motion::ActivateKey { zone: zone(), key }, "lives on group `ksk`");
}

#[test]
fn a_token_keeps_its_group_while_a_key_is_made_on_it() {
    let mut world = World::bound();
    world.carry(attach("ksk-b", "ksk"));
    world.carry(super::generate_ksk());
    let operation = world.generate(KeyRole::Ksk);
    world.intend(operation).expect("intent");
    propose(&mut world, attach("ksk-a", "new"), "makes a key on it");
    propose(&mut world, attach("ksk-b", "new"), "allowed");
    propose(&mut world, attach("ksk-a", "ksk"), "is exactly that already");
    let identity = token("ksk", "another");
    let replace = Motion::AttachToken { name: "ksk-a".to_owned(), identity };
    propose(&mut world, replace, "allowed");
}

#[test]
fn the_audit_key_is_no_zones_key() {
    let mut world = World::signing();
    let key = audit_key("audit").public().id();
    let (token, role, activate) = ("ksk-a".to_owned(), KeyRole::Ksk, true);
    let adopt = Motion::AdoptKey { zone: zone(), role, token: token.clone(), key, activate };
    propose(&mut world, adopt, "is the audit key");
    let zsk = world.publics.values().next().expect("a key").clone();
    let key = crate::checkpoint::AuditKey::new(zsk).expect("P-256");
    propose(&mut world, Motion::ReplaceAuditKey { token, key }, "of example.");
}

/// What is being made or adopted needs its room, as what is there does.
#[test]
fn keys_under_way_take_up_room() {
    let adopt = |role: KeyRole, number: u8| {
        let token = if role == KeyRole::Zsk { "zsk-a" } else { "ksk-a" }.to_owned();
        let key = crate::KeyId([number; 32]);
        Motion::AdoptKey { zone: zone(), role, token, key, activate: true }
    };
    let mut world = World::bound();
    for number in 1..=8 {
        world.carry(adopt(KeyRole::Ksk, number));
    }
    propose(&mut world, adopt(KeyRole::Ksk, 9), "has 8 KSKs and CSKs");
    propose(&mut world, super::generate_ksk(), "has 8 KSKs and CSKs");
    for number in 11..=14 {
        world.carry(adopt(KeyRole::Zsk, number));
    }
    propose(&mut world, adopt(KeyRole::Zsk, 15), "has 4 ZSKs");
}
