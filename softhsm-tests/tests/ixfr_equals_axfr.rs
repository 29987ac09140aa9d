//! Differences in and out (RFC 1995): whatever way a version takes, what every secondary has is what we
//! give whole, and what we give whole is the primary's zone with its DNSSEC records.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use softhsm_tests::bind::{Changes, Primary, PrimarySpec};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::edits::{Dice, Model, long};
use softhsm_tests::fake_primary::{FakePrimary, Fault};
use softhsm_tests::knot::Knot;
use softhsm_tests::nsd::Nsd;
use softhsm_tests::pki::Authority;
use softhsm_tests::tsig::{self, ALGORITHM, Key};
use softhsm_tests::users::User;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};
use softhsm_tests::{Scratch, oracle, ports, query, story};

const IN: &str = "countersign_transfers_in_ixfr_total";
const OUT: &str = "countersign_transfers_out_ixfr_total";
const FALLBACKS: &str = "countersign_ixfr_fallbacks_total";

#[test]
fn ixfr_equals_axfr() {
    story(|scratch| {
        let mut dice = Dice::shown()?;
        let mut zone = Edited::start(scratch, &mut dice, "")?;
        let rounds = if long() { 200 } else { 8 };
        for _ in 0..rounds {
            zone.edit(&mut dice)?;
            zone.everywhere_the_same()?;
        }
        let (came, went) = (zone.counter(IN)?, zone.counter(OUT)?);
        eprintln!("{rounds} edits: {came} came and {went} went as differences");
        // The spelling of an owner or a notify that two edits share may cost a difference; most are.
        ensure!(came >= rounds / 2, "only {came} of {rounds} edits came as differences");
        ensure!(went * 2 >= rounds * 5, "only {went} differences went to three in {rounds} edits");
        zone.verifies()?;

        // The primary can't tell what changed: the whole zone comes, and secondaries get differences.
        zone.primary.forget_history()?;
        zone.edit(&mut dice)?;
        zone.everywhere_the_same()?;

        // A restart: what is kept on disk is what a secondary that missed a version gets.
        zone.bind(Signal::SIGSTOP)?;
        zone.edit(&mut dice)?;
        zone.wait_for_nsd()?;
        ensure!(zone.chain.daemon.stop()?.success());
        zone.chain.daemon.start()?;
        until("steps from versions on disk", SOON, || {
            let log = zone.chain.daemon.log();
            ensure!(log.contains("differences to earlier versions are at hand"), "not yet");
            Ok(())
        })?;
        zone.bind(Signal::SIGCONT)?;
        zone.everywhere_the_same()?;
        // Counters begin anew with the daemon.
        ensure!(zone.counter(OUT)? > 0, "no difference went out after the restart");
        zone.verifies()
    });
}

/// With room for one difference, a secondary that missed two versions gets the whole zone.
#[test]
fn what_is_not_kept_goes_whole() {
    story(|scratch| {
        let mut dice = Dice::shown()?;
        let mut zone = Edited::start(scratch, &mut dice, "[limits]\ndifferences_kept = 1\n")?;
        zone.edit(&mut dice)?;
        zone.everywhere_the_same()?;
        zone.bind(Signal::SIGSTOP)?;
        for _ in 0..3 {
            zone.edit(&mut dice)?;
            zone.wait_for_nsd()?;
        }
        let whole = zone.counter("countersign_transfers_out_total")? - zone.counter(OUT)?;
        zone.bind(Signal::SIGCONT)?;
        zone.everywhere_the_same()?;
        let now = zone.counter("countersign_transfers_out_total")? - zone.counter(OUT)?;
        ensure!(now > whole, "the zone did not go out whole");
        Ok(())
    });
}

