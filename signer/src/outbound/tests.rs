mod keyed;

use std::io;

use countersign_zone::{Bounds, Rtype};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use super::differences::{DifferenceBounds, Step};
use super::*;
use crate::inbound::{self, Fetched, Source, TransferError, assemble_stream};
use crate::notify::Inbox;
use crate::peers::IdentityRule;
use crate::published::testing::{catalogue, version, zone_name};
use crate::tls::Connector;
use crate::tls::testing::{BOTH, Leaf, Pki, connector};
use crate::wire::framing::{Deframer, write_message};
use crate::wire::{
    CLASS_IN, Flags, Header, Message, MessageWriter, OPCODE_QUERY, Section, request, types,
};

const DEADLINE: Duration = Duration::from_secs(10);
const BOUNDS: Bounds = Bounds { records_max: 1_000_000, bytes_max: 1 << 30 };

/// A running server, and what it serves.
struct Server {
    pki: Pki,
    xot: Arc<Xot>,
    address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn server(limits: Limits) -> Server {
    let pki = Pki::new();
    let counters = Arc::<Counters>::default();
    let inbox = Inbox::new(Duration::from_secs(1), counters.clone());
    let front = Front::new(catalogue(), inbox, counters);
    let xot = Xot::new(pki.acceptor("signer.test"), front, limits);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve_xot(listener, xot.clone(), stop.clone()));
    Server { pki, xot, address, stop, task }
}

impl Server {
    fn publish(&self, serial: u32, hosts: u32) {
        self.xot.desk.front.catalogue().publish(version("a.test", serial, hosts)).expect("newer");
    }

    fn source(&self) -> Source {
        let rule = IdentityRule::san("signer.test");
        Source::new("signer".into(), self.address, rule, "signer.test").expect("source")
    }

    async fn fetch(&self, client: &Connector, have: Option<u32>) -> Result<Fetched, TransferError> {
        let (limits, counters) = (inbound::Limits::default(), Counters::default());
        let zone = zone_name("a.test");
        inbound::fetch(Some(client), &self.source(), &zone, have, None, BOUNDS, &limits, &counters)
            .await
    }

    async fn connect(&self, client: &Connector) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.address).await.expect("connect");
        let name = ServerName::try_from("signer.test").expect("name");
        client.connect(tcp, name, DEADLINE).await.expect("handshake").0
    }
}

/// Waits until it holds.
async fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn answer(stream: &mut TlsStream<TcpStream>, query: &[u8]) -> io::Result<Message> {
    write_message(stream, query).await?;
    next(stream, &mut Deframer::new()).await
}

async fn next(stream: &mut TlsStream<TcpStream>, from: &mut Deframer) -> io::Result<Message> {
    while !from.ready() {
        if from.fill(stream).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Message::parse(from.take().expect("ready")).expect("message"))
}

fn axfr(zone: &str) -> Vec<u8> {
    request(7, OPCODE_QUERY, 0, zone_name(zone).as_wire(), types::AXFR)
}

#[tokio::test]
async fn a_secondary_gets_the_whole_zone() {
    let server = server(Limits::default()).await;
    let client = server.pki.connector("secondary.test");
    server.publish(5, 20_000);
    let Ok(Fetched::Zone { serial: 5, bytes, .. }) = server.fetch(&client, Some(4)).await else {
        panic!("not fetched")
    };
    assert!(bytes > 20_000 * 100);
    let fetched = server.fetch(&client, Some(5)).await.expect("answer");
    assert!(matches!(fetched, Fetched::UpToDate { serial: 5 }), "{fetched:?}");
    let counters = server.xot.counters();
    until(|| counters.transfers_out.read() == 1).await;
    assert!(counters.transfer_bytes_out.read() > 20_000 * 100);
    server.stop.cancel();
    server.task.await.expect("stops");
}

#[test]
fn nothing_is_lost_between_version_and_messages() {
    let version = version("a.test", 9, 1000);
    let query = Message::parse(&axfr("A.test")).expect("query");
    let mut stream = Vec::new();
    let mut found = Vec::new();
    for message in Messages::new(&query, records(&version)) {
        let message = message.expect("fits");
        assert!(message.len() <= MESSAGE_BYTES);
        stream.extend_from_slice(&u16::try_from(message.len()).expect("short").to_be_bytes());
        stream.extend_from_slice(&message);
        let parsed = Message::parse(&message).expect("own message");
        found.extend(parsed.section(Section::Answer).map(|r| (r.owner.to_vec(), r.rdata.to_vec())));
    }
    assemble_stream(&stream, &zone_name("a.test"), 7, BOUNDS).expect("assembles");
    let sent: Vec<_> = records(&version).map(|w| (w.owner.to_vec(), w.rdata.to_vec())).collect();
    assert_eq!(found, sent);
    // SOA twice; each RRset has one record and one signature.
    assert_eq!(sent.len(), 2 + 4 + 3 + 2 * 1000);
    assert_eq!(sent[0].0, b"\x01A\x04test\x00", "case kept");
    assert_eq!(sent.first(), sent.last());
}

