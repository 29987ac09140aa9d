//! `ledger list|backup|restore`: the keeper's ledger as a file. A backup is a bundle; a restore is
//! verified from the founding on before anything is written, and never goes over a ledger that is there.

use std::fs::{self, File};
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use countersign_policy::tree::Hash;
use serde::Serialize;

use super::bundle::Bundle;
use super::desk::Desk;
use super::end::{End, Stop};
use super::files::{self, Existing};
use super::view::{Lines, connect, keeper_stop};
use super::{attention, audit, say};

/// The keeper's names for its files in `state_dir`.
const LEDGER_FILE: &str = "ledger.jsonl";
const CHECKPOINT_FILE: &str = "checkpoint";

#[derive(Debug, Subcommand)]
pub(super) enum LedgerVerb {
    /// The ledger's lines, as they are, unchecked.
    List {
        /// The first line wanted, from 0.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
    /// Write the whole ledger and its checkpoint to a file.
    Backup {
        /// The file; it must not be there yet.
        file: PathBuf,
    },
    /// Put a backup in the place of a ledger that was lost. Run as root, the keeper stopped.
    Restore {
        /// The backup.
        bundle: PathBuf,
        /// The keeper's `state_dir`.
        #[arg(long, value_name = "DIR")]
        state_dir: PathBuf,
    },
}

pub(super) fn run(mut desk: Desk<'_>, verb: LedgerVerb) -> Result<End, Stop> {
    match verb {
        LedgerVerb::List { from } => list(&mut desk, from),
        LedgerVerb::Backup { file } => audit::export(&mut desk, &file),
        LedgerVerb::Restore { bundle, state_dir } => restore(&mut desk, &bundle, &state_dir),
    }
}

fn list(desk: &mut Desk<'_>, from: u64) -> Result<End, Stop> {
    let mut keeper = connect(&desk.args.ledger_socket)?;
    let (lines, _) = keeper.head().map_err(keeper_stop)?;
    let lines = Lines::new(&mut keeper, from, lines);
    if desk.json {
        let parsed = lines.map(|line| {
            serde_json::from_slice(&line.map_err(keeper_stop)?).map_err(|error| {
                Stop::unsound(format!("the keeper shows a line that is no JSON: {error}"))
            })
        });
        let parsed: Vec<serde_json::Value> = parsed.collect::<Result<_, Stop>>()?;
        desk.print(&parsed, |_, _| Ok(()))?;
        return Ok(End::Fine);
    }
    for line in lines {
        // Each is a JSON object already. Nobody has checked it: a keeper that lies puts into it what moves
        // a terminal's cursor.
        let line = line.map_err(keeper_stop)?;
        writeln!(desk.out, "{}", say::lines(&String::from_utf8_lossy(&line)).replace('\n', "\\n"))?;
    }
    Ok(End::Fine)
}

/// What was restored, for programs.
#[derive(Debug, Serialize)]
struct Restored {
    founding: Hash,
    lines: u64,
    unsealed: u64,
    state_dir: PathBuf,
}

fn restore(desk: &mut Desk<'_>, bundle: &Path, state_dir: &Path) -> Result<End, Stop> {
    let Some(founding) = desk.args.founding else {
        return Err(Stop::usage(
            "which appliance is it? name the founding's hash with --founding, from the pin in \
             keeper.toml or from a founder",
        ));
    };
    let ledger = state_dir.join(LEDGER_FILE);
    is_free(&ledger)?;
    let verified = audit::verify_file(bundle, founding, &mut |_, _| {})?;
    let failed = |error: std::io::Error| files::cannot_write(&ledger, &error);
    let owner = fs::metadata(state_dir)
        .map_err(|error| Stop::failed(format!("{}: {error}", state_dir.display())))?;
    // The note goes first: a ledger without it would still be whole, but not known to be sealed.
    let note = verified.note.clone();
    let checkpoint = state_dir.join(CHECKPOINT_FILE);
    files::write_whole(&checkpoint, Existing::Keep, true, |file| {
        own(file, &owner)?;
        file.write_all(note.as_bytes())
    })
    .map_err(|error| files::cannot_write(&checkpoint, &error))?;
    let written = files::write_whole(&ledger, Existing::Keep, true, |file| {
        own(file, &owner)?;
        copy(bundle, file)
    });
    if let Err(error) = written {
        // Alone it would say that a ledger is missing.
        let _ = fs::remove_file(&checkpoint);
        return Err(failed(error));
    }
    let restored = Restored {
        founding,
        lines: verified.lines(),
        unsealed: verified.unsealed(),
        state_dir: state_dir.to_owned(),
    };
    desk.print(&restored, |restored, out| {
        writeln!(
            out,
            "{} lines of {founding} are in {}.\nIf lines are missing that a token has seen, the keeper \
             will say so and use no key until the recovery group starts a new origin.\nIf this is not the \
             box that held the tokens last, or not its state_dir, the keeper uses no key either until a \
             quorum moves the appliance: start it, then `countersign propose move-appliance` here. The box \
             before must be off for good.",
            restored.lines,
            restored.state_dir.display()
        )
    })?;
    Ok(attention(restored.unsealed > 0))
}

/// No ledger may be there, not even an empty one.
fn is_free(ledger: &Path) -> Result<(), Stop> {
    match fs::metadata(ledger) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Stop::failed(format!("{}: {error}", ledger.display()))),
        Ok(_) => Err(Stop::failed(format!(
            "{} is there; nothing was written. hint: it is evidence, even if it is damaged or empty: \
             stop the keeper, move it and the file `checkpoint` away, and restore then",
            ledger.display()
        ))),
    }
}

fn own(file: &File, owner: &fs::Metadata) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let now = file.metadata()?;
    if (now.uid(), now.gid()) == (owner.uid(), owner.gid()) {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// Copies the lines, which were verified a moment ago. One that another has changed since is seen by
/// the keeper, which folds them all again.
fn copy(bundle: &Path, to: &mut File) -> std::io::Result<()> {
    let other = |error: super::bundle::BundleError| std::io::Error::other(error.to_string());
    let lines = Bundle::open(BufReader::new(File::open(bundle)?)).map_err(other)?;
    let mut to = std::io::BufWriter::new(to);
    for line in lines {
        to.write_all(&line.map_err(other)?)?;
        to.write_all(b"\n")?;
    }
    to.flush()
}
