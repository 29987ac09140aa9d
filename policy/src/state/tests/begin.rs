//! What begins had its quorum: by the rules in force at that line, in its window, on what it rests on.

use super::{change, generate_ksk, next_policy, refused};
use crate::key::KeyRole;
use crate::ledger::Entry;
use crate::motion::{Motion, MotionKind, Scope};
use crate::officer::{OfficerKey, Role};
use crate::state::{DAY_S, NotYet, Status};
use crate::statement::StatementHash;
use crate::testing::{
    Person, World, apart, audit_key, public_key, recovery_group, rules, team, zone,
};

/// A KSK for the zone, with these approvals.
fn approved(officers: &[&str]) -> (World, StatementHash) {
    let mut world = World::bound();
    let hash = world.propose("olga", generate_ksk()).expect("proposed");
    for officer in officers {
        world.approve(officer, hash).expect("approved");
    }
    (world, hash)
}

fn not_yet(world: &World, hash: StatementHash) -> NotYet {
    world.state.quorum(&hash, world.now).expect_err("not yet")
}

#[test]
fn it_takes_two() {
    let (mut world, hash) = approved(&[]);
    refused(world.begin(hash), "it wants 2 more of key-officer (so far nobody)");
    world.approve("alice", hash).expect("approved");
    refused(world.begin(hash), "it wants 1 more of key-officer (so far alice)");
    world.approve("carol", hash).expect("approved");
    let quorum = world.state.quorum(&hash, world.now).expect("a quorum");
    assert_eq!(quorum.approvers(), super::names::<Vec<_>>(&["alice", "carol"]));
    assert_eq!((quorum.kind(), quorum.is_recovery()), (MotionKind::GenerateKey, false));
    let line = world.begin(hash).expect("begun");
    assert_eq!(world.state.status(&hash), Some(Status::Begun { line, done: false }));
}

#[test]
fn groups_are_met_each_by_other_persons() {
    let mut both = apart();
    let mut rule = both.0[&MotionKind::BindZone].clone();
    rule.0[0].persons = 1;
    rule.0.insert(0, crate::rule::Group { persons: 1, roles: [Role::KeyOfficer].into() });
    both.0.insert(MotionKind::BindZone, rule);
    let mut world = World::founded_by(team(), |f| f.rules = both);
    let policy = next_policy(&world, |_| {});
    world.carry(policy);
    let bind = Motion::BindZone { zones: [zone()].into(), policy: "default".to_owned() };
    let hash = world.propose("olga", bind).expect("proposed");
    for officer in ["alice", "bob", "carol"] {
        world.approve(officer, hash).expect("approved");
    }
    refused(world.begin(hash), "it wants 1 more of policy-officer (so far nobody)");
    world.approve("pat", hash).expect("approved");
    world.begin(hash).expect("begun");
}

#[test]
fn it_begins_once() {
    let (mut world, hash) = approved(&["alice", "bob"]);
    let line = world.begin(hash).expect("begun");
    refused(world.begin(hash), &format!("under way since line {line}"));
    let (operation, number) = (world.generate(KeyRole::Ksk), world.number());
    world.make(operation, &public_key(number), false);
    refused(world.begin(hash), &format!("done (it began at line {line})"));
}

#[test]
fn it_begins_in_its_window() {
    let mut world = World::bound();
    let mut statement = world.statement("olga", generate_ksk());
    statement.not_before = world.now + 3_600;
    let hash = world.table(&statement).expect("proposed");
    for officer in ["alice", "bob"] {
        world.approve(officer, hash).expect("approved");
    }
    world.now = statement.not_before - 1;
    refused(world.begin(hash), "it begins at 2026-11-25T04:00:00Z at the earliest");
    world.now = statement.not_after + 1;
    refused(world.begin(hash), "it ended at 2026-12-02T03:00:00Z");
    assert!(not_yet(&world, hash).is_final());
    world.now = statement.not_after;
    world.begin(hash).expect("begun");
}

