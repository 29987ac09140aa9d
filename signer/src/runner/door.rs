//! The door for new data that nobody fetched: pushes, what a person releases, what a person puts up
//! again; and what becomes of any new data that can't go out at once.
//!
//! One thing at a time: what comes while the zone is at work waits, and one alone can wait. Whoever was
//! told that data is held, or waits, may forget it: it is durable before they are told.

use countersign_policy::key::to_hex;
use countersign_zone::receive::ReceivedZone;

use super::judge::not_newer;
use super::new_data::{Arrival, NewData, Told};
use super::pipeline;
use super::schedule::{AwaitsPerson, Event, Failure, Params};
use super::status::{Looked, Progress, Push};
use super::task::{ZoneTask, flatten, serial_of_soa};
use crate::clock::now_s;
use crate::store::{Decision, Kept, Slot, Source, serial_is_higher, v1};

/// Digits that tell one digest from another, for people.
const DIGEST_DIGITS_MIN: usize = 8;

/// What waits beside new data while that is tried.
#[derive(Debug, Default)]
pub(super) struct Door {
    /// Comes next.
    pub next: Option<Arrival>,
    /// Who is told what becomes of the new data; nobody where it was fetched, or was told already.
    pub told: Option<Told>,
    /// Was waiting when newer data came, and goes on if that is refused.
    pub set_aside: Option<NewData>,
    /// On disk, for a person.
    pub held: Option<Kept>,
    /// On disk, for anything else.
    pub waiting: Option<Kept>,
    /// Whether the disk remembers a serial that a person rejected.
    pub rejected: bool,
    /// To be said as soon as the status shows what they are about.
    pub last_words: Vec<(Told, Progress)>,
}

impl Door {
    /// Whoever waits for the new data hears the last of it.
    pub(super) fn end(&mut self, last: Progress) {
        if let Some(told) = self.told.take() {
            self.last_words.push((told, last));
        }
    }

    /// Newer data came: what was to be signed waits for what becomes of that. One alone can; a primary
    /// would bring its data again, others would not.
    pub(super) fn put_aside(&mut self, before: Option<NewData>) {
        if self.set_aside.is_none() || before.as_ref().is_some_and(NewData::comes_once) {
            self.set_aside = before;
        }
    }
}

impl ZoneTask {
    /// Takes something up at once, or after the work that is under way.
    pub(super) async fn arrive(&mut self, arrival: Arrival) -> Event {
        if !self.working {
            return self.take_arrival(arrival).await;
        }
        if self.door.next.is_some() {
            let zone = &self.zone;
            arrival.refuse(format!(
                "{zone} is at work, and something else waits for the end of it already; try again"
            ));
        } else {
            self.door.next = Some(arrival);
        }
        Event::Tick
    }

    pub(super) async fn take_arrival(&mut self, arrival: Arrival) -> Event {
        let taken = match arrival {
            Arrival::Push(Push { zone, by, progress }) => {
                let told = Told::new(by, progress);
                let pushed = self.pushed(zone, &told);
                (told, pushed)
            }
            Arrival::Release { looked, by, progress } => {
                let told = Told::new(by, progress);
                let released = self.released(&looked, &told.by).await;
                (told, released)
            }
            Arrival::Republish { version, by, progress } => {
                let told = Told::new(by, progress);
                let republished = self.republished(version, &told.by).await;
                (told, republished)
            }
        };
        match taken {
            (told, Ok(new)) => self.take_new(new, told).await,
            (told, Err(reason)) => {
                tracing::info!(zone = %self.zone, by = told.by, reason, "refused");
                self.door.last_words.push((told, Progress::Refused { reason }));
                Event::Tick
            }
        }
    }

    async fn take_new(&mut self, new: NewData, told: Told) -> Event {
        let serial = new.serial;
        tracing::info!(zone = %self.zone, by = told.by, serial, source = %new.source, "new data");
        let before = self.new.replace(new);
        self.door.put_aside(before);
        self.door.told = Some(told);
        if let Some(frozen) = &self.frozen {
            let reason = format!("the zone is frozen by {}; it goes out after the thaw", frozen.by);
            return match self.keep_waiting(&reason).await {
                Ok(()) => Event::Arrived(serial),
                Err(failure) => self.arrival_refused(failure, false).await,
            };
        }
        Event::Arrived(serial)
    }

