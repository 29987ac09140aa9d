//! Which box an appliance lives on. An *instance* is one keeper on one box: 32 random octets in its state
//! directory, bound to that place. The ledger names the one that may use the tokens, and each token that
//! keeps data objects carries an [`InstanceMark`] of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ledger::decimal;
use crate::tree::{Hash, HashError};

/// One keeper on one box. Its text form is 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub Hash);

impl InstanceId {
    /// Enough of it for people to tell a few boxes apart.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl FromStr for InstanceId {
    type Err = HashError;
    fn from_str(text: &str) -> Result<Self, HashError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who may use the tokens, and since when: the first claim, or the motion that moved the appliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Which instance.
    pub instance: InstanceId,
    /// The ledger's origin at that line.
    pub origin: u64,
    /// The line.
    pub line: u64,
}

impl Holder {
    /// What outranks what: a later line, and any line of a later origin.
    pub fn rank(&self) -> (u64, u64) {
        (self.origin, self.line)
    }
}

/// What a token's data object says of its holder: RFC 8785 JSON. It has no expiry: whoever is silent
/// may be alive behind a broken network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceMark {
    /// The founding hash.
    pub founding: Hash,
    /// The holder.
    pub instance: InstanceId,
    /// The holder's rank: the ledger's origin,
    #[serde(with = "decimal")]
    pub origin: u64,
    /// and the line that made it the holder.
    #[serde(with = "decimal")]
    pub line: u64,
    /// Random octets of the keeper's process: tells a box from its exact copy.
    pub run: Hash,
}

/// How a token's mark stands to a holder by the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Of a holder of before.
    Earlier,
    /// Of this one.
    Same,
    /// Of another one, by the same line: two ledgers that went apart.
    Tied,
    /// Of a line that the ledger does not have as its holder's.
    Later,
}

impl InstanceMark {
    /// Of this holder, by that process.
    pub fn of(founding: Hash, holder: &Holder, run: Hash) -> Self {
        let Holder { instance, origin, line } = *holder;
        Self { founding, instance, origin, line, run }
    }

    /// The one text of it.
    pub fn to_canonical(&self) -> Vec<u8> {
        // A `Value`'s maps are sorted, and there are no floats.
        serde_json::to_value(self).unwrap_or_default().to_string().into_bytes()
    }

    /// Reads that text and no other.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, String> {
        let mark: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if mark.to_canonical() == bytes {
            Ok(mark)
        } else {
            Err("not in canonical form (RFC 8785)".to_owned())
        }
    }

    /// How it stands to the holder by the ledger; before the first claim every mark is later.
    pub fn standing(&self, holder: Option<&Holder>) -> Standing {
        let Some(holder) = holder else { return Standing::Later };
        match (self.origin, self.line).cmp(&holder.rank()) {
            std::cmp::Ordering::Less => Standing::Earlier,
            std::cmp::Ordering::Greater => Standing::Later,
            std::cmp::Ordering::Equal if self.instance == holder.instance => Standing::Same,
            std::cmp::Ordering::Equal => Standing::Tied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(instance: u8, origin: u64, line: u64) -> Holder {
        Holder { instance: InstanceId(Hash([instance; 32])), origin, line }
    }

    fn mark(instance: u8, origin: u64, line: u64) -> InstanceMark {
        InstanceMark::of(Hash([9; 32]), &holder(instance, origin, line), Hash([8; 32]))
    }

    #[test]
    fn a_mark_has_one_text() {
        let text = mark(1, 0, 1).to_canonical();
        assert_eq!(InstanceMark::from_canonical(&text), Ok(mark(1, 0, 1)));
        let shown = String::from_utf8(text.clone()).expect("UTF-8");
        assert!(shown.starts_with(r#"{"founding":"0909"#), "{shown}");
        for other in [[&text[..], b" "].concat(), shown.replace("\"1\"", "1").into_bytes()] {
            assert!(InstanceMark::from_canonical(&other).is_err());
        }
    }

    #[test]
    fn the_later_line_and_the_later_origin_outrank() {
        let now = holder(1, 1, 50);
        for (mark, expect) in [
            (mark(1, 1, 50), Standing::Same),
            (mark(2, 1, 50), Standing::Tied),
            (mark(2, 1, 49), Standing::Earlier),
            (mark(2, 0, 900), Standing::Earlier),
            (mark(2, 1, 51), Standing::Later),
            // Its own, of a ledger that was rolled back since.
            (mark(1, 1, 51), Standing::Later),
            (mark(2, 2, 3), Standing::Later),
        ] {
            assert_eq!(mark.standing(Some(&now)), expect, "{mark:?}");
        }
        assert_eq!(mark(1, 0, 0).standing(None), Standing::Later);
    }
}
