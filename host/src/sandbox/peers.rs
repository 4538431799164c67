//! Which plugin serves an interface that another imports.
//!
//! The two keep separate instances, limits and grants. The table is replaced as a whole when plugins come and go; a call in flight keeps
//! the version it began with.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::pool::Sandbox;

/// Running plugins by name, for calls between them. Cheap to clone.
#[derive(Clone, Default)]
pub struct Peers {
    running: Arc<ArcSwap<HashMap<String, Arc<Sandbox>>>>,
}

impl Peers {
    /// The running plugin of that name.
    #[must_use]
    pub fn get(&self, plugin: &str) -> Option<Arc<Sandbox>> {
        self.running.load().get(plugin).cloned()
    }

    /// Puts a plugin in its place; answers the one it replaces.
    pub fn put(&self, plugin: &str, sandbox: Arc<Sandbox>) -> Option<Arc<Sandbox>> {
        let mut before = None;
        self.running.rcu(|now| {
            let mut next = HashMap::clone(now);
            before = next.insert(plugin.to_owned(), sandbox.clone());
            next
        });
        before
    }

    /// Takes a plugin away.
    pub fn remove(&self, plugin: &str) -> Option<Arc<Sandbox>> {
        let mut before = None;
        self.running.rcu(|now| {
            let mut next = HashMap::clone(now);
            before = next.remove(plugin);
            next
        });
        before
    }
}
