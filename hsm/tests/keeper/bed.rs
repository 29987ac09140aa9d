//! A keeper to be tested: its files, its tokens, its process; and items to be signed.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use countersign_hsm::client::{Client, ClientError, DnskeyOrder, LedgerClient};
use countersign_hsm::protocol::{KeyInfo, Refusal, Submission, ZoneKeys};
use countersign_policy::founding::{ForeignKey, Founding, TokenIdentity, hash_of};
use countersign_policy::ledger::{Entry, LedgerState, Line};
use countersign_policy::motion::Motion;
use countersign_policy::state::Status;
use countersign_policy::statement::{Statement, Verb};
use countersign_policy::tree::Hash;
use countersign_policy::{KeyRole, ZoneName};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::council::{self, Council};

/// Only a failing test waits this long.
pub const PATIENCE: Duration = Duration::from_secs(60);

const PIN: &str = "1234-of-a-test";
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// The files of a keeper, with two tokens of their own, and its people.
pub struct Site {
    dir: TempDir,
    serials: [String; 2],
    pub council: Council,
}

impl Site {
    pub fn new() -> Self {
        assert!(Path::new(MODULE).exists(), "{MODULE} is missing: apt-get install softhsm2");
        let mut site = Self {
            dir: tempfile::tempdir().expect("directory"),
            serials: [String::new(), String::new()],
            council: Council::new(),
        };
        let tokens = site.path("tokens");
        std::fs::create_dir(&tokens).expect("tokens");
        let conf = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        std::fs::write(site.path("softhsm2.conf"), conf).expect("conf");
        site.serials = ["ksk", "zsk"].map(|label| site.make_token(label));
        site.write("pin", PIN);
        site.write_config(nix::unistd::Uid::effective().as_raw(), None);
        site
    }

    /// One that was founded.
    pub fn founded() -> Self {
        let site = Self::new();
        site.found();
        site
    }

    /// Founds it.
    pub fn found(&self) {
        let mut keeper = self.start();
        let text = self.draft(&keeper).to_text();
        self.pin(&text);
        let signatures = self.council.found(&text).into_iter().collect();
        let hash = keeper.ledger_client().found(text.clone(), signatures).expect("founded");
        assert_eq!(hash, hash_of(&text));
        assert_eq!(keeper.ended().code(), Some(5));
    }

