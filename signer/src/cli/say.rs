//! Motions, operations and times in the words of tables and logs: one line each, for people. What is
//! signed is the statement's own text, never this.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use countersign_policy::ledger::{CdsType, Operation};
use countersign_policy::motion::{Motion, Scope};
use countersign_policy::{KeyId, ZoneName};

use crate::clock::Civil;

/// Zones and keys that a line names before it counts the rest.
pub(super) const NAMED_MAX: usize = 3;
/// Octets of a foreign text (a reason, a label) in one line.
const FOREIGN_BYTES_MAX: usize = 400;

/// A time, for people.
pub(super) fn time(seconds: u64) -> String {
    Civil::of(seconds).to_string()
}

/// The first digits of a key's id: enough to find it by.
pub(super) fn short(key: &KeyId) -> String {
    key.to_string().chars().take(8).collect()
}

/// An error's text, lines and all, without what moves a terminal's cursor or turns the direction of
/// reading: parts of it may come from the keeper, the daemon, or a file.
pub(super) fn lines(text: &str) -> String {
    let harmless = |c: char| {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        c == '\n' || !(c.is_control() || turns)
    };
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if harmless(character) {
            shown.push(character);
        } else {
            shown.extend(character.escape_unicode());
        }
    }
    shown
}

/// A text that came from elsewhere (an HSM, an error), on one line and in printable ASCII: nothing in
/// it moves the cursor or looks like another letter.
pub(super) fn plain(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        if shown.len() >= FOREIGN_BYTES_MAX {
            shown.push_str("...");
            break;
        }
        match character {
            ' '..='~' => shown.push(character),
            other => shown.extend(other.escape_unicode()),
        }
    }
    shown
}

/// What a motion would do.
pub(super) fn motion(motion: &Motion) -> String {
    match motion {
        Motion::ChangeOfficers { retire, enrol, .. } => {
            let mut parts = Vec::new();
            for (name, officer) in enrol {
                let what = if retire.contains(name) { "replace" } else { "enrol" };
                parts.push(format!("{what} {name} as {}", officer.role));
            }
            let leaving = retire.iter().filter(|name| !enrol.contains_key(name));
            parts.extend(leaving.map(|name| format!("retire {name}")));
            parts.join(", ")
        }
        Motion::ChangeRules { version, .. } => format!("change the rules to version {version}"),
        Motion::SetPolicy { name, version, .. } => {
            format!("set policy {name} to version {version}")
        }
        Motion::BindZone { zones: names, policy } => {
            format!("bind {} to policy {policy}", zones(names))
        }
        Motion::UnbindZone { zones: names } => format!("unbind {}", zones(names)),
        Motion::GenerateKey { zones: names, role, activate } => {
            format!("make a {role} for {}{}", zones(names), at_once(*activate))
        }
        Motion::AdoptKey { zone, role, token, key, activate } => {
            let key = short(key);
            format!("adopt {role} {key} of {zone} from token {token}{}", at_once(*activate))
        }
        Motion::ActivateKey { zone, key } => format!("activate key {} of {zone}", short(key)),
        Motion::RetireKey { zone, key } => format!("retire key {} of {zone}", short(key)),
        Motion::DestroyKey { zone, key } => format!("destroy key {} of {zone}", short(key)),
        Motion::SignDnskeySet { zone, keys: set } => {
            format!("sign the DNSKEY set of {zone} with {}", keys(set))
        }
        Motion::ExportDs { zone, keys: set, .. } => {
            format!("hand out DS of {zone} for {}", keys(set))
        }
        Motion::PublishCds { zone, keys: set, .. } => {
            format!("publish CDS and CDNSKEY of {zone} for {}", keys(set))
        }
        Motion::DeleteDs { zone } => format!("publish the delete form of CDS for {zone}"),
        Motion::AttachToken { name, identity } => {
            format!("attach token {name}, serial {}", plain(&identity.serial))
        }
        Motion::MoveAppliance { from, to } if from == to => {
            format!("confirm that box {} holds the tokens", to.short())
        }
        Motion::MoveAppliance { from, to } => {
            format!("move the appliance from box {} to box {}", from.short(), to.short())
        }
        Motion::ReplaceAuditKey { token, .. } => {
            format!("seal the ledger with another audit key, on token {token}")
        }
        Motion::RaiseTimeFloor { to } => format!("raise the floor of time to {}", time(*to)),
        Motion::Thaw { scope: what } => format!("end the freeze of {}", scope(what)),
        Motion::NewOrigin { lost, .. } => {
            format!("go on with a new origin; {} lines were known before", lost.size)
        }
    }
}

fn at_once(activate: bool) -> &'static str {
    if activate { ", published at once" } else { "" }
}

/// What a freeze holds.
pub(super) fn scope(scope: &Scope) -> String {
    match scope {
        Scope::All => "every KSK and CSK".to_owned(),
        Scope::Zone(zone) => format!("the KSKs and CSKs of {zone}"),
    }
}

/// What an HSM is asked.
pub(super) fn operation(operation: &Operation) -> String {
    match operation {
        Operation::Generate { zone, role, token, .. } => {
            format!("make a {role} for {zone} on token {token}")
        }
        Operation::Adopt { zone, role, token, key } => {
            format!("adopt {role} {} of {zone} on token {token}", short(key))
        }
        Operation::SignDnskey { zone, keys: set, signer, .. } => {
            format!("sign DNSKEY of {zone} ({}) with {}", keys(set), short(signer))
        }
        Operation::SignCds { zone, rrset, signer, .. } => {
            let rrset = match rrset {
                CdsType::Cds => "CDS",
                CdsType::Cdnskey => "CDNSKEY",
            };
            format!("sign {rrset} of {zone} with {}", short(signer))
        }
        Operation::Destroy { zone, token, label, key } => {
            let key = key.as_ref().map(|key| format!(" ({})", short(key))).unwrap_or_default();
            format!("destroy {}{key} of {zone} on token {token}", plain(label))
        }
    }
}

/// Some zones.
pub(super) fn zones(zones: &BTreeSet<ZoneName>) -> String {
    some("zones", zones.iter().map(ToString::to_string))
}

/// Some keys.
pub(super) fn keys(keys: &BTreeSet<KeyId>) -> String {
    some("keys", keys.iter().map(short))
}

fn some(what: &str, all: impl ExactSizeIterator<Item = String>) -> String {
    let count = all.len();
    let mut named = all.take(NAMED_MAX).collect::<Vec<_>>().join(", ");
    if count > NAMED_MAX {
        // Writing to a String can't fail.
        let _ = write!(named, " and {} more {what}", count - NAMED_MAX);
    }
    if count == 0 { format!("no {what}") } else { named }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_its_line() {
        assert_eq!(plain("a\n\u{1b}[2J\u{202e}\u{e9}"), "a\\u{a}\\u{1b}[2J\\u{202e}\\u{e9}");
        assert!(plain(&"x".repeat(1000)).ends_with("x..."));
        assert_eq!(lines("a\n\u{e9}\u{1b}[2J\u{202e}"), "a\n\u{e9}\\u{1b}[2J\\u{202e}");
    }

    #[test]
    fn many_zones_are_counted() {
        let all = ["a", "b", "c", "d", "e"].map(|name| name.parse().expect("name"));
        assert_eq!(zones(&all.into()), "a., b., c. and 2 more zones");
        assert_eq!(zones(&BTreeSet::new()), "no zones");
    }
}
