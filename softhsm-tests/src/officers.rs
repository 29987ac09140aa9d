//! The officers of a story: people with real SSH keys, each with a command line and a memory (its
//! pins) of their own, who found the appliance and carry motions.
//!
//! They are all the harness's user: `ssh-keygen` serves nobody whom /etc/passwd does not know, and the
//! keeper does not ask who brings a text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::binaries::binaries;
use crate::daemon::CliOutput;
use crate::keeper::{Keeper, KeeperSpec};
use crate::scratch::{Scratch, write};
use crate::tools::{run, run_ok, tool};
use crate::users::{User, command, give};
use crate::wait::{SOON, until};

/// Name, role, and what `ssh-keygen -t` is told: every sort of key that OpenSSH makes without
/// hardware is somebody's.
pub const PEOPLE: [(&str, &str, &[&str]); 7] = [
    ("op", "operator", &["ed25519"]),
    ("kay", "key-officer", &["ed25519"]),
    ("kim", "key-officer", &["ecdsa", "-b", "256"]),
    ("kurt", "key-officer", &["rsa", "-b", "3072"]),
    ("pat", "policy-officer", &["ecdsa", "-b", "384"]),
    ("paul", "policy-officer", &["ed25519"]),
    ("audrey", "auditor", &["ed25519"]),
];

/// A person.
#[derive(Debug, Clone)]
pub struct Person {
    /// Name in texts.
    pub name: String,
    /// Role, as texts spell it.
    pub role: String,
    /// The private key's file; its public half is beside it, with `.pub`.
    pub key: PathBuf,
    /// Where the person's command line keeps what it has seen.
    pub pins: PathBuf,
}

impl Person {
    /// The public key as texts spell it: type and base64.
    pub fn public(&self) -> Result<String> {
        let text = std::fs::read_to_string(self.key.with_extension("pub"))?;
        let words: Vec<&str> = text.split_whitespace().take(2).collect();
        ensure!(words.len() == 2, "{text:?} is no public key");
        Ok(words.join(" "))
    }
}

/// What a story wants of the founding, beside tokens and everyone there is.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// Rules other than the default ones: two key officers for what is about keys, two key or policy
    /// officers for the rest.
    pub rules: &'static [(&'static str, &'static str)],
    /// How many of the recovery group, and after how many seconds.
    pub recovery: Option<(u8, u64)>,
}

/// Everyone, and the appliance that they have founded.
#[derive(Debug)]
pub struct Officers {
    /// By name.
    pub people: BTreeMap<String, Person>,
    /// The keeper's second socket.
    pub ledger_socket: PathBuf,
    /// The founding hash, once there is one.
    pub founding: Option<String>,
    dir: PathBuf,
}

impl Officers {
    /// Makes everyone's keys with `ssh-keygen`.
    pub fn new(scratch: &Scratch, ledger_socket: &Path) -> Result<Self> {
        let dir = scratch.dir("officers", User::Harness, 0o755)?;
        let mut officers = Self {
            people: BTreeMap::new(),
            ledger_socket: ledger_socket.to_owned(),
            founding: None,
            dir,
        };
        for (name, role, kind) in PEOPLE {
            officers.meet(name, role, kind)?;
        }
        Ok(officers)
    }

    /// One more person, with a key that `ssh-keygen -t KIND…` makes.
    pub fn meet(&mut self, name: &str, role: &str, kind: &[&str]) -> Result<&Person> {
        let key = self.new_key(name, kind)?;
        let pins = self.dir.join(format!("{name}.pins"));
        std::fs::create_dir_all(&pins)?;
        give(&pins, User::Harness, 0o700)?;
        let (name, role) = (name.to_owned(), role.to_owned());
        self.people.insert(name.clone(), Person { name: name.clone(), role, key, pins });
        self.person(&name)
    }

    /// A key file that is nobody's yet.
    pub fn new_key(&self, name: &str, kind: &[&str]) -> Result<PathBuf> {
        let key = self.dir.join(name);
        run_ok(
            Command::new(tool("ssh-keygen")?)
                .args(["-q", "-N", "", "-C", name, "-f"])
                .arg(&key)
                .arg("-t")
                .args(kind),
        )?;
        give(&key, User::Harness, 0o600)?;
        give(&key.with_extension("pub"), User::Harness, 0o644)?;
        Ok(key)
    }

