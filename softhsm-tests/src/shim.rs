//! The PKCS#11 module that fails on demand, put in front of SoftHSM for one story.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use crate::binaries::binaries;
use crate::scratch::{Scratch, write};
use crate::tools::softhsm_module;
use crate::users::{User, give};

/// A copy of the shim with files of its own.
#[derive(Debug, Clone)]
pub struct Shim {
    /// What the keeper's configuration names as module.
    pub module: PathBuf,
    rules: PathBuf,
    log: PathBuf,
}

impl Shim {
    /// Installs it; it passes everything on until [`Self::rules`] says otherwise.
    pub fn install(scratch: &Scratch) -> Result<Self> {
        Self::install_as(scratch, "shim")
    }

    /// The same in a directory of that name, for a story with more than one.
    pub fn install_as(scratch: &Scratch, name: &str) -> Result<Self> {
        let dir = scratch.dir(name, User::Keeper, 0o755)?;
        let module = dir.join("shim.so");
        std::fs::copy(&binaries()?.shim, &module)?;
        give(&module, User::Harness, 0o755)?;
        let rules = dir.join("rules.json");
        let log = dir.join("calls.log");
        let control = json!({ "module": softhsm_module()?, "rules": rules, "log": log });
        write(&dir.join("shim.so.json"), &control.to_string(), User::Harness, 0o644)?;
        Ok(Self { module, rules, log })
    }

    /// Puts rules in force with the next call; counts start anew. The shim's documentation has
    /// their grammar.
    pub fn rules(&self, rules: &Value) -> Result<()> {
        write(&self.rules, &rules.to_string(), User::Harness, 0o644)
    }

    /// How often `call` was made since it was installed, over all processes.
    pub fn calls(&self, call: &str) -> Result<usize> {
        Ok(self.since(0)?.iter().filter(|logged| logged.call == call).count())
    }

    /// Where its log ends now.
    pub fn now(&self) -> u64 {
        // Before the first call there is no log.
        std::fs::metadata(&self.log).map_or(0, |metadata| metadata.len())
    }

    /// The calls that were made since its log ended at `start`.
    pub fn since(&self, start: u64) -> Result<Vec<Logged>> {
        if self.now() == 0 {
            return Ok(Vec::new());
        }
        let mut log = File::open(&self.log)?;
        log.seek(SeekFrom::Start(start))?;
        let mut text = String::new();
        log.read_to_string(&mut text)?;
        let logged = |line: &str| {
            let mut words = line.split(' ');
            let call = words.nth(1)?.to_owned();
            Some(Logged { call, injected: words.nth(1) == Some("injected") })
        };
        Ok(text.lines().filter_map(logged).collect())
    }
}

/// A call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its name.
    pub call: String,
    /// Whether a rule applied to it.
    pub injected: bool,
}
