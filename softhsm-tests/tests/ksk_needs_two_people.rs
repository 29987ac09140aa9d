//! No KSK is made, and no zone goes out, before two persons who did not propose it have approved: not
//! by whoever runs the box, not by one officer with all her keys, not in anyone else's name.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use countersign_hsm::client::LedgerClient;
use countersign_hsm::protocol::Submission;
use countersign_policy::ssh::Signature;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::pki::Authority;
use softhsm_tests::story;
use softhsm_tests::tools::{run_ok, tool};
use softhsm_tests::users::User;
use softhsm_tests::wait::{SOON, throughout, until};

/// How long a KSK has to come into being before we say that it does not. The keeper looks twice a
/// second at what it may do.
const CHANCE: Duration = Duration::from_secs(2);
const KSK: [&str; 6] = ["generate-key", "--zone", "example.", "--role", "ksk", "--activate"];

#[test]
fn ksk_needs_two_people() {
    story(|scratch| {
        let mut chain = Chain::prepare(scratch, Plan::default(), Authority::new(scratch, "ca")?)?;
        chain.found_appliance()?;
        chain.bind_zones()?;
        chain.start_primary()?;
        chain.daemon.start()?;
        let id = chain.officers.propose("op", &KSK)?;

        // Who proposed it, who reads, and who has a say in other things.
        let officers = &chain.officers;
        officers.refused("op", &["approve", &id], "proposed it and has no vote")?;
        officers.refused("audrey", &["approve", &id], "has no vote on generate-key")?;
        officers.refused("pat", &["approve", &id], "has no vote on generate-key")?;
        // Of three key officers one who proposes leaves two, and the loss of one would stop it all.
        officers.refused(
            "kay",
            &[&["propose"], &KSK[..]].concat(),
            "more persons than it takes",
        )?;
        nothing_yet(&chain, &id)?;
        // One officer, as often as she likes.
        officers.approve(&["kay"], &id)?;
        officers.refused("kay", &["approve", &id], "already")?;
        forgeries(&chain, &id)?;
        nothing_yet(&chain, &id)?;

        officers.approve(&["kim"], &id)?;
        until("the KSK", SOON, || chain.keeper.is_done(&id))?;
        chain.start_secondary()?;
        chain.wait_for_secondary("a first version", |_| true)?;
        chain.verify_served()?;
        let shown = chain.officers.ok("audrey", &["audit", "log"])?;
        ensure!(shown.contains("kay") && shown.contains("kim"), "{shown}");
        Ok(())
    });
}

#[test]
fn an_officer_who_proposes_does_not_count() {
    story(|scratch| {
        let mut chain = Chain::prepare(scratch, Plan::default(), Authority::new(scratch, "ca")?)?;
        chain.officers.meet("kate", "key-officer", &["ed25519"])?;
        chain.found_appliance()?;
        chain.bind_zones()?;
        let id = chain.officers.propose("kay", &KSK)?;
        chain.officers.refused("kay", &["approve", &id], "proposed it and has no vote")?;
        chain.officers.approve(&["kim"], &id)?;
        nothing_yet(&chain, &id)?;
        chain.officers.approve(&["kurt"], &id)?;
        until("the KSK", SOON, || chain.keeper.is_done(&id))
    });
}

#[test]
fn a_denial_a_withdrawal_and_the_end_of_its_window_end_a_proposal() {
    story(|scratch| {
        let mut chain = Chain::prepare(scratch, Plan::default(), Authority::new(scratch, "ca")?)?;
        chain.found_appliance()?;
        chain.bind_zones()?;
        let officers = &chain.officers;
        // Two of three deny: the rest is not enough.
        let denied = officers.propose("op", &KSK)?;
        officers.ok("kay", &["deny", &denied])?;
        officers.refused("kay", &["approve", &denied], "denied it")?;
        officers.ok("kim", &["deny", &denied])?;
        officers.refused("kurt", &["approve", &denied], "denied")?;

        let withdrawn = officers.propose("op", &KSK)?;
        officers.approve(&["kay"], &withdrawn)?;
        officers.refused("kim", &["proposal", "withdraw", &withdrawn], "proposed by op")?;
        officers.ok("op", &["proposal", "withdraw", &withdrawn])?;
        officers.refused("kim", &["approve", &withdrawn], "withdrawn")?;

        // By the keeper's clock an hour later; the machines of the officers may think what they like.
        let late = officers.propose("op", &[&KSK[..], &["--not-after", "+1h"]].concat())?;
        let early = officers.propose("op", &[&KSK[..], &["--not-before", "+2h"]].concat())?;
        officers.approve(&["kay", "kim"], &early)?;
        officers.approve(&["kay"], &late)?;
        chain.keeper.set_clock(3_700)?;
        officers.refused("kim", &["approve", &late], "ended at")?;
        for id in [&denied, &withdrawn, &late, &early] {
            nothing_yet(&chain, id)?;
        }
        // Only the one whose time comes is carried, and once.
        chain.keeper.set_clock(2 * 3_600 + 60)?;
        until("the KSK", SOON, || chain.keeper.is_done(&early))?;
        let lines = chain.keeper.ledger_lines()?;
        let begun = lines.iter().filter(|line| line["entry"]["statement"] == early.as_str());
        let begun = begun.filter(|line| line["entry"]["kind"] == "begun").count();
        ensure!(begun == 1, "it began {begun} times");
        Ok(())
    });
}

