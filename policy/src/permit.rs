//! Which operations the ledger's state allows next. The keeper asks here before it writes an intent, and
//! the fold asks again when it reads one; nothing else gives leave.

use std::collections::BTreeSet;

use crate::key::{KeyId, KeyRole, from_hex};
use crate::ledger::{Operation, generation_label};
use crate::name::ZoneName;
use crate::signing::SigningPolicy;
use crate::state::{ClockFault, KeyRecord, LedgerState, Step, ZSKS_A_WEEK_MAX, ZSKS_MAX};
use crate::text::time_text;

/// How far daemon and keeper may differ in what the time is: they are processes of one machine, so
/// this covers nothing but planning ahead by a little.
pub const CLOCK_SKEW_S_MAX: u32 = 300;

/// Octets of a nonce in a key's label, before they are written in hexadecimal.
pub const NONCE_BYTES: usize = 16;

/// Why an operation is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No such zone, key or token here.
    #[error("{0}")]
    Unknown(String),
    /// A token answers for the key with another public key.
    #[error("{0}")]
    Conflict(String),
    /// The rules forbid it.
    #[error("{0}")]
    Forbidden(String),
    /// An officer stopped it.
    #[error("{0}")]
    Frozen(String),
    /// The clock is not believed.
    #[error("{0}")]
    Clock(ClockFault),
}

fn forbidden<T>(why: String) -> Result<T, Denied> {
    Err(Denied::Forbidden(why))
}

/// Checks a signature's validity against policy and clock (RFC 4034 §3.1.5; both ends are seconds
/// since 1970 modulo 2^32, compared as RFC 1982 says).
pub fn check_validity(
    policy: &SigningPolicy,
    inception: u32,
    expiration: u32,
    now_s: u64,
) -> Result<(), Denied> {
    // Distances from now as signed numbers: right for 68 years to either side.
    let from_now = |time: u32| i64::from(time.wrapping_sub(now_s as u32).cast_signed());
    let (starts, ends) = (from_now(inception), from_now(expiration));
    let skew = i64::from(CLOCK_SKEW_S_MAX);
    if starts > skew {
        return forbidden(format!(
            "inception lies {starts} s ahead of the keeper's clock; expected at most {skew} s. \
             hint: compare the clocks of daemon and keeper"
        ));
    }
    if ends <= 0 {
        return forbidden(format!("expiration lies {} s in the past", -ends));
    }
    if ends <= starts {
        return forbidden("the signature would end before it begins".to_owned());
    }
    let validity = i64::from(policy.validity_s);
    if ends > validity + skew {
        return forbidden(format!(
            "expiration lies {ends} s ahead; the zone's policy allows {validity} s"
        ));
    }
    let longest = validity + i64::from(policy.inception_offset_s);
    if ends - starts > longest {
        return forbidden(format!(
            "the signature would be valid for {} s; the zone's policy allows {longest} s",
            ends - starts
        ));
    }
    Ok(())
}

impl From<ClockFault> for Denied {
    fn from(fault: ClockFault) -> Self {
        Self::Clock(fault)
    }
}

impl LedgerState {
    /// Judges whether `operation` may be intended now, under line `under`. For a KSK or CSK the clock
    /// has to be believed and nothing frozen; ZSKs are made whatever the clock and the freezes.
    pub fn allows(&self, operation: &Operation, under: u64, now_s: u64) -> Result<(), Denied> {
        match operation {
            Operation::Generate { zone, role, token, nonce } => {
                self.allows_generate(zone, *role, (token, nonce), under, now_s)
            }
            Operation::Adopt { zone, role, token, key } => {
                let (_, policy) = self.bound(zone)?;
                self.is_of_group(policy, *role, token)?;
                if self.keys().contains_key(key) {
                    return forbidden(format!("key {key} is here already"));
                }
                let (zone, role) = (zone.clone(), *role);
                let step = Step::Adopt { zone, role, token: token.clone(), key: *key };
                self.is_step(&step, under, now_s)?;
                self.is_not_under_way(operation)?;
                if role.signs_dnskey() { self.ksk_may(operation.zone(), now_s) } else { Ok(()) }
            }
            Operation::SignDnskey { zone, keys, signer, ttl_s, inception, expiration } => {
                let validity = (*inception, *expiration);
                self.allows_sign_dnskey((zone, keys, signer), *ttl_s, validity, under, now_s)
            }
            Operation::SignCds { zone, signer, ttl_s, inception, expiration, .. } => {
                let validity = (*inception, *expiration);
                self.allows_sign_cds((zone, signer), *ttl_s, validity, under, now_s)
            }
            Operation::Destroy { zone, token, label, key } => {
                let role = self.allows_destroy(zone, (token, label, *key), under, now_s)?;
                self.is_not_under_way(operation)?;
                if role.signs_dnskey() { self.ksk_may(zone, now_s) } else { Ok(()) }
            }
        }
    }

