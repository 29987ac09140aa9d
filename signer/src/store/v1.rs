//! Version 1 of the store's JSON files. These types are used in stored state: a change of meaning
//! is a `v2.rs` with a conversion.

use countersign_policy::ZoneName;
use serde::{Deserialize, Serialize};

/// The version that this module reads and writes.
pub const VERSION: u32 = 1;

/// `current.json` (and `previous.json`, the one before it): which versions there are, newest
/// first, and how far the serial has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Current {
    /// [`VERSION`].
    pub version: u32,
    /// The zone, so that a folder moved to another's place is noticed.
    pub zone: ZoneName,
    /// The highest serial ever published (RFC 1982); the next one is higher whatever became of
    /// the versions themselves.
    pub high_water: u32,
    /// What is kept, newest first.
    pub versions: Vec<Record>,
    /// How many times new data has gone out; signing the same data again does not count. Data that was
    /// kept aside before the last time has been overtaken.
    #[serde(default)]
    pub data_changes: u64,
}

/// One published version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Serial that it was published under.
    pub serial: u32,
    /// Root hash of its file, hexadecimal: what a resumed version must have.
    #[serde(with = "hex32")]
    pub root: [u8; 32],
    /// Serial that the primary had given the data.
    pub incoming_serial: u32,
    /// When it was stored, seconds since 1970.
    pub published_at_s: u64,
    /// When its first signature is due to be made anew, seconds since 1970.
    pub refresh_at_s: u64,
    /// Digest of the policy and keys that it was signed under, hexadecimal.
    #[serde(with = "hex32")]
    pub params: [u8; 32],
    /// Whether the version without what signing adds is the source's data to the octet, so that its
    /// differences may be applied to it. Versions of before this was recorded are not.
    #[serde(default)]
    pub exact: bool,
    /// Where its data came from; absent in versions of before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Who let it out, where it was held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Decision>,
    /// What differs from what its source, or the configuration, asks for.
    #[serde(default)]
    pub remarks: Remarks,
}

/// What is to be known of a version and is no alarm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remarks {
    /// Of its data: stays with it when it is signed again.
    pub data: Vec<String>,
    /// Of how this version was signed.
    pub signing: Vec<String>,
}

/// Where a zone's data came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum Source {
    /// A primary, by transfer.
    Primary {
        /// As the configuration called it; absent in data of before this was recorded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Someone pushed it.
    Push {
        /// As the API knew them.
        by: String,
    },
    /// Someone put an earlier version up again.
    Republish {
        /// As the API knew them.
        by: String,
        /// The serial that it was published under before.
        of: u32,
    },
}

impl Source {
    /// The primary's name, if it was fetched and that is known.
    pub fn primary(&self) -> Option<&str> {
        match self {
            Self::Primary { name } => name.as_deref(),
            Self::Push { .. } | Self::Republish { .. } => None,
        }
    }

    /// Whether it was fetched.
    pub fn is_primary(&self) -> bool {
        matches!(self, Self::Primary { .. })
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Primary { name: Some(name) } => write!(f, "from primary {name}"),
            Self::Primary { name: None } => f.write_str("from a primary"),
            Self::Push { by } => write!(f, "pushed by {by}"),
            Self::Republish { by, of } => write!(f, "version {of}, republished by {by}"),
        }
    }
}

/// What a person decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// As the API knew them.
    pub by: String,
    /// When, seconds since 1970.
    pub at_s: u64,
}

/// `held.json` and `waiting.json`: new data that was set aside, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// [`VERSION`].
    pub version: u32,
    /// The zone.
    pub zone: ZoneName,
    /// The serial that its source gave it.
    pub serial: u32,
    /// Since when, seconds since 1970.
    pub since_s: u64,
    /// Where it came from.
    pub source: Source,
    /// Why it was set aside.
    pub reasons: Vec<String>,
    /// Whether its records are as the source had them.
    pub exact: bool,
    /// [`Current::data_changes`] when it was set aside.
    pub data_changes: u64,
    /// Its records.
    pub records: u64,
    /// SHA-256 of its file, hexadecimal; the file is named by it.
    #[serde(with = "hex32")]
    pub digest: [u8; 32],
    /// Who let it out, where it was held, and is not up yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Decision>,
}

impl Kept {
    /// The first digits of its digest.
    pub fn short_digest(&self) -> String {
        countersign_policy::key::to_hex(&self.digest[..8])
    }
}

/// `rejected.json`: the primary's data that a person did not let out. It is not fetched again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejected {
    /// [`VERSION`].
    pub version: u32,
    /// The serial that the primary gave it.
    pub serial: u32,
    /// Who did not.
    pub decision: Decision,
}

/// `frozen.json`: there while no new version may go out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frozen {
    /// [`VERSION`].
    pub version: u32,
    /// Since when, seconds since 1970.
    pub since_s: u64,
    /// Who froze it, as the API knew them.
    pub by: String,
}

mod hex32 {
    use countersign_policy::key::{from_hex, to_hex};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&to_hex(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(input)?;
        from_hex(&text)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| D::Error::custom("expected 64 lower-case hexadecimal digits"))
    }
}
