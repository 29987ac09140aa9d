//! The keeper's two unix sockets: one for the daemon's user alone, one for the group that
//! reads the ledger and hands in texts. Threads and blocking reads; every count, size and wait has a bound, so that one peer
//! can't hold up the other, nor a hundred idle connections the first.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config;
use crate::frame::{self, FrameError};
use crate::protocol::{
    IN_FLIGHT_MAX, LedgerRequest, LedgerResponse, Refusal, RefusalKind, Request, Response,
};

/// Connections of one socket: the daemon holds one, and a few more while it restarts or its command
/// line asks; each costs a thread.
pub const CONNECTIONS_MAX: usize = 16;
/// Of those on the group's socket, one user's: his idle ones do not keep the others out.
pub const CONNECTIONS_PER_USER_MAX: usize = 4;
/// Octets of requests of one connection that are being worked on: four full frames.
const BYTES_IN_FLIGHT_MAX: usize = 16 << 20;
/// From connecting to a whole hello.
const HELLO_MAX: Duration = Duration::from_secs(5);
/// From the first octet of a frame to its last.
const FRAME_MAX: Duration = Duration::from_secs(10);
/// A peer that does not take an answer for so long is dropped.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Between attempts to accept when the system has no file descriptors or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A message that can be asked, and how its "no" and its hello look.
pub trait Conversation: Send + Sync + 'static {
    /// What is asked.
    type Request: DeserializeOwned + Send;
    /// What is answered.
    type Response: Serialize;
    /// Requests of one connection that are worked on at a time; no more are read meanwhile.
    const IN_FLIGHT: usize;
    /// Whether a request is the hello that opens a connection.
    fn is_hello(request: &Self::Request) -> bool;
    /// A "no".
    fn refused(refusal: Refusal) -> Self::Response;
    /// Whether an answer is a "no": after one to its hello, a connection ends.
    fn is_refusal(response: &Self::Response) -> bool;
    /// Answers a request of this user.
    fn answer(&self, request: Self::Request, user: u32) -> Self::Response;
}

/// What answers on both sockets: an unfounded keeper, or one that serves.
pub trait Keeper: Send + Sync + 'static {
    /// Answers the daemon.
    fn answer_daemon(&self, request: Request) -> Response;
    /// Answers a user of the group.
    fn answer_group(&self, request: LedgerRequest, user: u32) -> LedgerResponse;
}

/// The daemon's conversation.
pub struct WithDaemon<K>(pub Arc<K>);

impl<K: Keeper> Conversation for WithDaemon<K> {
    type Request = Request;
    type Response = Response;
    const IN_FLIGHT: usize = IN_FLIGHT_MAX;
    fn is_hello(request: &Request) -> bool {
        matches!(request, Request::Hello { .. })
    }
    fn refused(refusal: Refusal) -> Response {
        Response::Refused(refusal)
    }
    fn is_refusal(response: &Response) -> bool {
        matches!(response, Response::Refused(_))
    }
    fn answer(&self, request: Request, _: u32) -> Response {
        self.0.answer_daemon(request)
    }
}

/// The group's conversation: ledger reads, and texts that authenticate themselves.
pub struct WithGroup<K>(pub Arc<K>);

impl<K: Keeper> Conversation for WithGroup<K> {
    type Request = LedgerRequest;
    type Response = LedgerResponse;
    // Small questions have answers of a whole frame: one a connection keeps a reader that takes none
    // of them from filling the keeper's memory, and a sender of bad signatures from having more than
    // a few judged at a time.
    const IN_FLIGHT: usize = 1;
    fn is_hello(request: &LedgerRequest) -> bool {
        matches!(request, LedgerRequest::Hello { .. })
    }
    fn refused(refusal: Refusal) -> LedgerResponse {
        LedgerResponse::Refused(refusal)
    }
    fn is_refusal(response: &LedgerResponse) -> bool {
        matches!(response, LedgerResponse::Refused(_))
    }
    fn answer(&self, request: LedgerRequest, user: u32) -> LedgerResponse {
        self.0.answer_group(request, user)
    }
}

