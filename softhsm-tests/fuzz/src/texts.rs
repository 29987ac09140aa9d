//! One text of each kind that officers sign, and a statement of each sort of motion: seeds.

use countersign_policy::checkpoint::AuditKey;
use countersign_policy::ds::DsDigest;
use countersign_policy::founding::{ForeignKey, Founding, TokenIdentity};
use countersign_policy::instance::InstanceId;
use countersign_policy::motion::{Motion, MotionKind, Scope};
use countersign_policy::officer::{Officer, OfficerKey, PersonName, Role, Roster};
use countersign_policy::rule::{Group, RecoveryRule, Rule, Rules};
use countersign_policy::statement::{Freeze, Statement, Verb, Verdict, Withdrawal};
use countersign_policy::tree::{Hash, TreeHead};
use countersign_policy::{KeyRole, ZoneName};

use crate::{apex, policy, zsk};

/// A key of OpenSSH, and one in a FIDO security key.
const KEYS: [&str; 2] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGa+fjMsekUzMr2dCn99sFX1xe8aBq2mbZizn7aBDEc6",
    "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAtROtm0kkAVygkC7QeQRNOsXb7CMG8GlIwQ2o62458tAAAABHNzaDo=",
];

/// Names and texts.
pub fn seeds() -> Vec<(String, String)> {
    let mut seeds = vec![("founding".to_owned(), founding().to_text())];
    for motion in motions() {
        let kind = motion.kind().to_string();
        seeds.push((kind, statement(motion).to_text()));
    }
    let (appliance, officer) = (Hash([0xa0; 32]), person("alice"));
    let statement = statement(Motion::DeleteDs { zone: apex() });
    let about = statement.hash();
    for (name, verb) in [("approval", Verb::Approve), ("denial", Verb::Deny)] {
        let (officer, statement) = (officer.clone(), statement.clone());
        let verdict = Verdict { verb, officer, checkpoint: head(), statement };
        seeds.push((name.to_owned(), verdict.to_text()));
    }
    let withdrawal = Withdrawal { appliance, officer: officer.clone(), statement: about };
    seeds.push(("withdrawal".to_owned(), withdrawal.to_text()));
    let freeze = Freeze {
        appliance,
        officer,
        scope: Scope::Zone(apex()),
        reason: "rack 7 was opened, 100% sure".to_owned(),
        nonce: [3; 16],
        not_after: 1_795_662_000,
    };
    seeds.push(("freeze".to_owned(), freeze.to_text()));
    seeds
}

fn person(name: &str) -> PersonName {
    name.parse().expect("a name")
}

fn head() -> TreeHead {
    TreeHead { size: 12, root: Hash([0xc0; 32]) }
}

fn officer(role: Role) -> Officer {
    let key = |text: &&str| OfficerKey {
        ssh: text.parse().expect("a key"),
        verify_required: text.starts_with("sk-"),
    };
    Officer { role, keys: KEYS.iter().map(key).collect() }
}

fn rules() -> Rules {
    let group = |persons, roles: &[Role]| Group { persons, roles: roles.iter().copied().collect() };
    let rule = |kind: MotionKind| {
        let rule = if kind.is_about_keys() {
            vec![group(2, &[Role::KeyOfficer]), group(1, &[Role::PolicyOfficer])]
        } else {
            vec![group(2, &[Role::KeyOfficer, Role::PolicyOfficer])]
        };
        (kind, Rule(rule))
    };
    Rules(MotionKind::all().map(rule).collect())
}

fn token() -> TokenIdentity {
    TokenIdentity {
        label: "Countersign KSK".to_owned(),
        serial: "1f00ba4".to_owned(),
        group: "ksk".to_owned(),
        data_objects: true,
    }
}

fn audit_key() -> AuditKey {
    AuditKey::new(zsk()).expect("an Ed25519 key")
}

fn founding() -> Founding {
    let foreign = |label: &str, id: &str| ForeignKey {
        token: "ksk-a".to_owned(),
        label: label.to_owned(),
        id: id.to_owned(),
    };
    Founding {
        name: "signer-1".to_owned(),
        time: 1_795_575_600,
        nonce: [1; 16],
        audit_token: "ksk-a".to_owned(),
        audit_key: audit_key(),
        tokens: [("ksk-a".to_owned(), token())].into(),
        foreign: vec![foreign("", ""), foreign("ODS Schl\u{fc}ssel", "00ff")],
        clock_days: 7,
        roster: Roster([(person("alice"), officer(Role::KeyOfficer))].into()),
        rules: rules(),
        recovery: Some(RecoveryRule { persons: 3, delay_s: 172_800 }),
    }
}

fn instance(octet: u8) -> InstanceId {
    InstanceId(Hash([octet; 32]))
}

fn motions() -> Vec<Motion> {
    let (zone, key) = (apex(), zsk().id());
    let zones = || [zone.clone(), ZoneName::from_wire(b"\x03a.b\x00").expect("a name")].into();
    let digests = || [DsDigest::Sha256, DsDigest::Sha384].into();
    let name = || "default".to_owned();
    vec![
        Motion::ChangeOfficers {
            version: 2,
            retire: [person("bob")].into(),
            enrol: [(person("eve"), officer(Role::Recovery))].into(),
        },
        Motion::ChangeRules { version: 2, rules: rules(), recovery: None },
        Motion::SetPolicy { name: name(), version: 1, policy: policy() },
        Motion::BindZone { zones: zones(), policy: name() },
        Motion::UnbindZone { zones: zones() },
        Motion::GenerateKey { zones: zones(), role: KeyRole::Ksk, activate: true },
        Motion::AdoptKey {
            zone: zone.clone(),
            role: KeyRole::Csk,
            token: "ksk-a".to_owned(),
            key,
            activate: false,
        },
        Motion::ActivateKey { zone: zone.clone(), key },
        Motion::RetireKey { zone: zone.clone(), key },
        Motion::DestroyKey { zone: zone.clone(), key },
        Motion::SignDnskeySet { zone: zone.clone(), keys: [key].into() },
        Motion::ExportDs { zone: zone.clone(), keys: [key].into(), digests: digests() },
        Motion::PublishCds { zone: zone.clone(), keys: [key].into(), digests: digests() },
        Motion::DeleteDs { zone: zone.clone() },
        Motion::AttachToken { name: "ksk-b".to_owned(), identity: token() },
        Motion::MoveAppliance { from: instance(1), to: instance(2) },
        Motion::ReplaceAuditKey { token: "ksk-a".to_owned(), key: audit_key() },
        Motion::RaiseTimeFloor { to: 1_795_575_600 },
        Motion::Thaw { scope: Scope::Zone(zone.clone()) },
        Motion::NewOrigin { lost: head(), officers: 3, rules: 2 },
    ]
}

fn statement(motion: Motion) -> Statement {
    Statement {
        appliance: Hash([0xa0; 32]),
        checkpoint: head(),
        depends: Hash([0xde; 32]),
        proposer: person("olga"),
        motion,
        nonce: [2; 16],
        not_before: 1_795_575_600,
        not_after: 1_796_180_400,
        finish_by: 1_796_785_200,
    }
}
