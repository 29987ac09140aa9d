//! The disk of the daemon is full: no new version goes out half-written, the last one stays up,
//! and the next one goes out when there is room again.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::pki::Authority;
use softhsm_tests::tools::{run_ok, tool};
use softhsm_tests::users::{User, give, is_root};
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::{story, zones};

/// A file system of its own, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, size: &str) -> Result<Self> {
        let options = format!("size={size},mode=0700");
        let mut mount = Command::new(tool("mount")?);
        run_ok(mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at))?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Ok(umount) = tool("umount") {
            drop(Command::new(umount).arg("--lazy").arg(&self.0).status());
        }
    }
}

#[test]
fn a_full_disk_keeps_the_last_version() {
    if !is_root() {
        eprintln!("not root: no small file system can be mounted, so there is no disk to fill");
        return;
    }
    story(|scratch| {
        let mut chain = Chain::prepare(scratch, Plan::default(), Authority::new(scratch, "ca")?)?;
        let disk = Small::mount(&chain.daemon.state_dir, "8m")?;
        give(&disk.0, User::Daemon, 0o700)?;
        chain.start_all()?;
        chain.wait_for_secondary("a first version", |_| true)?;

        let ballast = disk.0.join("ballast");
        fill(&ballast)?;
        chain.change_zone(&zones::hosts(2, 300))?;
        until("an alarm", SOON, || chain.daemon.alarm(&["store-failed"]))?;
        ensure!(chain.served_serial()? == 1 && chain.daemon.serial()? == 1);
        chain.daemon.kill_nine()?;
        chain.daemon.start()?;
        until("the zone after a restart on a full disk", SOON, || chain.daemon.serial())?;
        ensure!(chain.daemon.serial()? == 1);
        chain.verify_served()?;

        std::fs::remove_file(&ballast)?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.verify_served()
    });
}

fn fill(path: &Path) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    // Ever smaller pieces, so that not a block is left.
    for piece in [65_536, 4_096, 512, 1] {
        while file.write_all(&vec![0; piece]).is_ok() {}
    }
    Ok(())
}
