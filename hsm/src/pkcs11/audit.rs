//! Audit keys: they sign the ledger's checkpoints (C2SP signed notes) and nothing else.
//!
//! An audit key is told by its label, which starts with [`AUDIT_LABEL`]. No zone's key has such a label,
//! so it is never expected, adopted, proven for a zone, or destroyed by the doors for those; and what
//! it signs starts with [`CHECKPOINT_PREFIX`], which as to-be-signed data of DNSSEC (RFC 4034 §3.1.8.1)
//! would read as type 25455 and algorithm 117.

use std::time::Instant;

use countersign_policy::{Algorithm, PublicKey};
use cryptoki::object::ObjectHandle;
use tracing::warn;

use super::error::{Fault, HsmError, Trouble};
use super::mechanism;
use super::registry::Finding;
use super::root::{Ended, Root};
use super::tokens::Tokens;

/// How the labels of audit keys start.
pub const AUDIT_LABEL: &str = "cs-audit-";
/// How everything that an audit key signs starts: the origin line of a checkpoint.
pub const CHECKPOINT_PREFIX: &str = "countersign/";

/// Octets of what an audit key signs: a checkpoint has three short lines and few extensions.
const CHECKPOINT_BYTES_MAX: usize = 4096;
/// Octets of a label: what every HSM keeps whole.
const LABEL_BYTES_MAX: usize = 64;

/// Whether objects with this label are of an audit key.
pub(super) fn is_audit_label(label: &[u8]) -> bool {
    label.starts_with(AUDIT_LABEL.as_bytes())
}

impl Tokens {
    /// Makes an audit key under a label of its own, [`AUDIT_LABEL`] and something more: Ed25519 where
    /// the token has it, else ECDSA P-256. It only signs and can't be extracted, its `CKA_ID` is its
    /// `KeyId`, and it has proven itself before it is returned. What fails half-way is destroyed, and so
    /// is what an earlier try left half-made under this label.
    pub fn make_audit_key(&self, token: &str, label: &str) -> Result<PublicKey, HsmError> {
        let label = checked_label(label)?;
        let token = self.shared.token_named(token)?;
        self.on_root(token, move |root| root.make_audit_key(&label))
    }

    /// The audit key with this label, proven just now; `None` if it is not there, or half-made.
    pub fn audit_key(&self, token: &str, label: &str) -> Result<Option<PublicKey>, HsmError> {
        let label = checked_label(label)?;
        self.look(token, move |root| root.audit_key(&label))
    }

    /// Signs a checkpoint's text with an audit key; the raw signature of 64 octets has been verified.
    /// Refuses whatever does not start with [`CHECKPOINT_PREFIX`].
    pub fn sign_audit(
        &self,
        token: &str,
        key: &PublicKey,
        message: &[u8],
    ) -> Result<Vec<u8>, HsmError> {
        if !message.starts_with(CHECKPOINT_PREFIX.as_bytes()) {
            return Err(HsmError::NotAuthorised(format!(
                "an audit key signs checkpoints only, which start with `{CHECKPOINT_PREFIX}`"
            )));
        }
        if message.len() > CHECKPOINT_BYTES_MAX {
            return Err(HsmError::NotAuthorised(format!(
                "a checkpoint of {} octets, expected at most {CHECKPOINT_BYTES_MAX}",
                message.len()
            )));
        }
        let (key, message) = (key.clone(), message.to_vec());
        self.look(token, move |root| root.sign_audit(&key, &message))
    }
}

fn checked_label(label: &str) -> Result<String, HsmError> {
    let plain = label.len() > AUDIT_LABEL.len()
        && label.len() <= LABEL_BYTES_MAX
        && label.bytes().all(|b| b.is_ascii_graphic());
    if plain && is_audit_label(label.as_bytes()) {
        return Ok(label.to_owned());
    }
    Err(HsmError::NotAuthorised(format!(
        "`{}` is no label of an audit key: expected `{AUDIT_LABEL}` and more, at most \
         {LABEL_BYTES_MAX} printable characters in all",
        label.escape_default()
    )))
}

