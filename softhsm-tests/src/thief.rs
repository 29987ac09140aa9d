//! What a thief of the daemon's rights can send to the keeper: orders for signatures, field by field, so
//! that each can be a lie.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use countersign_hsm::protocol::{Request, Response, ZoneKeys};
use countersign_policy::{KeyId, KeyRole, ZoneName};

use crate::ask::ask;
use crate::keeper::Keeper;
use crate::users::User;
use crate::wait::{SOON, until};

/// A to-be-signed item (RFC 4034 §3.1.8.1).
#[derive(Debug, Clone)]
pub struct Tbs {
    /// RRSIG: type covered.
    pub covered: u16,
    /// RRSIG: algorithm.
    pub algorithm: u8,
    /// RRSIG: labels.
    pub labels: u8,
    /// RRSIG's original TTL, and the record's.
    pub ttl: u32,
    /// RRSIG: expiration.
    pub expiration: u32,
    /// RRSIG: inception.
    pub inception: u32,
    /// RRSIG: key tag.
    pub tag: u16,
    /// RRSIG: signer's name, in wire form.
    pub signer: Vec<u8>,
    /// The record's owner, in wire form.
    pub owner: Vec<u8>,
    /// The record's type.
    pub rtype: u16,
    /// The records' RDATAs, in their order.
    pub rdatas: Vec<Vec<u8>>,
}

impl Tbs {
    /// An address at the apex of `keys`' zone, which its ZSK signs at `now` without further ado.
    pub fn honest(keys: &ZoneKeys, now: u32) -> Result<Self> {
        let apex = keys.zone.as_wire().to_vec();
        let (_, tag) = key(keys, KeyRole::Zsk)?;
        Ok(Self {
            covered: 1,
            algorithm: 13,
            labels: 1,
            ttl: 300,
            expiration: now + keys.policy.validity_s,
            inception: now - keys.policy.inception_offset_s,
            tag,
            signer: apex.clone(),
            owner: apex,
            rtype: 1,
            rdatas: vec![vec![192, 0, 2, 1]],
        })
    }

    /// The octets.
    pub fn wire(&self) -> Vec<u8> {
        let mut wire = self.covered.to_be_bytes().to_vec();
        wire.extend([self.algorithm, self.labels]);
        wire.extend(self.ttl.to_be_bytes());
        wire.extend(self.expiration.to_be_bytes());
        wire.extend(self.inception.to_be_bytes());
        wire.extend(self.tag.to_be_bytes());
        wire.extend(&self.signer);
        for rdata in &self.rdatas {
            wire.extend(&self.owner);
            wire.extend(self.rtype.to_be_bytes());
            wire.extend([0, 1]);
            wire.extend(self.ttl.to_be_bytes());
            wire.extend((rdata.len() as u16).to_be_bytes());
            wire.extend(rdata);
        }
        wire
    }
}

/// Seconds since 1970, by the machine's clock.
pub fn now() -> Result<u32> {
    Ok(u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?)
}

/// The keeper's answer to one request of `user`'s.
pub fn request(user: User, keeper: &Keeper, request: Request) -> Result<Response> {
    let answer = ask(user, &keeper.socket, &[request])?.pop().context("one answer")?;
    answer.map_err(anyhow::Error::msg)
}

/// The zone's two keys, once both are proven.
pub fn keys(keeper: &Keeper, zone: &str) -> Result<ZoneKeys> {
    let zone: ZoneName = zone.parse()?;
    until("the zone's keys", SOON, || {
        match request(User::Daemon, keeper, Request::Zone { zone: zone.clone() })? {
            Response::Zone(keys) => {
                ensure!(keys.keys.len() == 2, "{keys:?}");
                ensure!(keys.keys.iter().all(|key| !key.proven_by.is_empty()), "{keys:?}");
                Ok(keys)
            }
            other => bail!("{other:?}"),
        }
    })
}

/// The key of a role, and its tag.
pub fn key(keys: &ZoneKeys, role: KeyRole) -> Result<(KeyId, u16)> {
    let key = keys.keys.iter().find(|key| key.role == role).context("a key of the role")?;
    Ok((key.public.id(), key.public.tag(role.flags())))
}

/// The order that an honest daemon gives for the zone's DNSKEY RRset at `now`.
pub fn dnskey_order(keys: &ZoneKeys, now: u32) -> Result<Request> {
    Ok(Request::SignDnskey {
        zone: keys.zone.clone(),
        keys: keys.keys.iter().map(|key| key.public.id()).collect(),
        signer: key(keys, KeyRole::Ksk)?.0,
        ttl_s: keys.policy.dnskey_ttl_s,
        inception: now - keys.policy.inception_offset_s,
        expiration: now + keys.policy.validity_s,
    })
}

/// Whether the keeper uses the zone's KSK at `now`, and why not.
pub fn signs_dnskey(keeper: &Keeper, keys: &ZoneKeys, now: u32) -> Result<Result<(), String>> {
    match request(User::Daemon, keeper, dnskey_order(keys, now)?)? {
        Response::DnskeySignature(_) => Ok(Ok(())),
        Response::Refused(refusal) => Ok(Err(refusal.to_string())),
        other => bail!("{other:?}"),
    }
}

/// Whether the keeper signs an address with the zone's ZSK at `now`, and why not.
pub fn signs_data(keeper: &Keeper, keys: &ZoneKeys, now: u32) -> Result<Result<(), String>> {
    let (zone, (key, _)) = (keys.zone.clone(), key(keys, KeyRole::Zsk)?);
    let tbs = vec![Tbs::honest(keys, now)?.wire()];
    match request(User::Daemon, keeper, Request::SignZone { zone, key, tbs })? {
        Response::Signatures(mut all) => match all.pop().context("one signature")? {
            Ok(_) => Ok(Ok(())),
            Err(refusal) => Ok(Err(refusal.to_string())),
        },
        Response::Refused(refusal) => Ok(Err(refusal.to_string())),
        other => bail!("{other:?}"),
    }
}