    /// The line under which `operation` would be intended now, if there is one; whether it may be,
    /// [`Self::allows`] says.
    pub fn standing(&self, operation: &Operation, now_s: u64) -> Option<u64> {
        match operation {
            Operation::SignDnskey { zone, .. } => {
                self.dnskey_set(zone, now_s).ok().map(|set| set.under)
            }
            Operation::SignCds { zone, .. } => self.cds(zone, now_s).map(|grant| grant.begun),
            Operation::Generate { zone, role: KeyRole::Zsk, .. } => {
                self.zones().get(zone).map(|binding| binding.line)
            }
            Operation::Generate { zone, role, .. } => {
                self.line_of(&Step::Generate { zone: zone.clone(), role: *role }, now_s)
            }
            Operation::Adopt { zone, role, token, key } => {
                let (zone, token) = (zone.clone(), token.clone());
                self.line_of(&Step::Adopt { zone, role: *role, token, key: *key }, now_s)
            }
            Operation::Destroy { zone, token, label, key } => match key {
                None => self.making(label).map(|making| making.intent),
                Some(id) => self.colliding(id).map(|key| key.made_by).or_else(|| {
                    let (zone, token, label) = (zone.clone(), token.clone(), label.clone());
                    self.line_of(&Step::Destroy { zone, token, label, key: *id }, now_s)
                }),
            },
        }
    }

    /// What begins with a KSK or CSK: not with a clock that is not believed, and not while frozen.
    pub(crate) fn ksk_may(&self, zone: &ZoneName, now_s: u64) -> Result<(), Denied> {
        self.clock(now_s)?;
        match self.freeze_of(zone) {
            Some(freeze) => Err(Denied::Frozen(format!(
                "{freeze}. hint: when its reason is gone, propose thaw"
            ))),
            None => Ok(()),
        }
    }

    fn allows_generate(
        &self,
        zone: &ZoneName,
        role: KeyRole,
        (token, nonce): (&str, &str),
        under: u64,
        now_s: u64,
    ) -> Result<(), Denied> {
        let (binding, policy) = self.bound(zone)?;
        if !policy.roles().contains(&role) {
            return forbidden(format!("the policy of {zone} has no {role}"));
        }
        self.is_of_group(policy, role, token)?;
        if from_hex(nonce).is_none_or(|octets| octets.len() != NONCE_BYTES) {
            return forbidden(format!("a nonce is {NONCE_BYTES} octets in hexadecimal"));
        }
        let label = generation_label(role, zone, nonce);
        if self.making(&label).is_some() || self.key_labelled(&label).is_some() {
            return forbidden("the nonce was used before".to_owned());
        }
        let open = self.open_intents().find(|(_, other)| {
            matches!(other, Operation::Generate { zone: z, role: r, .. } if z == zone && *r == role)
        });
        if let Some((line, _)) = open {
            return forbidden(format!("line {line} makes a {role} for {zone} already"));
        }
        if role.signs_dnskey() {
            self.is_step(&Step::Generate { zone: zone.clone(), role }, under, now_s)?;
            return self.ksk_may(zone, now_s);
        }
        if under != binding.line {
            return forbidden(format!(
                "ZSKs of {zone} are made under line {}, which bound it, not under line {under}",
                binding.line
            ));
        }
        let there = self.keys_of(zone).filter(|(_, key)| key.role == role).count();
        if there >= ZSKS_MAX {
            return forbidden(format!("{zone} has {there} ZSKs; expected at most {ZSKS_MAX}"));
        }
        if self.zsks_within_a_week(zone, now_s) >= ZSKS_A_WEEK_MAX {
            return forbidden(format!(
                "{ZSKS_A_WEEK_MAX} ZSKs were made for {zone} within a week, which is the most"
            ));
        }
        Ok(())
    }

