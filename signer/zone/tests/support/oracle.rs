//! Independent judges: the `domain` crate, and the tools that the field trusts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use countersign_policy::key::to_hex;
use countersign_policy::signing::{Denial, KeySplit};
use countersign_zone::name::Shown;
use countersign_zone::{CdsOrder, DnskeyOrder, Packed, Rrset, Rtype, ZoneParams};
use domain::base::cmp::CanonicalOrd;
use domain::base::iana::{Class, Rtype as DomainRtype, SecurityAlgorithm};
use domain::base::rdata::ComposeRecordData;
use domain::base::{Name, ParseRecordData as _, Record, Ttl};
use domain::dep::octseq::Parser;
use domain::dnssec::sign::denial::nsec::{GenerateNsecConfig, generate_nsecs};
use domain::dnssec::sign::denial::nsec3::{GenerateNsec3Config, generate_nsec3s};
use domain::dnssec::sign::records::{DefaultSorter, RecordsIter};
use domain::dnssec::validator::base::RrsigExt as _;
use domain::rdata::dnssec::Timestamp;
use domain::rdata::{Dnskey, Rrsig, ZoneRecordData};

pub type DomainName = Name<Vec<u8>>;
pub type DomainData = ZoneRecordData<Vec<u8>, DomainName>;
pub type DomainRecord = Record<DomainName, DomainData>;

pub fn name(wire: &[u8]) -> DomainName {
    Name::from_octets(wire.to_vec()).expect("a name")
}

/// RDATA as `domain` reads it.
fn data(rtype: Rtype, rdata: &[u8]) -> DomainData {
    use domain::base::name::FlattenInto as _;
    // Types with names that `domain` does not know as such, and so leaves in their own case.
    let mut lowered = rdata.to_vec();
    let names_at = match rtype.0 {
        18 | 21 | 26 | 36 => Some(2), // AFSDB, RT, PX (two names), KX
        24 => Some(18),               // SIG
        30 => Some(0),                // NXT
        38 if rdata[0] > 0 => Some(1 + usize::from(128 - rdata[0]).div_ceil(8)), // A6
        _ => None,
    };
    let mut at = names_at.unwrap_or(rdata.len());
    for _ in 0..if rtype.0 == 26 { 2 } else { 1 } {
        let name = lowered.get(at..).and_then(|rest| countersign_zone::name::wire_len(rest).ok());
        let end = at + name.unwrap_or(0);
        lowered[at..end].make_ascii_lowercase();
        at = end;
    }
    let mut parser = Parser::from_ref(lowered.as_slice());
    let parsed: ZoneRecordData<&[u8], domain::base::ParsedName<&[u8]>> =
        ZoneRecordData::parse_rdata(DomainRtype::from_int(rtype.0), &mut parser)
            .expect("RDATA that domain can read")
            .expect("a type of a zone");
    parsed.try_flatten_into().expect("owned")
}

pub fn records(rrset: &Rrset<'_>) -> Vec<DomainRecord> {
    let owner = name(rrset.owner());
    rrset
        .rdatas()
        .map(|rdata| {
            let data = data(rrset.rtype(), rdata);
            Record::new(owner.clone(), Class::IN, Ttl::from_secs(rrset.ttl_s()), data)
        })
        .collect()
}

fn rrsig(rdata: &[u8]) -> Rrsig<Vec<u8>, DomainName> {
    match data(Rtype::RRSIG, rdata) {
        ZoneRecordData::Rrsig(rrsig) => rrsig,
        other => panic!("not an RRSIG: {other:?}"),
    }
}

/// What `domain` says is signed by the RRSIG (its signature is not looked at).
pub fn signed_octets(rrset: &Rrset<'_>, rrsig_rdata: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut records = records(rrset);
    rrsig(rrsig_rdata).signed_data(&mut octets, &mut records).expect("no limit");
    octets
}

