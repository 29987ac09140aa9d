//! The test bed: real tokens, name servers and resolvers, and the processes under test, each on
//! free loopback ports in a directory of its story.
//!
//! Stories are in `tests/`. They assert what a user would see: what the secondaries serve, what
//! the CLI shows, how a program ends. On signed zones verifiers that share no code with
//! Countersign have the last word ([`oracle`]).

pub mod ask;
pub mod binaries;
pub mod bind;
pub mod chain;
pub mod clear;
pub mod daemon;
pub mod disk;
pub mod edits;
pub mod fake_primary;
pub mod files;
pub mod keeper;
pub mod knot;
pub mod meddler;
pub mod nsd;
pub mod officers;
pub mod opendnssec;
pub mod oracle;
pub mod pdns;
pub mod pki;
pub mod ports;
pub mod process;
pub mod query;
pub mod scratch;
pub mod security_key;
pub mod shim;
pub mod thief;
pub mod token;
pub mod tools;
pub mod tsig;
pub mod unbound;
pub mod users;
pub mod wait;
pub mod xot;
pub mod zones;

pub use scratch::{Scratch, story};
