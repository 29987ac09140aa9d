//! Messages to be signed with one key, shared by the workers of every token that has proven it.
//! Workers take one message at a time, so tokens divide the work by their speed; what a token fails
//! at, or hangs on, goes back and another takes it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_policy::{KeyId, PublicKey};

use super::error::HsmError;

/// One answer.
pub(super) type Signature = Result<Vec<u8>, HsmError>;

/// A batch. Every method may be called from any thread.
pub(super) struct Batch {
    pub(super) key: KeyId,
    pub(super) public: PublicKey,
    /// Verify each signature before it counts.
    pub(super) verify: bool,
    pub(super) messages: Vec<Vec<u8>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    todo: VecDeque<usize>,
    /// (message, token) of what is being signed just now.
    flight: Vec<(usize, usize)>,
    results: Vec<Option<Signature>>,
    left: usize,
    /// Invitations out, by token.
    tickets: BTreeMap<usize, usize>,
    /// Tokens that failed at a message, with the generation that they were in: they get no more
    /// of this batch until they were opened anew.
    barred: BTreeMap<usize, u64>,
    last_error: Option<HsmError>,
    closed: bool,
}

/// An invitation of one worker of one token to a batch.
pub(super) struct Ticket {
    pub(super) batch: Arc<Batch>,
    token: usize,
}

/// What the requester finds when something changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Every message has its answer.
    Done,
    /// There is work and nobody invited to it.
    Stranded { todo: usize },
    /// Work goes on.
    Working,
}

