//! An officer whose key never meets the network: the text goes to another machine as a file, OpenSSH
//! signs it there, and the signature comes back as a file. And officers whose key is a piece of
//! hardware: what counts is a touch, and where the roster says so, that the key knew whose it was.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use countersign_hsm::client::LedgerClient;
use countersign_hsm::protocol::Submission;
use countersign_policy::ssh::Signature;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::pki::Authority;
use softhsm_tests::security_key::{SecurityKey, TOUCHED, VERIFIED, openssh_takes};
use softhsm_tests::tools::{run, run_ok, tool};
use softhsm_tests::users::User;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::{Scratch, story};

const KSK: [&str; 6] = ["generate-key", "--zone", "example.", "--role", "ksk", "--activate"];
const APPROVE: &str = "approve@countersign";
const DENY: &str = "deny@countersign";

/// A founded appliance with a zone that waits for its KSK.
fn bound(scratch: &Scratch) -> Result<Chain<'_>> {
    let mut chain = Chain::prepare(scratch, Plan::default(), Authority::new(scratch, "ca")?)?;
    chain.found_appliance()?;
    chain.bind_zones()?;
    Ok(chain)
}

/// `who` has the text of an approval or denial of `id` written for the other machine; the file.
fn export(chain: &Chain<'_>, who: &str, verb: &str, id: &str) -> Result<PathBuf> {
    let file = chain.officers.dir().join(format!("{who}.{verb}.{}", &id[..8]));
    let shown = chain.officers.json(who, &[verb, id, "--export", &file.display().to_string()])?;
    let command = shown["command"].as_str().unwrap_or_default();
    let by_hand = format!("ssh-keygen -Y sign -n {verb}@countersign -f ");
    ensure!(command.starts_with(&by_hand), "what to do by hand is not told: {shown:#}");
    Ok(file)
}

/// The signature's file, beside the text's.
fn signature_of(text: &Path) -> PathBuf {
    let mut path = text.as_os_str().to_owned();
    path.push(".sig");
    path.into()
}

/// What is done by hand on the other machine, which has `key` and the text's file, and nothing of ours.
fn sign_by_hand(key: &Path, namespace: &str, text: &Path) -> Result<()> {
    let mut keygen = Command::new(tool("ssh-keygen")?);
    keygen.args(["-Y", "sign", "-n", namespace, "-f"]).arg(key).arg(text);
    run_ok(&mut keygen).map(drop)
}

/// The signature that came back is taken neither by the command line nor by the keeper.
fn refused(chain: &Chain<'_>, who: &str, id: &str, text: &Path, why: &str) -> Result<()> {
    let signature = signature_of(text);
    let import = ["approve", id, "--import", &signature.display().to_string()];
    chain.officers.refused(who, &import, why)?;
    keeper_refuses(chain, text)
}

/// The keeper, asked past the command line.
fn keeper_refuses(chain: &Chain<'_>, text: &Path) -> Result<()> {
    let armored = std::fs::read_to_string(signature_of(text))?;
    let Ok(signature) = Signature::from_armored(&armored) else {
        // The protocol has one reader of signatures: what it does not take can't be sent at all.
        return Ok(());
    };
    let submission = Submission::Verdict { text: std::fs::read_to_string(text)?, signature };
    let mut keeper = LedgerClient::connect(&chain.keeper.ledger_socket, SOON)?;
    let answer = keeper.submit(submission);
    ensure!(answer.is_err(), "the keeper took it past the command line: {answer:?}");
    Ok(())
}

