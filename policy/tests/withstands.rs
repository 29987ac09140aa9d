//! What separation of duties must withstand, as far as it is the ledger's to withstand: a story each,
//! through the public interface.

use std::fmt::Debug;

use countersign_policy::instance::InstanceId;
use countersign_policy::key::{KeyId, KeyRole};
use countersign_policy::ledger::{Entry, LedgerError, LedgerState, Line};
use countersign_policy::motion::{Motion, Scope};
use countersign_policy::name::ZoneName;
use countersign_policy::officer::{Officer, OfficerKey, Role};
use countersign_policy::ssh::Namespace;
use countersign_policy::state::{DAY_S, OPEN_A_PROPOSER_MAX};
use countersign_policy::statement::{StatementHash, Verb, Verdict};
use countersign_policy::testing::{Person, World, apart, founded_entry, rules, team, zone};
use countersign_policy::tree::Hash;

#[track_caller]
fn refused<T: Debug>(result: Result<T, LedgerError>, expect: &str) {
    let error = result.expect_err(expect).to_string();
    assert!(error.contains(expect), "{error}\nexpected: {expect}");
}

fn generate(zone: ZoneName) -> Motion {
    Motion::GenerateKey { zones: [zone].into(), role: KeyRole::Ksk, activate: true }
}

fn other_zone() -> ZoneName {
    "other.".parse().expect("a name")
}

/// A KSK was proposed for `example.`; alice has approved it, bob has said yes and not sent it.
fn one_is_missing() -> (World, StatementHash, Entry) {
    let mut world = World::bound();
    let zones = [other_zone()].into();
    world.carry(Motion::BindZone { zones, policy: "default".to_owned() });
    let hash = world.propose("olga", generate(zone())).expect("proposed");
    world.approve("alice", hash).expect("approved");
    let (_, bob) = world.verdict("bob", Verb::Approve, hash);
    (world, hash, bob)
}

/// The same word about another statement.
fn about(entry: &Entry, other: StatementHash) -> Entry {
    let mut entry = entry.clone();
    if let Entry::Verdict { statement, .. } = &mut entry {
        *statement = other;
    }
    entry
}

#[test]
fn self_approval() {
    let mut people = team();
    people.push(Person::new("dora", Role::KeyOfficer));
    let mut world = World::founded_by(people, |_| {});
    world.bind_zone();
    let hash = world.propose("dora", generate(zone())).expect("proposed");
    refused(world.approve("dora", hash), "dora proposed it and has no vote on it");
    world.approve("alice", hash).expect("approved");
    refused(world.begin(hash), "it wants 1 more of key-officer");
}

#[test]
fn proposing_in_anothers_name() {
    let mut world = World::bound();
    let text = world.statement("olga", generate(zone())).to_text();
    for thief in ["alice", "pat", "adam"] {
        let signature = world.person(thief).sign(Namespace::Propose, &text);
        let entry = Entry::Proposed { statement: text.clone(), signature };
        refused(world.add(entry), "which is no key of olga's");
    }
}

#[test]
fn an_unsigned_proposal() {
    let mut world = World::bound();
    let text = world.statement("olga", generate(zone())).to_text();
    let signature = world.person("olga").sign(Namespace::Propose, &text);
    let (seq, at) = (world.state.next_seq(), world.now);
    let signed = Line { seq, at, entry: Entry::Proposed { statement: text, signature } };
    let mut json: serde_json::Value = serde_json::from_slice(&signed.to_canonical()).expect("JSON");
    let entry = json["entry"].as_object_mut().expect("an entry");
    entry.insert("signature".to_owned(), "".into());
    assert!(Line::from_canonical(seq, json.to_string().as_bytes()).is_err(), "an empty one");
    json["entry"].as_object_mut().expect("an entry").remove("signature");
    assert!(Line::from_canonical(seq, json.to_string().as_bytes()).is_err(), "none");
    assert_eq!(Line::from_canonical(seq, &signed.to_canonical()), Ok(signed));
}

