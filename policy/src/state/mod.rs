//! The fold of the ledger's lines, which is the appliance's state; and the judgement of each line.
//!
//! [`LedgerState::apply`] takes a line only if everything that it says was allowed by the lines before
//! it: signatures, quorum, windows, dependencies, quotas, and what the HSM may be asked under which
//! line. Keeper, command line and auditor run this one function, so a ledger that folds is a ledger
//! in which everything had its leave. A line that is refused changes nothing.
//!
//! ```text
//! line 0  Founded ── signed by everyone on its roster
//!         Proposed ──► Verdict … ──► Begun ──► (Intent ──► Outcome)… ──► done
//!            │            └ enough denials: denied            └ Lapsed
//!            └ Withdrawn, or its not-after is past the floor of time: expired
//! ```
//!
//! Each room judges what it is named after: `founded`, `propose` (with `possible` and `depends`),
//! `verdict`, `begin` (the only maker of a [`Quorum`]), `freeze`, `keys`, `time`, `token`;
//! [`crate::permit`] what the HSM may be asked.
//!
//! Bounds: open proposals ([`OPEN_MAX`]), proposals a person and day ([`PROPOSALS_A_DAY_MAX`]), freezes a
//! person and day ([`FREEZES_A_DAY_MAX`]), one freeze a scope, one vote an officer, one grant of each sort
//! a zone. A closed proposal keeps its hash, its line, its end and its nonce. Everything else grows
//! by quorum, or by the keeper's own lines, alone.

mod begin;
mod depends;
mod effects;
mod founded;
mod freeze;
mod keys;
mod law;
mod outcome;
mod possible;
mod propose;
#[cfg(test)]
mod tests;
mod time;
mod token;
mod verdict;
mod zones;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use begin::{NotYet, Quorum, Step};
pub use freeze::{FREEZES_A_DAY_MAX, Frozen};
pub use keys::{KSKS_MAX, KeyRecord, Making, ZSKS_A_WEEK_MAX, ZSKS_MAX};
pub use propose::{
    Closed, OPEN_A_PROPOSER_MAX, OPEN_MAX, PROPOSALS_A_DAY_MAX, Proposal, Status, Vote,
};
pub use time::{ClockFault, DAY_S};
pub use token::{TokenState, TokenStateFault, Versioned};
pub use zones::{Binding, CDS_VALIDITY_S, CdsGrant, DnskeySet, DsGrant};

use self::begin::Running;
use self::keys::Keys;
use self::law::Law;
use self::propose::Docket;
use self::time::TimeFloor;
use self::zones::ExplicitSet;
use crate::checkpoint::AuditKey;
use crate::founding::{Founding, TokenIdentity};
use crate::instance::{Holder, InstanceId};
use crate::key::{KeyId, PublicKey};
use crate::ledger::{Entry, LedgerError, Line, Operation, Outcome};
use crate::motion::Scope;
use crate::name::ZoneName;
use crate::officer::{OfficerKey, PersonName, Roster};
use crate::rule::{RecoveryRule, Rules};
use crate::signing::SigningPolicy;
use crate::ssh::{Namespace, Signature};
use crate::statement::{Freeze, Statement, StatementHash};
use crate::tree::{Hash, Tree, TreeHead};

/// What the lines so far amount to.
#[derive(Debug, Clone, Default)]
pub struct LedgerState {
    tree: Tree,
    founded: Option<Founded>,
    time: TimeFloor,
    law: Law,
    tokens: BTreeMap<String, TokenIdentity>,
    marked: BTreeSet<String>,
    holder: Option<Holder>,
    policies: BTreeMap<String, (u64, SigningPolicy)>,
    zones: BTreeMap<ZoneName, Binding>,
    /// DNSKEY RRsets that a quorum put in place of the standing ones.
    explicit: BTreeMap<ZoneName, ExplicitSet>,
    ds: BTreeMap<ZoneName, DsGrant>,
    cds: BTreeMap<ZoneName, CdsGrant>,
    keys: Keys,
    docket: Docket,
    /// Begun, with steps left for the HSM; by the line of `Begun`.
    running: BTreeMap<u64, Running>,
    freezes: BTreeMap<Scope, Frozen>,
    /// How often the ledger went on after a loss, and what is known to be lost.
    origin: u64,
    lost: Vec<Lost>,
}

