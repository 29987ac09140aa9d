use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use proptest::prelude::*;

use super::*;
use crate::key::from_hex;

const ORIGIN: &str = "countersign/0d0599a11658e7e0d2f8600d972d0d4af4d0b1855daf866b79d8c2cd898f6deb";

fn audit_key(algorithm: Algorithm, bytes: &[u8]) -> AuditKey {
    AuditKey::new(PublicKey::new(algorithm, bytes).expect("public key")).expect("audit key")
}

fn head() -> TreeHead {
    TreeHead { size: 20_852_163, root: Hash::of(b"root") }
}

/// A fresh key of each algorithm, and what signs with it as PKCS#11 would.
type Signer = Box<dyn Fn(&str) -> Vec<u8>>;

fn fresh() -> Vec<(AuditKey, Signer)> {
    let ed25519 = Ed25519KeyPair::generate().expect("Ed25519");
    let ecdsa = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("P-256");
    let point = ecdsa.public_key().as_ref()[1..].to_vec();
    vec![
        (
            audit_key(Algorithm::Ed25519, ed25519.public_key().as_ref()),
            Box::new(move |text| ed25519.sign(text.as_bytes()).as_ref().to_vec()),
        ),
        (
            audit_key(Algorithm::EcdsaP256Sha256, &point),
            Box::new(move |text| {
                let signature = ecdsa.sign(&SystemRandom::new(), text.as_bytes());
                signature.expect("signature").as_ref().to_vec()
            }),
        ),
    ]
}

/// Notes that Python's `cryptography` made and signed, with key hashes and the DER of the second
/// signature and public key its own.
#[test]
fn notes_that_others_made() {
    for (key, signature, vkey) in [
        (
            audit_key(
                Algorithm::Ed25519,
                &from_hex("03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8")
                    .expect("hex"),
            ),
            concat!(
                "Uy9zc0/vySdbb+/nHNOtAgsSxzaq+X5dqlU99i1xcA8eBGcB8a1AiuIkrAg/etCstIkwbZQOiq3z3UU9",
                "+i0cNAepLAo="
            ),
            "532f7373+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4",
        ),
        (
            audit_key(
                Algorithm::EcdsaP256Sha256,
                &from_hex(concat!(
                    "515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f",
                    "4536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354"
                ))
                .expect("hex"),
            ),
            concat!(
                "8dWUSTBGAiEA6br0qyCd+T2L4amRd4QorBcHWM8vEp7g20Xa2v0HqBMCIQD8FN3npPIb7HovKmpzqSxu",
                "hl0q3/sC4pry9tulHRZ7JQ=="
            ),
            concat!(
                "f1d59449+AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABFFcPW6545a5BNP+yn9U/c0MwemXvzddylFa",
                "0KbDtANfRTa+OlDzGPv5pUdZAqIhUCvvDVfgjFOyzApW8X2fk1Q="
            ),
        ),
    ] {
        let note = format!(
            "{ORIGIN}\n20852163\nSBNJTRN+FjG7owHVrKtue7eqdM4RhdRWVl71HXN2d7I=\n\n\
             \u{2014} {ORIGIN} {signature}\n"
        );
        assert_eq!(verify(&note, ORIGIN, &key), Ok(head()));
        assert_eq!(key.verifier_key(ORIGIN), format!("{ORIGIN}+{vkey}"));
    }
    assert_eq!(origin(&Hash::of(b"founding")), ORIGIN);
}

/// The example key of Go's `sumdb/note`, and Sigstore's public Rekor log, whose log ID c0d23d6a…
/// is the SHA-256 of its key.
#[test]
fn key_hashes_in_the_field() {
    let typed = |base64| from_base64(base64).expect("base64")[1..].to_vec();
    let peter = "ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let peter_key = audit_key(Algorithm::Ed25519, &typed(peter));
    assert_eq!(peter_key.verifier_key("PeterNeumann"), format!("PeterNeumann+c74f20a3+{peter}"));
    let rekor = concat!(
        "AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNhtmPtrWm3U1eQXBogSMdGvXwBcK5AW5i0hrZLOC96l+smG",
        "NM7nwZ4QvFK/4sueRoVj//QP22Ni4Qt9DPfkWLc="
    );
    let rekor_key = audit_key(Algorithm::EcdsaP256Sha256, &typed(rekor)[27..]);
    assert_eq!(
        rekor_key.verifier_key("rekor.sigstore.dev"),
        format!("rekor.sigstore.dev+c0d23d6a+{rekor}")
    );
}

