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
//!   "environment": { "SOFTHSM2_CONF": "/tmp/t/softhsm2.conf" },
//!   "rules": "/tmp/t/rules.json",
//!   "log": "/tmp/t/calls.log" }
//! ```
//! - `module`: the real module. It is copied to the shim's path with `.inner.so` appended and loaded
//!   from there, so that two shims have two instances of it. The process that loads the shim has to be
//!   able to write there, unless the copy has been made for it.
//! - `environment` (optional): put into the environment for `C_Initialize`.
//! - `parameters` (optional): handed to the module in the reserved field of `C_Initialize`'s arguments, where
//!   NSS softokn looks for them.
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
//!   - `"hang"`: does not return for as long as a rule in the file says so; then it is carried out. When
//!     the file is gone, it never returns.
//!   - `{"delay_ms": N}`: carried out after that time.
//!   - `{"late_return": CODE}`: carried out, and then denied.
//!   - `"wrong_answer"`, `"short_answer"`, `"empty_answer"`, `"long_answer"`, `{"wrong_attribute": N}`,
//!     `{"without_attribute": N}`, `{"without_mechanism": N}`: carried out, and what it answers is spoilt
//!     ([`answers`]).
//!   - `"crash"`: the process aborts; `"late_crash"`: carried out, and then it does.
//!
//! `{"return": 0}` is a lie: nothing was done, and all is said to be well.
//!
//! `C_Sign` counts calls that hand out a signature, not those that ask for its length.
//!
//! A call that rules can't name is not offered at all: whoever makes it gets an error. So nothing that
//! is tested with this module makes a call that could not be made to fail.

#![expect(non_snake_case, reason = "the names of PKCS#11 functions")]

mod answers;
mod control;
mod rules;

use std::sync::OnceLock;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BYTE, CK_C_INITIALIZE_ARGS, CK_FLAGS, CK_FUNCTION_LIST,
    CK_FUNCTION_LIST_PTR_PTR, CK_MECHANISM, CK_MECHANISM_INFO, CK_MECHANISM_TYPE, CK_NOTIFY,
    CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SESSION_INFO, CK_SLOT_ID, CK_TOKEN_INFO,
    CK_ULONG, CK_USER_TYPE, CK_UTF8CHAR, CKR_FUNCTION_FAILED, CKR_FUNCTION_NOT_SUPPORTED,
    CKR_GENERAL_ERROR, CKR_OK,
};

use control::Shim;
use rules::{Action, Spoil};

/// The calls that rules may name; others are not offered.
pub const WATCHED: [&str; 21] = [
    "C_GetFunctionList",
    "C_Initialize",
    "C_Finalize",
    "C_GetSlotList",
    "C_GetTokenInfo",
    "C_GetMechanismList",
    "C_GetMechanismInfo",
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
        Ok(_) => watched("C_GetFunctionList", |lists| {
            // SAFETY: not null, and the caller's by contract. Modules never write to the list.
            unsafe { *list = std::ptr::from_ref(&lists.ours).cast_mut() };
            CKR_OK
        }),
        Err(problem) => {
            eprintln!("countersign-p11-shim: {problem}");
            CKR_GENERAL_ERROR
        }
    }
}

/// What is done about one call: `carry_out` asks the module behind.
fn watched(call: &'static str, carry_out: impl FnOnce(&Lists) -> CK_RV) -> CK_RV {
    watched_answer(call, carry_out, |_| CKR_OK)
}

/// The same for a call with an answer, which `spoil` spoils; what is returned then.
fn watched_answer(
    call: &'static str,
    carry_out: impl FnOnce(&Lists) -> CK_RV,
    spoil: impl FnOnce(Spoil) -> CK_RV,
) -> CK_RV {
    let Some(lists) = lists() else { return CKR_GENERAL_ERROR };
    match lists.shim.before(call) {
        Some(Action::Return(code)) => code.number(),
        Some(Action::LateReturn(code)) => {
            carry_out(lists);
            code.number()
        }
        Some(Action::DelayMs(ms)) => {
            std::thread::sleep(std::time::Duration::from_millis(ms));
            carry_out(lists)
        }
        Some(Action::Hang) => {
            lists.shim.hang(call);
            carry_out(lists)
        }
        Some(Action::Crash) => crash(),
        Some(Action::LateCrash) => {
            carry_out(lists);
            crash()
        }
        Some(Action::Spoil(how)) => match carry_out(lists) {
            CKR_OK => spoil(how),
            failed => failed,
        },
        None => carry_out(lists),
    }
}

