//! A mistake in a file an operator wrote, with its place.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::config::Place;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[error("{}:{line}:{column}: {message}{}", file.display(), help.as_ref().map(|help| format!("; {help}")).unwrap_or_default())]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The setting of a plugin whose value it is about, where that fills a place in a policy.
    #[serde(skip)]
    pub setting: Option<String>,
}

/// All mistakes of a file, in its order.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problems(pub Vec<Problem>);

impl std::fmt::Display for Problems {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            if position > 0 {
                out.write_str("\n")?;
            }
            write!(out, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A file's text, to find places in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) path: &'a Path,
    pub(crate) text: &'a str,
}

/// The text of a file that an operator wrote; a file that cannot be read is a mistake as well.
pub(crate) fn read(path: &Path) -> Result<String, Problem> {
    let bytes = std::fs::read(path).map_err(|error| Problem {
        file: path.to_owned(),
        line: 1,
        column: 1,
        message: format!("cannot be read: {error}"),
        help: (error.kind() == std::io::ErrorKind::PermissionDenied)
            .then(|| "let the user who runs this read it".to_owned()),
        setting: None,
    })?;
    utf8(path, bytes)
}

/// The text of a file's bytes, or where it ceases to be text.
pub(crate) fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, Problem> {
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes().get(..good).unwrap_or_default());
        let help = "save the file as UTF-8".to_owned();
        Source { path, text: &text }.problem(
            &(good..good),
            "is no text in UTF-8".to_owned(),
            Some(help),
        )
    })
}

impl Source<'_> {
    /// What is wrong with the syntax. The parser does not say which key stands twice.
    pub(crate) fn mistake(&self, mistake: &toml::de::Error) -> String {
        let message = mistake.message();
        let key = mistake.span().and_then(|span| self.text.get(span));
        match key {
            Some(key) if message == "duplicate key" => {
                format!("`{key}` stands here a second time; keep one of them")
            }
            _ => message.to_owned(),
        }
    }

    pub(crate) fn problem(
        &self,
        span: &Range<usize>,
        message: String,
        help: Option<String>,
    ) -> Problem {
        let Place { line, column } = self.place(span);
        Problem {
            file: self.path.to_owned(),
            line,
            column,
            message,
            help,
            setting: None,
        }
    }

    /// Line and column where a span begins.
    pub(crate) fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Place {
            line: small(line),
            column: small(column),
        }
    }
}
