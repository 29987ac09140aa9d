//! The routes, and the role that each needs: `table` is the one place that says it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json, Router};
use countersign_hsm::client::{Client, ClientError};
use countersign_hsm::protocol::{Notice, TokenHealth, TokenState};
use countersign_policy::ZoneName;
use hyper::body::{Bytes, Frame};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use super::model::{
    AlarmReport, Done, FrozenBy, Health, HsmStatus, Key, KeyList, NoticeReport, Token, ZoneDetail,
    ZoneList, ZoneSummary,
};
use super::problem::Problem;
use super::{ApiState, BODY_BYTES_MAX, Caller, export, push, versions};
use crate::clock::now_s;
use crate::config::Role;
use crate::metrics::Scrape;
use crate::notices;
use crate::runner::status::{Command, Handle, Status};
use crate::tls::{self, Keyring};

pub(super) type Answer<T> = Result<T, Problem>;
pub(super) type Shared = State<Arc<ApiState>>;

/// Pieces of an export that wait for a slow reader.
pub(super) const EXPORT_CHUNKS_MAX: usize = 4;

/// Zones whose keys one request lists: each is a question to the keeper.
const KEY_ZONES_MAX: usize = 1_000;

/// Every route: the least role, the path, what it does.
fn table() -> [(Role, &'static str, MethodRouter<Arc<ApiState>>); 16] {
    use Role::{Auditor, Monitor, Operator, Pusher};
    [
        (Monitor, "/metrics", get(metrics)),
        (Monitor, "/v1/health", get(health)),
        (Auditor, "/v1/zones", get(zones)),
        (Auditor, "/v1/zones/{zone}", get(zone)),
        // Less than an auditor's role opens the zones that name the caller.
        (Pusher, "/v1/zones/{zone}/export", get(export_zone)),
        (Pusher, "/v1/zones/{zone}/push", post(push::push)),
        (Auditor, "/v1/zones/{zone}/versions", get(versions::versions)),
        (Auditor, "/v1/zones/{zone}/diff", get(versions::diff)),
        (Auditor, "/v1/keys", get(keys)),
        (Auditor, "/v1/hsm", get(hsm)),
        (Operator, "/v1/zones/{zone}/freeze", post(freeze)),
        (Operator, "/v1/zones/{zone}/thaw", post(thaw)),
        (Operator, "/v1/zones/{zone}/refresh", post(refresh)),
        (Operator, "/v1/zones/{zone}/release", post(versions::release)),
        (Operator, "/v1/zones/{zone}/reject", post(versions::reject)),
        (Operator, "/v1/zones/{zone}/republish", post(versions::republish)),
    ]
}

/// The routes, guarded. The connection adds its [`Caller`].
pub(super) fn router(state: Arc<ApiState>) -> Router {
    let mut router = Router::new();
    for (role, path, methods) in table() {
        router = router.route(path, methods.layer(from_fn_with_state(role, require)));
    }
    router
        .fallback(|request: Request| async move {
            Problem::not_found(format!("no route {}; see /v1/zones", request.uri().path()))
        })
        .method_not_allowed_fallback(|request: Request| async move {
            let (method, path) = (request.method(), request.uri().path());
            Problem::method(format!("{method} does not fit {path}"))
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(state)
}

/// Lets a caller through whose role is enough.
async fn require(State(least): State<Role>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().cloned();
    match caller {
        Some(caller) if caller.role >= least => next.run(request).await,
        Some(caller) => {
            let (method, path) = (request.method(), request.uri().path());
            tracing::warn!(caller = caller.name, %method, path, "refused: the role is not enough");
            let detail = format!("{} is {:?}; this needs {least:?}", caller.name, caller.role);
            let (parts, body) = request.into_parts();
            push::drain(&parts.headers, body);
            Problem::forbidden(detail).into_response()
        }
        // No listener forgets it; if one did, nobody gets in.
        None => Problem::forbidden("the connection has no caller").into_response(),
    }
}

pub(super) fn find(state: &ApiState, text: &str) -> Answer<(ZoneName, Handle)> {
    let name: ZoneName = text
        .parse()
        .map_err(|error| Problem::bad_request(format!("{text:?} is not a zone's name: {error}")))?;
    let handle = state.zones.zone(&name).ok_or_else(|| {
        Problem::not_found(format!("zone {name} is not configured; see `countersign zone list`"))
    })?;
    Ok((name, handle))
}

fn summary(zone: &ZoneName, status: &Status, now_s: u64) -> ZoneSummary {
    let up = status.schedule.up();
    ZoneSummary {
        zone: zone.to_string(),
        serial: up.map(|up| up.serial),
        incoming_serial: up.map(|up| up.incoming_serial),
        published_at_s: status.published_at_s,
        refresh_at_s: up.map(|up| up.refresh_at_s),
        expires_at_s: up.map(|up| up.expires_s),
        next_check_at_s: status.schedule.check_due_s(),
        doing: status.doing.as_str().to_owned(),
        frozen: status
            .frozen
            .as_ref()
            .map(|frozen| FrozenBy { by: frozen.by.clone(), since_s: frozen.since_s }),
        held: status.held.as_ref().map(versions::kept),
        waiting: status.waiting.as_ref().map(versions::kept),
        alarms: status
            .schedule
            .alarms(now_s)
            .into_iter()
            .map(|alarm| AlarmReport {
                kind: alarm.kind.as_str().to_owned(),
                reason: alarm.reason,
                next_step: alarm.kind.next_step().to_owned(),
                since_s: alarm.since_s,
                retry_at_s: alarm.retry_at_s,
            })
            .collect(),
    }
}

async fn zones(State(state): Shared) -> Json<ZoneList> {
    let now_s = now_s();
    let zones = state.zones.zones();
    let zones =
        zones.iter().map(|(zone, handle)| summary(zone, &handle.status.borrow(), now_s)).collect();
    Json(ZoneList { config_error: state.live.load().config_error.clone(), zones })
}

async fn zone(State(state): Shared, Path(text): Path<String>) -> Answer<Json<ZoneDetail>> {
    let (name, handle) = find(&state, &text)?;
    let status = handle.status.borrow().clone();
    let live = state.live.load();
    let configured = live.config.zones.get(&name);
    let counts = state.catalogue.current(&name).map(|version| version.records().counts());
    let remarks = status.versions.first().map(|up| up.remarks.clone()).unwrap_or_default();
    Ok(Json(ZoneDetail {
        remarks: [remarks.data, remarks.signing].concat(),
        summary: summary(&name, &status, now_s()),
        policy: status.policy,
        primaries: configured.map(|zone| zone.primaries.clone()).unwrap_or_default(),
        secondaries: configured.map(|zone| zone.secondaries.clone()).unwrap_or_default(),
        records: counts.map(|counts| counts.records as u64),
        signatures: counts.map(|counts| counts.rrsigs as u64),
    }))
}

#[derive(Debug, Deserialize)]
struct ExportQuery {
    serial: Option<u32>,
}

async fn export_zone(
    State(state): Shared,
    Path(text): Path<String>,
    Query(query): Query<ExportQuery>,
    Extension(caller): Extension<Caller>,
) -> Answer<Response> {
    let (name, handle) = find(&state, &text)?;
    let named = || push::is_named(&state.live.load().config, &name, &caller);
    if caller.role < Role::Auditor && !named() {
        let detail = format!("`push_from` of zone {name} does not name {}", caller.name);
        return Err(Problem::forbidden(detail));
    }
    let up = state.catalogue.current(&name).ok_or_else(|| {
        Problem::conflict(format!("zone {name} has no published version yet; see its alarms"))
    })?;
    let kept = query.serial.filter(|serial| *serial != up.serial());
    // One that is not up comes from the disk into memory: a few at once.
    let permit = match kept {
        Some(_) => state.looks.clone().acquire_owned().await.ok(),
        None => None,
    };
    let records = match kept {
        None => up.records().clone(),
        Some(serial) => {
            let name = name.clone();
            tokio::task::spawn_blocking(move || {
                versions::side(&state, &name, &handle, &serial.to_string())
            })
            .await
            .map_err(|error| Problem::internal(error.to_string()))??
        }
    };
    let (sender, receiver) = mpsc::channel(EXPORT_CHUNKS_MAX);
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        export::write_zone(name.as_wire(), &records, &mut |text| {
            // A reader that is gone ends it.
            sender.blocking_send(Bytes::from(text)).is_ok()
        });
    });
    let headers = [(header::CONTENT_TYPE, "text/dns")];
    Ok((StatusCode::OK, headers, Body::new(Pieces(receiver))).into_response())
}

/// A body that comes piece by piece.
pub(super) struct Pieces(pub(super) mpsc::Receiver<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

async fn freeze(
    State(state): Shared,
    Path(text): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Answer<Json<Done>> {
    let (name, handle) = find(&state, &text)?;
    let (done, answer) = oneshot::channel();
    send(&handle, Command::Freeze { by: caller.name, done }).await?;
    let frozen = answer.await.map_err(|_| gone())?.map_err(|error| {
        Problem::internal(format!(
            "frozen until the daemon restarts, as it can't be stored: {error}"
        ))
    })?;
    let message = format!("frozen by {}; no new version goes out until it is thawed", frozen.by);
    Ok(Json(Done { zone: name.to_string(), message }))
}

async fn thaw(
    State(state): Shared,
    Path(text): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Answer<Json<Done>> {
    let (name, handle) = find(&state, &text)?;
    let (done, answer) = oneshot::channel();
    tracing::info!(zone = %name, caller = caller.name, "thaw asked for");
    send(&handle, Command::Thaw { done }).await?;
    answer.await.map_err(|_| gone())?.map_err(|error| {
        Problem::internal(format!("it stays frozen, as the thaw can't be stored: {error}"))
    })?;
    Ok(Json(Done {
        zone: name.to_string(),
        message: "thawed; the primary is asked now".to_owned(),
    }))
}

async fn refresh(
    State(state): Shared,
    Path(text): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Answer<Json<Done>> {
    let (name, handle) = find(&state, &text)?;
    tracing::info!(zone = %name, caller = caller.name, "refresh asked for");
    send(&handle, Command::Refresh).await?;
    let frozen = handle.status.borrow().frozen.is_some();
    let message = if frozen {
        "the primary is asked now; nothing goes out, as the zone is frozen"
    } else {
        "the primary is asked now, and what is due is signed"
    };
    Ok(Json(Done { zone: name.to_string(), message: message.to_owned() }))
}

pub(super) async fn send(handle: &Handle, command: Command) -> Answer<()> {
    handle.commands.send(command).await.map_err(|_| gone())
}

pub(super) fn gone() -> Problem {
    Problem::conflict("the zone was removed from the configuration, or the daemon is stopping")
}

#[derive(Debug, Deserialize)]
struct KeyQuery {
    zone: Option<String>,
}

async fn keys(State(state): Shared, Query(query): Query<KeyQuery>) -> Answer<Json<KeyList>> {
    let zones: Vec<ZoneName> = match query.zone {
        Some(text) => vec![find(&state, &text)?.0],
        None => state.zones.zones().keys().cloned().collect(),
    };
    if zones.len() > KEY_ZONES_MAX {
        return Err(Problem::bad_request(format!(
            "{} zones; name one with ?zone= (at most {KEY_ZONES_MAX} are listed at once)",
            zones.len()
        )));
    }
    let keys = ask(&state, move |keeper| {
        let mut keys = Vec::new();
        for zone in zones {
            let answer = match keeper.zone(&zone) {
                Ok(answer) => answer,
                // Configured here and not bound there: it has no keys, and its alarm says so.
                Err(ClientError::Refused(_)) => continue,
                Err(error) => return Err(error),
            };
            keys.extend(answer.keys.into_iter().map(|key| Key {
                zone: zone.to_string(),
                role: key.role.to_string(),
                algorithm: key.public.algorithm().number(),
                algorithm_name: key.public.algorithm().to_string(),
                tag: key.public.tag(key.role.flags()),
                key_id: key.public.id().to_string(),
                proven_by: key.proven_by,
                unusable: key.unusable,
            }));
        }
        Ok(keys)
    })
    .await?;
    Ok(Json(KeyList { keys }))
}

/// Asks the keeper, off the threads that serve.
pub(super) async fn ask<T: Send + 'static>(
    state: &ApiState,
    question: impl FnOnce(&Client) -> Result<T, ClientError> + Send + 'static,
) -> Answer<T> {
    let keeper = state.keeper.clone();
    let permit = state.questions.clone().acquire_owned().await;
    tokio::task::spawn_blocking(move || {
        // Held by the work, not by who waits for it: the caller may be gone before.
        let _permit = permit;
        question(&keeper)
    })
    .await
    .map_err(|error| Problem::internal(error.to_string()))?
    .map_err(|error| Problem::keeper(error.to_string()))
}

async fn hsm(State(state): Shared) -> Answer<Json<HsmStatus>> {
    let (info, health) = ask(&state, |keeper| Ok((keeper.keeper()?, keeper.health()?))).await?;
    Ok(Json(HsmStatus {
        keeper_version: info.version,
        appliance: info.appliance,
        founding: info.founding.to_string(),
        tokens: health.tokens.into_iter().map(token).collect(),
    }))
}

fn token(health: TokenHealth) -> Token {
    let (state, reason) = match health.state {
        TokenState::Probing => ("probing", None),
        TokenState::Usable => ("usable", None),
        TokenState::Unusable(reason) => ("unusable", Some(reason)),
    };
    let measured: u64 = health.latency_counts.iter().sum();
    Token {
        name: health.name,
        group: health.group,
        label: health.label,
        serial: health.serial,
        state: state.to_owned(),
        reason,
        sessions: health.sessions,
        keys_proven: health.keys_proven,
        queued: health.queued,
        signatures: health.signatures,
        failures: health.failures,
        latency_mean_us: health.latency_sum_us.checked_div(measured),
    }
}

async fn health(State(state): Shared) -> Json<Health> {
    let (keeper_error, notices) = match ask(&state, Client::health).await {
        Ok(health) => (None, reports(health.notices)),
        Err(problem) => (Some(problem.detail), vec![]),
    };
    let now_s = now_s();
    let zones = state.zones.zones();
    let (mut up, mut alarmed) = (0, 0);
    for handle in zones.values() {
        let status = handle.status.borrow();
        up += u64::from(status.schedule.up().is_some());
        alarmed += u64::from(!status.schedule.alarms(now_s).is_empty());
    }
    let live = state.live.load();
    let alarms = live.certificates.as_ref().map(|keyring| keyring.alarms(now_s));
    let alarms: Vec<_> = alarms.into_iter().flatten().map(certificate_alarm).collect();
    let fine = keeper_error.is_none()
        && alarms.is_empty()
        && !notices.iter().any(|notice| notice.attention)
        && alarmed == 0
        && live.config_error.is_none();
    Json(Health {
        status: if fine { "ok" } else { "attention" }.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        zones: zones.len() as u64,
        zones_up: up,
        zones_alarmed: alarmed,
        keeper_error,
        notices,
        config_error: live.config_error.clone(),
        restart_needed_for: live.restart_needed_for.iter().map(|s| (*s).to_owned()).collect(),
        certificate_ends_at_s: live.certificates.as_ref().map(Keyring::ends_at_s),
        alarms,
    })
}

fn certificate_alarm(alarm: tls::Alarm) -> AlarmReport {
    AlarmReport {
        kind: alarm.kind.as_str().to_owned(),
        reason: alarm.reason,
        next_step: alarm.next_step,
        since_s: alarm.since_s,
        retry_at_s: None,
    }
}

fn reports(mut notices: Vec<Notice>) -> Vec<NoticeReport> {
    notices::sort(&mut notices);
    notices
        .into_iter()
        .map(|notice| NoticeReport {
            kind: notice.kind.as_str().to_owned(),
            detail: notice.detail,
            attention: notices::needs_attention(notice.kind),
        })
        .collect()
}

async fn metrics(State(state): Shared) -> Answer<Response> {
    let keeper = ask(&state, Client::health).await.ok();
    let live = state.live.load();
    let counters = (state.counters)();
    let (certificates, now_s) = (live.certificates.as_ref(), now_s());
    let endings = certificates.map(Keyring::endings).unwrap_or_default();
    let alarms = certificates.map(|keyring| keyring.alarms(now_s)).unwrap_or_default();
    let text = state
        .metrics
        .render(&Scrape {
            zones: &state.zones,
            keeper: keeper.as_ref(),
            config_refused: live.config_error.is_some(),
            certificate_ends_at_s: certificates.map(Keyring::ends_at_s),
            endings: &endings,
            certificate_alarms: &alarms,
            counters: &counters,
            now_s,
        })
        .map_err(|error| Problem::internal(error.to_string()))?;
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((StatusCode::OK, headers, text).into_response())
}
