//! The tokens: PKCS#11 modules, logins, sessions, and the keys on them.
//!
//! ```text
//! Tokens ─┬─ watch (one thread): opens what is due, and notices calls that exceed their deadline
//!         └─ per token ─┬─ root thread: module, slot, login, listing, proofs; makes and destroys keys,
//!                       │  signs checkpoints, reads and writes data objects
//!                       ├─ worker threads: a session each; sign what is in the queue
//!                       └─ queue of invitations to batches, bounded
//! ```
//!
//! Only these threads call into a module, and none of them is ever waited for without a bound: a
//! module that hangs costs its token and nothing else. What a token loses (session, device, login) is
//! opened anew with back-off, without a restart. What is guaranteed:
//!
//! - a key signs only on tokens that have proven it, by a challenge verified here, since they were
//!   last opened, and only while no token of its group answers for it with another public key;
//! - a KSK signs, and any key is made or destroyed, only for an [`Authorised`] value, which names what;
//! - an audit key signs checkpoints and nothing else, and a checkpoint is signed by no other key
//!   ([`audit`]);
//! - what other tools put on a token is shown, and never touched without an [`Authorised`] value that
//!   names its public key;
//! - a wrong PIN is tried once, whatever restarts ([`marker`]).

mod adoption;
mod audit;
mod batch;
mod calls;
mod challenge;
mod data;
#[cfg(test)]
mod destroying;
mod error;
mod health;
mod index;
mod ksk;
#[cfg(test)]
mod making;
mod marker;
mod mechanism;
mod module;
mod opening;
mod pairs;
mod pin;
mod public_key;
mod queue;
mod registry;
mod root;
mod shared;
mod survey;
mod templates;
mod token;
mod tokens;
mod watch;
mod worker;

use std::path::PathBuf;
use std::time::Duration;

use countersign_policy::KeyId;

#[cfg(doc)]
use crate::ledger::Authorised;

pub use adoption::FoundPair;
pub use audit::{AUDIT_LABEL, CHECKPOINT_PREFIX};
pub use data::DataObject;
pub use error::HsmError;
pub use pin::PinSource;
pub use registry::{ExpectedKey, KeyIdentity};
pub use survey::{FoundObject, PrivateAttributes, TokenInventory};
pub use tokens::Tokens;

/// Worker threads of a token unless set otherwise: two keep a software token busy on two cores; a
/// network HSM wants as many as its latency times its rate.
pub const WORKERS_DEFAULT: usize = 2;
/// More than any HSM has use for; each is a thread and a session.
pub const WORKERS_MAX: usize = 256;
/// Waiting requests of a token unless set otherwise: some seconds of work for the slowest HSM.
pub const QUEUE_MAX_DEFAULT: usize = 128;
/// How long one call into a module may take unless set otherwise: three orders of magnitude above
/// a slow signature, and short enough that a zone is signed elsewhere before anyone notices.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);

/// One token: how it is found, logged in to and used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSpec {
    /// Name in the configuration: 1 to 64 of a-z, 0-9, '-', '_', '.'.
    pub name: String,
    /// Tokens of one group hold the same keys.
    pub group: String,
    /// `CK_TOKEN_INFO` label, without trailing blanks.
    pub label: String,
    /// `CK_TOKEN_INFO` serial number, without trailing blanks. Slot numbers change and are not used.
    pub serial: String,
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// Where its PIN is.
    pub pin: PinSource,
    /// Worker threads, 1 to [`WORKERS_MAX`].
    pub workers: usize,
    /// Invitations that may wait; when all queues of a group are full, the answer is "busy".
    pub queue_max: usize,
    /// How long one call into the module may take. Opening and listing get 4 times as long, making a
    /// key pair 24 times (RSA).
    pub deadline: Duration,
}

/// Says by a token's name and its data objects of ours whether it may be used; why not. It is called on
/// the token's own thread, before the token proves or signs anything.
pub type Admission = Box<dyn Fn(&str, &[DataObject]) -> Result<(), String> + Send + Sync>;

/// How a key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStatus {
    /// Tokens that have proven it since they were last opened, by name.
    pub proven_by: Vec<String>,
    /// Why it is refused everywhere, if it is.
    pub conflict: Option<String>,
}

/// What the keeper has to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A token answers for a key with another public key, or failed its proof. The key is refused
    /// everywhere from now on.
    Conflict {
        /// The key that was asked for.
        key: KeyId,
        /// The token that answered.
        token: String,
        /// What it showed.
        found: String,
    },
    /// Every token that claims the key is right again.
    Cleared {
        /// The key.
        key: KeyId,
    },
    /// A token hung and its group has none left: end the process, past the modules
    /// ([`exit_past_modules`]); the supervisor's restart opens the token that hung last.
    GroupLost {
        /// The group.
        group: String,
        /// The token that hung.
        token: String,
        /// The call that it hung in.
        call: String,
    },
}

/// Ends the process at once, without the destructors of PKCS#11 modules, which could hang in the
/// very device that made us end.
pub fn exit_past_modules(code: i32) -> ! {
    #[expect(
        unsafe_code,
        reason = "_exit(2) has no safe wrapper; it takes a number and returns never"
    )]
    // SAFETY: _exit has no preconditions.
    unsafe {
        nix::libc::_exit(code)
    }
}
