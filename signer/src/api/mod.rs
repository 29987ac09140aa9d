//! The API: HTTPS with client certificates for other machines, a unix socket for this one.
//!
//! Who a caller is comes from the connection (a certificate identity that is listed, or the
//! kernel's word for the user), what they may do from their role; one table in [`routes`] says
//! which role each route needs. Roles open doors here only: no route reaches a KSK.
//!
//! Bounds: connections at once, one request a connection, its headers' size and time, its body's
//! size, its whole duration; a pushed zone has its own ([`push`]).

mod caller;
pub mod digest;
pub mod export;
pub mod model;
mod patience;
pub mod problem;
pub mod push;
pub mod routes;
mod versions;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Extension;
use countersign_hsm::client::Client;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use caller::{Caller, LocalRule};
use patience::Patience;
pub use push::Pushes;
pub(crate) use versions::LOOKS_MAX;

use crate::config::{Config, Role};
use crate::gate::{Gate, GateLimits, Stranger, Throttle};
use crate::metrics::Metrics;
use crate::peers::Identities;
use crate::published::Catalogue;
use crate::query::SOCKET_ERROR_PAUSE;
use crate::runner::status::Directory;
use crate::store::Store;
use crate::tls::{Acceptor, Holder, Keyring};

/// Request line and headers; ours are a few hundred octets.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Time for them to arrive.
const HEADER_TIME_MAX: Duration = Duration::from_secs(10);
/// Log lines about refused callers: anyone can cause them.
const LOG_BURST: u32 = 50;
/// One more each.
const LOG_REFILL: Duration = Duration::from_millis(200);
/// Questions to the keeper at once: each holds a thread of the pool that signing uses too, and one
/// that was begun ends at its own deadline, also where its caller has hung up.
pub(crate) const QUESTIONS_MAX: usize = 8;
/// Bodies of routes that read theirs at once; [`push`] reads its own.
pub(crate) const BODY_BYTES_MAX: usize = 4 << 10;

/// What a reload swaps.
#[derive(Debug, Clone)]
pub struct Live {
    /// The configuration in force.
    pub config: Config,
    /// Why a later one was refused.
    pub config_error: Option<String>,
    /// What a later one changed that only a restart takes up.
    pub restart_needed_for: Vec<&'static str>,
    /// Clients of the HTTPS API.
    pub clients: Identities<(Arc<str>, Role)>,
    /// TLS for them; absent without `[tls]`.
    pub acceptor: Option<Acceptor>,
    /// What TLS works with, there and with peers.
    pub certificates: Option<Keyring>,
}

/// Further counters for `/metrics`: name, help text, value.
pub type Counters = Box<dyn Fn() -> Vec<(String, &'static str, u64)> + Send + Sync>;

/// What the API shows and acts on.
pub struct ApiState {
    /// The zones' tasks.
    pub zones: Directory,
    /// The versions that are up.
    pub catalogue: Arc<Catalogue>,
    /// A connection of its own, with a short deadline: signing must not wait for a scrape, nor a
    /// scrape for signing.
    pub keeper: Client,
    /// Questions to the keeper at once: a caller who hangs up leaves one running.
    pub questions: Arc<Semaphore>,
    /// Pushes that are under way.
    pub pushes: Pushes,
    /// The daemon's counters.
    pub metrics: Arc<Metrics>,
    /// Those of the listeners.
    pub counters: Counters,
    /// Versions on disk.
    pub store: Arc<Store>,
    /// Comparisons of versions at once.
    pub looks: Arc<Semaphore>,
    /// What a reload swaps.
    pub live: ArcSwap<Live>,
}

impl std::fmt::Debug for ApiState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiState").finish_non_exhaustive()
    }
}

