//! RDATA of the types that the `domain` crate knows by number alone, in the text forms of their RFCs.
//! One table, `parts`, says what a type's RDATA consists of; what fits no table has a function.

mod odd;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use countersign_zone::Rtype;

use super::lexer::{Place, Token};
use super::record::rtype as type_named;
use super::{Problem, Trouble, text};

/// A part of RDATA as text.
#[derive(Debug, Clone, Copy)]
enum Part {
    U8,
    U16,
    U32,
    /// A TTL: a number, or with units.
    Seconds,
    /// `YYYYMMDDHHMMSS`, or seconds.
    Time,
    /// DNSSEC algorithm, by number or mnemonic.
    Algorithm,
    /// Record type.
    Type,
    Name,
    /// A text of at most 255 octets with its length.
    Text,
    /// The same, may be missing at the end.
    OptionalText,
    /// One or more to the end.
    Texts,
    /// A text without a length.
    Raw,
    /// Hexadecimal digits, in as many tokens as are left.
    Hex,
    /// Base64, likewise; may be empty.
    Base64,
    /// The same, not empty.
    SomeBase64,
    Ipv4,
    /// A type bitmap (RFC 4034 §4.1.2).
    Types,
    /// `xx-xx-...`: so many octets.
    Dashed(usize),
    /// Four groups of sixteen bits.
    Groups,
    Own(fn(&mut Tokens<'_, '_>, &mut Vec<u8>) -> Result<(), String>),
}

fn parts(rtype: Rtype) -> Option<(&'static [Part], &'static str)> {
    use Part::{
        Algorithm, Base64, Dashed, Groups, Hex, Ipv4, Name, OptionalText, Own, Raw, Seconds,
        SomeBase64, Text, Texts, Time, Type, Types, U8, U16, U32,
    };
    Some(match rtype {
        Rtype::AFSDB | Rtype::RT | Rtype::KX | Rtype::LP => (&[U16, Name], "NUMBER NAME"),
        Rtype::PX => (&[U16, Name, Name], "NUMBER NAME NAME"),
        Rtype::X25 => (&[Text], "a text"),
        Rtype::ISDN => (&[Text, OptionalText], "one or two texts"),
        Rtype::SPF | Rtype::AVC | Rtype(56 | 261 | 262) => {
            (&[Texts], "one or more texts of at most 255 octets each")
        }
        Rtype::NSAP => (&[Own(odd::nsap)], "0x and hexadecimal digits"),
        Rtype::NSAP_PTR => (&[Name], "a name"),
        Rtype(58) => (&[Name, Name], "two names"),
        Rtype::GPOS => (&[Text, Text, Text], "LONGITUDE LATITUDE ALTITUDE"),
        Rtype::CERT => {
            (&[Own(odd::cert_type), U16, Algorithm, SomeBase64], "TYPE TAG ALGORITHM BASE64")
        }
        Rtype::KEY | Rtype(57) => {
            (&[U16, U8, Algorithm, Base64], "FLAGS PROTOCOL ALGORITHM BASE64")
        }
        Rtype::SIG => (
            &[Type, Algorithm, U8, Seconds, Time, Time, U16, Name, SomeBase64],
            "TYPE ALGORITHM LABELS TTL EXPIRATION INCEPTION TAG SIGNER BASE64",
        ),
        Rtype(32_768 | 32_769) => (&[U16, Algorithm, U8, Hex], "TAG ALGORITHM DIGEST-TYPE HEX"),
        Rtype::SMIMEA => (&[U8, U8, U8, Hex], "USAGE SELECTOR MATCHING HEX"),
        Rtype::DHCID => (&[SomeBase64], "BASE64"),
        Rtype(40) => (&[U8, U8, U8, Base64], "CODING SUBCODING... BASE64"),
        Rtype(31 | 32) => (&[Hex], "HEX"),
        Rtype(259) => (
            &[U32, U32, U8, Text, Own(odd::base64_or_dash)],
            "ENTERPRISE TYPE LOCATION MEDIA-TYPE BASE64",
        ),
        Rtype::NID | Rtype::L64 => {
            (&[U16, Groups], "PREFERENCE and four groups, as in 10 14:4fff:ff20:ee64")
        }
        Rtype::L32 => (&[U16, Ipv4], "PREFERENCE and an IPv4 address"),
        Rtype::EUI48 => (&[Dashed(6)], "six octets, as in 00-00-5e-00-53-2a"),
        Rtype::EUI64 => (&[Dashed(8)], "eight octets, as in 00-00-5e-ef-10-00-00-2a"),
        Rtype::URI => (&[U16, U16, Raw], "PRIORITY WEIGHT \"TARGET\""),
        Rtype::CSYNC => (&[U32, U16, Types], "SERIAL FLAGS TYPE..."),
        Rtype::LOC => {
            (&[Own(odd::loc)], "LATITUDE N|S LONGITUDE E|W ALTITUDE [SIZE [HORIZONTAL [VERTICAL]]]")
        }
        Rtype::APL => (&[Own(odd::apl)], "[!]FAMILY:ADDRESS/PREFIX..., as in 1:192.0.2.0/24"),
        Rtype::WKS => (&[Ipv4, Own(odd::wks)], "an IPv4 address, TCP or UDP, and ports as numbers"),
        Rtype::A6 => (&[Own(odd::a6)], "PREFIX-LENGTH [ADDRESS] [NAME]"),
        Rtype::HIP => (&[Own(odd::hip)], "ALGORITHM HEX BASE64 [NAME...]"),
        Rtype::NXT => (&[Name, Own(odd::nxt_types)], "NAME TYPE..., types below 128"),
        Rtype(260) => (&[Own(odd::amtrelay)], "PRECEDENCE D-BIT TYPE RELAY"),
        _ => return None,
    })
}

