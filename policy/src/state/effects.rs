//! What a motion does at the line where it begins: all of it that no HSM has to do, at once. What an
//! HSM has to do becomes steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::begin::{Quorum, Running, Step};
use super::propose::Status;
use super::zones::{Binding, CDS_VALIDITY_S, CdsGrant, DsGrant, ExplicitSet};
use super::{LedgerState, Lost};
use crate::ds::{CDNSKEY_DELETE, CDS_DELETE, Delegation, DsDigest};
use crate::instance::Holder;
use crate::key::{KeyId, PublicKey};
use crate::key_state::Stage;
use crate::motion::{Motion, Scope};
use crate::name::ZoneName;
use crate::signing::SigningPolicy;
use crate::statement::Statement;

impl LedgerState {
    /// The only caller holds a [`Quorum`].
    pub(super) fn commit_begun(
        &mut self,
        (line, at): (u64, u64),
        quorum: &Quorum,
        reveals: BTreeMap<KeyId, PublicKey>,
    ) {
        let hash = quorum.statement();
        let Some(statement) = self.proposal(&hash).map(|p| Arc::clone(&p.statement)) else {
            return;
        };
        for (id, public) in reveals {
            if let Some(record) = self.keys.record_mut(&id) {
                record.public = Some(public);
            }
        }
        let steps = self.take_effect((line, at), &statement);
        if steps.is_empty() {
            self.docket.close(hash, line, Status::Begun { line, done: true });
        } else {
            self.docket.begin(hash, line);
            self.running.insert(line, Running { hash, statement, steps, is_cut: false });
        }
    }

    fn take_effect(&mut self, (line, at): (u64, u64), statement: &Statement) -> Vec<Step> {
        let until = statement.finish_by;
        match &statement.motion {
            Motion::ChangeOfficers { .. } | Motion::ChangeRules { .. } => {
                if let Some(after) = self.law.after(&statement.motion) {
                    self.law = after;
                }
            }
            Motion::SetPolicy { name, version, policy } => {
                let bound = self.zones.iter().filter(|(_, binding)| binding.policy == *name);
                let zones = bound.map(|(zone, _)| zone.clone()).collect();
                self.give_up_making(line, &zones, Some(policy));
                self.policies.insert(name.clone(), (*version, policy.clone()));
            }
            Motion::BindZone { zones, policy } => {
                let new = self.policies.get(policy).map(|(_, policy)| policy.clone());
                self.give_up_making(line, zones, new.as_ref());
                for zone in zones {
                    let binding = Binding { policy: policy.clone(), line };
                    self.zones.insert(zone.clone(), binding);
                }
            }
            Motion::UnbindZone { zones } => {
                self.give_up_making(line, zones, None);
                for zone in zones {
                    self.unbind(zone);
                }
            }
            Motion::GenerateKey { zones, role, .. } => {
                let step = |zone: &ZoneName| Step::Generate { zone: zone.clone(), role: *role };
                return zones.iter().map(step).collect();
            }
            Motion::AdoptKey { zone, role, token, key, .. } => {
                let (zone, role, token) = (zone.clone(), *role, token.clone());
                return vec![Step::Adopt { zone, role, token, key: *key }];
            }
            Motion::ActivateKey { zone, key } => self.set_stage(zone, key, Stage::Active),
            Motion::RetireKey { zone, key } => self.retire(zone, key),
            Motion::DestroyKey { zone, key } => return self.give_up(zone, key),
            Motion::SignDnskeySet { zone, keys } => {
                let set = ExplicitSet { keys: keys.clone(), at, until, begun: line };
                self.explicit.insert(zone.clone(), set);
                self.tell_no_more(zone, |key| !keys.contains(key));
            }
            Motion::ExportDs { zone, keys, digests } => {
                self.grant_ds(line, until, zone, keys, digests);
            }
            Motion::PublishCds { zone, keys, digests } => {
                if let Some(told) = self.delegation(zone, keys, digests) {
                    let rdata = (told.cds_rdata(), told.cdnskey_rdata());
                    self.grant_cds(line, until, zone, keys.clone(), rdata);
                }
            }
            Motion::DeleteDs { zone } => {
                let rdata = ([CDS_DELETE.to_vec()].into(), [CDNSKEY_DELETE.to_vec()].into());
                self.grant_cds(line, until, zone, BTreeSet::new(), rdata);
            }
            Motion::AttachToken { name, identity } => {
                // Another token under an old name carries no mark yet.
                self.marked.remove(name);
                self.tokens.insert(name.clone(), identity.clone());
            }
            Motion::MoveAppliance { to, .. } => {
                self.holder = Some(Holder { instance: *to, origin: self.origin, line });
            }
            Motion::ReplaceAuditKey { token, key } => {
                if let Some(founded) = &mut self.founded {
                    founded.audit_token.clone_from(token);
                    founded.audit_key = key.clone();
                }
            }
            Motion::RaiseTimeFloor { to } => self.time.raise(*to),
            Motion::Thaw { scope } => self.thaw(scope),
            Motion::NewOrigin { lost, officers, rules } => {
                self.origin += 1;
                self.lost.push(Lost { head: *lost, officers: *officers, rules: *rules });
                // No version is ever used twice, not even one that is lost.
                self.law.officers_version = self.law.officers_version.max(*officers);
                self.law.rules_version = self.law.rules_version.max(*rules);
            }
        }
        Vec::new()
    }

