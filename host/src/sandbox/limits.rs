//! The limiter of an instance, and the counter of its plugin's memory.
//!
//! wasmtime's own limiter bounds each memory; a component can have several of them and a plugin many instances. This one bounds the
//! sum over an instance, the sum over the plugin, and the sum over all plugins.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::grant::limits::Limits;

/// Counts the memory of all instances of one plugin.
#[derive(Debug, Default)]
pub struct MemoryMeter {
    used: AtomicU64,
    /// All plugins together.
    whole: Option<Arc<WholeMemory>>,
}

/// Counts the memory of all plugins of a host.
#[derive(Debug)]
pub struct WholeMemory {
    used: AtomicU64,
    /// Bytes.
    limit: u64,
}

impl WholeMemory {
    /// Nothing used yet.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicU64::new(0),
            limit,
        })
    }
}

fn take(counter: &AtomicU64, bytes: u64, limit: u64) -> bool {
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= limit)
        })
        .is_ok()
}

impl MemoryMeter {
    /// The counter of one plugin of a host.
    #[must_use]
    pub fn of(whole: &Arc<WholeMemory>) -> Self {
        Self {
            used: AtomicU64::new(0),
            whole: Some(whole.clone()),
        }
    }

    /// Bytes of linear memory in use now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes bytes for the plugin and for the whole, or says which of the two has none left.
    fn take(&self, bytes: u64, limit: u64) -> Result<(), String> {
        if !take(&self.used, bytes, limit) {
            return Err(format!("limits.memory-total = {limit} bytes is used up"));
        }
        match &self.whole {
            Some(whole) if !take(&whole.used, bytes, whole.limit) => {
                self.used.fetch_sub(bytes, Ordering::Relaxed);
                Err(format!(
                    "engine.memory = {} bytes, for all plugins together, is used up",
                    whole.limit
                ))
            }
            _ => Ok(()),
        }
    }

    fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// The limiter of one instance.
pub(crate) struct InstanceLimiter {
    meter: Arc<MemoryMeter>,
    used: u64,
    memory: u64,
    memory_total: u64,
    /// Set when growth was refused, so that a failing call can say why.
    pub(crate) refused: Option<String>,
}

impl InstanceLimiter {
    pub(crate) fn new(limits: &Limits, meter: Arc<MemoryMeter>) -> Self {
        Self {
            meter,
            used: 0,
            memory: limits.memory,
            memory_total: limits.memory_total,
            refused: None,
        }
    }
}

impl Drop for InstanceLimiter {
    fn drop(&mut self) {
        self.meter.give(self.used);
    }
}

/// Tables, memories and core instances of one instance: Spin's and wasmtime's components stay far below.
const TABLES: usize = 32;
const MEMORIES: usize = 4;
const INSTANCES: usize = 200;
/// Elements of one table; Python has about 12,000 functions.
const TABLE_ELEMENTS: usize = 100_000;

impl wasmtime::ResourceLimiter for InstanceLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        if self.used.saturating_add(more) > self.memory {
            self.refused = Some(format!("limits.memory = {} bytes is used up", self.memory));
            return Ok(false);
        }
        if let Err(reason) = self.meter.take(more, self.memory_total) {
            self.refused = Some(reason);
            return Ok(false);
        }
        self.used += more;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        TABLES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::ResourceLimiter;

    const MIB: usize = 1 << 20;

    #[test]
    fn many_memories_share_one_limit() {
        let limits = Limits {
            memory: 4 << 20,
            ..Limits::default()
        };
        let mut limiter = InstanceLimiter::new(&limits, Arc::default());
        for _ in 0..4 {
            assert!(limiter.memory_growing(0, MIB, None).unwrap());
        }
        assert!(!limiter.memory_growing(0, MIB, None).unwrap());
        assert!(limiter.refused.is_some());
    }

    #[test]
    fn many_plugins_share_the_hosts_limit_and_give_back() {
        let limits = Limits::default();
        let whole = WholeMemory::new(6 << 20);
        let meters = [1, 2].map(|_| Arc::new(MemoryMeter::of(&whole)));
        let mut one = InstanceLimiter::new(&limits, meters[0].clone());
        let mut two = InstanceLimiter::new(&limits, meters[1].clone());
        assert!(one.memory_growing(0, 4 * MIB, None).unwrap());
        assert!(!two.memory_growing(0, 4 * MIB, None).unwrap());
        assert!(two.refused.as_ref().unwrap().contains("engine.memory"));
        assert_eq!(meters[1].used(), 0);
        drop(one);
        assert!(two.memory_growing(0, 4 * MIB, None).unwrap());
    }

    #[test]
    fn many_instances_share_the_plugins_limit_and_give_back() {
        let limits = Limits {
            memory: 4 << 20,
            memory_total: 6 << 20,
            ..Limits::default()
        };
        let meter = Arc::new(MemoryMeter::default());
        let mut one = InstanceLimiter::new(&limits, meter.clone());
        let mut two = InstanceLimiter::new(&limits, meter.clone());
        assert!(one.memory_growing(0, 4 * MIB, None).unwrap());
        assert!(!two.memory_growing(0, 4 * MIB, None).unwrap());
        drop(one);
        assert!(two.memory_growing(0, 4 * MIB, None).unwrap());
        drop(two);
        assert_eq!(meter.used(), 0);
    }
}
