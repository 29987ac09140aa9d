//! Seals: how the ledger's size and root are put where an older copy of it can't reach.
//!
//! ```text
//! KSK operation: intent on the disk ──► checkpoint signed and kept ──► size and root on the group's
//! tokens ──► HSM ──► outcome
//! ```
//!
//! A checkpoint that can't be made is told and stops nothing; a token that could hold the size and root
//! and does not take them stops the operation. What a token or the kept checkpoint says is compared
//! with the ledger whenever it is seen: a ledger that is older, or another one, is *behind*, and no key
//! is used until it is restored or the recovery group starts a new origin. (The files of a software
//! token can be rolled back together with the ledger: there the officers' own checkpoints are the
//! guard.)

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use countersign_policy::checkpoint::{self, NOTE_BYTES_MAX};
use countersign_policy::ledger::LedgerState;
use countersign_policy::motion::MotionKind;
use countersign_policy::state::{TokenState, Versioned};
use countersign_policy::tree::TreeHead;

use super::config::read_bounded;
use super::door::Hsm;
use super::holding::{Elsewhere, Holding, INSTANCE_LABEL};
use super::{instance, marks};
use crate::ledger::Ledger;
use crate::pkcs11::DataObject;

/// The label of the data object with the ledger's size and root.
pub const STATE_LABEL: &str = "countersign-state";
/// The newest checkpoint in the state directory.
pub const CHECKPOINT_FILE: &str = "checkpoint";

/// What someone outside of the ledger's file says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Claim {
    /// A token.
    Token(TokenState),
    /// The kept checkpoint.
    Checkpoint(TreeHead),
}

impl Claim {
    fn head(&self) -> TreeHead {
        match self {
            Self::Token(state) => state.head(),
            Self::Checkpoint(head) => *head,
        }
    }

    fn check(&self, state: &LedgerState) -> Result<(), String> {
        match self {
            Self::Token(seen) => state.accepts_token_state(seen).map_err(|e| e.to_string()),
            Self::Checkpoint(head) => accepts_checkpoint(state, head),
        }
    }
}

/// A checkpoint says of lines what a token does, and nothing of officers, rules and origin: it may be of
/// this origin or of the first, whose lost lines are known.
fn accepts_checkpoint(state: &LedgerState, head: &TreeHead) -> Result<(), String> {
    let here = state.token_state().ok_or("there is no founding")?;
    let nothing = |of: Versioned| Versioned { version: 0, ..of };
    let seen = TokenState {
        size: head.size,
        root: head.root,
        officers: nothing(here.officers),
        rules: nothing(here.rules),
        ..here
    };
    state
        .accepts_token_state(&seen)
        .or_else(|fault| {
            if here.origin == 0 {
                return Err(fault);
            }
            state.accepts_token_state(&TokenState { origin: 0, ..seen })
        })
        .map_err(|fault| fault.to_string())
}

/// Why the keeper uses no key, and what it takes all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Idle {
    /// Something speaks against the ledger.
    Behind(String),
    /// Another box holds the tokens, or they are being taken over from it.
    Elsewhere(Elsewhere),
}

impl Idle {
    /// What is so, and what to do.
    pub fn why(&self) -> &str {
        match self {
            Self::Behind(why) => why,
            Self::Elsewhere(elsewhere) => &elsewhere.why,
        }
    }

    /// Whether a motion of that sort is proposed, voted on and begun here meanwhile: the way out, and
    /// what people may need first. What is signed here for a ledger that another box goes on with
    /// would be lost.
    pub fn takes(&self, kind: MotionKind) -> bool {
        match self {
            Self::Behind(_) => kind == MotionKind::NewOrigin,
            Self::Elsewhere(elsewhere) => {
                elsewhere.is_taking_over
                    || matches!(
                        kind,
                        MotionKind::MoveAppliance
                            | MotionKind::ChangeOfficers
                            | MotionKind::ChangeRules
                            | MotionKind::RaiseTimeFloor
                    )
            }
        }
    }
}

