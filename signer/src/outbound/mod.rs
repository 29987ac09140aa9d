//! Zones out: AXFR over TLS to listed secondaries (RFC 9103, RFC 5936; IXFR by RFC 1995 §2, §4).
//!
//! A connection is a stranger's until its certificate is one of a listed peer. Then its queries
//! are answered one after the other: AXFR and IXFR here, from the published version and nothing
//! else; everything else by the query front. Who may do what is looked up anew for each query,
//! so a reload counts at once. Each wait is bounded: the handshake, the next whole query, each
//! message to be taken, a transfer as a whole.
//!
//! In TLS 1.3 a client's handshake is done before the server has seen its certificate: a refused
//! peer sees a connection that is closed without an answer.

pub mod differences;
mod transfer;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use countersign_policy::ZoneName;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

pub use transfer::{MESSAGE_BYTES, Messages, Unsendable, Wire, records};

use crate::counters::Counters;
use crate::gate::{Gate, GateLimits, Stranger, Throttle};
use crate::inbound::serial_of;
use crate::peers::{Identity, PeerName};
use crate::published::Published;
use crate::query::{Conversation, Front, SOCKET_ERROR_PAUSE, StreamEnd, Transport, refusal};
use crate::tls::{Acceptor, Holder};
use crate::wire::{CLASS_IN, Message, OPCODE_QUERY, Section, newer, rcode, types};

/// Log lines about refused connections: anyone can cause them.
const LOG_BURST: u32 = 50;
const LOG_REFILL: Duration = Duration::from_millis(200);

/// Bounds of the XoT server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How many connections, of strangers and of peers.
    pub gate: GateLimits,
    /// The TLS handshake.
    pub handshake: Duration,
    /// The next whole query must come within this.
    pub idle: Duration,
    /// Each message (up to 16 KiB) must be taken within this.
    pub write: Duration,
    /// A transfer must be done within this.
    pub transfer: Duration,
    /// Queries on one connection.
    pub queries_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            gate: GateLimits::default(),
            handshake: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            write: Duration::from_secs(30),
            transfer: Duration::from_secs(3600),
            queries_max: 1000,
        }
    }
}

/// The XoT server: what it serves from, and whom it lets in.
#[derive(Debug)]
pub struct Xot {
    acceptor: ArcSwap<Acceptor>,
    front: Arc<Front>,
    limits: Limits,
    gate: Arc<Gate<PeerName>>,
    log: Throttle,
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
}

/// Whom a connection is with: looked at again for each query.
struct Proven {
    identity: Identity,
    chain: Vec<CertificateDer<'static>>,
}

/// What a transfer query gets.
enum Verdict {
    Refuse(u8),
    /// The whole zone.
    Whole(Arc<Published>),
    /// The client is up to date: the SOA alone (RFC 1995 §2).
    Current(Arc<Published>),
}

impl Xot {
    /// A server for connections that `acceptor` lets in.
    pub fn new(acceptor: Acceptor, front: Arc<Front>, limits: Limits) -> Arc<Self> {
        let gate = Gate::new(limits.gate);
        let log = Throttle::new(LOG_BURST, LOG_REFILL);
        Arc::new(Self { acceptor: ArcSwap::from_pointee(acceptor), front, limits, gate, log })
    }

    /// New connections are accepted with other certificates from now on.
    pub fn replace_acceptor(&self, acceptor: Acceptor) {
        self.acceptor.store(Arc::new(acceptor));
    }

    fn counters(&self) -> &Counters {
        self.front.counters()
    }

    /// A connection, from the first octet to the last.
    async fn connection(&self, tcp: TcpStream, from: SocketAddr, stranger: Stranger<PeerName>) {
        let leave = stranger.leave();
        let proven = tokio::select! {
            proven = self.prove(tcp, from) => proven,
            () = leave.cancelled() => {
                // Counted where it was pushed out.
                tracing::debug!(%from, "unproven connection dropped for a newer one");
                return;
            }
        };
        let Some((conversation, proven, peer)) = proven else { return };
        let place = match stranger.promote(peer.clone()) {
            Ok(place) => place,
            Err(full) => {
                self.counters().connections_over_bound.bump();
                if self.log.pass() {
                    tracing::warn!(%from, %peer, %full, "connection turned away");
                }
                return;
            }
        };
        if let Err(error) = self.talk(conversation, from, &proven).await {
            if matches!(error, StreamEnd::Idle(_) | StreamEnd::Stalled { .. }) {
                self.counters().connections_idle.bump();
            }
            tracing::debug!(%from, %peer, %error, "connection ended");
        }
        drop(place);
    }

