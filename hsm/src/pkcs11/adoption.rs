//! Keys that other tools made (OpenDNSSEC, Knot, BIND): found by what they are, not by what they are
//! called, since labels and `CKA_ID`s are as those tools chose.
//!
//! A private key object does not say which key it is. It belongs to the public key object that has the
//! same `CKA_ID`, or the same label where both have no `CKA_ID`; whether it does is then proven by
//! the challenge, as for any key.

use countersign_policy::{KeyId, PublicKey};

use super::audit::is_audit_label;
use super::error::{HsmError, Trouble};
use super::index::{Index, Object};
use super::root::Root;
use super::survey::PrivateAttributes;
use super::tokens::Tokens;

/// A key pair on a token, whoever made it. `label` and `cka_id` are those of the private object, and
/// with them [`super::ExpectedKey`] finds it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPair {
    /// `CKA_LABEL` of the private key.
    pub label: String,
    /// `CKA_ID` of the private key; may be empty.
    pub cka_id: Vec<u8>,
    /// The public key.
    pub public: PublicKey,
    /// What the token says of the private key.
    pub private: PrivateAttributes,
}

impl Tokens {
    /// The pair on `token` that is `key`, from a new listing; `None` if nothing there is. An error if
    /// only half of it is there, or if its halves can't be told from others.
    pub fn find_by_key(&self, token: &str, key: &KeyId) -> Result<Option<FoundPair>, HsmError> {
        let key = *key;
        self.look(token, move |root| {
            root.relist(false)?;
            root.pair(&key)
        })
    }

    /// The public key that is `key`, from a new listing of `token`; `None` if no object there is it.
    /// Its private half need not be there.
    pub fn public_key_of(&self, token: &str, key: &KeyId) -> Result<Option<PublicKey>, HsmError> {
        let key = *key;
        self.look(token, move |root| {
            root.relist(false)?;
            Ok(root.open.index.of_key(&key).find_map(shown).cloned())
        })
    }
}

impl Root<'_> {
    /// The pair that is `key`, by the present listing.
    pub(super) fn pair(&self, key: &KeyId) -> Result<Option<FoundPair>, Trouble> {
        let not_a_pair = |problem| HsmError::NotAPair { token: self.name(), key: *key, problem };
        let Some((public, private)) = pair(&self.open.index, key).map_err(not_a_pair)? else {
            return Ok(None);
        };
        let label = std::str::from_utf8(&private.label)
            .map_err(|_| not_a_pair("its label is not UTF-8. hint: give it another".to_owned()))?;
        Ok(Some(FoundPair {
            label: label.to_owned(),
            cka_id: private.id.clone(),
            public: public.clone(),
            private: self.private_attributes(private.handle)?,
        }))
    }
}

/// The public key that an object shows.
pub(super) fn shown(object: &Object) -> Option<&PublicKey> {
    object.public.as_ref()?.as_ref().ok()
}

/// The private key objects that may be those of the public key objects that are `key`.
pub(super) fn privates_of<'a>(index: &'a Index, key: &KeyId) -> Vec<&'a Object> {
    let mut found: Vec<&Object> = Vec::new();
    for public in index.of_key(key) {
        if public.id.is_empty() {
            found.extend(index.with_label(&public.label).filter(|object| object.id.is_empty()));
        } else {
            found.extend(index.with_id(&public.id));
        }
    }
    found.retain(|object| object.public.is_none() && !is_audit_label(&object.label));
    found.sort_by_key(|object| object.handle.handle());
    found.dedup_by_key(|object| object.handle.handle());
    found
}

/// The public key and the one private key object that is paired with it, or why there is none.
fn pair<'a>(index: &'a Index, key: &KeyId) -> Result<Option<(&'a PublicKey, &'a Object)>, String> {
    if index.of_key(key).any(|object| is_audit_label(&object.label)) {
        return Err("it is an audit key, which is no zone's".to_owned());
    }
    let Some(public) = index.of_key(key).find_map(shown) else {
        let alone = index.with_id(&key.0).any(|object| object.public.is_none());
        return if alone {
            Err("a private key has it as CKA_ID, and its public key object is missing. hint: \
                 restore that with the tool that made the key"
                .to_owned())
        } else {
            Ok(None)
        };
    };
    let mut privates = privates_of(index, key);
    if privates.len() > 1 {
        // One CKA_ID for several pairs: their labels may tell them apart.
        let labels: Vec<&[u8]> = index.of_key(key).map(|object| object.label.as_slice()).collect();
        privates.retain(|object| labels.contains(&object.label.as_slice()));
    }
    match privates.as_slice() {
        [private] => Ok(Some((public, private))),
        [] => Err("its public key object is there, and no private key has the same CKA_ID (or \
                   label, where there is no CKA_ID)"
            .to_owned()),
        several => Err(format!(
            "{} private keys have the CKA_ID and label of its public key object. hint: give each \
             pair a CKA_ID of its own",
            several.len()
        )),
    }
}
