//! Which mechanisms a DNSSEC algorithm needs, what exactly is handed to the token, and what has to
//! come back (RFC 5702 §3, RFC 6605 §4, RFC 8080 §4).
//!
//! Hashes are made here: SoftHSM has no `CKM_ECDSA_SHA256`, and the raw r‖s of `CKM_ECDSA` is what
//! DNSSEC wants. Ed25519 signs the message itself.

use std::borrow::Cow;
use std::collections::BTreeMap;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use countersign_policy::algorithm::RSA_BITS;
use countersign_policy::{Algorithm, PublicKey};
use cryptoki::context::Pkcs11;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::slot::Slot;

/// DER of `DigestInfo` up to the hash, for SHA-256 (RFC 8017 §9.2 note 1).
const SHA256_DIGEST_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// The mechanism that signs.
pub(super) fn signing(algorithm: Algorithm) -> Mechanism<'static> {
    match algorithm {
        Algorithm::RsaSha256 => Mechanism::RsaPkcs,
        Algorithm::EcdsaP256Sha256 | Algorithm::EcdsaP384Sha384 => Mechanism::Ecdsa,
        Algorithm::Ed25519 => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)),
    }
}

/// The mechanism that makes a key pair.
pub(super) fn generation(algorithm: Algorithm) -> Mechanism<'static> {
    match algorithm {
        Algorithm::RsaSha256 => Mechanism::RsaPkcsKeyPairGen,
        Algorithm::EcdsaP256Sha256 | Algorithm::EcdsaP384Sha384 => Mechanism::EccKeyPairGen,
        Algorithm::Ed25519 => Mechanism::EccEdwardsKeyPairGen,
    }
}

/// What the token is asked to sign for `message`.
pub(super) fn input(algorithm: Algorithm, message: &[u8]) -> Cow<'_, [u8]> {
    let hash = |algorithm| digest::digest(algorithm, message);
    match algorithm {
        Algorithm::RsaSha256 => {
            let mut info = SHA256_DIGEST_INFO.to_vec();
            info.extend_from_slice(hash(&digest::SHA256).as_ref());
            info.into()
        }
        Algorithm::EcdsaP256Sha256 => hash(&digest::SHA256).as_ref().to_vec().into(),
        Algorithm::EcdsaP384Sha384 => hash(&digest::SHA384).as_ref().to_vec().into(),
        Algorithm::Ed25519 => message.into(),
    }
}

/// Octets that a signature by `key` has.
pub(super) fn signature_len(key: &PublicKey) -> usize {
    key.algorithm()
        .signature_len()
        .or_else(|| key.rsa_parts().map(|(_, modulus)| modulus.len()))
        .unwrap_or_default()
}

/// Whether `signature` over `message` is by `key`: aws-lc-rs, not the token, has the word.
pub(super) fn verify(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    let ec_point = || [&[4], key.bytes()].concat();
    match key.algorithm() {
        Algorithm::RsaSha256 => key.rsa_parts().is_some_and(|(e, n)| {
            RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok()
        }),
        Algorithm::EcdsaP256Sha256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, ec_point())
            .verify(message, signature)
            .is_ok(),
        Algorithm::EcdsaP384Sha384 => UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, ec_point())
            .verify(message, signature)
            .is_ok(),
        Algorithm::Ed25519 => {
            UnparsedPublicKey::new(&ED25519, key.bytes()).verify(message, signature).is_ok()
        }
    }
}

/// One mechanism as the token describes it.
#[derive(Debug, Clone, Copy)]
struct Offer {
    sign: bool,
    generate: bool,
    key_size_min: usize,
    key_size_max: usize,
}

