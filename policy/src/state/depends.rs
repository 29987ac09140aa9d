//! What a motion rests on, as a hash: it stands in the statement, and the statement is void once it
//! differs. Neither the events of ZSKs are in it, nor anything that the motion is not about.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::LedgerState;
use crate::founding::TokenIdentity;
use crate::instance::Holder;
use crate::motion::Motion;
use crate::name::ZoneName;
use crate::tree::Hash;

impl LedgerState {
    /// The hash of what `motion` rests on now: of the lines
    ///
    /// ```text
    /// countersign dependencies v1
    /// origin N                          statements of before a loss are void after it
    /// officers V                        of changes of officers and rules
    /// rules V
    /// policy NAME V                     of policies and bindings (V = 0: there is none)
    /// zone ZONE POLICY V LINE           binding, or `zone ZONE unbound`
    /// key ID ROLE STAGE                 of the zone's KSKs and CSKs
    /// token NAME GROUP LABEL SERIAL     of tokens, all of them; of the making of keys, those of the
    ///                                   groups that may hold them; of an adoption, the one that is named
    /// holder INSTANCE ORIGIN LINE       of a move to another box
    /// audit TOKEN KEY
    /// freeze LINE                       of a thaw: the freeze that it ends
    /// ```
    pub fn dependencies(&self, motion: &Motion) -> Hash {
        let mut text = format!("countersign dependencies v1\norigin {}\n", self.origin());
        self.write_dependencies(motion, &mut text);
        Hash::of(text.as_bytes())
    }

    fn write_dependencies(&self, motion: &Motion, text: &mut String) {
        // Writing to a String can't fail.
        match motion {
            Motion::ChangeOfficers { .. }
            | Motion::ChangeRules { .. }
            | Motion::NewOrigin { .. } => {
                let _ = writeln!(text, "officers {}", self.officers_version());
                let _ = writeln!(text, "rules {}", self.rules_version());
            }
            Motion::SetPolicy { name, .. } => self.write_policy(name, text),
            Motion::BindZone { zones, policy } => {
                self.write_policy(policy, text);
                for zone in zones {
                    self.write_zone(zone, text);
                }
            }
            Motion::AttachToken { .. } => self.write_tokens(text, |_, _| true),
            Motion::MoveAppliance { .. } => {
                if let Some(holder) = self.holder() {
                    let Holder { instance, origin, line } = holder;
                    let _ = writeln!(text, "holder {instance} {origin} {line}");
                }
            }
            Motion::ReplaceAuditKey { .. } => {
                self.write_tokens(text, |_, _| true);
                if let Some((token, key)) = self.audit() {
                    let _ = writeln!(text, "audit {token:?} {}", key.public().id());
                }
            }
            // The floor moves with every line, and the motion holds the time that it is about.
            Motion::RaiseTimeFloor { .. } => {}
            Motion::Thaw { scope } => {
                let line = self.freeze(scope).map_or(0, |freeze| freeze.line);
                let _ = writeln!(text, "freeze {line}");
            }
            Motion::GenerateKey { zones, role, .. } => {
                for zone in zones {
                    self.write_zone(zone, text);
                }
                let policies = zones.iter().filter_map(|zone| self.policy_of(zone));
                let groups: BTreeSet<&str> =
                    policies.filter_map(|policy| policy.group_for(*role)).collect();
                self.write_tokens(text, |_, token| groups.contains(token.group.as_str()));
            }
            Motion::AdoptKey { zone, token, .. } => {
                self.write_zone(zone, text);
                self.write_tokens(text, |name, _| name == token);
            }
            Motion::UnbindZone { .. }
            | Motion::ActivateKey { .. }
            | Motion::RetireKey { .. }
            | Motion::DestroyKey { .. }
            | Motion::SignDnskeySet { .. }
            | Motion::ExportDs { .. }
            | Motion::PublishCds { .. }
            | Motion::DeleteDs { .. } => {
                for zone in motion.zones() {
                    self.write_zone(zone, text);
                }
            }
        }
    }

    fn write_policy(&self, name: &str, text: &mut String) {
        let version = self.policies().get(name).map_or(0, |(version, _)| *version);
        let _ = writeln!(text, "policy {name:?} {version}");
    }

    fn write_zone(&self, zone: &ZoneName, text: &mut String) {
        match self.zones().get(zone) {
            Some(binding) => {
                let policy = &binding.policy;
                let version = self.policies().get(policy).map_or(0, |(version, _)| *version);
                let _ = writeln!(text, "zone {zone} {policy:?} {version} {}", binding.line);
            }
            None => {
                let _ = writeln!(text, "zone {zone} unbound");
            }
        }
        for (id, key) in self.keys_of(zone).filter(|(_, key)| key.role.signs_dnskey()) {
            let _ = writeln!(text, "key {id} {} {}", key.role, key.stage);
        }
    }

    fn write_tokens(&self, text: &mut String, which: impl Fn(&str, &TokenIdentity) -> bool) {
        for (name, token) in self.tokens().iter().filter(|(name, token)| which(name, token)) {
            let (group, label, serial) = (&token.group, &token.label, &token.serial);
            let _ = writeln!(text, "token {name:?} {group:?} {label:?} {serial:?}");
        }
    }
}
