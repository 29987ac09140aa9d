//! What one edit makes of a text: whatever it is, it is refused, or it is another value that says
//! of itself exactly what was edited in. Never the same value in another text.

use std::fmt::Debug;

use super::TextError;

/// What each octet is replaced by, and what is put in at each place.
pub(crate) const MANY: &[char] = &[
    '\0', '\t', '\n', '\r', ' ', '%', '+', '-', '.', '0', '1', '9', ':', 'A', 'F', 'Z', '\\', '_',
    'a', 'f', 'z', '|', '~', '\u{7f}', '\u{a0}', '\u{430}', '\u{200b}', '\u{202e}',
];

/// Fewer of them, for long texts.
pub(crate) const FEW: &[char] = &['\n', ' ', '%', '.', '0', 'A', 'a', '\u{430}'];

/// Makes every text that is one edit away, edited in the lines from `from` on up to `to` (to be
/// found in the text; "" is all of it), and gives how many of them were refused and how many were
/// values of their own.
pub(crate) fn check<T: PartialEq + Debug>(
    value: &T,
    to_text: impl Fn(&T) -> String,
    parse: impl Fn(&str) -> Result<T, TextError>,
    (from, to): (&str, &str),
    octets: &[char],
) -> (usize, usize) {
    let text = to_text(value);
    let first = text.find(from).expect("from");
    let end = if to.is_empty() { text.len() } else { text.find(to).expect("to") };
    assert_eq!(parse(&text).as_ref(), Ok(value));
    let (mut refused, mut others) = (0, 0);
    let mut check = |edited: String| {
        if edited == text {
            return;
        }
        match parse(&edited) {
            Err(error) => {
                assert!(error.to_string().is_ascii() || error.to_string().contains('…'));
                refused += 1;
            }
            Ok(other) => {
                assert_ne!(&other, value, "the same value from another text:\n{edited}");
                assert_eq!(to_text(&other), edited, "a text that is not the value's own");
                others += 1;
            }
        }
    };
    for at in first..=end {
        let (before, after) = text.split_at(at);
        check(before.to_owned());
        check(after.to_owned());
        for octet in octets {
            check(format!("{before}{octet}{after}"));
            if let Some(rest) = after.get(1..) {
                check(format!("{before}{octet}{rest}"));
            }
        }
        if let Some(rest) = after.get(1..) {
            check(format!("{before}{rest}"));
            check(format!("{before}{}{rest}", &after[..1].repeat(2)));
            check(format!("{before}{}{rest}", after[..1].to_ascii_uppercase()));
        }
    }
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let line_of = |at: usize| text[..at].matches('\n').count();
    for at in line_of(first)..line_of(end) {
        let without = [&lines[..at], &lines[at + 1..]].concat();
        check(without.concat());
        for to in 0..=without.len() {
            let moved = [&without[..to], &lines[at..=at], &without[to..]].concat();
            check(moved.concat());
        }
        for to in 0..=lines.len() {
            let twice = [&lines[..to], &lines[at..=at], &lines[to..]].concat();
            check(twice.concat());
        }
    }
    (refused, others)
}
