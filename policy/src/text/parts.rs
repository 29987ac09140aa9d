//! The parts that several texts have in common: officers and their keys, rules, tokens, policies.
//! Each is a `read_…` and a `write_…`, the reverse of one another.

use std::collections::{BTreeMap, BTreeSet};

use super::{Field, Reader, TextError, Writer, escape, optional, yes_no};
use crate::algorithm::Algorithm;
use crate::checkpoint::AuditKey;
use crate::ds::DsDigest;
use crate::founding::TokenIdentity;
use crate::key::{KeyRole, PublicKey, from_hex, to_hex};
use crate::motion::{MotionKind, Scope};
use crate::officer::{KEYS_MAX, OFFICERS_MAX, Officer, OfficerKey, PersonName, Role};
use crate::rule::{Group, RecoveryRule, Rule, Rules};
use crate::signing::{Denial, DnskeyApproval, KeySplit, SerialPolicy, SigningPolicy};

/// In front of a key whose signatures count only with user verification.
const VERIFY_REQUIRED: &str = "verify-required ";

/// A value that texts spell with one word of a list.
pub(crate) trait Spelled: Copy + PartialEq + 'static {
    /// All values, each with its word.
    const WORDS: &'static [(Self, &'static str)];

    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(value, _)| *value == self).map_or("", |(_, word)| word)
    }
}

impl Spelled for KeyRole {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Ksk, "ksk"), (Self::Zsk, "zsk"), (Self::Csk, "csk")];
}

impl Spelled for DsDigest {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Sha256, "sha-256"), (Self::Sha384, "sha-384")];
}

impl Spelled for Algorithm {
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::RsaSha256, Self::RsaSha256.mnemonic()),
        (Self::EcdsaP256Sha256, Self::EcdsaP256Sha256.mnemonic()),
        (Self::EcdsaP384Sha384, Self::EcdsaP384Sha384.mnemonic()),
        (Self::Ed25519, Self::Ed25519.mnemonic()),
    ];
}

impl Spelled for KeySplit {
    const WORDS: &'static [(Self, &'static str)] = &[(Self::KskZsk, "ksk-zsk"), (Self::Csk, "csk")];
}

impl Spelled for Denial {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Nsec, "nsec"), (Self::Nsec3, "nsec3"), (Self::Nsec3OptOut, "nsec3-opt-out")];
}

impl Spelled for SerialPolicy {
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Keep, "keep"),
        (Self::Increment, "increment"),
        (Self::Unixtime, "unixtime"),
        (Self::DateCounter, "date-counter"),
    ];
}

impl Spelled for DnskeyApproval {
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Standing, "standing"), (Self::PerSet, "per-set")];
}

/// As texts spell the value.
pub(crate) fn word(value: impl Spelled) -> &'static str {
    value.word()
}

/// Reads a value that is one word of a list.
pub(crate) fn read_word<T: Spelled>(field: Field<'_>) -> Result<T, TextError> {
    let found = T::WORDS.iter().find(|(_, word)| *word == field.value);
    found.map(|(value, _)| *value).ok_or_else(|| {
        let words: Vec<String> = T::WORDS.iter().map(|(_, word)| format!("`{word}`")).collect();
        field.unexpected(words.join(", "))
    })
}

/// `enrol: carol key-officer`, then a line `key: carol …` for each of her keys.
pub(crate) fn write_officers(writer: &mut Writer, officers: &BTreeMap<PersonName, Officer>) {
    for (name, officer) in officers {
        writer.field("enrol", format_args!("{name} {}", officer.role));
        for key in &officer.keys {
            let verify = if key.verify_required { VERIFY_REQUIRED } else { "" };
            writer.field("key", format_args!("{name} {verify}{}", key.ssh));
        }
    }
}

