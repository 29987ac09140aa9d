//! The lab founding: policies, zone bindings and token groups, from a file that only the
//! keeper's user can write. It stands in for a founding signed by officers; keys made under it
//! are lab keys for good, and a founding by quorum refuses them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::name::ZoneName;
use crate::signing::{PolicyError, SigningPolicy};

/// Tokens in one founding: more than any real cluster, few enough to open all at start.
pub const TOKENS_MAX: usize = 64;
/// Zones bound by one founding; a portfolio of this size is what the engine is built for.
pub const ZONES_MAX: usize = 200_000;

/// A lab founding, as read from its file (TOML) and as written to the ledger (JSON).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabFounding {
    /// What this appliance is called, in its ledger and logs.
    pub appliance: String,
    /// Tokens, by the name that the keeper's configuration gives each.
    pub token: BTreeMap<String, TokenIdentity>,
    /// Signing policies by name.
    pub policy: BTreeMap<String, SigningPolicy>,
    /// Which zones are signed, and under which policy.
    pub zone: BTreeMap<ZoneName, Binding>,
}

/// How a token is recognised, and the group it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenIdentity {
    /// CK_TOKEN_INFO label, without trailing blanks.
    pub label: String,
    /// CK_TOKEN_INFO serial number, without trailing blanks.
    pub serial: String,
    /// Tokens of one group hold the same keys.
    pub group: String,
}

/// The binding of a zone to a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Name of a policy of this founding.
    pub policy: String,
}

/// Why a founding is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoundingError {
    /// A policy is inconsistent.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A policy names a group that no token belongs to.
    #[error("policy `{policy}` names the token group `{group}`, which has no token")]
    NoSuchGroup {
        /// The policy.
        policy: String,
        /// The group it names.
        group: String,
    },
    /// A zone names a policy that is not there.
    #[error("zone {zone} is bound to the policy `{policy}`, which is not defined")]
    NoSuchPolicy {
        /// The zone.
        zone: ZoneName,
        /// The policy it names.
        policy: String,
    },
    /// One token group would hold KSKs under one policy and ZSKs under another.
    #[error("token group `{0}` would hold both KSKs and ZSKs; they live on separate tokens")]
    MixedGroup(String),
    /// It would change what existing keys are.
    #[error("the founding can't change so: {0}")]
    Change(String),
    /// One token, by label and serial, under two groups: KSKs and ZSKs would meet on it.
    #[error(
        "tokens `{0}` and `{1}` are one by label and serial, but of two groups; name two tokens"
    )]
    SharedToken(String, String),
    /// A count out of bounds, or a name that can't be one.
    #[error("{0}")]
    Bounds(String),
}

impl LabFounding {
    /// Checks that the founding is whole: every name it uses is defined, KSKs and ZSKs are kept
    /// apart, and policies are within bounds.
    pub fn check(&self) -> Result<(), FoundingError> {
        let bounds = |problem: String| Err(FoundingError::Bounds(problem));
        if !is_plain(&self.appliance) {
            return bounds(format!("appliance name {:?}: {PLAIN}", self.appliance));
        }
        if self.token.is_empty() || self.token.len() > TOKENS_MAX {
            return bounds(format!("{} tokens; expected 1 to {TOKENS_MAX}", self.token.len()));
        }
        if self.zone.len() > ZONES_MAX {
            return bounds(format!("{} zones; expected at most {ZONES_MAX}", self.zone.len()));
        }
        for (name, token) in &self.token {
            for text in [name, &token.group] {
                if !is_plain(text) {
                    return bounds(format!("token or group name {text:?}: {PLAIN}"));
                }
            }
            if token.label.is_empty() || token.serial.is_empty() {
                return bounds(format!("token `{name}`: label and serial must not be empty"));
            }
        }
        let mut seen = BTreeMap::new();
        for (name, token) in &self.token {
            let (other, group) =
                *seen.entry((&token.label, &token.serial)).or_insert((name, &token.group));
            if *group != token.group {
                return Err(FoundingError::SharedToken(other.clone(), name.clone()));
            }
        }
        let groups: BTreeSet<&str> = self.token.values().map(|t| t.group.as_str()).collect();
        let mut ksk = BTreeSet::new();
        let mut zsk = BTreeSet::new();
        for (name, policy) in &self.policy {
            if !is_plain(name) {
                return bounds(format!("policy name {name:?}: {PLAIN}"));
            }
            policy.check(name)?;
            ksk.insert(policy.ksk_group.as_str());
            zsk.extend(policy.zsk_group.as_deref());
            for group in std::iter::once(&policy.ksk_group).chain(&policy.zsk_group) {
                if !groups.contains(group.as_str()) {
                    return Err(FoundingError::NoSuchGroup {
                        policy: name.clone(),
                        group: group.clone(),
                    });
                }
            }
        }
        if let Some(group) = ksk.intersection(&zsk).next() {
            return Err(FoundingError::MixedGroup((*group).to_owned()));
        }
        for (zone, binding) in &self.zone {
            if !self.policy.contains_key(&binding.policy) {
                return Err(FoundingError::NoSuchPolicy {
                    zone: zone.clone(),
                    policy: binding.policy.clone(),
                });
            }
        }
        Ok(())
    }

