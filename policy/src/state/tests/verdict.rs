//! Officers' words.

use super::{generate_ksk, next_policy, refused};
use crate::ledger::Entry;
use crate::ssh::{Namespace, Signature};
use crate::state::{DAY_S, Status};
use crate::statement::{StatementHash, Verb};
use crate::testing::World;
use crate::tree::TreeHead;

fn proposed() -> (World, StatementHash) {
    let mut world = World::bound();
    let hash = world.propose("olga", generate_ksk()).expect("proposed");
    (world, hash)
}

/// The entry, with something changed.
fn altered(entry: &Entry, change: impl FnOnce(&mut Verb, &mut TreeHead, &mut Signature)) -> Entry {
    let mut entry = entry.clone();
    let Entry::Verdict { verb, checkpoint, signature, .. } = &mut entry else { panic!("verdict") };
    change(verb, checkpoint, signature);
    entry
}

#[test]
fn who_has_a_vote() {
    let (mut world, hash) = proposed();
    refused(world.approve("olga", hash), "olga proposed it and has no vote");
    refused(world.approve("adam", hash), "adam is of the role auditor and has no vote");
    refused(world.approve("pat", hash), "pat is of the role policy-officer and has no vote");
    world.meet(crate::testing::Person::new("mallory", crate::officer::Role::KeyOfficer));
    refused(world.approve("mallory", hash), "mallory is not on the roster");
    world.approve("alice", hash).expect("approved");
    // One who proposes something that the own role decides has no vote, either.
    let mut world = World::founded_by(
        {
            let mut people = crate::testing::team();
            people.push(crate::testing::Person::new("peggy", crate::officer::Role::PolicyOfficer));
            people
        },
        |_| {},
    );
    let motion = next_policy(&world, |_| {});
    let hash = world.propose("pat", motion).expect("proposed");
    refused(world.approve("pat", hash), "pat proposed it and has no vote");
    refused(world.deny("pat", hash), "pat proposed it and has no vote");
}

#[test]
fn a_verdict_is_signed_as_what_it_is() {
    let (mut world, hash) = proposed();
    let (verdict, entry) = world.verdict("alice", Verb::Approve, hash);
    let text = verdict.to_text();
    let (denial, _) = world.verdict("alice", Verb::Deny, hash);
    let sign = |who: &str, namespace, text: &str| world.person(who).sign(namespace, text);
    let refusals = [
        (altered(&entry, |verb, _, _| *verb = Verb::Deny), "alice's signature"),
        (
            altered(&entry, |_, _, s| *s = sign("bob", Namespace::Approve, &text)),
            "which is no key of alice's",
        ),
        (
            altered(&entry, |_, _, s| *s = sign("alice", Namespace::Deny, &text)),
            "alice's signature",
        ),
        (
            altered(&entry, |_, _, s| *s = sign("alice", Namespace::Propose, &text)),
            "alice's signature",
        ),
        (
            altered(&entry, |_, _, s| *s = sign("alice", Namespace::Approve, &denial.to_text())),
            "alice's signature",
        ),
    ];
    for (entry, expect) in refusals {
        refused(world.add(entry), expect);
    }
    world.add(entry).expect("approved");
}

#[test]
fn the_officer_has_seen_this_ledger_with_the_proposal_in_it() {
    let (mut world, hash) = proposed();
    let line = world.state.proposal(&hash).expect("open").line;
    let at = |world: &World, size: u64| TreeHead {
        size,
        root: world.state.tree().root_at(size).expect("root"),
    };
    let approve = |world: &World, checkpoint: TreeHead| {
        let (mut verdict, entry) = world.verdict("alice", Verb::Approve, hash);
        verdict.checkpoint = checkpoint;
        let signed = world.person("alice").sign(Namespace::Approve, &verdict.to_text());
        altered(&entry, |_, c, s| (*c, *s) = (checkpoint, signed))
    };
    let before = approve(&world, at(&world, line));
    refused(world.add(before), "has not seen the ledger with the proposal in it");
    let mut fork = at(&world, line + 1);
    fork.root.0[0] ^= 1;
    let forked = approve(&world, fork);
    refused(world.add(forked), "is of another ledger");
    let mut ahead = at(&world, line + 1);
    ahead.size += 1;
    let ahead = approve(&world, ahead);
    refused(world.add(ahead), "lines are missing here");
    let good = approve(&world, at(&world, line + 1));
    world.add(good).expect("approved");
}

#[test]
fn one_word_of_a_kind_and_a_denial_stands() {
    let (mut world, hash) = proposed();
    world.approve("alice", hash).expect("approved");
    refused(world.approve("alice", hash), "alice approved it at line");
    world.deny("alice", hash).expect("a denial after an approval");
    refused(world.approve("alice", hash), "alice denied it at line");
    refused(world.deny("alice", hash), "alice denied it at line");
    world.approve("bob", hash).expect("approved");
    refused(world.begin(hash), "1 more of key-officer (so far bob)");
    world.approve("carol", hash).expect("approved");
    world.begin(hash).expect("by bob and carol");
}

#[test]
fn what_enough_deny_is_over() {
    let (mut world, hash) = proposed();
    world.approve("carol", hash).expect("approved");
    world.deny("alice", hash).expect("denied");
    assert_eq!(world.state.status(&hash), Some(Status::Open));
    world.deny("bob", hash).expect("denied");
    assert_eq!(world.state.status(&hash), Some(Status::Denied));
    let entry = Entry::Begun { statement: hash, reveals: vec![] };
    refused(world.add(entry), "it is denied");
}

#[test]
fn no_word_after_the_window() {
    let (mut world, hash) = proposed();
    world.now += 7 * DAY_S;
    let (_, entry) = world.verdict("alice", Verb::Approve, hash);
    world.now += 1;
    refused(world.add(entry), "the proposal ended at 2026-12-02T03:00:00Z");
    // With the clock behind what the ledger has seen, the floor decides.
    world.add(Entry::TokenMarked { token: "ksk-a".to_owned() }).expect("a line");
    world.now -= DAY_S;
    assert_eq!(world.state.status(&hash), Some(Status::Expired));
}
