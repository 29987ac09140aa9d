use std::net::SocketAddr;

use countersign_zone::Rtype;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::gate::GateLimits;
use crate::outbound::{ClearLimits, serve_tcp};
use crate::peers::{Peer, PeerTable};
use crate::published::ZoneAccess;
use crate::published::testing::{catalogue, signature, version, zone_name};
use crate::tsig::{Algorithm, Key, sign_request};
use crate::wire::framing::{Deframer, write_message};
use crate::wire::request;

const DEADLINE: Duration = Duration::from_secs(10);

fn front() -> Arc<Front> {
    let counters = Arc::<Counters>::default();
    let inbox = Inbox::new(Duration::from_secs(1), counters.clone());
    let catalogue = catalogue();
    catalogue.publish(version("a.test", 5, 3)).expect("newer");
    Front::new(catalogue, inbox, counters)
}

/// What an asker gets, in short.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    rcode: u8,
    answers: Vec<u16>,
    authority: Vec<u16>,
    truncated: bool,
}

fn seen(octets: &[u8]) -> Seen {
    let message = Message::parse(octets).expect("own message");
    let types = |section| message.section(section).map(|record| record.rtype).collect();
    let flags = message.header().flags;
    assert!(flags.response());
    Seen {
        rcode: flags.rcode(),
        answers: types(Section::Answer),
        authority: types(Section::Authority),
        truncated: flags.truncated(),
    }
}

fn got(answers: &[u16], authority: &[u16]) -> Seen {
    let (answers, authority) = (answers.to_vec(), authority.to_vec());
    Seen { rcode: rcode::NOERROR, answers, authority, truncated: false }
}

fn refused(rcode: u8) -> Seen {
    Seen { rcode, answers: vec![], authority: vec![], truncated: false }
}

/// A query with an OPT that offers `size` and sets DO, if there is a size.
fn query(zone: &str, qtype: u16, size: Option<u16>) -> Vec<u8> {
    let mut octets = request(7, OPCODE_QUERY, 0, zone_name(zone).as_wire(), qtype);
    if let Some(size) = size {
        octets[11] = 1;
        octets.extend_from_slice(&[0, 0, 41]);
        octets.extend_from_slice(&size.to_be_bytes());
        octets.extend_from_slice(&[0, 0, 0x80, 0, 0, 0]);
    }
    octets
}

async fn ask(front: &Front, octets: &[u8], listed: bool, transport: Transport) -> Option<Seen> {
    let from: SocketAddr = "127.0.0.1:5353".parse().expect("address");
    let asker = ["secondary".into()];
    let askers = if listed { &asker[..] } else { &[] };
    front.answer(octets, from, askers, transport, None).await.map(|octets| seen(&octets))
}

async fn check(octets: &[u8], listed: bool, expect: Seen) {
    assert_eq!(ask(&front(), octets, listed, Transport::Udp).await, Some(expect));
}

const SOA: u16 = Rtype::SOA.0;
const NS: u16 = Rtype::NS.0;
const NSEC: u16 = Rtype::NSEC.0;
const DNSKEY: u16 = Rtype::DNSKEY.0;
const RRSIG: u16 = Rtype::RRSIG.0;

#[tokio::test]
async fn the_apex_is_public_to_listed_peers() {
    check(&query("a.test", SOA, None), true, got(&[SOA], &[])).await;
    check(&query("A.TEST", NS, None), true, got(&[NS], &[])).await;
    check(&query("a.test", DNSKEY, Some(1232)), true, got(&[DNSKEY, RRSIG], &[])).await;
    for absent in [Rtype::CDS, Rtype::CDNSKEY, Rtype::NSEC3PARAM, Rtype::ZONEMD] {
        check(&query("a.test", absent.0, None), true, got(&[], &[SOA])).await;
        let with_do = got(&[], &[SOA, RRSIG, NSEC, RRSIG]);
        check(&query("a.test", absent.0, Some(1232)), true, with_do).await;
    }
}

#[tokio::test]
async fn all_else_is_refused() {
    for (name, qtype) in [
        ("a.test", 1),
        ("a.test", 255),
        ("a.test", RRSIG),
        ("a.test", types::AXFR),
        ("a.test", types::IXFR),
        ("h000001.a.test", SOA),
        ("h000001.a.test", 1),
        ("test", SOA),
        (".", NS),
        ("nowhere.test", SOA),
    ] {
        check(&query(name, qtype, None), true, refused(rcode::REFUSED)).await;
    }
    // Strangers learn nothing, not even which zones there are.
    for name in ["a.test", "nowhere.test"] {
        check(&query(name, SOA, None), false, refused(rcode::REFUSED)).await;
    }
    check(b"\0\x07\0\0\xff\xff\0\0\0\0\0\0", false, refused(rcode::REFUSED)).await;
    // Configured, and nothing published yet.
    check(&query("b.test", SOA, None), true, refused(rcode::SERVFAIL)).await;
}

