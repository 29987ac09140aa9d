//! What someone can do who took over the daemon, and speaks to the keeper as its user: nothing that
//! needs a KSK's consent, nothing beyond the policy, nothing to the keeper's other work.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use countersign_hsm::frame;
use countersign_hsm::protocol::{PROTOCOL_VERSION, RefusalKind, Request, Response, TBS_BYTES_MAX};
use countersign_policy::{KeyId, KeyRole};

use crate::bed::{Item, Site, child, key_of, now, order, refusal, until, zone};

#[test]
fn a_zsk_signs_nothing_that_it_should_not() {
    let site = Site::founded();
    let keeper = site.signing();
    let client = keeper.ready();
    let keys = client.zone(&zone()).expect("keys");
    let zsk = key_of(&keys, KeyRole::Zsk);
    let check = |change: &dyn Fn(&mut Item), expect: &str| {
        let mut item = Item::of(&zsk);
        change(&mut item);
        let octets = vec![item.octets()];
        let answer = client.sign_zone(&zone(), zsk.public.id(), octets).expect("answered");
        let refused = answer[0].as_ref().expect_err(expect);
        assert!(refused.detail.contains(expect), "{refused} / {expect}");
    };
    for rtype in [48, 59, 60, 62, 46, 0, 41, 251, 252, 255] {
        check(&|item| (item.covered, item.rtype) = (rtype, rtype), &format!("type {rtype}:"));
    }
    check(&|item| item.rtype = 48, "a record of type 48 under type covered 1");
    check(&|item| item.covered = 48, "a record of type 1 under type covered 48");
    let at_child = |item: &mut Item| {
        item.owner = child().as_wire().to_vec();
        (item.covered, item.rtype) = (43, 43);
    };
    check(&at_child, "a DS of child.example., which is signed here");
    check(&|item| item.expiration = now() + 86_400 * 14 + 3_600, "the zone's policy allows");
    check(&|item| item.expiration = now() + 86_400 * 400, "the zone's policy allows");
    check(&|item| item.inception = now() + 86_400, "ahead of the keeper's clock");
    check(&|item| item.inception -= 86_400, "would be valid for");
    check(&|item| item.expiration = now() - 1, "in the past");
    check(&|item| item.signer = child().as_wire().to_vec(), "signer's name");
    check(&|item| item.owner = b"\x03www\x05other\0".to_vec(), "is not in example.");
    check(&|item| item.tag ^= 1, "key tag");
    check(&|item| item.algorithm = 8, "algorithm 8");
    check(&|item| item.ttl_s = 86_401, "TTL 86401");
    check(&|item| item.labels = 1, "labels field");
    check(&|item| item.rdatas.reverse(), "strictly ascending");
    check(&|item| item.rdatas.clear(), "there is no record");
    // A DS of a zone that is not signed here is a zone's data like any other.
    let mut foreign_ds = Item::of(&zsk);
    (foreign_ds.covered, foreign_ds.rtype) = (43, 43);
    let answer = client.sign_zone(&zone(), zsk.public.id(), vec![foreign_ds.octets()]);
    assert!(answer.expect("answered")[0].is_ok());
    assert!(!site.read("state/ledger.jsonl").contains("\"verb\":\"sign-dnskey\""));
}

#[test]
fn a_ksk_signs_the_zones_own_keys_and_nothing_else() {
    let site = Site::founded();
    let keeper = site.signing();
    let client = keeper.ready();
    let keys = client.zone(&zone()).expect("keys");
    let other = client.zone(&child()).expect("keys");
    let (ksk, zsk) = (key_of(&keys, KeyRole::Ksk), key_of(&keys, KeyRole::Zsk));
    let csk = key_of(&other, KeyRole::Csk).public.id();
    let lines = site.ledger().len();

    // Through the zone's door, a KSK signs nothing at all.
    for covered in [1, 48] {
        let mut item = Item::of(&ksk);
        (item.covered, item.rtype) = (covered, covered);
        let answer = client.sign_zone(&zone(), ksk.public.id(), vec![item.octets()]);
        assert_eq!(refusal(answer).kind, RefusalKind::Forbidden);
    }
    // Another zone's key, or a key that is nobody's, signs nothing for this zone.
    for key in [csk, KeyId([7; 32])] {
        let answer = client.sign_zone(&zone(), key, vec![Item::of(&zsk).octets()]);
        assert_eq!(refusal(answer).kind, RefusalKind::Unknown);
    }
    let right = order(&keys);
    let wrong = |change: &dyn Fn(&mut countersign_hsm::client::DnskeyOrder), kind| {
        let mut order = right.clone();
        change(&mut order);
        let refused = refusal(client.sign_dnskey(&zone(), order));
        assert_eq!(refused.kind, kind, "{refused}");
    };
    wrong(&|order| _ = order.keys.insert(KeyId([7; 32])), RefusalKind::Forbidden);
    wrong(&|order| _ = order.keys.insert(csk), RefusalKind::Forbidden);
    wrong(&|order| _ = order.keys.remove(&zsk.public.id()), RefusalKind::Forbidden);
    wrong(&|order| order.signer = zsk.public.id(), RefusalKind::Forbidden);
    wrong(&|order| order.signer = csk, RefusalKind::Unknown);
    wrong(&|order| order.ttl_s = 60, RefusalKind::Forbidden);
    wrong(&|order| order.expiration += 86_400 * 365, RefusalKind::Forbidden);
    wrong(&|order| order.inception += 86_400, RefusalKind::Forbidden);
    let nowhere = "nowhere.".parse().expect("name");
    assert_eq!(refusal(client.sign_dnskey(&nowhere, right)).kind, RefusalKind::Unknown);
    assert_eq!(site.ledger().len(), lines, "what is refused leaves no line, and reached no HSM");
}

