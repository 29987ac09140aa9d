//! The use of KSKs and CSKs for what speaks for the zone's keys: DNSKEY, CDS and CDNSKEY. The octets are
//! built here, from the ledger; a message only names them.
//!
//! ```text
//! judged ─► proven ─► counted ─► intent ─► sealed ─► not frozen ─► HSM ─► outcome ─► handed out
//! ```

use std::collections::BTreeSet;

use countersign_policy::key::to_hex;
use countersign_policy::ledger::{CdsType, LedgerState, Operation, Outcome};
use countersign_policy::{KeyId, KeyRole, PublicKey, ZoneName};

use super::door::Hsm;
use super::judge;
use super::service::{Service, refuse};
use crate::ledger::sha256;
use crate::pkcs11::HsmError;
use crate::protocol::{Refusal, RefusalKind};

/// Uses of a zone's KSK in an hour: a daemon asks when a key set changes and when a signature nears
/// its end; this many leave room for restarts and tests, and keep a stolen daemon from filling the
/// ledger.
pub const KSK_USES_MAX: u32 = 120;

/// What is to be signed.
struct Order {
    zone: ZoneName,
    signer: KeyId,
    /// Keys that the RRset publishes.
    keys: BTreeSet<KeyId>,
    /// Those of them that were published before.
    published: BTreeSet<KeyId>,
    under: u64,
    group: String,
    tbs: Vec<u8>,
}

impl<H: Hsm> Service<H> {
    /// Signs a DNSKEY, CDS or CDNSKEY RRset; brings the RRSIG's signature field.
    pub(super) fn sign_with_ksk(&self, operation: Operation) -> Result<Vec<u8>, Refusal> {
        // Judged here too, so that nothing is counted or written for what is not allowed anyway.
        let (order, now_s) = self.ledger().read(|state| {
            // Read behind the last line's: a second that passes elsewhere sets no clock back.
            let now_s = self.now();
            ordered(state, &operation, now_s).map(|order| (order, now_s))
        })?;
        self.check_proven(&order)?;
        self.count_ksk_use(&order.zone, now_s)?;
        let (zone, signer) = (&order.zone, order.signer);
        let leave = self.ledger().intend(operation, order.under, || self.now())?;
        if let Err(reason) = self.seals().before_use(self.ledger(), self.hsm(), &order.group) {
            let outcome = Outcome::Failed { reason: reason.clone() };
            self.ledger().outcome(leave.spend(), outcome, self.now())?;
            return refuse(RefusalKind::LedgerUnavailable, reason);
        }
        if let Err(frozen) = self.check_frozen(zone) {
            let outcome = Outcome::Failed { reason: frozen.detail.clone() };
            self.ledger().outcome(leave.spend(), outcome, self.now())?;
            return Err(frozen);
        }
        let (spent, signed) = self.hsm().sign_ksk(leave, &order.tbs);
        let intent = spent.intent();
        let frozen = self.check_frozen(zone).err();
        let outcome = match (&signed, &frozen) {
            (Ok(_), Some(frozen)) => {
                let reason = format!("kept back: {}", frozen.detail);
                Outcome::Unknown { reason }
            }
            (Ok(signature), None) => Outcome::Signed { signature: to_hex(&sha256(signature)) },
            (Err(HsmError::OutcomeUnknown { detail, .. }), _) => {
                Outcome::Unknown { reason: detail.clone() }
            }
            (Err(error), _) => Outcome::Failed { reason: error.to_string() },
        };
        // A signature whose result can't be recorded is kept back.
        self.ledger().outcome(spent, outcome, self.now())?;
        let signature = signed?;
        if let Some(frozen) = frozen {
            return Err(frozen);
        }
        tracing::info!(%zone, key = %signer, line = intent, "an RRset was signed by a KSK");
        Ok(signature)
    }

    /// A freeze that came while this request was under way counts.
    fn check_frozen(&self, zone: &ZoneName) -> Result<(), Refusal> {
        match self.ledger().read(|state| state.freeze_of(zone).map(ToString::to_string)) {
            Some(frozen) => refuse(RefusalKind::Forbidden, frozen),
            None => Ok(()),
        }
    }

