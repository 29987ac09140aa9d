//! What the API says, in JSON; the command line reads the same types. Times are seconds since
//! 1970. Fields are added, never changed, within `/v1`.

use serde::{Deserialize, Serialize};

/// `GET /v1/zones`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneList {
    /// Why the last reload of the configuration was refused; the one before it is in force.
    pub config_error: Option<String>,
    /// The zones, in order of their names.
    pub zones: Vec<ZoneSummary>,
}

/// One zone, in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneSummary {
    /// Its name.
    pub zone: String,
    /// Serial of the version that is up; absent before the first.
    pub serial: Option<u32>,
    /// The primary's serial of its data.
    pub incoming_serial: Option<u32>,
    /// When it was stored.
    pub published_at_s: Option<u64>,
    /// When its first signature is due to be made anew.
    pub refresh_at_s: Option<u64>,
    /// When its first signature expires.
    pub expires_at_s: Option<u64>,
    /// When the primary is asked next.
    pub next_check_at_s: u64,
    /// `idle`, `checking` or `signing`.
    pub doing: String,
    /// Who froze it and when, while no new version may go out.
    pub frozen: Option<FrozenBy>,
    /// New data that waits for a person, or was released by one and is not up yet.
    #[serde(default)]
    pub held: Option<KeptReport>,
    /// New data that waits for something else, and goes on by itself.
    #[serde(default)]
    pub waiting: Option<KeptReport>,
    /// What needs attention, worst first.
    pub alarms: Vec<AlarmReport>,
}

/// Who froze a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenBy {
    /// As the API knew them.
    pub by: String,
    /// Since when.
    pub since_s: u64,
}

/// New data that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptReport {
    /// The serial that its source gave it.
    pub serial: u32,
    /// Since when.
    pub since_s: u64,
    /// Where it came from.
    pub source: String,
    /// Its records.
    pub records: u64,
    /// The first digits of its digest: what a decision about it names.
    #[serde(default)]
    pub digest: String,
    /// Why it was set aside.
    pub reasons: Vec<String>,
    /// Who released it, where someone did.
    pub released_by: Option<String>,
}

/// `GET /v1/zones/{zone}/versions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionList {
    /// The zone.
    pub zone: String,
    /// Those that are kept, newest first.
    pub versions: Vec<Version>,
    /// New data that waits for a person.
    pub held: Option<KeptReport>,
    /// New data that waits for something else.
    pub waiting: Option<KeptReport>,
}

/// A version that is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The serial that it was published under.
    pub serial: u32,
    /// The serial that its source gave its data.
    pub incoming_serial: u32,
    /// When it was stored.
    pub published_at_s: u64,
    /// Where its data came from, if that was recorded.
    pub source: Option<String>,
    /// Whether its data is the source's to the octet.
    pub exact: bool,
    /// Who released it, where it was held.
    pub released_by: Option<String>,
    /// Whether it is the one that is up.
    pub up: bool,
}

/// A line of `GET /v1/zones/{zone}/diff?json=true`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffLine {
    /// `-` goes, `+` comes.
    pub change: String,
    /// The record, as in a master file: fields separated by tabs.
    pub record: String,
}

/// Its first line: what is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffStart {
    /// The one side.
    pub from: String,
    /// The other.
    pub to: String,
}

/// Its last line: without it the answer broke off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffEnd {
    /// Records that go.
    pub removed: u64,
    /// Records that come.
    pub added: u64,
}

/// Something that needs attention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmReport {
    /// What sort; stable.
    pub kind: String,
    /// What was wrong, and where.
    pub reason: String,
    /// What to do.
    pub next_step: String,
    /// Since when.
    pub since_s: u64,
    /// When it is tried again by itself, if it is.
    pub retry_at_s: Option<u64>,
}

