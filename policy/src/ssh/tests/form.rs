//! What is not one signature in its one form, and what is not the signature that was made.

use std::sync::LazyLock;

use data_encoding::BASE64;
use proptest::prelude::*;

use super::*;

#[test]
fn each_field_has_to_be_what_it_should() {
    let refused = |change: fn(&mut Sshsig)| {
        // Changed before it is signed, so that the signature itself is true.
        ED25519.plain(change).approve().expect_err("refused")
    };
    assert_eq!(refused(|s| s.magic = b"SSHSIH".to_vec()), SignatureError::Magic);
    assert_eq!(refused(|s| s.version = 0), SignatureError::Version(0));
    assert_eq!(refused(|s| s.version = 2), SignatureError::Version(2));
    assert_eq!(refused(|s| s.reserved = b"x".to_vec()), SignatureError::Reserved);
    for hash in ["sha1", "SHA512", "sha384", "md5", "sha512 ", ""] {
        let sshsig = ED25519.plain(|s| s.hash = hash.into());
        assert_eq!(sshsig.approve(), Err(SignatureError::HashAlgorithm(hash.into())));
    }
}

#[test]
fn a_signature_algorithm_fits_its_key_alone() {
    let names = KeyType::ALL.map(KeyType::as_str);
    let others =
        ["rsa-sha2-256", "rsa-sha2-512", "ssh-dss", "ssh-ed25519-cert-v01@openssh.com", ""];
    for device in [&*ED25519, &*P256] {
        let sshsig = device.plain(|_| {});
        let [own, _] = device.names();
        let value = &sshsig.signature[4 + own.len()..];
        for name in names.iter().chain(&others).filter(|name| **name != own) {
            let renamed = [string(name.as_bytes()), value.to_vec()].concat();
            let renamed = Sshsig { signature: renamed, ..sshsig.clone() };
            assert!(
                matches!(renamed.approve(), Err(SignatureError::Algorithm { .. })),
                "{own} signs with {name}"
            );
        }
    }
}

#[test]
fn bytes_too_many_are_refused_at_each_level() {
    let trailing = |within| SignatureError::Wire(WireError::Trailing { within, count: 1 });
    for sshsig in [
        ED25519.plain(|_| {}),
        P256.plain(|_| {}),
        ED25519.security_key("ssh:", 1),
        P256.security_key("ssh:", 1),
    ] {
        let mut outermost = sshsig.blob();
        outermost.push(0);
        assert_eq!(approve_blob(&outermost), Err(trailing("the signature")));
        let mut in_key = sshsig.clone();
        in_key.key.push(0);
        let within = "the public key";
        assert_eq!(
            in_key.approve(),
            Err(SignatureError::Key(WireError::Trailing { within, count: 1 }.into()))
        );
        let mut in_signature = sshsig;
        in_signature.signature.push(0);
        assert_eq!(in_signature.approve(), Err(trailing("the signature proper")));
    }
    let mut ed25519 = ED25519.plain(|_| {});
    ed25519.signature = strings(&[b"ssh-ed25519", &[0; 65]]);
    assert_eq!(ed25519.approve(), Err(SignatureError::Length(KeyType::Ed25519)));
}

/// The numbers of ECDSA in every form but their own.
#[test]
fn ecdsa_numbers_have_one_form() {
    let sshsig = P256.plain(|_| {});
    let name = b"ecdsa-sha2-nistp256";
    let judged = |numbers: &[u8]| {
        Sshsig { signature: strings(&[name, numbers]), ..sshsig.clone() }.approve()
    };
    let (one, zero) = (mpint(&[1]), mpint(&[]));
    let not_a_number = |field| {
        Err(SignatureError::Wire(WireError::Number { within: "the ECDSA signature", field }))
    };
    assert_eq!(judged(&[&one[..], &one].concat()), Err(SignatureError::Mismatch));
    assert_eq!(judged(&[&zero[..], &one].concat()), not_a_number("r"));
    assert_eq!(judged(&[&one[..], &zero].concat()), not_a_number("s"));
    assert_eq!(judged(&[one.clone(), string(&[0, 1])].concat()), not_a_number("s"));
    assert_eq!(judged(&[string(&[0xff; 32]), one.clone()].concat()), not_a_number("r"));
    assert_eq!(
        judged(&[mpint(&[0x7f; 33]), one.clone()].concat()),
        Err(SignatureError::Length(KeyType::EcdsaP256))
    );
    assert_eq!(
        judged(&[&one[..], &one, &[0]].concat()),
        Err(SignatureError::Wire(WireError::Trailing { within: "the ECDSA signature", count: 1 }))
    );
    // As raw r‖s and as DER, which other tools make.
    assert!(judged(&[1; 64]).is_err());
    assert!(judged(&[0x30, 6, 2, 1, 1, 2, 1, 1]).is_err());
}

