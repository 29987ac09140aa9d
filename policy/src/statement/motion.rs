//! A motion's lines: `operation: KIND`, then its fields in their order.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use crate::ds::DsDigest;
use crate::key::KeyId;
use crate::motion::{Motion, MotionKind, ZONES_MAX};
use crate::name::ZoneName;
use crate::officer::{OFFICERS_MAX, PersonName};
use crate::text::{Field, Reader, TextError, Writer, escape, parts, time_text, yes_no};

/// Keys that one motion names: more than a zone ever has, in the midst of two rollovers.
const KEYS_MAX: usize = 32;
/// Digests that one motion names: all that there are.
const DIGESTS_MAX: usize = 2;

pub(super) fn write(writer: &mut Writer, motion: &Motion) {
    writer.field("operation", motion.kind());
    match motion {
        Motion::ChangeOfficers { version, retire, enrol } => {
            writer.field("version", version);
            writer.fields("retire", retire);
            parts::write_officers(writer, enrol);
        }
        Motion::ChangeRules { version, rules, recovery } => {
            writer.field("version", version);
            parts::write_rules(writer, rules, *recovery);
        }
        Motion::SetPolicy { name, version, policy } => {
            writer.field("name", escape(name));
            writer.field("version", version);
            parts::write_policy(writer, policy);
        }
        Motion::BindZone { zones, policy } => {
            writer.fields("zone", zones);
            writer.field("policy", escape(policy));
        }
        Motion::UnbindZone { zones } => writer.fields("zone", zones),
        Motion::GenerateKey { zones, role, activate } => {
            writer.fields("zone", zones);
            writer.field("role", parts::word(*role));
            writer.field("activate", yes_no(*activate));
        }
        Motion::AdoptKey { zone, role, token, key, activate } => {
            writer.field("zone", zone);
            writer.field("role", parts::word(*role));
            writer.field("token", escape(token));
            writer.field("key", key);
            writer.field("activate", yes_no(*activate));
        }
        Motion::ActivateKey { zone, key }
        | Motion::RetireKey { zone, key }
        | Motion::DestroyKey { zone, key } => {
            writer.field("zone", zone);
            writer.field("key", key);
        }
        Motion::SignDnskeySet { zone, keys } => {
            writer.field("zone", zone);
            writer.fields("key", keys);
        }
        Motion::ExportDs { zone, keys, digests } | Motion::PublishCds { zone, keys, digests } => {
            writer.field("zone", zone);
            writer.fields("key", keys);
            writer.fields("digest", digests.iter().map(|digest| parts::word(*digest)));
        }
        Motion::DeleteDs { zone } => writer.field("zone", zone),
        Motion::AttachToken { name, identity } => parts::write_token(writer, name, identity),
        Motion::MoveAppliance { from, to } => {
            writer.field("from", from);
            writer.field("to", to);
        }
        Motion::ReplaceAuditKey { token, key } => {
            writer.field("token", escape(token));
            writer.field("key", parts::audit_key_text(key));
        }
        Motion::RaiseTimeFloor { to } => writer.field("to", time_text(*to)),
        Motion::Thaw { scope } => writer.field("scope", parts::scope_text(scope)),
        Motion::NewOrigin { lost, officers, rules } => {
            writer.field("lost", lost);
            writer.field("officers", officers);
            writer.field("rules", rules);
        }
    }
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Motion, TextError> {
    let operation = reader.field("operation")?;
    let kind = operation.parse()?;
    let r = reader;
    // Fields of a struct expression are evaluated in the order in which they are written.
    Ok(match kind {
        MotionKind::ChangeOfficers => return change_officers(operation, r),
        MotionKind::ChangeRules => {
            let version = r.field("version")?.number()?;
            let (rules, recovery) = parts::read_rules(r)?;
            Motion::ChangeRules { version, rules, recovery }
        }
        MotionKind::SetPolicy => Motion::SetPolicy {
            name: r.field("name")?.plain()?,
            version: r.field("version")?.number()?,
            policy: parts::read_policy(r)?,
        },
        MotionKind::BindZone => {
            Motion::BindZone { zones: zones(r)?, policy: r.field("policy")?.plain()? }
        }
        MotionKind::UnbindZone => Motion::UnbindZone { zones: zones(r)? },
        MotionKind::GenerateKey => Motion::GenerateKey {
            zones: zones(r)?,
            role: parts::read_word(r.field("role")?)?,
            activate: r.field("activate")?.yes_no()?,
        },
        MotionKind::AdoptKey => Motion::AdoptKey {
            zone: one(r, "zone")?,
            role: parts::read_word(r.field("role")?)?,
            token: r.field("token")?.plain()?,
            key: one(r, "key")?,
            activate: r.field("activate")?.yes_no()?,
        },
        MotionKind::ActivateKey => {
            Motion::ActivateKey { zone: one(r, "zone")?, key: one(r, "key")? }
        }
        MotionKind::RetireKey => Motion::RetireKey { zone: one(r, "zone")?, key: one(r, "key")? },
        MotionKind::DestroyKey => Motion::DestroyKey { zone: one(r, "zone")?, key: one(r, "key")? },
        MotionKind::SignDnskeySet => {
            Motion::SignDnskeySet { zone: one(r, "zone")?, keys: keys(r)? }
        }
        MotionKind::ExportDs => {
            Motion::ExportDs { zone: one(r, "zone")?, keys: keys(r)?, digests: digests(r)? }
        }
        MotionKind::PublishCds => {
            Motion::PublishCds { zone: one(r, "zone")?, keys: keys(r)?, digests: digests(r)? }
        }
        MotionKind::DeleteDs => Motion::DeleteDs { zone: one(r, "zone")? },
        MotionKind::AttachToken => {
            let (name, identity) = parts::read_token(r.field("token")?)?;
            Motion::AttachToken { name, identity }
        }
        MotionKind::MoveAppliance => {
            Motion::MoveAppliance { from: one(r, "from")?, to: one(r, "to")? }
        }
        MotionKind::ReplaceAuditKey => Motion::ReplaceAuditKey {
            token: r.field("token")?.plain()?,
            key: parts::read_audit_key(r.field("key")?)?,
        },
        MotionKind::RaiseTimeFloor => Motion::RaiseTimeFloor { to: r.field("to")?.time()? },
        MotionKind::Thaw => Motion::Thaw { scope: parts::read_scope(r.field("scope")?)? },
        MotionKind::NewOrigin => Motion::NewOrigin {
            lost: one(r, "lost")?,
            officers: r.field("officers")?.number()?,
            rules: r.field("rules")?.number()?,
        },
    })
}

fn change_officers(operation: Field<'_>, reader: &mut Reader<'_>) -> Result<Motion, TextError> {
    let version = reader.field("version")?.number()?;
    let mut retire: BTreeSet<PersonName> = BTreeSet::new();
    while let Some(field) = reader.take("retire") {
        if retire.len() == OFFICERS_MAX {
            return Err(field.unexpected(format!("at most {OFFICERS_MAX} persons")));
        }
        retire.insert(field.parse()?);
    }
    let enrol = parts::read_officers(reader)?;
    if retire.is_empty() && enrol.is_empty() {
        return Err(operation.unexpected("lines `retire: …` or `enrol: …` to go with it"));
    }
    Ok(Motion::ChangeOfficers { version, retire, enrol })
}

fn one<T: FromStr<Err: Display>>(reader: &mut Reader<'_>, name: &str) -> Result<T, TextError> {
    reader.field(name)?.parse()
}

fn zones(r: &mut Reader<'_>) -> Result<BTreeSet<ZoneName>, TextError> {
    r.fields("zone", ZONES_MAX)?.into_iter().map(Field::parse).collect()
}

fn keys(r: &mut Reader<'_>) -> Result<BTreeSet<KeyId>, TextError> {
    r.fields("key", KEYS_MAX)?.into_iter().map(Field::parse).collect()
}

fn digests(r: &mut Reader<'_>) -> Result<BTreeSet<DsDigest>, TextError> {
    r.fields("digest", DIGESTS_MAX)?.into_iter().map(parts::read_word).collect()
}
