//! Verifiers that share no code with Countersign: they have the last word on signed zones.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::scratch::{Scratch, write};
use crate::tools::{run, run_ok, tool};
use crate::users::User;

/// The DS RRset (SHA-256) of the keys with the SEP bit, derived by BIND from the zone's text.
pub fn anchor(scratch: &Scratch, zone: &str, signed: &str) -> Result<String> {
    let path = scratch.file("anchor.zone", signed, User::Harness, 0o644)?;
    run_ok(Command::new(tool("dnssec-dsfromkey")?).args(["-2", "-f"]).arg(&path).arg(zone))
}

/// Has ldns and BIND verify the zone whose text is `signed`, ldns also against `anchor`.
pub fn verify(scratch: &Scratch, zone: &str, signed: &str, anchor: &str) -> Result<()> {
    let dir = scratch.dir("oracle", User::Harness, 0o755)?;
    let (file, anchor_file) = (dir.join("signed.zone"), dir.join("anchor.ds"));
    write(&file, signed, User::Harness, 0o644)?;
    write(&anchor_file, anchor, User::Harness, 0o644)?;
    with_ldns(&file, &anchor_file).with_context(|| format!("of {zone}:\n{signed}"))?;
    with_bind(zone, &file).with_context(|| format!("of {zone}:\n{signed}"))
}

/// Has BIND alone verify the zone whose text is `signed`.
pub fn verify_with_bind(scratch: &Scratch, zone: &str, signed: &str) -> Result<()> {
    let file = scratch.dir("oracle", User::Harness, 0o755)?.join("signed.zone");
    write(&file, signed, User::Harness, 0o644)?;
    with_bind(zone, &file)
}

/// What ldns finds wrong with the zone whose text is `signed`: for zones of which it is known to read
/// something otherwise than it is.
pub fn faults_by_ldns(scratch: &Scratch, signed: &str) -> Result<Vec<String>> {
    let file = scratch.dir("oracle", User::Harness, 0o755)?.join("signed.zone");
    write(&file, signed, User::Harness, 0o644)?;
    let output = run(Command::new(tool("ldns-verify-zone")?).arg("-V1").arg(&file))?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
}

fn with_ldns(file: &Path, anchor: &Path) -> Result<()> {
    let output = run_ok(
        Command::new(tool("ldns-verify-zone")?).args(["-V", "4", "-k"]).arg(anchor).arg(file),
    )?;
    if !output.contains("Zone is verified and complete") {
        bail!("ldns-verify-zone says:\n{output}");
    }
    Ok(())
}

fn with_bind(zone: &str, file: &Path) -> Result<()> {
    // -z: a zone with a CSK has no key without the SEP bit, which is no fault.
    run_ok(Command::new(tool("dnssec-verify")?).args(["-z", "-o", zone]).arg(file)).map(drop)
}
