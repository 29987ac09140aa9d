use proptest::prelude::*;

use super::*;
use crate::name::tests::wire;
use crate::receive::{Bounds, Receiver};
use crate::testing::{BOUNDS, Rec, STRIP, admitted, receive, soa, with_apex};

const A: [u8; 4] = [192, 0, 2, 1];

fn refused_with(params: AdmissionParams, records: &[Rec], expect: &str) {
    let error = receive(records)
        .and_then(|received| admit(received, &params))
        .expect_err(expect)
        .to_string();
    assert!(error.contains(expect), "expected {expect:?} in {error:?}");
}

fn refused(records: Vec<Rec>, expect: &str) {
    refused_with(STRIP, &with_apex(records), expect);
}

#[test]
fn a_zone_needs_one_soa_and_apex_ns() {
    let ns = ("example.", 60, Rtype::NS, wire("ns.example."));
    let soa_at = |serial| ("example.", 60, Rtype::SOA, soa(serial));
    refused_with(STRIP, &[], "no SOA");
    refused_with(STRIP, std::slice::from_ref(&ns), "no SOA");
    refused_with(STRIP, &[soa_at(1)], "no NS record at its apex");
    refused_with(STRIP, &[soa_at(1), soa_at(2), ns.clone()], "2 different SOA records");
    refused(vec![("a.example.", 60, Rtype::SOA, soa(1))], "a.example. SOA: an SOA record below");
    let twice = receive(&[soa_at(9), ns, soa_at(9)]).expect("received");
    let zone = admit(twice, &STRIP).expect("a transfer ends with its SOA again");
    assert_eq!((zone.serial(), zone.notes().duplicates), (9, 1));
}

#[test]
fn cname_and_dname_stand_alone() {
    let cname = |to: &str| ("c.example.", 60, Rtype::CNAME, wire(to));
    refused(vec![cname("a."), cname("b.")], "c.example. CNAME: 2 CNAME records");
    refused(vec![cname("a."), ("C.example.", 60, Rtype::A, A.into())], "a CNAME beside A");
    let both = admitted(vec![cname("A."), cname("a.")]);
    let node = both.records().node(&wire("c.example.")).expect("there");
    let target: Vec<&[u8]> = node.rrset(Rtype::CNAME).expect("there").rdatas().collect();
    assert_eq!(target, [wire("A.")], "one CNAME in two spellings: the first stays");

    let dname = |to: &str| ("d.example.", 60, Rtype::DNAME, wire(to));
    refused(vec![dname("a."), dname("b.")], "d.example. DNAME: 2 DNAME records");
    refused(
        vec![dname("a."), ("x.y.D.example.", 60, Rtype::A, A.into())],
        "x.y.D.example. A: lies below the DNAME of d.example.",
    );
    refused(
        vec![dname("a."), ("d.example.", 60, Rtype::NS, wire("ns.example."))],
        "a DNAME beside NS",
    );
    admitted(vec![dname("a."), ("d.example.", 60, Rtype::A, A.into())]);
}

#[test]
fn a_wildcard_delegates_nothing() {
    let ns = |owner| (owner, 60, Rtype::NS, wire("ns.example."));
    refused(vec![ns("*.a.example.")], "*.a.example. NS: an NS at a wildcard");
    admitted(vec![ns("a.*.example.")]);
}

#[test]
fn ds_belongs_to_a_delegation() {
    let ds = |owner| (owner, 60, Rtype::DS, [&[0, 1, 13, 2][..], &[7; 32]].concat());
    refused(vec![ds("example.")], "example. DS: a DS at the apex");
    refused(vec![ds("a.example.")], "a.example. DS: a DS without NS");
    admitted(vec![ds("a.example."), ("a.example.", 60, Rtype::NS, wire("ns.example."))]);
}