#[tokio::test]
async fn odd_messages_are_answered_or_dropped() {
    let mut class_any = query("a.test", SOA, None);
    *class_any.last_mut().expect("octets") = 255;
    check(&class_any, true, refused(rcode::REFUSED)).await;
    let mut no_question = query("a.test", SOA, None)[..12].to_vec();
    no_question[5] = 0;
    check(&no_question, true, refused(rcode::FORMERR)).await;
    check(&query("a.test", SOA, None)[..20], true, refused(rcode::FORMERR)).await;
    let mut status = query("a.test", SOA, None);
    status[2] = 2 << 3;
    check(&status, true, refused(rcode::NOTIMP)).await;
    let mut response = query("a.test", SOA, None);
    response[2] |= 0x80;
    assert_eq!(ask(&front(), &response, true, Transport::Udp).await, None);
    assert_eq!(ask(&front(), b"short", true, Transport::Udp).await, None);
    // EDNS version 1: BADVERS is 16, its low bits are 0 and the rest is in the OPT.
    let mut edns1 = query("a.test", SOA, Some(1232));
    let at = edns1.len() - 5;
    edns1[at] = 1;
    let front = front();
    let from = "127.0.0.1:1".parse().expect("address");
    let answer =
        front.answer(&edns1, from, &["p".into()], Transport::Udp, None).await.expect("answer");
    let message = Message::parse(&answer).expect("own message");
    let opt = message.section(Section::Additional).next().expect("OPT");
    assert_eq!((opt.ttl_s >> 24, message.section(Section::Answer).len()), (1, 0));
}

#[tokio::test]
async fn rdata_and_case_pass_unaltered() {
    let front = front();
    let from = "127.0.0.1:1".parse().expect("address");
    let asked = query("a.TEST", DNSKEY, Some(4096));
    let answer =
        front.answer(&asked, from, &["p".into()], Transport::Stream, None).await.expect("answer");
    let message = Message::parse(&answer).expect("own message");
    assert!(message.header().flags.authoritative());
    let version = front.catalogue().current(&zone_name("a.test")).expect("up");
    let rrset = version.at_apex(Rtype::DNSKEY).expect("there");
    let records: Vec<_> = message.section(Section::Answer).collect();
    assert_eq!(Some(records[0].rdata), rrset.rdatas().next());
    assert_eq!(records[1].rdata, signature(Rtype::DNSKEY));
    assert_eq!((records[0].owner, records[0].ttl_s), (rrset.owner(), 3600));
}

/// NODATA carries the SOA with the smaller of its TTL and its minimum (RFC 2308 §3).
#[tokio::test]
async fn negative_answers_have_the_negative_ttl() {
    let front = front();
    let from = "127.0.0.1:1".parse().expect("address");
    let asked = query("a.test", Rtype::CDS.0, Some(1232));
    let answer =
        front.answer(&asked, from, &["p".into()], Transport::Udp, None).await.expect("answer");
    let message = Message::parse(&answer).expect("own message");
    let ttls: Vec<_> = message.section(Section::Authority).map(|record| record.ttl_s).collect();
    assert_eq!(ttls, [300, 300, 3600, 3600]);
}

#[tokio::test]
async fn what_does_not_fit_a_datagram_is_truncated() {
    let front = front();
    let asked = query("a.test", DNSKEY, None);
    // 512 octets are enough here; the bound is checked with a message that is not.
    assert_eq!(ask(&front, &asked, true, Transport::Udp).await, Some(got(&[DNSKEY], &[])));
    let message = Message::parse(&asked).expect("query");
    assert_eq!(udp_bytes_max(&message), UDP_BYTES_MIN);
    for (offered, expect) in [(0, 512), (600, 600), (1232, 1232), (4096, 1232)] {
        let message = Message::parse(&query("a.test", SOA, Some(offered))).expect("query");
        assert_eq!(udp_bytes_max(&message), expect);
        let cut = seen(&truncated(&message));
        assert_eq!(cut, Seen { truncated: true, ..got(&[], &[]) });
    }
}

/// UDP and TCP on one port of a free kind, until the test ends.
async fn sockets(front: &Arc<Front>, limits: ClearLimits) -> (SocketAddr, CancellationToken) {
    let stop = CancellationToken::new();
    // A port that is free for UDP may be another test's for TCP.
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("address")).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().expect("address");
    tokio::spawn(serve_udp(udp, front.clone(), stop.clone()));
    tokio::spawn(serve_tcp(tcp, front.clone(), limits, stop.clone()));
    (address, stop)
}

