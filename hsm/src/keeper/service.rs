//! What the keeper does with each request. Nothing here trusts the daemon: zone, key, rules and clock
//! are the ledger's and the keeper's own, and a message only chooses among what they allow.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use countersign_policy::key::to_hex;
use countersign_policy::ledger::{LedgerState, Operation, Outcome};
use countersign_policy::{KeyId, KeyRole, PublicKey, ZoneName};

use super::door::Hsm;
use super::judge::{self, KeyInUse};
use super::keys::missing_roles;
use crate::ledger::{Ledger, Note, WriteError, sha256};
use crate::pkcs11::HsmError;
use crate::protocol::{
    FRAME_BYTES_MAX, KeyInfo, LedgerRequest, LedgerResponse, PROTOCOL_VERSION, Refusal,
    RefusalKind, Request, Response, ZONES_PER_ANSWER, ZoneKeys,
};

/// Uses of a zone's KSK in [`HOUR_S`]: a daemon asks when a key set changes and when its
/// signature nears its end; this many leave room for restarts and tests, and keep a stolen daemon
/// from filling the ledger.
const KSK_USES_MAX: u32 = 120;
const HOUR_S: u64 = 3_600;

/// Lines about published versions of a zone in an hour: one a second is more than any zone changes,
/// and keeps a stolen daemon from filling the ledger. What is over counts in the next line.
const ZONE_LINES_MAX: u32 = 3_600;

/// Lines in one answer: what fits a frame is the bound in practice.
const LINES_PER_ANSWER: usize = 10_000;

/// Answers requests; shared by all connections.
pub struct Service<H> {
    ledger: Ledger,
    hsm: H,
    now_s: fn() -> u64,
    tallies: Mutex<BTreeMap<ZoneName, Tally>>,
}

/// What was done for a zone; a zone that is not bound has none.
#[derive(Debug, Default)]
struct Tally {
    /// Signatures with zone data since the last [`Note::ZoneSigned`].
    signatures: BTreeMap<KeyId, u32>,
    ksk_uses: Hourly,
    lines: Hourly,
}

/// Counts within an hour of the keeper's clock.
#[derive(Debug, Default)]
struct Hourly {
    hour: u64,
    count: u32,
}

impl Hourly {
    /// Counts one more, unless that would be more than `max` in the hour of `now_s`.
    fn take(&mut self, now_s: u64, max: u32) -> bool {
        let hour = now_s / HOUR_S;
        if self.hour != hour {
            *self = Self { hour, count: 0 };
        }
        let fits = self.count < max;
        self.count += u32::from(fits);
        fits
    }
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Denied(denied) => judge::refusal(&denied),
            WriteError::Contradiction(_) | WriteError::Unavailable(_) => {
                Self { kind: RefusalKind::LedgerUnavailable, detail: error.to_string() }
            }
        }
    }
}

fn refuse<T>(kind: RefusalKind, detail: String) -> Result<T, Refusal> {
    Err(Refusal { kind, detail })
}

