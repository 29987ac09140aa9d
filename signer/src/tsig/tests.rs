use std::borrow::Cow;
use std::sync::Arc;

use super::record::find;
use super::*;
use crate::wire::{
    CLASS_IN, Flags, Header, Message, MessageWriter, OPCODE_QUERY, rcode, request, types,
};

const NOW: u64 = 1_800_000_000;

fn key_of(name: &str, algorithm: Algorithm, secret: &[u8]) -> Arc<Key> {
    Arc::new(Key::new(name.parse().expect("name"), algorithm, secret).expect("key"))
}

fn key() -> Arc<Key> {
    key_of("Key.Test.", Algorithm::HmacSha256, &[7; 32])
}

fn query() -> Vec<u8> {
    request(7, OPCODE_QUERY, 0, b"\x01a\x04test\x00", types::AXFR)
}

fn answer(number: u8) -> Vec<u8> {
    let flags = Flags(Flags::QR | Flags::AA);
    let mut writer = MessageWriter::new(Header { id: 7, flags }, 4096);
    writer.question(b"\x01a\x04test\x00", types::AXFR, CLASS_IN).expect("room");
    writer.answer(b"\x01a\x04test\x00", 16, CLASS_IN, 60, &[1, number]).expect("room");
    writer.opt(1232).expect("room");
    writer.finish()
}

fn signed(request: &[u8], key: &Arc<Key>, now_s: u64) -> (Vec<u8>, Answers) {
    let mut request = request.to_vec();
    let answers = sign_request(key, &mut request, now_s);
    (request, answers)
}

fn opened(request: &[u8], now_s: u64) -> Result<Signed, Refused> {
    match open(request, |name| (name == b"\x03key\x04test\x00").then(key), now_s) {
        Opening::Signed(signed) => Ok(signed),
        Opening::Refused(refused) => Err(*refused),
        Opening::Unsigned => panic!("signed"),
    }
}

/// A request, and this many answers to it, each signed.
fn stream(count: u8) -> (Vec<Vec<u8>>, Answers) {
    let (request, answers) = signed(&query(), &key(), NOW);
    let mut session = opened(&request, NOW).expect("good").session;
    let sent = (0..count).map(|number| {
        let mut message = answer(number);
        let bare = message.len();
        session.sign(&mut message, NOW + u64::from(number));
        assert_eq!(message.len(), bare + session.record_bytes());
        message
    });
    (sent.collect(), answers)
}

fn read(messages: &[Vec<u8>], mut answers: Answers) -> Result<Vec<Vec<u8>>, AnswerError> {
    let mut read = Vec::new();
    for message in messages {
        read.push(answers.take(message, NOW).map(Cow::into_owned)?);
    }
    answers.finish()?;
    Ok(read)
}

#[test]
fn what_is_signed_is_what_comes_out() {
    for algorithm in [Algorithm::HmacSha256, Algorithm::HmacSha384, Algorithm::HmacSha512] {
        let key = key_of("k.", algorithm, b"a secret of sufficient length");
        let (request, answers) = signed(&query(), &key, NOW);
        assert_eq!(request.len(), query().len() + key.record_bytes());
        let Opening::Signed(mut found) = open(&request, |_| Some(key.clone()), NOW) else {
            panic!("refused")
        };
        assert_eq!(found.octets, query());
        let mut sent = [answer(1), answer(2), answer(3)];
        for message in &mut sent {
            found.session.sign(message, NOW);
        }
        assert_eq!(read(&sent, answers), Ok(vec![answer(1), answer(2), answer(3)]));
    }
}

#[test]
fn what_has_no_tsig_is_unsigned() {
    assert!(matches!(open(&query(), |_| panic!("no name"), NOW), Opening::Unsigned));
}

