//! SSHSIG, the signature file format of `ssh-keygen -Y sign` (OpenSSH `PROTOCOL.sshsig`).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, RsaParameters};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::key::{Curve, KeyType, Material, SshKey, SshKeyError};
use super::wire::{Reader, WireError, put_string, shown};

/// The longest SSHSIG blob. With an 8192-bit RSA key it has 1,047 octets of key, 1,044 of
/// signature, and under 80 around them.
pub const SIGNATURE_BYTES_MAX: usize = 2_300;
/// The longest one-line text of a signature.
pub const SIGNATURE_TEXT_BYTES_MAX: usize = SIGNATURE_BYTES_MAX.div_ceil(3) * 4;
/// The longest armoured signature: the text, a newline per full or begun line, and the two marks.
pub const ARMOR_BYTES_MAX: usize = SIGNATURE_TEXT_BYTES_MAX
    + SIGNATURE_TEXT_BYTES_MAX.div_ceil(ARMOR_LINE_BYTES)
    + ARMOR_BEGIN.len()
    + ARMOR_END.len()
    + 2;

/// ssh-keygen breaks its base64 here.
const ARMOR_LINE_BYTES: usize = 70;
const ARMOR_BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const ARMOR_END: &str = "-----END SSH SIGNATURE-----";

pub(super) const MAGIC: &[u8; 6] = b"SSHSIG";
pub(super) const VERSION: u32 = 1;

/// The security key saw a touch (`WebAuthn` §6.1, UP).
const FLAG_USER_PRESENT: u8 = 0x01;
/// The security key checked a PIN or a finger (`WebAuthn` §6.1, UV).
const FLAG_USER_VERIFIED: u8 = 0x04;

/// Why something is not a signature, or not the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Longer than [`SIGNATURE_BYTES_MAX`], or its text longer than the text of that.
    #[error("the signature has {0} bytes, more than one made with any accepted key")]
    TooLong(usize),
    /// Line ends of another system.
    #[error(
        "the signature file has CR LF line ends; give it as ssh-keygen wrote it, with LF alone"
    )]
    CarriageReturn,
    /// No first line.
    #[error(
        "not an SSH signature: expected a file that begins with the line \
         `-----BEGIN SSH SIGNATURE-----`, as `ssh-keygen -Y sign` writes it"
    )]
    ArmorBegin,
    /// No last line.
    #[error(
        "the SSH signature does not end with the line `-----END SSH SIGNATURE-----`: \
         it was cut short, or something follows it"
    )]
    ArmorEnd,
    /// Lines of another length.
    #[error("the signature's lines are not broken as ssh-keygen breaks them, after 70 characters")]
    ArmorLines,
    /// Not base64 of RFC 4648 §4 with padding and zero pad bits.
    #[error("the signature is not canonical base64: it was cut short or is damaged")]
    Base64,
    /// The blob's framing.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Another kind of file.
    #[error("not an SSH signature: it does not begin with SSHSIG")]
    Magic,
    /// A version that is not 1.
    #[error("SSH signature of version {0}; expected version 1")]
    Version(u32),
    /// The key in it is none that an officer may have; a certificate, for one.
    #[error("the signature was made with a key that is not accepted: {0}")]
    Key(#[from] SshKeyError),
    /// Made for another purpose.
    #[error(
        "the signature was made for {found:?}, not for {expected:?}; sign with \
         `ssh-keygen -Y sign -n {expected}`"
    )]
    Namespace {
        /// The namespace that was asked for.
        expected: &'static str,
        /// The namespace in the signature.
        found: String,
    },
    /// The reserved field is there to be empty.
    #[error("the signature's reserved field is not empty")]
    Reserved,
    /// Neither `sha512` nor `sha256`.
    #[error("the signature hashes with {0:?}; expected sha512 (ssh-keygen's own choice) or sha256")]
    HashAlgorithm(String),
    /// A signature algorithm that is not the key type's own. For RSA, `ssh-rsa` is SHA-1.
    #[error("an {key_type} key signed with {found:?}; expected {}", algorithms_of(*.key_type))]
    Algorithm {
        /// The key's type.
        key_type: KeyType,
        /// The algorithm's name.
        found: String,
    },
    /// The signature proper has a length that the algorithm does not produce.
    #[error("the {0} signature is not of the length that its key makes")]
    Length(KeyType),
    /// Flags that no security key of SSH sets.
    #[error("the security key's flags are 0x{0:02x}; only 0x01 (touch) and 0x04 (PIN) are known")]
    UnknownFlags(u8),
    /// No touch.
    #[error(
        "the security key signed without a touch; use a key that was not made with \
         `-O no-touch-required`"
    )]
    NoTouch,
    /// No PIN or finger, and one is required.
    #[error(
        "the security key signed without asking for its PIN or a finger, which is required for \
         this key; make one with `ssh-keygen -t ed25519-sk -O verify-required`"
    )]
    NotUserVerified,
    /// User verification is required of a key that can't show it.
    #[error("user verification is required, and an {0} key can't show any; sign with an sk- key")]
    NoUserVerification(KeyType),
    /// All is in form, but the signature is not one of this key over this text.
    #[error(
        "the signature does not fit the text: another text was signed, or one of the two was \
         changed afterwards. Sign the very bytes that are shown"
    )]
    Mismatch,
}

