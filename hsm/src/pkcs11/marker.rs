//! Marks in the state directory that outlive the process, so that no restart loop locks a token or
//! runs into the same hang again.
//!
//! - `login-TOKEN.json`, durable before each login: which PIN is being tried, and after it how that
//!   ended. A refused PIN is not tried again until its file changes. A login whose end is unknown
//!   (the process was killed in it) is tried once more, unless the token says that its count of
//!   wrong PINs is low.
//! - `hung-TOKEN.json`: a call into the token hung; it is opened last and later next time.
//!
//! A PIN file is recognised by device, inode and modification time. A systemd credential is a new
//! file at each start of the service, so there the mark holds a salted PBKDF2 digest of the PIN, and
//! only while its login is unsettled or refused.

use std::fs::{self, File};
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::pbkdf2;
use countersign_policy::key::{from_hex, to_hex};
use serde::{Deserialize, Serialize};

use super::pin::Pin;

/// PBKDF2-HMAC-SHA-256 iterations (OWASP 2023); costs 0.2 s per login.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).expect("not zero");

/// Which PIN a mark speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PinMark {
    File {
        device: u64,
        inode: u64,
        mtime_s: i64,
        mtime_ns: i64,
    },
    Digest {
        salt: String,
        digest: String,
    },
    /// A credential that was accepted: there is no need to recognise it.
    Nothing,
}

/// How a login ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Login {
    /// Asked, and not yet answered.
    Trying,
    /// Logged in.
    Accepted,
    /// The PIN is wrong or locked.
    Refused,
    /// It failed for another reason, which no token counts as a wrong PIN.
    Failed,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginMark {
    pin: PinMark,
    login: Login,
    /// Logins with this PIN before this one whose end is unknown.
    unknown: u8,
}

/// What the token says about its count of wrong PINs (`CK_TOKEN_INFO` flags).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PinFlags {
    pub(super) count_low: bool,
    pub(super) final_try: bool,
    pub(super) locked: bool,
}

/// Whether a login may be tried.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Try; so many logins with this PIN have an unknown end.
    Try { unknown: u8 },
    /// Not until the PIN's file changes.
    WaitForChange(String),
    /// Not while the token's flags are as they are.
    WaitForToken(String),
}

/// The login mark of one token.
#[derive(Debug)]
pub(super) struct LoginMarker {
    path: PathBuf,
}

impl LoginMarker {
    pub(super) fn new(state_dir: &Path, token: &str) -> Self {
        Self { path: state_dir.join(format!("login-{token}.json")) }
    }

    fn read(&self) -> Result<Option<LoginMark>, String> {
        let problem = |e: &dyn std::fmt::Display| {
            format!(
                "login marker {}: {e}. hint: check the token's PIN count, then remove the file",
                self.path.display()
            )
        };
        match fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| problem(&e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(problem(&e)),
        }
    }

    /// Whether `pin` may be tried, given what became of it before. An error when the mark can't
    /// be read.
    pub(super) fn decide(&self, pin: &Pin, flags: PinFlags) -> Result<Decision, String> {
        let mark = self.read()?;
        let known = mark.as_ref().filter(|mark| mark.pin.is_of(pin));
        let accepted_before = mark.as_ref().is_some_and(|m| m.login == Login::Accepted);
        Ok(decide(known, accepted_before && pin.from_credential, flags))
    }

    /// Before the login. Nothing may be asked of the token unless this succeeded.
    pub(super) fn trying(&self, pin: &Pin, unknown: u8) -> Result<(), String> {
        self.write(&LoginMark { pin: PinMark::of(pin), login: Login::Trying, unknown })
    }

    /// After it.
    pub(super) fn ended(&self, pin: &Pin, login: Login) -> Result<(), String> {
        let mark = if login == Login::Accepted && pin.from_credential {
            PinMark::Nothing
        } else {
            PinMark::of(pin)
        };
        self.write(&LoginMark { pin: mark, login, unknown: 0 })
    }

    fn write(&self, mark: &LoginMark) -> Result<(), String> {
        write_durably(&self.path, mark)
            .map_err(|e| format!("login marker {}: {e}", self.path.display()))
    }
}

fn decide(known: Option<&LoginMark>, accepted_before: bool, flags: PinFlags) -> Decision {
    let wait = |text: &str| Decision::WaitForChange(text.to_owned());
    if flags.locked {
        return Decision::WaitForToken(
            "its PIN is locked. hint: ask its security officer to reset it".to_owned(),
        );
    }
    let last_chance = || {
        Decision::WaitForToken(
            "one more wrong PIN would lock it, and this PIN has not been accepted before. hint: \
             log in once with another tool, which resets the count"
                .to_owned(),
        )
    };
    match known {
        None if flags.final_try && !accepted_before => last_chance(),
        None => Decision::Try { unknown: 0 },
        Some(mark) => match mark.login {
            Login::Failed if flags.final_try => last_chance(),
            Login::Accepted | Login::Failed => Decision::Try { unknown: 0 },
            Login::Refused => wait(
                "it refused this PIN; it is not tried again. hint: put the right PIN into the file",
            ),
            Login::Trying if flags.count_low || flags.final_try => wait(
                "a login was cut off, and the token counts a wrong PIN since; it is not tried \
                 again. hint: check the PIN, then write its file anew",
            ),
            Login::Trying if mark.unknown > 0 => wait(
                "two logins were cut off; no third is tried. hint: check the token, then write \
                 the PIN file anew",
            ),
            Login::Trying => Decision::Try { unknown: mark.unknown + 1 },
        },
    }
}