/// What is sealed, what speaks against the ledger, and who holds the tokens.
#[derive(Debug)]
pub struct Seals {
    directory: PathBuf,
    holding: Holding,
    /// By who says it: claims that the ledger did not bear out when they were seen.
    against: Mutex<BTreeMap<String, Claim>>,
    /// Why the last checkpoint was not made or kept.
    problem: Mutex<Option<String>>,
    /// Tokens that are not used although they are there, by name, and why.
    refused: Mutex<BTreeMap<String, String>>,
    /// One at a time: the newest on a token is the newest there was. The last note and its head.
    turn: Mutex<Option<(TreeHead, String)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these; a poisoned lock still guards whole data.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seals {
    /// Compares the checkpoint that is kept in `directory` with the ledger. A file that is no checkpoint
    /// of this ledger by its audit key is an error: something else than the keeper wrote it.
    pub fn open(directory: &Path, ledger: &Ledger) -> Result<Self, String> {
        let holding = Holding::new(instance::load(directory)?)?;
        let seals = Self {
            directory: directory.to_owned(),
            holding,
            against: Mutex::default(),
            problem: Mutex::default(),
            refused: Mutex::default(),
            turn: Mutex::default(),
        };
        let path = directory.join(CHECKPOINT_FILE);
        if !path.exists() {
            return Ok(seals);
        }
        let fail = |problem: String| {
            format!(
                "{}: {problem}. hint: if it was damaged, compare the ledger with the officers' \
                 checkpoints, and remove it",
                path.display()
            )
        };
        let octets = read_bounded(&path, NOTE_BYTES_MAX as u64).map_err(fail)?;
        let note = std::str::from_utf8(&octets).map_err(|e| fail(e.to_string()))?;
        let head = ledger.read(|state| {
            let founding = state.appliance().ok_or("there is no founding")?;
            let (_, key) = state.audit().ok_or("there is no audit key")?;
            match checkpoint::verify(note, &checkpoint::origin(&founding), key) {
                Ok(head) => Ok(Some(head)),
                // Of the key before it was replaced: the next one takes its place.
                Err(checkpoint::CheckpointError::OtherKey { .. }) => Ok(None),
                Err(error) => Err(error.to_string()),
            }
        });
        if let Some(head) = head.map_err(fail)? {
            seals.compare(ledger, "the kept checkpoint", Claim::Checkpoint(head));
        }
        Ok(seals)
    }

    /// Whether a token that was opened is this appliance's, and what it says of the ledger; why it is
    /// not used.
    pub fn admit(&self, ledger: &Ledger, token: &str, data: &[DataObject]) -> Result<(), String> {
        let admitted = ledger
            .read(|state| marks::check(state, token, data))
            .and_then(|()| self.compare_data(ledger, token, data))
            .and_then(|()| {
                let marks = data.iter().filter(|object| object.label == INSTANCE_LABEL);
                self.holding.see(token, marks.map(|object| object.value.clone()))?;
                // Nor is a key proven for a box that does not hold the token.
                match ledger.read(|state| self.holding.elsewhere(state)) {
                    Some(Elsewhere { why, is_taking_over: false }) => Err(why),
                    _ => Ok(()),
                }
            });
        match &admitted {
            Ok(()) => _ = locked(&self.refused).remove(token),
            Err(why) => self.refuse(token, why),
        }
        admitted
    }

    /// Takes down that a token is not used although it is there.
    pub fn refuse(&self, token: &str, why: &str) {
        tracing::error!(token, why, "a token is not used");
        locked(&self.refused).insert(token.to_owned(), why.to_owned());
    }

    /// Tokens that are not used although they are there, and why.
    pub fn refused(&self) -> BTreeMap<String, String> {
        locked(&self.refused).clone()
    }

    /// Why no key is used, if something speaks against the ledger now.
    pub fn behind(&self, ledger: &Ledger) -> Option<String> {
        let mut against = locked(&self.against);
        if against.is_empty() {
            return None;
        }
        ledger.read(|state| {
            // What a new origin settled is settled.
            against.retain(|_, claim| claim.check(state).is_err());
            let (who, claim) = against.iter().max_by_key(|(_, claim)| claim.head().size)?;
            let why = claim.check(state).err()?;
            let says = match claim {
                Claim::Token(seen) => format!(
                    "`{}`, officers version {}, rules version {}, origin {}",
                    seen.head(), seen.officers.version, seen.rules.version, seen.origin
                ),
                Claim::Checkpoint(head) => format!("`{head}`"),
            };
            Some(format!(
                "the ledger here has `{}`, and {who} says {says}: {why}. No key is used. hint: restore \
                 the newest ledger; if it is lost, the recovery group proposes new-origin",
                state.tree().head()
            ))
        })
    }

    /// Which instance this is, and who holds the tokens.
    pub fn holding(&self) -> &Holding {
        &self.holding
    }

    /// Why no key is used now, if none is. A ledger that another box went on with is behind too: both are
    /// told, and the lines that are missing come first of what is to be mended.
    pub fn idle(&self, ledger: &Ledger) -> Option<Idle> {
        let elsewhere = ledger.read(|state| self.holding.elsewhere(state));
        match (self.behind(ledger), elsewhere) {
            (Some(behind), Some(Elsewhere { why, .. })) => {
                Some(Idle::Behind(format!("{why}. And {behind}")))
            }
            (Some(behind), None) => Some(Idle::Behind(behind)),
            (None, elsewhere) => elsewhere.map(Idle::Elsewhere),
        }
    }

    /// The same, as an error.
    pub fn check_idle(&self, ledger: &Ledger) -> Result<(), String> {
        self.idle(ledger).map_or(Ok(()), |idle| Err(idle.why().to_owned()))
    }

    /// Looks at every token that is open: who holds it, and what it says of the ledger. What can't be
    /// read is no token to sign with either; it is looked at when it is opened again.
    pub fn look<H: Hsm + ?Sized>(&self, ledger: &Ledger, hsm: &H) {
        let tokens = ledger.read(|state| {
            let mut present = marks::present(state, hsm);
            present.retain(|name| state.tokens().get(name).is_some_and(|t| t.data_objects));
            present
        });
        let was = self.idle(ledger);
        let mut seen_all = true;
        for token in tokens {
            let looked = self.look_at(ledger, hsm, &token);
            seen_all &= looked.is_ok();
            if let Err(problem) = looked {
                tracing::warn!(token, problem, "a token could not be looked at");
            }
        }
        if seen_all {
            self.holding.settle();
        }
        match (was, self.idle(ledger)) {
            (None, Some(idle)) => tracing::error!(why = idle.why(), "no key is used from now on"),
            (Some(_), None) => tracing::warn!("keys are used again"),
            _ => {}
        }
    }

    /// Puts this box's mark on a token. One that has seen lines since it was opened that the ledger here does
    /// not have goes on saying so.
    pub fn mark<H: Hsm + ?Sized>(
        &self,
        ledger: &Ledger,
        hsm: &H,
        token: &str,
    ) -> Result<(), String> {
        self.look_at(ledger, hsm, token)?;
        self.behind(ledger).map_or(Ok(()), Err)?;
        self.holding.mark(ledger, hsm, token)
    }

    fn look_at<H: Hsm + ?Sized>(
        &self,
        ledger: &Ledger,
        hsm: &H,
        token: &str,
    ) -> Result<(), String> {
        self.holding.look(hsm, token)?;
        let states = hsm.read_data(token, STATE_LABEL).map_err(|e| e.to_string())?;
        self.compare_token(ledger, token, states)
    }

    /// Whether a new origin gives up exactly what is known to be missing, and takes up no version of
    /// officers or rules that was used in it.
    pub fn check_given_up(&self, lost: &TreeHead, officers: u64, rules: u64) -> Result<(), String> {
        let against = locked(&self.against);
        let newest = against.values().map(Claim::head).max_by_key(|head| head.size);
        if newest != Some(*lost) {
            return Err(format!(
                "it gives up `{lost}`, and what is known to be lost is {}",
                newest.map_or("nothing".to_owned(), |head| format!("`{head}`"))
            ));
        }
        for claim in against.values() {
            let Claim::Token(seen) = claim else { continue };
            let used = (seen.officers.version, seen.rules.version);
            if officers < used.0 || rules < used.1 {
                return Err(format!(
                    "it goes on from officers version {officers} and rules version {rules}; a token has \
                     seen versions {} and {}",
                    used.0, used.1
                ));
            }
        }
        Ok(())
    }

    /// Why the last checkpoint was not made or kept.
    pub fn problem(&self) -> Option<String> {
        locked(&self.problem).clone()
    }

    /// Compares what a token says of the ledger with it: when it is opened, and before it is written to.
    pub fn compare_token(
        &self,
        ledger: &Ledger,
        token: &str,
        values: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<(), String> {
        // More than one after a crash: the highest counts, and each has to be borne out.
        for value in values {
            let seen = TokenState::from_canonical(&value).map_err(|error| {
                format!(
                    "its data object `{STATE_LABEL}` can't be read: {error}. hint: something else \
                     than a keeper wrote it"
                )
            })?;
            self.compare(ledger, &format!("token `{token}`"), Claim::Token(seen));
        }
        Ok(())
    }

    /// As [`Self::compare_token`], of what a token's opening lists.
    fn compare_data(
        &self,
        ledger: &Ledger,
        token: &str,
        data: &[DataObject],
    ) -> Result<(), String> {
        let states = data.iter().filter(|object| object.label == STATE_LABEL);
        self.compare_token(ledger, token, states.map(|object| object.value.clone()))
    }

    fn compare(&self, ledger: &Ledger, who: &str, claim: Claim) {
        let Err(why) = ledger.read(|state| claim.check(state)) else { return };
        tracing::error!(who, %why, "the ledger is behind: no key is used");
        let mut against = locked(&self.against);
        // Of several by one token, the one that says most.
        let is_less = against.get(who).is_some_and(|before| before.head().size > claim.head().size);
        if !is_less {
            against.insert(who.to_owned(), claim);
        }
    }

    /// A checkpoint of the ledger as it is now, kept in the state directory too.
    pub fn checkpoint<H: Hsm + ?Sized>(&self, ledger: &Ledger, hsm: &H) -> Result<String, String> {
        let mut last = locked(&self.turn);
        self.renew(&mut last, ledger, hsm)
    }

    /// Before a KSK of `group` is used, made or destroyed, and behind its intent.
    pub fn before_use<H: Hsm + ?Sized>(
        &self,
        ledger: &Ledger,
        hsm: &H,
        group: &str,
    ) -> Result<(), String> {
        let mut last = locked(&self.turn);
        if let Err(problem) = self.renew(&mut last, ledger, hsm) {
            tracing::error!(problem, "a checkpoint was not made or not kept");
        }
        let (now, tokens, usable) = ledger.read(|state| {
            let holds = |name: &&str| state.tokens().get(*name).is_some_and(|t| t.data_objects);
            let tokens: BTreeSet<String> =
                state.tokens_of(group).filter(holds).map(str::to_owned).collect();
            let present = marks::present(state, hsm);
            let usable: Vec<String> = tokens.intersection(&present).cloned().collect();
            (state.token_state(), tokens, usable)
        });
        let now = now.ok_or("there is no founding")?;
        let mut problems = Vec::new();
        let mut written = 0;
        for token in &usable {
            let result = self.look_at(ledger, hsm, token).and_then(|()| {
                self.check_idle(ledger)?;
                hsm.write_data(token, STATE_LABEL, &now.to_canonical()).map_err(|e| e.to_string())
            });
            match result {
                Ok(()) => written += 1,
                Err(problem) => problems.push(format!("token `{token}`: {problem}")),
            }
        }
        self.check_idle(ledger)?;
        if written == 0 && !tokens.is_empty() {
            if problems.is_empty() {
                problems.push("none of its tokens that hold data objects is usable".to_owned());
            }
            return Err(format!(
                "the ledger's size and root are on no token of group `{group}`: {}",
                problems.join("; ")
            ));
        }
        Ok(())
    }

    fn renew<H: Hsm + ?Sized>(
        &self,
        last: &mut Option<(TreeHead, String)>,
        ledger: &Ledger,
        hsm: &H,
    ) -> Result<String, String> {
        let result = self.sign(last, ledger, hsm);
        *locked(&self.problem) = result.as_ref().err().cloned();
        result
    }

    fn sign<H: Hsm + ?Sized>(
        &self,
        last: &mut Option<(TreeHead, String)>,
        ledger: &Ledger,
        hsm: &H,
    ) -> Result<String, String> {
        self.check_idle(ledger)?;
        let (head, origin, token, key) = ledger.read(|state| {
            let founding = state.appliance().ok_or("there is no founding")?;
            let (token, key) = state.audit().ok_or("there is no audit key")?;
            let origin = checkpoint::origin(&founding);
            Ok::<_, String>((state.tree().head(), origin, token.to_owned(), key.clone()))
        })?;
        if let Some((of, note)) = last
            && *of == head
        {
            return Ok(note.clone());
        }
        let body = checkpoint::body(&origin, &head);
        let signature = hsm
            .sign_audit(&token, key.public(), body.as_bytes())
            .map_err(|e| format!("the audit key's token: {e}"))?;
        let note = checkpoint::assemble(&origin, &head, &key, &signature)
            .map_err(|e| format!("token `{token}`: {e}"))?;
        self.keep(note.as_str())
            .map_err(|e| format!("{}: {e}", self.directory.join(CHECKPOINT_FILE).display()))?;
        *last = Some((head, note.as_str().to_owned()));
        Ok(note.into())
    }

    /// Puts the note in the place of the one before: a crash leaves either whole.
    fn keep(&self, note: &str) -> io::Result<()> {
        put_in_place(&self.directory.join(CHECKPOINT_FILE), note.as_bytes())
    }
}

/// Puts a file of the state directory in the place of the one before: a crash leaves either whole.
pub(super) fn put_in_place(path: &Path, octets: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(octets)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests;
