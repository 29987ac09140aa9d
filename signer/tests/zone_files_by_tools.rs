//! Zone files as BIND and ldns read them, against ours: the same records, or no records.
//!
//! A file goes through `named-compilezone` once as it is, and once as what was read here, each record
//! with its RDATA in the generic form of RFC 3597; what BIND writes of both must be the same. So each
//! text form is judged by its wire form.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use countersign_policy::ZoneName;
use countersign_policy::name::write_presentation;
use countersign_signer::zonefile::{Reader, Sink};
use countersign_zone::{Refusal, Rtype};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const APEX: &str = "example.";

/// Records in the generic form.
#[derive(Default)]
struct Generic(String);

impl Sink for Generic {
    fn push(
        &mut self,
        owner: &[u8],
        rtype: Rtype,
        ttl_s: u32,
        rdata: &[u8],
    ) -> Result<(), Refusal> {
        let hex = countersign_policy::key::to_hex(rdata);
        write_presentation(owner, &mut self.0).expect("written");
        writeln!(self.0, " {ttl_s} IN TYPE{} \\# {} {hex}", rtype.0, rdata.len()).expect("written");
        Ok(())
    }
}

fn ours(file: &str) -> Result<String, String> {
    let apex: ZoneName = APEX.parse().expect("name");
    let mut reader = Reader::into_sink(&apex, Generic::default());
    for piece in file.as_bytes().chunks(13) {
        reader.feed(piece).map_err(|problem| problem.to_string())?;
    }
    reader.end().map(|(generic, _)| generic.0).map_err(|problem| problem.to_string())
}

/// Lines of the zone as BIND writes them, sorted.
fn by_bind(file: &str) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir().expect("folder");
    let (input, output) = (folder.path().join("in"), folder.path().join("out"));
    fs::write(&input, file).expect("written");
    let compiled = Command::new("named-compilezone")
        .args(["-i", "none", "-k", "ignore", "-m", "ignore", "-M", "ignore", "-n", "ignore"])
        .args(["-r", "ignore", "-S", "ignore", "-T", "ignore", "-W", "ignore", "-s", "full"])
        .arg("-o")
        .args([&output])
        .arg(APEX)
        .arg(&input)
        .output()
        .expect("named-compilezone is in bind9-utils");
    if !compiled.status.success() {
        return Err(String::from_utf8_lossy(&compiled.stdout).into_owned());
    }
    let mut lines: Vec<String> =
        fs::read_to_string(&output).expect("written").lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

const HEAD: &str = "$TTL 1h\n@ SOA ns h 1 1h 15m 1w 1h\n@ NS ns\nns A 192.0.2.1\n";

/// BIND and we read the same of it.
fn same(file: &str) {
    let bind = by_bind(file).unwrap_or_else(|error| panic!("BIND refuses\n{file}\n{error}"));
    let generic = ours(file).unwrap_or_else(|error| panic!("we refuse\n{file}\n{error}"));
    let expect = by_bind(&generic).unwrap_or_else(|error| panic!("{file}\n{generic}\n{error}"));
    assert_eq!(bind, expect, "{file}\n{generic}");
}

#[test]
fn every_type_has_the_wire_form_that_bind_gives_it() {
    let records = include_str!("zone_files/types.zone");
    same(&format!("{HEAD}{records}"));
    // And one by one, so that a failure names its record.
    for line in records.lines().filter(|line| !line.trim_start().is_empty()) {
        let ours = ours(&format!("$TTL 1\n{line}\n"));
        assert!(ours.is_ok(), "{line}: {ours:?}");
    }
}

#[test]
fn the_ways_to_write_a_file() {
    for more in [
        "a A 192.0.2.1\n  AAAA 2001:db8::1\n\tTXT x\n",
        "a 5 A 192.0.2.1\nb IN 6 A 192.0.2.1\nc 7 IN A 192.0.2.1\nd IN A 192.0.2.1\n",
        "$TTL 0\na A 192.0.2.1\n$TTL 1w2d3h4m5s\nb A 192.0.2.1\n",
        "a TXT ( \"one\" ; comment\n two\n\t\"three four\" )\n",
        "a TXT \"a;b\" c\\;d \"\\\"\" \\\" \\\\ \\065\\000\\255 \"\\\\\" \"\"\n",
        "a TXT \"a\"\"b\" c\"d\"e\n",
        "a TXT \u{e9}\u{4e2d} \"\u{e9} \t\"\n",
        "$ORIGIN sub\na MX 10 @\n@ CNAME a\n$ORIGIN deeper\nb PTR @\n$ORIGIN example.\nc NS @\n",
        "a\\.b.c A 192.0.2.1\n\\@ A 192.0.2.2\n\\$x A 192.0.2.3\n\\032\\000\\255 A 192.0.2.4\nA\\b A 192.0.2.5\n",
        "*.a A 192.0.2.1\na.*.b A 192.0.2.1\n",
        "MiXeD A 192.0.2.1\nmixed.A NS MiXeD\n",
        "a TYPE1 192.0.2.1\nb TYPE65280 \\# 3 010203\nc A \\# 4 c0000201\nd TYPE16 \\# 0002 0161\n",
        "a CLASS1 A 192.0.2.1\nb class1 5 a 192.0.2.1\n",
        "$GENERATE 1-10/3 h${0,3}.$ A 192.0.2.$\n",
        "$GENERATE 0-3 ${1,2,x} 60 CNAME t${0,5,n}\n",
        "$GENERATE 8-9 o${0,2,o} IN TXT \"x $ y\"\n",
        "$GENERATE 1-2 g$ MX \"${9} mail-$\"\n",
        "$GENERATE 5-5 q$ TXT \"\\\"a b $\\\" c\"\n",
        "$GENERATE 5-5 d$$ CNAME e\\$x\n",
        "$GENERATE 250-260 n${0,8,N} PTR p$\n",
        "a HTTPS 1 . alpn=\"h2,h3\" port=443 ipv4hint=192.0.2.1,192.0.2.2\nb SVCB 0 t.\nc SVCB 1 @ key65333=ab\\000c mandatory=port,alpn alpn=h2 port=1\n",
        "a A 192.0.2.1 ; no line end",
        "\r\n; comment\r\na A 192.0.2.1\r\n",
        "a (\n5\nA\n192.0.2.1\n)\n",
        "a A 192.0.2.1\na A 192.0.2.1\n",
        "( a A 192.0.2.1 )\n",
    ] {
        same(&format!("{HEAD}{more}"));
    }
    // Without $TTL.
    let soa = "ns h 1 1h 15m 1w 1h";
    same(&format!("@ SOA {soa}\n@ NS ns\nns A 192.0.2.1\nb 7 A 192.0.2.1\nc A 192.0.2.2\n"));
    same(&format!("@ 9 SOA {soa}\n@ NS ns\nns A 192.0.2.1\nb 7 A 192.0.2.1\nc A 192.0.2.2\n"));
}

