//! Names as the verifier reads them: uncompressed wire form (RFC 1035 §3.1), compared in the
//! canonical order of RFC 4034 §6.1.
//!
//! Written apart from the signing side's names on purpose: one mistake must not be made twice in
//! the same way.

use std::cmp::Ordering;

/// Octets of a name, and so at most 127 labels of one octet and the root.
const NAME_OCTETS_MAX: usize = 255;
const LABELS_MAX: usize = 128;

/// Where the name that begins at `at` ends, if it is whole, uncompressed and within bounds.
pub(super) fn end_of_name(bytes: &[u8], at: usize) -> Option<usize> {
    let mut here = at;
    loop {
        let len = usize::from(*bytes.get(here)?);
        if len > 63 {
            return None;
        }
        here += 1 + len;
        if here - at > NAME_OCTETS_MAX || here > bytes.len() {
            return None;
        }
        if len == 0 {
            return Some(here);
        }
    }
}

/// Whether `wire` is exactly one name.
pub(super) fn is_name(wire: &[u8]) -> bool {
    end_of_name(wire, 0) == Some(wire.len())
}

/// The name without its first label; `None` for the root.
pub(super) fn parent(wire: &[u8]) -> Option<&[u8]> {
    let len = usize::from(*wire.first()?);
    if len == 0 { None } else { wire.get(1 + len..) }
}

/// How many labels a name has; the root label is not one (RFC 4034 §3.1.3).
pub(super) fn label_count(wire: &[u8]) -> usize {
    std::iter::successors(parent(wire), |rest| parent(rest)).count()
}

/// Whether the first label is `*` alone (RFC 4592 §2.1.1).
pub(super) fn is_wildcard(wire: &[u8]) -> bool {
    wire.starts_with(b"\x01*")
}

/// The last `count` labels of a name, root included; the whole where it has no more.
pub(super) fn suffix(wire: &[u8], count: usize) -> &[u8] {
    let mut rest = wire;
    for _ in count..label_count(wire) {
        rest = parent(rest).unwrap_or(rest);
    }
    rest
}

/// Whether `name` is `ancestor` or below it, whatever the case.
pub(super) fn is_at_or_below(name: &[u8], ancestor: &[u8]) -> bool {
    let mut rest = Some(name);
    while let Some(here) = rest {
        if here.len() <= ancestor.len() {
            return here.eq_ignore_ascii_case(ancestor);
        }
        rest = parent(here);
    }
    false
}

/// The canonical order of RFC 4034 §6.1: labels from the right, each as unsigned octets in lower
/// case, the absence of a label before any label.
pub(super) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let (a_starts, b_starts) = (label_starts(a), label_starts(b));
    let mut a_labels = a_starts.iter().rev();
    let mut b_labels = b_starts.iter().rev();
    loop {
        match (a_labels.next(), b_labels.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(&at), Some(&bt)) => {
                let ours = label_at(a, at).iter().map(u8::to_ascii_lowercase);
                let theirs = label_at(b, bt).iter().map(u8::to_ascii_lowercase);
                match ours.cmp(theirs) {
                    Ordering::Equal => {}
                    other => return other,
                }
            }
        }
    }
}

/// Offsets of a name's labels, left to right, without the root.
struct Starts {
    at: [u8; LABELS_MAX],
    count: usize,
}

impl Starts {
    fn iter(&self) -> std::slice::Iter<'_, u8> {
        self.at[..self.count].iter()
    }
}

fn label_starts(wire: &[u8]) -> Starts {
    let mut starts = Starts { at: [0; LABELS_MAX], count: 0 };
    let mut here = 0;
    while let Some(&len) = wire.get(here) {
        if len == 0 || starts.count == LABELS_MAX || here >= NAME_OCTETS_MAX {
            break;
        }
        starts.at[starts.count] = here as u8;
        starts.count += 1;
        here += 1 + usize::from(len);
    }
    starts
}

fn label_at(wire: &[u8], at: u8) -> &[u8] {
    let at = usize::from(at);
    let end = at + 1 + usize::from(wire[at]);
    wire.get(at + 1..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list of RFC 4034 §6.1, in wire form.
    #[test]
    fn rfc_4034_order() {
        let sorted: [&[u8]; 9] = [
            b"\x07example\x00",
            b"\x01a\x07example\x00",
            b"\x08yljkjljk\x01a\x07example\x00",
            b"\x01Z\x01a\x07example\x00",
            b"\x04zABC\x01a\x07EXAMPLE\x00",
            b"\x01z\x07example\x00",
            b"\x01\x01\x01z\x07example\x00",
            b"\x01*\x01z\x07example\x00",
            b"\x01\xc8\x01z\x07example\x00",
        ];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{i} {j}");
            }
        }
    }

    #[test]
    fn what_is_no_name() {
        assert!(is_name(b"\x00"));
        assert!(is_name(b"\x01a\x00"));
        assert!(!is_name(b""));
        assert!(!is_name(b"\x01a"));
        assert!(!is_name(b"\x01a\x00\x00"));
        assert!(!is_name(b"\xc0\x00"));
        let longest = [&b"\x3f"[..], &[b'x'; 63]].concat().repeat(3);
        let fits = [&longest[..], b"\x3d", &[b'y'; 61], b"\x00"].concat();
        let too_long = [&longest[..], b"\x3e", &[b'y'; 62], b"\x00"].concat();
        assert_eq!(fits.len(), NAME_OCTETS_MAX);
        assert!(is_name(&fits));
        assert!(!is_name(&too_long));
        assert_eq!(
            label_count(&b"\x01a".repeat(127)[..].iter().copied().chain([0]).collect::<Vec<_>>()),
            127
        );
    }

    #[test]
    fn suffixes_and_ancestors() {
        let name = b"\x01*\x01b\x01c\x00";
        assert_eq!(label_count(name), 3);
        assert!(is_wildcard(name));
        assert!(!is_wildcard(b"\x02*a\x00"));
        assert_eq!(suffix(name, 2), b"\x01b\x01c\x00");
        assert_eq!(suffix(name, 9), name);
        assert_eq!(suffix(name, 0), b"\x00");
        assert!(is_at_or_below(name, b"\x01B\x01c\x00"));
        assert!(is_at_or_below(name, b"\x00"));
        assert!(!is_at_or_below(name, b"\x01d\x01c\x00"));
        assert!(!is_at_or_below(b"\x01c\x00", name));
    }
}
