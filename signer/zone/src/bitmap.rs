//! Type bitmaps of NSEC and NSEC3 (RFC 4034 §4.1.2, RFC 5155 §3.2.1).

use crate::cuts::Standing;
use crate::packed::Node;
use crate::rtype::Rtype;

/// The types that a chain names at a name of the zone, ascending: all that are there where the
/// zone is authoritative, NS and DS at a delegation (RFC 4035 §2.3). `made` are types that the
/// signer adds; they come in any order.
pub(crate) fn types_at(node: &Node<'_>, standing: Standing, made: &[Rtype]) -> Vec<Rtype> {
    let there = node.rrsets().map(|rrset| rrset.rtype());
    let mut types: Vec<Rtype> = if standing.is_delegation() {
        there.filter(|rtype| matches!(*rtype, Rtype::NS | Rtype::DS)).collect()
    } else {
        there.collect()
    };
    types.extend_from_slice(made);
    types.sort_unstable();
    types.dedup();
    types
}

/// Appends the bitmap of ascending types.
pub(crate) fn push_bitmap(types: &[Rtype], out: &mut Vec<u8>) {
    for window in types.chunk_by(|a, b| a.0 >> 8 == b.0 >> 8) {
        let mut octets = [0u8; 32];
        let mut len = 0;
        for rtype in window {
            let low = usize::from(rtype.0 & 0xff);
            octets[low / 8] |= 0x80 >> (low % 8);
            len = low / 8 + 1;
        }
        out.push((window[0].0 >> 8) as u8);
        out.push(len as u8);
        out.extend_from_slice(&octets[..len]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdata;

    /// The example of RFC 4034 §4.3: A, MX, RRSIG, NSEC and TYPE1234.
    #[test]
    fn bitmap_of_rfc_4034() {
        let types = [Rtype::A, Rtype::MX, Rtype::RRSIG, Rtype::NSEC, Rtype(1234)];
        let mut out = Vec::new();
        push_bitmap(&types, &mut out);
        let mut expect = vec![0, 6, 0x40, 0x01, 0, 0, 0, 0x03, 4, 0x1b];
        expect.extend_from_slice(&[0; 26]);
        expect.push(0x20);
        assert_eq!(out, expect);
        assert_eq!(rdata::check(Rtype::NSEC, &[&[0][..], &out].concat()), Ok(()));
    }
}
