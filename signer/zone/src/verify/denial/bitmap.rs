//! Type bitmaps (RFC 4034 §4.1.2): for each window of 256 types that has any, its number, a
//! length of 1 to 32, and bits from the left.

use crate::rtype::Rtype;
use crate::verify::failure::Types;

/// The one form that a set of ascending types has.
pub(super) fn encode(types: &[Rtype]) -> Vec<u8> {
    let mut out = Vec::new();
    for in_window in types.chunk_by(|a, b| a.0 >> 8 == b.0 >> 8) {
        let mut bits = [0_u8; 32];
        let mut len = 0;
        for rtype in in_window {
            let low = usize::from(rtype.0 & 0xff);
            bits[low / 8] |= 0x80 >> (low % 8);
            len = low / 8 + 1;
        }
        out.push((in_window[0].0 >> 8) as u8);
        out.push(len as u8);
        out.extend_from_slice(&bits[..len]);
    }
    out
}

/// The types of a bitmap, as far as it can be read: for showing a wrong one.
pub(super) fn decode(bitmap: &[u8]) -> Types {
    let mut types = Vec::new();
    let mut rest = bitmap;
    while let [window, len, tail @ ..] = rest {
        let len = usize::from(*len).min(tail.len()).min(32);
        let (bits, after) = tail.split_at(len);
        for (at, byte) in bits.iter().enumerate() {
            for bit in (0..8).filter(|bit| byte & (0x80 >> bit) != 0) {
                types.push(Rtype(u16::from(*window) << 8 | (at * 8 + bit) as u16));
            }
        }
        rest = after;
    }
    Types(types)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4034 §4.3: A MX RRSIG NSEC TYPE1234.
    #[test]
    fn rfc_4034_example() {
        let types = [1, 15, 46, 47, 1234].map(Rtype);
        let mut expect = vec![0, 6, 0x40, 0x01, 0, 0, 0, 0x03, 4, 0x1b];
        expect.extend_from_slice(&[0; 26]);
        expect.push(0x20);
        assert_eq!(encode(&types), expect);
        assert_eq!(decode(&expect), Types(types.to_vec()));
        assert_eq!(encode(&[]), b"");
    }

    #[test]
    fn a_damaged_bitmap_is_shown_as_far_as_it_goes() {
        assert_eq!(decode(&[0]), Types(vec![]));
        assert_eq!(decode(&[0, 9, 0x40]), Types(vec![Rtype::A]));
        assert_eq!(decode(&[255, 32, 0x80]), Types(vec![Rtype(0xff00)]));
    }
}
