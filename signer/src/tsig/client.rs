//! The side that asks: RFC 8945 §5.1 and §5.3, a request signed and each answer checked.

use std::borrow::Cow;
use std::sync::Arc;

use super::key::{Algorithm, Digest, Key};
use super::record::{self, Malformed, Tsig, error, find};
use super::{FUDGE_S, UNSIGNED_MAX, in_window};
use crate::wire::{Message, rcode};

/// Why an answer is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Its TSIG cannot be read.
    #[error("answer's TSIG cannot be read: {0}")]
    Malformed(#[from] Malformed),
    /// Not signed where it must be.
    #[error("answer {number} ({}) is not signed; expected TSIG with key {key}", rcode::text(*.rcode))]
    Unsigned {
        /// Which message of the answer, from 1.
        number: u64,
        /// Its response code: who does not know the key often says REFUSED, unsigned.
        rcode: u8,
        /// The key.
        key: String,
    },
    /// The other side says that our signature is no good. Not proven: anyone may have said so.
    #[error("the peer refuses our TSIG: {}, {hint}", error::text(*.error))]
    Refused {
        /// Its TSIG error.
        error: u16,
        /// What that means.
        hint: &'static str,
    },
    /// The clocks differ, says a peer that has proven itself.
    #[error(
        "the peer refuses our TSIG: BADTIME, its clock shows {theirs_s} and ours showed {ours_s} \
         (seconds since 1970). hint: set the clocks of both"
    )]
    TheirTime {
        /// Its clock.
        theirs_s: u64,
        /// Ours when we asked.
        ours_s: u64,
    },
    /// Another key or algorithm than the request's.
    #[error("answer {number} is signed with another key or algorithm than {key} {algorithm}")]
    OtherKey {
        /// Which message of the answer.
        number: u64,
        /// The key expected.
        key: String,
        /// The algorithm expected.
        algorithm: Algorithm,
    },
    /// A MAC of a length that proves nothing.
    #[error("answer {number} has a MAC of {octets} octets, expected {least} to {most}")]
    MacLength {
        /// Which message of the answer.
        number: u64,
        /// Its octets.
        octets: usize,
        /// At least this.
        least: usize,
        /// At most this.
        most: usize,
    },
    /// The MAC is wrong: the secrets differ, or the answer was altered, or one before it is missing.
    #[error(
        "answer {number} has a wrong MAC (key {key}): it or one before it was altered, reordered or \
         left out, or the secrets at both ends differ"
    )]
    BadSignature {
        /// Which message of the answer.
        number: u64,
        /// The key.
        key: String,
    },
    /// Signed at another time.
    #[error(
        "answer {number} was signed at {signed_s}, our clock shows {now_s}: more than {fudge_s} s apart"
    )]
    Time {
        /// Which message of the answer.
        number: u64,
        /// When it says it was signed, in seconds since 1970.
        signed_s: u64,
        /// Our clock.
        now_s: u64,
        /// How far they may be apart.
        fudge_s: u16,
    },
    /// Too many in a row without a signature.
    #[error("{UNSIGNED_MAX} answers in a row were not signed, and the next is not either")]
    TooManyUnsigned,
    /// The answer ends in messages that nothing proves.
    #[error("the last {messages} messages of the answer are not signed; its last message must be")]
    EndUnsigned {
        /// How many.
        messages: u32,
    },
}

/// Signs a request that has room for the record.
pub fn sign_request(key: &Arc<Key>, message: &mut Vec<u8>, now_s: u64) -> Answers {
    let mut tsig = Tsig {
        key_name: key.wire_name().into(),
        algorithm: key.algorithm().wire_name().into(),
        time_s: now_s,
        fudge_s: FUDGE_S,
        mac: Box::default(),
        original_id: record::id_of(message),
        error: 0,
        other: Box::default(),
    };
    let mut digest = Digest::new(key);
    digest.plain(message);
    digest.variables(key, &tsig);
    tsig.mac = digest.mac();
    record::append(message, &tsig);
    let next = next_digest(key, &tsig.mac);
    Answers { key: key.clone(), next, asked_s: now_s, number: 0, unsigned: 0 }
}

fn next_digest(key: &Key, mac: &[u8]) -> Digest {
    let mut digest = Digest::new(key);
    digest.prior_mac(mac);
    digest
}

