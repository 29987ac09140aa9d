//! Random people do random things, and whatever began had its quorum.
//!
//! They propose, approve, deny, withdraw, freeze and begin; with their own keys, with others', for the
//! right purpose and the wrong one; they say again what they said before, about other statements and
//! under other verbs; officers and rules change; the clock jumps back and ahead. Beside the ledger
//! runs a model that knows who really signed what, and counts again by itself. 3,000 steps; 100,000 with
//! `COUNTERSIGN_LONG=1`.

mod common;

#[path = "machine/model.rs"]
mod model;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use common::{Random, tries};
use countersign_policy::instance::InstanceId;
use countersign_policy::key::{KeyId, KeyRole};
use countersign_policy::ledger::{Entry, Outcome};
use countersign_policy::motion::{Motion, MotionKind, Scope};
use countersign_policy::name::ZoneName;
use countersign_policy::officer::{Officer, PersonName, Role};
use countersign_policy::ssh::{Namespace, Signature};
use countersign_policy::state::DAY_S;
use countersign_policy::statement::{StatementHash, Verb, Verdict, Withdrawal};
use countersign_policy::testing::{
    NOW, Person, World, apart, made_key, policy, public_key, recovery_group, rules, zone,
};
use countersign_policy::tree::Hash;
use model::{Model, Signed};
use proptest::prelude::any;
use proptest::test_runner::{Config, TestRunner};

/// Steps of one appliance's life.
const LIFE_STEPS: usize = 500;
/// Each person has so many keys, of which the roster knows one.
const KEYS: usize = 2;

/// A submission, and who really signed what for what.
#[derive(Clone)]
struct Submission {
    entry: Entry,
    signed: Signed,
}

struct Machine {
    random: Random,
    world: World,
    model: Model,
    /// By name, each with another key.
    people: Vec<[Person; KEYS]>,
    /// Statements that were ever drafted.
    drafted: BTreeMap<StatementHash, countersign_policy::statement::Statement>,
    said: Vec<Submission>,
    begun: Vec<MotionKind>,
    /// Nobody errs and nobody cheats: while it is set up.
    honest: bool,
}

fn people() -> Vec<[Person; KEYS]> {
    let two = |name: &str, role: Role| {
        [Person::new(name, role), Person::with_key(name, role, &format!("{name}'s other key"))]
    };
    let mut people: Vec<[Person; KEYS]> = [
        ("olga", Role::Operator),
        ("alice", Role::KeyOfficer),
        ("bob", Role::KeyOfficer),
        ("carol", Role::KeyOfficer),
        ("dora", Role::KeyOfficer),
        ("pat", Role::PolicyOfficer),
        ("petra", Role::PolicyOfficer),
        ("paul", Role::PolicyOfficer),
        ("pia", Role::PolicyOfficer),
        ("adam", Role::Auditor),
        // On no roster at first.
        ("frank", Role::KeyOfficer),
        ("greta", Role::PolicyOfficer),
        ("hans", Role::Operator),
    ]
    .into_iter()
    .map(|(name, role)| two(name, role))
    .collect();
    people.extend(recovery_group().iter().map(|person| two(person.name.as_str(), Role::Recovery)));
    people
}

impl Machine {
    fn new() -> Self {
        let people = people();
        let outside = ["frank", "greta", "hans"];
        let founders: Vec<Person> = people
            .iter()
            .map(|[person, _]| Person::new(person.name.as_str(), person.role))
            .filter(|person| !outside.contains(&person.name.as_str()))
            .collect();
        let world = World::founded_by(founders, |_| {});
        let founding = world.state.founding().expect("founded");
        let model = Model::new(founding, box_number(0));
        let (random, drafted, said) = (Random(0), BTreeMap::new(), Vec::new());
        let mut machine =
            Self { random, world, model, people, drafted, said, begun: Vec::new(), honest: true };
        let claimed = Entry::InstanceClaimed { instance: box_number(0) };
        machine.world.add(claimed).expect("the founding's box");
        machine.set_up();
        machine.honest = false;
        machine
    }

