//! Checkpoints: the head of the ledger's tree, signed by the audit key, as a C2SP
//! `tlog-checkpoint` in a C2SP `signed-note`, so that any tool of that world can check one.
//!
//! ```text
//! countersign/FOUNDING-HASH            the origin: one ledger, one name
//! 1204                                 lines
//! BASE64(root)
//!
//! — countersign/FOUNDING-HASH BASE64(key hash, 4 octets ‖ signature)
//! ```
//!
//! The signature is over the first three lines with their newlines ([`body`]). By the key's
//! algorithm it is of one of two types:
//!
//! | type | algorithm | signature | key hash |
//! |---|---|---|---|
//! | 0x01 | Ed25519 | RFC 8032, 64 octets | SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key)\[:4\] |
//! | 0x02 | ECDSA P-256 with SHA-256 | DER `SEQUENCE { r, s }` | SHA-256(DER `SubjectPublicKeyInfo`)\[:4\] |
//!
//! For the second the name is no part of the key hash: so says the specification, and so do the
//! witnesses in the field. What [`verify`] accepts it accepts in one form only, byte for byte,
//! with one signature. (ECDSA itself admits two values `s` for a signature, so compare heads,
//! never notes.)

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::algorithm::Algorithm;
use crate::key::{PublicKey, to_hex};
use crate::ledger::decimal;
use crate::tree::{Hash, TreeHead};

/// An origin is 76 octets here; others' are rarely longer than a host name. It stands in a note
/// twice.
pub const ORIGIN_BYTES_MAX: usize = 255;

/// Two origins, a size, a root and a signature, with room: 2·255 + 20 + 44 + 104 + separators.
pub const NOTE_BYTES_MAX: usize = 1024;

/// Both algorithms' signatures as PKCS#11 and DNSSEC have them: R‖S, or r‖s.
const RAW_SIGNATURE_BYTES: usize = 64;

/// What begins a signature line: an em dash and a space.
const SIGNATURE_MARK: &str = "\u{2014} ";

/// DER of `SubjectPublicKeyInfo { { id-ecPublicKey, secp256r1 }, BIT STRING { 04 ‖ x ‖ y } }`
/// (RFC 5480 §2) up to `x`.
const P256_SPKI_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

/// The public half of the key that signs checkpoints, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "PublicKey", into = "PublicKey")]
pub struct AuditKey {
    kind: Kind,
    public: PublicKey,
}

/// The signature types that an audit key can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Ed25519 = 1,
    EcdsaP256 = 2,
}

/// A public key of an algorithm that checkpoints are not signed with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an audit key is an ED25519 or ECDSAP256SHA256 key, found one of {0}")]
pub struct AuditKeyError(pub Algorithm);

/// A checkpoint that was verified: the signed note's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note(String);

/// Why a text is not the checkpoint that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// A name that can't stand in a signature line.
    #[error(
        "{0:?} is no origin: it has to be 1 to {ORIGIN_BYTES_MAX} printable ASCII characters \
         without space and plus"
    )]
    Origin(String),
    /// Longer than any checkpoint.
    #[error("checkpoint of {0} octets, expected at most {NOTE_BYTES_MAX}")]
    TooLong(usize),
    /// Not the lines of a checkpoint with one signature, or one of them not in its one form.
    #[error("checkpoint's {0}")]
    Form(&'static str),
    /// A checkpoint of another ledger.
    #[error("checkpoint of {found:?}, expected one of {expected:?}; take this ledger's own")]
    OtherOrigin {
        /// Its first line.
        found: String,
        /// The origin that was asked for.
        expected: String,
    },
    /// Signed by another key than the audit key.
    #[error(
        "checkpoint is signed by the key with hash {found}, expected {expected}; if the audit \
         key was replaced, verify with the key of that time"
    )]
    OtherKey {
        /// The hash in the signature line, hexadecimal.
        found: String,
        /// The audit key's.
        expected: String,
    },
    /// What the HSM returned has not the length of a signature.
    #[error("signature of {0} octets, expected {RAW_SIGNATURE_BYTES} (r‖s for ECDSA, not DER)")]
    RawSignature(usize),
    /// The signature is not over this text, or not by this key.
    #[error("the signature is not by the audit key over this size and root")]
    Signature,
}

