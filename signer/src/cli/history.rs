//! What a ledger tells of each motion: who proposed it, who voted, under which rule it began, and what
//! came of it. The fold keeps only what it needs to judge; this is for people, built beside it from
//! lines that it then takes.

use std::collections::BTreeMap;

use countersign_policy::ZoneName;
use countersign_policy::ledger::{Entry, Line, Operation, Outcome};
use countersign_policy::motion::MotionKind;
use countersign_policy::officer::{PersonName, Role};
use countersign_policy::state::{LedgerState, Status};
use countersign_policy::statement::{Statement, StatementHash, Verb};

use super::end::Stop;

/// Every motion of a ledger, and the newest DNSKEY signature of each zone.
#[derive(Debug, Default)]
pub(super) struct History {
    motions: BTreeMap<StatementHash, Record>,
    begun: BTreeMap<u64, StatementHash>,
    /// Intents for DNSKEY signatures without a result: zone and expiration.
    signing: BTreeMap<u64, (ZoneName, u64)>,
    /// When the newest DNSKEY signature of each zone expires, in seconds since 1970.
    pub(super) dnskey_expires: BTreeMap<ZoneName, u64>,
}

/// One motion.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) line: u64,
    pub(super) at: u64,
    pub(super) statement: Statement,
    pub(super) votes: Vec<Vote>,
    pub(super) began: Option<Began>,
    /// Why it could not be finished.
    pub(super) lapsed: Option<String>,
}

/// What one officer said.
#[derive(Debug)]
pub(super) struct Vote {
    pub(super) line: u64,
    pub(super) at: u64,
    pub(super) officer: PersonName,
    pub(super) verb: Verb,
}

/// Its beginning.
#[derive(Debug)]
pub(super) struct Began {
    pub(super) line: u64,
    pub(super) at: u64,
    /// The rule that it met.
    pub(super) rule: String,
    /// Whose approvals counted.
    pub(super) approvers: Vec<PersonName>,
}

impl History {
    /// Takes a line that the fold is about to judge; `state` is what those before it amount to.
    pub(super) fn see(&mut self, state: &LedgerState, line: &Line) {
        match &line.entry {
            Entry::Proposed { statement, .. } => {
                // A text that does not parse is refused by the fold at once.
                if let Ok(parsed) = Statement::parse(statement) {
                    let record = Record {
                        line: line.seq,
                        at: line.at,
                        statement: parsed,
                        votes: Vec::new(),
                        began: None,
                        lapsed: None,
                    };
                    self.motions.insert(record.statement.hash(), record);
                }
            }
            Entry::Verdict { statement, verb, officer, .. } => {
                if let Some(record) = self.motions.get_mut(statement) {
                    let (officer, verb) = (officer.clone(), *verb);
                    record.votes.push(Vote { line: line.seq, at: line.at, officer, verb });
                }
            }
            Entry::Begun { statement, .. } => {
                if let Some(record) = self.motions.get_mut(statement) {
                    self.begun.insert(line.seq, *statement);
                    record.began = Some(Began {
                        line: line.seq,
                        at: line.at,
                        rule: rule(state, &record.statement),
                        approvers: carried_by(state, statement, line.at),
                    });
                }
            }
            Entry::Lapsed { begun, reason } => {
                let record = self.begun.get(begun).and_then(|hash| self.motions.get_mut(hash));
                if let Some(record) = record {
                    record.lapsed = Some(reason.clone());
                }
            }
            Entry::Intent { operation: Operation::SignDnskey { zone, expiration, .. }, .. } => {
                // RFC 4034 §3.1.5: seconds modulo 2^32, near the time of the line.
                let ahead = expiration.wrapping_sub(line.at as u32).cast_signed();
                let expires = line.at.saturating_add_signed(i64::from(ahead));
                self.signing.insert(line.seq, (zone.clone(), expires));
            }
            Entry::Outcome { intent, outcome } => {
                let signed = self.signing.remove(intent);
                if let (Some((zone, expires)), Outcome::Signed { .. }) = (signed, outcome) {
                    let newest = self.dnskey_expires.entry(zone).or_default();
                    *newest = (*newest).max(expires);
                }
            }
            _ => {}
        }
    }

