//! The HSM goes away, or hangs, in the middle of signing a version. The last good version stays
//! up, an alarm says why, and when the HSM is back the new version goes out without a restart of
//! the daemon.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::shim::Shim;
use softhsm_tests::wait::{SOON, throughout, until};
use softhsm_tests::{story, zones};

/// Enough that signing all of it takes a while, with signatures left to make after the fault.
const HOSTS: u32 = 2_000;

#[test]
fn hsm_lost_mid_signing() {
    story(|scratch| {
        let shim = Shim::install(scratch)?;
        let plan = Plan {
            content: zones::hosts(1, HOSTS),
            zsk_module: Some(shim.module.clone()),
            ..Plan::default()
        };
        let mut chain = Chain::start(scratch, plan)?;
        let (keeper, daemon) = (chain.keeper.running()?.pid(), chain.daemon.running()?.pid());

        let lost = json!({ "return": "CKR_DEVICE_REMOVED" });
        shim.rules(&json!([
            { "call": "C_Sign", "from": 500, "action": lost },
            { "call": "C_OpenSession", "every": true, "action": lost },
            { "call": "C_GetTokenInfo", "every": true, "action": lost },
        ]))?;
        chain.change_zone(&zones::hosts(2, HOSTS))?;
        until("an alarm", SOON, || chain.daemon.alarm(&["signing-failed"]))?;
        let (state, reason) = chain.daemon.token_state("zsk-a")?;
        ensure!(state != "usable", "zsk-a is {state}: {reason}");
        ensure!(chain.served_serial()? == 1 && chain.daemon.serial()? == 1);
        chain.verify_served()?;

        shim.rules(&json!([]))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.verify_served()?;
        until("no alarm", SOON, || chain.daemon.no_alarm())?;
        ensure!(chain.keeper.running()?.pid() == keeper, "the keeper was restarted");
        ensure!(chain.daemon.running()?.pid() == daemon, "the daemon was restarted");
        Ok(())
    });
}

#[test]
fn an_hsm_that_hangs_costs_the_keeper_not_the_zone() {
    story(|scratch| {
        let shim = Shim::install(scratch)?;
        let plan = Plan {
            content: zones::hosts(1, HOSTS),
            zsk_module: Some(shim.module.clone()),
            deadline_ms: Some(1_000),
            ..Plan::default()
        };
        let mut chain = Chain::start(scratch, plan)?;
        let daemon = chain.daemon.running()?.pid();
        shim.rules(&json!([{ "call": "C_Sign", "from": 300, "action": "hang" }]))?;
        chain.change_zone(&zones::hosts(2, HOSTS))?;

        // No token of the group is left, so the keeper ends, for its supervisor to start again.
        let status = chain.keeper.wait_for_end(SOON)?;
        ensure!(status.code() == Some(3), "the keeper ended with {status}");
        until("an alarm", SOON, || chain.daemon.alarm(&["signing-failed"]))?;
        ensure!(chain.served_serial()? == 1 && chain.daemon.serial()? == 1);

        shim.rules(&json!([]))?;
        chain.keeper.start()?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.verify_served()?;
        ensure!(chain.daemon.running()?.pid() == daemon, "the daemon was restarted");
        Ok(())
    });
}

#[test]
fn an_hsm_that_is_slow_delays_and_nothing_else() {
    story(|scratch| {
        let shim = Shim::install(scratch)?;
        let plan = Plan { zsk_module: Some(shim.module.clone()), ..Plan::default() };
        let mut chain = Chain::start(scratch, plan)?;
        shim.rules(&json!([{ "call": "C_Sign", "every": true, "action": { "delay_ms": 50 } }]))?;
        chain.change_zone(&zones::hosts(2, 50))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.verify_served()
    });
}

