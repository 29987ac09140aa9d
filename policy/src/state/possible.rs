//! Whether a motion can be done at all, as things are: asked when it is proposed, and again when it
//! begins.

use std::collections::{BTreeMap, BTreeSet};

use super::LedgerState;
use super::begin::Step;
use super::founded::check_tokens_apart;
use super::keys::{KSKS_MAX, KeyRecord, ZSKS_MAX};
use crate::ds::DsDigest;
use crate::founding::{TOKENS_MAX, TokenIdentity};
use crate::instance::InstanceId;
use crate::key::{KeyId, KeyRole};
use crate::key_state::Stage;
use crate::ledger::Operation;
use crate::motion::{Motion, ZONES_MAX};
use crate::name::ZoneName;
use crate::officer::{Officer, PersonName, Role};
use crate::signing::SigningPolicy;
use crate::statement::Statement;
use crate::text::time_text;
use crate::tree::TreeHead;

/// Zones bound here; a portfolio of this size is what the engine is built for.
pub const BOUND_MAX: usize = 200_000;
/// Policies: a few are in use, the rest is history that nobody cleaned up.
pub const POLICIES_MAX: usize = 1_000;
/// Keys of a DNSKEY RRset that is approved as a whole: all that a zone can have.
const SET_KEYS_MAX: usize = KSKS_MAX + ZSKS_MAX;

impl LedgerState {
    pub(super) fn is_possible(&self, statement: &Statement, at: u64) -> Result<(), String> {
        match &statement.motion {
            Motion::ChangeOfficers { version, retire, enrol } => {
                next_version("officers", *version, self.officers_version())?;
                self.can_change_officers(&statement.motion, retire, enrol)
            }
            Motion::ChangeRules { version, .. } => {
                next_version("rules", *version, self.rules_version())?;
                self.law.after(&statement.motion).map_or(Ok(()), |after| after.check())
            }
            Motion::SetPolicy { name, version, policy } => {
                self.can_set_policy(name, *version, policy)
            }
            Motion::BindZone { zones, policy } => self.can_bind(zones, policy),
            Motion::UnbindZone { zones } => {
                count("zones", zones.len(), ZONES_MAX)?;
                for zone in zones {
                    self.is_bound(zone)?;
                    self.is_quiet(zone)?;
                }
                Ok(())
            }
            Motion::GenerateKey { zones, role, .. } => self.can_generate(zones, *role),
            Motion::AdoptKey { zone, role, token, key, activate } => {
                self.can_adopt(zone, *role, token, *key, *activate)
            }
            Motion::ActivateKey { zone, key } => self.can_activate(zone, key),
            Motion::RetireKey { zone, key } => self.can_retire(zone, key),
            Motion::DestroyKey { zone, key } => self.can_destroy(zone, key, at),
            Motion::SignDnskeySet { zone, keys } => self.can_sign_set(zone, keys),
            Motion::ExportDs { zone, keys, digests }
            | Motion::PublishCds { zone, keys, digests } => {
                self.can_tell_parent(zone, keys, digests, at)
            }
            Motion::DeleteDs { zone } => self.is_bound(zone).map(|_| ()),
            Motion::AttachToken { name, identity } => self.can_attach(name, identity),
            Motion::MoveAppliance { from, .. } => self.can_move(from),
            Motion::ReplaceAuditKey { token, key } => match self.audit() {
                _ if !self.tokens().contains_key(token) => Err(no_token(token)),
                Some((_, now)) if now == key => Err("that is the audit key already".to_owned()),
                _ => match self.keys().get(&key.public().id()) {
                    Some(known) => Err(format!(
                        "that is a {} of {}; the audit key seals the ledger and nothing else",
                        known.role, known.zone
                    )),
                    None => Ok(()),
                },
            },
            Motion::RaiseTimeFloor { to } => self.can_raise(statement, *to),
            Motion::Thaw { scope } => match self.freeze(scope) {
                Some(_) => Ok(()),
                None => Err("nothing of that scope is frozen".to_owned()),
            },
            Motion::NewOrigin { lost, officers, rules } => {
                self.can_go_on(&statement.proposer, lost, *officers, *rules)
            }
        }
    }

