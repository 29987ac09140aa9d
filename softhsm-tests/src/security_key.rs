//! A security key (`sk-ssh-ed25519@openssh.com`) without the hardware: its signatures are put together
//! here, octet by octet, with the flags of the test's choice. OpenSSL does the arithmetic.
//!
//! Formats: OpenSSH's PROTOCOL.sshsig and PROTOCOL.u2f.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::scratch::{Scratch, write};
use crate::tools::{run_ok, tool};
use crate::users::User;

/// Flag of a signature: somebody touched the key.
pub const TOUCHED: u8 = 1;
/// Flag of a signature: a PIN or a finger has shown who it was.
pub const VERIFIED: u8 = 4;

const TYPE: &[u8] = b"sk-ssh-ed25519@openssh.com";
const APPLICATION: &[u8] = b"ssh:";
/// Any number will do: no key is ever asked twice whether it goes up.
const COUNTER: u32 = 7;
/// Octets of a line of base64 in armour.
const ARMOR_COLUMNS: usize = 70;

/// One such key.
#[derive(Debug)]
pub struct SecurityKey {
    /// Its public half, as `ssh-keygen` writes it.
    pub public: PathBuf,
    private: PathBuf,
    point: Vec<u8>,
    dir: PathBuf,
}

impl SecurityKey {
    /// Makes one.
    pub fn new(scratch: &Scratch, name: &str) -> Result<Self> {
        let dir = scratch.dir(&format!("security-key-{name}"), User::Harness, 0o755)?;
        let (private, der) = (dir.join("key.pem"), dir.join("public.der"));
        openssl(|openssl| {
            openssl.args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&private)
        })?;
        openssl(|openssl| {
            openssl.args(["pkey", "-pubout", "-outform", "DER", "-in"]).arg(&private);
            openssl.arg("-out").arg(&der)
        })?;
        let der = std::fs::read(&der)?;
        let point = der[der.len().checked_sub(32).context("no point")?..].to_vec();
        let public = dir.join("key.pub");
        let key = Self { public, private, point, dir };
        let blob = key.base64(&key.blob())?;
        let text = format!("{} {blob} {name}\n", String::from_utf8_lossy(TYPE));
        write(&key.public, &text, User::Harness, 0o644)?;
        Ok(key)
    }

    /// Its signature over `message`, with these flags, as `ssh-keygen -Y sign` would write it.
    pub fn sign(&self, namespace: &str, message: &str, flags: u8) -> Result<String> {
        let hash = self.digest("-sha512", message.as_bytes())?;
        let mut signed = b"SSHSIG".to_vec();
        for part in [namespace.as_bytes(), b"", b"sha512", &hash] {
            put(&mut signed, part);
        }
        // What the hardware signs: whom it is for, what its user did, and what it was given.
        let mut given = self.digest("-sha256", APPLICATION)?;
        given.push(flags);
        given.extend(COUNTER.to_be_bytes());
        given.extend(self.digest("-sha256", &signed)?);
        let (input, output) = (self.dir.join("given"), self.dir.join("signature"));
        std::fs::write(&input, given)?;
        openssl(|openssl| {
            openssl.args(["pkeyutl", "-sign", "-rawin", "-inkey"]).arg(&self.private);
            openssl.arg("-in").arg(&input).arg("-out").arg(&output)
        })?;
        let mut signature = Vec::new();
        put(&mut signature, TYPE);
        put(&mut signature, &std::fs::read(&output)?);
        signature.push(flags);
        signature.extend(COUNTER.to_be_bytes());
        let mut whole = b"SSHSIG\0\0\0\x01".to_vec();
        for part in [&self.blob(), namespace.as_bytes(), b"", b"sha512", &signature] {
            put(&mut whole, part);
        }
        let base64 = self.base64(&whole)?;
        let lines = base64.as_bytes().chunks(ARMOR_COLUMNS).map(String::from_utf8_lossy);
        let lines: Vec<_> = lines.collect();
        Ok(format!(
            "-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n",
            lines.join("\n")
        ))
    }

    fn blob(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        for part in [TYPE, &self.point, APPLICATION] {
            put(&mut blob, part);
        }
        blob
    }

    fn digest(&self, algorithm: &str, octets: &[u8]) -> Result<Vec<u8>> {
        let (input, output) = (self.dir.join("message"), self.dir.join("digest"));
        std::fs::write(&input, octets)?;
        openssl(|openssl| {
            openssl.args(["dgst", algorithm, "-binary", "-out"]).arg(&output).arg(&input)
        })?;
        Ok(std::fs::read(&output)?)
    }

    fn base64(&self, octets: &[u8]) -> Result<String> {
        let input = self.dir.join("octets");
        std::fs::write(&input, octets)?;
        openssl(|openssl| openssl.args(["base64", "-A", "-in"]).arg(&input))
    }
}

/// What OpenSSH says of a signature, whoever's key it is.
pub fn openssh_takes(namespace: &str, message: &Path, signature: &Path) -> Result<bool> {
    let mut command = Command::new(tool("ssh-keygen")?);
    command.args(["-Y", "check-novalidate", "-n", namespace, "-s"]).arg(signature);
    let output = command.stdin(std::fs::File::open(message)?).output()?;
    Ok(output.status.success())
}

fn openssl(arguments: impl FnOnce(&mut Command) -> &mut Command) -> Result<String> {
    run_ok(arguments(&mut Command::new(tool("openssl")?)))
}

/// RFC 4251's `string`.
fn put(out: &mut Vec<u8>, part: &[u8]) {
    out.extend((part.len() as u32).to_be_bytes());
    out.extend(part);
}
