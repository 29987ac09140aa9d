//! Line 0: the founding, signed by everyone whom it names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::law::Law;
use super::time::{DAY_S, TimeFloor};
use super::{Effect, Founded, LedgerState};
use crate::founding::{Founding, TokenIdentity};
use crate::officer::PersonName;
use crate::ssh::{Namespace, Signature};
use crate::text::time_text;
use crate::tree::Hash;

/// How far a founding's time may lie ahead of the keeper's clock: it is the first floor of time, and
/// one that lies ahead stops every KSK until it has come.
const AHEAD_S_MAX: u64 = 3_600;

impl LedgerState {
    pub(super) fn judge_founded(
        &self,
        at: u64,
        text: &str,
        signatures: &BTreeMap<PersonName, Signature>,
    ) -> Result<Effect, String> {
        if self.founded.is_some() {
            return Err("a second founding; an appliance is founded once".to_owned());
        }
        let founding = Founding::parse(text).map_err(|error| format!("the founding: {error}"))?;
        check(&founding, at)?;
        let named: BTreeSet<&PersonName> = founding.roster.0.keys().collect();
        if let Some(missing) = named.iter().find(|name| !signatures.contains_key(**name)) {
            return Err(format!(
                "{missing} has not signed the founding; everyone on its roster does"
            ));
        }
        if let Some(stranger) = signatures.keys().find(|name| !named.contains(name)) {
            return Err(format!("{stranger} signed the founding and is not on its roster"));
        }
        for (person, signature) in signatures {
            Self::signed_by(&founding.roster, person, Namespace::Found, text, signature)?;
        }
        let founded = Founded {
            hash: Hash::of(text.as_bytes()),
            audit_token: founding.audit_token.clone(),
            audit_key: founding.audit_key.clone(),
            founding: Arc::new(founding),
        };
        Ok(Effect::Founded(Box::new(founded)))
    }

    pub(super) fn commit_founded(&mut self, founded: Founded) {
        let founding = &founded.founding;
        self.law = law(founding);
        self.tokens.clone_from(&founding.tokens);
        self.time = TimeFloor::new(founding.time, founding.clock_days);
        self.founded = Some(founded);
    }
}

fn law(founding: &Founding) -> Law {
    Law {
        roster: founding.roster.clone(),
        officers_version: 1,
        rules: founding.rules.clone(),
        rules_version: 1,
        recovery: founding.recovery,
    }
}

fn check(founding: &Founding, at: u64) -> Result<(), String> {
    founding.check().map_err(|error| format!("the founding: {error}"))?;
    let earliest = founding.time.saturating_sub(AHEAD_S_MAX);
    let latest = founding.time.saturating_add(u64::from(founding.clock_days) * DAY_S);
    if at < earliest || at > latest {
        return Err(format!(
            "the founding's time is {}, the keeper's clock says {}; expected the clock within \
             {} days after it. hint: set the clock right, or draft the founding anew",
            time_text(founding.time),
            time_text(at),
            founding.clock_days
        ));
    }
    Ok(())
}

/// One token, by label and serial, is one token: under two names KSKs and ZSKs could meet on it.
pub(super) fn check_tokens_apart(tokens: &BTreeMap<String, TokenIdentity>) -> Result<(), String> {
    let mut seen: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for (name, token) in tokens {
        if token.label.is_empty() || token.serial.is_empty() {
            return Err(format!("token `{name}`: label and serial must not be empty"));
        }
        if let Some(other) = seen.insert((&token.label, &token.serial), name) {
            return Err(format!("tokens `{other}` and `{name}` are one by label and serial"));
        }
    }
    Ok(())
}
