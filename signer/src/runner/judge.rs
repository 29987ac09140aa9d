//! What becomes of new data before it is signed, and before the version made of it is published: whether
//! it is news at all, what the guard says, and what hooks say.

use std::sync::Arc;

use countersign_policy::signing::SerialPolicy;
use countersign_zone::verify::VerifiedZone;
use countersign_zone::{AdmittedZone, guard};

use super::hook::{self, About, Question};
use super::jobs::SignJob;
use super::new_data::NewData;
use super::schedule::{Failure, FailureKind};
use super::signing::Signing;
use super::{Context, Treatment};
use crate::config::{Guard, HookPoint};
use crate::store::serial_is_higher;

/// What becomes of new data.
pub(super) enum Verdict {
    /// It is what is up.
    Unchanged,
    Pass,
    /// A person has to look at it.
    Hold(Vec<String>),
}

/// What the guard goes by. Critical names are named one by one: no guard, and they are still guarded.
fn rules(treatment: &Treatment) -> guard::Rules<'_> {
    let off = Guard { shrink_percent_max: 100, shrink_records_min: u64::MAX, apex_ns: false };
    let guard = treatment.guard.unwrap_or(off);
    guard::Rules {
        shrink_percent_max: guard.shrink_percent_max,
        shrink_records_min: guard.shrink_records_min,
        apex_ns: guard.apex_ns,
        critical: &treatment.critical,
    }
}

/// Why data is not newer than what was there before it.
pub(super) fn not_newer(serial: u32, last: u32) -> String {
    format!(
        "serial {serial} is not newer than {last} (RFC 1982), which was here before it; raise it beyond {last}"
    )
}

impl SignJob {
    /// Whether others count on the serials of new data: it only goes forward then.
    pub(super) fn serials_count(&self, signing: &Signing) -> bool {
        signing.params.policy.serial == SerialPolicy::Keep || !self.settings.primaries.is_empty()
    }

    /// Whether new data is to be signed at all, and by whose word.
    pub(super) async fn judge(
        &self,
        new: &NewData,
        admitted: &Arc<AdmittedZone>,
        signing: &Signing,
    ) -> Result<Verdict, Failure> {
        if !new.source.is_primary()
            && new.released.is_none()
            && self.is_up(admitted, signing).await?
        {
            return Ok(Verdict::Unchanged);
        }
        if let Some(last) = new.beyond.filter(|last| !serial_is_higher(new.serial, *last)) {
            return Err(Failure::new(FailureKind::Admission, not_newer(new.serial, last)));
        }
        if new.passed {
            return Ok(Verdict::Pass);
        }
        let reasons = self.guard(new, admitted).await?;
        if !reasons.is_empty() {
            return Ok(Verdict::Hold(reasons));
        }
        let Some(question) = self.question(HookPoint::Signing, new, admitted).await? else {
            return Ok(Verdict::Pass);
        };
        self.hear(HookPoint::Signing, new, &question).await
    }

    /// Why the guard has a person look at new data.
    async fn guard(
        &self,
        new: &NewData,
        admitted: &Arc<AdmittedZone>,
    ) -> Result<Vec<String>, Failure> {
        let Some(version) = self.version.clone().filter(|_| !new.is_decided()) else {
            return Ok(Vec::new());
        };
        let (settings, admitted) = (self.settings.clone(), admitted.clone());
        let judged = self.context.computing(move || {
            let reasons = guard::judge(&version, &admitted, &rules(&settings.treatment));
            Ok(reasons.iter().map(ToString::to_string).collect())
        });
        judged.await
    }

    /// What hooks are asked; `None` where there is none at this point.
    async fn question(
        &self,
        point: HookPoint,
        new: &NewData,
        admitted: &Arc<AdmittedZone>,
    ) -> Result<Option<Question>, Failure> {
        let hooks = &self.settings.treatment.hooks;
        if !hooks.iter().any(|(_, hook)| hook.before == point) {
            return Ok(None);
        }
        let (version, admitted) = (self.version.clone(), admitted.clone());
        let (source, released) = (new.source.clone(), new.released.clone());
        let asked = self.context.computing(move || {
            Ok(Question::about(&About {
                zone: admitted.apex(),
                source: &source,
                incoming_serial: admitted.serial(),
                released_by: released.as_ref().map(|decision| &*decision.by),
                up: version.as_ref().map(|version| (version.serial(), version.records())),
                data: admitted.records(),
            }))
        });
        asked.await.map(Some)
    }

    /// What hooks say. Where a person has decided already they can refuse, and hold nothing any more.
    async fn hear(
        &self,
        point: HookPoint,
        new: &NewData,
        question: &Question,
    ) -> Result<Verdict, Failure> {
        let hooks = &self.settings.treatment.hooks;
        let Context { hooks: gates, counters, .. } = &*self.context;
        let opinion = hook::ask_all(hooks, point, question, gates, counters).await;
        if let Some(refusal) = opinion.refusal {
            return Err(Failure::new(FailureKind::Admission, refusal));
        }
        if new.is_decided() && !opinion.holds.is_empty() {
            tracing::warn!(holds = ?opinion.holds, "passed over: a person has decided");
            return Ok(Verdict::Pass);
        }
        Ok(if opinion.holds.is_empty() { Verdict::Pass } else { Verdict::Hold(opinion.holds) })
    }

    /// Whether what is up was made of this data. Its serial matters where it shows in the versions, or
    /// where a primary counts on too.
    async fn is_up(
        &self,
        admitted: &Arc<AdmittedZone>,
        signing: &Signing,
    ) -> Result<bool, Failure> {
        let (Some(version), Some(incoming)) = (self.version.clone(), self.incoming_serial) else {
            return Ok(false);
        };
        let shows = signing.params.policy.serial == SerialPolicy::Increment;
        if (shows || self.serials_count(signing)) && admitted.serial() != incoming {
            return Ok(false);
        }
        let admitted = admitted.clone();
        self.context.computing(move || Ok(guard::same_data(&version, &admitted))).await
    }

    /// What hooks say of a version that was made of new data.
    pub(super) async fn before_publishing(
        &self,
        new: &NewData,
        admitted: &Arc<AdmittedZone>,
        version: &VerifiedZone,
    ) -> Result<Verdict, Failure> {
        match self.question(HookPoint::Publishing, new, admitted).await? {
            None => Ok(Verdict::Pass),
            Some(question) => {
                let question = question.signed(version.serial(), version.digest());
                self.hear(HookPoint::Publishing, new, &question).await
            }
        }
    }
}
