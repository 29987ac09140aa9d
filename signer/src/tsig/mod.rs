//! TSIG (RFC 8945): messages signed with a secret that two ends share.
//!
//! Pure: octets in, octets or a verdict out, `now` as an argument; [`files`] alone reads a file.
//! A request is signed by [`sign_request`] and its answers are checked, one after the other, by the
//! [`Answers`] that it returns; a request that comes in is opened by [`open`], and its answers are
//! signed by the [`Session`] inside. Both keep the chain of §5.3.1: the first answer is bound to the
//! request, each later one to the one before it, so none can be altered, dropped, reordered or
//! cut off unnoticed. When reading, up to 99 messages may stand unsigned between two signed ones, and
//! the last must be signed; when writing, each is.
//!
//! What is not kept is a memory of requests: within the window of five minutes a request can be sent again by
//! whoever recorded it. A NOTIFY is a hint anyway; a transfer request in clear brings what its
//! recorder could have recorded as well, the zone, which nobody should send in clear who wants it unseen. The
//! memory that §5.2.3 suggests, of the last time that each key has signed, would refuse honest secondaries:
//! they ask on several connections at once, and no network keeps those in order.

pub mod files;

mod client;
mod key;
mod record;
mod server;

#[cfg(test)]
mod against_domain;
#[cfg(test)]
mod tests;

pub use client::{AnswerError, Answers, sign_request};
pub use key::{Algorithm, Key, KeyError};
pub use record::{Malformed, error};
pub use server::{Opening, Reason, Refused, Session, Signed, open};

/// The clocks of both ends may differ by this much (RFC 8945 §10: 300 seconds). A sender that names more
/// is held to this: the window is for how long a message can be sent again.
pub const FUDGE_S: u16 = 300;
/// So many messages may stand unsigned between two signed ones (RFC 8945 §5.3.1).
pub const UNSIGNED_MAX: u32 = 99;

/// Whether a message signed at `time_s` may be taken at `now_s`.
fn in_window(time_s: u64, fudge_s: u16, now_s: u64) -> bool {
    now_s.abs_diff(time_s) <= u64::from(fudge_s.min(FUDGE_S))
}
