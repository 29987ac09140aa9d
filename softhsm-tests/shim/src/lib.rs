//! A PKCS#11 module in front of another, which fails on demand. For tests: a keeper that loads it
//! meets the troubles of real HSMs, at the call and the count that a test names.
//!
//! # Control file
//! Beside the `.so`, at its path with `.json` appended; read once, when the module is loaded. Several
//! copies of the shim may front several stores in one process: each has its own control file, and its
//! own copy of the module behind it.
//!
//! ```json
//! { "module": "/usr/lib/softhsm/libsofthsm2.so",
//!   "softhsm2_conf": "/tmp/t/softhsm2.conf",
//!   "rules": "/tmp/t/rules.json",
//!   "log": "/tmp/t/calls.log" }
//! ```
//! - `module`: the real module. It is copied to the shim's path with `.inner.so` appended and loaded
//!   from there, so that two shims have two instances of it. The process that loads the shim has to be
//!   able to write there, unless the copy has been made for it.
//! - `softhsm2_conf` (optional): put into the environment as `SOFTHSM2_CONF` for `C_Initialize`.
//! - `rules` (optional): the rules file, below. It need not exist.
//! - `log` (optional): a line is appended for each call that is watched, *before* it is carried out:
//!   process id, call, its count, and `injected` if a rule applies.
//!
//! # Rules file
//! Looked at before each call, and read again when it changed: write it beside and rename it, so that
//! it is never seen half-written. Counts start over when it changes. The first rule that matches applies.
//!
//! ```json
//! [ { "call": "C_Sign", "nth": 3, "action": { "return": "`CKR_DEVICE_ERROR`" } },
//!   { "call": "C_Login", "from": 1, "action": "hang" },
//!   { "call": "*", "every": true, "action": { "delay_ms": 20 } } ]
//! ```
//! - `call`: one of [`WATCHED`], or `*` for all of them.
//! - when: `nth` (that call alone), `from` (that one and all after it), or `every`.
//! - `action`:
//!   - `{"return": CODE}`: not carried out; `CODE` is a name of [`CODES`] or a number.
//!   - `"wrong_signature"`, `"short_signature"`: carried out, then one bit of the signature is flipped,
//!     or its last octet is cut off.
//!   - `"hang"`: does not return for as long as a rule in the file says so; then it is carried out. When
//!     the file is gone, it never returns.
//!   - `{"delay_ms": N}`: carried out after that time.
//!   - `{"late_return": CODE}`: carried out, and then denied.
//!   - `"wrong_value"`: carried out, then one bit of each `CKA_VALUE` is flipped (`C_GetAttributeValue`).
//!   - `{"without_mechanism": N}`: carried out, then that mechanism is left out (`C_GetMechanismList`).
//!   - `"crash"`: the process aborts; `"late_crash"`: carried out, and then it does.
//!
//! `C_Sign` counts calls that hand out a signature, not those that ask for its length.

#![expect(non_snake_case, reason = "the names of PKCS#11 functions")]

mod control;
mod rules;

use std::sync::OnceLock;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BYTE, CK_FLAGS, CK_FUNCTION_LIST, CK_FUNCTION_LIST_PTR_PTR, CK_MECHANISM,
    CK_MECHANISM_TYPE, CK_NOTIFY, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SESSION_INFO,
    CK_SLOT_ID, CK_TOKEN_INFO, CK_ULONG, CK_USER_TYPE, CK_UTF8CHAR, CKR_FUNCTION_FAILED,
    CKR_FUNCTION_NOT_SUPPORTED, CKR_GENERAL_ERROR, CKR_OK,
};

use control::Shim;
use rules::Action;

/// The calls that rules may name; all others go straight to the module behind.
pub const WATCHED: [&str; 19] = [
    "C_Initialize",
    "C_GetSlotList",
    "C_GetTokenInfo",
    "C_GetMechanismList",
    "C_OpenSession",
    "C_CloseSession",
    "C_GetSessionInfo",
    "C_Login",
    "C_FindObjectsInit",
    "C_FindObjects",
    "C_FindObjectsFinal",
    "C_GetAttributeValue",
    "C_SetAttributeValue",
    "C_CreateObject",
    "C_CopyObject",
    "C_DestroyObject",
    "C_GenerateKeyPair",
    "C_SignInit",
    "C_Sign",
];

pub use rules::CODES;

/// The function list behind, with our functions in place of the watched ones.
struct Lists {
    ours: CK_FUNCTION_LIST,
    inner: CK_FUNCTION_LIST,
    shim: Shim,
}

static LISTS: OnceLock<Result<Lists, String>> = OnceLock::new();

fn lists() -> Option<&'static Lists> {
    LISTS.get().and_then(|lists| lists.as_ref().ok())
}

