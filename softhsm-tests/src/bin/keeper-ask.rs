//! Sends messages to a keeper's socket as whoever runs it, which is how the stories play a stolen
//! daemon: one JSON `Request` a line in, one JSON `Result<Response, String>` a line out.

use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use countersign_hsm::client::{Client, ClientError};
use countersign_hsm::protocol::{Request, Response};

fn main() -> Result<()> {
    let socket = std::env::args_os().nth(1).context("usage: keeper-ask SOCKET <REQUESTS")?;
    let client = Client::new(PathBuf::from(socket), Duration::from_secs(20));
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let answer = match client.request(request) {
            // A refusal is an answer; only silence and a closed door are not.
            Err(ClientError::Refused(refusal)) => Ok(Response::Refused(refusal)),
            other => other.map_err(|e| e.to_string()),
        };
        serde_json::to_writer(&mut out, &answer)?;
        writeln!(out)?;
    }
    Ok(())
}