impl PinMark {
    fn of(pin: &Pin) -> Self {
        if pin.from_credential {
            let mut salt = [0; 16];
            rand::fill(&mut salt);
            return Self::Digest { salt: to_hex(&salt), digest: to_hex(&slow_digest(&salt, pin)) };
        }
        let stamp = pin.stamp;
        Self::File {
            device: stamp.device,
            inode: stamp.inode,
            mtime_s: stamp.mtime_s,
            mtime_ns: stamp.mtime_ns,
        }
    }

    fn is_of(&self, pin: &Pin) -> bool {
        match self {
            Self::File { .. } => !pin.from_credential && *self == Self::of(pin),
            Self::Digest { salt, digest } => {
                pin.from_credential
                    && from_hex(salt)
                        .is_some_and(|salt| to_hex(&slow_digest(&salt, pin)) == *digest)
            }
            Self::Nothing => false,
        }
    }
}

fn slow_digest(salt: &[u8], pin: &Pin) -> [u8; 32] {
    let mut digest = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, salt, pin.expose(), &mut digest);
    digest
}

/// The mark of a token whose module hung.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HungMark {
    /// The call.
    pub(super) call: String,
    /// How often in a row it hung.
    pub(super) times: u32,
}

/// Where [`HungMark`] is kept.
#[derive(Debug)]
pub(super) struct HungMarker {
    path: PathBuf,
}

impl HungMarker {
    pub(super) fn new(state_dir: &Path, token: &str) -> Self {
        Self { path: state_dir.join(format!("hung-{token}.json")) }
    }

    /// The mark, if there is one; a damaged one counts as one hang.
    pub(super) fn read(&self) -> Option<HungMark> {
        let bytes = fs::read(&self.path).ok()?;
        let damaged = || HungMark { call: "an unknown call".to_owned(), times: 1 };
        Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| damaged()))
    }

    /// One more hang.
    pub(super) fn add(&self, call: &str) -> io::Result<()> {
        let times = self.read().map_or(0, |mark| mark.times).saturating_add(1);
        write_durably(&self.path, &HungMark { call: call.to_owned(), times })
    }

    /// The token has been well for long enough.
    pub(super) fn forgive(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

/// Writes beside, syncs, renames over, syncs the directory: after a crash the old content or the
/// new is there, and once this returns it is the new.
fn write_durably(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let beside = path.with_extension("json.new");
    let mut options = File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(login: Login, unknown: u8) -> LoginMark {
        LoginMark { pin: PinMark::Nothing, login, unknown }
    }

    #[test]
    fn an_unknown_end_is_tried_once_more_and_a_refused_pin_never() {
        let quiet = PinFlags::default();
        let low = PinFlags { count_low: true, ..quiet };
        let last = PinFlags { final_try: true, ..low };
        let locked = PinFlags { locked: true, ..last };
        let tries = |known: Option<LoginMark>, flags| {
            matches!(decide(known.as_ref(), false, flags), Decision::Try { .. })
        };
        assert!(tries(None, quiet) && tries(None, low));
        assert!(!tries(None, last) && !tries(None, locked));
        assert!(tries(Some(mark(Login::Accepted, 0)), last), "known to be right");
        assert!(!tries(Some(mark(Login::Accepted, 0)), locked));
        assert!(!tries(Some(mark(Login::Refused, 0)), quiet));
        assert_eq!(
            decide(Some(&mark(Login::Trying, 0)), false, quiet),
            Decision::Try { unknown: 1 }
        );
        assert!(!tries(Some(mark(Login::Trying, 1)), quiet));
        assert!(!tries(Some(mark(Login::Trying, 0)), low));
        assert!(tries(Some(mark(Login::Failed, 0)), low));
    }

    #[test]
    fn hangs_are_counted_until_forgiven() {
        let directory = tempfile::tempdir().expect("directory");
        let marker = HungMarker::new(directory.path(), "zsk-a");
        assert!(marker.read().is_none());
        marker.add("C_Sign").expect("write");
        marker.add("C_Login").expect("write");
        let mark = marker.read().expect("mark");
        assert_eq!((mark.call.as_str(), mark.times), ("C_Login", 2));
        marker.forgive().expect("remove");
        marker.forgive().expect("nothing to remove");
        assert!(marker.read().is_none());
    }
}
