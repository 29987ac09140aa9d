//! countersignd as a whole: start, reload, stop.
//!
//! At start every version on disk is up before the listeners open, and systemd is told after
//! they did. A reload (SIGHUP) takes a configuration that is whole, or leaves the old one in
//! force and says why. A stop (SIGTERM, SIGINT) ends within its deadline.

mod certificates;
mod listeners;
mod prepared;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use countersign_hsm::client::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use certificates::PreparedTls;
pub use prepared::Prepared;

use crate::api::{ApiState, Live, LocalRule, Pushes, Server, bind_unix};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::metrics::Metrics;
use crate::published::Catalogue;
use crate::runner::{self, Runner};
use crate::store::Store;

/// The keeper may take this long to answer the API: it tells what it knows, and asks no HSM.
const API_KEEPER_DEADLINE: Duration = Duration::from_secs(2);

/// Runs the daemon with the configuration at `path` until it is told to stop.
pub async fn run(path: &Path, config: Config) -> anyhow::Result<()> {
    let mut hangups = signal(SignalKind::hangup()).context("SIGHUP can't be listened for")?;
    let mut terms = signal(SignalKind::terminate()).context("SIGTERM can't be listened for")?;
    let mut interrupts = signal(SignalKind::interrupt()).context("SIGINT can't be listened for")?;
    let daemon = Daemon::start(path, config).await?;
    notify_supervisor(&[sd_notify::NotifyState::Ready]);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "countersignd is up");
    loop {
        tokio::select! {
            _ = hangups.recv() => daemon.reload().await,
            _ = terms.recv() => break,
            _ = interrupts.recv() => break,
        }
    }
    notify_supervisor(&[sd_notify::NotifyState::Stopping]);
    daemon.stop().await;
    Ok(())
}

/// Tells systemd, where it is the one that started us.
fn notify_supervisor(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the supervisor was not told");
    }
}