    fn can_change_officers(
        &self,
        motion: &Motion,
        retire: &BTreeSet<PersonName>,
        enrol: &BTreeMap<PersonName, Officer>,
    ) -> Result<(), String> {
        if retire.is_empty() && enrol.is_empty() {
            return Err("it changes nobody".to_owned());
        }
        if let Some(stranger) = retire.iter().find(|name| self.roster().person(name).is_none()) {
            return Err(format!("{stranger} is not on the roster and can't be retired"));
        }
        let is_there =
            |name: &&PersonName| self.roster().person(name).is_some() && !retire.contains(*name);
        if let Some(present) = enrol.keys().find(is_there) {
            return Err(format!(
                "{present} is on the roster. hint: to give {present} other keys or another role, name \
                 {present} in `retire` too"
            ));
        }
        self.law.after(motion).map_or(Ok(()), |after| after.check())
    }

    fn can_set_policy(
        &self,
        name: &str,
        version: u64,
        policy: &SigningPolicy,
    ) -> Result<(), String> {
        let present = self.policies().get(name);
        next_version("policy", version, present.map_or(0, |(version, _)| *version))?;
        if present.is_none() && self.policies().len() >= POLICIES_MAX {
            return Err(format!("{POLICIES_MAX} policies are defined, which is the most"));
        }
        policy.check(name).map_err(|error| error.to_string())?;
        for group in std::iter::once(&policy.ksk_group).chain(&policy.zsk_group) {
            if self.tokens_of(group).next().is_none() {
                return Err(format!(
                    "policy `{name}` names the token group `{group}`, which has no token"
                ));
            }
        }
        let others = self.policies().iter().filter(|(other, _)| *other != name);
        let all: Vec<&SigningPolicy> =
            others.map(|(_, (_, other))| other).chain([policy]).collect();
        let ksk: BTreeSet<&str> = all.iter().map(|policy| policy.ksk_group.as_str()).collect();
        let mut zsk = all.iter().filter_map(|policy| policy.zsk_group.as_deref());
        if let Some(group) = zsk.find(|group| ksk.contains(group)) {
            return Err(format!(
                "token group `{group}` would hold both KSKs and ZSKs; they live on separate tokens"
            ));
        }
        self.groups_hold_nothing_else(policy)?;
        for (zone, _) in self.zones().iter().filter(|(_, binding)| binding.policy == name) {
            self.fits(zone, policy)?;
            self.is_quiet(zone)?;
        }
        Ok(())
    }

    /// What is on a token stays there when policies change and zones go: KSKs and ZSKs live apart, those
    /// of zones that nothing binds any more too.
    fn groups_hold_nothing_else(&self, policy: &SigningPolicy) -> Result<(), String> {
        let is_out_of_place = |key: &KeyRecord| {
            if key.role.signs_dnskey() {
                policy.zsk_group.as_ref() == Some(&key.group)
            } else {
                policy.ksk_group == key.group
            }
        };
        match self.keys().iter().find(|(_, key)| is_out_of_place(key)) {
            Some((id, key)) => Err(format!(
                "token group `{}` holds the {} {id} of {}; KSKs and ZSKs live on separate tokens",
                key.group, key.role, key.zone
            )),
            None => Ok(()),
        }
    }

