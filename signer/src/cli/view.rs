//! The ledger as this command line sees it: every line folded and judged here
//! ([`LedgerState::apply`]), the founding compared with the one that was named or pinned, and the
//! pinned head proven to be a prefix. The keeper's word counts for nothing.
//!
//! A ledger that is shown by the keeper and one in a bundle come the same way: as lines.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use countersign_hsm::client::{ClientError, LedgerClient};
use countersign_hsm::protocol::Mode;
use countersign_policy::checkpoint::AuditKey;
use countersign_policy::ledger::{Entry, LedgerError, Line};
use countersign_policy::motion::Motion;
use countersign_policy::state::{LedgerState, Status};
use countersign_policy::statement::StatementHash;
use countersign_policy::tree::{Hash, TreeHead};

use super::end::{End, Stop};
use super::pins::{Pin, Pins};

/// Lines asked for at once: a few frames' worth of ordinary ones.
const LINES_AT_ONCE: u32 = 256;
/// The keeper may take this long over one answer; a founding marks tokens in that time.
const DEADLINE: Duration = Duration::from_secs(60);

/// What lines amount to.
#[derive(Debug)]
pub(super) struct Folded {
    pub(super) state: LedgerState,
    /// The founding's hash.
    pub(super) appliance: Hash,
    /// From which size of the tree on which key seals it.
    audit_keys: Vec<(u64, AuditKey)>,
    /// The new origins that began, and what each gave up.
    origins: BTreeMap<StatementHash, GivenUp>,
}

/// What a new origin named as lost.
#[derive(Debug, Clone, Copy)]
struct GivenUp {
    head: TreeHead,
    officers: u64,
    rules: u64,
}

/// Why lines amount to nothing.
#[derive(Debug)]
pub(super) enum FoldError<E> {
    /// They could not be read.
    Source(E),
    /// A line does not follow from those before.
    Line(LedgerError),
    /// It is another ledger.
    OtherFounding { shown: Hash, expected: Hash },
    /// There are none.
    Empty,
}

/// Folds lines (without newlines), judging each; with `founding`, only those of that ledger. `before`
/// sees each line and what the ones before it amount to.
pub(super) fn fold<E>(
    lines: impl Iterator<Item = Result<Vec<u8>, E>>,
    founding: Option<Hash>,
    mut before: impl FnMut(&LedgerState, &Line),
) -> Result<Folded, FoldError<E>> {
    let mut state = LedgerState::default();
    let mut audit_keys: Vec<(u64, AuditKey)> = Vec::new();
    let mut origins = BTreeMap::new();
    for bytes in lines {
        let bytes = bytes.map_err(FoldError::Source)?;
        let line = Line::from_canonical(state.next_seq(), &bytes).map_err(FoldError::Line)?;
        before(&state, &line);
        let origin = new_origin(&state, &line);
        state.apply(&line).map_err(FoldError::Line)?;
        origins.extend(origin);
        if let (Some(shown), Some(expected)) = (state.appliance(), founding)
            && shown != expected
        {
            return Err(FoldError::OtherFounding { shown, expected });
        }
        if let Some((_, key)) = state.audit()
            && audit_keys.last().is_none_or(|(_, last)| last != key)
        {
            audit_keys.push((state.next_seq(), key.clone()));
        }
    }
    let appliance = state.appliance().ok_or(FoldError::Empty)?;
    Ok(Folded { state, appliance, audit_keys, origins })
}

/// The new origin that a line begins, and what it gives up.
fn new_origin(state: &LedgerState, line: &Line) -> Option<(StatementHash, GivenUp)> {
    let Entry::Begun { statement, .. } = &line.entry else { return None };
    match &state.proposal(statement)?.statement.motion {
        Motion::NewOrigin { lost, officers, rules } => {
            let (head, officers, rules) = (*lost, *officers, *rules);
            Some((*statement, GivenUp { head, officers, rules }))
        }
        _ => None,
    }
}

impl Folded {
    /// The key that sealed the ledger when it had `size` lines.
    pub(super) fn audit_key_at(&self, size: u64) -> Option<&AuditKey> {
        let first = self.audit_keys.first();
        let then = self.audit_keys.iter().rev().find(|(from, _)| *from <= size);
        then.or(first).map(|(_, key)| key)
    }

