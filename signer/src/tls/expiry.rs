//! What of TLS ends when, and what someone should know of it in time.
//!
//! Looked at: our certificate and its intermediates; the CAs by which ours or a certificate that
//! was seen is vouched for, and the only CA where there is one; the last certificate of every peer
//! and client of the API that was seen ([`super::seen`]); the revocation lists. A CA that is in
//! the bundle for later, or for nobody any more, alarms nobody.

use std::collections::BTreeMap;
use std::path::Path;

use countersign_policy::text::time_text;

use super::crl::List;
use super::facts::Facts;
use super::keyring::Refused;
use super::seen::{Chain, Holder, Seen};
use super::{Material, TlsPaths};

const DAY_S: i64 = 86_400;
/// Long enough for a certificate that needs a person, a form and a signature elsewhere.
pub const NOTICE_S: i64 = 30 * DAY_S;
/// By then it is late for all of that: someone has to see to it today.
pub const URGENT_S: i64 = 7 * DAY_S;
/// Certificates that live for less than a few months are renewed by machines, late: what is left
/// is then held against their life. A quarter: those that are renewed at a third alarm nobody.
const NOTICE_SHARE: i64 = 4;
/// As a week is to a month.
const URGENT_SHARE: i64 = 16;
/// A list is made anew well before its time, or its readers would be without: when a tenth of its
/// life is left and no newer one is here, the copying has stopped.
const LIST_SHARE: i64 = 10;
/// Alarms at once: more would bury the rest. Every peer's certificate may end on one day.
const ALARMS_MAX: usize = 100;

/// What sort of alarm, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// A certificate in use has ended.
    CertificateExpired,
    /// One of our own certificates is in a revocation list.
    CertificateRevoked,
    /// A certificate in use ends within [`URGENT_S`].
    CertificateExpiringSoon,
    /// The files hold something that can't be taken up.
    CertificateFiles,
    /// A revocation list is past its nextUpdate.
    CrlExpired,
    /// A revocation list is about to be.
    CrlExpiring,
    /// Certificates of an issuer are in use of which there is no revocation list.
    CrlMissing,
    /// A certificate in use ends within [`NOTICE_S`].
    CertificateExpiring,
}

impl AlarmKind {
    /// Every kind, worst first: metrics have a series of each.
    pub const ALL: [Self; 8] = [
        Self::CertificateExpired,
        Self::CertificateRevoked,
        Self::CertificateExpiringSoon,
        Self::CertificateFiles,
        Self::CrlExpired,
        Self::CrlExpiring,
        Self::CrlMissing,
        Self::CertificateExpiring,
    ];

    /// Its stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CertificateExpired => "certificate-expired",
            Self::CertificateRevoked => "certificate-revoked",
            Self::CertificateExpiringSoon => "certificate-expiring-soon",
            Self::CertificateFiles => "certificate-files",
            Self::CrlExpired => "crl-expired",
            Self::CrlExpiring => "crl-expiring",
            Self::CrlMissing => "crl-missing",
            Self::CertificateExpiring => "certificate-expiring",
        }
    }
}

/// Something about certificates that needs attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// What sort.
    pub kind: AlarmKind,
    /// What is wrong, and with which certificate.
    pub reason: String,
    /// What to do.
    pub next_step: String,
    /// Since when, in seconds since 1970.
    pub since_s: u64,
}

/// What it is that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Our certificate.
    Own,
    /// An intermediate of ours.
    OwnChain,
    /// A CA in the bundle.
    Ca,
    /// Somebody else's certificate.
    Seen(Holder),
    /// An intermediate of somebody else's.
    SeenChain(Holder),
    /// A revocation list: its nextUpdate.
    Crl,
}

impl What {
    /// Its stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::OwnChain => "own-chain",
            Self::Ca => "ca",
            Self::Seen(holder) => holder.as_str(),
            Self::SeenChain(Holder::Peer) => "peer-chain",
            Self::SeenChain(Holder::PeerServer) => "peer-server-chain",
            Self::SeenChain(Holder::ApiClient) => "api-client-chain",
            Self::Crl => "crl",
        }
    }
}

/// Something that ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// What.
    pub what: What,
    /// Whose: a peer's or client's name in the configuration, else the certificate's subject.
    pub name: String,
    /// When, in seconds since 1970.
    pub at_s: i64,
    /// The certificate's subject, for people.
    subject: String,
    /// How much of its time may be left without an alarm, and without an urgent one.
    notice_s: i64,
    urgent_s: i64,
}