/// Aborts, once what other threads are writing is written: SoftHSM rewrites a token's file in place at each
/// login, and a crash in the midst of that costs the token, which is no fault of who logs in.
fn crash() -> ! {
    std::thread::sleep(std::time::Duration::from_millis(200));
    std::process::abort()
}

/// Defines a function that is watched and otherwise hands its arguments on; behind `=>`, what spoils
/// its answer.
macro_rules! pass_on {
    ($($call:ident($($arg:ident: $kind:ty),*) $(=> $spoil:path, $($spoilt:ident),*)?;)*) => {$(
        #[expect(unsafe_code, reason = "a function of a C interface, called through its list")]
        unsafe extern "C" fn $call($($arg: $kind),*) -> CK_RV {
            let carry_out = |lists: &Lists| match lists.inner.$call {
                // SAFETY: the arguments are those that our caller gave under the same contract.
                Some(function) => unsafe { function($($arg),*) },
                None => CKR_FUNCTION_NOT_SUPPORTED,
            };
            watched_answer(stringify!($call), carry_out, |_how| {
                // SAFETY: the same arguments, and the module has written what it said.
                $(unsafe { $spoil(_how, $($spoilt),*) };)?
                CKR_OK
            })
        }
    )*};
}

pass_on! {
    C_Finalize(reserved: *mut std::ffi::c_void);
    C_GetSlotList(present: cryptoki_sys::CK_BBOOL, list: *mut CK_SLOT_ID, count: *mut CK_ULONG)
        => answers::slots, list, count;
    C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) => answers::token_info, info;
    C_GetMechanismList(slot: CK_SLOT_ID, list: *mut CK_MECHANISM_TYPE, count: *mut CK_ULONG)
        => answers::mechanisms, list, count;
    C_GetMechanismInfo(slot: CK_SLOT_ID, kind: CK_MECHANISM_TYPE, info: *mut CK_MECHANISM_INFO)
        => answers::mechanism_info, info;
    C_OpenSession(slot: CK_SLOT_ID, flags: CK_FLAGS, application: *mut std::ffi::c_void,
        notify: CK_NOTIFY, session: *mut CK_SESSION_HANDLE) => answers::handle, session;
    C_CloseSession(session: CK_SESSION_HANDLE);
    C_GetSessionInfo(session: CK_SESSION_HANDLE, info: *mut CK_SESSION_INFO)
        => answers::session_info, info;
    C_Login(session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: *mut CK_UTF8CHAR, len: CK_ULONG);
    C_FindObjectsInit(session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG);
    C_FindObjects(session: CK_SESSION_HANDLE, objects: *mut CK_OBJECT_HANDLE, max: CK_ULONG,
        count: *mut CK_ULONG) => answers::objects, objects, max, count;
    C_FindObjectsFinal(session: CK_SESSION_HANDLE);
    C_SetAttributeValue(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE,
        template: *mut CK_ATTRIBUTE, count: CK_ULONG);
    C_CreateObject(session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG,
        object: *mut CK_OBJECT_HANDLE) => answers::handle, object;
    C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE);
    C_GenerateKeyPair(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM,
        public: *mut CK_ATTRIBUTE, public_count: CK_ULONG,
        private: *mut CK_ATTRIBUTE, private_count: CK_ULONG,
        public_key: *mut CK_OBJECT_HANDLE, private_key: *mut CK_OBJECT_HANDLE)
        => answers::pair, public_key, private_key;
    C_SignInit(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE);
}

