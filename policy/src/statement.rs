//! Statements: a motion with everything that bounds it, in one canonical text. The text is what
//! is shown, what is signed, and what is run (invariant 5). And the texts about a statement: an
//! officer's verdict, the proposer's withdrawal; and the freeze, which needs none. Their grammar is
//! that of [`crate::text`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::key::to_hex;
use crate::motion::Motion;
use crate::officer::PersonName;
use crate::text::{
    Reader, TextError, Writer, escape_sentence, parts, time_text, unescape_sentence,
};
use crate::tree::{Hash, HashError, TreeHead};
use crate::words::words;

mod motion;
#[cfg(test)]
mod tests;

/// Octets of a statement's text: a motion about [`crate::motion::ZONES_MAX`] zones of long names, or a
/// change of a full roster, fits.
pub const TEXT_BYTES_MAX: usize = 256 << 10;
/// Octets of a nonce.
pub const NONCE_BYTES: usize = 16;
/// From a statement's not-before to its not-after: who has not come together in a month votes anew.
pub const WINDOW_S_MAX: u64 = 31 * 86_400;
/// From the proposal to not-before: a ceremony is planned a quarter ahead.
pub const AHEAD_S_MAX: u64 = 92 * 86_400;
/// From not-after to finish-by: a path is no longer than a signature may be valid.
pub const PATH_S_MAX: u64 = 92 * 86_400;
/// Octets of a reason: a line on a terminal.
pub const REASON_BYTES_MAX: usize = 120;
/// A freeze is sent when it is signed, or brought from another machine within the day.
pub const FREEZE_S_MAX: u64 = 86_400;
/// Octets of the lines that a verdict has in front of its statement: a kind, a person's name, a tree
/// head, each with the name of its line.
const VERDICT_HEAD_BYTES_MAX: usize = 256;
/// Octets of a withdrawal or a freeze: seven lines, of which a zone name of escapes is the longest.
const SMALL_BYTES_MAX: usize = 4096;

const STATEMENT: &str = "countersign statement v1";
const APPROVAL: &str = "countersign approval v1";
const DENIAL: &str = "countersign denial v1";
const WITHDRAWAL: &str = "countersign withdrawal v1";
const FREEZE: &str = "countersign freeze v1";

/// SHA-256 of a statement's text: what it is called. People use its first 8 hexadecimal digits, or the
/// whole as words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StatementHash(pub Hash);

/// A statement: the fields in the order of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The founding hash of the appliance that it is for.
    pub appliance: Hash,
    /// The ledger as the proposer saw it: must be a prefix of the ledger that it is for.
    pub checkpoint: TreeHead,
    /// What the motion rests on ([`crate::state::LedgerState::dependencies`]); void once that changed.
    pub depends: Hash,
    /// Who proposes, and does not count.
    pub proposer: PersonName,
    /// What is to be done.
    pub motion: Motion,
    /// Used once.
    pub nonce: [u8; NONCE_BYTES],
    /// It begins no earlier, in seconds since 1970.
    pub not_before: u64,
    /// It begins no later.
    pub not_after: u64,
    /// All that it allows ends then.
    pub finish_by: u64,
}

/// What an officer says of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Yes.
    Approve,
    /// No, and it stands.
    Deny,
}

/// The text that an officer signs: verb, officer, the checkpoint that the officer's own command line
/// last proved, then the whole statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Yes or no.
    pub verb: Verb,
    /// Whose word it is.
    pub officer: PersonName,
    /// The ledger as the officer saw it.
    pub checkpoint: TreeHead,
    /// What it is about.
    pub statement: Statement,
}

/// The text by which a proposer takes a statement back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// The founding hash.
    pub appliance: Hash,
    /// The proposer.
    pub officer: PersonName,
    /// What is withdrawn.
    pub statement: StatementHash,
}

/// The text by which one person freezes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    /// The founding hash.
    pub appliance: Hash,
    /// Anyone on the roster.
    pub officer: PersonName,
    /// What is held.
    pub scope: crate::motion::Scope,
    /// Why, for those who find it: printable ASCII, at most [`REASON_BYTES_MAX`].
    pub reason: String,
    /// Used once.
    pub nonce: [u8; NONCE_BYTES],
    /// No longer taken after this, in seconds since 1970, so that one that was kept back is of no use.
    pub not_after: u64,
}

impl StatementHash {
    /// The first 8 hexadecimal digits: what people call it.
    pub fn short(&self) -> String {
        to_hex(&self.0.0[..4])
    }

    /// The whole hash as PGP words, to be compared by voice.
    pub fn words(&self) -> String {
        words(&self.0.0)
    }
}

impl fmt::Display for StatementHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for StatementHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        text.parse().map(Self)
    }
}

impl Statement {
    /// The one text of it.
    pub fn to_text(&self) -> String {
        let mut writer = Writer::new(STATEMENT);
        writer.field("appliance", self.appliance);
        writer.field("checkpoint", self.checkpoint);
        writer.field("depends", self.depends);
        writer.field("proposer", &self.proposer);
        motion::write(&mut writer, &self.motion);
        writer.field("nonce", to_hex(&self.nonce));
        writer.field("not-before", time_text(self.not_before));
        writer.field("not-after", time_text(self.not_after));
        writer.field("finish-by", time_text(self.finish_by));
        writer.finish()
    }

