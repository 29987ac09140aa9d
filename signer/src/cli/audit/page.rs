//! The page that an auditor gets: what the appliance is, who has a say by which rules, what was moved
//! and by whom, and what came of it.

use std::collections::BTreeMap;
use std::io::{Result, Write};

use countersign_policy::key_state::Stage;
use countersign_policy::motion::MotionKind;
use countersign_policy::officer::{PersonName, Role};
use countersign_policy::statement::{StatementHash, Verb};
use countersign_policy::tree::Hash;
use countersign_policy::{KeyId, KeyRole, ZoneName};
use serde::Serialize;

use super::Verified;
use crate::cli::history::{History, Record};
use crate::cli::say;
use crate::cli::show::table;

/// What was proven.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    appliance: String,
    founding: Hash,
    founded_at: String,
    lines: u64,
    root: Hash,
    /// How many of the lines the checkpoint seals.
    sealed: u64,
    audit_key: Option<KeyId>,
    officers_version: u64,
    officers: Vec<(PersonName, Role, usize)>,
    rules_version: u64,
    rules: Vec<(MotionKind, String)>,
    recovery: Option<String>,
    motions: Vec<Moved>,
    keys: Vec<KeyState>,
    frozen: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Moved {
    id: StatementHash,
    what: String,
    proposer: PersonName,
    proposed_line: u64,
    approved_by: Vec<PersonName>,
    denied_by: Vec<PersonName>,
    rule: Option<String>,
    begun_line: Option<u64>,
    begun_at: Option<String>,
    outcome: String,
}

#[derive(Debug, Serialize)]
struct KeyState {
    zone: ZoneName,
    role: KeyRole,
    key: KeyId,
    tag: u16,
    stage: Stage,
    made_at_line: u64,
    under_line: u64,
    conflict: Option<String>,
}

impl Page {
    pub(super) fn new(verified: &Verified, history: &History) -> Self {
        let (ledger, state) = (&verified.ledger, &verified.ledger.state);
        let head = ledger.head();
        let officers = state
            .roster()
            .0
            .iter()
            .map(|(person, officer)| (person.clone(), officer.role, officer.keys.len()));
        let keys = state.keys().iter().map(|(key, record)| KeyState {
            zone: record.zone.clone(),
            role: record.role,
            key: *key,
            tag: record.tag,
            stage: record.stage,
            made_at_line: record.made_by,
            under_line: record.under,
            conflict: record.conflict.as_deref().map(say::plain),
        });
        let frozen = state.freezes().map(|freeze| {
            let (what, reason) = (say::scope(&freeze.scope), say::plain(&freeze.reason));
            format!("{what}, by {} at line {}: {reason}", freeze.officer, freeze.line)
        });
        let recovery = state.recovery();
        Self {
            appliance: ledger.name().to_owned(),
            founding: ledger.appliance,
            founded_at: state.founding().map_or_else(String::new, |f| say::time(f.time)),
            lines: head.size,
            root: head.root,
            sealed: verified.sealed.size,
            audit_key: state.audit().map(|(_, key)| key.public().id()),
            officers_version: state.officers_version(),
            officers: officers.collect(),
            rules_version: state.rules_version(),
            rules: state.rules().0.iter().map(|(kind, rule)| (*kind, rule.to_string())).collect(),
            recovery: recovery.map(|rule| format!("{} after {} s", rule.rule(), rule.delay_s)),
            motions: history
                .motions()
                .into_iter()
                .map(|(hash, record)| moved(verified, *hash, record))
                .collect(),
            keys: keys.collect(),
            frozen: frozen.collect(),
        }
    }
}

fn moved(verified: &Verified, hash: StatementHash, record: &Record) -> Moved {
    let state = &verified.ledger.state;
    let began = record.began.as_ref();
    let denied = record.votes.iter().filter(|vote| vote.verb == Verb::Deny);
    Moved {
        id: hash,
        what: say::motion(&record.statement.motion),
        proposer: record.statement.proposer.clone(),
        proposed_line: record.line,
        approved_by: began.map_or_else(|| record.approvers(state), |began| began.approvers.clone()),
        denied_by: denied.map(|vote| vote.officer.clone()).collect(),
        rule: began.map(|began| began.rule.clone()),
        begun_line: began.map(|began| began.line),
        begun_at: began.map(|began| say::time(began.at)),
        outcome: record.standing(state, &hash),
    }
}

pub(super) fn print(page: &Page, out: &mut (dyn Write + Send)) -> Result<()> {
    let sealed = match page.lines - page.sealed {
        0 => "all sealed by its checkpoint".to_owned(),
        1 => "the last one not sealed by its checkpoint".to_owned(),
        count => format!("the last {count} not sealed by its checkpoint"),
    };
    let mut rows = table(&["appliance", &page.appliance]);
    rows.add_row(["founding", &page.founding.to_string()]);
    rows.add_row(["founded", &page.founded_at]);
    rows.add_row(["ledger", &format!("{} lines, every one follows; {sealed}", page.lines)]);
    rows.add_row(["root", &page.root.to_string()]);
    let key = page.audit_key.map_or_else(|| "none".to_owned(), |key| key.to_string());
    rows.add_row(["audit key", &key]);
    writeln!(out, "{rows}\n\nofficers, version {}", page.officers_version)?;
    let mut rows = table(&["person", "role", "keys"]);
    for (person, role, keys) in &page.officers {
        rows.add_row([person.to_string(), role.to_string(), keys.to_string()]);
    }
    writeln!(out, "{rows}\n\nrules, version {}", page.rules_version)?;
    let mut rows = table(&["takes", "motions"]);
    let mut alike: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (kind, rule) in &page.rules {
        alike.entry(rule).or_default().push(kind.as_str());
    }
    for (rule, kinds) in alike {
        rows.add_row([rule, &kinds.join(", ")]);
    }
    if let Some(rule) = &page.recovery {
        rows.add_row([rule, "recovery"]);
    }
    writeln!(out, "{rows}\n\nmotions")?;
    motions(&page.motions, out)?;
    writeln!(out, "\nkeys")?;
    let mut rows = table(&["zone", "role", "tag", "key", "stage", "made at", "under"]);
    for key in &page.keys {
        rows.add_row([
            key.zone.to_string(),
            key.role.to_string(),
            key.tag.to_string(),
            say::short(&key.key),
            match &key.conflict {
                Some(conflict) => format!("{}, refused: {conflict}", key.stage),
                None => key.stage.to_string(),
            },
            format!("line {}", key.made_at_line),
            format!("line {}", key.under_line),
        ]);
    }
    writeln!(out, "{rows}")?;
    for freeze in &page.frozen {
        writeln!(out, "\nfrozen: {freeze}")?;
    }
    Ok(())
}

fn motions(motions: &[Moved], out: &mut (dyn Write + Send)) -> Result<()> {
    let names = |names: &[PersonName]| {
        let names: Vec<&str> = names.iter().map(PersonName::as_str).collect();
        if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
    };
    let mut rows = table(&["id", "what", "proposed by", "approved by", "rule", "outcome"]);
    for moved in motions {
        let mut said = names(&moved.approved_by);
        if !moved.denied_by.is_empty() {
            said = format!("{said}; denied by {}", names(&moved.denied_by));
        }
        rows.add_row([
            moved.id.short(),
            moved.what.clone(),
            format!("{}, line {}", moved.proposer, moved.proposed_line),
            said,
            moved.rule.clone().unwrap_or_else(|| "-".to_owned()),
            moved.outcome.clone(),
        ]);
    }
    writeln!(out, "{rows}")
}
