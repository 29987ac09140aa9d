use proptest::prelude::*;

use super::framing::Deframer;
use super::*;

fn header(qd: u16, an: u16) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 0x84, 0x00];
    for count in [qd, an, 0, 0] {
        bytes.extend_from_slice(&count.to_be_bytes());
    }
    bytes
}

/// A message with one answer: `owner` and `rdata` as they stand in the message.
fn one_answer(owner: &[u8], rtype: u16, rdata: &[u8]) -> Vec<u8> {
    let mut bytes = header(1, 1);
    bytes.extend_from_slice(b"\x07eXample\x04test\x00\x00\x06\x00\x01"); // offset 12; test at 20
    bytes.extend_from_slice(owner);
    bytes.extend_from_slice(&rtype.to_be_bytes());
    bytes.extend_from_slice(&[0, 1, 0, 0, 0, 9]);
    bytes.extend_from_slice(&u16::try_from(rdata.len()).expect("short").to_be_bytes());
    bytes.extend_from_slice(rdata);
    bytes
}

fn check(owner: &[u8], rtype: u16, rdata: &[u8], expect: Result<(&[u8], &[u8]), &WireError>) {
    let bytes = one_answer(owner, rtype, rdata);
    match (Message::parse(&bytes), expect) {
        (Ok(message), Ok((owner, rdata))) => {
            let record = message.section(Section::Answer).next().expect("one");
            assert_eq!((record.owner, record.rdata), (owner, rdata));
            assert_eq!((record.rtype, record.class, record.ttl_s), (rtype, 1, 9));
        }
        (Err(found), Err(expect)) => assert_eq!(&found, expect),
        (found, expect) => panic!("{found:?}, expected {expect:?}"),
    }
}

#[test]
fn names_come_out_uncompressed_with_their_case() {
    let apex = b"\x07eXample\x04test\x00";
    check(b"\xc0\x0c", 1, &[1, 2, 3, 4], Ok((apex, &[1, 2, 3, 4])));
    check(
        b"\x01A\xc0\x14",
        2,
        b"\x02nS\xc0\x0c",
        Ok((b"\x01A\x04test\x00", b"\x02nS\x07eXample\x04test\x00")),
    );
    check(b"\xc0\x0c", 15, b"\x00\x0a\xc0\x14", Ok((apex, b"\x00\x0a\x04test\x00")));
    check(
        b"\xc0\x0c",
        33,
        b"\0\x01\0\x02\0\x03\xc0\x14",
        Ok((apex, b"\0\x01\0\x02\0\x03\x04test\0")),
    );
    check(
        b"\xc0\x0c",
        35,
        b"\0\x01\0\x02\x01s\x03abc\x00\xc0\x14",
        Ok((apex, b"\0\x01\0\x02\x01s\x03abc\x00\x04test\0")),
    );
    let soa = [b"\xc0\x0c\xc0\x14".as_slice(), &[7; 20]].concat();
    let soa_expect = [b"\x07eXample\x04test\x00\x04test\x00".as_slice(), &[7; 20]].concat();
    check(b"\xc0\x0c", 6, &soa, Ok((apex, &soa_expect)));
    check(b"\xc0\x0c", 39, b"\xc0\x14", Ok((apex, b"\x04test\x00")));
}

#[test]
fn what_looks_like_a_pointer_in_other_types_is_data() {
    let apex: &[u8] = b"\x07eXample\x04test\x00";
    for rtype in [1, 16, 46, 47, 50, 65_280] {
        check(b"\xc0\x0c", rtype, b"\xc0\x0c", Ok((apex, b"\xc0\x0c")));
    }
}

