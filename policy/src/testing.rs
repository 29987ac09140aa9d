//! For tests: people whose keys are made from their names, and a small appliance that they found and
//! run without an HSM. Behind the feature `testing`; nothing that is shipped has it.
//!
//! [`World`] writes lines as a keeper would, each judged by [`LedgerState::apply`], and keeps them.
//! Its signatures are true SSHSIG blobs with Ed25519 keys, so that `ssh-keygen` takes them too.

#![expect(clippy::missing_panics_doc, reason = "tests panic; that is how they fail")]

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

use crate::algorithm::Algorithm;
use crate::checkpoint::AuditKey;
use crate::founding::{Founding, TokenIdentity};
use crate::key::{FLAG_REVOKE, KeyId, KeyRole, PublicKey, to_hex};
use crate::ledger::{Entry, LedgerError, Line, MadeKey, Operation, Outcome};
use crate::motion::{Motion, MotionKind, Scope};
use crate::name::ZoneName;
use crate::officer::{Officer, OfficerKey, PersonName, Role, Roster};
use crate::rule::{Group, RecoveryRule, Rule, Rules};
use crate::signing::{Denial, DnskeyApproval, KeySplit, SerialPolicy, SigningPolicy};
use crate::ssh::{Namespace, Signature, SshKey};
use crate::state::{DAY_S, LedgerState, Step};
use crate::statement::{Freeze, NONCE_BYTES, Statement, StatementHash, Verb, Verdict, Withdrawal};
use crate::tree::Hash;

/// 25 November 2026, 03:00 UTC: when tests are founded unless they say otherwise.
pub const NOW: u64 = 1_795_575_600;

/// SHA-256 of a text, for seeds.
fn seed(text: &str) -> [u8; 32] {
    sha256(text.as_bytes())
}

/// A person with an SSH key made from a text.
#[derive(Debug)]
pub struct Person {
    /// What they are called.
    pub name: PersonName,
    /// Their role.
    pub role: Role,
    key: Ed25519KeyPair,
    /// For a security key: the flags of its signatures.
    flags: Option<u8>,
}

/// What a security key's application is.
const APPLICATION: &[u8] = b"ssh:";

impl Person {
    /// A person whose key is made from the name.
    pub fn new(name: &str, role: Role) -> Self {
        Self::with_key(name, role, name)
    }

    /// A person whose key is made from `key`.
    pub fn with_key(name: &str, role: Role, key: &str) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&seed(key)).expect("32 octets");
        Self { name: name.parse().expect("a name"), role, key, flags: None }
    }

    /// A person with a security key (`sk-ssh-ed25519@openssh.com`) whose signatures have these flags:
    /// 1 after a touch, 4 after a PIN, 5 after both.
    pub fn with_security_key(name: &str, role: Role, flags: u8) -> Self {
        Self { flags: Some(flags), ..Self::with_key(name, role, &format!("{name}'s security key")) }
    }

    /// The public key.
    pub fn ssh(&self) -> SshKey {
        let mut blob = [field(self.key_type()), field(self.key.public_key().as_ref())].concat();
        if self.flags.is_some() {
            blob.extend(field(APPLICATION));
        }
        SshKey::from_blob(&blob).expect("an Ed25519 key")
    }

    fn key_type(&self) -> &'static [u8] {
        if self.flags.is_some() { b"sk-ssh-ed25519@openssh.com" } else { b"ssh-ed25519" }
    }

    /// As a roster holds the person.
    pub fn officer(&self) -> Officer {
        let key = OfficerKey { ssh: self.ssh(), verify_required: false };
        Officer { role: self.role, keys: [key].into() }
    }

    /// Signs as `ssh-keygen -Y sign -n NAMESPACE` does (OpenSSH `PROTOCOL.sshsig`).
    pub fn sign(&self, namespace: Namespace, text: &str) -> Signature {
        let blob = self.sign_blob(namespace.as_str(), text);
        Signature::from_blob(&blob).expect("a signature")
    }

    /// The octets of a signature for any namespace.
    pub fn sign_blob(&self, namespace: &str, text: &str) -> Vec<u8> {
        let hashed = digest::digest(&digest::SHA512, text.as_bytes());
        let about = [field(namespace.as_bytes()), field(b""), field(b"sha512")].concat();
        let signed = [b"SSHSIG", &about[..], &field(hashed.as_ref())].concat();
        let signature = self.sign_raw(&signed);
        let version = 1_u32.to_be_bytes();
        let key = field(self.ssh().as_blob());
        [b"SSHSIG", &version[..], &key, &about, &field(&signature)].concat()
    }

    /// The signature field: for a security key by OpenSSH's `PROTOCOL.u2f`, with a counter.
    fn sign_raw(&self, message: &[u8]) -> Vec<u8> {
        let Some(flags) = self.flags else {
            return [field(self.key_type()), field(self.key.sign(message).as_ref())].concat();
        };
        let state = [&[flags][..], &1_u32.to_be_bytes()].concat();
        let signed = [&sha256(APPLICATION)[..], &state, &sha256(message)].concat();
        [field(self.key_type()), field(self.key.sign(&signed).as_ref()), state].concat()
    }
}

