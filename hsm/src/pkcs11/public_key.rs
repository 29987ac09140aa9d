//! From the attributes of a public key object to the DNSKEY's public key field.
//!
//! Modules disagree about `CKA_EC_POINT`: PKCS#11 wants a DER OCTET STRING around the point
//! (SoftHSM does so), many give the bare point, and some put an Edwards point into a BIT STRING.
//! All three are read; none of them can be mistaken for another, because the inner length is fixed.

use countersign_policy::{Algorithm, PublicKey};
use cryptoki::object::{Attribute, AttributeType, KeyType};

/// `id-ecPublicKey` curves by OID, DER: secp256r1 (RFC 5480 §2.1.1.1).
pub(super) const P256_OID: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// secp384r1 (RFC 5480 §2.1.1.1).
pub(super) const P384_OID: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
/// Ed25519 (RFC 8410 §3).
pub(super) const ED25519_OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
/// Ed25519 as the name that PKCS#11 3.0 §6.3.10 first gave it: `PrintableString` "edwards25519".
pub(super) const ED25519_NAME: &[u8] = b"\x13\x0cedwards25519";

/// What has to be read of a public key object.
pub(super) const ATTRIBUTES: [AttributeType; 5] = [
    AttributeType::KeyType,
    AttributeType::EcParams,
    AttributeType::EcPoint,
    AttributeType::Modulus,
    AttributeType::PublicExponent,
];

/// Decodes a public key, or says why it is none that DNSSEC knows here.
pub(super) fn decode(attributes: &[Attribute]) -> Result<PublicKey, String> {
    let mut key_type = None;
    let (mut params, mut point, mut modulus, mut exponent) = (None, None, None, None);
    for attribute in attributes {
        match attribute {
            Attribute::KeyType(value) => key_type = Some(*value),
            Attribute::EcParams(value) => params = Some(value.as_slice()),
            Attribute::EcPoint(value) => point = Some(value.as_slice()),
            Attribute::Modulus(value) => modulus = Some(value.as_slice()),
            Attribute::PublicExponent(value) => exponent = Some(value.as_slice()),
            _ => {}
        }
    }
    match key_type {
        Some(KeyType::RSA) => {
            let (Some(modulus), Some(exponent)) = (modulus, exponent) else {
                return Err("an RSA key without CKA_MODULUS or CKA_PUBLIC_EXPONENT".to_owned());
            };
            rsa(modulus, exponent)
        }
        Some(KeyType::EC | KeyType::EC_EDWARDS) => {
            let (Some(params), Some(point)) = (params, point) else {
                return Err("an EC key without CKA_EC_PARAMS or CKA_EC_POINT".to_owned());
            };
            ec(params, point)
        }
        _ => Err("not an RSA, EC or Edwards key".to_owned()),
    }
}

/// RFC 3110 §2.
fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<PublicKey, String> {
    let modulus = without_leading_zeros(modulus);
    let exponent = without_leading_zeros(exponent);
    let mut field = Vec::with_capacity(3 + exponent.len() + modulus.len());
    if let Ok(len) = u8::try_from(exponent.len()) {
        field.push(len);
    } else {
        let len = u16::try_from(exponent.len()).map_err(|_| "RSA exponent too long")?;
        field.push(0);
        field.extend_from_slice(&len.to_be_bytes());
    }
    field.extend_from_slice(exponent);
    field.extend_from_slice(modulus);
    PublicKey::new(Algorithm::RsaSha256, &field).map_err(|e| e.to_string())
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    &bytes[zeros..]
}

/// RFC 6605 §4 (x‖y, without the octet 4 that says "uncompressed") and RFC 8080 §3.
fn ec(params: &[u8], point: &[u8]) -> Result<PublicKey, String> {
    let (algorithm, inner_len) = match params {
        P256_OID => (Algorithm::EcdsaP256Sha256, 65),
        P384_OID => (Algorithm::EcdsaP384Sha384, 97),
        ED25519_OID | ED25519_NAME => (Algorithm::Ed25519, 32),
        _ => return Err("a curve that DNSSEC has no algorithm for".to_owned()),
    };
    let inner = unwrap_point(point, inner_len)
        .ok_or_else(|| format!("CKA_EC_POINT of {} octets is not a point", point.len()))?;
    let field = match algorithm {
        Algorithm::Ed25519 => inner,
        _ => inner.strip_prefix(&[4]).ok_or("a compressed point")?,
    };
    PublicKey::new(algorithm, field).map_err(|e| e.to_string())
}

/// The point itself: bare, in an OCTET STRING, or in a BIT STRING without unused bits.
fn unwrap_point(point: &[u8], inner_len: usize) -> Option<&[u8]> {
    if point.len() == inner_len {
        return Some(point);
    }
    let len = u8::try_from(inner_len).ok()?;
    // Every length here is below 128, so DER's short form is the only one.
    let octet_string = point.strip_prefix(&[0x04, len]);
    let bit_string = point.strip_prefix(&[0x03, len + 1, 0x00]);
    octet_string.or(bit_string).filter(|inner| inner.len() == inner_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ec_attributes(params: &[u8], point: Vec<u8>) -> Vec<Attribute> {
        vec![
            Attribute::KeyType(KeyType::EC),
            Attribute::EcParams(params.to_vec()),
            Attribute::EcPoint(point),
        ]
    }

    #[test]
    fn a_point_is_read_in_each_wrapping() {
        let bare = [&[4][..], &[7; 64]].concat();
        for point in
            [bare.clone(), [&[0x04, 65][..], &bare].concat(), [&[0x03, 66, 0][..], &bare].concat()]
        {
            let key = decode(&ec_attributes(P256_OID, point)).expect("key");
            assert_eq!(key.bytes(), [7; 64]);
        }
        for point in [vec![9; 32], [&[0x04, 32][..], &[9; 32]].concat()] {
            let key = decode(&ec_attributes(ED25519_OID, point)).expect("key");
            assert_eq!((key.algorithm(), key.bytes()), (Algorithm::Ed25519, &[9; 32][..]));
        }
    }

    #[test]
    fn what_is_not_a_point_is_refused() {
        for point in [vec![], vec![4; 64], [&[2][..], &[7; 64]].concat(), vec![0x04, 65, 4]] {
            assert!(decode(&ec_attributes(P256_OID, point)).is_err());
        }
        assert!(decode(&ec_attributes(&[0x06, 1, 1], vec![4; 65])).is_err());
        assert!(decode(&[]).is_err());
    }

    #[test]
    fn rsa_takes_the_form_of_rfc_3110() {
        let modulus = [&[0][..], &[0xc1; 256]].concat();
        let key = decode(&[
            Attribute::KeyType(KeyType::RSA),
            Attribute::Modulus(modulus),
            Attribute::PublicExponent(vec![0, 1, 0, 1]),
        ])
        .expect("key");
        assert_eq!(&key.bytes()[..5], &[3, 1, 0, 1, 0xc1]);
        assert_eq!(key.rsa_parts().map(|(_, n)| n.len()), Some(256));
    }
}
