//! What a rule does to the answer of a call that was carried out.
//!
//! | call | `wrong_answer` | `short_answer` | `empty_answer` | `long_answer` |
//! |---|---|---|---|---|
//! | `C_GetSlotList` | slots that are not there | the last is missing | no slot | |
//! | `C_GetTokenInfo` | another serial number | no label and no serial number | all blank | |
//! | `C_GetMechanismList` | other mechanisms | the last is missing | none | |
//! | `C_GetMechanismInfo` | fit for nothing | keys of 0 bits | all zero | |
//! | `C_OpenSession` | a handle that is none | | handle 0 | |
//! | `C_GetSessionInfo` | not logged in | | all zero | |
//! | `C_FindObjects` | handles that are none | the last is missing | no object | more than asked for |
//! | `C_GetAttributeValue` | one bit of each value flipped | each value one octet shorter | empty values | |
//! | `C_CreateObject` | a handle that is none | | handle 0 | |
//! | `C_GenerateKeyPair` | the two handles swapped | the public key alone | two handles 0 | |
//! | `C_Sign` | one bit flipped | one octet shorter | empty | |
//!
//! `wrong_attribute` and `without_attribute` are for `C_GetAttributeValue`, `without_mechanism` is for
//! `C_GetMechanismList`. What has no place here, and every other call, is left as it is.

#![expect(unsafe_code, reason = "answers are memory of the caller's")]

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BYTE, CK_MECHANISM_INFO, CK_MECHANISM_TYPE, CK_OBJECT_HANDLE, CK_RV,
    CK_SESSION_HANDLE, CK_SESSION_INFO, CK_SLOT_ID, CK_TOKEN_INFO, CK_ULONG,
    CK_UNAVAILABLE_INFORMATION, CKR_ATTRIBUTE_TYPE_INVALID, CKR_OK, CKS_RW_PUBLIC_SESSION,
};

use super::rules::Spoil;

/// Added to a number to make it that of nothing.
const NOWHERE: CK_ULONG = 1 << 20;

/// Spoils a list of numbers: `count` of them were written to `list`, or only counted where that is null.
///
/// # Safety
/// As the call that it is of: both are the caller's, and the module has written them.
pub unsafe fn list(spoil: Spoil, list: *mut CK_ULONG, count: *mut CK_ULONG) {
    if count.is_null() {
        return;
    }
    // SAFETY: not null, and the caller's.
    let count = unsafe { &mut *count };
    match spoil {
        Spoil::EmptyAnswer => *count = 0,
        Spoil::ShortAnswer => *count = count.saturating_sub(1),
        Spoil::WrongAnswer if !list.is_null() => {
            // SAFETY: the module said that it wrote so many numbers there; nobody else has them yet.
            let numbers = unsafe { std::slice::from_raw_parts_mut(list, *count as usize) };
            for number in numbers {
                *number += NOWHERE;
            }
        }
        _ => {}
    }
}

/// `C_GetSlotList`.
///
/// # Safety
/// As of [`list`].
pub unsafe fn slots(spoil: Spoil, slots: *mut CK_SLOT_ID, count: *mut CK_ULONG) {
    // SAFETY: the same contract.
    unsafe { list(spoil, slots, count) };
}

/// `C_GetMechanismList`.
///
/// # Safety
/// As of [`list`].
pub unsafe fn mechanisms(spoil: Spoil, found: *mut CK_MECHANISM_TYPE, count: *mut CK_ULONG) {
    let Spoil::WithoutMechanism(without) = spoil else {
        // SAFETY: the same contract.
        return unsafe { list(spoil, found, count) };
    };
    if found.is_null() || count.is_null() {
        return;
    }
    // SAFETY: the module said that it wrote `*count` numbers there, and nobody else has them yet.
    let (numbers, count) =
        unsafe { (std::slice::from_raw_parts_mut(found, *count as usize), &mut *count) };
    if let Some(at) = numbers.iter().position(|number| *number == without) {
        numbers[at..].rotate_left(1);
        *count -= 1;
    }
}

/// `C_FindObjects`, asked for at most `max`.
///
/// # Safety
/// As of [`list`].
pub unsafe fn objects(
    spoil: Spoil,
    objects: *mut CK_OBJECT_HANDLE,
    max: CK_ULONG,
    count: *mut CK_ULONG,
) {
    if spoil == Spoil::LongAnswer && !count.is_null() {
        // SAFETY: not null, and the caller's.
        unsafe { *count = max + 1 };
    } else {
        // SAFETY: the same contract.
        unsafe { list(spoil, objects, count) };
    }
}

