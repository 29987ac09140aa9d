//! Which instance this keeper is: random octets in its state directory, bound to the place where they
//! were made, so that a copied state directory is another instance and not the same one twice.
//!
//! A place is the machine (`/etc/machine-id`, if there is one) and the state directory's inode with its
//! time of birth. All of that outlives reboots, renames within a file system and a disk image that is put
//! back; none of it goes along when files are copied, restored one by one, or when a volume is moved to
//! another machine. Not noticed: the image of a whole machine that is started a second time with the
//! same machine-id. For that each process leaves a mark of its own on the tokens ([`super::holding`]).
//!
//! The file lists every place that it was in, each with an instance of its own: a machine that starts
//! once with something amiss is itself again when that is put right.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use aws_lc_rs::rand;
use countersign_policy::instance::InstanceId;
use countersign_policy::tree::Hash;
use serde::{Deserialize, Serialize};

use super::config::read_bounded;
use super::seal::put_in_place;

/// The file in the state directory.
pub const INSTANCE_FILE: &str = "instance";
/// Where systemd and D-Bus keep what tells machines apart.
const MACHINE_ID: &str = "/etc/machine-id";
/// systemd's own is 33 octets.
const MACHINE_ID_BYTES_MAX: u64 = 1024;
/// Before the machine-id where it is hashed, which systemd asks for: nobody can look it up by the hash.
const MACHINE_HASH_PREFIX: &str = "countersign instance v1\n";
/// Places in one file: each is a box that it was copied to; more than a few say that something is wrong.
const PLACES_MAX: usize = 16;
/// Sixteen places of some 250 octets.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    places: Vec<Place>,
}

/// One place, and which instance lives there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    instance: InstanceId,
    /// A hash of the machine-id; absent where there was none.
    machine: Option<Hash>,
    /// The state directory's inode,
    inode: u64,
    /// and when it was made, in nanoseconds since 1970, as hexadecimal; absent where the file system does
    /// not tell.
    born: Option<String>,
}

impl Place {
    /// Whether what was noted there is what is found here. What could not be told then is not asked now.
    fn is(&self, here: &Self) -> bool {
        self.inode == here.inode
            && (self.machine.is_none() || self.machine == here.machine)
            && (self.born.is_none() || here.born.is_none() || self.born == here.born)
    }
}

/// 32 random octets.
pub fn random() -> Result<Hash, String> {
    let mut octets = [0; 32];
    rand::fill(&mut octets).map_err(|_| "the system gives no random octets".to_owned())?;
    Ok(Hash(octets))
}

/// The instance that lives in this state directory, made if there is none of this place.
pub fn load(state_dir: &Path) -> Result<InstanceId, String> {
    load_at(state_dir, Path::new(MACHINE_ID))
}

fn load_at(state_dir: &Path, machine_id: &Path) -> Result<InstanceId, String> {
    let path = state_dir.join(INSTANCE_FILE);
    let fail = |problem: String| {
        format!(
            "{}: {problem}. hint: move it away, and the keeper makes itself another; to the tokens it is \
             another box then, which takes a move-appliance motion",
            path.display()
        )
    };
    let here = here(state_dir, machine_id).map_err(|problem| {
        format!("which box this is can't be told: {}: {problem}", state_dir.display())
    })?;
    let mut file = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => File { version: 1, places: vec![] },
        Err(error) => return Err(fail(error.to_string())),
        Ok(_) => {
            let octets = read_bounded(&path, FILE_BYTES_MAX).map_err(fail)?;
            let file: File = serde_json::from_slice(&octets).map_err(|e| fail(e.to_string()))?;
            if file.version != 1 {
                return Err(fail(format!("version {}; expected 1", file.version)));
            }
            file
        }
    };
    if let Some(place) = file.places.iter().find(|place| place.is(&here)) {
        return Ok(place.instance);
    }
    if file.places.len() >= PLACES_MAX {
        return Err(fail(format!("it was in {PLACES_MAX} places before this one")));
    }
    if !file.places.is_empty() {
        tracing::warn!(
            file = %path.display(),
            "this state directory was copied, or is on another machine: this keeper is another instance"
        );
    }
    let instance = here.instance;
    file.places.push(here);
    let octets = serde_json::to_vec(&file).map_err(|e| fail(e.to_string()))?;
    put_in_place(&path, &octets).map_err(|e| fail(e.to_string()))?;
    tracing::info!(%instance, "this box has an instance id now");
    Ok(instance)
}

