//! Which key is proven by which token, and which key is refused because a token answers for it with
//! another public key (invariant 2: a key is its public key).
//!
//! ```text
//! expected ──claimed, public key equal, challenge verified──► proven by that token
//!     │                                                            │ token lost: forgotten
//!     └──claimed, but another public key or a bad proof──► in conflict: refused everywhere,
//!                                                          until that token is seen right again
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use countersign_policy::{KeyId, KeyRole, PublicKey};
use cryptoki::object::ObjectHandle;

use super::error::HsmError;
use super::{Event, KeyStatus};

/// What is known of a key's public half. A KSK's is not in the ledger before its activation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyIdentity {
    /// The public key.
    Public(PublicKey),
    /// Its hash alone. The public key is learned from the first public key object that has this
    /// hash; until then the key can't be proven, and signs nothing.
    Id(KeyId),
}

impl KeyIdentity {
    /// What the key is.
    pub fn id(&self) -> KeyId {
        match self {
            Self::Public(public) => public.id(),
            Self::Id(id) => *id,
        }
    }

    /// Its public half, if that is known.
    pub fn public(&self) -> Option<&PublicKey> {
        match self {
            Self::Public(public) => Some(public),
            Self::Id(_) => None,
        }
    }
}

impl From<PublicKey> for KeyIdentity {
    fn from(public: PublicKey) -> Self {
        Self::Public(public)
    }
}

impl From<KeyId> for KeyIdentity {
    fn from(id: KeyId) -> Self {
        Self::Id(id)
    }
}

/// A key that the ledger knows, and that tokens of a group should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedKey {
    /// What it is.
    pub identity: KeyIdentity,
    /// What it is for: a KSK signs only through [`super::Tokens::sign_ksk`].
    pub role: KeyRole,
    /// `CKA_LABEL` of its objects; of an adopted key, that of the private one.
    pub label: String,
    /// Of an adopted key: `CKA_ID` of its private object, as it was found. `None` for a key made
    /// here, whose `CKA_ID` is its [`KeyId`].
    pub cka_id: Option<Vec<u8>>,
    /// The group whose tokens hold it.
    pub group: String,
    /// The ledger says that it was in conflict: refused until every token of the group is open and
    /// none contradicts.
    pub conflicted: bool,
}

impl ExpectedKey {
    /// What it is.
    pub fn id(&self) -> KeyId {
        self.identity.id()
    }
}

/// What looking at a token told about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// No object claims it.
    Absent,
    /// It is there and proven.
    Proven(ObjectHandle),
    /// It is claimed by something else.
    Wrong(String),
    /// It could not be told.
    Unproven(String),
}

struct Entry {
    expected: Arc<ExpectedKey>,
    /// Token → generation in which it was proven, and the private key.
    proven: BTreeMap<usize, (u64, ObjectHandle)>,
    /// Token → what it showed instead.
    wrong: BTreeMap<usize, String>,
    /// From the ledger; see [`ExpectedKey::conflicted`].
    suspect: bool,
    /// Rotates which token is asked first.
    turn: usize,
}

/// All keys that are expected.
#[derive(Default)]
pub(super) struct Registry {
    keys: HashMap<KeyId, Entry>,
    /// Keys whose conflict was announced and not yet cleared: every key in conflict is one.
    announced: BTreeSet<KeyId>,
    /// How many keys each token has proven: it is asked for before each use of a KSK and for each
    /// key that is made, so that a count over all keys each time would grow with their square.
    proven_counts: BTreeMap<usize, usize>,
}

impl Registry {
    /// Adds keys; one that is there already keeps what is known of it.
    pub(super) fn expect(&mut self, keys: Vec<ExpectedKey>) -> Vec<KeyId> {
        let mut added = Vec::new();
        for key in keys {
            let id = key.id();
            if let Some(entry) = self.keys.get_mut(&id) {
                if let Some(public) = key.identity.public() {
                    entry.learn(public);
                }
                continue;
            }
            added.push(id);
            let suspect = key.conflicted;
            if suspect {
                self.announced.insert(id);
            }
            let entry = Entry {
                expected: Arc::new(key),
                proven: BTreeMap::new(),
                wrong: BTreeMap::new(),
                suspect,
                turn: 0,
            };
            self.keys.insert(id, entry);
        }
        added
    }

