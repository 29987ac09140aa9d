//! The signed zone without its new signatures: the primary's records with the new serial, the
//! DNSKEY RRset, CDS and CDNSKEY, a ZONEMD without its digest, the chain of denial, signatures that are
//! kept, and a list of those to make.

use countersign_policy::signing::Denial;

use crate::admitted::AdmittedZone;
use crate::cds::CdsSet;
use crate::cuts::{Standing, standings};
use crate::nsec;
use crate::nsec3::{self, Nsec3};
use crate::packed::{Builder, Node, Packed, PackedError};
use crate::params::{ZoneKey, ZoneParams};
use crate::plan::PlanError;
use crate::reuse::Previous;
use crate::rtype::Rtype;
use crate::tbs::Signer;
use crate::terms::Duty;
use crate::zonemd;

/// A signature to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Position of the RRset among all RRsets of the zone, in order.
    pub(crate) rrset: usize,
    /// Position of the key: among the zone's signers, or among those of DNSKEY for that RRset, CDS
    /// and CDNSKEY.
    pub(crate) signer: usize,
}

/// What the next version is composed of.
pub(crate) struct Composed {
    pub(crate) records: Packed,
    /// Signatures to be made with keys that sign the zone, in order of the zone.
    pub(crate) zone: Vec<Missing>,
    /// Signatures over DNSKEY to be made.
    pub(crate) dnskey: Vec<Missing>,
    /// Signatures over CDS and CDNSKEY to be made.
    pub(crate) cds: Vec<(Rtype, Missing)>,
    /// Signatures over ZONEMD to be made, once all others are in place.
    pub(crate) zonemd: Vec<Missing>,
    /// Signatures that are kept.
    pub(crate) reused: usize,
}

/// An RRset that the signer makes.
struct Made {
    rtype: Rtype,
    ttl_s: u32,
    rdatas: Vec<Vec<u8>>,
}

/// The keys, by what they sign.
pub(crate) struct Signers {
    pub(crate) zone: Vec<Signer>,
    /// Of DNSKEY, CDS and CDNSKEY.
    pub(crate) ksk: Vec<Signer>,
}

impl Signers {
    pub(crate) fn of(&self, duty: Duty) -> &[Signer] {
        match duty {
            Duty::Zone => &self.zone,
            Duty::Dnskey | Duty::Cds => &self.ksk,
        }
    }
}

/// Composes the next version.
pub(crate) fn compose<'a>(
    admitted: &AdmittedZone,
    previous: Previous<'a>,
    params: &ZoneParams,
    signers: &'a Signers,
    serial: u32,
) -> Result<Composed, PlanError> {
    let apex = &params.apex;
    let no_soa = || PlanError::NoSoa(apex.to_string());
    let apex_node = admitted.records.node(apex.as_wire()).ok_or_else(no_soa)?;
    let old_soa = apex_node.rrset(Rtype::SOA).ok_or_else(no_soa)?;
    let soa = old_soa.rdatas().next().and_then(|rdata| with_serial(rdata, serial));
    let soa = soa.ok_or_else(no_soa)?;
    let denial_ttl_s = denial_ttl_s(old_soa.ttl_s(), &soa);
    let mut at_apex = made_at_apex(params, denial_ttl_s);
    if params.zonemd {
        let (ttl_s, rdatas) = (old_soa.ttl_s(), vec![zonemd::placeholder(serial)]);
        at_apex.push(Made { rtype: Rtype::ZONEMD, ttl_s, rdatas });
    }
    let types: Vec<Rtype> = at_apex.iter().map(|made| made.rtype).collect();
    let zone = &admitted.records;
    let (mut nsec, nsec3) = match params.policy.denial {
        Denial::Nsec => (Some(nsec::Chain::new(zone, apex, apex_node.owner(), &types)), None),
        denial => {
            let opt_out = denial == Denial::Nsec3OptOut;
            (None, Some(nsec3::Chain::new(zone, apex, opt_out, &types)?))
        }
    };
    let mut links = nsec3.iter().flat_map(|chain| chain.records(apex_node.owner())).peekable();
    let denial = |rtype, rdata| Made { rtype, ttl_s: denial_ttl_s, rdatas: vec![rdata] };
    let mut composer = Composer::new(previous, signers, soa);
    for (node, standing) in standings(&admitted.records, apex) {
        while let Some(Nsec3 { key, owner, rdata }) = links.next_if(|link| *link.key < *node.key())
        {
            composer.link(&key, &owner, &denial(Rtype::NSEC3, rdata))?;
        }
        let mut made =
            if standing == Standing::Apex { std::mem::take(&mut at_apex) } else { vec![] };
        if let Some(chain) = nsec.as_mut().filter(|_| standing != Standing::Hidden) {
            made.push(denial(Rtype::NSEC, chain.rdata(&node, standing)));
        }
        // A name of the zone may happen to be the hash of another.
        if let Some(link) = links.next_if(|link| link.key == node.key()) {
            made.push(denial(Rtype::NSEC3, link.rdata));
        }
        made.sort_by_key(|rrset| rrset.rtype);
        composer.node(&node, standing, &made)?;
    }
    for Nsec3 { key, owner, rdata } in links {
        composer.link(&key, &owner, &denial(Rtype::NSEC3, rdata))?;
    }
    Ok(composer.finish()?)
}

