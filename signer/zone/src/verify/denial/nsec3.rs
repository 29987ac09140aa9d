//! The NSEC3 chain (RFC 5155 §7.1) with the parameters of RFC 9276: SHA-1, no iterations, no salt.
//!
//! The names that must have a record are found from the zone's own data, empty non-terminals
//! included, and hashed here; the records that are there are compared with them in hash order.
//! With opt-out, insecure delegations and the empty non-terminals that lead to nothing else may go
//! without (RFC 5155 §6 and §7.1, erratum 3441); nothing else may.

use std::cmp::Ordering;
use std::collections::HashMap;

use aws_lc_rs::digest;

use super::{check_bitmap, only_rdata};
use crate::packed::{Packed, Rrset};
use crate::rtype::Rtype;
use crate::verify::failure::{Failure, Place};
use crate::verify::names;
use crate::verify::walk::{Visit, Walk};

/// The flag of RFC 5155 §3.1.2.1.
pub(super) const FLAG_OPT_OUT: u8 = 1;
const HASH_SHA1: u8 = 1;
const HASH_OCTETS: usize = 20;
/// 160 bits in base32hex, five a character.
const LABEL_OCTETS: usize = 32;
/// Hash algorithm, flags, iterations, salt length, hash length.
const FIXED_OCTETS: usize = 6;

type Hash = [u8; HASH_OCTETS];

/// A name that has, or may have, an NSEC3 record.
struct Expected {
    hash: Hash,
    /// Which of the distinct type lists.
    types: u32,
    required: bool,
}

pub(super) fn check(
    records: &Packed,
    apex: &[u8],
    ttl_s: u32,
    opt_out: bool,
) -> Result<(), Failure> {
    check_param(records, apex)?;
    let (expected, type_lists) = expected(records, apex, opt_out)?;
    let found = found(records, apex)?;
    let flags = if opt_out { FLAG_OPT_OUT } else { 0 };

    let mut names = expected.iter().peekable();
    for (at, (hash, rrset)) in found.iter().enumerate() {
        while let Some(skipped) = names.next_if(|name| name.hash < *hash) {
            missing_unless_optional(records, apex, skipped)?;
        }
        let Some(name) = names.next_if(|name| name.hash == *hash) else {
            return Err(Failure::DenialExtra(Place::new(rrset.owner(), Rtype::NSEC3)));
        };
        let (next, bitmap) = read(rrset, ttl_s, flags)?;
        let types = &type_lists[name.types as usize];
        if let Err(wrong) = check_bitmap(rrset, rrset.owner(), bitmap, types) {
            return Err(with_owner(wrong, &name_of(records, apex, hash)));
        }
        let expected_next = &found[(at + 1) % found.len()].0;
        if next != expected_next {
            return Err(Failure::DenialNext {
                place: Place::new(rrset.owner(), Rtype::NSEC3),
                found: base32hex(next),
                expected: base32hex(expected_next),
            });
        }
    }
    for skipped in names {
        missing_unless_optional(records, apex, skipped)?;
    }
    Ok(())
}

/// The apex has exactly one NSEC3PARAM (RFC 5155 §4, RFC 9276 §3.1), and nobody an NSEC.
fn check_param(records: &Packed, apex: &[u8]) -> Result<(), Failure> {
    let Some(param) = records.node(apex).and_then(|node| node.rrset(Rtype::NSEC3PARAM)) else {
        return Err(Failure::DenialMissing { owner: apex.into(), kind: Rtype::NSEC3PARAM });
    };
    let place = || Place::new(param.owner(), Rtype::NSEC3PARAM);
    let mut rdatas = param.rdatas();
    let (Some(rdata), None) = (rdatas.next(), rdatas.next()) else {
        return Err(Failure::DenialMalformed(place()));
    };
    let [algorithm, flags, iterations_high, iterations_low, salt_octets] = *rdata else {
        return Err(Failure::DenialMalformed(place()));
    };
    // The flags of NSEC3PARAM are zero, with opt-out too (RFC 5155 §4.1.2).
    let iterations = u16::from_be_bytes([iterations_high, iterations_low]);
    check_parameters(&place, [algorithm, flags, salt_octets], iterations, 0)?;
    match records.iter().find(|node| node.has(Rtype::NSEC)) {
        Some(node) => Err(Failure::DenialKind(Place::new(node.owner(), Rtype::NSEC))),
        None => Ok(()),
    }
}

