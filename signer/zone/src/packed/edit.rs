//! Changing a version: the pages that change are copied, the others shared.

use std::collections::BTreeMap;

use super::{Builder, Node, PAGE_OWNERS, Packed, PackedError, Page};
use crate::name;
use crate::rtype::Rtype;

/// A new RRset in an edit.
struct NewRrset {
    owner: Vec<u8>,
    ttl_s: u32,
    rdatas: Vec<Vec<u8>>,
    rrsigs: Vec<Vec<u8>>,
}

/// Collects changes to a version; [`finish`](Self::finish) makes the next one.
pub struct Editor<'a> {
    base: &'a Packed,
    /// By sort key, then type; `None` removes.
    changes: BTreeMap<Vec<u8>, BTreeMap<Rtype, Option<NewRrset>>>,
}

impl<'a> Editor<'a> {
    pub(super) fn new(base: &'a Packed) -> Self {
        Self { base, changes: BTreeMap::new() }
    }

    /// Puts an RRset in place of the one of that owner and type, if there is one. `rdatas` come in
    /// canonical order.
    pub fn put(
        &mut self,
        owner: &[u8],
        rtype: Rtype,
        ttl_s: u32,
        rdatas: Vec<Vec<u8>>,
        rrsigs: Vec<Vec<u8>>,
    ) {
        let new = NewRrset { owner: owner.to_vec(), ttl_s, rdatas, rrsigs };
        self.changes.entry(name::sort_key(owner)).or_default().insert(rtype, Some(new));
    }

    /// Removes an RRset with its RRSIGs; nothing happens where there is none.
    pub fn remove(&mut self, owner: &[u8], rtype: Rtype) {
        self.changes.entry(name::sort_key(owner)).or_default().insert(rtype, None);
    }

    /// Makes the next version. Pages without a change are shared with the base.
    pub fn finish(self) -> Result<Packed, PackedError> {
        let mut builder = Builder::new();
        let mut changes: Vec<Change> = self.changes.into_iter().collect();
        let mut rest = changes.as_mut_slice();
        for (at, page) in self.base.pages.iter().enumerate() {
            // What follows the last page belongs to it, so that appending makes no small pages.
            let last = at + 1 == self.base.pages.len();
            let here = rest.partition_point(|(key, _)| last || key.as_slice() <= page.last_key());
            let (mine, later) = rest.split_at_mut(here);
            rest = later;
            if mine.is_empty() {
                builder.page(page)?;
            } else {
                change_page(&mut builder, page, mine)?;
            }
        }
        for (_, new) in rest {
            push_new(&mut builder, new)?;
        }
        builder.finish()
    }
}

type Change = (Vec<u8>, BTreeMap<Rtype, Option<NewRrset>>);

fn change_page(
    builder: &mut Builder,
    page: &Page,
    changes: &mut [Change],
) -> Result<(), PackedError> {
    // A page grows to half as much again before it splits, and then evenly: pages neither grow
    // without bound nor crumble.
    let owners = page.len() + changes.len();
    builder.split_at(owners.div_ceil(owners.div_ceil(PAGE_OWNERS * 3 / 2)));
    let mut changes = changes.iter_mut().peekable();
    for node in (0..page.len()).map(|at| page.node(at)) {
        while let Some((_, new)) = changes.next_if(|(key, _)| key.as_slice() < node.key()) {
            push_new(builder, new)?;
        }
        match changes.next_if(|(key, _)| key.as_slice() == node.key()) {
            Some((_, change)) => push_changed(builder, &node, std::mem::take(change))?,
            None => builder.node(&node)?,
        }
    }
    for (_, new) in changes {
        push_new(builder, new)?;
    }
    builder.split_at(PAGE_OWNERS);
    Ok(())
}

fn push_new(
    builder: &mut Builder,
    rrsets: &BTreeMap<Rtype, Option<NewRrset>>,
) -> Result<(), PackedError> {
    let Some(first) = rrsets.values().flatten().next() else { return Ok(()) };
    builder.owner(&first.owner)?;
    for (rtype, new) in rrsets {
        if let Some(new) = new {
            push_rrset(builder, *rtype, new)?;
        }
    }
    Ok(())
}

fn push_changed(
    builder: &mut Builder,
    node: &Node<'_>,
    mut changes: BTreeMap<Rtype, Option<NewRrset>>,
) -> Result<(), PackedError> {
    builder.owner(node.owner())?;
    for old in node.rrsets() {
        let later = changes.split_off(&old.rtype());
        for (rtype, new) in std::mem::replace(&mut changes, later) {
            if let Some(new) = new {
                push_rrset(builder, rtype, &new)?;
            }
        }
        match changes.remove(&old.rtype()) {
            None => {
                builder.rrset(old.owner(), old.rtype(), old.ttl_s(), old.rdatas(), old.rrsigs())?;
            }
            Some(Some(new)) => push_rrset(builder, old.rtype(), &new)?,
            Some(None) => {}
        }
    }
    for (rtype, new) in changes {
        if let Some(new) = new {
            push_rrset(builder, rtype, &new)?;
        }
    }
    Ok(())
}

fn push_rrset(builder: &mut Builder, rtype: Rtype, new: &NewRrset) -> Result<(), PackedError> {
    let rdatas = new.rdatas.iter().map(Vec::as_slice);
    let rrsigs = new.rrsigs.iter().map(Vec::as_slice);
    builder.rrset(&new.owner, rtype, new.ttl_s, rdatas, rrsigs)
}
