//! Whether a proposal may begin: the only place where a [`Quorum`] is made.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::law::Law;
use super::propose::{Proposal, Status};
use super::time::ClockFault;
use super::{Effect, LedgerState};
use crate::key::{FLAG_REVOKE, KeyId, KeyRole, PublicKey};
use crate::motion::{Motion, MotionKind, Scope};
use crate::name::ZoneName;
use crate::officer::{PersonName, Role};
use crate::permit::Denied;
use crate::rule::Rule;
use crate::statement::{Statement, StatementHash};
use crate::text::time_text;

/// Proof that a statement may begin at the time it was asked for: its persons are enough by the rules
/// in force (and by those that it brings), its window is open, what it rests on is unchanged. Only
/// [`LedgerState::quorum`] makes one.
#[derive(Debug)]
#[must_use = "a quorum that is met is a motion that begins"]
pub struct Quorum {
    statement: StatementHash,
    kind: MotionKind,
    approvers: Vec<PersonName>,
    rule: Rule,
    recovery: bool,
}

impl Quorum {
    /// What may begin.
    pub fn statement(&self) -> StatementHash {
        self.statement
    }

    /// Its sort.
    pub fn kind(&self) -> MotionKind {
        self.kind
    }

    /// Whose approvals count, in the order of their names.
    pub fn approvers(&self) -> &[PersonName] {
        &self.approvers
    }

    /// The rule in force that they meet.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Whether it is the recovery group's.
    pub fn is_recovery(&self) -> bool {
        self.recovery
    }
}

/// Why a statement does not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotYet {
    /// It was never proposed.
    #[error("there is no proposal {}", .0.short())]
    Unknown(StatementHash),
    /// It is over, or began already.
    #[error("it is {0}")]
    Over(Status),
    /// Its proposer may not propose it any more, or not with that key, or not in that role.
    #[error("{0}; it can't begin any more")]
    Proposer(String),
    /// What it rests on is not what it was.
    #[error(
        "what it rests on has changed since it was proposed; it can't begin any more. hint: propose \
         it anew"
    )]
    Changed,
    /// Roster or rules have no room for it.
    #[error("{0}; it can't begin so")]
    Impossible(String),
    /// Its not-after is past.
    #[error("it ended at {}", time_text(*.0))]
    Late(u64),
    /// Persons are missing.
    #[error("it wants {0}")]
    Approvals(String),
    /// Its not-before has not come.
    #[error("it begins at {} at the earliest", time_text(*.0))]
    Early(u64),
    /// The recovery group waits.
    #[error("the recovery group's delay ends at {}", time_text(*.0))]
    Delay(u64),
    /// The clock is not believed.
    #[error(transparent)]
    Clock(#[from] ClockFault),
    /// The floor of time would not rise to where the clock is.
    #[error("{0}")]
    Raise(String),
    /// An officer stopped it.
    #[error("{0}")]
    Frozen(String),
}

impl NotYet {
    /// Whether nothing but a new proposal helps.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Unknown(_) | Self::Over(_) | Self::Proposer(_) | Self::Changed | Self::Late(_)
        )
    }
}

/// What an HSM has still to do for a motion that began.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Make a key.
    Generate {
        /// For which zone.
        zone: ZoneName,
        /// What for.
        role: KeyRole,
    },
    /// Prove a key that was there before.
    Adopt {
        /// For which zone.
        zone: ZoneName,
        /// What for.
        role: KeyRole,
        /// The token, by name.
        token: String,
        /// The key.
        key: KeyId,
    },
    /// Destroy a key on one token. That it is not there is as good.
    Destroy {
        /// The zone.
        zone: ZoneName,
        /// The token, by name.
        token: String,
        /// The label of its objects.
        label: String,
        /// The key.
        key: KeyId,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generate { zone, role } => write!(f, "a {role} to be made for {zone}"),
            Self::Adopt { zone, role, token, key } => {
                write!(f, "key {key} on token `{token}` to be adopted as a {role} of {zone}")
            }
            Self::Destroy { zone, token, key, .. } => {
                write!(f, "key {key} of {zone} to be destroyed on token `{token}`")
            }
        }
    }
}

