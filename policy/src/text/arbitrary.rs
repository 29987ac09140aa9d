//! Values of all that texts say: a fixed one of each for tests that people read, and strategies.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::{PLAIN_BYTES_MAX, TIME_S_MAX};
use crate::algorithm::Algorithm;
use crate::checkpoint::AuditKey;
use crate::ds::DsDigest;
use crate::founding::{ForeignKey, Founding, TokenIdentity};
use crate::instance::InstanceId;
use crate::key::{KeyId, KeyRole, PublicKey};
use crate::motion::{Motion, MotionKind, Scope};
use crate::name::ZoneName;
use crate::officer::{KEYS_MAX, Officer, OfficerKey, PersonName, Role, Roster};
use crate::rule::{Group, RecoveryRule, Rule, Rules};
use crate::signing::{Denial, DnskeyApproval, KeySplit, SerialPolicy, SigningPolicy};
use crate::ssh::SshKey;
use crate::statement::{Freeze, REASON_BYTES_MAX, Statement, Verb, Verdict, Withdrawal};
use crate::tree::{Hash, TreeHead};

/// The Ed25519 key of a seed, as OpenSSH has it.
pub(crate) fn ssh_key(seed: u8, security_key: bool) -> SshKey {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("seed");
    let (name, application): (&[u8], &[&[u8]]) = if security_key {
        (b"sk-ssh-ed25519@openssh.com", &[b"ssh:"])
    } else {
        (b"ssh-ed25519", &[])
    };
    let mut blob = Vec::new();
    for part in [name, pair.public_key().as_ref()].iter().chain(application) {
        blob.extend_from_slice(&u32::try_from(part.len()).expect("short").to_be_bytes());
        blob.extend_from_slice(part);
    }
    SshKey::from_blob(&blob).expect("key")
}

pub(crate) fn person(name: &str) -> PersonName {
    name.parse().expect("name")
}

pub(crate) fn officer(role: Role, seeds: &[u8]) -> Officer {
    let key = |seed| OfficerKey { ssh: ssh_key(seed, false), verify_required: false };
    Officer { role, keys: seeds.iter().copied().map(key).collect() }
}

/// An operator, three key officers, three policy officers and an auditor.
pub(crate) fn roster() -> Roster {
    let people = [
        ("olga", Role::Operator),
        ("alice", Role::KeyOfficer),
        ("bob", Role::KeyOfficer),
        ("carol", Role::KeyOfficer),
        ("dave", Role::PolicyOfficer),
        ("erin", Role::PolicyOfficer),
        ("frank", Role::PolicyOfficer),
        ("grace", Role::Auditor),
    ];
    let officers = people.iter().zip(1..);
    Roster(officers.map(|((name, role), seed)| (person(name), officer(*role, &[seed]))).collect())
}

/// Two key officers for what is about keys, two policy officers for the rest.
pub(crate) fn rules() -> Rules {
    let rule = |kind: MotionKind| {
        let role = if kind.is_about_keys() { Role::KeyOfficer } else { Role::PolicyOfficer };
        (kind, Rule(vec![Group { persons: 2, roles: [role].into() }]))
    };
    Rules(MotionKind::all().map(rule).collect())
}

pub(crate) fn audit_key() -> AuditKey {
    let public = PublicKey::new(Algorithm::EcdsaP256Sha256, &[0x5a; 64]).expect("key");
    AuditKey::new(public).expect("audit key")
}

pub(crate) fn token(group: &str) -> TokenIdentity {
    TokenIdentity {
        label: format!("Countersign {group}"),
        serial: "1f00ba4".to_owned(),
        group: group.to_owned(),
        data_objects: true,
    }
}

