//! What a zone says to its parent: CDS and CDNSKEY at its apex (RFC 7344), and their delete form
//! (RFC 8078 §4).
//!
//! A [`CdsSet`] comes from the keeper, which has it from a quorum. [`CdsSet::check`] holds it to
//! what the RFCs ask of the child: a parent that takes it must not lose the zone by it.

use aws_lc_rs::digest;
use countersign_policy::SigningPolicy;

use crate::params::ZoneParams;
use crate::rtype::Rtype;

/// Longest validity of a signature over CDS or CDNSKEY: an old one that is played back to the
/// parent serves for no longer. Three days outlast a weekend's trouble with the HSM.
pub const CDS_VALIDITY_S_MAX: u32 = 3 * 86_400;

/// A zone goes without CDS and CDNSKEY this long before the last of their signatures would end, so
/// that the secondaries have fetched the version without them by then. Where signatures are
/// short, an eighth of their validity must do.
pub const CDS_WITHDRAW_S: u32 = 3_600;

/// Records of one of the two RRsets: each key of a DNSKEY RRset by two digests.
pub const CDS_RECORDS_MAX: usize = 2 * crate::plan::KEYS_MAX;

/// RDATA of the delete form (RFC 8078 §4): `0 0 0 00` and `0 3 0 AA==`.
pub const DELETE_CDS: [u8; 5] = [0, 0, 0, 0, 0];
/// The same for CDNSKEY.
pub const DELETE_CDNSKEY: [u8; 5] = [0, 0, 3, 0, 0];

/// What a zone says to its parent, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdsSet {
    /// RDATA of the CDS RRset; none where it has no such RRset.
    pub cds: Vec<Vec<u8>>,
    /// RDATA of the CDNSKEY RRset; the same.
    pub cdnskey: Vec<Vec<u8>>,
    /// When the approval ends, seconds since 1970: no signature lasts longer.
    pub until_s: u64,
    /// How long a signature may last from now on. The policy's validity and
    /// [`CDS_VALIDITY_S_MAX`] bound it too.
    pub validity_s: u32,
    /// Signatures with less than this left are made anew.
    pub refresh_s: u32,
}

/// Why a [`CdsSet`] is not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CdsError {
    /// Neither RRset has a record.
    #[error("neither CDS nor CDNSKEY has a record; withdraw both, or approve another set")]
    Empty,
    /// Too many records.
    #[error("{found} {rtype} records; expected at most {CDS_RECORDS_MAX}")]
    TooMany {
        /// CDS or CDNSKEY.
        rtype: Rtype,
        /// Records found.
        found: usize,
    },
    /// RDATA that is neither the delete form nor of a digest or key that is published here.
    #[error(
        "a {rtype} record is malformed: expected the delete form, a SHA-256 or SHA-384 digest, or a key"
    )]
    Malformed {
        /// CDS or CDNSKEY.
        rtype: Rtype,
    },
    /// The same record twice.
    #[error("a {rtype} record is there twice")]
    Duplicate {
        /// CDS or CDNSKEY.
        rtype: Rtype,
    },
    /// Delete and something else.
    #[error("the delete form stands alone, in CDS as in CDNSKEY (RFC 8078 §4)")]
    DeleteAndOther,
    /// The RRsets name different keys.
    #[error("CDS and CDNSKEY name different keys (RFC 7344 §4)")]
    Differ,
    /// A parent that took it would have no DS of a key that the zone is signed with.
    #[error(
        "{rtype} names no key of the zone's that signs its DNSKEY RRset: a parent that took it would make the zone bogus (RFC 7344 §4.1)"
    )]
    Breaks {
        /// CDS or CDNSKEY.
        rtype: Rtype,
    },
    /// The approval ends too soon for a signature.
    #[error("the approval of CDS and CDNSKEY ends at {until_s} s since 1970, and it is {now_s}")]
    Over {
        /// When it ends.
        until_s: u64,
        /// The time.
        now_s: u64,
    },
}

