//! Signatures by `ssh-keygen -Y sign`, run as a child: keys in files, in an agent and on security
//! keys all work, passphrases and PINs are asked for by it, and no private key is ever read here.
//!
//! The text goes in by standard input and the signature comes out by standard output, so nothing is
//! left behind. The signature is then checked against the very key that the roster has.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use countersign_policy::officer::{OfficerKey, PersonName, Role, Roster};
use countersign_policy::ssh::{ARMOR_BYTES_MAX, Namespace, Signature, verify};

use super::end::Stop;

const SSH_KEYGEN: &str = "ssh-keygen";
/// What `ssh-keygen -l` says of a key: a size, a hash, a comment and a type.
const FINGERPRINT_BYTES_MAX: u64 = 4096;
/// What it says when it fails: a sentence or two.
const COMPLAINT_BYTES_MAX: u64 = 4096;

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
    let answer = run(command, b"", FINGERPRINT_BYTES_MAX, false)?;
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
    let mut command = Command::new(SSH_KEYGEN);
    command.args(["-q", "-Y", "sign", "-n", namespace.as_str(), "-f"]).arg(identity);
    // A security key asks for a touch on standard error, and only if that is a terminal.
    let terminal = std::io::stderr().is_terminal();
    let answer = run(command, text.as_bytes(), ARMOR_BYTES_MAX as u64 + 1, terminal)?;
    if !answer.good {
        return Err(Stop::failed(format!(
            "{SSH_KEYGEN} did not sign with {}; nothing was sent. {}hint: with a .pub, the key has to \
             be in the agent that SSH_AUTH_SOCK names (`ssh-add -L`)",
            identity.display(),
            answer.complaint()
        )));
    }
    String::from_utf8(answer.said)
        .map_err(|_| Stop::failed(format!("{SSH_KEYGEN} answered with something that is no text")))
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
        let text = String::from_utf8_lossy(&self.complained);
        let text: String =
            text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if text.is_empty() { String::new() } else { format!("It says: {text}. ") }
    }
}

fn run(mut command: Command, text: &[u8], said_max: u64, shows: bool) -> Result<Answer, Stop> {
    let failed = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            return Stop::failed(format!(
                "there is no {SSH_KEYGEN} here; install OpenSSH's client (Debian: openssh-client), or \
                 sign on another machine with --export"
            ));
        }
        Stop::failed(format!("can't run {SSH_KEYGEN}: {error}"))
    };
    let complaints = if shows { Stdio::inherit() } else { Stdio::piped() };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(complaints)
        .spawn()
        .map_err(failed)?;
    // It reads all of its input before it writes, and a complaint fits its pipe: in this order
    // neither side waits for the other. Dropping the input is its end.
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(text) {
            Ok(()) => {}
            // It stopped without reading; its status says why.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    if let Some(output) = child.stdout.take() {
        output.take(said_max).read_to_end(&mut said).map_err(failed)?;
    }
    if let Some(complaints) = child.stderr.take() {
        complaints.take(COMPLAINT_BYTES_MAX).read_to_end(&mut complained).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    Ok(Answer { good: status.success(), said, complained })
}
