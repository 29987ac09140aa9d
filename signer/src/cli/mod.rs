//! `countersign`, the command line: nouns, then verbs; tables for people, `--json` for programs.
//!
//! It talks to the daemon's API, over the unix socket on the box itself or over HTTPS from
//! elsewhere. `config check` and `ledger list` ask nobody but the file and the keeper.

mod client;
mod show;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use countersign_hsm::client::LedgerClient;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::model::{Done, Health, HsmStatus, KeyList, ZoneDetail, ZoneList, ZoneSummary};
use client::{Client, ClientError};

/// Where the daemon's packages put its socket.
const SOCKET: &str = "/run/countersign/api.sock";
/// Where the keeper's packages put its second socket.
const LEDGER_SOCKET: &str = "/run/countersign-keeper/ledger.sock";
/// Where the daemon's packages put its configuration.
const CONFIG: &str = "/etc/countersign/daemon.toml";

/// Lines of the ledger asked for at once.
const LEDGER_LINES_MAX: u32 = 256;
/// The keeper may take this long over them.
const LEDGER_DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

const EXIT_CODES: &str = "\
Exit codes:
  0  done, and nothing needs attention
  1  refused, or failed
  2  wrong usage, or a configuration that is not whole
  3  the daemon (or for `ledger`, the keeper) can't be reached
  4  done, and something needs attention: an alarm, a zone that is not up, an unusable token or key";

/// Sees and steers a Countersign daemon.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    reach: Reach,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    noun: Noun,
}

/// How the daemon is reached.
#[derive(Debug, Args)]
struct Reach {
    /// The daemon's unix socket, on this box.
    #[arg(long, global = true, default_value = SOCKET, env = "COUNTERSIGN_SOCKET")]
    socket: PathBuf,
    /// The daemon's HTTPS API, from elsewhere: https://HOST:PORT. Needs --cert, --key and --ca.
    #[arg(long, global = true, requires_all = ["cert", "key", "ca"])]
    url: Option<String>,
    /// Our certificate (PEM, leaf first).
    #[arg(long, global = true, requires = "url")]
    cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, global = true, requires = "url")]
    key: Option<PathBuf>,
    /// The CA that the daemon's certificate chains to (PEM).
    #[arg(long, global = true, requires = "url")]
    ca: Option<PathBuf>,
    /// The name that the daemon's certificate is for, where it is not the URL's host.
    #[arg(long, global = true, requires = "url")]
    server_name: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// The zones that are signed.
    #[command(subcommand)]
    Zone(ZoneVerb),
    /// The keys that sign.
    #[command(subcommand)]
    Key(KeyVerb),
    /// The tokens behind the keeper.
    #[command(subcommand)]
    Hsm(HsmVerb),
    /// The daemon itself.
    #[command(subcommand)]
    Daemon(DaemonVerb),
    /// The daemon's configuration file.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// The keeper's ledger.
    #[command(subcommand)]
    Ledger(LedgerVerb),
}

#[derive(Debug, Subcommand)]
enum ZoneVerb {
    /// All zones, and what needs attention.
    List,
    /// One zone in full.
    Show {
        /// The zone.
        zone: String,
    },
    /// The version that is up, as a master file, on standard output.
    Export {
        /// The zone.
        zone: String,
    },
    /// Let no new version out, restarts included; the one that is up stays up.
    Freeze {
        /// The zone.
        zone: String,
    },
    /// Let new versions out again.
    Thaw {
        /// The zone.
        zone: String,
    },
    /// Ask the primary now, and sign what is due.
    Refresh {
        /// The zone.
        zone: String,
    },
}

