//! `calendar`: what will want people within 90 days, the soonest first: votes, windows that close,
//! grants that end, DNSKEY signatures that nobody has leave to renew.

use countersign_policy::signing::DnskeyApproval;
use serde::Serialize;

use super::desk::Desk;
use super::end::{End, Stop};
use super::history::{self, History};
use super::show::table;
use super::view::View;
use super::{attention, say};

/// A quarter: what a ceremony is planned ahead.
const AHEAD_S: u64 = 90 * 86_400;

/// Something that will want people.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Due {
    /// In seconds since 1970; 0 is at once.
    at_s: u64,
    at: String,
    what: String,
    next_step: String,
}

pub(super) fn run(mut desk: Desk<'_>) -> Result<End, Stop> {
    let mut history = History::default();
    let view = desk.view_each(|state, line| history.see(state, line))?;
    let mut all = Vec::new();
    proposals(&view, &history, desk.now_s, &mut all);
    freezes(&view, &history, &mut all);
    zones(&view, &history, desk.now_s, &mut all);
    grants(&view, desk.now_s, &mut all);
    unfinished(&view, &mut all);
    if let Err(fault) = view.state().clock(desk.now_s) {
        all.push(due(0, fault.to_string(), "set the clock right, or propose raise-time-floor"));
    }
    all.retain(|due| due.at_s <= desk.now_s.saturating_add(AHEAD_S));
    all.sort();
    desk.print(&all, |all, out| {
        let mut rows = table(&["when", "what", "next step"]);
        for due in all {
            rows.add_row([&due.at, &due.what, &due.next_step]);
        }
        if all.is_empty() {
            writeln!(out, "nothing within 90 days")
        } else {
            writeln!(out, "{rows}")
        }
    })?;
    Ok(attention(all.iter().any(|due| due.at_s <= desk.now_s)))
}

fn due(at_s: u64, what: String, next_step: impl Into<String>) -> Due {
    let at = if at_s == 0 { "now".to_owned() } else { say::time(at_s) };
    Due { at_s, at, what, next_step: next_step.into() }
}

fn proposals(view: &View, history: &History, now_s: u64, all: &mut Vec<Due>) {
    for (hash, record) in history.motions() {
        if !history::is_open(view.state(), hash) {
            continue;
        }
        let statement = &record.statement;
        let what = format!(
            "the vote on {} ends: {} (so far {})",
            hash.short(),
            say::motion(&statement.motion),
            record.tally()
        );
        let next = match view.state().quorum(hash, now_s) {
            Ok(_) => "the keeper begins it by itself".to_owned(),
            Err(not_yet) => not_yet.to_string(),
        };
        all.push(due(statement.not_after, what, next));
    }
}

fn freezes(view: &View, history: &History, all: &mut Vec<Due>) {
    for freeze in view.state().freezes() {
        let what = format!(
            "the use of {} is frozen since {} by {}: {}",
            say::scope(&freeze.scope),
            say::time(freeze.at),
            freeze.officer,
            say::plain(&freeze.reason)
        );
        all.push(due(0, what, "propose thaw once the reason is gone"));
    }
    for (zone, expires) in &history.dnskey_expires {
        if view.state().zones().contains_key(zone) && view.state().freeze_of(zone).is_some() {
            let what = format!(
                "the newest DNSKEY signature of {zone} expires, and no new one is made while it is frozen: \
                 the zone is then bogus"
            );
            all.push(due(*expires, what, "thaw before"));
        }
    }
}

fn zones(view: &View, history: &History, now_s: u64, all: &mut Vec<Due>) {
    let state = view.state();
    for zone in state.zones().keys() {
        let per_set =
            state.policy_of(zone).is_some_and(|policy| policy.approval == DnskeyApproval::PerSet);
        let until = match state.dnskey_set(zone, now_s) {
            Ok(set) => set.until,
            Err(_) => Some(0),
        };
        let Some(until) = until.filter(|_| per_set) else { continue };
        let next = format!("propose sign-dnskey-set --zone {zone}");
        if until > now_s {
            let what = format!("the leave to sign the DNSKEY set of {zone} ends");
            all.push(due(until, what, next.clone()));
        }
        match history.dnskey_expires.get(zone) {
            Some(expires) => {
                let what =
                    format!("the newest DNSKEY signature of {zone} expires: it is then bogus");
                all.push(due(*expires, what, next));
            }
            None if until <= now_s => {
                all.push(due(0, format!("nobody may sign a DNSKEY set of {zone}"), next));
            }
            None => {}
        }
    }
}

fn grants(view: &View, now_s: u64, all: &mut Vec<Due>) {
    let state = view.state();
    for zone in state.zones().keys() {
        if let Some(grant) = state.ds_export(zone, now_s) {
            let what = format!("DS of {zone} are handed out no longer");
            all.push(due(grant.until, what, "nothing, once the parent has them"));
        }
        if let Some(grant) = state.cds(zone, now_s) {
            let what = format!("CDS and CDNSKEY of {zone} are published no longer");
            let next = "nothing, once the parent follows; else propose publish-cds";
            all.push(due(grant.until, what, next));
        }
    }
}

fn unfinished(view: &View, all: &mut Vec<Due>) {
    for (line, statement, steps) in view.state().unfinished() {
        let what = format!(
            "what began at line {line} ends, with {} steps left: {}",
            steps.len(),
            say::motion(&statement.motion)
        );
        let next =
            "see the keeper's log for why the HSM has not done it; propose it anew if it lapses";
        all.push(due(statement.finish_by, what, next));
    }
}
