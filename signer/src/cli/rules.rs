//! Quorum rules as people write them: `2 key-officer`, `1 key-officer + 1 policy-officer`,
//! `2 key-officer|policy-officer`; by the name of a sort of motion, or by `keys` (all that touch a KSK
//! or the parent) and `rest`.

use std::collections::BTreeMap;

use countersign_policy::motion::MotionKind;
use countersign_policy::officer::Role;
use countersign_policy::rule::{Group, RecoveryRule, Rule, Rules};

/// What `default` means: two key officers for keys, so that what touches a KSK or the parent is theirs
/// alone.
pub(super) const KEYS_DEFAULT: &str = "2 key-officer";
/// And for the rest two of those who have a vote, so that three key officers suffice to begin with.
pub(super) const REST_DEFAULT: &str = "2 key-officer|policy-officer";

/// Reads one rule.
pub(super) fn rule(text: &str) -> Result<Rule, String> {
    let wrong = || {
        format!(
            "{text:?} is no rule: expected persons and roles, as `2 key-officer` or `1 key-officer + \
             1 policy-officer` or `2 key-officer|policy-officer`"
        )
    };
    let mut groups = Vec::new();
    for group in text.split('+') {
        let (persons, roles) = group.trim().split_once(' ').ok_or_else(wrong)?;
        let persons = persons.parse().map_err(|_| wrong())?;
        let roles = roles.split('|').map(|role| role.trim().parse::<Role>());
        groups.push(Group { persons, roles: roles.collect::<Result<_, _>>()? });
    }
    // There is one order, that of the roles.
    groups.sort_by(|a, b| a.roles.cmp(&b.roles));
    Ok(Rule(groups))
}

/// Reads `persons after seconds`.
pub(super) fn recovery(text: &str) -> Result<RecoveryRule, String> {
    let parts = text.split_once(" after ").and_then(|(persons, delay)| {
        Some(RecoveryRule { persons: persons.parse().ok()?, delay_s: delay.parse().ok()? })
    });
    parts.ok_or_else(|| {
        format!(
            "{text:?} is no rule of recovery: expected persons and seconds, as `3 after 172800`"
        )
    })
}

/// Which rules a person may name: `keys`, `rest`, or one sort of motion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Which {
    Keys,
    Rest,
    One(MotionKind),
}

impl std::str::FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "keys" => Ok(Self::Keys),
            "rest" => Ok(Self::Rest),
            kind => kind.parse().map(Self::One).map_err(|problem: String| {
                format!("{problem}; expected `keys`, `rest`, or one of them")
            }),
        }
    }
}

/// Changes `rules`: those for `keys` and `rest` first, so that one sort by its own name wins.
pub(super) fn change(rules: &mut Rules, changes: &BTreeMap<Which, Rule>) {
    for (which, rule) in changes {
        match which {
            Which::One(kind) => {
                rules.0.insert(*kind, rule.clone());
            }
            Which::Keys | Which::Rest => {
                let about_keys = *which == Which::Keys;
                let kinds = MotionKind::all().filter(|kind| kind.is_about_keys() == about_keys);
                rules.0.extend(kinds.map(|kind| (kind, rule.clone())));
            }
        }
    }
}

/// The rules that a founding begins with, unless its draft says otherwise.
pub(super) fn default_rules() -> Result<Rules, String> {
    let mut rules = Rules(BTreeMap::new());
    let changes = [(Which::Keys, rule(KEYS_DEFAULT)?), (Which::Rest, rule(REST_DEFAULT)?)];
    change(&mut rules, &changes.into());
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_as_it_is_shown() {
        for text in [KEYS_DEFAULT, REST_DEFAULT, "1 key-officer + 1 policy-officer"] {
            assert_eq!(rule(text).expect(text).to_string(), text);
        }
        let turned = rule("1 policy-officer+2  key-officer").expect("a rule");
        assert_eq!(turned.to_string(), "2 key-officer + 1 policy-officer");
        for text in
            ["", "key-officer", "2 king", "two key-officer", "2 key-officer +", "300 auditor"]
        {
            assert!(rule(text).is_err(), "{text:?} is taken");
        }
        assert_eq!(recovery("3 after 172800").map(|rule| rule.delay_s), Ok(172_800));
        assert!(recovery("3").is_err());
    }

    #[test]
    fn every_sort_has_a_default_and_its_own_name_wins() {
        let mut rules = default_rules().expect("defaults");
        assert_eq!(rules.0.len(), MotionKind::all().count());
        let own = rule("3 key-officer").expect("a rule");
        let keys = rule("2 key-officer + 1 policy-officer").expect("a rule");
        let which = |text: &str| text.parse::<Which>().expect(text);
        change(
            &mut rules,
            &[(which("keys"), keys.clone()), (which("export-ds"), own.clone())].into(),
        );
        assert_eq!(rules.rule(MotionKind::ExportDs), Some(&own));
        assert_eq!(rules.rule(MotionKind::GenerateKey), Some(&keys));
        assert_eq!(
            rules.rule(MotionKind::Thaw).map(ToString::to_string).as_deref(),
            Some(REST_DEFAULT)
        );
        assert!("nothing".parse::<Which>().is_err());
    }
}
