//! What can go wrong between this plugin, its files and dhcpd, and what the feature is told.

use bulkhead_sdk::dhcp::Error;

/// Why something was not read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The request is none that dhcpd can carry.
    #[error("{0}")]
    Invalid(String),
    /// Another reservation holds the address or the MAC address.
    #[error("{0}")]
    Conflict(String),
    /// No subnet of that prefix is declared.
    #[error("no subnet {0} is declared")]
    UnknownSubnet(String),
    /// A host of `dhcpd.conf`, or a lease.
    #[error("{0} is static - unable to delete")]
    NotDeletable(String),
    /// dhcpd understood, and will not. Its words.
    #[error("{0}")]
    Refused(String),
    /// A file cannot be read. The path, and why.
    #[error("cannot read {path}: {why}")]
    File {
        /// Where.
        path: String,
        /// The host's words.
        why: String,
    },
    /// A file does not say what dhcpd would accept.
    #[error("{path}:{line}: {why}")]
    Syntax {
        /// Where.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        why: String,
    },
    /// No answer in time.
    #[error("No response from DHCP server: {server} did not answer within {seconds} s")]
    Timeout {
        /// Name and port.
        server: String,
        /// How long was waited.
        seconds: u64,
    },
    /// No way to the server, or the connection broke.
    #[error("No response from DHCP server: {server}: {why}")]
    Unreachable {
        /// Name and port.
        server: String,
        /// The system's words.
        why: String,
    },
    /// An answer that cannot be trusted or read.
    #[error("{server} does not speak OMAPI as expected: {why}")]
    Answer {
        /// Name and port.
        server: String,
        /// What is wrong with it.
        why: String,
    },
    /// The key is configured and cannot be used.
    #[error("the OMAPI key cannot be used: {0}")]
    Key(String),
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        let text = problem.to_string();
        match problem {
            Problem::Conflict(_) => Self::Conflict(text),
            Problem::UnknownSubnet(_) => Self::UnknownSubnet,
            Problem::NotDeletable(_) => Self::NotDeletable(text),
            Problem::Refused(_) | Problem::Invalid(_) => Self::Refused(text),
            Problem::Timeout { .. } => Self::Timeout(text),
            Problem::Unreachable { .. } => Self::Unreachable(text),
            Problem::File { .. }
            | Problem::Syntax { .. }
            | Problem::Answer { .. }
            | Problem::Key(_) => Self::Other(text),
        }
    }
}
