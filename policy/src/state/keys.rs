//! Keys as the ledger knows them: records, pairs that are being made, and operations that have no
//! result yet. Nothing here decides; [`crate::permit`] judges intents, `outcome` judges results.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::LedgerState;
use super::time::DAY_S;
use crate::algorithm::Algorithm;
use crate::key::{KeyId, KeyRole, PublicKey};
use crate::key_state::Stage;
use crate::ledger::{MadeKey, Operation, generation_label};
use crate::name::ZoneName;

/// KSKs and CSKs of one zone that are not destroyed: enough for a rollover with a rollback, few
/// enough that no DNSKEY RRset outgrows a datagram.
pub const KSKS_MAX: usize = 8;
/// ZSKs of one zone that are not destroyed: the present, the next, the last, and one in reserve.
pub const ZSKS_MAX: usize = 4;
/// ZSKs made for one zone in seven days: a stolen daemon that asks for new ones fills no token.
pub const ZSKS_A_WEEK_MAX: usize = 8;
const WEEK_S: u64 = 7 * DAY_S;

/// A key that was made here or adopted, until it is destroyed on every token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Zone that it serves.
    pub zone: ZoneName,
    /// What it is for.
    pub role: KeyRole,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// The key tag of its DNSKEY.
    pub tag: u16,
    /// The same with the REVOKE bit.
    pub revoked_tag: u16,
    /// Its public half, once its publication is approved.
    pub public: Option<PublicKey>,
    /// The intent that made or adopted it.
    pub made_by: u64,
    /// The line that allowed that: of `Begun`, or for a ZSK of the zone's binding.
    pub under: u64,
    /// The label of its objects: [`generation_label`], or what an adopted key was found with.
    pub label: String,
    /// CKA_ID of an adopted key's objects, hexadecimal.
    pub cka_id: Option<String>,
    /// The token that made it or held it, by name.
    pub token: String,
    /// The group of that token as of then; it holds the key for good.
    pub group: String,
    /// Where it is in its life.
    pub stage: Stage,
    /// Why it is refused, if it is.
    pub conflict: Option<String>,
    /// An older key of the zone whose tag it shares, revoked form included: it is destroyed before
    /// anything is published, and another one made.
    pub collides_with: Option<KeyId>,
    /// It was in a DNSKEY RRset that a KSK was asked to sign.
    pub published: bool,
}

/// Where a key pair is being made: an intent without a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Making {
    /// For which zone.
    pub zone: ZoneName,
    /// What for.
    pub role: KeyRole,
    /// On which token.
    pub token: String,
    /// The intent.
    pub intent: u64,
}

/// An operation that the HSM was asked for and that has no result yet.
#[derive(Debug, Clone)]
pub(super) struct OpenIntent {
    pub(super) operation: Operation,
    pub(super) under: u64,
}

/// The keys, with what finds them.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    records: BTreeMap<KeyId, KeyRecord>,
    by_zone: BTreeMap<ZoneName, BTreeSet<KeyId>>,
    /// Those that were made here: their labels are unique.
    by_label: BTreeMap<String, KeyId>,
    makings: BTreeMap<String, Making>,
    open: BTreeMap<u64, OpenIntent>,
    /// When the last ZSKs of each zone were made: at most [`ZSKS_A_WEEK_MAX`].
    zsks_made: BTreeMap<ZoneName, VecDeque<u64>>,
}

impl Keys {
    pub(super) fn records(&self) -> &BTreeMap<KeyId, KeyRecord> {
        &self.records
    }

    pub(super) fn record_mut(&mut self, key: &KeyId) -> Option<&mut KeyRecord> {
        self.records.get_mut(key)
    }

    pub(super) fn set_conflict(&mut self, key: &KeyId, why: Option<String>) {
        if let Some(record) = self.records.get_mut(key) {
            record.conflict = why;
        }
    }

    pub(super) fn open(&self, intent: u64) -> Option<&OpenIntent> {
        self.open.get(&intent)
    }

    /// An intent was written.
    pub(super) fn intend(&mut self, seq: u64, operation: Operation, under: u64) {
        match &operation {
            Operation::Generate { zone, role, token, nonce } => {
                let label = generation_label(*role, zone, nonce);
                let (zone, role, token) = (zone.clone(), *role, token.clone());
                self.makings.insert(label, Making { zone, role, token, intent: seq });
            }
            Operation::SignDnskey { keys, .. } => {
                for id in keys {
                    if let Some(record) = self.records.get_mut(id) {
                        record.published = true;
                    }
                }
            }
            Operation::Adopt { .. } | Operation::SignCds { .. } | Operation::Destroy { .. } => {}
        }
        self.open.insert(seq, OpenIntent { operation, under });
    }

