//! A token's queue: invitations to batches, bounded.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::batch::Ticket;

/// Invitations that wait for a worker.
pub(super) struct Queue {
    max: usize,
    waiting: Mutex<VecDeque<Ticket>>,
    arrived: Condvar,
}

impl Queue {
    /// An empty one with room for `max`.
    pub(super) fn new(max: usize) -> Self {
        Self { max, waiting: Mutex::new(VecDeque::new()), arrived: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Ticket>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there was room for it; else the ticket is torn up.
    pub(super) fn push(&self, ticket: Ticket) -> bool {
        let mut waiting = self.lock();
        if waiting.len() >= self.max {
            drop(waiting);
            return false;
        }
        waiting.push_back(ticket);
        drop(waiting);
        self.arrived.notify_one();
        true
    }

    /// The next ticket; `None` once `goes_on` says no.
    pub(super) fn pop(&self, goes_on: impl Fn() -> bool) -> Option<Ticket> {
        let mut waiting = self.lock();
        loop {
            if !goes_on() {
                return None;
            }
            if let Some(ticket) = waiting.pop_front() {
                return Some(ticket);
            }
            // Bounded, so that a worker whose generation ended between its look and its wait is
            // not left behind.
            waiting = self
                .arrived
                .wait_timeout(waiting, Duration::from_millis(500))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Tears up all tickets and wakes all workers.
    pub(super) fn drain(&self) {
        let torn: Vec<Ticket> = self.lock().drain(..).collect();
        drop(torn);
        self.arrived.notify_all();
    }
}
