//! SoftHSM tokens: a store of its own for each story, PINs of their own for each token.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, anyhow, bail};

use crate::scratch::Scratch;
use crate::tools::{run_ok, softhsm_module, tool};
use crate::users::{User, command, give};

/// A directory of tokens, as `SOFTHSM2_CONF` names it. It belongs to the keeper's user.
#[derive(Debug, Clone)]
pub struct TokenStore {
    /// The configuration file.
    pub conf: PathBuf,
    dir: PathBuf,
}

/// A token.
#[derive(Debug, Clone)]
pub struct Token {
    /// `CK_TOKEN_INFO` label.
    pub label: String,
    /// `CK_TOKEN_INFO` serial number.
    pub serial: String,
    /// The user's PIN.
    pub pin: String,
    /// Its directory in the store.
    pub dir: PathBuf,
}

impl TokenStore {
    /// An empty store.
    pub fn new(scratch: &Scratch) -> Result<Self> {
        softhsm_module()?;
        let dir = scratch.dir("softhsm", User::Keeper, 0o700)?;
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n\
             slots.removable = false\n",
            dir.display()
        );
        let conf = scratch.file("softhsm2.conf", &text, User::Harness, 0o644)?;
        Ok(Self { conf, dir })
    }

    /// Makes a token.
    pub fn init(&self, label: &str, pin: &str) -> Result<Token> {
        let before = self.dirs()?;
        // softhsm2-util has no other way in for PINs than argv or a terminal. These are PINs of
        // a test.
        run_ok(self.command("softhsm2-util")?.args([
            "--init-token",
            "--free",
            "--label",
            label,
            "--pin",
            pin,
            "--so-pin",
            "so-pin-of-a-test",
        ]))?;
        let fresh: Vec<PathBuf> =
            self.dirs()?.into_iter().filter(|dir| !before.contains(dir)).collect();
        let [dir] = fresh.as_slice() else {
            bail!("softhsm2-util made {} token directories, expected one", fresh.len());
        };
        let serial = serial_of(dir)?;
        Ok(Token { label: label.to_owned(), serial, pin: pin.to_owned(), dir: dir.clone() })
    }

    /// What the cloning of an HSM vendor does: another token with the same keys, the same label
    /// and PIN, and a serial of its own. SoftHSM keeps the serial in clear in `token.object`.
    pub fn clone_token(&self, token: &Token) -> Result<Token> {
        let serial: String = token.serial.chars().rev().collect();
        if serial == token.serial {
            bail!("serial {serial} reads the same backwards");
        }
        let mut name = token.dir.as_os_str().to_owned();
        name.push("-clone");
        let dir = PathBuf::from(name);
        std::fs::create_dir(&dir)?;
        give(&dir, User::Keeper, 0o700)?;
        for entry in std::fs::read_dir(&token.dir)? {
            let entry = entry?;
            let mut bytes = std::fs::read(entry.path())?;
            if entry.file_name() == "token.object" {
                let at = find(&bytes, token.serial.as_bytes())
                    .ok_or_else(|| anyhow!("no serial in {}", entry.path().display()))?;
                bytes[at..at + serial.len()].copy_from_slice(serial.as_bytes());
            }
            let path = dir.join(entry.file_name());
            std::fs::write(&path, bytes)?;
            give(&path, User::Keeper, 0o600)?;
        }
        Ok(Token { label: token.label.clone(), serial, pin: token.pin.clone(), dir })
    }

    /// Runs pkcs11-tool on a token, logged in, as the keeper's user: what someone with the PIN
    /// could do behind the keeper's back.
    pub fn pkcs11_tool(&self, token: &Token, args: &[&str]) -> Result<String> {
        let mut command = self.command("pkcs11-tool")?;
        command
            .arg("--module")
            .arg(softhsm_module()?)
            .args(["--slot", &slot_of(&token.serial)?.to_string()])
            .args(["--login", "--pin", "env:BED_PIN"])
            .env("BED_PIN", &token.pin)
            .args(args);
        run_ok(&mut command)
    }

    /// Takes the token away (its directory gets another name), as when a cable is pulled.
    pub fn unplug(&self, token: &Token) -> Result<()> {
        Ok(std::fs::rename(&token.dir, self.unplugged(token)?)?)
    }

    /// Brings it back.
    pub fn plug_in(&self, token: &Token) -> Result<()> {
        Ok(std::fs::rename(self.unplugged(token)?, &token.dir)?)
    }

    fn unplugged(&self, token: &Token) -> Result<PathBuf> {
        let parent = self.dir.parent().ok_or_else(|| anyhow!("a store has a parent"))?;
        Ok(parent.join(format!("unplugged-{}", token.serial)))
    }

    fn command(&self, program: &str) -> Result<Command> {
        let mut command = command(User::Keeper, &tool(program)?)?;
        command.env("SOFTHSM2_CONF", &self.conf);
        Ok(command)
    }

    fn dirs(&self) -> Result<Vec<PathBuf>> {
        std::fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.path())).collect()
    }
}

/// SoftHSM names a token's directory by a UUID whose last 16 hexadecimal digits are the serial.
fn serial_of(dir: &Path) -> Result<String> {
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let digits: String = name.chars().filter(char::is_ascii_hexdigit).collect();
    let start = digits.len().checked_sub(16).ok_or_else(|| anyhow!("{name} is not a UUID"))?;
    Ok(digits[start..].to_owned())
}

/// SoftHSM's slot number of an initialised token: the last 31 bits of its serial.
fn slot_of(serial: &str) -> Result<u32> {
    let tail = serial.get(serial.len().saturating_sub(8)..).unwrap_or(serial);
    Ok(u32::from_str_radix(tail, 16)? & 0x7fff_ffff)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
