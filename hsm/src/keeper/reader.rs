//! Reading the ledger over the group's socket: the same for every keeper.

use crate::ledger::Ledger;
use crate::protocol::{
    FRAME_BYTES_MAX, LedgerResponse, Mode, PROTOCOL_VERSION, Refusal, RefusalKind,
};

/// Lines in one answer: what fits a frame is the bound in practice.
const LINES_PER_ANSWER: usize = 10_000;

/// Octets of lines in one answer: a frame less its lengths.
const ANSWER_BYTES_MAX: usize = FRAME_BYTES_MAX - 1024;

/// To a hello.
pub fn hello(protocol: u16, mode: Mode) -> Result<LedgerResponse, Refusal> {
    if protocol == PROTOCOL_VERSION {
        Ok(LedgerResponse::Hello { protocol, mode })
    } else {
        Err(other_protocol(protocol))
    }
}

/// How many lines there are.
pub fn head(ledger: &Ledger) -> LedgerResponse {
    let (lines, founding) = ledger.head();
    LedgerResponse::Head { lines, founding }
}

/// Lines from a position on.
pub fn read(ledger: &Ledger, from: u64, skip: u64, max: u32) -> Result<LedgerResponse, Refusal> {
    let max = usize::try_from(max).unwrap_or(usize::MAX).min(LINES_PER_ANSWER);
    match ledger.lines(from, skip, max, ANSWER_BYTES_MAX) {
        Ok((lines, cut)) => Ok(LedgerResponse::Lines { lines, cut }),
        Err(e) => Err(Refusal {
            kind: RefusalKind::LedgerUnavailable,
            detail: format!("reading the ledger: {e}"),
        }),
    }
}

/// A peer of another release.
pub fn other_protocol(theirs: u16) -> Refusal {
    Refusal {
        kind: RefusalKind::Malformed,
        detail: format!(
            "protocol {theirs}; this keeper speaks {PROTOCOL_VERSION}: install one release"
        ),
    }
}
