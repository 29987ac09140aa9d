//! The watch: one thread that never calls into a module. It opens tokens that are due, notices calls
//! that exceed their deadline, looks at PIN files, and has conflicts and listings looked at again.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use super::root::{self, JOBS_MAX, Job};
use super::token::{Phase, Shared, Token};

/// How often a refused PIN's file is looked at.
const PIN_POLL: Duration = Duration::from_secs(2);
/// How often tokens of a group with a conflict are looked at again.
const CONFLICT_POLL: Duration = Duration::from_secs(10);
/// How often every token is listed again: other tools may add or remove keys while we run.
const RELIST_POLL: Duration = Duration::from_secs(600);
/// Bounds of the tick: a hang is noticed within an eighth of the shortest deadline.
const TICK_MIN: Duration = Duration::from_millis(5);
const TICK_MAX: Duration = Duration::from_millis(250);

/// Starts the watch.
pub(super) fn spawn(shared: Arc<Shared>) -> std::io::Result<()> {
    std::thread::Builder::new().name("hsm-watch".to_owned()).spawn(move || run(&shared)).map(drop)
}

fn run(shared: &Arc<Shared>) {
    let shortest = shared.tokens.iter().map(|token| token.spec.deadline).min();
    let tick = (shortest.unwrap_or(TICK_MAX) / 8).clamp(TICK_MIN, TICK_MAX);
    let start = Instant::now();
    let (mut pins_seen, mut conflicts_seen, mut listed) = (start, start, start);
    let mut last = start;
    while !shared.is_stopping() {
        let now = Instant::now();
        // Was this whole process stopped, or starved? Then calls only look overdue: the next tick
        // tells those that are from those that had no chance.
        let on_time = now.saturating_duration_since(last) < tick * 4;
        last = now;
        let due = |last: &mut Instant, every: Duration| {
            let due = now.saturating_duration_since(*last) >= every;
            if due {
                *last = now;
            }
            due
        };
        let look_at_pins = due(&mut pins_seen, PIN_POLL);
        for token in &shared.tokens {
            let overdue = token.calls().iter().find_map(|slot| slot.overdue(now));
            if let Some(call) = overdue.filter(|_| on_time) {
                shared.hung(token, call);
            }
            advance(shared, token, now, look_at_pins);
            token.forgive(now);
        }
        if due(&mut conflicts_seen, CONFLICT_POLL) {
            for group in shared.keys().groups_in_conflict() {
                relist(shared, &group);
            }
        }
        if due(&mut listed, RELIST_POLL) {
            for token in &shared.tokens {
                post(token, Job::Relist { all: false, reply: None });
            }
        }
        std::thread::sleep(tick);
    }
}

/// Moves a token on, where its time has come.
fn advance(shared: &Arc<Shared>, token: &Arc<Token>, now: Instant, look_at_pins: bool) {
    let others_settled = || {
        let mut others = shared.tokens.iter().filter(|other| other.index != token.index);
        others.all(|other| other.life().settled)
    };
    // Threads of an earlier generation still hold sessions: their end comes first.
    let threads_gone = token.calls().is_empty();
    let (due, last) = {
        let mut life = token.life();
        match &life.phase {
            Phase::Waiting { until, last } => (now >= *until && threads_gone, *last),
            Phase::PinRefused { stamp } => {
                if look_at_pins && token.spec.pin.stamp() != *stamp {
                    life.phase = Phase::Waiting { until: now, last: false };
                }
                return;
            }
            Phase::Hung { .. } if threads_gone => {
                drop(life);
                shared.came_back(token);
                return;
            }
            _ => return,
        }
    };
    if due && (!last || others_settled()) {
        begin(shared, token);
    }
}

fn begin(shared: &Arc<Shared>, token: &Arc<Token>) {
    let (jobs, todo) = sync_channel(JOBS_MAX);
    let generation = token.begin_opening(jobs);
    let thread = {
        let (shared, token) = (Arc::clone(shared), Arc::clone(token));
        std::thread::Builder::new()
            .name(format!("{}-root", token.spec.name))
            .spawn(move || root::run(&shared, &token, generation, &todo))
    };
    if let Err(e) = thread {
        shared.lost(token, generation, &format!("can't start a thread: {e}"));
    }
}

/// Has the open tokens of a group listed anew, and all their keys proven.
fn relist(shared: &Shared, group: &str) {
    for token in shared.group(group) {
        post(token, Job::Relist { all: true, reply: None });
    }
}

fn post(token: &Token, job: Job) {
    if let Some(root) = &token.life().root {
        // When its queue is full it is busy with such jobs already.
        drop(root.try_send(job));
    }
}
