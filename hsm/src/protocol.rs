//! What daemon and keeper say to each other over the unix socket, and what anyone in the group
//! `countersign` may ask over the other one.
//!
//! A frame is a 32-bit big-endian length, then that many octets of postcard. A request frame holds
//! `(id, Request)`, its answer `(id, Response)`; answers may overtake one another. Ids are the
//! client's own and need only be distinct among its requests in flight.
//!
//! There is no message that makes a key, names a mechanism, hands in a digest, or reaches a CSYNC
//! signature: what is not here can't be asked for. DNSKEY, CDS and CDNSKEY are asked for by name, and the
//! keeper builds their octets from the ledger. What people put to a vote goes over the other socket
//! ([`group`]), as texts that authenticate themselves.

pub mod group;

use std::collections::BTreeSet;

use countersign_policy::ledger::CdsType;
use countersign_policy::tree::Hash;
use countersign_policy::{KeyId, KeyRole, PublicKey, SigningPolicy, ZoneName};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

pub use group::{
    DsExport, LedgerRequest, LedgerResponse, Mode, Submission, Survey, SurveyedKey, SurveyedToken,
};

/// Raised when a message changes shape; both sides refuse another's.
pub const PROTOCOL_VERSION: u16 = 3;

/// A frame of a batch: [`BATCH_MAX`] RRsets of ordinary size, or one of 64 KB RDATA with owner
/// names and headers on every record; anything larger is split by the client.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

/// To-be-signed items in one request: enough to keep every HSM session busy, few enough that one
/// batch does not hold the queue for long on an HSM with 2 ms a signature.
pub const BATCH_MAX: usize = 512;

/// Octets of one to-be-signed item. An RRset's RDATA may total 64 KB; every record repeats its
/// owner (255) and 10 octets, so small records multiply: 1 MiB covers 3,900 records of any size
/// and 16 times any RRset that fits a DNS message.
pub const TBS_BYTES_MAX: usize = 1 << 20;

/// Zones in one answer: of names of 255 octets, each escaped to four times that, this many fit a
/// frame.
pub const ZONES_PER_ANSWER: usize = 4_000;

/// Requests that one connection may have in flight; more are not read until one is answered.
pub const IN_FLIGHT_MAX: usize = 64;

/// What the daemon asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First on every connection.
    Hello {
        /// [`PROTOCOL_VERSION`].
        protocol: u16,
    },
    /// Bound zones in order: a portfolio's list exceeds one frame, so it comes in parts.
    Zones {
        /// Those behind this one; from the first if absent.
        after: Option<ZoneName>,
    },
    /// Policy and keys of one zone.
    Zone {
        /// The zone.
        zone: ZoneName,
    },
    /// Sign with a ZSK (or a CSK, under the ZSK's rule).
    SignZone {
        /// The zone that the key must be bound to.
        zone: ZoneName,
        /// The key.
        key: KeyId,
        /// RRSIG RDATA up to the signer's name, then the RRset in canonical form and order
        /// (RFC 4034 §3.1.8.1), one item a signature.
        #[serde(deserialize_with = "bounded_batch")]
        tbs: Vec<Vec<u8>>,
    },
    /// Sign the zone's DNSKEY RRset with a KSK or CSK. The keeper builds the bytes.
    SignDnskey {
        /// The zone.
        zone: ZoneName,
        /// The keys that the RRset is to hold.
        keys: BTreeSet<KeyId>,
        /// The key that signs.
        signer: KeyId,
        /// TTL of the RRset.
        ttl_s: u32,
        /// Seconds since 1970 modulo 2^32.
        inception: u32,
        /// The same.
        expiration: u32,
    },
    /// Sign the zone's CDS or CDNSKEY RRset as a motion approved it. The keeper builds the bytes.
    SignCds {
        /// The zone.
        zone: ZoneName,
        /// Which of the two.
        rrset: CdsType,
        /// The KSK or CSK that signs.
        signer: KeyId,
        /// TTL of the RRset.
        ttl_s: u32,
        /// Seconds since 1970 modulo 2^32.
        inception: u32,
        /// The same.
        expiration: u32,
    },
    /// A version went out: for the ledger.
    Published {
        /// The zone.
        zone: ZoneName,
        /// Its serial.
        serial: u32,
        /// Digest of the version.
        digest: [u8; 32],
    },
    /// Tokens and their health.
    Health,
}

