//! Keys against tokens that are tables: what is made, adopted and destroyed once, whatever is lost on
//! the way.

use std::collections::BTreeSet;

use countersign_policy::key_state::Stage;
use countersign_policy::ledger::{Entry, Line};
use countersign_policy::motion::Motion;

use super::*;
use crate::council;
use crate::keeper::fake::{Scene, Table, now_s, zone};
use crate::keeper::motions::Executor;

/// With a KSK made and active, and a ZSK: the two keys of most tests.
fn signing(more: &[[u8; 64]]) -> Scene {
    let scene = Scene::bound(&[&[[1; 64], [4; 64]], more].concat());
    let statement = scene.approved(council::generate(&zone(), KeyRole::Ksk, true));
    scene.begin(&statement);
    scene
}

/// Rounds until nothing is left, then: a KSK and a ZSK, no open intent, no object without a key.
fn settles(scene: &Scene, rounds_max: usize) {
    let done = (0..rounds_max).any(|_| scene.round().is_empty());
    assert!(done, "{:?}", scene.round());
    assert_eq!(scene.active().len(), 2, "{:?}", scene.active());
    assert_eq!(scene.ledger.read(|state| state.keys_of(&zone()).count()), 2);
    scene.assert_tidy();
    assert_eq!(scene.hsm.table().expected.len(), 2);
}

#[test]
fn a_zone_gets_a_key_of_each_role_once() {
    let scene = signing(&[]);
    settles(&scene, 1);
    let lines = scene.lines();
    assert!(scene.round().is_empty());
    assert_eq!(scene.lines(), lines, "a round without work leaves no line");
}

#[test]
fn a_lost_answer_makes_no_second_key() {
    for was_done in [true, false] {
        let scene = signing(&[[9; 64]]);
        scene.hsm.table().lose_answer = Some(was_done);
        assert_eq!(scene.round().len(), 1);
        settles(&scene, 2);
        assert_eq!(scene.hsm.table().next.len(), 1, "was done: {was_done}");
    }
}

#[test]
fn what_is_found_but_not_proven_or_not_whole_is_destroyed() {
    let spoil: [fn(&mut Table); 2] = [
        |table| table.proves = false,
        |table| table.objects.values_mut().for_each(|public| *public = None),
    ];
    for spoil in spoil {
        let scene = Scene::bound(&[[1; 64], [4; 64], [9; 64], [11; 64]]);
        let statement = scene.approved(council::generate(&zone(), KeyRole::Ksk, true));
        scene.begin(&statement);
        // The KSK's answer is lost: it is the only key yet.
        scene.hsm.table().lose_answer = Some(true);
        assert_eq!(scene.round().len(), 1);
        spoil(&mut scene.hsm.table());
        scene.round();
        assert!(scene.text().contains("what was there is destroyed"));
        scene.hsm.table().proves = true;
        scene.round();
        assert_eq!(scene.active().len(), 2);
        scene.assert_tidy();
    }
}

#[test]
fn a_key_whose_tag_collides_is_replaced_before_anyone_sees_it() {
    let mut collides = [1; 64];
    // The ZSK's flags are one less than the KSK's, so its key field adds one more.
    collides[1] = 2;
    let scene = Scene::bound(&[[1; 64], collides, [4; 64]]);
    let statement = scene.approved(council::generate(&zone(), KeyRole::Ksk, true));
    scene.begin(&statement);
    let unfinished = scene.round();
    assert!(unfinished[0].why.contains("collided"), "{unfinished:?}");
    settles(&scene, 1);
}

#[test]
fn a_token_that_repeats_itself_is_found_out() {
    let scene = Scene::bound(&[[1; 64], [1; 64], [4; 64]]);
    let statement = scene.approved(council::generate(&zone(), KeyRole::Ksk, true));
    scene.begin(&statement);
    let unfinished = scene.round();
    assert!(unfinished[0].why.contains("made twice"), "{unfinished:?}");
    settles(&scene, 2);
}

#[test]
fn nothing_is_begun_where_a_token_is_away_or_can_not() {
    let scene = signing(&[]);
    let lines = scene.lines();
    scene.hsm.table().away = true;
    let unfinished = scene.round();
    assert!(unfinished.iter().all(|item| item.why.contains("no token of group")), "{unfinished:?}");
    scene.hsm.table().away = false;
    scene.hsm.table().supports = false;
    assert!(scene.round().iter().all(|item| item.why.contains("CKM_ECDSA")));
    assert_eq!(scene.lines(), lines, "no intent was written");
    scene.hsm.table().supports = true;
    settles(&scene, 1);
}

