//! Proposals: what is on the table, who said what of it, and how much of it one person may put there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use super::time::DAY_S;
use super::{Effect, LedgerState};
use crate::motion::MotionKind;
use crate::officer::{OfficerKey, PersonName, Role};
use crate::ssh::{Namespace, Signature};
use crate::statement::{
    AHEAD_S_MAX, NONCE_BYTES, PATH_S_MAX, Statement, StatementHash, Verb, WINDOW_S_MAX, Withdrawal,
};
use crate::text::time_text;

/// Open proposals of one person: a stolen key clogs no more than this.
pub const OPEN_A_PROPOSER_MAX: usize = 8;
/// Open proposals in all: what officers can still read, and 16 MiB of texts at most.
pub const OPEN_MAX: usize = 64;
/// Proposals of one person within a day, withdrawn ones included: each is two lines for good.
pub const PROPOSALS_A_DAY_MAX: usize = 40;

/// How it stands with a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// On the table.
    Open,
    /// Its proposer took it back.
    Withdrawn,
    /// So many denied it that the rest is not enough.
    Denied,
    /// Its not-after is past.
    Expired,
    /// It began.
    Begun {
        /// The line.
        line: u64,
        /// Nothing is left for the HSM to do.
        done: bool,
    },
    /// It began, and was given up before all of it was done.
    Lapsed,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::Withdrawn => f.write_str("withdrawn"),
            Self::Denied => f.write_str("denied"),
            Self::Expired => f.write_str("expired"),
            Self::Begun { line, done: true } => write!(f, "done (it began at line {line})"),
            Self::Begun { line, done: false } => write!(f, "under way since line {line}"),
            Self::Lapsed => f.write_str("given up before all of it was done"),
        }
    }
}

/// An officer's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// Yes or no.
    pub verb: Verb,
    /// The key that signed, as the roster had it. It counts as long as the roster has it so.
    pub key: OfficerKey,
    /// The line.
    pub line: u64,
}

/// A proposal that is open, or that began and is not done.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The line.
    pub line: u64,
    /// When, in seconds since 1970: the line's time, or the floor of time if that was later.
    pub at: u64,
    /// The text that was signed.
    pub text: Arc<str>,
    /// What it says.
    pub statement: Arc<Statement>,
    /// The proposer's key, as the roster had it.
    pub key: OfficerKey,
    /// It was proposed by the recovery group, and its rule decides.
    pub recovery: bool,
    /// Who said what; a denial stands in place of the approval before it.
    pub votes: BTreeMap<PersonName, Vote>,
    /// How it stands.
    pub status: Status,
}

/// What is kept of a proposal that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// The line that proposed it.
    pub line: u64,
    /// The line that ended it.
    pub ended: u64,
    /// How.
    pub status: Status,
}

/// All proposals.
#[derive(Debug, Clone, Default)]
pub(super) struct Docket {
    live: BTreeMap<StatementHash, Proposal>,
    closed: BTreeMap<StatementHash, Closed>,
    /// Open ones, by not-after.
    ends: BTreeSet<(u64, StatementHash)>,
    nonces: BTreeSet<[u8; NONCE_BYTES]>,
    /// When each person's last proposals were made: at most [`PROPOSALS_A_DAY_MAX`].
    recent: BTreeMap<PersonName, VecDeque<u64>>,
    /// When each person's last freezes were made: at most [`super::FREEZES_A_DAY_MAX`].
    pub(super) freezes: BTreeMap<PersonName, VecDeque<u64>>,
}

impl Docket {
    pub(super) fn is_used(&self, nonce: &[u8; NONCE_BYTES]) -> bool {
        self.nonces.contains(nonce)
    }

    pub(super) fn use_nonce(&mut self, nonce: [u8; NONCE_BYTES]) {
        self.nonces.insert(nonce);
    }

    pub(super) fn propose(&mut self, hash: StatementHash, proposal: Proposal) {
        let statement = &proposal.statement;
        self.nonces.insert(statement.nonce);
        self.ends.insert((statement.not_after, hash));
        let recent = self.recent.entry(statement.proposer.clone()).or_default();
        recent.push_back(proposal.at);
        if recent.len() > PROPOSALS_A_DAY_MAX {
            recent.pop_front();
        }
        self.live.insert(hash, proposal);
    }

