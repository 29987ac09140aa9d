//! Octets of a zone file to entries of tokens (RFC 1035 §5.1), in pieces of any size: a parenthesis,
//! a quote, an escape may open in one piece and close in another. Comments are not kept, and one
//! entry has a bound, so a file of any length is read in little memory.
//!
//! A token keeps its escapes as they are written. Octets that are not printable ASCII come out as
//! `\DDD`, so that what reads tokens sees printable ASCII alone.

use std::fmt::{self, Write as _};

use super::{Problem, Trouble};

/// Octets that the tokens of one entry may take: RDATA of 65,535 octets, each written `\DDD`, and
/// room for quotes and blanks between its parts.
pub const ENTRY_BYTES_MAX: usize = 5 << 16;

/// Where something stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// From 1.
    pub line: u64,
    /// In octets, from 1.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A token of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// Printable ASCII with its escapes, quotes left out.
    pub text: &'a str,
    /// Whether it stood in quotes.
    pub quoted: bool,
    /// Whether it follows the token before it without a blank, as in `alpn="h2"`.
    pub glued: bool,
    /// Where it begins.
    pub place: Place,
}

impl Token<'_> {
    /// Whether it is this word, unquoted, in any case.
    pub fn is_word(&self, word: &str) -> bool {
        !self.quoted && self.text.eq_ignore_ascii_case(word)
    }
}

/// One entry: its tokens, and whether its line began with a blank.
#[derive(Debug, Default)]
pub struct Entry {
    text: String,
    spans: Vec<Span>,
    /// Whether its line begins with a blank, so that it continues the owner before it.
    pub indented: bool,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    quoted: bool,
    glued: bool,
    place: Place,
}

impl Entry {
    /// Its tokens.
    pub fn tokens(&self) -> impl Iterator<Item = Token<'_>> {
        self.spans.iter().map(|span| Token {
            text: self.text.get(span.start..span.end).unwrap_or_default(),
            quoted: span.quoted,
            glued: span.glued,
            place: span.place,
        })
    }

    fn clear(&mut self) {
        self.text.clear();
        self.spans.clear();
        self.indented = false;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the first octet of the file: a byte order mark may stand there.
    Start,
    /// So many octets of a byte order mark were seen.
    Mark(usize),
    /// Between tokens.
    Between,
    /// In a token.
    Word,
    /// In a quoted token.
    Quoted,
    /// Behind a `;`.
    Comment,
}

/// UTF-8's byte order mark, which some editors put in front of a text.
const MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// Takes octets, gives entries.
#[derive(Debug)]
pub struct Lexer {
    state: State,
    /// Behind a backslash in a token.
    escape: bool,
    /// A carriage return was the last octet: a line feed has to follow.
    carriage: bool,
    /// Whether nothing but the line's end has been seen since the last token.
    glue: bool,
    /// Where open parentheses stand, the outermost alone, and how many are open.
    opened: Place,
    depth: u32,
    here: Place,
    entry: Entry,
}

impl Lexer {
    /// At the start of a file.
    pub fn new() -> Self {
        Self {
            state: State::Start,
            escape: false,
            carriage: false,
            glue: false,
            opened: Place::default(),
            depth: 0,
            here: Place { line: 1, column: 0 },
            entry: Entry::default(),
        }
    }

    /// Where it stands.
    pub fn place(&self) -> Place {
        self.here
    }

    /// Takes the next octets; `take` gets each entry that ends in them.
    pub fn feed(
        &mut self,
        octets: &[u8],
        take: &mut impl FnMut(&Entry) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        for &octet in octets {
            self.here.column += 1;
            self.octet(octet, take)?;
            if octet == b'\n' {
                self.here = Place { line: self.here.line + 1, column: 0 };
            }
        }
        Ok(())
    }

    /// Ends the file. The last line may lack its end.
    pub fn finish(
        &mut self,
        take: &mut impl FnMut(&Entry) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        self.here.column += 1;
        self.carriage = false;
        if matches!(self.state, State::Mark(_)) {
            return Err(Problem::at(self.here, Trouble::Octet(MARK[0])));
        }
        self.line_end(take)?;
        if self.depth > 0 {
            return Err(Problem::at(self.opened, Trouble::OpenParenthesis));
        }
        Ok(())
    }

