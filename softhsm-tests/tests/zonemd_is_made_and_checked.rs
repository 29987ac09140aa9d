//! ZONEMD (RFC 8976), from a primary's to ours: each version carries a digest of itself that ldns finds
//! right and signed; the primary's own is checked where the zone asks for it, and a wrong one lets nothing
//! out.

use std::process::Command;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::story;
use softhsm_tests::tools::{run_ok, tool};
use softhsm_tests::users::User;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};

/// By ldns, which digests a zone with NSEC and never ends on one with NSEC3.
const DENIAL: &str = "nsec";

fn plan() -> Plan {
    Plan { denial: DENIAL, serial: "increment", ..Plan::default() }
}

/// ldns demands a ZONEMD that is right and signed.
fn digest_is_right(chain: &Chain<'_>) -> Result<()> {
    let signed = chain.served_zone()?;
    let file = chain.scratch.file("zonemd.zone", &signed, User::Harness, 0o644)?;
    run_ok(Command::new(tool("ldns-verify-zone")?).args(["-V1", "-ZZ"]).arg(&file)).map(drop)
}

#[test]
fn every_version_carries_its_digest() {
    story(|scratch| {
        let mut chain = Chain::start_with(scratch, plan(), |chain| {
            chain.daemon_spec.zone_keys = "zonemd = true".to_owned();
        })?;
        digest_is_right(&chain)?;
        chain.verify_served()?;
        chain.change_zone(&zones::example_with(2, "added"))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        digest_is_right(&chain)?;

        // Switched off and on again by a reload, the same data is signed again without it and with it.
        for (zonemd, serial) in [("false", 3), ("true", 4)] {
            chain.daemon_spec.zone_keys = format!("zonemd = {zonemd}");
            chain.daemon.configure(&chain.daemon_spec)?;
            chain.daemon.running()?.signal(Signal::SIGHUP)?;
            until(&format!("a version with zonemd = {zonemd}"), SOON, || {
                chain.daemon.cli(&["zone", "refresh", ZONE])?;
                ensure!(chain.served_serial()? == serial, "serial {}", chain.served_serial()?);
                Ok(())
            })?;
            let there = chain.served_zone()?.contains("\tZONEMD\t");
            ensure!(there == (zonemd == "true"), "{}", chain.served_zone()?);
        }
        digest_is_right(&chain)?;
        // After a restart nothing is signed for it, and the version still verifies.
        chain.daemon.stop()?;
        chain.daemon.start()?;
        until("the check of what was resumed", SOON, || {
            ensure!(chain.daemon.log().contains("the resumed version verifies"));
            Ok(())
        })?;
        chain.daemon.no_alarm()?;
        ensure!(chain.daemon.serial()? == 4);
        Ok(())
    });
}

#[test]
fn none_is_made_of_a_zone_that_is_too_large() {
    story(|scratch| {
        let more = "[limits]\nzonemd_records_max = 5\n";
        let plan = Plan { daemon_more: more.to_owned(), ..plan() };
        let chain = Chain::start_with(scratch, plan, |chain| {
            chain.daemon_spec.zone_keys = "zonemd = true".to_owned();
        })?;
        ensure!(!chain.served_zone()?.contains("\tZONEMD\t"), "{}", chain.served_zone()?);
        chain.daemon.no_alarm()?;
        let shown = chain.daemon.zone_show()?;
        let remark = shown["remarks"][0].as_str().unwrap_or_default();
        ensure!(remark.contains("no ZONEMD is made"), "{shown:#}");
        ensure!(remark.contains("`limits.zonemd_records_max` is 5"), "{shown:#}");
        Ok(())
    });
}

/// A small zone whose own digest ldns makes.
fn digested(chain: &Chain<'_>, serial: u32, text: &str) -> Result<String> {
    let zone = format!(
        "example. 300 IN SOA ns1.example. h.example. {serial} 3600 600 604800 120\n\
         example. 300 IN NS ns1.example.\nns1.example. 300 IN A 192.0.2.1\n\
         example. 300 IN TXT \"{text}\"\n"
    );
    let file = chain.scratch.file("plain.zone", &zone, User::Harness, 0o644)?;
    let made = file.with_extension("digested");
    let mut command = Command::new(tool("ldns-signzone")?);
    run_ok(command.args(["-Z", "-z", "simple:sha384", "-o", ZONE, "-f"]).arg(&made).arg(&file))?;
    Ok(std::fs::read_to_string(made)?)
}

#[test]
fn the_primarys_is_checked_where_that_is_asked_for() {
    story(|scratch| {
        let mut chain = Chain::start_with(scratch, plan(), |chain| {
            chain.daemon_spec.zone_keys = "incoming_zonemd = \"check\"\nguard = \"off\"".to_owned();
        })?;
        // The first version had none.
        chain.change_zone(&digested(&chain, 2, "right")?)?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        ensure!(!chain.served_zone()?.contains("\tZONEMD\t"), "it is not passed on");
        chain.change_zone(&digested(&chain, 3, "right")?.replace("right", "wrong"))?;
        let reason = until("an alarm", SOON, || chain.daemon.alarm(&["data-refused"]))?;
        ensure!(reason.contains("example. ZONEMD: the SHA-384 digest"), "{reason}");
        ensure!(chain.served_serial()? == 2 && chain.daemon.serial()? == 2);

        chain.change_zone(&digested(&chain, 4, "right again")?)?;
        chain.wait_for_secondary("serial 4", |serial| serial == 4)?;
        until("no alarm", SOON, || chain.daemon.no_alarm())?;

        chain.daemon_spec.zone_keys = "incoming_zonemd = \"require\"\nguard = \"off\"".to_owned();
        chain.daemon.configure(&chain.daemon_spec)?;
        chain.daemon.stop()?;
        chain.daemon.start()?;
        chain.change_zone(&zones::example(5))?;
        let reason = until("an alarm", SOON, || chain.daemon.alarm(&["data-refused"]))?;
        ensure!(reason.contains("`incoming_zonemd` is \"require\""), "{reason}");
        ensure!(chain.daemon.serial()? == 4);
        Ok(())
    });
}
