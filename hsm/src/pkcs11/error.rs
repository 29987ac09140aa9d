//! What can go wrong between the keeper and a token, and what a PKCS#11 return code means for the
//! session, the token and the work at hand.

use countersign_policy::{Algorithm, KeyId};
use cryptoki::error::{Error as CryptokiError, RvError};

use crate::protocol::{Refusal, RefusalKind};

/// Why an operation on the tokens did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HsmError {
    /// The settings contradict themselves.
    #[error("token `{token}`: {problem}")]
    Setting {
        /// The token, by name.
        token: String,
        /// What is wrong and what is expected.
        problem: String,
    },
    /// No such key is expected here: [`super::Tokens::expect_keys`] was not told of it.
    #[error("key {0} is not in the ledger's set of keys")]
    UnknownKey(KeyId),
    /// No such token.
    #[error("no token is called `{0}` in the keeper's configuration")]
    UnknownToken(String),
    /// The leave that was shown is for something else, or the door is the wrong one for the key.
    #[error("not authorised: {0}")]
    NotAuthorised(String),
    /// A token answers for the key with another public key.
    #[error(
        "key {key}: token `{token}` answers for it with {found}. hint: remove the wrong object \
         from that token; the key is refused on all tokens until then"
    )]
    Conflict {
        /// The key that was asked for.
        key: KeyId,
        /// The token that answered wrongly.
        token: String,
        /// What it showed.
        found: String,
    },
    /// No token that has proven the key answers just now.
    #[error("no token can do it now: {0}")]
    Unavailable(String),
    /// Every queue is full.
    #[error("the queues of all tokens of group `{0}` are full; ask again")]
    Busy(String),
    /// The token lacks what the algorithm needs.
    #[error("token `{token}` can't do {algorithm}: {missing}")]
    Unsupported {
        /// The token.
        token: String,
        /// What was wanted.
        algorithm: Algorithm,
        /// What it lacks.
        missing: String,
    },
    /// The token, or its module, keeps no data objects.
    #[error("token `{token}` keeps no data objects (CKO_DATA): {detail}")]
    NoDataObjects {
        /// The token.
        token: String,
        /// What it said.
        detail: String,
    },
    /// What is on the token can't be told to be the key, or to be the whole of it.
    #[error("token `{token}`: key {key} can't be taken for one there: {problem}")]
    NotAPair {
        /// The token.
        token: String,
        /// The key that was asked for.
        key: KeyId,
        /// What is missing or ambiguous, and what to do.
        problem: String,
    },
    /// The token answered a call with an error.
    #[error("token `{token}` refused: {detail}")]
    Token {
        /// The token.
        token: String,
        /// Call and return code.
        detail: String,
    },
    /// The token's signature is not one.
    #[error("token `{token}` made a bad signature: {detail}")]
    BadSignature {
        /// The token.
        token: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The operation may have happened or not: its intent must stay open, and what it may have
    /// left on the token is found by its label.
    #[error("token `{token}`: it is not known how it ended: {detail}")]
    OutcomeUnknown {
        /// The token.
        token: String,
        /// What was seen last.
        detail: String,
    },
}

impl HsmError {
    /// The sort of refusal that the daemon is told.
    pub fn refusal_kind(&self) -> RefusalKind {
        match self {
            Self::UnknownKey(_) | Self::UnknownToken(_) => RefusalKind::Unknown,
            Self::NotAuthorised(_)
            | Self::Unsupported { .. }
            | Self::NoDataObjects { .. }
            | Self::NotAPair { .. }
            | Self::Setting { .. } => RefusalKind::Forbidden,
            Self::Conflict { .. } => RefusalKind::KeyConflict,
            Self::Busy(_) => RefusalKind::Busy,
            Self::Unavailable(_)
            | Self::Token { .. }
            | Self::BadSignature { .. }
            | Self::OutcomeUnknown { .. } => RefusalKind::HsmUnavailable,
        }
    }
}

impl From<HsmError> for Refusal {
    fn from(error: HsmError) -> Self {
        Self { kind: error.refusal_kind(), detail: error.to_string() }
    }
}

/// What a failed call costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The session is gone or in an unknown state; a new one may do.
    Session(String),
    /// The object is not where it was; the token's listing is stale.
    Object(String),
    /// The token, its login or the module is gone: everything is opened anew.
    Token(String),
    /// This call was refused and says nothing about the next.
    Call(String),
}

impl Fault {
    /// What was seen, for people.
    pub(super) fn detail(&self) -> &str {
        match self {
            Self::Session(d) | Self::Object(d) | Self::Token(d) | Self::Call(d) => d,
        }
    }
}

impl From<CryptokiError> for Fault {
    fn from(error: CryptokiError) -> Self {
        let detail = describe(&error);
        let CryptokiError::Pkcs11(code, _) = error else { return Self::Call(detail) };
        match code {
            RvError::SessionHandleInvalid
            | RvError::SessionClosed
            | RvError::OperationActive
            | RvError::OperationNotInitialized => Self::Session(detail),
            RvError::ObjectHandleInvalid | RvError::KeyHandleInvalid => Self::Object(detail),
            // Codes by which real modules report a lost device, cable or login. A vendor's own
            // codes are taken for the same: opening anew is the one thing that may help.
            RvError::DeviceError
            | RvError::DeviceRemoved
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::SlotIdInvalid
            | RvError::UserNotLoggedIn
            | RvError::UserPinNotInitialized
            | RvError::GeneralError
            | RvError::FunctionFailed
            | RvError::HostMemory
            | RvError::CryptokiNotInitialized
            | RvError::SessionCount
            | RvError::FipsSelfTestFailed
            | RvError::VendorDefined(_)
            | RvError::UnknownErrorCode(_) => Self::Token(detail),
            _ => Self::Call(detail),
        }
    }
}

/// Why work on a token came to nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A call into the module failed.
    Fault(Fault),
    /// What is there does not allow it.
    Refused(HsmError),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<HsmError> for Trouble {
    fn from(error: HsmError) -> Self {
        Self::Refused(error)
    }
}

/// Call and return code, short: cryptoki's own text quotes a paragraph of the standard.
pub(super) fn describe(error: &CryptokiError) -> String {
    match error {
        CryptokiError::Pkcs11(code, function) => format!("C_{function:?}: {}", ckr_name(*code)),
        other => other.to_string(),
    }
}

/// The name of a return code as the standard spells it.
pub(super) fn ckr_name(code: RvError) -> String {
    if let RvError::VendorDefined(number) | RvError::UnknownErrorCode(number) = code {
        return format!("CKR {number:#010x}");
    }
    let mut name = String::from("CKR");
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    #[test]
    fn codes_cost_what_they_should() {
        let fault = |code| Fault::from(CryptokiError::Pkcs11(code, Function::Sign));
        assert_eq!(
            fault(RvError::SessionHandleInvalid),
            Fault::Session("C_Sign: CKR_SESSION_HANDLE_INVALID".to_owned())
        );
        assert!(matches!(fault(RvError::ObjectHandleInvalid), Fault::Object(_)));
        assert!(matches!(fault(RvError::DeviceRemoved), Fault::Token(_)));
        assert!(matches!(fault(RvError::UserNotLoggedIn), Fault::Token(_)));
        assert!(matches!(fault(RvError::VendorDefined(0x8000_0001)), Fault::Token(_)));
        assert!(matches!(fault(RvError::MechanismInvalid), Fault::Call(_)));
    }
}
