//! The root thread of a token: opens it, proves its keys, starts its workers, and then does what
//! needs a writable session, one job at a time: makes and destroys keys, lists, proves anew.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use countersign_policy::{Algorithm, KeyId, PublicKey};
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::{Session, SessionState};
use tracing::{info, warn};

use super::error::{Fault, HsmError};
use super::index::{Index, Object, read_object};
use super::module::Renewal;
use super::opening::{self, NotOpen, Open};
use super::registry::{ExpectedKey, Finding};
use super::token::{Entered, Shared, Token};
use super::{FoundObject, challenge, mechanism, public_key, templates, worker};

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
    /// Make a key pair.
    Generate {
        label: String,
        algorithm: Algorithm,
        rsa_bits: u16,
        reply: SyncSender<Result<PublicKey, HsmError>>,
    },
    /// Destroy the objects with this label.
    Destroy { label: String, reply: SyncSender<Result<(), HsmError>> },
    /// Key objects whose label starts so.
    Labelled { prefix: String, reply: SyncSender<Result<Vec<FoundObject>, HsmError>> },
}

/// The root thread's whole life.
pub(super) fn run(
    shared: &Arc<Shared>,
    token: &Arc<Token>,
    generation: u64,
    jobs: &Receiver<Job>,
    renewal: Option<Renewal>,
) {
    let entered = token.enter(shared, generation);
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

struct Root<'a> {
    entered: &'a Entered,
    open: Open<'a>,
    listed: Instant,
}

