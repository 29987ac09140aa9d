//! Tokens that are tables, and that fail where a test says; and a founded ledger in front of them.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use countersign_policy::checkpoint::AuditKey;
use countersign_policy::founding::{Founding, TokenIdentity};
use countersign_policy::ledger::{Operation, generation_label};
use countersign_policy::motion::Motion;
use countersign_policy::statement::{Statement, Verb, Verdict, Withdrawal};
use countersign_policy::testing::Person;
use countersign_policy::tree::Hash;
use countersign_policy::{Algorithm, KeyId, KeyRole, PublicKey, ZoneName};

use super::config::KeeperConfig;
use super::door::Hsm;
use super::keys::KeyMaker;
use super::motions::{Executor, Unfinished};
use super::seal::Seals;
use super::service::Service;
use crate::council::{self, Council};
use crate::ledger::{Authorised, Ledger, Signed, Spent, WriteError};
use crate::pkcs11::{
    DataObject, ExpectedKey, FoundObject, FoundPair, HsmError, KeyStatus, PrivateAttributes,
    TokenInventory,
};
use crate::protocol::{Submission, TokenHealth, TokenState};

pub(crate) const NOW: u64 = 1_800_000_000;

thread_local! {
    static CLOCK: Cell<u64> = const { Cell::new(NOW) };
}

pub(crate) fn now_s() -> u64 {
    CLOCK.get()
}

pub(crate) fn set_clock(now: u64) {
    CLOCK.set(now);
}

pub(crate) fn zone() -> ZoneName {
    "example.".parse().expect("name")
}

/// Something that a test does.
pub(crate) type Act = Box<dyn FnOnce() + Send>;

/// What is on the tokens, and what goes wrong.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fault that a test switches on")]
pub(crate) struct Table {
    /// Label → public key; `None` where only half of the pair is there. Of all tokens.
    pub(crate) objects: BTreeMap<String, Option<PublicKey>>,
    /// Keys of another tool, by their id.
    pub(crate) foreign: BTreeMap<KeyId, PublicKey>,
    /// Those can be taken out of their token.
    pub(crate) leaks: bool,
    pub(crate) expected: BTreeMap<KeyId, ExpectedKey>,
    /// The keys that it makes, the first last; then it is full.
    pub(crate) next: Vec<[u8; 64]>,
    /// The answer to the next generation is lost, after or before it was done.
    pub(crate) lose_answer: Option<bool>,
    /// The answer to the next destruction is lost, after it was done.
    pub(crate) lose_destroyed: bool,
    pub(crate) proves: bool,
    pub(crate) away: bool,
    pub(crate) supports: bool,
    /// Data objects by token and label.
    pub(crate) data: BTreeMap<(String, String), Vec<Vec<u8>>>,
    /// The token keeps no data object any more.
    pub(crate) data_full: bool,
    /// The audit key's token does not sign.
    pub(crate) audit_away: bool,
    /// Tokens that were closed, to be admitted anew.
    pub(crate) reopened: Vec<String>,
    /// What happened, in order.
    pub(crate) calls: Vec<&'static str>,
    /// Done once, when the call of that name comes.
    pub(crate) meanwhile: Option<(&'static str, Act)>,
}

impl Table {
    /// Takes down a call; what is to be done meanwhile is the caller's to do, without the table.
    fn called(&mut self, call: &'static str) -> Option<Act> {
        self.calls.push(call);
        let (_, act) = self.meanwhile.take_if(|(at, _)| *at == call)?;
        Some(act)
    }
}

/// Tokens `ksk-a` and `zsk-a`.
pub(crate) struct Fake {
    table: Mutex<Table>,
    audit: Ed25519KeyPair,
}

pub(crate) fn away() -> HsmError {
    HsmError::Unavailable("away".to_owned())
}

fn lost(token: &str) -> HsmError {
    HsmError::OutcomeUnknown { token: token.to_owned(), detail: "lost".to_owned() }
}

impl Fake {
    pub(crate) fn new(next: &[[u8; 64]]) -> Self {
        let next = next.iter().rev().copied().collect();
        let table = Table { next, proves: true, supports: true, ..Table::default() };
        let audit = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).expect("seed");
        Self { table: Mutex::new(table), audit }
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("table")
    }