    /// Every motion, in the order of their lines.
    pub(super) fn motions(&self) -> Vec<(&StatementHash, &Record)> {
        let mut all: Vec<_> = self.motions.iter().collect();
        all.sort_by_key(|(_, record)| record.line);
        all
    }

    pub(super) fn motion(&self, hash: &StatementHash) -> Option<&Record> {
        self.motions.get(hash)
    }

    /// The motion whose id begins so.
    pub(super) fn find(&self, id: &str) -> Result<(StatementHash, &Record), Stop> {
        let hash = super::desk::by_prefix("proposal", id, self.motions.keys().copied())?;
        let record = self.motions.get(&hash);
        record.map(|record| (hash, record)).ok_or_else(|| Stop::usage(format!("no proposal {id}")))
    }

    /// The motion that began at a line.
    pub(super) fn begun_at(&self, line: u64) -> Option<(&StatementHash, &Record)> {
        let hash = self.begun.get(&line)?;
        Some((hash, self.motions.get(hash)?))
    }
}

impl Record {
    /// Who approves and has not taken it back, of those still on the roster.
    pub(super) fn approvers(&self, state: &LedgerState) -> Vec<PersonName> {
        let mut approvers: Vec<PersonName> = Vec::new();
        for vote in &self.votes {
            approvers.retain(|name| *name != vote.officer);
            if vote.verb == Verb::Approve && state.roster().person(&vote.officer).is_some() {
                approvers.push(vote.officer.clone());
            }
        }
        approvers
    }

    /// What officers say of it so far: `bob yes, carol no`.
    pub(super) fn tally(&self) -> String {
        let mut last: BTreeMap<&PersonName, Verb> = BTreeMap::new();
        last.extend(self.votes.iter().map(|vote| (&vote.officer, vote.verb)));
        let said: Vec<String> = last
            .into_iter()
            .map(|(name, verb)| {
                format!("{name} {}", if verb == Verb::Approve { "yes" } else { "no" })
            })
            .collect();
        if said.is_empty() { "nobody".to_owned() } else { said.join(", ") }
    }

    /// How it stands.
    pub(super) fn standing(&self, state: &LedgerState, hash: &StatementHash) -> String {
        match (state.status(hash), &self.lapsed) {
            (Some(Status::Lapsed), Some(why)) => format!("given up: {}", super::say::plain(why)),
            (Some(Status::Begun { line, done: true }), _) => format!("done, begun at line {line}"),
            (Some(status), _) => status.to_string(),
            (None, _) => "unknown".to_owned(),
        }
    }
}

/// Whether a motion waits for votes or its time.
pub(super) fn is_open(state: &LedgerState, hash: &StatementHash) -> bool {
    matches!(state.status(hash), Some(Status::Open))
}

/// Whose approvals carry a statement at this time, by the fold's own count.
pub(super) fn carried_by(state: &LedgerState, hash: &StatementHash, at: u64) -> Vec<PersonName> {
    // Where the quorum is not met the fold refuses the line, and nobody is told.
    state.quorum(hash, at).map(|quorum| quorum.approvers().to_vec()).unwrap_or_default()
}

/// The rule that a statement is judged by, as the ledger stands.
pub(super) fn rule(state: &LedgerState, statement: &Statement) -> String {
    let kind = statement.motion.kind();
    let proposer = state.roster().person(&statement.proposer).map(|officer| officer.role);
    if proposer == Some(Role::Recovery) {
        return state.recovery().map_or_else(
            || "no rule of recovery".to_owned(),
            |rule| {
                format!(
                    "{} of the recovery group, {} s after the proposal",
                    rule.rule(),
                    rule.delay_s
                )
            },
        );
    }
    let rule = state.rules().rule(kind).map_or_else(|| "no rule".to_owned(), ToString::to_string);
    match kind {
        MotionKind::ChangeOfficers | MotionKind::ChangeRules => {
            format!("{rule} (rules version {}), and what it changes them to", state.rules_version())
        }
        _ => format!("{rule} (rules version {})", state.rules_version()),
    }
}
