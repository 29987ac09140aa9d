//! The attributes that a key pair is made with, and the check that the token honoured them.
//!
//! A private key here signs and does nothing else: it can't decrypt, unwrap or derive, and it never
//! leaves the token (a non-extractable key can't be wrapped, so no wrapping key can carry it out).

use countersign_policy::Algorithm;
use cryptoki::object::{Attribute, AttributeType};

use super::public_key::{ED25519_NAME, ED25519_OID, P256_OID, P384_OID};

/// F4, the exponent that every validator takes (RFC 3110 §2; BIND refuses very long ones).
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// The curve parameters to try, in order; one empty value for RSA.
pub(super) fn curve_encodings(algorithm: Algorithm) -> &'static [&'static [u8]] {
    match algorithm {
        Algorithm::RsaSha256 => &[&[]],
        Algorithm::EcdsaP256Sha256 => &[P256_OID],
        Algorithm::EcdsaP384Sha384 => &[P384_OID],
        Algorithm::Ed25519 => &[ED25519_OID, ED25519_NAME],
    }
}

/// Template of the public key. It is there to be read, and used for nothing: what it may be used for is
/// left to the token. (libtpm2-pkcs11 1.9 refuses to make a private key that can't decrypt if anything is
/// said of that.)
pub(super) fn public(
    algorithm: Algorithm,
    rsa_bits: u16,
    curve: &[u8],
    label: &str,
) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Label(label.as_bytes().to_vec()),
    ];
    match algorithm {
        Algorithm::RsaSha256 => {
            template.push(Attribute::ModulusBits(u64::from(rsa_bits).into()));
            template.push(Attribute::PublicExponent(RSA_EXPONENT.to_vec()));
        }
        _ => template.push(Attribute::EcParams(curve.to_vec())),
    }
    template
}

/// Template of the private key.
pub(super) fn private(label: &str) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ]
}

/// What has to be true of a private key that was made by [`private`].
const EXPECTED: [(AttributeType, &str, bool); 10] = [
    (AttributeType::Token, "CKA_TOKEN", true),
    (AttributeType::Private, "CKA_PRIVATE", true),
    (AttributeType::Sensitive, "CKA_SENSITIVE", true),
    (AttributeType::AlwaysSensitive, "CKA_ALWAYS_SENSITIVE", true),
    (AttributeType::Extractable, "CKA_EXTRACTABLE", false),
    (AttributeType::NeverExtractable, "CKA_NEVER_EXTRACTABLE", true),
    (AttributeType::Local, "CKA_LOCAL", true),
    (AttributeType::Sign, "CKA_SIGN", true),
    (AttributeType::Decrypt, "CKA_DECRYPT", false),
    (AttributeType::Unwrap, "CKA_UNWRAP", false),
];

/// The attributes that [`check_private`] wants.
pub(super) fn private_to_read() -> Vec<AttributeType> {
    EXPECTED.iter().map(|(kind, _, _)| *kind).collect()
}

/// Whether the token made the private key as it was told; a token that says nothing about an
/// attribute which protects the key has not shown that it does.
pub(super) fn check_private(read: &[Attribute]) -> Result<(), String> {
    for (kind, name, expected) in EXPECTED {
        let found = value_of(read, kind);
        // A key type that can't decrypt or unwrap at all may lack these two.
        let may_lack = matches!(kind, AttributeType::Decrypt | AttributeType::Unwrap);
        match found {
            Some(value) if value == expected => {}
            None if may_lack => {}
            found => {
                let found = found.map_or("not given".to_owned(), |v| v.to_string());
                return Err(format!(
                    "{name} of the new key is {found}, expected {expected}. hint: what a token does \
                     not show of a key that it made is not believed; keys that are on it can be adopted"
                ));
            }
        }
    }
    Ok(())
}

/// The value of a yes-or-no attribute, if the token gave it.
pub(super) fn value_of(read: &[Attribute], kind: AttributeType) -> Option<bool> {
    read.iter().find(|attribute| attribute.attribute_type() == kind).and_then(as_bool)
}

fn as_bool(attribute: &Attribute) -> Option<bool> {
    match attribute {
        Attribute::Token(v)
        | Attribute::Private(v)
        | Attribute::Sensitive(v)
        | Attribute::AlwaysSensitive(v)
        | Attribute::Extractable(v)
        | Attribute::NeverExtractable(v)
        | Attribute::Local(v)
        | Attribute::Sign(v)
        | Attribute::Decrypt(v)
        | Attribute::Unwrap(v) => Some(*v),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extractable_key_is_refused() {
        let mut read: Vec<Attribute> = vec![
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::AlwaysSensitive(true),
            Attribute::Extractable(false),
            Attribute::NeverExtractable(true),
            Attribute::Local(true),
            Attribute::Sign(true),
        ];
        assert_eq!(check_private(&read), Ok(()));
        read[5] = Attribute::NeverExtractable(false);
        let problem = check_private(&read).expect_err("was extractable once");
        assert!(problem.starts_with("CKA_NEVER_EXTRACTABLE of the new key is false"), "{problem}");
        read.remove(5);
        assert!(check_private(&read).expect_err("silent").contains("not given"));
    }
}