/// `C_GetTokenInfo`.
///
/// # Safety
/// `info` is null or the caller's.
pub unsafe fn token_info(spoil: Spoil, info: *mut CK_TOKEN_INFO) {
    // SAFETY: by contract.
    let Some(info) = (unsafe { info.as_mut() }) else { return };
    match spoil {
        Spoil::WrongAnswer => info.serialNumber[0] ^= 1,
        Spoil::ShortAnswer => (info.label, info.serialNumber) = ([b' '; 32], [b' '; 16]),
        Spoil::EmptyAnswer => *info = CK_TOKEN_INFO::default(),
        _ => {}
    }
}

/// `C_GetMechanismInfo`.
///
/// # Safety
/// `info` is null or the caller's.
pub unsafe fn mechanism_info(spoil: Spoil, info: *mut CK_MECHANISM_INFO) {
    // SAFETY: by contract.
    let Some(info) = (unsafe { info.as_mut() }) else { return };
    match spoil {
        Spoil::WrongAnswer => info.flags = 0,
        Spoil::ShortAnswer => (info.ulMinKeySize, info.ulMaxKeySize) = (0, 0),
        Spoil::EmptyAnswer => *info = CK_MECHANISM_INFO::default(),
        _ => {}
    }
}

/// `C_GetSessionInfo`.
///
/// # Safety
/// `info` is null or the caller's.
pub unsafe fn session_info(spoil: Spoil, info: *mut CK_SESSION_INFO) {
    // SAFETY: by contract.
    let Some(info) = (unsafe { info.as_mut() }) else { return };
    match spoil {
        Spoil::WrongAnswer => info.state = CKS_RW_PUBLIC_SESSION,
        Spoil::EmptyAnswer => *info = CK_SESSION_INFO::default(),
        _ => {}
    }
}

/// `C_OpenSession` and `C_CreateObject`.
///
/// # Safety
/// `handle` is null or the caller's.
pub unsafe fn handle(spoil: Spoil, handle: *mut CK_SESSION_HANDLE) {
    // SAFETY: by contract.
    let Some(handle) = (unsafe { handle.as_mut() }) else { return };
    match spoil {
        Spoil::WrongAnswer => *handle += NOWHERE,
        Spoil::EmptyAnswer => *handle = 0,
        _ => {}
    }
}

/// `C_GenerateKeyPair`.
///
/// # Safety
/// Each is null or the caller's.
pub unsafe fn pair(spoil: Spoil, public: *mut CK_OBJECT_HANDLE, private: *mut CK_OBJECT_HANDLE) {
    // SAFETY: by contract.
    let (Some(public), Some(private)) = (unsafe { (public.as_mut(), private.as_mut()) }) else {
        return;
    };
    match spoil {
        Spoil::WrongAnswer => std::mem::swap(public, private),
        Spoil::ShortAnswer => *private = 0,
        Spoil::EmptyAnswer => (*public, *private) = (0, 0),
        _ => {}
    }
}

/// `C_Sign`.
///
/// # Safety
/// As the call: the module has written `*len` octets, and there is at least one.
pub unsafe fn signature(spoil: Spoil, signature: *mut CK_BYTE, len: *mut CK_ULONG) {
    if signature.is_null() || len.is_null() {
        return;
    }
    // SAFETY: by contract.
    unsafe {
        match spoil {
            Spoil::WrongAnswer => *signature ^= 0x01,
            Spoil::ShortAnswer => *len -= 1,
            Spoil::EmptyAnswer => *len = 0,
            _ => {}
        }
    }
}

/// `C_GetAttributeValue`; what it returns then.
///
/// # Safety
/// As the call: a template of `count` attributes, which the module has filled.
pub unsafe fn attributes(spoil: Spoil, template: *mut CK_ATTRIBUTE, count: CK_ULONG) -> CK_RV {
    if template.is_null() {
        return CKR_OK;
    }
    // SAFETY: by contract.
    let template = unsafe { std::slice::from_raw_parts_mut(template, count as usize) };
    let mut rv = CKR_OK;
    for attribute in template {
        let told = attribute.ulValueLen != CK_UNAVAILABLE_INFORMATION;
        let written = told && !attribute.pValue.is_null() && attribute.ulValueLen > 0;
        let kind = attribute.type_;
        match spoil {
            Spoil::WithoutAttribute(without) if without == kind => {
                attribute.ulValueLen = CK_UNAVAILABLE_INFORMATION;
                rv = CKR_ATTRIBUTE_TYPE_INVALID;
            }
            Spoil::WrongAttribute(wrong) if wrong != kind => {}
            Spoil::WrongAttribute(_) | Spoil::WrongAnswer if written => {
                // SAFETY: the module said that it wrote `ulValueLen` octets there; it is not 0.
                unsafe { *attribute.pValue.cast::<u8>() ^= 0x01 };
            }
            Spoil::ShortAnswer if written => attribute.ulValueLen -= 1,
            Spoil::EmptyAnswer if written => attribute.ulValueLen = 0,
            _ => {}
        }
    }
    rv
}
