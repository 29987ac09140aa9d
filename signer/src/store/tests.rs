//! The store's promises, with bytes in place of zones: what was published is what a restart
//! finds, whatever a crash left behind, and the serial never goes back.

use aws_lc_rs::digest;

use super::*;

const STEPS: [Step; 9] = [
    Step::FolderMade,
    Step::VersionHalfWritten,
    Step::VersionWritten,
    Step::VersionSynced,
    Step::VersionRenamed,
    Step::PreviousRenamed,
    Step::CurrentWritten,
    Step::CurrentRenamed,
    Step::OlderRemoved,
];

pub(super) fn zone() -> ZoneName {
    "example.".parse().expect("name")
}

fn root(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("32 octets")
}

fn content(serial: u32) -> Vec<u8> {
    format!("the content of version {serial}").into_bytes()
}

pub(super) fn open(dir: &Path) -> Store {
    Store::open(dir, 2).expect("store")
}

fn save(
    store: &Store,
    state: &mut SaveState,
    serial: u32,
    at: &mut dyn FnMut(Step) -> io::Result<()>,
) -> Result<(), StoreError> {
    save_as(store, state, serial, true, at)
}

/// The same, with new data or not.
pub(super) fn save_as(
    store: &Store,
    state: &mut SaveState,
    serial: u32,
    new_data: bool,
    at: &mut dyn FnMut(Step) -> io::Result<()>,
) -> Result<(), StoreError> {
    let bytes = content(serial);
    let record = Record {
        serial,
        root: root(&bytes),
        incoming_serial: serial + 1000,
        published_at_s: 7,
        refresh_at_s: 8,
        params: [9; 32],
        exact: true,
        source: Some(Source::Primary { name: Some("p".to_owned()) }),
        released: None,
        remarks: Remarks::default(),
    };
    store.save_bytes(&zone(), state, &record, new_data, &bytes, at)
}

pub(super) fn load(store: &Store) -> Loaded<Vec<u8>> {
    store
        .load_with(&zone(), |bytes, expected| {
            if root(&bytes) == expected { Ok(bytes) } else { Err("another root".to_owned()) }
        })
        .expect("readable")
}

fn serial(loaded: &Loaded<Vec<u8>>) -> Option<u32> {
    let (bytes, record) = loaded.version.as_ref()?;
    assert_eq!(*bytes, content(record.serial));
    Some(record.serial)
}

pub(super) fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir.join("zones/example"))
        .expect("folder")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
        .collect();
    names.sort();
    names
}

fn is(name: &str, kind: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == kind)
}

/// A store that has published 1 and 2.
pub(super) fn with_two(dir: &Path) -> (Store, SaveState) {
    let store = open(dir);
    let mut state = SaveState::default();
    for serial in [1, 2] {
        save(&store, &mut state, serial, &mut |_| Ok(())).expect("saved");
    }
    (store, state)
}

#[test]
fn a_restart_finds_the_last_version() {
    let dir = tempfile::tempdir().expect("dir");
    drop(with_two(dir.path()));
    let loaded = load(&open(dir.path()));
    assert_eq!(serial(&loaded), Some(2));
    assert_eq!(loaded.ledger.high_water(), Some(2));
    assert_eq!(loaded.ledger.last_incoming(), Some(1002));
    assert_eq!(loaded.damage, Vec::<String>::new());
    assert!(loaded.frozen.is_none());
}

#[test]
fn an_unknown_zone_has_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let loaded = load(&open(dir.path()));
    assert!(loaded.version.is_none() && loaded.damage.is_empty());
    assert_eq!(loaded.ledger.high_water(), None);
}

/// A power cut at each step: nothing that runs after it. Forgetting the file handle's contents is
/// the file system's part; what is checked is that every state of the folder is understood.
#[test]
fn a_crash_at_any_step_leaves_one_whole_version_in_force() {
    for step in STEPS {
        let dir = tempfile::tempdir().expect("dir");
        let (store, state) = with_two(dir.path());
        let before = dir.path().join("copy");
        // The folder as it is at the moment of the crash is copied aside, because an error path
        // may tidy up, and a crash does not.
        let mut crashed = state.clone();
        let mut copied = false;
        let _ = save(&store, &mut crashed, 3, &mut |at| {
            if at == step && !copied {
                copied = true;
                fs::create_dir(&before)?;
                for name in files(dir.path()) {
                    fs::copy(dir.path().join("zones/example").join(&name), before.join(&name))?;
                }
                return Err(io::Error::other("crash"));
            }
            Ok(())
        });
        assert!(copied, "{step:?} was not reached");
        drop(store);
        fs::remove_dir_all(dir.path().join("zones/example")).expect("removed");
        fs::rename(&before, dir.path().join("zones/example")).expect("renamed");

        let store = open(dir.path());
        let loaded = load(&store);
        let renamed = matches!(step, Step::CurrentRenamed | Step::OlderRemoved);
        assert_eq!(serial(&loaded), Some(if renamed { 3 } else { 2 }), "{step:?}");
        assert_eq!(loaded.damage, Vec::<String>::new(), "{step:?}");
        let left = files(dir.path());
        assert!(left.iter().all(|name| !is(name, "tmp")), "{step:?}: {left:?}");
        assert_eq!(left.iter().filter(|name| is(name, "zone")).count(), 2, "{left:?}");

        let mut state = loaded.ledger;
        save(&store, &mut state, 4, &mut |_| Ok(())).expect("goes on");
        assert_eq!(serial(&load(&store)), Some(4), "{step:?}");
    }
}

