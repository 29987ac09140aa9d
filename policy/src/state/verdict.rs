//! Officers' words: an approval or a denial is a signature over its own text, which is made again here
//! from the line and the proposal.

use super::law::Law;
use super::propose::{Proposal, Vote};
use super::{Effect, LedgerState};
use crate::officer::PersonName;
use crate::ssh::{Namespace, Signature};
use crate::statement::{Statement, StatementHash, Verb, Verdict};
use crate::text::time_text;
use crate::tree::TreeHead;

impl LedgerState {
    pub(super) fn judge_verdict(
        &self,
        at: u64,
        hash: StatementHash,
        (verb, officer, checkpoint): (Verb, &PersonName, &TreeHead),
        signature: &Signature,
    ) -> Result<Effect, String> {
        self.takes_verdict(&hash, verb, officer, checkpoint, at)?;
        let proposal = self.open_proposal(&hash)?;
        let statement = &*proposal.statement;
        let verdict = Verdict {
            verb,
            officer: officer.clone(),
            checkpoint: *checkpoint,
            statement: statement.clone(),
        };
        let namespace = match verb {
            Verb::Approve => Namespace::Approve,
            Verb::Deny => Namespace::Deny,
        };
        let text = verdict.to_text();
        let key = Self::signed_by(self.roster(), officer, namespace, &text, signature)?;
        let hopeless = verb == Verb::Deny && !self.has_hope_without(proposal, officer);
        let vote = Vote { verb, key, line: self.next_seq() };
        Ok(Effect::Voted { statement: hash, officer: officer.clone(), vote, hopeless })
    }

    /// Whether an officer's word could be taken now: all that is judged of it but the signature, for who
    /// is about to sign it.
    pub fn takes_verdict(
        &self,
        hash: &StatementHash,
        verb: Verb,
        officer: &PersonName,
        checkpoint: &TreeHead,
        at: u64,
    ) -> Result<(), String> {
        let proposal = self.open_proposal(hash)?;
        let statement = &*proposal.statement;
        self.may_vote(proposal, officer)?;
        self.is_prefix(checkpoint)?;
        if checkpoint.size <= proposal.line {
            return Err(format!(
                "its checkpoint has {} lines, and the proposal is line {}: {officer} has not seen the \
                 ledger with the proposal in it",
                checkpoint.size, proposal.line
            ));
        }
        if at.max(self.time_floor()) > statement.not_after {
            return Err(format!("the proposal ended at {}", time_text(statement.not_after)));
        }
        self.is_news(proposal, officer, verb)
    }

    /// Whether the person's role has a vote on it, by the rules in force or by those that the motion
    /// would bring; the proposer's never has.
    fn may_vote(&self, proposal: &Proposal, officer: &PersonName) -> Result<(), String> {
        let Statement { proposer, motion, .. } = &*proposal.statement;
        if officer == proposer {
            return Err(format!("{officer} proposed it and has no vote on it"));
        }
        let Some(person) = self.roster().person(officer) else {
            return Err(format!("{officer} is not on the roster"));
        };
        let after = self.law.after(motion);
        let laws: Vec<&Law> = std::iter::once(&self.law).chain(&after).collect();
        let kind = motion.kind();
        let roles = Law::voting_roles(&laws, kind, proposal.recovery)?;
        if !roles.contains(&person.role) {
            let roles: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
            return Err(format!(
                "{officer} is of the role {} and has no vote on {kind}; expected one of {}",
                person.role,
                roles.join(", ")
            ));
        }
        Ok(())
    }

    /// A denial stands. An approval is given once, unless its key is the officer's no longer.
    fn is_news(&self, proposal: &Proposal, officer: &PersonName, verb: Verb) -> Result<(), String> {
        let Some(vote) = proposal.votes.get(officer) else { return Ok(()) };
        let person = self.roster().person(officer);
        let counts = person.is_some_and(|person| person.keys.contains(&vote.key));
        match (vote.verb, verb) {
            (Verb::Deny, _) => {
                Err(format!("{officer} denied it at line {}; that stands", vote.line))
            }
            (Verb::Approve, Verb::Approve) if counts => {
                Err(format!("{officer} approved it at line {} already", vote.line))
            }
            (Verb::Approve, _) => Ok(()),
        }
    }

    /// Whether those who have not denied it, `officer` not counted, could still carry it.
    fn has_hope_without(&self, proposal: &Proposal, officer: &PersonName) -> bool {
        let statement = &proposal.statement;
        let denied = proposal.votes.iter().filter(|(_, vote)| vote.verb == Verb::Deny);
        let no: Vec<&PersonName> = denied.map(|(name, _)| name).chain([officer]).collect();
        let rule = self.law.rule(statement.motion.kind(), proposal.recovery);
        rule.is_ok_and(|rule| self.law.has_hope(&rule, &statement.proposer, &no))
    }
}
