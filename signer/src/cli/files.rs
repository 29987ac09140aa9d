//! Files that the commands read and write: reads have a bound, and a file is there whole or not at
//! all. What is written goes to a temporary name beside its place and is moved there when the disk
//! has it, so that Ctrl-C, a crash or a full disk leaves what was there before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use super::end::Stop;

/// Whether a file may be in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// It is replaced.
    Replace,
    /// It stays, and nothing is written.
    Keep,
}

/// Reads a text of at most `bytes_max` octets.
pub(super) fn read_text(path: &Path, bytes_max: usize) -> Result<String, Stop> {
    let failed = |problem: String| Stop::failed(format!("{}: {problem}", path.display()));
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut octets = Vec::new();
    let limit = bytes_max as u64 + 1;
    file.take(limit).read_to_end(&mut octets).map_err(|error| failed(error.to_string()))?;
    if octets.len() > bytes_max {
        return Err(failed(format!("longer than {bytes_max} octets; is it the right file?")));
    }
    String::from_utf8(octets).map_err(|_| failed("is not a text (UTF-8)".to_owned()))
}

/// Writes a file through `fill`: whole, or not at all. It gets mode 0600 with `private`, else 0644
/// less the umask.
pub(super) fn write_whole(
    path: &Path,
    existing: Existing,
    private: bool,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut unfinished = Unfinished::new(path, private)?;
    fill(&mut unfinished.file)?;
    unfinished.put(existing)
}

/// A file that is being written beside its place; dropped, it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Unfinished {
    /// What is written to.
    pub file: File,
    temporary: PathBuf,
    path: PathBuf,
}

impl Unfinished {
    /// Begins the file that is to be at `path`.
    pub(super) fn new(path: &Path, private: bool) -> io::Result<Self> {
        let temporary = beside(path)?;
        let mode = if private { 0o600 } else { 0o644 };
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        Ok(Self { file, temporary, path: path.to_owned() })
    }

    /// Moves it to its place.
    pub(super) fn put(self, existing: Existing) -> io::Result<()> {
        self.file.sync_all()?;
        put(&self.temporary, &self.path, existing)?;
        File::open(folder(&self.path))?.sync_all()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It may be in its place already; whatever is left at the temporary name is of no use.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// [`write_whole`] of a text; errors name the file and what to do.
pub(super) fn write_text(path: &Path, existing: Existing, text: &str) -> Result<(), Stop> {
    write_whole(path, existing, false, |file| file.write_all(text.as_bytes()))
        .map_err(|error| cannot_write(path, &error))
}

/// What a person is told who wanted a file written.
pub(super) fn cannot_write(path: &Path, error: &io::Error) -> Stop {
    let hint = if error.kind() == io::ErrorKind::AlreadyExists {
        "; nothing was written. hint: it is never replaced: move it away, or name another file"
    } else {
        ""
    };
    Stop::failed(format!("can't write {}: {error}{hint}", path.display()))
}

/// `path` with something behind its last name: `text` and `alice.sig` make `text.alice.sig`.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn put(temporary: &Path, path: &Path, existing: Existing) -> io::Result<()> {
    match existing {
        Existing::Replace => fs::rename(temporary, path),
        Existing::Keep => {
            let moved =
                rustix::fs::renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE);
            match moved {
                // A file system that knows no such move makes the name once, too, by a link.
                Err(rustix::io::Errno::INVAL) => {
                    fs::hard_link(temporary, path)?;
                    fs::remove_file(temporary)
                }
                moved => Ok(moved?),
            }
        }
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{:08x}.tmp", rand::random::<u32>()));
    Ok(folder(path).join(temporary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_not_there() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a");
        let full = write_whole(&path, Existing::Replace, true, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("the disk is full"))
        });
        assert!(full.is_err());
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 0);
    }

    #[test]
    fn what_is_there_is_kept_if_it_is_to_be_kept() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a");
        write_text(&path, Existing::Keep, "one").expect("written");
        let Err(Stop::Said { text, .. }) = write_text(&path, Existing::Keep, "two") else {
            panic!("it was replaced");
        };
        assert!(text.contains("never replaced"), "{text}");
        assert_eq!(fs::read_to_string(&path).expect("there"), "one");
        write_text(&path, Existing::Replace, "three").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), "three");
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 1);
    }

    #[test]
    fn reads_have_a_bound() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a");
        fs::write(&path, "12345").expect("written");
        assert_eq!(read_text(&path, 5).expect("fits"), "12345");
        assert!(read_text(&path, 4).is_err());
        assert!(read_text(Path::new("/dev/zero"), 100).is_err(), "and ends");
    }
}