    pub(crate) fn audit_public(&self) -> PublicKey {
        PublicKey::new(Algorithm::Ed25519, self.audit.public_key().as_ref()).expect("key")
    }
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
        table.calls.push("generate");
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
        let Operation::Destroy { label, key, token, .. } = auth.operation().clone() else {
            panic!("{auth:?}")
        };
        let mut table = self.table();
        table.calls.push("destroy");
        let of_key = key.is_some_and(|key| table.foreign.remove(&key).is_some());
        let of_label = table.objects.remove(&label).is_some();
        assert!(of_key || of_label, "{label} is destroyed twice, or was never there");
        let result =
            if std::mem::take(&mut table.lose_destroyed) { Err(lost(&token)) } else { Ok(()) };
        (auth.spend(), result)
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
            attributes: None,
        };
        let of_label = |(label, public): (&String, &Option<PublicKey>)| {
            let half = public.as_ref().map(|_| object(label, false, public));
            [Some(object(label, true, &None)), half]
        };
        let found = table.objects.iter().filter(|(label, _)| label.starts_with(prefix));
        Ok(found.flat_map(of_label).flatten().collect())
    }

    fn expect_keys(&self, keys: Vec<ExpectedKey>) {
        self.table().expected.extend(keys.into_iter().map(|key| (key.id(), key)));
    }

    fn reopen(&self, token: &str, _: &str) {
        self.table().reopened.push(token.to_owned());
    }

    fn forget_key(&self, key: &KeyId) {
        self.table().expected.remove(key);
    }

    fn key_status(&self, key: &KeyId) -> Option<KeyStatus> {
        // Asked too often to be taken down.
        let meanwhile = self.table().meanwhile.take_if(|(at, _)| *at == "key-status");
        if let Some((_, act)) = meanwhile {
            act();
        }
        let table = self.table();
        let proven_by = if table.proves && !table.away {
            vec!["ksk-a".to_owned(), "zsk-a".to_owned()]
        } else {
            Vec::new()
        };
        table.expected.contains_key(key).then_some(KeyStatus { proven_by, conflict: None })
    }

    fn sign_zone(&self, _: &KeyId, messages: Vec<Vec<u8>>) -> Vec<Result<Vec<u8>, HsmError>> {
        messages.iter().map(|_| Ok(vec![1; 64])).collect()
    }

    fn sign_ksk(&self, auth: Authorised, _: &[u8]) -> (Spent, Result<Vec<u8>, HsmError>) {
        let meanwhile = self.table().called("sign-ksk");
        if let Some(act) = meanwhile {
            act();
        }
        (auth.spend(), Ok(vec![1; 64]))
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

    fn public_key(&self, key: &KeyId) -> Option<PublicKey> {
        let table = self.table();
        let own = table.objects.values().flatten().find(|public| public.id() == *key);
        own.or_else(|| table.foreign.get(key)).cloned()
    }

    fn find_by_key(&self, _: &str, key: &KeyId) -> Result<Option<FoundPair>, HsmError> {
        let table = self.table();
        if table.away {
            return Err(away());
        }
        let own = table.objects.iter().find_map(|(label, public)| {
            let public = public.as_ref().filter(|public| public.id() == *key)?;
            Some((label.clone(), public.clone()))
        });
        let found =
            own.or_else(|| Some(("other-tool".to_owned(), table.foreign.get(key)?.clone())));
        Ok(found.map(|(label, public)| FoundPair {
            label,
            cka_id: vec![0xab, 0xcd],
            public,
            private: PrivateAttributes {
                sensitive: Some(true),
                extractable: Some(table.leaks),
                ..PrivateAttributes::default()
            },
        }))
    }

    fn survey(&self, token: &str) -> Result<TokenInventory, HsmError> {
        let table = self.table();
        let data = table.data.iter().filter(|((of, _), _)| of == token);
        let data = data.flat_map(|((_, label), values)| {
            values.iter().map(|value| DataObject {
                label: label.clone(),
                value: value.clone(),
                private: true,
            })
        });
        let objects = table.objects.iter().filter(|(label, _)| {
            // Of a KSK's label, the role is behind the nonce.
            label.contains("-zsk-") == (token == "zsk-a")
        });
        let objects = objects.map(|(label, public)| FoundObject {
            label: label.clone(),
            id: Vec::new(),
            private: false,
            public: public.clone(),
            attributes: None,
        });
        Ok(TokenInventory {
            name: token.to_owned(),
            label: token.trim_end_matches("-a").to_owned(),
            serial: "1".to_owned(),
            manufacturer: String::new(),
            model: String::new(),
            hardware: String::new(),
            firmware: String::new(),
            mechanisms: Vec::new(),
            algorithms: Vec::new(),
            objects: objects.collect(),
            pairs: Vec::new(),
            data: Some(data.collect()),
        })
    }

    fn make_audit_key(&self, _: &str, _: &str) -> Result<PublicKey, HsmError> {
        self.table().calls.push("make-audit-key");
        Ok(self.audit_public())
    }

    fn audit_key(&self, _: &str, _: &str) -> Result<Option<PublicKey>, HsmError> {
        Ok(None)
    }

    fn sign_audit(&self, _: &str, _: &PublicKey, text: &[u8]) -> Result<Vec<u8>, HsmError> {
        let mut table = self.table();
        table.calls.push("sign-audit");
        if table.audit_away {
            return Err(away());
        }
        Ok(self.audit.sign(text).as_ref().to_vec())
    }

    fn read_data(&self, token: &str, label: &str) -> Result<Vec<Vec<u8>>, HsmError> {
        let key = (token.to_owned(), label.to_owned());
        Ok(self.table().data.get(&key).cloned().unwrap_or_default())
    }

    fn write_data(&self, token: &str, label: &str, value: &[u8]) -> Result<(), HsmError> {
        let meanwhile = self.table().called("write-data");
        if let Some(act) = meanwhile {
            act();
        }
        let mut table = self.table();
        if table.data_full {
            let (token, detail) = (token.to_owned(), "CKR_DEVICE_MEMORY".to_owned());
            return Err(HsmError::Token { token, detail });
        }
        table.data.insert((token.to_owned(), label.to_owned()), vec![value.to_vec()]);
        Ok(())
    }
}

