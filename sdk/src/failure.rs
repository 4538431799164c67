//! A refusal or mishap, as Foreman expects to read it.
//!
//! Foreman's Smart Proxy answers errors as plain text that is labelled JSON whenever the client accepts JSON. A [`Failure`] holds the
//! status and the text; how it is labelled is decided once, in [`crate::answer`].

use std::fmt::{self, Display};
use std::time::Duration;

/// An error answer: a status of 400 or more and a text for people. `?` in a route's function returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    status: u16,
    message: String,
    always_html: bool,
    retry_after: Option<Duration>,
}

impl Failure {
    /// An error answer with any status from 400 to 599; others become 500.
    #[must_use]
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        let status = if (400..600).contains(&status) {
            status
        } else {
            500
        };
        Self {
            status,
            message: message.into(),
            always_html: false,
            retry_after: None,
        }
    }

    /// 400: the request itself is wrong.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// 403: well understood, and refused.
    #[must_use]
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, message)
    }

    /// 404: there is no such thing.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, message)
    }

    /// 409: it exists already, and differs.
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(409, message)
    }

    /// 500: the plugin's own fault.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, message)
    }

    /// 503: later perhaps.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, message)
    }

    /// 400 for a query or form that cannot be read. The text is escaped, since this answer is HTML whatever the client accepts.
    pub(crate) fn invalid_query(reason: &str) -> Self {
        let mut message = String::from("Invalid query parameters: ");
        for character in reason.chars() {
            match character {
                '&' => message.push_str("&amp;"),
                '<' => message.push_str("&lt;"),
                '>' => message.push_str("&gt;"),
                '"' => message.push_str("&quot;"),
                '\'' => message.push_str("&#39;"),
                plain => message.push(plain),
            }
        }
        Self {
            status: 400,
            message,
            always_html: true,
            retry_after: None,
        }
    }

    /// Says when to try again (`Retry-After`, whole seconds, at least one).
    #[must_use]
    pub fn retry_after(mut self, time: Duration) -> Self {
        self.retry_after = Some(time.max(Duration::from_secs(1)));
        self
    }

    /// The seconds of `Retry-After`.
    pub(crate) fn retry_seconds(&self) -> Option<u64> {
        self.retry_after.map(|time| time.as_secs())
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The text.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// True: `text/html` even for a client that accepts JSON.
    pub(crate) fn is_always_html(&self) -> bool {
        self.always_html
    }
}

impl Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Turns any error into a [`Failure`] with a text before the reason, the way Foreman's Smart Proxy words it: `<what failed>: <why>`.
pub trait Explain<T> {
    /// 400 `<what>: <why>`.
    fn or_bad_request(self, what: &str) -> Result<T, Failure>;
    /// 404 `<what>: <why>`.
    fn or_not_found(self, what: &str) -> Result<T, Failure>;
    /// `status` `<what>: <why>`.
    fn or_status(self, status: u16, what: &str) -> Result<T, Failure>;
}

impl<T, E: Display> Explain<T> for Result<T, E> {
    fn or_bad_request(self, what: &str) -> Result<T, Failure> {
        self.or_status(400, what)
    }

    fn or_not_found(self, what: &str) -> Result<T, Failure> {
        self.or_status(404, what)
    }

    fn or_status(self, status: u16, what: &str) -> Result<T, Failure> {
        self.map_err(|why| Failure::new(status, format!("{what}: {why}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_never_a_success() {
        assert_eq!(Failure::new(200, "x").status(), 500);
        assert_eq!(Failure::new(418, "x").status(), 418);
    }

    #[test]
    fn an_html_failure_reflects_no_markup() {
        assert_eq!(
            Failure::invalid_query("<b>&'\"").message(),
            "Invalid query parameters: &lt;b&gt;&amp;&#39;&quot;"
        );
    }
}
