//! Which operations, and which foundings, the ledger's state allows next. The keeper asks here before
//! it writes an intent; nothing else gives leave.

use crate::founding::{FoundingError, LabFounding};
use crate::key::{KeyId, KeyRole, from_hex};
use crate::ledger::{Operation, generation_label};
use crate::name::ZoneName;
use crate::signing::SigningPolicy;
use crate::state::LedgerState;

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

impl LedgerState {
    /// Judges whether `operation` may be intended now, under line `under`.
    pub fn allows(&self, operation: &Operation, under: u64, now_s: u64) -> Result<(), Denied> {
        let Some((line, founding)) = self.founding() else {
            return forbidden("there is no founding".to_owned());
        };
        if line != under {
            return forbidden(format!("line {under} is not in force; line {line} is"));
        }
        match operation {
            Operation::Generate { zone, role, token, nonce } => {
                self.allows_generate(founding, zone, *role, token, nonce)
            }
            Operation::SignDnskey { zone, keys, signer, ttl_s, inception, expiration } => {
                let policy = bound(founding, zone)?;
                if *ttl_s != policy.dnskey_ttl_s {
                    return forbidden(format!(
                        "the DNSKEY RRset of {zone} has a TTL of {} by its policy, not {ttl_s}",
                        policy.dnskey_ttl_s
                    ));
                }
                check_validity(policy, *inception, *expiration, now_s)?;
                if !self.dnskeys_of(zone).map(|(id, _)| id).eq(keys) {
                    let expected: Vec<String> =
                        self.dnskeys_of(zone).map(|(id, _)| id.to_string()).collect();
                    return forbidden(format!(
                        "the DNSKEY RRset of {zone} holds exactly its keys: {}",
                        expected.join(", ")
                    ));
                }
                self.allows_signer(zone, keys.iter(), signer)
            }
            Operation::Destroy { zone, token, label } => self.allows_destroy(zone, token, label),
        }
    }

    fn allows_generate(
        &self,
        founding: &LabFounding,
        zone: &ZoneName,
        role: KeyRole,
        token: &str,
        nonce: &str,
    ) -> Result<(), Denied> {
        let policy = bound(founding, zone)?;
        if !policy.roles().contains(&role) {
            return forbidden(format!("the policy of {zone} has no {role}"));
        }
        let Some(identity) = founding.token.get(token) else {
            return Err(Denied::Unknown(format!("the founding has no token `{token}`")));
        };
        if policy.group_for(role) != Some(identity.group.as_str()) {
            return forbidden(format!("token `{token}` is not of the group that holds {role}s"));
        }
        if from_hex(nonce).is_none_or(|octets| octets.len() != NONCE_BYTES) {
            return forbidden(format!("a nonce is {NONCE_BYTES} octets in hexadecimal"));
        }
        if self.making(&generation_label(role, zone, nonce)).is_some() {
            return forbidden("the nonce was used before".to_owned());
        }
        if let Some((id, _)) = self.dnskeys_of(zone).find(|(_, key)| key.role == role) {
            return forbidden(format!("{zone} has a {role} already: {id}"));
        }
        let open = self.open_intents().find(|(_, other)| {
            matches!(other, Operation::Generate { zone: z, role: r, .. } if z == zone && *r == role)
        });
        match open {
            Some((line, _)) => forbidden(format!("line {line} makes a {role} for {zone} already")),
            None => Ok(()),
        }
    }

