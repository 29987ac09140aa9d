//! Motions: what is put to a vote, an operation and all its parameters; and who may propose and approve
//! which.
//!
//! A motion takes effect at the ledger's `Begun` line, in one step, except for what an HSM has to
//! do: making, adopting and destroying keys, and marking tokens are intents under that line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::checkpoint::AuditKey;
use crate::ds::DsDigest;
use crate::founding::TokenIdentity;
use crate::instance::InstanceId;
use crate::key::{KeyId, KeyRole};
use crate::name::ZoneName;
use crate::officer::{Officer, PersonName, Role};
use crate::rule::{RecoveryRule, Rules};
use crate::signing::SigningPolicy;
use crate::tree::TreeHead;

#[cfg(test)]
mod tests;

/// Zones in one motion: a text of this many lines can still be read by those who sign it.
pub const ZONES_MAX: usize = 100;

/// What may be done under a quorum. Field order here is line order in the statement's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Motion {
    /// Enrol persons, retire persons, or replace them: one whose name is in both gets new keys or
    /// another role. Needs the quorum of the old roster and of the new one.
    ChangeOfficers {
        /// The version that results: the present one plus 1.
        version: u64,
        /// Who leaves.
        retire: BTreeSet<PersonName>,
        /// Who comes.
        enrol: BTreeMap<PersonName, Officer>,
    },
    /// Replace all quorum rules. Needs the quorum of the old rules and of the new ones.
    ChangeRules {
        /// The version that results: the present one plus 1.
        version: u64,
        /// The rules.
        rules: Rules,
        /// The recovery group's rule.
        recovery: Option<RecoveryRule>,
    },
    /// Define or replace a signing policy.
    SetPolicy {
        /// Its name.
        name: String,
        /// The version that results: 1 for a new one, else the present one plus 1.
        version: u64,
        /// The policy.
        policy: SigningPolicy,
    },
    /// Bind zones to a policy: they are signed here from then on.
    BindZone {
        /// The zones.
        zones: BTreeSet<ZoneName>,
        /// The policy.
        policy: String,
    },
    /// Sign zones here no longer.
    UnbindZone {
        /// The zones.
        zones: BTreeSet<ZoneName>,
    },
    /// Make a KSK or CSK for each of the zones.
    GenerateKey {
        /// The zones.
        zones: BTreeSet<ZoneName>,
        /// `Ksk` or `Csk`.
        role: KeyRole,
        /// Publish it and sign with it as soon as it is there; else it waits for `ActivateKey`.
        activate: bool,
    },
    /// Take over a key that something else made on a token.
    AdoptKey {
        /// The zone.
        zone: ZoneName,
        /// Any role: a ZSK that caches still know is taken over too.
        role: KeyRole,
        /// The token that holds it, by name.
        token: String,
        /// The key.
        key: KeyId,
        /// Publish it and sign with it at once.
        activate: bool,
    },
    /// Publish a key's DNSKEY, and sign with it.
    ActivateKey {
        /// The zone.
        zone: ZoneName,
        /// The key, a KSK or CSK that is there.
        key: KeyId,
    },
    /// Take a key's DNSKEY out; it stays in its HSM.
    RetireKey {
        /// The zone.
        zone: ZoneName,
        /// The key.
        key: KeyId,
    },
    /// Destroy a key on every token that holds it. It must not be active.
    DestroyKey {
        /// The zone.
        zone: ZoneName,
        /// The key.
        key: KeyId,
    },
    /// Sign exactly this DNSKEY RRset, in place of what would be signed by itself, until the
    /// statement's finish-by; no signature of it is valid for longer.
    SignDnskeySet {
        /// The zone.
        zone: ZoneName,
        /// The keys that the RRset holds.
        keys: BTreeSet<KeyId>,
    },
    /// Hand out DS records, until the statement's finish-by.
    ExportDs {
        /// The zone.
        zone: ZoneName,
        /// The keys that they name.
        keys: BTreeSet<KeyId>,
        /// With which digests.
        digests: BTreeSet<DsDigest>,
    },
    /// Publish CDS and CDNSKEY in the zone, until the statement's finish-by.
    PublishCds {
        /// The zone.
        zone: ZoneName,
        /// The keys that they name.
        keys: BTreeSet<KeyId>,
        /// CDS: with which digests.
        digests: BTreeSet<DsDigest>,
    },
    /// Publish the delete form (RFC 8078 §4), until the statement's finish-by.
    DeleteDs {
        /// The zone.
        zone: ZoneName,
    },
    /// Add a token, or have another one take the place of the one with this name.
    AttachToken {
        /// Its name.
        name: String,
        /// What it is.
        identity: TokenIdentity,
    },
    /// Have another box take the tokens: the one before uses no key of them any more.
    MoveAppliance {
        /// The instance that holds them now.
        from: InstanceId,
        /// The one that takes them; the same one where it is to outrank another's mark.
        to: InstanceId,
    },
    /// Seal the ledger with another audit key from now on.
    ReplaceAuditKey {
        /// The token that holds it, by name.
        token: String,
        /// The key.
        key: AuditKey,
    },
    /// Raise the floor of time, after a long outage.
    RaiseTimeFloor {
        /// Seconds since 1970. The approvals are judged at this time.
        to: u64,
    },
    /// End a freeze.
    Thaw {
        /// What was frozen.
        scope: Scope,
    },
    /// Go on with a ledger that is older than what a token says: the lines between are lost.
    NewOrigin {
        /// What the token says.
        lost: TreeHead,
        /// The version of officers that the token says.
        officers: u64,
        /// The version of rules that the token says.
        rules: u64,
    },
}