    /// Every key that ever sealed it, in order.
    pub(super) fn audit_keys(&self) -> impl Iterator<Item = &AuditKey> {
        self.audit_keys.iter().map(|(_, key)| key)
    }

    pub(super) fn head(&self) -> TreeHead {
        self.state.tree().head()
    }

    pub(super) fn name(&self) -> &str {
        self.state.founding().map_or("", |founding| founding.name.as_str())
    }

    /// Whether the ledger goes on from where it was pinned; what is wrong if not.
    pub(super) fn follows(&self, pin: &Pin) -> Result<(), String> {
        let head = self.head();
        let (pinned, shown) = (&pin.head, &head);
        if self.state.tree().contains(pinned) {
            return match self.audit_key_at(pinned.size) {
                Some(key) if *key == pin.audit_key && self.name() == pin.appliance => Ok(()),
                _ => Err(
                    "the pin names another appliance or audit key than its own ledger: the pin \
                          was changed by something else"
                        .to_owned(),
                ),
            };
        }
        if self.lost(pin) {
            return Ok(());
        }
        Err(if pinned.size > shown.size {
            format!(
                "the ledger is behind: {} of its lines are missing that this machine has seen, so it \
                 was rolled back",
                pinned.size - shown.size
            )
        } else {
            "the ledger is another one from some line on: what this machine has seen is no part of it, \
             so it was changed or forked"
                .to_owned()
        })
    }

    /// Whether a quorum declared lost what was pinned: a new origin began since, of a ledger that
    /// was at least as long, and of officers and rules that were no older: what takes the quorum of
    /// those that are lost is not explained by the quorum of those before.
    fn lost(&self, pin: &Pin) -> bool {
        self.origins.iter().any(|(hash, lost)| {
            let covers = lost.head == pin.head || lost.head.size > pin.head.size;
            let by_whom = pin.officers <= lost.officers && pin.rules <= lost.rules;
            covers && by_whom && !pin.origins.contains(hash)
        })
    }

    /// That the ledger goes on without what was pinned.
    fn gave_up(&self, pin: &Pin) -> Option<String> {
        let known = self.state.tree().contains(&pin.head);
        (!known).then(|| {
            format!(
                "since this machine saw {} lines the ledger was lost and a quorum began a new origin: what \
                 was seen is no part of it any more (`audit log` has the motion). It is pinned as it is now",
                pin.head.size
            )
        })
    }

    /// What there is to pin.
    pub(super) fn to_pin(&self) -> Option<Pin> {
        let head = self.head();
        Some(Pin {
            appliance: self.name().to_owned(),
            audit_key: self.audit_key_at(head.size)?.clone(),
            head,
            origins: self.origins.keys().copied().collect(),
            officers: self.state.officers_version(),
            rules: self.state.rules_version(),
        })
    }
}

/// A ledger and the keeper that showed it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) ledger: Folded,
    pub(super) keeper: LedgerClient,
    /// What is wrong with the ledger by the pin, where that is borne.
    pub(super) borne: Option<String>,
    /// What a quorum gave up of what was pinned here, once.
    pub(super) new_origin: Option<String>,
}

/// What a ledger has to be.
#[derive(Debug)]
pub(super) struct Expected<'a> {
    /// The founding that was named.
    pub(super) founding: Option<Hash>,
    pub(super) pins: &'a Pins,
    /// The ledger may be behind the pin: it was lost, and the recovery group is at work. It is not
    /// pinned then.
    pub(super) behind: bool,
}