impl Ending {
    fn of(what: What, name: &str, facts: &Facts) -> Self {
        let life_s = facts.life_s();
        Self {
            what,
            name: name.to_owned(),
            at_s: facts.ends_at_s,
            subject: facts.shown.clone(),
            notice_s: NOTICE_S.min(life_s / NOTICE_SHARE),
            urgent_s: URGENT_S.min(life_s / URGENT_SHARE),
        }
    }

    /// One for other rooms' tests.
    #[cfg(test)]
    pub(crate) fn example(what: What, name: &str, at_s: i64) -> Self {
        let (name, subject) = (name.to_owned(), name.to_owned());
        Self { what, name, at_s, subject, notice_s: NOTICE_S, urgent_s: URGENT_S }
    }

    fn of_list(list: &List) -> Self {
        let life_s = list.next_at_s.saturating_sub(list.made_at_s);
        let notice_s = URGENT_S.min(life_s / LIST_SHARE);
        Self {
            what: What::Crl,
            name: list.shown.clone(),
            at_s: list.next_at_s,
            subject: list.shown.clone(),
            notice_s,
            urgent_s: notice_s,
        }
    }

    /// What someone should know of it now.
    pub(crate) fn alarm(&self, now_s: i64) -> Option<Alarm> {
        let left_s = self.at_s.saturating_sub(now_s);
        let list = self.what == What::Crl;
        let (kind, since_s) = if left_s <= 0 {
            let kind = if list { AlarmKind::CrlExpired } else { AlarmKind::CertificateExpired };
            (kind, self.at_s)
        } else if left_s <= self.urgent_s {
            let kind =
                if list { AlarmKind::CrlExpiring } else { AlarmKind::CertificateExpiringSoon };
            (kind, self.at_s - self.urgent_s)
        } else if left_s <= self.notice_s {
            (AlarmKind::CertificateExpiring, self.at_s - self.notice_s)
        } else {
            return None;
        };
        let when = if left_s <= 0 { "ended" } else { "ends" };
        let at = time_text(u64::try_from(self.at_s).unwrap_or(0));
        let (reason, next_step) = self.words(when, &at);
        Some(Alarm { kind, reason, next_step, since_s: u64::try_from(since_s).unwrap_or(0) })
    }

    fn words(&self, when: &str, at: &str) -> (String, String) {
        let (name, subject) = (&self.name, &self.subject);
        let renew = "have it renewed and put in place; files are taken up by themselves";
        match self.what {
            What::Own => (
                format!("our certificate {subject:?} {when} at {at}; without it no peer talks to us"),
                renew.to_owned(),
            ),
            What::OwnChain => (
                format!("the intermediate certificate {subject:?} behind ours {when} at {at}"),
                renew.to_owned(),
            ),
            What::Ca => (
                format!("the CA certificate {subject:?} that vouches for certificates in use {when} at {at}"),
                "put its successor beside it in the CA file, here and at the peers, then have the \
                 certificates issued anew"
                    .to_owned(),
            ),
            What::Seen(holder) => (
                format!("the certificate that {} last showed {when} at {at}", who(holder, name)),
                "have its holder renew it; if it is gone for good, take it out of the configuration"
                    .to_owned(),
            ),
            What::SeenChain(holder) => (
                format!(
                    "the intermediate certificate {subject:?} that {} last showed {when} at {at}",
                    who(holder, name)
                ),
                "have its holder put the new intermediate behind its certificate".to_owned(),
            ),
            What::Crl => (
                format!(
                    "the revocation list of {subject:?} was to be renewed by {at}; what it lists \
                     is refused, what was revoked since is not known here"
                ),
                "put the CA's current list into the file; it is taken up by itself".to_owned(),
            ),
        }
    }
}

fn who(holder: Holder, name: &str) -> String {
    match holder {
        Holder::Peer => format!("peer {name:?}"),
        Holder::PeerServer => format!("peer {name:?} as a server"),
        Holder::ApiClient => format!("API client {name:?}"),
    }
}

