//! A second opinion: who signed what, and a count of its own. It shares the types of texts with the
//! ledger, and none of its judgement.

use std::collections::{BTreeMap, BTreeSet};

use countersign_policy::founding::Founding;
use countersign_policy::instance::InstanceId;
use countersign_policy::key::{KeyId, KeyRole};
use countersign_policy::ledger::{Entry, Operation};
use countersign_policy::motion::{Motion, MotionKind, Scope};
use countersign_policy::name::ZoneName;
use countersign_policy::officer::{PersonName, Role};
use countersign_policy::rule::{RecoveryRule, Rules};
use countersign_policy::ssh::{Namespace, SshKey};
use countersign_policy::statement::{Freeze, Statement, StatementHash, Verb, Verdict, Withdrawal};

const CLOCK_S: u64 = 30 * 86_400;

/// What a signature really is: by which key, for what, over which text.
#[derive(Debug, Clone)]
pub struct Signed {
    pub key: SshKey,
    pub namespace: Namespace,
    pub text: String,
}

#[derive(Debug)]
struct Tabled {
    statement: Statement,
    key: SshKey,
    recovery: bool,
    at: u64,
    yes: BTreeMap<PersonName, SshKey>,
    no: BTreeSet<PersonName>,
    begun: bool,
    over: bool,
}

#[derive(Debug)]
pub struct Model {
    pub steps: u64,
    pub recovery: Option<RecoveryRule>,
    pub ksks_made: usize,
    /// The box that holds the tokens.
    pub holder: InstanceId,
    roster: BTreeMap<PersonName, (Role, SshKey)>,
    rules: Rules,
    versions: (u64, u64),
    floor: u64,
    frozen: BTreeSet<Scope>,
    tabled: BTreeMap<StatementHash, Tabled>,
    /// Lines of begun generations: (zones left, activate, finish-by).
    generations: BTreeMap<u64, (BTreeSet<ZoneName>, bool, u64)>,
    /// KSKs that a quorum made active.
    active: BTreeSet<KeyId>,
}

fn roster_of(founding: &Founding) -> BTreeMap<PersonName, (Role, SshKey)> {
    let one = |officer: &countersign_policy::officer::Officer| {
        (officer.role, officer.keys.first().expect("a key").ssh.clone())
    };
    founding.roster.0.iter().map(|(name, officer)| (name.clone(), one(officer))).collect()
}

impl Model {
    pub fn new(founding: &Founding, holder: InstanceId) -> Self {
        Self {
            holder,
            steps: 0,
            recovery: founding.recovery,
            ksks_made: 0,
            roster: roster_of(founding),
            rules: founding.rules.clone(),
            versions: (1, 1),
            floor: founding.time,
            frozen: BTreeSet::new(),
            tabled: BTreeMap::new(),
            generations: BTreeMap::new(),
            active: BTreeSet::new(),
        }
    }

    fn saw(&mut self, at: u64) {
        if at > self.floor && at - self.floor <= CLOCK_S {
            self.floor = at;
        }
    }

    fn clock_is_good(&self, at: u64) -> bool {
        (self.floor..=self.floor + CLOCK_S).contains(&at)
    }

    fn is_frozen(&self, zone: &ZoneName) -> bool {
        self.frozen.contains(&Scope::All) || self.frozen.contains(&Scope::Zone(zone.clone()))
    }

    /// The signature is by a key that is this person's now, over this text, for this.
    fn is_by(&self, person: &PersonName, namespace: Namespace, text: &str, signed: &Signed) {
        let (_, key) = self.roster.get(person).expect("someone on the roster");
        assert_eq!(*key, signed.key, "{person}'s key");
        assert_eq!((namespace, text), (signed.namespace, signed.text.as_str()), "of {person}");
    }

