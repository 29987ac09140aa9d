//! Zones as a customer would hand them in.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The zone of most stories.
pub const ZONE: &str = "example.";

/// A small zone with one of everything that signing must get right: mixed case, unequal RDATA
/// lengths, a wildcard, an empty non-terminal, secure and insecure delegations with glue, CNAME,
/// DNAME, and types unknown to most software.
pub fn example(serial: u32) -> String {
    format!(
        r#"$ORIGIN example.
$TTL 300
@ IN SOA ns1.example. Host\.Master.Example. {serial} 3600 600 604800 120
@ IN NS ns1.example.
@ IN NS NS2.Example.
@ IN MX 10 Mail.example.
@ IN TXT "v=spf1 -all" "second string"
@ 600 IN CAA 0 issue "ca.example.net"
NS1 IN A 192.0.2.1
ns1 IN AAAA 2001:db8::1
ns2 IN A 192.0.2.2
Mail IN A 192.0.2.25
*.Wild IN A 192.0.2.66
deep.empty.non-terminal IN A 192.0.2.3
www IN CNAME WWW.elsewhere.test.
tree IN DNAME other.Example.
_443._tcp.www2 IN TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
svc IN HTTPS 1 . alpn=h2
odd IN TYPE65280 \# 4 0a000001
a\.dot.and\032space IN TXT "escaped owner"
insecure IN NS ns.insecure
ns.insecure IN A 192.0.2.77
secure IN NS ns.elsewhere.test.
secure IN DS 4711 13 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
"#
    )
}

/// The same with one more record, `marker`, so that a version can be told apart by its content.
pub fn example_with(serial: u32, marker: &str) -> String {
    format!("{}{marker} IN TXT \"serial {serial}\"\n", example(serial))
}

/// Every type, and every kind of name: what is written down in `zones/odd.zone`, and what is too long
/// to be.
pub fn odd(serial: u32) -> String {
    let mut text = format!(
        "$ORIGIN example.\n$TTL 300\n\
         @ IN SOA ns1.example. Host\\.Master.Example. {serial} 3600 600 604800 120\n\
         @ IN NS ns1.example.\n@ IN NS NS2.Example.\n{}",
        include_str!("../zones/odd.zone")
    );
    // Every octet in a name, sixteen at a time.
    for high in 0..16_u32 {
        for low in 0..16 {
            let _ = write!(text, "\\{:03}", high * 16 + low);
        }
        text.push_str(".every IN TXT \"octets\"\n");
    }
    // As many labels as fit, with 122 empty non-terminals; a name of 255 octets; a label of 63.
    let _ = writeln!(text, "{}a IN A 192.0.2.20", "a.".repeat(122));
    let long = ["L", "m", "n"].map(|letter| letter.repeat(63)).join(".");
    let _ = writeln!(text, "{long}.{} IN A 192.0.2.21", "o".repeat(53));
    let _ = writeln!(text, "{} IN TXT \"63 octets\"", "l".repeat(63));
    // An RRset of nearly 64 KB. (BIND takes no more than a hundred records of a type.)
    for record in 0..90 {
        let (a, b, c) = ("x".repeat(253), "x".repeat(253), "x".repeat(187));
        let _ = writeln!(text, "many IN TXT \"{record:02}{a}\" \"{b}\" \"{c}\"");
    }
    text
}

/// One record of nearly 64 KB.
pub fn large_record() -> String {
    format!("one IN TXT{}\n", format!(" \"{}\"", "y".repeat(255)).repeat(250))
}

/// A zone whose apex is a DNAME: nothing may be below it (RFC 6672 §2.4), so its name servers are
/// elsewhere.
pub fn apex_dname(serial: u32) -> String {
    format!(
        "$ORIGIN example.\n$TTL 300\n\
         @ IN SOA ns.Elsewhere.test. h.elsewhere.test. {serial} 3600 600 604800 120\n\
         @ IN NS ns.Elsewhere.test.\n@ IN DNAME Other.Test.\n@ IN TXT \"serial {serial}\"\n\
         @ IN MX 10 mail.Elsewhere.test.\n"
    )
}

/// `count` hosts, for stories that need signing to take a while. From one serial to the next all
/// of their addresses change, so that no signature can be kept.
pub fn hosts(serial: u32, count: u32) -> String {
    let mut text = example(serial);
    for host in 0..count {
        let (high, low) = (host / 250, host % 250 + 1);
        text.extend(["host-", &host.to_string(), " IN A 198."]);
        text.extend([
            &(18 + serial % 2).to_string(),
            ".",
            &high.to_string(),
            ".",
            &low.to_string(),
            "\n",
        ]);
    }
    text
}

/// The records of a zone as dig prints them, without what signing adds and without the serial:
/// what must be the same on both sides of the signer, case of names included.
pub fn content(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| {
            let mut fields: Vec<&str> = line.split_whitespace().collect();
            let rtype = *fields.get(3)?;
            if matches!(rtype, "RRSIG" | "NSEC" | "NSEC3" | "NSEC3PARAM" | "DNSKEY") {
                return None;
            }
            if rtype == "SOA" {
                fields[6] = "SERIAL";
            }
            Some(fields.join(" "))
        })
        .collect()
}

/// A whole signed zone as dig prints it, without order, case of names, or spacing: what two
/// servers of one version agree on.
pub fn whole(text: &str) -> BTreeSet<String> {
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase())
        .filter(|line| !line.is_empty())
        .collect()
}
