//! The engine: compiler settings and the pool of slots that instances live in.
//!
//! It refuses features that plugins do not need (GC, threads, 64-bit memories): what is not there cannot be attacked. The pool is reserved
//! at start, as address space; a machine with little of it gets a smaller pool and a warning that names what shrank, never a refusal to start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::limits::WholeMemory;
use wasmtime::{InstanceAllocationStrategy, PoolingAllocationConfig};

/// How the pool is sized. Every field is a key of `[engine]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Component instances that can live at once, over all plugins.
    pub instances: u32,
    /// The largest linear memory any plugin may be granted, in bytes.
    pub largest_memory: u64,
    /// Table elements an instance may have. Python and JavaScript need more than 10,000.
    pub table_elements: usize,
    /// Linear memory of all plugins together, in bytes.
    pub memory: u64,
    /// Idle slots whose first pages stay resident, which saves page faults and costs memory.
    pub warm_slots: u32,
}

impl EngineConfig {
    /// Sized by cores and memory: 64 instances a core, at most one for 8 MiB of memory, between 64 and 1,024.
    #[must_use]
    pub fn for_machine() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get() as u64);
        let memory = rustix::system::sysinfo();
        let bytes = (memory.totalram as u64).saturating_mul(u64::from(memory.mem_unit.max(1)));
        let instances = (cores * 64).min(bytes / (8 << 20)).clamp(64, 1024);
        Self {
            instances: u32::try_from(instances).unwrap_or(64),
            largest_memory: 512 << 20,
            // The other half is for the system, its file cache, and the host itself.
            memory: (bytes / 2).max(256 << 20),
            table_elements: 20_000,
            warm_slots: 16,
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self::for_machine()
    }
}

/// The engine and its clock. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    engine: wasmtime::Engine,
    ticker: Arc<Ticker>,
    instances: u32,
    memory: Arc<WholeMemory>,
    reservation: Option<u64>,
    /// What had to be smaller than configured, for the operator.
    shrunk: Option<String>,
}

/// No engine could be built, not even without a pool.
#[derive(Debug, thiserror::Error)]
#[error("the WebAssembly engine does not start on this machine: {0}")]
pub struct EngineError(String);

impl Engine {
    /// Builds the engine, shrinking the pool until the machine accepts it.
    pub fn new(config: &EngineConfig) -> Result<Self, EngineError> {
        let mut instances = config.instances.max(MIN_INSTANCES);
        let mut reason = String::new();
        let mut attempts = vec![(instances, Some(FULL_RESERVATION))];
        while instances > MIN_INSTANCES {
            instances = (instances / 2).max(MIN_INSTANCES);
            attempts.push((instances, Some(FULL_RESERVATION)));
        }
        attempts.push((
            config.instances.max(MIN_INSTANCES),
            Some(config.largest_memory),
        ));
        attempts.push((MIN_INSTANCES, Some(config.largest_memory)));
        attempts.push((MIN_INSTANCES, None));
        for (position, (instances, reservation)) in attempts.into_iter().enumerate() {
            match wasmtime::Engine::new(&wasmtime_config(config, instances, reservation)) {
                Ok(engine) => {
                    let shrunk = (position > 0).then(|| match reservation {
                        None => format!("no pool: instances are allocated one by one, which is slower ({reason})"),
                        Some(FULL_RESERVATION) => format!(
                            "engine.instances shrank from {} to {instances}: address space is short ({reason})",
                            config.instances
                        ),
                        Some(_) => format!(
                            "engine.instances is {instances} with bounds checks instead of guard pages: address space is short ({reason})"
                        ),
                    });
                    let ticker = Ticker::start(&engine);
                    return Ok(Self {
                        engine,
                        ticker,
                        instances,
                        memory: WholeMemory::new(config.memory),
                        reservation,
                        shrunk,
                    });
                }
                Err(error) => reason = first_line(&error.to_string()),
            }
        }
        Err(EngineError(reason))
    }

    /// wasmtime's engine.
    #[must_use]
    pub fn inner(&self) -> &wasmtime::Engine {
        &self.engine
    }

    /// Instances the pool can hold.
    #[must_use]
    pub fn instances(&self) -> u32 {
        self.instances
    }

    /// The counter of the memory of all plugins.
    #[must_use]
    pub(crate) fn memory(&self) -> &Arc<WholeMemory> {
        &self.memory
    }

    /// Address space reserved for each memory, which compiled code depends on: the argument for [`Engine::compiler`] in another process.
    #[must_use]
    pub fn reservation(&self) -> Option<u64> {
        self.reservation
    }

    /// An engine that only compiles, for the process that compiles third-party components: no pool, no clock.
    pub fn compiler(reservation: Option<u64>) -> Result<wasmtime::Engine, EngineError> {
        let mut it = code_config(reservation);
        it.parallel_compilation(false);
        wasmtime::Engine::new(&it).map_err(|error| EngineError(first_line(&error.to_string())))
    }

