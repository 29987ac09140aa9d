//! The clear sockets: UDP and TCP (RFC 7766), for listed addresses.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Conversation, Front, StreamEnd, Transport};
use crate::gate::{Gate, GateLimits, Stranger};

/// A query with every option that exists is far smaller; what is longer is cut and then refused.
const UDP_REQUEST_BYTES_MAX: usize = 4096;
/// After an error of accept or receive (out of descriptors, say) this long is waited.
pub(crate) const SOCKET_ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Bounds of TCP in clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClearLimits {
    /// How many connections; a peer is an address here.
    pub gate: GateLimits,
    /// The next whole query must come within this.
    pub idle: Duration,
    /// An answer must be taken within this.
    pub write: Duration,
    /// Queries on one connection.
    pub queries_max: u32,
}

impl Default for ClearLimits {
    fn default() -> Self {
        Self {
            gate: GateLimits { strangers_max: 16, per_peer_max: 8, total_max: 128 },
            idle: Duration::from_secs(10),
            write: Duration::from_secs(5),
            queries_max: 1000,
        }
    }
}

/// Answers datagrams, one after the other, until shutdown. No answer waits for anything.
pub async fn serve_udp(socket: UdpSocket, front: Arc<Front>, shutdown: CancellationToken) {
    let mut buffer = vec![0; UDP_REQUEST_BYTES_MAX];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = shutdown.cancelled() => return,
        };
        let (len, from) = match received {
            Ok(received) => received,
            // An ICMP error to an earlier answer: no reason to stop, nor to wait.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot receive on the UDP socket");
                tokio::time::sleep(SOCKET_ERROR_PAUSE).await;
                continue;
            }
        };
        let Some(octets) = buffer.get(..len) else { continue };
        let view = front.catalogue().view();
        let askers = view.peers().by_address(from.ip());
        if let Some(answer) = front.answer(octets, from, askers, Transport::Udp).await
            && let Err(error) = socket.send_to(&answer, from).await
        {
            tracing::debug!(%from, %error, "answer not sent");
        }
    }
}

/// Answers queries over TCP until shutdown.
pub async fn serve_tcp(
    listener: TcpListener,
    front: Arc<Front>,
    limits: ClearLimits,
    shutdown: CancellationToken,
) {
    let gate = Gate::new(limits.gate);
    let limits = Arc::new(limits);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, from)) => {
                let (stranger, pushed_out) = gate.stranger();
                if pushed_out {
                    front.counters().connections_over_bound.bump();
                }
                let (front, limits) = (front.clone(), limits.clone());
                let shutdown = shutdown.clone();
                connections.spawn(async move {
                    tokio::select! {
                        () = connection(stream, from, stranger, &front, &limits) => {}
                        () = shutdown.cancelled() => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the TCP socket");
                tokio::time::sleep(SOCKET_ERROR_PAUSE).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    from: SocketAddr,
    stranger: Stranger<IpAddr>,
    front: &Front,
    limits: &ClearLimits,
) {
    let conversation = Conversation::new(stream);
    let listed = !front.catalogue().view().peers().by_address(from.ip()).is_empty();
    let ended = if listed {
        let Ok(_place) = stranger.promote(from.ip().to_canonical()) else {
            front.counters().connections_over_bound.bump();
            return;
        };
        talk(conversation, from, front, limits, limits.queries_max).await
    } else {
        let leave = stranger.leave();
        tokio::select! {
            // One refusal is answer enough.
            ended = talk(conversation, from, front, limits, 1) => ended,
            () = leave.cancelled() => Ok(()),
        }
    };
    if let Err(error) = ended {
        if matches!(error, StreamEnd::Idle(_) | StreamEnd::Stalled { .. }) {
            front.counters().connections_idle.bump();
        }
        tracing::debug!(%from, %error, "TCP connection ended");
    }
}

async fn talk(
    mut conversation: Conversation<TcpStream>,
    from: SocketAddr,
    front: &Front,
    limits: &ClearLimits,
    queries_max: u32,
) -> Result<(), StreamEnd> {
    for _ in 0..queries_max {
        let Some(octets) = conversation.next(limits.idle).await? else { return Ok(()) };
        let view = front.catalogue().view();
        let askers = view.peers().by_address(from.ip());
        if let Some(answer) = front.answer(&octets, from, askers, Transport::Stream).await {
            conversation.send(&answer, limits.write).await?;
        }
    }
    conversation.goodbye().await;
    Ok(())
}
