//! The files of one zone, and the order in which they are written.
//!
//! A version is written to a temporary name, synced, renamed to `v<serial>.zone`, and the folder
//! synced; then `current.json` follows in the same way, the one before it kept as
//! `previous.json`. A version that `current.json` does not name was never published, so a crash
//! between any two steps leaves the last published version in force, whole.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use countersign_policy::ZoneName;
use countersign_policy::key::to_hex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::v1::{Current, Frozen, Record, VERSION};
use super::{StoreError, serial_is_higher};

const CURRENT: &str = "current.json";
const PREVIOUS: &str = "previous.json";
const FROZEN: &str = "frozen.json";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// `current.json` holds a hundred records of 300 octets at most; more is not ours.
const JSON_BYTES_MAX: u64 = 1 << 20;

/// A folder's name holds 255 octets on every file system in use; a zone's escaped name may have
/// three times that. Longer ones are cut and told apart by their hash.
const FOLDER_NAME_BYTES_MAX: usize = 200;

/// The points between which a crash may fall; tests stop at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    FolderMade,
    VersionHalfWritten,
    VersionWritten,
    VersionSynced,
    VersionRenamed,
    PreviousRenamed,
    CurrentWritten,
    CurrentRenamed,
    OlderRemoved,
}

/// Called at each [`Step`]; an error is a crash, or a full disk.
pub(super) type At<'a> = &'a mut dyn FnMut(Step) -> io::Result<()>;

/// One zone's folder.
#[derive(Debug)]
pub(super) struct ZoneFolder {
    pub(super) path: PathBuf,
    pub(super) zone: ZoneName,
}

/// What the folder says, before any version is read.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub current: Option<Current>,
    pub frozen: Option<Frozen>,
    /// What was wrong on the way.
    pub damage: Vec<String>,
}

impl ZoneFolder {
    pub(super) fn new(zones: &Path, zone: &ZoneName) -> Self {
        Self { path: zones.join(folder_name(zone)), zone: zone.clone() }
    }

    pub(super) fn version_path(&self, serial: u32) -> PathBuf {
        self.path.join(format!("v{serial}.zone"))
    }

    /// Reads the JSON files and clears away what a crash left behind.
    pub(super) fn open(&self) -> Result<Found, StoreError> {
        let mut found = Found::default();
        if !self.path.exists() {
            return Ok(found);
        }
        let current = self.read_current(CURRENT, &mut found.damage);
        let previous = self.read_current(PREVIOUS, &mut Vec::new());
        if current.is_none() && previous.is_some() && found.damage.is_empty() {
            found.damage.push(format!("{CURRENT}: is missing, and {PREVIOUS} is there"));
        }
        let intact = found.damage.is_empty();
        found.current = match (current, previous) {
            (None, previous) if !intact => previous,
            (current, _) => current,
        };
        // A damaged `current.json` may have named a version that went out and that
        // `previous.json` does not know. Its file still shows how far the serial came.
        if !intact {
            for serial in self.serials_on_disk()? {
                let current = found.current.get_or_insert_with(|| Current {
                    version: VERSION,
                    zone: self.zone.clone(),
                    high_water: serial,
                    versions: Vec::new(),
                    data_changes: 0,
                });
                if serial_is_higher(serial, current.high_water) {
                    current.high_water = serial;
                }
            }
        }
        found.frozen = match read_json(&self.path.join(FROZEN)) {
            Ok(frozen) => frozen,
            Err(problem) => {
                found.damage.push(format!("{FROZEN}: {problem}; the zone stays frozen"));
                Some(Frozen { version: VERSION, since_s: 0, by: "unknown".to_owned() })
            }
        };
        self.clear(found.current.as_ref(), intact)?;
        Ok(found)
    }

    fn read_current(&self, name: &str, damage: &mut Vec<String>) -> Option<Current> {
        let problem = match read_json::<Current>(&self.path.join(name)) {
            Ok(None) => return None,
            Ok(Some(current)) if current.version != VERSION => {
                format!("version {}; expected {VERSION}", current.version)
            }
            Ok(Some(current)) if current.zone != self.zone => {
                format!("is about {}; expected {}", current.zone, self.zone)
            }
            Ok(Some(current)) => return Some(current),
            Err(problem) => problem,
        };
        damage.push(format!("{name}: {problem}"));
        None
    }

