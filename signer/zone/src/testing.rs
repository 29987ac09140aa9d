//! Small zones for the tests beside the code.

use crate::admit::{AdmissionParams, IncomingDnssec, admit};
use crate::admitted::AdmittedZone;
use crate::name::tests::wire;
use crate::receive::{Bounds, CLASS_IN, ReceivedZone, Receiver};
use crate::refusal::Refusal;
use crate::rtype::Rtype;

/// Owner, TTL, type, RDATA.
pub(crate) type Rec = (&'static str, u32, Rtype, Vec<u8>);

pub(crate) const BOUNDS: Bounds = Bounds { records_max: 10_000, bytes_max: 4 << 20 };

pub(crate) const STRIP: AdmissionParams =
    AdmissionParams { dnssec: IncomingDnssec::Strip, ttl_max_s: 86_400 };

/// SOA RDATA with a minimum of 900 seconds.
pub(crate) fn soa(serial: u32) -> Vec<u8> {
    let mut rdata = [wire("ns.example."), wire("host.example.")].concat();
    for field in [serial, 3_600, 900, 604_800, 900] {
        rdata.extend_from_slice(&field.to_be_bytes());
    }
    rdata
}

/// SOA and NS of `example.`, then what is given.
pub(crate) fn with_apex(records: Vec<Rec>) -> Vec<Rec> {
    let mut zone = vec![
        ("example.", 3_600, Rtype::SOA, soa(7)),
        ("example.", 3_600, Rtype::NS, wire("ns.example.")),
    ];
    zone.extend(records);
    zone
}

pub(crate) fn receive(records: &[Rec]) -> Result<ReceivedZone, Refusal> {
    let mut receiver = Receiver::new("example.".parse().expect("name"), BOUNDS);
    for (owner, ttl_s, rtype, rdata) in records {
        receiver.push(&wire(owner), rtype.0, CLASS_IN, *ttl_s, rdata)?;
    }
    receiver.finish()
}

pub(crate) fn admitted(records: Vec<Rec>) -> AdmittedZone {
    admit(receive(&with_apex(records)).expect("received"), &STRIP).expect("admitted")
}