/// SHA-256.
fn sha256(bytes: &[u8]) -> [u8; 32] {
    Hash::of(bytes).0
}

/// An SSH string: length and octets.
fn field(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).expect("short").to_be_bytes();
    [&len[..], bytes].concat()
}

/// An operator (olga), three key officers (alice, bob, carol), three policy officers (pat, petra,
/// paul) and an auditor (adam).
pub fn team() -> Vec<Person> {
    [
        ("olga", Role::Operator),
        ("alice", Role::KeyOfficer),
        ("bob", Role::KeyOfficer),
        ("carol", Role::KeyOfficer),
        ("pat", Role::PolicyOfficer),
        ("petra", Role::PolicyOfficer),
        ("paul", Role::PolicyOfficer),
        ("adam", Role::Auditor),
    ]
    .map(|(name, role)| Person::new(name, role))
    .into()
}

/// Five persons of a recovery group: rita, rob, ruth, ralf, rosa.
pub fn recovery_group() -> Vec<Person> {
    ["rita", "rob", "ruth", "ralf", "rosa"].map(|name| Person::new(name, Role::Recovery)).into()
}

/// For each sort of motion the same rule: so many of these roles, in one group.
pub fn rules(persons: u8, roles: &[Role]) -> Rules {
    let group = Group { persons, roles: roles.iter().copied().collect() };
    Rules(MotionKind::all().map(|kind| (kind, Rule(vec![group.clone()]))).collect())
}

/// What about keys takes two key officers, and everything else two policy officers.
pub fn apart() -> Rules {
    let (keys, policy) = (rules(2, &[Role::KeyOfficer]), rules(2, &[Role::PolicyOfficer]));
    let of = |kind: MotionKind| if kind.is_about_keys() { &keys } else { &policy };
    Rules(MotionKind::all().map(|kind| (kind, of(kind).0[&kind].clone())).collect())
}

/// A token of that group that holds data objects.
pub fn token(group: &str, serial: &str) -> TokenIdentity {
    TokenIdentity {
        label: group.to_owned(),
        serial: serial.to_owned(),
        group: group.to_owned(),
        data_objects: true,
    }
}

/// An audit key.
pub fn audit_key(text: &str) -> AuditKey {
    let key = Ed25519KeyPair::from_seed_unchecked(&seed(text)).expect("32 octets");
    let public = PublicKey::new(Algorithm::Ed25519, key.public_key().as_ref()).expect("a key");
    AuditKey::new(public).expect("an audit key")
}

/// A founding by these people at that time: tokens `ksk-a` and `zsk-a`, the audit key on `ksk-a`, two
/// key officers for all that is about keys, two policy officers for the rest. With recovery persons
/// among them, three of these after two days.
pub fn founding(people: &[Person], time: u64) -> Founding {
    let recovers = people.iter().any(|person| person.role == Role::Recovery);
    let roster = people.iter().map(|person| (person.name.clone(), person.officer())).collect();
    Founding {
        name: "test".to_owned(),
        time,
        nonce: [7; 16],
        audit_token: "ksk-a".to_owned(),
        audit_key: audit_key("audit"),
        tokens: [
            ("ksk-a".to_owned(), token("ksk", "serial-ksk-a")),
            ("zsk-a".to_owned(), token("zsk", "serial-zsk-a")),
        ]
        .into(),
        foreign: Vec::new(),
        clock_days: 30,
        roster: Roster(roster),
        rules: apart(),
        recovery: recovers.then_some(RecoveryRule { persons: 3, delay_s: 2 * DAY_S }),
    }
}

