//! The root thread of a token: opens it, proves its keys, starts its workers, and then does what
//! needs a writable session, one job at a time: lists, proves anew, and whatever else it is handed
//! as [`Work`].

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use countersign_policy::{KeyId, PublicKey};
use cryptoki::error::Error as CryptokiError;
use cryptoki::object::ObjectHandle;
use cryptoki::session::{Session, SessionState};
use tracing::warn;

use super::calls::Entered;
use super::error::{Fault, HsmError, Trouble};
use super::index::{Index, Object};
use super::module::Renewal;
use super::opening::{self, NotOpen, Open};
use super::registry::{ExpectedKey, Finding};
use super::shared::Shared;
use super::token::Token;
use super::{challenge, mechanism, worker};

/// Jobs that may wait for a root thread. They are rare: a flood of them is a mistake, and is told
/// "busy".
pub(super) const JOBS_MAX: usize = 64;

/// How often an idle token is asked whether it is still there and logged in.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// A key that is asked for and not there has the token listed again, but not more often than this: a
/// full token takes seconds to list.
const LISTING_NEW: Duration = Duration::from_secs(5);

/// What a root thread is asked to do. An answer that nobody waits for any more is dropped.
pub(super) enum Job {
    /// Prove these keys.
    Prove { keys: Vec<KeyId>, reply: Option<SyncSender<()>> },
    /// List the token anew and prove every expected key that is not proven, or with `all` every one.
    Relist { all: bool, reply: Option<SyncSender<()>> },
    /// The same for keys that are not proven, unless the listing is quite new.
    RelistOld { reply: SyncSender<()> },
    /// Do this.
    Do(Work),
}

/// Work for which a token's writable session is needed; it answers its asker by itself. An error is
/// one that costs the token.
pub(super) type Work = Box<dyn FnOnce(&mut Root<'_>) -> Result<(), Fault> + Send>;

/// How work ended: the answer, and the fault if it costs the token.
pub(super) type Ended<T> = (Result<T, HsmError>, Option<Fault>);

/// The root thread's whole life.
pub(super) fn run(
    shared: &Arc<Shared>,
    token: &Arc<Token>,
    generation: u64,
    jobs: &Receiver<Job>,
    renewal: Option<Renewal>,
) {
    let entered = Entered::new(token, shared, generation);
    if let Some(renewal) = renewal {
        let limit = token.listing_deadline();
        if let Err(fault) = entered.call("C_Finalize", limit, || renewal.run()) {
            return shared.lost(token, generation, fault.detail());
        }
    }
    match opening::open(&entered) {
        Ok(open) => {
            let mut root = Root { entered: &entered, open, listed: Instant::now() };
            if let Err(fault) = root.serve(jobs) {
                shared.lost(token, generation, fault.detail());
            }
        }
        Err(NotOpen::Later(reason)) => shared.lost(token, generation, &reason),
        Err(NotOpen::PinRefused(stamp, reason)) => {
            shared.pin_refused(token, generation, stamp, &reason);
        }
    }
}

/// A token's root thread at work.
pub(super) struct Root<'a> {
    pub(super) entered: &'a Entered,
    pub(super) open: Open<'a>,
    listed: Instant,
}

