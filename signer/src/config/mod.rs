//! The daemon's configuration: peers, listeners, which zone comes from and goes to whom, limits.
//!
//! What is signed and how is not here: policies, keys and bindings are the keeper's ledger's.
//! [`load`] reads a file into a [`Config`] that is whole: every name it uses is defined, every
//! number is within bounds. A file that is not whole is refused with every problem it has, each
//! with its line and column, what was expected, and what to do.

mod check;
mod problem;
pub mod v1;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use countersign_policy::ZoneName;
use serde::{Deserialize, Serialize};

pub use problem::{ConfigError, Problem};

/// The file may be this large: room for 200,000 zones with long names, and no way to fill memory
/// by pointing `--config` at the wrong thing.
pub const CONFIG_BYTES_MAX: u64 = 64 << 20;

/// A configuration that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where things are.
    pub daemon: Daemon,
    /// Our identity towards peers and API clients, and the CA that theirs must chain to.
    pub tls: Option<TlsFiles>,
    /// Sockets that are listened on.
    pub listen: Listen,
    /// Keys that peers sign messages with, by their names as domain names in lower case.
    pub tsig: BTreeMap<String, TsigKey>,
    /// Everyone that zones come from and go to, by name.
    pub peers: BTreeMap<String, Peer>,
    /// Programs that are asked about a new version, by name.
    pub hooks: BTreeMap<String, Hook>,
    /// The zones.
    pub zones: BTreeMap<ZoneName, Zone>,
    /// Who may use the HTTPS API, by name.
    pub api_clients: BTreeMap<String, ApiClient>,
    /// Bounds.
    pub limits: Limits,
}

/// `[daemon]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// Published versions live here.
    pub state_dir: PathBuf,
    /// The keeper's socket for this daemon's user.
    pub keeper_socket: PathBuf,
    /// The operators' socket on this box.
    pub api_socket: PathBuf,
    /// Group (name or number) whose members may use `api_socket`; without it, the daemon's own
    /// user and root alone.
    pub group: Option<String>,
    /// How log lines look.
    pub log: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people and the journal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[tls]`: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our chain, leaf first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// CAs that peers' and API clients' certificates must chain to.
    pub ca: PathBuf,
    /// Their revocation lists (RFC 5280 §5).
    pub crl: Option<PathBuf>,
}

/// `[tsig."NAME"]` (RFC 8945).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TsigKey {
    /// How messages are authenticated.
    pub algorithm: TsigAlgorithm,
    /// The shared secret in Base64, in a file that no other user can read.
    pub secret_file: PathBuf,
}

/// The algorithms of RFC 8945 §6 that may be used; those with MD5 and SHA-1 are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TsigAlgorithm {
    /// Mandatory to implement.
    HmacSha256,
    /// Optional.
    HmacSha384,
    /// Optional.
    HmacSha512,
}

/// `[listen]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listen {
    /// UDP and TCP: apex queries and NOTIFY from listed peers.
    pub dns: Vec<SocketAddr>,
    /// TLS with client certificates: transfers out, and the same queries.
    pub xot: Vec<SocketAddr>,
    /// HTTPS with client certificates.
    pub api: Vec<SocketAddr>,
}

/// What a peer's or API client's certificate must show.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// A DNS name among its subject alternative names, lower-cased.
    San(String),
    /// SHA-256 of its SubjectPublicKeyInfo.
    SpkiSha256([u8; 32]),
}

/// `[peer.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is, by its certificate; a peer without is known by its TSIG key.
    pub identity: Option<Identity>,
    /// Name of the key that its messages must be signed with, beside TLS or in its place.
    pub tsig: Option<String>,
    /// How zones travel between us, both ways.
    pub transport: Transport,
    /// Where zones are fetched from it.
    pub transfer_from: Option<SocketAddr>,
    /// Name that its server certificate must carry; with a SAN identity that name by default.
    pub server_name: Option<String>,
    /// Where NOTIFY is sent.
    pub notify: Option<SocketAddr>,
    /// Addresses that apex queries and NOTIFY may come from without TLS; never transfers.
    pub addresses: Vec<IpAddr>,
}

/// How zones travel between us and a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TLS 1.3 (RFC 9103).
    #[default]
    Tls,
    /// TCP in clear; each message is signed by TSIG.
    Tcp,
}