/// A primary whose differences are wrong: the whole zone is asked for, and nothing of the differences
/// is ever published.
#[test]
fn a_primary_that_lies_corrupts_nothing() {
    story(|scratch| {
        let limits = "[limits]\nrecords_max = 2000\nidle_ms = 3000\n";
        let plan = Plan { daemon_more: limits.to_owned(), ..Plan::default() };
        let mut chain = Chain::prepare(scratch, plan, Authority::new(scratch, "ca")?)?;
        let identity = chain.identities["primary"].clone();
        let fake = FakePrimary::start(ports::free()?, &identity, &chain.authority.ca)?;
        chain.use_primary("primary-1", "primary.test", fake.port)?;
        chain.found()?;
        chain.daemon.start()?;
        chain.start_secondary()?;
        chain.wait_for_secondary("serial 1", |serial| serial == 1)?;
        let expect = zones::content(&chain.served_zone()?);

        let mut good = 1;
        for fault in [
            Fault::Differences,
            Fault::DifferencesOfOthers,
            Fault::DeletesMissing,
            Fault::AddsPresent,
            Fault::EndlessDifferences,
            Fault::HalfDifferences,
            Fault::OtherClosingDifferences,
            Fault::Differences,
        ] {
            let (came, fell) = (chain.daemon.counter(IN)?, chain.daemon.counter(FALLBACKS)?);
            good += 1;
            fake.set(fault, good);
            ensure!(chain.daemon.cli(&["zone", "refresh", "example."])?.status.code() != Some(1));
            chain.wait_for_secondary(&format!("serial {good}"), |serial| serial == good)?;
            ensure!(fake.asked_for_differences() == 1, "{fault:?}: not asked for differences");
            let true_ones = fault == Fault::Differences;
            let (came, fell) =
                (chain.daemon.counter(IN)? - came, chain.daemon.counter(FALLBACKS)? - fell);
            ensure!((came, fell) == (u64::from(true_ones), u64::from(!true_ones)), "{fault:?}");
            ensure!(fake.transfers() == usize::from(!true_ones), "{fault:?}");
            let served = zones::content(&chain.served_zone()?);
            ensure!(served == expect, "{fault:?}: {served:#?}");
        }

        // One that does not do IXFR is not asked again for a while.
        for asked in [1, 0] {
            good += 1;
            fake.set(Fault::None, good);
            ensure!(chain.daemon.cli(&["zone", "refresh", "example."])?.status.code() != Some(1));
            chain.wait_for_secondary(&format!("serial {good}"), |serial| serial == good)?;
            ensure!(fake.asked_for_differences() == asked, "asked again");
        }
        chain.daemon.no_alarm()
    });
}

/// A zone that changes by updates at BIND, and goes to BIND and NSD over TLS, and to Knot over TCP with TSIG.
struct Edited<'s> {
    chain: Chain<'s>,
    primary: Primary,
    nsd: Nsd,
    knot: Knot,
    model: Model,
    serial: u32,
}

impl<'s> Edited<'s> {
    fn start(scratch: &'s Scratch, dice: &mut Dice, more: &str) -> Result<Self> {
        let (port, knot_port) = (ports::free()?, ports::free()?);
        let key = Key::new("knot.key.")?;
        let more = format!(
            "[peer.nsd]\nidentity = {{ san = \"nsd.test\" }}\nnotify = \"127.0.0.1:{port}\"\n\
             [tsig.\"knot.key.\"]\nalgorithm = \"{ALGORITHM}\"\nsecret_file = \"{file}\"\n\
             [peer.knot]\ntsig = \"knot.key.\"\ntransport = \"tcp\"\nnotify = \"127.0.0.1:{knot_port}\"\n\
             {more}",
            file = key.secret_file(scratch, User::Daemon)?.display(),
        );
        let plan = Plan { daemon_more: more, ..Plan::default() };
        let mut chain = Chain::prepare(scratch, plan, Authority::new(scratch, "ca")?)?;
        chain.daemon_spec.more_secondaries = vec!["nsd".to_owned(), "knot".to_owned()];
        // A zone of thirty records may lose a dozen.
        chain.daemon_spec.zone_keys.push_str("guard = \"off\"\n");
        chain.found()?;
        let model = Model::new(dice);
        let primary = Primary::start(
            scratch,
            &PrimarySpec {
                name: "primary",
                zone: ZONE,
                content: &model.zone_file(1),
                identity: &chain.identities["primary"],
                client_ca: &chain.authority.ca,
                notify_port: chain.daemon.dns_port,
                changes: Changes::Updates,
            },
        )?;
        chain.use_primary("primary-1", "primary.test", primary.xot_port)?;
        chain.daemon.start()?;
        chain.start_secondary()?;
        let nsd = chain.start_nsd(port)?;
        let knot = Knot::secondary(
            scratch,
            &tsig::SecondarySpec {
                name: "knot",
                zone: ZONE,
                key: &key,
                server_port: chain.daemon.dns_port,
                port: knot_port,
            },
        )?;
        let mut zone = Self { chain, primary, nsd, knot, model, serial: 1 };
        zone.everywhere_the_same()?;
        Ok(zone)
    }

