use std::path::Path;

use super::*;

const WHOLE: &str = r#"version = 1
[daemon]
state_dir = "/var/lib/countersign"
keeper_socket = "/run/countersign-keeper/keeper.sock"
api_socket = "/run/countersign/api.sock"
[tls]
certificate = "/etc/countersign/daemon.pem"
key = "/etc/countersign/daemon.key"
ca = "/etc/countersign/ca.pem"
[listen]
dns = ["127.0.0.1:5301"]
xot = ["127.0.0.1:8853"]
api = ["127.0.0.1:8443"]
[peer.primary-1]
identity = { san = "primary.test" }
transfer_from = "127.0.0.1:8531"
addresses = ["127.0.0.1"]
[peer.secondary-1]
identity = { san = "Secondary.test." }
notify = "127.0.0.1:5302"
[zone."Example."]
primaries = ["primary-1"]
secondaries = ["secondary-1"]
incoming_dnssec = "refuse"
[api_client.ops]
identity = { spki_sha256 = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF" }
role = "operator"
[limits]
records_max = 1000
"#;

fn parsed(text: &str) -> Result<Config, ConfigError> {
    parse(Path::new("d.toml"), text)
}

/// Replaces `from` in the whole example by `to`; the error's text must be `expect`.
fn check(from: &str, to: &str, expect: &str) {
    assert!(WHOLE.contains(from), "{from:?} is not in the example");
    let error = parsed(&WHOLE.replacen(from, to, 1)).expect_err(expect).to_string();
    assert_eq!(error, expect);
}

/// The same, for parts of the text.
fn check_contains(from: &str, to: &str, expect: &[&str]) {
    assert!(WHOLE.contains(from), "{from:?} is not in the example");
    let error = parsed(&WHOLE.replacen(from, to, 1)).expect_err(to).to_string();
    for part in expect {
        assert!(error.contains(part), "{part:?} is not in:\n{error}");
    }
}

#[test]
fn the_example_is_whole() {
    let config = parsed(WHOLE).expect("whole");
    let zone = &config.zones[&"example.".parse().expect("name")];
    assert_eq!(zone.primaries, ["primary-1"]);
    assert_eq!(zone.incoming_dnssec, IncomingDnssec::Refuse);
    assert_eq!(
        config.peers["secondary-1"].identity,
        Some(Identity::San("secondary.test".to_owned()))
    );
    assert_eq!(config.limits.records_max, 1000);
    assert_eq!(config.limits.idle_ms, Limits::default().idle_ms);
    assert_eq!(config.needs_restart(&config), Vec::<&str>::new());
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_one_that_was_meant() {
    check(
        "primaries = ",
        "primarys = ",
        "d.toml:22:1: unknown field `primarys`, expected one of `primaries`, `push_from`, \
         `secondaries`, `incoming_dnssec`, `incoming_zonemd`, `zonemd`, `beyond_window`, `guard`, \
         `critical`, `hooks`\n  22 | primarys = [\"primary-1\"]\n     | ^\n  hint: did you mean \
         `primaries`?",
    );
    check_contains("[limits]\n", "[limits]\nfoo = 1\n", &["d.toml:29:1: unknown field `foo`"]);
    check_contains("\"refuse\"", "\"drop\"", &["unknown variant `drop`", "d.toml:24:19"]);
}

#[test]
fn a_missing_or_misshapen_value_says_what_was_expected() {
    check_contains("state_dir = \"/var/lib/countersign\"\n", "", &["missing field `state_dir`"]);
    check_contains("\"127.0.0.1:5301\"", "\"localhost\"", &["d.toml:11:8", "socket address"]);
    check_contains("version = 1", "version = 7", &["d.toml:1:11", "reads version 1"]);
    check_contains("records_max = 1000", "records_max = \"many\"", &["d.toml:29:15", "usize"]);
    check_contains("records_max = 1000", "records_max = 0", &["`limits.records_max` is 0"]);
    check_contains(
        "\"/run/countersign/api.sock\"",
        "\"api.sock\"",
        &["d.toml:5:14", "from the root"],
    );
}

#[test]
fn names_must_lead_somewhere() {
    check(
        "secondaries = [\"secondary-1\"]",
        "secondaries = [\"secondary-2\"]",
        "d.toml:23:16: zone example.: `secondaries` names the peer `secondary-2`, which is not \
         defined\n  23 | secondaries = [\"secondary-2\"]\n     |                ^\n  hint: did you \
         mean `secondary-1`?",
    );
    check_contains(
        "primaries = [\"primary-1\"]",
        "primaries = [\"secondary-1\"]",
        &["d.toml:22:14", "has no `transfer_from`", "hint: add transfer_from"],
    );
    check_contains("[\"primary-1\"]", "[]", &["zone example. has neither"]);
    check_contains("[\"primary-1\"]", "[\"primary-1\", \"primary-1\"]", &["twice"]);
    check_contains("\"Example.\"", "\"a..b\"", &["d.toml:21:7", "empty label"]);
    check_contains("san = \"primary.test\"", "san = \"*.test\"", &["d.toml:15:12", "DNS name"]);
    check_contains("san = \"primary.test\"", "", &["`identity` is empty"]);
    check_contains("san = \"primary.test\"", "san = \"secondary.test\"", &["same identity"]);
    check_contains("0011223344", "00112233", &["64 hexadecimal digits", "sha256sum"]);
}

#[test]
fn every_problem_is_told_at_once_in_the_order_of_the_file() {
    let text = WHOLE
        .replace("[\"primary-1\"]", "[\"p\"]")
        .replace("\"/run/countersign/api.sock\"", "\"a\"");
    let error = parsed(&text).expect_err("two problems");
    assert_eq!(error.count(), 2);
    let text = error.to_string();
    assert!(text.find(":5:14:") < text.find(":22:14:"), "{text}");
}

#[test]
fn without_tls_nothing_that_needs_it_is_accepted() {
    let start = WHOLE.find("[tls]").expect("tls");
    let end = WHOLE.find("[listen]").expect("listen");
    let error = parsed(&format!("{}{}", &WHOLE[..start], &WHOLE[end..])).expect_err("no tls");
    let text = error.to_string();
    assert!(text.contains("`listen.xot` needs a certificate"), "{text}");
    assert!(text.contains("peers with `transfer_from`"), "{text}");
}

#[test]
fn what_a_reload_can_not_change_is_named() {
    let old = parsed(WHOLE).expect("whole");
    let new = parsed(&WHOLE.replace("8443", "8444")).expect("whole");
    assert_eq!(old.needs_restart(&new), ["listen"]);
    let new = parsed(&WHOLE.replace("records_max = 1000", "idle_ms = 1000")).expect("whole");
    assert_eq!(old.needs_restart(&new), ["limits.idle_ms"], "zones learn of records_max");
}

#[test]
fn a_file_that_is_not_there_is_said_to_be_so() {
    let error = load(Path::new("/nonexistent/d.toml")).expect_err("absent").to_string();
    assert!(error.contains("can't be read") && error.contains("--config"), "{error}");
}
