//! The main job: a zone comes in from a hidden primary over mutual TLS, is signed on two tokens,
//! verified, and goes out to secondaries over mutual TLS. Nobody's verifier finds a fault.

use anyhow::ensure;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};
use softhsm_tests::{ports, query, story};

#[test]
fn first_zone_published() {
    story(|scratch| {
        let mut chain = Chain::start(scratch, Plan::default())?;
        chain.verify_served()?;
        chain.same_content()?;
        chain.daemon.no_alarm()?;

        chain.change_zone(&zones::example_with(2, "added"))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        let served = chain.served_zone()?;
        ensure!(served.contains("\"serial 2\""), "{served}");
        chain.verify_served()?;
        chain.same_content()?;

        let shown = chain.daemon.zone_show()?;
        ensure!(shown["serial"] == 2 && shown["incoming_serial"] == 2, "{shown:#}");
        let lines = chain.keeper.ledger_lines()?;
        ensure!(lines[0]["entry"]["kind"] == "founded", "{:#}", lines[0]);
        let signed = lines.iter().filter(|line| line["entry"]["kind"] == "zone-signed").count();
        ensure!(signed == 2, "{signed} published versions in the ledger");
        ensure!(chain.daemon.stop()?.success() && chain.keeper.stop()?.success());
        Ok(())
    });
}

#[test]
fn every_make_of_secondary_gets_every_version() {
    story(|scratch| {
        let port = ports::free()?;
        let more = format!(
            "[peer.nsd]\nidentity = {{ san = \"nsd.test\" }}\nnotify = \"127.0.0.1:{port}\"\n"
        );
        let mut chain =
            Chain::start_with(scratch, Plan { daemon_more: more, ..Plan::default() }, |chain| {
                chain.daemon_spec.more_secondaries.push("nsd".to_owned());
            })?;
        let nsd = chain.start_nsd(port)?;
        until("the zone on NSD", SOON, || query::serial(nsd.port, ZONE))?;
        chain.change_zone(&zones::example_with(2, "added"))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        until("serial 2 on NSD", SOON, || {
            ensure!(query::serial(nsd.port, ZONE)? == 2);
            Ok(())
        })?;
        let (bind, nsd) = (chain.served_zone()?, query::axfr(nsd.port, ZONE)?);
        ensure!(zones::whole(&bind) == zones::whole(&nsd), "BIND:\n{bind}\nNSD:\n{nsd}");
        Ok(())
    });
}

#[test]
fn rsa_with_nsec() {
    published(Plan { algorithm: 8, rsa_bits: Some(2048), denial: "nsec", ..Plan::default() });
}

#[test]
fn p384_with_opt_out() {
    published(Plan { algorithm: 14, denial: "nsec3-opt-out", ..Plan::default() });
}

#[test]
fn ed25519_with_unixtime() {
    published(Plan { algorithm: 15, serial: "unixtime", ..Plan::default() });
}

#[test]
fn one_csk_with_date_counter() {
    published(Plan { csk: true, serial: "date-counter", ..Plan::default() });
}

/// A first and a second version under `plan`, each verified by others.
fn published(plan: Plan) {
    story(|scratch| {
        let mut chain = Chain::start(scratch, plan)?;
        chain.verify_served()?;
        chain.same_content()?;
        let first = chain.served_serial()?;
        chain.change_zone(&zones::example_with(2, "added"))?;
        chain.wait_for_secondary("a second version", |serial| serial > first)?;
        chain.verify_served()?;
        chain.same_content()
    });
}
