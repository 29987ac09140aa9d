//! Owner names: uncompressed wire form with the primary's case (RFC 1035 §3.1), compared as
//! RFC 4034 §6.1 orders them.
//!
//! Most code holds names as slices of packed bytes, so this module is mostly functions over
//! `&[u8]` that is known to be one valid name ([`check_wire`] establishes that).
//! The **sort key** of a name is a byte string whose plain order is the canonical order:
//! labels from the right, lower-cased, each ended by 0x00; within a label 0x00 is written as
//! 0x01 0x01 and 0x01 as 0x01 0x02. An ancestor's key is a prefix of its descendants' keys and of
//! no other name's, so a subtree is a contiguous range.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

pub use countersign_policy::name::{LABEL_BYTES_MAX, NAME_BYTES_MAX, NameError};
use countersign_policy::name::{wire_from_text, write_presentation};

/// An owner name in uncompressed wire form, case kept. Equality ignores case (RFC 4343).
#[derive(Clone)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Takes one uncompressed wire-form name, the whole of `wire`.
    pub fn from_wire(wire: &[u8]) -> Result<Self, NameError> {
        check_wire(wire)?;
        Ok(Self(wire.into()))
    }

    /// The wire form, root label included.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        equal(&self.0, &other.0)
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    /// Canonical order, RFC 4034 §6.1.
    fn cmp(&self, other: &Self) -> Ordering {
        canonical_cmp(&self.0, &other.0)
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::from_wire(&wire_from_text(text)?)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_presentation(&self.0, f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

/// Shows a wire-form name in presentation form.
#[derive(Clone, Copy)]
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_presentation(self.0, f)
    }
}

/// Checks that the whole of `wire` is one uncompressed name.
pub fn check_wire(wire: &[u8]) -> Result<(), NameError> {
    match wire_len(wire)? {
        len if len == wire.len() => Ok(()),
        _ => Err(NameError::BadWire),
    }
}

/// The length in octets of the uncompressed name that `bytes` begin with.
pub fn wire_len(bytes: &[u8]) -> Result<usize, NameError> {
    let mut at = 0;
    loop {
        let len = usize::from(*bytes.get(at).ok_or(NameError::BadWire)?);
        if len > LABEL_BYTES_MAX {
            return Err(NameError::BadWire);
        }
        at += 1 + len;
        if at > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        if len == 0 {
            return Ok(at);
        }
    }
}

/// The labels from the left, the root not included.
pub fn labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = wire;
    std::iter::from_fn(move || {
        let (&len, tail) = rest.split_first()?;
        if len == 0 {
            return None;
        }
        let (label, tail) = tail.split_at_checked(usize::from(len))?;
        rest = tail;
        Some(label)
    })
}

/// How many labels a name has, the root not counted.
pub fn label_count(wire: &[u8]) -> usize {
    labels(wire).count()
}

/// The RRSIG's Labels field for an owner: neither the root nor a leftmost `*` is counted
/// (RFC 4034 §3.1.3). At most 127, since each label takes two octets.
pub fn rrsig_labels(wire: &[u8]) -> u8 {
    (label_count(wire) - usize::from(is_wildcard(wire))) as u8
}

/// Whether the leftmost label is `*` (RFC 4592 §2.1.1).
pub fn is_wildcard(wire: &[u8]) -> bool {
    wire.starts_with(b"\x01*")
}

/// The name without its leftmost label; `None` for the root.
pub fn parent(wire: &[u8]) -> Option<&[u8]> {
    match *wire.first()? {
        0 => None,
        len => wire.get(1 + usize::from(len)..),
    }
}

/// Whether two names are the same name (RFC 4343: ASCII case is ignored).
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    // Length octets are at most 63, below 'A', so comparing them the same way is safe.
    a.eq_ignore_ascii_case(b)
}

/// Whether `wire` is `ancestor` or below it.
pub fn is_at_or_below(wire: &[u8], ancestor: &[u8]) -> bool {
    let mut rest = wire;
    while rest.len() > ancestor.len() {
        match parent(rest) {
            Some(shorter) => rest = shorter,
            None => return false,
        }
    }
    equal(rest, ancestor)
}

/// Canonical order (RFC 4034 §6.1): labels from the right, lower-cased, absent before any octet.
pub fn canonical_cmp(a: &[u8], b: &[u8]) -> Ordering {
    let (starts_a, starts_b) = (LabelStarts::of(a), LabelStarts::of(b));
    for (label_a, label_b) in starts_a.rightmost_first(a).zip(starts_b.rightmost_first(b)) {
        let lowered_a = label_a.iter().map(u8::to_ascii_lowercase);
        match lowered_a.cmp(label_b.iter().map(u8::to_ascii_lowercase)) {
            Ordering::Equal => {}
            unequal => return unequal,
        }
    }
    starts_a.count.cmp(&starts_b.count)
}

