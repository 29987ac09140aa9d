//! What the keeper signs and what it refuses: the judge of to-be-signed octets (RFC 4034 §3.1.8.1).
//!
//! ```text
//! RRSIG RDATA up to the signer's name:
//!   type covered u16 · algorithm u8 · labels u8 · original TTL u32
//!   expiration u32 · inception u32 · key tag u16 · signer's name
//! then one or more records, strictly ascending by RDATA, which share all but their RDATA:
//!   owner · type u16 · class IN · TTL u32 · RDLENGTH u16 · RDATA
//! ```
//!
//! Octets that are not exactly this are refused, so that what was judged is what a validator will
//! take the signature for. With a ZSK, or a CSK in its place: never a type that speaks for the keys
//! or to the parent (DNSKEY, CDS, CDNSKEY, CSYNC, signatures), never a DS of a zone that is bound
//! here. The octets of a DNSKEY RRset are not judged but built here, from keys of the ledger.
//!
//! Pure: `now` is an argument, and nothing in a message stands for it.

use std::collections::BTreeSet;

use countersign_policy::ledger::CdsType;
use countersign_policy::name::{NAME_BYTES_MAX, write_presentation};
use countersign_policy::permit::{Denied, check_validity};
use countersign_policy::{KeyRole, PublicKey, SigningPolicy, ZoneName};

use crate::protocol::{Refusal, RefusalKind, TBS_BYTES_MAX};

const CLASS_IN: u16 = 1;
const TYPE_OPT: u16 = 41;
const TYPE_DS: u16 = 43;
const TYPE_RRSIG: u16 = 46;
const TYPE_DNSKEY: u16 = 48;
const TYPE_CDS: u16 = 59;
const TYPE_CDNSKEY: u16 = 60;
const TYPE_CSYNC: u16 = 62;

/// Octets of RRSIG RDATA in front of the signer's name (RFC 4034 §3.1).
const RRSIG_FIXED_BYTES: usize = 18;

/// The key that is asked to sign, what it is bound to, and under which rules.
#[derive(Debug, Clone, Copy)]
pub struct KeyInUse<'a> {
    /// The zone that the key is bound to by the ledger.
    pub zone: &'a ZoneName,
    /// What the key is for.
    pub role: KeyRole,
    /// Its public half.
    pub public: &'a PublicKey,
    /// The zone's policy.
    pub policy: &'a SigningPolicy,
}

/// A to-be-signed item that has the form of RFC 4034 §3.1.8.1.
struct Item<'a> {
    covered: u16,
    algorithm: u8,
    ttl_s: u32,
    expiration: u32,
    inception: u32,
    tag: u16,
    signer: &'a [u8],
    owner: &'a [u8],
    /// RDATAs of a DS RRset; of no other.
    ds: Vec<&'a [u8]>,
}

/// Judges whether `key` may sign `tbs` with a zone's data, at `now_s` by the keeper's clock.
/// `exported` brings, for a zone that is signed here, the RDATAs of the DS RRset that a quorum
/// exported (none: no set), and `None` for any other zone.
pub fn judge_zone_tbs(
    key: &KeyInUse<'_>,
    exported: &dyn Fn(&ZoneName) -> Option<BTreeSet<Vec<u8>>>,
    now_s: u64,
    tbs: &[u8],
) -> Result<(), Refusal> {
    if !key.role.signs_zone() {
        return forbidden(format!("a {} does not sign zone data; use the zone's ZSK", key.role));
    }
    let item = parse(tbs).map_err(|detail| Refusal { kind: RefusalKind::Malformed, detail })?;
    let zone = key.zone;
    if item.signer != zone.as_wire() {
        return forbidden(format!(
            "signer's name {} is not {zone}, which the key is bound to",
            Shown(item.signer)
        ));
    }
    if item.algorithm != key.public.algorithm().number() {
        return forbidden(format!(
            "algorithm {} is not the key's, {}",
            item.algorithm,
            key.public.algorithm()
        ));
    }
    let tag = key.public.tag(key.role.flags());
    if item.tag != tag {
        return forbidden(format!("key tag {} is not the key's, {tag}", item.tag));
    }
    if !zone.contains_wire(item.owner) {
        return forbidden(format!("owner {} is not in {zone}", Shown(item.owner)));
    }
    judge_type(item.covered)?;
    if item.covered == TYPE_DS
        && let Some(allowed) =
            ZoneName::from_wire(item.owner).ok().and_then(|owner| exported(&owner))
        && !item.ds.iter().copied().eq(allowed.iter().map(Vec::as_slice))
    {
        return forbidden(format!(
            "a DS of {}, which is signed here, is not signed: {}",
            Shown(item.owner),
            if allowed.is_empty() {
                "its export takes an export-ds motion".to_owned()
            } else {
                format!(
                    "expected exactly the {} that the last export-ds motion named",
                    allowed.len()
                )
            }
        ));
    }
    if item.covered == TYPE_DS && item.owner.starts_with(b"\x01*") {
        // It would stand for a DS of each zone below that is signed here; no zone that is admitted
        // has one (RFC 4592 §4.6: it means nothing).
        return forbidden(format!("a DS of a wildcard, {}, is not signed", Shown(item.owner)));
    }
    if item.ttl_s > key.policy.ttl_max_s {
        return forbidden(format!(
            "TTL {} exceeds the policy's {}",
            item.ttl_s, key.policy.ttl_max_s
        ));
    }
    check_validity(key.policy, item.inception, item.expiration, now_s).map_err(|e| refusal(&e))
}

