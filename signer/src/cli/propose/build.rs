//! From a command's options to the motion: what people leave out is taken from the ledger, or from the
//! keeper's survey where the ledger can't know it.

use std::collections::{BTreeMap, BTreeSet};

use countersign_hsm::protocol::Mode;
use countersign_policy::checkpoint::AuditKey;
use countersign_policy::ds::DsDigest;
use countersign_policy::founding::TokenIdentity;
use countersign_policy::instance::InstanceId;
use countersign_policy::key::{PublicKey, from_hex};
use countersign_policy::key_state::Stage;
use countersign_policy::motion::{Motion, Scope};
use countersign_policy::officer::{Officer, OfficerKey, PersonName};
use countersign_policy::rule::{RecoveryRule, Rule};
use countersign_policy::signing::KeySplit;
use countersign_policy::ssh::{KEY_TEXT_BYTES_MAX, SshKey};
use countersign_policy::state::LedgerState;
use countersign_policy::{Algorithm, KeyId, SigningPolicy, ZoneName};
use serde::de::DeserializeOwned;

use super::{Kind, Officers, OneKey, Parent, PolicyArgs};
use crate::cli::end::Stop;
use crate::cli::rules::{self, Which};
use crate::cli::view::{View, keeper_stop};
use crate::cli::{desk, files};

/// A `.pub` file: a key and a comment.
const PUB_FILE_BYTES_MAX: usize = KEY_TEXT_BYTES_MAX + 1024;
/// A policy's file has 13 lines.
const POLICY_FILE_BYTES_MAX: usize = 16 << 10;
/// In front of a key's file: its signatures need a PIN or a finger.
const VERIFY_REQUIRED: &str = "verify-required:";

/// The motion that the options describe.
pub(super) fn motion(kind: Kind, view: &mut View, now_s: u64) -> Result<Motion, Stop> {
    let state = &view.ledger.state;
    Ok(match kind {
        Kind::ChangeOfficers(officers) => change_officers(state, officers)?,
        Kind::ChangeRules { rule, recovery, no_recovery } => {
            change_rules(state, rule, recovery, no_recovery)
        }
        Kind::SetPolicy(args) => set_policy(state, *args)?,
        Kind::BindZone { zone, policy } => Motion::BindZone { zones: set(zone), policy },
        Kind::UnbindZone { zone } => Motion::UnbindZone { zones: set(zone) },
        Kind::GenerateKey { zone, role, activate } => {
            Motion::GenerateKey { zones: set(zone), role, activate }
        }
        Kind::AdoptKey { zone, role, token, key, activate } => {
            // It is not the ledger's yet, so it has to be named in full.
            let key = key.parse().map_err(|error| Stop::usage(format!("--key {key}: {error}")))?;
            Motion::AdoptKey { zone, role, token, key, activate }
        }
        Kind::ActivateKey(one) => {
            let (zone, key) = key_of(state, one)?;
            Motion::ActivateKey { zone, key }
        }
        Kind::RetireKey(one) => {
            let (zone, key) = key_of(state, one)?;
            Motion::RetireKey { zone, key }
        }
        Kind::DestroyKey(one) => {
            let (zone, key) = key_of(state, one)?;
            Motion::DestroyKey { zone, key }
        }
        Kind::SignDnskeySet { zone, key } => {
            let keys = keys_of(state, &zone, &key)?;
            Motion::SignDnskeySet { zone, keys }
        }
        Kind::ExportDs(parent) => {
            let (zone, keys, digests) = for_parent(state, parent)?;
            Motion::ExportDs { zone, keys, digests }
        }
        Kind::PublishCds(parent) => {
            let (zone, keys, digests) = for_parent(state, parent)?;
            Motion::PublishCds { zone, keys, digests }
        }
        Kind::DeleteDs { zone } => Motion::DeleteDs { zone },
        Kind::AttachToken { name, group, label, serial, data_objects } => {
            attach_token(view, name, group, (label, serial, data_objects))?
        }
        Kind::MoveAppliance { from, to } => move_appliance(view, from, to)?,
        Kind::ReplaceAuditKey { token, key } => replace_audit_key(view, token, key)?,
        Kind::RaiseTimeFloor { to } => {
            Motion::RaiseTimeFloor { to: to.map_or(now_s, |moment| moment.at(now_s)) }
        }
        Kind::Thaw { zone } => Motion::Thaw { scope: zone.map_or(Scope::All, Scope::Zone) },
        Kind::NewOrigin { lost, officers, rules } => Motion::NewOrigin { lost, officers, rules },
    })
}