    /// A policy and a zone, by the same way as everything else.
    fn set_up(&mut self) {
        let name = "default".to_owned();
        for motion in [
            Motion::SetPolicy { name: name.clone(), version: 1, policy: policy() },
            Motion::BindZone { zones: [zone(), other_zone()].into(), policy: name },
        ] {
            let hash = self.propose(0, 0, motion);
            for officer in [5, 6] {
                self.vote(officer, 0, Verb::Approve, hash);
            }
            self.begin(hash);
        }
        assert_eq!(self.begun.len(), 2);
    }

    /// Submits it; what is taken must be what the model allows.
    fn submit(&mut self, submission: &Submission) {
        let Submission { entry, signed } = submission;
        if self.world.add(entry.clone()).is_ok() {
            self.model.took(self.world.now, entry, signed);
        }
    }

    fn say(&mut self, entry: Entry, signed: Signed) {
        let submission = Submission { entry, signed };
        self.submit(&submission);
        self.said.push(submission);
    }

    fn sign(
        &self,
        who: usize,
        key: usize,
        namespace: Namespace,
        text: &str,
    ) -> (Signature, Signed) {
        let person = &self.people[who][key];
        let (signature, key, text) = (person.sign(namespace, text), person.ssh(), text.to_owned());
        (signature, Signed { key, namespace, text })
    }

    fn propose(&mut self, who: usize, key: usize, motion: Motion) -> StatementHash {
        let proposer = self.people[who][key].name.to_string();
        let mut statement = self.world.statement(&proposer, motion);
        if let Motion::RaiseTimeFloor { to } = statement.motion {
            statement.not_before = to;
        }
        if self.errs(8) {
            statement.not_before += 3_600 * self.random.below(48) as u64;
        }
        let (text, hash) = (statement.to_text(), statement.hash());
        let signer = if self.errs(12) { self.anyone() } else { who };
        let purpose = self.purpose(Namespace::Propose);
        let (signature, signed) = self.sign(signer, key, purpose, &text);
        self.drafted.insert(hash, statement);
        self.say(Entry::Proposed { statement: text, signature }, signed);
        hash
    }

    fn vote(&mut self, who: usize, key: usize, verb: Verb, hash: StatementHash) {
        let Some(statement) = self.drafted.get(&hash).cloned() else { return };
        let officer = self.people[who][key].name.clone();
        let mut checkpoint = self.world.state.tree().head();
        if self.errs(16) {
            let size = 1 + self.random.below(checkpoint.size as usize) as u64;
            checkpoint.root = self.world.state.tree().root_at(size).expect("a root");
            checkpoint.size = size;
        }
        let namespace = match verb {
            Verb::Approve => Namespace::Approve,
            Verb::Deny => Namespace::Deny,
        };
        let verdict = Verdict { verb, officer: officer.clone(), checkpoint, statement };
        let signer = if self.errs(12) { self.anyone() } else { who };
        let purpose = self.purpose(namespace);
        let (signature, signed) = self.sign(signer, key, purpose, &verdict.to_text());
        let entry = Entry::Verdict { statement: hash, verb, officer, checkpoint, signature };
        self.say(entry, signed);
    }

    fn begin(&mut self, hash: StatementHash) {
        let motion = self.drafted.get(&hash).map(|statement| statement.motion.clone());
        let kind = motion.as_ref().map(Motion::kind);
        let reveals = motion.map(|motion| self.world.state.reveals(&motion)).unwrap_or_default();
        let reveals = reveals.iter().map(|id| self.world.publics[id].clone()).collect();
        let entry = Entry::Begun { statement: hash, reveals };
        if self.world.add(entry).is_ok() {
            self.begun.extend(kind);
            self.model.began(self.world.now, hash, self.world.state.next_seq() - 1);
        }
    }

    /// Once in so many times, somebody errs or cheats.
    fn errs(&mut self, once_in: usize) -> bool {
        !self.honest && self.random.below(once_in) == 0
    }

    fn anyone(&mut self) -> usize {
        self.random.below(self.people.len())
    }

    /// Mostly the key that the roster has.
    fn key(&mut self, who: usize) -> usize {
        let name = &self.people[who][0].name;
        let current = self.world.state.roster().person(name).map_or(0, |officer| {
            let has =
                |key: &usize| officer.keys.iter().any(|k| k.ssh == self.people[who][*key].ssh());
            (0..KEYS).find(has).unwrap_or(0)
        });
        if self.errs(10) { 1 - current } else { current }
    }

