//! Officers' signatures: SSH public keys (RFC 4253 §6.6) and SSHSIG (OpenSSH `PROTOCOL.sshsig`,
//! `PROTOCOL.u2f`), as `ssh-keygen -Y sign` makes them on any machine.
//!
//! Guarantees:
//! - a key has one text and one blob, so equality of [`SshKey`]s is sameness of keys;
//! - [`verify`] answers with the key that made a signature over exactly that message for exactly
//!   that purpose, or with what is wrong; whose key it is, and whether it still counts, the
//!   ledger's roster says, never a file or a certificate;
//! - a security key's signature counts only with a touch, and with a PIN where that is required:
//!   `ssh-keygen -Y verify` takes one with flags 0;
//! - RSA signs with SHA-256 or SHA-512, never with SHA-1;
//! - no input panics, and each has a bound.
//!
//! The wire format is read here, by the sixty lines of `wire`, and not by the `ssh-key` crate: as of
//! 0.7.0-rc.12 that one takes version 0, a reserved field with something in it, and a security key's
//! signature without a touch (whose flags it does not show), knows DSA and unnamed types, and brings
//! the `RustCrypto` stack for what aws-lc-rs does here already. What would remain of it is the framing.
//! All cryptography is aws-lc-rs.

use std::fmt;

mod key;
mod signature;
#[cfg(test)]
mod tests;
mod wire;

pub use key::{KEY_TEXT_BYTES_MAX, KeyType, RSA_BITS, SshKey, SshKeyError};
pub use signature::{
    ARMOR_BYTES_MAX, SIGNATURE_BYTES_MAX, SIGNATURE_TEXT_BYTES_MAX, Signature, SignatureError,
};
pub use wire::WireError;

/// What a signature is for. It is part of what is signed, so that none serves for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Namespace {
    /// A founder signs the founding.
    Found,
    /// A proposer signs a statement.
    Propose,
    /// An officer approves a statement.
    Approve,
    /// An officer denies a statement.
    Deny,
    /// The proposer takes a statement back.
    Withdraw,
    /// An officer stops the use of KSKs.
    Freeze,
}

impl Namespace {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Found, Self::Propose, Self::Approve, Self::Deny, Self::Withdraw, Self::Freeze];

    /// What `ssh-keygen -Y sign -n` is given.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found@countersign",
            Self::Propose => "propose@countersign",
            Self::Approve => "approve@countersign",
            Self::Deny => "deny@countersign",
            Self::Withdraw => "withdraw@countersign",
            Self::Freeze => "freeze@countersign",
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The key that made `signature` over `message` for `namespace`.
///
/// With `require_user_verification`, only a security key's signature with a PIN or a finger
/// passes; a key of another type can't show one and is refused.
pub fn verify(
    signature: &Signature,
    namespace: Namespace,
    message: &[u8],
    require_user_verification: bool,
) -> Result<SshKey, SignatureError> {
    signature.check(namespace.as_str(), message, require_user_verification)?;
    Ok(signature.claimed_key().clone())
}
