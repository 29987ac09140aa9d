//! Officers' public keys (RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4, OpenSSH `PROTOCOL.u2f`).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED,
    EcdsaVerificationAlgorithm, ParsedPublicKey,
};
use data_encoding::{BASE64, BASE64_NOPAD};
use serde::{Deserialize, Serialize};

use super::wire::{Reader, WireError, shown};

/// RSA moduli that are accepted, in bits: less is too weak (NIST SP 800-57), more than 8192
/// aws-lc-rs does not verify.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// The longest RSA exponent in octets. Everyone uses 65537; a long exponent makes verification
/// slow for all who verify.
const RSA_EXPONENT_BYTES_MAX: usize = 4;
/// The smallest RSA exponent (FIPS 186-5 §A.1.1).
const RSA_EXPONENT_MIN: u32 = 65_537;
/// The longest FIDO application string: it is a label, and a DNS name's worth is plenty.
const APPLICATION_BYTES_MAX: usize = 255;
/// No key blob is longer: that of an 8192-bit RSA key has 1,047 octets with exponent 65537, and all
/// others are shorter.
const KEY_BLOB_BYTES_MAX: usize = 1_100;
/// The longest key text: the longest type, a space, and the base64 of the longest blob.
pub const KEY_TEXT_BYTES_MAX: usize = 34 + 1 + KEY_BLOB_BYTES_MAX.div_ceil(3) * 4;

/// What OpenSSH puts in front of a key that is bound to a certificate.
const CERTIFICATE_SUFFIX: &str = "-cert-v01@openssh.com";

/// The types of key that an officer may have, by OpenSSH's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyType {
    /// `ssh-ed25519`.
    Ed25519,
    /// `ecdsa-sha2-nistp256`.
    EcdsaP256,
    /// `ecdsa-sha2-nistp384`.
    EcdsaP384,
    /// `ecdsa-sha2-nistp521`.
    EcdsaP521,
    /// `ssh-rsa`, a modulus within [`RSA_BITS`].
    Rsa,
    /// `sk-ssh-ed25519@openssh.com`: Ed25519 in a FIDO security key.
    SkEd25519,
    /// `sk-ecdsa-sha2-nistp256@openssh.com`: ECDSA P-256 in a FIDO security key.
    SkEcdsaP256,
}

impl KeyType {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Ed25519,
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::EcdsaP521,
        Self::Rsa,
        Self::SkEd25519,
        Self::SkEcdsaP256,
    ];

    /// OpenSSH's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "ssh-ed25519",
            Self::EcdsaP256 => "ecdsa-sha2-nistp256",
            Self::EcdsaP384 => "ecdsa-sha2-nistp384",
            Self::EcdsaP521 => "ecdsa-sha2-nistp521",
            Self::Rsa => "ssh-rsa",
            Self::SkEd25519 => "sk-ssh-ed25519@openssh.com",
            Self::SkEcdsaP256 => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    /// Whether the private key lives in a FIDO security key, which asks for a touch.
    pub const fn is_security_key(self) -> bool {
        matches!(self, Self::SkEd25519 | Self::SkEcdsaP256)
    }

    /// The curve of an ECDSA key.
    const fn curve(self) -> Option<Curve> {
        match self {
            Self::EcdsaP256 | Self::SkEcdsaP256 => Some(Curve::P256),
            Self::EcdsaP384 => Some(Curve::P384),
            Self::EcdsaP521 => Some(Curve::P521),
            Self::Ed25519 | Self::Rsa | Self::SkEd25519 => None,
        }
    }

    fn from_name(name: &[u8]) -> Result<Self, SshKeyError> {
        if let Some(known) = Self::ALL.into_iter().find(|known| known.as_str().as_bytes() == name) {
            return Ok(known);
        }
        if name.ends_with(CERTIFICATE_SUFFIX.as_bytes()) {
            return Err(SshKeyError::Certificate(shown(name)));
        }
        Err(SshKeyError::Type(shown(name)))
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The NIST curves, each with the hash that RFC 5656 §6.2.1 ties to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    const fn name(self) -> &'static str {
        match self {
            Self::P256 => "nistp256",
            Self::P384 => "nistp384",
            Self::P521 => "nistp521",
        }
    }

    /// Octets of a coordinate, and of r and s.
    pub(super) const fn field_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// Verification of r‖s, each of [`Self::field_bytes`].
    pub(super) fn algorithm(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
            Self::P521 => &ECDSA_P521_SHA512_FIXED,
        }
    }
}

