//! New data that is set aside: one for a person (`held`), one for whatever else it waits for
//! (`waiting`). Each is a file of records, named by its digest, and a JSON file that names it and is
//! renamed into place last: whatever a crash interrupts, the one before stays whole.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use countersign_policy::ZoneName;
use countersign_policy::key::to_hex;
use countersign_zone::receive::ReceivedZone;

use super::data::{self, Records};
use super::files::{ZoneFolder, read_json, sync_folder, temporary, write_json};
use super::v1::{Decision, Kept, Rejected, VERSION};
use super::{Store, StoreError};

const REJECTED: &str = "rejected.json";
/// Digits of the digest in a file's name: enough to tell one from the next.
const NAME_DIGITS: usize = 16;

/// What new data was set aside for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// A person has to release or reject it.
    Held,
    /// It goes on by itself.
    Waiting,
}

impl Slot {
    fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Waiting => "waiting",
        }
    }

    fn json(self) -> String {
        format!("{}.json", self.name())
    }

    fn is_data(self, name: &str) -> bool {
        name.strip_prefix(self.name())
            .is_some_and(|rest| rest.starts_with('-') && rest.strip_suffix(".zone").is_some())
    }

    fn data(self, digest: &[u8; 32]) -> String {
        format!("{}-{}.zone", self.name(), &to_hex(digest)[..NAME_DIGITS])
    }
}

impl Store {
    /// Sets data aside in place of what is there. `kept` says everything but the digest and the count
    /// of records, which are filled in. When this returns, it is durable.
    pub fn keep(
        &self,
        slot: Slot,
        mut kept: Kept,
        records: Records<'_>,
    ) -> Result<Kept, StoreError> {
        let folder = ZoneFolder::new(&self.zones, &kept.zone);
        folder.make_folder(&mut |_| Ok(()))?;
        let temporary = temporary(&folder.path.join(slot.name()));
        let written = (|| {
            let file = File::create(&temporary)?;
            (kept.digest, kept.records) = data::write(&kept.zone, records, &file)?;
            file.sync_all()?;
            fs::rename(&temporary, folder.path.join(slot.data(&kept.digest)))?;
            sync_folder(&folder.path)?;
            write_json(&folder.path.join(slot.json()), &kept, &mut |_| Ok(()))
        })();
        if let Err(source) = written {
            let _ = fs::remove_file(&temporary);
            let on_disk = read_json::<Kept>(&folder.path.join(slot.json())).ok().flatten();
            folder.remove_data(slot, on_disk.as_ref());
            return Err(StoreError::io("write", &folder.path.join(slot.json()), source));
        }
        folder.remove_data(slot, Some(&kept));
        Ok(kept)
    }

    /// Changes what is said about data that was set aside; the data stays.
    pub fn note_kept(&self, slot: Slot, kept: &Kept) -> Result<(), StoreError> {
        let path = ZoneFolder::new(&self.zones, &kept.zone).path.join(slot.json());
        write_json(&path, kept, &mut |_| Ok(()))
            .map_err(|source| StoreError::io("write", &path, source))
    }

    /// The records of what was set aside.
    pub fn kept_data(&self, slot: Slot, kept: &Kept) -> Result<ReceivedZone, StoreError> {
        let path = ZoneFolder::new(&self.zones, &kept.zone).path.join(slot.data(&kept.digest));
        let fail = |source| StoreError::io("read", &path, source);
        let file = File::open(&path).map_err(fail)?;
        data::read(&kept.zone, kept.digest, file).map_err(|problem| fail(io::Error::other(problem)))
    }

    /// Lets go of what was set aside, if anything was.
    pub fn drop_kept(&self, zone: &ZoneName, slot: Slot) -> Result<(), StoreError> {
        let folder = ZoneFolder::new(&self.zones, zone);
        remove(&folder, &slot.json())?;
        folder.remove_data(slot, None);
        Ok(())
    }

    /// Remembers that the primary's data of this serial is not wanted; of none any more if `None`.
    pub fn reject(
        &self,
        zone: &ZoneName,
        rejected: Option<(u32, Decision)>,
    ) -> Result<(), StoreError> {
        let folder = ZoneFolder::new(&self.zones, zone);
        let Some((serial, decision)) = rejected else { return remove(&folder, REJECTED) };
        let path = folder.path.join(REJECTED);
        let rejected = Rejected { version: VERSION, serial, decision };
        write_json(&path, &rejected, &mut |_| Ok(()))
            .map_err(|source| StoreError::io("write", &path, source))
    }
}

fn remove(folder: &ZoneFolder, name: &str) -> Result<(), StoreError> {
    let path: PathBuf = folder.path.join(name);
    let fail = |source| StoreError::io("remove", &path, source);
    match fs::remove_file(&path) {
        Ok(()) => sync_folder(&folder.path).map_err(fail),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(fail(error)),
    }
}

impl ZoneFolder {
    /// What was set aside, unless new data has gone out since.
    pub(super) fn read_kept(&self, slot: Slot, data_changes: u64) -> Option<Kept> {
        let path = self.path.join(slot.json());
        let kept = match read_json::<Kept>(&path) {
            Ok(None) => None,
            Ok(Some(kept)) if kept.version == VERSION && kept.zone == self.zone => Some(kept),
            other => {
                let expected = || format!("expected version {VERSION}, of {}", self.zone);
                let problem = other.err().unwrap_or_else(expected);
                let path = path.display();
                tracing::error!(%path, problem, "data that was set aside can't be read; its files stay where they are");
                return None;
            }
        };
        let kept = kept.filter(|kept| kept.data_changes >= data_changes);
        if kept.is_none() && path.exists() {
            let _ = fs::remove_file(&path);
        }
        self.remove_data(slot, kept.as_ref());
        kept
    }

    pub(super) fn read_rejected(&self) -> Option<u32> {
        match read_json::<Rejected>(&self.path.join(REJECTED)) {
            Ok(rejected) => rejected.map(|rejected| rejected.serial),
            Err(problem) => {
                // It is fetched again then, judged again, and held again.
                tracing::error!(zone = %self.zone, problem, "{REJECTED} can't be read");
                None
            }
        }
    }

    /// Removes the files of data but the one of `but`. What can't be removed is at the next occasion.
    fn remove_data(&self, slot: Slot, but: Option<&Kept>) {
        let but = but.map(|kept| slot.data(&kept.digest));
        let Ok(names) = self.entries() else { return };
        for name in names.iter().filter(|name| slot.is_data(name) && Some(*name) != but.as_ref()) {
            let path = self.path.join(name);
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "data that was set aside could not be removed");
            }
        }
    }
}
