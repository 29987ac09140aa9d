//! `ds export ZONE`: the DS records that a quorum approved, in the form that the parent takes. Nothing
//! comes out without one; the keeper writes into the ledger that they were handed out, and what it
//! hands out is compared with what this command's own fold says was approved.

use std::collections::BTreeSet;

use clap::{Subcommand, ValueEnum};
use countersign_hsm::protocol::DsExport;
use countersign_policy::ds::{Delegation, DsDigest, EppForm};
use countersign_policy::motion::Motion;
use countersign_policy::state::LedgerState;
use countersign_policy::statement::{Statement, StatementHash};
use countersign_policy::{KeyId, KeyRole, PublicKey, ZoneName};
use serde::Serialize;

use super::desk::Desk;
use super::end::{End, Stop};
use super::history::{self, History};
use super::say;
use super::view::{View, keeper_stop};

#[derive(Debug, Subcommand)]
pub(super) enum DsVerb {
    /// The DS records of a zone, as a quorum approved them.
    Export {
        /// The zone.
        zone: ZoneName,
        /// What the parent takes.
        #[arg(long, value_enum, default_value_t = Format::Presentation)]
        format: Format,
    },
}

/// What the parent takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Records of a master file (RFC 4034 §5.3).
    Presentation,
    /// The same and the keys, for programs.
    Json,
    /// EPP, an update that replaces what is there by dsData (RFC 5910).
    EppDs,
    /// The same by keyData.
    EppKey,
}

/// The export for programs: what, and by whose leave.
#[derive(Debug, Serialize)]
struct Exported<'a> {
    delegation: &'a Delegation,
    statement: StatementHash,
    line: u64,
    until: String,
}

pub(super) fn run(mut desk: Desk<'_>, verb: DsVerb) -> Result<End, Stop> {
    let DsVerb::Export { zone, format } = verb;
    let mut history = History::default();
    let mut view = desk.view_each(|state, line| history.see(state, line))?;
    let granted = granted(&view, &history, &zone, desk.now_s)?;
    let answer = view.keeper.export_ds(&zone).map_err(keeper_stop)?;
    let delegation = compare(&granted, &zone, &answer)?;
    let Granted { statement, line, until, .. } = granted;
    let until = say::time(until);
    let exported = Exported { delegation: &delegation, statement, line, until };
    let by = format!(
        "approved by statement {statement}, begun at line {line}; handed out until {}",
        exported.until
    );
    match if desk.json { Format::Json } else { format } {
        Format::Presentation => {
            write!(desk.out, "; DS of {zone}\n; {by}\n{}", delegation.presentation())?;
        }
        Format::Json => super::print(true, &exported, desk.out, |_, _| Ok(()))?,
        Format::EppDs => write_xml(&mut desk, &by, &delegation.epp_replace(EppForm::DsData))?,
        Format::EppKey => write_xml(&mut desk, &by, &delegation.epp_replace(EppForm::KeyData))?,
    }
    Ok(End::Fine)
}

fn write_xml(desk: &mut Desk<'_>, by: &str, xml: &str) -> Result<(), Stop> {
    // The comment holds digits, letters and the like: nothing that could end it.
    Ok(writeln!(desk.out, "<!-- {by} -->\n{}", xml.trim_end())?)
}

/// What a quorum approved, by this command's own fold.
#[derive(Debug)]
struct Granted {
    statement: StatementHash,
    line: u64,
    until: u64,
    keys: Vec<(KeyRole, PublicKey)>,
    digests: BTreeSet<DsDigest>,
    /// The text of the statement.
    text: String,
}

fn granted(view: &View, history: &History, zone: &ZoneName, now_s: u64) -> Result<Granted, Stop> {
    let state = view.state();
    let Some(grant) = state.ds_export(zone, now_s) else {
        let open = history.motions().into_iter().find(|(hash, record)| {
            let motion = &record.statement.motion;
            matches!(motion, Motion::ExportDs { zone: of, .. } if of == zone)
                && history::is_open(state, hash)
        });
        let hint = match open {
            Some((hash, _)) => match state.quorum(hash, now_s) {
                Ok(_) => format!("{} has its quorum: try again in a moment", hash.short()),
                Err(not_yet) => format!("{} is open: {not_yet}", hash.short()),
            },
            None => format!("countersign propose export-ds --zone {zone}"),
        };
        return Err(Stop::failed(format!(
            "no quorum has approved handing out DS of {zone}, or its time is over; nothing was handed \
             out. hint: {hint}"
        )));
    };
    let unknown =
        || Stop::unsound(format!("the ledger has no motion that began at line {}", grant.begun));
    let (statement, record) = history.begun_at(grant.begun).ok_or_else(unknown)?;
    Ok(Granted {
        statement: *statement,
        line: grant.begun,
        until: grant.until,
        keys: public_keys(state, &grant.keys)?,
        digests: grant.digests.clone(),
        text: record.statement.to_text(),
    })
}

