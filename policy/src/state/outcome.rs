//! How operations ended: a result must be one that its intent can have, and what it says of a key must
//! hold of its public half, once that may be known.

use super::begin::Step;
use super::keys::{KeyRecord, OpenIntent};
use super::propose::Status;
use super::{LedgerState, StatementHash};
use crate::key::{FLAG_REVOKE, KeyRole, from_hex};
use crate::key_state::Stage;
use crate::ledger::{MadeKey, Operation, Outcome, generation_label};
use crate::motion::Motion;
use crate::name::ZoneName;

/// Octets of the label and of the CKA_ID of an adopted key: HSMs cut at less.
const FOUND_NAME_BYTES_MAX: usize = 255;

impl LedgerState {
    pub(super) fn judge_outcome(&self, intent: u64, outcome: &Outcome) -> Result<(), String> {
        let Some(OpenIntent { operation, under }) = self.keys.open(intent) else {
            return Err("an outcome without an open intent".to_owned());
        };
        match (operation, outcome) {
            (Operation::Generate { zone, role, .. }, Outcome::Generated { made }) => {
                self.judge_made(zone, *role, *under, made)
            }
            (Operation::Adopt { zone, role, key, .. }, Outcome::Adopted { made, label, id }) => {
                if made.key != *key {
                    return Err(format!("key {} in place of {key}", made.key));
                }
                let long = |text: &str| text.len() > FOUND_NAME_BYTES_MAX;
                if long(label) || from_hex(id).is_none_or(|id| id.len() > FOUND_NAME_BYTES_MAX) {
                    return Err(format!(
                        "label or CKA_ID of key {key} is no text or longer than \
                         {FOUND_NAME_BYTES_MAX} octets"
                    ));
                }
                if let Some(other) = self.collision(zone, made) {
                    return Err(format!("key {key} shares its tag with key {other} of {zone}"));
                }
                self.judge_made(zone, *role, *under, made)
            }
            (Operation::Destroy { .. }, Outcome::Destroyed)
            | (
                Operation::SignDnskey { .. } | Operation::SignCds { .. },
                Outcome::Signed { .. } | Outcome::Unknown { .. },
            )
            | (_, Outcome::Failed { .. }) => Ok(()),
            _ => Err("an outcome that its intent can't have".to_owned()),
        }
    }

    /// Checks what is said of a new key.
    fn judge_made(
        &self,
        zone: &ZoneName,
        role: KeyRole,
        under: u64,
        made: &MadeKey,
    ) -> Result<(), String> {
        let id = made.key;
        if self.keys().contains_key(&id) {
            return Err(format!("key {id} was made twice"));
        }
        let (_, policy) = self.bound(zone).map_err(|denied| denied.to_string())?;
        if made.algorithm != policy.algorithm {
            return Err(format!(
                "key {id} is of {}, the policy of {zone} wants {}",
                made.algorithm, policy.algorithm
            ));
        }
        if made.public.is_some() != self.is_public_at_once(role, under) {
            return Err(format!(
                "the public half of {role} {id} is {}; it is known from the start exactly if it is \
                 published at once",
                if made.public.is_some() { "told" } else { "kept back" }
            ));
        }
        let Some(public) = &made.public else { return Ok(()) };
        let tags = [public.tag(role.flags()), public.tag(role.flags() | FLAG_REVOKE)];
        if public.id() != id || tags != [made.tag, made.revoked_tag] {
            return Err(format!("the public half of key {id} has another id or other tags"));
        }
        Ok(())
    }

    /// Whether the key that an open intent makes or adopts is published as soon as it is there: then, and
    /// only then, its result tells the public half.
    pub fn is_published_at_once(&self, intent: u64) -> bool {
        let open = self.keys.open(intent);
        open.is_some_and(|OpenIntent { operation, under }| match operation {
            Operation::Generate { role, .. } | Operation::Adopt { role, .. } => {
                self.is_public_at_once(*role, *under)
            }
            _ => false,
        })
    }