/// What the motion of a new origin named as lost: signed by those who carried it.
#[derive(Debug, Clone, Copy)]
struct Lost {
    head: TreeHead,
    officers: u64,
    rules: u64,
}

/// What line 0 fixed for good, and the audit key, which can be replaced.
#[derive(Debug, Clone)]
struct Founded {
    founding: Arc<Founding>,
    hash: Hash,
    audit_token: String,
    audit_key: AuditKey,
}

/// What a line changes, judged: made by [`LedgerState::judge`] alone, and committed without a
/// further question.
#[derive(Debug)]
enum Effect {
    /// Nothing but the tree.
    Noted,
    Founded(Box<Founded>),
    Proposed(StatementHash, Box<Proposal>),
    Voted {
        statement: StatementHash,
        officer: PersonName,
        vote: Vote,
        /// It can't be carried any more.
        hopeless: bool,
    },
    Withdrawn(StatementHash),
    Frozen(Box<Freeze>),
    Begun(Quorum, BTreeMap<KeyId, PublicKey>),
    Lapsed(u64),
    Marked(String),
    Claimed(InstanceId),
    Intent(Box<Operation>, u64),
    Outcome(u64, Box<Outcome>),
    Conflict(KeyId, String),
    Cleared(KeyId),
}

impl LedgerState {
    /// The founding, once there is one.
    pub fn founding(&self) -> Option<&Founding> {
        self.founded.as_ref().map(|founded| &*founded.founding)
    }

    /// The founding hash: SHA-256 of the founding's text, the appliance's name for good.
    pub fn appliance(&self) -> Option<Hash> {
        self.founded.as_ref().map(|founded| founded.hash)
    }

    /// The Merkle tree over the lines.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The number that the next line gets.
    pub fn next_seq(&self) -> u64 {
        self.tree.len()
    }

    /// Everyone who has a say now.
    pub fn roster(&self) -> &Roster {
        &self.law.roster
    }

    /// The version of the roster: 1 at the founding.
    pub fn officers_version(&self) -> u64 {
        self.law.officers_version
    }

    /// The quorum rules in force.
    pub fn rules(&self) -> &Rules {
        &self.law.rules
    }

    /// Their version: 1 at the founding.
    pub fn rules_version(&self) -> u64 {
        self.law.rules_version
    }

    /// The recovery group's rule, if there is such a group.
    pub fn recovery(&self) -> Option<RecoveryRule> {
        self.law.recovery
    }

    /// Tokens by name.
    pub fn tokens(&self) -> &BTreeMap<String, TokenIdentity> {
        &self.tokens
    }

    /// The tokens of a group, by name.
    pub fn tokens_of<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a str> {
        self.tokens.iter().filter(move |(_, t)| t.group == group).map(|(name, _)| name.as_str())
    }

    /// Whether the token carries the founding's mark.
    pub fn is_marked(&self, token: &str) -> bool {
        self.marked.contains(token)
    }

