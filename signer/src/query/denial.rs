//! The record that says which types the apex has: its NSEC, or the NSEC3 of its hash (RFC 5155 §5).

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use countersign_zone::{Rrset, Rtype};

use crate::published::Published;

/// Validators treat more as insecure (RFC 9276 §3.2); what is published here has none.
const ITERATIONS_MAX: u16 = 100;
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

pub(super) fn apex_denial(version: &Published) -> Option<Rrset<'_>> {
    if let Some(nsec) = version.at_apex(Rtype::NSEC) {
        return Some(nsec);
    }
    let params = version.at_apex(Rtype::NSEC3PARAM)?.rdatas().next()?;
    // Hash algorithm 1, flags, iterations, salt length, salt (RFC 5155 §4.2).
    let [1, _, high, low, salt_len, salt @ ..] = params else { return None };
    let iterations = u16::from_be_bytes([*high, *low]);
    let salt = salt.get(..usize::from(*salt_len))?;
    if iterations > ITERATIONS_MAX {
        return None;
    }
    let apex = version.apex().as_wire();
    let mut owner = vec![32];
    owner.extend_from_slice(&base32hex(&hash(apex, iterations, salt)));
    owner.extend_from_slice(apex);
    version.records().node(&owner)?.rrset(Rtype::NSEC3)
}

fn hash(name: &[u8], iterations: u16, salt: &[u8]) -> [u8; 20] {
    let round = |input: &[u8]| {
        let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        context.update(input);
        context.update(salt);
        let mut out = [0; 20];
        out.copy_from_slice(context.finish().as_ref());
        out
    };
    (0..iterations).fold(round(name), |last, _| round(&last))
}

/// RFC 4648 §7 without padding: 20 octets are 32 digits, five octets eight.
fn base32hex(hash: &[u8; 20]) -> [u8; 32] {
    let mut out = [0; 32];
    for (five, eight) in hash.chunks_exact(5).zip(out.chunks_exact_mut(8)) {
        let bits = five.iter().fold(0u64, |bits, octet| bits << 8 | u64::from(*octet));
        for (i, digit) in eight.iter_mut().enumerate() {
            *digit = DIGITS[(bits >> (35 - 5 * i) & 31) as usize];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5155 appendix A: example. hashes to 0p9mhaveqvm6t7vbl5lop2u3t2rp3tom with salt
    /// aabbccdd and 12 iterations.
    #[test]
    fn hash_of_rfc_5155() {
        let hashed = hash(b"\x07example\x00", 12, &[0xaa, 0xbb, 0xcc, 0xdd]);
        assert_eq!(&base32hex(&hashed), b"0p9mhaveqvm6t7vbl5lop2u3t2rp3tom");
    }
}
