//! Who holds the tokens: one instance of this appliance at a time, by the ledger and by a mark on each token
//! that keeps data objects. Any other keeper uses no key, not even a ZSK, and takes nothing but the way out:
//! a move-appliance motion.
//!
//! ```text
//! founding: claim (line 1) ──► marks ──► keys                    another's mark that outranks ours: stop
//! move in force on another box: tokens marked ──► SETTLE, so that the box before has looked and stopped
//!                               ──► looked again: nothing outranks ours ──► keys
//! ```
//!
//! A mark's rank is the ledger's origin and the line that made its instance the holder; the highest counts
//! and there is no expiry. Two by one rank are two ledgers that went apart: both stop. Each process writes
//! its own `run` into its mark, so that of two exact copies of one box the one that started first stops
//! at its next look: nothing else tells a copy that was started from a box that was restarted.
//!
//! What it does not do: fence. Between another's mark and the next look ([`LOOK_EVERY`], each opening, each
//! KSK use) both use keys; and of a token without data objects the ledger alone says who holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use countersign_policy::instance::{InstanceId, InstanceMark, Standing};
use countersign_policy::ledger::LedgerState;
use countersign_policy::tree::Hash;

use super::door::Hsm;
use super::instance;
use super::marks;
use super::seal::STATE_LABEL;
use crate::ledger::{Ledger, Note};

/// The label of the data object with the holder's mark.
pub const INSTANCE_LABEL: &str = "countersign-instance";
/// Between looks at every token: for so long two boxes may both use keys after a move that nobody
/// stopped the first for. A look is a few calls a token.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// From marking the tokens of a box before to the first use of a key: three looks of that box.
pub const SETTLE: Duration = Duration::from_secs(15);

/// What was seen on one token.
#[derive(Debug, Default)]
struct OnToken {
    /// More than one after a crash, or beside another keeper.
    marks: Vec<InstanceMark>,
    /// This process has put its mark on it.
    is_ours: bool,
    /// What it carried before that: processes that ended.
    earlier: BTreeSet<Hash>,
}

/// Why no key is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// What is so, and what to do.
    pub why: String,
    /// This box is the holder, and is about to take the tokens.
    pub is_taking_over: bool,
}

