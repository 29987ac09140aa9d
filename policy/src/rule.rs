//! Quorum rules: how many persons of which roles carry a motion of each sort, and the floor that is
//! compiled in.
//!
//! A rule is one or more AND-ed groups ("2 of key-officer", "1 of key-officer and 1 of
//! policy-officer"); no role is in two groups of one rule, so each person counts in one. Of the rule
//! as a whole, m ≥ 2 and m < n, where n is the eligible persons without the proposer: one person
//! alone is never enough, and the loss of one never too much.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::motion::MotionKind;
use crate::officer::{PersonName, Role, Roster};

#[cfg(test)]
mod tests;

/// The floor: below it one person decides.
pub const APPROVALS_MIN: usize = 2;
/// A recovery waits at least a day, so that somebody notices, and at most a month.
pub const RECOVERY_DELAY_S: std::ops::RangeInclusive<u64> = 86_400..=30 * 86_400;

/// So many persons of these roles.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// How many.
    pub persons: u8,
    /// Of which roles.
    pub roles: BTreeSet<Role>,
}

/// The groups that a motion needs, all of them. In the order of their roles.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule(pub Vec<Group>);

/// One rule for each sort of motion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules(pub BTreeMap<MotionKind, Rule>);

/// What the recovery group may do, and how: so many of its persons, after a delay. In it the officers
/// who are left see it coming, and their own change of officers or rules makes it void. A freeze does
/// not hold it: one officer who stays behind, or the thief of one key, could block it for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryRule {
    /// How many of the group, the proposer not counted. More than any rule that it stands in for.
    pub persons: u8,
    /// From the proposal's line to its beginning, at least.
    pub delay_s: u64,
}

/// Rules that can't be, with this roster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Each sort of motion needs a rule.
    #[error("there is no rule for {0}")]
    Missing(MotionKind),
    /// A group of nobody.
    #[error("the rule for {0} has an empty group")]
    EmptyGroup(MotionKind),
    /// Two groups that one person would count in.
    #[error("the rule for {0} has {1} in two groups; a person counts in one")]
    Overlap(MotionKind, Role),
    /// A rule that is written in another order than the one there is.
    #[error("the rule for {0} does not name its groups in the order of their roles")]
    Order(MotionKind),
    /// A role that has no vote.
    #[error("the rule for {kind} names {role}, which has no vote on it; expected {expected}")]
    NoVote {
        /// The sort.
        kind: MotionKind,
        /// The role.
        role: Role,
        /// Who has.
        expected: String,
    },
    /// About keys, and no key officer needs to agree.
    #[error("{0} is about keys: one of its groups must be of key officers alone")]
    NoKeyOfficer(MotionKind),
    /// m < 2.
    #[error("{kind} would take {needed} persons; expected at least {APPROVALS_MIN}")]
    BelowFloor {
        /// The sort.
        kind: MotionKind,
        /// m.
        needed: usize,
    },
    /// m ≥ n, or a group that can't be met.
    #[error(
        "{kind} would take {needed} of {eligible} persons ({who}); expected more persons than it \
         takes, so that the loss of one stops nothing"
    )]
    TooFew {
        /// The sort.
        kind: MotionKind,
        /// m.
        needed: usize,
        /// n.
        eligible: usize,
        /// The roles that are counted.
        who: String,
    },
    /// The recovery group is not stronger than what it stands in for.
    #[error(
        "the recovery group would take {needed} persons; expected more than the {ordinary} that \
         {kind} takes ordinarily"
    )]
    WeakRecovery {
        /// The sort.
        kind: MotionKind,
        /// Its m.
        needed: usize,
        /// The ordinary m.
        ordinary: usize,
    },
    /// A rule for recovery without a group. (A group without a rule is powerless: that is how one comes
    /// and goes, the persons by a change of officers and the rule by a change of rules.)
    #[error(
        "there is a recovery rule and nobody of the role recovery. hint: enrol them first; to end it, \
         take the rule away first"
    )]
    NobodyToRecover,
    /// Too short or too long.
    #[error("the recovery delay is {0} s; expected a day to 30 days")]
    RecoveryDelay(u64),
}

impl Rule {
    /// m: how many persons it takes.
    pub fn persons(&self) -> usize {
        self.0.iter().map(|group| usize::from(group.persons)).sum()
    }

    /// The roles that have a vote.
    pub fn roles(&self) -> BTreeSet<Role> {
        self.0.iter().flat_map(|group| group.roles.iter().copied()).collect()
    }

