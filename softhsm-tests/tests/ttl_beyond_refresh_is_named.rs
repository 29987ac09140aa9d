//! A TTL, or an SOA expire, that signatures might not outlive: it is refused, or goes out capped, as the
//! zone's setting says. Either way the last good version stays up, and `countersign zone show` names
//! the record and the numbers.

use anyhow::{Result, ensure};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};
use softhsm_tests::{query, story};

/// The bed's policy signs again a week before the end, and bears TTLs of a day.
const EXPIRE_S: &str = "604801";
const TTL_S: &str = "172800";

/// A version with an SOA expire and two TTLs beyond what the policy bears. The delegation's is none
/// of its business: it is not signed.
fn beyond(serial: u32) -> String {
    let long = format!("{serial} 3600 600 {EXPIRE_S} 120");
    zones::example(serial).replace(&format!("{serial} 3600 600 604800 120"), &long)
        + &format!(
            "long {TTL_S} IN A 192.0.2.9\n*.long {TTL_S} IN A 192.0.2.10\n\
             del {TTL_S} IN NS ns.elsewhere.test.\n"
        )
}

#[test]
fn it_is_refused_and_the_last_good_version_stays() {
    story(|scratch| {
        let mut chain = Chain::start(scratch, Plan::default())?;
        chain.change_zone(&beyond(2))?;
        let reason = until("an alarm", SOON, || chain.daemon.alarm(&["data-refused"]))?;
        for part in [
            "example. SOA",
            "expire 604801",
            "`refresh_s` of 604800",
            "and 2 more",
            "beyond_window",
        ] {
            ensure!(reason.contains(part), "{part:?} is not in {reason:?}");
        }
        ensure!(chain.served_serial()? == 1 && chain.daemon.serial()? == 1);

        // Of two faults the primary mended one.
        let mended = beyond(3).replace(EXPIRE_S, "604800");
        chain.change_zone(&mended)?;
        until("an alarm about the TTL", SOON, || {
            let reason = chain.daemon.alarm(&["data-refused"])?;
            ensure!(reason.contains("long.example. A: TTL 172800"), "{reason}");
            ensure!(reason.contains("`ttl_max_s` of 86400"), "{reason}");
            Ok(())
        })?;
        ensure!(chain.served_serial()? == 1 && chain.daemon.serial()? == 1);

        chain.change_zone(&zones::example(4))?;
        chain.wait_for_secondary("serial 4", |serial| serial == 4)?;
        until("no alarm", SOON, || chain.daemon.no_alarm())?;
        chain.verify_served()
    });
}

#[test]
fn it_goes_out_capped_where_the_zone_says_so() {
    story(|scratch| {
        let mut chain = Chain::start_with(scratch, Plan::default(), |chain| {
            chain.daemon_spec.zone_keys = "beyond_window = \"cap\"".to_owned();
        })?;
        ensure!(remarks(&chain)?.is_empty());
        chain.change_zone(&beyond(2))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.verify_served()?;
        let named = [
            "example. SOA: expire 604801 goes out as 604800",
            "long.example. A: TTL 172800 goes out as 86400",
            "*.long.example. A: TTL 172800 goes out as 86400",
        ];
        ensure!(remarks(&chain)? == named, "{:?}", remarks(&chain)?);
        let page = chain.daemon.cli(&["zone", "show", ZONE])?;
        ensure!(named.iter().all(|line| page.stdout.contains(line)), "{}", page.stdout);
        chain.daemon.no_alarm()?;

        // What goes out is what the primary has, with those three values and no other changed.
        let served = zones::content(&chain.served_zone()?);
        for record in [
            "long.example. 86400 IN A 192.0.2.9",
            "*.long.example. 86400 IN A 192.0.2.10",
            "del.example. 172800 IN NS ns.elsewhere.test.",
            "example. 300 IN SOA ns1.example. Host\\.Master.Example. SERIAL 3600 600 604800 120",
        ] {
            ensure!(served.contains(record), "{record} is not in {served:#?}");
        }
        let primary = zones::content(&query::axfr_over_tls(
            chain.primary()?.xot_port,
            ZONE,
            &chain.identities["secondary"],
            &chain.authority.ca,
            "primary.test",
        )?);
        ensure!(primary.difference(&served).count() == 3, "{primary:#?}\n{served:#?}");

        // After a restart they are still known, and the primary that mends them ends it.
        chain.daemon.stop()?;
        chain.daemon.start()?;
        ensure!(remarks(&chain)? == named, "{:?}", remarks(&chain)?);
        chain.change_zone(&zones::example(3))?;
        chain.wait_for_secondary("serial 3", |serial| serial == 3)?;
        ensure!(remarks(&chain)?.is_empty());
        Ok(())
    });
}

fn remarks(chain: &Chain<'_>) -> Result<Vec<String>> {
    let shown = chain.daemon.zone_show()?;
    let remarks = shown["remarks"].as_array().into_iter().flatten();
    Ok(remarks.filter_map(|remark| remark.as_str().map(str::to_owned)).collect())
}
