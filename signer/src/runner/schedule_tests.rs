use super::*;
use crate::runner::alarm::AlarmKind;

pub(super) const BOUNDS: TimerBounds = TimerBounds { min_s: 30, max_s: 86_400 };
const TIMERS: SoaTimers = SoaTimers { refresh_s: 3_600, retry_s: 600, expire_s: 86_400 };
const DAY_S: u64 = 86_400;

pub(super) fn up(serial: u32) -> Up {
    Up {
        serial,
        incoming_serial: serial,
        expires_s: 14 * DAY_S,
        valid_from_s: 0,
        refresh_at_s: 7 * DAY_S,
        params: [1; 32],
    }
}

/// What version 5 and its like are signed under.
pub(super) const PARAMS: Params =
    Params { digest: [1; 32], digest_silent: [1; 32], keep: false, dnskey: None };

pub(super) fn published(up: Up) -> Event {
    Event::Published { up, params: PARAMS, withheld: None }
}

pub(super) fn checked(new_data: Option<u32>) -> Event {
    let params = Some(PARAMS);
    Event::Checked { new_data, timers: TIMERS, params }
}

pub(super) fn failure(kind: FailureKind) -> Failure {
    Failure { kind, detail: "so it was".to_owned() }
}

fn away() -> Event {
    Event::CheckFailed { failure: failure(FailureKind::Transfer), params: None }
}

pub(super) fn kinds(schedule: &Schedule, now_s: u64) -> Vec<AlarmKind> {
    schedule.alarms(now_s).into_iter().map(|alarm| alarm.kind).collect()
}

/// A zone that is up and idle at time 0.
pub(super) fn idle() -> Schedule {
    let mut schedule = Schedule::new(BOUNDS, Some(up(5)), false, None, 0);
    assert_eq!(schedule.next(Event::Tick, 0), Some(Work::Check));
    assert_eq!(schedule.next(checked(None), 0), None);
    schedule
}

#[test]
fn a_new_zone_is_fetched_signed_and_left_until_its_refresh() {
    let mut schedule = Schedule::new(BOUNDS, None, false, None, 0);
    assert_eq!(schedule.next(Event::Tick, 0), Some(Work::Check));
    assert_eq!(schedule.wake_at(0), None);
    assert_eq!(schedule.next(checked(Some(5)), 1), Some(Work::SignNew { reuse: true }));
    assert_eq!(schedule.newest_data(), Some(5));
    assert_eq!(schedule.next(published(up(5)), 2), None);
    assert_eq!(schedule.wake_at(2), Some(3_601));
    assert_eq!(schedule.next(Event::Tick, 3_600), None);
    assert_eq!(schedule.next(Event::Tick, 3_601), Some(Work::Check));
    assert_eq!(kinds(&schedule, 3_601), []);
}

#[test]
fn a_notify_asks_at_once_and_one_during_a_check_asks_again() {
    let mut schedule = idle();
    assert_eq!(schedule.next(Event::Notified, 10), Some(Work::Check));
    assert_eq!(schedule.next(Event::Notified, 11), None);
    assert_eq!(schedule.next(checked(None), 12), Some(Work::Check));
    assert_eq!(schedule.next(checked(None), 13), None);
}

#[test]
fn a_notify_while_signing_asks_once_after_it() {
    let mut schedule = idle();
    schedule.next(Event::Notified, 0);
    assert_eq!(schedule.next(checked(Some(6)), 0), Some(Work::SignNew { reuse: true }));
    assert_eq!(schedule.next(Event::Notified, 1), None);
    assert_eq!(schedule.next(published(up(6)), 2), Some(Work::Check));
    assert_eq!(schedule.next(checked(None), 3), None);
    assert_eq!(schedule.wake_at(3), Some(3_603));
}

