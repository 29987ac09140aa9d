//! The grammar that all signed texts share: `name: value` lines in a fixed order.
//!
//! What is signed is what is shown is what is run (invariant 5), so each value has one text and
//! each text one value:
//! - printable ASCII alone (0x20 to 0x7e): nothing looks like another letter, nothing hides, and
//!   nothing turns the direction of reading; each line ends with one line feed and never with a space;
//! - a value is spelled in one way: numbers without leading zeros, hashes and ids in lower-case
//!   hexadecimal, times as `2026-11-25T03:00:00Z`, yes and no, free text by percent-escapes,
//!   nothing as `(none)`; sets are sorted, one line an element;
//! - a text is read in order, rendered again from what was read, and refused unless that gives
//!   the same octets. So a reader that is too lenient somewhere still lets no second text pass.
//!
//! Lengths are bounded before anything else is looked at. No input panics.

use std::fmt::{self, Write as _};

mod character;
pub(crate) mod parts;
mod time;

pub use character::Found;
pub use time::{TIME_S_MAX, parse_time, time_text};

/// Octets of a line: an 8192-bit RSA key, or a zone name of 255 octets with each of them escaped,
/// takes less than half of it.
pub const LINE_BYTES_MAX: usize = 4096;
/// Octets of the names that officers give: of an appliance, a token, a group, a policy.
pub const PLAIN_BYTES_MAX: usize = 64;
/// What such a name is, for errors.
pub const PLAIN: &str = "1 to 64 of a-z, 0-9, '-', '_' and '.'";
/// Characters of a line that an error repeats: enough to find the place.
const SHOWN_CHARS_MAX: usize = 100;
/// Free text without a character.
const EMPTY: &str = "(empty)";
/// A field that may be absent, and is. No value of a field looks so.
const NONE: &str = "(none)";

/// Why a text is not one of the texts that officers sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Longer than any text of its kind.
    #[error("the text has {found} octets; expected at most {max}")]
    TooLong {
        /// Octets found.
        found: usize,
        /// Octets expected at most.
        max: usize,
    },
    /// A line longer than any line.
    #[error("line {line} has {found} octets; expected at most {LINE_BYTES_MAX}")]
    LineTooLong {
        /// Which line, from 1.
        line: usize,
        /// Octets found.
        found: usize,
    },
    /// A character that no text has.
    #[error(
        "line {line}, character {column}: found {found}; expected printable ASCII alone, and a line \
         feed at the end of each line"
    )]
    Character {
        /// Which line, from 1.
        line: usize,
        /// Which character of the line, from 1.
        column: usize,
        /// What it is.
        found: Found,
    },
    /// A line that ends with a space.
    #[error("line {line}: found a space at its end; expected none")]
    TrailingSpace {
        /// Which line, from 1.
        line: usize,
    },
    /// The last line has no line feed.
    #[error("line {line}: found the end of the text; expected a line feed first")]
    Unended {
        /// Which line, from 1.
        line: usize,
    },
    /// Another line than the one that comes here.
    #[error("line {line}: found {found}; expected {expected}")]
    Unexpected {
        /// Which line, from 1.
        line: usize,
        /// The line or the value that is there.
        found: String,
        /// The one that should be.
        expected: String,
    },
    /// A value that is none of its field.
    #[error("line {line}: found {found}, which is refused: {problem}")]
    Value {
        /// Which line, from 1.
        line: usize,
        /// The value that is there.
        found: String,
        /// What is wrong with it, and what was expected.
        problem: String,
    },
}

/// Reads the lines of one text in order.
#[derive(Debug)]
pub(crate) struct Reader<'t> {
    text: &'t str,
    rest: &'t str,
    /// The number of the next line, from 1.
    line: usize,
}

/// The value of a line, and where it stood.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'t> {
    pub(crate) line: usize,
    pub(crate) value: &'t str,
}

impl<'t> Reader<'t> {
    /// Checks length, characters and line ends of the whole text, so that all else can go by lines.
    pub(crate) fn new(text: &'t str, bytes_max: usize) -> Result<Self, TextError> {
        if text.len() > bytes_max {
            return Err(TextError::TooLong { found: text.len(), max: bytes_max });
        }
        for (at, ended) in text.split_inclusive('\n').enumerate() {
            let line = at + 1;
            let content = ended.strip_suffix('\n').unwrap_or(ended);
            let strange = |(_, c): &(usize, char)| !matches!(c, ' '..='~');
            if let Some((column, found)) = content.chars().enumerate().find(strange) {
                return Err(TextError::Character { line, column: column + 1, found: Found(found) });
            }
            if content.len() > LINE_BYTES_MAX {
                return Err(TextError::LineTooLong { line, found: content.len() });
            }
            if content.ends_with(' ') {
                return Err(TextError::TrailingSpace { line });
            }
            if content.len() == ended.len() {
                return Err(TextError::Unended { line });
            }
        }
        Ok(Self { text, rest: text, line: 1 })
    }

