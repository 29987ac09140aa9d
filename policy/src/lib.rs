//! Countersign's rules and vocabulary: zone names, keys, signing policy, officers, what they sign, and
//! the ledger that judges it. Everything here is a pure function of its arguments: no clock (`now`
//! comes in), no files, no sockets, no randomness.

pub mod algorithm;
pub mod checkpoint;
pub mod ds;
pub mod founding;
pub mod instance;
pub mod key;
pub mod key_state;
pub mod ledger;
pub mod motion;
pub mod name;
pub mod officer;
pub mod permit;
pub mod rule;
pub mod signing;
pub mod ssh;
pub mod state;
pub mod statement;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
pub mod tree;
pub mod words;

pub use algorithm::Algorithm;
pub use key::{KeyId, KeyRole, PublicKey};
pub use name::ZoneName;
pub use signing::SigningPolicy;
