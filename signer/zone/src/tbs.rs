//! The octets that a signature covers: RFC 4034 §3.1.8.1, over the canonical form of §6 as
//! RFC 6840 §5.1 amends it.
//!
//! ```text
//! type covered u16 · algorithm u8 · labels u8 · original TTL u32 · expiration u32 · inception u32 · key tag u16 · signer's name
//! then for each record, in canonical order:
//! owner (lower-case) · type u16 · class u16 · TTL u32 · RDLENGTH u16 · RDATA (canonical)
//! ```

use countersign_policy::{Algorithm, KeyId, ZoneName};

use crate::name;
use crate::packed::Rrset;
use crate::params::ZoneKey;
use crate::rdata;
use crate::receive::CLASS_IN;
use crate::rtype::Rtype;

/// A key as RRSIGs name it.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    pub(crate) id: KeyId,
    pub(crate) algorithm: Algorithm,
    pub(crate) tag: u16,
    /// Octets of its signatures.
    pub(crate) signature_len: usize,
    /// Its DNSKEY RDATA.
    pub(crate) dnskey: Vec<u8>,
}

impl Signer {
    pub(crate) fn new(key: &ZoneKey) -> Self {
        let algorithm = key.public.algorithm();
        // An RSA signature is as long as its modulus (RFC 8017 §8.2.1).
        let modulus = key.public.rsa_parts().map(|(_, modulus)| modulus.len());
        Self {
            id: key.public.id(),
            algorithm,
            tag: key.tag(),
            signature_len: algorithm.signature_len().or(modulus).unwrap_or(0),
            dnskey: key.dnskey_rdata(),
        }
    }
}

/// When a signature is valid, in seconds since 1970 modulo 2^32 (RFC 4034 §3.1.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) inception: u32,
    pub(crate) expiration: u32,
}

/// Appends RRSIG RDATA up to and with the signer's name; the signature follows it in a record,
/// the RRset in what is signed.
pub(crate) fn push_rrsig_prefix(
    out: &mut Vec<u8>,
    rrset: &Rrset<'_>,
    signer: &Signer,
    validity: Validity,
    apex: &ZoneName,
) {
    out.extend_from_slice(&rrset.rtype().0.to_be_bytes());
    out.push(signer.algorithm.number());
    out.push(name::rrsig_labels(rrset.owner()));
    out.extend_from_slice(&rrset.ttl_s().to_be_bytes());
    out.extend_from_slice(&validity.expiration.to_be_bytes());
    out.extend_from_slice(&validity.inception.to_be_bytes());
    out.extend_from_slice(&signer.tag.to_be_bytes());
    out.extend_from_slice(apex.as_wire()); // lower-case already
}

/// What `signer` is to sign for an RRset.
pub(crate) fn to_be_signed(
    rrset: &Rrset<'_>,
    signer: &Signer,
    validity: Validity,
    apex: &ZoneName,
) -> Vec<u8> {
    let record_len = |rdata: &[u8]| rrset.owner().len() + 10 + rdata.len();
    let len = 18 + apex.as_wire().len() + rrset.rdatas().map(record_len).sum::<usize>();
    let mut tbs = Vec::with_capacity(len);
    push_rrsig_prefix(&mut tbs, rrset, signer, validity, apex);
    for rdata in rrset.rdatas() {
        push_record(&mut tbs, rrset.owner(), rrset.rtype(), rrset.ttl_s(), rdata);
    }
    tbs
}

fn push_record(tbs: &mut Vec<u8>, owner: &[u8], rtype: Rtype, ttl_s: u32, rdata: &[u8]) {
    let start = tbs.len();
    tbs.extend_from_slice(owner);
    // Length octets are at most 63, below 'A', so lower-casing the whole is safe.
    tbs[start..].make_ascii_lowercase();
    tbs.extend_from_slice(&rtype.0.to_be_bytes());
    tbs.extend_from_slice(&CLASS_IN.to_be_bytes());
    tbs.extend_from_slice(&ttl_s.to_be_bytes());
    let canonical = rdata::canonical(rtype, rdata);
    tbs.extend_from_slice(&(canonical.len() as u16).to_be_bytes());
    tbs.extend_from_slice(&canonical);
}

#[cfg(test)]
mod tests {
    use countersign_policy::{KeyRole, PublicKey};

    use super::*;
    use crate::name::tests::wire;
    use crate::packed::Builder;

    #[test]
    fn an_rsa_signature_is_as_long_as_the_modulus() {
        let bytes = [&[3, 1, 0, 1][..], &[0xff; 384]].concat();
        let public = PublicKey::new(Algorithm::RsaSha256, &bytes).expect("key");
        assert_eq!(Signer::new(&ZoneKey { role: KeyRole::Ksk, public }).signature_len, 384);
    }

    #[test]
    fn octets_are_those_of_rfc_4034() {
        let public = PublicKey::new(Algorithm::Ed25519, &[7; 32]).expect("key");
        let signer = Signer::new(&ZoneKey { role: KeyRole::Zsk, public });
        assert_eq!(signer.signature_len, 64);
        let mut builder = Builder::new();
        let owner = wire("*.A.Example.");
        let rdatas = [[&[0, 1][..], &wire("MAIL.")].concat(), [&[0, 2][..], &wire("b.")].concat()];
        builder.owner(&owner).expect("first");
        builder.rrset(&owner, Rtype::MX, 300, rdatas.iter().map(Vec::as_slice), []).expect("first");
        let packed = builder.finish().expect("small");
        let rrset = packed.node(&owner).and_then(|node| node.rrset(Rtype::MX)).expect("there");
        let validity = Validity { inception: 0x0102_0304, expiration: 0x0506_0708 };
        let tbs = to_be_signed(&rrset, &signer, validity, &"example.".parse().expect("name"));
        let mut expect = vec![0, 15, 15, 2, 0, 0, 1, 44, 5, 6, 7, 8, 1, 2, 3, 4];
        expect.extend_from_slice(&signer.tag.to_be_bytes());
        expect.extend_from_slice(b"\x07example\0");
        expect.extend_from_slice(
            b"\x01*\x01a\x07example\0\0\x0f\0\x01\0\0\x01\x2c\0\x08\0\x01\x04mail\0",
        );
        expect.extend_from_slice(
            b"\x01*\x01a\x07example\0\0\x0f\0\x01\0\0\x01\x2c\0\x05\0\x02\x01b\0",
        );
        assert_eq!(tbs, expect);
        assert_eq!(tbs.capacity(), tbs.len(), "sized in advance");
    }
}
