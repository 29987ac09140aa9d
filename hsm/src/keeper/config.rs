//! The keeper's configuration file, version 1: paths, sockets, modules, tokens and PINs, and root's
//! pin of the founding. Who has a say, which zones are signed and by which policy is not here but in
//! the ledger.
//!
//! Whoever can write this file can point the keeper at other modules, and could pin another founding:
//! it is refused if anyone but root and the keeper's own user can.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign_policy::founding::TokenIdentity;
use countersign_policy::tree::Hash;
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
    audit_token: String,
    founding: Option<Hash>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModuleSection {
    path: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenSection {
    label: String,
    serial: String,
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

/// What a token is and how it is reached. A founded keeper's ledger says what it is, too: both must
/// agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenAccess {
    /// `CK_TOKEN_INFO` label, without trailing blanks.
    pub label: String,
    /// `CK_TOKEN_INFO` serial number, without trailing blanks.
    pub serial: String,
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
    /// Root's pin: the one founding that this keeper takes, by its hash.
    pub founding: Option<Hash>,
    /// The token that holds the audit key, until the ledger names another.
    pub audit_token: String,
    /// Tokens by name.
    pub tokens: BTreeMap<String, TokenAccess>,
    /// The file's octets, for their hash.
    pub octets: Vec<u8>,
}

impl KeeperConfig {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let fail = |problem: String| ConfigError { path: path.to_owned(), problem };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        for guarded in [path, directory.unwrap_or(Path::new("."))] {
            let metadata = std::fs::metadata(guarded).map_err(|e| fail(e.to_string()))?;
            check_guarded(guarded, &metadata).map_err(fail)?;
        }
        let octets = read_bounded(path, CONFIG_BYTES_MAX).map_err(fail)?;
        Self::parse(octets).map_err(fail)
    }

    /// Checks what a file holds; or says what is wrong with it.
    pub fn parse(octets: Vec<u8>) -> Result<Self, String> {
        let text = std::str::from_utf8(&octets).map_err(|e| e.to_string())?;
        let file: File = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        if file.version != 1 {
            return Err(format!("`version` is {}; this keeper reads version 1", file.version));
        }
        let KeeperSection {
            state_dir,
            socket,
            ledger_socket,
            daemon_user,
            group,
            audit_token,
            founding,
        } = file.keeper;
        for (field, path) in
            [("state_dir", &state_dir), ("socket", &socket), ("ledger_socket", &ledger_socket)]
        {
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
        if !tokens.contains_key(&audit_token) {
            return Err(format!(
                "[keeper] `audit_token` is \"{audit_token}\"; there is no [token.{audit_token}]"
            ));
        }
        Ok(Self {
            state_dir,
            socket,
            ledger_socket,
            daemon_uid: daemon_user.uid()?,
            group_gid: group.gid()?,
            founding,
            audit_token,
            tokens,
            octets,
        })
    }

    /// What an unfounded keeper opens: every token, each in a group of its own.
    pub fn unfounded_specs(&self) -> Vec<TokenSpec> {
        self.tokens.iter().map(|(name, access)| access.spec(name, name.clone())).collect()
    }

    /// What a founded keeper opens: the tokens that its ledger knows. Those that this file lacks are
    /// brought as the second: they are not opened.
    pub fn founded_specs(
        &self,
        known: &BTreeMap<String, TokenIdentity>,
    ) -> Result<(Vec<TokenSpec>, Vec<String>), String> {
        for name in self.tokens.keys().filter(|name| !known.contains_key(*name)) {
            tracing::warn!(token = name, "the ledger does not know this token; it is not opened");
        }
        let (mut specs, mut missing) = (Vec::new(), Vec::new());
        for (name, identity) in known {
            let Some(access) = self.tokens.get(name) else {
                missing.push(name.clone());
                continue;
            };
            for (field, here, there) in [
                ("label", &access.label, &identity.label),
                ("serial", &access.serial, &identity.serial),
            ] {
                if here != there {
                    return Err(format!(
                        "[token.{name}] `{field}` is \"{here}\"; the ledger says \"{there}\". hint: \
                         another token takes its place by an attach-token motion alone"
                    ));
                }
            }
            specs.push(access.spec(name, identity.group.clone()));
        }
        Ok((specs, missing))
    }
}

impl TokenAccess {
    fn spec(&self, name: &str, group: String) -> TokenSpec {
        TokenSpec {
            name: name.to_owned(),
            group,
            label: self.label.clone(),
            serial: self.serial.clone(),
            module: self.module.clone(),
            pin: self.pin.clone(),
            workers: self.workers,
            queue_max: self.queue_max,
            deadline: self.deadline,
        }
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
        let Self { label, serial, .. } = self;
        Ok(TokenAccess {
            label,
            serial,
            module: module.path.clone(),
            pin,
            workers,
            queue_max,
            deadline,
        })
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
audit_token = "ksk-a"
[module.softhsm]
path = "/usr/lib/softhsm/libsofthsm2.so"
[token.ksk-a]
label = "ksk"
serial = "1"
module = "softhsm"
pin_file = "/etc/countersign-keeper/ksk-a.pin"
[token.zsk-a]
label = "zsk"
serial = "2"
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
        check("workers = 4", "worker = 4", "line 22, column 1");
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
        check("audit_token = \"ksk-a\"", "audit_token = \"ksk-b\"", "there is no [token.ksk-b]");
        check("group = 64100", "group = 64100\nfounding = \"12\"", "64 lower-case hexadecimal");
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("keeper.toml");
        std::fs::write(&path, WHOLE).expect("written");
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode");
        };
        mode(&path, 0o620);
        let error = KeeperConfig::load(&path).expect_err("group can write").to_string();
        assert!(error.contains("mode 0620") && error.contains("chmod go-w"), "{error}");
        mode(&path, 0o644);
        mode(dir.path(), 0o777);
        assert!(KeeperConfig::load(&path).is_err(), "its directory lets anyone replace it");
        mode(dir.path(), 0o755);
        assert!(KeeperConfig::load(&path).is_ok());
    }

    #[test]
    fn configuration_and_ledger_agree_on_what_a_token_is() {
        let config = KeeperConfig::parse(WHOLE.into()).expect("whole");
        let identity = |label: &str, serial: &str, group: &str| TokenIdentity {
            label: label.to_owned(),
            serial: serial.to_owned(),
            group: group.to_owned(),
            data_objects: true,
        };
        let mut known: BTreeMap<String, TokenIdentity> = [
            ("ksk-a".to_owned(), identity("ksk", "1", "ksk")),
            ("zsk-b".to_owned(), identity("zsk", "3", "zsk")),
        ]
        .into();
        let (specs, missing) = config.founded_specs(&known).expect("agrees");
        assert_eq!(
            specs.iter().map(|s| (&*s.name, &*s.group)).collect::<Vec<_>>(),
            [("ksk-a", "ksk")]
        );
        assert_eq!(missing, ["zsk-b"]);
        known.insert("zsk-a".to_owned(), identity("zsk", "9", "zsk"));
        let error = config.founded_specs(&known).expect_err("another serial");
        assert!(error.contains("`serial` is \"2\"; the ledger says \"9\""), "{error}");
    }
}
