//! Bundles: what an auditor proves offline, and what a lost ledger is restored from. Each edit of one
//! is found.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use countersign_policy::ledger::Line;
use countersign_policy::motion::Motion;
use countersign_policy::testing::{World, audit_key};
use countersign_policy::tree::Hash;

use super::super::bundle;
use super::super::end::End;
use super::keeper::{note, note_of};
use super::{Bed, Said};

/// A bundle as a file, of these lines and this checkpoint.
pub(super) fn write(path: &Path, note: &str, lines: &[Vec<u8>]) {
    let mut octets = Vec::new();
    let source = lines.iter().map(|line| Ok::<_, ()>(line.clone()));
    bundle::write(&mut octets, note, lines.len() as u64, source).expect("written");
    std::fs::write(path, octets).expect("written");
}

fn lines(world: &World) -> Vec<Vec<u8>> {
    world.lines.iter().map(Line::to_canonical).collect()
}

/// Verifies a bundle of these lines.
fn verify(bed: &Bed, note: &str, lines: &[Vec<u8>]) -> Said {
    let file = bed.path("bundle");
    write(&file, note, lines);
    bed.first(&["audit", "verify", &bed.text("bundle")])
}

fn seal(bed: &Bed) -> (String, Vec<Vec<u8>>) {
    let kept = bed.keeper.kept();
    let world = kept.world.as_ref().expect("founded");
    (note(&world.state), lines(world))
}

#[test]
fn what_is_exported_is_proven_without_a_keeper() {
    let bed = Bed::new(World::signing());
    let file = bed.text("export");
    bed.first(&["audit", "export", &file]).expect(End::Fine, "whoever has the founding's hash");
    bed.run(&["audit", "export", &file]).expect(End::Failed, "never replaced");
    std::fs::remove_file(&bed.keeper.socket).expect("no keeper is reached from here on");
    bed.run(&["audit", "verify", &file]).expect(End::Usage, "--founding");
    bed.first(&["audit", "verify", &file]).expect(End::Fine, "every one follows");
    let other = ["audit", "verify", &file, "--founding", &"00".repeat(32)];
    bed.run(&other).expect(End::Unsound, "is another appliance's");
    bed.run(&["officer", "list"]).expect(End::Unreachable, "the keeper can't be reached at");
}

#[test]
fn every_line_that_is_edited_is_found() {
    let bed = Bed::new(World::signing());
    let (note, whole) = seal(&bed);
    verify(&bed, &note, &whole).expect(End::Fine, "");
    for at in 0..whole.len() {
        // The time of a line is nobody's to sign: the fold or the checkpoint has to find it.
        let mut later: Line = Line::from_canonical(at as u64, &whole[at]).expect("a line");
        later.at += 1;
        let mut edited = whole.clone();
        edited[at] = later.to_canonical();
        verify(&bed, &note, &edited).expect(End::Unsound, "bundle ");
        // Not in canonical form.
        let mut edited = whole.clone();
        edited[at].push(b' ');
        verify(&bed, &note, &edited).expect(End::Unsound, &format!("line {at}: "));
        // One octet of the content.
        let mut edited = whole.clone();
        let middle = edited[at].len() / 2;
        edited[at][middle] ^= 1;
        verify(&bed, &note, &edited).expect(End::Unsound, "bundle ");
        // Taken away, and its place closed.
        let mut edited = whole.clone();
        edited.remove(at);
        verify(&bed, &note, &edited).expect(End::Unsound, "");
    }
}

#[test]
fn a_line_that_no_rule_judges_is_sealed_by_the_checkpoint() {
    let bed = Bed::new(World::bound());
    let (note, mut whole) = seal(&bed);
    let last = whole.len() - 1;
    let mut line = Line::from_canonical(last as u64, &whole[last]).expect("a line");
    line.at += 1;
    whole[last] = line.to_canonical();
    verify(&bed, &note, &whole).expect(End::Unsound, "have another root");
}

#[test]
fn lines_are_neither_exchanged_nor_taken_away_at_the_end() {
    let bed = Bed::new(World::signing());
    let (note, whole) = seal(&bed);
    for at in 1..whole.len() {
        let mut swapped = whole.clone();
        swapped.swap(at - 1, at);
        let said = verify(&bed, &note, &swapped);
        said.expect(End::Unsound, &format!("line {}: says that it is line {at}", at - 1));
        let said = verify(&bed, &note, &whole[..at]);
        said.expect(End::Unsound, "the others were taken away");
    }
    verify(&bed, &note, &[]).expect(End::Unsound, "holds no line");
}

