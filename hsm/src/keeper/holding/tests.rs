//! Two boxes on the same tokens: which of them uses keys, and what the other says.

use countersign_policy::motion::{Motion, MotionKind};
use countersign_policy::statement::Verb;

use super::*;
use crate::council;
use crate::keeper::fake::{NOW, Scene, line_of, now_s, set_clock};
use crate::keeper::motions::{Executor, Unfinished};
use crate::keeper::seal::{Idle, Seals};

/// Another box: a copy of the ledger in a state directory of its own, in front of the same tokens.
struct Other {
    ledger: Ledger,
    seals: Seals,
    _dir: tempfile::TempDir,
}

impl Other {
    fn of(scene: &Scene) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        std::fs::copy(scene.ledger.path(), dir.path().join("ledger.jsonl")).expect("copied");
        let ledger = Ledger::open(dir.path()).expect("opens");
        let seals = Seals::open(dir.path(), &ledger).expect("opens");
        let other = Self { ledger, seals, _dir: dir };
        for token in ["ksk-a", "zsk-a"] {
            let data = scene.hsm.survey(token).expect("there").data.expect("data objects");
            // Refused or not: what it says is heard.
            _ = other.seals.admit(&other.ledger, token, &data);
        }
        other
    }

    fn round(&self, scene: &Scene) -> Vec<Unfinished> {
        let lines = self.ledger.head().0;
        Executor::new((&self.ledger, lines), &scene.hsm, &self.seals, now_s).round()
    }

    fn own(&self) -> InstanceId {
        self.seals.holding().own()
    }

    /// Proposed by oscar, approved by kim and kate, in this box's ledger.
    fn approved(&self, scene: &Scene, motion: Motion) {
        let council = &scene.council;
        let submit = |paper| self.ledger.submit(line_of(paper), NOW).expect("taken");
        let statement = self
            .ledger
            .read(|state| council::statement(state, &council.oscar, motion, NOW, council::nonce()));
        submit(council::propose(&statement, &council.oscar));
        for officer in [&council.kim, &council.kate] {
            let vote =
                |state: &LedgerState| council::vote(state, &statement, Verb::Approve, officer);
            submit(self.ledger.read(vote));
        }
    }

    fn moves_here(&self, scene: &Scene) {
        let (from, to) = (scene.seals.holding().own(), self.own());
        self.approved(scene, Motion::MoveAppliance { from, to });
    }

    fn settled(&self, scene: &Scene) {
        *locked(&self.seals.holding().settles) = Some(Instant::now());
        self.seals.look(&self.ledger, &scene.hsm);
    }
}

fn elsewhere(seals: &Seals, ledger: &Ledger) -> Elsewhere {
    assert!(seals.idle(ledger).is_some());
    ledger.read(|state| seals.holding().elsewhere(state)).expect("another box holds them")
}

fn mark_on(scene: &Scene, token: &str) -> InstanceMark {
    let values = scene.hsm.read_data(token, INSTANCE_LABEL).expect("readable");
    let [value] = values.as_slice() else { panic!("{} marks", values.len()) };
    InstanceMark::from_canonical(value).expect("a mark")
}

fn put(scene: &Scene, token: &str, marks: &[InstanceMark]) {
    let key = (token.to_owned(), INSTANCE_LABEL.to_owned());
    let values = marks.iter().map(InstanceMark::to_canonical).collect();
    scene.hsm.table().data.insert(key, values);
}

#[test]
fn the_box_of_the_founding_claims_its_tokens_once() {
    let mut scene = Scene::founded(&[]);
    let own = scene.seals.holding().own();
    for token in ["ksk-a", "zsk-a"] {
        let mark = mark_on(&scene, token);
        assert_eq!((mark.instance, mark.origin, mark.line), (own, 0, 1));
    }
    assert_eq!(scene.text().matches("instance-claimed").count(), 1);
    let (lines, run) = (scene.lines(), mark_on(&scene, "zsk-a").run);
    scene.restart();
    assert_eq!(scene.round(), []);
    assert_eq!(scene.seals.idle(&scene.ledger), None);
    assert_eq!(scene.lines(), lines, "it is the same box");
    assert_ne!(mark_on(&scene, "zsk-a").run, run, "by another process");
}

