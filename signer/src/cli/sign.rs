//! Signatures by `ssh-keygen -Y sign`, run as a child: keys in files, in an agent and on security
//! keys all work, passphrases and PINs are asked for by it, and no private key is ever read here.
//!
//! The text lies in a folder of its own, which nobody else may enter and which is gone afterwards:
//! `ssh-keygen` asks for a security key's PIN only where its standard input is the terminal. (Ctrl-C
//! leaves that folder behind; it holds the text and no secret.) The signature is then checked against
//! the very key that the roster has.

use std::fs::DirBuilder;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use countersign_policy::officer::{OfficerKey, PersonName, Role, Roster};
use countersign_policy::ssh::{ARMOR_BYTES_MAX, Namespace, Signature, verify};

use super::end::Stop;
use super::files::{self, Existing};
use super::say;

const SSH_KEYGEN: &str = "ssh-keygen";
/// What it says: of a key, a size, a hash, a comment and a type; when it fails, a sentence or two.
const SAID_BYTES_MAX: u64 = 4096;
/// The text, in its folder.
const TEXT_FILE: &str = "text";

/// A person of a roster, with the key at hand.
#[derive(Debug)]
pub(super) struct Hand {
    pub(super) person: PersonName,
    pub(super) role: Role,
    key: OfficerKey,
    identity: PathBuf,
}

impl Hand {
    /// Finds the key of `identity` on the roster. `person` has to be whose it is; without, the roster
    /// says.
    pub(super) fn find(
        roster: &Roster,
        person: Option<&PersonName>,
        identity: Option<&Path>,
    ) -> Result<Self, Stop> {
        let Some(identity) = identity else {
            return Err(Stop::usage(
                "with which key? name your private key, or its .pub with an ssh-agent, with --identity \
                 FILE or COUNTERSIGN_IDENTITY",
            ));
        };
        if let Some(person) = person
            && roster.person(person).is_none()
        {
            let known: Vec<&str> = roster.0.keys().map(PersonName::as_str).collect();
            return Err(Stop::usage(format!(
                "{person} is not on the roster, which has {}",
                known.join(", ")
            )));
        }
        let fingerprint = fingerprint(identity)?;
        let owner = roster.0.iter().find_map(|(name, officer)| {
            let key = officer.keys.iter().find(|key| key.ssh.fingerprint() == fingerprint)?;
            Some((name, officer.role, key))
        });
        let shown = identity.display();
        match (owner, person) {
            (Some((name, role, key)), person) if person.is_none_or(|person| person == name) => {
                let (person, key) = (name.clone(), key.clone());
                Ok(Self { person, role, key, identity: identity.to_owned() })
            }
            (Some((name, ..)), Some(person)) => Err(Stop::usage(format!(
                "{shown} is a key of {name}'s, not of {person}'s; nobody signs for another"
            ))),
            (_, person) => {
                let theirs = person.and_then(|person| roster.person(person)).map_or_else(
                    || "hint: `countersign officer list` shows everyone's".to_owned(),
                    |officer| {
                        let prints: Vec<String> =
                            officer.keys.iter().map(|key| key.ssh.fingerprint()).collect();
                        format!("expected {}", prints.join(" or "))
                    },
                );
                let whose = person.map_or("anyone's".to_owned(), |person| format!("{person}'s"));
                Err(Stop::usage(format!(
                    "{shown} holds the key {fingerprint}, which is no key of {whose} on the roster; \
                     {theirs}"
                )))
            }
        }
    }

    /// Signs, and checks what came out.
    pub(super) fn sign(&self, namespace: Namespace, text: &str) -> Result<Signature, Stop> {
        let armored = ssh_sign(&self.identity, namespace, text)?;
        let signature = Signature::from_armored(&armored)
            .map_err(|error| Stop::failed(format!("{SSH_KEYGEN} made no signature: {error}")))?;
        check(&signature, namespace, text, &self.key).map_err(|problem| {
            Stop::failed(format!(
                "the signature by {} is no use: {problem}",
                self.identity.display()
            ))
        })?;
        Ok(signature)
    }
}

/// That `signature` is over `text`, for that purpose, by `key`, as the roster wants it.
pub(super) fn check(
    signature: &Signature,
    namespace: Namespace,
    text: &str,
    key: &OfficerKey,
) -> Result<(), String> {
    let by = verify(signature, namespace, text.as_bytes(), key.verify_required)
        .map_err(|error| error.to_string())?;
    if by == key.ssh {
        return Ok(());
    }
    Err(format!("it is by the key {}; expected {}", by.fingerprint(), key.ssh.fingerprint()))
}

