//! What is on a token, from one bulk listing: SoftHSM needs 1.7 s to list 4,000 objects, so looking
//! up one key at a time would take hours.

use std::collections::HashMap;

use countersign_policy::{KeyId, PublicKey};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::audit::is_audit_label;
use super::error::Fault;
use super::public_key;

/// Key objects that one token may hold before it is refused as too full to index; 100,000 zones
/// with two key pairs each.
const OBJECTS_MAX: usize = 400_000;

/// A key object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) handle: ObjectHandle,
    pub(super) label: Vec<u8>,
    pub(super) id: Vec<u8>,
    /// `None` for a private key; else the public key, or why it can't be read.
    pub(super) public: Option<Result<PublicKey, String>>,
}

/// Every key object of a token.
#[derive(Debug, Default)]
pub(super) struct Index {
    objects: Vec<Object>,
    by_label: HashMap<Vec<u8>, Vec<usize>>,
    by_id: HashMap<Vec<u8>, Vec<usize>>,
    by_key: HashMap<KeyId, Vec<usize>>,
}

/// Lets one call into the module be timed: (name of the call, the call).
pub(super) trait Timed {
    /// Runs `call` under the deadline for listings.
    fn listing<T>(&self, name: &'static str, call: impl FnOnce() -> T) -> T;
}

impl Index {
    /// Lists all private and public key objects that `filter` matches.
    pub(super) fn read(
        session: &Session,
        timed: &impl Timed,
        filter: &[Attribute],
    ) -> Result<Self, Fault> {
        let mut index = Self::default();
        for (class, private) in [(ObjectClass::PRIVATE_KEY, true), (ObjectClass::PUBLIC_KEY, false)]
        {
            let mut template = vec![Attribute::Class(class), Attribute::Token(true)];
            template.extend_from_slice(filter);
            let handles = timed.listing("C_FindObjects", || session.find_objects(&template))?;
            if handles.len() > OBJECTS_MAX {
                return Err(Fault::Token(format!(
                    "holds {} key objects, expected at most {OBJECTS_MAX}",
                    handles.len()
                )));
            }
            for handle in handles {
                let read =
                    timed.listing("C_GetAttributeValue", || read_object(session, handle, private));
                match read {
                    Ok(object) => index.add(object),
                    // Destroyed by another process since it was listed.
                    Err(Fault::Object(_)) => {}
                    Err(fault) => return Err(fault),
                }
            }
        }
        Ok(index)
    }

    /// Adds one object.
    pub(super) fn add(&mut self, object: Object) {
        let at = self.objects.len();
        self.by_label.entry(object.label.clone()).or_default().push(at);
        self.by_id.entry(object.id.clone()).or_default().push(at);
        if let Some(Ok(public)) = &object.public {
            self.by_key.entry(public.id()).or_default().push(at);
        }
        self.objects.push(object);
    }

    /// All objects.
    pub(super) fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The objects that claim to be the key, which was named so. Of a key made here (without a
    /// `cka_id`), all that have its `CKA_ID` or its label: nobody else gives such. Of an adopted one,
    /// those that have both as they were found: other tools give one label to many keys, or one
    /// `CKA_ID`. And of either, public keys that are it. An audit key is none of these.
    pub(super) fn claims(&self, key: &KeyId, label: &str, cka_id: Option<&[u8]>) -> Vec<&Object> {
        let label = label.as_bytes();
        let own_id = self.with_id(&key.0);
        let itself = self.of_key(key);
        let located: Vec<&Object> = match cka_id {
            None => self.with_label(label).collect(),
            Some([]) => self.with_label(label).filter(|o| o.id.is_empty()).collect(),
            Some(cka_id) => self.with_id(cka_id).filter(|o| o.label == label).collect(),
        };
        let mut claims: Vec<&Object> = own_id.chain(itself).chain(located).collect();
        claims.retain(|object| !is_audit_label(&object.label));
        // Each once: it may claim in more than one way.
        claims.sort_by_key(|object| object.handle.handle());
        claims.dedup_by_key(|object| object.handle.handle());
        claims
    }

    /// The objects with this `CKA_ID`.
    pub(super) fn with_id(&self, id: &[u8]) -> impl Iterator<Item = &Object> {
        self.at(self.by_id.get(id))
    }

    /// The objects with this `CKA_LABEL`.
    pub(super) fn with_label(&self, label: &[u8]) -> impl Iterator<Item = &Object> {
        self.at(self.by_label.get(label))
    }

    /// The public key objects that are this key.
    pub(super) fn of_key(&self, key: &KeyId) -> impl Iterator<Item = &Object> {
        self.at(self.by_key.get(key))
    }

    fn at<'a>(&'a self, at: Option<&'a Vec<usize>>) -> impl Iterator<Item = &'a Object> {
        at.into_iter().flatten().map(|at| &self.objects[*at])
    }
}

/// Reads one key object.
pub(super) fn read_object(
    session: &Session,
    handle: ObjectHandle,
    private: bool,
) -> Result<Object, Fault> {
    const NAMES: [AttributeType; 2] = [AttributeType::Id, AttributeType::Label];
    let read =
        |wanted: &[AttributeType]| session.get_attributes(handle, wanted).map_err(Fault::from);
    let (attributes, public) = if private {
        (read(&NAMES)?, None)
    } else {
        match read(&[&NAMES[..], &public_key::ATTRIBUTES].concat()) {
            Ok(attributes) => {
                let public = public_key::decode(&attributes);
                (attributes, Some(public))
            }
            // A foreign key of a kind that can't even be read must not cost the token.
            Err(Fault::Call(detail)) => (read(&NAMES)?, Some(Err(detail))),
            Err(fault) => return Err(fault),
        }
    };
    let (mut id, mut label) = (Vec::new(), Vec::new());
    for attribute in &attributes {
        match attribute {
            Attribute::Id(value) => id.clone_from(value),
            Attribute::Label(value) => label.clone_from(value),
            _ => {}
        }
    }
    Ok(Object { handle, label, id, public })
}
