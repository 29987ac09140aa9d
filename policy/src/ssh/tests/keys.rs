//! Keys: their one text, and those that no officer may have.

use aws_lc_rs::signature::KeyPair as _;
use data_encoding::BASE64;
use proptest::prelude::*;

use super::*;

#[test]
fn fingerprints_are_those_of_ssh_keygen() {
    let printed: Vec<_> = fixture!("fingerprints").lines().collect();
    let ours: Vec<_> = MADE_BY_SSH_KEYGEN
        .iter()
        .map(|(name, public, _, _)| format!("{name} {}", pub_file(public).fingerprint()))
        .collect();
    assert_eq!(ours, printed);
}

#[test]
fn a_key_text_is_type_and_base64_alone() {
    for (name, public, _, _) in MADE_BY_SSH_KEYGEN {
        let key = pub_file(public);
        let text = public.rsplit_once(' ').expect("a comment").0;
        assert_eq!(key.as_str(), text, "{name}");
        assert_eq!(text.parse(), Ok(key.clone()), "{name}");
        let json = serde_json::to_string(&key).expect("json");
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<SshKey>(&json).expect("json"), key);

        let refused = |text: &str| text.parse::<SshKey>().expect_err("refused");
        assert_eq!(refused(&format!("{text} a@b")), SshKeyError::Form);
        let (first, rest) = key.as_blob().split_at(1);
        let two = format!("{} {}{}", key.key_type(), BASE64.encode(first), BASE64.encode(rest));
        assert_eq!(refused(&two), SshKeyError::Base64, "{name}");
        assert_eq!(refused(&format!("{text} ")), SshKeyError::Form);
        assert_eq!(refused(&text.replace(' ', "  ")), SshKeyError::Form);
        assert_eq!(refused(&format!("{text}\n")), SshKeyError::Base64);
        assert_eq!(refused(&text.replace(' ', "\t")), SshKeyError::Form);
        assert!(matches!(refused(&format!("no-pty {text}")), SshKeyError::Type(_)));
        assert!(matches!(refused(&format!(" {text}")), SshKeyError::Type(_)));
        assert!(matches!(refused(&text.to_uppercase()), SshKeyError::Type(_)));
    }
    assert_eq!("".parse::<SshKey>(), Err(SshKeyError::Form));
    assert_eq!("ssh-ed25519".parse::<SshKey>(), Err(SshKeyError::Form));
    let large = format!("ssh-ed25519 {}", "A".repeat(KEY_TEXT_BYTES_MAX));
    assert_eq!(large.parse::<SshKey>(), Err(SshKeyError::TooLong(large.len())));
}

#[test]
fn a_pub_file_is_one_line() {
    let public = fixture!("ed25519.pub");
    let key = pub_file(public);
    assert_eq!(SshKey::from_pub_file(public.trim_end()), Ok(key.clone()));
    assert_eq!(SshKey::from_pub_file(key.as_str()), Ok(key.clone()));
    assert_eq!(SshKey::from_pub_file(&format!("{key} a comment of words\n")), Ok(key));
    assert_eq!(SshKey::from_pub_file(&format!("{public}{public}")), Err(SshKeyError::Form));
    assert_eq!(SshKey::from_pub_file(&format!("{public}\n")), Err(SshKeyError::Form));
}

#[test]
fn keys_that_no_officer_may_have() {
    let refused = |contents: &str| SshKey::from_pub_file(contents).expect_err("refused");
    assert_eq!(refused(fixture!("dsa.pub")), SshKeyError::Type("ssh-dss".into()));
    assert_eq!(refused(fixture!("rsa1024.pub")), SshKeyError::RsaBits(1024));
    let text = refused(fixture!("dsa.pub")).to_string();
    for accepted in ["ssh-ed25519", "ecdsa-sha2-nistp256", "-nistp521", "ssh-rsa", "sk-ssh-ed25519"]
    {
        assert!(text.contains(accepted), "{text}");
    }
    // The text's type and the blob's.
    let ed25519 = pub_file(fixture!("ed25519.pub"));
    let base64 = ed25519.as_str().rsplit_once(' ').expect("two words").1;
    assert_eq!(
        format!("ssh-rsa {base64}").parse::<SshKey>(),
        Err(SshKeyError::TypeDiffers { outside: KeyType::Rsa, inside: KeyType::Ed25519 })
    );
}

