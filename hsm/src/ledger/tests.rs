//! The ledger on a real file system: what a crash, an editor, a second keeper and a full disk do.

use std::fs;

use countersign_policy::founding::{Binding, TokenIdentity};
use countersign_policy::ledger::Outcome;
use countersign_policy::signing::{Denial, KeySplit, SerialPolicy, SigningPolicy};
use countersign_policy::{Algorithm, KeyRole, PublicKey, ZoneName};

use super::*;

const NONCE: &str = "000102030405060708090a0b0c0d0e0f";

fn founding() -> LabFounding {
    let token = |group: &str| TokenIdentity {
        label: group.to_owned(),
        serial: "1".to_owned(),
        group: group.to_owned(),
    };
    let policy = SigningPolicy {
        algorithm: Algorithm::EcdsaP256Sha256,
        rsa_bits: None,
        keys: KeySplit::KskZsk,
        ksk_group: "ksk".to_owned(),
        zsk_group: Some("zsk".to_owned()),
        denial: Denial::Nsec,
        serial: SerialPolicy::Unixtime,
        dnskey_ttl_s: 3_600,
        ttl_max_s: 86_400,
        validity_s: 14 * 86_400,
        refresh_s: 7 * 86_400,
        inception_offset_s: 3_600,
    };
    LabFounding {
        appliance: "lab".to_owned(),
        token: [("ksk-a".to_owned(), token("ksk")), ("zsk-a".to_owned(), token("zsk"))].into(),
        policy: [("default".to_owned(), policy)].into(),
        zone: [(zone(), Binding { policy: "default".to_owned() })].into(),
    }
}

fn zone() -> ZoneName {
    "example.".parse().expect("name")
}

fn generate(role: KeyRole) -> Operation {
    let token = if role == KeyRole::Zsk { "zsk-a" } else { "ksk-a" };
    let nonce = NONCE.to_owned();
    Operation::Generate { zone: zone(), role, token: token.to_owned(), nonce }
}

fn public(octet: u8) -> PublicKey {
    PublicKey::new(Algorithm::EcdsaP256Sha256, &[octet; 64]).expect("key")
}

/// A ledger with a founding and a KSK: lines 0 to 2.
fn with_a_key(dir: &Path) -> Ledger {
    let ledger = Ledger::open(dir).expect("opens");
    ledger.found(founding(), 1).expect("founded");
    let leave = ledger.intend(generate(KeyRole::Ksk), 0, 2).expect("allowed");
    let spent = leave.spend();
    ledger.outcome(spent, Outcome::Generated { public: public(1) }, 3).expect("recorded");
    ledger
}

fn refused(dir: &Path, expect: &str) {
    let error = Ledger::open(dir).expect_err(expect).to_string();
    assert!(error.contains(expect), "{error}");
}

#[test]
fn what_is_written_is_there_after_a_restart() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("dir");
    let head = with_a_key(dir.path()).head();
    let ledger = Ledger::open(dir.path()).expect("opens again");
    assert_eq!(ledger.head(), head);
    assert_eq!(head.0, 3);
    assert!(ledger.read(|state| state.keys().contains_key(&public(1).id())));
    let mode = fs::metadata(ledger.path()).expect("file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (lines, cut) = ledger.lines(0, 0, 10, 1 << 20).expect("read");
    assert_eq!((lines.len(), cut), (3, false));
    assert_eq!(sha256(&lines[0]), head.1);
}

#[test]
fn a_line_longer_than_an_answer_is_read_in_parts() {
    let dir = tempfile::tempdir().expect("dir");
    let ledger = with_a_key(dir.path());
    let (whole, _) = ledger.lines(0, 0, 1, 1 << 20).expect("read");
    let mut parts = Vec::new();
    loop {
        let (mut lines, cut) = ledger.lines(0, parts.len() as u64, 1, 100).expect("read");
        parts.append(&mut lines[0]);
        if !cut {
            break;
        }
    }
    assert_eq!(parts, whole[0]);
    assert_eq!(ledger.lines(9, 0, 10, 100).expect("read"), (Vec::new(), false));
    assert_eq!(ledger.lines(u64::MAX, u64::MAX, 10, 100).expect("read"), (Vec::new(), false));
    assert_eq!(ledger.lines(1, u64::MAX, 1, 100).expect("read"), (vec![Vec::new()], false));
}