    /// Whether a key made under that line is published as soon as it is there.
    fn is_public_at_once(&self, role: KeyRole, under: u64) -> bool {
        role == KeyRole::Zsk
            || self.running.get(&under).is_some_and(|running| {
                matches!(
                    running.statement.motion,
                    Motion::GenerateKey { activate: true, .. }
                        | Motion::AdoptKey { activate: true, .. }
                )
            })
    }

    pub(super) fn commit_outcome(&mut self, seq: u64, at: u64, intent: u64, outcome: Outcome) {
        let Some(OpenIntent { operation, under }) = self.keys.close(intent) else { return };
        match (operation, outcome) {
            (Operation::Generate { zone, role, token, nonce }, Outcome::Generated { made }) => {
                let label = generation_label(role, &zone, &nonce);
                let step = Step::Generate { zone: zone.clone(), role };
                let collides = self.collision(&zone, &made).is_some();
                self.commit_made((zone, role, token), (intent, under), made, (label, None), at);
                // One that collides is destroyed, and the step remains.
                if !collides {
                    self.step_done(seq, under, &step);
                }
            }
            (Operation::Adopt { zone, role, token, key }, Outcome::Adopted { made, label, id }) => {
                let step = Step::Adopt { zone: zone.clone(), role, token: token.clone(), key };
                self.commit_made((zone, role, token), (intent, under), made, (label, Some(id)), at);
                self.step_done(seq, under, &step);
            }
            (Operation::Destroy { zone, token, label, key: Some(key) }, Outcome::Destroyed) => {
                let step = Step::Destroy { zone, token, label, key };
                self.commit_destroyed(seq, under, &step);
            }
            _ => {}
        }
    }

    fn commit_made(
        &mut self,
        (zone, role, token): (ZoneName, KeyRole, String),
        (made_by, under): (u64, u64),
        made: MadeKey,
        (label, cka_id): (String, Option<String>),
        at: u64,
    ) {
        let group = self.tokens.get(&token).map(|token| token.group.clone()).unwrap_or_default();
        let active = self.is_public_at_once(role, under);
        let record = KeyRecord {
            collides_with: self.collision(&zone, &made),
            zone,
            role,
            algorithm: made.algorithm,
            tag: made.tag,
            revoked_tag: made.revoked_tag,
            public: made.public,
            made_by,
            under,
            label,
            cka_id,
            token,
            group,
            stage: if active { Stage::Active } else { Stage::Made },
            conflict: None,
            published: false,
        };
        self.keys.insert(made.key, record, at);
    }

    /// A key is gone from one token. One that collided was on the token that made it alone; else it
    /// is gone for good when it is gone from every token of its group.
    fn commit_destroyed(&mut self, seq: u64, under: u64, step: &Step) {
        let Step::Destroy { key, .. } = step else { return };
        let key = *key;
        if !self.running.contains_key(&under) {
            self.keys.remove(&key);
            return;
        }
        let is_of_key = |step: &Step| matches!(step, Step::Destroy { key: k, .. } if *k == key);
        let left = self.running.get(&under).map(|running| {
            running.steps.iter().filter(|other| is_of_key(other) && *other != step).count()
        });
        if left == Some(0) {
            self.keys.remove(&key);
        }
        self.step_done(seq, under, step);
    }

    /// A step of what began at line `under` is done; with the last one, all of it.
    fn step_done(&mut self, seq: u64, under: u64, step: &Step) {
        let Some(running) = self.running.get_mut(&under) else { return };
        running.steps.retain(|other| other != step);
        if running.steps.is_empty() {
            let hash: StatementHash = running.hash;
            let done = Status::Begun { line: under, done: true };
            let status = if running.is_cut { Status::Lapsed } else { done };
            self.running.remove(&under);
            self.docket.close(hash, seq, status);
        }
    }
}
