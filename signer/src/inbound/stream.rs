//! Waiting for messages, within bounds.

use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::time::{Instant, timeout};

use super::assembly::AnswerError;
use super::{Limits, TransferError};
use crate::wire::framing::Deframer;

/// Reads messages from a primary and looks at how long it keeps us waiting.
///
/// Only time spent waiting for octets counts towards the rate: when this machine is busy, that
/// is not the primary's fault.
#[derive(Debug)]
pub(super) struct Paced<'a> {
    limits: &'a Limits,
    deframer: Deframer,
    messages: u64,
    bytes: u64,
    waited: Duration,
    window_bytes: u64,
}

impl<'a> Paced<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        let deframer = Deframer::new();
        Self { limits, deframer, messages: 0, bytes: 0, waited: Duration::ZERO, window_bytes: 0 }
    }

    /// Octets received so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next message.
    pub(super) async fn message<S>(&mut self, stream: &mut S) -> Result<&[u8], TransferError>
    where
        S: AsyncRead + Unpin,
    {
        while !self.deframer.ready() {
            if self.read(stream).await? == 0 {
                let octets = self.deframer.pending();
                return Err(TransferError::EndedEarly { messages: self.messages, octets });
            }
        }
        self.messages += 1;
        // Ready: there is one.
        Ok(self.deframer.take().unwrap_or_default())
    }

    /// Nothing was asked for that would still be answered: octets that are there are a fault.
    pub(super) async fn nothing_left<S>(&mut self, stream: &mut S) -> Result<(), TransferError>
    where
        S: AsyncRead + Unpin,
    {
        // One look at what has arrived; nothing more is waited for. An end or a broken
        // connection is no fault any more.
        let _ = timeout(Duration::ZERO, self.deframer.fill(stream)).await;
        match self.deframer.pending() {
            0 => Ok(()),
            octets => Err(AnswerError::Unasked { octets }.into()),
        }
    }

    async fn read<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> Result<usize, TransferError> {
        let since = Instant::now();
        let read = timeout(self.limits.idle, self.deframer.fill(stream))
            .await
            .map_err(|_| TransferError::Idle(self.limits.idle))??;
        self.bytes += read as u64;
        self.window_bytes += read as u64;
        self.waited += since.elapsed();
        if self.waited >= self.limits.rate_window {
            let rate = u128::from(self.limits.rate_bytes_per_s_min);
            let least_milli = self.waited.as_millis() * rate;
            if u128::from(self.window_bytes) * 1000 < least_milli {
                return Err(TransferError::TooSlow {
                    bytes: self.window_bytes,
                    waited: self.waited,
                    bytes_per_s_min: self.limits.rate_bytes_per_s_min,
                });
            }
            self.waited = Duration::ZERO;
            self.window_bytes = 0;
        }
        Ok(read)
    }
}
