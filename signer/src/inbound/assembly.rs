//! Messages in, a zone out: RFC 5936 §2.2, §3. No sockets, no time.

use countersign_policy::ZoneName;
use countersign_zone::{Bounds, ReceivedZone, Receiver, Refusal};

use crate::wire::framing::Deframer;
use crate::wire::{CLASS_IN, Message, OPCODE_QUERY, Record, Section, WireError, rcode, types};

/// The five numbers behind the two names of a SOA RDATA.
const SOA_NUMBERS: usize = 20;

/// Why an answer is not the zone asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Not a DNS message.
    #[error("answer is not a DNS message: {0}")]
    Wire(#[from] WireError),
    /// The id of another exchange.
    #[error("answer has id {found}, expected {expected}")]
    WrongId {
        /// Found.
        found: u16,
        /// Expected.
        expected: u16,
    },
    /// A query, or another opcode.
    #[error("message is not the answer to a query (flags {flags:#06x})")]
    NotAnAnswer {
        /// The header's flags.
        flags: u16,
    },
    /// Truncated; a stream has room for everything.
    #[error("answer is marked as truncated")]
    Truncated,
    /// The primary said no.
    #[error("primary answered {}", rcode::text(*.rcode))]
    Rcode {
        /// Its response code.
        rcode: u8,
    },
    /// AA is not set: the answer is hearsay, or the zone is expired there.
    #[error("answer is not authoritative")]
    NotAuthoritative,
    /// Another name, type or class, or not one question.
    #[error("answer is to another question than {zone} type {qtype}")]
    WrongQuestion {
        /// The zone asked for.
        zone: ZoneName,
        /// The type asked for.
        qtype: u16,
    },
    /// Records where a transfer has none: authority section, or additional ones but OPT.
    #[error("answer has a record of type {rtype} outside its answer section")]
    StrayRecord {
        /// Its type.
        rtype: u16,
    },
    /// A message without a record.
    #[error("message {message} of the transfer has no record")]
    Empty {
        /// Which one, from 1.
        message: u64,
    },
    /// The SOA query was not answered with the zone's one SOA record.
    #[error("SOA query was not answered with the one SOA record of {zone}")]
    NoSoa {
        /// The zone.
        zone: ZoneName,
    },
    /// A transfer begins with the zone's SOA.
    #[error("transfer begins with a record of type {rtype}, not with the SOA of {zone}")]
    FirstNotSoa {
        /// The type found.
        rtype: u16,
        /// The zone.
        zone: ZoneName,
    },
    /// A transfer ends with the SOA that it began with.
    #[error("transfer began with serial {first} and ends in another SOA, with serial {last}")]
    WrongClosingSoa {
        /// Serial of the first SOA.
        first: u32,
        /// Serial of the last.
        last: u32,
    },
    /// The SOA query promised newer data, and the transfer brought other: the serial policies that
    /// count for themselves would publish the older data as newer.
    #[error("transfer with serial {found} is not newer than {have}, which is here")]
    NotNewer {
        /// The serial of the zone that came.
        found: u32,
        /// The serial of what is here.
        have: u32,
    },
    /// Halfway round from what is here.
    #[error(
        "its serial {found} is exactly 2^31 from {have}, which is here: neither is the newer one (RFC 1982 §3.2). Give it a serial that is less than 2^31 ahead"
    )]
    Unordered {
        /// The primary's serial.
        found: u32,
        /// The serial of what is here.
        have: u32,
    },
    /// The transfer's last message goes on behind the closing SOA.
    #[error("{records} records behind the closing SOA")]
    BehindTheEnd {
        /// How many.
        records: usize,
    },
    /// More came than was asked for.
    #[error("{octets} octets behind the end of the answer")]
    Unasked {
        /// How many were there when looked at.
        octets: usize,
    },
    /// The stream ended before the closing SOA.
    #[error("transfer ended after {records} records without the closing SOA")]
    Unfinished {
        /// Records received.
        records: u64,
    },
    /// The zone core refused a record, or the zone grew beyond its bounds.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Whether more is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The closing SOA has not come yet.
    More,
    /// It has.
    Done,
}

