//! Keys that other tools made, under labels and `CKA_ID`s of their choice.

use countersign_hsm::pkcs11::{Event, ExpectedKey, FoundPair, HsmError, PrivateAttributes};
use countersign_policy::{KeyRole, PublicKey};
use cryptoki::object::{Attribute, ObjectClass};

use crate::bed::{Need, Running, Store, messages, needs, until, zsk};

fn start(store: &Store) -> (tempfile::TempDir, Running) {
    let state = tempfile::tempdir().expect("directory");
    let running = Running::start(state.path(), vec![store.spec("ksk-a", "ksk")], vec![]);
    (state, running)
}

/// A P-256 pair made by pkcs11-tool.
fn keypairgen(store: &Store, label: &str, id: &str, more: &[&str]) {
    let args = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", label, "--id", id];
    store.pkcs11_tool(&[&args[..], more].concat());
}

/// The public keys under a label.
fn publics(running: &Running, label: &str) -> Vec<PublicKey> {
    let objects = running.tokens.survey("ksk-a").expect("survey").objects;
    objects.into_iter().filter(|o| o.label == label).filter_map(|o| o.public).collect()
}

fn find(running: &Running, key: &PublicKey) -> Result<Option<FoundPair>, HsmError> {
    running.tokens.find_by_key("ksk-a", &key.id())
}

/// As the ledger has an adopted key.
fn adopted(pair: &FoundPair) -> ExpectedKey {
    ExpectedKey { cka_id: Some(pair.cka_id.clone()), ..zsk(&pair.public, &pair.label, "ksk") }
}

/// Expects it, and has it sign.
fn use_it(running: &Running, pair: &FoundPair) {
    running.tokens.expect_keys(vec![adopted(pair)]);
    let status = running.tokens.key_status(&pair.public.id()).expect("expected");
    assert_eq!((status.proven_by, status.conflict), (vec!["ksk-a".to_owned()], None));
    running.sign_all(&pair.public, 3);
}

fn assert_not_a_pair(found: &Result<Option<FoundPair>, HsmError>, expect: &str) {
    let Err(HsmError::NotAPair { problem, .. }) = found else { panic!("{found:?}") };
    assert!(problem.contains(expect), "{problem}");
}

#[test]
fn the_survey_shows_the_token_and_all_that_is_on_it() {
    if !needs(&[Need::Tool, Need::Extractable, Need::Ed25519]) {
        return;
    }
    let store = Store::new("ksk");
    keypairgen(&store, "ods-1", "0a", &[]);
    keypairgen(&store, "leaks", "0b", &["--extractable"]);
    store.pkcs11_tool(&["--keygen", "--key-type", "AES:32", "--label", "wraps", "--id", "0c"]);
    let (_state, running) = start(&store);
    let inventory = running.tokens.survey("ksk-a").expect("survey");
    assert_eq!((&*inventory.name, &*inventory.label), ("ksk-a", "ksk"));
    assert_eq!(inventory.serial, store.serial);
    assert_eq!((&*inventory.manufacturer, &*inventory.model), ("SoftHSM project", "SoftHSM v2"));
    assert_eq!(inventory.firmware, "2.6");
    assert_eq!(inventory.algorithms.len(), 4);
    assert!(inventory.mechanisms.contains(&"CKM_EDDSA".to_owned()), "{inventory:?}");
    assert_eq!(inventory.objects.len(), 4, "key pairs, and no secret key: {inventory:?}");
    assert_eq!(inventory.data, Some(vec![]));
    let attributes = |label: &str| {
        let pair = inventory.pairs.iter().find(|pair| pair.label == label).expect("a pair");
        pair.private
    };
    let tight = PrivateAttributes {
        sensitive: Some(true),
        extractable: Some(false),
        never_extractable: Some(true),
        local: Some(true),
    };
    assert_eq!(attributes("ods-1"), tight);
    let loose =
        PrivateAttributes { extractable: Some(true), never_extractable: Some(false), ..tight };
    assert_eq!(attributes("leaks"), loose);
    for object in &inventory.objects {
        assert_eq!(object.private, object.attributes.is_some());
        assert_eq!(object.private, object.public.is_none());
    }
}

#[test]
fn a_survey_survives_what_it_can_not_read() {
    if !needs(&[Need::Tool]) {
        return;
    }
    let store = Store::new("ksk");
    keypairgen(&store, "ods-1", "0a", &[]);
    store.pkcs11_tool(&["--keypairgen", "--key-type", "RSA:1024", "--label", "old", "--id", "0b"]);
    let (_state, running) = start(&store);
    let inventory = running.tokens.survey("ksk-a").expect("survey");
    assert_eq!((inventory.objects.len(), inventory.pairs.len()), (4, 1), "{inventory:?}");
    // Each of the four objects is listed with two calls; then the attributes of a private key can't be
    // had: what it is by name is shown.
    store.rules(
        r#"[{"call": "C_GetAttributeValue", "nth": 9, "action": {"return": "CKR_ARGUMENTS_BAD"}}]"#,
    );
    let objects = running.tokens.survey("ksk-a").expect("survey").objects;
    let silent = objects.iter().filter(|o| o.attributes == Some(PrivateAttributes::default()));
    assert_eq!((objects.len(), silent.count()), (4, 1), "{objects:?}");
    store.rules(
        r#"[{"call": "C_GetTokenInfo", "from": 2, "action": {"return": "CKR_DEVICE_REMOVED"}}]"#,
    );
    let error = running.tokens.survey("ksk-a").expect_err("lost");
    assert!(matches!(error, HsmError::Token { .. } | HsmError::Unavailable(_)), "{error}");
    store.rules("[]");
    running.until_usable("ksk-a");
    running.tokens.survey("ksk-a").expect("survey");
}

