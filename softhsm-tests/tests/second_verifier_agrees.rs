//! What a bundle proves does not rest on the product's word: a script that shares no code with it says
//! the same of a ledger in which much has happened, and of each of a set of forgeries.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use softhsm_tests::chain::{Chain, Plan};
use softhsm_tests::files::places;
use softhsm_tests::pki::Authority;
use softhsm_tests::scratch::write;
use softhsm_tests::story;
use softhsm_tests::users::User;
use softhsm_tests::wait::{SOON, until};
use softhsm_tests::zones::ZONE;

/// A bundle, taken apart.
#[derive(Clone)]
struct Bundle {
    note: String,
    lines: Vec<Value>,
}

impl Bundle {
    fn read(text: &str) -> Result<Self> {
        let (head, rest) = text.split_once('\n').context("a first line")?;
        let bytes: usize = head.split(' ').nth(3).context("a length")?.parse()?;
        let (note, lines) = rest.split_at(bytes);
        let lines = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok(Self { note: note.to_owned(), lines })
    }

    /// As a careful forger would write it: every line at its place and in canonical form.
    fn write(&self) -> String {
        let (bytes, count) = (self.note.len(), self.lines.len());
        let mut text = format!("countersign bundle v1 {bytes} {count}\n{}", self.note);
        for (seq, line) in self.lines.iter().enumerate() {
            let mut line = line.clone();
            line["seq"] = json!(seq.to_string());
            text.push_str(&line.to_string());
            text.push('\n');
        }
        text
    }
}

/// A text field of a line, edited.
fn edit(lines: &mut [Value], kind: &str, nth: usize, field: &str, change: &dyn Fn(&str) -> String) {
    if let Some(at) = places(lines, kind).get(nth)
        && let Some(text) = lines[*at]["entry"][field].as_str()
    {
        lines[*at]["entry"][field] = json!(change(text));
    }
}

/// One octet of a base64 text, in its middle.
fn other_octet(text: &str) -> String {
    let middle = text.len() / 2;
    let other = if text.as_bytes()[middle] == b'A' { "B" } else { "A" };
    format!("{}{other}{}", &text[..middle], &text[middle + 1..])
}

