//! Logins: no restart loop locks a token.

use std::process::Command;
use std::time::Duration;

use countersign_hsm::protocol::TokenState;

use crate::bed::{PIN, Running, Store};

fn start(store: &Store, state: &std::path::Path) -> Running {
    Running::start(state, vec![store.spec("zsk-a", "zsk")], vec![])
}

#[test]
fn a_wrong_pin_is_tried_once_whatever_restarts() {
    let store = Store::new("zsk");
    store.write_pin("not it");
    let state = tempfile::tempdir().expect("directory");
    for _restart in 0..4 {
        let running = start(&store, state.path());
        running.until_unusable("zsk-a", "hint: put the right PIN into");
        assert_eq!(store.calls("C_Login"), 1);
        assert!(running.tokens.close(Duration::from_secs(10)));
    }
    let running = start(&store, state.path());
    store.write_pin(PIN);
    running.until_usable("zsk-a");
    assert_eq!(store.calls("C_Login"), 2);
}

#[test]
fn a_locked_pin_waits_for_another_file() {
    let store = Store::new("zsk");
    store.rules(r#"[{"call": "C_Login", "every": true, "action": {"return": "CKR_PIN_LOCKED"}}]"#);
    let state = tempfile::tempdir().expect("directory");
    for _restart in 0..2 {
        let running = start(&store, state.path());
        running.until_unusable("zsk-a", "refused");
        assert!(running.tokens.close(Duration::from_secs(10)));
    }
    assert_eq!(store.calls("C_Login"), 1);
    store.rules("[]");
    store.write_pin(PIN);
    start(&store, state.path()).until_usable("zsk-a");
}

#[test]
fn a_pin_that_is_right_is_tried_at_every_start() {
    let store = Store::new("zsk");
    let state = tempfile::tempdir().expect("directory");
    for logins in 1..=3 {
        let running = start(&store, state.path());
        assert_eq!(running.health("zsk-a").state, TokenState::Usable);
        assert!(running.tokens.close(Duration::from_secs(10)));
        assert_eq!(store.calls("C_Login"), logins);
    }
}

#[test]
fn a_pin_not_initialised_yet_is_asked_again() {
    // What a second process sees while a first one is creating objects (SoftHSM 2.6.1).
    let store = Store::new("zsk");
    let code = r#"{"return": "CKR_USER_PIN_NOT_INITIALIZED"}"#;
    store.rules(&format!(r#"[{{"call": "C_Login", "nth": 1, "action": {code}}}]"#));
    let state = tempfile::tempdir().expect("directory");
    start(&store, state.path()).until_usable("zsk-a");
}

#[test]
fn a_pin_file_that_others_can_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let store = Store::new("zsk");
    let open = std::fs::Permissions::from_mode(0o444);
    std::fs::set_permissions(store.path("pin"), open).expect("mode");
    let state = tempfile::tempdir().expect("directory");
    let running = start(&store, state.path());
    running.until_unusable("zsk-a", "has mode 0444");
    assert_eq!(store.calls("C_Login"), 0);
    store.write_pin(PIN);
    running.until_usable("zsk-a");
}

const CHILD_STORE: &str = "PKCS11_TEST_STORE";

/// Not a test by itself: the process that [`a_login_cut_off_is_tried_once_more`] has killed.
#[test]
fn child_that_logs_in() {
    let Ok(settings) = std::env::var(CHILD_STORE) else { return };
    let fields: Vec<&str> = settings.split('\n').collect();
    let [module, pin, label, serial, state] = fields.as_slice() else { panic!("{fields:?}") };
    let spec = countersign_hsm::pkcs11::TokenSpec {
        name: "zsk-a".to_owned(),
        group: "zsk".to_owned(),
        label: (*label).to_owned(),
        serial: (*serial).to_owned(),
        module: module.into(),
        pin: countersign_hsm::pkcs11::PinSource::File(pin.into()),
        workers: 1,
        queue_max: 1,
        deadline: Duration::from_secs(5),
    };
    let running = Running::start(state.as_ref(), vec![spec], vec![]);
    eprintln!("{:?}", running.health("zsk-a").state);
}

fn child(store: &Store, state: &std::path::Path) -> String {
    let settings = [
        &store.path("shim.so").display().to_string(),
        &store.path("pin").display().to_string(),
        &store.label,
        &store.serial,
        &state.display().to_string(),
    ]
    .map(String::as_str)
    .join("\n");
    let output = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "logins::child_that_logs_in", "--nocapture"])
        .env(CHILD_STORE, settings)
        .output()
        .expect("child");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_login_cut_off_is_tried_once_more() {
    let store = Store::new("zsk");
    store.rules(r#"[{"call": "C_Login", "every": true, "action": "crash"}]"#);
    let state = tempfile::tempdir().expect("directory");
    child(&store, state.path());
    child(&store, state.path());
    assert_eq!(store.calls("C_Login"), 2, "once, and once more");
    for _restart in 0..3 {
        let told = child(&store, state.path());
        assert!(told.contains("two logins were cut off"), "{told}");
    }
    assert_eq!(store.calls("C_Login"), 2, "and never again");
    store.rules("[]");
    store.write_pin(PIN);
    start(&store, state.path()).until_usable("zsk-a");
}

#[test]
fn one_login_cut_off_heals_by_itself() {
    let store = Store::new("zsk");
    store.rules(r#"[{"call": "C_Login", "every": true, "action": "crash"}]"#);
    let state = tempfile::tempdir().expect("directory");
    child(&store, state.path());
    store.rules("[]");
    start(&store, state.path()).until_usable("zsk-a");
}
