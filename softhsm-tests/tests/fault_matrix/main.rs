//! The fault matrix: every PKCS#11 call that the keeper makes, times everything that an HSM may answer, or
//! do instead. Over the whole chain, from the hidden primary to the secondary.
//!
//! For each cell a fault is put in force at one call of one token, and the keeper meets it: while the zone
//! changes, at its start, in a survey, in making a key. What must hold, for every cell:
//!
//! - whatever the secondary serves verifies, by ldns and by BIND, under the first version's KSK;
//! - once the fault is gone the zone gets its next version, and the motion is done, without hands. Hands are
//!   the supervisor's, which starts a keeper that ended, and those that write the file of a refused PIN
//!   anew;
//! - a refused PIN is tried once;
//! - the daemon runs through, and in the end the ledger holds.
//!
//! With `COUNTERSIGN_LONG` set the matrix is whole; else each call fails once in each part, and what is
//! riskiest is added.

mod bench;
mod cells;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Result, bail, ensure};
use softhsm_tests::scratch::Scratch;
use softhsm_tests::story;

use bench::{Bench, Failure};
use cells::{CALLS, Cell, PARTS};

/// Goes through parts; every cell that fails is named. Trimmed, one chain goes through them all; whole,
/// through the part at `number`, and where there is none it is not needed.
fn parts(names: &[&str], number: usize) {
    let whole = std::env::var_os("COUNTERSIGN_LONG").is_some();
    let mine = if whole { names.get(number..=number) } else { Some(names).filter(|_| number == 0) };
    let Some(mine) = mine else { return };
    let only = std::env::var("MATRIX_ONLY").unwrap_or_default();
    let mut cells = Vec::new();
    for name in mine {
        let part = PARTS.iter().find(|part| part.name == *name).expect("a part");
        cells.extend(part.cells(whole));
    }
    cells.retain(|cell| cell.to_string().contains(&only));
    story(|scratch| run(scratch, &mine.join(", "), &cells));
}

fn part(name: &str) {
    parts(&[name], 0);
}

/// Officers' commands read the whole ledger, and each cell adds to it: the whole matrix takes a chain for
/// each of these.
const KEYS: [&str; 4] = ["making", "reading-made", "proving-made", "destroying"];

fn run(scratch: &Scratch, name: &str, cells: &[Cell]) -> Result<()> {
    let mut bench = Bench::start(scratch)?;
    let (mut invalid, mut stuck, mut other) = (0, 0, 0);
    let mut told = String::new();
    for (at, cell) in cells.iter().enumerate() {
        let begun = std::time::Instant::now();
        let result = bench.cell(cell);
        eprintln!("{name} {}/{}: {cell}: {} ms", at + 1, cells.len(), begun.elapsed().as_millis());
        let Err(failure) = result else { continue };
        match failure {
            Failure::Invalid(_) => invalid += 1,
            Failure::Stuck(_) => stuck += 1,
            Failure::Other(_) => other += 1,
        }
        eprintln!("  FAILED: {failure}");
        writeln!(told, "{cell}: {failure}")?;
        bench.repair()?;
    }
    let totals = format!(
        "fault matrix, {name}: {} cells, {invalid} invalid published, {stuck} stuck, {other} otherwise wrong",
        cells.len()
    );
    eprintln!("{totals}");
    bench.close()?;
    if !told.is_empty() {
        bail!("{totals}\n{told}");
    }
    Ok(())
}

#[test]
fn no_fault_in_signing_gets_out() {
    part("signing");
}

#[test]
fn no_fault_in_sealing_gets_out() {
    part("sealing");
}

#[test]
fn no_fault_in_opening_gets_out() {
    part("opening");
}

#[test]
fn no_fault_in_proving_gets_out() {
    part("proving");
}

#[test]
fn no_fault_in_keeping_gets_out() {
    part("keeping");
}

#[test]
fn no_fault_in_making_keys_gets_out() {
    parts(&KEYS, 0);
}

#[test]
fn no_fault_in_reading_new_keys_gets_out() {
    parts(&KEYS, 1);
}

#[test]
fn no_fault_in_proving_new_keys_gets_out() {
    parts(&KEYS, 2);
}

#[test]
fn no_fault_in_destroying_keys_gets_out() {
    parts(&KEYS, 3);
}

/// The shim offers no call that rules can't name, so a keeper that made one more would not even start;
/// here the other half: the matrix has every call that one makes in its life, and no call for nothing.
#[test]
fn the_matrix_has_every_call_that_a_keeper_makes() {
    story(|scratch| {
        let mut bench = Bench::start(scratch)?;
        bench.whole_life()?;
        let made: BTreeSet<String> = bench.calls()?.into_iter().collect();
        let listed: BTreeSet<String> = CALLS.iter().map(|(call, _)| (*call).to_owned()).collect();
        ensure!(made == listed, "a keeper makes {made:?}; the matrix has {listed:?}");
        let tried: BTreeSet<String> = PARTS
            .iter()
            .flat_map(|part| part.cells(true))
            .map(|cell| cell.call.to_owned())
            .collect();
        ensure!(tried == listed, "cells are of {tried:?}");
        Ok(())
    });
}
