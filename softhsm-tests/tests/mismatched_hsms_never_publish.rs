//! What made `.de` bogus on 5 May 2026: two HSMs answer for a key with one label and one `CKA_ID`,
//! but hold different keys. Here the key is refused, and the last good version stays up.

use std::time::Duration;

use anyhow::{Context, ensure};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::pki::Authority;
use softhsm_tests::wait::{SOON, throughout, until};
use softhsm_tests::{story, zones};

#[test]
fn mismatched_hsms_never_publish() {
    story(|scratch| {
        let authority = Authority::new(scratch, "ca")?;
        let mut chain = Chain::prepare(scratch, Plan::default(), authority)?;
        let second = chain.store.init("zsk", "zsk-pin-0815")?;
        chain.add_token("zsk-b", "zsk", second.clone())?;
        chain.start_all()?;
        chain.wait_for_secondary("serial 1", |serial| serial == 1)?;
        chain.verify_served()?;

        // An agent makes "the key" on the other HSM too. (Which of the two has it is the keeper's
        // choice.)
        let first = chain.tokens["zsk-a"].clone();
        let list = ["--list-objects", "--type", "pubkey"];
        let (holder, other) = if chain.store.pkcs11_tool(&first, &list)?.contains("label:") {
            (first, second)
        } else {
            (second, first)
        };
        let objects = chain.store.pkcs11_tool(&holder, &list)?;
        let field = |name: &str| {
            objects
                .lines()
                .find_map(|line| line.trim().strip_prefix(name))
                .map(|value| value.trim().to_owned())
                .with_context(|| format!("no {name} in {objects}"))
        };
        let (label, id) = (field("label:")?, field("ID:")?);
        let generate =
            ["--keypairgen", "--key-type", "EC:prime256v1", "--label", &label, "--id", &id];
        chain.store.pkcs11_tool(&other, &generate)?;
        ensure!(chain.keeper.stop()?.success());
        chain.keeper.start()?;

        chain.change_zone(&zones::example_with(2, "added"))?;
        until("an alarm", SOON, || chain.daemon.alarm(&["signing-failed"]))?;
        let keys = chain.daemon.json(&["key", "list"])?;
        let zsk = keys["keys"]
            .as_array()
            .and_then(|keys| keys.iter().find(|key| key["role"] == "ZSK"))
            .with_context(|| format!("no ZSK in {keys:#}"))?;
        ensure!(zsk["unusable"].is_string(), "{zsk:#}");
        throughout("the conflict", Duration::from_secs(5), || {
            let (served, own) = (chain.served_serial()?, chain.daemon.serial()?);
            ensure!((served, own) == (1, 1), "secondary {served}, daemon {own}");
            Ok(())
        })?;
        chain.verify_served()?;
        let lines = chain.keeper.ledger_lines()?;
        ensure!(lines.iter().any(|line| line["entry"]["kind"] == "key-conflict"), "{lines:#?}");

        // The impostor goes; the key is trusted again once every token agrees.
        for kind in ["privkey", "pubkey"] {
            chain.store.pkcs11_tool(&other, &["--delete-object", "--type", kind, "--id", &id])?;
        }
        ensure!(chain.keeper.stop()?.success());
        chain.keeper.start()?;
        chain.wait_for_secondary("serial 2", |serial| serial == 2)?;
        chain.verify_served()
    });
}
