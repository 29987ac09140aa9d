//! How long a connection may last: a request's own bound, which what takes longer extends.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// A deadline that can be moved.
#[derive(Debug, Clone)]
pub struct Patience(watch::Sender<Instant>);

impl Patience {
    /// From now on.
    pub fn new(lasts: Duration) -> Self {
        Self(watch::Sender::new(Instant::now() + lasts))
    }

    /// The deadline is this far from now, if it is not further already.
    pub fn extend(&self, lasts: Duration) {
        let until = Instant::now() + lasts;
        self.0.send_if_modified(|deadline| {
            let later = until > *deadline;
            *deadline = until.max(*deadline);
            later
        });
    }

    /// Ends with the deadline.
    pub async fn over(&self) {
        let mut moved = self.0.subscribe();
        loop {
            let until = *moved.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                // Its sender is ourselves.
                _ = moved.changed() => {}
            }
        }
    }
}
