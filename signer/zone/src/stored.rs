//! A verified zone as octets, so that a restart shows it again at once and asks no HSM.
//!
//! Integers are big-endian:
//!
//! ```text
//! file  magic "CSGNZONE" · version u16 (1) · apex_len u8 · apex (wire) · serial u32 · pages u32 · page*
//! page  len u32 · checksum (8 octets: SHA-256 of the nodes, its first 8) · nodes (see `packed`)
//! ```
//!
//! The root hash covers name, serial and all nodes; it is [`VerifiedZone::digest`], kept apart from
//! the file by whoever stores it. A file with that root is the version that was verified; the
//! checksums only say where a damaged file is damaged. No field is trusted for its size: what a
//! length promises must be there before anything is allocated for it.

use std::sync::Arc;

use aws_lc_rs::digest;
use countersign_policy::ZoneName;
use countersign_policy::key::to_hex;

use crate::packed::{Packed, PackedError, Page};
pub use crate::verify::re_verify;
use crate::verify::{VerifiedZone, root};

const MAGIC: &[u8; 8] = b"CSGNZONE";
const VERSION: u16 = 1;
const CHECKSUM_OCTETS: usize = 8;

/// Octets that are not a stored zone, or not the one expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// Does not begin as a stored zone does.
    #[error("not a stored zone: it does not begin with CSGNZONE")]
    NotAZone,
    /// Of a later (or no) version of the form.
    #[error(
        "stored form {0}; this build reads {VERSION}. Sign the zone anew, or run a later build"
    )]
    Version(u16),
    /// Ends before what it promises, or goes on after it.
    #[error("the file is {0} than its own lengths say; it is truncated or damaged")]
    Length(&'static str),
    /// The apex is not a name.
    #[error("the apex is not a name; the file is damaged")]
    Apex,
    /// A page whose checksum is wrong.
    #[error("page {page} of {pages}, at octet {at}: checksum differs; the file is damaged there")]
    Checksum {
        /// Which page, from 1.
        page: u32,
        /// Of how many.
        pages: u32,
        /// Where its nodes begin.
        at: usize,
    },
    /// Whole, but another version than the one that was verified.
    #[error("root hash is {found}, expected {expected}: not the version that was verified")]
    Root {
        /// Of the file.
        found: String,
        /// As recorded.
        expected: String,
    },
    /// Octets that are not pages of a zone.
    #[error(transparent)]
    Packed(#[from] PackedError),
    /// Pages, but no signed zone of that name and serial.
    #[error("the pages are not a signed zone of the name and serial in the file's head")]
    NotSigned,
}

/// The stored form of a zone. Its root hash is [`VerifiedZone::digest`].
pub fn encode(zone: &VerifiedZone) -> Vec<u8> {
    let apex = zone.apex().as_wire();
    let pages = zone.records().pages();
    let octets: usize = pages.iter().map(|page| page.as_bytes().len() + 4 + CHECKSUM_OCTETS).sum();
    let mut out = Vec::with_capacity(MAGIC.len() + 11 + apex.len() + octets);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.push(apex.len() as u8);
    out.extend_from_slice(apex);
    out.extend_from_slice(&zone.serial().to_be_bytes());
    out.extend_from_slice(&(pages.len() as u32).to_be_bytes());
    for page in pages {
        let nodes = page.as_bytes();
        out.extend_from_slice(&(nodes.len() as u32).to_be_bytes());
        out.extend_from_slice(&checksum(nodes));
        out.extend_from_slice(nodes);
    }
    out
}

/// Reads a stored zone back. Its root hash stands in for verification, so `expected_root` must come
/// from where the version was recorded when it *was* verified; only the store may call this.
pub fn resume(bytes: &[u8], expected_root: [u8; 32]) -> Result<VerifiedZone, StoredError> {
    let parsed = Parsed::read(bytes)?;
    let found = parsed.root();
    if found != expected_root {
        return Err(StoredError::Root { found: to_hex(&found), expected: to_hex(&expected_root) });
    }
    let mut pages = Vec::with_capacity(parsed.pages.len());
    for nodes in &parsed.pages {
        pages.push(Arc::new(Page::from_bytes(nodes.to_vec())?));
    }
    let records = Packed::from_pages(pages)?;
    VerifiedZone::resumed(parsed.apex, parsed.serial, records).ok_or(StoredError::NotSigned)
}

/// The root hash of a file whose checksums are right: what [`resume`] will compare. It proves
/// nothing by itself.
pub fn root_of(bytes: &[u8]) -> Result<[u8; 32], StoredError> {
    Ok(Parsed::read(bytes)?.root())
}

/// A file taken apart; its pages are still octets.
struct Parsed<'a> {
    apex: ZoneName,
    serial: u32,
    pages: Vec<&'a [u8]>,
}

impl<'a> Parsed<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, StoredError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(StoredError::NotAZone)?;
        let mut rest = Reader(rest);
        match u16::from_be_bytes(rest.array()?) {
            VERSION => {}
            other => return Err(StoredError::Version(other)),
        }
        let [apex_len] = rest.array()?;
        let apex = ZoneName::from_wire(rest.take(usize::from(apex_len))?)
            .map_err(|_| StoredError::Apex)?;
        let serial = u32::from_be_bytes(rest.array()?);
        let count = u32::from_be_bytes(rest.array()?);
        // Grows with what is really there, whatever the count promises.
        let mut pages = Vec::new();
        for page in 1..=count {
            let len = u32::from_be_bytes(rest.array()?) as usize;
            let expected = rest.array::<CHECKSUM_OCTETS>()?;
            let at = bytes.len() - rest.0.len();
            let nodes = rest.take(len)?;
            if checksum(nodes) != expected {
                return Err(StoredError::Checksum { page, pages: count, at });
            }
            pages.push(nodes);
        }
        if rest.0.is_empty() {
            Ok(Self { apex, serial, pages })
        } else {
            Err(StoredError::Length("longer"))
        }
    }

    fn root(&self) -> [u8; 32] {
        root(&self.apex, self.serial, self.pages.iter().copied())
    }
}

fn checksum(nodes: &[u8]) -> [u8; CHECKSUM_OCTETS] {
    let mut checksum = [0; CHECKSUM_OCTETS];
    checksum.copy_from_slice(&digest::digest(&digest::SHA256, nodes).as_ref()[..CHECKSUM_OCTETS]);
    checksum
}

/// Takes octets from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], StoredError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(StoredError::Length("shorter"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoredError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(StoredError::Length("shorter"))?;
        self.0 = rest;
        Ok(*taken)
    }
}