/// A zone whose transfer ended as it should.
#[derive(Debug)]
pub struct Assembled {
    /// The zone.
    pub zone: ReceivedZone,
    /// The serial of its SOA.
    pub serial: u32,
}

/// The answers to one AXFR query, put together; or to an IXFR query that is answered with the
/// whole zone.
#[derive(Debug)]
pub struct Assembly {
    zone: ZoneName,
    id: u16,
    qtype: u16,
    receiver: Receiver,
    /// TTL and RDATA of the SOA that the transfer began with.
    opening: Option<(u32, Box<[u8]>)>,
    closed: bool,
    messages: u64,
    records: u64,
}

impl Assembly {
    /// Begins the answer to the AXFR query with this id.
    pub fn new(zone: ZoneName, id: u16, bounds: Bounds) -> Self {
        Self::of_type(types::AXFR, zone, id, bounds)
    }

    /// The same for a query of this type.
    pub(super) fn of_type(qtype: u16, zone: ZoneName, id: u16, bounds: Bounds) -> Self {
        let receiver = Receiver::new(zone.clone(), bounds);
        Self { zone, id, qtype, receiver, opening: None, closed: false, messages: 0, records: 0 }
    }

    /// Takes the next message of the answer.
    pub fn take(&mut self, message: &[u8]) -> Result<Step, AnswerError> {
        let message = Message::parse(message)?;
        self.messages += 1;
        let query = Query { zone: &self.zone, id: self.id, qtype: self.qtype };
        let mut records = query.records(&message, self.messages)?;
        while let Some(record) = records.next() {
            if self.closed {
                return Err(AnswerError::BehindTheEnd { records: records.len() + 1 });
            }
            self.record(record)?;
        }
        Ok(if self.closed { Step::Done } else { Step::More })
    }

    /// The zone, if the transfer ended with its closing SOA.
    pub fn finish(self) -> Result<Assembled, AnswerError> {
        match self.opening {
            Some((_, soa)) if self.closed => {
                Ok(Assembled { zone: self.receiver.finish()?, serial: serial_of(&soa) })
            }
            _ => Err(AnswerError::Unfinished { records: self.records }),
        }
    }

    /// Whether the closing SOA has come.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes the next record.
    pub(super) fn record(&mut self, record: Record<'_>) -> Result<(), AnswerError> {
        let soa = is_soa_of(&record, &self.zone);
        match &self.opening {
            None if !soa => {
                let zone = self.zone.clone();
                return Err(AnswerError::FirstNotSoa { rtype: record.rtype, zone });
            }
            None => self.opening = Some((record.ttl_s, record.rdata.into())),
            Some((ttl_s, opening)) if soa => {
                if *ttl_s != record.ttl_s || !same_soa(opening, record.rdata) {
                    let (first, last) = (serial_of(opening), serial_of(record.rdata));
                    return Err(AnswerError::WrongClosingSoa { first, last });
                }
                self.closed = true;
                return Ok(());
            }
            Some(_) => {}
        }
        self.records += 1;
        let Record { owner, rtype, class, ttl_s, rdata } = record;
        Ok(self.receiver.push(owner, rtype, class, ttl_s, rdata)?)
    }
}

/// What a transfer was asked for with.
pub(super) struct Query<'a> {
    pub(super) zone: &'a ZoneName,
    pub(super) id: u16,
    pub(super) qtype: u16,
}

impl Query<'_> {
    /// The records of the answer's message number `count`, from 1; at least one.
    pub(super) fn records<'m>(
        &self,
        message: &'m Message,
        count: u64,
    ) -> Result<impl ExactSizeIterator<Item = Record<'m>> + use<'m>, AnswerError> {
        check_header(message, self.id)?;
        // RFC 5936 §2.2.1: the first message repeats the question, later ones may.
        if count == 1 || !message.questions().is_empty() {
            check_question(message, self.zone, self.qtype)?;
        }
        let others = message.section(Section::Additional).filter(|r| r.rtype != types::OPT);
        if let Some(record) = message.section(Section::Authority).chain(others).next() {
            return Err(AnswerError::StrayRecord { rtype: record.rtype });
        }
        let records = message.section(Section::Answer);
        if records.len() == 0 {
            return Err(AnswerError::Empty { message: count });
        }
        Ok(records)
    }
}