    /// No key is published that no token has proven; the signer must be proven now.
    fn check_proven(&self, order: &Order) -> Result<(), Refusal> {
        let zone = &order.zone;
        for id in order.keys.iter().chain([&order.signer]) {
            let status = self.hsm().key_status(id);
            if let Some(why) = status.as_ref().and_then(|status| status.conflict.as_ref()) {
                return refuse(RefusalKind::KeyConflict, format!("key {id} of {zone}: {why}"));
            }
            let proven = status.is_some_and(|status| !status.proven_by.is_empty());
            if !proven && (*id == order.signer || !order.published.contains(id)) {
                return refuse(
                    RefusalKind::HsmUnavailable,
                    format!("no token has proven key {id} of {zone} yet; see the tokens' health"),
                );
            }
        }
        Ok(())
    }
}

/// Judges the operation, and builds what is to be signed.
fn ordered(state: &LedgerState, operation: &Operation, now_s: u64) -> Result<Order, Refusal> {
    let (zone, signer, ttl_s, times) = match operation {
        Operation::SignDnskey { zone, signer, ttl_s, inception, expiration, .. }
        | Operation::SignCds { zone, signer, ttl_s, inception, expiration, .. } => {
            (zone, signer, *ttl_s, (*inception, *expiration))
        }
        _ => {
            let detail = "not about an RRset that a KSK signs".to_owned();
            return refuse(RefusalKind::Malformed, detail);
        }
    };
    let under = under(state, operation, now_s)?;
    state.allows(operation, under, now_s).map_err(|e| judge::refusal(&e))?;
    let unknown = |id: &KeyId| Refusal {
        kind: RefusalKind::Unknown,
        detail: format!("{zone} has no key {id}, or its public half is not released yet"),
    };
    let material = |id: &KeyId| {
        let record = state.keys().get(id).filter(|record| record.zone == *zone);
        let public = record.and_then(|record| record.public.as_ref());
        record.zip(public).map(|(record, public)| (record.role, public)).ok_or_else(|| unknown(id))
    };
    let by = material(signer)?;
    let group = state.keys().get(signer).map(|record| record.group.clone());
    let (keys, tbs) = match operation {
        Operation::SignDnskey { keys, .. } => {
            let all: Vec<(KeyRole, &PublicKey)> =
                keys.iter().map(material).collect::<Result<_, _>>()?;
            (keys.clone(), judge::build_dnskey_tbs(zone, &all, by, ttl_s, times))
        }
        Operation::SignCds { rrset, .. } => {
            let grant = state.cds(zone, now_s).ok_or_else(|| no_cds(zone))?;
            let rdatas = match rrset {
                CdsType::Cds => &grant.cds,
                CdsType::Cdnskey => &grant.cdnskey,
            };
            let tbs = judge::build_cds_tbs(zone, *rrset, rdatas, by, ttl_s, times);
            (BTreeSet::new(), tbs)
        }
        _ => return Err(unknown(signer)),
    };
    let before = |id: &&KeyId| state.keys().get(*id).is_some_and(|key| key.published);
    let published = keys.iter().filter(before).copied().collect();
    let (zone, signer) = (zone.clone(), *signer);
    Ok(Order { zone, signer, keys, published, under, group: group.unwrap_or_default(), tbs })
}

/// The line under which the operation may be intended; else which motion would allow it.
fn under(state: &LedgerState, operation: &Operation, now_s: u64) -> Result<u64, Refusal> {
    if let Some(line) = state.standing(operation, now_s) {
        return Ok(line);
    }
    let zone = operation.zone();
    if state.policy_of(zone).is_none() {
        return super::service::unbound(zone);
    }
    match operation {
        Operation::SignCds { .. } => Err(no_cds(zone)),
        _ => match state.dnskey_set(zone, now_s) {
            Ok(set) => Ok(set.under),
            Err(denied) => Err(judge::refusal(&denied)),
        },
    }
}

fn no_cds(zone: &ZoneName) -> Refusal {
    Refusal {
        kind: RefusalKind::Forbidden,
        detail: format!(
            "no CDS or CDNSKEY of {zone} is approved now; it takes a publish-cds or delete-ds motion"
        ),
    }
}
