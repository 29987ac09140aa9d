//! The ledger's entries and their one canonical line: an RFC 8785 JSON object, 64-bit numbers as
//! strings. What they amount to is [`crate::state::LedgerState`], whose `apply` is the full judgement of
//! each line: signatures, quorum, windows, and what the HSM may be asked.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::algorithm::Algorithm;
use crate::instance::InstanceId;
use crate::key::{KeyId, KeyRole, PublicKey};
use crate::name::ZoneName;
use crate::officer::PersonName;
use crate::ssh::Signature;
pub use crate::state::{KeyRecord, LedgerState};
use crate::statement::{StatementHash, Verb};
use crate::tree::TreeHead;

/// One line holds at most this many octets: a founding that lists thousands of foreign keys, or the
/// longest statement with every character escaped, still fits, and a reader can bound its
/// buffer.
pub const LINE_BYTES_MAX: usize = 16 << 20;

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Position, from 0.
    #[serde(with = "decimal")]
    pub seq: u64,
    /// The keeper's clock, seconds since 1970.
    #[serde(with = "decimal")]
    pub at: u64,
    /// What happened.
    pub entry: Entry,
}

/// What a line records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Entry {
    /// Line 0, and only that: the founding's text, and the signature of everyone on its roster.
    Founded {
        /// The text ([`crate::founding::Founding`]).
        text: String,
        /// By person.
        signatures: BTreeMap<PersonName, Signature>,
    },
    /// A statement was proposed.
    Proposed {
        /// Its text.
        statement: String,
        /// The proposer's, over the text.
        signature: Signature,
    },
    /// An officer approved or denied. The text that was signed is made again from these fields and
    /// the statement.
    Verdict {
        /// About which.
        statement: StatementHash,
        /// Yes or no.
        verb: Verb,
        /// Whose.
        officer: PersonName,
        /// The ledger as the officer saw it.
        checkpoint: TreeHead,
        /// The officer's, over the text of [`crate::statement::Verdict`].
        signature: Signature,
    },
    /// A proposer took a statement back.
    Withdrawn {
        /// Which.
        statement: StatementHash,
        /// The proposer's, over the text of [`crate::statement::Withdrawal`].
        signature: Signature,
    },
    /// One person froze KSK use.
    Frozen {
        /// The text of [`crate::statement::Freeze`].
        text: String,
        /// That person's, over the text.
        signature: Signature,
    },
    /// A statement's quorum is met, by the rules in force at this line: what it says begins, once.
    /// All of it that no HSM has to do is done by this line.
    Begun {
        /// Which.
        statement: StatementHash,
        /// The public keys that it publishes and that were not public before: of an activation.
        reveals: Vec<PublicKey>,
    },
    /// What a statement began can't be finished, or its finish-by is past.
    Lapsed {
        /// The line of its [`Entry::Begun`].
        #[serde(with = "decimal")]
        begun: u64,
        /// What was not done, and why.
        reason: String,
    },
    /// DS records were handed out.
    DsExported {
        /// The line of the statement's [`Entry::Begun`].
        #[serde(with = "decimal")]
        begun: u64,
        /// For which zone.
        zone: ZoneName,
    },
    /// A token carries the founding's mark from here on; without one in the ledger, a token without
    /// a mark is marked, with one it is refused.
    TokenMarked {
        /// Its name.
        token: String,
    },
    /// The box of the founding takes the tokens: once, and then it is moved by a quorum alone
    /// ([`crate::motion::Motion::MoveAppliance`]).
    InstanceClaimed {
        /// Which it is.
        instance: InstanceId,
    },
    /// The keeper started, on the box that holds the tokens.
    Started {
        /// Which it is.
        instance: InstanceId,
        /// Version of the keeper.
        version: String,
        /// SHA-256 of its binary, hexadecimal.
        binary: String,
        /// SHA-256 of its configuration file, hexadecimal.
        config: String,
        /// Path and SHA-256 of each PKCS#11 module.
        modules: BTreeMap<String, String>,
    },
    /// An operation is about to be asked of the HSM. Durable before it is asked.
    Intent {
        /// What will be done.
        operation: Operation,
        /// The line that allows it.
        #[serde(with = "decimal")]
        under: u64,
    },
    /// How the operation of the intent at line `intent` ended.
    Outcome {
        /// The intent's line.
        #[serde(with = "decimal")]
        intent: u64,
        /// The end.
        outcome: Outcome,
    },
    /// A token answered for a key with another public key; the key is refused everywhere until a
    /// later [`Entry::KeyCleared`].
    KeyConflict {
        /// The key that was asked for.
        key: KeyId,
        /// The token that answered, by name.
        token: String,
        /// What the token showed.
        found: String,
    },
    /// Every token of the group proves the key again, the conflicting object is gone.
    KeyCleared {
        /// The key.
        key: KeyId,
    },
    /// A version of a zone was published with signatures by ZSKs or CSKs.
    ZoneSigned {
        /// The zone.
        zone: ZoneName,
        /// Its serial.
        serial: u32,
        /// Digest of the published version, as the daemon reported it, hexadecimal.
        digest: String,
        /// Signatures that the keeper made for the zone since the last such line, by key.
        signatures: BTreeMap<KeyId, u32>,
    },
}

