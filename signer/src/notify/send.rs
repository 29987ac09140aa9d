//! Sending NOTIFY: RFC 1996 §3.1 to §3.6, signed where the secondary has a TSIG key.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_policy::ZoneName;
use countersign_zone::Rtype;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::post::Post;
use crate::clock::now_s;
use crate::counters::Counters;
use crate::peers::PeerName;
use crate::published::Published;
use crate::tsig::{self, Key};
use crate::wire::framing::{Deframer, write_message};
use crate::wire::{
    CLASS_IN, Flags, Header, MESSAGE_BYTES_MAX, Message, MessageWriter, OPCODE_NOTIFY, rcode, types,
};

/// Secondaries that are asked over TCP at once. Those that are dead hold theirs for the whole wait, so a
/// portfolio of them must not take every descriptor; those that live are done in milliseconds.
const TCP_AT_ONCE_MAX: usize = 32;

/// A secondary to be told.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name in the configuration.
    pub peer: PeerName,
    /// Where it takes NOTIFY.
    pub address: SocketAddr,
    /// What it is signed with; the answer must be too.
    pub key: Option<Arc<Key>>,
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
    /// The attempt over TCP takes no longer, waiting for its turn included.
    pub tcp_wait_max: Duration,
}

impl Default for SendLimits {
    fn default() -> Self {
        // 2 + 4 + 8 + 16 + 32 s and a last try: RFC 1996 §3.6 suggests five retries at least a
        // minute apart on a quiet Internet; a secondary that is restarting is back within one.
        Self {
            udp_attempts: 5,
            first_wait: Duration::from_secs(2),
            wait_max: Duration::from_secs(60),
            tcp_wait_max: Duration::from_secs(30),
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
    /// An answer over TCP to something else.
    #[error("answer is not to this NOTIFY")]
    Mismatch,
    /// Answers that were not signed as they must be, and no other.
    #[error("TSIG: {0}")]
    Tsig(#[from] tsig::AnswerError),
    /// Too many others are waited for over TCP.
    #[error("{TCP_AT_ONCE_MAX} other secondaries are waited for over TCP")]
    Busy,
}

/// Tells secondaries of new versions. One announcement per zone and secondary is under way at
/// a time: a newer one takes the older one's place.
#[derive(Debug)]
pub struct Notifier {
    way: Arc<Way>,
    under_way: Mutex<HashMap<(ZoneName, SocketAddr), AbortHandle>>,
}

/// What all announcements share.
#[derive(Debug)]
struct Way {
    limits: SendLimits,
    counters: Arc<Counters>,
    shutdown: CancellationToken,
    post: Post,
    tcp: Semaphore,
}

impl Notifier {
    /// A notifier that stops at `shutdown`.
    pub fn new(limits: SendLimits, counters: Arc<Counters>, shutdown: CancellationToken) -> Self {
        let (post, tcp) = (Post::new(shutdown.clone()), Semaphore::new(TCP_AT_ONCE_MAX));
        let way = Arc::new(Way { limits, counters, shutdown, post, tcp });
        Self { way, under_way: Mutex::default() }
    }

    /// Tells each target, in the background. Called within a tokio runtime.
    pub fn announce(&self, version: &Published, targets: impl IntoIterator<Item = Target>) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, task| !task.is_finished());
        for target in targets {
            let (zone, serial) = (version.apex().clone(), version.serial());
            let under_way_key = (zone.clone(), target.address);
            let parcel = Parcel { target, zone, message: announcement(version, 0) };
            let task = tokio::spawn(deliver(self.way.clone(), parcel, serial));
            if let Some(older) = under_way.insert(under_way_key, task.abort_handle()) {
                older.abort();
            }
        }
    }
}

/// One announcement to one secondary.
#[derive(Debug)]
struct Parcel {
    target: Target,
    zone: ZoneName,
    message: Vec<u8>,
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

async fn deliver(way: Arc<Way>, parcel: Parcel, serial: u32) {
    let outcome = tokio::select! {
        outcome = attempts(&way, &parcel) => outcome,
        () = way.shutdown.cancelled() => return,
    };
    let Parcel { target: Target { peer, address, .. }, zone, .. } = &parcel;
    match outcome {
        Ok(attempts) => {
            way.counters.notifies_sent.bump();
            tracing::info!(%zone, serial, %peer, %address, attempts, "NOTIFY acknowledged");
        }
        Err(error) => {
            way.counters.notifies_failed.bump();
            tracing::warn!(
                %zone, serial, %peer, %address, %error,
                "NOTIFY given up; the secondary will see the version when its refresh timer ends"
            );
        }
    }
}

/// Tries until it is acknowledged; says at which attempt it was.
async fn attempts(way: &Way, parcel: &Parcel) -> Result<u32, NotifyError> {
    let mut wait = way.limits.first_wait;
    let mut attempt = 1;
    loop {
        let since = Instant::now();
        let last = attempt > way.limits.udp_attempts;
        let asked = parcel.ask();
        let outcome = if last {
            over_tcp(way, parcel, asked, wait.min(way.limits.tcp_wait_max)).await
        } else {
            over_udp(way, parcel, asked, wait).await
        };
        match outcome {
            Ok(()) => return Ok(attempt),
            Err(error) if last => return Err(error),
            Err(error) => {
                let (zone, address) = (&parcel.zone, parcel.target.address);
                tracing::debug!(%zone, %address, attempt, %error, "NOTIFY not acknowledged");
            }
        }
        // An error that came at once must not turn the waits into a burst.
        tokio::time::sleep_until(since + wait).await;
        wait = (wait * 2).min(way.limits.wait_max);
        attempt += 1;
    }
}

/// A NOTIFY as it is sent once, and what checks its answer.
struct Asked {
    id: u16,
    message: Vec<u8>,
    answers: Option<tsig::Answers>,
}

impl Parcel {
    /// With an id of its own, and signed now if it is to be signed.
    fn ask(&self) -> Asked {
        let id: u16 = rand::random();
        let mut message = self.message.clone();
        message[..2].copy_from_slice(&id.to_be_bytes());
        let key = self.target.key.as_ref();
        let answers = key.map(|key| tsig::sign_request(key, &mut message, now_s()));
        Asked { id, message, answers }
    }

