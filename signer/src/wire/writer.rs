//! The writer: answers and transfers, owner names compressed (RFC 1035 §4.1.4, RFC 5936 §3.4).
//!
//! Compression never changes the case of a name: a suffix is reused only if it is the same
//! octet for octet. RDATA is written as it is; compressing it would save little and would have
//! to know types.

use super::message::{Flags, Header};
use super::{HEADER_BYTES, MESSAGE_BYTES_MAX};

/// A pointer has 14 bits: what stands behind this cannot be pointed at.
const POINTER_MAX: usize = 0x3fff;

/// The record does not fit behind what is in the message already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record does not fit into the message")]
pub struct Overflow;

/// Where the octets of a record are counted in the header.
#[derive(Debug, Clone, Copy)]
enum Count {
    Question = 4,
    Answer = 6,
    Authority = 8,
    Additional = 10,
}

/// Builds one message; records are added in the order of their sections.
#[derive(Debug)]
pub struct MessageWriter {
    bytes: Vec<u8>,
    octets_max: usize,
    /// The owner written last, and for each of its labels (offset in the name) where in the
    /// message the name from that label on can be pointed at.
    last_owner: Vec<u8>,
    suffixes: Vec<(usize, usize)>,
}

impl MessageWriter {
    /// An empty message that will not grow beyond `octets_max` (nor beyond 65,535).
    pub fn new(header: Header, octets_max: usize) -> Self {
        let octets_max = octets_max.clamp(512, MESSAGE_BYTES_MAX);
        let mut bytes = Vec::with_capacity(octets_max.min(POINTER_MAX + 1));
        bytes.extend_from_slice(&header.id.to_be_bytes());
        bytes.extend_from_slice(&header.flags.0.to_be_bytes());
        bytes.extend_from_slice(&[0; HEADER_BYTES - 4]);
        Self { bytes, octets_max, last_owner: Vec::new(), suffixes: Vec::new() }
    }

    /// Adds the question.
    pub fn question(&mut self, name: &[u8], qtype: u16, qclass: u16) -> Result<(), Overflow> {
        self.room(name.len() + 4)?;
        self.owner(name, None);
        self.bytes.extend_from_slice(&qtype.to_be_bytes());
        self.bytes.extend_from_slice(&qclass.to_be_bytes());
        self.bump(Count::Question);
        Ok(())
    }

    /// Adds a record to the answer section.
    pub fn answer(
        &mut self,
        owner: &[u8],
        rtype: u16,
        class: u16,
        ttl_s: u32,
        rdata: &[u8],
    ) -> Result<(), Overflow> {
        self.record(Count::Answer, owner, (rtype, class, ttl_s), rdata)
    }

    /// Adds a record to the authority section.
    pub fn authority(
        &mut self,
        owner: &[u8],
        rtype: u16,
        class: u16,
        ttl_s: u32,
        rdata: &[u8],
    ) -> Result<(), Overflow> {
        self.record(Count::Authority, owner, (rtype, class, ttl_s), rdata)
    }

    /// Adds an empty OPT (RFC 6891 §6.1.2) that offers `udp_octets`.
    pub fn opt(&mut self, udp_octets: u16) -> Result<(), Overflow> {
        self.record(Count::Additional, &[0], (super::types::OPT, udp_octets, 0), &[])
    }

    /// How many records the answer section holds.
    pub fn answers(&self) -> u16 {
        let at = Count::Answer as usize;
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    /// Octets written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing but the header is there.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER_BYTES
    }

    /// Lets an oversized record in: the bound becomes what a stream can carry, less `leaving` octets.
    pub fn lift_bound(&mut self, leaving: usize) {
        self.octets_max = MESSAGE_BYTES_MAX.saturating_sub(leaving);
    }

    /// The message.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn record(
        &mut self,
        count: Count,
        owner: &[u8],
        (rtype, class, ttl_s): (u16, u16, u32),
        rdata: &[u8],
    ) -> Result<(), Overflow> {
        let rdata_len = u16::try_from(rdata.len()).map_err(|_| Overflow)?;
        let shared = self.shared(owner);
        let owner_octets = shared.map_or(owner.len(), |(literal, _)| literal + 2);
        if self.full(count) {
            return Err(Overflow);
        }
        self.room(owner_octets + 10 + rdata.len())?;
        self.owner(owner, shared);
        self.bytes.extend_from_slice(&rtype.to_be_bytes());
        self.bytes.extend_from_slice(&class.to_be_bytes());
        self.bytes.extend_from_slice(&ttl_s.to_be_bytes());
        self.bytes.extend_from_slice(&rdata_len.to_be_bytes());
        self.bytes.extend_from_slice(rdata);
        self.bump(count);
        Ok(())
    }

    /// The longest suffix of `name` that the last owner shares: how many octets of `name` come
    /// before it, and which of `suffixes` it is.
    fn shared(&self, name: &[u8]) -> Option<(usize, usize)> {
        let mut at = 0;
        while at < name.len() && name[at] != 0 {
            let same = |(from, _): &(usize, usize)| self.last_owner[*from..] == name[at..];
            if let Some(found) = self.suffixes.iter().position(same) {
                return Some((at, found));
            }
            at += 1 + usize::from(name[at]);
        }
        None
    }

    /// Writes an owner: labels up to the shared suffix, then a pointer to it.
    fn owner(&mut self, name: &[u8], shared: Option<(usize, usize)>) {
        let start = self.bytes.len();
        let literal = shared.map_or(name.len(), |(literal, _)| literal);
        self.bytes.extend_from_slice(&name[..literal]);
        if let Some((_, found)) = shared {
            let target = self.suffixes[found].1;
            self.bytes.extend_from_slice(&(0xc000 | target as u16).to_be_bytes());
            if literal == 0 && found == 0 && self.last_owner.len() == name.len() {
                return;
            }
        }
        let mut suffixes = Vec::with_capacity(self.suffixes.len() + 1);
        let mut at = 0;
        while at < literal && name[at] != 0 && start + at <= POINTER_MAX {
            suffixes.push((at, start + at));
            at += 1 + usize::from(name[at]);
        }
        if let Some((literal, found)) = shared {
            let from = self.suffixes[found].0;
            suffixes.extend(self.suffixes[found..].iter().map(|(o, t)| (o - from + literal, *t)));
        }
        self.last_owner.clear();
        self.last_owner.extend_from_slice(name);
        self.suffixes = suffixes;
    }

    fn room(&self, more: usize) -> Result<(), Overflow> {
        if self.bytes.len() + more > self.octets_max { Err(Overflow) } else { Ok(()) }
    }

    fn full(&self, count: Count) -> bool {
        let at = count as usize;
        self.bytes[at] == 0xff && self.bytes[at + 1] == 0xff
    }

    fn bump(&mut self, count: Count) {
        let at = count as usize;
        let value = u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]).saturating_add(1);
        self.bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }
}

/// A request with one question of class IN and no records; `name` is uncompressed wire form.
pub fn request(id: u16, opcode: u8, extra: u16, name: &[u8], qtype: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + name.len() + 4);
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(&Flags::request(opcode, extra).0.to_be_bytes());
    bytes.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(&qtype.to_be_bytes());
    bytes.extend_from_slice(&super::CLASS_IN.to_be_bytes());
    bytes
}
