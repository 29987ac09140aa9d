//! The pieces of work that a zone's task starts: a check of the primaries, and a signing. Each
//! runs beside the task, which stays free to take commands, and ends in an [`Outcome`]; none
//! publishes anything.

use std::sync::Arc;

use countersign_policy::ZoneName;
use countersign_policy::signing::SerialPolicy;
use countersign_zone::admit::{AdmissionParams, IncomingZonemd};
use countersign_zone::admitted::Notes;
use countersign_zone::difference::Base;
use countersign_zone::verify::VerifiedZone;
use countersign_zone::{AdmittedZone, AssembledZone, ZoneParams};

use super::fetch::Fetched;
use super::judge::Verdict;
use super::new_data::{Form, NewData, Steps};
use super::pipeline::{self, Serials, Stop};
use super::schedule::{Failure, FailureKind};
use super::signing::{Saying, Signing, withheld};
use super::status::Progress;
use super::{Context, ZoneSettings, fetch};
use crate::clock::now_s;
use crate::store::{Remarks, Source};

/// How a piece of work ended.
pub(super) enum Outcome {
    Checked {
        fetched: Option<Fetched>,
        signing: Option<Signing>,
    },
    CheckFailed {
        failure: Failure,
        signing: Option<Signing>,
    },
    Signed(Box<Signed>),
    /// It may come about later, of the same data.
    SignFailed {
        failure: Failure,
        new: Option<NewData>,
        signing: Option<Signing>,
    },
    /// Not of this data, from this source.
    Refused {
        failure: Failure,
        source: Source,
        /// Whether a person had let it out.
        released: bool,
        signing: Signing,
    },
    /// The data is what is up already.
    Unchanged {
        /// Whether its serial counts.
        counts: bool,
        signing: Signing,
    },
    /// The data waits for a person.
    Held {
        new: NewData,
        reasons: Vec<String>,
        signing: Signing,
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
    /// Whether admission left its data as it came.
    pub exact: bool,
    /// What is to be known of it.
    pub remarks: Remarks,
    /// The data, where it is new.
    pub new: Option<NewData>,
}

/// What a check starts from.
pub(super) struct Have {
    /// The serial of the newest data that is here; absent if there is none.
    pub serial: Option<u32>,
    /// Newer than that, and not wanted: a person has rejected it.
    pub rejected: Option<u32>,
    /// That data, where it is as a primary had it, and the primary's name: what its differences, and
    /// no other's, may be applied to.
    pub base: Option<(Base, String)>,
}

/// Asks the primaries, and the keeper on the way: a change of keys or policy is noticed at the
/// zone's own pace, and a keeper that is away does not keep new data from coming in.
pub(super) async fn check(
    context: Arc<Context>,
    zone: ZoneName,
    settings: Arc<ZoneSettings>,
    have: Have,
) -> Outcome {
    let asked = {
        let (keeper, zone) = (context.keeper.clone(), zone.clone());
        let zonemd = settings.treatment.zonemd;
        context.asking(move || Signing::ask(&keeper, &zone, zonemd, now_s()).ok())
    };
    let fetched = if settings.primaries.is_empty() {
        Ok(None)
    } else {
        let _permit = context.transfers.acquire().await;
        fetch::fetch(&context.counters, &zone, &settings, have).await
    };
    let signing = asked.await.ok().flatten();
    match fetched {
        Ok(fetched) => Outcome::Checked { fetched, signing },
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
    /// An earlier version goes out again: under the next serial, whatever its source's was.
    pub raise: bool,
    /// Told of each step.
    pub steps: Steps,
}

impl SignJob {
    async fn ask(&self) -> Result<Signing, Failure> {
        let (keeper, zone) = (self.context.keeper.clone(), self.zone.clone());
        let zonemd = self.settings.treatment.zonemd;
        self.context
            .asking(move || Signing::ask(&keeper, &zone, zonemd, now_s()))
            .await
            .map_err(|error| Failure::new(FailureKind::Keeper, error))?
    }

    /// Signs new data, if it may be signed and nobody has to look at it first.
    pub async fn sign_new(self, new: Option<NewData>) -> Outcome {
        let signing = match self.ask().await {
            Ok(signing) => signing,
            Err(failure) => return Outcome::SignFailed { failure, new, signing: None },
        };
        let Some(new) = new else {
            let why = "the data was lost to an internal error; it is fetched again";
            let failure = Failure::new(FailureKind::Admission, why);
            let source = Source::Primary { name: None };
            return Outcome::Refused { failure, source, released: false, signing };
        };
        let (source, released) = (new.source.clone(), new.released.is_some());
        let (new, admitted) = match self.admit(new, &signing).await {
            Ok(admitted) => admitted,
            Err(failure) => return Outcome::Refused { failure, source, released, signing },
        };
        log_notes(admitted.notes());
        self.steps.tell(Progress::Admitted);
        match self.judge(&new, &admitted, &signing).await {
            Ok(Verdict::Unchanged) => {
                let counts = self.serials_count(&signing);
                Outcome::Unchanged { counts, signing }
            }
            Ok(Verdict::Hold(reasons)) => Outcome::Held { new, reasons, signing },
            Ok(Verdict::Pass) => {
                let new = NewData { passed: true, ..new };
                self.sign(admitted, signing, Why::NewData, Some(new)).await
            }
            Err(failure) => Outcome::Refused { failure, source, released, signing },
        }
    }

    async fn admit(
        &self,
        new: NewData,
        signing: &Signing,
    ) -> Result<(NewData, Arc<AdmittedZone>), Failure> {
        let mut params = pipeline::admission(&self.settings.treatment, signing);
        if new.undigested && params.zonemd == IncomingZonemd::Require {
            params.zonemd = IncomingZonemd::Check;
        }
        let NewData { form, exact, .. } = new;
        let (admitted, exact) = match form {
            // Its ZONEMD, if it had one, was looked at then.
            Form::Admitted(admitted)
                if AdmissionParams { zonemd: params.zonemd, ..*admitted.params() } == params =>
            {
                (admitted, exact)
            }
            form => {
                self.context
                    .computing(move || {
                        let received = match form {
                            Form::Received(received) => received,
                            // Admitted under another policy.
                            Form::Admitted(admitted) => pipeline::received_again(&admitted)?,
                        };
                        let admitted = pipeline::admit_received(received, &params)?;
                        let exact = exact && admitted.is_exact();
                        Ok::<_, Failure>((Arc::new(admitted), exact))
                    })
                    .await?
            }
        };
        let form = Form::Admitted(admitted.clone());
        Ok((NewData { form, exact, undigested: true, ..new }, admitted))
    }

    /// Signs the data of the version that is up; `for_cds` if that is for CDS and CDNSKEY alone.
    pub async fn sign_again(self, for_cds: bool) -> Outcome {
        let signing = match self.ask().await {
            Ok(signing) => signing,
            Err(failure) => return Outcome::SignFailed { failure, new: None, signing: None },
        };
        let (Some(version), Some(incoming)) = (self.version.clone(), self.incoming_serial) else {
            let failure = Failure::new(FailureKind::Store, "there is no version to sign again");
            return Outcome::SignFailed { failure, new: None, signing: Some(signing) };
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
                self.sign(Arc::new(admitted), signing, why, None).await
            }
            Err(failure) => Outcome::SignFailed { failure, new: None, signing: Some(signing) },
        }
    }

    async fn sign(
        self,
        admitted: Arc<AdmittedZone>,
        signing: Signing,
        why: Why,
        new: Option<NewData>,
    ) -> Outcome {
        let (incoming_serial, exact) = (admitted.serial(), admitted.is_exact());
        let remarks = remarks(&admitted, &signing);
        let made = match self.steps(admitted.clone(), &signing, why).await {
            Ok(made) => made,
            Err(failure) => return stopped(failure, why, new, signing),
        };
        let new = match new {
            None => None,
            Some(new) => match self.before_publishing(&new, &admitted, &made.version).await {
                Ok(Verdict::Hold(reasons)) => return Outcome::Held { new, reasons, signing },
                Ok(Verdict::Pass | Verdict::Unchanged) => Some(new),
                Err(failure) => return stopped(failure, why, Some(new), signing),
            },
        };
        let Made { version, saying, withheld } = made;
        Outcome::Signed(Box::new(Signed {
            version,
            incoming_serial,
            signing,
            saying,
            withheld,
            exact,
            remarks,
            new,
        }))
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
            let zonemd = signing.makes_zonemd(admitted.records().counts().records);
            let mut params = ZoneParams { keep_dnskey, zonemd, ..signing.params_saying(saying) };
            if self.raise {
                params.policy.serial = raised(params.policy.serial);
            }
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
        self.steps.tell(Progress::Planned {
            signatures: planned.missing() as u64,
            kept: planned.reused() as u64,
        });
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
        let assembled =
            self.context.computing(move || pipeline::assemble(planned, signatures)).await?;
        let (assembled, zonemd) = self.have_zonemd_signed(assembled).await?;
        self.steps.tell(Progress::Signed);
        let threads = self.context.threads;
        self.context
            .computing(move || {
                pipeline::finish(assembled, zonemd, &admitted, &params, now_s(), threads)
            })
            .await
            .inspect(|_| self.steps.tell(Progress::Verified))
    }

    /// The second round: ZONEMD digests all other signatures.
    async fn have_zonemd_signed(
        &self,
        assembled: AssembledZone,
    ) -> Result<(AssembledZone, Vec<Vec<u8>>), Stop> {
        let tasks = assembled.tasks();
        if tasks.is_empty() {
            return Ok((assembled, Vec::new()));
        }
        let (context, zone) = (self.context.clone(), self.zone.clone());
        let zonemd = self
            .context
            .asking(move || {
                let mut refused = |count| context.metrics.signatures_refused(count);
                pipeline::have_zonemd_signed(&context.keeper, &zone, tasks, &mut refused)
            })
            .await
            .map_err(|error| Stop::Failed(Failure::new(FailureKind::Keeper, error)))??;
        self.context.metrics.signatures_made(zonemd.len());
        Ok((assembled, zonemd))
    }
}

/// How a signing ends that makes no version.
fn stopped(failure: Failure, why: Why, new: Option<NewData>, signing: Signing) -> Outcome {
    match (new, failure.kind) {
        (_, FailureKind::Cds) if why == Why::Cds => Outcome::CdsRefused { failure, signing },
        (Some(new), FailureKind::Admission | FailureKind::WaitsForPrimary) => {
            let released = new.released.is_some();
            Outcome::Refused { failure, source: new.source, released, signing }
        }
        (new, _) => Outcome::SignFailed { failure, new, signing: Some(signing) },
    }
}

/// The policy under which a serial comes that its source did not give.
fn raised(policy: SerialPolicy) -> SerialPolicy {
    if policy == SerialPolicy::Keep { SerialPolicy::Increment } else { policy }
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

/// What people should know of a version, though nothing is wrong with it.
fn remarks(admitted: &AdmittedZone, signing: &Signing) -> Remarks {
    let notes = admitted.notes();
    let mut data: Vec<String> = notes.capped_first.iter().map(ToString::to_string).collect();
    if notes.capped > data.len() {
        data.push(format!("{} more values go out capped", notes.capped - data.len()));
    }
    let records = admitted.records().counts().records;
    Remarks { data, signing: signing.why_no_zonemd(records).into_iter().collect() }
}
