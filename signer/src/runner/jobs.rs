//! The pieces of work that a zone's task starts: a check of the primaries, and a signing. Each
//! runs beside the task, which stays free to take commands, and ends in an [`Outcome`]; none
//! publishes anything.

use std::sync::Arc;

use countersign_policy::ZoneName;
use countersign_zone::admitted::Notes;
use countersign_zone::receive::ReceivedZone;
use countersign_zone::verify::VerifiedZone;
use countersign_zone::{AdmittedZone, ZoneParams};

use super::pipeline::{self, Serials, Stop};
use super::schedule::{Failure, FailureKind};
use super::signing::{Saying, Signing, withheld};
use super::{Context, ZoneSettings, fetch};
use crate::clock::now_s;

/// New data on its way to being signed.
#[derive(Debug)]
pub(super) enum Held {
    /// As it came.
    Received(ReceivedZone),
    /// Admitted.
    Admitted(Arc<AdmittedZone>),
}

/// How a piece of work ended.
pub(super) enum Outcome {
    Checked {
        received: Option<ReceivedZone>,
        signing: Option<Signing>,
    },
    CheckFailed {
        failure: Failure,
        signing: Option<Signing>,
    },
    Signed(Box<Signed>),
    SignFailed {
        failure: Failure,
        held: Option<Held>,
        signing: Option<Signing>,
    },
    /// A version was to be made for its CDS and CDNSKEY alone, and they are not signed.
    CdsRefused {
        failure: Failure,
        signing: Signing,
    },
    /// The same, and there is nothing to be said to the parent any more.
    CdsOver {
        signing: Signing,
    },
}