    fn allows_signer<'a>(
        &self,
        zone: &ZoneName,
        keys: impl Iterator<Item = &'a KeyId>,
        signer: &KeyId,
    ) -> Result<(), Denied> {
        let Some(record) = self.keys().get(signer).filter(|key| key.zone == *zone) else {
            return Err(Denied::Unknown(format!("{zone} has no key {signer}")));
        };
        if !record.role.signs_dnskey() || record.collides_with.is_some() {
            return forbidden(format!(
                "key {signer} is a {} and does not sign the DNSKEY RRset",
                record.role
            ));
        }
        for id in keys {
            if let Some(why) = self.keys().get(id).and_then(|key| key.conflict.as_ref()) {
                return Err(Denied::Conflict(format!("key {id} of {zone}: {why}")));
            }
        }
        Ok(())
    }

    fn allows_destroy(&self, zone: &ZoneName, token: &str, label: &str) -> Result<(), Denied> {
        let Some(making) = self.making(label) else {
            return Err(Denied::Unknown(format!("the ledger never made `{label}`")));
        };
        if making.zone != *zone || making.token != token {
            return forbidden(format!(
                "`{label}` was made for {} on token `{}`",
                making.zone, making.token
            ));
        }
        if let Some((id, key)) = self.key_labelled(label)
            && (key.collides_with.is_none() || key.published)
        {
            return forbidden(format!("`{label}` is key {id} of {zone}, which is in use"));
        }
        let open = self
            .open_intents()
            .find(|(_, other)| matches!(other, Operation::Destroy { label: l, .. } if l == label));
        match open {
            Some((line, _)) => forbidden(format!("line {line} destroys `{label}` already")),
            None => Ok(()),
        }
    }

    /// Judges whether `next` may be the founding from now on: whole, of the same appliance, and such
    /// that every key there is stays what it is, where it is.
    pub fn may_follow(&self, next: &LabFounding) -> Result<(), FoundingError> {
        next.check()?;
        let Some((_, now)) = self.founding() else { return Ok(()) };
        let refuse = |why: String| Err(FoundingError::Change(why));
        if now.appliance != next.appliance {
            return refuse(format!(
                "the appliance is `{}` and can't become `{}`; a new appliance has a new state_dir",
                now.appliance, next.appliance
            ));
        }
        for (name, token) in &next.token {
            let before = now.token.get(name).map(|token| token.group.as_str());
            let holds_keys = || self.keys().values().any(|key| Some(key.group.as_str()) == before);
            if before.is_some_and(|group| group != token.group) && holds_keys() {
                return refuse(format!(
                    "token `{name}` would move to the group `{}`, and its keys with it",
                    token.group
                ));
            }
        }
        for (id, key) in self.keys() {
            let Some(policy) = next.policy_of(&key.zone) else { continue };
            let zone = &key.zone;
            if !policy.roles().contains(&key.role) {
                return refuse(format!(
                    "{zone} has a {} ({id}); its new policy has none",
                    key.role
                ));
            }
            if policy.group_for(key.role) != Some(key.group.as_str()) {
                return refuse(format!(
                    "the {} of {zone} ({id}) lives on group `{}` and can't change groups",
                    key.role, key.group
                ));
            }
            if policy.algorithm != key.public.algorithm() {
                return refuse(format!(
                    "key {id} of {zone} is {}; changing to {} takes an algorithm rollover",
                    key.public.algorithm(),
                    policy.algorithm
                ));
            }
        }
        Ok(())
    }
}