    /// One that was founded, with both zones bound and their KSK and CSK active; and its keeper.
    pub fn signing(&self) -> Keeper<'_> {
        let keeper = self.start();
        keeper.carry(council::set_policy("default", 1, council::policy()));
        keeper.carry(council::set_policy("single", 1, council::single()));
        keeper.carry(council::bind(&zone(), "default"));
        keeper.carry(council::bind(&child(), "single"));
        keeper.carry(council::generate(&zone(), KeyRole::Ksk, true));
        keeper.carry(council::generate(&child(), KeyRole::Csk, true));
        keeper
    }

    /// What the founders of this site would sign, after a survey.
    pub fn draft(&self, keeper: &Keeper<'_>) -> Founding {
        let survey = until("the survey", || {
            let survey = keeper.ledger_client().survey().map_err(|e| e.to_string())?;
            match survey.tokens.iter().find_map(|token| token.problem.clone()) {
                Some(problem) => Err(problem),
                None => Ok(survey),
            }
        });
        let tokens = survey.tokens.iter().map(|token| {
            let identity = TokenIdentity {
                label: token.label.clone(),
                serial: token.serial.clone(),
                group: token.label.clone(),
                data_objects: token.data_objects,
            };
            (token.name.clone(), identity)
        });
        let foreign = survey.tokens.iter().flat_map(|token| {
            token.keys.iter().map(|key| ForeignKey {
                token: token.name.clone(),
                label: key.label.clone(),
                id: key.id.clone(),
            })
        });
        let audit = survey.audit.clone().expect("an audit key");
        let time = u64::from(now());
        self.council.founding(tokens.collect(), foreign.collect(), audit, time)
    }

    /// The serial number of the KSK token (0) or the ZSK token (1).
    pub fn serial(&self, which: usize) -> &str {
        &self.serials[which]
    }

    /// The founding's hash.
    pub fn hash(&self) -> Hash {
        let Entry::Founded { text, .. } = &self.ledger()[0].entry else { panic!("not founded") };
        hash_of(text)
    }

    /// A file with that content; its path.
    pub fn file(&self, name: &str, content: &str) -> String {
        self.write(name, content);
        self.path(name).display().to_string()
    }

    /// Has another tool write or delete the token's founding mark.
    pub fn data_object(&self, token_label: &str, action: &[&str]) {
        let done = Command::new("pkcs11-tool")
            .args(["--module", MODULE, "--token-label", token_label, "--login", "--pin", PIN])
            .args(["--type", "data", "--private", "--label", "countersign-founding"])
            .args(["--application-label", "countersign"])
            .args(action)
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
            .output()
            .expect("pkcs11-tool is missing: apt-get install opensc");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Root pins the founding of that text.
    pub fn pin(&self, text: &str) {
        let pin = hash_of(text).to_string();
        self.write_config(nix::unistd::Uid::effective().as_raw(), Some(&pin));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.path(name), text).expect("written");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(name), mode).expect("mode");
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect(name)
    }

    /// The configuration, for a daemon of this user.
    pub fn write_config(&self, daemon_uid: u32, founding: Option<&str>) {
        let show = |name: &str| self.path(name).display().to_string();
        let gid = nix::unistd::Gid::effective();
        let pin = founding.map_or(String::new(), |hash| format!("founding = \"{hash}\""));
        let [ksk, zsk] = &self.serials;
        let text = format!(
            r#"version = 1
[keeper]
state_dir = "{}"
socket = "{}"
ledger_socket = "{}"
daemon_user = {daemon_uid}
group = {gid}
audit_token = "ksk-a"
{pin}
[module.softhsm]
path = "{MODULE}"
[token.ksk-a]
label = "ksk"
serial = "{ksk}"
module = "softhsm"
pin_file = "{pin_file}"
[token.zsk-a]
label = "zsk"
serial = "{zsk}"
module = "softhsm"
pin_file = "{pin_file}"
"#,
            show("state"),
            show("keeper.sock"),
            show("ledger.sock"),
            pin_file = show("pin"),
        );
        self.write("keeper.toml", &text);
    }

    fn make_token(&self, label: &str) -> String {
        let util = |args: &[&str]| {
            let done = Command::new("softhsm2-util")
                .args(args)
                .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
                .output()
                .expect("softhsm2-util is missing: apt-get install softhsm2");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            String::from_utf8_lossy(&done.stdout).into_owned()
        };
        let init = ["--init-token", "--free", "--label", label, "--so-pin", "so-pin-of-a-test"];
        util(&[&init[..], &["--pin", PIN]].concat());
        let shown = util(&["--show-slots"]);
        let mut serial = "";
        for line in shown.lines().map(str::trim) {
            if let Some(found) = line.strip_prefix("Serial number:") {
                serial = found.trim();
            }
            if line.strip_prefix("Label:").is_some_and(|found| found.trim() == label) {
                return serial.to_owned();
            }
        }
        panic!("token {label} is not there: {shown}");
    }

    pub fn start(&self) -> Keeper<'_> {
        let log = std::fs::File::create(self.path("keeper.log")).expect("log");
        let child = Command::new(env!("CARGO_BIN_EXE_countersign-keeper"))
            .arg("--config")
            .arg(self.path("keeper.toml"))
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the keeper starts");
        Keeper { child, site: self }
    }

    /// Starts a keeper that is to refuse; its exit status and log.
    pub fn start_refused(&self) -> (i32, String) {
        let mut keeper = self.start();
        let status = keeper.ended();
        (status.code().expect("an exit"), self.read("keeper.log"))
    }

    pub fn ledger(&self) -> Vec<Line> {
        let text = self.read("state/ledger.jsonl");
        let line = |(seq, line): (usize, &str)| {
            Line::from_canonical(seq as u64, line.as_bytes()).expect("canonical")
        };
        text.lines().enumerate().map(line).collect()
    }

    /// Whole lines in the ledger of a keeper that may be writing.
    pub fn lines_so_far(&self) -> usize {
        let text = std::fs::read(self.path("state/ledger.jsonl")).unwrap_or_default();
        text.split(|octet| *octet == b'\n').count() - 1
    }

    /// The kinds of the ledger's lines, in order.
    pub fn kinds(&self) -> Vec<&'static str> {
        let kind = |line: &Line| match &line.entry {
            Entry::Founded { .. } => "founded",
            Entry::Proposed { .. } => "proposed",
            Entry::Verdict { .. } => "verdict",
            Entry::Withdrawn { .. } => "withdrawn",
            Entry::Frozen { .. } => "frozen",
            Entry::Begun { .. } => "begun",
            Entry::Lapsed { .. } => "lapsed",
            Entry::DsExported { .. } => "ds-exported",
            Entry::TokenMarked { .. } => "token-marked",
            Entry::InstanceClaimed { .. } => "instance-claimed",
            Entry::Started { .. } => "started",
            Entry::Intent { .. } => "intent",
            Entry::Outcome { .. } => "outcome",
            Entry::KeyConflict { .. } => "conflict",
            Entry::KeyCleared { .. } => "cleared",
            Entry::ZoneSigned { .. } => "zone-signed",
        };
        self.ledger().iter().map(kind).collect()
    }
}

