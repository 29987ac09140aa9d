//! Verifiers that remember whom they refused.
//!
//! rustls drops the certificate with the connection. Each connection gets a verifier of its own
//! that asks the real one and keeps, on a refusal, what the certificate said. Of clients a
//! certificate is demanded unless the listener leaves it to them.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::peers::Identity;

/// A refusal.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub identity: Option<Identity>,
    pub reason: String,
}

/// Where a connection's refusal is kept.
pub(super) type Slot = Arc<OnceLock<Refused>>;

#[derive(Debug)]
pub(super) struct Recorder<V: ?Sized> {
    inner: Arc<V>,
    slot: Slot,
    demanded: bool,
}

impl<V: ?Sized> Recorder<V> {
    /// With `demanded`, a client without a certificate is refused. Servers always have one.
    pub(super) fn new(inner: Arc<V>, demanded: bool) -> (Self, Slot) {
        let slot = Slot::default();
        (Self { inner, slot: slot.clone(), demanded }, slot)
    }

    fn record(&self, leaf: &CertificateDer<'_>, error: &Error) {
        let reason = match error {
            Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => "not issued by the configured CA".to_owned(),
            Error::InvalidCertificate(CertificateError::Revoked) => {
                "revoked by the CA that issued it".to_owned()
            }
            Error::InvalidCertificate(why) => why.to_string(),
            other => other.to_string(),
        };
        // Only the first refusal of a connection is of interest, and there is one.
        let _ = self.slot.set(Refused { identity: Identity::from_der(leaf).ok(), reason });
    }
}

/// What rustls asks of verifiers of either side, in the same words: whether who shows the
/// certificate has its key.
macro_rules! signatures_are_judged_by_the_real_one {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.inner.verify_tls12_signature(message, cert, signed)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.inner.verify_tls13_signature(message, cert, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.inner.supported_verify_schemes()
        }
    };
}

impl ClientCertVerifier for Recorder<dyn ClientCertVerifier> {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.demanded
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.inner
            .verify_client_cert(leaf, intermediates, now)
            .inspect_err(|error| self.record(leaf, error))
    }

    signatures_are_judged_by_the_real_one!();
}

impl ServerCertVerifier for Recorder<dyn ServerCertVerifier> {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.inner
            .verify_server_cert(leaf, intermediates, server_name, ocsp_response, now)
            .inspect_err(|error| self.record(leaf, error))
    }

    signatures_are_judged_by_the_real_one!();
}
