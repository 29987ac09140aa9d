//! What tells the parent of a KSK leaves under a quorum alone: as DS records on a terminal, as CDS and
//! CDNSKEY in the zone, as a DS that a parent zone here signs.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use countersign_hsm::client::LedgerClient;
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::tools::{run_ok, tool};
use softhsm_tests::unbound::Resolver;
use softhsm_tests::users::User;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::{self, ZONE};
use softhsm_tests::{oracle, query, story};

/// The DS RRset of the KSKs that `zone`'s secondary serves, by BIND, as `tag algorithm type DIGEST`.
fn by_bind(chain: &Chain<'_>, digest: &str) -> Result<BTreeSet<String>> {
    let signed = chain.served_zone()?;
    let path = chain.scratch.file("by-bind.zone", &signed, User::Harness, 0o644)?;
    let mut command = Command::new(tool("dnssec-dsfromkey")?);
    let made = run_ok(command.args(["-a", digest, "-f"]).arg(&path).arg(ZONE))?;
    Ok(rdatas(&made, "DS"))
}

/// The RDATAs of records of a type in presentation form, blanks within the last field taken out.
fn rdatas(text: &str, rtype: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let at = fields.iter().position(|field| *field == rtype)?;
            if fields[at - 1] == "RRSIG" {
                return None;
            }
            let [first, second, third, rest @ ..] = &fields[at + 1..] else { return None };
            Some(format!("{first} {second} {third} {}", rest.concat().to_uppercase()))
        })
        .collect()
}

/// Has the daemon look at once at what the officers decided; by itself it does every few minutes.
fn refresh(chain: &Chain<'_>) -> Result<()> {
    let answer = chain.daemon.cli(&["zone", "refresh", ZONE])?;
    ensure!(answer.status.code() != Some(1), "{answer:?}");
    Ok(())
}

#[test]
fn ds_export_needs_a_quorum() {
    story(|scratch| {
        let chain = Chain::start(scratch, Plan::default())?;
        let officers = &chain.officers;
        let export = ["ds", "export", ZONE];
        officers.refused("op", &export, "no quorum has approved")?;
        let motion = ["export-ds", "--zone", ZONE, "--finish-by", "+8d"];
        let id = officers.propose("op", &motion)?;
        officers.approve(&["kay"], &id)?;
        officers.refused("op", &export, "no quorum has approved")?;
        // Not by asking the keeper past the command line either.
        let mut keeper = LedgerClient::connect(&chain.keeper.ledger_socket, SOON)?;
        let asked = keeper.export_ds(&ZONE.parse()?);
        ensure!(asked.is_err(), "without a quorum: {asked:?}");
        officers.approve(&["kim"], &id)?;
        until("the approval of the export", SOON, || chain.keeper.is_done(&id))?;

        let (sha256, sha384) = (by_bind(&chain, "SHA-256")?, by_bind(&chain, "SHA-384")?);
        let expected: BTreeSet<String> = sha256.union(&sha384).cloned().collect();
        let shown = officers.ok("op", &export)?;
        ensure!(rdatas(&shown, "DS") == expected, "{shown}\nexpected {expected:?}");
        ensure!(shown.contains(&id), "it does not say who approved: {shown}");
        for format in ["json", "epp-ds"] {
            let shown = officers.ok("op", &["ds", "export", ZONE, "--format", format])?;
            for digest in expected.iter().filter_map(|rdata| rdata.split(' ').nth(3)) {
                ensure!(shown.to_uppercase().contains(digest), "{format}: {shown}");
            }
            ensure!(!shown.contains("digestType>1<"), "SHA-1 in {shown}");
        }
        let key = query::ask(chain.secondary_port, ZONE, "DNSKEY")?.text;
        let key = rdatas(&key, "DNSKEY").into_iter().find(|key| key.starts_with("257 "));
        let key = key.context("no KSK is served")?;
        let key = key.split(' ').nth(3).unwrap_or_default();
        let shown = officers.ok("op", &["ds", "export", ZONE, "--format", "epp-key"])?;
        ensure!(shown.to_uppercase().contains(key), "{shown}");
        // Each time is on record.
        let lines = chain.keeper.ledger_lines()?;
        let times = lines.iter().filter(|line| line["entry"]["kind"] == "ds-exported").count();
        ensure!(times == 4, "{times} exports in the ledger");
        // And no longer than was approved, by the keeper's clock.
        chain.keeper.set_clock(9 * 86_400)?;
        let asked = keeper.export_ds(&ZONE.parse()?);
        ensure!(asked.is_err(), "after its time: {asked:?}");
        Ok(())
    });
}

