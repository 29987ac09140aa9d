//! Canonical RDATA and the signed octets, as a validator rebuilds them (RFC 4034 §6.2 and §6.3,
//! RFC 4035 §5.3.2, RFC 6840 §5.1).
//!
//! The verifier's own reading: a table of field layouts, where the signing side has code.

use super::names;

/// A field of RDATA that matters for the canonical form.
#[derive(Clone, Copy)]
enum Field {
    /// So many octets, taken as they are.
    Octets(usize),
    /// A `<character-string>`: one octet of length, then the string (RFC 1035 §3.3).
    Text,
    /// A domain name, lower-cased.
    Name,
    /// A6's prefix length and address suffix; a prefix of 0 is followed by no name (RFC 2874 §3.1).
    A6Address,
    /// Whatever is left.
    Rest,
}

use Field::{A6Address, Name, Octets, Rest, Text};

/// The types whose RDATA holds names that are lower-cased: RFC 4034 §6.2 (3) without HINFO (it has
/// no name) and NSEC (RFC 6840 §5.1). Any other type is taken as it is, type unknown or not
/// (RFC 3597 §7).
fn layout(rtype: u16) -> &'static [Field] {
    match rtype {
        // NS, MD, MF, CNAME, MB, MG, MR, PTR, DNAME
        2 | 3 | 4 | 5 | 7 | 8 | 9 | 12 | 39 => &[Name],
        // SOA
        6 => &[Name, Name, Octets(20)],
        // MINFO, RP
        14 | 17 => &[Name, Name],
        // MX, AFSDB, RT, KX
        15 | 18 | 21 | 36 => &[Octets(2), Name],
        // SIG, RRSIG
        24 | 46 => &[Octets(18), Name, Rest],
        // PX
        26 => &[Octets(2), Name, Name],
        // NXT
        30 => &[Name, Rest],
        // SRV
        33 => &[Octets(6), Name],
        // NAPTR
        35 => &[Octets(4), Text, Text, Text, Name],
        // A6
        38 => &[A6Address],
        _ => &[Rest],
    }
}

/// Appends the canonical form of `rdata` to `out`. `None` if it does not have the type's form.
pub(super) fn append_rdata(rtype: u16, rdata: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut at = 0;
    for field in layout(rtype) {
        let end = match field {
            Octets(count) => at + count,
            Text => at + 1 + usize::from(*rdata.get(at)?),
            Rest => rdata.len(),
            Name => {
                let end = names::end_of_name(rdata, at)?;
                out.extend(rdata.get(at..end)?.iter().map(u8::to_ascii_lowercase));
                at = end;
                continue;
            }
            A6Address => {
                let prefix_bits = usize::from(*rdata.get(at)?);
                let suffix_octets = 128_usize.checked_sub(prefix_bits)?.div_ceil(8);
                let address_end = at + 1 + suffix_octets;
                out.extend_from_slice(rdata.get(at..address_end)?);
                at = address_end;
                if prefix_bits > 0 {
                    let end = names::end_of_name(rdata, at)?;
                    out.extend(rdata.get(at..end)?.iter().map(u8::to_ascii_lowercase));
                    at = end;
                }
                continue;
            }
        };
        out.extend_from_slice(rdata.get(at..end)?);
        at = end;
    }
    (at == rdata.len()).then_some(())
}

/// Why an RRset has no canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotCanonical {
    /// RDATA that does not have its type's form.
    Malformed,
    /// Two records with one canonical form (RFC 2181 §5, RFC 4034 §6.3).
    Duplicate,
}

/// The records of one RRset in canonical form and order, kept so that signatures over it with
/// other TTLs or labels need no second sorting.
pub(super) struct CanonicalRrset {
    rtype: u16,
    rdatas: Vec<Vec<u8>>,
}

