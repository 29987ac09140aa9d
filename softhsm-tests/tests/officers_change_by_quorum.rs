//! Who has a say changes by the say of those who have it, and of those who will: officers come, go and
//! change their keys in one statement, which needs the quorum of the old roster and of the new one.
//! Rules likewise. What a person who left has approved counts no more.

use anyhow::{Context as _, Result, ensure};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::officers::{Officers, Person};
use softhsm_tests::pki::Authority;
use softhsm_tests::wait::{SOON, throughout, until};
use softhsm_tests::{Scratch, story};
use std::time::Duration;

/// How long a motion has to begin before we say that it does not. The keeper looks twice a second.
const CHANCE: Duration = Duration::from_secs(2);
const KSK: [&str; 6] = ["generate-key", "--zone", "example.", "--role", "ksk", "--activate"];

fn founded(scratch: &Scratch) -> Result<Chain<'_>> {
    let mut chain = Chain::prepare(scratch, Plan::default(), Authority::new(scratch, "ca")?)?;
    chain.found_appliance()?;
    Ok(chain)
}

/// It has its chance to begin, and does not.
fn waits(chain: &Chain<'_>, id: &str, what: &str) -> Result<()> {
    throughout(what, CHANCE, || {
        ensure!(chain.keeper.is_done(id).is_err(), "it began");
        Ok(())
    })
}

/// The roster as `officer list` shows it: name and role.
fn roster(officers: &Officers) -> Result<Vec<(String, String)>> {
    let list = officers.json("audrey", &["officer", "list"])?;
    let people = list["officers"].as_array().with_context(|| format!("{list:#}"))?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(people.iter().map(|person| (text(&person["name"]), text(&person["role"]))).collect())
}

/// kim's new key and nina's first: nina comes, kurt goes, kim's key is another one.
fn reshuffle(officers: &mut Officers) -> Result<Vec<String>> {
    officers.meet("nina", "key-officer", &["ed25519"])?;
    let fresh = officers.new_key("kim-anew", &["ed25519"])?;
    let nina = officers.person("nina")?.key.with_extension("pub");
    let motion = [
        "change-officers",
        "--retire",
        "kurt",
        "--retire",
        "kim",
        "--enrol",
        "kim=key-officer",
        "--key",
        &format!("kim={}", fresh.with_extension("pub").display()),
        "--enrol",
        "nina=key-officer",
        "--key",
        &format!("nina={}", nina.display()),
    ];
    Ok(motion.into_iter().map(str::to_owned).collect())
}

#[test]
fn officers_change_by_quorum() {
    story(|scratch| {
        let mut chain = founded(scratch)?;
        chain.bind_zones()?;
        let motion = reshuffle(&mut chain.officers)?;
        let motion: Vec<&str> = motion.iter().map(String::as_str).collect();
        // kurt and kim, by the key that she gives up, have approved a KSK. It lacks nothing but time.
        let later = ["--not-before", "+1h"];
        let early = chain.officers.propose("op", &[&KSK[..], &later].concat())?;
        chain.officers.approve(&["kurt", "kim"], &early)?;
        let id = chain.officers.propose("op", &motion)?;

        // Two of the old roster, of whom one leaves and one changes her key: of the new one, nobody.
        chain.officers.approve(&["kurt", "kim"], &id)?;
        waits(&chain, &id, "two who will not be what they are")?;
        chain.officers.approve(&["kay"], &id)?;
        waits(&chain, &id, "one of the new roster")?;
        ensure!(roster(&chain.officers)?.contains(&("kurt".to_owned(), "key-officer".to_owned())));
        chain.officers.approve(&["pat"], &id)?;
        until("the change of officers", SOON, || chain.keeper.is_done(&id))?;
        let now = roster(&chain.officers)?;
        let names: Vec<&str> = now.iter().map(|(name, _)| name.as_str()).collect();
        ensure!(names == ["audrey", "kay", "kim", "nina", "op", "pat", "paul"], "{now:?}");

        // Their approvals of before are void, when the time of what they approved has come.
        chain.keeper.set_clock(3_700)?;
        waits(&chain, &early, "two approvals that count no more")?;
        chain.officers.refused("kurt", &["approve", &early], "kurt")?;
        chain.officers.refused("kim", &["approve", &early], "key")?;
        chain.officers.approve(&["kay"], &early)?;
        waits(&chain, &early, "one that counts")?;
        chain.officers.approve(&["nina"], &early)?;
        until("the KSK", SOON, || chain.keeper.is_done(&early))?;

        // kim is herself again with her new key.
        let pins = chain.officers.person("kim")?.pins.clone();
        let (name, role) = ("kim".to_owned(), "key-officer".to_owned());
        let key = chain.officers.dir().join("kim-anew");
        chain.officers.people.insert(name.clone(), Person { name, role, key, pins });
        chain.officers.people.remove("kurt");
        chain.officers.carry(&chain.keeper, &["export-ds", "--zone", "example."])?;
        proves(&chain.officers)
    });
}

