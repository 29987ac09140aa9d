//! The zone core: canonical form, admission, chains of denial, signature planning, assembly and
//! verification. Pure: no clock (`now` comes in), no files, no sockets.
//!
//! The path of one zone is a chain of types, each made from the one before by one function:
//!
//! ```text
//! Receiver ─finish─► ReceivedZone ─admit─► AdmittedZone ─plan─► PlannedZone ─assemble─► SignedZone ─verify─► VerifiedZone
//! ```

pub mod admit;
pub mod admitted;
pub mod cuts;
pub mod name;
pub mod packed;
pub mod params;
pub mod rdata;
pub mod receive;
pub mod refusal;
pub mod rtype;
pub mod signed;
#[cfg(test)]
pub(crate) mod testing;

pub use admit::{AdmissionParams, IncomingDnssec, admit};
pub use admitted::AdmittedZone;
pub use name::Name;
pub use packed::{Node, Packed, Rrset};
pub use params::{ZoneKey, ZoneParams};
pub use receive::{Bounds, ReceivedZone, Receiver};
pub use refusal::{Fault, Refusal};
pub use rtype::Rtype;
pub use signed::SignedZone;
