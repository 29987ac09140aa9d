//! The PKCS#11 module that fails on demand, put in front of SoftHSM for one story.

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
        let dir = scratch.dir("shim", User::Keeper, 0o755)?;
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
        let log = std::fs::read_to_string(&self.log)?;
        Ok(log.lines().filter(|line| line.split_whitespace().any(|word| word == call)).count())
    }
}
