//! The rules: which call fails, when, and how.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::SystemTime;

use cryptoki_sys::{CK_ATTRIBUTE_TYPE, CK_MECHANISM_TYPE, CK_RV};
use serde::Deserialize;

/// Names with the numbers that the binding has for them.
macro_rules! named {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), cryptoki_sys::$name)),*]
    };
}

/// The return codes that rules may give by name; any other by number.
pub const CODES: &[(&str, CK_RV)] = named![
    CKR_OK,
    CKR_HOST_MEMORY,
    CKR_SLOT_ID_INVALID,
    CKR_GENERAL_ERROR,
    CKR_FUNCTION_FAILED,
    CKR_ARGUMENTS_BAD,
    CKR_NEED_TO_CREATE_THREADS,
    CKR_CANT_LOCK,
    CKR_ATTRIBUTE_READ_ONLY,
    CKR_ATTRIBUTE_SENSITIVE,
    CKR_ATTRIBUTE_TYPE_INVALID,
    CKR_ATTRIBUTE_VALUE_INVALID,
    CKR_ACTION_PROHIBITED,
    CKR_DATA_INVALID,
    CKR_DATA_LEN_RANGE,
    CKR_DEVICE_ERROR,
    CKR_DEVICE_MEMORY,
    CKR_DEVICE_REMOVED,
    CKR_FUNCTION_CANCELED,
    CKR_FUNCTION_NOT_SUPPORTED,
    CKR_KEY_HANDLE_INVALID,
    CKR_KEY_SIZE_RANGE,
    CKR_KEY_TYPE_INCONSISTENT,
    CKR_KEY_FUNCTION_NOT_PERMITTED,
    CKR_MECHANISM_INVALID,
    CKR_MECHANISM_PARAM_INVALID,
    CKR_OBJECT_HANDLE_INVALID,
    CKR_OPERATION_ACTIVE,
    CKR_OPERATION_NOT_INITIALIZED,
    CKR_PIN_INCORRECT,
    CKR_PIN_INVALID,
    CKR_PIN_LEN_RANGE,
    CKR_PIN_EXPIRED,
    CKR_PIN_LOCKED,
    CKR_SESSION_CLOSED,
    CKR_SESSION_COUNT,
    CKR_SESSION_HANDLE_INVALID,
    CKR_SESSION_PARALLEL_NOT_SUPPORTED,
    CKR_SESSION_READ_ONLY,
    CKR_SESSION_EXISTS,
    CKR_SESSION_READ_ONLY_EXISTS,
    CKR_SESSION_READ_WRITE_SO_EXISTS,
    CKR_TEMPLATE_INCOMPLETE,
    CKR_TEMPLATE_INCONSISTENT,
    CKR_TOKEN_NOT_PRESENT,
    CKR_TOKEN_NOT_RECOGNIZED,
    CKR_TOKEN_WRITE_PROTECTED,
    CKR_USER_ALREADY_LOGGED_IN,
    CKR_USER_NOT_LOGGED_IN,
    CKR_USER_PIN_NOT_INITIALIZED,
    CKR_USER_TYPE_INVALID,
    CKR_USER_ANOTHER_ALREADY_LOGGED_IN,
    CKR_USER_TOO_MANY_TYPES,
    CKR_RANDOM_NO_RNG,
    CKR_DOMAIN_PARAMS_INVALID,
    CKR_CURVE_NOT_SUPPORTED,
    CKR_BUFFER_TOO_SMALL,
    CKR_CRYPTOKI_NOT_INITIALIZED,
    CKR_CRYPTOKI_ALREADY_INITIALIZED,
    CKR_FUNCTION_REJECTED,
    CKR_FIPS_SELF_TEST_FAILED,
    CKR_TOKEN_RESOURCE_EXCEEDED,
    CKR_VENDOR_DEFINED,
];

/// A return code, by name or number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawCode")]
pub struct Code(CK_RV);

#[derive(Deserialize)]
#[serde(untagged)]
enum RawCode {
    Number(CK_RV),
    Name(String),
}

impl Code {
    /// The number that the caller gets.
    pub fn number(self) -> CK_RV {
        self.0
    }
}

impl TryFrom<RawCode> for Code {
    type Error = String;
    fn try_from(raw: RawCode) -> Result<Self, String> {
        match raw {
            RawCode::Number(number) => Ok(Self(number)),
            RawCode::Name(name) => CODES
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, number)| Self(*number))
                .ok_or_else(|| format!("no return code is known as {name}; give its number")),
        }
    }
}

/// What is done instead of the call, or to its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Not carried out.
    Return(Code),
    /// Carried out, then denied.
    LateReturn(Code),
    /// Carried out later.
    DelayMs(u64),
    /// Not carried out while the rule stands.
    Hang,
    /// The process aborts.
    Crash,
    /// The process aborts once it is carried out.
    LateCrash,
    /// Carried out, and then what it answers is spoilt.
    #[serde(untagged)]
    Spoil(Spoil),
}

