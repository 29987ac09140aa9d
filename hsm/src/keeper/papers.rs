//! What the group hands in and takes out: texts for the ledger, each judged by its signature alone;
//! checkpoints; surveys; and DS records that a motion approved.
//!
//! A flood costs the one who sends it: one request of a connection at a time, four connections a user
//! ([`super::server`]), so many texts a user and minute here, and each is judged before the ledger is
//! held. A freeze is never counted: it must get through.

use std::collections::{BTreeMap, BTreeSet};

use countersign_policy::checkpoint::{self, AuditKey};
use countersign_policy::key::to_hex;
use countersign_policy::motion::MotionKind;
use countersign_policy::statement::{Freeze, Statement, Verdict, Withdrawal};
use countersign_policy::{PublicKey, ZoneName};

use super::door::Hsm;
use super::holding::Elsewhere;
use super::seal::Idle;
use super::service::{Service, judged, refusal, refuse};
use super::{reader, survey};
use crate::ledger::Signed;
use crate::pkcs11::{FoundObject, HsmError};
use crate::protocol::{
    DsExport, LedgerRequest, LedgerResponse, Mode, Refusal, RefusalKind, Submission, Survey,
};

/// Texts, surveys and checkpoints of one user in a minute: a ceremony takes a dozen.
const ASKED_A_MINUTE_MAX: u32 = 120;
/// What a survey counts for: it lists whole tokens.
const SURVEY_COUNTS: u32 = 20;
/// Times that the DS records of a zone are handed out in an hour: each is a line.
pub const EXPORTS_AN_HOUR_MAX: u32 = 30;
/// Users that are remembered; beyond that the minute starts anew for all.
const USERS_MAX: usize = 1_024;
const MINUTE_S: u64 = 60;

/// What each user asked for within a minute of the keeper's clock.
#[derive(Debug, Default)]
pub struct Asked {
    minute: u64,
    by_user: BTreeMap<u32, u32>,
}

impl Asked {
    /// Counts so much more, unless that would be too much.
    fn take(&mut self, user: u32, count: u32, now_s: u64) -> bool {
        let minute = now_s / MINUTE_S;
        if self.minute != minute || self.by_user.len() >= USERS_MAX {
            *self = Self { minute, by_user: BTreeMap::new() };
        }
        let asked = self.by_user.entry(user).or_default();
        let fits = asked.saturating_add(count) <= ASKED_A_MINUTE_MAX;
        if fits {
            *asked += count;
        }
        fits
    }
}

impl<H: Hsm> Service<H> {
    /// Answers a user of the group.
    pub(super) fn answer_user(
        &self,
        request: LedgerRequest,
        user: u32,
    ) -> Result<LedgerResponse, Refusal> {
        match request {
            LedgerRequest::Hello { protocol } => {
                let instance = self.seals().holding().own();
                let mode = match self.seals().idle(self.ledger()) {
                    None => Mode::Founded,
                    Some(Idle::Behind(why)) => Mode::Behind(why),
                    Some(Idle::Elsewhere(Elsewhere { why, .. })) => {
                        Mode::Elsewhere { instance, why }
                    }
                };
                reader::hello(protocol, mode)
            }
            LedgerRequest::Head => Ok(reader::head(self.ledger())),
            LedgerRequest::Read { from, skip, max } => reader::read(self.ledger(), from, skip, max),
            LedgerRequest::Found { .. } => refuse(
                RefusalKind::Forbidden,
                "this appliance is founded; nothing founds it anew".to_owned(),
            ),
            LedgerRequest::Submit(submission) => {
                if !matches!(submission, Submission::Freeze { .. }) {
                    self.count_asked(user, 1)?;
                }
                let line = self.submit(submission)?;
                self.wake();
                Ok(LedgerResponse::Submitted { line })
            }
            LedgerRequest::Survey => {
                self.count_asked(user, SURVEY_COUNTS)?;
                self.survey().map(LedgerResponse::Survey)
            }
            LedgerRequest::Checkpoint => {
                self.count_asked(user, 1)?;
                match self.seals().checkpoint(self.ledger(), self.hsm()) {
                    Ok(note) => Ok(LedgerResponse::Checkpoint { note }),
                    Err(problem) => refuse(RefusalKind::HsmUnavailable, problem),
                }
            }
            LedgerRequest::ExportDs { zone } => {
                self.count_asked(user, 1)?;
                self.export_ds(&zone).map(LedgerResponse::Ds)
            }
        }
    }

