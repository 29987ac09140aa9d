//! `approve ID` and `deny ID`: an officer's word on a statement, in one text with it.
//!
//! With `--export FILE` the text goes to a machine that has no network; what `ssh-keygen` makes of it
//! there comes back with `--import FILE.sig`, is checked here, and is sent. What is shown, exported,
//! signed and sent are the same octets.

use std::path::{Path, PathBuf};

use clap::Args;
use countersign_hsm::protocol::Submission;
use countersign_policy::ledger::Entry;
use countersign_policy::motion::MotionKind;
use countersign_policy::officer::PersonName;
use countersign_policy::ssh::{ARMOR_BYTES_MAX, Namespace, Signature};
use countersign_policy::statement::{StatementHash, TEXT_BYTES_MAX, Verb, Verdict};
use serde::Serialize;

use super::changes::changes;
use super::desk::{self, Desk};
use super::end::{End, Stop};
use super::files::{self, Existing};
use super::propose::{indented, judge, refused};
use super::view::{View, submit_stop};
use super::{ask, say, sign};

/// A verdict's text: a statement's and three lines.
const VERDICT_BYTES_MAX: usize = TEXT_BYTES_MAX + 1024;

/// A text of more lines is no longer whole on an ordinary terminal when the question is asked.
const SCREEN_LINES: usize = 24;

/// Which proposal, and how the signature is made.
#[derive(Debug, Args)]
pub(super) struct VoteArgs {
    /// The proposal's id, or 8 or more digits of it.
    id: String,
    /// Write the text to this file, to be signed on another machine. Needs --as.
    #[arg(long, value_name = "FILE", conflicts_with = "import")]
    export: Option<PathBuf>,
    /// Send the signature in this file, over the text that --export wrote beside it.
    #[arg(long, value_name = "FILE.sig")]
    import: Option<PathBuf>,
}

/// What was said, for programs.
#[derive(Debug, Serialize)]
struct Voted {
    id: StatementHash,
    words: String,
    verb: &'static str,
    officer: PersonName,
    line: u64,
    /// What it still wants before it begins; absent if this was the last.
    missing: Option<String>,
}

/// What was written for another machine, for programs.
#[derive(Debug, Serialize)]
struct Exported {
    id: StatementHash,
    words: String,
    file: PathBuf,
    command: String,
}

pub(super) fn run(mut desk: Desk<'_>, verb: Verb, args: VoteArgs) -> Result<End, Stop> {
    let view = desk.view()?;
    let (hash, proposal) = desk::proposal(view.state(), &args.id)?;
    let statement = (*proposal.statement).clone();
    if view.borne.is_some() && statement.motion.kind() != MotionKind::NewOrigin {
        return Err(Stop::usage("--behind is for new-origin alone; the ledger is behind the pin"));
    }
    let text = |officer: PersonName| {
        let checkpoint = view.ledger.head();
        Verdict { verb, officer, checkpoint, statement: statement.clone() }
    };
    if let Some(file) = args.import {
        return import(&mut desk, view, verb, hash, &file);
    }
    if let Some(file) = args.export {
        let Some(officer) = desk.args.person.clone() else {
            return Err(Stop::usage("whose word is it? name the officer with --as"));
        };
        let verdict = text(officer);
        could_send(&view, &verdict, desk.now_s)?;
        return export(&mut desk, &verdict, &file);
    }
    let hand = desk.hand(view.state().roster())?;
    let verdict = text(hand.person.clone());
    could_send(&view, &verdict, desk.now_s)?;
    let text = verdict.to_text();
    if !desk.json || !desk.args.yes {
        show(&mut desk, &view, &verdict, &text)?;
    }
    ask::confirm(verb.as_str(), &hash.words(), desk.args.yes)?;
    let signature = hand.sign(namespace(verb), &text)?;
    send(&mut desk, view, verdict, text, signature)
}

/// That the keeper would take it, by the same fold: nobody is asked to sign what will be refused.
fn could_send(view: &View, verdict: &Verdict, now_s: u64) -> Result<(), Stop> {
    let Verdict { verb, officer, checkpoint, statement } = verdict;
    view.state()
        .takes_verdict(&statement.hash(), *verb, officer, checkpoint, now_s)
        .map_err(|error| refused(&error))
}

fn namespace(verb: Verb) -> Namespace {
    match verb {
        Verb::Approve => Namespace::Approve,
        Verb::Deny => Namespace::Deny,
    }
}

/// Shows what will be signed. With --json on standard error, so that results stay apart.
fn show(desk: &mut Desk<'_>, view: &View, verdict: &Verdict, text: &str) -> Result<(), Stop> {
    let Verdict { verb, officer, statement, .. } = verdict;
    let hash = statement.hash();
    let mut would = format!("{officer} would {verb}: {}\n", say::motion(&statement.motion));
    for change in changes(view.state(), &statement.motion) {
        would.push_str("  ");
        would.push_str(&change);
        would.push('\n');
    }
    let lines = text.lines().count();
    let long = if lines > SCREEN_LINES {
        format!(
            "text       {lines} lines; in pieces: countersign proposal show {} | less\n",
            hash.short()
        )
    } else {
        String::new()
    };
    let words = indented(&hash.words(), 11);
    desk.show(&format!("{text}\n{would}{long}statement  {hash}\nwords      {words}\n\n"))
}