#[test]
fn rsa_keys_have_bounds() {
    let key = |e: &[u8], n: &[u8]| {
        let blob = [string(b"ssh-rsa"), mpint(e), mpint(n)].concat();
        SshKey::from_blob(&blob).map(|key| key.key_type())
    };
    let f4 = [1, 0, 1];
    let mut just_short = [0xff; 256];
    just_short[0] = 0x7f;
    assert_eq!(key(&f4, &[0xff; 256]), Ok(KeyType::Rsa));
    assert_eq!(key(&f4, &just_short), Err(SshKeyError::RsaBits(2047)));
    assert_eq!(key(&f4, &[0xff; 1024]), Ok(KeyType::Rsa));
    assert_eq!(key(&f4, &[&[1][..], &[0xff; 1024]].concat()), Err(SshKeyError::RsaBits(8193)));
    let even = [&[0xff; 255][..], &[0xfe]].concat();
    assert_eq!(key(&f4, &even), Err(SshKeyError::RsaModulus));
    for exponent in [&[3][..], &[17], &[0xff, 0xff], &[1, 0, 2], &[1, 0, 1, 0, 1]] {
        assert_eq!(key(exponent, &[0xff; 256]), Err(SshKeyError::RsaExponent), "{exponent:?}");
    }
    assert_eq!(key(&[0xff, 0xff, 0xff, 0xff], &[0xff; 256]), Ok(KeyType::Rsa));
    let padded = [string(b"ssh-rsa"), string(&[0, 1, 0, 1]), mpint(&[0xff; 256])].concat();
    assert!(matches!(SshKey::from_blob(&padded), Err(SshKeyError::Wire(WireError::Number { .. }))));
}

#[test]
fn points_are_of_their_curve_in_one_form() {
    let Device::P256(pair) = &*P256 else { panic!("a P-256 pair") };
    let point = pair.public_key().as_ref();
    let key = |curve: &str, point: &[u8]| {
        let blob = strings(&[b"ecdsa-sha2-nistp256", curve.as_bytes(), point]);
        SshKey::from_blob(&blob).map(|key| key.key_type())
    };
    assert_eq!(key("nistp256", point), Ok(KeyType::EcdsaP256));
    assert_eq!(
        key("nistp384", point),
        Err(SshKeyError::CurveName { key_type: KeyType::EcdsaP256, found: "nistp384".into() })
    );
    let mut off_curve = point.to_vec();
    off_curve[64] ^= 1;
    let compressed = [&[2 | (point[64] & 1)], &point[1..33]].concat();
    let hybrid = [&[6 | (point[64] & 1)], &point[1..]].concat();
    for other in [&off_curve[..], &compressed, &hybrid, &[0], &[], &[4; 65], &point[..64]] {
        assert_eq!(key("nistp256", other), Err(SshKeyError::Point(KeyType::EcdsaP256)));
    }
}

/// For a point of small order, 64 octets are a "signature" of about every text.
#[test]
fn ed25519_points_that_anyone_can_sign_for_are_refused() {
    let key = |point: &[u8]| SshKey::from_blob(&strings(&[b"ssh-ed25519", point]));
    let small = Err(SshKeyError::SmallOrder(KeyType::Ed25519));
    let mut identity = [0; 32];
    identity[0] = 1;
    assert_eq!(key(&identity), small);
    identity[31] = 0x80; // the sign bit does not make another point of it
    assert_eq!(key(&identity), small);
    assert_eq!(key(&[0; 32]), small);
    let mut p_minus_1 = [0xff; 32];
    (p_minus_1[0], p_minus_1[31]) = (0xec, 0x7f);
    assert_eq!(key(&p_minus_1), small);
    for y in [
        "JuiVj8KyJ7BFw/SJ8u+Y8NXfrAXTxjM5sTgCiG1T/AU=",
        "xxdqcD1N2E+6PAt2DRBnDyogU/osOczGTsf9d5KsA3o=",
    ] {
        assert_eq!(key(&BASE64.decode(y.as_bytes()).expect("base64")), small);
    }
    // y = p + 3, which names the same point as y = 3 does: one point, one encoding.
    let mut unreduced = [0xff; 32];
    (unreduced[0], unreduced[31]) = (0xf0, 0x7f);
    assert_eq!(key(&unreduced), Err(SshKeyError::Point(KeyType::Ed25519)));
    assert_eq!(key(&[9; 31]), Err(SshKeyError::Point(KeyType::Ed25519)));

    // Why it matters: aws-lc-rs takes it for a signature of any text, and so would `verify`.
    let mut forged = [0; 64];
    forged[0] = 1;
    identity[31] = 0;
    let anyone =
        aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, identity);
    assert!(anyone.verify(b"any text", &forged).is_ok());
}

proptest! {
    #![proptest_config(cases(1_000))]

    /// Whatever is taken for a key is the canonical text of one.
    #[test]
    fn a_key_has_one_text(
        which in 0..6_usize,
        at in any::<prop::sample::Index>(),
        with in "[ -~\n]{0,2}",
    ) {
        let key = pub_file(MADE_BY_SSH_KEYGEN[which].1);
        let at = at.index(key.as_str().len());
        for end in [at, at + 1] {
            let text = format!("{}{with}{}", &key.as_str()[..at], &key.as_str()[end..]);
            if let Ok(taken) = text.parse::<SshKey>() {
                prop_assert_eq!(taken.as_str(), text.as_str());
                prop_assert_eq!(&SshKey::from_blob(taken.as_blob()), &Ok(taken));
            }
        }
    }
}
