//! What a zone is signed with, as the keeper says it: keys, policy, what approves its DNSKEY RRset
//! for how long, and what it says to its parent. And when that makes what is up due.

use aws_lc_rs::digest;
use countersign_hsm::client::{Client, ClientError};
use countersign_hsm::protocol::{Refusal, RefusalKind, ZoneKeys};
use countersign_policy::signing::SerialPolicy;
use countersign_policy::{KeyRole, ZoneName};
use countersign_zone::cds::CDS_WITHDRAW_S;
use countersign_zone::verify::VerifiedZone;
use countersign_zone::{CdsSet, ZoneKey, ZoneParams};

use super::schedule::{Ending, Failure, FailureKind, Params, Up};
use crate::clock::Civil;

/// What a zone is signed with, and the digests that tell one such from another.
#[derive(Debug, Clone)]
pub(super) struct Signing {
    pub params: ZoneParams,
    pub policy_name: String,
    /// Of all of it.
    pub digest: [u8; 32],
    /// Of all but what is said to the parent.
    pub digest_silent: [u8; 32],
    /// Zones of up to so many records carry a ZONEMD.
    zonemd_records_max: Option<usize>,
}

/// What a version says to the parent of what it may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Saying {
    /// All of it, with signatures made anew in good time.
    Anew,
    /// All of it, with the signatures that are there, for as long as they can serve.
    Kept,
    /// Nothing.
    Nothing,
}

impl Signing {
    /// Asks the keeper.
    pub fn ask(
        keeper: &Client,
        zone: &ZoneName,
        zonemd_records_max: Option<usize>,
        now_s: u64,
    ) -> Result<Self, Failure> {
        let answer = keeper.zone(zone).map_err(|error| not_told(zone, &error))?;
        Self::of(answer, zonemd_records_max, now_s)
    }

    /// Takes the keeper's answer. An approval that is about to end is over for this purpose.
    pub fn of(
        answer: ZoneKeys,
        zonemd_records_max: Option<usize>,
        now_s: u64,
    ) -> Result<Self, Failure> {
        let ZoneKeys { zone, policy_name, policy, keys, dnskey_until, cds } = answer;
        let keys: Vec<ZoneKey> =
            keys.into_iter().map(|key| ZoneKey { role: key.role, public: key.public }).collect();
        if let Some(role) = missing_role(policy.roles(), &keys) {
            return Err(no_key(&zone, role));
        }
        let cds = cds.map(|order| CdsSet {
            cds: order.cds,
            cdnskey: order.cdnskey,
            until_s: order.until,
            validity_s: order.validity_s,
            refresh_s: 0,
        });
        let cds = cds.filter(|set| now_s < set.ends_s(&policy)).map(|set| {
            let refresh_s = set.validity_under(&policy) / 2;
            CdsSet { refresh_s, ..set }
        });
        let keep_dnskey = false;
        let zonemd = zonemd_records_max.is_some();
        let params =
            ZoneParams { apex: zone, policy, keys, dnskey_until, keep_dnskey, cds, zonemd };
        let digest = |speaks| digest_of(&params, speaks, zonemd_records_max);
        let (digest, digest_silent) = (digest(true), digest(false));
        Ok(Self { params, policy_name, digest, digest_silent, zonemd_records_max })
    }

    /// Whether a zone of so many records carries a ZONEMD.
    pub fn makes_zonemd(&self, records: usize) -> bool {
        self.zonemd_records_max.is_some_and(|max| records <= max)
    }

    /// Why a zone of so many records carries none, though it is to.
    pub fn why_no_zonemd(&self, records: usize) -> Option<String> {
        let max = self.zonemd_records_max.filter(|_| !self.makes_zonemd(records))?;
        Some(format!(
            "no ZONEMD is made: the zone has {records} records, and `limits.zonemd_records_max` is {max}"
        ))
    }

    pub fn summary(&self) -> Params {
        let ending = |ends_s: u64| Ending {
            ends_s,
            attention_s: ends_s.saturating_sub(self.params.policy.refresh_s.into()),
        };
        Params {
            digest: self.digest,
            digest_silent: self.digest_silent,
            keep: self.params.policy.serial == SerialPolicy::Keep,
            dnskey: self.params.dnskey_until.map(ending),
        }
    }

