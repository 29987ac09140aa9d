use proptest::prelude::*;

use super::*;
use crate::motion::{MotionKind, Scope, ZONES_MAX};
use crate::officer::Role;
use crate::text::{arbitrary, edits};

/// Takes the text of a statement with one motion, puts `to` in the place of `from`, and expects it to
/// be refused so.
fn check(kind: MotionKind, from: &str, to: &str, expect: &str) {
    let motion = arbitrary::motions().swap_remove(kind as usize);
    let text = arbitrary::statement(motion).to_text();
    assert!(text.contains(from), "{from:?} is not in:\n{text}");
    let error = Statement::parse(&text.replacen(from, to, 1)).expect_err(expect).to_string();
    assert!(error.contains(expect), "expected {expect:?}: {error}");
}

#[test]
fn texts_as_people_read_them() {
    let verdict = arbitrary::verdict(Verb::Approve);
    insta::assert_snapshot!("approval", verdict.to_text());
    insta::assert_snapshot!("denial", arbitrary::verdict(Verb::Deny).to_text());
    insta::assert_snapshot!("statement", verdict.statement.to_text());
    insta::assert_snapshot!("statement_words", verdict.statement.hash().words());
    insta::assert_snapshot!("withdrawal", arbitrary::withdrawal().to_text());
    insta::assert_snapshot!("freeze", arbitrary::freeze().to_text());
}

#[test]
fn a_motion_of_each_sort_as_people_read_it() {
    let motions = arbitrary::motions();
    assert!(motions.iter().map(Motion::kind).eq(MotionKind::all()));
    let texts: Vec<String> = motions
        .into_iter()
        .map(|motion| {
            let text = arbitrary::statement(motion).to_text();
            let lines = text.lines().skip_while(|line| !line.starts_with("operation: "));
            lines.take_while(|line| !line.starts_with("nonce: ")).collect::<Vec<_>>().join("\n")
        })
        .collect();
    insta::assert_snapshot!("motions", texts.join("\n\n"));
}

#[test]
fn the_name_of_a_statement_is_the_hash_of_its_text() {
    let statement = arbitrary::verdict(Verb::Approve).statement;
    let hash = statement.hash();
    assert_eq!(hash.0, Hash::of(statement.to_text().as_bytes()));
    assert_eq!(hash.to_string().parse(), Ok(hash));
    assert_eq!(hash.short(), hash.to_string()[..8]);
    assert!(hash.to_string().to_uppercase().parse::<StatementHash>().is_err());
    assert_eq!(hash.words().split_whitespace().count(), 32);
}

#[test]
fn a_verdict_holds_its_statement_as_it_is() {
    let verdict = arbitrary::verdict(Verb::Deny);
    let text = verdict.to_text();
    assert!(text.ends_with(&verdict.statement.to_text()));
    assert!(text.starts_with("countersign denial v1\nofficer: alice\ncheckpoint: 13 c1"));
}

#[test]
fn one_kind_of_text_is_never_another() {
    let verdict = arbitrary::verdict(Verb::Approve);
    let texts = [
        verdict.statement.to_text(),
        verdict.to_text(),
        arbitrary::verdict(Verb::Deny).to_text(),
        arbitrary::withdrawal().to_text(),
        arbitrary::freeze().to_text(),
        arbitrary::founding().to_text(),
    ];
    let accepts = |text: &str| {
        let verb = Verdict::parse(text).ok().map(|verdict| verdict.verb);
        [
            Statement::parse(text).is_ok(),
            verb == Some(Verb::Approve),
            verb == Some(Verb::Deny),
            Withdrawal::parse(text).is_ok(),
            Freeze::parse(text).is_ok(),
            crate::founding::Founding::parse(text).is_ok(),
        ]
    };
    for (at, text) in texts.iter().enumerate() {
        let mut expect = [false; 6];
        expect[at] = true;
        assert_eq!(accepts(text), expect, "{text}");
    }
}

proptest! {
    #[test]
    fn statements_round_trip(statement in arbitrary::any_statement()) {
        let text = statement.to_text();
        prop_assert_eq!(Statement::parse(&text), Ok(statement));
    }

    #[test]
    fn verdicts_round_trip(verdict in arbitrary::any_verdict()) {
        let text = verdict.to_text();
        prop_assert_eq!(Verdict::parse(&text), Ok(verdict));
    }

    #[test]
    fn withdrawals_and_freezes_round_trip(
        withdrawal in arbitrary::any_withdrawal(), freeze in arbitrary::any_freeze(),
    ) {
        prop_assert_eq!(Withdrawal::parse(&withdrawal.to_text()), Ok(withdrawal));
        prop_assert_eq!(Freeze::parse(&freeze.to_text()), Ok(freeze));
    }
}

