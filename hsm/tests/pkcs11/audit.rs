//! Audit keys sign checkpoints, and are out of reach of every other door.

use countersign_hsm::pkcs11::{AUDIT_LABEL, ExpectedKey, HsmError};
use countersign_policy::{Algorithm, KeyRole, PublicKey};
use cryptoki::object::{Attribute, AttributeType};

use crate::bed::{Need, Running, Store, messages, needs, until, verifies, zsk};

const LABEL: &str = "cs-audit-registry.example";
const CHECKPOINT: &[u8] = b"countersign/registry.example\n7\nAAAA\n";
/// `CKM_EC_EDWARDS_KEY_PAIR_GEN`.
const NO_EDWARDS: &str = r#"[{"call": "C_GetMechanismList", "every": true,
    "action": {"without_mechanism": 4181}}]"#;

fn start(store: &Store) -> (tempfile::TempDir, Running) {
    let state = tempfile::tempdir().expect("directory");
    let running = Running::start(state.path(), vec![store.spec("ksk-a", "ksk")], vec![]);
    (state, running)
}

fn make(running: &Running) -> Result<PublicKey, HsmError> {
    running.tokens.make_audit_key("ksk-a", LABEL)
}

#[test]
fn it_is_made_once_found_again_and_signs_checkpoints() {
    if !needs(&[Need::Ed25519, Need::Making]) {
        return;
    }
    for (rules, algorithm) in [("[]", Algorithm::Ed25519), (NO_EDWARDS, Algorithm::EcdsaP256Sha256)]
    {
        let store = Store::new("ksk");
        store.rules(rules);
        let (state, running) = start(&store);
        assert_eq!(running.tokens.audit_key("ksk-a", LABEL), Ok(None));
        let key = make(&running).expect("an audit key");
        assert_eq!(key.algorithm(), algorithm);
        let error = make(&running).expect_err("it is there");
        assert!(error.to_string().contains("already"), "{error}");
        let sign = |running: &Running| {
            let signature =
                running.tokens.sign_audit("ksk-a", &key, CHECKPOINT).expect("a signature");
            assert_eq!(signature.len(), 64);
            assert!(verifies(&key, CHECKPOINT, &signature));
        };
        sign(&running);
        drop(running);
        let running = Running::start(state.path(), vec![store.spec("ksk-a", "ksk")], vec![]);
        assert_eq!(running.tokens.audit_key("ksk-a", LABEL), Ok(Some(key.clone())));
        sign(&running);
    }
}

#[test]
fn it_never_leaves_the_token_and_only_signs() {
    if !needs(&[Need::Making]) {
        return;
    }
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    let key = make(&running).expect("an audit key");
    let user = store.other_user();
    let private = user.labelled(LABEL)[0];
    for expected in [
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::NeverExtractable(true),
        Attribute::Local(true),
        Attribute::Private(true),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::Id(key.id().0.to_vec()),
    ] {
        let kind = expected.attribute_type();
        assert_eq!(user.session.get_attributes(private, &[kind]).expect("attribute"), [expected]);
    }
    let value = user.session.get_attributes(private, &[AttributeType::Value]).expect("answer");
    assert_eq!(value, [], "the private value can't be read");
}

#[test]
fn it_signs_nothing_but_checkpoints() {
    if !needs(&[Need::Making]) {
        return;
    }
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    let key = make(&running).expect("an audit key");
    let signed = store.calls("C_Sign");
    let long = [CHECKPOINT, &[b'x'; 4096]].concat();
    for message in
        [&messages(1)[0][..], b"", b"countersign", b"Countersign/x", b" countersign/", &long]
    {
        let answer = running.tokens.sign_audit("ksk-a", &key, message);
        assert!(matches!(answer, Err(HsmError::NotAuthorised(_))), "{answer:?}");
    }
    assert_eq!(store.calls("C_Sign"), signed, "the token was not even asked");
}

#[test]
fn it_is_no_zones_key_by_any_door() {
    if !needs(&[Need::Making]) {
        return;
    }
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    let key = make(&running).expect("an audit key");
    // Whatever the ledger may be made to say of it.
    for (role, label, cka_id) in [
        (KeyRole::Zsk, LABEL, None),
        (KeyRole::Csk, "adopted", None),
        (KeyRole::Zsk, LABEL, Some(key.id().0.to_vec())),
    ] {
        let expected = ExpectedKey { role, cka_id, ..zsk(&key, label, "ksk") };
        running.tokens.expect_keys(vec![expected]);
        let status = running.tokens.reprove(&key.id()).expect("expected");
        assert!(status.proven_by.is_empty(), "{status:?}");
        let answer = running.tokens.sign_zone(&key.id(), messages(1)).remove(0);
        assert!(matches!(answer, Err(HsmError::Unavailable(_))), "{answer:?}");
        running.tokens.forget_key(&key.id());
    }
    assert_eq!(running.tokens.objects_labelled("ksk-a", "cs-"), Ok(vec![]));
    let found = running.tokens.find_by_key("ksk-a", &key.id());
    assert!(matches!(&found, Err(HsmError::NotAPair { .. })), "{found:?}");
    let inventory = running.tokens.survey("ksk-a").expect("survey");
    assert_eq!(inventory.pairs, [], "nothing to adopt");
    assert!(inventory.objects.iter().all(countersign_hsm::pkcs11::FoundObject::is_audit));
    assert_eq!(inventory.objects.len(), 2, "and it is shown");
}

