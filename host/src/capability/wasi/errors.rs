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
    /// Refused by the host's own rules, with the plugin's word for it.
    #[error("refused: {0:?}")]
    Refused(ErrorCode),
}

impl FileError {
    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Self::Walk(error) => walk_code(error),
            Self::Io(error) => code(error),
            Self::Refused(code) => *code,
        }
    }
}
