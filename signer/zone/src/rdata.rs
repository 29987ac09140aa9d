//! RDATA: the shape that each well-known type demands, and its canonical form
//! (RFC 4034 §6.2 (3) as amended by RFC 6840 §5.1).
//!
//! One table, `fields`, says what a type's RDATA consists of; the shape check walks it and the
//! canonical form lower-cases the names that it marks. Types that are not in the table pass as
//! opaque octets (RFC 3597), and so do values that a later RFC may give a meaning.
//!
//! Which names are lower-cased: those of the types that RFC 4034 §6.2 (3) lists, less HINFO, which has
//! none, and NSEC (RFC 6840 §5.1); RFC 3597 §7 forbids it for every later type, so LP, TALINK, HIP, IPSECKEY,
//! SVCB, AMTRELAY keep their case. BIND 9.18 does the same type for type, but for NSAP-PTR: it
//! lower-cases that name, and the RFC does not list it. An NSAP-PTR with capitals is therefore bogus for
//! BIND or for whoever goes by the RFC, whoever signs it; what the RFC says is done here.
//! ldns 1.8.3 leaves the name of an A6 as it is, and reads NSAP-PTR as a text. `domain` 0.12 knows no
//! AFSDB, RT, KX, PX, SIG, NXT or A6 and leaves all of them as they are.

use std::borrow::Cow;
use std::ops::Range;

use crate::name::{self, NameError};
use crate::rtype::Rtype;

