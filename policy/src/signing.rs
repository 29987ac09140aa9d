//! The signing policy of a zone: what its signatures look like and within which bounds.
//! The keeper enforces the bounds; the daemon plans within them.

use serde::{Deserialize, Serialize};

use crate::algorithm::{Algorithm, RSA_BITS};

/// How a zone divides the work between its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeySplit {
    /// A KSK for the DNSKEY RRset and a ZSK for the rest, on separate tokens.
    KskZsk,
    /// One key for both, on the KSK token.
    Csk,
}

/// Authenticated denial of existence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Denial {
    /// RFC 4034 §4.
    Nsec,
    /// RFC 5155 with the parameters of RFC 9276: SHA-1, 0 iterations, no salt.
    Nsec3,
    /// The same, with opt-out for insecure delegations (RFC 5155 §6).
    Nsec3OptOut,
}

/// Where the serial of a signed zone comes from. None ever goes back (RFC 1982).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SerialPolicy {
    /// The primary's own. A refresh of signatures waits for the primary's next serial.
    Keep,
    /// The last published serial plus one, or the primary's where that is higher.
    Increment,
    /// Seconds since 1970, or the last published plus one where that is higher.
    Unixtime,
    /// `YYYYMMDDnn`, or the last published plus one where that is higher.
    DateCounter,
}

/// What a zone's KSK may sign by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DnskeyApproval {
    /// DNSKEY RRsets of keys that were approved each: they are refreshed, and change with the ZSKs,
    /// without a quorum.
    Standing,
    /// DNSKEY RRsets that a quorum approved as a whole, and nothing else.
    PerSet,
}

/// One signing policy. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningPolicy {
    /// Algorithm of every key.
    pub algorithm: Algorithm,
    /// Modulus size, RSA only.
    #[serde(default)]
    pub rsa_bits: Option<u16>,
    /// KSK and ZSK, or CSK.
    pub keys: KeySplit,
    /// Token group that holds KSKs and CSKs.
    pub ksk_group: String,
    /// Token group that holds ZSKs; absent with a CSK.
    #[serde(default)]
    pub zsk_group: Option<String>,
    /// Denial of existence.
    pub denial: Denial,
    /// Serial of the signed zone.
    pub serial: SerialPolicy,
    /// TTL of the DNSKEY RRset.
    pub dnskey_ttl_s: u32,
    /// Highest TTL of any signed RRset; admission refuses more.
    pub ttl_max_s: u32,
    /// From inception to expiration, without the offset below.
    pub validity_s: u32,
    /// Signatures with less than this left are made anew.
    pub refresh_s: u32,
    /// How far before `now` inception lies, for validators whose clock is behind.
    pub inception_offset_s: u32,
    /// What the KSK or CSK may sign without a further quorum.
    pub approval: DnskeyApproval,
}

/// A policy that contradicts itself or leaves the compiled bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy `{policy}`: {problem}")]
pub struct PolicyError {
    /// Name of the policy.
    pub policy: String,
    /// What is wrong and what is expected.
    pub problem: String,
}

/// A signature that is valid for longer can be replayed for longer; nobody needs a year.
pub const VALIDITY_S_MAX: u32 = 90 * 86_400;
/// Below this a zone could not outlive a weekend without its HSM.
pub const VALIDITY_S_MIN: u32 = 3_600;
/// RFC 8767 §4: no resolver caches for more than a week; RFC 2181 §8 bounds the field itself.
pub const TTL_S_MAX: u32 = 7 * 86_400;
/// Clocks of validators are rarely off by more than hours (RFC 6781 §4.4.2).
pub const INCEPTION_OFFSET_S_MAX: u32 = 86_400;

