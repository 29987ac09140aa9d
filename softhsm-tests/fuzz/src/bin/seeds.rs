//! Writes the seed corpora: `cargo run --release --bin seeds -- softhsm-tests/fuzz/corpus`.
//! What is written is small, and the same each time.

use std::fs;
use std::path::Path;

use countersign_fuzz::{
    APEX, BOUND_CHILD, apex, judge, soa_rdata, texts, tsig, well_aimed, zsk,
};
use countersign_hsm::frame;
use countersign_hsm::protocol::{LedgerRequest, PROTOCOL_VERSION, Request};
use countersign_policy::ledger::CdsType;
use countersign_zone::packed::Builder;
use countersign_zone::{Rtype, name};

const TYPES: &str = include_str!("../../../../signer/tests/zone_files/types.zone");
const FORMS: &str = include_str!("../forms.zone");
const DAEMON: &str = include_str!("../../../../packaging/examples/countersignd.toml");
const KEEPER: &str = include_str!("../../../../packaging/examples/keeper.toml");

fn main() {
    let corpus = std::env::args().nth(1).expect("usage: seeds CORPUS_DIRECTORY");
    let corpus = Path::new(&corpus);
    let write = |target: &str, seed: &str, octets: &[u8]| {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder).expect("made");
        fs::write(folder.join(seed), octets).expect("written");
    };
    for (seed, octets) in tbs_seeds() {
        write("zone_tbs", seed, &octets);
    }
    for (seed, octets) in protocol_seeds() {
        write("keeper_protocol", seed, &octets);
    }
    let answer = transfer();
    write("dns_message", "axfr", &answer);
    write("dns_message", "soa", &soa_answer());
    write("dns_message", "notify", &notify());
    write("transfer_framing", "one-message", &framed(&[&answer]));
    let (opening, closing) = split_transfer();
    write("transfer_framing", "two-messages", &framed(&[&opening, &closing]));
    write("transfer_framing", "stops", &framed(&[&opening]));
    for (seed, octets) in ixfr_seeds() {
        write("ixfr", seed, &octets);
    }
    write("stored_zone", "page", &page());
    for (seed, octets) in tsig::seeds() {
        write("tsig", seed, &octets);
    }
    for (seed, text) in [("types", TYPES), ("forms", FORMS)] {
        // The first octet says in which pieces it comes.
        write("zone_file", seed, &[b"\x07", text.as_bytes()].concat());
    }
    for (seed, text) in [("daemon", DAEMON), ("keeper", KEEPER)] {
        let whose = [u8::from(seed == "keeper")];
        write("configuration", seed, &[&whose[..], text.as_bytes()].concat());
    }
    for (seed, text) in texts::seeds() {
        write("statement", &seed, text.as_bytes());
    }
}

/// `owner type class TTL RDLENGTH RDATA`, as it is signed and as it is sent.
fn record(owner: &[u8], rtype: u16, ttl_s: u32, rdata: &[u8]) -> Vec<u8> {
    let mut out = owner.to_vec();
    out.extend_from_slice(&rtype.to_be_bytes());
    out.extend_from_slice(&1_u16.to_be_bytes());
    out.extend_from_slice(&ttl_s.to_be_bytes());
    out.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
    out.extend_from_slice(rdata);
    out
}

fn below(label: &str) -> Vec<u8> {
    [&[label.len() as u8][..], label.as_bytes(), APEX].concat()
}

fn tbs_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let ttl = 300_u32.to_be_bytes();
    let set =
        |rtype: u16, labels, records: &[u8]| well_aimed(rtype.to_be_bytes(), labels, ttl, records);
    let www = below("www");
    let a = [record(&www, 1, 300, &[192, 0, 2, 1]), record(&www, 1, 300, &[192, 0, 2, 2])].concat();
    let dnskey = zsk().dnskey_rdata(256);
    let ds = [&[0, 1, 15, 2][..], &[9; 32]].concat();
    let seeds = vec![
        ("a", set(1, 2, &a)),
        ("wildcard", set(16, 1, &record(&below("*"), 16, 300, b"\x02hi"))),
        ("ds", set(43, 2, &record(&below("else"), 43, 300, &ds))),
        ("ds-of-a-bound-zone", set(43, 2, &record(BOUND_CHILD, 43, 300, &ds))),
        ("dnskey", set(48, 1, &record(APEX, 48, 300, &dnskey))),
        ("cds", set(59, 1, &record(APEX, 59, 300, &ds))),
        ("disguised-dnskey", set(1, 1, &record(APEX, 48, 300, &dnskey))),
        // The form that the second reading of `zone_tbs` expects.
        ("short-a", [&[0, 1, 2][..], &ttl, &a].concat()),
    ];
    for (name, octets) in &seeds[..3] {
        assert!(judge(octets), "{name} is what a ZSK signs");
    }
    seeds
}

