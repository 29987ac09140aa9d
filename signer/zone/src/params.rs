//! What a zone is signed with: its policy and the keys of its DNSKEY RRset.

use std::collections::BTreeSet;

use countersign_policy::{Algorithm, KeyRole, PublicKey, SigningPolicy, ZoneName};

use crate::cds::CdsSet;

/// One key of the DNSKEY RRset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneKey {
    /// What it is for; decides the DNSKEY flags.
    pub role: KeyRole,
    /// Its public half.
    pub public: PublicKey,
}

impl ZoneKey {
    /// Its DNSKEY RDATA (RFC 4034 §2.1).
    pub fn dnskey_rdata(&self) -> Vec<u8> {
        self.public.dnskey_rdata(self.role.flags())
    }

    /// Its key tag (RFC 4034 appendix B).
    pub fn tag(&self) -> u16 {
        self.public.tag(self.role.flags())
    }
}

/// Everything that planning and verification need to know besides the zone itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneParams {
    /// The zone.
    pub apex: ZoneName,
    /// Its signing policy.
    pub policy: SigningPolicy,
    /// The keys of its DNSKEY RRset.
    pub keys: Vec<ZoneKey>,
    /// When the approval of this DNSKEY RRset ends, seconds since 1970, where it has an end: no
    /// signature over the RRset lasts longer.
    pub dnskey_until: Option<u64>,
    /// Keep signatures over DNSKEY for as long as they are valid: no KSK is at hand.
    pub keep_dnskey: bool,
    /// What it says to its parent, if anything.
    pub cds: Option<CdsSet>,
    /// Whether it carries a digest of itself (RFC 8976).
    pub zonemd: bool,
}

impl ZoneParams {
    /// The algorithms of the DNSKEY RRset: each must sign every authoritative RRset
    /// (RFC 4035 §2.2).
    pub fn algorithms(&self) -> BTreeSet<Algorithm> {
        self.keys.iter().map(|key| key.public.algorithm()).collect()
    }
}