#[test]
fn a_primary_that_is_away_is_asked_with_growing_pauses() {
    let mut schedule = Schedule::new(BOUNDS, None, false, None, 0);
    let mut now_s = 0;
    let mut pauses = Vec::new();
    for _ in 0..11 {
        assert_eq!(schedule.next(Event::Tick, now_s), Some(Work::Check));
        assert_eq!(schedule.next(away(), now_s), None);
        let at_s = schedule.wake_at(now_s).expect("a retry");
        pauses.push(at_s - now_s);
        now_s = at_s;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    assert_eq!(kinds(&schedule, now_s), [AlarmKind::NoVersion, AlarmKind::PrimaryUnreachable]);
    assert_eq!(schedule.alarms(now_s)[1].since_s, 0);
}

#[test]
fn timers_of_the_primary_are_bounded() {
    let mut schedule = idle();
    for (refresh_s, expect) in [(0, 30), (u32::MAX, 86_400), (100, 100)] {
        assert_eq!(schedule.next(Event::Notified, 0), Some(Work::Check));
        let timers = SoaTimers { refresh_s, ..TIMERS };
        schedule.next(Event::Checked { new_data: None, timers, params: None }, 0);
        assert_eq!(schedule.wake_at(0), Some(expect));
    }
}

#[test]
fn a_zone_whose_primary_is_gone_stays_up_and_is_refreshed() {
    let mut schedule = idle();
    let mut now_s = 0;
    while now_s < 7 * DAY_S {
        now_s = schedule.wake_at(now_s).expect("timer");
        match schedule.next(Event::Tick, now_s) {
            Some(Work::Check) => {
                let next = schedule.next(away(), now_s);
                if next.is_some() {
                    break;
                }
            }
            Some(Work::SignAgain { reuse }) => {
                assert!(reuse);
                break;
            }
            other => panic!("{other:?} at {now_s}"),
        }
    }
    assert_eq!(now_s, 7 * DAY_S);
    assert_eq!(kinds(&schedule, now_s), [AlarmKind::PrimaryExpired, AlarmKind::PrimaryUnreachable]);
    let refreshed = Up { serial: 6, expires_s: 21 * DAY_S, refresh_at_s: 14 * DAY_S, ..up(5) };
    schedule.next(published(refreshed), now_s);
    assert_eq!(schedule.up().map(|up| up.serial), Some(6));
}

#[test]
fn an_hsm_that_is_away_is_tried_with_growing_pauses_and_new_data_is_kept() {
    let mut schedule = idle();
    schedule.next(Event::Notified, 0);
    assert_eq!(schedule.next(checked(Some(6)), 0), Some(Work::SignNew { reuse: true }));
    let mut now_s = 0;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        schedule.next(Event::SignFailed(failure(FailureKind::Keeper)), now_s);
        let at_s = schedule.wake_at(now_s).expect("a retry");
        assert_eq!(schedule.next(Event::Tick, at_s), Some(Work::SignNew { reuse: true }));
        pauses.push(at_s - now_s);
        now_s = at_s;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(kinds(&schedule, now_s), [AlarmKind::SigningFailed]);
    assert_eq!(schedule.up().map(|up| up.serial), Some(5));
    schedule.next(published(up(6)), now_s);
    assert_eq!(kinds(&schedule, now_s), []);
}

#[test]
fn refused_data_is_dropped_and_asked_for_again() {
    let mut schedule = idle();
    schedule.next(Event::Notified, 0);
    schedule.next(checked(Some(6)), 0);
    assert_eq!(schedule.next(Event::SignFailed(failure(FailureKind::Admission)), 0), None);
    assert_eq!(schedule.newest_data(), Some(5));
    assert_eq!(kinds(&schedule, 0), [AlarmKind::DataRefused]);
    assert_eq!(schedule.next(Event::Tick, 1), Some(Work::Check));
}

#[test]
fn data_that_new_rules_refuse_is_tried_again_with_pauses() {
    let mut schedule = idle();
    let due_s = 7 * DAY_S;
    assert_eq!(schedule.next(Event::Tick, due_s), Some(Work::SignAgain { reuse: true }));
    let refused = Event::SignFailed(failure(FailureKind::Admission));
    assert_eq!(schedule.next(refused, due_s), Some(Work::Check));
    assert_eq!(schedule.next(checked(None), due_s), None);
    assert_eq!(schedule.wake_at(due_s), Some(due_s + 1));
}

#[test]
fn nothing_new_goes_out_while_frozen_and_the_due_refresh_alarms() {
    let mut schedule = idle();
    assert_eq!(schedule.next(Event::Frozen, 0), None);
    assert_eq!(schedule.next(Event::Notified, 0), Some(Work::Check));
    assert_eq!(schedule.next(checked(Some(6)), 0), None);
    let late_s = 7 * DAY_S + 1;
    assert_eq!(schedule.next(Event::Tick, late_s), Some(Work::Check));
    assert_eq!(schedule.next(checked(None), late_s), None);
    assert_eq!(kinds(&schedule, late_s), [AlarmKind::RefreshWaits]);
    assert_eq!(schedule.next(Event::Thawed, late_s), Some(Work::SignNew { reuse: true }));
}

#[test]
fn under_keep_a_refresh_waits_for_the_primary_and_alarms_first() {
    let mut schedule = idle();
    schedule.next(Event::Notified, 0);
    let params = Some(Params { keep: true, ..PARAMS });
    schedule.next(Event::Checked { new_data: None, timers: TIMERS, params }, 0);
    let due_s = 7 * DAY_S + 1;
    assert_eq!(schedule.next(Event::Tick, due_s), Some(Work::Check));
    schedule.next(Event::Checked { new_data: None, timers: TIMERS, params }, due_s);
    assert_eq!(kinds(&schedule, due_s), [AlarmKind::RefreshWaits]);
    let half_s = 11 * DAY_S;
    assert_eq!(
        kinds(&schedule, half_s),
        [AlarmKind::SignaturesExpiring, AlarmKind::RefreshWaits, AlarmKind::PrimaryExpired]
    );
    assert_eq!(kinds(&schedule, 14 * DAY_S)[0], AlarmKind::SignaturesExpired);
    schedule.next(Event::Notified, half_s);
    let new = Event::Checked { new_data: Some(6), timers: TIMERS, params };
    assert_eq!(schedule.next(new, half_s), Some(Work::SignNew { reuse: true }));
}

#[test]
fn under_keep_that_only_the_attempt_reveals_there_is_no_loop() {
    let mut schedule = idle();
    let due_s = 7 * DAY_S;
    assert_eq!(schedule.next(Event::Tick, due_s), Some(Work::SignAgain { reuse: true }));
    let waits = Event::SignFailed(failure(FailureKind::WaitsForPrimary));
    assert_eq!(schedule.next(waits, due_s), Some(Work::Check));
    assert_eq!(schedule.next(away(), due_s), None);
    assert!(schedule.wake_at(due_s).expect("check") > due_s);
}

#[test]
fn changed_keys_are_signed_with_at_once() {
    let mut schedule = idle();
    schedule.next(Event::Notified, 0);
    let params = Some(Params { digest: [2; 32], digest_silent: [2; 32], ..PARAMS });
    let event = Event::Checked { new_data: None, timers: TIMERS, params };
    assert_eq!(schedule.next(event, 0), Some(Work::SignAgain { reuse: true }));
}

#[test]
fn changed_keys_are_noticed_while_the_primary_is_away() {
    let mut schedule = idle();
    schedule.next(Event::Notified, 0);
    let params = Some(Params { digest: [2; 32], digest_silent: [2; 32], ..PARAMS });
    let event = Event::CheckFailed { failure: failure(FailureKind::Transfer), params };
    assert_eq!(schedule.next(event, 0), Some(Work::SignAgain { reuse: true }));
}

#[test]
fn a_distrusted_version_is_signed_anew_without_its_signatures() {
    let mut schedule = idle();
    let event = Event::Distrusted("RRSIG of a.example. A does not verify".to_owned());
    assert_eq!(schedule.next(event, 9), Some(Work::SignAgain { reuse: false }));
    assert_eq!(kinds(&schedule, 9), [AlarmKind::VersionDistrusted]);
    schedule.next(published(up(6)), 10);
    assert_eq!(kinds(&schedule, 10), []);
}

#[test]
fn after_versions_that_did_not_verify_none_of_the_old_signatures_is_kept() {
    let mut schedule = idle();
    schedule.next(Event::Notified, 0);
    schedule.next(checked(Some(6)), 0);
    let mut reused = Vec::new();
    let mut now_s = 0;
    for _ in 0..4 {
        schedule.next(Event::SignFailed(failure(FailureKind::Verification)), now_s);
        now_s = schedule.wake_at(now_s).expect("a retry");
        let Some(Work::SignNew { reuse }) = schedule.next(Event::Tick, now_s) else {
            panic!("other work");
        };
        reused.push(reuse);
    }
    assert_eq!(reused, [true, true, false, false]);
}

#[test]
fn an_operator_need_not_wait_for_a_pause() {
    let mut schedule = idle();
    schedule.next(Event::Notified, 0);
    schedule.next(checked(Some(6)), 0);
    for _ in 0..8 {
        schedule.next(Event::SignFailed(failure(FailureKind::Store)), 0);
        schedule.working = Some(Work::SignNew { reuse: true });
    }
    schedule.next(Event::SignFailed(failure(FailureKind::Store)), 0);
    assert_eq!(schedule.next(Event::RefreshRequested, 1), Some(Work::SignNew { reuse: true }));
}

#[test]
fn a_clock_that_was_ahead_delays_neither_signing_nor_asking() {
    let mut schedule = Schedule::new(BOUNDS, Some(up(5)), false, None, 900 * DAY_S);
    schedule.next(Event::Tick, 900 * DAY_S);
    assert_eq!(
        schedule.next(checked(None), 900 * DAY_S),
        Some(Work::SignAgain { reuse: true }),
        "by that clock the signatures are due"
    );
    schedule.next(Event::SignFailed(failure(FailureKind::Keeper)), 900 * DAY_S);
    let now_s = 8 * DAY_S;
    assert_eq!(schedule.next(Event::Tick, now_s), None);
    assert_eq!(schedule.wake_at(now_s), Some(now_s + SIGN_RETRY_S_MAX));
    assert!(schedule.check_due_s() <= now_s + 3_600);
    assert_eq!(schedule.next(Event::Tick, now_s + 60), Some(Work::SignAgain { reuse: true }));
}

#[test]
fn under_keep_data_with_the_published_serial_is_dropped_and_the_primary_asked_again() {
    let mut schedule = idle();
    schedule.next(Event::Notified, 10);
    schedule.next(checked(Some(6)), 10);
    assert_eq!(schedule.next(Event::SignFailed(failure(FailureKind::WaitsForPrimary)), 11), None);
    assert_eq!(schedule.newest_data(), Some(5));
    assert_eq!(kinds(&schedule, 11), [AlarmKind::RefreshWaits]);
    let again_s = schedule.wake_at(11).expect("a retry");
    assert!(again_s > 11);
    assert_eq!(schedule.next(Event::Tick, again_s), Some(Work::Check));
}

#[test]
fn a_check_that_panics_pauses_as_one_that_fails() {
    let mut schedule = idle();
    schedule.next(Event::Notified, 10);
    assert_eq!(schedule.next(Event::SignFailed(failure(FailureKind::Verification)), 11), None);
    assert!(schedule.wake_at(11).is_some_and(|at_s| at_s > 11));
}

#[test]
fn bounds_of_a_reload_hold_from_the_next_answer() {
    let mut schedule = idle();
    schedule.set_bounds(TimerBounds { min_s: 30, max_s: 60 });
    schedule.next(Event::Reloaded, 10);
    assert_eq!(schedule.next(checked(None), 10), None);
    assert_eq!(schedule.wake_at(10), Some(70));
}

// ---- What is said to the parent, and what approves the DNSKEY set

/// What version 5 may be signed under once it may say something to its parent.
const SPEAKS: Params = Params { digest: [3; 32], ..PARAMS };
const HOUR_S: u64 = 3_600;

fn cds_failure() -> Failure {
    failure(FailureKind::Cds)
}

/// A version that says what [`SPEAKS`] lets it say, due for another signature at half.
fn speaking() -> Up {
    Up { expires_s: 3 * DAY_S, refresh_at_s: 36 * HOUR_S, params: SPEAKS.digest, ..up(6) }
}

fn checked_speaking() -> Event {
    Event::Checked { new_data: None, timers: TIMERS, params: Some(SPEAKS) }
}

/// A zone at time 0 whose version lacks CDS because the keeper refused it.
fn refused() -> Schedule {
    let mut schedule = idle();
    assert_eq!(schedule.next(Event::Learned(SPEAKS), 0), Some(Work::SignCds { reuse: true }));
    assert_eq!(schedule.next(Event::CdsRefused(cds_failure()), 0), None);
    schedule
}

#[test]
fn an_approved_cds_goes_out_as_soon_as_it_is_learned() {
    let mut schedule = idle();
    assert_eq!(schedule.next(Event::Learned(PARAMS), 5), None, "nothing new");
    assert_eq!(schedule.next(Event::Learned(SPEAKS), 10), Some(Work::SignCds { reuse: true }));
    let published = Event::Published { up: speaking(), params: SPEAKS, withheld: None };
    assert_eq!(schedule.next(published, 11), None);
    assert_eq!(kinds(&schedule, 11), []);
    assert_eq!(schedule.next(Event::Learned(SPEAKS), 12), None);
    assert!(!schedule.awaits_keeper(12));
}

#[test]
fn a_refused_cds_makes_no_version_and_is_tried_again_with_growing_pauses() {
    let mut schedule = refused();
    let mut now_s = 0;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        assert_eq!(kinds(&schedule, now_s), [AlarmKind::CdsWithheld]);
        // The keeper says again what may be said: that is no reason not to pause.
        assert_eq!(schedule.next(Event::Learned(SPEAKS), now_s), None);
        let mut at_s = now_s;
        while schedule.working != Some(Work::SignCds { reuse: true }) {
            at_s = schedule.wake_at(at_s).expect("a retry");
            if schedule.next(Event::Tick, at_s) == Some(Work::Check) {
                schedule.next(checked_speaking(), at_s);
            }
        }
        schedule.next(Event::CdsRefused(cds_failure()), at_s);
        pauses.push(at_s - now_s);
        now_s = at_s;
    }
    assert_eq!(pauses, [60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
    assert_eq!(schedule.up().map(|up| up.serial), Some(5));
    assert!(schedule.awaits_keeper(now_s));
    let published = Event::Published { up: speaking(), params: SPEAKS, withheld: None };
    schedule.next(published, now_s);
    assert_eq!(kinds(&schedule, now_s), []);
}

#[test]
fn new_data_goes_out_without_a_refused_cds_and_the_pause_goes_on() {
    let mut schedule = refused();
    schedule.next(Event::Notified, 1);
    let new = Event::Checked { new_data: Some(6), timers: TIMERS, params: Some(SPEAKS) };
    assert_eq!(schedule.next(new, 1), Some(Work::SignNew { reuse: true }));
    let withheld = Some(cds_failure());
    assert_eq!(schedule.next(Event::Published { up: up(6), params: SPEAKS, withheld }, 2), None);
    assert_eq!(kinds(&schedule, 2), [AlarmKind::CdsWithheld]);
    assert_eq!(schedule.alarms(2)[0].since_s, 0, "the same failure");
    assert_eq!(schedule.wake_at(2), Some(2 + 120));
}

#[test]
fn a_grant_that_ended_is_withdrawn_without_an_alarm() {
    // It was never said: there is nothing to do.
    let mut schedule = refused();
    assert_eq!(schedule.next(Event::Learned(PARAMS), 1), None);
    assert_eq!(kinds(&schedule, 1), []);
    assert_eq!(schedule.wake_at(1), Some(3_600));
    let mut schedule = refused();
    assert_eq!(schedule.next(Event::Tick, 60), Some(Work::SignCds { reuse: true }));
    assert_eq!(schedule.next(Event::CdsOver(PARAMS), 60), None);
    assert_eq!(kinds(&schedule, 60), []);
    // It was: a version without it goes out at its time, whoever is asked by then.
    let mut schedule = idle();
    schedule.next(Event::Learned(SPEAKS), 0);
    let up_till = Up { refresh_at_s: 5 * HOUR_S, expires_s: 6 * HOUR_S, ..speaking() };
    schedule.next(Event::Published { up: up_till, params: SPEAKS, withheld: None }, 0);
    let mut now_s = 0;
    while now_s < 5 * HOUR_S {
        now_s = schedule.wake_at(now_s).expect("a timer");
        match schedule.next(Event::Tick, now_s) {
            Some(Work::Check) => {
                let event = Event::Checked { new_data: None, timers: TIMERS, params: None };
                if let Some(work) = schedule.next(event, now_s) {
                    assert_eq!(work, Work::SignAgain { reuse: true });
                }
            }
            work => assert_eq!(work, Some(Work::SignAgain { reuse: true })),
        }
    }
    assert_eq!(now_s, 5 * HOUR_S);
    schedule.next(published(up(7)), now_s);
    assert_eq!(kinds(&schedule, now_s), []);
    // The keeper says so before.
    let mut schedule = idle();
    schedule.next(Event::Learned(SPEAKS), 0);
    schedule.next(Event::Published { up: speaking(), params: SPEAKS, withheld: None }, 0);
    assert_eq!(schedule.next(Event::Learned(PARAMS), 9), Some(Work::SignAgain { reuse: true }));
}

#[test]
fn old_signatures_over_cds_stay_up_while_new_ones_are_tried_for() {
    let mut schedule = idle();
    schedule.next(Event::Learned(SPEAKS), 0);
    schedule.next(Event::Published { up: speaking(), params: SPEAKS, withheld: None }, 0);
    let half_s = 36 * HOUR_S;
    assert_eq!(schedule.next(Event::Tick, half_s), Some(Work::SignAgain { reuse: true }));
    let kept = Up { refresh_at_s: 71 * HOUR_S, serial: 7, ..speaking() };
    let withheld = Some(cds_failure());
    schedule.next(Event::Published { up: kept, params: SPEAKS, withheld }, half_s);
    schedule.next(checked_speaking(), half_s);
    assert_eq!(kinds(&schedule, half_s)[0], AlarmKind::CdsWithheld);
    schedule.next(Event::Learned(SPEAKS), half_s + 1);
    assert_eq!(kinds(&schedule, half_s + 1)[0], AlarmKind::CdsWithheld, "still");
    let work = schedule.next(Event::Tick, half_s + 60);
    assert_eq!(work, Some(Work::SignCds { reuse: true }));
}

#[test]
fn a_freeze_of_the_zone_and_serial_policy_keep_stop_cds_too() {
    let mut schedule = idle();
    schedule.next(Event::Frozen, 0);
    assert_eq!(schedule.next(Event::Learned(SPEAKS), 1), None);
    assert_eq!(schedule.wake_at(1), Some(3_600));
    let mut schedule = idle();
    let keep = Params { keep: true, ..SPEAKS };
    assert_eq!(schedule.next(Event::Learned(keep), 1), None);
    assert_eq!(schedule.wake_at(1), Some(3_600));
}

#[test]
fn an_approval_of_the_dnskey_set_that_ends_alarms_before_it_does() {
    let mut schedule = idle();
    let ending = Ending { ends_s: 10 * DAY_S, attention_s: 3 * DAY_S };
    schedule.next(Event::Learned(Params { dnskey: Some(ending), ..PARAMS }), 0);
    assert_eq!(kinds(&schedule, 3 * DAY_S - 1), [AlarmKind::PrimaryExpired]);
    assert!(!schedule.awaits_keeper(3 * DAY_S - 1));
    let kinds_then = kinds(&schedule, 3 * DAY_S);
    assert_eq!(kinds_then, [AlarmKind::ApprovalEnding, AlarmKind::PrimaryExpired]);
    assert!(schedule.awaits_keeper(3 * DAY_S));
    assert!(schedule.alarms(10 * DAY_S + 1)[0].reason.contains("has ended"));
    // The next is approved.
    let next = Ending { ends_s: 20 * DAY_S, attention_s: 13 * DAY_S };
    let params = Params { digest: [4; 32], digest_silent: [4; 32], dnskey: Some(next), ..PARAMS };
    let work = schedule.next(Event::Learned(params), 3 * DAY_S);
    assert_eq!(work, Some(Work::SignAgain { reuse: true }));
    assert!(!kinds(&schedule, 3 * DAY_S).contains(&AlarmKind::ApprovalEnding));
}

#[test]
fn a_zone_without_a_ksk_says_so_and_asks_often() {
    let mut schedule = idle();
    schedule.next(Event::Notified, 0);
    schedule.next(checked(Some(6)), 0);
    schedule.next(Event::SignFailed(failure(FailureKind::Officers)), 0);
    assert_eq!(kinds(&schedule, 0), [AlarmKind::WaitsForOfficers]);
    assert_eq!(schedule.up().map(|up| up.serial), Some(5), "what is up stays up");
    assert!(schedule.awaits_keeper(0));
}

#[test]
fn a_ds_that_was_not_approved_is_tried_again_without_haste() {
    let mut schedule = idle();
    schedule.next(Event::Notified, 0);
    schedule.next(checked(Some(6)), 0);
    let mut now_s = 0;
    let mut pauses = Vec::new();
    for _ in 0..11 {
        schedule.next(Event::SignFailed(failure(FailureKind::DsNotApproved)), now_s);
        assert_eq!(kinds(&schedule, now_s), [AlarmKind::DsNotApproved]);
        let at_s = schedule.wake_at(now_s).expect("a retry");
        assert_eq!(schedule.next(Event::Tick, at_s), Some(Work::SignNew { reuse: true }));
        pauses.push(at_s - now_s);
        now_s = at_s;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    assert_eq!(schedule.up().map(|up| up.serial), Some(5), "what is up stays up");
}

#[test]
fn signatures_from_a_clock_that_was_ahead_are_made_anew() {
    let mut schedule = idle();
    schedule.next(Event::Notified, 5 * DAY_S);
    schedule.next(checked(Some(6)), 5 * DAY_S);
    let ahead = Up { valid_from_s: 5 * DAY_S - 600, expires_s: 19 * DAY_S, ..up(6) };
    schedule.next(published(ahead), 5 * DAY_S);
    assert_eq!(kinds(&schedule, 5 * DAY_S), []);
    // It is put right.
    let work = schedule.next(Event::Tick, DAY_S);
    assert_eq!(work, Some(Work::SignAgain { reuse: true }));
    assert_eq!(kinds(&schedule, DAY_S), [AlarmKind::SignaturesEarly]);
    let right = Up { valid_from_s: DAY_S - 600, serial: 7, ..ahead };
    schedule.next(published(right), DAY_S);
    assert_eq!(kinds(&schedule, DAY_S), []);
    // By a minute is nothing: validators' clocks differ by more.
    let mut schedule = idle();
    schedule.next(published(Up { valid_from_s: 60, ..up(6) }), 0);
    assert_eq!(schedule.next(Event::Tick, 0), None);
}