impl<H: Hsm> Service<H> {
    /// Serves from `ledger` and `hsm`; `now_s` is the keeper's clock.
    pub fn new(ledger: Ledger, hsm: H, now_s: fn() -> u64) -> Self {
        Self { ledger, hsm, now_s, tallies: Mutex::default() }
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The tokens.
    pub fn hsm(&self) -> &H {
        &self.hsm
    }

    /// Answers the daemon.
    pub fn answer(&self, request: Request) -> Response {
        let answer = match request {
            Request::Hello { protocol } => self.hello(protocol),
            Request::Zones { after } => self.zones(after.as_ref()),
            Request::Zone { zone } => self.zone(&zone),
            Request::SignZone { zone, key, tbs } => self.sign_zone(&zone, key, tbs),
            Request::SignDnskey { zone, keys, signer, ttl_s, inception, expiration } => {
                let times = (inception, expiration);
                self.sign_dnskey(Operation::SignDnskey {
                    zone,
                    keys,
                    signer,
                    ttl_s,
                    inception: times.0,
                    expiration: times.1,
                })
            }
            Request::Published { zone, serial, digest } => self.published(zone, serial, digest),
            Request::Health => Ok(Response::Health(self.hsm.health())),
        };
        answer.unwrap_or_else(|refusal| {
            if refusal.kind.is_transient() {
                // The daemon asks again and again; what is wrong is logged where it is.
                tracing::debug!(kind = %refusal.kind, detail = refusal.detail, "refused");
            } else {
                tracing::warn!(kind = %refusal.kind, detail = refusal.detail, "refused");
            }
            Response::Refused(refusal)
        })
    }

    /// Answers anyone in the group.
    pub fn answer_ledger(&self, request: &LedgerRequest) -> LedgerResponse {
        match *request {
            LedgerRequest::Hello { protocol } if protocol == PROTOCOL_VERSION => {
                LedgerResponse::Hello { protocol: PROTOCOL_VERSION }
            }
            LedgerRequest::Hello { protocol } => LedgerResponse::Refused(other_protocol(protocol)),
            LedgerRequest::Head => {
                let (lines, founding) = self.ledger.head();
                LedgerResponse::Head { lines, founding }
            }
            LedgerRequest::Read { from, skip, max } => {
                let max = usize::try_from(max).unwrap_or(usize::MAX).min(LINES_PER_ANSWER);
                match self.ledger.lines(from, skip, max, FRAME_BYTES_MAX - 1024) {
                    Ok((lines, cut)) => LedgerResponse::Lines { lines, cut },
                    Err(e) => LedgerResponse::Refused(Refusal {
                        kind: RefusalKind::LedgerUnavailable,
                        detail: format!("reading the ledger: {e}"),
                    }),
                }
            }
        }
    }

    fn hello(&self, protocol: u16) -> Result<Response, Refusal> {
        if protocol != PROTOCOL_VERSION {
            return Err(other_protocol(protocol));
        }
        let appliance = self
            .ledger
            .read(|state| state.founding().map(|(_, founding)| founding.appliance.clone()));
        Ok(Response::Hello {
            protocol: PROTOCOL_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            appliance: appliance.unwrap_or_default(),
            founding: self.ledger.head().1,
            lab: true,
        })
    }

    fn zones(&self, after: Option<&ZoneName>) -> Result<Response, Refusal> {
        self.ledger.read(|state| {
            let Some((_, founding)) = state.founding() else { return unfounded() };
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut names = founding.zone.range((from, Bound::Unbounded)).map(|(name, _)| name);
            let zones: Vec<ZoneName> = names.by_ref().take(ZONES_PER_ANSWER).cloned().collect();
            Ok(Response::Zones { zones, more: names.next().is_some() })
        })
    }

    fn zone(&self, zone: &ZoneName) -> Result<Response, Refusal> {
        self.ledger.read(|state| {
            let Some((_, founding)) = state.founding() else { return unfounded() };
            let (Some(binding), Some(policy)) = (founding.zone.get(zone), founding.policy_of(zone))
            else {
                return unbound(zone);
            };
            let missing = missing_roles(state, founding, zone);
            if let Some(role) = missing.first() {
                return refuse(
                    RefusalKind::HsmUnavailable,
                    format!("the {role} of {zone} is not made yet; the keeper's log says why"),
                );
            }
            let keys = state.dnskeys_of(zone).map(|(id, record)| {
                let status = self.hsm.key_status(id);
                let conflict = status.as_ref().and_then(|status| status.conflict.clone());
                KeyInfo {
                    role: record.role,
                    public: record.public.clone(),
                    proven_by: status.map(|status| status.proven_by).unwrap_or_default(),
                    unusable: conflict.or_else(|| record.conflict.clone()),
                }
            });
            Ok(Response::Zone(ZoneKeys {
                zone: zone.clone(),
                policy_name: binding.policy.clone(),
                policy: policy.clone(),
                keys: keys.collect(),
            }))
        })
    }

    fn sign_zone(
        &self,
        zone: &ZoneName,
        key: KeyId,
        items: Vec<Vec<u8>>,
    ) -> Result<Response, Refusal> {
        let verdicts = self.judge(zone, &key, &items)?;
        let judged: Vec<_> = items.into_iter().zip(verdicts).collect();
        let allowed: Vec<Vec<u8>> =
            judged.iter().filter(|(_, v)| v.is_ok()).map(|(item, _)| item.clone()).collect();
        let mut signed = if allowed.is_empty() {
            Vec::new().into_iter()
        } else {
            self.hsm.sign_zone(&key, allowed).into_iter()
        };
        let no_answer = || HsmError::Unavailable("the tokens gave no answer".to_owned());
        let mut made = 0;
        let answers: Vec<Result<Vec<u8>, Refusal>> = judged
            .into_iter()
            .map(|(_, verdict)| {
                verdict?;
                let signature = signed.next().unwrap_or_else(|| Err(no_answer()))?;
                made += 1;
                Ok(signature)
            })
            .collect();
        if made > 0 {
            let mut tallies = self.tallies();
            let signatures = &mut tallies.entry(zone.clone()).or_default().signatures;
            let count = signatures.entry(key).or_default();
            *count = count.saturating_add(made);
        }
        if let Some(refusal) = answers.iter().find_map(|answer| answer.as_ref().err()) {
            let refused = answers.len() - made as usize;
            tracing::warn!(%zone, %key, refused, first = %refusal, "items were not signed");
        }
        Ok(Response::Signatures(answers))
    }

    /// A verdict for each item, or a refusal of them all.
    fn judge(
        &self,
        zone: &ZoneName,
        key: &KeyId,
        items: &[Vec<u8>],
    ) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        let now_s = (self.now_s)();
        self.ledger.read(|state| {
            let Some((_, founding)) = state.founding() else { return unfounded() };
            let Some(policy) = founding.policy_of(zone) else { return unbound(zone) };
            let Some(record) = state.keys().get(key).filter(|record| record.zone == *zone) else {
                return refuse(RefusalKind::Unknown, format!("{zone} has no key {key}"));
            };
            if !record.role.signs_zone() {
                return refuse(
                    RefusalKind::Forbidden,
                    format!("key {key} is the {} of {zone}; zone data takes its ZSK", record.role),
                );
            }
            if let Some(why) = &record.conflict {
                return refuse(RefusalKind::KeyConflict, format!("key {key} of {zone}: {why}"));
            }
            if record.collides_with.is_some() {
                return refuse(
                    RefusalKind::Forbidden,
                    format!("key {key} of {zone} shares a tag with another and is not used"),
                );
            }
            let key = KeyInUse { zone, role: record.role, public: &record.public, policy };
            let verdict = |item: &Vec<u8>| judge::judge_zone_tbs(&key, &founding.zone, now_s, item);
            Ok(items.iter().map(verdict).collect())
        })
    }

