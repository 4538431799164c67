//! Memory that clients share, so that a few of them cannot take it from the others.
//!
//! It refuses what is not there, and takes nothing back from who has it.
//!
//! The one idea: a client may hold as much as it leaves free. One alone gets half of the memory, of two each gets a third, and whatever so many
//! take, as much as each of them has is left for who comes next. Nobody has to be known as hostile, and nobody who asks for little waits for
//! those who ask for much.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The memory.
#[derive(Debug, Clone)]
pub(super) struct Shares(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Bytes.
    free: u64,
    /// Bytes of each client that has any.
    taken: HashMap<IpAddr, u64>,
}

/// There is not so much left for this client.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// What one body has of the memory; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    memory: Shares,
    client: Option<IpAddr>,
    bytes: u64,
}

impl Shares {
    /// So many bytes for all.
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: bytes as u64,
            taken: HashMap::new(),
        })))
    }

    /// A share of this client, with nothing in it yet. `None`: of somebody who may take all, as Foreman.
    pub(super) fn of(&self, client: Option<IpAddr>) -> Share {
        Share {
            memory: self.clone(),
            client,
            bytes: 0,
        }
    }

    /// Bytes that nobody has.
    #[cfg(test)]
    pub(super) fn free(&self) -> u64 {
        self.state().free
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Makes it at least so large.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), Full> {
        let missing = bytes.saturating_sub(self.bytes);
        if missing == 0 {
            return Ok(());
        }
        let mut state = self.memory.state();
        let left = state.free.checked_sub(missing).ok_or(Full)?;
        if let Some(client) = self.client {
            let taken = state.taken.get(&client).copied().unwrap_or_default();
            let taken = taken.saturating_add(missing);
            if taken > left {
                return Err(Full);
            }
            state.taken.insert(client, taken);
        }
        state.free = left;
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut state = self.memory.state();
        state.free = state.free.saturating_add(self.bytes);
        let Some(client) = self.client else { return };
        if let Some(taken) = state.taken.get_mut(&client) {
            *taken = taken.saturating_sub(self.bytes);
            if *taken == 0 {
                state.taken.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, number]))
    }

    #[test]
    fn whoever_takes_much_leaves_as_much_for_the_others() {
        let memory = Shares::new(12_000);
        let mut held = Vec::new();
        // Each takes all it gets, a little at a time.
        for number in 1..=3 {
            loop {
                let mut share = memory.of(client(number));
                if share.grow(100) == Err(Full) {
                    break;
                }
                held.push(share);
            }
        }
        assert_eq!(memory.free(), 1500);
        let mut other = memory.of(client(9));
        assert_eq!((other.grow(500), other.grow(750)), (Ok(()), Ok(())));
        assert_eq!(other.grow(800), Err(Full));
        drop(held);
        assert_eq!(other.grow(6000), Ok(()));
        assert_eq!(other.grow(6001), Err(Full));
        drop(other);
        assert_eq!(memory.free(), 12_000);
        assert!(memory.state().taken.is_empty());
    }

    #[test]
    fn somebody_who_is_trusted_may_take_all() {
        let memory = Shares::new(1000);
        let mut all = memory.of(None);
        assert_eq!((all.grow(1000), all.grow(1001)), (Ok(()), Err(Full)));
        assert_eq!(memory.of(client(1)).grow(1), Err(Full));
        drop(all);
        assert_eq!(memory.of(client(1)).grow(500), Ok(()));
    }
}