impl Root<'_> {
    fn make_audit_key(&mut self, label: &str) -> Ended<PublicKey> {
        match self.audit_key(label) {
            Ok(None) => {}
            Ok(Some(key)) => {
                let detail = format!("`{label}` is the audit key {} already", key.id());
                return (Err(self.error(detail)), None);
            }
            Err(trouble) => return self.ended(Err(trouble)),
        }
        // Never whole, so nobody was ever told of it.
        match self.find_label(label) {
            Ok(left) if left.objects().is_empty() => {}
            Ok(left) => {
                let (token, count) = (self.name(), left.objects().len());
                warn!(token, label, count, "a half-made audit key is destroyed");
                if let Err(fault) = self.destroy_label(label) {
                    return self.ended(Err(fault.into()));
                }
            }
            Err(fault) => return self.ended(Err(fault.into())),
        }
        let has_ed25519 = self.open.offered.supports(Algorithm::Ed25519, None).is_ok();
        let algorithm = if has_ed25519 { Algorithm::Ed25519 } else { Algorithm::EcdsaP256Sha256 };
        self.generate(label, algorithm, 0)
    }

    fn audit_key(&self, label: &str) -> Result<Option<PublicKey>, Trouble> {
        let index = self.find_label(label)?;
        let (privates, publics): (Vec<_>, Vec<_>) =
            index.objects().iter().partition(|object| object.public.is_none());
        if privates.len() > 1 || publics.len() > 1 {
            let count = index.objects().len();
            let detail = format!("{count} objects have the label `{label}`, expected one pair");
            return Err(self.error(detail).into());
        }
        let (Some(private), Some(shown)) = (privates.first(), publics.first()) else {
            return Ok(None);
        };
        let Some(Ok(public)) = &shown.public else { return Ok(None) };
        let id = public.id().0;
        if private.id != id || shown.id != id {
            return Ok(None);
        }
        match self.challenge(private.handle, public)? {
            Finding::Proven(_) => Ok(Some(public.clone())),
            Finding::Wrong(what) | Finding::Unproven(what) => {
                let detail = format!("the audit key `{label}` does not prove itself: {what}");
                Err(self.error(detail).into())
            }
            Finding::Absent => Ok(None),
        }
    }

    fn sign_audit(&mut self, key: &PublicKey, message: &[u8]) -> Result<Vec<u8>, Trouble> {
        match self.audit_signature(key, message) {
            // Made or moved since the listing.
            Ok(None) | Err(Trouble::Fault(Fault::Object(_))) => {
                self.relist(false)?;
                self.audit_signature(key, message)?
            }
            Ok(signature) => signature,
            Err(trouble) => return Err(trouble),
        }
        .ok_or_else(|| {
            let problem = format!(
                "no private key labelled `{AUDIT_LABEL}…` has its KeyId as CKA_ID. hint: name the \
                 token that holds the audit key"
            );
            HsmError::NotAPair { token: self.name(), key: key.id(), problem }.into()
        })
    }

    /// `None` if the listing does not show the key.
    fn audit_signature(&self, key: &PublicKey, message: &[u8]) -> Result<Option<Vec<u8>>, Trouble> {
        let Some(private) = self.audit_private(key) else { return Ok(None) };
        let session = self.open.session.get()?;
        let asked = Instant::now();
        let input = mechanism::input(key.algorithm(), message);
        let deadline = self.token().spec.deadline;
        let signed = self.entered.call("C_Sign", deadline, || {
            session.sign(&mechanism::signing(key.algorithm()), private, &input)
        });
        let signature = signed.map_err(Fault::from)?;
        if signature.len() != mechanism::signature_len(key)
            || !mechanism::verify(key, message, &signature)
        {
            self.token().counters.failed();
            let detail = "the checkpoint's signature does not verify".to_owned();
            return Err(HsmError::BadSignature { token: self.name(), detail }.into());
        }
        self.token().counters.signed(asked.elapsed());
        Ok(Some(signature))
    }

    fn audit_private(&self, key: &PublicKey) -> Option<ObjectHandle> {
        let id = key.id();
        let mut named = self.open.index.with_id(&id.0);
        named.find(|o| o.public.is_none() && is_audit_label(&o.label)).map(|o| o.handle)
    }
}
