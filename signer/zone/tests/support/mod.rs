//! What the tests of this folder share: a software signer in the HSM's place, random zones, and
//! the way from records to a verified zone.

#![expect(dead_code, reason = "each test binary uses its own part")]

pub mod cds;
pub mod keys;
pub mod oracle;
pub mod tamper;
pub mod zones;

use std::num::NonZeroUsize;

use countersign_policy::key::FLAG_REVOKE;
use countersign_policy::signing::{Denial, DnskeyApproval, KeySplit, SerialPolicy};
use countersign_policy::{Algorithm, KeyRole, SigningPolicy, ZoneName};
use countersign_zone::{
    AdmissionParams, AdmittedZone, BeyondWindow, Bounds, IncomingDnssec, IncomingZonemd,
    PlannedZone, Receiver, Signatures, SignedZone, VerifiedZone, ZoneKey, ZoneParams, admit, plan,
    verify,
};

use keys::SoftKey;
use zones::Record;

pub const APEX: &str = "example.";
pub const SERIAL: u32 = 2_026_112_401;
pub const THREADS: NonZeroUsize = NonZeroUsize::new(2).expect("not zero");
/// The time that tests sign and verify at, where no tool with a clock of its own looks on.
pub const NOW_S: u64 = 1_795_000_000;

/// Keys and parameters of one way to sign.
pub struct Setup {
    pub params: ZoneParams,
    pub keys: Vec<SoftKey>,
}

impl Setup {
    /// KSK and ZSK, or a CSK, with tags that do not collide.
    pub fn new(algorithm: Algorithm, split: KeySplit, denial: Denial) -> Self {
        let roles: &[KeyRole] = match split {
            KeySplit::KskZsk => &[KeyRole::Ksk, KeyRole::Zsk],
            KeySplit::Csk => &[KeyRole::Csk],
        };
        let mut keys: Vec<SoftKey> = Vec::new();
        for role in roles {
            keys.push(loop {
                let key = SoftKey::make(algorithm, *role);
                let tags = |key: &SoftKey| {
                    [0, FLAG_REVOKE].map(|flag| key.public.tag(key.role.flags() | flag))
                };
                if !keys.iter().any(|other| tags(other).iter().any(|tag| tags(&key).contains(tag)))
                {
                    break key;
                }
            });
        }
        Self { params: params(algorithm, split, denial, &keys), keys }
    }

    /// The same with keys of several algorithms, each of which signs everything.
    pub fn of_algorithms(algorithms: &[Algorithm], denial: Denial) -> Self {
        loop {
            let setups = algorithms.iter().map(|one| Self::new(*one, KeySplit::KskZsk, denial));
            let all = setups.reduce(|mut all, other| {
                all.params.keys.extend(other.params.keys);
                all.keys.extend(other.keys);
                all
            });
            let all = all.expect("an algorithm");
            let mut tags: Vec<u16> = all
                .keys
                .iter()
                .flat_map(|key| {
                    [0, FLAG_REVOKE].map(|flag| key.public.tag(key.role.flags() | flag))
                })
                .collect();
            tags.sort_unstable();
            if tags.windows(2).all(|pair| pair[0] != pair[1]) {
                return all;
            }
        }
    }

    /// Plans and signs, without verifying.
    pub fn sign(&self, admitted: &AdmittedZone, now_s: u64) -> SignedZone {
        let planned = plan(admitted, None, &self.params, SERIAL, now_s).expect("planned");
        self.complete(planned)
    }

    /// Makes the signatures that a planned zone lacks.
    pub fn complete(&self, planned: PlannedZone) -> SignedZone {
        let key = |id| self.keys.iter().find(|key| key.public.id() == id).expect("a known key");
        let zone = planned.tasks().map(|task| key(task.key).sign(&task.tbs)).collect();
        let dnskey = planned
            .dnskey_orders()
            .iter()
            .map(|order| {
                let octets = oracle::dnskey_octets(&self.params, order);
                key(order.signer).sign(&octets)
            })
            .collect();
        let cds = planned
            .cds_orders()
            .iter()
            .map(|order| key(order.signer).sign(&oracle::cds_octets(&self.params, order)))
            .collect();
        let assembled = planned.assemble(Signatures { zone, dnskey, cds }).expect("assembled");
        let zonemd = assembled.tasks().iter().map(|task| key(task.key).sign(&task.tbs)).collect();
        assembled.finish(zonemd).expect("assembled")
    }

    /// Plans, signs and verifies.
    pub fn verified(&self, admitted: &AdmittedZone, now_s: u64) -> VerifiedZone {
        let signed = self.sign(admitted, now_s);
        verify(signed, admitted, &self.params, now_s, THREADS).expect("verified")
    }
}

fn params(algorithm: Algorithm, split: KeySplit, denial: Denial, keys: &[SoftKey]) -> ZoneParams {
    let policy = SigningPolicy {
        algorithm,
        rsa_bits: (algorithm == Algorithm::RsaSha256).then_some(2048),
        keys: split,
        ksk_group: "ksk".to_owned(),
        zsk_group: (split == KeySplit::KskZsk).then(|| "zsk".to_owned()),
        denial,
        serial: SerialPolicy::Unixtime,
        dnskey_ttl_s: 3_600,
        ttl_max_s: 86_400,
        validity_s: 14 * 86_400,
        refresh_s: 7 * 86_400,
        inception_offset_s: 3_600,
        approval: DnskeyApproval::Standing,
    };
    policy.check("test").expect("consistent");
    let keys = keys.iter().map(|key| ZoneKey { role: key.role, public: key.public.clone() });
    ZoneParams {
        apex: apex(),
        policy,
        keys: keys.collect(),
        dnskey_until: None,
        keep_dnskey: false,
        cds: None,
        zonemd: false,
    }
}

pub fn apex() -> ZoneName {
    APEX.parse().expect("name")
}

/// Admits records; one that the rules of a zone forbid is dropped with its RRset, and the rest
/// tried again, so that random records become a zone without knowing the rules.
pub fn admitted(records: &[Record]) -> AdmittedZone {
    let mut records = records.to_vec();
    loop {
        let refusal = match try_admit(&records) {
            Ok(admitted) => return admitted,
            Err(refusal) => refusal,
        };
        let (owner, rtype) = refusal.record.clone().expect("a record to blame");
        let before = records.len();
        records.retain(|record| {
            record.rtype != rtype.0 || !record.owner.eq_ignore_ascii_case(owner.as_wire())
        });
        assert!(records.len() < before, "{refusal}");
    }
}

fn try_admit(records: &[Record]) -> Result<AdmittedZone, countersign_zone::Refusal> {
    let bounds = Bounds { records_max: 100_000, bytes_max: 64 << 20 };
    let mut receiver = Receiver::new(apex(), bounds);
    for record in records {
        receiver.push(&record.owner, record.rtype, 1, record.ttl_s, &record.rdata)?;
    }
    admit(receiver.finish()?, &ADMISSION)
}

/// As the policy of every [`Setup`] has it.
pub const ADMISSION: AdmissionParams = AdmissionParams {
    dnssec: IncomingDnssec::Strip,
    ttl_max_s: 86_400,
    expire_max_s: 7 * 86_400,
    beyond: BeyondWindow::Refuse,
    zonemd: IncomingZonemd::Ignore,
};