/// Accepts on both kinds of sockets.
#[derive(Debug, Clone)]
pub struct Server {
    state: Arc<ApiState>,
    /// Local callers: nobody on the network can take their places.
    local: Arc<Semaphore>,
    /// Callers over TLS: those who have not shown who they are, and those who have.
    gate: Arc<Gate<Arc<str>>>,
    log: Arc<Throttle>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Server {
    /// A server of `state` with at most `connections_max` connections of each kind. It ends with
    /// `stop`.
    pub fn new(state: Arc<ApiState>, connections_max: usize, stop: CancellationToken) -> Self {
        let local = Arc::new(Semaphore::new(connections_max));
        let gate = Gate::new(GateLimits {
            strangers_max: connections_max,
            per_peer_max: connections_max.div_ceil(2),
            total_max: connections_max,
        });
        let log = Arc::new(Throttle::new(LOG_BURST, LOG_REFILL));
        Self { state, local, gate, log, tracker: TaskTracker::new(), stop }
    }

    /// Serves the local socket until told to stop.
    pub async fn serve_unix(self, listener: UnixListener, rule: LocalRule) {
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    cannot_accept(&error).await;
                    continue;
                }
            };
            match rule.judge(&stream) {
                Ok(caller) => self.serve(stream, caller),
                Err(reason) => tracing::warn!(reason, "refused a local caller of the API"),
            }
        }
        self.finish().await;
    }

    /// Serves HTTPS until told to stop.
    pub async fn serve_tls(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    cannot_accept(&error).await;
                    continue;
                }
            };
            // Where the pool of strangers is full, the oldest has to go.
            let (stranger, _) = self.gate.stranger();
            let server = self.clone();
            self.tracker.spawn(async move {
                if let Err(reason) = server.meet(stream, stranger).await
                    && server.log.pass()
                {
                    tracing::warn!(%from, reason, "refused a caller of the API");
                }
            });
        }
        self.finish().await;
    }

    /// A connection over TLS, from its handshake to its end; or why it is refused.
    async fn meet(&self, stream: TcpStream, stranger: Stranger<Arc<str>>) -> Result<(), String> {
        let live = self.state.live.load_full();
        let acceptor = live.acceptor.as_ref().ok_or("there is no [tls] any more")?;
        let deadline = Duration::from_millis(live.config.limits.handshake_ms);
        let leave = stranger.leave();
        let accepted = tokio::select! {
            accepted = acceptor.accept(stream, deadline) => accepted,
            () = leave.cancelled() => return Err("a newer connection took its place".to_owned()),
        };
        let accepted = accepted.map_err(|error| error.to_string())?;
        let identity = accepted.identity.ok_or("no certificate")?;
        let recognised = live.clients.recognise(&identity);
        let (name, role) = recognised.map_err(|error| error.to_string())?;
        acceptor.saw(Holder::ApiClient, &name, &accepted.chain);
        let _place = stranger.promote(name.clone()).map_err(|full| full.to_string())?;
        self.converse(accepted.stream, Caller { name: name.to_string(), role, local: false }).await;
        Ok(())
    }

    fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, caller: Caller) {
        let Ok(permit) = self.local.clone().try_acquire_owned() else {
            tracing::warn!(
                caller = caller.name,
                "refused a caller of the API: too many connections"
            );
            return;
        };
        let server = self.clone();
        self.tracker.spawn(async move {
            let _permit = permit;
            server.converse(stream, caller).await;
        });
    }

    /// One request and its answer.
    async fn converse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        caller: Caller,
    ) {
        let limit_s = self.state.live.load().config.limits.api_request_s_max;
        let patience = Patience::new(Duration::from_secs(limit_s));
        let router = routes::router(self.state.clone())
            .layer(Extension(caller))
            .layer(Extension(patience.clone()));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME_MAX)
            .max_buf_size(HEADER_BYTES_MAX)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        tokio::select! {
            ended = connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection to the API ended early");
                }
            }
            () = patience.over() => tracing::warn!("a request to the API was not done in time"),
        }
    }

    async fn finish(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Out of file descriptors, most likely: the pause keeps the loop from spinning until some are
/// free again.
async fn cannot_accept(error: &std::io::Error) {
    tracing::warn!(%error, "can't accept a connection to the API");
    tokio::time::sleep(SOCKET_ERROR_PAUSE).await;
}

/// Makes the local socket: in place of one that a daemon before us left, open to its user and
/// group alone. The group is handed over before the mode opens it.
pub fn bind_unix(path: &Path, rule: &LocalRule) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt as _;
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => return Err(std::io::Error::other("exists and is not a socket")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    if let Some(group) = rule.group() {
        std::os::unix::fs::chown(path, None, Some(group))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

#[cfg(test)]
mod tests;