    /// The parameters of a version that says this much to the parent.
    pub fn params_saying(&self, saying: Saying) -> ZoneParams {
        let mut params = self.params.clone();
        match (saying, params.cds.as_mut()) {
            (Saying::Nothing, _) => params.cds = None,
            (Saying::Kept, Some(set)) => set.refresh_s = margin_s(set, &params.policy),
            (Saying::Anew, _) | (Saying::Kept, None) => {}
        }
        params
    }

    /// The digest of what such a version is made under.
    pub fn digest_saying(&self, saying: Saying) -> [u8; 32] {
        if saying == Saying::Nothing { self.digest_silent } else { self.digest }
    }

    /// What the schedule needs to know of a version that was made under this.
    pub fn up(
        &self,
        version: &VerifiedZone,
        incoming_serial: u32,
        saying: Saying,
        now_s: u64,
    ) -> Up {
        let at = |time: Option<u32>| time.map(|time| unwrap_time(time, now_s));
        let expirations = version.expirations();
        let (zone, dnskey, cds) =
            (at(expirations.zone), at(expirations.dnskey), at(expirations.cds));
        let refresh_s = u64::from(self.params.policy.refresh_s);
        // One that lasts as long as its approval is not due: none would last longer.
        let until_s = self.params.dnskey_until.unwrap_or(u64::MAX);
        let dnskey = dnskey.filter(|expires_s| *expires_s < until_s);
        let due = [
            zone.map(|expires_s| expires_s.saturating_sub(refresh_s)),
            dnskey.map(|expires_s| expires_s.saturating_sub(refresh_s)),
            cds.map(|expires_s| self.cds_due_s(expires_s, saying)),
        ];
        let expires_s = unwrap_time(version.earliest_expiration(), now_s);
        Up {
            serial: version.serial(),
            incoming_serial,
            expires_s,
            valid_from_s: unwrap_time(version.latest_inception(), now_s),
            refresh_at_s: due.into_iter().flatten().min().unwrap_or(expires_s),
            params: self.digest_saying(saying),
        }
    }

    /// When signatures over CDS and CDNSKEY must be made anew, or both go.
    fn cds_due_s(&self, expires_s: u64, saying: Saying) -> u64 {
        let policy = &self.params.policy;
        let Some(set) = &self.params.cds else { return expires_s };
        let left_s = match saying {
            Saying::Kept => margin_s(set, policy),
            // Nothing is gained by another signature that ends with the approval.
            _ if expires_s >= set.until_s => 0,
            _ => set.refresh_s,
        };
        expires_s.saturating_sub(left_s.into()).min(set.ends_s(policy))
    }
}

/// Signatures over CDS and CDNSKEY with this little left serve no more.
fn margin_s(set: &CdsSet, policy: &countersign_policy::SigningPolicy) -> u32 {
    CDS_WITHDRAW_S.min(set.validity_under(policy) / 8)
}

/// A role that the policy asks for and no key has.
fn missing_role(roles: &[KeyRole], keys: &[ZoneKey]) -> Option<KeyRole> {
    roles.iter().copied().find(|role| !keys.iter().any(|key| key.role == *role))
}

/// ZSKs are the keeper's to make; the others are officers' to decide on.
fn no_key(zone: &ZoneName, role: KeyRole) -> Failure {
    if role == KeyRole::Zsk {
        let why =
            "which the keeper makes by itself; see its notices in `countersign daemon status`";
        return Failure::new(FailureKind::Keeper, format!("{zone} waits for its ZSK, {why}"));
    }
    Failure::new(
        FailureKind::Officers,
        format!("{zone} waits for its {role}: none is active. {PROPOSE_KEY}"),
    )
}

const PROPOSE_KEY: &str = "Propose one with `countersign propose generate-key`, and its use with `countersign propose activate-key`";

/// Why the keeper does not say what a zone is signed with. What it does not know or allow is for
/// officers to decide.
fn not_told(zone: &ZoneName, error: &ClientError) -> Failure {
    let ClientError::Refused(Refusal { kind, detail }) = error else {
        return keeper_failure(error);
    };
    match kind {
        RefusalKind::NoKey => Failure::new(
            FailureKind::Officers,
            format!("{zone} waits for its KSK or CSK: {detail}. {PROPOSE_KEY}"),
        ),
        RefusalKind::Unknown | RefusalKind::Forbidden => {
            Failure::new(FailureKind::Officers, detail)
        }
        _ => keeper_failure(error),
    }
}