#[test]
fn a_second_box_uses_no_key_and_writes_no_line() {
    let scene = Scene::bound(&[[4; 64]]);
    let other = Other::of(&scene);
    let why = elsewhere(&other.seals, &other.ledger).why;
    let own = scene.seals.holding().own();
    assert!(why.contains(&format!("held by instance {own}")), "{why}");
    assert!(why.contains("propose move-appliance"), "{why}");
    let data = scene.hsm.survey("zsk-a").expect("there").data.expect("data objects");
    let refused = other.seals.admit(&other.ledger, "zsk-a", &data).expect_err("not its own");
    assert!(refused.contains("held by instance"), "no key is proven for it: {refused}");
    let (lines, marks) = (other.ledger.head(), mark_on(&scene, "ksk-a"));
    scene.hsm.table().calls.clear();
    assert_eq!(other.round(&scene), []);
    other.seals.before_use(&other.ledger, &scene.hsm, "ksk").expect_err("no KSK either");
    other.seals.checkpoint(&other.ledger, &scene.hsm).expect_err("nor the audit key");
    assert_eq!(other.ledger.head(), lines);
    assert!(scene.hsm.table().calls.is_empty(), "nothing was asked of the tokens");
    assert_eq!(mark_on(&scene, "ksk-a"), marks);
    // The first goes on as if nothing was.
    scene.seals.look(&scene.ledger, &scene.hsm);
    assert_eq!(scene.seals.idle(&scene.ledger), None);
}

#[test]
fn a_move_is_the_way_out_and_the_box_before_stops_at_its_next_look() {
    let scene = Scene::bound(&[[4; 64]]);
    let other = Other::of(&scene);
    let idle = other.seals.idle(&other.ledger).expect("idle");
    let taken: Vec<MotionKind> = MotionKind::all().filter(|kind| idle.takes(*kind)).collect();
    let expected = [
        MotionKind::ChangeOfficers,
        MotionKind::ChangeRules,
        MotionKind::MoveAppliance,
        MotionKind::RaiseTimeFloor,
    ];
    assert_eq!(taken, expected);
    other.moves_here(&scene);
    assert_eq!(other.round(&scene), [], "it begins");
    assert!(elsewhere(&other.seals, &other.ledger).is_taking_over, "before it is marked");
    assert_eq!(scene.seals.idle(&scene.ledger), None, "the first has not looked yet");
    assert_eq!(other.round(&scene), [], "the tokens are marked");
    assert_eq!(mark_on(&scene, "ksk-a").instance, other.own());
    let why = elsewhere(&other.seals, &other.ledger).why;
    assert!(why.contains("gets the time to notice"), "{why}");
    other.seals.look(&other.ledger, &scene.hsm);
    assert!(other.seals.idle(&other.ledger).is_some(), "a look alone ends no wait");

    let lines = scene.lines();
    scene.hsm.table().reopened.clear();
    scene.seals.look(&scene.ledger, &scene.hsm);
    let stopped = elsewhere(&scene.seals, &scene.ledger);
    assert!(!stopped.is_taking_over);
    assert!(stopped.why.contains(&other.own().to_string()), "{}", stopped.why);
    assert_eq!(scene.round(), []);
    assert_eq!(scene.hsm.table().reopened, ["ksk-a", "zsk-a"], "it lets go of them");
    assert_eq!(scene.lines(), lines, "it writes nothing by itself any more");
    assert_eq!(mark_on(&scene, "zsk-a").instance, other.own(), "nor over the other's mark");

    other.settled(&scene);
    assert_eq!(other.seals.idle(&other.ledger), None);
}

#[test]
fn the_use_of_a_ksk_looks_by_itself() {
    let scene = Scene::bound(&[[4; 64]]);
    let other = Other::of(&scene);
    other.moves_here(&scene);
    other.round(&scene);
    other.round(&scene);
    let why = scene.seals.before_use(&scene.ledger, &scene.hsm, "ksk").expect_err("moved away");
    assert!(why.contains("held by instance"), "{why}");
}

