//! What there is to know of a certificate beside whose it is: who issued it, and how long it lasts.

use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// Octets of a name that are shown: a distinguished name may be of any length.
const SHOWN_BYTES_MAX: usize = 200;

/// The certificate could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("certificate is not readable X.509: {0}")]
pub struct Unreadable(String);

/// A certificate that was read. Nothing is verified here: TLS does that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its subject, for people.
    pub shown: String,
    /// When it begins to be valid, in seconds since 1970.
    pub begins_at_s: i64,
    /// When it ends.
    pub ends_at_s: i64,
    /// DER of the subject's name.
    pub(super) subject: Vec<u8>,
    /// DER of the issuer's name.
    pub(super) issuer: Vec<u8>,
    /// The issuer's name, for people.
    pub(super) issuer_shown: String,
    pub(super) serial: Vec<u8>,
    /// The key identifier that it gives itself, and its issuer (RFC 5280 §4.2.1.1 and §4.2.1.2).
    key: Option<Vec<u8>>,
    issuer_key: Option<Vec<u8>>,
}

impl Facts {
    /// Reads a DER certificate.
    pub fn from_der(certificate: &[u8]) -> Result<Self, Unreadable> {
        let (_, read) = X509Certificate::from_der(certificate)
            .map_err(|error| Unreadable(error.to_string()))?;
        let (mut key, mut issuer_key) = (None, None);
        for extension in read.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => key = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    issuer_key = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                _ => {}
            }
        }
        Ok(Self {
            shown: shown(read.subject()),
            begins_at_s: read.validity().not_before.timestamp(),
            ends_at_s: read.validity().not_after.timestamp(),
            subject: read.subject().as_raw().to_vec(),
            issuer: read.issuer().as_raw().to_vec(),
            issuer_shown: shown(read.issuer()),
            serial: read.raw_serial().to_vec(),
            key,
            issuer_key,
        })
    }

    /// Whether `other` issued this one, going by names: of a chain that TLS has verified.
    pub(super) fn issued_by(&self, other: &Self) -> bool {
        let keys_differ =
            matches!((&self.issuer_key, &other.key), (Some(ours), Some(theirs)) if ours != theirs);
        self.issuer == other.subject && !keys_differ
    }

    /// How long it lasts in all.
    pub(super) fn life_s(&self) -> i64 {
        self.ends_at_s.saturating_sub(self.begins_at_s)
    }
}

/// A name for people: its common name where it has one, or all of it. A stranger's text is escaped.
pub(super) fn shown(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|name| name.as_str().ok());
    let text = common.map_or_else(|| name.to_string(), str::to_owned);
    let mut text: String = text.escape_debug().collect();
    if text.len() > SHOWN_BYTES_MAX {
        // Escaped text may still hold letters of several octets.
        let end = (0..=SHOWN_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}
