//! What needs leave from the ledger: making keys, signing with a KSK.

use std::path::Path;

use countersign_hsm::ledger::Ledger;
use countersign_hsm::pkcs11::{ExpectedKey, HsmError};
use countersign_policy::founding::{Binding, LabFounding, TokenIdentity};
use countersign_policy::ledger::{Operation, Outcome, generation_label};
use countersign_policy::permit::NONCE_BYTES;
use countersign_policy::signing::{Denial, KeySplit, SerialPolicy};
use countersign_policy::{Algorithm, KeyRole, PublicKey, SigningPolicy, ZoneName};

use crate::bed::{Running, Store, until, verifies};

const NOW_S: u64 = 1_800_000_000;

/// A keeper's parts: ledger and tokens, one for KSKs and one for ZSKs, or two for KSKs.
struct Keeper {
    ledger: Ledger,
    running: Running,
    zone: ZoneName,
}

fn founding(stores: &[(&str, &Store)]) -> LabFounding {
    let token = |(name, store): &(&str, &Store)| {
        let group = name.split('-').next().expect("a group").to_owned();
        let (label, serial) = (store.label.clone(), store.serial.clone());
        ((*name).to_owned(), TokenIdentity { label, serial, group })
    };
    let policy = SigningPolicy {
        algorithm: Algorithm::EcdsaP256Sha256,
        rsa_bits: None,
        keys: KeySplit::KskZsk,
        ksk_group: "ksk".to_owned(),
        zsk_group: Some("zsk".to_owned()),
        denial: Denial::Nsec,
        serial: SerialPolicy::Keep,
        dnskey_ttl_s: 3600,
        ttl_max_s: 86_400,
        validity_s: 14 * 86_400,
        refresh_s: 7 * 86_400,
        inception_offset_s: 3600,
    };
    LabFounding {
        appliance: "lab-1".to_owned(),
        token: stores.iter().map(token).collect(),
        policy: [("default".to_owned(), policy)].into(),
        zone: [("example.".parse().expect("name"), Binding { policy: "default".to_owned() })]
            .into(),
    }
}

impl Keeper {
    fn start(state: &Path, stores: &[(&str, &Store)]) -> Self {
        let ledger = Ledger::open(state).expect("ledger");
        ledger.found(founding(stores), NOW_S).expect("founding");
        let spec = |(name, store): &(&str, &Store)| {
            store.spec(name, name.split('-').next().expect("a group"))
        };
        let running = Running::start(state, stores.iter().map(spec).collect(), vec![]);
        Self { ledger, running, zone: "example.".parse().expect("name") }
    }

    fn make(&self, role: KeyRole, token: &str) -> Result<PublicKey, HsmError> {
        let (zone, nonce) = (self.zone.clone(), "5a".repeat(NONCE_BYTES));
        let label = generation_label(role, &zone, &nonce);
        let operation = Operation::Generate { zone, role, token: token.to_owned(), nonce };
        let auth = self.ledger.intend(operation, 0, NOW_S).expect("leave");
        let (spent, made) = self.running.tokens.generate(auth, Algorithm::EcdsaP256Sha256, None);
        let outcome = match &made {
            Ok(public) => Outcome::Generated { public: public.clone() },
            Err(e) => Outcome::Failed { reason: e.to_string() },
        };
        self.ledger.outcome(spent, outcome, NOW_S).expect("outcome");
        let public = made?;
        let group = token.split('-').next().expect("a group").to_owned();
        let identity = public.clone().into();
        let expected =
            ExpectedKey { identity, role, label, cka_id: None, group, conflicted: false };
        self.running.tokens.expect_keys(vec![expected]);
        Ok(public)
    }

    fn sign_dnskey(
        &self,
        ksk: &PublicKey,
        zsk: &PublicKey,
    ) -> (Vec<u8>, Result<Vec<u8>, HsmError>) {
        let (inception, expiration) = (NOW_S as u32 - 3600, NOW_S as u32 + 14 * 86_400);
        let operation = Operation::SignDnskey {
            zone: self.zone.clone(),
            keys: [ksk.id(), zsk.id()].into(),
            signer: ksk.id(),
            ttl_s: 3600,
            inception,
            expiration,
        };
        let auth = self.ledger.intend(operation, 0, NOW_S).expect("leave");
        let mut message = vec![0, 48, 13, 1];
        for number in [3600, expiration, inception] {
            message.extend_from_slice(&number.to_be_bytes());
        }
        message.extend_from_slice(&ksk.tag(257).to_be_bytes());
        message.extend_from_slice(self.zone.as_wire());
        let (spent, signed) = self.running.tokens.sign_ksk(auth, &message);
        let outcome = match &signed {
            Ok(_) => Outcome::Signed { signature: "00".repeat(32) },
            Err(e) => Outcome::Failed { reason: e.to_string() },
        };
        self.ledger.outcome(spent, outcome, NOW_S).expect("outcome");
        (message, signed)
    }
}

