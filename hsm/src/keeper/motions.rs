//! The executor of what was approved: one thread, in rounds.
//!
//! ```text
//! quorum met, in its window ──► Begun (once; the ledger judges again) ──► steps for the HSM ──► done
//!                                                                      └ finish-by past ──► Lapsed
//! ```
//!
//! It acts on nothing but the ledger's state, so a round that was interrupted anywhere goes on where
//! the lines say: an open intent is settled first, a step that has its result is no step any more. Beside
//! motions it marks tokens, and makes the ZSKs that a zone's policy wants, under the zone's binding.
//! What can't be done now is tried again after a pause of its own, so that no token that is full or away
//! holds up another zone, or fills the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use countersign_policy::ledger::{LedgerState, Operation};
use countersign_policy::motion::Motion;
use countersign_policy::rule::APPROVALS_MIN;
use countersign_policy::state::{Status, Step};
use countersign_policy::statement::StatementHash;
use countersign_policy::{KeyId, KeyRole, PublicKey, ZoneName};

use super::door::Hsm;
use super::keys::{KeyMaker, Stuck, expected_key};
use super::marks;
use super::seal::{Idle, Seals};
use crate::ledger::{Ledger, Note, WriteError};
use crate::pkcs11::ExpectedKey;

/// Pauses before another try, doubled from one to the other: of what waits for something, and of what
/// was tried and failed, which costs the ledger two lines each time.
const WAIT_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));
const FAIL_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(300));
/// Between looks at a proposal with enough votes that may not begin yet, while no vote is added: its
/// window opens by itself. Looking at a policy's change costs a look at each of its zones.
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(2);
/// ZSKs made in one round: so that motions take their turn beside a portfolio that is new.
const ZSKS_PER_ROUND: usize = 64;

/// What a round could not do yet, for log and notices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Unfinished {
    /// What was to be done.
    pub what: String,
    /// What stands in the way.
    pub why: String,
}

/// When something is tried again.
struct Pause {
    until: Instant,
    next: Duration,
    why: String,
}

/// When a proposal is looked at again, if no vote was added to so many.
struct Look {
    votes: usize,
    until: Instant,
    next: Duration,
}

/// Carries out what the ledger allows.
pub struct Executor<'a, H: ?Sized> {
    ledger: &'a Ledger,
    hsm: &'a H,
    seals: &'a Seals,
    now_s: fn() -> u64,
    /// Signatures that were intended before this line are of an earlier run.
    started_at: u64,
    pauses: BTreeMap<String, Pause>,
    looks: BTreeMap<StatementHash, Look>,
    /// Zones may lack a ZSK.
    look_for_zsks: bool,
    /// As many keys were in the ledger when the tokens were last told which to expect.
    keys_expected: usize,
}