#[test]
fn a_key_is_its_name_in_any_case_and_its_algorithm() {
    // As others write it: names in their own case, digested in lower case.
    let (mut request, _) = signed(&query(), &key(), NOW);
    let at = query().len();
    request[at + 1..at + 4].make_ascii_uppercase();
    let algorithm = at + 10 + 10;
    request[algorithm + 1..algorithm + 5].make_ascii_uppercase();
    opened(&request, NOW).expect("the same key");
    for other in [
        key_of("other.test", Algorithm::HmacSha256, &[7; 32]),
        key_of("key.test", Algorithm::HmacSha512, &[7; 32]),
    ] {
        let (request, answers) = signed(&query(), &other, NOW);
        let refused = opened(&request, NOW).expect_err("unknown");
        assert_eq!(refused.reason, Reason::UnknownKey);
        refusal(&refused, &request, rcode::NOTAUTH, Some((error::BADKEY, 0)));
        let told = read(&[refused.answer], answers).expect_err("BADKEY");
        assert!(matches!(told, AnswerError::Refused { error: error::BADKEY, .. }), "{told}");
    }
}

/// The answer that a request got: code, and error and MAC of its TSIG.
fn refusal(refused: &Refused, request: &[u8], code: u8, tsig: Option<(u16, usize)>) {
    let message = Message::parse(&refused.answer).expect("a message");
    assert_eq!(message.header().id, 7);
    assert_eq!(message.header().flags.rcode(), code);
    assert!(message.question().is_some());
    let found = find(&refused.answer).expect("readable").map(|found| found.tsig);
    assert_eq!(found.as_ref().map(|tsig| (tsig.error, tsig.mac.len())), tsig);
    if tsig.is_none_or(|(_, mac)| mac == 0) {
        assert!(refused.answer.len() <= request.len(), "no amplifier");
    }
}

#[test]
fn another_secret_is_a_bad_signature() {
    let other = key_of("key.test", Algorithm::HmacSha256, &[8; 32]);
    let (request, answers) = signed(&query(), &other, NOW);
    let refused = opened(&request, NOW).expect_err("another secret");
    assert_eq!(refused.reason, Reason::BadSignature);
    refusal(&refused, &request, rcode::NOTAUTH, Some((error::BADSIG, 0)));
    let told = read(&[refused.answer], answers).expect_err("BADSIG");
    assert!(told.to_string().contains("BADSIG, its secret for this key is another"), "{told}");
}

#[test]
fn every_octet_counts() {
    let (request, _) = signed(&query(), &key(), NOW);
    for at in 0..request.len() {
        let mut altered = request.clone();
        altered[at] ^= 0x11;
        // The id is the transport's: the first one stands in the record. The case of names too.
        let same = at < 2 && opened(&altered, NOW).is_ok();
        assert!(same || opened_or_not(&altered).is_none(), "octet {at}");
    }
    let (sent, _) = stream(2);
    for number in 0..2 {
        for at in 2..sent[number].len() {
            let (_, answers) = stream(2);
            let mut altered = sent.clone();
            altered[number][at] ^= 0x11;
            read(&altered, answers).expect_err("altered");
        }
    }
}

fn opened_or_not(request: &[u8]) -> Option<Signed> {
    match open(request, |name| (name == b"\x03key\x04test\x00").then(key), NOW) {
        Opening::Signed(signed) => Some(signed),
        _ => None,
    }
}

#[test]
fn the_window_is_five_minutes_whatever_the_sender_says() {
    let (request, _) = signed(&query(), &key(), NOW);
    for (now_s, good) in
        [(NOW - 300, true), (NOW + 300, true), (NOW - 301, false), (NOW + 301, false), (0, false)]
    {
        let found = opened(&request, now_s);
        assert_eq!(found.is_ok(), good, "{now_s}");
        if let Err(refused) = found {
            assert_eq!(refused.reason, Reason::Time { signed_s: NOW, now_s, fudge_s: 300 });
            refusal(&refused, &request, rcode::NOTAUTH, Some((error::BADTIME, 32)));
            let (_, answers) = signed(&query(), &key(), NOW);
            let told = read(&[refused.answer], answers).expect_err("BADTIME");
            assert_eq!(told, AnswerError::TheirTime { theirs_s: now_s, ours_s: NOW });
        }
    }
    assert!(!in_window(NOW, 10, NOW + 11));
    assert!(!in_window(NOW, u16::MAX, NOW + 301));
    // Answers too.
    let (sent, mut answers) = stream(1);
    let late = answers.take(&sent[0], NOW + 301).expect_err("late");
    assert!(matches!(late, AnswerError::Time { signed_s: NOW, .. }), "{late}");
}

