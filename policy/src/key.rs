//! A key is its public key: identity, role, and the DNSKEY RDATA that publishes it (RFC 4034 §2).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use crate::algorithm::{Algorithm, RSA_BITS};

/// A DNSKEY's public key field together with its algorithm. The bytes have the algorithm's
/// shape: only [`PublicKey::new`] makes one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "RawPublicKey", into = "RawPublicKey")]
pub struct PublicKey {
    algorithm: Algorithm,
    bytes: Box<[u8]>,
}

#[derive(Serialize, Deserialize)]
struct RawPublicKey {
    algorithm: Algorithm,
    bytes: String,
}

/// Why bytes are not a public key of the algorithm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Not the length that the algorithm fixes.
    #[error("{algorithm} public key has {found} octets, expected {expected}")]
    Length {
        /// The algorithm.
        algorithm: Algorithm,
        /// Octets found.
        found: usize,
        /// Octets expected.
        expected: usize,
    },
    /// Not RFC 3110's form, or a modulus outside [`RSA_BITS`].
    #[error("RSA public key is not in the form of RFC 3110 §2 with a modulus of 2048 to 4096 bits")]
    Rsa,
    /// The text form is not lower-case hexadecimal.
    #[error("public key is not lower-case hexadecimal")]
    NotHex,
}

impl PublicKey {
    /// Checks `bytes` (the DNSKEY's public key field) against the algorithm's shape.
    pub fn new(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, PublicKeyError> {
        match algorithm.public_key_len() {
            Some(expected) if bytes.len() != expected => {
                return Err(PublicKeyError::Length { algorithm, found: bytes.len(), expected });
            }
            Some(_) => {}
            None => {
                let (_, modulus) = split_rsa(bytes).ok_or(PublicKeyError::Rsa)?;
                let bits = modulus.len() * 8 - modulus[0].leading_zeros() as usize;
                if !u16::try_from(bits).is_ok_and(|bits| RSA_BITS.contains(&bits)) {
                    return Err(PublicKeyError::Rsa);
                }
            }
        }
        Ok(Self { algorithm, bytes: bytes.into() })
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The DNSKEY's public key field.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// For RSA: (exponent, modulus), both big-endian without leading zeros.
    pub fn rsa_parts(&self) -> Option<(&[u8], &[u8])> {
        match self.algorithm {
            Algorithm::RsaSha256 => split_rsa(&self.bytes),
            _ => None,
        }
    }

    /// SHA-256(algorithm ‖ public key field).
    pub fn id(&self) -> KeyId {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&[self.algorithm.number()]);
        context.update(&self.bytes);
        let mut id = [0; 32];
        id.copy_from_slice(context.finish().as_ref());
        KeyId(id)
    }

    /// DNSKEY RDATA (RFC 4034 §2.1): flags, protocol 3, algorithm, public key.
    pub fn dnskey_rdata(&self, flags: u16) -> Vec<u8> {
        let mut rdata = Vec::with_capacity(4 + self.bytes.len());
        rdata.extend_from_slice(&flags.to_be_bytes());
        rdata.push(3);
        rdata.push(self.algorithm.number());
        rdata.extend_from_slice(&self.bytes);
        rdata
    }

    /// The key tag of the key published with `flags` (RFC 4034 appendix B).
    pub fn tag(&self, flags: u16) -> u16 {
        key_tag(&self.dnskey_rdata(flags))
    }
}

/// RFC 3110 §2: one octet of exponent length, or 0 and two octets; exponent; modulus.
fn split_rsa(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let (len, rest) = if first == 0 {
        let (long, rest) = rest.split_at_checked(2)?;
        let len = usize::from(u16::from_be_bytes([long[0], long[1]]));
        // The long form is for exponents that need it: one key has one form.
        (len > 255).then_some((len, rest))?
    } else {
        (usize::from(first), rest)
    };
    let (exponent, modulus) = rest.split_at_checked(len)?;
    (exponent.first().is_some_and(|b| *b != 0) && modulus.first().is_some_and(|b| *b != 0))
        .then_some((exponent, modulus))
}

/// The key tag of a DNSKEY RDATA (RFC 4034 appendix B; algorithm 1 is not supported).
pub fn key_tag(rdata: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for (i, byte) in rdata.iter().enumerate() {
        sum += if i & 1 == 0 { u32::from(*byte) << 8 } else { u32::from(*byte) };
    }
    sum += (sum >> 16) & 0xffff;
    (sum & 0xffff) as u16
}

impl TryFrom<RawPublicKey> for PublicKey {
    type Error = PublicKeyError;
    fn try_from(raw: RawPublicKey) -> Result<Self, PublicKeyError> {
        let bytes = from_hex(&raw.bytes).ok_or(PublicKeyError::NotHex)?;
        Self::new(raw.algorithm, &bytes)
    }
}

impl From<PublicKey> for RawPublicKey {
    fn from(key: PublicKey) -> Self {
        Self { algorithm: key.algorithm, bytes: to_hex(&key.bytes) }
    }
}

/// SHA-256(algorithm ‖ public key field): what a key *is*, whatever a label, CKA_ID or tag says.
/// Its text form is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(pub [u8; 32]);

/// A text that is not a [`KeyId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key id is 64 lower-case hexadecimal digits")]
pub struct KeyIdError;

impl FromStr for KeyId {
    type Err = KeyIdError;
    fn from_str(text: &str) -> Result<Self, KeyIdError> {
        let bytes = from_hex(text).ok_or(KeyIdError)?;
        Ok(Self(bytes.try_into().map_err(|_| KeyIdError)?))
    }
}

impl TryFrom<String> for KeyId {
    type Error = KeyIdError;
    fn try_from(text: String) -> Result<Self, KeyIdError> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyRole {
    /// Signs the DNSKEY RRset alone; the parent's DS names it.
    Ksk,
    /// Signs everything but DNSKEY, CDS and CDNSKEY.
    Zsk,
    /// Does both; the KSK's rules hold for it.
    Csk,
}

impl KeyRole {
    /// The DNSKEY flags: zone key, and SEP where the parent points at it (RFC 4034 §2.1.1).
    pub const fn flags(self) -> u16 {
        match self {
            Self::Ksk | Self::Csk => 257,
            Self::Zsk => 256,
        }
    }

