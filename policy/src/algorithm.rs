//! DNSSEC signing algorithms (RFC 8624; numbers from IANA's registry).

use std::fmt;

use serde::{Deserialize, Serialize};

/// The algorithms that Countersign signs with, by their IANA number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
#[repr(u8)]
pub enum Algorithm {
    /// RSASHA256, RFC 5702. Public key by RFC 3110: exponent length, exponent, modulus.
    RsaSha256 = 8,
    /// ECDSAP256SHA256, RFC 6605. Public key is x‖y, 64 octets; a signature r‖s, 64 octets.
    EcdsaP256Sha256 = 13,
    /// ECDSAP384SHA384, RFC 6605. Public key is x‖y, 96 octets; a signature r‖s, 96 octets.
    EcdsaP384Sha384 = 14,
    /// ED25519, RFC 8080. Public key 32 octets, signature 64 octets.
    Ed25519 = 15,
}

/// An algorithm number that Countersign does not sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "algorithm {0} is not supported; use 8 (RSASHA256), 13 (ECDSAP256SHA256), 14 (ECDSAP384SHA384) or 15 (ED25519)"
)]
pub struct UnsupportedAlgorithm(pub u8);

/// RSA moduli that are accepted, in bits: below 2048 is too weak for a zone (RFC 8624, NIST
/// SP 800-57), above 4096 no validator is required to follow (RFC 3110 §2).
pub const RSA_BITS: std::ops::RangeInclusive<u16> = 2048..=4096;

impl Algorithm {
    /// The IANA number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The IANA mnemonic.
    pub const fn mnemonic(self) -> &'static str {
        match self {
            Self::RsaSha256 => "RSASHA256",
            Self::EcdsaP256Sha256 => "ECDSAP256SHA256",
            Self::EcdsaP384Sha384 => "ECDSAP384SHA384",
            Self::Ed25519 => "ED25519",
        }
    }

    /// The length of the DNSKEY's public key field in octets; `None` where it varies (RSA).
    pub const fn public_key_len(self) -> Option<usize> {
        match self {
            Self::RsaSha256 => None,
            Self::EcdsaP256Sha256 => Some(64),
            Self::EcdsaP384Sha384 => Some(96),
            Self::Ed25519 => Some(32),
        }
    }

    /// The length of the RRSIG's signature field in octets; `None` where the key decides (RSA).
    pub const fn signature_len(self) -> Option<usize> {
        match self {
            Self::RsaSha256 => None,
            Self::EcdsaP256Sha256 | Self::Ed25519 => Some(64),
            Self::EcdsaP384Sha384 => Some(96),
        }
    }
}

impl TryFrom<u8> for Algorithm {
    type Error = UnsupportedAlgorithm;
    fn try_from(number: u8) -> Result<Self, UnsupportedAlgorithm> {
        match number {
            8 => Ok(Self::RsaSha256),
            13 => Ok(Self::EcdsaP256Sha256),
            14 => Ok(Self::EcdsaP384Sha384),
            15 => Ok(Self::Ed25519),
            other => Err(UnsupportedAlgorithm(other)),
        }
    }
}

impl From<Algorithm> for u8 {
    fn from(algorithm: Algorithm) -> Self {
        algorithm.number()
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mnemonic())
    }
}
