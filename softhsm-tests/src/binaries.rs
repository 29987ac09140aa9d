//! The programs under test, built from this checkout and copied to where other users can run
//! them: the checkout may lie below a directory that only its owner can enter.

use std::ffi::OsString;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::Deserialize;

use crate::users;

/// Copies that nobody has made again for so long are of builds that are gone.
const COPIES_KEPT: Duration = Duration::from_secs(6 * 3600);

/// Where each program is.
#[derive(Debug)]
pub struct Binaries {
    /// `countersign-keeper`.
    pub keeper: PathBuf,
    /// `countersignd`.
    pub daemon: PathBuf,
    /// `countersign`, the command line.
    pub cli: PathBuf,
    /// `keeper-ask`: sends messages to a keeper's socket as whoever runs it.
    pub ask: PathBuf,
    /// The PKCS#11 module that fails on demand.
    pub shim: PathBuf,
}

/// Each `cargo build` on its own: built together, the daemon would get the keeper's features
/// of the shared crate, and with them PKCS#11 code that it must not hold.
const BUILDS: [(&[&str], &[&str]); 4] = [
    (
        // With a clock that a story can move: the package's build refuses that feature.
        &["-p", "countersign-hsm", "--bin", "countersign-keeper", "--features", "test-clock"],
        &["countersign-keeper"],
    ),
    (&["-p", "countersign-signer", "--bins"], &["countersignd", "countersign"]),
    (&["-p", "softhsm-tests", "--bins"], &["keeper-ask"]),
    (&["-p", "countersign-p11-shim", "--lib"], &["libcountersign_p11_shim.so"]),
];

/// Builds what is not up to date, once in a test process and one process at a time.
pub fn binaries() -> Result<&'static Binaries> {
    static BUILT: OnceLock<Result<Binaries, String>> = OnceLock::new();
    BUILT
        .get_or_init(|| build().map_err(|e| format!("{e:?}")))
        .as_ref()
        .map_err(|e| anyhow!("building what is tested: {e}"))
}

fn build() -> Result<Binaries> {
    let shared = users::shared_dir()?;
    let lock = File::create(shared.join("build.lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e)?;
    // The other stories of one nextest run find everything built: asking cargo takes a second.
    let run = std::env::var("NEXTEST_RUN_ID").ok().map(|id| shared.join(format!("run-{id}")));
    if let Some(run) = &run
        && let Ok(dir) = std::fs::read_to_string(run)
    {
        return Ok(in_dir(Path::new(&dir)));
    }
    let mut built = Vec::new();
    for (arguments, products) in BUILDS {
        built.extend(cargo_build(arguments, products)?);
    }
    let dir = copy(&shared, &built)?;
    if let Some(run) = run {
        std::fs::write(run, dir.display().to_string())?;
    }
    Ok(in_dir(&dir))
}

fn in_dir(dir: &Path) -> Binaries {
    Binaries {
        keeper: dir.join("countersign-keeper"),
        daemon: dir.join("countersignd"),
        cli: dir.join("countersign"),
        ask: dir.join("keeper-ask"),
        shim: dir.join("libcountersign_p11_shim.so"),
    }
}

/// The part of cargo's messages that says where a product is.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

fn cargo_build(arguments: &[&str], products: &[&str]) -> Result<Vec<PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let output = Command::new(cargo)
        .args(["build", "--locked", "--quiet", "--message-format=json-render-diagnostics"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo")?;
    if !output.status.success() {
        bail!("cargo build {} failed; see above", arguments.join(" "));
    }
    let mut found = Vec::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let message: Message = serde_json::from_str(line)?;
        if message.reason == "compiler-artifact" {
            found.extend(message.filenames);
        }
    }
    found.retain(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| products.contains(&name))
    });
    if found.len() != products.len() {
        bail!("cargo built {found:?}, expected {products:?}");
    }
    Ok(found)
}

/// Copies `files` to a directory named after what they are, unless that was done before.
fn copy(shared: &Path, files: &[PathBuf]) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    for file in files {
        let metadata = std::fs::metadata(file)?;
        (file, metadata.len(), metadata.mtime(), metadata.mtime_nsec()).hash(&mut hasher);
    }
    let dir = shared.join(format!("bin-{:016x}", hasher.finish()));
    if dir.is_dir() {
        return Ok(dir);
    }
    remove_old(shared)?;
    let fresh = shared.join("bin-new");
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh)?;
    }
    std::fs::create_dir(&fresh)?;
    for file in files {
        let name = file.file_name().ok_or_else(|| anyhow!("{} has no name", file.display()))?;
        let copy = fresh.join(name);
        std::fs::copy(file, &copy).with_context(|| file.display().to_string())?;
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755))?;
    }
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(&fresh, &dir)?;
    Ok(dir)
}

fn remove_old(shared: &Path) -> Result<()> {
    for entry in std::fs::read_dir(shared)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if age < COPIES_KEPT {
            continue;
        }
        if name.starts_with("bin-") {
            std::fs::remove_dir_all(entry.path())?;
        } else if name.starts_with("run-") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
