//! A provisioning system hands in an almost empty zone. It is held and waits for a person, whatever is
//! killed meanwhile; what is up stays up. A person sees what would go, and releases it or rejects it;
//! once rejected, it is not asked for again, and the next good version goes out without hands.

use std::time::Duration;

use anyhow::{Result, ensure};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::pki::Authority;
use softhsm_tests::users::User;
use softhsm_tests::wait::{SOON, throughout, until};
use softhsm_tests::zones::{self, ZONE};
use softhsm_tests::{query, story};

/// Hosts of the zone; with the rest it has some 80 records.
const HOSTS: u32 = 60;

/// What is left when a template was filled with nothing.
fn almost_empty(serial: u32) -> String {
    format!(
        "$ORIGIN example.\n$TTL 300\n\
         @ IN SOA ns1.example. Host\\.Master.Example. {serial} 3600 600 604800 120\n\
         @ IN NS ns1.example.\n@ IN NS NS2.Example.\n\
         NS1 IN A 192.0.2.1\nns2 IN A 192.0.2.2\n"
    )
}

/// Waits until this serial is held; what is up is `up` all the while.
fn until_held(chain: &mut Chain<'_>, serial: u32, up: u32) -> Result<String> {
    until("a held version", SOON, || {
        chain.daemon.running()?.check_running()?;
        let shown = chain.daemon.zone_show()?;
        ensure!(shown["serial"] == up, "{shown:#}");
        ensure!(shown["held"]["serial"] == serial, "{shown:#}");
        chain.daemon.alarm(&["version-held"])
    })
}

#[test]
fn empty_file_is_held() {
    story(|scratch| {
        let plan = Plan { content: zones::hosts(1, HOSTS), ..Plan::default() };
        let mut chain = Chain::start(scratch, plan)?;

        chain.change_zone(&almost_empty(2))?;
        let reason = until_held(&mut chain, 2, 1)?;
        ensure!(reason.contains("records go") && reason.contains("host-0.example."), "{reason}");

        chain.daemon.kill_nine()?;
        chain.daemon.start()?;
        until_held(&mut chain, 2, 1)?;
        ensure!(chain.daemon.serial()? == 1 && chain.served_serial()? == 1);
        chain.verify_served()?;

        let diff = chain.daemon.cli(&["zone", "diff", ZONE, "up", "held"])?;
        ensure!(diff.status.success(), "{}", diff.stderr);
        let gone = diff.stdout.lines().filter(|line| line.starts_with("- host-")).count();
        ensure!(gone == HOSTS as usize, "{gone}: {}", diff.stdout);
        ensure!(!diff.stdout.contains("RRSIG") && !diff.stdout.contains("NSEC"), "{}", diff.stdout);
        let end = diff.stdout.lines().last().unwrap_or_default();
        ensure!(end.starts_with("; ") && end.ends_with(" come"), "{end}");

        // A decision is about what was looked at.
        let other = chain.daemon.cli(&["zone", "release", ZONE, "--serial", "3"])?;
        ensure!(
            other.status.code() == Some(1) && other.stderr.contains("serial 2 is"),
            "{other:?}"
        );
        let rejected = chain.daemon.cli(&["zone", "reject", ZONE, "--serial", "2"])?;
        ensure!(rejected.status.success(), "{}", rejected.stderr);
        chain.daemon.no_alarm()?;

        // Neither a NOTIFY nor a restart brings it back.
        chain.daemon.stop()?;
        chain.daemon.start()?;
        chain.change_zone(&almost_empty(2))?;
        chain.daemon.cli(&["zone", "refresh", ZONE])?;
        throughout("what was rejected", Duration::from_secs(2), || chain.daemon.no_alarm())?;

        chain.change_zone(&zones::hosts(3, HOSTS))?;
        chain.wait_for_secondary("the next good version", |serial| serial == 3)?;
        chain.daemon.no_alarm()?;
        Ok(())
    });
}

