//! The daemon comes back with keeper and HSM gone, and serves at once what it served before.

use anyhow::ensure;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};
use softhsm_tests::{oracle, query, story};

#[test]
fn restart_needs_no_hsm() {
    story(|scratch| {
        let mut chain = Chain::start(scratch, Plan::default())?;
        let served = chain.served_zone()?;
        ensure!(chain.keeper.stop()?.success());
        for token in chain.tokens.values() {
            chain.store.unplug(token)?;
        }
        for kill in [false, true] {
            if kill {
                chain.daemon.kill_nine()?;
            } else {
                ensure!(chain.daemon.stop()?.success());
            }
            chain.daemon.start()?;
            until("the zone after the restart", SOON, || chain.daemon.serial())?;
            let again = query::axfr_over_tls(
                chain.daemon.xot_port,
                ZONE,
                &chain.identities["secondary"],
                &chain.authority.ca,
                "signer.test",
            )?;
            let anchor = oracle::anchor(scratch, ZONE, &served)?;
            oracle::verify(scratch, ZONE, &again, &anchor)?;
            ensure!(
                zones::whole(&again) == zones::whole(&served),
                "before:\n{served}\nafter:\n{again}"
            );
        }
        // A change waits, with an alarm, and goes out when the keeper is back.
        chain.change_zone(&zones::example_with(2, "added"))?;
        until("an alarm", SOON, || chain.daemon.alarm(&["signing-failed"]))?;
        ensure!(chain.served_serial()? == 1);
        for token in chain.tokens.values() {
            chain.store.plug_in(token)?;
        }
        chain.keeper.start()?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.verify_served()
    });
}
