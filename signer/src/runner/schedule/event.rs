//! What a schedule takes and gives: events, what they carry, and the work to start.

/// Clocks are put right by seconds all the time; a version is signed anew only if its signatures
/// begin later than this from now.
const EARLY_S: u64 = 60;

/// SOA timers of the primary (RFC 1035 §3.3.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoaTimers {
    /// Between checks that succeed.
    pub refresh_s: u32,
    /// Between checks that fail.
    pub retry_s: u32,
    /// After the last check that succeeded, the data is out of date.
    pub expire_s: u32,
}

/// Bounds on the primary's timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerBounds {
    /// Never ask more often.
    pub min_s: u32,
    /// Never ask less often.
    pub max_s: u32,
}

/// The version that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Up {
    /// Its serial.
    pub serial: u32,
    /// The primary's serial of its data.
    pub incoming_serial: u32,
    /// When its first signature expires.
    pub expires_s: u64,
    /// When its last signature begins to be valid.
    pub valid_from_s: u64,
    /// When its first signature is due to be made anew, or what it says to its parent to go.
    pub refresh_at_s: u64,
    /// Digest of the policy, keys and approvals that it is signed under.
    pub params: [u8; 32],
}

impl Up {
    /// Whether some of its signatures are not valid yet: the clock was ahead when they were made.
    pub(super) fn is_early(&self, now_s: u64) -> bool {
        self.valid_from_s > now_s.saturating_add(EARLY_S)
    }
}

/// What the keeper says that the zone is to be signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// Digest of policy, keys and approvals.
    pub digest: [u8; 32],
    /// The same without what is said to the parent; equal to it where that is nothing.
    pub digest_silent: [u8; 32],
    /// Serial policy `keep`: only the primary's next serial can carry new signatures.
    pub keep: bool,
    /// When the approval of the DNSKEY RRset ends, where it does.
    pub dnskey: Option<Ending>,
}

/// An approval that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// When.
    pub ends_s: u64,
    /// From when on someone should see to the next.
    pub attention_s: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A listed primary says that there is something new.
    Notified,
    /// An operator wants the primary asked and what failed tried now.
    RefreshRequested,
    /// The zone's peers, limits or settings may have changed.
    Reloaded,
    /// No new version may go out.
    Frozen,
    /// They may again.
    Thawed,
    /// The time asked for by [`Schedule::wake_at`] came, or nothing in particular.
    Tick,
    /// A check ended well.
    Checked {
        /// The primary had new data, which is to be signed: its serial.
        new_data: Option<u32>,
        /// The primary's timers.
        timers: SoaTimers,
        /// From the keeper, if it answered.
        params: Option<Params>,
    },
    /// A check failed.
    CheckFailed {
        /// Why.
        failure: Failure,
        /// From the keeper, if it answered.
        params: Option<Params>,
    },
    /// A version was signed, verified, stored and published.
    Published {
        /// What is up now.
        up: Up,
        /// From the keeper.
        params: Params,
        /// Why CDS and CDNSKEY are not in it, or keep old signatures, where that is so.
        withheld: Option<Failure>,
    },
    /// The keeper was asked about the zone, and nothing else.
    Learned(Params),
    /// A version was to be made for CDS and CDNSKEY, and they are not signed.
    CdsRefused(Failure),
    /// The same, and there is nothing to be said to the parent any more.
    CdsOver(Params),
    /// That did not come about.
    SignFailed(Failure),
    /// A version was ready when the zone was frozen: it is signed again after the thaw.
    Withheld,
    /// New data that did not come from a check is to be signed: its serial.
    Arrived(u32),
    /// The new data is what is up already.
    Unchanged {
        /// From the keeper.
        params: Params,
        /// What is to be signed in its place.
        instead: Option<u32>,
    },
    /// The new data waits for a person, and nothing else.
    Held(AwaitsPerson),
    /// Nothing waits for a person any more.
    NoneHeld,
    /// A person has rejected the primary's data of this serial.
    Rejected(u32),
    /// New data that did not come from a check is refused.
    ArrivalRefused {
        /// Why.
        failure: Failure,
        /// Who brought it was not told: it is for an alarm to say.
        untold: bool,
        /// What is to be signed in its place.
        instead: Option<u32>,
    },
    /// The version that a restart resumed does not verify.
    Distrusted(String),
}

/// New data that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwaitsPerson {
    /// The serial that its source gave it.
    pub serial: u32,
    /// Since when.
    pub since_s: u64,
    /// Why.
    pub reason: String,
    /// Whether it came from a primary, which is not asked for it again.
    pub fetched: bool,
}

/// Why a piece of work failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What sort.
    pub kind: FailureKind,
    /// What was wrong, and where.
    pub detail: String,
}

/// Sorts of failure, by what follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No primary gave the zone.
    Transfer,
    /// The primary's data is not a zone that can be signed, or its serial can't be used: the data
    /// is dropped, and asked for again later.
    Admission,
    /// The keeper, or the HSM behind it, did not sign.
    Keeper,
    /// The keeper waits for officers: there is no binding, no active KSK, or no DNSKEY set in force.
    Officers,
    /// The DS of a zone that is bound here is not what its officers exported.
    DsNotApproved,
    /// CDS and CDNSKEY are not signed, or must not be published.
    Cds,
    /// It did, and a check of ours failed.
    Verification,
    /// The version could not be stored.
    Store,
    /// Serial policy `keep`: the primary's next serial must come first.
    WaitsForPrimary,
}

/// The work to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Ask the primaries, and fetch what is newer than the data that is here.
    Check,
    /// Sign the new data.
    SignNew {
        /// Whether signatures of the version that is up may be kept where they are still good.
        reuse: bool,
    },
    /// Sign the data of the published version anew.
    SignAgain {
        /// The same.
        reuse: bool,
    },
    /// The same if CDS and CDNSKEY can be signed, and not else.
    SignCds {
        /// The same.
        reuse: bool,
    },
}
