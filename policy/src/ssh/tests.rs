//! Signatures and keys as ssh-keygen made them (`fixtures/make.sh` has the commands), and what
//! ssh-keygen never makes, built by hand.

use std::sync::LazyLock;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use proptest::test_runner::Config as ProptestConfig;

use super::signature::{MAGIC, VERSION};
use super::wire::put_string;
use super::*;

mod form;
mod keys;

/// What the fixtures sign, for [`Namespace::Approve`].
const MESSAGE: &[u8] = b"countersign test: approve\n";

/// A file of `fixtures/`.
macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/ssh/fixtures/", $name))
    };
}

use fixture;

/// Each type of key that ssh-keygen makes without a device: name, `.pub`, with SHA-512, with SHA-256.
const MADE_BY_SSH_KEYGEN: [(&str, &str, &str, &str); 6] = [
    ("ed25519", fixture!("ed25519.pub"), fixture!("ed25519.sig"), fixture!("ed25519-sha256.sig")),
    (
        "ecdsa256",
        fixture!("ecdsa256.pub"),
        fixture!("ecdsa256.sig"),
        fixture!("ecdsa256-sha256.sig"),
    ),
    (
        "ecdsa384",
        fixture!("ecdsa384.pub"),
        fixture!("ecdsa384.sig"),
        fixture!("ecdsa384-sha256.sig"),
    ),
    (
        "ecdsa521",
        fixture!("ecdsa521.pub"),
        fixture!("ecdsa521.sig"),
        fixture!("ecdsa521-sha256.sig"),
    ),
    ("rsa2048", fixture!("rsa2048.pub"), fixture!("rsa2048.sig"), fixture!("rsa2048-sha256.sig")),
    ("rsa8192", fixture!("rsa8192.pub"), fixture!("rsa8192.sig"), fixture!("rsa8192-sha256.sig")),
];

fn pub_file(contents: &str) -> SshKey {
    SshKey::from_pub_file(contents).expect("a key that ssh-keygen made")
}

fn armored(text: &str) -> Signature {
    Signature::from_armored(text).expect("a signature that ssh-keygen made")
}

fn approve(signature: &Signature) -> Result<SshKey, SignatureError> {
    verify(signature, Namespace::Approve, MESSAGE, false)
}

/// Reads a blob and verifies it as an approval of [`MESSAGE`].
fn approve_blob(blob: &[u8]) -> Result<SshKey, SignatureError> {
    approve(&Signature::from_blob(blob)?)
}

/// At least so many cases; as many as `PROPTEST_CASES` says where that is more.
fn cases(at_least: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = default.cases.max(at_least);
    ProptestConfig { cases, failure_persistence: None, ..default }
}

/// An SSH `string`.
fn string(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_string(&mut out, octets);
    out
}

/// SSH `string`s one after another.
fn strings(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| string(part)).collect()
}

/// A positive `mpint` from its big-endian magnitude.
fn mpint(magnitude: &[u8]) -> Vec<u8> {
    let zeros = magnitude.iter().take_while(|b| **b == 0).count();
    let magnitude = &magnitude[zeros..];
    let sign: &[u8] = if magnitude.first().is_some_and(|b| b & 0x80 != 0) { &[0] } else { &[] };
    string(&[sign, magnitude].concat())
}

/// The fields of an SSHSIG, to be changed one at a time.
#[derive(Clone)]
struct Sshsig {
    magic: Vec<u8>,
    version: u32,
    key: Vec<u8>,
    namespace: Vec<u8>,
    reserved: Vec<u8>,
    hash: Vec<u8>,
    /// `string algorithm, string value`, and for security keys flags and counter.
    signature: Vec<u8>,
}

impl Sshsig {
    fn blob(&self) -> Vec<u8> {
        [
            self.magic.clone(),
            self.version.to_be_bytes().to_vec(),
            strings(&[&self.key, &self.namespace, &self.reserved, &self.hash, &self.signature]),
        ]
        .concat()
    }

    fn approve(&self) -> Result<SshKey, SignatureError> {
        approve_blob(&self.blob())
    }

