//! The doors to the tokens: what the keeper may ask of them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use countersign_policy::{Algorithm, KeyId, PublicKey};

use super::batch::{Batch, Progress, Signature};
use super::error::{HsmError, Trouble};
use super::registry::ExpectedKey;
use super::root::{Ended, Job, Root};
use super::shared::Shared;
use super::token::{Phase, Token};
use super::{Admission, Event, KeyStatus, TokenSpec, WORKERS_MAX, watch};
use crate::protocol::TokenHealth;

/// How long a requester waits for a whole batch, whatever happens: longer than any daemon waits
/// for its answer, so that it bounds threads and nothing else.
const BATCH_WAIT_MAX: Duration = Duration::from_secs(120);
/// How often a requester of a single job looks whether its token is still the one it asked.
const JOB_LOOK: Duration = Duration::from_millis(20);
/// How long a token that was lost has for the answer that it may have had ready.
const LAST_ANSWER: Duration = Duration::from_millis(100);

/// DNS types whose signatures need an [`Authorised`] value, or are not made at all (RFC 4034 §2,
/// RFC 7344, RFC 7477): DNSKEY, CDS, CDNSKEY, CSYNC.
const NOT_BY_ZONE_DOOR: [u16; 4] = [48, 59, 60, 62];

/// All tokens of this keeper. Dropping it lets their threads end, and waits for none.
pub struct Tokens {
    pub(super) shared: Arc<Shared>,
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Tokens {
    /// Opens the tokens in the background. `state_dir` keeps the marks of logins and hangs, and must
    /// be writable; `events` is where conflicts and lost groups are told.
    pub fn open(
        specs: Vec<TokenSpec>,
        state_dir: &Path,
        events: Sender<Event>,
    ) -> Result<Self, HsmError> {
        Self::open_admitted(specs, state_dir, events, None)
    }

    /// As [`Self::open`], and each time that a token was opened, `admission` says by its data objects
    /// whether it may be used. One that may not is looked at again later, as one that can't be opened.
    pub fn open_admitted(
        specs: Vec<TokenSpec>,
        state_dir: &Path,
        events: Sender<Event>,
        admission: Option<Admission>,
    ) -> Result<Self, HsmError> {
        for (at, spec) in specs.iter().enumerate() {
            check_spec(spec, &specs[..at])?;
        }
        let token = |(index, spec)| Arc::new(Token::new(index, spec, state_dir));
        let tokens = specs.into_iter().enumerate().map(token).collect();
        let shared = Arc::new(Shared::new(tokens, events, admission));
        watch::spawn(Arc::clone(&shared))
            .map_err(|e| HsmError::Unavailable(format!("can't start a thread: {e}")))?;
        Ok(Self { shared })
    }

    /// Expects these keys too, from now on, and waits until the open tokens of their groups have
    /// been looked at (tokens that open later look by themselves).
    pub fn expect_keys(&self, keys: Vec<ExpectedKey>) {
        let mut groups: Vec<String> = keys.iter().map(|key| key.group.clone()).collect();
        groups.sort_unstable();
        groups.dedup();
        let added = self.shared.keys().expect(keys);
        if !added.is_empty() {
            for group in groups {
                self.on_group(&group, |reply| Job::Prove {
                    keys: added.clone(),
                    reply: Some(reply),
                });
            }
        }
    }

    /// Closes a token and opens it anew, so that its admission is asked again.
    pub fn reopen(&self, token: &str, reason: &str) {
        if let Ok(token) = self.shared.token_named(token) {
            self.shared.pause(token, reason);
        }
    }

    /// Expects this key no longer: it was destroyed.
    pub fn forget_key(&self, key: &KeyId) {
        self.shared.keys().forget(key);
    }

    /// Lists the open tokens of the key's group anew, has them prove it again, and says how it
    /// stands.
    pub fn reprove(&self, key: &KeyId) -> Result<KeyStatus, HsmError> {
        let expected = self.shared.keys().expected(key).ok_or(HsmError::UnknownKey(*key))?;
        self.on_group(&expected.group, |reply| Job::Relist { all: false, reply: Some(reply) });
        self.on_group(&expected.group, |reply| Job::Prove { keys: vec![*key], reply: Some(reply) });
        self.key_status(key).ok_or(HsmError::UnknownKey(*key))
    }

    /// How a key stands; `None` if it is not expected.
    pub fn key_status(&self, key: &KeyId) -> Option<KeyStatus> {
        self.shared.keys().status(key, |token| self.shared.name(token))
    }

    /// The public half of an expected key, as it was given or as some token has shown it since. A KSK's
    /// is for nobody's eyes before its activation.
    pub fn public_key(&self, key: &KeyId) -> Option<PublicKey> {
        self.shared.keys().expected(key)?.identity.public().cloned()
    }

    /// Waits until each token was opened or found wanting once, at most so long; whether they were.
    pub fn wait_settled(&self, at_most: Duration) -> bool {
        let give_up = Instant::now() + at_most;
        loop {
            let seen = self.shared.changes();
            if self.shared.tokens.iter().all(|token| token.life().settled) {
                return true;
            }
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.shared.wait_change(seen, left);
        }
    }

    /// Every token, as it stands.
    pub fn health(&self) -> Vec<TokenHealth> {
        let keys_proven = |token: &Token| {
            u32::try_from(self.shared.keys().proven_count(token.index)).unwrap_or(u32::MAX)
        };
        self.shared
            .tokens
            .iter()
            .map(|token| TokenHealth {
                name: token.spec.name.clone(),
                group: token.spec.group.clone(),
                label: token.spec.label.clone(),
                serial: token.spec.serial.clone(),
                state: token.state(),
                sessions: token.sessions.load(Relaxed),
                keys_proven: keys_proven(token),
                queued: token.queue.len() as u32,
                signatures: token.counters.signatures(),
                failures: token.counters.failures(),
                latency_counts: token.counters.latency_counts(),
                latency_sum_us: token.counters.latency_sum_us(),
            })
            .collect()
    }

    /// Whether every open token of `group` can make and use such keys; an error when one can't, or
    /// when none is open to ask.
    pub fn supports(
        &self,
        group: &str,
        algorithm: Algorithm,
        rsa_bits: Option<u16>,
    ) -> Result<(), HsmError> {
        let mut asked = false;
        for token in self.shared.group(group) {
            let Some(offered) = token.life().offered.clone() else { continue };
            asked = true;
            offered.supports(algorithm, rsa_bits).map_err(|missing| HsmError::Unsupported {
                token: token.spec.name.clone(),
                algorithm,
                missing,
            })?;
        }
        if asked { Ok(()) } else { Err(self.unavailable(group, None)) }
    }

    /// Signs to-be-signed bytes (RFC 4034 §3.1.8.1) with a ZSK, or a CSK under the ZSK's rule, on all
    /// tokens that have proven the key. Answers come in the order of the messages. The lengths of
    /// signatures are checked here; the daemon verifies each.
    pub fn sign_zone(&self, key: &KeyId, messages: Vec<Vec<u8>>) -> Vec<Signature> {
        let count = messages.len();
        let refuse = |error: HsmError| vec![Err(error); count];
        let Some(expected) = self.shared.keys().expected(key) else {
            return refuse(HsmError::UnknownKey(*key));
        };
        if !expected.role.signs_zone() {
            return refuse(HsmError::NotAuthorised(format!(
                "key {key} is a {}, which signs through the ledger alone",
                expected.role
            )));
        }
        let barred = |message: &Vec<u8>| match message.first_chunk::<2>() {
            Some(covered) => NOT_BY_ZONE_DOOR.contains(&u16::from_be_bytes(*covered)),
            None => true,
        };
        if messages.iter().any(barred) {
            return refuse(HsmError::NotAuthorised(
                "DNSKEY, CDS, CDNSKEY and CSYNC are not signed with a zone's messages".to_owned(),
            ));
        }
        let public = match self.public_half(&expected) {
            Ok(public) => public,
            Err(error) => return refuse(error),
        };
        let batch = Batch::new(*key, public, false, messages);
        self.run(&batch, &expected.group)
    }

    /// The public half of a key that is to sign, or why it can't sign.
    pub(super) fn public_half(&self, key: &ExpectedKey) -> Result<PublicKey, HsmError> {
        if let Some(public) = key.identity.public() {
            return Ok(public.clone());
        }
        // A conflict says more than that it is not known.
        self.shared.keys().holders(&key.id(), |token| self.shared.name(token))?;
        Err(HsmError::Unavailable(format!(
            "no open token of group `{}` has shown a public key object of key {} yet",
            key.group,
            key.id()
        )))
    }

    /// Lets every thread end and waits for them, at most so long; whether all did. To be called before
    /// the process ends: a thread that is still in a module when that is torn down crashes it. After a
    /// "no", end with [`super::exit_past_modules`].
    pub fn close(&self, at_most: Duration) -> bool {
        self.shared.stop();
        let give_up = Instant::now() + at_most;
        loop {
            let seen = self.shared.changes();
            if self.shared.tokens.iter().all(|token| token.calls().is_empty()) {
                return true;
            }
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.shared.wait_change(seen, left);
        }
    }

    // ---- how a batch is carried through ----

    /// Invites workers of all tokens that have proven the key, and again whenever work is left
    /// that nobody is at.
    pub(super) fn run(&self, batch: &Arc<Batch>, group: &str) -> Vec<Signature> {
        let start = Instant::now();
        let mut asked_to_relist = false;
        // How long to wait for a token that is being opened again: two deadlines of the slowest.
        let grace = self.shared.group(group).map(|token| token.spec.deadline * 2).max();
        let grace = grace.unwrap_or_default();
        let mut idle_since: Option<Instant> = None;
        loop {
            let seen = self.shared.changes();
            // Asked before anyone is invited, too: a token that is opened in between would be neither
            // invited nor on its way.
            let coming = self.is_one_coming(group);
            match batch.wait(Duration::from_millis(50)) {
                Progress::Done => break,
                Progress::Working => {}
                Progress::Stranded { todo } => match self.invite(batch, group, todo) {
                    Ok(true) => idle_since = None,
                    Ok(false) => {
                        let since = *idle_since.get_or_insert_with(Instant::now);
                        if !asked_to_relist && self.is_settled(group) {
                            // Perhaps it was put on a token by another tool.
                            asked_to_relist = true;
                            self.on_group(group, |reply| Job::RelistOld { reply });
                            continue;
                        }
                        if since.elapsed() > grace || !(coming || self.is_one_coming(group)) {
                            batch.close(&self.unavailable(group, batch.last_error()));
                            break;
                        }
                        self.shared.wait_change(seen, Duration::from_millis(50));
                    }
                    Err(error) => {
                        batch.close(&error);
                        break;
                    }
                },
            }
            if start.elapsed() > BATCH_WAIT_MAX {
                batch.close(&HsmError::Unavailable("the batch took too long".to_owned()));
                break;
            }
        }
        let results = batch.results(&HsmError::Unavailable("no answer".to_owned()));
        // A conflict that came up meanwhile: what is signed already is not let out either.
        match self.shared.keys().holders(&batch.key, |token| self.shared.name(token)) {
            Err(error @ HsmError::Conflict { .. }) => vec![Err(error); results.len()],
            _ => results,
        }
    }

    /// Whether anyone was invited.
    fn invite(&self, batch: &Arc<Batch>, group: &str, todo: usize) -> Result<bool, HsmError> {
        let holders = self.shared.keys().holders(&batch.key, |token| self.shared.name(token))?;
        if !self.is_settled(group) {
            return Ok(false);
        }
        let fit: Vec<&Arc<Token>> = holders
            .into_iter()
            .map(|token| &self.shared.tokens[token])
            .filter(|token| token.is_usable() && !batch.is_barred(token.index, token.generation()))
            .collect();
        // One invitation a message at most, dealt out in turn: first one to each token.
        let most = fit.iter().map(|token| token.spec.workers).max().unwrap_or_default();
        let rounds =
            (0..most).flat_map(|round| fit.iter().filter(move |token| round < token.spec.workers));
        let mut invited = 0;
        for token in rounds.take(todo) {
            if token.queue.push(batch.ticket(token.index)) {
                invited += 1;
            }
        }
        if invited == 0 && !fit.is_empty() {
            return Err(HsmError::Busy(group.to_owned()));
        }
        Ok(invited > 0)
    }

    fn is_settled(&self, group: &str) -> bool {
        self.shared.group(group).all(|token| token.life().settled)
    }

    /// Whether a token of the group is on its way and may yet take the work.
    fn is_one_coming(&self, group: &str) -> bool {
        self.shared.group(group).any(|token| {
            let life = token.life();
            match life.phase {
                Phase::Opening => true,
                Phase::Waiting { .. } => life.failure.is_none(),
                Phase::Usable { .. } | Phase::Hung { .. } | Phase::PinRefused { .. } => false,
            }
        })
    }

    fn unavailable(&self, group: &str, last: Option<HsmError>) -> HsmError {
        if let Some(error @ HsmError::BadSignature { .. }) = last {
            return error;
        }
        let mut reasons: Vec<String> = self
            .shared
            .group(group)
            .map(|token| {
                let state = match token.state() {
                    crate::protocol::TokenState::Probing => "is being opened".to_owned(),
                    crate::protocol::TokenState::Usable => "is usable, without the key".to_owned(),
                    crate::protocol::TokenState::Unusable(reason) => reason,
                };
                format!("token `{}`: {state}", token.spec.name)
            })
            .collect();
        if reasons.is_empty() {
            reasons.push(format!("group `{group}` has no token"));
        }
        reasons.extend(last.map(|error| format!("last: {error}")));
        HsmError::Unavailable(reasons.join("; "))
    }

    // ---- how a job is asked of a root thread ----

    /// Has a root thread do some work.
    pub(super) fn on_root<T: Send + 'static>(
        &self,
        token: &Token,
        work: impl FnOnce(&mut Root<'_>) -> Ended<T> + Send + 'static,
    ) -> Result<T, HsmError> {
        self.ask(token, |reply| {
            Job::Do(Box::new(move |root| {
                let ended = work(root);
                root.end(reply, ended)
            }))
        })?
    }

    /// Has a root thread look at something: that has no outcome which could be unknown.
    pub(super) fn look<T: Send + 'static>(
        &self,
        token: &str,
        look: impl FnOnce(&mut Root<'_>) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, HsmError> {
        let token = self.shared.token_named(token)?;
        match self.on_root(token, |root| {
            let result = look(root);
            root.ended(result)
        }) {
            Err(HsmError::OutcomeUnknown { detail, .. }) => Err(HsmError::Unavailable(detail)),
            answer => answer,
        }
    }

    /// Asks a root thread, and waits for as long as that thread is the token's.
    fn ask<T>(&self, token: &Token, job: impl FnOnce(SyncSender<T>) -> Job) -> Result<T, HsmError> {
        let name = || token.spec.name.clone();
        let (reply, answer) = sync_channel(1);
        let generation = token.generation();
        let root = token.life().root.clone();
        let Some(root) = root.filter(|_| token.is_usable()) else {
            return Err(self.unavailable(&token.spec.group, None));
        };
        match root.try_send(job(reply)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(HsmError::Busy(token.spec.group.clone())),
            Err(TrySendError::Disconnected(_)) => {
                return Err(self.unavailable(&token.spec.group, None));
            }
        }
        drop(root);
        self.wait_answer(token, generation, &answer).ok_or_else(|| HsmError::OutcomeUnknown {
            token: name(),
            detail: match token.state() {
                crate::protocol::TokenState::Unusable(reason) => reason,
                _ => "the token was lost meanwhile".to_owned(),
            },
        })
    }

    fn wait_answer<T>(&self, token: &Token, generation: u64, answer: &Receiver<T>) -> Option<T> {
        loop {
            match answer.recv_timeout(JOB_LOOK) {
                Ok(value) => return Some(value),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    if !token.is_at(generation) || self.shared.is_stopping() {
                        // It may be about to answer: a lost token is told before its last answer.
                        return answer.recv_timeout(LAST_ANSWER).ok();
                    }
                }
            }
        }
    }

