//! The key maker against a token that is a table, and that fails where a test says.

use std::collections::BTreeSet;
use std::sync::Mutex;

use countersign_policy::ledger::{Entry, Line};

use super::*;
use crate::keeper::founding;
use crate::ledger::{Authorised, Spent};
use crate::pkcs11::KeyStatus;
use crate::protocol::TokenHealth;

#[derive(Default)]
struct Table {
    /// Label → public key; `None` where only half of the pair is there.
    objects: BTreeMap<String, Option<PublicKey>>,
    expected: BTreeSet<KeyId>,
    /// The keys that it makes, the first last; then it is full.
    next: Vec<[u8; 64]>,
    /// The answer to the next generation is lost, after or before it was done.
    lose_answer: Option<bool>,
    proves: bool,
    away: bool,
    supports: bool,
}

struct Fake(Mutex<Table>);

impl Fake {
    fn new(next: &[[u8; 64]]) -> Self {
        let next = next.iter().rev().copied().collect();
        Self(Mutex::new(Table { next, proves: true, supports: true, ..Table::default() }))
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0.lock().expect("table")
    }
}

fn away() -> HsmError {
    HsmError::Unavailable("away".to_owned())
}

fn lost(token: &str) -> HsmError {
    HsmError::OutcomeUnknown { token: token.to_owned(), detail: "lost".to_owned() }
}

impl Hsm for Fake {
    fn supports(&self, _: &str, algorithm: Algorithm, _: Option<u16>) -> Result<(), HsmError> {
        if self.table().supports {
            return Ok(());
        }
        let (token, missing) = ("zsk-a".to_owned(), "CKM_ECDSA".to_owned());
        Err(HsmError::Unsupported { token, algorithm, missing })
    }

    fn generate(
        &self,
        auth: Authorised,
        algorithm: Algorithm,
        _: Option<u16>,
    ) -> (Spent, Result<PublicKey, HsmError>) {
        let Operation::Generate { zone, role, nonce, token } = auth.operation().clone() else {
            panic!("{auth:?}")
        };
        let spent = auth.spend();
        let mut table = self.table();
        if table.lose_answer == Some(false) {
            table.lose_answer = None;
            return (spent, Err(lost(&token)));
        }
        let Some(octets) = table.next.pop() else {
            let detail = "CKR_DEVICE_MEMORY".to_owned();
            return (spent, Err(HsmError::Token { token, detail }));
        };
        let public = PublicKey::new(algorithm, &octets).expect("key");
        table.objects.insert(generation_label(role, &zone, &nonce), Some(public.clone()));
        let answer =
            if table.lose_answer.take().is_some() { Err(lost(&token)) } else { Ok(public) };
        (spent, answer)
    }

    fn destroy(&self, auth: Authorised) -> (Spent, Result<(), HsmError>) {
        let Operation::Destroy { label, .. } = auth.operation().clone() else { panic!("{auth:?}") };
        assert!(self.table().objects.remove(&label).is_some(), "{label}");
        (auth.spend(), Ok(()))
    }

    fn objects_labelled(&self, _: &str, prefix: &str) -> Result<Vec<FoundObject>, HsmError> {
        let table = self.table();
        if table.away {
            return Err(away());
        }
        let object = |label: &String, private, public: &Option<PublicKey>| FoundObject {
            label: label.clone(),
            id: Vec::new(),
            private,
            public: public.clone(),
        };
        let of_label = |(label, public): (&String, &Option<PublicKey>)| {
            let half = public.as_ref().map(|_| object(label, false, public));
            [Some(object(label, true, &None)), half]
        };
        let found = table.objects.iter().filter(|(label, _)| label.starts_with(prefix));
        Ok(found.flat_map(of_label).flatten().collect())
    }

    fn expect_keys(&self, keys: Vec<ExpectedKey>) {
        self.table().expected.extend(keys.iter().map(|key| key.public.id()));
    }

    fn forget_key(&self, key: &KeyId) {
        self.table().expected.remove(key);
    }

    fn key_status(&self, key: &KeyId) -> Option<KeyStatus> {
        let table = self.table();
        let proven_by =
            if table.proves { vec!["ksk-a".to_owned(), "zsk-a".to_owned()] } else { Vec::new() };
        table.expected.contains(key).then_some(KeyStatus { proven_by, conflict: None })
    }

