//! Published versions on disk, so that a restart serves them at once and asks no HSM.
//!
//! ```text
//! state_dir/lock                           one daemon at a time
//! state_dir/zones/<zone>/v<serial>.zone    a version: countersign_zone::stored, with checksums
//!                       /current.json      versions kept, newest first, their root hashes, and
//!                                          the highest serial ever published
//!                       /previous.json     the one before it
//!                       /frozen.json       there while no new version may go out
//!                       /held.json         new data that waits for a person: of where, since when, why
//!                       /held-<hash>.zone  its records (see `data`)
//!                       /waiting.json      the same for pushed data that waits for something else,
//!                       /waiting-<hash>.zone   the keeper or a thaw
//!                       /rejected.json     the primary's serial that a person did not let out
//! ```
//!
//! A version whose root hash is the one that was recorded when it was verified stands for
//! verified: this is the only module that may turn a file into a [`VerifiedZone`]. Whoever can
//! write these files can publish: the folder belongs to the daemon's user alone, and a background
//! pass verifies what was resumed.

mod data;
mod files;
mod kept;
#[cfg(test)]
mod kept_tests;
#[cfg(test)]
mod tests;
pub mod v1;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use countersign_policy::ZoneName;
use countersign_zone::stored;
use countersign_zone::verify::VerifiedZone;

pub use data::Records;
use files::{Step, ZoneFolder};
pub use kept::Slot;
pub use v1::{Decision, Frozen, Kept, Record, Remarks, Source};

/// All zones' folders, and the lock on them.
#[derive(Debug)]
pub struct Store {
    zones: PathBuf,
    keep: usize,
    /// Held for as long as the store is; the kernel drops it with the process.
    _lock: File,
}

/// Why the store failed. The last published version stays in force whenever this is returned.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon has it.
    #[error(
        "{path} is in use by another countersignd; two daemons can't share a state_dir \
         (hint: stop the other one, or give this one a state_dir of its own)", path = path.display()
    )]
    Locked {
        /// The state directory.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("can't {verb} {path}: {source}{}", hint(source), path = path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " (hint: make room on the disk; the version is stored at the next attempt)"
        }
        io::ErrorKind::PermissionDenied => " (hint: state_dir must belong to the daemon's user)",
        _ => "",
    }
}

impl StoreError {
    fn io(verb: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { verb, path: path.to_owned(), source }
    }
}

/// What is on disk of one zone.
#[derive(Debug)]
pub struct Loaded<T = VerifiedZone> {
    /// The newest version that is whole, and its record.
    pub version: Option<(T, Record)>,
    /// What the next save continues.
    pub ledger: SaveState,
    /// There while no new version may go out.
    pub frozen: Option<Frozen>,
    /// New data that waits for a person.
    pub held: Option<Kept>,
    /// New data that waits for something else.
    pub waiting: Option<Kept>,
    /// The primary's serial that a person did not let out.
    pub rejected: Option<u32>,
    /// What was found damaged; each is a reason to alarm.
    pub damage: Vec<String>,
}

/// How far a zone has come, carried from one save to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaveState(Option<v1::Current>);

impl SaveState {
    /// The highest serial ever published; the next one must be higher.
    pub fn high_water(&self) -> Option<u32> {
        self.0.as_ref().map(|current| current.high_water)
    }

    /// The primary's serial of the newest version.
    pub fn last_incoming(&self) -> Option<u32> {
        self.newest().map(|record| record.incoming_serial)
    }

    /// The newest version.
    pub fn newest(&self) -> Option<&Record> {
        self.versions().first()
    }

    /// The versions that are on disk, newest first.
    pub fn versions(&self) -> &[Record] {
        self.0.as_ref().map(|current| current.versions.as_slice()).unwrap_or_default()
    }

    /// How many times new data has gone out.
    pub fn data_changes(&self) -> u64 {
        self.0.as_ref().map_or(0, |current| current.data_changes)
    }
}

/// What a version is stored with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Whether its data is not that of the version before it.
    pub new_data: bool,
    /// Whether it is the source's to the octet.
    pub exact: bool,
    /// Where it came from.
    pub source: Option<Source>,
    /// Who let it out, where it was held.
    pub released: Option<Decision>,
    /// What is to be known of it.
    pub remarks: Remarks,
    /// The primary's serial of its data.
    pub incoming_serial: u32,
    /// Digest of the policy and keys that it was signed under.
    pub params: [u8; 32],
    /// When its first signature is due to be made anew.
    pub refresh_at_s: u64,
    /// Now.
    pub now_s: u64,
}