/// The to-be-signed octets of a zone's DNSKEY RRset: `keys` are all that it holds.
pub fn build_dnskey_tbs(
    zone: &ZoneName,
    keys: &[(KeyRole, &PublicKey)],
    signer: (KeyRole, &PublicKey),
    ttl_s: u32,
    times: (u32, u32),
) -> Vec<u8> {
    let rdatas = keys.iter().map(|(role, public)| public.dnskey_rdata(role.flags())).collect();
    build_apex_tbs(zone, TYPE_DNSKEY, &rdatas, signer, ttl_s, times)
}

/// The to-be-signed octets of a zone's CDS or CDNSKEY RRset, which holds these RDATAs.
pub fn build_cds_tbs(
    zone: &ZoneName,
    rrset: CdsType,
    rdatas: &BTreeSet<Vec<u8>>,
    signer: (KeyRole, &PublicKey),
    ttl_s: u32,
    times: (u32, u32),
) -> Vec<u8> {
    build_apex_tbs(zone, rrset.number(), rdatas, signer, ttl_s, times)
}

/// RFC 4034 §3.1.8.1, of an RRset at the apex; a set of octet strings is in the order of §6.3.
fn build_apex_tbs(
    zone: &ZoneName,
    rtype: u16,
    rdatas: &BTreeSet<Vec<u8>>,
    signer: (KeyRole, &PublicKey),
    ttl_s: u32,
    (inception, expiration): (u32, u32),
) -> Vec<u8> {
    let mut tbs = Vec::new();
    tbs.extend_from_slice(&rtype.to_be_bytes());
    tbs.push(signer.1.algorithm().number());
    tbs.push(rrsig_labels(zone.as_wire()));
    tbs.extend_from_slice(&ttl_s.to_be_bytes());
    tbs.extend_from_slice(&expiration.to_be_bytes());
    tbs.extend_from_slice(&inception.to_be_bytes());
    tbs.extend_from_slice(&signer.1.tag(signer.0.flags()).to_be_bytes());
    tbs.extend_from_slice(zone.as_wire());
    for rdata in rdatas {
        tbs.extend_from_slice(zone.as_wire());
        tbs.extend_from_slice(&rtype.to_be_bytes());
        tbs.extend_from_slice(&CLASS_IN.to_be_bytes());
        tbs.extend_from_slice(&ttl_s.to_be_bytes());
        // A public key has at most 516 octets (RSA of 4096 bits), a digest 48.
        tbs.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
        tbs.extend_from_slice(rdata);
    }
    tbs
}

/// A policy's "no" as the daemon is told.
pub(crate) fn refusal(denied: &Denied) -> Refusal {
    let kind = match denied {
        Denied::Unknown(_) => RefusalKind::Unknown,
        Denied::Conflict(_) => RefusalKind::KeyConflict,
        Denied::Forbidden(_) | Denied::Frozen(_) | Denied::Clock(_) => RefusalKind::Forbidden,
    };
    Refusal { kind, detail: denied.to_string() }
}

fn forbidden<T>(detail: String) -> Result<T, Refusal> {
    Err(Refusal { kind: RefusalKind::Forbidden, detail })
}

fn judge_type(rtype: u16) -> Result<(), Refusal> {
    let why = match rtype {
        TYPE_DNSKEY => "DNSKEY is signed by a KSK or CSK alone, from octets that the keeper builds",
        TYPE_CDS | TYPE_CDNSKEY => {
            "CDS and CDNSKEY are signed by a KSK or CSK alone, as a motion approved them"
        }
        TYPE_CSYNC => "CSYNC, which has the parent copy data of the zone, is signed by no key here",
        // SIG is not among them: RFC 3755 gave its task to RRSIG, and in a zone it is data like any other.
        TYPE_RRSIG => "signatures are not signed (RFC 4035 §2.2)",
        // RFC 6895 §3.1: 0 and 65535 are reserved, 128 to 255 are QTYPEs and Meta-TYPEs.
        0 | TYPE_OPT | 128..=255 | 65535 => "no data of a zone has this type (RFC 6895 §3.1)",
        _ => return Ok(()),
    };
    forbidden(format!("type {rtype}: {why}"))
}

