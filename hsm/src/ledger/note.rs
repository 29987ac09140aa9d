//! What may be written beside intents and their ends: each sort has a door of its own, so that no
//! caller can pass off one for another.

use std::collections::BTreeMap;

use countersign_policy::ledger::Entry;
use countersign_policy::officer::PersonName;
use countersign_policy::ssh::Signature;
use countersign_policy::statement::{StatementHash, Verb};
use countersign_policy::tree::TreeHead;
use countersign_policy::{KeyId, ZoneName};

/// Lines that a person's signature carries. Whether it does is for the ledger to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signed {
    /// See [`Entry::Proposed`].
    Proposed {
        /// The statement's text.
        statement: String,
        /// The proposer's.
        signature: Signature,
    },
    /// See [`Entry::Verdict`].
    Verdict {
        /// About which.
        statement: StatementHash,
        /// Yes or no.
        verb: Verb,
        /// Whose.
        officer: PersonName,
        /// The ledger as the officer saw it.
        checkpoint: TreeHead,
        /// The officer's.
        signature: Signature,
    },
    /// See [`Entry::Withdrawn`].
    Withdrawn {
        /// Which.
        statement: StatementHash,
        /// The proposer's.
        signature: Signature,
    },
    /// See [`Entry::Frozen`].
    Frozen {
        /// The text.
        text: String,
        /// That person's.
        signature: Signature,
    },
}

impl From<Signed> for Entry {
    fn from(signed: Signed) -> Self {
        match signed {
            Signed::Proposed { statement, signature } => Self::Proposed { statement, signature },
            Signed::Verdict { statement, verb, officer, checkpoint, signature } => {
                Self::Verdict { statement, verb, officer, checkpoint, signature }
            }
            Signed::Withdrawn { statement, signature } => Self::Withdrawn { statement, signature },
            Signed::Frozen { text, signature } => Self::Frozen { text, signature },
        }
    }
}

/// Lines that neither give leave nor end an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// See [`Entry::Started`].
    Started {
        /// Version of the keeper.
        version: String,
        /// SHA-256 of its binary, hexadecimal.
        binary: String,
        /// SHA-256 of its configuration file, hexadecimal.
        config: String,
        /// Path and SHA-256 of each PKCS#11 module.
        modules: BTreeMap<String, String>,
    },
    /// See [`Entry::TokenMarked`].
    TokenMarked {
        /// Its name.
        token: String,
    },
    /// See [`Entry::Lapsed`].
    Lapsed {
        /// The line of its beginning.
        begun: u64,
        /// What was not done, and why.
        reason: String,
    },
    /// See [`Entry::KeyConflict`].
    KeyConflict {
        /// The key that was asked for.
        key: KeyId,
        /// The token that answered, by name.
        token: String,
        /// What it showed.
        found: String,
    },
    /// See [`Entry::KeyCleared`].
    KeyCleared {
        /// The key.
        key: KeyId,
    },
    /// See [`Entry::ZoneSigned`].
    ZoneSigned {
        /// The zone.
        zone: ZoneName,
        /// Its serial.
        serial: u32,
        /// Digest of the published version, hexadecimal.
        digest: String,
        /// Signatures since the last such line, by key.
        signatures: BTreeMap<KeyId, u32>,
    },
}

impl From<Note> for Entry {
    fn from(note: Note) -> Self {
        match note {
            Note::Started { version, binary, config, modules } => {
                Self::Started { version, binary, config, modules }
            }
            Note::TokenMarked { token } => Self::TokenMarked { token },
            Note::Lapsed { begun, reason } => Self::Lapsed { begun, reason },
            Note::KeyConflict { key, token, found } => Self::KeyConflict { key, token, found },
            Note::KeyCleared { key } => Self::KeyCleared { key },
            Note::ZoneSigned { zone, serial, digest, signatures } => {
                Self::ZoneSigned { zone, serial, digest, signatures }
            }
        }
    }
}
