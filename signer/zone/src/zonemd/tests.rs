use std::net::Ipv6Addr;

use countersign_policy::key::from_hex;

use super::*;
use crate::admit::{AdmissionParams, IncomingZonemd, admit};
use crate::name::tests::wire;
use crate::testing::{Rec, STRIP, receive};

const SERIAL: u32 = 2_018_031_900;

/// RFC 8976 appendix A.1, A.2 and A.3.
pub(crate) const A1: &str = "c68090d90a7aed716bc459f9340e3d7c1370d4d24b7e2fc3a1ddc0b9a87153b9a9713b3c9ae5cc27777f98b8e730044c";
pub(crate) const A2: &str = "a3b69bad980a3504e1cffcb0fd6397f93848071c93151f552ae2f6b1711d4bd2d8b39808226d7b9db71e34b72077f8fe";
pub(crate) const A3: &str = "62e6cf51b02e54b9b5f967d547ce43136792901f9f88e637493daaf401c92c279dd10f0edb1c56f8080211f8480ee306";
const A3_SHA512: &str = "08cfa1115c7b948c4163a901270395ea226a930cd2cbcf2fa9a5e6eb85f37c8a4e114d884e66f176eab121cb02db7d652e0cc4827e7a3204f166b47e5613fd27";
const A3_PRIVATE_HASH: &str = "e2d523f654b9422a96c5a8f44607bbee";
const A3_PRIVATE_SCHEME: &str = "e1846540e33a9e4189792d18d5d131f605fc283e000000006792901f9f88e637493daaf401c92c279dd10f0edb1c56f8";

fn text(text: &str) -> Vec<u8> {
    [&[text.len() as u8][..], text.as_bytes()].concat()
}

fn aaaa(address: &str) -> Vec<u8> {
    address.parse::<Ipv6Addr>().expect("an address").octets().to_vec()
}

fn mx(preference: u16, name: &str) -> Vec<u8> {
    [&preference.to_be_bytes()[..], &wire(name)].concat()
}

/// ZONEMD RDATA.
fn digest(serial: u32, scheme: u8, hash: u8, hex: &str) -> Vec<u8> {
    [&serial.to_be_bytes()[..], &[scheme, hash], &from_hex(hex).expect("hex")].concat()
}

fn zonemd(rdata: Vec<u8>) -> Rec {
    ("example.", 86_400, Rtype::ZONEMD, rdata)
}

fn apex() -> Vec<Rec> {
    let mut soa = [wire("ns1.example."), wire("admin.example.")].concat();
    for field in [SERIAL, 1_800, 900, 604_800, 86_400] {
        soa.extend_from_slice(&field.to_be_bytes());
    }
    vec![
        ("example.", 86_400, Rtype::SOA, soa),
        ("example.", 86_400, Rtype::NS, wire("ns1.example.")),
        ("example.", 86_400, Rtype::NS, wire("ns2.example.")),
        ("ns1.example.", 3_600, Rtype::A, vec![203, 0, 113, 63]),
    ]
}

/// A.1 without its ZONEMD.
pub(crate) fn simple() -> Vec<Rec> {
    let mut zone = apex();
    zone.push(("ns2.example.", 3_600, Rtype::AAAA, aaaa("2001:db8::63")));
    zone
}

/// A.2 likewise, and without its record outside the zone, which no receiver lets in.
pub(crate) fn complex() -> Vec<Rec> {
    let txt = |owner, ttl_s, shown| (owner, ttl_s, Rtype::TXT, text(shown));
    let mut zone = apex();
    zone.extend([
        ("NS2.example.", 3_600, Rtype::AAAA, aaaa("2001:db8::63")),
        txt("occluded.sub.example.", 7_200, "I'm occluded but must be digested"),
        ("sub.example.", 7_200, Rtype::NS, wire("ns1.example.")),
        txt("duplicate.example.", 300, "I must be digested just once"),
        txt("duplicate.example.", 300, "I must be digested just once"),
        txt("UPPERCASE.example.", 3_600, "canonicalize uppercase owner names"),
        ("*.example.", 777, Rtype::PTR, wire("dont-forget-about-wildcards.example.")),
        ("mail.example.", 3_600, Rtype::MX, mx(20, "MAIL1.example.")),
        ("mail.example.", 3_600, Rtype::MX, mx(10, "Mail2.Example.")),
        ("sortme.example.", 3_600, Rtype::AAAA, aaaa("2001:db8::5:61")),
        ("sortme.example.", 3_600, Rtype::AAAA, aaaa("2001:db8::3:62")),
        ("sortme.example.", 3_600, Rtype::AAAA, aaaa("2001:db8::4:63")),
        ("sortme.example.", 3_600, Rtype::AAAA, aaaa("2001:db8::1:65")),
        ("sortme.example.", 3_600, Rtype::AAAA, aaaa("2001:db8::2:64")),
    ]);
    // The appendix fills this digest with a sentence.
    let sentence = b"allowed but ignored. allowed but ignored. allowe";
    let ignored = [&SERIAL.to_be_bytes()[..], &[1, 1], sentence].concat();
    zone.push(("non-apex.example.", 900, Rtype::ZONEMD, ignored));
    zone
}

/// A.3 likewise.
pub(crate) fn multiple() -> Vec<Rec> {
    let mut zone = simple();
    zone.push(("ns2.example.", 86_400, Rtype::TXT, text("This example has multiple digests")));
    zone
}

/// The digests of A.3, in its order.
fn digests_of_a3() -> [Rec; 4] {
    [
        zonemd(digest(SERIAL, 1, 1, A3)),
        zonemd(digest(SERIAL, 1, 2, A3_SHA512)),
        zonemd(digest(SERIAL, 1, 240, A3_PRIVATE_HASH)),
        zonemd(digest(SERIAL, 241, 1, A3_PRIVATE_SCHEME)),
    ]
}

