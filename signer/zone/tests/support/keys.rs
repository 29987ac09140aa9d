//! Keys in software, in the HSM's place.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use countersign_policy::{Algorithm, KeyRole, PublicKey};

/// A key pair and what it is for.
pub struct SoftKey {
    pub role: KeyRole,
    pub public: PublicKey,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SoftKey {
    /// A new key.
    pub fn make(algorithm: Algorithm, role: KeyRole) -> Self {
        let ecdsa = |signing| {
            let pair = EcdsaKeyPair::generate(signing).expect("generated");
            // DNSSEC leaves out the octet that marks an uncompressed point.
            let point = pair.public_key().as_ref()[1..].to_vec();
            (point, Pair::Ecdsa(pair))
        };
        let (bytes, pair) = match algorithm {
            Algorithm::RsaSha256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("generated");
                (rfc3110(pair.public_key().as_ref()), Pair::Rsa(Box::new(pair)))
            }
            Algorithm::EcdsaP256Sha256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::EcdsaP384Sha384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::Ed25519 => {
                let pair = Ed25519KeyPair::generate().expect("generated");
                (pair.public_key().as_ref().to_vec(), Pair::Ed25519(pair))
            }
        };
        Self { role, public: PublicKey::new(algorithm, &bytes).expect("its shape"), pair }
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("signed");
                signature
            }
            Pair::Ecdsa(pair) => pair.sign(&random, message).expect("signed").as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

/// RFC 3110 from DER's `SEQUENCE { INTEGER n, INTEGER e }`.
fn rfc3110(der: &[u8]) -> Vec<u8> {
    let mut inner = der_value(&mut &*der);
    let trim = |integer: &[u8]| -> Vec<u8> {
        integer.iter().copied().skip_while(|octet| *octet == 0).collect()
    };
    let modulus = trim(der_value(&mut inner));
    let exponent = trim(der_value(&mut inner));
    [vec![u8::try_from(exponent.len()).expect("short")], exponent, modulus].concat()
}

fn der_value<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let (head, after) = rest.split_at(2);
    let (len, after) = if head[1] < 0x80 {
        (usize::from(head[1]), after)
    } else {
        let (octets, after) = after.split_at(usize::from(head[1] & 0x7f));
        (octets.iter().fold(0, |len, octet| len << 8 | usize::from(*octet)), after)
    };
    let (value, after) = after.split_at(len);
    *rest = after;
    value
}
