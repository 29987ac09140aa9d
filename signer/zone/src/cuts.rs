//! Zone cuts: which names the zone is authoritative for (RFC 1034 §4.2, RFC 4035 §2.2), which are
//! delegations, and which are hidden below a delegation or a DNAME (RFC 6672 §2.4) and so neither
//! signed nor in a chain of denial.

use countersign_policy::ZoneName;

use crate::packed::{Iter, Node, Packed};
use crate::rtype::Rtype;

/// How a zone stands to one of its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The zone's own name.
    Apex,
    /// Authoritative: every RRset is signed.
    Authoritative,
    /// A delegation with DS: DS is signed, NS is not.
    SecureDelegation,
    /// A delegation without DS: nothing of it is signed, but NSEC names it.
    InsecureDelegation,
    /// Below a delegation (glue) or a DNAME: it passes through and is not signed.
    Hidden,
}

impl Standing {
    /// Whether an RRset of this type at such a name is signed (RFC 4035 §2.2). The signer's own
    /// NSEC and NSEC3 always are, wherever they stand.
    pub fn signs(self, rtype: Rtype) -> bool {
        match self {
            Self::Apex | Self::Authoritative => true,
            Self::SecureDelegation | Self::InsecureDelegation => {
                matches!(rtype, Rtype::DS | Rtype::NSEC | Rtype::NSEC3)
            }
            Self::Hidden => rtype == Rtype::NSEC3,
        }
    }

    /// Whether the name is a delegation.
    pub fn is_delegation(self) -> bool {
        matches!(self, Self::SecureDelegation | Self::InsecureDelegation)
    }
}

/// All names of a zone in canonical order, each with its standing.
pub fn standings<'a>(records: &'a Packed, apex: &ZoneName) -> Standings<'a> {
    Standings {
        nodes: records.iter(),
        apex_key_len: crate::name::sort_key(apex.as_wire()).len(),
        hiding: None,
    }
}

/// The iterator of [`standings`].
#[derive(Clone)]
pub struct Standings<'a> {
    nodes: Iter<'a>,
    apex_key_len: usize,
    /// Sort key of the delegation or DNAME that hides what is below it. Names below follow it at
    /// once, since their keys begin with its key.
    hiding: Option<&'a [u8]>,
}

impl<'a> Iterator for Standings<'a> {
    type Item = (Node<'a>, Standing);

    fn next(&mut self) -> Option<Self::Item> {
        let node = self.nodes.next()?;
        if self.hiding.is_some_and(|hiding| node.key().starts_with(hiding)) {
            return Some((node, Standing::Hidden));
        }
        let is_apex = node.key().len() == self.apex_key_len;
        let standing = match (is_apex, node.has(Rtype::NS), node.has(Rtype::DS)) {
            (true, _, _) => Standing::Apex,
            (false, false, _) => Standing::Authoritative,
            (false, true, true) => Standing::SecureDelegation,
            (false, true, false) => Standing::InsecureDelegation,
        };
        self.hiding = (standing.is_delegation() || node.has(Rtype::DNAME)).then_some(node.key());
        Some((node, standing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{Shown, tests::wire};
    use crate::packed::Builder;

    fn check(names: &[(&str, &[Rtype])], expect: &[(&str, Standing)]) {
        let mut builder = Builder::new();
        for (name, rtypes) in names {
            builder.owner(&wire(name)).expect("in order");
            for rtype in *rtypes {
                builder.rrset(&wire(name), *rtype, 60, [&[0][..]], []).expect("in order");
            }
        }
        let packed = builder.finish().expect("small");
        let found: Vec<(String, Standing)> = standings(&packed, &"example.".parse().expect("name"))
            .map(|(node, standing)| (Shown(node.owner()).to_string(), standing))
            .collect();
        let expect: Vec<_> = expect.iter().map(|(name, s)| ((*name).to_owned(), *s)).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn each_name_has_its_standing() {
        check(
            &[
                ("example.", &[Rtype::NS, Rtype::SOA]),
                ("a.example.", &[Rtype::NS]),
                ("deep.a.example.", &[Rtype::NS, Rtype::DS]),
                ("a-b.example.", &[Rtype::A]),
                ("b.example.", &[Rtype::NS, Rtype::DS]),
                ("ns.b.example.", &[Rtype::A]),
                ("d.example.", &[Rtype::DNAME]),
                ("x.d.example.", &[Rtype::A]),
                ("e.example.", &[Rtype::A]),
                ("x.e.example.", &[Rtype::A]),
            ],
            &[
                ("example.", Standing::Apex),
                ("a.example.", Standing::InsecureDelegation),
                ("deep.a.example.", Standing::Hidden),
                ("a-b.example.", Standing::Authoritative),
                ("b.example.", Standing::SecureDelegation),
                ("ns.b.example.", Standing::Hidden),
                ("d.example.", Standing::Authoritative),
                ("x.d.example.", Standing::Hidden),
                ("e.example.", Standing::Authoritative),
                ("x.e.example.", Standing::Authoritative),
            ],
        );
    }
}