/// `[zone."NAME"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Peers that the zone is fetched from, in order of preference. A zone has primaries, or those
    /// who may push it, or both.
    pub primaries: Vec<String>,
    /// API clients that may push it; [`PUSH_LOCAL`] stands for operators on the box.
    pub push_from: Vec<String>,
    /// Peers that it goes to.
    pub secondaries: Vec<String>,
    /// What becomes of DNSSEC records that the primary sends.
    pub incoming_dnssec: IncomingDnssec,
    /// What the primary's ZONEMD is for.
    pub incoming_zonemd: IncomingZonemd,
    /// Whether the signed zone carries a ZONEMD record (RFC 8976).
    pub zonemd: bool,
    /// What becomes of TTLs and an SOA expire that signatures would not outlive.
    pub beyond_window: BeyondWindow,
    /// Which changes wait for a person; `None` if none do.
    pub guard: Option<Guard>,
    /// Names that a new version must have, or a person releases it.
    pub critical: Vec<ZoneName>,
    /// Programs that are asked about a new version, in this order.
    pub hooks: Vec<String>,
}

/// In `push_from`: operators on the box's unix socket.
pub const PUSH_LOCAL: &str = "local";

/// What the primary's ZONEMD is for (RFC 8976 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IncomingZonemd {
    /// Nothing.
    #[default]
    Ignore,
    /// A zone whose digest is wrong is refused; one without is taken.
    Check,
    /// One without is refused too.
    Require,
}

/// What becomes of a TTL, or an SOA expire, that is longer than signatures are certain to be valid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BeyondWindow {
    /// The zone is refused.
    #[default]
    Refuse,
    /// It goes out capped, and each is named.
    Cap,
}

/// `[guard.NAME]`: the changes that wait for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// More of the records than this may not go at once.
    pub shrink_percent_max: u8,
    /// Fewer than this never count as shrinking: a small zone loses a fifth with one host.
    pub shrink_records_min: u64,
    /// Whether another NS RRset at the apex waits.
    pub apex_ns: bool,
}

impl Default for Guard {
    /// Zones change by a few records in a thousand a day; a provisioning system that sends a fifth less
    /// is broken more often than right.
    fn default() -> Self {
        Self { shrink_percent_max: 20, shrink_records_min: 10, apex_ns: true }
    }
}

/// `[hook.NAME]`: a program behind a unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Where it listens.
    pub socket: PathBuf,
    /// When it is asked.
    pub before: HookPoint,
    /// How long its answer may take.
    pub timeout_ms: u64,
    /// What a failure to answer means.
    pub on_failure: HookFailure,
}

/// When a hook is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookPoint {
    /// Once the data is admitted.
    Signing,
    /// Once the signed version is verified.
    Publishing,
}

/// What it means that a hook does not answer, in time or at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookFailure {
    /// The version waits for a person.
    #[default]
    Hold,
    /// It goes on.
    Pass,
}

/// What becomes of DNSSEC records that the primary sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IncomingDnssec {
    /// They are left out, and ours take their place.
    #[default]
    Strip,
    /// The zone is refused: it should not be signed already.
    Refuse,
}

/// `[api_client.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiClient {
    /// Who it is.
    pub identity: Identity,
    /// What it may do.
    pub role: Role,
}

/// What a user of the API may do; each role may do what those before it may. None stands for an
/// officer: no route touches a KSK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Pushes the zones that name it, and nothing else.
    Pusher,
    /// Health and metrics.
    Monitor,
    /// Everything that reads.
    Auditor,
    /// Freezes, thaws and refreshes zones.
    Operator,
}