struct Daemon {
    path: PathBuf,
    /// The configuration at start: what only a restart changes is compared with it.
    started: Config,
    state: Arc<ApiState>,
    runner: Arc<Runner>,
    shared: listeners::Shared,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Daemon {
    async fn start(path: &Path, config: Config) -> anyhow::Result<Self> {
        let prepared = Prepared::new(config)?;
        let config = prepared.config.clone();
        let limits = &config.limits;
        let store = Store::open(&config.daemon.state_dir, limits.versions_kept)?;
        let metrics = Arc::new(Metrics::new().context("metrics")?);
        let keeper = Client::new(
            config.daemon.keeper_socket.clone(),
            Duration::from_millis(limits.keeper_deadline_ms),
        );
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let clock = Clock::default();
        tasks.spawn(until(&stop, clock.clone().watch()));
        let catalogue = Arc::new(Catalogue::new(prepared.access.clone(), prepared.peers.clone()));
        let shared = listeners::Shared::new(&prepared, catalogue.clone(), &stop);
        let context = runner::Context::new(
            clock,
            store,
            keeper,
            catalogue.clone(),
            shared.announce(),
            metrics.clone(),
            shared.counters.clone(),
            limits.zones_at_work_max,
        );
        let versions = context.store.clone();
        let runner = Arc::new(Runner::new(Arc::new(context)));
        // Sockets are opened before zones are read, so that what can't be opened is said at once,
        // and served after, so that the first question finds every version up.
        let open = listeners::open(&config.listen).await?;
        let rule = LocalRule::new(config.daemon.group.as_deref()).map_err(anyhow::Error::msg)?;
        let socket = &config.daemon.api_socket;
        let local = bind_unix(socket, &rule).with_context(|| {
            format!("the API's socket {} can't be made; its folder must be writable by the daemon's user", socket.display())
        })?;
        runner.configure(prepared.zones.clone()).await;
        let state = Arc::new(ApiState {
            store: versions,
            looks: Arc::new(Semaphore::new(crate::api::LOOKS_MAX)),
            zones: runner.directory().clone(),
            catalogue,
            keeper: Client::new(config.daemon.keeper_socket.clone(), API_KEEPER_DEADLINE),
            questions: Arc::new(Semaphore::new(crate::api::QUESTIONS_MAX)),
            pushes: Pushes::new(limits.pushes_at_once_max),
            metrics: metrics.clone(),
            counters: shared.exposition(),
            live: ArcSwap::from_pointee(live(&prepared)),
        });
        let server = Server::new(state.clone(), limits.api_connections_max, stop.clone());
        tasks.spawn(server.clone().serve_unix(local, rule));
        for listener in open.api {
            tasks.spawn(server.clone().serve_tls(listener));
        }
        shared.serve(open.dns, open.xot, &runner, &tasks, &stop);
        tasks.spawn(until(&stop, certificates::watch(state.clone())));
        metrics.config_loaded(true);
        Ok(Self { path: path.to_owned(), started: config, state, runner, shared, tasks, stop })
    }

    async fn reload(&self) {
        notify_supervisor(&[
            sd_notify::NotifyState::Reloading,
            sd_notify::NotifyState::monotonic_usec_now()
                .unwrap_or(sd_notify::NotifyState::Reloading),
        ]);
        let path = self.path.clone();
        let before = self.state.live.load().certificates.clone();
        let read = tokio::task::spawn_blocking(move || {
            let config = config::load(&path)?;
            Prepared::after(config, before.as_ref())
        })
        .await;
        match read.map_err(anyhow::Error::from).and_then(|read| read) {
            Ok(prepared) => self.take(prepared).await,
            Err(error) => self.refuse(&error),
        }
        notify_supervisor(&[sd_notify::NotifyState::Ready]);
    }

    async fn take(&self, prepared: Prepared) {
        let restart = self.started.needs_restart(&prepared.config);
        if !restart.is_empty() {
            tracing::warn!(settings = ?restart, "changed, and taken up at the next restart only");
        }
        self.shared.reload(&prepared);
        if let Some(tls) = &prepared.tls {
            certificates::forget_unlisted(&tls.keyring, &prepared.config);
        }
        // Before the zones: new ones are read from disk, which takes as long as it takes, and an
        // API client that is gone must not stay in until then.
        let mut live = live(&prepared);
        live.restart_needed_for = restart;
        self.state.live.store(Arc::new(live));
        self.runner.configure(prepared.zones.clone()).await;
        self.state.metrics.config_loaded(true);
        tracing::info!(zones = prepared.config.zones.len(), "the configuration was reloaded");
    }

    fn refuse(&self, error: &anyhow::Error) {
        tracing::error!("the configuration was refused, the old one stays in force:\n{error:#}");
        self.state.metrics.config_loaded(false);
        self.state.live.rcu(|live| {
            let mut live = Live::clone(live);
            live.config_error = Some(format!("{error:#}"));
            live
        });
    }

    async fn stop(self) {
        let deadline = Duration::from_millis(self.state.live.load().config.limits.stop_ms_max);
        tracing::info!("stopping");
        self.stop.cancel();
        self.tasks.close();
        let all = async { tokio::join!(self.runner.stop(deadline), self.tasks.wait()) };
        if tokio::time::timeout(deadline, all).await.is_err() {
            tracing::warn!(?deadline, "some connections were cut off");
        }
        // The next start replaces one that is left.
        let _ = std::fs::remove_file(&self.started.daemon.api_socket);
        tracing::info!("stopped");
    }
}

fn live(prepared: &Prepared) -> Live {
    let tls = prepared.tls.as_ref();
    Live {
        config: prepared.config.clone(),
        config_error: None,
        restart_needed_for: Vec::new(),
        clients: prepared.clients.clone(),
        acceptor: tls.map(|tls| tls.api.clone()),
        certificates: tls.map(|tls| tls.keyring.clone()),
    }
}

fn until(
    stop: &CancellationToken,
    work: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let stop = stop.clone();
    async move {
        stop.run_until_cancelled(work).await;
    }
}