    fn sign_zone(&self, _: &KeyId, messages: Vec<Vec<u8>>) -> Vec<Result<Vec<u8>, HsmError>> {
        messages.iter().map(|_| Err(away())).collect()
    }

    fn sign_ksk(&self, auth: Authorised, _: &[u8]) -> (Spent, Result<Vec<u8>, HsmError>) {
        (auth.spend(), Err(away()))
    }

    fn health(&self) -> Vec<TokenHealth> {
        let state = if self.table().away {
            TokenState::Unusable("away".to_owned())
        } else {
            TokenState::Usable
        };
        let token = |group: &str| TokenHealth {
            name: format!("{group}-a"),
            group: group.to_owned(),
            label: group.to_owned(),
            serial: "1".to_owned(),
            state: state.clone(),
            sessions: 1,
            keys_proven: 0,
            queued: 0,
            signatures: 0,
            failures: 0,
            latency_counts: Vec::new(),
            latency_sum_us: 0,
        };
        vec![token("ksk"), token("zsk")]
    }
}

struct Scene {
    hsm: Fake,
    ledger: Ledger,
    dir: tempfile::TempDir,
}

fn now_s() -> u64 {
    1_800_000_000
}

fn zone() -> ZoneName {
    "example.".parse().expect("name")
}

impl Scene {
    fn new(next: &[[u8; 64]]) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let ledger = Ledger::open(dir.path()).expect("opens");
        let founding = toml::from_str(founding::tests::WHOLE).expect("founding");
        ledger.found(founding, 1).expect("founded");
        Self { hsm: Fake::new(next), ledger, dir }
    }

    fn round(&self) -> Vec<Unfinished> {
        KeyMaker::new(&self.ledger, &self.hsm, now_s).round()
    }

    /// Rounds until nothing is left, then: two keys, no open intent, no object without a key.
    fn settles(&self, rounds_max: usize) {
        let done = (0..rounds_max).any(|_| self.round().is_empty());
        assert!(done, "{:?}", self.round());
        let labels: BTreeSet<String> = self.ledger.read(|state| {
            assert_eq!(state.open_intents().count(), 0);
            assert_eq!(state.dnskeys_of(&zone()).count(), 2);
            assert_eq!(state.keys_of(&zone()).count(), 2);
            state.keys().values().map(|key| key.label.clone()).collect()
        });
        let table = self.hsm.table();
        assert_eq!(table.objects.keys().cloned().collect::<BTreeSet<_>>(), labels);
        assert_eq!(table.expected.len(), 2);
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("ledger.jsonl")).expect("ledger")
    }
}

#[test]
fn a_zone_gets_a_key_of_each_role_once() {
    let scene = Scene::new(&[[1; 64], [4; 64]]);
    scene.settles(1);
    let lines = scene.ledger.head().0;
    assert!(scene.round().is_empty());
    assert_eq!(scene.ledger.head().0, lines, "a round without work leaves no line");
}

#[test]
fn a_lost_answer_makes_no_second_key() {
    for was_done in [true, false] {
        let scene = Scene::new(&[[1; 64], [4; 64], [9; 64]]);
        scene.hsm.table().lose_answer = Some(was_done);
        assert_eq!(scene.round().len(), 1);
        scene.settles(2);
        assert_eq!(scene.hsm.table().next.len(), 1, "was done: {was_done}");
    }
}

#[test]
fn what_is_found_but_not_proven_or_not_whole_is_destroyed() {
    let spoil: [fn(&mut Table); 2] = [
        |table| table.proves = false,
        |table| table.objects.values_mut().for_each(|public| *public = None),
    ];
    for spoil in spoil {
        let scene = Scene::new(&[[1; 64], [4; 64], [9; 64]]);
        // Only the KSK is made, and its answer is lost.
        scene.hsm.table().lose_answer = Some(true);
        let zsk_too = scene.round();
        assert_eq!(zsk_too.len(), 1, "{zsk_too:?}");
        let open = scene.ledger.read(|state| {
            state.open_intents().map(|(_, operation)| operation.clone()).collect::<Vec<_>>()
        });
        let [Operation::Generate { role, nonce, .. }] = &open[..] else { panic!("{open:?}") };
        let label = generation_label(*role, &zone(), nonce);
        let mut table = scene.hsm.table();
        let kept: BTreeMap<_, _> = table
            .objects
            .iter()
            .filter(|(l, _)| **l != label)
            .map(|(l, p)| (l.clone(), p.clone()))
            .collect();
        table.objects.retain(|l, _| *l == label);
        spoil(&mut table);
        table.objects.extend(kept);
        drop(table);
        scene.round();
        assert!(!scene.hsm.table().objects.contains_key(&label));
        assert!(scene.text().contains("what was there is destroyed"));
        scene.hsm.table().proves = true;
        scene.settles(2);
    }
}

