//! `countersign-keeper`: the process that alone meets PKCS#11 modules, PINs and the ledger.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use countersign_hsm::keeper;
use countersign_hsm::pkcs11::exit_past_modules;
use nix::sys::stat::{Mode, umask};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tracing_subscriber::EnvFilter;

/// Keeps the keys: signs for one daemon, by the ledger's leave, with the HSMs' keys.
///
/// Exit status: 0 stopped by a signal; 2 configuration, directories or sockets are not as they must
/// be; 3 a token hung and its group has none left (a restart opens it last); 4 the ledger is refused;
/// 5 the appliance was founded (a restart serves it).
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The keeper's configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How log lines are written to standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

fn main() {
    let arguments = Arguments::parse();
    start_log(arguments.log_format);
    if let Err(error) = withdraw() {
        tracing::error!("{error:#}");
        std::process::exit(keeper::EXIT_CONFIG);
    }
    let code = match keeper::run(&arguments.config, tell_ready) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error}");
            error.exit_code()
        }
    };
    // Never through the modules' destructors: they can hang in the device.
    exit_past_modules(code);
}

fn start_log(format: LogFormat) {
    // cryptoki calls every vendor's own mechanism an error.
    let filter = EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info,cryptoki=off"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Keeps this process's memory, which holds PINs, out of core files and debuggers of its user, and
/// its files out of others' reach.
fn withdraw() -> anyhow::Result<()> {
    umask(Mode::from_bits_truncate(0o077));
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .context("forbidding core files")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("leaving the dumpable state")
}

fn tell_ready() {
    // Without a supervisor there is nobody to tell.
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "the supervisor was not told that the keeper is ready");
    }
}
