//! What is on a token, for people who have to decide about it: whose token it is, what it can do, and
//! every key object and data object of ours on it. Foreign objects are shown and left alone.

use std::collections::BTreeSet;

use countersign_policy::{Algorithm, KeyId, PublicKey};
use cryptoki::object::{AttributeType, ObjectHandle};
use cryptoki::slot::TokenInfo;

use super::adoption::FoundPair;
use super::audit::{AUDIT_LABEL, is_audit_label};
use super::data::DataObject;
use super::error::{Fault, HsmError, Trouble};
use super::index::Object;
use super::root::Root;
use super::templates;
use super::tokens::Tokens;

/// What a token says of a private key; `None` where it says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrivateAttributes {
    /// `CKA_SENSITIVE`: it can't be read in clear.
    pub sensitive: Option<bool>,
    /// `CKA_EXTRACTABLE`: it can be wrapped, and so leave the token.
    pub extractable: Option<bool>,
    /// `CKA_NEVER_EXTRACTABLE`: it never could.
    pub never_extractable: Option<bool>,
    /// `CKA_LOCAL`: it was made on this token, not brought there.
    pub local: Option<bool>,
}

/// A key object on a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundObject {
    /// `CKA_LABEL`; octets that are not UTF-8 are replaced.
    pub label: String,
    /// `CKA_ID`.
    pub id: Vec<u8>,
    /// A private key; else a public one.
    pub private: bool,
    /// The public key, if it is one that DNSSEC knows here.
    pub public: Option<PublicKey>,
    /// Of a private key, in a survey.
    pub attributes: Option<PrivateAttributes>,
}

/// A token and what is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInventory {
    /// Its name in the configuration.
    pub name: String,
    /// `CK_TOKEN_INFO` label.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// Who made it.
    pub manufacturer: String,
    /// Its model.
    pub model: String,
    /// Version of its hardware, `major.minor`.
    pub hardware: String,
    /// Version of its firmware, `major.minor`.
    pub firmware: String,
    /// The mechanisms that matter here and that it has, by their names in PKCS#11.
    pub mechanisms: Vec<String>,
    /// The algorithms that it can make and use keys of (RSA of 2048 bits).
    pub algorithms: Vec<Algorithm>,
    /// Every key object, our own and others', audit keys too. The public keys of KSKs are among
    /// them: of one made here, which is not active yet, only its `KeyId` is for people's eyes.
    pub objects: Vec<FoundObject>,
    /// Every whole pair of a zone's key, our own and others': what could be adopted is among them.
    pub pairs: Vec<FoundPair>,
    /// Our data objects. `None` if the token says that it keeps none; most that keep none just show
    /// none, and only [`Tokens::write_data`] finds out.
    pub data: Option<Vec<DataObject>>,
}

impl Tokens {
    /// Everything that there is to know about a token, from a new listing.
    pub fn survey(&self, token: &str) -> Result<TokenInventory, HsmError> {
        self.look(token, |root| {
            root.relist(false)?;
            root.survey()
        })
    }

    /// Key objects on a token whose label starts with `prefix`, from a new listing; audit keys are not
    /// among them.
    pub fn objects_labelled(
        &self,
        token: &str,
        prefix: &str,
    ) -> Result<Vec<FoundObject>, HsmError> {
        let prefix = prefix.to_owned();
        self.look(token, move |root| {
            root.relist(false)?;
            let objects = root.open.index.objects().iter();
            let ours = objects
                .filter(|o| o.label.starts_with(prefix.as_bytes()) && !is_audit_label(&o.label));
            Ok(ours.map(|object| FoundObject::of(object, None)).collect())
        })
    }
}

impl FoundObject {
    fn of(object: &Object, attributes: Option<PrivateAttributes>) -> Self {
        Self {
            label: String::from_utf8_lossy(&object.label).into_owned(),
            id: object.id.clone(),
            private: object.public.is_none(),
            public: object.public.clone().and_then(Result::ok),
            attributes,
        }
    }

    /// Whether it is of an audit key.
    pub fn is_audit(&self) -> bool {
        self.label.starts_with(AUDIT_LABEL)
    }
}

impl Root<'_> {
    fn survey(&self) -> Result<TokenInventory, Trouble> {
        let info = self.token_info()?;
        let mut objects = Vec::new();
        let mut keys: BTreeSet<KeyId> = BTreeSet::new();
        for object in self.open.index.objects() {
            let attributes = match object.public {
                Some(_) => None,
                None => match self.private_attributes(object.handle) {
                    Ok(attributes) => Some(attributes),
                    // Destroyed by another process since it was listed.
                    Err(Fault::Object(_)) => continue,
                    Err(fault) => return Err(fault.into()),
                },
            };
            let found = FoundObject::of(object, attributes);
            keys.extend(found.public.as_ref().map(PublicKey::id));
            objects.push(found);
        }
        let mut pairs = Vec::new();
        for key in keys {
            match self.pair(&key) {
                Ok(pair) => pairs.extend(pair),
                Err(Trouble::Refused(_) | Trouble::Fault(Fault::Object(_))) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        let data = match self.data_objects(None) {
            Ok(data) => Some(data),
            Err(Trouble::Refused(HsmError::NoDataObjects { .. })) => None,
            Err(trouble) => return Err(trouble),
        };
        let offered = &self.open.offered;
        let version =
            |version: cryptoki::types::Version| format!("{}.{}", version.major(), version.minor());
        Ok(TokenInventory {
            name: self.name(),
            label: info.label().trim_end().to_owned(),
            serial: info.serial_number().trim_end().to_owned(),
            manufacturer: info.manufacturer_id().trim_end().to_owned(),
            model: info.model().trim_end().to_owned(),
            hardware: version(info.hardware_version()),
            firmware: version(info.firmware_version()),
            mechanisms: offered.names().map(str::to_owned).collect(),
            algorithms: offered.algorithms(),
            objects,
            pairs,
            data,
        })
    }

    fn token_info(&self) -> Result<TokenInfo, Fault> {
        let (module, slot) = (&self.open.module, self.open.slot);
        let limit = self.token().listing_deadline();
        self.entered
            .call("C_GetTokenInfo", limit, || module.get_token_info(slot))
            .map_err(Fault::from)
    }

    /// What the token says of a private key; nothing, where it does not know the attributes.
    pub(super) fn private_attributes(
        &self,
        handle: ObjectHandle,
    ) -> Result<PrivateAttributes, Fault> {
        const WANTED: [AttributeType; 4] = [
            AttributeType::Sensitive,
            AttributeType::Extractable,
            AttributeType::NeverExtractable,
            AttributeType::Local,
        ];
        let read =
            self.call("C_GetAttributeValue", |session| session.get_attributes(handle, &WANTED));
        let read = match read {
            Ok(read) => read,
            // Another tool's object of a strange kind must not cost the token.
            Err(Fault::Call(_)) => Vec::new(),
            Err(fault) => return Err(fault),
        };
        let value = |kind| templates::value_of(&read, kind);
        Ok(PrivateAttributes {
            sensitive: value(AttributeType::Sensitive),
            extractable: value(AttributeType::Extractable),
            never_extractable: value(AttributeType::NeverExtractable),
            local: value(AttributeType::Local),
        })
    }
}