/// Line 0's entry: the founding's text, signed by all of these people.
pub fn founded_entry(founding: &Founding, people: &[Person]) -> Entry {
    let text = founding.to_text();
    let sign = |person: &Person| (person.name.clone(), person.sign(Namespace::Found, &text));
    let signatures = people.iter().map(sign).collect();
    Entry::Founded { text, signatures }
}

/// P-256, KSK and ZSK on the groups `ksk` and `zsk`, DNSKEY sets refreshed without a quorum.
pub fn policy() -> SigningPolicy {
    SigningPolicy {
        algorithm: Algorithm::EcdsaP256Sha256,
        rsa_bits: None,
        keys: KeySplit::KskZsk,
        ksk_group: "ksk".to_owned(),
        zsk_group: Some("zsk".to_owned()),
        denial: Denial::Nsec3,
        serial: SerialPolicy::Unixtime,
        dnskey_ttl_s: 3_600,
        ttl_max_s: 86_400,
        validity_s: 14 * 86_400,
        refresh_s: 7 * 86_400,
        inception_offset_s: 3_600,
        approval: DnskeyApproval::Standing,
    }
}

/// The zone of most tests.
pub fn zone() -> ZoneName {
    "example.".parse().expect("a name")
}

/// A public key made from a number: no private half exists.
pub fn public_key(number: u64) -> PublicKey {
    let half = |side: &str| seed(&format!("{side} {number}"));
    let octets = [half("x"), half("y")].concat();
    PublicKey::new(Algorithm::EcdsaP256Sha256, &octets).expect("64 octets")
}

/// What a ledger is told of a key.
pub fn made_key(public: &PublicKey, role: KeyRole, told: bool) -> MadeKey {
    MadeKey {
        key: public.id(),
        algorithm: public.algorithm(),
        tag: public.tag(role.flags()),
        revoked_tag: public.tag(role.flags() | FLAG_REVOKE),
        public: told.then(|| public.clone()),
    }
}

/// An appliance without an HSM, and its people.
#[derive(Debug)]
pub struct World {
    /// What its ledger amounts to.
    pub state: LedgerState,
    /// Its lines.
    pub lines: Vec<Line>,
    /// The keeper's clock.
    pub now: u64,
    /// Its people, by name.
    pub people: BTreeMap<String, Person>,
    /// The public half of each key, which an HSM would hold.
    pub publics: BTreeMap<KeyId, PublicKey>,
    counter: u64,
}

impl World {
    /// Founded by [`team`] at [`NOW`].
    pub fn founded() -> Self {
        Self::founded_by(team(), |_| {})
    }

    /// Founded by these people, with another founding.
    pub fn founded_by(people: Vec<Person>, change: impl FnOnce(&mut Founding)) -> Self {
        let mut founding = founding(&people, NOW);
        change(&mut founding);
        let mut world = Self {
            state: LedgerState::default(),
            lines: Vec::new(),
            now: founding.time,
            people: BTreeMap::new(),
            publics: BTreeMap::new(),
            counter: 0,
        };
        world.add(founded_entry(&founding, &people)).expect("a founding");
        world.people = people.into_iter().map(|person| (person.name.to_string(), person)).collect();
        world
    }

    /// With the policy `default` and [`zone`] bound to it.
    pub fn bound() -> Self {
        let mut world = Self::founded();
        world.bind_zone();
        world
    }

    /// With an active KSK and a ZSK for [`zone`].
    pub fn signing() -> Self {
        let mut world = Self::bound();
        world.make_ksk(true);
        world.make_zsk();
        world
    }

    /// Sets the policy `default` and binds [`zone`] to it.
    pub fn bind_zone(&mut self) {
        let name = "default".to_owned();
        self.carry(Motion::SetPolicy { name, version: 1, policy: policy() });
        self.carry(Motion::BindZone { zones: [zone()].into(), policy: "default".to_owned() });
    }

    /// A person.
    pub fn person(&self, name: &str) -> &Person {
        self.people.get(name).expect(name)
    }

