//! A story's directory, and the frame around a story: when it fails, every log is shown before
//! the directory goes.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::users::{User, give};

/// Lines of each log that a failing story shows.
const LOG_LINES_SHOWN: usize = 80;

/// A directory that every user can enter and that goes when the story ends.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
}

impl Scratch {
    /// Makes it, under the system's directory for temporary files.
    pub fn new() -> Result<Self> {
        let mut dir = TempDir::with_prefix("countersign-story-")?;
        give(dir.path(), User::Harness, 0o755)?;
        dir.disable_cleanup(std::env::var_os("BED_KEEP").is_some());
        Ok(Self { dir })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a directory in it.
    pub fn dir(&self, name: &str, owner: User, mode: u32) -> Result<PathBuf> {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        give(&path, owner, mode)?;
        Ok(path)
    }

    /// Writes a file in it, whole or not at all as far as a reader can tell.
    pub fn file(&self, name: &str, content: &str, owner: User, mode: u32) -> Result<PathBuf> {
        let path = self.path().join(name);
        write(&path, content, owner, mode)?;
        Ok(path)
    }

    fn logs(&self) -> Vec<PathBuf> {
        let mut logs = Vec::new();
        let mut dirs = vec![self.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    dirs.push(path);
                } else if path.extension().is_some_and(|extension| extension == "log") {
                    logs.push(path);
                }
            }
        }
        logs.sort();
        logs
    }
}

/// Writes `content` to a new file beside `path`, gives it away, and renames it into place.
pub fn write(path: &Path, content: &str, owner: User, mode: u32) -> Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    std::fs::write(&fresh, content).with_context(|| fresh.display().to_string())?;
    give(&fresh, owner, mode)?;
    std::fs::rename(&fresh, path).with_context(|| path.display().to_string())
}

/// Runs a story. An error or a panic fails the test after the logs of every process were shown.
/// `BED_KEEP=1` in the environment leaves the directory in place.
///
/// # Panics
/// When the story fails: that is how a test says so.
pub fn story(body: impl FnOnce(&Scratch) -> Result<()>) {
    let scratch = Scratch::new().expect("a directory for temporary files");
    let outcome = catch_unwind(AssertUnwindSafe(|| body(&scratch)));
    if matches!(outcome, Ok(Ok(()))) {
        return;
    }
    let mut shown = String::new();
    for log in scratch.logs() {
        let bytes = std::fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        let _ = writeln!(shown, "──── {} ────\n{}", log.display(), tail.join("\n"));
    }
    eprintln!("{shown}");
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(e)) => panic!("{e:?}"),
        Err(panic) => resume_unwind(panic),
    }
}
