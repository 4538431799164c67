//! The limiter of an instance, and the counter of its plugin's memory.
//!
//! wasmtime's own limiter bounds each memory; a component can have 32 of them and a plugin many instances. This one bounds the
//! sum over an instance and the sum over the plugin.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::grant::limits::Limits;

/// Counts the memory of all instances of one plugin.
#[derive(Debug, Default)]
pub struct MemoryMeter {
    used: AtomicU64,
}

impl MemoryMeter {
    /// Bytes of linear memory in use now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64, limit: u64) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= limit)
            })
            .is_ok()
    }

    fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
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
const TABLES: usize = 64;
const MEMORIES: usize = 32;
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
        if !self.meter.take(more, self.memory_total) {
            self.refused = Some(format!(
                "limits.memory-total = {} bytes is used up",
                self.memory_total
            ));
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
