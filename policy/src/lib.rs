//! Countersign's rules and vocabulary: zone names, keys, signing policy, the founding and the
//! ledger's entries. Everything here is a pure function of its arguments: no clock (`now` comes
//! in), no files, no sockets, no randomness.

pub mod algorithm;
pub mod checkpoint;
pub mod ds;
pub mod founding;
pub mod key;
pub mod ledger;
pub mod name;
pub mod permit;
pub mod signing;
pub mod ssh;
pub mod state;
pub mod tree;
pub mod words;

pub use algorithm::Algorithm;
pub use key::{KeyId, KeyRole, PublicKey};
pub use name::ZoneName;
pub use signing::SigningPolicy;
