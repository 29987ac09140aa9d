use countersign_policy::KeyRole;

use super::*;
use crate::assemble::{AssembleError, Signatures};
use crate::cds::CdsSet;
use crate::name::{Shown, tests::wire};
use crate::rtype::Rtype;
use crate::signed::SignedZone;
use crate::testing::{Rec, admitted, key, params};

const NOW: u64 = 1_795_564_266;
const DAY: u64 = 86_400;

/// Signatures that tell which task made them; `verify` would refuse them.
fn signed(planned: PlannedZone) -> SignedZone {
    let zone: Vec<Vec<u8>> = (0..planned.tasks().len()).map(|at| vec![at as u8; 64]).collect();
    let dnskey = vec![vec![0xdd; 64]; planned.dnskey_orders().len()];
    let cds = vec![vec![0xcd; 64]; planned.cds_orders().len()];
    planned
        .assemble(Signatures { zone, dnskey, cds })
        .and_then(|assembled| assembled.finish(Vec::new()))
        .expect("assembled")
}

fn records() -> Vec<Rec> {
    let a = || vec![192, 0, 2, 1];
    vec![
        ("A.example.", 60, Rtype::A, a()),
        ("sub.example.", 60, Rtype::NS, wire("ns.sub.example.")),
        ("ns.sub.example.", 60, Rtype::A, a()),
        ("safe.example.", 60, Rtype::NS, wire("ns.sub.example.")),
        ("safe.example.", 60, Rtype::DS, [&[0, 1, 13, 2][..], &[7; 32]].concat()),
    ]
}

/// `owner type ttl signatures` of each RRset.
fn listing(zone: &SignedZone) -> Vec<String> {
    let rrsets = zone.records().iter().flat_map(|node| node.rrsets());
    rrsets
        .map(|rrset| {
            let (owner, rtype) = (Shown(rrset.owner()), rrset.rtype());
            format!("{owner} {rtype} {} {}", rrset.ttl_s(), rrset.rrsigs().count())
        })
        .collect()
}

#[test]
fn every_authoritative_rrset_is_signed_and_nothing_else() {
    let planned =
        plan(&admitted(records()), None, &params(Denial::Nsec), 42, NOW).expect("planned");
    assert_eq!((planned.serial(), planned.reused()), (42, 0));
    let zone = signed(planned);
    assert_eq!(
        listing(&zone),
        [
            "example. NS 3600 1",
            "example. SOA 3600 1",
            "example. NSEC 900 1",
            "example. DNSKEY 3600 1",
            "A.example. A 60 1",
            "A.example. NSEC 900 1",
            "safe.example. NS 60 0",
            "safe.example. DS 60 1",
            "safe.example. NSEC 900 1",
            "sub.example. NS 60 0",
            "sub.example. NSEC 900 1",
            "ns.sub.example. A 60 0",
        ]
    );
    let apex = zone.records().node(&wire("example.")).expect("apex");
    let soa: Vec<&[u8]> = apex.rrset(Rtype::SOA).expect("there").rdatas().collect();
    assert_eq!(crate::admit::soa_serial(soa[0]), Some(42));
}

#[test]
fn nsec3_stands_among_the_names() {
    let zone = |denial| {
        let planned = plan(&admitted(records()), None, &params(denial), 42, NOW);
        let zone = signed(planned.expect("planned"));
        let nsec3 = listing(&zone).iter().filter(|line| line.contains(" NSEC3 900 1")).count();
        let params = listing(&zone).contains(&"example. NSEC3PARAM 900 1".to_owned());
        (nsec3, params)
    };
    assert_eq!(zone(Denial::Nsec3), (4, true));
    assert_eq!(zone(Denial::Nsec3OptOut), (3, true), "sub.example. is left out");
}

#[test]
fn a_name_may_be_the_hash_of_another() {
    // RFC 5155 §5 without salt and iterations, of `example.`.
    let hash = "3msev9usmd4br9s97v51r2tdvmr9iqo1.example.";
    let plain = admitted(vec![]);
    let planned = plan(&plain, None, &params(Denial::Nsec3), 1, NOW).expect("planned");
    assert!(planned.records.node(&wire(hash)).expect("hash").has(Rtype::NSEC3));
    let zone = admitted(vec![(hash, 60, Rtype::A, vec![1; 4])]);
    let zone = signed(plan(&zone, None, &params(Denial::Nsec3), 1, NOW).expect("planned"));
    let both = zone.records().node(&wire(hash)).expect("there");
    assert!(both.rrsets().map(|rrset| rrset.rtype()).eq([Rtype::A, Rtype::NSEC3]));
    assert!(both.rrsets().all(|rrset| rrset.rrsigs().count() == 1));
}