/// The one symbol that the module exports.
///
/// # Safety
/// As PKCS#11 says: `list` points to a place for a pointer.
#[expect(unsafe_code, reason = "the entry point of a C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    if list.is_null() {
        return cryptoki_sys::CKR_ARGUMENTS_BAD;
    }
    let lists = LISTS.get_or_init(|| {
        let shim = Shim::load(C_GetFunctionList as *const () as usize)?;
        let inner = shim.inner_list()?;
        Ok(Lists { ours: in_front_of(inner), inner, shim })
    });
    match lists {
        Ok(lists) => {
            // SAFETY: not null, and the caller's by contract. Modules never write to the list.
            unsafe { *list = std::ptr::from_ref(&lists.ours).cast_mut() };
            CKR_OK
        }
        Err(problem) => {
            eprintln!("countersign-p11-shim: {problem}");
            CKR_GENERAL_ERROR
        }
    }
}

/// What is done about one call: `carry_out` asks the module behind.
fn watched(call: &'static str, carry_out: impl FnOnce(&CK_FUNCTION_LIST) -> CK_RV) -> CK_RV {
    let Some(lists) = lists() else { return CKR_GENERAL_ERROR };
    act(lists, call, lists.shim.before(call), carry_out)
}

fn act(
    lists: &Lists,
    call: &str,
    action: Option<Action>,
    carry_out: impl FnOnce(&CK_FUNCTION_LIST) -> CK_RV,
) -> CK_RV {
    match action {
        Some(Action::Return(code)) => code.number(),
        Some(Action::LateReturn(code)) => {
            carry_out(&lists.inner);
            code.number()
        }
        Some(Action::DelayMs(ms)) => {
            std::thread::sleep(std::time::Duration::from_millis(ms));
            carry_out(&lists.inner)
        }
        Some(Action::Hang) => {
            lists.shim.hang(call);
            carry_out(&lists.inner)
        }
        Some(Action::Crash) => std::process::abort(),
        Some(Action::LateCrash) => {
            carry_out(&lists.inner);
            std::process::abort()
        }
        Some(
            Action::WrongSignature
            | Action::ShortSignature
            | Action::WrongValue
            | Action::WithoutMechanism(_),
        )
        | None => carry_out(&lists.inner),
    }
}

/// Defines a function that is watched and otherwise hands its arguments on.
macro_rules! pass_on {
    ($($call:ident($($arg:ident: $kind:ty),*);)*) => {$(
        #[expect(unsafe_code, reason = "a function of a C interface, called through its list")]
        unsafe extern "C" fn $call($($arg: $kind),*) -> CK_RV {
            watched(stringify!($call), |inner| match inner.$call {
                // SAFETY: the arguments are those that our caller gave under the same contract.
                Some(function) => unsafe { function($($arg),*) },
                None => CKR_FUNCTION_NOT_SUPPORTED,
            })
        }
    )*};
}

pass_on! {
    C_GetSlotList(present: cryptoki_sys::CK_BBOOL, list: *mut CK_SLOT_ID, count: *mut CK_ULONG);
    C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO);
    C_OpenSession(slot: CK_SLOT_ID, flags: CK_FLAGS, application: *mut std::ffi::c_void,
        notify: CK_NOTIFY, session: *mut CK_SESSION_HANDLE);
    C_CloseSession(session: CK_SESSION_HANDLE);
    C_GetSessionInfo(session: CK_SESSION_HANDLE, info: *mut CK_SESSION_INFO);
    C_Login(session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: *mut CK_UTF8CHAR, len: CK_ULONG);
    C_FindObjectsInit(session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG);
    C_FindObjects(session: CK_SESSION_HANDLE, objects: *mut CK_OBJECT_HANDLE, max: CK_ULONG,
        count: *mut CK_ULONG);
    C_FindObjectsFinal(session: CK_SESSION_HANDLE);
    C_SetAttributeValue(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE,
        template: *mut CK_ATTRIBUTE, count: CK_ULONG);
    C_CreateObject(session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG,
        object: *mut CK_OBJECT_HANDLE);
    C_CopyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE,
        template: *mut CK_ATTRIBUTE, count: CK_ULONG, copy: *mut CK_OBJECT_HANDLE);
    C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE);
    C_GenerateKeyPair(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM,
        public: *mut CK_ATTRIBUTE, public_count: CK_ULONG,
        private: *mut CK_ATTRIBUTE, private_count: CK_ULONG,
        public_key: *mut CK_OBJECT_HANDLE, private_key: *mut CK_OBJECT_HANDLE);
    C_SignInit(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE);
}

/// Initialises the module behind, under its own `SOFTHSM2_CONF`.
#[expect(unsafe_code, reason = "a function of a C interface, called through its list")]
unsafe extern "C" fn C_Initialize(args: *mut std::ffi::c_void) -> CK_RV {
    watched("C_Initialize", |inner| {
        let Some(function) = inner.C_Initialize else { return CKR_FUNCTION_NOT_SUPPORTED };
        let Some(lists) = lists() else { return CKR_GENERAL_ERROR };
        let Ok(_alone) = lists.shim.alone_with_environment() else { return CKR_FUNCTION_FAILED };
        // SAFETY: the argument is that of our caller, under the same contract.
        unsafe { function(args) }
    })
}

