//! Data objects (PKCS#11 3.0 §4.3): what the keeper remembers on a token, so that an older copy of its
//! files is noticed.
//!
//! They can't be changed in place everywhere (SoftHSM), so a new value is a new object: it is made, read
//! back, and then the older ones go. A crash between leaves two, and a reader gets both: it takes the
//! highest. Where a token takes them, they are private ones, which nobody without the PIN can make; a
//! public one then counts for nothing.

use cryptoki::object::{Attribute, AttributeInfo, AttributeType, ObjectClass, ObjectHandle};
use tracing::warn;

use super::error::{Fault, HsmError, Trouble};
use super::root::{Ended, Root, costly};
use super::tokens::Tokens;

/// `CKA_APPLICATION` of ours.
const APPLICATION: &[u8] = b"countersign";
/// Octets of a value: hashes and numbers; small HSMs have a few kilobytes in all.
pub(super) const DATA_BYTES_MAX: usize = 4096;
/// Objects of ours on one token: a handful of labels, one object each and one more after a crash.
/// More means that the token does not destroy them.
const DATA_OBJECTS_MAX: usize = 64;
/// Octets of a label: what every HSM keeps whole.
const LABEL_BYTES_MAX: usize = 64;

/// How a token says that it knows no such class, or not this attribute of it.
const NOT_KNOWN: [&str; 5] = [
    "CKR_ATTRIBUTE_TYPE_INVALID",
    "CKR_ATTRIBUTE_VALUE_INVALID",
    "CKR_ATTRIBUTE_READ_ONLY",
    "CKR_TEMPLATE_INCONSISTENT",
    "CKR_FUNCTION_NOT_SUPPORTED",
];

/// A data object of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataObject {
    /// `CKA_LABEL`.
    pub label: String,
    /// `CKA_VALUE`.
    pub value: Vec<u8>,
    /// `CKA_PRIVATE`: seen and made after login only.
    pub private: bool,
}

type Listed = (ObjectHandle, DataObject);

impl Tokens {
    /// The values of our data objects with this label, in no order: none, one, or more after a crash.
    pub fn read_data(&self, token: &str, label: &str) -> Result<Vec<Vec<u8>>, HsmError> {
        let label = label.to_owned();
        self.look(token, move |root| {
            let objects = root.data_objects(Some(&label))?;
            Ok(objects.into_iter().map(|object| object.value).collect())
        })
    }

    /// Puts a value on the token under this label, in place of those there: makes it, reads it back, and
    /// destroys the others. When that last step fails, the new value counts all the same. An error
    /// but [`HsmError::OutcomeUnknown`] says that all is as before.
    pub fn write_data(&self, token: &str, label: &str, value: &[u8]) -> Result<(), HsmError> {
        let refuse = |problem: String| {
            let token = token.to_owned();
            Err(HsmError::Setting { token, problem: format!("a data object's {problem}") })
        };
        if label.is_empty() || label.len() > LABEL_BYTES_MAX {
            return refuse(format!("label has 1 to {LABEL_BYTES_MAX} octets, not {}", label.len()));
        }
        if value.is_empty() || value.len() > DATA_BYTES_MAX {
            return refuse(format!("value has 1 to {DATA_BYTES_MAX} octets, not {}", value.len()));
        }
        let token = self.shared.token_named(token)?;
        let (label, value) = (label.to_owned(), value.to_vec());
        self.on_root(token, move |root| root.write_data(&label, &value))
    }
}

