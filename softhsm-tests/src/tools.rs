//! The programs that the bed runs, and the Debian package that brings each.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, anyhow, bail};

use crate::users;

/// Program and Debian 12 package. What is not listed here is not run.
const PACKAGES: &[(&str, &str)] = &[
    ("curl", "curl"),
    ("dig", "bind9-dnsutils"),
    ("dnssec-dsfromkey", "bind9-utils"),
    ("dnssec-verify", "bind9-utils"),
    ("drill", "ldnsutils"),
    ("kdig", "knot-dnsutils"),
    ("knotd", "knot"),
    ("ldns-signzone", "ldnsutils"),
    ("ldns-verify-zone", "ldnsutils"),
    ("mount", "mount"),
    ("named", "bind9"),
    ("named-compilezone", "bind9-utils"),
    ("nsd", "nsd"),
    ("nsupdate", "bind9-dnsutils"),
    ("ods-enforcer", "opendnssec-enforcer-sqlite3"),
    ("ods-enforcerd", "opendnssec-enforcer-sqlite3"),
    ("ods-signerd", "opendnssec-signer"),
    ("openssl", "openssl"),
    ("pdns_server", "pdns-server"),
    ("pdnsutil", "pdns-server"),
    ("pkcs11-tool", "opensc"),
    ("python3", "python3"),
    ("setpriv", "util-linux"),
    ("softhsm2-util", "softhsm2"),
    ("sqlite3", "sqlite3"),
    ("ssh-keygen", "openssh-client"),
    ("systemd-analyze", "systemd"),
    ("umount", "mount"),
    ("unbound", "unbound"),
    ("unshare", "util-linux"),
];

/// Daemons live in sbin, which a user's PATH may leave out.
const SYSTEM_DIRS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];

/// Debian's SoftHSM module; the symbolic link in /usr/lib/softhsm has the same path on every
/// architecture.
pub const SOFTHSM_MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// Where `program` is, or which package to install.
pub fn tool(program: &str) -> Result<PathBuf> {
    let package = PACKAGES
        .iter()
        .find(|(name, _)| *name == program)
        .map(|(_, package)| *package)
        .ok_or_else(|| anyhow!("{program} is not in the bed's list of programs"))?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_DIRS.iter().map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| anyhow!("{program} is missing: apt-get install {package}"))
}

/// A copy of the daemon `program`. Debian's `AppArmor` profiles go by path and let named and unbound
/// read the system's own configuration only; a copy is free to read a story's.
pub fn daemon(program: &str) -> Result<PathBuf> {
    let original = tool(program)?;
    let dir = users::shared_dir()?.join("daemons");
    std::fs::create_dir_all(&dir)?;
    let copy = dir.join(program);
    let modified = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified());
    if modified(&copy).is_ok_and(|copied| modified(&original).is_ok_and(|made| copied > made)) {
        return Ok(copy);
    }
    // Renamed into place: another story may be starting from it right now.
    let fresh = dir.join(format!("{program}.{}", std::process::id()));
    std::fs::copy(&original, &fresh)?;
    std::fs::rename(&fresh, &copy)?;
    Ok(copy)
}

/// The SoftHSM module, or which package to install.
pub fn softhsm_module() -> Result<&'static Path> {
    let path = Path::new(SOFTHSM_MODULE);
    if !path.exists() {
        bail!("{SOFTHSM_MODULE} is missing: apt-get install softhsm2");
    }
    Ok(path)
}

/// Runs `command` to its end; its output even when it fails.
pub fn run(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("running {}", command.get_program().display()))
}

/// Runs `command`; what it printed, or an error that shows what it complained about.
pub fn run_ok(command: &mut Command) -> Result<String> {
    let output = run(command)?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{} ended with {}:\n{stdout}{}",
            command.get_program().display(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(stdout)
}
