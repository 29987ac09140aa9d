use std::sync::Arc;

use rcgen::ExtendedKeyUsagePurpose;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;
use crate::outbound::{Messages, records};
use crate::peers::IdentityRule;
use crate::published::testing::{soa, version, zone_name};
use crate::tls::testing::{BOTH, Leaf, NOW, Pki};
use crate::tls::{ALPN_DOT, Acceptor};
use crate::wire::framing::Deframer;
use crate::wire::{
    CLASS_IN, Flags, Header, MESSAGE_BYTES_MAX, Message, MessageWriter, framing, request,
};

const BOUNDS: Bounds = Bounds { records_max: 10_000, bytes_max: 1 << 20 };
const ID: u16 = 7;
const OK: u16 = Flags::QR | Flags::AA;

fn zone() -> ZoneName {
    zone_name("a.test")
}

/// A record of an answer: owner, type, RDATA.
type Rr = (Vec<u8>, u16, Vec<u8>);

fn soa_rr(serial: u32) -> Rr {
    (zone().as_wire().to_vec(), types::SOA, soa(&zone(), serial))
}

fn a_rr(label: &str) -> Rr {
    let owner = [&[label.len() as u8], label.as_bytes(), zone().as_wire()].concat();
    (owner, 1, vec![192, 0, 2, 1])
}

fn message(id: u16, flags: u16, qname: Option<&str>, records: &[Rr]) -> Vec<u8> {
    let mut writer = MessageWriter::new(Header { id, flags: Flags(flags) }, MESSAGE_BYTES_MAX);
    if let Some(qname) = qname {
        writer.question(zone_name(qname).as_wire(), types::AXFR, CLASS_IN).expect("room");
    }
    for (owner, rtype, rdata) in records {
        writer.answer(owner, *rtype, CLASS_IN, 60, rdata).expect("room");
    }
    writer.finish()
}

fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = Vec::new();
    for message in messages {
        stream.extend_from_slice(&u16::try_from(message.len()).expect("short").to_be_bytes());
        stream.extend_from_slice(message);
    }
    stream
}

fn check(messages: &[Vec<u8>], expect: Result<u32, &str>) {
    let found = assemble_stream(&framed(messages), &zone(), ID, BOUNDS);
    match (found, expect) {
        (Ok(found), Ok(serial)) => assert_eq!(found.serial, serial),
        (Err(found), Err(text)) => {
            assert!(found.to_string().contains(text), "{found}, expected {text}");
        }
        (found, expect) => panic!("{found:?}, expected {expect:?}"),
    }
}

#[test]
fn a_transfer_is_from_soa_to_the_same_soa() {
    let q = Some("A.test");
    let all = [soa_rr(1), a_rr("x"), soa_rr(1)];
    check(&[message(ID, OK, q, &all)], Ok(1));
    check(&[message(ID, OK, q, &all[..1]), message(ID, OK, None, &all[1..])], Ok(1));
    check(&[message(ID, OK, q, &all[..2]), message(ID, OK, q, &all[2..])], Ok(1));
    // Knot does not say that it is authoritative.
    check(&[message(ID, Flags::QR, q, &all)], Ok(1));
    let mut other_case = soa_rr(1);
    other_case.0.make_ascii_uppercase();
    other_case.2[1..3].make_ascii_uppercase();
    check(&[message(ID, OK, q, &[soa_rr(1), a_rr("x"), other_case])], Ok(1));
}

#[test]
fn what_is_no_transfer_is_refused_by_its_name() {
    let q = Some("a.test");
    let all = [soa_rr(1), a_rr("x"), soa_rr(1)];
    let one = |id, flags, qname| [message(id, flags, qname, &all)];
    check(&one(8, OK, q), Err("id 8, expected 7"));
    check(&one(ID, Flags::AA, q), Err("not the answer to a query"));
    check(&one(ID, OK | 4 << 11, q), Err("not the answer to a query"));
    check(&one(ID, OK | Flags::TC, q), Err("truncated"));
    check(&[message(ID, OK | 5, q, &[])], Err("REFUSED"));
    check(&one(ID, OK, Some("b.test")), Err("another question than a.test."));
    check(&one(ID, OK, None), Err("another question"));
    check(&[message(ID, OK, q, &all[1..])], Err("begins with a record of type 1"));
    check(&[message(ID, OK, q, &all[..2])], Err("after 2 records without the closing SOA"));
    check(
        &[message(ID, OK, q, &[soa_rr(1), a_rr("x"), soa_rr(2)])],
        Err("serial 1 and ends in another SOA, with serial 2"),
    );
    check(
        &[message(ID, OK, q, &[soa_rr(1), soa_rr(1), a_rr("x")])],
        Err("1 records behind the closing SOA"),
    );
    check(&[message(ID, OK, q, &all), message(ID, OK, None, &all)], Err("octets behind the end"));
    check(
        &[message(ID, OK, q, &all[..2]), message(ID, OK, None, &[])],
        Err("message 2 of the transfer has no record"),
    );
    check(
        &[message(ID, OK, q, &all[..2]), message(ID, OK, Some("b.test"), &all[2..])],
        Err("another question"),
    );
    check(&[vec![0; 5]], Err("not a DNS message"));
    let outside = (zone_name("b.test").as_wire().to_vec(), 1, vec![1, 2, 3, 4]);
    check(&[message(ID, OK, q, &[soa_rr(1), outside, soa_rr(1)])], Err("b.test."));
}

