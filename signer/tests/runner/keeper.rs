//! A keeper in software: speaks the protocol, and does wrong on request.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use countersign_hsm::frame;
use countersign_hsm::protocol::{
    CdsOrder, KeeperHealth, KeyInfo, Notice, PROTOCOL_VERSION, Refusal, RefusalKind, Request,
    Response, ZoneKeys,
};
use countersign_policy::ledger::CdsType;
use countersign_policy::signing::{Denial, DnskeyApproval, KeySplit, SerialPolicy};
use countersign_policy::tree::Hash;
use countersign_policy::{Algorithm, KeyId, KeyRole, PublicKey, SigningPolicy, ZoneName};

/// What the keeper does with the next requests to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Right,
    /// Every signature has one bit wrong.
    WrongSignatures,
    /// No token answers.
    NoToken,
}

#[derive(Debug)]
pub struct State {
    pub mood: Mood,
    pub policy: SigningPolicy,
    /// Whether there is an active KSK.
    pub ksk: bool,
    /// What the zone is to say to its parent.
    pub cds: Option<CdsOrder>,
    /// Why that is not signed, if it is not.
    pub cds_refusal: Option<RefusalKind>,
    /// Why DNSKEY is not signed, if it is not.
    pub dnskey_refusal: Option<RefusalKind>,
    /// When the approval of the DNSKEY RRset ends.
    pub dnskey_until: Option<u64>,
    /// Types of RRsets that the ZSK does not sign.
    pub forbidden: Vec<u16>,
    pub notices: Vec<Notice>,
    pub published: Vec<u32>,
    pub signed: usize,
    /// How often CDS or CDNSKEY were asked for, in vain too.
    pub cds_asked: usize,
    /// How often the zone was asked about.
    pub zone_asked: usize,
}

impl State {
    fn new() -> Self {
        Self {
            mood: Mood::Right,
            policy: policy(),
            ksk: true,
            cds: None,
            cds_refusal: None,
            dnskey_refusal: None,
            dnskey_until: None,
            forbidden: vec![],
            notices: vec![],
            published: vec![],
            signed: 0,
            cds_asked: 0,
            zone_asked: 0,
        }
    }
}

pub struct Keeper {
    pub state: Arc<Mutex<State>>,
    keys: Arc<Keys>,
    path: PathBuf,
}

struct Keys {
    zone: ZoneName,
    ksk: Ed25519KeyPair,
    zsk: Ed25519KeyPair,
}

pub fn policy() -> SigningPolicy {
    SigningPolicy {
        algorithm: Algorithm::Ed25519,
        rsa_bits: None,
        keys: KeySplit::KskZsk,
        ksk_group: "ksk".to_owned(),
        zsk_group: Some("zsk".to_owned()),
        denial: Denial::Nsec,
        serial: SerialPolicy::Increment,
        dnskey_ttl_s: 60,
        ttl_max_s: 600,
        validity_s: 86_400,
        refresh_s: 3_600,
        inception_offset_s: 600,
        approval: DnskeyApproval::Standing,
    }
}

impl Keeper {
    /// Not listening yet.
    pub fn new(path: PathBuf, zone: ZoneName) -> Self {
        let key = |fill| Ed25519KeyPair::from_seed_unchecked(&[fill; 32]).expect("seed");
        let keys = Keys { zone, ksk: key(1), zsk: key(2) };
        Self { state: Arc::new(Mutex::new(State::new())), keys: Arc::new(keys), path }
    }

    pub fn start(&self) {
        let listener = UnixListener::bind(&self.path).expect("bound");
        let (state, keys) = (self.state.clone(), self.keys.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (state, keys) = (state.clone(), keys.clone());
                std::thread::spawn(move || serve(stream.expect("stream"), &state, &keys));
            }
        });
    }

    pub fn socket(&self) -> &Path {
        &self.path
    }

    /// What a quorum would have the zone say to its parent, until `until` (seconds since 1970).
    pub fn cds(&self, until: u64) -> CdsOrder {
        let cdnskey = public(&self.keys.ksk).dnskey_rdata(257);
        let mut hashed = self.keys.zone.as_wire().to_vec();
        hashed.extend(&cdnskey);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &hashed);
        let tag = public(&self.keys.ksk).tag(257).to_be_bytes();
        let cds = [&tag[..], &[15, 2], digest.as_ref()].concat();
        CdsOrder { cds: vec![cds], cdnskey: vec![cdnskey], until, validity_s: 3 * 86_400 }
    }
}

fn serve(mut stream: UnixStream, state: &Mutex<State>, keys: &Keys) {
    let mut body = Vec::new();
    while let Ok(true) = frame::read(&mut stream, &mut body) {
        let (id, request) = frame::decode::<Request>(&body).expect("a request");
        let response = answer(request, &mut state.lock().expect("state"), keys);
        if stream.write_all(&frame::encode(id, &response).expect("a frame")).is_err() {
            return;
        }
    }
}