#[test]
fn what_the_signer_makes_itself_is_stripped_or_refused() {
    let signed = with_apex(vec![
        ("example.", 60, Rtype::DNSKEY, vec![1, 0, 3, 13, 9]),
        ("example.", 60, Rtype::RRSIG, [&[0; 18][..], &wire("example."), &[1]].concat()),
        ("example.", 0, Rtype::NSEC3PARAM, vec![1, 0, 0, 0, 0]),
        ("a.example.", 60, Rtype::NSEC, [&wire("example.")[..], &[0, 1, 0x40]].concat()),
        ("h.example.", 60, Rtype::NSEC3, vec![1, 0, 0, 0, 0, 1, 1]),
    ]);
    let refuse = AdmissionParams { dnssec: IncomingDnssec::Refuse, ..STRIP };
    refused_with(refuse, &signed, "example. DNSKEY: the primary sent a DNSSEC record");
    let zone = admit(receive(&signed).expect("received"), &STRIP).expect("stripped");
    assert_eq!((zone.notes().stripped, zone.records().counts().owners), (5, 1));

    let zonemd = |owner| (owner, 60, Rtype::ZONEMD, [&[0, 0, 0, 1, 1, 1][..], &[7; 48]].concat());
    let zone = admitted(vec![zonemd("example."), zonemd("a.example.")]);
    assert!(!zone.records().node(&wire("example.")).expect("apex").has(Rtype::ZONEMD));
    assert!(zone.records().node(&wire("a.example.")).expect("there").has(Rtype::ZONEMD));

    refused(
        vec![("example.", 60, Rtype::CDS, vec![0, 0, 0, 0, 0])],
        "example. CDS: the primary sent a record that speaks to the parent",
    );
}

#[test]
fn one_record_is_judged_as_it_comes() {
    refused(vec![("example.org.", 60, Rtype::A, A.into())], "example.org. A: lies outside");
    refused(vec![("a.example.", 60, Rtype::ANY, vec![])], "messages only");
    refused(vec![("a.example.", 60, Rtype::A, vec![1])], "a.example. A: RDATA is malformed");
    let mut receiver = Receiver::new("example.".parse().expect("name"), BOUNDS);
    let chaos = receiver.push(&wire("a.example."), 16, 3, 60, &[0]).expect_err("class CH");
    assert!(chaos.to_string().contains("class 3; expected 1 (IN)"), "{chaos}");
    let pointer = receiver.push(&[0xc0, 0x0c], 1, 1, 60, &A).expect_err("compressed");
    assert_eq!(pointer.fault, Fault::OwnerNotAName);
}

#[test]
fn bounds_hold() {
    let bounded = |records_max, bytes_max| {
        let bounds = Bounds { records_max, bytes_max };
        let mut receiver = Receiver::new("example.".parse().expect("name"), bounds);
        receiver.push(&wire("a.example."), 1, 1, 60, &A)?;
        receiver.push(&wire("a.example."), 1, 1, 60, &[9; 4])
    };
    assert_eq!(bounded(2, 30), Ok(()));
    assert_eq!(bounded(1, 30).expect_err("records").fault, Fault::TooManyRecords(1));
    assert_eq!(bounded(2, 29).expect_err("octets").fault, Fault::TooManyBytes(29));

    let text = |i: u16| ("t.example.", 60, Rtype::NULL, [&i.to_be_bytes()[..], &[0; 998]].concat());
    admitted((0..64).map(text).collect());
    refused((0..65).map(text).collect(), "t.example. NULL: the RRset takes 65807 octets");
}

#[test]
fn long_owners_can_make_an_rrset_too_large_to_sign() {
    let owner =
        [vec!["a".repeat(63); 3].join("."), "a".repeat(50), "example.".to_owned()].join(".");
    let mut receiver = Receiver::new("example.".parse().expect("name"), BOUNDS);
    for (owner, _, rtype, rdata) in with_apex(vec![]) {
        receiver.push(&wire(owner), rtype.0, 1, 60, &rdata).expect("apex");
    }
    for i in 0..4_500u16 {
        receiver.push(&wire(&owner), 65_280, 1, 60, &i.to_be_bytes()).expect("bounds");
    }
    let error = admit(receiver.finish().expect("received"), &STRIP).expect_err("too large");
    assert!(matches!(error.fault, Fault::TbsTooLarge { .. }), "{error}");
}