    fn allows_sign_dnskey(
        &self,
        (zone, keys, signer): (&ZoneName, &BTreeSet<KeyId>, &KeyId),
        ttl_s: u32,
        (inception, expiration): (u32, u32),
        under: u64,
        now_s: u64,
    ) -> Result<(), Denied> {
        let (_, policy) = self.bound(zone)?;
        if ttl_s != policy.dnskey_ttl_s {
            return forbidden(format!(
                "the DNSKEY RRset of {zone} has a TTL of {} by its policy, not {ttl_s}",
                policy.dnskey_ttl_s
            ));
        }
        check_validity(policy, inception, expiration, now_s)?;
        let set = self.dnskey_set(zone, now_s)?;
        if set.under != under {
            return forbidden(format!(
                "the DNSKEY RRset of {zone} is signed under line {}, not under line {under}",
                set.under
            ));
        }
        if set.keys != *keys {
            let expected: Vec<String> = set.keys.iter().map(ToString::to_string).collect();
            return forbidden(format!(
                "the DNSKEY RRset of {zone} holds exactly its keys: {}",
                expected.join(", ")
            ));
        }
        if let Some(until) = set.until {
            ends_by(expiration, until, now_s)?;
        }
        self.allows_signer(zone, keys, signer)?;
        self.ksk_may(zone, now_s)
    }

    fn allows_sign_cds(
        &self,
        (zone, signer): (&ZoneName, &KeyId),
        ttl_s: u32,
        (inception, expiration): (u32, u32),
        under: u64,
        now_s: u64,
    ) -> Result<(), Denied> {
        let (_, policy) = self.bound(zone)?;
        let Some(grant) = self.cds(zone, now_s) else {
            return forbidden(format!(
                "no CDS or CDNSKEY of {zone} is approved now; propose publish-cds or delete-ds"
            ));
        };
        if grant.begun != under {
            return forbidden(format!(
                "CDS and CDNSKEY of {zone} are signed under line {}, not under line {under}",
                grant.begun
            ));
        }
        if ttl_s > policy.dnskey_ttl_s {
            return forbidden(format!(
                "CDS and CDNSKEY of {zone} have a TTL of {} at most, as its DNSKEYs, not {ttl_s}",
                policy.dnskey_ttl_s
            ));
        }
        let short = SigningPolicy { validity_s: grant.validity_s, ..policy.clone() };
        check_validity(&short, inception, expiration, now_s)?;
        ends_by(expiration, grant.until, now_s)?;
        let set = self.dnskey_set(zone, now_s)?;
        self.allows_signer(zone, &set.keys, signer)?;
        self.ksk_may(zone, now_s)
    }

    /// The signer is a KSK or CSK in the set, and no key of the set is in doubt.
    fn allows_signer(
        &self,
        zone: &ZoneName,
        keys: &BTreeSet<KeyId>,
        signer: &KeyId,
    ) -> Result<(), Denied> {
        let Some(record) = self.keys().get(signer).filter(|key| key.zone == *zone) else {
            return Err(Denied::Unknown(format!("{zone} has no key {signer}")));
        };
        if !record.role.signs_dnskey() {
            return forbidden(format!("key {signer} is a ZSK and does not sign the DNSKEY RRset"));
        }
        if !keys.contains(signer) {
            return forbidden(format!("key {signer} is not in the DNSKEY RRset of {zone}"));
        }
        for id in keys {
            if let Some(why) = self.keys().get(id).and_then(|key| key.conflict.as_ref()) {
                return Err(Denied::Conflict(format!("key {id} of {zone}: {why}")));
            }
        }
        Ok(())
    }

