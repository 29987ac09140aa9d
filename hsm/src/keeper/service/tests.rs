//! The service against tokens that are tables: what happens between judging and handing out.

use std::sync::mpsc::Receiver;

use countersign_policy::KeyRole;
use countersign_policy::motion::Scope;
use countersign_policy::testing::Person;

use super::*;
use crate::council::{self, Council};
use crate::keeper::fake::{Fake, NOW, Scene, line_of, now_s, set_clock, zone};
use crate::protocol::{NoticeKind, Submission};

struct Served {
    service: Service<Fake>,
    council: Council,
    woken: Receiver<()>,
    keys: BTreeMap<KeyRole, KeyId>,
    dir: tempfile::TempDir,
}

/// A service for a zone with an active KSK and ZSK.
fn served() -> Served {
    let scene = Scene::bound(&[[4; 64], [1; 64]]);
    scene.round();
    scene.carry(council::generate(&zone(), KeyRole::Ksk, true));
    let keys = scene.active();
    let (service, woken, council, dir) = scene.service();
    Served { service, council, woken, keys, dir }
}

impl Served {
    fn sign_dnskey(&self) -> Response {
        let now = now_s() as u32;
        self.service.answer(Request::SignDnskey {
            zone: zone(),
            keys: self.keys.values().copied().collect(),
            signer: self.keys[&KeyRole::Ksk],
            ttl_s: 3_600,
            inception: now - 3_600,
            expiration: now + 14 * 86_400,
        })
    }

    fn sign_zone(&self) -> Response {
        // An A record, as RFC 4034 §3.1.8.1 says.
        let public = self.service.hsm().public_key(&self.keys[&KeyRole::Zsk]).expect("a key");
        let now = now_s() as u32;
        let mut tbs = vec![0, 1, 13, 2, 0, 0, 0, 60];
        tbs.extend((now + 86_400).to_be_bytes());
        tbs.extend((now - 60).to_be_bytes());
        tbs.extend(public.tag(256).to_be_bytes());
        tbs.extend(zone().as_wire());
        tbs.extend(b"\x03www\x07example\0\0\x01\0\x01\0\0\0\x3c\0\x04");
        tbs.extend([192, 0, 2, 1]);
        let key = self.keys[&KeyRole::Zsk];
        self.service.answer(Request::SignZone { zone: zone(), key, tbs: vec![tbs] })
    }

    fn calls(&self, call: &str) -> usize {
        self.service.hsm().table().calls.iter().filter(|made| **made == call).count()
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("ledger.jsonl")).expect("ledger")
    }

    /// Freezes when the call of that name comes, as another connection would.
    fn freeze_at(&self, call: &'static str, by: &Person) {
        let ledger = Arc::clone(&self.service.ledger);
        let paper = ledger.read(|state| council::freeze(state, Scope::All, by, NOW));
        let act = move || _ = ledger.submit(line_of(paper), NOW).expect("frozen");
        self.service.hsm().table().meanwhile = Some((call, Box::new(act)));
    }
}