impl Root<'_> {
    pub(super) fn token(&self) -> &Token {
        &self.entered.token
    }

    fn serve(&mut self, jobs: &Receiver<Job>) -> Result<(), Fault> {
        if !self.entered.goes_on() {
            // A call of its opening hung, was given up, and came back at last.
            return Ok(());
        }
        self.admit()?;
        self.token().life().offered = Some(self.open.offered.clone());
        self.prove_all(true)?;
        for number in 0..self.token().spec.workers {
            if !worker::spawn(self.entered, &self.open.module, self.open.slot, number)? {
                break;
            }
        }
        self.entered.shared.usable(self.token(), self.entered.generation);
        while self.entered.goes_on() {
            match jobs.recv_timeout(HEARTBEAT) {
                Ok(job) => self.job(job)?,
                Err(RecvTimeoutError::Timeout) => self.heartbeat()?,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(())
    }

    /// Whether the token may be used, by what is on it.
    fn admit(&self) -> Result<(), Fault> {
        let Some(admission) = &self.entered.shared.admission else { return Ok(()) };
        let data = match self.data_objects(None) {
            Ok(data) => data,
            Err(Trouble::Refused(HsmError::NoDataObjects { .. })) => Vec::new(),
            Err(Trouble::Refused(error)) => return Err(Fault::Token(error.to_string())),
            Err(Trouble::Fault(fault)) => return Err(fault),
        };
        admission(&self.name(), &data).map_err(|reason| {
            // The module has done what it could: to renew it would change nothing.
            self.token().life().unserved = 0;
            Fault::Token(reason)
        })
    }

    fn heartbeat(&self) -> Result<(), Fault> {
        let session = self.open.session.get()?;
        let info = self
            .entered
            .call("C_GetSessionInfo", self.token().spec.deadline, || session.get_session_info())?;
        match info.session_state() {
            SessionState::RwUser | SessionState::RoUser => {}
            _ => return Err(Fault::Token("is no longer logged in".to_owned())),
        }
        // The session may look well while the token behind it is gone (SoftHSM).
        let (module, slot) = (&self.open.module, self.open.slot);
        self.entered.call("C_GetTokenInfo", self.token().spec.deadline, || {
            module.get_token_info(slot).map(drop).map_err(Fault::from)
        })
    }

    /// Does a job; an error is one that costs the token.
    fn job(&mut self, job: Job) -> Result<(), Fault> {
        match job {
            Job::Prove { keys, reply } => {
                let result = self.prove(&keys);
                answer(reply, ());
                result
            }
            Job::Relist { all, reply } => {
                let result = self.relist(all);
                answer(reply, ());
                result
            }
            Job::RelistOld { reply } => {
                let old = self.listed.elapsed() > LISTING_NEW;
                let result = if old { self.relist(false) } else { Ok(()) };
                answer(Some(reply), ());
                result
            }
            Job::Do(work) => work(self),
        }
    }

    /// Answers; a fault that costs the token is told first, so that whoever has the answer sees the
    /// token's new state.
    pub(super) fn end<T>(
        &self,
        reply: SyncSender<Result<T, HsmError>>,
        (result, fault): Ended<T>,
    ) -> Result<(), Fault> {
        if let Some(fault) = &fault {
            self.entered.shared.lost(self.token(), self.entered.generation, fault.detail());
        }
        answer(Some(reply), result);
        fault.map_or(Ok(()), Err)
    }

    /// What came of work that changes nothing, or nothing that needs to be known.
    pub(super) fn ended<T>(&self, result: Result<T, Trouble>) -> Ended<T> {
        match result {
            Ok(value) => (Ok(value), None),
            Err(Trouble::Refused(error)) => (Err(error), None),
            Err(Trouble::Fault(fault)) => {
                self.token().counters.failed();
                (Err(self.error(fault.detail().to_owned())), costly(fault))
            }
        }
    }

    /// The token's own answer to the work at hand.
    pub(super) fn error(&self, detail: String) -> HsmError {
        HsmError::Token { token: self.name(), detail }
    }

    pub(super) fn name(&self) -> String {
        self.token().spec.name.clone()
    }

    /// Calls into the module under the deadline for listings.
    pub(super) fn call<T>(
        &self,
        name: &'static str,
        run: impl FnOnce(&Session) -> Result<T, CryptokiError>,
    ) -> Result<T, Fault> {
        let session = self.open.session.get()?;
        let limit = self.token().listing_deadline();
        self.entered.call(name, limit, || run(session)).map_err(Fault::from)
    }

    // ---- listing and proving ----

    /// Lists the token anew, and has it prove the keys that are not proven, or with `all` every one.
    pub(super) fn relist(&mut self, all: bool) -> Result<(), Fault> {
        self.heartbeat()?;
        self.open.index = Index::read(self.open.session.get()?, self.entered, &[])?;
        self.listed = Instant::now();
        self.prove_all(all)
    }

    fn prove_all(&self, all: bool) -> Result<(), Fault> {
        let keys = self.entered.shared.keys().of_group(&self.token().spec.group);
        for key in keys {
            if !self.entered.goes_on() {
                break;
            }
            if all || !self.is_still_proven(&key) {
                self.prove_one(&key)?;
            }
        }
        self.entered.shared.clear_conflicts();
        self.entered.shared.announce();
        Ok(())
    }

    fn prove(&self, keys: &[KeyId]) -> Result<(), Fault> {
        for id in keys {
            let expected = self.entered.shared.keys().expected(id);
            if let Some(key) = expected.filter(|key| key.group == self.token().spec.group) {
                self.prove_one(&key)?;
            }
        }
        self.entered.shared.clear_conflicts();
        self.entered.shared.announce();
        Ok(())
    }

    fn claims(&self, key: &ExpectedKey) -> Vec<&Object> {
        self.open.index.claims(&key.id(), &key.label, key.cka_id.as_deref())
    }

    /// Proven before, by the very objects that the listing shows now.
    fn is_still_proven(&self, key: &ExpectedKey) -> bool {
        let (id, token) = (key.id(), self.token().index);
        let proven = self.entered.shared.keys().private(&id, token, self.entered.generation);
        let claims = self.claims(key);
        let mut private = claims.iter().filter(|object| object.public.is_none());
        let (first, second) = (private.next(), private.next());
        proven.is_some()
            && second.is_none()
            && first.map(|object| object.handle) == proven
            && claims
                .iter()
                .all(|o| o.public.as_ref().is_none_or(|p| p.as_ref().is_ok_and(|p| p.id() == id)))
    }

    /// Looks at everything on the token that claims to be `key`, and takes down the finding.
    fn prove_one(&self, key: &ExpectedKey) -> Result<(), Fault> {
        let finding = self.examine(key)?;
        let token = self.token();
        if let Finding::Unproven(reason) = &finding {
            warn!(token = token.spec.name, key = %key.id(), reason, "key not proven");
        }
        if !self.entered.goes_on() {
            return Ok(());
        }
        let shared = &self.entered.shared;
        let event = shared.keys().found(
            &key.id(),
            (token.index, &token.spec.name),
            self.entered.generation,
            finding,
        );
        if let Some(event) = event {
            shared.send(event);
        }
        Ok(())
    }

    fn examine(&self, key: &ExpectedKey) -> Result<Finding, Fault> {
        let id = key.id();
        let claims = self.claims(key);
        let mut shown = None;
        for object in &claims {
            match &object.public {
                Some(Ok(public)) if public.id() == id => shown = Some(public),
                Some(Ok(public)) => {
                    return Ok(Finding::Wrong(format!("the public key {}", public.id())));
                }
                Some(Err(problem)) => {
                    return Ok(Finding::Wrong(format!("a public key object that is {problem}")));
                }
                None => {}
            }
        }
        if let Some(public) = shown {
            // It has the key's hash, so it is the key's.
            self.entered.shared.keys().learn(public);
        }
        let mut privates = claims.iter().filter(|object| object.public.is_none()).peekable();
        if privates.peek().is_none() {
            return Ok(Finding::Absent);
        }
        let Some(public) = key.identity.public().or(shown) else {
            let reason = "nothing shows its public key, so its private one can't be told to be it";
            return Ok(Finding::Unproven(reason.to_owned()));
        };
        let mut proven = None;
        for object in privates {
            match self.challenge(object.handle, public)? {
                Finding::Proven(private) => proven = proven.or(Some(private)),
                other => return Ok(other),
            }
        }
        Ok(proven.map_or(Finding::Absent, Finding::Proven))
    }

    /// Has the private key sign a challenge, and verifies the answer.
    pub(super) fn challenge(
        &self,
        private: ObjectHandle,
        public: &PublicKey,
    ) -> Result<Finding, Fault> {
        let session = self.open.session.get()?;
        let challenge = challenge::fresh(&public.id(), &self.token().spec.name);
        let input = mechanism::input(public.algorithm(), &challenge);
        let deadline = self.token().spec.deadline;
        let signed = self.entered.call("C_Sign", deadline, || {
            session.sign(&mechanism::signing(public.algorithm()), private, &input)
        });
        match signed.map_err(Fault::from) {
            Ok(signature) if mechanism::verify(public, &challenge, &signature) => {
                Ok(Finding::Proven(private))
            }
            Ok(_) => Ok(Finding::Wrong("a signature that is not by it".to_owned())),
            // A private key of another type: it can't be the key that it claims to be.
            Err(Fault::Call(detail)) if detail.contains("CKR_KEY_TYPE_INCONSISTENT") => {
                Ok(Finding::Wrong("a private key of another type".to_owned()))
            }
            // Destroyed by another process since the listing, or refused as such.
            Err(Fault::Object(detail) | Fault::Call(detail)) => {
                self.token().counters.failed();
                Ok(Finding::Unproven(detail))
            }
            Err(fault) => {
                self.token().counters.failed();
                Err(fault)
            }
        }
    }
}

/// A fault that costs more than the job at hand.
pub(super) fn costly(fault: Fault) -> Option<Fault> {
    matches!(fault, Fault::Session(_) | Fault::Token(_)).then_some(fault)
}

fn answer<T>(reply: Option<SyncSender<T>>, value: T) {
    if let Some(reply) = reply {
        // Each reply channel has room for its one answer; the asker may have given up.
        drop(reply.try_send(value));
    }
}