/// Who may speak on a socket. The peer is who the kernel says that connected (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// This user alone; not even root.
    User(u32),
    /// Whom the file's permissions let in: the group, its supplementary members, and root.
    ByFile,
}

/// Binds a socket that `group_gid` can connect to. A socket file that nobody listens on any more is
/// removed; anything else at the path is left alone and is an error.
pub fn bind(path: &Path, group_gid: u32) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            if UnixStream::connect(path).is_ok() {
                let text = "another process listens on it";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
            }
            std::fs::remove_file(path)?;
        }
        Ok(_) => {
            let text = "something that is no socket is at this path; remove it";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    // The umask (077) keeps everyone out until the permissions are set.
    let listener = UnixListener::bind(path)?;
    if let Err(error) = nix::unistd::chown(path, None, Some(config::gid(group_gid))) {
        // Nobody in the group could connect, or else everybody on the machine.
        let _ = std::fs::remove_file(path);
        return Err(io::Error::other(format!(
            "it can't be given to the group {group_gid}: {error}. hint: make the keeper's user a \
             member of the group"
        )));
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Counts requests under way, over all connections, so that stopping can wait for them.
#[derive(Debug, Default)]
pub struct UnderWay {
    count: Mutex<usize>,
    none: Condvar,
}

impl UnderWay {
    fn begin(&self) {
        *self.lock() += 1;
    }

    fn end(&self) {
        let mut count = self.lock();
        *count -= 1;
        if *count == 0 {
            self.none.notify_all();
        }
    }

    /// Waits until no request is under way, at most so long; whether none is.
    pub fn wait_none(&self, at_most: Duration) -> bool {
        let waited = self.none.wait_timeout_while(self.lock(), at_most, |count| *count > 0);
        let (count, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *count == 0
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts connections for good, each on a thread of its own.
pub fn serve<C: Conversation>(
    listener: &UnixListener,
    allowed: Allowed,
    conversation: &Arc<C>,
    under_way: &Arc<UnderWay>,
) {
    let open = Arc::new(Mutex::new(Places::default()));
    let per_user = match allowed {
        Allowed::User(_) => CONNECTIONS_MAX,
        Allowed::ByFile => CONNECTIONS_PER_USER_MAX,
    };
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::error!(%error, "accepting a connection");
                std::thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        // Checked before an octet is read.
        let Some(user) = may_speak(&stream, allowed) else { continue };
        let Some(counted) = Counted::one_more(&open, user, per_user, &stream) else {
            tracing::warn!(uid = user, "too many connections; one more is dropped");
            continue;
        };
        let (conversation, under_way) = (Arc::clone(conversation), Arc::clone(under_way));
        let spawned = std::thread::Builder::new().name("connection".to_owned()).spawn(move || {
            let _counted = counted;
            converse(&stream, user, &conversation, &under_way);
            let _ = stream.shutdown(Shutdown::Both);
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "starting a thread for a connection");
        }
    }
}

/// Who holds which places: each user's connections, the oldest first.
#[derive(Default)]
struct Places {
    by_user: BTreeMap<u32, VecDeque<(u64, UnixStream)>>,
    next: u64,
}

impl Places {
    /// A place for one more connection of `user`; `None` if there is none. Where all are taken, whoever
    /// has fewer than another takes that one's oldest: a few users who stay for good keep nobody from
    /// freezing.
    fn take(&mut self, user: u32, per_user: usize, stream: UnixStream) -> Option<u64> {
        let of_user = self.by_user.get(&user).map_or(0, VecDeque::len);
        if of_user >= per_user {
            return None;
        }
        if self.by_user.values().map(VecDeque::len).sum::<usize>() >= CONNECTIONS_MAX {
            let (heaviest, held) = self.by_user.iter_mut().max_by_key(|(_, held)| held.len())?;
            if held.len() <= of_user + 1 {
                return None;
            }
            let (_, oldest) = held.pop_front()?;
            tracing::warn!(uid = heaviest, for_uid = user, "all places are taken; one is given on");
            let _ = oldest.shutdown(Shutdown::Both);
        }
        let id = self.next;
        self.next += 1;
        self.by_user.entry(user).or_default().push_back((id, stream));
        Some(id)
    }

    fn give_back(&mut self, user: u32, id: u64) {
        if let Some(held) = self.by_user.get_mut(&user) {
            held.retain(|(other, _)| *other != id);
            if held.is_empty() {
                self.by_user.remove(&user);
            }
        }
    }
}

/// Gives a connection's place back, however its thread ends.
struct Counted {
    open: Arc<Mutex<Places>>,
    user: u32,
    id: u64,
}

impl Counted {
    /// A place, if there is one for this user.
    fn one_more(
        open: &Arc<Mutex<Places>>,
        user: u32,
        per_user: usize,
        stream: &UnixStream,
    ) -> Option<Self> {
        let stream = stream.try_clone().ok()?;
        let mut places = open.lock().unwrap_or_else(PoisonError::into_inner);
        let id = places.take(user, per_user, stream)?;
        Some(Self { open: Arc::clone(open), user, id })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut places = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        places.give_back(self.user, self.id);
    }
}

/// The peer's user, if he may.
fn may_speak(stream: &UnixStream, allowed: Allowed) -> Option<u32> {
    let peer = match rustix::net::sockopt::socket_peercred(stream) {
        Ok(peer) => peer,
        Err(error) => {
            tracing::warn!(%error, "who connected can't be told; dropped");
            return None;
        }
    };
    let (pid, uid, gid) = (peer.pid.as_raw_nonzero(), peer.uid.as_raw(), peer.gid.as_raw());
    match allowed {
        Allowed::User(user) if uid != user => {
            tracing::warn!(%pid, uid, expected = user, "a connection by another user is dropped");
            None
        }
        Allowed::User(_) => Some(uid),
        Allowed::ByFile => {
            tracing::debug!(%pid, uid, gid, "a connection of the group");
            Some(uid)
        }
    }
}

/// One connection, from its hello to its end.
fn converse<C: Conversation>(
    stream: &UnixStream,
    user: u32,
    conversation: &Arc<C>,
    under_way: &Arc<UnderWay>,
) {
    let Ok(writer) = stream.try_clone() else { return };
    let line = Arc::new(Line { writer: Mutex::new(writer), gate: Gate::new(C::IN_FLIGHT) });
    let mut body = Vec::new();
    if !greet(stream, user, conversation, &line, &mut body) {
        return;
    }
    loop {
        match read_frame(stream, &mut body) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "a connection is dropped");
                return;
            }
        }
        let (id, request) = match frame::decode::<C::Request>(&body) {
            Ok(content) => content,
            Err(error) => {
                tracing::warn!(%error, "a connection is dropped");
                let kind = RefusalKind::Malformed;
                line.send(0, &C::refused(Refusal { kind, detail: error.to_string() }));
                return;
            }
        };
        let bytes = body.len();
        line.gate.enter(bytes);
        under_way.begin();
        let work = Work { line: Arc::clone(&line), under_way: Arc::clone(under_way), bytes };
        let conversation = Arc::clone(conversation);
        let spawned = std::thread::Builder::new().name("request".to_owned()).spawn(move || {
            let response = answer(&*conversation, request, user);
            work.line.send(id, &response);
            drop(work);
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "starting a thread for a request");
            return;
        }
    }
}

/// The first exchange: a hello, in time, and an answer that is no refusal.
fn greet<C: Conversation>(
    stream: &UnixStream,
    user: u32,
    conversation: &Arc<C>,
    line: &Line,
    body: &mut Vec<u8>,
) -> bool {
    let mut reader = Deadlined { stream, by: Instant::now() + HELLO_MAX };
    let request = match frame::read(&mut reader, body) {
        Ok(true) => frame::decode::<C::Request>(body),
        Ok(false) => return false,
        Err(error) => Err(error),
    };
    match request {
        Ok((id, request)) if C::is_hello(&request) => {
            let response = answer(&**conversation, request, user);
            line.send(id, &response) && !C::is_refusal(&response)
        }
        Ok((id, _)) => {
            let detail = "the first message is not a hello".to_owned();
            line.send(id, &C::refused(Refusal { kind: RefusalKind::Malformed, detail }));
            false
        }
        Err(error) => {
            tracing::warn!(%error, "a connection is dropped before its hello");
            false
        }
    }
}

/// Answers a request; a panic in it is an answer too, and costs nobody else anything.
fn answer<C: Conversation>(conversation: &C, request: C::Request, user: u32) -> C::Response {
    catch_unwind(AssertUnwindSafe(|| conversation.answer(request, user))).unwrap_or_else(|_| {
        tracing::error!("answering a request panicked; please report it");
        let detail = "the keeper met an error of its own; its log has it".to_owned();
        C::refused(Refusal { kind: RefusalKind::HsmUnavailable, detail })
    })
}

/// A request under way: ends in the books however its thread ends.
struct Work {
    line: Arc<Line>,
    under_way: Arc<UnderWay>,
    bytes: usize,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.line.gate.leave(self.bytes);
        self.under_way.end();
    }
}