/// An error is not a crash: the daemon goes on with the version that it had, and what the failed
/// attempt wrote does not fill the disk.
#[test]
fn a_full_disk_at_any_step_keeps_the_old_version_and_its_space() {
    for step in STEPS {
        let dir = tempfile::tempdir().expect("dir");
        let (store, mut state) = with_two(dir.path());
        let full = |at: Step| {
            if at == step { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
        };
        let error = save(&store, &mut state, 3, &mut { full }).expect_err("full").to_string();
        assert!(error.contains("make room on the disk"), "{error}");
        assert_eq!(state.high_water(), Some(2), "{step:?}");
        let left = files(dir.path());
        assert!(left.iter().filter(|name| is(name, "zone")).count() <= 2, "{left:?}");
        assert!(left.iter().all(|name| !is(name, "tmp")), "{step:?}: {left:?}");
        save(&store, &mut state, 4, &mut |_| Ok(())).expect("there is room again");
        assert_eq!(serial(&load(&store)), Some(4), "{step:?}");
    }
}

#[test]
fn older_versions_go_and_the_high_water_stays() {
    let dir = tempfile::tempdir().expect("dir");
    let (store, mut state) = with_two(dir.path());
    save(&store, &mut state, 3, &mut |_| Ok(())).expect("saved");
    assert_eq!(files(dir.path()), ["current.json", "previous.json", "v2.zone", "v3.zone"]);
    assert_eq!(state.high_water(), Some(3));
}

#[test]
fn a_damaged_version_gives_way_to_the_one_before_but_its_serial_is_spent() {
    let dir = tempfile::tempdir().expect("dir");
    drop(with_two(dir.path()));
    fs::write(dir.path().join("zones/example/v2.zone"), b"garbage").expect("written");
    let loaded = load(&open(dir.path()));
    assert_eq!(serial(&loaded), Some(1));
    assert_eq!(loaded.ledger.high_water(), Some(2));
    assert_eq!(loaded.damage.len(), 1);
    assert!(loaded.damage[0].contains("v2.zone: another root"), "{:?}", loaded.damage);
}

#[test]
fn a_damaged_index_gives_way_to_the_one_before_but_its_serial_is_spent() {
    for (damaged, expect) in [
        (&b"{"[..], "EOF"),
        (b"{\"version\":2,\"zone\":\"example.\",\"high_water\":1,\"versions\":[]}", "version 2"),
        (b"{\"version\":1,\"zone\":\"other.\",\"high_water\":1,\"versions\":[]}", "about other."),
        (b"", "EOF"),
    ] {
        let dir = tempfile::tempdir().expect("dir");
        drop(with_two(dir.path()));
        fs::write(dir.path().join("zones/example/current.json"), damaged).expect("written");
        let loaded = load(&open(dir.path()));
        assert_eq!(serial(&loaded), Some(1));
        assert_eq!(loaded.ledger.high_water(), Some(2), "v2.zone shows that 2 went out");
        assert!(loaded.damage[0].contains(expect), "{:?}", loaded.damage);
    }
}

#[test]
fn a_freeze_outlives_a_restart() {
    let dir = tempfile::tempdir().expect("dir");
    let (store, _) = with_two(dir.path());
    store.freeze(&zone(), "ops", 5).expect("frozen");
    drop(store);
    let store = open(dir.path());
    assert_eq!(load(&store).frozen.expect("frozen").by, "ops");
    store.thaw(&zone()).expect("thawed");
    store.thaw(&zone()).expect("thawing twice is no error");
    assert!(load(&store).frozen.is_none());
}

#[test]
fn a_freeze_that_can_not_be_read_still_freezes() {
    let dir = tempfile::tempdir().expect("dir");
    let (store, _) = with_two(dir.path());
    store.freeze(&zone(), "ops", 5).expect("frozen");
    fs::write(dir.path().join("zones/example/frozen.json"), b"").expect("written");
    let loaded = load(&store);
    assert!(loaded.frozen.is_some());
    assert_eq!(loaded.damage.len(), 1);
}

#[test]
fn two_daemons_can_not_share_a_state_dir() {
    let dir = tempfile::tempdir().expect("dir");
    let _first = open(dir.path());
    let error = Store::open(dir.path(), 2).expect_err("locked").to_string();
    assert!(error.contains("in use by another countersignd"), "{error}");
}

#[test]
fn serials_are_compared_by_rfc_1982() {
    assert!(serial_is_higher(1, 0));
    assert!(serial_is_higher(0, u32::MAX));
    assert!(!serial_is_higher(1, 1));
    assert!(!serial_is_higher(u32::MAX, 0));
}
