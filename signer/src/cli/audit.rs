//! `audit log|verify|export`. `verify` needs nobody: it folds a bundle from the founding on, which
//! judges every line, compares the founding with the hash that the auditor brings, verifies the
//! checkpoint, and prints one page; it stops at the first thing that does not hold, and names it.

mod page;

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use countersign_policy::checkpoint::{self, CheckpointError};
use countersign_policy::ledger::Line;
use countersign_policy::state::LedgerState;
use countersign_policy::tree::{Hash, Tree, TreeHead};
use serde::Serialize;

use super::attention;
use super::bundle::{self, Bundle, BundleError, WriteError};
use super::desk::Desk;
use super::end::{End, Stop};
use super::events::{self, Event};
use super::files::{self, Existing};
use super::history::History;
use super::view::{FoldError, Folded, Lines, connect, fold, keeper_stop};

#[derive(Debug, Subcommand)]
pub(super) enum AuditVerb {
    /// Who did what, when, and under which rule: one line each.
    Log {
        /// The first line wanted, from 0.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
    /// Prove a bundle from its founding on; needs no keeper, and --founding.
    Verify {
        /// The bundle, from `audit export` or `ledger backup`.
        bundle: PathBuf,
    },
    /// Write the ledger and a fresh checkpoint to a file, for an auditor.
    Export {
        /// The file; it must not be there yet.
        file: PathBuf,
    },
}

pub(super) fn run(mut desk: Desk<'_>, verb: AuditVerb) -> Result<End, Stop> {
    match verb {
        AuditVerb::Log { from } => log(&mut desk, from),
        AuditVerb::Verify { bundle } => verify(&mut desk, &bundle),
        AuditVerb::Export { file } => export(&mut desk, &file),
    }
}

fn log(desk: &mut Desk<'_>, from: u64) -> Result<End, Stop> {
    let (mut history, mut events) = (History::default(), Vec::<Event>::new());
    desk.view_each(|state, line| {
        if line.seq >= from {
            events.push(events::event(state, &history, line));
        }
        history.see(state, line);
    })?;
    desk.print(&events, |events, out| {
        for event in events {
            let Event { line, at, who, what, under, .. } = event;
            let under = under.as_ref().map(|under| format!(" (under {under})")).unwrap_or_default();
            writeln!(out, "{line:>6}  {at}  {who}: {what}{under}")?;
        }
        Ok(())
    })?;
    Ok(End::Fine)
}

fn verify(desk: &mut Desk<'_>, bundle: &Path) -> Result<End, Stop> {
    let Some(founding) = desk.args.founding else {
        return Err(Stop::usage(
            "which appliance must it be? name the founding's hash with --founding: a bundle alone \
             proves nothing about who was meant to have a say",
        ));
    };
    let mut history = History::default();
    let verified = verify_file(bundle, founding, &mut |state, line| history.see(state, line))?;
    let page = page::Page::new(&verified, &history);
    desk.print(&page, page::print)?;
    Ok(attention(verified.unsealed() > 0))
}

/// A bundle that holds.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) ledger: Folded,
    /// Its checkpoint.
    pub(super) note: String,
    /// What the checkpoint seals.
    pub(super) sealed: TreeHead,
}

impl Verified {
    pub(super) fn lines(&self) -> u64 {
        self.ledger.state.next_seq()
    }

    /// Lines behind those that the checkpoint seals.
    pub(super) fn unsealed(&self) -> u64 {
        self.lines() - self.sealed.size
    }
}

/// Verifies a bundle.
pub(super) fn verify_file(
    path: &Path,
    founding: Hash,
    before: &mut dyn FnMut(&LedgerState, &Line),
) -> Result<Verified, Stop> {
    let file =
        File::open(path).map_err(|error| Stop::failed(format!("{}: {error}", path.display())))?;
    verify_bundle(BufReader::new(file), founding, before).map_err(|problem| {
        let text = format!("{} {problem}", path.display());
        match problem {
            // A disk that fails says nothing about the ledger.
            Unsound::Bundle(BundleError::Io(_)) => Stop::failed(text),
            _ => Stop::unsound(text),
        }
    })
}

/// What is wrong with a bundle.
#[derive(Debug, thiserror::Error)]
enum Unsound {
    #[error("{0}")]
    Bundle(#[from] BundleError),
    #[error("does not hold, from this line on: {0}")]
    Line(countersign_policy::ledger::LedgerError),
    #[error("is another appliance's: its founding is {shown}, expected {expected}")]
    OtherFounding { shown: Hash, expected: Hash },
    #[error("holds no line")]
    Empty,
    #[error("has a checkpoint that does not hold: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("has a checkpoint by an audit key of another time than that of its {0} lines")]
    KeyOfAnotherTime(u64),
    #[error("has a checkpoint of {sealed} lines and holds {lines}: the others were taken away")]
    Truncated { sealed: u64, lines: u64 },
    #[error(
        "has lines that are not those that its checkpoint seals: the first {0} have another root, so a \
         line that needs nobody's signature was changed, or the checkpoint is of a fork"
    )]
    OtherRoot(u64),
}

