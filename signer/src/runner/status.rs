//! What others may see of a zone's runner, and what they may ask of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use countersign_policy::ZoneName;
use countersign_zone::ReceivedZone;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::schedule::Schedule;
use crate::store::{Frozen, Kept, Record};

/// Commands that wait for a zone's runner. A NOTIFY that finds the queue full is dropped: those
/// ahead of it ask for the same check.
pub const COMMANDS_MAX: usize = 16;

/// What a zone's runner is asked.
#[derive(Debug)]
pub enum Command {
    /// A NOTIFY came from a primary; its trace id.
    Notified,
    /// Ask the primary now, and try now what failed.
    Refresh,
    /// Take this as the zone's new data.
    Push(Push),
    /// Let the data out that waits for a person.
    Release {
        /// What was looked at: something else may have come meanwhile.
        looked: Looked,
        /// Who says so.
        by: String,
        /// As a push's.
        progress: mpsc::Sender<Progress>,
    },
    /// Let it go.
    Reject {
        /// What was looked at.
        looked: Looked,
        /// Who says so.
        by: String,
        /// Answered when it is so and durable, or with what was wrong.
        done: oneshot::Sender<Result<(), String>>,
    },
    /// Put an earlier version up again, under a higher serial.
    Republish {
        /// The serial that it was published under.
        version: u32,
        /// Who says so.
        by: String,
        /// As a push's.
        progress: mpsc::Sender<Progress>,
    },
    /// Let no new version out.
    Freeze {
        /// Who says so.
        by: String,
        /// Answered when it is durable.
        done: oneshot::Sender<Result<Frozen, String>>,
    },
    /// Let them out again.
    Thaw {
        /// Answered when it is durable.
        done: oneshot::Sender<Result<(), String>>,
    },
}

/// What a person looked at before they decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// Its serial.
    pub serial: u32,
    /// The first digits of its digest, hexadecimal. Two pushes may have one serial.
    pub digest: Option<String>,
}

/// A zone that someone has pushed.
#[derive(Debug)]
pub struct Push {
    /// The data, read to its end.
    pub zone: ReceivedZone,
    /// Who pushed it, as the API knew them.
    pub by: String,
    /// Told of each step; the last is one that [`Progress::is_last`]. Nobody waits for a reader that
    /// is slow or gone.
    pub progress: mpsc::Sender<Progress>,
}

/// How far a push has come. The names are those of the API's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Progress {
    /// The whole zone is here.
    Received {
        /// Its records.
        records: u64,
        /// The serial of its SOA.
        serial: u32,
    },
    /// It is a zone that may be signed.
    Admitted,
    /// The version is planned.
    Planned {
        /// Signatures to be made.
        signatures: u64,
        /// Signatures that are kept.
        kept: u64,
    },
    /// They are made.
    Signed,
    /// The version is verified.
    Verified,
    /// The last: it is up.
    Published {
        /// Under this serial.
        serial: u32,
    },
    /// The last: it is what is up already.
    Unchanged {
        /// Under this serial.
        serial: u32,
    },
    /// The last: a person has to release it.
    Held {
        /// Why.
        reasons: Vec<String>,
    },
    /// The last: it waits for something else, and goes on by itself.
    Waits {
        /// For what.
        reason: String,
    },
    /// The last: it is refused, and what was up stays.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

impl Progress {
    /// Whether nothing comes after it.
    pub const fn is_last(&self) -> bool {
        !matches!(
            self,
            Self::Received { .. }
                | Self::Admitted
                | Self::Planned { .. }
                | Self::Signed
                | Self::Verified
        )
    }
}

/// What a zone's runner shows.
#[derive(Debug, Clone)]
pub struct Status {
    /// When what, and what is wrong.
    pub schedule: Schedule,
    /// There while no new version may go out.
    pub frozen: Option<Frozen>,
    /// When the version that is up was stored.
    pub published_at_s: Option<u64>,
    /// The versions that are on disk, newest first.
    pub versions: Arc<[Record]>,
    /// New data that waits for a person, or was let out by one and is not up yet.
    pub held: Option<Kept>,
    /// New data that waits for the keeper, or a thaw.
    pub waiting: Option<Kept>,
    /// What is being done.
    pub doing: Doing,
    /// Name of the signing policy, once the keeper told it.
    pub policy: Option<String>,
}

/// What a zone's runner is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Waiting for a timer or a NOTIFY.
    Idle,
    /// Asking the primaries.
    Checking,
    /// Signing, verifying or storing.
    Signing,
}

impl Doing {
    /// As in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Checking => "checking",
            Self::Signing => "signing",
        }
    }
}

/// The way to one zone's runner.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Bounded by [`COMMANDS_MAX`].
    pub commands: mpsc::Sender<Command>,
    /// What it shows.
    pub status: watch::Receiver<Status>,
}

/// All zones that run, swapped as a whole at a reload.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    zones: Arc<ArcSwap<BTreeMap<ZoneName, Handle>>>,
}

impl Directory {
    /// The zones, in order.
    pub fn zones(&self) -> Arc<BTreeMap<ZoneName, Handle>> {
        self.zones.load_full()
    }

    /// The way to one zone.
    pub fn zone(&self, name: &ZoneName) -> Option<Handle> {
        self.zones.load().get(name).cloned()
    }

    /// Replaces them all.
    pub fn replace(&self, zones: BTreeMap<ZoneName, Handle>) {
        self.zones.store(Arc::new(zones));
    }
}