#[test]
fn ttls_are_made_equal_and_bounded() {
    let zone = admitted(vec![
        ("a.example.", 300, Rtype::A, A.into()),
        ("A.example.", 60, Rtype::A, vec![9; 4]),
        ("a.example.", 99_999, Rtype::A, vec![8; 4]),
    ]);
    let node = zone.records().node(&wire("a.example.")).expect("there");
    let rrset = node.rrset(Rtype::A).expect("there");
    assert_eq!((rrset.ttl_s(), rrset.len(), zone.notes().unequal_ttls), (60, 3, 1));
    assert_eq!(
        zone.notes().lowered[0].to_string(),
        "a.example. A: records had TTLs up to 99999; all have 60 now"
    );
    refused(
        vec![("a.example.", 86_401, Rtype::A, A.into())],
        "a.example. A: TTL 86401 exceeds the policy's `ttl_max_s` of 86400",
    );
    // What is not signed may be cached for as long as its owner likes.
    admitted(vec![("sub.example.", 172_800, Rtype::NS, wire("ns.sub.example."))]);
}

/// SOA RDATA with another expire.
fn soa_expiring(serial: u32, expire_s: u32) -> Vec<u8> {
    let mut rdata = soa(serial);
    let at = rdata.len() - 8;
    rdata[at..at + 4].copy_from_slice(&expire_s.to_be_bytes());
    rdata
}

/// A zone whose expire and two of whose TTLs are beyond what [`STRIP`] allows.
fn beyond() -> Vec<Rec> {
    vec![
        ("example.", 3_600, Rtype::SOA, soa_expiring(7, 604_801)),
        ("example.", 3_600, Rtype::NS, wire("ns.example.")),
        ("a.example.", 86_401, Rtype::A, A.into()),
        ("b.example.", 86_400, Rtype::A, A.into()),
        ("sub.example.", 172_800, Rtype::NS, wire("ns.sub.example.")),
        ("sub.example.", 172_800, Rtype::DS, [&[0, 1, 13, 2][..], &[7; 32]].concat()),
        ("ns.sub.example.", 172_800, Rtype::A, A.into()),
    ]
}

#[test]
fn what_signatures_might_not_outlive_is_refused_and_named() {
    refused_with(
        STRIP,
        &beyond(),
        "example. SOA: expire 604801 exceeds the policy's `refresh_s` of 604800 (and 2 more values",
    );
    let mut borne = beyond();
    borne[0].3 = soa_expiring(7, 604_800);
    refused_with(STRIP, &borne, "a.example. A: TTL 86401 exceeds");
    borne.retain(|(_, ttl_s, rtype, _)| *ttl_s <= 86_400 || *rtype == Rtype::NS);
    let zone = admit(receive(&borne).expect("received"), &STRIP).expect("within bounds");
    assert!(zone.is_exact());
}

#[test]
fn or_it_goes_out_capped_and_nothing_else_changes() {
    let params = AdmissionParams { beyond: BeyondWindow::Cap, ..STRIP };
    let zone = admit(receive(&beyond()).expect("received"), &params).expect("capped");
    let notes = zone.notes();
    let named: Vec<String> = notes.capped_first.iter().map(ToString::to_string).collect();
    assert_eq!(
        (notes.capped, named),
        (
            3,
            vec![
                "example. SOA: expire 604801 goes out as 604800".to_owned(),
                "a.example. A: TTL 86401 goes out as 86400".to_owned(),
                "sub.example. DS: TTL 172800 goes out as 86400".to_owned(),
            ]
        )
    );
    assert!(!zone.is_exact());
    let mut expected = beyond();
    expected[0].3 = soa_expiring(7, 604_800);
    expected[2].1 = 86_400;
    expected[5].1 = 86_400;
    let expected = admit(receive(&expected).expect("received"), &STRIP).expect("within bounds");
    assert_eq!(zone.digest(), expected.digest());
}

#[test]
fn so_many_capped_values_are_named_and_the_others_counted() {
    let owners: Vec<String> = (0..20).map(|i| format!("t{i}.example.")).collect();
    let mut receiver = Receiver::new("example.".parse().expect("name"), BOUNDS);
    for (owner, ttl_s, rtype, rdata) in with_apex(vec![]) {
        receiver.push(&wire(owner), rtype.0, 1, ttl_s, &rdata).expect("apex");
    }
    for owner in &owners {
        receiver.push(&wire(owner), 1, 1, 90_000, &A).expect("bounds");
    }
    let params = AdmissionParams { beyond: BeyondWindow::Cap, ..STRIP };
    let zone = admit(receiver.finish().expect("received"), &params).expect("capped");
    assert_eq!((zone.notes().capped, zone.notes().capped_first.len()), (20, NOTES_NAMED_MAX));
}