/// A keeper that runs; it is killed when it is dropped.
pub struct Keeper<'a> {
    child: Child,
    site: &'a Site,
}

impl Drop for Keeper<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Keeper<'_> {
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().expect("pid"));
        kill(pid, signal).expect("signalled");
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        until("the keeper ends", || {
            self.child.try_wait().expect("child").ok_or_else(|| self.site.read("keeper.log"))
        })
    }

    pub fn client(&self) -> Client {
        Client::new(self.site.path("keeper.sock"), Duration::from_secs(20))
    }

    /// A client of a keeper that has made all keys of both zones.
    pub fn ready(&self) -> Client {
        let client = self.client();
        for zone in [zone(), child()] {
            until("the zone's keys are there", || {
                let log = |e: ClientError| format!("{e}\n{}", self.site.read("keeper.log"));
                let keys = client.zone(&zone).map_err(log)?;
                let proven = keys.keys.iter().all(|key| !key.proven_by.is_empty());
                if proven { Ok(()) } else { Err(format!("{keys:?}")) }
            });
        }
        client
    }

    pub fn ledger_client(&self) -> LedgerClient {
        until("the ledger's socket", || {
            LedgerClient::connect(&self.site.path("ledger.sock"), Duration::from_secs(10))
                .map_err(|e| e.to_string())
        })
    }

    /// The state of its ledger, folded here.
    pub fn state(&self) -> LedgerState {
        let mut client = self.ledger_client();
        let mut state = LedgerState::default();
        let (size, _) = client.head().expect("head");
        while state.next_seq() < size {
            for octets in client.read(state.next_seq(), 1_000).expect("lines") {
                let line = Line::from_canonical(state.next_seq(), &octets).expect("canonical");
                state.apply(&line).expect("a line that holds");
            }
        }
        state
    }

    /// Hands in a text.
    pub fn submit(&self, submission: Submission) -> Result<u64, ClientError> {
        self.ledger_client().submit(submission)
    }

    /// Oscar proposes it; the statement.
    pub fn propose(&self, motion: Motion) -> Statement {
        let (state, oscar) = (self.state(), &self.site.council.oscar);
        let now = u64::from(now());
        let statement = council::statement(&state, oscar, motion, now, council::nonce());
        self.submit(council::propose(&statement, oscar)).expect("proposed");
        statement
    }

    /// Kim and kate approve it.
    pub fn approve(&self, statement: &Statement) {
        let council = &self.site.council;
        for officer in [&council.kim, &council.kate] {
            let approval = council::vote(&self.state(), statement, Verb::Approve, officer);
            self.submit(approval).expect("approved");
        }
    }

    /// Proposes it, has it approved, and waits until all of it is done.
    pub fn carry(&self, motion: Motion) -> Statement {
        let statement = self.propose(motion);
        self.approve(&statement);
        self.until_done(&statement);
        statement
    }

    /// Waits until what was approved is done.
    pub fn until_done(&self, statement: &Statement) {
        until("the motion is done", || match self.state().status(&statement.hash()) {
            Some(Status::Begun { done: true, .. }) => Ok(()),
            other => Err(format!("{other:?}\n{}", self.log())),
        });
    }

    pub fn log(&self) -> String {
        let mut text = String::new();
        let mut file = std::fs::File::open(self.site.path("keeper.log")).expect("log");
        file.read_to_string(&mut text).expect("log");
        text
    }
}