#[test]
fn an_rsa_signature_is_as_long_as_its_key() {
    let key = pub_file(fixture!("rsa2048.pub"));
    for len in [0, 255, 257] {
        let mut sshsig = approval(key.as_blob().to_vec());
        sshsig.signature = strings(&[b"rsa-sha2-512", &vec![1; len]]);
        assert_eq!(sshsig.approve(), Err(SignatureError::Length(KeyType::Rsa)), "{len}");
    }
}

fn blobs() -> Vec<Vec<u8>> {
    let mut blobs: Vec<Vec<u8>> = MADE_BY_SSH_KEYGEN
        .into_iter()
        .map(|(_, _, text, _)| armored(text).as_blob().to_vec())
        .collect();
    for device in [&*ED25519, &*P256] {
        blobs.push(device.security_key("ssh:", 5).blob());
    }
    blobs
}

#[test]
fn a_signature_cut_short_is_refused_at_every_length() {
    for blob in blobs() {
        assert!(approve_blob(&blob).is_ok());
        for len in 0..blob.len() {
            assert!(Signature::from_blob(&blob[..len]).is_err(), "{len}");
        }
    }
    let text = fixture!("ed25519.sig");
    for len in 0..text.len() - 1 {
        assert!(Signature::from_armored(&text[..len]).is_err(), "{len}");
    }
}

#[test]
fn any_bit_of_an_ed25519_signature_matters() {
    for blob in [
        armored(fixture!("ed25519.sig")).as_blob().to_vec(),
        ED25519.security_key("ssh:", 5).blob(),
    ] {
        for bit in 0..blob.len() * 8 {
            let mut flipped = blob.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(approve_blob(&flipped).is_err(), "bit {bit}");
        }
    }
}

/// A change somewhere in a valid blob.
#[derive(Debug, Clone)]
enum Change {
    Flip(u8),
    Set(u8),
    Insert(u8),
    Remove,
    Cut,
    /// Copies the bytes from here on over the ones at another place.
    Copy(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..8_u8).prop_map(|bit| Change::Flip(1 << bit)),
        any::<u8>().prop_map(Change::Set),
        any::<u8>().prop_map(Change::Insert),
        Just(Change::Remove),
        Just(Change::Cut),
        any::<prop::sample::Index>().prop_map(Change::Copy),
    ]
}

static BLOBS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(blobs);

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn a_changed_signature_is_refused(
        which in 0..8_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), change()), 1..4),
    ) {
        let original = &BLOBS[which];
        let mut blob = original.clone();
        for (at, change) in changes {
            if blob.is_empty() {
                break;
            }
            let at = at.index(blob.len());
            match change {
                Change::Flip(bit) => blob[at] ^= bit,
                Change::Set(byte) => blob[at] = byte,
                Change::Insert(byte) => blob.insert(at, byte),
                Change::Remove => drop(blob.remove(at)),
                Change::Cut => blob.truncate(at),
                Change::Copy(to) => {
                    let to = to.index(blob.len());
                    let len = 8.min(blob.len() - at.max(to));
                    blob.copy_within(at..at + len, to);
                }
            }
        }
        prop_assert_eq!(approve_blob(&blob).is_ok(), blob == *original);
    }

    #[test]
    fn arbitrary_bytes_and_texts_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        text in "\\PC{0,200}",
    ) {
        prop_assert!(Signature::from_blob(&bytes).is_err());
        prop_assert!(SshKey::from_blob(&bytes).is_err());
        prop_assert!(text.parse::<Signature>().is_err());
        prop_assert!(text.parse::<SshKey>().is_err());
        prop_assert!(Signature::from_armored(&text).is_err());
        prop_assert!(SshKey::from_pub_file(&text).is_err());
    }
}

