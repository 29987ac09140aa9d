//! `proposal list|show|withdraw`.

use clap::Subcommand;
use countersign_hsm::protocol::Submission;
use countersign_policy::ledger::Entry;
use countersign_policy::motion::MotionKind;
use countersign_policy::officer::PersonName;
use countersign_policy::ssh::Namespace;
use countersign_policy::statement::{StatementHash, Withdrawal};
use serde::Serialize;

use super::changes::changes;
use super::desk::Desk;
use super::end::{End, Stop};
use super::history::{self, History, Record};
use super::propose::{indented, judge};
use super::say;
use super::show::table;
use super::view::{View, submit_stop};

#[derive(Debug, Subcommand)]
pub(super) enum ProposalVerb {
    /// What waits for votes; with --all, everything that was ever proposed.
    List {
        /// Those that are over, too.
        #[arg(long)]
        all: bool,
    },
    /// One proposal: its exact text, its hash in words, and how it stands.
    Show {
        /// Its id, or 8 or more digits of it.
        id: String,
    },
    /// Take back what you proposed, before it begins.
    Withdraw {
        /// Its id, or 8 or more digits of it.
        id: String,
    },
}

/// A proposal, for programs.
#[derive(Debug, Serialize)]
struct Summary {
    id: StatementHash,
    kind: MotionKind,
    what: String,
    proposer: PersonName,
    line: u64,
    proposed_at: String,
    not_before: String,
    not_after: String,
    finish_by: String,
    status: String,
    votes: Vec<Vote>,
    /// The rule that it is judged by, or began by.
    rule: String,
    /// What it still wants before it begins.
    missing: Option<String>,
    /// Whose approvals carried it.
    carried_by: Vec<PersonName>,
    /// What it would change of what is in force, while it is open.
    changes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Vote {
    officer: PersonName,
    verb: &'static str,
    line: u64,
    at: String,
}

/// A proposal with its text.
#[derive(Debug, Serialize)]
struct Whole {
    #[serde(flatten)]
    summary: Summary,
    words: String,
    text: String,
}

pub(super) fn run(mut desk: Desk<'_>, verb: ProposalVerb) -> Result<End, Stop> {
    let mut history = History::default();
    let view = desk.view_each(|state, line| history.see(state, line))?;
    match verb {
        ProposalVerb::List { all } => list(&mut desk, &view, &history, all),
        ProposalVerb::Show { id } => {
            let (hash, record) = history.find(&id)?;
            show(&mut desk, &view, hash, record)
        }
        ProposalVerb::Withdraw { id } => {
            let (hash, record) = history.find(&id)?;
            withdraw(&mut desk, view, hash, record)
        }
    }
}

fn list(desk: &mut Desk<'_>, view: &View, history: &History, all: bool) -> Result<End, Stop> {
    let state = view.state();
    let summaries: Vec<Summary> = history
        .motions()
        .into_iter()
        .filter(|(hash, _)| all || history::is_open(state, hash))
        .map(|(hash, record)| summary(view, desk.now_s, *hash, record))
        .collect();
    desk.print(&summaries, |summaries, out| {
        let mut rows = table(&["id", "what", "by", "votes", "next", "until"]);
        for summary in summaries {
            let votes: Vec<String> = summary
                .votes
                .iter()
                .map(|vote| format!("{} {}", vote.officer, vote.verb))
                .collect();
            rows.add_row([
                summary.id.short(),
                summary.what.clone(),
                summary.proposer.to_string(),
                votes.join(", "),
                summary.missing.clone().unwrap_or_else(|| summary.status.clone()),
                summary.not_after.clone(),
            ]);
        }
        writeln!(out, "{rows}")
    })?;
    Ok(End::Fine)
}

fn summary(view: &View, now_s: u64, hash: StatementHash, record: &Record) -> Summary {
    let state = view.state();
    let statement = &record.statement;
    let votes = record.votes.iter().map(|vote| Vote {
        officer: vote.officer.clone(),
        verb: vote.verb.as_str(),
        line: vote.line,
        at: say::time(vote.at),
    });
    let open = history::is_open(state, &hash);
    let missing = open.then(|| match state.quorum(&hash, now_s) {
        Ok(_) => "the keeper begins it by itself".to_owned(),
        Err(not_yet) => not_yet.to_string(),
    });
    let began = record.began.as_ref();
    Summary {
        id: hash,
        kind: statement.motion.kind(),
        what: say::motion(&statement.motion),
        proposer: statement.proposer.clone(),
        line: record.line,
        proposed_at: say::time(record.at),
        not_before: say::time(statement.not_before),
        not_after: say::time(statement.not_after),
        finish_by: say::time(statement.finish_by),
        status: record.standing(state, &hash),
        votes: votes.collect(),
        rule: began.map_or_else(|| history::rule(state, statement), |began| began.rule.clone()),
        missing,
        changes: if open { changes(state, &statement.motion) } else { Vec::new() },
        carried_by: began.map(|began| began.approvers.clone()).unwrap_or_default(),
    }
}

fn show(
    desk: &mut Desk<'_>,
    view: &View,
    hash: StatementHash,
    record: &Record,
) -> Result<End, Stop> {
    let whole = Whole {
        summary: summary(view, desk.now_s, hash, record),
        words: hash.words(),
        text: record.statement.to_text(),
    };
    desk.print(&whole, |whole, out| {
        let summary = &whole.summary;
        writeln!(out, "{}", whole.text)?;
        writeln!(out, "id      {}", summary.id)?;
        writeln!(out, "words   {}", indented(&whole.words, 8))?;
        writeln!(out, "what    {}", summary.what)?;
        for change in &summary.changes {
            writeln!(out, "        {change}")?;
        }
        writeln!(out, "status  {}, proposed at line {}", summary.status, summary.line)?;
        writeln!(out, "rule    {}", summary.rule)?;
        for vote in &summary.votes {
            writeln!(
                out,
                "vote    {} {} at {}, line {}",
                vote.officer, vote.verb, vote.at, vote.line
            )?;
        }
        match &summary.missing {
            Some(missing) => writeln!(out, "next    {missing}"),
            None => Ok(()),
        }
    })?;
    Ok(End::Fine)
}

/// What was withdrawn, for programs.
#[derive(Debug, Serialize)]
struct Withdrawn {
    id: StatementHash,
    line: u64,
}

fn withdraw(
    desk: &mut Desk<'_>,
    mut view: View,
    hash: StatementHash,
    record: &Record,
) -> Result<End, Stop> {
    let hand = desk.hand(view.state().roster())?;
    let proposer = &record.statement.proposer;
    if hand.person != *proposer {
        return Err(Stop::usage(format!(
            "{} was proposed by {proposer}, who alone withdraws it; {} can `deny` it or `freeze`",
            hash.short(),
            hand.person
        )));
    }
    let officer = hand.person.clone();
    let text = Withdrawal { appliance: view.ledger.appliance, officer, statement: hash }.to_text();
    let signature = hand.sign(Namespace::Withdraw, &text)?;
    judge(&view, desk.now_s, Entry::Withdrawn { statement: hash, signature: signature.clone() })?;
    let submission = Submission::Withdraw { text, signature };
    let line = view.keeper.submit(submission).map_err(submit_stop)?;
    desk.print(&Withdrawn { id: hash, line }, |withdrawn, out| {
        writeln!(out, "{} is withdrawn, line {line}", withdrawn.id.short())
    })?;
    Ok(End::Fine)
}
