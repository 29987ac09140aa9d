//! One page: nodes back to back, and where each starts.

use super::{Counts, Items, Node, PackedError, Rrset};
use crate::name;
use crate::rtype::Rtype;

/// About a hundred owners. Immutable; shared between versions.
pub struct Page {
    bytes: Box<[u8]>,
    starts: Box<[u32]>,
    counts: Counts,
}

impl Page {
    /// Takes a page's octets, as [`as_bytes`](Self::as_bytes) gave them, and checks all of their
    /// structure: lengths, names, sort keys, order.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, PackedError> {
        let malformed = PackedError::Malformed;
        let mut starts = Vec::new();
        let mut counts = Counts { bytes: bytes.len(), ..Counts::default() };
        let mut last_key: &[u8] = &[];
        let mut rest = Reader(&bytes);
        while !rest.0.is_empty() {
            let start = u32::try_from(bytes.len() - rest.0.len())
                .map_err(|_| PackedError::TooLarge("a page".to_owned()))?;
            let node = rest.node().ok_or(malformed("a node ends early"))?;
            name::check_wire(node.owner).map_err(|_| malformed("an owner is not a name"))?;
            if name::sort_key(node.owner) != node.key {
                return Err(malformed("a sort key is not its owner's"));
            }
            if !starts.is_empty() && last_key >= node.key {
                return Err(PackedError::OutOfOrder(name::Shown(node.owner).to_string()));
            }
            check_rrsets(&node, &mut counts)?;
            last_key = node.key;
            starts.push(start);
        }
        counts.owners = starts.len();
        if starts.is_empty() {
            return Err(malformed("no owners"));
        }
        Ok(Self { bytes: bytes.into_boxed_slice(), starts: starts.into_boxed_slice(), counts })
    }

    /// For the builder, which has kept to the structure.
    pub(super) fn from_parts(bytes: &[u8], starts: &[u32], counts: Counts) -> Self {
        Self { bytes: bytes.into(), starts: starts.into(), counts }
    }

    /// The nodes' octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it holds.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    /// The node at a position below `len`.
    pub(crate) fn node(&self, at: usize) -> Node<'_> {
        let mut rest = Reader(&self.bytes[self.starts[at] as usize..]);
        // Every page was checked when it was made; an empty node stands for the impossible.
        rest.node().unwrap_or(Node { bytes: &[], key: &[], owner: &[0], rrsets: &[] })
    }

    /// Its nodes in order.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        (0..self.len()).map(|at| self.node(at))
    }

    pub(super) fn last_key(&self) -> &[u8] {
        self.node(self.starts.len() - 1).key
    }

    /// How many nodes have a sort key less than `key`.
    pub(super) fn rank(&self, key: &[u8]) -> usize {
        self.starts.partition_point(|start| {
            let mut rest = Reader(&self.bytes[*start as usize..]);
            rest.sized_u16().is_some_and(|own| own < key)
        })
    }
}

fn check_rrsets(node: &Node<'_>, counts: &mut Counts) -> Result<(), PackedError> {
    let malformed = PackedError::Malformed;
    let mut rest = Reader(node.rrsets);
    let mut last: Option<Rtype> = None;
    while !rest.0.is_empty() {
        let rrset = rest.rrset(node.owner).ok_or(malformed("an RRset ends early"))?;
        if last.is_some_and(|last| last >= rrset.rtype) {
            return Err(PackedError::OutOfOrder(name::Shown(node.owner).to_string()));
        }
        if !name::equal(rrset.owner, node.owner) {
            return Err(malformed("an RRset's own owner is another name"));
        }
        let rdatas = count_items(rrset.rdatas).ok_or(malformed("an RDATA ends early"))?;
        if rdatas == 0 || rdatas != rrset.len() {
            return Err(malformed("an RRset's count of records is wrong"));
        }
        counts.rrsigs += count_items(rrset.rrsigs).ok_or(malformed("an RRSIG ends early"))?;
        counts.records += rdatas;
        counts.rrsets += 1;
        last = Some(rrset.rtype);
    }
    if last.is_none() {
        return Err(malformed("an owner without RRsets"));
    }
    Ok(())
}

/// How many items fill `bytes` exactly.
fn count_items(bytes: &[u8]) -> Option<usize> {
    let mut items = Items(bytes);
    let count = items.by_ref().count();
    items.0.is_empty().then_some(count)
}

/// Reads packed octets from the front.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn sized_u16(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    fn sized_u32(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    pub(super) fn node(&mut self) -> Option<Node<'a>> {
        let whole = self.0;
        let key = self.sized_u16()?;
        let owner_len = self.u8()?;
        let owner = self.take(usize::from(owner_len))?;
        let rrsets = self.sized_u32()?;
        Some(Node { bytes: &whole[..whole.len() - self.0.len()], key, owner, rrsets })
    }

    pub(super) fn rrset(&mut self, node_owner: &'a [u8]) -> Option<Rrset<'a>> {
        let mut body = Reader(self.sized_u32()?);
        let rtype = Rtype(body.u16()?);
        let ttl_s = body.u32()?;
        let own_len = body.u8()?;
        let own = body.take(usize::from(own_len))?;
        let count = body.u16()?;
        let rdatas = body.sized_u32()?;
        let owner = if own.is_empty() { node_owner } else { own };
        Some(Rrset { owner, rtype, ttl_s, count, rdatas, rrsigs: body.0 })
    }
}