/// What ends when, soonest first.
pub(super) fn endings(material: &Material, seen: &Seen) -> Vec<Ending> {
    let seen = seen.all();
    let mut endings = Vec::new();
    for (at, facts) in material.ours.iter().enumerate() {
        let what = if at == 0 { What::Own } else { What::OwnChain };
        endings.push(Ending::of(what, &facts.shown, facts));
    }
    for ((holder, name), chain) in &seen {
        for (at, facts) in chain.facts.iter().enumerate() {
            let what = if at == 0 { What::Seen(*holder) } else { What::SeenChain(*holder) };
            endings.push(Ending::of(what, name, facts));
        }
    }
    let alone = material.authorities.len() == 1;
    let used = |ca: &&Facts| {
        let theirs = seen.iter().flat_map(|(_, chain)| chain.facts.iter());
        alone || material.ours.iter().chain(theirs).any(|facts| facts.issued_by(ca))
    };
    endings.extend(
        material.authorities.iter().filter(used).map(|ca| Ending::of(What::Ca, &ca.shown, ca)),
    );
    endings.extend(newest(material).map(Ending::of_list));
    endings.sort_by_key(|ending| (ending.at_s, ending.what));
    endings
}

/// The newest list of each issuer: older ones lie about and are not asked.
fn newest(material: &Material) -> impl Iterator<Item = &List> {
    let lists = material.lists.as_deref().unwrap_or_default();
    lists
        .iter()
        .enumerate()
        .filter(|(at, list)| !lists[..*at].iter().any(|newer| newer.issuer == list.issuer))
        .map(|(_, list)| list)
}

pub(super) fn alarms(
    material: &Material,
    files: Option<&TlsPaths>,
    seen: &Seen,
    refused: Option<Refused>,
    now_s: u64,
) -> Vec<Alarm> {
    let signed_now_s = i64::try_from(now_s).unwrap_or(i64::MAX);
    let mut alarms: Vec<Alarm> =
        endings(material, seen).iter().filter_map(|ending| ending.alarm(signed_now_s)).collect();
    alarms.extend(refused.map(|Refused { since_s, reason, .. }| {
        Alarm {
            kind: AlarmKind::CertificateFiles,
            reason: format!("the certificate files were changed and can't be taken up: {reason}"),
            next_step: "put a certificate, its key, the CAs and their lists in place that hold \
                    together; until then those read before stay in force"
                .to_owned(),
            since_s,
        }
    }));
    if let (Some(lists), Some(file)) = (&material.lists, files.and_then(|f| f.crl.as_deref())) {
        alarms.extend(revoked(material, lists));
        alarms.extend(missing(seen, lists, file));
    }
    alarms.sort_by_key(|alarm| (alarm.kind, alarm.since_s));
    alarms.truncate(ALARMS_MAX);
    alarms
}

/// Certificates of ours that the lists have.
fn revoked<'a>(material: &'a Material, lists: &'a [List]) -> impl Iterator<Item = Alarm> + 'a {
    let listed = |facts: &'a Facts| Some((facts, lists.iter().find(|list| list.revokes(facts))?));
    material.ours.iter().filter_map(listed).map(|(facts, list)| Alarm {
        kind: AlarmKind::CertificateRevoked,
        reason: format!(
            "our certificate {:?} is in the revocation list of {:?}: peers that read it refuse us",
            facts.shown, list.shown
        ),
        next_step: "find out why, and have a new one issued for a new key".to_owned(),
        since_s: u64::try_from(list.made_at_s).unwrap_or(0),
    })
}

/// Issuers of certificates in use of which there is no list.
fn missing(seen: &Seen, lists: &[List], file: &Path) -> Vec<Alarm> {
    let mut without: BTreeMap<Vec<u8>, Alarm> = BTreeMap::new();
    for (_, Chain { facts, since_s }) in seen.all() {
        for one in facts.iter() {
            if lists.iter().any(|list| list.issuer == one.issuer) {
                continue;
            }
            let alarm = without.entry(one.issuer.clone()).or_insert_with(|| Alarm {
                kind: AlarmKind::CrlMissing,
                reason: format!(
                    "certificates issued by {:?} are in use, and {} has no list of its: none of \
                     them can be revoked",
                    one.issuer_shown,
                    file.display()
                ),
                next_step: "put its list into the file as well".to_owned(),
                since_s,
            });
            alarm.since_s = alarm.since_s.min(since_s);
        }
    }
    without.into_values().collect()
}