#[test]
fn one_person_with_two_keys() {
    let second = Person::with_key("alice", Role::KeyOfficer, "alice's second key");
    let both = {
        let key = OfficerKey { ssh: second.ssh(), verify_required: false };
        let mut officer = Person::new("alice", Role::KeyOfficer).officer();
        officer.keys.insert(key);
        officer
    };
    let mut world = World::founded_by(team(), |f| {
        let alice = "alice".parse().expect("a name");
        f.roster.0.insert(alice, both.clone());
    });
    world.bind_zone();
    let hash = world.propose("olga", generate(zone())).expect("proposed");
    world.approve("alice", hash).expect("approved");
    world.meet(second);
    refused(world.approve("alice", hash), "alice approved it at line");
    refused(world.begin(hash), "it wants 1 more of key-officer (so far alice)");
}

#[test]
fn two_persons_with_one_key() {
    let mut world = World::founded();
    let twin = Person::with_key("twin", Role::KeyOfficer, "alice");
    let enrol: std::collections::BTreeMap<_, Officer> =
        [(twin.name.clone(), twin.officer())].into();
    let motion = Motion::ChangeOfficers { version: 2, retire: [].into(), enrol };
    refused(world.propose("olga", motion), "a key belongs to one person");
}

#[test]
fn an_approval_for_another_zone_operation_or_time() {
    let (mut world, hash, _) = one_is_missing();
    let original = world.state.proposal(&hash).expect("open").statement.clone();
    let hidden =
        Motion::GenerateKey { zones: [zone()].into(), role: KeyRole::Ksk, activate: false };
    let nonce = world.nonce();
    let mut later = countersign_policy::statement::Statement { nonce, ..(*original).clone() };
    later.not_after += DAY_S;
    let others = [
        world.propose("olga", generate(other_zone())).expect("another zone"),
        world.propose("olga", hidden).expect("another operation"),
        world.table(&later).expect("another time"),
    ];
    let (_, bob) = world.verdict("bob", Verb::Approve, hash);
    for other in others {
        refused(world.add(about(&bob, other)), "bob's signature");
    }
    world.add(bob).expect("for what it is about");
    world.begin(hash).expect("begun");
}

#[test]
fn an_approval_for_another_appliance() {
    let (world, hash, bob) = one_is_missing();
    let proposed = world.lines.iter().find(|line| {
        matches!(&line.entry, Entry::Proposed { statement, .. }
            if statement.contains("generate-key"))
    });
    let proposed = proposed.expect("a line").entry.clone();
    let mut other = World::founded_by(team(), |f| f.nonce = [8; 16]);
    other.bind_zone();
    refused(other.add(proposed), "it is for the appliance");
    refused(other.add(bob.clone()), "there is no proposal");
    // Even where everything else is the same.
    let same = other.propose("olga", generate(zone())).expect("proposed");
    assert_ne!(same, hash);
    refused(other.add(about(&bob, same)), "of another ledger");
}

#[test]
fn an_approval_for_another_ledger() {
    let (world, hash, bob) = one_is_missing();
    // The keeper forks its ledger behind the proposal: bob has seen another line there.
    let mut fork = World::founded();
    fork.state = LedgerState::default();
    fork.lines.clear();
    let at = world.state.proposal(&hash).expect("open").line as usize;
    for line in &world.lines[..=at] {
        fork.add(line.entry.clone()).expect("the same");
    }
    let token = "ksk-a".to_owned();
    fork.add(Entry::TokenMarked { token }).expect("another line");
    fork.approve("alice", hash).expect("alice has seen the fork");
    refused(fork.add(bob), "of another ledger");
}

#[test]
fn an_approval_used_for_anything_else() {
    let (mut world, hash, bob) = one_is_missing();
    let mut turned = bob.clone();
    if let Entry::Verdict { verb, .. } = &mut turned {
        *verb = Verb::Deny;
    }
    refused(world.add(turned), "bob's signature");
    let (verdict, entry) = world.verdict("bob", Verb::Approve, hash);
    for namespace in Namespace::ALL.into_iter().filter(|namespace| *namespace != Namespace::Approve)
    {
        let mut entry = entry.clone();
        if let Entry::Verdict { signature, .. } = &mut entry {
            *signature = world.person("bob").sign(namespace, &verdict.to_text());
        }
        refused(world.add(entry), "bob's signature");
    }
    let Entry::Verdict { signature, .. } = &bob else { panic!("a verdict") };
    let text = verdict.to_text();
    let as_denial =
        countersign_policy::ssh::verify(signature, Namespace::Deny, text.as_bytes(), false);
    assert!(as_denial.is_err());
}

