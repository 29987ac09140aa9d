//! Names in messages: RFC 1035 §3.1 and the compression of §4.1.4.

use super::HEADER_BYTES;
use super::message::WireError;

/// A name's wire form holds at most 255 octets (RFC 1035 §3.1).
pub const NAME_BYTES_MAX: usize = 255;
const LABEL_BYTES_MAX: u8 = 63;

/// Reads the name at `at`, appends its uncompressed form to `out` with its case, and returns
/// where the name ends in the message (behind its first pointer, if it has one).
///
/// `limit` is where the bytes in place must end: the end of the message for an owner, of the
/// RDATA for a name in RDATA. A pointer must point backwards, before every octet of the name
/// read so far and behind the header, so no message can make this loop: each jump goes to a
/// smaller offset, and the name's length is bounded as well.
pub fn read_name(
    message: &[u8],
    at: usize,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<usize, WireError> {
    let start = out.len();
    let mut pos = at;
    // The lowest offset read so far: a pointer must go below it.
    let mut floor = at;
    let mut limit = limit.min(message.len());
    let mut end = None;
    loop {
        if pos >= limit {
            return Err(WireError::Short { at: pos });
        }
        let len = message[pos];
        match len {
            0 => {
                out.push(0);
                if out.len() - start > NAME_BYTES_MAX {
                    return Err(WireError::NameTooLong { at });
                }
                return Ok(end.unwrap_or(pos + 1));
            }
            1..=LABEL_BYTES_MAX => {
                let next = pos + 1 + usize::from(len);
                if next > limit {
                    return Err(WireError::Short { at: pos });
                }
                out.extend_from_slice(&message[pos..next]);
                if out.len() - start >= NAME_BYTES_MAX {
                    return Err(WireError::NameTooLong { at });
                }
                pos = next;
            }
            0xc0..=0xff => {
                if pos + 2 > limit {
                    return Err(WireError::Short { at: pos });
                }
                let target = usize::from(u16::from_be_bytes([len & 0x3f, message[pos + 1]]));
                if target >= floor || target < HEADER_BYTES {
                    return Err(WireError::BadPointer { at: pos, target });
                }
                end.get_or_insert(pos + 2);
                floor = target;
                pos = target;
                // What is pointed at was in the message before; only the message bounds it.
                limit = message.len();
            }
            // 0x40 (RFC 2673, withdrawn) and 0x80 (never assigned).
            _ => return Err(WireError::BadLabel { at: pos }),
        }
    }
}
