//! TSIG keys (RFC 8945), and what the makes of name server that do no XoT are started with:
//! Knot 3.2 ([`crate::knot`]) and PowerDNS 4.7 ([`crate::pdns`]).

use std::path::PathBuf;

use anyhow::Result;

use crate::scratch::Scratch;
use crate::tools::{run_ok, tool};
use crate::users::{User, command};

/// What every key here is for; each make knows it by this name.
pub const ALGORITHM: &str = "hmac-sha256";
/// Octets of a secret: as many as the hash gives (RFC 8945 §10 asks for at least that).
const SECRET_BYTES: &str = "32";

/// A key that two name servers share.
#[derive(Clone)]
pub struct Key {
    /// Its name, with the last dot.
    pub name: String,
    /// The secret in base64, as configurations of name servers have it.
    pub secret: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Key {
    /// A key of its own.
    pub fn new(name: &str) -> Result<Self> {
        let mut openssl = command(User::Harness, &tool("openssl")?)?;
        let secret = run_ok(openssl.args(["rand", "-base64", SECRET_BYTES]))?;
        Ok(Self { name: name.to_owned(), secret: secret.trim().to_owned() })
    }

    /// The key as BIND's programs read it.
    pub fn clause(&self) -> String {
        let Self { name, secret } = self;
        format!("key \"{name}\" {{ algorithm {ALGORITHM}; secret \"{secret}\"; }};\n")
    }

    /// The same in a file, for dig.
    pub fn dig_file(&self, scratch: &Scratch) -> Result<PathBuf> {
        scratch.dir("tsig", User::Harness, 0o755)?;
        scratch.file(&format!("tsig/{}key", self.name), &self.clause(), User::Harness, 0o600)
    }

    /// The secret in a file that `owner` alone reads.
    pub fn secret_file(&self, scratch: &Scratch, owner: User) -> Result<PathBuf> {
        scratch.dir("tsig", User::Harness, 0o755)?;
        let file = format!("tsig/{}secret", self.name);
        scratch.file(&file, &format!("{}\n", self.secret), owner, 0o600)
    }
}

/// What a hidden primary is started with that gives its zone to whoever has the key, over TCP,
/// and to nobody else.
#[derive(Debug, Clone)]
pub struct PrimarySpec<'a> {
    /// Name of its directory.
    pub name: &'a str,
    /// The zone's name, with the last dot.
    pub zone: &'a str,
    /// The zone's master file.
    pub content: &'a str,
    /// The key for transfers and NOTIFY.
    pub key: &'a Key,
    /// Port on 127.0.0.1 that it sends NOTIFY to.
    pub notify_port: u16,
}

/// What a public secondary is started with that fetches over TCP with the key.
#[derive(Debug, Clone)]
pub struct SecondarySpec<'a> {
    /// Name of its directory.
    pub name: &'a str,
    /// The zone's name, with the last dot.
    pub zone: &'a str,
    /// The key for transfers and NOTIFY.
    pub key: &'a Key,
    /// Port on 127.0.0.1 that it fetches from.
    pub server_port: u16,
    /// Where it is to listen: the signer has to know before it starts.
    pub port: u16,
}
