//! The query front: what is public at the apex, to listed peers, over UDP, TCP and TLS.
//!
//! This is a signer, not a public name server. Listed peers (by address or TSIG key in clear, by
//! certificate over TLS) get SOA, NS, DNSKEY, CDS, CDNSKEY, NSEC3PARAM and ZONEMD of the zones here; all
//! else, and everyone else, gets REFUSED. NOTIFY goes to its inbox. Transfers are `outbound`'s.
//!
//! An unsigned query or NOTIFY from an address that a peer lists is taken even where that peer has a TSIG
//! key: the apex is public, and a NOTIFY is a hint. A peer without `addresses` is heard only when it signs.
//! What was signed is answered signed (RFC 8945 §5.3).
//!
//! The sockets are our own: hickory's server has no bound on connections, spawns a task for each
//! datagram, and answers NOTIFY with NOTIMP. Messages pass our strict reader first; what is left
//! goes to hickory's `RequestHandler` in [`apex`].

pub mod apex;
mod denial;
mod socket;
mod stream;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_server::net::runtime::TokioTime;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler};

pub(crate) use socket::SOCKET_ERROR_PAUSE;
pub use socket::serve_udp;
pub(crate) use stream::{Conversation, StreamEnd};

use countersign_policy::ZoneName;

use crate::clock::now_s;
use crate::counters::Counters;
use crate::gate::Throttle;
use crate::notify::Inbox;
use crate::peers::{PeerName, Way};
use crate::published::{Catalogue, View};
use crate::tsig::{self, Opening, Refused, Session, Signed};
use crate::wire::{
    Flags, Header, MESSAGE_BYTES_MAX, Message, MessageWriter, OPCODE_NOTIFY, OPCODE_QUERY, Section,
    rcode, types,
};
use apex::{ApexHandler, Capture};

/// No datagram leaves larger than this: what crosses any network unfragmented (DNS flag day 2020).
pub const UDP_BYTES_MAX: usize = 1232;
/// What anyone can receive (RFC 1035 §4.2.1).
const UDP_BYTES_MIN: usize = 512;
/// Refusals to strangers over UDP: a burst, then a thousand a second. Their addresses may be
/// forged, and each answer is no larger than its question.
const REFUSALS_BURST: u32 = 1000;
const REFUSALS_REFILL: Duration = Duration::from_millis(1);

/// Log lines about a TSIG that is no good: anyone can cause them.
const LOG_BURST: u32 = 50;
const LOG_REFILL: Duration = Duration::from_millis(200);

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A datagram; answers are bounded, and the sender's address may be forged.
    Udp,
    /// TCP or TLS.
    Stream,
}

/// A message, looked at for its TSIG.
#[derive(Debug)]
pub(crate) enum Opened {
    /// It has none.
    Plain,
    /// Signed with the key of a listed peer.
    Signed(Signed),
    /// Its TSIG is no good, and this is the answer.
    Refused(Vec<u8>),
    /// Nothing is due: a response, a scrap, one of a flood.
    Silent,
}

/// Answers single messages.
#[derive(Debug)]
pub struct Front {
    catalogue: Arc<Catalogue>,
    inbox: Arc<Inbox>,
    counters: Arc<Counters>,
    refusals: Throttle,
    log: Throttle,
}

impl Front {
    /// A front for what the catalogue has; NOTIFYs go to the inbox.
    pub fn new(catalogue: Arc<Catalogue>, inbox: Arc<Inbox>, counters: Arc<Counters>) -> Arc<Self> {
        let refusals = Throttle::new(REFUSALS_BURST, REFUSALS_REFILL);
        let log = Throttle::new(LOG_BURST, LOG_REFILL);
        Arc::new(Self { catalogue, inbox, counters, refusals, log })
    }

    /// What is served, and to whom.
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// What is counted.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Answers a datagram.
    pub async fn datagram(&self, octets: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
        let view = self.catalogue.view();
        match self.open(&view, octets, from, Transport::Udp) {
            Opened::Silent => None,
            Opened::Refused(answer) => Some(answer),
            Opened::Plain => {
                let askers = view.peers().by_address(from.ip());
                self.answer(octets, from, askers, Transport::Udp, None).await
            }
            Opened::Signed(Signed { octets, mut session }) => {
                let peer = view.peers().proven(Way::Clear, None, Some(session.key())).ok();
                let session = Some(&mut session);
                self.answer(&octets, from, peer.as_slice(), Transport::Udp, session).await
            }
        }
    }

    /// Checks the TSIG of a message that came from `from`, and takes it off.
    pub(crate) fn open(
        &self,
        view: &View,
        octets: &[u8],
        from: SocketAddr,
        transport: Transport,
    ) -> Opened {
        if Message::peek_header(octets).is_none_or(|header| header.flags.response()) {
            return Opened::Silent;
        }
        let refused = match tsig::open(octets, |name| view.peers().key(name), now_s()) {
            Opening::Unsigned => return Opened::Plain,
            Opening::Signed(signed) => return Opened::Signed(signed),
            Opening::Refused(refused) => *refused,
        };
        self.counters.tsig_refused.bump();
        let Refused { reason, key_name, answer } = refused;
        if self.log.pass() {
            let key = key_name.and_then(|name| ZoneName::from_wire(&name).ok());
            let key = key.map_or_else(|| "unreadable".to_owned(), |name| name.to_string());
            tracing::warn!(%from, key, error = %reason, "TSIG refused");
        }
        if transport == Transport::Udp && !self.refusals.pass() {
            return Opened::Silent;
        }
        Opened::Refused(answer)
    }

