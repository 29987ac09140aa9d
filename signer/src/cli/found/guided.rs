//! The founding by question and answer, for who has no draft. Nothing is written before the last
//! answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use countersign_hsm::protocol::{Mode, SurveyedToken};
use countersign_policy::officer::{Officer, OfficerKey, PersonName, Role, Roster};
use countersign_policy::rule::{RecoveryRule, Rules};
use countersign_policy::text::is_plain;

use super::draft::{CLOCK_DAYS_DEFAULT, Draft};
use crate::cli::ask::{Person, Terminal, ask_until, somebody_is_there};
use crate::cli::desk::DeskArgs;
use crate::cli::end::Stop;
use crate::cli::propose::officer_key;
use crate::cli::rules::{self, KEYS_DEFAULT, REST_DEFAULT, Which};
use crate::cli::view::{connect, keeper_stop};

/// What was answered.
pub(super) struct Plan {
    pub(super) draft: Draft,
    pub(super) out: Option<PathBuf>,
}

/// Asks for everything.
pub(super) fn ask(args: &DeskArgs) -> Result<Plan, Stop> {
    if !somebody_is_there() {
        return Err(Stop::usage("nobody is there to be asked; say `found draft --from FILE.toml`"));
    }
    let mut keeper = connect(&args.ledger_socket)?;
    if *keeper.mode() != Mode::Unfounded {
        return Err(Stop::failed(
            "this keeper is founded already, and an appliance is founded once",
        ));
    }
    let survey = keeper.survey().map_err(keeper_stop)?;
    let mut shown = Vec::new();
    crate::cli::survey::tokens(&survey.tokens, &mut shown)?;
    let person = &mut Terminal;
    person.tell(&String::from_utf8_lossy(&shown))?;
    plan(&survey.tokens, person)
}

fn plan(surveyed: &[SurveyedToken], person: &mut dyn Person) -> Result<Plan, Stop> {
    let name = ask_until(person, "What is the appliance called", "", |answer| {
        let named = is_plain(answer).then(|| answer.to_owned());
        named.ok_or_else(|| "1 to 64 of a-z, 0-9, '-', '_' and '.'".to_owned())
    })?;
    let tokens = tokens(surveyed, person)?;
    let roster = roster(person)?;
    let (rules, recovery) = rules_for(&roster, person)?;
    let clock_days = ask_until(
        person,
        "How many days may it be switched off before a quorum has to vouch for its clock",
        &CLOCK_DAYS_DEFAULT.to_string(),
        |answer| answer.parse().map_err(|_| "a number of days, 1 to 90".to_owned()),
    )?;
    let file = person.ask("Where does the text go", &format!("{name}.founding"))?;
    let draft = Draft { name, clock_days, tokens, roster, rules, recovery };
    Ok(Plan { draft, out: Some(PathBuf::from(file)) })
}

fn tokens(
    surveyed: &[SurveyedToken],
    person: &mut dyn Person,
) -> Result<BTreeMap<String, String>, Stop> {
    let mut groups = BTreeMap::new();
    for token in surveyed {
        let guess = if token.name.contains("zsk") { "zsk" } else { "ksk" };
        let question = format!("Which group is token {} of (KSKs and ZSKs live apart)", token.name);
        let group = ask_until(person, &question, guess, |answer| {
            let named = is_plain(answer).then(|| answer.to_owned());
            named.ok_or_else(|| "1 to 64 of a-z, 0-9, '-', '_' and '.'".to_owned())
        })?;
        groups.insert(token.name.clone(), group);
    }
    Ok(groups)
}

fn roster(person: &mut dyn Person) -> Result<Roster, Stop> {
    let mut roster = Roster::default();
    loop {
        let hint = if roster.0.is_empty() {
            "The first person, as alice (an operator and three key officers make a start)"
        } else {
            "The next person (nothing to end)"
        };
        let Some(name) = ask_until(person, hint, "", |answer| {
            if answer.is_empty() {
                return Ok(None);
            }
            answer.parse::<PersonName>().map(Some).map_err(|error| error.to_string())
        })?
        else {
            match roster.check() {
                Ok(()) => return Ok(roster),
                Err(problem) => {
                    person.tell(&format!("  {problem}"))?;
                    continue;
                }
            }
        };
        let role = if roster.0.is_empty() { Role::Operator } else { Role::KeyOfficer };
        let role = ask_until(person, &format!("{name}'s role"), role.as_str(), str::parse::<Role>)?;
        let question = format!("Files of {name}'s public keys, a space between");
        let keys = ask_until(person, &question, "", keys)?;
        roster.0.insert(name, Officer { role, keys });
    }
}

