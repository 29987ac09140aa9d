//! A version that keeps signatures of the one before is as good as one signed from nothing.

mod support;

use std::collections::BTreeSet;

use countersign_policy::Algorithm;
use countersign_policy::signing::Denial;
use countersign_zone::{Packed, Rtype, VerifiedZone, plan, verify};
use proptest::prelude::*;

use support::cds::any_says;
use support::{NOW_S, SERIAL, Setup, THREADS, admitted, zones};

/// Owner, type, TTL and RDATA of every record, in order.
fn records(packed: &Packed) -> Vec<(Vec<u8>, Rtype, u32, Vec<u8>)> {
    let rrsets = packed.iter().flat_map(|node| node.rrsets());
    rrsets
        .flat_map(|rrset| {
            rrset.rdatas().map(move |rdata| {
                (rrset.owner().to_vec(), rrset.rtype(), rrset.ttl_s(), rdata.to_vec())
            })
        })
        .collect()
}

fn signatures(packed: &Packed) -> BTreeSet<(Vec<u8>, Vec<u8>)> {
    let rrsets = packed.iter().flat_map(|node| node.rrsets());
    rrsets
        .flat_map(|rrset| {
            rrset.rrsigs().map(move |rrsig| (rrset.owner().to_ascii_lowercase(), rrsig.to_vec()))
        })
        .collect()
}

/// Signs `then`, and `later_s` after it `next` on top of that; says how many signatures were kept
/// and how many made.
fn check(
    setup: &Setup,
    then: &[zones::Record],
    next: &[zones::Record],
    later_s: u64,
) -> (usize, usize) {
    let first: VerifiedZone = setup.verified(&admitted(then), NOW_S);
    let zone = admitted(next);
    let now_s = NOW_S + later_s;
    let planned = plan(&zone, Some(&first), &setup.params, SERIAL + 1, now_s).expect("planned");
    let kept = planned.reused();
    let made = planned.tasks().len() + planned.dnskey_orders().len() + planned.cds_orders().len();
    let second = verify(setup.complete(planned), &zone, &setup.params, now_s, THREADS)
        .expect("a version that keeps signatures verifies");
    let anew = plan(&zone, None, &setup.params, SERIAL + 1, now_s).expect("planned");
    let anew = setup.complete(anew);
    assert_eq!(records(second.records()), records(anew.records()));
    assert_eq!(second.records().counts().rrsigs, kept + made);
    let all = signatures(second.records());
    assert_eq!(all.intersection(&signatures(first.records())).count(), kept);
    (kept, made)
}

fn any_denial() -> impl Strategy<Value = Denial> {
    prop::sample::select(vec![Denial::Nsec, Denial::Nsec3, Denial::Nsec3OptOut])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn a_changed_zone_keeps_what_it_may(
        common in zones::any_zone(0..16),
        gone in zones::any_zone(0..4),
        new in zones::any_zone(0..4),
        denial in any_denial(),
        two_algorithms in any::<bool>(),
        says in any_says(),
        later_s in prop::sample::select(vec![0_u64, 86_400, 7 * 86_400 - 1, 7 * 86_400, 30 * 86_400]),
    ) {
        let algorithms: &[Algorithm] = if two_algorithms {
            &[Algorithm::Ed25519, Algorithm::EcdsaP256Sha256]
        } else {
            &[Algorithm::Ed25519]
        };
        let setup = Setup::of_algorithms(algorithms, denial).says(&says, NOW_S + 60 * 86_400);
        let (then, next) = ([common.clone(), gone].concat(), [common, new].concat());
        let (kept, made) = check(&setup, &then, &next, later_s);
        prop_assert!(made >= algorithms.len(), "the SOA is new at least");
        if later_s >= 7 * 86_400 {
            prop_assert_eq!(kept, 0, "all are due");
        } else {
            prop_assert!(kept >= 2 * algorithms.len(), "DNSKEY and NS of the apex are as they were");
        }
    }
}

#[test]
fn an_unchanged_zone_signs_its_soa_alone() {
    for denial in [Denial::Nsec, Denial::Nsec3] {
        let setup = Setup::of_algorithms(&[Algorithm::Ed25519], denial);
        let records = zones::every_octet();
        let (kept, made) = check(&setup, &records, &records, 3_600);
        assert_eq!(made, 1);
        assert!(kept > 30, "{kept}");
    }
}