/// A motion that began and has steps left.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) hash: StatementHash,
    pub(super) statement: Arc<Statement>,
    pub(super) steps: Vec<Step>,
    /// Some steps were given up: it will not have been done.
    pub(super) is_cut: bool,
}

impl LedgerState {
    /// Whether the statement may begin now, and by whom: everything that a `Begun` line at `now_s`
    /// must satisfy but the keys that it reveals.
    pub fn quorum(&self, hash: &StatementHash, now_s: u64) -> Result<Quorum, NotYet> {
        let status = self.status(hash).ok_or(NotYet::Unknown(*hash))?;
        if status != Status::Open {
            return Err(NotYet::Over(status));
        }
        let proposal = self.proposal(hash).ok_or(NotYet::Unknown(*hash))?;
        let statement = &*proposal.statement;
        let kind = statement.motion.kind();
        self.check_proposer(proposal)?;
        let now = match statement.motion {
            // Approvals are judged at the time that they name.
            Motion::RaiseTimeFloor { to } => to,
            _ => now_s,
        };
        if now.max(self.time_floor()) > statement.not_after {
            return Err(NotYet::Late(statement.not_after));
        }
        if self.dependencies(&statement.motion) != statement.depends {
            return Err(NotYet::Changed);
        }
        // Persons first: what is possible can take a look at every zone.
        let (approvers, rule) = self.check_approvals(proposal)?;
        self.is_possible(statement, now_s).map_err(NotYet::Impossible)?;
        if now < statement.not_before {
            return Err(NotYet::Early(statement.not_before));
        }
        // A clock that is not believed opens no window that was planned for later. One that was open at
        // the proposal is: after a long outage things go on.
        let reached = self.time.ceiling().max(proposal.at);
        if kind != MotionKind::RaiseTimeFloor && statement.not_before > reached {
            self.clock(now_s)?;
        }
        self.check_delay(proposal, now_s)?;
        self.check_held(&statement.motion, now_s)?;
        let approvers = approvers.into_iter().cloned().collect();
        Ok(Quorum { statement: *hash, kind, approvers, rule, recovery: proposal.recovery })
    }

    /// The proposer must be one still, with the key that signed: what a retired person or a lost key
    /// has put on the table is void, and no key counts for two.
    fn check_proposer(&self, proposal: &Proposal) -> Result<(), NotYet> {
        let Statement { proposer, motion, .. } = &*proposal.statement;
        let recovery = self.may_propose(proposer, motion.kind()).map_err(NotYet::Proposer)?;
        let person = self.roster().person(proposer);
        if !person.is_some_and(|person| person.keys.contains(&proposal.key)) {
            return Err(NotYet::Proposer(format!(
                "the key that proposed it is no more {proposer}'s"
            )));
        }
        if recovery != proposal.recovery {
            return Err(NotYet::Proposer(format!("{proposer} has another role now")));
        }
        Ok(())
    }

