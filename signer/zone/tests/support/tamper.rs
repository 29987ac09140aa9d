//! A verified zone taken apart and put together wrongly, with the keys at hand: what is changed
//! can be signed again, so that only the check in question can notice.

use countersign_policy::signing::{Denial, KeySplit};
use countersign_policy::{Algorithm, KeyRole};
use countersign_zone::name::{is_wildcard, label_count};
use countersign_zone::verify::Place;
use countersign_zone::{AdmittedZone, Failure, Packed, Rrset, Rtype, SignedZone, verify};

use super::keys::SoftKey;
use super::zones::{Record, apex_records, record, wire};
use super::{NOW_S, SERIAL, Setup, THREADS, admitted, apex, oracle};

/// What keys of the secure entry point sign.
const KSK_SIGNS: [Rtype; 3] = [Rtype::DNSKEY, Rtype::CDS, Rtype::CDNSKEY];
/// What is signed for three days at most.
const SHORT: [Rtype; 2] = [Rtype::CDS, Rtype::CDNSKEY];

pub struct Tamper {
    pub setup: Setup,
    pub admitted: AdmittedZone,
    pub records: Packed,
    pub serial: u32,
    pub now_s: u64,
}

/// The fields of an RRSIG (RFC 4034 §3.1) but its signature.
#[derive(Debug, Clone)]
pub struct Fields {
    pub covered: u16,
    pub algorithm: u8,
    pub labels: u8,
    pub ttl_s: u32,
    pub expiration: u32,
    pub inception: u32,
    pub tag: u16,
    pub signer: Vec<u8>,
}

impl Fields {
    fn head(&self) -> Vec<u8> {
        let mut head = self.covered.to_be_bytes().to_vec();
        head.extend_from_slice(&[self.algorithm, self.labels]);
        for field in [self.ttl_s, self.expiration, self.inception] {
            head.extend_from_slice(&field.to_be_bytes());
        }
        head.extend_from_slice(&self.tag.to_be_bytes());
        head.extend_from_slice(&self.signer);
        head
    }
}

impl Tamper {
    pub fn new(setup: Setup, admitted: AdmittedZone) -> Self {
        let records = setup.verified(&admitted, NOW_S).records().clone();
        Self { setup, admitted, records, serial: SERIAL, now_s: NOW_S }
    }

