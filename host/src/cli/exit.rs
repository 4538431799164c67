//! How commands end: what went wrong, and the exit code that scripts see.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use super::client::ClientError;

/// The promise of [`Failure::exit_code`], shown in the help.
pub const CODES: &str =
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the configuration or a policy is wrong.";

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The running host could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Configuration or policies are wrong; the text lists every problem.
    #[error("{0}")]
    Configuration(String),
    /// The host does not start.
    #[error("{0}")]
    Start(String),
    /// `doctor` found so many problems; they are printed already.
    #[error("{0} problem(s) found; what to do stands beside each")]
    Found(usize),
    /// A file is no plugin that this program can run.
    #[error("{file}: {problem}", file = .file.display())]
    Unfit {
        /// Which.
        file: PathBuf,
        /// Why not.
        problem: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What was printed did not arrive.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// 3 for what the operator has to correct in a file, else 1. (2 is given for wrong usage before any command runs.)
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Configuration(_) => ExitCode::from(3),
            Self::Client(_)
            | Self::Start(_)
            | Self::Found(_)
            | Self::Unfit { .. }
            | Self::File { .. }
            | Self::Output(_) => ExitCode::FAILURE,
        }
    }

    /// The reader of the output went away, as `head` does.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