#[test]
fn pointers_go_back_to_names_only() {
    // The owner begins at octet 30.
    for (owner, expect) in [
        (&b"\xc0\x1e"[..], WireError::BadPointer { at: 30, target: 30 }),
        (b"\x01a\xc0\x1e", WireError::BadPointer { at: 32, target: 30 }),
        (b"\xc0\x20", WireError::BadPointer { at: 30, target: 32 }),
        (b"\xff\xff", WireError::BadPointer { at: 30, target: 0x3fff }),
        (b"\xc0\x00", WireError::BadPointer { at: 30, target: 0 }),
        (b"\xc0\x0b", WireError::BadPointer { at: 30, target: 11 }),
        (b"\x40\x00", WireError::BadLabel { at: 30 }),
        (b"\x80\x00", WireError::BadLabel { at: 30 }),
    ] {
        check(owner, 1, &[1, 2, 3, 4], Err(&expect));
    }
}

#[test]
fn two_pointers_at_one_another_are_refused() {
    // RDATA of an MX at octet 43: its exchange points at itself by way of an earlier RDATA.
    let mut bytes = header(0, 2);
    bytes.extend_from_slice(b"\x00\x00\x02\x00\x01\0\0\0\0\x00\x02\xc0\x27"); // pointer at 23
    bytes.extend_from_slice(b"\x00\x00\x02\x00\x01\0\0\0\0\x00\x02\xc0\x17");
    assert_eq!(
        Message::parse(&bytes).expect_err("loop"),
        WireError::BadPointer { at: 23, target: 0x27 }
    );
}

#[test]
fn names_are_bounded() {
    // Labels that chain backwards: each name is one label and a pointer to the one before.
    let mut bytes = header(0, 5);
    let mut before = None;
    for _ in 0..5 {
        let here = bytes.len();
        bytes.push(63);
        bytes.extend_from_slice(&[b'a'; 63]);
        match before {
            None => bytes.push(0),
            Some(target) => bytes
                .extend_from_slice(&(0xc000 | u16::try_from(target).expect("small")).to_be_bytes()),
        }
        bytes.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
        before = Some(here);
    }
    assert!(matches!(Message::parse(&bytes), Err(WireError::NameTooLong { .. })));
}

#[test]
fn rdata_ends_where_its_type_ends() {
    let apex = b"\xc0\x0c";
    check(apex, 2, b"\xc0\x14\x00", Err(&WireError::RdataTooLong { at: 44, rtype: 2 }));
    check(apex, 6, b"\xc0\x14\xc0\x14\x00", Err(&WireError::Short { at: 46 }));
    check(apex, 15, b"\x00", Err(&WireError::Short { at: 42 }));
    check(apex, 35, b"\0\0\0\0\x05ab", Err(&WireError::Short { at: 46 }));
    check(apex, 2, b"", Err(&WireError::Short { at: 42 }));
    // The name goes on behind the RDATA's end.
    check(apex, 2, b"\x05ab", Err(&WireError::Short { at: 42 }));
}

#[test]
fn counts_are_claims() {
    let mut bytes = header(0, 0xffff);
    bytes.extend_from_slice(&[0; 11]);
    assert_eq!(Message::parse(&bytes).expect_err("counts"), WireError::Counts { counted: 0xffff });
    let mut bytes = one_answer(b"\xc0\x0c", 1, &[1, 2, 3, 4]);
    bytes.push(0);
    assert_eq!(Message::parse(&bytes).expect_err("more"), WireError::Trailing { at: 46 });
    assert_eq!(Message::parse(&bytes[..11]).expect_err("short"), WireError::Short { at: 11 });
}

#[test]
fn a_full_message_takes_nothing_more() {
    let flags = Flags::request(OPCODE_QUERY, 0).reply(Flags::AA, rcode::NOERROR);
    let mut writer = MessageWriter::new(Header { id: 7, flags }, 512);
    writer.question(b"\x04test\x00", types::AXFR, CLASS_IN).expect("room");
    let before = writer.len();
    assert_eq!(writer.answer(b"\x01a\x04test\x00", 16, 1, 60, &[0; 500]), Err(Overflow));
    assert_eq!((writer.len(), writer.answers()), (before, 0));
    writer.answer(b"\x01a\x04test\x00", 16, 1, 60, &[0; 400]).expect("room");
    assert_eq!(writer.answers(), 1);
    writer.lift_bound(0);
    writer.answer(b"\x01a\x04test\x00", 16, 1, 60, &vec![0; 60_000]).expect("room");
    let message = Message::parse(&writer.finish()).expect("own message");
    assert_eq!(message.section(Section::Answer).len(), 2);
}

