//! The executor against tokens that are tables: what runs had its quorum, once, wherever it was cut off.

use countersign_policy::motion::{Motion, Scope};
use countersign_policy::state::Status;
use countersign_policy::statement::Verb;
use countersign_policy::{Algorithm, PublicKey};

use super::*;
use crate::council;
use crate::keeper::fake::{NOW, Scene, line_of, now_s, set_clock, zone};

fn status(scene: &Scene, statement: &countersign_policy::statement::Statement) -> Status {
    scene.ledger.read(|state| state.status(&statement.hash())).expect("proposed")
}

fn is_done(status: Status) -> bool {
    matches!(status, Status::Begun { done: true, .. })
}

#[test]
fn nothing_begins_without_its_quorum_and_once_it_is_met_by_itself() {
    let scene = Scene::bound(&[[4; 64], [1; 64]]);
    let statement = scene.propose(council::generate(&zone(), KeyRole::Ksk, true));
    assert_eq!(scene.round(), [], "the ZSK alone is made");
    let council = &scene.council;
    scene.vote(&statement, Verb::Approve, &council.kim).expect("approved");
    scene.round();
    assert_eq!(status(&scene, &statement), Status::Open, "one is not enough");
    let again = scene.vote(&statement, Verb::Approve, &council.kim);
    assert!(again.is_err(), "one person is one person");
    assert!(scene.vote(&statement, Verb::Approve, &council.oscar).is_err(), "nor the proposer");
    scene.round();
    assert_eq!(status(&scene, &statement), Status::Open);
    scene.vote(&statement, Verb::Approve, &council.kate).expect("approved");
    assert_eq!(scene.round(), []);
    assert!(is_done(status(&scene, &statement)));
    assert_eq!(scene.hsm.table().calls.iter().filter(|call| **call == "generate").count(), 2);
}

#[test]
fn what_was_denied_withdrawn_or_is_late_never_begins() {
    let scene = Scene::bound(&[[4; 64]]);
    let council = &scene.council;
    let motion = || council::generate(&zone(), KeyRole::Ksk, true);
    let denied = scene.propose(motion());
    scene.vote(&denied, Verb::Deny, &council.kim).expect("denied");
    scene.vote(&denied, Verb::Deny, &council.kate).expect("denied");
    let withdrawn = scene.propose(motion());
    let paper = council::withdraw(&withdrawn, &council.oscar);
    scene.ledger.submit(line_of(paper), NOW).expect("withdrawn");
    let late = scene.approved(motion());
    set_clock(late.not_after + 1);
    scene.round();
    for statement in [&denied, &withdrawn, &late] {
        assert!(!matches!(status(&scene, statement), Status::Begun { .. }), "{statement:?}");
    }
    assert_eq!(scene.hsm.table().next.len(), 1, "nor is a ZSK made for no KSK");
}

#[test]
fn a_frozen_zone_keeps_its_zsk_and_gets_no_ksk() {
    let scene = Scene::bound(&[[4; 64], [1; 64]]);
    scene.make_zsk();
    let statement = scene.approved(council::generate(&zone(), KeyRole::Ksk, true));
    let ada = &scene.council.ada;
    let paper = scene.ledger.read(|state| council::freeze(state, Scope::All, ada, NOW));
    scene.ledger.submit(line_of(paper), NOW).expect("frozen by an auditor");
    scene.round();
    assert_eq!(status(&scene, &statement), Status::Open);
    assert_eq!(scene.active().keys().collect::<Vec<_>>(), [&KeyRole::Zsk]);
    scene.carry(Motion::Thaw { scope: Scope::All });
    scene.round();
    assert!(is_done(status(&scene, &statement)));
}

