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

/// Everything that the first example does not have.
const MORE: &str = r#"version = 1
[daemon]
state_dir = "/var/lib/countersign"
keeper_socket = "/run/countersign-keeper/keeper.sock"
api_socket = "/run/countersign/api.sock"
[tls]
certificate = "daemon.pem"
key = "daemon.key"
ca = "ca.pem"
crl = "crl.pem"
[tsig."Transfer.Example."]
algorithm = "hmac-sha256"
secret_file = "/etc/countersign/transfer.key"
[peer.old]
tsig = "transfer.example."
transport = "tcp"
transfer_from = "127.0.0.1:5301"
[guard.default]
shrink_percent_max = 5
[guard.lax]
apex_ns = false
[hook.look]
socket = "/run/look.sock"
before = "publishing"
[zone."example."]
push_from = ["maker", "local"]
secondaries = ["old"]
incoming_zonemd = "require"
zonemd = true
beyond_window = "cap"
critical = ["example.", "www.example."]
hooks = ["look"]
[zone."other."]
primaries = ["old"]
guard = "off"
[zone."third."]
primaries = ["old"]
guard = "lax"
[api_client.maker]
identity = { san = "maker.test" }
role = "pusher"
[limits]
pushes_at_once_max = 2
"#;

/// Replaces `from` in that example by `to`: the problem stands at `place`, and has these parts.
fn check_more(from: &str, to: &str, place: &str, expect: &[&str]) {
    assert!(MORE.contains(from), "{from:?} is not in the example");
    let error = parsed(&MORE.replacen(from, to, 1)).expect_err(to).to_string();
    let first = error.lines().next().unwrap_or_default();
    assert!(first.starts_with(&format!("d.toml:{place}: ")), "not at {place}:\n{error}");
    for part in expect {
        assert!(error.contains(part), "{part:?} is not in:\n{error}");
    }
}

#[test]
fn the_other_example_is_whole() {
    let config = parsed(MORE).expect("whole");
    let zone = |name: &str| config.zones[&name.parse().expect("name")].clone();
    let example = zone("example.");
    assert_eq!(example.push_from, ["maker", "local"]);
    assert_eq!(example.incoming_zonemd, IncomingZonemd::Require);
    assert_eq!((example.zonemd, example.beyond_window), (true, BeyondWindow::Cap));
    assert_eq!(example.critical.len(), 2);
    let guard = example.guard.expect("the default one");
    assert_eq!((guard.shrink_percent_max, guard.apex_ns), (5, true));
    assert_eq!(zone("other.").guard, None);
    assert!(!zone("third.").guard.expect("its own").apex_ns);
    let hook = &config.hooks["look"];
    assert_eq!((hook.before, hook.on_failure), (HookPoint::Publishing, HookFailure::Hold));
    let peer = &config.peers["old"];
    assert_eq!((peer.transport, peer.tsig.as_deref()), (Transport::Tcp, Some("transfer.example.")));
    assert_eq!(config.tsig["transfer.example."].algorithm, TsigAlgorithm::HmacSha256);
    assert_eq!(config.tls.expect("there").crl.as_deref(), Some(Path::new("crl.pem")));
    assert_eq!(config.api_clients["maker"].role, Role::Pusher);
    assert!(Role::Pusher < Role::Monitor && Role::Monitor < Role::Auditor);
    let plain = MORE.replace("[guard.default]\nshrink_percent_max = 5\n", "");
    let plain = parsed(&plain).expect("whole");
    assert_eq!(plain.zones[&"example.".parse().expect("name")].guard, Some(Guard::default()));
}

#[test]
fn pushers_are_named() {
    check_more("\"maker\", ", "\"makers\", ", "26:14", &["names `makers`, which is not defined"]);
    check_more("\"local\"]", "\"local\", \"local\"]", "26:32", &["names `local` twice"]);
    check_more(
        "push_from = [\"maker\", \"local\"]\n",
        "",
        "25:7",
        &["neither `primaries` nor `push_from`"],
    );
    check_more("[api_client.maker]", "[api_client.local]", "26:14", &["can't be called `local`"]);
    check_more("\"pusher\"", "\"pushes\"", "41:8", &["did you mean `pusher`?"]);
    let most = |n| format!("pushes_at_once_max = {n}");
    check_more(
        &most(2),
        &most(0),
        "42:1",
        &["`limits.pushes_at_once_max` is 0; expected 1 to 256"],
    );
}

