//! Certificates, keys, CAs and revocation lists change under open connections, and nobody who may
//! stay is dropped; who may not is gone at the next question; and all of it is said in time.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::daemon::Daemon;
use softhsm_tests::pki::{Authority, Identity, Usage, Validity};
use softhsm_tests::scratch::write;
use softhsm_tests::users::User;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::xot::Held;
use softhsm_tests::zones::{self, ZONE};
use softhsm_tests::{Scratch, story};

/// Connections stay for as long as the story needs them to.
const PATIENT: &str = "[limits]\nidle_ms = 600000\n";
const DAY: Duration = Duration::from_secs(86_400);

/// The chain, with a revocation list of its authority that lists nobody.
fn start(scratch: &Scratch) -> Result<Chain<'_>> {
    let plan = Plan { daemon_more: PATIENT.to_owned(), ..Plan::default() };
    let authority = Authority::new(scratch, "ca")?;
    let crl = authority.revoke(scratch, "ca", &[])?;
    let mut chain = Chain::prepare(scratch, plan, authority)?;
    chain.daemon_spec.crl = Some(crl);
    chain.start_all()?;
    chain.wait_for_secondary("a first version", |_| true)?;
    Ok(chain)
}

fn connect(chain: &Chain<'_>, identity: &Identity) -> Result<Held> {
    Held::connect(chain.daemon.xot_port, identity, &chain.authority.ca, "signer.test")
}

/// Waits until the daemon shows this certificate to whoever connects.
fn wait_until_shown(chain: &Chain<'_>, ours: &Identity) -> Result<()> {
    until("the new certificate on new connections", SOON, || {
        let mut fresh = connect(chain, &chain.identities["secondary"])?;
        ensure!(fresh.is_with(ours)?, "it shows another");
        fresh.ask_soa(ZONE).map(drop)
    })
}

/// `countersign daemon status`: its exit code, and the alarm of that kind if there is one.
fn alarm(daemon: &Daemon, kind: &str) -> Result<(Option<i32>, Option<Value>)> {
    let code = daemon.cli(&["daemon", "status"])?.status.code();
    let shown = daemon.json(&["daemon", "status"])?;
    let alarms = shown["alarms"].as_array().context("alarms")?;
    Ok((code, alarms.iter().find(|alarm| alarm["kind"] == kind).cloned()))
}

fn wait_for_alarm(daemon: &Daemon, kind: &str, about: &str) -> Result<()> {
    until(&format!("an alarm {kind}"), SOON, || {
        let (code, alarm) = alarm(daemon, kind)?;
        let alarm = alarm.context("there is none")?;
        let reason = alarm["reason"].as_str().unwrap_or_default();
        ensure!(code == Some(4) && reason.contains(about), "{code:?} {alarm:#}");
        ensure!(!alarm["next_step"].as_str().unwrap_or_default().is_empty());
        Ok(())
    })
}

fn wait_for_calm(daemon: &Daemon) -> Result<()> {
    until("a daemon that needs nobody", SOON, || {
        let output = daemon.cli(&["daemon", "status"])?;
        ensure!(output.status.code() == Some(0), "{}", output.stdout);
        Ok(())
    })
}

/// A new version goes from BIND through the daemon to BIND.
fn pass_through(chain: &mut Chain<'_>, serial: u32) -> Result<()> {
    chain.change_zone(&zones::example_with(serial, "rotated"))?;
    chain.wait_for_secondary(&format!("serial {serial}"), |served| served == serial).map(drop)
}

