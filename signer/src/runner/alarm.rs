//! What a zone alarms about, and what the reader should do.

use serde::Serialize;

use super::schedule::FailureKind;

/// Sorts of alarm, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlarmKind {
    /// The version that is up has signatures past their expiration.
    SignaturesExpired,
    /// It has some that are not valid yet.
    SignaturesEarly,
    /// It will soon be past the expiration of some.
    SignaturesExpiring,
    /// A version from disk is damaged or does not verify.
    VersionDistrusted,
    /// New signatures did not verify.
    VerificationFailed,
    /// Nothing has ever been published.
    NoVersion,
    /// Officers have not decided yet what the zone needs to be signed: its binding, a KSK, or a
    /// DNSKEY set.
    WaitsForOfficers,
    /// Keeper or HSM do not sign.
    SigningFailed,
    /// The DS of a zone bound here is not what was approved.
    DsNotApproved,
    /// A new version can't be stored.
    StoreFailed,
    /// What the primary sent is refused.
    DataRefused,
    /// New data waits for a person.
    VersionHeld,
    /// The approval of the DNSKEY RRset ends, and its signatures with it.
    ApprovalEnding,
    /// The zone says less to its parent than it may.
    CdsWithheld,
    /// Signatures are due, and something else must come first.
    RefreshWaits,
    /// The primary has been away past SOA expire.
    PrimaryExpired,
    /// No primary gives the zone.
    PrimaryUnreachable,
}

impl AlarmKind {
    /// Every kind, for metrics.
    pub const ALL: [Self; 17] = [
        Self::SignaturesExpired,
        Self::SignaturesEarly,
        Self::SignaturesExpiring,
        Self::VersionDistrusted,
        Self::VerificationFailed,
        Self::NoVersion,
        Self::WaitsForOfficers,
        Self::SigningFailed,
        Self::DsNotApproved,
        Self::StoreFailed,
        Self::DataRefused,
        Self::VersionHeld,
        Self::ApprovalEnding,
        Self::CdsWithheld,
        Self::RefreshWaits,
        Self::PrimaryExpired,
        Self::PrimaryUnreachable,
    ];

    /// The alarm that a failure raises.
    pub const fn of(failure: FailureKind) -> Self {
        match failure {
            FailureKind::Transfer => Self::PrimaryUnreachable,
            FailureKind::Admission => Self::DataRefused,
            FailureKind::Keeper => Self::SigningFailed,
            FailureKind::Officers => Self::WaitsForOfficers,
            FailureKind::DsNotApproved => Self::DsNotApproved,
            FailureKind::Cds => Self::CdsWithheld,
            FailureKind::Verification => Self::VerificationFailed,
            FailureKind::Store => Self::StoreFailed,
            FailureKind::WaitsForPrimary => Self::RefreshWaits,
        }
    }

    /// As in JSON and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignaturesExpired => "signatures-expired",
            Self::SignaturesExpiring => "signatures-expiring",
            Self::VersionDistrusted => "version-distrusted",
            Self::VerificationFailed => "verification-failed",
            Self::NoVersion => "no-version",
            Self::SignaturesEarly => "signatures-early",
            Self::WaitsForOfficers => "waits-for-officers",
            Self::SigningFailed => "signing-failed",
            Self::DsNotApproved => "ds-not-approved",
            Self::ApprovalEnding => "approval-ending",
            Self::CdsWithheld => "cds-withheld",
            Self::StoreFailed => "store-failed",
            Self::DataRefused => "data-refused",
            Self::VersionHeld => "version-held",
            Self::RefreshWaits => "refresh-waits",
            Self::PrimaryExpired => "primary-expired",
            Self::PrimaryUnreachable => "primary-unreachable",
        }
    }

    /// What the reader should do. The last good version is up in every case.
    pub const fn next_step(self) -> &'static str {
        match self {
            Self::SignaturesExpired | Self::SignaturesExpiring => {
                "see the other alarms of this zone for what keeps it from being signed anew"
            }
            Self::VersionDistrusted => {
                "the zone is signed anew by itself; find out who or what changed the files under state_dir"
            }
            Self::VerificationFailed => {
                "nothing was published; see `countersign hsm status`: a token may give wrong signatures"
            }
            Self::NoVersion => "see the other alarms of this zone",
            Self::SigningFailed => {
                "see `countersign hsm status` and the keeper's log; it is tried again by itself"
            }
            Self::StoreFailed => "see to the disk under state_dir; it is tried again by itself",
            Self::DataRefused => {
                "correct the zone at its source and raise its serial; the reason names the record"
            }
            Self::VersionHeld => {
                "look at `countersign zone diff ZONE up held`, then `countersign zone release` or `zone reject` it; a newer version from its source is judged by itself"
            }
            Self::SignaturesEarly => {
                "the clock was ahead when they were made: see to it. The zone is signed anew by itself"
            }
            Self::WaitsForOfficers => {
                "officers propose and approve what the reason names; the zone is signed by itself as soon as that is in force"
            }
            Self::DsNotApproved => {
                "officers approve `export-ds` for the zone below, or its DS is corrected at the primary; it is tried again by itself"
            }
            Self::ApprovalEnding => {
                "officers approve the next DNSKEY set (`countersign propose sign-dnskey-set`) before this one ends: the zone is bogus without"
            }
            Self::CdsWithheld => {
                "see the keeper's notices in `countersign daemon status`; it is tried again by itself. The zone itself is not affected"
            }
            Self::RefreshWaits => {
                "raise the serial at the primary, or thaw the zone if it is frozen"
            }
            Self::PrimaryExpired | Self::PrimaryUnreachable => {
                "see to the primary, its address and certificates; it is asked again by itself"
            }
        }
    }
}

/// Something that needs attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// What sort.
    pub kind: AlarmKind,
    /// What was wrong, and where.
    pub reason: String,
    /// Since when, seconds since 1970.
    pub since_s: u64,
    /// When it is tried again by itself, if it is.
    pub retry_at_s: Option<u64>,
}
