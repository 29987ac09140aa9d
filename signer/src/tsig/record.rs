//! The TSIG record (RFC 8945 §4.2), and where it stands in a message (§5.1).

use crate::wire::{HEADER_BYTES, MESSAGE_BYTES_MAX, NAME_BYTES_MAX, read_name, types};

/// The record's class.
pub(super) const CLASS_ANY: u16 = 255;
/// Time signed, fudge, MAC size, original id, error, other length.
const FIXED_BYTES: usize = 6 + 2 + 2 + 2 + 2 + 2;
/// Type, class, TTL, RDATA length.
const BEHIND_OWNER_BYTES: usize = 10;

/// Numbers of the record's error field (RFC 8945 §3).
pub mod error {
    /// The MAC is wrong.
    pub const BADSIG: u16 = 16;
    /// The key or its algorithm is not known.
    pub const BADKEY: u16 = 17;
    /// Signed too long ago, or in the future.
    pub const BADTIME: u16 = 18;
    /// The MAC was cut too short.
    pub const BADTRUNC: u16 = 22;

    /// The mnemonic, or the number.
    pub fn text(error: u16) -> String {
        match error {
            BADSIG => "BADSIG".into(),
            BADKEY => "BADKEY".into(),
            BADTIME => "BADTIME".into(),
            BADTRUNC => "BADTRUNC".into(),
            other => format!("TSIG error {other}"),
        }
    }
}

/// Why a message's TSIG cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The message is not one.
    #[error("message ends in the middle of something at octet {at}, or goes on behind its end")]
    Message {
        /// Where.
        at: usize,
    },
    /// Not the last record of the additional section, or not alone.
    #[error("TSIG at octet {at} is not the message's last record")]
    Misplaced {
        /// Where it begins.
        at: usize,
    },
    /// Its class is not ANY, or its TTL not 0.
    #[error("TSIG has class {class} and TTL {ttl}, expected 255 and 0")]
    ClassOrTtl {
        /// Its class.
        class: u16,
        /// Its TTL.
        ttl: u32,
    },
    /// Fields that do not add up.
    #[error(
        "TSIG's data cannot be read: its lengths do not add up, or its algorithm is no plain name"
    )]
    Rdata,
}

/// The record, taken apart. Names are wire form in lower case, as they are digested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tsig {
    pub key_name: Box<[u8]>,
    pub algorithm: Box<[u8]>,
    /// Seconds since 1970, 48 bits.
    pub time_s: u64,
    pub fudge_s: u16,
    pub mac: Box<[u8]>,
    pub original_id: u16,
    pub error: u16,
    pub other: Box<[u8]>,
}

/// A record, and the octet of the message at which it begins.
#[derive(Debug)]
pub(super) struct Found {
    pub tsig: Tsig,
    pub at: usize,
}

impl Found {
    /// The message as it was before it was signed, but for its id.
    pub(super) fn strip(&self, message: &[u8]) -> Vec<u8> {
        let mut stripped = message.get(..self.at).unwrap_or_default().to_vec();
        change_additional(&mut stripped, |count| count.wrapping_sub(1));
        stripped
    }
}

/// The TSIG of a message, if it has one.
pub(super) fn find(message: &[u8]) -> Result<Option<Found>, Malformed> {
    let counts = [4, 6, 8, 10].map(|at| u16_at(message, at).map(usize::from));
    let [Some(questions), Some(answers), Some(authorities), Some(additionals)] = counts else {
        return Err(Malformed::Message { at: message.len() });
    };
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(Malformed::Message { at: MESSAGE_BYTES_MAX });
    }
    let mut at = HEADER_BYTES;
    let ended = |at| Malformed::Message { at };
    for _ in 0..questions {
        at = skip_name(message, at).ok_or(ended(at))? + 4;
    }
    let records = answers + authorities + additionals;
    for number in 0..records {
        let start = at;
        let owner_end = skip_name(message, start).ok_or(ended(start))?;
        let rtype = u16_at(message, owner_end).ok_or(ended(owner_end))?;
        let data = owner_end + BEHIND_OWNER_BYTES;
        let len = u16_at(message, data - 2).ok_or(ended(data))?;
        at = data + usize::from(len);
        if rtype != types::TSIG {
            continue;
        }
        if additionals == 0 || number + 1 != records {
            return Err(Malformed::Misplaced { at: start });
        }
        if at != message.len() {
            return Err(ended(at));
        }
        return read(message, start, owner_end).map(Some);
    }
    if at == message.len() { Ok(None) } else { Err(ended(at)) }
}

