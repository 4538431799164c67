//! The `secrets` capability: a plugin signs, verifies and fills headers with secrets it never sees.
//!
//! It refuses to show a secret but to a plugin whose policy grants `access = "reveal"`, and to put one into a log, an error or an
//! answer: every error here is made of paths, names and sizes.

mod key_file;
pub mod secret;
pub mod source;

use std::path::PathBuf;

pub use secret::{Algorithm, Format, Key, Secret};
pub use source::{KeyRing, Source};

/// Why a secret's source gives no key. Never holds any of its content but the name of an unknown algorithm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// The file cannot be opened or read.
    #[error("{path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// A directory, FIFO, device or socket.
    #[error("{path}: not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Every user of the machine may use the file.
    #[error("{path}: every user may access it (mode {mode:o}); `chmod o= {path}`")]
    OpenToAll {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Beyond the size of any key.
    #[error("{path}: more than {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// A credential is named, but systemd gave none.
    #[error("credential {name:?}: the service has no credentials; add `LoadCredential={name}:/path` to its unit")]
    NoCredentials {
        /// The credential.
        name: String,
    },
    /// Not the name of a file in one directory.
    #[error("credential {name:?}: not a plain name")]
    BadCredentialName {
        /// The credential.
        name: String,
    },
    /// Not UTF-8.
    #[error("the key file is not text")]
    NotText,
    /// Not base64.
    #[error("the secret is not base64")]
    NotBase64,
    /// No bytes.
    #[error("the secret is empty")]
    Empty,
    /// The key file has a form that is not understood.
    #[error("the key file is not of the form `key \"NAME\" {{ algorithm ALGORITHM; secret \"BASE64\"; }};`: expected {what}")]
    Expected {
        /// What should have come.
        what: &'static str,
    },
    /// More than one key.
    #[error("the key file holds several keys; give each its own file")]
    SeveralKeys,
    /// An algorithm the host cannot compute.
    #[error("algorithm {name:?} is none of hmac-md5, hmac-sha1, hmac-sha256, hmac-sha384, hmac-sha512")]
    UnknownAlgorithm {
        /// As the file names it.
        name: String,
    },
}
