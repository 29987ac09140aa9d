//! `propose`: puts a motion to the vote. One subcommand a sort of motion, its options named as the
//! fields of the statement's text; what the text needs beside (versions, what the motion rests on, the
//! ledger's head) comes from the ledger as it was just checked.
//!
//! The statement is judged here by the same fold that the keeper uses before it is sent: what would be
//! refused is refused with the keeper's own words.

mod build;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use countersign_hsm::protocol::Submission;
use countersign_policy::instance::InstanceId;
use countersign_policy::ledger::{Entry, Line};
use countersign_policy::motion::{Motion, MotionKind};
use countersign_policy::officer::{PersonName, Role};
use countersign_policy::rule::RecoveryRule;
use countersign_policy::ssh::{Namespace, Signature};
use countersign_policy::statement::{NONCE_BYTES, Statement, StatementHash};
use countersign_policy::text::parse_time;
use countersign_policy::tree::TreeHead;
use countersign_policy::{Algorithm, KeyRole, SigningPolicy, ZoneName};
use serde::Serialize;

use super::desk::Desk;
use super::end::{End, Stop};
use super::rules::{self, Which};
use super::view::{View, submit_stop};

pub(super) use build::{change_officers, officer_key};

/// Seconds of a day.
const DAY_S: u64 = 86_400;
/// A week to come together in.
const NOT_AFTER_DAYS: u64 = 7;
/// And another to finish what was begun.
const FINISH_DAYS: u64 = 7;

/// What to propose, and when it may begin.
#[derive(Debug, Args)]
pub(super) struct ProposeArgs {
    #[command(flatten)]
    window: Window,
    #[command(subcommand)]
    kind: Kind,
}

/// When it may begin, and when all of it ends. Each as 2026-11-25T03:00:00Z, or from now as +36h, +7d.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "When")]
pub(super) struct Window {
    /// It begins no earlier; by default at once.
    #[arg(long, global = true, value_name = "TIME")]
    not_before: Option<Moment>,
    /// It begins no later; by default 7 days after that.
    #[arg(long, global = true, value_name = "TIME")]
    not_after: Option<Moment>,
    /// All that it allows ends then; by default 7 days after that.
    #[arg(long, global = true, value_name = "TIME")]
    finish_by: Option<Moment>,
}

/// A time, or one from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    At(u64),
    In(u64),
}