#[test]
fn keys_are_made_and_the_ksk_used_with_leave_alone() {
    let (k, z) = (Store::new("ksk"), Store::new("zsk"));
    let state = tempfile::tempdir().expect("directory");
    let keeper = Keeper::start(state.path(), &[("ksk-a", &k), ("zsk-a", &z)]);
    let ksk = keeper.make(KeyRole::Ksk, "ksk-a").expect("KSK");
    let zsk = keeper.make(KeyRole::Zsk, "zsk-a").expect("ZSK");
    let (message, signed) = keeper.sign_dnskey(&ksk, &zsk);
    assert!(verifies(&ksk, &message, &signed.expect("a signature")));
    keeper.running.sign_all(&zsk, 10);
}

#[test]
fn leave_for_one_thing_is_none_for_another() {
    let (k, z) = (Store::new("ksk"), Store::new("zsk"));
    let state = tempfile::tempdir().expect("directory");
    let keeper = Keeper::start(state.path(), &[("ksk-a", &k), ("zsk-a", &z)]);
    let intend = || {
        let operation = Operation::Generate {
            zone: keeper.zone.clone(),
            role: KeyRole::Ksk,
            token: "ksk-a".to_owned(),
            nonce: "77".repeat(NONCE_BYTES),
        };
        keeper.ledger.intend(operation, 0, NOW_S).expect("leave")
    };
    let (spent, signed) = keeper.running.tokens.sign_ksk(intend(), &[0, 48]);
    assert!(matches!(signed, Err(HsmError::NotAuthorised(_))), "{signed:?}");
    let failed = Outcome::Failed { reason: "as it should".to_owned() };
    keeper.ledger.outcome(spent, failed, NOW_S).expect("outcome");
    let left = keeper.running.tokens.objects_labelled("ksk-a", "").expect("listing");
    assert_eq!(left, []);
}

#[test]
fn a_ksk_signature_that_does_not_verify_never_gets_out() {
    let (k, z) = (Store::new("ksk"), Store::new("zsk"));
    let state = tempfile::tempdir().expect("directory");
    let keeper = Keeper::start(state.path(), &[("ksk-a", &k), ("zsk-a", &z)]);
    let ksk = keeper.make(KeyRole::Ksk, "ksk-a").expect("KSK");
    let zsk = keeper.make(KeyRole::Zsk, "zsk-a").expect("ZSK");
    k.rules(r#"[{"call": "C_Sign", "nth": 1, "action": "wrong_signature"}]"#);
    let (_, signed) = keeper.sign_dnskey(&ksk, &zsk);
    let Err(HsmError::BadSignature { detail, .. }) = signed else { panic!("{signed:?}") };
    assert!(detail.contains("does not verify"), "{detail}");
    // The key was looked at again, proved itself, and goes on.
    until("the KSK to sign", || {
        let (message, signed) = keeper.sign_dnskey(&ksk, &zsk);
        let signature = signed.map_err(|e| e.to_string())?;
        assert!(verifies(&ksk, &message, &signature));
        Ok(())
    });
}

#[test]
fn a_token_that_is_away_makes_no_key_and_says_so() {
    let (k, z) = (Store::new("ksk"), Store::new("zsk"));
    k.rules(
        r#"[{"call": "C_OpenSession", "every": true, "action": {"return": "CKR_DEVICE_ERROR"}}]"#,
    );
    let state = tempfile::tempdir().expect("directory");
    let keeper = Keeper::start(state.path(), &[("ksk-a", &k), ("zsk-a", &z)]);
    let error = keeper.make(KeyRole::Ksk, "ksk-a").expect_err("away");
    assert!(matches!(error, HsmError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("CKR_DEVICE_ERROR"), "{error}");
}