    fn serials_on_disk(&self) -> Result<Vec<u32>, StoreError> {
        let mut serials = Vec::new();
        for entry in self.entries()? {
            serials.extend(serial_of(&entry));
        }
        Ok(serials)
    }

    pub(super) fn entries(&self) -> Result<Vec<String>, StoreError> {
        let fail = |source| StoreError::io("list", &self.path, source);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(fail)? {
            names.extend(entry.map_err(fail)?.file_name().into_string().ok());
        }
        Ok(names)
    }

    /// Removes temporary files, and versions that were never published or are kept no longer.
    /// Where `current.json` was damaged, versions stay for whoever looks into it.
    fn clear(&self, current: Option<&Current>, intact: bool) -> Result<(), StoreError> {
        for name in self.entries()? {
            let known = serial_of(&name)
                .is_none_or(|s| current.is_some_and(|c| c.versions.iter().any(|v| v.serial == s)));
            if name.ends_with(TEMPORARY_SUFFIX) || (intact && !known) {
                let path = self.path.join(&name);
                fs::remove_file(&path).map_err(|e| StoreError::io("remove", &path, e))?;
                tracing::info!(path = %path.display(), "removed what an interrupted run left");
            }
        }
        Ok(())
    }

    pub(super) fn save(
        &self,
        before: Option<&Current>,
        current: &Current,
        serial: u32,
        bytes: &[u8],
        at: At<'_>,
    ) -> Result<(), StoreError> {
        self.make_folder(at)?;
        let path = self.version_path(serial);
        let fail = |source| StoreError::io("write", &path, source);
        let temporary = temporary(&path);
        let mut file = File::create(&temporary).map_err(fail)?;
        let written = (|| {
            let half = bytes.len() / 2;
            file.write_all(&bytes[..half])?;
            at(Step::VersionHalfWritten)?;
            file.write_all(&bytes[half..])?;
            at(Step::VersionWritten)?;
            file.sync_all()?;
            at(Step::VersionSynced)?;
            fs::rename(&temporary, &path)?;
            sync_folder(&self.path)?;
            at(Step::VersionRenamed)
        })();
        if let Err(source) = written {
            // Frees the space at once: the disk may be full because of it. A failure here is
            // made good at the next start.
            let _ = fs::remove_file(&temporary);
            let _ = fs::remove_file(&path);
            return Err(fail(source));
        }
        if let Err(error) = self.write_current(before, current, at) {
            // The version was not published. Its file goes, or a full disk fills further with
            // each attempt; but not if `current.json` names it already (the last sync failed).
            let on_disk = read_json::<Current>(&self.path.join(CURRENT)).ok().flatten();
            if let Some(in_force) = on_disk.as_ref().or(before) {
                self.remove_others(in_force);
            } else {
                let _ = fs::remove_file(&path);
            }
            return Err(error);
        }
        self.remove_others(current);
        at(Step::OlderRemoved).map_err(fail)
    }

    pub(super) fn make_folder(&self, at: At<'_>) -> Result<(), StoreError> {
        let fail = |source| StoreError::io("make", &self.path, source);
        if !self.path.exists() {
            fs::create_dir_all(&self.path).map_err(fail)?;
            if let Some(parent) = self.path.parent() {
                sync_folder(parent).map_err(fail)?;
            }
        }
        at(Step::FolderMade).map_err(fail)
    }

    fn write_current(
        &self,
        before: Option<&Current>,
        current: &Current,
        at: At<'_>,
    ) -> Result<(), StoreError> {
        if let Some(before) = before {
            let path = self.path.join(PREVIOUS);
            write_json(&path, before, &mut |_| Ok(()))
                .map_err(|source| StoreError::io("write", &path, source))?;
            at(Step::PreviousRenamed).map_err(|source| StoreError::io("write", &path, source))?;
        }
        let path = self.path.join(CURRENT);
        write_json(&path, current, at).map_err(|source| StoreError::io("write", &path, source))
    }

