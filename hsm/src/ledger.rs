//! The ledger's file, and the only place where leave to use a KSK is made (invariants 3 and 4).
//!
//! `state_dir/ledger.jsonl` only ever grows. A line counts when it is on the disk; what the lines
//! amount to is [`LedgerState`], and an [`Authorised`] value is minted when that state allows the
//! operation *and* its intent is on the disk. Whoever holds one can use a key once, and what is left
//! of it is the duty to record how that ended.

mod book;
mod note;

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use aws_lc_rs::digest;
use countersign_policy::ledger::{
    Entry, LINE_BYTES_MAX, LedgerError, LedgerState, Line, Operation, Outcome,
};
use countersign_policy::officer::PersonName;
use countersign_policy::permit::Denied;
use countersign_policy::ssh::Signature;
use countersign_policy::state::Quorum;
use countersign_policy::tree::Hash;
use countersign_policy::{PublicKey, ZoneName};

use book::Book;
pub use note::{Note, Signed};

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
    /// What the system said when a line could last not be written; `None` once one was.
    problem: Mutex<Option<String>>,
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
            torn: false,
            owed: VecDeque::new(),
            #[cfg(test)]
            lines_left: None,
        };
        let mut state = LedgerState::default();
        book.load(&path, &mut state)?;
        book.directory.sync_all().map_err(failed("syncing its directory"))?;
        Ok(Self {
            path,
            book: Mutex::new(book),
            state: RwLock::new(state),
            problem: Mutex::default(),
        })
    }

    /// Runs `look` on what the ledger amounts to.
    pub fn read<T>(&self, look: impl FnOnce(&LedgerState) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes line 0: the founding, if everyone on its roster signed it.
    pub fn found(
        &self,
        text: String,
        signatures: BTreeMap<PersonName, Signature>,
        now_s: u64,
    ) -> Result<u64, WriteError> {
        self.append(&mut self.book(), Entry::Founded { text, signatures }, now_s)
    }

    /// Writes what a person signed. It is judged before the ledger is held: signatures that are none
    /// cost those who read the state nothing, and those who write to it no turn.
    pub fn submit(&self, signed: Signed, now_s: u64) -> Result<u64, WriteError> {
        let entry = Entry::from(signed);
        let entry = self.read(|state| {
            let line = Line { seq: state.next_seq(), at: now_s, entry };
            state.follows(&line).map(|()| line.entry)
        })?;
        self.append(&mut self.book(), entry, now_s)
    }

    /// Begins what a quorum approved, with the public keys that it publishes: once, whoever tries
    /// at the same time.
    #[expect(clippy::needless_pass_by_value, reason = "a quorum is used up here")]
    pub fn begin(
        &self,
        quorum: Quorum,
        reveals: Vec<PublicKey>,
        now_s: u64,
    ) -> Result<u64, WriteError> {
        let statement = quorum.statement();
        self.append(&mut self.book(), Entry::Begun { statement, reveals }, now_s)
    }

    /// Writes that DS records are handed out, under the line that approved it.
    /// `now_s` is read as for [`Self::intend`].
    pub fn export(
        &self,
        begun: u64,
        zone: ZoneName,
        now_s: impl FnOnce() -> u64,
    ) -> Result<u64, WriteError> {
        let mut book = self.book();
        self.append(&mut book, Entry::DsExported { begun, zone }, now_s())
    }

    /// Writes a line that neither gives leave nor ends an operation.
    pub fn note(&self, note: Note, now_s: u64) -> Result<u64, WriteError> {
        self.append(&mut self.book(), note.into(), now_s)
    }

    /// Judges an operation by the ledger's state, writes its intent, and gives leave for it: the
    /// only place where an [`Authorised`] is made. The clock, `now_s`, is read when it is this one's
    /// turn: a time from before another's line would look like a clock that was set back, and a judgement
    /// by it would be as old as the wait for a disk.
    pub fn intend(
        &self,
        operation: Operation,
        under: u64,
        now_s: impl FnOnce() -> u64,
    ) -> Result<Authorised, WriteError> {
        let mut book = self.book();
        self.pay(&mut book)?;
        let now_s = now_s();
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

    /// How many lines there are, and the founding's hash once there is one.
    pub fn head(&self) -> (u64, Option<Hash>) {
        self.read(|state| (state.next_seq(), state.appliance()))
    }

    /// Why nothing can be written now, if the last try failed.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    /// The line at that position.
    pub fn line(&self, seq: u64) -> Result<Line, String> {
        let (lines, _) = self.lines(seq, 0, 1, LINE_BYTES_MAX).map_err(|e| e.to_string())?;
        let octets = lines.first().ok_or_else(|| format!("there is no line {seq}"))?;
        Line::from_canonical(seq, octets).map_err(|e| e.to_string())
    }

    /// The text of the statement that began at that line.
    pub fn statement_begun_at(&self, begun: u64) -> Result<String, String> {
        let Entry::Begun { statement, .. } = self.line(begun)?.entry else {
            return Err("nothing began there".to_owned());
        };
        let proposed = self.read(|state| {
            let open = state.proposal(&statement).map(|proposal| proposal.line);
            open.or_else(|| state.closed().get(&statement).map(|closed| closed.line))
        });
        let proposed = proposed.ok_or("it was not proposed")?;
        match self.line(proposed)?.entry {
            Entry::Proposed { statement, .. } => Ok(statement),
            _ => Err(format!("line {proposed} is no proposal")),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The disk takes so many lines more; `None`: all.
    #[cfg(test)]
    pub(crate) fn set_lines_left(&self, lines: Option<u64>) {
        self.book().lines_left = lines;
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
        let written = book.write(&line.to_canonical());
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) =
            written.as_ref().err().cloned();
        written.map_err(WriteError::Unavailable)?;
        // The disk has it: the state changes in one step that does not panic.
        self.state.write().unwrap_or_else(PoisonError::into_inner).apply(&line)?;
        Ok(seq)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
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
