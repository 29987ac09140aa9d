use countersign_zone::{
    AdmissionParams, AdmittedZone, Packed, ReceivedZone, Receiver, Refusal, Rtype, admit,
};
use proptest::prelude::*;

use super::*;
use crate::published::testing::{soa, zone_name};

const BOUNDS: Bounds = Bounds { records_max: 1_000, bytes_max: 1 << 20 };
const ID: u16 = 7;
const OK: u16 = Flags::QR | Flags::AA;
const HAVE: u32 = 5;

fn zone() -> ZoneName {
    zone_name("a.test")
}

/// A record of an answer: owner, type, RDATA.
type Rr = (Vec<u8>, u16, Vec<u8>);

fn soa_rr(serial: u32) -> Rr {
    (zone().as_wire().to_vec(), types::SOA, soa(&zone(), serial))
}

fn below(label: &str) -> Vec<u8> {
    [&[label.len() as u8], label.as_bytes(), zone().as_wire()].concat()
}

fn a_rr(label: &str, last: u8) -> Rr {
    (below(label), 1, vec![192, 0, 2, last])
}

fn ns_rr() -> Rr {
    (zone().as_wire().to_vec(), 2, below("ns"))
}

/// Serial 5, with hosts x, y and z.
fn base() -> Base {
    Base::of_admitted(&admitted(&[soa_rr(HAVE), ns_rr(), a_rr("x", 1), a_rr("y", 1), a_rr("z", 1)]))
}

fn admitted(records: &[Rr]) -> AdmittedZone {
    let mut receiver = Receiver::new(zone(), BOUNDS);
    for (owner, rtype, rdata) in records {
        receiver.push(owner, *rtype, CLASS_IN, 60, rdata).expect("record");
    }
    admitted_of(receiver.finish().expect("records"))
}

fn admitted_of(received: ReceivedZone) -> AdmittedZone {
    judged(received).expect("admitted")
}

fn judged(received: ReceivedZone) -> Result<AdmittedZone, Refusal> {
    admit(received, &AdmissionParams { ttl_max_s: 86_400, ..AdmissionParams::UNBOUNDED })
}

