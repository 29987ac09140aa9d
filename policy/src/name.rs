//! Zone names: RFC 1035 §3.1 wire form, lower-cased (RFC 4034 §6.2), never compressed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name's wire form holds at most 255 octets (RFC 1035 §3.1).
pub const NAME_BYTES_MAX: usize = 255;
/// A label holds at most 63 octets (RFC 1035 §2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;

/// The apex name of a zone, in lower-cased, uncompressed wire form.
///
/// Two spellings of one zone are one `ZoneName`; the case that the primary used for the apex
/// lives with the zone's records, not here.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ZoneName(Box<[u8]>);

/// Why a text or wire form is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Longer than 255 octets in wire form.
    #[error("name is longer than 255 octets in wire form")]
    TooLong,
    /// A label longer than 63 octets.
    #[error("label {0:?} is longer than 63 octets")]
    LabelTooLong(String),
    /// Two dots in a row, or a dot in front.
    #[error("name has an empty label")]
    EmptyLabel,
    /// A backslash that begins no escape of RFC 1035 §5.1.
    #[error("bad escape in name; write \\DDD (three decimal digits, at most 255) or \\X")]
    BadEscape,
    /// The wire form ends early, has bytes after the root label, or has a compression pointer.
    #[error("wire form is not one uncompressed name")]
    BadWire,
    /// The text is empty.
    #[error("name is empty; write \".\" for the root")]
    Empty,
}

impl ZoneName {
    /// Takes an uncompressed wire-form name; lower-cases it.
    pub fn from_wire(wire: &[u8]) -> Result<Self, NameError> {
        if wire.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let mut at = 0;
        loop {
            let len = usize::from(*wire.get(at).ok_or(NameError::BadWire)?);
            if len > LABEL_BYTES_MAX {
                return Err(NameError::BadWire);
            }
            at += 1 + len;
            if len == 0 {
                break;
            }
        }
        if at != wire.len() {
            return Err(NameError::BadWire);
        }
        // Length octets are at most 63, below 'A', so lower-casing the whole is safe.
        Ok(Self(wire.to_ascii_lowercase().into_boxed_slice()))
    }

    /// The lower-cased, uncompressed wire form, root label included.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// How many labels the name has, the root not counted (RFC 4034 §3.1.3's count).
    pub fn label_count(&self) -> usize {
        self.labels().count()
    }

    /// The labels from the left, root not included.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = &self.0;
        std::iter::from_fn(move || {
            let (&len, tail) = rest.split_first()?;
            if len == 0 {
                return None;
            }
            let (label, tail) = tail.split_at(usize::from(len));
            rest = tail;
            Some(label)
        })
    }

    /// Whether the wire-form name `owner` (any case) is this name or below it.
    pub fn contains_wire(&self, owner: &[u8]) -> bool {
        let mut rest = owner;
        loop {
            if rest.len() < self.0.len() {
                return false;
            }
            if rest.len() == self.0.len() {
                return rest.eq_ignore_ascii_case(&self.0);
            }
            let len = usize::from(rest[0]);
            if len == 0 || rest.len() < 1 + len {
                return false;
            }
            rest = &rest[1 + len..];
        }
    }
}

impl FromStr for ZoneName {
    type Err = NameError;

    /// Reads presentation form with [`wire_from_text`]; lower-cases it.
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::from_wire(&wire_from_text(text)?)
    }
}

/// Reads presentation form (RFC 1035 §5.1, escapes included) into wire form, case kept. A missing
/// last dot is taken as present: there is no origin that the name could be relative to.
pub fn wire_from_text(text: &str) -> Result<Vec<u8>, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text == "." {
        return Ok(vec![0]);
    }
    let mut wire: Vec<u8> = Vec::with_capacity(text.len() + 2);
    let mut label: Vec<u8> = Vec::new();
    let mut bytes = text.bytes();
    let mut ended_with_dot = false;
    while let Some(byte) = bytes.next() {
        ended_with_dot = false;
        match byte {
            b'.' => {
                push_label(&mut wire, &mut label)?;
                ended_with_dot = true;
            }
            b'\\' => label.push(escape(&mut bytes)?),
            other => label.push(other),
        }
    }
    if !ended_with_dot {
        push_label(&mut wire, &mut label)?;
    }
    wire.push(0);
    if wire.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong);
    }
    Ok(wire)
}

