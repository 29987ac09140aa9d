//! What is on the tokens, for those who found, adopt or attach. Of a founded keeper's own keys nothing
//! is shown: the public half of a KSK is nobody's before its activation.

use std::collections::BTreeMap;

use countersign_policy::PublicKey;
use countersign_policy::checkpoint::AuditKey;
use countersign_policy::key::to_hex;

use super::door::Hsm;
use super::marks;
use crate::pkcs11::{AUDIT_LABEL, FoundObject, HsmError, TokenInventory};
use crate::protocol::{Refusal, RefusalKind, SurveyedKey, SurveyedToken};

/// What the labels of key pairs start with that a keeper made.
const OWN_LABEL: &str = "cs-";
/// A data object that is written to see whether a token keeps such.
const PROBE_LABEL: &str = "countersign-survey";

/// The label of the one audit key that a token can hold.
fn audit_label() -> String {
    format!("{AUDIT_LABEL}1")
}

/// Whether a keeper, this or another, gave a zone's key pair this label.
pub fn is_own_label(label: &str) -> bool {
    label.starts_with(OWN_LABEL) && !label.starts_with(AUDIT_LABEL)
}

/// The audit key on this token, made if it is not there.
pub fn audit_key<H: Hsm + ?Sized>(hsm: &H, token: &str) -> Result<AuditKey, Refusal> {
    if let Some(key) = audit_key_there(hsm, token)? {
        return Ok(key);
    }
    let public = hsm.make_audit_key(token, &audit_label())?;
    tracing::info!(token, key = %public.id(), "the audit key was made");
    checked(public)
}

/// The audit key on this token, if it is there and whole.
pub fn audit_key_there<H: Hsm + ?Sized>(hsm: &H, token: &str) -> Result<Option<AuditKey>, Refusal> {
    hsm.audit_key(token, &audit_label())?.map(checked).transpose()
}

fn checked(public: PublicKey) -> Result<AuditKey, Refusal> {
    AuditKey::new(public)
        .map_err(|error| Refusal { kind: RefusalKind::Forbidden, detail: error.to_string() })
}

/// One token: as the configuration names it (label, serial), and what is on it now but audit keys and
/// what is `ours`. With `probe`, a data object is written where none shows whether it keeps such.
pub fn token<H: Hsm + ?Sized>(
    hsm: &H,
    name: &str,
    (label, serial): (&str, &str),
    probe: bool,
    ours: &dyn Fn(&FoundObject) -> bool,
) -> SurveyedToken {
    let mut surveyed = SurveyedToken {
        name: name.to_owned(),
        label: label.to_owned(),
        serial: serial.to_owned(),
        manufacturer: String::new(),
        model: String::new(),
        data_objects: false,
        marked: None,
        problem: None,
        keys: Vec::new(),
    };
    if let Err(error) = fill(hsm, &mut surveyed, probe, ours) {
        surveyed.problem = Some(error);
    }
    surveyed
}

fn fill<H: Hsm + ?Sized>(
    hsm: &H,
    surveyed: &mut SurveyedToken,
    probe: bool,
    ours: &dyn Fn(&FoundObject) -> bool,
) -> Result<(), String> {
    let inventory = hsm.survey(&surveyed.name).map_err(|e| e.to_string())?;
    let TokenInventory { label, serial, manufacturer, model, objects, data, .. } = inventory;
    (surveyed.label, surveyed.serial) = (label, serial);
    (surveyed.manufacturer, surveyed.model) = (manufacturer, model);
    surveyed.data_objects = match &data {
        None => false,
        Some(data) if !data.is_empty() => true,
        Some(_) if probe => match hsm.write_data(&surveyed.name, PROBE_LABEL, b"surveyed") {
            Ok(()) => true,
            Err(HsmError::NoDataObjects { .. }) => false,
            Err(error) => return Err(error.to_string()),
        },
        Some(_) => true,
    };
    surveyed.marked = marks::marked(data.as_deref().unwrap_or_default())?;
    surveyed.keys = keys(objects.iter().filter(|object| !object.is_audit() && !ours(object)));
    Ok(())
}

/// The objects of one label and `CKA_ID` are one key for people.
fn keys<'a>(objects: impl Iterator<Item = &'a FoundObject>) -> Vec<SurveyedKey> {
    let mut by_name: BTreeMap<(String, String), SurveyedKey> = BTreeMap::new();
    for object in objects {
        let (label, id) = (object.label.clone(), to_hex(&object.id));
        let key = by_name.entry((label.clone(), id.clone())).or_insert(SurveyedKey {
            label,
            id,
            private: false,
            key: None,
            algorithm: None,
            extractable: None,
        });
        key.private |= object.private;
        if let Some(public) = &object.public {
            key.key = Some(public.id());
            key.algorithm = Some(public.algorithm().number());
        }
        let extractable = object.attributes.and_then(|attributes| attributes.extractable);
        key.extractable = key.extractable.or(extractable);
    }
    by_name.into_values().collect()
}
