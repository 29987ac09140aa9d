//! What the matrix is made of: the calls, what each may return, and what else may become of it.

use std::fmt;

use serde_json::{Value, json};

use Token::{Ksk, Zsk};

/// Every PKCS#11 call that a keeper makes, with the return codes that PKCS#11 2.40 (base specification,
/// §5) defines for it. To `C_Login` those are added by which tokens refuse a PIN.
pub const CALLS: [(&str, &str); 21] = [
    ("C_GetFunctionList", "ARGUMENTS_BAD FUNCTION_FAILED GENERAL_ERROR HOST_MEMORY"),
    (
        "C_Initialize",
        "ARGUMENTS_BAD CANT_LOCK CRYPTOKI_ALREADY_INITIALIZED FUNCTION_FAILED GENERAL_ERROR \
         HOST_MEMORY NEED_TO_CREATE_THREADS",
    ),
    (
        "C_Finalize",
        "ARGUMENTS_BAD CRYPTOKI_NOT_INITIALIZED FUNCTION_FAILED GENERAL_ERROR HOST_MEMORY",
    ),
    (
        "C_GetSlotList",
        "ARGUMENTS_BAD BUFFER_TOO_SMALL CRYPTOKI_NOT_INITIALIZED FUNCTION_FAILED GENERAL_ERROR \
         HOST_MEMORY",
    ),
    (
        "C_GetTokenInfo",
        "ARGUMENTS_BAD CRYPTOKI_NOT_INITIALIZED DEVICE_ERROR DEVICE_MEMORY DEVICE_REMOVED \
         FUNCTION_FAILED GENERAL_ERROR HOST_MEMORY SLOT_ID_INVALID TOKEN_NOT_PRESENT \
         TOKEN_NOT_RECOGNIZED",
    ),
    (
        "C_GetMechanismList",
        "ARGUMENTS_BAD BUFFER_TOO_SMALL CRYPTOKI_NOT_INITIALIZED DEVICE_ERROR DEVICE_MEMORY \
         DEVICE_REMOVED FUNCTION_FAILED GENERAL_ERROR HOST_MEMORY SLOT_ID_INVALID \
         TOKEN_NOT_PRESENT TOKEN_NOT_RECOGNIZED",
    ),
    (
        "C_GetMechanismInfo",
        "ARGUMENTS_BAD CRYPTOKI_NOT_INITIALIZED DEVICE_ERROR DEVICE_MEMORY DEVICE_REMOVED \
         FUNCTION_FAILED GENERAL_ERROR HOST_MEMORY MECHANISM_INVALID SLOT_ID_INVALID \
         TOKEN_NOT_PRESENT TOKEN_NOT_RECOGNIZED",
    ),
    (
        "C_OpenSession",
        "ARGUMENTS_BAD CRYPTOKI_NOT_INITIALIZED DEVICE_ERROR DEVICE_MEMORY DEVICE_REMOVED \
         FUNCTION_FAILED GENERAL_ERROR HOST_MEMORY SESSION_COUNT SESSION_PARALLEL_NOT_SUPPORTED \
         SESSION_READ_WRITE_SO_EXISTS SLOT_ID_INVALID TOKEN_NOT_PRESENT TOKEN_NOT_RECOGNIZED \
         TOKEN_WRITE_PROTECTED",
    ),
    (
        "C_CloseSession",
        "CRYPTOKI_NOT_INITIALIZED DEVICE_ERROR DEVICE_MEMORY DEVICE_REMOVED FUNCTION_FAILED \
         GENERAL_ERROR HOST_MEMORY SESSION_CLOSED SESSION_HANDLE_INVALID",
    ),
    (
        "C_GetSessionInfo",
        "ARGUMENTS_BAD CRYPTOKI_NOT_INITIALIZED DEVICE_ERROR DEVICE_MEMORY DEVICE_REMOVED \
         FUNCTION_FAILED GENERAL_ERROR HOST_MEMORY SESSION_CLOSED SESSION_HANDLE_INVALID",
    ),
    (
        "C_Login",
        "ARGUMENTS_BAD CRYPTOKI_NOT_INITIALIZED DEVICE_ERROR DEVICE_MEMORY DEVICE_REMOVED \
         FUNCTION_CANCELED FUNCTION_FAILED GENERAL_ERROR HOST_MEMORY OPERATION_NOT_INITIALIZED \
         PIN_INCORRECT PIN_LOCKED PIN_INVALID PIN_LEN_RANGE PIN_EXPIRED SESSION_CLOSED \
         SESSION_HANDLE_INVALID SESSION_READ_ONLY_EXISTS USER_ALREADY_LOGGED_IN \
         USER_ANOTHER_ALREADY_LOGGED_IN USER_PIN_NOT_INITIALIZED USER_TOO_MANY_TYPES \
         USER_TYPE_INVALID",
    ),
    (
        "C_FindObjectsInit",
        "ARGUMENTS_BAD ATTRIBUTE_TYPE_INVALID ATTRIBUTE_VALUE_INVALID CRYPTOKI_NOT_INITIALIZED \
         DEVICE_ERROR DEVICE_MEMORY DEVICE_REMOVED FUNCTION_FAILED GENERAL_ERROR HOST_MEMORY \
         OPERATION_ACTIVE PIN_EXPIRED SESSION_CLOSED SESSION_HANDLE_INVALID",
    ),
    (
        "C_FindObjects",
        "ARGUMENTS_BAD CRYPTOKI_NOT_INITIALIZED DEVICE_ERROR DEVICE_MEMORY DEVICE_REMOVED \
         FUNCTION_FAILED GENERAL_ERROR HOST_MEMORY OPERATION_NOT_INITIALIZED SESSION_CLOSED \
         SESSION_HANDLE_INVALID",
    ),
    (
        "C_FindObjectsFinal",
        "CRYPTOKI_NOT_INITIALIZED DEVICE_ERROR DEVICE_MEMORY DEVICE_REMOVED FUNCTION_FAILED \
         GENERAL_ERROR HOST_MEMORY OPERATION_NOT_INITIALIZED SESSION_CLOSED \
         SESSION_HANDLE_INVALID",
    ),
    (
        "C_GetAttributeValue",
        "ARGUMENTS_BAD ATTRIBUTE_SENSITIVE ATTRIBUTE_TYPE_INVALID BUFFER_TOO_SMALL \
         CRYPTOKI_NOT_INITIALIZED DEVICE_ERROR DEVICE_MEMORY DEVICE_REMOVED FUNCTION_FAILED \
         GENERAL_ERROR HOST_MEMORY OBJECT_HANDLE_INVALID SESSION_CLOSED SESSION_HANDLE_INVALID",
    ),
    (
        "C_SetAttributeValue",
        "ACTION_PROHIBITED ARGUMENTS_BAD ATTRIBUTE_READ_ONLY ATTRIBUTE_TYPE_INVALID \
         ATTRIBUTE_VALUE_INVALID CRYPTOKI_NOT_INITIALIZED DEVICE_ERROR DEVICE_MEMORY \
         DEVICE_REMOVED FUNCTION_FAILED GENERAL_ERROR HOST_MEMORY OBJECT_HANDLE_INVALID \
         SESSION_CLOSED SESSION_HANDLE_INVALID SESSION_READ_ONLY TEMPLATE_INCONSISTENT \
         TOKEN_WRITE_PROTECTED",
    ),
    (
        "C_CreateObject",
        "ARGUMENTS_BAD ATTRIBUTE_READ_ONLY ATTRIBUTE_TYPE_INVALID ATTRIBUTE_VALUE_INVALID \
         CRYPTOKI_NOT_INITIALIZED CURVE_NOT_SUPPORTED DEVICE_ERROR DEVICE_MEMORY DEVICE_REMOVED \
         DOMAIN_PARAMS_INVALID FUNCTION_FAILED GENERAL_ERROR HOST_MEMORY PIN_EXPIRED \
         SESSION_CLOSED SESSION_HANDLE_INVALID SESSION_READ_ONLY TEMPLATE_INCOMPLETE \
         TEMPLATE_INCONSISTENT TOKEN_WRITE_PROTECTED USER_NOT_LOGGED_IN",
    ),
    (
        "C_DestroyObject",
        "ACTION_PROHIBITED CRYPTOKI_NOT_INITIALIZED DEVICE_ERROR DEVICE_MEMORY DEVICE_REMOVED \
         FUNCTION_FAILED GENERAL_ERROR HOST_MEMORY OBJECT_HANDLE_INVALID PIN_EXPIRED \
         SESSION_CLOSED SESSION_HANDLE_INVALID SESSION_READ_ONLY TOKEN_WRITE_PROTECTED",
    ),
    (
        "C_GenerateKeyPair",
        "ARGUMENTS_BAD ATTRIBUTE_READ_ONLY ATTRIBUTE_TYPE_INVALID ATTRIBUTE_VALUE_INVALID \
         CRYPTOKI_NOT_INITIALIZED CURVE_NOT_SUPPORTED DEVICE_ERROR DEVICE_MEMORY DEVICE_REMOVED \
         DOMAIN_PARAMS_INVALID FUNCTION_CANCELED FUNCTION_FAILED GENERAL_ERROR HOST_MEMORY \
         MECHANISM_INVALID MECHANISM_PARAM_INVALID OPERATION_ACTIVE PIN_EXPIRED SESSION_CLOSED \
         SESSION_HANDLE_INVALID SESSION_READ_ONLY TEMPLATE_INCOMPLETE TEMPLATE_INCONSISTENT \
         TOKEN_WRITE_PROTECTED USER_NOT_LOGGED_IN",
    ),
    (
        "C_SignInit",
        "ARGUMENTS_BAD CRYPTOKI_NOT_INITIALIZED DEVICE_ERROR DEVICE_MEMORY DEVICE_REMOVED \
         FUNCTION_CANCELED FUNCTION_FAILED GENERAL_ERROR HOST_MEMORY KEY_FUNCTION_NOT_PERMITTED \
         KEY_HANDLE_INVALID KEY_SIZE_RANGE KEY_TYPE_INCONSISTENT MECHANISM_INVALID \
         MECHANISM_PARAM_INVALID OPERATION_ACTIVE PIN_EXPIRED SESSION_CLOSED \
         SESSION_HANDLE_INVALID USER_NOT_LOGGED_IN",
    ),
    (
        "C_Sign",
        "ARGUMENTS_BAD BUFFER_TOO_SMALL CRYPTOKI_NOT_INITIALIZED DATA_INVALID DATA_LEN_RANGE \
         DEVICE_ERROR DEVICE_MEMORY DEVICE_REMOVED FUNCTION_CANCELED FUNCTION_FAILED \
         FUNCTION_REJECTED GENERAL_ERROR HOST_MEMORY OPERATION_NOT_INITIALIZED SESSION_CLOSED \
         SESSION_HANDLE_INVALID USER_NOT_LOGGED_IN",
    ),
];

