//! What was pinned guards against a ledger that was rolled back, forked, or exchanged.

use countersign_policy::motion::{Motion, Scope};
use countersign_policy::testing::{World, recovery_group, team, zone};
use countersign_policy::tree::Hash;

use super::super::end::{End, Stop};
use super::super::pins::{Pin, Pins};
use super::super::view::{Expected, Folded, fold};
use super::Bed;

fn folded(world: &World) -> Folded {
    let lines = world.lines.iter().map(|line| Ok::<_, ()>(line.to_canonical()));
    fold(lines, None, |_, _| {}).expect("it folds")
}

/// Those that are in the ledger of `world` now.
fn pin(world: &World) -> Pin {
    folded(world).to_pin().expect("a pin")
}

#[test]
fn an_appliance_is_named_once() {
    let bed = Bed::new(World::bound());
    bed.run(&["officer", "list"]).expect(End::Usage, "which appliance is this?");
    bed.first(&["officer", "list"]).expect(End::Fine, "alice");
    bed.run(&["officer", "list"]).expect(End::Fine, "alice");
    let other = "00".repeat(32);
    bed.run(&["--founding", &other, "officer", "list"])
        .expect(End::Unsound, "another appliance's ledger");
}

#[test]
fn another_appliance_at_the_same_socket_is_refused() {
    let bed = Bed::new(World::bound());
    bed.first(&["officer", "list"]).expect(End::Fine, "");
    let other = World::founded_by(team(), |founding| founding.nonce = [9; 16]);
    bed.keeper.kept().world = Some(other);
    bed.run(&["officer", "list"]).expect(End::Unsound, "another appliance's ledger");
}

#[test]
fn a_ledger_that_was_rolled_back_is_refused() {
    let bed = Bed::new(World::signing());
    bed.first(&["officer", "list"]).expect(End::Fine, "");
    let lines = bed.keeper.lines();
    let file = bed.path("pins").join(format!("{}.toml", bed.keeper.founding()));
    let before = std::fs::read_to_string(&file).expect("pinned");
    assert!(before.contains(&format!("head = \"{lines} ")), "{before}");
    bed.keeper.roll_back(lines - 1);
    let said = bed.run(&["officer", "list"]);
    assert_eq!(said.out, "", "nothing is shown");
    for part in
        ["the ledger is behind: 1 of its lines", &format!("pinned: {lines} lines"), "Sign nothing"]
    {
        assert!(said.err.contains(part), "{}", said.err);
    }
    said.expect(End::Unsound, "");
    assert_eq!(std::fs::read_to_string(&file).expect("pinned"), before, "the pin stays");
}

#[test]
fn a_ledger_that_was_forked_is_refused() {
    let bed = Bed::new(World::bound());
    let lines = bed.keeper.lines();
    bed.keeper.kept().world.as_mut().expect("founded").freeze("adam", Scope::All).expect("a line");
    bed.first(&["officer", "list"]).expect(End::Fine, "");
    bed.keeper.roll_back(lines);
    {
        let mut kept = bed.keeper.kept();
        let world = kept.world.as_mut().expect("founded");
        for _ in 0..3 {
            world.freeze("bob", Scope::Zone(zone())).expect("a line");
        }
    }
    bed.run(&["officer", "list"]).expect(End::Unsound, "changed or forked");
}

#[test]
fn a_pin_that_is_damaged_is_no_absent_one() {
    let bed = Bed::new(World::bound());
    bed.first(&["officer", "list"]).expect(End::Fine, "");
    let file = bed.path("pins").join(format!("{}.toml", bed.keeper.founding()));
    let whole = std::fs::read_to_string(&file).expect("pinned");
    for damaged in [
        String::new(),
        whole.replace("version = 1", "version = 2"),
        whole.replace("head = \"", "head = \"0"),
        format!("more = 1\n{whole}"),
        whole.replace("appliance = \"test\"", "appliance = \"tset\""),
    ] {
        std::fs::write(&file, &damaged).expect("written");
        bed.run(&["officer", "list"]).expect(End::Unsound, "pin");
        let kept = std::fs::read_to_string(&file).expect("pinned");
        assert_eq!(kept, damaged, "it is not replaced");
    }
}

