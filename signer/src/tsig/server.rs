//! The side that is asked: RFC 8945 §5.2 and §5.3, a request checked and each answer signed.

use std::sync::Arc;

use super::key::{Digest, Key};
use super::record::{self, Malformed, Tsig, error, find};
use super::{FUDGE_S, in_window};
use crate::wire::{Header, MESSAGE_BYTES_MAX, Message, MessageWriter, rcode};

/// What a request turned out to be.
#[derive(Debug)]
pub enum Opening {
    /// It has no TSIG.
    Unsigned,
    /// Whoever has the key has signed it, within the window.
    Signed(Signed),
    /// Its TSIG is no good.
    Refused(Box<Refused>),
}

/// A request whose signature is good.
#[derive(Debug)]
pub struct Signed {
    /// The request without its TSIG.
    pub octets: Vec<u8>,
    /// Signs the answers.
    pub session: Session,
}

/// Why a request's TSIG is no good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A MAC of a length that no MAC has, or that proves nothing.
    #[error("MAC of {octets} octets, expected {least} to {most}")]
    MacLength {
        /// Its octets.
        octets: usize,
        /// At least this.
        least: usize,
        /// At most this.
        most: usize,
    },
    /// No such key here, or with another algorithm.
    #[error("no key of this name and algorithm is configured")]
    UnknownKey,
    /// The MAC is wrong.
    #[error("wrong MAC: the secrets at both ends differ, or the request was altered")]
    BadSignature,
    /// Signed at another time.
    #[error("signed at {signed_s}, our clock shows {now_s}: more than {fudge_s} s apart")]
    Time {
        /// When it says it was signed, in seconds since 1970.
        signed_s: u64,
        /// Our clock.
        now_s: u64,
        /// How far they may be apart.
        fudge_s: u16,
    },
}

/// A request that gets nothing but this answer.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// The name of the key that it named, in wire form and lower case, if that could be read.
    pub key_name: Option<Box<[u8]>>,
    /// The answer (RFC 8945 §5.3.2). Smaller than the request, unless that was signed.
    pub answer: Vec<u8>,
}

/// Checks a request's TSIG with the key of that name (in wire form, lower case) that `key_of` gives.
pub fn open(request: &[u8], key_of: impl FnOnce(&[u8]) -> Option<Arc<Key>>, now_s: u64) -> Opening {
    let found = match find(request) {
        Ok(None) => return Opening::Unsigned,
        Ok(Some(found)) => found,
        Err(malformed) => {
            let answer = bare(request, rcode::FORMERR);
            return Refused { reason: malformed.into(), key_name: None, answer }.into();
        }
    };
    let stripped = found.strip(request);
    let tsig = found.tsig;
    let refuse = |reason: Reason, answer: Vec<u8>| -> Opening {
        Refused { reason, key_name: Some(tsig.key_name.clone()), answer }.into()
    };
    let unsigned = |error: u16| {
        let mut answer = bare(&stripped, rcode::NOTAUTH);
        let (mac, other) = (Box::default(), Box::default());
        let original_id = record::id_of(&stripped);
        let bare_len = answer.len();
        record::append(&mut answer, &Tsig { mac, original_id, error, other, ..tsig.clone() });
        // A compressed key name would make the answer longer than the request: no amplifier.
        if answer.len() > request.len() {
            answer.truncate(bare_len);
            answer.get_mut(10..12).into_iter().for_each(|count| count.fill(0));
        }
        answer
    };
    let key = key_of(&tsig.key_name).filter(|key| {
        *tsig.algorithm == *key.algorithm().wire_name() && *tsig.key_name == *key.wire_name()
    });
    let Some(key) = key else { return refuse(Reason::UnknownKey, unsigned(error::BADKEY)) };
    let (octets, least, most) =
        (tsig.mac.len(), key.algorithm().mac_bytes_min(), key.algorithm().mac_bytes());
    if octets < least || octets > most {
        return refuse(Reason::MacLength { octets, least, most }, bare(&stripped, rcode::FORMERR));
    }
    let mut digest = Digest::new(&key);
    digest.message(&stripped, tsig.original_id);
    digest.variables(&key, &tsig);
    if !digest.proves(&tsig.mac) {
        return refuse(Reason::BadSignature, unsigned(error::BADSIG));
    }
    let mut session = Session { key, prior_mac: tsig.mac.clone(), first: true };
    if !in_window(tsig.time_s, tsig.fudge_s, now_s) {
        let fudge_s = tsig.fudge_s.min(FUDGE_S);
        let mut answer = bare(&stripped, rcode::NOTAUTH);
        session.sign_bad_time(&mut answer, tsig.time_s, now_s);
        return refuse(Reason::Time { signed_s: tsig.time_s, now_s, fudge_s }, answer);
    }
    Opening::Signed(Signed { octets: stripped, session })
}

impl From<Refused> for Opening {
    fn from(refused: Refused) -> Self {
        Self::Refused(Box::new(refused))
    }
}

/// An answer with the question, if it can be read, and a code.
fn bare(request: &[u8], rcode: u8) -> Vec<u8> {
    let Some(Header { id, flags }) = Message::peek_header(request) else { return Vec::new() };
    let header = Header { id, flags: flags.reply(0, rcode) };
    let mut writer = MessageWriter::new(header, MESSAGE_BYTES_MAX);
    if let Ok(message) = Message::parse(request)
        && let Some(question) = message.question()
    {
        let fits = writer.question(&question.name, question.qtype, question.qclass);
        debug_assert!(fits.is_ok(), "one question fits");
    }
    writer.finish()
}

/// The answers to one signed request: each is signed, and bound to what came before it.
pub struct Session {
    key: Arc<Key>,
    prior_mac: Box<[u8]>,
    first: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({:?})", self.key)
    }
}

impl Session {
    /// The key that the request was signed with.
    pub fn key(&self) -> &Arc<Key> {
        &self.key
    }

    /// Octets that signing adds to an answer.
    pub fn record_bytes(&self) -> usize {
        self.key.record_bytes()
    }

    /// Signs the next answer, which has room for [`Session::record_bytes`] more.
    pub fn sign(&mut self, answer: &mut Vec<u8>, now_s: u64) {
        let tsig = self.record(answer, now_s);
        self.finish(answer, tsig);
    }

    /// §5.2.3: the asker's time, so that it can check the answer, and ours beside it.
    fn sign_bad_time(&mut self, answer: &mut Vec<u8>, theirs_s: u64, now_s: u64) {
        let other = now_s.to_be_bytes()[2..].into();
        let tsig = Tsig { error: error::BADTIME, other, ..self.record(answer, theirs_s) };
        self.finish(answer, tsig);
    }

    fn record(&self, answer: &[u8], time_s: u64) -> Tsig {
        Tsig {
            key_name: self.key.wire_name().into(),
            algorithm: self.key.algorithm().wire_name().into(),
            time_s,
            fudge_s: FUDGE_S,
            mac: Box::default(),
            original_id: record::id_of(answer),
            error: 0,
            other: Box::default(),
        }
    }

    fn finish(&mut self, answer: &mut Vec<u8>, mut tsig: Tsig) {
        let mut digest = Digest::new(&self.key);
        digest.prior_mac(&self.prior_mac);
        digest.plain(answer);
        if self.first {
            digest.variables(&self.key, &tsig);
        } else {
            digest.timers(&tsig);
        }
        tsig.mac = digest.mac();
        record::append(answer, &tsig);
        self.prior_mac = tsig.mac;
        self.first = false;
    }
}
