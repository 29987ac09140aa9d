//! What a token keeps of the ledger, so that a ledger that was rolled back is found out: founding, tree
//! head, versions and hashes of officers and rules, origin.

use serde::{Deserialize, Serialize};

use super::{LedgerState, Lost};
use crate::ledger::decimal;
use crate::tree::{Hash, TreeHead};

/// A version and the hash of what has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versioned {
    /// Which, from 1.
    #[serde(with = "decimal")]
    pub version: u64,
    /// SHA-256 of its RFC 8785 JSON.
    pub hash: Hash,
}

/// The state of the ledger as a token's data object holds it: RFC 8785 JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenState {
    /// The founding hash.
    pub founding: Hash,
    /// Lines.
    #[serde(with = "decimal")]
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// Of the roster.
    pub officers: Versioned,
    /// Of the rules and the recovery rule.
    pub rules: Versioned,
    /// How often the ledger went on after a loss.
    #[serde(with = "decimal")]
    pub origin: u64,
}

/// Why a token and a ledger do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenStateFault {
    /// There is no ledger yet.
    #[error("there is no founding here, and the token has one ({0}): it is another appliance's")]
    Unfounded(Hash),
    /// Another appliance's.
    #[error("the token is of the appliance {found}; expected this one, {expected}")]
    OtherFounding {
        /// On the token.
        found: Hash,
        /// Here.
        expected: Hash,
    },
    /// The ledger is older than the token.
    #[error(
        "the token has seen {token}, the ledger has {ledger}: the ledger was rolled back, or is an old \
         copy. hint: restore the newest copy; if there is none, propose new-origin"
    )]
    Behind {
        /// What the token has seen.
        token: String,
        /// What is here.
        ledger: String,
    },
    /// The ledger's first lines are not those that the token has seen.
    #[error(
        "the token has seen {size} lines with the root {found}, here they have the root {expected}: the \
         ledger was changed, or is a fork"
    )]
    Fork {
        /// Lines.
        size: u64,
        /// On the token.
        found: Hash,
        /// Here.
        expected: Hash,
    },
    /// The versions do not go with the lines.
    #[error("the token holds other {0} than the ledger at their version")]
    Versions(&'static str),
}

impl TokenState {
    /// The tree head in it.
    pub fn head(&self) -> TreeHead {
        TreeHead { size: self.size, root: self.root }
    }

    /// The one text of it.
    pub fn to_canonical(&self) -> Vec<u8> {
        canonical(self)
    }

    /// Reads that text and no other.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, String> {
        let state: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if state.to_canonical() == bytes {
            Ok(state)
        } else {
            Err("not in canonical form (RFC 8785)".to_owned())
        }
    }
}

/// RFC 8785 JSON: a `Value`'s maps are sorted, and there are no floats.
fn canonical<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_value(value).unwrap_or_default().to_string().into_bytes()
}

impl LedgerState {
    /// What the tokens are to keep now; `None` before the founding.
    pub fn token_state(&self) -> Option<TokenState> {
        let TreeHead { size, root } = self.tree().head();
        let rules = (self.rules(), self.recovery());
        Some(TokenState {
            founding: self.appliance()?,
            size,
            root,
            officers: Versioned {
                version: self.officers_version(),
                hash: Hash::of(&canonical(&self.roster().0)),
            },
            rules: Versioned { version: self.rules_version(), hash: Hash::of(&canonical(&rules)) },
            origin: self.origin(),
        })
    }

    /// Whether this ledger goes on from what the token has seen. A token of an earlier origin may hold
    /// lines that are known to be lost: up to the head, and the versions of officers and rules, that the
    /// motion of the new origin named. A token that has seen later ones speaks against it: else who was
    /// retired could carry it by the rules of before, as long as that token is kept away.
    pub fn accepts_token_state(&self, token: &TokenState) -> Result<(), TokenStateFault> {
        let Some(here) = self.token_state() else {
            return Err(TokenStateFault::Unfounded(token.founding));
        };
        if token.founding != here.founding {
            let (found, expected) = (token.founding, here.founding);
            return Err(TokenStateFault::OtherFounding { found, expected });
        }
        if token.origin > here.origin {
            return Err(behind("origin", token.origin, here.origin));
        }
        if token.origin < here.origin {
            let of_lost =
                self.lost.iter().skip(usize::try_from(token.origin).unwrap_or(usize::MAX));
            if of_lost.into_iter().any(|lost| lost.covers(token)) {
                return Ok(());
            }
        }
        let expected = self
            .tree()
            .root_at(token.size)
            .ok_or_else(|| behind("lines", token.size, here.size))?;
        if expected != token.root {
            let (size, found) = (token.size, token.root);
            return Err(TokenStateFault::Fork { size, found, expected });
        }
        for (what, token, here) in
            [("officers", token.officers, here.officers), ("rules", token.rules, here.rules)]
        {
            if token.version > here.version {
                return Err(behind(what, token.version, here.version));
            }
            if token.version == here.version && token.hash != here.hash {
                return Err(TokenStateFault::Versions(what));
            }
        }
        Ok(())
    }
}

impl Lost {
    /// Whether all that the token has seen was named as lost, or came before it.
    fn covers(&self, token: &TokenState) -> bool {
        (token.size < self.head.size || token.head() == self.head)
            && token.officers.version <= self.officers
            && token.rules.version <= self.rules
    }
}

fn behind(what: &str, token: u64, ledger: u64) -> TokenStateFault {
    let (token, ledger) = (format!("{what}: {token}"), format!("{what}: {ledger}"));
    TokenStateFault::Behind { token, ledger }
}
