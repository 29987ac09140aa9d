//! CDS and CDNSKEY for a zone under test, their digests made by `domain`.

use countersign_policy::KeyRole;
use countersign_zone::{CdsSet, ZoneParams};
use domain::base::iana::{DigestAlgorithm, SecurityAlgorithm};
use domain::dnssec::validator::base::DnskeyExt as _;
use domain::rdata::Dnskey;
use proptest::prelude::*;

use super::keys::SoftKey;
use super::{NOW_S, Setup, oracle};

pub const DAY_S: u64 = 86_400;

/// What a zone says to its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    Nothing,
    Delete,
    Keys {
        /// Digests of the CDS RRset; none where there is no such RRset.
        digests: Vec<u8>,
        cdnskey: bool,
        /// A key too that is not published yet.
        stand_by: bool,
    },
}

impl Says {
    /// Both RRsets, both digests.
    pub fn all() -> Self {
        Self::Keys { digests: vec![2, 4], cdnskey: true, stand_by: false }
    }
}

pub fn any_says() -> impl Strategy<Value = Says> {
    let digests = prop::sample::select(vec![vec![], vec![2], vec![4], vec![2, 4]]);
    let keys = (digests, any::<bool>(), any::<bool>()).prop_map(|(digests, cdnskey, stand_by)| {
        let cdnskey = cdnskey || digests.is_empty();
        Says::Keys { digests, cdnskey, stand_by }
    });
    prop_oneof![1 => Just(Says::Nothing), 1 => Just(Says::Delete), 4 => keys]
}

/// CDS RDATA for a key with this DNSKEY RDATA.
pub fn cds_rdata(params: &ZoneParams, dnskey: &[u8], digest: u8) -> Vec<u8> {
    let key = Dnskey::new(
        u16::from_be_bytes([dnskey[0], dnskey[1]]),
        dnskey[2],
        SecurityAlgorithm::from_int(dnskey[3]),
        dnskey[4..].to_vec(),
    )
    .expect("a key");
    let owner = oracle::name(params.apex.as_wire());
    let made = key.digest(&owner, DigestAlgorithm::from_int(digest)).expect("a known digest");
    let tag = key.key_tag().to_be_bytes();
    [&tag[..], &[dnskey[3], digest], made.as_ref()].concat()
}

impl Setup {
    /// Has the zone say something, approved until `until_s`.
    pub fn says(mut self, says: &Says, until_s: u64) -> Self {
        self.params.cds = self.set(says, until_s);
        self
    }

    fn set(&self, says: &Says, until_s: u64) -> Option<CdsSet> {
        let (validity_s, refresh_s) = (3 * 86_400, 86_400 + 43_200);
        let Says::Keys { digests, cdnskey, stand_by } = says else {
            return (*says == Says::Delete).then(|| CdsSet::delete(until_s, validity_s, refresh_s));
        };
        let signing = self.params.keys.iter().filter(|key| key.role.signs_dnskey());
        let mut named: Vec<Vec<u8>> =
            signing.map(countersign_zone::ZoneKey::dnskey_rdata).collect();
        if *stand_by {
            let key = SoftKey::make(self.params.policy.algorithm, KeyRole::Ksk);
            named.push(key.public.dnskey_rdata(257));
        }
        let cds = named
            .iter()
            .flat_map(|key| digests.iter().map(|digest| cds_rdata(&self.params, key, *digest)));
        Some(CdsSet {
            cds: cds.collect(),
            cdnskey: if *cdnskey { named.clone() } else { vec![] },
            until_s,
            validity_s,
            refresh_s,
        })
    }

    /// Everything that can be said, approved for ten days from [`NOW_S`].
    pub fn saying_all(self) -> Self {
        self.says(&Says::all(), NOW_S + 10 * DAY_S)
    }
}