/// The signature algorithms of a key type, for an error's text.
fn algorithms_of(key_type: KeyType) -> &'static str {
    match key_type {
        KeyType::Rsa => "rsa-sha2-512 or rsa-sha2-256 (ssh-rsa is SHA-1)",
        other => other.as_str(),
    }
}

/// A signature made by `ssh-keygen -Y sign` or its like, in form: every field is one that is
/// accepted, and the blob is its only encoding. Whether it is *true* is for [`super::verify`].
///
/// Its text form is the base64 of the blob on one line. ECDSA leaves room for a second signature
/// made from a first without the key (s and n−s), so a signature is evidence, never an identity:
/// do not use one as the name of what it signs.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signature {
    blob: Box<[u8]>,
    key: SshKey,
}

impl Signature {
    /// Takes the bytes between the armour's lines.
    pub fn from_blob(blob: &[u8]) -> Result<Self, SignatureError> {
        let parts = Parts::read(blob)?;
        Ok(Self { blob: blob.into(), key: parts.key })
    }

    /// Takes exactly what `ssh-keygen -Y sign` writes; the last newline may be missing.
    pub fn from_armored(text: &str) -> Result<Self, SignatureError> {
        if text.len() > ARMOR_BYTES_MAX {
            return Err(SignatureError::TooLong(text.len()));
        }
        if text.contains('\r') {
            return Err(SignatureError::CarriageReturn);
        }
        let text = text.strip_suffix('\n').unwrap_or(text);
        let body = text
            .strip_prefix(ARMOR_BEGIN)
            .and_then(|rest| rest.strip_prefix('\n'))
            .ok_or(SignatureError::ArmorBegin)?;
        let body = body
            .strip_suffix(ARMOR_END)
            .and_then(|rest| rest.strip_suffix('\n'))
            .ok_or(SignatureError::ArmorEnd)?;
        let signature: Self = body.split('\n').collect::<String>().parse()?;
        // One signature has one armour.
        if signature.to_armored().strip_suffix('\n') != Some(text) {
            return Err(SignatureError::ArmorLines);
        }
        Ok(signature)
    }

    /// What `ssh-keygen -Y sign` would have written, byte for byte; `ssh-keygen -Y verify` reads it.
    pub fn to_armored(&self) -> String {
        let base64 = self.to_string();
        let mut text = String::with_capacity(ARMOR_BYTES_MAX);
        text.push_str(ARMOR_BEGIN);
        for (at, character) in base64.chars().enumerate() {
            if at % ARMOR_LINE_BYTES == 0 {
                text.push('\n');
            }
            text.push(character);
        }
        text.push('\n');
        text.push_str(ARMOR_END);
        text.push('\n');
        text
    }

    /// The SSHSIG blob.
    pub fn as_blob(&self) -> &[u8] {
        &self.blob
    }

    /// The key that the signature *says* made it. Nothing is proven until [`super::verify`] has
    /// returned it: use this only to find what to require of the signature, and to name it in errors.
    pub fn claimed_key(&self) -> &SshKey {
        &self.key
    }

    /// The signature over `message`, checked: see [`super::verify`].
    pub(super) fn check(
        &self,
        namespace: &'static str,
        message: &[u8],
        require_user_verification: bool,
    ) -> Result<(), SignatureError> {
        let parts = Parts::read(&self.blob)?;
        if parts.namespace != namespace.as_bytes() {
            let found = shown(parts.namespace);
            return Err(SignatureError::Namespace { expected: namespace, found });
        }
        if require_user_verification {
            match parts.touch {
                Some(touch) if touch.user_verified() => {}
                Some(_) => return Err(SignatureError::NotUserVerified),
                None => return Err(SignatureError::NoUserVerification(self.key.key_type())),
            }
        }
        parts.verify(message)
    }
}

