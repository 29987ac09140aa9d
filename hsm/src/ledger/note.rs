//! What may be written beside intents and their ends: each sort has a door of its own, so that no
//! caller can pass off one for another. The lines themselves are policy's [`Entry`].

use std::collections::BTreeMap;

use countersign_policy::instance::InstanceId;
use countersign_policy::ledger::Entry;
use countersign_policy::officer::PersonName;
use countersign_policy::ssh::Signature;
use countersign_policy::statement::{StatementHash, Verb};
use countersign_policy::tree::TreeHead;
use countersign_policy::{KeyId, ZoneName};

/// A line that a person's signature carries. Whether it does is for the ledger to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed(Entry);

impl Signed {
    /// [`Entry::Proposed`].
    pub fn proposed(statement: String, signature: Signature) -> Self {
        Self(Entry::Proposed { statement, signature })
    }

    /// [`Entry::Verdict`].
    pub fn verdict(
        statement: StatementHash,
        verb: Verb,
        officer: PersonName,
        checkpoint: TreeHead,
        signature: Signature,
    ) -> Self {
        Self(Entry::Verdict { statement, verb, officer, checkpoint, signature })
    }

    /// [`Entry::Withdrawn`].
    pub fn withdrawn(statement: StatementHash, signature: Signature) -> Self {
        Self(Entry::Withdrawn { statement, signature })
    }

    /// [`Entry::Frozen`].
    pub fn frozen(text: String, signature: Signature) -> Self {
        Self(Entry::Frozen { text, signature })
    }
}

impl From<Signed> for Entry {
    fn from(signed: Signed) -> Self {
        signed.0
    }
}

/// A line that neither gives leave nor ends an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note(Entry);

impl Note {
    /// [`Entry::InstanceClaimed`].
    pub fn instance_claimed(instance: InstanceId) -> Self {
        Self(Entry::InstanceClaimed { instance })
    }

    /// [`Entry::Started`].
    pub fn started(
        instance: InstanceId,
        version: String,
        binary: String,
        config: String,
        modules: BTreeMap<String, String>,
    ) -> Self {
        Self(Entry::Started { instance, version, binary, config, modules })
    }

    /// [`Entry::TokenMarked`].
    pub fn token_marked(token: String) -> Self {
        Self(Entry::TokenMarked { token })
    }

    /// [`Entry::Lapsed`].
    pub fn lapsed(begun: u64, reason: String) -> Self {
        Self(Entry::Lapsed { begun, reason })
    }

    /// [`Entry::KeyConflict`].
    pub fn key_conflict(key: KeyId, token: String, found: String) -> Self {
        Self(Entry::KeyConflict { key, token, found })
    }

    /// [`Entry::KeyCleared`].
    pub fn key_cleared(key: KeyId) -> Self {
        Self(Entry::KeyCleared { key })
    }

    /// [`Entry::ZoneSigned`].
    pub fn zone_signed(
        zone: ZoneName,
        serial: u32,
        digest: String,
        signatures: BTreeMap<KeyId, u32>,
    ) -> Self {
        Self(Entry::ZoneSigned { zone, serial, digest, signatures })
    }
}

impl From<Note> for Entry {
    fn from(note: Note) -> Self {
        note.0
    }
}
