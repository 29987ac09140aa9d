//! A published version as the messages of an AXFR answer: RFC 5936 §2.2, §3. No sockets.

use std::iter;

use countersign_zone::{Rrset, Rtype};

use crate::published::Published;
use crate::query::UDP_BYTES_MAX;
use crate::wire::{
    CLASS_IN, Flags, Header, Message, MessageWriter, Overflow, Section, rcode, types,
};

/// Messages are filled up to here: every name in them can be pointed at (a pointer has 14 bits),
/// and each is one TLS record. A larger record gets a larger message of its own.
pub const MESSAGE_BYTES: usize = 16 * 1024;
/// An OPT without options.
const OPT_BYTES: usize = 11;

/// A record as it goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wire<'a> {
    /// Owner, case kept.
    pub owner: &'a [u8],
    /// TYPE.
    pub rtype: Rtype,
    /// TTL.
    pub ttl_s: u32,
    /// RDATA.
    pub rdata: &'a [u8],
}

/// A record that no message can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record of type {rtype} with {octets} octets of RDATA does not fit into any message")]
pub struct Unsendable {
    /// Its type.
    pub rtype: Rtype,
    /// Octets of its RDATA.
    pub octets: usize,
}

/// All records of a version, its SOA first and last. Empty where there is no SOA, which is in
/// no verified zone.
pub fn records(version: &Published) -> impl Iterator<Item = Wire<'_>> {
    let soa = version.at_apex(Rtype::SOA).and_then(|soa| plain(soa).next());
    let body = version.records().iter().flat_map(|node| node.rrsets()).flat_map(|rrset| {
        // The SOA's RRSIGs have their place among the rest; the SOA has its own.
        plain(rrset).filter(|wire| wire.rtype != Rtype::SOA).chain(signatures(rrset))
    });
    let all = if soa.is_some() { usize::MAX } else { 0 };
    soa.into_iter().chain(body.take(all)).chain(soa)
}

fn plain(rrset: Rrset<'_>) -> impl Iterator<Item = Wire<'_>> {
    let (owner, rtype, ttl_s) = (rrset.owner(), rrset.rtype(), rrset.ttl_s());
    rrset.rdatas().map(move |rdata| Wire { owner, rtype, ttl_s, rdata })
}

fn signatures(rrset: Rrset<'_>) -> impl Iterator<Item = Wire<'_>> {
    let (owner, ttl_s) = (rrset.owner(), rrset.ttl_s());
    rrset.rrsigs().map(move |rdata| Wire { owner, rtype: Rtype::RRSIG, ttl_s, rdata })
}

/// Packs records into the messages that answer `query`.
pub struct Messages<'q, I: Iterator> {
    query: &'q Message,
    records: iter::Peekable<I>,
    first: bool,
    /// Octets that each message leaves free.
    leaves: usize,
}

impl<'a, 'q, I: Iterator<Item = Wire<'a>>> Messages<'q, I> {
    /// The answer to `query`; its question is repeated in the first message, and an OPT answers
    /// an OPT (RFC 5936 §2.2.5).
    pub fn new(query: &'q Message, records: I) -> Self {
        Self { query, records: records.peekable(), first: true, leaves: 0 }
    }

    /// The same, with room for so many octets in each message: for its TSIG.
    #[must_use]
    pub fn leaving(self, octets: usize) -> Self {
        Self { leaves: octets, ..self }
    }

    fn begin(&mut self) -> Result<(MessageWriter, bool), Overflow> {
        let Header { id, flags } = self.query.header();
        let header = Header { id, flags: flags.reply(Flags::AA, rcode::NOERROR) };
        let is_opt = |record: crate::wire::Record<'_>| record.rtype == types::OPT;
        let opt = self.first && self.query.section(Section::Additional).any(is_opt);
        let leaves = self.leaves + if opt { OPT_BYTES } else { 0 };
        let mut writer = MessageWriter::new(header, MESSAGE_BYTES - leaves);
        if self.first
            && let Some(question) = self.query.question()
        {
            writer.question(&question.name, question.qtype, question.qclass)?;
        }
        self.first = false;
        Ok((writer, opt))
    }
}

impl<'a, I: Iterator<Item = Wire<'a>>> Iterator for Messages<'_, I> {
    type Item = Result<Vec<u8>, Unsendable>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.records.peek()?;
        let unsendable = Unsendable { rtype: next.rtype, octets: next.rdata.len() };
        let Ok((mut writer, opt)) = self.begin() else { return Some(Err(unsendable)) };
        while let Some(wire) = self.records.peek() {
            let Wire { owner, rtype, ttl_s, rdata } = *wire;
            let put =
                |writer: &mut MessageWriter| writer.answer(owner, rtype.0, CLASS_IN, ttl_s, rdata);
            let mut full = false;
            if put(&mut writer).is_err() {
                if writer.answers() > 0 {
                    break;
                }
                writer.lift_bound(self.leaves);
                if put(&mut writer).is_err() {
                    return Some(Err(unsendable));
                }
                full = true;
            }
            self.records.next();
            if full {
                break;
            }
        }
        writer.lift_bound(self.leaves);
        if opt && writer.opt(UDP_BYTES_MAX as u16).is_err() {
            return Some(Err(unsendable));
        }
        Some(Ok(writer.finish()))
    }
}
