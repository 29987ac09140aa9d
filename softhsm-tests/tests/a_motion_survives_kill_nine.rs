//! The keeper is killed at random moments between a proposal and its result. Nothing is done twice,
//! nothing that was approved is lost, and no key is left on a token that the ledger does not know.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use countersign_policy::state::Status;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::keeper::Keeper;
use softhsm_tests::officers::Officers;
use softhsm_tests::pki::Authority;
use softhsm_tests::story;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::ZONE;

/// Motions of one appliance, two kills each: one person proposes at most 40 a day.
const ROUNDS: u32 = 8;
/// Appliances with `COUNTERSIGN_LONG`.
const APPLIANCES_LONG: u32 = 25;
/// From the proposal to the result it takes well below a second: the kills fall all over it.
const MOMENTS_MS: u64 = 900;

/// xorshift64: any spread of moments will do.
struct Random(u64);

impl Random {
    fn moment(&mut self) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_millis(self.0 % MOMENTS_MS)
    }
}

/// Persons who try again until it is so: their command line can't reach a keeper that was just killed.
fn insist(officers: &Officers, id: &str) -> Result<()> {
    until("the approvals", SOON, || {
        for who in ["kay", "kim"] {
            let said = officers.cli(who, &["approve", id])?;
            // What was taken, though its answer was lost, needs no second one.
            let settled = ["already", "begun", "done", "began"];
            if !said.status.success() && !settled.iter().any(|word| said.stderr.contains(word)) {
                bail!("{who}: {}", said.stderr);
            }
        }
        Ok(())
    })
}

/// Proposes `motion` and has it approved, while the keeper is killed twice and comes back.
fn carry_under_fire(
    keeper: &mut Keeper,
    officers: &Officers,
    motion: &[&str],
    random: &mut Random,
) -> Result<String> {
    let over = AtomicBool::new(false);
    let (first, second) = (random.moment(), random.moment());
    std::thread::scope(|scope| {
        let people = scope.spawn(|| {
            let done = until("the proposal", SOON, || officers.propose("op", motion))
                .and_then(|id| insist(officers, &id).map(|()| id));
            over.store(true, Ordering::SeqCst);
            done
        });
        for moment in [first, second] {
            std::thread::sleep(moment);
            keeper.kill_nine()?;
            keeper.start().context("the keeper after kill -9")?;
        }
        let id = people.join().map_err(|_| anyhow::anyhow!("the people panicked"))??;
        ensure!(over.load(Ordering::SeqCst));
        until("the result", SOON, || keeper.is_done(&id))?;
        Ok(id)
    })
}

#[test]
fn a_motion_survives_kill_nine() {
    let is_long = std::env::var_os("COUNTERSIGN_LONG").is_some();
    for appliance in 0..if is_long { APPLIANCES_LONG } else { 1 } {
        motions_under_fire(RandomState::new().hash_one(appliance));
    }
}

fn motions_under_fire(seed: u64) {
    eprintln!("random moments from seed {seed}");
    story(|scratch| {
        let mut chain = Chain::prepare(scratch, Plan::default(), Authority::new(scratch, "ca")?)?;
        chain.found()?;
        let mut random = Random(seed | 1);
        let generate = ["generate-key", "--zone", ZONE, "--role", "ksk"];
        for round in 0..ROUNDS {
            let Chain { keeper, officers, .. } = &mut chain;
            if round % 2 == 0 {
                carry_under_fire(keeper, officers, &generate, &mut random)?;
            } else {
                // The one that was just made, so that there is room for the next.
                let state = keeper.ledger_state()?;
                let idle = state.keys().iter().find(|(_, key)| {
                    key.role.signs_dnskey()
                        && key.stage != countersign_policy::key_state::Stage::Active
                });
                let (key, _) = idle.context("a KSK that is not in use")?;
                let destroy = ["destroy-key", "--zone", ZONE, "--key", &key.to_string()];
                carry_under_fire(keeper, officers, &destroy, &mut random)?;
            }
            nothing_twice_nothing_left(&chain)
                .with_context(|| format!("round {round}, seed {seed}"))?;
        }
        chain.officers.ok("audrey", &["audit", "log"]).map(drop)
    });
}

fn nothing_twice_nothing_left(chain: &Chain<'_>) -> Result<()> {
    until("reconciliation", SOON, || {
        let state = chain.keeper.ledger_state()?;
        ensure!(state.open_intents().next().is_none(), "an intent is open");
        ensure!(state.unfinished().next().is_none(), "a motion is unfinished");
        Ok(())
    })?;
    let state = chain.keeper.ledger_state()?;
    let lines = chain.keeper.ledger_lines()?;
    for (hash, proposal) in state.proposals() {
        let begun = lines.iter().filter(|line| {
            line["entry"]["kind"] == "begun" && line["entry"]["statement"] == hash.to_string()
        });
        let expected = usize::from(matches!(proposal.status, Status::Begun { .. }));
        ensure!(begun.count() == expected, "{hash} did not begin {expected} times");
    }
    // On the token: the audit key, and the KSKs that the ledger knows, each a pair.
    let known: BTreeSet<String> = state
        .keys()
        .values()
        .filter(|key| key.role.signs_dnskey())
        .map(|key| key.label.clone())
        .collect();
    for kind in ["privkey", "pubkey"] {
        let list = ["--list-objects", "--type", kind];
        let objects = chain.store.pkcs11_tool(&chain.tokens["ksk-a"], &list)?;
        let labels: Vec<String> = objects
            .lines()
            .filter_map(|line| line.trim().strip_prefix("label:"))
            .map(|label| label.trim().to_owned())
            .filter(|label| !label.starts_with("cs-audit"))
            .collect();
        let distinct: BTreeSet<String> = labels.iter().cloned().collect();
        ensure!(
            distinct == known && labels.len() == known.len(),
            "{kind}s on the token: {labels:?}\nin the ledger: {known:?}"
        );
    }
    Ok(())
}
