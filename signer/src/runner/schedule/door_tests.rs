//! New data that waits for a person, or came from someone who waits.

use super::tests::{BOUNDS, PARAMS, checked, failure, idle, kinds, published, up};
use super::*;
use crate::runner::alarm::AlarmKind;

fn held(serial: u32, fetched: bool) -> Event {
    Event::Held(AwaitsPerson { serial, since_s: 1, reason: "it shrinks".to_owned(), fetched })
}

/// A zone whose primary gave 6, which is held.
fn holding() -> Schedule {
    let mut schedule = idle();
    schedule.next(Event::Notified, 0);
    assert_eq!(schedule.next(checked(Some(6)), 0), Some(Work::SignNew { reuse: true }));
    assert_eq!(schedule.next(held(6, true), 1), None);
    schedule
}

#[test]
fn what_is_held_is_not_fetched_again_and_alarms() {
    let schedule = holding();
    assert_eq!((schedule.newest_data(), schedule.pending()), (Some(6), None));
    assert_eq!(kinds(&schedule, 1), [AlarmKind::VersionHeld]);
    assert!(schedule.alarms(1)[0].reason.contains("serial 6: it shrinks"));
}

#[test]
fn what_is_up_is_signed_again_while_something_is_held() {
    let mut schedule = holding();
    let due_s = up(5).refresh_at_s;
    assert_eq!(schedule.next(Event::Tick, due_s), Some(Work::SignAgain { reuse: true }));
    let again = Up { incoming_serial: 5, refresh_at_s: 2 * due_s, ..up(7) };
    schedule.next(published(again), due_s);
    assert!(kinds(&schedule, due_s).contains(&AlarmKind::VersionHeld), "it is held still");
}

#[test]
fn a_newer_version_clears_the_held_one() {
    let mut schedule = holding();
    schedule.next(Event::Notified, 2);
    assert_eq!(schedule.next(checked(Some(8)), 2), Some(Work::SignNew { reuse: true }));
    schedule.note(Event::NoneHeld, 3);
    schedule.next(published(up(8)), 3);
    assert_eq!((kinds(&schedule, 3), schedule.newest_data()), (vec![], Some(8)));
}

#[test]
fn what_was_rejected_is_not_fetched_again_until_it_is_behind() {
    let mut schedule = holding();
    schedule.note(Event::NoneHeld, 2);
    schedule.note(Event::Rejected(6), 2);
    assert_eq!(kinds(&schedule, 2), []);
    assert_eq!((schedule.newest_data(), schedule.rejected()), (Some(5), Some(6)));
    assert_eq!(schedule.next(Event::Tick, 2), Some(Work::Check), "what puts it right may be there");
    schedule.next(published(up(9)), 3);
    assert_eq!((schedule.newest_data(), schedule.rejected()), (Some(9), None));
    // RFC 1982: it may be a higher number.
    let mut wrapped = Schedule::new(BOUNDS, Some(up(3)), false, None, 0);
    wrapped.note(Event::Rejected(u32::MAX), 0);
    assert_eq!((wrapped.newest_data(), wrapped.rejected()), (Some(3), None));
}

#[test]
fn a_push_does_not_hide_what_the_primary_has() {
    let mut schedule = idle();
    schedule.next(Event::Arrived(9), 0);
    schedule.next(held(9, false), 0);
    assert_eq!(schedule.newest_data(), Some(5), "the primary may have 6, and it is wanted");
}

#[test]
fn what_arrives_is_signed_at_once_and_its_refusal_asks_no_primary() {
    let mut schedule = idle();
    assert_eq!(schedule.next(Event::Arrived(6), 10), Some(Work::SignNew { reuse: true }));
    let failure = failure(FailureKind::Admission);
    let refused =
        |untold, instead| Event::ArrivalRefused { failure: failure.clone(), untold, instead };
    assert_eq!(schedule.next(refused(false, None), 11), None);
    assert_eq!(kinds(&schedule, 11), [], "whoever brought it was told");
    schedule.next(Event::Arrived(6), 12);
    assert_eq!(schedule.next(refused(true, None), 13), None);
    assert_eq!(kinds(&schedule, 13), [AlarmKind::DataRefused]);
    schedule.next(Event::Arrived(7), 14);
    assert_eq!(kinds(&schedule, 14), [], "the next one is another");
    // What it had pushed aside goes on.
    assert_eq!(schedule.next(refused(false, Some(6)), 15), Some(Work::SignNew { reuse: true }));
    assert_eq!(schedule.pending(), Some(6));
}

#[test]
fn nothing_arrives_while_frozen_but_is_here_after_the_thaw() {
    let mut schedule = idle();
    schedule.next(Event::Frozen, 0);
    assert_eq!(schedule.next(Event::Arrived(6), 1), None);
    schedule.note(Event::Thawed, 2);
    assert_eq!(schedule.next(Event::Tick, 2), Some(Work::SignNew { reuse: true }));
    let unchanged = Event::Unchanged { params: PARAMS, instead: None };
    assert_eq!(schedule.next(unchanged, 3), Some(Work::Check));
    assert_eq!(schedule.pending(), None);
}

/// New data that can't go out, and is tried again and again.
fn stuck(kind: FailureKind) -> Schedule {
    let mut schedule = idle();
    assert_eq!(schedule.next(Event::Arrived(6), 0), Some(Work::SignNew { reuse: true }));
    schedule.next(Event::SignFailed(failure(kind)), 0);
    schedule
}

/// A DS may wait for officers for weeks; signatures of what is up are made anew all the while.
#[test]
fn what_is_up_is_signed_again_while_new_data_cannot_go_out() {
    let due_s = up(5).refresh_at_s;
    let mut schedule = stuck(FailureKind::DsNotApproved);
    assert_eq!(schedule.next(Event::Tick, due_s), Some(Work::SignAgain { reuse: true }));
    // It can fail too, whatever for: the new data has its turn then, and is not lost.
    for kind in [FailureKind::Keeper, FailureKind::Admission] {
        schedule.note(Event::SignFailed(failure(kind)), due_s);
        let at_s = due_s + DS_RETRY_S_MAX;
        assert_eq!(schedule.next(Event::Tick, at_s), Some(Work::SignNew { reuse: true }));
        schedule.note(Event::SignFailed(failure(FailureKind::DsNotApproved)), due_s);
        assert_eq!(schedule.next(Event::Tick, at_s), Some(Work::SignAgain { reuse: true }));
    }
    let again = Up { incoming_serial: 5, refresh_at_s: 2 * due_s, ..up(7) };
    let at_s = due_s + DS_RETRY_S_MAX;
    assert_eq!(schedule.next(published(again), at_s), Some(Work::SignNew { reuse: true }));
    assert_eq!(schedule.pending(), Some(6));
    assert!(kinds(&schedule, at_s).contains(&AlarmKind::DsNotApproved), "it waits still");
    schedule.next(published(Up { refresh_at_s: 2 * due_s, ..up(8) }), at_s);
    assert_eq!((schedule.pending(), schedule.sign_failure.is_none()), (None, true));
}

/// Newer data may be better: it goes before what is up.
#[test]
fn newer_data_goes_before_signatures_that_are_due() {
    let due_s = up(5).refresh_at_s;
    let mut schedule = stuck(FailureKind::DsNotApproved);
    schedule.note(Event::Arrived(7), due_s);
    assert_eq!(schedule.next(Event::Tick, due_s), Some(Work::SignNew { reuse: true }));
}
