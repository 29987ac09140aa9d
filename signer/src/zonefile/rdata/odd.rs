//! The forms that no table describes: LOC, APL, HIP, WKS, A6, AMTRELAY, and what is left of CERT,
//! NSAP, NXT and DOA.

use super::{Tokens, base64, hex, ipv4, ipv6, type_named};

type Read = Result<(), String>;

/// RFC 4398 §2.1.
pub fn cert_type(tokens: &mut Tokens<'_, '_>, out: &mut Vec<u8>) -> Read {
    const MNEMONICS: &[(&str, u16)] = &[
        ("PKIX", 1),
        ("SPKI", 2),
        ("PGP", 3),
        ("IPKIX", 4),
        ("ISPKI", 5),
        ("IPGP", 6),
        ("ACPKIX", 7),
        ("IACPKIX", 8),
        ("URI", 253),
        ("OID", 254),
    ];
    let token = tokens.next()?;
    let known = MNEMONICS.iter().find(|(mnemonic, _)| token.is_word(mnemonic));
    let number = known.map(|(_, number)| *number).or_else(|| token.text.parse().ok());
    let number = number.ok_or_else(|| format!("{:?} is no certificate type", token.text))?;
    out.extend_from_slice(&number.to_be_bytes());
    Ok(())
}

/// RFC 1706 §5: `0x` and digits, dots between them anywhere.
pub fn nsap(tokens: &mut Tokens<'_, '_>, out: &mut Vec<u8>) -> Read {
    let text = tokens.next()?.text;
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let digits = digits.ok_or_else(|| format!("{text:?} does not begin with 0x"))?;
    out.extend_from_slice(&hex(&digits.replace('.', ""))?);
    Ok(())
}

/// `-` for nothing.
pub fn base64_or_dash(tokens: &mut Tokens<'_, '_>, out: &mut Vec<u8>) -> Read {
    let text = tokens.joined();
    if text != "-" {
        out.extend_from_slice(&base64(&text)?);
    }
    Ok(())
}

/// RFC 2535 §5.2: bits of the types below 128.
pub fn nxt_types(tokens: &mut Tokens<'_, '_>, out: &mut Vec<u8>) -> Read {
    let mut bits = [0_u8; 16];
    let mut len = 0;
    while tokens.peek().is_some() {
        let token = tokens.next()?;
        let rtype = type_named(token.text).map(|rtype| usize::from(rtype.0));
        let rtype = rtype.filter(|rtype| (1..128).contains(rtype));
        let rtype = rtype.ok_or_else(|| format!("{:?} is no type below 128", token.text))?;
        bits[rtype / 8] |= 0x80 >> (rtype % 8);
        len = len.max(rtype / 8 + 1);
    }
    out.extend_from_slice(&bits[..len]);
    Ok(())
}

/// RFC 1035 §3.4.2: the protocol's number, then bits of ports.
pub fn wks(tokens: &mut Tokens<'_, '_>, out: &mut Vec<u8>) -> Read {
    let token = tokens.next()?;
    let protocol = match token.text {
        _ if token.is_word("TCP") => Some(6),
        _ if token.is_word("UDP") => Some(17),
        number => number.parse().ok(),
    };
    out.push(protocol.ok_or_else(|| format!("{:?} is neither TCP, UDP nor a number", token.text))?);
    let mut bits = vec![0_u8; 8_192];
    let mut len = 0;
    while tokens.peek().is_some() {
        let port: u16 = tokens.number().map_err(|problem| {
            format!("{problem}; names of services depend on the box, so ports are numbers here")
        })?;
        let port = usize::from(port);
        bits[port / 8] |= 0x80 >> (port % 8);
        len = len.max(port / 8 + 1);
    }
    out.extend_from_slice(&bits[..len]);
    Ok(())
}

