//! What can go wrong between this plugin and a server, and what the feature is told.

use bulkhead_sdk::dns::Error;

/// Why a record was not read or written. `server` is its address and port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The request is none that DNS can carry.
    #[error("{0}")]
    Invalid(String),
    /// The name has other data.
    #[error("{name} has {found}")]
    Conflict {
        /// The name.
        name: String,
        /// What stands there.
        found: String,
    },
    /// The server understood, and will not.
    #[error("{server}: {why}")]
    Refused {
        /// The server.
        server: String,
        /// Its words.
        why: String,
    },
    /// The zone is not the server's.
    #[error("no zone of the server holds {name}: {why}")]
    NotAuthoritative {
        /// The name.
        name: String,
        /// What the server said.
        why: String,
    },
    /// No answer in time.
    #[error("no answer from {0} in time")]
    Timeout(String),
    /// No way to the server.
    #[error("{server}: {why}")]
    Unreachable {
        /// The server.
        server: String,
        /// The system's words.
        why: String,
    },
    /// An answer that cannot be trusted or read, or an error of the server's own.
    #[error("{server}: {why}")]
    Answer {
        /// The server.
        server: String,
        /// What is wrong with it.
        why: String,
    },
    /// The key is configured and cannot be used.
    #[error("the TSIG key cannot be used: {0}")]
    Key(String),
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        let text = problem.to_string();
        match problem {
            Problem::Conflict { .. } => Self::Conflict(text),
            Problem::Refused { .. } => Self::Refused(text),
            Problem::NotAuthoritative { .. } => Self::NotAuthoritative(text),
            Problem::Timeout(_) => Self::Timeout(text),
            Problem::Unreachable { .. } => Self::Unreachable(text),
            Problem::Invalid(_) | Problem::Answer { .. } | Problem::Key(_) => Self::Other(text),
        }
    }
}