fn verify_bundle(
    reader: impl std::io::BufRead,
    founding: Hash,
    before: &mut dyn FnMut(&LedgerState, &Line),
) -> Result<Verified, Unsound> {
    let mut lines = Bundle::open(reader)?;
    let ledger = fold(lines.by_ref(), Some(founding), before).map_err(|error| match error {
        FoldError::Source(error) => Unsound::Bundle(error),
        FoldError::Line(error) => Unsound::Line(error),
        FoldError::OtherFounding { shown, expected } => Unsound::OtherFounding { shown, expected },
        FoldError::Empty => Unsound::Empty,
    })?;
    let sealed = check_note(&ledger, &lines.note)?;
    Ok(Verified { ledger, note: lines.note, sealed })
}

/// What a checkpoint seals: by the audit key of its time, over the lines that are there.
fn check_note(ledger: &Folded, note: &str) -> Result<TreeHead, Unsound> {
    let origin = checkpoint::origin(&ledger.appliance);
    let mut refused = None;
    let mut sealed = None;
    for key in ledger.audit_keys() {
        match checkpoint::verify(note, &origin, key) {
            Ok(head) => sealed = Some((head, key)),
            Err(error) => refused = Some(error),
        }
    }
    let (sealed, key) = match (sealed, refused) {
        (Some(sealed), _) => sealed,
        (None, Some(error)) => return Err(error.into()),
        (None, None) => return Err(Unsound::Empty),
    };
    let lines = ledger.state.next_seq();
    if sealed.size > lines {
        return Err(Unsound::Truncated { sealed: sealed.size, lines });
    }
    if ledger.audit_key_at(sealed.size) != Some(key) {
        return Err(Unsound::KeyOfAnotherTime(sealed.size));
    }
    if !ledger.state.tree().contains(&sealed) {
        return Err(Unsound::OtherRoot(sealed.size));
    }
    Ok(sealed)
}

/// What was written, for programs.
#[derive(Debug, Serialize)]
struct Exported {
    file: PathBuf,
    founding: Hash,
    lines: u64,
    sealed: u64,
    root: Hash,
}

/// Writes a bundle of the ledger as it is now.
pub(super) fn export(desk: &mut Desk<'_>, file: &Path) -> Result<End, Stop> {
    // The checkpoint first: the ledger that is read after it has all of its lines.
    let note = connect(&desk.args.ledger_socket)?.checkpoint().map_err(keeper_stop)?;
    let mut view = desk.view()?;
    let sealed = check_note(&view.ledger, &note)
        .map_err(|problem| Stop::unsound(format!("what the keeper shows {problem}")))?;
    let head = view.ledger.head();
    let keeper = &mut view.keeper;
    let mut stopped = None;
    let written = files::write_whole(file, Existing::Keep, false, |file| {
        let (mut out, mut tree) = (BufWriter::new(file), Tree::new());
        let lines = Lines::new(keeper, 0, head.size).inspect(|line| {
            if let Ok(line) = line {
                tree.push(line);
            }
        });
        match bundle::write(&mut out, &note, head.size, lines) {
            Ok(()) => {}
            Err(WriteError::Write(error)) => return Err(error),
            Err(WriteError::Read(error)) => {
                stopped = Some(keeper_stop(error));
                return Err(std::io::Error::other("the keeper broke off"));
            }
        }
        std::io::Write::flush(&mut out)?;
        if tree.head() != head {
            stopped = Some(Stop::unsound(
                "the keeper showed other lines the second time; nothing was written",
            ));
            return Err(std::io::Error::other("other lines"));
        }
        Ok(())
    });
    if let Some(stop) = stopped {
        return Err(stop);
    }
    written.map_err(|error| files::cannot_write(file, &error))?;
    let exported = Exported {
        file: file.to_owned(),
        founding: view.ledger.appliance,
        lines: head.size,
        sealed: sealed.size,
        root: head.root,
    };
    desk.print(&exported, |exported, out| {
        writeln!(
            out,
            "{}: {} lines, sealed up to line {}\nwhoever has the founding's hash can prove it: countersign \
             audit verify {} --founding {}",
            exported.file.display(),
            exported.lines,
            exported.sealed.saturating_sub(1),
            exported.file.display(),
            exported.founding
        )
    })?;
    Ok(attention(sealed.size < head.size))
}
