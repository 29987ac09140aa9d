//! countersignd: zones come in over mutual TLS, are signed by the keeper, verified, kept, and go
//! out over mutual TLS; and `countersign`, its command line.
//!
//! `runner` is the one place that joins the stages; stages never import each other.

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod counters;
pub mod daemon;
pub mod gate;
pub mod inbound;
pub mod metrics;
pub mod notices;
pub mod notify;
pub mod outbound;
pub mod peers;
pub mod published;
pub mod query;
pub mod runner;
pub mod store;
pub mod tls;
pub mod tsig;
pub mod wire;
pub mod zonefile;