impl<'a, H: Hsm + ?Sized> Executor<'a, H> {
    /// Works on `ledger` and `hsm`; `now_s` is the keeper's clock. The ledger had `started_at` lines
    /// when this process took it up.
    pub fn new(
        (ledger, started_at): (&'a Ledger, u64),
        hsm: &'a H,
        seals: &'a Seals,
        now_s: fn() -> u64,
    ) -> Self {
        Self {
            ledger,
            hsm,
            seals,
            now_s,
            started_at,
            pauses: BTreeMap::new(),
            looks: BTreeMap::new(),
            look_for_zsks: true,
            keys_expected: 0,
        }
    }

    /// Does what can be done now; brings what can't.
    pub fn round(&mut self) -> Vec<Unfinished> {
        if let Some(idle) = self.seals.idle(self.ledger) {
            // The way out, and nothing else.
            let mut seen = BTreeSet::new();
            if matches!(idle, Idle::Elsewhere(_)) {
                self.hold(&mut seen);
            }
            self.let_go();
            self.begin(&mut seen, &|motion| idle.takes(motion.kind()));
            return self.unfinished(&seen);
        }
        let mut maker = KeyMaker::new(self.ledger, self.hsm, self.seals, self.now_s);
        let mut done = BTreeSet::new();
        self.let_go();
        self.hold(&mut done);
        self.mark(&mut done);
        self.settle(&maker, &mut done);
        self.begin(&mut done, &|_| true);
        self.step(&mut maker, &mut done);
        self.lapse(&mut done);
        self.make_zsks(&mut maker, &mut done);
        self.expect();
        self.unfinished(&done)
    }

    /// What pauses, of what was wanted in this round.
    fn unfinished(&mut self, seen: &BTreeSet<String>) -> Vec<Unfinished> {
        self.pauses.retain(|what, _| seen.contains(what));
        let unfinished = |(what, pause): (&String, &Pause)| Unfinished {
            what: what.clone(),
            why: pause.why.clone(),
        };
        self.pauses.iter().map(unfinished).collect()
    }

    /// Tries something unless it pauses; whether it is done. `seen` collects what was wanted.
    fn attempt(
        &mut self,
        seen: &mut BTreeSet<String>,
        what: String,
        act: impl FnOnce() -> Result<(), Stuck>,
    ) -> bool {
        seen.insert(what.clone());
        if self.pauses.get(&what).is_some_and(|pause| pause.until > Instant::now()) {
            return false;
        }
        let stuck = match act() {
            Ok(()) => {
                self.pauses.remove(&what);
                return true;
            }
            Err(stuck) => stuck,
        };
        let (least, most) = match stuck {
            Stuck::Waits(_) => WAIT_PAUSE,
            Stuck::Failed(_) => FAIL_PAUSE,
        };
        let why = stuck.to_string();
        if self.pauses.get(&what).is_none_or(|pause| pause.why != why) {
            tracing::warn!("{what}: {why}");
        }
        let wait = self.pauses.get(&what).map_or(least, |pause| pause.next.min(most));
        let next = (wait * 2).min(most);
        self.pauses.insert(what, Pause { until: Instant::now() + wait, next, why });
        false
    }

    /// Closes tokens that are another box's by now, or that others were attached in place of: the next
    /// admission refuses them, and they prove and sign nothing meanwhile.
    fn let_go(&self) {
        let (elsewhere, mut tokens) = self.ledger.read(|state| {
            let elsewhere = self.seals.holding().elsewhere(state);
            let is_others = elsewhere.is_some_and(|elsewhere| !elsewhere.is_taking_over);
            let open = if is_others { marks::present(state, self.hsm) } else { BTreeSet::new() };
            (is_others, open)
        });
        tokens.extend(self.ledger.read(|state| marks::replaced(state, self.hsm)));
        let why = if elsewhere { "another box holds it" } else { "another took its place" };
        for token in tokens {
            self.hsm.reopen(&token, why);
        }
    }

    /// Claims the tokens where no box has, and puts this one's mark on those that it holds.
    fn hold(&mut self, seen: &mut BTreeSet<String>) {
        let (ledger, hsm, now_s) = (self.ledger, self.hsm, self.now_s);
        let seals = self.seals;
        let holding = seals.holding();
        if ledger.read(|state| state.holder().is_none()) {
            self.attempt(seen, "claiming the tokens for this box".to_owned(), || {
                holding.claim(ledger, now_s()).map_err(Stuck::Waits)
            });
        }
        for token in ledger.read(|state| holding.unmarked(state, hsm)) {
            self.attempt(seen, format!("marking token `{token}` as held by this box"), || {
                seals.mark(ledger, hsm, &token).map_err(Stuck::Waits)
            });
        }
    }

    /// Puts the founding's mark on tokens that the ledger has no mark of.
    fn mark(&mut self, seen: &mut BTreeSet<String>) {
        let (founding, tokens) =
            self.ledger.read(|state| (state.appliance(), marks::unmarked(state)));
        let Some(founding) = founding else { return };
        for token in tokens {
            let (ledger, hsm, now_s) = (self.ledger, self.hsm, self.now_s);
            self.attempt(seen, format!("marking token `{token}`"), || {
                if !ledger.read(|state| marks::present(state, hsm)).contains(&token) {
                    return Err(Stuck::Waits(
                        "it is not usable yet, or another one is open under its name: then restart \
                         the keeper with it in the configuration"
                            .to_owned(),
                    ));
                }
                marks::mark(hsm, &token, &founding).map_err(|e| Stuck::Waits(e.to_string()))?;
                ledger
                    .note(Note::token_marked(token), now_s())
                    .map(|_| ())
                    .map_err(|e| Stuck::Waits(e.to_string()))
            });
        }
    }

    /// Intents that an interruption left open, and keys whose tag collides.
    fn settle(&mut self, maker: &KeyMaker<'_, H>, seen: &mut BTreeSet<String>) {
        let started_at = self.started_at;
        let open: Vec<(u64, Operation)> = self.ledger.read(|state| {
            // A signature that is being made just now ends by itself.
            let is_live = |line: u64, op: &Operation| {
                let is_signature =
                    matches!(op, Operation::SignDnskey { .. } | Operation::SignCds { .. });
                is_signature && line >= started_at
            };
            let left = state.open_intents().filter(|(line, operation)| !is_live(*line, operation));
            left.map(|(line, operation)| (line, operation.clone())).collect()
        });
        for (line, operation) in open {
            let what = format!("settling the intent of line {line}");
            self.attempt(seen, what, || maker.settle(line, &operation));
        }
        let colliding: Vec<_> = self.ledger.read(|state| {
            let colliding = state.keys().iter().filter(|(_, key)| key.collides_with.is_some());
            colliding.map(|(id, key)| (*id, key.clone())).collect()
        });
        for (id, key) in colliding {
            let what = format!("destroying a {} of {} whose tag collides", key.role, key.zone);
            self.attempt(seen, what, || {
                maker.destroy(&key.zone, (&key.token, &key.label), Some(id), key.made_by)
            });
        }
    }

    /// Begins every motion that may begin now.
    fn begin(&mut self, seen: &mut BTreeSet<String>, wanted: &dyn Fn(&Motion) -> bool) {
        let open: BTreeMap<StatementHash, usize> = self.ledger.read(|state| {
            let open = state.proposals().filter(|(_, proposal)| {
                proposal.status == Status::Open && wanted(&proposal.statement.motion)
            });
            open.map(|(hash, proposal)| (*hash, proposal.votes.len())).collect()
        });
        self.looks.retain(|hash, _| open.contains_key(hash));
        for (hash, votes) in open.into_iter().filter(|(_, votes)| *votes >= APPROVALS_MIN) {
            let what = format!("beginning {}", hash.short());
            if !self.is_to_be_looked_at(&hash, votes) {
                if self.pauses.contains_key(&what) {
                    seen.insert(what);
                }
                continue;
            }
            let now_s = (self.now_s)();
            if self.ledger.read(|state| state.quorum(&hash, now_s).is_err()) {
                continue;
            }
            let (ledger, hsm, seals) = (self.ledger, self.hsm, self.seals);
            let begun = self.attempt(seen, what, || begin_one(ledger, hsm, seals, &hash, now_s));
            if begun {
                self.look_for_zsks = true;
                self.keys_expected = 0;
            }
        }
    }

    /// Whether a vote was added since the last look, or it is long enough ago.
    fn is_to_be_looked_at(&mut self, hash: &StatementHash, votes: usize) -> bool {
        let now = Instant::now();
        let last = self.looks.get(hash).filter(|look| look.votes == votes);
        if last.is_some_and(|look| look.until > now) {
            return false;
        }
        let wait = last.map_or(WAIT_PAUSE.0, |look| look.next);
        let next = (wait * 2).min(LOOK_PAUSE_MAX);
        self.looks.insert(*hash, Look { votes, until: now + wait, next });
        true
    }

    /// The steps that motions still want of an HSM.
    fn step(&mut self, maker: &mut KeyMaker<'_, H>, seen: &mut BTreeSet<String>) {
        let now_s = (self.now_s)();
        let steps: Vec<(u64, Step)> = self.ledger.read(|state| {
            let running = state.unfinished().filter(|(_, s, _)| now_s <= s.finish_by);
            running
                .flat_map(|(begun, _, steps)| {
                    steps.into_iter().map(move |step| (begun, step)).collect::<Vec<_>>()
                })
                .collect()
        });
        for (begun, step) in steps {
            let what = format!("{} (line {begun})", described(&step));
            let done = self.attempt(seen, what, || match &step {
                Step::Generate { zone, role } => maker.make(zone, *role, begun),
                Step::Adopt { zone, role, token, key } => {
                    maker.adopt(zone, *role, (token, key), begun)
                }
                Step::Destroy { zone, token, label, key } => {
                    maker.destroy(zone, (token, label), Some(*key), begun)
                }
            });
            if done {
                self.keys_expected = 0;
                self.look_for_zsks = true;
            }
        }
    }

    /// Gives up what was begun and is not done by its finish-by. A clock that is not believed ends
    /// nothing.
    fn lapse(&mut self, seen: &mut BTreeSet<String>) {
        let now_s = (self.now_s)();
        let over: Vec<(u64, String)> = self.ledger.read(|state| {
            if state.clock(now_s).is_err() {
                return Vec::new();
            }
            let over = state.unfinished().filter(|(_, statement, _)| now_s > statement.finish_by);
            over.map(|(begun, _, steps)| {
                let left: Vec<String> = steps.iter().map(described).collect();
                (begun, format!("its finish-by is past; not done: {}", left.join("; ")))
            })
            .collect()
        });
        for (begun, reason) in over {
            let (ledger, now_s) = (self.ledger, self.now_s);
            self.attempt(seen, format!("giving up what began at line {begun}"), || {
                let lapsed = Note::lapsed(begun, reason);
                ledger.note(lapsed, now_s()).map(|_| ()).map_err(|e| Stuck::Waits(e.to_string()))
            });
        }
    }

    /// ZSKs of zones whose policy wants one: no quorum, within the ledger's bounds.
    fn make_zsks(&mut self, maker: &mut KeyMaker<'_, H>, seen: &mut BTreeSet<String>) {
        let waiting = self.pauses.keys().any(|what| what.starts_with(MAKING_ZSK));
        if !self.look_for_zsks && !waiting {
            return;
        }
        let mut wanting = self.ledger.read(zones_without_zsk);
        let more = wanting.len() > ZSKS_PER_ROUND;
        let now = Instant::now();
        let is_due = |pauses: &BTreeMap<String, Pause>, zone: &ZoneName| {
            pauses.get(&making_zsk(zone)).is_none_or(|pause| pause.until <= now)
        };
        for (zone, _) in &wanting {
            if !is_due(&self.pauses, zone) {
                seen.insert(making_zsk(zone));
            }
        }
        wanting.retain(|(zone, _)| is_due(&self.pauses, zone));
        for (zone, line) in wanting.into_iter().take(ZSKS_PER_ROUND) {
            self.attempt(seen, making_zsk(&zone), || maker.make(&zone, KeyRole::Zsk, line));
        }
        self.look_for_zsks = more;
    }

    /// Has the tokens expect keys that were recorded since, by this thread or by whichever next wrote
    /// to the ledger once it could be written again, and tells them what is now public.
    fn expect(&mut self) {
        let (count, keys) = self.ledger.read(|state| {
            let count = state.keys().len();
            if count == self.keys_expected {
                return (count, Vec::new());
            }
            let unknown =
                |id: &KeyId| self.hsm.key_status(id).is_none() || self.hsm.public_key(id).is_none();
            let all = state.keys().iter().filter(|(_, key)| key.collides_with.is_none());
            let new: Vec<ExpectedKey> =
                all.filter(|(id, _)| unknown(id)).map(|(id, key)| expected_key(id, key)).collect();
            (count, new)
        });
        if !keys.is_empty() {
            self.hsm.expect_keys(keys);
            // A KSK among them, found again after a crash, wants its ZSK.
            self.look_for_zsks = true;
        }
        self.keys_expected = count;
    }
}

/// Begins one motion, if its quorum still holds.
fn begin_one<H: Hsm + ?Sized>(
    ledger: &Ledger,
    hsm: &H,
    seals: &Seals,
    hash: &StatementHash,
    now_s: u64,
) -> Result<(), Stuck> {
    let quorum = ledger.read(|state| {
        let quorum = state.quorum(hash, now_s).ok()?;
        Some((quorum, state.proposal(hash)?.statement.motion.clone()))
    });
    // Withdrawn, frozen or begun meanwhile.
    let Some((quorum, motion)) = quorum else { return Ok(()) };
    // A token that was opened since the round began may have said so.
    if let Some(idle) = seals.idle(ledger).filter(|idle| !idle.takes(motion.kind())) {
        return Err(Stuck::Waits(idle.why().to_owned()));
    }
    // The kept checkpoint is of the origin, or by the key, before.
    let is_sealed_anew =
        matches!(motion, Motion::NewOrigin { .. } | Motion::ReplaceAuditKey { .. });
    if let Motion::NewOrigin { lost, officers, rules } = &motion {
        seals.check_given_up(lost, *officers, *rules).map_err(Stuck::Waits)?;
    }
    let hidden = ledger.read(|state| state.reveals(&motion));
    let reveals = hidden.iter().map(|key| reveal(hsm, key)).collect::<Result<Vec<_>, _>>();
    match ledger.begin(quorum, reveals.map_err(Stuck::Waits)?, now_s) {
        Ok(line) => tracing::info!(statement = %hash.short(), line, "an approved motion begins"),
        Err(WriteError::Contradiction(error)) => {
            tracing::debug!(%error, "a motion did not begin");
        }
        Err(error) => return Err(Stuck::Waits(error.to_string())),
    }
    if is_sealed_anew && let Err(problem) = seals.checkpoint(ledger, hsm) {
        tracing::error!(problem, "the first checkpoint of the new origin or key is not kept yet");
    }
    Ok(())
}

/// The public half of a key that is about to be published: from a token that has proven it.
fn reveal<H: Hsm + ?Sized>(hsm: &H, key: &KeyId) -> Result<PublicKey, String> {
    let status = hsm.key_status(key);
    if let Some(why) = status.as_ref().and_then(|status| status.conflict.as_ref()) {
        return Err(format!("key {key}: {why}"));
    }
    if status.is_none_or(|status| status.proven_by.is_empty()) {
        return Err(format!("no token has proven key {key} yet; see the tokens' health"));
    }
    let public = hsm.public_key(key).filter(|public| public.id() == *key);
    public.ok_or_else(|| format!("no token shows the public half of key {key}"))
}

const MAKING_ZSK: &str = "making the ZSK of ";

fn making_zsk(zone: &ZoneName) -> String {
    format!("{MAKING_ZSK}{zone}")
}

/// Zones whose policy has a ZSK and that have a KSK but no ZSK, with the line under which one is made.
/// Before there is a KSK nothing can be published, and a zone that moves here has time to bring its
/// own ZSK: adopted before its KSK, it is the only one, and the DNSKEY RRset stays as caches know it.
fn zones_without_zsk(state: &LedgerState) -> Vec<(ZoneName, u64)> {
    let lacks = |zone: &ZoneName| {
        let wants = |roles: &[KeyRole]| roles.contains(&KeyRole::Zsk);
        let has = |role| state.dnskeys_of(zone).any(|(_, key)| key.role == role);
        state.policy_of(zone).is_some_and(|policy| wants(policy.roles()))
            && has(KeyRole::Ksk)
            && !has(KeyRole::Zsk)
    };
    let zones = state.zones().iter().filter(|(zone, _)| lacks(zone));
    zones.map(|(zone, binding)| (zone.clone(), binding.line)).collect()
}

/// A step for people.
fn described(step: &Step) -> String {
    match step {
        Step::Generate { zone, role } => format!("making the {role} of {zone}"),
        Step::Adopt { zone, role, token, key } => {
            format!("adopting key {key} on token `{token}` as the {role} of {zone}")
        }
        Step::Destroy { zone, token, key, .. } => {
            format!("destroying key {key} of {zone} on token `{token}`")
        }
    }
}

#[cfg(test)]
mod tests;
