//! A second keeper on the same tokens, with the ledger of the first, uses no key and says whose they are;
//! a quorum moves the appliance to it, and then the first is the one that is refused.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use countersign_hsm::client::LedgerClient;
use countersign_hsm::protocol::Mode;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::keeper::Keeper;
use softhsm_tests::oracle;
use softhsm_tests::users::{User, give};
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::{story, zones};

/// How `countersign` ends when what it is shown does not hold.
const EXIT_UNSOUND: i32 = 5;
const MOVE: [&str; 1] = ["move-appliance"];
const EXPORT: [&str; 3] = ["export-ds", "--zone", "example."];

/// Why a keeper uses no key.
fn stands_still(keeper: &Keeper) -> Result<String> {
    match LedgerClient::connect(&keeper.ledger_socket, SOON)?.mode() {
        Mode::Elsewhere { why, .. } | Mode::Behind(why) => Ok(why.clone()),
        other => bail!("it is {other:?}"),
    }
}

fn is_founded(keeper: &Keeper) -> Result<()> {
    let client = LedgerClient::connect(&keeper.ledger_socket, SOON)?;
    ensure!(*client.mode() == Mode::Founded, "it is {:?}", client.mode());
    Ok(())
}

/// The box that the ledger says holds the tokens.
fn holder(keeper: &Keeper) -> Result<String> {
    let state = keeper.ledger_state()?;
    Ok(state.holder().context("nobody has claimed the tokens")?.instance.to_string())
}

/// Puts a bundle into another box's state directory, as its root does.
fn restore(chain: &Chain<'_>, bundle: &Path, to: &Keeper) -> Result<String> {
    let (bundle, state) = (bundle.display().to_string(), to.state.display().to_string());
    chain.officers.ok("op", &["ledger", "restore", &bundle, "--state-dir", &state])
}

#[test]
fn second_box_is_refused() {
    story(|scratch| {
        let mut chain = Chain::start(scratch, Plan::default())?;
        let first = holder(&chain.keeper)?;
        let bundle = chain.officers.export_bundle("moving.bundle")?;
        let anchor = oracle::anchor(scratch, zones::ZONE, &chain.served_zone()?)?;

        // The ledger on another box, and a state directory that was copied whole.
        let mut second = chain.another_box("second")?;
        let said = restore(&chain, &bundle, &second)?;
        ensure!(said.contains("move-appliance"), "{said}");
        let mut copied = chain.another_box("copied")?;
        for name in ["ledger.jsonl", "checkpoint", "instance"] {
            let copy = copied.state.join(name);
            std::fs::copy(chain.keeper.state.join(name), &copy).with_context(|| name.to_owned())?;
            give(&copy, User::Keeper, 0o600)?;
        }
        for keeper in [&mut second, &mut copied] {
            let lines = std::fs::read(&keeper.ledger)?;
            keeper.start()?;
            let why = stands_still(keeper)?;
            ensure!(why.contains(&format!("held by instance {first}")), "{why}");
            ensure!(why.contains("propose move-appliance"), "{why}");
            ensure!(std::fs::read(&keeper.ledger)? == lines, "it wrote a line of its own");
        }
        ensure!(copied.stop()?.success());

        // Nothing that would use a key, or be lost with this copy of the ledger, is taken there.
        let old_socket = chain.officers.ledger_socket.clone();
        chain.officers.ledger_socket.clone_from(&second.ledger_socket);
        let shown = chain.officers.ok("pat", &["audit", "log"])?;
        ensure!(shown.contains("the keeper uses no key") && shown.contains(&first), "{shown}");
        let refused = |motion: &[&str], expect| {
            chain.officers.refused("op", &[&["propose"], motion].concat(), expect)
        };
        refused(&EXPORT, "held by instance")?;
        let surveyed = chain.officers.cli("op", &["survey"])?;
        ensure!(surveyed.stderr.contains("held by instance"), "{surveyed:?}");

        // The first signs on as if nothing was.
        chain.change_zone(&zones::example_with(2, "added"))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        is_founded(&chain.keeper)?;

        // A daemon on the second box serves what it has, signs nothing, and says why.
        chain.daemon.stop()?;
        chain.daemon_spec.keeper_socket.clone_from(&second.socket);
        chain.daemon.configure(&chain.daemon_spec)?;
        chain.daemon.start()?;
        chain.change_zone(&zones::example_with(3, "later"))?;
        let alarm = until("an alarm", SOON, || chain.daemon.alarm(&["signing-failed"]))?;
        ensure!(chain.daemon.serial()? == 2, "{alarm}");
        let (state, reason) = chain.daemon.token_state("zsk-a")?;
        ensure!(state != "usable" && reason.contains("held by instance"), "{state}: {reason}");
        let status = chain.daemon.cli(&["daemon", "status"])?.stdout;
        ensure!(status.contains("see to") && status.contains("elsewhere: "), "{status}");
        ensure!(status.contains(&first), "{status}");

        // Two officers move the appliance there, although nobody stopped the first.
        chain.officers.carry(&second, &MOVE)?;
        let now = holder(&second)?;
        ensure!(now != first);
        let why = until("the first box to notice", SOON, || stands_still(&chain.keeper))?;
        ensure!(why.contains(&format!("held by instance {now}")), "{why}");
        until("the second box to use keys", SOON, || is_founded(&second))?;
        chain.wait_for_secondary("serial 3", |serial| serial == 3)?;
        // The same keys as before.
        oracle::verify(scratch, zones::ZONE, &chain.served_zone()?, &anchor)?;
        chain.verify_served()?;
        chain.officers.carry(&second, &["generate-key", "--zone", "example.", "--role", "ksk"])?;
        let bundle = chain.officers.export_bundle("moved.bundle")?;
        for verified in
            [chain.officers.audit_verify(&bundle)?, chain.officers.second_verifier(&bundle)?]
        {
            ensure!(verified.status.success(), "{verified:?}");
        }

        // The first stays out when it is started again, and who has seen the second's ledger sees that
        // the first's is another one.
        ensure!(chain.keeper.stop()?.success());
        chain.keeper.start()?;
        let why = stands_still(&chain.keeper)?;
        ensure!(why.contains(&format!("held by instance {now}")), "{why}");
        chain.officers.ledger_socket = old_socket;
        let looked = chain.officers.cli("kay", &["audit", "log"])?;
        ensure!(looked.status.code() == Some(EXIT_UNSOUND), "{looked:?}");
        ensure!(second.stop()?.success());
        Ok(())
    });
}