    /// The ledger took this.
    pub fn took(&mut self, at: u64, entry: &Entry, signed: &Signed) {
        match entry {
            Entry::Proposed { statement, .. } => {
                let text = statement;
                let statement = Statement::parse(text).expect("a statement");
                let proposer = statement.proposer.clone();
                self.is_by(&proposer, Namespace::Propose, text, signed);
                assert!(!self.tabled.contains_key(&statement.hash()), "proposed twice");
                let (role, key) = self.roster[&proposer].clone();
                assert!(role != Role::Auditor, "{proposer} is an auditor");
                let open = self.tabled.values().filter(|t| {
                    !t.over
                        && !t.begun
                        && t.statement.not_after >= self.floor
                        && t.statement.proposer == proposer
                });
                assert!(open.count() < 8, "{proposer} clogs the table");
                let tabled = Tabled {
                    key,
                    recovery: role == Role::Recovery,
                    at: at.max(self.floor),
                    yes: BTreeMap::new(),
                    no: BTreeSet::new(),
                    begun: false,
                    over: false,
                    statement: statement.clone(),
                };
                self.tabled.insert(statement.hash(), tabled);
            }
            Entry::Verdict { statement, verb, officer, checkpoint, .. } => {
                let (verb, officer, checkpoint) = (*verb, officer.clone(), *checkpoint);
                let about = &self.tabled[statement].statement;
                let text = Verdict {
                    verb,
                    officer: officer.clone(),
                    checkpoint,
                    statement: about.clone(),
                }
                .to_text();
                let namespace =
                    if verb == Verb::Approve { Namespace::Approve } else { Namespace::Deny };
                self.is_by(&officer, namespace, &text, signed);
                let tabled = self.tabled.get_mut(statement).expect("proposed");
                assert!(tabled.statement.proposer != officer, "{officer} proposed it");
                assert!(!tabled.over && !tabled.begun, "it is over");
                assert!(at <= tabled.statement.not_after, "after its window");
                if verb == Verb::Approve {
                    assert!(!tabled.no.contains(&officer), "{officer} denied it");
                    tabled.yes.insert(officer, signed.key.clone());
                } else {
                    tabled.yes.remove(&officer);
                    tabled.no.insert(officer);
                }
            }
            Entry::Withdrawn { statement, .. } => {
                let tabled = &self.tabled[statement];
                let (officer, appliance) =
                    (tabled.statement.proposer.clone(), tabled.statement.appliance);
                let text =
                    Withdrawal { appliance, officer: officer.clone(), statement: *statement };
                self.is_by(&officer, Namespace::Withdraw, &text.to_text(), signed);
                assert!(!tabled.begun, "it began");
                self.tabled.get_mut(statement).expect("proposed").over = true;
            }
            Entry::Frozen { text, .. } => {
                let freeze = Freeze::parse(text).expect("a freeze");
                self.is_by(&freeze.officer, Namespace::Freeze, text, signed);
                self.frozen.insert(freeze.scope);
            }
            other => panic!("nobody says {other:?}"),
        }
        self.saw(at);
    }

    /// So many of each group of the rule have said yes and are who they were.
    fn count(
        roster: &BTreeMap<PersonName, (Role, SshKey)>,
        rules: &Rules,
        recovery: Option<RecoveryRule>,
        tabled: &Tabled,
    ) {
        let kind = tabled.statement.motion.kind();
        let mut roles = Vec::new();
        for (person, approved_with) in &tabled.yes {
            let Some((role, key)) = roster.get(person) else { continue };
            if key == approved_with
                && *person != tabled.statement.proposer
                && *approved_with != tabled.key
            {
                roles.push(*role);
            }
        }
        let need = if tabled.recovery {
            vec![(usize::from(recovery.expect("a group").persons), [Role::Recovery].into())]
        } else {
            let groups = &rules.0[&kind].0;
            groups.iter().map(|g| (usize::from(g.persons), g.roles.clone())).collect()
        };
        let total: usize = need.iter().map(|(persons, _)| persons).sum();
        assert!(total >= 2, "one person is enough for {kind}");
        for (persons, of) in &need {
            let of: &BTreeSet<Role> = of;
            let have = roles.iter().filter(|role| of.contains(role)).count();
            assert!(have >= *persons, "{kind} began with {have} of {persons} ({of:?})");
        }
        let others = roster.iter().filter(|(name, (role, _))| {
            **name != tabled.statement.proposer && need.iter().any(|(_, of)| of.contains(role))
        });
        assert!(others.count() > total, "the loss of one would stop {kind}");
    }