fn message(qname: Option<&str>, flags: u16, records: &[Rr]) -> Vec<u8> {
    let mut writer = MessageWriter::new(Header { id: ID, flags: Flags(flags) }, MESSAGE_BYTES_MAX);
    if let Some(qname) = qname {
        writer.question(zone_name(qname).as_wire(), types::IXFR, CLASS_IN).expect("room");
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

fn assemble(messages: &[Vec<u8>], dnssec: IncomingDnssec) -> Result<Answered, IxfrError> {
    assemble_differences(&framed(messages), base(), ID, BOUNDS, dnssec)
}

/// What the differences in `records` make, in one message and in one each.
fn made(records: &[Rr]) -> Packed {
    let one = [message(Some("a.test"), OK, records)];
    let mut many = vec![message(Some("A.test"), OK, &records[..1])];
    many.extend(records[1..].iter().map(|rr| message(None, OK, std::slice::from_ref(rr))));
    let [a, b] = [&one[..], &many].map(|messages| {
        let answered = assemble(messages, IncomingDnssec::Strip).expect("answer");
        let Answered::Differences(patch, serial) = answered else { panic!("{answered:?}") };
        let zone = admitted_of(patch.finish().expect("fits"));
        assert_eq!(zone.serial(), serial);
        zone.records().clone()
    });
    assert_eq!(a, b);
    a
}

fn refused(records: &[Rr], expect: &str) {
    refused_messages(&[message(Some("a.test"), OK, records)], expect);
}

fn refused_messages(messages: &[Vec<u8>], expect: &str) {
    match assemble(messages, IncomingDnssec::Strip) {
        Err(error) => assert!(error.to_string().contains(expect), "{error}, expected {expect}"),
        Ok(found) => panic!("{found:?}, expected {expect}"),
    }
}

#[test]
fn sequences_lead_from_what_is_here_to_the_newest() {
    let one = [soa_rr(6), soa_rr(5), a_rr("x", 1), soa_rr(6), a_rr("x", 2), soa_rr(6)];
    let expect = [soa_rr(6), ns_rr(), a_rr("x", 2), a_rr("y", 1), a_rr("z", 1)];
    assert_eq!(made(&one), *admitted(&expect).records());
    // Three steps; a record goes and comes back; the last changes the serial alone.
    let three = [
        soa_rr(9),
        soa_rr(5),
        a_rr("x", 1),
        a_rr("y", 1),
        soa_rr(6),
        a_rr("w", 1),
        soa_rr(6),
        soa_rr(8),
        a_rr("x", 1),
        soa_rr(8),
        soa_rr(9),
        soa_rr(9),
    ];
    let expect = [soa_rr(9), ns_rr(), a_rr("w", 1), a_rr("x", 1), a_rr("z", 1)];
    assert_eq!(made(&three), *admitted(&expect).records());
}

#[test]
fn nothing_newer_is_one_soa() {
    for serial in [5, 4] {
        let answered =
            assemble(&[message(Some("a.test"), OK, &[soa_rr(serial)])], IncomingDnssec::Strip);
        let Ok(Answered::UpToDate { serial: found }) = answered else { panic!("{answered:?}") };
        assert_eq!(found, serial);
    }
    refused(&[soa_rr(5), a_rr("x", 1)], "serial 5, not newer than 5, and goes on");
    refused(&[soa_rr(6)], "without the closing SOA");
    let two = [message(Some("a.test"), OK, &[soa_rr(5)]), message(None, OK, &[a_rr("x", 1)])];
    refused_messages(&two, "octets behind the end");
}

#[test]
fn the_whole_zone_may_be_the_answer() {
    for records in [vec![soa_rr(6), ns_rr(), a_rr("x", 9), soa_rr(6)], vec![soa_rr(6), soa_rr(6)]] {
        let mut messages = vec![message(Some("a.test"), OK, &records[..1])];
        messages.push(message(None, OK, &records[1..]));
        let answered = assemble(&messages, IncomingDnssec::Strip).expect("answer");
        let Answered::Whole(Assembled { zone, serial: 6 }) = answered else {
            panic!("{answered:?}")
        };
        assert_eq!(zone.records(), records.len() - 1);
    }
    refused(&[soa_rr(6), ns_rr(), soa_rr(7)], "ends in another SOA, with serial 7");
    refused(&[soa_rr(6), ns_rr()], "without the closing SOA");
}

#[test]
fn chains_that_lead_elsewhere_are_refused() {
    let other = |mut rr: Rr, minimum| {
        *rr.2.last_mut().expect("octets") = minimum;
        rr
    };
    refused(&[soa_rr(6), soa_rr(4), soa_rr(6), soa_rr(6)], "serial 4 where 5 was expected");
    refused(&[soa_rr(7), soa_rr(5), soa_rr(6), soa_rr(7), soa_rr(7)], "serial 7 where 6");
    refused(&[soa_rr(7), soa_rr(5), soa_rr(5), soa_rr(7)], "from serial 5 to 5; the newest is 7");
    refused(&[soa_rr(7), soa_rr(5), soa_rr(4), soa_rr(7)], "from serial 5 to 4");
    refused(&[soa_rr(7), soa_rr(5), soa_rr(8), soa_rr(7)], "from serial 5 to 8");
    refused(&[soa_rr(6), soa_rr(5), soa_rr(6), soa_rr(8)], "in another SOA, with serial 8");
    refused(&[soa_rr(6), soa_rr(5), soa_rr(6)], "without the closing SOA");
    refused(&[soa_rr(6), soa_rr(5), a_rr("x", 1)], "without the closing SOA");
    refused(&[soa_rr(6), soa_rr(5), soa_rr(6), soa_rr(6), a_rr("x", 3)], "behind the closing SOA");
    refused(&[a_rr("x", 1)], "not with the SOA of a.test.");
    // The right serials, and other numbers: not the SOA that is here, or not the one that was opened
    // with.
    refused(&[soa_rr(6), other(soa_rr(5), 9), soa_rr(6), soa_rr(6)], "SOA: the difference deletes");
    refused(&[soa_rr(6), soa_rr(5), soa_rr(6), other(soa_rr(6), 9)], "in another SOA");
    refused(&[soa_rr(6), soa_rr(5), other(soa_rr(6), 9), soa_rr(6)], "in another SOA");
}

#[test]
fn what_does_not_fit_is_refused() {
    let step = |gone: Rr, come: Rr| vec![soa_rr(6), soa_rr(5), gone, soa_rr(6), come, soa_rr(6)];
    refused(&step(a_rr("x", 2), a_rr("x", 3)), "x.a.test. A: the difference deletes");
    refused(&step(a_rr("x", 1), a_rr("y", 1)), "y.a.test. A: the difference adds");
    let outside = (zone_name("b.test").as_wire().to_vec(), 1, vec![1, 2, 3, 4]);
    refused(&step(a_rr("x", 1), outside), "outside the zone");
    let mut endless = vec![soa_rr(6), soa_rr(5), a_rr("x", 1), soa_rr(6), a_rr("x", 1)];
    for serial in 6..600 {
        endless.push(soa_rr(serial));
        endless.push(soa_rr(serial + 1));
    }
    endless[0] = soa_rr(10_000);
    let messages: Vec<_> =
        endless.chunks(100).map(|records| message(Some("a.test"), OK, records)).collect();
    refused_messages(&messages, "more than 1000 records of differences");
}

#[test]
fn dnssec_records_are_left_out_or_refused_as_in_a_whole_zone() {
    let nsec = (below("x"), 47, b"\x01y\x01a\x04test\x00\x00\x01\x40".to_vec());
    let records = [soa_rr(6), soa_rr(5), nsec.clone(), soa_rr(6), nsec.clone(), soa_rr(6)];
    let expect = [soa_rr(6), ns_rr(), a_rr("x", 1), a_rr("y", 1), a_rr("z", 1)];
    assert_eq!(made(&records), *admitted(&expect).records());
    let one = [message(Some("a.test"), OK, &records)];
    let refused = assemble(&one, IncomingDnssec::Refuse).expect_err("not in the base");
    assert!(matches!(refused, IxfrError::Mismatch(Mismatch::NotThere(_))), "{refused}");
}

#[test]
fn a_primary_that_says_no_is_remembered() {
    let manners = Manners::default();
    let peer: PeerName = "p".into();
    for (code, lasting) in [
        (rcode::SERVFAIL, false),
        (rcode::NOTIMP, true),
        (rcode::FORMERR, true),
        (rcode::REFUSED, true),
    ] {
        let no = [message(Some("a.test"), OK | u16::from(code), &[])];
        let error = assemble(&no, IncomingDnssec::Strip).expect_err("no");
        let (error, manners) = (TransferError::from(error), Manners::default());
        manners.learn(&peer, &error);
        assert_eq!(manners.gives_differences(&peer), !lasting, "{error}");
    }
    manners.learn(&peer, &IxfrError::Chain { found: 1, expected: 2 }.into());
    assert!(manners.gives_differences(&peer), "an odd answer says nothing of the next");
}

#[test]
fn the_query_shows_what_is_here() {
    let query = Message::parse(&query(9, &zone(), &base()).expect("fits")).expect("query");
    assert!(query.question().expect("one").same_as(zone().as_wire(), types::IXFR, CLASS_IN));
    let mut authority = query.section(crate::wire::Section::Authority);
    assert_eq!(authority.next().map(|record| serial_of(record.rdata)), Some(HAVE));
}

proptest! {
    /// Whatever a primary sends is judged, and what changes one octet never yields a zone with
    /// another serial or without its apex.
    #[test]
    fn a_changed_octet_is_judged(at in 0usize..400, value in any::<u8>()) {
        let records =
            [soa_rr(6), soa_rr(5), a_rr("x", 1), soa_rr(6), a_rr("x", 2), soa_rr(6)];
        let mut stream = framed(&[message(Some("a.test"), OK, &records)]);
        let at = at % stream.len();
        stream[at] = value;
        let answered = assemble_differences(&stream, base(), ID, BOUNDS, IncomingDnssec::Strip);
        if let Ok(Answered::Differences(patch, serial)) = answered
            && let Ok(zone) = judged(patch.finish().expect("a zone"))
        {
            prop_assert_eq!(zone.serial(), serial);
            prop_assert!(zone.records().node(zone.apex().as_wire()).expect("apex").has(Rtype::NS));
        }
    }

    #[test]
    fn any_stream_is_judged(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = assemble_differences(&octets, base(), ID, BOUNDS, IncomingDnssec::Strip);
    }
}
