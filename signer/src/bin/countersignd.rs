//! `countersignd`: see [`countersign_signer::daemon`].
//!
//! Exit codes: 0 stopped by a signal; 2 the configuration is not whole; 1 anything else.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use countersign_signer::config::{self, LogFormat};
use countersign_signer::daemon;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tracing_subscriber::EnvFilter;

/// After the daemon has stopped, threads that are still at work get this long; what they do is
/// done again at the next start.
const THREADS_STOP_MAX: Duration = Duration::from_secs(2);

/// The DNSSEC signer: takes zones in over mutual TLS, has them signed by the keeper, verifies
/// them, and lets them out over mutual TLS.
#[derive(Debug, Parser)]
#[command(name = "countersignd", version)]
struct Arguments {
    /// The configuration file; `countersign config check FILE` says what is wrong with it.
    #[arg(long)]
    config: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(2);
        }
    };
    start_log(config.daemon.log);
    match run(&arguments, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, config: config::Config) -> anyhow::Result<()> {
    no_core_dumps().context("core dumps can't be turned off")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime can't be started")?;
    let result = runtime.block_on(daemon::run(&arguments.config, config));
    runtime.shutdown_timeout(THREADS_STOP_MAX);
    result
}

/// A core would hold our TLS key and whole zones.
fn no_core_dumps() -> rustix::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Before the log is up.
fn complain(text: &str) {
    use std::io::Write as _;
    // Nobody is left to tell if this fails.
    let _ = writeln!(std::io::stderr(), "countersignd: {text}");
}
