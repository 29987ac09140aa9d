//! The end of the keeper's second socket: reads the ledger and hands in texts, one question at a time.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use countersign_policy::ZoneName;
use countersign_policy::ledger::LINE_BYTES_MAX;
use countersign_policy::officer::PersonName;
use countersign_policy::ssh::Signature;
use countersign_policy::tree::Hash;

use super::{ClientError, connect, exchange};
use crate::protocol::{
    DsExport, LedgerRequest, LedgerResponse, Mode, PROTOCOL_VERSION, Submission, Survey,
};

/// A connection to the keeper's second socket.
#[derive(Debug)]
pub struct LedgerClient {
    stream: UnixStream,
    mode: Mode,
}

impl LedgerClient {
    /// Connects; `deadline` bounds each read and write.
    pub fn connect(path: &Path, deadline: Duration) -> Result<Self, ClientError> {
        let failed = |problem: String| ClientError::Unreachable { path: path.to_owned(), problem };
        let mut stream = connect(path, deadline).map_err(|e| failed(e.to_string()))?;
        let hello = LedgerRequest::Hello { protocol: PROTOCOL_VERSION };
        match exchange(&mut stream, &hello).map_err(failed)? {
            LedgerResponse::Hello { protocol, mode } if protocol == PROTOCOL_VERSION => {
                Ok(Self { stream, mode })
            }
            LedgerResponse::Hello { protocol, .. } => {
                Err(ClientError::OtherProtocol { theirs: protocol })
            }
            LedgerResponse::Refused(refusal) => Err(ClientError::Refused(refusal)),
            _ => Err(ClientError::Unexpected("hello")),
        }
    }

    /// How the keeper stood when this connected.
    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    /// What is on the tokens; an unfounded keeper makes its audit key for this.
    pub fn survey(&mut self) -> Result<Survey, ClientError> {
        match self.ask(&LedgerRequest::Survey)? {
            LedgerResponse::Survey(survey) => Ok(survey),
            _ => Err(ClientError::Unexpected("survey")),
        }
    }

    /// Founds the appliance; brings the founding's hash. The keeper ends then, to start anew.
    pub fn found(
        &mut self,
        text: String,
        signatures: Vec<(PersonName, Signature)>,
    ) -> Result<Hash, ClientError> {
        match self.ask(&LedgerRequest::Found { text, signatures })? {
            LedgerResponse::Founded { hash } => Ok(hash),
            _ => Err(ClientError::Unexpected("founded")),
        }
    }

    /// Hands in a signed text; brings the line of the ledger that holds it.
    pub fn submit(&mut self, submission: Submission) -> Result<u64, ClientError> {
        match self.ask(&LedgerRequest::Submit(submission))? {
            LedgerResponse::Submitted { line } => Ok(line),
            _ => Err(ClientError::Unexpected("submitted")),
        }
    }

    /// A checkpoint of the ledger as it is now: a C2SP signed note.
    pub fn checkpoint(&mut self) -> Result<String, ClientError> {
        match self.ask(&LedgerRequest::Checkpoint)? {
            LedgerResponse::Checkpoint { note } => Ok(note),
            _ => Err(ClientError::Unexpected("checkpoint")),
        }
    }

    /// The keys whose DS a motion approved to hand out.
    pub fn export_ds(&mut self, zone: &ZoneName) -> Result<DsExport, ClientError> {
        match self.ask(&LedgerRequest::ExportDs { zone: zone.clone() })? {
            LedgerResponse::Ds(export) => Ok(export),
            _ => Err(ClientError::Unexpected("DS")),
        }
    }

    /// How many lines there are, and the founding's hash once there is one.
    pub fn head(&mut self) -> Result<(u64, Option<Hash>), ClientError> {
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