/// Codes that any call of a real module may give besides: a vendor's own, one of PKCS#11 3.0 that its
/// client does not know, and a "not supported" where there had been an answer.
const MORE_CODES: [&str; 3] =
    ["VENDOR_DEFINED", "TOKEN_RESOURCE_EXCEEDED", "FUNCTION_NOT_SUPPORTED"];

/// How tokens say that they do not take the PIN: none of these is tried again with it.
const PIN_REFUSED: [&str; 5] =
    ["PIN_INCORRECT", "PIN_LOCKED", "PIN_INVALID", "PIN_LEN_RANGE", "PIN_EXPIRED"];

/// Spoilt answers, by call; what they mean for each is in the shim's `answers`.
const SPOILT: [(&str, &[&str]); 11] = [
    ("C_GetSlotList", &["wrong_answer", "short_answer", "empty_answer"]),
    ("C_GetTokenInfo", &["wrong_answer", "short_answer", "empty_answer"]),
    ("C_GetMechanismList", &["wrong_answer", "short_answer", "empty_answer"]),
    ("C_GetMechanismInfo", &["wrong_answer", "short_answer", "empty_answer"]),
    ("C_OpenSession", &["wrong_answer", "empty_answer"]),
    ("C_GetSessionInfo", &["wrong_answer", "empty_answer"]),
    ("C_FindObjects", &["wrong_answer", "short_answer", "empty_answer", "long_answer"]),
    ("C_GetAttributeValue", &["wrong_answer", "short_answer", "empty_answer"]),
    ("C_CreateObject", &["wrong_answer", "empty_answer"]),
    ("C_GenerateKeyPair", &["wrong_answer", "short_answer", "empty_answer"]),
    ("C_Sign", &["wrong_answer", "short_answer", "empty_answer"]),
];

