use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::now_s;
use crate::counters::Counters;
use crate::peers::PeerName;
use crate::published::testing::{catalogue, version, zone_name};
use crate::tsig::{Algorithm, Key, Opening, open};
use crate::wire::framing::{Deframer, write_message};
use crate::wire::{CLASS_IN, Flags, Header, Message, MessageWriter, OPCODE_NOTIFY, rcode, types};

const DEADLINE: Duration = Duration::from_secs(10);

fn notify(zone: &str, qtype: u16) -> Message {
    let header = Header { id: 5, flags: Flags::request(OPCODE_NOTIFY, Flags::AA) };
    let mut writer = MessageWriter::new(header, 512);
    writer.question(zone_name(zone).as_wire(), qtype, CLASS_IN).expect("room");
    Message::parse(&writer.finish()).expect("message")
}

fn inbox(interval: Duration) -> (Arc<Inbox>, Arc<Counters>) {
    let counters = Arc::<Counters>::default();
    (Inbox::new(interval, counters.clone()), counters)
}

fn peers(names: &[&str]) -> Vec<PeerName> {
    names.iter().map(|name| (*name).into()).collect()
}

#[test]
fn only_a_primary_of_the_zone_counts() {
    let (inbox, counters) = inbox(Duration::ZERO);
    let view = catalogue().view();
    let check = |zone, qtype, from: &[&str], expect| {
        assert_eq!(
            inbox.take(&notify(zone, qtype), &peers(from), &view),
            expect,
            "{zone} {from:?}"
        );
    };
    check("a.test", types::SOA, &["primary"], rcode::NOERROR);
    check("A.TEST", types::SOA, &["other", "primary"], rcode::NOERROR);
    check("a.test", types::SOA, &["secondary"], rcode::REFUSED);
    check("a.test", types::SOA, &[], rcode::REFUSED);
    check("nowhere.test", types::SOA, &[], rcode::REFUSED);
    check("nowhere.test", types::SOA, &["primary"], rcode::NOTAUTH);
    check("a.test", 1, &["primary"], rcode::REFUSED);
    assert_eq!((counters.notifies_received.read(), counters.notifies_refused.read()), (2, 5));
}

#[tokio::test]
async fn a_burst_is_one_and_the_last_is_not_lost() {
    let interval = Duration::from_millis(300);
    let (inbox, _) = inbox(interval);
    let view = catalogue().view();
    let (to, mut from) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let task = tokio::spawn(forward(inbox.clone(), to, stop.clone()));
    let tell = |zone| inbox.take(&notify(zone, types::SOA), &peers(&["primary"]), &view);
    tell("a.test");
    let first = timeout(DEADLINE, from.recv()).await.expect("in time").expect("open");
    let since = Instant::now();
    assert_eq!((&first.zone, &*first.peer, first.serial), (&zone_name("a.test"), "primary", None));
    for _ in 0..100 {
        tell("a.test");
    }
    tell("b.test");
    // Another zone is not held up; this one's next comes when its time has come, once.
    let second = timeout(DEADLINE, from.recv()).await.expect("in time").expect("open");
    assert_eq!(second.zone, zone_name("b.test"));
    let third = timeout(DEADLINE, from.recv()).await.expect("in time").expect("open");
    assert_eq!(third.zone, zone_name("a.test"));
    assert!(since.elapsed() + Duration::from_millis(50) >= interval);
    timeout(2 * interval, from.recv()).await.expect_err("no more");
    stop.cancel();
    task.await.expect("stops");
}

#[test]
fn the_serial_is_a_hint() {
    let version = version("a.test", 77, 0);
    let message = Message::parse(&announcement(&version, 9)).expect("own message");
    let header = message.header();
    assert_eq!(
        (header.id, header.flags.opcode(), header.flags.authoritative()),
        (9, OPCODE_NOTIFY, true)
    );
    let (inbox, _) = inbox(Duration::ZERO);
    let view = catalogue().view();
    assert_eq!(inbox.take(&message, &peers(&["primary"]), &view), rcode::NOERROR);
}

fn limits() -> SendLimits {
    SendLimits {
        udp_attempts: 2,
        first_wait: Duration::from_millis(200),
        wait_max: Duration::from_millis(400),
        tcp_wait_max: Duration::from_secs(10),
    }
}

fn announce(limits: SendLimits, address: SocketAddr) -> (Notifier, Arc<Counters>) {
    let counters = Arc::<Counters>::default();
    let notifier = Notifier::new(limits, counters.clone(), CancellationToken::new());
    notifier.announce(
        &version("a.test", 3, 0),
        [Target { peer: "secondary".into(), address, key: None }],
    );
    (notifier, counters)
}

async fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Answers a NOTIFY: `change` makes it wrong.
fn reply(query: &[u8], rcode: u8, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let query = Message::parse(query).expect("a NOTIFY");
    let header = query.header();
    let flags = header.flags.reply(Flags::AA, rcode);
    let mut writer = MessageWriter::new(Header { id: header.id, flags }, 512);
    let question = query.question().expect("one");
    writer.question(&question.name, question.qtype, question.qclass).expect("room");
    let mut octets = writer.finish();
    change(&mut octets);
    octets
}

