//! What one plugin may use up. Each limit has a default with its reason; `[limits]` in `proxy.toml` changes it for all
//! plugins, `[limits]` in a policy for one.

use std::time::Duration;

/// The limits of one plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `memory`: bytes of all linear memories of one instance together.
    pub memory: u64,
    /// `memory-total`: bytes of all instances together.
    pub memory_total: u64,
    /// `cpu`: CPU time of one call.
    pub cpu: Duration,
    /// `time`: wall time of one call.
    pub time: Duration,
    /// `concurrency`: calls at a time.
    pub concurrency: u32,
    /// `queue`: calls waiting beyond that.
    pub queue: u32,
    /// `queue-time`: how long a call waits before 503.
    pub queue_time: Duration,
    /// `instances`: live instances.
    pub instances: u32,
    /// `reuse`: calls before a pooled instance is replaced.
    pub reuse: u32,
    /// `handles`: open resources of one instance.
    pub handles: u32,
    /// `tables`: elements of one table.
    pub table_elements: u32,
    /// `host-call`: bytes moved by one host call.
    pub host_call: u64,
    /// `open-files`: open descriptors of all instances together.
    pub open_files: u32,
    /// `file-calls`: file operations under way at a time.
    pub file_calls: u32,
    /// `log-lines`: a second.
    pub log_lines: u32,
    /// `request-body`: bytes of a request handed over whole.
    pub request_body: u64,
    /// `reply-body`: bytes of a reply.
    pub reply_body: u64,
    /// `forward-body`: bytes of a request streamed into a forward.
    pub forward_body: u64,
    /// `random`: bytes of randomness in one call.
    pub random: u64,
    /// `status-every`: how often `status` is asked.
    pub status_every: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 128 << 20,             // Python and JavaScript guests start near 40 MiB
            memory_total: 512 << 20,       // four of the largest
            cpu: Duration::from_secs(5),   // promised by the contract
            time: Duration::from_secs(30), // promised by the contract; Foreman waits 60 s
            concurrency: 32,               // more only fights for the same cores
            queue: 256,                    // a burst of installing hosts
            queue_time: Duration::from_secs(5), // clients retry after 503; Foreman gives up at 60 s
            instances: 32,                 // as many as calls
            reuse: 1000,                   // bounds what a leak in a guest can gather
            handles: 4096,                 // a guest needs tens
            table_elements: 100_000,       // interpreters need more than 20,000
            host_call: 8 << 20,            // one reply
            open_files: 256,               // a quarter of the usual 1,024 of a process
            file_calls: 16,                // a hanging network file system holds no more threads
            log_lines: 100,                // promised by the contract
            request_body: 1 << 20,         // promised by the contract
            reply_body: 8 << 20,           // promised by the contract
            forward_body: 64 << 20,        // reports and facts are a few MiB
            random: 64 << 10,              // keys and tokens are small
            status_every: Duration::from_secs(60), // promised by the contract
        }
    }
}
