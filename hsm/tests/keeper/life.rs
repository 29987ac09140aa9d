//! How a keeper starts, goes on and ends.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use countersign_hsm::protocol::TokenState;
use countersign_policy::ledger::{Entry, Outcome};
use nix::sys::signal::Signal;

use crate::bed::{Site, order, until, zone};

#[test]
fn a_stopped_keeper_has_lost_nothing() {
    let site = Site::new();
    let mut keeper = site.start();
    let keys = keeper.ready().zone(&zone()).expect("keys");
    keeper.signal(Signal::SIGTERM);
    assert_eq!(keeper.ended().code(), Some(0));
    assert!(!site.path("keeper.sock").exists());
    let before = site.kinds();
    assert_eq!(before[..2], ["founding", "started"]);
    assert_eq!(before.iter().filter(|kind| **kind == "intent").count(), 3, "{before:?}");

    let keeper = site.start();
    let again = keeper.ready().zone(&zone()).expect("keys");
    let ids = |keys: &countersign_hsm::protocol::ZoneKeys| {
        keys.keys.iter().map(|key| key.public.id()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&again), ids(&keys), "no key is made twice");
    assert_eq!(site.kinds().len(), before.len() + 1, "a start is one line");
}

#[test]
fn kills_at_any_moment_leave_each_zone_one_key_a_role() {
    let site = Site::new();
    for round in 0..12 {
        let keeper = site.start();
        let client = keeper.client();
        // Never in mid-login: the third start after two of those waits for a new PIN file, as it
        // should (and SoftHSM rewrites its token's file at a login, in place).
        until("the tokens are open", || {
            let health = client.health().map_err(|e| e.to_string())?;
            let usable = health.iter().all(|token| token.state == TokenState::Usable);
            if usable { Ok(()) } else { Err(format!("{health:?}")) }
        });
        // Each round is killed when the ledger has grown by another length, if it still grows.
        let before = site.lines_so_far();
        let give_up = Instant::now() + Duration::from_millis(400);
        while site.lines_so_far() < before + round % 5 && Instant::now() < give_up {
            std::hint::spin_loop();
        }
        drop(keeper);
    }
    let keeper = site.start();
    let client = keeper.ready();
    let keys = client.zone(&zone()).expect("keys");
    assert_eq!(keys.keys.len(), 2, "{keys:?}");
    client.sign_dnskey(&zone(), order(&keys)).expect("signed");
    let lines = site.ledger();
    let made = |line: &&countersign_policy::ledger::Line| {
        matches!(&line.entry, Entry::Outcome { outcome: Outcome::Generated { .. }, .. })
    };
    assert_eq!(lines.iter().filter(made).count(), 3, "{lines:?}");
    let intents = lines.iter().filter(|line| matches!(line.entry, Entry::Intent { .. })).count();
    let outcomes = lines.iter().filter(|line| matches!(line.entry, Entry::Outcome { .. })).count();
    assert_eq!(intents, outcomes, "every intent has its end");
}

#[test]
fn a_new_zone_is_taken_up_at_sighup_and_a_bad_founding_is_not() {
    let site = Site::new();
    let keeper = site.start();
    let client = keeper.ready();
    let founding = site.read("founding.toml");
    let new = "new.example.".parse().expect("name");
    site.write(
        "founding.toml",
        &format!("{founding}[zone.\"new.example.\"]\npolicy = \"single\"\n"),
    );
    keeper.signal(Signal::SIGHUP);
    until("the new zone has its key", || client.zone(&new).map_err(|e| e.to_string()));
    site.write("founding.toml", &founding.replace("lab-1", "lab-2"));
    keeper.signal(Signal::SIGHUP);
    until("the change is refused", || {
        let log = keeper.log();
        if log.contains("can't become `lab-2`") { Ok(()) } else { Err(log) }
    });
    assert_eq!(client.zone(&new).expect("still bound").keys.len(), 1);
    drop(keeper);
    let (code, log) = site.start_refused();
    assert_eq!(code, 2, "{log}");
}

#[test]
fn exit_codes_tell_supervisors_what_is_wrong() {
    let site = Site::new();
    let config = site.read("keeper.toml");
    site.write("keeper.toml", &config.replace("daemon_user", "daemon_usr"));
    let (code, log) = site.start_refused();
    assert!(code == 2 && log.contains("line 6"), "{code} {log}");
    site.write("keeper.toml", &config);

    let loose = std::fs::Permissions::from_mode(0o622);
    std::fs::set_permissions(site.path("founding.toml"), loose).expect("mode");
    let (code, log) = site.start_refused();
    assert!(code == 2 && log.contains("chmod go-w"), "{code} {log}");
    let tight = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(site.path("founding.toml"), tight).expect("mode");

    let keeper = site.start();
    keeper.ready();
    let (code, log) = site.start_refused();
    assert!(code == 4 && log.contains("another keeper"), "{code} {log}");
    drop(keeper);

    let ledger = site.read("state/ledger.jsonl");
    site.write("state/ledger.jsonl", &ledger.replacen("\"ksk\"", "\"zsk\"", 1));
    let (code, log) = site.start_refused();
    assert!(code == 4 && log.contains("line "), "{code} {log}");
}

#[test]
fn a_keeper_without_its_tokens_stays_up_and_says_why() {
    let site = Site::new();
    let pin = site.read("pin");
    std::fs::remove_file(site.path("pin")).expect("removed");
    let keeper = site.start();
    let client = keeper.client();
    until("the keeper serves", || client.health().map_err(|e| e.to_string()));
    let error = client.zone(&zone()).expect_err("no key yet");
    assert!(error.is_transient(), "{error}");
    until("the reason is logged", || {
        let log = keeper.log();
        if log.contains("making the KSK of example.") { Ok(()) } else { Err(log) }
    });
    site.write("pin", &pin);
    keeper.ready();
    assert!(!keeper.log().contains(&pin), "a PIN is in no log");
}