/// An auditor who has the bundle and the founding's hash comes to the same end, by two programs.
fn proves(officers: &Officers) -> Result<()> {
    let bundle = officers.export_bundle("changed.bundle")?;
    for output in [officers.audit_verify(&bundle)?, officers.second_verifier(&bundle)?] {
        ensure!(output.status.success(), "{}{}", output.stdout, output.stderr);
    }
    Ok(())
}

#[test]
fn no_roster_and_no_rule_below_the_floor() {
    story(|scratch| {
        let chain = founded(scratch)?;
        let officers = &chain.officers;
        let propose = |motion: &[&str], why: &str| {
            let arguments = [&["propose", "change-officers"], motion].concat();
            officers.refused("op", &arguments, why)
        };
        // Of two key officers both would have to approve; of one, even she is too few.
        propose(&["--retire", "kurt"], "key-officer")?;
        propose(&["--retire", "kurt", "--retire", "kim"], "key-officer")?;
        let kay = format!("twin={}", officers.person("kay")?.key.with_extension("pub").display());
        propose(&["--enrol", "twin=key-officer", "--key", &kay], "kay")?;
        let rule = |rule: &str, why: &str| {
            officers.refused("op", &["propose", "change-rules", "--rule", rule], why)
        };
        rule("export-ds=1 key-officer", "2")?;
        rule("export-ds=3 key-officer", "3")?;
        rule("export-ds=2 policy-officer", "key")?;
        rule("export-ds=2 auditor", "auditor")?;
        rule("change-rules=1 key-officer", "2")?;
        ensure!(roster(officers)?.len() == officers.people.len());
        Ok(())
    });
}

#[test]
fn rules_change_by_the_old_rule_and_by_the_new_one() {
    story(|scratch| {
        let chain = founded(scratch)?;
        let officers = &chain.officers;
        // From two of either sort to one of each and one more: the new rule is to be met too.
        let rule = "change-rules=2 key-officer + 1 policy-officer";
        let raised = officers.propose("op", &["change-rules", "--rule", rule])?;
        officers.approve(&["kay", "kim"], &raised)?;
        waits(&chain, &raised, "the old rule alone")?;
        officers.approve(&["pat"], &raised)?;
        until("the new rule", SOON, || chain.keeper.is_done(&raised))?;

        // And back: now the old rule is the stricter one.
        let rule = "change-rules=2 key-officer|policy-officer";
        let lowered = officers.propose("op", &["change-rules", "--rule", rule])?;
        officers.approve(&["kay", "pat"], &lowered)?;
        waits(&chain, &lowered, "the new rule alone")?;
        officers.approve(&["kim"], &lowered)?;
        until("the old rule again", SOON, || chain.keeper.is_done(&lowered))?;
        proves(officers)
    });
}