#[test]
fn a_freeze_between_the_intent_and_the_token_makes_and_destroys_no_ksk() {
    let scene = Scene::bound(&[[4; 64], [1; 64]]);
    let freeze_at_the_seal = || {
        let ada = &scene.council.ada;
        let paper = scene.ledger.read(|state| council::freeze(state, Scope::All, ada, NOW));
        let ledger = std::sync::Arc::clone(&scene.ledger);
        let act = move || _ = ledger.submit(line_of(paper), NOW).expect("frozen");
        scene.hsm.table().meanwhile = Some(("write-data", Box::new(act)));
    };
    let asked = |call: &str| scene.hsm.table().calls.iter().filter(|made| **made == call).count();
    scene.make_zsk();
    let made = asked("generate");
    let making = scene.approved(council::generate(&zone(), KeyRole::Ksk, false));
    freeze_at_the_seal();
    scene.round();
    assert_eq!(asked("generate"), made, "the token was not asked for a KSK");
    assert_eq!(scene.ledger.read(|state| state.open_intents().count()), 0);
    scene.carry(Motion::Thaw { scope: Scope::All });
    scene.round();
    assert!(is_done(status(&scene, &making)));
    let key = scene.ledger.read(|state| {
        let ksk = state.keys().iter().find(|(_, key)| key.role == KeyRole::Ksk);
        *ksk.expect("made").0
    });
    let destroying = scene.approved(Motion::DestroyKey { zone: zone(), key });
    freeze_at_the_seal();
    scene.round();
    assert_eq!(asked("destroy"), 0, "a key that is gone can't be thawed");
    scene.carry(Motion::Thaw { scope: Scope::All });
    scene.round();
    assert!(is_done(status(&scene, &destroying)));
}

#[test]
fn a_clock_that_is_not_believed_begins_and_ends_nothing_about_keys() {
    let scene = Scene::bound(&[[4; 64]]);
    scene.make_zsk();
    let begun = scene.approved(council::generate(&zone(), KeyRole::Ksk, true));
    scene.begin(&begun);
    set_clock(NOW + 10 * 365 * 86_400);
    scene.round();
    assert!(matches!(status(&scene, &begun), Status::Begun { done: false, .. }), "not lapsed");
    set_clock(NOW + 60);
    scene.hsm.table().next.push([1; 64]);
    assert_eq!(scene.round(), [], "forward, and then right again: it goes on");
    assert!(is_done(status(&scene, &begun)));
}

#[test]
fn what_can_not_be_done_by_its_finish_by_is_given_up() {
    let scene = Scene::bound(&[[4; 64]]);
    scene.make_zsk();
    let statement = scene.approved(council::generate(&zone(), KeyRole::Ksk, true));
    scene.begin(&statement);
    scene.hsm.table().away = true;
    assert!(!scene.round().is_empty());
    // Day by day, as lines are written.
    for day in 1..=15 {
        set_clock(NOW + day * 86_400);
        scene.ledger.note(Note::key_cleared(key_there(&scene)), now_s()).expect("a line");
    }
    scene.hsm.table().away = false;
    scene.hsm.table().next.push([1; 64]);
    scene.round();
    assert_eq!(status(&scene, &statement), Status::Lapsed);
    assert!(scene.text().contains("not done: making the KSK of example."), "{}", scene.text());
    scene.round();
    assert_eq!(scene.hsm.table().next.len(), 1, "nothing is made any more");
}

fn key_there(scene: &Scene) -> KeyId {
    scene.ledger.read(|state| *state.keys().keys().next().expect("a key"))
}

#[test]
fn a_token_is_marked_and_that_is_a_line_once() {
    let scene = Scene::founded(&[]);
    assert_eq!(scene.text().matches("token-marked").count(), 2);
    let lines = scene.lines();
    scene.round();
    assert_eq!(scene.lines(), lines);
    // Attached under an old name: the token that is open there is another one, and is left alone.
    let identity = countersign_policy::founding::TokenIdentity {
        label: "ksk".to_owned(),
        serial: "2".to_owned(),
        group: "ksk".to_owned(),
        data_objects: true,
    };
    let statement = scene.approved(Motion::AttachToken { name: "ksk-a".to_owned(), identity });
    let unfinished = {
        scene.begin(&statement);
        scene.round()
    };
    assert!(unfinished[0].why.contains("another one is open under its name"), "{unfinished:?}");
    assert_eq!(scene.text().matches("token-marked").count(), 2);
}