    fn edit(&mut self, dice: &mut Dice) -> Result<()> {
        let old = self.model.clone();
        while self.model == old {
            self.model.edit(dice);
        }
        self.serial += 1;
        self.primary.update(&self.model.update_from(&old, self.serial))
    }

    /// Stops the BIND that is a secondary, or lets it go on.
    fn bind(&self, signal: Signal) -> Result<()> {
        self.chain.secondary.as_ref().context("a secondary")?.process.signal(signal)
    }

    fn wait_for_nsd(&self) -> Result<()> {
        until(&format!("serial {} on NSD", self.serial), SOON, || {
            let found = query::serial(self.nsd.port, ZONE)?;
            ensure!(found == self.serial, "it serves {found}");
            Ok(())
        })
    }

    /// ldns and BIND find no fault in what a secondary made of its differences.
    fn verifies(&self) -> Result<()> {
        let signed = self.chain.served_zone()?;
        let anchor = oracle::anchor(self.chain.scratch, ZONE, &signed)?;
        oracle::verify(self.chain.scratch, ZONE, &signed, &anchor)
    }

    fn counter(&self, name: &str) -> Result<u64> {
        self.chain.daemon.counter(name)
    }

    /// Waits until all have the newest serial; then each has what we give whole.
    fn everywhere_the_same(&mut self) -> Result<()> {
        let serial = self.serial;
        self.chain.wait_for_secondary(&format!("serial {serial}"), |found| found == serial)?;
        self.wait_for_nsd()?;
        until(&format!("serial {serial} on Knot"), SOON, || {
            let found = self.knot.serial()?;
            ensure!(found == serial, "it serves {found}");
            Ok(())
        })?;
        let chain = &self.chain;
        let identity = &chain.identities["secondary"];
        let whole =
            |port, server| query::axfr_over_tls(port, ZONE, identity, &chain.authority.ca, server);
        let ours = whole(chain.daemon.xot_port, "signer.test")?;
        same("BIND", &exact(&chain.served_zone()?), &exact(&ours))?;
        // NSD and Knot keep names in lower case.
        for (whose, port) in [("NSD", self.nsd.port), ("Knot", self.knot.port)] {
            let theirs = query::axfr(port, ZONE)?;
            same(whose, &zones::whole(&theirs), &zones::whole(&ours))?;
        }
        let theirs = whole(self.primary.xot_port, "primary.test")?;
        same("the primary", &zones::content(&theirs), &zones::content(&ours))
    }
}

/// The records as dig prints them, case and all.
fn exact(text: &str) -> BTreeSet<String> {
    let joined = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().map(joined).filter(|line| !line.is_empty()).collect()
}

fn same(whose: &str, theirs: &BTreeSet<String>, ours: &BTreeSet<String>) -> Result<()> {
    let (more, less): (Vec<_>, Vec<_>) =
        (theirs.difference(ours).collect(), ours.difference(theirs).collect());
    ensure!(more.is_empty() && less.is_empty(), "{whose} has {more:#?}\nand has not {less:#?}");
    Ok(())
}