    /// An intent has its result, whatever it is.
    pub(super) fn close(&mut self, intent: u64) -> Option<OpenIntent> {
        let open = self.open.remove(&intent)?;
        if let Operation::Generate { zone, role, nonce, .. } = &open.operation {
            self.makings.remove(&generation_label(*role, zone, nonce));
        }
        Some(open)
    }

    /// A key is there from now on.
    pub(super) fn insert(&mut self, id: KeyId, record: KeyRecord, at: u64) {
        if record.role == KeyRole::Zsk {
            let made = self.zsks_made.entry(record.zone.clone()).or_default();
            made.push_back(at);
            if made.len() > ZSKS_A_WEEK_MAX {
                made.pop_front();
            }
        }
        if record.cka_id.is_none() {
            self.by_label.insert(record.label.clone(), id);
        }
        self.by_zone.entry(record.zone.clone()).or_default().insert(id);
        self.records.insert(id, record);
    }

    /// A key is gone from every token.
    pub(super) fn remove(&mut self, id: &KeyId) {
        let Some(record) = self.records.remove(id) else { return };
        if self.by_label.get(&record.label) == Some(id) {
            self.by_label.remove(&record.label);
        }
        if let Some(of_zone) = self.by_zone.get_mut(&record.zone) {
            of_zone.remove(id);
            if of_zone.is_empty() {
                self.by_zone.remove(&record.zone);
            }
        }
    }

    /// How many ZSKs of the zone were made within a week of `at`, before or after: a clock that jumped
    /// and came back counts them still.
    pub(super) fn zsks_within_a_week(&self, zone: &ZoneName, at: u64) -> usize {
        let made = self.zsks_made.get(zone).into_iter().flatten();
        made.filter(|time| time.abs_diff(at) < WEEK_S).count()
    }
}

impl LedgerState {
    /// Every key that was made here or adopted and is not gone.
    pub fn keys(&self) -> &BTreeMap<KeyId, KeyRecord> {
        self.keys.records()
    }

    /// All keys of one zone, of every stage, those that collide included.
    pub fn keys_of<'a>(
        &'a self,
        zone: &ZoneName,
    ) -> impl Iterator<Item = (&'a KeyId, &'a KeyRecord)> {
        let ids = self.keys.by_zone.get(zone).into_iter().flatten();
        ids.filter_map(|id| self.keys.records.get_key_value(id))
    }

    /// The key that was made here with this label.
    pub fn key_labelled(&self, label: &str) -> Option<(&KeyId, &KeyRecord)> {
        self.keys.records.get_key_value(self.keys.by_label.get(label)?)
    }

    /// Where the key pair of this label is being made, as long as its intent has no result.
    pub fn making(&self, label: &str) -> Option<&Making> {
        self.keys.makings.get(label)
    }

    /// Intents without a result: (line of the intent, what it was).
    pub fn open_intents(&self) -> impl Iterator<Item = (u64, &Operation)> {
        self.keys.open.iter().map(|(seq, open)| (*seq, &open.operation))
    }

    /// Intents without a result under this line.
    pub(super) fn open_under(&self, line: u64) -> Option<u64> {
        self.keys.open.iter().find(|(_, open)| open.under == line).map(|(seq, _)| *seq)
    }

    /// Intents to make or adopt a key for the zone that have no result.
    pub(crate) fn open_making(&self, zone: &ZoneName) -> Option<u64> {
        let makes = |op: &Operation| {
            matches!(op, Operation::Generate { .. } | Operation::Adopt { .. }) && op.zone() == zone
        };
        self.open_intents().find(|(_, operation)| makes(operation)).map(|(seq, _)| seq)
    }

    /// How many ZSKs of the zone were made in the week around `at`.
    pub(crate) fn zsks_within_a_week(&self, zone: &ZoneName, at: u64) -> usize {
        self.keys.zsks_within_a_week(zone, at)
    }

    /// An older key of the zone that could be taken for this one by tag, revoked forms included.
    pub(super) fn collision(&self, zone: &ZoneName, made: &MadeKey) -> Option<KeyId> {
        let tags = [made.tag, made.revoked_tag];
        let collides = |key: &KeyRecord| {
            key.collides_with.is_none()
                && (tags.contains(&key.tag) || tags.contains(&key.revoked_tag))
        };
        self.keys_of(zone).find(|(_, key)| collides(key)).map(|(id, _)| *id)
    }
}