fn set<T: Ord>(all: Vec<T>) -> BTreeSet<T> {
    all.into_iter().collect()
}

/// A change of the roster; its next version comes from the ledger.
pub(in crate::cli) fn change_officers(
    state: &LedgerState,
    officers: Officers,
) -> Result<Motion, Stop> {
    let Officers { retire, enrol, key } = officers;
    let mut people: BTreeMap<PersonName, Officer> = BTreeMap::new();
    for (name, role) in enrol {
        let keys = BTreeSet::new();
        if people.insert(name.clone(), Officer { role, keys }).is_some() {
            return Err(Stop::usage(format!("--enrol names {name} twice")));
        }
    }
    for (name, file) in key {
        let Some(officer) = people.get_mut(&name) else {
            return Err(Stop::usage(format!("--key is for {name}, whom no --enrol names")));
        };
        officer.keys.insert(officer_key(&file)?);
    }
    if let Some((name, _)) = people.iter().find(|(_, officer)| officer.keys.is_empty()) {
        return Err(Stop::usage(format!("{name} has no key; give one with --key {name}=FILE.pub")));
    }
    let retire = set(retire);
    if retire.is_empty() && people.is_empty() {
        return Err(Stop::usage("nobody comes and nobody goes; name --enrol or --retire"));
    }
    Ok(Motion::ChangeOfficers { version: state.officers_version() + 1, retire, enrol: people })
}

/// A person's key from its `.pub` file, `verify-required:` in front where a touch is not enough.
pub(in crate::cli) fn officer_key(named: &str) -> Result<OfficerKey, Stop> {
    let plain = named.strip_prefix(VERIFY_REQUIRED);
    let file = std::path::Path::new(plain.unwrap_or(named));
    let text = files::read_text(file, PUB_FILE_BYTES_MAX)?;
    let ssh = SshKey::from_pub_file(&text).map_err(|error| {
        Stop::usage(format!(
            "{}: {error}. hint: it is the .pub file that is wanted",
            file.display()
        ))
    })?;
    Ok(OfficerKey { ssh, verify_required: plain.is_some() })
}

fn change_rules(
    state: &LedgerState,
    named: Vec<(Which, Rule)>,
    recovery: Option<RecoveryRule>,
    no_recovery: bool,
) -> Motion {
    let mut all = state.rules().clone();
    rules::change(&mut all, &named.into_iter().collect());
    let recovery = if no_recovery { None } else { recovery.or(state.recovery()) };
    Motion::ChangeRules { version: state.rules_version() + 1, rules: all, recovery }
}

fn set_policy(state: &LedgerState, args: PolicyArgs) -> Result<Motion, Stop> {
    let present = state.policies().get(&args.name);
    let mut policy = match &args.from {
        Some(file) => {
            let text = files::read_text(file, POLICY_FILE_BYTES_MAX)?;
            toml::from_str(&text)
                .map_err(|error| Stop::usage(format!("{}: {error}", file.display())))?
        }
        None => present.map_or_else(super::default_policy, |(_, policy)| policy.clone()),
    };
    let (name, version) = (args.name.clone(), present.map_or(1, |(version, _)| version + 1));
    override_policy(&mut policy, args)?;
    policy.check(&name).map_err(|error| Stop::usage(error.to_string()))?;
    Ok(Motion::SetPolicy { name, version, policy })
}

