//! Names inside RDATA: which types have them, and where (RFC 3597 §4).
//!
//! A sender may compress only in the types of RFC 1035; older senders did so in others too, and
//! RFC 3597 §4 asks receivers to decompress those. No other type is looked into: what looks like
//! a pointer in an unknown type, in RRSIG or in NSEC is data.

use super::message::WireError;
use super::name::read_name;

/// One piece of an RDATA that holds names.
#[derive(Clone, Copy)]
enum Field {
    Name,
    Fixed(usize),
    /// A character-string (RFC 1035 §3.3): one octet of length and as many octets.
    Text,
    /// Whatever is left.
    Rest,
}

use Field::{Fixed, Name, Rest, Text};

/// The fields of a type whose names may be compressed; `None` for every other type.
fn layout(rtype: u16) -> Option<&'static [Field]> {
    Some(match rtype {
        // NS, MD, MF, CNAME, MB, MG, MR, PTR (RFC 1035 §3.3), DNAME (RFC 6672 §2.1)
        2 | 3 | 4 | 5 | 7 | 8 | 9 | 12 | 39 => &[Name],
        // SOA: mname, rname, five 32-bit numbers
        6 => &[Name, Name, Fixed(20)],
        // MINFO (RFC 1035), RP (RFC 1183 §2.2)
        14 | 17 => &[Name, Name],
        // MX (RFC 1035), AFSDB and RT (RFC 1183), KX (RFC 2230)
        15 | 18 | 21 | 36 => &[Fixed(2), Name],
        // SIG (RFC 2535 §4.1): 18 octets, signer, signature
        24 => &[Fixed(18), Name, Rest],
        // PX (RFC 2163 §4)
        26 => &[Fixed(2), Name, Name],
        // NXT (RFC 2535 §5.2)
        30 => &[Name, Rest],
        // SRV (RFC 2782)
        33 => &[Fixed(6), Name],
        // NAPTR (RFC 3403 §4.1): order, preference, flags, services, regexp, replacement
        35 => &[Fixed(4), Text, Text, Text, Name],
        _ => return None,
    })
}

/// Appends the RDATA at `start..end` of `message` to `out`, its names uncompressed.
pub fn decompress_rdata(
    message: &[u8],
    rtype: u16,
    start: usize,
    end: usize,
    out: &mut Vec<u8>,
) -> Result<(), WireError> {
    let rdata = message.get(start..end).ok_or(WireError::Short { at: start })?;
    let Some(fields) = layout(rtype) else {
        out.extend_from_slice(rdata);
        return Ok(());
    };
    let mut pos = start;
    for field in fields {
        let len = match field {
            Name => {
                pos = read_name(message, pos, end, out)?;
                continue;
            }
            Fixed(len) => *len,
            Text => match message.get(pos).filter(|_| pos < end) {
                Some(len) => 1 + usize::from(*len),
                None => return Err(WireError::Short { at: pos }),
            },
            Rest => end - pos,
        };
        if end - pos < len {
            return Err(WireError::Short { at: pos });
        }
        out.extend_from_slice(&message[pos..pos + len]);
        pos += len;
    }
    if pos != end {
        return Err(WireError::RdataTooLong { at: pos, rtype });
    }
    Ok(())
}
