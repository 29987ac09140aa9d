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
