//! TCP in clear (RFC 7766): apex queries and NOTIFY from listed addresses, and everything from peers that
//! sign with a TSIG key. A transfer takes a key, and a peer that is listed for transfers this way.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::serve::{Desk, Query};
use super::standing::{Proof, Standing};
use crate::gate::{Gate, GateLimits, Stranger};
use crate::peers::Way;
use crate::query::{Conversation, Front, Opened, SOCKET_ERROR_PAUSE, StreamEnd, Transport};
use crate::wire::rcode;

/// Bounds of TCP in clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClearLimits {
    /// How many connections; a peer is an address here.
    pub gate: GateLimits,
    /// The next whole query must come within this.
    pub idle: Duration,
    /// An answer must be taken within this.
    pub write: Duration,
    /// A transfer must be done within this.
    pub transfer: Duration,
    /// Queries on one connection.
    pub queries_max: u32,
}

impl Default for ClearLimits {
    fn default() -> Self {
        Self {
            gate: GateLimits { strangers_max: 16, per_peer_max: 8, total_max: 128 },
            idle: Duration::from_secs(10),
            write: Duration::from_secs(5),
            transfer: Duration::from_secs(3600),
            queries_max: 1000,
        }
    }
}

/// What is done with one query.
enum Next {
    GoOn,
    Leave,
}

/// Answers queries over TCP until shutdown.
pub async fn serve_tcp(
    listener: TcpListener,
    front: Arc<Front>,
    limits: ClearLimits,
    shutdown: CancellationToken,
) {
    let gate = Gate::new(limits.gate);
    let desk = Desk { front, write: limits.write, transfer: limits.transfer };
    let shared = Arc::new((desk, limits));
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
                    shared.0.counters().connections_over_bound.bump();
                }
                let (shared, shutdown) = (shared.clone(), shutdown.clone());
                connections.spawn(async move {
                    let (desk, limits) = &*shared;
                    tokio::select! {
                        () = connection(stream, from, stranger, desk, limits) => {}
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
    desk: &Desk,
    limits: &ClearLimits,
) {
    let mut conversation = Conversation::new(stream);
    let listed = !desk.front.catalogue().view().peers().by_address(from.ip()).is_empty();
    let first = if listed {
        None
    } else {
        let leave = stranger.leave();
        let first = tokio::select! {
            first = first_query(&mut conversation, from, desk, limits) => first,
            () = leave.cancelled() => return,
        };
        // One refusal is answer enough.
        let Some(first) = first else { return conversation.goodbye().await };
        Some(first)
    };
    let Ok(_place) = stranger.promote(from.ip().to_canonical()) else {
        desk.counters().connections_over_bound.bump();
        return;
    };
    if let Err(error) = talk(conversation, from, desk, limits, first).await {
        if matches!(error, StreamEnd::Idle(_) | StreamEnd::Stalled { .. }) {
            desk.counters().connections_idle.bump();
        }
        tracing::debug!(%from, %error, "TCP connection ended");
    }
}

/// From an address that nobody lists: one query, which must be signed with a peer's key. Anything else
/// is answered here and now.
async fn first_query(
    conversation: &mut Conversation<TcpStream>,
    from: SocketAddr,
    desk: &Desk,
    limits: &ClearLimits,
) -> Option<Vec<u8>> {
    let octets = match conversation.next(limits.idle).await {
        Ok(octets) => octets?,
        Err(error) => {
            if matches!(error, StreamEnd::Idle(_)) {
                desk.counters().connections_idle.bump();
            }
            return None;
        }
    };
    let view = desk.front.catalogue().view();
    let answer = match desk.front.open(&view, &octets, from, Transport::Stream) {
        Opened::Signed(_) => return Some(octets),
        Opened::Plain => desk.front.answer(&octets, from, &[], Transport::Stream, None).await,
        Opened::Refused(answer) => Some(answer),
        Opened::Silent => None,
    };
    if let Some(answer) = answer {
        conversation.send(&answer, limits.write).await.ok();
    }
    None
}

async fn talk(
    mut conversation: Conversation<TcpStream>,
    from: SocketAddr,
    desk: &Desk,
    limits: &ClearLimits,
    mut first: Option<Vec<u8>>,
) -> Result<(), StreamEnd> {
    for _ in 0..limits.queries_max {
        let octets = match first.take() {
            Some(octets) => octets,
            None => match conversation.next(limits.idle).await? {
                Some(octets) => octets,
                None => return Ok(()),
            },
        };
        if let Next::Leave = query(&mut conversation, &octets, from, desk).await? {
            break;
        }
    }
    conversation.goodbye().await;
    Ok(())
}

async fn query(
    conversation: &mut Conversation<TcpStream>,
    octets: &[u8],
    from: SocketAddr,
    desk: &Desk,
) -> Result<Next, StreamEnd> {
    let view = desk.front.catalogue().view();
    let askers = view.peers().by_address(from.ip());
    // Where no peer lists the address, each query has to prove itself: the first may have been recorded
    // elsewhere and sent again, and must not hold a peer's place.
    let unproven = if askers.is_empty() { Next::Leave } else { Next::GoOn };
    let signed = match desk.front.open(&view, octets, from, Transport::Stream) {
        Opened::Silent => return Ok(unproven),
        Opened::Refused(answer) => {
            conversation.send(&answer, desk.write).await?;
            return Ok(unproven);
        }
        Opened::Plain => {
            let answer = desk.front.answer(octets, from, askers, Transport::Stream, None).await;
            if let Some(answer) = answer {
                conversation.send(&answer, desk.write).await?;
            }
            return Ok(unproven);
        }
        Opened::Signed(signed) => signed,
    };
    let key = Some(signed.session.key().clone());
    let proof = Proof { way: Way::Clear, certificate: None, key };
    let mut query = Query { octets: &signed.octets, session: Some(signed.session), from };
    match Standing::new(desk.front.catalogue(), view, proof) {
        Ok(standing) => desk.serve(conversation, query, standing).await?,
        Err(error) => {
            // The key is known, and nobody's: a peer that went between two looks.
            tracing::info!(%from, %error, "query refused");
            desk.refuse(conversation, &mut query, rcode::REFUSED).await?;
            return Ok(Next::Leave);
        }
    }
    Ok(Next::GoOn)
}