/// What is wrong with an RDATA.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RdataError {
    /// More than its length field can say.
    #[error("{0} octets; at most 65535 fit")]
    TooLong(usize),
    /// It ends within a field.
    #[error("it ends early, within {0}")]
    EndsEarly(&'static str),
    /// Octets after the last field.
    #[error("{0} octets follow the last field")]
    Trailing(usize),
    /// A name that is none; compression is not allowed here.
    #[error("a name in it: {0}")]
    Name(NameError),
    /// A value that its field does not allow.
    #[error("{0}")]
    Value(&'static str),
}

/// A part of an RDATA.
#[derive(Debug, Clone, Copy)]
enum Field {
    /// So many octets.
    Fixed(usize),
    /// A name that the canonical form lower-cases.
    LowerName,
    /// A name that keeps its case in canonical form too.
    Name,
    /// One length octet, then that many.
    Text,
    /// The same, but not empty.
    NonEmptyText,
    /// A [`Text`](Self::Text) that may be missing at the end.
    OptionalText,
    /// One or more texts to the end.
    Texts,
    /// Anything to the end.
    Rest,
    /// At least so many octets to the end.
    AtLeast(usize),
    /// A type bitmap to the end (RFC 4034 §4.1.2).
    Bitmap,
    /// Read by a function of its own.
    Own(fn(&mut Cursor<'_>) -> Result<(), RdataError>),
}

/// What the RDATA of a type consists of; `None` for a type without known shape.
fn fields(rtype: Rtype) -> Option<&'static [Field]> {
    use Field::{
        AtLeast, Bitmap, Fixed, LowerName, Name, NonEmptyText, OptionalText, Own, Rest, Text, Texts,
    };
    Some(match rtype {
        Rtype::A => &[Fixed(4)],
        Rtype::NS
        | Rtype::MD
        | Rtype::MF
        | Rtype::CNAME
        | Rtype::MB
        | Rtype::MG
        | Rtype::MR
        | Rtype::PTR
        | Rtype::DNAME => &[LowerName],
        Rtype::SOA => &[LowerName, LowerName, Fixed(20)],
        Rtype::WKS => &[Fixed(5), Rest],
        Rtype::HINFO => &[Text, Text],
        Rtype::MINFO | Rtype::RP => &[LowerName, LowerName],
        Rtype::MX | Rtype::AFSDB | Rtype::RT | Rtype::KX => &[Fixed(2), LowerName],
        Rtype::TXT | Rtype::SPF | Rtype::AVC => &[Texts],
        Rtype::X25 => &[Text],
        Rtype::ISDN => &[Text, OptionalText],
        Rtype::NSAP | Rtype::DHCID | Rtype::OPENPGPKEY => &[AtLeast(1)],
        Rtype::NSAP_PTR => &[Name],
        Rtype::SIG | Rtype::RRSIG => &[Fixed(18), LowerName, AtLeast(1)],
        Rtype::KEY => &[Fixed(4), Rest],
        Rtype::DNSKEY | Rtype::CDNSKEY | Rtype::CDS | Rtype::URI => &[Fixed(4), AtLeast(1)],
        Rtype::PX => &[Fixed(2), LowerName, LowerName],
        Rtype::GPOS => &[Text, Text, Text],
        Rtype::AAAA => &[Fixed(16)],
        Rtype::LOC => &[Own(loc)],
        Rtype::NXT => &[LowerName, Rest],
        Rtype::SRV => &[Fixed(6), LowerName],
        Rtype::NAPTR => &[Fixed(4), Text, Text, Text, LowerName],
        Rtype::CERT => &[Fixed(5), AtLeast(1)],
        Rtype::A6 => &[Own(a6)],
        Rtype::APL => &[Own(apl)],
        Rtype::DS => &[Own(ds)],
        Rtype::SSHFP => &[Own(sshfp)],
        Rtype::IPSECKEY => &[Own(ipseckey)],
        Rtype::NSEC => &[Name, Bitmap],
        Rtype::NSEC3 => &[Fixed(4), Text, NonEmptyText, Bitmap],
        Rtype::NSEC3PARAM => &[Fixed(4), Text],
        Rtype::TLSA | Rtype::SMIMEA => &[Fixed(3), AtLeast(1)],
        Rtype::HIP => &[Own(hip)],
        Rtype::CSYNC => &[Fixed(6), Bitmap],
        Rtype::ZONEMD => &[Fixed(6), AtLeast(12)],
        Rtype::SVCB | Rtype::HTTPS => &[Fixed(2), Name, Own(svc_params)],
        Rtype::NID | Rtype::L64 => &[Fixed(10)],
        Rtype::L32 | Rtype::EUI48 => &[Fixed(6)],
        Rtype::LP => &[Fixed(2), Name],
        Rtype::EUI64 => &[Fixed(8)],
        Rtype::CAA => &[Fixed(1), NonEmptyText, Rest],
        _ => return None,
    })
}

/// Checks that `rdata` has the shape of its type.
pub fn check(rtype: Rtype, rdata: &[u8]) -> Result<(), RdataError> {
    if rdata.len() > usize::from(u16::MAX) {
        return Err(RdataError::TooLong(rdata.len()));
    }
    match fields(rtype) {
        Some(fields) => walk(fields, rdata, |_| {}),
        None => Ok(()),
    }
}

/// The canonical form of an RDATA: the same octets but for the case of names in it, and only for
/// the types that RFC 4034 §6.2 (3) lists. Octets that are not of the type's shape stay as they
/// are.
pub fn canonical(rtype: Rtype, rdata: &[u8]) -> Cow<'_, [u8]> {
    let mut lowered = Cow::Borrowed(rdata);
    if !lowers_names(rtype) {
        return lowered;
    }
    let result = walk(fields(rtype).unwrap_or(&[Field::Rest]), rdata, |range| {
        if rdata[range.clone()].iter().any(u8::is_ascii_uppercase) {
            lowered.to_mut()[range].make_ascii_lowercase();
        }
    });
    if result.is_ok() { lowered } else { Cow::Borrowed(rdata) }
}

/// Whether the canonical form of the type's RDATA may differ from the RDATA.
fn lowers_names(rtype: Rtype) -> bool {
    rtype == Rtype::A6
        || fields(rtype)
            .is_some_and(|fields| fields.iter().any(|field| matches!(field, Field::LowerName)))
}

/// Walks the fields of an RDATA; `on_lower_name` is told where names lie that the canonical form
/// lower-cases.
fn walk(
    fields: &[Field],
    rdata: &[u8],
    mut on_lower_name: impl FnMut(Range<usize>),
) -> Result<(), RdataError> {
    let mut cursor = Cursor { rdata, at: 0, lower: None };
    for field in fields {
        cursor.field(*field)?;
        if let Some(range) = cursor.lower.take() {
            on_lower_name(range);
        }
    }
    match rdata.len() - cursor.at {
        0 => Ok(()),
        trailing => Err(RdataError::Trailing(trailing)),
    }
}

struct Cursor<'a> {
    rdata: &'a [u8],
    at: usize,
    /// Where the name lies that was read last, if the canonical form lower-cases it.
    lower: Option<Range<usize>>,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.rdata[self.at..]
    }

    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], RdataError> {
        let taken = self.rest().get(..len).ok_or(RdataError::EndsEarly(what))?;
        self.at += len;
        Ok(taken)
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, RdataError> {
        Ok(self.take(1, what)?[0])
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, RdataError> {
        let octets = self.take(2, what)?;
        Ok(u16::from_be_bytes([octets[0], octets[1]]))
    }

    fn name(&mut self, lower: bool) -> Result<(), RdataError> {
        let len = name::wire_len(self.rest()).map_err(RdataError::Name)?;
        self.lower = lower.then_some(self.at..self.at + len);
        self.at += len;
        Ok(())
    }

    fn text(&mut self) -> Result<&'a [u8], RdataError> {
        let len = self.u8("the length of a text")?;
        self.take(usize::from(len), "a text")
    }

    fn field(&mut self, field: Field) -> Result<(), RdataError> {
        match field {
            Field::Fixed(len) => {
                self.take(len, "a field of fixed length")?;
            }
            Field::LowerName => self.name(true)?,
            Field::Name => self.name(false)?,
            Field::Text => {
                self.text()?;
            }
            Field::NonEmptyText => {
                if self.text()?.is_empty() {
                    return Err(RdataError::Value("a field is empty that must not be"));
                }
            }
            Field::OptionalText => {
                if !self.rest().is_empty() {
                    self.text()?;
                }
            }
            Field::Texts => {
                self.text()?;
                while !self.rest().is_empty() {
                    self.text()?;
                }
            }
            Field::Rest => self.at = self.rdata.len(),
            Field::AtLeast(len) => {
                self.take(len, "its last field")?;
                self.at = self.rdata.len();
            }
            Field::Bitmap => self.bitmap()?,
            Field::Own(read) => read(self)?,
        }
        Ok(())
    }

    /// Windows ascend; each has 1 to 32 octets and does not end in zero (RFC 4034 §4.1.2).
    fn bitmap(&mut self) -> Result<(), RdataError> {
        let mut last: Option<u8> = None;
        while !self.rest().is_empty() {
            let window = self.u8("a type bitmap")?;
            if last.is_some_and(|last| last >= window) {
                return Err(RdataError::Value("windows of a type bitmap do not ascend"));
            }
            let len = self.u8("a type bitmap")?;
            if !(1..=32).contains(&len) {
                return Err(RdataError::Value("a window of a type bitmap has not 1 to 32 octets"));
            }
            if self.take(usize::from(len), "a type bitmap")?.last() == Some(&0) {
                return Err(RdataError::Value("a window of a type bitmap ends in a zero octet"));
            }
            last = Some(window);
        }
        Ok(())
    }
}