#[test]
fn each_algorithm_signs_everything() {
    let mut two = params(Denial::Nsec);
    two.keys.push(key(KeyRole::Csk, Algorithm::EcdsaP256Sha256, 3));
    let planned = plan(&admitted(vec![]), None, &two, 1, NOW).expect("planned");
    assert_eq!(planned.tasks().len(), 3 * 2, "NS, SOA and NSEC, by ZSK and CSK");
    let signers: Vec<KeyId> = planned.dnskey_orders().iter().map(|order| order.signer).collect();
    assert_eq!(signers, [two.keys[0].public.id(), two.keys[2].public.id()]);
    assert!(planned.dnskey_orders().iter().all(|order| order.keys.len() == 3));

    two.keys[2].role = KeyRole::Ksk;
    let error = plan(&admitted(vec![]), None, &two, 1, NOW).err().expect("refused").to_string();
    assert!(
        error.contains("ECDSAP256SHA256 has no key that signs the rest of the zone"),
        "{error}"
    );
    two.keys[2].role = KeyRole::Zsk;
    let error = plan(&admitted(vec![]), None, &two, 1, NOW).err().expect("refused").to_string();
    assert!(error.contains("ECDSAP256SHA256 has no key that signs the DNSKEY RRset"), "{error}");
}

#[test]
fn keys_that_could_be_taken_for_one_another_are_refused() {
    let mut same = params(Denial::Nsec);
    same.keys.push(same.keys[1].clone());
    let refused = plan(&admitted(vec![]), None, &same, 1, NOW).err().expect("refused");
    assert!(matches!(refused, PlanError::TagsCollide(..)), "{refused}");
    same.keys.clear();
    let refused = plan(&admitted(vec![]), None, &same, 1, NOW).err().expect("refused");
    assert_eq!(refused, PlanError::KeyCount(0));
}

#[test]
fn times_are_those_of_the_policy() {
    let params = params(Denial::Nsec);
    let planned = plan(&admitted(vec![]), None, &params, 1, NOW).expect("planned");
    let order = &planned.dnskey_orders()[0];
    assert_eq!(u64::from(order.inception), NOW - 3_600);
    assert_eq!(u64::from(order.expiration), NOW + 14 * DAY);
    let tbs = planned.tasks().next().expect("a task").tbs;
    assert_eq!(tbs[8..12], order.expiration.to_be_bytes());
    assert_eq!(tbs[12..16], order.inception.to_be_bytes());
}

/// How many signatures a second version keeps, and how many it orders of KSK and ZSK.
fn check_reuse(
    records_then: Vec<Rec>,
    change: impl FnOnce(&mut ZoneParams),
    later_s: u64,
    expect: (usize, usize, usize),
) {
    let mut params = params(Denial::Nsec);
    let first = plan(&admitted(records()), None, &params, 1, NOW).expect("planned");
    let first = signed(first);
    change(&mut params);
    let zone = admitted(records_then);
    let next = plan_over(&zone, Some(first.records()), &params, 2, NOW.wrapping_add(later_s))
        .expect("planned");
    let counts = (next.reused(), next.dnskey_orders().len(), next.tasks().len());
    assert_eq!(counts, expect);
    let whole = signed(next);
    let unsigned = plan(&zone, None, &params, 2, NOW).expect("planned");
    assert_eq!(listing(&whole), listing(&signed(unsigned)));
}

#[test]
fn good_signatures_are_kept() {
    // Nine in all; the SOA's serial changes.
    check_reuse(records(), |_| {}, DAY, (8, 0, 1));
    check_reuse(records(), |_| {}, 7 * DAY - 1, (8, 0, 1));
}

