//! The keys that the founding names: made where the ledger lacks them, each through an intent; and
//! what an interrupted run left behind, put right.
//!
//! ```text
//! intent ──► token makes the pair, nonce in its label ──► outcome: Generated ──► proven, in use
//!   │ keeper or token ends in between                           │ tag collides in its zone
//!   ▼                                                           ▼
//! looked for by label: whole and proven ► Generated       intent to destroy, then another one
//!                      a part, or unproven ► destroyed, Failed
//!                      nothing there ► Failed
//! ```
//!
//! Everything here is done by one thread, in rounds that are repeated until nothing is left to do;
//! a token that is away leaves its part for a later round.

use std::collections::BTreeMap;

use aws_lc_rs::rand;
use countersign_policy::founding::LabFounding;
use countersign_policy::key::to_hex;
use countersign_policy::ledger::{KeyRecord, LedgerState, Operation, Outcome, generation_label};
use countersign_policy::permit::NONCE_BYTES;
use countersign_policy::{Algorithm, KeyId, KeyRole, PublicKey, ZoneName};

use super::door::Hsm;
use crate::ledger::{Ledger, WriteError};
use crate::pkcs11::{ExpectedKey, FoundObject, HsmError};
use crate::protocol::TokenState;

/// What a round could not do yet, for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Unfinished {
    /// What was to be done.
    pub what: String,
    /// What stands in the way.
    pub why: String,
}

/// Why which token makes no keys of an algorithm and size in this round.
type Refusing = BTreeMap<(String, Algorithm, Option<u16>), String>;

/// Makes and mends keys.
pub struct KeyMaker<'a, H: ?Sized> {
    ledger: &'a Ledger,
    hsm: &'a H,
    now_s: fn() -> u64,
}

/// The keys of a state as the tokens are to expect them.
pub fn expected(state: &LedgerState) -> Vec<ExpectedKey> {
    state.keys().values().filter(|key| key.collides_with.is_none()).map(expected_key).collect()
}

fn expected_key(record: &KeyRecord) -> ExpectedKey {
    ExpectedKey {
        public: record.public.clone(),
        role: record.role,
        label: record.label.clone(),
        group: record.group.clone(),
        conflicted: record.conflict.is_some(),
    }
}

/// Roles that a zone's policy has and the ledger has no key for.
pub fn missing_roles(state: &LedgerState, founding: &LabFounding, zone: &ZoneName) -> Vec<KeyRole> {
    let Some(policy) = founding.policy_of(zone) else { return Vec::new() };
    let has = |role: KeyRole| state.dnskeys_of(zone).any(|(_, key)| key.role == role);
    policy.roles().iter().copied().filter(|role| !has(*role)).collect()
}

/// Signatures that an earlier run began: nobody waits for them any more.
pub fn close_interrupted_signatures(ledger: &Ledger, now_s: u64) -> Result<(), WriteError> {
    let open: Vec<u64> = ledger.read(|state| {
        let signatures =
            state.open_intents().filter(|(_, op)| matches!(op, Operation::SignDnskey { .. }));
        signatures.map(|(line, _)| line).collect()
    });
    for intent in open {
        let reason = "the keeper stopped before the token answered".to_owned();
        ledger.end(intent, Outcome::Unknown { reason }, now_s)?;
    }
    Ok(())
}

impl<'a, H: Hsm + ?Sized> KeyMaker<'a, H> {
    /// Works on `ledger` and `hsm`; `now_s` is the keeper's clock.
    pub fn new(ledger: &'a Ledger, hsm: &'a H, now_s: fn() -> u64) -> Self {
        Self { ledger, hsm, now_s }
    }

    /// Does what can be done now; brings what can't.
    pub fn round(&self) -> Vec<Unfinished> {
        let mut unfinished = Vec::new();
        let mut step = |what: String, result: Result<(), String>| {
            if let Err(why) = result {
                unfinished.push(Unfinished { what, why });
            }
        };
        let open: Vec<(u64, Operation)> = self.ledger.read(|state| {
            state.open_intents().map(|(line, operation)| (line, operation.clone())).collect()
        });
        for (line, operation) in open {
            step(format!("settling the intent of line {line}"), self.settle(line, &operation));
        }
        let colliding: Vec<KeyRecord> = self.ledger.read(|state| {
            state.keys().values().filter(|key| key.collides_with.is_some()).cloned().collect()
        });
        for key in colliding {
            let what = format!("destroying a {} of {} whose tag collides", key.role, key.zone);
            step(what, self.destroy(&key.zone, &key.token, &key.label));
        }
        let missing: Vec<(ZoneName, KeyRole)> = self.ledger.read(|state| {
            let Some((_, founding)) = state.founding() else { return Vec::new() };
            let of_zone = |zone: &ZoneName| {
                let roles = missing_roles(state, founding, zone);
                roles.into_iter().map(|role| (zone.clone(), role)).collect::<Vec<_>>()
            };
            founding.zone.keys().flat_map(of_zone).collect()
        });
        let mut refusing = Refusing::new();
        for (zone, role) in missing {
            let what = format!("making the {role} of {zone}");
            step(what, self.make(&zone, role, &mut refusing));
        }
        self.expect_recorded();
        unfinished
    }

