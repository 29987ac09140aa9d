//! `freeze`: one person stops the use of KSKs; only a quorum ends it (`propose thaw`). Signing with
//! ZSKs and serving go on.

use clap::Args;
use countersign_hsm::protocol::Submission;
use countersign_policy::ZoneName;
use countersign_policy::ledger::Entry;
use countersign_policy::motion::Scope;
use countersign_policy::officer::PersonName;
use countersign_policy::ssh::Namespace;
use countersign_policy::statement::{Freeze, NONCE_BYTES, REASON_BYTES_MAX, is_reason};
use serde::Serialize;

use super::desk::Desk;
use super::end::{End, Stop};
use super::propose::judge;
use super::say;
use super::view::submit_stop;

/// It is sent at once; this much covers two clocks that differ.
const GOOD_FOR_S: u64 = 3_600;

/// What, and why.
#[derive(Debug, Args)]
pub(super) struct FreezeArgs {
    /// Of one zone; without, every KSK and CSK.
    #[arg(long)]
    zone: Option<ZoneName>,
    /// Why, for those who find it.
    #[arg(long)]
    reason: String,
}

/// What was frozen, for programs.
#[derive(Debug, Serialize)]
struct Frozen {
    scope: String,
    by: PersonName,
    line: u64,
}

pub(super) fn run(mut desk: Desk<'_>, args: FreezeArgs) -> Result<End, Stop> {
    if !is_reason(&args.reason) {
        return Err(Stop::usage(format!(
            "--reason takes 1 to {REASON_BYTES_MAX} printable ASCII characters, without a space at \
             either end"
        )));
    }
    let mut view = desk.view()?;
    let hand = desk.hand(view.state().roster())?;
    let scope = args.zone.map_or(Scope::All, Scope::Zone);
    let what = say::scope(&scope);
    // The keeper judges it by its own clock: stopping must not fail because that one runs ahead.
    let now_s = desk.now_s.max(view.state().time_floor());
    let freeze = Freeze {
        appliance: view.ledger.appliance,
        officer: hand.person.clone(),
        scope,
        reason: args.reason,
        nonce: rand::random::<[u8; NONCE_BYTES]>(),
        not_after: now_s + GOOD_FOR_S,
    };
    let text = freeze.to_text();
    if !desk.json {
        // Nothing keeps a freeze from its way, not even an output that is closed.
        let _ = writeln!(desk.out, "{text}");
    }
    let signature = hand.sign(Namespace::Freeze, &text)?;
    judge(&view, now_s, Entry::Frozen { text: text.clone(), signature: signature.clone() })?;
    let line = view.keeper.submit(Submission::Freeze { text, signature }).map_err(submit_stop)?;
    desk.print(&Frozen { scope: what, by: hand.person, line }, |frozen, out| {
        writeln!(
            out,
            "the use of {} is frozen by {} at line {line}; zones stay up and are signed by their ZSKs.\nA \
             quorum ends it: countersign propose thaw",
            frozen.scope, frozen.by
        )
    })?;
    Ok(End::Fine)
}
