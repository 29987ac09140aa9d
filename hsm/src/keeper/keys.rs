//! Keys: made, adopted and destroyed where the ledger allows it, each through an intent; and what an
//! interrupted run left behind, put right.
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
//! Everything here is done by one thread, in rounds ([`super::motions`]): an intent to make, adopt or
//! destroy that is open when a round begins is one that an interruption left. The public half of a KSK
//! or CSK goes into the ledger only if it is published at once.

use std::collections::BTreeMap;

use aws_lc_rs::rand;
use countersign_policy::key::{FLAG_REVOKE, from_hex, to_hex};
use countersign_policy::ledger::{
    KeyRecord, LedgerState, MadeKey, Operation, Outcome, generation_label,
};
use countersign_policy::statement::NONCE_BYTES;
use countersign_policy::{Algorithm, KeyId, KeyRole, PublicKey, ZoneName};

use super::door::Hsm;
use super::marks;
use super::seal::Seals;
use crate::ledger::{Authorised, Ledger, WriteError};
use crate::pkcs11::{ExpectedKey, FoundObject, FoundPair, HsmError, KeyIdentity};

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    /// Something is not there yet: nothing was asked of an HSM, and no line was written.
    #[error("{0}")]
    Waits(String),
    /// It was tried.
    #[error("{0}")]
    Failed(String),
}

impl Stuck {
    #[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands in")]
    fn waits(why: impl ToString) -> Self {
        Self::Waits(why.to_string())
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands in")]
    fn failed(why: impl ToString) -> Self {
        Self::Failed(why.to_string())
    }
}

/// Why which token makes no keys of an algorithm and size in this round.
type Refusing = BTreeMap<(String, Algorithm, Option<u16>), String>;

/// Makes and mends keys; lives as long as a round.
pub struct KeyMaker<'a, H: ?Sized> {
    ledger: &'a Ledger,
    hsm: &'a H,
    seals: &'a Seals,
    now_s: fn() -> u64,
    refusing: Refusing,
}

/// The keys of a state as the tokens are to expect them.
pub fn expected(state: &LedgerState) -> Vec<ExpectedKey> {
    let usable = state.keys().iter().filter(|(_, key)| key.collides_with.is_none());
    usable.map(|(id, key)| expected_key(id, key)).collect()
}

/// One key as the tokens are to expect it.
pub fn expected_key(id: &KeyId, record: &KeyRecord) -> ExpectedKey {
    ExpectedKey {
        identity: record.public.clone().map_or(KeyIdentity::Id(*id), KeyIdentity::Public),
        role: record.role,
        label: record.label.clone(),
        cka_id: record.cka_id.as_deref().and_then(from_hex),
        group: record.group.clone(),
        conflicted: record.conflict.is_some(),
    }
}

/// None of our keys can leave its token, adopted ones neither. One that can may have left it already.
fn stays_inside(pair: &FoundPair) -> Result<(), String> {
    let private = &pair.private;
    let shown = |value: Option<bool>| value.map_or("not told".to_owned(), |yes| yes.to_string());
    if (private.sensitive, private.extractable) == (Some(true), Some(false)) {
        return Ok(());
    }
    Err(format!(
        "the private key `{}` is not kept inside its token: CKA_SENSITIVE is {}, CKA_EXTRACTABLE is {}; \
         expected true and false. hint: the token's own tools may set them so, once (PKCS#11 2.40 \
         §4.9); whether the key has left before, only its people know",
        pair.label,
        shown(private.sensitive),
        shown(private.extractable)
    ))
}

impl<'a, H: Hsm + ?Sized> KeyMaker<'a, H> {
    /// Works on `ledger` and `hsm`; `now_s` is the keeper's clock.
    pub fn new(ledger: &'a Ledger, hsm: &'a H, seals: &'a Seals, now_s: fn() -> u64) -> Self {
        Self { ledger, hsm, seals, now_s, refusing: Refusing::new() }
    }