impl CdsSet {
    /// The delete form of both RRsets.
    pub fn delete(until_s: u64, validity_s: u32, refresh_s: u32) -> Self {
        let (cds, cdnskey) = (vec![DELETE_CDS.to_vec()], vec![DELETE_CDNSKEY.to_vec()]);
        Self { cds, cdnskey, until_s, validity_s, refresh_s }
    }

    /// How long a signature lasts under a policy, if nothing ends sooner.
    pub fn validity_under(&self, policy: &SigningPolicy) -> u32 {
        self.validity_s.min(policy.validity_s).min(CDS_VALIDITY_S_MAX)
    }

    /// When the zone is to be without it: a little before the approval ends.
    pub fn ends_s(&self, policy: &SigningPolicy) -> u64 {
        let margin_s = CDS_WITHDRAW_S.min(self.validity_under(policy) / 8);
        self.until_s.saturating_sub(margin_s.into())
    }

    /// The two RRsets, each with its type; one without a record is not there.
    pub(crate) fn rrsets(&self) -> impl Iterator<Item = (Rtype, &[Vec<u8>])> {
        let both = [(Rtype::CDS, &self.cds[..]), (Rtype::CDNSKEY, &self.cdnskey[..])];
        both.into_iter().filter(|(_, rdatas)| !rdatas.is_empty())
    }

    fn is_delete(&self) -> bool {
        self.rrsets().any(|(rtype, rdatas)| rdatas.iter().any(|rdata| is_delete(rtype, rdata)))
    }

    /// Holds the set to RFC 7344 and RFC 8078, for the zone that it is to be published in.
    pub fn check(&self, params: &ZoneParams, now_s: u64) -> Result<(), CdsError> {
        if self.rrsets().next().is_none() {
            return Err(CdsError::Empty);
        }
        for (rtype, rdatas) in self.rrsets() {
            if rdatas.len() > CDS_RECORDS_MAX {
                return Err(CdsError::TooMany { rtype, found: rdatas.len() });
            }
            if !rdatas.iter().all(|rdata| is_delete(rtype, rdata) || is_well_formed(rtype, rdata)) {
                return Err(CdsError::Malformed { rtype });
            }
            if rdatas.iter().enumerate().any(|(at, rdata)| rdatas[at + 1..].contains(rdata)) {
                return Err(CdsError::Duplicate { rtype });
            }
        }
        if self.is_delete() {
            if self
                .rrsets()
                .any(|(rtype, rdatas)| rdatas.len() != 1 || !is_delete(rtype, &rdatas[0]))
            {
                return Err(CdsError::DeleteAndOther);
            }
        } else {
            self.check_keys(params)?;
        }
        if now_s >= self.ends_s(&params.policy) {
            return Err(CdsError::Over { until_s: self.until_s, now_s });
        }
        Ok(())
    }

    /// Both RRsets name the same keys, and one of them signs the DNSKEY RRset.
    fn check_keys(&self, params: &ZoneParams) -> Result<(), CdsError> {
        let apex = params.apex.as_wire();
        let names = |cds: &[u8], dnskey: &[u8]| names_key(apex, cds, dnskey);
        if !self.cds.is_empty() && !self.cdnskey.is_empty() {
            let stray = self.cds.iter().any(|cds| !self.cdnskey.iter().any(|key| names(cds, key)));
            let mute = self.cdnskey.iter().any(|key| !self.cds.iter().any(|cds| names(cds, key)));
            if stray || mute {
                return Err(CdsError::Differ);
            }
        }
        let signing = params.keys.iter().filter(|key| key.role.signs_dnskey());
        let signing: Vec<Vec<u8>> = signing.map(crate::params::ZoneKey::dnskey_rdata).collect();
        for (rtype, rdatas) in self.rrsets() {
            let holds = rdatas.iter().any(|rdata| {
                signing.iter().any(|key| match rtype {
                    Rtype::CDS => names(rdata, key),
                    _ => rdata == key,
                })
            });
            if !holds {
                return Err(CdsError::Breaks { rtype });
            }
        }
        Ok(())
    }
}

