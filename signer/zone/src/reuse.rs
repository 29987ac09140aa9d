//! Which signatures of the previous version serve for the next one: those over the same records,
//! by a key that is still published, and as good as a new one (see `terms`).

use std::iter::Peekable;

use countersign_policy::ZoneName;

use crate::packed::{Iter, Node, Packed, Rrset};
use crate::rtype::Rtype;
use crate::tbs::Signer;
use crate::terms::{Duty, Terms};

/// The previous version, walked alongside the next one.
pub(crate) struct Previous<'a> {
    nodes: Option<Peekable<Iter<'a>>>,
    /// DNSKEY RDATA of its keys. Among them tags are distinct, so algorithm and tag name a key.
    dnskeys: Vec<&'a [u8]>,
    rule: Rule<'a>,
}

struct Rule<'a> {
    apex: &'a ZoneName,
    now: u32,
    terms: Terms,
}

impl<'a> Previous<'a> {
    pub(crate) fn new(
        previous: Option<&'a Packed>,
        apex: &'a ZoneName,
        terms: Terms,
        now_s: u64,
    ) -> Self {
        let node = previous.and_then(|records| records.node(apex.as_wire()));
        let dnskeys = node.and_then(|node| node.rrset(Rtype::DNSKEY));
        Self {
            nodes: previous.map(|records| records.iter().peekable()),
            dnskeys: dnskeys.into_iter().flat_map(|rrset| rrset.rdatas()).collect(),
            rule: Rule {
                apex,
                now: now_s as u32, // modulo 2^32, as RRSIG times are
                terms,
            },
        }
    }

    /// The node of a sort key; ask in ascending order.
    pub(crate) fn node(&mut self, key: &[u8]) -> Option<Node<'a>> {
        let nodes = self.nodes.as_mut()?;
        while nodes.next_if(|node| node.key() < key).is_some() {}
        nodes.peek().filter(|node| node.key() == key).copied()
    }

    /// The signature over `rrset` by `signer` that can stay.
    pub(crate) fn signature(&self, rrset: &Rrset<'a>, signer: &Signer) -> Option<&'a [u8]> {
        self.dnskeys.contains(&signer.dnskey.as_slice()).then(|| {
            let duty = Duty::of(rrset.rtype());
            rrset.rrsigs().find(|rrsig| self.rule.allows(rrsig, signer, duty))
        })?
    }
}

impl Rule<'_> {
    fn allows(&self, rrsig: &[u8], signer: &Signer, duty: Duty) -> bool {
        let Some((fields, rest)) = rrsig.split_first_chunk::<18>() else { return false };
        let u32_at = |at: usize| {
            u32::from_be_bytes([fields[at], fields[at + 1], fields[at + 2], fields[at + 3]])
        };
        let apex = self.apex.as_wire();
        let by_signer = fields[2] == signer.algorithm.number()
            && fields[16..] == signer.tag.to_be_bytes()
            && rest.len() == apex.len() + signer.signature_len
            && rest.starts_with(apex);
        let (expiration, inception) = (u32_at(8), u32_at(12));
        by_signer && self.terms.of(duty).keeps(inception, expiration, self.now)
    }
}