fn push_label(wire: &mut Vec<u8>, label: &mut Vec<u8>) -> Result<(), NameError> {
    if label.is_empty() {
        return Err(NameError::EmptyLabel);
    }
    let len = u8::try_from(label.len())
        .ok()
        .filter(|len| usize::from(*len) <= LABEL_BYTES_MAX)
        .ok_or_else(|| NameError::LabelTooLong(String::from_utf8_lossy(label).into_owned()))?;
    wire.push(len);
    wire.append(label);
    Ok(())
}

fn escape(bytes: &mut std::str::Bytes<'_>) -> Result<u8, NameError> {
    let first = bytes.next().ok_or(NameError::BadEscape)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u16::from(first - b'0');
    for _ in 0..2 {
        let digit = bytes.next().filter(u8::is_ascii_digit).ok_or(NameError::BadEscape)?;
        value = value * 10 + u16::from(digit - b'0');
    }
    u8::try_from(value).map_err(|_| NameError::BadEscape)
}

/// Writes an uncompressed wire-form name in presentation form, with the last dot and the
/// escapes of RFC 1035 §5.1. What is not a name is written up to where it stops being one.
pub fn write_presentation(wire: &[u8], out: &mut impl fmt::Write) -> fmt::Result {
    if wire.first() == Some(&0) {
        return out.write_char('.');
    }
    let mut rest = wire;
    while let Some((&len, tail)) = rest.split_first() {
        if len == 0 || tail.len() < usize::from(len) {
            break;
        }
        let (label, tail) = tail.split_at(usize::from(len));
        for &byte in label {
            match byte {
                b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => {
                    write!(out, "\\{}", char::from(byte))?;
                }
                0x21..=0x7e => out.write_char(char::from(byte))?,
                _ => write!(out, "\\{byte:03}")?,
            }
        }
        out.write_char('.')?;
        rest = tail;
    }
    Ok(())
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_presentation(&self.0, f)
    }
}

impl fmt::Debug for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ZoneName({self})")
    }
}

impl TryFrom<String> for ZoneName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ZoneName> for String {
    fn from(name: ZoneName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_and_their_canonical_form() {
        for (text, expect) in [
            (".", "."),
            ("De", "de."),
            ("Example.COM.", "example.com."),
            ("a\\.b.example", "a\\.b.example."),
            ("a\\032b.example.", "a\\032b.example."),
        ] {
            let name: ZoneName = text.parse().expect(text);
            assert_eq!(name.to_string(), expect);
        }
    }

    #[test]
    fn what_is_not_a_name_is_refused() {
        let long_label = "a".repeat(64);
        let long_name = vec!["a".repeat(63); 4].join(".") + ".b";
        for (text, expect) in [
            ("", NameError::Empty),
            ("..", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            ("a..b", NameError::EmptyLabel),
            ("a\\", NameError::BadEscape),
            ("a\\25", NameError::BadEscape),
            ("a\\256", NameError::BadEscape),
            (long_label.as_str(), NameError::LabelTooLong(long_label.clone())),
            (long_name.as_str(), NameError::TooLong),
        ] {
            assert_eq!(text.parse::<ZoneName>(), Err(expect), "{text:?}");
        }
        assert_eq!(ZoneName::from_wire(&[1, b'a']), Err(NameError::BadWire));
        assert_eq!(ZoneName::from_wire(&[0, 0]), Err(NameError::BadWire));
        assert_eq!(ZoneName::from_wire(&[0xc0, 0]), Err(NameError::BadWire));
    }

    #[test]
    fn containment_is_by_label_not_by_suffix() {
        let zone: ZoneName = "ple.com".parse().expect("name");
        assert!(!zone.contains_wire(b"\x07example\x03com\x00"));
        assert!(zone.contains_wire(b"\x01a\x03PLE\x03com\x00"));
        assert!(zone.contains_wire(b"\x03ple\x03com\x00"));
        assert!(!zone.contains_wire(b"\x03com\x00"));
    }

    proptest! {
        #[test]
        fn presentation_round_trips(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..8)) {
            let mut wire = Vec::new();
            for label in &labels {
                wire.push(u8::try_from(label.len()).expect("short"));
                wire.extend_from_slice(label);
            }
            wire.push(0);
            let name = ZoneName::from_wire(&wire).expect("valid wire");
            prop_assert_eq!(name.to_string().parse::<ZoneName>().expect("own text"), name);
        }
    }
}