#[test]
fn what_the_audit_key_signs_is_a_checkpoint() {
    for (key, sign) in fresh() {
        for size in [0, 1, u64::MAX] {
            let head = TreeHead { size, ..head() };
            let raw = sign(&body(ORIGIN, &head));
            let note = assemble(ORIGIN, &head, &key, &raw).expect("note");
            assert_eq!(verify(note.as_str(), ORIGIN, &key), Ok(head));
            let json = serde_json::to_string(&key).expect("JSON");
            assert_eq!(serde_json::from_str::<AuditKey>(&json).expect("key"), key);
        }
    }
}

/// Each byte by each of its bits, left out, and doubled.
#[test]
fn no_byte_of_a_note_can_change() {
    for (key, sign) in fresh() {
        let note = assemble(ORIGIN, &head(), &key, &sign(&body(ORIGIN, &head()))).expect("note");
        let bytes = note.as_str().as_bytes();
        let refused = |mutated: &[u8]| {
            if let Ok(text) = std::str::from_utf8(mutated) {
                assert!(verify(text, ORIGIN, &key).is_err(), "accepted: {text}");
            }
        };
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut mutated = bytes.to_vec();
                mutated[at] ^= 1 << bit;
                refused(&mutated);
            }
            refused(&[&bytes[..at], &bytes[at + 1..]].concat());
            refused(&[&bytes[..=at], &bytes[at..]].concat());
            refused(&bytes[..at]);
        }
        refused(&[bytes, b"\n"].concat());
        refused(&[b"\n", bytes].concat());
        let (_, signature) = note.as_str().split_once("\n\n").expect("signature");
        refused(format!("{note}{signature}").as_bytes());
        refused(note.as_str().replace('\n', "\r\n").as_bytes());
    }
}

/// A note that was signed, but is not in the one form.
#[test]
fn a_signed_text_in_another_form_is_refused() {
    for (key, sign) in fresh() {
        let signed = |text: &str| {
            let raw: [u8; 64] = sign(text).try_into().expect("64");
            let signature = [&key.key_hash(ORIGIN)[..], &key.signature_from_raw(&raw)].concat();
            format!("{text}\n\u{2014} {ORIGIN} {}\n", BASE64.encode(&signature))
        };
        let text = body(ORIGIN, &head());
        assert_eq!(verify(&signed(&text), ORIGIN, &key), Ok(head()));
        for other in [
            text.replace("20852163", "020852163"),
            text.replace("20852163", "+20852163"),
            text.replace("20852163", "20852163 "),
            text.replace("20852163", "18446744073709551616"),
            text.replace("d7I=", "d7I"),
            // The same octets with a stray bit in the last digit.
            text.replace("d7I=", "d7J="),
            format!("{text}an extension\n"),
        ] {
            assert_ne!(other, text);
            let found = verify(&signed(&other), ORIGIN, &key);
            assert!(matches!(found, Err(CheckpointError::Form(_))), "{found:?}: {other}");
        }
    }
}

/// DER has one form; a longer one of the same numbers is signed all the same.
#[test]
fn surplus_zeros_in_a_signature_are_refused() {
    let (key, sign) = fresh().remove(1);
    let text = body(ORIGIN, &head());
    let der = der_from_raw(sign(&text)[..].try_into().expect("64"));
    let padded = [&[0x30, der[1] + 1, 0x02, der[3] + 1, 0x00], &der[4..]].concat();
    assert_eq!(raw_from_der(&padded), raw_from_der(&der));
    for (der, expect) in
        [(der, Ok(head())), (padded, Err(CheckpointError::Form("text is not in its one form")))]
    {
        let signature = BASE64.encode(&[&key.key_hash(ORIGIN)[..], &der].concat());
        let note = format!("{text}\n\u{2014} {ORIGIN} {signature}\n");
        assert_eq!(verify(&note, ORIGIN, &key), expect);
    }
}

