//! The daemon's end of the keeper's socket: one connection, many requests in flight, no PKCS#11.
//!
//! A [`Client`] connects when it is first needed and again after a loss. Every request has the
//! client's deadline; one that misses it retires its connection, so that a keeper that answers
//! nothing is met afresh, while requests already on the old connection may still end well.

mod ledger;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use countersign_policy::ledger::CdsType;
use countersign_policy::tree::Hash;
use countersign_policy::{KeyId, ZoneName};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

pub use ledger::LedgerClient;

use crate::frame;
use crate::protocol::{
    BATCH_MAX, FRAME_BYTES_MAX, IN_FLIGHT_MAX, KeeperHealth, PROTOCOL_VERSION, Refusal,
    RefusalKind, Request, Response, TBS_BYTES_MAX, ZoneKeys,
};

/// Batches of one [`Client::sign_zone`] in flight at once: enough to hide the socket and keep
/// every session of an HSM busy, few enough that zones signed at the same time take turns.
const BATCHES_IN_FLIGHT: usize = 4;

/// Octets of items in one batch: a frame less room for the zone's name, the key's id and the
/// lengths.
const BATCH_BYTES_MAX: usize = FRAME_BYTES_MAX - 64 * 1024;

/// Why a request brought no answer, or one that says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No keeper listens.
    #[error(
        "keeper at {path}: {problem}. hint: is countersign-keeper running, and is this its `daemon_user`?"
    )]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        problem: String,
    },
    /// The connection ended before the answer came.
    #[error("the connection to the keeper was lost: {0}")]
    Lost(String),
    /// No answer in time.
    #[error("the keeper did not answer within {0:?}")]
    Deadline(Duration),
    /// Daemon and keeper are of different releases.
    #[error("the keeper speaks protocol {theirs}, this is {PROTOCOL_VERSION}; install one release")]
    OtherProtocol {
        /// What it said.
        theirs: u16,
    },
    /// The request exceeds a frame.
    #[error("request not sent: {0}")]
    TooLarge(String),
    /// The keeper said no.
    #[error("the keeper refused: {0}")]
    Refused(Refusal),
    /// The answer is to another sort of question.
    #[error("the keeper's answer is not one to the request ({0})")]
    Unexpected(&'static str),
}

impl ClientError {
    /// Whether the same request may succeed later without anyone changing it.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Lost(_) | Self::Deadline(_) => true,
            Self::Refused(refusal) => refusal.kind.is_transient(),
            Self::OtherProtocol { .. } | Self::TooLarge(_) | Self::Unexpected(_) => false,
        }
    }
}

/// What a keeper says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeeperInfo {
    /// Its version.
    pub version: String,
    /// The appliance's name.
    pub appliance: String,
    /// SHA-256 of the founding's text.
    pub founding: Hash,
}

/// A DNSKEY RRset to be signed by a KSK or CSK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnskeyOrder {
    /// The keys that it holds.
    pub keys: BTreeSet<KeyId>,
    /// The key that signs.
    pub signer: KeyId,
    /// Its TTL.
    pub ttl_s: u32,
    /// RRSIG inception, seconds since 1970 modulo 2^32.
    pub inception: u32,
    /// RRSIG expiration, the same.
    pub expiration: u32,
}

/// A CDS or CDNSKEY RRset to be signed by a KSK or CSK; what it holds is the ledger's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CdsSigning {
    /// Which of the two.
    pub rrset: CdsType,
    /// The key that signs.
    pub signer: KeyId,
    /// Its TTL.
    pub ttl_s: u32,
    /// RRSIG inception, seconds since 1970 modulo 2^32.
    pub inception: u32,
    /// RRSIG expiration, the same.
    pub expiration: u32,
}

/// A connection to the keeper, shared by threads; clones share it too.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    deadline: Duration,
    link: Mutex<Option<Arc<Link>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(link) = locked(&self.link).take() {
            link.close();
        }
    }
}

impl Client {
    /// A client of the keeper that listens at `path`; nothing is opened yet. `deadline` bounds each
    /// request, connecting included.
    pub fn new(path: PathBuf, deadline: Duration) -> Self {
        Self { shared: Arc::new(Shared { path, deadline, link: Mutex::new(None) }) }
    }

    /// Asks and waits. A refusal of the whole request is an error.
    pub fn request(&self, request: Request) -> Result<Response, ClientError> {
        self.start(request)?.wait()
    }

