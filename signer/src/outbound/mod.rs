//! Zones out: AXFR over TLS to listed secondaries (RFC 9103, RFC 5936; IXFR by RFC 1995 §2, §4), and
//! over TCP in clear to those that sign with a TSIG key and are listed for it.
//!
//! A connection is a stranger's until it is proven: over TLS by a certificate of a listed peer, or, for
//! a peer that has none, by a first query signed with its key; in clear by such a query. Then its queries
//! are answered one after the other: AXFR and IXFR here, from the published version and nothing
//! else; everything else by the query front. Who may do what is looked up anew for each query,
//! and before each message of a transfer, so a reload counts at once. Each wait is bounded: the handshake,
//! the next whole query, each message to be taken, a transfer as a whole.
//!
//! In TLS 1.3 a client's handshake is done before the server has seen its certificate: a refused
//! peer sees a connection that is closed without an answer.

mod clear;
pub mod differences;
mod serve;
mod standing;
mod transfer;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use clear::{ClearLimits, serve_tcp};
pub use transfer::{MESSAGE_BYTES, Messages, Unsendable, Wire, records};

use crate::counters::Counters;
use crate::gate::{Gate, GateLimits, Stranger, Throttle};
use crate::peers::{PeerName, Unproven, Way};
use crate::query::{Conversation, Front, Opened, SOCKET_ERROR_PAUSE, StreamEnd, Transport};
use crate::tls::{Acceptor, Holder};
use crate::wire::rcode;
use serve::{Desk, Query};
use standing::{Certificate, Proof, Standing};

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
    desk: Desk,
    limits: Limits,
    gate: Arc<Gate<PeerName>>,
    log: Throttle,
}

/// A connection whose other end is proven.
struct Begun<S> {
    conversation: Conversation<S>,
    certificate: Option<Certificate>,
    peer: PeerName,
    /// The query that proved it, where there is no certificate: still to be answered.
    first: Option<Vec<u8>>,
}

impl Xot {
    /// A server for connections that `acceptor` lets in.
    pub fn new(acceptor: Acceptor, front: Arc<Front>, limits: Limits) -> Arc<Self> {
        let gate = Gate::new(limits.gate);
        let log = Throttle::new(LOG_BURST, LOG_REFILL);
        let desk = Desk { front, write: limits.write, transfer: limits.transfer };
        Arc::new(Self { acceptor: ArcSwap::from_pointee(acceptor), desk, limits, gate, log })
    }

    /// New connections are accepted with other certificates from now on.
    pub fn replace_acceptor(&self, acceptor: Acceptor) {
        self.acceptor.store(Arc::new(acceptor));
    }

    fn counters(&self) -> &Counters {
        self.desk.counters()
    }

    /// A connection, from the first octet to the last.
    async fn connection(&self, tcp: TcpStream, from: SocketAddr, stranger: Stranger<PeerName>) {
        let leave = stranger.leave();
        let begun = tokio::select! {
            begun = self.begin(tcp, from) => begun,
            () = leave.cancelled() => {
                // Counted where it was pushed out.
                tracing::debug!(%from, "unproven connection dropped for a newer one");
                return;
            }
        };
        let Some(begun) = begun else { return };
        let peer = begun.peer.clone();
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
        if let Err(error) = self.talk(begun, from).await {
            if matches!(error, StreamEnd::Idle(_) | StreamEnd::Stalled { .. }) {
                self.counters().connections_idle.bump();
            }
            tracing::debug!(%from, %peer, %error, "connection ended");
        }
        drop(place);
    }

    /// The handshake, and who it is. Refusals are logged with the identity.
    async fn begin(
        &self,
        tcp: TcpStream,
        from: SocketAddr,
    ) -> Option<Begun<impl AsyncRead + AsyncWrite + Unpin + use<>>> {
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
        let mut conversation = Conversation::new(accepted.stream);
        let chain = accepted.chain;
        let certificate = accepted.identity.map(|identity| Certificate { identity, chain });
        let found = match &certificate {
            Some(certificate) => {
                let view = self.desk.front.catalogue().view();
                let peer = view.peers().by_identity(&certificate.identity);
                peer.map(|peer| (peer, None)).map_err(|error| error.to_string())
            }
            None => self.first_query(&mut conversation, from).await,
        };
        let refused = match found {
            Ok((peer, first)) if accepted.alpn => {
                if let Some(certificate) = &certificate {
                    acceptor.saw(Holder::Peer, &peer, &certificate.chain);
                }
                return Some(Begun { conversation, certificate, peer, first });
            }
            Ok((peer, _)) => {
                format!("peer {peer} did not offer \"dot\" by ALPN (RFC 9103 §7.1)")
            }
            Err(error) => error,
        };
        self.counters().handshakes_refused.bump();
        if self.log.pass() {
            tracing::warn!(%from, error = refused, "connection refused");
        }
        conversation.goodbye().await;
        None
    }