    /// Judges an answer: `None` where it is none to this NOTIFY.
    fn judge(&self, asked: &Asked, octets: &[u8]) -> Option<Result<(), NotifyError>> {
        let octets = match &asked.answers {
            None => octets.into(),
            // Each may be forged: the chain begins anew for each.
            Some(answers) => match answers.clone().take(octets, now_s()) {
                Ok(octets) => octets,
                Err(error) => return Some(Err(error.into())),
            },
        };
        let answer = Message::parse(&octets).ok()?;
        acknowledges(&answer, asked.id, &self.zone).map(|code| match code {
            rcode::NOERROR => Ok(()),
            code => Err(NotifyError::Rcode(code)),
        })
    }
}

async fn over_udp(
    way: &Way,
    parcel: &Parcel,
    asked: Asked,
    wait: Duration,
) -> Result<(), NotifyError> {
    let deadline = Instant::now() + wait;
    let mut answers = way.post.send(parcel.target.address, asked.id, &asked.message).await?;
    let mut unsigned = None;
    loop {
        let Ok(octets) = timeout_at(deadline, answers.next()).await else {
            return Err(unsigned.unwrap_or(NotifyError::Silence(wait)));
        };
        // What is not an answer to this, or not proven, is not ours to judge: it may be forged or late.
        match parcel.judge(&asked, &octets) {
            Some(Err(error @ NotifyError::Tsig(_))) => unsigned = Some(error),
            Some(outcome) => return outcome,
            None => {}
        }
    }
}

async fn over_tcp(
    way: &Way,
    parcel: &Parcel,
    asked: Asked,
    wait: Duration,
) -> Result<(), NotifyError> {
    let exchange = async {
        let mut stream = TcpStream::connect(parcel.target.address).await?;
        write_message(&mut stream, &asked.message).await?;
        let mut deframer = Deframer::new();
        while !deframer.ready() {
            if deframer.fill(&mut stream).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        let octets = deframer.take().unwrap_or_default();
        parcel.judge(&asked, octets).unwrap_or(Err(NotifyError::Mismatch))
    };
    let deadline = Instant::now() + wait;
    let turn = timeout_at(deadline, way.tcp.acquire()).await;
    let Ok(Ok(_turn)) = turn else { return Err(NotifyError::Busy) };
    timeout_at(deadline, exchange).await.unwrap_or(Err(NotifyError::Silence(wait)))
}