async fn over_tcp(address: SocketAddr, octets: &[u8]) -> Seen {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    write_message(&mut stream, octets).await.expect("sent");
    let mut deframer = Deframer::new();
    while !deframer.ready() {
        assert_ne!(deframer.fill(&mut stream).await.expect("read"), 0, "no answer");
    }
    seen(deframer.take().expect("ready"))
}

#[tokio::test]
async fn both_sockets_answer() {
    let front = front();
    let (address, stop) = sockets(&front, ClearLimits::default()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    socket.send_to(&query("a.test", SOA, None), address).await.expect("sent");
    let mut buffer = [0; 512];
    let received = timeout(DEADLINE, socket.recv(&mut buffer)).await.expect("in time");
    assert_eq!(seen(&buffer[..received.expect("io")]), got(&[SOA], &[]));
    assert_eq!(over_tcp(address, &query("a.test", SOA, None)).await, got(&[SOA], &[]));
    let transfer = query("a.test", types::AXFR, None);
    assert_eq!(over_tcp(address, &transfer).await, refused(rcode::REFUSED), "never in clear");
    assert_eq!(front.counters().queries_answered.read(), 2);
    stop.cancel();
}

#[tokio::test]
async fn a_stranger_gets_one_refusal_over_tcp() {
    let front = front();
    front.catalogue().reload([], crate::peers::PeerTable::new([]).expect("empty"));
    let (address, stop) = sockets(&front, ClearLimits::default()).await;
    let asked = query("a.test", SOA, None);
    assert_eq!(over_tcp(address, &asked).await, refused(rcode::REFUSED));
    stop.cancel();
}

#[tokio::test]
async fn idle_connections_are_bounded_and_dropped() {
    let gate = GateLimits { strangers_max: 2, per_peer_max: 3, total_max: 10 };
    let limits = ClearLimits { gate, idle: Duration::from_millis(300), ..ClearLimits::default() };
    let front = front();
    let (address, stop) = sockets(&front, limits).await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(address).await.expect("connect"));
    }
    for stream in &mut idle {
        let read = timeout(DEADLINE, stream.read_u8()).await.expect("dropped");
        read.expect_err("closed");
    }
    assert!(front.counters().connections_over_bound.read() >= 90);
    assert_eq!(over_tcp(address, &query("a.test", SOA, None)).await, got(&[SOA], &[]));
    stop.cancel();
}

/// What is signed comes back signed, and its TSIG counts towards the size of a datagram.
#[tokio::test]
async fn a_signed_datagram_is_answered_signed_and_bounded() {
    let key = |secret| {
        let algorithm = Algorithm::HmacSha256;
        Arc::new(Key::new("k.".parse().expect("name"), algorithm, &[secret; 32]).expect("key"))
    };
    let peer = Peer {
        name: "p".into(),
        identity: None,
        key: Some(key(1)),
        transport: crate::config::Transport::Tcp,
        addresses: vec![],
    };
    let front = front();
    let access =
        ZoneAccess { zone: zone_name("a.test"), primaries: vec!["p".into()], secondaries: vec![] };
    front.catalogue().reload([access], PeerTable::new([peer]).expect("one"));
    let from: SocketAddr = "192.0.2.9:5353".parse().expect("address");
    for (mut asked, secret, expect) in [
        (query("a.test", DNSKEY, Some(1232)), 1, Ok(got(&[DNSKEY, RRSIG], &[]))),
        (query("a.test", 1, None), 1, Ok(refused(rcode::REFUSED))),
        (request(7, OPCODE_NOTIFY, 0, zone_name("a.test").as_wire(), SOA), 1, Ok(got(&[], &[]))),
        (query("a.test", SOA, None), 2, Err("BADSIG")),
    ] {
        let plain = asked.clone();
        let mut answers = sign_request(&key(secret), &mut asked, now_s());
        let answer = front.datagram(&asked, from).await.expect("answer");
        let found = answers.take(&answer, now_s()).map(|octets| seen(&octets));
        match (found, expect) {
            (Ok(found), Ok(expect)) => assert_eq!(found, expect),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (found, expect) => panic!("{found:?}, expected {expect:?}"),
        }
        // Unsigned, from an address that nobody lists.
        let answer = front.datagram(&plain, from).await.expect("answer");
        assert_eq!(seen(&answer), refused(rcode::REFUSED));
    }
    assert_eq!(front.counters().notifies_received.read(), 1);
    assert_eq!(front.counters().tsig_refused.read(), 1);
    let asked = query("a.test", DNSKEY, Some(512));
    let octets = |room| {
        let (front, asked) = (front.clone(), asked.clone());
        async move {
            let askers = ["p".into()];
            let answer = front.unsigned(&asked, from, &askers, Transport::Udp, room).await;
            seen(&answer.expect("answer")).truncated
        }
    };
    assert!(!octets(0).await);
    assert!(octets(400).await);
}
