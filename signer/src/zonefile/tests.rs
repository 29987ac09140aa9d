//! Files as people write them, and what is wrong with them.

use std::fmt::Write as _;

use countersign_policy::name::write_presentation;
use proptest::prelude::*;

use super::*;

/// Records as lines of owner, TTL, type and RDATA in hexadecimal.
#[derive(Default)]
struct Lines(Vec<String>);

impl Sink for Lines {
    fn push(
        &mut self,
        owner: &[u8],
        rtype: Rtype,
        ttl_s: u32,
        rdata: &[u8],
    ) -> Result<(), Refusal> {
        let mut line = String::new();
        write_presentation(owner, &mut line).expect("written");
        let hex = countersign_policy::key::to_hex(rdata);
        write!(line, " {ttl_s} {rtype} {hex}").expect("written");
        self.0.push(line);
        Ok(())
    }
}

fn apex() -> ZoneName {
    "Example.".parse().expect("name")
}

fn read_in(octets: &[u8], piece: usize) -> Result<Vec<String>, Problem> {
    let mut reader = Reader::into_sink(&apex(), Lines::default());
    octets.chunks(piece).try_for_each(|chunk| reader.feed(chunk))?;
    Ok(reader.end()?.0.0)
}

fn read(text: impl AsRef<[u8]>) -> Result<Vec<String>, Problem> {
    read_in(text.as_ref(), 7)
}

/// What is read of `text`.
fn check(text: impl AsRef<[u8]>, expect: &[&str]) {
    let shown = String::from_utf8_lossy(text.as_ref()).into_owned();
    assert_eq!(
        read(text).unwrap_or_else(|problem| panic!("{problem}\n{shown}")),
        expect,
        "{shown}"
    );
}

/// Where and why `text` is refused.
fn refused(text: impl AsRef<[u8]>, line: u64, column: u64, why: &str) {
    let shown = String::from_utf8_lossy(text.as_ref()).into_owned();
    let problem = read(text).expect_err(&shown);
    assert_eq!(problem.place, Place { line, column }, "{problem}\n{shown}");
    assert!(problem.to_string().contains(why), "{problem}\n{shown}");
}

#[test]
fn owners_classes_and_ttls_in_any_order() {
    check(
        "$TTL 60\n@ IN A 192.0.2.1\n  A 192.0.2.2\nwww 30 IN A 192.0.2.3\nwww IN 1h A 192.0.2.4\n\
         w.other. CLASS1 type1 192.0.2.5\n\tA 192.0.2.6",
        &[
            "example. 60 A c0000201",
            "example. 60 A c0000202",
            "www.example. 30 A c0000203",
            "www.example. 3600 A c0000204",
            "w.other. 60 A c0000205",
            "w.other. 60 A c0000206",
        ],
    );
}

#[test]
fn ttls_default_as_rfc_2308_and_1035_say() {
    check(
        "a 5 A 192.0.2.1\nb A 192.0.2.1\n",
        &["a.example. 5 A c0000201", "b.example. 5 A c0000201"],
    );
    check(
        "a 5 A 192.0.2.1\n$TTL 7\nb A 192.0.2.1\nc 9 A 192.0.2.1\nd A 192.0.2.1\n",
        &[
            "a.example. 5 A c0000201",
            "b.example. 7 A c0000201",
            "c.example. 9 A c0000201",
            "d.example. 7 A c0000201",
        ],
    );
    let soa = "@ SOA . . 1 2 3 4 1m\na A 192.0.2.1\nb 9 A 192.0.2.1\nc A 192.0.2.1\n";
    check(
        soa,
        &[
            "example. 60 SOA 0000000000010000000200000003000000040000003c",
            "a.example. 60 A c0000201",
            "b.example. 9 A c0000201",
            "c.example. 60 A c0000201",
        ],
    );
    refused("\n\na A 192.0.2.1\n", 3, 3, "begin the file with $TTL");
    refused("$TTL 2147483648\n", 1, 6, "0 to 2147483647");
    refused("a 1h30 A 192.0.2.1\n", 1, 3, "1h30m");
}

#[test]
fn parentheses_quotes_comments_and_line_ends() {
    check(
        "$TTL 1 ; (\r\n@ TXT ( \"a;b(\" ; c \"\r\n\r\n  x\"y\" ) ; )\n ; \"\n\t\n$ORIGIN b\nc TXT \"\"\n",
        &["example. 1 TXT 04613b622801780179", "c.b.example. 1 TXT 00"],
    );
    refused("$TTL 1\na TXT \"b\nc\"\n", 2, 7, "quote is opened here");
    refused("$TTL 1\na TXT ( b\n\n", 2, 7, "not closed before the file ends");
    refused("$TTL 1\na TXT b )\n", 2, 9, "none is open");
    refused("$TTL 1\na TXT b\\\n", 2, 9, "joined by parentheses");
    refused("$TTL 1\ra TXT b\n", 1, 8, "carriage return without");
}

