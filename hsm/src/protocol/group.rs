//! What the group `countersign` asks of the keeper: the ledger's lines; texts that authenticate
//! themselves by their signatures; and what an approved motion hands out. Who connects is not who
//! signs: nothing here is granted to a user of the system.

use std::collections::BTreeSet;

use countersign_policy::checkpoint::AuditKey;
use countersign_policy::ds::DsDigest;
use countersign_policy::instance::InstanceId;
use countersign_policy::officer::PersonName;
use countersign_policy::ssh::Signature;
use countersign_policy::tree::Hash;
use countersign_policy::{KeyId, KeyRole, PublicKey, ZoneName};
use serde::{Deserialize, Serialize};

use super::Refusal;

/// What anyone in the group may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LedgerRequest {
    /// First on every connection.
    Hello {
        /// [`super::PROTOCOL_VERSION`].
        protocol: u16,
    },
    /// How many lines there are.
    Head,
    /// Lines from a position on; the answer stops before it would exceed a frame.
    Read {
        /// First line wanted.
        from: u64,
        /// The first line's octets before this one are not wanted: for lines that exceed a frame.
        skip: u64,
        /// At most so many lines.
        max: u32,
    },
    /// What is on the tokens. An unfounded keeper makes its audit key for this, once.
    Survey,
    /// Found the appliance. The keeper ends after its answer and starts anew as founded.
    Found {
        /// The founding's text.
        text: String,
        /// Everyone's on its roster.
        signatures: Vec<(PersonName, Signature)>,
    },
    /// A text for the ledger.
    Submit(Submission),
    /// A checkpoint of the ledger as it is now, signed by the audit key.
    Checkpoint,
    /// The keys whose DS a motion approved to hand out. A line of the ledger says that they were.
    ExportDs {
        /// The zone.
        zone: ZoneName,
    },
}

/// A text that a person signed, for the ledger to judge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Submission {
    /// A statement, by its proposer.
    Propose {
        /// Its text.
        text: String,
        /// Over the text.
        signature: Signature,
    },
    /// An approval or denial, by an officer.
    Verdict {
        /// Its text, the statement in it.
        text: String,
        /// Over the text.
        signature: Signature,
    },
    /// A withdrawal, by the proposer.
    Withdraw {
        /// Its text.
        text: String,
        /// Over the text.
        signature: Signature,
    },
    /// A freeze, by anyone on the roster.
    Freeze {
        /// Its text.
        text: String,
        /// Over the text.
        signature: Signature,
    },
}

/// The answers to [`LedgerRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LedgerResponse {
    /// To [`LedgerRequest::Hello`].
    Hello {
        /// [`super::PROTOCOL_VERSION`].
        protocol: u16,
        /// How the keeper stands.
        mode: Mode,
    },
    /// To [`LedgerRequest::Head`].
    Head {
        /// Lines in the ledger.
        lines: u64,
        /// SHA-256 of the founding's text, once there is one.
        founding: Option<Hash>,
    },
    /// To [`LedgerRequest::Read`]: the lines' octets, without newlines.
    Lines {
        /// The lines.
        lines: Vec<Vec<u8>>,
        /// The last of them goes on behind what is here: read it again with `skip`.
        cut: bool,
    },
    /// To [`LedgerRequest::Survey`].
    Survey(Survey),
    /// To [`LedgerRequest::Found`].
    Founded {
        /// SHA-256 of the text.
        hash: Hash,
    },
    /// To [`LedgerRequest::Submit`]: the text is in the ledger.
    Submitted {
        /// At this line.
        line: u64,
    },
    /// To [`LedgerRequest::Checkpoint`].
    Checkpoint {
        /// A C2SP signed note.
        note: String,
    },
    /// To [`LedgerRequest::ExportDs`].
    Ds(DsExport),
    /// The request was refused.
    Refused(Refusal),
}

/// How a keeper stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// There is no founding yet: it surveys, and takes one.
    Unfounded,
    /// It serves.
    Founded,
    /// Its ledger is older than a token or a kept checkpoint says, or contradicts it: no key is used.
    /// Why, and what to do.
    Behind(String),
    /// Another box holds the tokens, or they are just being taken over from it: no key is used.
    Elsewhere {
        /// Which instance this box is.
        instance: InstanceId,
        /// Who holds them, and what to do.
        why: String,
    },
}

/// What is on the tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// The token that holds the audit key, by name, and the key.
    pub audit: Option<(String, AuditKey)>,
    /// Every token of the configuration.
    pub tokens: Vec<SurveyedToken>,
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurveyedToken {
    /// Name in the configuration.
    pub name: String,
    /// `CK_TOKEN_INFO` label.
    pub label: String,
    /// `CK_TOKEN_INFO` serial number.
    pub serial: String,
    /// `CK_TOKEN_INFO` manufacturer.
    pub manufacturer: String,
    /// `CK_TOKEN_INFO` model.
    pub model: String,
    /// It holds data objects.
    pub data_objects: bool,
    /// The founding whose mark it carries.
    pub marked: Option<Hash>,
    /// Why it could not be looked at; nothing below is known then.
    pub problem: Option<String>,
    /// Keys on it that are not the ledger's.
    pub keys: Vec<SurveyedKey>,
}

/// A key object that is not the ledger's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SurveyedKey {
    /// `CKA_LABEL`.
    pub label: String,
    /// `CKA_ID`, hexadecimal.
    pub id: String,
    /// There is a private key object.
    pub private: bool,
    /// What it is, if a public key object shows one that DNSSEC knows here.
    pub key: Option<KeyId>,
    /// The number of its algorithm, likewise.
    pub algorithm: Option<u8>,
    /// The private key can be read or wrapped out; not known of a public one alone.
    pub extractable: Option<bool>,
}

/// What a motion handed out: the public keys, and which digests of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DsExport {
    /// The zone.
    pub zone: ZoneName,
    /// The keys, in the order of their ids.
    pub keys: Vec<(KeyRole, PublicKey)>,
    /// With which digests.
    pub digests: BTreeSet<DsDigest>,
    /// The line of the ledger that says so.
    pub line: u64,
    /// The text of the statement that was approved.
    pub statement: String,
}
