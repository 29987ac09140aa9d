//! The keeper's configuration file, version 1: paths, sockets, modules and PINs. Which zones are
//! signed, by which policy and on which tokens is not here but in the founding.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign_policy::founding::LabFounding;
use nix::unistd::{Gid, Group, Uid, User};
use serde::Deserialize;

use crate::pkcs11::{
    DEADLINE_DEFAULT, PinSource, QUEUE_MAX_DEFAULT, TokenSpec, WORKERS_DEFAULT, WORKERS_MAX,
};

/// A file of more is no configuration.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Waiting requests of one token: at 512 items each, more would not be signed before their deadline.
const QUEUE_MAX: usize = 4_096;
/// A call into a module that takes longer is a hang, whatever the HSM.
const DEADLINE_MS_MAX: u64 = 120_000;

/// Why the configuration is refused.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, with line and column where there is one.
    pub problem: String,
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    keeper: KeeperSection,
    module: BTreeMap<String, ModuleSection>,
    token: BTreeMap<String, TokenSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeeperSection {
    state_dir: PathBuf,
    socket: PathBuf,
    ledger_socket: PathBuf,
    daemon_user: NameOrNumber,
    group: NameOrNumber,
    founding: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModuleSection {
    path: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenSection {
    module: String,
    pin_file: Option<PathBuf>,
    pin_credential: Option<String>,
    workers: Option<usize>,
    queue_max: Option<usize>,
    deadline_ms: Option<u64>,
}

/// A user or group, by name or number.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a name or a number")]
enum NameOrNumber {
    Number(u32),
    Name(String),
}

/// How a token is reached; what it is comes from the founding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenAccess {
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// Where its PIN is.
    pub pin: PinSource,
    /// Worker threads.
    pub workers: usize,
    /// Bound of its queue.
    pub queue_max: usize,
    /// How long a call may take.
    pub deadline: Duration,
}

/// The keeper's configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeeperConfig {
    /// Ledger and markers; the keeper's own.
    pub state_dir: PathBuf,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// The group's socket.
    pub ledger_socket: PathBuf,
    /// The one user on `socket`.
    pub daemon_uid: u32,
    /// The group that may use `ledger_socket`.
    pub group_gid: u32,
    /// The founding file.
    pub founding: PathBuf,
    /// Tokens by name.
    pub tokens: BTreeMap<String, TokenAccess>,
    /// The file's octets, for their hash.
    pub octets: Vec<u8>,
}

impl KeeperConfig {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let fail = |problem: String| ConfigError { path: path.to_owned(), problem };
        let octets = read_bounded(path, CONFIG_BYTES_MAX).map_err(fail)?;
        Self::parse(octets).map_err(fail)
    }

    fn parse(octets: Vec<u8>) -> Result<Self, String> {
        let text = std::str::from_utf8(&octets).map_err(|e| e.to_string())?;
        let file: File = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        if file.version != 1 {
            return Err(format!("`version` is {}; this keeper reads version 1", file.version));
        }
        let KeeperSection { state_dir, socket, ledger_socket, daemon_user, group, founding } =
            file.keeper;
        for (field, path) in [
            ("state_dir", &state_dir),
            ("socket", &socket),
            ("ledger_socket", &ledger_socket),
            ("founding", &founding),
        ] {
            if !path.is_absolute() {
                return Err(format!(
                    "[keeper] `{field}` is \"{}\"; expected an absolute path",
                    path.display()
                ));
            }
        }
        if socket == ledger_socket {
            return Err("[keeper] `socket` and `ledger_socket` are the same path".to_owned());
        }
        let mut tokens = BTreeMap::new();
        for (name, section) in file.token {
            let access = section.check(&file.module).map_err(|e| format!("[token.{name}] {e}"))?;
            tokens.insert(name, access);
        }
        Ok(Self {
            state_dir,
            socket,
            ledger_socket,
            daemon_uid: daemon_user.uid()?,
            group_gid: group.gid()?,
            founding,
            tokens,
            octets,
        })
    }

    /// What to open: the founding says what each token is, this file how it is reached.
    pub fn token_specs(&self, founding: &LabFounding) -> Result<Vec<TokenSpec>, String> {
        for name in self.tokens.keys().filter(|name| !founding.token.contains_key(*name)) {
            tracing::warn!(token = name, "the founding does not name this token; it is not opened");
        }
        let spec = |(name, identity): (&String, _)| {
            let access = self.tokens.get(name).ok_or_else(|| {
                format!("the founding names the token `{name}`; add [token.{name}] with its module")
            })?;
            let countersign_policy::founding::TokenIdentity { label, serial, group } = identity;
            Ok(TokenSpec {
                name: name.clone(),
                group,
                label,
                serial,
                module: access.module.clone(),
                pin: access.pin.clone(),
                workers: access.workers,
                queue_max: access.queue_max,
                deadline: access.deadline,
            })
        };
        founding.token.iter().map(|(name, identity)| spec((name, identity.clone()))).collect()
    }
}

