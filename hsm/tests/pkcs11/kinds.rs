//! The kinds of token that the suite can run on, and how a store of each is made. Which one is named by
//! `COUNTERSIGN_TOKENS`: `softhsm` (the default), `kryoptic`, `nss` or `tpm2`.
//!
//! Most of the suite is about the keeper, and asks no more of a token than that it is one. What a kind of
//! token can't do is listed here ([`Kind::lacks`]), with the reason; a test that needs it says so first
//! ([`needs`]), and prints that it was not run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{PIN, until};

const SO_PIN: &str = "so-pin-of-a-test";

/// A kind of token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SoftHSM 2.
    SoftHsm,
    /// kryoptic, built by `softhsm-tests/kryoptic` with its own lock file.
    Kryoptic,
    /// NSS softokn.
    Nss,
    /// A software TPM (swtpm) behind libtpm2-pkcs11.
    Tpm2,
}

/// What a test may need of a token beside keys for P-256 that sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Keys for Ed25519.
    Ed25519,
    /// Keys that the keeper makes: the token shows that they are as they were asked for.
    Making,
    /// More than two or three keys.
    ManyKeys,
    /// A private key that may leave its token.
    Extractable,
    /// Data objects.
    Data,
    /// Data objects that are seen without a login.
    PublicData,
    /// Two tokens behind one module, told apart by their serial numbers.
    TwoTokens,
    /// Its files can be taken away and brought back while it is open.
    Unplug,
    /// Other people's tools can use it beside us.
    Tool,
}

impl Kind {
    /// The one that the suite runs on.
    pub fn here() -> Self {
        match std::env::var("COUNTERSIGN_TOKENS").as_deref() {
            Err(_) | Ok("" | "softhsm") => Self::SoftHsm,
            Ok("kryoptic") => Self::Kryoptic,
            Ok("nss") => Self::Nss,
            Ok("tpm2") => Self::Tpm2,
            Ok(other) => panic!("COUNTERSIGN_TOKENS: no kind of token is called {other}"),
        }
    }

