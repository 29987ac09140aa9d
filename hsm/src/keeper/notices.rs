//! What people should know of, from the ledger's state and the keeper's own: for health, metrics and the
//! console. The worst comes first, and no more than a few of each sort.

use countersign_policy::ledger::LedgerState;
use countersign_policy::state::{NotYet, Status};

use super::door::Hsm;
use super::service::Service;
use crate::protocol::{NOTICES_MAX, Notice, NoticeKind};

/// Notices of one sort.
const OF_A_SORT_MAX: usize = 32;

impl<H: Hsm> Service<H> {
    /// Everything that should be known now.
    pub(super) fn notices(&self) -> Vec<Notice> {
        let now_s = self.now();
        let mut notices = Vec::new();
        let mut tell = |kind, details: Vec<String>| {
            let details = details.into_iter().take(OF_A_SORT_MAX);
            notices.extend(details.map(|detail| Notice { kind, detail }));
        };
        let behind = self.seals().behind(self.ledger());
        tell(NoticeKind::Behind, behind.into_iter().collect());
        let elsewhere = self.ledger().read(|state| self.seals().holding().elsewhere(state));
        tell(NoticeKind::Elsewhere, elsewhere.map(|elsewhere| elsewhere.why).into_iter().collect());
        let unwritable = self.ledger().problem().map(|problem| {
            format!(
                "the ledger can't be written: {problem}. No KSK is used; zones are signed. hint: free \
                 or repair the disk under state_dir"
            )
        });
        tell(NoticeKind::Ledger, unwritable.into_iter().collect());
        self.ledger().read(|state| {
            tell(NoticeKind::Frozen, state.freezes().map(ToString::to_string).collect());
            let clock = state.clock(now_s).err().map(|fault| fault.to_string());
            tell(NoticeKind::Clock, clock.into_iter().collect());
            tell(NoticeKind::Recovery, proposals(state, true, now_s));
        });
        tell(NoticeKind::Checkpoint, self.seals().problem().into_iter().collect());
        tell(NoticeKind::Token, self.token_notices());
        let unfinished = self.unfinished().iter().map(ToString::to_string).collect();
        tell(NoticeKind::Unfinished, unfinished);
        tell(NoticeKind::Proposal, self.ledger().read(|state| proposals(state, false, now_s)));
        notices.truncate(NOTICES_MAX);
        notices
    }

    fn token_notices(&self) -> Vec<String> {
        let opened: Vec<String> = self.hsm().health().into_iter().map(|token| token.name).collect();
        let refused = self.seals().refused();
        let refused = refused.iter().map(|(name, why)| format!("token `{name}` {why}"));
        let told = self.ledger().read(|state| {
            let tokens = state.tokens().iter();
            tokens
                .filter_map(|(name, identity)| {
                    if !opened.contains(name) {
                        return Some(format!(
                            "token `{name}` is of this appliance and not open. hint: name it in the \
                             configuration, and restart the keeper"
                        ));
                    }
                    (identity.data_objects && !state.is_marked(name)).then(|| {
                        format!("token `{name}` does not carry the founding's mark yet")
                    })
                })
                .collect::<Vec<_>>()
        });
        refused.chain(told).collect()
    }
}

/// Open proposals of the recovery group, or the others: what each waits for.
fn proposals(state: &LedgerState, recovery: bool, now_s: u64) -> Vec<String> {
    let open = state
        .proposals()
        .filter(|(_, proposal)| proposal.status == Status::Open && proposal.recovery == recovery);
    open.map(|(hash, proposal)| {
        let statement = &proposal.statement;
        let waits = match state.quorum(hash, now_s) {
            Ok(_) => "it begins now".to_owned(),
            Err(NotYet::Over(status)) => format!("it is {status}"),
            Err(why) => why.to_string(),
        };
        let kind = statement.motion.kind();
        format!("{} {kind}, proposed by {}: {waits}", hash.short(), statement.proposer)
    })
    .collect()
}
