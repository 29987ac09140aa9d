//! The certificates that others last showed us, so that someone learns of it before one ends.
//!
//! In memory: after a restart a peer is known again once it has come, or was asked. One entry a
//! listed holder and end of the connection, so the configuration bounds them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls_pki_types::CertificateDer;

use super::facts::Facts;

/// Certificates of a chain that are kept: those that TLS accepts have fewer.
const CHAIN_MAX: usize = 8;

/// Who shows a certificate, and at which end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A peer that comes to us.
    Peer,
    /// A peer that we go to.
    PeerServer,
    /// A client of the API.
    ApiClient,
}

impl Holder {
    /// Its stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::PeerServer => "peer-server",
            Self::ApiClient => "api-client",
        }
    }
}

/// A holder, by its name in the configuration.
type Who = (Holder, Arc<str>);

/// A chain as it was shown.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    /// Leaf first.
    pub facts: Arc<[Facts]>,
    /// When it was first shown, in seconds since 1970.
    pub since_s: u64,
}

/// Whose certificates were seen, and the last chain of each.
#[derive(Debug, Default)]
pub struct Seen {
    chains: Mutex<BTreeMap<Who, Chain>>,
}

impl Seen {
    /// `name` has shown this chain, and was let in.
    pub fn record(
        &self,
        holder: Holder,
        name: &Arc<str>,
        chain: &[CertificateDer<'_>],
        now_s: u64,
    ) {
        // What TLS has verified can be read; a chain that can't is not worth a refusal.
        let read = chain.iter().take(CHAIN_MAX).map(|one| Facts::from_der(one));
        let Ok(facts) = read.collect::<Result<Arc<[Facts]>, _>>() else { return };
        if facts.is_empty() {
            return;
        }
        let mut chains = self.chains();
        let before = chains.get(&(holder, name.clone())).filter(|before| before.facts == facts);
        let since_s = before.map_or(now_s, |before| before.since_s);
        chains.insert((holder, name.clone()), Chain { facts, since_s });
    }

    /// Forgets those who are not listed any more.
    pub fn retain(&self, listed: impl Fn(Holder, &str) -> bool) {
        self.chains().retain(|(holder, name), _| listed(*holder, name));
    }

    pub(super) fn all(&self) -> Vec<(Who, Chain)> {
        self.chains().iter().map(|(who, chain)| (who.clone(), chain.clone())).collect()
    }

    fn chains(&self) -> MutexGuard<'_, BTreeMap<Who, Chain>> {
        // Nothing is half-done in it when a panic leaves it behind.
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
