//! The NSEC chain (RFC 4034 §4): each name of the zone that is not hidden, in canonical order,
//! points at the next one, the last at the apex. Empty non-terminals have no NSEC.

use countersign_policy::ZoneName;

use crate::bitmap::{push_bitmap, types_at};
use crate::cuts::{Standing, Standings, standings};
use crate::packed::{Node, Packed};
use crate::rtype::Rtype;

/// Walks the chain of a zone, name by name.
pub(crate) struct Chain<'a> {
    /// One name ahead of the caller.
    ahead: Standings<'a>,
    apex: &'a [u8],
    /// What the signer adds at the apex, the types of every signed name included.
    made_at_apex: Vec<Rtype>,
}

impl<'a> Chain<'a> {
    /// The chain of `records`, whose apex node spells its owner `apex` and gets RRsets of the
    /// types `made_at_apex` besides RRSIG and NSEC.
    pub(crate) fn new(
        records: &'a Packed,
        zone: &ZoneName,
        apex: &'a [u8],
        made_at_apex: &[Rtype],
    ) -> Self {
        let made_at_apex = [made_at_apex, &[Rtype::RRSIG, Rtype::NSEC]].concat();
        let mut chain = Self { ahead: standings(records, zone), apex, made_at_apex };
        chain.advance();
        chain
    }

    /// The next name that is in the chain; the apex after the last.
    fn advance(&mut self) -> &'a [u8] {
        let visible = self.ahead.find(|(_, standing)| *standing != Standing::Hidden);
        visible.map_or(self.apex, |(node, _)| node.owner())
    }

    /// NSEC RDATA of the chain's next name, which is `node`. Call it for every name of the zone
    /// that is not hidden, in order.
    pub(crate) fn rdata(&mut self, node: &Node<'_>, standing: Standing) -> Vec<u8> {
        // Lower-case, so that it does not matter to a validator that still lower-cases this name
        // for the canonical form, as RFC 4034 §6.2 asked before RFC 6840 §5.1 (length octets are
        // below 'A').
        let mut rdata = self.advance().to_ascii_lowercase();
        let made: &[Rtype] = match standing {
            Standing::Apex => &self.made_at_apex,
            _ => &[Rtype::RRSIG, Rtype::NSEC],
        };
        push_bitmap(&types_at(node, standing, made), &mut rdata);
        rdata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{Shown, tests::wire};
    use crate::rdata;
    use crate::testing::admitted;

    #[test]
    fn each_visible_name_points_at_the_next() {
        let a = || vec![192, 0, 2, 1];
        let zone = admitted(vec![
            ("B.example.", 60, Rtype::A, a()),
            ("a.example.", 60, Rtype::NS, wire("ns.a.example.")),
            ("a.example.", 60, Rtype::A, a()),
            ("ns.a.example.", 60, Rtype::A, a()),
            ("x.ent.example.", 60, Rtype(1234), vec![]),
        ]);
        let apex = "example.".parse().expect("name");
        let owner = wire("example.");
        let mut chain = Chain::new(zone.records(), &apex, &owner, &[Rtype::DNSKEY]);
        let mut found = Vec::new();
        for (node, standing) in standings(zone.records(), &apex) {
            if standing != Standing::Hidden {
                let rdata = chain.rdata(&node, standing);
                rdata::check(Rtype::NSEC, &rdata).expect("shape");
                let next = crate::name::wire_len(&rdata).expect("name");
                found.push(format!(
                    "{} {} {}",
                    Shown(node.owner()),
                    Shown(&rdata[..next]),
                    countersign_policy::key::to_hex(&rdata[next..])
                ));
            }
        }
        assert_eq!(
            found,
            [
                "example. a.example. 000722000000000380",
                // Not A: the parent side is not authoritative for it.
                "a.example. b.example. 0006200000000003",
                "B.example. x.ent.example. 0006400000000003",
                "x.ent.example. example. 0006000000000003041b000000000000000000000000000000000000000000000000000020",
            ]
        );
    }
}
