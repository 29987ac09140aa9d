//! New data that nobody fetched: pushes, what waits for a person, what a person puts up again.

use countersign_policy::signing::SerialPolicy;
use countersign_signer::config::Guard;
use countersign_signer::runner::alarm::AlarmKind;
use countersign_signer::runner::status::{Command, Looked, Progress, Push};
use countersign_signer::runner::{AskPace, Treatment};
use countersign_signer::store::Source;
use countersign_zone::receive::{CLASS_IN, Receiver};
use countersign_zone::{Bounds, ReceivedZone};
use tokio::sync::{mpsc, oneshot};

use crate::keeper::Mood;
use crate::primary::Primary;
use crate::{Bed, DEADLINE, Daemon, zone};

/// `example.` with so many hosts.
fn content(serial: u32, hosts: u8) -> ReceivedZone {
    let bounds = Bounds { records_max: 1_000, bytes_max: 100_000 };
    let mut receiver = Receiver::new(zone(), bounds);
    let mut soa = b"\x02ns\x07example\x00\x01h\x07example\x00".to_vec();
    for number in [serial, 600, 300, 1_200, 60] {
        soa.extend(number.to_be_bytes());
    }
    let apex = b"\x07example\x00".to_vec();
    let mut push = |owner: &[u8], rtype: u16, rdata: &[u8]| {
        receiver.push(owner, rtype, CLASS_IN, 60, rdata).expect("taken");
    };
    push(&apex, 6, &soa);
    push(&apex, 2, b"\x02ns\x07example\x00");
    push(b"\x02ns\x07example\x00", 1, &[192, 0, 2, 1]);
    for host in 0..hosts {
        let owner = [&[2, b'a' + host / 26, b'a' + host % 26], &apex[..]].concat();
        push(&owner, 1, &[192, 0, 2, host]);
    }
    receiver.finish().expect("whole")
}

fn guarded(treatment: &mut Treatment) {
    treatment.guard = Some(Guard::default());
}

