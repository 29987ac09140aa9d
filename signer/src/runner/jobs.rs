//! The pieces of work that a zone's task starts: a check of the primaries, and a signing. Each
//! runs beside the task, which stays free to take commands, and ends in an [`Outcome`]; none
//! publishes anything.

use std::sync::Arc;

use countersign_policy::ZoneName;
use countersign_zone::AdmittedZone;
use countersign_zone::admitted::Notes;
use countersign_zone::receive::ReceivedZone;
use countersign_zone::verify::VerifiedZone;

use super::pipeline::{self, Serials, Signing};
use super::schedule::{Failure, FailureKind};
use super::{Context, ZoneSettings, fetch};
use crate::clock::now_s;

/// New data on its way to being signed.
#[derive(Debug)]
pub(super) enum Held {
    /// As it came.
    Received(ReceivedZone),
    /// Admitted under the signing parameters with this digest.
    Admitted(Arc<AdmittedZone>, [u8; 32]),
}

/// How a piece of work ended.
pub(super) enum Outcome {
    Checked { received: Option<ReceivedZone>, signing: Option<Signing> },
    CheckFailed { failure: Failure, signing: Option<Signing> },
    Signed(Box<Signed>),
    SignFailed { failure: Failure, held: Option<Held>, signing: Option<Signing> },
}

pub(super) struct Signed {
    pub version: VerifiedZone,
    pub incoming_serial: u32,
    pub signing: Signing,
    /// The data, in case the version can't go out yet.
    pub held: Option<Held>,
}

/// Asks the primaries, and the keeper on the way: a change of keys or policy is noticed at the
/// zone's own pace, and a keeper that is away does not keep new data from coming in.
pub(super) async fn check(
    context: Arc<Context>,
    zone: ZoneName,
    settings: Arc<ZoneSettings>,
    have: Option<u32>,
) -> Outcome {
    let asked = {
        let (keeper, zone) = (context.keeper.clone(), zone.clone());
        context.asking(move || Signing::ask(&keeper, &zone).ok())
    };
    let fetched = {
        let _permit = context.transfers.acquire().await;
        fetch::fetch(&context.counters, &zone, &settings, have).await
    };
    let signing = asked.await.ok().flatten();
    match fetched {
        Ok(received) => Outcome::Checked { received, signing },
        Err(failure) => Outcome::CheckFailed { failure, signing },
    }
}

/// What a signing needs, apart from its data.
pub(super) struct SignJob {
    pub zone: ZoneName,
    pub context: Arc<Context>,
    pub settings: Arc<ZoneSettings>,
    pub version: Option<Arc<VerifiedZone>>,
    pub incoming_serial: Option<u32>,
    pub serials: Serials,
    pub reuse: bool,
}

impl SignJob {
    async fn ask(&self) -> Result<Signing, Failure> {
        let (keeper, zone) = (self.context.keeper.clone(), self.zone.clone());
        self.context
            .asking(move || Signing::ask(&keeper, &zone))
            .await
            .map_err(|error| Failure::new(FailureKind::Keeper, error))?
    }

    pub async fn sign_new(self, held: Option<Held>) -> Outcome {
        let signing = match self.ask().await {
            Ok(signing) => signing,
            Err(failure) => return Outcome::SignFailed { failure, held, signing: None },
        };
        let dnssec = self.settings.incoming_dnssec;
        let admitted = match held {
            Some(Held::Admitted(admitted, digest)) if digest == signing.digest => Ok(admitted),
            Some(Held::Received(received)) => {
                let signing = signing.clone();
                self.context
                    .computing(move || pipeline::admit_received(received, dnssec, &signing))
                    .await
                    .map(Arc::new)
            }
            // Admitted under another policy: the primary is asked for it again.
            Some(Held::Admitted(..)) => Err(Failure::new(
                FailureKind::Admission,
                "policy or keys changed after the data was admitted; it is fetched again",
            )),
            None => Err(Failure::new(
                FailureKind::Admission,
                "the data was lost to an internal error; it is fetched again",
            )),
        };
        match admitted {
            Ok(admitted) => {
                log_notes(admitted.notes());
                self.sign(admitted, signing, true).await
            }
            Err(failure) => Outcome::SignFailed { failure, held: None, signing: Some(signing) },
        }
    }

    pub async fn sign_again(self) -> Outcome {
        let signing = match self.ask().await {
            Ok(signing) => signing,
            Err(failure) => return Outcome::SignFailed { failure, held: None, signing: None },
        };
        let (Some(version), Some(incoming)) = (self.version.clone(), self.incoming_serial) else {
            let failure = Failure::new(FailureKind::Store, "there is no version to sign again");
            return Outcome::SignFailed { failure, held: None, signing: Some(signing) };
        };
        tracing::info!(serial = version.serial(), "signing the published data again");
        let for_admission = signing.clone();
        let admitted = self
            .context
            .computing(move || pipeline::admit_again(&version, incoming, &for_admission))
            .await;
        match admitted {
            Ok(admitted) => self.sign(Arc::new(admitted), signing, false).await,
            Err(failure) => Outcome::SignFailed { failure, held: None, signing: Some(signing) },
        }
    }

    async fn sign(self, admitted: Arc<AdmittedZone>, signing: Signing, keep: bool) -> Outcome {
        let incoming_serial = admitted.serial();
        let held = keep.then(|| Held::Admitted(admitted.clone(), signing.digest));
        match self.steps(admitted, &signing).await {
            Ok(version) => {
                Outcome::Signed(Box::new(Signed { version, incoming_serial, signing, held }))
            }
            Err(failure) => {
                let held = held.filter(|_| failure.kind != FailureKind::Admission);
                Outcome::SignFailed { failure, held, signing: Some(signing) }
            }
        }
    }

    async fn steps(
        &self,
        admitted: Arc<AdmittedZone>,
        signing: &Signing,
    ) -> Result<VerifiedZone, Failure> {
        let previous = self.version.clone().filter(|_| self.reuse);
        let serials = self.serials;
        let planned = {
            let (admitted, signing) = (admitted.clone(), signing.clone());
            self.context
                .computing(move || {
                    let previous = previous.as_deref();
                    pipeline::plan_version(&admitted, previous, &signing, serials, now_s())
                })
                .await?
        };
        tracing::info!(serial = planned.serial(), reused = planned.reused(), "planned");
        let (context, span) = (self.context.clone(), tracing::Span::current());
        let (planned, signatures) = self
            .context
            .asking(move || {
                let _entered = span.enter();
                let mut refused = |count| context.metrics.signatures_refused(count);
                let signatures = pipeline::have_signed(&context.keeper, &planned, &mut refused);
                signatures.map(|signatures| (planned, signatures))
            })
            .await
            .map_err(|error| Failure::new(FailureKind::Keeper, error))??;
        tracing::info!(signatures = signatures.count(), "signed");
        self.context.metrics.signatures_made(signatures.count());
        let (signing, threads) = (signing.clone(), self.context.threads);
        self.context
            .computing(move || {
                pipeline::finish(planned, signatures, &admitted, &signing, now_s(), threads)
            })
            .await
    }
}

/// What admission put right, for the primary's operator to put right for good.
fn log_notes(notes: &Notes) {
    if notes.stripped > 0 {
        tracing::info!(records = notes.stripped, "DNSSEC records of the primary's left out");
    }
    if notes.unequal_ttls > 0 {
        tracing::warn!(rrsets = notes.unequal_ttls, "RRsets with unequal TTLs took the lowest");
        for lowered in &notes.lowered {
            tracing::warn!(%lowered, "unequal TTLs");
        }
    }
}
