//! What a founded keeper does with each request of the daemon. Nothing here trusts the daemon: zone, key,
//! rules and clock are the ledger's and the keeper's own, and a message only chooses among what they
//! allow. What people hand in is in [`super::papers`], what a KSK signs in [`super::ksk`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_policy::key::to_hex;
use countersign_policy::key_state::Stage;
use countersign_policy::ledger::{LedgerError, LedgerState, Operation};
use countersign_policy::state::CdsGrant;
use countersign_policy::{KeyId, ZoneName};

use super::config::KeeperConfig;
use super::door::Hsm;
use super::judge::{self, KeyInUse};
use super::ksk::KSK_USES_MAX;
use super::motions::Unfinished;
use super::papers::{Asked, EXPORTS_AN_HOUR_MAX};
use super::reader;
use super::seal::{Idle, Seals};
use super::server::Keeper;
use crate::ledger::{Ledger, Note, WriteError};
use crate::pkcs11::HsmError;
use crate::protocol::{
    CdsOrder, KeeperHealth, KeyInfo, LedgerRequest, LedgerResponse, PROTOCOL_VERSION, Refusal,
    RefusalKind, Request, Response, ZONES_PER_ANSWER, ZoneKeys,
};

const HOUR_S: u64 = 3_600;

/// Lines about published versions of a zone in an hour: one a second is more than any zone changes,
/// and keeps a stolen daemon from filling the ledger. What is over counts in the next line.
const ZONE_LINES_MAX: u32 = 3_600;

/// Answers requests; shared by all connections.
pub struct Service<H> {
    ledger: Arc<Ledger>,
    hsm: H,
    seals: Arc<Seals>,
    config: KeeperConfig,
    now_s: fn() -> u64,
    tallies: Mutex<BTreeMap<ZoneName, Tally>>,
    asked: Mutex<Asked>,
    surveying: Mutex<()>,
    unfinished: Mutex<Vec<Unfinished>>,
    executor: SyncSender<()>,
}