    /// What may be destroyed, with its role: what an intent without a result left, under that intent;
    /// a key whose tag collides and that nobody has seen, under the intent that made it; a key that a
    /// quorum gave up, under that `Begun`.
    fn allows_destroy(
        &self,
        zone: &ZoneName,
        (token, label, key): (&str, &str, Option<KeyId>),
        under: u64,
        now_s: u64,
    ) -> Result<KeyRole, Denied> {
        let expect = |line: u64| {
            let why =
                || format!("`{label}` is destroyed under line {line}, not under line {under}");
            if line == under { Ok(()) } else { Err(Denied::Forbidden(why())) }
        };
        let Some(id) = key else {
            if let Some((id, _)) = self.key_labelled(label) {
                return forbidden(format!("`{label}` is key {id} of {zone}, which is in use"));
            }
            let Some(making) = self.making(label) else {
                return Err(Denied::Unknown(format!("no intent is making `{label}`")));
            };
            if making.zone != *zone || making.token != token {
                return forbidden(format!(
                    "`{label}` is made for {} on token `{}`",
                    making.zone, making.token
                ));
            }
            return expect(making.intent).map(|()| making.role);
        };
        let record = self.keys().get(&id).filter(|key| key.zone == *zone && key.label == label);
        let Some(record) = record else {
            return Err(Denied::Unknown(format!("{zone} has no key {id} labelled `{label}`")));
        };
        if self.colliding(&id).is_some() && record.token == token {
            return expect(record.made_by).map(|()| record.role);
        }
        let (zone, token, label) = (zone.clone(), token.to_owned(), label.to_owned());
        self.is_step(&Step::Destroy { zone, token, label, key: id }, under, now_s)?;
        Ok(record.role)
    }

    /// The key, if its tag collides with an older one's and it was never published.
    fn colliding(&self, id: &KeyId) -> Option<&KeyRecord> {
        self.keys().get(id).filter(|key| key.collides_with.is_some() && !key.published)
    }

    fn is_of_group(
        &self,
        policy: &SigningPolicy,
        role: KeyRole,
        token: &str,
    ) -> Result<(), Denied> {
        let Some(identity) = self.tokens().get(token) else {
            return Err(Denied::Unknown(format!("there is no token `{token}`")));
        };
        if policy.group_for(role) != Some(identity.group.as_str()) {
            return forbidden(format!("token `{token}` is not of the group that holds {role}s"));
        }
        Ok(())
    }

    fn is_not_under_way(&self, operation: &Operation) -> Result<(), Denied> {
        match self.open_intents().find(|(_, other)| *other == operation) {
            Some((line, _)) => forbidden(format!("line {line} does exactly that already")),
            None => Ok(()),
        }
    }
}

/// The expiration (RFC 4034 §3.1.5) is no later than `until`, as seen from `now_s`.
fn ends_by(expiration: u32, until: u64, now_s: u64) -> Result<(), Denied> {
    let ahead = i64::from(expiration.wrapping_sub(now_s as u32).cast_signed());
    let most = until.saturating_sub(now_s);
    if ahead > 0 && ahead.unsigned_abs() > most {
        return forbidden(format!(
            "expiration lies {ahead} s ahead; what was approved ends in {most} s, at {}",
            time_text(until)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn validity_is_judged_by_the_clock() {
        let policy = crate::testing::policy();
        let check = |starts: i64, ends: i64, now: u64, expect: &str| {
            let at = |offset: i64| (now.cast_signed() + offset).cast_unsigned() as u32;
            match check_validity(&policy, at(starts), at(ends), now) {
                Ok(()) => assert_eq!(expect, "allowed", "{starts} {ends}"),
                Err(denied) => assert!(denied.to_string().contains(expect), "{denied}"),
            }
        };
        let (offset, validity) =
            (i64::from(policy.inception_offset_s), i64::from(policy.validity_s));
        for now in [NOW, u64::from(u32::MAX), u64::from(u32::MAX) + 500] {
            check(-offset, validity, now, "allowed");
            check(0, 1, now, "allowed");
            check(301, validity, now, "ahead of the keeper's clock");
            check(-offset, validity + 301, now, "expiration lies");
            check(-offset - 1, validity, now, "would be valid for");
            check(-offset, 0, now, "in the past");
            check(10, 5, now, "before it begins");
        }
    }
}
