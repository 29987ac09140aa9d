//! What people put to a vote, over the group's socket of a real keeper: what needs a quorum has none
//! without it, and what one person may do alone is done at once.

use std::collections::BTreeSet;

use countersign_hsm::client::{CdsSigning, ClientError};
use countersign_hsm::protocol::{LedgerRequest, Mode, Notice, NoticeKind, RefusalKind, TokenState};
use countersign_policy::ds::{Delegation, DsDigest};
use countersign_policy::founding::TokenIdentity;
use countersign_policy::ledger::{CdsType, Entry, Operation, Outcome};
use countersign_policy::motion::{Motion, Scope};
use countersign_policy::signing::DnskeyApproval;
use countersign_policy::state::Status;
use countersign_policy::statement::Verb;
use countersign_policy::{KeyId, KeyRole};

use crate::bed::{Item, Site, child, key_of, now, order, refusal, until, zone};
use crate::council;

fn sha256() -> BTreeSet<DsDigest> {
    [DsDigest::Sha256].into()
}

#[test]
fn an_unfounded_keeper_refuses_the_daemon_and_a_founded_one_a_founding() {
    let site = Site::new();
    let keeper = site.start();
    let refused = until("the refusal", || match keeper.client().zones() {
        Err(ClientError::Refused(refusal)) => Ok(refusal),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(refused.kind, RefusalKind::LedgerUnavailable);
    assert!(refused.detail.contains("not founded"), "{refused}");
    assert_eq!(*keeper.ledger_client().mode(), Mode::Unfounded);
    let text = site.draft(&keeper).to_text();
    let signatures: Vec<_> = site.council.found(&text).into_iter().collect();
    let unpinned = refusal(keeper.ledger_client().found(text.clone(), signatures.clone()));
    assert!(unpinned.detail.contains("no founding is pinned"), "{unpinned}");
    drop(keeper);

    site.found();
    let keeper = site.start();
    let again = refusal(keeper.ledger_client().found(text, signatures));
    assert_eq!(again.kind, RefusalKind::Forbidden);
    assert_eq!(*keeper.ledger_client().mode(), Mode::Founded);
}

#[test]
fn a_lost_ledger_founds_nothing_anew_over_its_tokens() {
    let site = Site::founded();
    drop(site.signing());
    std::fs::rename(site.path("state"), site.path("lost")).expect("moved");
    let keeper = site.start();
    let survey = until("the survey", || {
        let survey = keeper.ledger_client().survey().map_err(|e| e.to_string())?;
        let whole = survey.tokens.iter().all(|token| token.problem.is_none());
        if whole { Ok(survey) } else { Err(format!("{survey:?}")) }
    });
    assert!(survey.tokens.iter().all(|token| token.marked.is_some()), "{survey:?}");
    let text = site.draft(&keeper).to_text();
    site.pin(&text);
    let signatures = site.council.found(&text).into_iter().collect();
    let refused = refusal(keeper.ledger_client().found(text, signatures));
    assert!(refused.detail.contains("carries the mark of founding"), "{refused}");
}

#[test]
fn a_token_that_is_not_this_appliances_is_not_used() {
    let site = Site::founded();
    let keys = site.signing().ready().zone(&zone()).expect("keys");
    let zsk = key_of(&keys, KeyRole::Zsk);
    let refuses = |expect: &str| {
        let keeper = site.start();
        let client = keeper.client();
        until(expect, || {
            let tokens = client.health().map_err(|e| e.to_string())?.tokens;
            let token = tokens.iter().find(|token| token.name == "zsk-a").expect("the token");
            match &token.state {
                TokenState::Unusable(why) if why.contains(expect) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        let notices = client.health().expect("health").notices;
        let told =
            |notice: &Notice| notice.kind == NoticeKind::Token && notice.detail.contains(expect);
        assert!(notices.iter().any(told), "{notices:?}");
        let answer = client.sign_zone(&zone(), zsk.public.id(), vec![Item::of(&zsk).octets()]);
        assert!(answer.expect("answered")[0].is_err(), "it signs nothing");
        client.sign_dnskey(&zone(), order(&keys)).expect_err("its key is proven by no token");
    };
    let other = "5".repeat(64);
    site.data_object("zsk", &["--write-object", &site.file("mark", &other)]);
    refuses("carries the marks of two foundings");
    // Both are destroyed, and the other's written anew.
    site.data_object("zsk", &["--delete-object"]);
    site.data_object("zsk", &["--delete-object"]);
    refuses("does not carry the founding's mark");
    site.data_object("zsk", &["--write-object", &site.file("mark", &other)]);
    refuses("carries the mark of another founding, 5555");
    site.data_object("zsk", &["--delete-object"]);
    let ours = site.hash().to_string();
    site.data_object("zsk", &["--write-object", &site.file("mark", &ours)]);
    site.start().ready();
}

#[test]
fn configuration_and_ledger_name_the_same_tokens() {
    let site = Site::founded();
    let config = site.read("keeper.toml");
    site.write("keeper.toml", &config.replace(site.serial(1), "0000000000000000"));
    let (code, log) = site.start_refused();
    assert!(code == 2 && log.contains("`serial` is"), "{code} {log}");
    // One that is missing stays closed, and that is told.
    let (without, _) = config.split_once("[token.zsk-a]").expect("the section");
    site.write("keeper.toml", without);
    let keeper = site.start();
    let client = keeper.client();
    let health = until("health", || client.health().map_err(|e| e.to_string()));
    let told =
        |notice: &Notice| notice.kind == NoticeKind::Token && notice.detail.contains("`zsk-a`");
    assert!(health.notices.iter().any(told), "{health:?}");
}

#[test]
fn ds_records_are_handed_out_to_a_quorum_and_to_nobody_else() {
    let site = Site::founded();
    let keeper = site.signing();
    let client = keeper.ready();
    let ksk = key_of(&client.zone(&zone()).expect("keys"), KeyRole::Ksk);
    let refused = refusal(keeper.ledger_client().export_ds(&zone()));
    assert!(refused.detail.contains("it takes an export-ds motion"), "{refused}");

    let (keys, digests) = (BTreeSet::from([ksk.public.id()]), sha256());
    let motion = Motion::ExportDs { zone: zone(), keys, digests };
    let statement = keeper.propose(motion);
    let council = &site.council;
    let approval = council::vote(&keeper.state(), &statement, Verb::Approve, &council.kim);
    keeper.submit(approval).expect("approved");
    assert!(keeper.ledger_client().export_ds(&zone()).is_err(), "one is no quorum");
    let approval = council::vote(&keeper.state(), &statement, Verb::Approve, &council.kate);
    keeper.submit(approval).expect("approved");
    keeper.until_done(&statement);

    let export = keeper.ledger_client().export_ds(&zone()).expect("exported");
    assert_eq!(export.statement, statement.to_text());
    assert_eq!(export.keys, [(KeyRole::Ksk, ksk.public.clone())]);
    let line = &site.ledger()[usize::try_from(export.line).expect("line")];
    assert!(matches!(&line.entry, Entry::DsExported { zone: of, .. } if *of == zone()));

    // Frozen: nothing is handed out, although the approval lives.
    let freeze = council::freeze(&keeper.state(), Scope::All, &council.ken, now().into());
    keeper.submit(freeze).expect("frozen");
    assert_eq!(refusal(keeper.ledger_client().export_ds(&zone())).kind, RefusalKind::Forbidden);
}

#[test]
fn of_a_bound_child_exactly_the_exported_ds_are_signed() {
    let site = Site::founded();
    let keeper = site.signing();
    let client = keeper.ready();
    let zsk = key_of(&client.zone(&zone()).expect("keys"), KeyRole::Zsk);
    let csk = key_of(&client.zone(&child()).expect("keys"), KeyRole::Csk);
    let delegation = |digests: &BTreeSet<DsDigest>| {
        Delegation::new(child(), [(csk.role, csk.public.clone())], digests).expect("a delegation")
    };
    let item = |rdatas: Vec<Vec<u8>>| {
        let mut item = Item::of(&zsk);
        (item.covered, item.rtype) = (43, 43);
        item.owner = child().as_wire().to_vec();
        item.rdatas = rdatas;
        item.octets()
    };
    let rdatas = |digests: &BTreeSet<DsDigest>| {
        delegation(digests).ds().map(countersign_policy::ds::Ds::rdata).collect::<Vec<_>>()
    };
    let sign = |rdatas: Vec<Vec<u8>>| {
        let answer = client.sign_zone(&zone(), zsk.public.id(), vec![item(rdatas)]);
        answer.expect("answered").remove(0)
    };
    let refused = sign(rdatas(&sha256())).expect_err("not exported");
    assert!(refused.detail.contains("its export takes an export-ds motion"), "{refused}");
    keeper.carry(Motion::ExportDs {
        zone: child(),
        keys: [csk.public.id()].into(),
        digests: sha256(),
    });
    assert!(sign(rdatas(&sha256())).is_ok(), "exactly what was exported");
    let other = [DsDigest::Sha384].into();
    assert!(sign(rdatas(&other)).is_err(), "another digest of the same key");
    let both = [DsDigest::Sha256, DsDigest::Sha384].into();
    assert!(sign(rdatas(&both)).is_err(), "more than was exported");
    assert!(sign(vec![vec![9; 36]]).is_err(), "an attacker's own");
}

#[test]
fn cds_are_signed_while_their_motion_lives_and_by_a_ksk_alone() {
    let site = Site::founded();
    let keeper = site.signing();
    let client = keeper.ready();
    let keys = client.zone(&zone()).expect("keys");
    assert_eq!(keys.cds, None);
    let ksk = key_of(&keys, KeyRole::Ksk).public.id();
    let zsk = key_of(&keys, KeyRole::Zsk).public.id();
    let signing = |signer: KeyId, days: u32| CdsSigning {
        rrset: CdsType::Cds,
        signer,
        ttl_s: 3_600,
        inception: now() - 3_600,
        expiration: now() + days * 86_400 - 60,
    };
    let refused = refusal(client.sign_cds(&zone(), signing(ksk, 2)));
    assert!(refused.detail.contains("it takes a publish-cds or delete-ds motion"), "{refused}");
    let motion = Motion::PublishCds { zone: zone(), keys: [ksk].into(), digests: sha256() };
    keeper.carry(motion);
    let order = client.zone(&zone()).expect("keys").cds.expect("an order");
    assert_eq!((order.cds.len(), order.cdnskey.len(), order.validity_s), (1, 1, 3 * 86_400));
    for rrset in [CdsType::Cds, CdsType::Cdnskey] {
        let signature = client.sign_cds(&zone(), CdsSigning { rrset, ..signing(ksk, 2) });
        assert_eq!(signature.expect("signed").len(), 64);
    }
    let too_long = refusal(client.sign_cds(&zone(), signing(ksk, 5)));
    assert!(too_long.detail.contains("expiration"), "{too_long}");
    assert!(client.sign_cds(&zone(), signing(zsk, 2)).is_err(), "a ZSK");
    assert!(client.sign_cds(&child(), signing(ksk, 2)).is_err(), "another zone's");
    // The delete form takes its place, and a freeze both.
    keeper.carry(Motion::DeleteDs { zone: zone() });
    let order = client.zone(&zone()).expect("keys").cds.expect("an order");
    assert_eq!(order.cds, [vec![0, 0, 0, 0, 0]]);
    client.sign_cds(&zone(), signing(ksk, 2)).expect("signed");
    let freeze = Scope::Zone(zone());
    let freeze = council::freeze(&keeper.state(), freeze, &site.council.ada, now().into());
    keeper.submit(freeze).expect("frozen");
    assert_eq!(refusal(client.sign_cds(&zone(), signing(ksk, 2))).kind, RefusalKind::Forbidden);
}

#[test]
fn one_person_freezes_at_once_and_two_thaw() {
    let site = Site::founded();
    let keeper = site.signing();
    let client = keeper.ready();
    let keys = client.zone(&zone()).expect("keys");
    let zsk = key_of(&keys, KeyRole::Zsk);
    client.sign_dnskey(&zone(), order(&keys)).expect("signed");
    let freeze = council::freeze(&keeper.state(), Scope::All, &site.council.ken, now().into());
    // While the daemon asks and asks.
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = Vec::new();
            for _ in 0..30 {
                answers.push(client.sign_dnskey(&zone(), order(&keys)));
            }
            answers
        });
        let line = keeper.submit(freeze).expect("frozen");
        let refused = refusal(client.sign_dnskey(&zone(), order(&keys)));
        assert!(refused.detail.contains("ken"), "{refused}");
        let answers = asking.join().expect("answers");
        assert!(answers.last().is_some_and(Result::is_err), "{answers:?}");
        let intents = site.ledger().into_iter().filter(|line| {
            matches!(&line.entry, Entry::Intent { operation: Operation::SignDnskey { .. }, .. })
        });
        assert!(intents.into_iter().all(|intent| intent.seq < line), "none behind the freeze");
    });
    let health = client.health().expect("health");
    assert!(health.notices.iter().any(|notice| notice.kind == NoticeKind::Frozen), "{health:?}");
    let signed = client.sign_zone(&zone(), zsk.public.id(), vec![Item::of(&zsk).octets()]);
    assert!(signed.expect("answered")[0].is_ok(), "zones are signed all the same");
    keeper.carry(Motion::Thaw { scope: Scope::All });
    client.sign_dnskey(&zone(), order(&keys)).expect("signed again");
}

#[test]
fn a_set_is_approved_as_a_whole_where_the_policy_says_so() {
    let site = Site::founded();
    let keeper = site.signing();
    let client = keeper.ready();
    let keys = client.zone(&zone()).expect("keys");
    let mut policy = council::policy();
    policy.approval = DnskeyApproval::PerSet;
    keeper.carry(council::set_policy("default", 2, policy));
    for refused in [
        refusal(client.zone(&zone()).map(drop)),
        refusal(client.sign_dnskey(&zone(), order(&keys))),
    ] {
        assert!(refused.detail.contains("propose sign-dnskey-set"), "{refused}");
    }
    let set: BTreeSet<KeyId> = keys.keys.iter().map(|key| key.public.id()).collect();
    let statement = keeper.carry(Motion::SignDnskeySet { zone: zone(), keys: set });
    let approved = client.zone(&zone()).expect("keys");
    assert_eq!(approved.dnskey_until, Some(statement.finish_by));
    client.sign_dnskey(&zone(), order(&keys)).expect("signed");
}

#[test]
fn a_flood_of_bad_papers_costs_its_sender_alone() {
    let site = Site::founded();
    let keeper = site.signing();
    let client = keeper.ready();
    let keys = client.zone(&zone()).expect("keys");
    let council = &site.council;
    let state = keeper.state();
    let lines = site.ledger().len();
    let mut kinds = BTreeSet::new();
    let mut flood = keeper.ledger_client();
    for n in 0..300_u32 {
        let motion = council::bind(&"flood.".parse().expect("name"), "default");
        let statement =
            council::statement(&state, &council.oscar, motion, now().into(), council::nonce());
        // By a key that is not oscar's.
        let paper = council::propose(&statement, &council.kim);
        kinds.insert(format!("{:?}", refusal(flood.submit(paper)).kind));
        if n % 100 == 0 {
            client.sign_dnskey(&zone(), order(&keys)).expect("the daemon is served");
        }
    }
    assert_eq!(kinds, ["Busy", "Forbidden"].map(str::to_owned).into());
    let intents = site.ledger().len() - lines;
    assert_eq!(intents, 6, "three DNSKEY signatures, and no line for what was refused");
    // And a freeze of the same user gets through.
    let freeze = council::freeze(&keeper.state(), Scope::All, &council.ada, now().into());
    flood.submit(freeze).expect("frozen");
}

#[test]
fn proposals_have_quotas_and_can_be_taken_back() {
    let site = Site::founded();
    let keeper = site.start();
    let council = &site.council;
    let proposals: Vec<_> = (1..=8)
        .map(|n| keeper.propose(council::set_policy(&format!("p{n}"), 1, council::policy())))
        .collect();
    let ninth = council::set_policy("p9", 1, council::policy());
    let statement =
        council::statement(&keeper.state(), &council.oscar, ninth, now().into(), council::nonce());
    let refused = refusal(keeper.submit(council::propose(&statement, &council.oscar)));
    assert!(refused.detail.contains("8 open proposals"), "{refused}");
    let not_his = refusal(keeper.submit(council::withdraw(&proposals[0], &council.kim)));
    assert!(not_his.detail.contains("kim did not propose it"), "{not_his}");
    keeper.submit(council::withdraw(&proposals[0], &council.oscar)).expect("withdrawn");
    let status = keeper.state().status(&proposals[0].hash());
    assert_eq!(status, Some(Status::Withdrawn));
    keeper.submit(council::propose(&statement, &council.oscar)).expect("room again");
}

#[test]
fn a_founded_keepers_survey_shows_no_key_of_its_own() {
    let site = Site::founded();
    let keeper = site.signing();
    keeper.carry(council::generate(&zone(), KeyRole::Ksk, false));
    let survey = keeper.ledger_client().survey().expect("survey");
    assert!(survey.tokens.iter().all(|token| token.keys.is_empty()), "{survey:?}");
    assert!(survey.tokens.iter().all(|token| token.marked == keeper.state().appliance()));
    let hidden = keeper.state();
    let hidden = hidden.keys().values().find(|key| key.public.is_none()).expect("a hidden KSK");
    assert!(hidden.role == KeyRole::Ksk);
}

#[test]
fn a_rolled_back_ledger_signs_nothing_and_says_why() {
    let site = Site::founded();
    let keeper = site.signing();
    let client = keeper.ready();
    let keys = client.zone(&zone()).expect("keys");
    drop(keeper);
    let earlier = site.read("state/ledger.jsonl");
    let keeper = site.start();
    let client = {
        drop(client);
        keeper.ready()
    };
    client.sign_dnskey(&zone(), order(&keys)).expect("signed");
    drop(keeper);
    // The sealed copy beside it rolled back too: the token remembers.
    site.write("state/ledger.jsonl", &earlier);
    std::fs::remove_file(site.path("state/checkpoint")).expect("removed");
    let keeper = site.start();
    let client = keeper.client();
    let refused = until("the refusal", || match client.zone(&zone()) {
        Err(ClientError::Refused(refusal)) => Ok(refusal),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(refused.kind, RefusalKind::LedgerUnavailable);
    assert!(refused.detail.contains("token `ksk-a` says"), "{refused}");
    let zsk = key_of(&keys, KeyRole::Zsk);
    let answer = client.sign_zone(&zone(), zsk.public.id(), vec![Item::of(&zsk).octets()]);
    assert_eq!(refusal(answer).kind, RefusalKind::LedgerUnavailable);
    assert!(matches!(keeper.ledger_client().mode(), Mode::Behind(_)));
    let health = client.health().expect("health");
    assert_eq!(health.notices[0].kind, NoticeKind::Behind);
    let state = keeper.state();
    let motion = council::set_policy("other", 1, council::policy());
    let oscar = &site.council.oscar;
    let statement = council::statement(&state, oscar, motion, now().into(), council::nonce());
    let refused = refusal(keeper.submit(council::propose(&statement, oscar)));
    assert_eq!(refused.kind, RefusalKind::LedgerUnavailable);
    assert_eq!(site.read("state/ledger.jsonl"), earlier, "not a line is added to it");
}

#[test]
fn every_request_of_the_group_survives_its_frame() {
    let council = council::Council::new();
    let text = "countersign freeze v1\n".to_owned();
    let signature = council.ada.sign(countersign_policy::ssh::Namespace::Freeze, &text);
    let signatures = vec![(council.ada.name.clone(), signature.clone())];
    let freeze = countersign_hsm::protocol::Submission::Freeze { text: text.clone(), signature };
    for request in [
        LedgerRequest::Survey,
        LedgerRequest::Found { text, signatures },
        LedgerRequest::Submit(freeze),
        LedgerRequest::ExportDs { zone: zone() },
    ] {
        let frame = countersign_hsm::frame::encode(1, &request).expect("fits");
        let (_, read) = countersign_hsm::frame::decode::<LedgerRequest>(&frame[4..]).expect("read");
        assert_eq!(read, request);
    }
}

#[test]
fn an_approval_that_came_before_a_change_of_officers_is_judged_by_the_new() {
    let site = Site::founded();
    let keeper = site.signing();
    let council = &site.council;
    let motion = council::generate(&zone(), KeyRole::Ksk, false);
    let statement = keeper.propose(motion);
    let approval = council::vote(&keeper.state(), &statement, Verb::Approve, &council.kim);
    keeper.submit(approval).expect("approved");
    // Kim retires, and lena comes.
    let lena = countersign_policy::testing::Person::new("lena", council.kim.role);
    let change = keeper.propose(Motion::ChangeOfficers {
        version: 2,
        retire: [council.kim.name.clone()].into(),
        enrol: [(lena.name.clone(), lena.officer())].into(),
    });
    for officer in [&council.kate, &council.ken] {
        let approval = council::vote(&keeper.state(), &change, Verb::Approve, officer);
        keeper.submit(approval).expect("approved");
    }
    keeper.until_done(&change);
    let approval = council::vote(&keeper.state(), &statement, Verb::Approve, &council.kate);
    let status = || keeper.state().status(&statement.hash());
    let open = keeper.submit(approval);
    assert!(open.is_ok() || status() != Some(Status::Open), "{open:?}");
    assert!(
        !matches!(status(), Some(Status::Begun { .. })),
        "kate alone, and kim who is no officer any more"
    );
    let outcomes = site.ledger().into_iter().filter(|line| {
        matches!(&line.entry, Entry::Outcome { outcome: Outcome::Generated { .. }, .. })
    });
    assert_eq!(outcomes.count(), 3, "the two zones' keys, and no other");
}

/// The token that was lost may still be in its slot, or come back into it: another has its name by then.
#[test]
fn a_token_that_was_replaced_signs_no_more() {
    let site = Site::founded();
    let keeper = site.signing();
    let client = keeper.ready();
    let zsk = key_of(&client.zone(&zone()).expect("keys"), KeyRole::Zsk);
    let sign = || client.sign_zone(&zone(), zsk.public.id(), vec![Item::of(&zsk).octets()]);
    assert!(sign().expect("answered")[0].is_ok());
    let identity = TokenIdentity {
        label: "zsk".to_owned(),
        serial: "0123456789abcdef".to_owned(),
        group: "zsk".to_owned(),
        data_objects: true,
    };
    keeper.carry(Motion::AttachToken { name: "zsk-a".to_owned(), identity });
    until("the token is let go", || {
        let health = client.health().map_err(|e| e.to_string())?;
        let told = |notice: &Notice| {
            notice.kind == NoticeKind::Token && notice.detail.contains("attach-token motion")
        };
        if health.notices.iter().any(told) { Ok(()) } else { Err(format!("{health:?}")) }
    });
    assert!(sign().expect("answered")[0].is_err(), "it signs nothing");
}
