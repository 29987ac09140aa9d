//! The `domain` crate, which shares no code with this, signs what is checked here and checks what is
//! signed here: random messages, random lengths of the stream.

use std::sync::Arc;

use domain::base::iana::{Class, Rtype};
use domain::base::message_builder::AdditionalBuilder;
use domain::base::{Message, MessageBuilder, Name, Record, Ttl, UnknownRecordData};
use domain::rdata::tsig::Time48;
use domain::tsig::{self as theirs, ClientSequence, KeyName, ServerSequence};
use proptest::prelude::*;

use super::{Algorithm, Answers, Key, Opening, open, sign_request};

const NOW: u64 = 1_800_000_000;

/// A message's id, and the RDATA of its records.
type Plain = (u16, Vec<Vec<u8>>);

fn plain() -> impl Strategy<Value = Plain> {
    let rdata = prop::collection::vec(any::<u8>(), 0..60);
    (any::<u16>(), prop::collection::vec(rdata, 0..6))
}

fn built((id, rdatas): &Plain) -> AdditionalBuilder<Vec<u8>> {
    let name: Name<Vec<u8>> = "Host.example".parse().expect("name");
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(*id);
    let mut question = builder.question();
    question.push((&name, Rtype::AXFR)).expect("room");
    let mut answer = question.answer();
    for rdata in rdatas {
        let data = UnknownRecordData::from_octets(Rtype::from_int(65_280), rdata).expect("short");
        answer.push(Record::new(&name, Class::IN, Ttl::from_secs(60), data)).expect("room");
    }
    answer.additional()
}

fn octets(plain: &Plain) -> Vec<u8> {
    built(plain).into_message().into_octets()
}

fn keys(algorithm: Algorithm, secret: &[u8]) -> (Arc<Key>, Arc<theirs::Key>) {
    let of_theirs = match algorithm {
        Algorithm::HmacSha256 => theirs::Algorithm::Sha256,
        Algorithm::HmacSha384 => theirs::Algorithm::Sha384,
        Algorithm::HmacSha512 => theirs::Algorithm::Sha512,
    };
    let name: KeyName = "Transfer.Key".parse().expect("name");
    let theirs = theirs::Key::new(of_theirs, secret, name, None, None).expect("key");
    let ours = Key::new("transfer.key.".parse().expect("name"), algorithm, secret).expect("key");
    (Arc::new(ours), Arc::new(theirs))
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop_oneof![
        Just(Algorithm::HmacSha256),
        Just(Algorithm::HmacSha384),
        Just(Algorithm::HmacSha512)
    ]
}

fn time(seconds: u64) -> Time48 {
    Time48::from_u64(seconds)
}

proptest! {
    #[test]
    fn they_believe_what_is_signed_here(
        algorithm in algorithm(),
        secret in prop::collection::vec(any::<u8>(), 16..150),
        request in plain(),
        answers in prop::collection::vec(plain(), 1..12),
    ) {
        let (ours, theirs) = keys(algorithm, &secret);
        // Our request, their server.
        let mut sent = octets(&request);
        sign_request(&ours, &mut sent, NOW);
        let mut sent = Message::from_octets(sent).expect("message");
        let known = ServerSequence::request(&theirs, &mut sent, time(NOW + 299));
        prop_assert!(matches!(known, Ok(Some(_))));
        // They lower the count, and leave the octets where they are.
        let bare = octets(&request);
        prop_assert_eq!(&sent.into_octets()[..bare.len()], &bare);

        // Their request, our server, their client.
        let mut asked = built(&request);
        let mut client =
            ClientSequence::request(theirs, &mut asked, time(NOW)).expect("room");
        let asked = asked.into_message().into_octets();
        let Opening::Signed(mut found) = open(&asked, |_| Some(ours.clone()), NOW) else {
            return Err(TestCaseError::fail("not believed here"));
        };
        prop_assert_eq!(&found.octets, &octets(&request));
        for (number, answer) in answers.iter().enumerate() {
            let answer = octets(&(request.0, answer.1.clone()));
            let mut signed = answer.clone();
            signed[2] |= 0x80;
            let expect = signed.clone();
            found.session.sign(&mut signed, NOW + number as u64);
            let mut signed = Message::from_octets(signed).expect("message");
            prop_assert!(client.answer(&mut signed, time(NOW)).is_ok(), "answer {}", number);
            prop_assert_eq!(&signed.into_octets()[..expect.len()], &expect);
        }
        prop_assert!(client.done().is_ok());
    }

    #[test]
    fn what_they_sign_is_believed_here(
        algorithm in algorithm(),
        secret in prop::collection::vec(any::<u8>(), 16..150),
        request in plain(),
        answers in prop::collection::vec(plain(), 1..12),
        altered in any::<prop::sample::Index>(),
        octet in any::<prop::sample::Index>(),
    ) {
        let (ours, theirs) = keys(algorithm, &secret);
        let mut sent = octets(&request);
        let chain = sign_request(&ours, &mut sent, NOW);
        let mut sent = Message::from_octets(sent).expect("message");
        let server = ServerSequence::request(&theirs, &mut sent, time(NOW));
        let Ok(Some(mut server)) = server else {
            return Err(TestCaseError::fail("not believed there"));
        };
        let mut signed = Vec::new();
        for answer in &answers {
            let mut builder = built(answer);
            server.answer(&mut builder, time(NOW + 7)).expect("room");
            signed.push(builder.into_message().into_octets());
        }
        let all = check(chain, &signed).map_err(TestCaseError::fail)?;
        prop_assert_eq!(&all, &answers.iter().map(octets).collect::<Vec<_>>());

        // One octet of one of them, but for its id.
        let mut sent = octets(&request);
        let chain = sign_request(&ours, &mut sent, NOW);
        let message = &mut signed[altered.index(answers.len())];
        let at = 2 + octet.index(message.len() - 2);
        message[at] ^= 0x20;
        let believed = check(chain, &signed);
        // Bit 0x20 of a letter is its case, which names in a TSIG have none of.
        prop_assert!(believed.is_err() || believed == Ok(all));
    }
}

fn check(mut chain: Answers, messages: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, String> {
    let mut all = Vec::new();
    for message in messages {
        let message = chain.take(message, NOW + 9).map_err(|error| error.to_string())?;
        all.push(message.into_owned());
    }
    chain.finish().map_err(|error| error.to_string())?;
    Ok(all)
}