/// Neither a KSK on its token, nor a zone on the daemon.
fn nothing_yet(chain: &Chain<'_>, id: &str) -> Result<()> {
    throughout("waiting for approvals", CHANCE, || {
        if chain.keeper.is_done(id).is_ok() {
            bail!("{id} was carried out");
        }
        let own = chain.daemon.process.is_some() && chain.daemon.serial().is_ok();
        ensure!(!own, "the daemon has a version");
        Ok(())
    })?;
    let state = chain.keeper.ledger_state()?;
    let ksks = state.keys().values().filter(|key| key.role.signs_dnskey()).count();
    ensure!(ksks == 0, "{ksks} KSKs in the ledger");
    let list = ["--list-objects", "--type", "pubkey"];
    let objects = chain.store.pkcs11_tool(&chain.tokens["ksk-a"], &list)?;
    // The audit key is there from the survey on.
    ensure!(objects.matches("label:").count() == 1, "{objects}");
    Ok(())
}

/// What does not pass through the command line, which would not send it: kim's approval signed by kay,
/// kay's approval of her own over another text, her denial as an approval, a proposal in op's name.
fn forgeries(chain: &Chain<'_>, id: &str) -> Result<()> {
    let officers = &chain.officers;
    let text = |who: &str, verb: &str| -> Result<String> {
        let file = officers.dir().join(format!("forged.{who}.{verb}"));
        officers.ok(who, &[verb, id, "--export", &file.display().to_string()])?;
        Ok(std::fs::read_to_string(file)?)
    };
    let sign = |who: &str, namespace: &str, text: &str| -> Result<Signature> {
        let file = chain.scratch.file("forged.text", text, User::Harness, 0o644)?;
        let mut keygen = Command::new(tool("ssh-keygen")?);
        keygen.args(["-q", "-Y", "sign", "-n", namespace, "-f"]);
        run_ok(keygen.arg(&officers.person(who)?.key).arg(&file))?;
        let armored = std::fs::read_to_string(file.with_extension("text.sig"))?;
        std::fs::remove_file(file.with_extension("text.sig"))?;
        Ok(Signature::from_armored(&armored)?)
    };
    let kims = text("kim", "approve")?;
    let denial = text("kim", "deny")?;
    let approve = "approve@countersign";
    let verdict = |text: &str, signature| Submission::Verdict { text: text.to_owned(), signature };
    let other_zone = kims.replace("zone: example.\n", "zone: example2.\n");
    let ours = officers.json("audrey", &["proposal", "show", id])?["text"].clone();
    let ours = ours.as_str().unwrap_or_default();
    let again = ours.replace("role: ksk", "role: csk");
    let tries = [
        ("kay's signature for kim", verdict(&kims, sign("kay", approve, &kims)?)),
        ("a signature for a denial", verdict(&kims, sign("kim", "deny@countersign", &kims)?)),
        ("a signature for no purpose", verdict(&kims, sign("kim", "file", &kims)?)),
        ("an approval under a denial's text", verdict(&denial, sign("kim", approve, &denial)?)),
        ("an approval of another text", verdict(&kims, sign("kim", approve, &other_zone)?)),
        ("an approval for another zone", verdict(&other_zone, sign("kim", approve, &other_zone)?)),
        (
            "a proposal in op's name",
            Submission::Propose {
                text: again.clone(),
                signature: sign("kay", "propose@countersign", &again)?,
            },
        ),
        (
            "the same proposal again",
            Submission::Propose {
                text: ours.to_owned(),
                signature: sign("op", "propose@countersign", ours)?,
            },
        ),
    ];
    let mut keeper = LedgerClient::connect(&chain.keeper.ledger_socket, SOON)?;
    for (what, submission) in tries {
        let answer = keeper.submit(submission);
        ensure!(answer.is_err(), "{what} was taken: {answer:?}");
    }
    Ok(())
}