    /// Without a certificate the first query must say who it is, and within the time that a handshake
    /// may take: until then the connection is a stranger's.
    async fn first_query<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        conversation: &mut Conversation<S>,
        from: SocketAddr,
    ) -> Result<(PeerName, Option<Vec<u8>>), String> {
        let first = conversation.next(self.limits.handshake).await;
        let octets = first.map_err(|e| e.to_string())?.ok_or("no certificate, and no query")?;
        let view = self.desk.front.catalogue().view();
        let (octets, session, error) =
            match self.desk.front.open(&view, &octets, from, Transport::Stream) {
                Opened::Signed(signed) => {
                    let proof = proof(None, Some(signed.session.key().clone()));
                    match proof.peer(&view) {
                        Ok(peer) => return Ok((peer, Some(octets))),
                        Err(error) => (signed.octets, Some(signed.session), error.to_string()),
                    }
                }
                Opened::Plain => (octets, None, "no certificate, and no TSIG".to_owned()),
                Opened::Refused(answer) => {
                    conversation.send(&answer, self.limits.write).await.ok();
                    return Err("no certificate, and a TSIG that is no good".into());
                }
                Opened::Silent => return Err("no certificate, and no query".into()),
            };
        let mut query = Query { octets: &octets, session, from };
        self.desk.refuse(conversation, &mut query, rcode::REFUSED).await.ok();
        Err(error)
    }

    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        begun: Begun<S>,
        from: SocketAddr,
    ) -> Result<(), StreamEnd> {
        let Begun { mut conversation, certificate, mut first, .. } = begun;
        for _ in 0..self.limits.queries_max {
            let octets = match first.take() {
                Some(octets) => octets,
                None => match conversation.next(self.limits.idle).await? {
                    Some(octets) => octets,
                    None => break,
                },
            };
            if !self.query(&mut conversation, certificate.as_ref(), &octets, from).await? {
                break;
            }
        }
        conversation.goodbye().await;
        Ok(())
    }

    /// Answers a query; says whether the connection goes on.
    async fn query<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        conversation: &mut Conversation<S>,
        certificate: Option<&Certificate>,
        octets: &[u8],
        from: SocketAddr,
    ) -> Result<bool, StreamEnd> {
        let front = &self.desk.front;
        let view = front.catalogue().view();
        let (octets, session) = match front.open(&view, octets, from, Transport::Stream) {
            Opened::Signed(signed) => (signed.octets, Some(signed.session)),
            Opened::Plain => (octets.to_vec(), None),
            Opened::Silent => return Ok(true),
            Opened::Refused(answer) => {
                conversation.send(&answer, self.limits.write).await?;
                return Ok(true);
            }
        };
        let key = session.as_ref().map(|session| session.key().clone());
        let proof = proof(certificate.map(|certificate| (certificate, &self.acceptor)), key);
        let mut query = Query { octets: &octets, session, from };
        match Standing::new(front.catalogue(), view, proof) {
            Ok(standing) => {
                self.desk.serve(conversation, query, standing).await?;
                Ok(true)
            }
            // The connection is a listed peer's, and this query is not proven as it must be.
            Err(error @ Unproven::Key { .. }) => {
                self.counters().tsig_refused.bump();
                if self.log.pass() {
                    tracing::warn!(%from, %error, "query refused");
                }
                self.desk.refuse(conversation, &mut query, rcode::REFUSED).await?;
                Ok(true)
            }
            // Without a certificate each query has to prove itself.
            Err(error @ (Unproven::Nothing | Unproven::NoCertificate(_))) => {
                tracing::info!(%from, %error, "query refused");
                self.desk.refuse(conversation, &mut query, rcode::REFUSED).await?;
                Ok(false)
            }
            Err(error) => {
                tracing::info!(%from, %error, "connection ended: it is no listed peer's any more");
                Ok(false)
            }
        }
    }
}

fn proof<'a>(
    certificate: Option<(&'a Certificate, &'a ArcSwap<Acceptor>)>,
    key: Option<Arc<crate::tsig::Key>>,
) -> Proof<'a> {
    Proof { way: Way::Tls, certificate, key }
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
