//! The bundle: a ledger and its seal in one file, for auditors and for backups.
//!
//! ```text
//! countersign bundle v1 NOTE_BYTES LINES
//! the newest checkpoint, NOTE_BYTES octets
//! the ledger's lines, LINES of them, each with its newline
//! ```
//!
//! Nothing follows. Lines behind those that the checkpoint counts are possible (an HSM that did not
//! answer when the backup was made); whoever verifies is told so.

use std::io::{BufRead, Read as _, Write};

use countersign_policy::checkpoint::NOTE_BYTES_MAX;
use countersign_policy::ledger::LINE_BYTES_MAX;

/// The first line holds two numbers of at most 20 digits.
const HEAD_BYTES_MAX: u64 = 80;
const MAGIC: &str = "countersign bundle v1 ";

/// What is wrong with a bundle as a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum BundleError {
    /// Another file.
    #[error("is no bundle: expected the first line `countersign bundle v1 NOTE_BYTES LINES`")]
    Head,
    /// A checkpoint of impossible size.
    #[error("says that its checkpoint has {0} octets; expected 1 to {NOTE_BYTES_MAX}")]
    NoteBytes(u64),
    /// It ends within the checkpoint.
    #[error("ends within its checkpoint: it was cut short")]
    NoteCut,
    /// The checkpoint is not a text.
    #[error("has a checkpoint that is not a text")]
    NoteText,
    /// It ends too early.
    #[error("ends within line {at}, of {lines}: it was cut short")]
    Cut {
        /// The line, from 0.
        at: u64,
        /// How many there should be.
        lines: u64,
    },
    /// A line that no keeper writes.
    #[error("has a line {0} of more than {LINE_BYTES_MAX} octets")]
    LineTooLong(u64),
    /// It goes on.
    #[error("goes on behind its last line, {0}")]
    Trailing(u64),
    /// The file can't be read.
    #[error("can't be read: {0}")]
    Io(#[from] std::io::Error),
}

/// A bundle that is being read.
#[derive(Debug)]
pub(super) struct Bundle<R> {
    /// The checkpoint, as it is there.
    pub(super) note: String,
    /// How many lines there are.
    pub(super) lines: u64,
    reader: R,
    at: u64,
}

impl<R: BufRead> Bundle<R> {
    /// Reads up to the first line of the ledger.
    pub(super) fn open(mut reader: R) -> Result<Self, BundleError> {
        let mut head = Vec::new();
        reader.by_ref().take(HEAD_BYTES_MAX).read_until(b'\n', &mut head)?;
        let head = std::str::from_utf8(&head).map_err(|_| BundleError::Head)?;
        let numbers = head.strip_suffix('\n').and_then(|head| head.strip_prefix(MAGIC));
        let (note, lines) = numbers.and_then(|n| n.split_once(' ')).ok_or(BundleError::Head)?;
        let (note, lines) = (number(note)?, number(lines)?);
        if note == 0 || note > NOTE_BYTES_MAX as u64 {
            return Err(BundleError::NoteBytes(note));
        }
        let mut octets = Vec::new();
        reader.by_ref().take(note).read_to_end(&mut octets)?;
        if octets.len() as u64 != note {
            return Err(BundleError::NoteCut);
        }
        let note = String::from_utf8(octets).map_err(|_| BundleError::NoteText)?;
        Ok(Self { note, lines, reader, at: 0 })
    }

    fn read_line(&mut self) -> Result<Option<Vec<u8>>, BundleError> {
        if self.at == self.lines {
            let mut more = [0];
            return match self.reader.read(&mut more)? {
                0 => Ok(None),
                _ => Err(BundleError::Trailing(self.lines.saturating_sub(1))),
            };
        }
        let mut line = Vec::new();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return Err(if read as u64 == limit {
                BundleError::LineTooLong(self.at)
            } else {
                BundleError::Cut { at: self.at, lines: self.lines }
            });
        }
        self.at += 1;
        Ok(Some(line))
    }
}

/// The lines, without newlines; that nothing follows the last is seen by asking once more.
impl<R: BufRead> Iterator for Bundle<R> {
    type Item = Result<Vec<u8>, BundleError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_line().transpose()
    }
}

fn number(text: &str) -> Result<u64, BundleError> {
    let number: u64 = text.parse().map_err(|_| BundleError::Head)?;
    // One number has one spelling: no sign, no leading zero.
    if number.to_string() == text { Ok(number) } else { Err(BundleError::Head) }
}

/// Writes a bundle of so many lines.
pub(super) fn write<E>(
    out: &mut dyn Write,
    note: &str,
    count: u64,
    lines: impl Iterator<Item = Result<Vec<u8>, E>>,
) -> Result<(), WriteError<E>> {
    write!(out, "{MAGIC}{} {count}\n{note}", note.len()).map_err(WriteError::Write)?;
    for line in lines {
        let mut line = line.map_err(WriteError::Read)?;
        line.push(b'\n');
        out.write_all(&line).map_err(WriteError::Write)?;
    }
    Ok(())
}

/// Why a bundle was not written.
#[derive(Debug)]
pub(super) enum WriteError<E> {
    /// Its lines could not be read.
    Read(E),
    /// The file could not be written.
    Write(std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTE: &str = "a\n1\n";

    fn made(lines: &[&str]) -> Vec<u8> {
        let mut octets = Vec::new();
        let source = lines.iter().map(|line| Ok::<_, ()>(line.as_bytes().to_vec()));
        write(&mut octets, NOTE, lines.len() as u64, source).expect("written");
        octets
    }

    fn read(octets: &[u8]) -> Result<(String, Vec<Vec<u8>>), BundleError> {
        let mut bundle = Bundle::open(octets)?;
        let lines: Result<Vec<_>, _> = bundle.by_ref().collect();
        Ok((bundle.note.clone(), lines?))
    }

    #[test]
    fn what_is_written_is_read() {
        let octets = made(&["one", "", "three"]);
        let (note, lines) = read(&octets).expect("a bundle");
        assert_eq!(note, NOTE);
        assert_eq!(lines, [&b"one"[..], b"", b"three"]);
    }

    #[test]
    fn one_that_is_cut_anywhere_is_refused() {
        let octets = made(&["one", "two"]);
        for end in 0..octets.len() {
            let refused = read(&octets[..end]).expect_err("it is cut").to_string();
            assert!(
                refused.contains("cut short") || refused.contains("no bundle"),
                "{end}: {refused}"
            );
        }
    }

    #[test]
    fn one_that_goes_on_is_refused() {
        let longer = [&made(&["one"])[..], b"x"].concat();
        assert!(matches!(read(&longer), Err(BundleError::Trailing(0))));
    }

    #[test]
    fn what_is_no_bundle_is_refused() {
        for text in [
            "",
            "countersign bundle v2 4 0\na\n1\n",
            "countersign bundle v1 4\na\n1\n",
            "countersign bundle v1 04 0\na\n1\n",
            "countersign bundle v1 +4 0\na\n1\n",
            "countersign bundle v1 4 0 \na\n1\n",
        ] {
            assert!(matches!(read(text.as_bytes()), Err(BundleError::Head)), "{text:?}");
        }
        for bytes in ["0", "1025", "18446744073709551615"] {
            let text = format!("countersign bundle v1 {bytes} 0\n");
            assert!(matches!(read(text.as_bytes()), Err(BundleError::NoteBytes(_))), "{text:?}");
        }
    }
}
