//! What all threads share: the tokens, the keys, who waits for news; and what befalls a token, which
//! moves it on in its life ([`super::token`]) and tells everyone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::error::HsmError;
use super::pin::FileStamp;
use super::registry::Registry;
use super::token::{FORGIVEN_AFTER, Life, Phase, Token, back_off};
use super::{Admission, Event};

/// What all threads share.
pub(super) struct Shared {
    pub(super) tokens: Vec<Arc<Token>>,
    keys: Mutex<Registry>,
    events: Sender<Event>,
    changes: Mutex<u64>,
    changed: Condvar,
    stopping: AtomicBool,
    /// Whether a token may be used, by its data objects.
    pub(super) admission: Option<Admission>,
}

impl Shared {
    pub(super) fn new(
        tokens: Vec<Arc<Token>>,
        events: Sender<Event>,
        admission: Option<Admission>,
    ) -> Self {
        Self {
            admission,
            tokens,
            keys: Mutex::new(Registry::default()),
            events,
            changes: Mutex::new(0),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
        }
    }

    pub(super) fn keys(&self) -> MutexGuard<'_, Registry> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn token_named(&self, name: &str) -> Result<&Arc<Token>, HsmError> {
        self.tokens
            .iter()
            .find(|token| token.spec.name == name)
            .ok_or_else(|| HsmError::UnknownToken(name.to_owned()))
    }

    pub(super) fn name(&self, token: usize) -> String {
        self.tokens[token].spec.name.clone()
    }

    pub(super) fn group<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a Arc<Token>> {
        self.tokens.iter().filter(move |token| token.spec.group == group)
    }

    /// Sends an event; a receiver that is gone is a process that ends.
    pub(super) fn send(&self, event: Event) {
        match &event {
            Event::Conflict { key, token, found } => {
                error!(%key, token, found, "a token answers for a key with another one: refused everywhere");
            }
            Event::Cleared { key } => info!(%key, "every token that claims the key is right again"),
            Event::GroupLost { group, token, call } => {
                error!(group, token, call, "a token hung and its group has none left");
            }
        }
        // A closed channel means that the keeper is ending; there is nobody left to tell.
        drop(self.events.send(event));
    }

    /// Wakes everyone who waits for some token to change.
    pub(super) fn announce(&self) {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Waits until some token changed after `seen`, at most so long; returns the count of changes.
    pub(super) fn wait_change(&self, seen: u64, at_most: Duration) -> u64 {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let (changes, _) = self
            .changed
            .wait_timeout_while(changes, at_most, |changes| *changes == seen)
            .unwrap_or_else(PoisonError::into_inner);
        *changes
    }

    pub(super) fn changes(&self) -> u64 {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Lets every thread end as soon as its module lets go of it.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        for token in &self.tokens {
            token.life().root = None;
            token.queue.drain();
        }
        self.announce();
    }

    /// The token is open and its keys are proven.
    pub(super) fn usable(&self, token: &Token, generation: u64) {
        let mut life = token.life();
        if !token.is_at(generation) {
            return;
        }
        life.phase = Phase::Usable { since: Instant::now() };
        life.unserved = 0;
        life.failure = None;
        life.settled = true;
        drop(life);
        info!(token = token.spec.name, "token is usable");
        self.clear_conflicts();
        self.announce();
    }

    /// Announces keys whose conflict is over.
    pub(super) fn clear_conflicts(&self) {
        let all_open = |group: &str| self.group(group).all(|token| token.is_usable());
        let open: Vec<(String, bool)> =
            self.tokens.iter().map(|t| (t.spec.group.clone(), all_open(&t.spec.group))).collect();
        let cleared =
            self.keys().clear(|group| open.iter().any(|(name, open)| name == group && *open));
        for event in cleared {
            self.send(event);
        }
    }

    /// The token lost its sessions, its login or its device, or could not be opened: it is opened
    /// anew after a while. What a thread of an earlier generation says is ignored.
    pub(super) fn lost(&self, token: &Token, generation: u64, reason: &str) {
        self.leave(token, generation, reason, true);
    }

    /// The token is closed for a moment, through no fault of its own.
    pub(super) fn pause(&self, token: &Token, reason: &str) {
        self.leave(token, token.generation(), reason, false);
    }

    fn leave(&self, token: &Token, generation: u64, reason: &str, its_fault: bool) {
        let mut life = token.life();
        if !token.is_at(generation) {
            return;
        }
        let was_usable = match &life.phase {
            Phase::Usable { since } => {
                if since.elapsed() > FORGIVEN_AFTER {
                    life.failures = 0;
                }
                true
            }
            _ => false,
        };
        let delay = back_off(life.failures);
        life.failures = life.failures.saturating_add(u32::from(its_fault));
        life.unserved = life.unserved.saturating_add(u32::from(its_fault));
        life.phase = Phase::Waiting { until: Instant::now() + delay, last: false };
        // A token that was just lost is being looked for; one that could not be opened is not there.
        life.failure = (its_fault && !was_usable).then(|| reason.to_owned());
        self.close(token, life);
        warn!(token = token.spec.name, reason, retry_ms = delay.as_millis(), "token lost");
        self.group_lost(&token.spec.group);
    }

    /// Its PIN may not be tried until its file changes.
    pub(super) fn pin_refused(
        &self,
        token: &Token,
        generation: u64,
        stamp: Option<FileStamp>,
        reason: &str,
    ) {
        let mut life = token.life();
        if !token.is_at(generation) {
            return;
        }
        life.phase = Phase::PinRefused { stamp };
        life.failure = Some(reason.to_owned());
        self.close(token, life);
        error!(token = token.spec.name, reason, "token refused login");
        self.group_lost(&token.spec.group);
    }

    /// A call into the token's module exceeds its deadline. Its work moves on, and its threads are
    /// left to the module.
    pub(super) fn hung(&self, token: &Token, call: &'static str) {
        let mut life = token.life();
        if matches!(life.phase, Phase::Hung { .. }) {
            return;
        }
        let generation = token.generation();
        life.phase = Phase::Hung { call };
        let reason = format!("hung in {call}, which did not come back within its deadline");
        life.failure = Some(reason.clone());
        life.failures = life.failures.saturating_add(1);
        self.close(token, life);
        let detail = reason.clone();
        let name = token.spec.name.clone();
        for slot in token.calls().iter() {
            if let Some(batch) = slot.set_batch(None) {
                let error = HsmError::Token { token: name.clone(), detail: detail.clone() };
                batch.abandon(token.index, generation, error);
            }
        }
        error!(token = token.spec.name, call, "token hung; its work moves to others");
        // Before anyone may act on the event: the next start has to know.
        if let Err(e) = token.hung_marker.add(call) {
            error!(token = token.spec.name, error = %e, "can't mark the token as hung");
        }
        self.group_lost(&token.spec.group);
    }

    /// Ends the generation: nobody is invited, nothing is proven, threads end when they can.
    fn close(&self, token: &Token, life: MutexGuard<'_, Life>) {
        token.end_generation(life);
        self.keys().token_lost(token.index);
        self.announce();
    }

    /// All hung calls came back: the token may be tried again.
    pub(super) fn came_back(&self, token: &Token) {
        let mut life = token.life();
        let delay = back_off(life.failures.saturating_add(3));
        life.phase = Phase::Waiting { until: Instant::now() + delay, last: false };
        drop(life);
        warn!(token = token.spec.name, "its hung calls came back; it is opened again");
        self.announce();
    }

    /// Tells when a hang has left a group without a token.
    fn group_lost(&self, group: &str) {
        let mut hung = None;
        for token in self.group(group) {
            let life = token.life();
            match life.phase {
                Phase::Hung { call } => hung = hung.or(Some((token.spec.name.clone(), call))),
                Phase::Usable { .. } => return,
                // On its way, and not known to fail.
                Phase::Opening | Phase::Waiting { .. } if life.failure.is_none() => return,
                _ => {}
            }
        }
        if let Some((token, call)) = hung {
            let group = group.to_owned();
            self.send(Event::GroupLost { group, token, call: call.to_owned() });
        }
    }
}