/// RFC 2874 §3.2: prefix length, then the address suffix unless it is 128, then the name unless it
/// is 0. Bits of the address that the prefix covers are zero.
pub fn a6(tokens: &mut Tokens<'_, '_>, out: &mut Vec<u8>) -> Read {
    let prefix: u8 = tokens.number()?;
    if prefix > 128 {
        return Err(format!("the prefix length is {prefix}; at most 128"));
    }
    out.push(prefix);
    if prefix < 128 {
        let mut address = ipv6(tokens.next()?.text)?.octets();
        let at = usize::from(prefix / 8);
        address[at] &= 0xff >> (prefix % 8);
        out.extend_from_slice(&address[at..]);
    }
    if prefix > 0 {
        out.extend_from_slice(&tokens.name()?);
    }
    Ok(())
}

/// RFC 8005 §6: algorithm, HIT, key, rendezvous servers; in wire form the lengths come first.
pub fn hip(tokens: &mut Tokens<'_, '_>, out: &mut Vec<u8>) -> Read {
    let algorithm: u8 = tokens.number()?;
    let hit = hex(tokens.next()?.text)?;
    let key = base64(tokens.next()?.text)?;
    out.push(u8::try_from(hit.len()).map_err(|_| "the HIT has more than 255 octets")?);
    out.push(algorithm);
    let key_len = u16::try_from(key.len()).map_err(|_| "the key has more than 65535 octets")?;
    out.extend_from_slice(&key_len.to_be_bytes());
    out.extend_from_slice(&hit);
    out.extend_from_slice(&key);
    while tokens.peek().is_some() {
        out.extend_from_slice(&tokens.name()?);
    }
    Ok(())
}

/// RFC 8777 §4.3: precedence, discovery bit and type, relay.
pub fn amtrelay(tokens: &mut Tokens<'_, '_>, out: &mut Vec<u8>) -> Read {
    let precedence: u8 = tokens.number()?;
    let (discovery, kind): (u8, u8) = (tokens.number()?, tokens.number()?);
    if discovery > 1 || kind > 3 {
        return Err("the discovery bit is 0 or 1, and the type 0 to 3".to_owned());
    }
    out.extend_from_slice(&[precedence, discovery << 7 | kind]);
    match kind {
        0 => {
            // "." stands for no relay.
            if tokens.peek().is_some_and(|token| token.text == ".") {
                tokens.next()?;
            }
        }
        1 => out.extend_from_slice(&ipv4(tokens.next()?.text)?.octets()),
        2 => out.extend_from_slice(&ipv6(tokens.next()?.text)?.octets()),
        _ => out.extend_from_slice(&tokens.name()?),
    }
    Ok(())
}

/// RFC 3123 §5: `[!]FAMILY:ADDRESS/PREFIX`; octets of zero at an address's end are left out (§4).
pub fn apl(tokens: &mut Tokens<'_, '_>, out: &mut Vec<u8>) -> Read {
    while tokens.peek().is_some() {
        let text = tokens.next()?.text;
        let bad = || format!("{text:?} is no address prefix");
        let (not, item) = text.strip_prefix('!').map_or((0, text), |item| (0x80, item));
        let (family, rest) = item.split_once(':').ok_or_else(bad)?;
        let (address, prefix) = rest.split_once('/').ok_or_else(bad)?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let (family, octets) = match family {
            "1" => (1_u16, ipv4(address)?.octets().to_vec()),
            "2" => (2, ipv6(address)?.octets().to_vec()),
            _ => return Err(bad()),
        };
        if usize::from(prefix) > octets.len() * 8 {
            return Err(bad());
        }
        let used = octets.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
        out.extend_from_slice(&family.to_be_bytes());
        out.extend_from_slice(&[prefix, not | used as u8]); // at most 16
        out.extend_from_slice(&octets[..used]);
    }
    Ok(())
}

/// Thousandths of an arc second from the equator or meridian to where the wire form's zero is.
const LOC_ZERO: u64 = 1 << 31;
/// Centimetres below the reference ellipsoid where the wire form's zero is.
const LOC_DEPTH_CM: i64 = 10_000_000;

