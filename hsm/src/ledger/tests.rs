//! The ledger on a real file system: what a crash, an editor, a second keeper and a full disk do.

use std::fs;
use std::io::Write;

use countersign_policy::key::FLAG_REVOKE;
use countersign_policy::ledger::{MadeKey, Outcome};
use countersign_policy::motion::Motion;
use countersign_policy::statement::Verb;
use countersign_policy::{Algorithm, KeyRole, PublicKey, ZoneName};

use super::*;
use crate::council::{self, Council};
use crate::keeper::fake::{self, Fake, NOW, line_of};

const NONCE: &str = "000102030405060708090a0b0c0d0e0f";

fn zone() -> ZoneName {
    fake::zone()
}

fn generate(nonce: &str) -> Operation {
    let (token, nonce) = ("zsk-a".to_owned(), nonce.to_owned());
    Operation::Generate { zone: zone(), role: KeyRole::Zsk, token, nonce }
}

fn public(octet: u8) -> PublicKey {
    PublicKey::new(Algorithm::EcdsaP256Sha256, &[octet; 64]).expect("key")
}

fn made(octet: u8) -> Outcome {
    let public = public(octet);
    let made = MadeKey {
        key: public.id(),
        algorithm: public.algorithm(),
        tag: public.tag(KeyRole::Zsk.flags()),
        revoked_tag: public.tag(KeyRole::Zsk.flags() | FLAG_REVOKE),
        public: Some(public),
    };
    Outcome::Generated { made }
}

/// A founded ledger with a bound zone, and the line that bound it.
fn bound(dir: &Path) -> (Ledger, u64) {
    let ledger = Ledger::open(dir).expect("opens");
    let council = Council::new();
    let text = fake::founding(&council, &Fake::new(&[])).to_text();
    ledger.found(text.clone(), council.found(&text), NOW).expect("founded");
    carry(&ledger, &council, council::set_policy("default", 1, council::policy()));
    let under = carry(&ledger, &council, council::bind(&zone(), "default"));
    (ledger, under)
}

/// A motion, from its proposal to its beginning; the line where it began.
fn carry(ledger: &Ledger, council: &Council, motion: Motion) -> u64 {
    let statement = ledger
        .read(|state| council::statement(state, &council.oscar, motion, NOW, council::nonce()));
    let proposal = line_of(council::propose(&statement, &council.oscar));
    ledger.submit(proposal, NOW).expect("proposed");
    for officer in [&council.kim, &council.kate] {
        let approval =
            ledger.read(|state| council::vote(state, &statement, Verb::Approve, officer));
        ledger.submit(line_of(approval), NOW).expect("approved");
    }
    let quorum = ledger.read(|state| state.quorum(&statement.hash(), NOW)).expect("a quorum");
    ledger.begin(quorum, Vec::new(), NOW).expect("begun")
}

/// A ledger with a ZSK: its last two lines are intent and outcome.
fn with_a_key(dir: &Path) -> (Ledger, u64) {
    let (ledger, under) = bound(dir);
    let leave = ledger.intend(generate(NONCE), under, || NOW).expect("allowed");
    ledger.outcome(leave.spend(), made(1), NOW).expect("recorded");
    (ledger, under)
}

fn other_nonce() -> String {
    NONCE.replace("00", "ff")
}

fn refused(dir: &Path, expect: &str) {
    let error = Ledger::open(dir).expect_err(expect).to_string();
    assert!(error.contains(expect), "{error}");
}

#[test]
fn what_is_written_is_there_after_a_restart() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("dir");
    let head = with_a_key(dir.path()).0.head();
    let ledger = Ledger::open(dir.path()).expect("opens again");
    assert_eq!(ledger.head(), head);
    assert_eq!(head.0, 1 + 2 * 4 + 2);
    assert!(ledger.read(|state| state.keys().contains_key(&public(1).id())));
    let mode = fs::metadata(ledger.path()).expect("file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (lines, cut) = ledger.lines(0, 0, 100, 1 << 20).expect("read");
    assert_eq!((lines.len() as u64, cut), (head.0, false));
    let Entry::Founded { text, .. } = ledger.line(0).expect("line 0").entry else { panic!() };
    assert_eq!(Some(Hash::of(text.as_bytes())), head.1);
}

#[test]
fn a_line_longer_than_an_answer_is_read_in_parts() {
    let dir = tempfile::tempdir().expect("dir");
    let (ledger, _) = with_a_key(dir.path());
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
    assert_eq!(ledger.lines(99, 0, 10, 100).expect("read"), (Vec::new(), false));
    assert_eq!(ledger.lines(u64::MAX, u64::MAX, 10, 100).expect("read"), (Vec::new(), false));
    assert_eq!(ledger.lines(1, u64::MAX, 1, 100).expect("read"), (vec![Vec::new()], false));
}