impl FromStr for Signature {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        if text.len() > SIGNATURE_TEXT_BYTES_MAX {
            return Err(SignatureError::TooLong(text.len()));
        }
        let blob = BASE64.decode(text.as_bytes()).map_err(|_| SignatureError::Base64)?;
        let signature = Self::from_blob(&blob)?;
        // One signature has one text, whatever the base64 decoder lets pass.
        if signature.to_string() != text {
            return Err(SignatureError::Base64);
        }
        Ok(signature)
    }
}

impl TryFrom<String> for Signature {
    type Error = SignatureError;
    fn try_from(text: String) -> Result<Self, SignatureError> {
        text.parse()
    }
}

impl From<Signature> for String {
    fn from(signature: Signature) -> Self {
        signature.to_string()
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(&self.blob))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({self})")
    }
}

/// The hash of the message, which is what the key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HashAlgorithm {
    Sha256,
    Sha512,
}

impl HashAlgorithm {
    fn read(name: &[u8]) -> Result<Self, SignatureError> {
        match name {
            b"sha256" => Ok(Self::Sha256),
            b"sha512" => Ok(Self::Sha512),
            other => Err(SignatureError::HashAlgorithm(shown(other))),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn of(self, message: &[u8]) -> digest::Digest {
        let algorithm = match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, message)
    }
}

/// What a security key says of the moment it signed (`PROTOCOL.u2f`).
#[derive(Debug, Clone, Copy)]
struct Touch {
    flags: u8,
    counter: u32,
}

impl Touch {
    /// `byte flags, uint32 counter`. A signature without a touch is no signature here: neither
    /// `ssh-keygen -Y verify` nor the `ssh-key` crate refuses one.
    fn read(reader: &mut Reader<'_>) -> Result<Self, SignatureError> {
        let flags = reader.byte("flags")?;
        let counter = reader.uint32("counter")?;
        if flags & !(FLAG_USER_PRESENT | FLAG_USER_VERIFIED) != 0 {
            return Err(SignatureError::UnknownFlags(flags));
        }
        if flags & FLAG_USER_PRESENT == 0 {
            return Err(SignatureError::NoTouch);
        }
        Ok(Self { flags, counter })
    }

    fn user_verified(self) -> bool {
        self.flags & FLAG_USER_VERIFIED != 0
    }
}

/// The signature proper, in the form that aws-lc-rs verifies.
enum Proof<'a> {
    Ed25519 {
        point: &'a [u8],
        signature: &'a [u8],
    },
    Ecdsa {
        curve: Curve,
        point: &'a [u8],
        signature: Vec<u8>,
    },
    Rsa {
        exponent: &'a [u8],
        modulus: &'a [u8],
        parameters: &'static RsaParameters,
        signature: &'a [u8],
    },
}

/// An SSHSIG taken apart, every field but the namespace already one that is accepted.
struct Parts<'a> {
    key: SshKey,
    namespace: &'a [u8],
    hash: HashAlgorithm,
    proof: Proof<'a>,
    /// Of a security key: what it says, and its application.
    touch: Option<Touch>,
    application: &'a [u8],
}

impl<'a> Parts<'a> {
    /// `PROTOCOL.sshsig`: byte[6] magic, uint32 version, string publickey, string namespace,
    /// string reserved, string `hash_algorithm`, string signature.
    fn read(blob: &'a [u8]) -> Result<Self, SignatureError> {
        if blob.len() > SIGNATURE_BYTES_MAX {
            return Err(SignatureError::TooLong(blob.len()));
        }
        let mut reader = Reader::new("the signature", blob);
        if reader.take(MAGIC.len(), "magic")? != MAGIC {
            return Err(SignatureError::Magic);
        }
        let version = reader.uint32("version")?;
        if version != VERSION {
            return Err(SignatureError::Version(version));
        }
        let key_blob = reader.string("public key")?;
        let namespace = reader.string("namespace")?;
        let reserved = reader.string("reserved field")?;
        let hash = reader.string("hash algorithm")?;
        let signature = reader.string("signature proper")?;
        reader.end()?;

        let (key, material) = SshKey::read(key_blob)?;
        if !reserved.is_empty() {
            return Err(SignatureError::Reserved);
        }
        let hash = HashAlgorithm::read(hash)?;
        let (proof, touch, application) = read_proof(key.key_type(), material, signature)?;
        Ok(Self { key, namespace, hash, proof, touch, application })
    }

