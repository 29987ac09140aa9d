//! The founding: who has a say, by which rules, over which tokens, sealed by which audit key. Its text
//! is signed by everyone on its roster, and its hash is the appliance's name for good.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::checkpoint::AuditKey;
use crate::key::{from_hex, to_hex};
use crate::officer::{Role, Roster, RosterError};
use crate::rule::{RecoveryRule, RuleError, Rules};
use crate::text::{Field, PLAIN, Reader, TextError, Writer, escape, is_plain, parts, time_text};
use crate::tree::Hash;

#[cfg(test)]
mod tests;

/// Tokens of one appliance: more than any real cluster, few enough to open all at start.
pub const TOKENS_MAX: usize = 64;
/// Days that the clock may run ahead of the ledger's last line without a quorum.
pub const CLOCK_DAYS: std::ops::RangeInclusive<u16> = 1..=90;
/// Foreign keys on the tokens at founding that are listed.
pub const FOREIGN_MAX: usize = 10_000;
/// Octets of a founding's text: [`FOREIGN_MAX`] keys with labels and ids of a hundred octets each, and all else
/// at its largest.
pub const TEXT_BYTES_MAX: usize = 4 << 20;

const FOUNDING: &str = "countersign founding v1";

/// What is founded: the fields in the order of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founding {
    /// What the appliance is called, in its ledger and logs.
    pub name: String,
    /// When, in seconds since 1970: the first floor of time.
    pub time: u64,
    /// 16 octets, so that two foundings are never the same.
    pub nonce: [u8; 16],
    /// The token that holds the audit key, by name.
    pub audit_token: String,
    /// The key that seals checkpoints.
    pub audit_key: AuditKey,
    /// Tokens, by the name that the keeper's configuration gives each.
    pub tokens: BTreeMap<String, TokenIdentity>,
    /// Keys that were on the tokens already: unusable until they are adopted.
    pub foreign: Vec<ForeignKey>,
    /// How many days the clock may run ahead of the ledger without a quorum.
    pub clock_days: u16,
    /// Everyone who has a say; each of them signs the founding.
    pub roster: Roster,
    /// The quorum rules.
    pub rules: Rules,
    /// The recovery group's rule, if there is such a group.
    pub recovery: Option<RecoveryRule>,
}

/// How a token is recognised, and the group it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenIdentity {
    /// CK_TOKEN_INFO label, without trailing blanks.
    pub label: String,
    /// CK_TOKEN_INFO serial number, without trailing blanks.
    pub serial: String,
    /// Tokens of one group hold the same keys; KSKs and ZSKs are kept on different groups.
    pub group: String,
    /// It holds data objects. One that has none can't be marked with the founding, and the officers'
    /// checkpoints alone guard against its ledger being rolled back.
    pub data_objects: bool,
}

/// A key that was on a token before the founding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignKey {
    /// The token, by name.
    pub token: String,
    /// Its label, as found.
    pub label: String,
    /// Its CKA_ID in hexadecimal.
    pub id: String,
}

