//! Stopping needs one person, going on needs the quorum: a freeze stops the use of KSKs and what was
//! already approved; zones are signed and served all the while.

use std::time::Duration;

use anyhow::ensure;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::story;
use softhsm_tests::thief::{keys, now, signs_dnskey};
use softhsm_tests::wait::{SOON, throughout, until};
use softhsm_tests::zones::{self, ZONE};

/// How long a motion has to be carried out before we say that it is held.
const CHANCE: Duration = Duration::from_secs(2);

#[test]
fn one_officer_freezes() {
    story(|scratch| {
        let mut chain = Chain::start(scratch, Plan::default())?;
        let officers = &chain.officers;
        let ours = keys(&chain.keeper, ZONE)?;
        ensure!(signs_dnskey(&chain.keeper, &ours, now()?)? == Ok(()));
        // Two grants that were there before.
        officers.carry(&chain.keeper, &["export-ds", "--zone", ZONE])?;
        officers.ok("op", &["ds", "export", ZONE])?;

        // The auditor has no vote on anything, and stops everything.
        officers.ok("audrey", &["freeze", "--reason", "who ordered this key?"])?;
        let answer = signs_dnskey(&chain.keeper, &ours, now()?)?;
        ensure!(
            answer.as_ref().is_err_and(|why| why.contains("who ordered this key?")),
            "{answer:?}"
        );
        officers.refused("op", &["ds", "export", ZONE], "frozen")?;
        let key = officers.propose("op", &["generate-key", "--zone", ZONE, "--role", "ksk"])?;
        officers.approve(&["kay", "kim"], &key)?;
        throughout("the freeze", CHANCE, || {
            ensure!(chain.keeper.is_done(&key).is_err(), "a KSK was made");
            Ok(())
        })?;
        let waits = officers.ok("kurt", &["proposal", "show", &key])?;
        ensure!(waits.contains("frozen"), "{waits}");
        let calendar = officers.ok("op", &["calendar"])?;
        ensure!(calendar.contains("frozen") && calendar.contains("audrey"), "{calendar}");

        // Zones go on, over restarts too.
        chain.change_zone(&zones::example_with(2, "added"))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.verify_served()?;
        ensure!(chain.keeper.stop()?.success());
        chain.keeper.start()?;
        chain.change_zone(&zones::example_with(3, "added"))?;
        chain.wait_for_secondary("serial 3", |serial| serial == 3)?;
        chain.verify_served()?;
        let ours = keys(&chain.keeper, ZONE)?;
        ensure!(signs_dnskey(&chain.keeper, &ours, now()?)?.is_err(), "a restart thaws");

        // Whoever runs the box can't end it, nor can one officer; two can, and what was approved goes on.
        let officers = &chain.officers;
        let thaw = officers.propose("op", &["thaw"])?;
        officers.refused("op", &["approve", &thaw], "has no vote")?;
        officers.refused("audrey", &["approve", &thaw], "has no vote")?;
        officers.approve(&["pat"], &thaw)?;
        ensure!(chain.keeper.is_done(&thaw).is_err() && chain.keeper.is_done(&key).is_err());
        officers.approve(&["kim"], &thaw)?;
        until("the thaw", SOON, || chain.keeper.is_done(&thaw))?;
        until("the key", SOON, || chain.keeper.is_done(&key))?;
        ensure!(signs_dnskey(&chain.keeper, &ours, now()?)? == Ok(()));
        officers.ok("op", &["ds", "export", ZONE]).map(drop)
    });
}

#[test]
fn a_freeze_of_one_zone_holds_that_zone() {
    story(|scratch| {
        let plan = Plan { more_zones: &["second."], ..Plan::default() };
        let authority = softhsm_tests::pki::Authority::new(scratch, "ca")?;
        let mut chain = Chain::prepare(scratch, plan, authority)?;
        chain.found()?;
        let (ours, second) = (keys(&chain.keeper, ZONE)?, keys(&chain.keeper, "second.")?);
        let freeze = ["freeze", "--zone", "second.", "--reason", "its owner asked"];
        chain.officers.ok("op", &freeze)?;
        ensure!(signs_dnskey(&chain.keeper, &ours, now()?)? == Ok(()));
        let answer = signs_dnskey(&chain.keeper, &second, now()?)?;
        ensure!(answer.is_err(), "second. is not held");
        // A thaw of everything is no thaw of this.
        let all = chain.officers.cli("op", &["propose", "thaw"])?;
        ensure!(!all.status.success(), "{all:?}");
        chain.officers.carry(&chain.keeper, &["thaw", "--zone", "second."])?;
        ensure!(signs_dnskey(&chain.keeper, &second, now()?)? == Ok(()));
        Ok(())
    });
}
