//! What is wrong with a zone file, where, and what was expected.

use std::fmt;

use countersign_zone::Rtype;
use countersign_zone::refusal::Refusal;

use super::generate::{GENERATED_MAX, GENERATED_TOTAL_MAX};
use super::lexer::{ENTRY_BYTES_MAX, Place};
use super::text::TTL_S_MAX;

/// One thing that is wrong, and where. Nothing of the file is used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// Where it stands.
    pub place: Place,
    /// What it is.
    #[source]
    pub trouble: Trouble,
}

impl Problem {
    pub(super) fn at(place: Place, trouble: Trouble) -> Self {
        Self { place, trouble }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.trouble)
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// Not a text.
    #[error(
        "the octet 0x{0:02x} has no place in a zone file; write it \\{0:03}, and see that the file is a text"
    )]
    Octet(u8),
    /// A line end of another age.
    #[error("a carriage return without a line feed; lines end in LF or CR LF")]
    LoneCarriageReturn,
    /// Too much before the line's end.
    #[error(
        "an entry that begins here takes more than {ENTRY_BYTES_MAX} octets; is a closing parenthesis missing?"
    )]
    EntryTooLong,
    /// Never closed.
    #[error("a parenthesis is opened here and not closed before the file ends")]
    OpenParenthesis,
    /// Never opened.
    #[error("a closing parenthesis, and none is open")]
    NoOpenParenthesis,
    /// A string over a line's end.
    #[error(
        "a quote is opened here and not closed on its line; write a line end in a text as \\010"
    )]
    OpenQuote,
    /// A backslash before the line's end.
    #[error("a backslash ends the line; lines are joined by parentheses")]
    EscapedLineEnd,
    /// A bad escape.
    #[error("a bad escape; expected \\DDD (three digits, at most 255) or \\ and one character")]
    Escape,
    /// Too long.
    #[error("a name of {0} octets with its origin; at most 255 fit")]
    NameTooLong(usize),
    /// Too long.
    #[error("a label of {0} octets; at most 63 fit")]
    LabelTooLong(usize),
    /// `a..b`.
    #[error("a name with an empty label; is a dot doubled, or in front?")]
    EmptyLabel,
    /// An owner in quotes.
    #[error("a name in quotes; write it without, and blanks in it as \\032")]
    QuotedName,
    /// A blank at the start of the file's first record.
    #[error(
        "the line begins with a blank, so it has the owner of the record before it, and there is none"
    )]
    NoOwner,
    /// No type.
    #[error("the line ends where a record type was expected, as in \"www 3600 IN A 192.0.2.1\"")]
    NoType,
    /// An unknown type.
    #[error(
        "{0:?} is no TTL, class or record type; expected one, as in \"www 3600 IN A 192.0.2.1\", or TYPE and a number"
    )]
    Type(String),
    /// Another class.
    #[error("class {0:?}; expected IN, the only class that is signed")]
    Class(String),
    /// A TTL that is none.
    #[error("the TTL {0:?}; expected seconds from 0 to {TTL_S_MAX}, or units as in 1h30m")]
    Ttl(String),
    /// None anywhere.
    #[error(
        "a record without a TTL, and none was given before; begin the file with $TTL, as in \"$TTL 1h\""
    )]
    NoTtl,
    /// A file of this box.
    #[error(
        "$INCLUDE names a file of this box, which nothing that is pushed may; put its content in its place (named-compilezone does)"
    )]
    Include,
    /// An unknown directive.
    #[error(
        "{0:?} is not known; expected $ORIGIN, $TTL or $GENERATE. An owner that begins with a dollar sign is written \\$"
    )]
    Directive(String),
    /// A directive with more or less than its value.
    #[error("{0} takes one value, and nothing after it")]
    OneValue(String),
    /// A `$GENERATE` without its parts.
    #[error("$GENERATE is too short; expected FIRST-LAST[/STEP] OWNER [TTL] [CLASS] TYPE RDATA")]
    GenerateShort,
    /// A range that is none.
    #[error("{0:?} is no range; expected FIRST-LAST or FIRST-LAST/STEP, as in 1-254")]
    GenerateRange(String),
    /// Too many in one.
    #[error("{0} records of one $GENERATE; at most {GENERATED_MAX} are made: write it as several")]
    GenerateTooMany(u64),
    /// Too many in all.
    #[error(
        "the file's $GENERATE make more than {GENERATED_TOTAL_MAX} records; write them out (named-compilezone does)"
    )]
    GeneratedTotal,
    /// A place holder that is none.
    #[error(
        "{0:?} stands for no number; expected $, or ${{OFFSET,WIDTH,BASE}} with a base of d, o, x, X, n or N"
    )]
    GenerateForm(String),
    /// RDATA that its type does not allow.
    #[error("{rtype}: {problem}; expected {expected}")]
    Rdata {
        /// Its type.
        rtype: Rtype,
        /// What is wrong.
        problem: String,
        /// What it looks like.
        expected: &'static str,
    },
    /// A type that nobody here reads.
    #[error("{0} has no text form that is read here; write its RDATA as \\# LENGTH HEX (RFC 3597)")]
    NoTextForm(Rtype),
    /// A record that the zone can't have.
    #[error(transparent)]
    Refused(#[from] Refusal),
}
