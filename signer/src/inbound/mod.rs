//! Zones in: AXFR over TLS from a primary (RFC 9103, RFC 5936).
//!
//! One connection: handshake, SOA (is there anything newer?), AXFR. The primary must prove the
//! identity under which it is listed. [`Assembly`] is the pure part, messages in and a zone out;
//! what is around it bounds time: connecting, the handshake, each wait, the rate, the whole.
//! How much a zone may hold is bounded by the zone core's `Bounds`, and as a message without a
//! record is refused, that bounds the number of messages and the octets of the stream as well.

mod assembly;
mod ixfr;
mod stream;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use countersign_policy::ZoneName;
use countersign_zone::{Bounds, ReceivedZone};
use rustls_pki_types::{InvalidDnsNameError, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

pub(crate) use assembly::serial_of;
pub use assembly::{AnswerError, Assembled, Assembly, Step, assemble_stream, soa_serial};
pub use ixfr::{Answered, IxfrAssembly, IxfrError, Manners, assemble_differences};
use stream::Paced;

use crate::counters::Counters;
use crate::peers::{Identity, IdentityRule, PeerName};
use crate::tls::{Connector, HandshakeError};
use crate::wire::{self, MESSAGE_BYTES_MAX, OPCODE_QUERY, framing, newer, types};

/// Saying goodbye may take this long; the zone is here already.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// A primary, and how to reach it.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name in the configuration.
    pub peer: PeerName,
    /// Where it serves transfers over TLS.
    pub address: SocketAddr,
    /// The identity that it must prove.
    pub identity: IdentityRule,
    /// The name that its certificate must be for.
    server_name: ServerName<'static>,
}

impl Source {
    /// `server_name` is the name that the primary's certificate must have.
    pub fn new(
        peer: PeerName,
        address: SocketAddr,
        identity: IdentityRule,
        server_name: &str,
    ) -> Result<Self, InvalidDnsNameError> {
        let server_name = ServerName::try_from(server_name.to_owned())?;
        Ok(Self { peer, address, identity, server_name })
    }
}

/// How long things may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The TCP connection.
    pub connect: Duration,
    /// The TLS handshake.
    pub handshake: Duration,
    /// The next octets. A primary that has a large zone to gather needs a while for the first.
    pub idle: Duration,
    /// All of it.
    pub total: Duration,
    /// The rate is looked at each time that this much waiting has added up.
    pub rate_window: Duration,
    /// Fewer octets per second of waiting is a primary that holds us up: it is dropped.
    pub rate_bytes_per_s_min: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            total: Duration::from_secs(3600),
            rate_window: Duration::from_secs(30),
            rate_bytes_per_s_min: 1024,
        }
    }
}

/// What a fetch brought.
#[derive(Debug)]
pub enum Fetched {
    /// The primary has nothing newer than what is here.
    UpToDate {
        /// The primary's serial; not newer, maybe older.
        serial: u32,
    },
    /// The primary's zone.
    Zone {
        /// The zone as received.
        zone: ReceivedZone,
        /// The serial of its SOA.
        serial: u32,
        /// Octets of the whole exchange, as they came out of TLS.
        bytes: u64,
    },
}

/// Why a zone did not come in. What arrived of it is dropped.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// No TCP connection.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// No TCP connection in time.
    #[error("no connection within {} ms", .0.as_millis())]
    ConnectDeadline(Duration),
    /// No TLS connection.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// A certificate of our CA for the right name, and not the listed identity.
    #[error("primary showed {found}, expected {expected}")]
    WrongPeer {
        /// Who it is.
        found: Box<Identity>,
        /// Who it should be.
        expected: IdentityRule,
    },
    /// The connection broke. In TLS 1.3 a refusal of our certificate shows here.
    #[error("connection broke: {0}")]
    Io(#[from] io::Error),
    /// Nothing came for too long.
    #[error("nothing received for {} ms", .0.as_millis())]
    Idle(Duration),
    /// Octets came, too few.
    #[error("too slow: {bytes} octets in {} ms, at least {bytes_per_s_min} a second expected", .waited.as_millis())]
    TooSlow {
        /// Octets that came.
        bytes: u64,
        /// Time spent waiting for them.
        waited: Duration,
        /// The least that is put up with.
        bytes_per_s_min: u64,
    },
    /// Not done in time.
    #[error("not done within {} s", .0.as_secs())]
    Total(Duration),
    /// The stream ended before the answer did.
    #[error(
        "stream ended after {messages} messages, in the middle of the answer ({octets} octets of the next message were there)"
    )]
    EndedEarly {
        /// Whole messages received.
        messages: u64,
        /// Octets of a message that was not completed.
        octets: usize,
    },
    /// The primary's answer is not the transfer asked for.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