/// What is done to an answer. What each does to which call is in [`crate::answers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spoil {
    /// It is another one.
    WrongAnswer,
    /// The last of it is missing.
    ShortAnswer,
    /// It is empty.
    EmptyAnswer,
    /// It is said to be longer than what was asked for.
    LongAnswer,
    /// One bit of the attribute of this number is flipped.
    WrongAttribute(CK_ATTRIBUTE_TYPE),
    /// The attribute of this number is not there.
    WithoutAttribute(CK_ATTRIBUTE_TYPE),
    /// The mechanism of this number is left out of the list.
    WithoutMechanism(CK_MECHANISM_TYPE),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(deserialize_with = "watched")]
    call: String,
    #[serde(default)]
    nth: Option<u64>,
    #[serde(default)]
    from: Option<u64>,
    #[serde(default)]
    every: bool,
    action: Action,
}

/// The name of a call that is watched, or `*`.
fn watched<'de, D: serde::Deserializer<'de>>(name: D) -> Result<String, D::Error> {
    let name = String::deserialize(name)?;
    if name == "*" || crate::WATCHED.contains(&name.as_str()) {
        return Ok(name);
    }
    Err(serde::de::Error::custom(format!("{name} is no call that rules may name")))
}

impl Rule {
    fn is_for(&self, call: &str) -> bool {
        self.call == "*" || self.call == call
    }

    fn applies(&self, call: &str, count: u64) -> bool {
        self.is_for(call)
            && (self.every
                || self.nth == Some(count)
                || self.from.is_some_and(|from| count >= from))
    }
}

/// The rules as last read, and the counts since.
#[derive(Default)]
pub struct Rules {
    path: Option<PathBuf>,
    /// Modification time and inode of what was read.
    seen: Option<(SystemTime, u64)>,
    rules: Vec<Rule>,
    counts: HashMap<&'static str, u64>,
}

impl Rules {
    /// The rules at `path`, which need not exist.
    pub fn at(path: Option<PathBuf>) -> Self {
        Self { path, ..Self::default() }
    }

    /// Counts a call: (its count, what is done about it).
    pub fn count(&mut self, call: &'static str) -> (u64, Option<Action>) {
        self.refresh();
        let count = self.counts.entry(call).or_default();
        *count += 1;
        let count = *count;
        let rule = self.rules.iter().find(|rule| rule.applies(call, count));
        (count, rule.map(|rule| rule.action))
    }

    /// Whether some rule still says that `call` hangs. A test that ended took its rules file along:
    /// then the call hangs for good, rather than run into a store that is gone.
    pub fn hangs(&mut self, call: &str) -> bool {
        if self.path.as_ref().is_some_and(|path| !path.exists()) {
            return true;
        }
        self.refresh();
        self.rules.iter().any(|rule| rule.is_for(call) && rule.action == Action::Hang)
    }

    fn refresh(&mut self) {
        use std::os::unix::fs::MetadataExt;
        let Some(path) = &self.path else { return };
        let seen = std::fs::metadata(path).ok().and_then(|m| Some((m.modified().ok()?, m.ino())));
        if seen == self.seen {
            return;
        }
        self.seen = seen;
        self.counts.clear();
        self.rules = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|e| {
                // A test that misspells a rule must not pass.
                eprintln!("countersign-p11-shim: {}: {e}", path.display());
                std::process::abort()
            }),
            Err(_) => Vec::new(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Rules {
        Rules { rules: serde_json::from_str(text).expect("rules"), ..Rules::default() }
    }

    #[test]
    fn rules_apply_to_their_call_and_count() {
        let mut rules = rules(
            r#"[{"call": "C_Sign", "nth": 2, "action": {"return": "CKR_DEVICE_ERROR"}},
                {"call": "C_Login", "from": 2, "action": "hang"},
                {"call": "C_GetMechanismList", "every": true, "action": {"without_mechanism": 4161}},
                {"call": "C_FindObjects", "every": true, "action": "short_answer"},
                {"call": "*", "every": true, "action": {"delay_ms": 7}}]"#,
        );
        assert_eq!(rules.count("C_Sign"), (1, Some(Action::DelayMs(7))));
        let code = Code(cryptoki_sys::CKR_DEVICE_ERROR);
        assert_eq!(rules.count("C_Sign"), (2, Some(Action::Return(code))));
        let without = Some(Action::Spoil(Spoil::WithoutMechanism(4161)));
        assert_eq!(rules.count("C_GetMechanismList"), (1, without));
        assert_eq!(rules.count("C_FindObjects"), (1, Some(Action::Spoil(Spoil::ShortAnswer))));
        assert_eq!(rules.count("C_Login"), (1, Some(Action::DelayMs(7))));
        assert_eq!(rules.count("C_Login"), (2, Some(Action::Hang)));
        assert_eq!(rules.count("C_Login"), (3, Some(Action::Hang)));
        assert!(rules.hangs("C_Login") && !rules.hangs("C_Sign"));
    }

    #[test]
    fn a_misspelt_rule_is_an_error() {
        for text in [
            r#"[{"call": "C_Sign", "action": "explode"}]"#,
            r#"[{"call": "C_Signe", "nth": 2, "action": "hang"}]"#,
            r#"[{"call": "C_Sign", "ntn": 2, "action": "hang"}]"#,
            r#"[{"call": "C_Sign", "nth": 2, "action": {"return": "CKR_NONE"}}]"#,
        ] {
            assert!(serde_json::from_str::<Vec<Rule>>(text).is_err(), "{text}");
        }
    }
}