#[test]
fn tsig_keys_and_their_peers() {
    let file = "/etc/countersign/transfer.key";
    check_more(file, "transfer.key", "13:15", &["`secret_file` is transfer.key", "from the root"]);
    check_more("hmac-sha256", "hmac-md5", "12:13", &["`hmac-md5`", "`hmac-sha256`"]);
    check_more("Transfer.Example.", "a..b", "11:7", &["not a TSIG key's name", "at both ends"]);
    check_more(
        "tsig = \"transfer",
        "tsig = \"transfers",
        "15:8",
        &["which is not defined", "[tsig."],
    );
    check_more("tsig = \"transfer.example.\"\n", "", "14:1", &["neither `identity` nor `tsig`"]);
    check_more(
        "tsig = \"transfer.example.\"",
        "identity = { san = \"old.test\" }",
        "14:1",
        &["`transport` is \"tcp\", and there is no `tsig`", "Or leave `transport` out"],
    );
    check_more("transport = \"tcp\"\n", "", "14:1", &["neither a `san` nor a `server_name`"]);
    check_more("\"tcp\"", "\"udp\"", "16:13", &["unknown variant `udp`"]);
    let twice = "[tsig.\"transfer.example.\"]\nalgorithm = \"hmac-sha512\"\nsecret_file = \"/k\"\n";
    check_more("[peer.old]", &format!("{twice}[peer.old]"), "14:7", &["spelled differently"]);
}

#[test]
fn guards_and_hooks_and_what_is_critical() {
    check_more("percent_max = 5", "percent_max = 101", "18:1", &["is 101; expected 0 to 100"]);
    check_more("percent_max = 5", "percent_max = -1", "19:22", &["u8"]);
    check_more("[guard.lax]", "[guard.off]", "20:1", &["can't be called `off`"]);
    check_more(
        "guard = \"lax\"",
        "guard = \"lux\"",
        "38:9",
        &["`guard` is `lux`", "[guard.lux]", "\"off\""],
    );
    check_more("/run/look.sock", "look.sock", "23:10", &["`socket` is look.sock"]);
    check_more("\"publishing\"", "\"sending\"", "24:10", &["`sending`", "`publishing`"]);
    let slow = "before = \"publishing\"\ntimeout_ms = 5";
    check_more(
        "before = \"publishing\"",
        slow,
        "22:1",
        &["`timeout_ms` is 5; expected 10 to 600000"],
    );
    check_more(
        "[\"look\"]",
        "[\"lock\"]",
        "32:10",
        &["`hooks` names `lock`, which is not defined"],
    );
    check_more("\"www.example.\"]", "\"www.test.\"]", "31:25", &["www.test., which lies outside"]);
    check_more("\"www.example.\"]", "\"www..\"]", "31:25", &["empty label"]);
    check_more("\"require\"", "\"must\"", "28:19", &["`must`", "`require`"]);
    check_more("\"cap\"", "\"cup\"", "30:17", &["`cup`", "`refuse` or `cap`"]);
}

#[test]
fn bounds_of_what_is_kept_are_checked() {
    for (name, beyond) in [("differences_kept", 1_001), ("zonemd_records_max", 1_000_000_001_u64)] {
        let to = format!("{name} = {beyond}");
        let expect = format!("`limits.{name}` is {beyond}; expected 0 to");
        check_more("pushes_at_once_max = 2", &to, "42:1", &[&expect]);
    }
}

#[test]
fn a_reload_takes_up_keys_guards_hooks_and_pushers() {
    let old = parsed(MORE).expect("whole");
    for (from, to) in [
        ("crl.pem", "other.pem"),
        ("hmac-sha256", "hmac-sha512"),
        ("shrink_percent_max = 5", "shrink_percent_max = 6"),
        ("/run/look.sock", "/run/other.sock"),
        ("[\"maker\", \"local\"]", "[\"local\"]"),
        ("zonemd = true", "zonemd = false"),
    ] {
        let new = parsed(&MORE.replacen(from, to, 1)).expect(to);
        assert_ne!(old, new);
        assert_eq!(old.needs_restart(&new), Vec::<&str>::new(), "{to}");
    }
    let new = parsed(&MORE.replace("at_once_max = 2", "at_once_max = 3")).expect("whole");
    assert_eq!(old.needs_restart(&new), ["limits.pushes_at_once_max"]);
}
