//! One record's RDATA. The `domain` crate reads the types that it knows, from one clean line made of
//! the entry's tokens; [`super::rdata`] the others; `\# LENGTH HEX` (RFC 3597 §5) is read here for any.
//!
//! What `domain` 0.12 leaves to its caller is done before it sees the line: `@` inside RDATA, units in
//! the SOA's timers, octets that are not ASCII, quotes that close on another line.

use std::fmt;

use bytes::Bytes;
use countersign_zone::Rtype;
use domain::base::Name;
use domain::base::iana::Class;
use domain::base::rdata::ComposeRecordData as _;
use domain::zonefile::inplace::{Entry, Zonefile};

use super::lexer::{Place, Token};
use super::{Problem, Trouble, rdata, text};

/// Types that are newer or odder than `Rtype`'s own list of mnemonics.
const MNEMONICS: &[(&str, u16)] = &[
    ("EID", 31),
    ("NIMLOC", 32),
    ("SINK", 40),
    ("NINFO", 56),
    ("RKEY", 57),
    ("TALINK", 58),
    ("DOA", 259),
    ("AMTRELAY", 260),
    ("RESINFO", 261),
    ("WALLET", 262),
    ("TA", 32_768),
    ("DLV", 32_769),
];

/// The type of a mnemonic, or of `TYPE` and its number.
pub fn rtype(text: &str) -> Option<Rtype> {
    let known = MNEMONICS.iter().find(|(mnemonic, _)| text.eq_ignore_ascii_case(mnemonic));
    known.map(|(_, number)| Rtype(*number)).or_else(|| text.parse().ok())
}

/// What `domain` reads, which of its parts are names, and what it looks like.
fn form(rtype: Rtype) -> Option<(&'static [usize], &'static str)> {
    Some(match rtype {
        Rtype::A => (&[], "an IPv4 address, as in 192.0.2.1"),
        Rtype::AAAA => (&[], "an IPv6 address, as in 2001:db8::1"),
        Rtype::NS
        | Rtype::CNAME
        | Rtype::PTR
        | Rtype::DNAME
        | Rtype::MB
        | Rtype::MD
        | Rtype::MF
        | Rtype::MG
        | Rtype::MR => (&[0], "a name"),
        Rtype::SOA => (&[0, 1], "MNAME RNAME SERIAL REFRESH RETRY EXPIRE MINIMUM"),
        Rtype::MINFO | Rtype::RP => (&[0, 1], "two names"),
        Rtype::HINFO => (&[], "two texts"),
        Rtype::MX => (&[1], "PREFERENCE NAME, as in 10 mail.example."),
        Rtype::TXT => (&[], "one or more texts of at most 255 octets each"),
        Rtype::SRV => (&[3], "PRIORITY WEIGHT PORT NAME"),
        Rtype::NAPTR => (&[5], "ORDER PREFERENCE FLAGS SERVICES REGEXP NAME"),
        Rtype::CAA => (&[], "FLAGS TAG VALUE, as in 0 issue \"ca.example\""),
        Rtype::DS | Rtype::CDS => (&[], "TAG ALGORITHM DIGEST-TYPE HEX"),
        Rtype::DNSKEY | Rtype::CDNSKEY => (&[], "FLAGS 3 ALGORITHM BASE64"),
        Rtype::RRSIG => (&[7], "TYPE ALGORITHM LABELS TTL EXPIRATION INCEPTION TAG SIGNER BASE64"),
        Rtype::NSEC => (&[0], "NAME TYPE..."),
        Rtype::NSEC3 => (&[], "HASH FLAGS ITERATIONS SALT NEXT TYPE..."),
        Rtype::NSEC3PARAM => (&[], "HASH FLAGS ITERATIONS SALT"),
        Rtype::IPSECKEY => (&[3], "PRECEDENCE GATEWAY-TYPE ALGORITHM GATEWAY BASE64"),
        Rtype::OPENPGPKEY => (&[], "BASE64"),
        Rtype::SSHFP => (&[], "ALGORITHM TYPE HEX"),
        Rtype::SVCB | Rtype::HTTPS => (&[1], "PRIORITY NAME [KEY=VALUE...]"),
        Rtype::TLSA => (&[], "USAGE SELECTOR MATCHING HEX"),
        Rtype::ZONEMD => (&[], "SERIAL SCHEME ALGORITHM HEX"),
        _ => return None,
    })
}

/// Reads RDATA.
pub struct Rdata {
    domain: Zonefile,
    /// The origin in wire form, and as a text.
    origin: Vec<u8>,
    origin_text: String,
    line: String,
    /// Where the tokens of `line` begin in it.
    starts: Vec<usize>,
    octets: Vec<u8>,
}

impl fmt::Debug for Rdata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rdata({})", self.origin_text)
    }
}

impl Rdata {
    pub fn new(origin: &[u8]) -> Self {
        let mut domain = Zonefile::new();
        domain.set_default_class(Class::IN);
        let mut this = Self {
            domain,
            origin: Vec::new(),
            origin_text: String::new(),
            line: String::new(),
            starts: Vec::new(),
            octets: Vec::new(),
        };
        this.set_origin(origin);
        this
    }

