//! A ledger against what a token has seen of it.

use super::{change, refused};
use crate::motion::Motion;
use crate::officer::Role;
use crate::state::{DAY_S, LedgerState, TokenState, TokenStateFault};
use crate::testing::{Person, World, recovery_group, team};
use crate::tree::Hash;

fn token(world: &World) -> TokenState {
    world.state.token_state().expect("founded")
}

#[test]
fn a_token_state_has_one_text() {
    let state = token(&World::signing());
    let bytes = state.to_canonical();
    assert_eq!(TokenState::from_canonical(&bytes), Ok(state));
    assert!(TokenState::from_canonical(&[&bytes[..], b" "].concat()).is_err());
}

#[test]
fn a_ledger_goes_on_from_what_its_tokens_have_seen() {
    let mut world = World::founded();
    let early = token(&world);
    assert!(matches!(
        LedgerState::default().accepts_token_state(&early),
        Err(TokenStateFault::Unfounded(_))
    ));
    world.bind_zone();
    assert_eq!(world.state.accepts_token_state(&early), Ok(()));
    assert_eq!(world.state.accepts_token_state(&token(&world)), Ok(()));
    let rolled_back = World::fold(&world.lines[..3]).expect("folds");
    let fault = rolled_back.accepts_token_state(&token(&world)).expect_err("behind");
    assert!(matches!(fault, TokenStateFault::Behind { .. }), "{fault}");
    let check = |change: &dyn Fn(&mut TokenState)| {
        let mut state = token(&world);
        change(&mut state);
        world.state.accepts_token_state(&state).expect_err("a fault")
    };
    assert!(matches!(check(&|s| s.root.0[0] ^= 1), TokenStateFault::Fork { .. }));
    assert!(matches!(
        check(&|s| s.founding = Hash([0; 32])),
        TokenStateFault::OtherFounding { .. }
    ));
    assert!(matches!(check(&|s| s.origin += 1), TokenStateFault::Behind { .. }));
    assert!(matches!(check(&|s| s.officers.version += 1), TokenStateFault::Behind { .. }));
    assert!(matches!(check(&|s| s.rules.version += 1), TokenStateFault::Behind { .. }));
    assert!(matches!(check(&|s| s.officers.hash.0[0] ^= 1), TokenStateFault::Versions("officers")));
    assert!(matches!(check(&|s| s.rules.hash.0[0] ^= 1), TokenStateFault::Versions("rules")));
}

#[test]
fn a_fork_of_the_same_length_is_found() {
    let mut one = World::founded();
    let mut other = World::founded();
    other.number();
    one.bind_zone();
    other.bind_zone();
    assert_eq!(one.state.next_seq(), other.state.next_seq());
    let fault = one.state.accepts_token_state(&token(&other)).expect_err("a fork");
    assert!(matches!(fault, TokenStateFault::Fork { .. }), "{fault}");
}

/// The newest copy is gone with its disk; the officers go on from an older one.
#[test]
fn a_new_origin_goes_on_from_an_older_copy_and_voids_what_was_approved() {
    let mut people = team();
    people.extend(recovery_group());
    let mut world = World::founded_by(people, |_| {});
    let waiting = {
        let motion = change(&world, &[], &[&Person::new("arno", Role::Auditor)]);
        world.statement("olga", motion)
    };
    let copy = world.lines.clone();
    let motion = change(&world, &[], &[&Person::new("anna", Role::Auditor)]);
    world.carry(motion);
    let seen = token(&world);
    (world.state, world.lines) = (World::fold(&copy).expect("folds"), copy);
    assert!(world.state.accepts_token_state(&seen).is_err());
    let motion = Motion::NewOrigin {
        lost: seen.head(),
        officers: seen.officers.version,
        rules: seen.rules.version,
    };
    refused(world.propose("olga", motion.clone()), "only the recovery group can go on");
    let hash = world.propose("rita", motion).expect("proposed");
    for officer in ["rob", "ruth", "ralf"] {
        world.approve(officer, hash).expect("approved");
    }
    // The keeper's clock may be far ahead of an old copy.
    world.now += 2 * DAY_S;
    world.begin(hash).expect("begun");
    assert_eq!((world.state.origin(), world.state.officers_version()), (1, 2));
    assert_eq!(world.state.accepts_token_state(&seen), Ok(()));
    let mut later = seen;
    later.size += 1;
    assert!(world.state.accepts_token_state(&later).is_err(), "more than was said to be lost");
    assert_eq!(world.state.accepts_token_state(&token(&world)), Ok(()));
    // A statement of before is void, though its checkpoint is still a prefix.
    refused(world.table(&waiting), "it rests on another state");
}

/// Whoever rolls the ledger back to before an officer was retired, and pulls the tokens that know of it,
/// has no quorum that speaks for them.
#[test]
fn a_new_origin_gives_up_no_officers_that_it_does_not_name() {
    let mut world = World::founded();
    let copy = world.lines.clone();
    let motion = change(&world, &["adam"], &[]);
    world.carry(motion);
    let seen = token(&world);
    (world.state, world.lines) = (World::fold(&copy).expect("folds"), copy);
    let lost = seen.head();
    let absurd = Motion::NewOrigin { lost, officers: lost.size + 1, rules: 1 };
    refused(world.propose("olga", absurd), "each version has a line");
    world.carry(Motion::NewOrigin { lost, officers: 1, rules: 1 });
    world.state.accepts_token_state(&seen).expect_err("officers were lost, and were not named");
    let mut same = seen;
    same.officers.version = 1;
    assert_eq!(world.state.accepts_token_state(&same), Ok(()), "what was named as lost");
    same.root.0[0] ^= 1;
    assert!(world.state.accepts_token_state(&same).is_err(), "as long, and another ledger");
}

/// What ran in the lost lines must not run again from the same signatures.
#[test]
fn a_new_origin_voids_every_statement_of_before() {
    let mut world = World::founded();
    let motion = super::next_policy(&world, |_| {});
    let waiting = world.statement("olga", motion);
    let lost = crate::tree::TreeHead { size: 9, root: Hash([1; 32]) };
    world.carry(Motion::NewOrigin { lost, officers: 1, rules: 1 });
    refused(world.table(&waiting), "it rests on another state");
}
