//! Assembly: the signatures that were made go to their RRsets, and the version is whole but for
//! its ZONEMD, where it has one: that can be digested now, and signed. Whether anything is right is for
//! `verify` to say.

use countersign_policy::{KeyId, ZoneName};

use crate::compose::{Missing, Signers};
use crate::name;
use crate::packed::{Builder, Packed, PackedError, Rrset};
use crate::plan::{PlannedZone, Task};
use crate::rtype::Rtype;
use crate::signed::SignedZone;
use crate::tbs::{Signer, Validity, push_rrsig_prefix, to_be_signed};
use crate::terms::{Duty, Terms};
use crate::zonemd;

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

/// A version that lacks nothing but the signatures over its ZONEMD, if it has one.
pub struct AssembledZone {
    apex: ZoneName,
    serial: u32,
    records: Packed,
    signers: Signers,
    terms: Terms,
    /// Signatures over ZONEMD to be made.
    zonemd: Vec<Missing>,
}

impl AssembledZone {
    /// What is to be signed now: the ZONEMD RRset, by every key that signs the zone. Empty where there
    /// is none.
    pub fn tasks(&self) -> Vec<Task> {
        let Some(rrset) = self.zonemd_rrset() else { return Vec::new() };
        let validity = self.validity();
        let task = |missing: &Missing| {
            let signer = &self.signers.zone[missing.signer];
            Task { key: signer.id, tbs: to_be_signed(&rrset, signer, validity, &self.apex) }
        };
        self.zonemd.iter().map(task).collect()
    }

    /// Puts those signatures in place, in the order of [`tasks`](Self::tasks).
    pub fn finish(self, signatures: Vec<Vec<u8>>) -> Result<SignedZone, AssembleError> {
        let (found, expected) = (signatures.len(), self.zonemd.len());
        if found != expected {
            return Err(AssembleError::Count { what: "ZONEMD", found, expected });
        }
        let mut rrsigs = Vec::new();
        if let Some(rrset) = self.zonemd_rrset() {
            for (missing, signature) in self.zonemd.iter().zip(signatures) {
                let signer = &self.signers.zone[missing.signer];
                rrsigs.push(rrsig(&rrset, signer, self.validity(), &self.apex, &signature)?);
            }
        }
        let records = match self.zonemd_rrset() {
            Some(rrset) => with_zonemd(&self.records, &rrset, rrset.rdatas(), rrsigs)?,
            None => self.records,
        };
        Ok(SignedZone { apex: self.apex, serial: self.serial, records })
    }

    /// The RRset that is to be signed.
    fn zonemd_rrset(&self) -> Option<Rrset<'_>> {
        if self.zonemd.is_empty() {
            return None;
        }
        self.records.node(self.apex.as_wire())?.rrset(Rtype::ZONEMD)
    }

    fn validity(&self) -> Validity {
        self.terms.of(Duty::Zone).validity
    }
}

/// The records with another ZONEMD RRset in place of `rrset`.
fn with_zonemd<'r>(
    records: &Packed,
    rrset: &Rrset<'_>,
    rdatas: impl Iterator<Item = &'r [u8]>,
    rrsigs: Vec<Vec<u8>>,
) -> Result<Packed, PackedError> {
    let mut edit = records.edit();
    let rdatas = rdatas.map(<[u8]>::to_vec).collect();
    edit.put(rrset.owner(), rrset.rtype(), rrset.ttl_s(), rdatas, rrsigs);
    edit.finish()
}

impl PlannedZone {
    /// Puts the signatures in place, and digests the zone if it has a ZONEMD.
    pub fn assemble(self, signatures: Signatures) -> Result<AssembledZone, AssembleError> {
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
                    rrsigs.push(rrsig(&rrset, signer, validity, &self.apex, &signature)?);
                }
                let all = rrset.rrsigs().chain(rrsigs.iter().map(Vec::as_slice));
                builder.rrset(rrset.owner(), rrset.rtype(), rrset.ttl_s(), rrset.rdatas(), all)?;
                position += 1;
            }
        }
        let mut records = builder.finish()?;
        let Self { apex, serial, signers, terms, zonemd, .. } = self;
        let node = records.node(apex.as_wire()).filter(|_| !zonemd.is_empty());
        if let Some(rrset) = node.and_then(|node| node.rrset(Rtype::ZONEMD)) {
            let rdata = zonemd::rdata(&records, &apex, serial);
            records = with_zonemd(&records, &rrset, std::iter::once(&*rdata), Vec::new())?;
        }
        Ok(AssembledZone { apex, serial, records, signers, terms, zonemd })
    }
}

/// RRSIG RDATA.
fn rrsig(
    rrset: &Rrset<'_>,
    signer: &Signer,
    validity: Validity,
    apex: &ZoneName,
    signature: &[u8],
) -> Result<Vec<u8>, AssembleError> {
    check_length(rrset, signer, signature)?;
    let mut rrsig = Vec::with_capacity(18 + apex.as_wire().len() + signature.len());
    push_rrsig_prefix(&mut rrsig, rrset, signer, validity, apex);
    rrsig.extend_from_slice(signature);
    Ok(rrsig)
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
