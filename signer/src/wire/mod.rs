//! DNS messages as received and as sent in transfers (RFC 1035 §4, RFC 3597, RFC 5936).
//!
//! The reader is strict: a message is taken apart whole, or refused with the octet at which it
//! stopped making sense. Names come out uncompressed with the case they had, in owners and in
//! the RDATA of the types in which receivers decompress (RFC 3597 §4); every other RDATA comes
//! out as it came in. Pure functions of bytes: no sockets, no clock.

mod message;
mod name;
mod rdata;
mod writer;

pub mod framing;

#[cfg(test)]
mod tests;

pub use message::{Flags, Header, Message, Question, Record, Section, WireError};
pub use name::{NAME_BYTES_MAX, read_name};
pub use rdata::decompress_rdata;
pub use writer::{MessageWriter, Overflow, request};

/// What the length prefix of a stream can name (RFC 1035 §4.2.2).
pub const MESSAGE_BYTES_MAX: usize = 65_535;
/// The fixed header (RFC 1035 §4.1.1).
pub const HEADER_BYTES: usize = 12;

/// Class IN, the only class served here.
pub const CLASS_IN: u16 = 1;
/// Opcode of a standard query.
pub const OPCODE_QUERY: u8 = 0;
/// Opcode of NOTIFY (RFC 1996).
pub const OPCODE_NOTIFY: u8 = 4;

/// Serial `a` is newer than `b` (RFC 1982 §3.2). Neither is newer when they are exactly 2^31 apart.
pub const fn newer(a: u32, b: u32) -> bool {
    let ahead = a.wrapping_sub(b);
    ahead != 0 && ahead < 1 << 31
}

/// Type numbers that the transport itself must know.
pub mod types {
    /// SOA.
    pub const SOA: u16 = 6;
    /// OPT pseudo-record (RFC 6891).
    pub const OPT: u16 = 41;
    /// RRSIG.
    pub const RRSIG: u16 = 46;
    /// TSIG (RFC 8945).
    pub const TSIG: u16 = 250;
    /// IXFR (RFC 1995).
    pub const IXFR: u16 = 251;
    /// AXFR (RFC 5936).
    pub const AXFR: u16 = 252;
}

/// Response codes used here (RFC 1035 §4.1.1, RFC 2136 §2.2, RFC 6891 §9).
pub mod rcode {
    /// No error.
    pub const NOERROR: u8 = 0;
    /// Format error.
    pub const FORMERR: u8 = 1;
    /// Server failure.
    pub const SERVFAIL: u8 = 2;
    /// Not implemented.
    pub const NOTIMP: u8 = 4;
    /// Refused.
    pub const REFUSED: u8 = 5;
    /// Not authoritative.
    pub const NOTAUTH: u8 = 9;

    /// The mnemonic, or the number.
    pub fn text(rcode: u8) -> String {
        match rcode {
            NOERROR => "NOERROR".into(),
            FORMERR => "FORMERR".into(),
            SERVFAIL => "SERVFAIL".into(),
            3 => "NXDOMAIN".into(),
            NOTIMP => "NOTIMP".into(),
            REFUSED => "REFUSED".into(),
            NOTAUTH => "NOTAUTH".into(),
            other => format!("RCODE {other}"),
        }
    }
}
