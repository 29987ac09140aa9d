//! Keeper and daemon are killed at random moments while the primary changes. The serial never
//! goes back, nothing half-written is served, and each version that is served verifies.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::wait::{SOON, throughout, until};
use softhsm_tests::zones::{self, ZONE};
use softhsm_tests::{oracle, story};

/// Kills. Small here: a night of them runs elsewhere.
const ROUNDS: u32 = 8;
/// A version takes about a second from NOTIFY to publication: the kills fall all over it.
const MOMENTS_MS: u64 = 1_500;

/// What the secondary was seen to serve.
#[derive(Default)]
struct Seen {
    newest: Cell<u32>,
    versions: BTreeMap<u32, String>,
}

impl Seen {
    /// RFC 1982 aside, these serials are small and only rise.
    fn look(&self, chain: &Chain<'_>) -> Result<()> {
        let serial = chain.served_serial()?;
        ensure!(serial >= self.newest.get(), "back from {} to {serial}", self.newest.get());
        self.newest.set(serial);
        Ok(())
    }

    /// Keeps the version that is up, to be verified.
    fn keep(&mut self, chain: &Chain<'_>) -> Result<()> {
        let serial = chain.served_serial()?;
        self.versions.insert(serial, chain.served_zone()?);
        Ok(())
    }
}

#[test]
fn kill_nine_loses_nothing() {
    let seed: u64 = RandomState::new().hash_one(ROUNDS);
    eprintln!("random moments from seed {seed}");
    story(|scratch| {
        let plan = Plan { serial: "increment", content: zones::hosts(1, 300), ..Plan::default() };
        let mut chain = Chain::start(scratch, plan)?;
        let mut seen = Seen::default();
        seen.keep(&chain)?;
        let mut random = seed | 1;
        for round in 0..ROUNDS {
            // xorshift64: any spread of moments will do.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            chain.change_zone(&zones::hosts(2 + round, 300))?;
            let moment = Duration::from_millis(random % MOMENTS_MS);
            throughout("waiting for the moment", moment, || seen.look(&chain))?;
            let (keeper, daemon) =
                [(true, false), (false, true), (true, true)][usize::try_from((random >> 32) % 3)?];
            if keeper {
                chain.keeper.kill_nine()?;
            }
            if daemon {
                chain.daemon.kill_nine()?;
            }
            seen.look(&chain)?;
            if keeper {
                chain.keeper.start().context("the keeper after kill -9")?;
            }
            if daemon {
                chain.daemon.start().context("the daemon after kill -9")?;
                let (own, newest) = (chain.daemon.serial()?, seen.newest.get());
                ensure!(own >= newest, "the daemon came back with {own}, {newest} was out");
            }
            seen.keep(&chain)?;
        }
        let last = format!("\"serial {}\"", 2 + ROUNDS);
        // As large as before: one that shrank would wait for a person.
        let hosts = zones::hosts(2 + ROUNDS, 300);
        chain.change_zone(&format!("{hosts}last IN TXT {last}\n"))?;
        until("the last change", SOON, || {
            seen.look(&chain)?;
            ensure!(chain.served_zone()?.contains(&last), "not yet");
            Ok(())
        })?;
        seen.keep(&chain)?;
        chain.verify_served()?;
        for (serial, version) in &seen.versions {
            let anchor = oracle::anchor(scratch, ZONE, version)?;
            oracle::verify(scratch, ZONE, version, &anchor)
                .with_context(|| format!("serial {serial} (seed {seed})"))?;
        }
        Ok(())
    });
}
