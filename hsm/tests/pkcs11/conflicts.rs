//! A key is its public key: same label and `CKA_ID` with another key behind is refused everywhere, as
//! it was not for .de on 5 May 2026.

use std::time::Duration;

use countersign_hsm::pkcs11::{Event, ExpectedKey, HsmError};
use countersign_policy::PublicKey;

use crate::bed::{Running, Store, messages, until, zsk};

fn assert_refused(running: &Running, key: &PublicKey) {
    for answer in running.tokens.sign_zone(&key.id(), messages(3)) {
        assert!(matches!(answer, Err(HsmError::Conflict { .. })), "{answer:?}");
    }
}

fn next(running: &Running) -> Event {
    running.events.recv_timeout(Duration::from_secs(60)).expect("an event")
}

#[test]
fn same_label_and_id_with_another_key_is_refused_everywhere() {
    let (a, b) = (Store::new("zsk"), Store::new("zsk"));
    let key = a.seed("cs-1");
    // One key pair per HSM, all with the same label and CKA_ID.
    let wrong = {
        let user = b.other_user();
        let (wrong, _) = user.make_p256("cs-1");
        user.set_id("cs-1", &key);
        wrong
    };
    let state = tempfile::tempdir().expect("directory");
    let specs = vec![a.spec("zsk-a", "zsk"), b.spec("zsk-b", "zsk")];
    let running = Running::start(state.path(), specs, vec![zsk(&key, "cs-1", "zsk")]);
    let found = format!("the public key {}", wrong.id());
    assert_eq!(next(&running), Event::Conflict { key: key.id(), token: "zsk-b".to_owned(), found });
    assert_refused(&running, &key);
    let status = running.tokens.key_status(&key.id()).expect("expected");
    assert!(status.conflict.expect("a conflict").contains("zsk-b"));

    b.other_user().destroy("cs-1");
    running.tokens.reprove(&key.id()).expect("expected");
    assert_eq!(next(&running), Event::Cleared { key: key.id() });
    running.sign_all(&key, 5);
}

#[test]
fn a_claim_by_label_alone_or_by_id_alone_counts() {
    for by_label in [true, false] {
        let (a, b) = (Store::new("zsk"), Store::new("zsk"));
        let key = a.seed("cs-1");
        let user = b.other_user();
        if by_label {
            user.make_p256("cs-1");
        } else {
            user.make_p256("another");
            user.set_id("another", &key);
        }
        drop(user);
        let state = tempfile::tempdir().expect("directory");
        let specs = vec![a.spec("zsk-a", "zsk"), b.spec("zsk-b", "zsk")];
        let running = Running::start(state.path(), specs, vec![zsk(&key, "cs-1", "zsk")]);
        assert!(matches!(next(&running), Event::Conflict { .. }));
        assert_refused(&running, &key);
    }
}

#[test]
fn a_right_public_key_with_a_wrong_private_key_is_found_out_by_the_challenge() {
    let a = Store::new("zsk");
    let key = a.seed("cs-1");
    let b = a.cloned();
    // The public object is right; whatever signs is not.
    b.rules(r#"[{"call": "C_Sign", "every": true, "action": "wrong_answer"}]"#);
    let state = tempfile::tempdir().expect("directory");
    let specs = vec![a.spec("zsk-a", "zsk"), b.spec("zsk-b", "zsk")];
    let running = Running::start(state.path(), specs, vec![zsk(&key, "cs-1", "zsk")]);
    let Event::Conflict { token, found, .. } = next(&running) else { panic!("no conflict") };
    assert_eq!((token.as_str(), found.as_str()), ("zsk-b", "a signature that is not by it"));
    assert_refused(&running, &key);
    // It is looked at again by itself.
    b.rules("[]");
    assert_eq!(next(&running), Event::Cleared { key: key.id() });
    running.sign_all(&key, 5);
}

#[test]
fn a_conflict_outlives_the_token_that_is_in_it() {
    let (a, b) = (Store::new("zsk"), Store::new("zsk"));
    let key = a.seed("cs-1");
    b.seed("cs-1");
    let state = tempfile::tempdir().expect("directory");
    let specs = vec![a.spec("zsk-a", "zsk"), b.spec("zsk-b", "zsk")];
    let running = Running::start(state.path(), specs, vec![zsk(&key, "cs-1", "zsk")]);
    assert!(matches!(next(&running), Event::Conflict { .. }));
    b.rules(r#"[{"call": "*", "every": true, "action": {"return": "CKR_DEVICE_REMOVED"}}]"#);
    running.until_unusable("zsk-b", "CKR_DEVICE_REMOVED");
    assert_refused(&running, &key);
}

#[test]
fn a_conflict_of_an_earlier_run_holds_until_all_tokens_are_seen() {
    let a = Store::new("zsk");
    let key = a.seed("cs-1");
    let b = a.cloned();
    b.rules(
        r#"[{"call": "C_OpenSession", "every": true, "action": {"return": "CKR_DEVICE_ERROR"}}]"#,
    );
    let state = tempfile::tempdir().expect("directory");
    let specs = vec![a.spec("zsk-a", "zsk"), b.spec("zsk-b", "zsk")];
    let suspect = ExpectedKey { conflicted: true, ..zsk(&key, "cs-1", "zsk") };
    let running = Running::start(state.path(), specs, vec![suspect]);
    running.until_usable("zsk-a");
    assert_refused(&running, &key);
    b.rules("[]");
    running.until_usable("zsk-b");
    assert_eq!(next(&running), Event::Cleared { key: key.id() });
    running.sign_all(&key, 2);
}

#[test]
fn a_foreign_key_is_nobodys_conflict() {
    let store = Store::new("zsk");
    let key = store.seed("cs-1");
    store.seed("somebody-elses");
    let state = tempfile::tempdir().expect("directory");
    let keys = vec![zsk(&key, "cs-1", "zsk")];
    let running = Running::start(state.path(), vec![store.spec("zsk-a", "zsk")], keys);
    running.sign_all(&key, 2);
    let found = running.tokens.objects_labelled("zsk-a", "some").expect("listing");
    assert_eq!(found.len(), 2);
    until("nothing to be told", || {
        running.events.try_recv().map_or(Ok(()), |e| Err(format!("{e:?}")))
    });
}