/// What the apex gets besides the primary's RRsets and NSEC, each in canonical order. CDS and
/// CDNSKEY have the TTL of DNSKEY: they speak of the same keys.
fn made_at_apex(params: &ZoneParams, denial_ttl_s: u32) -> Vec<Made> {
    let ttl_s = params.policy.dnskey_ttl_s;
    let keys: Vec<Vec<u8>> = params.keys.iter().map(ZoneKey::dnskey_rdata).collect();
    let mut made = vec![Made { rtype: Rtype::DNSKEY, ttl_s, rdatas: keys }];
    if params.policy.denial != Denial::Nsec {
        let rdatas = vec![nsec3::NSEC3PARAM.to_vec()];
        made.push(Made { rtype: Rtype::NSEC3PARAM, ttl_s: denial_ttl_s, rdatas });
    }
    for (rtype, rdatas) in params.cds.iter().flat_map(CdsSet::rrsets) {
        made.push(Made { rtype, ttl_s, rdatas: rdatas.to_vec() });
    }
    for rrset in &mut made {
        rrset.rdatas.sort(); // none of these types holds a name: octets as they are (RFC 4034 §6.3)
    }
    made
}

/// SOA RDATA with another serial: the first of the five fields that end it.
fn with_serial(rdata: &[u8], serial: u32) -> Option<Vec<u8>> {
    let mut rdata = rdata.to_vec();
    let (field, _) = rdata.last_chunk_mut::<20>()?.split_first_chunk_mut::<4>()?;
    *field = serial.to_be_bytes();
    Some(rdata)
}

/// TTL of NSEC and NSEC3: the lesser of the SOA's TTL and its MINIMUM (RFC 9077 §3).
fn denial_ttl_s(soa_ttl_s: u32, soa: &[u8]) -> u32 {
    soa.last_chunk::<4>().map_or(soa_ttl_s, |minimum| soa_ttl_s.min(u32::from_be_bytes(*minimum)))
}

struct Composer<'a> {
    builder: Builder,
    previous: Previous<'a>,
    signers: &'a Signers,
    soa: Vec<u8>,
    /// RRsets so far.
    rrsets: usize,
    zone: Vec<Missing>,
    dnskey: Vec<Missing>,
    cds: Vec<(Rtype, Missing)>,
    zonemd: Vec<Missing>,
    reused: usize,
}

