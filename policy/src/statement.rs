//! Statements: a motion with everything that bounds it, in one canonical text. The text is what
//! is shown, what is signed, and what is run (invariant 5).

use serde::{Deserialize, Serialize};

use crate::motion::Motion;
use crate::officer::PersonName;
use crate::tree::{Hash, TreeHead};

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

/// Octets of a reason: a line on a terminal.
pub const REASON_BYTES_MAX: usize = 120;
/// A freeze is sent when it is signed, or brought from another machine within the day.
pub const FREEZE_S_MAX: u64 = 86_400;
