//! Our certificate, its key and the CA, from PEM files.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::provider;
use crate::peers::{Identity, IdentityError};

/// A certificate, key or CA file is read whole; a bundle of every public CA has 250 KB.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What others and the group must not have on a key file: only its owner writes it, and only
/// its owner and one group (`ssl-cert`, say) read it.
const KEY_MODE_FORBIDDEN: u32 = 0o037;

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPaths {
    /// Our certificate and the intermediates behind it.
    pub certificate: PathBuf,
    /// Its private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
    /// The CA certificates that a peer's must chain to.
    pub ca: PathBuf,
}

/// Why the files do not make an identity.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    /// Not readable.
    #[error("{path}: cannot be read: {error}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Larger than any such file is.
    #[error("{path}: more than {FILE_BYTES_MAX} octets, not a certificate file", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not PEM, or without the part that it is there for.
    #[error("{path}: {error}; expected {expected} in PEM form", path = .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
        /// What is wrong.
        error: String,
    },
    /// Others can read or change the key.
    #[error("{path}: mode {mode:04o} lets others read or change the key. hint: chmod 0600 {path}", path = .path.display())]
    KeyMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key is not the certificate's, or of no supported kind.
    #[error("{key} does not serve {certificate}: {error}", key = .key.display(), certificate = .certificate.display())]
    KeyPair {
        /// The key file.
        key: PathBuf,
        /// The certificate file.
        certificate: PathBuf,
        /// Why.
        error: String,
    },
    /// Our own certificate cannot be read for an identity.
    #[error("{path}: {error}", path = .path.display())]
    Leaf {
        /// The certificate file.
        path: PathBuf,
        /// Why.
        error: IdentityError,
    },
}

/// Our identity towards peers, and the CA that theirs must chain to.
#[derive(Debug, Clone)]
pub struct Material {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) roots: Arc<RootCertStore>,
    identity: Identity,
    not_after_s: i64,
}

impl Material {
    /// Reads and checks the three files.
    pub fn load(paths: &TlsPaths) -> Result<Self, TlsFileError> {
        let chain = certificates(&paths.certificate, "our certificate, leaf first")?;
        check_key_mode(&paths.key)?;
        let pem_error = |error: rustls_pki_types::pem::Error| TlsFileError::Pem {
            path: paths.key.clone(),
            expected: "a private key",
            error: error.to_string(),
        };
        let key = PrivateKeyDer::from_pem_slice(&read(&paths.key)?).map_err(pem_error)?;
        let leaf_error = |error| TlsFileError::Leaf { path: paths.certificate.clone(), error };
        // `certificates` gives at least one.
        let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
        let identity = Identity::from_der(leaf).map_err(leaf_error)?;
        let not_after_s = X509Certificate::from_der(leaf)
            .map_or(0, |(_, leaf)| leaf.validity().not_after.timestamp());
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| {
            TlsFileError::KeyPair {
                key: paths.key.clone(),
                certificate: paths.certificate.clone(),
                error: error.to_string(),
            }
        })?;
        let mut roots = RootCertStore::empty();
        for ca in certificates(&paths.ca, "the CA certificates of our peers")? {
            roots.add(ca).map_err(|error| TlsFileError::Pem {
                path: paths.ca.clone(),
                expected: "the CA certificates of our peers",
                error: error.to_string(),
            })?;
        }
        Ok(Self { key: Arc::new(key), roots: Arc::new(roots), identity, not_after_s })
    }

    /// Who we are towards peers.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When our own certificate ends, in seconds since 1970.
    pub fn not_after_s(&self) -> i64 {
        self.not_after_s
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsFileError> {
    let failed = |error| TlsFileError::Read { path: path.to_owned(), error };
    if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(TlsFileError::TooLarge { path: path.to_owned() });
    }
    fs::read(path).map_err(failed)
}

fn certificates(
    path: &Path,
    expected: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let wrong = |error: String| TlsFileError::Pem { path: path.to_owned(), expected, error };
    let chain = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong("no certificate in it".into()));
    }
    Ok(chain)
}

fn check_key_mode(path: &Path) -> Result<(), TlsFileError> {
    let meta =
        fs::metadata(path).map_err(|error| TlsFileError::Read { path: path.to_owned(), error })?;
    let mode = meta.mode() & 0o7777;
    if mode & KEY_MODE_FORBIDDEN != 0 {
        return Err(TlsFileError::KeyMode { path: path.to_owned(), mode });
    }
    Ok(())
}