#[test]
fn a_foreign_key_is_found_by_what_it_is_and_used_once_expected() {
    if !needs(&[Need::Tool]) {
        return;
    }
    let store = Store::new("ksk");
    keypairgen(&store, "ods-1", "0a0b", &[]);
    let (_state, running) = start(&store);
    let key = publics(&running, "ods-1").remove(0);
    let pair = find(&running, &key).expect("found").expect("a pair");
    assert_eq!((&*pair.label, &*pair.cka_id, &pair.public), ("ods-1", &[0x0a, 0x0b][..], &key));
    let answer = running.tokens.sign_zone(&key.id(), messages(1)).remove(0);
    assert_eq!(answer, Err(HsmError::UnknownKey(key.id())), "not before it is expected");
    use_it(&running, &pair);
    let elsewhere = Store::new("elsewhere").seed("cs-1");
    assert_eq!(find(&running, &elsewhere), Ok(None));
}

#[test]
fn two_keys_with_one_label_are_told_apart() {
    if !needs(&[Need::Tool, Need::ManyKeys]) {
        return;
    }
    let store = Store::new("ksk");
    keypairgen(&store, "example. ksk", "01", &[]);
    keypairgen(&store, "example. ksk", "02", &[]);
    let (_state, running) = start(&store);
    let keys = publics(&running, "example. ksk");
    assert_eq!(keys.len(), 2);
    for key in &keys {
        let pair = find(&running, key).expect("found").expect("a pair");
        use_it(&running, &pair);
    }
    assert!(running.events.try_recv().is_err(), "no conflict");
}

#[test]
fn two_keys_with_one_cka_id_are_told_apart_by_label() {
    if !needs(&[Need::Tool, Need::ManyKeys]) {
        return;
    }
    let store = Store::new("ksk");
    keypairgen(&store, "a", "01", &[]);
    keypairgen(&store, "b", "01", &[]);
    let (_state, running) = start(&store);
    for label in ["a", "b"] {
        let key = publics(&running, label).remove(0);
        let pair = find(&running, &key).expect("found").expect("a pair");
        assert_eq!(pair.label, label);
        use_it(&running, &pair);
    }
    assert!(running.events.try_recv().is_err(), "no conflict");
}

#[test]
fn two_keys_with_one_label_and_cka_id_are_not_adopted() {
    if !needs(&[Need::Tool]) {
        return;
    }
    let store = Store::new("ksk");
    keypairgen(&store, "same", "01", &[]);
    keypairgen(&store, "same", "01", &[]);
    let (_state, running) = start(&store);
    for key in publics(&running, "same") {
        assert_not_a_pair(&find(&running, &key), "2 private keys have the CKA_ID and label");
    }
}

#[test]
fn a_key_without_cka_id_is_paired_by_label() {
    if !needs(&[Need::Tool]) {
        return;
    }
    let store = Store::new("ksk");
    let (key, _) = store.other_user().make_p256("no id");
    keypairgen(&store, "no id", "07", &[]);
    let (_state, running) = start(&store);
    let pair = find(&running, &key).expect("found").expect("a pair");
    assert_eq!((&*pair.label, &*pair.cka_id), ("no id", &[][..]));
    use_it(&running, &pair);
    assert!(running.events.try_recv().is_err(), "the other with its label is no conflict");
}

#[test]
fn half_a_key_is_not_adopted() {
    if !needs(&[Need::ManyKeys]) {
        return;
    }
    let store = Store::new("ksk");
    let user = store.other_user();
    let (no_private, objects) = user.make_p256("a");
    user.session.destroy_object(objects[0]).expect("destroy");
    let (no_public, objects) = user.make_p256("b");
    user.set_id("b", &no_public);
    user.session.destroy_object(objects[1]).expect("destroy");
    let (_state, running) = start(&store);
    assert_not_a_pair(&find(&running, &no_private), "no private key has the same CKA_ID");
    assert_not_a_pair(&find(&running, &no_public), "its public key object is missing");
    let shown = running.tokens.public_key_of("ksk-a", &no_private.id());
    assert_eq!(shown, Ok(Some(no_private)));
    assert_eq!(running.tokens.public_key_of("ksk-a", &no_public.id()), Ok(None));
    assert_eq!(running.tokens.survey("ksk-a").expect("survey").pairs, []);
}

