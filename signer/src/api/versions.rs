//! Versions of a zone: those that are kept, how two of them differ, and what a person decides about
//! them. A decision names the serial that was looked at, so that it never falls on another version
//! that came meanwhile.

use std::fmt::Write as _;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use countersign_policy::ZoneName;
use countersign_zone::admit::{AdmissionParams, admit};
use countersign_zone::difference::{Sign, Signatures, between};
use countersign_zone::{Packed, guard};
use hyper::body::Bytes;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use super::model::{DiffEnd, DiffLine, DiffStart, Done, KeptReport, Version, VersionList};
use super::problem::Problem;
use super::routes::{Answer, EXPORT_CHUNKS_MAX, Pieces, Shared, find, gone, send};
use super::{ApiState, Caller, export};
use crate::runner::status::{Command, Handle, Looked, Progress};
use crate::store::{Kept, Slot};

/// At most so many comparisons at once: each has up to two zones in memory.
pub(crate) const LOOKS_MAX: usize = 2;

/// Steps that wait for the handler, which throws all but the last away.
const STEPS_MAX: usize = 16;

/// What is said of data that was set aside.
pub(super) fn kept(kept: &Kept) -> KeptReport {
    KeptReport {
        serial: kept.serial,
        since_s: kept.since_s,
        source: kept.source.to_string(),
        records: kept.records,
        digest: kept.short_digest(),
        reasons: kept.reasons.clone(),
        released_by: kept.released.as_ref().map(|decision| decision.by.clone()),
    }
}

pub(super) async fn versions(
    State(state): Shared,
    Path(text): Path<String>,
) -> Answer<Json<VersionList>> {
    let (name, handle) = find(&state, &text)?;
    let status = handle.status.borrow().clone();
    let up = status.schedule.up().map(|up| up.serial);
    let versions = status.versions.iter().map(|record| Version {
        serial: record.serial,
        incoming_serial: record.incoming_serial,
        published_at_s: record.published_at_s,
        source: record.source.as_ref().map(ToString::to_string),
        exact: record.exact,
        released_by: record.released.as_ref().map(|decision| decision.by.clone()),
        up: up == Some(record.serial),
    });
    Ok(Json(VersionList {
        zone: name.to_string(),
        versions: versions.collect(),
        held: status.held.as_ref().map(kept),
        waiting: status.waiting.as_ref().map(kept),
    }))
}

#[derive(Debug, Deserialize)]
pub(super) struct DiffQuery {
    from: String,
    to: String,
    #[serde(default)]
    dnssec: bool,
    #[serde(default)]
    json: bool,
}

pub(super) async fn diff(
    State(state): Shared,
    Path(text): Path<String>,
    Query(query): Query<DiffQuery>,
) -> Answer<Response> {
    let (name, handle) = find(&state, &text)?;
    // Up to two zones in memory each: a few at once, and those who ask for more wait.
    let permit = state.looks.clone().acquire_owned().await;
    let DiffQuery { from, to, dnssec, json } = query;
    let read = tokio::task::spawn_blocking(move || {
        let old = look(&state, &name, &handle, &from)?;
        let new = look(&state, &name, &handle, &to)?;
        Ok::<_, Problem>((name, old, new))
    });
    let (name, old, new) = read.await.map_err(|error| Problem::internal(error.to_string()))??;
    let (sender, receiver) = mpsc::channel(EXPORT_CHUNKS_MAX);
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        write_diff(&name, &old, &new, dnssec, json, &sender);
    });
    let kind = if json { "application/x-ndjson" } else { "text/plain; charset=us-ascii" };
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, kind)], Body::new(Pieces(receiver)))
        .into_response())
}

/// One side of a comparison.
struct Side {
    records: Packed,
    /// In words.
    what: String,
}

/// The records of what one side names.
pub(super) fn side(
    state: &ApiState,
    name: &ZoneName,
    handle: &Handle,
    text: &str,
) -> Answer<Packed> {
    look(state, name, handle, text).map(|side| side.records)
}

fn look(state: &ApiState, name: &ZoneName, handle: &Handle, text: &str) -> Answer<Side> {
    let status = handle.status.borrow().clone();
    let none = |what: &str| Problem::conflict(format!("zone {name} has no {what}"));
    match text {
        "up" => {
            let up = state.catalogue.current(name).ok_or_else(|| none("version up"))?;
            Ok(Side { records: up.records().clone(), what: format!("up: serial {}", up.serial()) })
        }
        "held" => set_aside(state, Slot::Held, &status.held.ok_or_else(|| none("version held"))?),
        "waiting" => {
            let kept = status.waiting.ok_or_else(|| none("data that waits"))?;
            set_aside(state, Slot::Waiting, &kept)
        }
        serial => {
            let serial: u32 = serial.parse().map_err(|_| {
                Problem::bad_request(format!(
                    "{serial:?} is no version; expected a serial, `up`, `held` or `waiting`"
                ))
            })?;
            let record = status.versions.iter().find(|record| record.serial == serial);
            let record = record.ok_or_else(|| {
                let kept: Vec<String> =
                    status.versions.iter().map(|record| record.serial.to_string()).collect();
                Problem::not_found(format!(
                    "version {serial} of {name} is not kept; these are: {}",
                    kept.join(", ")
                ))
            })?;
            let version = state.store.version(name, record);
            let version = version.map_err(|error| Problem::internal(error.to_string()))?;
            Ok(Side { records: version.records().clone(), what: format!("serial {serial}") })
        }
    }
}