#[test]
fn a_file_that_is_cut_anywhere_is_refused() {
    let bed = Bed::new(World::bound());
    let (note, whole) = seal(&bed);
    let file = bed.path("bundle");
    write(&file, &note, &whole);
    let octets = std::fs::read(&file).expect("there");
    for end in (0..octets.len()).step_by(97) {
        std::fs::write(&file, &octets[..end]).expect("written");
        bed.first(&["audit", "verify", &bed.text("bundle")]).expect(End::Unsound, "bundle ");
    }
}

#[test]
fn a_checkpoint_is_the_audit_keys_own() {
    let bed = Bed::new(World::bound());
    let (whole_note, whole) = seal(&bed);
    let (founding, head) = {
        let kept = bed.keeper.kept();
        let state = &kept.world.as_ref().expect("founded").state;
        (state.appliance().expect("founded"), state.tree().head())
    };
    let other_key = note_of(founding, &head, "another key");
    verify(&bed, &other_key, &whole).expect(End::Unsound, "signed by the key with hash");
    let other_ledger = note_of(Hash([3; 32]), &head, "audit");
    verify(&bed, &other_ledger, &whole).expect(End::Unsound, "expected");
    let forked = countersign_policy::tree::TreeHead { root: Hash([4; 32]), ..head };
    let fork = note_of(founding, &forked, "audit");
    verify(&bed, &fork, &whole).expect(End::Unsound, "have another root");
    let changed = whole_note.replacen('\n', "\n0", 1);
    verify(&bed, &changed, &whole).expect(End::Unsound, "checkpoint that does not hold");
}

#[test]
fn lines_behind_the_checkpoint_are_told() {
    let bed = Bed::new(World::bound());
    let (note, _) = seal(&bed);
    let more = {
        let mut kept = bed.keeper.kept();
        let world = kept.world.as_mut().expect("founded");
        world.make_ksk(true);
        lines(world)
    };
    verify(&bed, &note, &more).expect(End::Attention, "not sealed by its checkpoint");
}

#[test]
fn a_lost_ledger_is_restored_whole_and_never_over_another() {
    let bed = Bed::new(World::signing());
    let file = bed.text("backup");
    bed.first(&["ledger", "backup", &file]).expect(End::Fine, "sealed up to line");
    let (folder, named) = (bed.path("state"), bed.text("state"));
    std::fs::create_dir(&folder).expect("a folder");
    let restore = ["ledger", "restore", &file, "--state-dir", &named];
    bed.run(&restore).expect(End::Usage, "--founding");
    bed.first(&restore).expect(End::Fine, "lines of");
    let ledger = folder.join("ledger.jsonl");
    let (note, whole) = seal(&bed);
    let expected: Vec<u8> = whole.iter().flat_map(|line| [line, &b"\n"[..]].concat()).collect();
    assert_eq!(std::fs::read(&ledger).expect("there"), expected);
    assert_eq!(std::fs::read_to_string(folder.join("checkpoint")).expect("there"), note);
    for file in ["ledger.jsonl", "checkpoint"] {
        let mode = std::fs::metadata(folder.join(file)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(std::fs::read_dir(&folder).expect("there").count(), 2, "and nothing else");
    std::fs::write(&ledger, "").expect("written");
    bed.first(&restore).expect(End::Failed, "it is evidence");
    assert_eq!(std::fs::read(&ledger).expect("there"), b"");
}

#[test]
fn a_backup_that_does_not_hold_is_not_restored() {
    let bed = Bed::new(World::signing());
    let (note, mut whole) = seal(&bed);
    let last = whole.len() - 1;
    whole[last].push(b' ');
    write(&bed.path("bundle"), &note, &whole);
    let (file, named) = (bed.text("bundle"), bed.text("state"));
    std::fs::create_dir(&named).expect("a folder");
    bed.first(&["ledger", "restore", &file, "--state-dir", &named])
        .expect(End::Unsound, &format!("line {last}: "));
    assert_eq!(std::fs::read_dir(&named).expect("there").count(), 0);
}

#[test]
fn each_audit_key_seals_its_own_time() {
    let mut world = World::bound();
    let (founding, before) = (world.state.appliance().expect("founded"), world.state.tree().head());
    let key = audit_key("second");
    world.carry(Motion::ReplaceAuditKey { token: "ksk-a".to_owned(), key });
    let (after, whole) = (world.state.tree().head(), lines(&world));
    let bed = Bed::new(world);
    let sealed = |head, key| note_of(founding, head, key);
    verify(&bed, &sealed(&after, "second"), &whole).expect(End::Fine, "all sealed");
    verify(&bed, &sealed(&before, "audit"), &whole).expect(End::Attention, "the last 4 not sealed");
    for (head, key) in [(&after, "audit"), (&before, "second")] {
        verify(&bed, &sealed(head, key), &whole)
            .expect(End::Unsound, "an audit key of another time");
    }
}
