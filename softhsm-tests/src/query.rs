//! Questions to name servers, asked by dig: no code of ours decides what an answer
//! says.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, anyhow, bail};

use crate::pki::Identity;
use crate::tools::{run, run_ok, tool};

/// An answer, as dig prints it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// NOERROR, NXDOMAIN, SERVFAIL, …
    pub rcode: String,
    /// The AD bit: the resolver has validated it.
    pub authentic: bool,
    /// Everything dig printed.
    pub text: String,
}

fn dig(port: u16) -> Result<Command> {
    let mut command = Command::new(tool("dig")?);
    command.args(["@127.0.0.1", "-p", &port.to_string(), "+time=2", "+tries=1"]);
    Ok(command)
}

/// Asks the server on `port` in clear, with the DO bit.
pub fn ask(port: u16, name: &str, rtype: &str) -> Result<Answer> {
    let text = run_ok(dig(port)?.args(["+dnssec", "-q", name, "-t", rtype]))?;
    let rcode = text
        .split_once("status: ")
        .and_then(|(_, rest)| rest.split_once(','))
        .map(|(rcode, _)| rcode.to_owned())
        .ok_or_else(|| anyhow!("dig shows no status:\n{text}"))?;
    let flags = text
        .split_once(";; flags:")
        .and_then(|(_, rest)| rest.split_once(';'))
        .map(|(flags, _)| flags.to_owned())
        .unwrap_or_default();
    Ok(Answer { rcode, authentic: flags.split_whitespace().any(|flag| flag == "ad"), text })
}

/// The serial in the server's SOA of `zone`; an error while it serves none.
pub fn serial(port: u16, zone: &str) -> Result<u32> {
    let text = run_ok(dig(port)?.args(["+short", "+norecurse", "-q", zone, "-t", "SOA"]))?;
    let serial = text.split_whitespace().nth(2).ok_or_else(|| anyhow!("no SOA: {text:?}"))?;
    serial.parse().map_err(|_| anyhow!("not an SOA: {text:?}"))
}

/// The whole zone, one record a line, as the server gives it by AXFR in clear.
pub fn axfr(port: u16, zone: &str) -> Result<String> {
    let text = run_ok(dig(port)?.args(["+noall", "+answer", "+onesoa", "-q", zone, "-t", "AXFR"]))?;
    if !text.contains("SOA") {
        bail!("no transfer: {text:?}");
    }
    Ok(text)
}

/// The whole zone, as the server gives it by AXFR to who has the key in `file`.
pub fn axfr_with_key(port: u16, zone: &str, file: &Path) -> Result<String> {
    let mut dig = dig(port)?;
    dig.arg("-k").arg(file).args(["+noall", "+answer", "+onesoa", "-q", zone, "-t", "AXFR"]);
    let text = run_ok(&mut dig)?;
    if !text.contains("SOA") {
        bail!("no transfer: {text:?}");
    }
    Ok(text)
}

/// The same with RDATA in hexadecimal (RFC 3597 §5), so that nothing is left to how a type is read.
pub fn axfr_generic(port: u16, zone: &str) -> Result<String> {
    let arguments = ["+noall", "+answer", "+onesoa", "+unknownformat", "-q", zone, "-t", "AXFR"];
    let text = run_ok(dig(port)?.args(arguments))?;
    if !text.contains("TYPE6\t") {
        bail!("no transfer: {text:?}");
    }
    Ok(text)
}

/// The whole zone by XoT, one record a line, as whoever `identity` is.
pub fn axfr_over_tls(
    port: u16,
    zone: &str,
    identity: &Identity,
    server_ca: &Path,
    server_name: &str,
) -> Result<String> {
    let text = run_ok(
        dig(port)?
            .arg(format!("+tls-ca={}", server_ca.display()))
            .arg(format!("+tls-hostname={server_name}"))
            .arg(format!("+tls-certfile={}", identity.cert.display()))
            .arg(format!("+tls-keyfile={}", identity.key.display()))
            .args(["+tls", "+noall", "+answer", "+onesoa", "-q", zone, "-t", "AXFR"]),
    )?;
    if !text.contains("SOA") {
        bail!("no transfer: {text:?}");
    }
    Ok(text)
}

/// Asks over TLS. `identity` is the client's certificate, if it shows one. Whether there was an
/// answer is for the caller to read: with TLS 1.3 a refused client learns of it only then. (dig
/// shows a certificate whatever authorities the server names; kdig would keep a foreign one back.)
pub fn over_tls(
    port: u16,
    identity: Option<&Identity>,
    server_ca: &Path,
    server_name: &str,
    question: [&str; 2],
) -> Result<String> {
    let mut command = dig(port)?;
    command
        .arg("+tls")
        .arg(format!("+tls-ca={}", server_ca.display()))
        .arg(format!("+tls-hostname={server_name}"));
    if let Some(identity) = identity {
        command.arg(format!("+tls-certfile={}", identity.cert.display()));
        command.arg(format!("+tls-keyfile={}", identity.key.display()));
    }
    let output = run(command.args(["+dnssec", "-q", question[0], "-t", question[1]]))?;
    Ok(format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}
