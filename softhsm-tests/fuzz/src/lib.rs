//! What the targets share: one zone, one key, one policy, one moment.

use std::collections::BTreeSet;

use countersign_hsm::keeper::judge::{KeyInUse, judge_zone_tbs};
use countersign_policy::signing::{Denial, DnskeyApproval, KeySplit, SerialPolicy};
use countersign_policy::{Algorithm, KeyRole, PublicKey, SigningPolicy, ZoneName};
use countersign_zone::{AdmissionParams, AdmittedZone, Bounds, Receiver, Rtype, admit};

pub mod texts;
pub mod tsig;

/// The keeper's clock in the targets.
pub const NOW_S: u64 = 1_795_000_000;
/// The zone in wire form.
pub const APEX: &[u8] = b"\x07example\x00";
/// A zone that is signed here as well, below the first: its DS is not to be signed.
pub const BOUND_CHILD: &[u8] = b"\x05child\x07example\x00";

/// Octets of RRSIG RDATA before the signer's name (RFC 4034 §3.1).
pub const RRSIG_FIXED: usize = 18;

/// The zone's name.
pub fn apex() -> ZoneName {
    ZoneName::from_wire(APEX).expect("a name")
}

/// A ZSK of which nobody has the private half.
pub fn zsk() -> PublicKey {
    PublicKey::new(Algorithm::Ed25519, &[7; 32]).expect("its shape")
}

/// The policy of the zone.
pub fn policy() -> SigningPolicy {
    SigningPolicy {
        algorithm: Algorithm::Ed25519,
        rsa_bits: None,
        keys: KeySplit::KskZsk,
        ksk_group: "ksk".to_owned(),
        zsk_group: Some("zsk".to_owned()),
        denial: Denial::Nsec3,
        serial: SerialPolicy::Unixtime,
        dnskey_ttl_s: 3_600,
        ttl_max_s: 86_400,
        validity_s: 14 * 86_400,
        refresh_s: 7 * 86_400,
        inception_offset_s: 3_600,
        approval: DnskeyApproval::Standing,
    }
}

/// SOA RDATA of the zone.
pub fn soa_rdata(serial: u32) -> Vec<u8> {
    let mut rdata = [&b"\x02ns"[..], APEX, b"\x04host", APEX].concat();
    for field in [serial, 3_600, 900, 604_800, 600] {
        rdata.extend_from_slice(&field.to_be_bytes());
    }
    rdata
}

/// What answers to IXFR are applied to: serial 7, with a few hosts.
pub fn ixfr_base() -> AdmittedZone {
    let bounds = Bounds { records_max: 100, bytes_max: 10_000 };
    let mut receiver = Receiver::new(apex(), bounds);
    let ns = [&b"\x02ns"[..], APEX].concat();
    let mut push = |owner: &[u8], rtype: Rtype, ttl_s, rdata: &[u8]| {
        receiver.push(owner, rtype.0, 1, ttl_s, rdata).expect("a record");
    };
    push(APEX, Rtype::SOA, 1_800, &soa_rdata(7));
    push(APEX, Rtype::NS, 3_600, &ns);
    push(&ns, Rtype::A, 300, &[192, 0, 2, 1]);
    push(&ns, Rtype::A, 300, &[192, 0, 2, 2]);
    push(&[&b"\x03wWw"[..], APEX].concat(), Rtype::TXT, 300, b"\x02hi");
    let received = receiver.finish().expect("records");
    admit(received, &AdmissionParams::under(&policy())).expect("admitted")
}

/// `tail` (labels field, TTL, then what follows the signer's name) with the fields that a stolen
/// daemon would get right: algorithm, key tag, times, signer.
pub fn well_aimed(covered: [u8; 2], labels: u8, ttl_s: [u8; 4], records: &[u8]) -> Vec<u8> {
    let policy = policy();
    let now = NOW_S as u32;
    let mut tbs = covered.to_vec();
    tbs.extend_from_slice(&[Algorithm::Ed25519.number(), labels]);
    tbs.extend_from_slice(&ttl_s);
    tbs.extend_from_slice(&(now + policy.validity_s).to_be_bytes());
    tbs.extend_from_slice(&(now - policy.inception_offset_s).to_be_bytes());
    tbs.extend_from_slice(&zsk().tag(KeyRole::Zsk.flags()).to_be_bytes());
    tbs.extend_from_slice(APEX);
    tbs.extend_from_slice(records);
    tbs
}

/// Judges octets as the keeper would, and looks at what it lets through with other eyes.
pub fn judge(tbs: &[u8]) -> bool {
    let (zone, public, policy) = (apex(), zsk(), policy());
    let child = ZoneName::from_wire(BOUND_CHILD).expect("a name");
    // Both zones are signed here, and no DS of theirs was exported.
    let exported = |name: &ZoneName| (*name == zone || *name == child).then(BTreeSet::new);
    let key = KeyInUse { zone: &zone, role: KeyRole::Zsk, public: &public, policy: &policy };
    let allowed = judge_zone_tbs(&key, &exported, NOW_S, tbs).is_ok();
    if allowed {
        is_harmless(tbs);
    }
    // A KSK signs no zone data, whatever it is.
    let ksk = KeyInUse { role: KeyRole::Ksk, ..key };
    assert!(judge_zone_tbs(&ksk, &exported, NOW_S, tbs).is_err());
    allowed
}

/// What must hold for anything that a ZSK is allowed to sign.
fn is_harmless(tbs: &[u8]) {
    let covered = u16::from_be_bytes([tbs[0], tbs[1]]);
    assert!(![46, 48, 59, 60, 62].contains(&covered), "type {covered} is not a ZSK's");
    let mut rest = tbs[RRSIG_FIXED..].strip_prefix(APEX).expect("the signer is the zone");
    let mut records = 0;
    while !rest.is_empty() {
        let mut owner_len = 0;
        while rest[owner_len] != 0 {
            assert!(rest[owner_len] < 64, "a label, not a pointer");
            owner_len += 1 + usize::from(rest[owner_len]);
        }
        let (owner, fields) = rest.split_at(owner_len + 1);
        assert!(owner.ends_with(APEX), "the owner is in the zone");
        assert!(covered != 43 || owner != BOUND_CHILD, "no DS of a zone that is signed here");
        assert_eq!(fields[..2], tbs[..2], "records have the type covered");
        assert_eq!(fields[2..4], [0, 1], "class IN");
        assert_eq!(fields[4..8], tbs[4..8], "the original TTL");
        let rdata_len = usize::from(u16::from_be_bytes([fields[8], fields[9]]));
        rest = &fields[10 + rdata_len..];
        records += 1;
    }
    assert!(records > 0, "an RRset has a record");
}
