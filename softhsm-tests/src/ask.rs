//! The keeper's socket, asked directly: what a thief of the daemon's rights could send.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, ensure};
use countersign_hsm::protocol::{Request, Response};

use crate::binaries::binaries;
use crate::users::{User, command};

/// Sends `requests` to `socket` as `user`; the answers in the same order, or why there is none.
pub fn ask(
    user: User,
    socket: &Path,
    requests: &[Request],
) -> Result<Vec<Result<Response, String>>> {
    let mut child = command(user, &binaries()?.ask)?
        .arg(socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = Vec::new();
    for request in requests {
        serde_json::to_writer(&mut lines, request)?;
        lines.push(b'\n');
    }
    // The pipe holds 64 KB and answers are read only after: a writer of its own never blocks us.
    let mut stdin = child.stdin.take().context("stdin was piped")?;
    let writer = std::thread::spawn(move || stdin.write_all(&lines));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| anyhow!("the writing thread panicked"))??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers: Vec<Result<Response, String>> = String::from_utf8(output.stdout)?
        .lines()
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect::<Result<_>>()?;
    ensure!(answers.len() == requests.len(), "{} answers", answers.len());
    Ok(answers)
}