    fn sign_dnskey(&self, operation: Operation) -> Result<Response, Refusal> {
        let Operation::SignDnskey { zone, keys, signer, ttl_s, inception, expiration } = &operation
        else {
            return refuse(RefusalKind::Malformed, "not about a DNSKEY RRset".to_owned());
        };
        let now_s = (self.now_s)();
        // Judged here too, so that nothing is counted or written for what is not allowed anyway.
        let (under, published) = self.ledger.read(|state| {
            let Some((under, _)) = state.founding() else { return unfounded() };
            state.allows(&operation, under, now_s).map_err(|e| judge::refusal(&e))?;
            Ok((under, published(state, keys)))
        })?;
        self.check_proven(zone, keys, signer, &published)?;
        self.count_ksk_use(zone, now_s)?;
        let tbs = self.ledger.read(|state| {
            let material = |id: &KeyId| state.keys().get(id).map(|key| (key.role, &key.public));
            let all: Vec<(KeyRole, &PublicKey)> = keys.iter().filter_map(material).collect();
            let signer = material(signer)?;
            let times = (*inception, *expiration);
            Some(judge::build_dnskey_tbs(zone, &all, signer, *ttl_s, times))
        });
        let Some(tbs) = tbs else {
            return refuse(RefusalKind::Unknown, format!("{zone} has no key {signer}"));
        };
        let (zone, signer) = (zone.clone(), *signer);
        let leave = self.ledger.intend(operation, under, now_s)?;
        let (spent, signed) = self.hsm.sign_ksk(leave, &tbs);
        let intent = spent.intent();
        let outcome = match &signed {
            Ok(signature) => Outcome::Signed { signature: to_hex(&sha256(signature)) },
            Err(HsmError::OutcomeUnknown { detail, .. }) => {
                Outcome::Unknown { reason: detail.clone() }
            }
            Err(error) => Outcome::Failed { reason: error.to_string() },
        };
        // A signature whose result can't be recorded is kept back.
        self.ledger.outcome(spent, outcome, (self.now_s)())?;
        let signature = signed?;
        tracing::info!(%zone, key = %signer, line = intent, "a DNSKEY RRset was signed");
        Ok(Response::DnskeySignature(signature))
    }

