//! The draft of a founding: a TOML file, or what people answered. The rest of the text comes from the
//! keeper's survey.
//!
//! ```toml
//! name = "signer-1"
//! clock_days = 30                 # may be left out
//! rules = "default"               # or a table: keys = "2 key-officer", rest = "…", export-ds = "…"
//!
//! [tokens]                        # the group of each token of the survey
//! ksk-a = "ksk"
//!
//! [officers.alice]
//! role = "operator"
//! keys = ["alice.pub"]            # or "verify-required:alice-sk.pub"; relative to this file
//!
//! [recovery]                      # may be left out
//! persons = 3
//! delay_s = 172800
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use countersign_hsm::protocol::{Survey, SurveyedToken};
use countersign_policy::founding::{ForeignKey, Founding, TokenIdentity};
use countersign_policy::officer::{Officer, OfficerKey, PersonName, Role, Roster};
use countersign_policy::rule::{RecoveryRule, Rules};
use countersign_policy::text::is_plain;
use serde::Deserialize;

use crate::cli::end::Stop;
use crate::cli::propose::officer_key;
use crate::cli::{files, rules};

/// A file with as many officers, tokens and rules as there can be takes less.
const DRAFT_BYTES_MAX: usize = 256 << 10;
/// A month's holiday of a box that is switched off, without a quorum.
pub(super) const CLOCK_DAYS_DEFAULT: u16 = 30;
const DEFAULT: &str = "default";

