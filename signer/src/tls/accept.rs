//! The side that is connected to.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider as _;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::recorder::Recorder;
use super::seen::Holder;
use super::{HandshakeError, Keyring, Material, TlsFileError, WallClock, explain, provider};
use crate::peers::Identity;

/// Accepts TLS 1.3 connections from holders of certificates of our CA.
///
/// The chain must end at a configured CA, be valid now, and allow client authentication where
/// it restricts its use (EKU, RFC 5280 §4.2.1.12). Who it is is for the caller to look up.
#[derive(Debug, Clone)]
pub struct Acceptor {
    keyring: Keyring,
    clock: WallClock,
    alpn: &'static [u8],
    certificate: Certificate,
}

/// Whether a client has to show a certificate. One that is shown must be good either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Certificate {
    Demanded,
    Optional,
}

/// A connection whose other end is proven, or has shown no certificate where none is demanded.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The connection.
    pub stream: TlsStream<S>,
    /// Whose certificate it is. Absent only with [`Acceptor::without_demand`]: something else has
    /// to prove such a peer before it is given anything.
    pub identity: Option<Identity>,
    /// The certificate and its intermediates, as shown, leaf first; empty where none was.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whether the peer asked for our application protocol by name.
    pub alpn: bool,
}

impl Acceptor {
    /// Prepares to accept with what is in force at each handshake; `alpn` is the one application
    /// protocol spoken.
    pub fn of(keyring: Keyring, clock: WallClock, alpn: &'static [u8]) -> Self {
        Self { keyring, clock, alpn, certificate: Certificate::Demanded }
    }

    /// The same with material that is not taken up anew.
    pub fn new(
        material: Material,
        clock: WallClock,
        alpn: &'static [u8],
    ) -> Result<Self, TlsFileError> {
        Ok(Self::of(Keyring::fixed(material)?, clock, alpn))
    }

    /// Lets clients in that show no certificate too: their messages are signed (TSIG).
    #[must_use]
    pub fn without_demand(self) -> Self {
        Self { certificate: Certificate::Optional, ..self }
    }

    /// Does the handshake, within `deadline`.
    pub async fn accept<S>(
        &self,
        stream: S,
        deadline: Duration,
    ) -> Result<Accepted<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let demanded = self.certificate == Certificate::Demanded;
        let in_force = self.keyring.in_force();
        let (recorder, refused) = Recorder::new(in_force.clients.clone(), demanded);
        let config = config(Arc::new(recorder), &in_force.material, self.clock, self.alpn)
            .map_err(HandshakeError::Tls)?;
        let handshake = TlsAcceptor::from(Arc::new(config)).accept(stream);
        let stream = match tokio::time::timeout(deadline, handshake).await {
            Err(_) => return Err(HandshakeError::Deadline(deadline)),
            Ok(Err(error)) => return Err(explain(error, refused.get().cloned())),
            Ok(Ok(stream)) => stream,
        };
        let session = stream.get_ref().1;
        let chain: Vec<_> = session
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .map(|c| c.clone().into_owned())
            .collect();
        if demanded && chain.is_empty() {
            return Err(HandshakeError::CertificateMissing);
        }
        let identity = chain.first().map(|leaf| Identity::from_der(leaf)).transpose()?;
        let alpn = session.alpn_protocol() == Some(self.alpn);
        Ok(Accepted { stream, identity, chain, alpn })
    }

    /// Whether a handshake with this chain would be accepted now: what was let in before may
    /// chain to a CA that is not ours any more, be revoked, or have expired since.
    pub fn still_accepts(&self, chain: &[CertificateDer<'_>]) -> bool {
        let (Some((leaf, intermediates)), Some(now)) =
            (chain.split_first(), self.clock.current_time())
        else {
            return false;
        };
        let in_force = self.keyring.in_force();
        in_force.clients.verify_client_cert(leaf, intermediates, now).is_ok()
    }

    /// Remembers what `name` showed, so that someone learns of it before it ends.
    pub fn saw(&self, holder: Holder, name: &Arc<str>, chain: &[CertificateDer<'_>]) {
        self.keyring.seen().record(holder, name, chain, (self.clock.0)());
    }
}

fn config(
    verifier: Arc<dyn ClientCertVerifier>,
    material: &Material,
    clock: WallClock,
    alpn: &'static [u8],
) -> Result<ServerConfig, rustls::Error> {
    let resolver = Arc::new(SingleCertAndKey::from(material.key.as_ref().clone()));
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(clock))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