    /// What the key signs, over [`MESSAGE`].
    fn signed_data(&self) -> Vec<u8> {
        let hash = match &self.hash[..] {
            b"sha256" => digest::digest(&digest::SHA256, MESSAGE),
            _ => digest::digest(&digest::SHA512, MESSAGE),
        };
        let fields = strings(&[&self.namespace, &self.reserved, &self.hash, hash.as_ref()]);
        [&self.magic[..], &fields].concat()
    }
}

/// A key pair in the test's hands, of one of the types that it can sign with itself.
enum Device {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

static ED25519: LazyLock<Device> = LazyLock::new(|| {
    Device::Ed25519(Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed"))
});
static P256: LazyLock<Device> = LazyLock::new(|| {
    Device::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
});

impl Device {
    fn sign(&self, data: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed25519(pair) => pair.sign(data).as_ref().to_vec(),
            Self::P256(pair) => {
                let fixed = pair.sign(&SystemRandom::new(), data).expect("a signature");
                let (r, s) = fixed.as_ref().split_at(32);
                [mpint(r), mpint(s)].concat()
            }
        }
    }

    /// The fields of the key after its type.
    fn key_fields(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(pair) => string(pair.public_key().as_ref()),
            Self::P256(pair) => strings(&[b"nistp256", pair.public_key().as_ref()]),
        }
    }

    /// Type names: of the plain key, of the security key.
    fn names(&self) -> [&'static str; 2] {
        match self {
            Self::Ed25519(_) => ["ssh-ed25519", "sk-ssh-ed25519@openssh.com"],
            Self::P256(_) => ["ecdsa-sha2-nistp256", "sk-ecdsa-sha2-nistp256@openssh.com"],
        }
    }

    /// A plain key's signature over [`MESSAGE`]; `change` sees it before it is signed.
    fn plain(&self, change: impl FnOnce(&mut Sshsig)) -> Sshsig {
        let [name, _] = self.names();
        let mut sshsig = approval([string(name.as_bytes()), self.key_fields()].concat());
        change(&mut sshsig);
        let value = self.sign(&sshsig.signed_data());
        sshsig.signature = strings(&[name.as_bytes(), &value]);
        sshsig
    }

    /// A security key's signature over [`MESSAGE`], true to `PROTOCOL.u2f`: OpenSSH 9.2's
    /// `ssh-keygen -Y verify` calls each of them good, the ones with flags 0 too.
    fn security_key(&self, application: &str, flags: u8) -> Sshsig {
        let [_, name] = self.names();
        let key =
            [string(name.as_bytes()), self.key_fields(), string(application.as_bytes())].concat();
        let mut sshsig = approval(key);
        let counter = 77_u32.to_be_bytes();
        let data = [
            digest::digest(&digest::SHA256, application.as_bytes()).as_ref(),
            &[flags],
            &counter,
            digest::digest(&digest::SHA256, &sshsig.signed_data()).as_ref(),
        ]
        .concat();
        let value = self.sign(&data);
        sshsig.signature =
            [strings(&[name.as_bytes(), &value]), vec![flags], counter.to_vec()].concat();
        sshsig
    }
}

/// An approval by `key` that is not signed yet.
fn approval(key: Vec<u8>) -> Sshsig {
    Sshsig {
        magic: MAGIC.to_vec(),
        version: VERSION,
        key,
        namespace: Namespace::Approve.as_str().into(),
        reserved: Vec::new(),
        hash: b"sha512".to_vec(),
        signature: Vec::new(),
    }
}

// Signatures that ssh-keygen made.

#[test]
fn every_key_type_of_ssh_keygen_signs() {
    for (name, public, sha512, sha256) in MADE_BY_SSH_KEYGEN {
        let key = pub_file(public);
        assert_eq!(approve(&armored(sha512)), Ok(key.clone()), "{name}, sha512");
        assert_eq!(approve(&armored(sha256)), Ok(key), "{name}, sha256");
        assert_ne!(armored(sha512), armored(sha256), "{name}");
    }
}

