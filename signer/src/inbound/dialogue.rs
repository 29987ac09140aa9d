//! Questions to a primary and its answers, one after the other on a stream, signed where the peer has
//! a TSIG key.

use std::borrow::Cow;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::stream::Paced;
use super::{GOODBYE_MAX, Limits, TransferError};
use crate::clock::now_s;
use crate::tsig::{self, Answers, Key};
use crate::wire::framing;

/// A conversation with a primary whose certificate is proven, or whose answers each prove
/// themselves.
pub(super) struct Dialogue<'a, S> {
    stream: S,
    paced: Paced<'a>,
    limits: &'a Limits,
    key: Option<&'a Arc<Key>>,
    /// The chain of the answer that is coming in.
    answers: Option<Answers>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Dialogue<'a, S> {
    pub(super) fn new(stream: S, limits: &'a Limits, key: Option<&'a Arc<Key>>) -> Self {
        Self { stream, paced: Paced::new(limits), limits, key, answers: None }
    }

    /// Asks. What is still to come of an earlier answer is a fault: [`Dialogue::answered`] ends each.
    pub(super) async fn ask(&mut self, mut request: Vec<u8>) -> Result<(), TransferError> {
        self.answers = self.key.map(|key| tsig::sign_request(key, &mut request, now_s()));
        timeout(self.limits.idle, framing::write_message(&mut self.stream, &request))
            .await
            .map_err(|_| TransferError::Idle(self.limits.idle))??;
        Ok(())
    }

    /// The next message of the answer, without its TSIG. With a key it is one of a chain, and what it
    /// says is proven once [`Dialogue::answered`] has agreed.
    pub(super) async fn message(&mut self) -> Result<Cow<'_, [u8]>, TransferError> {
        let message = self.paced.message(&mut self.stream).await?;
        match &mut self.answers {
            Some(answers) => Ok(answers.take(message, now_s())?),
            None => Ok(Cow::Borrowed(message)),
        }
    }

    /// The answer is whole: nothing comes behind it, and with a key its last message was signed.
    pub(super) async fn answered(&mut self) -> Result<(), TransferError> {
        self.paced.nothing_left(&mut self.stream).await?;
        self.answers.take().map_or(Ok(()), Answers::finish)?;
        Ok(())
    }

    /// Octets received so far.
    pub(super) fn bytes(&self) -> u64 {
        self.paced.bytes()
    }

    /// Closes the connection; whether the primary hears it does not matter any more.
    pub(super) async fn goodbye(mut self) {
        let _ = timeout(GOODBYE_MAX, self.stream.shutdown()).await;
    }
}