    /// Sends a request; the answer is waited for on what is returned. Blocks while the connection
    /// has [`IN_FLIGHT_MAX`] requests in flight.
    #[expect(clippy::needless_pass_by_value, reason = "a request is used up by being sent")]
    pub fn start(&self, request: Request) -> Result<Pending, ClientError> {
        let by = Instant::now() + self.shared.deadline;
        let link = self.link(by)?;
        match self.send(&link, &request, by) {
            // The keeper was restarted since the last request and has not seen this one.
            Err(ClientError::Lost(_)) => {
                let link = self.link(by)?;
                self.send(&link, &request, by)
            }
            other => other,
        }
    }

    /// What the keeper says of itself.
    pub fn keeper(&self) -> Result<KeeperInfo, ClientError> {
        let by = Instant::now() + self.shared.deadline;
        Ok(self.link(by)?.keeper.clone())
    }

    /// Every bound zone, in order.
    pub fn zones(&self) -> Result<Vec<ZoneName>, ClientError> {
        let mut all: Vec<ZoneName> = Vec::new();
        loop {
            match self.request(Request::Zones { after: all.last().cloned() })? {
                Response::Zones { zones, more } => {
                    let grew = !zones.is_empty();
                    all.extend(zones);
                    if !(more && grew) {
                        return Ok(all);
                    }
                }
                _ => return Err(ClientError::Unexpected("zones")),
            }
        }
    }

    /// Policy and keys of a zone.
    pub fn zone(&self, zone: &ZoneName) -> Result<ZoneKeys, ClientError> {
        match self.request(Request::Zone { zone: zone.clone() })? {
            Response::Zone(keys) => Ok(keys),
            _ => Err(ClientError::Unexpected("zone")),
        }
    }

    /// Signs to-be-signed items with a ZSK or CSK: any number, split into batches here. Answers
    /// are in the order of the items.
    pub fn sign_zone(
        &self,
        zone: &ZoneName,
        key: KeyId,
        items: Vec<Vec<u8>>,
    ) -> Result<Vec<Result<Vec<u8>, Refusal>>, ClientError> {
        let mut answers = Vec::with_capacity(items.len());
        let mut in_flight: VecDeque<(Pending, usize)> = VecDeque::new();
        let mut items = items.into_iter().peekable();
        loop {
            let tbs = next_batch(&mut items);
            let done = tbs.is_empty();
            if !done {
                let count = tbs.len();
                let request = Request::SignZone { zone: zone.clone(), key, tbs };
                in_flight.push_back((self.start(request)?, count));
            }
            while in_flight.len() >= BATCHES_IN_FLIGHT || done {
                let Some((pending, count)) = in_flight.pop_front() else { break };
                match pending.wait()? {
                    Response::Signatures(batch) if batch.len() == count => answers.extend(batch),
                    _ => return Err(ClientError::Unexpected("signatures")),
                }
            }
            // An item that no frame may carry is answered here, in its place.
            if done {
                if items.next_if(|item| item.len() > TBS_BYTES_MAX).is_some() {
                    answers.push(Err(oversized()));
                } else {
                    return Ok(answers);
                }
            }
        }
    }

    /// Signs a zone's DNSKEY RRset with a KSK or CSK; brings the RRSIG's signature field.
    pub fn sign_dnskey(&self, zone: &ZoneName, order: DnskeyOrder) -> Result<Vec<u8>, ClientError> {
        let DnskeyOrder { keys, signer, ttl_s, inception, expiration } = order;
        let zone = zone.clone();
        let request = Request::SignDnskey { zone, keys, signer, ttl_s, inception, expiration };
        match self.request(request)? {
            Response::DnskeySignature(signature) => Ok(signature),
            _ => Err(ClientError::Unexpected("DNSKEY signature")),
        }
    }

    /// Signs a zone's CDS or CDNSKEY RRset with a KSK or CSK; brings the RRSIG's signature field.
    pub fn sign_cds(&self, zone: &ZoneName, order: CdsSigning) -> Result<Vec<u8>, ClientError> {
        let CdsSigning { rrset, signer, ttl_s, inception, expiration } = order;
        let zone = zone.clone();
        let request = Request::SignCds { zone, rrset, signer, ttl_s, inception, expiration };
        match self.request(request)? {
            Response::CdsSignature(signature) => Ok(signature),
            _ => Err(ClientError::Unexpected("CDS signature")),
        }
    }

    /// Tells that a version went out.
    pub fn published(
        &self,
        zone: &ZoneName,
        serial: u32,
        digest: [u8; 32],
    ) -> Result<(), ClientError> {
        match self.request(Request::Published { zone: zone.clone(), serial, digest })? {
            Response::Recorded => Ok(()),
            _ => Err(ClientError::Unexpected("recorded")),
        }
    }