/// The person of a roster whose key made a signature, once it is checked.
pub(super) fn signer_of<'a>(
    roster: &'a Roster,
    signature: &Signature,
    namespace: Namespace,
    text: &str,
) -> Result<&'a PersonName, String> {
    let claimed = signature.claimed_key();
    let owner = roster.0.keys().find_map(|name| Some((name, roster.key_of(name, claimed)?)));
    let Some((name, key)) = owner else {
        return Err(format!("it is by the key {}, which is nobody's here", claimed.fingerprint()));
    };
    check(signature, namespace, text, key)?;
    Ok(name)
}

/// The command that makes such a signature elsewhere, for people.
pub(super) fn command_line(namespace: Namespace, file: &Path) -> String {
    format!("{SSH_KEYGEN} -Y sign -n {namespace} -f YOUR-KEY {}", file.display())
}

/// `SHA256:…` of the one key in a file, private or public. It asks for no passphrase.
fn fingerprint(identity: &Path) -> Result<String, Stop> {
    let mut command = Command::new(SSH_KEYGEN);
    command.args(["-l", "-E", "sha256", "-f"]).arg(identity);
    let answer = run(command.stdin(Stdio::null()).stderr(Stdio::piped()))?;
    let said = String::from_utf8_lossy(&answer.said);
    let mut lines = said.lines();
    let print = lines.next().and_then(|line| line.split_whitespace().nth(1));
    match (answer.good, print, lines.next()) {
        (true, Some(print), None) if print.starts_with("SHA256:") => Ok(print.to_owned()),
        (true, _, Some(_)) => Err(Stop::usage(format!(
            "{} holds several keys; name a file with one",
            identity.display()
        ))),
        _ => Err(Stop::usage(format!(
            "{} is no key that {SSH_KEYGEN} can read: {}hint: name your private key, or its .pub with \
             an ssh-agent; of a private key in the old PEM format the .pub has to lie beside it",
            identity.display(),
            answer.complaint()
        ))),
    }
}

fn ssh_sign(identity: &Path, namespace: Namespace, text: &str) -> Result<String, Stop> {
    let place = Workplace::new()?;
    let file = place.0.join(TEXT_FILE);
    files::write_whole(&file, Existing::Keep, true, |file| file.write_all(text.as_bytes()))
        .map_err(|error| files::cannot_write(&file, &error))?;
    let mut command = Command::new(SSH_KEYGEN);
    command.args(["-q", "-Y", "sign", "-n", namespace.as_str(), "-f"]).arg(identity).arg(&file);
    // A security key asks for a touch on standard error, and only if that is a terminal.
    let complaints =
        if std::io::stderr().is_terminal() { Stdio::inherit() } else { Stdio::piped() };
    let answer = run(command.stdin(Stdio::inherit()).stderr(complaints))?;
    if !answer.good {
        return Err(Stop::failed(format!(
            "{SSH_KEYGEN} did not sign with {}; nothing was sent. {}hint: {}",
            identity.display(),
            answer.complaint(),
            if identity.extension().is_some_and(|extension| extension == "pub") {
                "with a .pub, the key has to be in the agent that SSH_AUTH_SOCK names (`ssh-add -L`)"
            } else {
                "a passphrase or PIN is asked for on a terminal; without one, put the key into an \
                 ssh-agent (`ssh-add`) and name its .pub"
            }
        )));
    }
    files::read_text(&files::with_suffix(&file, "sig"), ARMOR_BYTES_MAX)
}

/// A folder for a text and its signature.
struct Workplace(PathBuf);

impl Workplace {
    fn new() -> Result<Self, Stop> {
        let folder =
            std::env::temp_dir().join(format!("countersign-{:032x}", rand::random::<u128>()));
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(|error| files::cannot_write(&folder, &error))?;
        Ok(Self(folder))
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // What can't be removed holds no secret.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a child said.
struct Answer {
    good: bool,
    said: Vec<u8>,
    complained: Vec<u8>,
}

impl Answer {
    /// Its complaint as the end of a sentence, or nothing.
    fn complaint(&self) -> String {
        let text = say::plain(String::from_utf8_lossy(&self.complained).trim());
        if text.is_empty() { String::new() } else { format!("It says: {text}. ") }
    }
}

fn run(command: &mut Command) -> Result<Answer, Stop> {
    let failed = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            return Stop::failed(format!(
                "there is no {SSH_KEYGEN} here; install OpenSSH's client (Debian: openssh-client), or \
                 sign on another machine with --export"
            ));
        }
        Stop::failed(format!("can't run {SSH_KEYGEN}: {error}"))
    };
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    // What it says is short: each fits its pipe, so that neither waits for the other to be read.
    if let Some(output) = child.stdout.take() {
        output.take(SAID_BYTES_MAX).read_to_end(&mut said).map_err(failed)?;
    }
    if let Some(complaints) = child.stderr.take() {
        complaints.take(SAID_BYTES_MAX).read_to_end(&mut complained).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    Ok(Answer { good: status.success(), said, complained })
}
