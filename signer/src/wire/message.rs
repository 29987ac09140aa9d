//! The reader: RFC 1035 §4.1, whole messages or nothing.

use std::ops::Range;

use super::name::read_name;
use super::rdata::decompress_rdata;
use super::{HEADER_BYTES, MESSAGE_BYTES_MAX};

/// An RR cannot be shorter than this: root owner, type, class, TTL, RDATA length.
const RECORD_BYTES_MIN: usize = 11;
/// A question cannot be shorter than this: root name, type, class.
const QUESTION_BYTES_MIN: usize = 5;

/// Why bytes are not a DNS message; `at` is the octet in the message at which it shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Longer than a stream's length prefix can name.
    #[error("message has {octets} octets, more than {MESSAGE_BYTES_MAX}")]
    TooLong {
        /// Octets found.
        octets: usize,
    },
    /// Something begins before the end and would have to go on behind it.
    #[error("message ends in the middle of something at octet {at}")]
    Short {
        /// Where.
        at: usize,
    },
    /// The header counts more records than the octets left could hold.
    #[error("header counts {counted} questions and records, the message cannot hold them")]
    Counts {
        /// The sum of the four counts.
        counted: usize,
    },
    /// A compression pointer that does not go back to earlier data of the message.
    #[error("compression pointer at octet {at} to octet {target}: not to an earlier name")]
    BadPointer {
        /// Where the pointer is.
        at: usize,
        /// Where it points.
        target: usize,
    },
    /// A label type that was never assigned, or was withdrawn.
    #[error("unknown label type at octet {at}")]
    BadLabel {
        /// Where.
        at: usize,
    },
    /// A name longer than 255 octets.
    #[error("name at octet {at} is longer than 255 octets")]
    NameTooLong {
        /// Where the name begins.
        at: usize,
    },
    /// RDATA with octets behind the last field that its type has.
    #[error("RDATA of type {rtype} goes on behind its last field at octet {at}")]
    RdataTooLong {
        /// Where the surplus begins.
        at: usize,
        /// The record's type.
        rtype: u16,
    },
    /// Octets behind the last record.
    #[error("message goes on behind its last record at octet {at}")]
    Trailing {
        /// Where the surplus begins.
        at: usize,
    },
}

/// The second 16 bits of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// The bit that makes a response.
    pub const QR: u16 = 0x8000;
    /// Authoritative answer.
    pub const AA: u16 = 0x0400;
    /// Truncated.
    pub const TC: u16 = 0x0200;
    /// Recursion desired.
    pub const RD: u16 = 0x0100;

    /// Whether this is a response.
    pub const fn response(self) -> bool {
        self.0 & Self::QR != 0
    }

    /// The opcode.
    pub const fn opcode(self) -> u8 {
        (self.0 >> 11) as u8 & 15
    }

    /// Whether the answer is authoritative.
    pub const fn authoritative(self) -> bool {
        self.0 & Self::AA != 0
    }

    /// Whether the message was truncated.
    pub const fn truncated(self) -> bool {
        self.0 & Self::TC != 0
    }

    /// The response code of the header (its low four bits, without EDNS).
    pub const fn rcode(self) -> u8 {
        (self.0 & 15) as u8
    }

    /// The flags of an answer to a message with these flags: opcode and RD are kept
    /// (RFC 1035 §4.1.1), `extra` and `rcode` are added.
    #[must_use]
    pub const fn reply(self, extra: u16, rcode: u8) -> Self {
        Self(Self::QR | (self.0 & (0x7800 | Self::RD)) | extra | (rcode as u16 & 15))
    }

    /// The flags of a request with this opcode.
    pub const fn request(opcode: u8, extra: u16) -> Self {
        Self((opcode as u16 & 15) << 11 | extra)
    }
}

/// The header, without the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Message id.
    pub id: u16,
    /// Flags, opcode and response code.
    pub flags: Flags,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name asked for, uncompressed wire form, case kept.
    pub name: Box<[u8]>,
    /// QTYPE.
    pub qtype: u16,
    /// QCLASS.
    pub qclass: u16,
}

impl Question {
    /// Whether both ask the same (names without regard to case).
    pub fn same_as(&self, name: &[u8], qtype: u16, qclass: u16) -> bool {
        self.qtype == qtype && self.qclass == qclass && self.name.eq_ignore_ascii_case(name)
    }
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Answer.
    Answer,
    /// Authority.
    Authority,
    /// Additional.
    Additional,
}

/// A record of a message, uncompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Owner, uncompressed wire form, case kept.
    pub owner: &'a [u8],
    /// TYPE.
    pub rtype: u16,
    /// CLASS.
    pub class: u16,
    /// TTL, as it stands in the message.
    pub ttl_s: u32,
    /// RDATA; names uncompressed where the type allows compression.
    pub rdata: &'a [u8],
}

