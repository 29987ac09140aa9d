//! The NSEC3 chain (RFC 5155 §7.1) with the parameters of RFC 9276: SHA-1, no salt, no extra
//! iterations. Owners are a Base 32 hash below the apex, so their canonical order is the order of
//! the hashes.

use aws_lc_rs::digest;

use countersign_policy::ZoneName;

use crate::bitmap::{push_bitmap, types_at};
use crate::cuts::{Standing, standings};
use crate::name;
use crate::packed::Packed;
use crate::rtype::Rtype;

/// Octets of a SHA-1 hash.
const HASH_BYTES: usize = 20;
/// The label of an NSEC3 owner: 20 octets in Base 32 with extended hex alphabet, and its length.
const LABEL_BYTES: usize = 33;
/// Longest apex that an NSEC3 owner fits below.
pub(crate) const APEX_BYTES_MAX: usize = name::NAME_BYTES_MAX - LABEL_BYTES;

/// NSEC3PARAM RDATA: algorithm 1, flags 0, iterations 0, salt of length 0 (RFC 9276 §3.1).
pub(crate) const NSEC3PARAM: [u8; 5] = [1, 0, 0, 0, 0];

/// Opt-Out (RFC 5155 §3.1.2.1).
const FLAG_OPT_OUT: u8 = 1;

/// Two names with one hash (RFC 5155 §7.1, step 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Collision(pub(crate) String, pub(crate) String);

/// The chain of a zone, by hash.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    links: Vec<Link<'a>>,
    bitmaps: Vec<u8>,
    opt_out: bool,
}

#[derive(Debug, Clone, Copy)]
struct Link<'a> {
    hash: [u8; HASH_BYTES],
    /// The name that was hashed.
    source: &'a [u8],
    /// Where its bitmap lies; an empty non-terminal has none.
    bitmap: (usize, u16),
}

impl<'a> Chain<'a> {
    /// Hashes every name of the zone that a chain names, empty non-terminals included; with
    /// opt-out neither insecure delegations nor the empty non-terminals that lead to nothing else.
    /// The apex gets RRsets of the types `made_at_apex` besides RRSIG.
    pub(crate) fn new(
        records: &'a Packed,
        apex: &ZoneName,
        opt_out: bool,
        made_at_apex: &[Rtype],
    ) -> Result<Self, Collision> {
        let made_at_apex = [made_at_apex, &[Rtype::RRSIG]].concat();
        let apex_key_len = name::sort_key(apex.as_wire()).len();
        let mut chain = Self { links: Vec::new(), bitmaps: Vec::new(), opt_out };
        // Sort key of the last name in the chain; what is above it is in the chain already.
        let mut last: &[u8] = &[];
        for (node, standing) in standings(records, apex) {
            let made: &[Rtype] = match standing {
                Standing::Hidden => continue,
                Standing::InsecureDelegation if opt_out => continue,
                Standing::InsecureDelegation => &[],
                Standing::Apex => &made_at_apex,
                Standing::Authoritative | Standing::SecureDelegation => &[Rtype::RRSIG],
            };
            let (mut key, mut owner) = (node.key(), node.owner());
            while let Some(parent) = name::parent(owner) {
                key = parent_key(key);
                if key.len() <= apex_key_len || last.starts_with(key) {
                    break;
                }
                // No node has this name: it would stand between the last one and this.
                owner = parent;
                chain.push(owner, &[]);
            }
            chain.push(node.owner(), &types_at(&node, standing, made));
            last = node.key();
        }
        chain.close()
    }

    /// Orders the links; two with one hash make no chain.
    fn close(mut self) -> Result<Self, Collision> {
        self.links.sort_unstable_by_key(|link| link.hash);
        let shown = |link: &Link<'_>| name::Shown(link.source).to_string();
        match self.links.windows(2).find(|pair| pair[0].hash == pair[1].hash) {
            Some(pair) => Err(Collision(shown(&pair[0]), shown(&pair[1]))),
            None => Ok(self),
        }
    }

    fn push(&mut self, source: &'a [u8], types: &[Rtype]) {
        let start = self.bitmaps.len();
        push_bitmap(types, &mut self.bitmaps);
        // At most 256 windows of 34 octets.
        let bitmap = (start, (self.bitmaps.len() - start) as u16);
        self.links.push(Link { hash: hash(source, 0, &[]), source, bitmap });
    }