pub(crate) fn founding() -> Founding {
    let zsk = TokenIdentity { serial: "cafe02".to_owned(), data_objects: false, ..token("zsk") };
    let foreign = |label: &str, id: &str| ForeignKey {
        token: "ksk-a".to_owned(),
        label: label.to_owned(),
        id: id.to_owned(),
    };
    Founding {
        name: "signer-1.dc-east".to_owned(),
        time: 1_795_575_600,
        nonce: [0x11; 16],
        audit_token: "ksk-a".to_owned(),
        audit_key: audit_key(),
        tokens: [("ksk-a".to_owned(), token("ksk")), ("zsk-a".to_owned(), zsk)].into(),
        foreign: vec![foreign("", ""), foreign("ODS Schl\u{fc}ssel 7", "00ff")],
        clock_days: 7,
        roster: roster(),
        rules: rules(),
        recovery: None,
    }
}

pub(crate) fn zones(names: &[&str]) -> BTreeSet<ZoneName> {
    names.iter().map(|name| name.parse().expect("name")).collect()
}

/// One motion of each sort.
pub(crate) fn motions() -> Vec<Motion> {
    let zone: ZoneName = "example.".parse().expect("name");
    let key = KeyId([0xab; 32]);
    let keys: BTreeSet<KeyId> = [KeyId([1; 32]), key].into();
    let digests: BTreeSet<DsDigest> = [DsDigest::Sha256, DsDigest::Sha384].into();
    let verified = OfficerKey { ssh: ssh_key(12, true), verify_required: true };
    let mut eve = officer(Role::KeyOfficer, &[11]);
    eve.keys.insert(verified);
    let recovery = RecoveryRule { persons: 3, delay_s: 172_800 };
    let mut mixed = rules();
    let both = [Role::KeyOfficer, Role::PolicyOfficer];
    let group = |persons, roles: &[Role]| Group { persons, roles: roles.iter().copied().collect() };
    mixed.0.insert(MotionKind::Thaw, Rule(vec![group(2, &both)]));
    let two = vec![group(2, &[Role::KeyOfficer]), group(1, &[Role::PolicyOfficer])];
    mixed.0.insert(MotionKind::DeleteDs, Rule(two));
    let (name, token_name) = ("default".to_owned(), "ksk-b".to_owned());
    vec![
        Motion::ChangeOfficers {
            version: 2,
            retire: [person("bob")].into(),
            enrol: [(person("eve"), eve)].into(),
        },
        Motion::ChangeRules { version: 2, rules: mixed, recovery: Some(recovery) },
        Motion::SetPolicy { name: name.clone(), version: 1, policy: crate::testing::policy() },
        Motion::BindZone { zones: zones(&["example.", "a\\.b.example."]), policy: name },
        Motion::UnbindZone { zones: zones(&["example."]) },
        Motion::GenerateKey {
            zones: zones(&["example.", "example.org."]),
            role: KeyRole::Ksk,
            activate: true,
        },
        Motion::AdoptKey {
            zone: zone.clone(),
            role: KeyRole::Csk,
            token: token_name.clone(),
            key,
            activate: false,
        },
        Motion::ActivateKey { zone: zone.clone(), key },
        Motion::RetireKey { zone: zone.clone(), key },
        Motion::DestroyKey { zone: zone.clone(), key },
        Motion::SignDnskeySet { zone: zone.clone(), keys: keys.clone() },
        Motion::ExportDs { zone: zone.clone(), keys: keys.clone(), digests: digests.clone() },
        Motion::PublishCds { zone: zone.clone(), keys, digests },
        Motion::DeleteDs { zone: zone.clone() },
        Motion::AttachToken { name: token_name.clone(), identity: token("ksk") },
        Motion::MoveAppliance { from: instance(0xb1), to: instance(0xb2) },
        Motion::ReplaceAuditKey { token: token_name, key: audit_key() },
        Motion::RaiseTimeFloor { to: 1_795_575_600 },
        Motion::Thaw { scope: Scope::Zone(zone) },
        Motion::NewOrigin {
            lost: TreeHead { size: 40, root: Hash([4; 32]) },
            officers: 3,
            rules: 2,
        },
    ]
}

fn instance(octet: u8) -> InstanceId {
    InstanceId(Hash([octet; 32]))
}