#[test]
fn a_clock_that_went_back_reopens_no_window() {
    let (mut world, hash) = approved(&["alice", "bob"]);
    world.now += 8 * DAY_S;
    assert!(matches!(not_yet(&world, hash), NotYet::Late(_)));
    world.add(Entry::TokenMarked { token: "ksk-a".to_owned() }).expect("a line");
    world.now -= 8 * DAY_S;
    assert_eq!(not_yet(&world, hash), NotYet::Over(Status::Expired));
}

#[test]
fn an_officer_who_left_does_not_count() {
    let (mut world, hash) = approved(&["alice", "bob"]);
    let dave = Person::new("dave", Role::KeyOfficer);
    let motion = change(&world, &["bob"], &[&dave]);
    world.carry(motion);
    refused(world.begin(hash), "it wants 1 more of key-officer (so far alice)");
    world.meet(dave);
    world.approve("dave", hash).expect("approved");
    world.begin(hash).expect("by alice and dave");
}

#[test]
fn a_key_that_was_replaced_does_not_count_and_its_owner_says_it_again() {
    let (mut world, hash) = approved(&["alice", "bob"]);
    let bob = Person::with_key("bob", Role::KeyOfficer, "bob's new key");
    let motion = change(&world, &["bob"], &[&bob]);
    world.carry(motion);
    refused(world.begin(hash), "it wants 1 more of key-officer (so far alice)");
    refused(world.approve("bob", hash), "which is no key of bob's");
    world.meet(bob);
    world.approve("bob", hash).expect("approved anew");
    world.begin(hash).expect("begun");
}

#[test]
fn a_role_that_was_changed_does_not_count() {
    let (mut world, hash) = approved(&["alice", "bob"]);
    let bob = Person::new("bob", Role::PolicyOfficer);
    let dave = Person::new("dave", Role::KeyOfficer);
    let motion = change(&world, &["bob"], &[&bob, &dave]);
    world.carry(motion);
    refused(world.begin(hash), "it wants 1 more of key-officer (so far alice)");
}

#[test]
fn a_key_that_passes_to_another_person_counts_once() {
    let (mut world, hash) = approved(&["alice"]);
    // Bob gets the key that alice approved with, alice another one.
    let bob = Person::with_key("bob", Role::KeyOfficer, "alice");
    let alice = Person::with_key("alice", Role::KeyOfficer, "alice's new key");
    let motion = change(&world, &["alice", "bob"], &[&alice, &bob]);
    world.carry(motion);
    world.meet(bob);
    world.approve("bob", hash).expect("approved");
    refused(world.begin(hash), "it wants 1 more of key-officer (so far bob)");
}

#[test]
fn what_a_person_who_left_has_proposed_is_void() {
    let (mut world, hash) = approved(&["alice", "bob"]);
    let other = Person::new("otto", Role::Operator);
    let motion = change(&world, &["olga"], &[&other]);
    world.carry(motion);
    refused(world.begin(hash), "olga is not on the roster; it can't begin any more");
    assert!(not_yet(&world, hash).is_final());
}

#[test]
fn the_key_that_proposed_never_approves() {
    let (mut world, hash) = approved(&["alice"]);
    // Olga's key passes to carol: without a look at the proposing key, she would count twice.
    let olga = Person::with_key("olga", Role::Operator, "olga's new key");
    let carol = Person::with_key("carol", Role::KeyOfficer, "olga");
    let motion = change(&world, &["olga", "carol"], &[&olga, &carol]);
    world.carry(motion);
    world.meet(carol);
    world.approve("carol", hash).expect("approved");
    refused(world.begin(hash), "the key that proposed it is no more olga's");
}

#[test]
fn what_it_rests_on_must_not_change() {
    let (mut world, hash) = approved(&["alice", "bob"]);
    // ZSKs, other zones and other policies are not what it rests on.
    world.make_zsk();
    let zones = ["other.".parse().expect("zone")].into();
    world.carry(Motion::BindZone { zones, policy: "default".to_owned() });
    assert!(world.state.quorum(&hash, world.now).is_ok());
    let motion = next_policy(&world, |policy| policy.validity_s -= 60);
    world.carry(motion);
    refused(world.begin(hash), "what it rests on has changed");
    assert!(not_yet(&world, hash).is_final());
}