/// The types in an error's text.
const ACCEPTED: &str = "accepted are ssh-ed25519, ecdsa-sha2-nistp256, -nistp384, -nistp521, \
     ssh-rsa (2048 to 8192 bits), sk-ssh-ed25519@openssh.com and sk-ecdsa-sha2-nistp256@openssh.com";

/// Why something is not an officer's public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshKeyError {
    /// Not two words.
    #[error(
        "not an SSH public key: expected `TYPE BASE64` as in a .pub file, one space between, \
         without options and without a comment"
    )]
    Form,
    /// A type that is not accepted, DSA among them.
    #[error("key type {0:?} is not accepted; {ACCEPTED}")]
    Type(String),
    /// A certificate: who may sign is for the ledger to say, not for a certificate authority.
    #[error(
        "{0:?} is a certificate, not a key: give the plain public key (the .pub file without \
         -cert in its name); {ACCEPTED}"
    )]
    Certificate(String),
    /// Not base64 of RFC 4648 §4 with padding and zero pad bits.
    #[error("the key is not canonical base64; copy it whole from the .pub file")]
    Base64,
    /// The text names one type and the key itself another.
    #[error("the key says of itself that it is {inside}, but the text says {outside}")]
    TypeDiffers {
        /// The text's.
        outside: KeyType,
        /// The blob's.
        inside: KeyType,
    },
    /// Longer than the text of any accepted key.
    #[error("the key's text has {0} bytes, more than that of any accepted key; {ACCEPTED}")]
    TooLong(usize),
    /// The blob's framing.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The curve inside the blob is not the type's.
    #[error("an {key_type} key names the curve {found:?}")]
    CurveName {
        /// The key's type.
        key_type: KeyType,
        /// The curve's name.
        found: String,
    },
    /// Not an uncompressed point of the curve, or not 32 octets for Ed25519.
    #[error("the {0} key is not a point of its curve in the form that ssh-keygen writes")]
    Point(KeyType),
    /// An Ed25519 point of small order, for which anyone can make signatures.
    #[error("the {0} key is of small order: anyone can sign for it")]
    SmallOrder(KeyType),
    /// An RSA modulus outside [`RSA_BITS`].
    #[error("the RSA key has {0} bits; expected 2048 to 8192")]
    RsaBits(usize),
    /// An even modulus is no product of two odd primes.
    #[error("the RSA key's modulus is even, so it is no RSA key")]
    RsaModulus,
    /// An exponent that is even, small, or longer than [`RSA_EXPONENT_BYTES_MAX`].
    #[error(
        "the RSA key's exponent is not an odd number from 65537 to 2^32-1; ssh-keygen makes 65537"
    )]
    RsaExponent,
    /// A FIDO key made for something else than SSH.
    #[error(
        "the security key's application is {0:?}; expected one that begins with \"ssh:\", \
         printable, of at most 255 characters, as ssh-keygen makes it"
    )]
    Application(String),
}

/// An officer's SSH public key as its one canonical text, `TYPE BASE64`: no options, no comment,
/// base64 with padding and zero pad bits, a blob without a byte too many. So two keys are the same
/// key exactly if they are equal. Ordered by text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SshKey {
    text: Box<str>,
    blob: Box<[u8]>,
    key_type: KeyType,
}

impl SshKey {
    /// Takes the one line of a `.pub` file as ssh-keygen writes it, and drops its comment.
    pub fn from_pub_file(contents: &str) -> Result<Self, SshKeyError> {
        let line = contents.strip_suffix('\n').unwrap_or(contents);
        if line.contains(['\n', '\r']) {
            return Err(SshKeyError::Form);
        }
        let (key_type, rest) = line.split_once(' ').ok_or(SshKeyError::Form)?;
        let base64 = rest.split_once(' ').map_or(rest, |(base64, _comment)| base64);
        format!("{key_type} {base64}").parse()
    }

