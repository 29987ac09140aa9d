//! What someone with root's rights does to files: copies of directories put back, ledgers edited.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::scratch::write;
use crate::users::{User, give};

/// Copies of directories of the keeper's, as they were at one moment.
#[derive(Debug)]
pub struct Copies {
    directories: Vec<PathBuf>,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Copies {
    /// Reads the files of `directories`; there are none in directories below.
    pub fn of<'a>(directories: impl IntoIterator<Item = &'a Path>) -> Result<Self> {
        let mut copies = Self { directories: Vec::new(), files: Vec::new() };
        for directory in directories {
            for entry in std::fs::read_dir(directory)? {
                let path = entry?.path();
                if path.is_file() {
                    let octets = std::fs::read(&path)?;
                    copies.files.push((path, octets));
                }
            }
            copies.directories.push(directory.to_owned());
        }
        Ok(copies)
    }

    /// Puts them back: what came since goes.
    pub fn put_back(&self) -> Result<()> {
        for directory in &self.directories {
            for entry in std::fs::read_dir(directory)? {
                let path = entry?.path();
                if path.is_file() {
                    std::fs::remove_file(path)?;
                }
            }
        }
        for (path, octets) in &self.files {
            std::fs::write(path, octets).with_context(|| path.display().to_string())?;
            give(path, User::Keeper, 0o600)?;
        }
        Ok(())
    }
}

/// Replaces the lines of a ledger. Each is written in canonical form and, with `renumber`, says the place
/// that it has, as a careful forger would see to.
pub fn write_ledger(path: &Path, lines: &[Value], renumber: bool) -> Result<()> {
    let mut text = String::new();
    for (seq, line) in lines.iter().enumerate() {
        let mut line = line.clone();
        if renumber {
            line["seq"] = Value::String(seq.to_string());
        }
        text.push_str(&line.to_string());
        text.push('\n');
    }
    write(path, &text, User::Keeper, 0o600)
}

/// The places of the lines of a kind.
pub fn places(lines: &[Value], kind: &str) -> Vec<usize> {
    let places = lines.iter().enumerate();
    places.filter(|(_, line)| line["entry"]["kind"] == kind).map(|(at, _)| at).collect()
}