    fn next_line(&self) -> Option<&'t str> {
        self.rest.split_once('\n').map(|(line, _)| line)
    }

    fn advance(&mut self) {
        self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
        self.line += 1;
    }

    fn unexpected(&self, expected: impl Into<String>) -> TextError {
        let found = self.next_line().map_or_else(|| "the end of the text".to_owned(), shown);
        TextError::Unexpected { line: self.line, found, expected: expected.into() }
    }

    /// The line that says which kind of text this is: one of `heads`; gives its index.
    pub(crate) fn head(&mut self, heads: &[&str]) -> Result<usize, TextError> {
        let found = heads.iter().position(|head| self.next_line() == Some(head));
        let expected = || heads.iter().map(|head| shown(head)).collect::<Vec<_>>().join(" or ");
        let at = found.ok_or_else(|| self.unexpected(expected()))?;
        self.advance();
        Ok(at)
    }

    /// The value of the next line if that line has this name.
    pub(crate) fn take(&mut self, name: &str) -> Option<Field<'t>> {
        let value = self.next_line()?.strip_prefix(name)?.strip_prefix(": ")?;
        let line = self.line;
        self.advance();
        Some(Field { line, value })
    }

    /// The value of the next line, which must have this name.
    pub(crate) fn field(&mut self, name: &str) -> Result<Field<'t>, TextError> {
        self.take(name).ok_or_else(|| self.unexpected(format!("`{name}: …`")))
    }

    /// The values of the next lines with this name: at least one, and at most `max`.
    pub(crate) fn fields(&mut self, name: &str, max: usize) -> Result<Vec<Field<'t>>, TextError> {
        let mut fields = vec![self.field(name)?];
        while let Some(field) = self.take(name) {
            if fields.len() == max {
                return Err(field.unexpected(format!("at most {max} lines `{name}`")));
            }
            fields.push(field);
        }
        Ok(fields)
    }

    /// Ends the reading: what was read, rendered, is the text. (So nothing is left either.)
    pub(crate) fn finish(self, rendered: &str) -> Result<(), TextError> {
        if self.text == rendered {
            return Ok(());
        }
        let ended = || "the end of the text".to_owned();
        let (mut found, mut expected) = (self.text.lines(), rendered.lines());
        let mut line = 1;
        loop {
            let (found, expected) = (found.next(), expected.next());
            if found != expected || found.is_none() {
                let found = found.map_or_else(ended, shown);
                let expected = expected.map_or_else(ended, shown);
                return Err(TextError::Unexpected { line, found, expected });
            }
            line += 1;
        }
    }
}

impl Field<'_> {
    /// The error that this value is not what was expected.
    pub(crate) fn unexpected(self, expected: impl Into<String>) -> TextError {
        let found = shown(self.value);
        TextError::Unexpected { line: self.line, found, expected: expected.into() }
    }

    /// Reads the value by its type's own rules.
    pub(crate) fn parse<T>(self) -> Result<T, TextError>
    where
        T: std::str::FromStr<Err: fmt::Display>,
    {
        self.value.parse().map_err(|problem: T::Err| self.refused(&problem))
    }

    /// The error that this value is none of its type, by the type's own words.
    pub(crate) fn refused(self, problem: &impl fmt::Display) -> TextError {
        let (found, problem) = (shown(self.value), problem.to_string());
        TextError::Value { line: self.line, found, problem }
    }

    /// A number of at most the type's size, without leading zeros.
    pub(crate) fn number<T: std::str::FromStr>(self) -> Result<T, TextError> {
        let is_digits = self.value.bytes().all(|b| b.is_ascii_digit());
        let is_plain = is_digits && (self.value == "0" || !self.value.starts_with('0'));
        let number = if is_plain { self.value.parse().ok() } else { None };
        let bits = 8 * size_of::<T>();
        number.ok_or_else(|| {
            self.unexpected(format!("a number below 2^{bits}, without a zero in front"))
        })
    }

    /// A time.
    pub(crate) fn time(self) -> Result<u64, TextError> {
        let expected = "a time from 1970 to 2199, as `2026-11-25T03:00:00Z`";
        parse_time(self.value).ok_or_else(|| self.unexpected(expected))
    }

    /// Octets in lower-case hexadecimal.
    pub(crate) fn octets<const N: usize>(self) -> Result<[u8; N], TextError> {
        let octets = crate::key::from_hex(self.value).and_then(|octets| octets.try_into().ok());
        octets.ok_or_else(|| self.unexpected(format!("{} lower-case hexadecimal digits", 2 * N)))
    }

    /// Yes or no.
    pub(crate) fn yes_no(self) -> Result<bool, TextError> {
        match self.value {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(self.unexpected("`yes` or `no`")),
        }
    }

    /// A name that officers gave.
    pub(crate) fn plain(self) -> Result<String, TextError> {
        if is_plain(self.value) { Ok(self.value.to_owned()) } else { Err(self.unexpected(PLAIN)) }
    }

    /// Nothing, or a value.
    pub(crate) fn optional(self) -> Option<Self> {
        (self.value != NONE).then_some(self)
    }

    /// The words of the value, one space between.
    pub(crate) fn words<const N: usize>(self, expected: &str) -> Result<[Self; N], TextError> {
        let words: Vec<Self> =
            self.value.splitn(N + 1, ' ').map(|value| Self { line: self.line, value }).collect();
        words.try_into().map_err(|_| self.unexpected(expected))
    }

    /// Free text, escaped.
    pub(crate) fn free(self) -> Result<String, TextError> {
        let expected = "text with %XX for each octet outside A-Z, a-z, 0-9, '.', '_' and '-'";
        unescape(self.value).ok_or_else(|| self.unexpected(expected))
    }
}