#[test]
fn air_gapped_approval() {
    story(|scratch| {
        let chain = bound(scratch)?;
        let officers = &chain.officers;
        let other = officers.propose("op", &[&KSK[..], &["--not-after", "+1d"]].concat())?;
        let id = officers.propose("op", &KSK)?;

        // kay's private key is on the other machine from here on.
        let here = officers.person("kay")?.key.clone();
        let there = scratch.dir("other-machine", User::Harness, 0o700)?;
        let key = there.join("kay");
        std::fs::rename(&here, &key)?;
        let text = export(&chain, "kay", "approve", &id)?;
        let carried = there.join("approval");
        std::fs::copy(&text, &carried)?;
        let shown = std::fs::read_to_string(&carried)?;
        let stated = officers.json("op", &["proposal", "show", &id])?["text"].clone();
        let stated = stated.as_str().context("no text")?;
        ensure!(shown.ends_with(stated), "she signs another text:\n{shown}\nthan\n{stated}");
        ensure!(shown.contains("officer: kay\n"), "{shown}");

        // Others' signatures, other purposes, other texts.
        let try_one = |what: &str, key: &Path, namespace: &str, why: &str| -> Result<()> {
            sign_by_hand(key, namespace, &text)?;
            refused(&chain, "kay", &id, &text, why).with_context(|| what.to_owned())?;
            Ok(std::fs::remove_file(signature_of(&text))?)
        };
        try_one("kim's for kay", &officers.person("kim")?.key, APPROVE, "kim")?;
        try_one("a signature for a denial", &key, DENY, "was made for")?;
        try_one("a signature of a file", &key, "file", "was made for")?;
        let denial = export(&chain, "kay", "deny", &id)?;
        sign_by_hand(&key, APPROVE, &denial)?;
        refused(&chain, "kay", &id, &denial, "says deny")?;
        let elsewhere = export(&chain, "kay", "approve", &other)?;
        sign_by_hand(&key, APPROVE, &elsewhere)?;
        let import = ["approve", &id, "--import", &signature_of(&elsewhere).display().to_string()];
        officers.refused("kay", &import, &other[..8])?;

        // The right one comes back. The text that it is for may not have changed meanwhile; the ledger
        // may.
        sign_by_hand(&key, APPROVE, &carried)?;
        std::fs::copy(signature_of(&carried), signature_of(&text))?;
        let changed = shown.replace("role: ksk", "role: csk");
        ensure!(changed != shown, "{shown}");
        std::fs::write(&text, &changed)?;
        let import = ["approve", &id, "--import", &signature_of(&text).display().to_string()];
        officers.refused("kay", &import, "statement")?;
        std::fs::write(&text, &shown)?;
        officers.approve(&["kim"], &other)?;
        officers.ok("kay", &import)?;
        officers.refused("kay", &import, "already")?;
        ensure!(chain.keeper.is_done(&id).is_err(), "with one approval");
        officers.approve(&["kim"], &id)?;
        until("the KSK", SOON, || chain.keeper.is_done(&id))
    });
}

#[test]
fn a_security_key_counts_with_a_touch_and_where_asked_for_with_its_owners_pin() {
    story(|scratch| {
        let chain = bound(scratch)?;
        let officers = &chain.officers;
        let (touch, pin) = (SecurityKey::new(scratch, "tess")?, SecurityKey::new(scratch, "vera")?);
        let (tess, vera) = (touch.public.display(), pin.public.display());
        let (tess, vera) = (format!("tess={tess}"), format!("vera=verify-required:{vera}"));
        let enrol =
            ["change-officers", "--enrol", "tess=key-officer", "--enrol", "vera=key-officer"];
        let enrol = [&enrol[..], &["--key", &tess, "--key", &vera]].concat();
        officers.carry(&chain.keeper, &enrol)?;

        let id = officers.propose("op", &KSK)?;
        let signed = |who: &str, key: &SecurityKey, flags: u8| -> Result<PathBuf> {
            let text = officers.dir().join(format!("{who}.{flags}"));
            let _ = std::fs::remove_file(&text);
            let export = ["approve", &id, "--export", &text.display().to_string()];
            let output = without_key(&chain, who, &export)?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let signature = key.sign(APPROVE, &std::fs::read_to_string(&text)?, flags)?;
            std::fs::write(signature_of(&text), signature)?;
            // It is sound by OpenSSH's word, which does not ask for a touch.
            let sound = openssh_takes(APPROVE, &text, &signature_of(&text))?;
            ensure!(sound, "OpenSSH refuses what {who}'s key has signed");
            Ok(text)
        };
        let refused = |who: &str, key: &SecurityKey, flags: u8, why: &str| {
            let text = signed(who, key, flags)?;
            let import = ["approve", &id, "--import", &signature_of(&text).display().to_string()];
            let output = without_key(&chain, who, &import)?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(!output.status.success() && said.contains(why), "{who}, flags {flags}: {said}");
            keeper_refuses(&chain, &text)
        };
        refused("tess", &touch, 0, "touch")?;
        refused("tess", &touch, VERIFIED, "touch")?;
        refused("vera", &pin, 0, "touch")?;
        refused("vera", &pin, TOUCHED, "verif")?;
        refused("vera", &touch, TOUCHED | VERIFIED, "tess")?;
        for (who, key, flags) in [("tess", &touch, TOUCHED), ("vera", &pin, TOUCHED | VERIFIED)] {
            ensure!(chain.keeper.is_done(&id).is_err(), "before {who}'s approval");
            let text = signed(who, key, flags)?;
            let import = ["approve", &id, "--import", &signature_of(&text).display().to_string()];
            let output = without_key(&chain, who, &import)?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        until("the KSK", SOON, || chain.keeper.is_done(&id))
    });
}

/// `countersign` for `who`, whose key is elsewhere.
fn without_key(chain: &Chain<'_>, who: &str, arguments: &[&str]) -> Result<Output> {
    let mut command = chain.officers.command("audrey")?;
    command.env("COUNTERSIGN_AS", who).env_remove("COUNTERSIGN_IDENTITY");
    run(command.arg("--yes").args(arguments))
}