    fn can_bind(&self, zones: &BTreeSet<ZoneName>, name: &str) -> Result<(), String> {
        count("zones", zones.len(), ZONES_MAX)?;
        let Some((_, policy)) = self.policies().get(name) else {
            return Err(format!(
                "there is no policy `{name}`. hint: propose set-policy first, and have it approved"
            ));
        };
        for zone in zones {
            if self.zones().get(zone).is_some_and(|binding| binding.policy == name) {
                return Err(format!("{zone} is bound to `{name}` already"));
            }
            self.fits(zone, policy)?;
            self.is_quiet(zone)?;
        }
        let new = zones.iter().filter(|zone| !self.zones().contains_key(zone)).count();
        if self.zones().len() + new > BOUND_MAX {
            return Err(format!("more than {BOUND_MAX} zones would be bound"));
        }
        Ok(())
    }

    /// Whether the keys that a zone has can go on under that policy.
    fn fits(&self, zone: &ZoneName, policy: &SigningPolicy) -> Result<(), String> {
        let in_use = |key: &KeyRecord| matches!(key.stage, Stage::Made | Stage::Active);
        for (id, key) in self.keys_of(zone).filter(|(_, key)| in_use(key)) {
            if !policy.roles().contains(&key.role) {
                return Err(format!(
                    "{zone} has a {} ({id}); its policy would have none",
                    key.role
                ));
            }
            if policy.group_for(key.role) != Some(key.group.as_str()) {
                return Err(format!(
                    "the {} of {zone} ({id}) lives on group `{}` and can't change groups",
                    key.role, key.group
                ));
            }
            if policy.algorithm != key.algorithm {
                return Err(format!(
                    "key {id} of {zone} is {}; changing to {} takes an algorithm rollover",
                    key.algorithm, policy.algorithm
                ));
            }
        }
        Ok(())
    }

    /// A key that is being made must find the policy that it is made by.
    fn is_quiet(&self, zone: &ZoneName) -> Result<(), String> {
        match self.open_making(zone) {
            Some(line) => Err(format!(
                "the intent of line {line} makes a key for {zone}; wait until it has its result"
            )),
            None => Ok(()),
        }
    }

    fn can_generate(&self, zones: &BTreeSet<ZoneName>, role: KeyRole) -> Result<(), String> {
        count("zones", zones.len(), ZONES_MAX)?;
        if !role.signs_dnskey() {
            return Err("ZSKs are made without a quorum, as the policy says".to_owned());
        }
        for zone in zones {
            let policy = self.is_bound(zone)?;
            has_role(zone, policy, role)?;
            self.has_room(zone, role)?;
            let step = Step::Generate { zone: zone.clone(), role };
            if let Some((line, _)) = self.running.iter().find(|(_, r)| r.steps.contains(&step)) {
                return Err(format!("what began at line {line} makes a {role} for {zone} already"));
            }
        }
        Ok(())
    }

    /// Room for one more key of that duty: those under way have theirs already.
    fn has_room(&self, zone: &ZoneName, role: KeyRole) -> Result<(), String> {
        let is_alike = |other: KeyRole| other.signs_dnskey() == role.signs_dnskey();
        let makes = |step: &&Step| match step {
            Step::Generate { zone: z, role } | Step::Adopt { zone: z, role, .. } => {
                z == zone && is_alike(*role)
            }
            Step::Destroy { .. } => false,
        };
        let there = self.keys_of(zone).filter(|(_, key)| is_alike(key.role)).count();
        let coming = self.running.values().flat_map(|r| &r.steps).filter(makes).count();
        let (most, what) =
            if role.signs_dnskey() { (KSKS_MAX, "KSKs and CSKs") } else { (ZSKS_MAX, "ZSKs") };
        if there + coming >= most {
            return Err(format!(
                "{zone} has {} {what}, which is the most. hint: destroy one that is retired",
                there + coming
            ));
        }
        Ok(())
    }