impl Moment {
    fn at(self, now_s: u64) -> u64 {
        match self {
            Self::At(time) => time,
            Self::In(seconds) => now_s.saturating_add(seconds),
        }
    }
}

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?}; expected 2026-11-25T03:00:00Z, or from now +36h or +7d");
        let Some(rest) = text.strip_prefix('+') else {
            return parse_time(text).map(Self::At).ok_or_else(wrong);
        };
        let unit = rest.chars().last().ok_or_else(wrong)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => DAY_S,
            _ => return Err(wrong()),
        };
        let count: u32 = rest[..rest.len() - 1].parse().map_err(|_| wrong())?;
        Ok(Self::In(u64::from(count) * seconds))
    }
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Enrol, retire or replace persons. One who is in both gets new keys or another role.
    ChangeOfficers(Officers),
    /// Change quorum rules; those that are not named stay.
    ChangeRules {
        /// KIND=RULE, KIND one sort of motion or `keys` or `rest`: --rule 'export-ds=2 key-officer'.
        #[arg(long, value_name = "KIND=RULE", value_parser = which_rule)]
        rule: Vec<(Which, countersign_policy::rule::Rule)>,
        /// The recovery group's: --recovery '3 after 172800'.
        #[arg(long, value_parser = rules::recovery)]
        recovery: Option<RecoveryRule>,
        /// No recovery group any more.
        #[arg(long, conflicts_with = "recovery")]
        no_recovery: bool,
    },
    /// Define or change a signing policy; what is not named stays, or is the default.
    SetPolicy(Box<PolicyArgs>),
    /// Sign zones here, by a policy.
    BindZone {
        /// The zones.
        #[arg(long, required = true)]
        zone: Vec<ZoneName>,
        /// The policy.
        #[arg(long)]
        policy: String,
    },
    /// Sign zones here no longer.
    UnbindZone {
        /// The zones.
        #[arg(long, required = true)]
        zone: Vec<ZoneName>,
    },
    /// Make a KSK or CSK for each of the zones.
    GenerateKey {
        /// The zones.
        #[arg(long, required = true)]
        zone: Vec<ZoneName>,
        /// ksk or csk.
        #[arg(long, value_parser = build::word::<KeyRole>)]
        role: KeyRole,
        /// Publish it and sign with it as soon as it is there.
        #[arg(long)]
        activate: bool,
    },
    /// Take over a key that something else made on a token.
    ///
    /// Of a zone that is signed already, take over the ZSK first: caches know it. A zone with a KSK and
    /// no ZSK is made one, which they do not know.
    AdoptKey {
        /// The zone.
        #[arg(long)]
        zone: ZoneName,
        /// ksk, csk or zsk.
        #[arg(long, value_parser = build::word::<KeyRole>)]
        role: KeyRole,
        /// The token that holds it, by name.
        #[arg(long)]
        token: String,
        /// Its key id, as `survey` shows it.
        #[arg(long)]
        key: String,
        /// Publish it and sign with it at once.
        #[arg(long)]
        activate: bool,
    },
    /// Publish a key's DNSKEY, and sign with it.
    ActivateKey(OneKey),
    /// Take a key's DNSKEY out; it stays in its HSM.
    RetireKey(OneKey),
    /// Destroy a key on every token that holds it.
    DestroyKey(OneKey),
    /// Sign exactly this DNSKEY set until finish-by.
    SignDnskeySet {
        /// The zone.
        #[arg(long)]
        zone: ZoneName,
        /// The keys in it.
        #[arg(long, required = true)]
        key: Vec<String>,
    },
    /// Hand out DS records until finish-by.
    ExportDs(Parent),
    /// Publish CDS and CDNSKEY until finish-by.
    PublishCds(Parent),
    /// Publish the delete form of CDS until finish-by.
    DeleteDs {
        /// The zone.
        #[arg(long)]
        zone: ZoneName,
    },
    /// Add a token, or replace the one with this name. What is not named comes from the keeper's survey.
    AttachToken {
        /// Its name in keeper.toml.
        #[arg(long)]
        name: String,
        /// The group that it belongs to.
        #[arg(long)]
        group: String,
        /// Its label.
        #[arg(long)]
        label: Option<String>,
        /// Its serial number.
        #[arg(long)]
        serial: Option<String>,
        /// It holds data objects: yes or no.
        #[arg(long, value_parser = build::yes_no)]
        data_objects: Option<bool>,
    },
    /// Have another box take the tokens. Run it on that one, whose keeper says that it uses no key; stop the
    /// box before first.
    MoveAppliance {
        /// The instance that holds them; by default as the ledger says.
        #[arg(long, value_name = "INSTANCE")]
        from: Option<InstanceId>,
        /// The instance that takes them; by default the keeper that is asked.
        #[arg(long, value_name = "INSTANCE")]
        to: Option<InstanceId>,
    },
    /// Seal the ledger with another audit key. What is not named comes from the keeper's survey.
    ReplaceAuditKey {
        /// The token that holds it, by name.
        #[arg(long, requires = "key")]
        token: Option<String>,
        /// The key: an algorithm and a public key, as in the founding's text.
        #[arg(long, requires = "token")]
        key: Option<String>,
    },
    /// Raise the floor of time, after a long outage.
    RaiseTimeFloor {
        /// The time; by default now.
        #[arg(long)]
        to: Option<Moment>,
    },
    /// End a freeze.
    Thaw {
        /// Of one zone; without, the one of everything.
        #[arg(long)]
        zone: Option<ZoneName>,
    },
    /// Go on with a ledger that is older than what a token says. Needs --behind where the pin is
    /// ahead.
    NewOrigin {
        /// What the token says: SIZE and ROOT, a space between.
        #[arg(long)]
        lost: TreeHead,
        /// The version of officers that the token says.
        #[arg(long)]
        officers: u64,
        /// The version of rules that the token says.
        #[arg(long)]
        rules: u64,
    },
}

/// Who comes and who goes.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Officers {
    /// Who leaves.
    #[arg(long, value_name = "PERSON")]
    pub(super) retire: Vec<PersonName>,
    /// Who comes, and as what: --enrol carol=key-officer.
    #[arg(long, value_name = "PERSON=ROLE", value_parser = person_role)]
    pub(super) enrol: Vec<(PersonName, Role)>,
    /// A public key of one who comes: --key carol=carol.pub; for an sk- key that must ask for a PIN or a
    /// finger, --key carol=verify-required:carol.pub.
    #[arg(long, value_name = "PERSON=FILE", value_parser = person_file)]
    pub(super) key: Vec<(PersonName, String)>,
}

#[derive(Debug, Args)]
struct OneKey {
    /// The zone.
    #[arg(long)]
    zone: ZoneName,
    /// The key's id, or 8 or more digits of it.
    #[arg(long)]
    key: String,
}