/// Cuts the MAC of a signed message, and says in its record that it was cut.
fn cut(message: &[u8], mac_bytes: usize) -> Vec<u8> {
    let mut found = find(message).expect("readable").expect("signed");
    let mut out = found.strip(message);
    found.tsig.mac = found.tsig.mac[..mac_bytes].into();
    record::append(&mut out, &found.tsig);
    out
}

#[test]
fn a_mac_may_be_cut_to_half_and_no_further() {
    let (request, _) = signed(&query(), &key(), NOW);
    for mac_bytes in [16, 17, 31, 32] {
        opened(&cut(&request, mac_bytes), NOW).expect("long enough");
    }
    for mac_bytes in [0, 1, 9, 10, 15] {
        let refused = opened(&cut(&request, mac_bytes), NOW).expect_err("too short");
        assert_eq!(refused.reason, Reason::MacLength { octets: mac_bytes, least: 16, most: 32 });
        refusal(&refused, &request, rcode::FORMERR, None);
    }
    let mut long = find(&request).expect("readable").expect("signed");
    let mut octets = long.strip(&request);
    long.tsig.mac = [&*long.tsig.mac, &[0]].concat().into();
    record::append(&mut octets, &long.tsig);
    let refused = opened(&octets, NOW).expect_err("too long");
    assert!(matches!(refused.reason, Reason::MacLength { octets: 33, .. }));

    // Answers: the MAC that the next one is bound to is the one that was sent, cut as it was.
    let (sent, answers) = stream(1);
    assert!(read(&[cut(&sent[0], 16)], answers).is_ok());
    let (sent, answers) = stream(2);
    let refused = read(&[cut(&sent[0], 16), sent[1].clone()], answers).expect_err("chain");
    assert!(matches!(refused, AnswerError::BadSignature { number: 2, .. }), "{refused}");
    let (sent, answers) = stream(1);
    let refused = read(&[cut(&sent[0], 15)], answers).expect_err("too short");
    assert!(matches!(refused, AnswerError::MacLength { octets: 15, .. }), "{refused}");
}

#[test]
fn a_chain_is_whole_or_nothing() {
    let text = |messages: &[Vec<u8>]| {
        let (_, answers) = stream(4);
        read(messages, answers).expect_err("broken").to_string()
    };
    let (sent, answers) = stream(4);
    assert_eq!(read(&sent, answers).expect("whole").len(), 4);
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| sent[i].clone());
    // Left out, reordered, sent twice, of another exchange, begun in the middle.
    assert!(text(&[a.clone(), c.clone(), d.clone()]).contains("answer 2 has a wrong MAC"));
    assert!(text(&[a.clone(), c.clone(), b.clone(), d]).contains("answer 2 has a wrong MAC"));
    assert!(text(&[a.clone(), a.clone()]).contains("answer 2 has a wrong MAC"));
    assert!(text(&[b.clone(), c]).contains("answer 1 has a wrong MAC"));
    let (request, _) = signed(&query(), &key(), NOW + 1);
    let mut other = opened(&request, NOW).expect("good").session;
    let mut foreign = answer(0);
    other.sign(&mut foreign, NOW);
    assert!(text(&[foreign]).contains("answer 1 has a wrong MAC"));
    // Not signed at all, or no more.
    assert!(text(&[answer(0)]).contains("answer 1 (NOERROR) is not signed"));
    assert!(text(&[a.clone(), answer(1), answer(2)]).contains("last 2 messages"));
    assert!(text(&[a, answer(1), b]).contains("answer 3 has a wrong MAC"));
    assert!(text(&[]).contains("last 0 messages"));
}