#[test]
fn a_person_releases_what_was_meant() {
    story(|scratch| {
        let plan = Plan { content: zones::hosts(1, HOSTS), ..Plan::default() };
        let mut chain = Chain::start(scratch, plan)?;
        chain.change_zone(&almost_empty(2))?;
        until_held(&mut chain, 2, 1)?;
        // One that replaces it is judged by itself, and held in its place.
        chain.change_zone(&almost_empty(3))?;
        until_held(&mut chain, 3, 1)?;
        chain.daemon.stop()?;
        chain.daemon.start()?;
        until_held(&mut chain, 3, 1)?;

        chain.daemon.cli(&["zone", "freeze", ZONE])?;
        let frozen = chain.daemon.cli(&["zone", "release", ZONE, "--serial", "3"])?;
        ensure!(frozen.stderr.contains("thaw it first"), "{frozen:?}");
        chain.daemon.cli(&["zone", "thaw", ZONE])?;
        // Nothing can be signed: what was released goes out when it can, whatever is killed before.
        chain.keeper.stop()?;
        let waits = chain.daemon.cli(&["zone", "release", ZONE, "--serial", "3"])?;
        ensure!(waits.status.success() && waits.stdout.contains("goes on by itself"), "{waits:?}");
        chain.daemon.kill_nine()?;
        chain.daemon.start()?;
        ensure!(chain.daemon.serial()? == 1);
        chain.keeper.start()?;

        chain.wait_for_secondary("what was released", |serial| serial == 3)?;
        let served = query::axfr(chain.secondary_port, ZONE)?;
        ensure!(!served.contains("host-0.example."), "{served}");
        until("no alarm", SOON, || chain.daemon.no_alarm())?;
        let versions = chain.daemon.json(&["zone", "versions", ZONE])?;
        let newest = &versions["versions"][0];
        ensure!(newest["serial"] == 3 && newest["up"] == true, "{versions:#}");
        ensure!(newest["released_by"].is_string(), "{versions:#}");
        Ok(())
    });
}

/// By push, to a zone that has no primary: whoever pushes is told, and may forget it.
#[test]
fn an_empty_push_is_held_too() {
    story(|scratch| {
        let authority = Authority::new(scratch, "ca")?;
        let mut chain = Chain::prepare(scratch, Plan::default(), authority)?;
        "push_from = [\"local\"]".clone_into(&mut chain.daemon_spec.zone_keys);
        chain.found()?;
        chain.daemon.configure(&chain.daemon_spec)?;
        chain.daemon.start()?;
        let push = |chain: &Chain<'_>, content: &str| {
            let file = scratch.file("pushed.zone", content, User::Daemon, 0o644)?;
            chain.daemon.cli(&["push", ZONE, &file.display().to_string()])
        };
        let first = push(&chain, &zones::hosts(1, HOSTS))?;
        // It may come before the keeper has made the zone's ZSK, and waits then.
        ensure!(matches!(first.status.code(), Some(0 | 4)), "{first:?}");
        chain.start_secondary()?;
        chain.wait_for_secondary("the first push", |serial| serial == 1)?;

        let held = push(&chain, &almost_empty(2))?;
        ensure!(held.status.code() == Some(4) && held.stdout.contains("records go"), "{held:?}");
        chain.daemon.kill_nine()?;
        chain.daemon.start()?;
        until_held(&mut chain, 2, 1)?;
        // Of a push the serial alone does not say what was looked at.
        let serial = ["zone", "reject", ZONE, "--serial", "2"];
        let vague = chain.daemon.cli(&serial)?;
        ensure!(vague.status.code() == Some(1) && vague.stderr.contains("--digest"), "{vague:?}");
        let shown = chain.daemon.zone_show()?;
        let digest = shown["held"]["digest"].as_str().unwrap_or_default();
        let diff = chain.daemon.cli(&["zone", "diff", ZONE, "up", "held"])?;
        ensure!(diff.stdout.contains(digest), "{digest}: {}", diff.stdout);
        let rejected = chain.daemon.cli(&[&serial[..], &["--digest", digest]].concat())?;
        ensure!(rejected.status.success(), "{rejected:?}");
        // It may be pushed again, and is judged again.
        let again = push(&chain, &almost_empty(2))?;
        ensure!(again.status.code() == Some(4), "{again:?}");
        let same = push(&chain, &zones::hosts(1, HOSTS))?;
        ensure!(same.status.success() && same.stdout.contains('1'), "{same:?}");
        until_held(&mut chain, 2, 1)?;
        let next = push(&chain, &zones::hosts(3, HOSTS))?;
        ensure!(next.status.success(), "{next:?}");
        chain.wait_for_secondary("the next good push", |serial| serial == 3)?;
        until("no alarm", SOON, || chain.daemon.no_alarm())?;

        // A push that waits for the keeper outlives a kill as well.
        chain.keeper.stop()?;
        let waits = push(&chain, &zones::hosts(4, HOSTS))?;
        ensure!(waits.status.code() == Some(4), "{waits:?}");
        chain.daemon.kill_nine()?;
        chain.daemon.start()?;
        ensure!(chain.daemon.zone_show()?["waiting"]["serial"] == 4);
        chain.keeper.start()?;
        chain.wait_for_secondary("what waited", |serial| serial == 4)?;
        chain.verify_served()
    });
}