fn checked(zone: Vec<Rec>, zonemd: impl IntoIterator<Item = Rec>) -> Received {
    let zone = [zone, zonemd.into_iter().collect()].concat();
    check_received(&receive(&zone).expect("received"))
}

fn wrong(zone: Vec<Rec>, zonemd: impl IntoIterator<Item = Rec>, expect: &str) {
    match checked(zone, zonemd) {
        Received::Wrong(fault) => assert!(fault.to_string().contains(expect), "{fault}"),
        other => panic!("{other:?}; expected {expect:?}"),
    }
}

#[test]
fn the_vectors_of_rfc_8976_are_made() {
    for (zone, expect) in [(simple(), A1), (complex(), A2), (multiple(), A3)] {
        let zone = admit(receive(&zone).expect("received"), &STRIP).expect("admitted");
        assert_eq!(rdata(zone.records(), zone.apex(), SERIAL), digest(SERIAL, 1, 1, expect));
    }
}

#[test]
fn the_vectors_of_rfc_8976_are_accepted() {
    for (zone, hex) in [(simple(), A1), (complex(), A2), (multiple(), A3)] {
        assert_eq!(checked(zone, [zonemd(digest(SERIAL, 1, 1, hex))]), Received::Right);
    }
    let sha512 = zonemd(digest(SERIAL, 1, 2, A3_SHA512));
    assert_eq!(checked(multiple(), [sha512]), Received::Right);
    assert_eq!(checked(multiple(), digests_of_a3()), Received::Right);
}

#[test]
fn what_can_not_be_checked_is_as_good_as_absent() {
    let [_, _, hash, scheme] = digests_of_a3();
    assert_eq!(checked(multiple(), [hash, scheme]), Received::Absent);
    assert_eq!(checked(multiple(), []), Received::Absent);
    let elsewhere = ("ns1.example.", 60, Rtype::ZONEMD, digest(SERIAL, 1, 1, A1));
    assert_eq!(checked(simple(), [elsewhere]), Received::Absent);
}

#[test]
fn a_wrong_digest_is_named() {
    wrong(
        simple(),
        [zonemd(digest(SERIAL, 1, 1, A2))],
        "the SHA-384 digest of the zone as it came",
    );
    let mut changed = simple();
    changed[3].1 = 3_601;
    wrong(changed, [zonemd(digest(SERIAL, 1, 1, A1))], "the SHA-384 digest");
    let later = zonemd(digest(SERIAL + 1, 1, 1, A1));
    wrong(simple(), [later], "its serial is 2018031901, that of the SOA 2018031900");
    // Cut short, it is no prefix that would do.
    wrong(simple(), [zonemd(digest(SERIAL, 1, 1, &A1[..24]))], "the SHA-384 digest");
}

#[test]
fn of_two_digests_of_one_kind_neither_counts() {
    let (right, other) = (zonemd(digest(SERIAL, 1, 1, A1)), zonemd(digest(SERIAL, 1, 1, A2)));
    wrong(simple(), [right.clone(), other], "two records with SIMPLE and SHA-384");
    assert_eq!(checked(simple(), [right.clone(), right]), Received::Right, "one, said twice");
    // A digest of another kind is enough (§4).
    let [sha384, sha512, ..] = digests_of_a3();
    let another = zonemd(digest(SERIAL, 1, 1, A1));
    assert_eq!(checked(multiple(), [sha384, another.clone(), sha512.clone()]), Received::Right);
    assert_eq!(checked(multiple(), [another, sha512]), Received::Right);
}

#[test]
fn it_is_checked_as_the_setting_says() {
    let admitted = |zonemd, digest: Option<Rec>| {
        let zone = [simple(), digest.into_iter().collect()].concat();
        admit(receive(&zone).expect("received"), &AdmissionParams { zonemd, ..STRIP })
            .map(|zone| zone.records().node(&wire("example.")).expect("apex").has(Rtype::ZONEMD))
            .map_err(|refusal| refusal.to_string())
    };
    let right = Some(zonemd(digest(SERIAL, 1, 1, A1)));
    let wrong = Some(zonemd(digest(SERIAL, 1, 1, A2)));
    let refused = |result: Result<bool, String>, expect: &str| {
        let error = result.expect_err(expect);
        assert!(error.starts_with("example. ZONEMD: ") && error.contains(expect), "{error}");
    };
    for setting in [IncomingZonemd::Ignore, IncomingZonemd::Check, IncomingZonemd::Require] {
        assert_eq!(admitted(setting, right.clone()), Ok(false), "taken, and left out");
    }
    assert_eq!(admitted(IncomingZonemd::Ignore, wrong.clone()), Ok(false));
    refused(admitted(IncomingZonemd::Check, wrong.clone()), "the SHA-384 digest");
    refused(admitted(IncomingZonemd::Require, wrong), "the SHA-384 digest");
    assert_eq!(admitted(IncomingZonemd::Check, None), Ok(false));
    refused(admitted(IncomingZonemd::Require, None), "`incoming_zonemd` is \"require\"");
}

#[test]
fn signatures_count_but_for_those_over_it() {
    let rrsig = |covered: Rtype| {
        let fields = [&covered.0.to_be_bytes()[..], &[13, 1], &[0; 14]].concat();
        ("example.", 86_400, Rtype::RRSIG, [&fields[..], &wire("example."), &[1]].concat())
    };
    let right = zonemd(digest(SERIAL, 1, 1, A1));
    assert_eq!(checked(simple(), [right.clone(), rrsig(Rtype::ZONEMD)]), Received::Right);
    wrong(simple(), [right, rrsig(Rtype::SOA)], "the SHA-384 digest");
}