#[test]
fn a_token_that_was_replaced_and_is_still_open_is_given_no_key() {
    let scene = Scene::bound(&[[4; 64], [1; 64]]);
    let identity = countersign_policy::founding::TokenIdentity {
        label: "zsk".to_owned(),
        serial: "2".to_owned(),
        group: "zsk".to_owned(),
        data_objects: true,
    };
    assert_eq!(scene.round(), []);
    assert!(scene.hsm.table().reopened.is_empty());
    scene.carry(Motion::AttachToken { name: "zsk-a".to_owned(), identity });
    scene.round();
    assert!(scene.hsm.table().reopened.contains(&"zsk-a".to_owned()), "it is closed at once");
    scene.carry(council::generate(&zone(), KeyRole::Ksk, true));
    scene.round();
    assert_eq!(
        scene.active().keys().collect::<Vec<_>>(),
        [&KeyRole::Ksk],
        "it would be lost there"
    );
    assert_eq!(scene.ledger.read(|state| state.open_intents().count()), 0);
}

/// A zone that moves here brings its ZSK, which caches know: adopted before the KSK, it stays the only one.
#[test]
fn a_zsk_is_made_for_a_zone_with_a_ksk_and_without_a_zsk() {
    let scene = Scene::bound(&[[4; 64]]);
    assert_eq!(scene.round(), []);
    assert_eq!(scene.active().len(), 0, "without a KSK nothing could be published");
    let adopt = |role, token: &str, seed| {
        let public = PublicKey::new(Algorithm::EcdsaP256Sha256, &[seed; 64]).expect("key");
        let (token, key) = (token.to_owned(), public.id());
        scene.hsm.table().foreign.insert(key, public);
        scene.carry(Motion::AdoptKey { zone: zone(), role, token, key, activate: true });
        key
    };
    let zsk = adopt(KeyRole::Zsk, "zsk-a", 9);
    let ksk = adopt(KeyRole::Ksk, "ksk-a", 8);
    assert_eq!(scene.round(), []);
    assert_eq!(scene.active(), [(KeyRole::Ksk, ksk), (KeyRole::Zsk, zsk)].into());
    assert_eq!(scene.hsm.table().next.len(), 1, "none was made");

    let scene = Scene::bound(&[[4; 64], [1; 64]]);
    scene.carry(council::generate(&zone(), KeyRole::Ksk, true));
    assert_eq!(scene.active().len(), 2, "in the round that brings the KSK");
}

#[test]
fn zsks_are_made_within_their_bounds_and_no_further() {
    let scene = Scene::bound(&[[4; 64]]);
    scene.make_zsk();
    let zsk = scene.active()[&KeyRole::Zsk];
    // More than there may be: the judge of intents refuses whatever asks.
    let line = scene.ledger.read(|state| state.zones()[&zone()].line);
    let mut maker = KeyMaker::new(&scene.ledger, &scene.hsm, &scene.seals, now_s);
    let more: Vec<[u8; 64]> = (20..40).map(|octet| [octet; 64]).collect();
    scene.hsm.table().next.extend(more);
    let mut made = 1;
    let refused = loop {
        match maker.make(&zone(), KeyRole::Zsk, line) {
            Ok(()) => made += 1,
            Err(stuck) => break stuck,
        }
    };
    assert_eq!(made, countersign_policy::state::ZSKS_MAX, "{refused}");
    assert!(matches!(refused, Stuck::Waits(_)), "no line was written: {refused}");
    assert!(scene.ledger.read(|state| state.keys().contains_key(&zsk)));
}

