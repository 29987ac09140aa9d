//! The stored form: what was encoded is resumed, and nothing else is. Damage is an error with a
//! place, never a panic; and a resumed version can be verified again.

mod support;

use countersign_policy::Algorithm;
use countersign_policy::signing::{Denial, KeySplit};
use countersign_zone::stored::{StoredError, encode, re_verify, resume, root_of};
use countersign_zone::{Failure, Rtype, VerifiedZone};
use proptest::prelude::*;

use support::{NOW_S, Setup, THREADS, admitted, zones};

fn verified(records: &[zones::Record], split: KeySplit, denial: Denial) -> VerifiedZone {
    Setup::new(Algorithm::Ed25519, split, denial).saying_all().verified(&admitted(records), NOW_S)
}

fn small() -> VerifiedZone {
    verified(&zones::apex_records(), KeySplit::KskZsk, Denial::Nsec3)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn what_was_encoded_is_resumed(
        records in zones::any_zone(0..40),
        csk in any::<bool>(),
        denial in prop::sample::select(vec![Denial::Nsec, Denial::Nsec3, Denial::Nsec3OptOut]),
    ) {
        let split = if csk { KeySplit::Csk } else { KeySplit::KskZsk };
        let zone = verified(&records, split, denial);
        let bytes = encode(&zone);
        prop_assert_eq!(root_of(&bytes), Ok(zone.digest()));
        let resumed = resume(&bytes, zone.digest()).expect("resumed");
        prop_assert_eq!(resumed.records(), zone.records());
        prop_assert_eq!((resumed.apex(), resumed.serial()), (zone.apex(), zone.serial()));
        prop_assert_eq!(resumed.earliest_expiration(), zone.earliest_expiration());
        prop_assert_eq!(resumed.expirations(), zone.expirations());
        prop_assert_eq!(zone.expirations().cds, Some(NOW_S as u32 + 3 * 86_400));
        prop_assert_eq!(resumed.signatures_by_key(), zone.signatures_by_key());
        prop_assert_eq!(resumed.digest(), zone.digest());
        prop_assert_eq!(re_verify(&resumed, NOW_S, THREADS), Ok(()));
    }

    #[test]
    fn a_flipped_bit_is_never_taken(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let zone = small();
        let mut bytes = encode(&zone);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        // The case of a letter of the apex is no part of the name.
        prop_assume!(!(bit == 5 && (11..20).contains(&at)));
        prop_assert!(resume(&bytes, zone.digest()).is_err());
    }

    #[test]
    fn whatever_comes_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), root in any::<[u8; 32]>()) {
        prop_assert!(resume(&bytes, root).is_err());
        let headed = [&b"CSGNZONE\0\x01"[..], &bytes].concat();
        prop_assert!(resume(&headed, root).is_err());
    }
}

#[test]
fn every_truncation_is_an_error() {
    let zone = small();
    let bytes = encode(&zone);
    for len in 0..bytes.len() {
        assert!(resume(&bytes[..len], zone.digest()).is_err(), "{len}");
    }
    let longer = [&bytes[..], b"\0"].concat();
    assert_eq!(resume(&longer, zone.digest()).err(), Some(StoredError::Length("longer")));
}

#[test]
fn a_length_that_promises_more_than_there_is_costs_nothing() {
    let mut bytes = b"CSGNZONE\0\x01\x01\0\0\0\0\x07".to_vec();
    bytes.extend_from_slice(&u32::MAX.to_be_bytes());
    bytes.extend_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(resume(&bytes, [0; 32]).err(), Some(StoredError::Length("shorter")));
}

#[test]
fn damage_is_told_by_its_page_and_another_version_by_its_root() {
    let zone = small();
    let mut bytes = encode(&zone);
    let root = zone.digest();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert!(matches!(resume(&bytes, root), Err(StoredError::Checksum { page: 1, pages: 1, .. })));
    let other = encode(&small());
    assert!(matches!(resume(&other, root), Err(StoredError::Root { .. })));
    let mut later = encode(&zone);
    later[9] = 2;
    assert_eq!(resume(&later, root).err(), Some(StoredError::Version(2)));
    assert_eq!(resume(b"", root).err(), Some(StoredError::NotAZone));
}

#[test]
fn a_resumed_version_is_verified_again_and_its_expiry_told() {
    let zone = small();
    let resumed = resume(&encode(&zone), zone.digest()).expect("resumed");
    assert_eq!(re_verify(&resumed, NOW_S, THREADS), Ok(()));
    let expired = re_verify(&resumed, NOW_S + 14 * 86_400, THREADS);
    assert!(matches!(expired, Err(Failure::Expired { .. })), "{expired:?}");
    assert_eq!(resumed.rrset(b"\x07EXAMPLE\0", Rtype::DNSKEY).map(|rrset| rrset.len()), Some(2));
}
