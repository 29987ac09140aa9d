use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::AdmittedZone;
use crate::admit::admit;
use crate::name::tests::wire;
use crate::receive::{CLASS_IN, ReceivedZone, Receiver};
use crate::testing::{BOUNDS, Rec, STRIP, admitted, soa, with_apex};

/// Owner, type, TTL, RDATA: owned.
type Record = (Vec<u8>, u16, u32, Vec<u8>);

fn shown(old: &Packed, new: &Packed) -> Vec<(Sign, String, String)> {
    between(old, new, Signatures::Shown)
        .map(|change| {
            let owner = crate::name::Shown(change.owner).to_string();
            let rest = countersign_policy::key::to_hex(change.rdata);
            (change.sign, owner, format!("{} {} {rest}", change.ttl_s, change.rtype))
        })
        .collect()
}

fn check(old: Vec<Rec>, new: Vec<Rec>, expect: &[(Sign, &str, &str)]) {
    let (old, new) = (admitted(old), admitted(new));
    let found = shown(old.records(), new.records());
    let expect: Vec<_> =
        expect.iter().map(|(s, o, r)| (*s, (*o).to_owned(), (*r).to_owned())).collect();
    assert_eq!(found, expect);
}

#[test]
fn a_difference_is_what_goes_and_then_what_comes() {
    use Sign::{Added, Removed};
    let a = |owner, last| (owner, 60, Rtype::A, vec![192, 0, 2, last]);
    check(vec![a("x.example.", 1)], vec![a("x.example.", 1)], &[]);
    check(
        vec![a("b.example.", 1), a("b.example.", 2), a("d.example.", 4)],
        vec![a("a.example.", 9), a("b.example.", 2), a("b.example.", 3)],
        &[
            (Added, "a.example.", "60 A c0000209"),
            (Removed, "b.example.", "60 A c0000201"),
            (Added, "b.example.", "60 A c0000203"),
            (Removed, "d.example.", "60 A c0000204"),
        ],
    );
}

#[test]
fn a_ttl_or_the_case_of_a_name_replaces_the_rrset() {
    use Sign::{Added, Removed};
    let a = |owner, ttl_s, last| (owner, ttl_s, Rtype::A, vec![192, 0, 2, last]);
    check(
        vec![a("x.example.", 60, 1), a("x.example.", 60, 2)],
        vec![a("x.example.", 61, 1), a("x.example.", 61, 2)],
        &[
            (Removed, "x.example.", "60 A c0000201"),
            (Removed, "x.example.", "60 A c0000202"),
            (Added, "x.example.", "61 A c0000201"),
            (Added, "x.example.", "61 A c0000202"),
        ],
    );
    check(
        vec![a("x.example.", 60, 1)],
        vec![a("X.example.", 60, 1)],
        &[(Removed, "x.example.", "60 A c0000201"), (Added, "X.example.", "60 A c0000201")],
    );
    check(
        vec![("x.example.", 60, Rtype::NS, wire("Ns.x."))],
        vec![("x.example.", 60, Rtype::NS, wire("ns.x."))],
        &[
            (Removed, "x.example.", "60 NS 024e73017800"),
            (Added, "x.example.", "60 NS 026e73017800"),
        ],
    );
}

/// The same records, in pages that the versions share but for one.
#[test]
fn shared_pages_are_passed_over() {
    let names: Vec<String> = (0..1_000).map(|i| format!("h{i:04}.example.")).collect();
    let records = names.iter().map(|name| {
        let name: &'static str = Box::leak(name.clone().into_boxed_str());
        (name, 60, Rtype::A, vec![192, 0, 2, 1])
    });
    let old = admitted(records.collect());
    let mut edit = old.records().edit();
    edit.put(&wire("h0500.example."), Rtype::A, 60, vec![vec![192, 0, 2, 2]], vec![]);
    edit.put(&wire("h0500x.example."), Rtype::A, 60, vec![vec![192, 0, 2, 3]], vec![]);
    let new = edit.finish().expect("edited");
    let found = shown(old.records(), &new);
    let owners: Vec<_> = found.iter().map(|(sign, owner, _)| (*sign, owner.as_str())).collect();
    let expect = [
        (Sign::Removed, "h0500.example."),
        (Sign::Added, "h0500.example."),
        (Sign::Added, "h0500x.example."),
    ];
    assert_eq!(owners, expect);
}

