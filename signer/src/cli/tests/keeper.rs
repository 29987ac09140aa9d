//! A keeper for tests: a [`World`] behind a socket. It judges by the fold, begins what has its quorum,
//! and seals with the world's audit key; there is no HSM.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use countersign_hsm::frame;
use countersign_hsm::protocol::{
    DsExport, LedgerRequest, LedgerResponse, Mode, PROTOCOL_VERSION, Refusal, RefusalKind,
    Submission, Survey, SurveyedToken,
};
use countersign_policy::checkpoint;
use countersign_policy::ledger::{Entry, Line};
use countersign_policy::officer::PersonName;
use countersign_policy::ssh::Signature;
use countersign_policy::state::LedgerState;
use countersign_policy::statement::{Freeze, Statement, Verdict, Withdrawal};
use countersign_policy::testing::{NOW, World, audit_key};
use countersign_policy::tree::{Hash, TreeHead};
use data_encoding::BASE64;

/// Lines in one answer: few, so that a ledger comes in several.
const LINES_AT_ONCE: usize = 4;

/// What the keeper has.
pub(super) struct Kept {
    pub(super) world: Option<World>,
    /// A founding that was taken.
    pub(super) founded: Option<Hash>,
    /// The hash that root has pinned.
    pub(super) pinned: Option<Hash>,
    /// Changes what an export hands out.
    pub(super) twist: fn(&mut DsExport),
    /// Changes the lines of an answer.
    pub(super) lie: fn(&mut Vec<Vec<u8>>),
}

pub(super) struct TestKeeper {
    pub(super) socket: PathBuf,
    kept: Arc<Mutex<Kept>>,
}

impl TestKeeper {
    pub(super) fn start(folder: &Path, world: Option<World>) -> Self {
        let socket = folder.join("ledger.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let kept = Kept { world, founded: None, pinned: None, twist: |_| {}, lie: |_| {} };
        let kept = Arc::new(Mutex::new(kept));
        let serving = Arc::clone(&kept);
        // It ends with the process: nothing waits for it.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&serving);
                std::thread::spawn(move || serve(stream, &kept));
            }
        });
        Self { socket, kept }
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no panic in the keeper")
    }

    pub(super) fn founding(&self) -> Hash {
        let kept = self.kept();
        kept.world.as_ref().and_then(|world| world.state.appliance()).unwrap_or(Hash([0; 32]))
    }

    pub(super) fn lines(&self) -> usize {
        self.kept().world.as_ref().map_or(0, |world| world.lines.len())
    }

    /// Shows only the first lines from now on, as if the rest had never been.
    pub(super) fn roll_back(&self, lines: usize) {
        let mut kept = self.kept();
        let world = kept.world.as_mut().expect("founded");
        world.lines.truncate(lines);
        world.state = World::fold(&world.lines).expect("a prefix folds");
    }
}

fn serve(mut stream: UnixStream, kept: &Mutex<Kept>) {
    let mut body = Vec::new();
    while frame::read(&mut stream, &mut body).is_ok_and(|more| more) {
        let (id, request) = frame::decode(&body).expect("a request");
        let answer = answer(request, &mut kept.lock().expect("no panic"));
        let frame = frame::encode(id, &answer).expect("an answer");
        if stream.write_all(&frame).is_err() {
            return;
        }
    }
}

fn refused(kind: RefusalKind, detail: impl std::fmt::Display) -> LedgerResponse {
    LedgerResponse::Refused(Refusal { kind, detail: detail.to_string() })
}

fn answer(request: LedgerRequest, kept: &mut Kept) -> LedgerResponse {
    match (request, kept.world.as_mut()) {
        (LedgerRequest::Hello { .. }, world) => {
            let mode = if world.is_some() { Mode::Founded } else { Mode::Unfounded };
            LedgerResponse::Hello { protocol: PROTOCOL_VERSION, mode }
        }
        (LedgerRequest::Survey, _) => LedgerResponse::Survey(survey()),
        (LedgerRequest::Found { text, signatures }, None) => found(kept, text, signatures),
        (_, None) => LedgerResponse::Head { lines: 0, founding: None },
        (LedgerRequest::Head, Some(world)) => LedgerResponse::Head {
            lines: world.lines.len() as u64,
            founding: world.state.appliance(),
        },
        (LedgerRequest::Read { from, max, .. }, Some(world)) => {
            let lines = world.lines.iter().skip(from as usize);
            let lines = lines.take(LINES_AT_ONCE.min(max as usize)).map(Line::to_canonical);
            let mut lines = lines.collect();
            (kept.lie)(&mut lines);
            LedgerResponse::Lines { lines, cut: false }
        }
        (LedgerRequest::Submit(submission), Some(world)) => submit(world, submission),
        (LedgerRequest::Checkpoint, Some(world)) => {
            LedgerResponse::Checkpoint { note: note(&world.state) }
        }
        (LedgerRequest::ExportDs { zone }, Some(world)) => {
            let Some(grant) = world.state.ds_export(&zone, world.now).cloned() else {
                return refused(RefusalKind::Forbidden, "no quorum");
            };
            let line = world
                .add(Entry::DsExported { begun: grant.begun, zone: zone.clone() })
                .expect("an export");
            let keys = grant.keys.iter().map(|key| {
                let record = &world.state.keys()[key];
                (record.role, record.public.clone().expect("published"))
            });
            let statement = begun_text(world, grant.begun);
            let mut export =
                DsExport { zone, keys: keys.collect(), digests: grant.digests, line, statement };
            (kept.twist)(&mut export);
            LedgerResponse::Ds(export)
        }
        (LedgerRequest::Found { .. }, Some(_)) => refused(RefusalKind::Forbidden, "founded"),
    }
}

