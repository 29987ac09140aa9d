//! TSIG: what anyone can send to a listener, and what someone in the middle can make of an answer.
//!
//! The first octet says what the rest is: a request, a stream of answers to a fixed request, or changes
//! to a request, and to a stream, that were well signed.

#![no_main]

use countersign_fuzz::tsig::{NOW, answers, key, query, signed_request, stream};
use countersign_signer::tsig::{Answers, Opening, open};
use countersign_signer::wire::framing::Deframer;
use countersign_signer::wire::{Message, Section, types};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 4 {
        0 => request(rest),
        1 => drop(read(answers(), rest)),
        2 => changed_request(rest),
        _ => changed_stream(rest),
    }
});

/// A TSIG is found wherever it stands, and a message that is taken apart without one is unsigned.
fn request(octets: &[u8]) {
    let opening = open(octets, |_| Some(key()), NOW);
    if let Ok(message) = Message::parse(octets) {
        let sections = [Section::Answer, Section::Authority, Section::Additional];
        let has_tsig = sections
            .into_iter()
            .any(|section| message.section(section).any(|record| record.rtype == types::TSIG));
        assert_eq!(has_tsig, !matches!(opening, Opening::Unsigned));
    }
    if let Opening::Signed(signed) = opening {
        assert!(signed.octets.len() + signed.session.record_bytes() >= octets.len());
    }
}

/// The messages of a stream as far as they are believed, and whether they are to the end.
fn read(mut chain: Answers, octets: &[u8]) -> Result<Vec<Vec<u8>>, ()> {
    let mut deframer = Deframer::new();
    deframer.feed(octets);
    let mut believed = Vec::new();
    while let Some(message) = deframer.take() {
        believed.push(chain.take(message, NOW).map_err(drop)?.into_owned());
    }
    chain.finish().map_err(drop)?;
    Ok(believed)
}

/// Pairs of a place and what it is changed by.
fn change(octets: &mut [u8], changes: &[u8]) {
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % octets.len();
        octets[at] ^= change[2];
    }
}

/// The id is the transport's, and names in the record have no case; nothing else may differ.
fn changed_request(changes: &[u8]) {
    let good = signed_request();
    let mut octets = good.clone();
    change(&mut octets, changes);
    let known = |name: &[u8]| (*name == *key().wire_name()).then(key);
    if let Opening::Signed(signed) = open(&octets, known, NOW) {
        assert!(octets[2..].eq_ignore_ascii_case(&good[2..]));
        assert_eq!(signed.octets[2..], query()[2..]);
    }
}

/// Whatever is believed to the end is what was sent, but for ids.
fn changed_stream(changes: &[u8]) {
    let (good, plain) = stream();
    let mut octets = good.clone();
    change(&mut octets, changes);
    if let Ok(believed) = read(answers(), &octets) {
        let sent: Vec<&[u8]> = plain.iter().map(|message| &message[2..]).collect();
        let got: Vec<&[u8]> = believed.iter().map(|message| &message[2..]).collect();
        // Fewer whole messages are a stream that goes on: what waits for its end sees to that.
        assert!(sent.starts_with(&got));
    }
}
