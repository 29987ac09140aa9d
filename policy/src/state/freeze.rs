//! Freezes: one person stops the use of KSKs, and only a quorum thaws it.

use std::fmt;

use super::propose::Docket;
use super::time::DAY_S;
use super::{Effect, LedgerState};
use crate::motion::Scope;
use crate::name::ZoneName;
use crate::officer::PersonName;
use crate::ssh::{Namespace, Signature};
use crate::statement::{FREEZE_S_MAX, Freeze};
use crate::text::time_text;

/// Freezes of one person within a day. A repeated one is taken, since a thaw may be under way, and a
/// stolen key that repeats it for ever fills no disk.
pub const FREEZES_A_DAY_MAX: usize = 20;

/// A freeze in force: the newest of its scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// What is held.
    pub scope: Scope,
    /// Who froze it.
    pub officer: PersonName,
    /// Why.
    pub reason: String,
    /// The line.
    pub line: u64,
    /// When, in seconds since 1970.
    pub at: u64,
}

impl LedgerState {
    /// The freeze that holds the KSKs and CSKs of the zone, if any does: of everything, else of the
    /// zone.
    pub fn freeze_of(&self, zone: &ZoneName) -> Option<&Frozen> {
        self.freezes.get(&Scope::All).or_else(|| self.freezes.get(&Scope::Zone(zone.clone())))
    }

    /// All freezes in force.
    pub fn freezes(&self) -> impl Iterator<Item = &Frozen> {
        self.freezes.values()
    }

    /// The freeze of exactly that scope.
    pub(super) fn freeze(&self, scope: &Scope) -> Option<&Frozen> {
        self.freezes.get(scope)
    }

    pub(super) fn judge_frozen(
        &self,
        at: u64,
        text: &str,
        signature: &Signature,
    ) -> Result<Effect, String> {
        let freeze = Freeze::parse(text).map_err(|error| format!("the freeze: {error}"))?;
        self.is_ours(freeze.appliance)?;
        let officer = &freeze.officer;
        Self::signed_by(self.roster(), officer, Namespace::Freeze, text, signature)?;
        if self.docket.is_used(&freeze.nonce) {
            return Err("its nonce was used before".to_owned());
        }
        // Both ends by what the ledger knows of time, not by the clock alone: whoever moves that within
        // what is believed would go on using KSKs and have every freeze refused.
        let earliest = at.min(self.time_floor());
        let latest = at.max(self.time.ceiling()).saturating_add(FREEZE_S_MAX);
        if !(earliest..=latest).contains(&freeze.not_after) {
            return Err(format!(
                "not-after is {}, and it is {}; expected it from {} to {}. hint: sign it anew",
                time_text(freeze.not_after),
                time_text(at),
                time_text(earliest),
                time_text(latest)
            ));
        }
        if let Scope::Zone(zone) = &freeze.scope
            && !self.zones.contains_key(zone)
            && self.keys_of(zone).next().is_none()
        {
            return Err(format!("{zone} is not bound here and has no keys"));
        }
        if self.docket.freezes_around(officer, at) >= FREEZES_A_DAY_MAX {
            return Err(format!(
                "{officer} has frozen {FREEZES_A_DAY_MAX} times within a day, which is the most"
            ));
        }
        Ok(Effect::Frozen(Box::new(freeze)))
    }

    pub(super) fn commit_frozen(&mut self, line: u64, at: u64, freeze: Freeze) {
        let Freeze { officer, scope, reason, nonce, .. } = freeze;
        self.docket.use_nonce(nonce);
        self.docket.froze(officer.clone(), at);
        let frozen = Frozen { scope: scope.clone(), officer, reason, line, at };
        self.freezes.insert(scope, frozen);
    }
}

impl Docket {
    /// How often the person froze within a day of `at`.
    fn freezes_around(&self, officer: &PersonName, at: u64) -> usize {
        let times = self.freezes.get(officer).into_iter().flatten();
        times.filter(|time| time.abs_diff(at) < DAY_S).count()
    }

    fn froze(&mut self, officer: PersonName, at: u64) {
        let times = self.freezes.entry(officer).or_default();
        times.push_back(at);
        if times.len() > FREEZES_A_DAY_MAX {
            times.pop_front();
        }
    }
}

impl fmt::Display for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.scope {
            Scope::All => "KSK use".to_owned(),
            Scope::Zone(zone) => format!("KSK use of {zone}"),
        };
        let (officer, line, at) = (&self.officer, self.line, time_text(self.at));
        write!(f, "{what} is frozen since line {line} ({at}) by {officer}: {:?}", self.reason)
    }
}
