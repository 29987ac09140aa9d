//! Tests of what needs leave from the ledger, on SoftHSM: making and destroying keys, and what a
//! KSK signs. They are here because outside this crate nobody can do without that leave.

use std::time::Duration;

use countersign_policy::key::to_hex;
use countersign_policy::ledger::{CdsType, Operation};
use countersign_policy::{Algorithm, KeyRole, PublicKey, ZoneName};
use cryptoki::object::{Attribute, AttributeType};

use super::{HsmError, TokenSpec};
use bed::{Need, Running, Store, needs, zsk};

#[path = "../../tests/pkcs11/bed.rs"]
#[expect(dead_code, reason = "what the other tests use of it")]
pub(super) mod bed;

const LABEL: &str = "cs-00112233-zsk-example.";

fn start(spec: TokenSpec) -> (tempfile::TempDir, Running) {
    let state = tempfile::tempdir().expect("directory");
    let running = Running::start(state.path(), vec![spec], vec![]);
    (state, running)
}

fn make(running: &Running) -> Result<PublicKey, HsmError> {
    running.tokens.make("zsk-a", LABEL.to_owned(), Algorithm::EcdsaP256Sha256, 2048)
}

fn assert_nothing_left(running: &Running) {
    let left = running.tokens.objects_labelled("zsk-a", "cs-").expect("listing");
    assert_eq!(left, []);
}

#[test]
fn all_four_algorithms_are_made_proven_used_and_destroyed() {
    if !needs(&[Need::Making, Need::Ed25519, Need::ManyKeys]) {
        return;
    }
    let store = Store::new("zsk");
    let (_state, running) = start(store.spec("zsk-a", "zsk"));
    for (algorithm, bits, len) in [
        (Algorithm::RsaSha256, 2048, 256),
        (Algorithm::RsaSha256, 3072, 384),
        (Algorithm::EcdsaP256Sha256, 0, 64),
        (Algorithm::EcdsaP384Sha384, 0, 96),
        (Algorithm::Ed25519, 0, 64),
    ] {
        let made = running.tokens.make("zsk-a", LABEL.to_owned(), algorithm, bits);
        let key = made.expect("a key");
        assert_eq!(key.algorithm(), algorithm);
        let objects = running.tokens.objects_labelled("zsk-a", LABEL).expect("listing");
        assert_eq!(objects.len(), 2);
        assert!(objects.iter().all(|object| object.id == key.id().0), "{objects:?}");
        assert!(objects.iter().any(|object| object.public.as_ref() == Some(&key)));

        running.tokens.expect_keys(vec![zsk(&key, LABEL, "zsk")]);
        let status = running.tokens.key_status(&key.id()).expect("expected");
        assert_eq!(status.proven_by, ["zsk-a"]);
        running.sign_all(&key, 5);
        let signature = running.tokens.sign_zone(&key.id(), bed::messages(1)).remove(0);
        assert_eq!(signature.map(|s| s.len()), Ok(len));

        running.tokens.unmake("zsk-a", LABEL.to_owned()).expect("destroyed");
        let status = running.tokens.key_status(&key.id()).expect("expected");
        assert!(status.proven_by.is_empty(), "what is destroyed is not proven");
        running.tokens.forget_key(&key.id());
        assert_nothing_left(&running);
    }
}

#[test]
fn a_made_key_never_leaves_the_token_and_only_signs() {
    if !needs(&[Need::Making]) {
        return;
    }
    let store = Store::new("zsk");
    let (_state, running) = start(store.spec("zsk-a", "zsk"));
    make(&running).expect("a key");
    let user = store.other_user();
    let private = user.labelled(LABEL)[0];
    for (kind, expected) in [
        (AttributeType::Sensitive, Attribute::Sensitive(true)),
        (AttributeType::AlwaysSensitive, Attribute::AlwaysSensitive(true)),
        (AttributeType::Extractable, Attribute::Extractable(false)),
        (AttributeType::NeverExtractable, Attribute::NeverExtractable(true)),
        (AttributeType::Local, Attribute::Local(true)),
        (AttributeType::Token, Attribute::Token(true)),
        (AttributeType::Sign, Attribute::Sign(true)),
        (AttributeType::Decrypt, Attribute::Decrypt(false)),
        (AttributeType::Unwrap, Attribute::Unwrap(false)),
        (AttributeType::Derive, Attribute::Derive(false)),
    ] {
        let found = user.session.get_attributes(private, &[kind]).expect("attribute");
        assert_eq!(found, [expected]);
    }
    let value = user.session.get_attributes(private, &[AttributeType::Value]).expect("answer");
    assert_eq!(value, [], "the private value can't be read");
}