impl Root<'_> {
    /// Our data objects, with this label or all, as they count.
    pub(super) fn data_objects(&self, label: Option<&str>) -> Result<Vec<DataObject>, Trouble> {
        // All are listed, whichever are asked for: one private one says that the token takes such.
        let listed = self.list_data(None)?;
        let asked = |object: &&DataObject| label.is_none_or(|label| object.label == label);
        Ok(counting(&listed).filter(asked).cloned().collect())
    }

    fn list_data(&self, label: Option<&str>) -> Result<Vec<Listed>, Trouble> {
        let mut listed = Vec::new();
        for handle in self.find_data(label)? {
            match self.read_data_object(handle) {
                Ok(object) => listed.push((handle, object)),
                // Destroyed by another process since it was found.
                Err(Trouble::Fault(Fault::Object(_))) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(listed)
    }

    fn find_data(&self, label: Option<&str>) -> Result<Vec<ObjectHandle>, Trouble> {
        let mut template = vec![
            Attribute::Class(ObjectClass::DATA),
            Attribute::Token(true),
            Attribute::Application(APPLICATION.to_vec()),
        ];
        template.extend(label.map(|label| Attribute::Label(label.as_bytes().to_vec())));
        let found = self.call("C_FindObjects", |session| session.find_objects(&template));
        let found = found.map_err(|fault| self.not_known(fault))?;
        if found.len() > DATA_OBJECTS_MAX {
            let detail = format!(
                "holds {} data objects of ours, expected at most {DATA_OBJECTS_MAX}. hint: see \
                 which are needed, and remove the others with the token's own tools",
                found.len()
            );
            return Err(self.error(detail).into());
        }
        Ok(found)
    }

    fn read_data_object(&self, handle: ObjectHandle) -> Result<DataObject, Trouble> {
        const WANTED: [AttributeType; 3] =
            [AttributeType::Label, AttributeType::Value, AttributeType::Private];
        // Whoever else has the PIN may have put a large one there: its size is asked first.
        let sizes = self.call("C_GetAttributeValue", |session| {
            session.get_attribute_info(handle, &WANTED[..2])
        })?;
        for size in sizes {
            if let AttributeInfo::Available(size) = size
                && size > DATA_BYTES_MAX
            {
                let detail = format!(
                    "a data object of ours has {size} octets, expected at most {DATA_BYTES_MAX}"
                );
                return Err(self.error(detail).into());
            }
        }
        let read =
            self.call("C_GetAttributeValue", |session| session.get_attributes(handle, &WANTED))?;
        let mut object = DataObject { label: String::new(), value: Vec::new(), private: false };
        for attribute in read {
            match attribute {
                Attribute::Label(label) => {
                    object.label = String::from_utf8_lossy(&label).into_owned();
                }
                Attribute::Value(value) => object.value = value,
                Attribute::Private(private) => object.private = private,
                _ => {}
            }
        }
        Ok(object)
    }

    fn write_data(&mut self, label: &str, value: &[u8]) -> Ended<()> {
        let mut listed = match self.list_data(None) {
            Ok(listed) => listed,
            Err(trouble) => return self.ended(Err(trouble)),
        };
        // The memory of an HSM wears out: what is there is not written again.
        if !counting(&listed).any(|object| object.label == label && object.value == value) {
            listed = match self.make_data_object(label, value) {
                Ok(listed) => listed,
                Err((trouble, made)) => return self.undo_data(label, value, made, trouble),
            };
        }
        let is_older = |object: &DataObject| object.label == label && object.value != value;
        for (handle, _) in listed.into_iter().filter(|(_, object)| is_older(object)) {
            match self.destroy_object(handle) {
                Ok(()) | Err(Fault::Object(_)) => {}
                Err(fault) => {
                    let reason = fault.detail();
                    warn!(token = self.name(), label, reason, "an older data object is left");
                    return (Ok(()), costly(fault));
                }
            }
        }
        (Ok(()), None)
    }

    /// Makes the object, and sees by a new listing that it is there and counts.
    fn make_data_object(
        &self,
        label: &str,
        value: &[u8],
    ) -> Result<Vec<Listed>, (Trouble, Option<ObjectHandle>)> {
        let made = self.create_data(label, value).map_err(|trouble| (trouble, None))?;
        let listed = self.list_data(Some(label)).map_err(|trouble| (trouble, Some(made)))?;
        if counting(&listed).any(|object| object.value == value) {
            return Ok(listed);
        }
        let detail = "a new data object does not read back as it was written".to_owned();
        Err((self.error(detail).into(), Some(made)))
    }

    fn create_data(&self, label: &str, value: &[u8]) -> Result<ObjectHandle, Trouble> {
        let create = |private| {
            let template = [
                Attribute::Class(ObjectClass::DATA),
                Attribute::Token(true),
                Attribute::Private(private),
                Attribute::Application(APPLICATION.to_vec()),
                Attribute::Label(label.as_bytes().to_vec()),
                Attribute::Value(value.to_vec()),
            ];
            self.call("C_CreateObject", |session| session.create_object(&template))
        };
        match create(true) {
            Err(fault) if is_not_known(&fault) => create(false).map_err(|f| self.not_known(f)),
            result => Ok(result?),
        }
    }

    /// Destroys what a failed write may have left, so that all is as before. It is told by its value,
    /// which none of the older objects has.
    fn undo_data(
        &self,
        label: &str,
        value: &[u8],
        made: Option<ObjectHandle>,
        trouble: Trouble,
    ) -> Ended<()> {
        let undone = self.list_data(Some(label)).and_then(|left| {
            for (handle, object) in left {
                if object.value == value || Some(handle) == made {
                    self.destroy_object(handle)?;
                }
            }
            Ok(())
        });
        let (result, fault) = self.ended(Err(trouble));
        match (undone, result) {
            (Ok(()), result) => (result, fault),
            // It said so before it was asked to make anything.
            (Err(_), Err(error @ HsmError::NoDataObjects { .. })) => (Err(error), fault),
            (Err(second), result) => {
                let (second, second_fault) = self.ended::<()>(Err(second));
                let words = |result: Result<(), HsmError>| {
                    result.map_or_else(|error| error.to_string(), |()| String::new())
                };
                let detail = format!("{}; and then {}", words(result), words(second));
                let error = HsmError::OutcomeUnknown { token: self.name(), detail };
                (Err(error), fault.or(second_fault))
            }
        }
    }

    fn not_known(&self, fault: Fault) -> Trouble {
        if is_not_known(&fault) {
            let detail = fault.detail().to_owned();
            HsmError::NoDataObjects { token: self.name(), detail }.into()
        } else {
            fault.into()
        }
    }
}

/// The objects that count: public ones, which take no PIN to make, only on a token that has no private
/// one of ours, whatever its label. (Each token that takes such is marked with one; a value that was
/// planted under a label that was not written yet would else speak for the keeper.)
fn counting(listed: &[Listed]) -> impl Iterator<Item = &DataObject> {
    let takes_private = listed.iter().any(|(_, object)| object.private);
    let objects = listed.iter().map(|(_, object)| object);
    objects.filter(move |object| object.private || !takes_private)
}

fn is_not_known(fault: &Fault) -> bool {
    matches!(fault, Fault::Call(detail) if NOT_KNOWN.iter().any(|code| detail.ends_with(code)))
}
