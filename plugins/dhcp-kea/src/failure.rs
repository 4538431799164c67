//! What goes wrong between this plugin and Kea, and what of it the feature `dhcp` is told.
//!
//! The one idea: Kea's own words stay in the error. Its result codes decide which kind of error it is (Kea Administrator Reference
//! Manual, "Control Channel Syntax"): 0 done, 1 error, 2 no such command, 3 nothing found, 4 conflict, 5 done only in part.

use bulkhead_sdk::bindings::imports::foreman::proxy::types::UpstreamError as Cause;
use bulkhead_sdk::dhcp;
use bulkhead_sdk::http::UpstreamError;

/// Why a call did not do what was asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Failure {
    /// No answer: denied, late, no way there.
    #[error("Kea: {0}")]
    Lost(UpstreamError),
    /// An answer of HTTP rather than of a command.
    #[error("Kea answered HTTP {status}: {text}")]
    Http { status: u16, text: String },
    /// Something else than the control API speaks.
    #[error("Kea answered something else than expected: {0}")]
    Junk(String),
    /// Kea's result code and words.
    #[error("Kea answered `{command}` with result {result}: {text}")]
    Said {
        command: String,
        result: i64,
        text: String,
    },
    /// There is no more time.
    #[error("no time left: {0}")]
    Late(&'static str),
    /// The provider's own verdicts.
    #[error("{0}")]
    Conflict(String),
    #[error("Kea holds no such subnet")]
    UnknownSubnet,
    #[error("{0}")]
    NotDeletable(String),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Unsupported(String),
    #[error("the store failed: {0}")]
    Store(String),
    /// Another instance made the change, or tried to.
    #[error("{0:?}")]
    Told(dhcp::Error),
}

impl Failure {
    /// True when the connection or the server behind it may be another one by the next call.
    pub(crate) fn loses_the_server(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Http { .. } | Self::Junk(_) | Self::Unsupported(_) => true,
            Self::Said { result, .. } => *result == 2 || self.is_the_agent_alone(),
            _ => false,
        }
    }

    /// True when Kea understood what it should do and does not take it.
    pub(crate) fn is_about_the_content(&self) -> bool {
        matches!(self, Self::Said { result: 1, .. }) && !self.is_the_agent_alone()
    }

    /// The Control Agent answers for a DHCP server that it does not reach.
    fn is_the_agent_alone(&self) -> bool {
        matches!(self, Self::Said { result: 1, text, .. } if text.starts_with("unable to forward command"))
    }

    /// The error of the interface, in one place.
    pub(crate) fn into_error(self) -> dhcp::Error {
        if let Self::Told(error) = self {
            return error;
        }
        let text = self.to_string();
        match &self {
            Self::Lost(why) => match why.record() {
                Cause::Denied(_) => dhcp::Error::Refused(text),
                Cause::Timeout(_) => dhcp::Error::Timeout(text),
                Cause::Unreachable(_) | Cause::Tls(_) => dhcp::Error::Unreachable(text),
                Cause::Protocol(_) => dhcp::Error::Other(text),
            },
            Self::Http {
                status: 401 | 403, ..
            } => dhcp::Error::Refused(text),
            Self::Http { .. } | Self::Junk(_) | Self::Store(_) | Self::Told(_) => {
                dhcp::Error::Other(text)
            }
            Self::Late(_) => dhcp::Error::Timeout(text),
            Self::Said { result, .. } => match result {
                1 if self.is_the_agent_alone() => dhcp::Error::Unreachable(text),
                1 => dhcp::Error::Refused(text),
                2 => dhcp::Error::Unsupported(text),
                4 => dhcp::Error::Conflict(text),
                5 => dhcp::Error::Other(format!("{text} (done only in part)")),
                _ => dhcp::Error::Other(text),
            },
            Self::Conflict(_) => dhcp::Error::Conflict(text),
            Self::UnknownSubnet => dhcp::Error::UnknownSubnet,
            Self::NotDeletable(_) => dhcp::Error::NotDeletable(text),
            Self::Refused(_) => dhcp::Error::Refused(text),
            Self::Unsupported(_) => dhcp::Error::Unsupported(text),
        }
    }
}

impl From<UpstreamError> for Failure {
    fn from(why: UpstreamError) -> Self {
        Self::Lost(why)
    }
}

impl From<bulkhead_sdk::store::Error> for Failure {
    fn from(why: bulkhead_sdk::store::Error) -> Self {
        Self::Store(format!("{why:?}"))
    }
}