/// What BIND refuses is refused here. (The other way round we are stricter in places: octets that are
/// no text, TTLs beyond RFC 2181, service names in WKS.)
#[test]
fn what_is_no_zone_file_is_none_here() {
    for more in [
        "a A\n",
        "a A 192.0.2.1 x\n",
        "a A 192.0.2\n",
        "a\n",
        "a FOO 1\n",
        "a MX mail\n",
        "a TXT \"open\nb TXT x\n",
        "a TXT ( open\n",
        "a TXT x )\n",
        "a..b A 192.0.2.1\n",
        "a CH TXT x\n",
        "a 1h30 A 192.0.2.1\n",
        "$FOO 1\n",
        "$TTL\n",
        "$TTL x\n",
        "$GENERATE 3-1 a$ A 192.0.2.1\n",
        "$GENERATE 1-2 a${ A 192.0.2.1\n",
        "a TYPE65280 \\# 3 0102\n",
        "a A \\# 3 010203\n",
        "a LOC 91 N 0 E 0\n",
        "a CAA 0\n",
        "a DS 1 13 2 zz\n",
        "a EUI48 00-00\n",
        "a SSHFP 1 2 3\n",
        "a HTTPS 1 . port=443 port=444\n",
        "a HTTPS 1 . alpn\n",
        "a TXT\n",
    ] {
        let file = format!("{HEAD}{more}");
        assert!(by_bind(&file).is_err(), "BIND takes\n{file}");
        let ours = ours(&file).and_then(|generic| by_bind(&generic));
        assert!(ours.is_err(), "we take\n{file}\n{ours:?}");
    }
    let endless = format!("{HEAD}a TXT {}\n", "x".repeat(256));
    assert!(by_bind(&endless).is_err() && ours(&endless).is_err());
}

fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-zA-Z0-9]{1,5}",
        1 => "\\\\[0-1][0-9][0-9]",
        1 => "\"[a-z ;()]{0,6}\"",
        1 => "[a-z]\\\\[.;\"@ ][a-z]",
    ]
}

fn line() -> impl Strategy<Value = String> {
    let owner = prop_oneof![
        Just("@".to_owned()),
        Just(" ".to_owned()),
        Just("a.example.".to_owned()),
        Just("*.w".to_owned()),
        "[a-z]{1,3}(\\.[A-Z]{1,3})?",
        "\\\\[0-1][0-9][0-9][a-z]",
    ];
    let rest = prop_oneof![
        Just("A 192.0.2.7".to_owned()),
        Just("IN 30 MX 5 @".to_owned()),
        Just("1m AAAA ::1".to_owned()),
        prop::collection::vec(token(), 1..5).prop_map(|tokens| format!("TXT {}", tokens.join(" "))),
        prop::collection::vec(token(), 2..5)
            .prop_map(|tokens| format!("TXT ( {} ) ; end", tokens.join(" ; c\n\t"))),
        (0_u8..4).prop_map(|i| format!("TYPE6528{i} \\# 2 00 0{i}")),
        "SRV [0-9]{1,3} [0-9]{1,3} [0-9]{1,3} [a-z]{1,3}(\\.)?",
    ];
    let directive = prop_oneof![
        Just("$ORIGIN x".to_owned()),
        Just("$ORIGIN example.".to_owned()),
        Just("$TTL 77".to_owned()),
        Just("$GENERATE 1-4/2 g$ A 192.0.2.$".to_owned()),
        Just(String::new()),
        Just("; \" ( comment".to_owned()),
    ];
    prop_oneof![
        5 => (owner, rest).prop_map(|(owner, rest)| format!("{owner} {rest}")),
        1 => directive,
    ]
}

#[test]
fn generated_files_read_the_same() {
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let files = (prop::collection::vec(line(), 1..12), any::<bool>());
    TestRunner::new(config)
        .run(&files, |(lines, crlf)| {
            let end = if crlf { "\r\n" } else { "\n" };
            same(&format!("{HEAD}{}{end}", lines.join(end)));
            Ok(())
        })
        .expect("the same");
}