/// The writing half of a connection, and its share of the keeper.
struct Line {
    writer: Mutex<UnixStream>,
    gate: Gate,
}

impl Line {
    /// Sends an answer; whether it went out. A peer that does not take it is dropped.
    fn send(&self, id: u64, response: &impl Serialize) -> bool {
        let frame = match frame::encode(id, response) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::error!(%error, "an answer is no frame");
                let _ = self.lock().shutdown(Shutdown::Both);
                return false;
            }
        };
        let mut writer = self.lock();
        let by = Instant::now() + WRITE_MAX;
        let sent = write_by(&mut writer, &frame, by);
        if let Err(error) = &sent {
            tracing::warn!(%error, "an answer was not taken; the connection is dropped");
            let _ = writer.shutdown(Shutdown::Both);
        }
        sent.is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, UnixStream> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bounds what one connection has under way.
struct Gate {
    requests_max: usize,
    inside: Mutex<(usize, usize)>,
    room: Condvar,
}

impl Gate {
    fn new(requests_max: usize) -> Self {
        Self { requests_max, inside: Mutex::default(), room: Condvar::new() }
    }

    /// Waits for room: until then no further frame is read.
    fn enter(&self, bytes: usize) {
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |(requests, held): &mut (usize, usize)| {
            *requests >= self.requests_max || (*requests > 0 && *held + bytes > BYTES_IN_FLIGHT_MAX)
        };
        let waited = self.room.wait_while(inside, full);
        let mut inside = waited.unwrap_or_else(PoisonError::into_inner);
        inside.0 += 1;
        inside.1 += bytes;
    }

    fn leave(&self, bytes: usize) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.0 -= 1;
        inside.1 -= bytes;
        drop(inside);
        self.room.notify_one();
    }
}

/// Waits for a frame without a bound (an idle daemon is no fault), then takes it within one.
fn read_frame(mut stream: &UnixStream, body: &mut Vec<u8>) -> Result<bool, FrameError> {
    stream.set_read_timeout(None)?;
    let mut first = [0];
    loop {
        match stream.read(&mut first) {
            Ok(0) => return Ok(false),
            Ok(_) => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    let rest = Deadlined { stream, by: Instant::now() + FRAME_MAX };
    frame::read(&mut (&first[..]).chain(rest), body)
}

/// Reads that all end by one moment, however slowly octets drip.
struct Deadlined<'a> {
    stream: &'a UnixStream,
    by: Instant,
}

impl Read for Deadlined<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.by)?))?;
        self.stream.read(buffer)
    }
}

fn write_by(writer: &mut UnixStream, mut octets: &[u8], by: Instant) -> io::Result<()> {
    while !octets.is_empty() {
        writer.set_write_timeout(Some(left(by)?))?;
        match writer.write(octets) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => octets = &octets[count..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn left(by: Instant) -> io::Result<Duration> {
    let left = by.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests;
