//! Tests of destroying keys by what they are, on SoftHSM. They are here because outside this crate
//! nobody can do so without leave from the ledger.

use countersign_policy::PublicKey;
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};

use super::making::bed::{Need, OtherUser, Running, Store, needs, zsk};
use super::{ExpectedKey, HsmError};

const LABEL: &str = "cs-00112233-zsk-example.";

fn start(store: &Store) -> (tempfile::TempDir, Running) {
    let state = tempfile::tempdir().expect("directory");
    let running = Running::start(state.path(), vec![store.spec("zsk-a", "zsk")], vec![]);
    (state, running)
}

fn unmake(running: &Running, key: &PublicKey, label: &str) -> Result<(), HsmError> {
    running.tokens.unmake_key("zsk-a", key.id(), label.to_owned())
}

/// The private and the public key objects with a label.
fn left(user: &OtherUser, label: &str) -> (usize, usize) {
    let count = |class| {
        let template = [Attribute::Class(class), Attribute::Label(label.as_bytes().to_vec())];
        user.session.find_objects(&template).expect("objects").len()
    };
    (count(ObjectClass::PRIVATE_KEY), count(ObjectClass::PUBLIC_KEY))
}

/// A pair with this label and `CKA_ID`: its key, its private and its public object.
fn pair(user: &OtherUser, label: &str, id: &[u8]) -> (PublicKey, [ObjectHandle; 2]) {
    let (key, objects) = user.make_p256(label);
    for object in objects {
        user.session.update_attributes(object, &[Attribute::Id(id.to_vec())]).expect("an id");
    }
    (key, objects)
}

#[test]
fn foreign_objects_and_audit_keys_are_not_destroyed_by_label() {
    if !needs(&[Need::Making]) {
        return;
    }
    let store = Store::new("zsk");
    store.seed("opendnssec-1");
    let (_state, running) = start(&store);
    let audit = running.tokens.make_audit_key("zsk-a", "cs-audit-1").expect("an audit key");
    let user = store.other_user();
    for label in ["opendnssec-1", "cs-audit-1", "", "cs"] {
        let error = running.tokens.unmake("zsk-a", label.to_owned());
        assert!(matches!(error, Err(HsmError::NotAuthorised(_))), "{label}: {error:?}");
    }
    for label in ["opendnssec-1", "cs-audit-1"] {
        let error = unmake(&running, &audit, label);
        assert!(matches!(error, Err(HsmError::NotAPair { .. })), "{label}: {error:?}");
        assert_eq!(left(&user, label), (1, 1));
    }
}

#[test]
fn a_key_is_destroyed_and_its_namesakes_are_not() {
    if !needs(&[Need::ManyKeys]) {
        return;
    }
    let store = Store::new("zsk");
    let user = store.other_user();
    let (doomed, _) = pair(&user, "same", &[1]);
    let (namesake, _) = pair(&user, "same", &[1]);
    let (other, _) = pair(&user, "same", &[2]);
    let (_state, running) = start(&store);
    for _again in 0..2 {
        unmake(&running, &doomed, "same").expect("destroyed");
        assert_eq!(left(&user, "same"), (2, 2));
    }
    for key in [&namesake, &other] {
        assert_eq!(
            running.tokens.public_key_of("zsk-a", &key.id()),
            Ok(Some(key.clone())),
            "the others are still there"
        );
    }
}

#[test]
fn a_private_key_that_is_another_stays_whatever_is_put_beside_it() {
    if !needs(&[Need::ManyKeys]) {
        return;
    }
    let store = Store::new("zsk");
    let user = store.other_user();
    // A public key object of one key, dressed as that of another.
    let (doomed, objects) = pair(&user, "victim", &[1]);
    user.session.destroy_object(objects[0]).expect("destroy");
    let (victim, objects) = pair(&user, "victim", &[1]);
    user.session.destroy_object(objects[1]).expect("destroy");
    let (_state, running) = start(&store);
    unmake(&running, &doomed, "victim").expect("destroyed");
    assert_eq!(left(&user, "victim"), (1, 0), "its private key was never there");
    // And now nothing shows what the private key is: it is not guessed.
    let error = unmake(&running, &victim, "victim").expect_err("nothing shows it");
    assert!(matches!(error, HsmError::NotAPair { .. }), "{error}");
    assert_eq!(left(&user, "victim"), (1, 0));
    // The ledger knows.
    let cka_id = Some(vec![1]);
    running.tokens.expect_keys(vec![ExpectedKey { cka_id, ..zsk(&victim, "victim", "zsk") }]);
    unmake(&running, &victim, "victim").expect("destroyed");
    assert_eq!(left(&user, "victim"), (0, 0));
}