/// A founded ledger, its people, and tokens that are tables.
pub(crate) struct Scene {
    pub(crate) council: Council,
    pub(crate) hsm: Fake,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) seals: Arc<Seals>,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) fn tokens() -> BTreeMap<String, TokenIdentity> {
    let token = |group: &str| TokenIdentity {
        label: group.to_owned(),
        serial: "1".to_owned(),
        group: group.to_owned(),
        data_objects: true,
    };
    [("ksk-a".to_owned(), token("ksk")), ("zsk-a".to_owned(), token("zsk"))].into()
}

impl Scene {
    /// Founded and marked, with the policy `default` and the zone bound to it.
    pub(crate) fn bound(next: &[[u8; 64]]) -> Self {
        let scene = Self::founded(next);
        scene.carry(council::set_policy("default", 1, council::policy()));
        let statement = scene.approved(council::bind(&zone(), "default"));
        scene.begin(&statement);
        scene
    }

    pub(crate) fn founded(next: &[[u8; 64]]) -> Self {
        set_clock(NOW);
        let dir = tempfile::tempdir().expect("dir");
        let ledger = Ledger::open(dir.path()).expect("opens");
        let (hsm, council) = (Fake::new(next), Council::new());
        let text = founding(&council, &hsm).to_text();
        ledger.found(text.clone(), council.found(&text), NOW).expect("founded");
        let seals = Seals::open(dir.path(), &ledger).expect("nothing is kept yet");
        let (ledger, seals) = (Arc::new(ledger), Arc::new(seals));
        let scene = Self { council, hsm, ledger, seals, dir };
        assert_eq!(scene.executor().round(), [], "the tokens are marked");
        scene
    }

    /// What a crash leaves: the files and the tokens.
    pub(crate) fn restart(&mut self) {
        let elsewhere = tempfile::tempdir().expect("dir");
        let nothing = Ledger::open(elsewhere.path()).expect("opens");
        drop(std::mem::replace(&mut self.ledger, Arc::new(nothing)));
        self.ledger = Arc::new(Ledger::open(self.dir.path()).expect("opens"));
        let seals = Seals::open(self.dir.path(), &self.ledger);
        self.seals = Arc::new(seals.expect("is of this ledger"));
        for token in ["ksk-a", "zsk-a"] {
            let said = self.hsm.read_data(token, super::seal::STATE_LABEL).expect("data");
            self.seals.compare_token(&self.ledger, token, said).expect("readable");
        }
    }

    /// The service in front of it, and what would wake the executor.
    pub(crate) fn service(self) -> (Service<Fake>, Receiver<()>, Council, tempfile::TempDir) {
        let (wake, woken) = sync_channel(1);
        let path = self.dir.path().join("keeper.toml");
        write_config(&path, &config(self.dir.path(), None));
        let config = KeeperConfig::load(&path).expect("whole");
        let service = Service::new((self.ledger, self.seals), self.hsm, config, now_s, wake);
        (service, woken, self.council, self.dir)
    }

