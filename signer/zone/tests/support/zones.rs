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

/// Who is to read a zone: the tools do not read every type as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The `domain` crate: every type, known to it or not.
    Domain,
    /// BIND 9.18: not MD and MF, which it calls obsolete; and it signs the name in an NSAP-PTR in lower
    /// case, though RFC 4034 §6.2 does not list that type.
    Bind,
    /// ldns 1.8.3: it does not lower the name in an A6, which RFC 4034 §6.2 lists, and takes NSAP-PTR
    /// and SINK for something else. MD and MF are left out since BIND judges the same zones.
    Ldns,
}

impl Reader {
    fn reads(self, rtype: u16) -> bool {
        match self {
            Self::Domain => true,
            Self::Bind => !matches!(rtype, 3 | 4 | 23),
            Self::Ldns => !matches!(rtype, 3 | 4 | 23 | 38 | 40),
        }
    }
}

/// A type and RDATA of it.
type AnyData = BoxedStrategy<(u16, Vec<u8>)>;

/// RDATA of every type that BIND or `domain` know in class IN and a primary may send, names in it in
/// mixed case, and of two that nobody knows.
fn data_of_every_type(reader: Reader) -> impl Strategy<Value = (u16, Vec<u8>)> {
    let with = |rtype: u16, before: &'static [u8], after: &'static [u8]| {
        target().prop_map(move |name| (rtype, [before, &name, after].concat())).boxed()
    };
    let two = |rtype: u16, before: &'static [u8]| {
        (target(), target()).prop_map(move |(a, b)| (rtype, [before, &a, &b].concat())).boxed()
    };
    let fixed = |rtype: u16, rdata: &[u8]| Just((rtype, rdata.to_vec())).boxed();
    let filled = |rtype: u16, before: &'static [u8], count: usize| {
        octets(count).prop_map(move |rest| (rtype, [before, &rest].concat())).boxed()
    };
    let one_name = [2, 3, 4, 7, 8, 9, 12, 23, 39, 5];
    let mut all: Vec<(u16, AnyData)> =
        one_name.iter().map(|rtype| (*rtype, with(*rtype, b"", b""))).collect();
    let names: [(u16, &'static [u8], &'static [u8]); 14] = [
        (15, b"\0\x0a", b""),
        (18, b"\0\x01", b""),
        (21, b"\0\x02", b""),
        (24, b"\0\x1e\x08\x01\0\0\x01\x2c\x70\0\0\0\x60\0\0\0AB", b"SIG"), // SIG
        (30, b"", b"\x40\x01\0\x02"),                                      // NXT
        (33, b"\0\0\0\x01\0\x09", b""),
        (35, b"\0\x64\0\x32\x01S\x05http+\0", b""),
        (36, b"\0\x0a", b""),
        (38, b"\x40\0\x01\0\x02\0\x03\0\x04", b""), // A6
        (45, b"\x0a\x03\x02", b"KEY"),              // IPSECKEY
        (55, b"\x04\x02\0\x03HITSKEY", b""),        // HIP
        (64, b"\0\x10", b"\0\x03\0\x02\0\x35"),     // SVCB
        (107, b"\0\x0a", b""),                      // LP
        (260, b"\x0a\x03", b""),                    // AMTRELAY
    ];
    all.extend(names.map(|(rtype, before, after)| (rtype, with(rtype, before, after))));
    let pairs: [(u16, &'static [u8]); 4] = [(14, b""), (17, b""), (26, b"\0\x32"), (58, b"")];
    all.extend(pairs.map(|(rtype, before)| (rtype, two(rtype, before))));
    let lengths: [(u16, &'static [u8], usize); 22] = [
        (1, b"", 4),
        (10, b"", 7),                   // NULL
        (11, b"\xc0\0\x02\x01\x06", 5), // WKS
        (22, b"", 20),                  // NSAP
        (25, b"\x42\0\x03\x08", 9),     // KEY
        (28, b"", 16),
        (32, b"", 6),                    // NIMLOC
        (37, b"\0\x01\0\x02\x08", 9),    // CERT
        (40, b"", 3),                    // SINK
        (44, b"\x02\x01", 20),           // SSHFP
        (49, b"", 35),                   // DHCID
        (52, b"\x03\x01\x01", 32),       // TLSA
        (53, b"\x03\x01\x01", 32),       // SMIMEA
        (57, b"\0\0\xff\x01", 9),        // RKEY
        (61, b"", 12),                   // OPENPGPKEY
        (63, b"\0\0\0\x01\x01\x01", 48), // ZONEMD
        (104, b"\0\x0a", 8),             // NID
        (105, b"\0\x0a", 4),             // L32
        (106, b"\0\x0a", 8),             // L64
        (108, b"", 6),                   // EUI48
        (109, b"", 8),                   // EUI64
        (256, b"\0\x0a\0\x01", 11),      // URI
    ];
    all.extend(lengths.map(|(rtype, before, count)| (rtype, filled(rtype, before, count))));
    let constants: [(u16, &'static [u8]); 18] = [
        (13, b"\x08DEC-2060\x06TOPS20"),
        (16, b"\x03One\0\x02\xff\0"),
        (19, b"\x0c311061700956"),                 // X25
        (20, b"\x0c150862028003\x03004"),          // ISDN
        (27, b"\x08-32.6882\x08116.8652\x0410.0"), // GPOS
        (29, b"\0\x12\x16\x13\x89\x17\x2d\xd0\x70\xbe\x15\xf0\0\x98\x8d\x20"), // LOC
        (31, b"\x12\x89\xab"),                     // EID
        (38, b"\0\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"), // A6 without a name
        (42, b"\0\x01\x18\x03\xc0\0\x02\0\x02\x20\x84\x20\x01\x0d\xb8"), // APL
        (45, b"\x0a\0\x02KEY"),                    // IPSECKEY without a gateway
        (56, b"\x06status\x02UP"),                 // NINFO
        (65, b"\0\x01\0\0\x01\0\x03\x02h2"),       // HTTPS
        (99, b"\x0bv=spf1 -ALL"),                  // SPF
        (257, b"\0\x05issueCA.example"),
        (258, b"\x08app:WOLF"),                   // AVC
        (259, b"\0\0\0\x01\0\0\0\x02\x02\0DATA"), // DOA
        (65_280, b"\x05UPPER\0"),
        (65_534, b""),
    ];
    all.extend(constants.map(|(rtype, rdata)| (rtype, fixed(rtype, rdata))));
    all.retain(|(rtype, _)| reader.reads(*rtype));
    proptest::strategy::Union::new(all.into_iter().map(|(_, strategy)| strategy))
}

/// The records of a random zone of every type that `reader` reads as it is, in no order.
pub fn any_odd_zone(
    reader: Reader,
    groups: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<Record>> {
    let ttl = prop::sample::select(vec![0_u32, 300, 3_600, 86_400]);
    let one = (under("example.", 0..5), data_of_every_type(reader), ttl)
        .prop_map(|(owner, (rtype, rdata), ttl_s)| Record { owner, rtype, ttl_s, rdata });
    prop::collection::vec(one, groups)
        .prop_map(|records| [apex_records(), records].concat())
        .prop_shuffle()
}

/// The records of a random zone `example.`, in no order.
pub fn any_zone(groups: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Record>> {
    prop::collection::vec(group(), groups)
        .prop_map(|groups| [apex_records(), groups.concat()].concat())
        .prop_shuffle()
}