/// Checks one RRSIG by `domain` alone, against the zone's DNSKEY RRset.
pub fn validate(records_of_zone: &Packed, rrset: &Rrset<'_>, rrsig_rdata: &[u8]) {
    let rrsig = rrsig(rrsig_rdata);
    let apex = records_of_zone.iter().next().expect("apex");
    let dnskeys = apex.rrset(Rtype::DNSKEY).expect("DNSKEY");
    let key = dnskeys
        .rdatas()
        .filter_map(|rdata| match data(Rtype::DNSKEY, rdata) {
            ZoneRecordData::Dnskey(key) => Some(key),
            _ => None,
        })
        .find(|key: &Dnskey<Vec<u8>>| key.key_tag() == rrsig.key_tag())
        .expect("a key of that tag");
    let octets = signed_octets(rrset, rrsig_rdata);
    rrsig
        .verify_signed_data(&key, &octets)
        .unwrap_or_else(|error| panic!("domain refuses the signature of {rrset:?}: {error}"));
}

/// The octets that the keeper would build for a DNSKEY order, built by `domain`.
pub fn dnskey_octets(params: &ZoneParams, order: &DnskeyOrder) -> Vec<u8> {
    let rdatas: Vec<Vec<u8>> =
        params.keys.iter().map(countersign_zone::ZoneKey::dnskey_rdata).collect();
    // An order over DNSKEY says the same as one over CDS, but for the type.
    let DnskeyOrder { signer, ttl_s, inception, expiration, .. } = *order;
    let order = CdsOrder { rtype: Rtype::DNSKEY, signer, ttl_s, inception, expiration };
    ordered_octets(params, &order, &rdatas)
}

/// The same for an order over CDS or CDNSKEY.
pub fn cds_octets(params: &ZoneParams, order: &CdsOrder) -> Vec<u8> {
    let set = params.cds.as_ref().expect("a set");
    match order.rtype {
        Rtype::CDS => ordered_octets(params, order, &set.cds),
        Rtype::CDNSKEY => ordered_octets(params, order, &set.cdnskey),
        other => panic!("an order over {other}"),
    }
}

fn ordered_octets(params: &ZoneParams, order: &CdsOrder, rdatas: &[Vec<u8>]) -> Vec<u8> {
    let apex = name(params.apex.as_wire());
    let signer = params.keys.iter().find(|key| key.public.id() == order.signer).expect("signer");
    let rrsig = Rrsig::<Vec<u8>, DomainName>::new(
        DomainRtype::from_int(order.rtype.0),
        SecurityAlgorithm::from_int(signer.public.algorithm().number()),
        params.apex.label_count() as u8,
        Ttl::from_secs(order.ttl_s),
        Timestamp::from(order.expiration),
        Timestamp::from(order.inception),
        signer.tag(),
        apex.clone(),
        Vec::new(),
    )
    .expect("short");
    let ttl = Ttl::from_secs(order.ttl_s);
    let mut records: Vec<DomainRecord> = rdatas
        .iter()
        .map(|rdata| data(order.rtype, rdata))
        .map(|data| Record::new(apex.clone(), Class::IN, ttl, data))
        .collect();
    let mut octets = Vec::new();
    rrsig.signed_data(&mut octets, &mut records).expect("no limit");
    octets
}

/// A chain of denial: owner in lower case, TTL, RDATA in lower case as far as it is a name.
pub type Chain = BTreeMap<Vec<u8>, (u32, Vec<u8>)>;

/// The chain that `domain` makes for records that are not signed yet, and what `params` adds to
/// them.
pub fn chain(admitted: &Packed, params: &ZoneParams) -> Chain {
    let denial = params.policy.denial;
    let rrsets = admitted.iter().flat_map(|node| node.rrsets());
    let mut all: Vec<DomainRecord> = rrsets.flat_map(|rrset| records(&rrset)).collect();
    let apex = name(admitted.iter().next().expect("apex").owner());
    if let Some(set) = &params.cds {
        let cds = set.cds.iter().map(|rdata| data(Rtype::CDS, rdata));
        let both = cds.chain(set.cdnskey.iter().map(|rdata| data(Rtype::CDNSKEY, rdata)));
        let ttl = Ttl::from_secs(params.policy.dnskey_ttl_s);
        all.extend(both.map(|data| Record::new(apex.clone(), Class::IN, ttl, data)));
    }
    if params.zonemd {
        let zonemd = data(Rtype::ZONEMD, &[&[0, 0, 0, 1, 1, 1][..], &[0; 48]].concat());
        all.push(Record::new(apex.clone(), Class::IN, Ttl::from_secs(0), zonemd));
    }
    all.sort_by(CanonicalOrd::canonical_cmp);
    let iter = RecordsIter::new_from_owned(&all);
    if denial == Denial::Nsec {
        let nsecs = generate_nsecs(&apex, iter, &GenerateNsecConfig::new()).expect("a zone");
        return nsecs.iter().map(link).collect();
    }
    let mut config = GenerateNsec3Config::<Vec<u8>, DefaultSorter>::default();
    if denial == Denial::Nsec3OptOut {
        config = config.with_opt_out();
    }
    let nsec3s = generate_nsec3s(&apex, iter, &config).expect("a zone");
    nsec3s.nsec3s.iter().map(link).collect()
}

