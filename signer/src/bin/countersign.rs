//! `countersign`: see [`countersign_signer::cli`].

use std::process::ExitCode;

use clap::Parser as _;
use countersign_signer::cli::{Cli, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    run(cli, &mut std::io::stdout(), &mut std::io::stderr()).await
}