#[test]
fn an_unfinished_last_line_is_cut_off_wherever_the_crash_was() {
    let dir = tempfile::tempdir().expect("dir");
    let path = with_a_key(dir.path()).0.path().to_owned();
    let whole = fs::read(&path).expect("ledger");
    let lines = String::from_utf8_lossy(&whole).lines().count() as u64;
    let ends = whole.iter().enumerate().filter(|(_, b)| **b == b'\n');
    let intent_end = ends.rev().nth(1).expect("end").0;
    for torn in [intent_end + 2, intent_end + 40, whole.len() - 1] {
        fs::write(&path, &whole[..torn]).expect("written");
        let ledger = Ledger::open(dir.path()).expect("opens");
        assert_eq!(ledger.head().0, lines - 1, "cut at {torn}");
        assert_eq!(ledger.read(|state| state.open_intents().count()), 1);
        let failed = Outcome::Failed { reason: "crash".to_owned() };
        ledger.end(lines - 2, failed, NOW).expect("goes on");
        drop(ledger);
        assert_eq!(Ledger::open(dir.path()).expect("opens").head().0, lines);
    }
}

#[test]
fn an_edited_ledger_is_refused_by_line() {
    let dir = tempfile::tempdir().expect("dir");
    let path = with_a_key(dir.path()).0.path().to_owned();
    let text = fs::read_to_string(&path).expect("ledger");
    let lines: Vec<&str> = text.lines().collect();
    let write = |lines: &[&str]| fs::write(&path, lines.join("\n") + "\n").expect("written");
    write(&[lines[0], lines[2], lines[1]]);
    refused(dir.path(), "line 1: says that it is line 2");
    write(&[lines[0], &lines[1].replace(':', ": "), lines[2]]);
    refused(dir.path(), "line 1: not in canonical form");
    write(&[lines[0], &lines[1].replace("3600", "3601")]);
    refused(dir.path(), "line 1: oscar's signature");
    write(&[lines[0], lines[1], "{}"]);
    refused(dir.path(), "line 2: not a ledger line");
    write(&[&lines[1].replace(r#""seq":"1""#, r#""seq":"0""#)]);
    refused(dir.path(), "line 0: the first line is not a founding");
    write(&[lines[0], ""]);
    refused(dir.path(), "line 1: not a ledger line");
    // The result of an intent that was cut out, with its number mended.
    let before = lines.len() - 2;
    let mended = lines[before + 1]
        .replace(&format!(r#""seq":"{}""#, before + 1), &format!(r#""seq":"{before}""#));
    write(&[&lines[..before], &[&mended]].concat());
    refused(dir.path(), &format!("line {before}: an outcome without an open intent"));
}

#[test]
fn two_keepers_never_share_a_ledger() {
    let dir = tempfile::tempdir().expect("dir");
    let (first, _) = with_a_key(dir.path());
    refused(dir.path(), "another keeper works in this state_dir");
    drop(first);
    assert!(Ledger::open(dir.path()).is_ok());
}

#[test]
fn leave_is_given_once_and_only_for_what_the_state_allows() {
    let dir = tempfile::tempdir().expect("dir");
    let (ledger, under) = with_a_key(dir.path());
    let lines = ledger.head().0;
    let again = ledger.intend(generate(NONCE), under, || NOW).expect_err("the nonce was used");
    assert!(matches!(again, WriteError::Denied(_)), "{again}");
    let elsewhere = ledger.intend(generate(&other_nonce()), under - 1, || NOW);
    assert!(matches!(elsewhere, Err(WriteError::Denied(_))), "{elsewhere:?}");
    assert_eq!(ledger.head().0, lines, "a denied operation leaves no line");
    let operation = generate(&other_nonce());
    let leave = ledger.intend(operation.clone(), under, || NOW).expect("allowed");
    assert_eq!(leave.operation(), &operation);
    let intent = leave.spend().intent();
    ledger.end(intent, Outcome::Failed { reason: "test".to_owned() }, NOW).expect("recorded");
    let twice = ledger.end(intent, Outcome::Destroyed, NOW).expect_err("ended already");
    assert!(matches!(twice, WriteError::Contradiction(_)));
}

/// Threads that all hold a quorum for the same statement and begin it at the same moment: one wins.
/// 100,000 tries with `COUNTERSIGN_LONG=1`.
#[test]
fn of_executions_of_one_approval_at_once_one_wins() {
    const THREADS: usize = 8;
    let dir = tempfile::tempdir().expect("dir");
    let (ledger, _) = bound(dir.path());
    let council = Council::new();
    let tries = if std::env::var_os("COUNTERSIGN_LONG").is_some() { 100_000 } else { 400 };
    let mut done = 0;
    let mut version = 1;
    while done < tries {
        version += 1;
        // A proposer has so many a day: each round is a day of its own.
        let now = NOW + version / 20 * 86_400;
        let motion = council::set_policy("default", version, council::policy());
        let statement = ledger
            .read(|state| council::statement(state, &council.oscar, motion, now, council::nonce()));
        let proposal = line_of(council::propose(&statement, &council.oscar));
        ledger.submit(proposal, now).expect("proposed");
        for officer in [&council.kim, &council.ken] {
            let approval =
                ledger.read(|state| council::vote(state, &statement, Verb::Approve, officer));
            ledger.submit(line_of(approval), now).expect("approved");
        }
        let gate = std::sync::Barrier::new(THREADS);
        let won = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let quorum = ledger.read(|state| state.quorum(&statement.hash(), now));
                    let quorum = quorum.expect("a quorum for each");
                    gate.wait();
                    if ledger.begin(quorum, Vec::new(), now).is_ok() {
                        won.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(won.into_inner(), 1, "version {version}");
        done += THREADS;
    }
    let begun =
        fs::read_to_string(ledger.path()).expect("ledger").matches(r#""kind":"begun""#).count();
    assert_eq!(begun as u64, 1 + version, "as many as there were statements");
    assert_eq!(ledger.read(|state| state.policies()["default"].0), version);
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
    let (ledger, under) = with_a_key(&target);
    let leave = ledger.intend(generate(&other_nonce()), under, || NOW).expect("allowed");
    let filler = target.join("filler");
    let mut full = fs::File::create(&filler).expect("filler");
    while full.write_all(&[0; 512]).is_ok() {}
    // What is left of the ledger's own page is used up too.
    let mut lines = ledger.head().0;
    let note = || Note::key_cleared(public(1).id());
    while ledger.note(note(), NOW).is_ok() {
        lines += 1;
    }
    let size = fs::metadata(ledger.path()).expect("file").len();
    let refused = ledger.outcome(leave.spend(), made(2), NOW).expect_err("disk full");
    assert!(matches!(refused, WriteError::Unavailable(_)), "{refused}");
    assert_eq!(ledger.head().0, lines);
    assert!(ledger.problem().is_some(), "and it is told");
    let third = NONCE.replace("00", "ee");
    assert!(ledger.intend(generate(&third), under, || NOW).is_err(), "no intent while it is full");
    fs::remove_file(&filler).expect("removed");
    drop(full);
    ledger.note(note(), NOW).expect("there is room again");
    assert_eq!(ledger.problem(), None);
    assert!(ledger.read(|state| state.keys().contains_key(&public(2).id())), "written first");
    assert!(fs::metadata(ledger.path()).expect("file").len() > size);
    drop(ledger);
    assert_eq!(Ledger::open(&target).expect("whole").head().0, lines + 2);
}

/// A handle that the system refuses to write to, as after a remount read-only; the good one.
fn read_only(ledger: &Ledger) -> fs::File {
    let mut book = ledger.book();
    let read_only = fs::File::open(ledger.path()).expect("opens");
    std::mem::replace(&mut book.file, read_only)
}

#[test]
fn a_ledger_that_cannot_be_written_gives_no_leave() {
    let dir = tempfile::tempdir().expect("dir");
    let (ledger, under) = with_a_key(dir.path());
    let lines = ledger.head().0;
    let good = read_only(&ledger);
    let refused = ledger.intend(generate(&other_nonce()), under, || NOW).expect_err("read-only");
    assert!(matches!(refused, WriteError::Unavailable(_)), "{refused}");
    assert!(ledger.read(|state| state.open_intents().count()) == 0);
    ledger.book().file = good;
    let leave = ledger.intend(generate(&other_nonce()), under, || NOW).expect("writable again");
    let failed = Outcome::Failed { reason: "test".to_owned() };
    ledger.outcome(leave.spend(), failed, NOW).expect("recorded");
    drop(ledger);
    assert_eq!(Ledger::open(dir.path()).expect("whole").head().0, lines + 2);
}

#[test]
fn a_result_that_is_told_again_while_the_disk_is_full_is_owed_once() {
    let dir = tempfile::tempdir().expect("dir");
    let (ledger, under) = with_a_key(dir.path());
    let leave = ledger.intend(generate(&other_nonce()), under, || NOW).expect("allowed");
    let intent = leave.spend().intent();
    let good = read_only(&ledger);
    for reason in ["one", "two", "three"] {
        let failed = Outcome::Failed { reason: reason.to_owned() };
        assert!(matches!(ledger.end(intent, failed, NOW), Err(WriteError::Unavailable(_))));
    }
    assert!(matches!(ledger.end(intent, made(2), NOW), Err(WriteError::Unavailable(_))));
    assert_eq!(ledger.book().owed.len(), 1, "or a full disk fills the memory too");
    ledger.book().file = good;
    ledger.end(intent, made(2), NOW).expect("the same result is no contradiction");
    assert!(ledger.read(|state| state.keys().contains_key(&public(2).id())), "written first");
}

#[test]
fn the_statement_of_a_motion_is_found_where_it_was_proposed() {
    let dir = tempfile::tempdir().expect("dir");
    let (ledger, under) = bound(dir.path());
    let text = ledger.statement_begun_at(under).expect("found");
    assert!(text.contains("operation: bind-zone"), "{text}");
    assert!(ledger.statement_begun_at(0).is_err());
}
