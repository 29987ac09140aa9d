//! `POST /v1/zones/{zone}/push`: a zone file as the request's body, taken whole or not at all.
//!
//! The body is read as it arrives, by [`crate::zonefile`], on a thread of its own; nothing of it is
//! used before its end was reached: `Content-Length` octets or the last chunk, the digest that was
//! stated (RFC 9530, header or trailer), the number of records that was stated (`?records=`). What is
//! wrong until then is a problem document (RFC 9457). Then the zone goes to its task, and the answer
//! is 200 and a line of JSON for each step (`application/x-ndjson`); the last is the verdict. An
//! answer that ends without one says nothing about what became of the zone.
//!
//! Who may: role `pusher` or more, and named in the zone's `push_from`.
//!
//! Bounds: pushes at once, one a zone, octets of the body, silence, rate, and the whole duration.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use countersign_policy::ZoneName;
use countersign_zone::ReceivedZone;
use countersign_zone::receive::Bounds;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Bytes, Frame};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use super::digest::{Hasher, Sha256};
use super::patience::Patience;
use super::problem::Problem;
use super::routes::{find, send};
use super::{ApiState, Caller};
use crate::config::{Config, Limits, PUSH_LOCAL};
use crate::runner::status::{Command, Progress, Push};
use crate::zonefile::Reader;

/// The media type of zone files (RFC 4027).
pub const MEDIA_TYPE: &str = "text/dns";
/// Octets of text for one octet of owners and RDATA: `\DDD` is four, and names are repeated, and
/// comments come with it.
const TEXT_BYTES_PER_OCTET: u64 = 8;
/// Octets that have to arrive within each `idle_ms`. A sender of one octet now and then would hold a
/// place for the whole duration; half a minute for this much is no honest line.
const RATE_BYTES_MIN: usize = 64 << 10;
/// Pieces of a body that wait for its reader.
const PIECES_MAX: usize = 4;
/// Steps that wait for whoever pushed: all that there are, so that none is lost.
const STEPS_MAX: usize = 16;
/// What is still under way when a push is refused is taken in and dropped for this long: closing at
/// once would reset the connection before the refusal was read.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Pushes that are under way.
#[derive(Debug)]
pub struct Pushes {
    places: Arc<Semaphore>,
    zones: Arc<Mutex<BTreeMap<ZoneName, String>>>,
}

/// One of them; the place is free again with its end.
#[derive(Debug)]
struct Place {
    zone: ZoneName,
    zones: Arc<Mutex<BTreeMap<ZoneName, String>>>,
    _permit: OwnedSemaphorePermit,
}

impl Pushes {
    /// So many at once.
    pub fn new(at_once_max: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(at_once_max)), zones: Arc::default() }
    }

    fn begin(&self, zone: &ZoneName, by: &str) -> Result<Place, Problem> {
        let mut zones = lock(&self.zones);
        if let Some(other) = zones.get(zone) {
            return Err(Problem::conflict(format!(
                "{other} is pushing zone {zone} already; push again once that is done"
            )));
        }
        let permit = self.places.clone().try_acquire_owned().map_err(|_| {
            Problem::busy(
                "as many pushes are under way as `limits.pushes_at_once_max` allows; push again \
                 in a moment",
            )
        })?;
        zones.insert(zone.clone(), by.to_owned());
        Ok(Place { zone: zone.clone(), zones: self.zones.clone(), _permit: permit })
    }
}

#[cfg(test)]
impl Pushes {
    /// Takes the places that are left.
    pub(super) fn fill(&self) -> OwnedSemaphorePermit {
        let left = self.places.available_permits() as u32;
        self.places.clone().try_acquire_many_owned(left).expect("what is left")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.zones).remove(&self.zone);
    }
}

fn lock(zones: &Mutex<BTreeMap<ZoneName, String>>) -> MutexGuard<'_, BTreeMap<ZoneName, String>> {
    zones.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the zone's `push_from` names this caller.
pub fn is_named(config: &Config, zone: &ZoneName, caller: &Caller) -> bool {
    let named = |from: &String| match from.as_str() {
        PUSH_LOCAL => caller.local,
        client => !caller.local && client == caller.name,
    };
    config.zones.get(zone).is_some_and(|zone| zone.push_from.iter().any(named))
}

#[derive(Debug, Deserialize)]
pub(super) struct PushQuery {
    records: Option<u64>,
}

pub(super) async fn push(
    State(state): State<Arc<ApiState>>,
    Path(text): Path<String>,
    Query(query): Query<PushQuery>,
    Extension(caller): Extension<Caller>,
    Extension(patience): Extension<Patience>,
    request: Request,
) -> Response {
    let (parts, mut body) = request.into_parts();
    let taken = take(&state, &text, query, &caller, &patience, &parts.headers, &mut body).await;
    taken.unwrap_or_else(|problem| {
        let reason = &problem.detail;
        tracing::warn!(zone = text, caller = caller.name, reason, "a push was refused");
        drain(&parts.headers, body);
        problem.into_response()
    })
}