#[derive(Debug, Args)]
struct Parent {
    /// The zone.
    #[arg(long)]
    zone: ZoneName,
    /// The keys that it names; by default all active KSKs and CSKs of the zone.
    #[arg(long)]
    key: Vec<String>,
    /// sha-256, sha-384; by default both.
    #[arg(long, value_parser = build::digest)]
    digest: Vec<countersign_policy::ds::DsDigest>,
}

/// A policy: from a file, or from the one there is, or from the defaults; options change it.
#[derive(Debug, Args)]
struct PolicyArgs {
    /// Its name.
    #[arg(long)]
    name: String,
    /// Begin with this TOML file: the fields below with '_', and `_s` behind those in seconds.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// ECDSAP256SHA256, ECDSAP384SHA384, ED25519, RSASHA256, or the number.
    #[arg(long, value_parser = build::algorithm)]
    algorithm: Option<Algorithm>,
    /// RSA: bits of the modulus.
    #[arg(long)]
    rsa_bits: Option<u16>,
    /// ksk-zsk or csk.
    #[arg(long)]
    keys: Option<String>,
    /// The group of tokens for KSKs and CSKs.
    #[arg(long)]
    ksk_group: Option<String>,
    /// The group of tokens for ZSKs.
    #[arg(long)]
    zsk_group: Option<String>,
    /// nsec, nsec3 or nsec3-opt-out.
    #[arg(long)]
    denial: Option<String>,
    /// keep, increment, unixtime or date-counter.
    #[arg(long)]
    serial: Option<String>,
    /// TTL of DNSKEY, in seconds.
    #[arg(long)]
    dnskey_ttl_s: Option<u32>,
    /// Highest TTL, in seconds.
    #[arg(long)]
    ttl_max_s: Option<u32>,
    /// Validity of signatures, in seconds.
    #[arg(long)]
    validity_s: Option<u32>,
    /// Signatures with less left than this are made anew, in seconds.
    #[arg(long)]
    refresh_s: Option<u32>,
    /// How far before now signatures begin, in seconds.
    #[arg(long)]
    inception_offset_s: Option<u32>,
    /// standing or per-set: what the KSK may sign without a further quorum.
    #[arg(long)]
    approval: Option<String>,
}

fn which_rule(text: &str) -> Result<(Which, countersign_policy::rule::Rule), String> {
    let (which, rule) =
        text.split_once('=').ok_or("expected KIND=RULE, as 'export-ds=2 key-officer'")?;
    Ok((which.trim().parse()?, rules::rule(rule.trim())?))
}

fn person_role(text: &str) -> Result<(PersonName, Role), String> {
    let (person, role) =
        text.split_once('=').ok_or("expected PERSON=ROLE, as carol=key-officer")?;
    let person = person.parse().map_err(|error| format!("{error}"))?;
    Ok((person, role.parse()?))
}

fn person_file(text: &str) -> Result<(PersonName, String), String> {
    let (person, file) = text.split_once('=').ok_or("expected PERSON=FILE, as carol=carol.pub")?;
    let person = person.parse().map_err(|error| format!("{error}"))?;
    Ok((person, file.to_owned()))
}

/// `propose KIND …`.
pub(super) fn run(mut desk: Desk<'_>, args: ProposeArgs) -> Result<End, Stop> {
    let mut view = desk.view()?;
    let motion = build::motion(args.kind, &mut view, desk.now_s)?;
    propose(&mut desk, view, motion, &args.window)
}

/// What was proposed, for programs.
#[derive(Debug, Serialize)]
struct Proposed<'a> {
    id: StatementHash,
    words: String,
    line: u64,
    proposer: &'a PersonName,
    text: &'a str,
}

/// Signs a motion's statement and sends it.
pub(super) fn propose(
    desk: &mut Desk<'_>,
    mut view: View,
    motion: Motion,
    window: &Window,
) -> Result<End, Stop> {
    if view.borne.is_some() && motion.kind() != MotionKind::NewOrigin {
        return Err(Stop::usage("--behind is for new-origin alone; the ledger is behind the pin"));
    }
    let hand = desk.hand(view.state().roster())?;
    let statement = statement(&view, hand.person.clone(), motion, window, desk.now_s);
    let (text, hash) = (statement.to_text(), statement.hash());
    view.state().takes_statement(&statement, desk.now_s).map_err(|error| refused(&error))?;
    if !desk.json {
        desk.show(&format!("{text}\nid     {hash}\nwords  {}\n\n", indented(&hash.words(), 7)))?;
    }
    let signature = hand.sign(Namespace::Propose, &text)?;
    judge(&view, desk.now_s, proposed(&text, &signature))?;
    let submission = Submission::Propose { text: text.clone(), signature };
    let line = view.keeper.submit(submission).map_err(submit_stop)?;
    let proposed =
        Proposed { id: hash, words: hash.words(), line, proposer: &hand.person, text: &text };
    desk.print(&proposed, |proposed, out| {
        writeln!(
            out,
            "proposed by {} at line {line}; officers vote with: countersign approve {}",
            proposed.proposer,
            hash.short()
        )
    })?;
    Ok(End::Fine)
}