#[test]
fn an_own_key_is_destroyed_by_what_it_is() {
    if !needs(&[Need::ManyKeys]) {
        return;
    }
    let store = Store::new("zsk");
    let key = store.seed(LABEL);
    let user = store.other_user();
    user.make_p256(LABEL);
    let (_state, running) = start(&store);
    unmake(&running, &key, LABEL).expect("destroyed");
    assert_eq!(left(&user, LABEL), (1, 1), "the other with its label is not it");
    assert_eq!(running.tokens.public_key_of("zsk-a", &key.id()), Ok(None));
}

#[test]
fn a_destroyed_key_is_proven_no_more() {
    let store = Store::new("zsk");
    let key = store.seed("adopted");
    let (_state, running) = start(&store);
    running.tokens.expect_keys(vec![zsk(&key, "adopted", "zsk")]);
    running.sign_all(&key, 1);
    unmake(&running, &key, "adopted").expect("destroyed");
    let status = running.tokens.key_status(&key.id()).expect("expected");
    assert_eq!((status.proven_by, status.conflict), (vec![], None));
}

#[test]
fn a_destruction_cut_off_is_finished_by_the_next() {
    if !needs(&[Need::ManyKeys]) {
        return;
    }
    let store = Store::new("zsk");
    let user = store.other_user();
    let (_state, running) = start(&store);
    for action in [
        r#"{"return": "CKR_DEVICE_REMOVED"}"#,
        r#"{"late_return": "CKR_DEVICE_REMOVED"}"#,
        r#"{"return": "CKR_ARGUMENTS_BAD"}"#,
    ] {
        for nth in [1, 2] {
            let (key, _) = pair(&user, "same", &[1]);
            let (_, objects) = pair(&user, "same", &[1]);
            store.rules(&format!(
                r#"[{{"call": "C_DestroyObject", "nth": {nth}, "action": {action}}}]"#
            ));
            let error = unmake(&running, &key, "same").expect_err("cut off");
            assert!(matches!(error, HsmError::OutcomeUnknown { .. }), "{error}");
            store.rules("[]");
            running.until_usable("zsk-a");
            unmake(&running, &key, "same").expect("destroyed");
            assert_eq!(left(&user, "same"), (1, 1), "{action} {nth}");
            for object in objects {
                user.session.destroy_object(object).expect("destroy");
            }
        }
    }
}

#[test]
fn a_private_key_that_can_not_be_tried_is_not_destroyed() {
    let store = Store::new("zsk");
    let user = store.other_user();
    let (key, _) = pair(&user, "same", &[1]);
    let (_state, running) = start(&store);
    // CKR_KEY_FUNCTION_NOT_PERMITTED
    store.rules(r#"[{"call": "C_SignInit", "every": true, "action": {"return": 104}}]"#);
    let error = unmake(&running, &key, "same").expect_err("can't be told");
    let HsmError::NotAPair { problem, .. } = &error else { panic!("{error}") };
    assert!(problem.contains("can't be tried"), "{problem}");
    store.rules(r#"[{"call": "C_GetAttributeValue", "every": true, "action": {"return": 7}}]"#);
    let error = unmake(&running, &key, "same").expect_err("can't be read");
    assert!(matches!(error, HsmError::Token { .. }), "nothing was done: {error}");
    store.rules("[]");
    assert_eq!(left(&user, "same"), (1, 1));
}
