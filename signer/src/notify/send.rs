//! Sending NOTIFY: RFC 1996 §3.1 to §3.6.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_policy::ZoneName;
use countersign_zone::Rtype;
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::counters::Counters;
use crate::peers::PeerName;
use crate::published::Published;
use crate::wire::framing::{Deframer, write_message};
use crate::wire::{
    CLASS_IN, Flags, Header, MESSAGE_BYTES_MAX, Message, MessageWriter, OPCODE_NOTIFY, WireError,
    rcode, types,
};

/// A secondary to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name in the configuration.
    pub peer: PeerName,
    /// Where it takes NOTIFY.
    pub address: SocketAddr,
}

/// How hard is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendLimits {
    /// Attempts over UDP; one more over TCP follows, for networks that drop UDP.
    pub udp_attempts: u32,
    /// How long the first attempt waits for an answer; each next one waits twice as long.
    pub first_wait: Duration,
    /// No wait is longer.
    pub wait_max: Duration,
}

impl Default for SendLimits {
    fn default() -> Self {
        // 2 + 4 + 8 + 16 + 32 s and a last try: RFC 1996 §3.6 suggests five retries at least a
        // minute apart on a quiet Internet; a secondary that is restarting is back within one.
        Self {
            udp_attempts: 5,
            first_wait: Duration::from_secs(2),
            wait_max: Duration::from_secs(60),
        }
    }
}

/// Why an attempt came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// Not sent, or the answer did not come through (a closed port shows here).
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No answer.
    #[error("no answer within {} ms", .0.as_millis())]
    Silence(Duration),
    /// The secondary does not take it.
    #[error("secondary answered {}", rcode::text(*.0))]
    Rcode(u8),
    /// An answer over TCP that is not one.
    #[error("answer is not a DNS message: {0}")]
    Wire(#[from] WireError),
    /// An answer over TCP to something else.
    #[error("answer is not to this NOTIFY")]
    Mismatch,
}

/// Tells secondaries of new versions. One announcement per zone and secondary is under way at
/// a time: a newer one takes the older one's place.
#[derive(Debug)]
pub struct Notifier {
    limits: SendLimits,
    counters: Arc<Counters>,
    shutdown: CancellationToken,
    under_way: Mutex<HashMap<(ZoneName, SocketAddr), AbortHandle>>,
}

impl Notifier {
    /// A notifier that stops at `shutdown`.
    pub fn new(limits: SendLimits, counters: Arc<Counters>, shutdown: CancellationToken) -> Self {
        Self { limits, counters, shutdown, under_way: Mutex::default() }
    }

    /// Tells each target, in the background. Called within a tokio runtime.
    pub fn announce(&self, version: &Published, targets: impl IntoIterator<Item = Target>) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, task| !task.is_finished());
        for target in targets {
            let key = (version.apex().clone(), target.address);
            let task = tokio::spawn(deliver(
                target,
                version.apex().clone(),
                version.serial(),
                announcement(version, 0),
                self.limits.clone(),
                self.counters.clone(),
                self.shutdown.clone(),
            ));
            if let Some(older) = under_way.insert(key, task.abort_handle()) {
                older.abort();
            }
        }
    }
}

/// The NOTIFY for a version: the question, and its SOA as a hint (RFC 1996 §3.7).
pub fn announcement(version: &Published, id: u16) -> Vec<u8> {
    let flags = Flags::request(OPCODE_NOTIFY, Flags::AA);
    let mut writer = MessageWriter::new(Header { id, flags }, MESSAGE_BYTES_MAX);
    let apex = version.apex().as_wire();
    // Two names and a SOA are far below the bound; without them it would still be a NOTIFY.
    let mut fits = writer.question(apex, types::SOA, CLASS_IN);
    if let Some(soa) = version.at_apex(Rtype::SOA)
        && let Some(rdata) = soa.rdatas().next()
    {
        fits = fits.and_then(|()| writer.answer(apex, types::SOA, CLASS_IN, soa.ttl_s(), rdata));
    }
    debug_assert!(fits.is_ok(), "a SOA fits into a message");
    writer.finish()
}

