//! An unfounded keeper: it shows what is on its tokens, makes the audit key, and takes one founding.
//!
//! ```text
//! survey ──► founders draft, sign, and root pins the hash ──► found ──► line 0, marks, exit
//! ```
//!
//! A founding is taken only if root pinned that very hash in the configuration, if its tokens and audit
//! key are those that are here now, if it lists every key that is on them, and if none of them carries
//! the mark or the keys of another founding. Whether everyone on its roster signed it, the ledger
//! judges, as for any line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use countersign_policy::checkpoint::AuditKey;
use countersign_policy::founding::{ForeignKey, Founding, hash_of};
use countersign_policy::officer::PersonName;
use countersign_policy::ssh::Signature;
use countersign_policy::tree::Hash;

use super::config::KeeperConfig;
use super::door::Hsm;
use super::instance;
use super::marks;
use super::reader;
use super::server::Keeper;
use super::service::judged;
use super::survey;
use crate::ledger::{Ledger, Note};
use crate::pkcs11::HsmError;
use crate::protocol::{
    KeeperHealth, LedgerRequest, LedgerResponse, Mode, Refusal, RefusalKind, Request, Response,
    Survey, SurveyedToken,
};

/// A keeper without a ledger.
pub struct Unfounded<H> {
    ledger: Arc<Ledger>,
    hsm: H,
    config: KeeperConfig,
    config_path: PathBuf,
    now_s: fn() -> u64,
    /// Called once, when the founding is in the ledger.
    founded: Box<dyn Fn() + Send + Sync>,
    is_founded: AtomicBool,
    /// One survey or founding at a time: each lists whole tokens.
    turn: Mutex<()>,
}

fn refuse<T>(kind: RefusalKind, detail: String) -> Result<T, Refusal> {
    Err(Refusal { kind, detail })
}

fn forbidden<T>(detail: String) -> Result<T, Refusal> {
    refuse(RefusalKind::Forbidden, detail)
}

impl<H: Hsm> Unfounded<H> {
    /// Works on an empty `ledger` and the tokens of `config`, which was read from `config_path`;
    /// `founded` is called when it has become a founded one's.
    pub fn new(
        ledger: Arc<Ledger>,
        hsm: H,
        config: KeeperConfig,
        config_path: PathBuf,
        now_s: fn() -> u64,
        founded: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let is_founded = AtomicBool::new(false);
        let turn = Mutex::default();
        Self { ledger, hsm, config, config_path, now_s, founded, is_founded, turn }
    }

    /// Whether the founding was taken.
    pub fn is_founded(&self) -> bool {
        self.is_founded.load(Ordering::Acquire)
    }

