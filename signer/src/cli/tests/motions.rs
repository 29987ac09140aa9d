//! From a proposal to what comes of it, by commands alone.

use std::process::Command;

use countersign_policy::ds::DsDigest;
use countersign_policy::ledger::Outcome;
use countersign_policy::motion::{Motion, Scope};
use countersign_policy::testing::{World, zone};
use serde_json::Value;

use super::super::end::End;
use super::Bed;

/// The public half of a person's key, as ssh-keygen writes it.
fn public_key(bed: &Bed, person: &str) -> String {
    // Apart from the private half, which ssh-keygen would find beside it.
    let public = bed.text(&format!("public-of-{person}.pub"));
    let keygen = Command::new("ssh-keygen").args(["-y", "-f", &bed.identity(person)]).output();
    std::fs::write(&public, keygen.expect("ssh-keygen runs").stdout).expect("written");
    public
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// Proposes as olga; the id.
fn proposed(bed: &Bed, arguments: &[&str]) -> String {
    let said = bed.run_as("olga", &[&["--json", "propose"], arguments].concat());
    assert_eq!(said.end, End::Fine, "{}", said.err);
    parsed(&said.out)["id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_policy_and_a_zone_come_by_two_policy_officers() {
    let bed = Bed::new(World::founded());
    let id = proposed(&bed, &["set-policy", "--name", "standard", "--validity-s", "1209600"]);
    let said = bed.run_as("pat", &["approve", &id[..8]]).expect(End::Fine, "it wants 1 more");
    assert!(said.contains("countersign approval v1\nofficer: pat\n"), "{said}");
    assert!(said.contains("policy-validity-s: 1209600"), "the exact text is shown: {said}");
    bed.run_as("petra", &["approve", &id]).expect(End::Fine, "its quorum is met");
    let id = proposed(&bed, &["bind-zone", "--zone", "example.", "--policy", "standard"]);
    bed.run_as("pat", &["approve", &id]).expect(End::Fine, "approved by pat");
    bed.run_as("petra", &["approve", &id]).expect(End::Fine, "its quorum is met");
    let kept = bed.keeper.kept();
    let state = &kept.world.as_ref().expect("founded").state;
    assert_eq!(state.zones().keys().collect::<Vec<_>>(), [&zone()]);
}

#[test]
fn what_the_keeper_would_refuse_is_refused_before_it_is_signed() {
    let bed = Bed::new(World::bound());
    let id = proposed(&bed, &["generate-key", "--zone", "example.", "--role", "ksk"]);
    let lines = bed.keeper.lines();
    bed.run_as("olga", &["approve", &id]).expect(End::Failed, "olga proposed it and has no vote");
    bed.run_as("pat", &["approve", &id]).expect(End::Failed, "has no vote on generate-key");
    bed.run_as("adam", &["propose", "delete-ds", "--zone", "example."])
        .expect(End::Failed, "role auditor");
    bed.run_as("olga", &["propose", "unbind-zone", "--zone", "other."])
        .expect(End::Failed, "it would be refused, so nothing was sent");
    bed.run_as("alice", &["approve", "00000000"]).expect(End::Usage, "no proposal 00000000");
    // A key that can't sign: what is refused is refused before it is asked.
    for (person, arguments) in [
        ("olga", vec!["propose", "unbind-zone", "--zone", "other."]),
        ("pat", vec!["approve", id.as_str(), "--yes"]),
    ] {
        let public = public_key(&bed, person);
        let asked = [&arguments[..], &["--identity", &public]].concat();
        bed.run(&asked).expect(End::Failed, "it would be refused");
    }
    let public = public_key(&bed, "alice");
    bed.run(&["approve", &id, "--yes", "--identity", &public])
        .expect(End::Failed, "ssh-keygen did not sign");
    assert_eq!(bed.keeper.lines(), lines, "nothing was sent");
}

#[test]
fn nobody_signs_for_another() {
    let bed = Bed::new(World::bound());
    let id = proposed(&bed, &["generate-key", "--zone", "example.", "--role", "ksk"]);
    let lines = bed.keeper.lines();
    bed.run_as("bob", &["approve", &id, "--as", "alice"])
        .expect(End::Usage, "is a key of bob's, not of alice's");
    bed.run_as("bob", &["approve", &id, "--as", "nobody"]).expect(End::Usage, "not on the roster");
    bed.run_as("stranger", &["approve", &id]).expect(End::Usage, "no key of anyone's");
    bed.run(&["approve", &id, "--yes"]).expect(End::Usage, "with which key?");
    let not_a_key = bed.text("not-a-key");
    std::fs::write(&not_a_key, "nothing").expect("written");
    bed.run(&["approve", &id, "--yes", "--identity", &not_a_key])
        .expect(End::Usage, "no key that ssh-keygen can read");
    assert_eq!(bed.keeper.lines(), lines, "nothing was sent");
}

#[test]
fn an_approval_is_asked_for() {
    let bed = Bed::new(World::bound());
    let id = proposed(&bed, &["generate-key", "--zone", "example.", "--role", "ksk"]);
    let identity = bed.identity("alice");
    // Tests have no terminal: there is nobody to be asked, and without --yes nothing happens.
    let said = bed.run(&["approve", &id, "--identity", &identity]);
    said.expect(End::Usage, "say --yes");
}

fn ssh_keygen(bed: &Bed, person: &str, namespace: &str, file: &str) {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", namespace, "-f", &bed.identity(person), file])
        .status();
    assert!(status.expect("ssh-keygen runs").success());
}

#[test]
fn an_approval_is_signed_on_another_machine() {
    let bed = Bed::new(World::bound());
    let id = proposed(&bed, &["generate-key", "--zone", "example.", "--role", "ksk"]);
    let file = bed.text("to-sign");
    let said = bed.run(&["approve", &id, "--as", "alice", "--export", &file]);
    let out = said.expect(End::Fine, "ssh-keygen -Y sign -n approve@countersign");
    let text = std::fs::read_to_string(&file).expect("exported");
    assert!(out.contains(&text), "what is shown is what is exported");
    bed.run(&["approve", &id, "--as", "alice", "--export", &file])
        .expect(End::Failed, "never replaced");
    ssh_keygen(&bed, "alice", "approve@countersign", &file);
    let signature = format!("{file}.sig");
    bed.run(&["deny", &id, "--import", &signature, "--yes"]).expect(End::Usage, "not deny");
    bed.run(&["approve", &id, "--import", &file, "--yes"]).expect(End::Usage, "expected FILE.sig");
    bed.run(&["approve", &id, "--import", &signature, "--yes"])
        .expect(End::Fine, "the signature is good: alice");
    bed.run(&["approve", &id, "--import", &signature, "--yes"]).expect(End::Failed, "already");
}

#[test]
fn a_signature_that_is_brought_back_is_checked_before_it_is_sent() {
    let bed = Bed::new(World::bound());
    let id = proposed(&bed, &["generate-key", "--zone", "example.", "--role", "ksk"]);
    let lines = bed.keeper.lines();
    let check = |signer: &str, namespace: &str, change: &dyn Fn(&str) -> String, expect: &str| {
        let file = bed.text(&format!("by-{signer}-{}-{}", namespace.len(), expect.len()));
        bed.run(&["approve", &id, "--as", "alice", "--export", &file]).expect(End::Fine, "");
        ssh_keygen(&bed, signer, namespace, &file);
        let text = std::fs::read_to_string(&file).expect("exported");
        std::fs::write(&file, change(&text)).expect("changed");
        let said = bed.run(&["approve", &id, "--import", &format!("{file}.sig"), "--yes"]);
        said.expect(End::Failed, expect);
    };
    let same = |text: &str| text.to_owned();
    check("bob", "approve@countersign", &same, "it is bob's, and the text is alice's");
    check("stranger", "approve@countersign", &same, "nobody's here");
    check("alice", "deny@countersign", &same, "made for \"deny@countersign\"");
    let other = |text: &str| text.replacen("role: ksk", "role: csk", 1);
    let (file, changed) = (bed.text("changed"), "approve@countersign");
    bed.run(&["approve", &id, "--as", "alice", "--export", &file]).expect(End::Fine, "");
    ssh_keygen(&bed, "alice", changed, &file);
    let text = std::fs::read_to_string(&file).expect("exported");
    assert_ne!(other(&text), text);
    std::fs::write(&file, other(&text)).expect("changed");
    bed.run(&["approve", &id, "--import", &format!("{file}.sig"), "--yes"])
        .expect(End::Usage, "is about the statement");
    check(
        "alice",
        "approve@countersign",
        &|text| text.replacen("checkpoint: 1", "checkpoint: 2", 1),
        "nothing was sent",
    );
    assert_eq!(bed.keeper.lines(), lines, "nothing was sent");
}

#[test]
fn a_denial_stands_and_a_proposer_withdraws() {
    let bed = Bed::new(World::bound());
    let make = ["generate-key", "--zone", "example.", "--role", "ksk"];
    let id = proposed(&bed, &make);
    bed.run_as("alice", &["deny", &id]).expect(End::Fine, "denied by alice");
    bed.run_as("alice", &["approve", &id]).expect(End::Failed, "that stands");
    bed.run_as("alice", &["proposal", "withdraw", &id]).expect(End::Usage, "who alone withdraws");
    bed.run_as("olga", &["proposal", "withdraw", &id]).expect(End::Fine, "is withdrawn");
    bed.run_as("bob", &["approve", &id]).expect(End::Failed, "withdrawn");
    let list = bed.run(&["--json", "proposal", "list"]).expect(End::Fine, "[]");
    assert_eq!(parsed(&list), Value::Array(Vec::new()));
    let list = parsed(&bed.run(&["--json", "proposal", "list", "--all"]).expect(End::Fine, &id));
    let last = list.as_array().and_then(|all| all.last()).expect("one");
    assert_eq!(last["status"], "withdrawn");
    assert_eq!(last["votes"][0]["verb"], "deny");
}

#[test]
fn one_person_freezes() {
    let bed = Bed::new(World::signing());
    bed.run_as("adam", &["freeze", "--zone", "example.", "--reason", "odd answers"])
        .expect(End::Fine, "frozen by adam");
    bed.run_as("adam", &["freeze", "--reason", " "]).expect(End::Usage, "--reason takes");
    let said = bed.run(&["calendar"]).expect(End::Attention, "odd answers");
    assert!(said.contains("propose thaw"), "{said}");
    let id = proposed(&bed, &["thaw", "--zone", "example."]);
    for officer in ["pat", "petra"] {
        bed.run_as(officer, &["approve", &id]).expect(End::Fine, "approved");
    }
    bed.run(&["calendar"]).expect(End::Fine, "nothing within 90 days");
}

#[test]
fn officers_come_and_go_by_their_own_names() {
    let bed = Bed::new(World::founded());
    let public = public_key(&bed, "dora");
    let enrol = ["officer", "enrol", "dora", "--role", "key-officer", "--key", &public];
    bed.run_as("olga", &enrol).expect(End::Fine, "enrol: dora key-officer");
    bed.run_as("olga", &["officer", "retire", "carol"])
        .expect(End::Failed, "expected more persons");
    let replace = ["officer", "replace", "carol", "--key", &public];
    let said = bed.run_as("olga", &replace).expect(End::Fine, "retire: carol");
    assert!(said.contains("enrol: carol key-officer\nkey: carol ssh-ed25519 "), "{said}");
    bed.run_as("olga", &["officer", "enrol", "carol", "--role", "auditor", "--key", &public])
        .expect(End::Usage, "officer replace");
}

/// A world in which an export was approved.
fn exporting() -> World {
    let mut world = World::signing();
    let keys: std::collections::BTreeSet<_> = world
        .state
        .keys()
        .iter()
        .filter(|(_, record)| record.role.signs_dnskey())
        .map(|(key, _)| *key)
        .collect();
    world.carry(Motion::ExportDs { zone: zone(), keys, digests: [DsDigest::Sha256].into() });
    world
}

#[test]
fn ds_come_out_by_a_quorum_alone() {
    let bed = Bed::new(World::signing());
    let said = bed.first(&["ds", "export", "example."]);
    assert_eq!(said.out, "", "nothing comes out");
    said.expect(End::Failed, "no quorum has approved");
    let bed = Bed::new(exporting());
    let said = bed.first(&["ds", "export", "example."]).expect(End::Fine, "example. IN DS ");
    assert!(said.contains("; approved by statement "), "{said}");
    let said = bed.run(&["ds", "export", "example.", "--format", "epp-ds"]);
    let said = said.expect(End::Fine, "<secDNS:digestType>2</secDNS:digestType>");
    assert!(said.contains("urn:ietf:params:xml:ns:secDNS-1.1"), "{said}");
    bed.run(&["ds", "export", "example.", "--format", "epp-key"])
        .expect(End::Fine, "<secDNS:keyData>");
    let said = bed.run(&["--json", "ds", "export", "example."]).expect(End::Fine, "");
    assert_eq!(parsed(&said)["delegation"]["zone"], "example.");
    bed.run(&["audit", "log"]).expect(End::Fine, "handed out DS of example.");
}

#[test]
fn a_keeper_that_hands_out_something_else_is_not_believed() {
    let bed = Bed::new(exporting());
    bed.keeper.kept().twist = |export| export.digests = [DsDigest::Sha384].into();
    let said = bed.first(&["ds", "export", "example."]);
    assert_eq!(said.out, "", "nothing comes out");
    said.expect(End::Unsound, "other digests");
}

#[test]
fn an_appliance_is_founded_by_everyone_on_its_roster() {
    let bed = Bed::of(|folder| super::TestKeeper::start(folder, None));
    for person in ["olga", "alice", "bob", "carol"] {
        bed.identity(person);
        let keygen = Command::new("ssh-keygen").args(["-y", "-f", &bed.text(person)]).output();
        let public = keygen.expect("ssh-keygen runs").stdout;
        std::fs::write(bed.path(&format!("{person}.pub")), public).expect("written");
    }
    let draft = "name = 'box-1'\n[tokens]\nksk-a = 'ksk'\nzsk-a = 'zsk'\n\
        [officers.olga]\nrole = 'operator'\nkeys = ['olga.pub']\n\
        [officers.alice]\nrole = 'key-officer'\nkeys = ['alice.pub']\n\
        [officers.bob]\nrole = 'key-officer'\nkeys = ['bob.pub']\n\
        [officers.carol]\nrole = 'key-officer'\nkeys = ['carol.pub']\n";
    std::fs::write(bed.path("draft.toml"), draft).expect("written");
    let (from, text) = (bed.text("draft.toml"), bed.text("box-1.founding"));
    bed.run(&["survey"]).expect(End::Fine, "m\\u{202e}odel");
    let said = bed.run(&["--json", "found", "draft", "--from", &from, "--out", &text]);
    let hash = parsed(&said.expect(End::Fine, ""))["hash"].as_str().expect("a hash").to_owned();
    let mut signatures = Vec::new();
    for person in ["olga", "alice", "bob", "carol"] {
        let identity = bed.text(person);
        let sign = ["found", "sign", &text, "--identity", &identity, "--yes"];
        bed.run(&sign).expect(End::Fine, &format!("signed by {person}"));
        bed.run(&sign).expect(End::Failed, "never replaced");
        signatures.push(format!("{text}.{person}.sig"));
    }
    let submit = |signatures: &[String]| {
        let mut arguments = vec!["found", "submit", &text];
        arguments.extend(signatures.iter().map(String::as_str));
        bed.run(&arguments)
    };
    submit(&signatures[..3]).expect(End::Failed, "carol has not signed");
    submit(&[&signatures[..], &signatures[..1]].concat()).expect(End::Failed, "a second signature");
    submit(&signatures).expect(End::Failed, &format!("founding = \"{hash}\""));
    bed.keeper.kept().pinned = Some(hash.parse().expect("a hash"));
    submit(&signatures).expect(End::Fine, "is founded");
    assert_eq!(bed.keeper.kept().founded.map(|hash| hash.to_string()), Some(hash.clone()));
    assert!(bed.path("pins").join(format!("{hash}.toml")).exists(), "who signed has pinned it");
    let other = ["--founding", &"00".repeat(32), "found", "sign", &text];
    bed.run(&other).expect(End::Unsound, "another founding");
}

#[test]
fn a_proposal_is_shown_as_it_will_be_signed() {
    let bed = Bed::new(World::bound());
    let id = proposed(&bed, &["generate-key", "--zone", "example.", "--role", "ksk"]);
    bed.run_as("alice", &["approve", &id]).expect(End::Fine, "");
    let said =
        bed.run(&["proposal", "show", &id[..8]]).expect(End::Fine, "operation: generate-key");
    let hash = id.parse::<countersign_policy::statement::StatementHash>().expect("an id");
    let first = hash.words().lines().next().expect("words").to_owned();
    for part in [
        &format!("words   {first}"),
        "rule    2 key-officer",
        "vote    alice approve",
        "next    it wants 1 more",
    ] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    bed.run(&["proposal", "show", &id[..7]]).expect(End::Usage, "8 to 64");
}

#[test]
fn the_calendar_knows_sets_that_run_out() {
    let mut world = World::founded();
    let approval = countersign_policy::signing::DnskeyApproval::PerSet;
    let policy =
        countersign_policy::SigningPolicy { approval, ..countersign_policy::testing::policy() };
    world.carry(Motion::SetPolicy { name: "default".to_owned(), version: 1, policy });
    world.carry(Motion::BindZone { zones: [zone()].into(), policy: "default".to_owned() });
    let keys = [world.make_ksk(true), world.make_zsk()].into();
    let bed = Bed::new(world);
    bed.first(&["calendar"]).expect(End::Attention, "nobody may sign a DNSKEY set of example.");
    bed.keeper
        .kept()
        .world
        .as_mut()
        .expect("founded")
        .carry(Motion::SignDnskeySet { zone: zone(), keys });
    bed.run(&["calendar"]).expect(End::Fine, "the leave to sign the DNSKEY set of example. ends");
}

#[test]
fn every_sort_of_motion_is_proposed_from_its_options() {
    let mut world = World::signing();
    let hash = |key: countersign_policy::KeyId| key.to_string();
    let active = world.state.keys().iter().find(|(_, record)| record.role.signs_dnskey());
    let active = hash(*active.expect("a KSK").0);
    let made = hash(world.make_ksk(false));
    let zsk = world.state.keys().iter().find(|(_, record)| !record.role.signs_dnskey());
    let zsk = hash(*zsk.expect("a ZSK").0);
    let foreign = "ab".repeat(32);
    let audit_key = format!("ED25519 {}", "07".repeat(32));
    let bed = Bed::new(world);
    let dora = public_key(&bed, "dora");
    let dora = format!("dora={dora}");
    let zone = ["--zone", "example."];
    let check = |kind: &str, options: &[&str], expect: &str| {
        let said = bed.run_as("olga", &[&["propose", kind], options].concat());
        let said = said.expect(End::Fine, expect);
        assert!(said.contains(&format!("operation: {kind}\n")), "{said}");
        let id = said.lines().find_map(|line| line.strip_prefix("id     ")).expect("an id");
        bed.run_as("olga", &["proposal", "withdraw", id]).expect(End::Fine, "is withdrawn");
    };
    let of_key = |key| [&zone[..], &["--key", key]].concat();
    check(
        "change-officers",
        &["--retire", "carol", "--enrol", "dora=key-officer", "--key", &dora],
        "retire: carol\nenrol: dora key-officer\nkey: dora ssh-ed25519 ",
    );
    check(
        "change-rules",
        &["--rule", "export-ds=1 policy-officer + 2 key-officer"],
        "rule: export-ds 2 key-officer + 1 policy-officer\n",
    );
    check("set-policy", &["--name", "default", "--dnskey-ttl-s", "7200"], "version: 2\n");
    check("generate-key", &[&zone[..], &["--role", "ksk"]].concat(), "activate: no\n");
    check(
        "adopt-key",
        &[&zone[..], &["--role", "ksk", "--token", "ksk-a", "--key", &foreign, "--activate"]]
            .concat(),
        "activate: yes\n",
    );
    check("activate-key", &of_key(&made[..8]), &format!("key: {made}\n"));
    check("destroy-key", &of_key(&made), &format!("key: {made}\n"));
    check(
        "sign-dnskey-set",
        &[&of_key(&active)[..], &["--key", &zsk]].concat(),
        &format!("key: {zsk}\n"),
    );
    check("export-ds", &zone, &format!("key: {active}\ndigest: sha-256\ndigest: sha-384\n"));
    check("publish-cds", &[&zone[..], &["--digest", "sha-384"]].concat(), "digest: sha-384\n");
    check("delete-ds", &zone, "zone: example.\n");
    check(
        "attach-token",
        &["--name", "zsk-a", "--group", "zsk"],
        "serial serial-zsk-a data-objects yes",
    );
    check("replace-audit-key", &["--token", "ksk-a", "--key", &audit_key], &audit_key);
    check("raise-time-floor", &["--to", "+1h"], "to: 2026-11-25T04:00:00Z\n");
    // What can't be now is refused with the fold's own words.
    for (kind, options, expect) in [
        ("retire-key", of_key(&active), "it would be refused"),
        ("thaw", vec![], "it would be refused"),
        ("bind-zone", [&zone[..], &["--policy", "none"]].concat(), "it would be refused"),
        ("unbind-zone", vec!["--zone", "other."], "it would be refused"),
        ("export-ds", vec!["--zone", "other."], "no active KSK or CSK"),
        ("change-officers", vec!["--key", &dora], "whom no --enrol names"),
        ("change-officers", vec!["--enrol", "dora=auditor"], "dora has no key"),
        ("set-policy", vec!["--name", "default", "--keys", "both"], "unknown variant"),
    ] {
        let said = bed.run_as("olga", &[&["propose", kind], &options[..]].concat());
        assert_ne!(said.end, End::Fine, "{kind}");
        let end = said.end;
        said.expect(end, expect);
    }
}

#[test]
fn the_calendar_knows_what_a_freeze_lets_expire() {
    let mut world = World::bound();
    let key = world.make_ksk(true);
    world.make_zsk();
    let intent = world.intend(world.sign_dnskey(key)).expect("an intent");
    world.end(intent, Outcome::Signed { signature: "00".repeat(32) }).expect("an outcome");
    let bed = Bed::new(world);
    bed.first(&["calendar"]).expect(End::Fine, "nothing within 90 days");
    bed.keeper
        .kept()
        .world
        .as_mut()
        .expect("founded")
        .freeze("adam", Scope::All)
        .expect("a freeze");
    let said =
        bed.run(&["calendar"]).expect(End::Attention, "no new one is made while it is frozen");
    assert!(
        said.contains("2026-11-26T03:00:00Z   the newest DNSKEY signature of example."),
        "{said}"
    );
}

#[test]
fn after_a_clock_ran_ahead_there_is_still_a_week_to_vote() {
    let mut world = World::founded();
    let now = world.now;
    world.now += 20 * 86_400;
    world.freeze("adam", Scope::All).expect("a line of that time");
    assert_eq!(world.state.time_floor(), world.now);
    world.now = now;
    let bed = Bed::new(world);
    let id = proposed(&bed, &["set-policy", "--name", "standard"]);
    let shown = bed.run(&["proposal", "show", &id]).expect(End::Fine, "not-before: 2026-11-25T");
    assert!(shown.contains("not-after: 2026-12-22T"), "{shown}");
}