    /// The tokens as they stand, and what people should know of.
    pub fn health(&self) -> Result<KeeperHealth, ClientError> {
        match self.request(Request::Health)? {
            Response::Health(health) => Ok(health),
            _ => Err(ClientError::Unexpected("health")),
        }
    }

    fn link(&self, by: Instant) -> Result<Arc<Link>, ClientError> {
        let mut slot = locked(&self.shared.link);
        if let Some(link) = slot.as_ref().filter(|link| link.takes_more()) {
            return Ok(Arc::clone(link));
        }
        *slot = None;
        let link = Link::open(&self.shared.path, self.left(by)?)?;
        *slot = Some(Arc::clone(&link));
        Ok(link)
    }

    fn left(&self, by: Instant) -> Result<Duration, ClientError> {
        let left = by.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ClientError::Deadline(self.shared.deadline)) } else { Ok(left) }
    }

    fn send(
        &self,
        link: &Arc<Link>,
        request: &Request,
        by: Instant,
    ) -> Result<Pending, ClientError> {
        let deadline = self.shared.deadline;
        let (id, answer) = link.enlist(by).ok_or(ClientError::Deadline(deadline))??;
        let pending = Pending { link: Arc::clone(link), id, answer, by, deadline };
        let frame = frame::encode(id, request).map_err(|e| {
            link.forget(id);
            ClientError::TooLarge(e.to_string())
        })?;
        link.write(&frame, self.left(by)?)?;
        Ok(pending)
    }
}

/// The items of the next batch, up to one that no frame may carry.
fn next_batch(items: &mut std::iter::Peekable<std::vec::IntoIter<Vec<u8>>>) -> Vec<Vec<u8>> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    while batch.len() < BATCH_MAX {
        let fits =
            |item: &Vec<u8>| item.len() <= TBS_BYTES_MAX && bytes + item.len() <= BATCH_BYTES_MAX;
        let Some(item) = items.next_if(fits) else { break };
        bytes += item.len();
        batch.push(item);
    }
    batch
}

fn oversized() -> Refusal {
    Refusal {
        kind: RefusalKind::Malformed,
        detail: format!("to-be-signed item exceeds {TBS_BYTES_MAX} octets; make the RRset smaller"),
    }
}

/// A request that was sent.
#[derive(Debug)]
#[must_use = "the answer comes by `wait`"]
pub struct Pending {
    link: Arc<Link>,
    id: u64,
    answer: Receiver<Result<Response, ClientError>>,
    by: Instant,
    deadline: Duration,
}

impl Pending {
    /// Waits for the answer, up to the client's deadline as of [`Client::start`].
    pub fn wait(self) -> Result<Response, ClientError> {
        let left = self.by.saturating_duration_since(Instant::now());
        match self.answer.recv_timeout(left) {
            Ok(Ok(Response::Refused(refusal))) => Err(ClientError::Refused(refusal)),
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => {
                self.link.retire(self.id);
                Err(ClientError::Deadline(self.deadline))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(ClientError::Lost("closed by this side".to_owned()))
            }
        }
    }
}

/// One connection and the thread that reads it.
#[derive(Debug)]
struct Link {
    stream: UnixStream,
    keeper: KeeperInfo,
    writing: Mutex<()>,
    board: Mutex<Board>,
    room: Condvar,
}

type Answer = Result<Response, ClientError>;

#[derive(Debug, Default)]
struct Board {
    last_id: u64,
    waiting: BTreeMap<u64, SyncSender<Answer>>,
    /// Takes no new requests: one missed its deadline.
    retired: bool,
    ended: Option<String>,
}

impl Link {
    fn open(path: &Path, deadline: Duration) -> Result<Arc<Self>, ClientError> {
        let failed = |problem: String| ClientError::Unreachable { path: path.to_owned(), problem };
        let mut stream = connect(path, deadline).map_err(|e| failed(e.to_string()))?;
        let hello = Request::Hello { protocol: PROTOCOL_VERSION };
        let answer = exchange(&mut stream, &hello).map_err(failed)?;
        let keeper = match answer {
            Response::Hello { protocol, .. } if protocol != PROTOCOL_VERSION => {
                return Err(ClientError::OtherProtocol { theirs: protocol });
            }
            Response::Hello { version, appliance, founding, .. } => {
                KeeperInfo { version, appliance, founding }
            }
            Response::Refused(refusal) => return Err(ClientError::Refused(refusal)),
            _ => return Err(ClientError::Unexpected("hello")),
        };
        stream.set_read_timeout(None).map_err(|e| failed(e.to_string()))?;
        let reader = stream.try_clone().map_err(|e| failed(e.to_string()))?;
        let link = Arc::new(Self {
            stream,
            keeper,
            writing: Mutex::new(()),
            board: Mutex::new(Board::default()),
            room: Condvar::new(),
        });
        let reading = Arc::clone(&link);
        std::thread::Builder::new()
            .name("keeper-client".to_owned())
            .spawn(move || reading.read(reader))
            .map_err(|e| failed(format!("starting a thread: {e}")))?;
        Ok(link)
    }

