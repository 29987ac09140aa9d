//! What tokens say: escapes (RFC 1035 §5.1), names, TTLs with units, numbers.

use countersign_policy::name::{LABEL_BYTES_MAX, NAME_BYTES_MAX};

use super::Trouble;

/// Seconds that a TTL may say (RFC 2181 §8).
pub const TTL_S_MAX: u32 = i32::MAX as u32;

/// The octets of a token.
pub fn octets(text: &str) -> Result<Vec<u8>, Trouble> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        octets.push(if byte == b'\\' { escape(&mut rest)? } else { byte });
    }
    Ok(octets)
}

fn escape(rest: &mut std::str::Bytes<'_>) -> Result<u8, Trouble> {
    let first = rest.next().ok_or(Trouble::Escape)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u16::from(first - b'0');
    for _ in 0..2 {
        let digit = rest.next().filter(u8::is_ascii_digit).ok_or(Trouble::Escape)?;
        value = value * 10 + u16::from(digit - b'0');
    }
    u8::try_from(value).map_err(|_| Trouble::Escape)
}

/// A name in wire form; one without its last dot lies below `origin`.
pub fn name(text: &str, origin: &[u8]) -> Result<Vec<u8>, Trouble> {
    match text {
        "@" => return Ok(origin.to_vec()),
        "." => return Ok(vec![0]),
        _ => {}
    }
    let mut wire = vec![0];
    // Where the length of the label that is being read stands.
    let mut label = 0;
    let mut rest = text.bytes();
    let mut absolute = false;
    while let Some(byte) = rest.next() {
        absolute = byte == b'.';
        if absolute {
            close(&mut wire, label)?;
            label = wire.len();
            wire.push(0);
        } else {
            wire.push(if byte == b'\\' { escape(&mut rest)? } else { byte });
        }
    }
    if !absolute {
        close(&mut wire, label)?;
        wire.extend_from_slice(origin);
    }
    if wire.len() > NAME_BYTES_MAX {
        return Err(Trouble::NameTooLong(wire.len()));
    }
    Ok(wire)
}

fn close(wire: &mut [u8], label: usize) -> Result<(), Trouble> {
    let len = wire.len() - label - 1;
    if len == 0 {
        return Err(Trouble::EmptyLabel);
    }
    if len > LABEL_BYTES_MAX {
        return Err(Trouble::LabelTooLong(len));
    }
    wire[label] = len as u8; // at most 63
    Ok(())
}

/// Seconds: a number, or numbers with units as in `1h30m`. `None` if it is no such thing.
pub fn ttl(text: &str) -> Option<Result<u32, Trouble>> {
    text.starts_with(|c: char| c.is_ascii_digit()).then(|| seconds(text))
}

fn seconds(text: &str) -> Result<u32, Trouble> {
    let bad = || Trouble::Ttl(text.to_owned());
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let value: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit = match rest.bytes().next().map(|unit| unit.to_ascii_lowercase()) {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3_600,
            Some(b'd') => 86_400,
            Some(b'w') => 604_800,
            // A plain number, and nothing before it.
            None if digits == text.len() => {
                total = value;
                break;
            }
            _ => return Err(bad()),
        };
        rest = &rest[1..];
        total = value.checked_mul(unit).and_then(|more| total.checked_add(more)).ok_or_else(bad)?;
    }
    u32::try_from(total).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_relative_and_not() {
        let origin = b"\x07example\x00";
        for (text, expect) in [
            ("@", &b"\x07example\x00"[..]),
            (".", b"\x00"),
            ("a", b"\x01a\x07example\x00"),
            ("a.B.", b"\x01a\x01B\x00"),
            ("a\\.b", b"\x03a.b\x07example\x00"),
            ("\\@", b"\x01@\x07example\x00"),
            ("a\\000\\255.", b"\x03a\x00\xff\x00"),
        ] {
            assert_eq!(name(text, origin).expect(text), expect, "{text}");
        }
        for text in ["", "..", ".a", "a..b", "a\\", "a\\25", "a\\256.", &"a".repeat(64)] {
            assert!(name(text, origin).is_err(), "{text:?}");
        }
        let most = vec!["a".repeat(61); 4].join(".");
        assert_eq!(name(&most, b"\x05aaaaa\x00").expect("255 octets").len(), 255);
        assert!(name(&most, b"\x06aaaaaa\x00").is_err());
    }

    #[test]
    fn ttls_with_units() {
        for (text, expect) in [
            ("0", 0),
            ("3600", 3_600),
            ("1h30m", 5_400),
            ("1W2D3h4M5s", 788_645),
            ("4294967295", u32::MAX),
        ] {
            assert_eq!(ttl(text).expect("a number").expect(text), expect, "{text}");
        }
        for text in ["1h30", "1x", "4294967296", "99999999999999999999", "7102w", "1-"] {
            assert!(ttl(text).expect("a number").is_err(), "{text}");
        }
        assert!(ttl("IN").is_none() && ttl("").is_none());
    }
}