/// What people decide of a founding.
#[derive(Debug)]
pub(in crate::cli) struct Draft {
    pub(super) name: String,
    pub(super) clock_days: u16,
    pub(super) tokens: BTreeMap<String, String>,
    pub(super) roster: Roster,
    pub(super) rules: Rules,
    pub(super) recovery: Option<RecoveryRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    #[serde(default = "clock_days")]
    clock_days: u16,
    #[serde(default = "default_rules")]
    rules: RulesIn,
    tokens: BTreeMap<String, String>,
    officers: BTreeMap<PersonName, Person>,
    recovery: Option<RecoveryRule>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RulesIn {
    Named(String),
    Each(BTreeMap<String, String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Person {
    role: Role,
    keys: Vec<String>,
}

fn clock_days() -> u16 {
    CLOCK_DAYS_DEFAULT
}

fn default_rules() -> RulesIn {
    RulesIn::Named(DEFAULT.to_owned())
}

/// Reads a draft, and the keys that it names.
pub(super) fn read(path: &Path) -> Result<Draft, Stop> {
    let text = files::read_text(path, DRAFT_BYTES_MAX)?;
    let wrong = |problem: String| Stop::usage(format!("{}: {problem}", path.display()));
    let file: File = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let mut roster = Roster::default();
    for (name, person) in file.officers {
        let keys: Result<BTreeSet<OfficerKey>, Stop> =
            person.keys.iter().map(|key| officer_key(&beside(path, key))).collect();
        roster.0.insert(name, Officer { role: person.role, keys: keys? });
    }
    Ok(Draft {
        name: file.name,
        clock_days: file.clock_days,
        tokens: file.tokens,
        roster,
        rules: read_rules(&file.rules).map_err(wrong)?,
        recovery: file.recovery,
    })
}

/// A key's file is named as seen from the draft.
fn beside(draft: &Path, key: &str) -> String {
    let (prefix, file) = match key.strip_prefix("verify-required:") {
        Some(file) => ("verify-required:", file),
        None => ("", key),
    };
    let folder = draft.parent().unwrap_or(Path::new(""));
    format!("{prefix}{}", folder.join(file).display())
}

fn read_rules(given: &RulesIn) -> Result<Rules, String> {
    let mut all = rules::default_rules()?;
    match given {
        RulesIn::Named(name) if name == DEFAULT => {}
        RulesIn::Named(other) => {
            return Err(format!(
                "rules = {other:?}; expected \"{DEFAULT}\" or a table, as keys = \"2 key-officer\""
            ));
        }
        RulesIn::Each(each) => {
            let mut changes = BTreeMap::new();
            for (which, rule) in each {
                changes.insert(which.parse()?, rules::rule(rule)?);
            }
            rules::change(&mut all, &changes);
        }
    }
    Ok(all)
}

impl Draft {
    /// The founding, with what the survey shows.
    pub(super) fn founding(self, survey: Survey, now_s: u64) -> Result<Founding, Stop> {
        let Some((audit_token, audit_key)) = survey.audit else {
            return Err(Stop::failed(
                "the keeper has no audit key yet; see in its log what keeps it from making one",
            ));
        };
        if !is_plain(&self.name) {
            return Err(Stop::usage(format!(
                "{:?} is no appliance's name: expected 1 to 64 of a-z, 0-9, '-', '_' and '.'",
                self.name
            )));
        }
        let (tokens, foreign) = inventory(&self.tokens, survey.tokens)?;
        self.roster.check().map_err(|error| Stop::usage(error.to_string()))?;
        self.rules
            .check(&self.roster, self.recovery)
            .map_err(|error| Stop::usage(format!("the rules, with these officers: {error}")))?;
        Ok(Founding {
            name: self.name,
            time: now_s,
            nonce: rand::random(),
            audit_token,
            audit_key,
            tokens,
            foreign,
            clock_days: self.clock_days,
            roster: self.roster,
            rules: self.rules,
            recovery: self.recovery,
        })
    }
}

/// The tokens with their groups, and the keys that are on them already.
fn inventory(
    groups: &BTreeMap<String, String>,
    surveyed: Vec<SurveyedToken>,
) -> Result<(BTreeMap<String, TokenIdentity>, Vec<ForeignKey>), Stop> {
    let (mut tokens, mut foreign) = (BTreeMap::new(), Vec::new());
    for token in surveyed {
        if let Some(problem) = token.problem {
            return Err(Stop::failed(format!(
                "token {} can't be looked at: {problem}; every token of the configuration is part of the \
                 founding",
                token.name
            )));
        }
        if let Some(founding) = token.marked {
            return Err(Stop::failed(format!(
                "token {} carries the mark of another founding, {founding}; use another token, or \
                 initialise it anew once nothing on it is wanted",
                token.name
            )));
        }
        let Some(group) = groups.get(&token.name) else {
            return Err(Stop::usage(format!(
                "token {} has no group; say under [tokens]: {} = \"ksk\" or \"zsk\"",
                token.name, token.name
            )));
        };
        for key in token.keys {
            let (name, label, id) = (token.name.clone(), key.label, key.id);
            foreign.push(ForeignKey { token: name, label, id });
        }
        let (label, serial, group) = (token.label, token.serial, group.clone());
        let data_objects = token.data_objects;
        tokens.insert(token.name, TokenIdentity { label, serial, group, data_objects });
    }
    if let Some(unknown) = groups.keys().find(|name| !tokens.contains_key(*name)) {
        return Err(Stop::usage(format!(
            "[tokens] names {unknown}, which the keeper's configuration does not have"
        )));
    }
    foreign.sort();
    Ok((tokens, foreign))
}

#[cfg(test)]
pub(super) mod tests {
    use countersign_policy::motion::MotionKind;

    use super::*;

    pub(in crate::cli::found) fn token(name: &str) -> SurveyedToken {
        SurveyedToken {
            name: name.to_owned(),
            label: format!("label of {name}"),
            serial: "1".to_owned(),
            manufacturer: String::new(),
            model: String::new(),
            data_objects: true,
            marked: None,
            problem: None,
            keys: Vec::new(),
        }
    }

    fn groups(names: &[&str]) -> BTreeMap<String, String> {
        names.iter().map(|name| ((*name).to_owned(), "ksk".to_owned())).collect()
    }

    #[test]
    fn every_token_has_a_group_and_every_group_a_token() {
        let check = |names: &[&str], tokens: Vec<SurveyedToken>, expect: &str| {
            let Err(Stop::Said { text, .. }) = inventory(&groups(names), tokens) else {
                panic!("{expect}: taken");
            };
            assert!(text.contains(expect), "{text}");
        };
        assert!(inventory(&groups(&["a"]), vec![token("a")]).is_ok());
        check(&[], vec![token("a")], "has no group");
        check(&["a", "b"], vec![token("a")], "does not have");
        let marked = Some(countersign_policy::tree::Hash([7; 32]));
        check(&["a"], vec![SurveyedToken { marked, ..token("a") }], "another founding");
        let problem = Some("no PIN".to_owned());
        check(&["a"], vec![SurveyedToken { problem, ..token("a") }], "no PIN");
    }

    #[test]
    fn rules_by_name_or_each() {
        let parse = |text: &str| {
            let given: RulesIn = toml::from_str::<BTreeMap<String, RulesIn>>(text)
                .expect("TOML")
                .remove("rules")
                .expect("rules");
            read_rules(&given)
        };
        let default = parse("rules = 'default'").expect("the default");
        assert_eq!(default.0.len(), MotionKind::all().count());
        let own = parse("[rules]\nexport-ds = '3 key-officer'").expect("rules");
        let rule = own.rule(MotionKind::ExportDs).expect("a rule");
        assert_eq!(rule.to_string(), "3 key-officer");
        assert_eq!(own.rule(MotionKind::Thaw), default.rule(MotionKind::Thaw));
        assert!(parse("rules = 'mine'").is_err());
        assert!(parse("[rules]\nexport = '3 key-officer'").is_err());
    }

    #[test]
    fn keys_are_named_from_the_draft() {
        let draft = Path::new("/a/b.toml");
        assert_eq!(beside(draft, "k.pub"), "/a/k.pub");
        assert_eq!(beside(draft, "verify-required:k.pub"), "verify-required:/a/k.pub");
        assert_eq!(beside(draft, "/c/k.pub"), "/c/k.pub");
    }
}