    /// What a motion that began has still to make or adopt for these zones is given up, if the policy
    /// that comes would make it another key, or elsewhere, than was approved. (None of it is under way:
    /// `is_quiet`.)
    fn give_up_making(
        &mut self,
        line: u64,
        zones: &BTreeSet<ZoneName>,
        new: Option<&SigningPolicy>,
    ) {
        let is_other = |zone: &ZoneName| match (self.policy_of(zone), new) {
            (Some(old), Some(new)) => !old.makes_keys_as(new),
            _ => true,
        };
        let over: BTreeSet<&ZoneName> = zones.iter().filter(|zone| is_other(zone)).collect();
        let makes = |step: &Step| match step {
            Step::Generate { zone, .. } | Step::Adopt { zone, .. } => over.contains(zone),
            Step::Destroy { .. } => false,
        };
        for running in self.running.values_mut() {
            let before = running.steps.len();
            running.steps.retain(|step| !makes(step));
            running.is_cut |= running.steps.len() < before;
        }
        let docket = &mut self.docket;
        self.running.retain(|_, running| {
            let goes_on = !running.steps.is_empty();
            if !goes_on {
                docket.close(running.hash, line, Status::Lapsed);
            }
            goes_on
        });
    }

    fn thaw(&mut self, scope: &Scope) {
        self.freezes.remove(scope);
    }

    /// What was approved as a whole is over when its keys change by a later quorum.
    fn set_stage(&mut self, zone: &ZoneName, key: &KeyId, stage: Stage) {
        self.explicit.remove(zone);
        if let Some(record) = self.keys.record_mut(key) {
            record.stage = stage;
        }
    }

    fn retire(&mut self, zone: &ZoneName, key: &KeyId) {
        self.set_stage(zone, key, Stage::Retired);
        self.tell_no_more(zone, |other| other == key);
    }

    /// A key that leaves the DNSKEY RRset must not be told to the parent any more. What a parent zone
    /// here may sign stays until a newer export, lest the delegation lose its signature.
    fn tell_no_more(&mut self, zone: &ZoneName, leaves: impl Fn(&KeyId) -> bool) {
        if let Some(grant) = self.ds.get_mut(zone)
            && grant.keys.iter().any(&leaves)
        {
            grant.until = 0;
        }
        if self.cds.get(zone).is_some_and(|grant| grant.keys.iter().any(&leaves)) {
            self.cds.remove(zone);
        }
    }

    fn unbind(&mut self, zone: &ZoneName) {
        self.zones.remove(zone);
        self.explicit.remove(zone);
        self.ds.remove(zone);
        self.cds.remove(zone);
    }

    /// The key is given up; it goes from every token of its group.
    fn give_up(&mut self, zone: &ZoneName, key: &KeyId) -> Vec<Step> {
        let Some(record) = self.keys.record_mut(key) else { return Vec::new() };
        record.stage = Stage::Destroying;
        let (label, group) = (record.label.clone(), record.group.clone());
        let step = |token: &str| {
            let (zone, token, label) = (zone.clone(), token.to_owned(), label.clone());
            Step::Destroy { zone, token, label, key: *key }
        };
        self.tokens_of(&group).map(step).collect()
    }

    /// What the parent is told of these keys. They are active, so their public halves are here; for
    /// keys of which that is not so there is nothing to tell.
    fn delegation(
        &self,
        zone: &ZoneName,
        keys: &BTreeSet<KeyId>,
        digests: &BTreeSet<DsDigest>,
    ) -> Option<Delegation> {
        let public = |id: &KeyId| {
            let record = self.keys().get(id)?;
            Some((record.role, record.public.clone()?))
        };
        let publics: Vec<_> = keys.iter().map(public).collect::<Option<_>>()?;
        Delegation::new(zone.clone(), publics, digests).ok()
    }

    fn grant_ds(
        &mut self,
        begun: u64,
        until: u64,
        zone: &ZoneName,
        keys: &BTreeSet<KeyId>,
        digests: &BTreeSet<DsDigest>,
    ) {
        let Some(told) = self.delegation(zone, keys, digests) else { return };
        let (keys, digests, rdata) = (keys.clone(), digests.clone(), told.cds_rdata());
        self.ds.insert(zone.clone(), DsGrant { begun, keys, digests, until, rdata });
    }

    fn grant_cds(
        &mut self,
        begun: u64,
        until: u64,
        zone: &ZoneName,
        keys: BTreeSet<KeyId>,
        (cds, cdnskey): (BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>),
    ) {
        let validity_s = self.policy_of(zone).map_or(CDS_VALIDITY_S, |policy| policy.validity_s);
        let validity_s = validity_s.min(CDS_VALIDITY_S);
        self.cds.insert(zone.clone(), CdsGrant { begun, keys, cds, cdnskey, until, validity_s });
    }
}
