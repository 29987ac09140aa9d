//! Key pairs: made, named by their [`KeyId`], proven and destroyed, each with
//! leave from the ledger.
//!
//! A pair that could not be made whole is destroyed again. A key is destroyed by what it is, never by
//! what it is called: its private object has to sign a challenge first.

use countersign_policy::ledger::{Operation, generation_label};
use countersign_policy::{Algorithm, KeyId, PublicKey};
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::Session;
use tracing::info;

use super::adoption;
use super::audit::{AUDIT_LABEL, is_audit_label};
use super::error::{Fault, HsmError, Trouble};
use super::index::{Index, Object, read_object};
use super::registry::{Finding, KeyIdentity};
use super::root::{Ended, Root, costly};
use super::tokens::{Tokens, not_for};
use super::{mechanism, public_key, templates};
use crate::ledger::{Authorised, Spent};

/// RSA modulus where none is given.
const RSA_BITS_DEFAULT: u16 = 2048;
/// What the labels of our own key pairs start with; nothing else is destroyed by its label.
const OWN_LABEL: &str = "cs-";

impl Tokens {
    /// Makes the key pair that `auth` names ([`Operation::Generate`]), with its nonce in the label,
    /// and its `KeyId` as `CKA_ID`. The new key signs once it is expected ([`Self::expect_keys`]).
    pub fn generate(
        &self,
        auth: Authorised,
        algorithm: Algorithm,
        rsa_bits: Option<u16>,
    ) -> (Spent, Result<PublicKey, HsmError>) {
        let Operation::Generate { zone, role, token, nonce } = auth.operation() else {
            return (auth.spend(), Err(not_for("making a key")));
        };
        let label = generation_label(*role, zone, nonce);
        let token = token.clone();
        let spent = auth.spend();
        (spent, self.make(&token, label, algorithm, rsa_bits.unwrap_or(RSA_BITS_DEFAULT)))
    }

    /// What [`Self::generate`] does once its leave is spent.
    pub(super) fn make(
        &self,
        token: &str,
        label: String,
        algorithm: Algorithm,
        rsa_bits: u16,
    ) -> Result<PublicKey, HsmError> {
        let token = self.shared.token_named(token)?;
        let offered = token.life().offered.clone();
        if let Some(Err(missing)) = offered.map(|o| o.supports(algorithm, Some(rsa_bits))) {
            let token = token.spec.name.clone();
            return Err(HsmError::Unsupported { token, algorithm, missing });
        }
        self.on_root(token, move |root| root.generate(&label, algorithm, rsa_bits))
    }

    /// Destroys what `auth` names ([`Operation::Destroy`]) on that token: the pair that proves to be
    /// its key, or, where it names none, the objects with its label.
    pub fn destroy(&self, auth: Authorised) -> (Spent, Result<(), HsmError>) {
        let Operation::Destroy { token, label, key, .. } = auth.operation() else {
            return (auth.spend(), Err(not_for("destroying a key")));
        };
        let (token, label, key) = (token.clone(), label.clone(), *key);
        let spent = auth.spend();
        let result = match key {
            Some(key) => self.unmake_key(&token, key, label),
            None => self.unmake(&token, label),
        };
        (spent, result)
    }

    /// What [`Self::destroy`] does once its leave is spent, for objects that never became a key.
    pub(super) fn unmake(&self, token: &str, label: String) -> Result<(), HsmError> {
        if !label.starts_with(OWN_LABEL) || is_audit_label(label.as_bytes()) {
            return Err(HsmError::NotAuthorised(format!(
                "`{label}` is not a label that this keeper gave to a zone's key; only \
                 `{OWN_LABEL}…` is destroyed, and `{AUDIT_LABEL}…` is not"
            )));
        }
        let token = self.shared.token_named(token)?;
        self.on_root(token, move |root| root.destroy(&label))
    }

    /// What [`Self::destroy`] does once its leave is spent, for a key: destroys exactly what proves to
    /// be it, whoever made it, and no other object of the same label or `CKA_ID`. A key of which
    /// nothing is there counts as destroyed.
    pub(super) fn unmake_key(
        &self,
        token: &str,
        key: KeyId,
        label: String,
    ) -> Result<(), HsmError> {
        let token = self.shared.token_named(token)?;
        let known = self.shared.keys().expected(&key);
        let doomed = match known {
            Some(known) => Doomed {
                identity: known.identity.clone(),
                label: known.label.clone(),
                cka_id: known.cka_id.clone(),
            },
            None => Doomed { identity: key.into(), label, cka_id: None },
        };
        self.on_root(token, move |root| root.destroy_key(doomed))
    }
}

/// A key that is to be destroyed.
struct Doomed {
    identity: KeyIdentity,
    label: String,
    cka_id: Option<Vec<u8>>,
}