#[test]
fn rules_of_the_line_where_it_begins_decide() {
    let mut people = team();
    people.push(Person::new("dora", Role::KeyOfficer));
    let mut world = World::founded_by(people, |_| {});
    world.bind_zone();
    let hash = world.propose("olga", generate_ksk()).expect("proposed");
    for officer in ["alice", "bob"] {
        world.approve(officer, hash).expect("approved");
    }
    let mut three = apart();
    three.0.extend(
        rules(3, &[Role::KeyOfficer]).0.into_iter().filter(|(kind, _)| kind.is_about_keys()),
    );
    world.carry(Motion::ChangeRules { version: 2, rules: three, recovery: None });
    refused(world.begin(hash), "it wants 1 more of key-officer (so far alice, bob)");
    world.approve("dora", hash).expect("approved");
    world.begin(hash).expect("begun");
}

/// Nobody lowers the bar without those who are behind it, and nobody raises it past them.
#[test]
fn rules_change_by_the_old_and_by_the_new() {
    for (old, new, first, missing) in [
        // Policy officers would hand all power to key officers: both have to agree.
        (apart(), rules(2, &[Role::KeyOfficer]), ["pat", "petra"], "key-officer"),
        (apart(), rules(2, &[Role::KeyOfficer]), ["alice", "bob"], "policy-officer"),
    ] {
        let mut world = World::founded_by(team(), |f| f.rules = old);
        let motion = Motion::ChangeRules { version: 2, rules: new, recovery: None };
        let hash = world.propose("olga", motion).expect("proposed");
        for officer in first {
            world.approve(officer, hash).expect("approved");
        }
        refused(world.begin(hash), &format!("it wants 2 more of {missing}"));
        for officer in ["pat", "petra", "alice", "bob"] {
            let _ = world.approve(officer, hash);
        }
        world.begin(hash).expect("by both");
        assert_eq!(world.state.rules_version(), 2);
    }
}

#[test]
fn officers_change_by_the_old_and_by_the_new() {
    let mut world = World::founded();
    // Who is retired counts by the old roster alone, so that two who go can't name their heirs.
    let heirs =
        [Person::new("hanna", Role::PolicyOfficer), Person::new("heinz", Role::PolicyOfficer)];
    let motion = change(&world, &["pat", "petra"], &[&heirs[0], &heirs[1]]);
    let hash = world.propose("olga", motion).expect("proposed");
    for officer in ["pat", "petra"] {
        world.approve(officer, hash).expect("approved");
    }
    refused(world.begin(hash), "by the officers and rules that it brings");
    let motion = change(&world, &["petra"], &[&heirs[0]]);
    let hash = world.propose("olga", motion).expect("proposed");
    for officer in ["pat", "petra"] {
        world.approve(officer, hash).expect("approved");
    }
    refused(world.begin(hash), "1 more of policy-officer (so far pat) by the officers and rules");
    world.approve("paul", hash).expect("approved");
    world.begin(hash).expect("begun");
    assert_eq!(world.state.officers_version(), 2);
}

#[test]
fn a_verify_required_key_is_another_key() {
    // An approval given before the roster asked for more is not what it asks for now.
    let (world, hash) = approved(&["alice", "bob"]);
    let mut law = world.state.law.clone();
    let bob = law.roster.0.get_mut(&world.person("bob").name).expect("bob");
    bob.keys = bob
        .keys
        .iter()
        .map(|key| OfficerKey { ssh: key.ssh.clone(), verify_required: true })
        .collect();
    let proposal = world.state.proposal(&hash).expect("open");
    assert_eq!(world.state.law.approvers(proposal).len(), 2);
    assert_eq!(law.approvers(proposal).len(), 1);
}

