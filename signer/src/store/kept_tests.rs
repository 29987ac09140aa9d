//! What was set aside is there after a restart, whole or not at all, and never over what went out after
//! it.

use std::path::Path;

use countersign_policy::ZoneName;
use countersign_zone::receive::{Bounds, CLASS_IN, ReceivedZone, Receiver};

use super::tests::{open, with_two, zone};
use super::v1::{Decision, Kept, Source, VERSION};
use super::{Records, SaveState, Slot, Store};

/// A zone of so many records.
fn received(count: u8) -> ReceivedZone {
    let bounds = Bounds { records_max: 1_000, bytes_max: 100_000 };
    let mut receiver = Receiver::new(zone(), bounds);
    for host in 0..count {
        let owner = [&[1, b'a' + host % 26], &b"\x07example\x00"[..]].concat();
        receiver.push(&owner, 1, CLASS_IN, 60, &[192, 0, 2, host]).expect("taken");
    }
    receiver.finish().expect("whole")
}

fn kept(serial: u32, data_changes: u64) -> Kept {
    Kept {
        version: VERSION,
        zone: zone(),
        serial,
        since_s: 7,
        source: Source::Push { by: "ops".to_owned() },
        reasons: vec!["so it is".to_owned()],
        exact: true,
        data_changes,
        records: 0,
        digest: [0; 32],
        released: None,
    }
}

/// Sets so many records aside, after as many changes of data as the state knows.
fn keep(store: &Store, state: &SaveState, serial: u32, count: u8) -> Kept {
    let kept = kept(serial, state.data_changes());
    store.keep(Slot::Held, kept, Records::Received(&received(count))).expect("kept")
}

fn held(store: &Store) -> Option<Kept> {
    super::tests::load(store).held
}

fn records(store: &Store, kept: &Kept) -> Result<usize, String> {
    let data = store.kept_data(Slot::Held, kept).map_err(|error| error.to_string())?;
    Ok(data.records())
}

fn slot_files(dir: &Path) -> Vec<String> {
    let names = super::tests::files(dir);
    names.into_iter().filter(|name| name.starts_with("held")).collect()
}

#[test]
fn what_is_held_outlives_a_restart_and_gives_way_to_the_next() {
    let dir = tempfile::tempdir().expect("dir");
    let (store, state) = with_two(dir.path());
    assert_eq!(held(&store), None);
    let first = keep(&store, &state, 3, 5);
    drop(store);
    let store = open(dir.path());
    assert_eq!(held(&store), Some(first.clone()));
    assert_eq!((first.records, records(&store, &first)), (5, Ok(5)));
    let second = keep(&store, &state, 4, 9);
    assert_eq!(records(&store, &held(&store).expect("the next")), Ok(9));
    assert_eq!(slot_files(dir.path()).len(), 2, "one file of data, and what names it");
    records(&store, &first).expect_err("its file is gone");
    let released = Decision { by: "ops".to_owned(), at_s: 9 };
    let noted = Kept { released: Some(released), ..second };
    store.note_kept(Slot::Held, &noted).expect("noted");
    assert_eq!(held(&store), Some(noted));
    store.drop_kept(&zone(), Slot::Held).expect("dropped");
    store.drop_kept(&zone(), Slot::Held).expect("dropping twice is no error");
    assert_eq!((held(&store), slot_files(dir.path()).len()), (None, 0));
}

#[test]
fn what_new_data_has_overtaken_is_gone() {
    let dir = tempfile::tempdir().expect("dir");
    let (store, mut state) = with_two(dir.path());
    keep(&store, &state, 3, 5);
    let signed_again = |store: &Store, state: &mut SaveState, serial, new_data| {
        super::tests::save_as(store, state, serial, new_data, &mut |_| Ok(())).expect("saved");
    };
    signed_again(&store, &mut state, 3, false);
    assert!(held(&store).is_some(), "the same data, signed again, overtakes nothing");
    signed_again(&store, &mut state, 4, true);
    assert_eq!(held(&store), None);
    assert_eq!(slot_files(dir.path()), Vec::<String>::new());
}

/// Each state of the folder that a crash can leave: the data is written first, then what names it.
#[test]
fn a_crash_leaves_the_one_before() {
    let dir = tempfile::tempdir().expect("dir");
    let (store, state) = with_two(dir.path());
    let first = keep(&store, &state, 3, 5);
    let folder = dir.path().join("zones/example");
    let json = std::fs::read(folder.join("held.json")).expect("there");
    let data = std::fs::read(folder.join(&slot_files(dir.path())[0])).expect("there");
    for left in ["held.tmp", "held-0123456789abcdef.zone", "held.json.tmp"] {
        std::fs::write(folder.join(left), b"half").expect("written");
        assert_eq!(held(&store), Some(first.clone()), "{left}");
        assert_eq!(records(&store, &first), Ok(5), "{left}");
        assert_eq!(slot_files(dir.path()).len(), 2, "{left} is cleared away");
    }
    // Damage of either file: it is lost, and said so; the zone itself is not affected.
    let name = folder.join(&slot_files(dir.path())[0]);
    let mut damaged = data.clone();
    damaged[data.len() / 2] ^= 1;
    std::fs::write(&name, damaged).expect("written");
    let why = records(&store, &first).expect_err("damaged");
    assert!(why.contains("can't read"), "{why}");
    std::fs::write(&name, &data[..data.len() - 3]).expect("written");
    let why = records(&store, &first).expect_err("cut");
    assert!(why.contains("ends early"), "{why}");
    std::fs::write(folder.join("held.json"), &json[..json.len() / 2]).expect("written");
    let loaded = super::tests::load(&store);
    assert!(loaded.held.is_none() && loaded.damage.is_empty() && loaded.version.is_some());
    // Nobody may have it but this disk: what can't be read now is left to who can.
    std::fs::write(&name, &data).expect("written");
    super::tests::load(&store);
    std::fs::write(folder.join("held.json"), &json).expect("written");
    assert_eq!((held(&store), records(&store, &first)), (Some(first.clone()), Ok(5)));
}

#[test]
fn a_rejected_serial_is_remembered() {
    let dir = tempfile::tempdir().expect("dir");
    let (store, _) = with_two(dir.path());
    let by = Decision { by: "ops".to_owned(), at_s: 9 };
    store.reject(&zone(), Some((7, by))).expect("noted");
    drop(store);
    let store = open(dir.path());
    assert_eq!(super::tests::load(&store).rejected, Some(7));
    store.reject(&zone(), None).expect("forgotten");
    store.reject(&zone(), None).expect("forgetting twice is no error");
    assert_eq!(super::tests::load(&store).rejected, None);
}

/// A version that is held before anything was ever published.
#[test]
fn a_zone_without_a_version_can_hold_one() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let kept = keep(&store, &SaveState::default(), 1, 2);
    assert_eq!(held(&store), Some(kept));
    let other: ZoneName = "other.".parse().expect("name");
    assert!(store.drop_kept(&other, Slot::Held).is_ok());
}
