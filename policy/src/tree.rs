//! The ledger's Merkle tree (RFC 6962 §2.1): a leaf is a line's bytes without its newline. One
//! [`TreeHead`] commits to every line before it, and a short proof (RFC 9162 §2.1.3) shows to
//! someone who holds nothing but a head that a line is in the ledger. That a later ledger goes on from an
//! earlier one is told by folding it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use crate::key::{from_hex, to_hex};
use crate::ledger::decimal;

/// Before a leaf's bytes, so that no leaf can pass for a node (RFC 6962 §2.1).
const LEAF: u8 = 0;

/// Before a node's two children.
const NODE: u8 = 1;

/// Hashes in one shared chunk of a level (32 KiB). Larger makes a push after a clone copy more,
/// smaller makes the clone itself count up more references.
const CHUNK_HASHES: usize = 1024;

/// A SHA-256 hash. Its text form is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(pub [u8; 32]);

/// A text that is not a [`struct@Hash`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 lower-case hexadecimal digits")]
pub struct HashError;

impl Hash {
    /// SHA-256 of `bytes`, with no prefix.
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_parts(&[bytes])
    }

    /// The hash of a leaf: SHA-256(0x00 ‖ line).
    pub fn leaf(line: &[u8]) -> Self {
        Self::of_parts(&[&[LEAF], line])
    }

    /// The hash of a node: SHA-256(0x01 ‖ left ‖ right).
    fn node(left: Self, right: Self) -> Self {
        Self::of_parts(&[&[NODE], &left.0, &right.0])
    }

    fn of_parts(parts: &[&[u8]]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in parts {
            context.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Self(hash)
    }
}

impl FromStr for Hash {
    type Err = HashError;
    fn from_str(text: &str) -> Result<Self, HashError> {
        let bytes = from_hex(text).ok_or(HashError)?;
        Ok(Self(bytes.try_into().map_err(|_| HashError)?))
    }
}

impl TryFrom<String> for Hash {
    type Error = HashError;
    fn try_from(text: String) -> Result<Self, HashError> {
        text.parse()
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// What a ledger of `size` lines is, whole. Its text form is `SIZE ROOT`, the size in decimal
/// without leading zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeHead {
    /// Lines.
    #[serde(with = "decimal")]
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// A text that is not a [`TreeHead`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a tree head is a decimal size without leading zeros, a space, and 64 lower-case hexadecimal digits"
)]
pub struct TreeHeadError;

impl FromStr for TreeHead {
    type Err = TreeHeadError;
    fn from_str(text: &str) -> Result<Self, TreeHeadError> {
        let (size, root) = text.split_once(' ').ok_or(TreeHeadError)?;
        Ok(Self {
            size: decimal::parse(size).ok_or(TreeHeadError)?,
            root: root.parse().map_err(|_| TreeHeadError)?,
        })
    }
}

impl fmt::Display for TreeHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.size, self.root)
    }
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The line would be behind the tree's end.
    #[error("line {index} is not among the {size} lines of the tree")]
    Outside {
        /// The line.
        index: u64,
        /// The tree's size.
        size: u64,
    },
    /// More or fewer hashes than trees of these sizes need.
    #[error("the proof has {0} hashes, which is not the number that trees of this size need")]
    Length(usize),
    /// The hashes lead to another root.
    #[error("the proof leads to root {found}, expected {expected}")]
    Root {
        /// Where the proof leads.
        found: Hash,
        /// The root of the head.
        expected: Hash,
    },
}

/// The tree of a whole ledger. It only grows.
///
/// It keeps the root of each complete subtree, by level: 64 octets a line in all. Chunks of them
/// are shared between clones.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// `levels[k]`'s entry `i` is the root over the lines `i·2^k .. (i+1)·2^k`.
    levels: Vec<Level>,
}

#[derive(Debug, Clone, Default)]
struct Level {
    /// All but the last hold [`CHUNK_HASHES`].
    chunks: Vec<Arc<Vec<Hash>>>,
}

impl Level {
    fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK_HASHES + last.len())
    }

    fn at(&self, index: usize) -> Hash {
        self.chunks[index / CHUNK_HASHES][index % CHUNK_HASHES]
    }

    fn push(&mut self, hash: Hash) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK_HASHES => Arc::make_mut(last).push(hash),
            _ => self.chunks.push(Arc::new(vec![hash])),
        }
    }
}