    /// What can't be removed is removed at the next start; a version is not held back for it.
    fn remove_others(&self, current: &Current) {
        let Ok(serials) = self.serials_on_disk() else { return };
        for serial in serials {
            if !current.versions.iter().any(|version| version.serial == serial) {
                let path = self.version_path(serial);
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(path = %path.display(), %error, "a version that is not kept could not be removed");
                }
            }
        }
    }

    pub(super) fn freeze(&self, frozen: &Frozen) -> Result<(), StoreError> {
        self.make_folder(&mut |_| Ok(()))?;
        let path = self.path.join(FROZEN);
        write_json(&path, frozen, &mut |_| Ok(()))
            .map_err(|source| StoreError::io("write", &path, source))
    }

    pub(super) fn thaw(&self) -> Result<(), StoreError> {
        let path = self.path.join(FROZEN);
        let fail = |source| StoreError::io("remove", &path, source);
        match fs::remove_file(&path) {
            Ok(()) => sync_folder(&self.path).map_err(fail),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(fail(error)),
        }
    }
}

/// What `current.json` says after `record`.
pub(super) fn following(
    zone: &ZoneName,
    before: Option<&Current>,
    record: &Record,
    new_data: bool,
    keep: usize,
) -> Current {
    let mut versions = vec![record.clone()];
    let older = before.map(|current| current.versions.as_slice()).unwrap_or_default();
    versions.extend(older.iter().filter(|old| old.serial != record.serial).cloned());
    versions.truncate(keep.max(1));
    let high_water = match before {
        Some(before) if serial_is_higher(before.high_water, record.serial) => before.high_water,
        _ => record.serial,
    };
    let data_changes = before.map_or(0, |current| current.data_changes) + u64::from(new_data);
    Current { version: VERSION, zone: zone.clone(), high_water, versions, data_changes }
}

/// `v123.zone` is version 123.
fn serial_of(name: &str) -> Option<u32> {
    name.strip_prefix('v')?.strip_suffix(".zone")?.parse().ok()
}

pub(super) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY_SUFFIX);
    PathBuf::from(name)
}

pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut text = String::new();
    file.take(JSON_BYTES_MAX).read_to_string(&mut text).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map(Some).map_err(|error| error.to_string())
}

pub(super) fn write_json<T: Serialize>(path: &Path, value: &T, at: At<'_>) -> io::Result<()> {
    let temporary = temporary(path);
    let written = (|| {
        let mut file = File::create(&temporary)?;
        serde_json::to_writer_pretty(&mut file, value)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        at(Step::CurrentWritten)?;
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), sync_folder)?;
        at(Step::CurrentRenamed)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A zone's name as a folder's: what is not a letter, digit, '-', '_' or '.' becomes %XX, and so
/// does the root's dot. The last dot is left out.
fn folder_name(zone: &ZoneName) -> String {
    use std::fmt::Write as _;
    let mut name = String::new();
    for label in zone.labels() {
        if !name.is_empty() {
            name.push('.');
        }
        for &byte in label {
            if byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte) {
                name.push(char::from(byte));
            } else {
                // Writing to a String can't fail.
                let _ = write!(name, "%{byte:02X}");
            }
        }
    }
    if name.is_empty() {
        return "%2E".to_owned();
    }
    if name.len() > FOLDER_NAME_BYTES_MAX {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, zone.as_wire());
        name.truncate(FOLDER_NAME_BYTES_MAX - 40);
        // '~' is escaped above, so no short name looks like a cut one.
        let _ = write!(name, "~{}", to_hex(&hash.as_ref()[..16]));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ZoneName {
        text.parse().expect("name")
    }

    #[test]
    fn folders_are_named_after_zones_and_never_share() {
        assert_eq!(folder_name(&name("Example.COM.")), "example.com");
        assert_eq!(folder_name(&name(".")), "%2E");
        assert_eq!(folder_name(&name("a\\.b.c")), "a%2Eb.c");
        assert_eq!(folder_name(&name("\\.\\..c")), "%2E%2E.c");
        assert_eq!(folder_name(&name("a/b")), "a%2Fb");
        let long = |last: &str| format!("{0}.{0}.{0}.{last}", "\\000".repeat(60));
        let (a, b) = (folder_name(&name(&long("a"))), folder_name(&name(&long("b"))));
        assert!(a.len() <= FOLDER_NAME_BYTES_MAX && a != b, "{a}");
    }
}