    /// Makes one key under that line, unless its token refused one of the kind in this round: a token
    /// that is full would else cost the ledger two lines a round for every zone that waits.
    pub fn make(&mut self, zone: &ZoneName, role: KeyRole, under: u64) -> Result<(), Stuck> {
        let (policy, token) = self.ledger.read(|state| {
            let policy = state.policy_of(zone).ok_or(Stuck::waits("the zone is not bound"))?;
            // Every group that the zone needs is asked first: half a zone's keys are of no use.
            for role in policy.roles() {
                let group = policy.group_for(*role).ok_or(Stuck::waits("it has no group"))?;
                let able = self.hsm.supports(group, policy.algorithm, policy.rsa_bits);
                able.map_err(Stuck::waits)?;
            }
            let group = policy.group_for(role).ok_or(Stuck::waits("its policy names no group"))?;
            Ok((policy.clone(), self.usable_token(state, group)?))
        })?;
        let kind = (token.clone(), policy.algorithm, policy.rsa_bits);
        if let Some(reason) = self.refusing.get(&kind) {
            return Err(Stuck::Waits(reason.clone()));
        }
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce).map_err(|_| Stuck::waits("the system gives no random octets"))?;
        let nonce = to_hex(&nonce);
        let label = generation_label(role, zone, &nonce);
        let operation =
            Operation::Generate { zone: zone.clone(), role, token: token.clone(), nonce };
        let leave = self.intend(operation, under)?;
        let leave = self.seal(leave, role, &token)?;
        let (spent, made) = self.hsm.generate(leave, policy.algorithm, policy.rsa_bits);
        match made {
            Ok(public) => self.made((zone, role), (&token, &label), spent.intent(), &public),
            // The intent stays open; the next round looks for what may be there.
            Err(error @ HsmError::OutcomeUnknown { .. }) => Err(Stuck::failed(error)),
            Err(error) => {
                let reason = error.to_string();
                self.refusing.insert(kind, reason.clone());
                let failed = Outcome::Failed { reason: reason.clone() };
                self.ledger.outcome(spent, failed, self.now()).map_err(Stuck::failed)?;
                Err(Stuck::Failed(reason))
            }
        }
    }

    /// Takes over a key that is on a token already: whole, proven, and in nobody else's way.
    pub fn adopt(
        &self,
        zone: &ZoneName,
        role: KeyRole,
        (token, key): (&str, &KeyId),
        under: u64,
    ) -> Result<(), Stuck> {
        let found = self.hsm.find_by_key(token, key).map_err(Stuck::waits)?;
        let pair = found.ok_or(Stuck::Waits(format!("token `{token}` has no key {key}")))?;
        stays_inside(&pair).map_err(Stuck::Waits)?;
        let (zone, token_name, key) = (zone.clone(), token.to_owned(), *key);
        let operation = Operation::Adopt { zone, role, token: token_name, key };
        let leave = self.intend(operation.clone(), under)?;
        let intent = self.seal(leave, role, token)?.spend().intent();
        self.adopted(intent, &operation)
    }

    /// Proves a key that an intent is to adopt, and ends the intent.
    fn adopted(&self, intent: u64, operation: &Operation) -> Result<(), Stuck> {
        let Operation::Adopt { zone, role, token, key } = operation else { return Ok(()) };
        let fail = |reason: String| {
            let failed = Outcome::Failed { reason: reason.clone() };
            self.ledger.end(intent, failed, self.now()).map_err(Stuck::failed)?;
            Err(Stuck::Failed(reason))
        };
        let pair = match self.hsm.find_by_key(token, key) {
            Ok(Some(pair)) => pair,
            Ok(None) => return fail(format!("token `{token}` has no key {key}")),
            Err(error @ HsmError::NotAPair { .. }) => return fail(error.to_string()),
            Err(error) => return Err(Stuck::waits(error)),
        };
        if let Err(why) = stays_inside(&pair) {
            return fail(why);
        }
        let group = self.ledger.read(|state| state.tokens().get(token).map(|t| t.group.clone()));
        let group = group.ok_or(Stuck::waits("the token is not here"))?;
        let expected = ExpectedKey {
            identity: KeyIdentity::Public(pair.public.clone()),
            role: *role,
            label: pair.label.clone(),
            cka_id: Some(pair.cka_id.clone()),
            group,
            conflicted: false,
        };
        if let Err(why) = self.prove(expected, token)? {
            return fail(why);
        }
        let made = self.made_key(intent, *role, &pair.public);
        let outcome = Outcome::Adopted { made, label: pair.label, id: to_hex(&pair.cka_id) };
        match self.ledger.end(intent, outcome, self.now()) {
            Ok(()) => {
                tracing::info!(%zone, %role, %key, token, "a key was adopted");
                Ok(())
            }
            Err(WriteError::Contradiction(error)) => {
                self.hsm.forget_key(key);
                fail(error.to_string())
            }
            Err(error) => Err(Stuck::failed(error)),
        }
    }

    /// Destroys on one token what an intent to make a key left, a key whose tag collides, or one that
    /// a motion gave up.
    pub fn destroy(
        &self,
        zone: &ZoneName,
        (token, label): (&str, &str),
        key: Option<KeyId>,
        under: u64,
    ) -> Result<(), Stuck> {
        let (zone, token_name, label) = (zone.clone(), token.to_owned(), label.to_owned());
        let operation = Operation::Destroy { zone, token: token_name, label, key };
        let role = key.and_then(|key| {
            self.ledger.read(|state| state.keys().get(&key).map(|record| record.role))
        });
        let leave = self.intend(operation, under)?;
        let leave = self.seal(leave, role.unwrap_or(KeyRole::Zsk), token)?;
        let (spent, result) = self.hsm.destroy(leave);
        let outcome = match &result {
            Ok(()) => Outcome::Destroyed,
            Err(error @ HsmError::OutcomeUnknown { .. }) => return Err(Stuck::failed(error)),
            Err(error) => Outcome::Failed { reason: error.to_string() },
        };
        self.ledger.outcome(spent, outcome, self.now()).map_err(Stuck::failed)?;
        result.map_err(Stuck::failed)?;
        self.forget(key);
        Ok(())
    }

    /// Ends an intent that an earlier run, or a token that was lost, left open.
    pub fn settle(&self, line: u64, operation: &Operation) -> Result<(), Stuck> {
        match operation {
            // Of an earlier run: nobody waits for it any more.
            Operation::SignDnskey { .. } | Operation::SignCds { .. } => {
                let reason = "the keeper stopped before the token answered".to_owned();
                let outcome = Outcome::Unknown { reason };
                self.ledger.end(line, outcome, self.now()).map_err(Stuck::failed)
            }
            Operation::Adopt { .. } => self.adopted(line, operation),
            Operation::Destroy { token, label, key, .. } => {
                let left = match key {
                    Some(key) => self.hsm.find_by_key(token, key).map(|pair| pair.is_some()),
                    None => self.objects(token, label).map(|found| !found.is_empty()),
                };
                let outcome = match left {
                    Ok(false) => Outcome::Destroyed,
                    Ok(true) => Outcome::Failed { reason: "it is still there".to_owned() },
                    Err(error @ HsmError::NotAPair { .. }) => {
                        Outcome::Failed { reason: format!("a part of it is left: {error}") }
                    }
                    Err(error) => return Err(Stuck::waits(error)),
                };
                let is_gone = outcome == Outcome::Destroyed;
                self.ledger.end(line, outcome, self.now()).map_err(Stuck::failed)?;
                if is_gone {
                    self.forget(*key);
                }
                Ok(())
            }
            Operation::Generate { zone, role, token, nonce } => {
                let label = generation_label(*role, zone, nonce);
                let found = self.objects(token, &label).map_err(Stuck::waits)?;
                if found.is_empty() {
                    let reason = "no such objects are on the token".to_owned();
                    let outcome = Outcome::Failed { reason };
                    return self.ledger.end(line, outcome, self.now()).map_err(Stuck::failed);
                }
                match self.whole_and_proven((zone, *role), token, &label, &found)? {
                    Ok(public) => {
                        tracing::info!(%zone, %role, token, "a key of an interrupted run is taken up");
                        self.made((zone, *role), (token, &label), line, &public)
                    }
                    Err(why) => self.discard(line, zone, (token, &label), &why),
                }
            }
        }
    }

    /// Records a key that was made or found, and has it proven.
    fn made(
        &self,
        (zone, role): (&ZoneName, KeyRole),
        (token, label): (&str, &str),
        intent: u64,
        public: &PublicKey,
    ) -> Result<(), Stuck> {
        let id = public.id();
        let outcome = Outcome::Generated { made: self.made_key(intent, role, public) };
        match self.ledger.end(intent, outcome, self.now()) {
            Ok(()) => {}
            Err(WriteError::Contradiction(error)) => {
                // A public key that exists already (the token's random numbers are not), or one that
                // is not wanted any more.
                tracing::error!(token, key = %id, %error, "a key that was made is not taken up");
                self.discard(intent, zone, (token, label), &error.to_string())?;
                return Err(Stuck::failed(error));
            }
            Err(error) => return Err(Stuck::failed(error)),
        }
        tracing::info!(%zone, %role, key = %id, token, "a key was made");
        let collides = self.ledger.read(|state| {
            let record = state.keys().get(&id)?;
            record.collides_with.is_some().then_some(record.made_by)
        });
        if let Some(under) = collides {
            self.destroy(zone, (token, label), Some(id), under)?;
            return Err(Stuck::failed(
                "its tag collided with another key's of the zone; it was destroyed",
            ));
        }
        let record = self.ledger.read(|state| state.keys().get(&id).cloned());
        self.hsm.expect_keys(record.iter().map(|record| expected_key(&id, record)).collect());
        Ok(())
    }

    /// What the ledger is told of a key: its public half only if that is published at once.
    fn made_key(&self, intent: u64, role: KeyRole, public: &PublicKey) -> MadeKey {
        let at_once = self.ledger.read(|state| state.is_published_at_once(intent));
        MadeKey {
            key: public.id(),
            algorithm: public.algorithm(),
            tag: public.tag(role.flags()),
            revoked_tag: public.tag(role.flags() | FLAG_REVOKE),
            public: at_once.then(|| public.clone()),
        }
    }

    /// Whether what was found is a whole key of the zone's algorithm that the token proves; the
    /// inner error says why it is not, the outer that it can't be told now.
    fn whole_and_proven(
        &self,
        (zone, role): (&ZoneName, KeyRole),
        token: &str,
        label: &str,
        found: &[FoundObject],
    ) -> Result<Result<PublicKey, String>, Stuck> {
        let policy = self.ledger.read(|state| {
            let group = state.tokens().get(token)?.group.clone();
            Some((state.policy_of(zone)?.clone(), group))
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
            return Ok(Err("the zone's policy wants another key meanwhile".to_owned()));
        }
        let key = ExpectedKey {
            identity: KeyIdentity::Public(public.clone()),
            role,
            label: label.to_owned(),
            cka_id: None,
            group,
            conflicted: false,
        };
        Ok(self.prove(key, token)?.map(|()| public))
    }

    /// Has the tokens prove a key that is not in the ledger yet; the inner error says that this token
    /// does not, and then the key is expected no longer.
    fn prove(&self, key: ExpectedKey, token: &str) -> Result<Result<(), String>, Stuck> {
        let id = key.id();
        self.hsm.expect_keys(vec![key]);
        let status = self.hsm.key_status(&id);
        if let Some(why) = status.as_ref().and_then(|status| status.conflict.clone()) {
            // Another token contradicts: not one to adopt, and not one to destroy unseen.
            self.hsm.forget_key(&id);
            return Err(Stuck::Waits(why));
        }
        if status.is_some_and(|status| status.proven_by.iter().any(|name| name == token)) {
            return Ok(Ok(()));
        }
        self.hsm.forget_key(&id);
        // A token that went away meanwhile has not failed the proof.
        self.hsm.objects_labelled(token, "cs-").map_err(Stuck::waits)?;
        Ok(Err("the token did not prove it".to_owned()))
    }

    /// Destroys what an intent to make a key left, and ends the intent.
    fn discard(
        &self,
        intent: u64,
        zone: &ZoneName,
        (token, label): (&str, &str),
        why: &str,
    ) -> Result<(), Stuck> {
        let (zone_name, token_name) = (zone.clone(), token.to_owned());
        let operation = Operation::Destroy {
            zone: zone_name,
            token: token_name,
            label: label.to_owned(),
            key: None,
        };
        let now_s = self.now();
        let under = self.ledger.read(|state| state.standing(&operation, now_s));
        let under = under.ok_or(Stuck::waits("no line allows to destroy what was left"))?;
        self.destroy(zone, (token, label), None, under)?;
        let outcome = Outcome::Failed { reason: format!("{why}; what was there is destroyed") };
        self.ledger.end(intent, outcome, self.now()).map_err(Stuck::failed)
    }

    /// Leave for an operation on a token that is what the ledger says: one that an attach-token motion
    /// replaced may be open under its name for a moment yet.
    fn intend(&self, operation: Operation, under: u64) -> Result<Authorised, Stuck> {
        // A token that was opened since the round began may have said so.
        self.seals.check_idle(self.ledger).map_err(Stuck::Waits)?;
        if let Operation::Generate { token, .. }
        | Operation::Adopt { token, .. }
        | Operation::Destroy { token, .. } = &operation
            && !self.ledger.read(|state| marks::present(state, self.hsm)).contains(token)
        {
            return Err(Stuck::Waits(format!(
                "token `{token}` is not usable yet, or another one is open under its name: then \
                 restart the keeper with it in the configuration"
            )));
        }
        self.ledger.intend(operation, under, || self.now()).map_err(Stuck::waits)
    }

    /// Seals the ledger behind the intent for a KSK or CSK, which must not be frozen by then; else ends
    /// the intent.
    fn seal(&self, leave: Authorised, role: KeyRole, token: &str) -> Result<Authorised, Stuck> {
        if role == KeyRole::Zsk {
            return Ok(leave);
        }
        let group = self.ledger.read(|state| state.tokens().get(token).map(|t| t.group.clone()));
        let group = group.unwrap_or_default();
        let sealed = self.seals.before_use(self.ledger, self.hsm, &group).and_then(|()| {
            // A freeze that came meanwhile counts: what is destroyed is never thawed.
            let zone = leave.operation().zone();
            let frozen = self.ledger.read(|state| state.freeze_of(zone).map(ToString::to_string));
            frozen.map_or(Ok(()), Err)
        });
        match sealed {
            Ok(()) => Ok(leave),
            Err(reason) => {
                let failed = Outcome::Failed { reason: reason.clone() };
                self.ledger.outcome(leave.spend(), failed, self.now()).map_err(Stuck::failed)?;
                Err(Stuck::Failed(reason))
            }
        }
    }

    /// A key that the ledger no longer has is expected no longer.
    fn forget(&self, key: Option<KeyId>) {
        if let Some(key) = key
            && self.ledger.read(|state| !state.keys().contains_key(&key))
        {
            self.hsm.forget_key(&key);
        }
    }

    fn objects(&self, token: &str, label: &str) -> Result<Vec<FoundObject>, HsmError> {
        let mut found = self.hsm.objects_labelled(token, label)?;
        found.retain(|object| object.label == label);
        Ok(found)
    }

    /// The first token of the group, by name, that is usable, and that is the one of the ledger.
    fn usable_token(&self, state: &LedgerState, group: &str) -> Result<String, Stuck> {
        let present = marks::present(state, self.hsm);
        let of_group = state.tokens_of(group).find(|token| present.contains(*token));
        of_group
            .map(str::to_owned)
            .ok_or_else(|| Stuck::Waits(format!("no token of group `{group}` is usable yet")))
    }

    fn now(&self) -> u64 {
        (self.now_s)()
    }
}

#[cfg(test)]
mod tests;
