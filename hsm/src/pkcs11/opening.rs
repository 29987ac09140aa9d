//! Opening a token: module, slot by label and serial, login under its marker, listing.

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error as CryptokiError, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use tracing::{info, warn};

use super::calls::Entered;
use super::error::{Fault, describe};
use super::index::Index;
use super::marker::{Decision, Login, PinFlags};
use super::mechanism::Offered;
use super::module;
use super::pin::FileStamp;

/// An open, logged-in token: its root session is held for good, because object handles and the
/// login die with the last session.
pub(super) struct Open<'a> {
    pub(super) module: Pkcs11,
    pub(super) slot: Slot,
    pub(super) offered: Offered,
    pub(super) index: Index,
    pub(super) session: Held<'a>,
}

/// Why a token could not be opened.
pub(super) enum NotOpen {
    /// Worth another try by itself.
    Later(String),
    /// Not before its PIN file changes.
    PinRefused(Option<FileStamp>, String),
}

impl From<Fault> for NotOpen {
    fn from(fault: Fault) -> Self {
        Self::Later(fault.detail().to_owned())
    }
}

/// A session that is closed under a deadline, like every call.
pub(super) struct Held<'a> {
    session: Option<Session>,
    entered: &'a Entered,
}

impl<'a> Held<'a> {
    pub(super) fn open(
        entered: &'a Entered,
        module: &Pkcs11,
        slot: Slot,
        writable: bool,
    ) -> Result<Self, Fault> {
        Ok(Self::of(entered, open_session(entered, module, slot, writable)?))
    }

    /// Takes a session that is open.
    pub(super) fn of(entered: &'a Entered, session: Session) -> Self {
        Self { session: Some(session), entered }
    }

    /// The session; it is there until this is dropped.
    pub(super) fn get(&self) -> Result<&Session, Fault> {
        self.session.as_ref().ok_or_else(|| Fault::Session("the session is closed".to_owned()))
    }
}

/// Opens a session under a deadline.
pub(super) fn open_session(
    entered: &Entered,
    module: &Pkcs11,
    slot: Slot,
    writable: bool,
) -> Result<Session, Fault> {
    let limit = entered.token.listing_deadline();
    let session = entered.call("C_OpenSession", limit, || {
        if writable { module.open_rw_session(slot) } else { module.open_ro_session(slot) }
    })?;
    Ok(session)
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let session = self.session.take();
        self.entered.call("C_CloseSession", self.entered.token.listing_deadline(), || {
            drop(session);
        });
    }
}

/// Opens the token of the calling thread.
pub(super) fn open(entered: &Entered) -> Result<Open<'_>, NotOpen> {
    let token = &entered.token;
    let limit = token.listing_deadline();
    let module = entered.call("C_Initialize", limit, || module::load(&token.spec.module))?;
    let (slot, info) = entered.call("C_GetSlotList", limit, || find(entered, &module))?;
    let offered = entered
        .call("C_GetMechanismList", limit, || Offered::read(&module, slot))
        .map_err(Fault::from)?;
    let session = Held::open(entered, &module, slot, true)?;
    login(entered, session.get()?, &info)?;
    let index = Index::read(session.get()?, entered, &[])?;
    Ok(Open { module, slot, offered, index, session })
}

/// The slot whose token has the label and serial number. Never a slot number: those change.
fn find(entered: &Entered, module: &Pkcs11) -> Result<(Slot, TokenInfo), Fault> {
    let spec = &entered.token.spec;
    let mut seen = Vec::new();
    let mut found = None;
    let slots = module.get_slots_with_token().inspect_err(|e| {
        if matches!(e, CryptokiError::Pkcs11(RvError::CryptokiNotInitialized, _)) {
            module::not_initialised(&spec.module);
        }
    })?;
    for slot in slots {
        let info = match module.get_token_info(slot) {
            Ok(info) => info,
            // Another slot's trouble is not ours, and a token may go while we look.
            Err(e) => {
                seen.push(describe(&e));
                continue;
            }
        };
        let label = info.label().trim_end();
        let serial = info.serial_number().trim_end();
        if label == spec.label && serial == spec.serial {
            if found.is_some() {
                return Err(Fault::Token(format!(
                    "two tokens have the label `{label}` and the serial number `{serial}`"
                )));
            }
            found = Some((slot, info));
        } else if info.token_initialized() {
            seen.push(format!("`{label}` with serial number `{serial}`"));
        }
    }
    entered.token.life().absent = found.is_none();
    found.ok_or_else(|| {
        let seen = if seen.is_empty() { "no other".to_owned() } else { seen.join(", ") };
        Fault::Token(format!(
            "no token with the label `{}` and the serial number `{}` in {}; there is {seen}",
            spec.label,
            spec.serial,
            spec.module.display()
        ))
    })
}

/// Logs in, with the marker written before and after.
fn login(entered: &Entered, session: &Session, info: &TokenInfo) -> Result<(), NotOpen> {
    let token = &entered.token;
    let marker = &token.login_marker;
    let pin = token.spec.pin.read().map_err(NotOpen::Later)?;
    let flags = PinFlags {
        count_low: info.user_pin_count_low(),
        final_try: info.user_pin_final_try(),
        locked: info.user_pin_locked(),
    };
    let unknown = match marker.decide(&pin, flags).map_err(NotOpen::Later)? {
        Decision::Try { unknown } => unknown,
        Decision::WaitForChange(reason) => {
            return Err(NotOpen::PinRefused(Some(pin.stamp), reason));
        }
        Decision::WaitForToken(reason) => return Err(NotOpen::Later(reason)),
    };
    if !entered.goes_on() {
        return Err(NotOpen::Later("given up before its login".to_owned()));
    }
    marker.trying(&pin, unknown).map_err(NotOpen::Later)?;
    let auth = pin.to_auth();
    let result = entered.call("C_Login", token.listing_deadline(), || {
        session.login_with_raw(UserType::User, &auth)
    });
    drop(auth);
    match result {
        Ok(()) => {
            info!(token = token.spec.name, "logged in");
            token.life().accepted = Some(pin.stamp);
            marker.ended(&pin, Login::Accepted).map_err(NotOpen::Later)
        }
        // The login is the token's, not the session's, and it outlived a session that could not be
        // closed. This says nothing about the PIN, unless it was by this one.
        Err(CryptokiError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
            let by_this = token.life().accepted == Some(pin.stamp);
            let end = if by_this { Login::Accepted } else { Login::Failed };
            marker.ended(&pin, end).map_err(NotOpen::Later)
        }
        Err(e) => {
            let detail = describe(&e);
            let refused = matches!(
                e,
                CryptokiError::Pkcs11(
                    RvError::PinIncorrect
                        | RvError::PinInvalid
                        | RvError::PinLenRange
                        | RvError::PinExpired
                        | RvError::PinLocked,
                    _
                )
            );
            let end = if refused { Login::Refused } else { Login::Failed };
            if let Err(problem) = marker.ended(&pin, end) {
                // The mark still says "trying", which is the more careful of the two.
                warn!(token = token.spec.name, problem, "login marker not written");
            }
            if refused {
                let reason = format!(
                    "refused login: {detail}. It is not tried again with this PIN. hint: put the \
                     right PIN into its file (after a lock, have the security officer reset it)"
                );
                return Err(NotOpen::PinRefused(Some(pin.stamp), reason));
            }
            Err(NotOpen::Later(detail))
        }
    }
}
