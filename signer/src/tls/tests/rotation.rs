//! What is taken up while connections are open, what is not, and what someone is told in time.

use std::path::Path;

use rustls_pki_types::CertificateDer;

use super::*;

/// 2026-01-01, as [`NOW`] has it.
const NOW_S: u64 = 1_767_225_600;
const DAY_S: u64 = 86_400;

fn leaf(name: &str) -> Leaf<'_> {
    Leaf { name, usages: BOTH, expired: false }
}

fn keyring(files: &TlsPaths) -> Keyring {
    Keyring::load(files.clone(), Arc::default()).expect("files")
}

/// A handshake: whom each end has seen, or why not.
async fn meet(server: &Keyring, client: &Keyring) -> (Result<Identity, String>, Accepting) {
    let acceptor = Acceptor::of(server.clone(), NOW, ALPN_DOT);
    let connector = Connector::of(client.clone(), NOW, ALPN_DOT);
    let (near, far) = duplex(1 << 16);
    let connect = connector.connect(near, name("server.test"), DEADLINE);
    let (connected, accepted) = tokio::join!(connect, acceptor.accept(far, DEADLINE));
    (
        connected.map(|(_, identity)| identity).map_err(|error| error.to_string()),
        accepted.map(|accepted| accepted.chain).map_err(|error| error.to_string()),
    )
}

type Accepting = Result<Vec<CertificateDer<'static>>, String>;

/// Two looks: the first sees the change, the second that it stands still.
fn take(keyring: &Keyring) {
    assert!(matches!(keyring.look(NOW_S), Look::Changed));
    let look = keyring.look(NOW_S);
    assert!(matches!(look, Look::Taken), "{look:?}");
}

fn kinds(keyring: &Keyring, now_s: u64) -> Vec<&'static str> {
    keyring.alarms(now_s).iter().map(|alarm| alarm.kind.as_str()).collect()
}

fn with_list(files: TlsPaths, list: &str) -> TlsPaths {
    let crl = files.ca.with_extension("crl");
    fs::write(&crl, list).expect("write");
    TlsPaths { crl: Some(crl), ..files }
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).expect("copied");
}

#[tokio::test]
async fn revoked_is_refused_at_either_end_and_on_an_open_connection() {
    let pki = Pki::new();
    let files = |who: &str, revoked: &[&str]| {
        with_list(pki.paths(&leaf(who), &pki), &pki.list(revoked, 2025, 2027))
    };
    let (server, client) = (files("server.test", &[]), keyring(&files("client.test", &[])));
    let server_ring = keyring(&server);
    let (connected, accepted) = meet(&server_ring, &client).await;
    connected.expect("connected");
    let chain = accepted.expect("accepted");

    let acceptor = Acceptor::of(server_ring.clone(), NOW, ALPN_DOT);
    assert!(acceptor.still_accepts(&chain));
    let list = pki.list(&["other.test", "client.test"], 2025, 2027);
    fs::write(server.crl.as_ref().expect("a list"), list).expect("write");
    assert!(acceptor.still_accepts(&chain), "before it was taken up");
    take(&server_ring);
    assert!(!acceptor.still_accepts(&chain));
    let (_, refused) = meet(&server_ring, &client).await;
    let refused = refused.expect_err("refused");
    assert!(refused.contains("client.test") && refused.contains("revoked"), "{refused}");

    let client = keyring(&files("client.test", &["server.test"]));
    let (refused, _) = meet(&keyring(&files("server.test", &[])), &client).await;
    let refused = refused.expect_err("refused");
    assert!(refused.contains("server.test") && refused.contains("revoked"), "{refused}");
}

/// Out of date is worse than current and better than none, wherever in the file it stands.
#[tokio::test]
async fn the_newest_list_counts_and_goes_on_counting_after_its_time() {
    let pki = Pki::new();
    let client = |who| keyring(&pki.paths(&leaf(who), &pki));
    let (good, bad) = (client("good.test"), client("bad.test"));
    for (order, lists) in [
        ("old first", [pki.list(&[], 2023, 2024), pki.list(&["bad.test"], 2024, 2025)]),
        ("new first", [pki.list(&["bad.test"], 2024, 2025), pki.list(&[], 2023, 2024)]),
    ] {
        let files = with_list(pki.paths(&leaf("server.test"), &pki), &lists.concat());
        let server = keyring(&files);
        meet(&server, &good).await.1.expect("let in");
        meet(&server, &bad).await.1.expect_err(order);
        // Of the older one nobody is told.
        assert_eq!(kinds(&server, NOW_S), ["crl-expired"], "{order}");
    }
}

