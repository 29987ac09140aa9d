//! Zones in: AXFR and IXFR from a primary over TLS (RFC 9103, RFC 5936), or over TCP with TSIG (RFC 8945).
//!
//! One connection: handshake, SOA (is there anything newer?), IXFR or AXFR. The primary must prove the
//! identity under which it is listed, by its certificate, or by signing each answer, or both. [`Assembly`] is the pure part, messages in and a zone out;
//! what is around it bounds time: connecting, the handshake, each wait, the rate, the whole.
//! How much a zone may hold is bounded by the zone core's `Bounds`, and as a message without a
//! record is refused, that bounds the number of messages and the octets of the stream as well.

mod assembly;
mod dialogue;
mod ixfr;
mod stream;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign_policy::ZoneName;
use countersign_zone::difference::Base;
use countersign_zone::{Bounds, IncomingDnssec, ReceivedZone};
use rustls_pki_types::{InvalidDnsNameError, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

pub(crate) use assembly::serial_of;
pub use assembly::{AnswerError, Assembled, Assembly, Step, assemble_stream, soa_serial};
use dialogue::Dialogue;
pub use ixfr::{Answered, IxfrAssembly, IxfrError, Manners, assemble_differences};

use crate::counters::Counters;
use crate::peers::{Identity, IdentityRule, PeerName};
use crate::tls::{Connector, HandshakeError};
use crate::tsig::{self, Key};
use crate::wire::{self, OPCODE_QUERY, newer, types};

/// Saying goodbye may take this long; the zone is here already.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// A primary, how to reach it, and how it proves itself: there is none without a proof.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name in the configuration.
    pub peer: PeerName,
    /// Where it serves transfers.
    pub address: SocketAddr,
    way: Way,
    /// Each answer must be signed with it, beside TLS or in its place.
    key: Option<Arc<Key>>,
}

/// How a primary is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    /// Over TLS: its certificate must be for this name, and of this identity if there is one.
    Tls { server_name: ServerName<'static>, identity: Option<IdentityRule> },
    /// In clear: each answer proves itself.
    Tcp,
}

impl Source {
    /// A primary over TLS, proven by its certificate; `server_name` is the name that this must have.
    pub fn new(
        peer: PeerName,
        address: SocketAddr,
        identity: IdentityRule,
        server_name: &str,
    ) -> Result<Self, InvalidDnsNameError> {
        let server_name = ServerName::try_from(server_name.to_owned())?;
        let way = Way::Tls { server_name, identity: Some(identity) };
        Ok(Self { peer, address, way, key: None })
    }

    /// A primary over TLS, whose certificate must be for `server_name` and is nobody's in particular: it
    /// is proven by its key.
    pub fn by_key_over_tls(
        peer: PeerName,
        address: SocketAddr,
        server_name: &str,
        key: Arc<Key>,
    ) -> Result<Self, InvalidDnsNameError> {
        let server_name = ServerName::try_from(server_name.to_owned())?;
        let way = Way::Tls { server_name, identity: None };
        Ok(Self { peer, address, way, key: Some(key) })
    }

    /// A primary over TCP in clear, proven by its key.
    pub fn by_key_over_tcp(peer: PeerName, address: SocketAddr, key: Arc<Key>) -> Self {
        Self { peer, address, way: Way::Tcp, key: Some(key) }
    }

    /// The same, with each answer signed as well.
    #[must_use]
    pub fn signed_with(self, key: Arc<Key>) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Whether both are one primary, reached and proven in one way.
    pub fn same_as(&self, other: &Self) -> bool {
        let same_key = match (&self.key, &other.key) {
            (Some(one), Some(other)) => one.same_as(other),
            (None, None) => true,
            _ => false,
        };
        (&self.peer, self.address, &self.way) == (&other.peer, other.address, &other.way)
            && same_key
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
        /// Whether it came as differences to what was here.
        differences: bool,
    },
}

/// What a primary is asked for differences with.
#[derive(Debug, Clone)]
pub struct Differences<'a> {
    /// Its data as it is here.
    pub base: Base,
    /// What becomes of DNSSEC records.
    pub dnssec: IncomingDnssec,
    /// Which primaries have none.
    pub manners: &'a Manners,
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
    /// Its differences are none that can be applied to what is here.
    #[error("IXFR: {0}")]
    Differences(#[from] IxfrError),
    /// The primary's answer is not signed as it should be.
    #[error("TSIG: {0}")]
    Tsig(#[from] tsig::AnswerError),
    /// A primary that is reached over TLS, and no certificate of ours.
    #[error("it is reached over TLS, and there is no [tls] in the configuration")]
    NoTls,
}

/// Fetches `zone` from `source` unless it is not newer than `have`. Differences are asked for where
/// there is something to apply them to; whatever is odd about them, the whole zone is asked for
/// (RFC 1995 §4). `connector` is for primaries over TLS.
#[expect(clippy::too_many_arguments, reason = "what, from where, beyond what, within what")]
pub async fn fetch(
    connector: Option<&Connector>,
    source: &Source,
    zone: &ZoneName,
    have: Option<u32>,
    differences: Option<&Differences<'_>>,
    bounds: Bounds,
    limits: &Limits,
    counters: &Counters,
) -> Result<Fetched, TransferError> {
    let deadline = Instant::now() + limits.total;
    let exchange = async {
        let dialogue = || async {
            let stream = connect(connector, source, limits, counters).await?;
            Ok::<_, TransferError>(Dialogue::new(stream, limits, source.key.as_ref()))
        };
        let asks = |asked: &&Differences<'_>| {
            have == Some(asked.base.serial()) && asked.manners.gives_differences(&source.peer)
        };
        if let Some(differences) = differences.filter(asks) {
            let mut asked = false;
            let by = Some((differences, &mut asked));
            match exchange(dialogue().await?, zone, have, by, bounds, counters).await {
                // Who knows what is still to come on that connection.
                Err(error) if asked => {
                    counters.ixfr_fallbacks.bump();
                    differences.manners.learn(&source.peer, &error);
                    let peer = &source.peer;
                    tracing::info!(%zone, %peer, %error, "no differences; asking for the whole zone");
                }
                other => return other,
            }
        }
        exchange(dialogue().await?, zone, have, None, bounds, counters).await
    };
    let fetched =
        timeout_at(deadline, exchange).await.unwrap_or(Err(TransferError::Total(limits.total)));
    match &fetched {
        Ok(Fetched::Zone { bytes, differences, .. }) => {
            counters.transfers_in.bump();
            counters.transfers_in_ixfr.add(u64::from(*differences));
            counters.transfer_bytes_in.add(*bytes);
        }
        Ok(Fetched::UpToDate { .. }) => {}
        Err(_) => counters.transfers_in_failed.bump(),
    }
    fetched
}

