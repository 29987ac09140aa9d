//! DNSKEY RDATA (RFC 4034 §2.1) into keys that verify: RSA by RFC 3110, ECDSA by RFC 6605,
//! Ed25519 by RFC 8080.

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256,
};
use countersign_policy::key::FLAG_REVOKE;
use countersign_policy::{Algorithm, KeyId, KeyRole, PublicKey};

use super::failure::{Failure, Place};
use crate::packed::{Packed, Rrset};
use crate::params::ZoneParams;
use crate::rtype::Rtype;

/// Zone Key bit (RFC 4034 §2.1.1): without it a key may not verify RRSIGs.
const FLAG_ZONE: u16 = 0x0100;
/// Secure Entry Point bit.
const FLAG_SEP: u16 = 0x0001;

/// The keys of the DNSKEY RRset, which must be exactly those of `params`, with what each may sign
/// by its role.
pub(super) fn of_params(
    records: &Packed,
    params: &ZoneParams,
) -> Result<Vec<VerifyingKey>, Failure> {
    let rrset = dnskey_rrset(records, params.apex.as_wire())?;
    let place = || Place::new(rrset.owner(), Rtype::DNSKEY);
    let mut keys = Vec::new();
    let mut expected: Vec<Vec<u8>> = Vec::new();
    for key in &params.keys {
        let flags = match key.role {
            KeyRole::Zsk => FLAG_ZONE,
            KeyRole::Ksk | KeyRole::Csk => FLAG_ZONE | FLAG_SEP,
        };
        let fields = [&flags.to_be_bytes()[..], &[3, key.public.algorithm().number()]].concat();
        let rdata = [&fields[..], key.public.bytes()].concat();
        let mut verifying = VerifyingKey::from_dnskey(&rdata)
            .map_err(|problem| Failure::UnusableKey { place: place(), problem })?;
        verifying.signs_dnskey = key.role != KeyRole::Zsk;
        verifying.signs_zone = key.role != KeyRole::Ksk;
        keys.push(verifying);
        expected.push(rdata);
    }
    let foreign = rrset.rdatas().filter(|rdata| !expected.iter().any(|key| key == rdata)).count();
    let missing = expected.iter().filter(|key| !rrset.rdatas().any(|rdata| rdata == *key)).count();
    if foreign > 0 || missing > 0 || rrset.len() != expected.len() {
        return Err(Failure::WrongKeys { place: place(), missing, foreign });
    }
    if rrset.ttl_s() != params.policy.dnskey_ttl_s {
        let (found, policy) = (rrset.ttl_s(), params.policy.dnskey_ttl_s);
        return Err(Failure::WrongKeyTtl { place: place(), found, policy });
    }
    check_tags(&rrset)?;
    Ok(keys)
}

/// The keys of the DNSKEY RRset as it stands. What a key may sign is read from its flags, and
/// from the company that it keeps: a SEP key is a CSK where its algorithm has no other.
pub(super) fn of_zone(records: &Packed, apex: &[u8]) -> Result<Vec<VerifyingKey>, Failure> {
    let rrset = dnskey_rrset(records, apex)?;
    let mut keys = Vec::new();
    for rdata in rrset.rdatas() {
        keys.push(VerifyingKey::from_dnskey(rdata).map_err(|problem| Failure::UnusableKey {
            place: Place::new(rrset.owner(), Rtype::DNSKEY),
            problem,
        })?);
    }
    check_tags(&rrset)?;
    let zsk_algorithms: Vec<u8> =
        keys.iter().filter(|key| !key.signs_dnskey).map(|key| key.algorithm).collect();
    for key in &mut keys {
        key.signs_zone = !key.signs_dnskey || !zsk_algorithms.contains(&key.algorithm);
    }
    Ok(keys)
}

fn dnskey_rrset<'a>(records: &'a Packed, apex: &[u8]) -> Result<Rrset<'a>, Failure> {
    let rrset = records.node(apex).and_then(|node| node.rrset(Rtype::DNSKEY));
    rrset.ok_or_else(|| Failure::Lost(Place::new(apex, Rtype::DNSKEY)))
}

/// No two keys share a tag, revoked forms included.
fn check_tags(rrset: &Rrset<'_>) -> Result<(), Failure> {
    let mut seen: Vec<u16> = Vec::new();
    for rdata in rrset.rdatas() {
        let mut revoked = rdata.to_vec();
        if let Some(low_flags) = revoked.get_mut(1) {
            *low_flags |= FLAG_REVOKE as u8;
        }
        let tags = [tag_of(rdata), tag_of(&revoked)];
        if let Some(&tag) = tags.iter().find(|tag| seen.contains(tag)) {
            return Err(Failure::TagCollision {
                place: Place::new(rrset.owner(), Rtype::DNSKEY),
                tag,
            });
        }
        seen.extend(tags);
    }
    Ok(())
}

/// A published key, ready to verify.
pub(super) struct VerifyingKey {
    /// What the key is.
    pub(super) id: KeyId,
    /// Its algorithm's number.
    pub(super) algorithm: u8,
    /// RFC 4034 appendix B.
    pub(super) tag: u16,
    /// Its DNSKEY RDATA.
    pub(super) dnskey: Box<[u8]>,
    /// May sign DNSKEY, CDS and CDNSKEY.
    pub(super) signs_dnskey: bool,
    /// May sign the rest of the zone.
    pub(super) signs_zone: bool,
    parsed: ParsedPublicKey,
}

