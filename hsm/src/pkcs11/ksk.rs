//! The door of KSKs: bytes are signed that the ledger's intent names, and no others.

use std::sync::Arc;

use countersign_policy::ledger::Operation;
use countersign_policy::{KeyId, ZoneName};

use super::batch::Batch;
use super::error::HsmError;
use super::registry::ExpectedKey;
use super::tokens::{Tokens, not_for};
use crate::ledger::{Authorised, Spent};

/// DNSKEY (RFC 4034 §2).
const TYPE_DNSKEY: u16 = 48;

/// What an intent fixes of the bytes to be signed.
struct Intended<'a> {
    zone: &'a ZoneName,
    signer: &'a KeyId,
    covered: u16,
    ttl_s: u32,
    inception: u32,
    expiration: u32,
}

/// What the operation has a KSK sign, if it has it sign something. Each type that a KSK signs is an arm
/// here.
fn intended(operation: &Operation) -> Option<Intended<'_>> {
    let (covered, zone, signer, ttl_s, inception, expiration) = match operation {
        Operation::SignDnskey { zone, signer, ttl_s, inception, expiration, .. } => {
            (TYPE_DNSKEY, zone, signer, ttl_s, inception, expiration)
        }
        Operation::SignCds { zone, rrset, signer, ttl_s, inception, expiration } => {
            (rrset.number(), zone, signer, ttl_s, inception, expiration)
        }
        Operation::Generate { .. } | Operation::Adopt { .. } | Operation::Destroy { .. } => {
            return None;
        }
    };
    let (ttl_s, inception, expiration) = (*ttl_s, *inception, *expiration);
    Some(Intended { zone, signer, covered, ttl_s, inception, expiration })
}

impl Intended<'_> {
    /// How the bytes to be signed have to start (RFC 4034 §3.1.8.1): the RRSIG's fields and the signer's
    /// name. An apex is never a wildcard, so its labels all count.
    fn start(&self, algorithm: u8, tag: u16) -> Vec<u8> {
        let mut start = self.covered.to_be_bytes().to_vec();
        start.push(algorithm);
        // A name has at most 127 labels.
        start.push(u8::try_from(self.zone.label_count()).unwrap_or(u8::MAX));
        for number in [self.ttl_s, self.expiration, self.inception] {
            start.extend_from_slice(&number.to_be_bytes());
        }
        start.extend_from_slice(&tag.to_be_bytes());
        start.extend_from_slice(self.zone.as_wire());
        start
    }
}

impl Tokens {
    /// Signs an RRset as `auth` names it ([`Operation::SignDnskey`], [`Operation::SignCds`]). `message` is what RFC 4034
    /// §3.1.8.1 says; its RRSIG fields and signer's name must be those of the operation. The
    /// signature is verified.
    pub fn sign_ksk(&self, auth: Authorised, message: &[u8]) -> (Spent, Result<Vec<u8>, HsmError>) {
        let checked = self.check_ksk(auth.operation(), message);
        let spent = auth.spend();
        let result = checked.and_then(|key| {
            let public = self.public_half(&key)?;
            let batch = Batch::new(key.id(), public, true, vec![message.to_vec()]);
            let mut results = self.run(&batch, &key.group);
            results.pop().unwrap_or_else(|| Err(HsmError::Unavailable("no answer".to_owned())))
        });
        (spent, result)
    }

    pub(super) fn check_ksk(
        &self,
        operation: &Operation,
        message: &[u8],
    ) -> Result<Arc<ExpectedKey>, HsmError> {
        let intended = intended(operation).ok_or_else(|| not_for("signing with a KSK"))?;
        let signer = intended.signer;
        let key = self.shared.keys().expected(signer).ok_or(HsmError::UnknownKey(*signer))?;
        if !key.role.signs_dnskey() {
            return Err(HsmError::NotAuthorised(format!(
                "key {signer} is a {}, which signs no DNSKEY, CDS or CDNSKEY RRset",
                key.role
            )));
        }
        let public = self.public_half(&key)?;
        let start = intended.start(public.algorithm().number(), public.tag(key.role.flags()));
        if message.starts_with(&start) {
            Ok(key)
        } else {
            Err(HsmError::NotAuthorised(
                "the bytes to be signed are not those of the ledger's intent".to_owned(),
            ))
        }
    }
}
