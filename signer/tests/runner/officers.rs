//! What officers approve, or do not: CDS and CDNSKEY in the zone, its DNSKEY set, its first KSK, and
//! the DS of a zone that is bound here.

use countersign_hsm::protocol::RefusalKind;
use countersign_signer::runner::schedule::Up;
use countersign_zone::Rtype;

use super::keeper::State;
use super::*;

/// The keeper is asked every second.
const OFTEN: AskPace = AskPace { idle_s: 1, awaiting_s: 1 };
/// The keeper is not asked but on the way.
const NEVER: AskPace = AskPace { idle_s: 1 << 20, awaiting_s: 1 << 20 };
/// Far beyond the end of any test.
const YEAR_S: u64 = 365 * 86_400;

impl Bed {
    fn officers(&self, decide: impl FnOnce(&mut State)) {
        decide(&mut self.keeper.state.lock().expect("state"));
    }

    fn keeper_says<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.keeper.state.lock().expect("state"))
    }

    /// The quorum's word on what the zone says to its parent.
    fn publish_cds(&self, until: u64) {
        let order = self.keeper.cds(until);
        self.officers(|state| state.cds = Some(order));
    }
}

impl Daemon {
    /// Signatures over CDS and CDNSKEY of the version that is up, if it has the two.
    fn cds(&self) -> Option<(usize, usize)> {
        let version = self.catalogue.current(&zone())?;
        let signed = |rtype| Some(version.at_apex(rtype)?.rrsigs().count());
        Some((signed(Rtype::CDS)?, signed(Rtype::CDNSKEY)?))
    }

    async fn until_cds(&self, there: bool) {
        let what = if there { "CDS" } else { "no CDS" };
        self.until(what, |daemon| daemon.cds().is_some() == there).await;
    }

    /// The version that is up, once its status says so.
    async fn up(&self) -> Up {
        let up = |daemon: &Self| daemon.handle().status.borrow().schedule.up().copied();
        self.until("status", |d| up(d).map(|up| up.serial) == d.serial()).await;
        up(self).expect("a version")
    }

    async fn refresh(&self) {
        self.handle().commands.send(Command::Refresh).await.expect("sent");
    }

