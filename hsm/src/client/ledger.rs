//! The end of the keeper's second socket: reads the ledger, one question at a time.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use countersign_policy::ledger::LINE_BYTES_MAX;

use super::{ClientError, connect, exchange};
use crate::protocol::{LedgerRequest, LedgerResponse, PROTOCOL_VERSION};

/// A connection to the keeper's second socket.
#[derive(Debug)]
pub struct LedgerClient {
    stream: UnixStream,
}

impl LedgerClient {
    /// Connects; `deadline` bounds each read and write.
    pub fn connect(path: &Path, deadline: Duration) -> Result<Self, ClientError> {
        let failed = |problem: String| ClientError::Unreachable { path: path.to_owned(), problem };
        let mut stream = connect(path, deadline).map_err(|e| failed(e.to_string()))?;
        let hello = LedgerRequest::Hello { protocol: PROTOCOL_VERSION };
        match exchange(&mut stream, &hello).map_err(failed)? {
            LedgerResponse::Hello { protocol } if protocol == PROTOCOL_VERSION => {
                Ok(Self { stream })
            }
            LedgerResponse::Hello { protocol } => {
                Err(ClientError::OtherProtocol { theirs: protocol })
            }
            LedgerResponse::Refused(refusal) => Err(ClientError::Refused(refusal)),
            _ => Err(ClientError::Unexpected("hello")),
        }
    }

    /// How many lines there are, and SHA-256 of the first.
    pub fn head(&mut self) -> Result<(u64, [u8; 32]), ClientError> {
        match self.ask(&LedgerRequest::Head)? {
            LedgerResponse::Head { lines, founding } => Ok((lines, founding)),
            _ => Err(ClientError::Unexpected("head")),
        }
    }

    /// Whole lines from `from` on, without newlines: as many as one answer holds, at most `max`,
    /// none behind the end. A line that exceeds a frame is fetched in parts.
    pub fn read(&mut self, from: u64, max: u32) -> Result<Vec<Vec<u8>>, ClientError> {
        let (mut lines, mut cut) = self.lines(from, 0, max)?;
        if !cut {
            return Ok(lines);
        }
        let mut long = lines.pop().ok_or(ClientError::Unexpected("lines"))?;
        if !lines.is_empty() {
            // The whole ones first; the long one starts the next answer.
            return Ok(lines);
        }
        while cut {
            let (mut more, goes_on) = self.lines(from, long.len() as u64, 1)?;
            let part = more.pop().filter(|part| !part.is_empty());
            long.extend_from_slice(&part.ok_or(ClientError::Unexpected("lines"))?);
            if long.len() > LINE_BYTES_MAX {
                return Err(ClientError::Unexpected("lines"));
            }
            cut = goes_on;
        }
        Ok(vec![long])
    }

    fn lines(
        &mut self,
        from: u64,
        skip: u64,
        max: u32,
    ) -> Result<(Vec<Vec<u8>>, bool), ClientError> {
        match self.ask(&LedgerRequest::Read { from, skip, max })? {
            LedgerResponse::Lines { lines, cut } => Ok((lines, cut)),
            _ => Err(ClientError::Unexpected("lines")),
        }
    }

    fn ask(&mut self, request: &LedgerRequest) -> Result<LedgerResponse, ClientError> {
        match exchange(&mut self.stream, request).map_err(ClientError::Lost)? {
            LedgerResponse::Refused(refusal) => Err(ClientError::Refused(refusal)),
            other => Ok(other),
        }
    }
}
