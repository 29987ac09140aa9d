use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<String, TextError> {
    let mut reader = Reader::new(text, 64)?;
    reader.head(&["head"])?;
    let value = reader.field("name")?.value.to_owned();
    reader.finish(&format!("head\nname: {value}\n"))?;
    Ok(value)
}

fn check(text: &str, expect: &str) {
    match read(text) {
        Ok(value) => assert_eq!(value, expect, "{text:?}"),
        Err(error) => assert_eq!(error.to_string(), expect, "{text:?}"),
    }
}

#[test]
fn errors_say_where_what_and_what_instead() {
    const ASCII: &str = "; expected printable ASCII alone, and a line feed at the end of each line";
    check("head\nname: a b\n", "a b");
    check("", "line 1: found the end of the text; expected `head`");
    check("\n", "line 1: found ``; expected `head`");
    check("head", "line 1: found the end of the text; expected a line feed first");
    check("head\n", "line 2: found the end of the text; expected `name: …`");
    check("head\nname: a", "line 2: found the end of the text; expected a line feed first");
    check("head\nname: a \n", "line 2: found a space at its end; expected none");
    check("head\nname: \n", "line 2: found a space at its end; expected none");
    check("head\nname:a\n", "line 2: found `name:a`; expected `name: …`");
    check("head\nName: a\n", "line 2: found `Name: a`; expected `name: …`");
    check("head\n\nname: a\n", "line 2: found ``; expected `name: …`");
    check("head\nname: a\n\n", "line 3: found ``; expected the end of the text");
    check("head\nname: a\nname: a\n", "line 3: found `name: a`; expected the end of the text");
    check(
        "\u{feff}head\n",
        &format!("line 1, character 1: found U+FEFF, a character that does not show{ASCII}"),
    );
    check("head\r\n", &format!("line 1, character 5: found U+000D, a carriage return{ASCII}"));
    check("head\nname:\ta\n", &format!("line 2, character 6: found U+0009, a tab{ASCII}"));
    check("head\nname: \0\n", &format!("line 2, character 7: found U+0000, NUL{ASCII}"));
    check(
        "head\nname: \u{430}\n",
        &format!(
            "line 2, character 7: found U+0430, not a character of ASCII, whatever it looks like{ASCII}"
        ),
    );
    check(
        "head\nname: \u{e9}\u{202e}\n",
        &format!(
            "line 2, character 7: found U+00E9, not a character of ASCII, whatever it looks like{ASCII}"
        ),
    );
    check(
        "head\nname: a\u{202e}\n",
        &format!(
            "line 2, character 8: found U+202E, a character that turns the direction of reading{ASCII}"
        ),
    );
    check(&"a".repeat(65), "the text has 65 octets; expected at most 64");
    let long = format!("head\nname: {}\n", "a".repeat(LINE_BYTES_MAX));
    let error = Reader::new(&long, long.len()).expect_err("long line").to_string();
    assert_eq!(error, "line 2 has 4102 octets; expected at most 4096");
}

#[test]
fn a_long_value_is_cut_in_an_error() {
    let text = format!("{}\n", "a".repeat(200));
    let mut reader = Reader::new(&text, 300).expect("reader");
    let error = reader.head(&["x", "y"]).expect_err("head").to_string();
    assert_eq!(error, format!("line 1: found `{}…`; expected `x` or `y`", "a".repeat(100)));
}

#[test]
fn what_differs_when_rendered_again_is_refused_at_its_line() {
    let text = "b\na\n";
    let finish = |rendered: &str| {
        let mut reader = Reader::new(text, 64).expect("reader");
        reader.advance();
        reader.advance();
        reader.finish(rendered).map_err(|error| error.to_string())
    };
    assert_eq!(finish(text), Ok(()));
    assert_eq!(finish("a\nb\n"), Err("line 1: found `b`; expected `a`".to_owned()));
    assert_eq!(finish("b\n"), Err("line 2: found `a`; expected the end of the text".to_owned()));
    let end = Err("line 3: found the end of the text; expected `a`".to_owned());
    assert_eq!(finish("b\na\na\n"), end);
}

#[test]
fn values_have_one_spelling() {
    let field = |value| Field { line: 1, value };
    for (value, number) in [("0", Some(0)), ("7", Some(7)), ("255", Some(255))] {
        assert_eq!(field(value).number::<u8>().ok(), number);
    }
    for value in ["", "256", "00", "07", "+7", "-7", "7 ", " 7", "7_0", "0x7", "seven"] {
        assert!(field(value).number::<u8>().is_err(), "{value:?}");
    }
    for value in ["", "Yes", "y", "true", "yes "] {
        assert!(field(value).yes_no().is_err(), "{value:?}");
    }
    for value in ["", "0", "AB", "abc", "ab ", "abcd"] {
        assert!(field(value).octets::<1>().is_err(), "{value:?}");
    }
    assert_eq!(field("ab").octets::<1>().ok(), Some([0xab]));
    let long = "a".repeat(65);
    for value in ["", "A", "a b", "a%20b", "(none)", "a/b", "a~", &long] {
        assert!(field(value).plain().is_err(), "{value:?}");
    }
    assert_eq!(field("ksk-a_1.2").plain().ok().as_deref(), Some("ksk-a_1.2"));
    assert!(field("a  b").words::<2>("two words").is_err());
    assert!(field("a b c").words::<2>("two words").is_err());
}

#[test]
fn free_text_has_one_spelling() {
    for (text, escaped) in [
        ("", "(empty)"),
        ("(empty)", "%28empty%29"),
        ("(none)", "%28none%29"),
        ("Aa0._-", "Aa0._-"),
        ("a b%", "a%20b%25"),
        ("\n\u{fc}\u{202e}", "%0A%C3%BC%E2%80%AE"),
    ] {
        assert_eq!(escape(text), escaped);
        assert_eq!(unescape(escaped).as_deref(), Some(text));
    }
    for escaped in [
        "", " ", "a b", "%", "%4", "%41", "%c3%bc", "%FF", "%C3", "%+1", "%2 ", "~", "(Empty)",
        "a%2e", "%e2", "é",
    ] {
        assert_eq!(unescape(escaped), None, "{escaped:?}");
    }
}

#[test]
fn a_sentence_makes_no_line_of_its_own() {
    for (text, escaped) in [
        ("at night, 100%!", "at night, 100%25!"),
        (" a b ", "%20a b%20"),
        (" ", "%20"),
        ("a\nnonce: b", "a%0Anonce: b"),
        ("\u{430}", "%D0%B0"),
    ] {
        assert_eq!(escape_sentence(text), escaped);
        assert_eq!(unescape_sentence(escaped).as_deref(), Some(text));
    }
    for escaped in [" a", "a ", "100%", "%41", "a%0a", "a%20b"] {
        assert_eq!(unescape_sentence(escaped), None, "{escaped:?}");
    }
}

proptest! {
    #[test]
    fn free_text_round_trips(text: String) {
        let escaped = escape(&text);
        prop_assert!(escaped.bytes().all(|b| (b'!'..=b'~').contains(&b)) && !escaped.is_empty());
        prop_assert_eq!(unescape(&escaped), Some(text.clone()));
        prop_assert_eq!(unescape_sentence(&escape_sentence(&text)), Some(text));
    }

    #[test]
    fn no_escape_has_two_spellings(escaped in "[A%0-9a-f ]{0,8}") {
        if let Some(text) = unescape(&escaped) {
            prop_assert_eq!(escape(&text), escaped.clone());
        }
        if let Some(text) = unescape_sentence(&escaped) {
            prop_assert_eq!(escape_sentence(&text), escaped);
        }
    }
}