fn refused(response: Response) -> Refusal {
    match response {
        Response::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_hour_holds_so_many_and_the_next_as_many_again() {
    let mut hourly = Hourly::default();
    assert!((0..3).all(|_| hourly.take(7_199, 3)));
    assert!(!hourly.take(7_199, 3));
    assert!((0..3).all(|second| hourly.take(7_200 + second, 3)));
    assert!(!hourly.take(10_799, 3));
}

#[test]
fn a_ksk_signs_behind_its_intent_and_seal_and_before_its_outcome() {
    let served = served();
    served.service.hsm().table().calls.clear();
    assert!(matches!(served.sign_dnskey(), Response::DnskeySignature(_)));
    assert_eq!(served.service.hsm().table().calls, ["sign-audit", "write-data", "sign-ksk"]);
    let text = served.text();
    let last: Vec<&str> = text.lines().rev().take(2).collect();
    assert!(last[1].contains("sign-dnskey") && last[0].contains("signed"), "{last:?}");
}

#[test]
fn a_freeze_between_judging_and_the_hsm_counts() {
    let served = served();
    served.freeze_at("write-data", &served.council.ken);
    let refusal = refused(served.sign_dnskey());
    assert!(refusal.detail.contains("ken"), "{refusal}");
    assert_eq!(served.calls("sign-ksk"), 0, "the HSM was not asked");
    assert_eq!(served.service.ledger().read(|state| state.open_intents().count()), 0);
}

#[test]
fn a_freeze_while_the_hsm_signs_keeps_the_signature_back() {
    let served = served();
    served.freeze_at("sign-ksk", &served.council.ken);
    assert_eq!(refused(served.sign_dnskey()).kind, RefusalKind::Forbidden);
    assert!(served.text().contains("kept back"), "{}", served.text());
}

#[test]
fn a_second_that_passes_while_a_ksk_waits_for_its_turn_is_no_clock_set_back() {
    let served = served();
    let ledger = Arc::clone(&served.service.ledger);
    // Another connection's line, a second later, between judging and the intent.
    let act = move || {
        set_clock(NOW + 1);
        let digest = "00".repeat(32);
        let note = Note::zone_signed(zone(), 1, digest, BTreeMap::new());
        ledger.note(note, NOW + 1).expect("written");
    };
    served.service.hsm().table().meanwhile = Some(("key-status", Box::new(act)));
    let signed = served.sign_dnskey();
    assert!(matches!(signed, Response::DnskeySignature(_)), "{signed:?}");
}

#[test]
fn a_survey_makes_no_audit_key_in_place_of_the_one_in_force() {
    // Nothing shows its public half, which whoever has the token's files can take away.
    let served = served();
    let survey = || served.service.answer_group(LedgerRequest::Survey, 1);
    let LedgerResponse::Survey(seen) = survey() else { panic!("no survey") };
    let in_force = served.service.ledger().read(|state| state.audit().map(|(_, key)| key.clone()));
    assert_eq!(seen.audit.map(|(_, key)| key), in_force);
    served.service.hsm().table().audit_away = true;
    assert!(matches!(survey(), LedgerResponse::Refused(_)), "it can't be told now");
    assert_eq!(
        served.calls("make-audit-key"),
        0,
        "what is there under its label is destroyed by that"
    );
}

#[test]
fn without_a_ledger_to_write_to_no_ksk_signs_and_zsks_go_on() {
    let served = served();
    served.service.hsm().table().calls.clear();
    served.service.ledger().set_lines_left(Some(0));
    assert_eq!(refused(served.sign_dnskey()).kind, RefusalKind::LedgerUnavailable);
    assert!(served.service.hsm().table().calls.is_empty(), "no HSM was asked");
    let Response::Signatures(signatures) = served.sign_zone() else { panic!("no signatures") };
    assert!(signatures[0].is_ok(), "{signatures:?}");
    let kinds: Vec<NoticeKind> =
        served.service.notices().into_iter().map(|notice| notice.kind).collect();
    assert!(kinds.contains(&NoticeKind::Ledger), "{kinds:?}");
    served.service.ledger().set_lines_left(None);
    assert!(matches!(served.sign_dnskey(), Response::DnskeySignature(_)));
}

#[test]
fn a_signature_whose_result_is_not_on_the_disk_is_kept_back() {
    let served = served();
    served.service.ledger().set_lines_left(Some(1));
    assert_eq!(refused(served.sign_dnskey()).kind, RefusalKind::LedgerUnavailable);
    assert_eq!(served.calls("sign-ksk"), 1);
    assert_eq!(refused(served.sign_dnskey()).kind, RefusalKind::LedgerUnavailable);
    assert_eq!(served.calls("sign-ksk"), 1, "nothing more until it can be written");
    served.service.ledger().set_lines_left(None);
    assert!(matches!(served.sign_dnskey(), Response::DnskeySignature(_)));
    assert_eq!(served.service.ledger().read(|state| state.open_intents().count()), 0);
}

#[test]
fn a_clock_that_is_not_believed_stops_ksks_and_nothing_else() {
    let served = served();
    let day = 86_400;
    for wrong in [NOW - day, NOW + 10 * 365 * day] {
        set_clock(wrong);
        let refusal = refused(served.sign_dnskey());
        assert!(refusal.detail.contains("no KSK is used"), "{refusal}");
        let Response::Signatures(signatures) = served.sign_zone() else { panic!("no signatures") };
        assert!(signatures[0].is_ok(), "{signatures:?}");
        // Lines go on too, and one from the far future moves no floor.
        let published = Request::Published { zone: zone(), serial: 1, digest: [1; 32] };
        assert_eq!(served.service.answer(published), Response::Recorded);
        let kinds: Vec<NoticeKind> =
            served.service.notices().into_iter().map(|notice| notice.kind).collect();
        assert!(kinds.contains(&NoticeKind::Clock), "{kinds:?}");
        set_clock(NOW);
        assert!(matches!(served.sign_dnskey(), Response::DnskeySignature(_)), "right again");
    }
}

#[test]
fn a_zones_ksk_is_used_so_often_in_an_hour() {
    let served = served();
    for _ in 0..KSK_USES_MAX {
        assert!(matches!(served.sign_dnskey(), Response::DnskeySignature(_)));
    }
    assert_eq!(refused(served.sign_dnskey()).kind, RefusalKind::Busy);
}

#[test]
fn what_is_handed_in_wakes_the_executor_and_what_is_refused_does_not() {
    let served = served();
    let (oscar, kim) = (&served.council.oscar, &served.council.kim);
    let motion = council::set_policy("other", 1, council::policy());
    let statement = served
        .service
        .ledger()
        .read(|state| council::statement(state, oscar, motion, NOW, council::nonce()));
    let hand_in = |paper: Submission| served.service.answer_group(LedgerRequest::Submit(paper), 1);
    let in_anothers_name = hand_in(council::propose(&statement, kim));
    assert!(matches!(in_anothers_name, LedgerResponse::Refused(_)), "{in_anothers_name:?}");
    assert!(served.woken.try_recv().is_err());
    let proposed = hand_in(council::propose(&statement, oscar));
    assert!(matches!(proposed, LedgerResponse::Submitted { .. }), "{proposed:?}");
    assert!(served.woken.try_recv().is_ok());
    let notices = served.service.notices();
    assert!(
        notices.iter().any(|notice| notice.kind == NoticeKind::Proposal
            && notice.detail.contains("set-policy, proposed by oscar")),
        "{notices:?}"
    );
}