#[test]
fn before_its_window_or_after_it() {
    for (shift, expect) in [(-1, "at the earliest"), (7 * 86_400 + 1, "it ended at")] {
        let mut world = World::bound();
        let mut statement = world.statement("olga", generate(zone()));
        statement.not_before += 3_600;
        statement.not_after += 3_600;
        let hash = world.table(&statement).expect("proposed");
        for officer in ["alice", "bob"] {
            world.approve(officer, hash).expect("approved");
        }
        world.now = statement.not_before.checked_add_signed(shift).expect("a time");
        refused(world.begin(hash), expect);
    }
}

#[test]
fn an_officer_who_retired_after_approving() {
    let (mut world, hash, bob) = one_is_missing();
    world.add(bob).expect("approved");
    let dora = Person::new("dora", Role::KeyOfficer);
    let enrol = [(dora.name.clone(), dora.officer())].into();
    let retire = [world.person("bob").name.clone()].into();
    world.carry(Motion::ChangeOfficers { version: 2, retire, enrol });
    refused(world.begin(hash), "it wants 1 more of key-officer (so far alice)");
}

#[test]
fn a_rule_lowered_without_the_old_quorum() {
    let mut people = team();
    people.push(Person::new("dora", Role::KeyOfficer));
    people.push(Person::new("peggy", Role::PolicyOfficer));
    let mut strict = rules(3, &[Role::PolicyOfficer]);
    strict.0.extend(rules(3, &[Role::KeyOfficer]).0.into_iter().filter(|(k, _)| k.is_about_keys()));
    let mut world = World::founded_by(people, |f| f.rules = strict);
    let motion = Motion::ChangeRules { version: 2, rules: apart(), recovery: None };
    let hash = world.propose("olga", motion).expect("proposed");
    for officer in ["pat", "petra"] {
        world.approve(officer, hash).expect("approved");
    }
    refused(world.begin(hash), "it wants 1 more of policy-officer (so far pat, petra)");
    world.approve("paul", hash).expect("approved");
    world.begin(hash).expect("begun");
    // And none goes below the floor, whoever agrees.
    let below = rules(1, &[Role::KeyOfficer]);
    let motion = Motion::ChangeRules { version: 3, rules: below, recovery: None };
    refused(world.propose("olga", motion), "expected at least 2");
}

#[test]
fn founding_anew_over_live_keys() {
    let mut world = World::signing();
    let thieves = [
        Person::new("mallory", Role::Operator),
        Person::new("mia", Role::KeyOfficer),
        Person::new("mark", Role::KeyOfficer),
        Person::new("milo", Role::KeyOfficer),
    ];
    let mut founding = countersign_policy::testing::founding(&thieves, world.now);
    founding.rules = rules(2, &[Role::KeyOfficer]);
    refused(world.add(founded_entry(&founding, &thieves)), "an appliance is founded once");
    // From an empty ledger it goes, and the tokens know better.
    let mut anew = LedgerState::default();
    let entry = founded_entry(&founding, &thieves);
    anew.apply(&Line { seq: 0, at: world.now, entry }).expect("founded");
    let token = world.state.token_state().expect("a state");
    let fault = anew.accepts_token_state(&token).expect_err("another's").to_string();
    assert!(fault.contains("the token is of the appliance"), "{fault}");
}