    /// Takes down the public half of a key of which only the hash was known.
    pub(super) fn learn(&mut self, public: &PublicKey) {
        if let Some(entry) = self.keys.get_mut(&public.id()) {
            entry.learn(public);
        }
    }

    /// Forgets a key.
    pub(super) fn forget(&mut self, id: &KeyId) {
        if let Some(entry) = self.keys.remove(id) {
            for token in entry.proven.keys() {
                count_less(&mut self.proven_counts, *token);
            }
        }
        self.announced.remove(id);
    }

    pub(super) fn expected(&self, id: &KeyId) -> Option<Arc<ExpectedKey>> {
        self.keys.get(id).map(|entry| Arc::clone(&entry.expected))
    }

    /// The keys that tokens of `group` should hold.
    pub(super) fn of_group(&self, group: &str) -> Vec<Arc<ExpectedKey>> {
        let entries = self.keys.values().filter(|entry| entry.expected.group == group);
        entries.map(|entry| Arc::clone(&entry.expected)).collect()
    }

    /// Takes down what `token` showed for a key.
    pub(super) fn found(
        &mut self,
        id: &KeyId,
        (token, name): (usize, &str),
        generation: u64,
        finding: Finding,
    ) -> Option<Event> {
        let entry = self.keys.get_mut(id)?;
        if entry.proven.remove(&token).is_some() {
            count_less(&mut self.proven_counts, token);
        }
        match finding {
            Finding::Wrong(found) => {
                let news = entry.wrong.insert(token, found.clone()).is_none();
                self.announced.insert(*id);
                let token = name.to_owned();
                return news.then_some(Event::Conflict { key: *id, token, found });
            }
            Finding::Proven(private) => {
                entry.wrong.remove(&token);
                entry.proven.insert(token, (generation, private));
                *self.proven_counts.entry(token).or_default() += 1;
            }
            Finding::Absent => {
                entry.wrong.remove(&token);
            }
            Finding::Unproven(_) => {}
        }
        None
    }

    /// Announces keys that are no longer in conflict. `all_open` says whether every token of a group
    /// is usable.
    pub(super) fn clear(&mut self, all_open: impl Fn(&str) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        for id in std::mem::take(&mut self.announced) {
            let Some(entry) = self.keys.get_mut(&id) else { continue };
            let unseen = entry.suspect && !all_open(&entry.expected.group);
            if unseen || !entry.wrong.is_empty() {
                self.announced.insert(id);
            } else {
                entry.suspect = false;
                events.push(Event::Cleared { key: id });
            }
        }
        events
    }

    /// The token is no longer open: nothing is proven by it. What it showed wrong stays.
    pub(super) fn token_lost(&mut self, token: usize) {
        for entry in self.keys.values_mut() {
            entry.proven.remove(&token);
        }
        self.proven_counts.remove(&token);
    }

    /// The object on `token` is not where it was.
    pub(super) fn object_lost(&mut self, id: &KeyId, token: usize) {
        if self.keys.get_mut(id).is_some_and(|entry| entry.proven.remove(&token).is_some()) {
            count_less(&mut self.proven_counts, token);
        }
    }

    /// The private key on `token`, if that generation of it has proven the key and nobody
    /// contradicts.
    pub(super) fn private(
        &self,
        id: &KeyId,
        token: usize,
        generation: u64,
    ) -> Option<ObjectHandle> {
        let entry = self.keys.get(id)?;
        if entry.in_conflict() {
            return None;
        }
        let (proven_in, private) = entry.proven.get(&token)?;
        (*proven_in == generation).then_some(*private)
    }

    /// The tokens that have proven the key, another one first each time; or why none may use it.
    pub(super) fn holders(
        &mut self,
        id: &KeyId,
        name: impl Fn(usize) -> String,
    ) -> Result<Vec<usize>, HsmError> {
        let entry = self.keys.get_mut(id).ok_or(HsmError::UnknownKey(*id))?;
        if let Some((token, found)) = entry.wrong.first_key_value() {
            let (token, found) = (name(*token), found.clone());
            return Err(HsmError::Conflict { key: *id, token, found });
        }
        if entry.suspect {
            return Err(HsmError::Conflict {
                key: *id,
                token: "of an earlier run".to_owned(),
                found: "another public key, and not all tokens of its group are open".to_owned(),
            });
        }
        let mut holders: Vec<usize> = entry.proven.keys().copied().collect();
        if !holders.is_empty() {
            entry.turn = entry.turn.wrapping_add(1);
            let first = entry.turn % holders.len();
            holders.rotate_left(first);
        }
        Ok(holders)
    }

