//! The side that connects.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::recorder::Recorder;
use super::seen::Holder;
use super::{HandshakeError, Keyring, Material, TlsFileError, WallClock, explain, provider};
use crate::peers::Identity;

/// Connects with our certificate to holders of certificates of our CA.
///
/// The server's chain must end at a configured CA, be valid now, be for the name asked for, and
/// allow server authentication where it restricts its use.
#[derive(Debug, Clone)]
pub struct Connector {
    keyring: Keyring,
    clock: WallClock,
    alpn: &'static [u8],
}

impl Connector {
    /// Prepares to connect with what is in force at each handshake; `alpn` is the one application
    /// protocol spoken.
    pub fn of(keyring: Keyring, clock: WallClock, alpn: &'static [u8]) -> Self {
        Self { keyring, clock, alpn }
    }

    /// The same with material that is not taken up anew.
    pub fn new(
        material: Material,
        clock: WallClock,
        alpn: &'static [u8],
    ) -> Result<Self, TlsFileError> {
        Ok(Self::of(Keyring::fixed(material)?, clock, alpn))
    }

    /// Does the handshake, within `deadline`; the server must choose our application protocol.
    pub async fn connect<S>(
        &self,
        stream: S,
        name: ServerName<'static>,
        deadline: Duration,
    ) -> Result<(TlsStream<S>, Identity), HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let in_force = self.keyring.in_force();
        let (recorder, refused) = Recorder::new(in_force.servers.clone(), true);
        let config =
            self.config(Arc::new(recorder), &in_force.material).map_err(HandshakeError::Tls)?;
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let stream = match tokio::time::timeout(deadline, handshake).await {
            Err(_) => return Err(HandshakeError::Deadline(deadline)),
            Ok(Err(error)) => return Err(explain(error, refused.get().cloned())),
            Ok(Ok(stream)) => stream,
        };
        let session = stream.get_ref().1;
        let leaf = session.peer_certificates().and_then(<[_]>::first);
        let identity = Identity::from_der(leaf.ok_or(HandshakeError::CertificateMissing)?)?;
        if session.alpn_protocol() != Some(self.alpn) {
            let text = |alpn: &[u8]| String::from_utf8_lossy(alpn).into_owned();
            return Err(HandshakeError::Alpn {
                expected: text(self.alpn),
                found: session.alpn_protocol().map(text),
            });
        }
        Ok((stream, identity))
    }

    /// Remembers what `name` showed at the other end, so that someone learns of it before it ends.
    pub fn saw<S>(&self, name: &Arc<str>, stream: &TlsStream<S>) {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        self.keyring.seen().record(Holder::PeerServer, name, chain, (self.clock.0)());
    }

    fn config(
        &self,
        verifier: Arc<dyn ServerCertVerifier>,
        material: &Material,
    ) -> Result<ClientConfig, rustls::Error> {
        let resolver = Arc::new(SingleCertAndKey::from(material.key.as_ref().clone()));
        let mut config = ClientConfig::builder_with_details(provider(), Arc::new(self.clock))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous() // a verifier of our own: it asks the real one and records its refusal
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(resolver);
        config.alpn_protocols = vec![self.alpn.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}