#[test]
fn a_full_token_leaves_nothing_behind() {
    if !needs(&[Need::Making, Need::ManyKeys]) {
        return;
    }
    let store = Store::new("zsk");
    let (_state, running) = start(store.spec("zsk-a", "zsk"));
    for (call, code) in [
        ("C_GenerateKeyPair", "CKR_DEVICE_MEMORY"),
        // Half-way: the pair is made, and then can't be named, or read, or used.
        ("C_SetAttributeValue", "CKR_DEVICE_MEMORY"),
        ("C_SignInit", "CKR_MECHANISM_INVALID"),
    ] {
        let action = format!(r#"{{"return": "{code}"}}"#);
        store.rules(&format!(r#"[{{"call": "{call}", "every": true, "action": {action}}}]"#));
        let error = make(&running).expect_err("full");
        assert!(
            matches!(&error, HsmError::Token { detail, .. } if detail.contains(code)),
            "{error}"
        );
        store.rules("[]");
        assert_nothing_left(&running);
    }
    make(&running).expect("room again");
    let error = make(&running).expect_err("the label is taken");
    assert!(error.to_string().contains("already"), "{error}");
}

#[test]
fn a_pair_that_was_made_and_denied_is_cleaned_up() {
    if !needs(&[Need::Making, Need::ManyKeys]) {
        return;
    }
    let store = Store::new("zsk");
    let (_state, running) = start(store.spec("zsk-a", "zsk"));
    store.rules(
        r#"[{"call": "C_GenerateKeyPair", "every": true,
             "action": {"late_return": "CKR_FUNCTION_FAILED"}}]"#,
    );
    let error = make(&running).expect_err("denied");
    assert!(matches!(error, HsmError::Token { .. }), "nothing is left, and it is known: {error}");
    store.rules("[]");
    running.until_usable("zsk-a");
    assert_nothing_left(&running);
}

#[test]
fn a_device_lost_in_making_leaves_the_outcome_open() {
    if !needs(&[Need::Making]) {
        return;
    }
    let store = Store::new("zsk");
    let (_state, running) = start(store.spec("zsk-a", "zsk"));
    store.rules(
        r#"[{"call": "C_SetAttributeValue", "every": true, "action": {"return": "CKR_DEVICE_REMOVED"}},
            {"call": "C_DestroyObject", "every": true, "action": {"return": "CKR_DEVICE_REMOVED"}}]"#,
    );
    let error = make(&running).expect_err("lost");
    assert!(matches!(error, HsmError::OutcomeUnknown { .. }), "{error}");
    store.rules("[]");
    running.until_usable("zsk-a");
    // What is left is found by its label, and goes.
    let left = running.tokens.objects_labelled("zsk-a", LABEL).expect("listing");
    assert_eq!(left.len(), 2, "{:?}", left.iter().map(|o| to_hex(&o.id)).collect::<Vec<_>>());
    running.tokens.unmake("zsk-a", LABEL.to_owned()).expect("destroyed");
    assert_nothing_left(&running);
}

