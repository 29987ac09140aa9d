//! Values that signatures might not outlive go out at their bounds, and verification accepts exactly
//! that: no other value, and no bound where none belongs.

mod support;

use countersign_policy::Algorithm;
use countersign_policy::signing::{Denial, KeySplit};
use countersign_zone::{
    AdmissionParams, AdmittedZone, BeyondWindow, Bounds, Failure, Receiver, Rtype, admit,
};

use support::tamper::{Tamper, place};
use support::zones::{Record, apex_records, record, wire};
use support::{ADMISSION, NOW_S, Setup, apex};

const DAY_S: u32 = 86_400;

/// An expire of two weeks, and a TTL of a week on an address, a delegation and its glue.
fn records() -> Vec<Record> {
    let mut records = apex_records();
    let expire = records[0].rdata.len() - 8;
    records[0].rdata[expire..expire + 4].copy_from_slice(&(14 * DAY_S).to_be_bytes());
    records.push(record("www.example.", 1, 7 * DAY_S, &[192, 0, 2, 1]));
    records.push(record("sub.example.", 2, 7 * DAY_S, &wire("ns.sub.example.")));
    records.push(record("ns.sub.example.", 1, 7 * DAY_S, &[192, 0, 2, 2]));
    records
}

fn capped() -> AdmittedZone {
    let bounds = Bounds { records_max: 100, bytes_max: 10_000 };
    let mut receiver = Receiver::new(apex(), bounds);
    for record in records() {
        receiver
            .push(&record.owner, record.rtype, 1, record.ttl_s, &record.rdata)
            .expect("a record");
    }
    let params = AdmissionParams { beyond: BeyondWindow::Cap, ..ADMISSION };
    admit(receiver.finish().expect("whole"), &params).expect("capped")
}

fn setup() -> Setup {
    Setup::new(Algorithm::Ed25519, KeySplit::KskZsk, Denial::Nsec)
}

#[test]
fn they_go_out_at_their_bounds_and_verify() {
    let zone = setup().verified(&capped(), NOW_S);
    let ttl_s = |owner: &str, rtype| zone.rrset(&wire(owner), rtype).expect("there").ttl_s();
    assert_eq!(ttl_s("www.example.", Rtype::A), DAY_S);
    assert_eq!(ttl_s("sub.example.", Rtype::NS), 7 * DAY_S);
    assert_eq!(ttl_s("ns.sub.example.", Rtype::A), 7 * DAY_S);
    let soa = zone.rrset(&wire("example."), Rtype::SOA).expect("there");
    let soa = soa.rdatas().next().expect("one");
    assert_eq!(soa[soa.len() - 8..][..4], (7 * DAY_S).to_be_bytes());
}

fn refused(change: impl FnOnce(&mut Tamper), expect: &Failure) {
    let mut tamper = Tamper::new(setup(), capped());
    change(&mut tamper);
    assert_eq!(&tamper.failure(), expect);
}

fn another_ttl(owner: &'static str, rtype: Rtype, ttl_s: u32, admitted: u32) {
    let expect = Failure::TtlChanged { place: place(owner, rtype), found: ttl_s, admitted };
    let change = |t: &mut Tamper| {
        let rdatas = t.rdatas(owner, rtype);
        if t.rrset(owner, rtype).rrsigs().next().is_none() {
            t.put_raw(&wire(owner), rtype, ttl_s, rdatas, vec![]);
        } else {
            t.put(&wire(owner), rtype, ttl_s, rdatas);
        }
    };
    refused(change, &expect);
}

#[test]
fn no_other_ttl_is_accepted() {
    another_ttl("www.example.", Rtype::A, 7 * DAY_S, DAY_S);
    another_ttl("www.example.", Rtype::A, DAY_S - 1, DAY_S);
    // Below its bound a TTL is the primary's.
    another_ttl("ns.example.", Rtype::A, DAY_S, 3_600);
    // What is not signed has no bound.
    another_ttl("sub.example.", Rtype::NS, DAY_S, 7 * DAY_S);
    another_ttl("ns.sub.example.", Rtype::A, DAY_S, 7 * DAY_S);
}

#[test]
fn no_other_timer_is_accepted() {
    for (from_the_end, value) in [
        (8, 14 * DAY_S),    // expire as the primary has it
        (8, 7 * DAY_S - 1), // or lower than it need be
        (16, 3_599),        // refresh
        (12, 899),          // retry
        (4, 599),           // minimum
    ] {
        refused(
            |t| {
                t.change("example.", Rtype::SOA, |rdatas| {
                    let at = rdatas[0].len() - from_the_end;
                    rdatas[0][at..at + 4].copy_from_slice(&value.to_be_bytes());
                });
            },
            &Failure::RdataChanged(place("eXample.", Rtype::SOA)),
        );
    }
}
