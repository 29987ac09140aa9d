//! What is wrong with a configuration file, said so that it can be put right.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Octets of the file that it is about, where known.
    pub span: Option<Range<usize>>,
    /// What was found and what was expected.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem with the value at `span`.
    pub fn at(span: Range<usize>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { span: Some(span), message: message.into(), hint: Some(hint.into()) }
    }
}

/// Why a configuration is refused: everything that is wrong with it, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    path: PathBuf,
    located: Vec<Located>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Located {
    /// Line and column from 1, and the line's text.
    place: Option<(usize, usize, String)>,
    message: String,
    hint: Option<String>,
}

impl ConfigError {
    pub(super) fn new(path: &Path, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
        let located = problems
            .into_iter()
            .map(|problem| Located {
                place: problem.span.map(|span| locate(text, span.start)),
                message: problem.message,
                hint: problem.hint,
            })
            .collect();
        Self { path: path.to_owned(), located }
    }

    pub(super) fn unreadable(path: &Path, source: &std::io::Error) -> Self {
        let hint = match source.kind() {
            std::io::ErrorKind::NotFound => "name the file with --config".to_owned(),
            std::io::ErrorKind::PermissionDenied => {
                "the daemon's user must be able to read it".to_owned()
            }
            _ => "see that the file is the daemon's configuration, a TOML text".to_owned(),
        };
        let message = format!("can't be read: {source}");
        Self {
            path: path.to_owned(),
            located: vec![Located { place: None, message, hint: Some(hint) }],
        }
    }

    /// How many problems there are.
    pub fn count(&self) -> usize {
        self.located.len()
    }
}

/// Line and column (in characters) of an offset, both from 1, and the line.
fn locate(text: &str, offset: usize) -> (usize, usize, String) {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1, line.to_owned())
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.located.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.path.display())?;
            if let Some((line, column, _)) = &problem.place {
                write!(f, ":{line}:{column}")?;
            }
            write!(f, ": {}", problem.message)?;
            if let Some((line, column, text)) = &problem.place {
                let gutter = " ".repeat(line.to_string().len());
                let indent = " ".repeat(column - 1);
                write!(f, "\n  {line} | {text}\n  {gutter} | {indent}^")?;
            }
            if let Some(hint) = &problem.hint {
                write!(f, "\n  hint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