    /// What is signed: byte[6] magic, string namespace, string reserved, string `hash_algorithm`,
    /// string H(message). A security key signs SHA-256(application) ‖ flags ‖ counter ‖ SHA-256 of
    /// that instead (`PROTOCOL.u2f`).
    fn signed_data(&self, message: &[u8]) -> Vec<u8> {
        let mut data = MAGIC.to_vec();
        put_string(&mut data, self.namespace);
        put_string(&mut data, b"");
        put_string(&mut data, self.hash.name().as_bytes());
        put_string(&mut data, self.hash.of(message).as_ref());
        let Some(touch) = self.touch else { return data };
        let mut by_device = digest::digest(&digest::SHA256, self.application).as_ref().to_vec();
        by_device.push(touch.flags);
        by_device.extend_from_slice(&touch.counter.to_be_bytes());
        by_device.extend_from_slice(digest::digest(&digest::SHA256, &data).as_ref());
        by_device
    }

    fn verify(&self, message: &[u8]) -> Result<(), SignatureError> {
        use aws_lc_rs::signature::{ED25519, RsaPublicKeyComponents, UnparsedPublicKey};
        let data = self.signed_data(message);
        let verified = match &self.proof {
            Proof::Ed25519 { point, signature } => {
                UnparsedPublicKey::new(&ED25519, point).verify(&data, signature)
            }
            Proof::Ecdsa { curve, point, signature } => {
                UnparsedPublicKey::new(curve.algorithm(), point).verify(&data, signature)
            }
            Proof::Rsa { exponent, modulus, parameters, signature } => {
                RsaPublicKeyComponents { n: modulus, e: exponent }
                    .verify(parameters, &data, signature)
            }
        };
        verified.map_err(|_| SignatureError::Mismatch)
    }
}

/// `string algorithm, string signature`, then for a security key its flags and counter.
fn read_proof<'a>(
    key_type: KeyType,
    material: Material<'a>,
    octets: &'a [u8],
) -> Result<(Proof<'a>, Option<Touch>, &'a [u8]), SignatureError> {
    let mut reader = Reader::new("the signature proper", octets);
    let algorithm = reader.string("algorithm")?;
    let signature = reader.string("value")?;
    let touch = if key_type.is_security_key() { Some(Touch::read(&mut reader)?) } else { None };
    reader.end()?;

    let own_name = key_type.as_str().as_bytes() == algorithm;
    let refused = || SignatureError::Algorithm { key_type, found: shown(algorithm) };
    let (proof, application) = match material {
        Material::Rsa { exponent, modulus } => {
            // RFC 8332 §3. `ssh-rsa`, the key type's own name, is SHA-1 and never taken.
            let parameters: &'static RsaParameters = match algorithm {
                b"rsa-sha2-256" => &RSA_PKCS1_2048_8192_SHA256,
                b"rsa-sha2-512" => &RSA_PKCS1_2048_8192_SHA512,
                _ => return Err(refused()),
            };
            if signature.len() != modulus.len() {
                return Err(SignatureError::Length(key_type));
            }
            (Proof::Rsa { exponent, modulus, parameters, signature }, &[][..])
        }
        _ if !own_name => return Err(refused()),
        Material::Ed25519(point) => (ed25519_proof(key_type, point, signature)?, &[][..]),
        Material::SkEd25519 { point, application } => {
            (ed25519_proof(key_type, point, signature)?, application)
        }
        Material::Ecdsa(curve, point) => (ecdsa_proof(key_type, curve, point, signature)?, &[][..]),
        Material::SkEcdsa { curve, point, application } => {
            (ecdsa_proof(key_type, curve, point, signature)?, application)
        }
    };
    Ok((proof, touch, application))
}

/// RFC 8709 §6: the 64 octets of RFC 8032 §5.1.6.
fn ed25519_proof<'a>(
    key_type: KeyType,
    point: &'a [u8],
    signature: &'a [u8],
) -> Result<Proof<'a>, SignatureError> {
    if signature.len() == 64 {
        Ok(Proof::Ed25519 { point, signature })
    } else {
        Err(SignatureError::Length(key_type))
    }
}

/// RFC 5656 §3.1.2: mpint r, mpint s. Given to aws-lc-rs as r‖s, each padded to the field's length.
fn ecdsa_proof<'a>(
    key_type: KeyType,
    curve: Curve,
    point: &'a [u8],
    octets: &'a [u8],
) -> Result<Proof<'a>, SignatureError> {
    let mut reader = Reader::new("the ECDSA signature", octets);
    let numbers = [reader.positive("r")?, reader.positive("s")?];
    reader.end()?;
    let mut signature = Vec::with_capacity(2 * curve.field_bytes());
    for number in numbers {
        let padding = curve
            .field_bytes()
            .checked_sub(number.len())
            .ok_or(SignatureError::Length(key_type))?;
        signature.resize(signature.len() + padding, 0);
        signature.extend_from_slice(number);
    }
    Ok(Proof::Ecdsa { curve, point, signature })
}