#[test]
fn every_octet_has_a_way_in() {
    check(
        b"\xef\xbb\xbf$TTL 1\na\\.b\\000\\@ TXT \"\\\"\\\\\\255\t\" \xc3\xa9\\\xff\n".as_slice(),
        &["a\\.b\\000\\@.example. 1 TXT 04225cff0903c3a9ff"],
    );
    refused(b"$TTL 1\na\x00 TXT b\n".as_slice(), 2, 2, "write it \\000");
    refused(b"$TTL 1\na TXT \"\x1b\"\n".as_slice(), 2, 8, "write it \\027");
    refused(b"\xef\xbba".as_slice(), 1, 3, "0xef");
    refused("$TTL 1\na\\256 TXT b\n", 2, 1, "at most 255");
}

#[test]
fn names_have_their_origin() {
    check(
        "$TTL 1\n$ORIGIN sub\n@ MX 10 @\na CNAME @\n@ TXT @ \\@\nb MX 0 .\nc NS d\n",
        &[
            "sub.example. 1 MX 000a03737562076578616d706c6500",
            "a.sub.example. 1 CNAME 03737562076578616d706c6500",
            "sub.example. 1 TXT 01400140",
            "b.sub.example. 1 MX 000000",
            "c.sub.example. 1 NS 016403737562076578616d706c6500",
        ],
    );
    refused("$TTL 1\na..b A 192.0.2.1\n", 2, 1, "empty label");
    refused("$TTL 1\n  A 192.0.2.1\n", 2, 3, "there is none");
    refused("$TTL 1\n\"a\" A 192.0.2.1\n", 2, 1, "in quotes");
}

#[test]
fn directives() {
    refused("$TTL 1\n$INCLUDE /etc/passwd\n", 2, 1, "names a file of this box");
    refused("$include x", 1, 1, "names a file of this box");
    refused("$DATE 1\n", 1, 1, "expected $ORIGIN, $TTL or $GENERATE");
    refused("$TTL 1 2\n", 1, 1, "takes one value");
    refused("$TTL x\n", 1, 6, "the TTL \"x\"");
}

#[test]
fn generate_is_bounded() {
    check(
        "$TTL 1\na A 192.0.2.8\n$GENERATE 1-3/2 h${0,2} 5 IN A 192.0.2.$ ; two\n A 192.0.2.9\n",
        &[
            "a.example. 1 A c0000208",
            "h01.example. 5 A c0000201",
            "h03.example. 5 A c0000203",
            "a.example. 1 A c0000209",
        ],
    );
    check(
        "$TTL 1\n$GENERATE 0-0 @ MX \"1$ mail-$\"\n$GENERATE 2-2 $ TXT \"\\\"a b$\\\" c\"\n",
        &["example. 1 MX 000a066d61696c2d30076578616d706c6500", "2.example. 1 TXT 04612062320163"],
    );
    refused("$TTL 1\n$GENERATE 0-99999 h$ A 192.0.2.1\n", 2, 11, "at most 65536");
    refused("$TTL 1\n$GENERATE 1-2 h$\n", 2, 1, "too short");
    refused("$TTL 1\n$GENERATE 1-2 h${ A 192.0.2.1\n", 2, 15, "stands for no number");
    refused("$TTL 1\n$GENERATE 1-300 h$ A 192.0.2.$\n", 2, 20, "IPv4");
    let bomb = "$GENERATE 0-65535 h$ A 192.0.2.1\n".repeat(16);
    refused(format!("$TTL 1\n{bomb}"), 17, 1, "more than 1000000 records");
}

#[test]
fn what_is_wrong_with_rdata_says_where_and_what_was_expected() {
    refused("$TTL 1\na MX 10\n", 2, 6, "expected PREFERENCE NAME");
    refused("$TTL 1\na MX x m\n", 2, 6, "MX:");
    refused("$TTL 1\na A 192.0.2.256\n", 2, 5, "an IPv4 address");
    refused("$TTL 1\na A 192.0.2.1 x\n", 2, 15, "A:");
    refused("$TTL 1\na A\n", 2, 3, "A:");
    refused("$TTL 1\na B 192.0.2.1\n", 2, 3, "no TTL, class or record type");
    refused("$TTL 1\na CH A 192.0.2.1\n", 2, 3, "expected IN");
    refused("$TTL 1\na\n", 2, 1, "a record type was expected");
    refused("$TTL 1\na 1\n", 2, 3, "a record type was expected");
    refused("$TTL 1\na NULL x\n", 2, 3, "\\# LENGTH HEX");
    refused("$TTL 1\na TYPE9 \\# 2 00\n", 2, 12, "1 octets where 2 were said");
    refused("$TTL 1\na LOC 91 N 0 E 0\n", 2, 10, "beyond 90 degrees");
    let long = "x".repeat(256);
    refused(format!("$TTL 1\na TXT b {long}\n"), 2, 9, "texts of at most 255");
    refused(format!("$TTL 1\na SPF b {long}\n"), 2, 9, "at most 255 fit");
}