/// Reads the record at `start`, whose length [`find`] has checked.
fn read(message: &[u8], start: usize, owner_end: usize) -> Result<Found, Malformed> {
    let mut key_name = Vec::new();
    read_name(message, start, message.len(), &mut key_name)
        .map_err(|_| Malformed::Message { at: start })?;
    key_name.make_ascii_lowercase();
    let fields = message.get(owner_end..owner_end + BEHIND_OWNER_BYTES);
    let fields: &[u8; BEHIND_OWNER_BYTES] =
        fields.and_then(|f| f.try_into().ok()).ok_or(Malformed::Rdata)?;
    let [_, _, c0, c1, t0, t1, t2, t3, ..] = *fields;
    let (class, ttl) = (u16::from_be_bytes([c0, c1]), u32::from_be_bytes([t0, t1, t2, t3]));
    if class != CLASS_ANY || ttl != 0 {
        return Err(Malformed::ClassOrTtl { class, ttl });
    }
    let rdata = message.get(owner_end + BEHIND_OWNER_BYTES..).ok_or(Malformed::Rdata)?;
    let tsig = rdata_of(key_name.into(), rdata).ok_or(Malformed::Rdata)?;
    Ok(Found { tsig, at: start })
}

fn rdata_of(key_name: Box<[u8]>, rdata: &[u8]) -> Option<Tsig> {
    let name_end = plain_name_end(rdata)?;
    let (algorithm, rest) = rdata.split_at_checked(name_end)?;
    let (time, rest) = rest.split_first_chunk::<6>()?;
    let (fudge, rest) = rest.split_first_chunk::<2>()?;
    let (mac, rest) = counted(rest)?;
    let (ids, rest) = rest.split_first_chunk::<4>()?;
    let (other, rest) = counted(rest)?;
    let mut time_s = [0; 8];
    time_s[2..].copy_from_slice(time);
    rest.is_empty().then(|| Tsig {
        key_name,
        algorithm: algorithm.to_ascii_lowercase().into(),
        time_s: u64::from_be_bytes(time_s),
        fudge_s: u16::from_be_bytes(*fudge),
        mac: mac.into(),
        original_id: u16::from_be_bytes([ids[0], ids[1]]),
        error: u16::from_be_bytes([ids[2], ids[3]]),
        other: other.into(),
    })
}

/// Two octets of length, and as many octets.
fn counted(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = octets.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

/// Where a name ends that no pointer shortens: the algorithm's must not be compressed (§4.2).
fn plain_name_end(octets: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *octets.get(at)? {
            0 if at < NAME_BYTES_MAX => return Some(at + 1),
            len @ 1..=63 => at += 1 + usize::from(len),
            _ => return None,
        }
    }
}

/// Where an owner name ends in the message, without following its pointer.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            len @ 1..=63 => at += 1 + usize::from(len),
            0xc0..=0xff => return Some(at + 2),
            _ => return None,
        }
    }
}

/// Octets of a whole record without other data.
pub(super) fn record_bytes(key_name: &[u8], algorithm: &[u8], mac_bytes: usize) -> usize {
    key_name.len() + BEHIND_OWNER_BYTES + algorithm.len() + FIXED_BYTES + mac_bytes
}

/// Adds the record to a message that has room for it.
pub(super) fn append(message: &mut Vec<u8>, tsig: &Tsig) {
    let rdata_len = tsig.algorithm.len() + FIXED_BYTES + tsig.mac.len() + tsig.other.len();
    message.extend_from_slice(&tsig.key_name);
    message.extend_from_slice(&types::TSIG.to_be_bytes());
    message.extend_from_slice(&CLASS_ANY.to_be_bytes());
    message.extend_from_slice(&0_u32.to_be_bytes());
    message.extend_from_slice(&(rdata_len as u16).to_be_bytes());
    message.extend_from_slice(&tsig.algorithm);
    message.extend_from_slice(&tsig.time_s.to_be_bytes()[2..]);
    message.extend_from_slice(&tsig.fudge_s.to_be_bytes());
    message.extend_from_slice(&(tsig.mac.len() as u16).to_be_bytes());
    message.extend_from_slice(&tsig.mac);
    message.extend_from_slice(&tsig.original_id.to_be_bytes());
    message.extend_from_slice(&tsig.error.to_be_bytes());
    message.extend_from_slice(&(tsig.other.len() as u16).to_be_bytes());
    message.extend_from_slice(&tsig.other);
    change_additional(message, |count| count.wrapping_add(1));
}

fn change_additional(message: &mut [u8], change: impl Fn(u16) -> u16) {
    if let Some(place) = message.get_mut(10..12) {
        let count = u16::from_be_bytes([place[0], place[1]]);
        place.copy_from_slice(&change(count).to_be_bytes());
    }
}

/// The message's id.
pub(super) fn id_of(message: &[u8]) -> u16 {
    u16_at(message, 0).unwrap_or_default()
}

fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    let two = octets.get(at..at + 2)?;
    Some(u16::from_be_bytes([two[0], two[1]]))
}
