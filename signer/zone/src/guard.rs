//! The change guard: which differences between what is up and what is to follow are for a person to
//! look at first. It judges the source's data alone: what signing adds comes and goes by itself.
//!
//! Three things make a new version wait: it has many records fewer, a name that was called critical is
//! no longer what it was, or the zone moves to other name servers. A first version replaces nothing
//! and is never held.
//!
//! Of a critical name these count: it had records and has none; a delegation or DNAME above it hides
//! it; it was a delegation and is none; none of the delegation's name servers is among the old ones; it
//! had a DS and has none. That a record of it changes is what zones are for.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;

use countersign_policy::ZoneName;

use crate::admitted::AdmittedZone;
use crate::difference::{self, Change, Sign, Signatures};
use crate::name::{self, Name};
use crate::packed::{Node, Packed, Rrset};
use crate::rdata;
use crate::rtype::Rtype;
use crate::verify::VerifiedZone;

/// Names that a reason lists before it counts the rest.
pub const NAMED_MAX: usize = 10;

/// Which changes wait for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules<'a> {
    /// More of the records than this may not go at once.
    pub shrink_percent_max: u8,
    /// That many have to go before it counts as shrinking.
    pub shrink_records_min: u64,
    /// Whether another NS RRset at the apex waits.
    pub apex_ns: bool,
    /// Names that a new version must have.
    pub critical: &'a [ZoneName],
}

/// Why a person should look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Many records fewer.
    Shrinks {
        /// Records of the source's in what is up.
        before: u64,
        /// In what is to follow.
        after: u64,
        /// Owner names that go.
        gone: Names,
    },
    /// Of a critical name.
    Critical {
        /// The name.
        name: Name,
        /// What becomes of it.
        loss: Loss,
    },
    /// Other name servers at the apex.
    ApexNs {
        /// Those that go.
        gone: Names,
        /// Those that come.
        new: Names,
    },
}

/// What becomes of a critical name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It has no record any more.
    Gone,
    /// It is below a delegation or a DNAME now.
    Hidden,
    /// It is no delegation any more.
    Delegation,
    /// All of its name servers are others.
    NameServers,
    /// It has no DS any more.
    Ds,
}

/// Some names, the first few of them by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The first of them.
    pub first: Vec<Name>,
    /// How many there are.
    pub count: u64,
}

impl Names {
    fn push(&mut self, wire: &[u8]) {
        self.count += 1;
        if let (true, Ok(name)) = (self.first.len() < NAMED_MAX, Name::from_wire(wire)) {
            self.first.push(name);
        }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.first.iter().enumerate() {
            write!(f, "{}{name}", if i == 0 { "" } else { ", " })?;
        }
        match self.count - self.first.len() as u64 {
            0 if self.count == 0 => f.write_str("none"),
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shrinks { before, after, gone } => {
                let percent = (before - after) * 100 / before;
                write!(
                    f,
                    "{} of {before} records go ({percent} %), {after} stay or come; names that go: {gone}",
                    before - after
                )
            }
            Self::Critical { name, loss } => write!(f, "critical name {name} {loss}"),
            Self::ApexNs { gone, new } => {
                write!(f, "the zone's name servers change: these go: {gone}; these come: {new}")
            }
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "has no record any more",
            Self::Hidden => "is hidden by a delegation or a DNAME above it",
            Self::Delegation => "is no delegation any more",
            Self::NameServers => "is delegated to other name servers, none of them an old one",
            Self::Ds => "has no DS any more: its delegation becomes insecure",
        })
    }
}

/// Whether a record of a published version is of the signer's making.
pub fn is_signers(apex: &ZoneName, owner: &[u8], rtype: Rtype) -> bool {
    rtype.is_signers_own()
        || rtype.speaks_to_parent()
        || (rtype == Rtype::ZONEMD && name::equal(owner, apex.as_wire()))
}

/// Why a person should look at `new` before it takes the place of what is up.
pub fn judge(up: &VerifiedZone, new: &AdmittedZone, rules: &Rules<'_>) -> Vec<Reason> {
    judge_records(up.apex(), up.records(), new.records(), rules)
}

fn judge_records(apex: &ZoneName, old: &Packed, new: &Packed, rules: &Rules<'_>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    reasons.extend(shrinking(apex, old, new, rules));
    reasons.extend(rules.critical.iter().filter_map(|name| critical(apex, old, new, name)));
    if rules.apex_ns {
        reasons.extend(apex_ns(apex, old, new));
    }
    reasons
}

