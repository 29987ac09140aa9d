//! What secondaries get that ask with IXFR: the step to each version is worked out beside storing it, off
//! the threads that serve; after a start the steps between the versions on disk, in the background.
//!
//! Nothing here can keep a version from going out: without a step the whole zone is the answer.

use std::sync::Arc;

use countersign_policy::ZoneName;
use tokio::task::JoinHandle;

use super::{Context, DifferenceBounds};
use crate::outbound::differences::Step;
use crate::published::Published;
use crate::store::Record;

/// Begins to work out the step from the version that is up to `next`.
pub(super) fn step_to(
    context: &Context,
    next: &Arc<Published>,
    bounds: DifferenceBounds,
) -> JoinHandle<Option<Step>> {
    let (up, next) = (context.catalogue.current(next.apex()), next.clone());
    tokio::task::spawn_blocking(move || {
        let up = up.filter(|_| bounds.kept > 0)?;
        Step::between(&up, &next, bounds.bytes_max)
    })
}

/// Keeps the step to the version that has just gone up. One that failed is one that is not there.
pub(super) async fn keep(
    context: &Context,
    zone: &ZoneName,
    step: JoinHandle<Option<Step>>,
    bounds: DifferenceBounds,
) {
    let step = step.await.unwrap_or_else(|error| {
        tracing::error!(%zone, %error, "the difference to the version before was not made");
        None
    });
    if let Some(step) = &step {
        tracing::debug!(%zone, from = step.from(), to = step.to(), bytes = step.bytes(), "step kept");
    }
    context.catalogue.keep(zone, step, bounds);
}

/// Works out the steps between the versions on disk, newest first; `records` begin with the version that
/// was resumed. One zone at a time: it must not slow down signing.
pub(super) async fn resume(
    context: Arc<Context>,
    zone: ZoneName,
    resumed: Arc<Published>,
    records: Vec<Record>,
    bounds: DifferenceBounds,
) {
    if bounds.kept == 0 || records.len() < 2 {
        return;
    }
    let _one_at_a_time = context.background.acquire().await;
    let mut steps = 0;
    let mut newer = resumed;
    let serial = newer.serial();
    for record in records.into_iter().skip_while(|record| record.serial != serial).skip(1) {
        let (store, name, next) = (context.store.clone(), zone.clone(), newer.clone());
        let made = tokio::task::spawn_blocking(move || {
            let older = store.version(&name, &record).map_err(|error| error.to_string())?;
            let older = Arc::new(Published::new(&older));
            let step = Step::between(&older, &next, bounds.bytes_max);
            Ok::<_, String>((older, step))
        });
        let (older, step) = match made.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok((older, Some(step))) => (older, step),
            Ok((_, None)) => break,
            Err(error) => {
                tracing::warn!(%zone, error, "no difference to a version on disk");
                break;
            }
        };
        if !context.catalogue.precede(&zone, step, bounds) {
            break;
        }
        steps += 1;
        newer = older;
    }
    tracing::info!(%zone, steps, "differences to earlier versions are at hand");
}
