//! The keeper's notices, as this side counts and ranks them.

use countersign_hsm::protocol::{Notice, NoticeKind};

/// Every kind, worst first: metrics have a series of each, so that none comes and goes.
pub const KINDS: [NoticeKind; 10] = [
    NoticeKind::Behind,
    NoticeKind::Elsewhere,
    NoticeKind::Ledger,
    NoticeKind::Clock,
    NoticeKind::Frozen,
    NoticeKind::Recovery,
    NoticeKind::Token,
    NoticeKind::Unfinished,
    NoticeKind::Checkpoint,
    NoticeKind::Proposal,
];

/// Where a kind stands in [`KINDS`].
const fn rank(kind: NoticeKind) -> usize {
    match kind {
        NoticeKind::Behind => 0,
        NoticeKind::Elsewhere => 1,
        NoticeKind::Ledger => 2,
        NoticeKind::Clock => 3,
        NoticeKind::Frozen => 4,
        NoticeKind::Recovery => 5,
        NoticeKind::Token => 6,
        NoticeKind::Unfinished => 7,
        NoticeKind::Checkpoint => 8,
        NoticeKind::Proposal => 9,
    }
}

/// Whether someone should see to it. An open proposal is officers at their work.
pub const fn needs_attention(kind: NoticeKind) -> bool {
    !matches!(kind, NoticeKind::Proposal)
}

/// How many there are of each kind, in the order of [`KINDS`].
pub fn count(notices: &[Notice]) -> [(NoticeKind, u64); KINDS.len()] {
    let mut counts = KINDS.map(|kind| (kind, 0));
    for notice in notices {
        counts[rank(notice.kind)].1 += 1;
    }
    counts
}

/// Worst first; those of one kind stay in the keeper's order.
pub fn sort(notices: &mut [Notice]) {
    notices.sort_by_key(|notice| rank(notice.kind));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_place() {
        for (at, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(rank(kind), at, "{kind}");
        }
    }

    #[test]
    fn notices_are_counted_by_kind_and_sorted_by_what_they_stop() {
        let notice = |kind, detail: &str| Notice { kind, detail: detail.to_owned() };
        let mut notices = [
            notice(NoticeKind::Proposal, "a"),
            notice(NoticeKind::Frozen, "b"),
            notice(NoticeKind::Proposal, "c"),
            notice(NoticeKind::Behind, "d"),
        ];
        let counts = count(&notices);
        let some: Vec<_> = counts.iter().filter(|(_, count)| *count > 0).collect();
        let expect = [(NoticeKind::Behind, 1), (NoticeKind::Frozen, 1), (NoticeKind::Proposal, 2)];
        assert_eq!(some, expect.iter().collect::<Vec<_>>());
        sort(&mut notices);
        assert_eq!(notices.map(|notice| notice.detail), ["d", "b", "a", "c"]);
        let calm: Vec<_> = KINDS.into_iter().filter(|kind| !needs_attention(*kind)).collect();
        assert_eq!(calm, [NoticeKind::Proposal]);
    }
}