#[test]
fn an_entry_has_a_bound_and_a_comment_has_none() {
    let endless = format!("$TTL 1\na TXT ( {}", "x ".repeat(ENTRY_BYTES_MAX));
    refused(endless, 2, 1, "is a closing parenthesis missing?");
    let empty = format!("$TTL 1\na TXT ( {}", "\"\"".repeat(ENTRY_BYTES_MAX));
    refused(empty, 2, 1, "is a closing parenthesis missing?");
    let comment = format!("; {}\n$TTL 1\na A 192.0.2.1", "x".repeat(2 * ENTRY_BYTES_MAX));
    check(comment, &["a.example. 1 A c0000201"]);
}

#[test]
fn odd_types_in_their_own_form() {
    for (text, expect) in [
        ("AFSDB 1 a.", "AFSDB 0001016100"),
        ("RT 1 @", "RT 0001076578616d706c6500"),
        ("X25 311", "X25 03333131"),
        ("ISDN 1 2", "ISDN 01310132"),
        ("NSAP 0x47.0005", "NSAP 470005"),
        ("CERT PKIX 1 RSASHA256 YQ==", "CERT 000100010861"),
        ("KEY 49152 3 13", "KEY c000030d"),
        ("NID 10 14:4fff:ff20:ee64", "NID 000a00144fffff20ee64"),
        ("L32 10 192.0.2.1", "L32 000ac0000201"),
        ("EUI48 00-00-5e-00-53-2a", "EUI48 00005e00532a"),
        ("URI 1 2 \"ftp://a\"", "URI 000100026674703a2f2f61"),
        ("CSYNC 66 3 A NS AAAA", "CSYNC 00000042000300046000000 8"),
        ("APL 1:192.0.2.0/24 !2:ff00::/8", "APL 00011803c000020002088 1ff"),
        ("A6 0 ::1", "A6 0000000000000000000000000000000001"),
        ("A6 64 ::1 a.", "A6 400000000000000001016100"),
        ("WKS 192.0.2.1 TCP 0 9", "WKS c0000201068040"),
        ("HIP 2 aa YQ== b.", "HIP 01020001aa61016200"),
        ("NXT a. A SOA", "NXT 01610042"),
        ("AMTRELAY 10 1 3 a.", "TYPE260 0a83016100"),
        ("SMIMEA 3 0 0 aabb", "SMIMEA 030000aabb"),
        ("DLV 1 13 2 aabb", "TYPE32769 00010d02aabb"),
        (
            "LOC 52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m",
            "LOC 00001613 8b3cf018 810cbce0 009895b8",
        ),
        ("LOC 1 S 1 W 0", "LOC 00121613 7fc91180 7fc91180 00989680"),
        ("TYPE65280 \\# 0", "TYPE65280"),
        ("A \\# 4 c0 000201", "A c0000201"),
    ] {
        let (rtype, hex) = expect.split_once(' ').unwrap_or((expect, ""));
        let mut records =
            read(format!("$TTL 1\na {text}\n")).unwrap_or_else(|p| panic!("{text}: {p}"));
        let expect = format!("a.example. 1 {rtype} {}", hex.replace(' ', ""));
        assert_eq!(records.pop().as_deref(), Some(&*expect), "{text}");
    }
}

#[test]
fn a_zone_has_its_bounds_and_its_borders() {
    let bounds = Bounds { records_max: 2, bytes_max: 1_000 };
    let read = |text: &str| {
        let mut reader = Reader::new(apex(), bounds);
        reader.feed(text.as_bytes())?;
        reader.finish()
    };
    let two = "$TTL 1\na A 192.0.2.1\nb A 192.0.2.1\n";
    assert_eq!(read(two).expect("two").records(), 2);
    let problem = read(&format!("{two}c A 192.0.2.1\n")).expect_err("three").to_string();
    assert!(
        problem.starts_with("line 4, column 3: c.example. A: more than 2 records"),
        "{problem}"
    );
    let problem = read("$TTL 1\na.test. A 192.0.2.1\n").expect_err("outside").to_string();
    assert!(problem.starts_with("line 2, column 9: a.test. A: lies outside"), "{problem}");
    let problem = read("; nothing\n").expect_err("empty").to_string();
    assert!(problem.contains("no SOA record"), "{problem}");
}

proptest! {
    /// Where the pieces end makes no difference, and nothing that arrives makes it panic.
    #[test]
    fn pieces_make_no_difference(
        lines in prop::collection::vec(
            prop_oneof![
                Just("$TTL 5\n"), Just("a TXT ( \"x ; y\"\r\n z ) ; c\n"), Just("@ MX 10 @\n"),
                Just(" A 192.0.2.1\n"), Just("$ORIGIN b\n"), Just("$GENERATE 1-3 $ A 192.0.2.$\n"),
                Just("\\\"\\032 LOC 1 N 1 E 1\n"), Just("c HTTPS 1 . alpn=\"h2,h3\"\n"), Just("(\n"),
            ],
            0..8,
        ),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        piece in 1_usize..9,
    ) {
        let mut octets = lines.concat().into_bytes();
        for (at, octet) in noise {
            let at = at.index(octets.len() + 1);
            octets.insert(at, octet);
        }
        prop_assert_eq!(read_in(&octets, piece), read_in(&octets, usize::MAX));
    }
}