#[derive(Debug, Subcommand)]
enum KeyVerb {
    /// All keys: role, tag, key id, and the tokens that have proven them.
    List {
        /// Only those of this zone.
        #[arg(long)]
        zone: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum HsmVerb {
    /// The tokens and their health.
    Status,
}

#[derive(Debug, Subcommand)]
enum DaemonVerb {
    /// Whether anything needs attention.
    Status,
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Says everything that is wrong with the file; needs no daemon.
    Check {
        /// The file.
        #[arg(default_value = CONFIG)]
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum LedgerVerb {
    /// The ledger's lines, as they are.
    List {
        /// The keeper's second socket, on its box.
        #[arg(long, default_value = LEDGER_SOCKET)]
        ledger_socket: PathBuf,
        /// The first line wanted, from 0.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Fine,
    Failed,
    Usage,
    Unreachable,
    Attention,
}

impl From<End> for ExitCode {
    fn from(end: End) -> Self {
        Self::from(match end {
            End::Fine => 0,
            End::Failed => 1,
            End::Usage => 2,
            End::Unreachable => 3,
            End::Attention => 4,
        })
    }
}

/// Runs what the arguments say; results go to `out`, errors to `err`.
pub async fn run(cli: Cli, out: &mut (dyn Write + Send), err: &mut (dyn Write + Send)) -> ExitCode {
    match dispatch(cli, out).await {
        Ok(end) => end.into(),
        Err(Stop::Pipe) => End::Fine.into(),
        Err(Stop::Said { end, text }) => {
            // Nobody is left to tell if this fails too.
            let _ = writeln!(err, "countersign: {text}");
            end.into()
        }
    }
}

/// Why a command stops early.
enum Stop {
    /// Whoever read our output has read enough.
    Pipe,
    Said {
        end: End,
        text: String,
    },
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::Pipe;
        }
        Self::Said { end: End::Failed, text: format!("can't write the result: {error}") }
    }
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Self {
        let end = match error {
            ClientError::Unreachable { .. } => End::Unreachable,
            ClientError::Usage(_) => End::Usage,
            ClientError::Refused(_) | ClientError::Broken(_) => End::Failed,
        };
        Self::Said { end, text: error.to_string() }
    }
}

async fn dispatch(cli: Cli, out: &mut (dyn Write + Send)) -> Result<End, Stop> {
    let Cli { reach, json, noun } = cli;
    match noun {
        Noun::Config(ConfigVerb::Check { file }) => config_check(&file, json, out),
        Noun::Ledger(LedgerVerb::List { ledger_socket, from }) => {
            ledger_list(&ledger_socket, from, out)
        }
        Noun::Zone(verb) => zone(&Client::new(reach)?, verb, json, out).await,
        Noun::Key(KeyVerb::List { zone }) => {
            let path = match zone {
                Some(zone) => format!("/v1/keys?zone={}", client::escape(&zone)),
                None => "/v1/keys".to_owned(),
            };
            let list: KeyList = get(&Client::new(reach)?, &path).await?;
            print(json, &list, out, show::keys)?;
            Ok(attention(list.keys.iter().any(|key| key.unusable.is_some())))
        }
        Noun::Hsm(HsmVerb::Status) => {
            let status: HsmStatus = get(&Client::new(reach)?, "/v1/hsm").await?;
            print(json, &status, out, show::hsm)?;
            Ok(attention(status.tokens.iter().any(|token| token.state != "usable")))
        }
        Noun::Daemon(DaemonVerb::Status) => {
            let health: Health = get(&Client::new(reach)?, "/v1/health").await?;
            print(json, &health, out, show::health)?;
            Ok(attention(health.status != "ok"))
        }
    }
}

async fn zone(
    client: &Client,
    verb: ZoneVerb,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<End, Stop> {
    let path = |zone: &str| format!("/v1/zones/{}", client::escape(zone));
    let (zone, action) = match verb {
        ZoneVerb::List => {
            let list: ZoneList = get(client, "/v1/zones").await?;
            print(json, &list, out, show::zones)?;
            let alarmed = list.zones.iter().any(needs_attention);
            return Ok(attention(alarmed || list.config_error.is_some()));
        }
        ZoneVerb::Show { zone } => {
            let detail: ZoneDetail = get(client, &path(&zone)).await?;
            print(json, &detail, out, show::zone)?;
            return Ok(attention(needs_attention(&detail.summary)));
        }
        ZoneVerb::Export { zone } => {
            client.stream(&format!("{}/export", path(&zone)), out).await?;
            return Ok(End::Fine);
        }
        ZoneVerb::Freeze { zone } => (zone, "freeze"),
        ZoneVerb::Thaw { zone } => (zone, "thaw"),
        ZoneVerb::Refresh { zone } => (zone, "refresh"),
    };
    let body = client.fetch("POST", &format!("{}/{action}", path(&zone))).await?;
    let done: Done = parse(&body)?;
    print(json, &done, out, |done, out| writeln!(out, "{}: {}", done.zone, done.message))?;
    Ok(End::Fine)
}

/// A zone that has never been published does, whatever it is waiting for.
fn needs_attention(zone: &ZoneSummary) -> bool {
    zone.serial.is_none() || !zone.alarms.is_empty()
}

fn attention(needed: bool) -> End {
    if needed { End::Attention } else { End::Fine }
}

async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T, Stop> {
    parse(&client.fetch("GET", path).await?)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Stop> {
    serde_json::from_slice(body).map_err(|error| Stop::Said {
        end: End::Failed,
        text: format!("the daemon's answer is not understood: {error}; install one release"),
    })
}

fn print<T: Serialize>(
    json: bool,
    value: &T,
    out: &mut (dyn Write + Send),
    table: impl FnOnce(&T, &mut (dyn Write + Send)) -> std::io::Result<()>,
) -> Result<(), Stop> {
    if json {
        serde_json::to_writer_pretty(&mut *out, value).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        table(value, out)?;
    }
    Ok(())
}

fn config_check(
    file: &std::path::Path,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<End, Stop> {
    let usage = |text: String| Stop::Said { end: End::Usage, text };
    let config = crate::config::load(file).map_err(|error| usage(error.to_string()))?;
    let prepared =
        crate::daemon::Prepared::new(config).map_err(|error| usage(format!("{error:#}")))?;
    let config = &prepared.config;
    let (zones, peers) = (config.zones.len(), config.peers.len());
    if json {
        let summary = serde_json::json!({ "zones": zones, "peers": peers });
        writeln!(out, "{summary}")?;
    } else {
        writeln!(out, "{}: whole; {zones} zones, {peers} peers", file.display())?;
    }
    Ok(End::Fine)
}

fn ledger_list(
    socket: &std::path::Path,
    from: u64,
    out: &mut (dyn Write + Send),
) -> Result<End, Stop> {
    let fail = |error: countersign_hsm::client::ClientError| {
        let refused = matches!(error, countersign_hsm::client::ClientError::Refused(_));
        let end = if refused { End::Failed } else { End::Unreachable };
        Stop::Said { end, text: error.to_string() }
    };
    let mut keeper = LedgerClient::connect(socket, LEDGER_DEADLINE).map_err(fail)?;
    let (lines, _) = keeper.head().map_err(fail)?;
    let mut at = from;
    while at < lines {
        let read = keeper.read(at, LEDGER_LINES_MAX).map_err(fail)?;
        if read.is_empty() {
            break;
        }
        at += read.len() as u64;
        for line in read {
            // Each is a JSON object already, for people as for programs.
            out.write_all(&line)?;
            out.write_all(b"\n")?;
        }
    }
    Ok(End::Fine)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exit_codes_are_in_the_help() {
        let help = Cli::command().render_help().to_string();
        assert!(help.contains("3  the daemon") && help.contains("4  done"), "{help}");
    }

    #[test]
    fn https_needs_a_certificate() {
        let parsed = Cli::try_parse_from(["countersign", "--url", "https://a:1", "zone", "list"]);
        assert!(parsed.expect_err("no certificate").to_string().contains("--cert"));
    }
}
