//! Pushes over real sockets, with the zone's task played by the test.

use super::*;
use crate::runner::status::{Progress, Push};

const FILE: &str = "$TTL 60\n@ SOA ns h 5 1 1 1 1\n  NS ns\nns A 192.0.2.1\n";
const PATH: &str = "/v1/zones/example./push";
const TEXT: &str = "Content-Type: text/dns";

/// A connection that `name` has.
fn connect(bed: &Bed, name: &str, role: Role, local: bool) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().expect("pair");
    bed.server.serve(theirs, Caller { name: name.to_owned(), role, local });
    ours
}

fn maker(bed: &Bed) -> UnixStream {
    connect(bed, "maker", Role::Pusher, false)
}

fn head(path: &str, fields: &[&str]) -> String {
    let mut head = format!("POST {path} HTTP/1.1\r\nHost: d\r\n");
    for field in fields {
        head.push_str(field);
        head.push_str("\r\n");
    }
    head + "\r\n"
}

fn whole(path: &str, fields: &[&str], body: &str) -> String {
    let length = format!("Content-Length: {}", body.len());
    head(path, &[fields, &[TEXT, &length]].concat()) + body
}

/// Sends octets as they are; status and body of the answer.
async fn send(mut stream: UnixStream, octets: &str) -> (u16, String) {
    stream.write_all(octets.as_bytes()).await.expect("sent");
    answer(stream).await
}

async fn answer(mut stream: UnixStream) -> (u16, String) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("status");
    (status, body.to_owned())
}

/// What the zone's task gets, and nothing else.
async fn pushed(bed: &mut Bed) -> Push {
    let patience = Duration::from_secs(10);
    match tokio::time::timeout(patience, bed.commands.recv()).await {
        Ok(Some(Command::Push(push))) => push,
        other => panic!("{other:?}"),
    }
}

/// `octets` are refused with this status and reason, and the zone's task hears of nothing.
async fn refused(bed: &mut Bed, octets: &str, status: u16, reason: &str) {
    let stream = maker(bed);
    let (found, body) = send(stream, octets).await;
    assert_eq!(found, status, "{octets}\n{body}");
    assert!(body.contains(reason), "{octets}\n{body}");
    assert!(bed.commands.try_recv().is_err(), "nothing is taken of\n{octets}");
}

