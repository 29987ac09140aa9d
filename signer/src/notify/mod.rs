//! NOTIFY (RFC 1996), both ways: hints from primaries, and word to secondaries.
//!
//! In clear a NOTIFY is a hint that anyone on the path can forge. All it does is to make us ask
//! the primary over TLS sooner, at a bounded rate.

mod receive;
mod send;

#[cfg(test)]
mod tests;

pub use receive::{Inbox, Notified, RATE_INTERVAL, forward};
pub use send::{Notifier, NotifyError, SendLimits, Target, acknowledges, announcement};