/// What a freeze holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Every KSK and CSK.
    All,
    /// Those of one zone.
    Zone(ZoneName),
}

/// The sorts of motions: a quorum rule is about one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is documented at the motion of its name")]
pub enum MotionKind {
    ChangeOfficers,
    ChangeRules,
    SetPolicy,
    BindZone,
    UnbindZone,
    GenerateKey,
    AdoptKey,
    ActivateKey,
    RetireKey,
    DestroyKey,
    SignDnskeySet,
    ExportDs,
    PublishCds,
    DeleteDs,
    AttachToken,
    MoveAppliance,
    ReplaceAuditKey,
    RaiseTimeFloor,
    Thaw,
    NewOrigin,
}

/// Who proposes a sort of motion, and whom its rule may name.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The sort.
    pub kind: MotionKind,
    /// Roles that may propose it.
    pub proposes: &'static [Role],
    /// Roles that a rule may give a vote.
    pub approves: &'static [Role],
    /// The recovery group may carry it too, by its own rule.
    pub recovery: bool,
}

const ALL_BUT_AUDITOR: &[Role] = &[Role::Operator, Role::KeyOfficer, Role::PolicyOfficer];
const POLICY_SIDE: &[Role] = &[Role::Operator, Role::PolicyOfficer];
const KEY_SIDE: &[Role] = &[Role::Operator, Role::KeyOfficer];
const OFFICERS: &[Role] = &[Role::KeyOfficer, Role::PolicyOfficer];

const fn row(kind: MotionKind, proposes: &'static [Role], recovery: bool) -> Row {
    Row { kind, proposes, approves: OFFICERS, recovery }
}

/// The one table of roles and operations. Beside it: anyone on the roster freezes; who proposed
/// withdraws; operators and auditors have no vote; the recovery group has one only where the last
/// column says so. A rule about a key ([`MotionKind::is_about_keys`]) always gives key officers one.
pub const TABLE: [Row; 20] = [
    row(MotionKind::ChangeOfficers, ALL_BUT_AUDITOR, true),
    row(MotionKind::ChangeRules, ALL_BUT_AUDITOR, true),
    row(MotionKind::SetPolicy, POLICY_SIDE, false),
    row(MotionKind::BindZone, POLICY_SIDE, false),
    row(MotionKind::UnbindZone, POLICY_SIDE, false),
    row(MotionKind::GenerateKey, KEY_SIDE, false),
    row(MotionKind::AdoptKey, KEY_SIDE, false),
    row(MotionKind::ActivateKey, KEY_SIDE, false),
    row(MotionKind::RetireKey, KEY_SIDE, false),
    row(MotionKind::DestroyKey, KEY_SIDE, false),
    row(MotionKind::SignDnskeySet, KEY_SIDE, false),
    row(MotionKind::ExportDs, KEY_SIDE, false),
    row(MotionKind::PublishCds, KEY_SIDE, false),
    row(MotionKind::DeleteDs, KEY_SIDE, false),
    row(MotionKind::AttachToken, KEY_SIDE, false),
    row(MotionKind::MoveAppliance, KEY_SIDE, false),
    row(MotionKind::ReplaceAuditKey, ALL_BUT_AUDITOR, false),
    row(MotionKind::RaiseTimeFloor, ALL_BUT_AUDITOR, false),
    row(MotionKind::Thaw, ALL_BUT_AUDITOR, false),
    row(MotionKind::NewOrigin, ALL_BUT_AUDITOR, true),
];

