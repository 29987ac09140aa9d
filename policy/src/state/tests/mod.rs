//! The fold, rule by rule. Each test is of one guard, and goes red without it.

mod begin;
mod depends;
mod founded;
mod holder;
mod keys;
mod parent;
mod possible;
mod propose;
mod token;
mod verdict;

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::ledger::LedgerError;
use crate::motion::Motion;
use crate::officer::{Officer, PersonName};
use crate::testing::{Person, World, policy, zone};

/// It was refused, and says so in these words.
#[track_caller]
pub(super) fn refused<T: Debug>(result: Result<T, LedgerError>, expect: &str) {
    let error = result.expect_err(expect).to_string();
    assert!(error.contains(expect), "{error}\nexpected: {expect}");
}

/// Names.
pub(super) fn names<C: FromIterator<PersonName>>(names: &[&str]) -> C {
    names.iter().map(|name| name.parse().expect("a name")).collect()
}

/// Retires these, enrols those.
pub(super) fn change(world: &World, retire: &[&str], enrol: &[&Person]) -> Motion {
    let enrol: BTreeMap<PersonName, Officer> =
        enrol.iter().map(|person| (person.name.clone(), person.officer())).collect();
    Motion::ChangeOfficers {
        version: world.state.officers_version() + 1,
        retire: names(retire),
        enrol,
    }
}

/// The next version of the policy `default`, with something changed.
pub(super) fn next_policy(world: &World, change: impl FnOnce(&mut crate::SigningPolicy)) -> Motion {
    let name = "default".to_owned();
    let version = world.state.policies().get(&name).map_or(0, |(version, _)| *version) + 1;
    let mut policy = policy();
    change(&mut policy);
    Motion::SetPolicy { name, version, policy }
}

/// A KSK for the zone of most tests, that waits for its activation.
pub(super) fn generate_ksk() -> Motion {
    let role = crate::KeyRole::Ksk;
    Motion::GenerateKey { zones: [zone()].into(), role, activate: false }
}