#[test]
fn armour_is_what_ssh_keygen_writes_and_nothing_else() {
    for (name, _, text, _) in MADE_BY_SSH_KEYGEN {
        assert_eq!(armored(text).to_armored(), text, "{name}");
    }
    let text = fixture!("ed25519.sig");
    let trimmed = text.trim_end();
    assert_eq!(armored(trimmed), armored(text), "the last newline may be missing");

    let refused = |text: &str| Signature::from_armored(text).expect_err("refused");
    assert_eq!(refused(""), SignatureError::ArmorBegin);
    assert_eq!(refused(&format!("\n{text}")), SignatureError::ArmorBegin);
    assert_eq!(refused(&format!(" {text}")), SignatureError::ArmorBegin);
    assert_eq!(refused(&format!("\u{feff}{text}")), SignatureError::ArmorBegin);
    assert_eq!(refused(&format!("{text}\n")), SignatureError::ArmorEnd);
    assert_eq!(refused(&format!("{text} ")), SignatureError::ArmorEnd);
    assert_eq!(refused(&format!("{text}{text}")), SignatureError::Base64);
    assert_eq!(refused(&text.replace('\n', "\r\n")), SignatureError::CarriageReturn);
    assert_eq!(refused(&text.replacen('\n', "\n\n", 1)), SignatureError::ArmorLines);
    assert_eq!(refused(&text.replacen('\n', "\n ", 1)), SignatureError::Base64);
    let one_line =
        format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", armored(text));
    assert_eq!(refused(&one_line), SignatureError::ArmorLines);
    let large = "A".repeat(ARMOR_BYTES_MAX + 1);
    assert_eq!(refused(&large), SignatureError::TooLong(large.len()));
}

#[test]
fn a_signature_has_one_line_of_text() {
    for (name, _, armor, _) in MADE_BY_SSH_KEYGEN {
        let signature = armored(armor);
        let text = signature.to_string();
        assert!(!text.contains(char::is_whitespace), "{name}");
        assert_eq!(text.parse(), Ok(signature.clone()), "{name}");
        let json = serde_json::to_string(&signature).expect("json");
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Signature>(&json).expect("json"), signature);
    }
    let text = fixture!("rsa2048-rsa-sha2-256.base64");
    let refused = |text: &str| text.parse::<Signature>().expect_err("refused");
    assert_eq!(refused(&format!("{text}\n")), SignatureError::Base64);
    assert_eq!(refused(text.trim_end_matches('=')), SignatureError::Base64);
    // The last character before the padding carries bits that mean nothing: they have to be zero.
    let body = text.trim_end_matches('=');
    let padding = &text[body.len()..];
    assert!(!padding.is_empty(), "the fixture has pad bits");
    let (body, last) = body.split_at(body.len() - 1);
    let next = char::from(last.as_bytes()[0] + 1);
    assert_eq!(refused(&format!("{body}{next}{padding}")), SignatureError::Base64);
    // Two base64 texts after one another, which the decoder takes for one.
    let blob = armored(fixture!("ed25519.sig")).as_blob().to_vec();
    let two = [BASE64.encode(&blob[..1]), BASE64.encode(&blob[1..])].concat();
    assert_eq!(BASE64.decode(two.as_bytes()), Ok(blob));
    assert_eq!(refused(&two), SignatureError::Base64);
    let large = "A".repeat(SIGNATURE_TEXT_BYTES_MAX + 4);
    assert_eq!(refused(&large), SignatureError::TooLong(large.len()));
    let blob = vec![0; SIGNATURE_BYTES_MAX + 1];
    assert_eq!(Signature::from_blob(&blob), Err(SignatureError::TooLong(blob.len())));
}
