//! The answer to an IXFR query, messages in and a zone out: RFC 1995 §2, §4. No sockets, no time.
//!
//! An answer is the SOA alone (nothing newer), the whole zone, or difference sequences: the SOA of the
//! newest version, then for each step the SOA that it leads from, what goes, the SOA that it leads to,
//! what comes, and at the end the first SOA again. Differences are applied as they arrive, to a base
//! that is exactly the primary's data of the serial that was asked with. The first sequence must begin
//! at that SOA, each at the one where the one before it ended, each must lead to a newer serial, and
//! the last to the SOA of the opening. Whatever is odd is an error, and the whole zone is asked for
//! instead: a difference is a saving, never the only way.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use countersign_policy::ZoneName;
use countersign_zone::Bounds;
use countersign_zone::admit::IncomingDnssec;
use countersign_zone::difference::patch::is_left_out;
use countersign_zone::difference::{Base, Mismatch, Patch};
use tokio::time::Instant;

use super::TransferError;
use super::assembly::{
    AnswerError, Assembled, Assembly, Query, Step, is_soa_of, same_soa, serial_of,
};
use crate::peers::PeerName;
use crate::wire::framing::Deframer;
use crate::wire::{
    CLASS_IN, Flags, Header, MESSAGE_BYTES_MAX, Message, MessageWriter, OPCODE_QUERY, Record,
    newer, rcode, types,
};

/// A primary that has said that it does not give IXFR is asked for the whole zone at once for this
/// long: it may be upgraded, and asking costs a round trip.
const NOT_ASKED_FOR: Duration = Duration::from_secs(3600);

/// Primaries remembered so: more than any configuration has, and a bound on what is kept.
const NOT_ASKED_MAX: usize = 10_000;

/// Why an answer to IXFR is no difference that could be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IxfrError {
    /// Not an answer, or none that a transfer may have.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// Sequences that do not lead from our serial to the newest, one after the other.
    #[error("difference sequences do not chain: serial {found} where {expected} was expected")]
    Chain {
        /// The serial of the SOA that came.
        found: u32,
        /// The one that should have.
        expected: u32,
    },
    /// A sequence that leads to no newer serial, or beyond the newest.
    #[error("a difference sequence leads from serial {from} to {to}; the newest is {newest}")]
    Direction {
        /// Where it begins.
        from: u32,
        /// Where it leads.
        to: u32,
        /// The serial of the opening SOA.
        newest: u32,
    },
    /// A SOA that is not newer than ours, and more behind it.
    #[error("answer begins with serial {found}, not newer than {have}, and goes on")]
    NotNewer {
        /// The serial that came.
        found: u32,
        /// Ours.
        have: u32,
    },
    /// There is no SOA to ask with.
    #[error("what is here has no SOA")]
    NoBase,
    /// They do not fit what is here.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
}

impl IxfrError {
    /// Whether it does not do IXFR, or not for us.
    fn is_lasting(&self) -> bool {
        let Self::Answer(AnswerError::Rcode { rcode }) = self else { return false };
        matches!(*rcode, rcode::NOTIMP | rcode::FORMERR | rcode::REFUSED)
    }
}

/// What an answer brought.
#[derive(Debug)]
pub enum Answered {
    /// The primary has nothing newer.
    UpToDate {
        /// Its serial.
        serial: u32,
    },
    /// The whole zone, as if it had been asked for with AXFR.
    Whole(Assembled),
    /// Differences. What they make is worked out by [`Patch::finish`], which takes its time.
    Differences(Box<Patch>, u32),
}

/// The answers to one IXFR query, put together.
#[derive(Debug)]
pub struct IxfrAssembly {
    zone: ZoneName,
    id: u16,
    bounds: Bounds,
    dnssec: IncomingDnssec,
    messages: u64,
    /// TTL and RDATA of the SOA that the answer began with.
    opening: Option<(u32, Box<[u8]>)>,
    /// The serial that the difference sequences have come to.
    serial: u32,
    patch: Box<Patch>,
    state: State,
}

/// [`Patch::remove`] or [`Patch::add`].
type Applied = fn(&mut Patch, &[u8], u16, u16, u32, &[u8]) -> Result<(), Mismatch>;

#[derive(Debug)]
enum State {
    /// Nothing, or the opening SOA alone.
    Begun,
    /// It is the whole zone.
    Whole(Box<Assembly>),
    /// What goes.
    Removing,
    /// What comes.
    Adding,
    /// The closing SOA has come.
    Closed,
}