fn is_delete(rtype: Rtype, rdata: &[u8]) -> bool {
    match rtype {
        Rtype::CDS => rdata == DELETE_CDS,
        _ => rdata == DELETE_CDNSKEY,
    }
}

/// A digest as long as its type says (RFC 4509 §2.1, RFC 6605 §2), or a secure entry point.
fn is_well_formed(rtype: Rtype, rdata: &[u8]) -> bool {
    match (rtype, rdata) {
        (Rtype::CDS, [_, _, algorithm, digest_type, digest @ ..]) => {
            *algorithm != 0
                && digest_algorithm(*digest_type).is_some_and(|d| d.output_len() == digest.len())
        }
        // Zone key and SEP, protocol 3.
        (Rtype::CDNSKEY, [1, 1, 3, algorithm, key @ ..]) => *algorithm != 0 && !key.is_empty(),
        _ => false,
    }
}

/// RFC 4509, RFC 6605; SHA-1 is not published (RFC 8624 §3.3).
fn digest_algorithm(number: u8) -> Option<&'static digest::Algorithm> {
    match number {
        2 => Some(&digest::SHA256),
        4 => Some(&digest::SHA384),
        _ => None,
    }
}

/// Whether CDS RDATA is the digest of the key with this DNSKEY RDATA (RFC 4034 §5.1.4).
fn names_key(apex: &[u8], cds: &[u8], dnskey: &[u8]) -> bool {
    let [tag_high, tag_low, algorithm, digest_type, found @ ..] = cds else { return false };
    let Some(digest_algorithm) = digest_algorithm(*digest_type) else { return false };
    let mut context = digest::Context::new(digest_algorithm);
    context.update(apex); // lower-case already
    context.update(dnskey);
    u16::from_be_bytes([*tag_high, *tag_low]) == countersign_policy::key::key_tag(dnskey)
        && dnskey.get(3) == Some(algorithm)
        && context.finish().as_ref() == found
}

#[cfg(test)]
pub(crate) mod tests {
    use countersign_policy::signing::Denial;
    use countersign_policy::{Algorithm, KeyRole};

    use super::*;
    use crate::params::ZoneKey;
    use crate::testing::{key, params};

    const NOW: u64 = 1_795_564_266;

    fn cds(dnskey: &[u8], kind: u8) -> Vec<u8> {
        let algorithm = digest_algorithm(kind).expect("known");
        let mut context = digest::Context::new(algorithm);
        context.update(b"\x07example\0");
        context.update(dnskey);
        let tag = countersign_policy::key::key_tag(dnskey).to_be_bytes();
        [&tag[..], &[dnskey[3], kind], context.finish().as_ref()].concat()
    }

    fn ksk() -> Vec<u8> {
        key(KeyRole::Ksk, Algorithm::Ed25519, 1).dnskey_rdata()
    }

    /// The KSK of the zone, by both digests.
    pub(crate) fn set() -> CdsSet {
        CdsSet {
            cds: vec![cds(&ksk(), 4), cds(&ksk(), 2)],
            cdnskey: vec![ksk()],
            until_s: NOW + 7 * 86_400,
            validity_s: 3 * 86_400,
            refresh_s: 36 * 3_600,
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "so that a test's table reads well")]
    fn check(change: impl FnOnce(&mut CdsSet), expect: Result<(), CdsError>) {
        let mut set = set();
        change(&mut set);
        assert_eq!(set.check(&params(Denial::Nsec), NOW), expect, "{set:?}");
    }

    fn other() -> ZoneKey {
        key(KeyRole::Ksk, Algorithm::Ed25519, 9)
    }