#[test]
fn signatures_are_made_anew_when_they_must_be() {
    let all = (0, 1, 8);
    check_reuse(records(), |_| {}, 7 * DAY, all); // refresh is due
    check_reuse(records(), |_| {}, 30 * DAY, all); // expired
    check_reuse(records(), |_| {}, 0u64.wrapping_sub(2 * 3_600), all); // the clock went back
    check_reuse(records(), |params| params.policy.validity_s = 8 * 86_400, DAY, all);
    // Another ZSK changes DNSKEY, so that both keys sign anew.
    let other_zsk = |p: &mut ZoneParams| p.keys[1] = key(KeyRole::Zsk, Algorithm::Ed25519, 9);
    check_reuse(records(), other_zsk, DAY, all);
    // Another TTL of the SOA's MINIMUM would change NSEC; another DNSKEY TTL, DNSKEY alone.
    check_reuse(records(), |params| params.policy.dnskey_ttl_s = 60, DAY, (7, 1, 1));
    // A new name: its A and NSEC, and the NSEC before it.
    let mut more = records();
    more.push(("b.example.", 60, Rtype::A, vec![1; 4]));
    check_reuse(more, |_| {}, DAY, (7, 0, 4));
    // Another TTL.
    let mut slower = records();
    slower[0].1 = 61;
    check_reuse(slower, |_| {}, DAY, (7, 0, 2));
}

#[test]
fn signatures_must_fit_what_was_planned() {
    let plan = || plan(&admitted(vec![]), None, &params(Denial::Nsec), 1, NOW).expect("planned");
    let check = |zone: Vec<Vec<u8>>, dnskey: Vec<Vec<u8>>, expect: &str| {
        let signatures = Signatures { zone, dnskey, cds: vec![] };
        let error = plan().assemble(signatures).err().expect(expect).to_string();
        assert!(error.contains(expect), "{error}");
    };
    let good = || vec![vec![1; 64]; 3];
    check(vec![], vec![vec![1; 64]], "0 signatures over the zone; 3 were asked for");
    check(good(), vec![], "0 signatures over DNSKEY; 1 were asked for");
    check(good(), vec![vec![1; 63]], "example. DNSKEY: the signature by key");
    let mut short = good();
    short[1] = vec![];
    check(short, vec![vec![1; 64]], "example. SOA: the signature by key");
    assert!(matches!(
        plan().assemble(Signatures::default()),
        Err(AssembleError::Count { found: 0, expected: 3, .. })
    ));
}

#[test]
fn an_apex_can_be_too_long_for_nsec3() {
    let label = "a".repeat(63);
    let apex = format!("{label}.{label}.{label}.{}.", "a".repeat(40));
    let mut receiver =
        crate::receive::Receiver::new(apex.parse().expect("name"), crate::testing::BOUNDS);
    let soa = crate::testing::soa(1);
    receiver.push(&wire(&apex), Rtype::SOA.0, 1, 60, &soa).expect("pushed");
    receiver.push(&wire(&apex), Rtype::NS.0, 1, 60, &wire("ns.example.")).expect("pushed");
    let received = receiver.finish().expect("received");
    let zone = crate::admit::admit(received, &crate::testing::STRIP).expect("admitted");
    let mut params = params(Denial::Nsec3);
    params.apex = apex.parse().expect("name");
    let refused = plan(&zone, None, &params, 1, NOW).err().expect("refused");
    assert!(matches!(refused, PlanError::ApexTooLong(_)), "{refused}");
    params.policy.denial = Denial::Nsec;
    assert!(plan(&zone, None, &params, 1, NOW).is_ok());
}

#[test]
fn the_root_is_a_zone_like_any_other() {
    let mut receiver =
        crate::receive::Receiver::new(".".parse().expect("name"), crate::testing::BOUNDS);
    let soa = crate::testing::soa(1);
    for (owner, rtype, rdata) in [
        (".", Rtype::SOA, &soa[..]),
        (".", Rtype::NS, &wire("a.root.")),
        ("org.", Rtype::NS, &wire("a.org.")),
        ("a.org.", Rtype::A, &[192, 0, 2, 1]),
        ("a.root.", Rtype::A, &[192, 0, 2, 1]),
    ] {
        receiver.push(&wire(owner), rtype.0, 1, 60, rdata).expect("pushed");
    }
    let received = receiver.finish().expect("received");
    let zone = crate::admit::admit(received, &crate::testing::STRIP).expect("admitted");
    let mut params = params(Denial::Nsec);
    params.apex = ".".parse().expect("name");
    let signed_root = |params| signed(plan(&zone, None, &params, 1, NOW).expect("planned"));
    assert_eq!(
        listing(&signed_root(params.clone())),
        [
            ". NS 60 1",
            ". SOA 60 1",
            ". NSEC 60 1",
            ". DNSKEY 3600 1",
            "org. NS 60 0",
            "org. NSEC 60 1",
            "a.org. A 60 0",
            "a.root. A 60 1",
            "a.root. NSEC 60 1",
        ]
    );
    params.policy.denial = Denial::Nsec3;
    let chain = listing(&signed_root(params));
    let nsec3 = chain.iter().filter(|line| line.contains(" NSEC3 60 1"));
    assert_eq!(nsec3.count(), 4, "the root, org., a.root. and the empty root.: {chain:?}");
}

