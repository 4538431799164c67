//! Work that may block a thread, bounded per plugin.
//!
//! A file operation on a file server that does not answer never returns, and nothing can stop it. Its slot is given back only when
//! the operation ends, even if the call that asked for it is long gone. So a plugin can lose its own slots to
//! a dead file server, and no more than those; other plugins keep theirs.

use std::io;
use std::sync::Arc;

use tokio::sync::Semaphore;

/// The slots of one plugin for blocking work; clones share them.
#[derive(Debug, Clone)]
pub struct Blocking {
    slots: Arc<Semaphore>,
}

impl Blocking {
    /// At most `slots` operations at a time, at least one.
    pub fn new(slots: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(slots.max(1))),
        }
    }

    /// Waits for a slot, then runs `work` on a thread of the runtime's blocking pool.
    ///
    /// # Errors
    /// When `work` panicked or the runtime is stopping.
    pub async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<R> {
        let slot = self
            .slots
            .clone()
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let work = move || {
            let _slot = slot;
            work()
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test]
    async fn an_abandoned_operation_keeps_its_slot_until_it_ends() {
        let blocking = Blocking::new(1);
        let (release, hang) = mpsc::channel::<()>();
        let hanging = blocking.run(move || hang.recv());
        assert!(
            tokio::time::timeout(Duration::from_millis(20), hanging)
                .await
                .is_err()
        );
        assert!(
            tokio::time::timeout(Duration::from_millis(50), blocking.run(|| ()))
                .await
                .is_err()
        );
        release.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), blocking.run(|| ()))
            .await
            .unwrap()
            .unwrap();
    }
}
