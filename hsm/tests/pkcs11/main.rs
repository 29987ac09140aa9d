//! The tokens, on real stores with the fault-injecting shim in front (`softhsm-tests/shim`): of SoftHSM, or
//! of what `COUNTERSIGN_TOKENS` names ([`bed::Kind`]). nextest runs each test in a process of its own; under `cargo test` they
//! share one, which works too, because every store has its own copy of the module.

#![cfg(feature = "keeper")]

mod adoption;
mod audit;
mod bed;
mod conflicts;
mod data;
mod failing;
mod leave;
mod logins;
mod signing;