    /// No key is published that no token has proven; the signer must be proven now.
    fn check_proven(
        &self,
        zone: &ZoneName,
        keys: &BTreeSet<KeyId>,
        signer: &KeyId,
        published: &BTreeSet<KeyId>,
    ) -> Result<(), Refusal> {
        for id in keys {
            let status = self.hsm.key_status(id);
            if let Some(why) = status.as_ref().and_then(|status| status.conflict.as_ref()) {
                return refuse(RefusalKind::KeyConflict, format!("key {id} of {zone}: {why}"));
            }
            let proven = status.is_some_and(|status| !status.proven_by.is_empty());
            if !proven && (id == signer || !published.contains(id)) {
                return refuse(
                    RefusalKind::HsmUnavailable,
                    format!("no token has proven key {id} of {zone} yet; see the tokens' health"),
                );
            }
        }
        Ok(())
    }

    fn count_ksk_use(&self, zone: &ZoneName, now_s: u64) -> Result<(), Refusal> {
        let mut tallies = self.tallies();
        if tallies.entry(zone.clone()).or_default().ksk_uses.take(now_s, KSK_USES_MAX) {
            return Ok(());
        }
        refuse(
            RefusalKind::Busy,
            format!("{zone}: {KSK_USES_MAX} uses of its KSK in this hour; ask in the next"),
        )
    }

    fn published(
        &self,
        zone: ZoneName,
        serial: u32,
        digest: [u8; 32],
    ) -> Result<Response, Refusal> {
        let bound = self.ledger.read(|state| {
            state.founding().is_some_and(|(_, founding)| founding.zone.contains_key(&zone))
        });
        if !bound {
            return unbound(&zone);
        }
        let now_s = (self.now_s)();
        let signatures = {
            let mut tallies = self.tallies();
            let tally = tallies.entry(zone.clone()).or_default();
            if tally.signatures.is_empty() {
                // Nothing was signed for it, so there is nothing to record.
                return Ok(Response::Recorded);
            }
            if !tally.lines.take(now_s, ZONE_LINES_MAX) {
                return refuse(
                    RefusalKind::Busy,
                    format!(
                        "{zone}: {ZONE_LINES_MAX} versions recorded in this hour; the next line counts this one too"
                    ),
                );
            }
            std::mem::take(&mut tally.signatures)
        };
        let digest = to_hex(&digest);
        let note = Note::ZoneSigned { zone: zone.clone(), serial, digest, signatures };
        match self.ledger.note(note.clone(), now_s) {
            Ok(_) => Ok(Response::Recorded),
            Err(error) => {
                // The next line that can be written counts these too.
                if let Note::ZoneSigned { signatures, .. } = note {
                    let mut tallies = self.tallies();
                    let kept = &mut tallies.entry(zone).or_default().signatures;
                    for (key, count) in signatures {
                        let sum = kept.entry(key).or_default();
                        *sum = sum.saturating_add(count);
                    }
                }
                Err(error.into())
            }
        }
    }

    fn tallies(&self) -> MutexGuard<'_, BTreeMap<ZoneName, Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which of these were in a DNSKEY RRset before.
fn published(state: &LedgerState, keys: &BTreeSet<KeyId>) -> BTreeSet<KeyId> {
    let before = |id: &&KeyId| state.keys().get(*id).is_some_and(|key| key.published);
    keys.iter().filter(before).copied().collect()
}

fn other_protocol(theirs: u16) -> Refusal {
    Refusal {
        kind: RefusalKind::Malformed,
        detail: format!(
            "protocol {theirs}; this keeper speaks {PROTOCOL_VERSION}: install one release"
        ),
    }
}

fn unfounded<T>() -> Result<T, Refusal> {
    refuse(RefusalKind::LedgerUnavailable, "there is no founding".to_owned())
}

fn unbound<T>(zone: &ZoneName) -> Result<T, Refusal> {
    refuse(RefusalKind::Unknown, format!("{zone} is not bound here; its founding would name it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_holds_so_many_and_the_next_as_many_again() {
        let mut hourly = Hourly::default();
        assert!((0..3).all(|_| hourly.take(7_199, 3)));
        assert!(!hourly.take(7_199, 3));
        assert!((0..3).all(|second| hourly.take(7_200 + second, 3)));
        assert!(!hourly.take(10_799, 3));
    }
}
