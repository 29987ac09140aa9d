//! Versions for tests of what serves them: their signatures are filler.

use std::sync::Arc;

use countersign_policy::ZoneName;
use countersign_zone::packed::Builder;
use countersign_zone::{Packed, Rtype};

use super::{Catalogue, Published, ZoneAccess};
use crate::config::Transport;
use crate::peers::{IdentityRule, Peer, PeerTable};

/// An RRSIG by its shape: P-256, the root as signer, and zeros for a signature.
pub(crate) fn signature(covered: Rtype) -> Vec<u8> {
    let mut rdata = covered.0.to_be_bytes().to_vec();
    rdata.extend_from_slice(&[13, 2, 0, 0, 14, 16]);
    rdata.extend_from_slice(&[0; 10 + 1 + 64]);
    rdata
}

pub(crate) fn zone_name(text: &str) -> ZoneName {
    text.parse().expect("name")
}

/// SOA RDATA with names of the zone, minimum 300.
pub(crate) fn soa(zone: &ZoneName, serial: u32) -> Vec<u8> {
    let mut rdata = [b"\x02Ns", zone.as_wire(), b"\x04host", zone.as_wire()].concat();
    for number in [serial, 3600, 600, 86_400, 300] {
        rdata.extend_from_slice(&number.to_be_bytes());
    }
    rdata
}

/// A zone with SOA, NS, NSEC, DNSKEY at the apex, spelled `eXample`-wise, and that many hosts.
pub(crate) fn version(zone: &str, serial: u32, hosts: u32) -> Arc<Published> {
    let apex = zone_name(zone);
    let mut spelled = apex.as_wire().to_vec();
    spelled[1] = spelled[1].to_ascii_uppercase();
    let mut builder = Builder::new();
    builder.owner(&spelled).expect("owner");
    let mut add = |rtype, rdata: &[u8]| {
        builder.rrset(&spelled, rtype, 3600, [rdata], [&*signature(rtype)]).expect("rrset");
    };
    add(Rtype::NS, &[b"\x02Ns", apex.as_wire()].concat());
    add(Rtype::SOA, &soa(&apex, serial));
    add(Rtype::NSEC, b"\x00\x00\x01\x62");
    add(Rtype::DNSKEY, &[&[1, 1, 3, 13][..], &[7; 64]].concat());
    for host in 0..hosts {
        let owner = [format!("\x07h{host:06}").as_bytes(), apex.as_wire()].concat();
        builder.owner(&owner).expect("owner");
        let address = host.to_be_bytes();
        builder
            .rrset(&owner, Rtype(1), 60, [&address[..]], [&*signature(Rtype(1))])
            .expect("rrset");
    }
    let records: Packed = builder.finish().expect("packed");
    Arc::new(Published::unverified(apex, serial, records))
}

/// Zone a.test from primary.test, for secondary.test; peers at 127.0.0.1 as well.
pub(crate) fn catalogue() -> Arc<Catalogue> {
    let zone = |zone: &str, secondaries: Vec<_>| ZoneAccess {
        zone: zone_name(zone),
        primaries: vec!["primary".into()],
        secondaries,
    };
    let peer = |name: &str| Peer {
        name: name.into(),
        identity: Some(IdentityRule::san(&format!("{name}.test"))),
        key: None,
        transport: Transport::Tls,
        addresses: vec!["127.0.0.1".parse().expect("address")],
    };
    let peers = PeerTable::new(["primary", "secondary", "other"].map(peer)).expect("peers");
    let zones = [zone("a.test", vec!["secondary".into()]), zone("b.test", vec!["other".into()])];
    Arc::new(Catalogue::new(zones, peers))
}
