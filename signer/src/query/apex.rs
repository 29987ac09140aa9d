//! Answers for the apex, as a hickory `RequestHandler`.
//!
//! RDATA goes out as it stands in the published version: every record is handed to hickory as
//! one of unknown type, so that its codec changes nothing.

use std::sync::{Arc, Mutex, PoisonError};

use countersign_policy::ZoneName;
use countersign_zone::{Rrset, Rtype};
use hickory_proto::op::{Edns, Header, HeaderCounts, Metadata, ResponseCode};
use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::BinEncoder;
use hickory_server::net::NetError;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::{MessageResponse, MessageResponseBuilder};

use super::{UDP_BYTES_MAX, denial};
use crate::published::{Published, View};

/// What may be asked for.
const SERVED: [Rtype; 7] = [
    Rtype::SOA,
    Rtype::NS,
    Rtype::DNSKEY,
    Rtype::CDS,
    Rtype::CDNSKEY,
    Rtype::NSEC3PARAM,
    Rtype::ZONEMD,
];

/// Answers from one view of the catalogue.
#[derive(Debug)]
pub struct ApexHandler {
    view: Arc<View>,
}

/// An answer before it is a message.
#[derive(Debug, Default)]
struct Reply {
    code: Option<ResponseCode>,
    authoritative: bool,
    answers: Vec<Record>,
    authority: Vec<Record>,
    edns: Option<Edns>,
}

impl ApexHandler {
    /// A handler that sees the catalogue as it is in this view.
    pub fn new(view: Arc<View>) -> Self {
        Self { view }
    }

    fn reply(&self, request: &Request) -> Reply {
        let mut edns = None;
        let mut dnssec = false;
        if let Some(asked) = &request.edns {
            dnssec = asked.flags().dnssec_ok;
            let mut ours = Edns::new();
            ours.set_max_payload(UDP_BYTES_MAX as u16).set_version(0).set_dnssec_ok(dnssec);
            edns = Some(ours);
            if asked.version() != 0 {
                return Reply { code: Some(ResponseCode::BADVERS), edns, ..Reply::default() };
            }
        }
        let answer = self.look_up(request, dnssec);
        Reply {
            edns,
            ..answer.unwrap_or_else(|code| Reply { code: Some(code), ..Reply::default() })
        }
    }

    fn look_up(&self, request: &Request, dnssec: bool) -> Result<Reply, ResponseCode> {
        let info = request.request_info().map_err(|_| ResponseCode::FormErr)?;
        let rtype = Rtype(u16::from(info.query.query_type()));
        if info.query.query_class() != DNSClass::IN || !SERVED.contains(&rtype) {
            return Err(ResponseCode::Refused);
        }
        let zone = zone_name(info.query.name()).and_then(|name| self.view.zone(&name));
        let Some(zone) = zone else { return Err(ResponseCode::Refused) };
        let Some(version) = zone.current() else { return Err(ResponseCode::ServFail) };
        let mut reply = Reply { authoritative: true, ..Reply::default() };
        let built = match version.at_apex(rtype) {
            Some(rrset) => push(&mut reply.answers, &rrset, None, dnssec),
            None => no_data(&mut reply.authority, &version, dnssec),
        };
        built.ok_or(ResponseCode::ServFail)?;
        Ok(reply)
    }
}

/// NODATA: the SOA with the TTL of a negative answer (RFC 2308 §3, §5), and with DO the NSEC or
/// NSEC3 that shows which types the apex has (RFC 4035 §3.1.3.1, RFC 5155 §7.2.3).
fn no_data(authority: &mut Vec<Record>, version: &Published, dnssec: bool) -> Option<()> {
    let soa = version.at_apex(Rtype::SOA)?;
    let minimum =
        soa.rdatas().next()?.last_chunk::<4>().map(|octets| u32::from_be_bytes(*octets))?;
    push(authority, &soa, Some(soa.ttl_s().min(minimum)), dnssec)?;
    if dnssec && let Some(proof) = denial::apex_denial(version) {
        push(authority, &proof, None, dnssec)?;
    }
    Some(())
}

/// Adds an RRset, and with `dnssec` its RRSIGs. `None` where hickory cannot hold a name.
fn push(into: &mut Vec<Record>, rrset: &Rrset<'_>, ttl_s: Option<u32>, dnssec: bool) -> Option<()> {
    let owner = name(rrset.owner())?;
    let ttl_s = ttl_s.unwrap_or(rrset.ttl_s());
    let mut add = |rtype: Rtype, rdata: &[u8]| {
        let code = RecordType::from(rtype.0);
        let rdata = RData::Unknown { code, rdata: NULL::with(rdata.to_vec()) };
        into.push(Record::from_rdata(owner.clone(), ttl_s, rdata));
    };
    for rdata in rrset.rdatas() {
        add(rrset.rtype(), rdata);
    }
    if dnssec {
        for rdata in rrset.rrsigs() {
            add(Rtype::RRSIG, rdata);
        }
    }
    Some(())
}

fn name(wire: &[u8]) -> Option<Name> {
    let mut rest = wire;
    let labels = std::iter::from_fn(|| {
        let (&len, tail) = rest.split_first()?;
        let (label, tail) = tail.split_at_checked(usize::from(len))?;
        rest = tail;
        (len != 0).then_some(label)
    });
    Name::from_labels(labels).ok()
}

fn zone_name(name: &LowerName) -> Option<ZoneName> {
    let mut wire = Vec::new();
    for label in name.iter() {
        wire.push(u8::try_from(label.len()).ok()?);
        wire.extend_from_slice(label);
    }
    wire.push(0);
    ZoneName::from_wire(&wire).ok()
}

#[async_trait::async_trait]
impl RequestHandler for ApexHandler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let reply = self.reply(request);
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = reply.authoritative;
        metadata.response_code = reply.code.unwrap_or(ResponseCode::NoError);
        let response = MessageResponseBuilder::new(&request.queries, reply.edns.as_ref()).build(
            metadata,
            &reply.answers,
            &reply.authority,
            [],
            [],
        );
        response_handle.send_response(response).await.unwrap_or_else(|error| {
            tracing::error!(%error, "an answer could not be encoded");
            metadata.response_code = ResponseCode::ServFail;
            ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
        })
    }
}

/// Takes the encoded answer, instead of a socket.
#[derive(Debug, Clone, Default)]
pub struct Capture(Arc<Mutex<Option<Vec<u8>>>>);

impl Capture {
    /// The answer, if one was given.
    pub fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[async_trait::async_trait]
impl ResponseHandler for Capture {
    async fn send_response<'a>(
        &mut self,
        response: MessageResponse<
            '_,
            'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
        >,
    ) -> Result<ResponseInfo, NetError> {
        let mut octets = Vec::with_capacity(UDP_BYTES_MAX);
        let mut encoder = BinEncoder::new(&mut octets);
        encoder.set_max_size(u16::MAX);
        let info = response.destructive_emit(&mut encoder)?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(octets);
        Ok(info)
    }
}
