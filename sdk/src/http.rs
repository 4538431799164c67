//! Requests to servers that the policy names, with small bodies and while the function waits.
//!
//! For anything large, or many at once, answer with a [`crate::answer::Forward`]: it holds no instance. Redirects are not
//! followed; a repeated request is decided anew.

use std::fmt;
use std::time::Duration;

use crate::bindings::imports::foreman::proxy::types;
use crate::failure::Failure;
use crate::host;
use crate::request;

/// A request to send. `slot` is the plugin's `http` or `foreman` slot; `target` is path and query below the slot's URL.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing(types::Outgoing);

impl Outgoing {
    /// A request without headers and body.
    #[must_use]
    pub fn new(slot: &str, method: &str, target: impl Into<String>) -> Self {
        Self(types::Outgoing {
            slot: slot.to_owned(),
            method: method.to_owned(),
            target: target.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout: None,
        })
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.0.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body, at most 1 MiB by default.
    #[must_use]
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.body = bytes.into();
        self
    }

    /// Sets the body to a value as JSON, and the content type.
    ///
    /// # Errors
    /// 500 when the value cannot be written as JSON.
    pub fn json(self, value: &impl serde::Serialize) -> Result<Self, Failure> {
        let bytes = serde_json::to_vec(value)
            .map_err(|why| Failure::internal(format!("cannot write JSON: {why}")))?;
        Ok(self
            .header("content-type", crate::answer::JSON_TYPE)
            .body(bytes))
    }

    /// Ends the whole exchange after this time; never later than the grant says.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.timeout = Some(u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX));
        self
    }

    /// The plain record, as the host gets it.
    #[must_use]
    pub fn record(&self) -> &types::Outgoing {
        &self.0
    }
}

/// A server's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming(types::Incoming);

impl Incoming {
    pub(crate) fn new(record: types::Incoming) -> Self {
        Self(record)
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.0.status
    }

    /// A status of 200 to 299.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.0.status)
    }

    /// The value of the first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        request::header(&self.0.headers, name)
    }

    /// The whole body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.0.body
    }

    /// The body read as JSON.
    ///
    /// # Errors
    /// When the body is not JSON of that shape.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.0.body)
    }
}

/// Sends a request and waits for the whole answer. Any status is an answer, also 500.
///
/// # Errors
/// When there is no answer.
pub fn send(request: &Outgoing) -> Result<Incoming, UpstreamError> {
    host::http_client::send(&request.0)
        .map(Incoming)
        .map_err(UpstreamError)
}

/// Why an upstream gave no answer.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamError(types::UpstreamError);

impl UpstreamError {
    pub(crate) fn new(record: types::UpstreamError) -> Self {
        Self(record)
    }

    /// The plain record: which of the cases it is.
    #[must_use]
    pub fn record(&self) -> &types::UpstreamError {
        &self.0
    }

    /// 504 for a time-out, 502 otherwise.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let status = if matches!(self.0, types::UpstreamError::Timeout(_)) {
            504
        } else {
            502
        };
        Failure::new(status, self.to_string())
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            types::UpstreamError::Denied(why) => write!(formatter, "denied: {why}"),
            types::UpstreamError::Timeout(milliseconds) => {
                write!(formatter, "no answer within {milliseconds} ms")
            }
            types::UpstreamError::Unreachable(why) => write!(formatter, "unreachable: {why}"),
            types::UpstreamError::Tls(why) => write!(formatter, "TLS failed: {why}"),
            types::UpstreamError::Protocol(why) => write!(formatter, "broken answer: {why}"),
        }
    }
}

impl std::error::Error for UpstreamError {}

impl From<UpstreamError> for Failure {
    fn from(error: UpstreamError) -> Self {
        error.failure()
    }
}
