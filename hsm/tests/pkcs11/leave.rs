//! What needs leave from the ledger: making keys, signing with a KSK.

use std::path::Path;

use countersign_hsm::ledger::{Authorised, FILE_NAME, Ledger};
use countersign_hsm::pkcs11::{ExpectedKey, HsmError};
use countersign_policy::founding::TokenIdentity;
use countersign_policy::ledger::{Operation, Outcome, generation_label};
use countersign_policy::motion::Motion;
use countersign_policy::statement::NONCE_BYTES;
use countersign_policy::testing::{NOW, World, made_key, team, zone};
use countersign_policy::{Algorithm, KeyRole, PublicKey};

use crate::bed::{Need, Running, Store, needs, until, verifies};

/// A keeper's parts: a ledger in which a KSK was approved, and tokens, one for KSKs and one for ZSKs.
struct Keeper {
    ledger: Ledger,
    running: Running,
}

fn group(name: &str) -> String {
    name.split('-').next().expect("a group").to_owned()
}

/// An appliance with these tokens, to which the zone is bound.
fn world(stores: &[(&str, &Store)]) -> World {
    let token = |(name, store): &(&str, &Store)| {
        let (label, serial) = (store.label.clone(), store.serial.clone());
        let identity = TokenIdentity { label, serial, group: group(name), data_objects: true };
        ((*name).to_owned(), identity)
    };
    let mut world = World::founded_by(team(), |founding| {
        founding.tokens = stores.iter().map(token).collect();
    });
    world.bind_zone();
    world
}

fn generate_ksk(activate: bool) -> Motion {
    Motion::GenerateKey { zones: [zone()].into(), role: KeyRole::Ksk, activate }
}

impl Keeper {
    fn start(state: &Path, stores: &[(&str, &Store)]) -> Self {
        let mut world = world(stores);
        world.carry(generate_ksk(true));
        Self::start_in(&world, state, stores)
    }

    fn start_in(world: &World, state: &Path, stores: &[(&str, &Store)]) -> Self {
        let lines = world.lines.iter().map(|line| [&line.to_canonical()[..], b"\n"].concat());
        let lines: Vec<Vec<u8>> = lines.collect();
        std::fs::write(state.join(FILE_NAME), lines.concat()).expect("ledger");
        let ledger = Ledger::open(state).expect("ledger");
        let spec = |(name, store): &(&str, &Store)| store.spec(name, &group(name));
        let running = Running::start(state, stores.iter().map(spec).collect(), vec![]);
        Self { ledger, running }
    }

    fn intend(&self, operation: Operation) -> Authorised {
        let under = self.ledger.read(|state| state.standing(&operation, NOW)).expect("leave");
        self.ledger.intend(operation, under, || NOW).expect("an intent")
    }

    fn make(&self, role: KeyRole, token: &str) -> Result<PublicKey, HsmError> {
        let nonce = "5a".repeat(NONCE_BYTES);
        let label = generation_label(role, &zone(), &nonce);
        let operation = Operation::Generate { zone: zone(), role, token: token.to_owned(), nonce };
        let auth = self.intend(operation);
        let (spent, made) = self.running.tokens.generate(auth, Algorithm::EcdsaP256Sha256, None);
        let outcome = match &made {
            Ok(public) => Outcome::Generated { made: made_key(public, role, true) },
            Err(e) => Outcome::Failed { reason: e.to_string() },
        };
        self.ledger.outcome(spent, outcome, NOW).expect("outcome");
        let public = made?;
        let identity = public.clone().into();
        let group = group(token);
        let expected =
            ExpectedKey { identity, role, label, cka_id: None, group, conflicted: false };
        self.running.tokens.expect_keys(vec![expected]);
        Ok(public)
    }

    fn sign_dnskey(&self, ksk: &PublicKey) -> (Vec<u8>, Result<Vec<u8>, HsmError>) {
        let (inception, expiration) = (NOW as u32 - 3600, NOW as u32 + 14 * 86_400);
        let set = self.ledger.read(|state| state.dnskey_set(&zone(), NOW)).expect("a set");
        let auth = self.intend(Operation::SignDnskey {
            zone: zone(),
            keys: set.keys,
            signer: ksk.id(),
            ttl_s: 3600,
            inception,
            expiration,
        });
        let mut message = vec![0, 48, 13, 1];
        for number in [3600, expiration, inception] {
            message.extend_from_slice(&number.to_be_bytes());
        }
        message.extend_from_slice(&ksk.tag(257).to_be_bytes());
        message.extend_from_slice(zone().as_wire());
        let (spent, signed) = self.running.tokens.sign_ksk(auth, &message);
        let outcome = match &signed {
            Ok(_) => Outcome::Signed { signature: "00".repeat(32) },
            Err(e) => Outcome::Failed { reason: e.to_string() },
        };
        self.ledger.outcome(spent, outcome, NOW).expect("outcome");
        (message, signed)
    }
}