    /// Where the officers' files are: drafts, exports, signatures.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The person.
    pub fn person(&self, name: &str) -> Result<&Person> {
        self.people.get(name).ok_or_else(|| anyhow!("nobody here is called {name}"))
    }

    /// `countersign` as `who` runs it, with the arguments still to come.
    pub fn command(&self, who: &str) -> Result<Command> {
        let person = self.person(who)?;
        let mut command = command(User::Harness, &binaries()?.cli)?;
        command
            .env("COUNTERSIGN_LEDGER_SOCKET", &self.ledger_socket)
            .env("COUNTERSIGN_PINS", &person.pins)
            .env("COUNTERSIGN_AS", who)
            .env("COUNTERSIGN_IDENTITY", &person.key)
            .env("HOME", &self.dir);
        if let Some(founding) = &self.founding {
            command.env("COUNTERSIGN_FOUNDING", founding);
        }
        Ok(command)
    }

    /// Runs `countersign` as `who`, who says yes to what it asks.
    pub fn cli(&self, who: &str, arguments: &[&str]) -> Result<CliOutput> {
        Ok(CliOutput::of(&run(self.command(who)?.arg("--yes").args(arguments))?))
    }

    /// The same; it must end well (0), or with something that needs attention (4). What it printed.
    pub fn ok(&self, who: &str, arguments: &[&str]) -> Result<String> {
        let output = self.cli(who, arguments)?;
        if !matches!(output.status.code(), Some(0 | 4)) {
            bail!(
                "{who}: countersign {arguments:?} ended with {}:\n{}{}",
                output.status,
                output.stdout,
                output.stderr
            );
        }
        Ok(output.stdout)
    }

    /// The same with `--json`.
    pub fn json(&self, who: &str, arguments: &[&str]) -> Result<Value> {
        let arguments: Vec<&str> =
            std::iter::once("--json").chain(arguments.iter().copied()).collect();
        let text = self.ok(who, &arguments)?;
        serde_json::from_str(&text).with_context(|| format!("{arguments:?} printed {text:?}"))
    }

    /// It must be refused, in words that have `expect` in them.
    pub fn refused(&self, who: &str, arguments: &[&str], expect: &str) -> Result<()> {
        let output = self.cli(who, arguments)?;
        ensure!(
            !output.status.success() && output.stderr.contains(expect),
            "{who}: countersign {arguments:?} ended with {}, expected a refusal with {expect:?}:\n{}{}",
            output.status,
            output.stdout,
            output.stderr
        );
        Ok(())
    }

    /// `who` proposes; the statement's hash.
    pub fn propose(&self, who: &str, motion: &[&str]) -> Result<String> {
        let arguments: Vec<&str> =
            std::iter::once("propose").chain(motion.iter().copied()).collect();
        let answer = self.json(who, &arguments)?;
        let id = answer["id"].as_str().with_context(|| format!("no id in {answer:#}"))?;
        Ok(id.to_owned())
    }

    /// Each of `who` approves, at once.
    pub fn approve(&self, who: &[&str], id: &str) -> Result<()> {
        self.all_at_once(who, &["approve", id])
    }

    /// How a proposal stands, as `who` sees it.
    pub fn status(&self, who: &str, id: &str) -> Result<String> {
        let shown = self.json(who, &["proposal", "show", id])?;
        let status = shown["status"].as_str().with_context(|| format!("{shown:#}"))?;
        Ok(status.to_owned())
    }

    /// Waits until `who` sees a proposal stand as `expect` says.
    pub fn wait_for(&self, who: &str, id: &str, expect: &str) -> Result<()> {
        until(&format!("proposal {id} to be {expect}"), SOON, || {
            let status = self.status(who, id)?;
            ensure!(status.starts_with(expect), "it is {status}");
            Ok(())
        })
    }

    /// `op` proposes, kay and kim approve, and it is done; the statement's hash.
    pub fn carry<S: AsRef<str>>(&self, keeper: &Keeper, motion: &[S]) -> Result<String> {
        let motion: Vec<&str> = motion.iter().map(AsRef::as_ref).collect();
        let id = self.propose("op", &motion)?;
        self.approve(&["kay", "kim"], &id)?;
        until(&format!("{} to be done", motion[0]), SOON, || keeper.is_done(&id))?;
        Ok(id)
    }