    fn count_asked(&self, user: u32, count: u32) -> Result<(), Refusal> {
        if self.asked().take(user, count, self.now()) {
            return Ok(());
        }
        refuse(
            RefusalKind::Busy,
            format!(
                "uid {user} has asked {ASKED_A_MINUTE_MAX} times in this minute; ask in the next"
            ),
        )
    }

    /// Puts a signed text into the ledger, if it holds.
    fn submit(&self, submission: Submission) -> Result<u64, Refusal> {
        let signed = self.read_paper(submission)?;
        self.ledger().submit(signed, self.now()).map_err(judged)
    }

    /// The line that a text would be.
    fn read_paper(&self, submission: Submission) -> Result<Signed, Refusal> {
        let malformed = |what: &str, error: &dyn std::fmt::Display| Refusal {
            kind: RefusalKind::Malformed,
            detail: format!("not a {what}: {error}"),
        };
        match submission {
            Submission::Propose { text, signature } => {
                let statement = Statement::parse(&text).map_err(|e| malformed("statement", &e))?;
                self.check_takes(statement.motion.kind())?;
                Ok(Signed::proposed(text, signature))
            }
            Submission::Verdict { text, signature } => {
                let verdict = Verdict::parse(&text).map_err(|e| malformed("verdict", &e))?;
                self.check_takes(verdict.statement.motion.kind())?;
                let Verdict { verb, officer, checkpoint, statement } = verdict;
                let statement = statement.hash();
                Ok(Signed::verdict(statement, verb, officer, checkpoint, signature))
            }
            Submission::Withdraw { text, signature } => {
                let withdrawal =
                    Withdrawal::parse(&text).map_err(|e| malformed("withdrawal", &e))?;
                self.check_withdrawal(&withdrawal)?;
                Ok(Signed::withdrawn(withdrawal.statement, signature))
            }
            Submission::Freeze { text, signature } => {
                Freeze::parse(&text).map_err(|e| malformed("freeze", &e))?;
                Ok(Signed::frozen(text, signature))
            }
        }
    }

    /// A keeper that uses no key takes nothing but the way out.
    fn check_takes(&self, kind: MotionKind) -> Result<(), Refusal> {
        match self.seals().idle(self.ledger()).filter(|idle| !idle.takes(kind)) {
            Some(idle) => Err(refusal(&idle)),
            None => Ok(()),
        }
    }

    /// No key is used, and no line is written that would go with one.
    fn check_used(&self) -> Result<(), Refusal> {
        self.seals().idle(self.ledger()).map_or(Ok(()), |idle| Err(refusal(&idle)))
    }

    /// The ledger's line names the statement alone; whose text it was and for which appliance is
    /// compared here, so that the answer says which of them is wrong.
    fn check_withdrawal(&self, withdrawal: &Withdrawal) -> Result<(), Refusal> {
        self.ledger().read(|state| {
            if state.appliance() != Some(withdrawal.appliance) {
                let detail = format!("it is for the appliance {}", withdrawal.appliance);
                return refuse(RefusalKind::Forbidden, detail);
            }
            match state.proposal(&withdrawal.statement) {
                Some(proposal) if proposal.statement.proposer != withdrawal.officer => refuse(
                    RefusalKind::Forbidden,
                    format!(
                        "{} did not propose it; {} did, and may withdraw it",
                        withdrawal.officer, proposal.statement.proposer
                    ),
                ),
                _ => Ok(()),
            }
        })
    }

