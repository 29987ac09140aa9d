//! Where PINs come from: a file that only the keeper can read, or a systemd credential. Never
//! argv, never the environment. A PIN is zeroed when it is dropped and shows in no log, panic or
//! `Debug` text.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cryptoki::types::RawAuthPin;
use zeroize::Zeroizing;

/// Octets of a PIN: `CK_TOKEN_INFO`'s `ulMaxPinLen` is 255 in SoftHSM and less in most HSMs.
const PIN_BYTES_MAX: usize = 255;

/// Where the PIN of a token is read from, each time that it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinSource {
    /// A file owned by us or root that group and others can't read.
    File(PathBuf),
    /// A systemd credential by name: a file in `$CREDENTIALS_DIRECTORY`. systemd guards it (by mode
    /// or by ACL, which shows as group bits), so its mode is not judged here.
    Credential(String),
}

/// What tells whether a PIN file was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileStamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) mtime_s: i64,
    pub(super) mtime_ns: i64,
}

/// A PIN and the file that it was read from.
pub(super) struct Pin {
    secret: Zeroizing<Vec<u8>>,
    pub(super) stamp: FileStamp,
    pub(super) from_credential: bool,
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(redacted)")
    }
}

impl PinSource {
    fn path(&self) -> Result<PathBuf, String> {
        match self {
            Self::File(path) => Ok(path.clone()),
            Self::Credential(name) => {
                if name.is_empty() || name.contains('/') || name.starts_with('.') {
                    return Err(format!("credential name {name:?} is not a plain file name"));
                }
                let directory = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                    format!(
                        "credential `{name}`: $CREDENTIALS_DIRECTORY is not set. hint: add \
                         LoadCredential={name}:… to the keeper's unit"
                    )
                })?;
                Ok(Path::new(&directory).join(name))
            }
        }
    }

    /// The file's stamp as it is now; `None` while it can't be looked at.
    pub(super) fn stamp(&self) -> Option<FileStamp> {
        let metadata = std::fs::metadata(self.path().ok()?).ok()?;
        Some(FileStamp::of(&metadata))
    }

    /// Reads the PIN. The checks are made on the open file, so that it can't be swapped between.
    pub(super) fn read(&self) -> Result<Pin, String> {
        let path = self.path()?;
        let problem = |text: String| format!("PIN file {}: {text}", path.display());
        let file = File::open(&path).map_err(|e| problem(e.to_string()))?;
        let metadata = file.metadata().map_err(|e| problem(e.to_string()))?;
        if !metadata.is_file() {
            return Err(problem("is not a regular file".to_owned()));
        }
        let from_credential = matches!(self, Self::Credential(_));
        if !from_credential {
            check_guarded(&metadata).map_err(problem)?;
        }
        // One allocation of the final size: growing would leave copies behind.
        let mut secret = Zeroizing::new(Vec::with_capacity(PIN_BYTES_MAX + 2));
        let limit = PIN_BYTES_MAX as u64 + 2;
        file.take(limit).read_to_end(&mut secret).map_err(|e| problem(e.to_string()))?;
        if secret.last() == Some(&b'\n') {
            secret.pop();
            if secret.last() == Some(&b'\r') {
                secret.pop();
            }
        }
        if secret.is_empty() || secret.len() > PIN_BYTES_MAX {
            return Err(problem(format!("expected 1 to {PIN_BYTES_MAX} octets and a newline")));
        }
        Ok(Pin { secret, stamp: FileStamp::of(&metadata), from_credential })
    }
}

impl FileStamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            mtime_s: metadata.mtime(),
            mtime_ns: metadata.mtime_nsec(),
        }
    }
}

fn check_guarded(metadata: &std::fs::Metadata) -> Result<(), String> {
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own && metadata.uid() != 0 {
        return Err(format!(
            "belongs to uid {}, expected uid {own} (the keeper's) or 0. hint: chown it",
            metadata.uid()
        ));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(format!(
            "has mode {:04o}, group or others can reach it. hint: chmod 0400",
            metadata.mode() & 0o7777
        ));
    }
    Ok(())
}

impl Pin {
    /// In the form that cryptoki takes; it zeroes itself too.
    pub(super) fn to_auth(&self) -> RawAuthPin {
        RawAuthPin::new(Box::new(self.secret.to_vec()))
    }

    /// The secret, for [`super::marker`]'s slow digest alone.
    pub(super) fn expose(&self) -> &[u8] {
        &self.secret
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PinSource) {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("pin");
        std::fs::write(&path, content).expect("write");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("mode");
        (directory, PinSource::File(path))
    }

    #[test]
    fn one_newline_is_trimmed_and_nothing_shows() {
        for content in [&b"12 34\n"[..], b"12 34", b"12 34\r\n"] {
            let (_directory, source) = file(content, 0o400);
            let pin = source.read().expect("pin");
            assert_eq!(pin.expose(), b"12 34");
            assert_eq!(format!("{pin:?}"), "Pin(redacted)");
            assert_eq!(source.stamp(), Some(pin.stamp));
        }
    }

    #[test]
    fn what_others_can_reach_or_is_no_pin_is_refused() {
        for (content, mode, expect) in [
            (&b"1234"[..], 0o440, "mode 0440"),
            (b"1234", 0o604, "mode 0604"),
            (b"\n", 0o400, "expected 1 to 255 octets"),
            (&[b'1'; 300], 0o400, "expected 1 to 255 octets"),
        ] {
            let (_directory, source) = file(content, mode);
            let problem = source.read().expect_err(expect);
            assert!(problem.contains(expect), "{problem}");
            assert!(!problem.contains("1234"), "{problem}");
        }
        let problem = PinSource::Credential("../pin".to_owned()).read().expect_err("path");
        assert!(problem.contains("not a plain file name"));
    }
}