/// Judges an answer: `None` where it is not to this NOTIFY (over UDP, wait on), else the code.
pub fn acknowledges(answer: &Message, id: u16, zone: &ZoneName) -> Option<u8> {
    let Header { id: found, flags } = answer.header();
    if found != id || !flags.response() || flags.opcode() != OPCODE_NOTIFY {
        return None;
    }
    // Some servers answer without the question; one that is there must be ours.
    match answer.questions() {
        [] => Some(flags.rcode()),
        [one] if one.same_as(zone.as_wire(), types::SOA, CLASS_IN) => Some(flags.rcode()),
        _ => None,
    }
}

async fn deliver(
    target: Target,
    zone: ZoneName,
    serial: u32,
    message: Vec<u8>,
    limits: SendLimits,
    counters: Arc<Counters>,
    shutdown: CancellationToken,
) {
    let (peer, address) = (&target.peer, target.address);
    let tries = attempts(address, &zone, message, &limits);
    let outcome = tokio::select! {
        outcome = tries => outcome,
        () = shutdown.cancelled() => return,
    };
    match outcome {
        Ok(attempts) => {
            counters.notifies_sent.bump();
            tracing::info!(%zone, serial, %peer, %address, attempts, "NOTIFY acknowledged");
        }
        Err(error) => {
            counters.notifies_failed.bump();
            tracing::warn!(
                %zone, serial, %peer, %address, %error,
                "NOTIFY given up; the secondary will see the version when its refresh timer ends"
            );
        }
    }
}

/// Tries until it is acknowledged; says at which attempt it was.
async fn attempts(
    address: SocketAddr,
    zone: &ZoneName,
    mut message: Vec<u8>,
    limits: &SendLimits,
) -> Result<u32, NotifyError> {
    let mut wait = limits.first_wait;
    let mut attempt = 1;
    loop {
        let id: u16 = rand::random();
        message[..2].copy_from_slice(&id.to_be_bytes());
        let since = Instant::now();
        let last = attempt > limits.udp_attempts;
        let outcome = if last {
            over_tcp(address, zone, &message, id, wait).await
        } else {
            over_udp(address, zone, &message, id, wait).await
        };
        match outcome {
            Ok(()) => return Ok(attempt),
            Err(error) if last => return Err(error),
            Err(error) => {
                tracing::debug!(%zone, %address, attempt, %error, "NOTIFY not acknowledged");
            }
        }
        // An error that came at once must not turn the waits into a burst.
        tokio::time::sleep_until(since + wait).await;
        wait = (wait * 2).min(limits.wait_max);
        attempt += 1;
    }
}

async fn over_udp(
    address: SocketAddr,
    zone: &ZoneName,
    message: &[u8],
    id: u16,
    wait: Duration,
) -> Result<(), NotifyError> {
    let any = match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let deadline = Instant::now() + wait;
    // Connected: the kernel drops what comes from any other address.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(address).await?;
    socket.send(message).await?;
    let mut buffer = [0; 1024];
    loop {
        let received = timeout_at(deadline, socket.recv(&mut buffer));
        let len = received.await.map_err(|_| NotifyError::Silence(wait))??;
        // What is not an answer to this is not ours to judge: it may be forged or late.
        let answer = buffer.get(..len).and_then(|octets| Message::parse(octets).ok());
        if let Some(code) = answer.and_then(|answer| acknowledges(&answer, id, zone)) {
            return if code == rcode::NOERROR { Ok(()) } else { Err(NotifyError::Rcode(code)) };
        }
    }
}

async fn over_tcp(
    address: SocketAddr,
    zone: &ZoneName,
    message: &[u8],
    id: u16,
    wait: Duration,
) -> Result<(), NotifyError> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        write_message(&mut stream, message).await?;
        let mut deframer = Deframer::new();
        while !deframer.ready() {
            if deframer.fill(&mut stream).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        let answer = Message::parse(deframer.take().unwrap_or_default())?;
        match acknowledges(&answer, id, zone) {
            Some(rcode::NOERROR) => Ok(()),
            Some(code) => Err(NotifyError::Rcode(code)),
            None => Err(NotifyError::Mismatch),
        }
    };
    timeout(wait, exchange).await.unwrap_or(Err(NotifyError::Silence(wait)))
}