    /// The chain's records in canonical order, their owners below `apex` as it is spelled.
    pub(crate) fn records(&self, apex: &[u8]) -> impl Iterator<Item = Nsec3> {
        let apex_key = name::sort_key(apex);
        let next = self.links.iter().cycle().skip(1);
        self.links.iter().zip(next).map(move |(link, next)| {
            let mut owner = Vec::with_capacity(LABEL_BYTES + apex.len());
            owner.push((LABEL_BYTES - 1) as u8);
            push_base32hex(&link.hash, &mut owner);
            let mut key = Vec::with_capacity(apex_key.len() + LABEL_BYTES);
            key.extend_from_slice(&apex_key);
            key.extend_from_slice(&owner[1..]);
            key.push(0);
            owner.extend_from_slice(apex);
            let (start, len) = link.bitmap;
            let bitmap = &self.bitmaps[start..start + usize::from(len)];
            let mut rdata = Vec::with_capacity(6 + HASH_BYTES + bitmap.len());
            rdata.extend_from_slice(&NSEC3PARAM);
            rdata[1] = if self.opt_out { FLAG_OPT_OUT } else { 0 };
            rdata.push(HASH_BYTES as u8);
            rdata.extend_from_slice(&next.hash);
            rdata.extend_from_slice(bitmap);
            Nsec3 { key, owner, rdata }
        })
    }
}

/// One record of the chain.
pub(crate) struct Nsec3 {
    /// Sort key of the owner.
    pub(crate) key: Vec<u8>,
    pub(crate) owner: Vec<u8>,
    pub(crate) rdata: Vec<u8>,
}

/// The sort key of the parent: in a key 0x00 ends labels and stands nowhere else.
fn parent_key(key: &[u8]) -> &[u8] {
    let without_end = &key[..key.len().saturating_sub(1)];
    let end = without_end.iter().rposition(|byte| *byte == 0).map_or(0, |at| at + 1);
    &key[..end]
}

/// RFC 5155 §5, over the lower-cased name.
fn hash(owner: &[u8], iterations: u16, salt: &[u8]) -> [u8; HASH_BYTES] {
    let sha1 = |input: &[u8]| {
        let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        context.update(input);
        context.update(salt);
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    };
    let mut lowered = [0; name::NAME_BYTES_MAX];
    let lowered = &mut lowered[..owner.len()];
    lowered.copy_from_slice(owner);
    lowered.make_ascii_lowercase();
    (0..iterations).fold(sha1(lowered), |hash, _| sha1(&hash))
}