    #[test]
    fn what_a_parent_may_take_is_published() {
        check(|_| {}, Ok(()));
        check(|set| set.cds.clear(), Ok(()));
        check(|set| set.cdnskey.clear(), Ok(()));
        // A key that is not published yet, beside one that is.
        check(
            |set| {
                set.cdnskey.push(other().dnskey_rdata());
                set.cds.push(cds(&other().dnskey_rdata(), 2));
            },
            Ok(()),
        );
        check(|set| *set = CdsSet::delete(set.until_s, 1, 0), Ok(()));
    }

    #[test]
    fn what_would_cut_the_zone_off_is_not() {
        let (c, k) = (Rtype::CDS, Rtype::CDNSKEY);
        check(
            |set| {
                set.cds.clear();
                set.cdnskey.clear();
            },
            Err(CdsError::Empty),
        );
        for at in [0, 2, 40] {
            let broken = move |set: &mut CdsSet| {
                set.cdnskey.clear();
                set.cds.truncate(1);
                set.cds[0][at] ^= 1;
            };
            check(broken, Err(CdsError::Breaks { rtype: c }));
        }
        check(|set| set.cds.truncate(1), Ok(()));
        check(|set| set.cds.push(cds(&other().dnskey_rdata(), 2)), Err(CdsError::Differ));
        check(|set| set.cdnskey.push(other().dnskey_rdata()), Err(CdsError::Differ));
        let strange = |set: &mut CdsSet| {
            set.cds.clear();
            set.cdnskey = vec![other().dnskey_rdata()];
        };
        check(strange, Err(CdsError::Breaks { rtype: k }));
        // A ZSK is no secure entry point, whatever its flags say here.
        let zsk = |set: &mut CdsSet| {
            set.cdnskey.clear();
            set.cds = vec![cds(&key(KeyRole::Zsk, Algorithm::Ed25519, 2).dnskey_rdata(), 2)];
        };
        check(zsk, Err(CdsError::Breaks { rtype: c }));
    }

    #[test]
    fn malformed_records_are_named() {
        let (c, k) = (Rtype::CDS, Rtype::CDNSKEY);
        check(|set| set.cds[0].truncate(40), Err(CdsError::Malformed { rtype: c }));
        check(|set| set.cds[0][3] = 1, Err(CdsError::Malformed { rtype: c }));
        check(|set| set.cds[0][2] = 0, Err(CdsError::Malformed { rtype: c }));
        check(|set| set.cdnskey[0][1] = 0, Err(CdsError::Malformed { rtype: k }));
        check(|set| set.cdnskey[0].truncate(4), Err(CdsError::Malformed { rtype: k }));
        check(|set| set.cds.push(set.cds[0].clone()), Err(CdsError::Duplicate { rtype: c }));
        let many = vec![ksk(); CDS_RECORDS_MAX + 1];
        let found = many.len();
        check(|set| set.cdnskey = many, Err(CdsError::TooMany { rtype: k, found }));
        check(|set| set.cds.push(DELETE_CDS.to_vec()), Err(CdsError::DeleteAndOther));
        check(|set| set.cds = vec![DELETE_CDS.to_vec()], Err(CdsError::DeleteAndOther));
    }

    #[test]
    fn it_ends_a_little_before_its_approval() {
        let policy = crate::testing::policy(Denial::Nsec);
        let mut set = set();
        assert_eq!(set.validity_under(&policy), 3 * 86_400);
        assert_eq!(set.ends_s(&policy), set.until_s - 3_600);
        set.validity_s = 8_000;
        assert_eq!(set.ends_s(&policy), set.until_s - 1_000);
        let until_s = NOW + 1_000;
        check(
            |set| (set.validity_s, set.until_s) = (8_000, until_s),
            Err(CdsError::Over { until_s, now_s: NOW }),
        );
        check(|set| (set.validity_s, set.until_s) = (8_000, until_s + 1), Ok(()));
        set.validity_s = u32::MAX;
        assert_eq!(set.validity_under(&policy), CDS_VALIDITY_S_MAX);
    }
}
