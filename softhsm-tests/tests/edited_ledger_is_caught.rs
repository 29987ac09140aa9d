//! Whoever can write the keeper's files edits its ledger. The keeper refuses it and names the line, or,
//! where the edit is one that needs nobody's signature, by what tokens and checkpoints say; no key is
//! used, the zone stays up as it was, and an officer's own command line refuses it as well.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::files::{places, write_ledger};
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::{story, zones};

/// How the keeper ends that refuses its ledger.
const EXIT_LEDGER: i32 = 4;
/// How `countersign` ends when what it is shown does not hold.
const EXIT_UNSOUND: i32 = 5;

/// What is done to the lines, and what the keeper says of it.
type Edit = (&'static str, fn(&mut Vec<Value>) -> Result<()>, &'static str);

fn first(lines: &[Value], kind: &str) -> Result<usize> {
    places(lines, kind).first().copied().with_context(|| format!("no {kind}"))
}

/// Edits that the fold itself refuses, whoever made them.
const REFUSED: [Edit; 9] = [
    (
        "a bit of an approval's signature",
        |lines| {
            let at = first(lines, "verdict")?;
            let signature = lines[at]["entry"]["signature"].as_str().context("text")?;
            let middle = signature.len() / 2;
            let other = if signature.as_bytes()[middle] == b'A' { "B" } else { "A" };
            let edited = format!("{}{other}{}", &signature[..middle], &signature[middle + 1..]);
            lines[at]["entry"]["signature"] = json!(edited);
            Ok(())
        },
        "line",
    ),
    (
        "an approval that is another officer's",
        |lines| {
            let at = first(lines, "verdict")?;
            lines[at]["entry"]["officer"] = json!("kurt");
            Ok(())
        },
        "kurt",
    ),
    (
        "a denial that was an approval",
        |lines| {
            let at = first(lines, "verdict")?;
            lines[at]["entry"]["verb"] = json!("deny");
            Ok(())
        },
        "line",
    ),
    (
        "an approval taken out",
        |lines| {
            let at = first(lines, "verdict")?;
            lines.remove(at);
            Ok(())
        },
        "line",
    ),
    (
        "a zone more in a statement",
        |lines| {
            let at = *places(lines, "proposed").get(1).context("the binding")?;
            let text = lines[at]["entry"]["statement"].as_str().context("text")?;
            let edited = text.replace("zone: example.\n", "zone: example.\nzone: thief.\n");
            lines[at]["entry"]["statement"] = json!(edited);
            Ok(())
        },
        "line",
    ),
    (
        "two lines that changed places",
        |lines| {
            let at = first(lines, "verdict")?;
            lines.swap(at - 1, at);
            Ok(())
        },
        "line",
    ),
    (
        "a motion that begins twice",
        |lines| {
            let at = *places(lines, "begun").last().context("a beginning")?;
            lines.push(lines[at].clone());
            Ok(())
        },
        "does not begin",
    ),
    (
        "a founding with one signature less",
        |lines| {
            let signatures =
                lines[0]["entry"]["signatures"].as_object_mut().context("signatures")?;
            signatures.remove("kurt");
            Ok(())
        },
        "kurt",
    ),
    (
        "a rule of the founding",
        |lines| {
            let text = lines[0]["entry"]["text"].as_str().context("text")?;
            let edited = text.replace("rule: export-ds 2 ", "rule: export-ds 1 ");
            lines[0]["entry"]["text"] = json!(edited);
            Ok(())
        },
        "line 0",
    ),
];

#[test]
fn edited_ledger_is_caught() {
    story(|scratch| {
        let mut chain = Chain::start(scratch, Plan::default())?;
        let whole = chain.keeper.ledger_lines()?;
        ensure!(chain.keeper.stop()?.success());
        for (what, edit, says) in REFUSED {
            let mut lines = whole.clone();
            edit(&mut lines).context(what)?;
            ensure!(lines != whole, "{what}: nothing was edited");
            write_ledger(&chain.keeper.ledger, &lines, true)?;
            let before = chain.keeper.log().len();
            chain.keeper.spawn()?;
            let status = chain.keeper.wait_for_end(SOON)?;
            ensure!(status.code() == Some(EXIT_LEDGER), "{what}: the keeper ended with {status}");
            let log = chain.keeper.log();
            ensure!(log[before..].contains(says), "{what}: it says {}", &log[before..]);
            ensure!(chain.served_serial()? == 1, "{what}");
        }
        // Not renumbered, not canonical, cut within a line: a file that no keeper writes.
        let mut lines = whole.clone();
        lines.remove(3);
        write_ledger(&chain.keeper.ledger, &lines, false)?;
        chain.keeper.spawn()?;
        ensure!(chain.keeper.wait_for_end(SOON)?.code() == Some(EXIT_LEDGER));

        write_ledger(&chain.keeper.ledger, &whole, true)?;
        chain.keeper.start()?;
        chain.change_zone(&zones::example_with(2, "added"))?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.verify_served()
    });
}

/// Lines that need nobody's signature: the tree's root tells, on the tokens, in the kept checkpoint, and on
/// the machine of every officer who has looked.
#[test]
fn an_edit_that_needs_nobodys_signature_is_caught_by_those_who_remember() {
    story(|scratch| {
        let mut chain = Chain::start(scratch, Plan::default())?;
        // A KSK is used once more, which seals the ledger as it is, and the auditor looks.
        let another = ["generate-key", "--zone", "example.", "--role", "ksk"];
        chain.officers.carry(&chain.keeper, &another)?;
        chain.officers.ok("audrey", &["audit", "log"])?;
        let whole = chain.keeper.ledger_lines()?;
        ensure!(chain.keeper.stop()?.success());

        let mut lines = whole.clone();
        // Each proposal and verdict names the tree that its signer has seen: only what comes after the
        // last of them is nobody's.
        let at = *places(&lines, "intent").last().context("an intent")?;
        lines[at]["entry"]["operation"]["nonce"] = json!("5a".repeat(16));
        write_ledger(&chain.keeper.ledger, &lines, true)?;
        chain.keeper.start()?;
        no_key_is_used(&mut chain, 2)?;
        let looked = chain.officers.cli("audrey", &["audit", "log"])?;
        let refused = looked.status.code() == Some(EXIT_UNSOUND);
        ensure!(refused && looked.stderr.contains("no part of it"), "{looked:?}");

        ensure!(chain.keeper.stop()?.success());
        write_ledger(&chain.keeper.ledger, &whole, true)?;
        chain.keeper.start()?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.officers.ok("audrey", &["audit", "log"])?;
        chain.verify_served()
    });
}

/// The daemon has an alarm on a new version, and the one that was there stays up.
fn no_key_is_used(chain: &mut Chain<'_>, serial: u32) -> Result<()> {
    chain.change_zone(&zones::example_with(serial, "added"))?;
    let reason = until("an alarm", SOON, || chain.daemon.alarm(&["signing-failed"]))?;
    ensure!(chain.served_serial()? == serial - 1, "{reason}");
    let log = chain.keeper.log();
    ensure!(log.contains("nothing is signed"), "{log}");
    chain.verify_served()
}