/// Fetches `zone` from `source` unless it is not newer than `have`.
pub async fn fetch(
    connector: &Connector,
    source: &Source,
    zone: &ZoneName,
    have: Option<u32>,
    bounds: Bounds,
    limits: &Limits,
    counters: &Counters,
) -> Result<Fetched, TransferError> {
    let deadline = Instant::now() + limits.total;
    let exchange = async {
        let stream = connect(connector, source, limits, counters).await?;
        exchange(stream, zone, have, bounds, limits, counters).await
    };
    let fetched =
        timeout_at(deadline, exchange).await.unwrap_or(Err(TransferError::Total(limits.total)));
    match &fetched {
        Ok(Fetched::Zone { bytes, .. }) => {
            counters.transfers_in.bump();
            counters.transfer_bytes_in.add(*bytes);
        }
        Ok(Fetched::UpToDate { .. }) => {}
        Err(_) => counters.transfers_in_failed.bump(),
    }
    fetched
}

async fn connect(
    connector: &Connector,
    source: &Source,
    limits: &Limits,
    counters: &Counters,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<>, TransferError> {
    let tcp = timeout(limits.connect, TcpStream::connect(source.address))
        .await
        .map_err(|_| TransferError::ConnectDeadline(limits.connect))?
        .map_err(TransferError::Connect)?;
    tcp.set_nodelay(true)?;
    let (stream, found) = connector
        .connect(tcp, source.server_name.clone(), limits.handshake)
        .await
        .inspect_err(|_| counters.handshakes_refused.bump())?;
    if !found.satisfies(&source.identity) {
        counters.handshakes_refused.bump();
        let expected = source.identity.clone();
        return Err(TransferError::WrongPeer { found: Box::new(found), expected });
    }
    connector.saw(&source.peer, &stream);
    Ok(stream)
}

/// SOA, then AXFR, on a connection whose other end is proven.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    zone: &ZoneName,
    have: Option<u32>,
    bounds: Bounds,
    limits: &Limits,
    counters: &Counters,
) -> Result<Fetched, TransferError> {
    let mut paced = Paced::new(limits);
    if let Some(have) = have {
        counters.soa_checks.bump();
        let id = rand::random();
        ask(&mut stream, id, zone, types::SOA, limits).await?;
        let serial = soa_serial(paced.message(&mut stream).await?, zone, id)?;
        paced.nothing_left(&mut stream).await?;
        if !newer(serial, have) {
            goodbye(stream).await;
            return Ok(Fetched::UpToDate { serial });
        }
    }
    let id = rand::random();
    ask(&mut stream, id, zone, types::AXFR, limits).await?;
    let mut assembly = Assembly::new(zone.clone(), id, bounds);
    while assembly.take(paced.message(&mut stream).await?)? == Step::More {}
    paced.nothing_left(&mut stream).await?;
    let Assembled { zone, serial } = assembly.finish()?;
    if let Some(have) = have.filter(|have| !newer(serial, *have)) {
        return Err(AnswerError::NotNewer { found: serial, have }.into());
    }
    let bytes = paced.bytes();
    goodbye(stream).await;
    Ok(Fetched::Zone { zone, serial, bytes })
}

async fn ask<S: AsyncWrite + Unpin>(
    stream: &mut S,
    id: u16,
    zone: &ZoneName,
    qtype: u16,
    limits: &Limits,
) -> Result<(), TransferError> {
    let request = wire::request(id, OPCODE_QUERY, 0, zone.as_wire(), qtype);
    debug_assert!(request.len() <= MESSAGE_BYTES_MAX, "one question");
    timeout(limits.idle, framing::write_message(stream, &request))
        .await
        .map_err(|_| TransferError::Idle(limits.idle))??;
    Ok(())
}

/// Closes the TLS session; whether the primary hears it does not matter any more.
async fn goodbye<S: AsyncWrite + Unpin>(mut stream: S) {
    let _ = timeout(GOODBYE_MAX, stream.shutdown()).await;
}