#[test]
fn stray_sections_are_refused() {
    let mut writer = MessageWriter::new(Header { id: ID, flags: Flags(OK) }, 4096);
    writer.question(zone().as_wire(), types::AXFR, CLASS_IN).expect("room");
    let (owner, rtype, rdata) = soa_rr(1);
    for _ in 0..2 {
        writer.answer(&owner, rtype, CLASS_IN, 60, &rdata).expect("room");
    }
    writer.authority(&owner, 2, CLASS_IN, 60, &owner).expect("room");
    check(&[writer.finish()], Err("type 2 outside its answer section"));
}

#[test]
fn a_zone_has_bounds() {
    let stream = |hosts| {
        let version = version("a.test", 3, hosts);
        let query = request(ID, OPCODE_QUERY, 0, zone().as_wire(), types::AXFR);
        let query = Message::parse(&query).expect("query");
        let messages: Vec<_> =
            Messages::new(&query, records(&version)).map(|m| m.expect("fits")).collect();
        framed(&messages)
    };
    // Seven records at the apex beside the SOA, two for each host.
    let fetch = |records_max, bytes_max| {
        assemble_stream(&stream(100), &zone(), ID, Bounds { records_max, bytes_max }).map(|_| ())
    };
    fetch(208, 1 << 20).expect("within");
    let refused = fetch(207, 1 << 20).expect_err("records");
    assert!(matches!(refused, AnswerError::Refused(_)), "{refused}");
    let refused = fetch(208, 1000).expect_err("octets");
    assert!(matches!(refused, AnswerError::Refused(_)), "{refused}");
}

#[test]
fn the_answer_to_a_soa_query() {
    let answer_with = |flags, rrs: &[Rr], qtype| {
        let mut writer = MessageWriter::new(Header { id: ID, flags: Flags(flags) }, 4096);
        writer.question(zone().as_wire(), qtype, CLASS_IN).expect("room");
        for (owner, rtype, rdata) in rrs {
            writer.answer(owner, *rtype, CLASS_IN, 60, rdata).expect("room");
        }
        soa_serial(&writer.finish(), &zone(), ID)
    };
    let answer = |rrs: &[Rr], qtype| answer_with(OK, rrs, qtype);
    let hearsay = answer_with(Flags::QR, &[soa_rr(5)], types::SOA);
    assert_eq!(hearsay, Err(AnswerError::NotAuthoritative));
    assert_eq!(answer(&[soa_rr(5)], types::SOA), Ok(5));
    assert_eq!(answer(&[], types::SOA), Err(AnswerError::NoSoa { zone: zone() }));
    assert_eq!(
        answer(&[soa_rr(5), soa_rr(6)], types::SOA),
        Err(AnswerError::NoSoa { zone: zone() })
    );
    assert!(matches!(answer(&[soa_rr(5)], types::AXFR), Err(AnswerError::WrongQuestion { .. })));
}

proptest::proptest! {
    /// Whatever a primary sends is a zone or an error.
    #[test]
    fn any_stream_is_judged(octets in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        let _ = assemble_stream(&octets, &zone(), ID, BOUNDS);
    }

    /// One octet changed anywhere: never a panic, and never a zone with another serial.
    #[test]
    fn a_changed_octet_is_judged(at in 0usize..200, value in proptest::num::u8::ANY) {
        let all = [soa_rr(1), a_rr("x"), soa_rr(1)];
        let mut stream = framed(&[message(ID, OK, Some("a.test"), &all)]);
        let at = at % stream.len();
        stream[at] = value;
        if let Ok(found) = assemble_stream(&stream, &zone(), ID, BOUNDS) {
            proptest::prop_assert_eq!(found.serial, 1);
        }
    }
}

