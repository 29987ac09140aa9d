//! What a zone is here: its binding to a policy, the DNSKEY RRset that its KSK may sign, and what
//! may be told to its parent (RFC 4034 §5, RFC 7344).

use std::collections::BTreeSet;

use super::LedgerState;
use super::keys::KeyRecord;
use crate::ds::DsDigest;
use crate::key::KeyId;
use crate::key_state::Stage;
use crate::name::ZoneName;
use crate::permit::Denied;
use crate::signing::{DnskeyApproval, SigningPolicy};
use crate::text::time_text;

/// Signatures over CDS and CDNSKEY are short, so that one that was kept back can't be shown to a
/// parent for long once its motion is over.
pub const CDS_VALIDITY_S: u32 = 3 * 86_400;

/// At the end of a DNSKEY RRset that was approved as a whole: time enough to sign, verify and hand out
/// a zone of any size, and for secondaries to fetch it.
const HANDOVER_S_MAX: u64 = 3_600;
/// One that lasts less than eight of these hands over in its last eighth.
const HANDOVER_PART: u64 = 8;

/// The binding of a zone to a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Name of the policy.
    pub policy: String,
    /// The line of `Begun` that bound it: what is done for the zone without a further quorum is
    /// done under this line.
    pub line: u64,
}

/// The DNSKEY RRset that a zone's KSK or CSK may sign now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnskeySet {
    /// The keys that it holds, no more and no less.
    pub keys: BTreeSet<KeyId>,
    /// No signature over it is valid for longer, in seconds since 1970; else the policy bounds it.
    pub until: Option<u64>,
    /// The line that allows it.
    pub under: u64,
}

/// A DNSKEY RRset that a quorum put in place of the standing one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExplicitSet {
    pub(super) keys: BTreeSet<KeyId>,
    /// When it began.
    pub(super) at: u64,
    pub(super) until: u64,
    pub(super) begun: u64,
}

impl ExplicitSet {
    /// From when on the standing set may be signed again, where the policy has one. No signature over
    /// this set outlives `until`, so one over the next has to be there before.
    fn hands_over_at(&self) -> u64 {
        let lasts = self.until.saturating_sub(self.at);
        self.until - HANDOVER_S_MAX.min(lasts / HANDOVER_PART)
    }
}

/// Leave to hand out DS records: the newest of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DsGrant {
    /// The line of `Begun`.
    pub begun: u64,
    /// The keys that they name.
    pub keys: BTreeSet<KeyId>,
    /// With which digests.
    pub digests: BTreeSet<DsDigest>,
    /// Handed out no later, in seconds since 1970.
    pub until: u64,
    /// The RDATA of each.
    pub rdata: BTreeSet<Vec<u8>>,
}

/// Leave to publish CDS and CDNSKEY: the newest of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdsGrant {
    /// The line of `Begun`.
    pub begun: u64,
    /// The keys that they name: none in the delete form (RFC 8078 §4).
    pub keys: BTreeSet<KeyId>,
    /// RDATA of the CDS RRset.
    pub cds: BTreeSet<Vec<u8>>,
    /// RDATA of the CDNSKEY RRset.
    pub cdnskey: BTreeSet<Vec<u8>>,
    /// Published, and signed for, no longer; in seconds since 1970.
    pub until: u64,
    /// From now to the expiration of their signatures, at most.
    pub validity_s: u32,
}

impl LedgerState {
    /// The policy that `zone` is bound to.
    pub fn policy_of(&self, zone: &ZoneName) -> Option<&SigningPolicy> {
        self.policies.get(&self.zones.get(zone)?.policy).map(|(_, policy)| policy)
    }

    /// The zone's binding and policy, or that it has none.
    pub(crate) fn bound(
        &self,
        zone: &ZoneName,
    ) -> Result<(&super::Binding, &SigningPolicy), Denied> {
        let bound = self.zones.get(zone).zip(self.policy_of(zone));
        bound.ok_or_else(|| Denied::Unknown(format!("{zone} is not bound here")))
    }

    /// The DNSKEY RRset that the zone's KSK or CSK may sign now: a live set that a quorum approved as
    /// a whole, else, unless the policy says `per-set`, all active keys. Those are back an hour before the
    /// approved set ends, so that the zone is never without a signature that is valid.
    pub fn dnskey_set(&self, zone: &ZoneName, now_s: u64) -> Result<DnskeySet, Denied> {
        let (binding, policy) = self.bound(zone)?;
        let per_set = policy.approval == DnskeyApproval::PerSet;
        let in_force =
            |set: &&ExplicitSet| now_s <= if per_set { set.until } else { set.hands_over_at() };
        if let Some(set) = self.explicit.get(zone).filter(in_force) {
            let (keys, until) = (set.keys.clone(), Some(set.until));
            return Ok(DnskeySet { keys, until, under: set.begun });
        }
        if per_set {
            return Err(Denied::Forbidden(format!(
                "the policy of {zone} wants each DNSKEY RRset approved, and none is in force; propose \
                 sign-dnskey-set"
            )));
        }
        let active = self.dnskeys_of(zone);
        let keys: BTreeSet<KeyId> = active.map(|(id, _)| *id).collect();
        Ok(DnskeySet { keys, until: None, under: binding.line })
    }

    /// The keys of a zone that are in use: active, and with a tag of their own.
    pub fn dnskeys_of<'a>(
        &'a self,
        zone: &ZoneName,
    ) -> impl Iterator<Item = (&'a KeyId, &'a KeyRecord)> {
        self.keys_of(zone)
            .filter(|(_, key)| key.stage == Stage::Active && key.collides_with.is_none())
    }

    /// The leave to hand out DS records of the zone, while it lasts. Each time is a line of its own
    /// (`DsExported`), which is refused while the zone is frozen or the clock is not believed.
    pub fn ds_export(&self, zone: &ZoneName, now_s: u64) -> Option<&DsGrant> {
        self.ds.get(zone).filter(|grant| now_s <= grant.until)
    }

    /// The leave to publish CDS and CDNSKEY, while it lasts.
    pub fn cds(&self, zone: &ZoneName, now_s: u64) -> Option<&CdsGrant> {
        self.cds.get(zone).filter(|grant| now_s <= grant.until)
    }

    /// The RDATAs of the DS RRset that a quorum exported last for `child`: a parent zone's ZSK here
    /// signs exactly that set. It outlives the export, until a newer one.
    pub fn approved_ds(&self, child: &ZoneName) -> Option<&BTreeSet<Vec<u8>>> {
        self.ds.get(child).map(|grant| &grant.rdata)
    }

    pub(super) fn judge_exported(
        &self,
        at: u64,
        begun: u64,
        zone: &ZoneName,
    ) -> Result<(), String> {
        let Some(grant) = self.ds.get(zone).filter(|grant| grant.begun == begun) else {
            return Err(format!("line {begun} is not the newest export of {zone}"));
        };
        if at > grant.until {
            return Err(format!(
                "the export of {zone} ended at {}; propose export-ds anew",
                time_text(grant.until)
            ));
        }
        self.ksk_may(zone, at).map_err(|denied| denied.to_string())
    }
}
