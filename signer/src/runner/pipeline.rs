//! From a zone's data to a version that may be published: admit, plan, have signed, assemble,
//! verify. Blocking, without a clock: `now` comes in, and each step says what stopped it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use countersign_hsm::client::{CdsSigning, Client, ClientError, DnskeyOrder};
use countersign_hsm::protocol::{BATCH_MAX, Refusal, RefusalKind};
use countersign_policy::ledger::CdsType;
use countersign_policy::{KeyId, ZoneName};
use countersign_zone::admit::{AdmissionParams, BeyondWindow, IncomingZonemd, admit};
use countersign_zone::plan::{PlanError, PlannedZone, Task, plan};
use countersign_zone::receive::{Bounds, CLASS_IN, ReceivedZone, Receiver};
use countersign_zone::serial::{SerialError, next_serial};
use countersign_zone::verify::{VerifiedZone, verify};
use countersign_zone::{AdmittedZone, AssembledZone, Rrset, Rtype, Signatures, ZoneParams};

use super::Treatment;
use super::schedule::{Failure, FailureKind};
use super::signing::{Signing, keeper_failure, unwrap_time};
use crate::config;

/// Signatures asked for before the next are made ready: enough batches in flight to keep an HSM
/// busy, few enough that the to-be-signed bytes of a zone of millions are never all in memory.
const WINDOW: usize = 16 * BATCH_MAX;

/// Refused signatures whose RRsets are looked up for the message: each lookup walks the zone.
const REFUSED_NAMED_MAX: usize = 16;

// What admission lets through, the keeper takes.
const _: () = assert!(
    countersign_zone::admit::TBS_BYTES_MAX <= countersign_hsm::protocol::TBS_BYTES_MAX,
    "admission would let an RRset through that the keeper refuses"
);

impl Failure {
    pub(super) fn new(kind: FailureKind, detail: impl std::fmt::Display) -> Self {
        Self { kind, detail: detail.to_string() }
    }
}

/// What new data is admitted under.
pub(super) fn admission(treatment: &Treatment, signing: &Signing) -> AdmissionParams {
    AdmissionParams {
        dnssec: treatment.incoming_dnssec,
        zonemd: match treatment.incoming_zonemd {
            config::IncomingZonemd::Ignore => IncomingZonemd::Ignore,
            config::IncomingZonemd::Check => IncomingZonemd::Check,
            config::IncomingZonemd::Require => IncomingZonemd::Require,
        },
        beyond: match treatment.beyond_window {
            config::BeyondWindow::Refuse => BeyondWindow::Refuse,
            config::BeyondWindow::Cap => BeyondWindow::Cap,
        },
        ..AdmissionParams::under(&signing.params.policy)
    }
}

/// Admits what a primary sent.
pub(super) fn admit_received(
    received: ReceivedZone,
    params: &AdmissionParams,
) -> Result<AdmittedZone, Failure> {
    admit(received, params).map_err(|refusal| Failure::new(FailureKind::Admission, refusal))
}

/// The primary's data again, from the version that was made of it: the same records without
/// ours, under the primary's serial. So a refresh needs neither the primary nor a second copy on
/// disk, after a restart as before it.
///
/// Values that signatures would not outlive under the policy of today are capped, whatever the zone's
/// setting says of new data: these are out already, and to refuse them would only let their
/// signatures expire.
pub(super) fn admit_again(
    version: &VerifiedZone,
    incoming_serial: u32,
    signing: &Signing,
) -> Result<AdmittedZone, Failure> {
    let params = AdmissionParams {
        beyond: BeyondWindow::Cap,
        ..AdmissionParams::under(&signing.params.policy)
    };
    admit(source_of(version, incoming_serial)?, &params)
        .map_err(|refusal| Failure::new(FailureKind::Admission, refusal))
}

/// The data that a version was made of, under a serial of its source's.
pub(super) fn source_of(
    version: &VerifiedZone,
    incoming_serial: u32,
) -> Result<ReceivedZone, Failure> {
    let apex = version.apex();
    let ours = |rrset: &Rrset<'_>| match rrset.rtype() {
        Rtype::ZONEMD => rrset.owner().eq_ignore_ascii_case(apex.as_wire()),
        rtype => rtype.is_signers_own() || rtype.speaks_to_parent(),
    };
    let records = version.records().iter().flat_map(|node| node.rrsets());
    received_of(apex, records.filter(|rrset| !ours(rrset)), Some(incoming_serial))
}

/// Admitted data as it was before admission, but for what admission put right.
pub(super) fn received_again(admitted: &AdmittedZone) -> Result<ReceivedZone, Failure> {
    let records = admitted.records().iter().flat_map(|node| node.rrsets());
    received_of(admitted.apex(), records, None)
}

