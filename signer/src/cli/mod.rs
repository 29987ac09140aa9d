//! `countersign`, the command line: nouns, then verbs; tables for people, `--json` for programs.
//!
//! `zone`, `key`, `hsm` and `daemon` talk to the daemon's API, over the unix socket on the box itself
//! or over HTTPS from elsewhere. Whatever is about officers and the ledger talks to the keeper's second
//! socket, and believes nothing of it: every such command folds the ledger itself ([`view`]) and
//! remembers its head ([`pins`]). `config check` and `audit verify` ask nobody.
//!
//! # Exit codes
//! 0 done; 1 refused or failed; 2 wrong usage; 3 daemon or keeper not reached; 4 done, and something
//! needs attention; 5 the ledger or bundle does not hold, is behind the pin, or is another one.
//!
//! Ctrl-C leaves nothing half-done: files are written beside their place and moved there, and what is
//! sent to the keeper is one message.

mod ask;
mod audit;
mod bundle;
mod calendar;
mod changes;
mod client;
mod desk;
mod ds;
mod end;
mod events;
mod files;
mod found;
mod freeze;
mod history;
mod ledger;
mod officer;
mod pins;
mod proposal;
mod propose;
mod push;
mod rules;
mod say;
mod show;
mod sign;
mod survey;
mod view;
mod vote;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use countersign_policy::statement::Verb;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::model::{
    Done, Health, HsmStatus, KeyList, VersionList, ZoneDetail, ZoneList, ZoneSummary,
};
use crate::clock::now_s;
use client::Client;
use desk::{Desk, DeskArgs};
use end::{EXIT_CODES, End, Stop};

/// Where the daemon's packages put its socket.
const SOCKET: &str = "/run/countersign/api.sock";
/// Where the daemon's packages put its configuration.
const CONFIG: &str = "/etc/countersign/daemon.toml";

/// Sees and steers a Countersign daemon, and is the officers' pen.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    desk: DeskArgs,
    #[command(subcommand)]
    noun: Noun,
}