    /// Mostly the right one.
    fn purpose(&mut self, right: Namespace) -> Namespace {
        if self.errs(16) { *self.random.pick(&Namespace::ALL) } else { right }
    }

    /// One that is open, mostly.
    fn some_statement(&mut self) -> Option<StatementHash> {
        let open: Vec<StatementHash> =
            self.world.state.proposals().map(|(hash, _)| *hash).collect();
        if open.is_empty() || self.random.below(10) == 0 {
            let all: Vec<StatementHash> = self.drafted.keys().copied().collect();
            return (!all.is_empty()).then(|| *self.random.pick(&all));
        }
        Some(*self.random.pick(&open))
    }

    /// One step, all of it chosen by `seed`: so a life that fails is made shorter by leaving out
    /// steps.
    fn step(&mut self, seed: u64) {
        self.random = Random(seed);
        self.model.steps += 1;
        let who = self.anyone();
        let key = self.key(who);
        match self.random.below(40) {
            0..6 => {
                let recovers = self.people[who][0].role == Role::Recovery;
                let motion = if recovers { self.change_officers() } else { self.motion() };
                // Operators, mostly, so that something comes of it.
                let proposer = if recovers || self.random.below(3) == 0 { who } else { 0 };
                let key = self.key(proposer);
                self.propose(proposer, key, motion);
            }
            6..20 => {
                let Some(hash) = self.some_statement() else { return };
                let who = if self.random.below(4) == 0 { who } else { self.voter(hash) };
                let key = self.key(who);
                self.vote(who, key, Verb::Approve, hash);
            }
            20 => {
                let Some(hash) = self.some_statement() else { return };
                self.vote(who, key, Verb::Deny, hash);
            }
            21 => self.withdraw(who, key),
            22 if self.random.below(3) == 0 => self.freeze(who, key),
            23..29 => {
                // A keeper begins what it may; somebody else tries anything.
                let (state, now) = (&self.world.state, self.world.now);
                let may = |hash: &StatementHash| state.quorum(hash, now).is_ok();
                let ready = state.proposals().map(|(hash, _)| *hash).find(may);
                let other = self.some_statement();
                if let Some(hash) = ready.filter(|_| self.random.below(3) > 0).or(other) {
                    self.begin(hash);
                }
            }
            29..33 => self.jump(),
            33..35 => self.repeat(),
            35..38 => self.use_keys(),
            38 => {
                // Another box claims the tokens, or just starts.
                let instance = box_number(1 + self.random.below(2) as u8);
                let claim = self.world.add(Entry::InstanceClaimed { instance });
                assert!(claim.is_err(), "claimed without a quorum");
            }
            _ => self.world.now += self.random.below(7_200) as u64,
        }
    }

    /// One who may have a say on it.
    fn voter(&mut self, hash: StatementHash) -> usize {
        let Some(statement) = self.drafted.get(&hash) else { return 0 };
        let by_recovery = |people: &&[Person; KEYS]| {
            people[0].name == statement.proposer && people[0].role == Role::Recovery
        };
        let role = if self.people.iter().any(|people| by_recovery(&people)) {
            Role::Recovery
        } else if statement.motion.kind().is_about_keys() || self.random.below(8) == 0 {
            Role::KeyOfficer
        } else {
            Role::PolicyOfficer
        };
        let (is, all) = (|who: &usize| self.people[*who][0].role == role, 0..self.people.len());
        let those: Vec<usize> = all.filter(is).collect();
        *self.random.pick(&those)
    }

    fn withdraw(&mut self, who: usize, key: usize) {
        let Some(hash) = self.some_statement() else { return };
        let proposer = self.drafted.get(&hash).map(|statement| statement.proposer.clone());
        let is_proposer = |people: &[Person; KEYS]| Some(&people[0].name) == proposer.as_ref();
        let (who, key) = match self.people.iter().position(is_proposer) {
            Some(proposer) if !self.errs(3) => (proposer, self.key(proposer)),
            _ => (who, key),
        };
        let appliance = self.world.state.appliance().expect("founded");
        let officer = self.people[who][key].name.clone();
        let text = Withdrawal { appliance, officer, statement: hash }.to_text();
        let (signature, signed) = self.sign(who, key, Namespace::Withdraw, &text);
        self.say(Entry::Withdrawn { statement: hash, signature }, signed);
    }