    pub(super) fn vote(&mut self, hash: StatementHash, officer: PersonName, vote: Vote) {
        if let Some(proposal) = self.live.get_mut(&hash) {
            proposal.votes.insert(officer, vote);
        }
    }

    /// It began, and has steps left.
    pub(super) fn begin(&mut self, hash: StatementHash, line: u64) {
        if let Some(proposal) = self.live.get_mut(&hash) {
            self.ends.remove(&(proposal.statement.not_after, hash));
            proposal.status = Status::Begun { line, done: false };
        }
    }

    /// It is over: what is kept is little.
    pub(super) fn close(&mut self, hash: StatementHash, ended: u64, status: Status) {
        if let Some(proposal) = self.live.remove(&hash) {
            self.ends.remove(&(proposal.statement.not_after, hash));
            self.closed.insert(hash, Closed { line: proposal.line, ended, status });
        }
    }

    /// Ends those whose not-after the floor of time has passed. A clock that jumps ahead ends none:
    /// it does not raise the floor.
    pub(super) fn expire(&mut self, seq: u64, floor: u64) {
        while let Some(&(not_after, hash)) = self.ends.first()
            && not_after < floor
        {
            self.close(hash, seq, Status::Expired);
        }
    }

    fn open(&self) -> impl Iterator<Item = &Proposal> {
        self.ends.iter().filter_map(|(_, hash)| self.live.get(hash))
    }
}

impl LedgerState {
    /// Proposals that are open, or that began and are not done; by hash. Of those that are over,
    /// [`Self::status`] and [`Self::closed`] know the end, and their text is in their line.
    pub fn proposals(&self) -> impl Iterator<Item = (&StatementHash, &Proposal)> {
        self.docket.live.iter()
    }

    /// The proposal, if it is not over.
    pub fn proposal(&self, hash: &StatementHash) -> Option<&Proposal> {
        self.docket.live.get(hash)
    }

    /// Proposals that are over.
    pub fn closed(&self) -> &BTreeMap<StatementHash, Closed> {
        &self.docket.closed
    }

    /// How it stands with a statement that was ever proposed.
    pub fn status(&self, hash: &StatementHash) -> Option<Status> {
        let live = self.docket.live.get(hash).map(|proposal| proposal.status);
        live.or_else(|| self.docket.closed.get(hash).map(|closed| closed.status))
    }

    pub(super) fn judge_proposed(
        &self,
        at: u64,
        text: &str,
        signature: &Signature,
    ) -> Result<Effect, String> {
        let statement =
            Statement::parse(text).map_err(|error| format!("the statement: {error}"))?;
        // Whose it is comes first: for a stranger nothing is looked at that takes long.
        let (namespace, roster) = (Namespace::Propose, self.roster());
        let key = Self::signed_by(roster, &statement.proposer, namespace, text, signature)?;
        let recovery = self.takes_statement(&statement, at)?;
        let hash = statement.hash();
        let proposal = Proposal {
            line: self.next_seq(),
            at: at.max(self.time_floor()),
            text: text.into(),
            statement: Arc::new(statement),
            key,
            recovery,
            votes: BTreeMap::new(),
            status: Status::Open,
        };
        Ok(Effect::Proposed(hash, Box::new(proposal)))
    }

    /// Whether a statement could be proposed now: all that is judged of it but the signature, for who
    /// is about to sign it. `true` if it would be carried by the recovery group's rule.
    pub fn takes_statement(&self, statement: &Statement, at: u64) -> Result<bool, String> {
        let hash = statement.hash();
        if let Some(status) = self.status(&hash) {
            return Err(format!("statement {} was proposed before and is {status}", hash.short()));
        }
        self.is_ours(statement.appliance)?;
        self.is_prefix(&statement.checkpoint)?;
        let proposer = &statement.proposer;
        let kind = statement.motion.kind();
        let recovery = self.may_propose(proposer, kind)?;
        if self.docket.is_used(&statement.nonce) {
            return Err("its nonce was used before".to_owned());
        }
        let now = at.max(self.time_floor());
        check_window(statement, at, now)?;
        self.check_quota(proposer, now)?;
        self.law.check_floor(kind, proposer, recovery)?;
        if let Some(after) = self.law.after(&statement.motion) {
            after.check_floor(kind, proposer, recovery)?;
        }
        let depends = self.dependencies(&statement.motion);
        if depends != statement.depends {
            return Err(format!(
                "it rests on another state than this one (depends: {}, here {depends}). hint: \
                 propose it anew",
                statement.depends
            ));
        }
        self.is_possible(statement, at)?;
        Ok(recovery)
    }