    fn can_adopt(
        &self,
        zone: &ZoneName,
        role: KeyRole,
        token: &str,
        key: KeyId,
        activate: bool,
    ) -> Result<(), String> {
        let policy = self.is_bound(zone)?;
        has_role(zone, policy, role)?;
        let Some(identity) = self.tokens().get(token) else { return Err(no_token(token)) };
        if policy.group_for(role) != Some(identity.group.as_str()) {
            return Err(format!(
                "token `{token}` is not of the group that holds the {role}s of {zone}"
            ));
        }
        if self.audit().is_some_and(|(_, audit)| audit.public().id() == key) {
            return Err(format!(
                "key {key} is the audit key, which seals the ledger and nothing else"
            ));
        }
        if let Some(known) = self.keys().get(&key) {
            return Err(format!("key {key} is a {} of {} already", known.role, known.zone));
        }
        if role == KeyRole::Zsk && !activate {
            return Err("a ZSK is published and used at once; expected `activate: yes`".to_owned());
        }
        self.has_room(zone, role)?;
        let adopts = |step: &Step| matches!(step, Step::Adopt { key: other, .. } if *other == key);
        match self.running.iter().find(|(_, running)| running.steps.iter().any(adopts)) {
            Some((line, _)) => Err(format!("what began at line {line} adopts key {key} already")),
            None => Ok(()),
        }
    }

    fn can_activate(&self, zone: &ZoneName, id: &KeyId) -> Result<(), String> {
        let policy = self.is_bound(zone)?;
        let key = self.key_of(zone, id)?;
        if !key.role.signs_dnskey() {
            return Err(format!("key {id} is a ZSK; it is active from the start"));
        }
        is_sound(id, key)?;
        if !matches!(key.stage, Stage::Made | Stage::Retired) {
            return Err(wrong_stage(id, key, "made or retired"));
        }
        has_role(zone, policy, key.role)?;
        if policy.algorithm != key.algorithm {
            return Err(format!(
                "key {id} is of {}, the policy of {zone} wants {}",
                key.algorithm, policy.algorithm
            ));
        }
        if policy.group_for(key.role) != Some(key.group.as_str()) {
            return Err(format!(
                "key {id} lives on group `{}`, and the policy of {zone} keeps its {}s elsewhere",
                key.group, key.role
            ));
        }
        Ok(())
    }

    /// A zone that is signed here keeps a key for each duty of the one that retires.
    fn can_retire(&self, zone: &ZoneName, id: &KeyId) -> Result<(), String> {
        let key = self.key_of(zone, id)?;
        if key.stage != Stage::Active {
            return Err(wrong_stage(id, key, "active"));
        }
        if !self.zones().contains_key(zone) {
            return Ok(());
        }
        let others: Vec<KeyRole> =
            self.dnskeys_of(zone).filter(|(other, _)| *other != id).map(|(_, k)| k.role).collect();
        if key.role.signs_dnskey() && !others.iter().any(|role| role.signs_dnskey()) {
            return Err(format!(
                "{id} is the last active KSK or CSK of {zone}; activate another first"
            ));
        }
        if key.role.signs_zone() && !others.iter().any(|role| role.signs_zone()) {
            return Err(format!(
                "{id} is the last key that signs {zone}; there must be another first"
            ));
        }
        Ok(())
    }

    fn can_destroy(&self, zone: &ZoneName, id: &KeyId, at: u64) -> Result<(), String> {
        let key = self.key_of(zone, id)?;
        if key.stage == Stage::Active {
            return Err(wrong_stage(id, key, "made or retired: propose retire-key first"));
        }
        if let Some(other) = key.collides_with.filter(|_| !key.published) {
            return Err(format!(
                "key {id} shares its tag with key {other}; it is destroyed without a motion"
            ));
        }
        let destroys = |step: &Step| matches!(step, Step::Destroy { key: k, .. } if k == id);
        if let Some((line, _)) = self.running.iter().find(|(_, r)| r.steps.iter().any(destroys)) {
            return Err(format!("what began at line {line} destroys key {id} already"));
        }
        let approved = self.explicit.get(zone).filter(|set| set.until >= at);
        if approved.is_some_and(|set| set.keys.contains(id)) {
            return Err(format!("key {id} is in the DNSKEY RRset that was approved for {zone}"));
        }
        Ok(())
    }