/// Votes that no line can bring about: the guard behind the guard.
#[test]
fn neither_the_proposer_counts_nor_the_key_that_proposed_nor_a_denial() {
    let (mut world, hash) = approved(&["alice", "bob"]);
    world.deny("bob", hash).expect("denied");
    let mut proposal = world.state.proposal(&hash).expect("open").clone();
    let olga =
        crate::state::Vote { key: proposal.key.clone(), ..proposal.votes[&name("alice")].clone() };
    proposal.votes.insert(name("carol"), olga.clone());
    let mut law = world.state.law.clone();
    law.roster.0.get_mut(&name("carol")).expect("carol").keys.insert(olga.key.clone());
    assert_eq!(law.approvers(&proposal), [&name("alice")].into(), "the key that proposed");
    let mut other = law.roster.0[&name("olga")].clone();
    other.keys = law.roster.0[&name("bob")].keys.clone();
    law.roster.0.insert(name("olga"), other.clone());
    let key = other.keys.first().expect("a key").clone();
    proposal.votes.insert(name("olga"), crate::state::Vote { key, ..olga });
    assert_eq!(law.approvers(&proposal), [&name("alice")].into(), "the proposer");
}

fn name(name: &str) -> crate::officer::PersonName {
    name.parse().expect("a name")
}

#[test]
fn a_freeze_holds_what_touches_a_ksk_and_only_a_quorum_thaws() {
    for scope in [Scope::All, Scope::Zone(zone())] {
        let (mut world, hash) = approved(&["alice", "bob"]);
        world.freeze("adam", scope.clone()).expect("frozen");
        refused(world.begin(hash), "is frozen since line");
        // Policies, officers and tokens go on.
        let motion = next_policy(&world, |_| {});
        assert!(world.propose("olga", motion).is_ok());
        let thaw = world.propose("olga", Motion::Thaw { scope: scope.clone() }).expect("proposed");
        refused(world.begin(thaw), "it wants 2 more of policy-officer");
        world.approve("pat", thaw).expect("approved");
        world.approve("petra", thaw).expect("approved");
        // A thaw is of the freeze that its officers saw: a later one is not swallowed.
        world.freeze("alice", scope.clone()).expect("frozen again");
        refused(world.begin(thaw), "what it rests on has changed");
        world.carry(Motion::Thaw { scope });
        world.begin(hash).expect("begun");
    }
}

#[test]
fn the_freeze_of_another_zone_holds_nothing_here() {
    let (mut world, hash) = approved(&["alice", "bob"]);
    let other: crate::ZoneName = "other.".parse().expect("zone");
    let (zones, policy) = ([other.clone()].into(), "default".to_owned());
    world.carry(Motion::BindZone { zones, policy });
    world.freeze("adam", Scope::Zone(other)).expect("frozen");
    world.begin(hash).expect("begun");
}

#[test]
fn a_clock_that_is_not_believed_holds_what_touches_a_ksk() {
    let mut world = World::bound();
    world.now += 40 * DAY_S;
    let hash = world.propose("olga", generate_ksk()).expect("proposed");
    for officer in ["alice", "bob"] {
        world.approve(officer, hash).expect("approved");
    }
    refused(world.begin(hash), "propose raise-time-floor");
    let motion = next_policy(&world, |policy| policy.validity_s -= 60);
    let other = world.propose("olga", motion).expect("proposed");
    for officer in ["pat", "petra"] {
        world.approve(officer, other).expect("approved");
    }
    world.begin(other).expect("no KSK is in it");
}

#[test]
fn the_floor_of_time_is_raised_by_a_quorum_that_judges_at_the_time_it_names() {
    let mut world = World::bound();
    let to = world.now + 40 * DAY_S;
    world.now = to + 60;
    let mut statement = world.statement("olga", Motion::RaiseTimeFloor { to });
    refused(world.table(&statement), "is outside the statement's own window");
    statement.not_before = to - 60;
    let hash = world.table(&statement).expect("proposed");
    for officer in ["pat", "petra"] {
        world.approve(officer, hash).expect("approved");
    }
    for wrong in [to - 3_601, to + 30 * DAY_S + 1] {
        let now = std::mem::replace(&mut world.now, wrong);
        refused(world.begin(hash), "set the clock right first");
        world.now = now;
    }
    world.begin(hash).expect("begun");
    assert_eq!(world.state.time_floor(), to + 60);
    assert_eq!(world.state.clock(world.now), Ok(()));
}