pub(crate) fn read_officers(
    reader: &mut Reader<'_>,
) -> Result<BTreeMap<PersonName, Officer>, TextError> {
    let mut officers = BTreeMap::new();
    while let Some(field) = reader.take("enrol") {
        let [name, role] = field.words("a person's name and a role, one space between")?;
        let (name, role): (PersonName, Role) = (name.parse()?, role.parse()?);
        let mut keys = BTreeSet::new();
        for field in reader.fields("key", KEYS_MAX)? {
            keys.insert(read_officer_key(field, &name)?);
        }
        if officers.len() == OFFICERS_MAX {
            return Err(field.unexpected(format!("at most {OFFICERS_MAX} persons")));
        }
        // A person who is there already makes a text of fewer lines than this one: it is refused.
        officers.insert(name, Officer { role, keys });
    }
    Ok(officers)
}

fn read_officer_key(field: Field<'_>, owner: &PersonName) -> Result<OfficerKey, TextError> {
    let owned = field.value.strip_prefix(owner.as_str()).and_then(|rest| rest.strip_prefix(' '));
    let key = owned.ok_or_else(|| field.unexpected(format!("`key: {owner} …`")))?;
    let plain = key.strip_prefix(VERIFY_REQUIRED);
    let ssh = Field { value: plain.unwrap_or(key), ..field }.parse()?;
    Ok(OfficerKey { ssh, verify_required: plain.is_some() })
}

/// `rule: generate-key 2 key-officer`: one for each sort of motion, in the order of the table; then
/// `recovery: 3 after 172800` or `recovery: (none)`.
pub(crate) fn write_rules(writer: &mut Writer, rules: &Rules, recovery: Option<RecoveryRule>) {
    for (kind, rule) in &rules.0 {
        writer.field("rule", format_args!("{kind} {rule}"));
    }
    let recovery = recovery.map(|rule| format!("{} after {}", rule.persons, rule.delay_s));
    writer.field("recovery", optional(recovery));
}

pub(crate) fn read_rules(
    reader: &mut Reader<'_>,
) -> Result<(Rules, Option<RecoveryRule>), TextError> {
    let mut rules = BTreeMap::new();
    for kind in MotionKind::all() {
        let field = reader.field("rule")?;
        let rule = field.value.strip_prefix(kind.as_str()).and_then(|rest| rest.strip_prefix(' '));
        let value = rule.ok_or_else(|| field.unexpected(format!("the rule for {kind}")))?;
        rules.insert(kind, read_rule(Field { value, ..field })?);
    }
    let recovery = match reader.field("recovery")?.optional() {
        None => None,
        Some(field) => {
            let expected = "`(none)`, or persons and seconds, as `3 after 172800`";
            let [persons, after, delay_s] = field.words(expected)?;
            if after.value != "after" {
                return Err(field.unexpected(expected));
            }
            Some(RecoveryRule { persons: persons.number()?, delay_s: delay_s.number()? })
        }
    };
    Ok((Rules(rules), recovery))
}

/// The reverse of [`Rule`]'s `Display`.
pub(crate) fn read_rule(field: Field<'_>) -> Result<Rule, TextError> {
    let expected = "persons and roles, as `2 key-officer` or `1 key-officer + 1 policy-officer`";
    let groups = field.value.split(" + ").map(|value| {
        let group = Field { value, ..field };
        let [persons, roles] = group.words(expected)?;
        let roles = roles.value.split('|').map(|value| Field { value, ..field }.parse::<Role>());
        Ok(Group { persons: persons.number()?, roles: roles.collect::<Result<_, _>>()? })
    });
    groups.collect::<Result<_, _>>().map(Rule)
}

/// `token: ksk-a group ksk label … serial … data-objects yes`.
pub(crate) fn write_token(writer: &mut Writer, name: &str, token: &TokenIdentity) {
    let (name, group) = (escape(name), escape(&token.group));
    let (label, serial) = (escape(&token.label), escape(&token.serial));
    let data = yes_no(token.data_objects);
    let value = format!("{name} group {group} label {label} serial {serial} data-objects {data}");
    writer.field("token", value);
}

