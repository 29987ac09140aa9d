//! What each sort of motion rests on, pinned: the hash stands in every statement that was ever signed, so
//! what it is made of changes with its first line's version alone, or old ledgers stop folding.

use std::fmt::Write as _;

use crate::instance::InstanceId;
use crate::key::{KeyId, KeyRole};
use crate::ledger::Entry;
use crate::motion::{Motion, MotionKind, Scope};
use crate::testing::{World, zone};
use crate::text::arbitrary;
use crate::tree::Hash;

/// A world where there is something to rest on: a bound zone with keys, a freeze, a holder.
fn world() -> World {
    let mut world = World::signing();
    world.make_ksk(false);
    world.freeze("adam", Scope::Zone(zone())).expect("frozen");
    let claim = Entry::InstanceClaimed { instance: InstanceId(Hash([1; 32])) };
    world.add(claim).expect("claimed");
    world
}

/// One of each sort, about what is there.
fn motions() -> Vec<Motion> {
    let about_what_is_there = |motion: Motion| match motion {
        Motion::AdoptKey { zone, key, activate, .. } => {
            let (role, token) = (KeyRole::Ksk, "ksk-a".to_owned());
            Motion::AdoptKey { zone, role, token, key, activate }
        }
        Motion::GenerateKey { role, activate, .. } => {
            Motion::GenerateKey { zones: [zone()].into(), role, activate }
        }
        other => other,
    };
    arbitrary::motions().into_iter().map(about_what_is_there).collect()
}

#[test]
fn what_each_motion_rests_on_has_its_hash() {
    let world = world();
    let mut text = String::new();
    for motion in motions() {
        let _ = writeln!(text, "{:18} {}", motion.kind(), world.state.dependencies(&motion));
    }
    insta::assert_snapshot!("what_each_motion_rests_on", text.trim_end());
}

/// And nothing else: what changes makes the motions about it void, and no others.
#[test]
fn each_rests_on_what_it_is_about() {
    let mut world = world();
    let hashes = |world: &World| -> Vec<(MotionKind, Hash)> {
        motions().iter().map(|motion| (motion.kind(), world.state.dependencies(motion))).collect()
    };
    let changed = |before: &[(MotionKind, Hash)], after: &[(MotionKind, Hash)]| {
        let differ = before.iter().zip(after).filter(|(before, after)| before != after);
        differ.map(|((kind, _), _)| kind.as_str()).collect::<Vec<_>>().join(" ")
    };
    let start = hashes(&world);
    let line = |world: &mut World, entry: Entry| world.add(entry).expect("a line");
    line(&mut world, Entry::TokenMarked { token: "ksk-a".to_owned() });
    assert_eq!(changed(&start, &hashes(&world)), "", "a line of the keeper's touches nothing");
    let holder = world.state.holder().expect("claimed").instance;
    world.carry(Motion::MoveAppliance { from: holder, to: InstanceId(Hash([2; 32])) });
    assert_eq!(changed(&start, &hashes(&world)), "move-appliance");
    let moved = hashes(&world);
    let policy = super::next_policy(&world, |policy| policy.validity_s -= 60);
    world.carry(policy);
    let of_zone = "set-policy bind-zone unbind-zone generate-key adopt-key activate-key retire-key \
                   destroy-key sign-dnskey-set export-ds publish-cds delete-ds";
    assert_eq!(changed(&moved, &hashes(&world)), of_zone);
    let set = hashes(&world);
    let made: Vec<KeyId> = world
        .state
        .keys()
        .iter()
        .filter(|(_, key)| key.public.is_none())
        .map(|(id, _)| *id)
        .collect();
    world.carry(Motion::Thaw { scope: Scope::Zone(zone()) });
    assert_eq!(changed(&set, &hashes(&world)), "thaw");
    let thawed = hashes(&world);
    world.carry(Motion::DestroyKey { zone: zone(), key: made[0] });
    let of_keys = of_zone.replace("set-policy ", "");
    assert_eq!(changed(&thawed, &hashes(&world)), of_keys);
}
