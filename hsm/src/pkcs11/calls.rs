//! The watch kept over every call into a module: which thread is in which call, since when, and whose
//! work it has in hand.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::error::HsmError;
use super::shared::Shared;
use super::token::Token;

/// What one thread is doing in the module just now.
pub(super) struct CallSlot {
    now: Mutex<Option<InCall>>,
    batch: Mutex<Option<Arc<Batch>>>,
}

#[derive(Clone, Copy)]
struct InCall {
    call: &'static str,
    since: Instant,
    limit: Duration,
}

impl CallSlot {
    /// The call that exceeds its deadline, if one does.
    pub(super) fn overdue(&self, now: Instant) -> Option<&'static str> {
        let in_call = (*self.now.lock().unwrap_or_else(PoisonError::into_inner))?;
        (now.saturating_duration_since(in_call.since) > in_call.limit).then_some(in_call.call)
    }

    /// Which batch the thread works at from now on; which it was.
    pub(super) fn set_batch(&self, batch: Option<Arc<Batch>>) -> Option<Arc<Batch>> {
        std::mem::replace(&mut *self.batch.lock().unwrap_or_else(PoisonError::into_inner), batch)
    }
}

/// A thread that calls into a module: every call goes through [`Entered::call`].
pub(super) struct Entered {
    pub(super) shared: Arc<Shared>,
    pub(super) token: Arc<Token>,
    pub(super) generation: u64,
    slot: Arc<CallSlot>,
}

impl Entered {
    /// Enters the calling thread, of `generation`, in the token's books.
    pub(super) fn new(token: &Arc<Token>, shared: &Arc<Shared>, generation: u64) -> Self {
        let slot = Arc::new(CallSlot { now: Mutex::new(None), batch: Mutex::new(None) });
        token.calls().push(Arc::clone(&slot));
        Self { shared: Arc::clone(shared), token: Arc::clone(token), generation, slot }
    }

    /// Runs a call under a deadline, which the watch keeps.
    pub(super) fn call<T>(
        &self,
        call: &'static str,
        limit: Duration,
        run: impl FnOnce() -> T,
    ) -> T {
        let now = || self.slot.now.lock().unwrap_or_else(PoisonError::into_inner);
        *now() = Some(InCall { call, since: Instant::now(), limit });
        let result = run();
        *now() = None;
        result
    }

    /// Says which batch this thread works at, so that a hang gives its work back.
    pub(super) fn works_at(&self, batch: Option<&Arc<Batch>>) {
        self.slot.set_batch(batch.cloned());
    }

    /// Whether this thread is to go on.
    pub(super) fn goes_on(&self) -> bool {
        self.token.is_at(self.generation) && !self.shared.is_stopping()
    }
}

impl super::index::Timed for Entered {
    fn listing<T>(&self, name: &'static str, run: impl FnOnce() -> T) -> T {
        self.call(name, self.token.listing_deadline(), run)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.token.calls().retain(|slot| !Arc::ptr_eq(slot, &self.slot));
        if std::thread::panicking() {
            let reason = "a keeper thread of it panicked";
            self.shared.lost(&self.token, self.generation, reason);
            if let Some(batch) = self.slot.set_batch(None) {
                let error = HsmError::Unavailable(reason.to_owned());
                batch.abandon(self.token.index, self.generation, error);
            }
        }
        self.shared.announce();
    }
}
