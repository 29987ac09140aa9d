//! Assembly: the signatures that were made go to their RRsets, and the version is whole. Whether
//! they are right is for `verify` to say.

use countersign_policy::KeyId;

use crate::compose::Missing;
use crate::name;
use crate::packed::{Builder, PackedError, Rrset};
use crate::plan::PlannedZone;
use crate::rtype::Rtype;
use crate::signed::SignedZone;
use crate::tbs::{Signer, push_rrsig_prefix};
use crate::terms::Duty;

/// Signatures that do not fit what was planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// Not one signature for each that was asked for.
    #[error("{found} signatures over {what}; {expected} were asked for")]
    Count {
        /// What they are for.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// Not a signature of the key's algorithm.
    #[error("{owner} {rtype}: the signature by key {key} has {found} octets, expected {expected}")]
    Length {
        /// The owner.
        owner: String,
        /// The type.
        rtype: Rtype,
        /// The key.
        key: KeyId,
        /// Octets found.
        found: usize,
        /// Octets that the algorithm makes.
        expected: usize,
    },
    /// The version could not be packed.
    #[error(transparent)]
    Packed(#[from] PackedError),
}

/// The signatures that a planned version lacked: the RRSIGs' signature fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signatures {
    /// In the order of [`PlannedZone::tasks`].
    pub zone: Vec<Vec<u8>>,
    /// In that of [`PlannedZone::dnskey_orders`].
    pub dnskey: Vec<Vec<u8>>,
    /// In that of [`PlannedZone::cds_orders`].
    pub cds: Vec<Vec<u8>>,
}

impl Signatures {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.zone.len() + self.dnskey.len() + self.cds.len()
    }
}

impl PlannedZone {
    /// Puts the signatures in place.
    pub fn assemble(self, signatures: Signatures) -> Result<SignedZone, AssembleError> {
        let Self { signers, terms, .. } = &self;
        let mut zone = Made::new("the zone", &self.zone, &signers.zone, signatures.zone)?;
        let mut dnskey = Made::new("DNSKEY", &self.dnskey, &signers.ksk, signatures.dnskey)?;
        let mut cds = Made::new("CDS and CDNSKEY", &self.cds, &signers.ksk, signatures.cds)?;
        let mut builder = Builder::new();
        let mut rrsigs: Vec<Vec<u8>> = Vec::new();
        let mut position = 0;
        for node in &self.records {
            builder.owner(node.owner())?;
            for rrset in node.rrsets() {
                rrsigs.clear();
                let duty = Duty::of(rrset.rtype());
                let made = match duty {
                    Duty::Zone => &mut zone,
                    Duty::Dnskey => &mut dnskey,
                    Duty::Cds => &mut cds,
                };
                let validity = terms.of(duty).validity;
                while let Some((signer, signature)) = made.next_for(position) {
                    check_length(&rrset, signer, &signature)?;
                    let prefix_len = 18 + self.apex.as_wire().len();
                    let mut rrsig = Vec::with_capacity(prefix_len + signature.len());
                    push_rrsig_prefix(&mut rrsig, &rrset, signer, validity, &self.apex);
                    rrsig.extend_from_slice(&signature);
                    rrsigs.push(rrsig);
                }
                let all = rrset.rrsigs().chain(rrsigs.iter().map(Vec::as_slice));
                builder.rrset(rrset.owner(), rrset.rtype(), rrset.ttl_s(), rrset.rdatas(), all)?;
                position += 1;
            }
        }
        let records = builder.finish()?;
        Ok(SignedZone { apex: self.apex, serial: self.serial, records })
    }
}

/// Signatures that were made, each with the place it goes to.
struct Made<'a> {
    missing: std::slice::Iter<'a, Missing>,
    signatures: std::vec::IntoIter<Vec<u8>>,
    signers: &'a [Signer],
}

impl<'a> Made<'a> {
    fn new(
        what: &'static str,
        missing: &'a [Missing],
        signers: &'a [Signer],
        signatures: Vec<Vec<u8>>,
    ) -> Result<Self, AssembleError> {
        let (found, expected) = (signatures.len(), missing.len());
        if found != expected {
            return Err(AssembleError::Count { what, found, expected });
        }
        Ok(Self { missing: missing.iter(), signatures: signatures.into_iter(), signers })
    }

    /// The next signature, if it belongs to the RRset at `position`.
    fn next_for(&mut self, position: usize) -> Option<(&'a Signer, Vec<u8>)> {
        let missing = self.missing.as_slice().first().filter(|next| next.rrset == position)?;
        self.missing.next();
        Some((&self.signers[missing.signer], self.signatures.next()?))
    }
}

fn check_length(rrset: &Rrset<'_>, signer: &Signer, signature: &[u8]) -> Result<(), AssembleError> {
    if signature.len() == signer.signature_len {
        return Ok(());
    }
    Err(AssembleError::Length {
        owner: name::Shown(rrset.owner()).to_string(),
        rtype: rrset.rtype(),
        key: signer.id,
        found: signature.len(),
        expected: signer.signature_len,
    })
}