impl CanonicalRrset {
    /// Brings RDATA in wire form into canonical form and order.
    pub(super) fn new<'a>(
        rtype: u16,
        rdatas: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, NotCanonical> {
        let mut canonical = Vec::new();
        for rdata in rdatas {
            let mut out = Vec::with_capacity(rdata.len());
            append_rdata(rtype, rdata, &mut out).ok_or(NotCanonical::Malformed)?;
            canonical.push(out);
        }
        // `Vec<u8>` compares as left-justified unsigned octets, a shorter prefix first: §6.3.
        canonical.sort_unstable();
        if canonical.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(NotCanonical::Duplicate);
        }
        Ok(Self { rtype, rdatas: canonical })
    }

    /// The signed octets (RFC 4034 §3.1.8.1): the RRSIG's RDATA without its signature and with
    /// the signer in lower case, then every record with the original TTL.
    ///
    /// `rrsig_head` is RRSIG RDATA up to and including the signer's name.
    pub(super) fn signed_octets(&self, owner: &[u8], rrsig_head: &[u8], out: &mut Vec<u8>) {
        out.clear();
        // Of the head only the signer's name has letters that may be changed.
        let (fixed, signer) = rrsig_head.split_at(18.min(rrsig_head.len()));
        out.extend_from_slice(fixed);
        out.extend(signer.iter().map(u8::to_ascii_lowercase));
        let original_ttl = &fixed[4..8];
        let labels = usize::from(fixed[3]);
        for rdata in &self.rdatas {
            // RFC 4035 §5.3.2: an owner with more labels than the field says was expanded from
            // the wildcard above its last `labels` labels. A `*` of the owner itself is not
            // counted, so that a wildcard as it stands in the zone comes out as itself.
            if labels < names::label_count(owner) {
                out.extend_from_slice(b"\x01*");
                out.extend(names::suffix(owner, labels).iter().map(u8::to_ascii_lowercase));
            } else {
                out.extend(owner.iter().map(u8::to_ascii_lowercase));
            }
            out.extend_from_slice(&self.rtype.to_be_bytes());
            out.extend_from_slice(&1_u16.to_be_bytes());
            out.extend_from_slice(original_ttl);
            out.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
            out.extend_from_slice(rdata);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rtype: u16, rdata: &[u8], expect: Option<&[u8]>) {
        let mut out = Vec::new();
        let result = append_rdata(rtype, rdata, &mut out).map(|()| out);
        assert_eq!(result.as_deref(), expect, "type {rtype}");
    }

    #[test]
    fn names_of_the_listed_types_are_lowered_and_nothing_else() {
        check(2, b"\x01A\x00", Some(b"\x01a\x00"));
        check(39, b"\x01A\x00", Some(b"\x01a\x00"));
        check(15, b"AB\x01A\x00", Some(b"AB\x01a\x00"));
        check(17, b"\x01A\x00\x01B\x00", Some(b"\x01a\x00\x01b\x00"));
        check(33, b"ABCDEF\x01A\x00", Some(b"ABCDEF\x01a\x00"));
        check(35, b"ABCD\x01U\x02E2\x00\x01A\x00", Some(b"ABCD\x01U\x02E2\x00\x01a\x00"));
        check(46, b"ABCDEFGHIJKLMNOPQR\x01A\x00SIG", Some(b"ABCDEFGHIJKLMNOPQR\x01a\x00SIG"));
        // A6 with a prefix of 124 bits: one octet of suffix, then the name.
        check(38, b"\x7cA\x01A\x00", Some(b"\x7cA\x01a\x00"));
        check(38, &[&[0][..], &[b'A'; 16]].concat(), Some(&[&[0][..], &[b'A'; 16]].concat()));
        // NSEC (RFC 6840 §5.1), SVCB and unknown types stay as they are.
        check(47, b"\x01A\x00\x00\x01\x40", Some(b"\x01A\x00\x00\x01\x40"));
        check(64, b"\x00\x01\x01A\x00", Some(b"\x00\x01\x01A\x00"));
        check(65280, b"\x01A\x00", Some(b"\x01A\x00"));
    }

    #[test]
    fn what_has_not_the_form_of_its_type_is_seen() {
        check(2, b"\x01A", None);
        check(2, b"\x01A\x00\x00", None);
        check(15, b"A", None);
        check(6, b"\x00\x00", None);
        check(35, b"ABCD\x05U", None);
        check(38, b"\xff", None);
        check(2, b"\xc0\x0c", None);
    }

    #[test]
    fn records_of_one_canonical_form_are_duplicates() {
        let duplicate = CanonicalRrset::new(2, [&b"\x01A\x00"[..], b"\x01a\x00"].into_iter());
        assert_eq!(duplicate.err(), Some(NotCanonical::Duplicate));
        let distinct = CanonicalRrset::new(16, [&b"\x01A"[..], b"\x01a"].into_iter());
        assert!(distinct.is_ok());
    }
}
