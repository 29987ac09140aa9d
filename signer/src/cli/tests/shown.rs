//! What people are shown before they sign: what would change, in a place where it is not read over; and
//! that nothing is signed that could not be shown.

use std::io::{Error, ErrorKind, Write};

use clap::Parser as _;
use countersign_policy::officer::Role;
use countersign_policy::testing::{Person, World};
use data_encoding::HEXLOWER;

use super::super::end::End;
use super::super::{Cli, run_at};
use super::{Bed, Said, TestKeeper};

/// Proposes as olga; the id.
fn proposed(bed: &Bed, arguments: &[&str]) -> String {
    let said = bed.run_as("olga", &[&["--json", "propose"], arguments].concat());
    assert_eq!(said.end, End::Fine, "{}", said.err);
    let parsed: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    parsed["id"].as_str().expect("an id").to_owned()
}

/// A terminal whose reader has gone.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(Error::from(ErrorKind::BrokenPipe))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs a command as that person, whose output goes nowhere.
fn run_unread(bed: &Bed, person: &str, arguments: &[&str]) -> Said {
    let TestKeeper { socket, .. } = &bed.keeper;
    let (socket, pins) = (socket.display().to_string(), bed.text("pins"));
    let (identity, founding) = (bed.identity(person), bed.keeper.founding().to_string());
    let fixed = ["countersign", "--ledger-socket", &socket, "--pins", &pins, "--yes"];
    let named = ["--identity", &identity, "--founding", &founding];
    let cli = Cli::try_parse_from(fixed.iter().chain(arguments).chain(&named)).expect("arguments");
    let mut err = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let end = runtime.block_on(run_at(bed.now, cli, &mut Gone, &mut err));
    Said { end, out: String::new(), err: String::from_utf8(err).expect("text") }
}

#[test]
fn what_can_not_be_shown_is_not_signed_and_a_freeze_goes_through() {
    let bed = Bed::new(World::bound());
    let id = proposed(&bed, &["generate-key", "--zone", "example.", "--role", "ksk"]);
    let lines = bed.keeper.lines();
    let unshown = "nothing was signed";
    run_unread(&bed, "alice", &["approve", &id]).expect(End::Failed, unshown);
    run_unread(&bed, "alice", &["deny", &id]).expect(End::Failed, unshown);
    run_unread(&bed, "olga", &["propose", "delete-ds", "--zone", "example."])
        .expect(End::Failed, unshown);
    assert_eq!(bed.keeper.lines(), lines, "nothing came of it");
    run_unread(&bed, "adam", &["freeze", "--reason", "strange"]).expect(End::Fine, "");
    assert_eq!(bed.keeper.lines(), lines + 1, "it is frozen");
    // Who only reads may stop at any time.
    run_unread(&bed, "adam", &["audit", "log"]).expect(End::Fine, "");
}

#[test]
fn a_rule_that_is_lowered_among_nineteen_is_shown_apart() {
    let bed = Bed::new(World::founded());
    let change = [
        "change-rules",
        "--rule",
        "export-ds=1 key-officer + 1 policy-officer",
        "--rule",
        "thaw=1 key-officer + 1 policy-officer",
    ];
    let id = proposed(&bed, &change);
    let said = bed.run_as("pat", &["approve", &id]).expect(End::Fine, "approved by pat");
    let after = said.split("would approve: ").nth(1).expect("the summary behind the text");
    let apart = after.split("text       ").next().expect("apart");
    let changes: Vec<&str> = apart.lines().skip(1).map(str::trim).collect();
    let expect = [
        "export-ds takes 1 key-officer + 1 policy-officer, now 2 key-officer",
        "thaw takes 1 key-officer + 1 policy-officer, now 2 policy-officer",
    ];
    assert_eq!(changes, expect, "{said}");
    assert!(after.contains(&format!("countersign proposal show {} | less", &id[..8])), "{said}");
    let shown = bed.run(&["--json", "proposal", "show", &id]).expect(End::Fine, "");
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["changes"], serde_json::json!(expect));
}