// ---- What the zone says to its parent

/// `example.`, saying that its KSK is to be trusted.
fn saying() -> ZoneParams {
    ZoneParams { cds: Some(crate::cds::tests::set()), ..params(Denial::Nsec) }
}

fn orders_of(params: &ZoneParams) -> Vec<CdsOrder> {
    let planned = plan(&admitted(vec![]), None, params, 1, NOW).expect("planned");
    planned.cds_orders().to_vec()
}

#[test]
fn a_zone_speaks_to_its_parent_by_its_ksk() {
    let params = saying();
    let planned = plan(&admitted(vec![]), None, &params, 1, NOW).expect("planned");
    assert_eq!(planned.tasks().len(), 3, "NS, SOA and NSEC alone are the ZSK's");
    let orders: Vec<(Rtype, KeyId, u32)> =
        planned.cds_orders().iter().map(|order| (order.rtype, order.signer, order.ttl_s)).collect();
    let ksk = params.keys[0].public.id();
    assert_eq!(orders, [(Rtype::CDS, ksk, 3_600), (Rtype::CDNSKEY, ksk, 3_600)]);
    let zone = signed(planned);
    assert_eq!(
        listing(&zone)[3..],
        ["example. DNSKEY 3600 1", "example. CDS 3600 1", "example. CDNSKEY 3600 1"]
    );
    let apex = zone.records().node(&wire("example.")).expect("apex");
    let nsec: Vec<&[u8]> = apex.rrset(Rtype::NSEC).expect("there").rdatas().collect();
    // NS, SOA, RRSIG, NSEC, DNSKEY, CDS, CDNSKEY.
    assert_eq!(nsec[0][9..], [0, 8, 0x22, 0, 0, 0, 0, 0x03, 0x80, 0x18]);
    let cds = apex.rrset(Rtype::CDS).expect("there");
    assert!(cds.rdatas().is_sorted());
    let rrsig = cds.rrsigs().next().expect("one");
    assert_eq!(rrsig[8..12], planned_expiration(3 * DAY).to_be_bytes());
}

fn planned_expiration(after_s: u64) -> u32 {
    (NOW + after_s) as u32
}

#[test]
fn what_is_said_to_the_parent_is_signed_for_short() {
    let check = |change: fn(&mut ZoneParams), expect: u64| {
        let mut params = saying();
        change(&mut params);
        for order in orders_of(&params) {
            assert_eq!(u64::from(order.inception), NOW - 3_600);
            assert_eq!(order.expiration, planned_expiration(expect));
        }
    };
    check(|_| {}, 3 * DAY);
    check(|p| p.policy.validity_s = 2 * 86_400, 2 * DAY);
    check(|p| p.cds.as_mut().expect("a set").validity_s = 60, 60);
    check(|p| p.cds.as_mut().expect("a set").validity_s = u32::MAX, 3 * DAY);
    check(|p| p.cds.as_mut().expect("a set").until_s = NOW + DAY, DAY);
}

#[test]
fn what_must_not_be_said_is_told_apart_from_what_can_not_be_planned() {
    let mut params = saying();
    params.cds.as_mut().expect("a set").until_s = NOW;
    let refused = plan(&admitted(vec![]), None, &params, 1, NOW).err().expect("refused");
    assert_eq!(refused, PlanError::Cds(CdsError::Over { until_s: NOW, now_s: NOW }));
    params.cds = None;
    assert!(plan(&admitted(vec![]), None, &params, 1, NOW).is_ok());
}