pub(crate) fn statement(motion: Motion) -> Statement {
    Statement {
        appliance: Hash([0xa0; 32]),
        checkpoint: TreeHead { size: 12, root: Hash([0xc0; 32]) },
        depends: Hash([0xde; 32]),
        proposer: person("olga"),
        motion,
        nonce: [0x22; 16],
        not_before: 1_795_575_600,
        not_after: 1_796_180_400,
        finish_by: 1_796_785_200,
    }
}

pub(crate) fn verdict(verb: Verb) -> Verdict {
    Verdict {
        verb,
        officer: person("alice"),
        checkpoint: TreeHead { size: 13, root: Hash([0xc1; 32]) },
        statement: statement(motions().swap_remove(MotionKind::GenerateKey as usize)),
    }
}

pub(crate) fn withdrawal() -> Withdrawal {
    let statement = verdict(Verb::Approve).statement.hash();
    Withdrawal { appliance: Hash([0xa0; 32]), officer: person("olga"), statement }
}

pub(crate) fn freeze() -> Freeze {
    Freeze {
        appliance: Hash([0xa0; 32]),
        officer: person("grace"),
        scope: Scope::All,
        reason: "rack 7 was opened at night, 100% sure".to_owned(),
        nonce: [0x33; 16],
        not_after: 1_795_662_000,
    }
}

fn any_person() -> impl Strategy<Value = PersonName> {
    "[a-z][a-z0-9-]{0,31}".prop_map(|name| person(&name))
}

fn any_plain() -> impl Strategy<Value = String> {
    let char_of_name =
        proptest::char::ranges(vec!['a'..='z', '0'..='9', '-'..='.', '_'..='_'].into());
    vec(char_of_name, 1..=PLAIN_BYTES_MAX).prop_map(String::from_iter)
}

fn any_zone() -> impl Strategy<Value = ZoneName> {
    vec(vec(any::<u8>(), 1..24), 0..8).prop_map(|labels| {
        let mut wire = Vec::new();
        for label in labels {
            wire.push(u8::try_from(label.len()).expect("short"));
            wire.extend(label);
        }
        wire.push(0);
        ZoneName::from_wire(&wire).expect("wire")
    })
}

fn any_zones() -> impl Strategy<Value = BTreeSet<ZoneName>> {
    btree_set(any_zone(), 1..6)
}

fn any_hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash)
}

fn any_head() -> impl Strategy<Value = TreeHead> {
    (any::<u64>(), any_hash()).prop_map(|(size, root)| TreeHead { size, root })
}

fn any_time() -> impl Strategy<Value = u64> {
    0..=TIME_S_MAX
}

fn any_key() -> impl Strategy<Value = KeyId> {
    any::<[u8; 32]>().prop_map(KeyId)
}

fn any_role() -> impl Strategy<Value = KeyRole> {
    prop_oneof![Just(KeyRole::Ksk), Just(KeyRole::Zsk), Just(KeyRole::Csk)]
}

fn any_digests() -> impl Strategy<Value = BTreeSet<DsDigest>> {
    btree_set(prop_oneof![Just(DsDigest::Sha256), Just(DsDigest::Sha384)], 1..=2)
}

fn any_officers(
    count: impl Into<proptest::collection::SizeRange>,
) -> impl Strategy<Value = BTreeMap<PersonName, Officer>> {
    let key = (any::<u8>(), any::<bool>(), any::<bool>()).prop_map(|(seed, sk, verify)| {
        OfficerKey { ssh: ssh_key(seed, sk), verify_required: verify }
    });
    let officer = (proptest::sample::select(Role::ALL.to_vec()), btree_set(key, 1..=KEYS_MAX))
        .prop_map(|(role, keys)| Officer { role, keys });
    btree_map(any_person(), officer, count)
}

fn any_rules() -> impl Strategy<Value = (Rules, Option<RecoveryRule>)> {
    let roles = btree_set(proptest::sample::select(Role::ALL.to_vec()), 1..=3);
    let group = (any::<u8>(), roles).prop_map(|(persons, roles)| Group { persons, roles });
    let rule = vec(group, 1..=3).prop_map(Rule);
    let rules = vec(rule, MotionKind::all().count())
        .prop_map(|rules| Rules(MotionKind::all().zip(rules).collect()));
    let recovery = (any::<u8>(), any::<u64>())
        .prop_map(|(persons, delay_s)| RecoveryRule { persons, delay_s });
    (rules, option::of(recovery))
}