    fn pushed(&self, zone: ReceivedZone, told: &Told) -> Result<NewData, String> {
        if *zone.apex() != self.zone {
            return Err(format!("this is {}; expected {}", zone.apex(), self.zone));
        }
        let serial = zone.soa().and_then(serial_of_soa);
        let serial = serial.ok_or_else(|| format!("{} has no SOA record", self.zone))?;
        // Where others count on the serials of this data, it goes forward.
        let counts = self.schedule.keeps_serials() || !self.settings.borrow().primaries.is_empty();
        let beyond = self.schedule.newest_data().filter(|_| counts);
        let up = self.schedule.up().map(|up| up.incoming_serial);
        if let Some(last) = beyond.filter(|last| !serial_is_higher(serial, *last))
            && up != Some(serial)
        {
            return Err(not_newer(serial, last));
        }
        let source = Source::Push { by: told.by.clone() };
        Ok(NewData { beyond, ..NewData::of(zone, serial, source) })
    }

    async fn released(&mut self, looked: &Looked, by: &str) -> Result<NewData, String> {
        let kept = self.held_as(looked)?;
        let serial = kept.serial;
        if let Some(frozen) = &self.frozen {
            return Err(format!("the zone is frozen by {}; thaw it first", frozen.by));
        }
        if let Some(new) = &self.new {
            return Err(format!(
                "newer data, serial {}, is on its way ({}); look again when that is decided",
                new.serial, new.source
            ));
        }
        let decision = Decision { by: by.to_owned(), at_s: now_s() };
        let (store, noted) = (self.context.store.clone(), kept.clone());
        let data_changes = self.saved.data_changes();
        let noted = Kept { released: Some(decision), data_changes, ..noted };
        let (zone, noted) = flatten(
            tokio::task::spawn_blocking(move || {
                let zone = store.kept_data(Slot::Held, &kept)?;
                store.note_kept(Slot::Held, &noted).map(|()| (zone, noted))
            })
            .await,
        )?;
        tracing::warn!(zone = %self.zone, serial, by, "released");
        self.schedule.note(Event::NoneHeld, now_s());
        let new = resumed(zone, &noted);
        self.door.held = Some(noted);
        Ok(new)
    }

    /// What waits for a person, if it is what they looked at.
    fn held_as(&self, looked: &Looked) -> Result<Kept, String> {
        let serial = looked.serial;
        match &self.door.held {
            Some(kept) if kept.released.is_some() => {
                Err(format!("serial {} was released and is on its way", kept.serial))
            }
            Some(kept) if kept.serial == serial => {
                is_of(kept, looked.digest.as_deref())?;
                Ok(kept.clone())
            }
            Some(kept) => Err(format!(
                "serial {serial} is not held; serial {} is. Look at it first: `countersign zone diff {} up held`",
                kept.serial, self.zone
            )),
            None => Err(format!("no version of {} is held", self.zone)),
        }
    }

    pub(super) async fn reject(&mut self, looked: &Looked, by: &str) -> Result<(), String> {
        let kept = self.held_as(looked)?;
        let serial = kept.serial;
        let fetched = kept.source.is_primary();
        let decision = Decision { by: by.to_owned(), at_s: now_s() };
        let store = self.context.store.clone();
        flatten(
            tokio::task::spawn_blocking(move || {
                if fetched {
                    store.reject(&kept.zone, Some((serial, decision)))?;
                }
                store.drop_kept(&kept.zone, Slot::Held)
            })
            .await,
        )?;
        tracing::warn!(zone = %self.zone, serial, by, "rejected");
        self.door.held = None;
        self.schedule.note(Event::NoneHeld, now_s());
        if fetched {
            self.door.rejected = true;
            self.schedule.note(Event::Rejected(serial), now_s());
        }
        Ok(())
    }

    async fn republished(&mut self, version: u32, by: &str) -> Result<NewData, String> {
        let versions = self.saved.versions();
        let Some(record) = versions.iter().find(|record| record.serial == version).cloned() else {
            let kept: Vec<String> = versions.iter().map(|r| r.serial.to_string()).collect();
            return Err(format!("version {version} is not kept; these are: {}", kept.join(", ")));
        };
        if self.schedule.up().is_some_and(|up| up.serial == version) {
            return Err(format!("version {version} is up"));
        }
        if let Some(frozen) = &self.frozen {
            return Err(format!("the zone is frozen by {}; thaw it first", frozen.by));
        }
        // What the source said last stays said: the data that was up is not asked for again.
        let serial = self.saved.last_incoming().unwrap_or(record.incoming_serial);
        let (store, zone) = (self.context.store.clone(), self.zone.clone());
        let read = tokio::task::spawn_blocking(move || {
            let version = store.version(&zone, &record).map_err(|error| error.to_string())?;
            pipeline::source_of(&version, serial).map_err(|failure| failure.detail)
        });
        let zone = read.await.map_err(|error| error.to_string())??;
        tracing::warn!(zone = %self.zone, version, by, "to be republished");
        let source = Source::Republish { by: by.to_owned(), of: version };
        Ok(NewData { exact: false, undigested: true, ..NewData::of(zone, serial, source) })
    }