    fn survey(&self) -> Result<Survey, Refusal> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_founded() {
            return starting_anew();
        }
        let audit = self.audit_key()?.map(|key| (self.config.audit_token.clone(), key));
        Ok(Survey { audit, tokens: self.tokens() })
    }

    /// Made if it is not there, but for a token with a founding's mark: to make one destroys what is
    /// half-made under its label, and that may be the key of an appliance whose ledger was taken away.
    fn audit_key(&self) -> Result<Option<AuditKey>, Refusal> {
        let token = &self.config.audit_token;
        let is_marked = match self.hsm.read_data(token, marks::MARK_LABEL) {
            Ok(marks) => !marks.is_empty(),
            Err(HsmError::NoDataObjects { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        if is_marked {
            survey::audit_key_there(&self.hsm, token)
        } else {
            survey::audit_key(&self.hsm, token).map(Some)
        }
    }

    fn tokens(&self) -> Vec<SurveyedToken> {
        let tokens = self.config.tokens.iter().map(|(name, access)| {
            survey::token(&self.hsm, name, (&access.label, &access.serial), true, &|_| false)
        });
        tokens.collect()
    }

    fn found(&self, text: &str, signatures: &[(PersonName, Signature)]) -> Result<Hash, Refusal> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_founded() {
            return starting_anew();
        }
        let founding = Founding::parse(text).map_err(|error| Refusal {
            kind: RefusalKind::Malformed,
            detail: format!("not a founding: {error}"),
        })?;
        let hash = hash_of(text);
        self.check_pin(&hash)?;
        check_tokens(&founding, &self.tokens())?;
        let audit = self.audit_key()?;
        if founding.audit_token != self.config.audit_token
            || audit.as_ref() != Some(&founding.audit_key)
        {
            return forbidden(format!(
                "the founding's audit key is on `{}`; here it is on `{}`, or another one. hint: \
                 survey again and draft anew",
                founding.audit_token, self.config.audit_token
            ));
        }
        let count = signatures.len();
        let signatures: BTreeMap<PersonName, Signature> = signatures.iter().cloned().collect();
        if signatures.len() != count {
            return refuse(RefusalKind::Malformed, "a person signs once".to_owned());
        }
        let line =
            self.ledger.found(text.to_owned(), signatures, (self.now_s)()).map_err(judged)?;
        tracing::info!(%hash, name = founding.name, line, "the appliance is founded");
        self.claim();
        for (name, _) in founding.tokens.iter().filter(|(_, identity)| identity.data_objects) {
            // What fails here is done by the founded keeper.
            match marks::mark(&self.hsm, name, &hash) {
                Ok(()) => {
                    let marked = Note::token_marked(name.clone());
                    if let Err(error) = self.ledger.note(marked, (self.now_s)()) {
                        tracing::error!(token = name, %error, "its mark is not in the ledger yet");
                    }
                }
                Err(error) => tracing::error!(token = name, %error, "is not marked yet"),
            }
        }
        self.is_founded.store(true, Ordering::Release);
        (self.founded)();
        Ok(hash)
    }

    /// This box is the first that holds the tokens. What fails here is done by the founded keeper.
    fn claim(&self) {
        let claimed = instance::load(&self.config.state_dir).and_then(|instance| {
            let note = Note::instance_claimed(instance);
            self.ledger.note(note, (self.now_s)()).map_err(|error| error.to_string())
        });
        if let Err(problem) = claimed {
            tracing::error!(problem, "this box has not claimed the tokens yet");
        }
    }

    /// Root's word: the configuration is read again, and must be root's or the keeper's own to write.
    fn check_pin(&self, hash: &Hash) -> Result<(), Refusal> {
        let now = KeeperConfig::load(&self.config_path).or_else(|e| forbidden(e.to_string()))?;
        match now.founding {
            Some(pinned) if pinned == *hash => {}
            Some(pinned) => {
                return forbidden(format!(
                    "this founding is {hash}; [keeper] `founding` in {} pins {pinned}",
                    self.config_path.display()
                ));
            }
            None => {
                return forbidden(format!(
                    "no founding is pinned. hint: compare the hash with every founder, then have \
                     root write `founding = \"{hash}\"` under [keeper] in {}",
                    self.config_path.display()
                ));
            }
        }
        if (&now.tokens, &now.audit_token) != (&self.config.tokens, &self.config.audit_token) {
            return forbidden(
                "the configuration names other tokens than those that are open. hint: restart the \
                 keeper and survey again"
                    .to_owned(),
            );
        }
        Ok(())
    }

    fn answer(&self, request: LedgerRequest) -> Result<LedgerResponse, Refusal> {
        match request {
            LedgerRequest::Hello { protocol } => {
                let mode = if self.is_founded() { Mode::Founded } else { Mode::Unfounded };
                reader::hello(protocol, mode)
            }
            LedgerRequest::Head => Ok(reader::head(&self.ledger)),
            LedgerRequest::Read { from, skip, max } => reader::read(&self.ledger, from, skip, max),
            LedgerRequest::Survey => self.survey().map(LedgerResponse::Survey),
            LedgerRequest::Found { text, signatures } => {
                let hash = self.found(&text, &signatures)?;
                Ok(LedgerResponse::Founded { hash })
            }
            LedgerRequest::Submit(_)
            | LedgerRequest::Checkpoint
            | LedgerRequest::ExportDs { .. } => unfounded(),
        }
    }
}

/// What the founding says of the tokens, against what is on them now.
fn check_tokens(founding: &Founding, here: &[SurveyedToken]) -> Result<(), Refusal> {
    let named: BTreeSet<&String> = founding.tokens.keys().collect();
    let opened: BTreeSet<&String> = here.iter().map(|token| &token.name).collect();
    if named != opened {
        let list = |names: BTreeSet<&String>| {
            names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        };
        return forbidden(format!(
            "the founding names the tokens {}; here are {}",
            list(named),
            list(opened)
        ));
    }
    let mut foreign = BTreeSet::new();
    for token in here {
        let name = &token.name;
        let wrong = |what: String| forbidden(format!("token `{name}`: {what}"));
        if let Some(problem) = &token.problem {
            return refuse(RefusalKind::HsmUnavailable, format!("token `{name}`: {problem}"));
        }
        if let Some(other) = token.marked {
            return wrong(format!(
                "carries the mark of founding {other}: it belongs to another appliance, or to a ledger \
                 that is not here. hint: restore that ledger, or initialise the token anew"
            ));
        }
        let said = &founding.tokens[name];
        if (&said.label, &said.serial) != (&token.label, &token.serial) {
            return wrong(format!(
                "is `{}` with serial number `{}`; the founding says `{}`, `{}`",
                token.label, token.serial, said.label, said.serial
            ));
        }
        if said.data_objects != token.data_objects {
            let holds = |yes| if yes { "holds data objects" } else { "holds none" };
            return wrong(format!(
                "{}; the founding says that it {}",
                holds(token.data_objects),
                holds(said.data_objects)
            ));
        }
        if let Some(key) = token.keys.iter().find(|key| survey::is_own_label(&key.label)) {
            return wrong(format!(
                "holds `{}`, a key of an earlier founding. hint: restore its ledger, or destroy it \
                 with the token's own tools",
                key.label
            ));
        }
        foreign.extend(token.keys.iter().map(|key| ForeignKey {
            token: name.clone(),
            label: key.label.clone(),
            id: key.id.clone(),
        }));
    }
    let listed: BTreeSet<ForeignKey> = founding.foreign.iter().cloned().collect();
    if let Some(key) = foreign.symmetric_difference(&listed).next() {
        let what =
            if listed.contains(key) { "lists, and it is not there" } else { "does not list" };
        return forbidden(format!(
            "token `{}`: the key with label `{}` and CKA_ID {} is one that the founding {what}. hint: \
             survey again and draft anew",
            key.token, key.label, key.id
        ));
    }
    Ok(())
}

fn unfounded<T>() -> Result<T, Refusal> {
    refuse(
        RefusalKind::LedgerUnavailable,
        "not founded: the founders found this keeper first. hint: `countersign survey`, then \
         `countersign found`"
            .to_owned(),
    )
}

fn starting_anew<T>() -> Result<T, Refusal> {
    refuse(
        RefusalKind::LedgerUnavailable,
        "the appliance was founded just now; the keeper is starting anew".to_owned(),
    )
}

impl<H: Hsm + 'static> Keeper for Unfounded<H> {
    fn answer_daemon(&self, request: Request) -> Response {
        match request {
            Request::Health => {
                Response::Health(KeeperHealth { tokens: self.hsm.health(), notices: Vec::new() })
            }
            _ => unfounded().unwrap_or_else(Response::Refused),
        }
    }

    fn answer_group(&self, request: LedgerRequest, user: u32) -> LedgerResponse {
        self.answer(request).unwrap_or_else(|refusal| {
            tracing::warn!(user, kind = %refusal.kind, detail = refusal.detail, "refused");
            LedgerResponse::Refused(refusal)
        })
    }
}

#[cfg(test)]
mod tests;