impl AuditKey {
    /// Ed25519 and ECDSA P-256 keys only.
    pub fn new(public: PublicKey) -> Result<Self, AuditKeyError> {
        let kind = match public.algorithm() {
            Algorithm::Ed25519 => Kind::Ed25519,
            Algorithm::EcdsaP256Sha256 => Kind::EcdsaP256,
            other => return Err(AuditKeyError(other)),
        };
        Ok(Self { kind, public })
    }

    /// The key, as a DNSKEY would hold it.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The key hash of a signature line by this key under `name`.
    pub fn key_hash(&self, name: &str) -> [u8; 4] {
        let Hash(hash) = match self.kind {
            Kind::Ed25519 => Hash::of(
                &[name.as_bytes(), b"\n", &[self.kind as u8], self.public.bytes()].concat(),
            ),
            Kind::EcdsaP256 => Hash::of(&self.encoded()),
        };
        [hash[0], hash[1], hash[2], hash[3]]
    }

    /// The key as other tools want it (a `vkey`): `NAME+KEYHASH+BASE64(type ‖ key)`.
    pub fn verifier_key(&self, name: &str) -> String {
        let typed = [&[self.kind as u8][..], &self.encoded()].concat();
        format!("{name}+{}+{}", to_hex(&self.key_hash(name)), BASE64.encode(&typed))
    }

    /// The public key as the signature type encodes it.
    fn encoded(&self) -> Vec<u8> {
        match self.kind {
            Kind::Ed25519 => self.public.bytes().to_vec(),
            Kind::EcdsaP256 => [&P256_SPKI_PREFIX, self.public.bytes()].concat(),
        }
    }

    /// The signature as a note holds it, from its raw form.
    fn signature_from_raw(&self, raw: &[u8; RAW_SIGNATURE_BYTES]) -> Vec<u8> {
        match self.kind {
            Kind::Ed25519 => raw.to_vec(),
            Kind::EcdsaP256 => der_from_raw(raw),
        }
    }

    /// The reverse. It reads more than the one form; [`verify`] compares.
    fn signature_to_raw(&self, signature: &[u8]) -> Option<[u8; RAW_SIGNATURE_BYTES]> {
        match self.kind {
            Kind::Ed25519 => signature.try_into().ok(),
            Kind::EcdsaP256 => raw_from_der(signature),
        }
    }

    /// Whether the raw signature is over `message` and by this key.
    fn signed(&self, message: &str, raw: &[u8; RAW_SIGNATURE_BYTES]) -> bool {
        let message = message.as_bytes();
        match self.kind {
            Kind::Ed25519 => {
                UnparsedPublicKey::new(&ED25519, self.public.bytes()).verify(message, raw).is_ok()
            }
            Kind::EcdsaP256 => {
                let point = [&[4], self.public.bytes()].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, raw).is_ok()
            }
        }
    }
}

impl TryFrom<PublicKey> for AuditKey {
    type Error = AuditKeyError;
    fn try_from(public: PublicKey) -> Result<Self, AuditKeyError> {
        Self::new(public)
    }
}

impl From<AuditKey> for PublicKey {
    fn from(key: AuditKey) -> Self {
        key.public
    }
}

impl Note {
    /// The text, with its last newline.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Note> for String {
    fn from(note: Note) -> Self {
        note.0
    }
}

/// The origin of the ledger that begins with a founding.
pub fn origin(founding: &Hash) -> String {
    format!("countersign/{founding}")
}

/// What the audit key signs: origin, size and root, a line each.
pub fn body(origin: &str, head: &TreeHead) -> String {
    format!("{origin}\n{}\n{}\n", head.size, BASE64.encode(&head.root.0))
}

/// The checkpoint of `head`, from the signature over its [`body`] as PKCS#11 returns it: 64
/// octets, for ECDSA r‖s. A signature that does not hold makes no note.
pub fn assemble(
    origin: &str,
    head: &TreeHead,
    key: &AuditKey,
    raw_signature: &[u8],
) -> Result<Note, CheckpointError> {
    check_origin(origin)?;
    let raw =
        raw_signature.try_into().map_err(|_| CheckpointError::RawSignature(raw_signature.len()))?;
    if !key.signed(&body(origin, head), raw) {
        return Err(CheckpointError::Signature);
    }
    Ok(Note(render(origin, head, key, raw)))
}