fn link<D: ComposeRecordData>(record: &Record<DomainName, D>) -> (Vec<u8>, (u32, Vec<u8>)) {
    let mut rdata = Vec::new();
    record.data().compose_rdata(&mut rdata).expect("no limit");
    let owner = record.owner().as_slice().to_ascii_lowercase();
    (owner, (record.ttl().as_secs(), with_name_in_lower_case(record.rtype().to_int(), rdata)))
}

fn with_name_in_lower_case(rtype: u16, mut rdata: Vec<u8>) -> Vec<u8> {
    if rtype == Rtype::NSEC.0 {
        let name_len = countersign_zone::name::wire_len(&rdata).expect("a name");
        rdata[..name_len].make_ascii_lowercase();
    }
    rdata
}

/// The chain that a signed zone has.
pub fn chain_of(signed: &Packed) -> Chain {
    let links = signed
        .iter()
        .filter_map(|node| node.rrset(Rtype::NSEC).or_else(|| node.rrset(Rtype::NSEC3)));
    links
        .map(|rrset| {
            let rdata = rrset.rdatas().next().expect("one").to_vec();
            let rdata = with_name_in_lower_case(rrset.rtype().0, rdata);
            (rrset.owner().to_ascii_lowercase(), (rrset.ttl_s(), rdata))
        })
        .collect()
}

/// A master file in the generic form of RFC 3597 §5, so that no writer of presentation forms
/// stands between the zone and its judge.
pub fn master_file(records: &Packed) -> String {
    let mut text = String::new();
    let mut line = |owner: &[u8], ttl_s: u32, rtype: Rtype, rdata: &[u8]| {
        let (owner, len, hex) = (Shown(owner), rdata.len(), to_hex(rdata));
        // ldns 1.8.3 knows no type AVC, and takes what it does not know for type 0.
        let rtype = if rtype == Rtype::AVC { "TYPE258".to_owned() } else { rtype.to_string() };
        writeln!(text, "{owner} {ttl_s} IN {rtype} \\# {len} {hex}").expect("to a String");
    };
    for rrset in records.iter().flat_map(|node| node.rrsets()) {
        for rdata in rrset.rdatas() {
            line(rrset.owner(), rrset.ttl_s(), rrset.rtype(), rdata);
        }
        for rdata in rrset.rrsigs() {
            line(rrset.owner(), rrset.ttl_s(), Rtype::RRSIG, rdata);
        }
    }
    text
}

/// `ldns-verify-zone` accepts the zone in `file`.
pub fn ldns_verifies(file: &Path) {
    run(Command::new("ldns-verify-zone").arg("-V1").arg(file), "ldnsutils", file);
}

/// The same, and it has a ZONEMD that is right and signed.
pub fn ldns_requires_zonemd(file: &Path) {
    run(Command::new("ldns-verify-zone").args(["-V1", "-ZZ"]).arg(file), "ldnsutils", file);
}

/// BIND's `dnssec-verify` accepts the zone in `file`.
pub fn bind_verifies(file: &Path, params: &ZoneParams) {
    let mut command = Command::new("dnssec-verify");
    command.arg("-q").arg("-o").arg(params.apex.to_string());
    if params.policy.keys == KeySplit::Csk {
        command.arg("-z");
    }
    run(command.arg(file), "bind9-utils", file);
}

fn run(command: &mut Command, package: &str, file: &Path) {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("{command:?}: not installed; this test needs Debian's package `{package}`")
        }
        Err(error) => panic!("{command:?}: {error}"),
    };
    if !output.status.success() {
        let zone = std::fs::read_to_string(file).unwrap_or_default();
        panic!(
            "{command:?} refuses the zone:\n{}{}\n{zone}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