/// What a KSK operation, or the making of any key, asks of an HSM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verb", deny_unknown_fields)]
pub enum Operation {
    /// Make a key pair.
    Generate {
        /// The zone that it is for.
        zone: ZoneName,
        /// What it is for.
        role: KeyRole,
        /// The token, by name, that makes it.
        token: String,
        /// In the label at generation, so that an orphan is found; hexadecimal.
        nonce: String,
    },
    /// Prove a key that was there before.
    Adopt {
        /// The zone that it is for.
        zone: ZoneName,
        /// What it is for.
        role: KeyRole,
        /// The token, by name, that holds it.
        token: String,
        /// The key.
        key: KeyId,
    },
    /// Sign a DNSKEY RRset.
    SignDnskey {
        /// The zone.
        zone: ZoneName,
        /// The keys that the RRset holds.
        keys: BTreeSet<KeyId>,
        /// The KSK or CSK that signs.
        signer: KeyId,
        /// TTL of the RRset.
        ttl_s: u32,
        /// RRSIG inception, seconds since 1970 modulo 2^32.
        inception: u32,
        /// RRSIG expiration, the same.
        expiration: u32,
    },
    /// Sign the CDS or the CDNSKEY RRset that a motion approved.
    SignCds {
        /// The zone.
        zone: ZoneName,
        /// Which of the two.
        rrset: CdsType,
        /// The KSK or CSK that signs.
        signer: KeyId,
        /// TTL of the RRset.
        ttl_s: u32,
        /// RRSIG inception, seconds since 1970 modulo 2^32.
        inception: u32,
        /// RRSIG expiration, the same.
        expiration: u32,
    },
    /// Destroy a key pair on one token: an orphan of an intent without result, one whose tag
    /// collides with another of its zone, or one that a motion destroys.
    Destroy {
        /// The zone that it was for.
        zone: ZoneName,
        /// The token, by name.
        token: String,
        /// The label of the object pair.
        label: String,
        /// The key, once it is one: nothing else under that label is touched.
        key: Option<KeyId>,
    },
}

/// The two RRsets that speak to the parent (RFC 7344).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CdsType {
    /// Type 59.
    Cds,
    /// Type 60.
    Cdnskey,
}

impl CdsType {
    /// The number of the type.
    pub const fn number(self) -> u16 {
        match self {
            Self::Cds => 59,
            Self::Cdnskey => 60,
        }
    }
}

impl Operation {
    /// The zone that is operated on.
    pub fn zone(&self) -> &ZoneName {
        match self {
            Self::Generate { zone, .. }
            | Self::Adopt { zone, .. }
            | Self::SignDnskey { zone, .. }
            | Self::SignCds { zone, .. }
            | Self::Destroy { zone, .. } => zone,
        }
    }
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "end", deny_unknown_fields)]
pub enum Outcome {
    /// The key pair was made.
    Generated {
        /// What it is.
        made: MadeKey,
    },
    /// The key is there, whole, and proven.
    Adopted {
        /// What it is.
        made: MadeKey,
        /// The label of its objects.
        label: String,
        /// Their CKA_ID, hexadecimal.
        id: String,
    },
    /// The signature was made; SHA-256 of it, hexadecimal.
    Signed {
        /// The digest.
        signature: String,
    },
    /// The objects are gone.
    Destroyed,
    /// Whether the signature was made can't be known: the keeper or the token ended in between.
    /// It was not handed out.
    Unknown {
        /// What was seen last.
        reason: String,
    },
    /// It was not done; nothing is left of it.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What the ledger learns of a key pair when it is made or adopted. The public half of a KSK or CSK
/// is kept back until its publication is approved; its tags are needed to keep them apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeKey {
    /// SHA-256(algorithm ‖ public key field).
    pub key: KeyId,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// The key tag of its DNSKEY (RFC 4034 appendix B).
    pub tag: u16,
    /// The same with the REVOKE bit (RFC 5011 §3).
    pub revoked_tag: u16,
    /// Its public half: there if it is published at once (a ZSK, or a motion that activates), absent if not.
    pub public: Option<PublicKey>,
}