impl SigningPolicy {
    /// Checks the policy against itself and against the compiled bounds.
    pub fn check(&self, name: &str) -> Result<(), PolicyError> {
        let fail = |problem: String| Err(PolicyError { policy: name.to_owned(), problem });
        match (self.algorithm, self.rsa_bits) {
            (Algorithm::RsaSha256, None) => {
                return fail("`rsa_bits` is missing; RSASHA256 needs 2048 to 4096".to_owned());
            }
            (Algorithm::RsaSha256, Some(bits)) if !RSA_BITS.contains(&bits) || bits % 256 != 0 => {
                return fail(format!(
                    "`rsa_bits` is {bits}; expected 2048 to 4096 in steps of 256"
                ));
            }
            (other, Some(_)) if other != Algorithm::RsaSha256 => {
                return fail(format!("`rsa_bits` has no meaning for {other}; remove it"));
            }
            _ => {}
        }
        match (self.keys, &self.zsk_group) {
            (KeySplit::KskZsk, None) => {
                return fail(
                    "`zsk_group` is missing; KSK and ZSK live on separate tokens".to_owned(),
                );
            }
            (KeySplit::KskZsk, Some(group)) if *group == self.ksk_group => {
                return fail(format!("KSK and ZSK share the token group `{group}`; name two"));
            }
            (KeySplit::Csk, Some(_)) => {
                return fail("`zsk_group` has no meaning with a CSK; remove it".to_owned());
            }
            _ => {}
        }
        if !(VALIDITY_S_MIN..=VALIDITY_S_MAX).contains(&self.validity_s) {
            return fail(format!(
                "`validity_s` is {}; expected {VALIDITY_S_MIN} to {VALIDITY_S_MAX}",
                self.validity_s
            ));
        }
        if self.inception_offset_s > INCEPTION_OFFSET_S_MAX {
            return fail(format!(
                "`inception_offset_s` is {}; expected at most {INCEPTION_OFFSET_S_MAX}",
                self.inception_offset_s
            ));
        }
        for (field, ttl) in [("dnskey_ttl_s", self.dnskey_ttl_s), ("ttl_max_s", self.ttl_max_s)] {
            if ttl > TTL_S_MAX {
                return fail(format!("`{field}` is {ttl}; expected at most {TTL_S_MAX}"));
            }
        }
        if self.dnskey_ttl_s > self.ttl_max_s {
            return fail("`dnskey_ttl_s` exceeds `ttl_max_s`".to_owned());
        }
        // A signature fetched just before its refresh must not expire in a cache: what is left
        // of it at refresh has to cover the longest TTL (RFC 6781 §4.4.2; ripe.net 2023).
        if self.refresh_s <= self.ttl_max_s || self.refresh_s >= self.validity_s {
            return fail(format!(
                "`refresh_s` is {}; expected more than `ttl_max_s` ({}) and less than `validity_s` ({})",
                self.refresh_s, self.ttl_max_s, self.validity_s
            ));
        }
        Ok(())
    }

    /// The token group that holds keys of `role`.
    pub fn group_for(&self, role: crate::KeyRole) -> Option<&str> {
        match role {
            crate::KeyRole::Ksk | crate::KeyRole::Csk => Some(&self.ksk_group),
            crate::KeyRole::Zsk => self.zsk_group.as_deref(),
        }
    }

    /// Whether a key made by this policy is what `other` would have: the same kind, at the same place.
    pub fn makes_keys_as(&self, other: &Self) -> bool {
        let making =
            |p: &Self| (p.algorithm, p.rsa_bits, p.keys, p.ksk_group.clone(), p.zsk_group.clone());
        making(self) == making(other)
    }

    /// The roles that a zone under this policy has a key of.
    pub fn roles(&self) -> &'static [crate::KeyRole] {
        match self.keys {
            KeySplit::KskZsk => &[crate::KeyRole::Ksk, crate::KeyRole::Zsk],
            KeySplit::Csk => &[crate::KeyRole::Csk],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::policy;

    fn check(change: impl FnOnce(&mut SigningPolicy), expect: &str) {
        let mut policy = policy();
        change(&mut policy);
        let error = policy.check("p").expect_err(expect).to_string();
        assert!(error.contains(expect), "{error}");
    }

    #[test]
    fn the_example_is_consistent() {
        assert_eq!(policy().check("p"), Ok(()));
    }

    #[test]
    fn contradictions_are_named() {
        check(|p| p.algorithm = Algorithm::RsaSha256, "`rsa_bits` is missing");
        check(|p| p.rsa_bits = Some(2048), "has no meaning for ECDSAP256SHA256");
        check(|p| p.zsk_group = None, "`zsk_group` is missing");
        check(|p| p.zsk_group = Some("ksk".to_owned()), "share the token group");
        check(|p| p.keys = KeySplit::Csk, "no meaning with a CSK");
        check(|p| p.validity_s = VALIDITY_S_MAX + 1, "`validity_s`");
        check(|p| p.refresh_s = p.ttl_max_s, "`refresh_s`");
        check(|p| p.refresh_s = p.validity_s, "`refresh_s`");
        check(|p| p.ttl_max_s = TTL_S_MAX + 1, "`ttl_max_s`");
        check(|p| p.dnskey_ttl_s = p.ttl_max_s + 1, "exceeds `ttl_max_s`");
        check(|p| p.inception_offset_s = INCEPTION_OFFSET_S_MAX + 1, "`inception_offset_s`");
    }
}