/// RFC 1876 §2: version 0 has 16 octets; other versions are opaque.
fn loc(cursor: &mut Cursor<'_>) -> Result<(), RdataError> {
    match cursor.u8("the version")? {
        0 => cursor.take(15, "the location").map(|_| ()),
        _ => cursor.field(Field::Rest),
    }
}

/// RFC 2874 §3.1: prefix length, address suffix, prefix name unless the prefix is empty.
fn a6(cursor: &mut Cursor<'_>) -> Result<(), RdataError> {
    let prefix = cursor.u8("the prefix length")?;
    if prefix > 128 {
        return Err(RdataError::Value("a prefix length exceeds 128"));
    }
    cursor.take(usize::from(128 - prefix).div_ceil(8), "the address suffix")?;
    if prefix > 0 { cursor.name(true) } else { Ok(()) }
}

/// RFC 3123 §4: items of family, prefix length, negation and length, address.
fn apl(cursor: &mut Cursor<'_>) -> Result<(), RdataError> {
    while !cursor.rest().is_empty() {
        cursor.take(3, "an address prefix")?;
        let len = cursor.u8("an address prefix")? & 0x7f;
        cursor.take(usize::from(len), "an address prefix")?;
    }
    Ok(())
}

/// RFC 4034 §5.1, with the digest lengths of RFC 3658, RFC 4509 and RFC 6605.
fn ds(cursor: &mut Cursor<'_>) -> Result<(), RdataError> {
    cursor.take(3, "key tag and algorithm")?;
    let expected = match cursor.u8("the digest type")? {
        1 => 20,
        2 => 32,
        4 => 48,
        _ => return cursor.field(Field::AtLeast(1)),
    };
    cursor.take(expected, "the digest").map(|_| ())
}

