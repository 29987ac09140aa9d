//! A key, a request signed with it, and a stream that answers it: the same each time.

use std::sync::Arc;

use countersign_signer::tsig::{Algorithm, Answers, Key, Opening, open, sign_request};
use countersign_signer::wire::{
    CLASS_IN, Flags, Header, MessageWriter, OPCODE_QUERY, request, types,
};

/// Every clock here.
pub const NOW: u64 = 1_800_000_000;

/// The shared key.
pub fn key() -> Arc<Key> {
    let name = "fuzz.key.".parse().expect("name");
    Arc::new(Key::new(name, Algorithm::HmacSha256, &[7; 32]).expect("key"))
}

/// A transfer query.
pub fn query() -> Vec<u8> {
    request(0x1234, OPCODE_QUERY, 0, crate::APEX, types::AXFR)
}

/// The query, signed.
pub fn signed_request() -> Vec<u8> {
    let mut octets = query();
    sign_request(&key(), &mut octets, NOW);
    octets
}

/// What checks the answers to it.
pub fn answers() -> Answers {
    sign_request(&key(), &mut query(), NOW)
}

/// Three answers to it, signed, with their lengths; and what was signed.
pub fn stream() -> (Vec<u8>, Vec<Vec<u8>>) {
    let Opening::Signed(mut opened) = open(&signed_request(), |_| Some(key()), NOW) else {
        unreachable!("well signed")
    };
    let (mut octets, mut plain) = (Vec::new(), Vec::new());
    for number in 0..3 {
        let flags = Flags(Flags::QR | Flags::AA);
        let mut writer = MessageWriter::new(Header { id: 0x1234, flags }, 4096);
        writer.question(crate::APEX, types::AXFR, CLASS_IN).expect("room");
        writer.answer(crate::APEX, 16, CLASS_IN, 60, &[1, number]).expect("room");
        let mut message = writer.finish();
        plain.push(message.clone());
        opened.session.sign(&mut message, NOW);
        octets.extend_from_slice(&(message.len() as u16).to_be_bytes());
        octets.extend_from_slice(&message);
    }
    (octets, plain)
}

/// Seeds, by name.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let of = |kind: u8, rest: &[u8]| [&[kind], rest].concat();
    vec![
        ("request", of(0, &signed_request())),
        ("unsigned-request", of(0, &query())),
        ("stream", of(1, &stream().0)),
        ("request-unchanged", of(2, &[])),
        ("request-id", of(2, &[0, 0, 1])),
        ("request-mac", of(2, &[0, 100, 1])),
        ("stream-unchanged", of(3, &[])),
        ("stream-length", of(3, &[0, 1, 1])),
    ]
}