/// What is left of an entry's tokens.
struct Tokens<'t, 'a> {
    rest: &'t [Token<'a>],
    origin: &'t [u8],
    /// Where the token stands that was taken last.
    place: Place,
}

impl<'a> Tokens<'_, 'a> {
    fn peek(&self) -> Option<&Token<'a>> {
        self.rest.first()
    }

    fn next(&mut self) -> Result<Token<'a>, String> {
        let (first, rest) = self.rest.split_first().ok_or("it ends early")?;
        (self.rest, self.place) = (rest, first.place);
        Ok(*first)
    }

    fn number<T: FromStr>(&mut self) -> Result<T, String> {
        let token = self.next()?;
        let digits = token.text.bytes().all(|b| b.is_ascii_digit());
        let number = token.text.parse().ok().filter(|_| digits);
        number.ok_or_else(|| format!("{:?} is no number, or too large", token.text))
    }

    fn name(&mut self) -> Result<Vec<u8>, String> {
        let token = self.next()?;
        text::name(token.text, self.origin).map_err(|trouble| trouble.to_string())
    }

    fn octets(&mut self) -> Result<Vec<u8>, String> {
        let token = self.next()?;
        text::octets(token.text).map_err(|trouble| trouble.to_string())
    }

    fn text(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        let octets = self.octets()?;
        let len = u8::try_from(octets.len())
            .map_err(|_| format!("a text of {} octets; at most 255 fit", octets.len()))?;
        out.push(len);
        out.extend_from_slice(&octets);
        Ok(())
    }

    /// All that are left, as one.
    fn joined(&mut self) -> String {
        if let Some(last) = self.rest.last() {
            self.place = last.place;
        }
        std::mem::take(&mut self.rest).iter().map(|token| token.text).collect()
    }
}

/// Reads the RDATA of a type that is not `domain`'s; `place` is where the type stands.
pub fn read(
    rtype: Rtype,
    place: Place,
    tokens: &[Token<'_>],
    origin: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Problem> {
    let (parts, expected) =
        parts(rtype).ok_or_else(|| Problem::at(place, Trouble::NoTextForm(rtype)))?;
    let mut tokens = Tokens { rest: tokens, origin, place };
    let mut all = || {
        for part in parts {
            part.read(&mut tokens, out)?;
        }
        match tokens.rest.first() {
            None => Ok(()),
            Some(token) => {
                tokens.place = token.place;
                Err(format!("{:?} follows its last part", token.text))
            }
        }
    };
    let read = all();
    read.map_err(|problem| Problem::at(tokens.place, Trouble::Rdata { rtype, problem, expected }))
}

impl Part {
    fn read(self, tokens: &mut Tokens<'_, '_>, out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::U8 => out.push(tokens.number()?),
            Self::U16 => out.extend_from_slice(&tokens.number::<u16>()?.to_be_bytes()),
            Self::U32 => out.extend_from_slice(&tokens.number::<u32>()?.to_be_bytes()),
            Self::Seconds => {
                let token = tokens.next()?;
                let seconds = text::ttl(token.text).and_then(Result::ok);
                let seconds = seconds.ok_or_else(|| format!("{:?} is no TTL", token.text))?;
                out.extend_from_slice(&seconds.to_be_bytes());
            }
            Self::Time => out.extend_from_slice(&time(tokens.next()?.text)?.to_be_bytes()),
            Self::Algorithm => out.push(algorithm(tokens.next()?.text)?),
            Self::Type => {
                let token = tokens.next()?;
                let rtype = type_named(token.text);
                let rtype = rtype.ok_or_else(|| format!("{:?} is no type", token.text))?;
                out.extend_from_slice(&rtype.0.to_be_bytes());
            }
            Self::Name => out.extend_from_slice(&tokens.name()?),
            Self::Text => tokens.text(out)?,
            Self::OptionalText => {
                if tokens.peek().is_some() {
                    tokens.text(out)?;
                }
            }
            Self::Texts => {
                tokens.text(out)?;
                while tokens.peek().is_some() {
                    tokens.text(out)?;
                }
            }
            Self::Raw => out.extend_from_slice(&tokens.octets()?),
            Self::Hex => out.extend_from_slice(&hex(&tokens.joined())?),
            Self::Base64 | Self::SomeBase64 => {
                let octets = base64(&tokens.joined())?;
                if octets.is_empty() && matches!(self, Self::SomeBase64) {
                    return Err("it ends early".to_owned());
                }
                out.extend_from_slice(&octets);
            }
            Self::Ipv4 => out.extend_from_slice(&ipv4(tokens.next()?.text)?.octets()),
            Self::Types => put_types(tokens, out)?,
            Self::Dashed(count) => put_dashed(tokens.next()?.text, count, out)?,
            Self::Groups => put_groups(tokens.next()?.text, out)?,
            Self::Own(read) => read(tokens, out)?,
        }
        Ok(())
    }
}

fn ipv4(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("{text:?} is no IPv4 address"))
}

