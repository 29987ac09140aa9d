//! An old ledger comes back with its own sealed checkpoint. What a token holds tells; and where the
//! token's files were rolled back as well, which a software token can't help, what an officer's machine
//! has seen does.

use anyhow::{Result, ensure};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::files::Copies;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::{story, zones};

/// How the keeper ends that refuses its ledger.
const EXIT_LEDGER: i32 = 4;
/// How `countersign` ends when what it is shown does not hold.
const EXIT_UNSOUND: i32 = 5;
const ANOTHER_KSK: [&str; 5] = ["generate-key", "--zone", "example.", "--role", "ksk"];

/// A copy of the ledger with a checkpoint that the audit key has sealed, and of the tokens' files.
fn copy(chain: &mut Chain<'_>) -> Result<(Copies, Copies)> {
    chain.officers.export_bundle("before.bundle")?;
    ensure!(chain.keeper.stop()?.success());
    ensure!(chain.keeper.state.join("checkpoint").is_file(), "there is no sealed checkpoint");
    let ledger = Copies::of([chain.keeper.state.as_path()])?;
    let tokens = Copies::of(chain.tokens.values().map(|token| token.dir.as_path()))?;
    chain.keeper.start()?;
    Ok((ledger, tokens))
}

#[test]
fn rolled_back_ledger_is_caught() {
    story(|scratch| {
        let mut chain = Chain::start(scratch, Plan::default())?;
        let (old, _) = copy(&mut chain)?;
        chain.officers.carry(&chain.keeper, &ANOTHER_KSK)?;
        ensure!(chain.keeper.stop()?.success());
        let newest = Copies::of([chain.keeper.state.as_path()])?;

        old.put_back()?;
        chain.keeper.start()?;
        chain.change_zone(&zones::example_with(2, "added"))?;
        let reason = until("an alarm", SOON, || chain.daemon.alarm(&["signing-failed"]))?;
        ensure!(chain.served_serial()? == 1, "{reason}");
        // Whoever looks for the first time is told by the keeper itself; a motion is not taken.
        let shown = chain.officers.ok("pat", &["audit", "log"])?;
        ensure!(shown.contains("the keeper uses no key") && shown.contains("ksk-a"), "{shown}");
        let motion = ["propose", "export-ds", "--zone", "example."];
        let refused = chain.officers.cli("kurt", &motion)?;
        ensure!(!refused.status.success(), "{refused:?}");
        chain.verify_served()?;

        ensure!(chain.keeper.stop()?.success());
        newest.put_back()?;
        chain.keeper.start()?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.officers.carry(&chain.keeper, &ANOTHER_KSK)?;
        chain.verify_served()
    });
}

#[test]
fn with_its_tokens_rolled_back_too_every_officer_who_has_looked_refuses_it() {
    story(|scratch| {
        let mut chain = Chain::start_with(scratch, Plan::default(), |chain| {
            let opal = chain.officers.meet("opal", "operator", &["ed25519"]);
            assert!(opal.is_ok(), "{opal:?}");
        })?;
        let (old, old_tokens) = copy(&mut chain)?;
        // kay and kim take part and so have seen what comes now; op looks at it. (What op saw before
        // proposing may come again line by line, if the keeper starts twice within a second.)
        let id = chain.officers.carry(&chain.keeper, &ANOTHER_KSK)?;
        chain.officers.ok("op", &["proposal", "list"])?;
        ensure!(chain.keeper.stop()?.success());
        old.put_back()?;
        old_tokens.put_back()?;
        chain.keeper.start()?;

        for (who, arguments) in [
            ("op", &["propose", "export-ds", "--zone", "example."][..]),
            ("kay", &["audit", "log"]),
            ("kim", &["proposal", "list"]),
        ] {
            let looked = chain.officers.cli(who, arguments)?;
            let refused = looked.status.code() == Some(EXIT_UNSOUND);
            ensure!(refused && looked.stderr.contains("Sign nothing"), "{who}: {looked:?}");
        }
        // Of opal and kurt, who have seen nothing of it, no motion has its two approvals.
        let motion = ["generate-key", "--zone", "example.", "--role", "ksk"];
        let forged = chain.officers.propose("opal", &motion)?;
        chain.officers.approve(&["kurt"], &forged)?;
        for who in ["kay", "kim"] {
            chain.officers.refused(who, &["approve", &forged], "Sign nothing")?;
        }
        ensure!(chain.keeper.is_done(&forged).is_err() && chain.keeper.is_done(&id).is_err());
        // Zones are signed all the same.
        chain.change_zone(&zones::example_with(2, "added"))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.verify_served()
    });
}

/// The other way round: a token that was initialised anew, or another with its label, is not taken for the
/// one that the ledger knows.
#[test]
fn a_token_without_its_mark_is_not_used() {
    story(|scratch| {
        let mut chain = Chain::start(scratch, Plan::default())?;
        ensure!(chain.keeper.stop()?.success());
        let token = &chain.tokens["ksk-a"];
        let list = ["--list-objects", "--type", "data"];
        let objects = chain.store.pkcs11_tool(token, &list)?;
        ensure!(objects.contains("countersign-founding"), "{objects}");
        let delete = ["--delete-object", "--type", "data", "--label", "countersign-founding"];
        chain.store.pkcs11_tool(token, &delete)?;
        chain.keeper.start()?;
        until("the token refused", SOON, || {
            let (state, reason) = chain.daemon.token_state("ksk-a")?;
            ensure!(state != "usable" && reason.contains("mark"), "{state}: {reason}");
            Ok(())
        })
    });
}

/// Whoever would rather have other officers takes the ledger away and founds anew: over tokens that carry the
/// mark of a founding nobody can.
#[test]
fn founding_anew_over_live_keys_is_refused() {
    story(|scratch| {
        let mut chain = Chain::start(scratch, Plan::default())?;
        ensure!(chain.keeper.stop()?.success());
        let whole = Copies::of([chain.keeper.state.as_path()])?;
        let draft = chain.officers.dir().join("founding.toml").display().to_string();
        let text = chain.officers.dir().join("anew.founding").display().to_string();
        let found = ["found", "draft", "--from", &draft, "--out", &text];

        // The checkpoint alone says that there was a ledger.
        std::fs::remove_file(&chain.keeper.ledger)?;
        chain.keeper.spawn()?;
        let status = chain.keeper.wait_for_end(SOON)?;
        ensure!(status.code() == Some(EXIT_LEDGER), "the keeper ended with {status}");
        // And so does each token.
        std::fs::remove_file(chain.keeper.state.join("checkpoint"))?;
        chain.keeper.start_unfounded()?;
        let old = chain.officers.founding.take().unwrap_or_default();
        let said = until("the survey", SOON, || {
            let said = chain.officers.cli("op", &found)?;
            ensure!(!said.stderr.contains("being opened"), "{}", said.stderr);
            Ok(said)
        })?;
        ensure!(!said.status.success() && said.stderr.contains(&old), "{said:?}");
        ensure!(!chain.officers.dir().join("anew.founding").exists());
        ensure!(chain.served_serial()? == 1);
        chain.verify_served()?;

        ensure!(chain.keeper.stop()?.success());
        whole.put_back()?;
        chain.officers.founding = Some(old);
        chain.keeper.start()?;
        chain.officers.carry(&chain.keeper, &ANOTHER_KSK).map(drop)
    });
}