    /// What had to be smaller than configured, for the operator's log.
    #[must_use]
    pub fn shrunk(&self) -> Option<&str> {
        self.shrunk.as_deref()
    }

    /// While the guard lives, the epoch clock ticks at full rate.
    #[must_use]
    pub(crate) fn ticking(&self) -> Ticking {
        self.ticker.active.fetch_add(1, Ordering::Relaxed);
        Ticking(self.ticker.clone())
    }
}

/// Few enough for any machine, enough for every bundled plugin to answer.
const MIN_INSTANCES: u32 = 32;
/// Core instances of a component instance. Rust's have about five, Python's some thirty.
const MAX_CORE_INSTANCES: u32 = 64;
/// Memories of a component instance: those of any language have one, composed ones one for each part. More would let the instances of one plugin use up the
/// memories of the pool, which are places in the address space, and with them every other plugin's.
const MAX_MEMORIES: u32 = 4;
/// Tables of a component instance.
const MAX_TABLES: u32 = 32;
/// 4 GiB a memory: wasm32 code then needs no bounds checks. Address space only, not memory.
const FULL_RESERVATION: u64 = 4 << 30;
/// How long a component runs before it has to let others run. 10 ms would delay a neighbour by as much (measured).
const TICK: Duration = Duration::from_millis(1);
/// The clock's pace while no call runs, so that an idle proxy does not wake the machine a thousand times a second.
const IDLE_TICK: Duration = Duration::from_millis(20);

/// What decides how code is compiled; the compile cache is keyed by it.
fn code_config(reservation: Option<u64>) -> wasmtime::Config {
    let mut it = wasmtime::Config::new();
    it.epoch_interruption(true);
    it.memory_init_cow(true);
    it.wasm_memory64(false);
    it.wasm_backtrace_max_frames(std::num::NonZeroUsize::new(16));
    // WASI 0.3 is not served; without it calls are cheaper and there is less to attack.
    it.concurrency_support(false);
    // A component's own stack; the fibre it runs on is a little larger.
    it.max_wasm_stack(512 << 10);
    it.async_stack_size(1 << 20);
    if let Some(bytes) = reservation {
        it.memory_reservation(bytes);
        it.memory_guard_size(if bytes == FULL_RESERVATION {
            32 << 20
        } else {
            64 << 10
        });
    }
    it
}

fn wasmtime_config(
    config: &EngineConfig,
    instances: u32,
    reservation: Option<u64>,
) -> wasmtime::Config {
    let mut it = code_config(reservation);
    if reservation.is_some() {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(instances)
            // Core instances cost no room: as many as all components together may want.
            .total_core_instances(instances.saturating_mul(MAX_CORE_INSTANCES))
            .total_memories(instances + instances / 2)
            // One plugin has some twenty instances by default; with all their tables it uses up not even the smallest pool.
            .total_tables(instances.saturating_mul(16))
            .total_stacks(instances)
            .max_component_instance_size(4 << 20)
            .max_core_instance_size(4 << 20)
            .max_core_instances_per_component(MAX_CORE_INSTANCES)
            .max_memories_per_component(MAX_MEMORIES)
            .max_tables_per_component(MAX_TABLES)
            .max_memory_size(usize::try_from(config.largest_memory).unwrap_or(usize::MAX))
            .table_elements(config.table_elements)
            .max_unused_warm_slots(config.warm_slots)
            .linear_memory_keep_resident(128 << 10)
            .table_keep_resident(16 << 10)
            .async_stack_keep_resident(16 << 10);
        it.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    it
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// The epoch clock: an OS thread, since a looping component must not be able to stop it.
struct Ticker {
    active: AtomicU32,
    stop: AtomicBool,
}

impl Ticker {
    fn start(engine: &wasmtime::Engine) -> Arc<Self> {
        let ticker = Arc::new(Self {
            active: AtomicU32::new(0),
            stop: AtomicBool::new(false),
        });
        let weak = engine.weak();
        let shared = Arc::downgrade(&ticker);
        let spawned = std::thread::Builder::new()
            .name("epoch".into())
            .spawn(move || {
                let mut idle_for = 0u32;
                loop {
                    let Some(ticker) = shared.upgrade() else {
                        return;
                    };
                    if ticker.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    idle_for = if ticker.active.load(Ordering::Relaxed) > 0 {
                        0
                    } else {
                        idle_for.saturating_add(1)
                    };
                    drop(ticker);
                    let Some(engine) = weak.upgrade() else { return };
                    engine.increment_epoch();
                    drop(engine);
                    std::thread::sleep(if idle_for > 50 { IDLE_TICK } else { TICK });
                }
            });
        if let Err(error) = spawned {
            tracing::error!(%error, "the epoch clock does not start; components run without time slices");
        }
        ticker
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Keeps the epoch clock at full rate.
pub(crate) struct Ticking(Arc<Ticker>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_gets_a_pool() {
        let engine = Engine::new(&EngineConfig::for_machine()).unwrap();
        assert!(engine.instances() >= MIN_INSTANCES);
        assert_eq!(engine.shrunk(), None);
    }
}
