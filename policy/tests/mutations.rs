//! A statement, an approval, a freeze or a signature with anything about it changed is not taken:
//! about 20,000 tries, a million with `COUNTERSIGN_LONG=1`.
//!
//! Each try takes a line that the ledger would take, changes its text, a field, its signature, or the
//! octets of the line itself, and asks for judgement. What comes out the same is no try.

mod common;

use common::{Random, tries};
use countersign_policy::instance::InstanceId;
use countersign_policy::ledger::{Entry, Line};
use countersign_policy::motion::{Motion, Scope};
use countersign_policy::officer::PersonName;
use countersign_policy::ssh::{Namespace, Signature};
use countersign_policy::statement::{Freeze, Statement, StatementHash, Verb, Verdict};
use countersign_policy::testing::{World, zone};
use countersign_policy::tree::Hash;

/// A ledger, and lines that each could be its next.
struct Bench {
    world: World,
    good: Vec<Line>,
    /// Texts of the same kinds, to take lines from.
    texts: Vec<String>,
    /// True signatures by anyone over anything for anything.
    signatures: Vec<Signature>,
}

fn box_number(number: u8) -> InstanceId {
    InstanceId(Hash([number; 32]))
}

impl Bench {
    fn new() -> Self {
        let mut world = World::signing();
        let claimed = Entry::InstanceClaimed { instance: box_number(1) };
        world.add(claimed).expect("claimed");
        let key = world.make_ksk(false);
        let activate = world.propose("olga", Motion::ActivateKey { zone: zone(), key });
        let open = activate.expect("proposed");
        let thaw = {
            world.freeze("adam", Scope::All).expect("frozen");
            world.propose("olga", Motion::Thaw { scope: Scope::All }).expect("proposed")
        };
        world.approve("alice", open).expect("approved");
        let mut texts = Vec::new();
        let mut signatures = Vec::new();
        let mut entries = Vec::new();
        for motion in [
            Motion::GenerateKey {
                zones: [zone()].into(),
                role: countersign_policy::KeyRole::Ksk,
                activate: true,
            },
            Motion::BindZone {
                zones: ["a.example.", "b.example."].map(|z| z.parse().expect("zone")).into(),
                policy: "default".to_owned(),
            },
            Motion::MoveAppliance { from: box_number(1), to: box_number(2) },
        ] {
            let statement = world.statement("olga", motion);
            let text = statement.to_text();
            let signature = world.person("olga").sign(Namespace::Propose, &text);
            texts.push(text.clone());
            entries.push(Entry::Proposed { statement: text, signature });
        }
        for (officer, verb, hash) in [
            ("bob", Verb::Approve, open),
            ("bob", Verb::Deny, open),
            ("pat", Verb::Approve, thaw),
            ("alice", Verb::Deny, open),
        ] {
            let (verdict, entry) = world.verdict(officer, verb, hash);
            texts.push(verdict.to_text());
            entries.push(entry);
        }
        let freeze = world.freeze_text("carol", Scope::Zone(zone())).to_text();
        let signature = world.person("carol").sign(Namespace::Freeze, &freeze);
        texts.push(freeze.clone());
        entries.push(Entry::Frozen { text: freeze, signature });
        for person in world.people.values() {
            for text in &texts {
                let signs = Namespace::ALL.map(|namespace| person.sign(namespace, text));
                signatures.extend(signs);
            }
        }
        let (seq, at) = (world.state.next_seq(), world.now);
        let good: Vec<Line> = entries.into_iter().map(|entry| Line { seq, at, entry }).collect();
        for line in &good {
            world.state.follows(line).expect("good as it is");
        }
        Self { world, good, texts, signatures }
    }

    /// One change; `None` if nothing comes out that has the form of a line.
    fn mutant(&self, random: &mut Random) -> Option<(Line, String)> {
        let line = random.pick(&self.good);
        let mut changed = line.clone();
        let what = match random.below(4) {
            0 => self.change_text(random, &mut changed.entry)?,
            1 => self.change_signature(random, &mut changed.entry)?,
            2 => self.change_field(random, &mut changed.entry),
            _ => {
                let bytes = mutate(random, &line.to_canonical(), &self.good[0].to_canonical());
                changed = Line::from_canonical(line.seq, &bytes).ok()?;
                "octets of the line".to_owned()
            }
        };
        // One that became another good one is no mutant. (The line's time is the keeper's, and
        // nobody signs it.)
        let is_good = self.good.iter().any(|good| good.entry == changed.entry);
        (!is_good).then_some((changed, what))
    }

    fn change_text(&self, random: &mut Random, entry: &mut Entry) -> Option<String> {
        let (Entry::Proposed { statement: text, .. } | Entry::Frozen { text, .. }) = entry else {
            return None;
        };
        let other = random.pick(&self.texts).clone();
        let bytes = mutate(random, text.as_bytes(), other.as_bytes());
        *text = String::from_utf8(bytes).ok()?;
        Some(format!("text {text:?}"))
    }

