//! What may be put on the table.

use super::{change, generate_ksk, next_policy, refused};
use crate::ledger::Entry;
use crate::motion::{Motion, Scope};
use crate::officer::Role;
use crate::ssh::Namespace;
use crate::state::{DAY_S, OPEN_A_PROPOSER_MAX, OPEN_MAX, PROPOSALS_A_DAY_MAX, Status};
use crate::statement::{AHEAD_S_MAX, Freeze, PATH_S_MAX, Statement, WINDOW_S_MAX};
use crate::testing::{Person, World, team, zone};
use crate::tree::Hash;

#[track_caller]
fn check(change: impl FnOnce(&World, &mut Statement), expect: &str) {
    let mut world = World::bound();
    let mut statement = world.statement("olga", generate_ksk());
    change(&world, &mut statement);
    let before = world.state.next_seq();
    match expect {
        "allowed" => assert!(world.table(&statement).is_ok()),
        _ => refused(world.table(&statement), expect),
    }
    assert_eq!(world.state.next_seq() == before, expect != "allowed");
}

#[test]
fn who_may_propose_what() {
    check(|_, _| {}, "allowed");
    check(|_, s| s.proposer = "alice".parse().expect("name"), "expected more persons");
    check(|_, s| s.proposer = "adam".parse().expect("name"), "can't propose generate-key");
    check(|_, s| s.proposer = "pat".parse().expect("name"), "can't propose generate-key");
    let mut world = World::bound();
    let motion = next_policy(&world, |p| p.validity_s -= 60);
    refused(world.propose("alice", motion), "can't propose set-policy");
    world.meet(Person::new("mallory", Role::Operator));
    refused(world.propose("mallory", generate_ksk()), "mallory is not on the roster");
}

/// Of four policy officers one proposes and one is to leave: two would be left to carry it, and none
/// of them might be away.
#[test]
fn the_floor_holds_by_the_rules_and_officers_that_come_too() {
    let mut people = team();
    people.push(Person::new("peggy", Role::PolicyOfficer));
    let mut world = World::founded_by(people, |_| {});
    let motion = change(&world, &["paul"], &[]);
    refused(world.propose("pat", motion.clone()), "so that the loss of one stops nothing");
    world.propose("olga", motion).expect("an operator does not count");
}

#[test]
fn nobody_proposes_in_anothers_name() {
    let mut world = World::bound();
    let statement = world.statement("olga", generate_ksk());
    let text = statement.to_text();
    let sign = |who: &str, namespace| world.person(who).sign(namespace, &text);
    let entry = |signature| Entry::Proposed { statement: text.clone(), signature };
    let by_alice = entry(sign("alice", Namespace::Propose));
    let to_approve = entry(sign("olga", Namespace::Approve));
    let other = entry(world.person("olga").sign(Namespace::Propose, "something else"));
    refused(world.add(by_alice), "which is no key of olga's");
    refused(world.add(to_approve), "olga's signature");
    refused(world.add(other), "olga's signature");
}

#[test]
fn a_statement_is_for_one_appliance_and_one_ledger() {
    check(|_, s| s.appliance = Hash([1; 32]), "it is for the appliance 0101");
    check(|_, s| s.checkpoint.root = Hash([1; 32]), "is of another ledger");
    check(|_, s| s.checkpoint.size += 1, "lines are missing here, or it is of another ledger");
    check(|_, s| s.checkpoint = crate::tree::Tree::new().head(), "is of another ledger");
    check(|world, s| s.checkpoint.root = world.state.tree().root_at(1).expect("root"), "another");
    check(
        |world, s| {
            s.checkpoint.size = 1;
            s.checkpoint.root = world.state.tree().root_at(1).expect("root");
        },
        "allowed",
    );
}

#[test]
fn windows_are_bounded_and_ahead() {
    let at = crate::testing::NOW;
    check(|_, s| s.not_before = s.not_after + 1, "expected them in this order");
    check(|_, s| s.finish_by = s.not_after - 1, "expected them in this order");
    check(|_, s| (s.not_before, s.not_after) = (at - 2, at), "is past");
    check(|_, s| (s.not_before, s.not_after) = (at - 2, at + 1), "allowed");
    check(|_, s| s.not_after = s.not_before + WINDOW_S_MAX, "expected them in this order");
    let window = |from: u64, len: u64, path: u64| {
        move |_: &World, s: &mut Statement| {
            s.not_before = from;
            s.not_after = from + len;
            s.finish_by = from + len + path;
        }
    };
    check(window(at, WINDOW_S_MAX, 0), "allowed");
    check(window(at, WINDOW_S_MAX + 1, 0), "from not-before to not-after");
    check(window(at + AHEAD_S_MAX, 60, 0), "allowed");
    check(window(at + AHEAD_S_MAX + 1, 60, 0), "from now to not-before");
    check(window(at, 60, PATH_S_MAX), "allowed");
    check(window(at, 60, PATH_S_MAX + 1), "from not-after to finish-by");
}