fn base() -> AdmittedZone {
    admitted(vec![
        ("www.example.", 60, Rtype::A, vec![192, 0, 2, 1]),
        ("www.example.", 60, Rtype::A, vec![192, 0, 2, 2]),
        ("Mixed.example.", 60, Rtype::NS, wire("Ns.Elsewhere.")),
    ])
}

/// Applies one sequence; what it says.
fn apply(edit: impl FnOnce(&mut Patch) -> Result<(), Mismatch>) -> Result<ReceivedZone, Mismatch> {
    let mut patch = Patch::new(Base::of_admitted(&base()), BOUNDS);
    edit(&mut patch)?;
    patch.end_sequence()?;
    patch.finish()
}

fn refused(edit: impl FnOnce(&mut Patch) -> Result<(), Mismatch>, expect: &str) {
    let refused = apply(edit).expect_err(expect).to_string();
    assert!(refused.contains(expect), "{refused}, expected {expect}");
}

#[test]
fn what_does_not_fit_the_base_is_refused() {
    let (www, a) = (wire("www.example."), Rtype::A.0);
    let there = [192, 0, 2, 1];
    refused(|p| p.remove(&www, a, 1, 60, &[192, 0, 2, 9]), "deletes a record that is not there");
    refused(|p| p.remove(&wire("no.example."), a, 1, 60, &there), "no.example. A: the difference");
    refused(|p| p.remove(&www, a, 1, 61, &there), "TTL 61; here it has 60");
    refused(|p| p.add(&www, a, 1, 60, &there), "adds a record that is there");
    refused(|p| p.add(&wire("WWW.example."), a, 1, 60, &[192, 0, 2, 9]), "in another case");
    refused(|p| p.add(&www, a, 1, 61, &[192, 0, 2, 9]), "unequal TTLs");
    refused(|p| p.add(&wire("www.elsewhere."), a, 1, 60, &there), "outside the zone");
    refused(|p| p.add(&www, a, 3, 60, &[192, 0, 2, 9]), "class 3");
    refused(|p| p.add(&www, 255, 1, 60, &[]), "exists in messages only");
    refused(|p| p.add(&www, a, 1, 60, &[1]), "RDATA is malformed");
    let twice = |p: &mut Patch| {
        p.remove(&www, a, 1, 60, &there)?;
        p.remove(&www, a, 1, 60, &there)
    };
    refused(twice, "not there");
    let endless = |p: &mut Patch| {
        loop {
            p.remove(&www, a, 1, 60, &there)?;
            p.add(&www, a, 1, 60, &there)?;
        }
    };
    refused(endless, "more than 10000 records of differences");
}

#[test]
fn the_new_spelling_holds() {
    let mixed = wire("mixed.example.");
    let received = apply(|p| {
        p.remove(&wire("MIXED.example."), Rtype::NS.0, 1, 60, &wire("ns.elsewhere."))?;
        p.add(&mixed, Rtype::NS.0, 1, 60, &wire("nS.elsewhere."))
    });
    let zone = admit(received.expect("fits"), &STRIP).expect("admitted");
    let node = zone.records().node(&mixed).expect("there");
    assert_eq!(node.owner(), mixed);
    assert_eq!(node.rrset(Rtype::NS).expect("NS").rdatas().next(), Some(&*wire("nS.elsewhere.")));
}