    /// Adds a person who is on no roster yet.
    pub fn meet(&mut self, person: Person) {
        self.people.insert(person.name.to_string(), person);
    }

    /// Writes a line, if it may follow.
    pub fn add(&mut self, entry: Entry) -> Result<u64, LedgerError> {
        let line = Line { seq: self.state.next_seq(), at: self.now, entry };
        self.state.apply(&line)?;
        let seq = line.seq;
        self.lines.push(line);
        Ok(seq)
    }

    /// A number that was not given before.
    pub fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// A nonce that was not given before.
    pub fn nonce(&mut self) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        nonce[8..].copy_from_slice(&self.number().to_be_bytes());
        nonce
    }

    /// A statement as the command line would draft it now: from now on, for a week, to be finished in
    /// two.
    pub fn statement(&mut self, proposer: &str, motion: Motion) -> Statement {
        let nonce = self.nonce();
        Statement {
            appliance: self.state.appliance().expect("founded"),
            checkpoint: self.state.tree().head(),
            depends: self.state.dependencies(&motion),
            proposer: proposer.parse().expect("a name"),
            motion,
            nonce,
            not_before: self.now,
            not_after: self.now + 7 * DAY_S,
            finish_by: self.now + 14 * DAY_S,
        }
    }

    /// Proposes a statement, signed by its proposer.
    pub fn table(&mut self, statement: &Statement) -> Result<StatementHash, LedgerError> {
        let text = statement.to_text();
        let proposer = self.person(statement.proposer.as_str());
        let signature = proposer.sign(Namespace::Propose, &text);
        self.add(Entry::Proposed { statement: text, signature })?;
        Ok(statement.hash())
    }

    /// Drafts and proposes.
    pub fn propose(
        &mut self,
        proposer: &str,
        motion: Motion,
    ) -> Result<StatementHash, LedgerError> {
        let statement = self.statement(proposer, motion);
        self.table(&statement)
    }

    /// The verdict that the officer's command line would make now, and its line's entry.
    pub fn verdict(&self, officer: &str, verb: Verb, hash: StatementHash) -> (Verdict, Entry) {
        let proposal = self.state.proposal(&hash).expect("an open proposal");
        let verdict = Verdict {
            verb,
            officer: officer.parse().expect("a name"),
            checkpoint: self.state.tree().head(),
            statement: (*proposal.statement).clone(),
        };
        let namespace = match verb {
            Verb::Approve => Namespace::Approve,
            Verb::Deny => Namespace::Deny,
        };
        let signature = self.person(officer).sign(namespace, &verdict.to_text());
        let entry = Entry::Verdict {
            statement: hash,
            verb,
            officer: verdict.officer.clone(),
            checkpoint: verdict.checkpoint,
            signature,
        };
        (verdict, entry)
    }

    /// Approves.
    pub fn approve(&mut self, officer: &str, hash: StatementHash) -> Result<u64, LedgerError> {
        let (_, entry) = self.verdict(officer, Verb::Approve, hash);
        self.add(entry)
    }

    /// Denies.
    pub fn deny(&mut self, officer: &str, hash: StatementHash) -> Result<u64, LedgerError> {
        let (_, entry) = self.verdict(officer, Verb::Deny, hash);
        self.add(entry)
    }

    /// Takes a proposal back, as `officer`.
    pub fn withdraw(&mut self, officer: &str, hash: StatementHash) -> Result<u64, LedgerError> {
        let appliance = self.state.appliance().expect("founded");
        let person = self.person(officer);
        let (officer, statement) = (person.name.clone(), hash);
        let text = Withdrawal { appliance, officer, statement }.to_text();
        let signature = person.sign(Namespace::Withdraw, &text);
        self.add(Entry::Withdrawn { statement: hash, signature })
    }

    /// A freeze as that person's command line would make it now.
    pub fn freeze_text(&mut self, officer: &str, scope: Scope) -> Freeze {
        Freeze {
            appliance: self.state.appliance().expect("founded"),
            officer: officer.parse().expect("a name"),
            scope,
            reason: "something is odd".to_owned(),
            nonce: self.nonce(),
            not_after: self.now + 3_600,
        }
    }

    /// Freezes.
    pub fn freeze(&mut self, officer: &str, scope: Scope) -> Result<u64, LedgerError> {
        let text = self.freeze_text(officer, scope).to_text();
        let signature = self.person(officer).sign(Namespace::Freeze, &text);
        self.add(Entry::Frozen { text, signature })
    }

    /// Begins it, revealing what it publishes.
    pub fn begin(&mut self, hash: StatementHash) -> Result<u64, LedgerError> {
        let motion = self.state.proposal(&hash).map(|p| p.statement.motion.clone());
        let reveals = motion.map(|motion| self.state.reveals(&motion)).unwrap_or_default();
        let reveals = reveals.iter().map(|id| self.publics[id].clone()).collect();
        self.add(Entry::Begun { statement: hash, reveals })
    }

    /// Proposes by olga, approves by everyone whom [`apart`] asks, and begins: the line of `Begun`.
    pub fn carry(&mut self, motion: Motion) -> u64 {
        let officers =
            if motion.kind().is_about_keys() { ["alice", "bob"] } else { ["pat", "petra"] };
        let hash = self.propose("olga", motion).expect("a proposal");
        for officer in officers {
            self.approve(officer, hash).expect("an approval");
        }
        self.begin(hash).expect("a beginning")
    }

    /// Writes an intent under the line that stands for it.
    pub fn intend(&mut self, operation: Operation) -> Result<u64, LedgerError> {
        let under = self.state.standing(&operation, self.now).unwrap_or(0);
        self.add(Entry::Intent { operation, under })
    }

    /// Writes a result.
    pub fn end(&mut self, intent: u64, outcome: Outcome) -> Result<u64, LedgerError> {
        self.add(Entry::Outcome { intent, outcome })
    }

    /// The making of a key of [`zone`], with a nonce of its own.
    pub fn generate(&mut self, role: KeyRole) -> Operation {
        let token = if role == KeyRole::Zsk { "zsk-a" } else { "ksk-a" };
        let nonce = to_hex(&self.nonce());
        Operation::Generate { zone: zone(), role, token: token.to_owned(), nonce }
    }

    /// Does a step that makes a key; its id.
    pub fn make(&mut self, operation: Operation, public: &PublicKey, told: bool) -> KeyId {
        let Operation::Generate { role, .. } = &operation else { panic!("{operation:?}") };
        let made = made_key(public, *role, told);
        let intent = self.intend(operation).expect("an intent");
        self.end(intent, Outcome::Generated { made }).expect("an outcome");
        self.publics.insert(public.id(), public.clone());
        public.id()
    }

    /// Has a KSK approved and made for [`zone`].
    pub fn make_ksk(&mut self, activate: bool) -> KeyId {
        let (zones, role) = ([zone()].into(), KeyRole::Ksk);
        self.carry(Motion::GenerateKey { zones, role, activate });
        let (operation, number) = (self.generate(role), self.number());
        self.make(operation, &public_key(number), activate)
    }

    /// Makes a ZSK for [`zone`].
    pub fn make_zsk(&mut self) -> KeyId {
        let (operation, number) = (self.generate(KeyRole::Zsk), self.number());
        self.make(operation, &public_key(number), true)
    }

    /// The signing of the DNSKEY RRset that is allowed now, by `signer`.
    pub fn sign_dnskey(&self, signer: KeyId) -> Operation {
        let keys: BTreeSet<KeyId> =
            self.state.dnskey_set(&zone(), self.now).map(|set| set.keys).unwrap_or_default();
        let policy = policy();
        Operation::SignDnskey {
            zone: zone(),
            keys,
            signer,
            ttl_s: policy.dnskey_ttl_s,
            inception: self.now as u32 - policy.inception_offset_s,
            expiration: self.now as u32 + 86_400,
        }
    }

    /// The steps that are left of what began at that line.
    pub fn steps(&self, begun: u64) -> Vec<Step> {
        let mut unfinished = self.state.unfinished();
        unfinished.find(|(line, ..)| *line == begun).map(|(.., steps)| steps).unwrap_or_default()
    }

    /// Folds the lines anew, as an auditor does.
    pub fn fold(lines: &[Line]) -> Result<LedgerState, LedgerError> {
        let mut state = LedgerState::default();
        lines.iter().try_for_each(|line| state.apply(line))?;
        Ok(state)
    }
}