/// RFC 1876 §3. Size and precisions are 1 m, 10 km and 10 m where they are left out.
pub fn loc(tokens: &mut Tokens<'_, '_>, out: &mut Vec<u8>) -> Read {
    let latitude = angle(tokens, 90, "N", "S")?;
    let longitude = angle(tokens, 180, "E", "W")?;
    let altitude = centimetres(tokens.next()?.text)? + LOC_DEPTH_CM;
    let altitude = u32::try_from(altitude).map_err(|_| "the altitude is out of range")?;
    let mut sizes = [0x12, 0x16, 0x13];
    for size in &mut sizes {
        if tokens.peek().is_some() {
            *size = precision(tokens.next()?.text)?;
        }
    }
    out.push(0);
    out.extend_from_slice(&sizes);
    for value in [latitude, longitude, altitude] {
        out.extend_from_slice(&value.to_be_bytes());
    }
    Ok(())
}

/// `DEGREES [MINUTES [SECONDS]] HEMISPHERE`.
fn angle(
    tokens: &mut Tokens<'_, '_>,
    most: u64,
    positive: &str,
    negative: &str,
) -> Result<u32, String> {
    let degrees: u64 = tokens.number()?;
    let (mut minutes, mut milliseconds) = (0, 0);
    let mut sign = tokens.next()?;
    if sign.text.starts_with(|c: char| c.is_ascii_digit()) {
        minutes = sign.text.parse::<u64>().map_err(|_| format!("{:?} is no minute", sign.text))?;
        sign = tokens.next()?;
        if sign.text.starts_with(|c: char| c.is_ascii_digit()) {
            milliseconds = thousandths(sign.text, 3)?;
            sign = tokens.next()?;
        }
    }
    let total = (degrees.min(1_000) * 60 + minutes.min(1_000)) * 60_000 + milliseconds;
    if minutes > 59 || milliseconds > 59_999 || total > most * 3_600_000 {
        return Err(format!("an angle beyond {most} degrees, 59 minutes, 59.999 seconds"));
    }
    let value = match sign {
        sign if sign.is_word(positive) => LOC_ZERO + total,
        sign if sign.is_word(negative) => LOC_ZERO - total,
        other => return Err(format!("{:?} is neither {positive} nor {negative}", other.text)),
    };
    Ok(value as u32) // at most 2^31 + 648,000,000
}

/// A number with up to so many decimals, as whole numbers of the last one.
fn thousandths(text: &str, decimals: usize) -> Result<u64, String> {
    let bad = || format!("{text:?} is no number with up to {decimals} decimals");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if fraction.len() > decimals || whole.is_empty() || !digits(whole) || !digits(fraction) {
        return Err(bad());
    }
    format!("{whole}{fraction:0<decimals$}").parse().map_err(|_| bad())
}

/// Metres with up to two decimals, an `m` at the end or not.
fn centimetres(text: &str) -> Result<i64, String> {
    let metres = text.strip_suffix(['m', 'M']).unwrap_or(text);
    let (sign, metres) = metres.strip_prefix('-').map_or((1, metres), |metres| (-1, metres));
    let metres = metres.strip_prefix('+').unwrap_or(metres);
    let value = thousandths(metres, 2)?;
    i64::try_from(value).map(|value| sign * value).map_err(|_| format!("{text:?} is too far"))
}

/// One digit and a power of ten, in centimetres.
fn precision(text: &str) -> Result<u8, String> {
    let bad = || format!("{text:?}; expected 0 to 90000000 metres");
    let mut value = u64::try_from(centimetres(text)?).map_err(|_| bad())?;
    let mut exponent = 0;
    while value > 9 {
        value /= 10;
        exponent += 1;
    }
    if exponent > 9 {
        return Err(bad());
    }
    Ok((value as u8) << 4 | exponent)
}

/// Days since 1970, which the year is not before, of a date in the Gregorian calendar.
pub fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days() {
        assert_eq!(days_from_civil(1970, 1, 1), 0);
        assert_eq!(days_from_civil(2000, 2, 29), 11_016);
        assert_eq!(days_from_civil(2106, 2, 7), 49_710);
    }
}