#[test]
fn another_user_is_not_even_heard() {
    let site = Site::new();
    let other = nix::unistd::Uid::effective().as_raw() + 1;
    site.write_config(other, None);
    let keeper = site.start();
    keeper.ledger_client();
    let mut stream = UnixStream::connect(site.path("keeper.sock")).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    let hello = frame::encode(1, &Request::Hello { protocol: PROTOCOL_VERSION }).expect("frame");
    // The keeper may have closed it already.
    let _ = stream.write_all(&hello);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{answer:?}");
    until("the refusal is logged", || {
        let log = keeper.log();
        if log.contains("a connection by another user is dropped") { Ok(()) } else { Err(log) }
    });
}

#[test]
fn what_is_not_the_protocol_costs_its_own_connection() {
    let site = Site::founded();
    let keeper = site.signing();
    let client = keeper.ready();
    let connect = || {
        let stream = UnixStream::connect(site.path("keeper.sock")).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        stream
    };
    let is_dropped = |mut stream: UnixStream| {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    };
    let hello = frame::encode(1, &Request::Hello { protocol: PROTOCOL_VERSION }).expect("frame");
    let no_hello = frame::encode(1, &Request::Health).expect("frame");
    let huge = u32::MAX.to_be_bytes().to_vec();
    let rubbish = [&[0, 0, 0, 5][..], &[0xff; 5]].concat();
    for first in [&no_hello, &huge, &rubbish] {
        let mut stream = connect();
        stream.write_all(first).expect("written");
        is_dropped(stream);
    }
    for second in [&huge, &rubbish] {
        let mut stream = connect();
        stream.write_all(&[&hello[..], second].concat()).expect("written");
        is_dropped(stream);
    }
    let mut older = connect();
    let hello = frame::encode(1, &Request::Hello { protocol: 0 }).expect("frame");
    older.write_all(&hello).expect("written");
    let mut body = Vec::new();
    assert!(frame::read(&mut older, &mut body).expect("an answer"));
    let (_, answer) = frame::decode::<Response>(&body).expect("a response");
    assert!(matches!(answer, Response::Refused(_)), "{answer:?}");
    is_dropped(older);
    assert!(client.health().is_ok(), "the daemon's own connection has noticed nothing");
}

#[test]
fn idle_connections_are_dropped_and_others_served() {
    let site = Site::founded();
    let keeper = site.signing();
    let client = keeper.ready();
    let idle: Vec<UnixStream> =
        (0..100).filter_map(|_| UnixStream::connect(site.path("keeper.sock")).ok()).collect();
    assert!(client.health().is_ok(), "who is connected is served");
    let again = keeper.client();
    until("who comes later is served when the idle ones were dropped", || {
        again.health().map_err(|e| e.to_string())
    });
    drop(idle);
}

#[test]
fn an_item_too_large_is_refused_in_its_place() {
    let site = Site::founded();
    let keeper = site.signing();
    let client = keeper.ready();
    let zsk = key_of(&client.zone(&zone()).expect("keys"), KeyRole::Zsk);
    let items = vec![vec![0; TBS_BYTES_MAX + 1], Item::of(&zsk).octets(), Vec::new()];
    let answers = client.sign_zone(&zone(), zsk.public.id(), items).expect("answered");
    let kinds: Vec<_> =
        answers.iter().map(|answer| answer.as_ref().err().map(|r| r.kind)).collect();
    assert_eq!(kinds, [Some(RefusalKind::Malformed), None, Some(RefusalKind::Malformed)]);
}
