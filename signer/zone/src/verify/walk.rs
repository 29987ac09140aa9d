//! Zone cuts as the verifier finds them: what is authoritative, what delegates, what is glue or
//! occluded (RFC 1034 §4.2.1, RFC 4035 §2, RFC 6672 §2.4).

use super::names;
use crate::packed::{Iter, Node, Packed, Page, Rrset};
use crate::rtype::Rtype;

/// Where an owner stands in its zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The zone's own name.
    Apex,
    /// Authoritative data.
    Authoritative,
    /// The parent side of a zone cut: NS below the apex. Authoritative for DS and NSEC alone.
    Delegation,
    /// Below a cut or below a DNAME.
    Occluded,
}

/// An owner and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Visit<'a> {
    pub(super) node: Node<'a>,
    pub(super) standing: Standing,
}

impl<'a> Visit<'a> {
    pub(super) fn owner(&self) -> &'a [u8] {
        self.node.owner()
    }

    /// Whether RRsets of the type must be signed here, and others must not (RFC 4035 §2.2).
    pub(super) fn signs(&self, rtype: Rtype) -> bool {
        match self.standing {
            // A hashed owner name is authoritative wherever its label happens to sort.
            _ if rtype == Rtype::NSEC3 => true,
            Standing::Apex | Standing::Authoritative => true,
            Standing::Delegation => matches!(rtype, Rtype::DS | Rtype::NSEC),
            Standing::Occluded => false,
        }
    }

    /// The RRsets that the owner has of itself: all but NSEC3, whose owner is a hash
    /// (RFC 5155 §7.1).
    fn own_rrsets(&self) -> impl Iterator<Item = Rrset<'a>> + use<'a> {
        self.node.rrsets().filter(|rrset| rrset.rtype() != Rtype::NSEC3)
    }

    /// Whether the name exists in the zone for a reason other than denial of existence, and the
    /// zone answers for it.
    pub(super) fn is_denied_for(&self) -> bool {
        self.standing != Standing::Occluded
            && self.own_rrsets().any(|rrset| rrset.rtype() != Rtype::NSEC)
    }

    /// A delegation without a DS.
    pub(super) fn is_insecure_delegation(&self) -> bool {
        self.standing == Standing::Delegation && !self.node.has(Rtype::DS)
    }

    /// The types that a bitmap for this name must list, ascending (RFC 4034 §4.1.2, RFC 4035
    /// §2.3, RFC 5155 §7.1): everything the zone is authoritative for, the NS of a delegation, and RRSIG
    /// where anything is signed.
    pub(super) fn bitmap_types(&self) -> Vec<Rtype> {
        let mut types: Vec<Rtype> = self
            .own_rrsets()
            .map(|rrset| rrset.rtype())
            .filter(|rtype| self.signs(*rtype) || *rtype == Rtype::NS)
            .collect();
        if types.iter().any(|rtype| self.signs(*rtype)) {
            let at = types.partition_point(|rtype| *rtype < Rtype::RRSIG);
            types.insert(at, Rtype::RRSIG);
        }
        types
    }
}

/// Owners in order, each with its standing.
pub(super) struct Walk<'a, I> {
    nodes: I,
    apex: &'a [u8],
    /// The cut or DNAME that was met last: names below it follow at once in canonical order.
    cut: Option<&'a [u8]>,
}

impl<'a> Walk<'a, Iter<'a>> {
    /// The whole zone.
    pub(super) fn of(records: &'a Packed, apex: &'a [u8]) -> Self {
        Walk { nodes: records.iter(), apex, cut: None }
    }
}

/// The owners of one page of `records`.
pub(super) fn walk_page<'a>(
    records: &'a Packed,
    page: &'a Page,
    apex: &'a [u8],
) -> Walk<'a, impl Iterator<Item = Node<'a>>> {
    let cut = page.nodes().next().and_then(|first| cut_above(records, first.owner(), apex));
    Walk { nodes: page.nodes(), apex, cut }
}

/// The highest cut or DNAME strictly above `owner`.
fn cut_above<'a>(records: &'a Packed, owner: &[u8], apex: &[u8]) -> Option<&'a [u8]> {
    let below_apex = names::label_count(owner).checked_sub(names::label_count(apex))?;
    let mut found = None;
    let mut ancestor = names::parent(owner)?;
    for _ in 0..below_apex {
        if let Some(node) = records.node(ancestor)
            && cuts(&node, apex)
        {
            found = Some(node.owner());
        }
        ancestor = match names::parent(ancestor) {
            Some(next) => next,
            None => break,
        };
    }
    found
}

/// Whether what is below this node is no longer the zone's to answer for.
fn cuts(node: &Node<'_>, apex: &[u8]) -> bool {
    node.has(Rtype::DNAME) || (node.has(Rtype::NS) && !node.owner().eq_ignore_ascii_case(apex))
}

impl<'a, I: Iterator<Item = Node<'a>>> Iterator for Walk<'a, I> {
    type Item = Visit<'a>;

    fn next(&mut self) -> Option<Visit<'a>> {
        let node = self.nodes.next()?;
        let owner = node.owner();
        if self.cut.is_some_and(|cut| names::is_at_or_below(owner, cut)) {
            return Some(Visit { node, standing: Standing::Occluded });
        }
        self.cut = cuts(&node, self.apex).then_some(owner);
        let standing = if owner.eq_ignore_ascii_case(self.apex) {
            Standing::Apex
        } else if node.has(Rtype::NS) {
            Standing::Delegation
        } else {
            Standing::Authoritative
        };
        Some(Visit { node, standing })
    }
}
