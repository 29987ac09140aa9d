//! Who runs what. As root the keeper and the daemon are two users, as in production; without
//! root everything is one user, and the stories that need two say so and check what is left.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tools::tool;

/// Who a process runs as, or whom a file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Whoever runs the tests; also BIND, NSD and unbound.
    Harness,
    /// The keeper's.
    Keeper,
    /// The daemon's.
    Daemon,
    /// Someone else on the box, in no group of ours.
    Stranger,
}

/// The group that keeper, daemon and the box's operators share. Numbers need no entry in
/// /etc/passwd, and these lie outside the ranges that Debian hands out (up to 60000).
pub const SHARED_GID: u32 = 64_100;

impl User {
    /// Uid (the gid is the same number), if it differs from the harness's own.
    pub fn uid(self) -> Option<u32> {
        if !is_root() {
            return None;
        }
        match self {
            Self::Harness => None,
            Self::Keeper => Some(64_101),
            Self::Daemon => Some(64_102),
            Self::Stranger => Some(64_103),
        }
    }

    /// What a configuration file calls this user: the number.
    pub fn number(self) -> u32 {
        self.uid().unwrap_or_else(|| nix::unistd::Uid::effective().as_raw())
    }
}

/// What a configuration file calls the shared group: the number.
pub fn shared_group() -> u32 {
    if is_root() { SHARED_GID } else { nix::unistd::Gid::effective().as_raw() }
}

/// Whether the harness may change users.
pub fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// A command that runs `program` as `user` and dies with the thread that started it, so that a
/// killed test run leaves no daemon behind. It inherits nothing but PATH.
pub fn command(user: User, program: &Path) -> Result<Command> {
    let mut command = Command::new(tool("setpriv")?);
    command.args(["--pdeathsig", "KILL", "--no-new-privs"]);
    if let Some(uid) = user.uid() {
        command.args(["--reuid", &uid.to_string(), "--regid", &uid.to_string()]);
        if user == User::Stranger {
            command.arg("--clear-groups");
        } else {
            command.args(["--groups", &SHARED_GID.to_string()]);
        }
        command.args(["--bounding-set", "-all"]);
    }
    command.arg("--").arg(program);
    command.env_clear();
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.current_dir("/");
    Ok(command)
}

/// Gives `path` to `user` with `mode`.
pub fn give(path: &Path, user: User, mode: u32) -> Result<()> {
    if let Some(uid) = user.uid() {
        std::os::unix::fs::chown(path, Some(uid), Some(uid))
            .with_context(|| format!("chown {}", path.display()))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("chmod {}", path.display()))
}

/// A directory of this user's that outlives a story and that other users can enter: port locks
/// and copied binaries.
pub fn shared_dir() -> Result<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let uid = nix::unistd::Uid::effective().as_raw();
    let dir = std::env::temp_dir().join(format!("countersign-bed-{uid}"));
    match std::fs::create_dir(&dir) {
        Ok(()) => std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755))?,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e).with_context(|| dir.display().to_string()),
    }
    let found = std::fs::symlink_metadata(&dir)?;
    if !found.is_dir() || found.uid() != uid {
        bail!("{} is not a directory of uid {uid}: remove it", dir.display());
    }
    Ok(dir)
}