fn proposed(text: &str, signature: &Signature) -> Entry {
    Entry::Proposed { statement: text.to_owned(), signature: signature.clone() }
}

fn statement(
    view: &View,
    proposer: PersonName,
    motion: Motion,
    window: &Window,
    now_s: u64,
) -> Statement {
    // A new floor of time is judged at the time that it names.
    let (earliest, latest) = match &motion {
        Motion::RaiseTimeFloor { to } => ((*to).min(now_s), (*to).max(now_s)),
        // And where a clock ran ahead and was set right, everything by the time it had reached.
        _ => (now_s, now_s.max(view.state().time_floor())),
    };
    let not_before = window.not_before.map_or(earliest, |time| time.at(now_s));
    let not_after = window
        .not_after
        .map_or(not_before.max(latest) + NOT_AFTER_DAYS * DAY_S, |time| time.at(now_s));
    let finish_by = window.finish_by.map_or(not_after + FINISH_DAYS * DAY_S, |time| time.at(now_s));
    Statement {
        appliance: view.ledger.appliance,
        checkpoint: view.ledger.head(),
        depends: view.state().dependencies(&motion),
        proposer,
        motion,
        nonce: rand::random::<[u8; NONCE_BYTES]>(),
        not_before,
        not_after,
        finish_by,
    }
}

/// That the keeper will take an entry, by the same fold.
pub(super) fn judge(view: &View, now_s: u64, entry: Entry) -> Result<(), Stop> {
    let seq = view.state().next_seq();
    let line = Line { seq, at: now_s, entry };
    view.state().follows(&line).map_err(|error| refused(&error))
}

/// What the fold says of something that it does not take.
pub(super) fn refused(error: &dyn std::fmt::Display) -> Stop {
    Stop::failed(format!("it would be refused, so nothing was sent: {error}"))
}

/// Lines behind the first moved to the right.
pub(super) fn indented(text: &str, by: usize) -> String {
    text.replace('\n', &format!("\n{}", " ".repeat(by)))
}

/// A signing policy that is whole but for its groups.
fn default_policy() -> SigningPolicy {
    SigningPolicy {
        algorithm: Algorithm::EcdsaP256Sha256,
        rsa_bits: None,
        keys: countersign_policy::signing::KeySplit::KskZsk,
        ksk_group: "ksk".to_owned(),
        zsk_group: Some("zsk".to_owned()),
        denial: countersign_policy::signing::Denial::Nsec,
        serial: countersign_policy::signing::SerialPolicy::Increment,
        dnskey_ttl_s: 3_600,
        ttl_max_s: DAY_S as u32,
        validity_s: 14 * DAY_S as u32,
        refresh_s: 7 * DAY_S as u32,
        inception_offset_s: 3_600,
        approval: countersign_policy::signing::DnskeyApproval::Standing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        for (text, expect) in [
            ("+7d", Ok(Moment::In(604_800))),
            ("+90s", Ok(Moment::In(90))),
            ("1970-01-02T00:00:00Z", Ok(Moment::At(86_400))),
            ("7d", Err(())),
            ("+7", Err(())),
            ("+", Err(())),
            ("+7é", Err(())),
            ("+-7d", Err(())),
            ("tomorrow", Err(())),
        ] {
            assert_eq!(text.parse::<Moment>().map_err(|_| ()), expect, "{text}");
        }
    }

    #[test]
    fn the_default_policy_is_whole() {
        default_policy().check("standard").expect("within the bounds");
    }

    #[test]
    fn pairs_in_options() {
        assert!(person_role("carol=key-officer").is_ok());
        assert!(person_role("carol").is_err());
        assert!(person_role("Carol=key-officer").is_err());
        assert!(which_rule("export-ds=2 key-officer").is_ok());
        assert!(which_rule("export-ds 2 key-officer").is_err());
    }

    #[test]
    fn time_texts_are_read_back() {
        assert_eq!(
            countersign_policy::text::time_text(86_400).parse::<Moment>(),
            Ok(Moment::At(86_400))
        );
    }
}