type Forgery = (&'static str, fn(&mut Bundle));

const FORGERIES: [Forgery; 20] = [
    ("an octet of the founding's text", |b| {
        edit(&mut b.lines, "founded", 0, "text", &|text| text.replace("name: bed", "name: red"));
    }),
    ("a founder's signature by another", |b| {
        let kay = b.lines[0]["entry"]["signatures"]["kay"].clone();
        b.lines[0]["entry"]["signatures"]["kim"] = kay;
    }),
    ("a founder missing", |b| {
        if let Some(signatures) = b.lines[0]["entry"]["signatures"].as_object_mut() {
            signatures.remove("op");
        }
    }),
    ("an octet of a proposal's signature", |b| {
        edit(&mut b.lines, "proposed", 1, "signature", &other_octet);
    }),
    ("a word of a proposal", |b| {
        edit(&mut b.lines, "proposed", 2, "statement", &|text| {
            text.replace("example.", "examplf.")
        });
    }),
    ("a proposer of another name", |b| {
        edit(&mut b.lines, "proposed", 2, "statement", &|text| {
            text.replace("proposer: op", "proposer: kim")
        });
    }),
    ("an octet of an approval's signature", |b| {
        edit(&mut b.lines, "verdict", 3, "signature", &other_octet);
    }),
    ("an approval for a denial", |b| {
        edit(&mut b.lines, "verdict", 0, "verb", &|_| "deny".to_owned());
    }),
    ("an approval by who did not give it", |b| {
        edit(&mut b.lines, "verdict", 1, "officer", &|_| "kurt".to_owned());
    }),
    ("an approval missing", |b| {
        // The last but one, so that no later text names a tree that has it.
        if let Some(at) = places(&b.lines, "verdict").last() {
            b.lines.remove(*at);
        }
    }),
    ("a motion that begins again", |b| {
        if let Some(at) = places(&b.lines, "begun").last() {
            let again = b.lines[*at].clone();
            b.lines.push(again);
        }
    }),
    ("a freeze by another", |b| {
        edit(&mut b.lines, "frozen", 0, "text", &|text| {
            text.replace("officer: audrey", "officer: pat")
        });
    }),
    ("a freeze missing", |b| {
        if let Some(at) = places(&b.lines, "frozen").first() {
            b.lines.remove(*at);
        }
    }),
    ("a withdrawal's octet", |b| edit(&mut b.lines, "withdrawn", 0, "signature", &other_octet)),
    ("lines that changed places", |b| {
        let at = b.lines.len() / 2;
        b.lines.swap(at, at + 1);
    }),
    ("a line that nobody signs", |b| {
        edit(&mut b.lines, "started", 0, "binary", &|text| text.replace(['0', '1', '2', '3'], "f"));
    }),
    ("another box in the claim", |b| {
        edit(&mut b.lines, "instance-claimed", 0, "instance", &|text| {
            text.replace(['0', '1', '2', '3'], "f")
        });
    }),
    ("a second claim", |b| {
        if let Some(at) = places(&b.lines, "instance-claimed").first() {
            let again = b.lines[*at].clone();
            b.lines.push(again);
        }
    }),
    ("the end cut off", |b| b.lines.truncate(b.lines.len() - 3)),
    ("an octet of the seal", |b| b.note = seal_edited(&b.note)),
];

/// One octet of the last line's signature.
fn seal_edited(note: &str) -> String {
    let at = note.rfind(' ').unwrap_or_default() + 1;
    let seal = note[at..].trim_end();
    format!("{}{}\n", &note[..at], other_octet(seal))
}

/// Everything that a person can do with a ledger, once.
fn be_busy(chain: &mut Chain<'_>) -> Result<()> {
    let another = ["generate-key", "--zone", ZONE, "--role", "ksk"];
    chain.officers.meet("carol", "key-officer", &["ed25519"])?;
    let officers = &chain.officers;
    let carol = officers.person("carol")?.key.with_extension("pub").display().to_string();
    let carol = format!("carol={carol}");
    let enrol = ["change-officers", "--enrol", "carol=key-officer", "--key", &carol];
    officers.carry(&chain.keeper, &enrol)?;
    let rule = "export-ds=2 key-officer + 1 policy-officer";
    officers.carry(&chain.keeper, &["change-rules", "--rule", rule])?;
    let export = officers.propose("op", &["export-ds", "--zone", ZONE])?;
    officers.approve(&["kay", "carol", "pat"], &export)?;
    until("the export", SOON, || chain.keeper.is_done(&export))?;
    officers.ok("op", &["ds", "export", ZONE])?;
    let denied = officers.propose("op", &another)?;
    officers.approve(&["kay"], &denied)?;
    for who in ["kim", "kurt", "carol"] {
        officers.ok(who, &["deny", &denied])?;
    }
    let withdrawn = officers.propose("op", &another)?;
    officers.approve(&["kay"], &withdrawn)?;
    officers.ok("op", &["proposal", "withdraw", &withdrawn])?;
    officers.ok("audrey", &["freeze", "--reason", "a 100% exercise, no more"])?;
    officers.carry(&chain.keeper, &["thaw"])?;
    officers.carry(&chain.keeper, &["change-officers", "--retire", "kurt"])?;
    officers.carry(&chain.keeper, &another).map(drop)
}

#[test]
fn second_verifier_agrees() {
    story(|scratch| {
        let mut chain = Chain::prepare(scratch, Plan::default(), Authority::new(scratch, "ca")?)?;
        chain.found()?;
        be_busy(&mut chain)?;
        let officers = &chain.officers;
        let bundle = officers.export_bundle("busy.bundle")?;
        let ours = officers.audit_verify(&bundle)?;
        ensure!(ours.status.success(), "the product: {ours:?}");
        for word in ["carol", "kurt", "export-ds", "freeze"] {
            ensure!(ours.stdout.contains(word), "no {word} on the page:\n{}", ours.stdout);
        }
        let others = officers.second_verifier(&bundle)?;
        ensure!(others.status.success(), "the second verifier: {others:?}");

        let whole = Bundle::read(&std::fs::read_to_string(&bundle)?)?;
        let rewritten = officers.dir().join("rewritten.bundle");
        write(&rewritten, &whole.write(), User::Harness, 0o644)?;
        ensure!(std::fs::read(&bundle)? == std::fs::read(&rewritten)?, "it is not read as it is");
        for (what, forge) in FORGERIES {
            let mut forged = whole.clone();
            forge(&mut forged);
            ensure!(forged.write() != whole.write(), "{what}: nothing was forged");
            let path = officers.dir().join("forged.bundle");
            write(&path, &forged.write(), User::Harness, 0o644)?;
            let ours = officers.audit_verify(&path)?;
            let no = ours.status.code() == Some(5) && !ours.stderr.is_empty();
            ensure!(no, "the product on {what}: {ours:?}");
            let others = officers.second_verifier(&path)?;
            ensure!(others.status.code() == Some(1), "the second verifier on {what}: {others:?}");
            eprintln!("{what}\n  {}  {}", ours.stderr, others.stderr);
        }
        // Another appliance's founding is not this one's, however whole the bundle.
        chain.officers.founding = Some("5a".repeat(32));
        ensure!(chain.officers.audit_verify(&bundle)?.status.code() == Some(5));
        ensure!(chain.officers.second_verifier(&bundle)?.status.code() == Some(1));
        Ok(())
    });
}
