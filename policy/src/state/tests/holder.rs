//! One box holds the tokens: the founding's, and then whichever a quorum moved the appliance to.

use super::refused;
use crate::instance::{Holder, InstanceId};
use crate::ledger::Entry;
use crate::motion::{Motion, Scope};
use crate::testing::World;
use crate::tree::{Hash, TreeHead};

fn instance(octet: u8) -> InstanceId {
    InstanceId(Hash([octet; 32]))
}

fn claim(octet: u8) -> Entry {
    Entry::InstanceClaimed { instance: instance(octet) }
}

fn start(octet: u8) -> Entry {
    Entry::Started {
        instance: instance(octet),
        version: "1".to_owned(),
        binary: "00".to_owned(),
        config: "00".to_owned(),
        modules: [].into(),
    }
}

fn moved(from: u8, to: u8) -> Motion {
    Motion::MoveAppliance { from: instance(from), to: instance(to) }
}

/// Founded, and held by box 1.
fn held() -> World {
    let mut world = World::founded();
    world.add(claim(1)).expect("claimed");
    world
}

fn holder(world: &World) -> Holder {
    *world.state.holder().expect("claimed")
}

#[test]
fn the_first_claim_is_the_only_one_without_a_quorum() {
    let mut world = World::founded();
    assert_eq!(world.state.holder(), None);
    refused(world.add(start(1)), "has not claimed the tokens");
    let early = world.propose("olga", moved(1, 2));
    refused(early, "no box has claimed the tokens yet");
    let line = world.add(claim(1)).expect("claimed");
    assert_eq!(holder(&world), Holder { instance: instance(1), origin: 0, line });
    refused(world.add(claim(2)), "by a move-appliance motion alone");
    refused(world.add(claim(1)), "by a move-appliance motion alone");
}

#[test]
fn no_other_box_starts() {
    let mut world = held();
    world.add(start(1)).expect("started");
    refused(world.add(start(2)), "holds the tokens since line 1");
    world.carry(moved(1, 2));
    refused(world.add(start(1)), "holds the tokens since line");
    world.add(start(2)).expect("started");
}

#[test]
fn a_move_is_from_the_holder_to_another_box() {
    let mut world = held();
    refused(world.propose("olga", moved(3, 2)), "holds the tokens since line 1; the motion moves");
    refused(world.propose("pat", moved(1, 2)), "policy-officer");
    let hash = world.propose("olga", moved(1, 2)).expect("proposed");
    for officer in ["alice", "pat", "petra"] {
        world.approve(officer, hash).ok();
    }
    refused(world.begin(hash), "it wants 1 more of key-officer (so far alice)");
    assert_eq!(holder(&world).instance, instance(1));
    world.approve("bob", hash).expect("approved");
    let line = world.begin(hash).expect("begun");
    assert_eq!(holder(&world), Holder { instance: instance(2), origin: 0, line });
    let confirmed = world.carry(moved(2, 2));
    assert_eq!(holder(&world), Holder { instance: instance(2), origin: 0, line: confirmed });
}

#[test]
fn of_two_moves_that_were_approved_one_begins() {
    let mut world = held();
    let motions = [moved(1, 2), moved(1, 3)];
    let hashes = motions.map(|motion| world.propose("olga", motion).expect("proposed"));
    for hash in hashes {
        for officer in ["alice", "bob"] {
            world.approve(officer, hash).expect("approved");
        }
    }
    world.begin(hashes[0]).expect("begun");
    refused(world.begin(hashes[1]), "what it rests on has changed");
    // Back again, the second would fit its words; it was approved for another line.
    world.carry(moved(2, 1));
    refused(world.begin(hashes[1]), "what it rests on has changed");
}

#[test]
fn a_freeze_and_a_clock_that_is_not_believed_hold_no_move() {
    let mut world = held();
    world.freeze("adam", Scope::All).expect("frozen");
    // A box that was built to replace a dead one may stand far ahead of the last line.
    world.now += 60 * 86_400;
    assert!(world.state.clock(world.now).is_err());
    let hash = world.propose("olga", moved(1, 2)).expect("proposed");
    for officer in ["alice", "bob"] {
        world.approve(officer, hash).expect("approved");
    }
    world.begin(hash).expect("begun");
    assert!(world.state.freezes().next().is_some(), "and it stays frozen");
}

#[test]
fn a_move_after_a_loss_outranks_every_move_before_it() {
    let mut world = held();
    world.carry(moved(1, 2));
    let before = holder(&world);
    let lost = TreeHead { size: 500, root: Hash([5; 32]) };
    let (officers, rules) = (world.state.officers_version(), world.state.rules_version());
    world.carry(Motion::NewOrigin { lost, officers, rules });
    assert_eq!(holder(&world), before, "a loss moves nothing by itself");
    let line = world.carry(moved(2, 3));
    let after = holder(&world);
    assert_eq!((after.origin, after.line), (1, line));
    assert!(after.rank() > (0, 499), "whatever was in the lost lines");
}