impl View {
    /// Reads the ledger whole, checks it, and pins its head.
    pub(super) fn open(
        socket: &Path,
        expected: &Expected<'_>,
        before: impl FnMut(&LedgerState, &Line),
    ) -> Result<Self, Stop> {
        let mut keeper = connect(socket)?;
        let (_, shown) = keeper.head().map_err(keeper_stop)?;
        let Some(shown) = shown else {
            return Err(Stop::failed(
                "the keeper has no founding yet. hint: `countersign survey` shows its tokens, \
                 `countersign found` founds it",
            ));
        };
        let founding = expected.founding(&shown)?;
        // Before the lines are counted: what another run pins meanwhile is newer than they are.
        let pinned = expected.pins.read(&founding)?;
        let (lines, _) = keeper.head().map_err(keeper_stop)?;
        let source = Lines::new(&mut keeper, 0, lines);
        let ledger = fold(source, Some(founding), before).map_err(|error| match error {
            FoldError::Source(error) => keeper_stop(error),
            FoldError::Line(error) => Stop::unsound(format!(
                "the keeper's ledger does not hold, from this line on:\n  {error}\n{DO_NOT_GO_ON}"
            )),
            FoldError::OtherFounding { shown, expected } => other_founding(&shown, &expected),
            FoldError::Empty => {
                Stop::unsound("the keeper says it is founded, and its ledger is empty")
            }
        })?;
        let borne = expected.pin(&ledger, pinned.as_ref())?;
        let new_origin = pinned.filter(|_| borne.is_none()).and_then(|pin| ledger.gave_up(&pin));
        Ok(Self { ledger, keeper, borne, new_origin })
    }

    pub(super) fn state(&self) -> &LedgerState {
        &self.ledger.state
    }

    /// Why the keeper uses no key, if it does not.
    pub(super) fn stands_still(&self) -> Option<&str> {
        match self.keeper.mode() {
            Mode::Behind(why) | Mode::Elsewhere { why, .. } => Some(why),
            Mode::Founded | Mode::Unfounded => None,
        }
    }
}

impl Expected<'_> {
    /// The founding that the ledger must have: as named, or pinned.
    fn founding(&self, shown: &Hash) -> Result<Hash, Stop> {
        if let Some(named) = self.founding {
            return Ok(named);
        }
        let pinned = self.pins.foundings()?;
        if pinned.contains(shown) {
            return Ok(*shown);
        }
        let known = match pinned.as_slice() {
            [] => "none is pinned on this machine".to_owned(),
            [one] => return Err(other_founding(shown, one)),
            several => format!("{} others are pinned on this machine", several.len()),
        };
        Err(Stop::usage(format!(
            "which appliance is this? The keeper shows the founding\n  {shown}\nand {known}. hint: \
             compare it with what the founders read out to you, then say once\n  --founding {shown}"
        )))
    }

    /// Compares the ledger with what was pinned before it was read, and pins its head; what is wrong with
    /// it if that is to be borne.
    pub(super) fn pin(
        &self,
        ledger: &Folded,
        pinned: Option<&Pin>,
    ) -> Result<Option<String>, Stop> {
        if let Some(pin) = pinned
            && let Err(problem) = ledger.follows(pin)
        {
            return if self.behind {
                Ok(Some(problem))
            } else {
                Err(self.refusal(ledger, pin, &problem))
            };
        }
        let lock = self.pins.lock()?;
        let newest = self.pins.read(&ledger.appliance)?;
        if let Some(pin) = newest.filter(|pin| Some(pin) != pinned) {
            // Another run pinned it since. If it saw more, its pin stays; if less, it is a prefix too.
            if pin.head.size > ledger.head().size {
                return Ok(None);
            }
            ledger.follows(&pin).map_err(|problem| self.refusal(ledger, &pin, &problem))?;
        }
        let pin = ledger.to_pin();
        let pin = pin.ok_or_else(|| Stop::unsound("the ledger names no audit key"))?;
        if pinned != Some(&pin) {
            self.pins.write(&ledger.appliance, &pin, &lock)?;
        }
        Ok(None)
    }

    fn refusal(&self, ledger: &Folded, pin: &Pin, problem: &str) -> Stop {
        let (appliance, head) = (&ledger.appliance, ledger.head());
        Stop::unsound(format!(
            "{problem}.\n  pinned: {} lines, root {}\n  shown:  {} lines, root {}\n  appliance {} \
             ({appliance})\n{DO_NOT_GO_ON}\n  The pin is {}. If the ledger was restored from a \
             backup and the recovery group starts a new origin, say --behind with `propose \
             new-origin` and with what votes on it.",
            pin.head.size,
            pin.head.root,
            head.size,
            head.root,
            pin.appliance,
            self.pins.path(appliance).display(),
        ))
    }
}

