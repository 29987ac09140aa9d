//! Questions to the person at the terminal.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};

use super::end::Stop;

/// Octets of an answer: a path or a list of names.
const ANSWER_BYTES_MAX: u64 = 8192;

/// Whether somebody is there to be asked.
pub(super) fn somebody_is_there() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Who is asked.
pub(super) trait Person {
    /// The answer without blanks around it. An empty one is `default`.
    fn ask(&mut self, question: &str, default: &str) -> Result<String, Stop>;
    /// Tells something that wants no answer.
    fn tell(&mut self, text: &str) -> Result<(), Stop>;
}

/// The person at the terminal, who is talked to on standard error, so that results stay apart.
pub(super) struct Terminal;

impl Person for Terminal {
    fn ask(&mut self, question: &str, default: &str) -> Result<String, Stop> {
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

    fn tell(&mut self, text: &str) -> Result<(), Stop> {
        Ok(writeln!(std::io::stderr(), "{text}")?)
    }
}

/// Asks until `parse` takes the answer.
pub(super) fn ask_until<T>(
    person: &mut dyn Person,
    question: &str,
    default: &str,
    mut parse: impl FnMut(&str) -> Result<T, String>,
) -> Result<T, Stop> {
    loop {
        match parse(&person.ask(question, default)?) {
            Ok(value) => return Ok(value),
            Err(problem) => person.tell(&format!("  {problem}"))?,
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
    says_the_word(&mut Terminal, what, words)
}

fn says_the_word(person: &mut dyn Person, what: &str, words: &str) -> Result<(), Stop> {
    let first = words.split_whitespace().next().unwrap_or_default();
    let answer = person.ask(&format!("{what}? type the first word of the hash"), "")?;
    if answer.eq_ignore_ascii_case(first) && !first.is_empty() {
        Ok(())
    } else {
        Err(Stop::failed(format!("{answer:?} is not that word; nothing was done")))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A person whose answers are written down.
    #[derive(Default)]
    pub(in crate::cli) struct Scripted {
        answers: VecDeque<String>,
        /// What the person was told.
        pub(in crate::cli) told: Vec<String>,
    }

    impl Scripted {
        pub(in crate::cli) fn new(answers: &[&str]) -> Self {
            Self { answers: answers.iter().map(ToString::to_string).collect(), told: Vec::new() }
        }
    }

    impl Person for Scripted {
        fn ask(&mut self, question: &str, default: &str) -> Result<String, Stop> {
            match self.answers.pop_front() {
                Some(answer) if answer.is_empty() => Ok(default.to_owned()),
                Some(answer) => Ok(answer),
                None => Err(Stop::failed(format!("no answer to {question:?}"))),
            }
        }

        fn tell(&mut self, text: &str) -> Result<(), Stop> {
            self.told.push(text.to_owned());
            Ok(())
        }
    }

    #[test]
    fn only_the_first_word_is_a_yes() {
        let check = |answer: &str, words: &str| {
            says_the_word(&mut Scripted::new(&[answer]), "approve", words).is_ok()
        };
        assert!(check("topmost", "topmost   Istanbul"));
        assert!(check("Topmost", "topmost   Istanbul"));
        for answer in ["", "yes", "y", "Istanbul", "topmost Istanbul"] {
            assert!(!check(answer, "topmost   Istanbul"), "{answer:?}");
        }
        assert!(!check("", ""), "no word is no yes");
    }
}
