//! What people read, as it looks.

use countersign_policy::testing::World;

use super::super::end::End;
use super::Bed;

/// A ledger with something of everything: it is the same each time.
fn eventful() -> World {
    let mut world = World::signing();
    let denied =
        countersign_policy::motion::Motion::DeleteDs { zone: countersign_policy::testing::zone() };
    let hash = world.propose("olga", denied.clone()).expect("a proposal");
    for officer in ["alice", "carol"] {
        world.deny(officer, hash).expect("a denial");
    }
    let hash = world.propose("olga", denied.clone()).expect("a proposal");
    world.withdraw("olga", hash).expect("a withdrawal");
    let hash = world.propose("alice", denied);
    // One key officer may not propose where two of the other two would be all.
    assert!(hash.is_err());
    let zone = countersign_policy::motion::Scope::Zone(countersign_policy::testing::zone());
    world.freeze("carol", zone).expect("a freeze");
    world
}

#[test]
fn the_officers_and_their_rules() {
    let bed = Bed::new(World::founded());
    insta::assert_snapshot!(bed.first(&["officer", "list"]).expect(End::Fine, ""));
}

#[test]
fn the_log() {
    let bed = Bed::new(eventful());
    insta::assert_snapshot!(bed.first(&["audit", "log"]).expect(End::Fine, ""));
}

#[test]
fn the_auditors_page() {
    let bed = Bed::new(eventful());
    let file = bed.text("bundle");
    bed.first(&["audit", "export", &file]).expect(End::Fine, "");
    let page = bed.first(&["audit", "verify", &file]).expect(End::Fine, "");
    insta::assert_snapshot!(page);
}

#[test]
fn the_calendar() {
    let bed = Bed::new(eventful());
    insta::assert_snapshot!(bed.first(&["calendar"]).expect(End::Attention, ""));
}