#[test]
fn an_unfinished_last_line_is_cut_off_wherever_the_crash_was() {
    let dir = tempfile::tempdir().expect("dir");
    let path = with_a_key(dir.path()).path().to_owned();
    let whole = fs::read(&path).expect("ledger");
    let second_end = whole.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(1).expect("end").0;
    for torn in [second_end + 2, second_end + 40, whole.len() - 1] {
        fs::write(&path, &whole[..torn]).expect("written");
        let ledger = Ledger::open(dir.path()).expect("opens");
        assert_eq!(ledger.head().0, 2, "cut at {torn}");
        assert_eq!(ledger.read(|state| state.open_intents().count()), 1);
        ledger.end(1, Outcome::Failed { reason: "crash".to_owned() }, 9).expect("goes on");
        drop(ledger);
        assert_eq!(Ledger::open(dir.path()).expect("opens").head().0, 3);
    }
}

#[test]
fn an_edited_ledger_is_refused_by_line() {
    let dir = tempfile::tempdir().expect("dir");
    let path = with_a_key(dir.path()).path().to_owned();
    let text = fs::read_to_string(&path).expect("ledger");
    let lines: Vec<&str> = text.lines().collect();
    let write = |lines: &[&str]| fs::write(&path, lines.join("\n") + "\n").expect("written");
    write(&[lines[0], lines[2], lines[1]]);
    refused(dir.path(), "line 1: says that it is line 2");
    write(&[lines[0], &lines[1].replace(':', ": "), lines[2]]);
    refused(dir.path(), "line 1: not in canonical form");
    write(&[lines[0], &lines[1].replace("ksk", "zsk"), lines[2], lines[2]]);
    refused(dir.path(), "line 3");
    write(&[lines[0], lines[1], "{}"]);
    refused(dir.path(), "line 2: not a ledger line");
    write(&[&lines[1].replace(r#""seq":"1""#, r#""seq":"0""#)]);
    refused(dir.path(), "line 0: the first line is not a founding");
    write(&[lines[0], ""]);
    refused(dir.path(), "line 1: not a ledger line");
}

#[test]
fn two_keepers_never_share_a_ledger() {
    let dir = tempfile::tempdir().expect("dir");
    let first = with_a_key(dir.path());
    refused(dir.path(), "another keeper works in this state_dir");
    drop(first);
    assert!(Ledger::open(dir.path()).is_ok());
}

#[test]
fn leave_is_given_once_and_only_for_what_the_state_allows() {
    let dir = tempfile::tempdir().expect("dir");
    let ledger = with_a_key(dir.path());
    let again = ledger.intend(generate(KeyRole::Ksk), 0, 4).expect_err("has a KSK");
    assert!(matches!(again, WriteError::Denied(_)), "{again}");
    assert_eq!(ledger.head().0, 3, "a denied operation leaves no line");
    let leave = ledger.intend(generate(KeyRole::Zsk), 0, 4).expect("allowed");
    assert_eq!(leave.operation(), &generate(KeyRole::Zsk));
    let intent = leave.spend().intent();
    ledger.end(intent, Outcome::Failed { reason: "test".to_owned() }, 5).expect("recorded");
    let twice = ledger.end(intent, Outcome::Destroyed, 5).expect_err("ended already");
    assert!(matches!(twice, WriteError::Contradiction(_)));
}

struct Mounted<'a>(&'a dyn Fn(&[&str]) -> bool);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        (self.0)(&["umount", "-l"]);
    }
}