#[test]
fn what_is_left_out_on_the_way_in_is_left_out_of_differences() {
    use crate::admit::IncomingDnssec::{Refuse, Strip};
    let apex = "example.".parse().expect("name");
    let left_out = |owner: &str, rtype: Rtype, dnssec| {
        patch::is_left_out(&apex, &wire(owner), rtype.0, dnssec)
    };
    assert!(left_out("a.example.", Rtype::RRSIG, Strip));
    assert!(!left_out("a.example.", Rtype::RRSIG, Refuse));
    assert!(left_out("Example.", Rtype::ZONEMD, Refuse));
    assert!(!left_out("a.example.", Rtype::ZONEMD, Strip));
    assert!(!left_out("example.", Rtype::CDS, Strip), "it is refused");
}

/// A zone: by owner and type, TTL, the spelling, and its records.
type Model = BTreeMap<(u8, u8), (u32, bool, Vec<u8>)>;

fn model() -> impl Strategy<Value = Model> {
    let records =
        prop::collection::btree_set(0u8..6, 1..5).prop_map(|set| set.into_iter().collect());
    let rrset = (1u32..3, any::<bool>(), records);
    prop::collection::btree_map((0u8..12, 0u8..3), rrset, 0..16)
}

fn records_of(model: &Model, serial: u32) -> Vec<Record> {
    let owned = |(owner, ttl_s, rtype, rdata): Rec| (wire(owner), rtype.0, ttl_s, rdata);
    let mut all: Vec<Record> = with_apex(vec![]).into_iter().map(owned).collect();
    all[0].3 = soa(serial);
    for ((host, kind), (ttl_s, upper, records)) in model {
        let letter = if *upper { 'H' } else { 'h' };
        let owner = wire(&format!("{letter}{host}.example."));
        for record in records {
            let (rtype, rdata) = match kind {
                0 => (Rtype::A, vec![192, 0, 2, *record]),
                1 => (Rtype::MX, [&[0, *record][..], &wire("mX.example.")].concat()),
                _ => (Rtype::TXT, vec![1, *record]),
            };
            all.push((owner.clone(), rtype.0, *ttl_s, rdata));
        }
    }
    all
}

fn zone_of(model: &Model, serial: u32) -> AdmittedZone {
    let mut receiver = Receiver::new("example.".parse().expect("name"), BOUNDS);
    for (owner, rtype, ttl_s, rdata) in records_of(model, serial) {
        receiver.push(&owner, rtype, CLASS_IN, ttl_s, &rdata).expect("in bounds");
    }
    admit(receiver.finish().expect("records"), &STRIP).expect("admitted")
}

proptest! {
    /// A difference between any two zones, applied to the first, is the second: the same pages as
    /// if it had come whole. Also in two steps by way of a third.
    #[test]
    fn differences_applied_are_the_new_version(models in prop::collection::vec(model(), 2..4)) {
        let zones: Vec<_> =
            (7..).zip(&models).map(|(serial, model)| zone_of(model, serial)).collect();
        let mut patch = Patch::new(Base::of_admitted(&zones[0]), BOUNDS);
        for pair in zones.windows(2) {
            let changes: Vec<_> =
                between(pair[0].records(), pair[1].records(), Signatures::Shown).collect();
            for sign in [Sign::Removed, Sign::Added] {
                for c in changes.iter().filter(|change| change.sign == sign) {
                    let done = match sign {
                        Sign::Removed => patch.remove(c.owner, c.rtype.0, 1, c.ttl_s, c.rdata),
                        Sign::Added => patch.add(c.owner, c.rtype.0, 1, c.ttl_s, c.rdata),
                    };
                    done.expect("fits");
                }
            }
            patch.end_sequence().expect("whole");
        }
        let patched = admit(patch.finish().expect("a zone"), &STRIP).expect("admitted");
        let last = zones.last().expect("two at least");
        prop_assert_eq!(patched.serial(), last.serial());
        prop_assert_eq!(patched.records(), last.records());
    }
}
