//! The texts that officers sign: whatever octets come in, what any of the parsers takes is written
//! again as the same octets, is of one kind, and is printable ASCII.
#![no_main]

use std::fmt::Debug;

use countersign_policy::founding::Founding;
use countersign_policy::statement::{Freeze, Statement, Verdict, Withdrawal};
use countersign_policy::text::TextError;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let kinds = [
        read(text, Statement::parse, Statement::to_text).is_some(),
        read(text, Withdrawal::parse, Withdrawal::to_text).is_some(),
        read(text, Freeze::parse, Freeze::to_text).is_some(),
        read(text, Founding::parse, |founding| {
            let _ = founding.check();
            founding.to_text()
        })
        .is_some(),
        verdict(text),
    ];
    assert!(kinds.into_iter().filter(|is_kind| *is_kind).count() <= 1, "a text of two kinds");
});

fn read<T: PartialEq + Debug>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, TextError>,
    to_text: impl Fn(&T) -> String,
) -> Option<T> {
    match parse(text) {
        Ok(value) => {
            assert_eq!(to_text(&value), text);
            assert!(text.bytes().all(|b| b == b'\n' || (b' '..=b'~').contains(&b)));
            assert_eq!(parse(text).as_ref(), Ok(&value));
            Some(value)
        }
        Err(error) => {
            // The error's own ellipsis is the one character that is not ASCII.
            assert!(error.to_string().replace('…', "").is_ascii(), "shows what it was given");
            None
        }
    }
}

/// A verdict ends with the text of its statement, which is one.
fn verdict(text: &str) -> bool {
    let Some(verdict) = read(text, Verdict::parse, Verdict::to_text) else { return false };
    let statement = verdict.statement.to_text();
    assert!(text.ends_with(&statement));
    assert_eq!(Statement::parse(&statement), Ok(verdict.statement));
    true
}