    /// The rule in force, and for a change of officers or rules the one that comes: both with their
    /// floors, each by its own roster.
    fn check_approvals<'a>(
        &self,
        proposal: &'a Proposal,
    ) -> Result<(BTreeSet<&'a PersonName>, Rule), NotYet> {
        let Statement { proposer, motion, .. } = &*proposal.statement;
        let (kind, recovery) = (motion.kind(), proposal.recovery);
        let now = self.law.rule(kind, recovery).map_err(NotYet::Impossible)?;
        self.law.check_floor(kind, proposer, recovery).map_err(NotYet::Impossible)?;
        let approvers = self.law.approvers(proposal);
        enough(&self.law, &now, &approvers, "")?;
        if let Some(after) = self.law.after(motion) {
            let rule = after.rule(kind, recovery).map_err(NotYet::Impossible)?;
            after.check_floor(kind, proposer, recovery).map_err(NotYet::Impossible)?;
            let by = " by the officers and rules that it brings";
            enough(&after, &rule, &after.approvers(proposal), by)?;
        }
        Ok((approvers, now))
    }

    /// What the recovery group begins waits, so that those who can still act see it coming: the
    /// officers' own change of officers makes it void.
    fn check_delay(&self, proposal: &Proposal, now_s: u64) -> Result<(), NotYet> {
        let Some(rule) = self.law.recovery.filter(|_| proposal.recovery) else { return Ok(()) };
        let until = proposal.at.saturating_add(rule.delay_s);
        if now_s < until { Err(NotYet::Delay(until)) } else { Ok(()) }
    }

    /// What touches a KSK or the parent is held by a clock that is not believed and by a freeze; so is
    /// a thaw, by the clock. The floor of time is raised by a quorum whatever the freeze, since it
    /// uses no KSK. Officers, rules, policies, bindings, tokens, moves and origins go on.
    fn check_held(&self, motion: &Motion, now_s: u64) -> Result<(), NotYet> {
        if let Motion::RaiseTimeFloor { to } = motion {
            return self.time.check_raise(*to, now_s).map_err(NotYet::Raise);
        }
        if matches!(motion, Motion::Thaw { .. }) {
            return Ok(self.clock(now_s)?);
        }
        if !motion.kind().touches_ksk() {
            return Ok(());
        }
        self.clock(now_s)?;
        let frozen = motion.zones().into_iter().find_map(|zone| self.freeze_of(zone));
        frozen.map_or(Ok(()), |freeze| Err(NotYet::Frozen(freeze.to_string())))
    }

    /// The keys whose public half the motion publishes and that nobody has seen: `Begun` reveals
    /// exactly these. (What a motion makes and activates is told by its result.)
    pub fn reveals(&self, motion: &Motion) -> BTreeSet<KeyId> {
        let hidden = |id: &&KeyId| self.keys().get(*id).is_some_and(|key| key.public.is_none());
        match motion {
            Motion::ActivateKey { key, .. } => {
                Some(key).filter(hidden).copied().into_iter().collect()
            }
            Motion::SignDnskeySet { keys, .. } => keys.iter().filter(hidden).copied().collect(),
            _ => BTreeSet::new(),
        }
    }

    pub(super) fn judge_begun(
        &self,
        at: u64,
        hash: StatementHash,
        reveals: &[PublicKey],
    ) -> Result<Effect, String> {
        let quorum = self
            .quorum(&hash, at)
            .map_err(|not_yet| format!("proposal {} does not begin: {not_yet}", hash.short()))?;
        let motion = &self.open_proposal(&hash)?.statement.motion;
        let revealed: BTreeMap<KeyId, PublicKey> =
            reveals.iter().map(|public| (public.id(), public.clone())).collect();
        let expected = self.reveals(motion);
        if revealed.len() != reveals.len() || !revealed.keys().eq(&expected) {
            let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
            return Err(format!(
                "it reveals {} keys; expected exactly: {}",
                reveals.len(),
                if expected.is_empty() { "none".to_owned() } else { expected.join(", ") }
            ));
        }
        for (id, public) in &revealed {
            let told = |key: &super::KeyRecord| {
                let tag = |flags| public.tag(key.role.flags() | flags);
                public.algorithm() == key.algorithm
                    && [tag(0), tag(FLAG_REVOKE)] == [key.tag, key.revoked_tag]
            };
            if !self.keys().get(id).is_some_and(told) {
                return Err(format!("key {id} has another algorithm or tag than its making told"));
            }
        }
        Ok(Effect::Begun(quorum, revealed))
    }

    /// Whether `step` is one that the motion begun at line `under` has left, and its finish-by is not
    /// past.
    pub(crate) fn is_step(&self, step: &Step, under: u64, now_s: u64) -> Result<(), Denied> {
        let running = self.running.get(&under).filter(|running| running.steps.contains(step));
        let Some(running) = running else {
            return Err(Denied::Forbidden(format!("no quorum wants {step} under line {under}")));
        };
        let finish_by = running.statement.finish_by;
        if now_s.max(self.time_floor()) > finish_by {
            return Err(Denied::Forbidden(format!(
                "what began at line {under} was to be finished by {}; propose it anew",
                time_text(finish_by)
            )));
        }
        Ok(())
    }

    /// The line of the motion that has this step left.
    pub(crate) fn line_of(&self, step: &Step, now_s: u64) -> Option<u64> {
        let lines = self.running.iter().filter(|(_, running)| running.steps.contains(step));
        lines.map(|(line, _)| *line).find(|line| self.is_step(step, *line, now_s).is_ok())
    }

    pub(super) fn judge_lapsed(&self, begun: u64) -> Result<Effect, String> {
        if !self.running.contains_key(&begun) {
            return Err(format!("line {begun} is not a motion that has steps left"));
        }
        match self.open_under(begun) {
            Some(intent) => Err(format!("the intent of line {intent} has no result yet")),
            None => Ok(Effect::Lapsed(begun)),
        }
    }
}