#[test]
fn one_that_is_outranked_does_not_write_over_the_mark() {
    let scene = Scene::bound(&[[4; 64]]);
    let other = Other::of(&scene);
    other.moves_here(&scene);
    other.round(&scene);
    other.round(&scene);
    // It was read before the other wrote: the last moment.
    let holding = scene.seals.holding();
    let why = holding.mark(&scene.ledger, &scene.hsm, "zsk-a").expect_err("outranked");
    assert!(why.contains("held by instance"), "{why}");
    assert_eq!(mark_on(&scene, "zsk-a").instance, other.own());
}

#[test]
fn two_moves_by_the_same_line_of_two_ledgers_stop_both() {
    let scene = Scene::bound(&[[4; 64]]);
    let (one, two) = (Other::of(&scene), Other::of(&scene));
    for other in [&one, &two] {
        other.moves_here(&scene);
        other.round(&scene);
    }
    one.round(&scene);
    let first = mark_on(&scene, "ksk-a");
    two.seals.look(&two.ledger, &scene.hsm);
    two.round(&scene);
    let why = elsewhere(&two.seals, &two.ledger).why;
    assert!(why.contains("two ledgers went apart"), "{why}");
    assert_eq!(mark_on(&scene, "ksk-a"), first);
    // Both wrote at once, and both marks stay.
    let of_two = InstanceMark { instance: two.own(), ..first };
    put(&scene, "ksk-a", &[first, of_two]);
    one.settled(&scene);
    let why = elsewhere(&one.seals, &one.ledger).why;
    assert!(why.contains("two ledgers went apart"), "{why}");
    // A further motion on one of them decides.
    one.approved(&scene, Motion::MoveAppliance { from: one.own(), to: one.own() });
    one.round(&scene);
    one.round(&scene);
    one.settled(&scene);
    assert_eq!(one.seals.idle(&one.ledger), None);
    two.seals.look(&two.ledger, &scene.hsm);
    let Some(Idle::Behind(why)) = two.seals.idle(&two.ledger) else { panic!("it goes on") };
    assert!(why.contains(&one.own().to_string()), "{why}");
}

#[test]
fn of_two_exact_copies_of_one_box_the_first_stops() {
    let scene = Scene::founded(&[]);
    // The same instance: an image of the whole machine.
    let copy = Holding::new(scene.seals.holding().own()).expect("random octets");
    for token in ["ksk-a", "zsk-a"] {
        copy.mark(&scene.ledger, &scene.hsm, token).expect("marked");
    }
    scene.seals.look(&scene.ledger, &scene.hsm);
    let why = elsewhere(&scene.seals, &scene.ledger).why;
    assert!(why.contains("a copy of this box was started"), "{why}");
    assert_eq!(scene.round(), []);
    copy.look(&scene.hsm, "zsk-a").expect("readable");
    assert_eq!(scene.ledger.read(|state| copy.elsewhere(state)), None);
}

#[test]
fn what_a_crash_left_is_no_copy() {
    let mut scene = Scene::founded(&[]);
    let before = mark_on(&scene, "zsk-a");
    scene.restart();
    assert_eq!(scene.round(), []);
    // The one of before could not be destroyed.
    let now = mark_on(&scene, "zsk-a");
    put(&scene, "zsk-a", &[before, now]);
    scene.seals.look(&scene.ledger, &scene.hsm);
    assert_eq!(scene.seals.idle(&scene.ledger), None);
    // And where it is gone altogether it is put there again.
    put(&scene, "zsk-a", &[]);
    scene.seals.look(&scene.ledger, &scene.hsm);
    assert_eq!(scene.round(), []);
    assert_eq!(mark_on(&scene, "zsk-a"), now);
}

#[test]
fn a_mark_that_can_not_be_read_refuses_the_token() {
    let scene = Scene::founded(&[]);
    let key = ("zsk-a".to_owned(), INSTANCE_LABEL.to_owned());
    scene.hsm.table().data.insert(key, vec![b"{}".to_vec()]);
    let data = scene.hsm.survey("zsk-a").expect("there").data.expect("data objects");
    let why = scene.seals.admit(&scene.ledger, "zsk-a", &data).expect_err("unreadable");
    assert!(why.contains("can't be read"), "{why}");
}

