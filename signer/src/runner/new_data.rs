//! New data, whatever its source, on its way through the one door: who brought it, what has been
//! decided about it, and who is to be told what becomes of it.

use std::sync::Arc;

use countersign_zone::AdmittedZone;
use countersign_zone::receive::ReceivedZone;
use tokio::sync::mpsc;

use super::status::{Looked, Progress, Push};
use crate::store::{Decision, Records, Source};

/// New data on its way to being signed.
#[derive(Debug)]
pub(super) struct NewData {
    pub form: Form,
    /// The serial that its source gave it.
    pub serial: u32,
    pub source: Source,
    /// Whether the records are as the source had them.
    pub exact: bool,
    /// Unless it is what is up already, its serial must be newer than this.
    pub beyond: Option<u32>,
    /// Who let it out, where it was held.
    pub released: Option<Decision>,
    /// Whether guard and hooks have let it pass on an earlier attempt.
    pub passed: bool,
    /// Whether it may have lost the ZONEMD that it came with: none is required of it any more.
    pub undigested: bool,
}

/// How far admission has come with it.
#[derive(Debug)]
pub(super) enum Form {
    /// As it came.
    Received(ReceivedZone),
    /// Admitted.
    Admitted(Arc<AdmittedZone>),
}

impl NewData {
    /// What the primary of this name gave.
    pub fn fetched(zone: ReceivedZone, serial: u32, name: &str) -> Self {
        Self::of(zone, serial, Source::Primary { name: Some(name.to_owned()) })
    }

    /// What has just come from a source.
    pub fn of(zone: ReceivedZone, serial: u32, source: Source) -> Self {
        Self {
            form: Form::Received(zone),
            serial,
            source,
            exact: true,
            beyond: None,
            released: None,
            passed: false,
            undigested: false,
        }
    }

    /// Its records, for the disk.
    pub fn records(&self) -> Records<'_> {
        match &self.form {
            Form::Received(zone) => Records::Received(zone),
            Form::Admitted(admitted) => Records::Admitted(admitted.records()),
        }
    }

    /// Whether nobody would bring it again.
    pub fn comes_once(&self) -> bool {
        !self.source.is_primary() || self.released.is_some()
    }

    /// Whether a person answers for it already: nothing holds it, whatever it changes.
    pub fn is_decided(&self) -> bool {
        self.released.is_some() || matches!(self.source, Source::Republish { .. })
    }
}

/// What is asked of a zone's task and may have to wait for the work that is under way.
#[derive(Debug)]
pub(super) enum Arrival {
    Push(Push),
    /// Lets the held data out that was looked at.
    Release {
        looked: Looked,
        by: String,
        progress: mpsc::Sender<Progress>,
    },
    /// Puts the version that was published under this serial up again.
    Republish {
        version: u32,
        by: String,
        progress: mpsc::Sender<Progress>,
    },
}

impl Arrival {
    /// Turns it down.
    pub fn refuse(self, reason: String) {
        let (Self::Push(Push { progress, by, .. })
        | Self::Release { progress, by, .. }
        | Self::Republish { progress, by, .. }) = self;
        Told::new(by, progress).end(Progress::Refused { reason });
    }
}

/// Who is told what becomes of new data. There is room for the last word from the start, however slow
/// its reader is with what comes before.
#[derive(Debug)]
pub(super) struct Told {
    pub by: String,
    steps: mpsc::Sender<Progress>,
    last: Option<mpsc::OwnedPermit<Progress>>,
}

impl Told {
    pub fn new(by: String, steps: mpsc::Sender<Progress>) -> Self {
        let last = steps.clone().try_reserve_owned().ok();
        Self { by, steps, last }
    }

    /// The way for what comes before the last word.
    pub fn steps(&self) -> Steps {
        Steps(Some(self.steps.clone()))
    }

    /// The last word.
    pub fn end(self, last: Progress) {
        match self.last {
            Some(permit) => drop(permit.send(last)),
            // Its channel was full before it came here.
            None => drop(self.steps.try_send(last)),
        }
    }
}

/// Tells of steps, if anyone wants to know. Nobody waits for a reader that is slow or gone.
#[derive(Debug, Clone, Default)]
pub(super) struct Steps(Option<mpsc::Sender<Progress>>);

impl Steps {
    pub fn tell(&self, step: Progress) {
        if let Some(sender) = &self.0 {
            let _ = sender.try_send(step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_is_not_lost_behind_steps_that_nobody_reads() {
        let (sender, mut receiver) = mpsc::channel(2);
        let told = Told::new("ops".to_owned(), sender);
        let steps = told.steps();
        for _ in 0..5 {
            steps.tell(Progress::Signed);
        }
        told.end(Progress::Published { serial: 7 });
        drop(steps);
        let mut seen = Vec::new();
        while let Some(step) = receiver.blocking_recv() {
            seen.push(step);
        }
        assert_eq!(seen, [Progress::Signed, Progress::Published { serial: 7 }]);
    }
}