#[test]
fn a_token_that_is_away_at_start_is_used_when_it_comes() {
    story(|scratch| {
        let shim = Shim::install(scratch)?;
        let plan = Plan { zsk_module: Some(shim.module.clone()), ..Plan::default() };
        let authority = softhsm_tests::pki::Authority::new(scratch, "ca")?;
        let mut chain = Chain::prepare(scratch, plan, authority)?;
        chain.found()?;
        ensure!(chain.keeper.stop()?.success());
        let away = json!({ "return": "CKR_TOKEN_NOT_PRESENT" });
        shim.rules(&json!([
            { "call": "C_GetTokenInfo", "every": true, "action": away },
            { "call": "C_OpenSession", "every": true, "action": away },
        ]))?;
        chain.keeper.start()?;
        chain.start_primary()?;
        chain.daemon.start()?;
        chain.start_secondary_early()?;
        until("an alarm", SOON, || chain.daemon.alarm(&["no-version", "signing-failed"]))?;
        let (state, reason) = chain.daemon.token_state("zsk-a")?;
        ensure!(state != "usable", "zsk-a is {state}: {reason}");
        throughout("waiting for the token", Duration::from_secs(2), || {
            ensure!(chain.daemon.serial().is_err(), "a zone is up without its ZSK's token");
            Ok(())
        })?;
        shim.rules(&json!([]))?;
        chain.wait_for_secondary("a first version", |_| true)?;
        chain.verify_served()
    });
}

#[test]
fn a_lost_token_of_two_is_not_missed() {
    story(|scratch| {
        let shim = Shim::install(scratch)?;
        let plan = Plan {
            content: zones::hosts(1, HOSTS),
            zsk_module: Some(shim.module.clone()),
            ..Plan::default()
        };
        let mut chain = Chain::start(scratch, plan)?;
        // A second HSM of the group, with the same key by the vendor's own means. It is used once the
        // officers have it in.
        ensure!(chain.keeper.stop()?.success());
        let clone = chain.store.clone_token(&chain.tokens["zsk-a"])?;
        chain.add_token("zsk-b", "zsk", clone.clone())?;
        chain.keeper.start()?;
        let attach = ["attach-token", "--name", "zsk-b", "--group", "zsk", "--data-objects", "yes"];
        let is = ["--label", &clone.label, "--serial", &clone.serial];
        chain.officers.carry(&chain.keeper, &[&attach[..], &is].concat())?;
        ensure!(chain.keeper.stop()?.success());
        chain.keeper.start()?;
        for token in ["zsk-a", "zsk-b"] {
            until(&format!("{token} in use"), SOON, || {
                let (state, reason) = chain.daemon.token_state(token)?;
                ensure!(state == "usable", "{state}: {reason}");
                Ok(())
            })?;
        }
        let lost = json!({ "return": "CKR_DEVICE_REMOVED" });
        shim.rules(&json!([
            { "call": "C_Sign", "from": 200, "action": lost },
            { "call": "C_OpenSession", "every": true, "action": lost },
            { "call": "C_GetTokenInfo", "every": true, "action": lost },
        ]))?;
        let before = chain.daemon.log().len();
        chain.change_zone(&zones::hosts(2, HOSTS))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.verify_served()?;
        until("the loss of zsk-a in the status", SOON, || {
            let (state, reason) = chain.daemon.token_state("zsk-a")?;
            ensure!(state != "usable", "{state}: {reason}");
            Ok(())
        })?;
        let log = chain.daemon.log();
        ensure!(!log[before..].contains("no new version"), "{log}");
        chain.daemon.no_alarm()
    });
}

#[test]
fn a_full_token_is_told_and_waited_for() {
    story(|scratch| {
        let shim = Shim::install(scratch)?;
        let full = json!({ "return": "CKR_DEVICE_MEMORY" });
        let plan = Plan { zsk_module: Some(shim.module.clone()), ..Plan::default() };
        let authority = softhsm_tests::pki::Authority::new(scratch, "ca")?;
        let mut chain = Chain::prepare(scratch, plan, authority)?;
        chain.found_appliance()?;
        shim.rules(&json!([{ "call": "C_GenerateKeyPair", "every": true, "action": full }]))?;
        chain.bind_zones()?;
        chain.make_keys()?;
        chain.start_primary()?;
        chain.daemon.start()?;
        chain.start_secondary_early()?;
        until("an alarm", SOON, || chain.daemon.alarm(&["no-version", "signing-failed"]))?;
        until("the reason in the keeper's log", SOON, || {
            ensure!(chain.keeper.log().contains("CKR_DEVICE_MEMORY"), "not in it");
            Ok(())
        })?;
        ensure!(chain.daemon.serial().is_err(), "a zone without a ZSK is up");
        shim.rules(&json!([]))?;
        chain.wait_for_secondary("a first version", |_| true)?;
        chain.verify_served()
    });
}
