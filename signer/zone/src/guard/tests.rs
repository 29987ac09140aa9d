use super::*;
use crate::admit::admit;
use crate::name::tests::wire;
use crate::testing::{Rec, STRIP, receive, soa};

const RULES: Rules<'_> =
    Rules { shrink_percent_max: 20, shrink_records_min: 10, apex_ns: true, critical: &[] };

fn zone(records: &[Rec]) -> Packed {
    let mut zone = vec![
        ("example.", 3_600, Rtype::SOA, soa(7)),
        ("example.", 3_600, Rtype::NS, wire("ns.example.")),
    ];
    zone.extend(records.iter().cloned());
    admit_any(&zone)
}

fn admit_any(records: &[Rec]) -> Packed {
    admit(receive(records).expect("received"), &STRIP).expect("admitted").records().clone()
}

fn a(owner: &'static str) -> Rec {
    (owner, 60, Rtype::A, vec![192, 0, 2, 1])
}

fn ns(owner: &'static str, target: &str) -> Rec {
    (owner, 60, Rtype::NS, wire(target))
}

fn ds(owner: &'static str) -> Rec {
    (owner, 60, Rtype::DS, vec![7; 36])
}

fn judged(old: &[Rec], new: &[Rec], rules: &Rules<'_>) -> Vec<String> {
    let apex = "example.".parse().expect("name");
    let reasons = judge_records(&apex, &zone(old), &zone(new), rules);
    reasons.iter().map(ToString::to_string).collect()
}

/// So many hosts.
fn hosts(count: usize) -> Vec<Rec> {
    let owners = (0..count).map(|i| &*format!("h{i:03}.example.").leak());
    owners.map(a).collect()
}

#[test]
fn a_zone_shrinks_by_percent_and_by_number() {
    let count = |old: usize, new: usize| judged(&hosts(old), &hosts(new), &RULES).len();
    assert_eq!(count(98, 78), 0, "20 of 100 are 20 %");
    assert_eq!(count(98, 77), 1, "21 of 100");
    assert_eq!(count(18, 9), 0, "nine are few, whatever part of the zone");
    assert_eq!(count(18, 8), 1);
    assert_eq!(count(18, 98), 0, "a zone may grow");
    let off = Rules { shrink_percent_max: 100, ..RULES };
    assert_eq!(judged(&hosts(98), &[], &off), Vec::<String>::new());
    assert_eq!(
        judged(&hosts(98), &[], &RULES),
        [
            "98 of 100 records go (98 %), 2 stay or come; names that go: h000.example., h001.example., h002.example., h003.example., h004.example., h005.example., h006.example., h007.example., h008.example., h009.example. and 88 more"
        ]
    );
}

#[test]
fn what_signing_adds_does_not_count() {
    let apex: ZoneName = "example.".parse().expect("name");
    for (owner, rtype, expect) in [
        ("example.", Rtype::DNSKEY, true),
        ("a.example.", Rtype::NSEC, true),
        ("example.", Rtype::CDS, true),
        ("EXAMPLE.", Rtype::ZONEMD, true),
        ("a.example.", Rtype::ZONEMD, false),
        ("a.example.", Rtype::DS, false),
    ] {
        assert_eq!(is_signers(&apex, &wire(owner), rtype), expect, "{owner} {rtype}");
    }
}

#[test]
fn a_critical_name_counts_as_lost_when_it_does() {
    let critical = ["kid.example.".parse().expect("name")];
    let rules = Rules { critical: &critical, ..RULES };
    let check = |old: &[Rec], new: &[Rec], expect: Option<&str>| {
        let expect: Vec<String> =
            expect.iter().map(|why| format!("critical name kid.example. {why}")).collect();
        assert_eq!(judged(old, new, &rules), expect, "{new:?}");
    };
    let kid = "kid.example.";
    check(&[], &[], None);
    check(&[], &[a(kid)], None);
    check(&[a(kid)], &[], Some("has no record any more"));
    check(&[a(kid)], &[a("below.kid.example.")], Some("has no record any more"));
    check(&[a(kid)], &[(kid, 9, Rtype::TXT, b"\x01x".to_vec())], None);
    check(&[ns(kid, "ns.a.")], &[a(kid)], Some("is no delegation any more"));
    let others = Some("is delegated to other name servers, none of them an old one");
    check(&[ns(kid, "ns.a.")], &[ns(kid, "ns.b.")], others);
    check(&[ns(kid, "ns.a.")], &[ns(kid, "NS.A."), ns(kid, "ns.b.")], None);
    let insecure = Some("has no DS any more: its delegation becomes insecure");
    check(&[ns(kid, "ns.a."), ds(kid)], &[ns(kid, "ns.a.")], insecure);
    check(&[ns(kid, "ns.a.")], &[ns(kid, "ns.a."), ds(kid)], None);
}

#[test]
fn a_critical_name_below_a_new_cut_is_hidden() {
    let critical = ["www.sub.example.".parse().expect("name")];
    let rules = Rules { critical: &critical, ..RULES };
    let (www, cut) = (a("www.sub.example."), ns("sub.example.", "www.sub.example."));
    let hidden = ["critical name www.sub.example. is hidden by a delegation or a DNAME above it"];
    assert_eq!(judged(std::slice::from_ref(&www), &[www.clone(), cut.clone()], &rules), hidden);
    let glue = [www.clone(), cut];
    assert_eq!(judged(&glue, &glue, &rules), Vec::<String>::new(), "it was glue before");
    assert_eq!(judged(&glue, &[www], &rules), Vec::<String>::new());
}

#[test]
fn other_name_servers_at_the_apex_are_named_and_their_ttl_and_case_are_not() {
    let add = |target: &str| judged(&[], &[ns("example.", target)], &RULES);
    assert_eq!(
        add("ns.evil.test."),
        ["the zone's name servers change: these go: none; these come: ns.evil.test."]
    );
    assert_eq!(add("NS.Example."), Vec::<String>::new());
    let off = Rules { apex_ns: false, ..RULES };
    assert_eq!(judged(&[], &[ns("example.", "ns.evil.test.")], &off), Vec::<String>::new());
}

#[test]
fn the_same_data_is_the_same_whatever_its_serial() {
    let apex = "example.".parse().expect("name");
    let mut other = vec![
        ("example.", 3_600, Rtype::SOA, soa(9)),
        ("example.", 3_600, Rtype::NS, wire("ns.example.")),
    ];
    let old = zone(&[]);
    assert!(same_records(&apex, &old, &admit_any(&other)));
    other[0].1 = 60;
    assert!(!same_records(&apex, &old, &admit_any(&other)), "another TTL");
    other[0].1 = 3_600;
    other[1].1 = 60;
    assert!(!same_records(&apex, &old, &admit_any(&other)), "another TTL");
    assert!(!same_records(&apex, &old, &zone(&[a("a.example.")])));
    assert!(!same_records(&apex, &zone(&[a("a.example.")]), &old));
}