fn export(desk: &mut Desk<'_>, verdict: &Verdict, file: &Path) -> Result<End, Stop> {
    let (text, hash) = (verdict.to_text(), verdict.statement.hash());
    files::write_text(file, Existing::Keep, &text)?;
    let command = sign::command_line(namespace(verdict.verb), file);
    let exported = Exported { id: hash, words: hash.words(), file: file.to_owned(), command };
    let verb = verdict.verb;
    desk.print(&exported, |exported, out| {
        writeln!(out, "{text}\nstatement  {hash}\nwords      {}\n", indented(&exported.words, 11))?;
        writeln!(
            out,
            "{} holds this text. Read it on the machine that signs, and there:",
            file.display()
        )?;
        writeln!(out, "  {}", exported.command)?;
        writeln!(out, "Bring {}.sig back beside it, and here:", file.display())?;
        writeln!(out, "  countersign {verb} {} --import {}.sig", hash.short(), file.display())
    })?;
    Ok(End::Fine)
}

fn import(
    desk: &mut Desk<'_>,
    view: View,
    verb: Verb,
    hash: StatementHash,
    file: &Path,
) -> Result<End, Stop> {
    if file.extension().is_none_or(|extension| extension != "sig") {
        return Err(Stop::usage(format!(
            "{}: expected FILE.sig, as ssh-keygen names it, beside the FILE that --export wrote",
            file.display()
        )));
    }
    let text_file = file.with_extension("");
    if !text_file.exists() {
        return Err(Stop::usage(format!(
            "{} is not there: the text that --export wrote has to lie beside its signature, under \
             that name",
            text_file.display()
        )));
    }
    let text = files::read_text(&text_file, VERDICT_BYTES_MAX)?;
    let verdict = Verdict::parse(&text)
        .map_err(|error| Stop::failed(format!("{}: {error}", text_file.display())))?;
    if verdict.verb != verb {
        return Err(Stop::usage(format!(
            "{} says {}, not {verb}; say `countersign {} …`",
            text_file.display(),
            verdict.verb,
            verdict.verb
        )));
    }
    if verdict.statement.hash() != hash {
        return Err(Stop::usage(format!(
            "{} is about the statement {}, not {}",
            text_file.display(),
            verdict.statement.hash().short(),
            hash.short()
        )));
    }
    if let Some(person) = &desk.args.person
        && *person != verdict.officer
    {
        return Err(Stop::usage(format!(
            "{} is {}'s word, not {person}'s",
            text_file.display(),
            verdict.officer
        )));
    }
    let armored = files::read_text(file, ARMOR_BYTES_MAX)?;
    let wrong =
        |problem: String| Stop::failed(format!("{}: {problem}; nothing was sent", file.display()));
    let signature = Signature::from_armored(&armored).map_err(|error| wrong(error.to_string()))?;
    let signer = sign::signer_of(view.state().roster(), &signature, namespace(verb), &text)
        .map_err(wrong)?;
    if *signer != verdict.officer {
        return Err(wrong(format!("it is {signer}'s, and the text is {}'s", verdict.officer)));
    }
    if !desk.json {
        let by = signature.claimed_key().fingerprint();
        writeln!(desk.out, "the signature is good: {signer}, {by}, over this very text\n")?;
        show(desk, &view, &verdict, &text)?;
    }
    ask::confirm(&format!("send this {}", noun(verb)), &hash.words(), desk.args.yes)?;
    send(desk, view, verdict, text, signature)
}

fn noun(verb: Verb) -> &'static str {
    match verb {
        Verb::Approve => "approval",
        Verb::Deny => "denial",
    }
}

fn send(
    desk: &mut Desk<'_>,
    mut view: View,
    verdict: Verdict,
    text: String,
    signature: Signature,
) -> Result<End, Stop> {
    let hash = verdict.statement.hash();
    let Verdict { verb, officer, checkpoint, .. } = verdict;
    let entry = Entry::Verdict {
        statement: hash,
        verb,
        officer: officer.clone(),
        checkpoint,
        signature: signature.clone(),
    };
    judge(&view, desk.now_s, entry.clone())?;
    let line = view.keeper.submit(Submission::Verdict { text, signature }).map_err(submit_stop)?;
    let voted = Voted {
        id: hash,
        words: hash.words(),
        verb: verb.as_str(),
        officer,
        line,
        missing: view.missing_after(entry, &hash, desk.now_s),
    };
    desk.print(&voted, |voted, out| {
        let done = match verb {
            Verb::Approve => "approved",
            Verb::Deny => "denied",
        };
        writeln!(out, "{done} by {} at line {line}", voted.officer)?;
        match &voted.missing {
            Some(missing) => writeln!(out, "{missing}"),
            None => writeln!(out, "its quorum is met: the keeper begins it by itself"),
        }
    })?;
    Ok(End::Fine)
}