    /// What it lacks, and why.
    pub fn lacks(self) -> &'static [(Need, &'static str)] {
        match self {
            Self::SoftHsm => &[],
            Self::Kryoptic => &[
                (Need::Ed25519, "no Ed25519 with the OpenSSL 3.0 of Debian 12; it takes 3.2"),
                (Need::Unplug, "its file stays open"),
            ],
            Self::Nss => &[
                (Need::Ed25519, "NSS 3.87 has no Ed25519"),
                (
                    Need::Making,
                    "CKA_LOCAL of a key that it made is false: it does not show that it did",
                ),
                (Need::Data, "it keeps no CKO_DATA"),
                (Need::TwoTokens, "one database for each module"),
                (Need::Unplug, "its file stays open"),
                (Need::Tool, "pkcs11-tool can't hand it its parameters"),
            ],
            Self::Tpm2 => &[
                (Need::Ed25519, "no Ed25519"),
                (Need::ManyKeys, "a TPM without a resource manager holds three objects at once"),
                (Need::Extractable, "no key can leave it"),
                (Need::PublicData, "its CKO_DATA objects are private"),
                (Need::TwoTokens, "every token has the serial number 0"),
                (Need::Unplug, "its files stay open"),
            ],
        }
    }

    /// Its module.
    pub fn module(self) -> PathBuf {
        let (path, package) = match self {
            Self::SoftHsm => ("/usr/lib/softhsm/libsofthsm2.so".to_owned(), "softhsm2"),
            Self::Nss => (library("libsoftokn3.so"), "libnss3"),
            Self::Tpm2 => (library("libtpm2_pkcs11.so.1"), "libtpm2-pkcs11-1"),
            Self::Kryoptic => {
                let path = std::env::var("COUNTERSIGN_KRYOPTIC").unwrap_or_default();
                (path, "build softhsm-tests/kryoptic, and name its library in COUNTERSIGN_KRYOPTIC")
            }
        };
        assert!(Path::new(&path).exists(), "`{path}` is missing: {package}");
        path.into()
    }

    /// What its module is to find in the environment, and in the arguments of its initialisation, for the
    /// store in `dir`; its files are written.
    pub fn settings(
        self,
        dir: &Path,
        label: &str,
    ) -> (BTreeMap<&'static str, String>, Option<String>) {
        let show = |name: &str| dir.join(name).display().to_string();
        let write = |name: &str, text: String| {
            std::fs::write(dir.join(name), text).expect("write");
        };
        match self {
            Self::SoftHsm => {
                let text = format!(
                    "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
                    show("tokens")
                );
                write("softhsm2.conf", text);
                (BTreeMap::from([("SOFTHSM2_CONF", show("softhsm2.conf"))]), None)
            }
            Self::Kryoptic => {
                let slot = |number: usize| {
                    let db = show(&format!("tokens/{number}.sql"));
                    format!("[[slots]]\nslot = {number}\ndbtype = \"sqlite\"\ndbargs = \"{db}\"\n")
                };
                write("kryoptic.conf", slot(1) + &slot(2));
                (BTreeMap::from([("KRYOPTIC_CONF", show("kryoptic.conf"))]), None)
            }
            Self::Nss => {
                let parameters = format!(
                    "configdir='sql:{}' certPrefix='' keyPrefix='' secmod='secmod.db' flags= \
                     dbTokenDescription='{label}'",
                    show("tokens")
                );
                (BTreeMap::new(), Some(parameters))
            }
            Self::Tpm2 => {
                let environment = BTreeMap::from([
                    ("TPM2_PKCS11_STORE", show("tokens")),
                    ("TPM2_PKCS11_TCTI", format!("swtpm:path={}", show("tpm.sock"))),
                    ("TSS2_LOG", "all+none".to_owned()),
                ]);
                (environment, None)
            }
        }
    }

    /// Makes one more token in the store in `dir`, with [`PIN`].
    pub fn init_token(self, dir: &Path, label: &str) {
        let environment = self.settings(dir, label).0;
        let run = |program: &str, args: &[&str]| run(program, args, &environment);
        let module = || self.module().display().to_string();
        match self {
            Self::SoftHsm => {
                let pins = ["--so-pin", SO_PIN, "--pin", PIN];
                let init = ["--init-token", "--free", "--label", label];
                run("softhsm2-util", &[&init[..], &pins].concat());
            }
            Self::Nss => {
                let file = dir.join("nss.pin");
                std::fs::write(&file, PIN).expect("pin");
                let (db, file) =
                    (format!("sql:{}", dir.join("tokens").display()), file.display().to_string());
                run("certutil", &["-N", "-d", &db, "-f", &file]);
            }
            Self::Kryoptic | Self::Tpm2 => {
                let (module, free) = (module(), self.free_slot(dir, label));
                let on = ["--module", &module];
                let init = ["--init-token", "--slot", &free, "--label", label, "--so-pin", SO_PIN];
                run("pkcs11-tool", &[&on[..], &init].concat());
                let so = ["--login", "--login-type", "so", "--so-pin", SO_PIN];
                let pin = ["--token-label", label, "--init-pin", "--pin", PIN];
                run("pkcs11-tool", &[&on[..], &so, &pin].concat());
            }
        }
    }

    /// A slot whose token is not initialised.
    fn free_slot(self, dir: &Path, label: &str) -> String {
        let shown = self.slots(dir, label);
        let mut slots = shown.split("\nSlot ").filter(|slot| slot.contains("uninitialized"));
        let number = |slot: &str| {
            let (_, rest) = slot.split_once('(')?;
            Some(rest.split_once(')')?.0.to_owned())
        };
        slots.find_map(number).unwrap_or_else(|| panic!("no free slot: {shown}"))
    }

    fn slots(self, dir: &Path, label: &str) -> String {
        let module = self.module().display().to_string();
        let environment = self.settings(dir, label).0;
        run("pkcs11-tool", &["--module", &module, "--list-slots"], &environment)
    }

    /// Serial numbers of the tokens in a store.
    pub fn serials(self, dir: &Path, label: &str) -> Vec<String> {
        if self == Self::Nss {
            // It numbers nothing.
            return vec!["0".repeat(16)];
        }
        let shown = self.slots(dir, label);
        let lines = shown.lines().filter_map(|line| line.trim().strip_prefix("serial num"));
        let serial = |line: &str| line.trim().trim_start_matches(':').trim().to_owned();
        lines.map(serial).filter(|serial| !serial.is_empty()).collect()
    }

    /// What has to run for the store in `dir`.
    pub fn machine(self, dir: &Path) -> Option<Machine> {
        (self == Self::Tpm2).then(|| Machine::start(dir))
    }
}

/// Whether the tokens here can do all of it; else it is told why the calling test is not run.
pub fn needs(wanted: &[Need]) -> bool {
    let kind = Kind::here();
    let lacking = kind.lacks().iter().find(|(need, _)| wanted.contains(need));
    if let Some((need, why)) = lacking {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        eprintln!("NOT RUN on {kind:?}: {test}: needs {need:?}: {why}");
    }
    lacking.is_none()
}

/// A software TPM, ended with its store.
pub struct Machine(Child);

impl Machine {
    fn start(dir: &Path) -> Self {
        let state = dir.join("tpm");
        if !state.exists() {
            std::fs::create_dir(&state).expect("directory");
            let state = state.display().to_string();
            run(
                "swtpm_setup",
                &["--tpm2", "--tpmstate", &state, "--pcr-banks", "sha256"],
                &BTreeMap::new(),
            );
        }
        let socket = dir.join("tpm.sock");
        let path = |suffix: &str| format!("type=unixio,path={}{suffix}", socket.display());
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .args(["--tpmstate", &format!("dir={}", state.display())])
            .args(["--server", &path(""), "--ctrl", &path(".ctrl")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm is missing: apt-get install swtpm");
        until("the TPM's socket", || {
            if socket.exists() { Ok(()) } else { Err("not there".to_owned()) }
        });
        Self(child)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn library(name: &str) -> String {
    format!("/usr/lib/{}-linux-gnu/{name}", std::env::consts::ARCH)
}

/// Runs a program, which must end well; what it printed.
pub fn run(program: &str, args: &[&str], environment: &BTreeMap<&'static str, String>) -> String {
    let ran = Command::new(program)
        .args(args)
        .envs(environment)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(ran.status.success(), "{args:?}: {}{}", told(&ran.stdout), told(&ran.stderr));
    told(&ran.stdout)
}
