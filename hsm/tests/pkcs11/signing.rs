//! Signing, and which door is for which key.

use countersign_hsm::pkcs11::{ExpectedKey, HsmError};
use countersign_policy::{Algorithm, KeyRole, PublicKey};

use crate::bed::{Need, Running, Store, messages, needs, until, zsk};

#[test]
fn a_batch_is_spread_over_the_tokens_that_have_proven_the_key() {
    let a = Store::new("zsk");
    let key = a.seed("cs-1");
    let b = a.cloned();
    let state = tempfile::tempdir().expect("directory");
    let running = Running::start(
        state.path(),
        vec![a.spec("zsk-a", "zsk"), b.spec("zsk-b", "zsk")],
        vec![zsk(&key, "cs-1", "zsk")],
    );
    let status = running.tokens.key_status(&key.id()).expect("expected");
    assert_eq!(status.proven_by, ["zsk-a", "zsk-b"]);
    running.sign_all(&key, 400);
    for token in ["zsk-a", "zsk-b"] {
        let health = running.health(token);
        assert!(health.signatures > 0, "{health:?}");
        assert_eq!(health.latency_counts.iter().sum::<u64>(), health.signatures);
        assert_eq!((health.keys_proven, health.sessions), (1, 2));
    }
    assert!(running.tokens.close(std::time::Duration::from_secs(10)), "threads end");
}

#[test]
fn each_door_takes_its_own_keys_only() {
    if !needs(&[Need::ManyKeys]) {
        return;
    }
    let store = Store::new("ksk");
    let (key, other) = (store.seed("cs-1"), store.seed("cs-2"));
    let state = tempfile::tempdir().expect("directory");
    let ksk = ExpectedKey { role: KeyRole::Ksk, ..zsk(&key, "cs-1", "ksk") };
    let csk = ExpectedKey { role: KeyRole::Csk, ..zsk(&other, "cs-2", "ksk") };
    let running = Running::start(state.path(), vec![store.spec("ksk-a", "ksk")], vec![ksk, csk]);
    let refused = |key: &PublicKey, messages| {
        let answers = running.tokens.sign_zone(&key.id(), messages);
        assert!(
            answers.iter().all(|a| matches!(a, Err(HsmError::NotAuthorised(_)))),
            "{answers:?}"
        );
    };
    refused(&key, messages(2));
    for covered in [48u16, 59, 60, 62] {
        let message = [&covered.to_be_bytes()[..], &[13; 40]].concat();
        refused(&other, vec![message]);
    }
    running.sign_all(&other, 3);
}

#[test]
fn a_key_that_is_not_expected_or_not_there_is_refused() {
    let store = Store::new("zsk");
    let key = store.seed("cs-1");
    let elsewhere = Store::new("elsewhere").seed("cs-2");
    let state = tempfile::tempdir().expect("directory");
    let expected = vec![zsk(&elsewhere, "cs-2", "zsk")];
    let running = Running::start(state.path(), vec![store.spec("zsk-a", "zsk")], expected);
    let sign = |key: &PublicKey| running.tokens.sign_zone(&key.id(), messages(1)).remove(0);
    assert_eq!(sign(&key), Err(HsmError::UnknownKey(key.id())));
    let error = sign(&elsewhere).expect_err("not there");
    assert!(error.to_string().contains("is usable, without the key"), "{error}");
}

#[test]
fn a_key_put_there_while_we_run_is_found() {
    let store = Store::new("zsk");
    let state = tempfile::tempdir().expect("directory");
    let running = Running::start(state.path(), vec![store.spec("zsk-a", "zsk")], vec![]);
    let key = store.seed("cs-late");
    running.tokens.expect_keys(vec![zsk(&key, "cs-late", "zsk")]);
    until("the key to be found", || {
        running.tokens.sign_zone(&key.id(), messages(1)).remove(0).map_err(|e| e.to_string())
    });
}

#[test]
fn softhsm_supports_all_four_algorithms_and_says_what_it_does_not() {
    if !needs(&[Need::Ed25519]) {
        return;
    }
    let store = Store::new("zsk");
    let state = tempfile::tempdir().expect("directory");
    let running = Running::start(state.path(), vec![store.spec("zsk-a", "zsk")], vec![]);
    for algorithm in [
        Algorithm::RsaSha256,
        Algorithm::EcdsaP256Sha256,
        Algorithm::EcdsaP384Sha384,
        Algorithm::Ed25519,
    ] {
        running.tokens.supports("zsk", algorithm, Some(2048)).expect("supported");
    }
    let error = running.tokens.supports("zsk", Algorithm::RsaSha256, Some(20_000));
    assert!(matches!(error, Err(HsmError::Unsupported { .. })), "{error:?}");
}