    /// Reads the text: what is returned has this text and no other.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let mut reader = Reader::new(text, TEXT_BYTES_MAX)?;
        let statement = Self::read(&mut reader)?;
        reader.finish(&statement.to_text())?;
        Ok(statement)
    }

    /// SHA-256 of the text.
    pub fn hash(&self) -> StatementHash {
        StatementHash(Hash::of(self.to_text().as_bytes()))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, TextError> {
        reader.head(&[STATEMENT])?;
        Ok(Self {
            appliance: reader.field("appliance")?.parse()?,
            checkpoint: reader.field("checkpoint")?.parse()?,
            depends: reader.field("depends")?.parse()?,
            proposer: reader.field("proposer")?.parse()?,
            motion: motion::read(reader)?,
            nonce: reader.field("nonce")?.octets()?,
            not_before: reader.field("not-before")?.time()?,
            not_after: reader.field("not-after")?.time()?,
            finish_by: reader.field("finish-by")?.time()?,
        })
    }
}

impl Verb {
    /// As people read it: `approve` or `deny`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
        }
    }

    const fn head(self) -> &'static str {
        match self {
            Self::Approve => APPROVAL,
            Self::Deny => DENIAL,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Verdict {
    /// The one text of it: three lines, then the statement's text as it is.
    pub fn to_text(&self) -> String {
        let mut writer = Writer::new(self.verb.head());
        writer.field("officer", &self.officer);
        writer.field("checkpoint", self.checkpoint);
        writer.append(&self.statement.to_text());
        writer.finish()
    }

    /// Reads the text: what is returned has this text and no other.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let mut reader = Reader::new(text, VERDICT_HEAD_BYTES_MAX + TEXT_BYTES_MAX)?;
        let head = reader.head(&[APPROVAL, DENIAL])?;
        let verdict = Self {
            verb: if head == 0 { Verb::Approve } else { Verb::Deny },
            officer: reader.field("officer")?.parse()?,
            checkpoint: reader.field("checkpoint")?.parse()?,
            statement: Statement::read(&mut reader)?,
        };
        reader.finish(&verdict.to_text())?;
        Ok(verdict)
    }
}

impl Withdrawal {
    /// The one text of it.
    pub fn to_text(&self) -> String {
        let mut writer = Writer::new(WITHDRAWAL);
        writer.field("appliance", self.appliance);
        writer.field("officer", &self.officer);
        writer.field("statement", self.statement);
        writer.finish()
    }

    /// Reads the text: what is returned has this text and no other.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let mut reader = Reader::new(text, SMALL_BYTES_MAX)?;
        reader.head(&[WITHDRAWAL])?;
        let withdrawal = Self {
            appliance: reader.field("appliance")?.parse()?,
            officer: reader.field("officer")?.parse()?,
            statement: reader.field("statement")?.parse()?,
        };
        reader.finish(&withdrawal.to_text())?;
        Ok(withdrawal)
    }
}

impl Freeze {
    /// The one text of it. A reason that is none ([`is_reason`]) makes a text that is refused.
    pub fn to_text(&self) -> String {
        let mut writer = Writer::new(FREEZE);
        writer.field("appliance", self.appliance);
        writer.field("officer", &self.officer);
        writer.field("scope", parts::scope_text(&self.scope));
        writer.field("reason", escape_sentence(&self.reason));
        writer.field("nonce", to_hex(&self.nonce));
        writer.field("not-after", time_text(self.not_after));
        writer.finish()
    }

    /// Reads the text: what is returned has this text and no other.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let mut reader = Reader::new(text, SMALL_BYTES_MAX)?;
        reader.head(&[FREEZE])?;
        let appliance = reader.field("appliance")?.parse()?;
        let officer = reader.field("officer")?.parse()?;
        let scope = parts::read_scope(reader.field("scope")?)?;
        let reason = reader.field("reason")?;
        let expected = format!(
            "1 to {REASON_BYTES_MAX} printable ASCII characters, no space at either end, `%` as `%25`"
        );
        let sentence = unescape_sentence(reason.value).filter(|reason| is_reason(reason));
        let freeze = Self {
            appliance,
            officer,
            scope,
            reason: sentence.ok_or_else(|| reason.unexpected(expected))?,
            nonce: reader.field("nonce")?.octets()?,
            not_after: reader.field("not-after")?.time()?,
        };
        reader.finish(&freeze.to_text())?;
        Ok(freeze)
    }
}

/// Whether a text can be the reason of a freeze: 1 to [`REASON_BYTES_MAX`] printable ASCII
/// characters, without a space at either end.
pub fn is_reason(text: &str) -> bool {
    (1..=REASON_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b' '..=b'~'))
        && !text.starts_with(' ')
        && !text.ends_with(' ')
}