    fn reason(&self, kind: AlarmKind) -> String {
        let alarms = self.handle().status.borrow().schedule.alarms(now_s());
        alarms.into_iter().find(|alarm| alarm.kind == kind).expect("the alarm").reason
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_cds_is_published_by_itself_and_goes_when_it_is_withdrawn() {
    let bed = Bed::new();
    bed.keeper.start();
    let primary = Primary::start(&bed.pki, 7).await;
    let daemon = bed.daemon_asking(primary.address, OFTEN).await;
    daemon.until_serial(7).await;
    assert_eq!(daemon.cds(), None);
    bed.publish_cds(now_s() + YEAR_S);
    daemon.until_cds(true).await;
    assert_eq!((daemon.serial(), daemon.cds()), (Some(8), Some((1, 1))));
    // New data leaves both as they are.
    let asked = bed.keeper_says(|state| state.cds_asked);
    assert_eq!(asked, 2);
    primary.serial.store(9, std::sync::atomic::Ordering::SeqCst);
    daemon.runner.notified(&zone());
    daemon.until_serial(9).await;
    assert_eq!(bed.keeper_says(|state| state.cds_asked), asked);
    bed.officers(|state| state.cds = None);
    daemon.until_cds(false).await;
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cds_outlives_a_restart_and_so_does_its_refresh() {
    let bed = Bed::new();
    bed.keeper.start();
    bed.publish_cds(now_s() + YEAR_S);
    let primary = Primary::start(&bed.pki, 7).await;
    let daemon = bed.daemon(primary.address).await;
    daemon.until_serial(7).await;
    assert_eq!(daemon.cds(), Some((1, 1)));
    let due_s = daemon.up().await.refresh_at_s;
    // The policy's day is shorter than three; half of it is left at the refresh.
    assert!(due_s.abs_diff(now_s() + 43_200) < 600, "{due_s}");
    daemon.stop().await;
    let daemon = bed.daemon(primary.address).await;
    assert_eq!(daemon.cds(), Some((1, 1)), "up before anything else");
    assert_eq!(daemon.up().await.refresh_at_s, due_s);
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
    assert_eq!(daemon.serial(), Some(7), "nothing to sign");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_ends_takes_cds_out_of_the_zone_before_its_signatures_end() {
    let bed = Bed::new();
    bed.keeper.start();
    let primary = Primary::start(&bed.pki, 7).await;
    let daemon = bed.daemon_asking(primary.address, NEVER).await;
    daemon.until_serial(7).await;
    let until_s = now_s() + 8;
    bed.publish_cds(until_s);
    // A margin of two seconds.
    bed.officers(|state| state.cds.as_mut().expect("a set").validity_s = 16);
    daemon.refresh().await;
    daemon.until_cds(true).await;
    let up = daemon.up().await;
    assert_eq!((up.expires_s, up.refresh_at_s), (until_s, until_s - 2));
    // Nobody asks for it, and the keeper would say what it said before.
    daemon.until_cds(false).await;
    assert!(now_s() < until_s, "in time");
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_cds_holds_nothing_up_and_changes_nothing_by_itself() {
    let bed = Bed::new();
    bed.keeper.start();
    bed.publish_cds(now_s() + YEAR_S);
    bed.officers(|state| state.cds_refusal = Some(RefusalKind::Forbidden));
    let primary = Primary::start(&bed.pki, 7).await;
    let daemon = bed.daemon(primary.address).await;
    daemon.until_serial(7).await;
    daemon.until("the alarm", |d| d.alarms() == [AlarmKind::CdsWithheld]).await;
    assert_eq!(daemon.cds(), None);
    let reason = daemon.reason(AlarmKind::CdsWithheld);
    assert!(reason.contains("KSK use is frozen by carol"), "{reason}");
    // New data goes out all the same.
    primary.raise_serial();
    daemon.runner.notified(&zone());
    daemon.until_serial(8).await;
    // Asked again for CDS alone, and refused: no version is made of that.
    let asked = bed.keeper_says(|state| state.cds_asked);
    daemon.refresh().await;
    daemon
        .until("another try", |d| {
            let working = d.handle().status.borrow().doing;
            let idle = working == countersign_signer::runner::status::Doing::Idle;
            idle && bed.keeper_says(|state| state.cds_asked) > asked
        })
        .await;
    assert_eq!(daemon.serial(), Some(8));
    bed.officers(|state| state.cds_refusal = None);
    daemon.refresh().await;
    daemon.until_cds(true).await;
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
    // Frozen once it is published, and wanted for so short a time that its signatures must be
    // made anew: it goes.
    bed.officers(|state| {
        state.cds_refusal = Some(RefusalKind::Forbidden);
        state.cds.as_mut().expect("a set").until = now_s() + 7_200;
    });
    daemon.refresh().await;
    daemon.until_cds(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ksk_token_that_is_away_leaves_the_old_signatures_over_cds() {
    let bed = Bed::new();
    bed.keeper.start();
    bed.publish_cds(now_s() + YEAR_S);
    let primary = Primary::start(&bed.pki, 7).await;
    let daemon = bed.daemon(primary.address).await;
    daemon.until_serial(7).await;
    // Longer signatures than there are: those that are there do, but new ones are wanted.
    bed.officers(|state| {
        state.cds_refusal = Some(RefusalKind::HsmUnavailable);
        state.policy.validity_s *= 4;
    });
    daemon.refresh().await;
    daemon.until("another version", |daemon| daemon.serial() == Some(8)).await;
    assert_eq!(daemon.cds(), Some((1, 1)));
    daemon.until("the alarm", |d| d.alarms() == [AlarmKind::CdsWithheld]).await;
    bed.officers(|state| state.cds_refusal = None);
    daemon.refresh().await;
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
    assert_eq!((daemon.serial(), daemon.cds()), (Some(9), Some((1, 1))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cds_that_would_cut_the_zone_off_is_left_out() {
    let bed = Bed::new();
    bed.keeper.start();
    bed.publish_cds(now_s() + YEAR_S);
    bed.officers(|state| {
        let set = state.cds.as_mut().expect("a set");
        set.cds[0][10] ^= 1;
        set.cdnskey.clear();
    });
    let primary = Primary::start(&bed.pki, 7).await;
    let daemon = bed.daemon(primary.address).await;
    daemon.until_serial(7).await;
    daemon.until("the alarm", |d| d.alarms() == [AlarmKind::CdsWithheld]).await;
    let reason = daemon.reason(AlarmKind::CdsWithheld);
    assert!(reason.contains("would make the zone bogus"), "{reason}");
    assert_eq!(daemon.cds(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_waits_for_its_ksk_and_says_so() {
    let bed = Bed::new();
    bed.keeper.start();
    bed.officers(|state| state.ksk = false);
    let primary = Primary::start(&bed.pki, 7).await;
    let daemon = bed.daemon(primary.address).await;
    daemon.until("the alarm", |d| d.alarms().contains(&AlarmKind::WaitsForOfficers)).await;
    let reason = daemon.reason(AlarmKind::WaitsForOfficers);
    assert!(reason.contains("example. waits for its KSK: none is active"), "{reason}");
    assert!(reason.contains("propose generate-key"), "{reason}");
    bed.officers(|state| state.ksk = true);
    daemon.until_serial(7).await;
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
    // Lost later: what is up stays up.
    bed.officers(|state| state.ksk = false);
    primary.raise_serial();
    daemon.runner.notified(&zone());
    daemon.until("the alarm", |d| d.alarms() == [AlarmKind::WaitsForOfficers]).await;
    assert_eq!(daemon.serial(), Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dnskey_set_is_signed_until_its_approval_ends_and_attention_is_asked_for() {
    let bed = Bed::new();
    bed.keeper.start();
    let until_s = now_s() + 1_800;
    bed.officers(|state| state.dnskey_until = Some(until_s));
    let primary = Primary::start(&bed.pki, 7).await;
    let daemon = bed.daemon(primary.address).await;
    daemon.until_serial(7).await;
    // Refreshes are an hour before the end by policy, so the next approval is late already.
    daemon.until("the alarm", |d| d.alarms().contains(&AlarmKind::ApprovalEnding)).await;
    let up = daemon.up().await;
    assert_eq!(up.expires_s, until_s);
    assert!(up.refresh_at_s > until_s, "no use in signing the same again");
    let signed = bed.keeper_says(|state| state.signed);
    primary.raise_serial();
    daemon.runner.notified(&zone());
    daemon.until_serial(8).await;
    assert_eq!(bed.keeper_says(|state| state.signed) - signed, 1, "the SOA alone");
    bed.officers(|state| state.dnskey_until = Some(until_s + YEAR_S));
    daemon.refresh().await;
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ds_that_no_officer_exported_keeps_the_last_version_up() {
    let bed = Bed::new();
    bed.keeper.start();
    let primary = Primary::start(&bed.pki, 7).await;
    let daemon = bed.daemon(primary.address).await;
    daemon.until_serial(7).await;
    bed.officers(|state| state.forbidden = vec![Rtype::DS.0]);
    primary.child.store(true, std::sync::atomic::Ordering::SeqCst);
    primary.raise_serial();
    daemon.runner.notified(&zone());
    daemon.until("the alarm", |d| d.alarms() == [AlarmKind::DsNotApproved]).await;
    let reason = daemon.reason(AlarmKind::DsNotApproved);
    assert!(reason.starts_with("kid.example. DS: not signed: forbidden"), "{reason}");
    assert!(reason.contains("countersign propose export-ds --zone kid.example."), "{reason}");
    assert_eq!(daemon.serial(), Some(7));
    bed.officers(|state| state.forbidden.clear());
    daemon.refresh().await;
    daemon.until_serial(8).await;
    daemon.until("no alarm", |daemon| daemon.alarms().is_empty()).await;
    // Another refusal names its RRset, and is no matter of a DS.
    bed.officers(|state| state.forbidden = vec![Rtype::SOA.0]);
    primary.raise_serial();
    daemon.runner.notified(&zone());
    daemon.until("the alarm", |d| d.alarms() == [AlarmKind::SigningFailed]).await;
    let reason = daemon.reason(AlarmKind::SigningFailed);
    assert!(reason.starts_with("example. SOA: not signed: forbidden"), "{reason}");
}

/// Officers may take weeks; what is up is not to expire meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_up_is_signed_again_while_a_ds_waits_for_officers() {
    let bed = Bed::new();
    bed.keeper.start();
    // All signatures are due a second after they are made.
    bed.officers(|state| state.policy.refresh_s = state.policy.validity_s - 1);
    let primary = Primary::start(&bed.pki, 7).await;
    let daemon = bed.daemon(primary.address).await;
    daemon.until("a version", |daemon| daemon.serial().is_some()).await;
    bed.officers(|state| state.forbidden = vec![Rtype::DS.0]);
    primary.child.store(true, std::sync::atomic::Ordering::SeqCst);
    primary.serial.store(1_000, std::sync::atomic::Ordering::SeqCst);
    daemon.runner.notified(&zone());
    let ds_waits = |d: &Daemon| d.alarms().contains(&AlarmKind::DsNotApproved);
    daemon.until("the alarm", ds_waits).await;
    let serial = daemon.serial();
    daemon.until("signed again", |d| d.serial() > serial).await;
    daemon.until("it waits still", ds_waits).await;
    assert!(daemon.serial() < Some(1_000));
    bed.officers(|state| state.forbidden.clear());
    daemon.refresh().await;
    daemon.until("the new data", |d| d.serial() >= Some(1_000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_data_goes_out_while_no_ksk_may_be_used() {
    let bed = Bed::new();
    bed.keeper.start();
    // All signatures are due a second after they are made.
    bed.officers(|state| state.policy.refresh_s = state.policy.validity_s - 1);
    let primary = Primary::start(&bed.pki, 7).await;
    let daemon = bed.daemon(primary.address).await;
    daemon.until("a version", |daemon| daemon.serial().is_some()).await;
    bed.officers(|state| state.dnskey_refusal = Some(RefusalKind::Forbidden));
    // Due, and for itself no reason for a version.
    daemon.until("the alarm", |d| d.alarms().contains(&AlarmKind::SigningFailed)).await;
    let dnskey = |daemon: &Daemon| {
        let version = daemon.catalogue.current(&zone()).expect("up");
        let rrsig = version.at_apex(Rtype::DNSKEY).and_then(|rrset| rrset.rrsigs().next());
        rrsig.expect("signed").to_vec()
    };
    let (serial, signature) = (daemon.serial().expect("up"), dnskey(&daemon));
    primary.child.store(true, std::sync::atomic::Ordering::SeqCst);
    primary.serial.store(serial + 1, std::sync::atomic::Ordering::SeqCst);
    daemon.runner.notified(&zone());
    daemon.until_serial(serial + 1).await;
    assert_eq!(dnskey(&daemon), signature, "there was no other");
    daemon.until("the alarm", |d| d.alarms() == [AlarmKind::SigningFailed]).await;
    let reason = daemon.reason(AlarmKind::SigningFailed);
    assert!(reason.contains("frozen by carol"), "{reason}");
}