/// `CK_C_INITIALIZE_ARGS` with one field more, which NSS has behind its parameters.
#[repr(C)]
struct Arguments {
    standard: CK_C_INITIALIZE_ARGS,
    reserved: *mut std::ffi::c_void,
}

/// Initialises the module behind, under its own environment and with its parameters.
#[expect(unsafe_code, reason = "a function of a C interface, called through its list")]
unsafe extern "C" fn C_Initialize(args: *mut std::ffi::c_void) -> CK_RV {
    watched("C_Initialize", |lists| {
        let Some(function) = lists.inner.C_Initialize else { return CKR_FUNCTION_NOT_SUPPORTED };
        let Ok(_alone) = lists.shim.alone_with_environment() else { return CKR_FUNCTION_FAILED };
        let parameters = lists.shim.parameters();
        // SAFETY: by contract null, or such arguments.
        let standard = unsafe { args.cast::<CK_C_INITIALIZE_ARGS>().as_ref() };
        let Some(standard) = standard.filter(|_| !parameters.is_null()) else {
            // SAFETY: the arguments are those of our caller, under the same contract.
            return unsafe { function(args) };
        };
        let standard = CK_C_INITIALIZE_ARGS { pReserved: parameters, ..*standard };
        let mut more = Arguments { standard, reserved: std::ptr::null_mut() };
        // SAFETY: such arguments, and the parameters live as long as the shim.
        unsafe { function((&raw mut more).cast()) }
    })
}

/// Signs; who asks for the length alone is let through.
#[expect(unsafe_code, reason = "a function of a C interface, called through its list")]
unsafe extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    data_len: CK_ULONG,
    signature: *mut CK_BYTE,
    signature_len: *mut CK_ULONG,
) -> CK_RV {
    let Some(lists) = lists() else { return CKR_GENERAL_ERROR };
    let carry_out = |lists: &Lists| match lists.inner.C_Sign {
        // SAFETY: the arguments are those of our caller, under the same contract.
        Some(function) => unsafe { function(session, data, data_len, signature, signature_len) },
        None => CKR_FUNCTION_NOT_SUPPORTED,
    };
    if signature.is_null() {
        return carry_out(lists);
    }
    watched_answer("C_Sign", carry_out, |how| {
        // SAFETY: the module has written `*signature_len` octets, and no signature is empty.
        unsafe { answers::signature(how, signature, signature_len) };
        CKR_OK
    })
}

/// Reads attributes.
#[expect(unsafe_code, reason = "a function of a C interface, called through its list")]
unsafe extern "C" fn C_GetAttributeValue(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    let carry_out = |lists: &Lists| match lists.inner.C_GetAttributeValue {
        // SAFETY: the arguments are those of our caller, under the same contract.
        Some(function) => unsafe { function(session, object, template, count) },
        None => CKR_FUNCTION_NOT_SUPPORTED,
    };
    watched_answer("C_GetAttributeValue", carry_out, |how| {
        // SAFETY: the caller's template, which the module has filled.
        unsafe { answers::attributes(how, template, count) }
    })
}

/// The list that we hand out: what is watched, and nothing else.
fn in_front_of(inner: CK_FUNCTION_LIST) -> CK_FUNCTION_LIST {
    CK_FUNCTION_LIST {
        version: inner.version,
        C_Initialize: Some(C_Initialize),
        C_Finalize: Some(C_Finalize),
        C_GetFunctionList: Some(C_GetFunctionList),
        C_GetSlotList: Some(C_GetSlotList),
        C_GetTokenInfo: Some(C_GetTokenInfo),
        C_GetMechanismList: Some(C_GetMechanismList),
        C_GetMechanismInfo: Some(C_GetMechanismInfo),
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
        C_DestroyObject: Some(C_DestroyObject),
        C_GenerateKeyPair: Some(C_GenerateKeyPair),
        C_SignInit: Some(C_SignInit),
        C_Sign: Some(C_Sign),
        ..CK_FUNCTION_LIST::default()
    }
}