/// Writes the lines of one text.
#[derive(Debug)]
pub(crate) struct Writer(String);

impl Writer {
    /// Begins with the line that says which kind of text it is.
    pub(crate) fn new(head: &str) -> Self {
        Self(format!("{head}\n"))
    }

    /// Adds a line. The value has no line feed: free text comes escaped.
    pub(crate) fn field(&mut self, name: &str, value: impl fmt::Display) {
        // Writing to a String never fails.
        let _ = writeln!(self.0, "{name}: {value}");
    }

    /// Adds lines of one name.
    pub(crate) fn fields<T: fmt::Display>(
        &mut self,
        name: &str,
        values: impl IntoIterator<Item = T>,
    ) {
        for value in values {
            self.field(name, value);
        }
    }

    /// Adds another text, whole.
    pub(crate) fn append(&mut self, text: &str) {
        self.0.push_str(text);
    }

    /// The text.
    pub(crate) fn finish(self) -> String {
        self.0
    }
}

/// `yes` or `no`.
pub(crate) const fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// The value's text, or the one for nothing.
pub(crate) fn optional(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| value.to_string())
}

/// Whether a name that officers give is one: an appliance's, a token's, a group's, a policy's.
pub fn is_plain(name: &str) -> bool {
    (1..=PLAIN_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
}

/// Free text as one word: each octet outside A-Z, a-z, 0-9, '.', '_' and '-' becomes `%` and two
/// upper-case hexadecimal digits. A name that [`is_plain`] is itself.
pub fn escape(text: &str) -> String {
    if text.is_empty() {
        return EMPTY.to_owned();
    }
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            push_escape(&mut escaped, byte);
        }
    }
    escaped
}

/// The reverse of [`escape`], of its one spelling only.
pub fn unescape(escaped: &str) -> Option<String> {
    if escaped == EMPTY {
        return Some(String::new());
    }
    let text = resolve(escaped)?;
    (escape(&text) == escaped).then_some(text)
}

/// A sentence as a line shows it: printable ASCII stays as it is, but for `%` and a space at either
/// end; all else is escaped as by [`escape`], so that no text that somebody hands in makes a line.
pub(crate) fn escape_sentence(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        let inside = at != 0 && at + 1 != text.len();
        if matches!(byte, b'!'..=b'~') && byte != b'%' || (byte == b' ' && inside) {
            escaped.push(char::from(byte));
        } else {
            push_escape(&mut escaped, byte);
        }
    }
    escaped
}

/// The reverse of [`escape_sentence`], for sentences of printable ASCII.
pub(crate) fn unescape_sentence(escaped: &str) -> Option<String> {
    let text = resolve(escaped)?;
    (escape_sentence(&text) == escaped).then_some(text)
}

fn push_escape(escaped: &mut String, byte: u8) {
    let _ = write!(escaped, "%{byte:02X}");
}

/// Puts octets in the place of their escapes.
fn resolve(escaped: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            octets.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            octets.push(byte);
        }
    }
    String::from_utf8(octets).ok()
}

/// A line or a value in an error: quoted, and cut where it is long.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
pub(crate) mod edits;
#[cfg(test)]
mod tests;
