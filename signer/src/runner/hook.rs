//! Hooks: programs that are asked about new data before it is signed, and about the version made of it
//! before it is published. Signing the same data again asks nobody: a hook can't let signatures expire.
//!
//! A hook listens on a unix socket and runs as a user of its own, with nothing of ours but what it is
//! asked. One connection is one question: we write one JSON document ([`Question`]) and close our half;
//! it answers with one JSON document, `{"verdict": "pass" | "hold" | "refuse", "reason": "..."}`, within
//! its time. Everything else is a failure, and `on_failure` says what that means.
//!
//! Whoever can put a socket in the place of a hook's decides in its name. So its folder must not be
//! writable by everyone, nor any above it replaceable by everyone; and the log says who listened.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_policy::ZoneName;
use countersign_policy::key::to_hex;
use countersign_zone::difference::{Sign, Signatures, between};
use countersign_zone::{Packed, guard};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use crate::api::export::write_record;
use crate::config::{Hook, HookFailure, HookPoint};
use crate::counters::Counters;
use crate::store::Source;

/// Version of the document.
const VERSION: u32 = 1;
/// Octets of changed records in a question; the rest is only counted. A hook that must see all of a
/// large change takes the zone from where it comes from.
const DIFFERENCE_BYTES_MAX: usize = 1 << 20;
/// Octets of an answer: a verdict and a reason for people.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Questions to one hook at once: each may be a process of its own.
const QUESTIONS_AT_ONCE: usize = 16;
/// Characters of a reason that are kept.
const REASON_CHARS_MAX: usize = 1_000;
/// Mode bit: writable by everyone.
const WORLD_WRITABLE: u32 = 0o002;
/// Mode bit: only its owner may replace what is in it.
const STICKY: u32 = 0o1000;

/// What a hook is asked.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Question {
    /// [`VERSION`].
    version: u32,
    zone: String,
    /// `signing` or `publishing`.
    point: &'static str,
    source: Source,
    /// The serial that the source gave the data.
    incoming_serial: u32,
    /// The serial that it would be published under; not known before it is signed.
    serial: Option<u32>,
    /// The serial that is up.
    published_serial: Option<u32>,
    /// Records of the data, DNSSEC records not counted.
    records: u64,
    /// Who released it, where a person did: `hold` counts as `pass` then.
    released_by: Option<String>,
    /// Root hash of the signed version, hexadecimal; not there before it is signed.
    digest: Option<String>,
    difference: Difference,
}

/// What changes against what is up, DNSSEC records left out.
#[derive(Debug, Clone, Default, Serialize)]
struct Difference {
    removed: u64,
    added: u64,
    /// Whether `records` does not hold all of it.
    truncated: bool,
    /// Master file lines, each after `- ` or `+ `.
    records: Vec<String>,
}

/// What a question is about.
pub(super) struct About<'a> {
    pub zone: &'a ZoneName,
    pub source: &'a Source,
    pub incoming_serial: u32,
    pub released_by: Option<&'a str>,
    /// What is up: its serial and records.
    pub up: Option<(u32, &'a Packed)>,
    /// The new data.
    pub data: &'a Packed,
}

impl Question {
    /// Walks both versions: not for the threads that serve.
    pub fn about(about: &About<'_>) -> Self {
        let nothing = Packed::default();
        let (published_serial, old) = match about.up {
            Some((serial, records)) => (Some(serial), records),
            None => (None, &nothing),
        };
        Self {
            version: VERSION,
            zone: about.zone.to_string(),
            point: "signing",
            source: about.source.clone(),
            incoming_serial: about.incoming_serial,
            serial: None,
            published_serial,
            records: about.data.counts().records as u64,
            released_by: about.released_by.map(str::to_owned),
            digest: None,
            difference: Difference::of(about.zone, old, about.data),
        }
    }

    /// The same once the version is made.
    pub fn signed(self, serial: u32, root: [u8; 32]) -> Self {
        Self { point: "publishing", serial: Some(serial), digest: Some(to_hex(&root)), ..self }
    }
}

impl Difference {
    fn of(zone: &ZoneName, old: &Packed, new: &Packed) -> Self {
        let mut difference = Self::default();
        let mut bytes = 0;
        for change in between(old, new, Signatures::Hidden) {
            if guard::is_signers(zone, change.owner, change.rtype) {
                continue;
            }
            let (count, sign) = match change.sign {
                Sign::Removed => (&mut difference.removed, "- "),
                Sign::Added => (&mut difference.added, "+ "),
            };
            *count += 1;
            if difference.truncated {
                continue;
            }
            let mut line = sign.to_owned();
            write_record(change.owner, change.ttl_s, change.rtype, change.rdata, &mut line);
            line.truncate(line.trim_end().len());
            bytes += line.len();
            if bytes > DIFFERENCE_BYTES_MAX {
                difference.truncated = true;
            } else {
                difference.records.push(line);
            }
        }
        difference
    }
}

