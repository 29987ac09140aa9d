//! Transfers to a peer that is proven, whatever the stream, and its other queries by the front.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign_policy::ZoneName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use super::differences::{self, Step};
use super::standing::Standing;
use super::transfer::{Messages, Unsendable, Wire, records};
use crate::clock::now_s;
use crate::counters::Counters;
use crate::inbound::serial_of;
use crate::published::Published;
use crate::query::{Conversation, Front, StreamEnd, Transport, refusal};
use crate::tsig::Session;
use crate::wire::{CLASS_IN, Message, OPCODE_QUERY, Section, newer, rcode, types};

/// Serves what a peer asks for on a stream.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) front: Arc<Front>,
    /// Each message must be taken within this.
    pub(super) write: Duration,
    /// A transfer must be done within this.
    pub(super) transfer: Duration,
}

/// A query whose TSIG, if it has one, is checked and taken off.
pub(super) struct Query<'a> {
    pub octets: &'a [u8],
    /// Signs the answers.
    pub session: Option<Session>,
    pub from: SocketAddr,
}

/// Why a transfer was cut off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Stream(#[from] StreamEnd),
    #[error(transparent)]
    Unsendable(#[from] Unsendable),
    #[error("not done within {} s", .0.as_secs())]
    Deadline(Duration),
    #[error("a reload took the zone from the peer, or what proved it")]
    NoLonger,
}

/// What a transfer query gets.
enum Verdict {
    Refuse(u8),
    Give(Arc<Published>, Content),
}

/// What of a version is the answer.
enum Content {
    /// All of it.
    Whole,
    /// The steps to it from the version that the client has.
    Steps(Vec<Arc<Step>>),
    /// The client is up to date: the SOA alone (RFC 1995 §2).
    Soa,
}

impl Content {
    fn records<'a>(
        &'a self,
        version: &'a Published,
    ) -> Box<dyn Iterator<Item = Wire<'a>> + Send + 'a> {
        match self {
            Self::Whole => Box::new(records(version)),
            Self::Steps(steps) => Box::new(differences::answer(version, steps)),
            Self::Soa => Box::new(records(version).take(1)),
        }
    }
}

impl Desk {
    pub(super) fn counters(&self) -> &Counters {
        self.front.counters()
    }

