//! A version of a zone in memory: a sorted, paged, copy-on-write map from owner names to RRsets
//! with their RRSIGs, all as packed wire form.
//!
//! A page holds about [`build::PAGE_OWNERS`] owners in canonical order (RFC 4034 §6.1). A version
//! is a vector of shared pages, so cloning one is cheap, an edit copies only the pages that it
//! touches, and readers of an older version are never disturbed.
//!
//! A page is the concatenation of its nodes, integers big-endian:
//!
//! ```text
//! node   key_len u16 · sort key · owner_len u8 · owner (wire, case kept) · rrsets_len u32 · rrsets
//! rrset  rest_len u32 · rtype u16 · ttl_s u32 · own_len u8 · own owner · count u16 · rdatas_len u32 · rdatas · rrsigs
//! rdata  len u16 · octets                (rrsigs the same: RRSIG RDATA)
//! ```
//!
//! RRsets ascend by type. An RRset whose owner the primary spelled in another case than the node's
//! keeps its own spelling (`own owner`, empty where it is the node's). RRSIGs live with the RRset
//! that they cover, have its TTL (RFC 4034 §3), and are not RRsets of their own here.
//!
//! Every way to make a page checks its structure, so reading one never fails.

mod build;
mod edit;
mod iter;
mod page;

use std::sync::Arc;

use aws_lc_rs::digest;

pub use build::{Builder, PAGE_BYTES, PAGE_OWNERS};
pub use edit::Editor;
pub use iter::Iter;
pub use page::Page;
use page::Reader;

use crate::name;
use crate::rtype::Rtype;

/// What can't be packed, or bytes that are not a page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackedError {
    /// Owners must ascend in canonical order, RRsets of an owner by type, each once.
    #[error("{0} is out of order: owners ascend in canonical order and their RRsets by type")]
    OutOfOrder(String),
    /// More than its length field can say.
    #[error("{0} is too large to be packed")]
    TooLarge(String),
    /// Bytes that are not a page.
    #[error("not a page of a zone: {0}")]
    Malformed(&'static str),
}

/// A version of a zone: owner names in canonical order with their RRsets and RRSIGs.
#[derive(Clone, Default)]
pub struct Packed {
    pages: Arc<[Arc<Page>]>,
}

/// What a version holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Owner names.
    pub owners: usize,
    /// RRsets, those of RRSIGs not counted.
    pub rrsets: usize,
    /// Records, RRSIGs not counted.
    pub records: usize,
    /// RRSIG records.
    pub rrsigs: usize,
    /// Octets of all pages.
    pub bytes: usize,
}

impl Packed {
    /// Takes pages in order; each owner of a page precedes each of the next.
    pub fn from_pages(pages: Vec<Arc<Page>>) -> Result<Self, PackedError> {
        if pages.iter().any(|page| page.len() == 0) {
            return Err(PackedError::Malformed("a page without owners"));
        }
        for pair in pages.windows(2) {
            let next = pair[1].node(0);
            if pair[0].last_key() >= next.key() {
                return Err(PackedError::OutOfOrder(name::Shown(next.owner()).to_string()));
            }
        }
        Ok(Self { pages: pages.into() })
    }

    /// The pages, for storing them.
    pub fn pages(&self) -> &[Arc<Page>] {
        &self.pages
    }

    /// Whether it holds no owner.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// What it holds.
    pub fn counts(&self) -> Counts {
        self.pages.iter().fold(Counts::default(), |sum, page| {
            let counts = page.counts();
            Counts {
                owners: sum.owners + counts.owners,
                rrsets: sum.rrsets + counts.rrsets,
                records: sum.records + counts.records,
                rrsigs: sum.rrsigs + counts.rrsigs,
                bytes: sum.bytes + counts.bytes,
            }
        })
    }