impl MotionKind {
    /// All of them, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.kind)
    }

    /// Its row of the table.
    pub fn row(self) -> &'static Row {
        // The table holds every kind, in order: a test holds that.
        &TABLE[self as usize]
    }

    /// Whether it touches a KSK or the parent, or where KSKs are used.
    pub const fn is_about_keys(self) -> bool {
        matches!(
            self,
            Self::GenerateKey
                | Self::AdoptKey
                | Self::ActivateKey
                | Self::RetireKey
                | Self::DestroyKey
                | Self::SignDnskeySet
                | Self::ExportDs
                | Self::PublishCds
                | Self::DeleteDs
                | Self::AttachToken
                | Self::MoveAppliance
        )
    }

    /// As texts spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChangeOfficers => "change-officers",
            Self::ChangeRules => "change-rules",
            Self::SetPolicy => "set-policy",
            Self::BindZone => "bind-zone",
            Self::UnbindZone => "unbind-zone",
            Self::GenerateKey => "generate-key",
            Self::AdoptKey => "adopt-key",
            Self::ActivateKey => "activate-key",
            Self::RetireKey => "retire-key",
            Self::DestroyKey => "destroy-key",
            Self::SignDnskeySet => "sign-dnskey-set",
            Self::ExportDs => "export-ds",
            Self::PublishCds => "publish-cds",
            Self::DeleteDs => "delete-ds",
            Self::AttachToken => "attach-token",
            Self::MoveAppliance => "move-appliance",
            Self::ReplaceAuditKey => "replace-audit-key",
            Self::RaiseTimeFloor => "raise-time-floor",
            Self::Thaw => "thaw",
            Self::NewOrigin => "new-origin",
        }
    }
}

impl fmt::Display for MotionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MotionKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::all().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is no operation under quorum"))
    }
}

impl Motion {
    /// What sort it is.
    pub fn kind(&self) -> MotionKind {
        match self {
            Self::ChangeOfficers { .. } => MotionKind::ChangeOfficers,
            Self::ChangeRules { .. } => MotionKind::ChangeRules,
            Self::SetPolicy { .. } => MotionKind::SetPolicy,
            Self::BindZone { .. } => MotionKind::BindZone,
            Self::UnbindZone { .. } => MotionKind::UnbindZone,
            Self::GenerateKey { .. } => MotionKind::GenerateKey,
            Self::AdoptKey { .. } => MotionKind::AdoptKey,
            Self::ActivateKey { .. } => MotionKind::ActivateKey,
            Self::RetireKey { .. } => MotionKind::RetireKey,
            Self::DestroyKey { .. } => MotionKind::DestroyKey,
            Self::SignDnskeySet { .. } => MotionKind::SignDnskeySet,
            Self::ExportDs { .. } => MotionKind::ExportDs,
            Self::PublishCds { .. } => MotionKind::PublishCds,
            Self::DeleteDs { .. } => MotionKind::DeleteDs,
            Self::AttachToken { .. } => MotionKind::AttachToken,
            Self::MoveAppliance { .. } => MotionKind::MoveAppliance,
            Self::ReplaceAuditKey { .. } => MotionKind::ReplaceAuditKey,
            Self::RaiseTimeFloor { .. } => MotionKind::RaiseTimeFloor,
            Self::Thaw { .. } => MotionKind::Thaw,
            Self::NewOrigin { .. } => MotionKind::NewOrigin,
        }
    }
}