/// Attributes that the keeper reads: each is wrong once, and missing once.
const ATTRIBUTES: [(&str, u64); 8] = [
    ("CKA_VALUE", 0x11),
    ("CKA_LABEL", 0x3),
    ("CKA_ID", 0x102),
    ("CKA_KEY_TYPE", 0x100),
    ("CKA_EC_PARAMS", 0x180),
    ("CKA_EC_POINT", 0x181),
    ("CKA_PRIVATE", 0x2),
    ("CKA_SENSITIVE", 0x103),
];

/// The group whose token fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    Ksk,
    Zsk,
}

/// What has the keeper make the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The primary's next version: each signature of the zone is made anew, KSK's and ZSK's.
    Change,
    /// A start of the keeper.
    Start,
    /// A device that is lost while it signs, and opened anew.
    Loss,
    /// A survey of the tokens; it asks each for its session first.
    Survey,
    /// A motion that makes a key.
    Make,
    /// A motion that destroys one.
    Destroy,
    /// A token that can't be opened again, until its module is initialised anew.
    Renewal,
}

/// One cell: something goes wrong at one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    pub token: Token,
    pub trigger: Trigger,
    pub call: &'static str,
    pub action: Value,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}: {} {}", self.token, self.trigger, self.call, self.action)
    }
}