/// A primary over real TLS that answers every query with these pieces, a pause before each.
struct Primary {
    pieces: Vec<Vec<u8>>,
    pause: Duration,
    /// Keeps the connection open when it has nothing more to say.
    lingers: bool,
}

/// Fetches from it, with deadlines that are short for tests.
async fn fetch_from(primary: Primary) -> Result<Fetched, TransferError> {
    let pki = Pki::new();
    fetch_with(&pki, pki.acceptor("primary.test"), IdentityRule::san("primary.test"), primary).await
}

async fn fetch_with(
    pki: &Pki,
    acceptor: Acceptor,
    identity: IdentityRule,
    primary: Primary,
) -> Result<Fetched, TransferError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let serve = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.expect("accept");
        let Ok(accepted) = acceptor.accept(tcp, Duration::from_secs(5)).await else { return };
        let mut stream = accepted.stream;
        let mut deframer = Deframer::new();
        while !deframer.ready() && matches!(deframer.fill(&mut stream).await, Ok(1..)) {}
        let Some(query) = deframer.take() else { return };
        let id = [query[0], query[1]];
        for mut piece in primary.pieces {
            // The pieces are whole messages or parts that begin one; their id is filled in.
            if let Some(place) = piece.get_mut(2..4) {
                place.copy_from_slice(&id);
            }
            tokio::time::sleep(primary.pause).await;
            if stream.write_all(&piece).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
        if primary.lingers {
            std::future::pending::<()>().await;
        }
        let _ = stream.shutdown().await;
    });
    let source = Source::new("p".into(), address, identity, "primary.test").expect("source");
    let limits = Limits {
        idle: Duration::from_millis(500),
        total: Duration::from_secs(3),
        rate_window: Duration::from_millis(300),
        ..Limits::default()
    };
    let counters = Counters::default();
    let client = pki.connector("signer.test");
    let fetched =
        fetch(Some(&client), &source, &zone(), None, None, BOUNDS, &limits, &counters).await;
    assert_eq!(counters.transfers_in_failed.read(), u64::from(fetched.is_err()));
    serve.abort();
    fetched
}

fn whole() -> Vec<u8> {
    framed(&[message(0, OK, Some("a.test"), &[soa_rr(1), a_rr("x"), soa_rr(1)])])
}

#[tokio::test]
async fn a_zone_comes_in() {
    let fetched =
        fetch_from(Primary { pieces: vec![whole()], pause: Duration::ZERO, lingers: true });
    let fetched = fetched.await.expect("fetched");
    assert!(matches!(fetched, Fetched::Zone { serial: 1, .. }), "{fetched:?}");
}

/// A primary that is several machines behind one address: the SOA of one, the zone of another.
#[tokio::test]
async fn a_zone_never_goes_back_behind_its_soa() {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let serve = tokio::spawn(async move {
        let mut deframer = Deframer::new();
        for (qtype, records) in
            [(types::SOA, vec![soa_rr(6)]), (types::AXFR, vec![soa_rr(4), a_rr("x"), soa_rr(4)])]
        {
            while !deframer.ready() && matches!(deframer.fill(&mut theirs).await, Ok(1..)) {}
            let query = Message::parse(deframer.take().expect("query")).expect("query");
            let header = Header { id: query.header().id, flags: Flags(OK) };
            let mut writer = MessageWriter::new(header, MESSAGE_BYTES_MAX);
            writer.question(zone().as_wire(), qtype, CLASS_IN).expect("room");
            for (owner, rtype, rdata) in records {
                writer.answer(&owner, rtype, CLASS_IN, 60, &rdata).expect("room");
            }
            framing::write_message(&mut theirs, &writer.finish()).await.expect("sent");
        }
        theirs
    });
    let (limits, counters) = (Limits::default(), Counters::default());
    let dialogue = Dialogue::new(ours, &limits, None);
    let found = exchange(dialogue, &zone(), Some(5), None, BOUNDS, &counters).await;
    let refused = found.expect_err("older than what is here");
    assert!(refused.to_string().contains("serial 4 is not newer than 5"), "{refused}");
    drop(serve.await);
}