fn ipv6(text: &str) -> Result<Ipv6Addr, String> {
    text.parse().map_err(|_| format!("{text:?} is no IPv6 address"))
}

fn hex(digits: &str) -> Result<Vec<u8>, String> {
    countersign_policy::key::from_hex(&digits.to_ascii_lowercase())
        .filter(|octets| !octets.is_empty())
        .ok_or_else(|| "not an even number of hexadecimal digits".to_owned())
}

fn base64(text: &str) -> Result<Vec<u8>, String> {
    data_encoding::BASE64.decode(text.as_bytes()).map_err(|error| format!("bad Base64: {error}"))
}

/// RFC 4034 §3.2: `YYYYMMDDHHMMSS` or seconds, both of the circle of 32 bits.
fn time(text: &str) -> Result<u32, String> {
    let bad = || format!("{text:?} is no time; expected YYYYMMDDHHMMSS or seconds");
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    if text.len() != 14 {
        return text.parse().map_err(|_| bad());
    }
    let at = |from: usize, to: usize| text[from..to].parse::<u64>().map_err(|_| bad());
    let (year, month, day) = (at(0, 4)?, at(4, 6)?, at(6, 8)?);
    let (hour, minute, second) = (at(8, 10)?, at(10, 12)?, at(12, 14)?);
    let fits = (1..=12).contains(&month) && (1..=31).contains(&day) && year >= 1970;
    if !fits || hour > 23 || minute > 59 || second > 60 {
        return Err(bad());
    }
    let days = odd::days_from_civil(year, month, day);
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    Ok(seconds as u32) // of the circle
}

/// IANA "DNS Security Algorithm Numbers".
fn algorithm(text: &str) -> Result<u8, String> {
    const MNEMONICS: &[(&str, u8)] = &[
        ("RSAMD5", 1),
        ("DH", 2),
        ("DSA", 3),
        ("ECC", 4),
        ("RSASHA1", 5),
        ("NSEC3DSA", 6),
        ("NSEC3RSASHA1", 7),
        ("RSASHA256", 8),
        ("RSASHA512", 10),
        ("ECCGOST", 12),
        ("ECDSAP256SHA256", 13),
        ("ECDSAP384SHA384", 14),
        ("ED25519", 15),
        ("ED448", 16),
        ("INDIRECT", 252),
        ("PRIVATEDNS", 253),
        ("PRIVATEOID", 254),
    ];
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let known = MNEMONICS.iter().find(|(mnemonic, _)| text.eq_ignore_ascii_case(mnemonic));
    known.map(|(_, number)| *number).ok_or_else(|| format!("{text:?} is no algorithm"))
}

/// All types that are left, as windows of bits.
fn put_types(tokens: &mut Tokens<'_, '_>, out: &mut Vec<u8>) -> Result<(), String> {
    let mut types = Vec::new();
    while tokens.peek().is_some() {
        let token = tokens.next()?;
        types.push(type_named(token.text).ok_or_else(|| format!("{:?} is no type", token.text))?.0);
    }
    types.sort_unstable();
    for window in types.chunk_by(|a, b| a >> 8 == b >> 8) {
        let mut bits = [0_u8; 32];
        let mut len = 0;
        for rtype in window {
            let at = usize::from(rtype & 0xff);
            bits[at / 8] |= 0x80 >> (at % 8);
            len = len.max(at / 8 + 1);
        }
        out.push((window[0] >> 8) as u8);
        out.push(len as u8); // at most 32
        out.extend_from_slice(&bits[..len]);
    }
    Ok(())
}

fn put_dashed(text: &str, count: usize, out: &mut Vec<u8>) -> Result<(), String> {
    let octets: Vec<u8> = text
        .split('-')
        .map(|pair| u8::from_str_radix(pair, 16).ok().filter(|_| pair.len() == 2))
        .collect::<Option<_>>()
        .unwrap_or_default();
    if octets.len() != count {
        return Err(format!("{text:?} is not {count} octets with dashes"));
    }
    out.extend_from_slice(&octets);
    Ok(())
}

fn put_groups(text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let groups: Vec<u16> = text
        .split(':')
        .map(|group| u16::from_str_radix(group, 16).ok().filter(|_| group.len() <= 4))
        .collect::<Option<_>>()
        .unwrap_or_default();
    if groups.len() != 4 {
        return Err(format!("{text:?} is not four groups with colons"));
    }
    out.extend(groups.into_iter().flat_map(u16::to_be_bytes));
    Ok(())
}