impl Root<'_> {
    fn token(&self) -> &Token {
        &self.entered.token
    }

    fn serve(&mut self, jobs: &Receiver<Job>) -> Result<(), Fault> {
        if !self.entered.goes_on() {
            // A call of its opening hung, was given up, and came back at last.
            return Ok(());
        }
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
            Job::Generate { label, algorithm, rsa_bits, reply } => {
                let (result, fault) = self.generate(&label, algorithm, rsa_bits);
                self.end(reply, result, fault)
            }
            Job::Destroy { label, reply } => {
                let (result, fault) = self.destroy(&label);
                self.end(reply, result, fault)
            }
            Job::Labelled { prefix, reply } => match self.relist(false) {
                Ok(()) => self.end(reply, Ok(self.labelled(&prefix)), None),
                Err(fault) => self.end(reply, Err(self.error(&fault)), Some(fault)),
            },
        }
    }

    /// Answers; a fault that costs the token is told first, so that whoever has the answer sees the
    /// token's new state.
    fn end<T>(&self, reply: SyncSender<T>, result: T, fault: Option<Fault>) -> Result<(), Fault> {
        if let Some(fault) = &fault {
            self.entered.shared.lost(self.token(), self.entered.generation, fault.detail());
        }
        answer(Some(reply), result);
        fault.map_or(Ok(()), Err)
    }

    fn error(&self, fault: &Fault) -> HsmError {
        let token = self.token().spec.name.clone();
        HsmError::Token { token, detail: fault.detail().to_owned() }
    }

    // ---- listing and proving ----

    fn relist(&mut self, all: bool) -> Result<(), Fault> {
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

    /// Proven before, by the very objects that the listing shows now.
    fn is_still_proven(&self, key: &ExpectedKey) -> bool {
        let (id, token) = (key.public.id(), self.token().index);
        let proven = self.entered.shared.keys().private(&id, token, self.entered.generation);
        let claims = self.open.index.claims(key);
        let mut private = claims.iter().filter(|object| object.public.is_none());
        let (first, second) = (private.next(), private.next());
        proven.is_some()
            && second.is_none()
            && first.map(|object| object.handle) == proven
            && claims
                .iter()
                .all(|o| o.public.as_ref().is_none_or(|p| p.as_ref() == Ok(&key.public)))
    }

    /// Looks at everything on the token that claims to be `key`, and takes down the finding.
    fn prove_one(&self, key: &ExpectedKey) -> Result<(), Fault> {
        let finding = self.examine(key)?;
        let token = self.token();
        if let Finding::Unproven(reason) = &finding {
            warn!(token = token.spec.name, key = %key.public.id(), reason, "key not proven");
        }
        if !self.entered.goes_on() {
            return Ok(());
        }
        let shared = &self.entered.shared;
        let event = shared.keys().found(
            &key.public.id(),
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
        let claims = self.open.index.claims(key);
        for object in &claims {
            match &object.public {
                Some(Ok(public)) if *public != key.public => {
                    return Ok(Finding::Wrong(format!("the public key {}", public.id())));
                }
                Some(Err(problem)) => {
                    return Ok(Finding::Wrong(format!("a public key object that is {problem}")));
                }
                _ => {}
            }
        }
        let mut proven = None;
        for object in claims.iter().filter(|object| object.public.is_none()) {
            match self.challenge(object.handle, &key.public)? {
                Finding::Proven(private) => proven = proven.or(Some(private)),
                other => return Ok(other),
            }
        }
        Ok(proven.map_or(Finding::Absent, Finding::Proven))
    }

    /// Has the private key sign a challenge, and verifies the answer.
    fn challenge(&self, private: ObjectHandle, public: &PublicKey) -> Result<Finding, Fault> {
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

    fn labelled(&self, prefix: &str) -> Vec<FoundObject> {
        let objects = self.open.index.objects().iter();
        objects
            .filter(|object| object.label.starts_with(prefix.as_bytes()))
            .map(|object| FoundObject {
                label: String::from_utf8_lossy(&object.label).into_owned(),
                id: object.id.clone(),
                private: object.public.is_none(),
                public: object.public.clone().and_then(Result::ok),
            })
            .collect()
    }

    // ---- making and destroying ----

    /// Makes a key pair, reads it back, names it by its `KeyId` and proves it. What fails on the way
    /// is destroyed again; if that can't be made sure of, the outcome is unknown.
    fn generate(
        &mut self,
        label: &str,
        algorithm: Algorithm,
        rsa_bits: u16,
    ) -> (Result<PublicKey, HsmError>, Option<Fault>) {
        let token = self.token().spec.name.clone();
        if let Err(missing) = self.open.offered.supports(algorithm, Some(rsa_bits)) {
            return (Err(HsmError::Unsupported { token, algorithm, missing }), None);
        }
        match self.find_label(label) {
            Ok(index) if index.objects().is_empty() => {}
            Ok(_) => {
                let detail = format!("there are objects with the label `{label}` already");
                return (Err(HsmError::Token { token, detail }), None);
            }
            Err(fault) => return (Err(self.error(&fault)), costly(fault)),
        }
        match self.make_and_check(label, algorithm, rsa_bits) {
            Ok((public, objects)) => {
                info!(token, label, key = %public.id(), "key pair made");
                for object in objects {
                    self.open.index.add(object);
                }
                (Ok(public), None)
            }
            Err(fault) => {
                self.token().counters.failed();
                let detail = fault.detail().to_owned();
                let result = match self.destroy_label(label) {
                    Ok(()) => Err(HsmError::Token { token, detail }),
                    Err(second) => Err(HsmError::OutcomeUnknown {
                        token,
                        detail: format!("{detail}; and then {}", second.detail()),
                    }),
                };
                (result, costly(fault))
            }
        }
    }

    fn make_and_check(
        &self,
        label: &str,
        algorithm: Algorithm,
        rsa_bits: u16,
    ) -> Result<(PublicKey, Vec<Object>), Fault> {
        let session = self.open.session.get()?;
        let (public_handle, private_handle) = self.make(session, label, algorithm, rsa_bits)?;
        let listing = self.token().listing_deadline();
        let read = |handle, wanted: &[AttributeType]| {
            self.entered.call("C_GetAttributeValue", listing, || {
                session.get_attributes(handle, wanted).map_err(Fault::from)
            })
        };
        templates::check_private(&read(private_handle, &templates::private_to_read())?)
            .map_err(Fault::Call)?;
        let public = public_key::decode(&read(public_handle, &public_key::ATTRIBUTES)?)
            .map_err(|problem| Fault::Call(format!("the new public key is {problem}")))?;
        if public.algorithm() != algorithm {
            return Err(Fault::Call(format!("the new key is for {}", public.algorithm())));
        }
        let id = Attribute::Id(public.id().0.to_vec());
        let mut objects = Vec::new();
        for (handle, private) in [(private_handle, true), (public_handle, false)] {
            self.entered.call("C_SetAttributeValue", listing, || {
                session.update_attributes(handle, std::slice::from_ref(&id))
            })?;
            let object = self
                .entered
                .call("C_GetAttributeValue", listing, || read_object(session, handle, private))?;
            if object.id != public.id().0 || object.label != label.as_bytes() {
                return Err(Fault::Call("CKA_ID or CKA_LABEL did not stay as set".to_owned()));
            }
            objects.push(object);
        }
        match self.challenge(private_handle, &public)? {
            Finding::Proven(_) => Ok((public, objects)),
            Finding::Wrong(what) | Finding::Unproven(what) => {
                Err(Fault::Call(format!("the new key does not prove itself: {what}")))
            }
            Finding::Absent => Err(Fault::Call("the new key is not there".to_owned())),
        }
    }

    fn make(
        &self,
        session: &Session,
        label: &str,
        algorithm: Algorithm,
        rsa_bits: u16,
    ) -> Result<(ObjectHandle, ObjectHandle), Fault> {
        let mut refused = Fault::Call("no encoding of the curve is known".to_owned());
        for curve in templates::curve_encodings(algorithm) {
            let public = templates::public(algorithm, rsa_bits, curve, label);
            let private = templates::private(label);
            let limit = self.token().generation_deadline();
            let made = self.entered.call("C_GenerateKeyPair", limit, || {
                session.generate_key_pair(&mechanism::generation(algorithm), &public, &private)
            });
            match made.map_err(Fault::from) {
                Ok(pair) => return Ok(pair),
                // Perhaps it knows the curve by its other name.
                Err(fault @ Fault::Call(_)) => refused = fault,
                Err(fault) => return Err(fault),
            }
        }
        Err(refused)
    }

    fn destroy(&mut self, label: &str) -> (Result<(), HsmError>, Option<Fault>) {
        let token = self.token().spec.name.clone();
        let result = self.destroy_label(label).and_then(|()| self.relist(false));
        match result {
            Ok(()) => {
                info!(token, label, "objects destroyed");
                (Ok(()), None)
            }
            Err(fault) => {
                self.token().counters.failed();
                let detail = fault.detail().to_owned();
                (Err(HsmError::OutcomeUnknown { token, detail }), costly(fault))
            }
        }
    }

    fn find_label(&self, label: &str) -> Result<Index, Fault> {
        let filter = [Attribute::Label(label.as_bytes().to_vec())];
        Index::read(self.open.session.get()?, self.entered, &filter)
    }

    /// Destroys all key objects with the label, the private one first, and looks that none is left.
    fn destroy_label(&self, label: &str) -> Result<(), Fault> {
        let session = self.open.session.get()?;
        let limit = self.token().listing_deadline();
        for object in self.find_label(label)?.objects() {
            self.entered
                .call("C_DestroyObject", limit, || session.destroy_object(object.handle))?;
        }
        match self.find_label(label)?.objects().len() {
            0 => Ok(()),
            left => Err(Fault::Call(format!("{left} objects with that label are left"))),
        }
    }
}

/// A fault that costs more than the job at hand.
fn costly(fault: Fault) -> Option<Fault> {
    matches!(fault, Fault::Session(_) | Fault::Token(_)).then_some(fault)
}

fn answer<T>(reply: Option<SyncSender<T>>, value: T) {
    if let Some(reply) = reply {
        // Each reply channel has room for its one answer; the asker may have given up.
        drop(reply.try_send(value));
    }
}