    /// Drafts the founding of what `spec` configures and has everyone sign it; its hash.
    pub fn sign_founding(&self, spec: &KeeperSpec, draft: &Draft) -> Result<String> {
        let rules = draft.rules.iter().map(|(kind, rule)| format!("{kind} = \"{rule}\"\n"));
        let tokens = spec.tokens.iter().map(|held| format!("{} = \"{}\"\n", held.name, held.group));
        let people = self.people.values().map(|person| {
            let key = person.key.with_extension("pub");
            let (name, role, key) = (&person.name, &person.role, key.display());
            format!("[officers.{name}]\nrole = \"{role}\"\nkeys = [\"{key}\"]\n")
        });
        let recovery = draft.recovery.map(|(persons, delay_s)| {
            format!("[recovery]\npersons = {persons}\ndelay_s = {delay_s}\n")
        });
        let text: String = ["name = \"bed\"\n[rules]\n".to_owned()]
            .into_iter()
            .chain(rules)
            .chain(["[tokens]\n".to_owned()])
            .chain(tokens)
            .chain(people)
            .chain(recovery)
            .collect();
        let from = self.dir.join("founding.toml");
        write(&from, &text, User::Harness, 0o644)?;
        let (from, file) = (from.display().to_string(), self.founding_file().display().to_string());
        let drafted = until("the survey of tokens that are being opened", SOON, || {
            self.json("op", &["found", "draft", "--from", &from, "--out", &file])
        })?;
        let everyone: Vec<&str> = self.people.keys().map(String::as_str).collect();
        self.all_at_once(&everyone, &["found", "sign", &file])?;
        let hash = drafted["hash"].as_str().with_context(|| format!("{drafted:#}"))?;
        Ok(hash.to_owned())
    }

    /// Hands in the founding with its signatures.
    pub fn submit_founding(&self) -> Result<()> {
        let file = self.founding_file().display().to_string();
        let signatures: Vec<String> =
            self.people.keys().map(|person| format!("{file}.{person}.sig")).collect();
        let mut arguments = vec!["found", "submit", &file];
        arguments.extend(signatures.iter().map(String::as_str));
        self.ok("op", &arguments).map(drop)
    }

    /// Where the founding's text is; the signatures are beside it.
    pub fn founding_file(&self) -> PathBuf {
        self.dir.join("founding.txt")
    }

    /// Writes the ledger's bundle to `name` in the officers' directory.
    pub fn export_bundle(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        self.ok("audrey", &["audit", "export", &path.display().to_string()])?;
        Ok(path)
    }

    /// What the product says of a bundle, on a machine that has seen nothing yet and reaches no keeper.
    pub fn audit_verify(&self, bundle: &Path) -> Result<CliOutput> {
        let mut command = command(User::Harness, &binaries()?.cli)?;
        let founding = self.founding.as_deref().context("not founded")?;
        command.args(["audit", "verify", "--founding", founding]).arg(bundle);
        command.env("HOME", "/nonexistent");
        Ok(CliOutput::of(&run(&mut command)?))
    }

    /// What the bed's own verifier says of it, which shares no code with the product.
    pub fn second_verifier(&self, bundle: &Path) -> Result<CliOutput> {
        let founding = self.founding.as_deref().context("not founded")?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("verify_bundle.py");
        let mut command = Command::new(tool("python3")?);
        Ok(CliOutput::of(&run(command.arg(script).arg(bundle).arg(founding))?))
    }

    /// Each of `who` runs the same command, all at once: each must end well.
    fn all_at_once(&self, who: &[&str], arguments: &[&str]) -> Result<()> {
        let mut running = Vec::new();
        for person in who {
            let mut command = self.command(person)?;
            command.arg("--yes").args(arguments);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            running.push((person, command.spawn()?));
        }
        for (person, child) in running {
            let output = child.wait_with_output()?;
            ensure!(
                output.status.success(),
                "{person}: countersign {arguments:?} ended with {}:\n{}{}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }
}