    /// Has all usable tokens of a group do something, and waits for them.
    fn on_group(&self, group: &str, job: impl Fn(SyncSender<()>) -> Job) {
        let mut asked = Vec::new();
        for token in self.shared.group(group) {
            let (reply, answer) = sync_channel(1);
            let generation = token.generation();
            let life = token.life();
            let Some(root) = &life.root else { continue };
            let sent = root.try_send(job(reply)).is_ok();
            if sent && matches!(life.phase, Phase::Usable { .. }) {
                drop(life);
                asked.push((token, generation, answer));
            }
        }
        for (token, generation, answer) in asked {
            // Lost meanwhile: it looks by itself when it is opened again.
            let _: Option<()> = self.wait_answer(token, generation, &answer);
        }
    }
}

pub(super) fn not_for(what: &str) -> HsmError {
    HsmError::NotAuthorised(format!("the ledger's intent is not for {what}"))
}

fn check_spec(spec: &TokenSpec, before: &[TokenSpec]) -> Result<(), HsmError> {
    let fail = |problem: &str| {
        Err(HsmError::Setting { token: spec.name.clone(), problem: problem.to_owned() })
    };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    if spec.name.is_empty() || spec.name.len() > 64 || !spec.name.bytes().all(plain) {
        return fail("the name is not 1 to 64 of a-z, 0-9, '-', '_', '.'");
    }
    if !(1..=WORKERS_MAX).contains(&spec.workers) {
        return fail("`workers` is out of range; expected 1 to 256");
    }
    if spec.queue_max == 0 || spec.deadline.is_zero() {
        return fail("`queue_max` and the deadline must not be 0");
    }
    for other in before {
        if other.name == spec.name {
            return fail("is named twice");
        }
        if (&other.module, &other.label, &other.serial) == (&spec.module, &spec.label, &spec.serial)
        {
            return fail("is the same token as another one");
        }
    }
    Ok(())
}