#[test]
fn signatures_of_an_earlier_run_are_closed_as_unknown() {
    let scene = signing(&[]);
    settles(&scene, 1);
    let signer = scene.active()[&KeyRole::Ksk];
    let now = now_s() as u32;
    let operation = Operation::SignDnskey {
        zone: zone(),
        keys: scene.active().into_values().collect(),
        signer,
        ttl_s: 3_600,
        inception: now,
        expiration: now + 3_600,
    };
    let under = scene.ledger.read(|state| state.standing(&operation, now_s())).expect("standing");
    let leave = scene.ledger.intend(operation, under, now_s).expect("allowed");
    let intent = leave.spend().intent();
    let mut executor = Executor::new((&scene.ledger, intent), &scene.hsm, &scene.seals, now_s);
    executor.round();
    assert_eq!(scene.lines(), intent + 1, "one of this run is not touched");
    assert_eq!(scene.round(), []);
    let text = scene.text();
    let last = text.lines().last().expect("a line");
    let line = Line::from_canonical(intent + 1, last.as_bytes()).expect("canonical");
    assert!(
        matches!(line.entry, Entry::Outcome { intent: of, outcome: Outcome::Unknown { .. } } if of == intent)
    );
}

#[test]
fn the_public_half_of_a_ksk_is_kept_back_until_its_activation() {
    let scene = Scene::bound(&[[4; 64], [1; 64]]);
    scene.make_zsk();
    scene.carry(council::generate(&zone(), KeyRole::Ksk, false));
    let public = PublicKey::new(Algorithm::EcdsaP256Sha256, &[1; 64]).expect("key");
    let (stage, told) = scene.ledger.read(|state| {
        let record = &state.keys()[&public.id()];
        (record.stage, record.public.clone())
    });
    assert_eq!((stage, told), (Stage::Made, None));
    let written = serde_json::to_string(&public).expect("JSON");
    assert!(!scene.text().contains(&written), "not in the ledger's text either");
    scene.carry(Motion::ActivateKey { zone: zone(), key: public.id() });
    assert_eq!(scene.active()[&KeyRole::Ksk], public.id());
    assert!(scene.text().contains(&written), "published, so revealed");
}

#[test]
fn a_key_of_another_tool_is_adopted_by_what_it_is() {
    let scene = Scene::bound(&[[4; 64]]);
    scene.round();
    let public = PublicKey::new(Algorithm::EcdsaP256Sha256, &[8; 64]).expect("key");
    let key = public.id();
    let adopt = Motion::AdoptKey {
        zone: zone(),
        role: KeyRole::Ksk,
        token: "ksk-a".to_owned(),
        key,
        activate: true,
    };
    let statement = scene.approved(adopt);
    scene.begin(&statement);
    let lines = scene.lines();
    let unfinished = scene.round();
    assert!(unfinished[0].why.contains("has no key"), "{unfinished:?}");
    assert_eq!(scene.lines(), lines, "no intent for what is not there");
    scene.hsm.table().foreign.insert(key, public);
    scene.hsm.table().leaks = true;
    let unfinished = scene.round();
    assert!(unfinished[0].why.contains("CKA_EXTRACTABLE"), "{unfinished:?}");
    assert_eq!(scene.lines(), lines, "nor for what may have left its token");
    scene.hsm.table().leaks = false;
    assert_eq!(scene.round(), []);
    let record = scene.ledger.read(|state| state.keys()[&key].clone());
    assert_eq!((record.label.as_str(), record.cka_id.as_deref()), ("other-tool", Some("abcd")));
    assert_eq!(scene.active()[&KeyRole::Ksk], key);
    let expected = scene.hsm.table().expected[&key].clone();
    assert_eq!((expected.label.as_str(), expected.cka_id), ("other-tool", Some(vec![0xab, 0xcd])));
}

#[test]
fn a_key_that_a_quorum_gave_up_is_destroyed_once() {
    for lost in [false, true] {
        let scene = signing(&[[7; 64]]);
        settles(&scene, 1);
        scene.carry(council::generate(&zone(), KeyRole::Ksk, false));
        let made = PublicKey::new(Algorithm::EcdsaP256Sha256, &[7; 64]).expect("key").id();
        scene.hsm.table().lose_destroyed = lost;
        let statement = scene.approved(Motion::DestroyKey { zone: zone(), key: made });
        scene.round();
        // A lost answer is settled by looking; the table panics at a second destruction.
        assert_eq!(scene.round(), [], "{:?}", scene.text());
        let status = scene.ledger.read(|state| state.status(&statement.hash()));
        assert!(format!("{status:?}").contains("done: true"), "{status:?}");
        assert!(scene.ledger.read(|state| !state.keys().contains_key(&made)));
        assert!(!scene.hsm.table().expected.contains_key(&made));
        scene.assert_tidy();
    }
}

#[test]
fn a_full_token_is_asked_once_a_round_however_many_zones_wait() {
    let scene = Scene::founded(&[]);
    scene.carry(council::set_policy("default", 1, council::policy()));
    let zones = (0..20).map(|n| format!("z{n}.").parse().expect("name")).collect();
    let bind = Motion::BindZone { zones: BTreeSet::clone(&zones), policy: "default".to_owned() };
    scene.carry(bind);
    let make = Motion::GenerateKey { zones, role: KeyRole::Ksk, activate: true };
    let statement = scene.approved(make);
    scene.begin(&statement);
    let lines = scene.lines();
    assert_eq!(scene.round().len(), 20, "each is told");
    assert_eq!(scene.lines(), lines + 2, "an intent and its end");
}