#[test]
fn a_window_that_the_floor_has_passed_is_past_whatever_the_clock_says() {
    let mut world = World::bound();
    let statement = world.statement("olga", generate_ksk());
    world.now += 8 * DAY_S;
    world.add(Entry::TokenMarked { token: "ksk-a".to_owned() }).expect("a line");
    world.now -= 8 * DAY_S;
    refused(world.table(&statement), "is past");
}

#[test]
fn a_nonce_is_used_once_and_so_is_a_statement() {
    let mut world = World::bound();
    let first = world.statement("olga", generate_ksk());
    let hash = world.table(&first).expect("proposed");
    refused(world.table(&first), "was proposed before and is open");
    let second = Statement { finish_by: first.finish_by + 1, ..first.clone() };
    refused(world.table(&second), "its nonce was used before");
    world.withdraw("olga", hash).expect("withdrawn");
    refused(world.table(&first), "was proposed before and is withdrawn");
    refused(world.table(&second), "its nonce was used before");
    // A freeze's nonce is none for a statement, either.
    let freeze = world.freeze_text("adam", Scope::Zone(zone()));
    let nonce = freeze.nonce;
    let text = freeze.to_text();
    let signature = world.person("adam").sign(Namespace::Freeze, &text);
    world.add(Entry::Frozen { text, signature }).expect("frozen");
    let third = Statement { nonce, ..second };
    refused(world.table(&third), "its nonce was used before");
}

#[test]
fn what_it_rests_on_is_what_is_here() {
    check(|_, s| s.depends = Hash([0; 32]), "it rests on another state");
}

#[test]
fn one_person_clogs_little() {
    let mut world = World::bound();
    let mut first = None;
    for _ in 0..OPEN_A_PROPOSER_MAX {
        let hash = world.propose("olga", generate_ksk()).expect("proposed");
        first.get_or_insert(hash);
    }
    refused(world.propose("olga", generate_ksk()), "olga has 8 open proposals");
    let hash = first.expect("the first");
    // Two were for the policy and the binding.
    for _ in OPEN_A_PROPOSER_MAX..PROPOSALS_A_DAY_MAX - 2 {
        let latest = world.state.proposals().map(|(hash, _)| *hash).next().expect("one");
        world.withdraw("olga", latest).expect("withdrawn");
        world.propose("olga", generate_ksk()).expect("proposed");
    }
    let latest = world.state.proposals().map(|(hash, _)| *hash).next().expect("one");
    world.withdraw("olga", latest).expect("withdrawn");
    refused(world.propose("olga", generate_ksk()), "40 proposals within a day");
    world.now += DAY_S - 1;
    refused(world.propose("olga", generate_ksk()), "40 proposals within a day");
    // Others are not hindered, and a jump of the clock is no way around for long.
    let motion = change(&world, &[], &[&Person::new("anna", Role::Auditor)]);
    world.propose("alice", motion).expect("another's quota");
    world.now += 1;
    world.propose("olga", generate_ksk()).expect("a new day");
    assert!(world.state.status(&hash).is_some());
}

#[test]
fn all_of_them_clog_little() {
    let mut people = team();
    people.extend((0..9).map(|n| Person::new(&format!("op{n}"), Role::Operator)));
    let mut world = World::founded_by(people, |_| {});
    world.bind_zone();
    for n in 0..OPEN_MAX {
        world.propose(&format!("op{}", n / OPEN_A_PROPOSER_MAX), generate_ksk()).expect("proposed");
    }
    refused(world.propose("op8", generate_ksk()), "64 proposals are open");
    assert_eq!(world.state.proposals().count(), OPEN_MAX);
    // Those that expire make room, and leave nothing but their end.
    world.now += 7 * DAY_S + 1;
    world.add(Entry::TokenMarked { token: "ksk-a".to_owned() }).expect("a line");
    assert_eq!(world.state.proposals().count(), 0);
    let expired = world.state.closed().values().filter(|c| c.status == Status::Expired);
    assert_eq!(expired.count(), OPEN_MAX);
    world.propose("op8", generate_ksk()).expect("proposed");
}

