//! Ledgers that somebody forged who has everything but other people's keys: the keeper's audit key to
//! seal them with, and some officers. Every line is at its place, every signature is good, the seal
//! holds; only what was done is not what the rules in force asked for. The product's verifier and the
//! second one (`softhsm-tests/verify_bundle.py`, which shares no code with it) both refuse them.

use std::path::Path;
use std::process::Command;

use countersign_policy::KeyRole;
use countersign_policy::ledger::{Entry, Line, Operation};
use countersign_policy::motion::{Motion, MotionKind};
use countersign_policy::officer::{OfficerKey, Role};
use countersign_policy::rule::{Group, Rule};
use countersign_policy::ssh::Namespace;
use countersign_policy::statement::{Statement, Verb, Verdict};
use countersign_policy::testing::{Person, World, recovery_group, team, zone};
use countersign_policy::tree::Tree;

use super::super::end::End;
use super::keeper::note_of;
use super::{Bed, archive};

/// Writes lines that nobody judges.
struct Forger {
    world: World,
    tree: Tree,
}

impl Forger {
    fn new(world: World) -> Self {
        let mut tree = Tree::new();
        for line in &world.lines {
            tree.push(&line.to_canonical());
        }
        Self { world, tree }
    }

    fn add(&mut self, entry: Entry) -> u64 {
        let seq = self.world.lines.len() as u64;
        let line = Line { seq, at: self.world.now, entry };
        self.tree.push(&line.to_canonical());
        self.world.lines.push(line);
        seq
    }

    fn propose(&mut self, proposer: &str, motion: Motion) -> Statement {
        let mut statement = self.world.statement(proposer, motion);
        statement.checkpoint = self.tree.head();
        let text = statement.to_text();
        let signature = self.world.person(proposer).sign(Namespace::Propose, &text);
        self.add(Entry::Proposed { statement: text, signature });
        statement
    }

    fn vote(&mut self, officer: &str, verb: Verb, statement: &Statement) {
        let person = self.world.person(officer);
        let (checkpoint, statement) = (self.tree.head(), statement.clone());
        let (officer, hash) = (person.name.clone(), statement.hash());
        let verdict = Verdict { verb, officer: officer.clone(), checkpoint, statement };
        let namespace = match verb {
            Verb::Approve => Namespace::Approve,
            Verb::Deny => Namespace::Deny,
        };
        let signature = person.sign(namespace, &verdict.to_text());
        self.add(Entry::Verdict { statement: hash, verb, officer, checkpoint, signature });
    }

    fn begin(&mut self, statement: &Statement) -> u64 {
        self.add(Entry::Begun { statement: statement.hash(), reveals: Vec::new() })
    }

    /// What these people approve begins.
    fn carry(&mut self, proposer: &str, motion: Motion, officers: &[&str]) -> u64 {
        let statement = self.propose(proposer, motion);
        for officer in officers {
            self.vote(officer, Verb::Approve, &statement);
        }
        self.begin(&statement)
    }
}

fn make_ksk() -> Motion {
    Motion::GenerateKey { zones: [zone()].into(), role: KeyRole::Ksk, activate: true }
}

fn generate(role: KeyRole) -> Operation {
    Operation::Generate { zone: zone(), role, token: "ksk-a".to_owned(), nonce: "5a".repeat(16) }
}

