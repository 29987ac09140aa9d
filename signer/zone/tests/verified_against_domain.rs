//! Random zones, signed and verified here, are judged by the `domain` crate: signed octets,
//! signatures, key tags, canonical order, and the chain of denial, record for record.

mod support;

use countersign_policy::Algorithm;
use countersign_policy::signing::{Denial, KeySplit};
use countersign_zone::Packed;
use domain::base::cmp::CanonicalOrd as _;
use proptest::prelude::*;

use support::cds::{DAY_S, Says, any_says};
use support::zones::Reader;
use support::{NOW_S, Setup, admitted, oracle, zones};

fn check(setup: &Setup, records: &[zones::Record]) {
    let admitted = admitted(records);
    let zone = setup.verified(&admitted, NOW_S);
    let expected = oracle::chain(admitted.records(), &setup.params);
    assert_eq!(oracle::chain_of(zone.records()), expected);
    names_are_in_order(zone.records());
    for rrset in zone.records().iter().flat_map(|node| node.rrsets()) {
        for rrsig in rrset.rrsigs() {
            oracle::validate(zone.records(), &rrset, rrsig);
        }
    }
}

fn names_are_in_order(records: &Packed) {
    let names: Vec<_> = records.iter().map(|node| oracle::name(node.owner())).collect();
    for pair in names.windows(2) {
        assert!(pair[0].canonical_cmp(&pair[1]).is_lt(), "{} before {}", pair[0], pair[1]);
    }
}

fn any_denial() -> impl Strategy<Value = Denial> {
    prop::sample::select(vec![Denial::Nsec, Denial::Nsec3, Denial::Nsec3OptOut])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn random_zones_agree(
        records in zones::any_zone(0..24),
        denial in any_denial(),
        csk in any::<bool>(),
        says in any_says(),
    ) {
        let split = if csk { KeySplit::Csk } else { KeySplit::KskZsk };
        let setup = Setup::new(Algorithm::Ed25519, split, denial).says(&says, NOW_S + DAY_S);
        check(&setup, &records);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn zones_of_every_type_agree(
        records in zones::any_odd_zone(Reader::Domain, 0..40),
        denial in any_denial(),
    ) {
        let mut setup = Setup::new(Algorithm::Ed25519, KeySplit::KskZsk, denial);
        setup.params.zonemd = true;
        check(&setup, &records);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

    #[test]
    fn random_zones_agree_in_ecdsa(records in zones::any_zone(0..16), denial in any_denial()) {
        for algorithm in [Algorithm::EcdsaP256Sha256, Algorithm::EcdsaP384Sha384] {
            let setup = Setup::new(algorithm, KeySplit::KskZsk, denial);
            check(&setup.says(&Says::all(), NOW_S + DAY_S), &records);
        }
    }
}

#[test]
fn rsa_agrees() {
    let setup = Setup::new(Algorithm::RsaSha256, KeySplit::KskZsk, Denial::Nsec3).saying_all();
    check(&setup, &zones::apex_records());
}

#[test]
fn every_octet_in_a_name_agrees() {
    for denial in [Denial::Nsec, Denial::Nsec3, Denial::Nsec3OptOut] {
        let setup = Setup::new(Algorithm::Ed25519, KeySplit::KskZsk, denial);
        check(&setup, &zones::every_octet());
    }
}
