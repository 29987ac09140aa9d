//! `officer roles`: the one table of roles and operations, as it is compiled in ([`TABLE`]), and beside
//! it the rules in force, where there is a ledger to read them from.

use std::io::Write;

use countersign_policy::motion::{MotionKind, TABLE};
use countersign_policy::officer::Role;
use countersign_policy::state::LedgerState;
use serde::Serialize;

use crate::cli::desk::Desk;
use crate::cli::end::{End, Stop};
use crate::cli::say;
use crate::cli::show::table;
use crate::cli::view::View;

/// What stands beside the table for every roster.
const BESIDE: &str = "\
Anyone on the roster freezes, alone; who proposed something withdraws it, and has no vote on it.
Operators and auditors have no vote. A rule about keys has a group of key officers alone.";

/// The table, for programs.
#[derive(Debug, Serialize)]
struct Roles {
    /// The appliance whose rules these are; absent without a ledger.
    appliance: Option<String>,
    /// Why there are no rules.
    no_rules: Option<String>,
    rules_version: Option<u64>,
    /// The recovery group's own rule.
    recovery: Option<String>,
    operations: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    operation: MotionKind,
    proposes: Vec<Role>,
    /// Whom a rule may name.
    may_vote: &'static [Role],
    /// One of its groups has to be of key officers alone.
    needs_key_officers: bool,
    /// The recovery group proposes and carries it too.
    recovery: bool,
    /// What it takes here and now.
    rule: Option<String>,
}

pub(super) fn run(desk: &mut Desk<'_>) -> Result<End, Stop> {
    // The table is the same everywhere, so a keeper that is away takes only the rules from it. A ledger
    // that does not hold is another matter.
    let (view, no_rules) = match desk.view() {
        Ok(view) => (Some(view), None),
        Err(Stop::Said { end: End::Unreachable | End::Usage | End::Failed, text }) => {
            (None, Some(text))
        }
        Err(stop) => return Err(stop),
    };
    let state = view.as_ref().map(View::state);
    let operations = TABLE.iter().map(|row| Row {
        operation: row.kind,
        proposes: proposes(row),
        may_vote: row.approves,
        needs_key_officers: row.kind.is_about_keys(),
        recovery: row.recovery,
        rule: state.and_then(|state| Some(state.rules().rule(row.kind)?.to_string())),
    });
    let recovery = state.and_then(LedgerState::recovery);
    let roles = Roles {
        appliance: view.as_ref().map(|view| view.ledger.name().to_owned()),
        no_rules,
        rules_version: state.map(LedgerState::rules_version),
        recovery: recovery.map(|rule| format!("{} after {} s", rule.rule(), rule.delay_s)),
        operations: operations.collect(),
    };
    desk.print(&roles, print)?;
    Ok(End::Fine)
}

fn proposes(row: &countersign_policy::motion::Row) -> Vec<Role> {
    let recovery = row.recovery.then_some(Role::Recovery);
    row.proposes.iter().copied().chain(recovery).collect()
}

fn words(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
}

fn print(roles: &Roles, out: &mut (dyn Write + Send)) -> std::io::Result<()> {
    let ruled = roles.appliance.is_some();
    let head = ["operation", "proposed by", "a rule may name", "takes here"];
    let mut rows = table(&head[..if ruled { 4 } else { 3 }]);
    for row in &roles.operations {
        let mut cells = vec![row.operation.to_string(), words(&row.proposes), words(row.may_vote)];
        if ruled {
            let or = if row.recovery && roles.recovery.is_some() { "; or recovery" } else { "" };
            cells.push(format!("{}{or}", row.rule.as_deref().unwrap_or("no rule")));
        }
        rows.add_row(cells);
    }
    writeln!(out, "{rows}\n{BESIDE}")?;
    match (&roles.appliance, roles.rules_version, &roles.no_rules) {
        (Some(name), Some(version), _) => {
            writeln!(out, "\nThe rules are those of {name}, version {version}.")?;
        }
        (.., Some(why)) => writeln!(out, "\nWithout the rules in force: {}", say::lines(why))?,
        _ => {}
    }
    match &roles.recovery {
        Some(rule) => writeln!(out, "The recovery group: {rule}."),
        None => Ok(()),
    }
}