/// The serial in the answer to a SOA query.
pub fn soa_serial(message: &[u8], zone: &ZoneName, id: u16) -> Result<u32, AnswerError> {
    let message = Message::parse(message)?;
    check_header(&message, id)?;
    if !message.header().flags.authoritative() {
        return Err(AnswerError::NotAuthoritative);
    }
    check_question(&message, zone, types::SOA)?;
    // RRSIGs and the like may stand beside it; a second SOA may not.
    let mut soas = message.section(Section::Answer).filter(|record| is_soa_of(record, zone));
    match (soas.next(), soas.next()) {
        (Some(soa), None) => Ok(serial_of(soa.rdata)),
        _ => Err(AnswerError::NoSoa { zone: zone.clone() }),
    }
}

/// A whole answer from the octets of a stream: what `fetch` does, without the waiting.
pub fn assemble_stream(
    octets: &[u8],
    zone: &ZoneName,
    id: u16,
    bounds: Bounds,
) -> Result<Assembled, AnswerError> {
    let mut deframer = Deframer::new();
    deframer.feed(octets);
    let mut assembly = Assembly::new(zone.clone(), id, bounds);
    while let Some(message) = deframer.take() {
        if assembly.take(message)? == Step::Done {
            break;
        }
    }
    match deframer.pending() {
        octets if octets > 0 && assembly.closed => Err(AnswerError::Unasked { octets }),
        _ => assembly.finish(),
    }
}

/// AA is not looked at in a transfer: RFC 5936 §2.2.1 has it set, and Knot (3.2) does not.
fn check_header(message: &Message, id: u16) -> Result<(), AnswerError> {
    let header = message.header();
    let flags = header.flags;
    if header.id != id {
        return Err(AnswerError::WrongId { found: header.id, expected: id });
    }
    if !flags.response() || flags.opcode() != OPCODE_QUERY {
        return Err(AnswerError::NotAnAnswer { flags: flags.0 });
    }
    if flags.rcode() != rcode::NOERROR {
        return Err(AnswerError::Rcode { rcode: flags.rcode() });
    }
    if flags.truncated() {
        return Err(AnswerError::Truncated);
    }
    Ok(())
}

fn check_question(message: &Message, zone: &ZoneName, qtype: u16) -> Result<(), AnswerError> {
    match message.question() {
        Some(question) if question.same_as(zone.as_wire(), qtype, CLASS_IN) => Ok(()),
        _ => Err(AnswerError::WrongQuestion { zone: zone.clone(), qtype }),
    }
}

pub(super) fn is_soa_of(record: &Record<'_>, zone: &ZoneName) -> bool {
    record.rtype == types::SOA
        && record.class == CLASS_IN
        && record.owner.eq_ignore_ascii_case(zone.as_wire())
}

/// Same names (their case may have been lost to compression), same numbers.
pub(super) fn same_soa(a: &[u8], b: &[u8]) -> bool {
    match (a.split_last_chunk::<SOA_NUMBERS>(), b.split_last_chunk::<SOA_NUMBERS>()) {
        (Some((a_names, a_numbers)), Some((b_names, b_numbers))) => {
            a_names.eq_ignore_ascii_case(b_names) && a_numbers == b_numbers
        }
        _ => false,
    }
}

/// The serial of a SOA RDATA whose shape the reader has checked.
pub(crate) fn serial_of(rdata: &[u8]) -> u32 {
    rdata.split_last_chunk::<SOA_NUMBERS>().map_or(0, |(_, numbers)| {
        u32::from_be_bytes([numbers[0], numbers[1], numbers[2], numbers[3]])
    })
}