pub(super) struct Signed {
    pub version: VerifiedZone,
    pub incoming_serial: u32,
    pub signing: Signing,
    /// What it says to the parent.
    pub saying: Saying,
    /// Why it says less than it may.
    pub withheld: Option<Failure>,
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
        context.asking(move || Signing::ask(&keeper, &zone, now_s()).ok())
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
            .asking(move || Signing::ask(&keeper, &zone, now_s()))
            .await
            .map_err(|error| Failure::new(FailureKind::Keeper, error))?
    }

    pub async fn sign_new(self, held: Option<Held>) -> Outcome {
        let signing = match self.ask().await {
            Ok(signing) => signing,
            Err(failure) => return Outcome::SignFailed { failure, held, signing: None },
        };
        let dnssec = self.settings.treatment.incoming_dnssec;
        let admitted = match held {
            Some(Held::Admitted(admitted))
                if *admitted.params() == pipeline::admission(dnssec, &signing) =>
            {
                Ok(admitted)
            }
            Some(Held::Received(received)) => {
                let signing = signing.clone();
                self.context
                    .computing(move || pipeline::admit_received(received, dnssec, &signing))
                    .await
                    .map(Arc::new)
            }
            // Admitted under another policy: the primary is asked for it again.
            Some(Held::Admitted(_)) => Err(Failure::new(
                FailureKind::Admission,
                "the policy changed after the data was admitted; it is fetched again",
            )),
            None => Err(Failure::new(
                FailureKind::Admission,
                "the data was lost to an internal error; it is fetched again",
            )),
        };
        match admitted {
            Ok(admitted) => {
                log_notes(admitted.notes());
                self.sign(admitted, signing, Why::NewData).await
            }
            Err(failure) => Outcome::SignFailed { failure, held: None, signing: Some(signing) },
        }
    }

    /// Signs the data of the version that is up; `for_cds` if that is for CDS and CDNSKEY alone.
    pub async fn sign_again(self, for_cds: bool) -> Outcome {
        let signing = match self.ask().await {
            Ok(signing) => signing,
            Err(failure) => return Outcome::SignFailed { failure, held: None, signing: None },
        };
        let (Some(version), Some(incoming)) = (self.version.clone(), self.incoming_serial) else {
            let failure = Failure::new(FailureKind::Store, "there is no version to sign again");
            return Outcome::SignFailed { failure, held: None, signing: Some(signing) };
        };
        if for_cds && signing.params.cds.is_none() {
            return Outcome::CdsOver { signing };
        }
        let why = if for_cds { Why::Cds } else { Why::Due };
        tracing::info!(serial = version.serial(), "signing the published data again");
        let for_admission = signing.clone();
        let admitted = self
            .context
            .computing(move || pipeline::admit_again(&version, incoming, &for_admission))
            .await;
        match admitted {
            Ok(admitted) => {
                log_notes(admitted.notes());
                self.sign(Arc::new(admitted), signing, why).await
            }
            Err(failure) => Outcome::SignFailed { failure, held: None, signing: Some(signing) },
        }
    }

    async fn sign(self, admitted: Arc<AdmittedZone>, signing: Signing, why: Why) -> Outcome {
        let incoming_serial = admitted.serial();
        let held = (why == Why::NewData).then(|| Held::Admitted(admitted.clone()));
        match self.steps(admitted, &signing, why).await {
            Ok(Made { version, saying, withheld }) => Outcome::Signed(Box::new(Signed {
                version,
                incoming_serial,
                signing,
                saying,
                withheld,
                held,
            })),
            Err(failure) if why == Why::Cds && failure.kind == FailureKind::Cds => {
                Outcome::CdsRefused { failure, signing }
            }
            Err(failure) => {
                let held = held.filter(|_| failure.kind != FailureKind::Admission);
                Outcome::SignFailed { failure, held, signing: Some(signing) }
            }
        }
    }

    /// Makes the version. What can't be said to the parent is left out: first what is new of it,
    /// then all. New data goes out under the signatures over DNSKEY that are there, where they are due
    /// and no KSK is at hand: a freeze or a token that is away holds up keys, not zones.
    async fn steps(
        &self,
        admitted: Arc<AdmittedZone>,
        signing: &Signing,
        why: Why,
    ) -> Result<Made, Failure> {
        let mut saying = if signing.params.cds.is_some() { Saying::Anew } else { Saying::Nothing };
        let mut reason = None;
        let mut keep_dnskey = false;
        loop {
            let params = ZoneParams { keep_dnskey, ..signing.params_saying(saying) };
            let stop = match self.attempt(admitted.clone(), params).await {
                Ok(version) => return Ok(Made { version, saying, withheld: reason }),
                Err(stop) => stop,
            };
            let (stop, transient) = match stop {
                Stop::Dnskey(failure) if why == Why::NewData && !keep_dnskey => {
                    let reason = failure.detail;
                    tracing::warn!(reason, "DNSKEY is due and not signed; its signatures stay");
                    keep_dnskey = true;
                    continue;
                }
                Stop::Dnskey(failure) | Stop::Failed(failure) => return Err(failure),
                Stop::Cds { why, transient } => (withheld(signing, why), transient),
            };
            let next = match saying {
                Saying::Anew if transient => Saying::Kept,
                Saying::Anew | Saying::Kept => Saying::Nothing,
                // Nothing was said that could be wrong.
                Saying::Nothing => return Err(Failure { kind: FailureKind::Verification, ..stop }),
            };
            if why == Why::Cds {
                return Err(stop);
            }
            saying = next;
            reason.get_or_insert(stop);
        }
    }

    async fn attempt(
        &self,
        admitted: Arc<AdmittedZone>,
        params: ZoneParams,
    ) -> Result<VerifiedZone, Stop> {
        let previous = self.version.clone().filter(|_| self.reuse);
        let serials = self.serials;
        let says = params.cds.is_some();
        let params = Arc::new(params);
        let planned = {
            let (admitted, params) = (admitted.clone(), params.clone());
            self.context
                .computing(move || {
                    let previous = previous.as_deref();
                    pipeline::plan_version(&admitted, previous, &params, serials, now_s())
                })
                .await?
        };
        tracing::info!(serial = planned.serial(), reused = planned.reused(), says, "planned");
        let (context, span) = (self.context.clone(), tracing::Span::current());
        let (planned, signatures) = self
            .context
            .asking(move || {
                let _entered = span.enter();
                let mut refused = |count| context.metrics.signatures_refused(count);
                let cds = pipeline::have_cds_signed(&context.keeper, &planned, &mut refused)
                    .map_err(|error| {
                        let (why, transient) = (error.to_string(), error.is_transient());
                        Stop::Cds { why, transient }
                    })?;
                let signatures =
                    pipeline::have_signed(&context.keeper, &planned, cds, &mut refused)?;
                Ok::<_, Stop>((planned, signatures))
            })
            .await
            .map_err(|error| Stop::Failed(Failure::new(FailureKind::Keeper, error)))??;
        tracing::info!(signatures = signatures.count(), "signed");
        self.context.metrics.signatures_made(signatures.count());
        let threads = self.context.threads;
        self.context
            .computing(move || {
                pipeline::finish(planned, signatures, &admitted, &params, now_s(), threads)
            })
            .await
    }
}

/// What a version is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// There is new data.
    NewData,
    /// Signatures are due, or keys or policy have changed.
    Due,
    /// What is up lacks CDS and CDNSKEY that it may have, and nothing else.
    Cds,
}

struct Made {
    version: VerifiedZone,
    saying: Saying,
    withheld: Option<Failure>,
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
    if notes.capped > 0 {
        tracing::warn!(
            values = notes.capped,
            "values that signatures might not outlive are capped"
        );
        for capped in &notes.capped_first {
            tracing::warn!(%capped, "capped");
        }
    }
}