/// Whatever is done to the file, either it does not fold, or the tokens (and every officer who
/// pinned a head) see that it is another ledger.
#[test]
fn a_ledger_edited_truncated_forked_or_reordered() {
    let mut world = World::signing();
    let hash = world.propose("olga", generate(zone())).expect("proposed");
    world.approve("alice", hash).expect("approved");
    world.freeze("adam", Scope::All).expect("frozen");
    let token = world.state.token_state().expect("a state");
    let lines = &world.lines;
    let caught = |what: &str, changed: &[Line]| {
        if let Ok(state) = World::fold(changed) {
            assert!(state.accepts_token_state(&token).is_err(), "{what} is not seen");
        }
    };
    let numbered = |lines: Vec<Line>| -> Vec<Line> {
        let number = |(seq, line): (usize, Line)| Line { seq: seq as u64, ..line };
        lines.into_iter().enumerate().map(number).collect()
    };
    for at in 0..lines.len() {
        caught("a truncated ledger", &lines[..at]);
        let mut without = lines.clone();
        without.remove(at);
        caught("a line taken out", &without);
        caught("a line taken out and the rest renumbered", &numbered(without));
        let mut twice = lines.clone();
        twice.insert(at, lines[at].clone());
        caught("a line twice", &numbered(twice));
        let mut swapped = lines.clone();
        swapped.swap(at, (at + 1) % lines.len());
        caught("lines in another order", &numbered(swapped));
        let mut moved = lines.clone();
        moved[at].at += 1;
        caught("another time", &moved);
    }
    // Each octet of each line, changed.
    for (at, line) in lines.iter().enumerate() {
        let bytes = line.to_canonical();
        for place in (0..bytes.len()).step_by(7) {
            let mut edited = bytes.clone();
            edited[place] ^= 1;
            let Ok(edited) = Line::from_canonical(line.seq, &edited) else { continue };
            let mut changed = lines.clone();
            changed[at] = edited;
            caught("an edited ledger", &changed);
        }
    }
    assert_eq!(World::fold(lines).expect("as it was").accepts_token_state(&token), Ok(()));
}

#[test]
fn two_executions_of_one_approval() {
    let (mut world, hash, bob) = one_is_missing();
    world.add(bob.clone()).expect("approved");
    let begun = world.begin(hash).expect("begun");
    refused(world.begin(hash), "it is under way");
    refused(world.add(bob), "is under way");
    let first = world.generate(KeyRole::Ksk);
    let second = world.generate(KeyRole::Ksk);
    let entry = |operation| Entry::Intent { operation, under: begun };
    world.add(entry(first)).expect("an intent");
    refused(world.add(entry(second)), "makes a KSK for example. already");
}

/// A second box on the same tokens, with a ledger of its own making: nothing but the quorum gives it the
/// tokens, and what was approved for one box serves no other.
#[test]
fn a_box_that_takes_the_tokens_by_itself() {
    let instance = |octet| InstanceId(Hash([octet; 32]));
    let mut world = World::founded();
    world.add(Entry::InstanceClaimed { instance: instance(1) }).expect("the founding's box");
    let claim = world.add(Entry::InstanceClaimed { instance: instance(2) });
    refused(claim, "by a move-appliance motion alone");
    let motion = Motion::MoveAppliance { from: instance(1), to: instance(3) };
    let hash = world.propose("olga", motion).expect("proposed");
    world.approve("alice", hash).expect("approved");
    refused(world.begin(hash), "it wants 1 more of key-officer");
    world.approve("bob", hash).expect("approved");
    world.begin(hash).expect("begun");
    assert_eq!(world.state.holder().map(|holder| holder.instance), Some(instance(3)));
    let again = Motion::MoveAppliance { from: instance(1), to: instance(2) };
    refused(world.propose("olga", again), "holds the tokens since line");
}

fn active_ksk(world: &World) -> KeyId {
    let (zone, is_ksk) = (zone(), |role: KeyRole| role == KeyRole::Ksk);
    let mut keys = world.state.dnskeys_of(&zone);
    keys.find(|(_, key)| is_ksk(key.role)).map(|(id, _)| *id).expect("a KSK")
}

#[test]
fn a_clock_a_day_back_ten_years_forward_and_right_again() {
    let mut world = World::signing();
    let right = world.now;
    let ksk = active_ksk(&world);
    for wrong in [right - DAY_S, right + 3650 * DAY_S] {
        world.now = wrong;
        refused(world.intend(world.sign_dnskey(ksk)), "no KSK is used");
        let operation = world.generate(KeyRole::Zsk);
        let intent = world.intend(operation).expect("ZSKs go on");
        let reason = "full".to_owned();
        let failed = countersign_policy::ledger::Outcome::Failed { reason };
        world.end(intent, failed).expect("a result");
        world.now = right;
        assert_eq!(world.state.time_floor(), right, "it poisons nothing");
        let intent = world.intend(world.sign_dnskey(ksk)).expect("right again");
        let signature = "00".to_owned();
        world
            .end(intent, countersign_policy::ledger::Outcome::Signed { signature })
            .expect("signed");
    }
}

