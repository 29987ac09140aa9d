//! Seals: what is written where, in which order, and what a token or a checkpoint says against a ledger.

use countersign_policy::{KeyId, KeyRole};

use super::*;
use crate::council;
use crate::keeper::fake::{NOW, Scene, zone};
use crate::ledger::Note;

fn data(scene: &Scene, token: &str) -> Vec<Vec<u8>> {
    scene.hsm.read_data(token, STATE_LABEL).expect("data")
}

fn sealed(scene: &Scene) -> Result<(), String> {
    scene.seals.before_use(&scene.ledger, &scene.hsm, "ksk")
}

fn more(scene: &Scene) {
    scene.ledger.note(Note::key_cleared(key(scene)), NOW).expect("a line");
}

fn key(scene: &Scene) -> KeyId {
    scene.active()[&KeyRole::Zsk]
}

fn with_zsk() -> Scene {
    let scene = Scene::bound(&[[4; 64]]);
    scene.make_zsk();
    scene
}

#[test]
fn size_and_root_go_to_the_groups_tokens_behind_a_checkpoint_that_is_kept() {
    let scene = with_zsk();
    scene.hsm.table().calls.clear();
    sealed(&scene).expect("sealed");
    assert_eq!(scene.hsm.table().calls, ["sign-audit", "write-data"]);
    let head = scene.ledger.read(|state| state.tree().head());
    let state = TokenState::from_canonical(&data(&scene, "ksk-a")[0]).expect("canonical");
    assert_eq!(state.head(), head);
    assert!(data(&scene, "zsk-a").is_empty(), "of another group");
    let note = std::fs::read_to_string(scene.dir.path().join(CHECKPOINT_FILE)).expect("kept");
    let (founding, audit) = scene.ledger.read(|state| {
        (state.appliance().expect("founded"), state.audit().expect("a key").1.clone())
    });
    let proved = checkpoint::verify(&note, &checkpoint::origin(&founding), &audit);
    assert_eq!(proved, Ok(head));
    scene.hsm.table().calls.clear();
    assert_eq!(scene.seals.checkpoint(&scene.ledger, &scene.hsm), Ok(note));
    assert!(scene.hsm.table().calls.is_empty(), "the same lines are signed once");
}

#[test]
fn a_checkpoint_that_can_not_be_made_is_told_and_stops_nothing() {
    let scene = with_zsk();
    scene.hsm.table().audit_away = true;
    sealed(&scene).expect("goes on");
    assert!(scene.seals.problem().is_some_and(|problem| problem.contains("away")));
    scene.hsm.table().audit_away = false;
    more(&scene);
    sealed(&scene).expect("sealed");
    assert_eq!(scene.seals.problem(), None);
}

#[test]
fn a_token_that_takes_no_state_stops_the_operation() {
    let scene = with_zsk();
    scene.hsm.table().data_full = true;
    let why = sealed(&scene).expect_err("on no token");
    assert!(
        why.contains("are on no token of group `ksk`") && why.contains("DEVICE_MEMORY"),
        "{why}"
    );
    scene.hsm.table().data_full = false;
    scene.hsm.table().away = true;
    let why = sealed(&scene).expect_err("none usable");
    assert!(why.contains("none of its tokens"), "{why}");
    // A motion that needs it fails in the ledger, and nothing was asked of the HSM.
    scene.hsm.table().away = false;
    scene.hsm.table().data_full = true;
    scene.hsm.table().next.push([1; 64]);
    let statement = scene.approved(council::generate(&zone(), KeyRole::Ksk, true));
    scene.begin(&statement);
    let unfinished = scene.round();
    assert!(unfinished[0].why.contains("are on no token"), "{unfinished:?}");
    assert_eq!(scene.hsm.table().next.len(), 1);
    assert_eq!(scene.ledger.read(|state| state.open_intents().count()), 0);
}