/// RFC 4255 §3.1, with the lengths of SHA-1 and SHA-256 (RFC 6594).
fn sshfp(cursor: &mut Cursor<'_>) -> Result<(), RdataError> {
    cursor.u8("the algorithm")?;
    let expected = match cursor.u8("the fingerprint type")? {
        1 => 20,
        2 => 32,
        _ => return cursor.field(Field::AtLeast(1)),
    };
    cursor.take(expected, "the fingerprint").map(|_| ())
}

/// RFC 4025 §2.1: precedence, gateway type, algorithm, gateway, key.
fn ipseckey(cursor: &mut Cursor<'_>) -> Result<(), RdataError> {
    cursor.u8("the precedence")?;
    let gateway = cursor.u8("the gateway type")?;
    cursor.u8("the algorithm")?;
    match gateway {
        1 => {
            cursor.take(4, "the gateway")?;
        }
        2 => {
            cursor.take(16, "the gateway")?;
        }
        3 => cursor.name(false)?,
        _ => {}
    }
    cursor.field(Field::Rest)
}

/// RFC 8005 §5: lengths, HIT, public key, rendezvous servers.
fn hip(cursor: &mut Cursor<'_>) -> Result<(), RdataError> {
    let hit_len = cursor.u8("the HIT's length")?;
    cursor.u8("the algorithm")?;
    let key_len = cursor.u16("the key's length")?;
    cursor.take(usize::from(hit_len), "the HIT")?;
    cursor.take(usize::from(key_len), "the key")?;
    while !cursor.rest().is_empty() {
        cursor.name(false)?;
    }
    Ok(())
}

