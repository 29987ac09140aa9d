use proptest::prelude::*;

use super::*;
use crate::text::{Field, arbitrary, parts};

/// So many key officers `k0`…, policy officers `p0`…, and persons of recovery `r0`…; one operator `o0`
/// and one auditor `a0`.
fn roster(key_officers: u8, policy_officers: u8, recovery: u8) -> Roster {
    let groups = [
        (Role::KeyOfficer, 'k', key_officers),
        (Role::PolicyOfficer, 'p', policy_officers),
        (Role::Recovery, 'r', recovery),
        (Role::Operator, 'o', 1),
        (Role::Auditor, 'a', 1),
    ];
    let people = groups.into_iter().zip(0_u8..).flat_map(|((role, letter, count), group)| {
        (0..count).map(move |at| {
            let name = arbitrary::person(&format!("{letter}{at}"));
            (name, arbitrary::officer(role, &[group * 50 + at]))
        })
    });
    Roster(people.collect())
}

/// A rule as texts write it.
fn rule(text: &str) -> Rule {
    parts::read_rule(Field { line: 1, value: text }).expect(text)
}

fn expect(found: Result<(), RuleError>, expect: &str, of: &str) {
    match found {
        Ok(()) => assert_eq!("allowed", expect, "{of}"),
        Err(error) => assert!(error.to_string().contains(expect), "{of}: {error}"),
    }
}

/// The rule among otherwise sound ones, with three key officers and three policy officers.
fn check(kind: MotionKind, text: &str, expected: &str) {
    let mut rules = arbitrary::rules();
    rules.0.insert(kind, rule(text));
    expect(rules.check(&roster(3, 3, 0), None), expected, text);
}

/// Recovery by so many after so long, with a group of so many, two persons being the ordinary rule.
fn check_recovery(group: u8, persons: u8, delay_s: u64, expected: &str) {
    let recovery = RecoveryRule { persons, delay_s };
    let found = arbitrary::rules().check(&roster(3, 3, group), Some(recovery));
    expect(found, expected, &format!("{persons} of {group} after {delay_s}"));
}

#[test]
fn one_person_is_never_enough_and_the_loss_of_one_never_too_much() {
    let kind = MotionKind::Thaw;
    check(kind, "1 policy-officer", "thaw would take 1 persons; expected at least 2");
    check(kind, "2 policy-officer", "allowed");
    check(kind, "3 policy-officer", "thaw would take 3 of 3 persons (policy-officer)");
    check(kind, "2 key-officer|policy-officer", "allowed");
    check(kind, "5 key-officer|policy-officer", "allowed");
    check(kind, "6 key-officer|policy-officer", "would take 6 of 6 persons");
    check(kind, "255 key-officer|policy-officer", "would take 255 of 6 persons");
}

#[test]
fn of_groups_the_floor_is_on_the_whole_and_each_can_be_met() {
    let kind = MotionKind::Thaw;
    check(kind, "1 key-officer + 1 policy-officer", "allowed");
    check(kind, "3 key-officer + 2 policy-officer", "allowed");
    check(kind, "3 key-officer + 3 policy-officer", "would take 6 of 6 persons");
    check(kind, "4 key-officer + 1 policy-officer", "would take 4 of 3 persons (key-officer)");
    check(kind, "1 key-officer + 4 policy-officer", "would take 4 of 3 persons (policy-officer)");
    check(kind, "0 key-officer + 2 policy-officer", "has an empty group");
    check(kind, "2 key-officer + 0 policy-officer", "has an empty group");
    check(kind, "1 key-officer + 1 key-officer", "has key-officer in two groups");
    check(kind, "1 key-officer + 1 key-officer|policy-officer", "has key-officer in two groups");
    check(kind, "1 policy-officer + 1 key-officer", "in the order of their roles");
    let nobody = Group { persons: 2, roles: [].into() };
    for (empty, expected) in
        [(Rule(vec![]), "would take 0 persons"), (Rule(vec![nobody]), "has an empty group")]
    {
        let mut rules = arbitrary::rules();
        rules.0.insert(kind, empty);
        expect(rules.check(&roster(3, 3, 0), None), expected, "nobody");
    }
}