#[test]
fn cds_and_cdnskey_come_by_quorum_and_go_by_themselves() {
    story(|scratch| {
        let plan = Plan { serial: "increment", ..Plan::default() };
        let mut chain = Chain::start(scratch, plan)?;
        let served = chain.served_zone()?;
        ensure!(!served.contains("CDS") && !served.contains("CDNSKEY"), "{served}");
        let motion = ["publish-cds", "--zone", ZONE, "--not-after", "+10m", "--finish-by", "+90m"];
        let id = chain.officers.propose("op", &motion)?;
        chain.officers.approve(&["kay"], &id)?;
        chain.change_zone(&zones::example_with(2, "added"))?;
        chain.wait_for_secondary("a second version", |serial| serial == 2)?;
        ensure!(!chain.served_zone()?.contains("CDS"), "after one approval");
        chain.officers.approve(&["kim"], &id)?;

        until("the approval", SOON, || chain.keeper.is_done(&id))?;
        refresh(&chain)?;
        chain.wait_for_secondary("a version with CDS", |serial| serial > 2)?;
        let expected: BTreeSet<String> =
            by_bind(&chain, "SHA-256")?.union(&by_bind(&chain, "SHA-384")?).cloned().collect();
        let served = chain.served_zone()?;
        ensure!(rdatas(&served, "CDS") == expected, "{served}\nexpected {expected:?}");
        let ksk: BTreeSet<String> =
            rdatas(&served, "DNSKEY").into_iter().filter(|key| key.starts_with("257 ")).collect();
        ensure!(rdatas(&served, "CDNSKEY") == ksk, "{served}");
        chain.verify_served()?;
        let anchor = oracle::anchor(scratch, ZONE, &served)?;
        let resolver = Resolver::start(scratch, "cds", (ZONE, chain.secondary_port), &anchor)?;
        for rtype in ["CDS", "CDNSKEY"] {
            let answer = resolver.ask(ZONE, rtype)?;
            ensure!(answer.authentic && answer.text.contains("RRSIG"), "{}", answer.text);
        }

        // Its time is over: the next version is without, and nobody has to say so.
        let with = chain.served_serial()?;
        chain.keeper.set_clock(91 * 60)?;
        refresh(&chain)?;
        chain.wait_for_secondary("a version without CDS", |serial| serial > with)?;
        let served = chain.served_zone()?;
        ensure!(!served.contains("CDS") && !served.contains("CDNSKEY"), "{served}");
        chain.verify_served()
    });
}

#[test]
fn the_delete_form_is_asked_of_the_parent_by_quorum() {
    story(|scratch| {
        let mut chain = Chain::start(scratch, Plan { serial: "increment", ..Plan::default() })?;
        chain.officers.carry(&chain.keeper, &["delete-ds", "--zone", ZONE])?;
        refresh(&chain)?;
        chain.wait_for_secondary("a version with the delete form", |serial| serial > 1)?;
        let served = chain.served_zone()?;
        ensure!(rdatas(&served, "CDS") == ["0 0 0 00".to_owned()].into(), "{served}");
        ensure!(rdatas(&served, "CDNSKEY") == ["0 3 0 AA==".to_owned()].into(), "{served}");
        chain.verify_served()
    });
}

/// The parent is signed here too: its ZSK signs the DS set that was approved for the child, and no
/// other, whatever the primary hands in.
#[test]
fn a_parent_here_signs_the_approved_ds_and_no_other() {
    story(|scratch| {
        let delegation = "child IN NS ns.elsewhere.test.\n";
        let content = |serial: u32, ds: &BTreeSet<String>| {
            let ds: Vec<String> = ds.iter().map(|ds| format!("child IN DS {ds}\n")).collect();
            format!("{}{delegation}{}", zones::example(serial), ds.concat())
        };
        let nothing = BTreeSet::new();
        let plan = Plan {
            content: content(1, &nothing),
            more_zones: &["child.example."],
            ..Plan::default()
        };
        let mut chain = Chain::start(scratch, plan)?;
        let motion = ["export-ds", "--zone", "child.example.", "--digest", "sha-256"];
        let motion = [&motion[..], &["--digest", "sha-384"]].concat();

        let id = chain.officers.propose("op", &motion)?;
        chain.officers.approve(&["kay", "kim"], &id)?;
        until("the approval of the export", SOON, || chain.keeper.is_done(&id))?;
        let approved = rdatas(&chain.officers.ok("op", &["ds", "export", "child.example."])?, "DS");
        ensure!(approved.len() == 2, "{approved:?}");

        let mut one = approved.clone();
        let gone = one.pop_first().context("a DS")?;
        let mut three = approved.clone();
        three.insert(format!("4711 13 2 {}", "5A".repeat(32)));
        let other: BTreeSet<String> = approved.iter().map(|ds| ds.replace('A', "B")).collect();
        ensure!(other != approved, "{gone} has no A");
        let mut good = 1;
        for (what, set) in [("one of the two", one), ("a third", three), ("others", other)] {
            chain.change_zone(&content(good + 1, &set))?;
            let alarm = until(&format!("an alarm on {what}"), SOON, || {
                chain.daemon.alarm(&["ds-not-approved"])
            })?;
            ensure!(alarm.contains("DS of child.example."), "{what}: {alarm}");
            ensure!(chain.served_serial()? == good, "{what} went out: {alarm}");
            good += 2;
            chain.change_zone(&content(good, &approved))?;
            chain.wait_for_secondary("the approved DS", |serial| serial == good)?;
            until("no alarm", SOON, || chain.daemon.no_alarm())?;
        }
        ensure!(approved.is_subset(&rdatas(&chain.served_zone()?, "DS")));
        chain.verify_served()
    });
}