impl<'a> Composer<'a> {
    fn new(previous: Previous<'a>, signers: &'a Signers, soa: Vec<u8>) -> Self {
        Self {
            builder: Builder::new(),
            previous,
            signers,
            soa,
            rrsets: 0,
            zone: Vec::new(),
            dnskey: Vec::new(),
            cds: Vec::new(),
            zonemd: Vec::new(),
            reused: 0,
        }
    }

    /// An NSEC3 at a name of its own.
    fn link(&mut self, key: &[u8], owner: &[u8], made: &Made) -> Result<(), PackedError> {
        let before = self.previous.node(key);
        self.builder.owner(owner)?;
        self.made(before, owner, made)
    }

    /// A name of the primary's, with what the signer adds there, ascending by type.
    fn node(
        &mut self,
        node: &Node<'_>,
        standing: Standing,
        made: &[Made],
    ) -> Result<(), PackedError> {
        let before = self.previous.node(node.key());
        self.builder.owner(node.owner())?;
        let mut made = made.iter().peekable();
        for rrset in node.rrsets() {
            while let Some(made) = made.next_if(|made| made.rtype < rrset.rtype()) {
                self.made(before, node.owner(), made)?;
            }
            let (owner, rtype, ttl_s) = (rrset.owner(), rrset.rtype(), rrset.ttl_s());
            let signed = standing.signs(rtype);
            if standing == Standing::Apex && rtype == Rtype::SOA {
                let soa = std::mem::take(&mut self.soa);
                self.rrset(before, owner, (rtype, ttl_s), std::iter::once(soa.as_slice()), signed)?;
            } else {
                self.rrset(before, owner, (rtype, ttl_s), rrset.rdatas(), signed)?;
            }
        }
        for made in made {
            self.made(before, node.owner(), made)?;
        }
        Ok(())
    }

    fn made(
        &mut self,
        before: Option<Node<'a>>,
        owner: &[u8],
        made: &Made,
    ) -> Result<(), PackedError> {
        let rdatas = made.rdatas.iter().map(Vec::as_slice);
        if made.rtype == Rtype::ZONEMD {
            // Its digest is not known yet, and never that of another version.
            let missing = |signer| Missing { rrset: self.rrsets, signer };
            self.zonemd = (0..self.signers.zone.len()).map(missing).collect();
            return self.rrset(before, owner, (made.rtype, made.ttl_s), rdatas, false);
        }
        self.rrset(before, owner, (made.rtype, made.ttl_s), rdatas, true)
    }

    /// Adds an RRset with the signatures that it keeps, and notes those that it lacks.
    fn rrset<'r>(
        &mut self,
        before: Option<Node<'a>>,
        owner: &[u8],
        (rtype, ttl_s): (Rtype, u32),
        rdatas: impl Iterator<Item = &'r [u8]> + Clone,
        signed: bool,
    ) -> Result<(), PackedError> {
        let mut kept = Vec::new();
        if signed {
            let before = before
                .and_then(|node| node.rrset(rtype))
                .filter(|before| before.ttl_s() == ttl_s && before.rdatas().eq(rdatas.clone()));
            let duty = Duty::of(rtype);
            for (at, signer) in self.signers.of(duty).iter().enumerate() {
                let old = before.and_then(|before| self.previous.signature(&before, signer));
                if let Some(rrsig) = old {
                    kept.push(rrsig);
                    continue;
                }
                let missing = Missing { rrset: self.rrsets, signer: at };
                match duty {
                    Duty::Zone => self.zone.push(missing),
                    Duty::Dnskey => self.dnskey.push(missing),
                    Duty::Cds => self.cds.push((rtype, missing)),
                }
            }
        }
        self.reused += kept.len();
        self.rrsets += 1;
        self.builder.rrset(owner, rtype, ttl_s, rdatas, kept)
    }

    fn finish(self) -> Result<Composed, PackedError> {
        Ok(Composed {
            records: self.builder.finish()?,
            zone: self.zone,
            dnskey: self.dnskey,
            cds: self.cds,
            zonemd: self.zonemd,
            reused: self.reused,
        })
    }
}