/// Takes in what is still under way, for a while.
pub(super) fn drain(headers: &HeaderMap, mut body: Body) {
    // Whoever waits for leave to send sends nothing without.
    if body.is_end_stream() || headers.contains_key(header::EXPECT) {
        return;
    }
    tokio::spawn(tokio::time::timeout(DRAIN_MAX, async move {
        while let Some(Ok(_)) = body.frame().await {}
    }));
}

async fn take(
    state: &ApiState,
    text: &str,
    query: PushQuery,
    caller: &Caller,
    patience: &Patience,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Response, Problem> {
    let (zone, handle) = find(state, text)?;
    let live = state.live.load_full();
    let limits = &live.config.limits;
    if !is_named(&live.config, &zone, caller) {
        let name = if caller.local { PUSH_LOCAL } else { &caller.name };
        return Err(Problem::forbidden(format!("`push_from` of zone {zone} does not name {name}")));
    }
    let terms = Terms::new(limits, headers, body.size_hint().exact(), query.records)?;
    let place = state.pushes.begin(&zone, &caller.name)?;
    patience.extend(terms.whole + terms.idle);
    let bounds = Bounds { records_max: limits.records_max, bytes_max: limits.zone_bytes_max };
    let (received, digest) = read(body, Reader::new(zone.clone(), bounds), &terms).await?;
    let records = received.records() as u64;
    let serial = serial(&received);
    tracing::info!(%zone, caller = caller.name, records, serial, digest = digest.field(), "a zone was pushed");
    // Signing it takes what it takes.
    patience.extend(terms.whole);
    let (progress, steps) = mpsc::channel(STEPS_MAX);
    let _ = progress.try_send(Progress::Received { records, serial });
    let push = Push { zone: received, by: caller.name.clone(), progress };
    send(&handle, Command::Push(push)).await?;
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson")];
    let body = Body::new(Steps { coming: steps, over: false, place: Some(place) });
    Ok((StatusCode::OK, headers, body).into_response())
}

/// SOA's serial, which follows its two names; a zone without a whole SOA is refused later.
fn serial(zone: &ReceivedZone) -> u32 {
    let octets = zone.soa().and_then(|rdata| rdata.len().checked_sub(20).map(|at| &rdata[at..]));
    octets.and_then(|tail| tail.first_chunk()).map_or(0, |octets| u32::from_be_bytes(*octets))
}

/// What a body has to keep to.
struct Terms {
    /// Octets it may have.
    bytes_max: u64,
    /// Silence it may keep.
    idle: Duration,
    /// How long it may take as a whole.
    whole: Duration,
    /// What its digest has to be; a trailer may say it, too.
    digest: Option<Sha256>,
    /// How many records it has to have.
    records: Option<u64>,
}

impl Terms {
    fn new(
        limits: &Limits,
        headers: &HeaderMap,
        length: Option<u64>,
        records: Option<u64>,
    ) -> Result<Self, Problem> {
        let said = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let media = said(header::CONTENT_TYPE).unwrap_or("none");
        let essence = media.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case(MEDIA_TYPE) {
            return Err(Problem::media_type(format!(
                "the body is {media}; expected Content-Type: {MEDIA_TYPE}, a zone file"
            )));
        }
        if let Some(coding) = said(header::CONTENT_ENCODING) {
            return Err(Problem::media_type(format!(
                "the body has Content-Encoding: {coding}; send it as it is"
            )));
        }
        let bytes_max = (limits.zone_bytes_max as u64).saturating_mul(TEXT_BYTES_PER_OCTET);
        match length {
            Some(0) => {
                return Err(Problem::bad_request(
                    "there is no body; send the zone file with Content-Length or in chunks",
                ));
            }
            Some(length) if length > bytes_max => return Err(too_large(bytes_max)),
            _ => {}
        }
        Ok(Self {
            bytes_max,
            idle: Duration::from_millis(limits.idle_ms),
            whole: Duration::from_secs(limits.transfer_s_max),
            digest: Sha256::stated(headers).map_err(Problem::bad_request)?,
            records,
        })
    }
}

fn too_large(bytes_max: u64) -> Problem {
    Problem::too_large(format!(
        "the body has more than {bytes_max} octets; raise `limits.zone_bytes_max` if the zone is \
         meant to be so large"
    ))
}

/// A piece for the thread that reads.
enum Piece {
    Octets(Bytes),
    /// The body is whole, and what was stated of it holds.
    End,
}

/// Why the thread that reads has no zone.
enum Unread {
    /// The zone file is wrong.
    Wrong(String),
    /// The body never came to its end; whoever feeds knows why.
    CutShort,
}

async fn read(
    body: &mut Body,
    reader: Reader,
    terms: &Terms,
) -> Result<(ReceivedZone, Sha256), Problem> {
    let (pieces, queue) = mpsc::channel(PIECES_MAX);
    let records = terms.records;
    let reading = tokio::task::spawn_blocking(move || parse(reader, queue, records));
    let fed = feed(body, pieces, terms).await;
    let read = reading.await.map_err(|error| Problem::internal(error.to_string()))?;
    match (read, fed) {
        (Ok(zone), Ok(digest)) => Ok((zone, digest)),
        (Err(Unread::Wrong(reason)), _) => Err(Problem::zone_file(reason)),
        (_, Err(problem)) => Err(problem),
        // Neither says why: it can't be, and nothing is taken.
        (Err(Unread::CutShort), Ok(_)) => {
            Err(Problem::internal("the zone was not read to its end"))
        }
    }
}

fn parse(
    mut reader: Reader,
    mut queue: mpsc::Receiver<Piece>,
    records: Option<u64>,
) -> Result<ReceivedZone, Unread> {
    let wrong = |problem: &dyn std::fmt::Display| Unread::Wrong(problem.to_string());
    while let Some(piece) = queue.blocking_recv() {
        match piece {
            Piece::Octets(octets) => reader.feed(&octets).map_err(|error| wrong(&error))?,
            Piece::End => {
                let zone = reader.finish().map_err(|error| wrong(&error))?;
                return match records {
                    Some(stated) if stated != zone.records() as u64 => Err(Unread::Wrong(format!(
                        "the file has {} records, and {stated} were stated; is it cut short?",
                        zone.records()
                    ))),
                    _ => Ok(zone),
                };
            }
        }
    }
    Err(Unread::CutShort)
}

/// Hands the body on, piece by piece, and its end only if it is whole. A reader that wants no more
/// has found what is wrong.
async fn feed(
    body: &mut Body,
    pieces: mpsc::Sender<Piece>,
    terms: &Terms,
) -> Result<Sha256, Problem> {
    let (mut hasher, mut stated) = (Hasher::new(), terms.digest);
    let mut pace = Pace::new(terms);
    while let Some(frame) = pace.next(body).await? {
        match frame.into_data() {
            Ok(octets) => {
                pace.take(octets.len())?;
                hasher.update(&octets);
                if pieces.send(Piece::Octets(octets)).await.is_err() {
                    break;
                }
            }
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                let trailing = Sha256::stated(&trailers).map_err(Problem::bad_request)?;
                stated = trailing.or(stated);
            }
        }
    }
    let digest = hasher.finish();
    if stated.is_some_and(|stated| stated != digest) {
        let digest = digest.field();
        return Err(Problem::bad_request(format!(
            "the body's digest is {digest}, and another was stated; it was damaged on its way, or \
             the file changed meanwhile"
        )));
    }
    // A reader that is gone says itself why.
    let _ = pieces.send(Piece::End).await;
    Ok(digest)
}

