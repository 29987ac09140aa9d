//! Making pages from sorted input.

use std::sync::Arc;

use super::{Counts, Node, Packed, PackedError, Page};
use crate::name;
use crate::rtype::Rtype;

/// Owners on a page: an edit copies one page, and a lookup searches within one; at a hundred
/// owners both cost microseconds, and the vector of pages stays at a hundredth of the zone.
pub const PAGE_OWNERS: usize = 100;

/// A page closes at this many octets even with few owners, so that large RRsets do not make the
/// copy of a page expensive.
pub const PAGE_BYTES: usize = 64 << 10;

/// Builds a [`Packed`] from owners in canonical order and RRsets in order of type.
pub struct Builder {
    pages: Vec<Arc<Page>>,
    page_owners: usize,
    /// Sort key of the last closed node.
    last_key: Option<Vec<u8>>,
    bytes: Vec<u8>,
    starts: Vec<u32>,
    counts: Counts,
    open: Option<Open>,
}

/// The node under construction, in `bytes`.
struct Open {
    start: usize,
    owner: std::ops::Range<usize>,
    /// Where the RRsets begin, after their length field.
    rrsets: usize,
    last_rtype: Option<Rtype>,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            pages: Vec::new(),
            page_owners: PAGE_OWNERS,
            last_key: None,
            bytes: Vec::new(),
            starts: Vec::new(),
            counts: Counts::default(),
            open: None,
        }
    }

    /// Begins the node of an owner, given in wire form. A node that gets no RRset vanishes.
    pub fn owner(&mut self, owner: &[u8]) -> Result<(), PackedError> {
        self.close_node()?;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        name::push_sort_key(owner, &mut self.bytes);
        let key_len = self.bytes.len() - start - 2;
        self.bytes[start..start + 2].copy_from_slice(&(key_len as u16).to_be_bytes());
        if self.last_key.as_deref().is_some_and(|last| last >= &self.bytes[start + 2..]) {
            self.bytes.truncate(start);
            return Err(PackedError::OutOfOrder(name::Shown(owner).to_string()));
        }
        self.bytes.push(owner.len() as u8);
        let owner_start = self.bytes.len();
        self.bytes.extend_from_slice(owner);
        let owner = owner_start..self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.open = Some(Open { start, owner, rrsets: self.bytes.len(), last_rtype: None });
        Ok(())
    }

    /// Adds an RRset to the node begun last. `spelled` is the owner in this RRset's own case;
    /// `rdatas` come in canonical order.
    pub fn rrset<'r, 's>(
        &mut self,
        spelled: &[u8],
        rtype: Rtype,
        ttl_s: u32,
        rdatas: impl IntoIterator<Item = &'r [u8]>,
        rrsigs: impl IntoIterator<Item = &'s [u8]>,
    ) -> Result<(), PackedError> {
        let shown = || format!("{} {rtype}", name::Shown(spelled));
        let Some(open) = &mut self.open else {
            return Err(PackedError::OutOfOrder(shown()));
        };
        let node_owner = &self.bytes[open.owner.clone()];
        if open.last_rtype.is_some_and(|last| last >= rtype) || !name::equal(node_owner, spelled) {
            return Err(PackedError::OutOfOrder(shown()));
        }
        let own: &[u8] = if node_owner == spelled { &[] } else { spelled };
        open.last_rtype = Some(rtype);
        let bytes = &mut self.bytes;
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&rtype.0.to_be_bytes());
        bytes.extend_from_slice(&ttl_s.to_be_bytes());
        bytes.push(own.len() as u8);
        bytes.extend_from_slice(own);
        let header = bytes.len();
        bytes.extend_from_slice(&[0; 6]);
        let records = push_items(bytes, rdatas).ok_or_else(|| PackedError::TooLarge(shown()))?;
        let (Ok(count), Ok(rdatas_len)) =
            (u16::try_from(records), u32::try_from(bytes.len() - header - 6))
        else {
            return Err(PackedError::TooLarge(shown()));
        };
        bytes[header..header + 2].copy_from_slice(&count.to_be_bytes());
        bytes[header + 2..header + 6].copy_from_slice(&rdatas_len.to_be_bytes());
        let signatures = push_items(bytes, rrsigs).ok_or_else(|| PackedError::TooLarge(shown()))?;
        if records == 0 {
            return Err(PackedError::Malformed("an RRset without records"));
        }
        let rest_len =
            u32::try_from(bytes.len() - start - 4).map_err(|_| PackedError::TooLarge(shown()))?;
        bytes[start..start + 4].copy_from_slice(&rest_len.to_be_bytes());
        self.counts.rrsets += 1;
        self.counts.records += records;
        self.counts.rrsigs += signatures;
        Ok(())
    }

    /// Adds a whole node, RRSIGs included, as it is elsewhere.
    pub fn node(&mut self, node: &Node<'_>) -> Result<(), PackedError> {
        self.owner(node.owner())?;
        for rrset in node.rrsets() {
            self.rrset(rrset.owner, rrset.rtype, rrset.ttl_s, rrset.rdatas(), rrset.rrsigs())?;
        }
        Ok(())
    }

    /// Pages from here on close at so many owners.
    pub(super) fn split_at(&mut self, page_owners: usize) {
        self.page_owners = page_owners;
    }

    /// Adds a page that other versions share, whole.
    pub(super) fn page(&mut self, page: &Arc<Page>) -> Result<(), PackedError> {
        self.close_node()?;
        self.close_page();
        let first = page.node(0);
        if self.last_key.as_deref().is_some_and(|last| last >= first.key()) {
            return Err(PackedError::OutOfOrder(name::Shown(first.owner()).to_string()));
        }
        self.last_key = Some(page.last_key().to_vec());
        self.pages.push(Arc::clone(page));
        Ok(())
    }

    /// The finished version.
    pub fn finish(mut self) -> Result<Packed, PackedError> {
        self.close_node()?;
        self.close_page();
        Ok(Packed { pages: self.pages.into() })
    }

    fn close_node(&mut self) -> Result<(), PackedError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        if open.last_rtype.is_none() {
            self.bytes.truncate(open.start);
            return Ok(());
        }
        let too_large =
            || PackedError::TooLarge(name::Shown(&self.bytes[open.owner.clone()]).to_string());
        let start = u32::try_from(open.start).map_err(|_| too_large())?;
        let len = u32::try_from(self.bytes.len() - open.rrsets).map_err(|_| too_large())?;
        self.bytes[open.rrsets - 4..open.rrsets].copy_from_slice(&len.to_be_bytes());
        self.starts.push(start);
        let key = &self.bytes[open.start + 2..open.owner.start - 1];
        let last_key = self.last_key.get_or_insert_default();
        last_key.clear();
        last_key.extend_from_slice(key);
        if self.starts.len() >= self.page_owners || self.bytes.len() >= PAGE_BYTES {
            self.close_page();
        }
        Ok(())
    }

    fn close_page(&mut self) {
        if self.starts.is_empty() {
            return;
        }
        self.counts.owners = self.starts.len();
        self.counts.bytes = self.bytes.len();
        self.pages.push(Arc::new(Page::from_parts(&self.bytes, &self.starts, self.counts)));
        self.bytes.clear();
        self.starts.clear();
        self.counts = Counts::default();
    }
}

/// Appends items and says how many; `None` where one is longer than its length field can say.
fn push_items<'r>(bytes: &mut Vec<u8>, items: impl IntoIterator<Item = &'r [u8]>) -> Option<usize> {
    let mut count = 0;
    for item in items {
        bytes.extend_from_slice(&u16::try_from(item.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(item);
        count += 1;
    }
    Some(count)
}