    /// The ledger let this begin.
    pub fn began(&mut self, at: u64, hash: StatementHash, line: u64) {
        let tabled = &self.tabled[&hash];
        let statement = tabled.statement.clone();
        let kind = statement.motion.kind();
        assert!(!tabled.begun && !tabled.over, "{kind} began twice, or was withdrawn");
        let now = if let Motion::RaiseTimeFloor { to } = statement.motion { to } else { at };
        assert!(statement.not_before <= now && now <= statement.not_after, "outside its window");
        let proposer = self.roster.get(&statement.proposer).expect("the proposer is one still");
        assert_eq!(proposer.1, tabled.key, "the proposer's key");
        Self::count(&self.roster, &self.rules, self.recovery, tabled);
        if tabled.recovery {
            let delay = self.recovery.expect("a group").delay_s;
            assert!(at >= tabled.at + delay, "recovery does not wait");
            assert!(
                matches!(
                    kind,
                    MotionKind::ChangeOfficers | MotionKind::ChangeRules | MotionKind::NewOrigin
                ),
                "recovery carried {kind}"
            );
        }
        let uses_ksk = matches!(
            kind,
            MotionKind::GenerateKey | MotionKind::ActivateKey | MotionKind::RetireKey
        );
        if uses_ksk {
            assert!(!self.is_frozen(&"example.".parse().expect("zone")), "{kind} while frozen");
        }
        if uses_ksk || kind == MotionKind::Thaw {
            assert!(self.clock_is_good(at), "{kind} with a clock that is not believed");
        }
        self.take_effect(&statement, hash, line);
        self.tabled.get_mut(&hash).expect("proposed").begun = true;
        self.saw(at);
    }

    fn take_effect(&mut self, statement: &Statement, hash: StatementHash, line: u64) {
        match &statement.motion {
            Motion::ChangeOfficers { version, retire, enrol } => {
                assert_eq!(*version, self.versions.0 + 1);
                let mut roster = self.roster.clone();
                roster.retain(|name, _| !retire.contains(name));
                for (name, officer) in enrol {
                    let key = officer.keys.first().expect("a key").ssh.clone();
                    roster.insert(name.clone(), (officer.role, key));
                }
                Self::count(&roster, &self.rules, self.recovery, &self.tabled[&hash]);
                let keys: BTreeSet<&SshKey> = roster.values().map(|(_, key)| key).collect();
                assert_eq!(keys.len(), roster.len(), "two persons with one key");
                (self.roster, self.versions.0) = (roster, *version);
            }
            Motion::ChangeRules { version, rules, recovery } => {
                assert_eq!(*version, self.versions.1 + 1);
                Self::count(&self.roster, rules, *recovery, &self.tabled[&hash]);
                (self.rules, self.recovery) = (rules.clone(), *recovery);
                self.versions.1 = *version;
            }
            Motion::GenerateKey { zones, activate, .. } => {
                let left = (zones.clone(), *activate, statement.finish_by);
                self.generations.insert(line, left);
            }
            Motion::ActivateKey { key, .. } => {
                self.active.insert(*key);
            }
            Motion::RetireKey { key, .. } => {
                self.active.remove(key);
            }
            Motion::MoveAppliance { from, to } => {
                assert_eq!(self.holder, *from, "moved from a box that does not hold it");
                self.holder = *to;
            }
            Motion::RaiseTimeFloor { to } => self.floor = self.floor.max(*to),
            Motion::Thaw { scope } => {
                assert!(self.frozen.remove(scope), "nothing was frozen");
            }
            _ => {}
        }
    }

    /// Whether what began at that line makes keys that are active at once.
    pub fn activates(&self, line: u64) -> bool {
        self.generations.get(&line).is_some_and(|(_, activate, _)| *activate)
    }

    /// The ledger let the HSM be asked for this.
    pub fn intended(&mut self, at: u64, operation: &Operation, under: u64) {
        let zone = operation.zone().clone();
        match operation {
            Operation::Generate { role: KeyRole::Zsk, .. } => {}
            Operation::Generate { .. } => {
                assert!(self.clock_is_good(at) && !self.is_frozen(&zone));
                let (left, _, finish_by) = self.generations.get_mut(&under).expect("a quorum");
                assert!(left.remove(&zone), "a key that no quorum wants");
                assert!(at <= *finish_by, "after its finish-by");
            }
            Operation::SignDnskey { signer, .. } => {
                assert!(self.clock_is_good(at) && !self.is_frozen(&zone));
                assert!(self.active.contains(signer), "signed by a key that nobody activated");
            }
            other => panic!("nobody asks for {other:?}"),
        }
        self.saw(at);
    }

    /// A key was made, in the open or not.
    pub fn made(&mut self, key: KeyId, role: KeyRole, told: bool) {
        if role == KeyRole::Ksk {
            self.ksks_made += 1;
            if told {
                self.active.insert(key);
            }
        }
    }
}