#[test]
fn a_record_of_64_kib_goes_out_and_a_larger_message_does_not() {
    let query = Message::parse(&axfr("a.test")).expect("query");
    let check = |octets: usize| {
        let rdata = vec![0; octets];
        let small = Wire { owner: b"\0", rtype: Rtype(1), ttl_s: 0, rdata: &[1, 2, 3, 4] };
        let large = Wire { owner: b"\0", rtype: Rtype(65_280), ttl_s: 0, rdata: &rdata };
        let messages = Messages::new(&query, [small, large, small].into_iter());
        messages
            .map(|m| m.map(|m| Message::parse(&m).expect("own").section(Section::Answer).len()))
            .collect::<Result<Vec<_>, _>>()
    };
    assert_eq!(check(65_000), Ok(vec![1, 1, 1]));
    assert_eq!(check(65_530), Err(Unsendable { rtype: Rtype(65_280), octets: 65_530 }));
}

/// Room for a TSIG is left in each message, in one that holds a single large record too.
#[test]
fn what_is_left_for_a_tsig_is_left() {
    let version = version("a.test", 9, 1000);
    let query = Message::parse(&axfr("a.test")).expect("query");
    let mut count = 0;
    for message in Messages::new(&query, records(&version)).leaving(333) {
        assert!(message.expect("fits").len() + 333 <= MESSAGE_BYTES);
        count += 1;
    }
    assert!(count > 5, "{count} messages");
    let check = |octets: usize| {
        let rdata = vec![0; octets];
        let large = Wire { owner: b"\0", rtype: Rtype(65_280), ttl_s: 0, rdata: &rdata };
        let mut messages = Messages::new(&query, [large].into_iter()).leaving(333);
        messages.next().expect("one").map(|message| message.len())
    };
    let most = 65_535 - 333;
    let around = check(60_000).expect("fits") - 60_000;
    assert_eq!(check(most - around), Ok(most));
    check(most - around + 1).expect_err("no room for its TSIG");
}

#[tokio::test]
async fn transfers_are_for_secondaries_of_the_zone() {
    let server = server(Limits::default()).await;
    server.publish(1, 1);
    for (peer, zone, expect) in [
        ("other.test", "a.test", rcode::REFUSED),
        ("primary.test", "a.test", rcode::REFUSED),
        ("secondary.test", "b.test", rcode::REFUSED),
        ("secondary.test", "nowhere.test", rcode::REFUSED),
        ("other.test", "b.test", rcode::SERVFAIL),
        ("secondary.test", "a.test", rcode::NOERROR),
    ] {
        let mut stream = server.connect(&server.pki.connector(peer)).await;
        let answer = answer(&mut stream, &axfr(zone)).await.expect("answer");
        assert_eq!(answer.header().flags.rcode(), expect, "{peer} {zone}");
        assert_eq!(answer.section(Section::Answer).len() > 0, expect == rcode::NOERROR);
    }
    assert_eq!(server.xot.counters().transfers_out_refused.read(), 5);
}

/// In TLS 1.3 the client does not see the refusal in the handshake: it gets no data.
#[tokio::test]
async fn wrong_certificates_get_no_data() {
    let server = server(Limits::default()).await;
    server.publish(1, 1);
    let other_ca = Pki::new();
    let leaf = |name| Leaf { name, usages: BOTH, expired: false };
    let expired = Leaf { expired: true, ..leaf("secondary.test") };
    for (i, material) in [
        server.pki.odd(&leaf("unlisted.test"), &server.pki),
        server.pki.odd(&expired, &server.pki),
        other_ca.odd(&leaf("secondary.test"), &server.pki),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = server.connect(&connector(material)).await;
        answer(&mut stream, &axfr("a.test")).await.expect_err("no data");
        let counters = server.xot.counters();
        until(|| counters.handshakes_refused.read() == i as u64 + 1).await;
    }
    assert_eq!(server.xot.counters().transfers_out.read(), 0);
}