/// A version made under one digest serves under no other.
fn digest_of(params: &ZoneParams, speaks: bool, zonemd_records_max: Option<usize>) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    // A policy is a struct of names and numbers: it always serialises, fields in their order.
    context.update(&serde_json::to_vec(&params.policy).unwrap_or_default());
    for key in &params.keys {
        context.update(&key.public.id().0);
        context.update(&key.role.flags().to_be_bytes());
    }
    if let Some(until_s) = params.dnskey_until {
        context.update(b"dnskey until");
        context.update(&until_s.to_be_bytes());
    }
    if let Some(set) = params.cds.as_ref().filter(|_| speaks) {
        context.update(b"cds until");
        context.update(&set.until_s.to_be_bytes());
        context.update(&set.validity_s.to_be_bytes());
        for rdatas in [&set.cds, &set.cdnskey] {
            context.update(&(rdatas.len() as u64).to_be_bytes());
            for rdata in rdatas {
                context.update(&(rdata.len() as u64).to_be_bytes());
                context.update(rdata);
            }
        }
    }
    // The setting, not what came of it: how large the zone is, is not known here.
    if let Some(max) = zonemd_records_max {
        context.update(b"zonemd");
        context.update(&(max as u64).to_be_bytes());
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

pub(super) fn keeper_failure(error: &ClientError) -> Failure {
    Failure::new(FailureKind::Keeper, error)
}

/// The whole of an RRSIG time, which is modulo 2^32 (RFC 4034 §3.1.5): the one nearest to now.
pub(super) fn unwrap_time(time: u32, now_s: u64) -> u64 {
    let ahead = time.wrapping_sub(now_s as u32).cast_signed();
    now_s.saturating_add_signed(ahead.into())
}

/// Why a version says nothing to the parent, or says it with old signatures.
pub(super) fn withheld(signing: &Signing, why: impl std::fmt::Display) -> Failure {
    let until = signing.params.cds.as_ref().map(|set| Civil::of(set.until_s));
    let until = until.map_or_else(String::new, |until| format!(" (approved until {until})"));
    Failure::new(FailureKind::Cds, format!("CDS and CDNSKEY{until} can't be signed: {why}"))
}

#[cfg(test)]
mod tests {
    use countersign_hsm::protocol::{CdsOrder, KeyInfo};
    use countersign_policy::signing::{Denial, DnskeyApproval, KeySplit};
    use countersign_policy::{Algorithm, PublicKey, SigningPolicy};

    use super::*;

    const NOW_S: u64 = 1_795_564_266;

    fn key(role: KeyRole, fill: u8) -> KeyInfo {
        let public = PublicKey::new(Algorithm::Ed25519, &[fill; 32]).expect("shape");
        KeyInfo { role, public, proven_by: vec![], unusable: None }
    }

    fn answer() -> ZoneKeys {
        let order = CdsOrder {
            cds: vec![vec![0; 5]],
            cdnskey: vec![vec![0, 0, 3, 0, 0]],
            until: NOW_S + 86_400,
            validity_s: 3 * 86_400,
        };
        ZoneKeys {
            zone: "example.".parse().expect("name"),
            policy_name: "p".to_owned(),
            policy: SigningPolicy {
                algorithm: Algorithm::Ed25519,
                rsa_bits: None,
                keys: KeySplit::KskZsk,
                ksk_group: "ksk".to_owned(),
                zsk_group: Some("zsk".to_owned()),
                denial: Denial::Nsec,
                serial: SerialPolicy::Unixtime,
                dnskey_ttl_s: 3_600,
                ttl_max_s: 3_600,
                validity_s: 14 * 86_400,
                refresh_s: 7 * 86_400,
                inception_offset_s: 3_600,
                approval: DnskeyApproval::Standing,
            },
            keys: vec![key(KeyRole::Ksk, 1), key(KeyRole::Zsk, 2)],
            dnskey_until: None,
            cds: Some(order),
        }
    }

    fn signing(change: impl FnOnce(&mut ZoneKeys)) -> Signing {
        let mut answer = answer();
        change(&mut answer);
        Signing::of(answer, None, NOW_S).expect("taken")
    }

    #[test]
    fn whatever_a_version_depends_on_changes_its_digest() {
        let before = signing(|_| {});
        let changes: [fn(&mut ZoneKeys); 8] = [
            |a| a.policy.validity_s += 1,
            |a| a.keys[0] = key(KeyRole::Ksk, 3),
            |a| a.dnskey_until = Some(NOW_S + 1),
            |a| a.cds = None,
            |a| a.cds.as_mut().expect("there").until += 1,
            |a| a.cds.as_mut().expect("there").validity_s -= 1,
            |a| a.cds.as_mut().expect("there").cds.clear(),
            |a| a.cds.as_mut().expect("there").cdnskey[0].push(0),
        ];
        let mut seen = vec![before.digest];
        for (at, change) in changes.into_iter().enumerate() {
            let after = signing(change);
            assert!(!seen.contains(&after.digest), "change {at}");
            seen.push(after.digest);
            assert_eq!(after.digest_silent == before.digest_silent, at >= 3, "change {at}");
        }
        let silent = signing(|a| a.cds = None);
        assert_eq!(silent.digest, silent.digest_silent);
        assert_eq!(before.digest_saying(Saying::Nothing), silent.digest);
        assert_eq!(before.digest_saying(Saying::Kept), before.digest);
        assert_eq!(before.params_saying(Saying::Nothing), silent.params);
    }

    #[test]
    fn switching_zonemd_signs_anew_and_its_bound_holds() {
        let with = |max| Signing::of(answer(), max, NOW_S).expect("taken");
        let digests = [None, Some(10), Some(11)].map(|max| with(max).digest);
        assert!(digests[0] != digests[1] && digests[1] != digests[2]);
        let makes = [None, Some(9), Some(10)].map(|max| with(max).makes_zonemd(10));
        assert_eq!(makes, [false, false, true]);
    }

    #[test]
    fn an_approval_that_is_about_to_end_is_over() {
        let until = |left_s: u64| {
            move |a: &mut ZoneKeys| {
                a.cds.as_mut().expect("there").until = NOW_S + left_s;
            }
        };
        assert!(signing(until(3_601)).params.cds.is_some());
        assert!(signing(until(3_600)).params.cds.is_none());
        assert_eq!(signing(until(0)).digest, signing(|a| a.cds = None).digest);
    }

    #[test]
    fn signatures_over_cds_are_made_anew_at_half() {
        let set = |saying| signing(|_| {}).params_saying(saying).cds.expect("a set");
        assert_eq!(set(Saying::Anew).refresh_s, 36 * 3_600);
        assert_eq!(set(Saying::Kept).refresh_s, 3_600);
    }

    #[test]
    fn a_zone_without_a_key_waits_for_it() {
        let wait = |change: fn(&mut ZoneKeys)| {
            let mut answer = answer();
            change(&mut answer);
            let failure = Signing::of(answer, None, NOW_S).expect_err("no key");
            (failure.kind, failure.detail)
        };
        let (kind, text) = wait(|a| a.keys.retain(|key| key.role != KeyRole::Ksk));
        assert_eq!(kind, FailureKind::Officers);
        assert!(text.starts_with("example. waits for its KSK: none is active. Propose"), "{text}");
        let (kind, text) = wait(|a| a.keys.clear());
        assert!(kind == FailureKind::Officers && text.contains("its KSK"), "{text}");
        let (kind, text) = wait(|a| a.keys.retain(|key| key.role != KeyRole::Zsk));
        assert!(kind == FailureKind::Keeper && text.contains("its ZSK"), "{text}");
    }

    #[test]
    fn what_officers_must_decide_is_told_from_what_fails() {
        let kind_of = |kind| {
            let detail = "example. is not bound here; it takes a bind-zone motion".to_owned();
            let zone = "example.".parse().expect("name");
            let failure = not_told(&zone, &ClientError::Refused(Refusal { kind, detail }));
            assert!(failure.detail.contains("is not bound here"), "{}", failure.detail);
            failure.kind
        };
        for kind in [RefusalKind::NoKey, RefusalKind::Unknown, RefusalKind::Forbidden] {
            assert_eq!(kind_of(kind), FailureKind::Officers, "{kind}");
        }
        for kind in [RefusalKind::HsmUnavailable, RefusalKind::LedgerUnavailable, RefusalKind::Busy]
        {
            assert_eq!(kind_of(kind), FailureKind::Keeper, "{kind}");
        }
    }

    #[test]
    fn rrsig_times_are_those_nearest_to_now() {
        let turn = 1_u64 << 32;
        for (time, now_s, expect) in [
            (100, 50, 100),
            (50, 100, 50),
            (5, turn - 5, turn + 5),
            (u32::MAX, turn + 5, turn - 1),
            (u32::MAX, 5, 0),
        ] {
            assert_eq!(unwrap_time(time, now_s), expect, "{time} {now_s}");
        }
    }
}