fn bound<'a>(founding: &'a LabFounding, zone: &ZoneName) -> Result<&'a SigningPolicy, Denied> {
    founding.policy_of(zone).ok_or_else(|| Denied::Unknown(format!("{zone} is not bound here")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::state::tests::{Lines, generate, zone};

    const NOW: u64 = 1_800_000_000;
    const NONCE: &str = "000102030405060708090a0b0c0d0e0f";

    fn sign(keys: &[KeyId], signer: KeyId) -> Operation {
        let policy = crate::signing::example();
        Operation::SignDnskey {
            zone: zone(),
            keys: keys.iter().copied().collect::<BTreeSet<_>>(),
            signer,
            ttl_s: policy.dnskey_ttl_s,
            inception: NOW as u32 - policy.inception_offset_s,
            expiration: NOW as u32 + policy.validity_s,
        }
    }

    fn check(lines: &Lines, operation: &Operation, expect: &str) {
        match lines.state.allows(operation, 0, NOW) {
            Ok(()) => assert_eq!(expect, "allowed", "{operation:?}"),
            Err(denied) => assert!(denied.to_string().contains(expect), "{denied} / {expect}"),
        }
    }

    #[test]
    fn keys_are_made_once_where_the_founding_says() {
        let mut lines = Lines::founded();
        check(&lines, &generate(KeyRole::Ksk, NONCE), "allowed");
        check(&lines, &generate(KeyRole::Csk, NONCE), "has no CSK");
        check(&lines, &generate(KeyRole::Ksk, "00"), "a nonce is 16 octets");
        let Operation::Generate { zone, role, nonce, .. } = generate(KeyRole::Ksk, NONCE) else {
            panic!("generate")
        };
        let elsewhere = |token: &str| Operation::Generate {
            zone: zone.clone(),
            role,
            token: token.to_owned(),
            nonce: nonce.clone(),
        };
        check(&lines, &elsewhere("zsk-a"), "not of the group that holds KSKs");
        check(&lines, &elsewhere("nowhere"), "no token `nowhere`");
        lines.intent(generate(KeyRole::Ksk, NONCE));
        let other = NONCE.replace("00", "ff");
        check(&lines, &generate(KeyRole::Ksk, NONCE), "used before");
        check(&lines, &generate(KeyRole::Ksk, &other), "makes a KSK for example. already");
        lines.key(KeyRole::Zsk, [4; 64]);
        check(&lines, &generate(KeyRole::Zsk, &other), "has a ZSK already");
        assert!(lines.state.allows(&generate(KeyRole::Zsk, &other), 1, NOW).is_err());
    }

    #[test]
    fn a_ksk_signs_exactly_the_zones_keys() {
        let mut lines = Lines::founded();
        let ksk = lines.key(KeyRole::Ksk, [1; 64]);
        let zsk = lines.key(KeyRole::Zsk, [4; 64]);
        let foreign = KeyId([9; 32]);
        check(&lines, &sign(&[ksk, zsk], ksk), "allowed");
        check(&lines, &sign(&[ksk], ksk), "holds exactly its keys");
        check(&lines, &sign(&[ksk, zsk, foreign], ksk), "holds exactly its keys");
        check(&lines, &sign(&[ksk, foreign], ksk), "holds exactly its keys");
        check(&lines, &sign(&[ksk, zsk], zsk), "is a ZSK and does not sign");
        check(&lines, &sign(&[ksk, zsk], foreign), "has no key");
        let mut other_ttl = sign(&[ksk, zsk], ksk);
        if let Operation::SignDnskey { ttl_s, .. } = &mut other_ttl {
            *ttl_s += 1;
        }
        check(&lines, &other_ttl, "has a TTL of 3600");
        let conflict = crate::ledger::Entry::KeyConflict {
            key: zsk,
            token: "zsk-a".to_owned(),
            found: "another key".to_owned(),
        };
        lines.add(conflict).expect("conflict");
        check(&lines, &sign(&[ksk, zsk], ksk), "answers for it with another key");
        lines.add(crate::ledger::Entry::KeyCleared { key: zsk }).expect("cleared");
        check(&lines, &sign(&[ksk, zsk], ksk), "allowed");
    }

    #[test]
    fn keys_in_use_are_never_destroyed() {
        let mut lines = Lines::founded();
        let ksk = lines.key(KeyRole::Ksk, [1; 64]);
        let label = lines.state.keys()[&ksk].label.clone();
        let destroy = |token: &str, label: &str| Operation::Destroy {
            zone: zone(),
            token: token.to_owned(),
            label: label.to_owned(),
        };
        check(&lines, &destroy("ksk-a", &label), "which is in use");
        check(&lines, &destroy("ksk-a", "somebody-elses"), "never made");
        lines.intent(generate(KeyRole::Zsk, NONCE));
        let orphan = generation_label(KeyRole::Zsk, &zone(), NONCE);
        check(&lines, &destroy("zsk-a", &orphan), "allowed");
        check(&lines, &destroy("ksk-a", &orphan), "was made for example. on token `zsk-a`");
        lines.intent(destroy("zsk-a", &orphan));
        check(&lines, &destroy("zsk-a", &orphan), "already");
    }

    #[test]
    fn validity_is_judged_by_the_clock() {
        let policy = crate::signing::example();
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

    #[test]
    fn a_founding_grows_and_keeps_what_there_is() {
        let mut lines = Lines::founded();
        lines.key(KeyRole::Ksk, [1; 64]);
        lines.key(KeyRole::Zsk, [4; 64]);
        let check = |change: &dyn Fn(&mut LabFounding), expect: &str| {
            let mut next = crate::founding::example();
            change(&mut next);
            match lines.state.may_follow(&next) {
                Ok(()) => assert_eq!(expect, "allowed"),
                Err(error) => assert!(error.to_string().contains(expect), "{error}"),
            }
        };
        check(&|_| {}, "allowed");
        let other: ZoneName = "other.".parse().expect("name");
        check(
            &|f| {
                let binding = f.zone[&zone()].clone();
                f.zone.insert(other.clone(), binding);
            },
            "allowed",
        );
        check(&|f| f.zone.clear(), "allowed");
        let default = |f: &mut LabFounding| f.policy.get_mut("default").cloned().expect("policy");
        check(
            &|f| {
                let mut policy = default(f);
                policy.validity_s += 60;
                f.policy.insert("default".to_owned(), policy);
            },
            "allowed",
        );
        check(&|f| f.appliance = "lab-2".to_owned(), "can't become");
        check(
            &|f| {
                let mut policy = default(f);
                (policy.keys, policy.zsk_group) = (crate::signing::KeySplit::Csk, None);
                f.policy.insert("default".to_owned(), policy);
            },
            "its new policy has none",
        );
        check(
            &|f| {
                let mut policy = default(f);
                policy.algorithm = crate::Algorithm::Ed25519;
                f.policy.insert("default".to_owned(), policy);
            },
            "algorithm rollover",
        );
        check(
            &|f| {
                let mut policy = default(f);
                policy.ksk_group = "new".to_owned();
                f.policy.insert("default".to_owned(), policy);
                f.token.get_mut("ksk-a").expect("token").group = "new".to_owned();
            },
            "would move to the group `new`",
        );
    }
}