    /// The box that may use the tokens, once one has claimed them.
    pub fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }

    /// The token that holds the audit key, by name, and the key.
    pub fn audit(&self) -> Option<(&str, &AuditKey)> {
        self.founded.as_ref().map(|founded| (founded.audit_token.as_str(), &founded.audit_key))
    }

    /// How often the ledger went on after a loss: 0 at the founding.
    pub fn origin(&self) -> u64 {
        self.origin
    }

    /// The latest time that the ledger is sure to have reached, in seconds since 1970.
    pub fn time_floor(&self) -> u64 {
        self.time.floor()
    }

    /// Whether a clock that says `now_s` may use KSKs.
    pub fn clock(&self, now_s: u64) -> Result<(), ClockFault> {
        self.time.check(now_s)
    }

    /// Signing policies by name, each with its version.
    pub fn policies(&self) -> &BTreeMap<String, (u64, SigningPolicy)> {
        &self.policies
    }

    /// Which zones are signed here, and under which policy.
    pub fn zones(&self) -> &BTreeMap<ZoneName, Binding> {
        &self.zones
    }

    /// Whether the line follows from those before it: all of [`Self::apply`] but the change.
    pub fn follows(&self, line: &Line) -> Result<(), LedgerError> {
        self.judge(line).map(|_| ())
    }

    /// Takes one more line, or says what is wrong with it and changes nothing.
    pub fn apply(&mut self, line: &Line) -> Result<(), LedgerError> {
        let effect = self.judge(line)?;
        self.commit(line, effect);
        Ok(())
    }

    fn judge(&self, line: &Line) -> Result<Effect, LedgerError> {
        let seq = line.seq;
        if seq != self.next_seq() {
            return Err(LedgerError::Sequence { expected: self.next_seq(), found: seq });
        }
        self.judge_entry(line.at, &line.entry)
            .map_err(|problem| LedgerError::Contradiction { seq, problem })
    }

    fn judge_entry(&self, at: u64, entry: &Entry) -> Result<Effect, String> {
        let is_founding = matches!(entry, Entry::Founded { .. });
        if self.founded.is_none() && !is_founding {
            return Err("the first line is not a founding".to_owned());
        }
        match entry {
            Entry::Founded { text, signatures } => self.judge_founded(at, text, signatures),
            Entry::Proposed { statement, signature } => {
                self.judge_proposed(at, statement, signature)
            }
            Entry::Verdict { statement, verb, officer, checkpoint, signature } => {
                self.judge_verdict(at, *statement, (*verb, officer, checkpoint), signature)
            }
            Entry::Withdrawn { statement, signature } => {
                self.judge_withdrawn(*statement, signature)
            }
            Entry::Frozen { text, signature } => self.judge_frozen(at, text, signature),
            Entry::Begun { statement, reveals } => self.judge_begun(at, *statement, reveals),
            Entry::Lapsed { begun, .. } => self.judge_lapsed(*begun),
            Entry::DsExported { begun, zone } => {
                self.judge_exported(at, *begun, zone).map(|()| Effect::Noted)
            }
            Entry::TokenMarked { token } => {
                if !self.tokens.contains_key(token) {
                    return Err(format!("token `{token}`, which is not of this appliance"));
                }
                if self.is_marked(token) {
                    return Err(format!("token `{token}` is marked already"));
                }
                Ok(Effect::Marked(token.clone()))
            }
            Entry::InstanceClaimed { instance } => match &self.holder {
                None => Ok(Effect::Claimed(*instance)),
                Some(holder) => Err(format!(
                    "instance {instance} claims what instance {} holds since line {}; another box takes \
                     its place by a move-appliance motion alone",
                    holder.instance, holder.line
                )),
            },
            Entry::Started { instance, .. } => match &self.holder {
                Some(holder) if holder.instance == *instance => Ok(Effect::Noted),
                Some(holder) => Err(format!(
                    "instance {instance} started, and instance {} holds the tokens since line {}",
                    holder.instance, holder.line
                )),
                None => Err(format!("instance {instance} started, and has not claimed the tokens")),
            },
            Entry::ZoneSigned { .. } => Ok(Effect::Noted),
            Entry::Intent { operation, under } => {
                self.allows(operation, *under, at).map_err(|denied| denied.to_string())?;
                Ok(Effect::Intent(Box::new(operation.clone()), *under))
            }
            Entry::Outcome { intent, outcome } => {
                self.judge_outcome(*intent, outcome)?;
                Ok(Effect::Outcome(*intent, Box::new(outcome.clone())))
            }
            Entry::KeyConflict { key, token, found } => {
                self.known_key(key)?;
                Ok(Effect::Conflict(*key, format!("token `{token}` answers for it with {found}")))
            }
            Entry::KeyCleared { key } => self.known_key(key).map(|()| Effect::Cleared(*key)),
        }
    }

    fn known_key(&self, key: &KeyId) -> Result<(), String> {
        let known = self.keys.records().contains_key(key);
        if known { Ok(()) } else { Err(format!("key {key}, which is not here")) }
    }

    /// Does what [`Self::judge`] found in order.
    fn commit(&mut self, line: &Line, effect: Effect) {
        let seq = line.seq;
        match effect {
            Effect::Noted => {}
            Effect::Founded(founded) => self.commit_founded(*founded),
            Effect::Proposed(hash, proposal) => self.docket.propose(hash, *proposal),
            Effect::Voted { statement, officer, vote, hopeless } => {
                self.docket.vote(statement, officer, vote);
                if hopeless {
                    self.docket.close(statement, seq, Status::Denied);
                }
            }
            Effect::Withdrawn(hash) => self.docket.close(hash, seq, Status::Withdrawn),
            Effect::Frozen(freeze) => self.commit_frozen(seq, line.at, *freeze),
            Effect::Begun(quorum, reveals) => {
                self.commit_begun((seq, line.at), &quorum, reveals);
            }
            Effect::Lapsed(begun) => {
                if let Some(running) = self.running.remove(&begun) {
                    self.docket.close(running.hash, seq, Status::Lapsed);
                }
            }
            Effect::Marked(token) => {
                self.marked.insert(token);
            }
            Effect::Claimed(instance) => {
                self.holder = Some(Holder { instance, origin: self.origin, line: seq });
            }
            Effect::Intent(operation, under) => self.keys.intend(seq, *operation, under),
            Effect::Outcome(intent, outcome) => self.commit_outcome(seq, line.at, intent, *outcome),
            Effect::Conflict(key, why) => self.keys.set_conflict(&key, Some(why)),
            Effect::Cleared(key) => self.keys.set_conflict(&key, None),
        }
        self.time.saw(line.at);
        self.docket.expire(seq, self.time.floor());
        self.tree.push(&line.to_canonical());
    }

    /// The key of `person` that made `signature` over `text` for `namespace`: on the roster, and with
    /// user verification where the roster asks for it.
    fn signed_by(
        roster: &Roster,
        person: &PersonName,
        namespace: Namespace,
        text: &str,
        signature: &Signature,
    ) -> Result<OfficerKey, String> {
        if roster.person(person).is_none() {
            return Err(format!("{person} is not on the roster"));
        }
        let claimed = signature.claimed_key();
        let key = roster.key_of(person, claimed).ok_or_else(|| {
            format!("signed with {}, which is no key of {person}'s", claimed.fingerprint())
        })?;
        let made_by =
            crate::ssh::verify(signature, namespace, text.as_bytes(), key.verify_required)
                .map_err(|error| format!("{person}'s signature: {error}"))?;
        if made_by != key.ssh {
            return Err(format!("{person}'s signature is by another key than it says"));
        }
        Ok(key.clone())
    }

    /// The founding hash of a signed text must be ours.
    fn is_ours(&self, appliance: Hash) -> Result<(), String> {
        match self.appliance() {
            Some(ours) if ours == appliance => Ok(()),
            Some(ours) => {
                Err(format!("it is for the appliance {appliance}; expected this one, {ours}"))
            }
            None => Err("there is no founding".to_owned()),
        }
    }

    /// A checkpoint in a signed text must be of lines that are still there.
    fn is_prefix(&self, checkpoint: &TreeHead) -> Result<(), String> {
        if checkpoint.size > self.tree.len() {
            return Err(format!(
                "its checkpoint has {} lines and the ledger {}: lines are missing here, or it is of \
                 another ledger. hint: run `countersign ledger list` against the right appliance",
                checkpoint.size,
                self.tree.len()
            ));
        }
        if checkpoint.size == 0 || !self.tree.contains(checkpoint) {
            return Err(format!(
                "its checkpoint `{checkpoint}` is of another ledger: the first {} lines here have \
                 another root",
                checkpoint.size
            ));
        }
        Ok(())
    }

    /// What the statement of that hash is, if it is open.
    fn open_proposal(&self, hash: &StatementHash) -> Result<&Proposal, String> {
        match self.status(hash) {
            Some(Status::Open) => {}
            Some(status) => return Err(format!("proposal {} is {status}", hash.short())),
            None => return Err(format!("there is no proposal {}", hash.short())),
        }
        self.proposal(hash).ok_or_else(|| format!("there is no proposal {}", hash.short()))
    }

    /// Motions that began and have steps left for the HSM: the line of `Begun`, the statement, and
    /// the steps in order. Past the statement's finish-by none of them is allowed any more.
    pub fn unfinished(&self) -> impl Iterator<Item = (u64, &Statement, Vec<Step>)> {
        self.running.iter().map(|(line, r)| (*line, &*r.statement, r.steps.clone()))
    }
}