    /// How a key stands.
    pub(super) fn status(&self, id: &KeyId, name: impl Fn(usize) -> String) -> Option<KeyStatus> {
        let entry = self.keys.get(id)?;
        let conflict = entry
            .wrong
            .first_key_value()
            .map(|(token, found)| format!("token `{}` answers for it with {found}", name(*token)))
            .or_else(|| {
                entry.suspect.then(|| "was in conflict; not all tokens are open yet".to_owned())
            });
        let proven_by = entry.proven.keys().map(|token| name(*token)).collect();
        Some(KeyStatus { proven_by, conflict })
    }

    /// Keys that `token` has proven.
    pub(super) fn proven_count(&self, token: usize) -> usize {
        self.proven_counts.get(&token).copied().unwrap_or_default()
    }

    /// How many keys of each group no token has proven, though none contradicts: it may have refused in
    /// passing, or not have shown them.
    pub(super) fn unproven(&self) -> BTreeMap<String, usize> {
        let mut unproven = BTreeMap::new();
        let entries = self.keys.values();
        for entry in entries.filter(|entry| entry.proven.is_empty() && !entry.in_conflict()) {
            *unproven.entry(entry.expected.group.clone()).or_default() += 1;
        }
        unproven
    }

    /// Groups with a key in conflict.
    pub(super) fn groups_in_conflict(&self) -> Vec<String> {
        let entries = self.announced.iter().filter_map(|id| self.keys.get(id));
        let mut groups: Vec<String> = entries.map(|e| e.expected.group.clone()).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

fn count_less(counts: &mut BTreeMap<usize, usize>, token: usize) {
    if let Some(count) = counts.get_mut(&token) {
        *count -= 1;
    }
}

impl Entry {
    fn learn(&mut self, public: &PublicKey) {
        if self.expected.identity.public().is_none() {
            let identity = KeyIdentity::Public(public.clone());
            self.expected = Arc::new(ExpectedKey { identity, ..(*self.expected).clone() });
        }
    }

    fn in_conflict(&self) -> bool {
        self.suspect || !self.wrong.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use countersign_policy::Algorithm;

    use super::*;

    fn key(number: u8) -> ExpectedKey {
        let public = PublicKey::new(Algorithm::Ed25519, &[number; 32]).expect("a key");
        ExpectedKey {
            identity: public.into(),
            role: KeyRole::Zsk,
            label: String::new(),
            cka_id: None,
            group: "zsk".to_owned(),
            conflicted: false,
        }
    }

    #[test]
    fn the_count_of_proven_keys_is_that_of_the_keys() {
        // SAFETY: it is never handed to a module.
        #[expect(unsafe_code, reason = "there is no other way to a handle without a module")]
        let private = unsafe { ObjectHandle::new_from_raw(7) };
        let keys: Vec<ExpectedKey> = (1..=4).map(key).collect();
        let ids: Vec<KeyId> = keys.iter().map(ExpectedKey::id).collect();
        let mut registry = Registry::default();
        registry.expect(keys);
        let check = |registry: &Registry, expect: [usize; 2]| {
            for (token, count) in expect.into_iter().enumerate() {
                let keys = registry.keys.values();
                let scanned = keys.filter(|entry| entry.proven.contains_key(&token)).count();
                assert_eq!((registry.proven_count(token), scanned), (count, count), "{token}");
            }
        };
        let found = |registry: &mut Registry, id: &KeyId, token: usize, finding: Finding| {
            registry.found(id, (token, "zsk"), 1, finding);
        };
        for id in &ids {
            for token in [0, 1, 1] {
                found(&mut registry, id, token, Finding::Proven(private));
            }
        }
        check(&registry, [4, 4]);
        found(&mut registry, &ids[0], 0, Finding::Wrong("another".to_owned()));
        found(&mut registry, &ids[0], 0, Finding::Absent);
        check(&registry, [3, 4]);
        registry.object_lost(&ids[0], 1);
        registry.object_lost(&ids[0], 1);
        check(&registry, [3, 3]);
        registry.forget(&ids[1]);
        registry.forget(&ids[1]);
        check(&registry, [2, 2]);
        registry.token_lost(1);
        check(&registry, [2, 0]);
        found(&mut registry, &ids[3], 1, Finding::Proven(private));
        check(&registry, [2, 1]);
    }
}