    fn octet(
        &mut self,
        octet: u8,
        take: &mut impl FnMut(&Entry) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        if std::mem::take(&mut self.carriage) && octet != b'\n' {
            return Err(Problem::at(self.here, Trouble::LoneCarriageReturn));
        }
        match self.state {
            State::Start if octet == MARK[0] => self.state = State::Mark(1),
            State::Start => {
                self.state = State::Between;
                return self.octet(octet, take);
            }
            State::Mark(seen) if octet == MARK[seen] => {
                self.state = if seen == 2 { State::Between } else { State::Mark(seen + 1) };
                if self.state == State::Between {
                    self.here.column = 0;
                }
            }
            State::Mark(_) => return Err(Problem::at(self.here, Trouble::Octet(MARK[0]))),
            State::Comment if octet != b'\n' => {}
            State::Comment => return self.line_end(take),
            _ if octet == b'\n' => return self.line_end(take),
            _ if octet == b'\r' => self.carriage = true,
            State::Between => self.between(octet)?,
            State::Word | State::Quoted => self.inside(octet)?,
        }
        Ok(())
    }

    fn between(&mut self, octet: u8) -> Result<(), Problem> {
        match octet {
            b' ' | b'\t' => {
                self.glue = false;
                if self.here.column == 1 && self.depth == 0 {
                    self.entry.indented = true;
                }
            }
            b'(' => {
                if self.depth == 0 {
                    self.opened = self.here;
                }
                self.depth = self.depth.saturating_add(1);
                self.glue = false;
            }
            b')' => {
                self.depth = self
                    .depth
                    .checked_sub(1)
                    .ok_or_else(|| Problem::at(self.here, Trouble::NoOpenParenthesis))?;
                self.glue = false;
            }
            b';' => self.state = State::Comment,
            b'"' => self.begin(true)?,
            _ => {
                self.begin(false)?;
                return self.inside(octet);
            }
        }
        Ok(())
    }

    fn begin(&mut self, quoted: bool) -> Result<(), Problem> {
        self.state = if quoted { State::Quoted } else { State::Word };
        let (start, glued) = (self.entry.text.len(), self.glue);
        let place = self.here;
        self.entry.spans.push(Span { start, end: start, quoted, glued, place });
        // An empty token takes room too.
        self.bounded(0)
    }

    fn bounded(&self, more: usize) -> Result<(), Problem> {
        let taken = self.entry.text.len() + self.entry.spans.len() + more;
        let first = self.entry.spans.first().map_or(self.here, |span| span.place);
        if taken > ENTRY_BYTES_MAX {
            return Err(Problem::at(first, Trouble::EntryTooLong));
        }
        Ok(())
    }

    fn inside(&mut self, octet: u8) -> Result<(), Problem> {
        if self.escape {
            self.escape = false;
            return self.push(octet);
        }
        match (self.state, octet) {
            (_, b'\\') => {
                self.escape = true;
                Ok(())
            }
            (State::Quoted, b'"') => {
                self.end(true);
                Ok(())
            }
            (State::Quoted, _) => self.push_plain(octet),
            (_, b' ' | b'\t' | b'(' | b')' | b';' | b'"') => {
                self.end(true);
                self.between(octet)
            }
            _ => self.push_plain(octet),
        }
    }

    fn end(&mut self, glue: bool) {
        if let Some(last) = self.entry.spans.last_mut() {
            last.end = self.entry.text.len();
        }
        self.state = State::Between;
        self.glue = glue;
    }

    /// An octet behind a backslash.
    fn push(&mut self, octet: u8) -> Result<(), Problem> {
        match octet {
            0x20..=0x7e => {
                self.bounded(2)?;
                self.entry.text.push('\\');
                self.entry.text.push(char::from(octet));
                Ok(())
            }
            _ => self.push_plain(octet),
        }
    }

    fn push_plain(&mut self, octet: u8) -> Result<(), Problem> {
        match octet {
            0x20..=0x7e => {
                self.bounded(1)?;
                self.entry.text.push(char::from(octet));
                Ok(())
            }
            // Text in UTF-8, or in what came before it.
            b'\t' | 0x80.. => {
                self.bounded(4)?;
                // Writing to a String can't fail.
                let _ = write!(self.entry.text, "\\{octet:03}");
                Ok(())
            }
            _ => Err(Problem::at(self.here, Trouble::Octet(octet))),
        }
    }

    fn line_end(
        &mut self,
        take: &mut impl FnMut(&Entry) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let quote = self.entry.spans.last().map_or(self.here, |span| span.place);
        match self.state {
            _ if self.escape => return Err(Problem::at(self.here, Trouble::EscapedLineEnd)),
            State::Quoted => return Err(Problem::at(quote, Trouble::OpenQuote)),
            State::Word => self.end(false),
            _ => {}
        }
        (self.state, self.glue) = (State::Between, false);
        if self.depth > 0 {
            return Ok(());
        }
        if !self.entry.spans.is_empty() {
            take(&self.entry)?;
        }
        self.entry.clear();
        Ok(())
    }
}