/// What older servers send: only some messages of a stream are signed.
fn sparse(total: u32, signed_at: impl Fn(u32) -> bool) -> (Vec<Vec<u8>>, Answers) {
    let (request, answers) = signed(&query(), &key(), NOW);
    let key = key();
    let mac_of = |message: &[u8]| find(message).expect("readable").expect("signed").tsig.mac;
    let mut prior = mac_of(&request);
    let mut pending = Vec::new();
    let mut sent = Vec::new();
    for number in 0..total {
        let mut message = answer(number as u8);
        pending.extend_from_slice(&message);
        if signed_at(number) {
            let mut tsig = find(&request).expect("readable").expect("signed").tsig;
            let mut digest = key::Digest::new(&key);
            digest.prior_mac(&prior);
            digest.plain(&pending);
            if number == 0 {
                digest.variables(&key, &tsig);
            } else {
                digest.timers(&tsig);
            }
            tsig.mac = digest.mac();
            record::append(&mut message, &tsig);
            prior = tsig.mac;
            pending.clear();
        }
        sent.push(message);
    }
    (sent, answers)
}

#[test]
fn up_to_99_messages_may_stand_between_two_signatures() {
    let (sent, answers) = sparse(101, |number| number == 0 || number == 100);
    assert_eq!(read(&sent, answers).expect("99 between").len(), 101);
    let (sent, answers) = sparse(201, |number| number % 100 == 0);
    assert_eq!(read(&sent, answers).expect("twice 99").len(), 201);
    let (sent, answers) = sparse(102, |number| number == 0 || number == 101);
    assert_eq!(read(&sent, answers), Err(AnswerError::TooManyUnsigned));
    // One of the unsigned ones is altered, left out, or stands elsewhere.
    for change in [
        |sent: &mut Vec<Vec<u8>>| sent[1][40] ^= 1,
        |sent: &mut Vec<Vec<u8>>| drop(sent.remove(1)),
        |sent: &mut Vec<Vec<u8>>| sent.swap(1, 2),
    ] {
        let (mut sent, answers) = sparse(4, |number| number == 0 || number == 3);
        change(&mut sent);
        let refused = read(&sent, answers).expect_err("altered");
        assert!(matches!(refused, AnswerError::BadSignature { .. }), "{refused}");
    }
}

#[test]
fn an_answer_with_another_key_is_refused() {
    let other = key_of("other.", Algorithm::HmacSha256, &[7; 32]);
    let (request, _) = signed(&query(), &other, NOW);
    let Opening::Signed(mut found) = open(&request, |_| Some(other.clone()), NOW) else {
        panic!("good")
    };
    let mut foreign = answer(0);
    found.session.sign(&mut foreign, NOW);
    let (_, answers) = stream(1);
    let refused = read(&[foreign], answers).expect_err("other key");
    assert!(matches!(refused, AnswerError::OtherKey { number: 1, .. }), "{refused}");
}

#[test]
fn a_tsig_that_stands_elsewhere_or_does_not_add_up_is_malformed() {
    let (request, _) = signed(&query(), &key(), NOW);
    let (start, end) = (query().len(), request.len());
    let malformed = |octets: &[u8]| match opened(octets, NOW) {
        Err(Refused { reason: Reason::Malformed(malformed), answer, .. }) => {
            assert_eq!(answer[3] & 15, rcode::FORMERR);
            malformed
        }
        other => panic!("{other:?}"),
    };
    // A record behind it, and the record twice.
    let mut behind = request.clone();
    behind.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    behind[11] = 2;
    assert_eq!(malformed(&behind), Malformed::Misplaced { at: start });
    let mut twice = request.clone();
    twice.extend_from_slice(&request[start..]);
    twice[11] = 2;
    assert_eq!(malformed(&twice), Malformed::Misplaced { at: start });
    // In the answer section.
    let mut answered = request.clone();
    answered.swap(7, 11);
    assert_eq!(malformed(&answered), Malformed::Misplaced { at: start });
    let class = start + 10 + 2;
    let mut other_class = request.clone();
    other_class[class..class + 2].copy_from_slice(&[0, 1]);
    assert_eq!(malformed(&other_class), Malformed::ClassOrTtl { class: 1, ttl: 0 });
    let mut ttl = request.clone();
    ttl[class + 5] = 9;
    assert_eq!(malformed(&ttl), Malformed::ClassOrTtl { class: 255, ttl: 9 });
    let mut pointer = request.clone();
    let algorithm = start + 20;
    pointer[algorithm..algorithm + 2].copy_from_slice(&[0xc0, 12]);
    assert_eq!(malformed(&pointer), Malformed::Rdata);
    let mut mac_size = request.clone();
    mac_size[algorithm + 13 + 8] = 1;
    assert_eq!(malformed(&mac_size), Malformed::Rdata);
    let trailing = [&request[..], &[0]].concat();
    assert_eq!(malformed(&trailing), Malformed::Message { at: end });
    for len in 12..end {
        assert!(matches!(malformed(&request[..len]), Malformed::Message { .. }), "{len}");
    }
}