#[test]
fn rsa_sha2_256_is_accepted_and_sha_1_is_not() {
    let by_hand = |base64: &str| approve(&base64.parse()?);
    assert_eq!(
        by_hand(fixture!("rsa2048-rsa-sha2-256.base64")),
        Ok(pub_file(fixture!("rsa2048.pub")))
    );
    let refused = by_hand(fixture!("rsa2048-ssh-rsa-sha1.base64"));
    assert_eq!(
        refused,
        Err(SignatureError::Algorithm { key_type: KeyType::Rsa, found: "ssh-rsa".into() })
    );
    assert_eq!(
        refused.expect_err("refused").to_string(),
        "an ssh-rsa key signed with \"ssh-rsa\"; expected rsa-sha2-512 or rsa-sha2-256 (ssh-rsa is SHA-1)"
    );
}

#[test]
fn a_signature_serves_for_its_purpose_alone() {
    for (name, _, text, _) in MADE_BY_SSH_KEYGEN {
        for namespace in Namespace::ALL.into_iter().filter(|other| *other != Namespace::Approve) {
            assert_eq!(
                verify(&armored(text), namespace, MESSAGE, false),
                Err(SignatureError::Namespace {
                    expected: namespace.as_str(),
                    found: "approve@countersign".into()
                }),
                "{name} as {namespace}"
            );
        }
    }
}

/// The namespace is signed, so writing another one over it helps nobody.
#[test]
fn a_rewritten_namespace_does_not_fit() {
    let mut sshsig = ED25519.plain(|_| {});
    sshsig.namespace = Namespace::Deny.as_str().into();
    let signature = Signature::from_blob(&sshsig.blob()).expect("in form");
    assert_eq!(verify(&signature, Namespace::Deny, MESSAGE, false), Err(SignatureError::Mismatch));
}

#[test]
fn namespaces_are_told_apart_whole() {
    for other in ["approve@countersign\0", "approve@countersig", "APPROVE@countersign", "", "file"]
    {
        let sshsig = ED25519.plain(|sshsig| sshsig.namespace = other.into());
        assert!(
            matches!(sshsig.approve(), Err(SignatureError::Namespace { .. })),
            "{other:?}: {:?}",
            sshsig.approve()
        );
    }
}

#[test]
fn another_text_does_not_fit() {
    for (name, _, text, _) in MADE_BY_SSH_KEYGEN {
        for message in [&b""[..], b"countersign test: approve", b"countersign test: approve\n\n"] {
            assert_eq!(
                verify(&armored(text), Namespace::Approve, message, false),
                Err(SignatureError::Mismatch),
                "{name}"
            );
        }
    }
}

#[test]
fn another_key_in_its_place_does_not_fit() {
    let mut sshsig = ED25519.plain(|_| {});
    sshsig.key = pub_file(fixture!("ed25519.pub")).as_blob().to_vec();
    assert_eq!(sshsig.approve(), Err(SignatureError::Mismatch));
}