impl Batch {
    pub(super) fn new(
        key: KeyId,
        public: PublicKey,
        verify: bool,
        messages: Vec<Vec<u8>>,
    ) -> Arc<Self> {
        let count = messages.len();
        let state = State {
            todo: (0..count).collect(),
            results: vec![None; count],
            left: count,
            ..State::default()
        };
        let state = Mutex::new(state);
        Arc::new(Self { key, public, verify, messages, state, changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more invitation for `token`.
    pub(super) fn ticket(self: &Arc<Self>, token: usize) -> Ticket {
        *self.lock().tickets.entry(token).or_default() += 1;
        Ticket { batch: Arc::clone(self), token }
    }

    /// The next message for `token`, if there is one that it may have.
    pub(super) fn take(&self, token: usize, generation: u64) -> Option<usize> {
        let mut state = self.lock();
        if state.closed || state.is_barred(token, generation) {
            return None;
        }
        let message = state.todo.pop_front()?;
        state.flight.push((message, token));
        Some(message)
    }

    /// `token` signed `message`. The first answer counts: a token that was given up as hung may
    /// come back after another did its work.
    pub(super) fn signed(&self, message: usize, token: usize, signature: Vec<u8>) {
        let mut state = self.lock();
        let flight = state.flight.iter().position(|flight| *flight == (message, token));
        if let Some(at) = flight {
            state.flight.swap_remove(at);
        }
        if state.results[message].is_none() {
            if flight.is_none() {
                // It was given back meanwhile: nobody need take it now.
                state.todo.retain(|m| *m != message);
            }
            state.results[message] = Some(Ok(signature));
            state.left -= 1;
        }
        if state.left == 0 {
            self.changed.notify_all();
        }
    }

    /// `token` failed at `message`: it goes back, and to another.
    pub(super) fn failed(&self, message: usize, token: usize, generation: u64, error: HsmError) {
        let mut state = self.lock();
        state.barred.insert(token, generation);
        state.give_back(token, Some(message));
        state.last_error = Some(error);
        self.changed.notify_all();
    }

    /// `token` is given up: all that it holds goes back.
    pub(super) fn abandon(&self, token: usize, generation: u64, error: HsmError) {
        let mut state = self.lock();
        state.barred.insert(token, generation);
        state.give_back(token, None);
        state.tickets.remove(&token);
        state.last_error = Some(error);
        self.changed.notify_all();
    }

    /// Whether `token` in `generation` has failed at this batch.
    pub(super) fn is_barred(&self, token: usize, generation: u64) -> bool {
        self.lock().is_barred(token, generation)
    }

    /// Why the last failure was.
    pub(super) fn last_error(&self) -> Option<HsmError> {
        self.lock().last_error.clone()
    }

    /// Gives every message without an answer this one, and lets nobody take more.
    pub(super) fn close(&self, error: &HsmError) {
        let mut state = self.lock();
        state.closed = true;
        state.todo.clear();
        state.left = 0;
        for result in &mut state.results {
            result.get_or_insert_with(|| Err(error.clone()));
        }
        self.changed.notify_all();
    }

    /// Waits until something changed, at most so long, and says how it stands.
    pub(super) fn wait(&self, at_most: Duration) -> Progress {
        let mut state = self.lock();
        if state.progress() == Progress::Working {
            state =
                self.changed.wait_timeout(state, at_most).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.progress()
    }

    /// The answers; a message without one gets `missing`.
    pub(super) fn results(&self, missing: &HsmError) -> Vec<Signature> {
        let mut state = self.lock();
        state.closed = true;
        let results = std::mem::take(&mut state.results);
        // A late worker still finds a place to put what nobody waits for.
        state.results = vec![Some(Err(missing.clone())); results.len()];
        results.into_iter().map(|r| r.unwrap_or_else(|| Err(missing.clone()))).collect()
    }
}

impl State {
    fn is_barred(&self, token: usize, generation: u64) -> bool {
        self.barred.get(&token) == Some(&generation)
    }

    fn give_back(&mut self, token: usize, only: Option<usize>) {
        let (back, stay) = std::mem::take(&mut self.flight).into_iter().partition::<Vec<_>, _>(
            |(message, holder)| *holder == token && only.is_none_or(|only| only == *message),
        );
        self.flight = stay;
        if !self.closed {
            let results = &self.results;
            self.todo.extend(back.into_iter().map(|(m, _)| m).filter(|m| results[*m].is_none()));
        }
    }

    fn progress(&self) -> Progress {
        if self.left == 0 {
            Progress::Done
        } else if !self.todo.is_empty() && self.tickets.is_empty() {
            Progress::Stranded { todo: self.todo.len() }
        } else {
            Progress::Working
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.batch.lock();
        if let Some(count) = state.tickets.get_mut(&self.token) {
            *count -= 1;
            if *count == 0 {
                state.tickets.remove(&self.token);
            }
        }
        self.batch.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use countersign_policy::Algorithm;

    use super::*;

    fn batch(count: usize) -> Arc<Batch> {
        let public = PublicKey::new(Algorithm::Ed25519, &[1; 32]).expect("key");
        Batch::new(public.id(), public, false, vec![vec![0]; count])
    }

    fn error() -> HsmError {
        HsmError::Unavailable("gone".to_owned())
    }

    #[test]
    fn what_one_token_fails_at_another_signs() {
        let batch = batch(2);
        let first = batch.ticket(0);
        let message = batch.take(0, 1).expect("work");
        batch.failed(message, 0, 1, error());
        assert_eq!(batch.take(0, 1), None, "a token that failed gets no more of it");
        drop(first);
        assert_eq!(batch.wait(Duration::ZERO), Progress::Stranded { todo: 2 });
        let second = batch.ticket(1);
        while let Some(message) = batch.take(1, 1) {
            batch.signed(message, 1, vec![7]);
        }
        drop(second);
        assert_eq!(batch.wait(Duration::ZERO), Progress::Done);
        assert_eq!(batch.results(&error()), [Ok(vec![7]), Ok(vec![7])]);
    }

    #[test]
    fn a_hung_token_that_comes_back_changes_nothing() {
        let batch = batch(1);
        let hung = batch.ticket(0);
        let message = batch.take(0, 1).expect("work");
        batch.abandon(0, 1, error());
        assert_eq!(batch.wait(Duration::ZERO), Progress::Stranded { todo: 1 });
        let message_again = batch.take(1, 1).expect("given back");
        batch.signed(message_again, 1, vec![1]);
        batch.signed(message, 0, vec![2]);
        drop(hung);
        assert_eq!(batch.results(&error()), [Ok(vec![1])]);
        batch.failed(message, 0, 1, error());
    }

    #[test]
    fn a_token_opened_anew_may_have_another_go() {
        let batch = batch(1);
        let message = batch.take(0, 1).expect("work");
        batch.failed(message, 0, 1, error());
        assert_eq!(batch.take(0, 1), None);
        assert_eq!(batch.take(0, 2), Some(0));
    }
}
