//! Version 1 of the configuration file, as written: TOML, unknown keys refused. Nothing here is
//! checked beyond its type; [`super::Config`] is what the rest of the daemon sees.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::{
    BeyondWindow, HookFailure, HookPoint, IncomingDnssec, IncomingZonemd, Limits, LogFormat,
    Problem, Role, Transport, TsigAlgorithm,
};

/// The version that this module reads.
pub const VERSION: u32 = 1;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(rename = "version")]
    _version: u32,
    pub daemon: Daemon,
    pub tls: Option<Tls>,
    #[serde(default)]
    pub listen: Listen,
    #[serde(default)]
    pub tsig: BTreeMap<Spanned<String>, Spanned<Tsig>>,
    #[serde(default)]
    pub peer: BTreeMap<String, Spanned<Peer>>,
    #[serde(default)]
    pub guard: BTreeMap<String, Spanned<Guard>>,
    #[serde(default)]
    pub hook: BTreeMap<String, Spanned<Hook>>,
    #[serde(default)]
    pub zone: BTreeMap<Spanned<String>, Spanned<Zone>>,
    #[serde(default)]
    pub api_client: BTreeMap<String, Spanned<ApiClient>>,
    pub limits: Option<Spanned<Limits>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Daemon {
    pub state_dir: Spanned<PathBuf>,
    pub keeper_socket: Spanned<PathBuf>,
    pub api_socket: Spanned<PathBuf>,
    pub group: Option<String>,
    #[serde(default)]
    pub log: LogFormat,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
    pub crl: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tsig {
    pub algorithm: TsigAlgorithm,
    pub secret_file: Spanned<PathBuf>,
}

/// Absent numbers are those of [`super::Guard::default`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Guard {
    pub shrink_percent_max: Option<u8>,
    pub shrink_records_min: Option<u64>,
    pub apex_ns: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hook {
    pub socket: Spanned<PathBuf>,
    pub before: HookPoint,
    pub timeout_ms: Option<u64>,
    #[serde(default)]
    pub on_failure: HookFailure,
}

#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Listen {
    pub dns: Vec<SocketAddr>,
    pub xot: Option<Spanned<Vec<SocketAddr>>>,
    pub api: Option<Spanned<Vec<SocketAddr>>>,
}

/// One of the two, told apart by key; both or neither is refused in the check.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    pub san: Option<String>,
    pub spki_sha256: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peer {
    pub identity: Option<Spanned<Identity>>,
    pub tsig: Option<Spanned<String>>,
    #[serde(default)]
    pub transport: Transport,
    pub transfer_from: Option<SocketAddr>,
    pub server_name: Option<String>,
    pub notify: Option<SocketAddr>,
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Zone {
    #[serde(default)]
    pub primaries: Vec<Spanned<String>>,
    #[serde(default)]
    pub push_from: Vec<Spanned<String>>,
    #[serde(default)]
    pub secondaries: Vec<Spanned<String>>,
    #[serde(default)]
    pub incoming_dnssec: IncomingDnssec,
    #[serde(default)]
    pub incoming_zonemd: IncomingZonemd,
    #[serde(default)]
    pub zonemd: bool,
    #[serde(default)]
    pub beyond_window: BeyondWindow,
    pub guard: Option<Spanned<String>>,
    #[serde(default)]
    pub critical: Vec<Spanned<String>>,
    #[serde(default)]
    pub hooks: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiClient {
    pub identity: Spanned<Identity>,
    pub role: Role,
}

/// Just enough to tell an older or newer file from a broken one.
#[derive(Deserialize)]
struct Versioned {
    version: Spanned<u32>,
}

impl File {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let versioned: Versioned = toml::from_str(text).map_err(|error| from_toml(&error))?;
        if *versioned.version.get_ref() != VERSION {
            return Err(Problem::at(
                versioned.version.span(),
                format!("version {} of the file is not known", versioned.version.get_ref()),
                format!("this countersignd reads version {VERSION}"),
            ));
        }
        toml::from_str(text).map_err(|error| from_toml(&error))
    }
}

fn from_toml(error: &toml::de::Error) -> Problem {
    let message = error.message().trim().replace('\n', "; ");
    let hint = near_miss(&message);
    Problem { span: error.span(), message, hint }
}

/// For "unknown field `a`, expected one of `b`, `c`" the name that was meant, if one is close.
fn near_miss(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("missing field") {
        return quoted.next().map(|field| format!("add `{field} = …` to this table"));
    }
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let found = quoted.next().filter(|_| unknown)?;
    quoted
        .map(|candidate| (strsim::jaro_winkler(found, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
        .or_else(|| Some("remove it, or see the list above".to_owned()))
}