fn override_policy(policy: &mut SigningPolicy, args: PolicyArgs) -> Result<(), Stop> {
    fn put<T>(field: &mut T, value: Option<T>) {
        if let Some(value) = value {
            *field = value;
        }
    }
    fn put_word<T: DeserializeOwned>(field: &mut T, text: Option<&String>) -> Result<(), Stop> {
        if let Some(text) = text {
            *field = word(text).map_err(Stop::usage)?;
        }
        Ok(())
    }
    put(&mut policy.algorithm, args.algorithm);
    if args.algorithm.is_some_and(|algorithm| algorithm != Algorithm::RsaSha256) {
        policy.rsa_bits = None;
    }
    policy.rsa_bits = args.rsa_bits.or(policy.rsa_bits);
    put_word(&mut policy.keys, args.keys.as_ref())?;
    if policy.keys == KeySplit::Csk {
        policy.zsk_group = None;
    }
    put(&mut policy.ksk_group, args.ksk_group);
    policy.zsk_group = args.zsk_group.or(policy.zsk_group.take());
    put_word(&mut policy.denial, args.denial.as_ref())?;
    put_word(&mut policy.serial, args.serial.as_ref())?;
    put(&mut policy.dnskey_ttl_s, args.dnskey_ttl_s);
    put(&mut policy.ttl_max_s, args.ttl_max_s);
    put(&mut policy.validity_s, args.validity_s);
    put(&mut policy.refresh_s, args.refresh_s);
    put(&mut policy.inception_offset_s, args.inception_offset_s);
    put_word(&mut policy.approval, args.approval.as_ref())
}

fn key_of(state: &LedgerState, one: OneKey) -> Result<(ZoneName, KeyId), Stop> {
    let key = desk::key(&one.key, keys_in(state, &one.zone))?;
    Ok((one.zone, key))
}

fn keys_of(
    state: &LedgerState,
    zone: &ZoneName,
    named: &[String],
) -> Result<BTreeSet<KeyId>, Stop> {
    named.iter().map(|id| desk::key(id, keys_in(state, zone))).collect()
}

fn keys_in(state: &LedgerState, zone: &ZoneName) -> Vec<KeyId> {
    let keys = state.keys().iter();
    keys.filter(|(_, record)| record.zone == *zone).map(|(key, _)| *key).collect()
}

fn for_parent(
    state: &LedgerState,
    parent: Parent,
) -> Result<(ZoneName, BTreeSet<KeyId>, BTreeSet<DsDigest>), Stop> {
    let Parent { zone, key, digest } = parent;
    let keys = if key.is_empty() {
        let active = state.keys().iter().filter(|(_, record)| {
            record.zone == zone && record.role.signs_dnskey() && record.stage == Stage::Active
        });
        active.map(|(key, _)| *key).collect()
    } else {
        keys_of(state, &zone, &key)?
    };
    if keys.is_empty() {
        return Err(Stop::usage(format!("{zone} has no active KSK or CSK; name keys with --key")));
    }
    let digests =
        if digest.is_empty() { [DsDigest::Sha256, DsDigest::Sha384].into() } else { set(digest) };
    Ok((zone, keys, digests))
}

fn attach_token(
    view: &mut View,
    name: String,
    group: String,
    named: (Option<String>, Option<String>, Option<bool>),
) -> Result<Motion, Stop> {
    let (label, serial, data_objects) = match named {
        (Some(label), Some(serial), Some(data_objects)) => (label, serial, data_objects),
        (label, serial, data_objects) => {
            let survey = view.keeper.survey().map_err(keeper_stop)?;
            let token = survey.tokens.into_iter().find(|token| token.name == name);
            let Some(token) = token else {
                return Err(Stop::usage(format!(
                    "the keeper's configuration has no token {name}; put it there first, or name \
                     --label, --serial and --data-objects"
                )));
            };
            if let Some(problem) = token.problem {
                return Err(Stop::failed(format!("token {name} can't be looked at: {problem}")));
            }
            (
                label.unwrap_or(token.label),
                serial.unwrap_or(token.serial),
                data_objects.unwrap_or(token.data_objects),
            )
        }
    };
    let identity = TokenIdentity { label, serial, group, data_objects };
    Ok(Motion::AttachToken { name, identity })
}