    fn change_signature(&self, random: &mut Random, entry: &mut Entry) -> Option<String> {
        let (Entry::Proposed { signature, .. }
        | Entry::Verdict { signature, .. }
        | Entry::Frozen { signature, .. }) = entry
        else {
            return None;
        };
        let other = random.pick(&self.signatures);
        let new = if random.below(2) == 0 {
            other.clone()
        } else {
            Signature::from_blob(&mutate(random, signature.as_blob(), other.as_blob())).ok()?
        };
        *signature = new;
        Some("signature".to_owned())
    }

    fn change_field(&self, random: &mut Random, entry: &mut Entry) -> String {
        let people: Vec<PersonName> =
            self.world.people.values().map(|person| person.name.clone()).collect();
        let Entry::Verdict { statement, verb, officer, checkpoint, signature } = entry else {
            return "nothing".to_owned();
        };
        match random.below(5) {
            0 => *verb = if *verb == Verb::Approve { Verb::Deny } else { Verb::Approve },
            1 => *officer = random.pick(&people).clone(),
            2 => {
                let size = self.world.state.next_seq() - random.below(3) as u64;
                checkpoint.size = size;
                if random.below(2) == 0 {
                    checkpoint.root = self.world.state.tree().root_at(size).expect("a root");
                }
            }
            3 => {
                let open: Vec<StatementHash> =
                    self.world.state.proposals().map(|(hash, _)| *hash).collect();
                *statement = *random.pick(&open);
            }
            _ => {
                *officer = random.pick(&people).clone();
                *signature = random.pick(&self.signatures).clone();
            }
        }
        "a field".to_owned()
    }
}

/// Flips bits; swaps, doubles, drops or borrows lines; cuts; swaps two values.
fn mutate(random: &mut Random, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(2) {
        if bytes.is_empty() {
            return bytes;
        }
        let at = random.below(bytes.len());
        match random.below(8) {
            0..2 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, *random.pick(b" \n\t\r:0aA\xe2\x80")),
            4 => {
                bytes.remove(at);
            }
            5 => bytes[at] = *random.pick(other),
            _ => bytes = mutate_lines(random, &bytes, other),
        }
    }
    bytes
}

fn mutate_lines(random: &mut Random, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let split = |bytes: &[u8]| -> Vec<Vec<u8>> {
        bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    };
    let (mut lines, others) = (split(bytes), split(other));
    let (a, b) = (random.below(lines.len()), random.below(lines.len()));
    match random.below(5) {
        0 => lines.swap(a, b),
        1 => lines.insert(a, lines[b].clone()),
        2 => {
            lines.remove(a);
        }
        3 => lines[a].clone_from(random.pick(&others)),
        _ => {
            // The value of one field under the name of another.
            let value = |line: &[u8]| line.iter().position(|b| *b == b':').unwrap_or(0);
            let (cut_a, cut_b) = (value(&lines[a]), value(&lines[b]));
            lines[a] = [&lines[a][..cut_a], &lines[b][cut_b..]].concat();
        }
    }
    lines.concat()
}

#[test]
fn nothing_that_was_changed_is_taken() {
    const THREADS: u64 = 2;
    let bench = Bench::new();
    let each = tries(20_000, 1_000_000) / THREADS;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let bench = &bench;
            scope.spawn(move || {
                let mut random = Random(thread);
                let mut judged = 0;
                for _ in 0..each {
                    // Else it is no line at all: refused where it was read.
                    if let Some((line, what)) = bench.mutant(&mut random) {
                        let taken = bench.world.state.follows(&line);
                        assert!(taken.is_err(), "taken with another {what}: {line:?}");
                        judged += 1;
                    }
                }
                assert!(judged > each / 4, "only {judged} of {each} had the form of a line");
            });
        }
    });
}

/// Texts are read in one form: of what is accepted, the text is the one that was given.
#[test]
fn a_changed_text_that_parses_says_something_else() {
    let bench = Bench::new();
    let mut random = Random(7);
    let mut parsed = 0;
    for _ in 0..tries(20_000, 1_000_000) {
        let (text, other) = (random.pick(&bench.texts).clone(), random.pick(&bench.texts).clone());
        let bytes = mutate(&mut random, text.as_bytes(), other.as_bytes());
        let Ok(changed) = String::from_utf8(bytes) else { continue };
        let texts = [
            Statement::parse(&changed).map(|s| s.to_text()).ok(),
            Verdict::parse(&changed).map(|v| v.to_text()).ok(),
            Freeze::parse(&changed).map(|f| f.to_text()).ok(),
        ];
        for again in texts.into_iter().flatten() {
            assert_eq!(again, changed);
            parsed += 1;
        }
    }
    assert!(parsed > 100, "only {parsed} of them had the form of a text");
}