    /// Whether these persons, all of them distinct and on the roster, are enough.
    pub fn is_met<'a>(
        &self,
        roster: &Roster,
        persons: impl IntoIterator<Item = &'a PersonName>,
    ) -> bool {
        let roles: Vec<Role> = persons
            .into_iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .filter_map(|name| roster.person(name).map(|officer| officer.role))
            .collect();
        !self.0.is_empty()
            && self.0.iter().all(|group| {
                let of_group = roles.iter().filter(|role| group.roles.contains(role)).count();
                of_group >= usize::from(group.persons)
            })
    }

    fn check(&self, kind: MotionKind, roster: &Roster) -> Result<(), RuleError> {
        let row = kind.row();
        let mut seen = BTreeSet::new();
        for group in &self.0 {
            if group.persons == 0 || group.roles.is_empty() {
                return Err(RuleError::EmptyGroup(kind));
            }
            for role in &group.roles {
                if !row.approves.contains(role) {
                    let expected: Vec<&str> = row.approves.iter().map(|r| r.as_str()).collect();
                    let expected = expected.join(", ");
                    return Err(RuleError::NoVote { kind, role: *role, expected });
                }
                if !seen.insert(*role) {
                    return Err(RuleError::Overlap(kind, *role));
                }
            }
        }
        if !self.0.is_sorted_by_key(|group| &group.roles) {
            return Err(RuleError::Order(kind));
        }
        let keys_alone = |group: &Group| group.roles.iter().eq([&Role::KeyOfficer]);
        if kind.is_about_keys() && !self.0.iter().any(keys_alone) {
            return Err(RuleError::NoKeyOfficer(kind));
        }
        self.check_floor(kind, roster, None)
    }

    /// The floor, with this proposer: m ≥ 2, and m < n both as a whole and, with ≤, in each group.
    pub fn check_floor(
        &self,
        kind: MotionKind,
        roster: &Roster,
        proposer: Option<&PersonName>,
    ) -> Result<(), RuleError> {
        let needed = self.persons();
        if needed < APPROVALS_MIN {
            return Err(RuleError::BelowFloor { kind, needed });
        }
        let too_few = |needed: usize, roles: &BTreeSet<Role>| {
            let who: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
            let eligible = roster.count(roles, proposer);
            RuleError::TooFew { kind, needed, eligible, who: who.join(", ") }
        };
        if needed >= roster.count(&self.roles(), proposer) {
            return Err(too_few(needed, &self.roles()));
        }
        for group in &self.0 {
            if usize::from(group.persons) > roster.count(&group.roles, proposer) {
                return Err(too_few(usize::from(group.persons), &group.roles));
            }
        }
        Ok(())
    }
}

impl Rules {
    /// The rule for a sort of motion.
    pub fn rule(&self, kind: MotionKind) -> Option<&Rule> {
        self.0.get(&kind)
    }

    /// Checks all of them against the table, the floor, and this roster.
    pub fn check(&self, roster: &Roster, recovery: Option<RecoveryRule>) -> Result<(), RuleError> {
        for kind in MotionKind::all() {
            let rule = self.rule(kind).ok_or(RuleError::Missing(kind))?;
            rule.check(kind, roster)?;
        }
        let group = roster.count(&[Role::Recovery].into(), None);
        let Some(recovery) = recovery else {
            return Ok(());
        };
        if group == 0 {
            return Err(RuleError::NobodyToRecover);
        }
        if !RECOVERY_DELAY_S.contains(&recovery.delay_s) {
            return Err(RuleError::RecoveryDelay(recovery.delay_s));
        }
        let needed = usize::from(recovery.persons);
        for kind in MotionKind::all().filter(|kind| kind.row().recovery) {
            let ordinary = self.rule(kind).map_or(0, Rule::persons);
            if needed <= ordinary {
                return Err(RuleError::WeakRecovery { kind, needed, ordinary });
            }
        }
        // One of the group proposes and does not count.
        recovery.rule().check_group(group.saturating_sub(1))
    }
}

impl RecoveryRule {
    /// As an ordinary rule.
    pub fn rule(self) -> Rule {
        Rule(vec![Group { persons: self.persons, roles: [Role::Recovery].into() }])
    }
}

impl Rule {
    fn check_group(&self, eligible: usize) -> Result<(), RuleError> {
        let (kind, needed) = (MotionKind::ChangeOfficers, self.persons());
        if needed >= eligible {
            let who = Role::Recovery.to_string();
            return Err(RuleError::TooFew { kind, needed, eligible, who });
        }
        Ok(())
    }
}

/// `2 key-officer`, `1 key-officer + 1 policy-officer`, `2 key-officer|policy-officer`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, group) in self.0.iter().enumerate() {
            let roles: Vec<&str> = group.roles.iter().map(|role| role.as_str()).collect();
            let join = if at == 0 { "" } else { " + " };
            write!(f, "{join}{} {}", group.persons, roles.join("|"))?;
        }
        Ok(())
    }
}
