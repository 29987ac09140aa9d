//! The founding: who has a say, by which rules, over which tokens, sealed by which audit key. Its text
//! is signed by everyone on its roster, and its hash is the appliance's name for good.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::checkpoint::AuditKey;
use crate::officer::Roster;
use crate::rule::{RecoveryRule, Rules};

/// Tokens of one appliance: more than any real cluster, few enough to open all at start.
pub const TOKENS_MAX: usize = 64;
/// Days that the clock may run ahead of the ledger's last line without a quorum.
pub const CLOCK_DAYS: std::ops::RangeInclusive<u16> = 1..=90;
/// Foreign keys on the tokens at founding that are listed.
pub const FOREIGN_MAX: usize = 10_000;

/// What is founded: the fields in the order of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founding {
    /// What the appliance is called, in its ledger and logs.
    pub name: String,
    /// When, in seconds since 1970: the first floor of time.
    pub time: u64,
    /// 16 octets, so that two foundings are never the same.
    pub nonce: [u8; 16],
    /// The token that holds the audit key, by name.
    pub audit_token: String,
    /// The key that seals checkpoints.
    pub audit_key: AuditKey,
    /// Tokens, by the name that the keeper's configuration gives each.
    pub tokens: BTreeMap<String, TokenIdentity>,
    /// Keys that were on the tokens already: unusable until they are adopted.
    pub foreign: Vec<ForeignKey>,
    /// How many days the clock may run ahead of the ledger without a quorum.
    pub clock_days: u16,
    /// Everyone who has a say; each of them signs the founding.
    pub roster: Roster,
    /// The quorum rules.
    pub rules: Rules,
    /// The recovery group's rule, if there is such a group.
    pub recovery: Option<RecoveryRule>,
}

/// How a token is recognised, and the group it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenIdentity {
    /// CK_TOKEN_INFO label, without trailing blanks.
    pub label: String,
    /// CK_TOKEN_INFO serial number, without trailing blanks.
    pub serial: String,
    /// Tokens of one group hold the same keys; KSKs and ZSKs are kept on different groups.
    pub group: String,
    /// It holds data objects. One that has none can't be marked with the founding, and the officers'
    /// checkpoints alone guard against its ledger being rolled back.
    pub data_objects: bool,
}

/// A key that was on a token before the founding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignKey {
    /// The token, by name.
    pub token: String,
    /// Its label, as found.
    pub label: String,
    /// Its CKA_ID in hexadecimal.
    pub id: String,
}