/// A founding that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoundingError {
    /// A name that officers can't give.
    #[error("{0:?} is no name of an appliance, a token or a group: expected {PLAIN}")]
    Name(String),
    /// Too many, or none.
    #[error("{0} tokens; expected 1 to {TOKENS_MAX}")]
    Tokens(usize),
    /// A token that can't be told from another.
    #[error("token `{0}` has no label or no serial number; expected both")]
    Unmarked(String),
    /// Two names for one token.
    #[error("tokens `{0}` and `{1}` are one by label and serial number; expected one name")]
    SharedToken(String, String),
    /// A name that no token has.
    #[error("{what} is on the token `{token}`, which the founding does not name")]
    NoSuchToken {
        /// What is on it.
        what: String,
        /// Its name.
        token: String,
    },
    /// Not in [`CLOCK_DAYS`].
    #[error("the clock may run {0} days ahead; expected 1 to 90")]
    ClockDays(u16),
    /// More than [`FOREIGN_MAX`].
    #[error("{0} foreign keys; expected at most {FOREIGN_MAX}: remove what is not in use")]
    Foreign(usize),
    /// Not hexadecimal.
    #[error("the foreign key's id {0:?} is not lower-case hexadecimal")]
    ForeignId(String),
    /// Persons of recovery without a rule have no say: at a founding that is a slip.
    #[error(
        "there are persons of the role recovery and no recovery rule; expected both or neither"
    )]
    HalfARecovery,
    /// The roster.
    #[error(transparent)]
    Roster(#[from] RosterError),
    /// The rules, or the recovery group's.
    #[error(transparent)]
    Rules(#[from] RuleError),
}

impl Founding {
    /// The one text of it. Foreign keys are sorted.
    pub fn to_text(&self) -> String {
        let mut writer = Writer::new(FOUNDING);
        writer.field("name", escape(&self.name));
        writer.field("time", time_text(self.time));
        writer.field("nonce", to_hex(&self.nonce));
        writer.field("audit-token", escape(&self.audit_token));
        writer.field("audit-key", parts::audit_key_text(&self.audit_key));
        for (name, token) in &self.tokens {
            parts::write_token(&mut writer, name, token);
        }
        let mut foreign: Vec<&ForeignKey> = self.foreign.iter().collect();
        foreign.sort();
        foreign.dedup();
        writer.fields("foreign", foreign.into_iter().map(ForeignKey::line));
        writer.field("clock-days", self.clock_days);
        parts::write_officers(&mut writer, &self.roster.0);
        parts::write_rules(&mut writer, &self.rules, self.recovery);
        writer.finish()
    }

    /// Reads the text: what is returned has this text and no other. Whether it can be is
    /// [`Self::check`]'s to say.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let mut reader = Reader::new(text, TEXT_BYTES_MAX)?;
        reader.head(&[FOUNDING])?;
        let name = reader.field("name")?.plain()?;
        let time = reader.field("time")?.time()?;
        let nonce = reader.field("nonce")?.octets()?;
        let audit_token = reader.field("audit-token")?.plain()?;
        let audit_key = parts::read_audit_key(reader.field("audit-key")?)?;
        let tokens = reader.fields("token", TOKENS_MAX)?;
        let tokens = tokens.into_iter().map(parts::read_token).collect::<Result<_, _>>()?;
        let mut foreign = Vec::new();
        while let Some(field) = reader.take("foreign") {
            if foreign.len() == FOREIGN_MAX {
                return Err(field.unexpected(format!("at most {FOREIGN_MAX} foreign keys")));
            }
            foreign.push(ForeignKey::read(field)?);
        }
        let clock_days = reader.field("clock-days")?.number()?;
        let roster = Roster(parts::read_officers(&mut reader)?);
        let (rules, recovery) = parts::read_rules(&mut reader)?;
        let founding = Self {
            name,
            time,
            nonce,
            audit_token,
            audit_key,
            tokens,
            foreign,
            clock_days,
            roster,
            rules,
            recovery,
        };
        reader.finish(&founding.to_text())?;
        Ok(founding)
    }

    /// Checks that it is whole: each name it uses is defined, each token is one, the roster is
    /// sound, and the rules hold for it.
    pub fn check(&self) -> Result<(), FoundingError> {
        if !is_plain(&self.name) {
            return Err(FoundingError::Name(self.name.clone()));
        }
        if self.tokens.is_empty() || self.tokens.len() > TOKENS_MAX {
            return Err(FoundingError::Tokens(self.tokens.len()));
        }
        let mut seen = BTreeMap::new();
        for (name, token) in &self.tokens {
            if let Some(name) = [name, &token.group].into_iter().find(|name| !is_plain(name)) {
                return Err(FoundingError::Name(name.clone()));
            }
            if token.label.is_empty() || token.serial.is_empty() {
                return Err(FoundingError::Unmarked(name.clone()));
            }
            if let Some(other) = seen.insert((&token.label, &token.serial), name) {
                return Err(FoundingError::SharedToken(other.clone(), name.clone()));
            }
        }
        let no_such_token = |what: &str, token: &String| {
            let (what, token) = (what.to_owned(), token.clone());
            FoundingError::NoSuchToken { what, token }
        };
        if !self.tokens.contains_key(&self.audit_token) {
            return Err(no_such_token("the audit key", &self.audit_token));
        }
        if self.foreign.len() > FOREIGN_MAX {
            return Err(FoundingError::Foreign(self.foreign.len()));
        }
        for key in &self.foreign {
            if !self.tokens.contains_key(&key.token) {
                return Err(no_such_token("a foreign key", &key.token));
            }
            if from_hex(&key.id).is_none() {
                return Err(FoundingError::ForeignId(key.id.clone()));
            }
        }
        if !CLOCK_DAYS.contains(&self.clock_days) {
            return Err(FoundingError::ClockDays(self.clock_days));
        }
        self.roster.check()?;
        let group = self.roster.count(&[Role::Recovery].into(), None);
        if group > 0 && self.recovery.is_none() {
            return Err(FoundingError::HalfARecovery);
        }
        Ok(self.rules.check(&self.roster, self.recovery)?)
    }
}

impl ForeignKey {
    fn line(&self) -> String {
        let (token, label, id) = (escape(&self.token), escape(&self.label), escape(&self.id));
        format!("{token} label {label} id {id}")
    }

    fn read(field: Field<'_>) -> Result<Self, TextError> {
        let expected = "`foreign: TOKEN label … id …`, the id in lower-case hexadecimal";
        let [token, label, is_label, id, is_id] = field.words(expected)?;
        if [label.value, id.value] != ["label", "id"] {
            return Err(field.unexpected(expected));
        }
        let (token, label, id) = (token.plain()?, is_label.free()?, is_id.free()?);
        let is_hex = from_hex(&id).is_some();
        if is_hex { Ok(Self { token, label, id }) } else { Err(field.unexpected(expected)) }
    }
}

/// The founding hash: SHA-256 of the founding's text. It is the appliance's name for good.
pub fn hash_of(text: &str) -> Hash {
    Hash::of(text.as_bytes())
}