    /// The handshake, and whose certificate it is. Refusals are logged with the identity.
    async fn prove(
        &self,
        tcp: TcpStream,
        from: SocketAddr,
    ) -> Option<(Conversation<impl AsyncRead + AsyncWrite + Unpin + use<>>, Proven, PeerName)> {
        // Answers are written whole; waiting for more to send would only delay them.
        let _ = tcp.set_nodelay(true);
        let acceptor = self.acceptor.load_full();
        let accepted = match acceptor.accept(tcp, self.limits.handshake).await {
            Ok(accepted) => accepted,
            Err(error) => {
                self.counters().handshakes_refused.bump();
                if self.log.pass() {
                    tracing::warn!(%from, %error, "connection refused");
                }
                return None;
            }
        };
        let conversation = Conversation::new(accepted.stream);
        // None but where it is not demanded.
        let identity = accepted.identity?;
        let view = self.front.catalogue().view();
        let refused = match view.peers().by_identity(&identity) {
            Ok(peer) if accepted.alpn => {
                acceptor.saw(Holder::Peer, &peer, &accepted.chain);
                let proven = Proven { identity, chain: accepted.chain };
                return Some((conversation, proven, peer));
            }
            Ok(peer) => format!("peer {peer} did not offer \"dot\" by ALPN (RFC 9103 §7.1)"),
            Err(error) => error.to_string(),
        };
        self.counters().handshakes_refused.bump();
        if self.log.pass() {
            tracing::warn!(%from, error = refused, "connection refused");
        }
        conversation.goodbye().await;
        None
    }

    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut conversation: Conversation<S>,
        from: SocketAddr,
        proven: &Proven,
    ) -> Result<(), StreamEnd> {
        for _ in 0..self.limits.queries_max {
            let Some(octets) = conversation.next(self.limits.idle).await? else { break };
            let view = self.front.catalogue().view();
            let Ok(peer) = view.peers().by_identity(&proven.identity) else {
                tracing::info!(%from, identity = %proven.identity, "peer is no longer listed");
                break;
            };
            if !self.acceptor.load().still_accepts(&proven.chain) {
                tracing::info!(%from, %peer, "peer's certificate is no longer accepted");
                break;
            }
            let message = Message::parse(&octets).ok().filter(is_transfer_query);
            if let Some(message) = message {
                self.transfer(&mut conversation, &message, from, &peer).await?;
            } else {
                let asker = std::slice::from_ref(&peer);
                let answer = self.front.answer(&octets, from, asker, Transport::Stream).await;
                if let Some(answer) = answer {
                    conversation.send(&answer, self.limits.write).await?;
                }
            }
        }
        conversation.goodbye().await;
        Ok(())
    }

    async fn transfer<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        conversation: &mut Conversation<S>,
        query: &Message,
        from: SocketAddr,
        peer: &PeerName,
    ) -> Result<(), StreamEnd> {
        let (version, whole) = match self.judge(query, peer) {
            Verdict::Whole(version) => (version, true),
            Verdict::Current(version) => (version, false),
            Verdict::Refuse(code) => {
                self.counters().transfers_out_refused.bump();
                let code_text = rcode::text(code);
                tracing::warn!(%from, %peer, query = shown(query), answer = code_text, "transfer refused");
                let answer = refusal(query.header(), Some(query), code);
                return conversation.send(&answer, self.limits.write).await;
            }
        };
        let (zone, serial) = (version.apex().clone(), version.serial());
        let since = Instant::now();
        let sending = send(conversation, query, &version, whole, self.limits.write);
        let sent = timeout(self.limits.transfer, sending)
            .await
            .unwrap_or(Err(Broken::Deadline(self.limits.transfer)));
        match sent {
            Ok(octets) if whole => {
                self.counters().transfers_out.bump();
                self.counters().transfer_bytes_out.add(octets);
                let ms = since.elapsed().as_millis();
                tracing::info!(%zone, serial, %peer, %from, octets, ms, "transfer sent");
                Ok(())
            }
            Ok(_) => Ok(()),
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

    fn judge(&self, query: &Message, peer: &PeerName) -> Verdict {
        let Some(question) = query.question() else { return Verdict::Refuse(rcode::FORMERR) };
        let Ok(name) = ZoneName::from_wire(&question.name) else {
            return Verdict::Refuse(rcode::FORMERR);
        };
        if query.section(Section::Additional).any(|record| record.rtype == types::TSIG) {
            // No TSIG key is shared with anyone: the peer is proven by its certificate.
            return Verdict::Refuse(rcode::NOTAUTH);
        }
        let view = self.front.catalogue().view();
        let zone = view.zone(&name).filter(|zone| zone.has_secondary(peer));
        let Some(zone) = zone.filter(|_| question.qclass == CLASS_IN) else {
            return Verdict::Refuse(rcode::REFUSED);
        };
        let Some(version) = zone.current() else { return Verdict::Refuse(rcode::SERVFAIL) };
        if question.qtype == types::AXFR {
            return Verdict::Whole(version);
        }
        let theirs = query.section(Section::Authority).find(|record| {
            record.rtype == types::SOA && record.owner.eq_ignore_ascii_case(name.as_wire())
        });
        match theirs.map(|soa| serial_of(soa.rdata)) {
            None => Verdict::Refuse(rcode::FORMERR),
            Some(theirs) if newer(version.serial(), theirs) => Verdict::Whole(version),
            Some(_) => Verdict::Current(version),
        }
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

/// Sends the answer; says how many octets it had. The version is held until the end, whatever
/// is published meanwhile.
async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    conversation: &mut Conversation<S>,
    query: &Message,
    version: &Published,
    whole: bool,
    write: Duration,
) -> Result<u64, Broken> {
    let mut octets = 0;
    let count = if whole { usize::MAX } else { 1 };
    for message in Messages::new(query, records(version).take(count)) {
        let message = message?;
        octets += message.len() as u64;
        conversation.send(&message, write).await?;
    }
    Ok(octets)
}

/// Serves transfers over TLS until shutdown.
pub async fn serve_xot(listener: TcpListener, xot: Arc<Xot>, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((tcp, from)) => {
                let (stranger, pushed_out) = xot.gate.stranger();
                if pushed_out {
                    xot.counters().connections_over_bound.bump();
                }
                let (xot, shutdown) = (xot.clone(), shutdown.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = xot.connection(tcp, from, stranger) => {}
                        () = shutdown.cancelled() => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the XoT socket");
                tokio::time::sleep(SOCKET_ERROR_PAUSE).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}