#[tokio::test]
async fn ixfr_gets_the_zone_or_its_soa() {
    let server = server(Limits::default()).await;
    server.publish(5, 3);
    let mut stream = server.connect(&server.pki.connector("secondary.test")).await;
    let zone = zone_name("a.test");
    for (theirs, records) in [(4, 2 + 4 + 3 + 6), (5, 1), (6, 1)] {
        let header = Header { id: 9, flags: Flags::request(OPCODE_QUERY, 0) };
        let mut query = MessageWriter::new(header, 512);
        query.question(zone.as_wire(), types::IXFR, CLASS_IN).expect("room");
        let soa = crate::published::testing::soa(&zone, theirs);
        query.authority(zone.as_wire(), types::SOA, CLASS_IN, 0, &soa).expect("room");
        query.opt(4096).expect("room");
        let answer = answer(&mut stream, &query.finish()).await.expect("answer");
        assert_eq!(answer.section(Section::Answer).len(), records, "{theirs}");
        assert_eq!(answer.section(Section::Additional).len(), 1, "OPT answers OPT");
    }
    let bare = request(7, OPCODE_QUERY, 0, zone.as_wire(), types::IXFR);
    let refused = answer(&mut stream, &bare).await.expect("answer");
    assert_eq!(refused.header().flags.rcode(), rcode::FORMERR);
}

/// A query for IXFR that was asked with this serial.
fn ixfr(theirs: u32) -> Vec<u8> {
    let zone = zone_name("a.test");
    let header = Header { id: 9, flags: Flags::request(OPCODE_QUERY, 0) };
    let mut query = MessageWriter::new(header, 512);
    query.question(zone.as_wire(), types::IXFR, CLASS_IN).expect("room");
    let soa = crate::published::testing::soa(&zone, theirs);
    query.authority(zone.as_wire(), types::SOA, CLASS_IN, 0, &soa).expect("room");
    query.finish()
}

#[tokio::test]
async fn ixfr_gets_the_steps_that_are_kept() {
    let server = server(Limits::default()).await;
    let catalogue = server.xot.desk.front.catalogue().clone();
    let bounds = DifferenceBounds { kept: 2, bytes_max: 1 << 20 };
    let zone = zone_name("a.test");
    for serial in 4..=7 {
        let (up, next) = (catalogue.current(&zone), version("a.test", serial, 100 + serial));
        catalogue.publish(next.clone()).expect("newer");
        let step = up.and_then(|up| Step::between(&up, &next, bounds.bytes_max));
        catalogue.keep(&zone, step, bounds);
    }
    let mut stream = server.connect(&server.pki.connector("secondary.test")).await;
    // A step has two SOAs, and a host that comes with its signature.
    for (theirs, records) in [(7, 1), (6, 2 + 4), (5, 2 + 8), (4, 2 + 4 + 3 + 2 * 107), (3, 223)] {
        let answer = answer(&mut stream, &ixfr(theirs)).await.expect("answer");
        let answers = answer.section(Section::Answer);
        assert_eq!(answers.len(), records, "{theirs}");
    }
    let counters = server.xot.counters();
    until(|| counters.transfers_out.read() == 4).await;
    assert_eq!(counters.transfers_out_ixfr.read(), 2);
    // A version goes up and no step to it is there: the steps of before are of no use.
    catalogue.publish(version("a.test", 8, 1)).expect("newer");
    catalogue.keep(&zone, None, bounds);
    let answer = answer(&mut stream, &ixfr(7)).await.expect("answer");
    assert_eq!(answer.section(Section::Answer).len(), 2 + 4 + 3 + 2);
}

#[tokio::test]
async fn queries_may_be_sent_ahead() {
    let server = server(Limits::default()).await;
    server.publish(5, 3);
    let mut stream = server.connect(&server.pki.connector("secondary.test")).await;
    let soa = |id| request(id, OPCODE_QUERY, 0, zone_name("a.test").as_wire(), types::SOA);
    for query in [soa(1), axfr("a.test"), soa(2)] {
        write_message(&mut stream, &query).await.expect("sent");
    }
    let mut deframer = Deframer::new();
    for id in [1, 7, 2] {
        let answer = next(&mut stream, &mut deframer).await.expect("answer");
        assert_eq!(answer.header().id, id);
        assert_eq!(answer.header().flags.rcode(), rcode::NOERROR);
    }
}