#[test]
fn a_zones_key_signs_no_checkpoint() {
    let store = Store::new("ksk");
    let key = store.seed("cs-1");
    let (_state, running) = start(&store);
    running.tokens.expect_keys(vec![zsk(&key, "cs-1", "ksk")]);
    running.sign_all(&key, 1);
    let answer = running.tokens.sign_audit("ksk-a", &key, CHECKPOINT);
    assert!(matches!(answer, Err(HsmError::NotAPair { .. })), "{answer:?}");
}

#[test]
fn only_labels_of_audit_keys_are_taken() {
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    let long = format!("{AUDIT_LABEL}{}", "x".repeat(64));
    for label in ["", "cs-1", AUDIT_LABEL, "cs-audit-a b", "CS-audit-1", &long] {
        let made = running.tokens.make_audit_key("ksk-a", label);
        assert!(matches!(made, Err(HsmError::NotAuthorised(_))), "{label}: {made:?}");
    }
    assert_eq!(running.tokens.survey("ksk-a").expect("survey").objects, []);
}

#[test]
fn what_fails_half_way_is_destroyed() {
    if !needs(&[Need::Making, Need::ManyKeys]) {
        return;
    }
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    for (call, when, code) in [
        // Every one: the curve is tried under another name too.
        ("C_GenerateKeyPair", r#""every": true"#, "CKR_DEVICE_MEMORY"),
        ("C_GetAttributeValue", r#""nth": 1"#, "CKR_DEVICE_MEMORY"),
        ("C_SetAttributeValue", r#""every": true"#, "CKR_DEVICE_MEMORY"),
        ("C_SignInit", r#""every": true"#, "CKR_MECHANISM_INVALID"),
    ] {
        let action = format!(r#"{{"return": "{code}"}}"#);
        store.rules(&format!(r#"[{{"call": "{call}", {when}, "action": {action}}}]"#));
        let error = make(&running).expect_err("half-way");
        assert!(error.to_string().contains(code), "{call}: {error}");
        store.rules("[]");
        assert_eq!(running.tokens.survey("ksk-a").expect("survey").objects, [], "{call}");
    }
    make(&running).expect("an audit key");
}

#[test]
fn what_a_lost_device_left_half_made_is_replaced() {
    if !needs(&[Need::Making]) {
        return;
    }
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    // The private key is named, its public one is not; and then nothing can be destroyed.
    store.rules(
        r#"[{"call": "C_SetAttributeValue", "from": 2, "action": {"return": "CKR_DEVICE_REMOVED"}},
            {"call": "C_DestroyObject", "every": true, "action": {"return": "CKR_DEVICE_REMOVED"}}]"#,
    );
    let error = make(&running).expect_err("lost");
    assert!(matches!(error, HsmError::OutcomeUnknown { .. }), "{error}");
    store.rules("[]");
    running.until_usable("ksk-a");
    assert_eq!(running.tokens.audit_key("ksk-a", LABEL), Ok(None), "half is none");
    let key = make(&running).expect("an audit key");
    assert_eq!(running.tokens.audit_key("ksk-a", LABEL), Ok(Some(key)));
    assert_eq!(running.tokens.survey("ksk-a").expect("survey").objects.len(), 2);
}

#[test]
fn a_signature_that_does_not_verify_never_gets_out() {
    if !needs(&[Need::Making]) {
        return;
    }
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    let key = make(&running).expect("an audit key");
    for action in ["wrong_answer", "short_answer"] {
        store.rules(&format!(r#"[{{"call": "C_Sign", "nth": 1, "action": "{action}"}}]"#));
        let answer = running.tokens.sign_audit("ksk-a", &key, CHECKPOINT);
        assert!(matches!(answer, Err(HsmError::BadSignature { .. })), "{answer:?}");
        running.tokens.sign_audit("ksk-a", &key, CHECKPOINT).expect("a signature");
    }
}

#[test]
fn another_private_key_under_its_name_is_not_it() {
    if !needs(&[Need::Making]) {
        return;
    }
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    let key = make(&running).expect("an audit key");
    store.rules(r#"[{"call": "C_Sign", "every": true, "action": "wrong_answer"}]"#);
    let found = running.tokens.audit_key("ksk-a", LABEL);
    assert!(
        matches!(&found, Err(HsmError::Token { detail, .. }) if detail.contains("prove")),
        "{found:?}"
    );
    store.rules("[]");
    assert_eq!(running.tokens.audit_key("ksk-a", LABEL), Ok(Some(key)));
}

#[test]
fn a_lost_device_is_told_and_signs_again_once_it_is_back() {
    if !needs(&[Need::Making]) {
        return;
    }
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    let key = make(&running).expect("an audit key");
    store.rules(r#"[{"call": "C_Sign", "nth": 1, "action": {"return": "CKR_DEVICE_REMOVED"}}]"#);
    let answer = running.tokens.sign_audit("ksk-a", &key, CHECKPOINT);
    assert!(answer.is_err(), "{answer:?}");
    until("a signature", || {
        running.tokens.sign_audit("ksk-a", &key, CHECKPOINT).map_err(|e| e.to_string())
    });
}
