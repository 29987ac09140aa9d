//! Who has a say, and by which rules: the two things that a motion can change only with the quorum of
//! both what was and what comes.

use std::collections::BTreeSet;

use super::propose::Proposal;
use crate::motion::{Motion, MotionKind};
use crate::officer::{PersonName, Role, Roster};
use crate::rule::{RecoveryRule, Rule, Rules};
use crate::statement::Verb;

/// Roster and rules with their versions.
#[derive(Debug, Clone)]
pub(super) struct Law {
    pub(super) roster: Roster,
    pub(super) officers_version: u64,
    pub(super) rules: Rules,
    pub(super) rules_version: u64,
    pub(super) recovery: Option<RecoveryRule>,
}

impl Default for Law {
    /// Nobody may do anything.
    fn default() -> Self {
        Self {
            roster: Roster::default(),
            officers_version: 0,
            rules: Rules([].into()),
            rules_version: 0,
            recovery: None,
        }
    }
}

impl Law {
    /// What would be the law once `motion` has taken effect, if it changes it.
    pub(super) fn after(&self, motion: &Motion) -> Option<Self> {
        match motion {
            Motion::ChangeOfficers { version, retire, enrol } => {
                let mut roster = self.roster.clone();
                roster.0.retain(|name, _| !retire.contains(name));
                roster.0.extend(enrol.iter().map(|(name, new)| (name.clone(), new.clone())));
                Some(Self { roster, officers_version: *version, ..self.clone() })
            }
            Motion::ChangeRules { version, rules, recovery } => Some(Self {
                rules: rules.clone(),
                rules_version: *version,
                recovery: *recovery,
                ..self.clone()
            }),
            _ => None,
        }
    }

    /// Checks roster and rules, each by itself and against the other.
    pub(super) fn check(&self) -> Result<(), String> {
        self.roster.check().map_err(|error| error.to_string())?;
        self.rules.check(&self.roster, self.recovery).map_err(|error| error.to_string())
    }

    /// The rule for a motion of that kind: the recovery group's if that proposed it.
    pub(super) fn rule(&self, kind: MotionKind, recovery: bool) -> Result<Rule, String> {
        if !recovery {
            let rule = self.rules.rule(kind).cloned();
            return rule.ok_or_else(|| format!("there is no rule for {kind}"));
        }
        match self.recovery {
            Some(rule) if kind.row().recovery => Ok(rule.rule()),
            Some(_) => Err(format!("the recovery group may not carry {kind}")),
            None => Err("there is no recovery group".to_owned()),
        }
    }

    /// The floor with this proposer left out.
    pub(super) fn check_floor(
        &self,
        kind: MotionKind,
        proposer: &PersonName,
        recovery: bool,
    ) -> Result<(), String> {
        let rule = self.rule(kind, recovery)?;
        rule.check_floor(kind, &self.roster, Some(proposer)).map_err(|error| {
            // Of a proposal it is enough that somebody else makes it: an operator, who takes no vote
            // away.
            let hint = match rule.check_floor(kind, &self.roster, None) {
                Ok(()) => format!(
                    ". hint: {proposer}, who proposes, has no vote on it; somebody whose vote it does \
                     not take can, an operator say"
                ),
                Err(_) => String::new(),
            };
            format!("{error}{hint}")
        })
    }

    /// Who said yes and counts: on this roster, with a key that is still theirs and as it was, and
    /// neither the proposer nor the key that proposed.
    pub(super) fn approvers<'a>(&self, proposal: &'a Proposal) -> BTreeSet<&'a PersonName> {
        let counts = |(name, vote): &(&'a PersonName, &'a super::propose::Vote)| {
            vote.verb == Verb::Approve
                && **name != proposal.statement.proposer
                && vote.key.ssh != proposal.key.ssh
                && self.roster.person(name).is_some_and(|officer| officer.keys.contains(&vote.key))
        };
        proposal.votes.iter().filter(counts).map(|(name, _)| name).collect()
    }

    /// Whether everyone who could still say yes would be enough.
    pub(super) fn has_hope(&self, rule: &Rule, proposer: &PersonName, no: &[&PersonName]) -> bool {
        let could = self.roster.0.keys().filter(|name| *name != proposer && !no.contains(name));
        rule.is_met(&self.roster, could)
    }

    /// The roles that count in any rule of `laws` for a motion of that kind.
    pub(super) fn voting_roles(
        laws: &[&Self],
        kind: MotionKind,
        recovery: bool,
    ) -> Result<BTreeSet<Role>, String> {
        let mut roles = BTreeSet::new();
        for law in laws {
            roles.extend(law.rule(kind, recovery)?.roles());
        }
        Ok(roles)
    }
}