/// What the keeper answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Hello`].
    Hello {
        /// [`PROTOCOL_VERSION`].
        protocol: u16,
        /// The keeper's own version.
        version: String,
        /// The appliance's name, from its founding.
        appliance: String,
        /// SHA-256 of the founding's text.
        founding: Hash,
    },
    /// To [`Request::Zones`].
    Zones {
        /// At most [`ZONES_PER_ANSWER`].
        zones: Vec<ZoneName>,
        /// There are more behind the last.
        more: bool,
    },
    /// To [`Request::Zone`].
    Zone(ZoneKeys),
    /// To [`Request::SignZone`]: in the order of the items.
    Signatures(Vec<Result<Vec<u8>, Refusal>>),
    /// To [`Request::SignDnskey`]: the RRSIG's signature field.
    DnskeySignature(Vec<u8>),
    /// To [`Request::SignCds`]: the RRSIG's signature field.
    CdsSignature(Vec<u8>),
    /// To [`Request::Published`].
    Recorded,
    /// To [`Request::Health`].
    Health(KeeperHealth),
    /// To any request that is refused as a whole.
    Refused(Refusal),
}

/// What the daemon needs to plan a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneKeys {
    /// The zone.
    pub zone: ZoneName,
    /// Name of its policy.
    pub policy_name: String,
    /// Its policy.
    pub policy: SigningPolicy,
    /// The keys of its DNSKEY RRset.
    pub keys: Vec<KeyInfo>,
    /// No signature of the DNSKEY RRset may expire later, in seconds since 1970: a motion approved
    /// this set until then. Absent where the set is what is signed by itself.
    pub dnskey_until: Option<u64>,
    /// CDS and CDNSKEY that the zone is to have now; absent if none.
    pub cds: Option<CdsOrder>,
}

/// What a motion approved to be said to the parent (RFC 7344; the delete form: RFC 8078 §4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CdsOrder {
    /// RDATA of the CDS RRset, sorted as RFC 4034 §6.3 says.
    pub cds: Vec<Vec<u8>>,
    /// RDATA of the CDNSKEY RRset, sorted likewise.
    pub cdnskey: Vec<Vec<u8>>,
    /// They are signed and published until then, in seconds since 1970.
    pub until: u64,
    /// From inception to expiration of their signatures, at most: short, so that an old one can't be
    /// replayed for long.
    pub validity_s: u32,
}

/// One key, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// What it is for.
    pub role: KeyRole,
    /// Its public half; its id is derived from it.
    pub public: PublicKey,
    /// Tokens that have proven it since they were last opened, by name.
    pub proven_by: Vec<String>,
    /// Why it can't be used, if it can't.
    pub unusable: Option<String>,
}

/// Why the keeper said no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct Refusal {
    /// What sort of no.
    pub kind: RefusalKind,
    /// What was wrong, what was expected, what to do next.
    pub detail: String,
}

/// Sorts of no, for metrics and for the daemon's next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RefusalKind {
    /// The bytes or the message are not what they should be.
    Malformed,
    /// The rules forbid it: asking again won't help.
    Forbidden,
    /// No such zone or key here.
    Unknown,
    /// A token answers for the key with another public key.
    KeyConflict,
    /// No token that has proven the key answers just now.
    HsmUnavailable,
    /// Queue full: ask again.
    Busy,
    /// The ledger can't be written, so no KSK is used.
    LedgerUnavailable,
    /// The zone has no active KSK or CSK: officers have to see to it.
    NoKey,
}

impl std::fmt::Display for RefusalKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed",
            Self::Forbidden => "forbidden",
            Self::Unknown => "unknown",
            Self::KeyConflict => "key conflict",
            Self::HsmUnavailable => "HSM unavailable",
            Self::Busy => "busy",
            Self::LedgerUnavailable => "ledger unavailable",
            Self::NoKey => "no key",
        })
    }
}