#[test]
fn ours_is_replaced_under_an_open_connection_and_a_half_written_pair_is_not_taken() {
    story(|scratch| {
        let mut chain = start(scratch)?;
        let mut held = connect(&chain, &chain.identities["secondary"])?;
        held.ask_soa(ZONE)?;
        wait_for_calm(&chain.daemon)?;
        let mut ours = chain.identities["signer"].clone();
        let fresh = chain.authority.issue_as(
            scratch,
            "signer-2",
            "signer.test",
            User::Daemon,
            Validity::Current,
            Usage::Both,
        )?;

        ours.replace_certificate(&fresh)?;
        until("the refusal in the daemon's log", SOON, || {
            ensure!(chain.daemon.log().contains("can't be taken up"), "not yet");
            Ok(())
        })?;
        // A reload takes the rest of the configuration, and says at once what it could not take.
        chain.daemon_spec.more =
            format!("{PATIENT}[peer.later]\nidentity = {{ san = \"l.test\" }}\n");
        chain.daemon.configure(&chain.daemon_spec)?;
        chain.daemon.running()?.signal(Signal::SIGHUP)?;
        wait_for_alarm(&chain.daemon, "certificate-files", "does not serve")?;
        ensure!(chain.daemon.json(&["daemon", "status"])?["config_error"].is_null());
        pass_through(&mut chain, 2)?;
        held.ask_soa(ZONE)?;

        ours.replace_with(&fresh)?;
        wait_until_shown(&chain, &fresh)?;
        wait_for_calm(&chain.daemon)?;
        held.ask_soa(ZONE)?;
        pass_through(&mut chain, 3)?;

        // And by a reload, which waits for nothing: with new content the look after it finds it.
        let again = chain.authority.issue_as(
            scratch,
            "signer-3",
            "signer.test",
            User::Daemon,
            Validity::Ends(5 * DAY),
            Usage::Both,
        )?;
        ours.replace_with(&again)?;
        chain.daemon.running()?.signal(Signal::SIGHUP)?;
        wait_until_shown(&chain, &again)?;
        wait_for_alarm(&chain.daemon, "certificate-expiring-soon", "our certificate")?;
        ours.replace_with(&fresh)?;
        wait_for_calm(&chain.daemon)?;
        held.ask_soa(ZONE)?;
        Ok(())
    });
}

#[test]
fn authorities_overlap_and_every_certificate_is_replaced() {
    story(|scratch| {
        let mut chain = start(scratch)?;
        let mut held = connect(&chain, &chain.identities["secondary"])?;
        held.ask_soa(ZONE)?;
        let next = Authority::new(scratch, "next-ca")?;
        let bundle = chain.authority.ca.clone();
        let old = std::fs::read_to_string(&bundle)?;
        let new = std::fs::read_to_string(&next.ca)?;
        let binds = |chain: &Chain<'_>| -> Result<()> {
            chain.primary()?.process.signal(Signal::SIGHUP)?;
            chain.secondary.as_ref().context("a secondary")?.process.signal(Signal::SIGHUP)
        };
        let reissue = |chain: &Chain<'_>, who: &str, owner: User| -> Result<Identity> {
            let mut place = chain.identities[who].clone();
            let san = place.san.clone();
            let file = format!("{who}-next");
            let fresh =
                next.issue_as(scratch, &file, &san, owner, Validity::Current, Usage::Both)?;
            place.replace_with(&fresh)?;
            Ok(fresh)
        };

        // Both authorities, everywhere; the list of one of them is not there yet.
        write(&bundle, &format!("{old}{new}"), User::Harness, 0o644)?;
        binds(&chain)?;
        pass_through(&mut chain, 2)?;
        held.ask_soa(ZONE)?;
        // A peer's certificate, then ours, then the primary's.
        let secondary = reissue(&chain, "secondary", User::Harness)?;
        binds(&chain)?;
        until("the peer's new certificate", SOON, || connect(&chain, &secondary)?.ask_soa(ZONE))?;
        pass_through(&mut chain, 3)?;
        wait_for_alarm(&chain.daemon, "crl-missing", "next-ca")?;
        let lists =
            [chain.authority.revoke(scratch, "ca-2", &[])?, next.revoke(scratch, "n", &[])?];
        let lists: Vec<_> = lists.iter().map(std::fs::read_to_string).collect::<Result<_, _>>()?;
        let crl = chain.daemon_spec.crl.clone().context("a list")?;
        write(&crl, &lists.concat(), User::Harness, 0o644)?;
        wait_for_calm(&chain.daemon)?;
        let signer = reissue(&chain, "signer", User::Daemon)?;
        wait_until_shown(&chain, &signer)?;
        reissue(&chain, "primary", User::Harness)?;
        binds(&chain)?;
        pass_through(&mut chain, 4)?;
        held.ask_soa(ZONE)?;

        // The old authority goes, and with it who has nothing else.
        write(&bundle, &new, User::Harness, 0o644)?;
        binds(&chain)?;
        until("the end of what the old authority vouched for", SOON, || {
            ensure!(held.ask_soa(ZONE).is_err(), "it is still answered");
            Ok(())
        })?;
        pass_through(&mut chain, 5)?;
        wait_for_calm(&chain.daemon)
    });
}

