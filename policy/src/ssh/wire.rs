//! The wire format of SSH (RFC 4251 §5), read strictly: one value has one encoding, and what is
//! left over is an error.

/// Bytes that are not what the SSH wire format says they should be. `within` names the structure,
/// `field` the part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end before the field does.
    #[error("{within} ends inside its {field}: it was cut short or is damaged")]
    Truncated {
        /// The structure.
        within: &'static str,
        /// The field that is not whole.
        field: &'static str,
    },
    /// Bytes follow where the structure should end.
    #[error("{within} has {count} bytes too many after its last field")]
    Trailing {
        /// The structure.
        within: &'static str,
        /// How many bytes follow.
        count: usize,
    },
    /// A number that is zero, negative, or has a leading octet that it does not need.
    #[error("{within}: {field} is not a positive number in its shortest form (RFC 4251 §5)")]
    Number {
        /// The structure.
        within: &'static str,
        /// The field.
        field: &'static str,
    },
}

/// Reads the fields of one structure from the front; [`Reader::end`] checks that nothing is left.
pub(super) struct Reader<'a> {
    within: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`, which errors will call `within`.
    pub(super) fn new(within: &'static str, bytes: &'a [u8]) -> Self {
        Self { within, rest: bytes }
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(WireError::Truncated { within: self.within, field })?;
        self.rest = rest;
        Ok(taken)
    }

    /// `byte`.
    pub(super) fn byte(&mut self, field: &'static str) -> Result<u8, WireError> {
        Ok(self.take(1, field)?[0])
    }

    /// `uint32`: four octets, big-endian.
    pub(super) fn uint32(&mut self, field: &'static str) -> Result<u32, WireError> {
        let octets = self.take(4, field)?;
        Ok(u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]]))
    }

    /// `string`: a `uint32` length and that many octets.
    pub(super) fn string(&mut self, field: &'static str) -> Result<&'a [u8], WireError> {
        let len = self.uint32(field)?;
        let len = usize::try_from(len)
            .map_err(|_| WireError::Truncated { within: self.within, field })?;
        self.take(len, field)
    }

    /// `mpint`, of which only positive ones are met here: the big-endian magnitude, without the
    /// zero octet that keeps a set top bit from meaning "negative".
    pub(super) fn positive(&mut self, field: &'static str) -> Result<&'a [u8], WireError> {
        let octets = self.string(field)?;
        let magnitude = match octets {
            [0, rest @ ..] if rest.first().is_some_and(|top| top & 0x80 != 0) => rest,
            [top, ..] if (0x01..0x80).contains(top) => octets,
            _ => return Err(WireError::Number { within: self.within, field }),
        };
        Ok(magnitude)
    }

    /// The structure ends here.
    pub(super) fn end(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing { within: self.within, count: self.rest.len() })
        }
    }
}

/// Appends a `string`. Everything that is written here is bounded far below 2^32.
pub(super) fn put_string(out: &mut Vec<u8>, octets: &[u8]) {
    out.extend_from_slice(&(octets.len() as u32).to_be_bytes());
    out.extend_from_slice(octets);
}

/// How much of a foreign string an error shows: enough to recognise it, too little to flood a log.
const SHOWN_BYTES_MAX: usize = 60;

/// A foreign string for an error's text: printable ASCII, the rest escaped, cut at
/// [`SHOWN_BYTES_MAX`].
pub(super) fn shown(octets: &[u8]) -> String {
    let cut = &octets[..octets.len().min(SHOWN_BYTES_MAX)];
    let dots = if cut.len() < octets.len() { "…" } else { "" };
    format!("{}{dots}", cut.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positive(octets: &[u8]) -> Result<Vec<u8>, WireError> {
        let mut wire = Vec::new();
        put_string(&mut wire, octets);
        let mut reader = Reader::new("test", &wire);
        let magnitude = reader.positive("number")?.to_vec();
        reader.end()?;
        Ok(magnitude)
    }

    /// The examples of RFC 4251 §5, and their neighbours.
    #[test]
    fn a_number_has_one_encoding() {
        let refused = Err(WireError::Number { within: "test", field: "number" });
        assert_eq!(positive(&[0x09, 0xa3]), Ok(vec![0x09, 0xa3]));
        assert_eq!(positive(&[0x00, 0x80]), Ok(vec![0x80]));
        assert_eq!(positive(&[]), refused, "zero");
        assert_eq!(positive(&[0x00]), refused, "zero, long form");
        assert_eq!(positive(&[0xed, 0xcc]), refused, "-1234");
        assert_eq!(positive(&[0x00, 0x7f]), refused, "a zero octet too many");
        assert_eq!(positive(&[0x00, 0x00, 0x80]), refused, "two zero octets");
    }

    #[test]
    fn lengths_are_believed_only_as_far_as_bytes_reach() {
        let truncated = Err(WireError::Truncated { within: "test", field: "name" });
        assert_eq!(Reader::new("test", &[0xff; 4]).string("name"), truncated);
        assert_eq!(Reader::new("test", &[0, 0, 0]).string("name"), truncated);
        assert_eq!(Reader::new("test", &[0, 0, 0, 2, 1]).string("name"), truncated);
        let mut reader = Reader::new("test", &[0, 0, 0, 1, 7, 8]);
        assert_eq!(reader.string("name"), Ok(&[7][..]));
        assert_eq!(reader.end(), Err(WireError::Trailing { within: "test", count: 1 }));
    }

    #[test]
    fn foreign_strings_are_shown_short_and_printable() {
        assert_eq!(shown(b"ssh-dss"), "ssh-dss");
        assert_eq!(shown(b"a\x1b[31m\n"), r"a\x1b[31m\n");
        assert!(shown(&[b'a'; 1000]).len() < 70);
    }
}