fn any_token() -> impl Strategy<Value = TokenIdentity> {
    (any::<String>(), any::<String>(), any_plain(), any::<bool>()).prop_map(
        |(label, serial, group, data_objects)| TokenIdentity { label, serial, group, data_objects },
    )
}

fn any_audit_key() -> impl Strategy<Value = AuditKey> {
    (any::<bool>(), any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|(ed25519, a, b)| {
        let public = if ed25519 {
            PublicKey::new(Algorithm::Ed25519, &a)
        } else {
            PublicKey::new(Algorithm::EcdsaP256Sha256, &[a, b].concat())
        };
        AuditKey::new(public.expect("key")).expect("audit key")
    })
}

fn any_policy() -> impl Strategy<Value = SigningPolicy> {
    let words = (
        prop_oneof![
            Just(Algorithm::RsaSha256),
            Just(Algorithm::EcdsaP256Sha256),
            Just(Algorithm::EcdsaP384Sha384),
            Just(Algorithm::Ed25519)
        ],
        prop_oneof![Just(KeySplit::KskZsk), Just(KeySplit::Csk)],
        prop_oneof![Just(Denial::Nsec), Just(Denial::Nsec3), Just(Denial::Nsec3OptOut)],
        prop_oneof![
            Just(SerialPolicy::Keep),
            Just(SerialPolicy::Increment),
            Just(SerialPolicy::Unixtime),
            Just(SerialPolicy::DateCounter)
        ],
        prop_oneof![Just(DnskeyApproval::Standing), Just(DnskeyApproval::PerSet)],
    );
    let groups = (any_plain(), option::of(any_plain()), option::of(any::<u16>()));
    (words, groups, any::<[u32; 5]>()).prop_map(|(words, groups, times)| {
        let (algorithm, keys, denial, serial, approval) = words;
        let (ksk_group, zsk_group, rsa_bits) = groups;
        let [dnskey_ttl_s, ttl_max_s, validity_s, refresh_s, inception_offset_s] = times;
        SigningPolicy {
            algorithm,
            rsa_bits,
            keys,
            ksk_group,
            zsk_group,
            denial,
            serial,
            dnskey_ttl_s,
            ttl_max_s,
            validity_s,
            refresh_s,
            inception_offset_s,
            approval,
        }
    })
}

fn any_scope() -> impl Strategy<Value = Scope> {
    prop_oneof![Just(Scope::All), any_zone().prop_map(Scope::Zone)]
}