impl Store {
    /// Opens the store under `state_dir`, which must exist and be writable, and locks it. `keep`
    /// versions of each zone are kept.
    pub fn open(state_dir: &Path, keep: usize) -> Result<Self, StoreError> {
        let path = state_dir.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|source| StoreError::io("open", &path, source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { path: state_dir.to_owned() });
            }
            Err(fs::TryLockError::Error(source)) => {
                return Err(StoreError::io("lock", &path, source));
            }
        }
        let zones = state_dir.join("zones");
        fs::create_dir_all(&zones).map_err(|source| StoreError::io("make", &zones, source))?;
        Ok(Self { zones, keep, _lock: lock })
    }

    /// The newest whole version of `zone`, taken for verified because its root hash is the one
    /// that was recorded when it was.
    #[expect(clippy::disallowed_methods, reason = "this is the store: it has the recorded root")]
    pub fn load(&self, zone: &ZoneName) -> Result<Loaded, StoreError> {
        self.load_with(zone, |bytes, root| {
            let version = stored::resume(&bytes, root).map_err(|error| error.to_string())?;
            if version.apex() != zone {
                return Err(format!("holds {}; expected {zone}", version.apex()));
            }
            Ok(version)
        })
    }

    /// [`Store::load`] with the step that makes a version of bytes given.
    fn load_with<T>(
        &self,
        zone: &ZoneName,
        resume: impl Fn(Vec<u8>, [u8; 32]) -> Result<T, String>,
    ) -> Result<Loaded<T>, StoreError> {
        let folder = ZoneFolder::new(&self.zones, zone);
        let found = folder.open()?;
        let mut damage = found.damage;
        let mut version = None;
        for record in found.current.iter().flat_map(|current| &current.versions) {
            let path = folder.version_path(record.serial);
            match fs::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|bytes| resume(bytes, record.root))
            {
                Ok(whole) => {
                    version = Some((whole, record.clone()));
                    break;
                }
                Err(problem) => damage.push(format!("{}: {problem}", path.display())),
            }
        }
        let changes = found.current.as_ref().map_or(0, |current| current.data_changes);
        Ok(Loaded {
            version,
            ledger: SaveState(found.current),
            frozen: found.frozen,
            held: folder.read_kept(Slot::Held, changes),
            waiting: folder.read_kept(Slot::Waiting, changes),
            rejected: folder.read_rejected(),
            damage,
        })
    }

    /// A version that is kept, by its record.
    #[expect(clippy::disallowed_methods, reason = "this is the store: it has the recorded root")]
    pub fn version(&self, zone: &ZoneName, record: &Record) -> Result<VerifiedZone, StoreError> {
        let path = ZoneFolder::new(&self.zones, zone).version_path(record.serial);
        let fail = |source| StoreError::io("read", &path, source);
        let bytes = fs::read(&path).map_err(fail)?;
        stored::resume(&bytes, record.root).map_err(|error| fail(io::Error::other(error)))
    }

    /// Makes `version` the one that a restart resumes. When this returns, it is durable; only
    /// then may it be published.
    pub fn save(
        &self,
        state: &mut SaveState,
        version: &VerifiedZone,
        meta: Meta,
    ) -> Result<Record, StoreError> {
        let bytes = stored::encode(version);
        let record = Record {
            serial: version.serial(),
            root: version.digest(),
            incoming_serial: meta.incoming_serial,
            published_at_s: meta.now_s,
            refresh_at_s: meta.refresh_at_s,
            params: meta.params,
            exact: meta.exact,
            source: meta.source,
            released: meta.released,
            remarks: meta.remarks,
        };
        let new_data = meta.new_data;
        self.save_bytes(version.apex(), state, &record, new_data, &bytes, &mut |_| Ok(()))?;
        Ok(record)
    }

    fn save_bytes(
        &self,
        zone: &ZoneName,
        state: &mut SaveState,
        record: &Record,
        new_data: bool,
        bytes: &[u8],
        at: &mut dyn FnMut(Step) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let folder = ZoneFolder::new(&self.zones, zone);
        let before = state.0.as_ref();
        let current = files::following(zone, before, record, new_data, self.keep);
        folder.save(before, &current, record.serial, bytes, at)?;
        state.0 = Some(current);
        Ok(())
    }

    /// No new version of `zone` goes out from now on, restarts included.
    pub fn freeze(&self, zone: &ZoneName, by: &str, now_s: u64) -> Result<Frozen, StoreError> {
        let frozen = Frozen { version: v1::VERSION, since_s: now_s, by: by.to_owned() };
        ZoneFolder::new(&self.zones, zone).freeze(&frozen)?;
        Ok(frozen)
    }

    /// Takes [`Store::freeze`] back.
    pub fn thaw(&self, zone: &ZoneName) -> Result<(), StoreError> {
        ZoneFolder::new(&self.zones, zone).thaw()
    }
}

/// Whether serial `a` is higher than `b` (RFC 1982 §3.2).
pub fn serial_is_higher(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}