fn received_of<'a>(
    apex: &ZoneName,
    rrsets: impl Iterator<Item = Rrset<'a>>,
    serial: Option<u32>,
) -> Result<ReceivedZone, Failure> {
    let fail = |refusal| Failure::new(FailureKind::Admission, refusal);
    // They were within bounds when they came.
    let bounds = Bounds { records_max: usize::MAX, bytes_max: usize::MAX };
    let mut receiver = Receiver::new(apex.clone(), bounds);
    for rrset in rrsets {
        for rdata in rrset.rdatas() {
            let mut rdata = rdata.to_vec();
            if let (Rtype::SOA, Some(serial)) = (rrset.rtype(), serial) {
                set_soa_serial(&mut rdata, serial);
            }
            receiver
                .push(rrset.owner(), rrset.rtype().0, CLASS_IN, rrset.ttl_s(), &rdata)
                .map_err(fail)?;
        }
    }
    receiver.finish().map_err(fail)
}

/// The serial is the first of the five numbers that end SOA RDATA (RFC 1035 §3.3.13).
fn set_soa_serial(rdata: &mut [u8], serial: u32) {
    if let Some(at) = rdata.len().checked_sub(20) {
        rdata[at..at + 4].copy_from_slice(&serial.to_be_bytes());
    }
}

/// How far the serial has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Serials {
    pub last_published: Option<u32>,
    pub last_incoming: Option<u32>,
}

/// Chooses the serial and plans the version.
pub(super) fn plan_version(
    admitted: &AdmittedZone,
    previous: Option<&VerifiedZone>,
    params: &ZoneParams,
    serials: Serials,
    now_s: u64,
) -> Result<PlannedZone, Failure> {
    let Serials { last_published, last_incoming } = serials;
    let policy = params.policy.serial;
    let serial = next_serial(policy, admitted.serial(), last_published, last_incoming, now_s)
        .map_err(|error| {
            let kind = match error {
                SerialError::WaitsForPrimary { .. } => FailureKind::WaitsForPrimary,
                _ => FailureKind::Admission,
            };
            Failure::new(kind, error)
        })?;
    plan(admitted, previous, params, serial, now_s).map_err(|error| {
        let kind = match error {
            // The primary's data is at fault, and other data may fit.
            PlanError::ApexTooLong(_) | PlanError::HashCollision(..) | PlanError::NoSoa(_) => {
                FailureKind::Admission
            }
            PlanError::Cds(_) => FailureKind::Cds,
            // The keys or the policy are.
            _ => FailureKind::Keeper,
        };
        Failure::new(kind, error)
    })
}

/// Has the keeper sign CDS and CDNSKEY: first of all, since the version may go without them.
pub(super) fn have_cds_signed(
    keeper: &Client,
    planned: &PlannedZone,
    refused: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<u8>>, ClientError> {
    let sign = |order: &countersign_zone::CdsOrder| {
        let rrset = if order.rtype == Rtype::CDS { CdsType::Cds } else { CdsType::Cdnskey };
        let order = CdsSigning {
            rrset,
            signer: order.signer,
            ttl_s: order.ttl_s,
            inception: order.inception,
            expiration: order.expiration,
        };
        keeper.sign_cds(planned.apex(), order).inspect_err(|_| refused(1))
    };
    planned.cds_orders().iter().map(sign).collect()
}

/// Has the keeper make all the others. `refused` counts those that it did not make.
pub(super) fn have_signed(
    keeper: &Client,
    planned: &PlannedZone,
    cds: Vec<Vec<u8>>,
    refused: &mut dyn FnMut(usize),
) -> Result<Signatures, Stop> {
    let apex = planned.apex();
    let mut dnskey = Vec::new();
    for order in planned.dnskey_orders() {
        let order = DnskeyOrder {
            keys: order.keys.clone(),
            signer: order.signer,
            ttl_s: order.ttl_s,
            inception: order.inception,
            expiration: order.expiration,
        };
        let signed = keeper.sign_dnskey(apex, order);
        dnskey.push(signed.map_err(|error| {
            refused(1);
            Stop::Dnskey(keeper_failure(&error))
        })?);
    }
    let mut zone = Vec::new();
    let mut tasks = planned.tasks().peekable();
    while tasks.peek().is_some() {
        let window: Vec<Task> = tasks.by_ref().take(WINDOW).collect();
        let signed = sign_window(keeper, apex, window, refused)?;
        let start = zone.len();
        let no: Vec<(usize, &Refusal)> = signed
            .iter()
            .enumerate()
            .filter_map(|(at, answer)| Some((start + at, answer.as_ref().err()?)))
            .collect();
        if !no.is_empty() {
            return Err(items_refused(planned, &no).into());
        }
        zone.extend(signed.into_iter().flatten());
    }
    Ok(Signatures { zone, dnskey, cds })
}

/// Signs a window's tasks, by key, and puts the answers into the tasks' order.
fn sign_window(
    keeper: &Client,
    apex: &ZoneName,
    window: Vec<Task>,
    refused: &mut dyn FnMut(usize),
) -> Result<Vec<Result<Vec<u8>, Refusal>>, Failure> {
    let mut signatures = vec![Ok(Vec::new()); window.len()];
    let mut by_key = BTreeMap::<KeyId, (Vec<usize>, Vec<Vec<u8>>)>::new();
    for (place, task) in window.into_iter().enumerate() {
        let (places, items) = by_key.entry(task.key).or_default();
        places.push(place);
        items.push(task.tbs);
    }
    for (key, (places, items)) in by_key {
        let count = items.len();
        let answers = keeper.sign_zone(apex, key, items).map_err(|error| {
            refused(count);
            keeper_failure(&error)
        })?;
        let no = answers.iter().filter(|answer| answer.is_err()).count();
        if no > 0 {
            refused(no);
        }
        for (place, answer) in places.into_iter().zip(answers) {
            signatures[place] = answer;
        }
    }
    Ok(signatures)
}

/// Names an RRset that the keeper does not sign. DS RRsets that are forbidden, and nothing else, are
/// those of zones bound here: their officers know what to do.
fn items_refused(planned: &PlannedZone, no: &[(usize, &Refusal)]) -> Failure {
    let name = |at: usize| planned.tasks().nth(at).and_then(|task| task.rrset());
    // Where other types are refused too, the reason is another.
    let ds_alone = no.iter().all(|(_, refusal)| refusal.kind == RefusalKind::Forbidden)
        && no
            .iter()
            .take(REFUSED_NAMED_MAX)
            .all(|(at, _)| name(*at).is_some_and(|(_, rtype)| rtype == Rtype::DS));
    let ds = no.first().filter(|_| ds_alone);
    let ds = ds.and_then(|(at, refusal)| Some((name(*at)?.0, *refusal)));
    let others = match no.len() {
        1 => String::new(),
        many => format!(" ({} more signatures of this zone are refused)", many - 1),
    };
    if let Some((child, refusal)) = ds {
        return Failure::new(
            FailureKind::DsNotApproved,
            format!(
                "{child} DS: not signed: {refusal}{others}. {child} is bound here too, so its DS goes out only as officers exported it: approve what the primary has with `countersign propose export-ds --zone {child}`, or correct it at the primary"
            ),
        );
    }
    let Some((at, refusal)) = no.first() else {
        return Failure::new(FailureKind::Keeper, "no signature");
    };
    let named = name(*at).map_or_else(String::new, |(owner, rtype)| format!("{owner} {rtype}: "));
    Failure::new(FailureKind::Keeper, format!("{named}not signed: {refusal}{others}"))
}

/// Why a version did not come about.
pub(super) enum Stop {
    /// For CDS or CDNSKEY: it may go without them.
    Cds {
        /// What was wrong.
        why: String,
        /// Whether the keeper may sign them later without anyone changing anything.
        transient: bool,
    },
    /// For the DNSKEY RRset: it may go out with the signatures that are there.
    Dnskey(Failure),
    /// For anything else.
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        match failure.kind {
            FailureKind::Cds => Self::Cds { why: failure.detail, transient: false },
            _ => Self::Failed(failure),
        }
    }
}

