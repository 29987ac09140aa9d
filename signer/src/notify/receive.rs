//! Receiving NOTIFY: RFC 1996 §3.7 to §3.12.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_policy::ZoneName;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::counters::Counters;
use crate::inbound::serial_of;
use crate::peers::PeerName;
use crate::published::View;
use crate::wire::{CLASS_IN, Message, Section, rcode, types};

/// A zone's NOTIFYs are passed on at most this often: a fetch takes about as long, and the one
/// that comes meanwhile is kept, not lost.
pub const RATE_INTERVAL: Duration = Duration::from_secs(1);

/// A primary says that its zone has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notified {
    /// The zone.
    pub zone: ZoneName,
    /// The primary that said so last.
    pub peer: PeerName,
    /// The serial it named, if it did; a hint that was not verified in any way.
    pub serial: Option<u32>,
}

/// NOTIFYs taken and not yet passed on, one per zone. It holds zones that are configured, so
/// their number bounds it.
#[derive(Debug)]
pub struct Inbox {
    interval: Duration,
    zones: Mutex<HashMap<ZoneName, Slot>>,
    wake: Notify,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Slot {
    waiting: Option<Notified>,
    passed_on: Option<Instant>,
}

impl Inbox {
    /// An empty one; `interval` is how often a zone's NOTIFYs are passed on at most.
    pub fn new(interval: Duration, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { interval, zones: Mutex::default(), wake: Notify::new(), counters })
    }

    /// Takes a NOTIFY that came from one of `senders` (several peers may share an address; a
    /// certificate is one). Returns the response code.
    pub fn take(&self, message: &Message, senders: &[PeerName], view: &View) -> u8 {
        let rcode = self.judge(message, senders, view);
        match rcode {
            rcode::NOERROR => self.counters.notifies_received.bump(),
            _ => self.counters.notifies_refused.bump(),
        }
        rcode
    }

    fn judge(&self, message: &Message, senders: &[PeerName], view: &View) -> u8 {
        if senders.is_empty() {
            return rcode::REFUSED;
        }
        let Some(question) = message.question() else { return rcode::FORMERR };
        if question.qtype != types::SOA || question.qclass != CLASS_IN {
            return rcode::REFUSED;
        }
        let Ok(name) = ZoneName::from_wire(&question.name) else { return rcode::FORMERR };
        let Some(zone) = view.zone(&name) else { return rcode::NOTAUTH };
        let Some(peer) = senders.iter().find(|peer| zone.has_primary(peer)) else {
            return rcode::REFUSED;
        };
        let soa = message.section(Section::Answer).find(|record| {
            record.rtype == types::SOA && record.owner.eq_ignore_ascii_case(name.as_wire())
        });
        let serial = soa.map(|record| serial_of(record.rdata));
        let notified = Notified { zone: name.clone(), peer: peer.clone(), serial };
        self.lock().entry(name).or_default().waiting = Some(notified);
        self.wake.notify_one();
        rcode::NOERROR
    }

    /// What is due now, or when the next will be.
    fn due(&self, now: Instant) -> Result<Notified, Option<Instant>> {
        let mut zones = self.lock();
        let mut next = None;
        for slot in zones.values_mut() {
            if slot.waiting.is_none() {
                continue;
            }
            let at = slot.passed_on.map_or(now, |last| last + self.interval);
            if at <= now
                && let Some(notified) = slot.waiting.take()
            {
                slot.passed_on = Some(now);
                return Ok(notified);
            }
            next = Some(next.map_or(at, |next: Instant| next.min(at)));
        }
        // Zones that left the configuration are forgotten once they are quiet.
        zones.retain(|_, slot| {
            slot.waiting.is_some() || slot.passed_on.is_some_and(|at| at + self.interval > now)
        });
        Err(next)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ZoneName, Slot>> {
        self.zones.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes NOTIFYs on until shutdown, or until nobody takes them any more. While the receiver is
/// busy they stay in the inbox, where a newer one replaces an older one.
pub async fn forward(inbox: Arc<Inbox>, to: mpsc::Sender<Notified>, shutdown: CancellationToken) {
    let pass_on = async {
        loop {
            let woken = inbox.wake.notified();
            // A place is reserved first, so that what is taken out is never stuck here.
            let Ok(place) = to.reserve().await else { return };
            match inbox.due(Instant::now()) {
                Ok(notified) => place.send(notified),
                Err(None) => {
                    drop(place);
                    woken.await;
                }
                Err(Some(at)) => {
                    drop(place);
                    tokio::select! {
                        () = woken => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
            }
        }
    };
    tokio::select! {
        () = pass_on => {}
        () = shutdown.cancelled() => {}
    }
}