/// What a hook says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub verdict: Verdict,
    /// On one line, printable.
    pub reason: String,
    /// The user that listened.
    pub uid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Pass,
    Hold,
    Refuse,
}

/// Why a hook has not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum HookError {
    /// Anyone could answer in its name.
    #[error(
        "its socket is not safe: {path} is writable by everyone, who could put another socket there (hint: give it a folder of its own)",
        path = .0.display()
    )]
    Open(PathBuf),
    /// No way to it.
    #[error("can't reach {path}: {source} (hint: is its unit running?)", path = path.display())]
    Unreachable { path: PathBuf, source: std::io::Error },
    /// It broke off.
    #[error("broke off: {0}")]
    Broken(std::io::Error),
    /// It took too long.
    #[error("no answer within {0} ms")]
    Late(u64),
    /// It said too much.
    #[error("its answer is longer than {ANSWER_BYTES_MAX} octets")]
    TooLong,
    /// It said something else.
    #[error(
        "its answer is not one: {0}; expected {{\"verdict\": \"pass\" | \"hold\" | \"refuse\", \"reason\": \"...\"}}"
    )]
    NotAnAnswer(String),
}

/// Asks one hook. All of it, connecting included, takes no longer than its time.
pub(super) async fn ask(hook: &Hook, question: &Question) -> Result<Answer, HookError> {
    let limit = Duration::from_millis(hook.timeout_ms);
    tokio::time::timeout(limit, converse(&hook.socket, question))
        .await
        .map_err(|_| HookError::Late(hook.timeout_ms))?
}

async fn converse(socket: &Path, question: &Question) -> Result<Answer, HookError> {
    let unreachable = |source| HookError::Unreachable { path: socket.to_owned(), source };
    let socket = safe_place(socket)?;
    let mut stream = UnixStream::connect(&socket).await.map_err(unreachable)?;
    let uid = stream.peer_cred().map_err(HookError::Broken)?.uid();
    // Strings and numbers always serialise.
    let document = serde_json::to_vec(question).unwrap_or_default();
    // One that has made up its mind need not read to the end.
    let written = async {
        stream.write_all(&document).await?;
        stream.shutdown().await
    }
    .await;
    let mut answer = Vec::new();
    let read = (&mut stream).take(ANSWER_BYTES_MAX + 1).read_to_end(&mut answer).await;
    if answer.len() as u64 > ANSWER_BYTES_MAX {
        return Err(HookError::TooLong);
    }
    if answer.is_empty() {
        written.map_err(HookError::Broken)?;
    }
    read.map_err(HookError::Broken)?;
    let Said { verdict, reason } = serde_json::from_slice(&answer)
        .map_err(|error| HookError::NotAnAnswer(error.to_string()))?;
    Ok(Answer { verdict, reason: printable(&reason), uid })
}

#[derive(Debug, Deserialize)]
struct Said {
    verdict: Verdict,
    #[serde(default)]
    reason: String,
}

/// Where the socket really is, if not everyone can put another in its place.
fn safe_place(socket: &Path) -> Result<PathBuf, HookError> {
    let unreachable = |source| HookError::Unreachable { path: socket.to_owned(), source };
    let real = socket.canonicalize().map_err(unreachable)?;
    for (above, folder) in real.ancestors().skip(1).enumerate() {
        let mode = folder.metadata().map_err(unreachable)?.mode();
        // In one that is sticky nobody replaces another's folder, but anyone makes a socket.
        if mode & WORLD_WRITABLE != 0 && (above == 0 || mode & STICKY == 0) {
            return Err(HookError::Open(folder.to_owned()));
        }
    }
    Ok(real)
}

/// A reason goes into logs and onto terminals.
fn printable(reason: &str) -> String {
    let mut shown = String::new();
    for character in reason.chars().take(REASON_CHARS_MAX) {
        match character {
            ' '..='~' => shown.push(character),
            other => shown.extend(other.escape_unicode()),
        }
    }
    shown
}

/// What the hooks at one point say together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Opinion {
    /// Why a person has to look, by hook.
    pub holds: Vec<String>,
    /// Why it must not go out at all.
    pub refusal: Option<String>,
}

/// Questions to one hook at once, by its socket. Zones wait for a place before their time begins: where
/// thousands change at once, none is held because a hook was asked by too many others.
#[derive(Debug, Default)]
pub(super) struct Gates(Mutex<BTreeMap<PathBuf, Arc<Semaphore>>>);

impl Gates {
    fn of(&self, hook: &Hook) -> Arc<Semaphore> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = || Arc::new(Semaphore::new(QUESTIONS_AT_ONCE));
        gates.entry(hook.socket.clone()).or_insert_with(gate).clone()
    }
}