fn move_appliance(
    view: &View,
    from: Option<InstanceId>,
    to: Option<InstanceId>,
) -> Result<Motion, Stop> {
    let holder = view.state().holder().map(|holder| holder.instance);
    let Some(from) = from.or(holder) else {
        return Err(Stop::failed(
            "no box has claimed the tokens yet; its keeper does when it starts",
        ));
    };
    let asked = match view.keeper.mode() {
        Mode::Elsewhere { instance, .. } => Some(*instance),
        Mode::Founded | Mode::Unfounded | Mode::Behind(_) => None,
    };
    let Some(to) = to.or(asked) else {
        return Err(Stop::usage(
            "this keeper's box holds the tokens; run it on the box that is to take them, or name that one \
             with --to (its keeper's log and `countersign hsm status` there have its id)",
        ));
    };
    Ok(Motion::MoveAppliance { from, to })
}

fn replace_audit_key(
    view: &mut View,
    token: Option<String>,
    key: Option<String>,
) -> Result<Motion, Stop> {
    if let (Some(token), Some(key)) = (token, key) {
        let key = audit_key(&key).map_err(Stop::usage)?;
        return Ok(Motion::ReplaceAuditKey { token, key });
    }
    let survey = view.keeper.survey().map_err(keeper_stop)?;
    match survey.audit {
        Some((token, key)) => Ok(Motion::ReplaceAuditKey { token, key }),
        None => Err(Stop::failed("the keeper shows no audit key; name --token and --key")),
    }
}

fn audit_key(text: &str) -> Result<AuditKey, String> {
    let (name, octets) = text.split_once(' ').ok_or("expected an algorithm and a public key")?;
    let octets = from_hex(octets).ok_or("the public key is not lower-case hexadecimal")?;
    let public = PublicKey::new(algorithm(name)?, &octets).map_err(|error| error.to_string())?;
    AuditKey::new(public).map_err(|error| error.to_string())
}

/// An algorithm by mnemonic or number.
pub(super) fn algorithm(text: &str) -> Result<Algorithm, String> {
    let all = [
        Algorithm::RsaSha256,
        Algorithm::EcdsaP256Sha256,
        Algorithm::EcdsaP384Sha384,
        Algorithm::Ed25519,
    ];
    let named = |algorithm: &Algorithm| {
        text.eq_ignore_ascii_case(algorithm.mnemonic()) || text == algorithm.number().to_string()
    };
    all.into_iter().find(named).ok_or_else(|| {
        format!(
            "{text:?}; expected ECDSAP256SHA256, ECDSAP384SHA384, ED25519, RSASHA256 or its number"
        )
    })
}

/// A digest of DS, by name or number.
pub(super) fn digest(text: &str) -> Result<DsDigest, String> {
    match text {
        "sha-256" | "2" => Ok(DsDigest::Sha256),
        "sha-384" | "4" => Ok(DsDigest::Sha384),
        _ => Err(format!("{text:?}; expected sha-256 or sha-384")),
    }
}

/// `yes` or `no`.
pub(super) fn yes_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("{text:?}; expected yes or no")),
    }
}

/// A value that texts and files spell with one word.
pub(super) fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use countersign_policy::KeyRole;
    use countersign_policy::signing::Denial;

    use super::*;

    #[test]
    fn words_of_options() {
        assert_eq!(word::<KeyRole>("csk"), Ok(KeyRole::Csk));
        assert_eq!(word::<Denial>("nsec3-opt-out"), Ok(Denial::Nsec3OptOut));
        assert!(word::<KeyRole>("KSK").expect_err("upper case").contains("ksk"));
        assert_eq!(algorithm("13"), Ok(Algorithm::EcdsaP256Sha256));
        assert_eq!(algorithm("ed25519"), Ok(Algorithm::Ed25519));
        assert!(algorithm("5").is_err());
        assert!(digest("sha-1").is_err() && digest("1").is_err(), "never SHA-1");
    }

    #[test]
    fn an_audit_key_is_read_as_the_founding_spells_it() {
        let text = format!("ED25519 {}", "07".repeat(32));
        assert!(audit_key(&text).is_ok());
        assert!(audit_key(&text.to_uppercase().replace("0707", "0A0A")).is_err());
        assert!(audit_key("RSASHA256 03010001").is_err());
    }
}
