//! No log, no key operation: while the ledger can't be written, because its disk is full or can only be
//! read, no KSK is made or used and no motion taken; zones are signed and served.

use anyhow::{Result, ensure};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::disk::SmallDisk;
use softhsm_tests::pki::Authority;
use softhsm_tests::story;
use softhsm_tests::thief::{keys, now, signs_dnskey};
use softhsm_tests::users::{User, is_root};
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};

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
        no_ksk_and_every_zsk(&mut chain, "full", 2)?;
        disk.free()?;
        all_goes_on(&chain)?;

        // A disk that comes up read-only, as a damaged one does.
        ensure!(chain.keeper.stop()?.success());
        disk.remount("ro")?;
        chain.keeper.start()?;
        no_ksk_and_every_zsk(&mut chain, "read-only", 3)?;
        disk.remount("rw")?;
        all_goes_on(&chain)?;

        // Nothing half-written is left.
        ensure!(chain.keeper.stop()?.success());
        chain.keeper.start()?;
        chain.officers.ok("audrey", &["audit", "log"]).map(drop)
    });
}

fn no_ksk_and_every_zsk(chain: &mut Chain<'_>, disk: &str, serial: u32) -> Result<()> {
    let ours = keys(&chain.keeper, ZONE)?;
    let answer = signs_dnskey(&chain.keeper, &ours, now()?)?;
    ensure!(answer.is_err(), "{disk}: a KSK was used without a log");
    let refused = chain.officers.cli("op", &[&["propose"], &ANOTHER_KSK[..]].concat())?;
    ensure!(!refused.status.success(), "{disk}: {refused:?}");
    let frozen = chain.officers.cli("audrey", &["freeze", "--reason", "what is going on?"])?;
    ensure!(!frozen.status.success(), "{disk}: {frozen:?}");
    chain.change_zone(&zones::example_with(serial, "added"))?;
    chain.wait_for_secondary(&format!("serial {serial}, {disk}"), |served| served == serial)?;
    chain.verify_served()
}

fn all_goes_on(chain: &Chain<'_>) -> Result<()> {
    until("the KSK's use again", SOON, || {
        let answer = signs_dnskey(&chain.keeper, &keys(&chain.keeper, ZONE)?, now()?)?;
        ensure!(answer == Ok(()), "{answer:?}");
        Ok(())
    })?;
    chain.officers.carry(&chain.keeper, &ANOTHER_KSK).map(drop)
}
