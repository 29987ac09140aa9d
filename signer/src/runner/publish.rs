//! From verified to stored to published: the one place where a version goes up, and what is told of
//! it afterwards.

use std::sync::Arc;

use countersign_policy::ZoneName;
use countersign_zone::verify::VerifiedZone;
use tracing::Instrument as _;

use super::jobs::Signed;
use super::new_data::NewData;
use super::schedule::{Event, Failure, FailureKind, Up};
use super::task::ZoneTask;
use super::{Context, differences};
use crate::clock::now_s;
use crate::published::Published;
use crate::store::{Kept, Meta, Record, Slot, Source};

/// Attempts to tell the keeper that a version went out. It is for the ledger's count of ZSK
/// signatures; the zone is out in any case, and the next version's line covers what this one
/// missed.
const TELL_KEEPER_ATTEMPTS: u32 = 5;

impl ZoneTask {
    /// Stores a verified version, then puts it up. In this order: what was ever up is there
    /// after a restart.
    pub(super) async fn publish(&mut self, signed: Signed) -> Event {
        let Signed { version, incoming_serial, signing, saying, withheld, exact, remarks, new } =
            signed;
        if let Some(frozen) = &self.frozen {
            tracing::warn!(by = frozen.by, "a version is ready, and dropped: the zone is frozen");
            let reason = format!("the zone is frozen by {}; it goes out after the thaw", frozen.by);
            // What is up may have been signed again while new data waits.
            self.new = new.or(self.new.take());
            return match self.keep_waiting(&reason).await {
                Ok(()) => Event::Withheld,
                Err(failure) => self.arrival_refused(failure, false).await,
            };
        }
        let now_s = now_s();
        let version = Arc::new(version);
        let up = signing.up(&version, incoming_serial, saying, now_s);
        let mut meta = self.meta(new.as_ref(), exact, &up, now_s);
        meta.remarks.data.extend(remarks.data);
        meta.remarks.signing = remarks.signing;
        let published = Arc::new(Published::new(&version));
        let kept = self.settings.borrow().treatment.differences;
        let step = differences::step_to(&self.context, &published, kept);
        let record = match self.save(version.clone(), meta).await {
            Ok(record) => record,
            Err(failure) => return self.try_later(failure, new).await,
        };
        if let Err(error) = self.context.catalogue.publish(published) {
            return self.try_later(Failure::new(FailureKind::Store, error), new).await;
        }
        tracing::info!(
            serial = version.serial(),
            incoming_serial,
            expires = %crate::clock::Civil::of(up.expires_s),
            "published"
        );
        self.context.metrics.published();
        // It is up. Secondaries are told once they can have the difference.
        differences::keep(&self.context, &self.zone, step, kept).await;
        (self.context.announce)(&self.zone);
        tokio::spawn(
            tell_keeper(self.context.clone(), self.zone.clone(), record.serial, version.digest())
                .in_current_span(),
        );
        self.version = Some(version);
        if let Some(new) = &new {
            self.went_out(new, record.serial).await;
        }
        self.status.send_modify(|status| {
            status.versions = self.saved.versions().into();
            status.published_at_s = Some(record.published_at_s);
            status.policy = Some(signing.policy_name.clone());
        });
        match &withheld {
            Some(failure) => self.log_withheld(failure),
            None => self.logged = None,
        }
        Event::Published { up, params: signing.summary(), withheld }
    }

    /// What a version is stored with: of new data what is known of that, else what was known before.
    fn meta(&self, new: Option<&NewData>, exact: bool, up: &Up, now_s: u64) -> Meta {
        let before = self.saved.newest().filter(|_| new.is_none());
        Meta {
            new_data: new.is_some(),
            exact: exact && new.map_or_else(|| before.is_some_and(|b| b.exact), |new| new.exact),
            source: new.map_or_else(|| before?.source.clone(), |new| Some(new.source.clone())),
            released: new.map_or_else(|| before?.released.clone(), |new| new.released.clone()),
            remarks: before.map(|before| before.remarks.clone()).unwrap_or_default(),
            incoming_serial: up.incoming_serial,
            params: up.params,
            refresh_at_s: up.refresh_at_s,
            now_s,
        }
    }

    async fn save(&mut self, version: Arc<VerifiedZone>, meta: Meta) -> Result<Record, Failure> {
        let store = self.context.store.clone();
        let mut saved = self.saved.clone();
        // An earlier version that goes out again does not overtake what waits for a person.
        let beyond = self
            .door
            .held
            .clone()
            .filter(|_| meta.new_data && matches!(meta.source, Some(Source::Republish { .. })));
        let (saved, record) = tokio::task::spawn_blocking(move || {
            if let Some(held) = beyond {
                let data_changes = saved.data_changes() + 1;
                if let Err(error) = store.note_kept(Slot::Held, &Kept { data_changes, ..held }) {
                    return (saved, Err(error));
                }
            }
            let record = store.save(&mut saved, &version, meta);
            (saved, record)
        })
        .await
        .map_err(|error| Failure::new(FailureKind::Store, error))?;
        self.saved = saved;
        record.map_err(|error| Failure::new(FailureKind::Store, error))
    }
}

async fn tell_keeper(context: Arc<Context>, zone: ZoneName, serial: u32, digest: [u8; 32]) {
    for attempt in 0..TELL_KEEPER_ATTEMPTS {
        let (keeper, zone) = (context.keeper.clone(), zone.clone());
        match context.asking(move || keeper.published(&zone, serial, digest)).await {
            Ok(Ok(())) | Err(_) => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, serial, "the keeper was not told of the version");
                if !error.is_transient() {
                    return;
                }
            }
        }
        tokio::time::sleep(std::time::Duration::from_secs(1 << attempt)).await;
    }
}