/// Whether these persons meet the rule; else who is missing, in words.
fn enough(law: &Law, rule: &Rule, persons: &BTreeSet<&PersonName>, by: &str) -> Result<(), NotYet> {
    if rule.is_met(&law.roster, persons.iter().copied()) {
        return Ok(());
    }
    let has_role = |name: &&&PersonName, roles: &BTreeSet<Role>| {
        law.roster.person(name).is_some_and(|person| roles.contains(&person.role))
    };
    let mut missing = Vec::new();
    for group in &rule.0 {
        let have: Vec<&str> = persons
            .iter()
            .filter(|name| has_role(name, &group.roles))
            .map(|name| name.as_str())
            .collect();
        let wanted = usize::from(group.persons).saturating_sub(have.len());
        if wanted > 0 {
            let roles: Vec<&str> = group.roles.iter().map(|role| role.as_str()).collect();
            let have = if have.is_empty() { "nobody".to_owned() } else { have.join(", ") };
            missing.push(format!("{wanted} more of {} (so far {have})", roles.join(" or ")));
        }
    }
    Err(NotYet::Approvals(format!("{}{by}", missing.join(" and "))))
}

impl MotionKind {
    /// Whether it uses a KSK or speaks to the parent: then a freeze holds it, and a clock that is not
    /// believed.
    pub const fn touches_ksk(self) -> bool {
        self.is_about_keys() && !matches!(self, Self::AttachToken | Self::MoveAppliance)
    }
}

impl Motion {
    /// The zones that it is about.
    pub fn zones(&self) -> Vec<&ZoneName> {
        match self {
            Self::BindZone { zones, .. }
            | Self::UnbindZone { zones }
            | Self::GenerateKey { zones, .. } => zones.iter().collect(),
            Self::AdoptKey { zone, .. }
            | Self::ActivateKey { zone, .. }
            | Self::RetireKey { zone, .. }
            | Self::DestroyKey { zone, .. }
            | Self::SignDnskeySet { zone, .. }
            | Self::ExportDs { zone, .. }
            | Self::PublishCds { zone, .. }
            | Self::DeleteDs { zone }
            | Self::Thaw { scope: Scope::Zone(zone) } => vec![zone],
            Self::ChangeOfficers { .. }
            | Self::ChangeRules { .. }
            | Self::SetPolicy { .. }
            | Self::AttachToken { .. }
            | Self::MoveAppliance { .. }
            | Self::ReplaceAuditKey { .. }
            | Self::RaiseTimeFloor { .. }
            | Self::Thaw { scope: Scope::All }
            | Self::NewOrigin { .. } => Vec::new(),
        }
    }
}