/// RFC 9460 §2.2: keys strictly ascend.
fn svc_params(cursor: &mut Cursor<'_>) -> Result<(), RdataError> {
    let mut last: Option<u16> = None;
    while !cursor.rest().is_empty() {
        let key = cursor.u16("a service parameter")?;
        if last.is_some_and(|last| last >= key) {
            return Err(RdataError::Value("keys of service parameters do not ascend"));
        }
        let len = cursor.u16("a service parameter")?;
        cursor.take(usize::from(len), "a service parameter")?;
        last = Some(key);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(rtype: Rtype, rdata: &[u8]) {
        assert_eq!(check(rtype, rdata), Ok(()), "{rtype} {rdata:02x?}");
    }

    fn refused(rtype: Rtype, rdata: &[u8], expect: &str) {
        let error = check(rtype, rdata).expect_err(expect).to_string();
        assert!(error.contains(expect), "{rtype} {rdata:02x?}: {error}");
    }

    #[test]
    fn lengths_are_those_of_the_type() {
        accepted(Rtype::A, &[192, 0, 2, 1]);
        refused(Rtype::A, &[192, 0, 2], "ends early");
        refused(Rtype::A, &[192, 0, 2, 1, 0], "1 octets follow");
        refused(Rtype::AAAA, &[0; 4], "ends early");
        refused(Rtype::SOA, &[0; 21], "ends early");
        accepted(Rtype::SOA, &[0; 22]);
        accepted(Rtype::DS, &[&[0, 1, 13, 2][..], &[7; 32]].concat());
        refused(Rtype::DS, &[&[0, 1, 13, 2][..], &[7; 31]].concat(), "within the digest");
        refused(Rtype::DS, &[&[0, 1, 13, 1][..], &[7; 32]].concat(), "12 octets follow");
        accepted(Rtype::DS, &[0, 1, 13, 250, 1]);
        refused(Rtype::TXT, &[], "ends early");
        refused(Rtype::TXT, &[3, b'a'], "within a text");
        accepted(Rtype::TXT, &[0]);
        accepted(Rtype::LOC, &[0; 16]);
        refused(Rtype::LOC, &[0; 15], "within the location");
        accepted(Rtype(65280), &[]);
    }

    #[test]
    fn names_in_rdata_are_whole_and_uncompressed() {
        accepted(Rtype::NS, b"\x01a\x00");
        refused(Rtype::NS, b"\xc0\x0c", "not one uncompressed name");
        refused(Rtype::MX, b"\x00\x0a\x01a\xc0\x0c", "not one uncompressed name");
        refused(Rtype::CNAME, b"\x01a", "not one uncompressed name");
        refused(Rtype::SRV, b"\0\0\0\0\0\0\x01a\0\0", "1 octets follow");
        refused(Rtype::HTTPS, b"\0\x01\xc0\x0c", "not one uncompressed name");
    }

    #[test]
    fn structures_within_are_checked() {
        accepted(Rtype::HTTPS, b"\0\x01\0\0\x01\0\x03\x02h2\0\x03\0\x02\0\x50");
        refused(Rtype::HTTPS, b"\0\x01\0\0\x03\0\0\0\x01\0\0", "do not ascend");
        refused(Rtype::CSYNC, b"\0\0\0\0\0\0\0\x01\0", "zero octet");
        refused(Rtype::NSEC, b"\0\x01\x01\x40\0\x01\x40", "do not ascend");
        refused(Rtype::NSEC, b"\0\0\x21", "1 to 32");
        refused(Rtype::A6, &[129], "exceeds 128");
        accepted(Rtype::A6, &[&[0][..], &[1; 16]].concat());
        accepted(Rtype::IPSECKEY, b"\x0a\x03\x02\x01a\0key");
        refused(Rtype::CAA, b"\0\0", "empty");
        refused(Rtype::HIP, b"\x10\x02\0\x01", "within the HIT");
    }

    #[test]
    fn canonical_form_lowers_listed_names_alone() {
        let check = |rtype, rdata: &[u8], expect: &[u8]| {
            assert_eq!(&*canonical(rtype, rdata), expect, "{rtype}");
        };
        check(Rtype::MX, b"\x41\x42\x01A\0", b"\x41\x42\x01a\0");
        check(Rtype::DNAME, b"\x01A\x02bC\0", b"\x01a\x02bc\0");
        check(Rtype::RP, b"\x01A\0\x01B\0", b"\x01a\0\x01b\0");
        check(Rtype::NAPTR, b"\0\x41\0\x41\x01S\x01B\0\x01R\0", b"\0\x41\0\x41\x01S\x01B\0\x01r\0");
        check(Rtype::A6, b"\x80\x01A\0", b"\x80\x01a\0");
        // RFC 6840 §5.1: NSEC keeps its case; and types after RFC 3597 always do.
        check(Rtype::NSEC, b"\x01A\0\0\x01\x40", b"\x01A\0\0\x01\x40");
        check(Rtype::HTTPS, b"\0\x01\x01A\0", b"\0\x01\x01A\0");
        check(Rtype::NSAP_PTR, b"\x01A\0", b"\x01A\0");
        check(Rtype::LP, b"\0\x0a\x01A\0", b"\0\x0a\x01A\0");
        check(Rtype(58), b"\x01A\0\x01B\0", b"\x01A\0\x01B\0");
        for listed in [Rtype::NS, Rtype::MD, Rtype::MF, Rtype::MB, Rtype::MG, Rtype::MR, Rtype::PTR]
        {
            check(listed, b"\x01A\0", b"\x01a\0");
        }
        for listed in [Rtype::AFSDB, Rtype::RT, Rtype::KX] {
            check(listed, b"AB\x01A\0", b"AB\x01a\0");
        }
        check(Rtype::PX, b"AB\x01A\0\x01B\0", b"AB\x01a\0\x01b\0");
        check(Rtype::MINFO, b"\x01A\0\x01B\0", b"\x01a\0\x01b\0");
        check(Rtype::NXT, b"\x01A\0AB", b"\x01a\0AB");
        check(Rtype::SIG, b"ABCDEFGHIJKLMNOPQR\x01A\0S", b"ABCDEFGHIJKLMNOPQR\x01a\0S");
        check(Rtype::TXT, b"\x01A", b"\x01A");
        check(Rtype(65280), b"\x01A\0", b"\x01A\0");
    }

    #[test]
    fn an_unchanged_rdata_is_not_copied() {
        assert!(matches!(canonical(Rtype::NS, b"\x01a\0"), Cow::Borrowed(_)));
    }
}
