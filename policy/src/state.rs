//! The fold of the ledger's lines, which is the keeper's state: what keys there are, which zone each
//! serves, and which intents have no result yet. Applying a line decides nothing but whether it
//! follows from those before it; what may be written next is judged in [`crate::permit`].

use std::collections::{BTreeMap, BTreeSet};

use crate::founding::LabFounding;
use crate::key::{KeyId, KeyRole, PublicKey, tags_collide};
use crate::ledger::{Entry, LedgerError, Line, Operation, Outcome, generation_label};
use crate::name::ZoneName;

/// A key that the ledger made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Zone that it serves.
    pub zone: ZoneName,
    /// What it is for.
    pub role: KeyRole,
    /// Its public half.
    pub public: PublicKey,
    /// The intent that made it.
    pub made_by: u64,
    /// The label of its objects: see [`generation_label`].
    pub label: String,
    /// The token that made it, by name.
    pub token: String,
    /// The group of that token as of the key's making; it holds the key for good.
    pub group: String,
    /// Made without a quorum; refused by a founding with officers.
    pub lab: bool,
    /// Why it is refused, if it is.
    pub conflict: Option<String>,
    /// An older key of the zone whose tag it shares, revoked form included: it is destroyed before
    /// anything is published, and another one made.
    pub collides_with: Option<KeyId>,
    /// It was in a DNSKEY RRset that a KSK was asked to sign.
    pub published: bool,
}

/// Where a key pair was to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Making {
    /// For which zone.
    pub zone: ZoneName,
    /// On which token.
    pub token: String,
}

/// What the lines so far amount to.
#[derive(Debug, Clone, Default)]
pub struct LedgerState {
    founding: Option<(u64, LabFounding)>,
    keys: BTreeMap<KeyId, KeyRecord>,
    by_zone: BTreeMap<ZoneName, BTreeSet<KeyId>>,
    by_label: BTreeMap<String, KeyId>,
    makings: BTreeMap<String, Making>,
    open: BTreeMap<u64, Operation>,
    next: u64,
}

impl LedgerState {
    /// The founding in force and its line.
    pub fn founding(&self) -> Option<(u64, &LabFounding)> {
        self.founding.as_ref().map(|(seq, founding)| (*seq, founding))
    }

    /// Every key that the ledger made and that was not destroyed.
    pub fn keys(&self) -> &BTreeMap<KeyId, KeyRecord> {
        &self.keys
    }