/// What was done for a zone; a zone that is not bound has none.
#[derive(Debug, Default)]
struct Tally {
    /// Signatures with zone data since the last [`Note::zone_signed`].
    signatures: BTreeMap<KeyId, u32>,
    ksk_uses: Hourly,
    lines: Hourly,
    exports: Hourly,
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

/// A line that the ledger's judge refused: what is wrong with it is the answer.
pub(super) fn judged(error: WriteError) -> Refusal {
    match error {
        WriteError::Contradiction(LedgerError::Contradiction { problem, .. }) => {
            Refusal { kind: RefusalKind::Forbidden, detail: problem }
        }
        other => other.into(),
    }
}

/// A keeper that uses no key.
pub(super) fn refusal(idle: &Idle) -> Refusal {
    let kind = match idle {
        Idle::Behind(_) => RefusalKind::LedgerUnavailable,
        Idle::Elsewhere(_) => RefusalKind::HsmUnavailable,
    };
    Refusal { kind, detail: idle.why().to_owned() }
}

/// A "no".
pub(super) fn refuse<T>(kind: RefusalKind, detail: String) -> Result<T, Refusal> {
    Err(Refusal { kind, detail })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these; a poisoned lock still guards whole data.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<H: Hsm> Service<H> {
    /// Serves from `ledger` and `hsm`; `now_s` is the keeper's clock, and `executor` is told when
    /// there may be something to carry out.
    pub fn new(
        (ledger, seals): (Arc<Ledger>, Arc<Seals>),
        hsm: H,
        config: KeeperConfig,
        now_s: fn() -> u64,
        executor: SyncSender<()>,
    ) -> Self {
        Self {
            ledger,
            hsm,
            seals,
            config,
            now_s,
            tallies: Mutex::default(),
            asked: Mutex::default(),
            surveying: Mutex::default(),
            unfinished: Mutex::default(),
            executor,
        }
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The tokens.
    pub fn hsm(&self) -> &H {
        &self.hsm
    }

    /// What is sealed.
    pub fn seals(&self) -> &Seals {
        &self.seals
    }

    pub(super) fn config(&self) -> &KeeperConfig {
        &self.config
    }

    pub(super) fn now(&self) -> u64 {
        (self.now_s)()
    }

    pub(super) fn asked(&self) -> MutexGuard<'_, Asked> {
        locked(&self.asked)
    }

    pub(super) fn surveying(&self) -> &Mutex<()> {
        &self.surveying
    }

    /// What the executor could not do in its last round.
    pub fn set_unfinished(&self, unfinished: Vec<Unfinished>) {
        *locked(&self.unfinished) = unfinished;
    }

    pub(super) fn unfinished(&self) -> MutexGuard<'_, Vec<Unfinished>> {
        locked(&self.unfinished)
    }

    /// There may be something to carry out.
    pub(super) fn wake(&self) {
        // Full: it is awake already. Closed: the keeper is ending.
        let _ = self.executor.try_send(());
    }

    /// Answers the daemon.
    pub fn answer(&self, request: Request) -> Response {
        let answer = self.check_standing(&request).and_then(|()| match request {
            Request::Hello { protocol } => self.hello(protocol),
            Request::Zones { after } => Ok(self.zones(after.as_ref())),
            Request::Zone { zone } => self.zone(&zone),
            Request::SignZone { zone, key, tbs } => self.sign_zone(&zone, key, tbs),
            Request::SignDnskey { zone, keys, signer, ttl_s, inception, expiration } => self
                .sign_with_ksk(Operation::SignDnskey {
                    zone,
                    keys,
                    signer,
                    ttl_s,
                    inception,
                    expiration,
                })
                .map(Response::DnskeySignature),
            Request::SignCds { zone, rrset, signer, ttl_s, inception, expiration } => self
                .sign_with_ksk(Operation::SignCds {
                    zone,
                    rrset,
                    signer,
                    ttl_s,
                    inception,
                    expiration,
                })
                .map(Response::CdsSignature),
            Request::Published { zone, serial, digest } => self.published(zone, serial, digest),
            Request::Health => Ok(Response::Health(KeeperHealth {
                tokens: self.hsm.health(),
                notices: self.notices(),
            })),
        });
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

    /// While no key is used, the daemon learns why and nothing else.
    fn check_standing(&self, request: &Request) -> Result<(), Refusal> {
        match request {
            Request::Hello { .. } | Request::Health => Ok(()),
            _ => self.seals.idle(&self.ledger).map_or(Ok(()), |idle| Err(refusal(&idle))),
        }
    }

    fn hello(&self, protocol: u16) -> Result<Response, Refusal> {
        if protocol != PROTOCOL_VERSION {
            return Err(reader::other_protocol(protocol));
        }
        self.ledger.read(|state| {
            let (Some(founding), Some(hash)) = (state.founding(), state.appliance()) else {
                let detail = "there is no founding".to_owned();
                return refuse(RefusalKind::LedgerUnavailable, detail);
            };
            Ok(Response::Hello {
                protocol: PROTOCOL_VERSION,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                appliance: founding.name.clone(),
                founding: hash,
            })
        })
    }

    fn zones(&self, after: Option<&ZoneName>) -> Response {
        self.ledger.read(|state| {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut names = state.zones().range((from, Bound::Unbounded)).map(|(name, _)| name);
            let zones: Vec<ZoneName> = names.by_ref().take(ZONES_PER_ANSWER).cloned().collect();
            Response::Zones { zones, more: names.next().is_some() }
        })
    }

    fn zone(&self, zone: &ZoneName) -> Result<Response, Refusal> {
        let now_s = self.now();
        self.ledger.read(|state| {
            let (Some(binding), Some(policy)) = (state.zones().get(zone), state.policy_of(zone))
            else {
                return unbound(zone);
            };
            let set = state.dnskey_set(zone, now_s).map_err(|e| judge::refusal(&e))?;
            let has = |role| {
                let of_set = |id: &KeyId| state.keys().get(id).is_some_and(|key| key.role == role);
                set.keys.iter().any(of_set)
            };
            if set.until.is_none()
                && let Some(role) = policy.roles().iter().find(|role| !has(**role))
            {
                let (kind, hint) = if role.signs_dnskey() {
                    (RefusalKind::NoKey, "it takes a generate-key or activate-key motion")
                } else {
                    (RefusalKind::HsmUnavailable, "the keeper's log says why")
                };
                return refuse(kind, format!("{zone} has no active {role} yet; {hint}"));
            }
            let keys = set.keys.iter().map(|id| self.key_info(state, zone, id));
            let keys = keys.collect::<Result<Vec<_>, _>>()?;
            Ok(Response::Zone(ZoneKeys {
                zone: zone.clone(),
                policy_name: binding.policy.clone(),
                policy: policy.clone(),
                keys,
                dnskey_until: set.until,
                cds: state.cds(zone, now_s).map(cds_order),
            }))
        })
    }

    fn key_info(
        &self,
        state: &LedgerState,
        zone: &ZoneName,
        id: &KeyId,
    ) -> Result<KeyInfo, Refusal> {
        let record = state.keys().get(id);
        let Some((record, public)) = record.and_then(|r| Some((r, r.public.as_ref()?))) else {
            let detail = format!("the public half of key {id} of {zone} is not released");
            return refuse(RefusalKind::HsmUnavailable, detail);
        };
        let status = self.hsm.key_status(id);
        let conflict = status.as_ref().and_then(|status| status.conflict.clone());
        Ok(KeyInfo {
            role: record.role,
            public: public.clone(),
            proven_by: status.map(|status| status.proven_by).unwrap_or_default(),
            unusable: conflict.or_else(|| record.conflict.clone()),
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
        let now_s = self.now();
        self.ledger.read(|state| {
            let Some(policy) = state.policy_of(zone) else { return unbound(zone) };
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
            let Some(public) = record.public.as_ref().filter(|_| record.stage == Stage::Active)
            else {
                let detail = format!("key {key} of {zone} is {}, not active", record.stage);
                return refuse(RefusalKind::Forbidden, detail);
            };
            let key = KeyInUse { zone, role: record.role, public, policy };
            let exported = |owner: &ZoneName| {
                let is_here = state.zones().contains_key(owner);
                is_here.then(|| state.approved_ds(owner).cloned().unwrap_or_default())
            };
            let verdict = |item: &Vec<u8>| judge::judge_zone_tbs(&key, &exported, now_s, item);
            Ok(items.iter().map(verdict).collect())
        })
    }

    pub(super) fn count_ksk_use(&self, zone: &ZoneName, now_s: u64) -> Result<(), Refusal> {
        let mut tallies = self.tallies();
        if tallies.entry(zone.clone()).or_default().ksk_uses.take(now_s, KSK_USES_MAX) {
            return Ok(());
        }
        refuse(
            RefusalKind::Busy,
            format!("{zone}: {KSK_USES_MAX} uses of its KSK in this hour; ask in the next"),
        )
    }

    /// Counts one more handing out of the zone's DS records, unless that would be too many.
    pub(super) fn count_export(&self, zone: &ZoneName, now_s: u64) -> bool {
        let mut tallies = self.tallies();
        tallies.entry(zone.clone()).or_default().exports.take(now_s, EXPORTS_AN_HOUR_MAX)
    }

    fn published(
        &self,
        zone: ZoneName,
        serial: u32,
        digest: [u8; 32],
    ) -> Result<Response, Refusal> {
        if !self.ledger.read(|state| state.zones().contains_key(&zone)) {
            return unbound(&zone);
        }
        let now_s = self.now();
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
        let note = Note::zone_signed(zone.clone(), serial, digest, signatures.clone());
        match self.ledger.note(note, now_s) {
            Ok(_) => Ok(Response::Recorded),
            Err(error) => {
                // The next line that can be written counts these too.
                let mut tallies = self.tallies();
                let kept = &mut tallies.entry(zone).or_default().signatures;
                for (key, count) in signatures {
                    let sum = kept.entry(key).or_default();
                    *sum = sum.saturating_add(count);
                }
                Err(error.into())
            }
        }
    }

    fn tallies(&self) -> MutexGuard<'_, BTreeMap<ZoneName, Tally>> {
        locked(&self.tallies)
    }
}

/// CDS and CDNSKEY that a zone is to have now.
fn cds_order(grant: &CdsGrant) -> CdsOrder {
    let sorted = |rdatas: &BTreeSet<Vec<u8>>| rdatas.iter().cloned().collect();
    CdsOrder {
        cds: sorted(&grant.cds),
        cdnskey: sorted(&grant.cdnskey),
        until: grant.until,
        validity_s: grant.validity_s,
    }
}

/// A zone that is not signed here.
pub(super) fn unbound<T>(zone: &ZoneName) -> Result<T, Refusal> {
    refuse(RefusalKind::Unknown, format!("{zone} is not bound here; it takes a bind-zone motion"))
}

impl<H: Hsm + 'static> Keeper for Service<H> {
    fn answer_daemon(&self, request: Request) -> Response {
        self.answer(request)
    }

    fn answer_group(&self, request: LedgerRequest, user: u32) -> LedgerResponse {
        self.answer_user(request, user).unwrap_or_else(|refusal| {
            tracing::warn!(user, kind = %refusal.kind, detail = refusal.detail, "refused");
            LedgerResponse::Refused(refusal)
        })
    }
}

#[cfg(test)]
mod tests;
