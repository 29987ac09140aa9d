//! Frames on the keeper's sockets: a 32-bit big-endian length, then that many octets of postcard
//! holding `(id, message)`. The length is checked before anything is allocated for it.

use std::io::{self, Read};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::FRAME_BYTES_MAX;

/// Octets of the length in front.
pub const PREFIX_BYTES: usize = 4;

/// Why octets are not a frame, or a message can't be one.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`FRAME_BYTES_MAX`].
    #[error("a frame of {0} octets; at most {FRAME_BYTES_MAX} are taken")]
    TooLong(usize),
    /// The content is no message of this protocol.
    #[error("not a message of this protocol: {0}")]
    Content(postcard::Error),
    /// The message ends before the frame does.
    #[error("{0} octets follow the message in its frame")]
    Trailing(usize),
    /// The connection failed, or ended in mid-frame.
    #[error("reading a frame: {0}")]
    Io(#[from] io::Error),
}

/// A whole frame, length included.
pub fn encode<T: Serialize>(id: u64, message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame =
        postcard::to_extend(&(id, message), vec![0; PREFIX_BYTES]).map_err(FrameError::Content)?;
    let len = frame.len() - PREFIX_BYTES;
    if len > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(len));
    }
    frame[..PREFIX_BYTES].copy_from_slice(&(len as u32).to_be_bytes());
    Ok(frame)
}

/// Reads the content of a frame.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<(u64, T), FrameError> {
    let (content, rest) = postcard::take_from_bytes(body).map_err(FrameError::Content)?;
    if rest.is_empty() { Ok(content) } else { Err(FrameError::Trailing(rest.len())) }
}

/// Reads one frame's content into `body`. `false` if the connection ended before its first octet.
pub fn read(reader: &mut impl Read, body: &mut Vec<u8>) -> Result<bool, FrameError> {
    let mut prefix = [0; PREFIX_BYTES];
    let mut have = 0;
    while have < PREFIX_BYTES {
        match reader.read(&mut prefix[have..]) {
            Ok(0) if have == 0 => return Ok(false),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    let len = u32::from_be_bytes(prefix) as usize;
    if len > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(len));
    }
    body.clear();
    body.resize(len, 0);
    reader.read_exact(body)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{BATCH_MAX, Request};

    fn sign(items: usize) -> Request {
        Request::SignZone {
            zone: "example.".parse().expect("name"),
            key: countersign_policy::KeyId([7; 32]),
            tbs: vec![Vec::new(); items],
        }
    }

    #[test]
    fn a_message_survives_its_frame() {
        let frame = encode(9, &sign(BATCH_MAX)).expect("fits");
        let mut body = Vec::new();
        assert!(read(&mut &frame[..], &mut body).expect("whole"));
        assert_eq!(decode::<Request>(&body).expect("message"), (9, sign(BATCH_MAX)));
        assert!(!read(&mut &[][..], &mut body).expect("a clean end"));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let mut body = Vec::new();
        let huge = u32::MAX.to_be_bytes();
        assert!(matches!(read(&mut &huge[..], &mut body), Err(FrameError::TooLong(_))));
        assert!(body.capacity() < 1024, "nothing is allocated for a length that is refused");
        let frame = encode(1, &sign(1)).expect("fits");
        for cut in 1..frame.len() {
            assert!(matches!(read(&mut &frame[..cut], &mut body), Err(FrameError::Io(_))), "{cut}");
        }
        let mut longer = frame[PREFIX_BYTES..].to_vec();
        longer.push(0);
        assert!(matches!(decode::<Request>(&longer), Err(FrameError::Trailing(1))));
        let many = encode(1, &sign(BATCH_MAX + 1)).expect("fits");
        assert!(matches!(decode::<Request>(&many[PREFIX_BYTES..]), Err(FrameError::Content(_))));
    }
}
