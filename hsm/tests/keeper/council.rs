//! People who found an appliance, propose and approve, and the papers that they sign. Serves unit tests
//! of this crate too.

use std::collections::{BTreeMap, BTreeSet};

use countersign_hsm::protocol::Submission;
use countersign_policy::checkpoint::AuditKey;
use countersign_policy::founding::{ForeignKey, Founding, TokenIdentity};
use countersign_policy::ledger::LedgerState;
use countersign_policy::motion::{Motion, MotionKind, Scope};
use countersign_policy::officer::{PersonName, Role, Roster};
use countersign_policy::rule::{Group, RecoveryRule, Rule, Rules};
use countersign_policy::signing::{Denial, KeySplit, SerialPolicy, SigningPolicy};
use countersign_policy::ssh::{Namespace, Signature};
use countersign_policy::statement::{Freeze, Statement, Verb, Verdict, Withdrawal};
use countersign_policy::testing::Person;
pub use countersign_policy::testing::policy;
use countersign_policy::{Algorithm, KeyRole, ZoneName};

/// The people of an appliance: oscar proposes, two of kim, kate and ken approve; rita, ruth, rosa and
/// rolf are for the day when a quorum is lost.
pub struct Council {
    pub oscar: Person,
    pub kim: Person,
    pub kate: Person,
    pub ken: Person,
    pub ada: Person,
    pub recovery: Vec<Person>,
}

impl Council {
    pub fn new() -> Self {
        let recovery =
            ["rita", "ruth", "rosa", "rolf", "rene"].map(|name| Person::new(name, Role::Recovery));
        Self {
            oscar: Person::new("oscar", Role::Operator),
            kim: Person::new("kim", Role::KeyOfficer),
            kate: Person::new("kate", Role::KeyOfficer),
            ken: Person::new("ken", Role::KeyOfficer),
            ada: Person::new("ada", Role::Auditor),
            recovery: recovery.into(),
        }
    }

    pub fn everyone(&self) -> impl Iterator<Item = &Person> {
        [&self.oscar, &self.kim, &self.kate, &self.ken, &self.ada].into_iter().chain(&self.recovery)
    }

    pub fn founding(
        &self,
        tokens: BTreeMap<String, TokenIdentity>,
        foreign: Vec<ForeignKey>,
        (audit_token, audit_key): (String, AuditKey),
        time: u64,
    ) -> Founding {
        let rule = Rule(vec![Group { persons: 2, roles: [Role::KeyOfficer].into() }]);
        Founding {
            name: "test-1".to_owned(),
            time,
            nonce: [7; 16],
            audit_token,
            audit_key,
            tokens,
            foreign,
            clock_days: 7,
            roster: Roster(self.everyone().map(|p| (p.name.clone(), p.officer())).collect()),
            rules: Rules(MotionKind::all().map(|kind| (kind, rule.clone())).collect()),
            recovery: Some(RecoveryRule { persons: 3, delay_s: 86_400 }),
        }
    }

    pub fn found(&self, text: &str) -> BTreeMap<PersonName, Signature> {
        let sign = |person: &Person| (person.name.clone(), person.sign(Namespace::Found, text));
        self.everyone().map(sign).collect()
    }
}

/// A statement about a state, by a person, that may begin at once and for a week.
pub fn statement(
    state: &LedgerState,
    proposer: &Person,
    motion: Motion,
    now: u64,
    nonce: [u8; 16],
) -> Statement {
    Statement {
        appliance: state.appliance().expect("founded"),
        checkpoint: state.tree().head(),
        depends: state.dependencies(&motion),
        proposer: proposer.name.clone(),
        motion,
        nonce,
        not_before: now,
        not_after: now + 7 * 86_400,
        finish_by: now + 14 * 86_400,
    }
}

/// A nonce that was not used yet.
pub fn nonce() -> [u8; 16] {
    let mut nonce = [0; 16];
    aws_lc_rs::rand::fill(&mut nonce).expect("random octets");
    nonce
}

pub fn propose(statement: &Statement, by: &Person) -> Submission {
    let text = statement.to_text();
    let signature = by.sign(Namespace::Propose, &text);
    Submission::Propose { text, signature }
}

pub fn vote(state: &LedgerState, statement: &Statement, verb: Verb, by: &Person) -> Submission {
    let verdict = Verdict {
        verb,
        officer: by.name.clone(),
        checkpoint: state.tree().head(),
        statement: statement.clone(),
    };
    let text = verdict.to_text();
    let namespace = match verb {
        Verb::Approve => Namespace::Approve,
        Verb::Deny => Namespace::Deny,
    };
    Submission::Verdict { signature: by.sign(namespace, &text), text }
}

pub fn withdraw(statement: &Statement, by: &Person) -> Submission {
    let withdrawal = Withdrawal {
        appliance: statement.appliance,
        officer: by.name.clone(),
        statement: statement.hash(),
    };
    let text = withdrawal.to_text();
    Submission::Withdraw { signature: by.sign(Namespace::Withdraw, &text), text }
}

pub fn freeze(state: &LedgerState, scope: Scope, by: &Person, now: u64) -> Submission {
    let freeze = Freeze {
        appliance: state.appliance().expect("founded"),
        officer: by.name.clone(),
        scope,
        reason: "something is wrong".to_owned(),
        nonce: nonce(),
        not_after: now + 3_600,
    };
    let text = freeze.to_text();
    Submission::Freeze { signature: by.sign(Namespace::Freeze, &text), text }
}

/// A CSK, Ed25519.
pub fn single() -> SigningPolicy {
    SigningPolicy {
        algorithm: Algorithm::Ed25519,
        keys: KeySplit::Csk,
        zsk_group: None,
        denial: Denial::Nsec,
        serial: SerialPolicy::Keep,
        dnskey_ttl_s: 60,
        ttl_max_s: 3_600,
        validity_s: 86_400,
        refresh_s: 43_200,
        inception_offset_s: 60,
        ..policy()
    }
}

pub fn set_policy(name: &str, version: u64, policy: SigningPolicy) -> Motion {
    Motion::SetPolicy { name: name.to_owned(), version, policy }
}

pub fn bind(zone: &ZoneName, policy: &str) -> Motion {
    Motion::BindZone { zones: [zone.clone()].into(), policy: policy.to_owned() }
}

pub fn generate(zone: &ZoneName, role: KeyRole, activate: bool) -> Motion {
    Motion::GenerateKey { zones: BTreeSet::from([zone.clone()]), role, activate }
}
