//! Whoever can't show the right certificate gets nothing and gives nothing, and the log says who
//! it was.

use std::process::Command;

use anyhow::{Result, ensure};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::fake_primary::FakePrimary;
use softhsm_tests::pki::{Authority, Identity, Usage, Validity};
use softhsm_tests::tools::{run_ok, tool};
use softhsm_tests::users::User;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::ZONE;
use softhsm_tests::{Scratch, ports, query, story};

/// One certificate for each way of being wrong, each with a name of its own to look for.
fn wrong(scratch: &Scratch, ours: &Authority, usage: Usage) -> Result<Vec<Identity>> {
    let foreign = Authority::new(scratch, "foreign")?;
    let harness = User::Harness;
    let issue = |authority: &Authority, san: &str, validity, usage| {
        authority.issue_as(scratch, san, san, harness, validity, usage)
    };
    Ok(vec![
        issue(ours, "expired.test", Validity::Expired, Usage::Both)?,
        issue(ours, "not-yet.test", Validity::NotYet, Usage::Both)?,
        issue(&foreign, "foreign.test", Validity::Current, Usage::Both)?,
        issue(ours, "wrong-use.test", Validity::Current, usage)?,
        issue(ours, "code-use.test", Validity::Current, Usage::Code)?,
        issue(ours, "unlisted.test", Validity::Current, Usage::Both)?,
    ])
}

#[test]
fn wrong_certificate_refused() {
    story(|scratch| {
        let chain = Chain::start(scratch, Plan::default())?;
        let ask = |identity: Option<&Identity>, question: [&str; 2]| {
            query::over_tls(
                chain.daemon.xot_port,
                identity,
                &chain.authority.ca,
                "signer.test",
                question,
            )
        };
        // The one that is listed gets the zone: what follows does not fail for another reason.
        let listed = &chain.identities["secondary"];
        ensure!(ask(Some(listed), [ZONE, "AXFR"])?.contains("RRSIG"));

        let wrong = wrong(scratch, &chain.authority, Usage::Server)?;
        for identity in wrong.iter().map(Some).chain([None]) {
            let who = identity.map_or("no certificate", |identity| &identity.san);
            for question in [[ZONE, "AXFR"], [ZONE, "SOA"], [ZONE, "DNSKEY"]] {
                let answer = ask(identity, question)?;
                ensure!(
                    !answer.contains("RRSIG") && !answer.contains("192.0.2."),
                    "{who} asked for {question:?}:\n{answer}"
                );
            }
            until(&format!("{who} in the daemon's log"), SOON, || {
                let log = chain.daemon.log();
                ensure!(log.lines().any(|line| line.contains(who)), "not in it");
                Ok(())
            })?;
        }
        // In clear nobody gets a transfer, listed address or not.
        ensure!(query::axfr(chain.daemon.dns_port, ZONE).is_err());
        // And those who may are still served.
        ensure!(ask(Some(listed), [ZONE, "AXFR"])?.contains("RRSIG"));
        Ok(())
    });
}

#[test]
fn a_primary_with_a_wrong_certificate_gives_nothing() {
    story(|scratch| {
        let authority = Authority::new(scratch, "ca")?;
        let mut chain = Chain::prepare(scratch, Plan::default(), authority)?;
        chain.found()?;
        for identity in wrong(scratch, &chain.authority, Usage::Client)? {
            let fake = FakePrimary::start(ports::free()?, &identity, &chain.authority.ca)?;
            // Each is what the daemon's configuration asks for, by name; but for the unlisted
            // one, which has another's place.
            let expected =
                if identity.san == "unlisted.test" { "primary.test" } else { &identity.san };
            chain.use_primary("primary-1", expected, fake.port)?;
            chain.daemon.start()?;
            let reason = until(&format!("an alarm about {}", identity.san), SOON, || {
                chain.daemon.alarm(&["primary-unreachable"])
            })?;
            ensure!(fake.transfers() == 0, "{}: asked for the zone", identity.san);
            ensure!(chain.daemon.serial().is_err(), "{}: a zone is up: {reason}", identity.san);
            ensure!(
                chain.daemon.log().lines().any(|line| line.contains(&identity.san)),
                "{} is not in the log; the alarm says: {reason}",
                identity.san
            );
            ensure!(chain.daemon.stop()?.success());
        }
        let good = chain.identities["primary"].clone();
        let fake = FakePrimary::start(ports::free()?, &good, &chain.authority.ca)?;
        chain.use_primary("primary-1", "primary.test", fake.port)?;
        chain.daemon.start()?;
        until("the zone of the right primary", SOON, || chain.daemon.serial())?;
        Ok(())
    });
}

#[test]
fn a_primary_that_does_not_know_our_authority_gives_nothing() {
    story(|scratch| {
        let authority = Authority::new(scratch, "ca")?;
        let foreign = Authority::new(scratch, "foreign")?;
        let mut chain = Chain::prepare(scratch, Plan::default(), authority)?;
        chain.found()?;
        let identity = chain.identities["primary"].clone();
        let fake = FakePrimary::start(ports::free()?, &identity, &foreign.ca)?;
        chain.use_primary("primary-1", "primary.test", fake.port)?;
        chain.daemon.start()?;
        until("an alarm", SOON, || chain.daemon.alarm(&["primary-unreachable"]))?;
        ensure!(fake.transfers() == 0 && chain.daemon.serial().is_err());
        Ok(())
    });
}

/// A peer that is listed by its key is that key, whatever names others put into a certificate.
#[test]
fn a_pinned_key_is_the_peer_and_a_name_is_not() {
    story(|scratch| {
        let authority = Authority::new(scratch, "ca")?;
        let pinned = authority.issue(scratch, "pinned.test", User::Harness)?;
        let namesake = authority.issue_as(
            scratch,
            "namesake",
            "pinned.test",
            User::Harness,
            Validity::Current,
            Usage::Both,
        )?;
        let der = scratch.path().join("pinned.spki");
        std::fs::write(&der, &pinned.spki)?;
        let mut openssl = Command::new(tool("openssl")?);
        let digest = run_ok(openssl.args(["dgst", "-sha256", "-r"]).arg(&der))?;
        let digest = digest.split_whitespace().next().unwrap_or_default();
        let more = format!("[peer.pinned]\nidentity = {{ spki_sha256 = \"{digest}\" }}\n");
        let plan = Plan { daemon_more: more, ..Plan::default() };
        let mut chain = Chain::prepare(scratch, plan, authority)?;
        chain.daemon_spec.more_secondaries.push("pinned".to_owned());
        chain.start_all()?;
        chain.wait_for_secondary("a first version", |_| true)?;
        let ask = |identity| {
            query::over_tls(
                chain.daemon.xot_port,
                Some(identity),
                &chain.authority.ca,
                "signer.test",
                [ZONE, "AXFR"],
            )
        };
        ensure!(ask(&pinned)?.contains("RRSIG"));
        let answer = ask(&namesake)?;
        ensure!(!answer.contains("RRSIG"), "{answer}");
        Ok(())
    });
}
