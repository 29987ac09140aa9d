//! An HSM that gives wrong signatures is believed by nobody: the last good version stays up, and
//! an alarm says so.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::shim::Shim;
use softhsm_tests::wait::{SOON, throughout, until};
use softhsm_tests::{story, zones};

/// How long a wrong version has to slip out before we say that it does not.
const CHANCE: Duration = Duration::from_secs(5);

/// `caught_by` is the alarm of the layer that must catch it, and not a later one.
fn never_published(action: &Value, caught_by: &str) {
    story(|scratch| {
        let shim = Shim::install(scratch)?;
        let plan = Plan { zsk_module: Some(shim.module.clone()), ..Plan::default() };
        let mut chain = Chain::start(scratch, plan)?;
        shim.rules(&json!([{ "call": "C_Sign", "from": 3, "action": action }]))?;
        chain.change_zone(&zones::hosts(2, 200))?;
        until("an alarm", SOON, || chain.daemon.alarm(&[caught_by]))?;
        throughout("tampering", CHANCE, || {
            let (served, own) = (chain.served_serial()?, chain.daemon.serial()?);
            ensure!((served, own) == (1, 1), "secondary {served}, daemon {own}");
            Ok(())
        })?;
        let shown = chain.daemon.cli(&["zone", "show", "example."])?;
        ensure!(shown.status.code() == Some(4), "{}: {}", shown.status, shown.stdout);
        chain.verify_served()?;

        shim.rules(&json!([]))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.verify_served()
    });
}

#[test]
fn tampered_signature_never_published() {
    // Of the right length, so that only the daemon's own verification can tell.
    never_published(&json!("wrong_answer"), "verification-failed");
}

#[test]
fn a_short_signature_is_never_published() {
    // The keeper does not pass on what has not the algorithm's length.
    never_published(&json!("short_answer"), "signing-failed");
}

/// One bad signature among hundreds, and good ones ever after.
#[test]
fn one_wrong_signature_among_hundreds_is_found() {
    story(|scratch| {
        let shim = Shim::install(scratch)?;
        let plan = Plan { zsk_module: Some(shim.module.clone()), ..Plan::default() };
        let mut chain = Chain::start(scratch, plan)?;
        shim.rules(&json!([{ "call": "C_Sign", "nth": 150, "action": "wrong_answer" }]))?;
        chain.change_zone(&zones::hosts(2, 200))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.verify_served()?;
        let log = chain.daemon.log();
        ensure!(log.contains("not published: verification failed"), "never caught:\n{log}");
        Ok(())
    });
}
