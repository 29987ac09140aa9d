//! A zone as a master file (RFC 1035 §5), for `zone export`: one record a line, every name
//! absolute, the SOA record first. Types whose presentation form is not written here come in the
//! generic form of RFC 3597 §5, which every reader of master files takes.

use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};

use countersign_policy::name::write_presentation;
use countersign_zone::{Node, Packed, Rtype};

/// Text is handed on in pieces of about this size.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Writes the zone piece by piece to `out`, until it answers that it wants no more.
pub fn write_zone(apex: &[u8], records: &Packed, out: &mut dyn FnMut(String) -> bool) {
    let mut text = String::with_capacity(CHUNK_BYTES + 4096);
    if let Some(node) = records.node(apex) {
        write_node(&node, &mut text, |rtype| rtype == Rtype::SOA);
        write_node(&node, &mut text, |rtype| rtype != Rtype::SOA);
    }
    for node in records.iter().filter(|node| !node.owner().eq_ignore_ascii_case(apex)) {
        write_node(&node, &mut text, |_| true);
        if text.len() >= CHUNK_BYTES && !out(std::mem::take(&mut text)) {
            return;
        }
    }
    if !text.is_empty() {
        out(text);
    }
}

fn write_node(node: &Node<'_>, text: &mut String, wanted: impl Fn(Rtype) -> bool) {
    for rrset in node.rrsets().filter(|rrset| wanted(rrset.rtype())) {
        for rdata in rrset.rdatas() {
            write_record(node.owner(), rrset.ttl_s(), rrset.rtype(), rdata, text);
        }
        for rdata in rrset.rrsigs() {
            write_record(node.owner(), rrset.ttl_s(), Rtype::RRSIG, rdata, text);
        }
    }
}

pub(crate) fn write_record(
    owner: &[u8],
    ttl_s: u32,
    rtype: Rtype,
    rdata: &[u8],
    text: &mut String,
) {
    // Writing to a String can't fail.
    let _ = write_presentation(owner, text);
    let _ = write!(text, "\t{ttl_s}\tIN\t{rtype}\t");
    let start = text.len();
    if write_known(rtype, &mut Fields(rdata), text).is_none() {
        text.truncate(start);
        let _ = write!(text, "\\# {}", rdata.len());
        if !rdata.is_empty() {
            let _ = write!(text, " {}", countersign_policy::key::to_hex(rdata));
        }
    }
    text.push('\n');
}

/// What is left of a record's RDATA.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn name(&mut self) -> Option<&'a [u8]> {
        let len = countersign_zone::name::wire_len(self.0).ok()?;
        self.take(len)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// Writes RDATA in its type's own form; `None` where that is not known here, or the RDATA is not
/// of the type's shape.
fn write_known(rtype: Rtype, fields: &mut Fields<'_>, text: &mut String) -> Option<()> {
    match rtype {
        Rtype::A => put(text, Ipv4Addr::from(fields.array::<4>()?)),
        Rtype::AAAA => put(text, Ipv6Addr::from(fields.array::<16>()?)),
        Rtype::NS | Rtype::CNAME | Rtype::PTR | Rtype::DNAME => put_name(text, fields.name()?),
        Rtype::SOA => {
            put_name(text, fields.name()?);
            text.push(' ');
            put_name(text, fields.name()?);
            for _ in 0..5 {
                put(text, format_args!(" {}", fields.u32()?));
            }
        }
        Rtype::MX => {
            put(text, format_args!("{} ", fields.u16()?));
            put_name(text, fields.name()?);
        }
        Rtype::SRV => {
            put(text, format_args!("{} {} {} ", fields.u16()?, fields.u16()?, fields.u16()?));
            put_name(text, fields.name()?);
        }
        Rtype::TXT => put_strings(text, fields)?,
        Rtype::DS | Rtype::CDS => {
            put(text, format_args!("{} {} {} ", fields.u16()?, fields.u8()?, fields.u8()?));
            text.push_str(&countersign_policy::key::to_hex(nonempty(fields.rest())?));
        }
        Rtype::DNSKEY | Rtype::CDNSKEY => {
            put(text, format_args!("{} {} {} ", fields.u16()?, fields.u8()?, fields.u8()?));
            put_base64(text, nonempty(fields.rest())?);
        }
        Rtype::RRSIG => put_rrsig(text, fields)?,
        Rtype::NSEC => {
            put_name(text, fields.name()?);
            put_types(text, fields)?;
        }
        Rtype::NSEC3 => {
            put_nsec3_params(text, fields)?;
            text.push(' ');
            let len = usize::from(fields.u8()?);
            put_base32hex(text, nonempty(fields.take(len)?)?);
            put_types(text, fields)?;
        }
        Rtype::NSEC3PARAM => put_nsec3_params(text, fields)?,
        _ => return None,
    }
    fields.0.is_empty().then_some(())
}

fn nonempty(bytes: &[u8]) -> Option<&[u8]> {
    (!bytes.is_empty()).then_some(bytes)
}

fn put(text: &mut String, value: impl fmt::Display) {
    let _ = write!(text, "{value}");
}

fn put_name(text: &mut String, name: &[u8]) {
    let _ = write_presentation(name, text);
}

