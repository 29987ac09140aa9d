//! Small zones for the tests beside the code.

use countersign_policy::signing::{Denial, DnskeyApproval, KeySplit, SerialPolicy};
use countersign_policy::{Algorithm, KeyRole, PublicKey, SigningPolicy};

use crate::admit::{AdmissionParams, BeyondWindow, IncomingDnssec, IncomingZonemd, admit};
use crate::admitted::AdmittedZone;
use crate::name::tests::wire;
use crate::params::{ZoneKey, ZoneParams};
use crate::receive::{Bounds, CLASS_IN, ReceivedZone, Receiver};
use crate::refusal::Refusal;
use crate::rtype::Rtype;

/// Owner, TTL, type, RDATA.
pub(crate) type Rec = (&'static str, u32, Rtype, Vec<u8>);

pub(crate) const BOUNDS: Bounds = Bounds { records_max: 10_000, bytes_max: 4 << 20 };

pub(crate) const STRIP: AdmissionParams = AdmissionParams {
    dnssec: IncomingDnssec::Strip,
    ttl_max_s: 86_400,
    expire_max_s: 7 * 86_400,
    beyond: BeyondWindow::Refuse,
    zonemd: IncomingZonemd::Ignore,
};

/// SOA RDATA with a minimum of 900 seconds.
pub(crate) fn soa(serial: u32) -> Vec<u8> {
    let mut rdata = [wire("ns.example."), wire("host.example.")].concat();
    for field in [serial, 3_600, 900, 604_800, 900] {
        rdata.extend_from_slice(&field.to_be_bytes());
    }
    rdata
}

/// SOA and NS of `example.`, then what is given.
pub(crate) fn with_apex(records: Vec<Rec>) -> Vec<Rec> {
    let mut zone = vec![
        ("example.", 3_600, Rtype::SOA, soa(7)),
        ("example.", 3_600, Rtype::NS, wire("ns.example.")),
    ];
    zone.extend(records);
    zone
}

pub(crate) fn receive(records: &[Rec]) -> Result<ReceivedZone, Refusal> {
    let mut receiver = Receiver::new("example.".parse().expect("name"), BOUNDS);
    for (owner, ttl_s, rtype, rdata) in records {
        receiver.push(&wire(owner), rtype.0, CLASS_IN, *ttl_s, rdata)?;
    }
    receiver.finish()
}

pub(crate) fn admitted(records: Vec<Rec>) -> AdmittedZone {
    admit(receive(&with_apex(records)).expect("received"), &STRIP).expect("admitted")
}

/// A policy of 14 days' validity, refreshed at 7.
pub(crate) fn policy(denial: Denial) -> SigningPolicy {
    SigningPolicy {
        algorithm: Algorithm::Ed25519,
        rsa_bits: None,
        keys: KeySplit::KskZsk,
        ksk_group: "ksk".to_owned(),
        zsk_group: Some("zsk".to_owned()),
        denial,
        serial: SerialPolicy::Unixtime,
        dnskey_ttl_s: 3_600,
        ttl_max_s: 86_400,
        validity_s: 14 * 86_400,
        refresh_s: 7 * 86_400,
        inception_offset_s: 3_600,
        approval: DnskeyApproval::Standing,
    }
}

/// A key that nobody has the private half of.
pub(crate) fn key(role: KeyRole, algorithm: Algorithm, fill: u8) -> ZoneKey {
    let len = algorithm.public_key_len().expect("fixed");
    let public = PublicKey::new(algorithm, &vec![fill; len]).expect("shape");
    ZoneKey { role, public }
}

/// `example.` with an Ed25519 KSK and ZSK.
pub(crate) fn params(denial: Denial) -> ZoneParams {
    ZoneParams {
        apex: "example.".parse().expect("name"),
        policy: policy(denial),
        keys: vec![
            key(KeyRole::Ksk, Algorithm::Ed25519, 1),
            key(KeyRole::Zsk, Algorithm::Ed25519, 2),
        ],
        dnskey_until: None,
        keep_dnskey: false,
        cds: None,
        zonemd: false,
    }
}