/// Puts the signatures in place; what is left to sign is ZONEMD.
pub(super) fn assemble(
    planned: PlannedZone,
    signatures: Signatures,
) -> Result<AssembledZone, Stop> {
    planned
        .assemble(signatures)
        .map_err(|error| Stop::Failed(Failure::new(FailureKind::Verification, error)))
}

/// Has the keeper sign ZONEMD.
pub(super) fn have_zonemd_signed(
    keeper: &Client,
    apex: &ZoneName,
    tasks: Vec<Task>,
    refused: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<u8>>, Stop> {
    let signed = sign_window(keeper, apex, tasks, refused)?;
    let no = |refusal| {
        Stop::Failed(Failure::new(
            FailureKind::Keeper,
            format!("{apex} ZONEMD: not signed: {refusal}"),
        ))
    };
    signed.into_iter().map(|signature| signature.map_err(no)).collect()
}

/// Puts the version together and verifies it: the only way from signatures to a version.
pub(super) fn finish(
    assembled: AssembledZone,
    zonemd: Vec<Vec<u8>>,
    admitted: &AdmittedZone,
    params: &ZoneParams,
    now_s: u64,
    threads: NonZeroUsize,
) -> Result<VerifiedZone, Stop> {
    let fail = |error: &dyn std::fmt::Display| {
        Stop::Failed(Failure::new(FailureKind::Verification, error))
    };
    let signed = assembled.finish(zonemd).map_err(|error| fail(&error))?;
    let version = verify(signed, admitted, params, now_s, threads).map_err(|failure| {
        let why = failure.to_string();
        let cds = failure.is_about_cds();
        if cds { Stop::Cds { why, transient: false } } else { fail(&why) }
    })?;
    let expires_s = unwrap_time(version.earliest_expiration(), now_s);
    if expires_s <= now_s {
        let expired = format!("a signature expired at {}", crate::clock::Civil::of(expires_s));
        return Err(fail(&expired));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soa_serial_is_before_the_last_sixteen_octets() {
        let mut rdata = vec![0; 22];
        set_soa_serial(&mut rdata, 0x0102_0304);
        assert_eq!(rdata[2..6], [1, 2, 3, 4]);
        assert!(rdata[6..].iter().all(|octet| *octet == 0));
        set_soa_serial(&mut [], 1);
    }
}