    /// New data can't go out now and will later: where its source would not bring it again, it is made
    /// durable and whoever brought it is told.
    pub(super) async fn keep_waiting(&mut self, reason: &str) -> Result<(), Failure> {
        let on_disk =
            self.new.as_ref().is_none_or(|new| new.source.is_primary() || new.released.is_some());
        if !on_disk && self.door.told.is_some() {
            self.keep(Slot::Waiting, vec![reason.to_owned()]).await?;
            if self.door.set_aside.take().is_some_and(|aside| aside.released.is_some()) {
                self.drop_kept(Slot::Held).await;
            }
        }
        self.door.end(Progress::Waits { reason: reason.to_owned() });
        Ok(())
    }

    /// New data waits for a person. If it can't be made durable it stays where it is.
    pub(super) async fn hold(
        &mut self,
        new: NewData,
        reasons: Vec<String>,
    ) -> Result<Event, Failure> {
        let (serial, fetched) = (new.serial, new.source.is_primary());
        tracing::warn!(zone = %self.zone, serial, source = %new.source, ?reasons, "held for a person");
        self.new = Some(new);
        self.keep(Slot::Held, reasons.clone()).await?;
        self.new = None;
        self.door.set_aside = None;
        self.drop_kept(Slot::Waiting).await;
        self.door.end(Progress::Held { reasons: reasons.clone() });
        let reason = reasons.join("; ");
        Ok(Event::Held(AwaitsPerson { serial, since_s: now_s(), reason, fetched }))
    }

    /// Makes the new data durable.
    async fn keep(&mut self, slot: Slot, reasons: Vec<String>) -> Result<(), Failure> {
        let Some(new) = self.new.take() else { return Ok(()) };
        let kept = Kept {
            version: v1::VERSION,
            zone: self.zone.clone(),
            serial: new.serial,
            since_s: now_s(),
            source: new.source.clone(),
            reasons,
            exact: new.exact,
            data_changes: self.saved.data_changes(),
            records: 0,
            digest: [0; 32],
            released: None,
        };
        let store = self.context.store.clone();
        let work = tokio::task::spawn_blocking(move || {
            let kept = store.keep(slot, kept, new.records());
            (new, kept)
        });
        let fail = |error: String| Failure::new(super::schedule::FailureKind::Store, error);
        let (new, kept) = work.await.map_err(|error| fail(error.to_string()))?;
        self.new = Some(new);
        let kept = kept.map_err(|error| fail(error.to_string()))?;
        *self.slot(slot) = Some(kept);
        Ok(())
    }

    fn slot(&mut self, slot: Slot) -> &mut Option<Kept> {
        match slot {
            Slot::Held => &mut self.door.held,
            Slot::Waiting => &mut self.door.waiting,
        }
    }

    /// Lets go of what is on disk. What can't be removed is overtaken by the count of data changes.
    pub(super) async fn drop_kept(&mut self, slot: Slot) {
        let Some(kept) = self.slot(slot).take() else { return };
        let (serial, source) = (kept.serial, &kept.source);
        tracing::info!(zone = %self.zone, serial, %source, ?slot, "what was set aside is let go of");
        let (store, zone) = (self.context.store.clone(), self.zone.clone());
        let dropped =
            flatten(tokio::task::spawn_blocking(move || store.drop_kept(&zone, slot)).await);
        if let Err(error) = dropped {
            tracing::warn!(zone = %self.zone, error, "data that was set aside could not be removed");
        }
        if slot == Slot::Held {
            self.schedule.note(Event::NoneHeld, now_s());
        }
    }

    /// New data that did not come from a check is refused; what it had pushed aside goes on.
    pub(super) async fn arrival_refused(&mut self, failure: Failure, released: bool) -> Event {
        tracing::warn!(zone = %self.zone, reason = failure.detail, "new data is refused");
        self.new = self.door.set_aside.take();
        let untold = self.door.told.is_none();
        self.door.end(Progress::Refused { reason: failure.detail.clone() });
        if untold && !released {
            self.drop_kept(Slot::Waiting).await;
        }
        if released {
            self.drop_kept(Slot::Held).await;
        }
        let instead = self.new.as_ref().map(|new| new.serial);
        Event::ArrivalRefused { failure, untold, instead }
    }