impl Cell {
    /// Whether the PIN's file has to be written anew, as the manual says.
    pub fn refuses_pin(&self) -> bool {
        let code = self.action["return"].as_str().or(self.action["late_return"].as_str());
        let code = code.and_then(|code| code.strip_prefix("CKR_"));
        self.call == "C_Login" && code.is_some_and(|code| PIN_REFUSED.contains(&code))
    }
}

/// What may become of `call`: all of it, or for the trimmed matrix each sort of thing once, with one
/// code, another one for each call.
fn actions(call: &'static str, whole: bool) -> Vec<Value> {
    let (at, codes) = CALLS
        .iter()
        .enumerate()
        .find_map(|(at, (name, codes))| (*name == call).then_some((at, codes)))
        .expect("a call of the matrix");
    let codes: Vec<&str> = codes.split_whitespace().chain(MORE_CODES).collect();
    let named = |code: &&str| format!("CKR_{code}");
    let mut actions: Vec<Value> =
        codes.iter().map(|code| json!({ "return": named(code) })).collect();
    if !whole {
        return vec![actions.swap_remove(at * 5 % codes.len())];
    }
    let late = codes[at * 3 % codes.len()];
    actions.extend([
        json!({ "return": 0 }),
        json!({ "late_return": named(&late) }),
        json!({ "late_return": "CKR_DEVICE_REMOVED" }),
        json!({ "delay_ms": 40 }),
        json!("hang"),
        json!("crash"),
        json!("late_crash"),
    ]);
    let spoilt = SPOILT.iter().filter(|(name, _)| *name == call).flat_map(|(_, spoilt)| *spoilt);
    actions.extend(spoilt.map(|spoilt| json!(spoilt)));
    if call == "C_GetAttributeValue" {
        for (_, number) in ATTRIBUTES {
            actions.extend([
                json!({ "wrong_attribute": number }),
                json!({ "without_attribute": number }),
            ]);
        }
    }
    if call == "C_GetMechanismList" {
        // CKM_ECDSA, CKM_EC_KEY_PAIR_GEN
        actions.extend([
            json!({ "without_mechanism": 0x1041 }),
            json!({ "without_mechanism": 0x1040 }),
        ]);
    }
    actions
}