    fn takes_more(&self) -> bool {
        let board = locked(&self.board);
        !board.retired && board.ended.is_none()
    }

    /// Waits for room and takes an id; `None` if none was free in time.
    fn enlist(&self, by: Instant) -> Option<Result<(u64, Receiver<Answer>), ClientError>> {
        let mut board = locked(&self.board);
        loop {
            if let Some(why) = &board.ended {
                return Some(Err(ClientError::Lost(why.clone())));
            }
            if board.waiting.len() < IN_FLIGHT_MAX {
                break;
            }
            let left = by.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            board = self.room.wait_timeout(board, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        board.last_id += 1;
        let id = board.last_id;
        // Room for the one answer: the reading thread never blocks on a caller.
        let (sender, receiver) = sync_channel(1);
        board.waiting.insert(id, sender);
        Some(Ok((id, receiver)))
    }

    fn forget(&self, id: u64) {
        locked(&self.board).waiting.remove(&id);
        self.room.notify_one();
    }

    fn write(&self, frame: &[u8], left: Duration) -> Result<(), ClientError> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self
            .stream
            .set_write_timeout(Some(left))
            .and_then(|()| (&self.stream).write_all(frame));
        written.map_err(|e| {
            // Half a frame may be out: nothing more can be said on this connection.
            let why = format!("writing: {e}");
            self.end(&why);
            self.close();
            ClientError::Lost(why)
        })
    }

    fn read(&self, mut reader: UnixStream) {
        let mut body = Vec::new();
        let why = loop {
            match frame::read(&mut reader, &mut body) {
                Ok(true) => {}
                Ok(false) => break "the keeper closed it".to_owned(),
                Err(e) => break e.to_string(),
            }
            match frame::decode::<Response>(&body) {
                Ok((id, response)) => self.deliver(id, response),
                Err(e) => break e.to_string(),
            }
        };
        self.end(&why);
        self.close();
    }

    fn deliver(&self, id: u64, response: Response) {
        let mut board = locked(&self.board);
        if let Some(sender) = board.waiting.remove(&id) {
            // Its caller may have gone; then nobody wants the answer.
            let _ = sender.try_send(Ok(response));
        }
        if board.retired && board.waiting.is_empty() {
            self.close();
        }
        drop(board);
        self.room.notify_one();
    }

    /// No answer for `id` in time: whatever comes for it is dropped, nothing new is sent here.
    fn retire(&self, id: u64) {
        let mut board = locked(&self.board);
        board.waiting.remove(&id);
        board.retired = true;
        if board.waiting.is_empty() {
            self.close();
        }
    }

    fn end(&self, why: &str) {
        let mut board = locked(&self.board);
        if board.ended.is_none() {
            board.ended = Some(why.to_owned());
        }
        for (_, sender) in std::mem::take(&mut board.waiting) {
            let _ = sender.try_send(Err(ClientError::Lost(why.to_owned())));
        }
        drop(board);
        self.room.notify_all();
    }

    fn close(&self) {
        // An error means that it is closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Connects with a deadline, and leaves it as the stream's read and write timeout. A keeper that
/// accepts nothing fills its backlog, and a plain `connect` would then wait for good; Linux bounds
/// it by the write timeout.
fn connect(path: &Path, deadline: Duration) -> io::Result<UnixStream> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let stream = UnixStream::from(socket);
    stream.set_write_timeout(Some(deadline))?;
    stream.set_read_timeout(Some(deadline))?;
    rustix::net::connect(&stream, &SocketAddrUnix::new(path)?)?;
    Ok(stream)
}

/// One question and its answer, on a connection with nothing else in flight.
fn exchange<Q: serde::Serialize, A: serde::de::DeserializeOwned>(
    stream: &mut UnixStream,
    question: &Q,
) -> Result<A, String> {
    let frame = frame::encode(0, question).map_err(|e| e.to_string())?;
    stream.write_all(&frame).map_err(|e| e.to_string())?;
    let mut body = Vec::new();
    match frame::read(stream, &mut body) {
        Ok(true) => frame::decode(&body).map(|(_, answer)| answer).map_err(|e| e.to_string()),
        Ok(false) => Err("the keeper closed the connection".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these; a poisoned lock still guards whole data.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
