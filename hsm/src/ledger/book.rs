//! The ledger's file: read whole at start, then only ever appended to; a line counts when it is on the
//! disk.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use countersign_policy::ledger::{Entry, LINE_BYTES_MAX, LedgerError, LedgerState, Line};

use super::OpenError;

#[derive(Debug)]
pub(super) struct Book {
    pub(super) file: File,
    pub(super) directory: File,
    /// Where each line ends, its newline included.
    pub(super) ends: Vec<u64>,
    /// A write failed: what is behind the last good line is cut off before the next.
    pub(super) torn: bool,
    /// Results that could not be written yet; they go first. No intent is taken meanwhile, so there
    /// are never more than operations were under way when the disk failed.
    pub(super) owed: VecDeque<(u64, Entry)>,
    /// So many lines more are written, then the disk is full.
    #[cfg(test)]
    pub(super) lines_left: Option<u64>,
}

impl Book {
    pub(super) fn load(&mut self, path: &Path, state: &mut LedgerState) -> Result<(), OpenError> {
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
        self.ends.push(self.end() + line.len() as u64 + 1);
    }

    pub(super) fn end(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Puts a line on the disk, or leaves what is to be cut off before the next.
    pub(super) fn write(&mut self, line: &[u8]) -> Result<(), String> {
        if line.len() > LINE_BYTES_MAX {
            return Err(format!("a line of {} octets", line.len()));
        }
        #[cfg(test)]
        match &mut self.lines_left {
            Some(0) => return Err("the test's disk is full".to_owned()),
            Some(left) => *left -= 1,
            None => {}
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
    pub(super) fn spans(
        &self,
        from: u64,
        skip: u64,
        lines_max: usize,
        bytes_max: usize,
    ) -> Vec<(u64, u64)> {
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