    /// Answers a query of the peer that `standing` is about.
    pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        conversation: &mut Conversation<S>,
        query: Query<'_>,
        standing: Standing<'_>,
    ) -> Result<(), StreamEnd> {
        let message = Message::parse(query.octets).ok().filter(is_transfer_query);
        if let Some(message) = message {
            return self.transfer(conversation, &message, query, standing).await;
        }
        let askers = std::slice::from_ref(standing.peer());
        let Query { octets, mut session, from } = query;
        let answer =
            self.front.answer(octets, from, askers, Transport::Stream, session.as_mut()).await;
        match answer {
            Some(answer) => conversation.send(&answer, self.write).await,
            None => Ok(()),
        }
    }

    /// An answer without data, signed if the query was.
    pub(super) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        conversation: &mut Conversation<S>,
        query: &mut Query<'_>,
        code: u8,
    ) -> Result<(), StreamEnd> {
        let Some(header) = Message::peek_header(query.octets) else { return Ok(()) };
        let message = Message::parse(query.octets).ok();
        let mut answer = refusal(header, message.as_ref(), code);
        if let Some(session) = &mut query.session {
            session.sign(&mut answer, now_s());
        }
        conversation.send(&answer, self.write).await
    }

    async fn transfer<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        conversation: &mut Conversation<S>,
        message: &Message,
        mut query: Query<'_>,
        standing: Standing<'_>,
    ) -> Result<(), StreamEnd> {
        let (from, peer) = (query.from, standing.peer().clone());
        let (version, content) = match judge(message, &standing) {
            Verdict::Give(version, content) => (version, content),
            Verdict::Refuse(code) => {
                self.counters().transfers_out_refused.bump();
                let code_text = rcode::text(code);
                tracing::warn!(%from, %peer, query = shown(message), answer = code_text, "transfer refused");
                return self.refuse(conversation, &mut query, code).await;
            }
        };
        let (zone, serial) = (version.apex().clone(), version.serial());
        let since = Instant::now();
        let room = query.session.as_ref().map_or(0, Session::record_bytes);
        let messages = Messages::new(message, content.records(&version)).leaving(room);
        let sending = self.send(conversation, messages, query.session, standing, &zone);
        let sent =
            timeout(self.transfer, sending).await.unwrap_or(Err(Broken::Deadline(self.transfer)));
        match sent {
            Ok(_) if matches!(content, Content::Soa) => Ok(()),
            Ok(octets) => {
                self.counters().transfers_out.bump();
                self.counters().transfer_bytes_out.add(octets);
                let differences = matches!(content, Content::Steps(_));
                self.counters().transfers_out_ixfr.add(u64::from(differences));
                let ms = since.elapsed().as_millis();
                tracing::info!(%zone, serial, %peer, %from, octets, differences, ms, "transfer sent");
                Ok(())
            }
            Err(error) => {
                self.counters().transfers_out_failed.bump();
                tracing::warn!(%zone, serial, %peer, %from, %error, "transfer broke off");
                Err(match error {
                    Broken::Stream(end) => end,
                    // The connection has to end: nothing else tells the secondary.
                    other => StreamEnd::Io(std::io::Error::other(other.to_string())),
                })
            }
        }
    }

    /// Sends the messages, each signed if the query was; says how many octets they had. The version
    /// is held until the end, whatever is published meanwhile; the peer's right to it is not.
    async fn send<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        conversation: &mut Conversation<S>,
        messages: impl Iterator<Item = Result<Vec<u8>, Unsendable>>,
        mut session: Option<Session>,
        mut standing: Standing<'_>,
        zone: &ZoneName,
    ) -> Result<u64, Broken> {
        let mut octets = 0;
        for message in messages {
            let mut message = message?;
            if !standing.still_has(zone) {
                return Err(Broken::NoLonger);
            }
            if let Some(session) = &mut session {
                session.sign(&mut message, now_s());
            }
            octets += message.len() as u64;
            conversation.send(&message, self.write).await?;
        }
        Ok(octets)
    }
}

/// Who may have what, and which form of it.
fn judge(query: &Message, standing: &Standing<'_>) -> Verdict {
    let Some(question) = query.question() else { return Verdict::Refuse(rcode::FORMERR) };
    let Ok(name) = ZoneName::from_wire(&question.name) else {
        return Verdict::Refuse(rcode::FORMERR);
    };
    let zone = standing.view().zone(&name).filter(|zone| zone.has_secondary(standing.peer()));
    let Some(zone) = zone.filter(|_| question.qclass == CLASS_IN && standing.may_transfer()) else {
        return Verdict::Refuse(rcode::REFUSED);
    };
    let Some(version) = zone.current() else { return Verdict::Refuse(rcode::SERVFAIL) };
    if question.qtype == types::AXFR {
        return Verdict::Give(version, Content::Whole);
    }
    let theirs = query.section(Section::Authority).find(|record| {
        record.rtype == types::SOA && record.owner.eq_ignore_ascii_case(name.as_wire())
    });
    match theirs.map(|soa| serial_of(soa.rdata)) {
        None => Verdict::Refuse(rcode::FORMERR),
        Some(theirs) if newer(version.serial(), theirs) => {
            let steps = zone.steps(theirs, &version);
            Verdict::Give(version, steps.map_or(Content::Whole, Content::Steps))
        }
        Some(_) => Verdict::Give(version, Content::Soa),
    }
}

fn is_transfer_query(message: &Message) -> bool {
    let flags = message.header().flags;
    !flags.response()
        && flags.opcode() == OPCODE_QUERY
        && message.question().is_some_and(|q| matches!(q.qtype, types::AXFR | types::IXFR))
}

/// Zone and type of a query, for a log line.
fn shown(query: &Message) -> String {
    let Some(question) = query.question() else { return "no question".into() };
    let name =
        ZoneName::from_wire(&question.name).map_or_else(|e| e.to_string(), |n| n.to_string());
    let qtype = if question.qtype == types::AXFR { "AXFR" } else { "IXFR" };
    format!("{name} {qtype}")
}
