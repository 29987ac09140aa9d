//! Messages on a stream: two octets of length before each (RFC 1035 §4.2.2, RFC 7766 §8).
//!
//! [`Deframer`] is the pure part: octets in, whole messages out, in a buffer that holds one
//! message and one read at most.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::MESSAGE_BYTES_MAX;

/// How much one read may bring: a TLS record carries at most this (RFC 8446 §5.1).
const READ_BYTES_MAX: usize = 16 * 1024;

/// Cuts a stream of octets into messages.
#[derive(Debug, Default)]
pub struct Deframer {
    bytes: Vec<u8>,
    /// Where what was not handed out yet begins.
    at: usize,
}

impl Deframer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds octets from the stream.
    pub fn feed(&mut self, octets: &[u8]) {
        self.compact();
        self.bytes.extend_from_slice(octets);
    }

    /// The next whole message, if it is there.
    pub fn take(&mut self) -> Option<&[u8]> {
        let len = self.next_len()?;
        let start = self.at + 2;
        let message = self.bytes.get(start..start + len)?;
        self.at = start + len;
        Some(message)
    }

    /// Whether [`Deframer::take`] has a message to hand out.
    pub fn ready(&self) -> bool {
        self.next_len().is_some_and(|len| self.bytes.len() - self.at >= 2 + len)
    }

    /// Octets received and not handed out.
    pub fn pending(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Reads once from `stream`; 0 is its end. Safe to drop in mid-wait: nothing is lost.
    pub async fn fill<R: AsyncRead + Unpin>(&mut self, stream: &mut R) -> io::Result<usize> {
        self.compact();
        self.bytes.reserve(READ_BYTES_MAX);
        (&mut *stream).take(READ_BYTES_MAX as u64).read_buf(&mut self.bytes).await
    }

    fn next_len(&self) -> Option<usize> {
        let prefix = self.bytes.get(self.at..self.at + 2)?;
        Some(usize::from(u16::from_be_bytes([prefix[0], prefix[1]])))
    }

    fn compact(&mut self) {
        self.bytes.drain(..self.at);
        self.at = 0;
    }
}

/// Writes one message with its length in one go (two writes would be two TLS records).
pub async fn write_message<W: AsyncWrite + Unpin>(
    stream: &mut W,
    message: &[u8],
) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("message of {} octets, a stream carries {MESSAGE_BYTES_MAX}", message.len()),
        )
    })?;
    let mut framed = Vec::with_capacity(2 + message.len());
    framed.extend_from_slice(&len.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await?;
    stream.flush().await
}