#[test]
fn dnskey_is_signed_until_its_approval_ends() {
    let mut params = params(Denial::Nsec);
    params.dnskey_until = Some(NOW + 3 * DAY);
    let planned = plan(&admitted(vec![]), None, &params, 1, NOW).expect("planned");
    assert_eq!(planned.dnskey_orders()[0].expiration, planned_expiration(3 * DAY));
    let tbs = planned.tasks().next().expect("a task").tbs;
    assert_eq!(tbs[8..12], planned_expiration(14 * DAY).to_be_bytes(), "of DNSKEY alone");
    params.dnskey_until = Some(NOW);
    let refused = plan(&admitted(vec![]), None, &params, 1, NOW).err().expect("refused");
    assert_eq!(refused, PlanError::DnskeyOver { until_s: NOW, now_s: NOW });
}

/// How many signatures of KSK over CDS and CDNSKEY, KSK over DNSKEY, and ZSK a second version
/// orders.
fn check_said_again(
    change: impl FnOnce(&mut ZoneParams),
    later_s: u64,
    expect: (usize, usize, usize),
) {
    let mut params = saying();
    let first = signed(plan(&admitted(vec![]), None, &params, 1, NOW).expect("planned"));
    change(&mut params);
    let next = plan_over(&admitted(vec![]), Some(first.records()), &params, 2, NOW + later_s);
    let next = next.expect("planned");
    let counts = (next.cds_orders().len(), next.dnskey_orders().len(), next.tasks().len());
    assert_eq!(counts, expect);
}

#[test]
fn signatures_over_cds_are_kept_while_they_fit() {
    let set = |params: &mut ZoneParams| params.cds.take().expect("a set");
    let soa = (0, 0, 1);
    check_said_again(|_| {}, DAY, soa);
    check_said_again(|_| {}, 36 * 3_600 - 1, soa);
    check_said_again(|_| {}, 36 * 3_600, (2, 0, 1)); // half of it is over
    let ends_sooner = |p: &mut ZoneParams| {
        p.cds = Some(CdsSet { until_s: NOW + 3 * DAY - 1, ..set(p) });
    };
    check_said_again(ends_sooner, DAY, (2, 0, 1));
    // As late as can be: nothing is gained by another.
    let capped = |p: &mut ZoneParams| p.cds = Some(CdsSet { until_s: NOW + 3 * DAY, ..set(p) });
    check_said_again(capped, 2 * DAY, soa);
    // CDNSKEY alone is other than it was; the CDS that is gone takes NSEC along.
    check_said_again(|p| p.cds = Some(CdsSet { cds: vec![], ..set(p) }), DAY, (0, 0, 2));
    check_said_again(|p| p.cds = None, DAY, (0, 0, 2));
    check_said_again(
        |p| p.cds = Some(CdsSet::delete(NOW + 7 * DAY, 3 * 86_400, 0)),
        DAY,
        (2, 0, 1),
    );
    // No KSK is at hand.
    let long = |p: &mut ZoneParams| {
        p.keep_dnskey = true;
        p.cds = None;
    };
    check_said_again(long, 7 * DAY, (0, 0, 3));
    check_said_again(long, 14 * DAY - 1, (0, 0, 3));
    check_said_again(long, 14 * DAY, (0, 1, 3));
    // DNSKEY under an approval that ends.
    check_said_again(|p| p.dnskey_until = Some(NOW + 13 * DAY), DAY, (0, 1, 1));
    check_said_again(|p| p.dnskey_until = Some(NOW + 14 * DAY), DAY, soa);
    let long = |p: &mut ZoneParams| {
        p.dnskey_until = Some(NOW + 14 * DAY);
        p.cds = Some(CdsSet { until_s: NOW + 30 * DAY, ..set(p) });
    };
    check_said_again(long, 7 * DAY, (2, 0, 3));
}

#[test]
fn a_task_says_which_rrset_it_is_for() {
    let planned = plan(&admitted(records()), None, &params(Denial::Nsec), 1, NOW).expect("planned");
    let named = |task: Task| task.rrset().map(|(owner, rtype)| format!("{owner} {rtype}"));
    let names: Option<Vec<String>> = planned.tasks().map(named).collect();
    let names = names.expect("each has a name");
    assert_eq!(names[..4], ["example. NS", "example. SOA", "example. NSEC", "a.example. A"]);
    assert!(names.contains(&"safe.example. DS".to_owned()));
    assert_eq!(Task { key: KeyId([0; 32]), tbs: vec![0; 19] }.rrset(), None);
}
