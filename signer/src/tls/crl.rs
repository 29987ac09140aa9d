//! Revocation lists (RFC 5280 §5), from one PEM file.
//!
//! They hold for clients and servers alike, for every certificate of a chain but its trust anchor.
//! A list that has outlived its nextUpdate goes on refusing what it lists, and a certificate whose
//! issuer has no list here is let in: both alarm. Certificates open no door to a key, so a list that
//! was not renewed in time must not end the transfers of every zone at once. What can't be relied
//! on is not taken up at all: a list that can't be read or whose signature is wrong.

use std::path::Path;

use rustls::crypto::CryptoProvider;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::asn1_rs::Sequence;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::facts::{Facts, shown};
use super::files::{TlsFileError, read};

/// A file of lists: a large public CA's is some ten megabytes, one of a bank's own CA a few kilobytes.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// Lists in it: one a CA, and a few parts of each.
const LISTS_MAX: usize = 256;

/// What should be in the file.
const EXPECTED: &str = "revocation lists (X509 CRL)";

/// A list that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct List {
    /// The issuer, for people.
    pub shown: String,
    /// When it was made, in seconds since 1970.
    pub made_at_s: i64,
    /// When the next one is due.
    pub next_at_s: i64,
    /// DER of the issuer's name.
    pub issuer: Vec<u8>,
    /// Serial numbers of the certificates that it lists.
    revoked: Vec<Vec<u8>>,
    pub(super) der: CertificateRevocationListDer<'static>,
}

impl List {
    /// Whether it lists this certificate.
    pub fn revokes(&self, certificate: &Facts) -> bool {
        let serial = strip(&certificate.serial);
        self.issuer == certificate.issuer
            && self.revoked.iter().any(|revoked| strip(revoked) == serial)
    }
}

/// A serial number without the zeros that only say that it is positive.
fn strip(serial: &[u8]) -> &[u8] {
    let start = serial.iter().position(|octet| *octet != 0).unwrap_or(serial.len());
    serial.get(start..).unwrap_or_default()
}

/// Reads the lists in `path`, newest first: of several of one issuer the first is asked.
/// `authorities` are DER certificates: a list by the name of one of them must be signed by it.
pub(super) fn load(
    path: &Path,
    authorities: &[impl AsRef<[u8]>],
    provider: &CryptoProvider,
) -> Result<Vec<List>, TlsFileError> {
    let wrong =
        |error: String| TlsFileError::Pem { path: path.to_owned(), expected: EXPECTED, error };
    let ders = CertificateRevocationListDer::pem_slice_iter(&read(path, FILE_BYTES_MAX)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    if ders.is_empty() {
        return Err(wrong("no list in it".into()));
    }
    if ders.len() > LISTS_MAX {
        return Err(wrong(format!("{} lists in it, at most {LISTS_MAX} are read", ders.len())));
    }
    let mut lists = Vec::new();
    for der in ders {
        lists.push(list(&der, authorities, provider).map_err(&wrong)?);
    }
    lists.sort_by_key(|list| std::cmp::Reverse(list.made_at_s));
    Ok(lists)
}

fn list(
    der: &CertificateRevocationListDer<'static>,
    authorities: &[impl AsRef<[u8]>],
    provider: &CryptoProvider,
) -> Result<List, String> {
    let (_, read) = CertificateRevocationList::from_der(der).map_err(|error| error.to_string())?;
    let issuer = shown(read.issuer());
    let next = read.next_update().ok_or_else(|| {
        format!("the list of {issuer} has no nextUpdate, so that nobody could tell it is stale")
    })?;
    for authority in authorities {
        let Ok((_, authority)) = X509Certificate::from_der(authority.as_ref()) else { continue };
        if authority.subject().as_raw() == read.issuer().as_raw() {
            signed_by(&read, &authority, provider).ok_or_else(|| {
                format!(
                    "the list of {issuer} is not signed by the CA certificate of that name. hint: \
                     a CA with a new key needs a name of its own"
                )
            })?;
        }
    }
    Ok(List {
        shown: issuer,
        made_at_s: read.last_update().timestamp(),
        next_at_s: next.timestamp(),
        issuer: read.issuer().as_raw().to_vec(),
        revoked: read.iter_revoked_certificates().map(|c| c.raw_serial().to_vec()).collect(),
        der: der.clone(),
    })
}

/// Whether the list's signature is the authority's (RFC 5280 §6.3.3 (g)).
fn signed_by(
    list: &CertificateRevocationList<'_>,
    authority: &X509Certificate<'_>,
    provider: &CryptoProvider,
) -> Option<()> {
    let signed: &[u8] = list.tbs_cert_list.as_ref();
    // SEQUENCE { tbsCertList, signatureAlgorithm, signature }, SEQUENCE { algorithm, key }.
    let (_, outer) = Sequence::from_der(list.as_raw()).ok()?;
    let (_, signing) = Sequence::from_der(outer.content.get(signed.len()..)?).ok()?;
    let key = authority.public_key();
    let (_, outer_key) = Sequence::from_der(key.raw).ok()?;
    let (_, of_key) = Sequence::from_der(&outer_key.content).ok()?;
    provider
        .signature_verification_algorithms
        .all
        .iter()
        .filter(|algorithm| algorithm.signature_alg_id().as_ref() == signing.content.as_ref())
        .filter(|algorithm| algorithm.public_key_alg_id().as_ref() == of_key.content.as_ref())
        .find_map(|algorithm| {
            let (key, signature) = (&key.subject_public_key.data, &list.signature_value.data);
            algorithm.verify_signature(key, signed, signature).ok()
        })
}
