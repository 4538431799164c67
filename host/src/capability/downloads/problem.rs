//! Why a download failed, in the operator's words, and whether another try may do better.

use std::io;
use std::time::Duration;

use crate::capability::upstream::text;
use crate::sandbox::bindings::types::UpstreamError;

/// Why a download failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("{0}")]
    Denied(String),
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Refused(String),
    #[error("the server sent nothing for {limit:?}")]
    Silence { limit: Duration },
    #[error("the transfer broke off: {reason}")]
    Broken { reason: String },
    #[error("the server answered {status}")]
    Status { status: u16 },
    #[error("the server redirects to what is no http or https URL")]
    Redirect,
    #[error("more than {limit} redirects")]
    Redirects { limit: usize },
    #[error("the file is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("not finished after {limit:?}")]
    TooSlow { limit: Duration },
    #[error("the directory's quota is used up")]
    Quota,
    #[error("the file cannot be written: {reason}")]
    Disk { reason: String },
}

impl Problem {
    /// Whether another try may do better.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Problem::Unreachable(_) | Problem::Silence { .. } | Problem::Broken { .. } => true,
            Problem::Status { status } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}

impl From<UpstreamError> for Problem {
    fn from(error: UpstreamError) -> Self {
        let words = text(&error).to_owned();
        match error {
            UpstreamError::Denied(_) => Problem::Denied(words),
            UpstreamError::Timeout(_) | UpstreamError::Unreachable(_) => {
                Problem::Unreachable(words)
            }
            UpstreamError::Tls(_) | UpstreamError::Protocol(_) => Problem::Refused(words),
        }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::QuotaExceeded {
            Problem::Quota
        } else {
            Problem::Disk {
                reason: error.to_string(),
            }
        }
    }
}
