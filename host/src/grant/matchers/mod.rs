//! The shapes a grant can have (host, address, port, URL, path) and whether an action fits one.
//!
//! Matching never guesses: text is compared in its normal form only, and text that has another normal form than itself is
//! refused before it is compared. That is what keeps `%2e%2e`, `0x7f.1` or `::ffff:127.0.0.1` from slipping past a rule.
//!
//! - [`address`]: what kind of address it is, canonical forms, addresses hidden inside others
//! - [`host`]: names and addresses as a grant or an action writes them
//! - [`port`]: one port, a range, or any
//! - [`socket`]: `tcp ns.example.com:53`
//! - [`path`]: normal paths, path patterns, method + path
//! - [`url`]: URL patterns and URLs as sent

pub mod address;
pub mod host;
pub mod path;
pub mod port;
pub mod socket;
pub mod url;

/// A pattern in a policy that is not of the expected form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}`: {problem}")]
pub struct PatternError {
    /// The pattern as written.
    pub text: String,
    /// What is wrong with it.
    pub problem: String,
    /// How it could be written instead.
    pub help: Option<String>,
}

impl PatternError {
    pub(crate) fn new(text: &str, problem: impl Into<String>) -> Self {
        Self {
            text: text.to_owned(),
            problem: problem.into(),
            help: None,
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}