fn check_parameters(
    place: &dyn Fn() -> Place,
    [algorithm, flags, salt_octets]: [u8; 3],
    iterations: u16,
    expected_flags: u8,
) -> Result<(), Failure> {
    for (parameter, found, expected) in [
        ("hash algorithm", usize::from(algorithm), usize::from(HASH_SHA1)),
        ("flags", usize::from(flags), usize::from(expected_flags)),
        ("iterations", usize::from(iterations), 0),
        ("salt length", usize::from(salt_octets), 0),
    ] {
        if found != expected {
            return Err(Failure::DenialParameter { place: place(), parameter, found, expected });
        }
    }
    Ok(())
}

/// Next hashed owner and bitmap of a record whose fixed fields are right (RFC 5155 §3.2).
fn read<'a>(rrset: &Rrset<'a>, ttl_s: u32, flags: u8) -> Result<(&'a [u8], &'a [u8]), Failure> {
    let place = || Place::new(rrset.owner(), Rtype::NSEC3);
    let rdata = only_rdata(rrset, ttl_s)?;
    let Some((fixed, rest)) = rdata.split_first_chunk::<FIXED_OCTETS>() else {
        return Err(Failure::DenialMalformed(place()));
    };
    let [algorithm, found_flags, iterations_high, iterations_low, salt_octets, hash_octets] =
        *fixed;
    let iterations = u16::from_be_bytes([iterations_high, iterations_low]);
    check_parameters(&place, [algorithm, found_flags, salt_octets], iterations, flags)?;
    match rest.split_at_checked(HASH_OCTETS) {
        Some(parts) if usize::from(hash_octets) == HASH_OCTETS => Ok(parts),
        _ => Err(Failure::DenialMalformed(place())),
    }
}

/// Every name that has or may have a record, in hash order, with the distinct type lists.
fn expected(
    records: &Packed,
    apex: &[u8],
    opt_out: bool,
) -> Result<(Vec<Expected>, Vec<Vec<Rtype>>), Failure> {
    let mut expected = Vec::new();
    let mut type_lists: Vec<Vec<Rtype>> = Vec::new();
    let mut known: HashMap<Vec<Rtype>, u32> = HashMap::new();
    each_name(records, apex, opt_out, &mut |name, types, required| {
        let types = *known.entry(types).or_insert_with_key(|types| {
            type_lists.push(types.clone());
            (type_lists.len() - 1) as u32
        });
        expected.push(Expected { hash: hash(name), types, required });
    });
    expected.sort_unstable_by_key(|name| name.hash);
    if let Some(pair) = expected.windows(2).find(|pair| pair[0].hash == pair[1].hash) {
        return Err(Failure::HashCollision(name_of(records, apex, &pair[0].hash)[..].into()));
    }
    Ok((expected, type_lists))
}

/// An empty non-terminal whose descendants are still being met.
struct Open<'a> {
    name: &'a [u8],
    empty: bool,
    required: bool,
}

/// Takes a name, its types, and whether it must have a record.
type Found<'a, 'f> = dyn FnMut(&'a [u8], Vec<Rtype>, bool) + 'f;

impl<'a> Open<'a> {
    /// No more descendants: whether it needs a record is known.
    fn close(self, found: &mut Found<'a, '_>) {
        if self.empty {
            found(self.name, Vec::new(), self.required);
        }
    }
}

/// Calls `found` with each name, its types, and whether it must have a record.
///
/// In canonical order descendants follow their ancestor at once, so the names between the zone's
/// apex and the current owner are a stack, and one that no owner has put there is empty.
fn each_name<'a>(records: &'a Packed, apex: &'a [u8], opt_out: bool, found: &mut Found<'a, '_>) {
    let mut path: Vec<Open<'a>> = Vec::new();
    for visit in Walk::of(records, apex).filter(Visit::is_denied_for) {
        let owner = visit.owner();
        while let Some(done) = path.pop_if(|open| !names::is_at_or_below(owner, open.name)) {
            done.close(found);
        }
        let required = !(opt_out && visit.is_insecure_delegation());
        if required {
            for open in path.iter_mut().rev().take_while(|open| !open.required) {
                open.required = true;
            }
        }
        let above = path
            .last()
            .map_or_else(|| names::label_count(apex), |open| names::label_count(open.name));
        for labels in above + 1..names::label_count(owner) {
            path.push(Open { name: names::suffix(owner, labels), empty: true, required });
        }
        path.push(Open { name: owner, empty: false, required });
        found(owner, visit.bitmap_types(), required);
    }
    while let Some(done) = path.pop() {
        done.close(found);
    }
}

