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
use countersign_policy::state::{Status, Step};
use countersign_policy::statement::StatementHash;
use countersign_policy::{KeyId, KeyRole, PublicKey, ZoneName};

use super::door::Hsm;
use super::keys::{KeyMaker, Stuck, expected_key};
use super::marks;
use super::seal::Seals;
use crate::ledger::{Ledger, Note, WriteError};
use crate::pkcs11::ExpectedKey;

/// Pauses before another try, doubled from one to the other: of what waits for something, and of what
/// was tried and failed, which costs the ledger two lines each time.
const WAIT_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));
const FAIL_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(300));
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

/// Carries out what the ledger allows.
pub struct Executor<'a, H: ?Sized> {
    ledger: &'a Ledger,
    hsm: &'a H,
    seals: &'a Seals,
    now_s: fn() -> u64,
    pauses: BTreeMap<String, Pause>,
    /// Zones may lack a ZSK.
    look_for_zsks: bool,
    /// As many keys were in the ledger when the tokens were last told which to expect.
    keys_expected: usize,
}

impl<'a, H: Hsm + ?Sized> Executor<'a, H> {
    /// Works on `ledger` and `hsm`; `now_s` is the keeper's clock.
    pub fn new(ledger: &'a Ledger, hsm: &'a H, seals: &'a Seals, now_s: fn() -> u64) -> Self {
        let pauses = BTreeMap::new();
        Self { ledger, hsm, seals, now_s, pauses, look_for_zsks: true, keys_expected: 0 }
    }

    /// Does what can be done now; brings what can't.
    pub fn round(&mut self) -> Vec<Unfinished> {
        if self.seals.behind(self.ledger).is_some() {
            // One way out, and nothing else.
            self.begin(&|motion| matches!(motion, Motion::NewOrigin { .. }));
            return Vec::new();
        }
        let mut maker = KeyMaker::new(self.ledger, self.hsm, self.seals, self.now_s);
        let mut done = BTreeSet::new();
        self.mark(&mut done);
        self.settle(&maker, &mut done);
        self.begin(&|_| true);
        self.step(&mut maker, &mut done);
        self.lapse(&mut done);
        self.make_zsks(&mut maker, &mut done);
        self.expect();
        self.pauses.retain(|what, _| done.contains(what));
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
                    .note(Note::TokenMarked { token }, now_s())
                    .map(|_| ())
                    .map_err(|e| Stuck::Waits(e.to_string()))
            });
        }
    }

    /// Intents that an interruption left open, and keys whose tag collides.
    fn settle(&mut self, maker: &KeyMaker<'_, H>, seen: &mut BTreeSet<String>) {
        let open: Vec<(u64, Operation)> = self.ledger.read(|state| {
            let is_signature = |op: &Operation| {
                matches!(op, Operation::SignDnskey { .. } | Operation::SignCds { .. })
            };
            let mine = state.open_intents().filter(|(_, operation)| !is_signature(operation));
            mine.map(|(line, operation)| (line, operation.clone())).collect()
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
    fn begin(&mut self, wanted: &dyn Fn(&Motion) -> bool) {
        let now_s = (self.now_s)();
        let open: Vec<StatementHash> = self.ledger.read(|state| {
            let open = state.proposals().filter(|(_, proposal)| {
                proposal.status == Status::Open && wanted(&proposal.statement.motion)
            });
            open.filter(|(hash, _)| state.quorum(hash, now_s).is_ok())
                .map(|(hash, _)| *hash)
                .collect()
        });
        for hash in open {
            match self.begin_one(&hash) {
                Ok(Some(line)) => {
                    tracing::info!(statement = %hash.short(), line, "an approved motion begins");
                    self.look_for_zsks = true;
                    self.keys_expected = 0;
                }
                // Withdrawn, frozen or begun meanwhile.
                Ok(None) => {}
                Err(why) => {
                    tracing::warn!(statement = %hash.short(), why, "an approved motion waits");
                }
            }
        }
    }

    /// Begins one motion, if its quorum still holds.
    fn begin_one(&self, hash: &StatementHash) -> Result<Option<u64>, String> {
        let now_s = (self.now_s)();
        let quorum = self.ledger.read(|state| {
            let quorum = state.quorum(hash, now_s).ok()?;
            Some((quorum, state.proposal(hash)?.statement.motion.clone()))
        });
        let Some((quorum, motion)) = quorum else { return Ok(None) };
        if let Motion::NewOrigin { lost, .. } = &motion
            && self.seals.lost() != Some(*lost)
        {
            return Err(format!(
                "it gives up `{lost}`, and what is known to be lost is {}",
                self.seals.lost().map_or("nothing".to_owned(), |head| format!("`{head}`"))
            ));
        }
        let hidden = self.ledger.read(|state| state.reveals(&motion));
        let reveals = hidden.iter().map(|key| self.reveal(key)).collect::<Result<Vec<_>, _>>()?;
        match self.ledger.begin(quorum, reveals, now_s) {
            Ok(line) => {
                if matches!(motion, Motion::NewOrigin { .. })
                    && let Err(problem) = self.seals.checkpoint(self.ledger, self.hsm)
                {
                    tracing::error!(problem, "the new origin's checkpoint is not kept yet");
                }
                Ok(Some(line))
            }
            Err(WriteError::Contradiction(error)) => {
                tracing::debug!(%error, "a motion did not begin");
                Ok(None)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// The public half of a key that is about to be published: from a token that has proven it.
    fn reveal(&self, key: &KeyId) -> Result<PublicKey, String> {
        let status = self.hsm.key_status(key);
        if let Some(why) = status.as_ref().and_then(|status| status.conflict.as_ref()) {
            return Err(format!("key {key}: {why}"));
        }
        if status.is_none_or(|status| status.proven_by.is_empty()) {
            return Err(format!("no token has proven key {key} yet; see the tokens' health"));
        }
        let public = self.hsm.public_key(key).filter(|public| public.id() == *key);
        public.ok_or_else(|| format!("no token shows the public half of key {key}"))
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
                let lapsed = Note::Lapsed { begun, reason };
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
        }
        self.keys_expected = count;
    }
}

const MAKING_ZSK: &str = "making the ZSK of ";

fn making_zsk(zone: &ZoneName) -> String {
    format!("{MAKING_ZSK}{zone}")
}

/// Zones whose policy has a ZSK and that have none, with the line under which one is made.
fn zones_without_zsk(state: &LedgerState) -> Vec<(ZoneName, u64)> {
    let lacks = |zone: &ZoneName| {
        let wants = |roles: &[KeyRole]| roles.contains(&KeyRole::Zsk);
        state.policy_of(zone).is_some_and(|policy| wants(policy.roles()))
            && !state.dnskeys_of(zone).any(|(_, key)| key.role == KeyRole::Zsk)
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