    fn can_sign_set(&self, zone: &ZoneName, keys: &BTreeSet<KeyId>) -> Result<(), String> {
        self.is_bound(zone)?;
        count("keys", keys.len(), SET_KEYS_MAX)?;
        let mut active = Vec::new();
        for id in keys {
            let key = self.key_of(zone, id)?;
            is_sound(id, key)?;
            match key.stage {
                Stage::Destroying => return Err(wrong_stage(id, key, "one that stays")),
                Stage::Active => active.push(key.role),
                Stage::Made | Stage::Retired => {}
            }
        }
        if !active.iter().any(|role| role.signs_dnskey())
            || !active.iter().any(|role| role.signs_zone())
        {
            return Err(format!(
                "the set has to hold an active KSK or CSK of {zone}, and an active key that signs the \
                 zone; resolvers would find nothing to trust"
            ));
        }
        Ok(())
    }

    /// A DS may name only what is in the DNSKEY RRset: else the zone is bogus (RFC 4035 §5.2).
    fn can_tell_parent(
        &self,
        zone: &ZoneName,
        keys: &BTreeSet<KeyId>,
        digests: &BTreeSet<DsDigest>,
        at: u64,
    ) -> Result<(), String> {
        self.is_bound(zone)?;
        count("keys", keys.len(), KSKS_MAX)?;
        if digests.is_empty() {
            return Err("no digest is named; expected SHA-256, SHA-384 or both".to_owned());
        }
        for id in keys {
            let key = self.key_of(zone, id)?;
            if !key.role.signs_dnskey() {
                return Err(format!("key {id} is a ZSK; a DS names a KSK or a CSK"));
            }
            is_sound(id, key)?;
            if key.stage != Stage::Active || key.public.is_none() {
                return Err(wrong_stage(id, key, "active: propose activate-key first"));
            }
            let approved = self.explicit.get(zone).filter(|set| set.until >= at);
            if approved.is_some_and(|set| !set.keys.contains(id)) {
                return Err(format!(
                    "key {id} is not in the DNSKEY RRset that was approved for {zone}; a DS of it \
                     would make the zone bogus"
                ));
            }
        }
        Ok(())
    }

    fn can_attach(&self, name: &str, identity: &TokenIdentity) -> Result<(), String> {
        let mut tokens = self.tokens().clone();
        let before = tokens.insert(name.to_owned(), identity.clone());
        if tokens.len() > TOKENS_MAX {
            return Err(format!("{TOKENS_MAX} tokens are attached, which is the most"));
        }
        check_tokens_apart(&tokens)?;
        let Some(before) = before else { return Ok(()) };
        if before == *identity {
            return Err(format!("token `{name}` is exactly that already"));
        }
        let holds_keys = self.keys().values().any(|key| key.group == before.group);
        if before.group != identity.group && holds_keys {
            return Err(format!(
                "token `{name}` would move from group `{}` to `{}`, and its keys with it",
                before.group, identity.group
            ));
        }
        let making = |operation: &Operation| match operation {
            Operation::Generate { token, .. } | Operation::Adopt { token, .. } => token == name,
            _ => false,
        };
        let open = self.open_intents().find(|(_, operation)| making(operation));
        if let Some((line, _)) = open.filter(|_| before.group != identity.group) {
            return Err(format!(
                "token `{name}` would move from group `{}` to `{}`, and the intent of line {line} makes a \
                 key on it; wait until it has its result",
                before.group, identity.group
            ));
        }
        let in_use = |policy: &SigningPolicy| {
            policy.ksk_group == before.group || policy.zsk_group.as_ref() == Some(&before.group)
        };
        let emptied = tokens.values().all(|token| token.group != before.group);
        match self.policies().iter().find(|(_, (_, policy))| emptied && in_use(policy)) {
            Some((policy, _)) => Err(format!(
                "group `{}` would have no token left, and policy `{policy}` names it",
                before.group
            )),
            None => Ok(()),
        }
    }

