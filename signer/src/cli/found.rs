//! `found`: the founding, in three steps that no person does alone.
//!
//! 1. `found draft` (or `found` on a terminal, which asks) puts who has a say, by which rules, and what
//!    the keeper's survey shows into the founding's text.
//! 2. `found sign`, by everyone on the roster, each on their own machine: reads the text, signs it, and
//!    pins it there.
//! 3. `found submit` gives text and signatures to the keeper, which takes them only if root has pinned
//!    the text's hash in keeper.toml.

mod draft;
mod guided;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use countersign_hsm::client::ClientError;
use countersign_hsm::protocol::{Mode, RefusalKind};
use countersign_policy::founding::Founding;
use countersign_policy::ledger::{Entry, Line};
use countersign_policy::officer::PersonName;
use countersign_policy::ssh::{ARMOR_BYTES_MAX, Namespace, Signature};
use countersign_policy::state::LedgerState;
use countersign_policy::tree::{Hash, Tree};
use countersign_policy::words::words;
use serde::Serialize;

use super::desk::Desk;
use super::end::{End, Stop};
use super::files::{self, Existing};
use super::pins::Pin;
use super::propose::indented;
use super::sign::{Hand, signer_of};
use super::view::{connect, keeper_stop, submit_stop};
use super::{ask, say};

/// A founding's text: its parser takes no longer one.
const TEXT_BYTES_MAX: usize = countersign_policy::founding::TEXT_BYTES_MAX;

/// Founds an appliance; without a verb, asks for everything and writes the text.
#[derive(Debug, Args)]
pub(super) struct FoundArgs {
    #[command(subcommand)]
    verb: Option<FoundVerb>,
}

