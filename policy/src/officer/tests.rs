use super::*;
use crate::text::arbitrary::{officer, person, ssh_key};

fn key(seed: u8, security_key: bool, verify_required: bool) -> OfficerKey {
    OfficerKey { ssh: ssh_key(seed, security_key), verify_required }
}

fn roster(people: &[(&str, &[OfficerKey])]) -> Roster {
    let people = people.iter().map(|(name, keys)| {
        (person(name), Officer { role: Role::KeyOfficer, keys: keys.iter().cloned().collect() })
    });
    Roster(people.collect())
}

fn check(people: &[(&str, &[OfficerKey])], expect: &str) {
    match roster(people).check() {
        Ok(()) => assert_eq!("allowed", expect, "{people:?}"),
        Err(error) => assert_eq!(error.to_string(), expect, "{people:?}"),
    }
}

#[test]
fn names_look_like_nothing_else() {
    for name in ["a", "alice", "a-1", "a--", &"a".repeat(32)] {
        assert_eq!(name.parse::<PersonName>().expect(name).to_string(), name);
    }
    for name in [
        "",
        "A",
        "Alice",
        "1a",
        "-a",
        "a b",
        "a.b",
        "a_b",
        " a",
        "a ",
        "a\n",
        "\u{430}lice",
        "alic\u{435}",
        "a\u{200b}",
        &"a".repeat(33),
    ] {
        assert!(name.parse::<PersonName>().is_err(), "{name:?}");
        assert!(serde_json::from_value::<PersonName>(name.into()).is_err(), "{name:?}");
    }
}

#[test]
fn roles_have_one_spelling() {
    for role in Role::ALL {
        assert_eq!(role.as_str().parse(), Ok(role));
        assert_eq!(serde_json::to_value(role).expect("JSON"), role.as_str());
        assert!(role.as_str().to_uppercase().parse::<Role>().is_err());
    }
    assert!("root".parse::<Role>().is_err());
    assert!("key_officer".parse::<Role>().is_err());
}

#[test]
fn a_key_belongs_to_one_person() {
    let (one, other) = (key(1, false, false), key(2, false, false));
    check(
        &[("alice", std::slice::from_ref(&one)), ("bob", std::slice::from_ref(&other))],
        "allowed",
    );
    check(&[("alice", &[one.clone(), other.clone()])], "allowed");
    check(
        &[("alice", std::slice::from_ref(&one)), ("bob", &[other.clone(), one.clone()])],
        "alice and bob have the same key; a key belongs to one person",
    );
    check(
        &[("alice", &[key(1, true, true)]), ("bob", &[key(1, true, false)])],
        "alice and bob have the same key; a key belongs to one person",
    );
    check(&[("alice", &[key(1, true, true), key(1, true, false)])], "alice has one key twice");
    // The same point in a security key and outside of one: two keys, as OpenSSH sees it.
    check(&[("alice", &[key(1, true, true)]), ("bob", &[key(1, false, false)])], "allowed");
}

#[test]
fn only_security_keys_verify_their_user() {
    check(&[("alice", &[key(1, true, true)])], "allowed");
    check(&[("alice", &[key(1, true, false)])], "allowed");
    check(
        &[("alice", &[key(1, false, true)])],
        "alice: `verify-required` has no meaning for a key that is not `sk-`",
    );
}

#[test]
fn persons_and_keys_are_bounded() {
    let keys: Vec<OfficerKey> = (1..=5).map(|seed| key(seed, false, false)).collect();
    check(&[], "0 persons; expected 1 to 64");
    check(&[("alice", &[])], "alice has 0 keys; expected 1 to 4");
    check(&[("alice", &keys[..4])], "allowed");
    check(&[("alice", &keys)], "alice has 5 keys; expected 1 to 4");
    let many = |count: u8| {
        let one = |seed| (person(&format!("p{seed}")), officer(Role::Auditor, &[seed]));
        Roster((0..count).map(one).collect())
    };
    assert_eq!(many(64).check(), Ok(()));
    assert_eq!(many(65).check(), Err(RosterError::Persons(65)));
}

#[test]
fn a_key_is_found_with_its_owner_only() {
    let mine = key(1, true, true);
    let roster =
        roster(&[("alice", std::slice::from_ref(&mine)), ("bob", &[key(2, false, false)])]);
    assert_eq!(roster.key_of(&person("alice"), &mine.ssh), Some(&mine));
    assert_eq!(roster.key_of(&person("bob"), &mine.ssh), None);
    assert_eq!(roster.key_of(&person("carol"), &mine.ssh), None);
    assert_eq!(roster.key_of(&person("alice"), &ssh_key(1, false)), None);
}

#[test]
fn persons_are_counted_by_role_and_without_the_proposer() {
    let roster = crate::text::arbitrary::roster();
    let count = |roles: &[Role], without: Option<&str>| {
        roster.count(&roles.iter().copied().collect(), without.map(person).as_ref())
    };
    assert_eq!(count(&[], None), 0);
    assert_eq!(count(&[Role::KeyOfficer], None), 3);
    assert_eq!(count(&[Role::KeyOfficer], Some("alice")), 2);
    assert_eq!(count(&[Role::KeyOfficer], Some("olga")), 3);
    assert_eq!(count(&[Role::KeyOfficer], Some("nobody")), 3);
    assert_eq!(count(&[Role::KeyOfficer, Role::PolicyOfficer], Some("dave")), 5);
    assert_eq!(count(&Role::ALL, None), 8);
    assert_eq!(count(&[Role::Recovery], None), 0);
}
