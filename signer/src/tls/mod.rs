//! TLS 1.3 with certificates both ways (RFC 8446, RFC 9103 §7.5 and §9.3.3 "mutual TLS").
//!
//! One provider (aws-lc-rs), given explicitly. No session resumption: every connection proves
//! both identities afresh, so a certificate that has expired since does not live on in a ticket.
//! What a refused peer showed is kept beside the error, so that the log says who was refused.

//!
//! What is in force is a [`Keyring`], shared by all: it takes up certificates, CAs and revocation
//! lists that were replaced, and knows what ends when.

mod accept;
mod connect;
mod crl;
mod expiry;
mod facts;
mod files;
mod keyring;
mod recorder;
mod seen;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls_pki_types::UnixTime;

pub use accept::{Accepted, Acceptor};
pub use connect::Connector;
pub use expiry::{Alarm, AlarmKind, Ending, NOTICE_S, URGENT_S, What};
pub use facts::{Facts, Unreadable};
pub use files::{Material, TlsFileError, TlsPaths};
pub use keyring::{Keyring, LOOK_EVERY, Look, REFUSED_GRACE_S};
pub use seen::{Holder, Seen};

use crate::peers::Identity;

/// ALPN of DNS over TLS (RFC 7858; RFC 9103 §7.1 asks for it).
pub const ALPN_DOT: &[u8] = b"dot";
/// ALPN of the API.
pub const ALPN_HTTP: &[u8] = b"http/1.1";

/// Why there is no connection with a peer.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer's certificate was refused here.
    #[error("refused the peer's certificate ({}): {reason}", shown(.identity.as_deref()))]
    CertificateRefused {
        /// What it says, if it could be read.
        identity: Option<Box<Identity>>,
        /// Expired, of another CA, for another purpose or name.
        reason: String,
    },
    /// The peer showed no certificate.
    #[error("peer showed no certificate; one that chains to the configured CA is required")]
    CertificateMissing,
    /// The other side, or TLS itself, said no.
    #[error("TLS handshake failed: {0}")]
    Tls(rustls::Error),
    /// The connection broke.
    #[error("connection broke during the TLS handshake: {0}")]
    Io(io::Error),
    /// Not done in time.
    #[error("TLS handshake not done within {} ms", .0.as_millis())]
    Deadline(Duration),
    /// The certificate was accepted by TLS and cannot be read for an identity.
    #[error(transparent)]
    Unreadable(#[from] crate::peers::IdentityError),
    /// The peer offered or chose another application protocol.
    #[error("peer does not speak {expected:?} (ALPN), it offered {}", offered(.found.as_deref()))]
    Alpn {
        /// What is spoken here.
        expected: String,
        /// What the peer chose, if anything.
        found: Option<String>,
    },
}

fn shown(identity: Option<&Identity>) -> String {
    identity.map_or_else(|| "unreadable".to_owned(), ToString::to_string)
}

fn offered(found: Option<&str>) -> String {
    found.map_or_else(|| "nothing".to_owned(), |found| format!("{found:?}"))
}

/// The only provider of cryptography.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The wall clock that certificates are judged by: a function that gives seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct WallClock(pub fn() -> u64);

impl rustls::time_provider::TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs((self.0)())))
    }
}

/// Turns what an accept or connect ended with into an error that names the peer where it can.
fn explain(error: io::Error, refused: Option<recorder::Refused>) -> HandshakeError {
    if let Some(recorder::Refused { identity, reason }) = refused {
        return HandshakeError::CertificateRefused { identity: identity.map(Box::new), reason };
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::NoCertificatesPresented) => HandshakeError::CertificateMissing,
        Some(inner) => HandshakeError::Tls(inner.clone()),
        None => HandshakeError::Io(error),
    }
}