#[test]
fn a_key_whose_tag_collides_is_replaced_before_anyone_sees_it() {
    let mut collides = [1; 64];
    // The ZSK's flags are one less than the KSK's, so its key field adds one more.
    collides[1] = 2;
    let scene = Scene::new(&[[1; 64], collides, [4; 64]]);
    let unfinished = scene.round();
    assert!(unfinished[0].why.contains("collided"), "{unfinished:?}");
    scene.settles(1);
}

#[test]
fn a_token_that_repeats_itself_is_found_out() {
    let scene = Scene::new(&[[1; 64], [1; 64], [4; 64]]);
    let unfinished = scene.round();
    assert!(unfinished[0].why.contains("made twice"), "{unfinished:?}");
    scene.settles(2);
}

#[test]
fn nothing_is_begun_where_a_token_is_away_or_can_not() {
    let scene = Scene::new(&[[1; 64], [4; 64]]);
    scene.hsm.table().away = true;
    assert!(scene.round().iter().all(|item| item.why.contains("no token of group")));
    scene.hsm.table().away = false;
    scene.hsm.table().supports = false;
    assert!(scene.round().iter().all(|item| item.why.contains("CKM_ECDSA")));
    assert_eq!(scene.ledger.head().0, 1, "no intent was written");
    scene.hsm.table().supports = true;
    scene.settles(1);
}

#[test]
fn signatures_of_an_earlier_run_are_closed_as_unknown() {
    let scene = Scene::new(&[[1; 64], [4; 64]]);
    scene.settles(1);
    let (keys, signer) = scene.ledger.read(|state| {
        let keys: BTreeSet<KeyId> = state.keys().keys().copied().collect();
        let signer = state.keys().iter().find(|(_, key)| key.role == KeyRole::Ksk).expect("KSK");
        (keys, *signer.0)
    });
    let now = now_s() as u32;
    let operation = Operation::SignDnskey {
        zone: zone(),
        keys,
        signer,
        ttl_s: 3_600,
        inception: now,
        expiration: now + 3_600,
    };
    let intent = scene.ledger.intend(operation, 0, now_s()).expect("allowed").spend().intent();
    close_interrupted_signatures(&scene.ledger, now_s()).expect("closed");
    let text = scene.text();
    let last = text.lines().last().expect("a line");
    let line = Line::from_canonical(intent + 1, last.as_bytes()).expect("canonical");
    assert!(
        matches!(line.entry, Entry::Outcome { intent: of, outcome: Outcome::Unknown { .. } } if of == intent)
    );
}

#[test]
fn a_key_whose_result_another_thread_wrote_late_is_expected() {
    let scene = Scene::new(&[[2; 64]]);
    let nonce = "00".repeat(NONCE_BYTES);
    let token = "ksk-a".to_owned();
    let label = generation_label(KeyRole::Ksk, &zone(), &nonce);
    let operation = Operation::Generate { zone: zone(), role: KeyRole::Ksk, token, nonce };
    let leave = scene.ledger.intend(operation, 0, 2).expect("allowed");
    let public = PublicKey::new(Algorithm::EcdsaP256Sha256, &[1; 64]).expect("key");
    scene.hsm.table().objects.insert(label, Some(public.clone()));
    scene.ledger.outcome(leave.spend(), Outcome::Generated { public }, 3).expect("written");
    scene.settles(2);
}

#[test]
fn a_full_token_is_asked_once_a_round_however_many_zones_wait() {
    let scene = Scene::new(&[]);
    let more = |n| format!("[zone.\"z{n}.\"]\npolicy = \"default\"\n");
    let text = founding::tests::WHOLE.to_owned() + &(0..20).map(more).collect::<Vec<_>>().concat();
    scene.ledger.found(toml::from_str(&text).expect("founding"), 2).expect("founded");
    assert_eq!(scene.round().len(), 42, "each is told");
    assert_eq!(scene.ledger.head().0, 2 + 2 * 2, "an intent and its end, of each token");
}
