//! Data objects: a new value is there before the old one goes.

use countersign_hsm::pkcs11::{DataObject, HsmError};
use countersign_hsm::protocol::TokenState;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};

use crate::bed::{Need, OtherUser, Running, Store, messages, needs, until, zsk};

const LABEL: &str = "tree";

fn start(store: &Store) -> (tempfile::TempDir, Running) {
    let state = tempfile::tempdir().expect("directory");
    let running = Running::start(state.path(), vec![store.spec("ksk-a", "ksk")], vec![]);
    (state, running)
}

fn read(running: &Running) -> Vec<Vec<u8>> {
    let mut values = running.tokens.read_data("ksk-a", LABEL).expect("values");
    values.sort();
    values
}

fn write(running: &Running, value: &[u8]) -> Result<(), HsmError> {
    running.tokens.write_data("ksk-a", LABEL, value)
}

fn rule(call: &str, when: &str, action: &str) -> String {
    format!(r#"[{{"call": "{call}", {when}, "action": {action}}}]"#)
}

/// What is really there.
fn objects(user: &OtherUser) -> Vec<ObjectHandle> {
    user.session.find_objects(&[Attribute::Class(ObjectClass::DATA)]).expect("objects")
}

fn plant(user: &OtherUser, label: &str, application: &[u8], private: bool, value: &[u8]) {
    let template = [
        Attribute::Class(ObjectClass::DATA),
        Attribute::Token(true),
        Attribute::Private(private),
        Attribute::Application(application.to_vec()),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Value(value.to_vec()),
    ];
    user.session.create_object(&template).expect("object");
}

#[test]
fn a_new_value_takes_the_place_of_the_old() {
    if !needs(&[Need::Data]) {
        return;
    }
    let store = Store::new("ksk");
    let (state, running) = start(&store);
    assert_eq!(read(&running), Vec::<Vec<u8>>::new());
    write(&running, b"1").expect("written");
    running.tokens.write_data("ksk-a", "founding", b"f").expect("written");
    write(&running, b"2").expect("written");
    assert_eq!(read(&running), [b"2"]);
    let user = store.other_user();
    let left = objects(&user);
    assert_eq!(left.len(), 2, "the old one is gone");
    for object in left {
        let private = user.session.get_attributes(object, &[AttributeType::Private]);
        assert_eq!(private.expect("attribute"), [Attribute::Private(true)]);
    }
    drop(running);
    let running = Running::start(state.path(), vec![store.spec("ksk-a", "ksk")], vec![]);
    assert_eq!(read(&running), [b"2"]);
    let data = running.tokens.survey("ksk-a").expect("survey").data.expect("data objects");
    let mut shown: Vec<(&str, &[u8])> =
        data.iter().map(|object| (&*object.label, &*object.value)).collect();
    shown.sort_unstable();
    assert_eq!(shown, [("founding", &b"f"[..]), ("tree", b"2")]);
}

#[test]
fn what_takes_no_pin_to_plant_counts_for_nothing_under_a_label_that_was_never_written() {
    if !needs(&[Need::Data, Need::PublicData]) {
        return;
    }
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    running.tokens.write_data("ksk-a", "founding", b"f").expect("written");
    let user = store.other_user();
    plant(&user, LABEL, b"countersign", false, b"9");
    assert_eq!(read(&running), Vec::<Vec<u8>>::new());
    let data = running.tokens.survey("ksk-a").expect("survey").data.expect("data objects");
    assert!(data.iter().all(|object| object.label == "founding"), "{data:?}");
    // Nor does it stand for what is to be written.
    write(&running, b"9").expect("written");
    assert_eq!(read(&running), [b"9"]);
    write(&running, b"10").expect("written");
    assert_eq!(read(&running), [b"10"]);
    assert_eq!(objects(&user).len(), 2, "what was planted went with the older value");
}

#[test]
fn what_is_there_is_not_written_again() {
    if !needs(&[Need::Data]) {
        return;
    }
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    write(&running, b"1").expect("written");
    let made = store.calls("C_CreateObject");
    write(&running, b"1").expect("there");
    assert_eq!(store.calls("C_CreateObject"), made);
}

#[test]
fn a_failed_write_leaves_all_as_it_was() {
    if !needs(&[Need::Data]) {
        return;
    }
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    write(&running, b"1").expect("written");
    for (call, when, action, expect) in [
        ("C_CreateObject", r#""nth": 1"#, r#"{"return": "CKR_DEVICE_MEMORY"}"#, "DEVICE_MEMORY"),
        // Made and denied.
        (
            "C_CreateObject",
            r#""nth": 1"#,
            r#"{"late_return": "CKR_DEVICE_MEMORY"}"#,
            "DEVICE_MEMORY",
        ),
        // In the listing after it was made: its predecessor is read with four calls.
        (
            "C_GetAttributeValue",
            r#""nth": 5"#,
            r#"{"return": "CKR_DEVICE_MEMORY"}"#,
            "DEVICE_MEMORY",
        ),
        ("C_FindObjects", r#""nth": 2"#, r#"{"return": "CKR_DEVICE_MEMORY"}"#, "DEVICE_MEMORY"),
    ] {
        store.rules(&rule(call, when, action));
        let error = write(&running, b"2").expect_err("fails");
        assert!(
            matches!(&error, HsmError::Token { detail, .. } if detail.contains(expect)),
            "{call}: {error}"
        );
        store.rules("[]");
        assert_eq!(read(&running), [b"1"], "{call} {when} {action}");
        assert_eq!(objects(&store.other_user()).len(), 1);
    }
}

#[test]
fn a_value_that_reads_back_otherwise_is_not_written() {
    if !needs(&[Need::Data]) {
        return;
    }
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    write(&running, b"1").expect("written");
    store.rules(&rule("C_GetAttributeValue", r#""every": true"#, r#"{"wrong_attribute": 17}"#));
    let error = write(&running, b"2").expect_err("fails");
    assert!(error.to_string().contains("does not read back"), "{error}");
    store.rules("[]");
    assert_eq!(read(&running), [b"1"]);
}

#[test]
fn a_device_lost_after_the_making_leaves_both_and_says_so() {
    if !needs(&[Need::Data]) {
        return;
    }
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    write(&running, b"1").expect("written");
    store.rules(
        r#"[{"call": "C_CreateObject", "every": true, "action": {"late_return": "CKR_DEVICE_REMOVED"}},
            {"call": "C_DestroyObject", "every": true, "action": {"return": "CKR_DEVICE_REMOVED"}}]"#,
    );
    let error = write(&running, b"2").expect_err("lost");
    assert!(matches!(error, HsmError::OutcomeUnknown { .. }), "{error}");
    store.rules("[]");
    running.until_usable("ksk-a");
    assert_eq!(read(&running), [b"1", b"2"], "a reader takes the highest");
    write(&running, b"2").expect("the older one goes");
    assert_eq!(read(&running), [b"2"]);
}

#[test]
fn a_new_value_counts_though_the_old_can_not_be_destroyed() {
    if !needs(&[Need::Data]) {
        return;
    }
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    write(&running, b"1").expect("written");
    for code in ["CKR_ARGUMENTS_BAD", "CKR_DEVICE_REMOVED"] {
        store.rules(&rule(
            "C_DestroyObject",
            r#""every": true"#,
            &format!(r#"{{"return": "{code}"}}"#),
        ));
        write(&running, code.as_bytes()).expect("written");
        store.rules("[]");
        running.until_usable("ksk-a");
        assert!(read(&running).contains(&code.as_bytes().to_vec()));
    }
    assert_eq!(read(&running).len(), 3);
    write(&running, b"2").expect("written");
    assert_eq!(read(&running), [b"2"]);
}

#[test]
fn a_token_without_data_objects_says_so() {
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    for code in ["CKR_TEMPLATE_INCONSISTENT", "CKR_ATTRIBUTE_VALUE_INVALID"] {
        let action = format!(r#"{{"return": "{code}"}}"#);
        store.rules(&rule("C_CreateObject", r#""every": true"#, &action));
        let error = write(&running, b"1").expect_err("refused");
        assert!(
            matches!(&error, HsmError::NoDataObjects { detail, .. } if detail.contains(code)),
            "{error}"
        );
    }
    let action = r#"{"return": "CKR_ATTRIBUTE_VALUE_INVALID"}"#;
    store.rules(&rule("C_FindObjectsInit", r#""every": true"#, action));
    let error = running.tokens.read_data("ksk-a", LABEL).expect_err("refused");
    assert!(matches!(error, HsmError::NoDataObjects { .. }), "{error}");
}

#[test]
fn a_token_without_private_data_objects_keeps_public_ones() {
    if !needs(&[Need::Data, Need::PublicData]) {
        return;
    }
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    let action = r#"{"return": "CKR_TEMPLATE_INCONSISTENT"}"#;
    store.rules(&rule("C_CreateObject", r#""nth": 1"#, action));
    write(&running, b"1").expect("written");
    assert_eq!(read(&running), [b"1"]);
}

#[test]
fn what_others_put_there_is_not_ours() {
    if !needs(&[Need::Data, Need::PublicData]) {
        return;
    }
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    let user = store.other_user();
    // Anyone may put a public object there, without the PIN.
    plant(&user, LABEL, b"countersign", false, b"9");
    assert_eq!(read(&running), [b"9"], "nothing better is known yet");
    write(&running, b"1").expect("written");
    plant(&user, LABEL, b"countersign", false, b"9");
    plant(&user, LABEL, b"another", true, b"8");
    plant(&user, "another", b"countersign", true, b"7");
    assert_eq!(read(&running), [b"1"]);
    write(&running, b"2").expect("written");
    assert_eq!(objects(&user).len(), 3, "the planted one went with the old");
}

#[test]
fn everything_is_bounded() {
    if !needs(&[Need::Data]) {
        return;
    }
    let store = Store::new("ksk");
    let (_state, running) = start(&store);
    for (label, value) in
        [("", vec![1]), (&*"x".repeat(65), vec![1]), ("x", vec![]), ("x", vec![1; 4097])]
    {
        let error = running.tokens.write_data("ksk-a", label, &value).expect_err("refused");
        assert!(matches!(error, HsmError::Setting { .. }), "{error}");
    }
    write(&running, &[1; 4096]).expect("written");
    let user = store.other_user();
    plant(&user, LABEL, b"countersign", true, &[1; 4097]);
    let error = running.tokens.read_data("ksk-a", LABEL).expect_err("too large");
    assert!(error.to_string().contains("4097 octets"), "{error}");
    for object in objects(&user) {
        user.session.destroy_object(object).expect("destroyed");
    }
    // In all, since whether there is a private one says which of them count.
    write(&running, b"1").expect("written");
    for number in 1..64u8 {
        plant(&user, "many", b"countersign", true, &[number]);
    }
    assert_eq!(running.tokens.read_data("ksk-a", "many").expect("values").len(), 63);
    plant(&user, "many", b"countersign", true, b"one more");
    let error = running.tokens.read_data("ksk-a", "many").expect_err("too many");
    assert!(error.to_string().contains("65 data objects"), "{error}");
}

#[test]
fn a_token_that_is_not_admitted_signs_nothing_and_disturbs_nobody() {
    if !needs(&[Need::Data, Need::TwoTokens]) {
        return;
    }
    let store = Store::new("ksk");
    let second = store.with_second_token("zsk-a", "zsk");
    let key = store.seed("cs-1");
    // Its login ends with its session: a token that we never logged in to is not renewed anyway.
    plant(&store.other_user(), "founding", b"countersign", true, b"another");
    let state = tempfile::tempdir().expect("directory");
    let initialised = store.calls("C_Initialize");
    let admission = Box::new(|_: &str, data: &[DataObject]| match data {
        [object] if object.value != b"ours" => Err("it is of another founding".to_owned()),
        _ => Ok(()),
    });
    let specs = vec![store.spec("ksk-a", "ksk"), second];
    let keys = vec![zsk(&key, "cs-1", "ksk")];
    let running = Running::start_admitted(state.path(), specs, keys, admission);
    running.until_unusable("ksk-a", "it is of another founding");
    running.until_usable("zsk-a");
    let signed = store.calls("C_Sign");
    let answer = running.tokens.sign_zone(&key.id(), messages(1)).remove(0);
    assert!(matches!(answer, Err(HsmError::Unavailable(_))), "{answer:?}");
    assert_eq!(store.calls("C_Sign"), signed);
    // It is looked at again and again, and its module is left alone.
    let looked = store.calls("C_GetSlotList");
    until("some more looks", || match store.calls("C_GetSlotList") - looked {
        0..8 => Err("a few".to_owned()),
        _ => Ok(()),
    });
    assert_eq!(store.calls("C_Initialize"), initialised + 1, "ours alone");
    assert_eq!(running.health("zsk-a").state, TokenState::Usable);
    let user = store.other_user();
    user.session.destroy_object(objects(&user)[0]).expect("destroy");
    running.until_usable("ksk-a");
    running.sign_all(&key, 1);
}
