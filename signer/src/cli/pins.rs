//! What an officer's own machine remembers of a ledger, so that nobody can show it another or an
//! older one: `FOUNDING-HASH.toml` in the pins' folder, with the appliance's name, its audit key
//! and the newest head that was seen. Each officer's command line is a witness of the ledger.
//!
//! A pin never goes back: it is replaced in one step, under a lock, by a head that the pinned one
//! is a prefix of.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use countersign_policy::checkpoint::AuditKey;
use countersign_policy::statement::StatementHash;
use countersign_policy::tree::{Hash, TreeHead};
use serde::{Deserialize, Serialize};

use super::end::Stop;
use super::files::{self, Existing};

/// The form of the file.
const VERSION: u8 = 1;
/// A pin takes 500 octets, and 70 more for each new origin.
const PIN_BYTES_MAX: usize = 16 << 10;
/// Names in the folder that are looked at: nobody is an officer of so many appliances.
const PINS_MAX: usize = 10_000;

/// Group and others may write.
const OTHERS_WRITE: u32 = 0o022;

/// One ledger, as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pin {
    /// What the appliance is called.
    pub(super) appliance: String,
    /// The key that seals its checkpoints as of `head`.
    pub(super) audit_key: AuditKey,
    /// The newest head that was proven here; of size 0 before the first.
    pub(super) head: TreeHead,
    /// The new origins that had begun by then: none of them explains a ledger that is behind.
    pub(super) origins: BTreeSet<StatementHash>,
    /// The versions of officers and rules by then: a new origin that named less speaks for those who
    /// had been retired.
    pub(super) officers: u64,
    pub(super) rules: u64,
}

/// The stored form.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u8,
    appliance: String,
    head: String,
    #[serde(default)]
    origins: BTreeSet<StatementHash>,
    #[serde(default)]
    officers: u64,
    #[serde(default)]
    rules: u64,
    audit_key: AuditKey,
}

/// The folder of pins.
#[derive(Debug, Clone)]
pub(super) struct Pins {
    folder: PathBuf,
}

/// Held while a pin is compared and replaced.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Pins {
    /// The folder that was named, or the user's own.
    pub(super) fn at(
        named: Option<&Path>,
        variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Self, Stop> {
        if let Some(folder) = named {
            return Ok(Self { folder: folder.to_owned() });
        }
        // The XDG base directory specification: a relative path there is to be ignored.
        let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let config = absolute("XDG_CONFIG_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".config")));
        match config {
            Some(config) => Ok(Self { folder: config.join("countersign").join("pins") }),
            None => Err(Stop::usage(
                "there is no HOME in which to remember the ledger's head; name a folder with --pins",
            )),
        }
    }

    pub(super) fn path(&self, founding: &Hash) -> PathBuf {
        self.folder.join(format!("{founding}.toml"))
    }

    /// The ledgers that are pinned; a folder that is there and can't be read is no empty one.
    pub(super) fn foundings(&self) -> Result<Vec<Hash>, Stop> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(Stop::failed(format!("the pins {}: {error}", self.folder.display())));
            }
        };
        ours_alone(&self.folder)?;
        let names =
            entries.take(PINS_MAX).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut found: Vec<Hash> =
            names.filter_map(|name| name.strip_suffix(".toml")?.parse().ok()).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// The pin of a ledger, if there is one. One that can't be read is an error, never an absent one.
    pub(super) fn read(&self, founding: &Hash) -> Result<Option<Pin>, Stop> {
        let path = self.path(founding);
        match path.try_exists() {
            Ok(false) => return Ok(None),
            Ok(true) => {}
            Err(error) => return Err(Stop::failed(format!("{}: {error}", path.display()))),
        }
        ours_alone(&self.folder)?;
        ours_alone(&path)?;
        let text = files::read_text(&path, PIN_BYTES_MAX)?;
        let damaged = |problem: String| {
            Stop::unsound(format!(
                "the pin {} is damaged: {problem}. hint: it guards against a ledger that was rolled \
                 back; compare the ledger's head with another officer's before you delete it",
                path.display()
            ))
        };
        let stored: Stored = toml::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if stored.version != VERSION {
            return Err(damaged(format!("version {}; expected {VERSION}", stored.version)));
        }
        let head = stored.head.parse().map_err(|error| damaged(format!("head: {error}")))?;
        let Stored { appliance, audit_key, origins, officers, rules, .. } = stored;
        Ok(Some(Pin { appliance, audit_key, head, origins, officers, rules }))
    }

    /// Nobody else compares or replaces a pin until the lock is dropped.
    pub(super) fn lock(&self) -> Result<Lock, Stop> {
        let failed = |error: std::io::Error| {
            Stop::failed(format!(
                "can't pin the ledger's head in {}: {error}",
                self.folder.display()
            ))
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed)?;
        ours_alone(&self.folder)?;
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.folder.join(".lock"))
            .map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(Lock { _file: file })
    }

    /// Replaces the pin of a ledger.
    pub(super) fn write(&self, founding: &Hash, pin: &Pin, _held: &Lock) -> Result<(), Stop> {
        let path = self.path(founding);
        let stored = Stored {
            version: VERSION,
            appliance: pin.appliance.clone(),
            head: pin.head.to_string(),
            origins: pin.origins.clone(),
            officers: pin.officers,
            rules: pin.rules,
            audit_key: pin.audit_key.clone(),
        };
        let text = toml::to_string(&stored)
            .map_err(|error| Stop::failed(format!("{}: {error}", path.display())))?;
        files::write_whole(&path, Existing::Replace, true, |file| {
            std::io::Write::write_all(file, text.as_bytes())
        })
        .map_err(|error| files::cannot_write(&path, &error))
    }
}

/// That nobody else can change a file or folder: a pin that others write says what they like. Root may
/// own it, who can do everything anyhow.
fn ours_alone(path: &Path) -> Result<(), Stop> {
    let place = path.display();
    let found =
        fs::metadata(path).map_err(|error| Stop::failed(format!("the pins {place}: {error}")))?;
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != own && found.uid() != 0 {
        return Err(Stop::usage(format!(
            "{place} belongs to the user {}, and pins have to be your own (user {own}). hint: name \
             another folder with --pins",
            found.uid()
        )));
    }
    if found.mode() & OTHERS_WRITE != 0 {
        return Err(Stop::usage(format!(
            "others can write to {place} (mode {:04o}), so what is pinned there proves nothing. hint: \
             if you trust what is in it, `chmod go-w {place}`; else name another folder with --pins",
            found.mode() & 0o7777
        )));
    }
    Ok(())
}