    /// Takes the blob that SSHSIG and ssh-agent carry.
    pub fn from_blob(blob: &[u8]) -> Result<Self, SshKeyError> {
        Ok(Self::read(blob)?.0)
    }

    /// As [`SshKey::from_blob`], with what is in the blob.
    pub(super) fn read(blob: &[u8]) -> Result<(Self, Material<'_>), SshKeyError> {
        let (key_type, material) = Material::read(blob)?;
        let text = format!("{key_type} {}", BASE64.encode(blob)).into_boxed_str();
        Ok((Self { text, blob: blob.into(), key_type }, material))
    }

    /// `TYPE BASE64`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The key in SSH's wire format.
    pub fn as_blob(&self) -> &[u8] {
        &self.blob
    }

    /// Its type.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// Whether the private key lives in a FIDO security key (`sk-…`).
    pub fn is_security_key(&self) -> bool {
        self.key_type.is_security_key()
    }

    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        let hash = digest::digest(&digest::SHA256, &self.blob);
        format!("SHA256:{}", BASE64_NOPAD.encode(hash.as_ref()))
    }
}

impl FromStr for SshKey {
    type Err = SshKeyError;

    fn from_str(text: &str) -> Result<Self, SshKeyError> {
        if text.len() > KEY_TEXT_BYTES_MAX {
            return Err(SshKeyError::TooLong(text.len()));
        }
        let (outside, base64) = text.split_once(' ').ok_or(SshKeyError::Form)?;
        let outside = KeyType::from_name(outside.as_bytes())?;
        if base64.contains(' ') {
            return Err(SshKeyError::Form);
        }
        let blob = BASE64.decode(base64.as_bytes()).map_err(|_| SshKeyError::Base64)?;
        let key = Self::from_blob(&blob)?;
        if key.key_type != outside {
            return Err(SshKeyError::TypeDiffers { outside, inside: key.key_type });
        }
        // One key has one text, whatever the base64 decoder lets pass.
        if key.as_str() != text {
            return Err(SshKeyError::Base64);
        }
        Ok(key)
    }
}

impl TryFrom<String> for SshKey {
    type Error = SshKeyError;
    fn try_from(text: String) -> Result<Self, SshKeyError> {
        text.parse()
    }
}

impl From<SshKey> for String {
    fn from(key: SshKey) -> Self {
        key.text.into()
    }
}

impl fmt::Display for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SshKey({self})")
    }
}

/// What a key blob holds, checked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Material<'a> {
    /// 32 octets, canonical, not of small order.
    Ed25519(&'a [u8]),
    /// An uncompressed point, on the curve.
    Ecdsa(Curve, &'a [u8]),
    /// Big-endian without leading zeros.
    Rsa { exponent: &'a [u8], modulus: &'a [u8] },
    /// As `Ed25519`, and the FIDO application.
    SkEd25519 { point: &'a [u8], application: &'a [u8] },
    /// As `Ecdsa`, and the FIDO application.
    SkEcdsa { curve: Curve, point: &'a [u8], application: &'a [u8] },
}

impl<'a> Material<'a> {
    /// Reads a whole key blob.
    fn read(blob: &'a [u8]) -> Result<(KeyType, Self), SshKeyError> {
        let mut reader = Reader::new("the public key", blob);
        let key_type = KeyType::from_name(reader.string("type")?)?;
        let material = match key_type {
            KeyType::Ed25519 => Self::Ed25519(ed25519_point(key_type, &mut reader)?),
            KeyType::SkEd25519 => Self::SkEd25519 {
                point: ed25519_point(key_type, &mut reader)?,
                application: application(&mut reader)?,
            },
            KeyType::EcdsaP256 | KeyType::EcdsaP384 | KeyType::EcdsaP521 => {
                let (curve, point) = ecdsa_point(key_type, &mut reader)?;
                Self::Ecdsa(curve, point)
            }
            KeyType::SkEcdsaP256 => {
                let (curve, point) = ecdsa_point(key_type, &mut reader)?;
                Self::SkEcdsa { curve, point, application: application(&mut reader)? }
            }
            KeyType::Rsa => rsa(&mut reader)?,
        };
        reader.end()?;
        Ok((key_type, material))
    }
}

/// RFC 8709 §4. aws-lc-rs takes any 32 octets for a key: what RFC 8032 §5.1.3 does not decode to
/// one point, and points of small order, are refused here. That the octets are a point at all is
/// not: a key that is none verifies nothing.
fn ed25519_point<'a>(key_type: KeyType, reader: &mut Reader<'a>) -> Result<&'a [u8], SshKeyError> {
    let octets = reader.string("point")?;
    let mut y: [u8; 32] = octets.try_into().map_err(|_| SshKeyError::Point(key_type))?;
    y[31] &= 0x7f; // the top bit is the sign of x
    if y[31] == 0x7f && y[1..31].iter().all(|b| *b == 0xff) && y[0] >= 0xed {
        return Err(SshKeyError::Point(key_type)); // y ≥ p = 2^255-19
    }
    if SMALL_ORDER_Y.contains(&y) {
        return Err(SshKeyError::SmallOrder(key_type));
    }
    Ok(octets)
}