impl TokenSection {
    fn check(self, modules: &BTreeMap<String, ModuleSection>) -> Result<TokenAccess, String> {
        let module = modules
            .get(&self.module)
            .ok_or_else(|| format!("`module` is \"{0}\"; there is no [module.{0}]", self.module))?;
        if !module.path.is_absolute() {
            return Err(format!("module \"{}\" is not an absolute path", module.path.display()));
        }
        let pin = match (self.pin_file, self.pin_credential) {
            (Some(path), None) if path.is_absolute() => PinSource::File(path),
            (Some(path), None) => {
                return Err(format!(
                    "`pin_file` is \"{}\"; expected an absolute path",
                    path.display()
                ));
            }
            (None, Some(name)) => PinSource::Credential(name),
            _ => return Err("expected either `pin_file` or `pin_credential`".to_owned()),
        };
        let workers = self.workers.unwrap_or(WORKERS_DEFAULT);
        if !(1..=WORKERS_MAX).contains(&workers) {
            return Err(format!("`workers` is {workers}; expected 1 to {WORKERS_MAX}"));
        }
        let queue_max = self.queue_max.unwrap_or(QUEUE_MAX_DEFAULT);
        if !(1..=QUEUE_MAX).contains(&queue_max) {
            return Err(format!("`queue_max` is {queue_max}; expected 1 to {QUEUE_MAX}"));
        }
        let deadline = match self.deadline_ms {
            None => DEADLINE_DEFAULT,
            Some(ms) if (1..=DEADLINE_MS_MAX).contains(&ms) => Duration::from_millis(ms),
            Some(ms) => {
                return Err(format!("`deadline_ms` is {ms}; expected 1 to {DEADLINE_MS_MAX}"));
            }
        };
        Ok(TokenAccess { module: module.path.clone(), pin, workers, queue_max, deadline })
    }
}

impl NameOrNumber {
    fn number_or_name(&self) -> Result<u32, &str> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Name(name) => name.parse().map_err(|_| name.as_str()),
        }
    }

    fn uid(&self) -> Result<u32, String> {
        self.number_or_name().or_else(|name| match User::from_name(name) {
            Ok(Some(user)) => Ok(user.uid.as_raw()),
            Ok(None) => Err(format!("[keeper] `daemon_user`: there is no user `{name}`")),
            Err(e) => Err(format!("[keeper] `daemon_user`: looking up `{name}`: {e}")),
        })
    }

    fn gid(&self) -> Result<u32, String> {
        self.number_or_name().or_else(|name| match Group::from_name(name) {
            Ok(Some(group)) => Ok(group.gid.as_raw()),
            Ok(None) => Err(format!("[keeper] `group`: there is no group `{name}`")),
            Err(e) => Err(format!("[keeper] `group`: looking up `{name}`: {e}")),
        })
    }
}

/// Whether a file or directory can be changed by nobody but root and this process's user.
pub(crate) fn check_guarded(path: &Path, metadata: &std::fs::Metadata) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    let own = Uid::effective().as_raw();
    if metadata.uid() != 0 && metadata.uid() != own {
        return Err(format!(
            "{} belongs to uid {}; expected the keeper's user ({own}) or root. hint: chown it",
            path.display(),
            metadata.uid()
        ));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(format!(
            "{} has mode {:04o}: others than its owner can write to it. hint: chmod go-w it",
            path.display(),
            metadata.mode() & 0o7777
        ));
    }
    Ok(())
}

/// Reads a file of at most `max` octets.
pub(crate) fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mut octets = Vec::new();
    file.take(max + 1).read_to_end(&mut octets).map_err(|e| e.to_string())?;
    if octets.len() as u64 > max {
        return Err(format!("longer than {max} octets"));
    }
    Ok(octets)
}

/// The group as the system calls want it.
pub(crate) fn gid(number: u32) -> Gid {
    Gid::from_raw(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
version = 1
[keeper]
state_dir = "/var/lib/countersign-keeper"
socket = "/run/countersign-keeper/keeper.sock"
ledger_socket = "/run/countersign-keeper/ledger.sock"
daemon_user = "root"
group = 64100
founding = "/etc/countersign-keeper/lab-founding.toml"
[module.softhsm]
path = "/usr/lib/softhsm/libsofthsm2.so"
[token.ksk-a]
module = "softhsm"
pin_file = "/etc/countersign-keeper/ksk-a.pin"
[token.zsk-a]
module = "softhsm"
pin_credential = "zsk-a"
workers = 4
deadline_ms = 250
"#;

    #[test]
    fn the_documented_file_is_read() {
        let config = KeeperConfig::parse(WHOLE.into()).expect("whole");
        assert_eq!((config.daemon_uid, config.group_gid), (0, 64100));
        let zsk = &config.tokens["zsk-a"];
        assert_eq!(zsk.pin, PinSource::Credential("zsk-a".to_owned()));
        assert_eq!((zsk.workers, zsk.deadline), (4, Duration::from_millis(250)));
        assert_eq!(config.tokens["ksk-a"].queue_max, QUEUE_MAX_DEFAULT);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let check = |from: &str, to: &str, expect: &str| {
            let text = WHOLE.replacen(from, to, 1);
            assert_ne!(text, WHOLE, "{from}");
            let error = KeeperConfig::parse(text.into_bytes()).expect_err(expect);
            assert!(error.contains(expect), "{error}");
        };
        check("workers = 4", "worker = 4", "line 18, column 1");
        check("workers = 4", "worker = 4", "unknown field `worker`");
        check("version = 1", "version = 2", "this keeper reads version 1");
        check("workers = 4", "workers = 0", "[token.zsk-a] `workers` is 0");
        check("module = \"softhsm\"", "module = \"nss\"", "there is no [module.nss]");
        check("pin_credential = \"zsk-a\"", "", "either `pin_file` or `pin_credential`");
        check("\"root\"", "\"no-such-user\"", "no user `no-such-user`");
        check("64100", "\"no-such-group\"", "no group `no-such-group`");
        check("\"/var/lib", "\"var/lib", "expected an absolute path");
        check("64100", "true", "line 8");
        check("deadline_ms = 250", "deadline_ms = 0", "`deadline_ms` is 0");
    }
}