#[tokio::test]
async fn it_is_repeated_until_it_is_acknowledged() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    let (_notifier, counters) = announce(limits(), socket.local_addr().expect("address"));
    let mut buffer = [0; 512];
    let (len, from) =
        timeout(DEADLINE, socket.recv_from(&mut buffer)).await.expect("sent").expect("io");
    // None of these is an answer to it.
    for wrong in [
        reply(&buffer[..len], rcode::NOERROR, |octets| octets[0] ^= 1),
        reply(&buffer[..len], rcode::NOERROR, |octets| octets[2] &= 0x7f),
        reply(&buffer[..len], rcode::NOERROR, |octets| octets[13] = b'x'),
        b"noise".to_vec(),
    ] {
        socket.send_to(&wrong, from).await.expect("sent");
    }
    let (len, from) =
        timeout(DEADLINE, socket.recv_from(&mut buffer)).await.expect("again").expect("io");
    assert_eq!(counters.notifies_sent.read(), 0);
    socket.send_to(&reply(&buffer[..len], rcode::NOERROR, |_| {}), from).await.expect("sent");
    until(|| counters.notifies_sent.read() == 1).await;
    assert_eq!(counters.notifies_failed.read(), 0);
}

#[tokio::test]
async fn tcp_is_the_last_resort() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let (_notifier, counters) = announce(limits(), listener.local_addr().expect("address"));
    let (mut stream, _) = timeout(DEADLINE, listener.accept()).await.expect("in time").expect("io");
    let mut deframer = Deframer::new();
    while !deframer.ready() {
        deframer.fill(&mut stream).await.expect("read");
    }
    let answer = reply(deframer.take().expect("ready"), rcode::NOERROR, |_| {});
    write_message(&mut stream, &answer).await.expect("sent");
    until(|| counters.notifies_sent.read() == 1).await;
}

#[tokio::test]
async fn it_is_given_up_after_its_attempts() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    let address = socket.local_addr().expect("address");
    let (_notifier, counters) = announce(limits(), address);
    let mut buffer = [0; 512];
    for _ in 0..2 {
        let received = timeout(DEADLINE, socket.recv_from(&mut buffer)).await.expect("in time");
        let (len, from) = received.expect("io");
        let refusal = reply(&buffer[..len], rcode::REFUSED, |_| {});
        socket.send_to(&refusal, from).await.expect("sent");
    }
    until(|| counters.notifies_failed.read() == 1).await;
    assert_eq!(counters.notifies_sent.read(), 0);
}

#[tokio::test]
async fn a_newer_announcement_replaces_an_older() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    let address = socket.local_addr().expect("address");
    let slow = SendLimits { first_wait: Duration::from_secs(60), ..limits() };
    let (notifier, counters) = announce(slow, address);
    let mut buffer = [0; 512];
    timeout(DEADLINE, socket.recv_from(&mut buffer)).await.expect("first").expect("io");
    notifier.announce(
        &version("a.test", 4, 0),
        [Target { peer: "secondary".into(), address, key: None }],
    );
    let (len, from) =
        timeout(DEADLINE, socket.recv_from(&mut buffer)).await.expect("second").expect("io");
    socket.send_to(&reply(&buffer[..len], rcode::NOERROR, |_| {}), from).await.expect("sent");
    until(|| counters.notifies_sent.read() == 1).await;
}

fn key() -> Arc<Key> {
    let name = "secondary.key.".parse().expect("name");
    Arc::new(Key::new(name, Algorithm::HmacSha256, &[7; 32]).expect("key"))
}

/// An acknowledgement that anyone can make is none to a NOTIFY that was signed.
#[tokio::test]
async fn a_signed_notify_takes_a_signed_answer() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    let address = socket.local_addr().expect("address");
    let counters = Arc::<Counters>::default();
    let notifier = Notifier::new(limits(), counters.clone(), CancellationToken::new());
    let target = Target { peer: "secondary".into(), address, key: Some(key()) };
    notifier.announce(&version("a.test", 3, 0), [target]);
    let mut buffer = [0; 512];
    for good in [false, true] {
        let received = timeout(DEADLINE, socket.recv_from(&mut buffer)).await.expect("sent");
        let (len, from) = received.expect("io");
        let Opening::Signed(mut opened) = open(&buffer[..len], |_| Some(key()), now_s()) else {
            panic!("not signed")
        };
        let plain = reply(&opened.octets, rcode::NOERROR, |_| {});
        let mut signed = plain.clone();
        opened.session.sign(&mut signed, now_s());
        if !good {
            // Until the next attempt none of these has counted.
            let last = signed.len() - 7;
            signed[last] ^= 1;
            let refusal = reply(&opened.octets, rcode::REFUSED, |_| {});
            for wrong in [plain, refusal] {
                socket.send_to(&wrong, from).await.expect("sent");
            }
        }
        socket.send_to(&signed, from).await.expect("sent");
    }
    until(|| counters.notifies_sent.read() == 1).await;
    assert_eq!(counters.notifies_failed.read(), 0);
}

/// However many secondaries are dead, they share one socket.
#[tokio::test]
async fn a_thousand_dead_secondaries_take_one_socket() {
    let sockets = || {
        let open = std::fs::read_dir("/proc/self/fd").expect("open files");
        open.filter(|entry| {
            let path = entry.as_ref().expect("entry").path();
            std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
        })
        .count()
    };
    let dead = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    let before = sockets();
    let slow = SendLimits { first_wait: Duration::from_secs(60), ..limits() };
    let notifier = Notifier::new(slow, Arc::default(), CancellationToken::new());
    let address = dead.local_addr().expect("address");
    for number in 0..1000 {
        let version = version(&format!("z{number}.test"), 3, 0);
        notifier.announce(&version, [Target { peer: "dead".into(), address, key: None }]);
    }
    let mut buffer = [0; 512];
    // As many as its receive buffer is certain to hold.
    for _ in 0..100 {
        timeout(DEADLINE, dead.recv_from(&mut buffer)).await.expect("sent").expect("io");
    }
    assert!(sockets() <= before + 1, "{} sockets", sockets() - before);
}
