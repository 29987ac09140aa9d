//! Keys: RFC 8945 §6 and §8.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use countersign_policy::ZoneName;

use super::record::{self, Tsig};

/// Half of what HMAC-SHA256 takes: 128 bits cannot be guessed, and nothing shorter was ever made by a tool.
const SECRET_BYTES_MIN: usize = 16;

/// How messages are authenticated. HMAC-MD5 and those with SHA-1 are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `hmac-sha256`, which everyone has.
    HmacSha256,
    /// `hmac-sha384`.
    HmacSha384,
    /// `hmac-sha512`.
    HmacSha512,
}

impl Algorithm {
    /// Its name in messages.
    pub const fn wire_name(self) -> &'static [u8] {
        match self {
            Self::HmacSha256 => b"\x0bhmac-sha256\x00",
            Self::HmacSha384 => b"\x0bhmac-sha384\x00",
            Self::HmacSha512 => b"\x0bhmac-sha512\x00",
        }
    }

    /// Octets of its whole MAC.
    pub const fn mac_bytes(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }

    /// A MAC that was cut shorter than this proves nothing (RFC 8945 §5.2.2.1: ten octets, or half the
    /// hash if that is more; here it always is).
    pub const fn mac_bytes_min(self) -> usize {
        self.mac_bytes() / 2
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::HmacSha256 => hmac::HMAC_SHA256,
            Self::HmacSha384 => hmac::HMAC_SHA384,
            Self::HmacSha512 => hmac::HMAC_SHA512,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha384 => "hmac-sha384",
            Self::HmacSha512 => "hmac-sha512",
        })
    }
}

/// Why octets are no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A secret that can be guessed.
    #[error(
        "secret has {octets} octets, at least {SECRET_BYTES_MIN} expected (and {} are best). hint: \
         make one with: openssl rand -base64 {}, or tsig-keygen -a {algorithm} NAME",
        .algorithm.mac_bytes(), .algorithm.mac_bytes()
    )]
    TooShort {
        /// Its length.
        octets: usize,
        /// What it is for.
        algorithm: Algorithm,
    },
}

/// A named secret. The secret itself is in the HMAC's state alone, which aws-lc clears when it is
/// dropped; nothing gives it back.
pub struct Key {
    name: ZoneName,
    /// As digested: wire form in lower case.
    wire_name: Box<[u8]>,
    algorithm: Algorithm,
    hmac: hmac::Key,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} {})", self.name, self.algorithm)
    }
}

impl Key {
    /// Takes a secret; the caller clears its own copy.
    pub fn new(name: ZoneName, algorithm: Algorithm, secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyError::TooShort { octets: secret.len(), algorithm });
        }
        let wire_name = name.as_wire().to_ascii_lowercase().into();
        let hmac = hmac::Key::new(algorithm.hmac(), secret);
        Ok(Self { name, wire_name, algorithm, hmac })
    }

    /// Its name, for people.
    pub fn name(&self) -> &ZoneName {
        &self.name
    }

    /// Its name as it is looked up: wire form in lower case.
    pub fn wire_name(&self) -> &[u8] {
        &self.wire_name
    }

    /// How it authenticates.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether both have the same name, algorithm and secret.
    pub fn same_as(&self, other: &Self) -> bool {
        let probe = |key: &Self| hmac::sign(&key.hmac, b"countersign: same key?");
        self.wire_name == other.wire_name
            && self.algorithm == other.algorithm
            && verify_slices_are_equal(probe(self).as_ref(), probe(other).as_ref()).is_ok()
    }

    /// Octets that its record adds to a message.
    pub fn record_bytes(&self) -> usize {
        record::record_bytes(
            &self.wire_name,
            self.algorithm.wire_name(),
            self.algorithm.mac_bytes(),
        )
    }
}

/// A digest under way (RFC 8945 §4.3).
#[derive(Clone)]
pub(super) struct Digest(hmac::Context);

impl Digest {
    pub(super) fn new(key: &Key) -> Self {
        Self(hmac::Context::with_key(&key.hmac))
    }

    /// The MAC that came before: the request's, or that of the last signed message (§4.3.1).
    pub(super) fn prior_mac(&mut self, mac: &[u8]) {
        self.0.update(&(mac.len() as u16).to_be_bytes());
        self.0.update(mac);
    }

    /// A message as it is.
    pub(super) fn plain(&mut self, message: &[u8]) {
        self.0.update(message);
    }

    /// A message without its TSIG record and with its first id (§4.3.2). Its header counts that record
    /// no more.
    pub(super) fn message(&mut self, stripped: &[u8], original_id: u16) {
        self.0.update(&original_id.to_be_bytes());
        self.0.update(stripped.get(2..).unwrap_or_default());
    }

    /// The fields of the record (§4.3.3).
    pub(super) fn variables(&mut self, key: &Key, tsig: &Tsig) {
        self.0.update(&key.wire_name);
        self.0.update(&record::CLASS_ANY.to_be_bytes());
        self.0.update(&0_u32.to_be_bytes());
        self.0.update(key.algorithm.wire_name());
        self.timers(tsig);
        self.0.update(&tsig.error.to_be_bytes());
        self.0.update(&(tsig.other.len() as u16).to_be_bytes());
        self.0.update(&tsig.other);
    }

    /// Of the second and later messages of a stream, the times alone (§5.3.1).
    pub(super) fn timers(&mut self, tsig: &Tsig) {
        self.0.update(&tsig.time_s.to_be_bytes()[2..]);
        self.0.update(&tsig.fudge_s.to_be_bytes());
    }

    pub(super) fn mac(self) -> Box<[u8]> {
        self.0.sign().as_ref().into()
    }

    /// Whether `mac`, maybe cut short, is the right one. Takes as long when it is not.
    pub(super) fn proves(self, mac: &[u8]) -> bool {
        let whole = self.0.sign();
        let cut = whole.as_ref().get(..mac.len());
        cut.is_some_and(|cut| verify_slices_are_equal(cut, mac).is_ok())
    }
}
