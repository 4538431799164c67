//! How what went wrong in the host's file system is said to a plugin. The only place that does.

use std::io;

use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;

use crate::capability::beneath::WalkError;

/// The plugin's word for a system error.
pub(super) fn code(error: &io::Error) -> ErrorCode {
    match error.kind() {
        io::ErrorKind::QuotaExceeded => ErrorCode::Quota,
        io::ErrorKind::CrossesDevices => ErrorCode::CrossDevice,
        io::ErrorKind::ReadOnlyFilesystem => ErrorCode::ReadOnly,
        io::ErrorKind::ExecutableFileBusy => ErrorCode::TextFileBusy,
        _ => ErrorCode::from(error),
    }
}

/// The plugin's word for a walk that ended nowhere.
pub(super) fn walk_code(error: &WalkError) -> ErrorCode {
    match error {
        WalkError::LeadsOut => ErrorCode::NotPermitted,
        WalkError::NotFound => ErrorCode::NoEntry,
        WalkError::NotDirectory => ErrorCode::NotDirectory,
        WalkError::Loop => ErrorCode::Loop,
        WalkError::TooLong => ErrorCode::NameTooLong,
        WalkError::Invalid => ErrorCode::Invalid,
        WalkError::Io(error) => code(error),
    }
}

/// What a directory operation ended with.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error(transparent)]
    Walk(#[from] WalkError),
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file system's own rules forbid it, with the plugin's word for it.
    #[error("refused: {0:?}")]
    Refused(ErrorCode),
    /// The host forbids it, whatever the policy says. Audited.
    #[error("{0}")]
    Forbidden(&'static str),
}

impl FileError {
    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Self::Walk(error) => walk_code(error),
            Self::Io(error) => code(error),
            Self::Refused(code) => *code,
            Self::Forbidden(_) => ErrorCode::NotPermitted,
        }
    }

    /// What the audit says, if it is a matter for the audit.
    pub(super) fn denial(&self) -> Option<&'static str> {
        match self {
            Self::Walk(WalkError::LeadsOut) => Some("the path leads out of the granted directory"),
            Self::Forbidden(reason) => Some(reason),
            Self::Walk(_) | Self::Io(_) | Self::Refused(_) => None,
        }
    }
}