/// `[limits]`: every bound that a site may want to move; the defaults argue for themselves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Records that a transfer may bring: the largest ccTLD has some 20 million delegations,
    /// but a mistake should not take a box's memory. Raise it knowingly.
    pub records_max: usize,
    /// Octets of owner names and RDATA that a transfer may bring.
    pub zone_bytes_max: usize,
    /// Connections that the XoT and DNS listeners hold at once.
    pub connections_max: usize,
    /// The same, of one peer address, so that no single peer takes them all.
    pub connections_per_peer_max: usize,
    /// A TLS handshake may take this long.
    pub handshake_ms: u64,
    /// A peer may be silent for this long in the middle of something.
    pub idle_ms: u64,
    /// A whole transfer may take this long, however steadily it drips.
    pub transfer_s_max: u64,
    /// Lower bound on SOA refresh and retry: a primary can't make us hammer it.
    pub soa_timer_s_min: u32,
    /// Upper bound on SOA refresh and retry: a lost NOTIFY is made good within a day.
    pub soa_timer_s_max: u32,
    /// Versions of each zone kept on disk.
    pub versions_kept: usize,
    /// Zones that are planned, verified or stored at once; each uses all cores in bursts, and
    /// each holds two versions in memory.
    pub zones_at_work_max: usize,
    /// The keeper may take this long over one batch.
    pub keeper_deadline_ms: u64,
    /// Connections that the API holds at once: of local callers, of strangers in their TLS
    /// handshake, and of known clients, each.
    pub api_connections_max: usize,
    /// An API request may take this long, an export included.
    pub api_request_s_max: u64,
    /// Differences between versions that are kept of each zone for IXFR: a secondary that was away for
    /// longer gets the whole zone.
    pub differences_kept: usize,
    /// Octets that they may take together.
    pub differences_bytes_max: usize,
    /// Records of a zone above which no ZONEMD is made: it hashes the whole zone each time.
    pub zonemd_records_max: usize,
    /// Pushes that are read at once: each holds a zone in memory.
    pub pushes_at_once_max: usize,
    /// Stopping may take this long; what is not done by then is done at the next start.
    pub stop_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            records_max: 30_000_000,
            zone_bytes_max: 4 << 30,
            connections_max: 256,
            connections_per_peer_max: 32,
            handshake_ms: 5_000,
            idle_ms: 30_000,
            transfer_s_max: 3_600,
            soa_timer_s_min: 30,
            soa_timer_s_max: 86_400,
            versions_kept: 3,
            zones_at_work_max: 2,
            keeper_deadline_ms: 60_000,
            api_connections_max: 64,
            api_request_s_max: 600,
            differences_kept: 16,
            differences_bytes_max: 64 << 20,
            zonemd_records_max: 1_000_000,
            pushes_at_once_max: 4,
            stop_ms_max: 10_000,
        }
    }
}

/// Reads and checks the file at `path`.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let unreadable = |source: std::io::Error| ConfigError::unreadable(path, &source);
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.len() > CONFIG_BYTES_MAX {
        return Err(ConfigError::unreadable(
            path,
            &std::io::Error::other(format!(
                "{} octets; expected at most {CONFIG_BYTES_MAX}",
                metadata.len()
            )),
        ));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    parse(path, &text)
}

/// Checks `text`; `path` is what errors call it.
pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let file =
        v1::File::parse(text).map_err(|problem| ConfigError::new(path, text, vec![problem]))?;
    check::check(file).map_err(|problems| ConfigError::new(path, text, problems))
}

impl Config {
    /// What is different in `new` and can't be swapped under a running daemon.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let (a, b) = (&self.limits, &new.limits);
        let mut changed = Vec::new();
        for (what, differs) in [
            ("daemon.state_dir", self.daemon.state_dir != new.daemon.state_dir),
            ("daemon.keeper_socket", self.daemon.keeper_socket != new.daemon.keeper_socket),
            ("daemon.api_socket", self.daemon.api_socket != new.daemon.api_socket),
            ("daemon.group", self.daemon.group != new.daemon.group),
            ("daemon.log", self.daemon.log != new.daemon.log),
            ("listen", self.listen != new.listen),
            // Zones learn of theirs at a reload; listeners and the store are made with these.
            ("limits.connections_max", a.connections_max != b.connections_max),
            (
                "limits.connections_per_peer_max",
                a.connections_per_peer_max != b.connections_per_peer_max,
            ),
            ("limits.handshake_ms", a.handshake_ms != b.handshake_ms),
            ("limits.idle_ms", a.idle_ms != b.idle_ms),
            ("limits.transfer_s_max", a.transfer_s_max != b.transfer_s_max),
            ("limits.versions_kept", a.versions_kept != b.versions_kept),
            ("limits.zones_at_work_max", a.zones_at_work_max != b.zones_at_work_max),
            ("limits.keeper_deadline_ms", a.keeper_deadline_ms != b.keeper_deadline_ms),
            ("limits.pushes_at_once_max", a.pushes_at_once_max != b.pushes_at_once_max),
            ("limits.api_connections_max", a.api_connections_max != b.api_connections_max),
        ] {
            if differs {
                changed.push(what);
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests;
