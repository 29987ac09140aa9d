//! One side of a conversation on a stream: RFC 7766, within bounds.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use crate::wire::framing::{Deframer, write_message};

/// Saying goodbye may take this long.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Why a conversation is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamEnd {
    /// No whole message came in time, however many octets did.
    #[error("no message within {} ms", .0.as_millis())]
    Idle(Duration),
    /// The peer does not take what it asked for.
    #[error("peer did not take a message of {octets} octets within {} ms", .after.as_millis())]
    Stalled {
        /// Its size.
        octets: usize,
        /// How long it had.
        after: Duration,
    },
    /// The connection broke.
    #[error("connection broke: {0}")]
    Io(#[from] io::Error),
}

/// Messages in and out of a stream.
#[derive(Debug)]
pub(crate) struct Conversation<S> {
    stream: S,
    deframer: Deframer,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, deframer: Deframer::new() }
    }

    /// The next message, all of it within `idle`; `None` where the peer has hung up. Safe to
    /// drop in mid-wait.
    pub(crate) async fn next(&mut self, idle: Duration) -> Result<Option<Vec<u8>>, StreamEnd> {
        let deadline = Instant::now() + idle;
        while !self.deframer.ready() {
            let read = timeout_at(deadline, self.deframer.fill(&mut self.stream)).await;
            if read.map_err(|_| StreamEnd::Idle(idle))?? == 0 {
                return Ok(None);
            }
        }
        Ok(self.deframer.take().map(<[u8]>::to_vec))
    }

    /// Sends a message; the peer must take it within `after`.
    pub(crate) async fn send(&mut self, message: &[u8], after: Duration) -> Result<(), StreamEnd> {
        let octets = message.len();
        timeout(after, write_message(&mut self.stream, message))
            .await
            .map_err(|_| StreamEnd::Stalled { octets, after })??;
        Ok(())
    }

    /// Ends the stream properly, if the peer lets us.
    pub(crate) async fn goodbye(mut self) {
        let _ = timeout(GOODBYE_MAX, self.stream.shutdown()).await;
    }
}
