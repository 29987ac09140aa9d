//! From a zone's data to a version that may be published: admit, plan, have signed, assemble,
//! verify. Blocking, without a clock: `now` comes in, and each step says what stopped it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use aws_lc_rs::digest;
use countersign_hsm::client::{Client, ClientError, DnskeyOrder};
use countersign_hsm::protocol::{BATCH_MAX, Refusal, ZoneKeys};
use countersign_policy::signing::SerialPolicy;
use countersign_policy::{KeyId, ZoneName};
use countersign_zone::admit::{AdmissionParams, IncomingDnssec, admit};
use countersign_zone::plan::{PlanError, PlannedZone, Task, plan};
use countersign_zone::receive::{Bounds, CLASS_IN, ReceivedZone, Receiver};
use countersign_zone::serial::{SerialError, next_serial};
use countersign_zone::verify::{VerifiedZone, verify};
use countersign_zone::{AdmittedZone, Rtype, Signatures, ZoneKey, ZoneParams};

use super::schedule::{Failure, FailureKind, Params};

/// Signatures asked for before the next are made ready: enough batches in flight to keep an HSM
/// busy, few enough that the to-be-signed bytes of a zone of millions are never all in memory.
const WINDOW: usize = 16 * BATCH_MAX;

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

/// What a zone is signed with, and the digest that tells one such from another.
#[derive(Debug, Clone)]
pub(super) struct Signing {
    pub params: ZoneParams,
    pub policy_name: String,
    pub digest: [u8; 32],
}

impl Signing {
    /// Asks the keeper.
    pub fn ask(keeper: &Client, zone: &ZoneName) -> Result<Self, Failure> {
        keeper.zone(zone).map(Self::from).map_err(|error| keeper_failure(&error))
    }

    pub fn summary(&self) -> Params {
        Params { digest: self.digest, keep: self.params.policy.serial == SerialPolicy::Keep }
    }
}

impl From<ZoneKeys> for Signing {
    fn from(answer: ZoneKeys) -> Self {
        let keys: Vec<ZoneKey> = answer
            .keys
            .into_iter()
            .map(|key| ZoneKey { role: key.role, public: key.public })
            .collect();
        let mut context = digest::Context::new(&digest::SHA256);
        // A policy is a struct of names and numbers: it always serialises, fields in their order.
        context.update(&serde_json::to_vec(&answer.policy).unwrap_or_default());
        for key in &keys {
            context.update(&key.public.id().0);
            context.update(&key.role.flags().to_be_bytes());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        let (dnskey_until, cds) = (None, None);
        let params =
            ZoneParams { apex: answer.zone, policy: answer.policy, keys, dnskey_until, cds };
        Self { params, policy_name: answer.policy_name, digest }
    }
}

fn keeper_failure(error: &ClientError) -> Failure {
    Failure::new(FailureKind::Keeper, error)
}

/// Admits what a primary sent.
pub(super) fn admit_received(
    received: ReceivedZone,
    dnssec: IncomingDnssec,
    signing: &Signing,
) -> Result<AdmittedZone, Failure> {
    let params = AdmissionParams { dnssec, ttl_max_s: signing.params.policy.ttl_max_s };
    admit(received, &params).map_err(|refusal| Failure::new(FailureKind::Admission, refusal))
}

/// The primary's data again, from the version that was made of it: the same records without
/// ours, under the primary's serial. So a refresh needs neither the primary nor a second copy on
/// disk, after a restart as before it.
pub(super) fn admit_again(
    version: &VerifiedZone,
    incoming_serial: u32,
    signing: &Signing,
) -> Result<AdmittedZone, Failure> {
    let fail = |refusal| Failure::new(FailureKind::Admission, refusal);
    // They were within bounds when they came.
    let bounds = Bounds { records_max: usize::MAX, bytes_max: usize::MAX };
    let mut receiver = Receiver::new(version.apex().clone(), bounds);
    for node in version.records() {
        for rrset in node.rrsets().filter(|rrset| !rrset.rtype().is_signers_own()) {
            for rdata in rrset.rdatas() {
                let mut rdata = rdata.to_vec();
                if rrset.rtype() == Rtype::SOA {
                    set_soa_serial(&mut rdata, incoming_serial);
                }
                receiver
                    .push(rrset.owner(), rrset.rtype().0, CLASS_IN, rrset.ttl_s(), &rdata)
                    .map_err(fail)?;
            }
        }
    }
    admit_received(receiver.finish().map_err(fail)?, IncomingDnssec::Strip, signing)
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
    signing: &Signing,
    serials: Serials,
    now_s: u64,
) -> Result<PlannedZone, Failure> {
    let Serials { last_published, last_incoming } = serials;
    let policy = signing.params.policy.serial;
    let serial = next_serial(policy, admitted.serial(), last_published, last_incoming, now_s)
        .map_err(|error| {
            let kind = match error {
                SerialError::WaitsForPrimary { .. } => FailureKind::WaitsForPrimary,
                _ => FailureKind::Admission,
            };
            Failure::new(kind, error)
        })?;
    plan(admitted, previous, &signing.params, serial, now_s).map_err(|error| {
        let kind = match error {
            // The primary's data is at fault, and other data may fit.
            PlanError::ApexTooLong(_) | PlanError::HashCollision(..) | PlanError::NoSoa(_) => {
                FailureKind::Admission
            }
            // The keys or the policy are.
            _ => FailureKind::Keeper,
        };
        Failure::new(kind, error)
    })
}

/// Has the keeper make them. `refused` counts those that it did not make.
pub(super) fn have_signed(
    keeper: &Client,
    planned: &PlannedZone,
    refused: &mut dyn FnMut(usize),
) -> Result<Signatures, Failure> {
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
            keeper_failure(&error)
        })?);
    }
    let mut zone = Vec::new();
    let mut tasks = planned.tasks().peekable();
    while tasks.peek().is_some() {
        let window: Vec<Task> = tasks.by_ref().take(WINDOW).collect();
        zone.extend(sign_window(keeper, apex, window, refused)?);
    }
    Ok(Signatures { zone, dnskey, cds: Vec::new() })
}