/// Whether each of the two verifiers takes it, and what they say.
fn judged(forger: &Forger) -> [(bool, String); 2] {
    let bed = Bed::new(World::founded());
    let founding = forger.world.state.appliance().expect("founded");
    let lines: Vec<Vec<u8>> = forger.world.lines.iter().map(Line::to_canonical).collect();
    archive::write(&bed.path("bundle"), &note_of(founding, &forger.tree.head(), "audit"), &lines);
    let named = founding.to_string();
    let ours = bed.run(&["audit", "verify", &bed.text("bundle"), "--founding", &named]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../softhsm-tests/verify_bundle.py");
    let mut others = Command::new("python3");
    let others = others.arg(script).arg(bed.path("bundle")).arg(named).output().expect("python3");
    let said = String::from_utf8_lossy(&others.stderr).into_owned();
    [(ours.end == End::Fine, ours.err), (others.status.success(), said)]
}

#[track_caller]
fn refused(what: &str, forger: &Forger, why: &str) {
    let [(ours, said), (others, others_said)] = judged(forger);
    assert!(!ours, "the product takes {what}");
    assert!(said.contains("does not hold, from this line on"), "{what}: {said}");
    assert!(!others, "the second verifier takes {what}");
    assert!(others_said.contains(why), "{what}: {others_said}");
}

#[test]
fn what_has_its_quorum_is_taken_by_both() {
    let mut forger = Forger::new(World::bound());
    let begun = forger.carry("olga", make_ksk(), &["alice", "bob"]);
    forger.add(Entry::Intent { operation: generate(KeyRole::Ksk), under: begun });
    for (taken, said) in judged(&forger) {
        assert!(taken, "{said}");
    }
}

#[test]
fn too_few_approvals() {
    let mut forger = Forger::new(World::bound());
    forger.carry("olga", make_ksk(), &["alice"]);
    refused("one approval", &forger, "no quorum");

    let mut forger = Forger::new(World::bound());
    forger.carry("olga", make_ksk(), &["alice", "alice"]);
    refused("one officer twice", &forger, "no quorum");

    let mut forger = Forger::new(World::bound());
    let statement = forger.propose("olga", make_ksk());
    forger.vote("alice", Verb::Deny, &statement);
    for officer in ["alice", "bob"] {
        forger.vote(officer, Verb::Approve, &statement);
    }
    forger.begin(&statement);
    refused("an approval after a denial", &forger, "denied it before");
}

#[test]
fn one_person_in_two_groups() {
    let mut forger = Forger::new(World::bound());
    let mut rules = forger.world.state.rules().clone();
    let group = |roles: &[Role]| Group { persons: 1, roles: roles.iter().copied().collect() };
    let both = [Role::KeyOfficer, Role::PolicyOfficer];
    let rule = Rule(vec![group(&[Role::KeyOfficer]), group(&both)]);
    rules.0.insert(MotionKind::GenerateKey, rule);
    let change = Motion::ChangeRules { version: 2, rules, recovery: None };
    forger.carry("olga", change, &["pat", "petra"]);
    forger.carry("olga", make_ksk(), &["alice"]);
    refused("a person who counts twice", &forger, "a rule below the floor");
}

#[test]
fn two_persons_with_one_key() {
    let mut forger = Forger::new(World::bound());
    let twin = Person::with_key("alicia", Role::KeyOfficer, "alice");
    let enrol = [(twin.name.clone(), twin.officer())].into();
    forger.world.meet(twin);
    let change = Motion::ChangeOfficers { version: 2, retire: [].into(), enrol };
    forger.carry("olga", change, &["pat", "petra"]);
    forger.carry("olga", make_ksk(), &["alice", "alicia"]);
    refused("two persons with one key", &forger, "one key of two persons");
}

#[test]
fn an_hsm_that_was_asked_without_a_motion() {
    let mut forger = Forger::new(World::bound());
    forger.add(Entry::Intent { operation: generate(KeyRole::Ksk), under: 0 });
    refused("a key that nobody wanted", &forger, "under no motion");

    // The zone's binding lets ZSKs be made, and no KSK.
    let mut forger = Forger::new(World::bound());
    let binding = forger.world.state.zones()[&zone()].line;
    forger.add(Entry::Intent { operation: generate(KeyRole::Ksk), under: binding });
    refused("a KSK under a binding", &forger, "under no motion");

    let mut forger = Forger::new(World::bound());
    let begun = forger.carry("olga", make_ksk(), &["alice", "bob"]);
    forger.add(Entry::DsExported { begun, zone: zone() });
    refused("a DS under another motion", &forger, "under no motion");
}

#[test]
fn a_clock_that_was_put_back_into_the_window() {
    let mut forger = Forger::new(World::bound());
    let statement = forger.propose("olga", make_ksk());
    for officer in ["alice", "bob"] {
        forger.vote(officer, Verb::Approve, &statement);
    }
    let then = forger.world.now;
    forger.world.now = statement.not_after + 1;
    forger.add(Entry::TokenMarked { token: "zsk-a".to_owned() });
    forger.world.now = then;
    forger.begin(&statement);
    let [(ours, _), (others, said)] = judged(&forger);
    assert!(!ours && !others, "{said}");
    assert!(said.contains("outside its window"), "{said}");
}

#[test]
fn a_recovery_group_that_does_more_than_recover() {
    let people = team().into_iter().chain(recovery_group()).collect();
    let mut world = World::founded_by(people, |_| {});
    world.bind_zone();
    let mut forger = Forger::new(world);
    let statement = forger.propose("rita", make_ksk());
    for officer in ["rob", "ruth", "ralf"] {
        forger.vote(officer, Verb::Approve, &statement);
    }
    forger.world.now += 3 * 86_400;
    forger.begin(&statement);
    refused("a key by the recovery group", &forger, "the recovery group carries generate-key");
}

#[test]
fn a_security_key_that_was_to_ask_for_a_pin() {
    // SSH_SK_USER_PRESENCE_REQD and SSH_SK_USER_VERIFICATION_REQD.
    for (flags, enough) in [(1, false), (5, true)] {
        let mut forger = Forger::new(World::bound());
        let sky = Person::with_security_key("sky", Role::KeyOfficer, flags);
        let mut officer = sky.officer();
        officer.keys = officer
            .keys
            .into_iter()
            .map(|key| OfficerKey { verify_required: true, ..key })
            .collect();
        let enrol = [(sky.name.clone(), officer)].into();
        forger.world.meet(sky);
        let change = Motion::ChangeOfficers { version: 2, retire: [].into(), enrol };
        let hash = forger.world.propose("olga", change).expect("a proposal");
        for officer in ["pat", "petra"] {
            forger.world.approve(officer, hash).expect("an approval");
        }
        forger.world.begin(hash).expect("a beginning");
        let mut forger = Forger::new(forger.world);
        forger.carry("olga", make_ksk(), &["alice", "sky"]);
        if enough {
            for (taken, said) in judged(&forger) {
                assert!(taken, "{said}");
            }
        } else {
            refused("a signature that nobody was asked for", &forger, "no signature by sky");
        }
    }
}
