//! What the officers' commands have in common: where the keeper is, who signs with which key, and
//! what was pinned.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use countersign_policy::KeyId;
use countersign_policy::ledger::Line;
use countersign_policy::officer::{PersonName, Roster};
use countersign_policy::state::{LedgerState, Proposal};
use countersign_policy::statement::StatementHash;
use countersign_policy::tree::Hash;
use serde::Serialize;

use super::end::Stop;
use super::pins::Pins;
use super::say;
use super::sign::Hand;
use super::view::{Expected, View};

/// Where the keeper's packages put its second socket.
const LEDGER_SOCKET: &str = "/run/countersign-keeper/ledger.sock";
/// Fewer digits of an id say too little: two in a ledger would soon begin alike.
const ID_DIGITS_MIN: usize = 8;

/// How the keeper is reached, and who asks.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Officers and the keeper's ledger")]
pub(super) struct DeskArgs {
    /// The keeper's second socket, on its box.
    #[arg(long, global = true, value_name = "PATH", default_value = LEDGER_SOCKET, env = "COUNTERSIGN_LEDGER_SOCKET")]
    pub(super) ledger_socket: PathBuf,
    /// The founding's hash: which appliance it must be. Needed once, then it is pinned.
    #[arg(long, global = true, value_name = "HASH", env = "COUNTERSIGN_FOUNDING")]
    pub(super) founding: Option<Hash>,
    /// The folder of pins, by default `$XDG_CONFIG_HOME/countersign/pins` or
    /// `~/.config/countersign/pins`.
    #[arg(long, global = true, value_name = "DIR", env = "COUNTERSIGN_PINS")]
    pub(super) pins: Option<PathBuf>,
    /// Who signs; by default whoever's key it is.
    #[arg(id = "as", long = "as", global = true, value_name = "PERSON", env = "COUNTERSIGN_AS")]
    pub(super) person: Option<PersonName>,
    /// The key that signs: a private key, or a .pub whose private half an ssh-agent holds.
    #[arg(long, global = true, value_name = "FILE", env = "COUNTERSIGN_IDENTITY")]
    pub(super) identity: Option<PathBuf>,
    /// Ask nothing: for scripts.
    #[arg(long, global = true)]
    pub(super) yes: bool,
    /// Bear with a ledger that is behind the pin: for a new origin after a loss, and nothing else.
    #[arg(long, global = true)]
    pub(super) behind: bool,
}

/// The arguments, and where results go.
pub(super) struct Desk<'a> {
    pub(super) args: DeskArgs,
    pub(super) json: bool,
    /// This machine's clock.
    pub(super) now_s: u64,
    pub(super) out: &'a mut (dyn Write + Send),
}

impl Desk<'_> {
    pub(super) fn pins(&self) -> Result<Pins, Stop> {
        Pins::at(self.args.pins.as_deref(), |name| std::env::var_os(name))
    }

    /// The ledger, checked and pinned.
    pub(super) fn view(&mut self) -> Result<View, Stop> {
        self.view_each(|_, _| {})
    }

    /// The same; `before` sees each line and what those before it amount to.
    pub(super) fn view_each(
        &mut self,
        before: impl FnMut(&LedgerState, &Line),
    ) -> Result<View, Stop> {
        let pins = self.pins()?;
        let expected =
            Expected { founding: self.args.founding, pins: &pins, behind: self.args.behind };
        let view = View::open(&self.args.ledger_socket, &expected, before)?;
        if !self.json {
            if let Some(origin) = &view.new_origin {
                writeln!(self.out, "{origin}\n")?;
            }
            if let Some(problem) = &view.borne {
                writeln!(self.out, "--behind: {problem}; nothing is pinned\n")?;
            }
            if let Some(why) = view.stands_still() {
                writeln!(self.out, "the keeper uses no key: {}\n", say::lines(why))?;
            }
        }
        Ok(view)
    }

    /// Whoever signs, with the key that the roster knows.
    pub(super) fn hand(&self, roster: &Roster) -> Result<Hand, Stop> {
        Hand::find(roster, self.args.person.as_ref(), self.args.identity.as_deref())
    }

    /// Shows what will be signed, with --json on standard error so that results stay apart. What nobody
    /// could read is not signed.
    pub(super) fn show(&mut self, text: &str) -> Result<(), Stop> {
        let shown = if self.json {
            std::io::stderr().write_all(text.as_bytes())
        } else {
            self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush())
        };
        shown.map_err(|error| {
            Stop::failed(format!(
                "what would be signed can't be shown: {error}; nothing was signed or sent"
            ))
        })
    }

    /// Prints `value` as JSON, or as `table` shows it.
    pub(super) fn print<T: Serialize>(
        &mut self,
        value: &T,
        table: impl FnOnce(&T, &mut (dyn Write + Send)) -> std::io::Result<()>,
    ) -> Result<(), Stop> {
        super::print(self.json, value, self.out, table)
    }
}

/// The open proposal whose id begins so.
pub(super) fn proposal<'a>(
    state: &'a LedgerState,
    id: &str,
) -> Result<(StatementHash, &'a Proposal), Stop> {
    let live = state.proposals().map(|(hash, _)| *hash);
    let hash = by_prefix("proposal", id, live.chain(state.closed().keys().copied()))?;
    state.proposal(&hash).map(|proposal| (hash, proposal)).ok_or_else(|| {
        let status = state.status(&hash).map_or_else(String::new, |status| status.to_string());
        Stop::failed(format!("proposal {} is {status}", hash.short()))
    })
}

/// The key whose id begins so, among those given.
pub(super) fn key(id: &str, among: impl IntoIterator<Item = KeyId>) -> Result<KeyId, Stop> {
    by_prefix("key", id, among)
}

pub(super) fn by_prefix<T: std::fmt::Display + Copy>(
    what: &str,
    id: &str,
    among: impl IntoIterator<Item = T>,
) -> Result<T, Stop> {
    let is_hex = id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !is_hex || id.len() < ID_DIGITS_MIN {
        return Err(Stop::usage(format!(
            "{id:?} is no {what}'s id: expected {ID_DIGITS_MIN} to 64 of its hexadecimal digits, \
             lower case"
        )));
    }
    let mut found = among.into_iter().filter(|each| each.to_string().starts_with(id));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(Stop::usage(format!("there is no {what} {id} here"))),
        (Some(a), Some(b)) => {
            Err(Stop::usage(format!("{id} could be {a} or {b}; give more of the {what}'s id")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_may_be_shortened_while_they_are_unique() {
        let ids = [[0x11; 32], [0x12; 32], {
            let mut near = [0x12; 32];
            near[5] = 0;
            near
        }]
        .map(KeyId);
        assert_eq!(key("11111111", ids).expect("unique"), ids[0]);
        assert_eq!(key(&"12".repeat(32), ids).expect("whole"), ids[1]);
        for (id, why) in [
            ("1111111", "8 to 64"),
            ("1111111G", "8 to 64"),
            ("1111111A", "8 to 64"),
            ("12121212", "could be"),
            ("13131313", "no key"),
        ] {
            let Err(Stop::Said { text, .. }) = key(id, ids) else { panic!("{id} is taken") };
            assert!(text.contains(why), "{id}: {text}");
        }
    }
}