#[test]
fn pins_that_others_can_write_prove_nothing() {
    use std::os::unix::fs::PermissionsExt as _;
    let bed = Bed::new(World::bound());
    bed.first(&["officer", "list"]).expect(End::Fine, "");
    let folder = bed.path("pins");
    let file = folder.join(format!("{}.toml", bed.keeper.founding()));
    for (path, open, shut) in
        [(&folder, 0o777, 0o700), (&folder, 0o770, 0o755), (&file, 0o666, 0o600)]
    {
        let set = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path, mode).expect("a mode");
        };
        set(open);
        bed.first(&["officer", "list"]).expect(End::Usage, "chmod go-w");
        bed.run(&["officer", "list"]).expect(End::Usage, "chmod go-w");
        set(shut);
        bed.run(&["officer", "list"]).expect(End::Fine, "alice");
    }
    // Nor does a folder that others have made ready.
    let ready = bed.path("ready");
    std::fs::create_dir(&ready).expect("a folder");
    std::fs::set_permissions(&ready, std::fs::Permissions::from_mode(0o1777)).expect("a mode");
    let founding = bed.keeper.founding().to_string();
    bed.run_with(&ready, &["--founding", &founding, "officer", "list"])
        .expect(End::Usage, "chmod go-w");
}

#[test]
fn two_runs_at_once_put_the_newer_head_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let pins = Pins::at(Some(folder.path()), |_| None).expect("a folder");
    let expected = Expected { founding: None, pins: &pins, behind: false };
    let (older, newer) = (folded(&World::founded()), folded(&World::bound()));
    // Both began when nothing was pinned; the one that read less comes last.
    assert!(expected.pin(&newer, None).is_ok());
    assert!(expected.pin(&older, None).is_ok());
    let pinned = pins.read(&newer.appliance).expect("readable").expect("pinned");
    assert_eq!(pinned.head, newer.head());
    // One that began later knows of the newer head.
    assert!(expected.pin(&older, Some(&pinned)).is_err());
    // Of two that are as long, only one can be the ledger.
    let mut other = World::founded();
    while folded(&other).head().size < newer.head().size {
        other.freeze("adam", Scope::All).expect("a line");
    }
    assert!(expected.pin(&folded(&other), None).is_err());
    // And one whose ledger is a fork of what another run saw is refused.
    let mut fork = World::founded();
    for _ in 0..20 {
        fork.freeze("adam", Scope::All).expect("a line");
    }
    assert!(expected.pin(&folded(&fork), None).is_err());
}

/// A ledger with a recovery group.
fn recoverable() -> World {
    World::founded_by(team().into_iter().chain(recovery_group()).collect(), |_| {})
}

/// A ledger that lost what `lost` had, and goes on by the recovery group.
fn gone_on(lost: &World) -> World {
    gone_on_from(lost, 1)
}

/// The same, and names that version of officers.
fn gone_on_from(lost: &World, officers: u64) -> World {
    let mut world = recoverable();
    let head = lost.state.tree().head();
    let motion = Motion::NewOrigin { lost: head, officers, rules: 1 };
    let hash = world.propose("rita", motion).expect("a proposal");
    for officer in ["rob", "ruth", "ralf"] {
        world.approve(officer, hash).expect("an approval");
    }
    world.now += 2 * 86_400;
    world.begin(hash).expect("a beginning");
    world
}

#[test]
fn a_new_origin_explains_what_it_gave_up_and_nothing_else() {
    let mut lost = recoverable();
    for _ in 0..3 {
        lost.freeze("adam", Scope::All).expect("a line");
    }
    let ledger = folded(&gone_on(&lost));
    assert_eq!(ledger.follows(&pin(&lost)), Ok(()), "the very head that was given up");
    let shorter = {
        let mut world = recoverable();
        world.freeze("adam", Scope::All).expect("a line");
        world
    };
    assert_eq!(ledger.follows(&pin(&shorter)), Ok(()), "an officer who saw less of it");
    lost.freeze("adam", Scope::All).expect("a line");
    assert!(ledger.follows(&pin(&lost)).is_err(), "an officer who saw more than was given up");
    // Whoever has seen the new origin is shown no fork of what came after it, even if it is shorter
    // than what was given up.
    let mut long = recoverable();
    for _ in 0..12 {
        long.freeze("adam", Scope::All).expect("a line");
    }
    let (mut after, mut forked) = (gone_on(&long), gone_on(&long));
    after.freeze("adam", Scope::All).expect("a line");
    forked.freeze("bob", Scope::All).expect("a line");
    let seen = pin(&after);
    assert!(seen.head.size < long.state.tree().head().size);
    assert_eq!(folded(&after).follows(&seen), Ok(()));
    assert!(folded(&forked).follows(&seen).is_err());
}