    /// From the box that holds the tokens: who approves sees which one gives them up. To the same box
    /// it confirms it: the line outranks what another box's mark says.
    fn can_move(&self, from: &InstanceId) -> Result<(), String> {
        let Some(holder) = self.holder() else {
            return Err(
                "no box has claimed the tokens yet; the keeper of the founding does".to_owned()
            );
        };
        if holder.instance != *from {
            return Err(format!(
                "instance {} holds the tokens since line {}; the motion moves them from {from}",
                holder.instance, holder.line
            ));
        }
        Ok(())
    }

    fn can_raise(&self, statement: &Statement, to: u64) -> Result<(), String> {
        if to <= self.time_floor() {
            return Err(format!(
                "the floor of time is {} already; expected later than that",
                time_text(self.time_floor())
            ));
        }
        if to < statement.not_before || to > statement.not_after {
            return Err(format!(
                "{} is outside the statement's own window, by which its approvals are judged",
                time_text(to)
            ));
        }
        Ok(())
    }

    /// A ledger that is older than its officers or rules can't ask them: then it is the recovery
    /// group's to say.
    fn can_go_on(
        &self,
        proposer: &PersonName,
        lost: &TreeHead,
        officers: u64,
        rules: u64,
    ) -> Result<(), String> {
        if self.tree().contains(lost) {
            return Err(format!("`{lost}` is in this ledger; nothing is lost"));
        }
        if officers.max(rules) > lost.size {
            return Err(format!(
                "officers version {officers} and rules version {rules} in {} lines; each version has a \
                 line of its own",
                lost.size
            ));
        }
        let newer = officers > self.officers_version() || rules > self.rules_version();
        let role = self.roster().person(proposer).map(|person| person.role);
        if newer && role != Some(Role::Recovery) {
            return Err(format!(
                "officers or rules are lost (version {officers} and {rules}; here {} and {}): only the \
                 recovery group can go on from here",
                self.officers_version(),
                self.rules_version()
            ));
        }
        Ok(())
    }

    fn is_bound(&self, zone: &ZoneName) -> Result<&SigningPolicy, String> {
        self.bound(zone).map(|(_, policy)| policy).map_err(|denied| denied.to_string())
    }

    fn key_of(&self, zone: &ZoneName, id: &KeyId) -> Result<&KeyRecord, String> {
        let key = self.keys().get(id).filter(|key| key.zone == *zone);
        key.ok_or_else(|| format!("{zone} has no key {id}"))
    }
}

fn next_version(what: &str, found: u64, present: u64) -> Result<(), String> {
    if present.checked_add(1) == Some(found) {
        return Ok(());
    }
    Err(format!("version {found} of {what}; it is {present} now, expected exactly one more"))
}

fn count(what: &str, found: usize, most: usize) -> Result<(), String> {
    if found == 0 || found > most {
        return Err(format!("{found} {what}; expected 1 to {most}"));
    }
    Ok(())
}

fn has_role(zone: &ZoneName, policy: &SigningPolicy, role: KeyRole) -> Result<(), String> {
    let has = policy.roles().contains(&role);
    if has { Ok(()) } else { Err(format!("the policy of {zone} has no {role}")) }
}

/// Neither in conflict nor to be destroyed for its tag.
fn is_sound(id: &KeyId, key: &KeyRecord) -> Result<(), String> {
    if let Some(why) = &key.conflict {
        return Err(format!("key {id} is refused: {why}"));
    }
    match key.collides_with {
        Some(other) => Err(format!("key {id} shares its tag with key {other}; it is destroyed")),
        None => Ok(()),
    }
}

fn wrong_stage(id: &KeyId, key: &KeyRecord, expected: &str) -> String {
    format!("{} {id} is {}; expected {expected}", key.role, key.stage)
}

fn no_token(token: &str) -> String {
    format!("there is no token `{token}`")
}