/// Either kind of stream.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn connect(
    connector: Option<&Connector>,
    source: &Source,
    limits: &Limits,
    counters: &Counters,
) -> Result<Box<dyn Stream>, TransferError> {
    let tcp = timeout(limits.connect, TcpStream::connect(source.address))
        .await
        .map_err(|_| TransferError::ConnectDeadline(limits.connect))?
        .map_err(TransferError::Connect)?;
    tcp.set_nodelay(true)?;
    let (server_name, identity) = match &source.way {
        Way::Tcp => return Ok(Box::new(tcp)),
        Way::Tls { server_name, identity } => (server_name.clone(), identity),
    };
    let connector = connector.ok_or(TransferError::NoTls)?;
    let (stream, found) = connector
        .connect(tcp, server_name, limits.handshake)
        .await
        .inspect_err(|_| counters.handshakes_refused.bump())?;
    if let Some(expected) = identity.clone().filter(|rule| !found.satisfies(rule)) {
        counters.handshakes_refused.bump();
        return Err(TransferError::WrongPeer { found: Box::new(found), expected });
    }
    connector.saw(&source.peer, &stream);
    Ok(Box::new(stream))
}

/// SOA, then IXFR or AXFR. Nothing is made of an answer before it is proven to its end. Says whether
/// it came to asking for differences.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    mut dialogue: Dialogue<'_, S>,
    zone: &ZoneName,
    have: Option<u32>,
    by: Option<(&Differences<'_>, &mut bool)>,
    bounds: Bounds,
    counters: &Counters,
) -> Result<Fetched, TransferError> {
    if let Some(have) = have {
        counters.soa_checks.bump();
        let id = rand::random();
        dialogue.ask(question(id, zone, types::SOA)).await?;
        let serial = soa_serial(&dialogue.message().await?, zone, id)?;
        dialogue.answered().await?;
        if serial.wrapping_sub(have) == 1 << 31 {
            return Err(AnswerError::Unordered { found: serial, have }.into());
        }
        if !newer(serial, have) {
            dialogue.goodbye().await;
            return Ok(Fetched::UpToDate { serial });
        }
    }
    if let Some((differences, asked)) = by {
        *asked = true;
        return by_differences(dialogue, zone, differences, bounds).await;
    }
    let id = rand::random();
    dialogue.ask(question(id, zone, types::AXFR)).await?;
    let mut assembly = Assembly::new(zone.clone(), id, bounds);
    while assembly.take(&dialogue.message().await?)? == Step::More {}
    dialogue.answered().await?;
    let Assembled { zone, serial } = assembly.finish()?;
    if let Some(have) = have.filter(|have| !newer(serial, *have)) {
        return Err(AnswerError::NotNewer { found: serial, have }.into());
    }
    let bytes = dialogue.bytes();
    dialogue.goodbye().await;
    Ok(Fetched::Zone { zone, serial, bytes, differences: false })
}

/// IXFR. What differences make is worked out once the answer is proven.
async fn by_differences<S: AsyncRead + AsyncWrite + Unpin>(
    mut dialogue: Dialogue<'_, S>,
    zone: &ZoneName,
    differences: &Differences<'_>,
    bounds: Bounds,
) -> Result<Fetched, TransferError> {
    let Differences { base, dnssec, .. } = differences;
    let id = rand::random();
    dialogue.ask(ixfr::query(id, zone, base).ok_or(IxfrError::NoBase)?).await?;
    let mut assembly = IxfrAssembly::new(base.clone(), id, bounds, *dnssec);
    while assembly.take(&dialogue.message().await?)? == Step::More {}
    dialogue.answered().await?;
    let bytes = dialogue.bytes();
    dialogue.goodbye().await;
    match assembly.finish()? {
        Answered::Differences(patch, serial) => {
            let made = tokio::task::spawn_blocking(|| patch.finish());
            let zone = made.await.map_err(io::Error::other)?.map_err(IxfrError::from)?;
            Ok(Fetched::Zone { zone, serial, bytes, differences: true })
        }
        Answered::Whole(Assembled { zone, serial }) => {
            Ok(Fetched::Zone { zone, serial, bytes, differences: false })
        }
        // Its SOA was newer a moment ago.
        Answered::UpToDate { serial } => {
            Err(IxfrError::NotNewer { found: serial, have: base.serial() }.into())
        }
    }
}

fn question(id: u16, zone: &ZoneName, qtype: u16) -> Vec<u8> {
    wire::request(id, OPCODE_QUERY, 0, zone.as_wire(), qtype)
}