/// RFC 1035 §3.3.14: one or more character strings.
fn put_strings(text: &mut String, fields: &mut Fields<'_>) -> Option<()> {
    nonempty(fields.0)?;
    let mut first = true;
    while !fields.0.is_empty() {
        if !std::mem::take(&mut first) {
            text.push(' ');
        }
        let len = usize::from(fields.u8()?);
        text.push('"');
        for &byte in fields.take(len)? {
            match byte {
                b'"' | b'\\' => put(text, format_args!("\\{}", char::from(byte))),
                0x20..=0x7e => text.push(char::from(byte)),
                _ => put(text, format_args!("\\{byte:03}")),
            }
        }
        text.push('"');
    }
    Some(())
}

/// RFC 4034 §3.2. Times are written as numbers of seconds, which it allows.
fn put_rrsig(text: &mut String, fields: &mut Fields<'_>) -> Option<()> {
    put(text, format_args!("{} {} {} ", Rtype(fields.u16()?), fields.u8()?, fields.u8()?));
    let (ttl_s, expiration, inception) = (fields.u32()?, fields.u32()?, fields.u32()?);
    put(text, format_args!("{ttl_s} {} {} ", compact(expiration), compact(inception)));
    put(text, format_args!("{} ", fields.u16()?));
    put_name(text, fields.name()?);
    text.push(' ');
    put_base64(text, nonempty(fields.rest())?);
    Some(())
}

/// `YYYYMMDDHHmmSS`. Times from 1970 to 2106: which turn of the 32 bits is meant can't be seen
/// from the record alone, and until 2106 there is only one.
fn compact(time: u32) -> String {
    crate::clock::Civil::of(time.into()).compact()
}

/// RFC 5155 §3.3: algorithm, flags, iterations, salt or "-".
fn put_nsec3_params(text: &mut String, fields: &mut Fields<'_>) -> Option<()> {
    put(text, format_args!("{} {} {} ", fields.u8()?, fields.u8()?, fields.u16()?));
    let len = usize::from(fields.u8()?);
    match fields.take(len)? {
        [] => text.push('-'),
        salt => text.push_str(&countersign_policy::key::to_hex(salt)),
    }
    Some(())
}

/// RFC 4034 §4.1.2: windows of bits.
fn put_types(text: &mut String, fields: &mut Fields<'_>) -> Option<()> {
    while !fields.0.is_empty() {
        let (window, len) = (fields.u8()?, usize::from(fields.u8()?));
        for (i, byte) in fields.take(len)?.iter().enumerate() {
            for bit in (0..8).filter(|bit| byte & (0x80 >> bit) != 0) {
                let number = u16::from(window) << 8 | (i as u16) << 3 | bit;
                put(text, format_args!(" {}", Rtype(number)));
            }
        }
    }
    Some(())
}

/// RFC 4648 §4.
fn put_base64(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            if i <= chunk.len() {
                text.push(char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize]));
            } else {
                text.push('=');
            }
        }
    }
}

/// RFC 4648 §7 without padding, as RFC 5155 §3.3 wants it.
fn put_base32hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHIJKLMNOPQRSTUV";
    for chunk in bytes.chunks(5) {
        let bits =
            (0..5).fold(0_u64, |bits, i| bits << 8 | u64::from(chunk.get(i).copied().unwrap_or(0)));
        for i in 0..(chunk.len() * 8).div_ceil(5) {
            text.push(char::from(DIGITS[(bits >> (35 - 5 * i) & 31) as usize]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rtype: Rtype, rdata: &[u8], expect: &str) {
        let mut text = String::new();
        write_record(b"\x01A\x04test\x00", 60, rtype, rdata, &mut text);
        assert_eq!(text, format!("A.test.\t60\tIN\t{rtype}\t{expect}\n"));
    }

    #[test]
    fn known_types_in_their_own_form() {
        check(Rtype::A, &[192, 0, 2, 1], "192.0.2.1");
        check(Rtype::AAAA, &[0; 16], "::");
        check(Rtype::NS, b"\x02n.\x00", "n\\..");
        check(Rtype::MX, b"\x00\x0a\x01m\x00", "10 m.");
        check(Rtype::TXT, b"\x03a\"\xff\x00", "\"a\\\"\\255\" \"\"");
        check(Rtype::NSEC3PARAM, b"\x01\x00\x00\x00\x00", "1 0 0 -");
        check(Rtype::NSEC, b"\x01b\x00\x00\x01\x40\x01\x01\x40", "b. A CAA");
        check(Rtype::NSEC3, b"\x01\x01\x00\x00\x00\x05abcde\x00\x01\x40", "1 1 0 - C5H66P35 A");
        check(Rtype::DS, b"\x00\x01\x0d\x02\xab\xcd", "1 13 2 abcd");
        check(Rtype::DNSKEY, b"\x01\x01\x03\x0dab", "257 3 13 YWI=");
        let soa = b"\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00\x04\x00\x00\x00\x05";
        check(Rtype::SOA, soa, ". . 1 2 3 4 5");
        let rrsig =
            b"\x00\x01\x0d\x01\x00\x00\x00\x3c\x65\x92\x00\x80\x00\x00\x00\x00\x00\x07\x00abc";
        check(Rtype::RRSIG, rrsig, "A 13 1 60 20240101000000 19700101000000 7 . YWJj");
    }

    #[test]
    fn anything_else_in_the_generic_form() {
        check(Rtype(65_000), b"\x01\x02", "\\# 2 0102");
        check(Rtype(65_000), b"", "\\# 0");
        check(Rtype::A, b"\x01", "\\# 1 01");
        check(Rtype::NS, b"\x00\x00", "\\# 2 0000");
        check(Rtype::TXT, b"\x05a", "\\# 2 0561");
    }
}
