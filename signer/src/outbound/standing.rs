//! Who the other end of a stream is, by what it proves, and whether that still holds.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use countersign_policy::ZoneName;
use rustls_pki_types::CertificateDer;
use tokio::time::Instant;

use crate::peers::{Identity, PeerName, Unproven, Way};
use crate::published::{Catalogue, View};
use crate::tls::Acceptor;
use crate::tsig::Key;

/// A certificate is looked at again after this long, in the middle of a transfer too: it may be revoked, or
/// expire, without a reload.
const CERTIFICATE_AGAIN: Duration = Duration::from_secs(1);

/// What a client's certificate showed in the handshake.
#[derive(Debug)]
pub(super) struct Certificate {
    pub identity: Identity,
    pub chain: Vec<CertificateDer<'static>>,
}

/// What there is to prove a query: the connection's certificate, and who accepts it now; the key of
/// the query's TSIG.
#[derive(Debug, Clone)]
pub(super) struct Proof<'a> {
    pub way: Way,
    pub certificate: Option<(&'a Certificate, &'a ArcSwap<Acceptor>)>,
    pub key: Option<Arc<Key>>,
}

/// A peer that is proven in one state of the configuration. A reload makes it look again.
pub(super) struct Standing<'a> {
    catalogue: &'a Catalogue,
    proof: Proof<'a>,
    peer: PeerName,
    view: Arc<View>,
    looked: Instant,
}

impl Proof<'_> {
    /// The peer that it proves.
    pub(super) fn peer(&self, view: &View) -> Result<PeerName, Unproven> {
        let identity = self.certificate.map(|(certificate, _)| &certificate.identity);
        view.peers().proven(self.way, identity, self.key.as_deref())
    }

    /// Whether its certificate, if there is one, would be let in now.
    fn is_accepted(&self) -> bool {
        let accepts = |(certificate, acceptor): (&Certificate, &ArcSwap<Acceptor>)| {
            acceptor.load().still_accepts(&certificate.chain)
        };
        self.certificate.is_none_or(accepts)
    }
}

impl<'a> Standing<'a> {
    /// Looks who it is in `view`.
    pub(super) fn new(
        catalogue: &'a Catalogue,
        view: Arc<View>,
        proof: Proof<'a>,
    ) -> Result<Self, Unproven> {
        let peer = proof.peer(&view)?;
        if !proof.is_accepted() {
            return Err(Unproven::Certificate);
        }
        Ok(Self { catalogue, proof, peer, view, looked: Instant::now() })
    }

    /// The peer.
    pub(super) fn peer(&self) -> &PeerName {
        &self.peer
    }

    /// The state of the configuration in which it was proven.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// Whether it may have zones this way at all.
    pub(super) fn may_transfer(&self) -> bool {
        self.view.peers().may_transfer(&self.peer, self.proof.way)
    }

    /// Whether it is still that peer, and a secondary of the zone. Costs next to nothing while nothing
    /// changes.
    pub(super) fn still_has(&mut self, zone: &ZoneName) -> bool {
        let view = self.catalogue.view();
        let reloaded = !Arc::ptr_eq(&view, &self.view);
        if reloaded || self.looked.elapsed() >= CERTIFICATE_AGAIN {
            self.looked = Instant::now();
            if !self.proof.is_accepted() {
                return false;
            }
        }
        if !reloaded {
            return true;
        }
        self.view = view;
        self.proof.peer(&self.view).is_ok_and(|peer| peer == self.peer)
            && self.may_transfer()
            && self.view.zone(zone).is_some_and(|zone| zone.has_secondary(&self.peer))
    }
}
