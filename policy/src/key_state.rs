//! Where a key is in its life, and the vocabulary of what resolvers know of it.
//!
//! ```text
//!  KSK, CSK   Made ──activate──► Active ──retire──► Retired ──destroy──► Destroying ──► (gone)
//!              │                    ▲                 │  ▲
//!              └──destroy──► …      └────activate─────┘  └ (what a lapsed destruction left is destroyed by another)
//!  ZSK        Active from the start
//! ```
//!
//! The stage is what the ledger decided. What the world has seen of a key is another matter: its four
//! records are each in one of the states of RFC 7583 §3, and the lifecycle moves them by what is
//! observed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the ledger decided of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It is there, proven, and its public half is kept back.
    Made,
    /// It is in the DNSKEY RRset and may sign.
    Active,
    /// It was taken out of the DNSKEY RRset and stays in its HSM.
    Retired,
    /// A quorum gave it up: it is being destroyed, token by token, and nothing else may be done with
    /// it.
    Destroying,
}

impl Stage {
    /// As texts spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Destroying => "destroying",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What resolvers may know of one record of a key (Mekking's four states; RFC 7583 §3 has the times).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordState {
    /// No resolver has it.
    Hidden,
    /// It is published; a resolver may have it or may still have what was before.
    Rumoured,
    /// Every resolver has it or gets it on asking.
    Omnipresent,
    /// It is withdrawn; a resolver may still have it.
    Unretentive,
}

/// The records by which a key is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyRecordKind {
    /// The key in the DNSKEY RRset.
    Dnskey,
    /// Its signatures over the zone's RRsets.
    ZoneRrsig,
    /// Its signature over the DNSKEY RRset.
    KeyRrsig,
    /// The DS at the parent.
    Ds,
}