    /// All owners in canonical order.
    pub fn iter(&self) -> Iter<'_> {
        Iter::all(&self.pages)
    }

    /// The node of an owner (wire form, any case).
    pub fn node(&self, owner: &[u8]) -> Option<Node<'_>> {
        self.node_by_key(&name::sort_key(owner))
    }

    /// The node whose sort key is `key`.
    pub fn node_by_key(&self, key: &[u8]) -> Option<Node<'_>> {
        self.at_or_after(key).next().filter(|node| node.key() == key)
    }

    /// The owners whose sort key is `key` or greater.
    pub fn at_or_after(&self, key: &[u8]) -> Iter<'_> {
        Iter::from(&self.pages, key)
    }

    /// The owners whose sort key is less than `key`; `next_back` walks from the nearest one.
    pub fn before(&self, key: &[u8]) -> Iter<'_> {
        Iter::until(&self.pages, key)
    }

    /// The owners below `owner`, itself not included.
    pub fn below(&self, owner: &[u8]) -> impl Iterator<Item = Node<'_>> {
        let key = name::sort_key(owner);
        let own = key.len();
        self.at_or_after(&key)
            .take_while(move |node| node.key().starts_with(&key))
            .filter(move |node| node.key().len() > own)
    }

    /// SHA-256 over all nodes in order: equal for equal content, however it is paged.
    pub fn digest(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        for page in self.pages.iter() {
            context.update(page.as_bytes());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    /// Starts an edit; `self` stays as it is.
    pub fn edit(&self) -> Editor<'_> {
        Editor::new(self)
    }
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Packed {
    /// Same content, however it is paged.
    fn eq(&self, other: &Self) -> bool {
        self.iter().map(|node| node.bytes).eq(other.iter().map(|node| node.bytes))
    }
}

impl Eq for Packed {}

impl<'a> IntoIterator for &'a Packed {
    type Item = Node<'a>;
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// An owner name with its RRsets.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    /// The whole node.
    bytes: &'a [u8],
    key: &'a [u8],
    owner: &'a [u8],
    rrsets: &'a [u8],
}

impl<'a> Node<'a> {
    /// The owner in wire form, case kept.
    pub fn owner(&self) -> &'a [u8] {
        self.owner
    }

    /// The owner's sort key.
    pub fn key(&self) -> &'a [u8] {
        self.key
    }

    /// Its RRsets, ascending by type.
    pub fn rrsets(&self) -> impl Iterator<Item = Rrset<'a>> + use<'a> {
        let mut rest = Reader(self.rrsets);
        let owner = self.owner;
        std::iter::from_fn(move || rest.rrset(owner))
    }

    /// Its RRset of one type.
    pub fn rrset(&self, rtype: Rtype) -> Option<Rrset<'a>> {
        self.rrsets().find(|rrset| rrset.rtype >= rtype).filter(|rrset| rrset.rtype == rtype)
    }

    /// Whether all of it is the same, octet for octet.
    pub(crate) fn same_octets(&self, other: &Node<'_>) -> bool {
        self.bytes == other.bytes
    }

    /// Whether it has an RRset of the type.
    pub fn has(&self, rtype: Rtype) -> bool {
        self.rrset(rtype).is_some()
    }
}

impl std::fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.rrsets()).finish()
    }
}

/// An RRset with the RRSIGs that cover it.
#[derive(Clone, Copy)]
pub struct Rrset<'a> {
    owner: &'a [u8],
    rtype: Rtype,
    ttl_s: u32,
    count: u16,
    rdatas: &'a [u8],
    rrsigs: &'a [u8],
}

impl<'a> Rrset<'a> {
    /// The owner in wire form, as the primary spelled it for this RRset.
    pub fn owner(&self) -> &'a [u8] {
        self.owner
    }

    /// The type.
    pub fn rtype(&self) -> Rtype {
        self.rtype
    }

    /// The TTL in seconds, of the RRset and of its RRSIGs.
    pub fn ttl_s(&self) -> u32 {
        self.ttl_s
    }

    /// How many records.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether it has no records; no RRset of a [`Packed`] is so.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// RDATA of each record, in canonical order and in the primary's form.
    pub fn rdatas(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        Items(self.rdatas)
    }

    /// RDATA of each RRSIG that covers it.
    pub fn rrsigs(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        Items(self.rrsigs)
    }

    /// Whether type, TTL and records are the same octet for octet; RRSIGs don't matter.
    pub fn same_records(&self, other: &Rrset<'_>) -> bool {
        self.rtype == other.rtype && self.ttl_s == other.ttl_s && self.rdatas == other.rdatas
    }
}

impl std::fmt::Debug for Rrset<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", name::Shown(self.owner), self.ttl_s, self.rtype)?;
        for rdata in self.rdatas() {
            write!(f, " {}", countersign_policy::key::to_hex(rdata))?;
        }
        write!(f, " rrsigs={}", self.rrsigs().count())
    }
}

/// Walks `len u16 · octets` items.
#[derive(Clone)]
struct Items<'a>(&'a [u8]);

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];
    fn next(&mut self) -> Option<&'a [u8]> {
        let mut reader = Reader(self.0);
        let len = reader.u16()?;
        let item = reader.take(usize::from(len))?;
        self.0 = reader.0;
        Some(item)
    }
}

#[cfg(test)]
mod tests;