#[test]
fn keys_are_made_and_the_ksk_used_with_leave_alone() {
    if !needs(&[Need::Making]) {
        return;
    }
    let (k, z) = (Store::new("ksk"), Store::new("zsk"));
    let state = tempfile::tempdir().expect("directory");
    let keeper = Keeper::start(state.path(), &[("ksk-a", &k), ("zsk-a", &z)]);
    let ksk = keeper.make(KeyRole::Ksk, "ksk-a").expect("KSK");
    let zsk = keeper.make(KeyRole::Zsk, "zsk-a").expect("ZSK");
    let (message, signed) = keeper.sign_dnskey(&ksk);
    assert!(verifies(&ksk, &message, &signed.expect("a signature")));
    keeper.running.sign_all(&zsk, 10);
}

#[test]
fn leave_for_one_thing_is_none_for_another() {
    let (k, z) = (Store::new("ksk"), Store::new("zsk"));
    let state = tempfile::tempdir().expect("directory");
    let keeper = Keeper::start(state.path(), &[("ksk-a", &k), ("zsk-a", &z)]);
    let auth = keeper.intend(Operation::Generate {
        zone: zone(),
        role: KeyRole::Ksk,
        token: "ksk-a".to_owned(),
        nonce: "77".repeat(NONCE_BYTES),
    });
    let (spent, signed) = keeper.running.tokens.sign_ksk(auth, &[0, 48]);
    assert!(matches!(signed, Err(HsmError::NotAuthorised(_))), "{signed:?}");
    let failed = Outcome::Failed { reason: "as it should".to_owned() };
    keeper.ledger.outcome(spent, failed, NOW).expect("outcome");
    let left = keeper.running.tokens.objects_labelled("ksk-a", "").expect("listing");
    assert_eq!(left, []);
}

#[test]
fn a_ksk_signature_that_does_not_verify_never_gets_out() {
    if !needs(&[Need::Making]) {
        return;
    }
    let (k, z) = (Store::new("ksk"), Store::new("zsk"));
    let state = tempfile::tempdir().expect("directory");
    let keeper = Keeper::start(state.path(), &[("ksk-a", &k), ("zsk-a", &z)]);
    let ksk = keeper.make(KeyRole::Ksk, "ksk-a").expect("KSK");
    keeper.make(KeyRole::Zsk, "zsk-a").expect("ZSK");
    k.rules(r#"[{"call": "C_Sign", "nth": 1, "action": "wrong_answer"}]"#);
    let (_, signed) = keeper.sign_dnskey(&ksk);
    let Err(HsmError::BadSignature { detail, .. }) = signed else { panic!("{signed:?}") };
    assert!(detail.contains("does not verify"), "{detail}");
    // The key was looked at again, proved itself, and goes on.
    until("the KSK to sign", || {
        let (message, signed) = keeper.sign_dnskey(&ksk);
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

#[test]
fn a_destroyed_key_takes_none_of_its_namesakes_along() {
    if !needs(&[Need::ManyKeys]) {
        return;
    }
    let (k, z) = (Store::new("ksk"), Store::new("zsk"));
    let stores = [("ksk-a", &k), ("zsk-a", &z)];
    let mut world = world(&stores);
    world.carry(generate_ksk(false));
    let operation = world.generate(KeyRole::Ksk);
    let Operation::Generate { nonce, .. } = &operation else { panic!("{operation:?}") };
    let label = generation_label(KeyRole::Ksk, &zone(), nonce);
    let key = k.seed(&label);
    world.make(operation, &key, false);
    world.carry(Motion::DestroyKey { zone: zone(), key: key.id() });
    let user = k.other_user();
    user.make_p256(&label);
    assert_eq!(user.labelled(&label).len(), 4);

    let state = tempfile::tempdir().expect("directory");
    let keeper = Keeper::start_in(&world, state.path(), &stores);
    let auth = keeper.intend(Operation::Destroy {
        zone: zone(),
        token: "ksk-a".to_owned(),
        label: label.clone(),
        key: Some(key.id()),
    });
    let (spent, destroyed) = keeper.running.tokens.destroy(auth);
    assert_eq!(destroyed, Ok(()));
    keeper.ledger.outcome(spent, Outcome::Destroyed, NOW).expect("outcome");
    assert_eq!(user.labelled(&label).len(), 2, "the other pair is still there");
    let left = keeper.running.tokens.find_by_key("ksk-a", &key.id());
    assert_eq!(left, Ok(None));
}