fn parse(tbs: &[u8]) -> Result<Item<'_>, String> {
    if tbs.len() > TBS_BYTES_MAX {
        return Err(format!("{} octets; at most {TBS_BYTES_MAX} are taken", tbs.len()));
    }
    let mut octets = Octets { rest: tbs };
    let fixed = octets.take(RRSIG_FIXED_BYTES).ok_or("ends in the RRSIG's fields")?;
    let u16_at = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
    let u32_at =
        |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let (covered, ttl_s) = (u16_at(0), u32_at(4));
    let signer = octets.name("signer's name")?;
    let mut owner: Option<&[u8]> = None;
    let mut last: Option<&[u8]> = None;
    let mut ds = Vec::new();
    while !octets.rest.is_empty() {
        let this_owner = octets.name("owner")?;
        if *owner.get_or_insert(this_owner) != this_owner {
            return Err("records of more than one owner".to_owned());
        }
        let rdata = octets.record(covered, ttl_s)?;
        if last.is_some_and(|last| last >= rdata) {
            return Err("records are not strictly ascending by RDATA (RFC 4034 §6.3)".to_owned());
        }
        last = Some(rdata);
        if covered == TYPE_DS {
            ds.push(rdata);
        }
    }
    let owner = owner.ok_or("there is no record")?;
    let labels = rrsig_labels(owner);
    if fixed[3] != labels {
        return Err(format!("labels field is {}; the owner has {labels}", fixed[3]));
    }
    Ok(Item {
        covered,
        algorithm: fixed[2],
        ttl_s,
        expiration: u32_at(8),
        inception: u32_at(12),
        tag: u16_at(16),
        signer,
        owner,
        ds,
    })
}

/// The labels field of an RRSIG: without the root, and without the label of a wildcard
/// (RFC 4034 §3.1.3).
fn rrsig_labels(name: &[u8]) -> u8 {
    let name = name.strip_prefix(b"\x01*").unwrap_or(name);
    let mut labels = 0;
    let mut rest = name;
    while let Some((&len, tail)) = rest.split_first() {
        if len == 0 {
            break;
        }
        labels += 1;
        rest = tail.get(usize::from(len)..).unwrap_or_default();
    }
    labels
}

/// What is left to be read.
struct Octets<'a> {
    rest: &'a [u8],
}

impl<'a> Octets<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|octets| u16::from_be_bytes([octets[0], octets[1]]))
    }

    /// An uncompressed name in lower case (RFC 4034 §6.2 (1), (2)).
    fn name(&mut self, what: &str) -> Result<&'a [u8], String> {
        let whole = self.rest;
        let mut at = 0;
        loop {
            let len = usize::from(*whole.get(at).ok_or_else(|| format!("ends in the {what}"))?);
            if len > 63 {
                return Err(format!("the {what} is compressed or no name"));
            }
            at += 1 + len;
            if at > NAME_BYTES_MAX {
                return Err(format!("the {what} is longer than {NAME_BYTES_MAX} octets"));
            }
            if len == 0 {
                break;
            }
        }
        let name = self.take(at).ok_or_else(|| format!("ends in the {what}"))?;
        // Length octets are at most 63, below 'A'.
        if name.iter().any(u8::is_ascii_uppercase) {
            return Err(format!("the {what} is not in lower case"));
        }
        Ok(name)
    }

    /// A record behind its owner; brings its RDATA.
    fn record(&mut self, covered: u16, ttl_s: u32) -> Result<&'a [u8], String> {
        let short = || "ends in a record".to_owned();
        let rtype = self.u16().ok_or_else(short)?;
        if rtype != covered {
            return Err(format!("a record of type {rtype} under type covered {covered}"));
        }
        let class = self.u16().ok_or_else(short)?;
        if class != CLASS_IN {
            return Err(format!("a record of class {class}; expected IN"));
        }
        let ttl = self.take(4).ok_or_else(short)?;
        if ttl != ttl_s.to_be_bytes() {
            return Err("a record's TTL is not the original TTL".to_owned());
        }
        let len = self.u16().ok_or_else(short)?;
        self.take(usize::from(len)).ok_or_else(short)
    }
}

/// A wire-form name, for people.
struct Shown<'a>(&'a [u8]);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_presentation(self.0, f)
    }
}

#[cfg(test)]
mod tests;
