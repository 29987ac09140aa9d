//! The difference of two versions of a zone, record by record (what RFC 1995 §3 calls a difference
//! sequence), and its application to a base ([`patch`]).
//!
//! Both versions are walked once, in canonical order; pages that they share are passed over
//! unread. A record is the same if owner (without regard to case), type, TTL and the canonical form of
//! its RDATA are (RFC 4034 §6.2). Where anything else than that differs, the case of a name or the TTL of an
//! RRset, the old records go and the new ones come, so that whoever applies a difference has the
//! new version octet for octet.

pub mod patch;

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::packed::{Node, Packed, Page, Rrset};
use crate::rdata;
use crate::rtype::Rtype;

pub use patch::{Base, Mismatch, Patch};

/// Whether a record goes or comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sign {
    /// The old version has it and the new one has not.
    Removed,
    /// The other way round.
    Added,
}

/// A record that one version has and the other has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// Which of them has it.
    pub sign: Sign,
    /// Owner in wire form, in the case of that version.
    pub owner: &'a [u8],
    /// Type; [`Rtype::RRSIG`] for a signature.
    pub rtype: Rtype,
    /// TTL in seconds.
    pub ttl_s: u32,
    /// RDATA in the form of that version.
    pub rdata: &'a [u8],
}

/// Whether signatures are part of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signatures {
    /// RRSIGs are records like any other.
    Shown,
    /// They are passed over.
    Hidden,
}

/// What has to go from `old` and to come to make `new`: owners in canonical order, their RRsets by
/// type, of each first what goes and then what comes, its signatures after it.
pub fn between<'a>(
    old: &'a Packed,
    new: &'a Packed,
    signatures: Signatures,
) -> impl Iterator<Item = Change<'a>> + use<'a> {
    let (old, new) = (Walk::of(old), Walk::of(new));
    Difference { old, new, signatures, ready: VecDeque::new() }
}

/// Where in a version the walk is.
struct Walk<'a> {
    pages: &'a [Arc<Page>],
    /// In the first of `pages`.
    node: usize,
}

impl<'a> Walk<'a> {
    fn of(version: &'a Packed) -> Self {
        Self { pages: version.pages(), node: 0 }
    }

    fn peek(&self) -> Option<Node<'a>> {
        Some(self.pages.first()?.node(self.node))
    }

    fn step(&mut self) {
        self.node += 1;
        if self.pages.first().is_none_or(|page| self.node >= page.len()) {
            self.pages = self.pages.get(1..).unwrap_or_default();
            self.node = 0;
        }
    }

    /// Passes over the pages that both have here.
    fn skip_shared(&mut self, other: &mut Self) {
        if self.node != 0 || other.node != 0 {
            return;
        }
        let pairs = self.pages.iter().zip(other.pages);
        let shared = pairs.take_while(|(a, b)| Arc::ptr_eq(a, b)).count();
        self.pages = &self.pages[shared..];
        other.pages = &other.pages[shared..];
    }
}

struct Difference<'a> {
    old: Walk<'a>,
    new: Walk<'a>,
    signatures: Signatures,
    /// Changes of the owner that was compared last.
    ready: VecDeque<Change<'a>>,
}

impl<'a> Iterator for Difference<'a> {
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        while self.ready.is_empty() {
            self.old.skip_shared(&mut self.new);
            let (old, new) = (self.old.peek(), self.new.peek());
            let order = match (&old, &new) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.key().cmp(new.key()),
            };
            let old = old.filter(|_| order != Ordering::Greater);
            let new = new.filter(|_| order != Ordering::Less);
            if old.is_some() {
                self.old.step();
            }
            if new.is_some() {
                self.new.step();
            }
            self.owner(old, new);
        }
        self.ready.pop_front()
    }
}

impl<'a> Difference<'a> {
    /// Compares the RRsets of one owner.
    fn owner(&mut self, old: Option<Node<'a>>, new: Option<Node<'a>>) {
        if let (Some(old), Some(new)) = (&old, &new)
            && old.same_octets(new)
        {
            return;
        }
        let mut old = old.iter().flat_map(Node::rrsets).peekable();
        let mut new = new.iter().flat_map(Node::rrsets).peekable();
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.rtype().cmp(&new.rtype()),
            };
            match order {
                Ordering::Less => self.whole(Sign::Removed, old.next()),
                Ordering::Greater => self.whole(Sign::Added, new.next()),
                Ordering::Equal => {
                    if let (Some(old), Some(new)) = (old.next(), new.next()) {
                        self.rrset(&old, &new);
                    }
                }
            }
        }
    }

    fn whole(&mut self, sign: Sign, rrset: Option<Rrset<'a>>) {
        let Some(rrset) = rrset else { return };
        rrset.rdatas().for_each(|rdata| self.push(sign, &rrset, rrset.rtype(), rdata));
        if self.signatures == Signatures::Shown {
            rrset.rrsigs().for_each(|rdata| self.push(sign, &rrset, Rtype::RRSIG, rdata));
        }
    }

    /// Compares two RRsets of one owner and type.
    fn rrset(&mut self, old: &Rrset<'a>, new: &Rrset<'a>) {
        if old.ttl_s() != new.ttl_s() || old.owner() != new.owner() {
            self.whole(Sign::Removed, Some(*old));
            self.whole(Sign::Added, Some(*new));
            return;
        }
        if !old.same_records(new) {
            self.records(old, new);
        }
        if self.signatures == Signatures::Shown && !old.rrsigs().eq(new.rrsigs()) {
            // As many as the zone has keys: a handful.
            let missing = |from: &Rrset<'a>, rdata: &[u8]| !from.rrsigs().any(|own| own == rdata);
            for rdata in old.rrsigs().filter(|rdata| missing(new, rdata)) {
                self.push(Sign::Removed, old, Rtype::RRSIG, rdata);
            }
            for rdata in new.rrsigs().filter(|rdata| missing(old, rdata)) {
                self.push(Sign::Added, new, Rtype::RRSIG, rdata);
            }
        }
    }

    /// Both have their records in canonical order.
    fn records(&mut self, old: &Rrset<'a>, new: &Rrset<'a>) {
        let rtype = old.rtype();
        let mut added = Vec::new();
        let (mut olds, mut news) = (old.rdatas().peekable(), new.rdatas().peekable());
        loop {
            let order = match (olds.peek(), news.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => rdata::canonical(rtype, a).cmp(&rdata::canonical(rtype, b)),
            };
            let gone = if order == Ordering::Greater { None } else { olds.next() };
            let come = if order == Ordering::Less { None } else { news.next() };
            if gone == come {
                continue;
            }
            if let Some(rdata) = gone {
                self.push(Sign::Removed, old, rtype, rdata);
            }
            added.extend(come);
        }
        for rdata in added {
            self.push(Sign::Added, new, rtype, rdata);
        }
    }

    fn push(&mut self, sign: Sign, rrset: &Rrset<'a>, rtype: Rtype, rdata: &'a [u8]) {
        let (owner, ttl_s) = (rrset.owner(), rrset.ttl_s());
        self.ready.push_back(Change { sign, owner, rtype, ttl_s, rdata });
    }
}

#[cfg(test)]
mod tests;