#[tokio::test]
async fn a_flood_of_idle_connections_keeps_nobody_out() {
    let limits = Limits { handshake: Duration::from_secs(60), ..Limits::default() };
    let strangers_max = limits.gate.strangers_max;
    let server = server(limits).await;
    server.publish(1, 10);
    let client = server.pki.connector("secondary.test");
    let mut flood = Vec::new();
    for _ in 0..strangers_max + 36 {
        flood.push(TcpStream::connect(server.address).await.expect("connect"));
    }
    server.fetch(&client, None).await.expect("others are unaffected");
    let counters = server.xot.counters();
    until(|| counters.connections_over_bound.read() >= 36).await;
    // The oldest are gone.
    let mut octet = [0];
    let read = timeout(DEADLINE, flood[0].read(&mut octet)).await.expect("closed");
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_peer_fills_its_own_share_and_idle_connections_are_dropped() {
    let gate = GateLimits { per_peer_max: 2, ..GateLimits::default() };
    let limits = Limits { gate, idle: Duration::from_secs(2), ..Limits::default() };
    let server = server(limits).await;
    server.publish(1, 10);
    let hog = server.pki.connector("other.test");
    let secondary = server.pki.connector("secondary.test");
    let mut held = [server.connect(&hog).await, server.connect(&hog).await];
    let soa = request(1, OPCODE_QUERY, 0, zone_name("a.test").as_wire(), types::SOA);
    for stream in &mut held {
        answer(stream, &soa).await.expect("within its share");
    }
    answer(&mut server.connect(&hog).await, &soa).await.expect_err("over its share");
    server.fetch(&secondary, None).await.expect("others are unaffected");
    // A query that comes octet by octet is idle all the same.
    held[0].write_all(&[0, 30, 1]).await.expect("sent");
    for stream in &mut held {
        let read = timeout(DEADLINE, stream.read_u8()).await.expect("dropped");
        read.expect_err("closed");
    }
    assert!(server.xot.counters().connections_idle.read() >= 2);
}

#[tokio::test]
async fn a_secondary_that_does_not_read_is_dropped() {
    let limits = Limits { write: Duration::from_millis(100), ..Limits::default() };
    let server = server(limits).await;
    server.publish(1, 200_000);
    let mut stream = server.connect(&server.pki.connector("secondary.test")).await;
    write_message(&mut stream, &axfr("a.test")).await.expect("sent");
    let counters = server.xot.counters();
    until(|| counters.transfers_out_failed.read() == 1).await;
    assert_eq!(counters.transfers_out.read(), 0);
}

#[tokio::test]
async fn a_reload_counts_at_once() {
    let server = server(Limits::default()).await;
    server.publish(1, 1);
    let mut stream = server.connect(&server.pki.connector("secondary.test")).await;
    answer(&mut stream, &axfr("a.test")).await.expect("listed");
    let nobody = crate::peers::PeerTable::new([]).expect("empty");
    server.xot.desk.front.catalogue().reload([], nobody);
    answer(&mut stream, &axfr("a.test")).await.expect_err("no longer");
}

#[tokio::test]
async fn a_ca_that_is_gone_opens_nothing_any_more() {
    let server = server(Limits::default()).await;
    server.publish(1, 1);
    let mut stream = server.connect(&server.pki.connector("secondary.test")).await;
    server.xot.replace_acceptor(server.pki.acceptor("signer.test"));
    answer(&mut stream, &axfr("a.test")).await.expect("a reload that leaves the CA");
    server.xot.replace_acceptor(Pki::new().acceptor("signer.test"));
    answer(&mut stream, &axfr("a.test")).await.expect_err("of a CA that is gone");
}

#[tokio::test]
async fn dot_must_be_asked_for() {
    let server = server(Limits::default()).await;
    server.publish(1, 1);
    let other =
        Connector::new(server.pki.material("secondary.test"), crate::tls::testing::NOW, b"h2");
    let tcp = TcpStream::connect(server.address).await.expect("connect");
    let name = ServerName::try_from("signer.test").expect("name");
    let connected = other.expect("connector").connect(tcp, name, DEADLINE).await;
    connected.map(|_| ()).expect_err("no common protocol");
}

/// What was sent stays sent; the next message is not.
#[tokio::test]
async fn a_reload_ends_a_transfer_under_way() {
    let server = server(Limits::default()).await;
    server.publish(1, 200_000);
    let mut stream = server.connect(&server.pki.connector("secondary.test")).await;
    write_message(&mut stream, &axfr("a.test")).await.expect("sent");
    let mut deframer = Deframer::new();
    next(&mut stream, &mut deframer).await.expect("listed");
    let nobody = crate::peers::PeerTable::new([]).expect("empty");
    server.xot.desk.front.catalogue().reload([], nobody);
    let cut = async { while next(&mut stream, &mut deframer).await.is_ok() {} };
    timeout(DEADLINE, cut).await.expect("ends");
    let counters = server.xot.counters();
    until(|| counters.transfers_out_failed.read() == 1).await;
    assert_eq!(counters.transfers_out.read(), 0);
}
