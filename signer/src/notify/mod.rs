//! NOTIFY (RFC 1996), both ways: hints from primaries, and word to secondaries.
//!
//! In clear a NOTIFY without TSIG is a hint that anyone on the path can forge. All it does is to make us
//! ask the primary sooner, at a bounded rate; so one from an address that a peer lists is taken even if
//! the peer has a key. What goes to a peer with a key is signed, and so must its answer be.

mod post;
mod receive;
mod send;

#[cfg(test)]
mod tests;

pub use receive::{Inbox, Notified, RATE_INTERVAL, forward};
pub use send::{Notifier, NotifyError, SendLimits, Target, acknowledges, announcement};