/// The mechanisms of one token that matter here, read once when it is opened.
#[derive(Debug, Clone, Default)]
pub(super) struct Offered(BTreeMap<&'static str, Offer>);

/// The mechanisms that any algorithm here needs, with the names people know them by.
const KNOWN: [(&str, MechanismType); 6] = [
    ("CKM_RSA_PKCS", MechanismType::RSA_PKCS),
    ("CKM_RSA_PKCS_KEY_PAIR_GEN", MechanismType::RSA_PKCS_KEY_PAIR_GEN),
    ("CKM_ECDSA", MechanismType::ECDSA),
    ("CKM_EC_KEY_PAIR_GEN", MechanismType::ECC_KEY_PAIR_GEN),
    ("CKM_EDDSA", MechanismType::EDDSA),
    ("CKM_EC_EDWARDS_KEY_PAIR_GEN", MechanismType::ECC_EDWARDS_KEY_PAIR_GEN),
];

impl Offered {
    /// Asks the token.
    pub(super) fn read(module: &Pkcs11, slot: Slot) -> Result<Self, cryptoki::error::Error> {
        let listed = module.get_mechanism_list(slot)?;
        let mut offered = BTreeMap::new();
        for (name, mechanism) in KNOWN {
            if listed.contains(&mechanism) {
                let info = module.get_mechanism_info(slot, mechanism)?;
                offered.insert(
                    name,
                    Offer {
                        sign: info.sign(),
                        generate: info.generate_key_pair(),
                        key_size_min: info.min_key_size(),
                        key_size_max: info.max_key_size(),
                    },
                );
            }
        }
        Ok(Self(offered))
    }

    /// The names of the mechanisms that it has.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    /// The algorithms that it can make and use keys of, RSA keys of the smallest size that is used here.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        let all = [
            Algorithm::RsaSha256,
            Algorithm::EcdsaP256Sha256,
            Algorithm::EcdsaP384Sha384,
            Algorithm::Ed25519,
        ];
        all.into_iter().filter(|a| self.supports(*a, Some(*RSA_BITS.start())).is_ok()).collect()
    }

    /// Whether the token can make and use keys of `algorithm`, or what it lacks.
    pub(super) fn supports(
        &self,
        algorithm: Algorithm,
        rsa_bits: Option<u16>,
    ) -> Result<(), String> {
        let (sign, generate, bits) = match algorithm {
            Algorithm::RsaSha256 => {
                ("CKM_RSA_PKCS", "CKM_RSA_PKCS_KEY_PAIR_GEN", rsa_bits.map(usize::from))
            }
            Algorithm::EcdsaP256Sha256 => ("CKM_ECDSA", "CKM_EC_KEY_PAIR_GEN", Some(256)),
            Algorithm::EcdsaP384Sha384 => ("CKM_ECDSA", "CKM_EC_KEY_PAIR_GEN", Some(384)),
            // Tokens give the size of an Edwards key as 255, 256, 32, or nothing sensible.
            Algorithm::Ed25519 => ("CKM_EDDSA", "CKM_EC_EDWARDS_KEY_PAIR_GEN", None),
        };
        for (name, wanted) in [(sign, "signing"), (generate, "making key pairs")] {
            let Some(offer) = self.0.get(name) else {
                return Err(format!("it has no {name}"));
            };
            if !(if wanted == "signing" { offer.sign } else { offer.generate }) {
                return Err(format!("its {name} is not for {wanted}"));
            }
            if let Some(bits) = bits
                && !(offer.key_size_min..=offer.key_size_max).contains(&bits)
            {
                return Err(format!(
                    "its {name} takes {} to {} bits, not {bits}",
                    offer.key_size_min, offer.key_size_max
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_mechanism_is_named() {
        let offer = Offer { sign: true, generate: true, key_size_min: 112, key_size_max: 384 };
        let offered = Offered([("CKM_ECDSA", offer), ("CKM_EC_KEY_PAIR_GEN", offer)].into());
        assert_eq!(offered.supports(Algorithm::EcdsaP384Sha384, None), Ok(()));
        assert_eq!(
            offered.supports(Algorithm::Ed25519, None),
            Err("it has no CKM_EDDSA".to_owned())
        );
        let small = Offer { key_size_max: 256, ..offer };
        let offered = Offered([("CKM_ECDSA", small), ("CKM_EC_KEY_PAIR_GEN", offer)].into());
        let missing = offered.supports(Algorithm::EcdsaP384Sha384, None).expect_err("too small");
        assert!(missing.contains("112 to 256 bits, not 384"), "{missing}");
    }

    #[test]
    fn rsa_input_is_a_digest_info() {
        let input = input(Algorithm::RsaSha256, b"x");
        assert_eq!(input.len(), 51);
        assert!(input.starts_with(&SHA256_DIGEST_INFO));
    }
}
