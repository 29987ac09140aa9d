//! Officers: who a person is to the appliance. A person has one role and one to four SSH keys, and a
//! key belongs to one person; a quorum counts persons, never keys.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ssh::SshKey;

#[cfg(test)]
mod tests;

/// Persons on one roster: a large operator's, several times over; each signature is looked up in it.
pub const OFFICERS_MAX: usize = 64;
/// Keys of one person: a token in daily use, its spare, and both again while they are replaced.
pub const KEYS_MAX: usize = 4;
/// Octets of a person's name: it stands at the head of each text that is read aloud.
pub const NAME_BYTES_MAX: usize = 32;

/// What a person is called in texts and in the ledger: 1 to 32 of a-z, 0-9 and '-', the first a
/// letter. Nothing in it can look like anything else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PersonName(String);

/// A text that is no person's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no person's name: expected 1 to 32 of a-z, 0-9 and '-', the first a letter")]
pub struct NotAPerson(String);

impl FromStr for PersonName {
    type Err = NotAPerson;

    fn from_str(text: &str) -> Result<Self, NotAPerson> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let is_name = text.len() <= NAME_BYTES_MAX
            && text.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
            && text.bytes().all(plain);
        if is_name { Ok(Self(text.to_owned())) } else { Err(NotAPerson(text.to_owned())) }
    }
}

impl TryFrom<String> for PersonName {
    type Error = NotAPerson;

    fn try_from(text: String) -> Result<Self, NotAPerson> {
        text.parse()
    }
}

impl From<PersonName> for String {
    fn from(name: PersonName) -> Self {
        name.0
    }
}

impl PersonName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PersonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a person is to the appliance; one a person. What each may do is the table of
/// [`crate::motion::TABLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs the box and proposes; approves nothing.
    Operator,
    /// Approves what touches a KSK or the parent.
    KeyOfficer,
    /// Approves the rules.
    PolicyOfficer,
    /// Reads and proves; proposes and approves nothing.
    Auditor,
    /// Kept for the day when a quorum is lost: proposes and approves the few verbs of recovery.
    Recovery,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Operator, Self::KeyOfficer, Self::PolicyOfficer, Self::Auditor, Self::Recovery];

    /// As texts spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::KeyOfficer => "key-officer",
            Self::PolicyOfficer => "policy-officer",
            Self::Auditor => "auditor",
            Self::Recovery => "recovery",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| {
            format!(
                "{text:?} is no role: expected operator, key-officer, policy-officer, auditor or recovery"
            )
        })
    }
}

/// One SSH key of a person.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfficerKey {
    /// The public key.
    pub ssh: SshKey,
    /// For `sk-` keys: a signature counts only with user verification (a PIN or a finger), not with
    /// a touch alone. A touch is always asked for.
    pub verify_required: bool,
}

/// A person's role and keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Officer {
    /// The one role.
    pub role: Role,
    /// The keys, any of which signs for the person.
    pub keys: BTreeSet<OfficerKey>,
}

/// Everyone who has a say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster(pub BTreeMap<PersonName, Officer>);

/// A roster that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// Too many, or none.
    #[error("{0} persons; expected 1 to {OFFICERS_MAX}")]
    Persons(usize),
    /// Too many, or none.
    #[error("{person} has {count} keys; expected 1 to {KEYS_MAX}")]
    Keys {
        /// Who.
        person: PersonName,
        /// How many.
        count: usize,
    },
    /// A key that two persons have would count as either.
    #[error("{0} and {1} have the same key; a key belongs to one person")]
    SharedKey(PersonName, PersonName),
    /// One key twice, with and without `verify_required`.
    #[error("{0} has one key twice")]
    KeyTwice(PersonName),
    /// Only `sk-` keys know of user verification.
    #[error("{0}: `verify-required` has no meaning for a key that is not `sk-`")]
    NotASecurityKey(PersonName),
}

impl Roster {
    /// Checks it by itself: counts, and that no key has two owners.
    pub fn check(&self) -> Result<(), RosterError> {
        if self.0.is_empty() || self.0.len() > OFFICERS_MAX {
            return Err(RosterError::Persons(self.0.len()));
        }
        let mut owners: BTreeMap<&SshKey, &PersonName> = BTreeMap::new();
        for (person, officer) in &self.0 {
            let count = officer.keys.len();
            if count == 0 || count > KEYS_MAX {
                return Err(RosterError::Keys { person: person.clone(), count });
            }
            for key in &officer.keys {
                if key.verify_required && !key.ssh.is_security_key() {
                    return Err(RosterError::NotASecurityKey(person.clone()));
                }
                match owners.insert(&key.ssh, person) {
                    Some(other) if other == person => {
                        return Err(RosterError::KeyTwice(person.clone()));
                    }
                    Some(other) => {
                        return Err(RosterError::SharedKey(other.clone(), person.clone()));
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// The person.
    pub fn person(&self, name: &PersonName) -> Option<&Officer> {
        self.0.get(name)
    }

    /// The key of this person that is `ssh`.
    pub fn key_of(&self, name: &PersonName, ssh: &SshKey) -> Option<&OfficerKey> {
        self.0.get(name)?.keys.iter().find(|key| key.ssh == *ssh)
    }

    /// How many persons have one of these roles, `without` not counted.
    pub fn count(&self, roles: &BTreeSet<Role>, without: Option<&PersonName>) -> usize {
        let counts = |(name, officer): &(&PersonName, &Officer)| {
            Some(*name) != without && roles.contains(&officer.role)
        };
        self.0.iter().filter(counts).count()
    }
}