    fn freeze(&mut self, who: usize, key: usize) {
        let scope = self.scope();
        let name = self.people[who][key].name.to_string();
        let text = self.world.freeze_text(&name, scope).to_text();
        let purpose = self.purpose(Namespace::Freeze);
        let (signature, signed) = self.sign(who, key, purpose, &text);
        self.say(Entry::Frozen { text, signature }, signed);
    }

    fn scope(&mut self) -> Scope {
        match self.random.below(3) {
            0 => Scope::All,
            1 => Scope::Zone(zone()),
            _ => Scope::Zone(other_zone()),
        }
    }

    /// The clock goes back, ahead, and right again.
    fn jump(&mut self) {
        let right = NOW + self.model.steps * 3_600;
        self.world.now = match self.random.below(16) {
            0 => right.saturating_sub(DAY_S),
            1 => right + 3650 * DAY_S,
            2 => right + 40 * DAY_S,
            3 => right + DAY_S,
            _ => right.max(self.world.state.time_floor()),
        };
    }

    /// Says again what was said, as it was or about something else.
    fn repeat(&mut self) {
        if self.said.is_empty() {
            return;
        }
        let mut submission = self.random.pick(&self.said).clone();
        let other = self.some_statement();
        match &mut submission.entry {
            Entry::Verdict { statement, verb, officer, .. } => match self.random.below(4) {
                0 => *verb = if *verb == Verb::Approve { Verb::Deny } else { Verb::Approve },
                1 => *statement = other.unwrap_or(*statement),
                2 => {
                    let who = self.random.below(self.people.len());
                    *officer = self.people[who][0].name.clone();
                }
                _ => {}
            },
            Entry::Withdrawn { statement, .. } => *statement = other.unwrap_or(*statement),
            _ => {}
        }
        self.submit(&submission);
    }

    /// What a keeper does with what began; and what it must not.
    fn use_keys(&mut self) {
        let role = if self.random.below(3) == 0 { KeyRole::Zsk } else { KeyRole::Ksk };
        let now = self.world.now;
        if self.random.below(2) == 0 {
            let operation = self.world.generate(role);
            let under = self.world.state.standing(&operation, now);
            let any = 1 + self.random.below(self.world.lines.len() - 1) as u64;
            let under = if self.random.below(4) == 0 { any } else { under.unwrap_or(any) };
            let activates = self.model.activates(under);
            let Ok(intent) = self.world.add(Entry::Intent { operation: operation.clone(), under })
            else {
                return;
            };
            self.model.intended(now, &operation, under);
            let public = public_key(self.world.number());
            let told = role == KeyRole::Zsk || activates;
            let made = made_key(&public, role, told);
            self.world.publics.insert(public.id(), public.clone());
            self.world.end(intent, Outcome::Generated { made }).expect("a result");
            self.model.made(public.id(), role, told);
            return;
        }
        let keys: Vec<KeyId> = self.world.state.keys().keys().copied().collect();
        if keys.is_empty() {
            return;
        }
        let operation = self.world.sign_dnskey(*self.random.pick(&keys));
        let under = self.world.state.standing(&operation, now).unwrap_or(1);
        if let Ok(intent) = self.world.add(Entry::Intent { operation: operation.clone(), under }) {
            self.model.intended(now, &operation, under);
            let outcome = Outcome::Signed { signature: "00".to_owned() };
            self.world.end(intent, outcome).expect("a result");
        }
    }

