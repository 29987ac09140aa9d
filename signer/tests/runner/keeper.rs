//! A keeper in software: speaks the protocol, and does wrong on request.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use countersign_hsm::frame;
use countersign_hsm::protocol::{
    KeyInfo, PROTOCOL_VERSION, Refusal, RefusalKind, Request, Response, ZoneKeys,
};
use countersign_policy::signing::{Denial, KeySplit, SerialPolicy};
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
    pub published: Vec<u32>,
    pub signed: usize,
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
    }
}

impl Keeper {
    /// Not listening yet.
    pub fn new(path: PathBuf, zone: ZoneName) -> Self {
        let key = |fill| Ed25519KeyPair::from_seed_unchecked(&[fill; 32]).expect("seed");
        let keys = Keys { zone, ksk: key(1), zsk: key(2) };
        let state = State { mood: Mood::Right, policy: policy(), published: vec![], signed: 0 };
        Self { state: Arc::new(Mutex::new(state)), keys: Arc::new(keys), path }
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
    let signs = matches!(request, Request::SignZone { .. } | Request::SignDnskey { .. });
    if signs && state.mood == Mood::NoToken {
        let detail = "token zsk-a: lost".to_owned();
        return Response::Refused(Refusal { kind: RefusalKind::HsmUnavailable, detail });
    }
    let mut sign = |key: &Ed25519KeyPair, message: &[u8]| {
        let mut signature = key.sign(message).as_ref().to_vec();
        state.signed += 1;
        if state.mood == Mood::WrongSignatures {
            signature[7] ^= 1;
        }
        signature
    };
    match request {
        Request::Hello { .. } => Response::Hello {
            protocol: PROTOCOL_VERSION,
            version: "test".to_owned(),
            appliance: "test".to_owned(),
            founding: [0; 32],
            lab: true,
        },
        Request::Zone { zone } if zone == keys.zone => Response::Zone(ZoneKeys {
            zone,
            policy_name: "default".to_owned(),
            policy: state.policy.clone(),
            keys: vec![info(KeyRole::Ksk, &keys.ksk), info(KeyRole::Zsk, &keys.zsk)],
        }),
        Request::SignZone { key, tbs, .. } => {
            assert_eq!(key, public(&keys.zsk).id());
            Response::Signatures(tbs.iter().map(|tbs| Ok(sign(&keys.zsk, tbs))).collect())
        }
        Request::SignDnskey { keys: wanted, signer, ttl_s, inception, expiration, .. } => {
            assert_eq!(signer, public(&keys.ksk).id());
            let tbs = dnskey_tbs(keys, &wanted, ttl_s, inception, expiration);
            Response::DnskeySignature(sign(&keys.ksk, &tbs))
        }
        Request::Published { serial, .. } => {
            state.published.push(serial);
            Response::Recorded
        }
        Request::Health => Response::Health(vec![]),
        Request::Zones { .. } | Request::Zone { .. } => {
            Response::Refused(Refusal { kind: RefusalKind::Unknown, detail: "not here".to_owned() })
        }
    }
}

fn public(key: &Ed25519KeyPair) -> PublicKey {
    PublicKey::new(Algorithm::Ed25519, key.public_key().as_ref()).expect("a key")
}

fn info(role: KeyRole, key: &Ed25519KeyPair) -> KeyInfo {
    let proven_by = vec!["token".to_owned()];
    KeyInfo { role, public: public(key), proven_by, unusable: None }
}

/// RFC 4034 §3.1.8.1 for the DNSKEY RRset.
fn dnskey_tbs(
    keys: &Keys,
    wanted: &BTreeSet<KeyId>,
    ttl_s: u32,
    inception: u32,
    expiration: u32,
) -> Vec<u8> {
    let apex = keys.zone.as_wire();
    let ksk = public(&keys.ksk);
    let mut tbs = vec![0, 48, 15, keys.zone.label_count() as u8];
    tbs.extend(ttl_s.to_be_bytes());
    tbs.extend(expiration.to_be_bytes());
    tbs.extend(inception.to_be_bytes());
    tbs.extend(ksk.tag(257).to_be_bytes());
    tbs.extend(apex);
    let mut rdatas: Vec<Vec<u8>> = [(KeyRole::Ksk, ksk), (KeyRole::Zsk, public(&keys.zsk))]
        .into_iter()
        .filter(|(_, key)| wanted.contains(&key.id()))
        .map(|(role, key)| key.dnskey_rdata(role.flags()))
        .collect();
    rdatas.sort();
    for rdata in rdatas {
        tbs.extend(apex);
        tbs.extend([0, 48, 0, 1]);
        tbs.extend(ttl_s.to_be_bytes());
        tbs.extend((rdata.len() as u16).to_be_bytes());
        tbs.extend(rdata);
    }
    tbs
}
