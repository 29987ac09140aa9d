//! A small disk under a directory: it can be filled, and made read-only. It takes root to mount one.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::tools::{run_ok, tool};
use crate::users::{User, give};

/// A file system of its own, unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of `size`, as mount(8) reads it, over the directory `at`, for `owner` alone.
    pub fn mount(at: &Path, size: &str, owner: User) -> Result<Self> {
        let options = format!("size={size},mode=0700");
        let mut mount = Command::new(tool("mount")?);
        run_ok(mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at))?;
        let disk = Self(at.to_owned());
        give(at, owner, 0o700)?;
        Ok(disk)
    }

    /// Leaves not a block on it.
    pub fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::create(self.ballast())?;
        // Ever smaller pieces.
        for piece in [65_536, 4_096, 512, 1] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
        Ok(())
    }

    /// Takes away what filled it.
    pub fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }

    /// `ro` or `rw`. Nothing on it may be open for writing.
    pub fn remount(&self, option: &str) -> Result<()> {
        let mut mount = Command::new(tool("mount")?);
        run_ok(mount.args(["-o", &format!("remount,{option}")]).arg(&self.0)).map(drop)
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Ok(umount) = tool("umount") {
            drop(Command::new(umount).arg("--lazy").arg(&self.0).status());
        }
    }
}
