//! Line 0.

use super::refused;
use crate::ledger::{Entry, LedgerError, Line};
use crate::officer::Role;
use crate::ssh::Namespace;
use crate::state::{DAY_S, LedgerState};
use crate::testing::{NOW, Person, World, founded_entry, founding, rules, team};

fn found(entry: Entry, at: u64) -> Result<LedgerState, LedgerError> {
    World::fold(&[Line { seq: 0, at, entry }])
}

#[test]
fn everyone_on_the_roster_signs_and_nobody_else() {
    let people = team();
    let founding = founding(&people, NOW);
    let state = found(founded_entry(&founding, &people), NOW).expect("founded");
    assert_eq!(state.roster().0.len(), people.len());
    assert_eq!((state.officers_version(), state.rules_version()), (1, 1));
    assert_eq!(state.time_floor(), NOW);
    for absent in 0..people.len() {
        let mut entry = founded_entry(&founding, &people);
        let Entry::Founded { signatures, .. } = &mut entry else { panic!("founded") };
        signatures.remove(&people[absent].name).expect("signed");
        refused(found(entry, NOW), &format!("{} has not signed", people[absent].name));
    }
    let mut more = team();
    more.push(Person::new("mallory", Role::KeyOfficer));
    refused(found(founded_entry(&founding, &more), NOW), "mallory signed the founding and is not");
}

#[test]
fn each_signature_is_that_persons_over_that_text_for_that_purpose() {
    let people = team();
    let founding = founding(&people, NOW);
    let sign = |change: &dyn Fn(&str) -> crate::ssh::Signature| {
        let mut entry = founded_entry(&founding, &people);
        let Entry::Founded { text, signatures } = &mut entry else { panic!("founded") };
        signatures.insert(people[1].name.clone(), change(text));
        found(entry, NOW)
    };
    refused(sign(&|text| people[2].sign(Namespace::Found, text)), "which is no key of alice's");
    refused(sign(&|text| people[1].sign(Namespace::Propose, text)), "alice's signature");
    refused(sign(&|text| people[1].sign(Namespace::Found, &text[1..])), "alice's signature");
}

#[test]
fn there_is_one_founding_and_nothing_before_it() {
    let mut state = LedgerState::default();
    let entry = Entry::TokenMarked { token: "ksk-a".to_owned() };
    refused(state.apply(&Line { seq: 0, at: NOW, entry }), "the first line is not a founding");
    let mut world = World::signing();
    let people = team();
    let again = founded_entry(&founding(&people, world.now), &people);
    refused(world.add(again), "an appliance is founded once");
}

#[test]
fn a_founding_that_one_person_could_use_alone_is_refused() {
    let people = team();
    let check = |change: &dyn Fn(&mut crate::founding::Founding), expect: &str| {
        let mut founding = founding(&people, NOW);
        change(&mut founding);
        refused(found(founded_entry(&founding, &people), NOW), expect);
    };
    check(&|f| f.rules = rules(1, &[Role::KeyOfficer]), "expected at least 2");
    check(&|f| f.rules = rules(3, &[Role::KeyOfficer]), "expected more persons");
    check(&|f| f.rules = rules(2, &[Role::Operator]), "has no vote");
    check(&|f| f.audit_token = "elsewhere".to_owned(), "elsewhere");
    let two = [("alice", "carol"), ("carol", "carol")];
    let people: Vec<Person> = team()
        .into_iter()
        .map(|person| match two.iter().find(|(name, _)| *name == person.name.as_str()) {
            Some((name, key)) => Person::with_key(name, person.role, key),
            None => person,
        })
        .collect();
    let shared = founding(&people, NOW);
    refused(found(founded_entry(&shared, &people), NOW), "a key belongs to one person");
}

#[test]
fn the_first_floor_of_time_is_near_the_clock() {
    let people = team();
    let entry = || founded_entry(&founding(&people, NOW), &people);
    refused(found(entry(), NOW - 3_601), "expected the clock within 30 days after it");
    refused(found(entry(), NOW + 30 * DAY_S + 1), "expected the clock within 30 days after it");
    assert_eq!(found(entry(), NOW - 3_600).expect("founded").time_floor(), NOW);
    let late = found(entry(), NOW + 30 * DAY_S).expect("founded");
    assert_eq!(late.time_floor(), NOW + 30 * DAY_S);
}