#[test]
fn the_proposer_withdraws_and_nobody_else() {
    let mut world = World::bound();
    let hash = world.propose("olga", generate_ksk()).expect("proposed");
    let appliance = world.state.appliance().expect("founded");
    let officer = world.person("alice").name.clone();
    let text = crate::statement::Withdrawal { appliance, officer, statement: hash }.to_text();
    let signature = world.person("alice").sign(Namespace::Withdraw, &text);
    refused(
        world.add(Entry::Withdrawn { statement: hash, signature }),
        "which is no key of olga's",
    );
    world.withdraw("olga", hash).expect("withdrawn");
    assert_eq!(world.state.status(&hash), Some(Status::Withdrawn));
    refused(world.withdraw("olga", hash), "is withdrawn");
}

#[test]
fn a_jump_forward_ends_no_proposal() {
    let mut world = World::bound();
    let hash = world.propose("olga", generate_ksk()).expect("proposed");
    world.now += 3650 * DAY_S;
    world.add(Entry::TokenMarked { token: "ksk-a".to_owned() }).expect("a line");
    assert_eq!(world.state.status(&hash), Some(Status::Open));
    world.now -= 3650 * DAY_S;
    world.approve("alice", hash).expect("approved");
}

#[test]
fn freezes_of_one_person_are_bounded_and_used_once() {
    let mut world = World::bound();
    let freeze = world.freeze_text("adam", Scope::All);
    let text = freeze.to_text();
    let signature = world.person("adam").sign(Namespace::Freeze, &text);
    let entry = Entry::Frozen { text: text.clone(), signature };
    let by_bob = world.person("bob").sign(Namespace::Freeze, &text);
    refused(
        world.add(Entry::Frozen { text: text.clone(), signature: by_bob }),
        "which is no key of adam's",
    );
    let to_deny = world.person("adam").sign(Namespace::Deny, &text);
    refused(world.add(Entry::Frozen { text, signature: to_deny }), "adam's signature");
    world.add(entry.clone()).expect("frozen");
    refused(world.add(entry), "its nonce was used before");
    for _ in 1..super::super::FREEZES_A_DAY_MAX {
        world.freeze("adam", Scope::Zone(zone())).expect("frozen");
    }
    refused(world.freeze("adam", Scope::All), "has frozen 20 times");
    world.freeze("bob", Scope::All).expect("another person");
    let stranger = "elsewhere.".parse().expect("a zone");
    refused(world.freeze("bob", Scope::Zone(stranger)), "is not bound here");
    let mut other = world.freeze_text("bob", Scope::All);
    other.appliance = Hash([3; 32]);
    let text = other.to_text();
    let signature = world.person("bob").sign(Namespace::Freeze, &text);
    refused(world.add(Entry::Frozen { text, signature }), "it is for the appliance 0303");
}

/// Whoever moves the clock within what is believed would go on using KSKs; the freeze that a person
/// signs by a right clock is taken all the same.
#[test]
fn a_clock_that_was_moved_swallows_no_freeze() {
    let entry = |world: &mut World, not_after: u64| {
        let freeze = Freeze { not_after, ..world.freeze_text("adam", Scope::All) };
        let text = freeze.to_text();
        let signature = world.person("adam").sign(Namespace::Freeze, &text);
        Entry::Frozen { text, signature }
    };
    let right = World::bound().now;
    for (right, moved) in [(right, right + 2 * DAY_S), (right + 5 * DAY_S, right)] {
        let mut world = World::bound();
        world.now = moved;
        world.state.clock(moved).expect("it is believed");
        let frozen = entry(&mut world, right + 3_600);
        world.add(frozen).expect("frozen");
    }
    // One that was kept back is of no use once the ledger has passed it, and none is for ever.
    let mut world = World::bound();
    let kept = entry(&mut world, right + 3_600);
    world.now += 3_601;
    world.freeze("bob", Scope::Zone(zone())).expect("a line");
    refused(world.add(kept), "not-after is");
    let credible = world.now + 30 * DAY_S;
    let long = entry(&mut world, credible + DAY_S + 1);
    refused(world.add(long), "not-after is");
    let long = entry(&mut world, credible + DAY_S);
    world.add(long).expect("frozen");
}

#[test]
fn what_is_proposed_has_a_rule_in_reach() {
    let mut world = World::bound();
    let nothing = Motion::Thaw { scope: Scope::All };
    refused(world.propose("olga", nothing), "nothing of that scope is frozen");
}
