//! Walking a version from either end.

use std::sync::Arc;

use super::{Node, Page};

/// Owners in canonical order; double-ended.
#[derive(Clone)]
pub struct Iter<'a> {
    pages: &'a [Arc<Page>],
    /// The next from the front: page, and node in it.
    front: (usize, usize),
    /// One past the next from the back, in the same terms; its node is 0 only at the very start
    /// of what is left.
    back: (usize, usize),
}

impl<'a> Iter<'a> {
    pub(super) fn all(pages: &'a [Arc<Page>]) -> Self {
        Self { pages, front: (0, 0), back: (pages.len(), 0) }
    }

    pub(super) fn from(pages: &'a [Arc<Page>], key: &[u8]) -> Self {
        Self { front: position(pages, key), ..Self::all(pages) }
    }

    pub(super) fn until(pages: &'a [Arc<Page>], key: &[u8]) -> Self {
        Self { back: position(pages, key), ..Self::all(pages) }
    }
}

/// Where the first node stands whose key is `key` or greater.
fn position(pages: &[Arc<Page>], key: &[u8]) -> (usize, usize) {
    let page = pages.partition_point(|page| page.last_key() < key);
    (page, pages.get(page).map_or(0, |page| page.rank(key)))
}

impl<'a> Iterator for Iter<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        if self.front >= self.back {
            return None;
        }
        let (page, node) = self.front;
        let found = self.pages[page].node(node);
        self.front =
            if node + 1 < self.pages[page].len() { (page, node + 1) } else { (page + 1, 0) };
        Some(found)
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        let (page, node) = match self.back {
            (page, 0) => (page - 1, self.pages[page - 1].len() - 1),
            (page, node) => (page, node - 1),
        };
        self.back = (page, node);
        Some(self.pages[page].node(node))
    }
}
