//! The zone core: canonical form, admission, chains of denial, signature planning, assembly and
//! verification. Pure: no clock (`now` comes in), no files, no sockets.
//!
//! The path of one zone is a chain of types, each made from the one before by one function:
//!
//! ```text
//! Receiver ─finish─► ReceivedZone ─admit─► AdmittedZone ─plan─► PlannedZone ─assemble─► AssembledZone ─finish─► SignedZone ─verify─► VerifiedZone
//! ```
//!
//! Signing has two rounds: a ZONEMD record digests every other record and signature, so it is signed
//! after all of them (`AssembledZone`).

pub mod admit;
pub mod admitted;
pub mod assemble;
pub(crate) mod bitmap;
pub mod cds;
pub(crate) mod compose;
pub mod cuts;
pub mod difference;
pub mod guard;
pub mod name;
pub(crate) mod nsec;
pub(crate) mod nsec3;
pub mod packed;
pub mod params;
pub mod plan;
pub mod rdata;
pub mod receive;
pub mod refusal;
pub(crate) mod reuse;
pub mod rtype;
pub mod serial;
pub mod signed;
pub mod stored;
pub(crate) mod tbs;
pub(crate) mod terms;
#[cfg(test)]
pub(crate) mod testing;
pub mod verify;
pub(crate) mod window;
pub mod zonemd;

pub use admit::{AdmissionParams, BeyondWindow, IncomingDnssec, IncomingZonemd, admit};
pub use admitted::AdmittedZone;
pub use assemble::{AssembleError, AssembledZone, Signatures};
pub use cds::{CdsError, CdsSet};
pub use name::Name;
pub use packed::{Node, Packed, Rrset};
pub use params::{ZoneKey, ZoneParams};
pub use plan::{CdsOrder, DnskeyOrder, PlanError, PlannedZone, Task, plan};
pub use receive::{Bounds, ReceivedZone, Receiver};
pub use refusal::{Fault, Refusal};
pub use rtype::Rtype;
pub use serial::{SerialError, next_serial};
pub use signed::SignedZone;
pub use verify::{Expirations, Failure, VerifiedZone, re_verify, verify};
