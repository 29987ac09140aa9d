//! A keeper to be tested: its files, its tokens, its process; and items to be signed.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use countersign_hsm::client::{Client, ClientError, DnskeyOrder, LedgerClient};
use countersign_hsm::protocol::{KeyInfo, Refusal, ZoneKeys};
use countersign_policy::ledger::{Entry, Line};
use countersign_policy::{KeyRole, ZoneName};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Only a failing test waits this long.
pub const PATIENCE: Duration = Duration::from_secs(60);

const PIN: &str = "1234-of-a-test";
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// The files of a keeper, with two tokens of their own.
pub struct Site {
    dir: TempDir,
}

impl Site {
    pub fn new() -> Self {
        assert!(Path::new(MODULE).exists(), "{MODULE} is missing: apt-get install softhsm2");
        let site = Self { dir: tempfile::tempdir().expect("directory") };
        let tokens = site.path("tokens");
        std::fs::create_dir(&tokens).expect("tokens");
        let conf = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        std::fs::write(site.path("softhsm2.conf"), conf).expect("conf");
        let serials = ["ksk", "zsk"].map(|label| site.make_token(label));
        site.write("pin", PIN);
        site.write_config(nix::unistd::Uid::effective().as_raw());
        site.write("founding.toml", &founding(&serials));
        site
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
    pub fn write_config(&self, daemon_uid: u32) {
        let show = |name: &str| self.path(name).display().to_string();
        let gid = nix::unistd::Gid::effective();
        let text = format!(
            r#"version = 1
[keeper]
state_dir = "{}"
socket = "{}"
ledger_socket = "{}"
daemon_user = {daemon_uid}
group = {gid}
founding = "{}"
[module.softhsm]
path = "{MODULE}"
[token.ksk-a]
module = "softhsm"
pin_file = "{pin}"
[token.zsk-a]
module = "softhsm"
pin_file = "{pin}"
"#,
            show("state"),
            show("keeper.sock"),
            show("ledger.sock"),
            show("founding.toml"),
            pin = show("pin"),
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
            Entry::LabFounding { .. } => "founding",
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

fn founding([ksk, zsk]: &[String; 2]) -> String {
    format!(
        r#"appliance = "lab-1"
[token.ksk-a]
label = "ksk"
serial = "{ksk}"
group = "ksk"
[token.zsk-a]
label = "zsk"
serial = "{zsk}"
group = "zsk"
[policy.default]
algorithm = 13
keys = "ksk-zsk"
ksk_group = "ksk"
zsk_group = "zsk"
denial = "nsec3"
serial = "unixtime"
dnskey_ttl_s = 3600
ttl_max_s = 86400
validity_s = 1209600
refresh_s = 604800
inception_offset_s = 3600
[policy.single]
algorithm = 15
keys = "csk"
ksk_group = "ksk"
denial = "nsec"
serial = "keep"
dnskey_ttl_s = 60
ttl_max_s = 3600
validity_s = 86400
refresh_s = 43200
inception_offset_s = 60
[zone."example."]
policy = "default"
[zone."child.example."]
policy = "single"
"#
    )
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
