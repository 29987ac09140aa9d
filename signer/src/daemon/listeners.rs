//! The listeners, and what they share.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::Prepared;
use crate::config::Listen;
use crate::counters::Counters;
use crate::published::Catalogue;
use crate::runner::Announce;

/// What listeners share, and a reload swaps.
pub(super) struct Shared {
    catalogue: Arc<Catalogue>,
    pub(super) counters: Arc<Counters>,
}

/// Sockets that are bound and not served yet.
pub(super) struct Open {
    pub api: Vec<TcpListener>,
}

/// Binds every configured address.
pub(super) async fn open(listen: &Listen) -> anyhow::Result<Open> {
    let mut api = Vec::new();
    for address in &listen.api {
        let listener = TcpListener::bind(address).await;
        api.push(listener.with_context(|| format!("listen.api: {address} can't be bound"))?);
    }
    Ok(Open { api })
}

impl Shared {
    pub(super) fn new(catalogue: Arc<Catalogue>) -> Self {
        Self { catalogue, counters: Arc::default() }
    }

    /// For the runner: a zone has a new version up.
    pub(super) fn announce() -> Announce {
        Box::new(|_| {})
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

    pub(super) fn reload(&self, prepared: &Prepared) {
        self.catalogue.reload(prepared.access.clone(), prepared.peers.clone());
    }
}