/// `GET /v1/zones/{zone}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneDetail {
    /// What the list says.
    #[serde(flatten)]
    pub summary: ZoneSummary,
    /// Name of its signing policy, once the keeper told it.
    pub policy: Option<String>,
    /// Peers that it is fetched from.
    pub primaries: Vec<String>,
    /// Peers that it goes to.
    pub secondaries: Vec<String>,
    /// Records of the version that is up, signatures not counted.
    pub records: Option<u64>,
    /// Signatures of the version that is up.
    pub signatures: Option<u64>,
    /// What is to be known of the version that is up and is no alarm: values that went out capped, a
    /// ZONEMD that was not made.
    #[serde(default)]
    pub remarks: Vec<String>,
}

/// `GET /v1/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyList {
    /// The keys, by zone.
    pub keys: Vec<Key>,
}

/// One key. Its DS is not shown: exporting it will need a quorum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The zone that it signs.
    pub zone: String,
    /// `KSK`, `ZSK` or `CSK`.
    pub role: String,
    /// IANA number.
    pub algorithm: u8,
    /// IANA mnemonic.
    pub algorithm_name: String,
    /// Key tag as published.
    pub tag: u16,
    /// SHA-256(algorithm ‖ public key): what the key is.
    pub key_id: String,
    /// Tokens that have proven it since they were last opened.
    pub proven_by: Vec<String>,
    /// Why it can't be used, if it can't.
    pub unusable: Option<String>,
}

/// `GET /v1/hsm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HsmStatus {
    /// The keeper's version.
    pub keeper_version: String,
    /// The appliance's name, from its founding.
    pub appliance: String,
    /// SHA-256 of the founding's text.
    pub founding: String,
    /// The tokens.
    pub tokens: Vec<Token>,
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Name in the keeper's configuration.
    pub name: String,
    /// Tokens of one group hold the same keys.
    pub group: String,
    /// `CK_TOKEN_INFO` label.
    pub label: String,
    /// `CK_TOKEN_INFO` serial number.
    pub serial: String,
    /// `probing`, `usable` or `unusable`.
    pub state: String,
    /// Why, if unusable.
    pub reason: Option<String>,
    /// Sessions in use.
    pub sessions: u32,
    /// Keys proven since it was last opened.
    pub keys_proven: u32,
    /// Requests that wait.
    pub queued: u32,
    /// Signatures made since the keeper started.
    pub signatures: u64,
    /// Calls that failed since the keeper started.
    pub failures: u64,
    /// Mean time of a signature, from asking to having.
    pub latency_mean_us: Option<u64>,
}

/// `GET /v1/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`, or `attention` when anything alarms.
    pub status: String,
    /// The daemon's version.
    pub version: String,
    /// Zones configured.
    pub zones: u64,
    /// Zones with a version up.
    pub zones_up: u64,
    /// Zones with an alarm.
    pub zones_alarmed: u64,
    /// Why the keeper can't be asked, if it can't.
    pub keeper_error: Option<String>,
    /// What the keeper wants known, worst first.
    #[serde(default)]
    pub notices: Vec<NoticeReport>,
    /// Why the last reload of the configuration was refused.
    pub config_error: Option<String>,
    /// What a reload could not change and a restart will.
    pub restart_needed_for: Vec<String>,
    /// When our own TLS certificate ends.
    pub certificate_ends_at_s: Option<i64>,
    /// What needs attention about the daemon itself, worst first: `certificate-expired`,
    /// `certificate-revoked`, `certificate-expiring-soon` (7 days), `certificate-files`,
    /// `crl-expired`, `crl-expiring`, `crl-missing` or `certificate-expiring` (30 days).
    #[serde(default)]
    pub alarms: Vec<AlarmReport>,
}

/// Something that the keeper wants known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeReport {
    /// What sort: `behind`, `ledger`, `clock`, `frozen`, `recovery`, `token`, `unfinished`,
    /// `checkpoint` or `proposal`.
    pub kind: String,
    /// What is so, since when, and what to do.
    pub detail: String,
    /// Whether someone should see to it; not so while officers are at their work.
    pub attention: bool,
}

/// The answer to `POST /v1/zones/{zone}/freeze`, `thaw` and `refresh`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The zone.
    pub zone: String,
    /// What holds now.
    pub message: String,
}