/// Base 32 with extended hex alphabet, lower-case, no padding needed for 20 octets (RFC 4648 §7).
fn push_base32hex(hash: &[u8; HASH_BYTES], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    for group in hash.chunks_exact(5) {
        let bits = group.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
        out.extend((0..8).rev().map(|at| ALPHABET[(bits >> (5 * at) & 31) as usize]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::tests::wire;
    use crate::testing::admitted;

    /// RFC 5155 appendix A: salt aabbccdd, 12 iterations.
    #[test]
    fn hashes_of_rfc_5155() {
        for (owner, expect) in [
            ("example", "0p9mhaveqvm6t7vbl5lop2u3t2rp3tom"),
            ("a.example", "35mthgpgcu1qg68fab165klnsnk3dpvl"),
            ("ai.example", "gjeqe526plbf1g8mklp59enfd789njgi"),
            ("ns1.example", "2t7b4g4vsa5smi47k61mv5bv1a22bojr"),
            ("ns2.example", "q04jkcevqvmu85r014c7dkba38o0ji5r"),
            ("w.example", "k8udemvp1j2f7eg6jebps17vp3n8i58h"),
            ("*.w.example", "r53bq7cc2uvmubfu5ocmm6pers9tk9en"),
            ("x.w.example", "b4um86eghhds6nea196smvmlo4ors995"),
            ("y.w.example", "ji6neoaepv8b5o6k4ev33abha8ht9fgc"),
            ("x.y.w.example", "2vptu5timamqttgl4luu9kg21e0aor3s"),
            ("xx.Example", "t644ebqk9bibcna874givr6joj62mlhv"),
        ] {
            let mut text = Vec::new();
            push_base32hex(&hash(&wire(owner), 12, &[0xaa, 0xbb, 0xcc, 0xdd]), &mut text);
            assert_eq!(String::from_utf8(text).expect("ASCII"), expect, "{owner}");
        }
    }

    /// The names that the chain of a zone names, in canonical order, with their types.
    fn check(opt_out: bool, expect: &[(&str, &str)]) {
        let ns = || wire("ns.elsewhere.");
        let a = || vec![192, 0, 2, 1];
        let zone = admitted(vec![
            ("a.ent.example.", 60, Rtype::A, a()),
            ("b.ent.example.", 60, Rtype::A, a()),
            ("*.w.example.", 60, Rtype::A, a()),
            ("un.signed.example.", 60, Rtype::NS, ns()),
            ("glue.un.signed.example.", 60, Rtype::A, a()),
            ("un.mixed.example.", 60, Rtype::NS, ns()),
            ("z.mixed.example.", 60, Rtype::A, a()),
            ("un.a.deep.ent.example.", 60, Rtype::NS, ns()),
            ("safe.example.", 60, Rtype::NS, ns()),
            ("safe.example.", 60, Rtype::A, a()),
            ("safe.example.", 60, Rtype::DS, [&[0, 1, 13, 2][..], &[7; 32]].concat()),
        ]);
        let apex = "example.".parse().expect("name");
        let chain = Chain::new(zone.records(), &apex, opt_out, &[Rtype::DNSKEY, Rtype::NSEC3PARAM])
            .expect("no collision");
        let mut found: Vec<(Vec<u8>, String, String)> = chain
            .links
            .iter()
            .map(|link| {
                let (start, len) = link.bitmap;
                let types = types_of(&chain.bitmaps[start..start + usize::from(len)]);
                (name::sort_key(link.source), name::Shown(link.source).to_string(), types)
            })
            .collect();
        found.sort();
        let found: Vec<(&str, &str)> =
            found.iter().map(|(_, name, types)| (name.as_str(), types.as_str())).collect();
        assert_eq!(found, expect);
    }

    fn types_of(bitmap: &[u8]) -> String {
        let types = (0..=255u16).filter(|rtype| {
            bitmap.get(2 + usize::from(rtype / 8)).is_some_and(|o| o & (0x80 >> (rtype % 8)) != 0)
        });
        types.map(|rtype| Rtype(rtype).to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_full_chain_names_delegations_and_empty_non_terminals() {
        check(
            false,
            &[
                ("example.", "NS SOA RRSIG DNSKEY NSEC3PARAM"),
                ("ent.example.", ""),
                ("a.ent.example.", "A RRSIG"),
                ("b.ent.example.", "A RRSIG"),
                ("deep.ent.example.", ""),
                ("a.deep.ent.example.", ""),
                ("un.a.deep.ent.example.", "NS"),
                ("mixed.example.", ""),
                ("un.mixed.example.", "NS"),
                ("z.mixed.example.", "A RRSIG"),
                ("safe.example.", "NS DS RRSIG"),
                ("signed.example.", ""),
                ("un.signed.example.", "NS"),
                ("w.example.", ""),
                ("*.w.example.", "A RRSIG"),
            ],
        );
    }

    #[test]
    fn opt_out_leaves_out_what_leads_to_insecure_delegations_alone() {
        check(
            true,
            &[
                ("example.", "NS SOA RRSIG DNSKEY NSEC3PARAM"),
                ("ent.example.", ""),
                ("a.ent.example.", "A RRSIG"),
                ("b.ent.example.", "A RRSIG"),
                ("mixed.example.", ""),
                ("z.mixed.example.", "A RRSIG"),
                ("safe.example.", "NS DS RRSIG"),
                ("w.example.", ""),
                ("*.w.example.", "A RRSIG"),
            ],
        );
    }

    #[test]
    fn two_names_with_one_hash_make_no_chain() {
        let (a, b) = (wire("a.example."), wire("b.example."));
        let link = |source, last| {
            let mut hash = [7; HASH_BYTES];
            hash[19] = last;
            Link { hash, source, bitmap: (0, 0) }
        };
        let close = |links| Chain { links, bitmaps: vec![], opt_out: false }.close().err();
        assert_eq!(close(vec![link(&a, 1), link(&b, 2)]), None);
        let collision = Collision("a.example.".to_owned(), "b.example.".to_owned());
        assert_eq!(close(vec![link(&a, 1), link(&b, 1)]), Some(collision));
    }

    #[test]
    fn the_chain_closes_in_canonical_order() {
        let zone = admitted(vec![("a.b.example.", 60, Rtype::A, vec![1; 4])]);
        let apex = "example.".parse().expect("name");
        let chain = Chain::new(zone.records(), &apex, true, &[Rtype::DNSKEY, Rtype::NSEC3PARAM])
            .expect("no collision");
        let records: Vec<_> = chain.records(&wire("Example.")).collect();
        assert_eq!(records.len(), 3);
        assert!(records.is_sorted_by(|a, b| a.key < b.key));
        for (at, Nsec3 { key, owner, rdata }) in records.iter().enumerate() {
            crate::rdata::check(Rtype::NSEC3, rdata).expect("shape");
            assert_eq!(*key, name::sort_key(owner));
            assert_eq!((rdata[1], &owner[33..]), (1, &wire("Example.")[..]));
            let mut next = Vec::new();
            push_base32hex(rdata[6..26].try_into().expect("hash"), &mut next);
            assert_eq!(next, records[(at + 1) % 3].owner[1..33]);
        }
    }
}