    pub fn rrset(&self, owner: &str, rtype: Rtype) -> Rrset<'_> {
        let node = self.records.node(&wire(owner)).expect("the owner");
        node.rrset(rtype).expect("the RRset")
    }

    pub fn rdatas(&self, owner: &str, rtype: Rtype) -> Vec<Vec<u8>> {
        self.rrset(owner, rtype).rdatas().map(<[u8]>::to_vec).collect()
    }

    pub fn rrsigs(&self, owner: &str, rtype: Rtype) -> Vec<Vec<u8>> {
        self.rrset(owner, rtype).rrsigs().map(<[u8]>::to_vec).collect()
    }

    pub fn remove(&mut self, owner: &[u8], rtype: Rtype) {
        let mut edit = self.records.edit();
        edit.remove(owner, rtype);
        self.records = edit.finish().expect("edited");
    }

    /// Puts an RRset with the signatures that are given.
    pub fn put_raw(
        &mut self,
        owner: &[u8],
        rtype: Rtype,
        ttl_s: u32,
        mut rdatas: Vec<Vec<u8>>,
        rrsigs: Vec<Vec<u8>>,
    ) {
        rdatas.sort();
        let mut edit = self.records.edit();
        edit.put(owner, rtype, ttl_s, rdatas, rrsigs);
        self.records = edit.finish().expect("edited");
    }

    /// Puts an RRset and signs it as it should be.
    pub fn put(&mut self, owner: &[u8], rtype: Rtype, ttl_s: u32, rdatas: Vec<Vec<u8>>) {
        self.put_raw(owner, rtype, ttl_s, rdatas, Vec::new());
        let rrsigs = self
            .setup
            .keys
            .iter()
            .filter(|key| {
                if KSK_SIGNS.contains(&rtype) {
                    key.role.signs_dnskey()
                } else {
                    key.role.signs_zone()
                }
            })
            .map(|key| self.sign(owner, rtype, key, |_| ()))
            .collect();
        self.set_rrsigs(owner, rtype, rrsigs);
    }

    /// Changes RDATA of an RRset and signs it again.
    pub fn change(&mut self, owner: &str, rtype: Rtype, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
        let mut rdatas = self.rdatas(owner, rtype);
        let (spelled, ttl_s) =
            (self.rrset(owner, rtype).owner().to_vec(), self.rrset(owner, rtype).ttl_s());
        change(&mut rdatas);
        self.put(&spelled, rtype, ttl_s, rdatas);
    }

    /// Leaves records as they are and puts other signatures.
    pub fn set_rrsigs(&mut self, owner: &[u8], rtype: Rtype, rrsigs: Vec<Vec<u8>>) {
        let node = self.records.node(owner).expect("the owner");
        let rrset = node.rrset(rtype).expect("the RRset");
        let (spelled, ttl_s) = (rrset.owner().to_vec(), rrset.ttl_s());
        let rdatas = rrset.rdatas().map(<[u8]>::to_vec).collect();
        self.put_raw(&spelled, rtype, ttl_s, rdatas, rrsigs);
    }

    /// RRSIG RDATA by `key`, its fields changed before it is signed.
    pub fn sign(
        &self,
        owner: &[u8],
        rtype: Rtype,
        key: &SoftKey,
        change: impl FnOnce(&mut Fields),
    ) -> Vec<u8> {
        let node = self.records.node(owner).expect("the owner");
        let rrset = node.rrset(rtype).expect("the RRset");
        let policy = &self.setup.params.policy;
        let now = NOW_S as u32;
        let mut fields = Fields {
            covered: rtype.0,
            algorithm: key.public.algorithm().number(),
            labels: (label_count(owner) - usize::from(is_wildcard(owner))) as u8,
            ttl_s: rrset.ttl_s(),
            expiration: now + if SHORT.contains(&rtype) { 3 * 86_400 } else { policy.validity_s },
            inception: now - policy.inception_offset_s,
            tag: key.public.tag(key.role.flags()),
            signer: apex().as_wire().to_vec(),
        };
        change(&mut fields);
        let head = fields.head();
        let signature = key.sign(&oracle::signed_octets(&rrset, &head));
        [head, signature].concat()
    }

    /// Replaces the signatures of an RRset by one of `role`'s key with changed fields.
    pub fn sign_again(
        &mut self,
        owner: &str,
        rtype: Rtype,
        role: KeyRole,
        change: impl FnOnce(&mut Fields),
    ) {
        let rrsig = self.sign(&wire(owner), rtype, self.key(role), change);
        self.set_rrsigs(&wire(owner), rtype, vec![rrsig]);
    }

    pub fn key(&self, role: KeyRole) -> &SoftKey {
        self.setup.keys.iter().find(|key| key.role == role).expect("a key of the role")
    }

    pub fn verify(&self) -> Result<countersign_zone::VerifiedZone, Failure> {
        let signed = SignedZone::unverified(apex(), self.serial, self.records.clone());
        verify(signed, &self.admitted, &self.setup.params, self.now_s, THREADS)
    }

    /// The failure that the tampering must lead to.
    pub fn failure(&self) -> Failure {
        self.verify().expect_err("a tampered zone must not verify")
    }
}

/// One of each: host, wildcard, empty non-terminal, DNAME, insecure and secure delegation, glue.
pub fn zone() -> Vec<Record> {
    let ds = [&[0x12, 0x34, 13, 2][..], &[7; 32]].concat();
    let more = vec![
        record("www.example.", 1, 300, &[192, 0, 2, 1]),
        record("www.example.", 1, 300, &[192, 0, 2, 2]),
        record("Mixed.example.", 15, 300, &[&[0, 10][..], &wire("Mail.example.")].concat()),
        record("*.wild.example.", 16, 300, b"\x02hi"),
        record("a.b.ent.example.", 1, 300, &[192, 0, 2, 3]),
        record("dname.example.", 39, 300, &wire("other.test.")),
        record("insecure.example.", 2, 3_600, &wire("ns.insecure.example.")),
        record("ns.insecure.example.", 1, 3_600, &[192, 0, 2, 4]),
        record("secure.example.", 2, 3_600, &wire("ns.elsewhere.test.")),
        record("secure.example.", 43, 3_600, &ds),
    ];
    [apex_records(), more].concat()
}

pub fn tamper(denial: Denial) -> Tamper {
    let setup = Setup::new(Algorithm::Ed25519, KeySplit::KskZsk, denial);
    Tamper::new(setup, admitted(&zone()))
}

pub fn check(denial: Denial, change: impl FnOnce(&mut Tamper), expect: &Failure) {
    let mut tamper = tamper(denial);
    change(&mut tamper);
    assert_eq!(&tamper.failure(), expect);
}

pub fn place(owner: &str, rtype: Rtype) -> Place {
    Place::new(&wire(owner), rtype)
}
