//! Random zones: related names in mixed case, every octet in labels, empty non-terminals,
//! wildcards at depth, delegations with and without DS, glue, DNAME, unequal TTLs, duplicates,
//! unknown types, large RRsets.

use proptest::prelude::*;

/// A record in wire form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub owner: Vec<u8>,
    pub rtype: u16,
    pub ttl_s: u32,
    pub rdata: Vec<u8>,
}

/// A presentation-form name in wire form.
pub fn wire(text: &str) -> Vec<u8> {
    countersign_policy::name::wire_from_text(text).expect("a name")
}

pub fn record(owner: &str, rtype: u16, ttl_s: u32, rdata: &[u8]) -> Record {
    Record { owner: wire(owner), rtype, ttl_s, rdata: rdata.to_vec() }
}

/// What every zone begins with.
pub fn apex_records() -> Vec<Record> {
    let mut soa = [wire("NS.Example."), wire("Host.example.")].concat();
    for field in [7_u32, 3_600, 900, 604_800, 600] {
        soa.extend_from_slice(&field.to_be_bytes());
    }
    vec![
        record("eXample.", 6, 1_800, &soa),
        record("eXample.", 2, 3_600, &wire("nS.example.")),
        record("eXample.", 2, 3_600, &wire("ns.elsewhere.Test.")),
        record("ns.example.", 1, 3_600, &[192, 0, 2, 53]),
    ]
}

fn label() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::sample::select(vec!["a", "A", "b", "www", "wWw", "sub", "deep", "z"])
            .prop_map(|text| text.as_bytes().to_vec()),
        2 => Just(b"*".to_vec()),
        1 => prop::sample::select(vec![&b"a.b"[..], b"\0", b"\xff\xfe", b" ", b"\"", b"@", b"a\\b", b"-_-", b"**"])
            .prop_map(<[u8]>::to_vec),
        2 => prop::collection::vec(any::<u8>(), 1..6),
        // Letters: ldns reads no owner of more than 255 characters, escapes counted.
        1 => prop::collection::vec(prop::sample::select(b"aBcXyZ".to_vec()), 63),
    ]
}

fn under(suffix: &'static str, depth: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(label(), depth).prop_map(move |labels| {
        let mut name = wire(suffix);
        for label in labels.iter().rev() {
            let longer = [&[label.len() as u8][..], label, &name].concat();
            if longer.len() <= 220 {
                name = longer;
            }
        }
        name
    })
}

/// A name that RDATA mentions.
fn target() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![under("example.", 0..3), under("OTHER.test.", 0..2)]
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..12)
        .prop_map(|octets| [&[octets.len() as u8][..], &octets].concat())
}

fn large_text() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 200..256).prop_map(|octets| {
        let octets = &octets[..octets.len().min(255)];
        [&[octets.len() as u8][..], octets].concat().repeat(4)
    })
}

fn octets(count: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), count)
}

/// DS of a digest type that is known, so that the tools accept it.
fn ds() -> impl Strategy<Value = Vec<u8>> {
    (any::<u16>(), octets(32))
        .prop_map(|(tag, digest)| [&tag.to_be_bytes()[..], &[13, 2], &digest].concat())
}

/// A type and RDATA of it.
fn data() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let names = |rtype: u16| target().prop_map(move |name| (rtype, name));
    let preferred = |rtype: u16| {
        (any::<u16>(), target()).prop_map(move |(preference, name)| {
            (rtype, [&preference.to_be_bytes()[..], &name].concat())
        })
    };
    prop_oneof![
        5 => octets(4).prop_map(|rdata| (1, rdata)),
        3 => octets(16).prop_map(|rdata| (28, rdata)),
        4 => prop::collection::vec(text(), 1..3).prop_map(|texts| (16, texts.concat())),
        1 => large_text().prop_map(|rdata| (16, rdata)),
        2 => preferred(15),
        1 => preferred(18),
        1 => preferred(21),
        1 => preferred(36),
        2 => names(5),
        2 => names(39),
        1 => names(12),
        5 => names(2),
        4 => ds().prop_map(|rdata| (43, rdata)),
        1 => (target(), target()).prop_map(|(a, b)| (17, [a, b].concat())),
        1 => (target(), target()).prop_map(|(a, b)| (14, [a, b].concat())),
        1 => (octets(6), target()).prop_map(|(head, name)| (33, [head, name].concat())),
        1 => (octets(4), text(), target())
            .prop_map(|(head, flags, name)| (35, [&head[..], &flags, &[0, 0], &name].concat())),
        1 => (text(), text()).prop_map(|(cpu, os)| (13, [cpu, os].concat())),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(|rdata| (65_280, rdata)),
        1 => prop::collection::vec(any::<u8>(), 1..20).prop_map(|rdata| (1_234, rdata)),
    ]
}

/// One RRset's worth of records, or a delegation.
fn group() -> impl Strategy<Value = Vec<Record>> {
    let ttl = prop::sample::select(vec![0_u32, 300, 3_600, 86_400]);
    let plain = (under("example.", 0..4), data(), ttl.clone(), any::<bool>()).prop_map(
        |(owner, (rtype, rdata), ttl_s, twice)| {
            let one = Record { owner: owner.clone(), rtype, ttl_s, rdata };
            let mut other = one.clone();
            other.owner = owner.to_ascii_uppercase();
            other.ttl_s = 60;
            if twice { vec![one, other] } else { vec![one] }
        },
    );
    let large_rrset = (under("example.", 1..3), prop::collection::vec(large_text(), 2..12), ttl)
        .prop_map(|(owner, texts, ttl_s)| {
            let record = |rdata| Record { owner: owner.clone(), rtype: 16, ttl_s, rdata };
            texts.into_iter().map(record).collect()
        });
    let delegation = (under("example.", 1..4), prop::option::of(ds()), target()).prop_map(
        |(owner, ds, name_server)| {
            let below = [&b"\x02nS"[..], &owner].concat();
            let mut records = vec![
                Record { owner: owner.clone(), rtype: 2, ttl_s: 3_600, rdata: name_server },
                Record { owner: owner.clone(), rtype: 2, ttl_s: 3_600, rdata: below.clone() },
                Record { owner: below.clone(), rtype: 1, ttl_s: 3_600, rdata: vec![192, 0, 2, 1] },
                Record { owner: below, rtype: 28, ttl_s: 300, rdata: vec![1; 16] },
            ];
            records.extend(ds.map(|rdata| Record { owner, rtype: 43, ttl_s: 3_600, rdata }));
            records
        },
    );
    prop_oneof![12 => plain, 1 => large_rrset, 4 => delegation]
}

/// A zone in which every octet stands in a label, in sixteen labels of sixteen.
pub fn every_octet() -> Vec<Record> {
    let mut records = apex_records();
    for high in 0..16_u8 {
        let label: Vec<u8> = (0..16).map(|low| high << 4 | low).collect();
        let owner = [&[16][..], &label, &wire("sub.example.")].concat();
        records.push(Record { owner, rtype: 16, ttl_s: 300, rdata: b"\x02Hi".to_vec() });
    }
    records
}

/// The records of a random zone `example.`, in no order.
pub fn any_zone(groups: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Record>> {
    prop::collection::vec(group(), groups)
        .prop_map(|groups| [apex_records(), groups.concat()].concat())
        .prop_shuffle()
}