#[tokio::test]
async fn a_push_is_answered_step_by_step_to_its_verdict() {
    let mut bed = bed();
    for octets in [
        whole(PATH, &[], FILE),
        whole(&format!("{PATH}?records=3"), &[], FILE),
        head(PATH, &["content-type: Text/DNS; charset=utf-8", "Transfer-Encoding: chunked"])
            + &format!("10\r\n{}\r\n", &FILE[..16])
            + &format!("{:x}\r\n{}\r\n0\r\n\r\n", FILE.len() - 16, &FILE[16..]),
    ] {
        let stream = maker(&bed);
        let task = async {
            let push = pushed(&mut bed).await;
            assert_eq!((push.zone.records(), &*push.by), (3, "maker"));
            for step in [Progress::Admitted, Progress::Published { serial: 9 }] {
                push.progress.send(step).await.expect("read");
            }
        };
        let (answer, ()) = tokio::join!(send(stream, &octets), task);
        assert_eq!(answer.0, 200);
        let lines: Vec<Progress> = answer
            .1
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str(line).expect("a step"))
            .collect();
        let received = Progress::Received { records: 3, serial: 5 };
        assert_eq!(lines, [received, Progress::Admitted, Progress::Published { serial: 9 }]);
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_file_says_where() {
    let mut bed = bed();
    let file = |more: &str| whole(PATH, &[], &format!("{FILE}{more}"));
    refused(&mut bed, &file("a TXT \"x"), 422, "line 5, column 7: a quote is opened").await;
    refused(&mut bed, &file("a.test. A 192.0.2.1\n"), 422, "lies outside the zone").await;
    refused(&mut bed, &file("$INCLUDE /etc/passwd\n"), 422, "line 5, column 1: $INCLUDE").await;
    refused(&mut bed, &file("$GENERATE 1-8 a$ A 192.0.2.1\n"), 422, "more than 10 records").await;
    refused(&mut bed, &whole(PATH, &[], "; nothing\n"), 422, "no SOA").await;
    let cut = whole(&format!("{PATH}?records=4"), &[], FILE);
    refused(&mut bed, &cut, 422, "has 3 records, and 4 were stated").await;
}

/// Whatever way a body ends early, nothing of it is taken.
#[tokio::test]
async fn a_body_that_is_cut_short_is_never_a_zone() {
    let mut bed = bed();
    let longer = format!("Content-Length: {}", FILE.len() + 1);
    let chunk = format!("{:x}\r\n{FILE}\r\n", FILE.len());
    for octets in [
        head(PATH, &[TEXT, &longer]) + FILE,
        head(PATH, &[TEXT, "Transfer-Encoding: chunked"]) + &chunk,
        head(PATH, &[TEXT, "Transfer-Encoding: chunked"]) + &chunk + "0\r\n",
    ] {
        let mut stream = maker(&bed);
        stream.write_all(octets.as_bytes()).await.expect("sent");
        stream.shutdown().await.expect("closed");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("read");
        let rest = String::from_utf8_lossy(&rest);
        assert!(!rest.contains(" 200 "), "{octets}\n{rest}");
        assert!(bed.commands.try_recv().is_err(), "nothing is taken of\n{octets}");
    }
}

#[tokio::test]
async fn a_digest_that_was_stated_has_to_be_the_bodys() {
    let mut bed = bed();
    let mut hasher = digest::Hasher::new();
    hasher.update(FILE.as_bytes());
    let right = format!("Content-Digest: {}", hasher.finish().field());
    let wrong = format!("Content-Digest: {}", digest::Hasher::new().finish().field());
    let chunked = |trailer: &str| {
        head(PATH, &[TEXT, "Transfer-Encoding: chunked", "Trailer: content-digest"])
            + &format!("{:x}\r\n{FILE}\r\n0\r\n{trailer}\r\n\r\n", FILE.len())
    };
    refused(&mut bed, &whole(PATH, &[&wrong], FILE), 400, "another was stated").await;
    refused(&mut bed, &chunked(&wrong), 400, "another was stated").await;
    refused(&mut bed, &chunked("Content-Digest: md5=:eA==:"), 400, "expected sha-256").await;
    for octets in [whole(PATH, &[&right], FILE), chunked(&right)] {
        let stream = maker(&bed);
        let task = async {
            let push = pushed(&mut bed).await;
            push.progress.send(Progress::Unchanged { serial: 1 }).await.expect("read");
        };
        let (answer, ()) = tokio::join!(send(stream, &octets), task);
        assert_eq!(answer.0, 200, "{}", answer.1);
    }
}

#[tokio::test]
async fn bodies_of_another_kind_or_size_are_refused_unread() {
    let mut bed = bed();
    let fields = |fields: &[&str]| head(PATH, fields) + FILE;
    let length = format!("Content-Length: {}", FILE.len());
    refused(&mut bed, &fields(&[&length]), 415, "expected Content-Type: text/dns").await;
    let form = "Content-Type: application/x-www-form-urlencoded";
    refused(&mut bed, &fields(&[&length, form]), 415, "expected Content-Type: text/dns").await;
    let gzip = "Content-Encoding: gzip";
    refused(&mut bed, &fields(&[&length, TEXT, gzip]), 415, "send it as it is").await;
    refused(&mut bed, &head(PATH, &[TEXT]), 400, "there is no body").await;
    refused(&mut bed, &whole(PATH, &[], &";".repeat(9_000)), 413, "zone_bytes_max").await;
    let chunked = head(PATH, &[TEXT, "Transfer-Encoding: chunked"]);
    let endless = chunked + &format!("2328\r\n{}\r\n0\r\n\r\n", ";".repeat(9_000));
    refused(&mut bed, &endless, 413, "zone_bytes_max").await;
    refused(&mut bed, &whole("/v1/zones/a./push", &[], FILE), 404, "not configured").await;
}

#[tokio::test]
async fn a_body_that_does_not_come_ends() {
    let mut bed = bed();
    let length = format!("Content-Length: {}", FILE.len());
    let silent = head(PATH, &[TEXT, &length]) + &FILE[..9];
    refused(&mut bed, &silent, 408, "silent for 300ms").await;
    let mut stream = maker(&bed);
    stream.write_all(silent.as_bytes()).await.expect("sent");
    let (mut reading, mut writing) = stream.into_split();
    let dripping = tokio::spawn(async move {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut answer = [0; 512];
    let read = reading.read(&mut answer).await.expect("answered");
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.contains(" 408 ") && answer.contains("fewer than"), "{answer}");
    assert!(bed.commands.try_recv().is_err());
    dripping.abort();
}

#[tokio::test]
async fn only_who_is_named_pushes_and_a_pusher_opens_nothing_else() {
    let mut bed = bed();
    let there = |zone: &str| whole(&format!("/v1/zones/{zone}/push"), &[], FILE);
    for (name, role, local, zone, reason) in [
        ("maker", Role::Pusher, false, "other.", "does not name maker"),
        ("someone", Role::Operator, false, "example.", "does not name someone"),
        // A client's name on the box, and the box's name elsewhere, are not the same.
        ("local", Role::Operator, false, "other.", "does not name local"),
        ("anna", Role::Operator, false, "other.", "does not name anna"),
        ("maker", Role::Operator, true, "third.", "does not name local"),
    ] {
        let stream = connect(&bed, name, role, local);
        let (status, body) = send(stream, &there(zone)).await;
        assert_eq!(status, 403, "{name} {zone}: {body}");
        assert!(body.contains(reason), "{body}");
    }
    assert!(bed.commands.try_recv().is_err());
    for (name, role, local) in [
        ("maker", Role::Pusher, false),
        ("anna", Role::Operator, false),
        ("anybody", Role::Operator, true),
    ] {
        let stream = connect(&bed, name, role, local);
        let task = async {
            let push = pushed(&mut bed).await;
            assert_eq!(push.by, name);
            push.progress.send(Progress::Unchanged { serial: 1 }).await.expect("read");
        };
        let octets = there("example.");
        let (answer, ()) = tokio::join!(send(stream, &octets), task);
        assert_eq!(answer.0, 200, "{}", answer.1);
    }
    for (method, path, expect) in [
        ("GET", "/metrics", 403),
        ("GET", "/v1/health", 403),
        ("GET", "/v1/zones", 403),
        ("GET", "/v1/zones/example.", 403),
        ("GET", "/v1/zones/example./export", 200),
        ("GET", "/v1/zones/other./export", 403),
        ("GET", "/v1/keys", 403),
        ("GET", "/v1/hsm", 403),
        ("POST", "/v1/zones/example./freeze", 403),
        ("POST", "/v1/zones/example./thaw", 403),
        ("POST", "/v1/zones/example./refresh", 403),
    ] {
        let (status, _, body) = talk(maker(&bed), method, path).await;
        assert_eq!(status, expect, "{method} {path}: {body}");
    }
}

#[tokio::test]
async fn one_push_a_zone_and_so_many_at_once() {
    let mut bed = bed();
    let stream = maker(&bed);
    let first = tokio::spawn(send(stream, Box::leak(whole(PATH, &[], FILE).into_boxed_str())));
    let push = pushed(&mut bed).await;
    refused(&mut bed, &whole(PATH, &[], FILE), 409, "maker is pushing zone example. already").await;
    let others = bed.server.state.pushes.fill();
    let stream = connect(&bed, "x", Role::Operator, true);
    let (status, body) = send(stream, &whole("/v1/zones/other./push", &[], FILE)).await;
    assert_eq!(status, 503, "{body}");
    drop(others);
    push.progress.send(Progress::Held { reasons: vec!["x".to_owned()] }).await.expect("read");
    let (status, body) = first.await.expect("answered");
    assert!(status == 200 && body.contains("\"held\""), "{body}");
    refused(&mut bed, &whole(PATH, &[], "x"), 422, "line 1").await;
}

/// A task that ends without a word leaves no verdict, and the answer says so by its end.
#[tokio::test]
async fn no_verdict_is_no_verdict() {
    let mut bed = bed();
    let stream = maker(&bed);
    let octets = whole(PATH, &[], FILE);
    let task = async {
        drop(pushed(&mut bed).await);
    };
    let (answer, ()) = tokio::join!(send(stream, &octets), task);
    assert_eq!(answer.0, 200);
    assert!(answer.1.contains("received") && !answer.1.contains("published"), "{}", answer.1);
}
