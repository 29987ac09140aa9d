//! `officer list|roles|enrol|retire|replace`: who has a say. Changes are motions like any other
//! (`propose change-officers`), under the names that people look for.

mod roles;

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use countersign_policy::motion::MotionKind;
use countersign_policy::officer::{PersonName, Role};
use serde::Serialize;

use super::desk::Desk;
use super::end::{End, Stop};
use super::propose::{Officers, Window, change_officers, propose};
use super::show::table;
use super::view::View;

#[derive(Debug, Subcommand)]
pub(super) enum OfficerVerb {
    /// Everyone on the roster, their keys, and what each role may do.
    List,
    /// Which role proposes what, whom a rule may give a vote, and what it takes here.
    Roles,
    /// Propose that a person joins.
    Enrol {
        /// Who: 1 to 32 of a-z, 0-9 and '-'.
        person: PersonName,
        /// operator, key-officer, policy-officer, auditor or recovery.
        #[arg(long)]
        role: Role,
        #[command(flatten)]
        keys: Keys,
        #[command(flatten)]
        window: Window,
    },
    /// Propose that a person leaves.
    Retire {
        /// Who.
        person: PersonName,
        #[command(flatten)]
        window: Window,
    },
    /// Propose that a person gets other keys or another role, in one step.
    Replace {
        /// Who.
        person: PersonName,
        /// The new role; by default the present one.
        #[arg(long)]
        role: Option<Role>,
        #[command(flatten)]
        keys: Keys,
        #[command(flatten)]
        window: Window,
    },
}

/// A person's keys.
#[derive(Debug, Args)]
pub(super) struct Keys {
    /// A public key: carol.pub; for an sk- key that must ask for a PIN or a finger,
    /// verify-required:carol.pub. Up to four.
    #[arg(long, value_name = "FILE", required = true)]
    key: Vec<String>,
}

pub(super) fn run(mut desk: Desk<'_>, verb: OfficerVerb) -> Result<End, Stop> {
    if matches!(verb, OfficerVerb::Roles) {
        return roles::run(&mut desk);
    }
    let view = desk.view()?;
    let (officers, window) = match verb {
        OfficerVerb::List | OfficerVerb::Roles => return list(&mut desk, &view),
        OfficerVerb::Enrol { person, role, keys, window } => {
            if view.state().roster().person(&person).is_some() {
                return Err(Stop::usage(format!(
                    "{person} is on the roster already; say `officer replace`"
                )));
            }
            (one(&person, role, keys, BTreeSet::new()), window)
        }
        OfficerVerb::Retire { person, window } => {
            (Officers { retire: vec![known(&view, person)?.0], ..Officers::default() }, window)
        }
        OfficerVerb::Replace { person, role, keys, window } => {
            let (person, present) = known(&view, person)?;
            let role = role.unwrap_or(present);
            (one(&person, role, keys, [person.clone()].into()), window)
        }
    };
    let motion = change_officers(view.state(), officers)?;
    propose(&mut desk, view, motion, &window)
}

fn known(view: &View, person: PersonName) -> Result<(PersonName, Role), Stop> {
    match view.state().roster().person(&person).map(|officer| officer.role) {
        Some(role) => Ok((person, role)),
        None => Err(Stop::usage(format!("{person} is not on the roster"))),
    }
}

fn one(person: &PersonName, role: Role, keys: Keys, retire: BTreeSet<PersonName>) -> Officers {
    Officers {
        retire: retire.into_iter().collect(),
        enrol: vec![(person.clone(), role)],
        key: keys.key.into_iter().map(|file| (person.clone(), file)).collect(),
    }
}

/// The roster and the rules, for programs.
#[derive(Debug, Serialize)]
struct List {
    appliance: String,
    officers_version: u64,
    officers: Vec<Officer>,
    rules_version: u64,
    rules: Vec<RuleOf>,
    recovery: Option<String>,
}

#[derive(Debug, Serialize)]
struct Officer {
    name: PersonName,
    role: Role,
    keys: Vec<Key>,
}

#[derive(Debug, Serialize)]
struct Key {
    public: String,
    fingerprint: String,
    verify_required: bool,
}

#[derive(Debug, Serialize)]
struct RuleOf {
    kind: MotionKind,
    rule: String,
    proposes: &'static [Role],
}

fn list(desk: &mut Desk<'_>, view: &View) -> Result<End, Stop> {
    let state = view.state();
    let officers = state.roster().0.iter().map(|(name, officer)| Officer {
        name: name.clone(),
        role: officer.role,
        keys: officer
            .keys
            .iter()
            .map(|key| Key {
                public: key.ssh.to_string(),
                fingerprint: key.ssh.fingerprint(),
                verify_required: key.verify_required,
            })
            .collect(),
    });
    let rules = state.rules().0.iter().map(|(kind, rule)| RuleOf {
        kind: *kind,
        rule: rule.to_string(),
        proposes: kind.row().proposes,
    });
    let recovery = state.recovery();
    let list = List {
        appliance: view.ledger.name().to_owned(),
        officers_version: state.officers_version(),
        officers: officers.collect(),
        rules_version: state.rules_version(),
        rules: rules.collect(),
        recovery: recovery.map(|rule| format!("{} after {} s", rule.rule(), rule.delay_s)),
    };
    desk.print(&list, print)?;
    Ok(End::Fine)
}

fn print(list: &List, out: &mut (dyn std::io::Write + Send)) -> std::io::Result<()> {
    let mut rows = table(&["person", "role", "keys"]);
    for person in &list.officers {
        let keys: Vec<String> = person
            .keys
            .iter()
            .map(|key| {
                let kind = key.public.split(' ').next().unwrap_or_default();
                let verify = if key.verify_required { ", with PIN or finger" } else { "" };
                format!("{kind} {}{verify}", key.fingerprint)
            })
            .collect();
        rows.add_row([person.name.to_string(), person.role.to_string(), keys.join("\n")]);
    }
    writeln!(out, "{}, officers version {}\n{rows}\n", list.appliance, list.officers_version)?;
    let mut rows = table(&["motion", "takes", "proposed by"]);
    for rule in &list.rules {
        let proposes: Vec<&str> = rule.proposes.iter().map(|role| role.as_str()).collect();
        rows.add_row([rule.kind.to_string(), rule.rule.clone(), proposes.join(", ")]);
    }
    writeln!(out, "rules version {}; who proposes has no vote\n{rows}", list.rules_version)?;
    match &list.recovery {
        Some(rule) => writeln!(out, "\nrecovery group: {rule}"),
        None => Ok(()),
    }
}