const DO_NOT_GO_ON: &str = "  Sign nothing. Keep a copy of the keeper's state_dir, tell the other officers and the auditor, and \
     compare heads with theirs.";

fn other_founding(shown: &Hash, expected: &Hash) -> Stop {
    Stop::unsound(format!(
        "this is another appliance's ledger.\n  expected the founding {expected}\n  shown:                {shown}\n\
         hint: is it the right --ledger-socket? If this appliance is new to this machine, compare the hash \
         with what the founders read out to you and say once --founding HASH"
    ))
}

/// Connects to the keeper's second socket.
pub(super) fn connect(socket: &Path) -> Result<LedgerClient, Stop> {
    LedgerClient::connect(socket, DEADLINE).map_err(keeper_stop)
}

/// How a command ends that the keeper did not serve.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
pub(super) fn keeper_stop(error: ClientError) -> Stop {
    let end = match &error {
        ClientError::Refused(_) | ClientError::TooLarge(_) => End::Failed,
        ClientError::Unreachable { path, problem } => {
            let text = format!(
                "the keeper can't be reached at {}: {problem}\n  hint: is countersign-keeper running, and \
                 are you in the group `countersign`? another socket is named with --ledger-socket",
                path.display()
            );
            return Stop::Said { end: End::Unreachable, text };
        }
        ClientError::Lost(_)
        | ClientError::Deadline(_)
        | ClientError::OtherProtocol { .. }
        | ClientError::Unexpected(_) => End::Unreachable,
    };
    Stop::Said { end, text: error.to_string() }
}

/// The same of a text that was handed in: without an answer nobody knows whether it was taken.
pub(super) fn submit_stop(error: ClientError) -> Stop {
    let unknown = matches!(error, ClientError::Lost(_) | ClientError::Deadline(_));
    match keeper_stop(error) {
        Stop::Said { end, text } if unknown => Stop::Said {
            end,
            text: format!(
                "{text}\n  hint: it may have been taken all the same; look with `countersign audit log` \
                 before you send it again"
            ),
        },
        stop => stop,
    }
}

/// The keeper's lines, one after the other, up to what its head was.
pub(super) struct Lines<'a> {
    keeper: &'a mut LedgerClient,
    at: u64,
    end: u64,
    read: std::vec::IntoIter<Vec<u8>>,
}

impl<'a> Lines<'a> {
    /// The lines from `at` to before `end`.
    pub(super) fn new(keeper: &'a mut LedgerClient, at: u64, end: u64) -> Self {
        Self { keeper, at, end, read: Vec::new().into_iter() }
    }
}

impl Iterator for Lines<'_> {
    type Item = Result<Vec<u8>, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        if let Some(line) = self.read.next() {
            self.at += 1;
            return Some(Ok(line));
        }
        let wanted = u32::try_from(self.end - self.at).unwrap_or(u32::MAX).min(LINES_AT_ONCE);
        match self.keeper.read(self.at, wanted) {
            Ok(lines) if lines.is_empty() => {
                self.at = self.end;
                Some(Err(ClientError::Unexpected("fewer lines than its head says")))
            }
            Ok(lines) => {
                self.read = lines.into_iter();
                self.next()
            }
            Err(error) => {
                self.at = self.end;
                Some(Err(error))
            }
        }
    }
}

impl View {
    /// What a proposal would still want once `entry` is the next line. The keeper may have taken other
    /// lines since, so this is a hint, not a judgement.
    pub(super) fn missing_after(
        &mut self,
        entry: Entry,
        statement: &StatementHash,
        now_s: u64,
    ) -> Option<String> {
        let state = &mut self.ledger.state;
        let line = Line { seq: state.next_seq(), at: now_s, entry };
        state.apply(&line).ok()?;
        match state.status(statement) {
            Some(Status::Open) => {
                state.quorum(statement, now_s).err().map(|not_yet| not_yet.to_string())
            }
            Some(status) => Some(format!("it is {status}")),
            None => None,
        }
    }
}
