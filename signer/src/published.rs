//! What is served: for each zone its published version and who may have it.
//!
//! A [`Published`] is made from a `VerifiedZone` and from nothing else, so `outbound` and `query`
//! cannot show anything unverified. Readers hold a version for as long as they need it and never
//! block; publishing swaps a pointer. A reload swaps zones and peers at once, so that no reader
//! sees a zone of the new configuration with a peer of the old; published versions live through it.

#[cfg(test)]
pub(crate) mod testing;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use countersign_policy::ZoneName;
use countersign_zone::{Packed, Rrset, Rtype, VerifiedZone};

use crate::outbound::differences::{DifferenceBounds, Kept, Step};
use crate::peers::{PeerName, PeerTable};
use crate::wire::newer;

/// A version of a zone that may be served.
#[derive(Clone)]
pub struct Published {
    apex: ZoneName,
    serial: u32,
    records: Packed,
    root: [u8; 32],
}

impl Published {
    /// Shares the pages of the verified zone.
    pub fn new(zone: &VerifiedZone) -> Self {
        Self {
            apex: zone.apex().clone(),
            serial: zone.serial(),
            records: zone.records().clone(),
            root: zone.digest(),
        }
    }

    /// For tests of what serves it, in this crate alone.
    #[cfg(test)]
    pub(crate) fn unverified(apex: ZoneName, serial: u32, records: Packed) -> Self {
        let root = records.digest();
        Self { apex, serial, records, root }
    }

    /// The zone.
    pub fn apex(&self) -> &ZoneName {
        &self.apex
    }

    /// The serial of its SOA record.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// The digest of name, serial and records: no two versions have the same.
    pub fn root(&self) -> [u8; 32] {
        self.root
    }

    /// All records and their signatures.
    pub fn records(&self) -> &Packed {
        &self.records
    }

    /// An RRset at the apex.
    pub fn at_apex(&self, rtype: Rtype) -> Option<Rrset<'_>> {
        self.records.node(self.apex.as_wire())?.rrset(rtype)
    }
}

impl fmt::Debug for Published {
    /// The name and serial: a zone's records are too many for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Published({} {})", self.apex, self.serial)
    }
}

/// Who may do what with a zone, as the configuration says it.
#[derive(Debug, Clone)]
pub struct ZoneAccess {
    /// The zone.
    pub zone: ZoneName,
    /// Peers it is fetched from; their NOTIFY counts.
    pub primaries: Vec<PeerName>,
    /// Peers that may transfer it.
    pub secondaries: Vec<PeerName>,
}

/// A zone that is served, or will be once it has a version.
#[derive(Debug, Clone)]
pub struct Zone {
    access: ZoneAccess,
    /// Shared by the views before and after a reload.
    current: Arc<ArcSwapOption<Published>>,
    /// What led to it, for IXFR; shared likewise.
    kept: Arc<Mutex<Kept>>,
}

impl Zone {
    /// Its name.
    pub fn name(&self) -> &ZoneName {
        &self.access.zone
    }

    /// The version that is up, if one is.
    pub fn current(&self) -> Option<Arc<Published>> {
        self.current.load_full()
    }

    /// The steps that lead from the version with serial `theirs` to `version`; `None` where the whole
    /// zone is the better answer, or the only one.
    pub fn steps(&self, theirs: u32, version: &Published) -> Option<Vec<Arc<Step>>> {
        self.kept().chain(theirs, version)
    }

    /// Held for moments only.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the peer is a primary of it.
    pub fn has_primary(&self, peer: &str) -> bool {
        self.access.primaries.iter().any(|name| &**name == peer)
    }

    /// Whether the peer is a secondary of it.
    pub fn has_secondary(&self, peer: &str) -> bool {
        self.access.secondaries.iter().any(|name| &**name == peer)
    }

    /// Its secondaries.
    pub fn secondaries(&self) -> &[PeerName] {
        &self.access.secondaries
    }
}

/// Zones and peers of one configuration.
#[derive(Debug)]
pub struct View {
    zones: HashMap<ZoneName, Zone>,
    peers: PeerTable,
}

impl View {
    /// A zone by its name.
    pub fn zone(&self, name: &ZoneName) -> Option<&Zone> {
        self.zones.get(name)
    }

    /// All zones, in no order.
    pub fn zones(&self) -> impl Iterator<Item = &Zone> {
        self.zones.values()
    }

    /// The listed peers.
    pub fn peers(&self) -> &PeerTable {
        &self.peers
    }
}

/// Why a version was not put up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The configuration has no such zone (any more).
    #[error("zone {0} is not configured")]
    UnknownZone(ZoneName),
    /// A serial never goes back (RFC 1982), and one serial is one content.
    #[error("zone {zone}: serial {offered} is not newer than the published {current}")]
    NotNewer {
        /// The zone.
        zone: ZoneName,
        /// The serial that is up.
        current: u32,
        /// The serial offered.
        offered: u32,
    },
}