#[test]
fn a_clone_with_another_key_under_the_adopted_name_is_a_conflict() {
    if !needs(&[Need::Tool]) {
        return;
    }
    let (a, b) = (Store::new("ksk"), Store::new("ksk"));
    keypairgen(&a, "ods-1", "0a", &[]);
    keypairgen(&b, "ods-1", "0a", &[]);
    let state = tempfile::tempdir().expect("directory");
    let specs = vec![a.spec("ksk-a", "ksk"), b.spec("ksk-b", "ksk")];
    let running = Running::start(state.path(), specs, vec![]);
    let key = publics(&running, "ods-1").remove(0);
    let pair = find(&running, &key).expect("found").expect("a pair");
    running.tokens.expect_keys(vec![adopted(&pair)]);
    let event = running.events.try_recv();
    assert!(matches!(&event, Ok(Event::Conflict { token, .. }) if token == "ksk-b"), "{event:?}");
    let answer = running.tokens.sign_zone(&key.id(), messages(1)).remove(0);
    assert!(matches!(answer, Err(HsmError::Conflict { .. })), "{answer:?}");
}

#[test]
fn another_private_key_behind_an_adopted_public_one_is_a_conflict() {
    if !needs(&[Need::Tool]) {
        return;
    }
    let store = Store::new("ksk");
    keypairgen(&store, "ods-1", "0a", &[]);
    let (_state, running) = start(&store);
    let key = publics(&running, "ods-1").remove(0);
    let pair = find(&running, &key).expect("found").expect("a pair");
    let user = store.other_user();
    let private = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(b"ods-1".to_vec())];
    let private = user.session.find_objects(&private).expect("objects").remove(0);
    user.session.destroy_object(private).expect("destroy");
    let (_, objects) = user.make_p256("ods-1");
    user.session.update_attributes(objects[0], &[Attribute::Id(vec![0x0a])]).expect("an id");
    user.session.destroy_object(objects[1]).expect("destroy");
    assert!(find(&running, &key).expect("found").is_some(), "by name it is whole");
    running.tokens.expect_keys(vec![adopted(&pair)]);
    let event = running.events.try_recv();
    assert!(
        matches!(&event, Ok(Event::Conflict { found, .. }) if found.contains("not by it")),
        "{event:?}"
    );
}

#[test]
fn a_key_known_by_its_hash_alone_is_learned_from_the_token() {
    let store = Store::new("ksk");
    let key = store.seed("cs-1");
    let state = tempfile::tempdir().expect("directory");
    let by_id = || ExpectedKey { identity: key.id().into(), ..zsk(&key, "cs-1", "ksk") };
    let running = Running::start(state.path(), vec![store.spec("ksk-a", "ksk")], vec![by_id()]);
    until("the key to be learned", || {
        running.tokens.public_key(&key.id()).ok_or_else(|| "unknown".to_owned())
    });
    assert_eq!(running.tokens.public_key(&key.id()), Some(key.clone()));
    running.sign_all(&key, 3);
}

#[test]
fn a_hash_is_not_satisfied_by_another_key_of_that_name() {
    let store = Store::new("ksk");
    let wrong = store.seed("cs-1");
    let key = Store::new("elsewhere").seed("cs-1");
    let state = tempfile::tempdir().expect("directory");
    let by_id = ExpectedKey { identity: key.id().into(), ..zsk(&key, "cs-1", "ksk") };
    let running = Running::start(state.path(), vec![store.spec("ksk-a", "ksk")], vec![by_id]);
    let event = running.events.recv_timeout(std::time::Duration::from_secs(60)).expect("an event");
    let found = format!("the public key {}", wrong.id());
    assert_eq!(event, Event::Conflict { key: key.id(), token: "ksk-a".to_owned(), found });
    assert_eq!(running.tokens.public_key(&key.id()), None);
    let answer = running.tokens.sign_zone(&key.id(), messages(1)).remove(0);
    assert!(matches!(answer, Err(HsmError::Conflict { .. })), "{answer:?}");
}

#[test]
fn a_key_whose_public_half_nobody_shows_signs_nothing_until_it_is_known() {
    let store = Store::new("ksk");
    let key = store.seed("cs-1");
    let user = store.other_user();
    let public = [Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::Label(b"cs-1".to_vec())];
    let public = user.session.find_objects(&public).expect("objects").remove(0);
    user.session.destroy_object(public).expect("destroy");
    let state = tempfile::tempdir().expect("directory");
    let by_id =
        ExpectedKey { identity: key.id().into(), role: KeyRole::Csk, ..zsk(&key, "cs-1", "ksk") };
    let running = Running::start(state.path(), vec![store.spec("ksk-a", "ksk")], vec![by_id]);
    let status = running.tokens.key_status(&key.id()).expect("expected");
    assert!(status.proven_by.is_empty(), "{status:?}");
    let error = running.tokens.sign_zone(&key.id(), messages(1)).remove(0).expect_err("unknown");
    assert!(error.to_string().contains("has shown a public key object"), "{error}");
    // The ledger reveals it, and so it can be proven.
    running.tokens.expect_keys(vec![zsk(&key, "cs-1", "ksk")]);
    running.tokens.reprove(&key.id()).expect("expected");
    running.sign_all(&key, 2);
}