    /// Whether the person may propose that; and whether as the recovery group.
    pub(super) fn may_propose(
        &self,
        person: &PersonName,
        kind: MotionKind,
    ) -> Result<bool, String> {
        let row = kind.row();
        match self.roster().person(person).map(|officer| officer.role) {
            None => Err(format!("{person} is not on the roster")),
            Some(Role::Recovery) if row.recovery => Ok(true),
            Some(role) if row.proposes.contains(&role) => Ok(false),
            Some(role) => {
                let may: Vec<&str> = row.proposes.iter().map(|role| role.as_str()).collect();
                Err(format!(
                    "{person} is of the role {role} and can't propose {kind}; expected one of {}",
                    may.join(", ")
                ))
            }
        }
    }

    fn check_quota(&self, proposer: &PersonName, now: u64) -> Result<(), String> {
        let of_proposer = |proposal: &&Proposal| proposal.statement.proposer == *proposer;
        if self.docket.open().filter(of_proposer).count() >= OPEN_A_PROPOSER_MAX {
            return Err(format!(
                "{proposer} has {OPEN_A_PROPOSER_MAX} open proposals, which is the most. hint: withdraw \
                 one"
            ));
        }
        if self.docket.ends.len() >= OPEN_MAX {
            return Err(format!("{OPEN_MAX} proposals are open, which is the most"));
        }
        let recent = self.docket.recent.get(proposer).into_iter().flatten();
        if recent.filter(|time| time.abs_diff(now) < DAY_S).count() >= PROPOSALS_A_DAY_MAX {
            return Err(format!(
                "{proposer} has made {PROPOSALS_A_DAY_MAX} proposals within a day, which is the most"
            ));
        }
        Ok(())
    }

    pub(super) fn judge_withdrawn(
        &self,
        hash: StatementHash,
        signature: &Signature,
    ) -> Result<Effect, String> {
        let statement = &self.open_proposal(&hash)?.statement;
        let appliance = self.appliance().ok_or("there is no founding")?;
        let officer = statement.proposer.clone();
        let withdrawal = Withdrawal { appliance, officer, statement: hash };
        let (namespace, text) = (Namespace::Withdraw, withdrawal.to_text());
        Self::signed_by(self.roster(), &statement.proposer, namespace, &text, signature)?;
        Ok(Effect::Withdrawn(hash))
    }
}

/// The window and the path, each within its bound, and not over yet: neither by the line's time nor
/// by the floor of time.
fn check_window(statement: &Statement, at: u64, now: u64) -> Result<(), String> {
    let Statement { not_before, not_after, finish_by, .. } = *statement;
    if not_before > not_after || not_after > finish_by {
        return Err(format!(
            "not-before {}, not-after {}, finish-by {}: expected them in this order",
            time_text(not_before),
            time_text(not_after),
            time_text(finish_by)
        ));
    }
    if not_after <= now {
        return Err(format!(
            "not-after {} is past; it is {}",
            time_text(not_after),
            time_text(now)
        ));
    }
    for (what, found, most) in [
        ("from not-before to not-after", not_after - not_before, WINDOW_S_MAX),
        ("from now to not-before", not_before.saturating_sub(at), AHEAD_S_MAX),
        ("from not-after to finish-by", finish_by - not_after, PATH_S_MAX),
    ] {
        if found > most {
            return Err(format!(
                "{what} it is {} days; expected at most {}",
                found / DAY_S,
                most / DAY_S
            ));
        }
    }
    Ok(())
}
