//! The keeper as a process of its own, on a real SoftHSM, met over its real sockets.

#![cfg(feature = "keeper")]

mod bed;
mod council;
mod life;
mod quorum;
mod signing;
mod stolen_daemon;
