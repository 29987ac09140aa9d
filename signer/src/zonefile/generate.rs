//! `$GENERATE`, as BIND has it: `$GENERATE FIRST-LAST[/STEP] OWNER [TTL] [CLASS] TYPE RDATA`. In OWNER
//! and RDATA `$` stands for the number, `${OFFSET,WIDTH,BASE}` for the number plus OFFSET, filled up
//! with zeros to WIDTH, in base `d`, `o`, `x`, `X`, or as nibbles `n`, `N` (a label each, the lowest
//! first). As with BIND, an OFFSET goes on holding for a plain `$` behind it. `$$` and `\$` stand for a
//! dollar sign. RDATA may be one quoted token; its text is read anew.

use std::fmt::Write as _;

use super::Trouble;

/// Records of one `$GENERATE`: one for each address of an IPv4 /16.
pub const GENERATED_MAX: u64 = 1 << 16;
/// Records of all of a file's: a line of forty octets must not stand for a zone of millions.
pub const GENERATED_TOTAL_MAX: u64 = 1_000_000;
/// Digits that one number may be filled up to: an IPv6 address as nibbles has 63.
const WIDTH_MAX: usize = 63;

/// `FIRST-LAST/STEP`: the numbers.
pub fn range(text: &str) -> Result<impl ExactSizeIterator<Item = u32> + use<>, Trouble> {
    let bad = || Trouble::GenerateRange(text.to_owned());
    let (span, step) = match text.split_once('/') {
        Some((span, step)) => (span, number(step).ok_or_else(bad)?),
        None => (text, 1),
    };
    let (first, last) = span.split_once('-').ok_or_else(bad)?;
    let (first, last) = (number(first).ok_or_else(bad)?, number(last).ok_or_else(bad)?);
    if first > last || step == 0 {
        return Err(bad());
    }
    let count = u64::from((last - first) / step) + 1;
    if count > GENERATED_MAX {
        return Err(Trouble::GenerateTooMany(count));
    }
    // At most 65,536, and the sum at most `last`.
    Ok((0..count as u32).map(move |i| first + i * step))
}

/// Numbers are BIND's: an `int`.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse::<u32>().ok().filter(|number| digits && i32::try_from(*number).is_ok())
}

/// `template` for one number.
pub fn fill(template: &str, number: u32, out: &mut String) -> Result<(), Trouble> {
    let mut rest = template.chars();
    let mut offset = 0;
    while let Some(c) = rest.next() {
        match c {
            '\\' => {
                out.push(c);
                out.extend(rest.next());
            }
            '$' if rest.as_str().starts_with('$') => {
                rest.next();
                // Escaped, as the text is read once more.
                out.push_str("\\$");
            }
            '$' if rest.as_str().starts_with('{') => {
                let (form, after) = rest.as_str()[1..]
                    .split_once('}')
                    .ok_or_else(|| Trouble::GenerateForm(template.to_owned()))?;
                offset =
                    put(form, number, out).ok_or_else(|| Trouble::GenerateForm(form.to_owned()))?;
                rest = after.chars();
            }
            '$' => {
                let _ = write!(out, "{}", i64::from(number) + offset);
            }
            other => out.push(other),
        }
    }
    Ok(())
}

/// `OFFSET[,WIDTH[,BASE]]`; the offset.
fn put(form: &str, number: u32, out: &mut String) -> Option<i64> {
    let mut parts = form.split(',');
    let offset: i64 = parts.next()?.parse().ok()?;
    let width: usize = parts.next().map_or(Some(0), |width| width.parse().ok())?;
    let base = parts.next().unwrap_or("d");
    let value = i64::from(number).checked_add(offset)?;
    let value =
        i32::try_from(value).ok().filter(|_| width <= WIDTH_MAX && parts.next().is_none())?;
    // Writing to a String can't fail. Hexadecimal and octal show negative numbers as C does.
    let _ = match base {
        "d" => write!(out, "{value:0width$}"),
        "o" => write!(out, "{value:0width$o}"),
        "x" => write!(out, "{value:0width$x}"),
        "X" => write!(out, "{value:0width$X}"),
        "n" | "N" => {
            put_nibbles(u32::try_from(value).ok()?, width, base == "N", out);
            Ok(())
        }
        _ => return None,
    };
    Some(offset)
}

/// The lowest first; the dots count towards the width.
fn put_nibbles(mut value: u32, mut width: usize, upper: bool, out: &mut String) {
    loop {
        let digit = char::from_digit(value & 15, 16).unwrap_or('0');
        out.push(if upper { digit.to_ascii_uppercase() } else { digit });
        value >>= 4;
        width = width.saturating_sub(1);
        if width == 0 && value == 0 {
            return;
        }
        out.push('.');
        width = width.saturating_sub(1);
        if width == 0 && value == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, number: u32) -> Result<String, Trouble> {
        let mut out = String::new();
        fill(template, number, &mut out).map(|()| out)
    }

    #[test]
    fn numbers_in_all_forms() {
        for (template, number, expect) in [
            ("host$", 7, "host7"),
            ("$.$", 7, "7.7"),
            ("a$$b\\$c", 7, "a\\$b\\$c"),
            ("${10}", 7, "17"),
            ("${10}-$", 7, "17-17"),
            ("${-3}", 7, "4"),
            ("${0,3}", 7, "007"),
            ("${0,3,d}x", 7, "007x"),
            ("${0,2,x}", 255, "ff"),
            ("${0,4,X}", 255, "00FF"),
            ("${0,0,o}", 8, "10"),
            ("${0,1,n}", 0x1f, "f.1"),
            ("${0,7,N}", 0x1f, "F.1.0.0"),
            ("${0,3,n}", 0, "0.0"),
        ] {
            assert_eq!(filled(template, number).expect(template), expect, "{template}");
        }
        for template in [
            "${",
            "${}",
            "${a}",
            "${0,3,q}",
            "${0,3,d,1}",
            "${0,99}",
            "${-8,1,n}",
            "${9223372036854775807}",
        ] {
            assert!(filled(template, 7).is_err(), "{template}");
        }
    }

    #[test]
    fn ranges_are_bounded() {
        let numbers = |text| range(text).map(Iterator::collect::<Vec<_>>);
        assert_eq!(numbers("1-3").expect("three"), [1, 2, 3]);
        assert_eq!(numbers("0-10/5").expect("three"), [0, 5, 10]);
        assert_eq!(numbers("5-5").expect("one"), [5]);
        assert_eq!(range("0-65535").expect("a /16").len(), 65_536);
        for text in ["", "1", "3-1", "1-3/0", "-1-3", "1-+3", "a-b", "0-65536", "0-2147483648"] {
            assert!(range(text).is_err(), "{text}");
        }
        assert!(range("2147483646-2147483647").is_ok());
    }
}
