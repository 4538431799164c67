//! Tells kept instances that somebody else changed a space of the store.
//!
//! The one idea: a counter a space and writer. A listener compares counters, so a burst of changes is one look, and its own changes are none.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// Writers remembered a space. New versions of plugins come and go; the oldest are forgotten, which tells listeners nothing new.
const WRITERS: usize = 64;

/// One a host.
#[derive(Debug)]
pub struct Bell {
    spaces: Mutex<HashMap<String, Vec<Ring>>>,
    rung: watch::Sender<u64>,
}

/// How often one set of instances changed a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ring {
    /// The set of instances.
    pub by: u64,
    /// Grows with each change.
    pub count: u64,
}

impl Default for Bell {
    fn default() -> Self {
        Self {
            spaces: Mutex::default(),
            rung: watch::Sender::new(0),
        }
    }
}

impl Bell {
    /// A set of instances changed a space.
    pub fn ring(&self, space: &str, by: u64) {
        // Most hosts have no kept instance that listens; then this costs a load.
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        let rings = match spaces.get_mut(space) {
            Some(rings) => rings,
            None => spaces.entry(space.to_owned()).or_default(),
        };
        match rings.iter_mut().find(|ring| ring.by == by) {
            Some(ring) => ring.count += 1,
            None => {
                if rings.len() >= WRITERS {
                    rings.remove(0);
                }
                rings.push(Ring { by, count: 1 });
            }
        }
        drop(spaces);
        self.rung.send_modify(|count| *count += 1);
    }

    /// Who changed a space how often.
    #[must_use]
    pub fn of(&self, space: &str) -> Vec<Ring> {
        let spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        spaces.get(space).cloned().unwrap_or_default()
    }

    /// Moves on with every ring.
    #[must_use]
    pub fn listen(&self) -> watch::Receiver<u64> {
        self.rung.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_counted_by_writer_and_space() {
        let bell = Bell::default();
        let listener = bell.listen();
        bell.ring("a", 1);
        bell.ring("a", 1);
        bell.ring("a", 2);
        assert!(listener.has_changed().unwrap());
        let ring = |by, count| Ring { by, count };
        assert_eq!(bell.of("a"), [ring(1, 2), ring(2, 1)]);
        assert_eq!(bell.of("b"), []);
    }
}