#[test]
fn behind_is_for_a_new_origin_alone() {
    let bed = Bed::new(recoverable());
    {
        let mut kept = bed.keeper.kept();
        let world = kept.world.as_mut().expect("founded");
        for _ in 0..3 {
            world.freeze("adam", Scope::All).expect("a line");
        }
    }
    bed.first(&["officer", "list"]).expect(End::Fine, "");
    let lost = bed.keeper.kept().world.as_ref().expect("founded").state.tree().head().to_string();
    bed.keeper.roll_back(1);
    let propose = ["propose", "new-origin", "--lost", &lost, "--officers", "1", "--rules", "1"];
    bed.run_as("rita", &propose).expect(End::Unsound, "the ledger is behind");
    let other = ["propose", "thaw", "--behind"];
    bed.run_as("olga", &other).expect(End::Usage, "--behind is for new-origin alone");
    let said = bed.run_as("rita", &[&propose[..], &["--behind", "--json"]].concat());
    assert_eq!(said.end, End::Fine, "{}", said.err);
    let id = said.out.split('"').nth(3).expect("an id").to_owned();
    bed.run_as("rob", &["approve", &id]).expect(End::Unsound, "Sign nothing");
    bed.run_as("rob", &["approve", &id, "--behind"]).expect(End::Fine, "approved by rob");
    let other = {
        let mut kept = bed.keeper.kept();
        let world = kept.world.as_mut().expect("founded");
        let name = "default".to_owned();
        let policy = countersign_policy::testing::policy();
        world.propose("olga", Motion::SetPolicy { name, version: 1, policy }).expect("a proposal")
    };
    bed.run_as("pat", &["approve", &other.to_string(), "--behind"])
        .expect(End::Usage, "--behind is for new-origin alone");
}

#[test]
fn a_line_that_does_not_follow_is_named() {
    let bed = Bed::new(World::bound());
    let at = {
        let mut kept = bed.keeper.kept();
        let world = kept.world.as_mut().expect("founded");
        let at = world.lines.len() - 1;
        world.lines.remove(at - 1);
        at - 1
    };
    bed.first(&["officer", "list"]).expect(End::Unsound, &format!("line {at}: "));
}

#[test]
fn where_pins_are_kept() {
    let at = |variables: &[(&str, &str)]| {
        let of = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| std::ffi::OsString::from(value))
        };
        let founding = Hash([0; 32]);
        match Pins::at(None, of) {
            Ok(pins) => pins.path(&founding).parent().expect("a folder").display().to_string(),
            Err(Stop::Said { text, .. }) => text,
            Err(Stop::Pipe) => String::new(),
        }
    };
    assert_eq!(at(&[("HOME", "/h")]), "/h/.config/countersign/pins");
    assert_eq!(at(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")]), "/x/countersign/pins");
    assert_eq!(at(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "x")]), "/h/.config/countersign/pins");
    assert!(at(&[]).contains("--pins"));
}

/// Who was retired could begin a new origin by the officers of before: an officer who has seen the
/// later ones takes none that does not name them.
#[test]
fn a_new_origin_explains_no_officers_that_it_did_not_name() {
    let mut lost = recoverable();
    let version = lost.state.officers_version() + 1;
    let (retire, enrol) = (["adam".parse().expect("a name")].into(), [].into());
    lost.carry(Motion::ChangeOfficers { version, retire, enrol });
    let seen = pin(&lost);
    assert!(folded(&gone_on_from(&lost, 1)).follows(&seen).is_err());
    assert_eq!(folded(&gone_on_from(&lost, 2)).follows(&seen), Ok(()));
}