pub(crate) fn read_token(field: Field<'_>) -> Result<(String, TokenIdentity), TextError> {
    let expected = "`token: NAME group … label … serial … data-objects yes|no`";
    let [name, group, is_group, label, is_label, serial, is_serial, data, is_data] =
        field.words(expected)?;
    let labels = [group.value, label.value, serial.value, data.value];
    if labels != ["group", "label", "serial", "data-objects"] {
        return Err(field.unexpected(expected));
    }
    let identity = TokenIdentity {
        label: is_label.free()?,
        serial: is_serial.free()?,
        group: is_group.plain()?,
        data_objects: is_data.yes_no()?,
    };
    Ok((name.plain()?, identity))
}

/// `ECDSAP256SHA256 1a88…`: the algorithm, and the public key as a DNSKEY would hold it.
pub(crate) fn audit_key_text(key: &AuditKey) -> String {
    let public = key.public();
    format!("{} {}", public.algorithm(), to_hex(public.bytes()))
}

pub(crate) fn read_audit_key(field: Field<'_>) -> Result<AuditKey, TextError> {
    let expected = "an algorithm and a public key in lower-case hexadecimal, one space between";
    let [algorithm, octets] = field.words(expected)?;
    let octets = from_hex(octets.value).ok_or_else(|| field.unexpected(expected))?;
    let public = PublicKey::new(read_word(algorithm)?, &octets);
    let public = public.map_err(|problem| field.refused(&problem))?;
    AuditKey::new(public).map_err(|problem| field.refused(&problem))
}

/// `all`, or `zone example.`.
pub(crate) fn scope_text(scope: &Scope) -> String {
    match scope {
        Scope::All => "all".to_owned(),
        Scope::Zone(zone) => format!("zone {zone}"),
    }
}

pub(crate) fn read_scope(field: Field<'_>) -> Result<Scope, TextError> {
    if field.value == "all" {
        return Ok(Scope::All);
    }
    let zone = field.value.strip_prefix("zone ");
    let value = zone.ok_or_else(|| field.unexpected("`all`, or `zone ` and a zone's name"))?;
    Ok(Scope::Zone(Field { value, ..field }.parse()?))
}

/// One line for each field of a signing policy.
pub(crate) fn write_policy(writer: &mut Writer, policy: &SigningPolicy) {
    writer.field("policy-algorithm", policy.algorithm);
    writer.field("policy-rsa-bits", optional(policy.rsa_bits));
    writer.field("policy-keys", word(policy.keys));
    writer.field("policy-ksk-group", escape(&policy.ksk_group));
    writer.field("policy-zsk-group", optional(policy.zsk_group.as_deref().map(escape)));
    writer.field("policy-denial", word(policy.denial));
    writer.field("policy-serial", word(policy.serial));
    writer.field("policy-dnskey-ttl-s", policy.dnskey_ttl_s);
    writer.field("policy-ttl-max-s", policy.ttl_max_s);
    writer.field("policy-validity-s", policy.validity_s);
    writer.field("policy-refresh-s", policy.refresh_s);
    writer.field("policy-inception-offset-s", policy.inception_offset_s);
    writer.field("policy-approval", word(policy.approval));
}

pub(crate) fn read_policy(reader: &mut Reader<'_>) -> Result<SigningPolicy, TextError> {
    Ok(SigningPolicy {
        algorithm: read_word(reader.field("policy-algorithm")?)?,
        rsa_bits: reader.field("policy-rsa-bits")?.optional().map(Field::number).transpose()?,
        keys: read_word(reader.field("policy-keys")?)?,
        ksk_group: reader.field("policy-ksk-group")?.plain()?,
        zsk_group: reader.field("policy-zsk-group")?.optional().map(Field::plain).transpose()?,
        denial: read_word(reader.field("policy-denial")?)?,
        serial: read_word(reader.field("policy-serial")?)?,
        dnskey_ttl_s: reader.field("policy-dnskey-ttl-s")?.number()?,
        ttl_max_s: reader.field("policy-ttl-max-s")?.number()?,
        validity_s: reader.field("policy-validity-s")?.number()?,
        refresh_s: reader.field("policy-refresh-s")?.number()?,
        inception_offset_s: reader.field("policy-inception-offset-s")?.number()?,
        approval: read_word(reader.field("policy-approval")?)?,
    })
}
