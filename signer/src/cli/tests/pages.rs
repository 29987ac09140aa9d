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

#[test]
fn the_roles() {
    let bed = Bed::new(World::founded());
    insta::assert_snapshot!(bed.first(&["officer", "roles"]).expect(End::Fine, ""));
}

#[test]
fn the_table_of_roles_needs_no_ledger_and_bears_no_false_one() {
    let mut bed = Bed::new(World::signing());
    let whole = bed.first(&["officer", "roles", "--json"]).expect(End::Fine, "");
    let whole: serde_json::Value = serde_json::from_str(&whole).expect("JSON");
    let rows = whole["operations"].as_array().expect("rows");
    assert_eq!(rows.len(), countersign_policy::motion::TABLE.len());
    assert!(rows.iter().all(|row| row["rule"].is_string()), "{whole}");
    bed.keeper.roll_back(3);
    let said = bed.run(&["officer", "roles"]);
    assert_eq!(said.out, "", "nothing is shown");
    said.expect(End::Unsound, "the ledger is behind");
    bed.keeper.socket = bed.path("nowhere");
    let alone = bed.run(&["officer", "roles", "--json"]).expect(End::Fine, "");
    let alone: serde_json::Value = serde_json::from_str(&alone).expect("JSON");
    assert!(alone["operations"][0]["rule"].is_null(), "{alone}");
    assert_eq!(alone["operations"][0]["proposes"], rows[0]["proposes"]);
    let page = bed.run(&["officer", "roles"]).expect(End::Fine, "Without the rules in force");
    assert!(page.contains("change-officers"), "{page}");
}