    fn motion(&mut self) -> Motion {
        let keys: Vec<KeyId> = self.world.state.keys().keys().copied().collect();
        let key = if keys.is_empty() { KeyId([0; 32]) } else { *self.random.pick(&keys) };
        let state = &self.world.state;
        match self.random.below(15) {
            0..2 => self.change_officers(),
            2 => {
                let version = state.rules_version() + 1;
                let mut rules = match self.random.below(4) {
                    0 => rules(2, &[Role::KeyOfficer]),
                    1 => rules(3, &[Role::KeyOfficer]),
                    2 => rules(1, &[Role::KeyOfficer]),
                    _ => apart(),
                };
                if self.random.below(4) == 0 {
                    rules.0.retain(|kind, _| kind.is_about_keys());
                    rules.0.extend(apart().0.into_iter().filter(|(kind, _)| !kind.is_about_keys()));
                }
                Motion::ChangeRules { version, rules, recovery: self.model.recovery }
            }
            3 => {
                let version = state.policies()["default"].0 + 1;
                let mut policy = policy();
                policy.validity_s -= self.random.below(10) as u32;
                Motion::SetPolicy { name: "default".to_owned(), version, policy }
            }
            4..9 => Motion::GenerateKey {
                zones: [zone()].into(),
                role: KeyRole::Ksk,
                activate: self.random.below(2) == 0,
            },
            9 => Motion::ActivateKey { zone: zone(), key },
            10 => Motion::RetireKey { zone: zone(), key },
            11 => Motion::RaiseTimeFloor { to: self.world.now },
            12 => {
                let from = match self.random.below(4) {
                    0 => box_number(1),
                    _ => state.holder().expect("claimed").instance,
                };
                Motion::MoveAppliance { from, to: box_number(self.random.below(3) as u8) }
            }
            _ => Motion::Thaw { scope: self.scope() },
        }
    }

    fn change_officers(&mut self) -> Motion {
        let (out, come) = (self.anyone(), self.anyone());
        let key = self.random.below(KEYS);
        let retire = match self.random.below(4) {
            0 => Vec::new(),
            // Another key for the same person.
            1 => vec![self.people[come][0].name.clone()],
            _ => vec![self.people[out][0].name.clone()],
        };
        let person = &self.people[come][key];
        let enrol: BTreeMap<PersonName, Officer> = if self.random.below(5) == 0 {
            BTreeMap::new()
        } else {
            [(person.name.clone(), person.officer())].into()
        };
        let version = self.world.state.officers_version() + 1;
        Motion::ChangeOfficers { version, retire: retire.into_iter().collect(), enrol }
    }
}

fn box_number(number: u8) -> InstanceId {
    InstanceId(Hash([number; 32]))
}

fn other_zone() -> ZoneName {
    "other.".parse().expect("a name")
}

#[test]
fn whatever_began_had_its_quorum() {
    let lives = tries(3_000, 100_000) / LIFE_STEPS as u64;
    let cases = u32::try_from(lives).expect("few");
    let config =
        Config { cases, max_shrink_iters: 500, failure_persistence: None, ..Config::default() };
    let (begun, made) = (RefCell::new(Vec::new()), Cell::new(0));
    let seeds = proptest::collection::vec(any::<u64>(), LIFE_STEPS);
    let all = TestRunner::new(config).run(&seeds, |seeds| {
        let mut machine = Machine::new();
        for seed in seeds {
            machine.step(seed);
        }
        begun.borrow_mut().extend(machine.begun.split_off(2));
        made.set(made.get() + machine.model.ksks_made);
        // An auditor comes to the same.
        let again = World::fold(&machine.world.lines).expect("folds");
        assert_eq!(again.tree().head(), machine.world.state.tree().head());
        assert_eq!(again.keys(), machine.world.state.keys());
        let holder = again.holder().expect("claimed").instance;
        assert_eq!(holder, machine.model.holder);
        Ok(())
    });
    all.expect("each had its quorum");
    let (begun, made) = (begun.into_inner(), made.get() as u64);
    let count = begun.len() as u64;
    assert!(count > lives, "only {count} motions began in {lives} lives");
    assert!(made > lives / 10, "only {made} KSKs were made in {lives} lives");
    if lives >= 100 {
        let began: BTreeSet<&str> = begun.iter().map(|kind| kind.as_str()).collect();
        let expected = [
            "activate-key",
            "change-officers",
            "change-rules",
            "generate-key",
            "move-appliance",
            "raise-time-floor",
            "retire-key",
            "set-policy",
            "thaw",
        ];
        assert_eq!(began.into_iter().collect::<Vec<_>>(), expected);
    }
}