    /// All keys of one zone, those that collide included.
    pub fn keys_of<'a>(
        &'a self,
        zone: &ZoneName,
    ) -> impl Iterator<Item = (&'a KeyId, &'a KeyRecord)> {
        let ids = self.by_zone.get(zone).into_iter().flatten();
        ids.filter_map(|id| self.keys.get_key_value(id))
    }

    /// The keys that a zone's DNSKEY RRset holds: of the zone's keys, those without a collision.
    pub fn dnskeys_of<'a>(
        &'a self,
        zone: &ZoneName,
    ) -> impl Iterator<Item = (&'a KeyId, &'a KeyRecord)> {
        self.keys_of(zone).filter(|(_, key)| key.collides_with.is_none())
    }

    /// The key whose objects have this label.
    pub fn key_labelled(&self, label: &str) -> Option<(&KeyId, &KeyRecord)> {
        self.keys.get_key_value(self.by_label.get(label)?)
    }

    /// Where the key pair of this label was to be made, if the ledger ever meant to make one.
    pub fn making(&self, label: &str) -> Option<&Making> {
        self.makings.get(label)
    }

    /// Intents without a result: (line of the intent, what it was).
    pub fn open_intents(&self) -> impl Iterator<Item = (u64, &Operation)> {
        self.open.iter().map(|(seq, operation)| (*seq, operation))
    }

    /// The number that the next line gets.
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// Whether the line follows from those before it.
    pub fn follows(&self, line: &Line) -> Result<(), LedgerError> {
        let seq = line.seq;
        if seq != self.next {
            return Err(LedgerError::Sequence { expected: self.next, found: seq });
        }
        self.check(seq, &line.entry).map_err(|problem| LedgerError::Contradiction { seq, problem })
    }

    /// Takes one more line, or says what it contradicts and changes nothing.
    pub fn apply(&mut self, line: &Line) -> Result<(), LedgerError> {
        self.follows(line)?;
        self.commit(line.seq, &line.entry);
        self.next += 1;
        Ok(())
    }

    fn check(&self, seq: u64, entry: &Entry) -> Result<(), String> {
        if seq == 0 && !matches!(entry, Entry::LabFounding { .. }) {
            return Err("the first line is not a founding".to_owned());
        }
        match entry {
            Entry::LabFounding { founding } => self.may_follow(founding).map_err(|e| e.to_string()),
            Entry::Intent { operation, under } => {
                if self.founding.as_ref().map(|(line, _)| line) != Some(under) {
                    return Err(format!("an intent under line {under}, which is not in force"));
                }
                self.check_intent(operation)
            }
            Entry::Outcome { intent, outcome } => self.check_outcome(*intent, outcome),
            Entry::KeyConflict { key, .. } | Entry::KeyCleared { key } => {
                let known = self.keys.contains_key(key);
                if known { Ok(()) } else { Err(format!("key {key}, which is not here")) }
            }
            Entry::Started { .. } | Entry::ZoneSigned { .. } => Ok(()),
        }
    }

    fn check_intent(&self, operation: &Operation) -> Result<(), String> {
        match operation {
            Operation::Generate { zone, role, nonce, .. } => {
                let used = self.makings.contains_key(&generation_label(*role, zone, nonce));
                if used { Err("a nonce that was used before".to_owned()) } else { Ok(()) }
            }
            Operation::SignDnskey { keys, .. } => {
                match keys.iter().find(|id| !self.keys.contains_key(id)) {
                    Some(unknown) => Err(format!("a DNSKEY RRset with the unknown key {unknown}")),
                    None => Ok(()),
                }
            }
            Operation::Destroy { .. } => Ok(()),
        }
    }

    fn check_outcome(&self, intent: u64, outcome: &Outcome) -> Result<(), String> {
        let Some(operation) = self.open.get(&intent) else {
            return Err("an outcome without an open intent".to_owned());
        };
        match (operation, outcome) {
            (Operation::Generate { zone, role, token, nonce }, Outcome::Generated { public }) => {
                let label = generation_label(*role, zone, nonce);
                self.record(zone, *role, token, label, public, intent).map(|_| ())
            }
            (Operation::Destroy { .. }, Outcome::Destroyed)
            | (Operation::SignDnskey { .. }, Outcome::Signed { .. } | Outcome::Unknown { .. })
            | (_, Outcome::Failed { .. }) => Ok(()),
            _ => Err("an outcome that its intent can't have".to_owned()),
        }
    }

    /// Does what an entry says that [`Self::check`] found in order.
    fn commit(&mut self, seq: u64, entry: &Entry) {
        match entry {
            Entry::LabFounding { founding } => self.founding = Some((seq, founding.clone())),
            Entry::Intent { operation, .. } => self.commit_intent(seq, operation),
            Entry::Outcome { intent, outcome } => {
                if let Some(operation) = self.open.remove(intent) {
                    self.commit_outcome(*intent, &operation, outcome);
                }
            }
            Entry::KeyConflict { key, token, found } => {
                let why = format!("token `{token}` answers for it with {found}");
                self.keys.entry(*key).and_modify(|record| record.conflict = Some(why));
            }
            Entry::KeyCleared { key } => {
                self.keys.entry(*key).and_modify(|record| record.conflict = None);
            }
            Entry::Started { .. } | Entry::ZoneSigned { .. } => {}
        }
    }

    fn commit_intent(&mut self, seq: u64, operation: &Operation) {
        match operation {
            Operation::Generate { zone, role, token, nonce } => {
                let label = generation_label(*role, zone, nonce);
                let making = Making { zone: zone.clone(), token: token.clone() };
                self.makings.insert(label, making);
            }
            Operation::SignDnskey { keys, .. } => {
                for id in keys {
                    self.keys.entry(*id).and_modify(|record| record.published = true);
                }
            }
            Operation::Destroy { .. } => {}
        }
        self.open.insert(seq, operation.clone());
    }

    fn commit_outcome(&mut self, intent: u64, operation: &Operation, outcome: &Outcome) {
        match (operation, outcome) {
            (Operation::Generate { zone, role, token, nonce }, Outcome::Generated { public }) => {
                let label = generation_label(*role, zone, nonce);
                if let Ok(record) = self.record(zone, *role, token, label, public, intent) {
                    self.by_zone.entry(record.zone.clone()).or_default().insert(public.id());
                    self.by_label.insert(record.label.clone(), public.id());
                    self.keys.insert(public.id(), record);
                }
            }
            (Operation::Destroy { label, .. }, Outcome::Destroyed) => {
                let id = self.by_label.remove(label);
                if let Some(record) = id.and_then(|id| self.keys.remove(&id)) {
                    self.by_zone.entry(record.zone).or_default().remove(&record.public.id());
                }
            }
            _ => {}
        }
    }

    fn record(
        &self,
        zone: &ZoneName,
        role: KeyRole,
        token: &str,
        label: String,
        public: &PublicKey,
        made_by: u64,
    ) -> Result<KeyRecord, String> {
        let id = public.id();
        if self.keys.contains_key(&id) {
            return Err(format!("key {id} was made twice"));
        }
        let (_, founding) = self.founding().ok_or("a key without a founding")?;
        let identity = founding.token.get(token).ok_or("a key on an unknown token")?;
        let collides_with = self
            .dnskeys_of(zone)
            .find(|(_, other)| tags_collide((&other.public, other.role), (public, role)))
            .map(|(id, _)| *id);
        Ok(KeyRecord {
            zone: zone.clone(),
            role,
            public: public.clone(),
            made_by,
            label,
            token: token.to_owned(),
            group: identity.group.clone(),
            lab: true,
            conflict: None,
            collides_with,
            published: false,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Algorithm;

    /// A ledger of the example founding, to which lines are added without judging them.
    pub(crate) struct Lines {
        pub(crate) state: LedgerState,
    }

    impl Lines {
        pub(crate) fn founded() -> Self {
            let mut lines = Self { state: LedgerState::default() };
            let founding = crate::founding::example();
            lines.add(Entry::LabFounding { founding }).expect("founding");
            lines
        }

        pub(crate) fn add(&mut self, entry: Entry) -> Result<u64, LedgerError> {
            let seq = self.state.next_seq();
            self.state.apply(&Line { seq, at: 1_000 + seq, entry })?;
            Ok(seq)
        }

        pub(crate) fn intent(&mut self, operation: Operation) -> u64 {
            self.add(Entry::Intent { operation, under: 0 }).expect("intent")
        }

        pub(crate) fn outcome(
            &mut self,
            intent: u64,
            outcome: Outcome,
        ) -> Result<u64, LedgerError> {
            self.add(Entry::Outcome { intent, outcome })
        }

        /// Makes a key with the given octets as its public half.
        pub(crate) fn key(&mut self, role: KeyRole, octets: [u8; 64]) -> KeyId {
            let nonce = crate::key::to_hex(&octets[..16]);
            let intent = self.intent(generate(role, &nonce));
            let public = PublicKey::new(Algorithm::EcdsaP256Sha256, &octets).expect("key");
            let id = public.id();
            self.outcome(intent, Outcome::Generated { public }).expect("outcome");
            id
        }
    }

    pub(crate) fn zone() -> ZoneName {
        "example.".parse().expect("name")
    }

    pub(crate) fn generate(role: KeyRole, nonce: &str) -> Operation {
        let token = if role == KeyRole::Zsk { "zsk-a" } else { "ksk-a" };
        Operation::Generate { zone: zone(), role, token: token.to_owned(), nonce: nonce.to_owned() }
    }

    #[test]
    fn a_key_goes_from_intent_to_result() {
        let mut lines = Lines::founded();
        let intent = lines.intent(generate(KeyRole::Ksk, "00ff"));
        assert_eq!(lines.state.open_intents().count(), 1);
        let public = PublicKey::new(Algorithm::EcdsaP256Sha256, &[3; 64]).expect("key");
        lines.outcome(intent, Outcome::Generated { public: public.clone() }).expect("outcome");
        assert_eq!(lines.state.open_intents().count(), 0);
        let record = &lines.state.keys()[&public.id()];
        assert!(record.lab && !record.published && record.group == "ksk");
        let next = lines.state.next_seq();
        assert!(matches!(
            lines.outcome(intent, Outcome::Destroyed),
            Err(LedgerError::Contradiction { .. })
        ));
        assert_eq!(lines.state.next_seq(), next, "a refused line changes nothing");
    }

    #[test]
    fn nothing_comes_before_the_founding() {
        let mut state = LedgerState::default();
        let entry = Entry::Intent { operation: generate(KeyRole::Ksk, "00"), under: 0 };
        assert!(state.apply(&Line { seq: 0, at: 1, entry }).is_err());
        assert!(state.founding().is_none());
    }

    /// Two public keys whose DNSKEYs share a tag: the sum of the 16-bit words is the same.
    #[test]
    fn a_key_that_shares_a_tag_is_never_published_and_can_be_destroyed() {
        let mut lines = Lines::founded();
        let ksk = lines.key(KeyRole::Ksk, [1; 64]);
        let mut swapped = [1; 64];
        // The ZSK's flags are one less than the KSK's, so its key field adds one more.
        swapped[1] = 2;
        let zsk = lines.key(KeyRole::Zsk, swapped);
        assert_eq!(lines.state.keys()[&zsk].collides_with, Some(ksk));
        assert_eq!(lines.state.dnskeys_of(&zone()).map(|(id, _)| *id).collect::<Vec<_>>(), [ksk]);
        let label = lines.state.keys()[&zsk].label.clone();
        let destroy = Operation::Destroy { zone: zone(), token: "zsk-a".to_owned(), label };
        let intent = lines.intent(destroy);
        lines.outcome(intent, Outcome::Destroyed).expect("destroyed");
        assert_eq!(lines.state.keys_of(&zone()).count(), 1);
    }

    #[test]
    fn one_public_key_is_one_key() {
        let mut lines = Lines::founded();
        lines.key(KeyRole::Ksk, [1; 64]);
        let intent = lines.intent(generate(KeyRole::Zsk, "99"));
        let public = PublicKey::new(Algorithm::EcdsaP256Sha256, &[1; 64]).expect("key");
        let error = lines.outcome(intent, Outcome::Generated { public }).expect_err("twice");
        assert!(error.to_string().contains("made twice"), "{error}");
    }
}