    pub(crate) fn executor(&self) -> Executor<'_, Fake> {
        Executor::new((&self.ledger, self.lines()), &self.hsm, &self.seals, now_s)
    }

    /// A round of an executor that remembers no pause.
    pub(crate) fn round(&self) -> Vec<Unfinished> {
        self.executor().round()
    }

    /// Makes the zone a ZSK, as the ledger allows at any time: the executor waits for the KSK.
    pub(crate) fn make_zsk(&self) {
        let line = self.ledger.read(|state| state.zones()[&zone()].line);
        let mut maker = KeyMaker::new(&self.ledger, &self.hsm, &self.seals, now_s);
        maker.make(&zone(), KeyRole::Zsk, line).expect("made");
    }

    pub(crate) fn propose(&self, motion: Motion) -> Statement {
        let oscar = &self.council.oscar;
        let statement = self
            .ledger
            .read(|state| council::statement(state, oscar, motion, now_s(), council::nonce()));
        let line = line_of(council::propose(&statement, oscar));
        self.ledger.submit(line, now_s()).expect("proposed");
        statement
    }

    pub(crate) fn vote(
        &self,
        statement: &Statement,
        verb: Verb,
        by: &Person,
    ) -> Result<u64, WriteError> {
        let paper = self.ledger.read(|state| council::vote(state, statement, verb, by));
        self.ledger.submit(line_of(paper), now_s())
    }

    /// Proposed by oscar, approved by kim and kate.
    pub(crate) fn approved(&self, motion: Motion) -> Statement {
        let statement = self.propose(motion);
        for officer in [&self.council.kim, &self.council.kate] {
            self.vote(&statement, Verb::Approve, officer).expect("approved");
        }
        statement
    }

    /// Begins it, and nothing else.
    pub(crate) fn begin(&self, statement: &Statement) -> u64 {
        let quorum = self.ledger.read(|state| state.quorum(&statement.hash(), now_s()));
        let reveals = self.ledger.read(|state| state.reveals(&statement.motion));
        let reveals = reveals.iter().map(|id| self.hsm.public_key(id).expect("a key")).collect();
        self.ledger.begin(quorum.expect("a quorum"), reveals, now_s()).expect("begun")
    }

    /// Approved, and carried out in one round.
    pub(crate) fn carry(&self, motion: Motion) {
        let statement = self.approved(motion);
        let unfinished = self.round();
        let status = self.ledger.read(|state| state.status(&statement.hash()));
        assert!(
            matches!(status, Some(countersign_policy::state::Status::Begun { done: true, .. })),
            "{status:?} {unfinished:?}"
        );
    }

    /// The active keys of the zone, by role.
    pub(crate) fn active(&self) -> BTreeMap<KeyRole, KeyId> {
        self.ledger.read(|state| {
            state.dnskeys_of(&zone()).map(|(id, record)| (record.role, *id)).collect()
        })
    }

    /// Every object on the tokens is a key of the ledger, and the other way round; nothing is open.
    pub(crate) fn assert_tidy(&self) {
        let labels: BTreeSet<String> = self.ledger.read(|state| {
            assert_eq!(state.open_intents().count(), 0);
            state.keys().values().map(|key| key.label.clone()).collect()
        });
        let table = self.hsm.table();
        let own: BTreeSet<String> = table.objects.keys().cloned().collect();
        assert!(own.is_subset(&labels), "{own:?} {labels:?}");
    }

    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("ledger.jsonl")).expect("ledger")
    }

    pub(crate) fn lines(&self) -> u64 {
        self.ledger.head().0
    }
}

pub(crate) fn founding(council: &Council, hsm: &Fake) -> Founding {
    let audit = AuditKey::new(hsm.audit_public()).expect("an audit key");
    council.founding(tokens(), Vec::new(), ("ksk-a".to_owned(), audit), NOW)
}

/// The line that a text would be, as the keeper makes it.
pub(crate) fn line_of(submission: Submission) -> Signed {
    match submission {
        Submission::Propose { text, signature } => Signed::proposed(text, signature),
        Submission::Verdict { text, signature } => {
            let Verdict { verb, officer, checkpoint, statement } =
                Verdict::parse(&text).expect("a verdict");
            let statement = statement.hash();
            Signed::verdict(statement, verb, officer, checkpoint, signature)
        }
        Submission::Withdraw { text, signature } => {
            let statement = Withdrawal::parse(&text).expect("a withdrawal").statement;
            Signed::withdrawn(statement, signature)
        }
        Submission::Freeze { text, signature } => Signed::frozen(text, signature),
    }
}

/// A configuration of both tokens, with its files in `dir`.
pub(crate) fn config(dir: &Path, pin: Option<&Hash>) -> String {
    let token = |name: &str, label: &str| {
        format!(
            "[token.{name}]\nlabel = \"{label}\"\nserial = \"1\"\nmodule = \"m\"\n\
             pin_file = \"/nonexistent\"\n"
        )
    };
    let pin = pin.map_or(String::new(), |hash| format!("founding = \"{hash}\"\n"));
    let dir = dir.display();
    format!(
        "version = 1\n[keeper]\nstate_dir = \"{dir}/state\"\nsocket = \"{dir}/k\"\n\
         ledger_socket = \"{dir}/l\"\ndaemon_user = 0\ngroup = 0\naudit_token = \"ksk-a\"\n{pin}\
         [module.m]\npath = \"/m.so\"\n{}{}",
        token("ksk-a", "ksk"),
        token("zsk-a", "zsk")
    )
}

/// For the keeper's user alone.
pub(crate) fn write_config(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("mode");
}
