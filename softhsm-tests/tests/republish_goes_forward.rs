//! A bad version went out. An operator puts the one before it up again: under a higher serial, so that
//! every secondary follows, and signed and verified like any other. The primary's next good version
//! takes over.

use anyhow::{Result, ensure};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::story;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};

#[test]
fn republish_goes_forward() {
    story(|scratch| {
        let mut chain = Chain::start(scratch, Plan::default())?;
        let good = zones::content(&chain.served_zone()?);
        chain.change_zone(&zones::example_with(2, "bad"))?;
        chain.wait_for_secondary("the bad version", |serial| serial == 2)?;

        let unknown = chain.daemon.cli(&["zone", "republish", ZONE, "7"])?;
        ensure!(unknown.stderr.contains("these are: 2, 1"), "{unknown:?}");
        let done = chain.daemon.cli(&["zone", "republish", ZONE, "1"])?;
        ensure!(done.status.success(), "{done:?}");
        ensure!(done.stdout.contains("the next one must be beyond 3"), "{done:?}");
        chain.wait_for_secondary("the version before it", |serial| serial == 3)?;
        same(&chain, &good)?;
        chain.verify_served()?;

        // Neither a restart nor a refresh brings the bad one back.
        chain.daemon.kill_nine()?;
        chain.daemon.start()?;
        chain.daemon.cli(&["zone", "refresh", ZONE])?;
        let versions = chain.daemon.json(&["zone", "versions", ZONE])?;
        let newest = &versions["versions"][0];
        ensure!(newest["serial"] == 3 && newest["exact"] == false, "{versions:#}");
        ensure!(
            newest["source"].as_str().is_some_and(|s| s.starts_with("version 1, ")),
            "{newest}"
        );
        same(&chain, &good)?;

        chain.change_zone(&zones::example_with(3, "fixed"))?;
        let reason = until("an alarm", SOON, || chain.daemon.alarm(&["refresh-waits"]))?;
        ensure!(reason.contains("serial 3 is published already"), "{reason}");
        chain.change_zone(&zones::example_with(4, "fixed"))?;
        chain.wait_for_secondary("the next good version", |serial| serial == 4)?;
        ensure!(chain.served_zone()?.contains("fixed.example."));
        chain.verify_served()?;
        until("no alarm", SOON, || chain.daemon.no_alarm())
    });
}

#[test]
fn with_serials_of_our_own_the_primary_goes_on_as_it_was() {
    story(|scratch| {
        let plan = Plan { serial: "unixtime", ..Plan::default() };
        let mut chain = Chain::start(scratch, plan)?;
        let first = chain.served_serial()?;
        let good = zones::content(&chain.served_zone()?);
        chain.change_zone(&zones::example_with(2, "bad"))?;
        let bad = chain.wait_for_secondary("the bad version", |serial| serial > first)?;
        let done = chain.daemon.cli(&["zone", "republish", ZONE, &first.to_string()])?;
        ensure!(done.status.success(), "{done:?}");
        let again = chain.wait_for_secondary("the version before it", |serial| serial > bad)?;
        same(&chain, &good)?;
        chain.daemon.no_alarm()?;
        chain.change_zone(&zones::example_with(3, "fixed"))?;
        chain.wait_for_secondary("the next good version", |serial| serial > again)?;
        ensure!(chain.served_zone()?.contains("fixed.example."));
        chain.verify_served()
    });
}

fn same(chain: &Chain<'_>, good: &std::collections::BTreeSet<String>) -> Result<()> {
    let served = zones::content(&chain.served_zone()?);
    let differ: Vec<_> = served.symmetric_difference(good).collect();
    ensure!(differ.is_empty(), "{differ:#?}");
    Ok(())
}