    /// Answers a message that came from `from`, its TSIG taken off; `askers` are the listed peers that
    /// it may be (none for a stranger). `None` where no answer is due: responses, scraps, floods.
    pub async fn answer(
        &self,
        octets: &[u8],
        from: SocketAddr,
        askers: &[PeerName],
        transport: Transport,
        session: Option<&mut Session>,
    ) -> Option<Vec<u8>> {
        let room = session.as_ref().map_or(0, |session| session.record_bytes());
        let mut answer = self.unsigned(octets, from, askers, transport, room).await?;
        if let Some(session) = session {
            session.sign(&mut answer, now_s());
        }
        Some(answer)
    }

    async fn unsigned(
        &self,
        octets: &[u8],
        from: SocketAddr,
        askers: &[PeerName],
        transport: Transport,
        room: usize,
    ) -> Option<Vec<u8>> {
        let header = Message::peek_header(octets)?;
        if header.flags.response() {
            return None;
        }
        let parsed = Message::parse(octets);
        if askers.is_empty() {
            self.counters.queries_refused.bump();
            let due = transport == Transport::Stream || self.refusals.pass();
            return due.then(|| refusal(header, parsed.ok().as_ref(), rcode::REFUSED));
        }
        let Ok(message) = parsed else { return Some(refusal(header, None, rcode::FORMERR)) };
        match header.flags.opcode() {
            OPCODE_QUERY => self.query(octets, &message, from, transport, room).await,
            OPCODE_NOTIFY => {
                let rcode = self.inbox.take(&message, askers, &self.catalogue.view());
                tracing::debug!(%from, ?askers, rcode = rcode::text(rcode), "NOTIFY");
                Some(notify_reply(header, &message, rcode))
            }
            _ => Some(refusal(header, Some(&message), rcode::NOTIMP)),
        }
    }

    async fn query(
        &self,
        octets: &[u8],
        message: &Message,
        from: SocketAddr,
        transport: Transport,
        room: usize,
    ) -> Option<Vec<u8>> {
        let header = message.header();
        // hickory knows the protocol for logs and sizes only; over TLS it is a stream as well.
        let protocol = match transport {
            Transport::Udp => Protocol::Udp,
            Transport::Stream => Protocol::Tcp,
        };
        let request = Request::from_bytes(octets.to_vec(), from, protocol);
        let (Some(_), Ok(request)) = (message.question(), request) else {
            return Some(refusal(header, Some(message), rcode::FORMERR));
        };
        let capture = Capture::default();
        let handler = ApexHandler::new(self.catalogue.view());
        let info = handler.handle_request::<_, TokioTime>(&request, capture.clone()).await;
        let counter = match info.response_code.low() {
            rcode::NOERROR => &self.counters.queries_answered,
            _ => &self.counters.queries_refused,
        };
        counter.bump();
        let Some(answer) = capture.take() else {
            return Some(refusal(header, Some(message), rcode::SERVFAIL));
        };
        if transport == Transport::Udp && answer.len() + room > udp_bytes_max(message) {
            return Some(truncated(message));
        }
        Some(answer)
    }
}

/// How large a datagram the asker takes and we send (RFC 6891 §6.2.5).
fn udp_bytes_max(message: &Message) -> usize {
    let offered = opt_class(message).map_or(UDP_BYTES_MIN, usize::from);
    offered.clamp(UDP_BYTES_MIN, UDP_BYTES_MAX)
}

fn opt_class(message: &Message) -> Option<u16> {
    message.section(Section::Additional).find(|r| r.rtype == types::OPT).map(|r| r.class)
}

/// An answer with nothing but the question (if it could be read) and a code.
pub(crate) fn refusal(header: Header, message: Option<&Message>, rcode: u8) -> Vec<u8> {
    bare_reply(header, message, 0, rcode)
}

/// RFC 1996 §4.7 shows AA in the response.
fn notify_reply(header: Header, message: &Message, rcode: u8) -> Vec<u8> {
    let extra = if rcode == rcode::NOERROR { Flags::AA } else { 0 };
    bare_reply(header, Some(message), extra, rcode)
}

fn truncated(message: &Message) -> Vec<u8> {
    bare_reply(message.header(), Some(message), Flags::AA | Flags::TC, rcode::NOERROR)
}

fn bare_reply(header: Header, message: Option<&Message>, extra: u16, rcode: u8) -> Vec<u8> {
    let flags = header.flags.reply(extra, rcode);
    let mut writer = MessageWriter::new(Header { id: header.id, flags }, MESSAGE_BYTES_MAX);
    let mut fits = Ok(());
    if let Some(question) = message.and_then(Message::question) {
        fits = writer.question(&question.name, question.qtype, question.qclass);
    }
    if message.and_then(opt_class).is_some() {
        fits = fits.and_then(|()| writer.opt(UDP_BYTES_MAX as u16));
    }
    debug_assert!(fits.is_ok(), "one question and an OPT fit");
    writer.finish()
}
