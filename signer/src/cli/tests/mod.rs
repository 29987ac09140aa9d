//! The commands from their arguments to what people see, against ledgers that the fold judged. The
//! keeper of these tests ([`keeper`]) is a ledger behind a socket: what it takes, it takes because
//! [`countersign_policy::state::LedgerState`] does. Signatures are made by `ssh-keygen`.

mod archive;
mod insiders;
mod keeper;
mod motions;
mod pages;
mod pinned;
mod shown;

use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser as _};
use countersign_policy::testing::{NOW, World};

use super::end::End;
use super::{Cli, run_at};
use keeper::TestKeeper;

/// A keeper, its people's key files, and one person's pins.
struct Bed {
    folder: tempfile::TempDir,
    keeper: TestKeeper,
    now: u64,
}

/// What a command said.
struct Said {
    end: End,
    out: String,
    err: String,
}

impl Said {
    /// It ended so, and said that.
    #[track_caller]
    fn expect(self, end: End, part: &str) -> String {
        let Self { end: found, out, err } = &self;
        assert_eq!(*found, end, "{out}\n{err}");
        assert!(out.contains(part) || err.contains(part), "{part:?} is not in:\n{out}\n{err}");
        self.out
    }
}

impl Bed {
    fn new(world: World) -> Self {
        Self::of(|folder| TestKeeper::start(folder, Some(world)))
    }

    fn of(start: impl FnOnce(&Path) -> TestKeeper) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = start(folder.path());
        Self { folder, keeper, now: NOW }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Runs a command with this bed's socket and pins.
    fn run(&self, arguments: &[&str]) -> Said {
        self.run_with(&self.path("pins"), arguments)
    }

    fn run_with(&self, pins: &Path, arguments: &[&str]) -> Said {
        let socket = self.keeper.socket.display().to_string();
        let pins = pins.display().to_string();
        let fixed = ["countersign", "--ledger-socket", &socket, "--pins", &pins];
        let cli = Cli::try_parse_from(fixed.iter().chain(arguments)).expect("arguments");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let end = runtime.block_on(run_at(self.now, cli, &mut out, &mut err));
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Said { end, out: text(out), err: text(err) }
    }

    /// The same, for an appliance that was not seen before.
    fn first(&self, arguments: &[&str]) -> Said {
        let founding = self.keeper.founding().to_string();
        let named = ["--founding", founding.as_str()];
        self.run(&[arguments, &named].concat())
    }

    /// Runs a command as that person, who asks for no question.
    fn run_as(&self, person: &str, arguments: &[&str]) -> Said {
        let identity = self.identity(person);
        let founding = self.keeper.founding().to_string();
        let named = ["--founding", &founding, "--identity", &identity, "--yes"];
        self.run(&[arguments, &named].concat())
    }

    /// The file of a person's private key, as ssh-keygen would have made it.
    fn identity(&self, person: &str) -> String {
        let path = self.path(person);
        keeper::write_identity(&path, person);
        path.display().to_string()
    }
}

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn exit_codes_are_in_the_help() {
    let help = Cli::command().render_help().to_string();
    for part in ["3  the daemon", "4  done", "5  the ledger or bundle"] {
        assert!(help.contains(part), "{help}");
    }
}

#[test]
fn https_needs_a_certificate() {
    let parsed = Cli::try_parse_from(["countersign", "--url", "https://a:1", "zone", "list"]);
    assert!(parsed.expect_err("no certificate").to_string().contains("--cert"));
}