    /// New data went out: what it overtakes is let go of.
    pub(super) async fn went_out(&mut self, new: &NewData, serial: u32) {
        self.door.set_aside = None;
        self.door.end(Progress::Published { serial });
        self.drop_kept(Slot::Waiting).await;
        if !matches!(new.source, Source::Republish { .. }) {
            self.drop_kept(Slot::Held).await;
        }
        if new.source.is_primary() && std::mem::take(&mut self.door.rejected) {
            let (store, zone) = (self.context.store.clone(), self.zone.clone());
            let forgotten = tokio::task::spawn_blocking(move || store.reject(&zone, None));
            if let Err(error) = flatten(forgotten.await) {
                tracing::warn!(zone = %self.zone, error, "what was rejected is still remembered");
            }
        }
    }

    /// The new data is what is up. Where its serial counts it overtakes nothing that came with a newer
    /// one; where not, it is its source's last word.
    pub(super) async fn unchanged(&mut self, counts: bool, params: Params) -> Event {
        self.new = self.door.set_aside.take().filter(|_| counts);
        // It was told to wait before, and that is over.
        let waited = self.door.told.is_none();
        let serial = self.schedule.up().map(|up| up.serial).unwrap_or_default();
        self.door.end(Progress::Unchanged { serial });
        if !counts || waited {
            self.drop_kept(Slot::Waiting).await;
        }
        if !counts {
            self.drop_kept(Slot::Held).await;
        }
        Event::Unchanged { params, instead: self.new.as_ref().map(|new| new.serial) }
    }
}

/// Whether a digest, or the beginning of one, is that of what is held. A primary does not give one serial
/// twice; whoever pushes may.
fn is_of(kept: &Kept, digest: Option<&str>) -> Result<(), String> {
    let own = kept.short_digest();
    match digest.map(str::to_ascii_lowercase) {
        None if kept.source.is_primary() => Ok(()),
        None => Err(format!(
            "serial {} was pushed, and may have been twice: name what you looked at with `--digest {own}`",
            kept.serial
        )),
        Some(given) if given.len() < DIGEST_DIGITS_MIN => Err(format!(
            "a digest of {} digits; expected {DIGEST_DIGITS_MIN} at least",
            given.len()
        )),
        Some(given) if to_hex(&kept.digest).starts_with(&given) => Ok(()),
        Some(given) => Err(format!(
            "what is held has digest {own}, not {given}: something else came. Look at it first: `countersign zone diff {} up held`",
            kept.zone
        )),
    }
}

/// Data from the disk, on its way again.
pub(super) fn resumed(zone: ReceivedZone, kept: &Kept) -> NewData {
    NewData {
        exact: kept.exact,
        released: kept.released.clone(),
        undigested: true,
        ..NewData::of(zone, kept.serial, kept.source.clone())
    }
}

/// What an alarm says of data on the disk that waits for a person.
pub(super) fn awaits_person(kept: &Kept) -> AwaitsPerson {
    AwaitsPerson {
        serial: kept.serial,
        since_s: kept.since_s,
        reason: kept.reasons.join("; "),
        fetched: kept.source.is_primary(),
    }
}

#[cfg(test)]
mod tests {
    use countersign_zone::receive::{Bounds, Receiver};

    use super::*;

    fn new(serial: u32, source: Source) -> NewData {
        let bounds = Bounds { records_max: 1, bytes_max: 100 };
        let mut receiver = Receiver::new("example.".parse().expect("name"), bounds);
        receiver.push(b"\x07example\x00", 1, 1, 60, &[192, 0, 2, 1]).expect("taken");
        NewData::of(receiver.finish().expect("whole"), serial, source)
    }

    /// Whoever pushed was told that it goes on by itself.
    #[test]
    fn what_nobody_would_bring_again_stays_beside_newer_data() {
        let mut door = Door::default();
        let push = || Source::Push { by: "ops".to_owned() };
        let aside = |door: &Door| door.set_aside.as_ref().map(|new| new.serial);
        let fetched = |serial| new(serial, Source::Primary { name: None });
        for (before, stays) in [
            (None, None),
            (Some(fetched(5)), Some(5)),
            (Some(new(6, push())), Some(6)),
            (Some(fetched(7)), Some(6)),
            (None, Some(6)),
            (Some(new(8, push())), Some(8)),
        ] {
            door.put_aside(before);
            assert_eq!(aside(&door), stays);
        }
    }
}