/// What has no text must not be given that of something else.
#[test]
fn what_no_text_can_say_makes_a_text_that_is_refused() {
    for reason in ["", " ", "a ", " a", "a\nb", "a\u{430}", &"a".repeat(REASON_BYTES_MAX + 1)] {
        let freeze = Freeze { reason: reason.to_owned(), ..arbitrary::freeze() };
        assert!(Freeze::parse(&freeze.to_text()).is_err(), "{reason:?}");
    }
    let refused = |motion: Motion| {
        let statement = arbitrary::statement(motion);
        assert!(Statement::parse(&statement.to_text()).is_err(), "{:?}", statement.motion);
    };
    for name in ["", "Default", "a b", "a\nversion: 7", "(none)", "\u{430}", &"a".repeat(65)] {
        let (zones, policy) = (arbitrary::zones(&["example."]), name.to_owned());
        refused(Motion::BindZone { zones, policy });
        let mut policy = crate::testing::policy();
        policy.ksk_group = name.to_owned();
        refused(Motion::SetPolicy { name: "default".to_owned(), version: 1, policy });
    }
    refused(Motion::UnbindZone { zones: [].into() });
    let nobody = arbitrary::officer(Role::KeyOfficer, &[]);
    let enrol = [(arbitrary::person("eve"), nobody)].into();
    refused(Motion::ChangeOfficers { version: 2, retire: [].into(), enrol });
    refused(Motion::ChangeOfficers { version: 2, retire: [].into(), enrol: [].into() });
    let mut rules = arbitrary::rules();
    rules.0.remove(&MotionKind::Thaw);
    refused(Motion::ChangeRules { version: 2, rules, recovery: None });
    refused(Motion::RaiseTimeFloor { to: crate::text::TIME_S_MAX + 1 });
    let zones: Vec<String> = (0..=ZONES_MAX).map(|at| format!("z{at}.")).collect();
    let zones: Vec<&str> = zones.iter().map(String::as_str).collect();
    refused(Motion::UnbindZone { zones: arbitrary::zones(&zones) });
}

#[test]
fn every_single_edit_is_refused_or_says_something_else() {
    let all = ("", "");
    edits::check(
        &arbitrary::withdrawal(),
        Withdrawal::to_text,
        Withdrawal::parse,
        all,
        edits::MANY,
    );
    edits::check(&arbitrary::freeze(), Freeze::to_text, Freeze::parse, all, edits::MANY);
    let zone = Scope::Zone("example.".parse().expect("name"));
    let freeze = Freeze { scope: zone, ..arbitrary::freeze() };
    edits::check(&freeze, Freeze::to_text, Freeze::parse, all, edits::MANY);
    let verdict = arbitrary::verdict(Verb::Deny);
    let (refused, others) =
        edits::check(&verdict, Verdict::to_text, Verdict::parse, all, edits::FEW);
    assert!(refused > 4 * others, "{refused} refused, {others} others");
}

#[test]
fn every_single_edit_of_a_motion_too() {
    for motion in arbitrary::motions() {
        let kind = motion.kind();
        let statement = arbitrary::statement(motion);
        // Nineteen rules are alike; some of them are enough.
        let first =
            if kind == MotionKind::ChangeRules { "rule: publish-cds" } else { "operation: " };
        let lines = (first, "nonce: ");
        let (refused, others) =
            edits::check(&statement, Statement::to_text, Statement::parse, lines, edits::FEW);
        assert!(refused > others, "{kind}: {refused} refused, {others} others");
    }
}