async fn last(mut steps: mpsc::Receiver<Progress>) -> Progress {
    let wait = async {
        loop {
            match steps.recv().await {
                Some(step) if step.is_last() => return step,
                Some(_) => {}
                None => panic!("no last word"),
            }
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("in time")
}

impl Daemon {
    async fn command(&self, command: impl FnOnce(mpsc::Sender<Progress>) -> Command) -> Progress {
        let (progress, steps) = mpsc::channel(8);
        self.handle().commands.send(command(progress)).await.expect("sent");
        last(steps).await
    }

    async fn push(&self, zone: ReceivedZone) -> Progress {
        let by = "provisioning".to_owned();
        self.command(|progress| Command::Push(Push { zone, by, progress })).await
    }

    async fn release(&self, serial: u32) -> Progress {
        let held = self.handle().status.borrow().held.clone();
        self.release_as(serial, held.map(|held| held.short_digest())).await
    }

    async fn release_as(&self, serial: u32, digest: Option<String>) -> Progress {
        let (by, looked) = ("ops".to_owned(), Looked { serial, digest });
        self.command(|progress| Command::Release { looked, by, progress }).await
    }

    async fn republish(&self, version: u32) -> Progress {
        let by = "ops".to_owned();
        self.command(|progress| Command::Republish { version, by, progress }).await
    }

    async fn reject(&self, serial: u32) -> Result<(), String> {
        let (done, answer) = oneshot::channel();
        let looked = Looked { serial, digest: None };
        let command = Command::Reject { looked, by: "ops".to_owned(), done };
        self.handle().commands.send(command).await.expect("sent");
        answer.await.expect("answered")
    }

    /// Addresses in what is up.
    fn hosts(&self) -> usize {
        let version = self.catalogue.current(&zone()).expect("up");
        let rrsets = version.records().iter().flat_map(|node| node.rrsets().collect::<Vec<_>>());
        rrsets.filter(|rrset| rrset.rtype().0 == 1).count()
    }
}

impl Bed {
    /// A daemon whose zone comes by push alone.
    async fn pushed(&self) -> Daemon {
        self.daemon_with(None, AskPace::default(), guarded).await
    }
}

fn refused(progress: &Progress) -> &str {
    match progress {
        Progress::Refused { reason } => reason,
        other => panic!("{other:?}"),
    }
}

fn waits(progress: &Progress) -> &str {
    match progress {
        Progress::Waits { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_told_each_step_and_what_is_up_is_left_alone() {
    let bed = Bed::new();
    bed.keeper.start();
    let daemon = bed.pushed().await;
    let (progress, mut steps) = mpsc::channel(16);
    let push = Push { zone: content(5, 3), by: "provisioning".to_owned(), progress };
    daemon.handle().commands.send(Command::Push(push)).await.expect("sent");
    let mut seen = Vec::new();
    while let Some(step) = steps.recv().await {
        seen.push(step);
    }
    let [
        Progress::Admitted,
        Progress::Planned { kept: 0, .. },
        Progress::Signed,
        Progress::Verified,
        Progress::Published { serial: 5 },
    ] = seen[..]
    else {
        panic!("{seen:?}");
    };
    assert_eq!(daemon.serial(), Some(5));
    assert_eq!(daemon.push(content(5, 3)).await, Progress::Unchanged { serial: 5 });
    assert_eq!(daemon.push(content(3, 4)).await, Progress::Published { serial: 6 }, "any serial");
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
    let versions = daemon.handle().status.borrow().versions.clone();
    let source = Source::Push { by: "provisioning".to_owned() };
    assert!(versions.iter().all(|v| v.exact && v.source.as_ref() == Some(&source)), "{versions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_unixtime_the_serial_of_the_same_data_does_not_matter() {
    let bed = Bed::new();
    bed.keeper.start();
    bed.keeper.state.lock().expect("state").policy.serial = SerialPolicy::Unixtime;
    let daemon = bed.pushed().await;
    let Progress::Published { serial } = daemon.push(content(5, 3)).await else { panic!() };
    assert_eq!(daemon.push(content(9, 3)).await, Progress::Unchanged { serial });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_can_not_be_signed_is_refused_and_changes_nothing() {
    let bed = Bed::new();
    bed.keeper.start();
    bed.keeper.state.lock().expect("state").policy.serial = SerialPolicy::Keep;
    let daemon = bed.pushed().await;
    assert_eq!(daemon.push(content(5, 3)).await, Progress::Published { serial: 5 });
    let back = daemon.push(content(4, 3)).await;
    assert!(refused(&back).contains("serial 4 is not newer than 5"), "{back:?}");
    let same = daemon.push(content(5, 4)).await;
    assert!(refused(&same).contains("serial 5 is not newer than 5"), "{same:?}");
    bed.keeper.state.lock().expect("state").policy.ttl_max_s = 30;
    let long = daemon.push(content(6, 4)).await;
    assert!(refused(&long).contains("TTL 60"), "{long:?}");
    daemon.until("serial 5", |daemon| daemon.serial() == Some(5)).await;
    assert!(!daemon.alarms().contains(&AlarmKind::DataRefused), "the pusher was told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_was_told_to_wait_outlives_a_restart() {
    let bed = Bed::new();
    bed.keeper.start();
    let daemon = bed.pushed().await;
    daemon.push(content(5, 3)).await;
    bed.keeper.state.lock().expect("state").mood = Mood::NoToken;
    let told = daemon.push(content(6, 4)).await;
    assert!(waits(&told).contains("token zsk-a: lost"), "{told:?}");
    let told = daemon.push(content(7, 5)).await;
    waits(&told);
    daemon.stop().await;
    let daemon = bed.pushed().await;
    assert_eq!(daemon.serial(), Some(5));
    bed.keeper.state.lock().expect("state").mood = Mood::Right;
    daemon.until_serial(7).await;
    assert_eq!(daemon.hosts(), 6);
    daemon.until("nothing waits", |d| d.handle().status.borrow().waiting.is_none()).await;
    assert_eq!(daemon.push(content(8, 5)).await, Progress::Published { serial: 8 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_waits_for_the_thaw_and_one_that_is_refused_then_alarms() {
    let bed = Bed::new();
    bed.keeper.start();
    let daemon = bed.pushed().await;
    daemon.push(content(5, 3)).await;
    daemon.freeze().await;
    let told = daemon.push(content(6, 4)).await;
    assert!(waits(&told).contains("frozen by test"), "{told:?}");
    daemon.stop().await;
    let daemon = bed.pushed().await;
    daemon.thaw().await;
    daemon.until_serial(6).await;
    daemon.freeze().await;
    waits(&daemon.push(content(7, 5)).await);
    bed.keeper.state.lock().expect("state").policy.ttl_max_s = 30;
    daemon.thaw().await;
    daemon.until("an alarm", |d| d.alarms().contains(&AlarmKind::DataRefused)).await;
    bed.keeper.state.lock().expect("state").policy.ttl_max_s = 600;
    assert!(matches!(daemon.push(content(7, 5)).await, Progress::Published { .. }));
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_shrinks_waits_for_a_person_restarts_included() {
    let bed = Bed::new();
    bed.keeper.start();
    let daemon = bed.pushed().await;
    daemon.push(content(5, 50)).await;
    let held = daemon.push(content(6, 0)).await;
    let Progress::Held { reasons } = &held else { panic!("{held:?}") };
    assert!(reasons[0].starts_with("50 of 53 records go (94 %)"), "{reasons:?}");
    daemon.stop().await;
    let daemon = bed.pushed().await;
    assert_eq!(daemon.serial(), Some(5));
    assert_eq!(daemon.alarms(), [AlarmKind::VersionHeld]);
    let other = daemon.release(7).await;
    assert!(refused(&other).contains("serial 6 is"), "{other:?}");
    daemon.freeze().await;
    let frozen = daemon.release(6).await;
    assert!(refused(&frozen).contains("thaw it first"), "{frozen:?}");
    daemon.thaw().await;
    assert_eq!(daemon.release(6).await, Progress::Published { serial: 6 });
    assert_eq!(daemon.hosts(), 1);
    let status = daemon.handle().status.borrow().clone();
    assert_eq!(status.versions[0].released.as_ref().expect("released").by, "ops");
    assert!(status.held.is_none());
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_released_goes_out_after_a_restart() {
    let bed = Bed::new();
    bed.keeper.start();
    let daemon = bed.pushed().await;
    daemon.push(content(5, 50)).await;
    daemon.push(content(6, 0)).await;
    bed.keeper.state.lock().expect("state").mood = Mood::NoToken;
    waits(&daemon.release(6).await);
    assert!(daemon.reject(6).await.is_err_and(|why| why.contains("was released")));
    daemon.stop().await;
    let daemon = bed.pushed().await;
    assert_eq!(daemon.serial(), Some(5));
    bed.keeper.state.lock().expect("state").mood = Mood::Right;
    daemon.until_serial(6).await;
    daemon.until("nothing held", |d| d.handle().status.borrow().held.is_none()).await;
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_version_that_passes_clears_the_held_one() {
    let bed = Bed::new();
    bed.keeper.start();
    let daemon = bed.pushed().await;
    daemon.push(content(5, 50)).await;
    daemon.push(content(6, 0)).await;
    let held = daemon.push(content(7, 1)).await;
    assert!(matches!(held, Progress::Held { .. }), "{held:?}");
    let serial = daemon.handle().status.borrow().held.as_ref().map(|held| held.serial);
    assert_eq!(serial, Some(7), "the newer one");
    assert_eq!(daemon.push(content(8, 51)).await, Progress::Published { serial: 8 });
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
    assert!(refused(&daemon.release(7).await).contains("no version of example. is held"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_from_a_primary_is_not_fetched_again_once_rejected() {
    let bed = Bed::new();
    bed.keeper.start();
    let primary = Primary::start(&bed.pki, 7).await;
    let critical = |treatment: &mut Treatment| {
        treatment.critical = vec!["kid.example.".parse().expect("name")];
    };
    let address = primary.address;
    let start = || bed.daemon_with(Some(address), AskPace::default(), critical);
    primary.child.store(true, std::sync::atomic::Ordering::SeqCst);
    let daemon = start().await;
    daemon.until_serial(7).await;
    primary.child.store(false, std::sync::atomic::Ordering::SeqCst);
    primary.raise_serial();
    daemon.runner.notified(&zone());
    daemon.until("held", |d| d.alarms() == [AlarmKind::VersionHeld]).await;
    daemon.stop().await;
    let daemon = start().await;
    let newest = |d: &Daemon| d.handle().status.borrow().schedule.newest_data();
    assert_eq!(newest(&daemon), Some(8), "it is here and not fetched again");
    daemon.reject(9).await.expect_err("another serial");
    daemon.reject(8).await.expect("rejected");
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
    daemon.stop().await;
    let daemon = start().await;
    let rejected = daemon.handle().status.borrow().schedule.rejected();
    assert_eq!((newest(&daemon), rejected, daemon.serial()), (Some(7), Some(8), Some(7)));
    primary.child.store(true, std::sync::atomic::Ordering::SeqCst);
    primary.raise_serial();
    daemon.runner.notified(&zone());
    daemon.until_serial(9).await;
    assert!(!bed.dir.path().join("zones/example/rejected.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_version_goes_out_again_under_a_higher_serial() {
    let bed = Bed::new();
    bed.keeper.start();
    bed.keeper.state.lock().expect("state").policy.serial = SerialPolicy::Keep;
    let daemon = bed.pushed().await;
    daemon.push(content(5, 50)).await;
    daemon.push(content(6, 49)).await;
    assert!(refused(&daemon.republish(6).await).contains("version 6 is up"));
    assert!(refused(&daemon.republish(4).await).contains("these are: 6, 5"));
    // What is held stays held: nobody has decided it.
    assert!(matches!(daemon.push(content(7, 0)).await, Progress::Held { .. }));
    assert_eq!(daemon.republish(5).await, Progress::Published { serial: 7 });
    assert_eq!(daemon.hosts(), 51);
    let newest = daemon.handle().status.borrow().versions[0].clone();
    assert!(!newest.exact && newest.incoming_serial == 6, "{newest:?}");
    daemon.stop().await;
    let daemon = bed.pushed().await;
    assert_eq!(daemon.alarms(), [AlarmKind::VersionHeld]);
    let behind = daemon.push(content(7, 48)).await;
    assert!(refused(&behind).contains("serial 7 is published already"), "{behind:?}");
    assert_eq!(daemon.push(content(8, 48)).await, Progress::Published { serial: 8 });
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_about_a_push_names_its_content() {
    let bed = Bed::new();
    bed.keeper.start();
    let daemon = bed.pushed().await;
    daemon.push(content(5, 50)).await;
    daemon.push(content(6, 0)).await;
    let looked_at = daemon.handle().status.borrow().held.as_ref().expect("held").short_digest();
    // Another, under the same serial, while someone looks at the first.
    daemon.push(content(6, 1)).await;
    let serial_alone = daemon.release_as(6, None).await;
    assert!(refused(&serial_alone).contains("--digest"), "{serial_alone:?}");
    let other = daemon.release_as(6, Some(looked_at)).await;
    assert!(refused(&other).contains("something else came"), "{other:?}");
    let own = daemon.handle().status.borrow().held.as_ref().expect("held").short_digest();
    let short = daemon.release_as(6, Some(own[..7].to_owned())).await;
    assert!(refused(&short).contains("expected 8 at least"), "{short:?}");
    let released = daemon.release_as(6, Some(own[..8].to_uppercase())).await;
    assert_eq!(released, Progress::Published { serial: 6 });
    assert_eq!(daemon.hosts(), 2);
}