#[tokio::test]
async fn half_a_transfer_is_no_zone() {
    let half = framed(&[message(0, OK, Some("a.test"), &[soa_rr(1), a_rr("x")])]);
    for (piece, message, octets) in [(half, 1, 0), (whole()[..60].to_vec(), 0, 60)] {
        let primary = Primary { pieces: vec![piece], pause: Duration::ZERO, lingers: false };
        let refused = fetch_from(primary).await.expect_err("half");
        let TransferError::EndedEarly { messages: found, octets: pending } = refused else {
            panic!("{refused}")
        };
        assert_eq!((found, pending), (message, octets));
    }
}

#[tokio::test]
async fn a_primary_that_says_nothing_is_left() {
    let refused =
        fetch_from(Primary { pieces: vec![], pause: Duration::ZERO, lingers: true }).await;
    assert!(matches!(refused, Err(TransferError::Idle(_))), "{refused:?}");
}

/// Each octet comes within the idle time, and still it would take for ever.
#[tokio::test]
async fn dripping_is_too_slow() {
    let pieces = whole().chunks(1).map(<[u8]>::to_vec).collect();
    let primary = Primary { pieces, pause: Duration::from_millis(20), lingers: true };
    let refused = fetch_from(primary).await;
    assert!(matches!(refused, Err(TransferError::TooSlow { .. })), "{refused:?}");
}

/// Fast enough at any moment, and without end.
#[tokio::test]
async fn a_transfer_without_end_hits_a_bound() {
    let first = framed(&[message(0, OK, Some("a.test"), &[soa_rr(1)])]);
    let more = framed(&[message(0, OK, None, &vec![a_rr("x"); 500])]);
    let pieces = [vec![first], vec![more; 50]].concat();
    let refused = fetch_from(Primary { pieces, pause: Duration::ZERO, lingers: true }).await;
    let Err(TransferError::Answer(AnswerError::Refused(_))) = refused else {
        panic!("{refused:?}")
    };
}

#[tokio::test]
async fn more_than_was_asked_for_is_refused() {
    let pieces = vec![[whole(), vec![0, 1]].concat()];
    let refused = fetch_from(Primary { pieces, pause: Duration::ZERO, lingers: true }).await;
    let Err(TransferError::Answer(AnswerError::Unasked { octets: 2 })) = refused else {
        panic!("{refused:?}")
    };
}

#[tokio::test]
async fn the_listed_primary_and_no_other() {
    let pki = Pki::new();
    let primary = || Primary { pieces: vec![whole()], pause: Duration::ZERO, lingers: true };
    // The right name of the right CA, and another key than the one that is pinned.
    let acceptor = pki.acceptor("primary.test");
    let refused = fetch_with(&pki, acceptor, IdentityRule::SpkiSha256([9; 32]), primary()).await;
    let Err(TransferError::WrongPeer { found, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(found.sans(), ["primary.test"]);
    let acceptor = pki.acceptor("primary.test");
    let pinned = IdentityRule::SpkiSha256(*pki_identity(&pki).spki_sha256());
    // `acceptor` above has its own key; the pin is of a later one.
    let refused = fetch_with(&pki, acceptor, pinned, primary()).await;
    assert!(matches!(refused, Err(TransferError::WrongPeer { .. })));
    let client_only = &[ExtendedKeyUsagePurpose::ClientAuth];
    for (leaf, expect) in [
        (Leaf { name: "primary.test", usages: BOTH, expired: true }, "expired"),
        (Leaf { name: "primary.test", usages: client_only, expired: false }, "extended key usage"),
        (Leaf { name: "other.test", usages: BOTH, expired: false }, "other.test"),
    ] {
        let acceptor = Acceptor::new(pki.odd(&leaf, &pki), NOW, ALPN_DOT).expect("acceptor");
        let rule = IdentityRule::san("primary.test");
        let refused = fetch_with(&pki, acceptor, rule, primary()).await.expect_err("refused");
        assert!(matches!(refused, TransferError::Handshake(_)), "{refused}");
        assert!(refused.to_string().contains(expect), "{refused}");
    }
}

fn pki_identity(pki: &Pki) -> Identity {
    pki.material("primary.test").identity().clone()
}

#[tokio::test]
async fn nobody_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    drop(listener);
    let pki = Pki::new();
    let rule = IdentityRule::san("primary.test");
    let source = Source::new("p".into(), address, rule, "primary.test").expect("source");
    let (limits, counters) = (Limits::default(), Arc::new(Counters::default()));
    let client = pki.connector("signer.test");
    let refused =
        fetch(Some(&client), &source, &zone(), None, None, BOUNDS, &limits, &counters).await;
    assert!(matches!(refused, Err(TransferError::Connect(_))), "{refused:?}");
}
