//! Why a call gave no answer. Turned into HTTP by `server`, into typed errors by provider calls, into log lines here.

use std::time::Duration;

/// Why a call of a plugin gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// All turns are taken and the queue is full, or the wait was too long.
    #[error("busy: {reason}; try again in {} s", retry_after.as_secs())]
    Busy {
        /// What is full.
        reason: String,
        /// When it may be worth trying again.
        retry_after: Duration,
    },
    /// The plugin is starting, draining, or waits for approval.
    #[error("not ready: {0}")]
    NotReady(String),
    /// The wall time of the call ran out.
    #[error("no answer within limits.time = {} ms", .0.as_millis())]
    Deadline(Duration),
    /// The CPU time of the call ran out.
    #[error("used more than limits.cpu = {} ms of CPU time", .0.as_millis())]
    CpuLimit(Duration),
    /// The component trapped: a panic, an unreachable instruction, a limit inside the sandbox.
    #[error("trapped ({kind}): {detail}")]
    Trapped {
        /// One word for metrics: `unreachable`, `stack`, `memory`, `bounds`, `transfer`, `other`.
        kind: &'static str,
        /// For the log only.
        detail: String,
    },
    /// The component does not export what was called.
    #[error("does not export `{0}`")]
    Missing(String),
    /// The caller's policy does not grant this call.
    #[error("denied: {0}")]
    Denied(String),
}

impl CallError {
    /// One word, for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "busy",
            Self::NotReady(_) => "not-ready",
            Self::Deadline(_) => "deadline",
            Self::CpuLimit(_) => "cpu",
            Self::Trapped { kind, .. } => kind,
            Self::Missing(_) => "missing",
            Self::Denied(_) => "denied",
        }
    }

    /// From what wasmtime says. `refused` is the limiter's word, when memory was denied before the trap.
    pub(crate) fn from_wasmtime(error: &wasmtime::Error, refused: Option<&str>) -> Self {
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return Self::Busy {
                reason: "engine.instances: every slot of the pool is taken".into(),
                retry_after: Duration::from_secs(1),
            };
        }
        let kind = match error.downcast_ref::<wasmtime::Trap>() {
            Some(wasmtime::Trap::UnreachableCodeReached) if refused.is_some() => "memory",
            Some(wasmtime::Trap::UnreachableCodeReached) => "unreachable",
            Some(wasmtime::Trap::StackOverflow) => "stack",
            Some(wasmtime::Trap::MemoryOutOfBounds | wasmtime::Trap::TableOutOfBounds) => "bounds",
            _ if format!("{error:#}").contains("fuel") => "transfer",
            _ => "other",
        };
        let mut detail = format!("{error:#}");
        if let Some(refused) = refused {
            detail = format!("{refused}; {detail}");
        }
        Self::Trapped { kind, detail }
    }
}