#[test]
fn a_ledger_without_the_claim_takes_no_token_that_has_a_mark() {
    let scene = Scene::founded(&[]);
    let text = scene.text();
    let first = text.split_inclusive('\n').next().expect("line 0");
    let dir = tempfile::tempdir().expect("directory");
    std::fs::write(dir.path().join("ledger.jsonl"), first).expect("written");
    let ledger = Ledger::open(dir.path()).expect("opens");
    let seals = Seals::open(dir.path(), &ledger).expect("opens");
    let data = scene.hsm.survey("zsk-a").expect("there").data.expect("data objects");
    let why = seals.admit(&ledger, "zsk-a", &data).expect_err("held");
    assert!(why.contains("which the ledger here does not have"), "{why}");
    seals.holding().claim(&ledger, NOW).expect("it keeps still");
    assert_eq!(ledger.head().0, 1);
}

#[test]
fn a_new_origin_from_before_the_claim_claims_the_tokens_anew() {
    let mut scene = Scene::founded(&[]);
    scene.seals.before_use(&scene.ledger, &scene.hsm, "ksk").expect("sealed");
    let lost = scene.ledger.read(|state| state.tree().head());
    let first = scene.text().split_inclusive('\n').next().expect("line 0").to_owned();
    std::fs::write(scene.ledger.path(), first).expect("rolled back");
    scene.restart();
    for token in ["ksk-a", "zsk-a"] {
        let data = scene.hsm.survey(token).expect("there").data.expect("data objects");
        _ = scene.seals.admit(&scene.ledger, token, &data);
    }
    assert!(matches!(scene.seals.idle(&scene.ledger), Some(Idle::Behind(_))));
    let rita = &scene.council.recovery[0];
    let motion = Motion::NewOrigin { lost, officers: 1, rules: 1 };
    let statement =
        scene.ledger.read(|state| council::statement(state, rita, motion, NOW, council::nonce()));
    scene.ledger.submit(line_of(council::propose(&statement, rita)), NOW).expect("proposed");
    for officer in &scene.council.recovery[1..4] {
        scene.vote(&statement, Verb::Approve, officer).expect("approved");
    }
    set_clock(NOW + 86_400);
    // It begins, the tokens are claimed, and marked.
    for _ in 0..3 {
        scene.round();
    }
    assert_eq!(scene.seals.idle(&scene.ledger), None);
    let holder = scene.ledger.read(|state| state.holder().copied()).expect("claimed");
    assert_eq!((holder.instance, holder.origin), (scene.seals.holding().own(), 1));
    for token in ["ksk-a", "zsk-a"] {
        let mark = mark_on(&scene, token);
        assert_eq!((mark.origin, mark.line), holder.rank());
    }
}

#[test]
fn a_take_over_leaves_what_the_other_box_has_sealed_meanwhile() {
    let scene = Scene::bound(&[[4; 64]]);
    let other = Other::of(&scene);
    other.moves_here(&scene);
    assert_eq!(other.round(&scene), [], "it begins");
    // The first has not looked yet, and goes on.
    scene.carry(council::set_policy("default", 2, council::policy()));
    scene.seals.before_use(&scene.ledger, &scene.hsm, "ksk").expect("sealed");
    let sealed = scene.hsm.read_data("ksk-a", STATE_LABEL).expect("readable");
    other.round(&scene);
    assert_eq!(scene.hsm.read_data("ksk-a", STATE_LABEL), Ok(sealed));
    assert!(matches!(other.seals.idle(&other.ledger), Some(Idle::Behind(_))));
}

#[test]
fn a_mark_that_was_written_and_said_to_have_failed_is_ours() {
    let scene = Scene::founded(&[]);
    let unsure = Holding::new(scene.seals.holding().own()).expect("random octets");
    let mark = scene.ledger.read(|state| {
        let (founding, holder) = (state.appliance(), state.holder());
        InstanceMark::of(founding.expect("founded"), holder.expect("claimed"), unsure.run)
    });
    unsure.see("zsk-a", [mark.to_canonical()]).expect("readable");
    let copy = Holding::new(unsure.own()).expect("random octets");
    copy.mark(&scene.ledger, &scene.hsm, "zsk-a").expect("marked");
    unsure.look(&scene.hsm, "zsk-a").expect("readable");
    let why = scene.ledger.read(|state| unsure.elsewhere(state)).expect("a copy").why;
    assert!(why.contains("a copy of this box was started"), "{why}");
}