#[test]
fn an_older_ledger_is_behind_its_token_and_its_checkpoint() {
    let mut scene = with_zsk();
    let earlier = std::fs::read(scene.ledger.path()).expect("ledger");
    more(&scene);
    sealed(&scene).expect("sealed");
    let newest = std::fs::read(scene.ledger.path()).expect("ledger");

    std::fs::write(scene.ledger.path(), &earlier).expect("rolled back");
    scene.restart();
    let why = scene.seals.behind(&scene.ledger).expect("behind");
    assert!(why.contains("restore the newest ledger"), "{why}");
    assert_eq!(sealed(&scene), Err(why.clone()));
    assert_eq!(scene.seals.checkpoint(&scene.ledger, &scene.hsm), Err(why));

    // Each of the two by itself is enough.
    std::fs::remove_file(scene.dir.path().join(CHECKPOINT_FILE)).expect("removed");
    scene.restart();
    assert!(scene.seals.behind(&scene.ledger).is_some(), "the token says so");
    scene.hsm.table().data.clear();
    scene.restart();
    assert_eq!(scene.seals.behind(&scene.ledger), None, "nobody says so any more");

    std::fs::write(scene.ledger.path(), newest).expect("restored");
    scene.restart();
    sealed(&scene).expect("sealed");
    std::fs::write(scene.ledger.path(), earlier).expect("rolled back");
    scene.hsm.table().data.clear();
    scene.restart();
    assert!(scene.seals.behind(&scene.ledger).is_some(), "the checkpoint says so");
}

#[test]
fn a_forked_ledger_is_caught_although_it_is_longer() {
    let mut scene = with_zsk();
    let earlier = std::fs::read(scene.ledger.path()).expect("ledger");
    more(&scene);
    sealed(&scene).expect("sealed");
    std::fs::write(scene.ledger.path(), earlier).expect("rolled back");
    // Another line in the same place, and more behind it, before anyone asks a token.
    let seals = scene.dir.path().join(CHECKPOINT_FILE);
    let kept = std::fs::read(&seals).expect("kept");
    std::fs::remove_file(&seals).expect("removed");
    let states = scene.hsm.table().data.clone();
    scene.hsm.table().data.retain(|(_, label), _| label != STATE_LABEL);
    scene.restart();
    for _ in 0..5 {
        let (token, found) = ("zsk-a".to_owned(), "another key".to_owned());
        scene.ledger.note(Note::key_conflict(key(&scene), token, found), NOW).expect("a line");
    }
    scene.hsm.table().data = states;
    scene.restart();
    let why = scene.seals.behind(&scene.ledger).expect("caught by the token");
    assert!(why.contains("fork"), "{why}");
    scene.hsm.table().data.clear();
    std::fs::write(&seals, kept).expect("kept");
    scene.restart();
    assert!(scene.seals.behind(&scene.ledger).is_some(), "caught by the checkpoint");
}

#[test]
fn a_token_that_comes_back_ahead_is_heard_before_it_is_written_to() {
    let mut scene = with_zsk();
    let earlier = std::fs::read(scene.ledger.path()).expect("ledger");
    more(&scene);
    sealed(&scene).expect("sealed");
    let ahead = scene.hsm.table().data.clone();
    std::fs::write(scene.ledger.path(), earlier).expect("rolled back");
    std::fs::remove_file(scene.dir.path().join(CHECKPOINT_FILE)).expect("removed");
    scene.hsm.table().data.retain(|(_, label), _| label != STATE_LABEL);
    scene.restart();
    sealed(&scene).expect("nobody says anything yet");
    scene.hsm.table().data = ahead.clone();
    let why = sealed(&scene).expect_err("the token was away, and is back");
    assert!(why.contains("token `ksk-a` says"), "{why}");
    assert_eq!(scene.hsm.table().data, ahead, "what it says was not written over");
}

#[test]
fn a_checkpoint_file_that_is_none_is_an_error() {
    let scene = with_zsk();
    sealed(&scene).expect("sealed");
    let path = scene.dir.path().join(CHECKPOINT_FILE);
    let note = std::fs::read_to_string(&path).expect("kept");
    for wrong in [String::new(), note.replace("countersign/", "other/"), note.repeat(2)] {
        std::fs::write(&path, wrong).expect("written");
        let why = Seals::open(scene.dir.path(), &scene.ledger).expect_err("no checkpoint of ours");
        assert!(why.contains("checkpoint"), "{why}");
    }
}