impl Root<'_> {
    /// Makes a key pair, reads it back, names it by its `KeyId` and proves it. What fails on the way
    /// is destroyed again; if that can't be made sure of, the outcome is unknown.
    pub(super) fn generate(
        &mut self,
        label: &str,
        algorithm: Algorithm,
        rsa_bits: u16,
    ) -> Ended<PublicKey> {
        let token = self.name();
        if let Err(missing) = self.open.offered.supports(algorithm, Some(rsa_bits)) {
            return (Err(HsmError::Unsupported { token, algorithm, missing }), None);
        }
        match self.find_label(label) {
            Ok(index) if index.objects().is_empty() => {}
            Ok(_) => {
                let detail = format!("there are objects with the label `{label}` already");
                return (Err(HsmError::Token { token, detail }), None);
            }
            Err(fault) => return self.ended(Err(fault.into())),
        }
        match self.make_and_check(label, algorithm, rsa_bits) {
            Ok((public, objects)) => {
                info!(token, label, key = %public.id(), "key pair made");
                for object in objects {
                    self.open.index.add(object);
                }
                (Ok(public), None)
            }
            Err(fault) => {
                self.token().counters.failed();
                let detail = fault.detail().to_owned();
                let result = match self.destroy_label(label) {
                    Ok(()) => Err(HsmError::Token { token, detail }),
                    Err(second) => Err(HsmError::OutcomeUnknown {
                        token,
                        detail: format!("{detail}; and then {}", second.detail()),
                    }),
                };
                (result, costly(fault))
            }
        }
    }

    fn make_and_check(
        &self,
        label: &str,
        algorithm: Algorithm,
        rsa_bits: u16,
    ) -> Result<(PublicKey, Vec<Object>), Fault> {
        let session = self.open.session.get()?;
        let (public_handle, private_handle) = self.make(session, label, algorithm, rsa_bits)?;
        let read = |handle, wanted: &[AttributeType]| {
            self.call("C_GetAttributeValue", |session| session.get_attributes(handle, wanted))
        };
        templates::check_private(&read(private_handle, &templates::private_to_read())?)
            .map_err(Fault::Call)?;
        let public = public_key::decode(&read(public_handle, &public_key::ATTRIBUTES)?)
            .map_err(|problem| Fault::Call(format!("the new public key is {problem}")))?;
        if public.algorithm() != algorithm {
            return Err(Fault::Call(format!("the new key is for {}", public.algorithm())));
        }
        let id = Attribute::Id(public.id().0.to_vec());
        let mut objects = Vec::new();
        for (handle, private) in [(private_handle, true), (public_handle, false)] {
            self.call("C_SetAttributeValue", |session| {
                session.update_attributes(handle, std::slice::from_ref(&id))
            })?;
            let limit = self.token().listing_deadline();
            let object = self
                .entered
                .call("C_GetAttributeValue", limit, || read_object(session, handle, private))?;
            if object.id != public.id().0 || object.label != label.as_bytes() {
                return Err(Fault::Call("CKA_ID or CKA_LABEL did not stay as set".to_owned()));
            }
            objects.push(object);
        }
        match self.challenge(private_handle, &public)? {
            Finding::Proven(_) => Ok((public, objects)),
            Finding::Wrong(what) | Finding::Unproven(what) => {
                Err(Fault::Call(format!("the new key does not prove itself: {what}")))
            }
            Finding::Absent => Err(Fault::Call("the new key is not there".to_owned())),
        }
    }

    fn make(
        &self,
        session: &Session,
        label: &str,
        algorithm: Algorithm,
        rsa_bits: u16,
    ) -> Result<(ObjectHandle, ObjectHandle), Fault> {
        let mut refused = Fault::Call("no encoding of the curve is known".to_owned());
        for curve in templates::curve_encodings(algorithm) {
            let public = templates::public(algorithm, rsa_bits, curve, label);
            let private = templates::private(label);
            let limit = self.token().generation_deadline();
            let made = self.entered.call("C_GenerateKeyPair", limit, || {
                session.generate_key_pair(&mechanism::generation(algorithm), &public, &private)
            });
            match made.map_err(Fault::from) {
                Ok(pair) => return Ok(pair),
                // Perhaps it knows the curve by its other name.
                Err(fault @ Fault::Call(_)) => refused = fault,
                Err(fault) => return Err(fault),
            }
        }
        Err(refused)
    }

    fn destroy(&mut self, label: &str) -> Ended<()> {
        let result = self.destroy_label(label).and_then(|()| self.relist(false));
        if result.is_ok() {
            info!(token = self.name(), label, "objects destroyed");
        }
        self.ended_unknown(result.map_err(Trouble::from))
    }

    /// Destroys the private key objects that prove to be `key`, and then the public ones that are.
    /// Whatever else has the same label or `CKA_ID` stays.
    fn destroy_key(&mut self, mut key: Doomed) -> Ended<()> {
        let doomed = self.relist(false).map_err(Trouble::from).and_then(|()| {
            let shown = self.open.index.of_key(&key.identity.id()).find_map(adoption::shown);
            if let Some(public) = shown {
                // Kept for the look afterwards, when nothing shows it any more.
                key.identity = public.clone().into();
            }
            self.doomed(&key)
        });
        let doomed = match doomed {
            Ok(doomed) => doomed,
            Err(trouble) => return self.ended(Err(trouble)),
        };
        let result = doomed
            .into_iter()
            .try_for_each(|handle| self.destroy_object(handle))
            .and_then(|()| self.relist(false))
            .map_err(Trouble::from)
            .and_then(|()| match self.doomed(&key)?.len() {
                0 => Ok(()),
                left => Err(Fault::Call(format!("{left} objects of the key are left")).into()),
            });
        if result.is_ok() {
            info!(token = self.name(), key = %key.identity.id(), "key pair destroyed");
        }
        self.ended_unknown(result)
    }

    /// The objects that are `key` for certain, the private ones first.
    fn doomed(&self, key: &Doomed) -> Result<Vec<ObjectHandle>, Trouble> {
        let (id, index) = (key.identity.id(), &self.open.index);
        let publics: Vec<&Object> = index.of_key(&id).collect();
        if publics.iter().any(|object| is_audit_label(&object.label)) {
            return Err(self.not_a_pair(id, "it is an audit key").into());
        }
        let mut privates = index.claims(&id, &key.label, key.cka_id.as_deref());
        privates.retain(|object| object.public.is_none());
        privates.extend(adoption::privates_of(index, &id));
        privates.sort_by_key(|object| object.handle.handle());
        privates.dedup_by_key(|object| object.handle.handle());
        let mut doomed = Vec::new();
        for private in privates {
            let is_it = match key.identity.public() {
                Some(public) => self.proves(id, private, public)?,
                // Nothing is known of it but its hash, and no public key object has that.
                None if self.is_anothers(id, private)? => false,
                None => {
                    let problem = "a private key may be it, and no public key object shows which \
                                   it is. hint: look at it with the token's own tools";
                    return Err(self.not_a_pair(id, problem).into());
                }
            };
            if is_it {
                doomed.push(private.handle);
            }
        }
        doomed.extend(publics.iter().map(|object| object.handle));
        Ok(doomed)
    }

    /// Whether the private key proves the public key; an error if it can't be told.
    fn proves(&self, key: KeyId, private: &Object, public: &PublicKey) -> Result<bool, Trouble> {
        match self.challenge(private.handle, public)? {
            Finding::Proven(_) => Ok(true),
            Finding::Wrong(_) | Finding::Absent => Ok(false),
            Finding::Unproven(reason) => {
                let problem = format!("a private key that may be it can't be tried: {reason}");
                Err(self.not_a_pair(key, &problem).into())
            }
        }
    }

    /// Whether the private key proves the public key of another pair than `key`.
    fn is_anothers(&self, key: KeyId, private: &Object) -> Result<bool, Trouble> {
        let index = &self.open.index;
        let beside: Vec<&Object> = if private.id.is_empty() {
            index.with_label(&private.label).filter(|object| object.id.is_empty()).collect()
        } else {
            index.with_id(&private.id).collect()
        };
        for public in beside.into_iter().filter_map(adoption::shown) {
            if public.id() != key && self.proves(key, private, public)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn not_a_pair(&self, key: KeyId, problem: &str) -> HsmError {
        HsmError::NotAPair { token: self.name(), key, problem: problem.to_owned() }
    }

    /// As [`Root::ended`], where a fault leaves open what was done.
    fn ended_unknown(&self, result: Result<(), Trouble>) -> Ended<()> {
        let Err(Trouble::Fault(fault)) = result else { return self.ended(result) };
        self.token().counters.failed();
        let detail = fault.detail().to_owned();
        (Err(HsmError::OutcomeUnknown { token: self.name(), detail }), costly(fault))
    }

    pub(super) fn find_label(&self, label: &str) -> Result<Index, Fault> {
        let filter = [Attribute::Label(label.as_bytes().to_vec())];
        Index::read(self.open.session.get()?, self.entered, &filter)
    }

    /// Destroys all key objects with the label, the private one first, and looks that none is left.
    pub(super) fn destroy_label(&self, label: &str) -> Result<(), Fault> {
        for object in self.find_label(label)?.objects() {
            self.destroy_object(object.handle)?;
        }
        match self.find_label(label)?.objects().len() {
            0 => Ok(()),
            left => Err(Fault::Call(format!("{left} objects with that label are left"))),
        }
    }

    pub(super) fn destroy_object(&self, handle: ObjectHandle) -> Result<(), Fault> {
        self.call("C_DestroyObject", |session| session.destroy_object(handle))
    }
}