/// Zones, peers and what is up, for everyone who serves.
#[derive(Debug)]
pub struct Catalogue {
    view: ArcSwap<View>,
    /// Held while publishing or reloading, so that neither undoes the other.
    change: Mutex<()>,
}

impl Catalogue {
    /// The zones and peers of a configuration, nothing published yet.
    pub fn new(zones: impl IntoIterator<Item = ZoneAccess>, peers: PeerTable) -> Self {
        let zones = zones.into_iter().map(|access| {
            let (current, kept) = Default::default();
            (access.zone.clone(), Zone { access, current, kept })
        });
        let view = View { zones: zones.collect(), peers };
        Self { view: ArcSwap::from_pointee(view), change: Mutex::new(()) }
    }

    /// Takes another configuration. Zones that stay keep their version; a zone that is gone is
    /// no longer served.
    pub fn reload(&self, zones: impl IntoIterator<Item = ZoneAccess>, peers: PeerTable) {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.view.load();
        let zones = zones.into_iter().map(|access| {
            let (current, kept) = old
                .zone(&access.zone)
                .map(|zone| (zone.current.clone(), zone.kept.clone()))
                .unwrap_or_default();
            (access.zone.clone(), Zone { access, current, kept })
        });
        self.view.store(Arc::new(View { zones: zones.collect(), peers }));
    }

    /// What holds now. A caller that must see one state of things asks once.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// The version of a zone that is up.
    pub fn current(&self, zone: &ZoneName) -> Option<Arc<Published>> {
        self.view.load().zone(zone).and_then(Zone::current)
    }

    /// Puts a version up. From here on it is what everyone gets who asks.
    pub fn publish(&self, version: Arc<Published>) -> Result<(), PublishError> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.view.load();
        let Some(zone) = view.zone(version.apex()) else {
            return Err(PublishError::UnknownZone(version.apex().clone()));
        };
        if let Some(up) = zone.current()
            && !newer(version.serial(), up.serial())
        {
            return Err(PublishError::NotNewer {
                zone: version.apex().clone(),
                current: up.serial(),
                offered: version.serial(),
            });
        }
        zone.current.store(Some(version));
        Ok(())
    }

    /// Keeps the step that leads to the version that was just put up; `None` if there is none, and
    /// then what was kept is of no use any more.
    pub fn keep(&self, zone: &ZoneName, step: Option<Step>, bounds: DifferenceBounds) {
        let view = self.view.load();
        let Some(zone) = view.zone(zone) else { return };
        let mut kept = zone.kept();
        match step {
            Some(step) => kept.keep(step, bounds),
            None => kept.clear(),
        }
    }

    /// Puts a step from versions on disk in front of those that are kept. `false` once there is no
    /// room for more, or it does not lead to them.
    pub fn precede(&self, zone: &ZoneName, step: Step, bounds: DifferenceBounds) -> bool {
        let view = self.view.load();
        view.zone(zone).is_some_and(|zone| zone.kept().precede(step, bounds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(zone: &str) -> ZoneAccess {
        ZoneAccess {
            zone: zone.parse().expect("name"),
            primaries: vec!["p".into()],
            secondaries: vec!["s".into()],
        }
    }

    fn peers() -> PeerTable {
        PeerTable::new([]).expect("empty")
    }

    fn version(zone: &str, serial: u32) -> Arc<Published> {
        let apex = zone.parse().expect("name");
        Arc::new(Published::unverified(apex, serial, Packed::default()))
    }

    #[test]
    fn a_serial_never_goes_back() {
        let catalogue = Catalogue::new([access("a.test")], peers());
        let zone = "a.test".parse().expect("name");
        assert!(catalogue.current(&zone).is_none());
        catalogue.publish(version("a.test", 7)).expect("first");
        for serial in [7, 6, 7u32.wrapping_add(1 << 31)] {
            let refused = catalogue.publish(version("a.test", serial)).expect_err("not newer");
            assert!(matches!(refused, PublishError::NotNewer { current: 7, .. }));
        }
        catalogue.publish(version("a.test", 8)).expect("newer");
        assert_eq!(catalogue.current(&zone).expect("up").serial(), 8);
        let unknown = catalogue.publish(version("b.test", 1));
        assert!(matches!(unknown, Err(PublishError::UnknownZone(_))));
    }

    #[test]
    fn versions_live_through_a_reload() {
        let catalogue = Catalogue::new([access("a.test"), access("b.test")], peers());
        catalogue.publish(version("a.test", 1)).expect("a");
        catalogue.publish(version("b.test", 1)).expect("b");
        let before = catalogue.view();
        catalogue.reload([access("a.test"), access("c.test")], peers());
        let up = |zone: &str| catalogue.current(&zone.parse().expect("name")).map(|v| v.serial());
        assert_eq!((up("a.test"), up("b.test"), up("c.test")), (Some(1), None, None));
        // A publication after the reload is seen by those who still hold the view before it.
        catalogue.publish(version("a.test", 2)).expect("a");
        let zone = before.zone(&"a.test".parse().expect("name")).expect("zone").current();
        assert_eq!(zone.expect("up").serial(), 2);
    }
}