/// Signs, and spoils what comes back if a rule says so.
#[expect(unsafe_code, reason = "a function of a C interface, called through its list")]
unsafe extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    data_len: CK_ULONG,
    signature: *mut CK_BYTE,
    signature_len: *mut CK_ULONG,
) -> CK_RV {
    let Some(lists) = lists() else { return CKR_GENERAL_ERROR };
    let carry_out = |inner: &CK_FUNCTION_LIST| match inner.C_Sign {
        // SAFETY: the arguments are those of our caller, under the same contract.
        Some(function) => unsafe { function(session, data, data_len, signature, signature_len) },
        None => CKR_FUNCTION_NOT_SUPPORTED,
    };
    if signature.is_null() {
        return carry_out(&lists.inner);
    }
    let action = lists.shim.before("C_Sign");
    let rv = act(lists, "C_Sign", action, carry_out);
    if rv != CKR_OK || signature_len.is_null() {
        return rv;
    }
    match action {
        // SAFETY: the module said that it wrote `*signature_len` octets there; it is not 0.
        Some(Action::WrongSignature) => unsafe { *signature ^= 0x01 },
        // SAFETY: not null, and the caller's by contract.
        Some(Action::ShortSignature) => unsafe { *signature_len -= 1 },
        _ => {}
    }
    rv
}

/// Lists mechanisms, without the one that a rule takes away.
#[expect(unsafe_code, reason = "a function of a C interface, called through its list")]
unsafe extern "C" fn C_GetMechanismList(
    slot: CK_SLOT_ID,
    list: *mut CK_MECHANISM_TYPE,
    count: *mut CK_ULONG,
) -> CK_RV {
    let Some(lists) = lists() else { return CKR_GENERAL_ERROR };
    let action = lists.shim.before("C_GetMechanismList");
    let rv = act(lists, "C_GetMechanismList", action, |inner| match inner.C_GetMechanismList {
        // SAFETY: the arguments are those of our caller, under the same contract.
        Some(function) => unsafe { function(slot, list, count) },
        None => CKR_FUNCTION_NOT_SUPPORTED,
    });
    let Some(Action::WithoutMechanism(without)) = action else { return rv };
    if rv == CKR_OK && !list.is_null() && !count.is_null() {
        // SAFETY: the module said that it wrote `*count` numbers there, and nobody else has them yet.
        let (numbers, count) =
            unsafe { (std::slice::from_raw_parts_mut(list, *count as usize), &mut *count) };
        if let Some(at) = numbers.iter().position(|number| *number == without) {
            numbers[at..].rotate_left(1);
            *count -= 1;
        }
    }
    rv
}

/// Reads attributes, and spoils values if a rule says so.
#[expect(unsafe_code, reason = "a function of a C interface, called through its list")]
unsafe extern "C" fn C_GetAttributeValue(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    let Some(lists) = lists() else { return CKR_GENERAL_ERROR };
    let action = lists.shim.before("C_GetAttributeValue");
    let rv = act(lists, "C_GetAttributeValue", action, |inner| match inner.C_GetAttributeValue {
        // SAFETY: the arguments are those of our caller, under the same contract.
        Some(function) => unsafe { function(session, object, template, count) },
        None => CKR_FUNCTION_NOT_SUPPORTED,
    });
    if action == Some(Action::WrongValue) && rv == CKR_OK && !template.is_null() {
        // SAFETY: the caller's template of `count` attributes, by contract.
        for attribute in unsafe { std::slice::from_raw_parts(template, count as usize) } {
            let (kind, value, len) = (attribute.type_, attribute.pValue, attribute.ulValueLen);
            if kind == cryptoki_sys::CKA_VALUE && !value.is_null() && len > 0 {
                // SAFETY: the module said that it wrote `len` octets there; it is not 0.
                unsafe { *value.cast::<u8>() ^= 0x01 };
            }
        }
    }
    rv
}

/// The list that we hand out.
fn in_front_of(inner: CK_FUNCTION_LIST) -> CK_FUNCTION_LIST {
    CK_FUNCTION_LIST {
        C_Initialize: Some(C_Initialize),
        C_GetFunctionList: Some(C_GetFunctionList),
        C_GetSlotList: Some(C_GetSlotList),
        C_GetTokenInfo: Some(C_GetTokenInfo),
        C_GetMechanismList: Some(C_GetMechanismList),
        C_OpenSession: Some(C_OpenSession),
        C_CloseSession: Some(C_CloseSession),
        C_GetSessionInfo: Some(C_GetSessionInfo),
        C_Login: Some(C_Login),
        C_FindObjectsInit: Some(C_FindObjectsInit),
        C_FindObjects: Some(C_FindObjects),
        C_FindObjectsFinal: Some(C_FindObjectsFinal),
        C_GetAttributeValue: Some(C_GetAttributeValue),
        C_SetAttributeValue: Some(C_SetAttributeValue),
        C_CreateObject: Some(C_CreateObject),
        C_CopyObject: Some(C_CopyObject),
        C_DestroyObject: Some(C_DestroyObject),
        C_GenerateKeyPair: Some(C_GenerateKeyPair),
        C_SignInit: Some(C_SignInit),
        C_Sign: Some(C_Sign),
        ..inner
    }
}
