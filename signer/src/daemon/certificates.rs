//! Certificates, as the daemon has them: read with the configuration, and looked at from then on.
//!
//! They are not part of what a reload takes or refuses as a whole. A reload that finds the files
//! of before half-replaced takes the rest, keeps what was in force, and says so in an alarm.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::time::{MissedTickBehavior, interval};

use crate::api::ApiState;
use crate::clock::now_s;
use crate::config::{self, Config};
use crate::tls::{
    ALPN_DOT, ALPN_HTTP, Acceptor, Connector, Holder, Keyring, LOOK_EVERY, Look, TlsPaths,
    WallClock,
};

/// TLS in each of our parts.
#[derive(Debug, Clone)]
pub struct PreparedTls {
    /// For XoT listeners.
    pub xot: Acceptor,
    /// For HTTPS listeners.
    pub api: Acceptor,
    /// For transfers in.
    pub connector: Connector,
    /// What all of them work with.
    pub keyring: Keyring,
}

/// Reads the files that `[tls]` names. `before` is what is in force.
pub(super) fn prepare(
    files: &config::TlsFiles,
    before: Option<&Keyring>,
) -> anyhow::Result<PreparedTls> {
    let files = TlsPaths {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        ca: files.ca.clone(),
        crl: files.crl.clone(),
    };
    let seen = before.map(|before| before.seen().clone()).unwrap_or_default();
    let keyring = match (Keyring::load(files.clone(), seen), before) {
        (Ok(fresh), _) => fresh,
        (Err(error), Some(before)) if before.files() == Some(&files) => {
            tracing::error!(%error, "certificate files were refused, those of before stay in force");
            before.refuse(&error, now_s());
            before.clone()
        }
        (Err(error), _) => return Err(error).context("[tls]"),
    };
    let clock = WallClock(now_s);
    Ok(PreparedTls {
        xot: Acceptor::of(keyring.clone(), clock, ALPN_DOT),
        api: Acceptor::of(keyring.clone(), clock, ALPN_HTTP),
        connector: Connector::of(keyring.clone(), clock, ALPN_DOT),
        keyring,
    })
}

/// Forgets the certificates of those whom `config` does not list.
pub(super) fn forget_unlisted(keyring: &Keyring, config: &Config) {
    keyring.seen().retain(|holder, name| match holder {
        Holder::Peer | Holder::PeerServer => config.peers.contains_key(name),
        Holder::ApiClient => config.api_clients.contains_key(name),
    });
}

/// Looks at the files of whatever keyring is in force, for as long as it is polled.
pub(super) async fn watch(state: Arc<ApiState>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(keyring) = state.live.load().certificates.clone() else { continue };
        let looking = keyring.clone();
        match tokio::task::spawn_blocking(move || looking.look(now_s())).await {
            Ok(Look::Taken) => {
                let ends_at_s = keyring.ends_at_s();
                tracing::info!(ends_at_s, "certificate files have changed and were taken up");
            }
            Ok(Look::Refused { reason, again: false }) => tracing::warn!(
                reason,
                "certificate files have changed and can't be taken up, those of before stay in force"
            ),
            Ok(Look::Same | Look::Changed | Look::Refused { .. }) => {}
            Err(error) => tracing::error!(%error, "certificate files could not be looked at"),
        }
    }
}