#[derive(Debug, Clone)]
struct Slot {
    rtype: u16,
    class: u16,
    ttl_s: u32,
    owner: Range<usize>,
    rdata: Range<usize>,
}

/// A message taken apart. Its uncompressed size is bounded by that of the input: a record of 14
/// octets can grow to two names, so at most about 40 times a message of 64 KiB.
#[derive(Debug, Clone)]
pub struct Message {
    header: Header,
    questions: Vec<Question>,
    slots: Vec<Slot>,
    answers: usize,
    authorities: usize,
    arena: Vec<u8>,
}

impl Message {
    /// Takes a whole message apart.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(WireError::TooLong { octets: bytes.len() });
        }
        if bytes.len() < HEADER_BYTES {
            return Err(WireError::Short { at: bytes.len() });
        }
        let header = Header { id: u16_at(bytes, 0)?, flags: Flags(u16_at(bytes, 2)?) };
        let count = |at| u16_at(bytes, at).map(usize::from);
        let (asked, answers, authorities, additionals) =
            (count(4)?, count(6)?, count(8)?, count(10)?);
        let records = answers + authorities + additionals;
        // Checked before anything is reserved: counts are claims.
        if asked * QUESTION_BYTES_MIN + records * RECORD_BYTES_MIN > bytes.len() - HEADER_BYTES {
            return Err(WireError::Counts { counted: asked + records });
        }
        let mut at = HEADER_BYTES;
        let mut questions = Vec::with_capacity(asked);
        for _ in 0..asked {
            let mut name = Vec::new();
            let end = read_name(bytes, at, bytes.len(), &mut name)?;
            questions.push(Question {
                name: name.into_boxed_slice(),
                qtype: u16_at(bytes, end)?,
                qclass: u16_at(bytes, end + 2)?,
            });
            at = end + 4;
        }
        let mut arena = Vec::with_capacity(bytes.len());
        let mut slots = Vec::with_capacity(records);
        for _ in 0..records {
            let (slot, end) = read_record(bytes, at, &mut arena)?;
            slots.push(slot);
            at = end;
        }
        if at != bytes.len() {
            return Err(WireError::Trailing { at });
        }
        Ok(Self { header, questions, slots, answers, authorities, arena })
    }

    /// The id and flags of what may not be a whole message: enough to answer FORMERR.
    pub fn peek_header(bytes: &[u8]) -> Option<Header> {
        (bytes.len() >= HEADER_BYTES).then_some(())?;
        Some(Header { id: u16_at(bytes, 0).ok()?, flags: Flags(u16_at(bytes, 2).ok()?) })
    }

    /// The header.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The questions.
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// The question, if there is exactly one.
    pub fn question(&self) -> Option<&Question> {
        match self.questions.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// The records of a section, in order.
    pub fn section(&self, section: Section) -> impl ExactSizeIterator<Item = Record<'_>> {
        let behind_answers = self.answers + self.authorities;
        let range = match section {
            Section::Answer => 0..self.answers,
            Section::Authority => self.answers..behind_answers,
            Section::Additional => behind_answers..self.slots.len(),
        };
        self.slots[range].iter().map(|slot| Record {
            owner: &self.arena[slot.owner.clone()],
            rtype: slot.rtype,
            class: slot.class,
            ttl_s: slot.ttl_s,
            rdata: &self.arena[slot.rdata.clone()],
        })
    }
}

fn read_record(bytes: &[u8], at: usize, arena: &mut Vec<u8>) -> Result<(Slot, usize), WireError> {
    let owner_start = arena.len();
    let at = read_name(bytes, at, bytes.len(), arena)?;
    let owner = owner_start..arena.len();
    let rtype = u16_at(bytes, at)?;
    let class = u16_at(bytes, at + 2)?;
    let ttl_s = u32::from(u16_at(bytes, at + 4)?) << 16 | u32::from(u16_at(bytes, at + 6)?);
    let start = at + 10;
    let end = start + usize::from(u16_at(bytes, at + 8)?);
    if end > bytes.len() {
        return Err(WireError::Short { at: start });
    }
    let rdata_start = arena.len();
    decompress_rdata(bytes, rtype, start, end, arena)?;
    let rdata = rdata_start..arena.len();
    Ok((Slot { rtype, class, ttl_s, owner, rdata }, end))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, WireError> {
    match bytes.get(at..at + 2) {
        Some(two) => Ok(u16::from_be_bytes([two[0], two[1]])),
        None => Err(WireError::Short { at }),
    }
}