impl VerifyingKey {
    /// Reads DNSKEY RDATA. The error says what is wrong with it.
    pub(super) fn from_dnskey(rdata: &[u8]) -> Result<Self, &'static str> {
        let Some((head, key)) = rdata.split_at_checked(4) else {
            return Err("shorter than its fixed fields");
        };
        let flags = u16::from_be_bytes([head[0], head[1]]);
        if flags & FLAG_ZONE == 0 || flags & FLAG_REVOKE != 0 {
            return Err("not a zone key, or revoked");
        }
        if head[2] != 3 {
            return Err("protocol is not 3");
        }
        let algorithm =
            Algorithm::try_from(head[3]).map_err(|_| "algorithm is none of 8, 13, 14, 15")?;
        let public = PublicKey::new(algorithm, key)
            .map_err(|_| "public key has not the form of its algorithm")?;
        let parsed = parse(algorithm, key).ok_or("public key is refused by the crypto library")?;
        Ok(Self {
            id: public.id(),
            algorithm: algorithm.number(),
            tag: tag_of(rdata),
            dnskey: rdata.into(),
            signs_dnskey: flags & FLAG_SEP != 0,
            // A SEP key may be a CSK; whoever knows the roles says so.
            signs_zone: true,
            parsed,
        })
    }

    /// Whether `signature` over `message` was made with the key's private half.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }
}

fn parse(algorithm: Algorithm, key: &[u8]) -> Option<ParsedPublicKey> {
    // DNSSEC leaves out the octet 4 that marks an uncompressed point (RFC 6605 §4).
    let point = || [&[4][..], key].concat();
    match algorithm {
        Algorithm::RsaSha256 => {
            let (e, n) = rsa_parts(key)?;
            PublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).ok()
        }
        Algorithm::EcdsaP256Sha256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point()).ok(),
        Algorithm::EcdsaP384Sha384 => ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point()).ok(),
        Algorithm::Ed25519 => ParsedPublicKey::new(&ED25519, key).ok(),
    }
}

/// RFC 3110 §2: exponent length in one octet, or 0 and two octets; exponent; modulus.
fn rsa_parts(key: &[u8]) -> Option<(&[u8], &[u8])> {
    match key {
        [0, high, low, rest @ ..] => {
            rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))
        }
        [0, ..] | [] => None,
        [len, rest @ ..] => rest.split_at_checked(usize::from(*len)),
    }
}

/// RFC 4034 appendix B: the RDATA as 16-bit words, summed with end-around carry once.
pub(super) fn tag_of(rdata: &[u8]) -> u16 {
    let sum: u64 = rdata
        .chunks(2)
        .map(|pair| u64::from(pair[0]) * 256 + pair.get(1).map_or(0, |low| u64::from(*low)))
        .sum();
    ((sum + (sum >> 16)) & 0xffff) as u16
}

#[cfg(test)]
mod tests {
    use countersign_policy::key::from_hex;

    use super::super::canonical::CanonicalRrset;
    use super::*;

    /// RFC 8080 §6.1, whole: the key, its tag 3613, and the RRSIG of `example.com. MX`.
    #[test]
    fn rfc_8080_example() {
        let hex = |text: &str| from_hex(text).expect("hex");
        let dnskey = [
            &[1, 1, 3, 15][..],
            &hex("974d96a22d224bc01adb915091477d44ccd91c9a41a11430010117d52c59240e"),
        ]
        .concat();
        let mut signature = hex(concat!(
            "a0bf64ac9ba7ef17c138859c1878bb99a839fe1759aca5b0d798cf1ab1e98d07",
            "9102f4ddb3368f0fe40bb377f1f00e0cddedb799167d56b6e932783072ba8d02"
        ));
        let mut head = vec![0, 15, 15, 2];
        for time in [3600_u32, 1_440_021_600, 1_438_207_200] {
            head.extend_from_slice(&time.to_be_bytes());
        }
        head.extend_from_slice(&3613_u16.to_be_bytes());
        head.extend_from_slice(b"\x07Example\x03com\x00");
        let mx = &b"\x00\x0a\x04MAIL\x07example\x03com\x00"[..];
        let rrset = CanonicalRrset::new(15, std::iter::once(mx)).expect("canonical");
        let mut octets = Vec::new();
        rrset.signed_octets(b"\x07example\x03COM\x00", &head, &mut octets);

        let key = VerifyingKey::from_dnskey(&dnskey).expect("a key");
        assert_eq!((key.tag, key.algorithm), (3613, 15));
        assert!(key.verifies(&octets, &signature));
        signature[0] ^= 1;
        assert!(!key.verifies(&octets, &signature));
    }

    #[test]
    fn what_may_not_verify_is_refused_with_the_reason() {
        let check = |flags: u16, protocol: u8, algorithm: u8, expect: &str| {
            let rdata = [&flags.to_be_bytes()[..], &[protocol, algorithm], &[7; 32]].concat();
            let error = VerifyingKey::from_dnskey(&rdata).err().expect(expect);
            assert!(error.contains(expect), "{error}");
        };
        check(0x0000, 3, 15, "not a zone key");
        check(0x0181, 3, 15, "revoked");
        check(0x0101, 2, 15, "protocol");
        check(0x0101, 3, 5, "algorithm");
        check(0x0101, 3, 13, "form");
        assert!(VerifyingKey::from_dnskey(&[1, 1, 3]).is_err());
    }

    #[test]
    fn both_forms_of_an_rsa_exponent_are_read() {
        assert_eq!(rsa_parts(&[2, 1, 1, 9, 9]), Some((&[1, 1][..], &[9, 9][..])));
        assert_eq!(rsa_parts(&[0, 0, 2, 1, 1, 9]), Some((&[1, 1][..], &[9][..])));
        assert_eq!(rsa_parts(&[5, 1]), None);
        assert_eq!(rsa_parts(&[0, 1]), None);
        assert_eq!(rsa_parts(&[]), None);
    }
}
