//! The chain of denial of a verified zone is tampered with and signed again, and each tampering is
//! refused for what it is: names without a record, records without a name, broken pointers, wrong
//! bitmaps, parameters and TTLs.

mod support;

use countersign_policy::signing::Denial;
use countersign_zone::verify::Place;
use countersign_zone::{Failure, Rtype};

use support::tamper::{Tamper, check, place, tamper};
use support::zones::wire;

// ---- NSEC

/// NSEC RDATA of `owner` with another next name or bitmap.
fn nsec(next: &str, bitmap: &[u8]) -> Vec<Vec<u8>> {
    vec![[&wire(next)[..], bitmap].concat()]
}

/// A RRSIG NSEC.
const A_BITMAP: &[u8] = &[0, 6, 0x40, 0, 0, 0, 0, 0x03];

#[test]
fn every_name_has_its_nsec() {
    for owner in ["www.example.", "insecure.example.", "*.wild.example.", "secure.example."] {
        check(
            Denial::Nsec,
            |t| t.remove(&wire(owner), Rtype::NSEC),
            &Failure::DenialMissing { owner: wire(owner)[..].into(), kind: Rtype::NSEC },
        );
    }
}

#[test]
fn no_other_name_has_one() {
    // Glue, an empty non-terminal, a name that is not there.
    for owner in ["ns.insecure.example.", "b.ent.example.", "nobody.example."] {
        check(
            Denial::Nsec,
            |t| t.put(&wire(owner), Rtype::NSEC, 600, nsec("www.example.", A_BITMAP)),
            &Failure::DenialExtra(place(owner, Rtype::NSEC)),
        );
    }
}

#[test]
fn the_nsec_chain_is_closed() {
    let next = |from: &str, found: &str, expected: &str| Failure::DenialNext {
        place: place(from, Rtype::NSEC),
        found: found.to_owned(),
        expected: expected.to_owned(),
    };
    // Skips one name; stays; does not come back to the apex.
    for (from, wrong, right) in [
        ("ns.example.", "www.example.", "secure.example."),
        ("ns.example.", "ns.example.", "secure.example."),
        ("www.example.", "ns.example.", "example."),
    ] {
        check(
            Denial::Nsec,
            |t| t.put(&wire(from), Rtype::NSEC, 600, nsec(wrong, A_BITMAP)),
            &next(from, wrong, right),
        );
    }
}

#[test]
fn nsec_bitmaps_are_exact() {
    let check = |owner: &str, bitmap: &[u8], found: &str, expected: &str| {
        let mut t = tamper(Denial::Nsec);
        let next_end = t.rdatas(owner, Rtype::NSEC).remove(0);
        let len = countersign_zone::name::wire_len(&next_end).expect("a name");
        let rdata = [&next_end[..len], bitmap].concat();
        t.put(&wire(owner), Rtype::NSEC, 600, vec![rdata]);
        match t.failure() {
            Failure::DenialBitmap { place: at, found: said, expected: has, .. } => {
                assert_eq!(at, place(owner, Rtype::NSEC));
                assert_eq!(
                    (said.to_string(), has.to_string()),
                    (found.to_owned(), expected.to_owned())
                );
            }
            other => panic!("{other}"),
        }
    };
    // One type too many, one too few, none, and a form that is not the shortest.
    check("www.example.", &[0, 6, 0x40, 1, 0, 0, 0, 3], "{A MX RRSIG NSEC}", "{A RRSIG NSEC}");
    check("www.example.", &[0, 6, 0, 0, 0, 0, 0, 3], "{RRSIG NSEC}", "{A RRSIG NSEC}");
    check("www.example.", &[], "{}", "{A RRSIG NSEC}");
    check("www.example.", &[0, 7, 0x40, 0, 0, 0, 0, 3, 0], "{A RRSIG NSEC}", "{A RRSIG NSEC}");
    // At a delegation: NS, DS and NSEC are the parent's to say.
    check("secure.example.", &[0, 6, 0x20, 0, 0, 0, 0, 3], "{NS RRSIG NSEC}", "{NS DS RRSIG NSEC}");
}