fn keys(files: &str) -> Result<BTreeSet<OfficerKey>, String> {
    let mut keys = BTreeSet::new();
    for file in files.split_whitespace() {
        keys.insert(officer_key(file).map_err(|stop| match stop {
            Stop::Said { text, .. } => text,
            Stop::Pipe => "it can't be read".to_owned(),
        })?);
    }
    if keys.is_empty() {
        Err("one at least, as /home/alice/.ssh/id_ed25519.pub".to_owned())
    } else {
        Ok(keys)
    }
}

/// Asks until rules and officers go together.
fn rules_for(
    roster: &Roster,
    person: &mut dyn Person,
) -> Result<(Rules, Option<RecoveryRule>), Stop> {
    let has_recovery = roster.0.values().any(|officer| officer.role == Role::Recovery);
    loop {
        let keys = ask_until(
            person,
            "Who carries what touches a KSK or the parent",
            KEYS_DEFAULT,
            rules::rule,
        )?;
        let rest = ask_until(person, "And everything else", REST_DEFAULT, rules::rule)?;
        let mut all = Rules(BTreeMap::new());
        rules::change(&mut all, &[(Which::Keys, keys), (Which::Rest, rest)].into());
        let recovery = if has_recovery {
            Some(ask_until(
                person,
                "And the recovery group: how many, after how many seconds",
                "3 after 172800",
                rules::recovery,
            )?)
        } else {
            None
        };
        match all.check(roster, recovery) {
            Ok(()) => return Ok((all, recovery)),
            Err(problem) => person.tell(&format!("  {problem}"))?,
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_hsm::protocol::Survey;
    use countersign_policy::founding::Founding;
    use countersign_policy::officer::Role;
    use countersign_policy::testing::{NOW, Person as Someone, audit_key};

    use super::super::draft::tests::token;
    use super::*;
    use crate::cli::ask::tests::Scripted;

    #[test]
    fn what_people_answer_is_a_founding() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = |name: &str| {
            let path = folder.path().join(format!("{name}.pub"));
            let public = Someone::new(name, Role::Operator).ssh();
            std::fs::write(&path, format!("{public} {name}@home\n")).expect("written");
            path.display().to_string()
        };
        let (olga, alice, bob, carol) = (key("olga"), key("alice"), key("bob"), key("carol"));
        let surveyed = [token("ksk-a"), token("zsk-a")];
        let mut person = Scripted::new(&[
            "Box 1",
            "box-1", // a name that is none first
            "",
            "", // the groups as guessed
            "", // nobody yet: asked again
            "olga",
            "king",
            "",
            &olga, // a role that is none first
            "alice",
            "",
            "/nonexistent",
            &alice,
            "bob",
            "",
            &bob,
            "carol",
            "",
            &carol,
            "",
            "3 key-officer",
            "", // more than there can be: asked again
            "",
            "",
            "many",
            "", // days
            "",
        ]);
        let plan = plan(&surveyed, &mut person).expect("a plan");
        assert_eq!(plan.out, Some(PathBuf::from("box-1.founding")));
        assert_eq!(plan.draft.tokens.values().collect::<Vec<_>>(), ["ksk", "zsk"]);
        let told = person.told.join("\n");
        for part in [
            "1 to 64 of",
            "0 persons",
            "is no role",
            "/nonexistent",
            "expected more persons",
            "1 to 90",
        ] {
            assert!(told.contains(part), "{part:?} is not in:\n{told}");
        }
        let audit = Some(("ksk-a".to_owned(), audit_key("audit")));
        let survey = Survey { audit, tokens: surveyed.into() };
        let founding = plan.draft.founding(survey, NOW).expect("a founding");
        assert_eq!(Founding::parse(&founding.to_text()), Ok(founding));
    }
}