impl Tree {
    /// The tree of no lines.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a line, given without its newline.
    pub fn push(&mut self, line: &[u8]) {
        let mut hash = Hash::leaf(line);
        for k in 0.. {
            if k == self.levels.len() {
                self.levels.push(Level::default());
            }
            let level = &mut self.levels[k];
            level.push(hash);
            let len = level.len();
            if !len.is_multiple_of(2) {
                return;
            }
            hash = Hash::node(level.at(len - 2), level.at(len - 1));
        }
    }

    /// How many lines it has.
    pub fn len(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size and root.
    pub fn head(&self) -> TreeHead {
        let size = self.len();
        TreeHead { size, root: self.range_root(0, size) }
    }

    /// The root over the first `size` lines; `None` if there are fewer.
    pub fn root_at(&self, size: u64) -> Option<Hash> {
        (size <= self.len()).then(|| self.range_root(0, size))
    }

    /// Whether this tree's first lines are those of `head`.
    pub fn contains(&self, head: &TreeHead) -> bool {
        self.root_at(head.size) == Some(head.root)
    }

    /// The proof that line `index` is in the tree of the first `size` lines, for
    /// [`verify_inclusion`]: RFC 6962's PATH(index, D\[size\]). `None` if there is no such line.
    pub fn inclusion(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
        if index >= size || size > self.len() {
            return None;
        }
        let (mut begin, mut end, mut proof) = (0, size, Vec::new());
        while end - begin > 1 {
            let middle = begin + largest_power_below(end - begin);
            if index < middle {
                proof.push(self.range_root(middle, end));
                end = middle;
            } else {
                proof.push(self.range_root(begin, middle));
                begin = middle;
            }
        }
        proof.reverse();
        Some(proof)
    }

    /// MTH(D\[begin:end\]), `end` within the tree and `begin` a multiple of a power of two that is
    /// no less than the length: as every range of RFC 6962's recursion is. Such a range is a row
    /// of complete subtrees, the largest first.
    fn range_root(&self, begin: u64, end: u64) -> Hash {
        let (mut root, mut end) = (None, end);
        while end > begin {
            // Right to left: the smallest subtree ends the range.
            let k = (end - begin).trailing_zeros();
            end -= 1 << k;
            let subtree = self.levels[k as usize].at((end >> k) as usize);
            root = Some(root.map_or(subtree, |right| Hash::node(subtree, right)));
        }
        root.unwrap_or_else(|| Hash::of(&[]))
    }
}

/// The largest power of two smaller than `n`, which is at least 2.
fn largest_power_below(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// Proves that line `index` of the ledger with `head` is `line` (RFC 9162 §2.1.3.2). The head is
/// to be from a verified checkpoint: trees of several sizes have such a path to the same root, so
/// that a proof alone says nothing of the size.
pub fn verify_inclusion(
    head: &TreeHead,
    index: u64,
    line: &[u8],
    proof: &[Hash],
) -> Result<(), ProofError> {
    if index >= head.size {
        return Err(ProofError::Outside { index, size: head.size });
    }
    let mut climb = Climb { node: index, last: head.size - 1 };
    let mut root = Hash::leaf(line);
    for hash in proof {
        root = match climb.step().ok_or(ProofError::Length(proof.len()))? {
            Sibling::Left => Hash::node(*hash, root),
            Sibling::Right => Hash::node(root, *hash),
        };
    }
    climb.finished(proof)?;
    expect_root(root, head.root)
}

fn expect_root(found: Hash, expected: Hash) -> Result<(), ProofError> {
    if found == expected { Ok(()) } else { Err(ProofError::Root { found, expected }) }
}

/// The way from a leaf up to the root: RFC 9162's `fn` and `sn`.
struct Climb {
    /// The node's number in its level.
    node: u64,
    /// The number of the level's last node.
    last: u64,
}

/// On which side of the node the next hash of the proof stands.
enum Sibling {
    Left,
    Right,
}

impl Climb {
    /// One level up, or several where the node has no sibling. `None` at the root.
    fn step(&mut self) -> Option<Sibling> {
        if self.last == 0 {
            return None;
        }
        let sibling = if self.node & 1 == 1 || self.node == self.last {
            while self.node & 1 == 0 && self.node != 0 {
                self.up();
            }
            Sibling::Left
        } else {
            Sibling::Right
        };
        self.up();
        Some(sibling)
    }

    fn up(&mut self) {
        self.node >>= 1;
        self.last >>= 1;
    }

    fn finished(&self, proof: &[Hash]) -> Result<(), ProofError> {
        if self.last == 0 { Ok(()) } else { Err(ProofError::Length(proof.len())) }
    }
}

#[cfg(test)]
mod tests;