#[test]
fn only_the_primarys_own_records_are_exact() {
    let text = |owner, ttl_s, octet| (owner, ttl_s, Rtype::TXT, vec![1, octet]);
    assert!(admitted(vec![text("a.example.", 60, 1), text("a.example.", 60, 2)]).is_exact());
    // Each RRset keeps its own spelling; within one there is room for one.
    let address = ("A.example.", 60, Rtype::A, A.into());
    assert!(admitted(vec![address, text("a.example.", 60, 1)]).is_exact());
    for other in [
        text("a.example.", 60, 1), // a duplicate
        text("A.example.", 60, 2),
        text("a.example.", 61, 2),
    ] {
        assert!(!admitted(vec![text("a.example.", 60, 1), other]).is_exact());
    }
    let stripped = ("example.", 60, Rtype::DNSKEY, vec![1, 0, 3, 13, 9]);
    assert!(admitted(vec![stripped]).is_exact(), "what is left out does not count");
}

#[test]
fn order_of_arrival_does_not_matter() {
    let mut records = with_apex(vec![
        ("b.example.", 60, Rtype::MX, [&[0, 1][..], &wire("B.example.")].concat()),
        ("b.example.", 60, Rtype::MX, [&[0, 1][..], &wire("a.example.")].concat()),
        ("a.example.", 60, Rtype(65_280), vec![1, 2, 3]),
        ("*.example.", 60, Rtype::A, A.into()),
    ]);
    let forwards = admit(receive(&records).expect("received"), &STRIP).expect("admitted");
    records.reverse();
    let backwards = admit(receive(&records).expect("received"), &STRIP).expect("admitted");
    assert_eq!(forwards.digest(), backwards.digest());
    let node = forwards.records().node(&wire("b.example.")).expect("there");
    let targets: Vec<&[u8]> = node.rrset(Rtype::MX).expect("there").rdatas().collect();
    assert_eq!(targets[0][3], b'a', "sorted by canonical form, so a before B");
    assert_eq!(targets[1][3], b'B', "and written in the primary's own case");
}

/// A zone's records, and the same in another order, with every record twice.
fn shuffled() -> impl Strategy<Value = (Vec<OneRecord>, Vec<OneRecord>)> {
    let label = prop::sample::select(vec!["a", "b", "*", "\\000", "\\001", "ent"]);
    let owner =
        prop::collection::vec(label, 1..4).prop_map(|labels| labels.join(".") + ".example.");
    let record = (owner, prop::sample::select(vec![16u16, 65_280]), 60..63u32, 0..4u8)
        .prop_map(|(owner, rtype, ttl_s, octet)| (wire(&owner), rtype, ttl_s, vec![1, octet]));
    prop::collection::vec(record, 1..40).prop_flat_map(|records| {
        let twice = [records.clone(), records.clone()].concat();
        (Just(records), Just(twice).prop_shuffle())
    })
}

type OneRecord = (Vec<u8>, u16, u32, Vec<u8>);

fn admitted_in_order(records: &[OneRecord]) -> AdmittedZone {
    let mut receiver = Receiver::new("example.".parse().expect("name"), BOUNDS);
    for (owner, rtype, ttl_s, rdata) in records {
        receiver.push(owner, *rtype, 1, *ttl_s, rdata).expect("well-formed");
    }
    for (owner, ttl_s, rtype, rdata) in with_apex(vec![]) {
        receiver.push(&wire(owner), rtype.0, 1, ttl_s, &rdata).expect("apex");
    }
    admit(receiver.finish().expect("received"), &STRIP).expect("admitted")
}

proptest! {
    #[test]
    fn a_zone_is_the_same_in_any_order((records, shuffled) in shuffled()) {
        let (a, b) = (admitted_in_order(&records), admitted_in_order(&shuffled));
        prop_assert_eq!(a.digest(), b.digest());
        prop_assert_eq!(b.notes().duplicates, a.notes().duplicates + records.len());
        let mut owners: Vec<_> = records.iter().map(|record| name::sort_key(&record.0)).collect();
        owners.push(name::sort_key(&wire("example.")));
        owners.sort();
        owners.dedup();
        prop_assert!(a.records().iter().map(|node| node.key().to_vec()).eq(owners));
    }
}