fn public_keys(
    state: &LedgerState,
    keys: &BTreeSet<KeyId>,
) -> Result<Vec<(KeyRole, PublicKey)>, Stop> {
    keys.iter()
        .map(|key| {
            let record = state.keys().get(key);
            record.and_then(|record| Some((record.role, record.public.clone()?))).ok_or_else(|| {
                Stop::failed(format!(
                    "the public half of key {key} is kept back or the key is gone; export anew"
                ))
            })
        })
        .collect()
}

/// That the keeper handed out what was approved, and the delegation of it.
fn compare(granted: &Granted, zone: &ZoneName, answer: &DsExport) -> Result<Delegation, Stop> {
    let ids = |keys: &[(KeyRole, PublicKey)]| {
        keys.iter().map(|(role, key)| (key.id(), *role)).collect::<BTreeSet<_>>()
    };
    let differs = |what: &str| {
        Stop::unsound(format!(
            "the keeper hands out {what} than statement {} approved; use nothing of it, and tell the \
             officers",
            granted.statement.short()
        ))
    };
    if answer.zone != *zone {
        return Err(differs("another zone's DS"));
    }
    if ids(&answer.keys) != ids(&granted.keys) {
        return Err(differs("other keys"));
    }
    if answer.digests != granted.digests {
        return Err(differs("other digests"));
    }
    let same = Statement::parse(&answer.statement).is_ok() && answer.statement == granted.text;
    if !same {
        return Err(differs("them under another statement"));
    }
    Delegation::new(zone.clone(), granted.keys.clone(), &granted.digests)
        .map_err(|error| Stop::failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use countersign_policy::Algorithm;
    use countersign_policy::motion::Motion;
    use countersign_policy::tree::{Hash, TreeHead};

    use super::*;

    fn zone() -> ZoneName {
        "example.".parse().expect("name")
    }

    fn key(octet: u8) -> (KeyRole, PublicKey) {
        (KeyRole::Ksk, PublicKey::new(Algorithm::EcdsaP256Sha256, &[octet; 64]).expect("key"))
    }

    fn approved() -> (Granted, DsExport) {
        let keys = vec![key(1), key(2)];
        let digests: BTreeSet<DsDigest> = [DsDigest::Sha256].into();
        let ids = keys.iter().map(|(_, key)| key.id()).collect();
        let motion = Motion::ExportDs { zone: zone(), keys: ids, digests: digests.clone() };
        let statement = Statement {
            appliance: Hash([1; 32]),
            checkpoint: TreeHead { size: 1, root: Hash([2; 32]) },
            depends: Hash([3; 32]),
            proposer: "alice".parse().expect("name"),
            motion,
            nonce: [4; 16],
            not_before: 0,
            not_after: 1,
            finish_by: 2,
        };
        let text = statement.to_text();
        let answer = DsExport {
            zone: zone(),
            keys: keys.clone(),
            digests: digests.clone(),
            line: 9,
            statement: text.clone(),
        };
        let granted =
            Granted { statement: statement.hash(), line: 9, until: 2, keys, digests, text };
        (granted, answer)
    }

    #[test]
    fn what_the_keeper_hands_out_is_what_was_approved() {
        let (granted, answer) = approved();
        let delegation = compare(&granted, &zone(), &answer).expect("the same");
        assert_eq!(delegation.ds().count(), 2);
    }

    #[test]
    fn anything_else_is_refused() {
        let check = |change: &dyn Fn(&mut DsExport), expect: &str| {
            let (granted, mut answer) = approved();
            change(&mut answer);
            let Err(Stop::Said { end, text }) = compare(&granted, &zone(), &answer) else {
                panic!("{expect}: taken");
            };
            assert_eq!(end, End::Unsound);
            assert!(text.contains(expect), "{text}");
        };
        check(&|answer| answer.zone = "other.".parse().expect("name"), "another zone's");
        check(&|answer| answer.keys[1] = key(3), "other keys");
        check(&|answer| answer.keys.truncate(1), "other keys");
        check(&|answer| answer.keys[0].0 = KeyRole::Csk, "other keys");
        check(&|answer| answer.digests = [DsDigest::Sha384].into(), "other digests");
        check(&|answer| answer.statement.push('x'), "another statement");
    }
}