/// What a crash must not change: one key of each role, one beginning a statement, nothing on the
/// tokens that the ledger does not know.
fn assert_whole(scene: &Scene, what: &str) {
    assert_eq!(scene.active().len(), 2, "{what}: {}", scene.text());
    assert_eq!(scene.ledger.read(|state| state.keys_of(&zone()).count()), 2, "{what}");
    scene.assert_tidy();
    let text = scene.text();
    for statement in scene.ledger.read(|state| state.closed().clone()).into_keys() {
        let begun = r#""kind":"begun","reveals":"#;
        let of = text
            .lines()
            .filter(|line| line.contains(begun) && line.contains(&statement.0.to_string()));
        assert!(of.count() <= 1, "{what}: begun twice");
    }
}

/// A crash after each line from the first proposal to the last result, and after each act of the HSM:
/// the disk takes so many lines, what happens then is lost but for the tokens, and a new keeper goes
/// on from there.
#[test]
fn a_crash_at_any_step_does_nothing_twice_and_loses_nothing() {
    for lines in 0.. {
        let mut scene = Scene::bound(&[[4; 64], [1; 64], [9; 64], [11; 64]]);
        scene.ledger.set_lines_left(Some(lines));
        let oscar = &scene.council.oscar;
        let motion = council::generate(&zone(), KeyRole::Ksk, true);
        let statement = scene
            .ledger
            .read(|state| council::statement(state, oscar, motion, NOW, council::nonce()));
        let was_cut_off = !carried(&scene, &statement);
        if was_cut_off {
            scene.restart();
            assert!(carried(&scene, &statement), "{lines}: {}", scene.text());
        }
        assert!(scene.round().is_empty(), "{lines}");
        assert_whole(&scene, &format!("cut off after {lines} lines"));
        assert!(is_done(status(&scene, &statement)), "{lines}");
        if !was_cut_off {
            assert!(lines >= 8, "a proposal, two votes, a beginning, two intents and results");
            return;
        }
    }
}

/// Hands in what is not in the ledger yet, and lets the executor work; whether all of it is done.
fn carried(scene: &Scene, statement: &countersign_policy::statement::Statement) -> bool {
    let hash = statement.hash();
    let council = &scene.council;
    let submit = |paper| scene.ledger.submit(line_of(paper), NOW).is_ok();
    if scene.ledger.read(|state| state.status(&hash)).is_none()
        && !submit(council::propose(statement, &council.oscar))
    {
        return false;
    }
    for officer in [&council.kim, &council.kate] {
        let is_wanted = scene.ledger.read(|state| {
            let proposal = state.proposal(&hash);
            proposal
                .is_some_and(|p| p.status == Status::Open && !p.votes.contains_key(&officer.name))
        });
        let paper =
            || scene.ledger.read(|state| council::vote(state, statement, Verb::Approve, officer));
        if is_wanted && !submit(paper()) {
            return false;
        }
    }
    for _ in 0..3 {
        scene.round();
    }
    is_done(status(scene, statement)) && scene.active().len() == 2
}

/// The same for a destruction, whose first act is to make: a key is made, given up and destroyed.
#[test]
fn a_crash_at_any_step_of_a_destruction_is_gone_on_from() {
    let public = PublicKey::new(Algorithm::EcdsaP256Sha256, &[7; 64]).expect("key");
    for lines in 0.. {
        let mut scene = Scene::bound(&[[4; 64], [1; 64], [7; 64]]);
        scene.round();
        scene.carry(council::generate(&zone(), KeyRole::Ksk, true));
        scene.carry(council::generate(&zone(), KeyRole::Ksk, false));
        let statement = scene.approved(Motion::DestroyKey { zone: zone(), key: public.id() });
        scene.ledger.set_lines_left(Some(lines));
        for _ in 0..3 {
            scene.round();
        }
        let was_cut_off = !is_done(status(&scene, &statement));
        if was_cut_off {
            scene.restart();
            for _ in 0..3 {
                scene.round();
            }
        }
        assert!(is_done(status(&scene, &statement)), "{lines}: {}", scene.text());
        assert_whole(&scene, &format!("cut off after {lines} lines"));
        if !was_cut_off {
            assert!(lines >= 3, "a beginning, an intent, a result");
            return;
        }
    }
}

