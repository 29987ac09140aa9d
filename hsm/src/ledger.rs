//! The ledger's file, and the only place where leave to use a KSK is made (invariants 3 and 4).
//!
//! `state_dir/ledger.jsonl` only ever grows. A line counts when it is on the disk; what the lines
//! amount to is [`LedgerState`], and an [`Authorised`] value is minted when that state allows the
//! operation *and* its intent is on the disk. Whoever holds one can use a key once, and what is left
//! of it is the duty to record how that ended.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use aws_lc_rs::digest;
use countersign_policy::founding::LabFounding;
use countersign_policy::ledger::{
    Entry, LINE_BYTES_MAX, LedgerError, LedgerState, Line, Operation, Outcome,
};
use countersign_policy::permit::Denied;

/// The ledger's file in the state directory.
pub const FILE_NAME: &str = "ledger.jsonl";

/// Leave to do one operation once: minted when its intent is durable in the ledger, consumed by
/// use. Neither `Clone` nor constructible outside this module.
#[derive(Debug)]
#[must_use = "an intent without an outcome stays open in the ledger"]
pub struct Authorised {
    intent: u64,
    operation: Operation,
}

impl Authorised {
    /// What may be done: verb, zone and keys.
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    /// Uses it up. Call it where the HSM is asked, whatever the HSM then answers.
    pub fn spend(self) -> Spent {
        Spent { intent: self.intent }
    }
}

/// What is left of an [`Authorised`] after its use: the duty to record how it ended.
#[derive(Debug)]
#[must_use = "an intent without an outcome stays open in the ledger"]
pub struct Spent {
    intent: u64,
}

impl Spent {
    /// The intent's line in the ledger.
    pub fn intent(&self) -> u64 {
        self.intent
    }
}

/// Why the ledger can't be used at all: the keeper does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or its directory can't be used.
    #[error("ledger {path}: {action}: {problem}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        problem: io::Error,
    },
    /// Another keeper has it.
    #[error(
        "ledger {0}: another keeper works in this state_dir. hint: stop it, or give each keeper a \
         state_dir of its own"
    )]
    Locked(PathBuf),
    /// A line is not what it should be.
    #[error(
        "ledger {path}: {problem}. hint: the file was changed by something else than the keeper; \
         restore it from a copy that is whole, never edit it"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, and what is wrong with it.
        problem: LedgerError,
    },
}

/// Why a line was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The rules forbid it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The line does not follow from those before it.
    #[error(transparent)]
    Contradiction(#[from] LedgerError),
    /// The file can't be written: no KSK is used until it can.
    #[error("the ledger can't be written: {0}. hint: free or repair the disk under state_dir")]
    Unavailable(String),
}

/// The ledger, shared by threads.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    book: Mutex<Book>,
    /// Apart from the file: who only looks never waits for a disk, so that zones are signed while
    /// one hangs. Changed by the holder of `book` alone.
    state: RwLock<LedgerState>,
}

#[derive(Debug)]
struct Book {
    file: File,
    directory: File,
    /// Where each line ends, its newline included.
    ends: Vec<u64>,
    /// SHA-256 of line 0, once there is one.
    first: Option<[u8; 32]>,
    /// A write failed: what is behind the last good line is cut off before the next.
    torn: bool,
    /// Results that could not be written yet; they go first. No intent is taken meanwhile, so there
    /// are never more than operations were under way when the disk failed.
    owed: VecDeque<(u64, Entry)>,
}

impl Ledger {
    /// Opens or creates the ledger in `state_dir`, locks it, and reads it whole. A last line without
    /// its newline was never acknowledged: it is cut off. Anything else that is wrong is an error.
    pub fn open(state_dir: &Path) -> Result<Self, OpenError> {
        let path = state_dir.join(FILE_NAME);
        let failed = |action| {
            let path = path.clone();
            move |problem| OpenError::Io { path, action, problem }
        };
        let directory = File::open(state_dir).map_err(failed("opening its directory"))?;
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("opening"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(OpenError::Locked(path)),
            Err(std::fs::TryLockError::Error(e)) => return Err(failed("locking")(e)),
        }
        let mut book = Book {
            file,
            directory,
            ends: Vec::new(),
            first: None,
            torn: false,
            owed: VecDeque::new(),
        };
        let mut state = LedgerState::default();
        book.load(&path, &mut state)?;
        book.directory.sync_all().map_err(failed("syncing its directory"))?;
        Ok(Self { path, book: Mutex::new(book), state: RwLock::new(state) })
    }