    /// Foreign objects on the tokens, and the audit key of the token that the configuration names: the
    /// one in force, or the one that a replace-audit-key motion may name.
    fn survey(&self) -> Result<Survey, Refusal> {
        self.check_used()?;
        let Ok(_turn) = self.surveying().try_lock() else {
            return refuse(RefusalKind::Busy, "another survey is under way".to_owned());
        };
        let token = &self.config().audit_token;
        let audit = self.surveyed_audit_key(token)?;
        let (tokens, adopted) = self.ledger().read(|state| {
            let adopted = state
                .keys()
                .values()
                .filter_map(|key| key.cka_id.as_ref().map(|id| (key.label.clone(), id.clone())));
            (state.tokens().clone(), adopted.collect::<BTreeSet<_>>())
        });
        let is_ours = |object: &FoundObject| {
            let key = object.public.as_ref().map(PublicKey::id);
            survey::is_own_label(&object.label)
                || adopted.contains(&(object.label.clone(), to_hex(&object.id)))
                || key.is_some_and(|id| self.ledger().read(|state| state.keys().contains_key(&id)))
        };
        let tokens = tokens.iter().map(|(name, identity)| {
            survey::token(self.hsm(), name, (&identity.label, &identity.serial), false, &is_ours)
        });
        Ok(Survey { audit: Some((token.clone(), audit)), tokens: tokens.collect() })
    }

    /// The audit key on that token, made if there is none. Making one destroys what is half-made under its
    /// label, and the one in force looks so once its public key object is gone, which anyone can
    /// bring about who can write to the token's files: it is asked to sign a checkpoint first.
    fn surveyed_audit_key(&self, token: &str) -> Result<AuditKey, Refusal> {
        let in_force = self.ledger().read(|state| {
            let (holder, key) = state.audit()?;
            let origin = checkpoint::origin(&state.appliance()?);
            let body = checkpoint::body(&origin, &state.tree().head());
            (holder == token).then(|| (key.clone(), body))
        });
        if let Some((key, body)) = in_force {
            match self.hsm().sign_audit(token, key.public(), body.as_bytes()) {
                Ok(_) => return Ok(key),
                // It is not there any more: another one may be made, for a replace-audit-key motion.
                Err(HsmError::NotAPair { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        survey::audit_key(self.hsm(), token)
    }

    /// The keys whose DS a motion approved to hand out; the line that says so comes first.
    fn export_ds(&self, zone: &ZoneName) -> Result<DsExport, Refusal> {
        self.check_used()?;
        let now_s = self.now();
        let (grant, keys) = self.ledger().read(|state| {
            let Some(grant) = state.ds_export(zone, now_s) else {
                return refuse(
                    RefusalKind::Forbidden,
                    format!(
                        "no DS of {zone} is approved to be handed out now; it takes an export-ds \
                         motion"
                    ),
                );
            };
            let published = |id| {
                let record = state.keys().get(id)?;
                Some((record.role, record.public.clone()?))
            };
            let keys: Option<Vec<_>> = grant.keys.iter().map(published).collect();
            let Some(keys) = keys else {
                let detail = format!("a key that the export of {zone} names is here no longer");
                return refuse(RefusalKind::Unknown, detail);
            };
            Ok((grant.clone(), keys))
        })?;
        let statement = self.statement_begun_at(grant.begun)?;
        if !self.count_export(zone, now_s) {
            return refuse(
                RefusalKind::Busy,
                format!("{zone}: handed out {EXPORTS_AN_HOUR_MAX} times in this hour"),
            );
        }
        let line =
            self.ledger().export(grant.begun, zone.clone(), || self.now()).map_err(judged)?;
        tracing::info!(%zone, line, "DS records are handed out");
        Ok(DsExport { zone: zone.clone(), keys, digests: grant.digests, line, statement })
    }

    /// The text of the statement that began at a line: the ledger's file has it.
    fn statement_begun_at(&self, begun: u64) -> Result<String, Refusal> {
        self.ledger().statement_begun_at(begun).map_err(|problem| Refusal {
            kind: RefusalKind::LedgerUnavailable,
            detail: format!("reading the statement that began at line {begun}: {problem}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_holds_so_many_of_each_user() {
        let mut asked = Asked::default();
        assert!((0..ASKED_A_MINUTE_MAX).all(|_| asked.take(1, 1, 60)));
        assert!(!asked.take(1, 1, 119));
        assert!(asked.take(2, SURVEY_COUNTS, 119), "another user's minute is his own");
        assert!(asked.take(1, 1, 120));
        assert!(!asked.take(1, ASKED_A_MINUTE_MAX, 120));
    }
}