/// A disk that is really full: a file system of 64 KiB. Needs root for the mount; without it, the
/// same path is taken over a file whose writes are refused (`a_ledger_that_cannot_be_written`).
#[test]
fn a_full_disk_stops_intents_and_loses_no_outcome() {
    let dir = tempfile::tempdir().expect("dir");
    let target = dir.path().join("small");
    fs::create_dir(&target).expect("dir");
    let mount = |args: &[&str]| {
        std::process::Command::new(args[0])
            .args(&args[1..])
            .arg(&target)
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs"]) {
        return;
    }
    let _mounted = Mounted(&mount);
    let ledger = with_a_key(&target);
    let leave = ledger.intend(generate(KeyRole::Zsk), 0, 4).expect("allowed");
    let filler = target.join("filler");
    let mut full = fs::File::create(&filler).expect("filler");
    while full.write_all(&[0; 512]).is_ok() {}
    // What is left of the ledger's own page is used up too.
    let mut lines = ledger.head().0;
    let note = || Note::KeyCleared { key: public(1).id() };
    while ledger.note(note(), 5).is_ok() {
        lines += 1;
    }
    let size = fs::metadata(ledger.path()).expect("file").len();
    let outcome = Outcome::Generated { public: public(2) };
    let refused = ledger.outcome(leave.spend(), outcome, 6).expect_err("disk full");
    assert!(matches!(refused, WriteError::Unavailable(_)), "{refused}");
    assert_eq!(ledger.head().0, lines);
    assert!(ledger.intend(generate(KeyRole::Zsk), 0, 7).is_err(), "no intent while it is full");
    fs::remove_file(&filler).expect("removed");
    drop(full);
    ledger.note(note(), 8).expect("there is room again");
    assert!(ledger.read(|state| state.keys().contains_key(&public(2).id())), "written first");
    assert!(fs::metadata(ledger.path()).expect("file").len() > size);
    drop(ledger);
    assert_eq!(Ledger::open(&target).expect("whole").head().0, lines + 2);
}

#[test]
fn a_ledger_that_cannot_be_written_gives_no_leave() {
    let dir = tempfile::tempdir().expect("dir");
    let ledger = with_a_key(dir.path());
    // A handle that the system refuses to write to, as after a remount read-only.
    let good = {
        let mut book = ledger.book();
        let read_only = fs::File::open(ledger.path()).expect("opens");
        std::mem::replace(&mut book.file, read_only)
    };
    let refused = ledger.intend(generate(KeyRole::Zsk), 0, 4).expect_err("read-only");
    assert!(matches!(refused, WriteError::Unavailable(_)), "{refused}");
    assert!(ledger.read(|state| state.open_intents().count()) == 0);
    ledger.book().file = good;
    let leave = ledger.intend(generate(KeyRole::Zsk), 0, 5).expect("writable again");
    let failed = Outcome::Failed { reason: "test".to_owned() };
    ledger.outcome(leave.spend(), failed, 6).expect("recorded");
    drop(ledger);
    assert_eq!(Ledger::open(dir.path()).expect("whole").head().0, 5);
}

#[test]
fn a_result_that_is_told_again_while_the_disk_is_full_is_owed_once() {
    let dir = tempfile::tempdir().expect("dir");
    let ledger = with_a_key(dir.path());
    let leave = ledger.intend(generate(KeyRole::Zsk), 0, 4).expect("allowed");
    let intent = leave.spend().intent();
    let good = {
        let mut book = ledger.book();
        let read_only = fs::File::open(ledger.path()).expect("opens");
        std::mem::replace(&mut book.file, read_only)
    };
    for reason in ["one", "two", "three"] {
        let failed = Outcome::Failed { reason: reason.to_owned() };
        assert!(matches!(ledger.end(intent, failed, 5), Err(WriteError::Unavailable(_))));
    }
    let made = || Outcome::Generated { public: public(2) };
    assert!(matches!(ledger.end(intent, made(), 6), Err(WriteError::Unavailable(_))));
    assert_eq!(ledger.book().owed.len(), 1, "or a full disk fills the memory too");
    ledger.book().file = good;
    ledger.end(intent, made(), 7).expect("the same result is no contradiction");
    assert!(ledger.read(|state| state.keys().contains_key(&public(2).id())));
}
