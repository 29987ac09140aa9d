//! The founding's mark on each token: a data object that holds the founding hash, so that a token tells
//! whose it is, whatever files a keeper is started with.
//!
//! A token with another founding's mark is refused; so is one without a mark that the ledger says was
//! marked (it was initialised anew, or is another). One that the ledger never marked is marked, and
//! that becomes a line.

use std::collections::BTreeSet;

use countersign_policy::ledger::LedgerState;
use countersign_policy::tree::Hash;

use super::door::Hsm;
use crate::pkcs11::{DataObject, HsmError};
use crate::protocol::{TokenHealth, TokenState};

/// The label of the data object.
pub const MARK_LABEL: &str = "countersign-founding";

/// Puts the mark on a token; one that is there already is not written again.
pub fn mark<H: Hsm + ?Sized>(hsm: &H, token: &str, founding: &Hash) -> Result<(), HsmError> {
    hsm.write_data(token, MARK_LABEL, founding.to_string().as_bytes())
}

/// The founding whose mark is among these data objects.
pub fn marked(data: &[DataObject]) -> Result<Option<Hash>, String> {
    let mut found = None;
    for object in data.iter().filter(|object| object.label == MARK_LABEL) {
        let hash = std::str::from_utf8(&object.value).ok().and_then(|text| text.parse().ok());
        let hash: Hash = hash.ok_or("carries a founding's mark that can't be read")?;
        if found.is_some_and(|other| other != hash) {
            return Err("carries the marks of two foundings".to_owned());
        }
        found = Some(hash);
    }
    Ok(found)
}

/// Whether a token with these data objects may be used by the appliance whose ledger this is; why not.
pub fn check(state: &LedgerState, token: &str, data: &[DataObject]) -> Result<(), String> {
    let ours = state.appliance().ok_or("there is no founding")?;
    match marked(data)? {
        Some(other) if other != ours => Err(format!(
            "carries the mark of another founding, {other}; this appliance is {ours}. It is not \
             used. hint: was it put into the wrong machine?"
        )),
        None if state.is_marked(token) => {
            Err("does not carry the founding's mark that the ledger says was put on it: it was \
             initialised anew, or is another token. It is not used. hint: it comes back by an \
             attach-token motion"
                .to_owned())
        }
        _ => Ok(()),
    }
}

/// Whether what is open under a name, by its label and serial number, is what the ledger says; why not.
pub fn is_named(
    state: &LedgerState,
    name: &str,
    (label, serial): (&str, &str),
) -> Result<(), String> {
    match state.tokens().get(name) {
        Some(said) if (said.label.as_str(), said.serial.as_str()) != (label, serial) => {
            Err(format!(
                "is `{label}` with serial number `{serial}`; by an attach-token motion another one has this \
             name now, `{}` with `{}`. It is not used. hint: put that one into the configuration and \
             restart the keeper",
                said.label, said.serial
            ))
        }
        _ => Ok(()),
    }
}

/// Tokens that are open and were replaced by an attach-token motion, by name.
pub fn replaced<H: Hsm + ?Sized>(state: &LedgerState, hsm: &H) -> Vec<String> {
    let health = hsm.health().into_iter();
    let is_replaced = |token: &TokenHealth| {
        token.state == TokenState::Usable
            && is_named(state, &token.name, (&token.label, &token.serial)).is_err()
    };
    health.filter(is_replaced).map(|token| token.name).collect()
}

/// The names of tokens that are usable and are what the ledger says: after an attach-token motion, what
/// is open under a name may still be the token before it.
pub fn present<H: Hsm + ?Sized>(state: &LedgerState, hsm: &H) -> BTreeSet<String> {
    let is_ours = |token: &TokenHealth| {
        let said = state.tokens().get(&token.name);
        token.state == TokenState::Usable
            && said.is_some_and(|t| (&t.label, &t.serial) == (&token.label, &token.serial))
    };
    hsm.health().into_iter().filter(is_ours).map(|token| token.name).collect()
}

/// Tokens that are to be marked: they keep data objects, and the ledger has no line of it.
pub fn unmarked(state: &LedgerState) -> Vec<String> {
    let tokens = state.tokens().iter();
    let wanting =
        tokens.filter(|(name, identity)| identity.data_objects && !state.is_marked(name.as_str()));
    wanting.map(|(name, _)| name.clone()).collect()
}