/// A part of the matrix, which one chain goes through.
#[derive(Debug)]
pub struct Part {
    pub name: &'static str,
    pub triggers: &'static [(Trigger, &'static [Token], &'static [&'static str])],
    /// What the trimmed matrix has of it besides one code for each call.
    pub risky: &'static [(Token, Trigger, &'static str, &'static str)],
}

const BOTH: &[Token] = &[Ksk, Zsk];

/// All parts: together they have every call.
pub const PARTS: [Part; 9] = [
    Part {
        name: "signing",
        triggers: &[(Trigger::Change, &[Zsk], &["C_SignInit", "C_Sign"])],
        risky: &[
            (Zsk, Trigger::Change, "C_Sign", r#""wrong_answer""#),
            (Zsk, Trigger::Change, "C_Sign", r#""short_answer""#),
            (Zsk, Trigger::Change, "C_Sign", r#"{"return": 0}"#),
            (Zsk, Trigger::Change, "C_Sign", r#"{"late_return": "CKR_DEVICE_REMOVED"}"#),
            (Zsk, Trigger::Change, "C_Sign", r#"{"delay_ms": 40}"#),
            (Zsk, Trigger::Change, "C_Sign", r#""hang""#),
            (Zsk, Trigger::Change, "C_SignInit", r#""crash""#),
        ],
    },
    Part {
        name: "sealing",
        triggers: &[(
            Trigger::Change,
            &[Ksk],
            &[
                "C_SignInit",
                "C_Sign",
                "C_FindObjectsInit",
                "C_FindObjects",
                "C_FindObjectsFinal",
                "C_GetAttributeValue",
                "C_CreateObject",
                "C_DestroyObject",
            ],
        )],
        risky: &[
            (Ksk, Trigger::Change, "C_Sign", r#""wrong_answer""#),
            (Ksk, Trigger::Change, "C_CreateObject", r#""late_crash""#),
            (Ksk, Trigger::Change, "C_CreateObject", r#"{"return": 0}"#),
            (Ksk, Trigger::Change, "C_DestroyObject", r#"{"return": 0}"#),
            (Ksk, Trigger::Change, "C_GetAttributeValue", r#"{"wrong_attribute": 17}"#),
        ],
    },
    Part {
        name: "opening",
        triggers: &[(
            Trigger::Start,
            BOTH,
            &[
                "C_GetFunctionList",
                "C_Initialize",
                "C_GetSlotList",
                "C_GetTokenInfo",
                "C_GetMechanismList",
                "C_GetMechanismInfo",
                "C_OpenSession",
                "C_Login",
            ],
        )],
        risky: &[
            (Zsk, Trigger::Start, "C_Login", r#"{"return": "CKR_PIN_INCORRECT"}"#),
            (Ksk, Trigger::Start, "C_Login", r#""late_crash""#),
            (Ksk, Trigger::Start, "C_GetSlotList", r#""wrong_answer""#),
            (Zsk, Trigger::Start, "C_GetTokenInfo", r#""wrong_answer""#),
            (Zsk, Trigger::Start, "C_Initialize", r#""hang""#),
        ],
    },
    Part {
        name: "proving",
        triggers: &[(
            Trigger::Start,
            BOTH,
            &[
                "C_FindObjectsInit",
                "C_FindObjects",
                "C_FindObjectsFinal",
                "C_GetAttributeValue",
                "C_SignInit",
                "C_Sign",
            ],
        )],
        risky: &[
            (Zsk, Trigger::Start, "C_Sign", r#""wrong_answer""#),
            (Ksk, Trigger::Start, "C_GetAttributeValue", r#"{"wrong_attribute": 385}"#),
            (Ksk, Trigger::Start, "C_FindObjects", r#""empty_answer""#),
            (Zsk, Trigger::Start, "C_FindObjects", r#""long_answer""#),
        ],
    },
    Part {
        name: "keeping",
        triggers: &[
            (Trigger::Survey, BOTH, &["C_GetSessionInfo", "C_GetTokenInfo"]),
            (Trigger::Loss, BOTH, &["C_CloseSession"]),
            (Trigger::Renewal, &[Zsk], &["C_Finalize", "C_Initialize"]),
        ],
        risky: &[
            (Zsk, Trigger::Survey, "C_GetSessionInfo", r#""wrong_answer""#),
            (Zsk, Trigger::Loss, "C_CloseSession", r#"{"return": 0}"#),
        ],
    },
    Part {
        name: "making",
        triggers: &[(Trigger::Make, &[Ksk], &["C_GenerateKeyPair", "C_SetAttributeValue"])],
        risky: &[
            (Ksk, Trigger::Make, "C_GenerateKeyPair", r#"{"late_return": "CKR_DEVICE_REMOVED"}"#),
            (Ksk, Trigger::Make, "C_GenerateKeyPair", r#""late_crash""#),
            (Ksk, Trigger::Make, "C_GenerateKeyPair", r#""wrong_answer""#),
        ],
    },
    Part {
        name: "reading-made",
        triggers: &[(
            Trigger::Make,
            &[Ksk],
            &["C_GetAttributeValue", "C_FindObjectsInit", "C_FindObjects"],
        )],
        risky: &[(Ksk, Trigger::Make, "C_GetAttributeValue", r#"{"wrong_attribute": 259}"#)],
    },
    Part {
        name: "proving-made",
        triggers: &[(Trigger::Make, &[Ksk], &["C_SignInit", "C_Sign"])],
        risky: &[],
    },
    Part {
        name: "destroying",
        triggers: &[(
            Trigger::Destroy,
            &[Ksk],
            &["C_DestroyObject", "C_FindObjects", "C_SignInit", "C_Sign"],
        )],
        risky: &[
            (Ksk, Trigger::Destroy, "C_DestroyObject", r#""late_crash""#),
            (Ksk, Trigger::Destroy, "C_DestroyObject", r#"{"return": 0}"#),
        ],
    },
];

impl Part {
    /// Its cells, whole or trimmed.
    pub fn cells(&self, whole: bool) -> Vec<Cell> {
        let mut cells = Vec::new();
        for (trigger, tokens, calls) in self.triggers {
            // Trimmed, the tokens take turns.
            for (at, call) in calls.iter().enumerate() {
                let tokens = if whole { tokens } else { &tokens[at % tokens.len()..][..1] };
                for token in tokens {
                    let of = |action| Cell { token: *token, trigger: *trigger, call, action };
                    cells.extend(actions(call, whole).into_iter().map(of));
                }
            }
        }
        for (token, trigger, call, action) in self.risky {
            let action = serde_json::from_str(action).expect("an action");
            let cell = Cell { token: *token, trigger: *trigger, call, action };
            if !cells.contains(&cell) {
                cells.push(cell);
            }
        }
        cells
    }
}