#[test]
fn another_ledger_another_key_another_head() {
    let signers = fresh();
    for (at, (key, sign)) in signers.iter().enumerate() {
        let raw = sign(&body(ORIGIN, &head()));
        let note = assemble(ORIGIN, &head(), key, &raw).expect("note");
        let elsewhere = origin(&Hash::of(b"another founding"));
        assert!(matches!(
            verify(note.as_str(), &elsewhere, key),
            Err(CheckpointError::OtherOrigin { .. })
        ));
        for (other, _) in fresh().iter().chain([&signers[1 - at]]) {
            assert!(matches!(
                verify(note.as_str(), ORIGIN, other),
                Err(CheckpointError::OtherKey { .. })
            ));
            // The key hash proves nothing.
            let forged = render(ORIGIN, &head(), other, raw[..].try_into().expect("64"));
            assert_eq!(verify(&forged, ORIGIN, other), Err(CheckpointError::Signature));
        }
        let later = TreeHead { size: head().size + 1, ..head() };
        assert_eq!(assemble(ORIGIN, &later, key, &raw), Err(CheckpointError::Signature));
        assert_eq!(
            assemble(ORIGIN, &head(), key, &raw[1..]),
            Err(CheckpointError::RawSignature(63))
        );
    }
}

#[test]
fn names_and_sizes_have_bounds() {
    let (key, sign) = fresh().remove(0);
    for name in ["", "a b", "a+b", "a\nb", "countersign/\u{430}", &"x".repeat(256)] {
        let raw = sign(&body(name, &head()));
        let refused = Err(CheckpointError::Origin(name.to_owned()));
        assert_eq!(assemble(name, &head(), &key, &raw), refused);
        let note = render(name, &head(), &key, raw[..].try_into().expect("64"));
        assert_eq!(verify(&note, name, &key), Err(CheckpointError::Origin(name.to_owned())));
    }
    let longest = "x".repeat(ORIGIN_BYTES_MAX);
    let raw = sign(&body(&longest, &head()));
    let note = assemble(&longest, &head(), &key, &raw).expect("note");
    assert_eq!(verify(note.as_str(), &longest, &key), Ok(head()));
    let long = "x".repeat(NOTE_BYTES_MAX + 1);
    assert_eq!(verify(&long, ORIGIN, &key), Err(CheckpointError::TooLong(NOTE_BYTES_MAX + 1)));
}

#[test]
fn rsa_signs_no_checkpoints() {
    let rsa = [&[3, 1, 0, 1][..], &[0xff; 256]].concat();
    let public = PublicKey::new(Algorithm::RsaSha256, &rsa).expect("RSA");
    assert_eq!(AuditKey::new(public.clone()), Err(AuditKeyError(Algorithm::RsaSha256)));
    let json = serde_json::to_string(&public).expect("JSON");
    assert!(serde_json::from_str::<AuditKey>(&json).is_err());
}

proptest! {
    /// Numbers of any length, for which leading zeros and sign octets come and go.
    #[test]
    fn ecdsa_signatures_go_to_der_and_back(
        (r, s) in any::<([u8; 32], [u8; 32])>(),
        (r_zeros, s_zeros) in (0..=32_usize, 0..=32_usize),
    ) {
        let mut raw = [0; 64];
        raw[r_zeros..32].copy_from_slice(&r[r_zeros..]);
        raw[32 + s_zeros..].copy_from_slice(&s[s_zeros..]);
        let der = der_from_raw(&raw);
        prop_assert_eq!(raw_from_der(&der), Some(raw));
        let longer = [&[0x30, der[1] + 1], &der[2..], &[0]].concat();
        prop_assert_eq!(raw_from_der(&longer), None);
        // Each INTEGER is the shortest and positive (X.690 §8.3.2).
        for integer in [&der[2..], &der[4 + usize::from(der[3])..]] {
            prop_assert!(integer[2] < 0x80);
            prop_assert!(integer[1] == 1 || integer[2] != 0 || integer[3] >= 0x80);
        }
    }

    #[test]
    fn any_der_is_read_without_panic(der in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = raw_from_der(&der);
    }
}
