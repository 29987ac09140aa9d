//! Random edits of a random zone, handed in by whatever way comes up, the daemon restarted now and then:
//! each version that is published is the zone that went in, byte for byte, with its DNSSEC records, and
//! others verify it.
//!
//! The ways: differences from BIND (updates, IXFR), the whole zone from a BIND that gives no IXFR (AXFR),
//! and a push. Whoever follows another has other history, so a primary's differences are right only
//! after its own.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use softhsm_tests::bind::{Changes, Primary, PrimarySpec};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::daemon::Peer;
use softhsm_tests::edits::{Dice, Model, long};
use softhsm_tests::pki::Authority;
use softhsm_tests::users::User;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};
use softhsm_tests::{Scratch, oracle, query, story};

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Updates,
    Whole,
    Push,
}

#[test]
fn random_edits_by_every_way_are_published_byte_for_byte() {
    story(|scratch| {
        let mut dice = Dice::shown()?;
        let mut zone = Zone::start(scratch, &mut dice)?;
        let steps = if long() { 1_000 } else { 16 };
        for step in 0..steps {
            // Runs of one way, so that differences follow differences.
            if dice.below(3) == 0 {
                zone.way = *dice.pick(&[Way::Updates, Way::Whole, Way::Push]);
            }
            zone.edit(&mut dice);
            zone.hand_in().with_context(|| format!("step {step} by {:?}", zone.way))?;
            zone.check().with_context(|| format!("step {step} by {:?}", zone.way))?;
            if dice.below(8) == 0 {
                ensure!(zone.chain.daemon.stop()?.success());
                zone.chain.daemon.start()?;
            }
        }
        zone.chain.daemon.no_alarm()
    });
}

struct Zone<'s> {
    chain: Chain<'s>,
    updated: Primary,
    /// What `updated` has.
    at_updated: Model,
    whole: Primary,
    model: Model,
    serial: u32,
    way: Way,
}

impl<'s> Zone<'s> {
    fn start(scratch: &'s Scratch, dice: &mut Dice) -> Result<Self> {
        let denial = *dice.pick(&["nsec", "nsec3", "nsec3-opt-out"]);
        let plan = Plan { denial, serial: "unixtime", ..Plan::default() };
        let mut chain = Chain::prepare(scratch, plan, Authority::new(scratch, "ca")?)?;
        let model = Model::new(dice);
        let other = chain.authority.issue(scratch, "other.test", User::Harness)?;
        let primary = |name, identity, changes| {
            let spec = PrimarySpec {
                name,
                zone: ZONE,
                content: &model.zone_file(1),
                identity,
                client_ca: &chain.authority.ca,
                notify_port: chain.daemon.dns_port,
                changes,
            };
            Primary::start(scratch, &spec)
        };
        let updated = primary("updated", &chain.identities["primary"], Changes::Updates)?;
        let whole = primary("whole", &other, Changes::FileWithoutIxfr)?;
        chain.found()?;
        chain.daemon_spec.peers.push(Peer {
            name: "whole".to_owned(),
            san: "other.test".to_owned(),
            transfer_from: Some(whole.xot_port),
            notify: None,
        });
        chain.daemon_spec.peers.push(Peer {
            name: "updated".to_owned(),
            san: "primary.test".to_owned(),
            transfer_from: Some(updated.xot_port),
            notify: None,
        });
        // A zone of thirty records may lose a dozen.
        chain.daemon_spec.zone_keys.push_str("guard = \"off\"\npush_from = [\"local\"]\n");
        chain.daemon.configure(&chain.daemon_spec)?;
        chain.daemon.start()?;
        chain.start_secondary()?;
        let at_updated = model.clone();
        let way = Way::Updates;
        let zone = Self { chain, updated, at_updated, whole, model, serial: 1, way };
        zone.check()?;
        Ok(zone)
    }

    fn edit(&mut self, dice: &mut Dice) {
        let old = self.model.clone();
        while self.model == old {
            self.model.edit(dice);
        }
        self.serial += 1;
    }

    fn hand_in(&mut self) -> Result<()> {
        match self.way {
            Way::Updates => {
                let update = self.model.update_from(&self.at_updated, self.serial);
                self.at_updated = self.model.clone();
                self.updated.update(&update)
            }
            Way::Whole => self.whole.replace_zone(&self.model.zone_file(self.serial)),
            Way::Push => {
                let text = self.model.zone_file(self.serial);
                let file = self.chain.scratch.file("pushed.zone", &text, User::Harness, 0o644)?;
                let file = file.display().to_string();
                let pushed = self.chain.daemon.cli(&["push", ZONE, &file])?;
                ensure!(pushed.status.success(), "{pushed:?}");
                Ok(())
            }
        }
    }

    /// Waits until the newest version is up here and at the secondary; each is the model.
    fn check(&self) -> Result<()> {
        until(&format!("serial {} of the zone's source", self.serial), SOON, || {
            let shown = self.chain.daemon.zone_show()?;
            ensure!(shown["incoming_serial"] == self.serial, "{shown:#}");
            Ok(())
        })?;
        let published = self.chain.daemon.serial()?;
        let chain = &self.chain;
        let ours = query::axfr_over_tls(
            chain.daemon.xot_port,
            ZONE,
            &chain.identities["secondary"],
            &chain.authority.ca,
            "signer.test",
        )?;
        let content: BTreeSet<String> =
            zones::content(&ours).into_iter().filter(|line| !line.contains(" SOA ")).collect();
        let expect = self.model.lines();
        let (more, less): (Vec<_>, Vec<_>) =
            (content.difference(&expect).collect(), expect.difference(&content).collect());
        ensure!(more.is_empty() && less.is_empty(), "published {more:#?}\nand not {less:#?}");
        let anchor = oracle::anchor(chain.scratch, ZONE, &ours)?;
        oracle::verify(chain.scratch, ZONE, &ours, &anchor)?;
        until("the same at the secondary", SOON, || {
            let found = chain.served_serial()?;
            ensure!(found == published, "it serves {found}, expected {published}");
            Ok(())
        })?;
        ensure!(
            zones::whole(&chain.served_zone()?) == zones::whole(&ours),
            "the secondary differs"
        );
        Ok(())
    }
}
