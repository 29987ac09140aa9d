//! The watch: one thread that never calls into a module. It opens tokens that are due, notices calls
//! that exceed their deadline, looks at PIN files, and has conflicts and listings looked at again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use tracing::warn;

use super::module::Renewal;
use super::root::{self, JOBS_MAX, Job};
use super::shared::Shared;
use super::token::{Phase, Token};

/// How often a refused PIN's file is looked at.
const PIN_POLL: Duration = Duration::from_secs(2);
/// How often tokens of a group with a conflict are looked at again.
const CONFLICT_POLL: Duration = Duration::from_secs(10);
/// How often every token is listed again: other tools may add or remove keys while we run.
const RELIST_POLL: Duration = Duration::from_secs(600);
/// How soon a group is listed again that has a key which none of its tokens has proven; doubles each time,
/// up to [`RELIST_POLL`], as long as there are no more such keys. A call that was refused in passing is
/// soon forgotten so, and a key that is not there costs little.
const UNPROVEN_POLL_MIN: Duration = Duration::from_secs(1);
/// Failures in a row, without a success between, after which opening alone is not expected to help.
const RENEW_AFTER: u32 = 3;
/// Rest after a module was renewed; doubles each time.
const RENEW_REST_MIN: Duration = Duration::from_secs(1);
const RENEW_REST_MAX: Duration = Duration::from_secs(600);
/// Bounds of the tick: a hang is noticed within an eighth of the shortest deadline.
const TICK_MIN: Duration = Duration::from_millis(5);
const TICK_MAX: Duration = Duration::from_millis(250);

/// Starts the watch.
pub(super) fn spawn(shared: Arc<Shared>) -> std::io::Result<()> {
    std::thread::Builder::new().name("hsm-watch".to_owned()).spawn(move || run(&shared)).map(drop)
}