/// How the daemon is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "The daemon's API")]
struct Reach {
    /// The daemon's unix socket, on this box.
    #[arg(long, global = true, default_value = SOCKET, env = "COUNTERSIGN_SOCKET")]
    socket: PathBuf,
    /// The daemon's HTTPS API, from elsewhere: https://HOST:PORT. Needs --cert, --cert-key and --ca.
    #[arg(long, global = true, requires_all = ["cert", "cert_key", "ca"])]
    url: Option<String>,
    /// Our certificate (PEM, leaf first).
    #[arg(long, global = true, requires = "url")]
    cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, global = true, requires = "url")]
    cert_key: Option<PathBuf>,
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
    /// Send a zone file, have it signed, and wait for the verdict.
    Push(push::PushArgs),
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
    /// What is on the keeper's tokens.
    Survey,
    /// Found an appliance.
    Found(found::FoundArgs),
    /// Who has a say.
    #[command(subcommand)]
    Officer(officer::OfficerVerb),
    /// Put a motion to the vote.
    Propose(propose::ProposeArgs),
    /// What was put to the vote.
    #[command(subcommand)]
    Proposal(proposal::ProposalVerb),
    /// Say yes to a proposal.
    Approve(vote::VoteArgs),
    /// Say no to a proposal; it stands.
    Deny(vote::VoteArgs),
    /// Stop the use of KSKs, alone and at once.
    Freeze(freeze::FreezeArgs),
    /// DS records for the parent.
    #[command(subcommand)]
    Ds(ds::DsVerb),
    /// What was done, by whom, under which rule; and its proof.
    #[command(subcommand)]
    Audit(audit::AuditVerb),
    /// What will want people within 90 days.
    Calendar,
    /// The keeper's ledger as a file.
    #[command(subcommand)]
    Ledger(ledger::LedgerVerb),
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
    /// The versions that are kept, where each came from, and what waits.
    Versions {
        /// The zone.
        zone: String,
    },
    /// How two versions differ: `-` records go, `+` records come.
    Diff {
        /// The zone.
        zone: String,
        /// A serial, `up`, `held` or `waiting`.
        from: String,
        /// The same.
        to: String,
        /// DNSSEC records too.
        #[arg(long)]
        dnssec: bool,
    },
    /// Let the version out that waits for a person.
    Release {
        /// The zone.
        zone: String,
        /// The serial of what you have looked at (`zone diff ZONE up held`).
        #[arg(long)]
        serial: u32,
        /// Its digest, or 8 digits of it: needed where it was pushed.
        #[arg(long)]
        digest: Option<String>,
    },
    /// Let it go: what is up stays, and the primary is not asked for that serial again.
    Reject {
        /// The zone.
        zone: String,
        /// The serial of what you have looked at.
        #[arg(long)]
        serial: u32,
        /// Its digest, or 8 digits of it: needed where it was pushed.
        #[arg(long)]
        digest: Option<String>,
    },
    /// Put an earlier version up again, under a higher serial.
    Republish {
        /// The zone.
        zone: String,
        /// The serial that it was published under (`zone versions ZONE`).
        version: u32,
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

/// Runs what the arguments say; results go to `out`, errors to `err`.
pub async fn run(cli: Cli, out: &mut (dyn Write + Send), err: &mut (dyn Write + Send)) -> ExitCode {
    run_at(now_s(), cli, out, err).await.into()
}

/// The same at a given time.
async fn run_at(
    now_s: u64,
    cli: Cli,
    out: &mut (dyn Write + Send),
    err: &mut (dyn Write + Send),
) -> End {
    match dispatch(now_s, cli, out, err).await {
        Ok(end) => end,
        Err(Stop::Pipe) => End::Fine,
        Err(Stop::Said { end, text }) => {
            // Nobody is left to tell if this fails too.
            let _ = writeln!(err, "countersign: {}", say::lines(&text));
            end
        }
    }
}

async fn dispatch(
    now_s: u64,
    cli: Cli,
    out: &mut (dyn Write + Send),
    err: &mut (dyn Write + Send),
) -> Result<End, Stop> {
    let Cli { reach, desk, json, noun } = cli;
    let desk = |out| Desk { args: desk, json, now_s, out };
    match noun {
        Noun::Config(ConfigVerb::Check { file }) => config_check(&file, json, out),
        Noun::Survey => survey::run(desk(out)),
        Noun::Found(args) => found::run(desk(out), args),
        Noun::Officer(verb) => officer::run(desk(out), verb),
        Noun::Propose(args) => propose::run(desk(out), args),
        Noun::Proposal(verb) => proposal::run(desk(out), verb),
        Noun::Approve(args) => vote::run(desk(out), Verb::Approve, args),
        Noun::Deny(args) => vote::run(desk(out), Verb::Deny, args),
        Noun::Freeze(args) => freeze::run(desk(out), args),
        Noun::Ds(verb) => ds::run(desk(out), verb),
        Noun::Audit(verb) => audit::run(desk(out), verb),
        Noun::Calendar => calendar::run(desk(out)),
        Noun::Ledger(verb) => ledger::run(desk(out), verb),
        Noun::Zone(verb) => zone(&Client::new(reach)?, verb, json, out).await,
        Noun::Push(args) => push::run(&Client::new(reach)?, args, json, out, err).await,
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
        ZoneVerb::Versions { zone } => {
            let list: VersionList = get(client, &format!("{}/versions", path(&zone))).await?;
            print(json, &list, out, show::versions)?;
            return Ok(attention(list.held.is_some()));
        }
        ZoneVerb::Diff { zone, from, to, dnssec } => {
            let (from, to) = (client::escape(&from), client::escape(&to));
            let query = format!("from={from}&to={to}&dnssec={dnssec}&json={json}");
            client.stream(&format!("{}/diff?{query}", path(&zone)), out).await?;
            return Ok(End::Fine);
        }
        ZoneVerb::Freeze { zone } => (zone, "freeze".to_owned()),
        ZoneVerb::Thaw { zone } => (zone, "thaw".to_owned()),
        ZoneVerb::Refresh { zone } => (zone, "refresh".to_owned()),
        ZoneVerb::Release { zone, serial, digest } => {
            (zone, format!("release?serial={serial}{}", named(digest)))
        }
        ZoneVerb::Reject { zone, serial, digest } => {
            (zone, format!("reject?serial={serial}{}", named(digest)))
        }
        ZoneVerb::Republish { zone, version } => (zone, format!("republish?version={version}")),
    };
    let body = client.fetch("POST", &format!("{}/{action}", path(&zone))).await?;
    let done: Done = parse(&body)?;
    print(json, &done, out, |done, out| writeln!(out, "{}: {}", done.zone, done.message))?;
    Ok(End::Fine)
}

/// A digest in a query, if there is one.
fn named(digest: Option<String>) -> String {
    digest.map(|digest| format!("&digest={}", client::escape(&digest))).unwrap_or_default()
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

#[cfg(test)]
mod tests;
