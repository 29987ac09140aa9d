//! How a keeper starts, goes on and ends.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use countersign_hsm::protocol::TokenState;
use countersign_policy::KeyRole;
use countersign_policy::ledger::{Entry, Outcome};
use nix::sys::signal::Signal;

use crate::bed::{Site, child, order, until, zone};
use crate::council;

#[test]
fn a_stopped_keeper_has_lost_nothing() {
    let site = Site::founded();
    let mut keeper = site.signing();
    let keys = keeper.ready().zone(&zone()).expect("keys");
    keeper.signal(Signal::SIGTERM);
    assert_eq!(keeper.ended().code(), Some(0));
    assert!(!site.path("keeper.sock").exists());
    let before = site.kinds();
    assert_eq!(
        before[..5],
        ["founded", "instance-claimed", "token-marked", "token-marked", "started"]
    );
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
    let site = Site::founded();
    {
        let keeper = site.start();
        keeper.carry(council::set_policy("default", 1, council::policy()));
        keeper.carry(council::set_policy("single", 1, council::single()));
        keeper.carry(council::bind(&child(), "single"));
        // Approved one after the other, and begun while it is killed again and again.
        for motion in
            [council::bind(&zone(), "default"), council::generate(&child(), KeyRole::Csk, true)]
        {
            let statement = keeper.propose(motion);
            keeper.approve(&statement);
        }
    }
    for round in 0..12 {
        let keeper = site.start();
        let client = keeper.client();
        // Never in mid-login: the third start after two of those waits for a new PIN file, as it
        // should (and SoftHSM rewrites its token's file at a login, in place).
        until("the tokens are open", || {
            let health = client.health().map_err(|e| e.to_string())?.tokens;
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
        if round == 2 {
            let keeper = site.start();
            let statement = keeper.propose(council::generate(&zone(), KeyRole::Ksk, true));
            keeper.approve(&statement);
        }
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
fn exit_codes_tell_supervisors_what_is_wrong() {
    let site = Site::founded();
    let config = site.read("keeper.toml");
    site.write("keeper.toml", &config.replace("daemon_user", "daemon_usr"));
    let (code, log) = site.start_refused();
    assert!(code == 2 && log.contains("line 6"), "{code} {log}");
    site.write("keeper.toml", &config);

    let loose = std::fs::Permissions::from_mode(0o622);
    std::fs::set_permissions(site.path("keeper.toml"), loose).expect("mode");
    let (code, log) = site.start_refused();
    assert!(code == 2 && log.contains("chmod go-w"), "{code} {log}");
    let tight = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(site.path("keeper.toml"), tight).expect("mode");

    site.write("keeper.toml", &config.replace("founding = \"", "founding = \"0"));
    let (code, log) = site.start_refused();
    assert!(code == 2 && log.contains("64 lower-case"), "{code} {log}");
    let other = "0".repeat(64);
    site.write_config(nix::unistd::Uid::effective().as_raw(), Some(&other));
    let (code, log) = site.start_refused();
    assert!(code == 2 && log.contains("the ledger is of"), "{code} {log}");
    site.write_config(nix::unistd::Uid::effective().as_raw(), None);
    let (code, log) = site.start_refused();
    assert!(code == 2 && log.contains("`founding` is missing"), "{code} {log}");
    site.write("keeper.toml", &config);

    let keeper = site.start();
    keeper.ledger_client();
    let (code, log) = site.start_refused();
    assert!(code == 4 && log.contains("another keeper"), "{code} {log}");
    drop(keeper);

    let ledger = site.read("state/ledger.jsonl");
    site.write("state/ledger.jsonl", &ledger.replacen("ksk-a", "ksk-b", 1));
    let (code, log) = site.start_refused();
    assert!(code == 4 && log.contains("line "), "{code} {log}");
}

#[test]
fn a_keeper_without_its_tokens_stays_up_and_says_why() {
    let site = Site::founded();
    let pin = site.read("pin");
    drop(site.signing());
    std::fs::remove_file(site.path("pin")).expect("removed");
    let keeper = site.start();
    let client = keeper.client();
    until("the keeper serves", || client.health().map_err(|e| e.to_string()));
    let keys = client.zone(&zone()).expect("what is to be signed is known");
    let error = client.sign_dnskey(&zone(), order(&keys)).expect_err("no token");
    assert!(error.is_transient(), "{error}");
    let health = client.health().expect("health");
    assert!(health.tokens.iter().all(|token| token.state != TokenState::Usable), "{health:?}");
    site.write("pin", &pin);
    keeper.ready();
    assert!(!keeper.log().contains(&pin), "a PIN is in no log");
}