/// Checks the answers to one signed request, in order. Nothing that [`Answers::take`] lets through
/// is proven before [`Answers::finish`] says so, or a later message was signed.
#[derive(Clone)]
pub struct Answers {
    key: Arc<Key>,
    /// What the next MAC is over, as far as it is here: the last MAC, and what came unsigned since.
    next: Digest,
    asked_s: u64,
    number: u64,
    unsigned: u32,
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Answers({:?}, {} messages)", self.key, self.number)
    }
}

impl Answers {
    /// Takes the next message of the answer; gives it back without its TSIG.
    pub fn take<'a>(
        &mut self,
        message: &'a [u8],
        now_s: u64,
    ) -> Result<Cow<'a, [u8]>, AnswerError> {
        self.number += 1;
        let Some(found) = find(message)? else {
            self.take_unsigned(message)?;
            return Ok(Cow::Borrowed(message));
        };
        let tsig = &found.tsig;
        self.check_form(tsig)?;
        let stripped = found.strip(message);
        let mut digest = std::mem::replace(&mut self.next, next_digest(&self.key, &tsig.mac));
        digest.message(&stripped, tsig.original_id);
        if self.number == 1 {
            digest.variables(&self.key, tsig);
        } else {
            digest.timers(tsig);
        }
        if !digest.proves(&tsig.mac) {
            let (number, key) = (self.number, self.key.name().to_string());
            return Err(AnswerError::BadSignature { number, key });
        }
        self.check_time(tsig, now_s)?;
        if tsig.error != 0 {
            return Err(refused(tsig.error));
        }
        self.unsigned = 0;
        Ok(Cow::Owned(stripped))
    }

    /// The answer is over: its last message must have been signed.
    pub fn finish(self) -> Result<(), AnswerError> {
        match self.unsigned {
            0 if self.number > 0 => Ok(()),
            messages => Err(AnswerError::EndUnsigned { messages }),
        }
    }

    fn take_unsigned(&mut self, message: &[u8]) -> Result<(), AnswerError> {
        if self.number == 1 {
            let rcode = Message::peek_header(message).map_or(0, |header| header.flags.rcode());
            let key = self.key.name().to_string();
            return Err(AnswerError::Unsigned { number: self.number, rcode, key });
        }
        if self.unsigned == UNSIGNED_MAX {
            return Err(AnswerError::TooManyUnsigned);
        }
        self.unsigned += 1;
        self.next.plain(message);
        Ok(())
    }

    fn check_form(&self, tsig: &Tsig) -> Result<(), AnswerError> {
        // §5.3.2: who does not know our key, or whose secret differs, can't sign that.
        if tsig.mac.is_empty() && tsig.error != 0 {
            return Err(refused(tsig.error));
        }
        let (number, algorithm) = (self.number, self.key.algorithm());
        if *tsig.key_name != *self.key.wire_name() || *tsig.algorithm != *algorithm.wire_name() {
            let key = self.key.name().to_string();
            return Err(AnswerError::OtherKey { number, key, algorithm });
        }
        let (octets, least, most) =
            (tsig.mac.len(), algorithm.mac_bytes_min(), algorithm.mac_bytes());
        if octets < least || octets > most {
            return Err(AnswerError::MacLength { number, octets, least, most });
        }
        Ok(())
    }

    fn check_time(&self, tsig: &Tsig, now_s: u64) -> Result<(), AnswerError> {
        // §5.2.3: our own time comes back, and the peer's beside it.
        if tsig.error == error::BADTIME
            && let [a, b, c, d, e, f] = *tsig.other
        {
            let theirs_s = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
            return Err(AnswerError::TheirTime { theirs_s, ours_s: self.asked_s });
        }
        if !in_window(tsig.time_s, tsig.fudge_s, now_s) {
            return Err(AnswerError::Time {
                number: self.number,
                signed_s: tsig.time_s,
                now_s,
                fudge_s: tsig.fudge_s.min(FUDGE_S),
            });
        }
        Ok(())
    }
}

fn refused(error: u16) -> AnswerError {
    let hint = match error {
        error::BADKEY => "it does not know a key of this name and algorithm",
        error::BADSIG => "its secret for this key is another",
        error::BADTIME => "its clock shows another time",
        error::BADTRUNC => "it wants longer MACs",
        _ => "for a reason that has no name here",
    };
    AnswerError::Refused { error, hint }
}