/// Waits for a condition.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(value) => return value,
            Err(last) if Instant::now() > give_up => panic!("{what}: {last}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

pub fn zone() -> ZoneName {
    "example.".parse().expect("name")
}

pub fn child() -> ZoneName {
    "child.example.".parse().expect("name")
}

pub fn now() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "a test plays the daemon, which has a clock")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs() as u32
}

/// A to-be-signed item, to be changed as a test likes.
#[derive(Clone)]
pub struct Item {
    pub covered: u16,
    pub algorithm: u8,
    pub labels: u8,
    pub ttl_s: u32,
    pub inception: u32,
    pub expiration: u32,
    pub tag: u16,
    pub signer: Vec<u8>,
    pub owner: Vec<u8>,
    pub rtype: u16,
    pub rdatas: Vec<Vec<u8>>,
}

impl Item {
    /// An A RRset at www.example., by this key.
    pub fn of(key: &KeyInfo) -> Self {
        Self {
            covered: 1,
            algorithm: key.public.algorithm().number(),
            labels: 2,
            ttl_s: 300,
            inception: now() - 3600,
            expiration: now() + 86_400 * 14 - 60,
            tag: key.public.tag(key.role.flags()),
            signer: zone().as_wire().to_vec(),
            owner: b"\x03www\x07example\0".to_vec(),
            rtype: 1,
            rdatas: vec![vec![192, 0, 2, 1], vec![192, 0, 2, 2]],
        }
    }

    pub fn octets(&self) -> Vec<u8> {
        let mut tbs = self.covered.to_be_bytes().to_vec();
        tbs.extend([self.algorithm, self.labels]);
        tbs.extend(self.ttl_s.to_be_bytes());
        tbs.extend(self.expiration.to_be_bytes());
        tbs.extend(self.inception.to_be_bytes());
        tbs.extend(self.tag.to_be_bytes());
        tbs.extend(&self.signer);
        for rdata in &self.rdatas {
            tbs.extend(&self.owner);
            tbs.extend(self.rtype.to_be_bytes());
            tbs.extend(1_u16.to_be_bytes());
            tbs.extend(self.ttl_s.to_be_bytes());
            tbs.extend((rdata.len() as u16).to_be_bytes());
            tbs.extend(rdata);
        }
        tbs
    }
}

/// The key of a role.
pub fn key_of(keys: &ZoneKeys, role: KeyRole) -> KeyInfo {
    keys.keys.iter().find(|key| key.role == role).expect("a key of the role").clone()
}

/// The DNSKEY RRset that the zone should have, signed by its KSK or CSK.
pub fn order(keys: &ZoneKeys) -> DnskeyOrder {
    let signer = keys.keys.iter().find(|key| key.role.signs_dnskey()).expect("a KSK or CSK");
    DnskeyOrder {
        keys: keys.keys.iter().map(|key| key.public.id()).collect(),
        signer: signer.public.id(),
        ttl_s: keys.policy.dnskey_ttl_s,
        inception: now() - keys.policy.inception_offset_s,
        expiration: now() + keys.policy.validity_s - 60,
    }
}

/// What a refused request was told.
pub fn refusal<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> Refusal {
    match answer {
        Err(ClientError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}
