//! What a character is that no signed text may have, told without showing it.

use std::fmt;

/// A character that was found where printable ASCII was expected. Its text names the code point, and
/// what makes it dangerous; the character itself is never printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found(pub char);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = u32::from(self.0);
        let what = match code {
            0x00 => "NUL",
            0x09 => "a tab",
            0x0d => "a carriage return",
            0x00..=0x1f | 0x7f => "a control character of ASCII",
            0x80..=0x9f => "a control character",
            0xa0 | 0x2000..=0x200a | 0x202f | 0x205f | 0x3000 => {
                "a space that is not the space of ASCII"
            }
            0x61c | 0x200e | 0x200f | 0x202a..=0x202e | 0x2066..=0x2069 => {
                "a character that turns the direction of reading"
            }
            0xad
            | 0x34f
            | 0x115f
            | 0x1160
            | 0x17b4
            | 0x17b5
            | 0x180b..=0x180f
            | 0x200b..=0x200d
            | 0x2060..=0x2065
            | 0x206a..=0x206f
            | 0x3164
            | 0xfe00..=0xfe0f
            | 0xfeff
            | 0xffa0
            | 0xe0000..=0xe0fff => "a character that does not show",
            0x2028 | 0x2029 => "a line separator that is not the line feed",
            _ => "not a character of ASCII, whatever it looks like",
        };
        write!(f, "U+{code:04X}, {what}")
    }
}
