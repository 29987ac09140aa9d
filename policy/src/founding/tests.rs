use proptest::prelude::*;

use super::*;
use crate::officer::Role;
use crate::text::{arbitrary, edits};

fn refused(from: &str, to: &str, expect: &str) {
    let text = arbitrary::founding().to_text();
    assert!(text.contains(from), "{from:?} is not in:\n{text}");
    let error = Founding::parse(&text.replacen(from, to, 1)).expect_err(expect).to_string();
    assert!(error.contains(expect), "expected {expect:?}: {error}");
}

fn check(change: impl FnOnce(&mut Founding), expect: &str) {
    let mut founding = arbitrary::founding();
    change(&mut founding);
    let error = founding.check().expect_err(expect).to_string();
    assert!(error.contains(expect), "expected {expect:?}: {error}");
}

#[test]
fn the_text_as_people_read_it() {
    insta::assert_snapshot!("founding", arbitrary::founding().to_text());
}

#[test]
fn the_founding_hash_is_of_the_text() {
    let text = arbitrary::founding().to_text();
    assert_eq!(hash_of(&text), Hash::of(text.as_bytes()));
    assert_ne!(hash_of(&text), hash_of(&text.replacen("11", "12", 1)));
}

proptest! {
    #[test]
    fn foundings_round_trip(founding in arbitrary::any_founding()) {
        prop_assert_eq!(Founding::parse(&founding.to_text()), Ok(founding));
    }
}

#[test]
fn foreign_keys_are_sorted_and_told_once() {
    let mut founding = arbitrary::founding();
    let text = founding.to_text();
    founding.foreign.reverse();
    founding.foreign.push(founding.foreign[0].clone());
    assert_eq!(founding.to_text(), text);
    assert_eq!(Founding::parse(&text), Ok(arbitrary::founding()));
}

#[test]
fn every_single_edit_is_refused_or_says_something_else() {
    // Officers and rules are edited in the motions that change them.
    let (founding, lines) = (arbitrary::founding(), ("", "enrol: "));
    let (refused, others) =
        edits::check(&founding, Founding::to_text, Founding::parse, lines, edits::FEW);
    assert!(refused > others, "{refused} refused, {others} others");
}

#[test]
fn what_differs_is_named() {
    refused("founding v1", "statement v1", "expected `countersign founding v1`");
    refused("name: signer", "name: Signer", "expected 1 to 64 of a-z");
    refused("audit-key: ECDSAP256SHA256", "audit-key: RSASHA256", "which is refused");
    refused("audit-key: ECDSAP256SHA256", "audit-key: ecdsap256sha256", "`ECDSAP256SHA256`");
    refused("audit-key: ECDSAP256SHA256 5a", "audit-key: ECDSAP256SHA256 5A", "lower-case");
    refused("audit-key: ECDSAP256SHA256 5a", "audit-key: ECDSAP256SHA256 ", "expected 64");
    refused("Countersign%20ksk", "Countersign ksk", "expected `token: NAME group");
    refused("Countersign%20ksk", "%43ountersign%20ksk", "%XX for each octet outside");
    refused("data-objects no", "data-objects maybe", "expected `yes` or `no`");
    refused("id 00ff", "id 00FF", "in lower-case hexadecimal");
    refused("clock-days: 7", "clock-days: 007", "without a zero in front");
    refused("enrol: alice", "enrol: zoe", "expected `key: zoe …`");
    refused("recovery: (none)\n", "", "expected `recovery: …`");
}

#[test]
fn elements_are_bounded() {
    let with = |tokens: usize, foreign: usize| {
        let mut founding = arbitrary::founding();
        let token = arbitrary::token("ksk");
        founding.tokens = (0..tokens).map(|at| (format!("t{at:02}"), token.clone())).collect();
        let key = |at| ForeignKey { id: format!("{at:06}"), ..founding.foreign[0].clone() };
        founding.foreign = (0..foreign).map(key).collect();
        Founding::parse(&founding.to_text()).map_err(|error| error.to_string())
    };
    assert!(with(TOKENS_MAX, FOREIGN_MAX).is_ok());
    let error = with(TOKENS_MAX + 1, 0).expect_err("tokens");
    assert!(
        error.contains("found `t64 group ksk") && error.contains("at most 64 lines"),
        "{error}"
    );
    let error = with(1, FOREIGN_MAX + 1).expect_err("foreign");
    assert!(error.contains("expected at most 10000 foreign keys"), "{error}");
    let large = arbitrary::founding().to_text() + &"a\n".repeat(TEXT_BYTES_MAX / 2);
    let expect = TextError::TooLong { found: large.len(), max: TEXT_BYTES_MAX };
    assert_eq!(Founding::parse(&large), Err(expect));
}

#[test]
fn a_founding_is_whole() {
    assert_eq!(arbitrary::founding().check(), Ok(()));
    check(|f| f.name = "a b".to_owned(), "is no name");
    check(|f| f.tokens.clear(), "0 tokens");
    check(|f| f.tokens.retain(|name, _| name == "zsk-a"), "the audit key is on the token `ksk-a`");
    check(|f| f.audit_token = "zsk-b".to_owned(), "the audit key is on the token `zsk-b`");
    check(|f| f.foreign[0].token = "old".to_owned(), "a foreign key is on the token `old`");
    check(|f| f.foreign[0].id = "0".to_owned(), "is not lower-case hexadecimal");
    check(|f| f.foreign = vec![f.foreign[0].clone(); FOREIGN_MAX + 1], "10001 foreign keys");
    check(|f| f.clock_days = 0, "0 days ahead");
    check(|f| f.clock_days = 91, "91 days ahead");
    check(|f| f.tokens.values_mut().for_each(|t| t.serial.clear()), "no label or no serial");
    check(|f| f.tokens.values_mut().for_each(|t| t.label.clear()), "no label or no serial");
    check(|f| f.tokens.values_mut().for_each(|t| t.group = "A".to_owned()), "is no name");
    check(
        |f| {
            let ksk = f.tokens["ksk-a"].clone();
            f.tokens.insert("ksk-b".to_owned(), ksk);
        },
        "`ksk-a` and `ksk-b` are one by label and serial number",
    );
    check(
        |f| {
            let token = f.tokens["ksk-a"].clone();
            let more = |at| {
                let serial = format!("{at}");
                (format!("ksk-{at}"), TokenIdentity { serial, ..token.clone() })
            };
            f.tokens.extend((0..TOKENS_MAX).map(more));
        },
        "66 tokens",
    );
    check(|f| f.roster.0.clear(), "0 persons");
    check(
        |f| {
            let shared = arbitrary::officer(Role::Auditor, &[1]);
            f.roster.0.insert(arbitrary::person("heidi"), shared);
        },
        "have the same key",
    );
    check(|f| f.rules.0.clear(), "there is no rule for change-officers");
    check(
        |f| {
            let recovery = arbitrary::officer(Role::Recovery, &[20]);
            f.roster.0.insert(arbitrary::person("heidi"), recovery);
        },
        "persons of the role recovery and no recovery rule",
    );
}