#[test]
fn fields_are_there_once_and_in_order() {
    use MotionKind::{BindZone, ChangeOfficers, ChangeRules, GenerateKey, SetPolicy};
    check(GenerateKey, "statement v1", "statement v2", "line 1");
    check(GenerateKey, "statement v1\n", "statement v1\n\n", "expected `appliance: …`");
    check(GenerateKey, "nonce:", "Nonce:", "expected `nonce: …`");
    check(GenerateKey, "nonce: ", "nonce:  ", "expected 32 lower-case hexadecimal digits");
    check(GenerateKey, "proposer: olga\n", "", "expected `proposer: …`");
    check(GenerateKey, "proposer: olga", "proposer: olga\nproposer: olga", "`operation: …`");
    check(GenerateKey, "proposer: olga", "proposer: Olga", "is no person's name");
    check(GenerateKey, "generate-key", "generate", "is no operation under quorum");
    check(GenerateKey, "generate-key", "destroy-key", "expected `key: …`");
    check(GenerateKey, "zone: example.\n", "zone: Example.\n", "expected `zone: example.`");
    check(GenerateKey, "zone: example.\n", "zone: example\n", "expected `zone: example.`");
    check(GenerateKey, "zone: example.\n", "zone: example.org.\n", "expected `role: ksk`");
    check(GenerateKey, "zone: example.\n", "zone: \\101xample.\n", "expected `zone: example.`");
    check(GenerateKey, "role: ksk", "role: KSK", "expected `ksk`, `zsk`, `csk`");
    check(GenerateKey, "activate: yes", "activate: true", "expected `yes` or `no`");
    check(GenerateKey, "checkpoint: 12", "checkpoint: 012", "without leading zeros");
    check(GenerateKey, "T03:00:00Z", "T03:00:00z", "expected a time from 1970 to 2199");
    check(GenerateKey, "not-before: 2026-11-25", "not-before: 2026-11-31", "expected a time");
    check(GenerateKey, "finish-by:", "force: yes\nfinish-by:", "expected `finish-by: …`");
    check(
        BindZone,
        "zone: a\\.b.example.\nzone: example.",
        "zone: example.\nzone: a\\.b.example.",
        "expected `zone: a\\.b.example.`",
    );
    check(ChangeOfficers, "version: 2", "version: +2", "without a zero in front");
    check(ChangeOfficers, "enrol: eve key-officer", "enrol: eve root", "is no role");
    check(ChangeOfficers, "enrol: eve ", "enrol: eve  ", "expected a person's name and a role");
    check(ChangeOfficers, "retire: bob\n", "retire: bob\nretire: bob\n", "expected `enrol: eve");
    check(ChangeOfficers, "key: eve ", "key: bob ", "expected `key: eve …`");
    check(ChangeOfficers, "key: eve ssh-ed25519 AAAA", "key: eve ssh-ed25519 AAAB", "refused");
    check(ChangeOfficers, "verify-required", "verify-required verify-required", "refused");
    check(ChangeRules, "rule: change-rules", "rule: change-officers", "the rule for change-rules");
    check(ChangeRules, " 2 key-officer\n", " 02 key-officer\n", "without a zero in front");
    check(ChangeRules, " 2 key-officer\n", " 256 key-officer\n", "a number below 2^8");
    check(ChangeRules, "2 key-officer|policy", "2 policy-officer|key", "expected `rule: thaw");
    check(ChangeRules, "2 key-officer + 1", "2 key-officer +1", "as `2 key-officer` or");
    check(ChangeRules, "3 after 172800", "3 within 172800", "`3 after 172800`");
    check(ChangeRules, "3 after 172800", "none", "expected `(none)`");
    check(SetPolicy, "rsa-bits: (none)", "rsa-bits: none", "expected a number");
    check(SetPolicy, "ECDSAP256SHA256", "13", "`ECDSAP256SHA256`");
    check(SetPolicy, "approval: standing", "approval: always", "expected `standing`, `per-set`");
}

/// Letters of other scripts that look like ASCII, what does not show, and what turns the direction
/// of reading, at every place of a text.
#[test]
fn no_character_passes_for_another() {
    let strangers = [
        '\u{0}',
        '\u{9}',
        '\u{b}',
        '\u{c}',
        '\u{d}',
        '\u{1b}',
        '\u{7f}',
        '\u{85}',
        '\u{a0}',
        '\u{ad}',
        '\u{61c}',
        '\u{2028}',
        '\u{3b1}',
        '\u{430}',
        '\u{435}',
        '\u{43e}',
        '\u{440}',
        '\u{441}',
        '\u{445}',
        '\u{456}',
        '\u{501}',
        '\u{2010}',
        '\u{2024}',
        '\u{200b}',
        '\u{200d}',
        '\u{200e}',
        '\u{200f}',
        '\u{202a}',
        '\u{202e}',
        '\u{2066}',
        '\u{2069}',
        '\u{2236}',
        '\u{3000}',
        '\u{a789}',
        '\u{fe55}',
        '\u{feff}',
        '\u{ff0d}',
        '\u{ff1a}',
        '\u{ff41}',
        '\u{1d41a}',
        '\u{e0061}',
    ];
    let text = arbitrary::verdict(Verb::Approve).to_text();
    for at in 0..=text.len() {
        let (before, after) = text.split_at(at);
        for stranger in strangers {
            let edited = format!("{before}{stranger}{after}");
            let error = Verdict::parse(&edited).expect_err("a stranger");
            let line = 1 + before.matches('\n').count();
            let place = format!("line {line}, character ");
            let code = format!(": found U+{:04X}, ", u32::from(stranger));
            let error = error.to_string();
            assert!(error.starts_with(&place) && error.contains(&code), "{error}");
            assert!(error.is_ascii(), "{error}");
        }
    }
}