    /// The policy that `zone` is bound to.
    pub fn policy_of(&self, zone: &ZoneName) -> Option<&SigningPolicy> {
        self.policy.get(&self.zone.get(zone)?.policy)
    }

    /// The tokens of a group, by name.
    pub fn tokens_of<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a str> {
        self.token.iter().filter(move |(_, t)| t.group == group).map(|(name, _)| name.as_str())
    }
}

const PLAIN: &str = "expected 1 to 64 of a-z, 0-9, '-', '_', '.'";

fn is_plain(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
}

#[cfg(test)]
pub(crate) fn example() -> LabFounding {
    let token = |group: &str| TokenIdentity {
        label: group.to_owned(),
        serial: format!("serial-{group}"),
        group: group.to_owned(),
    };
    LabFounding {
        appliance: "lab-1".to_owned(),
        token: [("ksk-a".to_owned(), token("ksk")), ("zsk-a".to_owned(), token("zsk"))].into(),
        policy: [("default".to_owned(), crate::signing::example())].into(),
        zone: [("example.".parse().expect("name"), Binding { policy: "default".to_owned() })]
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut LabFounding), expect: &str) {
        let mut founding = example();
        change(&mut founding);
        let error = founding.check().expect_err(expect).to_string();
        assert!(error.contains(expect), "{error}");
    }

    #[test]
    fn the_example_is_whole() {
        assert_eq!(example().check(), Ok(()));
    }

    #[test]
    fn what_is_missing_is_named() {
        check(|f| f.token.clear(), "0 tokens");
        check(|f| f.token.retain(|name, _| name == "ksk-a"), "token group `zsk`");
        check(|f| f.policy.clear(), "example. is bound to the policy `default`");
        check(|f| f.appliance = "Lab 1".to_owned(), "appliance name");
        check(|f| f.token.values_mut().for_each(|t| t.serial.clear()), "label and serial");
    }

    #[test]
    fn ksks_and_zsks_never_share_a_token() {
        check(
            |f| {
                let ksk = f.token["ksk-a"].clone();
                let zsk = f.token.get_mut("zsk-a").expect("token");
                (zsk.label, zsk.serial) = (ksk.label, ksk.serial);
            },
            "`ksk-a` and `zsk-a` are one by label and serial",
        );
    }

    #[test]
    fn ksks_and_zsks_never_share_a_group() {
        check(
            |f| {
                let mut crossed = crate::signing::example();
                std::mem::swap(&mut crossed.ksk_group, crossed.zsk_group.as_mut().expect("split"));
                f.policy.insert("crossed".to_owned(), crossed);
            },
            "would hold both KSKs and ZSKs",
        );
    }
}