fn answer(request: Request, state: &mut State, keys: &Keys) -> Response {
    let signs = matches!(
        request,
        Request::SignZone { .. } | Request::SignDnskey { .. } | Request::SignCds { .. }
    );
    if signs && state.mood == Mood::NoToken {
        let detail = "token zsk-a: lost".to_owned();
        return Response::Refused(Refusal { kind: RefusalKind::HsmUnavailable, detail });
    }
    match request {
        Request::Hello { .. } => Response::Hello {
            protocol: PROTOCOL_VERSION,
            version: "test".to_owned(),
            appliance: "test".to_owned(),
            founding: Hash([0; 32]),
        },
        Request::Zone { zone } if zone == keys.zone => {
            state.zone_asked += 1;
            let ksk = state.ksk.then(|| info(KeyRole::Ksk, &keys.ksk));
            Response::Zone(ZoneKeys {
                zone,
                policy_name: "default".to_owned(),
                policy: state.policy.clone(),
                keys: ksk.into_iter().chain([info(KeyRole::Zsk, &keys.zsk)]).collect(),
                dnskey_until: state.dnskey_until,
                cds: state.cds.clone(),
            })
        }
        Request::SignZone { key, tbs, .. } => {
            assert_eq!(key, public(&keys.zsk).id());
            let forbidden = state.forbidden.clone();
            let answers = tbs.iter().map(|tbs| {
                let rtype = u16::from_be_bytes([tbs[0], tbs[1]]);
                if forbidden.contains(&rtype) {
                    let detail = format!("type {rtype} was not approved");
                    return Err(Refusal { kind: RefusalKind::Forbidden, detail });
                }
                Ok(sign(state, &keys.zsk, tbs))
            });
            Response::Signatures(answers.collect())
        }
        Request::SignCds { rrset, signer, ttl_s, inception, expiration, .. } => {
            state.cds_asked += 1;
            if let Some(kind) = state.cds_refusal {
                let detail = "KSK use is frozen by carol".to_owned();
                return Response::Refused(Refusal { kind, detail });
            }
            assert_eq!(signer, public(&keys.ksk).id());
            let set = state.cds.as_ref().expect("it was said what to ask for");
            let rdatas = match rrset {
                CdsType::Cds => set.cds.clone(),
                CdsType::Cdnskey => set.cdnskey.clone(),
            };
            let times = (ttl_s, inception, expiration);
            let tbs = apex_tbs(keys, rrset.number(), rdatas, times);
            Response::CdsSignature(sign(state, &keys.ksk, &tbs))
        }
        Request::SignDnskey { keys: wanted, signer, ttl_s, inception, expiration, .. } => {
            if let Some(kind) = state.dnskey_refusal {
                let detail = "KSK use is frozen by carol".to_owned();
                return Response::Refused(Refusal { kind, detail });
            }
            assert_eq!(signer, public(&keys.ksk).id());
            let tbs = dnskey_tbs(keys, &wanted, (ttl_s, inception, expiration));
            Response::DnskeySignature(sign(state, &keys.ksk, &tbs))
        }
        Request::Published { serial, .. } => {
            state.published.push(serial);
            Response::Recorded
        }
        Request::Health => {
            Response::Health(KeeperHealth { tokens: vec![], notices: state.notices.clone() })
        }
        Request::Zones { .. } | Request::Zone { .. } => {
            Response::Refused(Refusal { kind: RefusalKind::Unknown, detail: "not here".to_owned() })
        }
    }
}

fn sign(state: &mut State, key: &Ed25519KeyPair, message: &[u8]) -> Vec<u8> {
    let mut signature = key.sign(message).as_ref().to_vec();
    state.signed += 1;
    if state.mood == Mood::WrongSignatures {
        signature[7] ^= 1;
    }
    signature
}

fn public(key: &Ed25519KeyPair) -> PublicKey {
    PublicKey::new(Algorithm::Ed25519, key.public_key().as_ref()).expect("a key")
}

fn info(role: KeyRole, key: &Ed25519KeyPair) -> KeyInfo {
    let proven_by = vec!["token".to_owned()];
    KeyInfo { role, public: public(key), proven_by, unusable: None }
}

/// RFC 4034 §3.1.8.1 for the DNSKEY RRset; TTL, inception and expiration.
fn dnskey_tbs(keys: &Keys, wanted: &BTreeSet<KeyId>, times: (u32, u32, u32)) -> Vec<u8> {
    let rdatas = [(KeyRole::Ksk, public(&keys.ksk)), (KeyRole::Zsk, public(&keys.zsk))]
        .into_iter()
        .filter(|(_, key)| wanted.contains(&key.id()))
        .map(|(role, key)| key.dnskey_rdata(role.flags()))
        .collect();
    apex_tbs(keys, 48, rdatas, times)
}

/// The same for any RRset of the apex that the KSK signs.
fn apex_tbs(
    keys: &Keys,
    rtype: u16,
    mut rdatas: Vec<Vec<u8>>,
    (ttl_s, inception, expiration): (u32, u32, u32),
) -> Vec<u8> {
    let apex = keys.zone.as_wire();
    let mut tbs = rtype.to_be_bytes().to_vec();
    tbs.extend([15, keys.zone.label_count() as u8]);
    tbs.extend(ttl_s.to_be_bytes());
    tbs.extend(expiration.to_be_bytes());
    tbs.extend(inception.to_be_bytes());
    tbs.extend(public(&keys.ksk).tag(257).to_be_bytes());
    tbs.extend(apex);
    rdatas.sort();
    for rdata in rdatas {
        tbs.extend(apex);
        tbs.extend(rtype.to_be_bytes());
        tbs.extend([0, 1]);
        tbs.extend(ttl_s.to_be_bytes());
        tbs.extend((rdata.len() as u16).to_be_bytes());
        tbs.extend(rdata);
    }
    tbs
}