fn any_motion() -> impl Strategy<Value = Motion> {
    let (zone, key) = (any_zone, any_key);
    let keys = || btree_set(any_key(), 1..5);
    let officers = (any::<u64>(), btree_set(any_person(), 0..3), any_officers(0..3))
        .prop_filter("somebody comes or goes", |(_, out, new)| !(out.is_empty() && new.is_empty()));
    prop_oneof![
        officers.prop_map(|(version, retire, enrol)| Motion::ChangeOfficers {
            version,
            retire,
            enrol
        }),
        (any::<u64>(), any_rules()).prop_map(|(version, (rules, recovery))| {
            Motion::ChangeRules { version, rules, recovery }
        }),
        (any_plain(), any::<u64>(), any_policy())
            .prop_map(|(name, version, policy)| Motion::SetPolicy { name, version, policy }),
        (any_zones(), any_plain()).prop_map(|(zones, policy)| Motion::BindZone { zones, policy }),
        any_zones().prop_map(|zones| Motion::UnbindZone { zones }),
        (any_zones(), any_role(), any::<bool>())
            .prop_map(|(zones, role, activate)| Motion::GenerateKey { zones, role, activate }),
        (zone(), any_role(), any_plain(), key(), any::<bool>()).prop_map(
            |(zone, role, token, key, activate)| Motion::AdoptKey {
                zone,
                role,
                token,
                key,
                activate
            }
        ),
        (zone(), key(), 0..3_u8).prop_map(|(zone, key, kind)| match kind {
            0 => Motion::ActivateKey { zone, key },
            1 => Motion::RetireKey { zone, key },
            _ => Motion::DestroyKey { zone, key },
        }),
        (zone(), keys()).prop_map(|(zone, keys)| Motion::SignDnskeySet { zone, keys }),
        (zone(), keys(), any_digests(), any::<bool>()).prop_map(|(zone, keys, digests, cds)| {
            if cds {
                Motion::PublishCds { zone, keys, digests }
            } else {
                Motion::ExportDs { zone, keys, digests }
            }
        }),
        zone().prop_map(|zone| Motion::DeleteDs { zone }),
        (any_plain(), any_token())
            .prop_map(|(name, identity)| Motion::AttachToken { name, identity }),
        (any_hash(), any_hash()).prop_map(|(from, to)| Motion::MoveAppliance {
            from: InstanceId(from),
            to: InstanceId(to)
        }),
        (any_plain(), any_audit_key())
            .prop_map(|(token, key)| Motion::ReplaceAuditKey { token, key }),
        any_time().prop_map(|to| Motion::RaiseTimeFloor { to }),
        any_scope().prop_map(|scope| Motion::Thaw { scope }),
        (any_head(), any::<u64>(), any::<u64>())
            .prop_map(|(lost, officers, rules)| Motion::NewOrigin { lost, officers, rules }),
    ]
}

prop_compose! {
    pub(crate) fn any_statement()(
        appliance in any_hash(),
        checkpoint in any_head(),
        depends in any_hash(),
        proposer in any_person(),
        motion in any_motion(),
        nonce in any::<[u8; 16]>(),
        not_before in any_time(),
        not_after in any_time(),
        finish_by in any_time(),
    ) -> Statement {
        Statement {
            appliance, checkpoint, depends, proposer, motion, nonce, not_before, not_after, finish_by,
        }
    }
}

prop_compose! {
    pub(crate) fn any_verdict()(
        approve in any::<bool>(),
        officer in any_person(),
        checkpoint in any_head(),
        statement in any_statement(),
    ) -> Verdict {
        let verb = if approve { Verb::Approve } else { Verb::Deny };
        Verdict { verb, officer, checkpoint, statement }
    }
}

prop_compose! {
    pub(crate) fn any_withdrawal()(
        appliance in any_hash(), officer in any_person(), statement in any_hash(),
    ) -> Withdrawal {
        Withdrawal { appliance, officer, statement: crate::statement::StatementHash(statement) }
    }
}

prop_compose! {
    pub(crate) fn any_freeze()(
        appliance in any_hash(),
        officer in any_person(),
        scope in any_scope(),
        reason in "[!-~]([ -~]{0,118}[!-~])?",
        nonce in any::<[u8; 16]>(),
        not_after in any_time(),
    ) -> Freeze {
        assert!(reason.len() <= REASON_BYTES_MAX);
        Freeze { appliance, officer, scope, reason, nonce, not_after }
    }
}

prop_compose! {
    pub(crate) fn any_founding()(
        names in (any_plain(), any_plain()),
        time in any_time(),
        nonce in any::<[u8; 16]>(),
        audit_key in any_audit_key(),
        tokens in btree_map(any_plain(), any_token(), 1..4),
        foreign in btree_set((any_plain(), any::<String>(), "([0-9a-f]{2}){0,20}"), 0..4),
        clock_days in any::<u16>(),
        roster in any_officers(0..4),
        rules in any_rules(),
    ) -> Founding {
        let (name, audit_token) = names;
        let (rules, recovery) = rules;
        let key = |(token, label, id)| ForeignKey { token, label, id };
        Founding {
            name,
            time,
            nonce,
            audit_token,
            audit_key,
            tokens,
            foreign: foreign.into_iter().map(key).collect(),
            clock_days,
            roster: Roster(roster),
            rules,
            recovery,
        }
    }
}