    /// Relative names are relative to this one, which is a name in wire form.
    pub fn set_origin(&mut self, origin: &[u8]) {
        self.origin = origin.to_vec();
        self.origin_text.clear();
        // Writing to a String can't fail.
        let _ = countersign_policy::name::write_presentation(origin, &mut self.origin_text);
        if let Ok(name) = Name::from_octets(Bytes::copy_from_slice(origin)) {
            self.domain.set_origin(name);
        }
    }

    /// The RDATA in wire form that `tokens` stand for; `place` is where the type stands.
    pub fn read(
        &mut self,
        rtype: Rtype,
        place: Place,
        tokens: &[Token<'_>],
    ) -> Result<&[u8], Problem> {
        self.octets.clear();
        match tokens.split_first() {
            Some((marker, rest)) if !marker.quoted && marker.text == "\\#" => {
                self.generic(rtype, marker.place, rest)?;
            }
            _ => match form(rtype) {
                Some((names, expected)) => self.by_domain(rtype, place, tokens, names, expected)?,
                None => rdata::read(rtype, place, tokens, &self.origin, &mut self.octets)?,
            },
        }
        Ok(&self.octets)
    }

    /// `LENGTH HEX...`
    fn generic(&mut self, rtype: Rtype, at: Place, tokens: &[Token<'_>]) -> Result<(), Problem> {
        let fail = |place, problem: &str| {
            let expected = "\\# LENGTH HEX, as in \\# 4 c0000201";
            Problem::at(place, Trouble::Rdata { rtype, problem: problem.to_owned(), expected })
        };
        let Some((len, rest)) = tokens.split_first() else {
            return Err(fail(at, "no length"));
        };
        let expected = len
            .text
            .parse::<u16>()
            .map_err(|_| fail(len.place, "the length is no number up to 65535"))?;
        let digits: String = rest.iter().map(|token| token.text).collect();
        let octets = countersign_policy::key::from_hex(&digits.to_ascii_lowercase());
        let octets = octets.ok_or_else(|| fail(at, "not an even number of hexadecimal digits"))?;
        if octets.len() != usize::from(expected) {
            let problem = format!("{} octets where {expected} were said", octets.len());
            return Err(fail(len.place, &problem));
        }
        self.octets = octets;
        Ok(())
    }

    fn by_domain(
        &mut self,
        rtype: Rtype,
        place: Place,
        tokens: &[Token<'_>],
        names: &[usize],
        expected: &'static str,
    ) -> Result<(), Problem> {
        self.write_line(rtype, tokens, names)?;
        self.domain.extend_from_slice(self.line.as_bytes());
        let fail = |place, problem: String| {
            Problem::at(place, Trouble::Rdata { rtype, problem, expected })
        };
        match self.domain.next_entry() {
            Ok(Some(Entry::Record(record))) => record
                .data()
                .compose_rdata(&mut self.octets)
                .map_err(|_| fail(place, "more than 65535 octets".to_owned())),
            Ok(_) => Err(fail(place, "no record".to_owned())),
            Err(error) => {
                let (column, problem) = said(&error.to_string());
                // What it misses at the line's end it says of the next line's start.
                let passed = column.map_or(0, |c| self.starts.partition_point(|start| *start < c));
                let token = passed.checked_sub(1).map_or(tokens.last(), |last| tokens.get(last));
                Err(fail(token.map_or(place, |token| token.place), problem))
            }
        }
    }

    /// The record as one line, with an owner and a TTL that don't matter.
    fn write_line(
        &mut self,
        rtype: Rtype,
        tokens: &[Token<'_>],
        names: &[usize],
    ) -> Result<(), Problem> {
        use fmt::Write as _;
        self.line.clear();
        self.starts.clear();
        let _ = write!(self.line, ". 0 IN TYPE{}", rtype.0);
        for (i, token) in tokens.iter().enumerate() {
            if !token.glued {
                self.line.push(' ');
            }
            self.starts.push(self.line.len());
            if token.quoted {
                self.line.push('"');
                self.line.push_str(token.text);
                self.line.push('"');
            } else if token.text == "@" && names.contains(&i) {
                self.line.push_str(&self.origin_text);
            } else if rtype == Rtype::SOA && (3..7).contains(&i) {
                let seconds = text::ttl(token.text)
                    .unwrap_or_else(|| Err(Trouble::Ttl(token.text.to_owned())))
                    .map_err(|trouble| Problem::at(token.place, trouble))?;
                let _ = write!(self.line, "{seconds}");
            } else {
                self.line.push_str(token.text);
            }
        }
        self.line.push('\n');
        Ok(())
    }
}

/// `domain` says "LINE:COLUMN: what".
fn said(error: &str) -> (Option<usize>, String) {
    let mut parts = error.splitn(3, ':');
    match (parts.next(), parts.next().and_then(|column| column.parse().ok()), parts.next()) {
        (Some(_), Some(column), Some(problem)) => (Some(column), problem.trim().to_owned()),
        _ => (None, error.to_owned()),
    }
}