#[test]
fn who_is_revoked_or_expires_is_gone_at_the_next_question() {
    story(|scratch| {
        let more = "[peer.brief]\nidentity = { san = \"brief.test\" }\n\
                    [peer.stolen]\nidentity = { san = \"stolen.test\" }\n";
        let mut chain = start(scratch)?;
        chain.daemon_spec.more = format!("{PATIENT}{more}");
        chain.daemon_spec.more_secondaries = vec!["brief".to_owned(), "stolen".to_owned()];
        chain.daemon.configure(&chain.daemon_spec)?;
        chain.daemon.running()?.signal(Signal::SIGHUP)?;
        let stolen = chain.authority.issue(scratch, "stolen.test", User::Harness)?;
        let mut held = until("the new peer", SOON, || {
            let mut held = connect(&chain, &stolen)?;
            held.ask_soa(ZONE)?;
            Ok(held)
        })?;
        let mut other = connect(&chain, &chain.identities["secondary"])?;
        other.ask_soa(ZONE)?;
        wait_for_calm(&chain.daemon)?;

        // Short, and long enough to connect in on a loaded machine.
        let brief = chain.authority.issue_as(
            scratch,
            "brief.test",
            "brief.test",
            User::Harness,
            Validity::Ends(Duration::from_secs(20)),
            Usage::Both,
        )?;
        let mut passing = connect(&chain, &brief)?;
        passing.ask_soa(ZONE)?;
        wait_for_alarm(&chain.daemon, "certificate-expiring-soon", "peer \"brief\"")?;

        chain.authority.revoke(scratch, "ca", &[&stolen])?;
        until("the end of the revoked peer", SOON, || {
            ensure!(held.ask_soa(ZONE).is_err(), "it is still answered");
            Ok(())
        })?;
        ensure!(connect(&chain, &stolen).and_then(|mut held| held.ask_soa(ZONE)).is_err());
        until("the revoked peer in the daemon's log", SOON, || {
            let log = chain.daemon.log();
            let said = |line: &str| line.contains("stolen.test") && line.contains("revoked");
            ensure!(log.lines().any(said), "not in it");
            Ok(())
        })?;
        until("the end of the expired peer", SOON, || {
            ensure!(passing.ask_soa(ZONE).is_err(), "it is still answered");
            Ok(())
        })?;
        wait_for_alarm(&chain.daemon, "certificate-expired", "peer \"brief\"")?;
        other.ask_soa(ZONE)?;

        // A primary that is revoked gives nothing any more, and its alarm says why.
        chain.authority.revoke(scratch, "ca", &[&stolen, &chain.identities["primary"]])?;
        until("an alarm about the primary", SOON, || {
            chain.daemon.cli(&["zone", "refresh", ZONE])?;
            let reason = chain.daemon.alarm(&["primary-unreachable"])?;
            ensure!(reason.contains("revoked"), "{reason}");
            Ok(())
        })?;
        ensure!(chain.served_serial()? == 1);
        other.ask_soa(ZONE)?;
        chain.authority.revoke(scratch, "ca", &[&stolen])?;
        pass_through(&mut chain, 2)
    });
}