#[test]
fn a_hang_in_making_leaves_the_outcome_open() {
    if !needs(&[Need::Making]) {
        return;
    }
    let store = Store::new("zsk");
    let mut spec = store.spec("zsk-a", "zsk");
    spec.deadline = Duration::from_millis(100);
    let (_state, running) = start(spec);
    store.rules(r#"[{"call": "C_GenerateKeyPair", "every": true, "action": "hang"}]"#);
    let error = make(&running).expect_err("hangs");
    let HsmError::OutcomeUnknown { detail, .. } = &error else { panic!("{error}") };
    assert!(detail.contains("hung in C_GenerateKeyPair"), "{detail}");
}

#[test]
fn an_intents_key_signs_the_intents_bytes_and_no_others() {
    if !needs(&[Need::Making]) {
        return;
    }
    let store = Store::new("zsk");
    let key = store.seed(LABEL);
    let (_state, running) = start(store.spec("zsk-a", "zsk"));
    let expected = |role| super::ExpectedKey { role, ..zsk(&key, LABEL, "zsk") };
    running.tokens.expect_keys(vec![expected(KeyRole::Ksk)]);
    let zone: ZoneName = "sub.example.".parse().expect("name");
    let (signer, ttl_s, inception, expiration) = (key.id(), 3600, 1, 2);
    let of_cds = |rrset| Operation::SignCds {
        zone: zone.clone(),
        rrset,
        signer,
        ttl_s,
        inception,
        expiration,
    };
    let of_dnskey = Operation::SignDnskey {
        zone: zone.clone(),
        keys: [key.id()].into(),
        signer,
        ttl_s,
        inception,
        expiration,
    };
    let bytes = |covered: u16, labels: u8, ttl: u32, times: [u32; 2], name: &[u8]| {
        let mut message = covered.to_be_bytes().to_vec();
        message.extend_from_slice(&[13, labels]);
        for number in [ttl, times[1], times[0]] {
            message.extend_from_slice(&number.to_be_bytes());
        }
        message.extend_from_slice(&key.tag(257).to_be_bytes());
        [&message, name, b"and the records"].concat()
    };
    let name = b"\x03sub\x07example\x00";
    let all = [(48, of_dnskey), (59, of_cds(CdsType::Cds)), (60, of_cds(CdsType::Cdnskey))];
    for (covered, operation) in &all {
        let right = bytes(*covered, 2, ttl_s, [inception, expiration], name);
        assert!(running.tokens.check_ksk(operation, &right).is_ok(), "{operation:?}");
        let others = [48, 59, 60, 1].into_iter().filter(|other| other != covered);
        let mut wrong: Vec<Vec<u8>> =
            others.map(|other| bytes(other, 2, ttl_s, [inception, expiration], name)).collect();
        wrong.push(bytes(*covered, 1, ttl_s, [inception, expiration], name));
        wrong.push(bytes(*covered, 2, ttl_s + 1, [inception, expiration], name));
        wrong.push(bytes(*covered, 2, ttl_s, [inception, expiration + 1], name));
        wrong.push(bytes(*covered, 2, ttl_s, [inception + 1, expiration], name));
        wrong.push(bytes(*covered, 2, ttl_s, [inception, expiration], b"\x03sub\x07another\x00"));
        wrong.push(right[..20].to_vec());
        wrong.push(Vec::new());
        for message in wrong {
            let refused = running.tokens.check_ksk(operation, &message);
            assert!(matches!(refused, Err(HsmError::NotAuthorised(_))), "{message:?}");
        }
    }
    let other = Operation::Destroy {
        zone,
        token: "zsk-a".to_owned(),
        label: LABEL.to_owned(),
        key: Some(key.id()),
    };
    let right = bytes(48, 2, ttl_s, [inception, expiration], name);
    let refused = running.tokens.check_ksk(&other, &right);
    assert!(matches!(refused, Err(HsmError::NotAuthorised(_))), "{refused:?}");
    // A ZSK signs none of the three, whatever the intent says: not under its own tag either.
    running.tokens.forget_key(&key.id());
    running.tokens.expect_keys(vec![expected(KeyRole::Zsk)]);
    let mut of_zsk = right;
    of_zsk[16..18].copy_from_slice(&key.tag(256).to_be_bytes());
    let refused = running.tokens.check_ksk(&all[0].1, &of_zsk);
    assert!(matches!(refused, Err(HsmError::NotAuthorised(_))), "{refused:?}");
}