/// The y coordinates (little-endian) of the eight points whose order divides 8: of order 4, 1, 2
/// and 8. With such a key, one signature is valid for one text in eight, or for every text.
const SMALL_ORDER_Y: [[u8; 32]; 5] = [
    [0; 32],
    [
        1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0,
    ],
    [
        0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0x7f,
    ],
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
];

/// RFC 5656 §3.1: the curve's name, and the point, uncompressed (SEC 1 §2.3.3) as OpenSSH demands.
fn ecdsa_point<'a>(
    key_type: KeyType,
    reader: &mut Reader<'a>,
) -> Result<(Curve, &'a [u8]), SshKeyError> {
    let name = reader.string("curve name")?;
    let Some(curve) = key_type.curve().filter(|curve| curve.name().as_bytes() == name) else {
        return Err(SshKeyError::CurveName { key_type, found: shown(name) });
    };
    let point = reader.string("point")?;
    let uncompressed = point.len() == 1 + 2 * curve.field_bytes() && point[0] == 4;
    if !uncompressed || ParsedPublicKey::new(curve.algorithm(), point).is_err() {
        return Err(SshKeyError::Point(key_type));
    }
    Ok((curve, point))
}

/// RFC 4253 §6.6: e, then n.
fn rsa<'a>(reader: &mut Reader<'a>) -> Result<Material<'a>, SshKeyError> {
    let exponent = reader.positive("exponent")?;
    let modulus = reader.positive("modulus")?;
    let bits = modulus.len() * 8 - modulus[0].leading_zeros() as usize;
    if !RSA_BITS.contains(&bits) {
        return Err(SshKeyError::RsaBits(bits));
    }
    if modulus.last().is_none_or(|low| low & 1 == 0) {
        return Err(SshKeyError::RsaModulus);
    }
    if exponent.len() > RSA_EXPONENT_BYTES_MAX {
        return Err(SshKeyError::RsaExponent);
    }
    let value = exponent.iter().fold(0_u32, |value, octet| value << 8 | u32::from(*octet));
    if value < RSA_EXPONENT_MIN || value & 1 == 0 {
        return Err(SshKeyError::RsaExponent);
    }
    Ok(Material::Rsa { exponent, modulus })
}

/// `PROTOCOL.u2f`: what the key was made for. A web site's keys name the site, and its
/// signatures are not ours to take.
fn application<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], SshKeyError> {
    let application = reader.string("application")?;
    let printable = application.iter().all(|b| (0x20..0x7f).contains(b));
    if !application.starts_with(b"ssh:") || !printable || application.len() > APPLICATION_BYTES_MAX
    {
        return Err(SshKeyError::Application(shown(application)));
    }
    Ok(application)
}