/// The label that a key pair gets at generation.
pub fn generation_label(role: KeyRole, zone: &ZoneName, nonce: &str) -> String {
    // CKA_LABEL has no fixed bound, but real HSMs cut at 64 or so: the nonce comes first.
    let mut label = format!("cs-{nonce}-{}-{zone}", role.to_string().to_lowercase());
    label.truncate(64);
    label
}

/// A line that does not follow from the ones before it, or is not in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Not JSON, a field unknown or missing, or a value out of range.
    #[error("line {seq}: not a ledger line: {problem}")]
    Syntax {
        /// Position.
        seq: u64,
        /// What the parser said.
        problem: String,
    },
    /// JSON, but not the one canonical form of its content.
    #[error("line {0}: not in canonical form (RFC 8785)")]
    NotCanonical(u64),
    /// The line's own number is not its position.
    #[error("line {expected}: says that it is line {found}")]
    Sequence {
        /// Position.
        expected: u64,
        /// What it says.
        found: u64,
    },
    /// The content contradicts the lines before.
    #[error("line {seq}: {problem}")]
    Contradiction {
        /// Position.
        seq: u64,
        /// What contradicts.
        problem: String,
    },
}

impl Line {
    /// The canonical line, without newline.
    pub fn to_canonical(&self) -> Vec<u8> {
        // serde_json's map is a BTreeMap: keys come out sorted by their bytes, which for our
        // ASCII keys is RFC 8785's order; there are no floats; its string escapes are those of
        // RFC 8785 §3.2.2.2. Serializing to a Value first is what sorts.
        let value = serde_json::to_value(self).unwrap_or_default();
        value.to_string().into_bytes()
    }

    /// Reads a line (without newline) that must be the canonical form of what it says.
    pub fn from_canonical(seq: u64, bytes: &[u8]) -> Result<Self, LedgerError> {
        let line: Self = serde_json::from_slice(bytes)
            .map_err(|e| LedgerError::Syntax { seq, problem: e.to_string() })?;
        if line.to_canonical() != bytes {
            return Err(LedgerError::NotCanonical(seq));
        }
        if line.seq != seq {
            return Err(LedgerError::Sequence { expected: seq, found: line.seq });
        }
        Ok(line)
    }
}

/// 64-bit numbers as decimal strings without leading zeros (RFC 8785 appendix D).
pub(crate) mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| D::Error::custom("expected a decimal number as a string"))
    }

    /// The number whose one text this is: neither sign nor leading zeros.
    pub fn parse(text: &str) -> Option<u64> {
        text.parse().ok().filter(|value: &u64| value.to_string() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked() -> Line {
        Line { seq: 0, at: 1, entry: Entry::TokenMarked { token: "ksk-a".to_owned() } }
    }

    fn generate(seq: u64) -> Line {
        let operation = Operation::Generate {
            zone: "example.".parse().expect("name"),
            role: KeyRole::Ksk,
            token: "ksk-a".to_owned(),
            nonce: "00ff".to_owned(),
        };
        Line { seq, at: 2, entry: Entry::Intent { operation, under: 0 } }
    }

    #[test]
    fn a_line_has_one_form() {
        for line in [marked(), generate(1)] {
            let bytes = line.to_canonical();
            assert_eq!(Line::from_canonical(line.seq, &bytes), Ok(line.clone()));
            let spaced = [&bytes[..], b" "].concat();
            assert_eq!(
                Line::from_canonical(line.seq, &spaced),
                Err(LedgerError::NotCanonical(line.seq))
            );
            assert!(matches!(
                Line::from_canonical(line.seq + 1, &bytes),
                Err(LedgerError::Sequence { .. })
            ));
        }
        assert_eq!(
            String::from_utf8(generate(1).to_canonical()).expect("UTF-8"),
            concat!(
                r#"{"at":"2","entry":{"kind":"intent","operation":{"nonce":"00ff","role":"ksk","#,
                r#""token":"ksk-a","verb":"generate","zone":"example."},"under":"0"},"seq":"1"}"#
            )
        );
    }
}