#[test]
fn a_flood_of_proposals() {
    let mut world = World::bound();
    let mut taken = 0;
    for _ in 0..1_000 {
        taken += usize::from(world.propose("olga", generate(zone())).is_ok());
    }
    assert_eq!(taken, OPEN_A_PROPOSER_MAX);
    // Another's proposal goes through all the same.
    let motion = Motion::ChangeOfficers {
        version: 2,
        retire: [].into(),
        enrol: {
            let anna = Person::new("anna", Role::Auditor);
            [(anna.name.clone(), anna.officer())].into()
        },
    };
    let hash = world.propose("alice", motion).expect("proposed");
    for officer in ["pat", "petra"] {
        world.approve(officer, hash).expect("approved");
    }
    world.begin(hash).expect("begun");
}

#[test]
fn a_signature_of_the_wrong_namespace() {
    let (mut world, hash, _) = one_is_missing();
    let statement = world.state.proposal(&hash).expect("open").statement.clone();
    let checkpoint = world.state.tree().head();
    let officer = world.person("bob").name.clone();
    let verdict = Verdict {
        verb: Verb::Approve,
        officer: officer.clone(),
        checkpoint,
        statement: (*statement).clone(),
    };
    for namespace in ["file", "git", "approve@elsewhere", "deny@countersign", "sign-in@countersign"]
    {
        let blob = world.person("bob").sign_blob(namespace, &verdict.to_text());
        let signature = countersign_policy::ssh::Signature::from_blob(&blob).expect("a form");
        let (officer, statement) = (officer.clone(), hash);
        let entry =
            Entry::Verdict { statement, verb: Verb::Approve, officer, checkpoint, signature };
        refused(world.add(entry), "bob's signature");
    }
}

/// `ssh-keygen -Y verify` takes a security key's signature that nobody touched it for.
#[test]
fn a_security_key_that_nobody_touched() {
    for (flags, verify_required, counts) in [
        (0, false, false),
        (1, false, true),
        (5, false, true),
        (4, true, false),
        (1, true, false),
        (5, true, true),
    ] {
        let sally = || Person::with_security_key("sally", Role::KeyOfficer, flags);
        let mut world = World::bound();
        let key = OfficerKey { ssh: sally().ssh(), verify_required };
        let officer = Officer { role: Role::KeyOfficer, keys: [key].into() };
        let enrol = [(sally().name, officer)].into();
        world.carry(Motion::ChangeOfficers { version: 2, retire: [].into(), enrol });
        world.meet(sally());
        let hash = world.propose("olga", generate(zone())).expect("proposed");
        let text = world.statement("olga", generate(zone())).to_text();
        // One without a touch is not even a signature.
        let blob = world.person("sally").sign_blob(Namespace::Approve.as_str(), &text);
        let is_signature = countersign_policy::ssh::Signature::from_blob(&blob).is_ok();
        assert_eq!(is_signature, flags & 1 == 1, "flags {flags}");
        let approved = is_signature && world.approve("sally", hash).is_ok();
        assert_eq!(approved, counts, "flags {flags}, verify-required {verify_required}");
    }
}

/// A freeze that somebody swallowed is one that was never written; one that was written holds until a
/// quorum that has seen it thaws it.
#[test]
fn a_freeze_is_not_thawed_by_what_was_approved_before_it() {
    let mut world = World::signing();
    world.freeze("adam", Scope::All).expect("frozen");
    let thaw = world.propose("olga", Motion::Thaw { scope: Scope::All }).expect("proposed");
    for officer in ["pat", "petra"] {
        world.approve(officer, thaw).expect("approved");
    }
    world.freeze("carol", Scope::All).expect("frozen again");
    refused(world.begin(thaw), "what it rests on has changed");
    let ksk = active_ksk(&world);
    refused(world.intend(world.sign_dnskey(ksk)), "is frozen since line");
}