/// How fast a body comes, and how much has come.
struct Pace<'a> {
    terms: &'a Terms,
    ends: Instant,
    window: Instant,
    in_window: usize,
    taken: u64,
}

impl<'a> Pace<'a> {
    fn new(terms: &'a Terms) -> Self {
        let now = Instant::now();
        Self { terms, ends: now + terms.whole, window: now, in_window: 0, taken: 0 }
    }

    async fn next(&mut self, body: &mut Body) -> Result<Option<Frame<Bytes>>, Problem> {
        let idle = self.terms.idle;
        let until = (Instant::now() + idle).min(self.ends);
        let frame = tokio::time::timeout_at(until, body.frame()).await.map_err(|_| {
            let what = if until == self.ends {
                format!("not done within {:?} (`limits.transfer_s_max`)", self.terms.whole)
            } else {
                format!("silent for {idle:?} (`limits.idle_ms`)")
            };
            Problem::slow(format!("the body is {what}; nothing was taken"))
        })?;
        frame.transpose().map_err(|error| {
            Problem::bad_request(format!("the body broke off, so nothing was taken: {error}"))
        })
    }

    fn take(&mut self, octets: usize) -> Result<(), Problem> {
        self.taken += octets as u64;
        if self.taken > self.terms.bytes_max {
            return Err(too_large(self.terms.bytes_max));
        }
        self.in_window += octets;
        let now = Instant::now();
        if now - self.window >= self.terms.idle {
            if self.in_window < RATE_BYTES_MIN {
                return Err(Problem::slow(format!(
                    "fewer than {RATE_BYTES_MIN} octets of the body came in {:?}; nothing was \
                     taken. Write it to a file first if it is made so slowly",
                    self.terms.idle
                )));
            }
            (self.window, self.in_window) = (now, 0);
        }
        Ok(())
    }
}

/// Each step as a line, as it comes; the last is the verdict.
struct Steps {
    coming: mpsc::Receiver<Progress>,
    over: bool,
    /// Given back with the verdict, so that whoever has read it may push again.
    place: Option<Place>,
}

impl hyper::body::Body for Steps {
    type Data = Bytes;
    type Error = serde_json::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, serde_json::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        self.coming.poll_recv(context).map(|step| {
            let step = step?;
            self.over = step.is_last();
            if self.over {
                self.place = None;
            }
            Some(serde_json::to_vec(&step).map(|mut line| {
                line.push(b'\n');
                Frame::data(Bytes::from(line))
            }))
        })
    }
}