impl RefusalKind {
    /// Whether the same request may succeed later without anyone changing anything else.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::HsmUnavailable | Self::Busy | Self::LedgerUnavailable)
    }
}

/// How the keeper is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperHealth {
    /// Its tokens.
    pub tokens: Vec<TokenHealth>,
    /// What people should know of; at most [`NOTICES_MAX`].
    pub notices: Vec<Notice>,
}

/// Notices in one answer: more than anyone reads, and far from filling a frame.
pub const NOTICES_MAX: usize = 256;

/// Something that people should know of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What sort.
    pub kind: NoticeKind,
    /// What is so, since when, and what to do.
    pub detail: String,
}

/// Sorts of notices, for metrics and alarms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NoticeKind {
    /// The ledger is older than a token or a checkpoint says, or another one: no key is used.
    Behind,
    /// Another box holds the tokens, or may: no key is used.
    Elsewhere,
    /// The ledger can't be written: no KSK is used.
    Ledger,
    /// KSK use is frozen.
    Frozen,
    /// The clock is behind the ledger's floor or too far ahead of it: no KSK is used.
    Clock,
    /// The recovery group has a motion under way.
    Recovery,
    /// A checkpoint could not be made or kept.
    Checkpoint,
    /// A token is not this appliance's, or is not marked.
    Token,
    /// Something that was approved could not be done yet.
    Unfinished,
    /// A motion is open and waits for approvals or for its time.
    Proposal,
}

impl NoticeKind {
    /// As metrics and logs spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Elsewhere => "elsewhere",
            Self::Ledger => "ledger",
            Self::Frozen => "frozen",
            Self::Clock => "clock",
            Self::Recovery => "recovery",
            Self::Checkpoint => "checkpoint",
            Self::Token => "token",
            Self::Unfinished => "unfinished",
            Self::Proposal => "proposal",
        }
    }
}

impl std::fmt::Display for NoticeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A token, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenHealth {
    /// Name in the configuration.
    pub name: String,
    /// Group that it belongs to.
    pub group: String,
    /// `CK_TOKEN_INFO` label.
    pub label: String,
    /// `CK_TOKEN_INFO` serial number.
    pub serial: String,
    /// How it is.
    pub state: TokenState,
    /// Worker threads, each with a session of its own.
    pub sessions: u32,
    /// Keys proven since it was last opened.
    pub keys_proven: u32,
    /// Requests waiting.
    pub queued: u32,
    /// Signatures made since the keeper started.
    pub signatures: u64,
    /// Calls that failed since the keeper started.
    pub failures: u64,
    /// Microseconds from asking to having, of signatures: counts per bucket of
    /// [`LATENCY_BUCKETS_US`], the last bucket is everything slower.
    pub latency_counts: Vec<u64>,
    /// Sum of the same, in microseconds.
    pub latency_sum_us: u64,
}

/// Upper bounds of the latency buckets, in microseconds: a software token takes tens, a `PCIe` card
/// hundreds, a network HSM thousands.
pub const LATENCY_BUCKETS_US: [u64; 10] =
    [50, 100, 250, 500, 1_000, 2_500, 10_000, 50_000, 250_000, 1_000_000];

/// Health of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenState {
    /// Being opened, or its keys being proven.
    Probing,
    /// Signs.
    Usable,
    /// Does not, and why.
    Unusable(String),
}

/// Refuses a batch of more than [`BATCH_MAX`] items while it is read: a frame of empty items would
/// else take many times its own size in memory.
fn bounded_batch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
    struct Batch;
    impl<'de> Visitor<'de> for Batch {
        type Value = Vec<Vec<u8>>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {BATCH_MAX} items")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut batch = Vec::new();
            while let Some(item) = items.next_element()? {
                if batch.len() == BATCH_MAX {
                    return Err(A::Error::invalid_length(BATCH_MAX + 1, &self));
                }
                batch.push(item);
            }
            Ok(batch)
        }
    }
    deserializer.deserialize_seq(Batch)
}