/// Appends the sort key of `wire` to `key`.
pub fn push_sort_key(wire: &[u8], key: &mut Vec<u8>) {
    for label in LabelStarts::of(wire).rightmost_first(wire) {
        for byte in label {
            match byte.to_ascii_lowercase() {
                0 => key.extend_from_slice(&[1, 1]),
                1 => key.extend_from_slice(&[1, 2]),
                other => key.push(other),
            }
        }
        key.push(0);
    }
}

/// The sort key of `wire`.
pub fn sort_key(wire: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(wire.len());
    push_sort_key(wire, &mut key);
    key
}

/// Where the labels of a name start: 127 at most, since each takes two octets of 255.
struct LabelStarts {
    starts: [u8; 127],
    count: usize,
}

impl LabelStarts {
    fn of(wire: &[u8]) -> Self {
        let mut found = Self { starts: [0; 127], count: 0 };
        let mut at = 0;
        for label in labels(wire).take(127) {
            found.starts[found.count] = at as u8;
            found.count += 1;
            at += 1 + label.len();
        }
        found
    }

    fn rightmost_first<'a>(&'a self, wire: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.starts[..self.count].iter().rev().map(move |start| {
            let start = usize::from(*start);
            &wire[start + 1..start + 1 + usize::from(wire[start])]
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Wire form of a presentation-form name.
    pub(crate) fn wire(text: &str) -> Vec<u8> {
        wire_from_text(text).expect(text)
    }

    /// Any name, short labels of few bytes preferred so that names are often related.
    pub(crate) fn any_name() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            4 => prop::sample::select(b"abAB*\0\x01\x02.".to_vec()),
            1 => any::<u8>(),
        ];
        prop::collection::vec(prop::collection::vec(byte, 1..4), 0..5).prop_map(|labels| {
            let mut wire = Vec::new();
            for label in labels {
                wire.push(label.len() as u8);
                wire.extend_from_slice(&label);
            }
            wire.push(0);
            wire
        })
    }

    /// The example of RFC 4034 §6.1, in its order.
    #[test]
    fn order_of_rfc_4034() {
        let names = [
            "example.",
            "a.example.",
            "yljkjljk.a.example.",
            "Z.a.example.",
            "zABC.a.EXAMPLE.",
            "z.example.",
            "\\001.z.example.",
            "*.z.example.",
            "\\200.z.example.",
        ];
        for pair in names.windows(2) {
            let (a, b) = (wire(pair[0]), wire(pair[1]));
            assert_eq!(canonical_cmp(&a, &b), Ordering::Less, "{pair:?}");
            assert!(sort_key(&a) < sort_key(&b), "{pair:?}");
        }
    }

    #[test]
    fn what_is_not_one_name_is_refused() {
        assert_eq!(check_wire(b"\x01a"), Err(NameError::BadWire));
        assert_eq!(check_wire(b"\0\0"), Err(NameError::BadWire));
        assert_eq!(check_wire(b"\xc0\x0c"), Err(NameError::BadWire));
        assert_eq!(check_wire(b""), Err(NameError::BadWire));
        assert_eq!(check_wire(&[b"\x01a".repeat(127), vec![0]].concat()), Ok(()));
        assert_eq!(check_wire(&[b"\x01a".repeat(128), vec![0]].concat()), Err(NameError::TooLong));
    }

    #[test]
    fn wildcards_count_one_label_less() {
        for (name, expect) in [("*.example.", 1), ("a.*.example.", 3), ("example.", 1), (".", 0)] {
            assert_eq!(rrsig_labels(&wire(name)), expect, "{name}");
        }
        assert!(!is_wildcard(&wire("**.example.")));
    }

    #[test]
    fn case_is_kept_and_ignored() {
        let name: Name = "MiXed.Example.".parse().expect("name");
        assert_eq!(name.to_string(), "MiXed.Example.");
        assert_eq!(name, "mixed.eXample".parse().expect("name"));
    }

    proptest! {
        #[test]
        fn keys_order_as_names_do(a in any_name(), b in any_name()) {
            prop_assert_eq!(canonical_cmp(&a, &b), sort_key(&a).cmp(&sort_key(&b)));
        }

        #[test]
        fn a_key_is_a_prefix_exactly_of_keys_below(a in any_name(), b in any_name()) {
            prop_assert_eq!(is_at_or_below(&a, &b), sort_key(&a).starts_with(&sort_key(&b)));
        }
    }
}
