//! `survey`: what is on the keeper's tokens. An unfounded keeper makes its audit key for this; a
//! founded one shows what is not its ledger's.

use countersign_hsm::protocol::{Mode, Survey, SurveyedKey, SurveyedToken};
use serde::Serialize;

use super::desk::Desk;
use super::end::{End, Stop};
use super::show::table;
use super::view::{connect, keeper_stop};
use super::{attention, say};

/// What the keeper shows, for programs.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    mode: &'static str,
    survey: &'a Survey,
}

pub(super) fn run(mut desk: Desk<'_>) -> Result<End, Stop> {
    let mut keeper = connect(&desk.args.ledger_socket)?;
    let survey = keeper.survey().map_err(keeper_stop)?;
    let mode = match keeper.mode() {
        Mode::Unfounded => "unfounded",
        Mode::Founded => "founded",
        Mode::Behind(_) => "behind",
        Mode::Elsewhere { .. } => "elsewhere",
    };
    desk.print(&Shown { mode, survey: &survey }, |shown, out| {
        writeln!(out, "the keeper is {}", shown.mode)?;
        match &survey.audit {
            Some((token, key)) => {
                // As the founding's text has it, so that founders can compare the two.
                let (algorithm, octets) = (key.public().algorithm(), key.public().bytes());
                let octets =
                    octets.iter().fold(String::new(), |hex, octet| format!("{hex}{octet:02x}"));
                writeln!(out, "audit key: {algorithm} {octets} on token {}", say::plain(token))?;
            }
            None => writeln!(out, "audit key: none yet")?,
        }
        tokens(&survey.tokens, out)
    })?;
    Ok(attention(survey.tokens.iter().any(|token| token.problem.is_some())))
}

/// The tokens and what is on them.
pub(super) fn tokens(
    tokens: &[SurveyedToken],
    out: &mut (dyn std::io::Write + Send),
) -> std::io::Result<()> {
    let mut rows =
        table(&["token", "label", "serial", "maker", "data objects", "founding", "keys"]);
    for token in tokens {
        let yes_no = if token.data_objects { "yes" } else { "no" };
        rows.add_row([
            say::plain(&token.name),
            say::plain(&token.label),
            say::plain(&token.serial),
            say::plain(&format!("{} {}", token.manufacturer, token.model)),
            yes_no.to_owned(),
            token.marked.map_or_else(|| "none".to_owned(), |hash| hash.to_string()),
            match &token.problem {
                Some(problem) => say::plain(problem),
                None => token.keys.len().to_string(),
            },
        ]);
    }
    writeln!(out, "{rows}")?;
    let keys: Vec<(&SurveyedToken, &SurveyedKey)> =
        tokens.iter().flat_map(|token| token.keys.iter().map(move |key| (token, key))).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let mut rows = table(&["token", "label", "CKA_ID", "algorithm", "key id", "extractable"]);
    for (token, key) in keys {
        rows.add_row([
            say::plain(&token.name),
            say::plain(&key.label),
            say::plain(&key.id),
            key.algorithm.map_or_else(|| "?".to_owned(), |number| number.to_string()),
            key.key.map_or_else(|| "not a key of DNSSEC".to_owned(), |key| key.to_string()),
            match key.extractable {
                Some(true) => "yes".to_owned(),
                Some(false) => "no".to_owned(),
                None => "?".to_owned(),
            },
        ]);
    }
    writeln!(out, "\nKeys that are not the ledger's; `propose adopt-key` takes one over:\n{rows}")
}