/// Which instance this is, and who holds the tokens as far as it was seen.
#[derive(Debug)]
pub struct Holding {
    own: InstanceId,
    run: Hash,
    tokens: Mutex<BTreeMap<String, OnToken>>,
    /// Tokens were taken from another box, and it gets the time to notice.
    settles: Mutex<Option<Instant>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these; a poisoned lock still guards whole data.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Holding {
    /// Of this instance, by a process that starts now.
    pub fn new(own: InstanceId) -> Result<Self, String> {
        let run = instance::random()?;
        Ok(Self { own, run, tokens: Mutex::default(), settles: Mutex::default() })
    }

    /// Which instance this is.
    pub fn own(&self) -> InstanceId {
        self.own
    }

    /// Takes down the marks that a token carries now.
    pub fn see(
        &self,
        token: &str,
        values: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<(), String> {
        let marks = values.into_iter().map(|value| InstanceMark::from_canonical(&value));
        let marks = marks.collect::<Result<Vec<_>, _>>().map_err(|error| {
            format!(
                "its data object `{INSTANCE_LABEL}` can't be read: {error}. hint: something else than a \
                 keeper wrote it"
            )
        })?;
        let mut tokens = locked(&self.tokens);
        let on_token = tokens.entry(token.to_owned()).or_default();
        // A write that was said to have failed, and has not.
        on_token.is_ours |= marks.iter().any(|mark| mark.run == self.run);
        if !on_token.is_ours {
            on_token.earlier.extend(marks.iter().map(|mark| mark.run));
        }
        on_token.marks = marks;
        Ok(())
    }

    /// Why this keeper uses no key, if another box holds the tokens or may.
    pub fn elsewhere(&self, state: &LedgerState) -> Option<Elsewhere> {
        let stop = |why: String| Some(Elsewhere { why, is_taking_over: false });
        let (own, holder) = (self.own, state.holder());
        let mut taken_from = None;
        for (token, on_token) in &*locked(&self.tokens) {
            for mark in &on_token.marks {
                if let Some(why) = self.speaks_against(state, (token, on_token), mark) {
                    return stop(why);
                }
                if mark.standing(holder) == Standing::Earlier && mark.instance != own {
                    taken_from = Some((token.clone(), mark.instance));
                }
            }
        }
        match holder {
            Some(holder) if holder.instance != own => stop(format!(
                "the tokens are held by instance {} since line {} of the ledger; this box is instance \
                 {own}. No key is used. hint: if that box is to go on, stop this one; else stop that one \
                 for good, and here: countersign propose move-appliance",
                holder.instance, holder.line
            )),
            Some(_) => self.taking_over(taken_from),
            None => None,
        }
    }

    /// What a mark on a token says against this keeper, by the ledger here.
    fn speaks_against(
        &self,
        state: &LedgerState,
        (token, on_token): (&str, &OnToken),
        mark: &InstanceMark,
    ) -> Option<String> {
        let InstanceMark { founding, instance, origin, line, run } = mark;
        let own = self.own;
        if state.appliance().is_some_and(|ours| ours != *founding) {
            return Some(format!(
                "token `{token}` is held by a box of another founding, {founding}. No key is used. hint: \
                 was it put into the wrong machine?"
            ));
        }
        let standing = match state.holder() {
            // A new origin gave up the line of that mark. Without this nobody could claim the tokens any
            // more, and no motion moves what nobody holds.
            None if *origin < state.origin() => Standing::Earlier,
            holder => mark.standing(holder),
        };
        match standing {
            Standing::Later => Some(format!(
                "token `{token}` is held by instance {instance} since line {line} (origin {origin}), which \
                 the ledger here does not have; this box is instance {own}. No key is used. hint: if that \
                 box is to go on, stop this one; else stop that one, restore its newest ledger here, and \
                 propose move-appliance"
            )),
            Standing::Tied => Some(format!(
                "token `{token}` is held by instance {instance} since line {line}, and by the ledger here \
                 another holds it since the same line: two ledgers went apart. No box uses a key. hint: \
                 decide which box goes on, stop the other, and propose move-appliance there"
            )),
            Standing::Same
                if on_token.is_ours && *run != self.run && !on_token.earlier.contains(run) =>
            {
                Some(format!(
                    "token `{token}` was marked by another keeper that says it is this box too (instance \
                     {own}): a copy of this box was started, or the token was put back to what it was \
                     before. No key is used here. hint: stop the copy, and restart this keeper"
                ))
            }
            Standing::Same | Standing::Earlier => None,
        }
    }

    fn taking_over(&self, taken_from: Option<(String, InstanceId)>) -> Option<Elsewhere> {
        let why = match taken_from {
            Some((token, before)) => format!(
                "token `{token}` still carries the mark of instance {before}; it is being taken over. \
                 hint: if it is gone for good, restart the keeper"
            ),
            None if locked(&self.settles).is_some() => {
                "the tokens were taken over from another box just now, which gets the time to notice"
                    .to_owned()
            }
            None => return None,
        };
        Some(Elsewhere { why, is_taking_over: true })
    }

    /// Writes the line of the first claim, where the ledger has none and no token speaks against it.
    pub fn claim(&self, ledger: &Ledger, now_s: u64) -> Result<(), String> {
        let is_free =
            ledger.read(|state| state.holder().is_none() && self.elsewhere(state).is_none());
        if !is_free {
            return Ok(());
        }
        ledger.note(Note::instance_claimed(self.own), now_s).map(drop).map_err(|e| e.to_string())
    }

    /// Tokens that this box holds by the ledger, that are open, and that do not carry its mark.
    pub fn unmarked<H: Hsm + ?Sized>(&self, state: &LedgerState, hsm: &H) -> Vec<String> {
        let holder = state.holder().filter(|holder| holder.instance == self.own);
        let (Some(founding), Some(holder)) = (state.appliance(), holder) else { return Vec::new() };
        if self.elsewhere(state).is_some_and(|other| !other.is_taking_over) {
            return Vec::new();
        }
        let ours = InstanceMark::of(founding, holder, self.run);
        let is_marked = |name: &String| {
            locked(&self.tokens).get(name).is_some_and(|on_token| on_token.marks.contains(&ours))
        };
        let mut present = marks::present(state, hsm);
        present.retain(|name| state.tokens().get(name).is_some_and(|token| token.data_objects));
        present.into_iter().filter(|name| !is_marked(name)).collect()
    }

    /// Puts this process's mark on a token in place of those of before, unless one outranks it.
    pub fn mark<H: Hsm + ?Sized>(
        &self,
        ledger: &Ledger,
        hsm: &H,
        token: &str,
    ) -> Result<(), String> {
        self.look(hsm, token)?;
        let (mark, sealed) = ledger.read(|state| {
            if let Some(Elsewhere { why, is_taking_over: false }) = self.elsewhere(state) {
                return Err(why);
            }
            let founding = state.appliance().ok_or("there is no founding")?;
            let holder = state.holder().ok_or("nobody has claimed the tokens")?;
            Ok((InstanceMark::of(founding, holder, self.run), state.token_state()))
        })?;
        let is_taken = {
            let tokens = locked(&self.tokens);
            let marks = tokens.get(token).map(|on_token| on_token.marks.as_slice());
            marks.unwrap_or_default().iter().any(|mark| mark.instance != self.own)
        };
        if is_taken {
            tracing::warn!(token, instance = %self.own, "a token is taken over from another box");
            *locked(&self.settles) = Some(Instant::now() + SETTLE);
            // A ledger without the line of this move is behind from here on.
            let sealed = sealed.ok_or("there is no founding")?.to_canonical();
            hsm.write_data(token, STATE_LABEL, &sealed).map_err(|e| e.to_string())?;
        }
        hsm.write_data(token, INSTANCE_LABEL, &mark.to_canonical()).map_err(|e| e.to_string())?;
        if let Some(on_token) = locked(&self.tokens).get_mut(token) {
            on_token.is_ours = true;
        }
        // What another keeper wrote at the same time is seen here, or at its next look there.
        self.look(hsm, token)
    }

    /// Reads what a token says now.
    pub fn look<H: Hsm + ?Sized>(&self, hsm: &H, token: &str) -> Result<(), String> {
        let values = hsm.read_data(token, INSTANCE_LABEL).map_err(|e| e.to_string())?;
        self.see(token, values)
    }

    /// After a look at every token: a take-over is over when its time is.
    pub fn settle(&self) {
        let mut settles = locked(&self.settles);
        if settles.is_some_and(|until| until <= Instant::now()) {
            *settles = None;
        }
    }
}

#[cfg(test)]
mod tests;
