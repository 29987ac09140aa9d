//! Secrets from files: one line of Base64, readable by the daemon alone.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use countersign_policy::ZoneName;
use data_encoding::BASE64;
use zeroize::Zeroizing;

use super::key::{Algorithm, Key, KeyError};

/// The longest secret that is of any use is a block of SHA-512: 128 octets, 172 of Base64. Room for
/// four of them: longer ones are hashed first.
const FILE_BYTES_MAX: usize = 1024;
/// What others and the group must not have on the file: only its owner writes it, and only its owner and
/// one group read it (as with the TLS key).
const MODE_FORBIDDEN: u32 = 0o037;

/// Why a file holds no key. None of these shows what is in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Not readable.
    #[error("{path}: cannot be read: {error}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A folder, a pipe.
    #[error("{path}: is not a regular file", path = .path.display())]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// Others can read or change the secret.
    #[error("{path}: mode {mode:04o} lets others read or change the secret. hint: chmod 0600 {path}", path = .path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not the one line expected.
    #[error(
        "{path}: {found}; expected the secret in Base64, on one line and nothing else. hint: \
         make one with: openssl rand -base64 32 (of a key statement for BIND, take what stands in quotes behind `secret`)",
        path = .path.display()
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: &'static str,
    },
    /// A secret that can be guessed.
    #[error("{path}: {error}", path = .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        error: KeyError,
    },
}

/// Reads the secret of a key. The checks are made on the open file.
pub fn load(path: &Path, name: ZoneName, algorithm: Algorithm) -> Result<Key, KeyFileError> {
    let failed = |error| KeyFileError::Read { path: path.to_owned(), error };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(KeyFileError::NotAFile { path: path.to_owned() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & MODE_FORBIDDEN != 0 {
        return Err(KeyFileError::Mode { path: path.to_owned(), mode });
    }
    // One allocation of the final size: growing would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX + 1));
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut text).map_err(failed)?;
    let secret =
        secret_of(&text).map_err(|found| KeyFileError::Form { path: path.to_owned(), found })?;
    Key::new(name, algorithm, &secret)
        .map_err(|error| KeyFileError::Key { path: path.to_owned(), error })
}

fn secret_of(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    if text.len() > FILE_BYTES_MAX {
        return Err("more than a kilobyte");
    }
    let line = text.strip_suffix(b"\n").unwrap_or(text);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err("nothing in it");
    }
    let len = BASE64.decode_len(line.len()).map_err(|_| "not Base64")?;
    let mut secret = Zeroizing::new(vec![0; len]);
    let len = BASE64.decode_mut(line, &mut secret).map_err(|_| "not Base64")?;
    secret.truncate(len);
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn check(content: &str, mode: u32, expect: Result<(), &str>) {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("key");
        std::fs::write(&path, content).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("mode");
        let name = "key.test.".parse().expect("name");
        match (load(&path, name, Algorithm::HmacSha256), expect) {
            (Ok(key), Ok(())) => assert_eq!(format!("{key:?}"), "Key(key.test. hmac-sha256)"),
            (Err(error), Err(text)) => {
                let shown = format!("{error} {error:?}");
                assert!(shown.contains(text), "{shown}, expected {text}");
                // What cannot be read might still be most of a secret.
                assert!(content.trim().is_empty() || !shown.contains(content.trim()), "{shown}");
            }
            (found, expect) => panic!("{found:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn one_line_that_others_cannot_read() {
        let good = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        check(&format!("{good}\n"), 0o600, Ok(()));
        check(good, 0o440, Ok(()));
        check(&format!("{good}\r\n"), 0o400, Ok(()));
        for mode in [0o644, 0o604, 0o620, 0o666] {
            check(good, mode, Err("lets others read or change the secret. hint: chmod 0600"));
        }
        check("", 0o600, Err("nothing in it"));
        check(&format!("{good}\n{good}\n"), 0o600, Err("not Base64"));
        check("key \"a\" { algorithm hmac-sha256; };", 0o600, Err("openssl rand -base64 32"));
        check(&"A".repeat(2048), 0o600, Err("more than a kilobyte"));
        check("c2hvcnQgc2VjcmV0IQ==", 0o600, Err("13 octets, at least 16 expected"));
    }

    #[test]
    fn a_folder_is_no_key() {
        let directory = tempfile::tempdir().expect("directory");
        let name = "key.test.".parse().expect("name");
        let refused = load(directory.path(), name, Algorithm::HmacSha256).expect_err("a folder");
        assert!(refused.to_string().contains("not a regular file"), "{refused}");
    }
}
