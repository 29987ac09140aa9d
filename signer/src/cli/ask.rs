//! Questions to the person at the terminal.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};

use super::end::Stop;

/// Octets of an answer: a path or a list of names.
const ANSWER_BYTES_MAX: u64 = 8192;

/// Whether somebody is there to be asked.
pub(super) fn somebody_is_there() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks, on standard error so that results stay apart; the answer without blanks around it. An empty
/// one is `default`.
pub(super) fn ask(question: &str, default: &str) -> Result<String, Stop> {
    let mut terminal = std::io::stderr();
    let shown = if default.is_empty() { String::new() } else { format!(" [{default}]") };
    write!(terminal, "{question}{shown}: ")?;
    terminal.flush()?;
    let mut answer = String::new();
    let read = std::io::stdin()
        .lock()
        .take(ANSWER_BYTES_MAX)
        .read_line(&mut answer)
        .map_err(|error| Stop::failed(format!("can't read the answer: {error}")))?;
    if read == 0 {
        return Err(Stop::failed("no answer; nothing was done"));
    }
    let answer = answer.trim();
    Ok(if answer.is_empty() { default.to_owned() } else { answer.to_owned() })
}

/// Asks until `parse` takes the answer.
pub(super) fn ask_until<T>(
    question: &str,
    default: &str,
    mut parse: impl FnMut(&str) -> Result<T, String>,
) -> Result<T, Stop> {
    loop {
        match parse(&ask(question, default)?) {
            Ok(value) => return Ok(value),
            Err(problem) => writeln!(std::io::stderr(), "  {problem}")?,
        }
    }
}

/// Has the person type the first of the words that were shown, which who only presses Return does not.
/// `yes` answers for scripts; with nobody there it is needed.
pub(super) fn confirm(what: &str, words: &str, yes: bool) -> Result<(), Stop> {
    if yes {
        return Ok(());
    }
    if !somebody_is_there() {
        return Err(Stop::usage(format!(
            "nobody is there to be asked whether to {what}; in a script, say --yes"
        )));
    }
    let first = words.split_whitespace().next().unwrap_or_default();
    let answer = ask(&format!("{what}? type the first word of the hash"), "")?;
    if answer.eq_ignore_ascii_case(first) && !first.is_empty() {
        Ok(())
    } else {
        Err(Stop::failed(format!("{answer:?} is not that word; nothing was done")))
    }
}