#[test]
fn the_recovery_group_waits_and_does_little() {
    let mut people = team();
    people.extend(recovery_group());
    let mut world = World::founded_by(people, |_| {});
    let dave = Person::new("dave", Role::PolicyOfficer);
    let eve = Person::new("eve", Role::PolicyOfficer);
    let motion = change(&world, &["pat", "petra"], &[&dave, &eve]);
    refused(world.propose("rita", next_policy(&world, |_| {})), "can't propose set-policy");
    let hash = world.propose("rita", motion.clone()).expect("proposed");
    refused(world.approve("pat", hash), "has no vote on change-officers");
    for officer in ["rob", "ruth"] {
        world.approve(officer, hash).expect("approved");
    }
    refused(world.begin(hash), "it wants 1 more of recovery (so far rob, ruth)");
    world.approve("ralf", hash).expect("approved");
    refused(world.begin(hash), "the recovery group's delay ends at 2026-11-27T03:00:00Z");
    // Those who can still act make it void meanwhile.
    let mut saved = World::fold(&world.lines).expect("folds");
    world.now += 2 * DAY_S - 1;
    refused(world.begin(hash), "the recovery group's delay");
    world.now += 1;
    world.begin(hash).expect("begun");
    assert_eq!(world.state.officers_version(), 2);
    std::mem::swap(&mut world.state, &mut saved);
    world.now -= DAY_S;
    let anna = Person::new("anna", Role::Auditor);
    let motion = change(&world, &[], &[&anna]);
    world.carry(motion);
    world.now += DAY_S;
    refused(world.begin(hash), "what it rests on has changed");
    // In an ordinary motion the group has no vote.
    let motion = change(&world, &[], &[&Person::new("arno", Role::Auditor)]);
    let hash = world.propose("olga", motion).expect("proposed");
    refused(world.approve("rob", hash), "has no vote on change-officers");
}

#[test]
fn a_recovery_proposed_with_the_clock_back_waits_all_the_same() {
    let mut people = team();
    people.extend(recovery_group());
    let mut world = World::founded_by(people, |_| {});
    world.now -= DAY_S;
    let motion = change(&world, &[], &[&Person::new("anna", Role::Auditor)]);
    let hash = world.propose("rita", motion).expect("proposed");
    for officer in ["rob", "ruth", "ralf"] {
        world.approve(officer, hash).expect("approved");
    }
    world.now += 3 * DAY_S - 1;
    refused(world.begin(hash), "the recovery group's delay");
    world.now += 1;
    world.begin(hash).expect("begun");
}

#[test]
fn the_floor_holds_where_it_begins() {
    let (mut world, hash) = approved(&["alice", "bob"]);
    let proposal = world.state.proposal(&hash).expect("open").statement.clone();
    // As no line can bring about, since each change keeps the floor: the guard behind the guard.
    let carol = world.person("carol").name.clone();
    world.state.law.roster.0.remove(&carol);
    assert_eq!(proposal.motion.kind(), MotionKind::GenerateKey);
    refused(world.begin(hash), "so that the loss of one stops nothing");
}

#[test]
fn the_audit_key_is_replaced_by_quorum() {
    let mut world = World::founded();
    let (token, key) = ("zsk-a".to_owned(), audit_key("another"));
    world.carry(Motion::ReplaceAuditKey { token, key: key.clone() });
    assert_eq!(world.state.audit(), Some(("zsk-a", &key)));
    let (token, key) = ("nowhere".to_owned(), audit_key("third"));
    refused(world.propose("olga", Motion::ReplaceAuditKey { token, key }), "no token `nowhere`");
}