#[test]
fn what_a_token_says_in_the_middle_of_a_round_stops_the_rest_of_it() {
    let scene = Scene::bound(&[[4; 64]]);
    let waiting = scene.approved(council::set_policy("other", 1, council::policy()));
    let line = scene.ledger.read(|state| state.zones()[&zone()].line);
    let here = scene.ledger.read(countersign_policy::ledger::LedgerState::token_state);
    let mut ahead = here.expect("founded");
    ahead.size += 1;
    let said = [ahead.to_canonical()];
    scene.seals.compare_token(&scene.ledger, "zsk-a", said).expect("readable");
    let (ledger, hsm, seals) = (&*scene.ledger, &scene.hsm, &*scene.seals);
    let begun = begin_one(ledger, hsm, seals, &waiting.hash(), NOW);
    assert!(matches!(begun, Err(Stuck::Waits(_))), "{begun:?}");
    assert_eq!(status(&scene, &waiting), Status::Open);
    let made = KeyMaker::new(ledger, hsm, seals, now_s).make(&zone(), KeyRole::Zsk, line);
    assert!(matches!(made, Err(Stuck::Waits(_))), "{made:?}");
    assert_eq!(scene.hsm.table().next.len(), 1, "nothing was made");
}

#[test]
fn while_the_ledger_is_behind_nothing_begins_but_a_new_origin() {
    let scene = Scene::bound(&[[4; 64]]);
    scene.round();
    let earlier = std::fs::read(scene.ledger.path()).expect("ledger");
    scene.carry(council::set_policy("default", 2, council::policy()));
    scene.seals.before_use(&scene.ledger, &scene.hsm, "ksk").expect("sealed");
    let lost = scene.ledger.read(|state| state.tree().head());
    let mut scene = scene;
    std::fs::write(scene.ledger.path(), earlier).expect("rolled back");
    scene.restart();
    let behind = scene.seals.behind(&scene.ledger).expect("behind");
    assert!(behind.contains(&lost.to_string()), "{behind}");
    let waiting = scene.approved(council::set_policy("default", 2, council::policy()));
    scene.round();
    assert_eq!(status(&scene, &waiting), Status::Open);

    let rita = &scene.council.recovery[0];
    let proposed = |lost, officers| {
        let motion = Motion::NewOrigin { lost, officers, rules: 1 };
        let statement = scene
            .ledger
            .read(|state| council::statement(state, rita, motion, NOW, council::nonce()));
        scene.ledger.submit(line_of(council::propose(&statement, rita)), NOW).expect("proposed");
        statement
    };
    let approve = |statement: &countersign_policy::statement::Statement| {
        for officer in &scene.council.recovery[1..4] {
            scene.vote(statement, Verb::Approve, officer).expect("approved");
        }
    };
    let other = countersign_policy::tree::TreeHead { size: lost.size + 1, ..lost };
    let statements = [proposed(other, 1), proposed(lost, 1)];
    assert!(scene.seals.check_given_up(&lost, 0, 1).is_err(), "a version that was used");
    approve(&statements[0]);
    set_clock(NOW + 86_400);
    let mut executor = scene.executor();
    for _ in 0..2 {
        let told = executor.round();
        assert!(told[0].why.contains("what is known to be lost is"), "{told:?}");
    }
    assert_eq!(status(&scene, &statements[0]), Status::Open, "that is not what was lost");
    set_clock(NOW + 60);
    approve(&statements[1]);
    scene.round();
    assert_eq!(status(&scene, &statements[1]), Status::Open, "the delay holds");
    set_clock(NOW + 86_400);
    scene.round();
    assert!(is_done(status(&scene, &statements[1])));
    assert_eq!(scene.seals.behind(&scene.ledger), None);
    scene.seals.before_use(&scene.ledger, &scene.hsm, "ksk").expect("sealed anew");
    scene.restart();
    assert_eq!(scene.seals.behind(&scene.ledger), None, "and it stays so");
}