fn protocol_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let key = zsk().id();
    let tbs: Vec<Vec<u8>> = tbs_seeds().into_iter().take(2).map(|(_, octets)| octets).collect();
    let sign_dnskey = Request::SignDnskey {
        zone: apex(),
        keys: [key].into(),
        signer: key,
        ttl_s: 3_600,
        inception: 1,
        expiration: 2,
    };
    let sign_cds = Request::SignCds {
        zone: apex(),
        rrset: CdsType::Cdnskey,
        signer: key,
        ttl_s: 3_600,
        inception: 1,
        expiration: 2,
    };
    let requests = [
        ("hello", Request::Hello { protocol: PROTOCOL_VERSION }),
        ("zones", Request::Zones { after: None }),
        ("zone", Request::Zone { zone: apex() }),
        ("sign-zone", Request::SignZone { zone: apex(), key, tbs }),
        ("sign-dnskey", sign_dnskey),
        ("sign-cds", sign_cds),
        ("published", Request::Published { zone: apex(), serial: 7, digest: [1; 32] }),
        ("health", Request::Health),
    ];
    let mut seeds: Vec<(&'static str, Vec<u8>)> = requests
        .iter()
        .map(|(name, request)| (*name, frame::encode(3, request).expect("short")))
        .collect();
    let ledger_requests = [
        ("ledger-hello", LedgerRequest::Hello { protocol: PROTOCOL_VERSION }),
        ("ledger-read", LedgerRequest::Read { from: 0, skip: 0, max: 9 }),
        ("ledger-survey", LedgerRequest::Survey),
        ("ledger-found", LedgerRequest::Found { text: "text".to_owned(), signatures: vec![] }),
        ("ledger-export", LedgerRequest::ExportDs { zone: apex() }),
    ];
    for (name, request) in ledger_requests {
        seeds.push((name, frame::encode(1, &request).expect("short")));
    }
    seeds
}

fn header(flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let mut out = vec![0x12, 0x34];
    out.extend_from_slice(&flags.to_be_bytes());
    counts.iter().for_each(|count| out.extend_from_slice(&count.to_be_bytes()));
    out
}

fn question(qtype: u16) -> Vec<u8> {
    [APEX, &qtype.to_be_bytes(), &[0, 1]].concat()
}

fn apex_ns() -> Vec<u8> {
    // The target is compressed: the question's name is at octet 12.
    record(&[0xc0, 12], 2, 3_600, b"\x02ns\xc0\x0c")
}

fn transfer() -> Vec<u8> {
    let soa = record(APEX, 6, 1_800, &soa_rdata(7));
    let host = record(&below("ns"), 1, 300, &[192, 0, 2, 1]);
    [header(0x8400, [1, 4, 0, 0]), question(252), soa.clone(), apex_ns(), host, soa].concat()
}

fn split_transfer() -> (Vec<u8>, Vec<u8>) {
    let soa = record(APEX, 6, 1_800, &soa_rdata(7));
    let opening = [header(0x8400, [1, 2, 0, 0]), question(252), soa.clone(), apex_ns()].concat();
    (opening, [header(0x8400, [0, 1, 0, 0]), soa].concat())
}

/// Answers to IXFR that was asked with serial 7.
fn ixfr_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let soa = |serial| record(APEX, 6, 1_800, &soa_rdata(serial));
    let a = |label: &str, last| record(&below(label), 1, 300, &[192, 0, 2, last]);
    let answer = |records: &[Vec<u8>]| {
        let counts = [1, records.len() as u16, 0, 0];
        framed(&[&[header(0x8400, counts), question(251), records.concat()].concat()])
    };
    let (gone, come) = (a("ns", 1), a("ns", 9));
    let two = [
        soa(9),
        soa(7),
        gone.clone(),
        soa(8),
        come.clone(),
        soa(8),
        come.clone(),
        soa(9),
        a("new", 1),
        soa(9),
    ];
    let opening = [header(0x8400, [1, 2, 0, 0]), question(251), soa(8), soa(7)].concat();
    let rest = [header(0x8400, [0, 4, 0, 0]), gone.clone(), soa(8), come.clone(), soa(8)].concat();
    vec![
        ("one-step", answer(&[soa(8), soa(7), gone.clone(), soa(8), come.clone(), soa(8)])),
        ("two-steps", answer(&two)),
        ("two-messages", framed(&[&opening, &rest])),
        ("up-to-date", answer(&[soa(7)])),
        ("whole", answer(&[soa(8), record(APEX, 2, 3_600, &below("ns")), come.clone(), soa(8)])),
        ("broken-chain", answer(&[soa(9), soa(8), gone, soa(9), come, soa(9)])),
    ]
}

fn soa_answer() -> Vec<u8> {
    let soa = record(&[0xc0, 12], 6, 1_800, &soa_rdata(7));
    [header(0x8400, [1, 1, 0, 0]), question(6), soa].concat()
}

fn notify() -> Vec<u8> {
    [header(0x2400, [1, 0, 0, 1]), question(6), record(&[0], 41, 0, &[])].concat()
}

fn framed(messages: &[&[u8]]) -> Vec<u8> {
    let prefixed = |message: &&[u8]| [&(message.len() as u16).to_be_bytes()[..], message].concat();
    messages.iter().flat_map(prefixed).collect()
}

/// The one page of a tiny zone, signatures of the right shape but by nobody.
fn page() -> Vec<u8> {
    let mut rrsig = well_aimed([0, 6], 1, 1_800_u32.to_be_bytes(), &[]);
    rrsig.extend_from_slice(&[0; 64]);
    let (soa, key) = (soa_rdata(7), zsk().dnskey_rdata(256));
    let mut builder = Builder::new();
    builder.owner(APEX).expect("first");
    for (rtype, rdata) in [(Rtype::SOA, &soa), (Rtype::DNSKEY, &key)] {
        let one = |octets| std::iter::once::<&[u8]>(octets);
        builder.rrset(APEX, rtype, 1_800, one(rdata), one(&rrsig)).expect("in order");
    }
    let www = below("www");
    builder.owner(&www).expect("in order");
    builder.rrset(&www, Rtype::A, 300, [&[192, 0, 2, 1][..]], []).expect("in order");
    let packed = builder.finish().expect("small");
    assert!(name::check_wire(&www).is_ok());
    packed.pages()[0].as_bytes().to_vec()
}