#[test]
fn who_has_no_vote_gets_none_by_a_rule() {
    for kind in MotionKind::all() {
        for role in ["operator", "auditor", "recovery"] {
            let expected = format!(
                "the rule for {kind} names {role}, which has no vote on it; expected key-officer, \
                 policy-officer"
            );
            check(kind, &format!("2 {role}"), &expected);
            check(kind, &format!("2 key-officer + 1 {role}"), &expected);
        }
    }
}

#[test]
fn what_is_about_keys_needs_a_key_officer() {
    for kind in MotionKind::all() {
        let keys = kind.is_about_keys();
        let expected = if keys { "must be of key officers alone" } else { "allowed" };
        check(kind, "2 policy-officer", expected);
        check(kind, "2 key-officer|policy-officer", expected);
        check(kind, "2 key-officer", "allowed");
        check(kind, "1 key-officer + 1 policy-officer", "allowed");
    }
}

#[test]
fn each_sort_of_motion_has_a_rule() {
    for kind in MotionKind::all() {
        let mut rules = arbitrary::rules();
        rules.0.remove(&kind);
        let error = rules.check(&roster(3, 3, 0), None);
        assert_eq!(error, Err(RuleError::Missing(kind)));
    }
}

#[test]
fn rules_that_the_roster_outgrows_are_refused() {
    let rules = arbitrary::rules();
    expect(rules.check(&roster(3, 3, 0), None), "allowed", "3 and 3");
    let few = "generate-key would take 2 of 2 persons (key-officer)";
    expect(rules.check(&roster(2, 3, 0), None), few, "2 key officers");
    let few = "change-officers would take 2 of 2 persons (policy-officer)";
    expect(rules.check(&roster(3, 2, 0), None), few, "2 policy officers");
}

#[test]
fn the_proposer_does_not_count_to_the_floor() {
    let (kind, roster) = (MotionKind::Thaw, roster(3, 3, 0));
    let floor = |text: &str, proposer: &str| {
        rule(text).check_floor(kind, &roster, Some(&arbitrary::person(proposer)))
    };
    expect(floor("2 policy-officer", "o0"), "allowed", "an operator proposes");
    expect(floor("2 policy-officer", "k0"), "allowed", "a key officer proposes");
    expect(floor("2 policy-officer", "p0"), "2 of 2 persons", "a policy officer proposes");
    expect(floor("5 key-officer|policy-officer", "p0"), "5 of 5 persons", "of both");
    expect(floor("3 key-officer + 1 policy-officer", "k0"), "3 of 2 persons", "a group");
    expect(floor("2 key-officer + 1 policy-officer", "k0"), "allowed", "a group of two left");
}

#[test]
fn the_recovery_group_is_stronger_and_slower() {
    let (day, days) = (86_400, 30 * 86_400);
    check_recovery(5, 3, day, "allowed");
    check_recovery(5, 3, days, "allowed");
    check_recovery(5, 3, day - 1, "the recovery delay is 86399 s");
    check_recovery(5, 3, days + 1, "the recovery delay is 2592001 s");
    check_recovery(5, 2, day, "expected more than the 2 that change-officers takes");
    check_recovery(5, 1, day, "expected more than the 2 that change-officers takes");
    check_recovery(5, 0, day, "expected more than the 2 that change-officers takes");
    // One of the group proposes; of the rest one may be lost.
    check_recovery(5, 4, day, "would take 4 of 4 persons (recovery)");
    check_recovery(4, 3, day, "would take 3 of 3 persons (recovery)");
    check_recovery(0, 3, day, "nobody of the role recovery");
    // Without a rule they have no power: so a group comes and goes.
    assert_eq!(arbitrary::rules().check(&roster(3, 3, 5), None), Ok(()));
}

#[test]
fn recovery_is_stronger_than_every_rule_that_it_stands_in_for() {
    let recovery = RecoveryRule { persons: 4, delay_s: 86_400 };
    for kind in MotionKind::all() {
        let mut rules = arbitrary::rules();
        rules.0.insert(kind, rule("2 key-officer + 2 policy-officer"));
        let found = rules.check(&roster(3, 3, 6), Some(recovery));
        let stands_in = kind.row().recovery;
        let expected = if stands_in { "expected more than the 4" } else { "allowed" };
        expect(found, expected, kind.as_str());
    }
}

#[test]
fn recovery_stands_in_for_officers_rules_and_origin_alone() {
    let kinds: Vec<MotionKind> = MotionKind::all().filter(|kind| kind.row().recovery).collect();
    let expected = [MotionKind::ChangeOfficers, MotionKind::ChangeRules, MotionKind::NewOrigin];
    assert_eq!(kinds, expected);
}