#[test]
fn nsec_records_are_one_a_name_with_the_ttl_of_rfc_9077() {
    let www = place("www.example.", Rtype::NSEC);
    check(
        Denial::Nsec,
        |t| {
            let rdatas = t.rdatas("www.example.", Rtype::NSEC);
            t.put(&wire("www.example."), Rtype::NSEC, 1_800, rdatas);
        },
        &Failure::DenialTtl { place: www.clone(), found: 1_800, expected: 600 },
    );
    check(
        Denial::Nsec,
        |t| {
            t.change("www.example.", Rtype::NSEC, |rdatas| {
                rdatas.extend(nsec("example.", &[0, 1, 0x40]));
            });
        },
        &Failure::DenialMalformed(www),
    );
}

#[test]
fn one_kind_of_denial_a_zone() {
    check(
        Denial::Nsec,
        |t| t.put(&wire("example."), Rtype::NSEC3PARAM, 0, vec![vec![1, 0, 0, 0, 0]]),
        &Failure::DenialKind(place("example.", Rtype::NSEC3PARAM)),
    );
    check(
        Denial::Nsec3,
        |t| t.put(&wire("www.example."), Rtype::NSEC, 600, nsec("example.", A_BITMAP)),
        &Failure::DenialKind(place("www.example.", Rtype::NSEC)),
    );
    // A zone of one kind under a policy of the other.
    let mut t = tamper(Denial::Nsec);
    t.setup.params.policy.denial = Denial::Nsec3;
    let (owner, kind) = (wire("example.")[..].into(), Rtype::NSEC3PARAM);
    assert_eq!(t.failure(), Failure::DenialMissing { owner, kind });
}

// ---- NSEC3

/// Owners of the NSEC3 chain in order, with the RDATA of each.
fn chain(t: &Tamper) -> Vec<(Vec<u8>, Vec<u8>)> {
    let links = t.records.iter().filter_map(|node| node.rrset(Rtype::NSEC3));
    links
        .map(|rrset| (rrset.owner().to_vec(), rrset.rdatas().next().expect("one").to_vec()))
        .collect()
}

/// Where in the chain the record of `name` is: the only one whose removal is told by that name.
fn position(t: &Tamper, name: &str) -> usize {
    use aws_lc_rs::digest;
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &wire(name));
    // A record's next hashed owner is in its predecessor.
    let before = chain(t)
        .iter()
        .position(|(_, rdata)| &rdata[6..26] == hash.as_ref())
        .expect("the name is in the chain");
    (before + 1) % chain(t).len()
}

fn change_nsec3(t: &mut Tamper, at: usize, change: impl FnOnce(&mut Vec<u8>)) {
    let (owner, mut rdata) = chain(t)[at].clone();
    change(&mut rdata);
    t.put(&owner, Rtype::NSEC3, 600, vec![rdata]);
}

/// Takes a record out and closes the chain over it.
fn unlink(t: &mut Tamper, name: &str) {
    let at = position(t, name);
    let links = chain(t);
    let next = links[at].1[6..26].to_vec();
    t.remove(&links[at].0, Rtype::NSEC3);
    let before = (at + links.len() - 1) % links.len();
    let (owner, mut rdata) = links[before].clone();
    rdata[6..26].copy_from_slice(&next);
    t.put(&owner, Rtype::NSEC3, 600, vec![rdata]);
}

#[test]
fn every_name_has_its_nsec3_empty_non_terminals_too() {
    for name in
        ["www.example.", "ent.example.", "b.ent.example.", "wild.example.", "insecure.example."]
    {
        check(
            Denial::Nsec3,
            |t| unlink(t, name),
            &Failure::DenialMissing { owner: wire(name)[..].into(), kind: Rtype::NSEC3 },
        );
    }
}

#[test]
fn opt_out_covers_insecure_delegations_only() {
    for name in ["secure.example.", "www.example.", "b.ent.example.", "dname.example."] {
        check(
            Denial::Nsec3OptOut,
            |t| unlink(t, name),
            &Failure::DenialMissing { owner: wire(name)[..].into(), kind: Rtype::NSEC3 },
        );
    }
    // A chain that was made without opt-out has them all, which is allowed; its flags are not.
    let mut t = tamper(Denial::Nsec3);
    t.setup.params.policy.denial = Denial::Nsec3OptOut;
    assert!(matches!(
        t.failure(),
        Failure::DenialParameter { parameter: "flags", found: 0, expected: 1, .. }
    ));
    for at in 0..chain(&t).len() {
        change_nsec3(&mut t, at, |rdata| rdata[1] = 1);
    }
    t.verify().expect("insecure delegations may be in an opt-out chain");
    unlink(&mut t, "insecure.example.");
    t.verify().expect("and need not be");
}