/// This place, with an instance for it that nobody has yet.
fn here(state_dir: &Path, machine_id: &Path) -> Result<Place, String> {
    let metadata = fs::metadata(state_dir).map_err(|e| e.to_string())?;
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).ok();
    let born = metadata.created().ok().and_then(since);
    let born = born.map(|since| format!("{:x}", since.as_nanos()));
    let instance = InstanceId(random()?);
    Ok(Place { instance, machine: machine(machine_id)?, inode: metadata.ino(), born })
}

/// A container may have none, and a system that was not started yet an empty one.
fn machine(path: &Path) -> Result<Option<Hash>, String> {
    let octets = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        _ => read_bounded(path, MACHINE_ID_BYTES_MAX)
            .map_err(|e| format!("{}: {e}", path.display()))?,
    };
    let text = String::from_utf8_lossy(&octets);
    let id = text.trim();
    let is_one = !id.is_empty() && id != "uninitialized";
    Ok(is_one.then(|| Hash::of(format!("{MACHINE_HASH_PREFIX}{id}").as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Site {
        dir: tempfile::TempDir,
    }

    impl Site {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("directory");
            fs::create_dir(dir.path().join("state")).expect("made");
            let new = Self { dir };
            new.machine("0123456789abcdef0123456789abcdef\n");
            new
        }

        fn machine(&self, id: &str) {
            fs::write(self.dir.path().join("machine-id"), id).expect("written");
        }

        fn load(&self, state: &str) -> Result<InstanceId, String> {
            load_at(&self.dir.path().join(state), &self.dir.path().join("machine-id"))
        }
    }

    #[test]
    fn it_stays_what_it_is_where_it_is() {
        let site = Site::new();
        let own = site.load("state").expect("made");
        assert_eq!(site.load("state"), Ok(own));
        let (from, to) = (site.dir.path().join("state"), site.dir.path().join("moved"));
        fs::rename(from, to).expect("renamed");
        assert_eq!(site.load("moved"), Ok(own), "a new name is no new place");
    }

    #[test]
    fn a_copied_state_directory_is_another_instance() {
        let site = Site::new();
        let own = site.load("state").expect("made");
        let copy = site.dir.path().join("copy");
        fs::create_dir(&copy).expect("made");
        fs::copy(site.dir.path().join("state/instance"), copy.join("instance")).expect("copied");
        let other = site.load("copy").expect("made");
        assert_ne!(own, other);
        assert_eq!(site.load("copy"), Ok(other), "and stays that one");
        assert_eq!(site.load("state"), Ok(own));
    }

    #[test]
    fn another_machine_is_another_instance_and_the_first_is_itself_again() {
        let site = Site::new();
        let own = site.load("state").expect("made");
        site.machine("fedcba9876543210fedcba9876543210\n");
        let other = site.load("state").expect("made");
        assert_ne!(own, other);
        site.machine("");
        assert_ne!(site.load("state").expect("made"), own, "no machine-id is not the same one");
        site.machine("0123456789abcdef0123456789abcdef\n");
        assert_eq!(site.load("state"), Ok(own));
    }

    #[test]
    fn without_a_machine_id_the_directory_alone_tells() {
        let site = Site::new();
        fs::remove_file(site.dir.path().join("machine-id")).expect("removed");
        let own = site.load("state").expect("made");
        assert_eq!(site.load("state"), Ok(own));
        site.machine("uninitialized\n");
        assert_eq!(site.load("state"), Ok(own), "systemd's word for none yet");
    }

    #[test]
    fn a_place_is_told_by_all_that_was_known_of_it() {
        let of = |machine: Option<u8>, inode, born: Option<&str>| Place {
            instance: InstanceId(Hash([0; 32])),
            machine: machine.map(|octet| Hash([octet; 32])),
            inode,
            born: born.map(str::to_owned),
        };
        let noted = of(Some(1), 7, Some("a"));
        for (here, is_same) in [
            (of(Some(1), 7, Some("a")), true),
            (of(Some(1), 7, None), true),
            (of(Some(1), 8, Some("a")), false),
            (of(Some(1), 8, None), false),
            (of(Some(1), 7, Some("b")), false),
            (of(Some(2), 7, Some("a")), false),
            (of(None, 7, Some("a")), false),
        ] {
            assert_eq!(noted.is(&here), is_same, "{here:?}");
        }
    }

    #[test]
    fn a_file_that_is_none_is_never_written_over() {
        let site = Site::new();
        let file = site.dir.path().join("state/instance");
        for wrong in ["", "{}", r#"{"version":2,"places":[]}"#] {
            fs::write(&file, wrong).expect("written");
            let why = site.load("state").expect_err("none of ours");
            assert!(why.contains("move it away"), "{why}");
            assert_eq!(fs::read_to_string(&file).expect("there"), wrong);
        }
    }
}
