//! The disk of the daemon is full: no new version goes out half-written, the last one stays up,
//! and the next one goes out when there is room again.

use anyhow::ensure;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::disk::SmallDisk;
use softhsm_tests::pki::Authority;
use softhsm_tests::users::{User, is_root};
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::{story, zones};

#[test]
fn a_full_disk_keeps_the_last_version() {
    if !is_root() {
        eprintln!("not root: no small file system can be mounted, so there is no disk to fill");
        return;
    }
    story(|scratch| {
        let mut chain = Chain::prepare(scratch, Plan::default(), Authority::new(scratch, "ca")?)?;
        let disk = SmallDisk::mount(&chain.daemon.state_dir, "8m", User::Daemon)?;
        chain.start_all()?;
        chain.wait_for_secondary("a first version", |_| true)?;

        disk.fill()?;
        chain.change_zone(&zones::hosts(2, 300))?;
        until("an alarm", SOON, || chain.daemon.alarm(&["store-failed"]))?;
        ensure!(chain.served_serial()? == 1 && chain.daemon.serial()? == 1);
        chain.daemon.kill_nine()?;
        chain.daemon.start()?;
        until("the zone after a restart on a full disk", SOON, || chain.daemon.serial())?;
        ensure!(chain.daemon.serial()? == 1);
        chain.verify_served()?;

        disk.free()?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.verify_served()
    });
}