#[test]
fn the_nsec3_chain_is_closed() {
    for at in [0, 3] {
        let mut t = tamper(Denial::Nsec3);
        change_nsec3(&mut t, at, |rdata| rdata[25] ^= 1);
        let owner = chain(&t)[at].0.clone();
        match t.failure() {
            Failure::DenialNext { place, .. } => {
                assert_eq!(place, Place::new(&owner, Rtype::NSEC3));
            }
            other => panic!("{other}"),
        }
    }
    // Taken out, and not closed over.
    let mut t = tamper(Denial::Nsec3);
    let (owner, _) = chain(&t)[2].clone();
    t.remove(&owner, Rtype::NSEC3);
    assert!(matches!(t.failure(), Failure::DenialNext { .. }));
}

#[test]
fn nsec3_bitmaps_are_exact_and_told_by_the_name() {
    let mut t = tamper(Denial::Nsec3);
    let at = position(&t, "secure.example.");
    change_nsec3(&mut t, at, |rdata| {
        rdata.truncate(26);
        rdata.extend_from_slice(&[0, 1, 0x20]);
    });
    match t.failure() {
        Failure::DenialBitmap { owner, found, expected, .. } => {
            assert_eq!(owner.to_string(), "secure.example.");
            assert_eq!(
                (found.to_string(), expected.to_string()),
                ("{NS}".into(), "{NS DS RRSIG}".into())
            );
        }
        other => panic!("{other}"),
    }
}

#[test]
fn nsec3_parameters_are_those_of_rfc_9276() {
    let parameter = |change: fn(&mut Vec<u8>), expect: (&str, usize, usize)| {
        let mut t = tamper(Denial::Nsec3);
        change_nsec3(&mut t, 0, change);
        match t.failure() {
            Failure::DenialParameter { parameter, found, expected, .. } => {
                assert_eq!((parameter, found, expected), expect);
            }
            other => panic!("{other}"),
        }
    };
    parameter(|rdata| rdata[0] = 2, ("hash algorithm", 2, 1));
    parameter(|rdata| rdata[1] = 1, ("flags", 1, 0));
    parameter(|rdata| rdata[3] = 1, ("iterations", 1, 0));
    parameter(
        |rdata| {
            rdata[4] = 1;
            rdata.insert(5, 0xab);
        },
        ("salt length", 1, 0),
    );
    check(
        Denial::Nsec3,
        |t| t.change("example.", Rtype::NSEC3PARAM, |rdatas| rdatas[0] = vec![1, 1, 0, 0, 0]),
        &Failure::DenialParameter {
            place: place("eXample.", Rtype::NSEC3PARAM),
            parameter: "flags",
            found: 1,
            expected: 0,
        },
    );
    check(
        Denial::Nsec3,
        |t| t.remove(&wire("example."), Rtype::NSEC3PARAM),
        &Failure::DenialMissing { owner: wire("example.")[..].into(), kind: Rtype::NSEC3PARAM },
    );
}

#[test]
fn no_nsec3_denies_for_what_is_not_there() {
    let label = "0".repeat(32);
    let owner = format!("{label}.example.");
    check(
        Denial::Nsec3,
        |t| {
            let rdata = chain(t)[0].1.clone();
            t.put(&wire(&owner), Rtype::NSEC3, 600, vec![rdata]);
        },
        &Failure::DenialExtra(place(&owner, Rtype::NSEC3)),
    );
    // An owner that is no hash at all.
    check(
        Denial::Nsec3,
        |t| {
            let rdata = chain(t)[0].1.clone();
            t.put(&wire("www.example."), Rtype::NSEC3, 600, vec![rdata]);
        },
        &Failure::DenialExtra(place("www.example.", Rtype::NSEC3)),
    );
}