/// Asks the hooks of a point, one after the other, until one refuses.
pub(super) async fn ask_all(
    hooks: &[(String, Hook)],
    point: HookPoint,
    question: &Question,
    gates: &Gates,
    counters: &Counters,
) -> Opinion {
    let mut opinion = Opinion::default();
    for (name, hook) in hooks.iter().filter(|(_, hook)| hook.before == point) {
        let gate = gates.of(hook);
        let _place = gate.acquire().await;
        counters.hooks_asked.bump();
        match ask(hook, question).await {
            Ok(Answer { verdict, reason, uid }) => {
                tracing::info!(hook = name, uid, ?verdict, reason, "a hook has answered");
                match verdict {
                    Verdict::Pass => {}
                    Verdict::Hold => opinion.holds.push(format!("hook {name} holds it: {reason}")),
                    Verdict::Refuse => {
                        opinion.refusal = Some(format!("hook {name} refuses it: {reason}"));
                        return opinion;
                    }
                }
            }
            Err(error) => {
                counters.hooks_failed.bump();
                tracing::error!(hook = name, %error, on_failure = ?hook.on_failure, "a hook has not answered");
                if hook.on_failure == HookFailure::Hold {
                    opinion.holds.push(format!("hook {name} has not answered: {error}"));
                }
            }
        }
    }
    opinion
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tokio::net::UnixListener;

    use super::*;

    fn question() -> Question {
        let zone: ZoneName = "example.".parse().expect("name");
        let data = Packed::default();
        Question::about(&About {
            zone: &zone,
            source: &Source::Push { by: "ops".to_owned() },
            incoming_serial: 7,
            released_by: None,
            up: None,
            data: &data,
        })
    }

    /// What comes of a hook that reads the question and answers so, for as long as it takes.
    async fn asked(answer: &'static [u8], on_failure: HookFailure, mode: u32) -> Opinion {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).expect("mode");
        let socket = dir.path().join("hook.sock");
        let listener = UnixListener::bind(&socket).expect("bound");
        let program = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("asked");
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).await.expect("a question");
            let asked: serde_json::Value = serde_json::from_slice(&asked).expect("JSON");
            assert_eq!((&asked["zone"], &asked["point"]), (&"example.".into(), &"signing".into()));
            if answer == b"silence" {
                std::future::pending::<()>().await;
            }
            let _ = stream.write_all(answer).await;
        });
        let hook = Hook { socket, before: HookPoint::Signing, timeout_ms: 500, on_failure };
        let hooks = [("h".to_owned(), hook)];
        let opinion = ask_all(
            &hooks,
            HookPoint::Signing,
            &question(),
            &Gates::default(),
            &Counters::default(),
        )
        .await;
        program.abort();
        opinion
    }

    #[tokio::test]
    async fn a_hook_passes_holds_or_refuses() {
        let said = async |answer| asked(answer, HookFailure::Hold, 0o755).await;
        assert_eq!(said(br#"{"verdict":"pass"}"#).await, Opinion::default());
        let held =
            said(b"{\"verdict\":\"hold\",\"reason\":\"ask\\u001b[2J Eve\",\"more\":1}\n").await;
        assert_eq!(held.holds, ["hook h holds it: ask\\u{1b}[2J Eve"]);
        let refused = said(br#"{"verdict":"refuse","reason":"no"}"#).await;
        assert_eq!(refused.refusal.as_deref(), Some("hook h refuses it: no"));
    }

    #[tokio::test]
    async fn whatever_else_it_does_is_a_failure() {
        let long: &'static [u8] = vec![b' '; ANSWER_BYTES_MAX as usize + 1].leak();
        for (answer, mode, why) in [
            (&b"silence"[..], 0o755, "no answer within 500 ms"),
            (b"", 0o755, "not one: EOF"),
            (b"{\"verdict\":\"maybe\"}", 0o755, "unknown variant `maybe`"),
            (b"{\"verdict\":\"pass\"} {}", 0o755, "trailing characters"),
            (long, 0o755, "longer than 65536 octets"),
            (b"{\"verdict\":\"pass\"}", 0o777, "is writable by everyone"),
            (b"{\"verdict\":\"pass\"}", 0o1777, "is writable by everyone"),
        ] {
            let held = asked(answer, HookFailure::Hold, mode).await;
            assert!(held.holds[0].contains(why), "{why}: {held:?}");
            assert_eq!(asked(answer, HookFailure::Pass, mode).await, Opinion::default(), "{why}");
        }
    }

    #[tokio::test]
    async fn a_hook_that_is_not_there_is_a_failure() {
        let hook = Hook {
            socket: "/nonexistent/hook.sock".into(),
            before: HookPoint::Publishing,
            timeout_ms: 500,
            on_failure: HookFailure::Hold,
        };
        let hooks = [("h".to_owned(), hook)];
        let asked = async |point| {
            ask_all(&hooks, point, &question(), &Gates::default(), &Counters::default()).await.holds
        };
        assert!(
            asked(HookPoint::Publishing).await[0].contains("can't reach /nonexistent/hook.sock")
        );
        assert!(asked(HookPoint::Signing).await.is_empty(), "it is not its turn");
    }
}