#[tokio::test]
async fn an_issuer_without_a_list_is_let_in_and_named() {
    let (pki, other) = (Pki::new(), Pki::named("Other CA"));
    let files = pki.paths(&leaf("server.test"), &pki);
    fs::write(&files.ca, [&*pki.ca_pem, &*other.ca_pem].concat()).expect("write");
    let server = keyring(&with_list(files, &pki.list(&[], 2025, 2099)));
    let client = keyring(&other.paths(&leaf("client.test"), &pki));
    let chain = meet(&server, &client).await.1.expect("accepted");
    assert_eq!(kinds(&server, NOW_S), [""; 0], "nobody was seen yet");
    Acceptor::of(server.clone(), NOW, ALPN_DOT).saw(Holder::Peer, &"a".into(), &chain);
    let alarms = server.alarms(NOW_S);
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert!(alarms[0].reason.contains("Other CA"), "{}", alarms[0].reason);
    assert_eq!((alarms[0].kind, alarms[0].since_s), (AlarmKind::CrlMissing, NOW_S));
}

#[test]
fn lists_that_can_not_be_relied_on_are_not_taken() {
    let (pki, namesake) = (Pki::new(), Pki::new());
    let check = |list: &str, expect: &str| {
        let files = with_list(pki.paths(&leaf("server.test"), &pki), list);
        let error = Keyring::load(files, Arc::default()).expect_err("refused").to_string();
        assert!(error.contains(expect) && error.contains("server.test.crl"), "{error}");
    };
    check("", "no list in it");
    check(&pki.ca_pem, "no list in it");
    check(&namesake.list(&[], 2025, 2027), "not signed by the CA certificate of that name");
    check("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n", "revocation lists");
    let good = pki.list(&[], 2025, 2027);
    let cut = &good[..good.len() / 2];
    check(cut, "revocation lists");
    let many = good.repeat(257);
    check(&many, "at most 256");
}

#[tokio::test]
async fn a_half_written_pair_waits_and_alarms_after_a_while() {
    let pki = Pki::new();
    let (files, fresh) =
        (pki.paths(&leaf("server.test"), &pki), pki.paths(&leaf("fresh.test"), &pki));
    let (server, client) = (keyring(&files), keyring(&pki.paths(&leaf("client.test"), &pki)));
    let old = fs::read(&files.certificate).expect("read");
    assert!(matches!(server.look(NOW_S), Look::Same));

    copy(&fresh.certificate, &files.certificate);
    assert!(matches!(server.look(NOW_S), Look::Changed));
    let look = server.look(NOW_S);
    assert!(matches!(&look, Look::Refused { again: false, .. }), "{look:?}");
    assert!(matches!(server.look(NOW_S + 5), Look::Refused { again: true, .. }));
    meet(&server, &client).await.0.expect("the old pair is at work");
    assert_eq!(kinds(&server, NOW_S + REFUSED_GRACE_S - 1), [""; 0]);
    let alarms = server.alarms(NOW_S + REFUSED_GRACE_S);
    assert_eq!((alarms[0].kind, alarms[0].since_s), (AlarmKind::CertificateFiles, NOW_S));
    assert!(alarms[0].reason.contains("does not serve"), "{}", alarms[0].reason);

    // Put back, it is as if nothing had been.
    fs::write(&files.certificate, &old).expect("write");
    take(&server);
    assert_eq!(kinds(&server, NOW_S + REFUSED_GRACE_S), [""; 0]);
    // And done to its end, the new pair is at work.
    copy(&fresh.certificate, &files.certificate);
    assert!(matches!(server.look(NOW_S), Look::Changed));
    copy(&fresh.key, &files.key);
    take(&server);
    let refused = meet(&server, &client).await.0.expect_err("another name");
    assert!(refused.contains("fresh.test"), "{refused}");
}

#[test]
fn files_that_go_on_changing_are_not_read() {
    let pki = Pki::new();
    let files = pki.paths(&leaf("server.test"), &pki);
    let server = keyring(&files);
    for _ in 0..3 {
        // A bundle that is written piece by piece: each piece of it is whole.
        fs::write(&files.ca, pki.ca_pem.repeat(2)).expect("write");
        assert!(matches!(server.look(NOW_S), Look::Changed));
        fs::write(&files.ca, &pki.ca_pem).expect("write");
    }
    take(&server);
    fs::remove_file(&files.ca).expect("removed");
    assert!(matches!(server.look(NOW_S), Look::Changed));
    assert!(matches!(server.look(NOW_S), Look::Refused { .. }));
}