impl IxfrAssembly {
    /// Begins the answer to the IXFR query with this id, asked with the base's SOA.
    pub fn new(base: Base, id: u16, bounds: Bounds, dnssec: IncomingDnssec) -> Self {
        Self {
            zone: base.apex().clone(),
            id,
            bounds,
            dnssec,
            messages: 0,
            opening: None,
            serial: base.serial(),
            patch: Box::new(Patch::new(base, bounds)),
            state: State::Begun,
        }
    }

    /// Takes the next message of the answer.
    pub fn take(&mut self, message: &[u8]) -> Result<Step, IxfrError> {
        let message = Message::parse(message).map_err(AnswerError::from)?;
        self.messages += 1;
        let query = Query { zone: &self.zone, id: self.id, qtype: types::IXFR };
        let mut records = query.records(&message, self.messages)?;
        while let Some(record) = records.next() {
            if self.is_closed() {
                let records = records.len() + 1;
                return Err(AnswerError::BehindTheEnd { records }.into());
            }
            self.record(record)?;
        }
        Ok(if self.is_closed() || self.up_to_date() { Step::Done } else { Step::More })
    }

    /// What it brought, if it was whole.
    pub fn finish(self) -> Result<Answered, IxfrError> {
        if self.up_to_date() {
            let serial = self.newest();
            return Ok(Answered::UpToDate { serial });
        }
        match self.state {
            State::Whole(assembly) => Ok(Answered::Whole(assembly.finish()?)),
            State::Closed => Ok(Answered::Differences(self.patch, self.serial)),
            State::Begun | State::Removing | State::Adding => {
                Err(AnswerError::Unfinished { records: self.patch.records() as u64 }.into())
            }
        }
    }

    fn is_closed(&self) -> bool {
        match &self.state {
            State::Whole(assembly) => assembly.is_closed(),
            State::Closed => true,
            State::Begun | State::Removing | State::Adding => false,
        }
    }

    fn newest(&self) -> u32 {
        self.opening.as_ref().map_or(0, |(_, soa)| serial_of(soa))
    }

    /// One SOA that is not newer than ours: that was all (RFC 1995 §2). One that is newer may be
    /// followed by more messages.
    fn up_to_date(&self) -> bool {
        let begun = matches!(self.state, State::Begun) && self.opening.is_some();
        begun && !newer(self.newest(), self.serial)
    }

    fn record(&mut self, record: Record<'_>) -> Result<(), IxfrError> {
        let soa = is_soa_of(&record, &self.zone);
        match (&mut self.state, &self.opening) {
            (State::Begun, None) if !soa => {
                let zone = self.zone.clone();
                Err(AnswerError::FirstNotSoa { rtype: record.rtype, zone }.into())
            }
            (State::Begun, None) => {
                self.opening = Some((record.ttl_s, record.rdata.into()));
                Ok(())
            }
            (State::Begun, Some(_)) => self.second(record, soa),
            (State::Whole(assembly), _) => Ok(assembly.record(record)?),
            (State::Removing, _) if soa => self.leads_to(record),
            (State::Adding, _) if soa => self.sequence_ends(record),
            (State::Removing, _) => self.apply(record, Patch::remove),
            (State::Adding, _) => self.apply(record, Patch::add),
            (State::Closed, _) => Err(AnswerError::BehindTheEnd { records: 1 }.into()),
        }
    }

    /// The second record tells what the answer is (RFC 1995 §4).
    fn second(&mut self, record: Record<'_>, soa: bool) -> Result<(), IxfrError> {
        let newest = self.newest();
        if !newer(newest, self.serial) {
            return Err(IxfrError::NotNewer { found: newest, have: self.serial });
        }
        let Some((ttl_s, opening)) = &self.opening else { return Ok(()) };
        if soa && serial_of(record.rdata) != newest {
            return self.leads_from(record);
        }
        let mut whole = Assembly::of_type(types::IXFR, self.zone.clone(), self.id, self.bounds);
        let (owner, rtype, class) = (self.zone.as_wire(), types::SOA, CLASS_IN);
        // The opening's owner may have been spelled in another case than it is in the zone, as in
        // an AXFR; the closing SOA is dropped there too.
        whole.record(Record { owner, rtype, class, ttl_s: *ttl_s, rdata: opening })?;
        whole.record(record)?;
        self.state = State::Whole(Box::new(whole));
        Ok(())
    }

