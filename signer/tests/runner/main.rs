//! The runner with everything around it but an HSM: a primary over mutual TLS, a keeper in
//! software, the real store.

mod keeper;
mod officers;
mod primary;
mod pushes;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign_hsm::client::Client;
use countersign_policy::ZoneName;
use countersign_signer::clock::{Clock, now_s};
use countersign_signer::inbound::{self, Source};
use countersign_signer::metrics::Metrics;
use countersign_signer::peers::{IdentityRule, PeerTable};
use countersign_signer::published::{Catalogue, ZoneAccess};
use countersign_signer::runner::alarm::AlarmKind;
use countersign_signer::runner::schedule::TimerBounds;
use countersign_signer::runner::status::{Command, Doing, Handle};
use countersign_signer::runner::{AskPace, Context, Runner, Transfer, Treatment, ZoneSettings};
use countersign_signer::store::Store;
use countersign_signer::tls::{ALPN_DOT, Connector, WallClock};
use countersign_zone::Bounds;
use keeper::{Keeper, Mood};
use primary::{Pki, Primary};
use tokio::sync::{mpsc, oneshot};

/// Far longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn zone() -> ZoneName {
    "example.".parse().expect("name")
}

/// What outlives a restart of the daemon.
struct Bed {
    dir: tempfile::TempDir,
    pki: Pki,
    keeper: Keeper,
    connector: Connector,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let pki = Pki::new(dir.path());
        let connector = Connector::new(pki.issue("daemon.test"), WallClock(now_s), ALPN_DOT);
        let keeper = Keeper::new(dir.path().join("keeper.sock"), zone());
        Self { dir, pki, keeper, connector: connector.expect("connector") }
    }

    /// The store, once the daemon before has let go of it: here it does not end with a process,
    /// and what it was about to tell the keeper may still be on its way.
    async fn store(&self) -> Store {
        let started = std::time::Instant::now();
        loop {
            match Store::open(self.dir.path(), 2) {
                Ok(store) => return store,
                Err(error) => assert!(started.elapsed() < DEADLINE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A daemon, as far as the runner goes.
    async fn daemon(&self, primary: std::net::SocketAddr) -> Daemon {
        self.daemon_asking(primary, AskPace::default()).await
    }

    /// One that asks the keeper at this pace.
    async fn daemon_asking(&self, primary: std::net::SocketAddr, ask: AskPace) -> Daemon {
        self.daemon_with(Some(primary), ask, |_| {}).await
    }

    /// One whose zone is treated as `change` says.
    async fn daemon_with(
        &self,
        primary: Option<std::net::SocketAddr>,
        ask: AskPace,
        change: impl FnOnce(&mut Treatment),
    ) -> Daemon {
        let access = ZoneAccess { zone: zone(), primaries: vec![], secondaries: vec![] };
        let catalogue = Arc::new(Catalogue::new([access], PeerTable::new([]).expect("empty")));
        let (sender, announced) = mpsc::unbounded_channel();
        let mut context = Context::new(
            Clock::default(),
            self.store().await,
            Client::new(self.keeper.socket().to_owned(), Duration::from_secs(5)),
            catalogue.clone(),
            Box::new(move |zone| {
                let _ = sender.send(zone.clone());
            }),
            Arc::new(Metrics::new().expect("metrics")),
            Arc::default(),
            1,
        );
        context.ask = ask;
        let runner = Runner::new(Arc::new(context));
        let identity = IdentityRule::san("primary.test");
        let source =
            |primary| Source::new("p".into(), primary, identity, "primary.test").expect("source");
        let mut treatment = Treatment::default();
        change(&mut treatment);
        let settings = ZoneSettings {
            primaries: primary.map(source).into_iter().collect(),
            transfer: Transfer {
                connector: Some(self.connector.clone()),
                limits: inbound::Limits::default(),
                manners: Arc::default(),
            },
            treatment,
            bounds: Bounds { records_max: 1_000, bytes_max: 100_000 },
            timers: TimerBounds { min_s: 1, max_s: 3_600 },
        };
        runner.configure(BTreeMap::from([(zone(), settings.clone())])).await;
        Daemon { runner, catalogue, announced, settings }
    }
}

struct Daemon {
    runner: Runner,
    catalogue: Arc<Catalogue>,
    announced: mpsc::UnboundedReceiver<ZoneName>,
    /// Of the zone, at start.
    settings: ZoneSettings,
}

impl Daemon {
    fn handle(&self) -> Handle {
        self.runner.directory().zone(&zone()).expect("the zone")
    }

    fn serial(&self) -> Option<u32> {
        self.catalogue.current(&zone()).map(|version| version.serial())
    }

    fn alarms(&self) -> Vec<AlarmKind> {
        let status = self.handle().status.borrow().clone();
        status.schedule.alarms(now_s()).into_iter().map(|alarm| alarm.kind).collect()
    }

    /// Waits until the zone's status is as wished.
    async fn until(&self, what: &str, wish: impl Fn(&Self) -> bool) {
        let mut status = self.handle().status;
        let wait = async {
            while !wish(self) {
                status.changed().await.expect("the task runs");
            }
        };
        let came = tokio::time::timeout(DEADLINE, wait).await.is_ok();
        assert!(came, "{what}: serial {:?}, alarms {:?}", self.serial(), self.alarms());
    }

    async fn until_serial(&self, serial: u32) {
        self.until(&format!("serial {serial}"), |daemon| daemon.serial() == Some(serial)).await;
    }

    async fn freeze(&self) {
        let (done, answer) = oneshot::channel();
        let command = Command::Freeze { by: "test".to_owned(), done };
        self.handle().commands.send(command).await.expect("sent");
        answer.await.expect("answered").expect("frozen");
    }

    async fn thaw(&self) {
        let (done, answer) = oneshot::channel();
        self.handle().commands.send(Command::Thaw { done }).await.expect("sent");
        answer.await.expect("answered").expect("thawed");
    }

    async fn stop(self) {
        self.runner.stop(DEADLINE).await;
    }
}

fn damage(dir: &Path, file: &str) {
    let path = dir.join("zones/example").join(file);
    let mut bytes = std::fs::read(&path).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_comes_in_and_goes_out_signed_and_follows_its_primary() {
    let bed = Bed::new();
    bed.keeper.start();
    let primary = Primary::start(&bed.pki, 7).await;
    let mut daemon = bed.daemon(primary.address).await;
    daemon.until_serial(7).await;
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
    assert_eq!(daemon.announced.recv().await, Some(zone()));
    let version = daemon.catalogue.current(&zone()).expect("up");
    assert!(version.records().counts().rrsigs >= 8);
    let first = bed.keeper.state.lock().expect("state").signed;

    primary.raise_serial();
    daemon.runner.notified(&zone());
    daemon.until_serial(8).await;
    let state = bed.keeper.state.lock().expect("state");
    assert_eq!(state.signed - first, 1, "the SOA alone has changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_needs_neither_keeper_nor_primary_and_a_refresh_no_primary() {
    let bed = Bed::new();
    bed.keeper.start();
    let primary = Primary::start(&bed.pki, 7).await;
    let address = primary.address;
    let daemon = bed.daemon(address).await;
    daemon.until_serial(7).await;
    daemon.stop().await;
    primary.go_away();
    {
        let mut state = bed.keeper.state.lock().expect("state");
        state.mood = Mood::NoToken;
        state.policy.validity_s += 60;
    }
    let daemon = bed.daemon(address).await;
    assert_eq!(daemon.serial(), Some(7), "up before anything else");
    // The policy has changed: the zone is to be signed again, from what the disk holds.
    daemon.until("an alarm", |d| d.alarms().contains(&AlarmKind::SigningFailed)).await;
    assert_eq!(daemon.serial(), Some(7));
    bed.keeper.state.lock().expect("state").mood = Mood::Right;
    daemon.until_serial(8).await;
    let version = daemon.catalogue.current(&zone()).expect("up");
    let wildcard = version.records().node(b"\x01*\x03www\x07example\x00").expect("kept");
    assert_eq!(wildcard.rrsets().count(), 2, "its A, and an NSEC");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_signature_is_never_published() {
    let bed = Bed::new();
    bed.keeper.start();
    let primary = Primary::start(&bed.pki, 7).await;
    let daemon = bed.daemon(primary.address).await;
    daemon.until_serial(7).await;
    bed.keeper.state.lock().expect("state").mood = Mood::WrongSignatures;
    primary.raise_serial();
    daemon.runner.notified(&zone());
    daemon.until("an alarm", |d| d.alarms().contains(&AlarmKind::VerificationFailed)).await;
    assert_eq!(daemon.serial(), Some(7));
    bed.keeper.state.lock().expect("state").mood = Mood::Right;
    daemon.until_serial(8).await;
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_out_while_frozen_restarts_included() {
    let bed = Bed::new();
    bed.keeper.start();
    let primary = Primary::start(&bed.pki, 7).await;
    let daemon = bed.daemon(primary.address).await;
    daemon.until_serial(7).await;
    daemon.freeze().await;
    daemon.stop().await;
    primary.raise_serial();
    let daemon = bed.daemon(primary.address).await;
    daemon
        .until("new data", |d| d.handle().status.borrow().schedule.newest_data() == Some(8))
        .await;
    assert_eq!(daemon.serial(), Some(7));
    assert!(daemon.handle().status.borrow().frozen.is_some());
    daemon.thaw().await;
    daemon.until_serial(8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_version_gives_way_to_an_older_one_and_the_serial_goes_on() {
    let bed = Bed::new();
    bed.keeper.start();
    let primary = Primary::start(&bed.pki, 7).await;
    let daemon = bed.daemon(primary.address).await;
    daemon.until_serial(7).await;
    primary.raise_serial();
    daemon.runner.notified(&zone());
    daemon.until_serial(8).await;
    daemon.stop().await;
    damage(bed.dir.path(), "v8.zone");
    bed.keeper.state.lock().expect("state").mood = Mood::NoToken;
    let daemon = bed.daemon(primary.address).await;
    assert_eq!(daemon.serial(), Some(7));
    assert!(daemon.alarms().contains(&AlarmKind::VersionDistrusted));
    bed.keeper.state.lock().expect("state").mood = Mood::Right;
    daemon.until_serial(9).await;
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_comes_late_is_found() {
    let bed = Bed::new();
    let primary = Primary::start(&bed.pki, 7).await;
    let daemon = bed.daemon(primary.address).await;
    daemon.until("an alarm", |d| d.alarms().contains(&AlarmKind::SigningFailed)).await;
    assert!(daemon.alarms().contains(&AlarmKind::NoVersion));
    bed.keeper.start();
    daemon.until_serial(7).await;
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thaw_reads_the_files_that_could_not_be_read_at_start() {
    let bed = Bed::new();
    bed.keeper.start();
    let primary = Primary::start(&bed.pki, 7).await;
    let daemon = bed.daemon(primary.address).await;
    daemon.until_serial(7).await;
    daemon.stop().await;
    let (folder, away) = (bed.dir.path().join("zones/example"), bed.dir.path().join("away"));
    std::fs::rename(&folder, &away).expect("moved");
    std::fs::write(&folder, "no folder").expect("written");
    let daemon = bed.daemon(primary.address).await;
    assert!(daemon.handle().status.borrow().frozen.is_some());
    let (done, answer) = oneshot::channel();
    daemon.handle().commands.send(Command::Thaw { done }).await.expect("sent");
    answer.await.expect("answered").expect_err("not before they can be read");
    std::fs::remove_file(&folder).expect("removed");
    std::fs::rename(&away, &folder).expect("moved back");
    daemon.thaw().await;
    daemon.until("a version", |daemon| daemon.serial().is_some()).await;
    assert_eq!(daemon.serial(), Some(8), "7 went out before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_is_taken_out_saves_to_the_end_before_it_can_come_back() {
    let bed = Bed::new();
    bed.keeper.start();
    let primary = Primary::start(&bed.pki, 7).await;
    let daemon = bed.daemon(primary.address).await;
    daemon.until_serial(7).await;
    // Who opens a FIFO to write waits for a reader: a disk that is slow.
    let slow = bed.dir.path().join("zones/example/v8.zone.tmp");
    assert!(std::process::Command::new("mkfifo").arg(&slow).status().expect("run").success());
    primary.raise_serial();
    daemon.runner.notified(&zone());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let out = daemon.runner.configure(BTreeMap::new());
    tokio::pin!(out);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut out).await;
    let read = tokio::task::spawn_blocking(move || std::fs::read(slow));
    assert!(early.is_err(), "the old task was still saving");
    tokio::time::timeout(DEADLINE, out).await.expect("it ends with the save");
    let _ = read.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_primary_was_sending_when_a_reload_took_it_out_is_dropped() {
    let bed = Bed::new();
    bed.keeper.start();
    let primary = Primary::start(&bed.pki, 7).await;
    let daemon = bed.daemon(primary.address).await;
    daemon.until_serial(7).await;
    primary.asked.notified().await;
    primary.answers.forget_permits(1_000);
    primary.raise_serial();
    daemon.runner.notified(&zone());
    primary.asked.notified().await;
    let without = ZoneSettings { primaries: vec![], ..daemon.settings.clone() };
    daemon.runner.configure(BTreeMap::from([(zone(), without)])).await;
    primary.answers.add_permits(1);
    let is_idle = |daemon: &Daemon| daemon.handle().status.borrow().doing == Doing::Idle;
    daemon.until("the transfer is over", is_idle).await;
    assert_eq!(daemon.serial(), Some(7));
    // A reload that leaves it in costs nothing.
    daemon.runner.configure(BTreeMap::from([(zone(), daemon.settings.clone())])).await;
    primary.asked.notified().await;
    daemon.runner.configure(BTreeMap::from([(zone(), daemon.settings.clone())])).await;
    primary.answers.add_permits(1);
    daemon.until_serial(8).await;
}