#[test]
fn reply_keeps_opcode_and_rd() {
    let asked = Flags::request(OPCODE_NOTIFY, Flags::AA | Flags::RD);
    let flags = asked.reply(0, rcode::REFUSED);
    assert!(flags.response() && !flags.authoritative());
    assert_eq!((flags.opcode(), flags.rcode(), flags.0 & Flags::RD), (4, 5, Flags::RD));
}

#[test]
fn serial_arithmetic_of_rfc_1982() {
    for (a, b, expect) in [
        (1, 0, true),
        (0, 1, false),
        (5, 5, false),
        (0, u32::MAX, true),
        (u32::MAX, 0, false),
        (1 << 31, 0, false),
        (0, 1 << 31, false),
        ((1 << 31) - 1, 0, true),
    ] {
        assert_eq!(newer(a, b), expect, "{a} {b}");
    }
}

fn name_of(labels: &[Vec<u8>]) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in labels {
        wire.push(u8::try_from(label.len()).expect("short"));
        wire.extend_from_slice(label);
    }
    wire.push(0);
    wire
}

proptest! {
    #[test]
    fn any_octets_parse_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Message::parse(&bytes);
    }

    /// Headers that claim little, so that more than counts are tried.
    #[test]
    fn any_octets_behind_a_plausible_header(
        qd in 0u16..2, an in 0u16..4, rest in prop::collection::vec(prop_oneof![Just(0u8), Just(0xc0), 0u8..64, any::<u8>()], 0..300)
    ) {
        let bytes = [header(qd, an), rest].concat();
        let _ = Message::parse(&bytes);
    }

    /// What is written is read back: owners (every octet, mixed case, shared suffixes) and RDATA.
    #[test]
    fn written_messages_read_back(
        records in prop::collection::vec((
            prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'a'), Just(b'A'), any::<u8>()], 1..3), 0..5),
            prop::collection::vec(any::<u8>(), 0..40),
        ), 0..600)
    ) {
        let mut writer = MessageWriter::new(Header { id: 1, flags: Flags(0x8400) }, MESSAGE_BYTES_MAX);
        writer.question(b"\x01a\x01A\x00", types::AXFR, CLASS_IN).expect("room");
        for (labels, rdata) in &records {
            writer.answer(&name_of(labels), 65_280, 1, 60, rdata).expect("room");
        }
        let message = Message::parse(&writer.finish()).expect("own message");
        let read: Vec<_> = message.section(Section::Answer).map(|r| (r.owner.to_vec(), r.rdata.to_vec())).collect();
        let wrote: Vec<_> = records.iter().map(|(l, r)| (name_of(l), r.clone())).collect();
        prop_assert_eq!(read, wrote);
    }

    /// However the stream is cut, the messages are the same.
    #[test]
    fn framing_does_not_depend_on_the_cuts(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..10), cut in 1usize..60
    ) {
        let mut stream = Vec::new();
        for message in &messages {
            stream.extend_from_slice(&u16::try_from(message.len()).expect("short").to_be_bytes());
            stream.extend_from_slice(message);
        }
        let mut deframer = Deframer::new();
        let mut found = Vec::new();
        for piece in stream.chunks(cut) {
            deframer.feed(piece);
            while let Some(message) = deframer.take() {
                found.push(message.to_vec());
            }
            prop_assert!(!deframer.ready());
        }
        prop_assert_eq!(deframer.pending(), 0);
        prop_assert_eq!(found, messages);
    }
}