/// Signs a window's tasks, by key, and puts the signatures into the tasks' order.
fn sign_window(
    keeper: &Client,
    apex: &ZoneName,
    window: Vec<Task>,
    refused: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<u8>>, Failure> {
    let mut signatures = vec![Vec::new(); window.len()];
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
            signatures[place] = answer.map_err(|refusal| item_refused(key, no, count, &refusal))?;
        }
    }
    Ok(signatures)
}

fn item_refused(key: KeyId, no: usize, count: usize, refusal: &Refusal) -> Failure {
    Failure::new(
        FailureKind::Keeper,
        format!("key {key}: {no} of {count} signatures refused, the first as {refusal}"),
    )
}

/// Puts the version together and verifies it: the only way from signatures to a version.
pub(super) fn finish(
    planned: PlannedZone,
    signatures: Signatures,
    admitted: &AdmittedZone,
    signing: &Signing,
    now_s: u64,
    threads: NonZeroUsize,
) -> Result<VerifiedZone, Failure> {
    let signed = planned
        .assemble(signatures)
        .map_err(|error| Failure::new(FailureKind::Verification, error))?;
    let version = verify(signed, admitted, &signing.params, now_s, threads)
        .map_err(|failure| Failure::new(FailureKind::Verification, failure))?;
    let expires_s = unwrap_time(version.earliest_expiration(), now_s);
    if expires_s <= now_s {
        return Err(Failure::new(
            FailureKind::Verification,
            format!("a signature expired at {}", crate::clock::Civil::of(expires_s)),
        ));
    }
    Ok(version)
}

/// The whole of an RRSIG time, which is modulo 2^32 (RFC 4034 §3.1.5): the one nearest to now.
pub(super) fn unwrap_time(time: u32, now_s: u64) -> u64 {
    let ahead = time.wrapping_sub(now_s as u32).cast_signed();
    now_s.saturating_add_signed(ahead.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rrsig_times_are_those_nearest_to_now() {
        let turn = 1_u64 << 32;
        for (time, now_s, expect) in [
            (100, 50, 100),
            (50, 100, 50),
            (5, turn - 5, turn + 5),
            (u32::MAX, turn + 5, turn - 1),
            (u32::MAX, 5, 0),
        ] {
            assert_eq!(unwrap_time(time, now_s), expect, "{time} {now_s}");
        }
    }

    #[test]
    fn the_soa_serial_is_before_the_last_sixteen_octets() {
        let mut rdata = vec![0; 22];
        set_soa_serial(&mut rdata, 0x0102_0304);
        assert_eq!(rdata[2..6], [1, 2, 3, 4]);
        assert!(rdata[6..].iter().all(|octet| *octet == 0));
        set_soa_serial(&mut [], 1);
    }
}