/// The owner may be compressed, though nobody should: the digest has the whole name.
#[test]
fn a_compressed_key_name_is_read() {
    let key = key_of("a.test", Algorithm::HmacSha256, &[7; 32]);
    let (request, _) = signed(&query(), &key, NOW);
    let start = query().len();
    let packed = [&request[..start], &[0xc0, 12], &request[start + 8..]].concat();
    assert!(matches!(open(&packed, |_| Some(key.clone()), NOW), Opening::Signed(_)));
    // A refusal does not grow beyond the request, even so.
    let Opening::Refused(refused) = open(&packed, |_| None, NOW) else { panic!("unknown") };
    assert!(refused.answer.len() <= packed.len());
}

#[test]
fn nothing_shows_a_secret() {
    let key = key_of("k.", Algorithm::HmacSha256, b"SECRETSECRETSECRET");
    let (mut request, answers) = signed(&query(), &key, NOW);
    let Opening::Signed(found) = open(&request, |_| Some(key.clone()), NOW) else { panic!("good") };
    request.clear();
    let shown = format!("{key:?} {answers:?} {found:?}");
    assert!(!shown.contains("SECRET"), "{shown}");
    let short = Key::new("k.".parse().expect("name"), Algorithm::HmacSha512, b"SECRETSECRET!!!");
    let text = short.expect_err("15 octets").to_string();
    assert!(text.contains("15 octets") && text.contains("openssl rand -base64 64"), "{text}");
}

#[test]
fn keys_are_compared_by_all_that_they_are() {
    let a = key();
    assert!(a.same_as(&key()));
    assert!(!a.same_as(&key_of("key.test", Algorithm::HmacSha256, &[8; 32])));
    assert!(!a.same_as(&key_of("key.test", Algorithm::HmacSha384, &[7; 32])));
    assert!(!a.same_as(&key_of("other.test", Algorithm::HmacSha256, &[7; 32])));
}

proptest::proptest! {
    /// Whatever comes is judged, and what is not signed by the key is not taken.
    #[test]
    fn any_octets_are_judged(octets in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let opening = open(&octets, |_| Some(key()), NOW);
        proptest::prop_assert!(!matches!(opening, Opening::Signed(_)));
        let (_, mut answers) = signed(&query(), &key(), NOW);
        proptest::prop_assert!(answers.take(&octets, NOW).is_err());
    }

    /// A message with its TSIG cut or mangled anywhere.
    #[test]
    fn mangled_records_are_judged(
        at in 0usize..200,
        octets in proptest::collection::vec(proptest::num::u8::ANY, 0..20),
    ) {
        let (mut request, _) = signed(&query(), &key(), NOW);
        let at = at % request.len();
        let end = (at + octets.len()).min(request.len());
        let before = request.clone();
        request[at..end].copy_from_slice(&octets[..end - at]);
        if opened_or_not(&request).is_some() {
            proptest::prop_assert!(request[2..].eq_ignore_ascii_case(&before[2..]));
        }
    }
}