    /// Runs `look` on what the ledger amounts to.
    pub fn read<T>(&self, look: impl FnOnce(&LedgerState) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes a founding, if it may follow the one in force.
    pub fn found(&self, founding: LabFounding, now_s: u64) -> Result<u64, WriteError> {
        self.append(&mut self.book(), Entry::LabFounding { founding }, now_s)
    }

    /// Writes a line that neither gives leave nor ends an operation.
    pub fn note(&self, note: Note, now_s: u64) -> Result<u64, WriteError> {
        self.append(&mut self.book(), note.into(), now_s)
    }

    /// Judges an operation by the ledger's state, writes its intent, and gives leave for it: the
    /// only place where an [`Authorised`] is made.
    pub fn intend(
        &self,
        operation: Operation,
        under: u64,
        now_s: u64,
    ) -> Result<Authorised, WriteError> {
        let mut book = self.book();
        self.pay(&mut book)?;
        self.read(|state| state.allows(&operation, under, now_s))?;
        let entry = Entry::Intent { operation: operation.clone(), under };
        let intent = self.append(&mut book, entry, now_s)?;
        Ok(Authorised { intent, operation })
    }

    /// Records how an operation ended. If the disk refuses it now, it is written before anything
    /// else; the caller keeps back what the operation brought.
    #[expect(clippy::needless_pass_by_value, reason = "the duty ends here")]
    pub fn outcome(&self, spent: Spent, outcome: Outcome, now_s: u64) -> Result<(), WriteError> {
        self.end(spent.intent, outcome, now_s)
    }

    /// Records the end of an operation that an earlier run intended.
    pub(crate) fn end(&self, intent: u64, outcome: Outcome, now_s: u64) -> Result<(), WriteError> {
        let mut book = self.book();
        let entry = Entry::Outcome { intent, outcome };
        // Told again while it is still owed: what was seen last stands, once.
        let is_same =
            |owed: &Entry| matches!(owed, Entry::Outcome { intent: i, .. } if *i == intent);
        book.owed.retain(|(_, owed)| !is_same(owed));
        let written = self.append(&mut book, entry.clone(), now_s).map(|_| ());
        if matches!(written, Err(WriteError::Unavailable(_))) {
            book.owed.push_back((now_s, entry));
        }
        written
    }

    /// How many lines there are, and SHA-256 of the first.
    pub fn head(&self) -> (u64, [u8; 32]) {
        let book = self.book();
        (book.ends.len() as u64, book.first.unwrap_or_default())
    }

    /// The octets of lines from `from` on (the first without its `skip` octets), without newlines:
    /// as many as fit `bytes_max` (each counted with 8 octets more), at most `lines_max`; and
    /// whether the last is cut short.
    pub fn lines(
        &self,
        from: u64,
        skip: u64,
        lines_max: usize,
        bytes_max: usize,
    ) -> io::Result<(Vec<Vec<u8>>, bool)> {
        let (file, spans) = {
            let book = self.book();
            let spans = book.spans(from, skip, lines_max, bytes_max);
            (book.file.try_clone()?, spans)
        };
        // What is written never changes, so it can be read beside a writer.
        let mut lines = Vec::with_capacity(spans.len());
        let mut cut = false;
        for (start, len) in spans {
            let take = len.min(bytes_max as u64);
            cut = take < len;
            let mut line = vec![0; take as usize];
            file.read_exact_at(&mut line, start)?;
            lines.push(line);
        }
        Ok((lines, cut))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn append(&self, book: &mut Book, entry: Entry, now_s: u64) -> Result<u64, WriteError> {
        self.pay(book)?;
        self.write(book, entry, now_s)
    }

    /// Writes results that the disk refused before.
    fn pay(&self, book: &mut Book) -> Result<(), WriteError> {
        while let Some((at, entry)) = book.owed.front().cloned() {
            match self.write(book, entry, at) {
                Err(unavailable @ WriteError::Unavailable(_)) => return Err(unavailable),
                Err(wrong) => tracing::error!(%wrong, "a late result does not fit the ledger"),
                Ok(_) => {}
            }
            book.owed.pop_front();
        }
        Ok(())
    }

    fn write(&self, book: &mut Book, entry: Entry, now_s: u64) -> Result<u64, WriteError> {
        let seq = book.ends.len() as u64;
        let line = Line { seq, at: now_s, entry };
        self.read(|state| state.follows(&line))?;
        book.write(&line.to_canonical()).map_err(WriteError::Unavailable)?;
        // The disk has it: the state changes in one step that does not panic.
        self.state.write().unwrap_or_else(PoisonError::into_inner).apply(&line)?;
        Ok(seq)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lines that neither give leave nor end an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// See [`Entry::Started`].
    Started {
        /// Version of the keeper.
        version: String,
        /// SHA-256 of its binary, hexadecimal.
        binary: String,
        /// SHA-256 of its configuration file, hexadecimal.
        config: String,
        /// Path and SHA-256 of each PKCS#11 module.
        modules: std::collections::BTreeMap<String, String>,
    },
    /// See [`Entry::KeyConflict`].
    KeyConflict {
        /// The key that was asked for.
        key: countersign_policy::KeyId,
        /// The token that answered, by name.
        token: String,
        /// What it showed.
        found: String,
    },
    /// See [`Entry::KeyCleared`].
    KeyCleared {
        /// The key.
        key: countersign_policy::KeyId,
    },
    /// See [`Entry::ZoneSigned`].
    ZoneSigned {
        /// The zone.
        zone: countersign_policy::ZoneName,
        /// Its serial.
        serial: u32,
        /// Digest of the published version, hexadecimal.
        digest: String,
        /// Signatures since the last such line, by key.
        signatures: std::collections::BTreeMap<countersign_policy::KeyId, u32>,
    },
}

impl From<Note> for Entry {
    fn from(note: Note) -> Self {
        match note {
            Note::Started { version, binary, config, modules } => {
                Self::Started { version, binary, config, modules }
            }
            Note::KeyConflict { key, token, found } => Self::KeyConflict { key, token, found },
            Note::KeyCleared { key } => Self::KeyCleared { key },
            Note::ZoneSigned { zone, serial, digest, signatures } => {
                Self::ZoneSigned { zone, serial, digest, signatures }
            }
        }
    }
}

impl Book {
    fn load(&mut self, path: &Path, state: &mut LedgerState) -> Result<(), OpenError> {
        let failed =
            |action| move |problem| OpenError::Io { path: path.to_owned(), action, problem };
        let wrong = |problem| OpenError::Line { path: path.to_owned(), problem };
        let mut reader = BufReader::new(self.file.try_clone().map_err(failed("opening"))?);
        let mut line = Vec::new();
        loop {
            line.clear();
            let seq = state.next_seq();
            let limit = LINE_BYTES_MAX as u64 + 1;
            let mut limited = io::Read::take(&mut reader, limit);
            let read = limited.read_until(b'\n', &mut line).map_err(failed("reading"))?;
            if read == 0 {
                return Ok(());
            }
            if line.pop() != Some(b'\n') {
                if read as u64 == limit {
                    let problem = format!("longer than {LINE_BYTES_MAX} octets");
                    return Err(wrong(LedgerError::Syntax { seq, problem }));
                }
                tracing::warn!(
                    ledger = %path.display(), line = seq, octets = read,
                    "the ledger's last line was never finished and is cut off: the keeper or the \
                     machine stopped while it was written, and nothing was done under it"
                );
                self.torn = true;
                return self.mend().map_err(failed("cutting off its unfinished last line"));
            }
            let parsed = Line::from_canonical(seq, &line).map_err(wrong)?;
            state.apply(&parsed).map_err(wrong)?;
            self.took(&line);
        }
    }

    /// A line is on the disk.
    fn took(&mut self, line: &[u8]) {
        if self.first.is_none() {
            self.first = Some(sha256(line));
        }
        self.ends.push(self.end() + line.len() as u64 + 1);
    }

    fn end(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Puts a line on the disk, or leaves what is to be cut off before the next.
    fn write(&mut self, line: &[u8]) -> Result<(), String> {
        if line.len() > LINE_BYTES_MAX {
            return Err(format!("a line of {} octets", line.len()));
        }
        let octets = [line, b"\n"].concat();
        let written = self.mend().and_then(|()| {
            self.torn = true;
            self.file.write_all(&octets)?;
            self.file.sync_all()
        });
        written.map_err(|e| e.to_string())?;
        self.torn = false;
        self.took(line);
        Ok(())
    }

    /// Cuts off what a failed write left behind the last good line, for good before anything else is
    /// written.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.end())?;
            self.file.sync_all()?;
            self.directory.sync_all()?;
            self.torn = false;
        }
        Ok(())
    }

    /// Start and length of the lines that an answer holds.
    fn spans(&self, from: u64, skip: u64, lines_max: usize, bytes_max: usize) -> Vec<(u64, u64)> {
        let mut spans = Vec::new();
        let mut bytes = 0;
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        for at in from..self.ends.len().min(from.saturating_add(lines_max)) {
            let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
            let whole = (self.ends[at] - 1).saturating_sub(start);
            let skipped = if at == from { skip.min(whole) } else { 0 };
            let len = whole - skipped;
            bytes += len + 8;
            if bytes > bytes_max as u64 && !spans.is_empty() {
                break;
            }
            spans.push((start + skipped, len));
        }
        spans
    }
}

/// SHA-256.
pub(crate) fn sha256(octets: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, octets).as_ref());
    hash
}

#[cfg(test)]
mod tests;
