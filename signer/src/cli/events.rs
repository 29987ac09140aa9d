//! The ledger as a log for people: each line as who did what, and under which rule or line.

use countersign_policy::ledger::{Entry, Line, Outcome};
use countersign_policy::officer::PersonName;
use countersign_policy::state::LedgerState;
use countersign_policy::statement::{Freeze, Statement, StatementHash, Verb};
use serde::Serialize;

use super::history::{self, History};
use super::say;

/// What a keeper does by itself has it as its author.
const KEEPER: &str = "keeper";

/// One line of the ledger.
#[derive(Debug, Serialize)]
pub(super) struct Event {
    pub(super) line: u64,
    pub(super) at: String,
    pub(super) who: String,
    pub(super) what: String,
    /// The rule or the line that allowed it.
    pub(super) under: Option<String>,
    /// The statement that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) statement: Option<StatementHash>,
}

/// What a line says; `state` and `history` are what those before it amount to.
pub(super) fn event(state: &LedgerState, history: &History, line: &Line) -> Event {
    let Told { who, what, under, statement } = told(state, history, line);
    Event { line: line.seq, at: say::time(line.at), who, what, under, statement }
}

struct Told {
    who: String,
    what: String,
    under: Option<String>,
    statement: Option<StatementHash>,
}

fn told(state: &LedgerState, history: &History, line: &Line) -> Told {
    let by_keeper = |what: String, under: Option<String>| Told {
        who: KEEPER.to_owned(),
        what,
        under,
        statement: None,
    };
    match &line.entry {
        Entry::Founded { signatures, .. } => Told {
            who: names(signatures.keys()),
            what: "founded the appliance".to_owned(),
            under: None,
            statement: None,
        },
        Entry::Proposed { statement, .. } => proposed(statement),
        Entry::Verdict { statement, verb, officer, .. } => {
            let said = match verb {
                Verb::Approve => "approved",
                Verb::Deny => "denied",
            };
            about(history, statement, officer.to_string(), said)
        }
        Entry::Withdrawn { statement, .. } => {
            let proposer = history.motion(statement).map(|record| &record.statement.proposer);
            let who = proposer.map_or_else(|| "?".to_owned(), ToString::to_string);
            about(history, statement, who, "withdrew")
        }
        Entry::Frozen { text, .. } => frozen(text),
        Entry::Begun { statement, .. } => begun(state, history, statement, line.at),
        Entry::Lapsed { begun, reason } => {
            let what = format!("gave up what began at line {begun}: {}", say::plain(reason));
            let mut told = by_keeper(what, Some(format!("line {begun}")));
            told.statement = history.begun_at(*begun).map(|(hash, _)| *hash);
            told
        }
        Entry::DsExported { begun, zone } => {
            let mut told =
                by_keeper(format!("handed out DS of {zone}"), Some(under(history, *begun)));
            told.statement = history.begun_at(*begun).map(|(hash, _)| *hash);
            told
        }
        Entry::TokenMarked { token } => {
            by_keeper(format!("marked token {}", say::plain(token)), None)
        }
        Entry::InstanceClaimed { instance } => {
            by_keeper(format!("claimed the tokens for box {}", instance.short()), None)
        }
        Entry::Started { instance, version, binary, .. } => by_keeper(
            format!(
                "started on box {}, version {}, binary {}",
                instance.short(),
                say::plain(version),
                say::plain(binary)
            ),
            None,
        ),
        Entry::Intent { operation, under: allowed } => {
            let what = format!("is about to {}", say::operation(operation));
            by_keeper(what, Some(under(history, *allowed)))
        }
        Entry::Outcome { intent, outcome } => {
            by_keeper(format!("line {intent}: {}", outcome_text(outcome)), None)
        }
        Entry::KeyConflict { key, token, found } => {
            let what = format!(
                "refuses key {} from now on: token {} answers for it with {}",
                say::short(key),
                say::plain(token),
                say::plain(found)
            );
            by_keeper(what, None)
        }
        Entry::KeyCleared { key } => {
            by_keeper(format!("takes key {} again: every token proves it", say::short(key)), None)
        }
        Entry::ZoneSigned { zone, serial, signatures, .. } => {
            let count: u64 = signatures.values().map(|count| u64::from(*count)).sum();
            by_keeper(format!("signed {zone}, serial {serial}, with {count} signatures"), None)
        }
    }
}

fn proposed(text: &str) -> Told {
    match Statement::parse(text) {
        Ok(statement) => {
            let hash = statement.hash();
            let what = format!("proposed {}: {}", hash.short(), say::motion(&statement.motion));
            let who = statement.proposer.to_string();
            Told { who, what, under: None, statement: Some(hash) }
        }
        Err(error) => {
            let what = format!("proposed what is no statement: {error}");
            Told { who: "?".to_owned(), what, under: None, statement: None }
        }
    }
}

fn frozen(text: &str) -> Told {
    let (who, what) = match Freeze::parse(text) {
        Ok(freeze) => (
            freeze.officer.to_string(),
            format!("froze {}: {}", say::scope(&freeze.scope), say::plain(&freeze.reason)),
        ),
        Err(error) => ("?".to_owned(), format!("froze by what is no freeze: {error}")),
    };
    Told { who, what, under: None, statement: None }
}

fn begun(state: &LedgerState, history: &History, hash: &StatementHash, at: u64) -> Told {
    let mut told = about(history, hash, KEEPER.to_owned(), "began");
    if let Some(record) = history.motion(hash) {
        let approvers = history::carried_by(state, hash, at);
        let rule = history::rule(state, &record.statement);
        told.under = Some(format!(
            "{rule}; proposed by {}, approved by {}",
            record.statement.proposer,
            names(approvers.iter())
        ));
    }
    told
}

fn about(history: &History, hash: &StatementHash, who: String, said: &str) -> Told {
    let motion = history.motion(hash).map(|record| say::motion(&record.statement.motion));
    let what = format!("{said} {}: {}", hash.short(), motion.as_deref().unwrap_or("?"));
    Told { who, what, under: None, statement: Some(*hash) }
}

fn under(history: &History, line: u64) -> String {
    match history.begun_at(line) {
        Some((hash, _)) => format!("statement {}, line {line}", hash.short()),
        None => format!("line {line}"),
    }
}

fn names<'a>(names: impl Iterator<Item = &'a PersonName>) -> String {
    names.map(PersonName::as_str).collect::<Vec<_>>().join(", ")
}

fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Generated { made } => {
            format!("made key {}, {}, tag {}", made.key, made.algorithm, made.tag)
        }
        Outcome::Adopted { made, .. } => {
            format!("adopted key {}, {}, tag {}", made.key, made.algorithm, made.tag)
        }
        Outcome::Signed { .. } => "signed".to_owned(),
        Outcome::Destroyed => "destroyed".to_owned(),
        Outcome::Unknown { reason } => {
            format!(
                "whether it was done is not known, and nothing was handed out: {}",
                say::plain(reason)
            )
        }
        Outcome::Failed { reason } => format!("not done: {}", say::plain(reason)),
    }
}
