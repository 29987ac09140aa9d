//! The side that is connected to.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider as _;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::recorder::Recorder;
use super::{HandshakeError, Material, WallClock, explain, provider};
use crate::peers::Identity;

/// Accepts TLS 1.3 connections from holders of certificates of our CA.
///
/// The chain must end at a configured CA, be valid now, and allow client authentication where
/// it restricts its use (EKU, RFC 5280 §4.2.1.12). Who it is is for the caller to look up.
#[derive(Debug, Clone)]
pub struct Acceptor {
    verifier: Arc<dyn ClientCertVerifier>,
    base: Arc<ServerConfig>,
    material: Material,
    clock: WallClock,
    alpn: &'static [u8],
}

/// A connection whose other end is proven.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The connection.
    pub stream: TlsStream<S>,
    /// Whose certificate it is.
    pub identity: Identity,
    /// The certificate and its intermediates, as shown, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whether the peer asked for our application protocol by name.
    pub alpn: bool,
}

impl Acceptor {
    /// Prepares to accept; `alpn` is the one application protocol spoken.
    pub fn new(
        material: Material,
        clock: WallClock,
        alpn: &'static [u8],
    ) -> Result<Self, rustls::Error> {
        let verifier: Arc<dyn ClientCertVerifier> =
            WebPkiClientVerifier::builder_with_provider(material.roots.clone(), provider())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let base = Arc::new(config(verifier.clone(), &material, clock, alpn)?);
        Ok(Self { verifier, base, material, clock, alpn })
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
        let (recorder, refused) = Recorder::new(self.verifier.clone());
        let config = config(Arc::new(recorder), &self.material, self.clock, self.alpn)
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
        let leaf = chain.first().ok_or(HandshakeError::CertificateMissing)?;
        let identity = Identity::from_der(leaf)?;
        let alpn = session.alpn_protocol() == Some(self.alpn);
        Ok(Accepted { stream, identity, chain, alpn })
    }

    /// Whether a handshake with this chain would be accepted now: what was let in before a reload
    /// may chain to a CA that is not ours any more, or have expired since.
    pub fn still_accepts(&self, chain: &[CertificateDer<'_>]) -> bool {
        let (Some((leaf, intermediates)), Some(now)) =
            (chain.split_first(), self.clock.current_time())
        else {
            return false;
        };
        self.verifier.verify_client_cert(leaf, intermediates, now).is_ok()
    }

    /// The configuration for servers that do their own handshake (they see no refused identity).
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.base.clone()
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