#[test]
fn line_ends_have_one_form() {
    let text = arbitrary::freeze().to_text();
    let refused = |edited: &str, expect: &str| {
        let error = Freeze::parse(edited).expect_err(expect).to_string();
        assert!(error.contains(expect), "{error}");
    };
    refused(&text.replace('\n', "\r\n"), "U+000D, a carriage return");
    refused(&text.replace('\n', "\r"), "U+000D, a carriage return");
    refused(text.trim_end(), "expected a line feed first");
    refused(&format!("{text}\n"), "expected the end of the text");
    refused(&format!("\n{text}"), "expected `countersign freeze v1`");
    refused(&text.replacen('\n', " \n", 1), "a space at its end");
    refused(&format!("{text} "), "line 8: found a space at its end");
    refused(&format!("{text}\0"), "U+0000, NUL");
    refused("", "line 1: found the end of the text");
}

#[test]
fn texts_are_bounded() {
    let statement = arbitrary::statement(arbitrary::motions().swap_remove(0)).to_text();
    let large = statement.clone() + &"a\n".repeat(TEXT_BYTES_MAX / 2);
    let found = large.len();
    let expect = TextError::TooLong { found, max: TEXT_BYTES_MAX };
    assert_eq!(Statement::parse(&large), Err(expect));
    let zones: Vec<String> = (0..ZONES_MAX).map(longest_zone).collect();
    let zones: Vec<&str> = zones.iter().map(String::as_str).collect();
    let motion = Motion::UnbindZone { zones: arbitrary::zones(&zones) };
    let full =
        Verdict { statement: arbitrary::statement(motion), ..arbitrary::verdict(Verb::Deny) };
    assert_eq!(Verdict::parse(&full.to_text()).as_ref(), Ok(&full), "the largest still fits");
    assert_eq!(Statement::parse(&full.statement.to_text()), Ok(full.statement));
    let scope = Scope::Zone(longest_zone(1).parse().expect("name"));
    let officer = arbitrary::person(&"a".repeat(32));
    let reason = "%".repeat(REASON_BYTES_MAX);
    let full = Freeze { officer, scope, reason, ..arbitrary::freeze() };
    assert_eq!(Freeze::parse(&full.to_text()), Ok(full));
}

#[test]
fn elements_are_bounded() {
    let parse = |motion| Statement::parse(&arbitrary::statement(motion).to_text());
    let refused = |motion, expect: &str| {
        let error = parse(motion).expect_err(expect).to_string();
        assert!(error.contains(expect), "expected {expect:?}: {error}");
    };
    let names = |count: u8| (0..count).map(|at| arbitrary::person(&format!("p{at:02}")));
    let officer = |keys: &[u8]| arbitrary::officer(Role::Auditor, keys);
    let retire = |count| {
        let retire = names(count).collect();
        Motion::ChangeOfficers { version: 2, retire, enrol: [].into() }
    };
    let enrol = |count, keys: &[u8]| {
        let enrol = names(count).map(|name| (name, officer(keys))).collect();
        Motion::ChangeOfficers { version: 2, retire: [].into(), enrol }
    };
    assert!(parse(retire(64)).is_ok());
    refused(retire(65), "found `p64`; expected at most 64 persons");
    assert!(parse(enrol(64, &[1, 2, 3, 4])).is_ok());
    refused(enrol(65, &[1]), "found `p64 auditor`; expected at most 64 persons");
    refused(enrol(1, &[1, 2, 3, 4, 5]), "expected at most 4 lines `key`");
    let keys = |count: u8| {
        let keys = (0..count).map(|at| crate::KeyId([at; 32])).collect();
        Motion::SignDnskeySet { zone: "example.".parse().expect("name"), keys }
    };
    assert!(parse(keys(32)).is_ok());
    refused(keys(33), "expected at most 32 lines `key`");
}

/// A name of 255 octets, nearly all of which need an escape.
fn longest_zone(at: usize) -> String {
    let label = "\\000".repeat(62);
    format!("{at:03}{}.{label}.{label}.{label}.", "\\000".repeat(59))
}