    /// Has the tokens expect keys whose making was recorded late, by whichever thread next wrote to
    /// the ledger once it could be written again.
    fn expect_recorded(&self) {
        let unexpected = |id: &KeyId| self.hsm.key_status(id).is_none();
        let keys: Vec<ExpectedKey> = self.ledger.read(|state| {
            let all = state.keys().iter().filter(|(_, key)| key.collides_with.is_none());
            all.filter(|(id, _)| unexpected(id)).map(|(_, key)| expected_key(key)).collect()
        });
        if !keys.is_empty() {
            self.hsm.expect_keys(keys);
        }
    }

    /// Makes one key, unless its token refused one of the kind in this round: a token that is full
    /// would else cost the ledger two lines a round for every zone that waits.
    fn make(&self, zone: &ZoneName, role: KeyRole, refusing: &mut Refusing) -> Result<(), String> {
        let (under, policy, token) = self.ledger.read(|state| {
            let (under, founding) = state.founding().ok_or("there is no founding")?;
            let policy = founding.policy_of(zone).ok_or("the zone is no longer bound")?;
            // Every group that the zone needs is asked first: half a zone's keys are of no use.
            for role in policy.roles() {
                let group = policy.group_for(*role).ok_or("its policy names no group")?;
                let able = self.hsm.supports(group, policy.algorithm, policy.rsa_bits);
                able.map_err(|e| e.to_string())?;
            }
            let group = policy.group_for(role).ok_or("its policy names no group")?;
            let token = self.usable_token(group)?;
            Ok::<_, String>((under, policy.clone(), token))
        })?;
        let kind = (token.clone(), policy.algorithm, policy.rsa_bits);
        if let Some(reason) = refusing.get(&kind) {
            return Err(reason.clone());
        }
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce).map_err(|_| "the system gives no random octets".to_owned())?;
        let operation = Operation::Generate {
            zone: zone.clone(),
            role,
            token: token.clone(),
            nonce: to_hex(&nonce),
        };
        let label = generation_label(role, zone, &to_hex(&nonce));
        let leave = self.ledger.intend(operation, under, self.now()).map_err(|e| e.to_string())?;
        let (spent, made) = self.hsm.generate(leave, policy.algorithm, policy.rsa_bits);
        match made {
            Ok(public) => self.made(zone, role, (&token, &label), spent.intent(), public),
            // The intent stays open; the next round looks for what may be there.
            Err(error @ HsmError::OutcomeUnknown { .. }) => Err(error.to_string()),
            Err(error) => {
                let reason = error.to_string();
                refusing.insert(kind, reason.clone());
                let failed = Outcome::Failed { reason: reason.clone() };
                self.ledger.outcome(spent, failed, self.now()).map_err(|e| e.to_string())?;
                Err(reason)
            }
        }
    }

    /// Records a key that was made or found, and has it proven.
    fn made(
        &self,
        zone: &ZoneName,
        role: KeyRole,
        (token, label): (&str, &str),
        intent: u64,
        public: PublicKey,
    ) -> Result<(), String> {
        let id = public.id();
        let outcome = Outcome::Generated { public };
        match self.ledger.end(intent, outcome, self.now()) {
            Ok(()) => {}
            Err(WriteError::Contradiction(error)) => {
                // A public key that exists already: the token's random numbers are not.
                tracing::error!(token, key = %id, %error, "a token made a key that exists already");
                self.discard(intent, zone, (token, label), &error.to_string())?;
                return Err(error.to_string());
            }
            Err(error) => return Err(error.to_string()),
        }
        tracing::info!(%zone, %role, key = %id, token, "a key was made");
        let record = self.ledger.read(|state| state.keys().get(&id).cloned());
        match record {
            Some(record) if record.collides_with.is_some() => {
                self.destroy(&record.zone, &record.token, &record.label)?;
                Err("its tag collided with another key's of the zone; it was destroyed".to_owned())
            }
            Some(record) => {
                self.hsm.expect_keys(vec![expected_key(&record)]);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Ends an intent that an earlier run, or a token that was lost, left open.
    fn settle(&self, line: u64, operation: &Operation) -> Result<(), String> {
        match operation {
            // Those of earlier runs were closed at start; this one is being made just now.
            Operation::SignDnskey { .. } => Ok(()),
            Operation::Destroy { token, label, .. } => {
                let left = self.objects(token, label)?;
                let outcome = if left.is_empty() {
                    self.forget(label);
                    Outcome::Destroyed
                } else {
                    Outcome::Failed { reason: format!("{} objects are still there", left.len()) }
                };
                self.ledger.end(line, outcome, self.now()).map_err(|e| e.to_string())
            }
            Operation::Generate { zone, role, token, nonce } => {
                let label = generation_label(*role, zone, nonce);
                let found = self.objects(token, &label)?;
                if found.is_empty() {
                    let reason = "no such objects are on the token".to_owned();
                    let outcome = Outcome::Failed { reason };
                    return self.ledger.end(line, outcome, self.now()).map_err(|e| e.to_string());
                }
                match self.whole_and_proven(zone, *role, token, &label, &found)? {
                    Ok(public) => {
                        tracing::info!(%zone, %role, token, "a key of an interrupted run is adopted");
                        self.made(zone, *role, (token, &label), line, public)
                    }
                    Err(why) => self.discard(line, zone, (token, &label), &why),
                }
            }
        }
    }

    /// Whether what was found is a whole key of the zone's algorithm that the token proves; the
    /// inner error says why it is not, the outer that it can't be told now.
    fn whole_and_proven(
        &self,
        zone: &ZoneName,
        role: KeyRole,
        token: &str,
        label: &str,
        found: &[FoundObject],
    ) -> Result<Result<PublicKey, String>, String> {
        let policy = self.ledger.read(|state| {
            let (_, founding) = state.founding()?;
            let group = founding.token.get(token)?.group.clone();
            Some((founding.policy_of(zone)?.clone(), group))
        });
        let Some((policy, group)) = policy else {
            return Ok(Err("its zone is no longer bound".to_owned()));
        };
        let has_private = found.iter().any(|object| object.private);
        let mut publics = found.iter().filter_map(|object| object.public.clone());
        let (Some(public), None, true) = (publics.next(), publics.next(), has_private) else {
            return Ok(Err("the pair is not whole".to_owned()));
        };
        if public.algorithm() != policy.algorithm || policy.group_for(role) != Some(&group) {
            return Ok(Err("the founding wants another key meanwhile".to_owned()));
        }
        let id = public.id();
        let (label, conflicted) = (label.to_owned(), false);
        let key = ExpectedKey { public: public.clone(), role, label, group, conflicted };
        self.hsm.expect_keys(vec![key]);
        let status = self.hsm.key_status(&id);
        if let Some(why) = status.as_ref().and_then(|status| status.conflict.clone()) {
            // Another token contradicts: not one to adopt, and not one to destroy unseen.
            self.hsm.forget_key(&id);
            return Err(why);
        }
        if status.is_some_and(|status| status.proven_by.iter().any(|name| name == token)) {
            return Ok(Ok(public));
        }
        self.hsm.forget_key(&id);
        // A token that went away meanwhile has not failed the proof.
        self.objects(token, "cs-").map(|_| Err("the token did not prove it".to_owned()))
    }

    /// Destroys what an intent to make a key left, and ends the intent.
    fn discard(
        &self,
        intent: u64,
        zone: &ZoneName,
        (token, label): (&str, &str),
        why: &str,
    ) -> Result<(), String> {
        self.destroy(zone, token, label)?;
        let outcome = Outcome::Failed { reason: format!("{why}; what was there is destroyed") };
        self.ledger.end(intent, outcome, self.now()).map_err(|e| e.to_string())
    }

    fn destroy(&self, zone: &ZoneName, token: &str, label: &str) -> Result<(), String> {
        let (zone, token) = (zone.clone(), token.to_owned());
        let operation = Operation::Destroy { zone, token, label: label.to_owned() };
        let under = self.ledger.read(|state| state.founding().map(|(line, _)| line));
        let under = under.ok_or("there is no founding")?;
        let leave = self.ledger.intend(operation, under, self.now()).map_err(|e| e.to_string())?;
        let (spent, result) = self.hsm.destroy(leave);
        let outcome = match &result {
            Ok(()) => {
                self.forget(label);
                Outcome::Destroyed
            }
            Err(error @ HsmError::OutcomeUnknown { .. }) => return Err(error.to_string()),
            Err(error) => Outcome::Failed { reason: error.to_string() },
        };
        self.ledger.outcome(spent, outcome, self.now()).map_err(|e| e.to_string())?;
        result.map_err(|e| e.to_string())
    }

    fn forget(&self, label: &str) {
        let id: Option<KeyId> =
            self.ledger.read(|state| state.key_labelled(label).map(|(id, _)| *id));
        if let Some(id) = id {
            self.hsm.forget_key(&id);
        }
    }

    fn objects(&self, token: &str, label: &str) -> Result<Vec<FoundObject>, String> {
        let mut found =
            self.hsm.objects_labelled(token, label).map_err(|e: HsmError| e.to_string())?;
        found.retain(|object| object.label == label);
        Ok(found)
    }

    /// The first token of the group, by name, that is usable.
    fn usable_token(&self, group: &str) -> Result<String, String> {
        let health = self.hsm.health();
        let usable = health.iter().filter(|t| t.group == group && t.state == TokenState::Usable);
        usable
            .map(|token| token.name.clone())
            .min()
            .ok_or_else(|| format!("no token of group `{group}` is usable yet"))
    }

    fn now(&self) -> u64 {
        (self.now_s)()
    }
}

#[cfg(test)]
mod tests;