#[test]
fn a_key_that_is_exchanged_and_a_validity_with_a_digit_less_are_shown() {
    let bed = Bed::new(World::bound());
    let path = bed.path("other.pub");
    let other = Person::new("mallory", Role::KeyOfficer);
    std::fs::write(&path, other.ssh().to_string()).expect("written");
    let replace = ["officer", "replace", "bob", "--key", &path.display().to_string()];
    let said = bed.run_as("olga", &[&replace[..], &["--json"]].concat());
    assert_eq!(said.end, End::Fine, "{}", said.err);
    let id = said.out.split('"').nth(3).expect("an id").to_owned();
    let shown = bed.run(&["proposal", "show", &id]).expect(End::Fine, "bob stays key-officer");
    for part in ["bob loses the key SHA256:", "bob gets the key SHA256:"] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
    let policy = ["set-policy", "--name", "default", "--validity-s", "1209601"];
    let id = proposed(&bed, &policy);
    let shown = bed.run(&["proposal", "show", &id]).expect(End::Fine, "validity_s: 1209601, now ");
    assert!(shown.contains("zones that it is for: 1"), "{shown}");
}

#[test]
fn who_may_not_propose_for_want_of_votes_is_told_who_can() {
    let bed = Bed::new(World::bound());
    bed.run_as("alice", &["propose", "delete-ds", "--zone", "example."])
        .expect(End::Failed, "an operator say");
}

#[test]
fn an_export_that_is_not_approved_yet_is_named() {
    let mut world = World::bound();
    world.make_ksk(true);
    let bed = Bed::new(world);
    let id = proposed(&bed, &["export-ds", "--zone", "example."]);
    bed.run(&["ds", "export", "example."])
        .expect(End::Failed, &format!("{} is open: it wants 2 more", &id[..8]));
}

#[test]
fn the_audit_key_is_shown_as_the_founding_has_it() {
    let bed = Bed::new(World::founded());
    let key = countersign_policy::testing::audit_key("audit");
    let octets = HEXLOWER.encode(key.public().bytes());
    bed.run(&["survey"]).expect(End::Fine, &format!("{} {octets}", key.public().algorithm()));
}

#[test]
fn lines_that_nobody_checked_move_no_terminal() {
    let bed = Bed::new(World::founded());
    bed.keeper.kept().lie = |lines| lines[0] = b"{\"a\":\"\x1b[2J\xc2\x9b1A\n\"}".to_vec();
    let said = bed.run(&["ledger", "list"]).expect(End::Fine, "\\u{1b}[2J\\u{9b}1A");
    assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{said:?}");
    assert_eq!(said.lines().count(), bed.keeper.lines(), "{said}");
    let said = bed.first(&["officer", "list"]);
    assert!(!said.err.contains(|c: char| c.is_control() && c != '\n'), "{:?}", said.err);
    said.expect(End::Unsound, "does not hold");
    bed.run(&["--json", "ledger", "list"]).expect(End::Unsound, "no JSON");
}

#[test]
fn a_keeper_that_shows_more_than_it_has_is_not_followed() {
    let bed = Bed::new(World::founded());
    bed.keeper.kept().lie = |lines| lines.clear();
    bed.first(&["officer", "list"]).expect(End::Unreachable, "fewer lines than its head says");
    bed.keeper.kept().lie = |lines| lines[0] = vec![b'['; 3 << 20];
    bed.first(&["officer", "list"]).expect(End::Unsound, "does not hold");
    bed.keeper.kept().lie = |lines| lines.extend(vec![Vec::new(); 1_000]);
    bed.first(&["officer", "list"]).expect(End::Fine, "alice");
}

#[test]
fn the_ledgers_lines_are_one_document() {
    let bed = Bed::new(World::bound());
    let said = bed.run(&["--json", "ledger", "list"]).expect(End::Fine, "");
    let lines: Vec<serde_json::Value> = serde_json::from_str(&said).expect("JSON");
    assert_eq!(lines.len(), bed.keeper.lines());
    assert_eq!(lines[1]["seq"], "1");
}

#[test]
fn a_disk_that_fails_is_no_ledger_that_lies() {
    let bed = Bed::new(World::founded());
    let folder = bed.path("").display().to_string();
    bed.first(&["audit", "verify", &folder]).expect(End::Failed, "can't be read");
}