/// The text of the statement that began at a line.
fn begun_text(world: &World, begun: u64) -> String {
    let Entry::Begun { statement, .. } = &world.lines[begun as usize].entry else {
        panic!("line {begun} begins nothing");
    };
    let texts = world.lines.iter().filter_map(|line| match &line.entry {
        Entry::Proposed { statement, .. } => Some(statement.clone()),
        _ => None,
    });
    let of = |text: &String| Statement::parse(text).expect("a text").hash() == *statement;
    texts.into_iter().find(of).expect("it was proposed")
}

fn submit(world: &mut World, submission: Submission) -> LedgerResponse {
    let (entry, about) = match submission {
        Submission::Propose { text, signature } => {
            (Entry::Proposed { statement: text, signature }, None)
        }
        Submission::Verdict { text, signature } => {
            let verdict = Verdict::parse(&text).expect("a verdict");
            let statement = verdict.statement.hash();
            let Verdict { verb, officer, checkpoint, .. } = verdict;
            (Entry::Verdict { statement, verb, officer, checkpoint, signature }, Some(statement))
        }
        Submission::Withdraw { text, signature } => {
            let statement = Withdrawal::parse(&text).expect("a withdrawal").statement;
            (Entry::Withdrawn { statement, signature }, None)
        }
        Submission::Freeze { text, signature } => {
            Freeze::parse(&text).expect("a freeze");
            (Entry::Frozen { text, signature }, None)
        }
    };
    match world.add(entry) {
        Ok(line) => {
            if let Some(hash) = about.filter(|hash| world.state.quorum(hash, world.now).is_ok()) {
                world.begin(hash).expect("a quorum begins");
            }
            LedgerResponse::Submitted { line }
        }
        Err(error) => refused(RefusalKind::Forbidden, error),
    }
}

fn found(
    kept: &mut Kept,
    text: String,
    signatures: Vec<(PersonName, Signature)>,
) -> LedgerResponse {
    let hash = Hash::of(text.as_bytes());
    if kept.pinned != Some(hash) {
        return refused(RefusalKind::Forbidden, format!("{hash} is not pinned"));
    }
    let entry = Entry::Founded { text, signatures: signatures.into_iter().collect() };
    match LedgerState::default().apply(&Line { seq: 0, at: NOW + 60, entry }) {
        Ok(()) => {
            kept.founded = Some(hash);
            LedgerResponse::Founded { hash }
        }
        Err(error) => refused(RefusalKind::Forbidden, error),
    }
}

fn survey() -> Survey {
    let token = |name: &str| SurveyedToken {
        name: name.to_owned(),
        label: format!("{name} label"),
        serial: format!("serial-{name}"),
        manufacturer: "maker".to_owned(),
        model: "m\u{202e}odel".to_owned(),
        data_objects: true,
        marked: None,
        problem: None,
        keys: Vec::new(),
    };
    Survey {
        audit: Some(("ksk-a".to_owned(), audit_key("audit"))),
        tokens: vec![token("ksk-a"), token("zsk-a")],
    }
}

/// A checkpoint of a ledger by the audit key that [`World`] is founded with.
pub(super) fn note(state: &LedgerState) -> String {
    note_of(state.appliance().expect("founded"), &state.tree().head(), "audit")
}

/// A checkpoint by the audit key that is made from a text.
pub(super) fn note_of(founding: Hash, head: &TreeHead, key: &str) -> String {
    let pair = Ed25519KeyPair::from_seed_unchecked(&Hash::of(key.as_bytes()).0).expect("a seed");
    let origin = checkpoint::origin(&founding);
    let raw = pair.sign(checkpoint::body(&origin, head).as_bytes());
    let note = checkpoint::assemble(&origin, head, &audit_key(key), raw.as_ref());
    note.expect("a note").to_string()
}

/// The private key of one of [`World`]'s people, in OpenSSH's format (`PROTOCOL.key`) without a
/// passphrase.
pub(super) fn write_identity(path: &Path, person: &str) {
    fn field(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
    }
    if path.exists() {
        return;
    }
    let seed = Hash::of(person.as_bytes()).0;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed");
    let public = pair.public_key().as_ref();
    let blob = [field(b"ssh-ed25519"), field(public)].concat();
    let pair = field(&[&seed[..], public].concat());
    let mut inside = [&[7; 8][..], &blob, &pair, &field(b"")].concat();
    inside.extend((1..=8).take((8 - inside.len() % 8) % 8));
    let outside = [field(b"none"), field(b"none"), field(b""), vec![0, 0, 0, 1]].concat();
    let whole = [b"openssh-key-v1\0", &outside[..], &field(&blob), &field(&inside)].concat();
    let base64 = BASE64.encode(&whole);
    let lines: Vec<&str> = base64
        .as_bytes()
        .chunks(70)
        .map(|line| std::str::from_utf8(line).expect("ASCII"))
        .collect();
    let text = format!(
        "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
        lines.join("\n")
    );
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .expect("a key file");
    file.write_all(text.as_bytes()).expect("written");
}