/// RFC 8032 §5.1.7: s is below the group's order L, or each signature would have a second form.
#[test]
fn an_ed25519_signature_has_one_form() {
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut sshsig = ED25519.plain(|_| {});
    let s_at = sshsig.signature.len() - 32;
    let mut carry = 0;
    for (digit, of_order) in sshsig.signature[s_at..].iter_mut().zip(L) {
        let sum = u16::from(*digit) + u16::from(of_order) + carry;
        *digit = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(sshsig.approve(), Err(SignatureError::Mismatch));
}

#[test]
fn a_certificate_in_place_of_a_key_is_refused() {
    let name = "ssh-ed25519-cert-v01@openssh.com";
    assert_eq!(
        Signature::from_armored(fixture!("ed25519-cert.sig")),
        Err(SignatureError::Key(SshKeyError::Certificate(name.into())))
    );
    assert_eq!(
        SshKey::from_pub_file(fixture!("ed25519-cert.pub")),
        Err(SshKeyError::Certificate(name.into()))
    );
}

#[test]
fn user_verification_is_more_than_a_plain_key_can_show() {
    assert_eq!(
        verify(&armored(fixture!("ed25519.sig")), Namespace::Approve, MESSAGE, true),
        Err(SignatureError::NoUserVerification(KeyType::Ed25519))
    );
}

// Security keys.

#[test]
fn a_security_key_signs_with_a_touch_and_where_required_with_a_pin() {
    for device in [&*ED25519, &*P256] {
        let signed = |flags| Signature::from_blob(&device.security_key("ssh:", flags).blob());
        let judged = |flags, pin| verify(&signed(flags)?, Namespace::Approve, MESSAGE, pin);
        let key = SshKey::from_blob(&device.security_key("ssh:", 1).key).expect("a key");
        assert!(key.is_security_key());

        assert_eq!(judged(0x01, false), Ok(key.clone()));
        assert_eq!(judged(0x05, false), Ok(key.clone()));
        assert_eq!(judged(0x05, true), Ok(key));
        assert_eq!(judged(0x01, true), Err(SignatureError::NotUserVerified));
        for pin in [false, true] {
            assert_eq!(judged(0x00, pin), Err(SignatureError::NoTouch));
            assert_eq!(judged(0x04, pin), Err(SignatureError::NoTouch));
            for unknown in [0x02, 0x08, 0x10, 0x20, 0x40, 0x80] {
                let flags = 0x05 | unknown;
                assert_eq!(judged(flags, pin), Err(SignatureError::UnknownFlags(flags)));
            }
        }
    }
}

/// Flags and counter are signed: a PIN can't be claimed afterwards.
#[test]
fn flags_and_counter_are_part_of_what_is_signed() {
    for device in [&*ED25519, &*P256] {
        let sshsig = device.security_key("ssh:", 1);
        let flags_at = sshsig.signature.len() - 5;
        let mut with_pin = sshsig.clone();
        with_pin.signature[flags_at] = 5;
        assert_eq!(with_pin.approve(), Err(SignatureError::Mismatch));
        let mut counted = sshsig;
        counted.signature[flags_at + 4] ^= 1;
        assert_eq!(counted.approve(), Err(SignatureError::Mismatch));
    }
}

#[test]
fn a_security_key_is_for_ssh() {
    for application in ["ssh:", "ssh:countersign", "ssh: a b"] {
        assert!(ED25519.security_key(application, 1).approve().is_ok(), "{application}");
        assert!(P256.security_key(application, 1).approve().is_ok(), "{application}");
    }
    let long = format!("ssh:{}", "a".repeat(252));
    for application in ["", "ssh", "SSH:", "https://bank.example", "ssh:\u{202e}", &long] {
        for device in [&*ED25519, &*P256] {
            assert!(
                matches!(
                    device.security_key(application, 1).approve(),
                    Err(SignatureError::Key(SshKeyError::Application(_)))
                ),
                "{application}"
            );
        }
    }
}

#[test]
fn a_security_key_and_a_plain_key_do_not_stand_in_for_each_other() {
    for device in [&*ED25519, &*P256] {
        let (plain, device_made) = (device.plain(|_| {}), device.security_key("ssh:", 1));
        for (key, signature) in [(&plain, &device_made), (&device_made, &plain)] {
            let mixed = Sshsig { signature: signature.signature.clone(), ..key.clone() };
            assert!(mixed.approve().is_err());
        }
        // With flags and counter, but by the plain key's algorithm name.
        let [name, _] = device.names();
        let mut named = device_made.clone();
        let value_at = 4 + device.names()[1].len();
        named.signature = [string(name.as_bytes()), named.signature[value_at..].to_vec()].concat();
        assert!(matches!(named.approve(), Err(SignatureError::Algorithm { .. })));
    }
}

#[test]
fn namespaces_are_the_agreed_ones() {
    assert_eq!(
        Namespace::ALL.map(|namespace| namespace.to_string()),
        [
            "found@countersign",
            "propose@countersign",
            "approve@countersign",
            "deny@countersign",
            "withdraw@countersign",
            "freeze@countersign",
        ]
    );
}
