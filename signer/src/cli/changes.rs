//! What an open motion would change of what is in force, a line each: the part of a statement's text
//! that is easily read over, because most of the text is as it was (a rule that is lowered among
//! nineteen, a key that is exchanged, a validity with a digit less).

use std::collections::{BTreeMap, BTreeSet};

use countersign_policy::SigningPolicy;
use countersign_policy::motion::{Motion, MotionKind};
use countersign_policy::officer::{Officer, PersonName};
use countersign_policy::rule::{RecoveryRule, Rules};
use countersign_policy::state::LedgerState;

/// Zones that are named; the text has all of them.
const ZONES_NAMED_MAX: usize = 20;

/// What `motion` would change, as the ledger stands.
pub(super) fn changes(state: &LedgerState, motion: &Motion) -> Vec<String> {
    match motion {
        Motion::ChangeOfficers { retire, enrol, .. } => {
            let leaving = retire.iter().filter(|name| !enrol.contains_key(name));
            let leaving = leaving.map(|name| match state.roster().person(name) {
                Some(officer) => format!("{name} leaves, who is {}", officer.role),
                None => format!("{name} leaves"),
            });
            leaving.chain(enrol.iter().flat_map(|(name, new)| officer(state, name, new))).collect()
        }
        Motion::ChangeRules { rules, recovery, .. } => of_rules(state, rules, *recovery),
        Motion::SetPolicy { name, policy, .. } => {
            let now = state.policies().get(name).map(|(_, policy)| policy);
            let bound = state.zones().values().filter(|binding| binding.policy == *name).count();
            let mut all = of_policy(now, policy);
            all.push(format!("zones that it is for: {bound}"));
            all
        }
        Motion::BindZone { zones, .. } | Motion::UnbindZone { zones }
            if zones.len() > super::say::NAMED_MAX =>
        {
            let mut all: Vec<String> =
                zones.iter().take(ZONES_NAMED_MAX).map(ToString::to_string).collect();
            if zones.len() > ZONES_NAMED_MAX {
                all.push(format!("and {} more", zones.len() - ZONES_NAMED_MAX));
            }
            all
        }
        _ => Vec::new(),
    }
}

/// A person who comes, or gets other keys or another role.
fn officer(state: &LedgerState, name: &PersonName, new: &Officer) -> Vec<String> {
    let key = |key: &countersign_policy::officer::OfficerKey| {
        let verify = if key.verify_required { ", with PIN or finger" } else { "" };
        format!("{}{verify}", key.ssh.fingerprint())
    };
    let old = state.roster().person(name);
    let role = match old {
        None => format!("{name} comes, as {}", new.role),
        Some(old) if old.role == new.role => format!("{name} stays {}", new.role),
        Some(old) => format!("{name} becomes {}, now {}", new.role, old.role),
    };
    let none = BTreeSet::new();
    let had = old.map_or(&none, |old| &old.keys);
    let gone = had.iter().filter(|had| !new.keys.contains(had));
    let gone = gone.map(|had| format!("{name} loses the key {}", key(had)));
    let came = new.keys.iter().filter(|new| !had.contains(new));
    let came = came.map(|came| format!("{name} gets the key {}", key(came)));
    [role].into_iter().chain(gone).chain(came).collect()
}

fn of_rules(state: &LedgerState, rules: &Rules, recovery: Option<RecoveryRule>) -> Vec<String> {
    let of = |rules: &Rules, kind| rules.rule(kind).map_or("none".to_owned(), ToString::to_string);
    let changed = MotionKind::all().filter_map(|kind| {
        let (old, new) = (of(state.rules(), kind), of(rules, kind));
        (old != new).then(|| format!("{kind} takes {new}, now {old}"))
    });
    let mut all: Vec<String> = changed.collect();
    let group = |rule: Option<RecoveryRule>| {
        rule.map_or("none".to_owned(), |rule| format!("{} after {} s", rule.rule(), rule.delay_s))
    };
    if state.recovery() != recovery {
        all.push(format!("recovery: {}, now {}", group(recovery), group(state.recovery())));
    }
    all
}

fn of_policy(old: Option<&SigningPolicy>, new: &SigningPolicy) -> Vec<String> {
    let (old, new) = (fields(old), fields(Some(new)));
    if old.is_empty() {
        return vec!["a new policy".to_owned()];
    }
    let changed = new.iter().filter(|(name, value)| old.get(*name) != Some(value));
    let none = "none".to_owned();
    changed
        .map(|(name, value)| format!("{name}: {value}, now {}", old.get(name).unwrap_or(&none)))
        .collect()
}

/// A policy's fields and their values.
fn fields(policy: Option<&SigningPolicy>) -> BTreeMap<String, String> {
    let value = policy.and_then(|policy| serde_json::to_value(policy).ok());
    let object = value.as_ref().and_then(serde_json::Value::as_object);
    let fields = object.into_iter().flatten();
    fields.map(|(name, value)| (name.clone(), value.to_string().replace('"', ""))).collect()
}