fn shrinking(apex: &ZoneName, old: &Packed, new: &Packed, rules: &Rules<'_>) -> Option<Reason> {
    let after = new.counts().records as u64;
    let (mut before, mut gone) = (0, Names::default());
    let mut rest = new.iter().peekable();
    for node in old {
        let records = source_records(apex, &node);
        if records == 0 {
            continue;
        }
        before += records;
        while rest.peek().is_some_and(|next| next.key() < node.key()) {
            rest.next();
        }
        if rest.peek().is_none_or(|next| next.key().cmp(node.key()) != Ordering::Equal) {
            gone.push(node.owner());
        }
    }
    let lost = before.saturating_sub(after);
    let many = lost * 100 > before * u64::from(rules.shrink_percent_max);
    (many && lost >= rules.shrink_records_min).then_some(Reason::Shrinks { before, after, gone })
}

/// Records of the source's at a name.
fn source_records(apex: &ZoneName, node: &Node<'_>) -> u64 {
    let rrsets = node.rrsets().filter(|rrset| !is_signers(apex, node.owner(), rrset.rtype()));
    rrsets.map(|rrset| rrset.len() as u64).sum()
}

fn critical(apex: &ZoneName, old: &Packed, new: &Packed, name: &ZoneName) -> Option<Reason> {
    let wire = name.as_wire();
    let has = |zone: &Packed| zone.node(wire).is_some_and(|node| source_records(apex, &node) > 0);
    let at = |zone: &Packed, rtype| ns_set(zone.node(wire).and_then(|node| node.rrset(rtype)));
    if !has(old) {
        return None;
    }
    let (old_ns, new_ns) = (at(old, Rtype::NS), at(new, Rtype::NS));
    let loss = if !has(new) {
        Loss::Gone
    } else if is_hidden(apex, new, wire) && !is_hidden(apex, old, wire) {
        Loss::Hidden
    } else if name::equal(wire, apex.as_wire()) || old_ns.is_empty() {
        return None;
    } else if new_ns.is_empty() {
        Loss::Delegation
    } else if old_ns.is_disjoint(&new_ns) {
        Loss::NameServers
    } else if !at(old, Rtype::DS).is_empty() && at(new, Rtype::DS).is_empty() {
        Loss::Ds
    } else {
        return None;
    };
    Some(Reason::Critical { name: Name::from_wire(wire).ok()?, loss })
}

/// Whether a delegation or a DNAME stands above a name.
fn is_hidden(apex: &ZoneName, zone: &Packed, wire: &[u8]) -> bool {
    let mut above = name::parent(wire);
    while let Some(owner) = above.filter(|owner| apex.contains_wire(owner)) {
        let is_apex = name::equal(owner, apex.as_wire());
        let hides = |node: Node<'_>| node.has(Rtype::DNAME) || (!is_apex && node.has(Rtype::NS));
        if zone.node(owner).is_some_and(hides) {
            return true;
        }
        above = name::parent(owner);
    }
    false
}

fn apex_ns(apex: &ZoneName, old: &Packed, new: &Packed) -> Option<Reason> {
    let at_apex =
        |zone: &Packed| ns_set(zone.node(apex.as_wire()).and_then(|node| node.rrset(Rtype::NS)));
    let (old, new) = (at_apex(old), at_apex(new));
    let names = |from: &BTreeSet<Vec<u8>>, less: &BTreeSet<Vec<u8>>| {
        let mut names = Names::default();
        from.difference(less).for_each(|wire| names.push(wire));
        names
    };
    (old != new).then(|| Reason::ApexNs { gone: names(&old, &new), new: names(&new, &old) })
}

/// RDATAs in canonical form: neither TTL nor case matters.
fn ns_set(rrset: Option<Rrset<'_>>) -> BTreeSet<Vec<u8>> {
    rrset
        .iter()
        .flat_map(|rrset| rrset.rdatas().map(|r| rdata::canonical(rrset.rtype(), r).into_owned()))
        .collect()
}

/// Whether what is up was made of this data, serials aside.
pub fn same_data(up: &VerifiedZone, new: &AdmittedZone) -> bool {
    same_records(up.apex(), up.records(), new.records())
}

fn same_records(apex: &ZoneName, old: &Packed, new: &Packed) -> bool {
    let mut soas: [Option<(u32, Vec<u8>)>; 2] = [None, None];
    for change in difference::between(old, new, Signatures::Hidden) {
        let Change { sign, owner, rtype, ttl_s, rdata } = change;
        if sign == Sign::Removed && is_signers(apex, owner, rtype) {
            continue;
        }
        if rtype != Rtype::SOA {
            return false;
        }
        let mut rdata = rdata.to_vec();
        if let Some(at) = rdata.len().checked_sub(20) {
            rdata[at..at + 4].fill(0);
        }
        soas[usize::from(sign == Sign::Added)] = Some((ttl_s, rdata));
    }
    soas[0] == soas[1]
}

#[cfg(test)]
mod tests;
