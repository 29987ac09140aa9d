//! The listeners towards peers, and what they share with the runner.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use countersign_policy::ZoneName;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Prepared;
use crate::config::{Limits, Listen};
use crate::counters::Counters;
use crate::gate::GateLimits;
use crate::notify::{self, Inbox, Notified, Notifier, RATE_INTERVAL, SendLimits, Target};
use crate::outbound::{self, ClearLimits, Xot, serve_tcp, serve_xot};
use crate::peers::PeerName;
use crate::published::Catalogue;
use crate::query::{Front, serve_udp};
use crate::runner::{Announce, Runner};

/// NOTIFYs on their way to the runner. While it is full they wait in the inbox, one per zone.
const NOTIFIED_MAX: usize = 64;

/// What the listeners share; a reload swaps parts of it.
pub(super) struct Shared {
    catalogue: Arc<Catalogue>,
    pub(super) counters: Arc<Counters>,
    inbox: Arc<Inbox>,
    front: Arc<Front>,
    /// Absent without `[tls]`: then there is no listener for it either.
    xot: Option<Arc<Xot>>,
    clear: ClearLimits,
    notifier: Arc<Notifier>,
    /// Where each peer takes NOTIFY.
    targets: Arc<ArcSwap<HashMap<PeerName, SocketAddr>>>,
}

/// Sockets that are bound and not served yet.
pub(super) struct Open {
    pub dns: Vec<(UdpSocket, TcpListener)>,
    pub xot: Vec<TcpListener>,
    pub api: Vec<TcpListener>,
}

/// Binds every configured address.
pub(super) async fn open(listen: &Listen) -> anyhow::Result<Open> {
    let mut dns = Vec::new();
    for address in &listen.dns {
        let failed = || format!("listen.dns: {address} can't be bound");
        let udp = UdpSocket::bind(address).await.with_context(failed)?;
        let tcp = TcpListener::bind(address).await.with_context(failed)?;
        dns.push((udp, tcp));
    }
    Ok(Open { dns, xot: bind("xot", &listen.xot).await?, api: bind("api", &listen.api).await? })
}

async fn bind(name: &str, addresses: &[SocketAddr]) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        let listener = TcpListener::bind(address).await;
        listeners
            .push(listener.with_context(|| format!("listen.{name}: {address} can't be bound"))?);
    }
    Ok(listeners)
}

impl Shared {
    pub(super) fn new(
        prepared: &Prepared,
        catalogue: Arc<Catalogue>,
        stop: &CancellationToken,
    ) -> Self {
        let limits = &prepared.config.limits;
        let counters = Arc::<Counters>::default();
        let inbox = Inbox::new(RATE_INTERVAL, counters.clone());
        let front = Front::new(catalogue.clone(), inbox.clone(), counters.clone());
        let xot = prepared
            .tls
            .as_ref()
            .map(|tls| Xot::new(tls.xot.clone(), front.clone(), xot_limits(limits)));
        let notifier = Notifier::new(SendLimits::default(), counters.clone(), stop.clone());
        Self {
            catalogue,
            counters,
            inbox,
            front,
            xot,
            clear: clear_limits(limits),
            notifier: Arc::new(notifier),
            targets: Arc::new(ArcSwap::from_pointee(targets(prepared))),
        }
    }

    /// For the runner: tells the secondaries of a zone that it has a new version up.
    pub(super) fn announce(&self) -> Announce {
        let (catalogue, notifier) = (self.catalogue.clone(), self.notifier.clone());
        let targets = self.targets.clone();
        Box::new(move |name: &ZoneName| {
            let view = catalogue.view();
            let Some(zone) = view.zone(name) else { return };
            let Some(version) = zone.current() else { return };
            let targets = targets.load();
            let told = zone.secondaries().iter().filter_map(|peer| {
                let (peer, address) = (peer.clone(), *targets.get(peer)?);
                let key = view.peers().key_of(&peer);
                Some(Target { peer, address, key })
            });
            notifier.announce(&version, told);
        })
    }

    /// For `/metrics`.
    pub(super) fn exposition(&self) -> crate::api::Counters {
        let counters = self.counters.clone();
        Box::new(move || {
            let mut shown = Vec::new();
            counters.each(|name, help, value| {
                shown.push((format!("countersign_{name}_total"), help, value));
            });
            shown
        })
    }

    /// Zones, peers and certificates of another configuration.
    pub(super) fn reload(&self, prepared: &Prepared) {
        self.targets.store(Arc::new(targets(prepared)));
        self.catalogue.reload(prepared.access.clone(), prepared.peers.clone());
        if let (Some(xot), Some(tls)) = (&self.xot, &prepared.tls) {
            xot.replace_acceptor(tls.xot.clone());
        }
    }

    /// Serves what was bound, until `stop`.
    pub(super) fn serve(
        &self,
        dns: Vec<(UdpSocket, TcpListener)>,
        xot: Vec<TcpListener>,
        runner: &Arc<Runner>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        for (udp, tcp) in dns {
            tasks.spawn(serve_udp(udp, self.front.clone(), stop.clone()));
            let (front, limits) = (self.front.clone(), self.clear.clone());
            tasks.spawn(serve_tcp(tcp, front, limits, stop.clone()));
        }
        for listener in xot {
            if let Some(server) = &self.xot {
                tasks.spawn(serve_xot(listener, server.clone(), stop.clone()));
            }
        }
        let (sender, receiver) = mpsc::channel(NOTIFIED_MAX);
        tasks.spawn(notify::forward(self.inbox.clone(), sender, stop.clone()));
        tasks.spawn(pass_on(receiver, runner.clone()));
    }
}

/// Hands NOTIFYs to the zones' tasks. Ends with the sender.
async fn pass_on(mut notified: mpsc::Receiver<Notified>, runner: Arc<Runner>) {
    while let Some(Notified { zone, peer, serial }) = notified.recv().await {
        tracing::debug!(%zone, %peer, serial, "NOTIFY");
        runner.notified(&zone);
    }
}

fn targets(prepared: &Prepared) -> HashMap<PeerName, SocketAddr> {
    let peers = prepared.config.peers.iter();
    peers.filter_map(|(name, peer)| Some((name.as_str().into(), peer.notify?))).collect()
}

fn gate_limits(limits: &Limits) -> GateLimits {
    GateLimits {
        per_peer_max: limits.connections_per_peer_max,
        total_max: limits.connections_max,
        ..GateLimits::default()
    }
}

fn clear_limits(limits: &Limits) -> ClearLimits {
    ClearLimits {
        gate: gate_limits(limits),
        transfer: Duration::from_secs(limits.transfer_s_max),
        ..ClearLimits::default()
    }
}

fn xot_limits(limits: &Limits) -> outbound::Limits {
    outbound::Limits {
        gate: gate_limits(limits),
        handshake: Duration::from_millis(limits.handshake_ms),
        idle: Duration::from_millis(limits.idle_ms),
        write: Duration::from_millis(limits.idle_ms),
        transfer: Duration::from_secs(limits.transfer_s_max),
        ..outbound::Limits::default()
    }
}