fn run(shared: &Arc<Shared>) {
    let (mut renewals, mut unproven) = (Renewals::default(), Unproven::default());
    let shortest = shared.tokens.iter().map(|token| token.spec.deadline).min();
    let tick = (shortest.unwrap_or(TICK_MAX) / 8).clamp(TICK_MIN, TICK_MAX);
    let start = Instant::now();
    let (mut pins_seen, mut conflicts_seen, mut listed) = (start, start, start);
    let mut unproven_seen = start;
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
            advance(shared, token, now, look_at_pins, &mut renewals);
            token.forgive(now);
        }
        if due(&mut conflicts_seen, CONFLICT_POLL) {
            for group in shared.keys().groups_in_conflict() {
                relist(shared, &group, true);
            }
        }
        if due(&mut unproven_seen, UNPROVEN_POLL_MIN) {
            for group in unproven.due(shared, now) {
                relist(shared, &group, false);
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
fn advance(
    shared: &Arc<Shared>,
    token: &Arc<Token>,
    now: Instant,
    look_at_pins: bool,
    renewals: &mut Renewals,
) {
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
    if !due || (last && !others_settled()) {
        return;
    }
    match renewals.turn(shared, token, now) {
        Turn::Open => begin(shared, token, None),
        Turn::Renew => begin(shared, token, Renewal::begin(&token.spec.module)),
        Turn::Wait => {}
    }
}

/// What a token that is due may do, as far as its module is concerned.
enum Turn {
    Open,
    Renew,
    Wait,
}

/// When each module was last finalised and initialised anew, and how often in a row. Some modules never
/// see a device again that was away (SoftHSM a store whose directory was; clients of network HSMs a
/// server that restarted), until they are.
#[derive(Default)]
struct Renewals(BTreeMap<PathBuf, (Instant, u32)>);

impl Renewals {
    /// A token that was open in this process, or that its module never showed, and that fails again and
    /// again while its group has no other: its module is renewed, once every thread is out of it. (Some
    /// look for their tokens only when they are initialised.) That closes the module's other tokens for a
    /// moment, and is done ever more rarely.
    fn turn(&mut self, shared: &Shared, token: &Token, now: Instant) -> Turn {
        let module = &token.spec.module;
        let peers = || {
            let others = shared.tokens.iter().filter(|other| other.index != token.index);
            others.filter(|other| other.spec.module == *module)
        };
        let wanted = {
            let life = token.life();
            (life.accepted.is_some() || life.absent) && life.unserved >= RENEW_AFTER
        };
        let hung = || peers().any(|peer| matches!(peer.life().phase, Phase::Hung { .. }));
        let served = || shared.group(&token.spec.group).any(|other| other.is_usable());
        if !wanted || !self.allowed(module, now) || hung() || served() {
            token.life().renew = false;
            let held_up = peers().any(|peer| peer.life().renew);
            return if held_up { Turn::Wait } else { Turn::Open };
        }
        token.life().renew = true;
        for peer in peers().filter(|peer| !peer.calls().is_empty()) {
            shared.pause(peer, "its module is initialised anew for another token's sake");
        }
        if peers().any(|peer| !peer.calls().is_empty()) {
            return Turn::Wait;
        }
        token.life().renew = false;
        let entry = self.0.entry(module.clone()).or_insert((now, 0));
        *entry = (now, entry.1.saturating_add(1));
        warn!(module = %module.display(), token = token.spec.name, "module is initialised anew");
        Turn::Renew
    }

    fn allowed(&self, module: &Path, now: Instant) -> bool {
        self.0.get(module).is_none_or(|(last, times)| {
            let rest = RENEW_REST_MIN.saturating_mul(1 << times.min(&16)).min(RENEW_REST_MAX);
            now.saturating_duration_since(*last) > rest
        })
    }
}

fn begin(shared: &Arc<Shared>, token: &Arc<Token>, renewal: Option<Renewal>) {
    let (jobs, todo) = sync_channel(JOBS_MAX);
    let generation = token.begin_opening(jobs);
    let thread = {
        let (shared, token) = (Arc::clone(shared), Arc::clone(token));
        std::thread::Builder::new()
            .name(format!("{}-root", token.spec.name))
            .spawn(move || root::run(&shared, &token, generation, &todo, renewal))
    };
    if let Err(e) = thread {
        shared.lost(token, generation, &format!("can't start a thread: {e}"));
    }
}

/// Groups with keys that no token has proven: how many, when they are looked for next, and how long after
/// that.
#[derive(Default)]
struct Unproven(BTreeMap<String, (usize, Instant, Duration)>);

impl Unproven {
    /// The groups whose time has come.
    fn due(&mut self, shared: &Shared, now: Instant) -> Vec<String> {
        let mut unproven = shared.keys().unproven();
        // Tokens that are not open look by themselves when they are.
        unproven.retain(|group, _| shared.group(group).any(|token| token.is_usable()));
        self.0.retain(|group, _| unproven.contains_key(group));
        let mut due = Vec::new();
        for (group, count) in unproven {
            let soon = (count, now + UNPROVEN_POLL_MIN, UNPROVEN_POLL_MIN * 2);
            let (seen, at, wait) = self.0.entry(group.clone()).or_insert(soon);
            if count > *seen {
                (*at, *wait) = (now + UNPROVEN_POLL_MIN, UNPROVEN_POLL_MIN * 2);
            } else if now >= *at {
                (*at, *wait) = (now + *wait, (*wait * 2).min(RELIST_POLL));
                due.push(group);
            }
            *seen = count;
        }
        due
    }
}

/// Has the open tokens of a group listed anew, and their keys proven: all, or those that are not.
fn relist(shared: &Shared, group: &str, all: bool) {
    for token in shared.group(group) {
        post(token, Job::Relist { all, reply: None });
    }
}

fn post(token: &Token, job: Job) {
    if let Some(root) = &token.life().root {
        // When its queue is full it is busy with such jobs already.
        drop(root.try_send(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pkcs11::{DEADLINE_DEFAULT, PinSource, TokenSpec};

    #[test]
    fn a_hang_of_an_earlier_run_is_forgiven_too() {
        let directory = tempfile::tempdir().expect("directory");
        let spec = TokenSpec {
            name: "zsk-a".to_owned(),
            group: "zsk".to_owned(),
            label: "zsk".to_owned(),
            serial: "1".to_owned(),
            module: PathBuf::from("/nowhere"),
            pin: PinSource::Credential("zsk-a".to_owned()),
            workers: 1,
            queue_max: 1,
            deadline: DEADLINE_DEFAULT,
        };
        Token::new(0, spec.clone(), directory.path()).hung_marker.add("C_Sign").expect("mark");
        let token = Token::new(0, spec, directory.path());
        let since = Instant::now();
        token.life().phase = Phase::Usable { since };
        token.forgive(since + Duration::from_secs(10));
        assert!(token.hung_marker.read().is_some(), "not yet");
        token.forgive(since + Duration::from_secs(3_600));
        assert!(token.hung_marker.read().is_none());
    }
}
