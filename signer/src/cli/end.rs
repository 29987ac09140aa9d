//! How a command ends: exit codes, and what is said on standard error.

use std::process::ExitCode;

use super::client::ClientError;

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done, and nothing needs attention
  1  refused, or failed
  2  wrong usage, or a configuration that is not whole
  3  the daemon, or the keeper, can't be reached
  4  done, and something needs attention: an alarm, a zone that is not up, an unusable token or key,
     a freeze, lines of a bundle that no checkpoint seals
  5  the ledger or bundle does not hold, is behind what was pinned, or is not the one that was
     pinned: nothing was done";

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Fine,
    Failed,
    Usage,
    Unreachable,
    Attention,
    /// What was shown is not the ledger that it has to be.
    Unsound,
}

impl From<End> for ExitCode {
    fn from(end: End) -> Self {
        Self::from(match end {
            End::Fine => 0,
            End::Failed => 1,
            End::Usage => 2,
            End::Unreachable => 3,
            End::Attention => 4,
            End::Unsound => 5,
        })
    }
}

/// Why a command stops early.
#[derive(Debug)]
pub(super) enum Stop {
    /// Whoever read our output has read enough.
    Pipe,
    Said {
        end: End,
        text: String,
    },
}

impl Stop {
    pub(super) fn failed(text: impl Into<String>) -> Self {
        Self::Said { end: End::Failed, text: text.into() }
    }

    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self::Said { end: End::Usage, text: text.into() }
    }

    pub(super) fn unsound(text: impl Into<String>) -> Self {
        Self::Said { end: End::Unsound, text: text.into() }
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::Pipe;
        }
        Self::failed(format!("can't write the result: {error}"))
    }
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Self {
        let end = match error {
            ClientError::Unreachable { .. } => End::Unreachable,
            ClientError::Usage(_) => End::Usage,
            ClientError::Refused(_) | ClientError::Broken(_) => End::Failed,
        };
        Self::Said { end, text: error.to_string() }
    }
}
