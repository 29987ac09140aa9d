//! A worker thread: one session, signing what the queue invites it to.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use cryptoki::context::Pkcs11;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki::slot::Slot;
use tracing::warn;

use super::batch::Batch;
use super::calls::Entered;
use super::error::{Fault, HsmError};
use super::mechanism;
use super::opening::{self, Held};
use super::root::Job;

/// Starts a worker of the root thread's generation, which opens its session for it: `false` when the
/// token has none left.
pub(super) fn spawn(
    root: &Entered,
    module: &Pkcs11,
    slot: Slot,
    number: usize,
) -> Result<bool, Fault> {
    let token = &root.token;
    let session = match opening::open_session(root, module, slot, false) {
        Ok(session) => session,
        Err(fault) if number > 0 && fault.detail().ends_with("CKR_SESSION_COUNT") => {
            let (token, wanted) = (&token.spec.name, token.spec.workers);
            warn!(token, wanted, have = number, "no more sessions; set `workers` to what it has");
            return Ok(false);
        }
        Err(fault) => return Err(fault),
    };
    let entered = Entered::new(token, &root.shared, root.generation);
    let module = module.clone();
    std::thread::Builder::new()
        .name(format!("{}-{number}", token.spec.name))
        .spawn(move || run(&entered, &module, slot, session))
        .map_err(|e| Fault::Token(format!("can't start a worker thread: {e}")))?;
    Ok(true)
}

fn run(entered: &Entered, module: &Pkcs11, slot: Slot, session: Session) {
    let token = &entered.token;
    token.sessions.fetch_add(1, Relaxed);
    let session = Held::of(entered, session);
    let result = Worker { entered, module, slot, session }.serve();
    token.sessions.fetch_sub(1, Relaxed);
    if let Err(fault) = result {
        entered.shared.lost(token, entered.generation, fault.detail());
    }
}

struct Worker<'a> {
    entered: &'a Entered,
    module: &'a Pkcs11,
    slot: Slot,
    session: Held<'a>,
}

impl Worker<'_> {
    fn serve(&mut self) -> Result<(), Fault> {
        let entered = self.entered;
        while let Some(ticket) = entered.token.queue.pop(|| entered.goes_on()) {
            entered.works_at(Some(&ticket.batch));
            let result = self.work(&ticket.batch);
            entered.works_at(None);
            result?;
        }
        Ok(())
    }

    /// Signs messages of the batch until it has none left for this token. An error costs the token.
    fn work(&mut self, batch: &Arc<Batch>) -> Result<(), Fault> {
        let entered = self.entered;
        let (token, generation) = (&entered.token, entered.generation);
        let private = entered.shared.keys().private(&batch.key, token.index, generation);
        let Some(private) = private else { return Ok(()) };
        while entered.goes_on() {
            let Some(message) = batch.take(token.index, generation) else { break };
            let fault = match self.sign(batch, message, private) {
                Ok(signature) => {
                    batch.signed(message, token.index, signature);
                    continue;
                }
                Err(fault) => fault,
            };
            token.counters.failed();
            let error = self.error(&fault);
            // A session was renewed once already: this is more than the session. The token's state
            // changes before its work goes back, so that the requester sees it being opened again.
            if matches!(fault, Fault::Session(_) | Fault::Token(_)) {
                entered.shared.lost(token, generation, fault.detail());
            }
            batch.failed(message, token.index, generation, error);
            match fault {
                Fault::Session(_) | Fault::Token(_) => return Err(fault),
                Fault::Object(_) => {
                    entered.shared.keys().object_lost(&batch.key, token.index);
                    self.ask_root(Job::Relist { all: false, reply: None });
                }
                Fault::Call(_) => {
                    self.ask_root(Job::Prove { keys: vec![batch.key], reply: None });
                }
            }
            break;
        }
        Ok(())
    }

    fn error(&self, fault: &Fault) -> HsmError {
        let token = self.entered.token.spec.name.clone();
        match fault {
            Fault::Call(detail) if detail.starts_with(BAD) => {
                HsmError::BadSignature { token, detail: detail.clone() }
            }
            _ => HsmError::Token { token, detail: fault.detail().to_owned() },
        }
    }

    fn ask_root(&self, job: Job) {
        if let Some(root) = &self.entered.token.life().root {
            // When its queue is full it is at such jobs already.
            drop(root.try_send(job));
        }
    }

    /// One signature. A session that died alone is replaced, once.
    fn sign(
        &mut self,
        batch: &Batch,
        message: usize,
        private: ObjectHandle,
    ) -> Result<Vec<u8>, Fault> {
        match self.sign_once(batch, message, private) {
            Err(Fault::Session(_)) => {
                self.session = Held::open(self.entered, self.module, self.slot, false)?;
                self.sign_once(batch, message, private)
            }
            result => result,
        }
    }

    fn sign_once(
        &self,
        batch: &Batch,
        message: usize,
        private: ObjectHandle,
    ) -> Result<Vec<u8>, Fault> {
        let message = &batch.messages[message];
        let algorithm = batch.public.algorithm();
        let token = &self.entered.token;
        let session = self.session.get()?;
        let asked = Instant::now();
        let input = mechanism::input(algorithm, message);
        let signature = self.entered.call("C_Sign", token.spec.deadline, || {
            session.sign(&mechanism::signing(algorithm), private, &input)
        })?;
        let expected = mechanism::signature_len(&batch.public);
        if signature.len() != expected {
            return Err(Fault::Call(format!(
                "{BAD} {} octets, expected {expected}",
                signature.len()
            )));
        }
        if batch.verify && !mechanism::verify(&batch.public, message, &signature) {
            return Err(Fault::Call(format!("{BAD} it does not verify")));
        }
        token.counters.signed(asked.elapsed());
        Ok(signature)
    }
}

/// Start of the text of a fault that is about the signature itself.
const BAD: &str = "C_Sign gave a bad signature:";
