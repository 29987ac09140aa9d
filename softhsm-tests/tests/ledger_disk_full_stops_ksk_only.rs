//! No log, no key operation: while the ledger can't be written because its disk is full, no KSK is made
//! or used and no motion taken; zones are signed and served.

use anyhow::{Result, ensure};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::disk::SmallDisk;
use softhsm_tests::pki::Authority;
use softhsm_tests::story;
use softhsm_tests::thief::{keys, now, signs_dnskey};
use softhsm_tests::users::{User, is_root};
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};

/// How the keeper ends that can't open its ledger.
const EXIT_LEDGER: i32 = 4;
/// A use of a KSK is two lines, of some hundred octets each, and a block has 4096.
const LINES_IN_A_BLOCK_MAX: usize = 20;
const ANOTHER_KSK: [&str; 5] = ["generate-key", "--zone", ZONE, "--role", "ksk"];

#[test]
fn ledger_disk_full_stops_ksk_only() {
    if !is_root() {
        eprintln!("not root: no small file system can be mounted, so there is no disk to fill");
        return;
    }
    story(|scratch| {
        let mut chain = Chain::prepare(scratch, Plan::default(), Authority::new(scratch, "ca")?)?;
        let disk = SmallDisk::mount(&chain.keeper.state, "4m", User::Keeper)?;
        chain.start_all()?;
        chain.wait_for_secondary("a first version", |_| true)?;
        ensure!(signs_dnskey(&chain.keeper, &keys(&chain.keeper, ZONE)?, now()?)? == Ok(()));

        disk.fill()?;
        no_ksk_and_every_zsk(&mut chain, 2)?;
        disk.free()?;
        all_goes_on(&chain)?;

        // On a disk that comes up read-only, as a damaged one does, the keeper does not come up, and says
        // why; what was published stays up.
        ensure!(chain.keeper.stop()?.success());
        disk.remount("ro")?;
        chain.keeper.spawn()?;
        let status = chain.keeper.wait_for_end(SOON)?;
        ensure!(status.code() == Some(EXIT_LEDGER), "the keeper ended with {status}");
        ensure!(chain.keeper.log().contains("Read-only file system"), "{}", chain.keeper.log());
        ensure!(chain.served_serial()? == 2);
        disk.remount("rw")?;
        chain.keeper.start()?;
        all_goes_on(&chain)?;

        // Nothing half-written is left.
        ensure!(chain.keeper.stop()?.success());
        chain.keeper.start()?;
        chain.officers.ok("audrey", &["audit", "log"]).map(drop)
    });
}

fn no_ksk_and_every_zsk(chain: &mut Chain<'_>, serial: u32) -> Result<()> {
    let ours = keys(&chain.keeper, ZONE)?;
    // What is left of the ledger's last block takes a few lines more: each use until then is in them.
    let (before, mut uses) = (intents(chain)?, 0);
    while signs_dnskey(&chain.keeper, &ours, now()?)? == Ok(()) {
        uses += 1;
        ensure!(uses <= LINES_IN_A_BLOCK_MAX, "a KSK is used without a log");
    }
    ensure!(intents(chain)? >= before + uses, "of {uses} uses some are not on record");
    let refused = chain.officers.cli("op", &[&["propose"], &ANOTHER_KSK[..]].concat())?;
    ensure!(!refused.status.success(), "{refused:?}");
    let frozen = chain.officers.cli("audrey", &["freeze", "--reason", "what is going on?"])?;
    ensure!(!frozen.status.success(), "{frozen:?}");
    chain.change_zone(&zones::example_with(serial, "added"))?;
    chain.wait_for_secondary(&format!("serial {serial}"), |served| served == serial)?;
    chain.verify_served()
}

/// Uses of a KSK that the ledger holds.
fn intents(chain: &Chain<'_>) -> Result<usize> {
    let lines = chain.keeper.ledger_lines()?;
    Ok(lines.iter().filter(|line| line["entry"]["operation"]["verb"] == "sign-dnskey").count())
}

fn all_goes_on(chain: &Chain<'_>) -> Result<()> {
    until("the KSK's use again", SOON, || {
        let answer = signs_dnskey(&chain.keeper, &keys(&chain.keeper, ZONE)?, now()?)?;
        ensure!(answer == Ok(()), "{answer:?}");
        Ok(())
    })?;
    chain.officers.carry(&chain.keeper, &ANOTHER_KSK).map(drop)
}