fn set_aside(state: &ApiState, slot: Slot, kept: &Kept) -> Answer<Side> {
    let internal = |error: String| Problem::internal(error);
    let received = state.store.kept_data(slot, kept).map_err(|e| internal(e.to_string()))?;
    // Only to be looked at: what the policy says of it is said when it goes out.
    let admitted = admit(received, &AdmissionParams::UNBOUNDED).map_err(|refusal| {
        Problem::conflict(format!("it is no zone that could be signed: {refusal}"))
    })?;
    let what = format!("set aside: serial {}, digest {}", kept.serial, kept.short_digest());
    Ok(Side { records: admitted.records().clone(), what })
}

fn write_diff(
    name: &ZoneName,
    old: &Side,
    new: &Side,
    dnssec: bool,
    json: bool,
    sender: &mpsc::Sender<Bytes>,
) {
    let signatures = if dnssec { Signatures::Shown } else { Signatures::Hidden };
    let mut text = String::with_capacity(export::CHUNK_BYTES + 4096);
    let start = DiffStart { from: old.what.clone(), to: new.what.clone() };
    // Strings always serialise, and writing to one can't fail.
    let _ = if json {
        writeln!(text, "{}", serde_json::to_string(&start).unwrap_or_default())
    } else {
        writeln!(text, "; from {}; to {}", start.from, start.to)
    };
    let mut record = String::new();
    let mut end = DiffEnd { removed: 0, added: 0 };
    for change in between(&old.records, &new.records, signatures) {
        if !dnssec && guard::is_signers(name, change.owner, change.rtype) {
            continue;
        }
        let sign = match change.sign {
            Sign::Removed => '-',
            Sign::Added => '+',
        };
        *(if sign == '-' { &mut end.removed } else { &mut end.added }) += 1;
        record.clear();
        export::write_record(change.owner, change.ttl_s, change.rtype, change.rdata, &mut record);
        if json {
            let line = DiffLine { change: sign.to_string(), record: record.trim_end().to_owned() };
            // Two strings always serialise.
            text.push_str(&serde_json::to_string(&line).unwrap_or_default());
            text.push('\n');
        } else {
            text.push(sign);
            text.push(' ');
            text.push_str(&record);
        }
        if text.len() >= export::CHUNK_BYTES
            && sender.blocking_send(Bytes::from(std::mem::take(&mut text))).is_err()
        {
            return;
        }
    }
    // Whoever does not see this line has not seen all.
    if json {
        text.push_str(&serde_json::to_string(&end).unwrap_or_default());
        text.push('\n');
    } else {
        // Writing to a String can't fail.
        let _ = writeln!(text, "; {} records go, {} come", end.removed, end.added);
    }
    let _ = sender.blocking_send(Bytes::from(text));
}

#[derive(Debug, Deserialize)]
pub(super) struct Decided {
    serial: u32,
    digest: Option<String>,
}

pub(super) async fn release(
    State(state): Shared,
    Path(text): Path<String>,
    Query(Decided { serial, digest }): Query<Decided>,
    Extension(caller): Extension<Caller>,
) -> Answer<Json<Done>> {
    let (name, handle) = find(&state, &text)?;
    let (by, looked) = (caller.name, Looked { serial, digest });
    let last = told(&handle, |progress| Command::Release { looked, by, progress }).await?;
    Ok(Json(done(&name, "released", &last)?))
}

pub(super) async fn reject(
    State(state): Shared,
    Path(text): Path<String>,
    Query(Decided { serial, digest }): Query<Decided>,
    Extension(caller): Extension<Caller>,
) -> Answer<Json<Done>> {
    let (name, handle) = find(&state, &text)?;
    let (done, answer) = oneshot::channel();
    send(&handle, Command::Reject { looked: Looked { serial, digest }, by: caller.name, done })
        .await?;
    answer.await.map_err(|_| gone())?.map_err(Problem::conflict)?;
    let message =
        format!("serial {serial} is rejected; what is up stays until its source has a newer one");
    Ok(Json(Done { zone: name.to_string(), message }))
}

#[derive(Debug, Deserialize)]
pub(super) struct Again {
    version: u32,
}

pub(super) async fn republish(
    State(state): Shared,
    Path(text): Path<String>,
    Query(Again { version }): Query<Again>,
    Extension(caller): Extension<Caller>,
) -> Answer<Json<Done>> {
    let (name, handle) = find(&state, &text)?;
    let by = caller.name;
    let last = told(&handle, |progress| Command::Republish { version, by, progress }).await?;
    let mut done = done(&name, &format!("version {version} is republished"), &last)?;
    let keeps = handle.status.borrow().schedule.keeps_serials();
    if let (Progress::Published { serial }, true) = (&last, keeps) {
        // Writing to a String can't fail.
        let _ = write!(
            done.message,
            ". The policy keeps its source's serials: the next one must be beyond {serial}"
        );
    }
    Ok(Json(done))
}

/// Sends a command and waits for the last word on it.
async fn told(
    handle: &Handle,
    command: impl FnOnce(mpsc::Sender<Progress>) -> Command,
) -> Answer<Progress> {
    let (progress, mut steps) = mpsc::channel(STEPS_MAX);
    send(handle, command(progress)).await?;
    while let Some(step) = steps.recv().await {
        if step.is_last() {
            return Ok(step);
        }
    }
    Err(gone())
}

fn done(name: &ZoneName, what: &str, last: &Progress) -> Answer<Done> {
    let message = match last {
        Progress::Published { serial } => format!("{what} and up, serial {serial}"),
        Progress::Unchanged { serial } => format!("this is what is up already, serial {serial}"),
        Progress::Waits { reason } => format!("{what}; it waits and goes on by itself: {reason}"),
        Progress::Held { reasons } => {
            return Err(Problem::conflict(format!("held: {}", reasons.join("; "))));
        }
        Progress::Refused { reason } => return Err(Problem::conflict(reason)),
        other => return Err(Problem::internal(format!("ended with {other:?}"))),
    };
    Ok(Done { zone: name.to_string(), message })
}