#[derive(Debug, Subcommand)]
enum FoundVerb {
    /// Write the founding's text from a TOML file and the keeper's survey.
    Draft {
        /// The file: name, tokens, officers, rules.
        #[arg(long, value_name = "FILE.toml")]
        from: PathBuf,
        /// Where the text goes; by default NAME.founding. It must not be there yet.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Sign a founding's text, as one of its roster: TEXT.PERSON.sig.
    Sign {
        /// The text.
        text: PathBuf,
    },
    /// Give the text and everyone's signatures to the keeper.
    Submit {
        /// The text.
        text: PathBuf,
        /// Everyone's signatures.
        #[arg(required = true)]
        signatures: Vec<PathBuf>,
    },
}

pub(super) fn run(mut desk: Desk<'_>, args: FoundArgs) -> Result<End, Stop> {
    match args.verb {
        None => {
            let plan = guided::ask(&desk.args)?;
            write_draft(&mut desk, plan.draft, plan.out)
        }
        Some(FoundVerb::Draft { from, out }) => {
            let draft = draft::read(&from)?;
            write_draft(&mut desk, draft, out)
        }
        Some(FoundVerb::Sign { text }) => sign(&mut desk, &text),
        Some(FoundVerb::Submit { text, signatures }) => submit(&mut desk, &text, &signatures),
    }
}

/// What was drafted, for programs.
#[derive(Debug, Serialize)]
struct Drafted {
    file: PathBuf,
    hash: Hash,
    words: String,
    sign: Vec<PersonName>,
    pin: String,
}

/// The line that root puts into keeper.toml.
fn pin_line(hash: &Hash) -> String {
    format!("founding = \"{hash}\"")
}

fn write_draft(
    desk: &mut Desk<'_>,
    draft: draft::Draft,
    out: Option<PathBuf>,
) -> Result<End, Stop> {
    let mut keeper = connect(&desk.args.ledger_socket)?;
    if *keeper.mode() != Mode::Unfounded {
        return Err(Stop::failed(
            "this keeper is founded already, and an appliance is founded once",
        ));
    }
    let survey = keeper.survey().map_err(keeper_stop)?;
    let founding = draft.founding(survey, desk.now_s)?;
    let text = founding.to_text();
    // Whatever the parser refuses would be refused from everyone who signs it.
    Founding::parse(&text).map_err(|error| Stop::usage(format!("the founding's text: {error}")))?;
    let file = out.unwrap_or_else(|| PathBuf::from(format!("{}.founding", founding.name)));
    files::write_text(&file, Existing::Keep, &text)?;
    let hash = Hash::of(text.as_bytes());
    let drafted = Drafted {
        file: file.clone(),
        hash,
        words: words(&hash.0),
        sign: founding.roster.0.keys().cloned().collect(),
        pin: pin_line(&hash),
    };
    desk.print(&drafted, |drafted, out| {
        writeln!(out, "{text}")?;
        writeln!(out, "{} holds this text.\n", file.display())?;
        writeln!(out, "founding  {hash}\nwords     {}\n", indented(&drafted.words, 10))?;
        let people: Vec<&str> = drafted.sign.iter().map(PersonName::as_str).collect();
        writeln!(out, "Everyone on it ({}) reads it and signs it:", people.join(", "))?;
        writeln!(out, "  countersign found sign {} --identity KEY", file.display())?;
        writeln!(out, "Root puts this line under [keeper] in keeper.toml:\n  {}", drafted.pin)?;
        writeln!(
            out,
            "Then, with all signatures:\n  countersign found submit {0} {0}.*.sig",
            file.display()
        )
    })?;
    Ok(End::Fine)
}

/// A founding's text, and what it says.
fn read_founding(file: &Path) -> Result<(String, Founding, Hash), Stop> {
    let text = files::read_text(file, TEXT_BYTES_MAX)?;
    let founding = Founding::parse(&text)
        .map_err(|error| Stop::failed(format!("{}: {error}", file.display())))?;
    let hash = Hash::of(text.as_bytes());
    Ok((text, founding, hash))
}

/// What was signed, for programs.
#[derive(Debug, Serialize)]
struct Signed {
    person: PersonName,
    hash: Hash,
    file: PathBuf,
}

fn sign(desk: &mut Desk<'_>, file: &Path) -> Result<End, Stop> {
    let (text, founding, hash) = read_founding(file)?;
    expect_hash(desk, &hash)?;
    let hand =
        Hand::find(&founding.roster, desk.args.person.as_ref(), desk.args.identity.as_deref())?;
    let shown = format!(
        "{text}\n{} ({}) would sign this.\nfounding  {hash}\nwords     {}\n\n",
        hand.person,
        hand.role,
        indented(&words(&hash.0), 10)
    );
    desk.show(&shown)?;
    ask::confirm("sign", &words(&hash.0), desk.args.yes)?;
    let signature = hand.sign(Namespace::Found, &text)?;
    let to = files::with_suffix(file, &format!("{}.sig", hand.person));
    files::write_text(&to, Existing::Keep, &signature.to_armored())?;
    pin(desk, &founding, hash)?;
    desk.print(&Signed { person: hand.person, hash, file: to }, |signed, out| {
        writeln!(out, "signed by {}: {}", signed.person, signed.file.display())?;
        writeln!(out, "this machine knows the appliance by that hash from now on")
    })?;
    Ok(End::Fine)
}

fn expect_hash(desk: &Desk<'_>, hash: &Hash) -> Result<(), Stop> {
    match desk.args.founding {
        Some(expected) if expected != *hash => Err(Stop::unsound(format!(
            "this is another founding.\n  expected {expected}\n  found    {hash}"
        ))),
        _ => Ok(()),
    }
}

/// Whoever signs a founding has read it: its appliance is known here from then on.
fn pin(desk: &Desk<'_>, founding: &Founding, hash: Hash) -> Result<(), Stop> {
    let pins = desk.pins()?;
    let lock = pins.lock()?;
    if pins.read(&hash)?.is_some() {
        return Ok(());
    }
    let pin = Pin {
        appliance: founding.name.clone(),
        audit_key: founding.audit_key.clone(),
        head: Tree::new().head(),
        origins: [].into(),
        officers: 0,
        rules: 0,
    };
    pins.write(&hash, &pin, &lock)
}

/// What was founded, for programs.
#[derive(Debug, Serialize)]
struct Founded {
    appliance: String,
    hash: Hash,
}

fn submit(desk: &mut Desk<'_>, file: &Path, signatures: &[PathBuf]) -> Result<End, Stop> {
    let (text, founding, hash) = read_founding(file)?;
    expect_hash(desk, &hash)?;
    let mut signed: Vec<(PersonName, Signature)> = Vec::new();
    for path in signatures {
        let armored = files::read_text(path, ARMOR_BYTES_MAX)?;
        let wrong = |problem: String| Stop::failed(format!("{}: {problem}", path.display()));
        let signature = Signature::from_armored(&armored).map_err(|e| wrong(e.to_string()))?;
        let person =
            signer_of(&founding.roster, &signature, Namespace::Found, &text).map_err(wrong)?;
        if signed.iter().any(|(other, _)| other == person) {
            return Err(wrong(format!("a second signature by {person}")));
        }
        signed.push((person.clone(), signature));
    }
    judge(&text, &signed, desk.now_s)?;
    let mut keeper = connect(&desk.args.ledger_socket)?;
    let answer = keeper.found(text, signed).map_err(|error| explain(error, &hash))?;
    if answer != hash {
        return Err(Stop::unsound(format!("the keeper founded {answer}, not {hash}")));
    }
    pin(desk, &founding, hash)?;
    desk.print(&Founded { appliance: founding.name.clone(), hash }, |founded, out| {
        writeln!(
            out,
            "{} is founded: {hash}\nThe keeper ends and is started anew by its supervisor; then: \
             countersign officer list --founding {hash}",
            say::plain(&founded.appliance)
        )
    })?;
    Ok(End::Fine)
}

/// That the keeper will take it, by the same fold.
fn judge(text: &str, signed: &[(PersonName, Signature)], now_s: u64) -> Result<(), Stop> {
    let entry =
        Entry::Founded { text: text.to_owned(), signatures: signed.iter().cloned().collect() };
    LedgerState::default()
        .follows(&Line { seq: 0, at: now_s, entry })
        .map_err(|error| super::propose::refused(&error))
}

/// A refusal says which line root has to have written, since that is what is forgotten.
fn explain(error: ClientError, hash: &Hash) -> Stop {
    match &error {
        // The keeper's own hint may have it already.
        ClientError::Refused(refusal)
            if refusal.kind == RefusalKind::Forbidden
                && !refusal.detail.contains(&pin_line(hash)) =>
        {
            Stop::failed(format!(
                "{error}\n  If it is not there yet: root, once sure of the hash, puts this line under \
                 [keeper] in keeper.toml:\n  {}",
                pin_line(hash)
            ))
        }
        _ => submit_stop(error),
    }
}
