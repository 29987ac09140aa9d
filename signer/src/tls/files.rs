//! Our certificate, its key, the CAs and what they revoked, from PEM files.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::crl::{self, List};
use super::facts::{Facts, Unreadable};
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
    /// What those CAs have revoked.
    pub crl: Option<PathBuf>,
}

impl TlsPaths {
    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Path> {
        let crl = self.crl.as_deref();
        [&*self.certificate, &*self.key, &*self.ca].into_iter().chain(crl)
    }
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
    #[error("{path}: more than {bytes_max} octets, no such file is that large", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What one may have.
        bytes_max: u64,
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
    /// A certificate that can't be read for what it says.
    #[error("{path}: {error}", path = .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        error: Unreadable,
    },
    /// TLS can't work with what the files hold.
    #[error("{path}: {error}", path = .path.display())]
    Unusable {
        /// The file that it is about.
        path: PathBuf,
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

/// Our identity towards peers, the CAs that theirs must chain to, and what these have revoked.
#[derive(Debug, Clone)]
pub struct Material {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) roots: Arc<RootCertStore>,
    /// Our certificate, then its intermediates.
    pub(super) ours: Vec<Facts>,
    pub(super) authorities: Vec<Facts>,
    /// Newest first. None where no file is configured.
    pub(super) lists: Option<Vec<List>>,
    identity: Identity,
}

impl Material {
    /// Reads and checks the files.
    pub fn load(paths: &TlsPaths) -> Result<Self, TlsFileError> {
        let chain = certificates(&paths.certificate, "our certificate, leaf first")?;
        check_key_mode(&paths.key)?;
        let pem_error = |error: rustls_pki_types::pem::Error| TlsFileError::Pem {
            path: paths.key.clone(),
            expected: "a private key",
            error: error.to_string(),
        };
        let key =
            PrivateKeyDer::from_pem_slice(&read(&paths.key, FILE_BYTES_MAX)?).map_err(pem_error)?;
        let leaf_error = |error| TlsFileError::Leaf { path: paths.certificate.clone(), error };
        // `certificates` gives at least one.
        let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
        let identity = Identity::from_der(leaf).map_err(leaf_error)?;
        let ours = facts(&paths.certificate, &chain)?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| {
            TlsFileError::KeyPair {
                key: paths.key.clone(),
                certificate: paths.certificate.clone(),
                error: error.to_string(),
            }
        })?;
        let cas = certificates(&paths.ca, "the CA certificates of our peers")?;
        let authorities = facts(&paths.ca, &cas)?;
        let lists =
            paths.crl.as_ref().map(|path| crl::load(path, &cas, &provider())).transpose()?;
        let mut roots = RootCertStore::empty();
        for ca in cas {
            roots.add(ca).map_err(|error| TlsFileError::Pem {
                path: paths.ca.clone(),
                expected: "the CA certificates of our peers",
                error: error.to_string(),
            })?;
        }
        let (key, roots) = (Arc::new(key), Arc::new(roots));
        Ok(Self { key, roots, ours, authorities, lists, identity })
    }

    /// Who we are towards peers.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When our own certificate ends, in seconds since 1970.
    pub fn not_after_s(&self) -> i64 {
        self.ours.first().map_or(0, |leaf| leaf.ends_at_s)
    }
}

pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, TlsFileError> {
    let failed = |error| TlsFileError::Read { path: path.to_owned(), error };
    if fs::metadata(path).map_err(failed)?.len() > bytes_max {
        return Err(TlsFileError::TooLarge { path: path.to_owned(), bytes_max });
    }
    fs::read(path).map_err(failed)
}

fn facts(path: &Path, chain: &[CertificateDer<'_>]) -> Result<Vec<Facts>, TlsFileError> {
    let unreadable = |error| TlsFileError::Certificate { path: path.to_owned(), error };
    chain.iter().map(|certificate| Facts::from_der(certificate).map_err(unreadable)).collect()
}

fn certificates(
    path: &Path,
    expected: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let wrong = |error: String| TlsFileError::Pem { path: path.to_owned(), expected, error };
    let chain = CertificateDer::pem_slice_iter(&read(path, FILE_BYTES_MAX)?)
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