#[test]
fn a_quorum_counts_persons_with_a_vote_each_once() {
    let mut roster = roster(3, 3, 2);
    // Four keys make nobody four persons.
    roster.0.insert(arbitrary::person("k0"), arbitrary::officer(Role::KeyOfficer, &[9, 8, 7, 6]));
    let met = |text: &str, names: &str| {
        let names: Vec<PersonName> = names.split_whitespace().map(arbitrary::person).collect();
        rule(text).is_met(&roster, &names)
    };
    for (text, names, expected) in [
        ("2 key-officer", "k0 k1", true),
        ("2 key-officer", "k0 k1 k2", true),
        ("2 key-officer", "k0 k1 p0 o0 a0 r0", true),
        ("2 key-officer", "", false),
        ("2 key-officer", "k0", false),
        ("2 key-officer", "k0 k0", false),
        ("2 key-officer", "k0 k0 k0 k0", false),
        ("2 key-officer", "k0 p0 p1 p2", false),
        ("2 key-officer", "k0 o0", false),
        ("2 key-officer", "k0 a0", false),
        ("2 key-officer", "k0 r0 r1", false),
        ("2 key-officer", "k0 k9", false),
        ("2 key-officer|policy-officer", "k0 p0", true),
        ("2 key-officer|policy-officer", "p0 p1", true),
        ("2 key-officer|policy-officer", "p0 p0", false),
        ("1 key-officer + 1 policy-officer", "k0 p0", true),
        ("1 key-officer + 1 policy-officer", "k0 k1", false),
        ("1 key-officer + 1 policy-officer", "p0 p1", false),
        ("2 key-officer + 1 policy-officer", "k0 k1 p0", true),
        ("2 key-officer + 1 policy-officer", "k0 p0 p1 p2", false),
        ("2 recovery", "r0 r1", true),
        ("2 recovery", "r0 k0 k1 k2", false),
    ] {
        assert_eq!(met(text, names), expected, "{text}: {names}");
    }
    let everyone = roster.0.keys();
    assert!(!Rule(vec![]).is_met(&roster, everyone), "no rule is no quorum");
}

proptest! {
    // Most rules are not let in.
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// Whatever rule is let in: what meets it is two persons with a vote at least, one of them a key
    /// officer if it is about keys, and more persons never undo it.
    #[test]
    fn a_rule_that_is_let_in_is_never_met_by_one(
        kind in 0..MotionKind::all().count(),
        groups in prop::collection::vec((0_u8..5, 1_u8..4), 0..3),
        present in prop::collection::vec(any::<bool>(), 12),
    ) {
        let kind = MotionKind::all().nth(kind).expect("kind");
        let roles = [Role::KeyOfficer, Role::PolicyOfficer];
        let group = |(persons, bits): (u8, u8)| Group {
            persons,
            roles: (0..2).filter(|bit| bits >> bit & 1 == 1).map(|bit| roles[bit]).collect(),
        };
        let rule = Rule(groups.into_iter().map(group).collect());
        let roster = roster(4, 3, 3);
        if rule.check(kind, &roster).is_err() {
            return Ok(());
        }
        let people: Vec<&PersonName> =
            roster.0.keys().zip(present).filter(|(_, is)| *is).map(|(name, _)| name).collect();
        let of = |role| {
            let has = |name: &&&PersonName| roster.person(name).is_some_and(|o| o.role == role);
            people.iter().filter(has).count()
        };
        if rule.is_met(&roster, people.iter().copied()) {
            prop_assert!(of(Role::KeyOfficer) + of(Role::PolicyOfficer) >= APPROVALS_MIN);
            prop_assert!(!kind.is_about_keys() || of(Role::KeyOfficer) >= 1);
            prop_assert!(rule.is_met(&roster, roster.0.keys()));
        }
        prop_assert!(rule.is_met(&roster, roster.0.keys()), "all of them are enough");
    }
}

#[test]
fn rules_as_people_read_them() {
    for text in
        ["2 key-officer", "1 key-officer + 1 policy-officer", "2 key-officer|policy-officer"]
    {
        assert_eq!(rule(text).to_string(), text);
    }
    let recovery = RecoveryRule { persons: 3, delay_s: 86_400 };
    assert_eq!(recovery.rule().to_string(), "3 recovery");
}