/// The NSEC3 records of the zone with the hashes in their owners, ascending.
fn found<'a>(records: &'a Packed, apex: &[u8]) -> Result<Vec<(Hash, Rrset<'a>)>, Failure> {
    let mut found = Vec::new();
    for rrset in records.iter().filter_map(|node| node.rrset(Rtype::NSEC3)) {
        let hash = hash_of_owner(rrset.owner(), apex);
        let extra = || Failure::DenialExtra(Place::new(rrset.owner(), Rtype::NSEC3));
        found.push((hash.ok_or_else(extra)?, rrset));
    }
    // Digits before letters is the order of base32hex too, so this order is the zone's.
    debug_assert!(found.is_sorted_by(|a, b| a.0.cmp(&b.0) == Ordering::Less));
    Ok(found)
}

fn missing_unless_optional(records: &Packed, apex: &[u8], name: &Expected) -> Result<(), Failure> {
    if !name.required {
        return Ok(());
    }
    let owner = name_of(records, apex, &name.hash)[..].into();
    Err(Failure::DenialMissing { owner, kind: Rtype::NSEC3 })
}

/// The name behind a hash: found anew on the way to a failure, so that a good zone need not keep
/// its names beside their hashes.
fn name_of(records: &Packed, apex: &[u8], wanted: &Hash) -> Vec<u8> {
    let mut owner = Vec::new();
    each_name(records, apex, false, &mut |name, _, _| {
        if owner.is_empty() && hash(name) == *wanted {
            owner = name.to_vec();
        }
    });
    owner
}

fn with_owner(failure: Failure, name: &[u8]) -> Failure {
    match failure {
        Failure::DenialBitmap { place, found, expected, .. } => {
            Failure::DenialBitmap { place, owner: name.into(), found, expected }
        }
        other => other,
    }
}

/// RFC 5155 §5 without salt and iterations: SHA-1 of the name in lower case.
fn hash(name: &[u8]) -> Hash {
    let lowered = name.to_ascii_lowercase();
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &lowered);
    let mut hash = [0; HASH_OCTETS];
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// The hash that `owner` spells, if it is one label of 160 bits in base32hex right below the apex.
fn hash_of_owner(owner: &[u8], apex: &[u8]) -> Option<Hash> {
    let (&len, rest) = owner.split_first()?;
    let (label, parent) = rest.split_at_checked(usize::from(len))?;
    if label.len() != LABEL_OCTETS || !parent.eq_ignore_ascii_case(apex) {
        return None;
    }
    let mut hash = [0; HASH_OCTETS];
    // Eight characters are five octets.
    for (characters, octets) in label.chunks(8).zip(hash.chunks_mut(5)) {
        let mut bits = 0_u64;
        for character in characters {
            let value = match character.to_ascii_lowercase() {
                digit @ b'0'..=b'9' => digit - b'0',
                letter @ b'a'..=b'v' => letter - b'a' + 10,
                _ => return None,
            };
            bits = bits << 5 | u64::from(value);
        }
        octets.copy_from_slice(&bits.to_be_bytes()[3..]);
    }
    Some(hash)
}

/// RFC 4648 §7 in lower case, for whole groups of five octets.
fn base32hex(hash: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let mut text = String::with_capacity(LABEL_OCTETS);
    for octets in hash.chunks_exact(5) {
        let bits = octets.iter().fold(0_u64, |bits, octet| bits << 8 | u64::from(*octet));
        for group in (0..8).rev() {
            text.push(char::from(DIGITS[(bits >> (group * 5)) as usize & 31]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The label is what `ldns-nsec3-hash -t 0 example.` prints.
    #[test]
    fn labels_and_hashes() {
        let hash = hash(b"\x07EXAMPLE\x00");
        let label = base32hex(&hash);
        assert_eq!(label, "3msev9usmd4br9s97v51r2tdvmr9iqo1");
        let owner = [&[32][..], label.to_ascii_uppercase().as_bytes(), b"\x07example\x00"].concat();
        assert_eq!(hash_of_owner(&owner, b"\x07Example\x00"), Some(hash));
        assert_eq!(hash_of_owner(&owner, b"\x04test\x00"), None);
        assert_eq!(hash_of_owner(b"\x01a\x07example\x00", b"\x07example\x00"), None);
        let bad = [&[32][..], &[b'z'; 32], b"\x07example\x00"].concat();
        assert_eq!(hash_of_owner(&bad, b"\x07example\x00"), None);
    }
}
