//! Sessions, devices and modules that fail, and what is left standing.

use std::time::Duration;

use countersign_hsm::pkcs11::{Event, HsmError};
use countersign_hsm::protocol::TokenState;

use crate::bed::{Need, Running, Store, messages, needs, until, zsk};

/// One store with one key, and its token in operation.
fn alone(state: &std::path::Path) -> (Store, countersign_policy::PublicKey, Running) {
    let store = Store::new("zsk");
    let key = store.seed("cs-1");
    let keys = vec![zsk(&key, "cs-1", "zsk")];
    let running = Running::start(state, vec![store.spec("zsk-a", "zsk")], keys);
    (store, key, running)
}

/// Two clones with one key, in operation.
fn pair(state: &std::path::Path) -> (Store, Store, countersign_policy::PublicKey, Running) {
    let a = Store::new("zsk");
    let key = a.seed("cs-1");
    let b = a.cloned();
    let specs = vec![a.spec("zsk-a", "zsk"), b.spec("zsk-b", "zsk")];
    let running = Running::start(state, specs, vec![zsk(&key, "cs-1", "zsk")]);
    (a, b, key, running)
}

#[test]
fn a_dead_session_is_replaced_in_mid_batch() {
    let state = tempfile::tempdir().expect("directory");
    let (store, key, running) = alone(state.path());
    for code in ["CKR_SESSION_HANDLE_INVALID", "CKR_SESSION_CLOSED"] {
        let action = format!(r#"{{"return": "{code}"}}"#);
        store.rules(&format!(r#"[{{"call": "C_Sign", "nth": 5, "action": {action}}}]"#));
        running.sign_all(&key, 40);
        assert_eq!(running.health("zsk-a").state, TokenState::Usable);
    }
    assert_eq!(store.calls("C_Login"), 2, "the seed's and ours: no login for a session");
}

#[test]
fn a_lost_device_is_opened_anew_in_mid_batch() {
    let state = tempfile::tempdir().expect("directory");
    let (store, key, running) = alone(state.path());
    let initialised = store.calls("C_Initialize");
    for code in ["CKR_DEVICE_REMOVED", "CKR_DEVICE_ERROR", "CKR_USER_NOT_LOGGED_IN"] {
        let action = format!(r#"{{"return": "{code}"}}"#);
        store.rules(&format!(r#"[{{"call": "C_Sign", "nth": 9, "action": {action}}}]"#));
        running.sign_all(&key, 40);
        running.until_usable("zsk-a");
    }
    assert_eq!(store.calls("C_Initialize"), initialised, "opening was enough each time");
}

#[test]
fn a_device_that_stays_away_is_found_when_it_comes_back() {
    let state = tempfile::tempdir().expect("directory");
    let (store, key, running) = alone(state.path());
    store.rules(r#"[{"call": "*", "every": true, "action": {"return": "CKR_DEVICE_REMOVED"}}]"#);
    let answers = running.tokens.sign_zone(&key.id(), messages(3));
    for answer in answers {
        assert!(matches!(answer, Err(HsmError::Unavailable(_))), "{answer:?}");
    }
    running.until_unusable("zsk-a", "CKR_DEVICE_REMOVED");
    assert_eq!(running.health("zsk-a").keys_proven, 0);
    store.rules("[]");
    running.until_usable("zsk-a");
    running.sign_all(&key, 3);
}

#[test]
fn an_idle_token_that_goes_away_is_noticed() {
    let state = tempfile::tempdir().expect("directory");
    let (store, key, running) = alone(state.path());
    store.rules(r#"[{"call": "*", "every": true, "action": {"return": "CKR_TOKEN_NOT_PRESENT"}}]"#);
    running.until_unusable("zsk-a", "CKR_TOKEN_NOT_PRESENT");
    store.rules("[]");
    running.until_usable("zsk-a");
    running.sign_all(&key, 1);
}

#[test]
fn a_token_that_is_away_at_start_comes_later() {
    let store = Store::new("zsk");
    let key = store.seed("cs-1");
    let state = tempfile::tempdir().expect("directory");
    store.rules(
        r#"[{"call": "C_GetSlotList", "every": true, "action": {"return": "CKR_DEVICE_ERROR"}}]"#,
    );
    let keys = vec![zsk(&key, "cs-1", "zsk")];
    let running = Running::start(state.path(), vec![store.spec("zsk-a", "zsk")], keys);
    running.until_unusable("zsk-a", "CKR_DEVICE_ERROR");
    store.rules("[]");
    running.until_usable("zsk-a");
    running.sign_all(&key, 1);
}

#[test]
fn what_one_token_fails_at_its_clone_signs() {
    let state = tempfile::tempdir().expect("directory");
    let (a, _b, key, running) = pair(state.path());
    a.rules(r#"[{"call": "*", "from": 5, "action": {"return": "CKR_DEVICE_REMOVED"}}]"#);
    running.sign_all(&key, 300);
    let status = running.tokens.key_status(&key.id()).expect("expected");
    assert_eq!(status.proven_by, ["zsk-b"]);
    assert_eq!(status.conflict, None, "a lost token contradicts nobody");
}

#[test]
fn a_short_signature_never_gets_out() {
    let state = tempfile::tempdir().expect("directory");
    let (a, _b, key, running) = pair(state.path());
    a.rules(r#"[{"call": "C_Sign", "nth": 3, "action": "short_answer"}]"#);
    running.sign_all(&key, 100);
}

#[test]
fn a_short_signature_of_the_only_token_is_an_error() {
    let state = tempfile::tempdir().expect("directory");
    let (store, key, running) = alone(state.path());
    store.rules(r#"[{"call": "C_Sign", "nth": 1, "action": "short_answer"}]"#);
    let answer = running.tokens.sign_zone(&key.id(), messages(1)).remove(0);
    assert!(matches!(answer, Err(HsmError::BadSignature { .. })), "{answer:?}");
    running.sign_all(&key, 1);
}

#[test]
fn a_key_that_was_refused_in_passing_is_proven_again_by_itself() {
    for code in ["CKR_ARGUMENTS_BAD", "CKR_DEVICE_MEMORY", "CKR_FUNCTION_CANCELED"] {
        let state = tempfile::tempdir().expect("directory");
        let (store, key, running) = alone(state.path());
        store.rules(&format!(
            r#"[{{"call": "C_SignInit", "every": true, "action": {{"return": "{code}"}}}}]"#
        ));
        let answer = running.tokens.sign_zone(&key.id(), messages(1)).remove(0);
        assert!(answer.is_err(), "{answer:?}");
        let proven = || running.tokens.key_status(&key.id()).expect("expected").proven_by;
        until("the key to be in doubt", || match proven().as_slice() {
            [] => Ok(()),
            tokens => Err(format!("proven by {tokens:?}")),
        });
        assert_eq!(running.health("zsk-a").state, TokenState::Usable);
        store.rules("[]");
        // Nobody asks for anything: who signs with a KSK looks first whether it is proven.
        until("the key to be proven", || match proven().as_slice() {
            [] => Err("by no token".to_owned()),
            _ => Ok(()),
        });
    }
}

#[test]
fn a_key_destroyed_behind_our_back_costs_that_key_alone() {
    if !needs(&[Need::ManyKeys]) {
        return;
    }
    let state = tempfile::tempdir().expect("directory");
    let (store, key, running) = alone(state.path());
    let other = store.seed("cs-2");
    running.tokens.expect_keys(vec![zsk(&other, "cs-2", "zsk")]);
    running.tokens.reprove(&other.id()).expect("expected");
    running.sign_all(&other, 1);
    store.other_user().destroy("cs-1");
    let answer = running.tokens.sign_zone(&key.id(), messages(1)).remove(0);
    assert!(answer.is_err(), "{answer:?}");
    running.sign_all(&other, 1);
    assert_eq!(running.health("zsk-a").state, TokenState::Usable);
}

#[test]
fn a_hang_costs_the_token_and_its_clone_takes_the_work() {
    let state = tempfile::tempdir().expect("directory");
    let (a, _b, key, running) = pair(state.path());
    a.rules(r#"[{"call": "C_Sign", "from": 3, "action": "hang"}]"#);
    // While the hang stands.
    running.sign_all(&key, 200);
    running.until_unusable("zsk-a", "hung in C_Sign");
    until("the mark of the hang", || {
        let there = state.path().join("hung-zsk-a.json").exists();
        there.then_some(()).ok_or_else(|| "not there".to_owned())
    });
    assert!(running.events.try_recv().is_err(), "the group has one left");
    // The device comes to itself: its calls come back, and so does the token.
    a.rules("[]");
    running.until_usable("zsk-a");
    running.sign_all(&key, 50);
}

#[test]
fn a_hang_of_the_last_token_is_told_and_remembered() {
    let state = tempfile::tempdir().expect("directory");
    let (store, key, running) = alone(state.path());
    store.rules(r#"[{"call": "C_Sign", "every": true, "action": "hang"}]"#);
    let answer = running.tokens.sign_zone(&key.id(), messages(1)).remove(0);
    assert!(matches!(answer, Err(HsmError::Unavailable(_))), "{answer:?}");
    let event = running.events.recv_timeout(Duration::from_secs(30)).expect("an event");
    let (group, token, call) = ("zsk".to_owned(), "zsk-a".to_owned(), "C_Sign".to_owned());
    assert_eq!(event, Event::GroupLost { group, token, call });
    assert!(!running.tokens.close(Duration::from_millis(100)), "a hung thread does not end");
    // As after the supervisor's restart: opened last, and later.
    store.rules("[]");
    let keys = vec![zsk(&key, "cs-1", "zsk")];
    let again = Running::start(state.path(), vec![store.spec("zsk-a", "zsk")], keys);
    again.until_unusable("zsk-a", "hung in C_Sign when it was last open");
    again.until_usable("zsk-a");
    again.sign_all(&key, 1);
}

#[test]
fn a_module_that_hangs_in_opening_holds_up_nobody() {
    for call in ["C_Initialize", "C_Login", "C_FindObjectsInit"] {
        let a = Store::new("zsk");
        let b = a.cloned();
        let key = b.seed("cs-1");
        let state = tempfile::tempdir().expect("directory");
        a.rules(&format!(r#"[{{"call": "{call}", "every": true, "action": "hang"}}]"#));
        let mut slow = a.spec("zsk-a", "zsk");
        slow.deadline = Duration::from_millis(300);
        let keys = vec![zsk(&key, "cs-1", "zsk")];
        let running = Running::start(state.path(), vec![slow, b.spec("zsk-b", "zsk")], keys);
        running.until_unusable("zsk-a", "hung in");
        running.until_usable("zsk-b");
        running.sign_all(&key, 5);
    }
}

#[test]
fn full_queues_are_busy_and_nothing_else() {
    let store = Store::new("zsk");
    let key = store.seed("cs-1");
    let state = tempfile::tempdir().expect("directory");
    let mut spec = store.spec("zsk-a", "zsk");
    (spec.workers, spec.queue_max) = (1, 1);
    let running = Running::start(state.path(), vec![spec], vec![zsk(&key, "cs-1", "zsk")]);
    store.rules(r#"[{"call": "C_Sign", "every": true, "action": {"delay_ms": 300}}]"#);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| running.tokens.sign_zone(&key.id(), messages(2)));
        until("the worker to be busy", || match store.calls("C_Sign") {
            0..=1 => Err("idle".to_owned()),
            _ => Ok(()),
        });
        let second = scope.spawn(|| running.tokens.sign_zone(&key.id(), messages(1)));
        until("the queue to be full", || match running.health("zsk-a").queued {
            1 => Ok(()),
            n => Err(format!("{n} waiting")),
        });
        let third = running.tokens.sign_zone(&key.id(), messages(1)).remove(0);
        assert_eq!(third, Err(HsmError::Busy("zsk".to_owned())));
        for answers in [first, second] {
            assert!(answers.join().expect("no panic").iter().all(Result::is_ok));
        }
    });
}

#[test]
fn a_token_with_fewer_sessions_than_workers_serves_with_those() {
    let store = Store::new("zsk");
    let key = store.seed("cs-1");
    let state = tempfile::tempdir().expect("directory");
    // One for the root, two for workers, and no more.
    let code = r#"{"return": "CKR_SESSION_COUNT"}"#;
    store.rules(&format!(r#"[{{"call": "C_OpenSession", "from": 4, "action": {code}}}]"#));
    let mut spec = store.spec("zsk-a", "zsk");
    spec.workers = 5;
    let keys = vec![zsk(&key, "cs-1", "zsk")];
    let running = Running::start(state.path(), vec![spec], keys);
    running.sign_all(&key, 20);
    // A token is usable with its first worker; the second may still be counting itself.
    until("two sessions", || match running.health("zsk-a") {
        health if (&health.state, health.sessions) == (&TokenState::Usable, 2) => Ok(()),
        health => Err(format!("{health:?}")),
    });
}

#[test]
fn a_module_that_forgot_its_initialisation_is_initialised_again() {
    let state = tempfile::tempdir().expect("directory");
    let (store, key, running) = alone(state.path());
    let code = r#"{"return": "CKR_CRYPTOKI_NOT_INITIALIZED"}"#;
    store.rules(&format!(
        r#"[{{"call": "C_Sign", "nth": 2, "action": {code}}},
            {{"call": "C_GetSlotList", "nth": 1, "action": {code}}}]"#
    ));
    let initialised = store.calls("C_Initialize");
    let answers = running.tokens.sign_zone(&key.id(), messages(10));
    assert!(answers.iter().any(Result::is_err), "it was away");
    running.until_usable("zsk-a");
    assert_eq!(store.calls("C_Initialize"), initialised + 1);
    running.sign_all(&key, 1);
}

#[test]
fn a_store_that_goes_away_and_comes_back_signs_again() {
    if !needs(&[Need::Unplug]) {
        return;
    }
    // SoftHSM itself never sees it again: its module has to be initialised anew.
    let state = tempfile::tempdir().expect("directory");
    let (store, key, running) = alone(state.path());
    running.sign_all(&key, 5);
    let (here, away) = (store.path("tokens"), store.path("unplugged"));
    std::fs::rename(&here, &away).expect("unplug");
    until("signing to fail", || match running.tokens.sign_zone(&key.id(), messages(1)).remove(0) {
        Ok(_) => Err("still signs".to_owned()),
        Err(_) => Ok(()),
    });
    running.until_unusable("zsk-a", "");
    std::fs::rename(&away, &here).expect("plug in");
    until("signing to work", || {
        running.tokens.sign_zone(&key.id(), messages(1)).remove(0).map_err(|e| e.to_string())
    });
    running.until_usable("zsk-a");
}

#[test]
fn a_store_that_is_away_at_the_start_is_found_when_it_comes() {
    if !needs(&[Need::Unplug]) {
        return;
    }
    // SoftHSM looks for its tokens when it is initialised, and never again.
    let store = Store::new("zsk");
    let (here, away) = (store.token_dir(), store.path("unplugged"));
    std::fs::rename(&here, &away).expect("unplug");
    let state = tempfile::tempdir().expect("directory");
    let running = Running::start(state.path(), vec![store.spec("zsk-a", "zsk")], vec![]);
    running.until_unusable("zsk-a", "no token with the label");
    std::fs::rename(&away, &here).expect("plug in");
    running.until_usable("zsk-a");
}

#[test]
fn a_module_renewed_for_one_token_brings_back_its_others_too() {
    if !needs(&[Need::Unplug, Need::TwoTokens]) {
        return;
    }
    let store = Store::new("zsk");
    let second = store.with_second_token("ksk-a", "ksk");
    let key = store.seed("cs-1");
    let state = tempfile::tempdir().expect("directory");
    let specs = vec![store.spec("zsk-a", "zsk"), second];
    let running = Running::start(state.path(), specs, vec![zsk(&key, "cs-1", "zsk")]);
    running.until_usable("ksk-a");
    let (here, away) = (store.token_dir(), store.path("unplugged"));
    std::fs::rename(&here, &away).expect("unplug");
    running.until_unusable("zsk-a", "");
    std::fs::rename(&away, &here).expect("plug in");
    running.until_usable("zsk-a");
    running.until_usable("ksk-a");
    running.sign_all(&key, 5);
}