    /// Whether the key signs the DNSKEY RRset.
    pub const fn signs_dnskey(self) -> bool {
        matches!(self, Self::Ksk | Self::Csk)
    }

    /// Whether the key signs the zone's other RRsets.
    pub const fn signs_zone(self) -> bool {
        matches!(self, Self::Zsk | Self::Csk)
    }
}

impl fmt::Display for KeyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ksk => "KSK",
            Self::Zsk => "ZSK",
            Self::Csk => "CSK",
        })
    }
}

/// The REVOKE bit (RFC 5011 §3); setting it changes the key tag.
pub const FLAG_REVOKE: u16 = 0x0080;

/// Whether two keys of one zone could be taken for one another by tag, revoked forms included.
/// Only keys of the same algorithm matter to a validator, but a zone is easier to read, and an
/// algorithm rollover safer, when no two keys share a tag at all.
pub fn tags_collide(a: (&PublicKey, KeyRole), b: (&PublicKey, KeyRole)) -> bool {
    let tags = |(key, role): (&PublicKey, KeyRole)| {
        [key.tag(role.flags()), key.tag(role.flags() | FLAG_REVOKE)]
    };
    let (a, b) = (tags(a), tags(b));
    a.iter().any(|tag| b.contains(tag))
}

/// Lower-case hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The reverse of [`to_hex`]; upper case and odd lengths are refused, so one value has one text.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let bytes = text.as_bytes();
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    bytes.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6605 §6.1: the P-256 key of example.net has tag 55648.
    #[test]
    fn tag_of_rfc_6605_example() {
        let bytes = from_hex(concat!(
            "1a88c88615d437fbb8bf9e1942a1929f28562706ae6c2bd399e7b1bfb6d1e9e7",
            "5b92b4aa42917ae1c61b701ef035c3fe7be3009cbafe5a2f71316c902dcf0d00"
        ));
        let key = PublicKey::new(Algorithm::EcdsaP256Sha256, &bytes.expect("hex")).expect("key");
        assert_eq!(key.tag(257), 55648);
    }

    #[test]
    fn shapes_are_checked() {
        assert!(PublicKey::new(Algorithm::Ed25519, &[1; 32]).is_ok());
        assert_eq!(
            PublicKey::new(Algorithm::Ed25519, &[1; 33]),
            Err(PublicKeyError::Length { algorithm: Algorithm::Ed25519, found: 33, expected: 32 })
        );
        let rsa = |bits: usize| [&[3, 1, 0, 1][..], &vec![0xff; bits / 8]].concat();
        assert!(PublicKey::new(Algorithm::RsaSha256, &rsa(2048)).is_ok());
        assert_eq!(PublicKey::new(Algorithm::RsaSha256, &rsa(1024)), Err(PublicKeyError::Rsa));
        assert_eq!(PublicKey::new(Algorithm::RsaSha256, &[0, 0, 1, 3]), Err(PublicKeyError::Rsa));
        assert_eq!(PublicKey::new(Algorithm::RsaSha256, &[]), Err(PublicKeyError::Rsa));
    }

    #[test]
    fn the_algorithm_is_part_of_the_identity() {
        let a = PublicKey::new(Algorithm::EcdsaP256Sha256, &[7; 64]).expect("key").id();
        assert_eq!(a.to_string().parse::<KeyId>(), Ok(a));
        assert_eq!("AB".repeat(32).parse::<KeyId>(), Err(KeyIdError));
    }
}