    fn apply(&mut self, record: Record<'_>, how: Applied) -> Result<(), IxfrError> {
        let Record { owner, rtype, class, ttl_s, rdata } = record;
        if is_left_out(&self.zone, owner, rtype, self.dnssec) {
            return Ok(self.patch.pass_over(owner, rdata)?);
        }
        Ok(how(&mut self.patch, owner, rtype, class, ttl_s, rdata)?)
    }

    /// A sequence begins, with the SOA that goes.
    fn leads_from(&mut self, record: Record<'_>) -> Result<(), IxfrError> {
        let found = serial_of(record.rdata);
        if found != self.serial {
            return Err(IxfrError::Chain { found, expected: self.serial });
        }
        self.state = State::Removing;
        self.apply(record, Patch::remove)
    }

    /// In the middle of a sequence, the SOA that comes.
    fn leads_to(&mut self, record: Record<'_>) -> Result<(), IxfrError> {
        let (from, to, newest) = (self.serial, serial_of(record.rdata), self.newest());
        if !newer(to, from) || newer(to, newest) {
            return Err(IxfrError::Direction { from, to, newest });
        }
        self.serial = to;
        self.state = State::Adding;
        self.apply(record, Patch::add)
    }

    /// A SOA behind what comes: the next sequence, or the end.
    fn sequence_ends(&mut self, record: Record<'_>) -> Result<(), IxfrError> {
        self.patch.end_sequence()?;
        let Some((ttl_s, opening)) = &self.opening else { return Ok(()) };
        if self.serial != serial_of(opening) {
            return self.leads_from(record);
        }
        if *ttl_s != record.ttl_s || !same_soa(opening, record.rdata) {
            let (first, last) = (serial_of(opening), serial_of(record.rdata));
            return Err(AnswerError::WrongClosingSoa { first, last }.into());
        }
        if self
            .patch
            .soa()
            .is_none_or(|(soa_ttl_s, soa)| soa_ttl_s != *ttl_s || !same_soa(opening, &soa))
        {
            let (first, last) = (serial_of(opening), self.serial);
            return Err(AnswerError::WrongClosingSoa { first, last }.into());
        }
        self.state = State::Closed;
        Ok(())
    }
}

/// A whole answer from the octets of a stream: what `fetch` does, without the waiting.
pub fn assemble_differences(
    octets: &[u8],
    base: Base,
    id: u16,
    bounds: Bounds,
    dnssec: IncomingDnssec,
) -> Result<Answered, IxfrError> {
    let mut deframer = Deframer::new();
    deframer.feed(octets);
    let mut assembly = IxfrAssembly::new(base, id, bounds, dnssec);
    let mut done = false;
    while let Some(message) = deframer.take() {
        if assembly.take(message)? == Step::Done {
            done = true;
            break;
        }
    }
    match deframer.pending() {
        octets if octets > 0 && done => Err(AnswerError::Unasked { octets }.into()),
        _ => assembly.finish(),
    }
}

/// The query: the zone, and in its authority section the SOA of what is here (RFC 1995 §3).
/// `None` where there is none, which is in no zone.
pub(super) fn query(id: u16, zone: &ZoneName, base: &Base) -> Option<Vec<u8>> {
    let header = Header { id, flags: Flags::request(OPCODE_QUERY, 0) };
    let mut writer = MessageWriter::new(header, MESSAGE_BYTES_MAX);
    writer.question(zone.as_wire(), types::IXFR, CLASS_IN).ok()?;
    writer.authority(zone.as_wire(), types::SOA, CLASS_IN, 0, &base.soa()?).ok()?;
    Some(writer.finish())
}

/// Which primaries do not give IXFR.
#[derive(Debug, Default)]
pub struct Manners {
    whole_only: Mutex<HashMap<PeerName, Instant>>,
}

impl Manners {
    /// Whether the primary is worth asking.
    pub(super) fn gives_differences(&self, peer: &PeerName) -> bool {
        let mut known = self.whole_only.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(peer) {
            Some(until) if *until > Instant::now() => false,
            Some(_) => {
                known.remove(peer);
                true
            }
            None => true,
        }
    }

    /// What came of asking it.
    pub(super) fn learn(&self, peer: &PeerName, error: &TransferError) {
        let TransferError::Differences(error) = error else { return };
        if !error.is_lasting() {
            return;
        }
        let mut known = self.whole_only.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < NOT_ASKED_MAX {
            known.insert(peer.clone(), Instant::now() + NOT_ASKED_FOR);
        }
    }
}

#[cfg(test)]
mod tests;