/// Another token under the same name is not what was approved.
#[test]
fn tokens_on_which_keys_are_made_or_found_must_not_change() {
    use crate::testing::token;
    let adopt = |zone, key| Motion::AdoptKey {
        zone,
        role: crate::KeyRole::Ksk,
        token: "ksk-a".to_owned(),
        key,
        activate: false,
    };
    for motion in [generate_ksk(), adopt(zone(), crate::KeyId([1; 32]))] {
        let mut world = World::bound();
        let hash = world.propose("olga", motion).expect("proposed");
        for officer in ["alice", "bob"] {
            world.approve(officer, hash).expect("approved");
        }
        let attach = |name: &str, group: &str| Motion::AttachToken {
            name: name.to_owned(),
            identity: token(group, "another"),
        };
        world.carry(attach("zsk-a", "zsk"));
        assert!(world.state.quorum(&hash, world.now).is_ok(), "it is not about that one");
        let mut identity = token("ksk", "third");
        identity.data_objects = false;
        world.carry(Motion::AttachToken { name: "ksk-a".to_owned(), identity });
        assert_eq!(not_yet(&world, hash), NotYet::Changed);
    }
}

/// A clock that ran ten years ahead opens nothing that was planned for later.
#[test]
fn a_clock_that_is_not_believed_opens_no_window() {
    let mut world = World::bound();
    let motion = next_policy(&world, |policy| policy.validity_s -= 60);
    let mut statement = world.statement("olga", motion);
    let planned = world.now + 60 * DAY_S;
    (statement.not_before, statement.not_after) = (planned, planned + DAY_S);
    statement.finish_by = planned + 2 * DAY_S;
    let hash = world.table(&statement).expect("proposed");
    for officer in ["pat", "petra"] {
        world.approve(officer, hash).expect("approved");
    }
    assert_eq!(not_yet(&world, hash), NotYet::Early(planned));
    world.now = planned;
    refused(world.begin(hash), "propose raise-time-floor");
    world.now -= 30 * DAY_S;
    world.freeze("adam", Scope::All).expect("a line");
    world.now = planned;
    world.begin(hash).expect("the ledger came that far by itself");
}

/// What began goes on as what it was approved as, or not at all.
#[test]
fn a_key_that_was_to_be_made_otherwise_is_not_made() {
    use crate::state::Status;
    type Change = fn(&mut World);
    let algorithm: Change = |world| {
        let motion = next_policy(world, |p| p.algorithm = crate::Algorithm::Ed25519);
        world.carry(motion);
    };
    let rebound: Change = |world| {
        let zones = || [zone()].into();
        world.carry(Motion::UnbindZone { zones: zones() });
        world.carry(Motion::BindZone { zones: zones(), policy: "default".to_owned() });
    };
    let validity: Change = |world| {
        let motion = next_policy(world, |p| p.validity_s -= 60);
        world.carry(motion);
    };
    for (change, goes_on) in [(algorithm, false), (rebound, false), (validity, true)] {
        let mut world = World::bound();
        let hash = world.propose("olga", generate_ksk()).expect("proposed");
        for officer in ["alice", "bob"] {
            world.approve(officer, hash).expect("approved");
        }
        world.begin(hash).expect("begun");
        change(&mut world);
        let operation = world.generate(crate::KeyRole::Ksk);
        assert_eq!(world.intend(operation).is_ok(), goes_on);
        assert_eq!(world.state.status(&hash) == Some(Status::Lapsed), !goes_on);
    }
}

/// One of its zones is bound anew; the rest of it goes on, and it is not told as done.
#[test]
fn what_is_cut_short_is_not_told_as_done() {
    use crate::state::Status;
    let mut world = World::bound();
    let other: crate::ZoneName = "other.".parse().expect("zone");
    world.carry(Motion::BindZone { zones: [other.clone()].into(), policy: "default".to_owned() });
    let (zones, role) = ([zone(), other.clone()].into(), crate::KeyRole::Ksk);
    let hash = world
        .propose("olga", Motion::GenerateKey { zones, role, activate: false })
        .expect("proposed");
    for officer in ["alice", "bob"] {
        world.approve(officer, hash).expect("approved");
    }
    let begun = world.begin(hash).expect("begun");
    world.carry(Motion::UnbindZone { zones: [other].into() });
    assert_eq!(world.steps(begun).len(), 1);
    let operation = world.generate(role);
    world.make(operation, &crate::testing::public_key(1), false);
    assert_eq!(world.state.status(&hash), Some(Status::Lapsed));
    assert!(world.steps(begun).is_empty());
}