/// The head that `note` proves: a checkpoint of `origin`, signed by `key` and no one else, and
/// written as [`assemble`] writes it.
pub fn verify(note: &str, origin: &str, key: &AuditKey) -> Result<TreeHead, CheckpointError> {
    check_origin(origin)?;
    if note.len() > NOTE_BYTES_MAX {
        return Err(CheckpointError::TooLong(note.len()));
    }
    let lines: Vec<&str> = note.split('\n').collect();
    let [found, size, root, "", signature, ""] = lines[..] else {
        return Err(CheckpointError::Form(
            "lines are not origin, size, root, an empty one, and one signature",
        ));
    };
    if found != origin {
        let (found, expected) = (found.to_owned(), origin.to_owned());
        return Err(CheckpointError::OtherOrigin { found, expected });
    }
    let size = decimal::parse(size).ok_or(CheckpointError::Form("size is not a decimal number"))?;
    let root = from_base64(root)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(CheckpointError::Form("root is not the base64 of 32 octets"))?;
    let head = TreeHead { size, root: Hash(root) };
    let signature = signature
        .strip_prefix(SIGNATURE_MARK)
        .and_then(|rest| rest.strip_prefix(origin)?.strip_prefix(' '))
        .and_then(from_base64)
        .ok_or(CheckpointError::Form("signature is not a dash, the origin, and base64"))?;
    let (found, signature) = signature
        .split_first_chunk::<4>()
        .ok_or(CheckpointError::Form("signature has no key hash"))?;
    let expected = key.key_hash(origin);
    if *found != expected {
        let (found, expected) = (to_hex(found), to_hex(&expected));
        return Err(CheckpointError::OtherKey { found, expected });
    }
    let raw = key
        .signature_to_raw(signature)
        .ok_or(CheckpointError::Form("signature is not of the key's type"))?;
    if render(origin, &head, key, &raw) != note {
        return Err(CheckpointError::Form("text is not in its one form"));
    }
    if !key.signed(&body(origin, &head), &raw) {
        return Err(CheckpointError::Signature);
    }
    Ok(head)
}

fn render(
    origin: &str,
    head: &TreeHead,
    key: &AuditKey,
    raw: &[u8; RAW_SIGNATURE_BYTES],
) -> String {
    let signature = [&key.key_hash(origin)[..], &key.signature_from_raw(raw)].concat();
    let body = body(origin, head);
    format!("{body}\n{SIGNATURE_MARK}{origin} {}\n", BASE64.encode(&signature))
}

/// C2SP forbids plus and any space in a name; a name outside ASCII could look like another.
fn check_origin(origin: &str) -> Result<(), CheckpointError> {
    let fits = (1..=ORIGIN_BYTES_MAX).contains(&origin.len())
        && origin.bytes().all(|b| b.is_ascii_graphic() && b != b'+');
    if fits { Ok(()) } else { Err(CheckpointError::Origin(origin.to_owned())) }
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.as_bytes()).ok()
}

/// DER of `SEQUENCE { r INTEGER, s INTEGER }` from r‖s (RFC 3279 §2.2.3).
fn der_from_raw(raw: &[u8; RAW_SIGNATURE_BYTES]) -> Vec<u8> {
    let (r, s) = raw.split_at(RAW_SIGNATURE_BYTES / 2);
    let mut integers = Vec::with_capacity(2 * (2 + 33));
    for number in [r, s] {
        // At least one octet, no needless zeros, and a zero before what would read as a sign.
        let zeros = number.iter().take_while(|b| **b == 0).count().min(number.len() - 1);
        let number = &number[zeros..];
        let sign = usize::from(number[0] >> 7);
        integers.extend([0x02, (sign + number.len()) as u8]);
        integers.extend(&[0][..sign]);
        integers.extend(number);
    }
    [&[0x30, integers.len() as u8], &integers[..]].concat()
}

/// r‖s from such DER, surplus zeros and all.
fn raw_from_der(der: &[u8]) -> Option<[u8; RAW_SIGNATURE_BYTES]> {
    let mut rest = der.strip_prefix(&[0x30, der.len().checked_sub(2)? as u8])?;
    let mut raw = [0; RAW_SIGNATURE_BYTES];
    for half in raw.chunks_exact_mut(RAW_SIGNATURE_BYTES / 2) {
        let (&len, tail) = rest.strip_prefix(&[0x02])?.split_first()?;
        let (number, tail) = tail.split_at_checked(usize::from(len))?;
        rest = tail;
        let zeros = number.iter().take_while(|b| **b == 0).count();
        let number = &number[zeros..];
        let start = half.len().checked_sub(number.len())?;
        half[start..].copy_from_slice(number);
    }
    rest.is_empty().then_some(raw)
}

#[cfg(test)]
mod tests;