#[tokio::test]
async fn two_authorities_overlap() {
    let (old, new) = (Pki::named("Old CA"), Pki::named("New CA"));
    let files = old.paths(&leaf("server.test"), &old);
    let server = keyring(&files);
    let acceptor = Acceptor::of(server.clone(), NOW, ALPN_DOT);
    let before = keyring(&old.paths(&leaf("before.test"), &old));
    let after = keyring(&new.paths(&leaf("after.test"), &old));
    let chain = meet(&server, &before).await.1.expect("accepted");
    meet(&server, &after).await.1.expect_err("not yet");
    fs::write(&files.ca, [&*old.ca_pem, &*new.ca_pem].concat()).expect("write");
    take(&server);
    assert!(acceptor.still_accepts(&chain));
    let chain_after = meet(&server, &after).await.1.expect("accepted");
    fs::write(&files.ca, &new.ca_pem).expect("write");
    take(&server);
    assert!(acceptor.still_accepts(&chain_after) && !acceptor.still_accepts(&chain));
}

/// The leaves of the tests end with 2027-12-31, the CAs of `rcgen` in the year 4096.
#[tokio::test]
async fn what_ends_is_said_in_time() {
    let pki = Pki::new();
    let server = keyring(&pki.paths(&leaf("server.test"), &pki));
    let client = keyring(&pki.paths(&leaf("client.test"), &pki));
    let chain = meet(&server, &client).await.1.expect("accepted");
    let end_s = 1_830_211_200;
    let all = |now_s| (kinds(&server, now_s), server.endings().len());
    assert_eq!(all(end_s - 30 * DAY_S - 1), (vec![], 2));
    assert_eq!(all(end_s - 30 * DAY_S), (vec!["certificate-expiring"], 2));
    Acceptor::of(server.clone(), NOW, ALPN_DOT).saw(Holder::Peer, &"ns1".into(), &chain);
    assert_eq!(all(end_s - 7 * DAY_S - 1).0, ["certificate-expiring"; 2]);
    assert_eq!(all(end_s - 7 * DAY_S).0, ["certificate-expiring-soon"; 2]);
    assert_eq!(all(end_s).0, ["certificate-expired"; 2]);
    let reasons: Vec<_> = server.alarms(end_s).into_iter().map(|alarm| alarm.reason).collect();
    assert!(reasons.iter().any(|r| r.contains("our certificate \"server.test\" ended at 2027")));
    assert!(reasons.iter().any(|r| r.contains("peer \"ns1\" last showed ended")), "{reasons:?}");
    server.seen().retain(|_, name| name != "ns1");
    assert_eq!(all(end_s).0, ["certificate-expired"]);
}

#[test]
fn our_own_certificate_in_a_list_is_said() {
    let pki = Pki::new();
    let files = pki.paths(&leaf("server.test"), &pki);
    let server = keyring(&with_list(files, &pki.list(&["server.test"], 2025, 2099)));
    assert_eq!(kinds(&server, NOW_S), ["certificate-revoked"]);
}

/// A CA that is in the bundle for later alarms nobody; neither does a list that is renewed in time.
#[test]
fn what_is_not_in_use_alarms_nobody() {
    let (pki, later) = (Pki::named("CA"), Pki::named("Later CA"));
    let files = pki.paths(&leaf("server.test"), &pki);
    fs::write(&files.ca, [&*pki.ca_pem, &*later.ca_pem].concat()).expect("write");
    let server = keyring(&with_list(files, &pki.list(&[], 2025, 2027)));
    let named: Vec<_> = server.endings().into_iter().map(|e| (e.what.as_str(), e.name)).collect();
    let expect = [("crl", "CA"), ("own", "server.test"), ("ca", "CA")];
    assert_eq!(named, expect.map(|(what, name)| (what, name.to_owned())));
    // A list of two years alarms a week before.
    let next_s = 1_798_761_600;
    assert_eq!(kinds(&server, next_s - 7 * DAY_S - 1), [""; 0]);
    assert_eq!(kinds(&server, next_s - 7 * DAY_S), ["crl-expiring"]);
    assert_eq!(kinds(&server, next_s), ["crl-expired"]);
}

/// A pipe that nobody writes to, as a network file system that does not answer.
#[test]
fn alarms_do_not_wait_for_files_that_do_not_come() {
    let pki = Pki::new();
    let files = pki.paths(&leaf("server.test"), &pki);
    let ring = keyring(&files);
    fs::remove_file(&files.ca).expect("removed");
    let made = std::process::Command::new("mkfifo").arg(&files.ca).status();
    assert!(made.expect("run").success());
    assert!(matches!(ring.look(NOW_S), Look::Changed));
    let (sender, answered) = std::sync::mpsc::channel();
    let looking = std::thread::spawn({
        let ring = ring.clone();
        move || ring.look(NOW_S)
    });
    // This opens once the look is in the middle of reading.
    let pipe = fs::OpenOptions::new().write(true).open(&files.ca).expect("opened");
    std::thread::spawn(move || sender.send(ring.alarms(NOW_S).len()));
    let alarms = answered.recv_timeout(DEADLINE);
    drop(pipe);
    assert_eq!(alarms, Ok(0));
    assert!(matches!(looking.join().expect("no panic"), Look::Refused { .. }));
}
